//! How a text differs from another, both given as numbers of lines.
//!
//! Which of several shortest differences it is matters: a merge rests on it. It is the one that diffy 0.5 finds, decision for
//! decision, so that merges stay what they are: Myers' search from both ends ("An O(ND) Difference Algorithm and Its
//! Variations", 1986, section 4b), then each removal and each insertion slid up and down until it meets another.
//!
//! Owns: that search. Must not know: what the numbers stand for.
//!
//! **Invariant:** the runs of a difference cover both texts, in order and without gaps; none is empty.

use std::ops::{ControlFlow, Range};

/// Where no path gets: less than any place where one does.
const NOWHERE: isize = -1;

/// What a run of lines is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The same in both.
    Equal,
    /// In the old text only.
    Removed,
    /// In the new text only.
    Added,
}

/// Lines that stand together, and where they are in both texts: a run that one text lacks would stand there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) kind: Kind,
    pub(super) old: usize,
    pub(super) new: usize,
    pub(super) len: usize,
}

impl Run {
    /// Returns the lines of the old text.
    pub(super) fn old_lines(&self) -> Range<usize> {
        self.old..if self.kind == Kind::Added { self.old } else { self.old + self.len }
    }

    /// Returns the lines of the new text.
    pub(super) fn new_lines(&self) -> Range<usize> {
        self.new..if self.kind == Kind::Removed { self.new } else { self.new + self.len }
    }

    /// Has the run begin so many lines earlier.
    const fn up(mut self, lines: usize) -> Self {
        self.old -= lines;
        self.new -= lines;
        self
    }

    /// Has the run begin so many lines later.
    const fn down(mut self, lines: usize) -> Self {
        self.old += lines;
        self.new += lines;
        self
    }

    const fn longer(mut self, lines: usize) -> Self {
        self.len += lines;
        self
    }

    const fn shorter(mut self, lines: usize) -> Self {
        self.len -= lines;
        self
    }
}

/// Returns the difference of two texts.
pub(super) fn difference(old: &[usize], new: &[usize]) -> Vec<Run> {
    let steps_max = steps_max(old.len(), new.len());
    let mut search = Search { forward: Reached::new(steps_max), backward: Reached::new(steps_max), runs: Vec::new() };
    search.divide(old, new, (0, 0));
    let mut sliding = Sliding { old, new, runs: search.runs };
    sliding.slide_all(Kind::Removed);
    sliding.slide_all(Kind::Added);
    sliding.runs
}

/// Returns one more than the steps after which a search from both ends has met.
const fn steps_max(old: usize, new: usize) -> usize {
    (old + new).div_ceil(2) + 1
}

/// Lines that are compared at once: in a component a branch costs more than a comparison.
const BLOCK: usize = 4;

fn is_same(a: &[usize; BLOCK], b: &[usize; BLOCK]) -> bool {
    a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// Returns how many lines are equal at the beginning of two texts.
fn common_prefix(a: &[usize], b: &[usize]) -> usize {
    let blocks = a.as_chunks::<BLOCK>().0.iter().zip(b.as_chunks::<BLOCK>().0).take_while(|(a, b)| is_same(a, b)).count();
    let lines = blocks * BLOCK;
    lines + a[lines..].iter().zip(&b[lines..]).take_while(|(a, b)| a == b).count()
}

/// Returns how many lines are equal at the end of two texts.
fn common_suffix(a: &[usize], b: &[usize]) -> usize {
    let (a_blocks, b_blocks) = (a.as_rchunks::<BLOCK>().1, b.as_rchunks::<BLOCK>().1);
    let blocks = a_blocks.iter().rev().zip(b_blocks.iter().rev()).take_while(|(a, b)| is_same(a, b)).count();
    let (a, b) = (&a[..a.len() - blocks * BLOCK], &b[..b.len() - blocks * BLOCK]);
    blocks * BLOCK + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// How many old lines the furthest path has behind it, for each diagonal: its old lines less its new ones.
struct Reached {
    lines: Vec<isize>,
    centre: usize,
}

impl Reached {
    fn new(steps_max: usize) -> Self {
        Self { lines: vec![0; 2 * steps_max + 1], centre: steps_max }
    }

    fn get(&self, diagonal: isize) -> isize {
        self.lines[self.centre.wrapping_add_signed(diagonal)]
    }

    /// Forgets all paths: the first begins at the first line.
    fn begin(&mut self) {
        self.lines[self.centre + 1] = 0;
    }

    /// Has each diagonal entered by the path that gets furthest there with one more step. `follow` is told the diagonal and where
    /// the path enters it, and tells where it goes on from; or ends it all.
    fn spread<M>(&mut self, steps: usize, mut follow: impl FnMut(isize, isize) -> ControlFlow<M, isize>) -> ControlFlow<M> {
        let last = 2 * steps + 2;
        let lines = &mut self.lines[self.centre - steps - 1..][..=last];
        lines[0] = NOWHERE;
        if steps > 0 {
            lines[last] = NOWHERE;
        }
        let mut adding = lines[last];
        for n in 0..=steps {
            let at = last - 1 - 2 * n;
            let removing = lines[at - 1];
            let begin = if removing < adding { adding } else { removing + 1 };
            lines[at] = follow(at.cast_signed() - 1 - steps.cast_signed(), begin)?;
            adding = removing;
        }
        ControlFlow::Continue(())
    }
}

struct Search {
    forward: Reached,
    backward: Reached,
    runs: Vec<Run>,
}

impl Search {
    /// Finds the difference of two parts that begin at a pair of lines.
    fn divide(&mut self, old: &[usize], new: &[usize], (old_at, new_at): (usize, usize)) {
        let prefix = common_prefix(old, new);
        self.push(Kind::Equal, (old_at, new_at), prefix);
        let (old, new, old_at, new_at) = (&old[prefix..], &new[prefix..], old_at + prefix, new_at + prefix);
        let suffix = common_suffix(old, new);
        let (old, new) = (&old[..old.len() - suffix], &new[..new.len() - suffix]);
        if old.is_empty() || new.is_empty() {
            self.push(Kind::Added, (old_at, new_at), new.len());
            self.push(Kind::Removed, (old_at, new_at), old.len());
        } else {
            let (old_middle, new_middle) = self.middle(old, new);
            let ((old_first, old_second), (new_first, new_second)) = (old.split_at(old_middle), new.split_at(new_middle));
            self.divide(old_first, new_first, (old_at, new_at));
            self.divide(old_second, new_second, (old_at + old_middle, new_at + new_middle));
        }
        self.push(Kind::Equal, (old_at + old.len(), new_at + new.len()), suffix);
    }

    fn push(&mut self, kind: Kind, (old, new): (usize, usize), len: usize) {
        if len > 0 {
            self.runs.push(Run { kind, old, new, len });
        }
    }

    /// Returns a pair of lines that a shortest path goes through: where the run of equal lines begins at which the paths from
    /// both ends meet.
    fn middle(&mut self, old: &[usize], new: &[usize]) -> (usize, usize) {
        self.forward.begin();
        self.backward.begin();
        for steps in 0..steps_max(old.len(), new.len()) {
            if let Some(met) = self.forward(old, new, steps).or_else(|| self.backward(old, new, steps)) {
                return met;
            }
        }
        unreachable!("paths that together have as many steps as there are lines have met")
    }

    fn forward(&mut self, old: &[usize], new: &[usize], steps: usize) -> Option<(usize, usize)> {
        let Self { forward, backward, .. } = self;
        let shift = old.len().cast_signed() - new.len().cast_signed();
        let can_meet = shift & 1 == 1;
        let met = forward.spread(steps, |diagonal, begin| {
            let (old_at, new_at) = (begin.cast_unsigned(), (begin - diagonal).cast_unsigned());
            let equal = match (old.get(old_at), new.get(new_at)) {
                (Some(a), Some(b)) if a == b => common_prefix(&old[old_at..], &new[new_at..]),
                _ => 0,
            };
            let end = begin + equal.cast_signed();
            let faced = shift - diagonal;
            if can_meet && faced.unsigned_abs() < steps && end + backward.get(faced) >= old.len().cast_signed() {
                return ControlFlow::Break((old_at, new_at));
            }
            ControlFlow::Continue(end)
        });
        met.break_value()
    }

    /// As `forward`, with both texts read from their ends.
    fn backward(&mut self, old: &[usize], new: &[usize], steps: usize) -> Option<(usize, usize)> {
        let Self { forward, backward, .. } = self;
        let shift = old.len().cast_signed() - new.len().cast_signed();
        let can_meet = shift & 1 == 0;
        let met = backward.spread(steps, |diagonal, begin| {
            let old_left = old.len().wrapping_sub(begin.cast_unsigned());
            let new_left = new.len().wrapping_sub((begin - diagonal).cast_unsigned());
            let equal = match (old.get(old_left.wrapping_sub(1)), new.get(new_left.wrapping_sub(1))) {
                (Some(a), Some(b)) if a == b => common_suffix(&old[..old_left], &new[..new_left]),
                _ => 0,
            };
            let end = begin + equal.cast_signed();
            let faced = shift - diagonal;
            if can_meet && faced.unsigned_abs() <= steps && end + forward.get(faced) >= old.len().cast_signed() {
                return ControlFlow::Break((old_left - equal, new_left - equal));
            }
            ControlFlow::Continue(end)
        });
        met.break_value()
    }
}

/// Runs of which some are slid.
struct Sliding<'a> {
    old: &'a [usize],
    new: &'a [usize],
    runs: Vec<Run>,
}

impl Sliding<'_> {
    /// Slides all runs of a kind up and then down; runs of that kind that meet become one.
    fn slide_all(&mut self, kind: Kind) {
        let mut at = 0;
        while at < self.runs.len() {
            if self.runs[at].kind == kind {
                at = self.slide_up(at);
                at = self.slide_down(at);
            }
            at += 1;
        }
    }

    /// Slides a run up as far as it goes; returns where it is then.
    fn slide_up(&mut self, mut at: usize) -> usize {
        while let Some(above) = at.checked_sub(1) {
            let (run, before) = (self.runs[at], self.runs[above]);
            if before.kind == run.kind {
                self.runs[above] = before.longer(run.len);
                self.runs.remove(at);
                at = above;
                continue;
            }
            if before.kind != Kind::Equal {
                self.swap(above);
                at = above;
                continue;
            }
            let lines = common_suffix(self.lines_of(&run), self.lines_beside(&run, &before));
            if lines == 0 {
                break;
            }
            self.runs[at] = run.up(lines);
            match self.runs.get_mut(at + 1).filter(|next| next.kind == Kind::Equal) {
                Some(next) => *next = next.up(lines).longer(lines),
                None => {
                    let moved = self.runs[at];
                    let (old, new) = (moved.old_lines().end, moved.new_lines().end);
                    self.runs.insert(at + 1, Run { kind: Kind::Equal, old, new, len: lines });
                }
            }
            at = self.shrink(above, before.shorter(lines), at);
        }
        at
    }

    /// Slides a run down as far as it goes; returns where it is then.
    fn slide_down(&mut self, mut at: usize) -> usize {
        while let Some(after) = self.runs.get(at + 1).copied() {
            let run = self.runs[at];
            if after.kind == run.kind {
                self.runs[at] = run.longer(after.len);
                self.runs.remove(at + 1);
                continue;
            }
            if after.kind != Kind::Equal {
                self.swap(at);
                at += 1;
                continue;
            }
            let lines = common_prefix(self.lines_of(&run), self.lines_beside(&run, &after));
            if lines == 0 {
                break;
            }
            self.runs[at] = run.down(lines);
            match at.checked_sub(1).filter(|above| self.runs[*above].kind == Kind::Equal) {
                Some(above) => self.runs[above] = self.runs[above].longer(lines),
                None => {
                    self.runs.insert(at, Run { kind: Kind::Equal, old: run.old, new: run.new, len: lines });
                    at += 1;
                }
            }
            at = self.shrink(at + 1, after.down(lines).shorter(lines), at);
        }
        at
    }

    /// Has a removal and the addition after it, or the other way round, change places.
    fn swap(&mut self, above: usize) {
        let (first, second) = (self.runs[above], self.runs[above + 1]);
        let moved = Run { old: first.old, new: first.new, ..second };
        let (old, new) = (moved.old_lines().end, moved.new_lines().end);
        self.runs[above] = moved;
        self.runs[above + 1] = Run { old, new, ..first };
    }

    /// Puts what is left of a run in its place, or takes it away; returns where the run at `at` is then.
    fn shrink(&mut self, place: usize, left: Run, at: usize) -> usize {
        if left.len > 0 {
            self.runs[place] = left;
            return at;
        }
        self.runs.remove(place);
        if place < at { at - 1 } else { at }
    }

    /// Returns the lines of a run that only one text has.
    fn lines_of(&self, run: &Run) -> &[usize] {
        if run.kind == Kind::Added { &self.new[run.new_lines()] } else { &self.old[run.old_lines()] }
    }

    /// Returns the equal lines next to such a run.
    fn lines_beside(&self, run: &Run, equal: &Run) -> &[usize] {
        if run.kind == Kind::Added { &self.new[equal.new_lines()] } else { &self.old[equal.old_lines()] }
    }
}
