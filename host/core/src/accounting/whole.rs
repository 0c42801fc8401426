//! Files that come, go, or are not text.
//!
//! Owns: what it means for a side to add or delete a file, or to change binary content.
//! Must not know: lines.
//! Invariant: a deletion is one change, present only when the result has no file; binary content is one
//! change, present only when the result is that content.

use super::discards::{textless_reason, whole_reason};
use super::{Discard, DiscardedHunk, Dropped, FileAccount, HunkPlace, LostHunk, Side, SideAccount, account_lines, excerpt};
use crate::merge_text::{index, is_binary, lines};

/// A file's four versions.
pub(super) struct Versions<'a> {
    pub(super) base: Option<&'a [u8]>,
    pub(super) ours: Option<&'a [u8]>,
    pub(super) theirs: Option<&'a [u8]>,
    pub(super) result: Option<&'a [u8]>,
}

/// How one change ended.
enum Fate {
    Present,
    Combined,
    Missing,
}

impl<'a> Versions<'a> {
    fn of(&self, side: Side) -> Option<&'a [u8]> {
        match side {
            Side::Ours => self.ours,
            Side::Theirs => self.theirs,
        }
    }

    fn deletes(&self, side: Side) -> bool {
        self.base.is_some() && self.of(side).is_none()
    }

    /// Whether a side adds a file without a line in it.
    fn adds_nothing(&self, side: Side) -> bool {
        self.base.is_none() && self.of(side).is_some_and(<[u8]>::is_empty)
    }

    fn is_binary(&self) -> bool {
        [self.base, self.ours, self.theirs, self.result].into_iter().flatten().any(is_binary)
    }
}

/// Returns the account of a file.
pub(super) fn account(files: &Versions<'_>, discards: &[Discard]) -> FileAccount {
    if files.is_binary() {
        return binary(files, discards);
    }
    let base = files.base.unwrap_or_default();
    // A deletion is judged by itself; line by line that side changes nothing.
    let text = |side: Side| files.of(side).unwrap_or(base);
    let result = files.result.unwrap_or_default();
    let mut account = account_lines(base, text(Side::Ours), text(Side::Theirs), result, discards);

    let deleted = [Side::Ours, Side::Theirs].map(|side| files.deletes(side));
    if files.result.is_none() && deleted.contains(&true) {
        // The deletion is why lines that nobody touched are gone.
        account.dropped.clear();
        account.dropped_unlisted = 0;
    } else if files.result.is_none() && files.base.is_some_and(<[u8]>::is_empty) {
        account.drop_stretch(Dropped { base_line: 0, base_lines: 0, excerpt: String::new() });
    }
    for side in [Side::Ours, Side::Theirs] {
        let fate = if files.deletes(side) {
            match files.result {
                Some(_) => Fate::Missing,
                None if deleted == [true, true] => Fate::Combined,
                None => Fate::Present,
            }
        } else if files.adds_nothing(side) {
            match files.result {
                Some(_) => Fate::Present,
                None => Fate::Missing,
            }
        } else {
            continue;
        };
        let at = HunkPlace { base_lines: index(lines(base).count()), ..HunkPlace::default() };
        let reason = || textless_reason(side, discards).or_else(|| whole_reason(side, base, discards));
        settle(&mut account, side, fate, at, excerpt(base), reason);
    }
    account
}

fn binary(files: &Versions<'_>, discards: &[Discard]) -> FileAccount {
    let mut account = FileAccount::default();
    let changed = |side: Side| files.of(side) != files.base;
    for side in [Side::Ours, Side::Theirs] {
        if !changed(side) {
            continue;
        }
        let fate = if files.of(side) != files.result {
            Fate::Missing
        } else if files.ours == files.theirs {
            Fate::Combined
        } else {
            Fate::Present
        };
        let content = files.of(side).unwrap_or_default();
        let reason = || textless_reason(side, discards).or_else(|| whole_reason(side, content, discards));
        settle(&mut account, side, fate, HunkPlace::default(), describe(files.of(side)), reason);
    }
    let known = [files.base, files.ours, files.theirs].contains(&files.result);
    if !changed(Side::Ours) && !changed(Side::Theirs) && !known {
        account.drop_stretch(Dropped { base_line: 0, base_lines: 0, excerpt: describe(files.base) });
    }
    if !known && files.result.is_some() {
        account.novel_lines = 1;
    }
    account
}

fn settle<'a>(account: &mut FileAccount, side: Side, fate: Fate, at: HunkPlace, excerpt: String, reason: impl FnOnce() -> Option<&'a str>) {
    let account: &mut SideAccount = match side {
        Side::Ours => &mut account.ours,
        Side::Theirs => &mut account.theirs,
    };
    account.hunks += 1;
    match fate {
        Fate::Present => account.present += 1,
        Fate::Combined => account.combined += 1,
        Fate::Missing => match reason() {
            Some(reason) => account.discarded.push(DiscardedHunk { at, excerpt, reason: reason.to_owned() }),
            None => account.lose(LostHunk { at, missing_lines: at.side_lines, restored_lines: at.base_lines, excerpt }),
        },
    }
}

/// Says what a binary content is, since it cannot be quoted.
fn describe(content: Option<&[u8]>) -> String {
    match content {
        Some(bytes) => format!("binary, {} bytes", bytes.len()),
        None => "deleted".to_owned(),
    }
}
