//! Two differences from one base, put together.
//!
//! Owns: which side's lines stand in the result. Must not know: how a difference is found.
//!
//! **Invariant:** lines that both sides changed stand in the result only if both changed them into the same.

use std::ops::Range;

use super::difference::{Kind, Run};
use super::numbered::Numbered;

/// Base, ours and theirs.
pub(super) type Texts<'a> = [Numbered<'a>; 3];

/// Returns the merged text; none: both sides changed something, differently.
pub(super) fn merge(texts: &Texts<'_>, ours: &[Run], theirs: &[Run]) -> Option<Vec<u8>> {
    let mut merging = Merging { texts, pieces: Vec::new(), base: 0..0, ours: 0..0, theirs: 0..0 };
    let (mut ours, mut theirs) = (Ahead::of(ours), Ahead::of(theirs));
    while let Some(part) = next_part(&mut ours, &mut theirs) {
        merging.add(part)?;
    }
    merging.settle()?;
    Some(merging.joined())
}

/// The runs of a side that are not merged yet.
struct Ahead<'a> {
    next: Option<Run>,
    later: std::slice::Iter<'a, Run>,
}

impl<'a> Ahead<'a> {
    fn of(runs: &'a [Run]) -> Self {
        let mut later = runs.iter();
        Self { next: later.next().copied(), later }
    }

    fn added(&mut self) -> Option<Range<usize>> {
        let run = self.next.filter(|run| run.kind == Kind::Added)?;
        self.next = self.later.next().copied();
        Some(run.new_lines())
    }

    /// Takes so many lines of the base; returns what this side has there, if it left them as they are.
    fn take(&mut self, lines: usize) -> Option<Range<usize>> {
        let run = self.next.as_mut()?;
        let taken = (run.kind == Kind::Equal).then(|| run.new..run.new + lines);
        run.old += lines;
        run.new += if run.kind == Kind::Equal { lines } else { 0 };
        run.len -= lines;
        if run.len == 0 {
            self.next = self.later.next().copied();
        }
        taken
    }
}

/// Some lines of the base, none where one side added some; and what each side has there, if it has them.
struct Part {
    base: Range<usize>,
    ours: Option<Range<usize>>,
    theirs: Option<Range<usize>>,
}

fn next_part(ours: &mut Ahead<'_>, theirs: &mut Ahead<'_>) -> Option<Part> {
    if let Some(added) = ours.added() {
        return Some(Part { base: 0..0, ours: Some(added), theirs: None });
    }
    if let Some(added) = theirs.added() {
        return Some(Part { base: 0..0, ours: None, theirs: Some(added) });
    }
    // Both differences cover the whole base: neither ends before the other.
    let (our_run, their_run) = (ours.next?, theirs.next?);
    let lines = our_run.len.min(their_run.len);
    Some(Part { base: our_run.old..our_run.old + lines, ours: ours.take(lines), theirs: theirs.take(lines) })
}

/// Where lines of the result come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Ours,
    Theirs,
}

struct Merging<'a, 't> {
    texts: &'a Texts<'t>,
    /// Which bytes of which text stand in the result.
    pieces: Vec<(Source, Range<usize>)>,
    /// What was changed since both sides last had the same.
    base: Range<usize>,
    ours: Range<usize>,
    theirs: Range<usize>,
}

impl<'t> Merging<'_, 't> {
    fn add(&mut self, part: Part) -> Option<()> {
        if let (Some(ours), Some(_)) = (&part.ours, &part.theirs) {
            self.settle()?;
            self.push(Source::Ours, ours.clone());
            return Some(());
        }
        join(&mut self.base, part.base);
        part.ours.into_iter().for_each(|lines| join(&mut self.ours, lines));
        part.theirs.into_iter().for_each(|lines| join(&mut self.theirs, lines));
        Some(())
    }

    /// Decides on what was changed; none: it cannot be.
    fn settle(&mut self) -> Option<()> {
        let [base, ours, theirs] = [&mut self.base, &mut self.ours, &mut self.theirs].map(std::mem::take);
        let lines = |text: usize, range: &Range<usize>| &self.texts[text].numbers()[range.clone()];
        let (base, our_lines, their_lines) = (lines(0, &base), lines(1, &ours), lines(2, &theirs));
        if our_lines == their_lines || base == their_lines {
            self.push(Source::Ours, ours);
        } else if base == our_lines {
            self.push(Source::Theirs, theirs);
        } else {
            return None;
        }
        Some(())
    }

    fn push(&mut self, source: Source, lines: Range<usize>) {
        let span = self.text(source).span_of(lines);
        match self.pieces.last_mut() {
            Some((last, before)) if *last == source && before.end == span.start => before.end = span.end,
            _ => self.pieces.push((source, span)),
        }
    }

    fn text(&self, source: Source) -> &Numbered<'t> {
        match source {
            Source::Ours => &self.texts[1],
            Source::Theirs => &self.texts[2],
        }
    }

    fn joined(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.pieces.iter().map(|(_, span)| span.len()).sum());
        self.pieces.iter().for_each(|(source, span)| out.extend_from_slice(self.text(*source).bytes_at(span.clone())));
        out
    }
}

/// Adds lines behind others.
fn join(lines: &mut Range<usize>, more: Range<usize>) {
    if lines.start == lines.end {
        *lines = more;
    } else if more.start < more.end {
        lines.end = more.end;
    }
}
