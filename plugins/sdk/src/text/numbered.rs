//! Texts cut into lines, with a number for each line: the same number for the same line, in all texts.
//!
//! Owns: cutting and numbering. Must not know: what the numbers are compared for.
//!
//! **Invariant:** two lines have one number if and only if their bytes are the same, line ends included.

use std::ops::Range;

use crate::words;

/// Where a line of the base is that stands there more than once, or not at all.
const NOWHERE: usize = usize::MAX;
/// The fewest slots.
const SLOTS_MIN: usize = 16;

/// A text in lines.
#[derive(Debug)]
pub(super) struct Numbered<'a> {
    bytes: &'a [u8],
    /// Where each line ends; the last may lack a line end.
    ends: Vec<usize>,
    numbers: Vec<usize>,
}

impl<'a> Numbered<'a> {
    /// Numbers three texts.
    pub(super) fn three(base: &'a [u8], ours: &'a [u8], theirs: &'a [u8]) -> [Self; 3] {
        let mut ends = Vec::new();
        words::each_position(base, b'\n', |at| ends.push(at + 1));
        if ends.last().copied().unwrap_or(0) < base.len() {
            ends.push(base.len());
        }
        let mut base = Self { bytes: base, numbers: Vec::with_capacity(ends.len()), ends };
        let mut numbering = Numbering::with_room(base.ends.len());
        for line in 0..base.ends.len() {
            let known = numbering.lines.len();
            let number = numbering.number(base.bytes_of(line..line + 1));
            numbering.lines[number].base_line = if number == known { line } else { NOWHERE };
            base.numbers.push(number);
        }
        let [ours, theirs] = [ours, theirs].map(|side| Self::beside(side, &base, &mut numbering));
        [base, ours, theirs]
    }

    /// Numbers a text that mostly is the base: it is held against the base from the line expected there on, and only where it
    /// differs is a line looked up.
    fn beside(bytes: &'a [u8], base: &Self, numbering: &mut Numbering<'a>) -> Self {
        let mut side = Self { bytes, ends: Vec::with_capacity(base.ends.len()), numbers: Vec::with_capacity(base.ends.len()) };
        let (mut start, mut expected) = (0, 0);
        while start < bytes.len() {
            expected += side.take_common(base, start, expected);
            start = side.ends.last().copied().unwrap_or(0);
            let rest = &bytes[start..];
            if rest.is_empty() {
                break;
            }
            let len = words::position(rest, b'\n').map_or(rest.len(), |at| at + 1);
            let number = numbering.number(&rest[..len]);
            let found = numbering.lines[number].base_line;
            start += len;
            side.ends.push(start);
            side.numbers.push(number);
            expected = if found == NOWHERE { expected } else { found } + 1;
        }
        side
    }

    /// Takes over the numbers of all lines that this text, from a byte on, and the base, from a line on, have in common; returns
    /// how many there are.
    fn take_common(&mut self, base: &Self, start: usize, first: usize) -> usize {
        let Some(lines) = base.ends.get(first..) else { return 0 };
        let base_start = base.span_of(0..first).end;
        let base_end = base_start + words::common_prefix(&base.bytes[base_start..], &self.bytes[start..]);
        // A line of the base that lacks a line end may be the beginning of a longer one here.
        let is_common = |end: &&usize| **end <= base_end && base.bytes[**end - 1] == b'\n';
        let ends = lines.iter().take_while(is_common).map(|end| end - base_start + start);
        self.ends.extend(ends);
        let common = self.ends.len() - self.numbers.len();
        self.numbers.extend_from_slice(&base.numbers[first..first + common]);
        common
    }

    /// Returns the numbers of all lines.
    pub(super) fn numbers(&self) -> &[usize] {
        &self.numbers
    }

    /// Returns where the bytes of a range of lines are.
    pub(super) fn span_of(&self, lines: Range<usize>) -> Range<usize> {
        let until = |lines: usize| lines.checked_sub(1).map_or(0, |last| self.ends[last]);
        until(lines.start)..until(lines.end)
    }

    /// Returns the bytes of a range of lines.
    pub(super) fn bytes_of(&self, lines: Range<usize>) -> &'a [u8] {
        &self.bytes[self.span_of(lines)]
    }

    /// Returns the bytes of a span.
    pub(super) fn bytes_at(&self, span: Range<usize>) -> &'a [u8] {
        &self.bytes[span]
    }
}

/// The lines that are known, in a table with open addressing.
struct Numbering<'a> {
    lines: Vec<Known<'a>>,
    /// A line's number and one, or 0. Their count is a power of two; at most two thirds are taken.
    slots: Vec<usize>,
}

struct Known<'a> {
    bytes: &'a [u8],
    hash: u64,
    base_line: usize,
}

impl<'a> Numbering<'a> {
    fn with_room(lines: usize) -> Self {
        Self { lines: Vec::new(), slots: vec![0; (lines * 2).next_power_of_two().max(SLOTS_MIN)] }
    }

    /// Returns the number of a line; a new one if it is not known.
    fn number(&mut self, bytes: &'a [u8]) -> usize {
        let hash = words::hash(bytes);
        let mask = self.slots.len() - 1;
        let mut slot = Self::first_slot(hash) & mask;
        while let Some(number) = self.slots[slot].checked_sub(1) {
            let known = &self.lines[number];
            if known.hash == hash && words::equal(known.bytes, bytes) {
                return number;
            }
            slot = (slot + 1) & mask;
        }
        self.lines.push(Known { bytes, hash, base_line: NOWHERE });
        self.slots[slot] = self.lines.len();
        if self.lines.len() * 3 > self.slots.len() * 2 {
            self.grow();
        }
        self.lines.len() - 1
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        self.slots = vec![0; mask + 1];
        for (number, known) in self.lines.iter().enumerate() {
            let mut slot = Self::first_slot(known.hash) & mask;
            while self.slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = number + 1;
        }
    }

    /// Returns the slot where the search for a line begins, in a table without end.
    const fn first_slot(hash: u64) -> usize {
        (hash >> u32::BITS) as usize
    }
}
