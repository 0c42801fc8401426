//! Refs: grants, fences, moves, landings, candidates.
//!
//! Every change locks the branch first, then reads what it depends on, then writes. Git's own processes take the same
//! lock files, so a push and a revocation exclude each other.
//!
//! **Invariant:** a fence never goes back; a backup ref is on disk before what it backs up is moved.

use git2::{ErrorCode, ObjectType, Reference, Repository, Signature, Transaction};
use pointsman_core::ids::{FencingToken, MergeId, TaskId};

use super::fault::{Fault, commit, failed, not_found, oid, raw, refused};
use super::objects::Batch;
use super::project::Project;
use super::{history, notes};
use crate::ports::repository::{BranchGrant, BranchMove, Landing, Oid, RepositoryError};

/// Bytes of a branch's short name.
const BRANCH_BYTES_MAX: usize = 200;

/// Returns a branch's full name.
pub(super) fn branch_ref(branch: &str) -> String {
    format!("refs/heads/{branch}")
}

/// Returns the name of a task's fence.
pub(super) fn fence_ref(task: TaskId) -> String {
    format!("refs/pointsman/fence/{task}")
}

fn candidate_ref(merge: MergeId) -> String {
    format!("refs/pointsman/candidate/{merge}")
}

fn backup_ref(branch: &str, which: impl std::fmt::Display) -> String {
    format!("refs/pointsman/backup/{branch}/{which}")
}

/// Returns where a ref is.
pub(super) fn read_ref(repository: &Repository, name: &str) -> Result<Option<git2::Oid>, Fault> {
    match repository.refname_to_id(name) {
        Ok(id) => Ok(Some(id)),
        Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the token a task's fence holds.
pub(super) fn read_fence(repository: &Repository, task: TaskId) -> Result<Option<FencingToken>, Fault> {
    let Some(id) = read_ref(repository, &fence_ref(task))? else { return Ok(None) };
    let blob = repository.find_blob(id)?;
    let text = std::str::from_utf8(blob.content()).ok().and_then(|text| text.strip_suffix('\n'));
    match text.and_then(|text| text.parse().ok()) {
        Some(token) => Ok(Some(token)),
        None => Err(failed(format!("the fence of {task} is damaged"))),
    }
}

fn fence_blob(project: &Project, token: FencingToken) -> Result<git2::Oid, Fault> {
    let mut batch = Batch::default();
    let id = batch.add(ObjectType::Blob, format!("{token}\n").into_bytes())?;
    batch.flush(project, Vec::new())?;
    Ok(id)
}

/// Returns who moves refs, in reflogs.
fn host_signature() -> Result<Signature<'static>, Fault> {
    Ok(Signature::now("Pointsman", "pointsman@localhost")?)
}

/// Locks refs, in this order.
pub(super) fn lock<'repo>(repository: &'repo Repository, names: &[&str]) -> Result<Transaction<'repo>, Fault> {
    let mut transaction = repository.transaction()?;
    for name in names {
        transaction.lock_ref(name)?;
    }
    Ok(transaction)
}

/// Sets a locked ref.
pub(super) fn set(transaction: &mut Transaction<'_>, name: &str, to: git2::Oid, message: &str) -> Result<(), Fault> {
    Ok(transaction.set_target(name, to, Some(&host_signature()?), message)?)
}

/// Returns where a branch is.
pub(super) fn branch_head(project: &Project, branch: &str) -> Result<Option<Oid>, Fault> {
    Ok(read_ref(&*project.main()?, &branch_ref(branch))?.map(oid))
}

fn check_form(branch: &str) -> Result<(), Fault> {
    let name = branch_ref(branch);
    let shown: String = branch.chars().take(80).collect();
    if branch.len() > BRANCH_BYTES_MAX {
        return Err(refused("bad_ref", format!("`{shown}…` is longer than {BRANCH_BYTES_MAX} bytes")));
    }
    if !Reference::is_valid_name(&name) || branch.starts_with('-') || branch == "HEAD" || branch.starts_with("refs/") {
        let why = format!("`{shown}` is no branch name: see `git check-ref-format --branch`");
        return Err(refused("bad_ref", why));
    }
    Ok(())
}

/// Returns whether a new branch of this name has a place.
pub(super) fn check_branch_name(project: &Project, branch: &str) -> Result<(), Fault> {
    check_form(branch)?;
    check_place(&*project.main()?, branch)
}

fn check_place(repository: &Repository, branch: &str) -> Result<(), Fault> {
    let folded = branch.to_lowercase();
    for name in repository.references_glob("refs/heads/*")?.names() {
        let name = name?.to_owned();
        let Some(other) = name.strip_prefix("refs/heads/") else { continue };
        let theirs = other.to_lowercase();
        if theirs == folded {
            return Err(refused("ref_taken", format!("there is a branch `{other}` already")));
        }
        let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
        if below(&folded, &theirs) || below(&theirs, &folded) {
            return Err(refused(
                "ref_collides",
                format!("`{branch}` cannot be beside the branch `{other}`: one would be the other's folder"),
            ));
        }
    }
    Ok(())
}

/// Creates or keeps a branch and sets its fence.
pub(super) fn grant(project: &Project, grant: &BranchGrant) -> Result<Oid, Fault> {
    check_form(&grant.branch)?;
    let repository = project.main()?;
    let (branch, fence) = (branch_ref(&grant.branch), fence_ref(grant.task));
    if repository.find_reference("HEAD")?.symbolic_target()? == Some(branch.as_str()) {
        return Err(refused("is_target", format!("`{}` is the target: work on a branch of your own", grant.branch)));
    }
    let token = fence_blob(project, grant.token)?;
    let mut transaction = lock(&repository, &[&branch, &fence])?;
    let standing = read_fence(&repository, grant.task)?;
    if standing.is_some_and(|standing| standing > grant.token) {
        return Err(RepositoryError::Fenced { task: grant.task }.into());
    }
    let head = match read_ref(&repository, &branch)? {
        Some(head) => head,
        None => {
            check_place(&repository, &grant.branch)?;
            let start = commit(&repository, grant.start)?.id();
            set(&mut transaction, &branch, start, &format!("granted to {}", grant.task))?;
            start
        }
    };
    if standing != Some(grant.token) {
        set(&mut transaction, &fence, token, "grant")?;
    }
    transaction.commit()?;
    Ok(oid(head))
}

/// Raises a fence and backs the branch up. When the fence is higher already, the claim is over and nothing is left to do.
pub(super) fn revoke(project: &Project, task: TaskId, branch: &str, token: FencingToken) -> Result<(), Fault> {
    check_form(branch)?;
    let repository = project.main()?;
    let (name, fence) = (branch_ref(branch), fence_ref(task));
    let blob = fence_blob(project, token)?;
    let mut transaction = lock(&repository, &[&name, &fence])?;
    if read_fence(&repository, task)?.is_some_and(|standing| standing >= token) {
        return Ok(());
    }
    if let Some(head) = read_ref(&repository, &name)? {
        back_up(project, &backup_ref(branch, token), head)?;
    }
    set(&mut transaction, &fence, blob, "revoke")?;
    Ok(transaction.commit()?)
}

/// Keeps a commit under a backup ref, in a transaction of its own: it is on disk before the caller goes on.
fn back_up(project: &Project, name: &str, head: git2::Oid) -> Result<(), Fault> {
    let repository = project.main()?;
    let mut transaction = lock(&repository, &[name])?;
    set(&mut transaction, name, head, "backup")?;
    Ok(transaction.commit()?)
}

fn moved(name: &str, expected: Oid, actual: Option<git2::Oid>) -> Fault {
    let actual = actual.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
    Fault::Port(RepositoryError::Moved { name: name.to_owned(), expected: expected.to_string(), actual })
}

/// Moves a claimed branch.
pub(super) fn move_branch(project: &Project, step: &BranchMove) -> Result<(), Fault> {
    check_form(&step.branch)?;
    let repository = project.main()?;
    let (branch, fence) = (branch_ref(&step.branch), fence_ref(step.task));
    let new = commit(&repository, step.new)?.id();
    let mut transaction = lock(&repository, &[&branch, &fence])?;
    let head = read_ref(&repository, &branch)?;
    if head == Some(new) {
        return Ok(());
    }
    if read_fence(&repository, step.task)? != Some(step.token) {
        return Err(RepositoryError::Fenced { task: step.task }.into());
    }
    if head != Some(raw(step.old)) {
        return Err(moved(&branch, step.old, head));
    }
    set(&mut transaction, &branch, new, &format!("commit by {}", step.task))?;
    Ok(transaction.commit()?)
}

/// Keeps a merge's candidate from being forgotten.
pub(super) fn keep_candidate(project: &Project, merge: MergeId, commit: git2::Oid) -> Result<(), Fault> {
    let repository = project.main()?;
    let name = candidate_ref(merge);
    let mut transaction = lock(&repository, &[&name])?;
    if read_ref(&repository, &name)? == Some(commit) {
        return Ok(());
    }
    set(&mut transaction, &name, commit, "candidate")?;
    Ok(transaction.commit()?)
}

/// Drops a merge's candidate.
pub(super) fn drop_candidate(project: &Project, merge: MergeId) -> Result<(), Fault> {
    let repository = project.main()?;
    let name = candidate_ref(merge);
    let mut transaction = lock(&repository, &[&name])?;
    if read_ref(&repository, &name)?.is_none() {
        return Ok(());
    }
    transaction.remove(&name)?;
    Ok(transaction.commit()?)
}

/// Lands: the note, then under the target's lock the backup and the swap.
pub(super) fn land(project: &Project, landing: &Landing) -> Result<(), Fault> {
    check_form(&landing.target)?;
    let repository = project.main()?;
    let target = branch_ref(&landing.target);
    let new = commit(&repository, landing.new)?.id();
    if landing.new == landing.old || !history::is_ancestor(&repository, landing.old, landing.new)? {
        let why = format!("{} does not follow {}: landing it would drop work from `{}`", landing.new, landing.old, landing.target);
        return Err(refused("drops_work", why));
    }
    let place = |repository: &Repository| -> Result<Place, Fault> {
        let Some(head) = read_ref(repository, &target)? else { return Err(not_found(format!("branch {}", landing.target))) };
        if head == raw(landing.old) {
            Ok(Place::Before)
        } else if history::is_ancestor(repository, landing.new, oid(head))? {
            Ok(Place::Landed)
        } else {
            Err(moved(&target, landing.old, Some(head)))
        }
    };
    // Asked before the note too, so that a lost race leaves nothing behind in most cases.
    place(&repository)?;
    notes::write(project, landing.new, &landing.receipt)?;
    let mut transaction = lock(&repository, &[&target])?;
    let backup = backup_ref(&landing.target, landing.merge);
    match place(&repository)? {
        Place::Landed if read_ref(&repository, &backup)?.is_some() => Ok(()),
        Place::Landed => back_up(project, &backup, raw(landing.old)),
        Place::Before => {
            back_up(project, &backup, raw(landing.old))?;
            set(&mut transaction, &target, new, &format!("land {} of {}", landing.merge, landing.task))?;
            Ok(transaction.commit()?)
        }
    }
}

enum Place {
    Before,
    Landed,
}
