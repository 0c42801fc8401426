//! A three-way merge of lines, and where it fails: which lines of the base both sides changed, and into what.
//!
//! The merge is diffy's. The places of its conflicts are found from the two differences to the base, because
//! conflict markers in a text say neither where they stand nor whether they are markers.

use std::ops::Range;

use crate::lines;

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

/// Merges three texts line by line.
///
/// # Errors
/// The places that both sides changed, differently; at least one, in the order of the base.
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Result<Vec<u8>, Vec<Overlap>> {
    if ours == theirs || theirs == base {
        return Ok(ours.to_vec());
    }
    if ours == base {
        return Ok(theirs.to_vec());
    }
    diffy::MergeOptions::new().merge_bytes(base, ours, theirs).map_err(|_| overlaps(base, ours, theirs))
}

/// A run of base lines and what one side put in its place.
struct Change {
    old: Range<usize>,
    new: Range<usize>,
}

/// Finds the places that both sides changed. Where the differences do not show one, the whole file is one.
fn overlaps(base: &[u8], ours: &[u8], theirs: &[u8]) -> Vec<Overlap> {
    let (our_changes, their_changes) = (changes(base, ours), changes(base, theirs));
    let texts = [lines::split(base), lines::split(ours), lines::split(theirs)];
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
        let our_text = side_text(&our_changes[first_i..i], &span, &texts[1]);
        let their_text = side_text(&their_changes[first_j..j], &span, &texts[2]);
        if our_text != their_text {
            let base = texts[0][span.clone()].concat();
            found.push(Overlap { base_lines: span, base, ours: our_text, theirs: their_text });
        }
    }
    if found.is_empty() {
        let base_lines = 0..texts[0].len();
        found.push(Overlap { base_lines, base: base.to_vec(), ours: ours.to_vec(), theirs: theirs.to_vec() });
    }
    found
}

/// Returns whether two ranges share a line or stand next to each other: git calls both a conflict.
fn touches(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start <= b.end && b.start <= a.end
}

/// Returns what a side has in place of a span of the base: its changes there and the base's lines between them.
fn side_text(changes: &[Change], span: &Range<usize>, side: &[&[u8]]) -> Vec<u8> {
    match (changes.first(), changes.last()) {
        (Some(first), Some(last)) => {
            let start = first.new.start.saturating_sub(first.old.start - span.start);
            let end = (last.new.end + (span.end - last.old.end)).min(side.len());
            side[start.min(end)..end].concat()
        }
        _ => Vec::new(),
    }
}

/// Returns how a side differs from the base.
fn changes(base: &[u8], side: &[u8]) -> Vec<Change> {
    let zero_based = |range: diffy::HunkRange| {
        let start = if range.is_empty() { range.start() } else { range.start() - 1 };
        start..start + range.len()
    };
    let patch = diffy::DiffOptions::new().set_context_len(0).create_patch_bytes(base, side);
    patch.hunks().iter().map(|hunk| Change { old: zero_based(hunk.old_range()), new: zero_based(hunk.new_range()) }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
