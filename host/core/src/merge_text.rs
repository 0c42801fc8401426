//! Three-way merge of text, line by line, on bytes.
//!
//! Owns: where two sides' changes meet, what is clean, what is a conflict, how both are written out.
//! Must not know: paths, repositories, plugins; how a merge is judged (`accounting` does that apart,
//! on purpose with code of its own).
//! Invariants: a conflict is a value, never an error. Lines keep their ends: `\r\n` is only bytes, and a
//! last line without an end stays without. Changes that overlap or touch conflict unless they are the
//! same, as in git; lines that both sides of a conflict begin or end with are taken out of it.

mod lines;
mod render;
mod three_way;

#[cfg(test)]
mod tests;

pub(crate) use lines::{Lines, Sliding, changes, index, lines, without_end};
pub use render::{Labels, Unresolved};
pub use three_way::merge3;

/// How far into a file git looks for a NUL byte before it calls the file text.
pub const BINARY_PROBE_BYTES: usize = 8000;

/// How often the sign of a conflict marker is repeated.
pub const MARKER_WIDTH: usize = 7;

/// A three-way merge: the regions of the result, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged<'a> {
    regions: Vec<Region<'a>>,
    /// `\r\n` where the texts use it, to end lines that the merge has to end.
    line_end: &'static [u8],
}

/// A stretch of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Region<'a> {
    /// These lines are in the result.
    Clean {
        /// Whole lines.
        bytes: &'a [u8],
        /// Who brought them.
        from: Source,
    },
    /// Both sides changed this place, each in its own way.
    Conflict(Conflict<'a>),
}

/// Where clean lines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Unchanged by both sides.
    Base,
    /// Only our side changed the place.
    Ours,
    /// Only their side changed the place.
    Theirs,
    /// Both sides brought the same lines.
    Both,
}

/// A place that both sides changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict<'a> {
    /// What stood there.
    pub base: Part<'a>,
    /// What our side put there.
    pub ours: Part<'a>,
    /// What their side put there.
    pub theirs: Part<'a>,
}

/// Some lines of one of the three texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Whole lines, their ends included.
    pub bytes: &'a [u8],
    /// The first of them in its text, from 0.
    pub line: u32,
    /// How many.
    pub lines: u32,
}

impl<'a> Merged<'a> {
    /// Returns the regions, in order.
    #[must_use]
    pub fn regions(&self) -> &[Region<'a>] {
        &self.regions
    }

    /// Returns the conflicts, in order: the order that `assemble` wants resolutions in.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict<'a>> {
        self.regions.iter().filter_map(|region| match region {
            Region::Conflict(conflict) => Some(conflict),
            Region::Clean { .. } => None,
        })
    }

    /// Returns whether nothing is in conflict.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.conflicts().next().is_none()
    }
}

/// Returns whether git would treat `bytes` as binary: a NUL among the first 8000.
#[must_use]
pub fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(BINARY_PROBE_BYTES).any(|byte| *byte == 0)
}

/// Returns the first line, from 0, that is a conflict marker naming a side or the base. A line of `=`
/// alone is none: it underlines headings.
#[must_use]
pub fn marker_line(bytes: &[u8]) -> Option<u32> {
    let is_marker = |line: &[u8]| {
        let Some((sign, rest)) = line.split_at_checked(MARKER_WIDTH) else {
            return false;
        };
        let alike = |wanted: u8| sign.iter().all(|byte| *byte == wanted);
        (alike(b'<') || alike(b'|') || alike(b'>')) && rest.first().is_none_or(|byte| b" \r\n".contains(byte))
    };
    bytes.split_inclusive(|byte| *byte == b'\n').position(is_marker).map(index)
}
