//! Lays the expected lines along the result.
//!
//! Owns: which expected line stands where in the result, and how far that could be moved.
//! Must not know: why a line is expected, beyond which ones had better be matched when either could be.
//! Invariant: matched lines are equal and in order.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, Token};

use crate::merge_text::index;

/// The most work, in lines times changes, for which the longest alignment is sought; beyond it a good one
/// has to do, which can only call more lost.
const MINIMAL_WORK_MAX: u64 = 8_000_000;

/// How far a stretch of unmatched lines is moved in search of a better place.
const SLIDE_LINES_MAX: u32 = 256;

/// Where each line stands in the result.
pub(super) struct Spots {
    /// `positions[starts[t]..starts[t + 1]]` are the places of token `t`, in order.
    starts: Vec<u32>,
    positions: Vec<u32>,
}

impl Spots {
    pub(super) fn of(tokens: &[Token], num_tokens: u32) -> Self {
        let mut starts = vec![0_u32; num_tokens as usize + 1];
        for token in tokens {
            starts[token.0 as usize + 1] += 1;
        }
        for token in 1..starts.len() {
            starts[token] += starts[token - 1];
        }
        let mut next = starts.clone();
        let mut positions = vec![0; tokens.len()];
        for (position, token) in tokens.iter().enumerate() {
            let slot = &mut next[token.0 as usize];
            positions[*slot as usize] = index(position);
            *slot += 1;
        }
        Self { starts, positions }
    }

    fn all(&self, token: Token) -> &[u32] {
        let token = token.0 as usize;
        &self.positions[self.starts[token] as usize..self.starts[token + 1] as usize]
    }

    /// Returns the place of a line that stands in the result once.
    pub(super) fn only(&self, token: Token) -> Option<u32> {
        match self.all(token) {
            [position] => Some(*position),
            _ => None,
        }
    }

    /// Returns how often a line stands in a stretch of the result.
    pub(super) fn count_in(&self, token: Token, stretch: &Range<u32>) -> u32 {
        let all = self.all(token);
        let before = |end: u32| all.partition_point(|position| *position < end);
        index(before(stretch.end) - before(stretch.start))
    }
}

/// Which expected line stands where in the result.
pub(super) struct Alignment {
    /// For each expected line its place in the result.
    pub(super) places: Vec<Option<u32>>,
    /// For each line of the result, whether an expected line stands there.
    pub(super) taken: Vec<bool>,
}

impl Alignment {
    /// Aligns as many lines as possible. Where one of several equal lines stays unmatched, it is one that
    /// `spare` calls so, if the choice is free.
    pub(super) fn new(expected: &[Token], result: &[Token], num_tokens: u32, spare: impl Fn(u32) -> bool) -> Self {
        let diff = longest(expected, result, num_tokens);
        let mut alignment = Self { places: vec![None; expected.len()], taken: vec![false; result.len()] };
        let mut position = 0;
        for line in 0..index(expected.len()) {
            if diff.is_removed(line) {
                continue;
            }
            while diff.is_added(position) {
                position += 1;
            }
            alignment.places[line as usize] = Some(position);
            alignment.taken[position as usize] = true;
            position += 1;
        }
        if diff.count_removals() > 0 {
            alignment.slide_unmatched(expected, &spare);
        }
        alignment
    }

    /// Moves each stretch of unmatched expected lines to where most of it may be spared.
    fn slide_unmatched(&mut self, expected: &[Token], spare: &impl Fn(u32) -> bool) {
        let count = index(expected.len());
        let mut line = 0;
        while line < count {
            if self.places[line as usize].is_some() {
                line += 1;
                continue;
            }
            let open = self.places[line as usize..].iter().take_while(|place| place.is_none());
            let end = line + index(open.count());
            line = self.slide(expected, line..end, spare).max(end);
        }
    }

    /// Slides one stretch; returns where it ends then.
    fn slide(&mut self, expected: &[Token], stretch: Range<u32>, spare: &impl Fn(u32) -> bool) -> u32 {
        let matched = |line: u32| self.places.get(line as usize).is_some_and(Option::is_some);
        let alike = |left: u32, right: u32| expected[left as usize] == expected[right as usize];
        let worth = |line: u32| i64::from(spare(line));
        let (mut best, mut best_gain) = (stretch.start, 0);
        let (mut gain, mut start, mut end) = (0, stretch.start, stretch.end);
        while start > 0 && stretch.start - start < SLIDE_LINES_MAX && matched(start - 1) && alike(start - 1, end - 1) {
            gain += worth(start - 1) - worth(end - 1);
            (start, end) = (start - 1, end - 1);
            if gain > best_gain {
                (best, best_gain) = (start, gain);
            }
        }
        (gain, start, end) = (0, stretch.start, stretch.end);
        while start - stretch.start < SLIDE_LINES_MAX && matched(end) && alike(start, end) {
            gain += worth(end) - worth(start);
            (start, end) = (start + 1, end + 1);
            if gain > best_gain {
                (best, best_gain) = (start, gain);
            }
        }
        let (mut start, mut end) = (stretch.start, stretch.end);
        while start > best {
            (start, end) = (start - 1, end - 1);
            self.places.swap(start as usize, end as usize);
        }
        while start < best {
            self.places.swap(start as usize, end as usize);
            (start, end) = (start + 1, end + 1);
        }
        end
    }

    /// Returns for each expected line, and for the end, the first place in the result that the matched lines
    /// before it can leave free when all of them stand as early as they can.
    pub(super) fn earliest(&self, expected: &[Token], result: &[Token]) -> Vec<u32> {
        let mut cursor = 0;
        let mut bounds = Vec::with_capacity(expected.len() + 1);
        for (token, place) in expected.iter().zip(&self.places) {
            bounds.push(index(cursor));
            if place.is_some() {
                // It stands somewhere from here on, since it is matched in order.
                let ahead = result[cursor..].iter().position(|other| other == token);
                cursor += ahead.map_or(0, |ahead| ahead + 1);
            }
        }
        bounds.push(index(cursor));
        bounds
    }

    /// Returns for each expected line, and for the end, where the matched lines from it on begin when all of
    /// them stand as late as they can.
    pub(super) fn latest(&self, expected: &[Token], result: &[Token]) -> Vec<u32> {
        let mut cursor = result.len();
        let mut bounds = vec![index(cursor); expected.len() + 1];
        for line in (0..expected.len()).rev() {
            if self.places[line].is_some() {
                let behind = result[..cursor].iter().rposition(|other| *other == expected[line]);
                cursor = behind.unwrap_or(cursor);
            }
            bounds[line] = index(cursor);
        }
        bounds
    }
}

/// Returns a diff that keeps as many lines as it can in reasonable time.
fn longest(expected: &[Token], result: &[Token], num_tokens: u32) -> Diff {
    let mut diff = Diff::default();
    diff.compute_with(Algorithm::Histogram, expected, result, num_tokens);
    let changed = u64::from(diff.count_removals() + diff.count_additions());
    let work = changed * (expected.len() + result.len()) as u64;
    if changed > 0 && work <= MINIMAL_WORK_MAX {
        diff.compute_with(Algorithm::MyersMinimal, expected, result, num_tokens);
    }
    diff
}
