use pointsman_sdk::merger::{Resolution, Side};
use proptest::prelude::*;

use super::*;

fn merge(path: &str, base: &str, ours: &str, theirs: &str) -> HunkOutcome {
    let place = Place { path: path.to_owned(), media_type: String::new() };
    let hunk = Hunk { base: base.into(), ours: ours.into(), theirs: theirs.into() };
    MergeImports::from_json("").expect("fits").merge_hunk(&place, &hunk)
}

fn resolution(outcome: HunkOutcome) -> Resolution {
    match outcome {
        HunkOutcome::Resolved(resolution) => resolution,
        other @ (HunkOutcome::Conflict(_) | HunkOutcome::Declined) => panic!("{other:?}"),
    }
}

fn merged(path: &str, base: &str, ours: &str, theirs: &str) -> String {
    String::from_utf8(resolution(merge(path, base, ours, theirs)).bytes).expect("text")
}

#[test]
fn statements_of_both_sides_stand_sorted() {
    // Theirs is not sorted, so each addition stays behind its neighbour.
    assert_eq!(
        merged("a.rs", "use a;\nuse m;\n", "use a;\nuse b;\nuse m;\n", "use a;\nuse m;\nuse c;\n"),
        "use a;\nuse b;\nuse m;\nuse c;\n"
    );
    assert_eq!(merged("a.rs", "use a;\n", "use a;\nuse z;\n", "use a;\nuse m;\n"), "use a;\nuse m;\nuse z;\n");
    assert_eq!(merged("x/a.py", "", "import os\n", "import abc\n"), "import abc\nimport os\n");
    assert_eq!(merged("a.go", "", "\t\"os\"\n\t\"strings\"\n", "\t\"fmt\"\n\t\"os\"\n"), "\t\"fmt\"\n\t\"os\"\n\t\"strings\"\n");
    assert_eq!(
        merged("A.java", "import a.B;\n", "import a.B;\nimport a.D;\n", "import a.B;\nimport a.C;\n"),
        "import a.B;\nimport a.C;\nimport a.D;\n"
    );
    assert_eq!(merged("a.ts", "", "import a from 'a';\nimport './z.css';\n", "import { b } from \"b\";\n").lines().count(), 3);
}

#[test]
fn a_block_without_order_keeps_ours_then_theirs() {
    let base = "#include \"z.h\"\n#include \"a.h\"\n";
    let ours = format!("{base}#include \"m.h\"\n");
    let theirs = format!("{base}#include \"k.h\"\n");
    assert_eq!(merged("a.cpp", base, &ours, &theirs), format!("{base}#include \"m.h\"\n#include \"k.h\"\n"));
    assert_eq!(merged("a.h", "", "#include <z.h>\n", "#include <a.h>\n"), "#include <z.h>\n#include <a.h>\n");
}

#[test]
fn what_one_side_removed_is_gone() {
    assert_eq!(
        merged("a.py", "import a\nimport b\n", "import b\nimport c\n", "import a\nimport b\nimport d\n"),
        "import b\nimport c\nimport d\n"
    );
}

#[test]
fn names_from_one_module_become_one_statement() {
    let result = resolution(merge("a.rs", "use a::{b};\n", "use a::{b, d};\n", "use a::{b, c};\n"));
    assert_eq!(result.bytes, b"use a::{b, c, d};\n");
    assert_eq!(result.discards.len(), 2, "both lines are reworded, and named");
    assert_eq!(merged("a.py", "", "from m import x as y\n", "from m import a\n"), "from m import a, x as y\n");
    assert_eq!(
        merged("a.js", "import { a } from 'm';\n", "import { a, z } from 'm';\n", "import { b } from 'm';\n"),
        "import { b, z } from 'm';\n"
    );
    assert_eq!(merged("a.js", "", "const { x } = require('m');\n", "const { y } = require('m');\n"), "const { x, y } = require('m');\n");
    assert_eq!(merged("a.rs", "use a::{self, b};\n", "use a::{self, b, c};\n", "use a::{self};\n"), "use a::{self, c};\n");
}

#[test]
fn groups_are_merged_each_by_itself() {
    let base = "use std::io;\n\nuse serde::Serialize;\n";
    let ours = "use std::fs;\nuse std::io;\n\nuse serde::Serialize;\n";
    let theirs = "use std::io;\nuse std::mem;\n\nuse blake3::Hash;\nuse serde::Serialize;\n";
    assert_eq!(
        merged("a.rs", base, ours, theirs),
        "use std::fs;\nuse std::io;\nuse std::mem;\n\nuse blake3::Hash;\nuse serde::Serialize;\n"
    );
    assert_eq!(merge("a.rs", "use a;\n", "use a;\n\nuse b;\n", "use a;\nuse c;\n"), HunkOutcome::Declined);
}

#[test]
fn one_name_from_two_places_is_a_conflict() {
    let found = merge("a.rs", "", "use a::Result;\n", "use b::Result;\n");
    assert_eq!(found, HunkOutcome::Conflict("the sides import `Result` from different places".to_owned()));
    assert!(matches!(merge("a.py", "", "import numpy as np\n", "import numpad as np\n"), HunkOutcome::Conflict(_)));
    assert_eq!(merged("a.py", "", "import a.b\n", "import a.c\n"), "import a.b\nimport a.c\n");
}

#[test]
fn other_lines_are_declined() {
    for (path, line) in [
        ("a.rs", "fn x() {}\n"),
        ("a.rs", "use a::{b,\n"),
        ("a.rs", "#[cfg(test)]\n"),
        ("a.py", "import_this()\n"),
        ("a.js", "import('x').then(y);\n"),
        ("a.go", "x := \"a b\"\n"),
        ("a.c", "#define X\n"),
        ("a.txt", "use a;\n"),
        ("Makefile", "include x\n"),
    ] {
        assert_eq!(merge(path, "", line, "use a;\n"), HunkOutcome::Declined, "{line}");
    }
}

#[test]
fn the_higher_version_holds_and_the_lower_is_named() {
    let result = resolution(merge("Cargo.toml", "version = \"1.2.0\"\n", "version = \"1.2.1\"\n", "version = \"1.10.0\"\n"));
    assert_eq!(result.bytes, b"version = \"1.10.0\"\n");
    assert_eq!((result.discards[0].side, result.discards[0].reason.as_str()), (Side::Ours, "1.10.0 is higher than 1.2.1"));
    assert_eq!(merged("p.json", "  \"a\": \"^1.0.0\",\n", "  \"a\": \"^1.1.0\",\n", "  \"a\": \"^1.0.9\",\n"), "  \"a\": \"^1.1.0\",\n");
    assert_eq!(merged("x", "# v1.0.0-rc.1\n", "# v1.0.0\n", "# v1.0.0-rc.2\n"), "# v1.0.0\n");
    assert_eq!(merged("x", "version: 1.2\nx\n", "version: 1.3\nx\n", "version: 1.4\nx\n"), "version: 1.4\nx\n");
}

#[test]
fn numbers_that_are_no_raised_versions_are_declined() {
    for (base, ours, theirs) in [
        ("timeout = 1.5\n", "timeout = 2.5\n", "timeout = 3.5\n"),
        ("v 1.2.3\n", "v 1.2.2\n", "v 1.2.4\n"),
        ("host 10.0.0.1\n", "host 10.0.0.2\n", "host 10.0.0.3\n"),
        ("a 1.0.0 b 1.0.0\n", "a 1.0.1 b 1.0.0\n", "a 1.0.2 b 1.0.0\n"),
        ("a 1.0.0\n", "b 1.0.1\n", "a 1.0.2\n"),
        ("a 1.0.0\n", "a 1.0.1\nb\n", "a 1.0.2\n"),
        ("a 1.0.0\n", "a 1.0.1+x\n", "a 1.0.1+y\n"),
    ] {
        assert_eq!(merge("x.toml", base, ours, theirs), HunkOutcome::Declined, "{base}");
    }
    let none = MergeImports::from_json(r#"{"versions":false}"#).expect("fits");
    assert!(none.describe().paths.contains(&"*.rs".to_owned()));
}

fn imports() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set("[a-f]", 0..5).prop_map(|set| set.into_iter().collect())
}

fn written(names: &[String]) -> String {
    names.iter().map(|name| format!("use {name}::x as {name};\n")).collect()
}

proptest! {
    #[test]
    fn agrees_with_a_merge_of_sets(base in imports(), ours in imports(), theirs in imports()) {
        let mut expected: Vec<String> = base.iter().chain(&ours).chain(&theirs)
            .filter(|name| if base.contains(name) { ours.contains(name) && theirs.contains(name) } else { true })
            .cloned().collect();
        expected.sort();
        expected.dedup();
        if !ours.is_empty() || !theirs.is_empty() {
            prop_assert_eq!(merged("a.rs", &written(&base), &written(&ours), &written(&theirs)), written(&expected));
        }
    }

    #[test]
    fn any_text_is_judged_without_a_trap(path in "[a-z]\\.(rs|py|ts|go|java|h)", base in ".{0,20}", ours in "(use |import |from |#include )?.{0,20}\n?", theirs in ".{0,20}\n?") {
        let _ = merge(&path, &base, &ours, &theirs);
    }
}
