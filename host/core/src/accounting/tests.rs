use proptest::prelude::*;

use super::{Discard, FileAccount, Side, account};
use crate::merge_text::merge3;

fn judged(base: &str, ours: &str, theirs: &str, result: &str) -> FileAccount {
    judged_with(base, ours, theirs, result, &[])
}

fn judged_with(base: &str, ours: &str, theirs: &str, result: &str, discards: &[Discard]) -> FileAccount {
    let account = account(Some(base.as_bytes()), Some(ours.as_bytes()), Some(theirs.as_bytes()), Some(result.as_bytes()), discards);
    assert_sums(&account);
    account
}

fn assert_sums(account: &FileAccount) {
    for side in [&account.ours, &account.theirs] {
        let told = side.present + side.combined + side.lost_unlisted;
        assert_eq!(side.hunks as usize, told as usize + side.discarded.len() + side.lost.len(), "{side:?}");
    }
}

fn discard(side: Side, text: &str) -> Discard {
    Discard { side, text: text.as_bytes().to_vec(), reason: "because".to_owned() }
}

/// Returns the numbers of present, combined, discarded and lost changes of a side.
fn tally(account: &FileAccount, side: Side) -> (u32, u32, usize, usize) {
    let side = account.side(side);
    (side.present, side.combined, side.discarded.len(), side.lost.len())
}

#[test]
fn changes_apart_are_present() {
    let account = judged("a\nb\nc\nd\n", "A\nb\nc\nd\n", "a\nb\nc\n", "A\nb\nc\n");
    assert!(account.is_whole());
    assert_eq!(tally(&account, Side::Ours), (1, 0, 0, 0));
    assert_eq!(tally(&account, Side::Theirs), (1, 0, 0, 0));
}

#[test]
fn a_side_taken_whole_loses_the_other() {
    let account = judged("a\nb\nc\n", "a\nours\nc\n", "a\ntheirs\nc\n", "a\nours\nc\n");
    assert_eq!(tally(&account, Side::Ours), (0, 1, 0, 0));
    assert_eq!(tally(&account, Side::Theirs), (0, 0, 0, 1));
    let (side, lost) = account.lost().next().expect("their change");
    assert_eq!((side, lost.excerpt.as_str(), lost.missing_lines, lost.restored_lines), (Side::Theirs, "theirs\n", 1, 0));
    assert_eq!((lost.at.base_line, lost.at.base_lines, lost.at.side_line, lost.at.side_lines), (1, 1, 1, 1));
}

#[test]
fn a_named_discard_goes_into_the_account() {
    let named = [discard(Side::Theirs, "theirs\n")];
    let account = judged_with("a\nb\nc\n", "a\nours\nc\n", "a\ntheirs\nc\n", "a\nours\nc\n", &named);
    assert!(account.is_whole());
    assert_eq!(account.theirs.discarded[0].reason, "because");
    let wrong_side = [discard(Side::Ours, "theirs\n")];
    assert!(!judged_with("a\nb\nc\n", "a\nours\nc\n", "a\ntheirs\nc\n", "a\nours\nc\n", &wrong_side).is_whole());
    let other_text = [discard(Side::Theirs, "thei\n")];
    assert!(!judged_with("a\nb\nc\n", "a\nours\nc\n", "a\ntheirs\nc\n", "a\nours\nc\n", &other_text).is_whole());
}

#[test]
fn one_discard_excuses_one_line() {
    let (base, ours, theirs) = ("a\nb\nc\nd\ne\n", "a\n1\nc\n2\ne\n", "a\nx\nc\nx\ne\n");
    let once = judged_with(base, ours, theirs, ours, &[discard(Side::Theirs, "x\n")]);
    assert_eq!(tally(&once, Side::Theirs), (0, 0, 1, 1));
    let twice = judged_with(base, ours, theirs, ours, &[discard(Side::Theirs, "x\nx\n")]);
    assert_eq!(tally(&twice, Side::Theirs), (0, 0, 2, 0));
}

#[test]
fn both_sides_lines_together_are_combined() {
    let (base, ours, theirs) = ("log\n", "log\nours 1\nours 2\n", "log\ntheirs 1\n");
    for result in ["log\nours 1\nours 2\ntheirs 1\n", "log\ntheirs 1\nours 1\nours 2\n", "log\nours 2\ntheirs 1\nours 1\n"] {
        let account = judged(base, ours, theirs, result);
        assert!(account.is_whole(), "{result}: {account:?}");
        assert_eq!((account.ours.combined, account.theirs.combined, account.novel_lines), (1, 1, 0));
    }
}

#[test]
fn an_import_block_merged_as_a_set_is_combined() {
    let base = "use a;\nuse m;\n\nfn main() {}\n";
    let ours = "use a;\nuse c;\nuse d;\nuse m;\n\nfn main() {}\n";
    let theirs = "use a;\nuse d;\nuse b;\nuse m;\n\nfn main() {}\n";
    let account = judged(base, ours, theirs, "use a;\nuse b;\nuse c;\nuse d;\nuse m;\n\nfn main() {}\n");
    assert!(account.is_whole(), "{account:?}");
    assert_eq!(account.novel_lines, 0);
    let without_b = judged(base, ours, theirs, "use a;\nuse c;\nuse d;\nuse m;\n\nfn main() {}\n");
    assert_eq!((tally(&without_b, Side::Ours).3, tally(&without_b, Side::Theirs).3), (0, 1));
    let without_d = judged(base, ours, theirs, "use a;\nuse b;\nuse c;\nuse m;\n\nfn main() {}\n");
    assert_eq!((tally(&without_d, Side::Ours).3, tally(&without_d, Side::Theirs).3), (1, 1));
}

#[test]
fn the_same_change_on_both_sides_is_combined_and_can_be_lost_by_both() {
    let kept = judged("a\nb\n", "a\nx\n", "a\nx\n", "a\nx\n");
    assert_eq!((kept.ours.combined, kept.theirs.combined, kept.is_whole()), (1, 1, true));
    let lost = judged("a\nb\n", "a\nx\n", "a\nx\n", "a\nb\n");
    assert_eq!((lost.ours.lost.len(), lost.theirs.lost.len()), (1, 1));
    assert_eq!((lost.ours.lost[0].missing_lines, lost.ours.lost[0].restored_lines), (1, 1));
}

#[test]
fn a_removed_line_that_is_back_is_lost() {
    let account = judged("a\nb\nc\nd\n", "a\nc\nd\n", "a\nb\nc\nD\n", "a\nb\nc\nD\n");
    assert_eq!(tally(&account, Side::Ours), (0, 0, 0, 1));
    assert_eq!(account.ours.lost[0].excerpt, "b\n");
    assert_eq!(account.novel_lines, 0);
    let named = judged_with("a\nb\nc\nd\n", "a\nc\nd\n", "a\nb\nc\nD\n", "a\nb\nc\nD\n", &[discard(Side::Ours, "")]);
    assert_eq!(tally(&named, Side::Ours), (0, 0, 1, 0));
    let elsewhere = judged("a\nb\nc\nd\n", "a\nc\nd\n", "a\nb\nc\nD\n", "a\nc\nD\nb\n");
    assert_eq!(tally(&elsewhere, Side::Ours), (0, 0, 0, 1), "removed for good, yet in the result");
}

#[test]
fn equal_lines_do_not_stand_in_for_each_other() {
    let base = "fn a() {\n}\n\nfn b() {\n}\n\nfn c() {\n}\n";
    let ours = "fn a() {\n    if x {\n    }\n}\n\nfn b() {\n}\n\nfn c() {\n}\n";
    let theirs = "fn a() {\n}\n\nfn b() {\n}\n\nfn c() {\n    if y {\n    }\n}\n";
    let whole = merge3(base.as_bytes(), ours.as_bytes(), theirs.as_bytes()).into_clean().expect("apart");
    let whole = String::from_utf8(whole).expect("text");
    assert!(judged(base, ours, theirs, &whole).is_whole());
    let without_our_brace = whole.replacen("if x {\n    }\n", "if x {\n", 1);
    assert_eq!(judged(base, ours, theirs, &without_our_brace).ours.lost.len(), 1);
    let brace_elsewhere = without_our_brace.replacen("if y {\n    }\n", "if y {\n    }\n    }\n", 1);
    let account = judged(base, ours, theirs, &brace_elsewhere);
    assert_eq!((account.ours.lost.len(), account.theirs.lost.len()), (1, 0));
}

#[test]
fn a_restored_brace_is_found_among_its_like() {
    let (base, ours, theirs) = ("f\n}\n}\n}\ng\nz\n", "f\n}\n}\ng\nz\n", "f\n}\n}\n}\ng\nZ\n");
    assert!(judged(base, ours, theirs, "f\n}\n}\ng\nZ\n").is_whole());
    assert_eq!(judged(base, ours, theirs, "f\n}\n}\n}\ng\nZ\n").ours.lost.len(), 1);
}

#[test]
fn lines_that_nobody_touched_may_not_vanish() {
    let account = judged("a\nb\nc\nd\ne\n", "A\nb\nc\nd\ne\n", "a\nb\nc\nd\nE\n", "A\nb\nd\nE\n");
    assert!(!account.is_whole());
    assert_eq!((account.dropped.len(), account.dropped[0].base_line, account.dropped[0].excerpt.as_str()), (1, 2, "c\n"));
    let named = judged_with("a\nb\nc\nd\ne\n", "A\nb\nc\nd\ne\n", "a\nb\nc\nd\nE\n", "A\nb\nd\nE\n", &[discard(Side::Theirs, "c\n")]);
    assert!(named.is_whole());
}

#[test]
fn new_lines_of_the_merger_are_counted() {
    let account = judged("a\nb\nc\n", "a\n1\nc\n", "a\n2\nc\n", "a\n1\nglue\n2\nc\nend\n");
    assert!(account.is_whole());
    assert_eq!(account.novel_lines, 2);
}

#[test]
fn a_move_by_one_side_is_two_changes() {
    let (base, ours, theirs) = ("f1\nf2\nf3\nf4\nf5\n", "f2\nf3\nf4\nf1\nf5\n", "f1\nf2\nF3\nf4\nf5\n");
    let account = judged(base, ours, theirs, "f2\nF3\nf4\nf1\nf5\n");
    assert!(account.is_whole());
    assert_eq!(account.ours.hunks, 2);
    assert!(!judged(base, ours, theirs, "f1\nf2\nF3\nf4\nf5\n").is_whole(), "moved back");
    assert!(!judged(base, ours, theirs, "f1\nf2\nF3\nf4\nf1\nf5\n").is_whole(), "in both places");
    assert!(!judged(base, ours, theirs, "f2\nF3\nf4\nf5\n").is_whole(), "in neither");
}

#[test]
fn a_last_line_without_an_end_may_get_one() {
    let account = judged("a", "a\nours", "a\ntheirs", "a\nours\ntheirs");
    assert!(account.is_whole(), "{account:?}");
    assert!(judged("a", "a\nours", "a\ntheirs", "a\nours\ntheirs\n").is_whole());
}

#[test]
fn files_come_and_go() {
    let deleted = account(Some(b"a\n"), None, Some(b"a\n"), None, &[]);
    assert_eq!((deleted.is_whole(), deleted.ours.present), (true, 1));
    let undeleted = account(Some(b"a\n"), None, Some(b"a\n"), Some(b"a\n"), &[]);
    assert_eq!((undeleted.ours.lost.len(), undeleted.theirs.hunks), (1, 0));
    let both = account(Some(b"a\n"), None, None, None, &[]);
    assert_eq!((both.is_whole(), both.ours.combined, both.theirs.combined), (true, 1, 1));
    let added = account(None, None, Some(b"a\n"), Some(b"a\n"), &[]);
    assert_eq!((added.is_whole(), added.theirs.present), (true, 1));
    assert!(!account(None, None, Some(b"a\n"), None, &[]).is_whole());
    assert!(account(None, Some(b""), None, Some(b""), &[]).is_whole());
    assert!(!account(None, Some(b""), None, None, &[]).is_whole());
    assert!(!account(Some(b"a\n"), Some(b"a\n"), Some(b"a\n"), None, &[]).is_whole());
    assert!(!account(Some(b""), Some(b""), Some(b""), None, &[]).is_whole());
}

#[test]
fn a_deletion_against_a_change_needs_a_word() {
    let (base, theirs) = (Some(b"a\nb\n".as_slice()), Some(b"a\nB\n".as_slice()));
    let deleted = account(base, None, theirs, None, &[]);
    assert_eq!((deleted.ours.present, deleted.theirs.lost.len(), deleted.dropped.len()), (1, 1, 0));
    assert!(account(base, None, theirs, None, &[discard(Side::Theirs, "B\n")]).is_whole());
    let kept = account(base, None, theirs, theirs, &[]);
    assert_eq!((kept.ours.lost.len(), kept.theirs.present), (1, 1));
    assert!(account(base, None, theirs, theirs, &[discard(Side::Ours, "")]).is_whole());
    assert!(account(base, None, theirs, theirs, &[discard(Side::Ours, "a\nb\n")]).is_whole());
}

#[test]
fn binary_content_is_one_change() {
    let file = |text: &'static [u8]| Some(text);
    let (base, ours, theirs) = (file(b"\x000"), file(b"\x001"), file(b"\x002"));
    assert!(account(base, ours, base, ours, &[]).is_whole());
    assert!(!account(base, ours, base, base, &[]).is_whole());
    let taken = account(base, ours, theirs, ours, &[]);
    assert_eq!((taken.ours.present, taken.theirs.lost.len()), (1, 1));
    assert!(account(base, ours, theirs, ours, &[discard(Side::Theirs, "")]).is_whole());
    assert_eq!(account(base, ours, ours, ours, &[]).ours.combined, 1);
    assert!(!account(base, base, base, file(b"\x003"), &[]).is_whole());
}

#[test]
fn an_account_survives_the_receipt() {
    let account = judged("a\nb\nc\n", "a\nours\nc\n", "a\ntheirs\nc\n", "a\nnew\nc\n");
    let bytes = rmp_serde::to_vec_named(&account).expect("plain data");
    assert_eq!(rmp_serde::from_slice::<FileAccount>(&bytes).expect("just written"), account);
}

#[test]
fn long_lists_are_cut_and_counted() {
    let lines = |name: &str| (0..200).map(|n| format!("{name} {n}\nsame {n}\n")).collect::<String>();
    let account = judged(&lines("base"), &lines("ours"), &lines("theirs"), &lines("ours"));
    assert_eq!((account.theirs.lost.len(), account.theirs.lost_unlisted, account.ours.combined), (64, 136, 200));
    assert_eq!(account.unaccounted(), 200);
}

/// A line from a small alphabet in which braces and blank lines are common.
fn common_line() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just("}\n"), 2 => Just("\n"), 1 => Just("a\n"), 1 => Just("b\n"), 1 => Just("c\n"), 1 => Just("d\n")]
        .prop_map(str::to_owned)
}

/// What a side does at a line: how many lines it removes from there, and what it puts there.
type Script = Vec<(prop::sample::Index, usize, Vec<String>)>;

fn script() -> impl Strategy<Value = Script> {
    prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize, prop::collection::vec(common_line(), 0..4)), 0..4)
}

fn run(script: &Script, base: &[String]) -> Vec<String> {
    let mut lines = base.to_vec();
    for (at, removed, added) in script {
        let start = at.index(lines.len() + 1);
        let end = (start + removed).min(lines.len());
        lines.splice(start..end, added.iter().cloned());
    }
    lines
}

/// Edits distinct lines: at each base line `0` keeps, `1` removes, `2` replaces; then so many are added.
fn distinct_script() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((prop_oneof![5 => Just(0_u8), 1 => Just(1), 1 => Just(2)], prop_oneof![5 => Just(0_u8), 1 => 1..3_u8]), 16)
}

fn run_distinct(script: &[(u8, u8)], side: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (n, (fate, added)) in script.iter().enumerate() {
        match fate {
            0 => lines.push(format!("base {n}\n")),
            1 => {}
            _ => lines.push(format!("{side} {n}\n")),
        }
        lines.extend((0..*added).map(|m| format!("{side} {n}.{m}\n")));
        // Filler that no side touches, all alike, so that places are not told by distinct lines alone.
        lines.push("}\n".to_owned());
    }
    lines
}

fn clean_merge(base: &str, ours: &str, theirs: &str) -> Option<String> {
    let merged = merge3(base.as_bytes(), ours.as_bytes(), theirs.as_bytes()).into_clean()?;
    Some(String::from_utf8(merged).expect("made of text"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_clean_merge_loses_nothing(
        base in prop::collection::vec(common_line(), 0..24),
        ours in script(),
        theirs in script(),
        endless in any::<bool>(),
    ) {
        let text = |lines: Vec<String>| {
            let text = lines.concat();
            if endless { text.trim_end_matches('\n').to_owned() } else { text }
        };
        let (ours, theirs, base) = (text(run(&ours, &base)), text(run(&theirs, &base)), text(base));
        if let Some(merged) = clean_merge(&base, &ours, &theirs) {
            let account = judged(&base, &ours, &theirs, &merged);
            prop_assert!(account.is_whole(), "{:?} from {:?}", account, merged);
            prop_assert_eq!(account.novel_lines, 0);
        }
    }

    #[test]
    fn taking_one_side_keeps_that_side(
        base in prop::collection::vec(common_line(), 0..16),
        ours in script(),
        theirs in script(),
    ) {
        let (ours, theirs, base) = (run(&ours, &base).concat(), run(&theirs, &base).concat(), base.concat());
        prop_assert!(judged(&base, &ours, &base, &ours).is_whole());
        prop_assert!(judged(&base, &base, &theirs, &theirs).is_whole());
        prop_assert!(judged(&base, &ours, &ours, &ours).is_whole());
        prop_assert_eq!(judged(&base, &ours, &base, &base).is_whole(), ours == base);
        prop_assert_eq!(judged(&base, &ours, &ours, &base).is_whole(), ours == base);
    }

    /// Each distinct line is either in the result, or the account says so, and against the right side.
    #[test]
    fn no_distinct_line_goes_unnoticed(
        ours in distinct_script(),
        mut theirs in distinct_script(),
        cut in any::<prop::sample::Index>(),
        back in any::<prop::sample::Index>(),
    ) {
        for (theirs, _) in theirs.iter_mut().zip(&ours).filter(|(_, ours)| **ours != (0, 0)) {
            *theirs = (0, 0);
        }
        let base = run_distinct(&[(0, 0); 16], "base");
        let (ours, theirs) = (run_distinct(&ours, "ours"), run_distinct(&theirs, "theirs"));
        let merge = clean_merge(&base.concat(), &ours.concat(), &theirs.concat());
        prop_assume!(merge.is_some(), "a filler line keeps changes of different lines apart");
        let merged = merge.unwrap_or_default();
        let judge = |result: &str| judged(&base.concat(), &ours.concat(), &theirs.concat(), result);
        prop_assert!(judge(&merged).is_whole());

        let lines: Vec<&str> = merged.split_inclusive('\n').collect();
        let gone = cut.index(lines.len());
        let account = judge(&lines.iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, line)| *line).collect::<String>());
        prop_assert!(!account.is_whole(), "{} vanished", lines[gone]);
        if lines[gone].starts_with("ours") {
            prop_assert_eq!((account.ours.lost.len(), account.theirs.lost.len()), (1, 0));
        } else if lines[gone].starts_with("theirs") {
            prop_assert_eq!((account.ours.lost.len(), account.theirs.lost.len()), (0, 1));
        }

        let removed: Vec<&String> = base.iter().filter(|line| !ours.contains(line) || !theirs.contains(line)).collect();
        if !removed.is_empty() {
            let line = removed[back.index(removed.len())];
            let at = cut.index(lines.len() + 1);
            let result = [&lines[..at], &[line.as_str()], &lines[at..]].concat().concat();
            let account = judge(&result);
            prop_assert_eq!(!account.ours.lost.is_empty(), !ours.contains(line), "{} is back", line);
            prop_assert_eq!(!account.theirs.lost.is_empty(), !theirs.contains(line), "{} is back", line);
        }
    }

    /// Whatever the result is: if it is called whole, no line that only one side has is missing from it.
    #[test]
    fn nothing_passes_by_chance(
        base in prop::collection::vec(common_line(), 0..12),
        ours in script(),
        theirs in script(),
        merged in script(),
    ) {
        let (ours, theirs) = (run(&ours, &base), run(&theirs, &base));
        let start = clean_merge(&base.concat(), &ours.concat(), &theirs.concat()).unwrap_or_else(|| ours.concat());
        let start: Vec<String> = start.split_inclusive('\n').map(str::to_owned).collect();
        let result = run(&merged, &start);
        let account = judged(&base.concat(), &ours.concat(), &theirs.concat(), &result.concat());
        let count = |lines: &[String], wanted: &String| lines.iter().filter(|line| *line == wanted).count();
        if account.is_whole() {
            for line in ours.iter().chain(&theirs) {
                // A line that both sides added may be shared, so the larger number has to be there.
                if count(&base, line) == 0 {
                    prop_assert!(count(&result, line) >= count(&ours, line).max(count(&theirs, line)), "{:?} of {:?}", line, account);
                }
            }
            for line in base.iter().filter(|line| count(&ours, line) == 0 && count(&theirs, line) == 0 && line.len() > 1) {
                if *line != "}\n" {
                    prop_assert_eq!(count(&result, line), 0, "{} is back", line);
                }
            }
        }
        if account.is_whole() && account.novel_lines == 0 && account.ours.combined + account.theirs.combined == 0 {
            prop_assert_eq!(result.len() + base.len(), ours.len() + theirs.len());
            for line in &result {
                prop_assert_eq!(count(&result, line) + count(&base, line), count(&ours, line) + count(&theirs, line));
            }
        }
    }

    /// A union of what both sides insert is combined, in either order.
    #[test]
    fn a_union_of_insertions_is_whole(
        head in prop::collection::vec(common_line(), 0..6),
        tail in prop::collection::vec(common_line(), 0..6),
        ours in prop::collection::vec(common_line(), 1..5),
        theirs in prop::collection::vec(common_line(), 1..5),
    ) {
        // Between lines that are nowhere else, so that it is plain where both sides inserted.
        let fixed = |line: &str| vec![line.to_owned()];
        let around = |middle: &[String]| [head.as_slice(), &fixed("<\n"), middle, &fixed(">\n"), &tail].concat().concat();
        let (base, mine, yours) = (around(&[]), around(&ours), around(&theirs));
        for union in [[ours.as_slice(), &theirs].concat(), [theirs.as_slice(), &ours].concat()] {
            let account = judged(&base, &mine, &yours, &around(&union));
            prop_assert!(account.is_whole(), "{:?} of {:?}", account, around(&union));
        }
    }
}
