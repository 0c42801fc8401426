//! What a result has to hold: both sides' changes laid over the base.
//!
//! Owns: gaps, the lines expected in each, and who wants each of them there.
//! Must not know: the result, but for the order in which a contested gap's lines are expected (a guess that
//! helps the alignment and decides nothing).
//! Invariant: leaving out what one side added, and putting back what it removed, the expected lines of
//! gaps that only the other side changed are that other side's text.

use std::ops::Range;

use imara_diff::{Algorithm, Hunk, Token};

use super::align::Spots;
use super::{Side, Texts};
use crate::merge_text::{Lines, Sliding, changes, index};

/// What a result has to hold.
pub(super) struct Plan {
    pub(super) ours: Vec<Hunk>,
    pub(super) theirs: Vec<Hunk>,
    /// The expected lines, in order.
    pub(super) tokens: Vec<Token>,
    /// For each expected line, why it is expected.
    pub(super) origins: Vec<Origin>,
    pub(super) gaps: Vec<Gap>,
}

/// Why a line is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Neither side touched this base line.
    Kept(u32),
    /// It is added by a side, or by both.
    Added { ours: Option<Addition>, theirs: Option<Addition> },
}

/// A line that a side adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addition {
    /// The number of the side's change.
    pub(super) hunk: u32,
    /// The line in the side's text.
    pub(super) line: u32,
}

impl Origin {
    pub(super) fn of(&self, side: Side) -> Option<Addition> {
        match (self, side) {
            (Self::Kept(_), _) => None,
            (Self::Added { ours, .. }, Side::Ours) => *ours,
            (Self::Added { theirs, .. }, Side::Theirs) => *theirs,
        }
    }
}

/// A place between two untouched lines of the base at which something changed.
pub(super) struct Gap {
    /// The base lines in it: each is removed by at least one side.
    pub(super) base: Range<u32>,
    /// The expected lines in it.
    pub(super) expected: Range<u32>,
    /// The numbers of our changes in it.
    pub(super) ours: Range<u32>,
    /// The numbers of their changes in it.
    pub(super) theirs: Range<u32>,
    pub(super) kind: GapKind,
}

impl Gap {
    pub(super) fn hunks(&self, side: Side) -> Range<u32> {
        match side {
            Side::Ours => self.ours.clone(),
            Side::Theirs => self.theirs.clone(),
        }
    }
}

/// Who changed a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GapKind {
    /// One side.
    Single,
    /// Both, to the same text.
    Same,
    /// Both, differently.
    Contested,
}

impl Plan {
    pub(super) fn new(texts: &Texts<'_>, ours: Vec<Hunk>, theirs: Vec<Hunk>, spots: &Spots) -> Self {
        let mut plan = Self { ours, theirs, tokens: Vec::new(), origins: Vec::new(), gaps: Vec::new() };
        let mut base_line = 0;
        let (mut next_ours, mut next_theirs) = (0, 0);
        loop {
            let start_of = |hunk: Option<&Hunk>| hunk.map(|hunk| hunk.before.start);
            let starts = [start_of(plan.ours.get(next_ours)), start_of(plan.theirs.get(next_theirs))];
            let Some(start) = starts.into_iter().flatten().min() else {
                break;
            };
            let (first_ours, first_theirs) = (next_ours, next_theirs);
            let mut end = start;
            loop {
                let before = (next_ours, next_theirs);
                reach(&plan.ours, &mut next_ours, &mut end);
                reach(&plan.theirs, &mut next_theirs, &mut end);
                if before == (next_ours, next_theirs) {
                    break;
                }
            }
            plan.keep(texts, base_line..start);
            plan.gap(texts, start..end, first_ours..next_ours, first_theirs..next_theirs, spots);
            base_line = end;
        }
        plan.keep(texts, base_line..texts.base.count());
        plan
    }

    /// Returns one side's changes.
    pub(super) fn hunks(&self, side: Side) -> &[Hunk] {
        match side {
            Side::Ours => &self.ours,
            Side::Theirs => &self.theirs,
        }
    }

    /// Returns the number of the side's change that removes a base line.
    pub(super) fn removing(&self, side: Side, base_line: u32) -> Option<usize> {
        let hunks = self.hunks(side);
        let number = hunks.partition_point(|hunk| hunk.before.end <= base_line);
        hunks.get(number).filter(|hunk| hunk.before.start <= base_line).map(|_| number)
    }

    fn keep(&mut self, texts: &Texts<'_>, lines: Range<u32>) {
        self.tokens.extend_from_slice(texts.base.tokens_in(lines.clone()));
        self.origins.extend(lines.map(Origin::Kept));
    }

    fn gap(&mut self, texts: &Texts<'_>, base: Range<u32>, ours: Range<usize>, theirs: Range<usize>, spots: &Spots) {
        let start = index(self.tokens.len());
        let numbers = |range: &Range<usize>| index(range.start)..index(range.end);
        let our_text = side_lines(&self.ours, &ours, &base, &texts.ours);
        let their_text = side_lines(&self.theirs, &theirs, &base, &texts.theirs);
        let kind = if ours.is_empty() || theirs.is_empty() {
            GapKind::Single
        } else if texts.ours.tokens_in(our_text.clone()) == texts.theirs.tokens_in(their_text.clone()) {
            GapKind::Same
        } else {
            GapKind::Contested
        };
        let our_additions = additions(&self.ours, &ours);
        let their_additions = additions(&self.theirs, &theirs);
        match kind {
            GapKind::Single => {
                for addition in our_additions {
                    self.expect(texts.ours.tokens[addition.line as usize], Some(addition), None);
                }
                for addition in their_additions {
                    self.expect(texts.theirs.tokens[addition.line as usize], None, Some(addition));
                }
            }
            GapKind::Same => {
                // A line of the common text may be new to one side and old to the other, or old to both.
                let mut mine = our_additions.into_iter().peekable();
                let mut yours = their_additions.into_iter().peekable();
                for (our_line, their_line) in our_text.zip(their_text) {
                    let ours = mine.next_if(|addition| addition.line == our_line);
                    let theirs = yours.next_if(|addition| addition.line == their_line);
                    self.expect(texts.ours.tokens[our_line as usize], ours, theirs);
                }
            }
            GapKind::Contested => self.contested(texts, &our_additions, &their_additions, spots),
        }
        self.gaps.push(Gap { base, expected: start..index(self.tokens.len()), ours: numbers(&ours), theirs: numbers(&theirs), kind });
    }

    fn expect(&mut self, token: Token, ours: Option<Addition>, theirs: Option<Addition>) {
        self.tokens.push(token);
        self.origins.push(Origin::Added { ours, theirs });
    }

    /// Expects both sides' additions, those they share once, in the order the result seems to have.
    fn contested(&mut self, texts: &Texts<'_>, ours: &[Addition], theirs: &[Addition], spots: &Spots) {
        let tokens_of = |additions: &[Addition], text: &Lines<'_>| -> Vec<Token> {
            additions.iter().map(|addition| text.tokens[addition.line as usize]).collect()
        };
        let (our_tokens, their_tokens) = (tokens_of(ours, &texts.ours), tokens_of(theirs, &texts.theirs));
        let (our_keys, their_keys) = (order_keys(&our_tokens, spots), order_keys(&their_tokens, spots));
        let apart = changes(Algorithm::Myers, Sliding::AsFound, &our_tokens, &their_tokens, texts.interner.num_tokens());
        let end = index(ours.len())..index(ours.len());
        let end_theirs = index(theirs.len())..index(theirs.len());
        let (mut i, mut j) = (0_usize, 0_usize);
        for hunk in apart.into_iter().chain([Hunk { before: end, after: end_theirs }]) {
            while i < hunk.before.start as usize {
                self.expect(our_tokens[i], Some(ours[i]), Some(theirs[j]));
                i += 1;
                j += 1;
            }
            let (our_end, their_end) = (hunk.before.end as usize, hunk.after.end as usize);
            while i < our_end || j < their_end {
                if j == their_end || (i < our_end && our_keys[i] <= their_keys[j]) {
                    self.expect(our_tokens[i], Some(ours[i]), None);
                    i += 1;
                } else {
                    self.expect(their_tokens[j], None, Some(theirs[j]));
                    j += 1;
                }
            }
        }
    }
}

/// Takes the changes that overlap or touch what ends at base line `end`.
fn reach(hunks: &[Hunk], next: &mut usize, end: &mut u32) {
    while let Some(hunk) = hunks.get(*next).filter(|hunk| hunk.before.start <= *end) {
        *end = hunk.before.end.max(*end);
        *next += 1;
    }
}

/// Returns the lines a side has where the base has `base`, of which the changes in `taken` alter some.
fn side_lines(hunks: &[Hunk], taken: &Range<usize>, base: &Range<u32>, text: &Lines<'_>) -> Range<u32> {
    // The lines before `base` are as many as in the base, shifted by what the changes before it did.
    let before = hunks[..taken.start].last();
    let start = before.map_or(base.start, |hunk| hunk.after.end + (base.start - hunk.before.end));
    let last = hunks[..taken.end].last();
    let end = last.map_or(base.end, |hunk| hunk.after.end + (base.end - hunk.before.end));
    start..end.min(text.count())
}

/// Returns the lines that the changes in `taken` add.
fn additions(hunks: &[Hunk], taken: &Range<usize>) -> Vec<Addition> {
    let numbered = taken.clone().zip(&hunks[taken.clone()]);
    numbered.flat_map(|(number, hunk)| hunk.after.clone().map(move |line| Addition { hunk: index(number), line })).collect()
}

/// Returns for each line where the result seems to have it: its own place if it stands there once, else that
/// of the line before.
fn order_keys(tokens: &[Token], spots: &Spots) -> Vec<u32> {
    let first = tokens.iter().find_map(|token| spots.only(*token));
    let mut last = first.unwrap_or(0);
    let key = |token: &Token| {
        last = spots.only(*token).unwrap_or(last);
        last
    };
    tokens.iter().map(key).collect()
}
