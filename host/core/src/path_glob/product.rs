//! Decides whether two patterns have a common word.
//!
//! Both levels, segments of a path and characters of a segment, are the same question: two sequences of
//! symbols, some of which repeat. It is answered on the product of the two automata, one row at a time: a
//! cell says whether some word takes both patterns up to that place. Time is the product of the lengths.

/// A segment of a compiled glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Any number of segments.
    Any,
    /// One segment, which matches these.
    One(Vec<Wild>),
}

/// A character of a compiled segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wild {
    /// Any number of characters.
    Run,
    /// One character.
    One,
    /// This character.
    Char(char),
}

/// A symbol of a pattern.
trait Symbol {
    /// Whether it stands for any number of letters.
    fn repeats(&self) -> bool;

    /// Whether some letter is meant by both, neither of which repeats.
    fn agrees(&self, other: &Self) -> bool;
}

impl Symbol for Wild {
    fn repeats(&self) -> bool {
        *self == Self::Run
    }

    fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Char(left), Self::Char(right)) => left == right,
            (Self::Run | Self::One | Self::Char(_), _) => true,
        }
    }
}

impl Symbol for Step {
    fn repeats(&self) -> bool {
        *self == Self::Any
    }

    /// A segment is never empty, and need not be kept from being so here: when two non-empty segment
    /// patterns both match nothing they are runs, which match everything.
    fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(left), Self::One(right)) => share_a_word(left, right),
            (Self::Any | Self::One(_), _) => true,
        }
    }
}

/// Returns whether some path is meant by both.
pub(super) fn meet(left: &[Step], right: &[Step]) -> bool {
    share_a_word(left, right)
}

fn share_a_word<S: Symbol>(left: &[S], right: &[S]) -> bool {
    // `row[j]`: some word takes `left` to the row's place and `right` to place `j`.
    let mut row = vec![false; right.len() + 1];
    row[0] = true;
    skip_repeats(&mut row, right);
    for symbol in left {
        let mut next = vec![false; right.len() + 1];
        if symbol.repeats() {
            // It may stand for nothing, or eat whatever `right` says next.
            let mut reached = false;
            for (cell, before) in next.iter_mut().zip(&row) {
                reached |= before;
                *cell = reached;
            }
        } else {
            for (j, other) in right.iter().enumerate() {
                if other.repeats() {
                    // It eats this symbol and stays.
                    next[j] |= row[j];
                } else if row[j] && symbol.agrees(other) {
                    next[j + 1] = true;
                }
            }
        }
        skip_repeats(&mut next, right);
        row = next;
    }
    row[right.len()]
}

/// Lets each repeating symbol of `right` stand for nothing.
fn skip_repeats<S: Symbol>(row: &mut [bool], right: &[S]) {
    for (j, symbol) in right.iter().enumerate() {
        row[j + 1] |= row[j] && symbol.repeats();
    }
}
