//! Hunk accounting: the proof that a merge lost nobody's work silently.
//!
//! Owns: given base, ours, theirs and a result from anywhere, what became of each change of each side.
//! Must not know: who merged, how, or where the files are. It shares no code with the merge itself beyond
//! cutting lines and diffing, so that a fault there cannot vouch for itself.
//! **Invariant:** a change counts as kept only when its added lines are in the result at their place and its
//! removed lines are not. Repeated lines (`}`, blank ones) do not stand in for each other: each line of
//! the result pays for one line of a side, or for one of each side where both changed the same place.
//! In doubt a change is lost; the way out is to name it in a discard, which goes into the receipt.
//!
//! How: both sides' changes are laid over the base. Base lines that neither side touched are fixed points;
//! between two of them is a *gap*, in which one side, or both, changed something. The lines that have to be
//! in the result are aligned with it (longest common subsequence), so that each gap has a window of the
//! result to be judged by. Several diffs are tried, because on repeated lines more than one reading of
//! "what did this side change" is right; the reading that explains the result best is reported.

mod align;
mod discards;
mod judge;
mod plan;
mod whole;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use imara_diff::{Algorithm, Hunk, Interner, Token};
use serde::{Deserialize, Serialize};

use crate::merge_text::{Lines, Sliding, changes, index, lines, without_end};

/// The longest text an account quotes, in bytes.
pub const EXCERPT_BYTES_MAX: usize = 240;

/// How many lost changes of a side, and how many dropped stretches, an account lists; the rest is counted.
pub const LISTED_MAX: usize = 64;

/// The most lines of all four texts for which every reading is tried even when the first one shows a loss
/// that no other can explain away; above, the account of such a loss need not be the shortest one.
const THOROUGH_LINES_MAX: u32 = 4000;

/// The readings of a side's changes that are tried, best first: git's own for merges, then Myers', which
/// libgit2 and diffy use; then both with changes that can slide put at the other end.
const READINGS: [(Algorithm, Sliding); 4] = [
    (Algorithm::Histogram, Sliding::Down),
    (Algorithm::Myers, Sliding::Down),
    (Algorithm::Histogram, Sliding::Up),
    (Algorithm::Myers, Sliding::Up),
];

/// A side of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The branch merged into.
    Ours,
    /// The branch merged.
    Theirs,
}

/// A change that a result leaves out on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discard {
    /// Whose change.
    pub side: Side,
    /// The lines of that side which are not in the result; for an undone removal the lines removed.
    /// Empty for one change that has no lines: a removal, a deleted file, a binary content.
    pub text: Vec<u8>,
    /// Why, for a person.
    pub reason: String,
}

/// What became of the changes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAccount {
    /// Of our side.
    pub ours: SideAccount,
    /// Of their side.
    pub theirs: SideAccount,
    /// Lines which neither side touched, yet the result lacks, and no discard names.
    pub dropped: Vec<Dropped>,
    /// How many more stretches were dropped than `dropped` lists.
    pub dropped_unlisted: u32,
    /// How many lines of the result no line of base, ours or theirs accounts for: allowed, and counted.
    pub novel_lines: u32,
}

/// What became of one side's changes: `hunks` is the sum of all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideAccount {
    /// How many places the side changed.
    pub hunks: u32,
    /// In the result, where only this side changed something.
    pub present: u32,
    /// In the result, together with what the other side did at the same place.
    pub combined: u32,
    /// Left out on purpose.
    pub discarded: Vec<DiscardedHunk>,
    /// Not in the result, and nobody says why.
    pub lost: Vec<LostHunk>,
    /// How many more are lost than `lost` lists.
    pub lost_unlisted: u32,
}

/// Where a change stands. Lines count from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HunkPlace {
    /// The first base line it replaces, or would stand before.
    pub base_line: u32,
    /// How many base lines it removes.
    pub base_lines: u32,
    /// The first line it adds, in its side.
    pub side_line: u32,
    /// How many lines it adds.
    pub side_lines: u32,
}

/// A change left out on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardedHunk {
    /// Where.
    pub at: HunkPlace,
    /// The beginning of its text.
    pub excerpt: String,
    /// Why, as the discard says.
    pub reason: String,
}

/// A change that is not in the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostHunk {
    /// Where.
    pub at: HunkPlace,
    /// How many of its added lines the result lacks.
    pub missing_lines: u32,
    /// How many of its removed lines the result has again.
    pub restored_lines: u32,
    /// The beginning of the missing lines, or of the restored ones where none is missing.
    pub excerpt: String,
}

/// Lines that neither side touched and the result lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The first of them, in the base, from 0.
    pub base_line: u32,
    /// How many.
    pub base_lines: u32,
    /// Their beginning.
    pub excerpt: String,
}

impl FileAccount {
    /// Returns whether nothing is lost or dropped: each change is in the result, or discarded by name.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unaccounted() == 0
    }

    /// Returns how many changes and stretches are lost or dropped.
    #[must_use]
    pub fn unaccounted(&self) -> u32 {
        let lost = |side: &SideAccount| index(side.lost.len()) + side.lost_unlisted;
        lost(&self.ours) + lost(&self.theirs) + index(self.dropped.len()) + self.dropped_unlisted
    }

    /// Returns the account of one side.
    #[must_use]
    pub fn side(&self, side: Side) -> &SideAccount {
        match side {
            Side::Ours => &self.ours,
            Side::Theirs => &self.theirs,
        }
    }

    /// Returns the lost changes, ours first.
    pub fn lost(&self) -> impl Iterator<Item = (Side, &LostHunk)> {
        let ours = self.ours.lost.iter().map(|lost| (Side::Ours, lost));
        ours.chain(self.theirs.lost.iter().map(|lost| (Side::Theirs, lost)))
    }
}

/// Returns what became of each change of `ours` and `theirs` in `result`.
///
/// `None` is a file that is not there. Where a side renamed the file, pass what stands at the old path in
/// `base` and the other side, and what stands at the new path in the renaming side and the result. Modes
/// are not looked at. A binary file's content is one change, which is kept only whole.
#[must_use]
pub fn account(
    base: Option<&[u8]>,
    ours: Option<&[u8]>,
    theirs: Option<&[u8]>,
    result: Option<&[u8]>,
    discards: &[Discard],
) -> FileAccount {
    whole::account(&whole::Versions { base, ours, theirs, result }, discards)
}

/// Returns the account of four texts.
fn account_lines(base: &[u8], ours: &[u8], theirs: &[u8], result: &[u8], discards: &[Discard]) -> FileAccount {
    let mut interner = Interner::new(base.len() / 32);
    let texts = Texts {
        base: Lines::cut(base, &mut interner),
        ours: Lines::cut(ours, &mut interner),
        theirs: Lines::cut(theirs, &mut interner),
        result: Lines::cut(result, &mut interner),
        interner,
    };
    let spots = align::Spots::of(&texts.result.tokens, texts.interner.num_tokens());
    let lines = [&texts.base, &texts.ours, &texts.theirs, &texts.result].map(Lines::count);
    let large = lines.iter().sum::<u32>() > THOROUGH_LINES_MAX;
    let mut read: Vec<(Vec<Hunk>, Vec<Hunk>)> = Vec::new();
    let mut best: Option<FileAccount> = None;
    for (algorithm, sliding) in READINGS {
        let diff = |side: &Lines<'_>| changes(algorithm, sliding, &texts.base.tokens, &side.tokens, texts.interner.num_tokens());
        let reading = (diff(&texts.ours), diff(&texts.theirs));
        if read.contains(&reading) {
            continue;
        }
        let plan = plan::Plan::new(&texts, reading.0.clone(), reading.1.clone(), &spots);
        let account = account_plan(&texts, &plan, &spots, discards);
        let whole = account.is_whole();
        if best.as_ref().is_none_or(|best| account.unaccounted() < best.unaccounted()) {
            best = Some(account);
        }
        if whole || (large && is_beyond_doubt(&texts, discards)) {
            break;
        }
        read.push(reading);
    }
    best.unwrap_or_default()
}

/// Returns whether something is lost by any reading: a line that only sides have, or all three have, and
/// the result does not have at all.
fn is_beyond_doubt(texts: &Texts<'_>, discards: &[Discard]) -> bool {
    let has = |text: &Lines<'_>| {
        let mut has = vec![false; texts.interner.num_tokens() as usize];
        text.tokens.iter().for_each(|token| has[token.0 as usize] = true);
        has
    };
    let [base, ours, theirs, result] = [&texts.base, &texts.ours, &texts.theirs, &texts.result].map(has);
    let named: HashSet<&[u8]> = discards.iter().flat_map(|discard| lines(&discard.text)).map(without_end).collect();
    (0..texts.interner.num_tokens()).any(|token| {
        let at = token as usize;
        let wanted = if base[at] { ours[at] && theirs[at] } else { ours[at] || theirs[at] };
        wanted && !result[at] && is_told_apart(texts.interner[Token(token)], &named)
    })
}

/// Returns whether a line's absence can be no matter of its line end, nor of a discard.
fn is_told_apart(line: &[u8], named: &HashSet<&[u8]>) -> bool {
    line.ends_with(b"\n") && !named.contains(without_end(line))
}

/// Returns the account by one reading.
fn account_plan(texts: &Texts<'_>, plan: &plan::Plan, spots: &align::Spots, discards: &[Discard]) -> FileAccount {
    let takes_theirs = texts.result.tokens == texts.theirs.tokens;
    let (first, second) = if takes_theirs { (Side::Theirs, Side::Ours) } else { (Side::Ours, Side::Theirs) };
    let findings = judge::judge(texts, plan, spots, first);
    let undecided = findings.undecided;
    let account = discards::settle(texts, plan, findings, discards);
    if account.is_whole() || !undecided {
        return account;
    }
    let other = discards::settle(texts, plan, judge::judge(texts, plan, spots, second), discards);
    if other.unaccounted() < account.unaccounted() { other } else { account }
}

/// The four texts, their lines numbered alike.
struct Texts<'a> {
    base: Lines<'a>,
    ours: Lines<'a>,
    theirs: Lines<'a>,
    result: Lines<'a>,
    interner: Interner<&'a [u8]>,
}

impl<'a> Texts<'a> {
    fn side(&self, side: Side) -> &Lines<'a> {
        match side {
            Side::Ours => &self.ours,
            Side::Theirs => &self.theirs,
        }
    }
}

/// Returns the beginning of `bytes` as text, cut between characters.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_BYTES_MAX)]);
    let whole = bytes.len() <= EXCERPT_BYTES_MAX;
    let mut text = if whole { text.into_owned() } else { text.trim_end_matches('\u{fffd}').to_owned() };
    if !whole {
        text.push('…');
    }
    text
}
