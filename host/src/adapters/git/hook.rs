//! The hooks of a push, run by git as `pointsman git-hook NAME …` in a process of their own.
//!
//! `pre-receive` judges what comes in: one branch, nothing lost, only leased paths. `reference-transaction` runs while the branch is
//! locked and compares the fence. What they print reaches the person or agent who pushes.
//!
//! **Invariant:** what cannot be judged is refused.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use git2::{Oid, Repository, Sort};
use pointsman_core::ids::{FencingToken, TaskId};
use pointsman_core::path_glob::PathGlob;
use serde::{Deserialize, Serialize};

use super::fault::{Fault, failed, refused};
use super::history::is_ancestor;
use super::paths::validate;
use super::refs::{branch_ref, read_fence};
use super::sides::{Row, compare, text};
use super::tree::MODE_SUBMODULE;
use super::write::not_leased;
use crate::ports::repository::{PushGrant, RepositoryError};

/// Commits of one push.
const COMMITS_MAX: usize = 10_000;
/// Bytes of what git tells a hook.
const INPUT_BYTES_MAX: u64 = 4 << 20;

/// What each line begins with that a hook says.
pub(super) const SAID: &str = "pointsman:";

/// A push grant as a hook gets it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HookGrant {
    task: TaskId,
    branch: String,
    token: FencingToken,
    allowed: Vec<PathGlob>,
    file_bytes_max: u64,
}

impl HookGrant {
    pub(super) fn of(grant: &PushGrant) -> Self {
        let PushGrant { task, branch, token, allowed, file_bytes_max } = grant.clone();
        Self { task, branch, token, allowed, file_bytes_max }
    }

    pub(super) fn to_text(&self) -> Result<String, RepositoryError> {
        serde_json::to_string(self).map_err(|error| RepositoryError::Failed { why: format!("a grant cannot be written: {error}") })
    }
}

/// Runs a hook: `git-hook NAME GIT_DIR GRANT [QUARANTINE]`, without the first word. What it refuses goes to standard error.
#[must_use]
pub fn git_hook(arguments: Vec<OsString>) -> ExitCode {
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            let (rule, why) = match RepositoryError::from(fault) {
                RepositoryError::Refused { rule, why } => (rule, why),
                RepositoryError::Fenced { task } => {
                    ("fenced", format!("the claim on {task} is no longer held: claim it again, then push with the new credential"))
                }
                other @ (RepositoryError::NotFound { .. }
                | RepositoryError::Moved { .. }
                | RepositoryError::TimedOut { .. }
                | RepositoryError::Failed { .. }
                | RepositoryError::Away { .. }) => ("failed", other.to_string()),
            };
            #[expect(clippy::print_stderr, reason = "git hands a hook's standard error to whoever pushes")]
            {
                eprintln!("{SAID} refused [{rule}]: {why}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[OsString]) -> Result<(), Fault> {
    let text = |place: usize| arguments.get(place).and_then(|argument| argument.to_str()).unwrap_or_default();
    let grant: HookGrant = serde_json::from_str(text(2)).map_err(|_| failed("the hook has no grant; push through the host"))?;
    let repository = Repository::open_bare(Path::new(text(1)))?;
    let mut input = String::new();
    std::io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut input)?;
    let changes = input.lines().map(Change::read).collect::<Result<Vec<_>, _>>()?;
    match text(0) {
        "pre-receive" => {
            if !text(3).is_empty() {
                repository.odb()?.add_disk_alternate(&Path::new(text(3)).canonicalize()?.to_string_lossy())?;
            }
            // Asked again under the lock; asked here so that the answer reaches whoever pushes before any work is done.
            check_fence(&repository, &grant)?;
            changes.iter().try_for_each(|change| judge(&repository, &grant, change))
        }
        "reference-transaction" => prepared(&repository, &grant, &changes),
        other => Err(failed(format!("there is no hook `{other}`"))),
    }
}

/// A line `OLD NEW REF`.
struct Change {
    old: Oid,
    new: Oid,
    name: String,
}

impl Change {
    fn read(line: &str) -> Result<Self, Fault> {
        let mut parts = line.splitn(3, ' ');
        let mut id = || parts.next().filter(|hex| hex.len() == 40).and_then(|hex| Oid::from_str(hex).ok());
        match (id(), id(), parts.next()) {
            (Some(old), Some(new), Some(name)) => Ok(Self { old, new, name: name.to_owned() }),
            _ => Err(failed(format!("git gave the hook `{line}`"))),
        }
    }
}

/// Compares the fence while the branch is locked: a grant or revocation locks it too.
fn prepared(repository: &Repository, grant: &HookGrant, changes: &[Change]) -> Result<(), Fault> {
    for change in changes {
        // A branch that HEAD names moves HEAD's log along with it.
        if change.name != branch_ref(&grant.branch) && change.name != "HEAD" {
            return Err(wrong_branch(grant, &change.name));
        }
    }
    check_fence(repository, grant)
}

fn check_fence(repository: &Repository, grant: &HookGrant) -> Result<(), Fault> {
    if read_fence(repository, grant.task)? == Some(grant.token) { Ok(()) } else { Err(RepositoryError::Fenced { task: grant.task }.into()) }
}

fn wrong_branch(grant: &HookGrant, name: &str) -> Fault {
    let why = format!("this credential may push `{0}` only, not `{name}`: git push origin HEAD:{0}", branch_ref(&grant.branch));
    refused("wrong_branch", why)
}

/// Judges one ref of a push.
fn judge(repository: &Repository, grant: &HookGrant, change: &Change) -> Result<(), Fault> {
    if change.name != branch_ref(&grant.branch) {
        return Err(wrong_branch(grant, &change.name));
    }
    if change.new.is_zero() {
        return Err(refused("deletion", format!("`{}` is not deleted by a push: release the claim instead", grant.branch)));
    }
    if change.old.is_zero() {
        return Err(refused("branch_gone", format!("`{}` is not there any more: claim the task again", grant.branch)));
    }
    let new = repository.find_commit(change.new).map_err(|_| refused("not_a_commit", "a branch holds commits only"))?;
    if !is_ancestor(repository, super::fault::oid(change.old), super::fault::oid(new.id()))? {
        let why = format!(
            "the push would drop {} from `{}`: fetch it, merge or rebase onto it, and push without --force",
            &change.old.to_string()[..10],
            grant.branch
        );
        return Err(refused("non_fast_forward", why));
    }
    for id in new_commits(repository, grant, change)? {
        judge_commit(repository, grant, id)?;
    }
    Ok(())
}

/// Returns the commits that no branch or tag has yet.
fn new_commits(repository: &Repository, grant: &HookGrant, change: &Change) -> Result<Vec<Oid>, Fault> {
    let mut walk = repository.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
    walk.push(change.new)?;
    walk.hide(change.old)?;
    for reference in repository.references()? {
        let reference = reference?;
        let known = reference.is_branch() || reference.is_tag();
        if known
            && reference.name().ok() != Some(branch_ref(&grant.branch).as_str())
            && let Ok(commit) = reference.peel_to_commit()
        {
            walk.hide(commit.id())?;
        }
    }
    let commits: Vec<Oid> = walk.take(COMMITS_MAX + 1).collect::<Result<_, _>>()?;
    if commits.len() > COMMITS_MAX {
        return Err(refused("too_large", format!("the push has more than {COMMITS_MAX} new commits: push fewer at a time")));
    }
    Ok(commits)
}

/// A path and what a commit has there.
type Touched = (Vec<u8>, Option<(Oid, u32)>);

fn judge_commit(repository: &Repository, grant: &HookGrant, id: Oid) -> Result<(), Fault> {
    let commit = repository.find_commit(id)?;
    let short = &id.to_string()[..10];
    let tree = commit.tree_id();
    let touched: Vec<Touched> = match commit.parent_count() {
        0 => compare(repository, [None, Some(tree)])?.into_iter().map(|(path, [_, after])| (path, after)).collect(),
        1 => {
            let before = commit.parent(0)?.tree_id();
            compare(repository, [Some(before), Some(tree)])?.into_iter().map(|(path, [_, after])| (path, after)).collect()
        }
        2 => touched_by_merge(repository, &commit)?,
        _ => {
            let why = format!("{short} has more than two parents: merge one branch at a time");
            return Err(refused("octopus", why));
        }
    };
    for (path, after) in touched {
        let path = text(path)?;
        if after.is_some() {
            validate(&path)?;
        }
        if !grant.allowed.is_empty() && !grant.allowed.iter().any(|glob| glob.matches(&path)) {
            let why = format!(
                "{} (commit {short}); take the change out of that commit, or ask for the path with update_task",
                not_leased(&path, &grant.allowed)
            );
            return Err(refused("not_leased", why));
        }
        if let Some((blob, mode)) = after
            && mode != MODE_SUBMODULE
        {
            let (bytes, _) = repository.odb()?.read_header(blob)?;
            if bytes as u64 > grant.file_bytes_max {
                let max = grant.file_bytes_max;
                return Err(refused("too_large", format!("`{path}` has {bytes} bytes in {short}; at most {max} are taken")));
            }
        }
    }
    Ok(())
}

/// Returns what a merge commit itself changed: each path that is not what the parents and their merge base make it.
///
/// A path that one side alone changed must be as that side has it. So bringing the target into the branch touches nothing, and
/// undoing the target's work by keeping the branch's side touches it.
fn touched_by_merge(repository: &Repository, commit: &git2::Commit<'_>) -> Result<Vec<Touched>, Fault> {
    let (one, other) = (commit.parent(0)?, commit.parent(1)?);
    let bases = match repository.merge_bases(one.id(), other.id()) {
        Ok(bases) => bases.iter().copied().collect(),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut trees = Vec::with_capacity(bases.len());
    for base in bases {
        trees.push(Some(repository.find_commit(base)?.tree_id()));
    }
    if trees.is_empty() {
        trees.push(None);
    }
    // With several bases, a path is as it should be when it is so for one of them.
    let mut touched: Option<Vec<Touched>> = None;
    for base in trees {
        let rows = compare(repository, [base, Some(one.tree_id()), Some(other.tree_id()), Some(commit.tree_id())])?;
        let by_this: Vec<_> = rows.into_iter().filter(unnatural).map(|(path, [_, _, _, after])| (path, after)).collect();
        touched = Some(match touched {
            None => by_this,
            Some(before) => before.into_iter().filter(|row| by_this.contains(row)).collect(),
        });
    }
    Ok(touched.unwrap_or_default())
}

fn unnatural((_, [base, one, other, result]): &Row<4>) -> bool {
    let natural = if one == base || one == other {
        Some(other)
    } else if other == base {
        Some(one)
    } else {
        None
    };
    natural != Some(result)
}
