//! Receipts as git notes in `refs/notes/pointsman`, in folders by the first two digits, as git reads them.
//!
//! **Invariant:** the same receipt on the same notes gives the same notes commit.

use std::path::Path;

use git2::{ObjectType, Time};

use super::fault::{Fault, commit, failed, raw};
use super::objects::Batch;
use super::project::Project;
use super::refs::{lock, read_ref, set};
use super::tree::{MODE_FILE, TreeEdit};
use super::write::{HOST, commit_bytes};
use crate::ports::repository::Oid;

const NOTES: &str = "refs/notes/pointsman";

fn note_path(commit: Oid) -> String {
    let hex = commit.to_string();
    format!("{}/{}", &hex[..2], &hex[2..])
}

/// Writes the receipt of a commit.
pub(super) fn write(project: &Project, on: Oid, receipt: &str) -> Result<(), Fault> {
    let repository = project.main()?;
    let at = commit(&repository, on)?.time();
    let mut transaction = lock(&repository, &[NOTES])?;
    let before = read_ref(&repository, NOTES)?;
    let tree = match before {
        Some(head) => Some(repository.find_commit(head)?.tree_id()),
        None => None,
    };
    let path = note_path(on);
    let mut batch = Batch::default();
    let blob = batch.add(ObjectType::Blob, receipt.as_bytes().to_vec())?;
    let mut edit = TreeEdit::new(&repository, tree);
    if edit.get(&path)?.is_some_and(|(found, _)| found == blob) {
        return Ok(());
    }
    edit.put(&path, blob, MODE_FILE)?;
    let tree = edit.write(&mut batch)?;
    let parents: Vec<_> = before.into_iter().collect();
    let message = format!("Receipt of {on}\n");
    let time = Time::new(at.seconds(), 0);
    let head = batch.add(ObjectType::Commit, commit_bytes(tree, &parents, &HOST, &HOST, time, &message)?)?;
    batch.flush(project, Vec::new())?;
    set(&mut transaction, NOTES, head, "receipt")?;
    Ok(transaction.commit()?)
}

/// Returns the receipt of a commit.
pub(super) fn receipt(project: &Project, on: Oid) -> Result<Option<String>, Fault> {
    let repository = project.main()?;
    commit(&repository, on)?;
    let Some(head) = read_ref(&repository, NOTES)? else { return Ok(None) };
    let tree = repository.find_commit(head)?.tree()?;
    let entry = match tree.get_path(Path::new(&note_path(on))) {
        Ok(entry) => entry,
        Err(error) if error.code() == git2::ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let blob = repository.find_blob(entry.id())?;
    match String::from_utf8(blob.content().to_vec()) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(failed(format!("the note of {} is not text", raw(on)))),
    }
}
