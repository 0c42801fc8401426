//! What history says: ancestry, commits between, changed files, contents.

use std::path::Path;

use git2::{DiffOptions, ErrorCode, Patch, Repository, Sort};

use super::fault::{Fault, commit, oid, or_not_found, raw};
use super::project::Project;
use crate::ports::plugins::{CommitInfo, FileChange};
use crate::ports::repository::Oid;

/// Bytes of a file whose changed lines are counted; of a larger one they are given as none.
const COUNTED_BYTES_MAX: i64 = 8 << 20;

/// Returns whether a commit is another one or its ancestor.
pub(super) fn is_ancestor(repository: &Repository, ancestor: Oid, descendant: Oid) -> Result<bool, Fault> {
    let (above, below) = (commit(repository, ancestor)?.id(), commit(repository, descendant)?.id());
    Ok(above == below || repository.graph_descendant_of(below, above)?)
}

/// Returns a blob, one of a merge preview too.
pub(super) fn blob(project: &Project, id: Oid) -> Result<Vec<u8>, Fault> {
    let wide = project.wide()?;
    Ok(or_not_found(wide.find_blob(raw(id)), || format!("blob {id}"))?.content().to_vec())
}

/// Returns the file at a path of a commit.
pub(super) fn file(project: &Project, of: Oid, path: &str) -> Result<Option<Vec<u8>>, Fault> {
    let repository = project.main()?;
    let tree = commit(&repository, of)?.tree()?;
    if path.is_empty() {
        return Ok(None);
    }
    match tree.get_path(Path::new(path)) {
        Ok(entry) if entry.kind() == Some(git2::ObjectType::Blob) => Ok(Some(repository.find_blob(entry.id())?.content().to_vec())),
        Ok(_) => Ok(None),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns a commit's tree.
pub(super) fn tree_of(project: &Project, of: Oid) -> Result<Oid, Fault> {
    Ok(oid(commit(&*project.main()?, of)?.tree_id()))
}

/// Returns the commits of `head` that `target` lacks, oldest first.
pub(super) fn commits_between(project: &Project, target: Oid, head: Oid, limit: usize) -> Result<Vec<CommitInfo>, Fault> {
    let repository = project.main()?;
    let mut walk = repository.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
    walk.push(commit(&repository, head)?.id())?;
    walk.hide(commit(&repository, target)?.id())?;
    let mut commits = Vec::new();
    for id in walk.take(limit) {
        let commit = repository.find_commit(id?)?;
        let author = commit.author();
        let (name, email) = (String::from_utf8_lossy(author.name_bytes()), String::from_utf8_lossy(author.email_bytes()));
        commits.push(CommitInfo {
            id: commit.id().to_string(),
            subject: commit.summary_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default(),
            author: format!("{name} <{email}>"),
        });
    }
    Ok(commits)
}

/// Returns the merge base that is accounted against: of several the youngest, then the one with the smallest name.
pub(super) fn best_base(repository: &Repository, one: git2::Oid, other: git2::Oid) -> Result<Option<git2::Oid>, Fault> {
    let bases = match repository.merge_bases(one, other) {
        Ok(bases) => bases,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut best: Option<(i64, git2::Oid)> = None;
    for id in bases.iter() {
        let at = repository.find_commit(*id)?.time().seconds();
        if best.is_none_or(|(time, chosen)| at > time || (at == time && *id < chosen)) {
            best = Some((at, *id));
        }
    }
    Ok(best.map(|(_, id)| id))
}

/// Returns the files `head` changes against its merge base with `target`.
pub(super) fn changes(project: &Project, target: Oid, head: Oid) -> Result<Vec<FileChange>, Fault> {
    let repository = project.main()?;
    let (target, head) = (commit(&repository, target)?, commit(&repository, head)?);
    let base = match best_base(&repository, target.id(), head.id())? {
        Some(base) => Some(repository.find_commit(base)?.tree()?),
        None => None,
    };
    let mut options = DiffOptions::new();
    options.context_lines(0).max_size(COUNTED_BYTES_MAX).ignore_submodules(false);
    let diff = repository.diff_tree_to_tree(base.as_ref(), Some(&head.tree()?), Some(&mut options))?;
    let mut files = Vec::with_capacity(diff.deltas().len());
    for place in 0..diff.deltas().len() {
        let (added, removed) = match Patch::from_diff(&diff, place)? {
            Some(patch) => {
                let (_, added, removed) = patch.line_stats()?;
                (u32::try_from(added).unwrap_or(u32::MAX), u32::try_from(removed).unwrap_or(u32::MAX))
            }
            None => (0, 0),
        };
        let Some(delta) = diff.get_delta(place) else { continue };
        let path = delta.new_file().path_bytes().or_else(|| delta.old_file().path_bytes()).unwrap_or_default();
        files.push(FileChange { path: String::from_utf8_lossy(path).into_owned(), added, removed });
    }
    Ok(files)
}
