//! Finds where the changes of two sides meet.
//!
//! Owns: grouping changes into regions, and trimming what both sides of a conflict share.
//! Must not know: how a result is written out.
//! Invariant: regions cover the base, ours and theirs from start to end, in order, without gaps.

use std::ops::Range;

use imara_diff::{Algorithm, Hunk, Interner, Token};

use super::{Conflict, Lines, Merged, Part, Region, Sliding, Source, changes, index};

/// Returns the three-way merge of `ours` and `theirs`, which both come from `base`.
///
/// Changes are found with a histogram diff whose hunks slide down, as git's `ort` strategy does; an empty
/// `base` merges two files that were both added.
#[must_use]
pub fn merge3<'a>(base: &'a [u8], ours: &'a [u8], theirs: &'a [u8]) -> Merged<'a> {
    let mut interner = Interner::new(base.len() / 32);
    let texts =
        Texts { base: Lines::cut(base, &mut interner), ours: Lines::cut(ours, &mut interner), theirs: Lines::cut(theirs, &mut interner) };
    let diff = |side: &Lines<'_>| changes(Algorithm::Histogram, Sliding::Down, &texts.base.tokens, &side.tokens, interner.num_tokens());
    let mut walk = Walk { ours: Side::new(diff(&texts.ours)), theirs: Side::new(diff(&texts.theirs)), regions: Vec::new(), texts };
    walk.run();
    Merged { regions: walk.regions, line_end: line_end(&[ours, theirs, base]) }
}

/// Returns how the first text that ends a line ends it.
fn line_end(texts: &[&[u8]]) -> &'static [u8] {
    let ended = texts.iter().find_map(|text| text.split_inclusive(|byte| *byte == b'\n').next()).unwrap_or_default();
    if ended.ends_with(b"\r\n") { b"\r\n" } else { b"\n" }
}

struct Texts<'a> {
    base: Lines<'a>,
    ours: Lines<'a>,
    theirs: Lines<'a>,
}

/// One side's changes, and how far they are used up.
struct Side {
    hunks: Vec<Hunk>,
    next: usize,
    /// The line of this side at which the walk stands.
    line: u32,
}

impl Side {
    fn new(hunks: Vec<Hunk>) -> Self {
        Self { hunks, next: 0, line: 0 }
    }

    fn next_start(&self) -> Option<u32> {
        self.hunks.get(self.next).map(|hunk| hunk.before.start)
    }

    /// Takes the next change into a group that ends at base line `end`, if it overlaps or touches it.
    fn absorb(&mut self, end: &mut u32) -> bool {
        let Some(hunk) = self.hunks.get(self.next) else {
            return false;
        };
        if hunk.before.start > *end {
            return false;
        }
        *end = hunk.before.end.max(*end);
        self.next += 1;
        true
    }

    /// Moves past the base lines `base`, of which `hunks` change some, and returns the lines of this side.
    fn pass(&mut self, base: &Range<u32>, hunks: Range<usize>) -> Range<u32> {
        let (removed, added) = self.hunks[hunks].iter().fold((0, 0), |(removed, added), hunk| {
            let removed: u32 = removed + (hunk.before.end - hunk.before.start);
            let added: u32 = added + (hunk.after.end - hunk.after.start);
            (removed, added)
        });
        let start = self.line;
        self.line += base.end - base.start + added - removed;
        start..self.line
    }
}

struct Walk<'a> {
    texts: Texts<'a>,
    ours: Side,
    theirs: Side,
    regions: Vec<Region<'a>>,
}

impl<'a> Walk<'a> {
    fn run(&mut self) {
        let mut base_line = 0;
        loop {
            let next = [self.ours.next_start(), self.theirs.next_start()];
            let Some(start) = next.into_iter().flatten().min() else {
                break;
            };
            self.unchanged(base_line..start);
            base_line = self.group(start);
        }
        self.unchanged(base_line..self.texts.base.count());
    }

    fn unchanged(&mut self, base: Range<u32>) {
        let ours = self.ours.pass(&base, 0..0);
        self.theirs.pass(&base, 0..0);
        self.clean(self.texts.ours.span(ours), Source::Base);
    }

    /// Handles the changes that hang together from base line `start` on; returns where they end.
    fn group(&mut self, start: u32) -> u32 {
        let (first_ours, first_theirs) = (self.ours.next, self.theirs.next);
        let mut end = start;
        // Not `||`: both sides are asked until neither has more.
        while self.ours.absorb(&mut end) | self.theirs.absorb(&mut end) {}
        let base = start..end;
        let ours = self.ours.pass(&base, first_ours..self.ours.next);
        let theirs = self.theirs.pass(&base, first_theirs..self.theirs.next);

        let base_tokens = self.texts.base.tokens_in(base.clone());
        let ours_tokens = self.texts.ours.tokens_in(ours.clone());
        let theirs_tokens = self.texts.theirs.tokens_in(theirs.clone());
        if theirs_tokens == base_tokens {
            self.clean(self.texts.ours.span(ours), Source::Ours);
        } else if ours_tokens == base_tokens {
            self.clean(self.texts.theirs.span(theirs), Source::Theirs);
        } else if ours_tokens == theirs_tokens {
            self.clean(self.texts.ours.span(ours), Source::Both);
        } else {
            self.conflict(base, ours, theirs);
        }
        end
    }

    fn clean(&mut self, bytes: &'a [u8], from: Source) {
        if !bytes.is_empty() {
            self.regions.push(Region::Clean { bytes, from });
        }
    }

    /// Adds a conflict without the lines that both sides begin or end with.
    ///
    /// Those lines stand clean beside it. Where the base has them too they leave the conflict's base, so
    /// that a conflict never shows as removed what the result keeps next to it.
    fn conflict(&mut self, base: Range<u32>, ours: Range<u32>, theirs: Range<u32>) {
        let base_tokens = self.texts.base.tokens_in(base.clone());
        let ours_tokens = self.texts.ours.tokens_in(ours.clone());
        let theirs_tokens = self.texts.theirs.tokens_in(theirs.clone());

        let head = alike_head(ours_tokens, theirs_tokens);
        let base_head = alike_head(&ours_tokens[..head], base_tokens);
        let (ours_rest, theirs_rest) = (&ours_tokens[head..], &theirs_tokens[head..]);
        let tail = alike_tail(ours_rest, theirs_rest);
        let base_tail = alike_tail(&ours_rest[ours_rest.len() - tail..], &base_tokens[base_head..]);

        let (head, tail) = (index(head), index(tail));
        let core = |all: &Range<u32>| all.start + head..all.end - tail;
        let base_core = base.start + index(base_head)..base.end - index(base_tail);
        let (ours_core, theirs_core) = (core(&ours), core(&theirs));
        let head_bytes = self.texts.ours.span(ours.start..ours_core.start);
        let tail_bytes = self.texts.ours.span(ours_core.end..ours.end);
        self.clean(head_bytes, Source::Both);
        self.regions.push(Region::Conflict(Conflict {
            base: part(&self.texts.base, base_core),
            ours: part(&self.texts.ours, ours_core),
            theirs: part(&self.texts.theirs, theirs_core),
        }));
        self.clean(tail_bytes, Source::Both);
    }
}

fn part<'a>(text: &Lines<'a>, lines: Range<u32>) -> Part<'a> {
    Part { line: lines.start, lines: lines.end - lines.start, bytes: text.span(lines) }
}

/// Returns how many tokens both begin with.
fn alike_head(left: &[Token], right: &[Token]) -> usize {
    let pairs = left.iter().zip(right);
    pairs.take_while(|(left, right)| left == right).count()
}

/// Returns how many tokens both end with.
fn alike_tail(left: &[Token], right: &[Token]) -> usize {
    let pairs = left.iter().rev().zip(right.iter().rev());
    pairs.take_while(|(left, right)| left == right).count()
}
