//! The world `merger`.
//!
//! **Invariant:** there is one answer for each hunk, and an answer that claims a conflict names one. Whether a merge
//! lost work is judged by whoever asked.

use self::bindings::exports::pointsman::merger::merging as wit;
use super::admission::Shape;
use super::pool::{Pool, guest};
use crate::ports::plugins::{FileOutcome, HunkOutcome, MergeDiscard, MergeFile, MergeHunk, MergeScope, MergerDescription, PluginFailure};

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../wit/types", "../wit/merger"],
        world: "pointsman:merger/merger",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

guest!(
    bindings::Merger,
    MergerPre,
    Merger,
    Shape { world: "merger", imports: &[], exports: &["pointsman:types/setup@0.1.0", "pointsman:merger/merging@0.1.0"] },
    |_linker| Ok(())
);

/// Asks a merger, at its load, what it is for.
pub(super) fn describe(pool: &Pool<bindings::Merger>) -> Result<MergerDescription, PluginFailure> {
    pool.probe(|guest, store| {
        let answer = guest.pointsman_merger_merging().call_describe(store)?;
        let scope = match answer.scope {
            wit::Scope::Hunks => MergeScope::Hunks,
            wit::Scope::File => MergeScope::File,
        };
        Ok(Ok(MergerDescription { scope, paths: answer.paths }))
    })
}

/// Asks for hunks.
pub(super) fn merge_hunks(pool: &Pool<bindings::Merger>, path: &str, hunks: &[MergeHunk]) -> Result<Vec<HunkOutcome>, PluginFailure> {
    let sides: Vec<wit::Hunk<'_>> =
        hunks.iter().map(|hunk| wit::Hunk { base: &hunk.base, ours: &hunk.ours, theirs: &hunk.theirs }).collect();
    pool.ask(|guest, store| {
        let answers = guest.pointsman_merger_merging().call_merge_hunks(store, place(path), &sides)?;
        if answers.len() != hunks.len() {
            return Ok(Err(format!("it has {} answers for {} hunks", answers.len(), hunks.len())));
        }
        Ok(Ok(answers.into_iter().map(hunk_outcome).collect()))
    })
}

/// Asks for a file.
pub(super) fn merge_file(pool: &Pool<bindings::Merger>, file: &MergeFile) -> Result<FileOutcome, PluginFailure> {
    pool.ask(|guest, store| {
        let answer = guest.pointsman_merger_merging().call_merge_file(
            store,
            place(&file.path),
            file.base.as_deref(),
            &file.ours,
            &file.theirs,
            &file.so_far,
        )?;
        Ok(file_outcome(answer))
    })
}

const fn place(path: &str) -> wit::Place<'_> {
    wit::Place { path, media_type: "" }
}

fn hunk_outcome(answer: wit::HunkOutcome) -> HunkOutcome {
    match answer {
        wit::HunkOutcome::Resolved(resolution) => HunkOutcome::Resolved(resolution.bytes, discards(resolution.discards)),
        wit::HunkOutcome::Conflict(reason) => HunkOutcome::Conflict(reason),
        wit::HunkOutcome::Declined => HunkOutcome::Declined,
    }
}

fn file_outcome(answer: wit::FileOutcome) -> Result<FileOutcome, String> {
    match answer {
        wit::FileOutcome::Resolved(resolution) => Ok(FileOutcome::Resolved(resolution.bytes, discards(resolution.discards))),
        wit::FileOutcome::Conflicts(places) if places.is_empty() => Err("it speaks of conflicts and names none".to_owned()),
        wit::FileOutcome::Conflicts(places) => Ok(FileOutcome::Conflicts(places.iter().map(conflict).collect())),
        wit::FileOutcome::Declined(reason) => Ok(FileOutcome::Declined(reason)),
        wit::FileOutcome::Regenerate(command) if command.argv.is_empty() || command.writes.is_empty() => {
            Err("its command has no program or writes no path".to_owned())
        }
        wit::FileOutcome::Regenerate(command) => Ok(FileOutcome::Regenerate(command.argv, command.writes)),
    }
}

/// Says where in the base a conflict is, and why. Lines are counted from 1.
fn conflict(one: &wit::Conflict) -> String {
    let first = u64::from(one.base_line) + 1;
    match one.base_lines {
        0 => format!("before line {first}: {}", one.reason),
        1 => format!("line {first}: {}", one.reason),
        more => format!("lines {first}-{}: {}", first + u64::from(more) - 1, one.reason),
    }
}

fn discards(answer: Vec<wit::Discard>) -> Vec<MergeDiscard> {
    answer.into_iter().map(|one| MergeDiscard { of_ours: one.side == wit::Side::Ours, text: one.text, reason: one.reason }).collect()
}
