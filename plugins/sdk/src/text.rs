//! A three-way merge of lines, and where it fails: which lines of the base both sides changed, and into what.
//!
//! The merge is the one that diffy 0.5 makes, and a test holds them against each other. It is made anew here because diffy cuts,
//! hashes and compares lines byte by byte, which takes most of its time in a component. The places of conflicts are found from
//! the two differences to the base, because conflict markers in a text say neither where they stand nor whether they are markers.

use std::ops::Range;

use self::difference::{Kind, Run, difference};
use self::numbered::Numbered;
use self::three_way::Texts;
use crate::words;

mod difference;
mod numbered;
mod three_way;

/// A place that both sides changed, differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The lines of the base, from 0. Empty where both sides only inserted, before its first line.
    pub base_lines: Range<usize>,
    /// What stood there.
    pub base: Vec<u8>,
    /// What the target's side made of it.
    pub ours: Vec<u8>,
    /// What the branch's side made of it.
    pub theirs: Vec<u8>,
}

/// Returns whether a text has a zero byte, which no text has that people write.
#[must_use]
pub fn has_zero_byte(text: &[u8]) -> bool {
    words::contains(text, 0)
}

/// Merges three texts line by line.
///
/// # Errors
/// The places that both sides changed, differently; at least one, in the order of the base.
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Result<Vec<u8>, Vec<Overlap>> {
    if words::equal(ours, theirs) || words::equal(theirs, base) {
        return Ok(ours.to_vec());
    }
    if words::equal(ours, base) {
        return Ok(theirs.to_vec());
    }
    let texts = Numbered::three(base, ours, theirs);
    let [our_runs, their_runs] = [&texts[1], &texts[2]].map(|side| difference(texts[0].numbers(), side.numbers()));
    three_way::merge(&texts, &our_runs, &their_runs).ok_or_else(|| overlaps(&texts, &changes(&our_runs), &changes(&their_runs)))
}

/// A run of base lines and what one side put in its place.
struct Change {
    old: Range<usize>,
    new: Range<usize>,
}

/// Finds the places that both sides changed. Where the differences do not show one, the whole file is one.
fn overlaps(texts: &Texts<'_>, our_changes: &[Change], their_changes: &[Change]) -> Vec<Overlap> {
    let [base, ours, theirs] = texts;
    let mut found = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(our), Some(their)) = (our_changes.get(i), their_changes.get(j)) {
        if !touches(&our.old, &their.old) {
            if our.old.end <= their.old.start {
                i += 1
            } else {
                j += 1
            }
            continue;
        }
        let (first_i, first_j) = (i, j);
        let mut span = our.old.start.min(their.old.start)..our.old.end.max(their.old.end);
        i += 1;
        j += 1;
        // A span that grew may touch the next change of either side.
        loop {
            if let Some(next) = our_changes.get(i).filter(|next| touches(&next.old, &span)) {
                span.end = span.end.max(next.old.end);
                i += 1;
            } else if let Some(next) = their_changes.get(j).filter(|next| touches(&next.old, &span)) {
                span.end = span.end.max(next.old.end);
                j += 1;
            } else {
                break;
            }
        }
        let our_text = side_text(&our_changes[first_i..i], &span, ours);
        let their_text = side_text(&their_changes[first_j..j], &span, theirs);
        if our_text != their_text {
            let base = base.bytes_of(span.clone()).to_vec();
            found.push(Overlap { base_lines: span, base, ours: our_text, theirs: their_text });
        }
    }
    if found.is_empty() {
        let [base_lines, our_lines, their_lines] = [base, ours, theirs].map(|text| 0..text.numbers().len());
        let (ours, theirs) = (ours.bytes_of(our_lines).to_vec(), theirs.bytes_of(their_lines).to_vec());
        found.push(Overlap { base: base.bytes_of(base_lines.clone()).to_vec(), base_lines, ours, theirs });
    }
    found
}

/// Returns whether two ranges share a line or stand next to each other: git calls both a conflict.
fn touches(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start <= b.end && b.start <= a.end
}

/// Returns what a side has in place of a span of the base: its changes there and the base's lines between them.
fn side_text(changes: &[Change], span: &Range<usize>, side: &Numbered<'_>) -> Vec<u8> {
    match (changes.first(), changes.last()) {
        (Some(first), Some(last)) => {
            let start = first.new.start.saturating_sub(first.old.start - span.start);
            let end = (last.new.end + (span.end - last.old.end)).min(side.numbers().len());
            side.bytes_of(start.min(end)..end).to_vec()
        }
        _ => Vec::new(),
    }
}

/// Returns the changes that runs make: those that follow each other are one.
fn changes(runs: &[Run]) -> Vec<Change> {
    let changes = runs.chunk_by(|a, b| (a.kind == Kind::Equal) == (b.kind == Kind::Equal)).filter(|all| all[0].kind != Kind::Equal);
    changes
        .map(|all| {
            let (first, last) = (all[0], all[all.len() - 1]);
            Change { old: first.old..last.old_lines().end, new: first.new..last.new_lines().end }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lines;

    #[test]
    fn separate_changes_merge() {
        assert_eq!(merge(b"a\nb\nc\nd\n", b"A\nb\nc\nd\n", b"a\nb\nc\nD\n"), Ok(b"A\nb\nc\nD\n".to_vec()));
        assert_eq!(merge(b"a\n", b"a\n", b"b\n"), Ok(b"b\n".to_vec()));
    }

    #[test]
    fn an_overlap_says_where_and_what() {
        let found = merge(b"a\nb\nc\nd\ne\n", b"a\nB\nC\nd\ne\n", b"a\nb\nX\nd\nE\n").expect_err("both changed c");
        let expected = Overlap { base_lines: 1..3, base: b"b\nc\n".to_vec(), ours: b"B\nC\n".to_vec(), theirs: b"b\nX\n".to_vec() };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn two_insertions_at_one_place_overlap() {
        let found = merge(b"a\nb\n", b"a\nx\nb\n", b"a\ny\nb\n").expect_err("both inserted");
        let expected = Overlap { base_lines: 1..1, base: Vec::new(), ours: b"x\n".to_vec(), theirs: b"y\n".to_vec() };
        assert_eq!(found, [expected]);
    }

    /// Lines that often are the same, or the beginning of another; with all kinds of ends.
    fn any_line() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[ab]{0,2}\n", 1 => "[ab]\r\n", 1 => "(long ){1,3}line [ab]{0,2}\n"]
    }

    /// A text made from lines by putting others in place of some; its last line may lack its end.
    fn edited(lines: Vec<String>) -> impl Strategy<Value = String> {
        let edit = (any::<prop::sample::Index>(), 0..4_usize, prop::collection::vec(any_line(), 0..4));
        (prop::collection::vec(edit, 0..5), any::<bool>()).prop_map(move |(edits, whole)| {
            let mut lines = lines.clone();
            for (at, removed, added) in edits {
                let at = at.index(lines.len() + 1);
                lines.splice(at..(at + removed).min(lines.len()), added);
            }
            let mut text = lines.concat();
            text.truncate(text.len() - usize::from(!whole && !text.is_empty()));
            text
        })
    }

    fn three_texts() -> impl Strategy<Value = (String, String, String)> {
        let lines = prop::collection::vec(any_line(), 0..40);
        lines.prop_flat_map(|lines| (edited(lines.clone()), edited(lines.clone()), edited(lines)))
    }

    /// How diffy sees that a side differs from the base.
    fn changes_by_diffy(base: &str, side: &str) -> Vec<(Range<usize>, Range<usize>)> {
        let lines = |range: diffy::HunkRange| {
            let start = range.start() - usize::from(!range.is_empty());
            start..start + range.len()
        };
        let patch = diffy::DiffOptions::new().set_context_len(0).create_patch(base, side);
        patch.hunks().iter().map(|hunk| (lines(hunk.old_range()), lines(hunk.new_range()))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn merges_are_diffys((base, ours, theirs) in three_texts()) {
            let by_diffy = diffy::MergeOptions::new().merge_bytes(base.as_bytes(), ours.as_bytes(), theirs.as_bytes());
            let is_trivial = ours == theirs || theirs == base || ours == base;
            if !is_trivial {
                prop_assert_eq!(merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes()).ok(), by_diffy.ok());
            }
        }

        #[test]
        fn changes_are_diffys((base, ours, theirs) in three_texts()) {
            let texts = Numbered::three(base.as_bytes(), ours.as_bytes(), theirs.as_bytes());
            for (number, side) in [(1, &ours), (2, &theirs)] {
                let found = changes(&difference(texts[0].numbers(), texts[number].numbers()));
                let found: Vec<_> = found.into_iter().map(|change| (change.old, change.new)).collect();
                prop_assert_eq!(found, changes_by_diffy(&base, side));
            }
        }
    }

    #[test]
    fn a_long_file_merges_as_by_diffy() {
        let side = |offset: usize, mark: &str| -> String {
            (0..700).map(|n| if n % 40 == offset { format!("line {n} {mark}\n") } else { format!("line {n} says {}\n", n % 7) }).collect()
        };
        let (base, ours, theirs) = (side(40, ""), side(3, "ours"), side(23, "theirs"));
        let by_diffy = diffy::MergeOptions::new().merge_bytes(base.as_bytes(), ours.as_bytes(), theirs.as_bytes());
        assert_eq!(merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes()).ok(), by_diffy.ok());
    }

    proptest! {
        #[test]
        fn overlaps_are_ordered_and_their_base_is_the_bases(
            base in "([abc]\n){0,8}", ours in "([abcx]\n){0,8}", theirs in "([abcy]\n){0,8}",
        ) {
            if let Err(found) = merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes()) {
                prop_assert!(!found.is_empty());
                let all = lines::split(base.as_bytes());
                let mut end = 0;
                for one in found {
                    prop_assert!(one.base_lines.start >= end);
                    end = one.base_lines.end;
                    prop_assert_eq!(all[one.base_lines.clone()].concat(), one.base);
                    prop_assert!(one.ours != one.theirs);
                }
            }
        }

        #[test]
        fn one_sided_changes_win(base in "([abc]\n){0,8}", side in "([abcx]\n){0,8}") {
            let (base, side) = (base.as_bytes(), side.as_bytes());
            prop_assert_eq!(merge(base, side, base), Ok(side.to_vec()));
            prop_assert_eq!(merge(base, base, side), Ok(side.to_vec()));
            prop_assert_eq!(merge(base, side, side), Ok(side.to_vec()));
        }
    }
}
