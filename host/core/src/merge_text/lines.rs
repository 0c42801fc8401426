//! Bytes as lines, and the differences between them.
//!
//! Owns: cutting bytes into lines that keep their ends, numbering equal lines alike, running the diff.
//! Must not know: what a merge is.
//! Invariant: the lines of a text, joined, are the text.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, Hunk, Interner, NoSliderHeuristic, Token};

/// How many lines an average text of so many bytes is expected to have, to size tables once.
const BYTES_PER_LINE_GUESS: usize = 32;

/// A text cut into lines. Equal lines of texts that share an interner have equal tokens.
pub(crate) struct Lines<'a> {
    bytes: &'a [u8],
    /// `ends[i]` is where line `i` ends, its line end included.
    ends: Vec<usize>,
    /// One token a line.
    pub(crate) tokens: Vec<Token>,
}

impl<'a> Lines<'a> {
    /// Returns `bytes` cut after each `\n`; a last line without one is a line too.
    pub(crate) fn cut(bytes: &'a [u8], interner: &mut Interner<&'a [u8]>) -> Self {
        let guess = bytes.len() / BYTES_PER_LINE_GUESS;
        let mut ends = Vec::with_capacity(guess);
        let mut tokens = Vec::with_capacity(guess);
        let mut start = 0;
        for line in lines(bytes) {
            start += line.len();
            ends.push(start);
            tokens.push(interner.intern(line));
        }
        Self { bytes, ends, tokens }
    }

    /// Returns how many lines there are.
    pub(crate) fn count(&self) -> u32 {
        index(self.ends.len())
    }

    /// Returns the bytes of the lines in `range`.
    pub(crate) fn span(&self, range: Range<u32>) -> &'a [u8] {
        let offset = |line: u32| match line {
            0 => 0,
            line => self.ends[line as usize - 1],
        };
        &self.bytes[offset(range.start)..offset(range.end)]
    }

    /// Returns the tokens of the lines in `range`.
    pub(crate) fn tokens_in(&self, range: Range<u32>) -> &[Token] {
        &self.tokens[range.start as usize..range.end as usize]
    }
}

/// Where a change that could stand at several places is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sliding {
    /// As far down as it goes, joined with neighbours where possible: what git does in merges.
    Down,
    /// As far up as it goes.
    Up,
    /// Where the diff found it, which costs nothing.
    AsFound,
}

/// Returns the changes that lead from `before` to `after`, in order; two of them never touch.
pub(crate) fn changes(algorithm: Algorithm, sliding: Sliding, before: &[Token], after: &[Token], num_tokens: u32) -> Vec<Hunk> {
    if before == after {
        return Vec::new();
    }
    let mut diff = Diff::default();
    diff.compute_with(algorithm, before, after, num_tokens);
    match sliding {
        Sliding::Down => diff.postprocess_with(before, after, NoSliderHeuristic),
        Sliding::Up => diff.postprocess_with(before, after, |_: &[Token], _: Range<u32>, earliest_end: u32| earliest_end),
        Sliding::AsFound => {}
    }
    diff.hunks().collect()
}

/// Returns a line number. The diff refuses more lines than an `i32` counts, long before this saturates.
pub(crate) fn index(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Returns the lines of `bytes`, each with its line end; a last line without one is a line too.
pub(crate) fn lines(bytes: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

/// Returns a line without its line end.
pub(crate) fn without_end(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_suffix(b"\n") else {
        return line;
    };
    rest.strip_suffix(b"\r").unwrap_or(rest)
}
