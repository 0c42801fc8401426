//! The house rules, read off the sources, so that nobody has to remember them: who may know whom, how long a file may
//! be, what no file may say. Each message names the place and the rule.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines a source file may have.
const LINES_MAX: usize = 800;
/// Lines the program's entry may have.
const MAIN_LINES_MAX: usize = 120;

/// What was found: a place and the rule it breaks.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, file: &Source, line: usize, rule: impl AsRef<str>) {
        self.0.push(format!("{}:{line}: {}", file.path, rule.as_ref()));
    }

    fn none(self, rule: &str) {
        let mut text = String::new();
        for finding in &self.0 {
            let _ = writeln!(text, "  {finding}");
        }
        assert!(self.0.is_empty(), "{rule}\n{text}");
    }
}

/// A source file.
struct Source {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Returns the lines with their numbers, without comments and without what stands between quotes.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, code_of(line)))
    }

    /// Returns whether it is compiled for tests only, which may look at anything.
    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    fn is_under(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    }
}

/// Returns a line up to its comment, with the content of texts on one line taken out.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut chars = line.chars().peekable();
    let mut in_text = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_text => {
                chars.next();
            }
            '"' => {
                in_text = !in_text;
                code.push(c);
            }
            '\'' if !in_text && chars.peek() == Some(&'"') => {
                // The character literal '"'.
                chars.next();
                code.push_str("'_");
            }
            '/' if !in_text && chars.peek() == Some(&'/') => return code,
            _ if in_text => {}
            _ => code.push(c),
        }
    }
    code
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live in the workspace").to_owned()
}

/// Returns every file with this ending below the folders, in the order of their paths.
fn sources(folders: &[&str], ending: &str) -> Vec<Source> {
    fn collect(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if !["target", "node_modules", "dist", "fixtures", ".git"].iter().any(|skipped| name == *skipped) {
                    collect(&path, ending, found);
                }
            } else if path.extension().is_some_and(|own| own == ending) {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    for folder in folders {
        collect(&root.join(folder), ending, &mut found);
    }
    found.sort();
    let read = |path: &PathBuf| Source {
        path: path.strip_prefix(&root).expect("found below the root").to_string_lossy().replace('\\', "/"),
        text: fs::read_to_string(path).expect("a source file is readable UTF-8"),
    };
    let sources: Vec<Source> = found.iter().map(read).collect();
    assert!(!sources.is_empty(), "no {ending} file below {folders:?}: has the layout changed?");
    sources
}

fn rust() -> Vec<Source> {
    sources(&["host", "plugins", "tests"], "rs")
}

/// Returns where `word` stands as a word of its own: neither part of a longer name nor the tail of a path.
fn names(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let starts = !word.starts_with(is_name) || !before.is_some_and(|c| is_name(c) || c == ':');
        starts && (!word.ends_with(is_name) || !after.is_some_and(is_name))
    })
}

fn forbid(folder: &str, words: &[&str], why: &str) {
    let mut findings = Findings::default();
    for source in rust().iter().filter(|source| source.is_under(folder)) {
        for (line, code) in source.code() {
            for word in words.iter().filter(|word| names(&code, word)) {
                findings.add(source, line, format!("`{word}`"));
            }
        }
    }
    findings.none(why);
}

#[test]
fn core_decides_and_touches_nothing() {
    forbid(
        "host/core/src",
        &[
            "tokio::",
            "hyper::",
            "fjall::",
            "git2::",
            "wasmtime::",
            "std::net",
            "std::process",
            "std::env",
            "std::thread",
            "std::fs",
            "SystemTime",
            "Instant",
            "getrandom",
        ],
        "core has no I/O, no clock, no randomness: time and random bytes come as arguments, effects go out as values",
    );
    let manifest = fs::read_to_string(root().join("host/core/Cargo.toml")).expect("core has a manifest");
    let dependencies = manifest.split("[dependencies]").nth(1).expect("core has dependencies").split('[').next().unwrap_or("");
    for heavy in ["tokio", "hyper", "fjall", "git2", "wasmtime", "redis", "getrandom", "tracing", "pointsman"] {
        let found = dependencies.lines().any(|line| line.split(['.', ' ', '=']).next() == Some(heavy));
        assert!(!found, "host/core/Cargo.toml: core depends on `{heavy}`; its dependency list is the proof that it does no I/O");
    }
}

#[test]
fn ports_know_neither_those_who_call_nor_those_who_answer() {
    for folder in ["host/src/ports", "host/src/ports.rs"] {
        forbid(
            folder.trim_end_matches(".rs"),
            &["crate::adapters", "crate::service", "crate::app", "crate::cli", "fjall::", "git2::", "wasmtime::", "hyper::", "redis::"],
            "ports say what the services need; whoever provides it depends on them, never the other way round",
        );
    }
}

#[test]
fn services_know_ports_only() {
    forbid(
        "host/src/service",
        &[
            "crate::adapters",
            "crate::app",
            "crate::cli",
            "crate::config",
            "fjall::",
            "git2::",
            "wasmtime::",
            "hyper::",
            "redis::",
            "std::fs",
            "std::process",
            "std::net",
        ],
        "services reach the world through ports: pass what they need as a port or a setting",
    );
}

#[test]
fn adapters_do_not_know_each_other() {
    let mut findings = Findings::default();
    for source in rust() {
        let Some(rest) = source.path.strip_prefix("host/src/adapters/") else { continue };
        let own = rest.split(['/', '.']).next().unwrap_or("");
        for (line, code) in source.code() {
            for (at, found) in code.match_indices("adapters::") {
                let other: String = code[at + found.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if other != own {
                    findings.add(
                        &source,
                        line,
                        format!("the adapter `{own}` names `{}`", if other.is_empty() { "several" } else { &other }),
                    );
                }
            }
            if !matches!(own, "mcp" | "http") {
                for above in ["crate::service", "crate::app", "crate::cli", "crate::config"].iter().filter(|above| names(&code, above)) {
                    findings.add(&source, line, format!("the adapter `{own}` names `{above}`"));
                }
            }
        }
    }
    findings
        .none("adapters know `ports` and `core`, only mcp and http the services too; what two of them share is a port or a value of core");
}

#[test]
fn libraries_stay_in_their_folders() {
    let homes: [(&str, &[&str]); 7] = [
        ("redis::", &["host/src/adapters/redis"]),
        ("fjall::", &["host/src/adapters/embedded"]),
        ("git2::", &["host/src/adapters/git"]),
        ("wasmtime::", &["host/src/adapters/wasm"]),
        ("rustls::", &["host/src/adapters/http", "host/src/adapters/oauth"]),
        ("hyper::", &["host/src/adapters/mcp", "host/src/adapters/http", "host/src/adapters/oauth", "host/client/src"]),
        ("hyper_util::", &["host/src/adapters/mcp", "host/src/adapters/http", "host/src/adapters/oauth", "host/client/src"]),
    ];
    let mut findings = Findings::default();
    for source in sources(&["host"], "rs").iter().filter(|source| !source.is_test()) {
        for (line, code) in source.code() {
            for (library, folders) in &homes {
                if names(&code, library) && !folders.iter().any(|folder| source.is_under(folder)) {
                    findings.add(source, line, format!("`{library}` belongs in {}", folders.join(", ")));
                }
            }
        }
    }
    findings.none("types of a library never leave its adapter's folder: convert them at the border");
}

#[test]
fn only_the_composition_root_names_adapters() {
    let mut findings = Findings::default();
    for source in sources(&["host/src"], "rs") {
        // The demo is a program beside the host: it has no root but itself.
        let exempt = ["host/src/adapters", "host/src/app", "host/src/demo"].iter().any(|folder| source.is_under(folder));
        if !exempt {
            for (line, _) in source.code().filter(|(_, code)| code.contains("adapters::")) {
                findings.add(&source, line, "names an adapter");
            }
        }
    }
    findings.none("`app` is the only place that puts concrete adapters together: ask it for what you need");
}

#[test]
fn only_the_configuration_reads_the_environment() {
    // Faces of the program that are started by the host itself and are told what to do by variables it sets.
    let allowed = ["host/src/config", "host/src/adapters/git", "plugins"];
    let mut findings = Findings::default();
    for source in rust().iter().filter(|source| !source.is_test() && !allowed.iter().any(|folder| source.is_under(folder))) {
        for (line, code) in source.code() {
            for word in ["env::var", "env::vars", "env::var_os", "env::vars_os", "env::set_var", "env::remove_var"] {
                if code.split(word).skip(1).any(|rest| rest.starts_with('(')) {
                    findings.add(source, line, format!("`{word}`"));
                }
            }
        }
    }
    findings.none("only `config` reads the environment: make it a setting, or pass the value on");
}

#[test]
fn modules_are_files_beside_their_folders_and_not_too_long() {
    let mut findings = Findings::default();
    for source in rust() {
        let lines = source.text.lines().count();
        if source.path.ends_with("/mod.rs") {
            findings.add(&source, 1, "write `foo.rs` beside `foo/`, no `mod.rs`");
        }
        if lines > LINES_MAX {
            findings.add(&source, lines, format!("{lines} lines, at most {LINES_MAX}: split it"));
        }
        if source.path == "host/src/main.rs" && lines > MAIN_LINES_MAX {
            findings.add(&source, lines, format!("{lines} lines, at most {MAIN_LINES_MAX}: main only starts"));
        }
    }
    findings.none("a file is one thing of a size that can be read at once");
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut findings = Findings::default();
    // A `tests.rs` says by its name and place what it is.
    for source in rust().iter().filter(|source| !source.path.ends_with("/tests.rs")) {
        let first = source.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
        if !first.is_some_and(|line| line.starts_with("//!") && line.len() > 4) {
            findings.add(source, 1, "opens without `//!`");
        }
    }
    findings.none("each module opens with `//!`: what it owns, what it must not know, its invariants");
}

#[test]
fn tests_wait_for_states_and_are_never_skipped() {
    let mut findings = Findings::default();
    for source in rust() {
        for (line, code) in source.code() {
            if code.contains("#[ignore") {
                findings.add(&source, line, "a test is ignored: repair it or remove it");
            }
            if names(&code, "thread::sleep") || code.contains("std::thread::sleep") {
                findings.add(&source, line, "sleeps: wait for a state with a deadline");
            }
            for unfinished in ["todo!(", "unimplemented!(", "dbg!("] {
                if code.contains(unfinished) {
                    findings.add(&source, line, format!("`{unfinished}…)` is left over"));
                }
            }
        }
    }
    findings.none("tests wait for a state with a deadline, all of them run, and nothing is left for later");
}

/// What a line of WIT starts when it declares something that needs a comment.
#[test]
fn every_black_box_suite_is_run() {
    let manifest = std::fs::read_to_string(root().join("tests/Cargo.toml")).expect("the tests have a manifest");
    let suites = std::fs::read_dir(root().join("tests/suite")).expect("there are suites");
    let mut missing = Vec::new();
    for entry in suites {
        let name = entry.expect("readable").file_name().to_string_lossy().into_owned();
        if name.ends_with(".rs") && !manifest.contains(&format!("path = \"suite/{name}\"")) {
            missing.push(name);
        }
    }
    assert!(missing.is_empty(), "tests/Cargo.toml names no [[test]] for {missing:?}");
}

fn is_wit_item(line: &str) -> bool {
    let Some((head, tail)) = line.split_once([' ', ':']) else { return false };
    let declares = ["interface", "world", "record", "variant", "enum", "flags", "resource", "type"].contains(&head);
    let is_function = tail.contains("func(") || tail.contains("func (");
    let is_field = line.split_once(':').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '%')));
    declares || is_function || is_field
}

#[test]
fn the_worlds_are_of_one_version_and_every_item_is_explained() {
    let mut findings = Findings::default();
    for source in sources(&["wit"], "wit") {
        let mut is_explained = false;
        let mut has_package = false;
        let mut in_variant = false;
        for (i, line) in source.text.lines().enumerate() {
            let line_number = i + 1;
            let line = line.trim();
            if line.starts_with("///") {
                is_explained = true;
                continue;
            }
            if let Some(package) = line.strip_prefix("package ") {
                has_package = true;
                if !package.ends_with("@0.1.0;") {
                    findings.add(&source, line_number, format!("`{package}` is not @0.1.0"));
                }
            }
            for (at, _) in line.match_indices("pointsman:") {
                let reference = line[at..].split([';', '{', ' ', ',']).next().unwrap_or("");
                if reference.contains('/') && !reference.trim_end_matches('.').ends_with("@0.1.0") {
                    findings.add(&source, line_number, format!("`{reference}` does not name @0.1.0"));
                }
            }
            let is_case = in_variant && line.ends_with(',') && !line.contains("func");
            if (is_wit_item(line) || is_case || line.starts_with("package ")) && !is_explained {
                findings.add(&source, line_number, format!("`{line}` has no comment"));
            }
            // `enum level { a, b }` on one line is explained as a whole.
            let opens_cases = ["variant ", "enum ", "flags "].iter().any(|word| line.starts_with(word));
            in_variant = (opens_cases && line.ends_with('{')) || (in_variant && !line.starts_with('}'));
            if !line.is_empty() && !line.starts_with('@') {
                is_explained = false;
            }
        }
        if !has_package {
            findings.add(&source, 1, "has no package");
        }
    }
    findings.none("the worlds are what plugin authors read: one version, every item with a comment");
}

#[test]
fn the_shipped_plugins_are_those_the_configuration_knows() {
    let config = fs::read_to_string(root().join("host/src/config/schema.rs")).expect("the schema is there");
    let table =
        config.split("pub const SHIPPED").nth(1).and_then(|rest| rest.split("];").next()).expect("the schema lists the shipped plugins");
    let mut known: Vec<&str> = table.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next()).collect();
    known.sort_unstable();
    let mut built = Vec::new();
    for entry in fs::read_dir(root().join("plugins/dist")).expect("the shipped components are in plugins/dist").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "wasm") {
            built.push(path.file_stem().expect("a file has a name").to_string_lossy().into_owned());
        }
    }
    built.sort_unstable();
    assert_eq!(known, built, "host/src/config/schema.rs (SHIPPED) and plugins/dist/*.wasm differ");
}

#[test]
fn the_reader_of_code_is_not_fooled_by_texts_and_comments() {
    assert_eq!(code_of(r#"let a = "git2:: // not" + b; // git2::"#), r#"let a = "" + b; "#);
    assert_eq!(code_of(r#"let quote = '"'; git2::x()"#), "let quote = '_'; git2::x()");
    assert!(names("use git2::Repository;", "git2::"));
    assert!(names("crate::adapters::git", "crate::adapters"));
    assert!(!names("libgit2::x", "git2::") && !names("my::Instants", "Instant") && !names("InstantLike", "Instant"));
}
