//! Matches what is lost with what was given up by name, and tells the outcome.
//!
//! Must not know: how a loss was found.
//! Invariant: each line of a discard excuses one line once, and only of the side it names.

use std::collections::{HashMap, VecDeque};

use imara_diff::Hunk;

use super::judge::{Findings, HunkFinding};
use super::plan::Plan;
use super::{Discard, DiscardedHunk, Dropped, FileAccount, HunkPlace, LISTED_MAX, LostHunk, Side, SideAccount, Texts, excerpt};
use crate::merge_text::{index, lines, without_end};

/// Returns the account that `findings` make, given what was discarded.
pub(super) fn settle(texts: &Texts<'_>, plan: &Plan, findings: Findings, discards: &[Discard]) -> FileAccount {
    let mut pools = [Pool::new(Side::Ours, discards), Pool::new(Side::Theirs, discards)];
    let [our_pool, their_pool] = &mut pools;
    let ours = settle_side(texts, plan, Side::Ours, &findings.ours, our_pool);
    let theirs = settle_side(texts, plan, Side::Theirs, &findings.theirs, their_pool);
    let mut account = FileAccount { ours, theirs, novel_lines: findings.novel_lines, ..FileAccount::default() };
    for stretch in findings.dropped.chunk_by(|line, next| *line == *next || line + 1 == *next) {
        let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else {
            continue;
        };
        let bytes = texts.base.span(*first..last + 1);
        let named = pools.iter_mut().any(|pool| pool.take(lines(bytes)).is_some());
        if !named {
            account.drop_stretch(Dropped { base_line: *first, base_lines: last + 1 - first, excerpt: excerpt(bytes) });
        }
    }
    account
}

fn settle_side(texts: &Texts<'_>, plan: &Plan, side: Side, findings: &[HunkFinding], pool: &mut Pool<'_>) -> SideAccount {
    let mut account = SideAccount::default();
    for (hunk, finding) in plan.hunks(side).iter().zip(findings) {
        let at = HunkPlace {
            base_line: hunk.before.start,
            base_lines: hunk.before.end - hunk.before.start,
            side_line: hunk.after.start,
            side_lines: hunk.after.end - hunk.after.start,
        };
        account.hunks += 1;
        if finding.missing.is_empty() && finding.restored.is_empty() {
            if finding.shared {
                account.combined += 1;
            } else {
                account.present += 1;
            }
            continue;
        }
        let text = texts.side(side);
        let missing: Vec<&[u8]> = finding.missing.iter().map(|line| text.span(*line..line + 1)).collect();
        let restored: Vec<&[u8]> = finding.restored.iter().map(|line| texts.base.span(*line..line + 1)).collect();
        let first_lines = excerpt(if missing.is_empty() { restored.concat() } else { missing.concat() }.as_slice());
        let added = text.span(hunk.after.clone());
        match pool.excuse(hunk, &missing, &restored, added) {
            Some(reason) => account.discarded.push(DiscardedHunk { at, excerpt: first_lines, reason: reason.to_owned() }),
            None => account.lose(LostHunk {
                at,
                missing_lines: index(missing.len()),
                restored_lines: index(restored.len()),
                excerpt: first_lines,
            }),
        }
    }
    account
}

impl SideAccount {
    pub(super) fn lose(&mut self, hunk: LostHunk) {
        if self.lost.len() < LISTED_MAX {
            self.lost.push(hunk);
        } else {
            self.lost_unlisted += 1;
        }
    }
}

impl FileAccount {
    pub(super) fn drop_stretch(&mut self, stretch: Dropped) {
        if self.dropped.len() < LISTED_MAX {
            self.dropped.push(stretch);
        } else {
            self.dropped_unlisted += 1;
        }
    }
}

/// One side's discards, line by line, as far as they are not used up.
struct Pool<'a> {
    reasons: Vec<&'a str>,
    /// For each line, without its end, the discards that name it.
    lines: HashMap<&'a [u8], VecDeque<usize>>,
    /// The discards without text.
    textless: VecDeque<usize>,
}

impl<'a> Pool<'a> {
    fn new(side: Side, discards: &'a [Discard]) -> Self {
        let mut pool = Self { reasons: Vec::new(), lines: HashMap::new(), textless: VecDeque::new() };
        for discard in discards.iter().filter(|discard| discard.side == side) {
            let number = pool.reasons.len();
            pool.reasons.push(&discard.reason);
            if discard.text.is_empty() {
                pool.textless.push_back(number);
            }
            for line in lines(&discard.text) {
                pool.lines.entry(without_end(line)).or_default().push_back(number);
            }
        }
        pool
    }

    /// Uses up the discard of a change, if there is one, and returns its reason.
    ///
    /// Missing lines have to be named. So do restored ones, unless the discard names all that the change
    /// added, which is the change as a whole, or has no text, for a change that only removes.
    fn excuse(&mut self, hunk: &Hunk, missing: &[&[u8]], restored: &[&[u8]], added: &[u8]) -> Option<&'a str> {
        if self.reasons.is_empty() {
            return None;
        }
        if restored.is_empty() {
            return self.take(missing.iter().copied());
        }
        if let Some(reason) = self.take(missing.iter().chain(restored).copied()) {
            return Some(reason);
        }
        if !hunk.after.is_empty() {
            return self.take(lines(added));
        }
        let number = self.textless.pop_front()?;
        Some(self.reasons[number])
    }

    /// Uses up all of `wanted`, or nothing.
    fn take<'b>(&mut self, wanted: impl Iterator<Item = &'b [u8]>) -> Option<&'a str> {
        let mut taken: Vec<(&'b [u8], usize)> = Vec::new();
        for line in wanted {
            let line = without_end(line);
            match self.lines.get_mut(line).and_then(VecDeque::pop_front) {
                Some(number) => taken.push((line, number)),
                None => {
                    for (line, number) in taken.into_iter().rev() {
                        if let Some(numbers) = self.lines.get_mut(line) {
                            numbers.push_front(number);
                        }
                    }
                    return None;
                }
            }
        }
        taken.first().map(|(_, number)| self.reasons[*number])
    }
}

/// Returns the reason of a side's first discard without text.
pub(super) fn textless_reason(side: Side, discards: &[Discard]) -> Option<&str> {
    let mut named = discards.iter().filter(|discard| discard.side == side && discard.text.is_empty());
    named.next().map(|discard| discard.reason.as_str())
}

/// Returns the reason of a side's discard that names all of `text`.
pub(super) fn whole_reason<'a>(side: Side, text: &[u8], discards: &'a [Discard]) -> Option<&'a str> {
    let mut named = discards.iter().filter(|discard| discard.side == side && discard.text == text);
    named.next().map(|discard| discard.reason.as_str())
}
