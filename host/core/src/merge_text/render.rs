//! Writes a merge out: with resolutions in place of its conflicts, or with the conflicts marked.
//!
//! Must not know: how conflicts were found, who resolved them.
//! Invariant: two lines are never glued together; where a part that ends without a line end is followed by
//! more, it gets the texts' own line end.

use super::{Conflict, MARKER_WIDTH, Merged, Region};

/// What conflict markers call the three texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels<'a> {
    /// After `<<<<<<<`.
    pub ours: &'a str,
    /// After `|||||||`.
    pub base: &'a str,
    /// After `>>>>>>>`.
    pub theirs: &'a str,
}

impl Default for Labels<'_> {
    fn default() -> Self {
        Self { ours: "ours", base: "base", theirs: "theirs" }
    }
}

/// The resolutions do not fit the conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Some conflicts have no resolution.
    #[error("{left} of {conflicts} conflicts are not resolved, the first is number {first}")]
    Left {
        /// The first one, from 0.
        first: usize,
        /// How many.
        left: usize,
        /// Of how many.
        conflicts: usize,
    },
    /// There is not one answer for each conflict.
    #[error("{given} resolutions for {conflicts} conflicts")]
    Miscounted {
        /// How many resolutions came.
        given: usize,
        /// How many conflicts there are.
        conflicts: usize,
    },
}

impl Merged<'_> {
    /// Returns the result, each conflict replaced by the resolution at the same place in `resolutions`.
    ///
    /// # Errors
    /// [`Unresolved`] when there is not exactly one resolution for each conflict.
    pub fn assemble(&self, resolutions: &[Option<Vec<u8>>]) -> Result<Vec<u8>, Unresolved> {
        let conflicts = self.conflicts().count();
        if resolutions.len() != conflicts {
            return Err(Unresolved::Miscounted { given: resolutions.len(), conflicts });
        }
        let mut open = resolutions.iter().enumerate().filter(|(_, it)| it.is_none());
        if let Some((first, _)) = open.next() {
            return Err(Unresolved::Left { first, left: 1 + open.count(), conflicts });
        }
        let mut page = Page::new(self.line_end);
        let mut given = resolutions.iter().flatten();
        for region in &self.regions {
            match region {
                Region::Clean { bytes, .. } => page.add(bytes),
                Region::Conflict(_) => page.add(given.next().map_or(&[], Vec::as_slice)),
            }
        }
        Ok(page.bytes)
    }

    /// Returns the merged bytes if nothing is in conflict.
    #[must_use]
    pub fn into_clean(self) -> Option<Vec<u8>> {
        self.assemble(&[]).ok()
    }

    /// Returns the result with each conflict marked in the diff3 style: ours, base, theirs.
    #[must_use]
    pub fn marked(&self, labels: &Labels<'_>) -> Vec<u8> {
        let mut page = Page::new(self.line_end);
        for region in &self.regions {
            match region {
                Region::Clean { bytes, .. } => page.add(bytes),
                Region::Conflict(conflict) => page.conflict(conflict, labels),
            }
        }
        page.bytes
    }
}

struct Page {
    bytes: Vec<u8>,
    line_end: &'static [u8],
}

impl Page {
    fn new(line_end: &'static [u8]) -> Self {
        Self { bytes: Vec::new(), line_end }
    }

    fn add(&mut self, lines: &[u8]) {
        if !lines.is_empty() {
            self.end_line();
            self.bytes.extend_from_slice(lines);
        }
    }

    fn end_line(&mut self) {
        if self.bytes.last().is_some_and(|byte| *byte != b'\n') {
            self.bytes.extend_from_slice(self.line_end);
        }
    }

    fn marker(&mut self, sign: u8, label: &str) {
        self.end_line();
        self.bytes.extend_from_slice(&[sign; MARKER_WIDTH]);
        if !label.is_empty() {
            self.bytes.push(b' ');
            self.bytes.extend_from_slice(label.as_bytes());
        }
        self.bytes.extend_from_slice(self.line_end);
    }

    fn conflict(&mut self, conflict: &Conflict<'_>, labels: &Labels<'_>) {
        self.marker(b'<', labels.ours);
        self.add(conflict.ours.bytes);
        self.marker(b'|', labels.base);
        self.add(conflict.base.bytes);
        self.marker(b'=', "");
        self.add(conflict.theirs.bytes);
        self.marker(b'>', labels.theirs);
    }
}
