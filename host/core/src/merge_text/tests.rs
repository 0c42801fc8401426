use proptest::prelude::*;

use super::{Labels, Region, Source, Unresolved, is_binary, marker_line, merge3};

fn merged(base: &str, ours: &str, theirs: &str) -> Result<String, String> {
    let merged = merge3(base.as_bytes(), ours.as_bytes(), theirs.as_bytes());
    let marked = text(merged.marked(&Labels::default()));
    merged.into_clean().map(text).ok_or(marked)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("the test uses UTF-8")
}

#[test]
fn changes_apart_are_both_taken() {
    assert_eq!(merged("a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n"), Ok("A\nb\nC\n".to_owned()));
    assert_eq!(merged("a\nb\nc\n", "b\nc\n", "a\nb\nc\nd\n"), Ok("b\nc\nd\n".to_owned()));
}

#[test]
fn the_same_change_on_both_sides_is_clean() {
    let merged = merge3(b"a\nb\n", b"a\nx\n", b"a\nx\n");
    let from: Vec<Source> = merged
        .regions()
        .iter()
        .filter_map(|region| match region {
            Region::Clean { from, .. } => Some(*from),
            Region::Conflict(_) => None,
        })
        .collect();
    assert_eq!(from, [Source::Base, Source::Both]);
    assert_eq!(merged.into_clean().as_deref(), Some(b"a\nx\n".as_slice()));
}

#[test]
fn touching_changes_conflict_as_in_git() {
    let conflicted = merged("a\nb\n", "A\nb\n", "a\nB\n").expect_err("they touch");
    insta::assert_snapshot!(conflicted, @r"
    <<<<<<< ours
    A
    b
    ||||||| base
    a
    b
    =======
    a
    B
    >>>>>>> theirs
    ");
}

#[test]
fn what_both_sides_share_leaves_the_conflict() {
    let merged = merge3(b"top\nend\n", b"top\nuse a\nx\n}\nend\n", b"top\nuse a\ny\n}\nend\n");
    let conflict = merged.conflicts().next().expect("x against y");
    assert_eq!(conflict.ours.bytes, b"x\n");
    assert_eq!((conflict.ours.line, conflict.ours.lines), (2, 1));
    assert_eq!(conflict.theirs.bytes, b"y\n");
    assert_eq!((conflict.base.bytes, conflict.base.line), (b"".as_slice(), 1));
    let whole = merged.assemble(&[Some(b"x\ny\n".to_vec())]);
    assert_eq!(whole.as_deref(), Ok(b"top\nuse a\nx\ny\n}\nend\n".as_slice()));
}

#[test]
fn resolutions_must_fit() {
    let merged = merge3(b"a\n-\nb\n", b"x\n-\nx\n", b"y\n-\ny\n");
    assert_eq!(merged.assemble(&[]), Err(Unresolved::Miscounted { given: 0, conflicts: 2 }));
    assert_eq!(merged.assemble(&[Some(b"z\n".to_vec()), None]), Err(Unresolved::Left { first: 1, left: 1, conflicts: 2 }));
    let glued = merged.assemble(&[Some(b"z".to_vec()), Some(b"w".to_vec())]);
    assert_eq!(glued.as_deref(), Ok(b"z\n-\nw".as_slice()), "a line end is added only where more follows");
}

#[test]
fn line_ends_are_bytes() {
    assert_eq!(merged("a\r\nb\r\nc\r\n", "A\r\nb\r\nc\r\n", "a\r\nb\r\nC\r\n"), Ok("A\r\nb\r\nC\r\n".to_owned()));
    let conflicted = merged("a\r\n", "b\r\n", "c").expect_err("b against c");
    assert_eq!(conflicted, "<<<<<<< ours\r\nb\r\n||||||| base\r\na\r\n=======\r\nc\r\n>>>>>>> theirs\r\n");
    assert_eq!(merged("a\nb", "A\nb", "a\nb"), Ok("A\nb".to_owned()));
    assert_eq!(merged("a\nx\nb", "A\nx\nb", "a\nx\nb\n"), Ok("A\nx\nb\n".to_owned()));
}

#[test]
fn nothing_is_a_text_too() {
    assert_eq!(merged("", "", ""), Ok(String::new()));
    assert_eq!(merged("a\n", "", "a\n"), Ok(String::new()));
    assert_eq!(merged("", "a\n", ""), Ok("a\n".to_owned()));
    assert!(merged("", "a\n", "b\n").is_err());
}

#[test]
fn binary_files_and_markers_are_told() {
    assert!(is_binary(b"a\0b"));
    assert!(!is_binary(&[b'a'; 9000]));
    let mut late = vec![b'a'; 8000];
    late.push(0);
    assert!(!is_binary(&late));
    assert_eq!(marker_line(b"Title\n=======\n"), None);
    assert_eq!(marker_line(b"a\n<<<<<<< HEAD\nb\n"), Some(1));
    assert_eq!(marker_line(b"a\n>>>>>>>\n"), Some(1));
    assert_eq!(marker_line(b">>>>>>>> quoted"), None);
}

/// What one side does at one base line: lines put before it, and the line kept, dropped or replaced.
type Edit = (u8, u8);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec((prop_oneof![6 => Just(0_u8), 1 => 1..3_u8], prop_oneof![6 => Just(0_u8), 1 => 1..4_u8]), 12)
}

fn apply(edits: &[Edit], side: &str) -> Vec<Vec<String>> {
    let pieces = edits.iter().enumerate().map(|(line, (before, fate))| {
        let mut piece: Vec<String> = (0..*before).map(|n| format!("{side} adds {line}.{n}\n")).collect();
        match fate {
            0 => piece.push(format!("base {line}\n")),
            1 => {}
            _ => piece.push(format!("{side} replaces {line}\n")),
        }
        piece
    });
    pieces.collect()
}

/// Returns the merge of two edit scripts on distinct lines, or none where changes overlap or touch.
fn expected(ours: &[Edit], theirs: &[Edit]) -> Option<String> {
    let quiet = (0, 0);
    let (our_pieces, their_pieces) = (apply(ours, "ours"), apply(theirs, "theirs"));
    let mut result = String::new();
    for line in 0..ours.len() {
        let before = line.checked_sub(1);
        let (mine, yours) = (ours[line], theirs[line]);
        // A line's own change touches what is put before it, and before the next line.
        let touch_here = mine != quiet && yours != quiet;
        let touch_before = before.is_some_and(|before| (ours[before].1 != 0 && yours != quiet) || (theirs[before].1 != 0 && mine != quiet));
        if touch_here || touch_before {
            return None;
        }
        let piece = if yours == quiet { &our_pieces[line] } else { &their_pieces[line] };
        result.push_str(&piece.concat());
    }
    Some(result)
}

fn few_lines() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![Just("}\n"), Just("\n"), Just("a\n"), Just("b\n"), Just("c\n")], 0..14)
        .prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn distinct_lines_merge_as_their_edits_say(ours in edits(), theirs in edits()) {
        let base = apply(&[(0, 0); 12], "base").concat().concat();
        let mine = apply(&ours, "ours").concat().concat();
        let yours = apply(&theirs, "theirs").concat().concat();
        // Both dropping a line is the same change; the oracle only knows changes that differ.
        prop_assume!(ours.iter().zip(&theirs).all(|(mine, yours)| mine.1 != 1 || yours.1 != 1));
        prop_assert_eq!(merged(&base, &mine, &yours).ok(), expected(&ours, &theirs));
    }

    #[test]
    fn one_sided_merges_give_that_side(base in few_lines(), side in few_lines()) {
        prop_assert_eq!(merged(&base, &side, &base), Ok(side.clone()));
        prop_assert_eq!(merged(&base, &base, &side), Ok(side.clone()));
        prop_assert_eq!(merged(&base, &side, &side), Ok(side));
    }

    #[test]
    fn conflicts_are_trimmed_and_in_place(base in few_lines(), ours in few_lines(), theirs in few_lines()) {
        let merged = merge3(base.as_bytes(), ours.as_bytes(), theirs.as_bytes());
        for conflict in merged.conflicts() {
            for (part, text) in [(&conflict.base, &base), (&conflict.ours, &ours), (&conflict.theirs, &theirs)] {
                let lines: String = text.split_inclusive('\n').skip(part.line as usize).take(part.lines as usize).collect();
                prop_assert_eq!(part.bytes, lines.as_bytes());
            }
            let (mine, yours) = (conflict.ours.bytes, conflict.theirs.bytes);
            let first = |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').next().map(<[u8]>::to_vec);
            let last = |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').next_back().map(<[u8]>::to_vec);
            prop_assert!(first(mine).is_none() || first(mine) != first(yours));
            prop_assert!(last(mine).is_none() || last(mine) != last(yours));
        }
        prop_assert_eq!(merged.is_clean(), marker_line(&merged.marked(&Labels::default())).is_none());
        prop_assert_eq!(merged.is_clean(), merged.clone().into_clean().is_some());
    }
}
