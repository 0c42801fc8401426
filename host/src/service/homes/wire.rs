//! What hosts of one store say to each other: named `MessagePack` behind one byte that says what kind of answer it is.
//!
//! **Invariant:** each method of the repository port has its question here, but those that only a repository's own host calls.

use std::sync::Arc;

use pointsman_core::ids::{FencingToken, MergeId, Oid, ProjectId, TaskId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ports::repository::{
    BranchGrant, BranchMove, CheckSpec, GitService, Landing, NewCommit, PushGrant, Repository, RepositoryError,
};
use crate::ports::sessions::SessionWord;

/// A question to another host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    /// For its repository of a project.
    Repository {
        /// Which.
        project: ProjectId,
        /// What.
        call: Call,
    },
    /// To take what a client said in its session.
    Session {
        /// Its project.
        project: ProjectId,
        /// Which.
        session: String,
        /// What.
        word: SessionWord,
    },
    /// For a component that it keeps.
    Component {
        /// Its digest.
        digest: String,
    },
    /// To look at a project's merge queue: something joined it.
    Queue {
        /// Which.
        project: ProjectId,
    },
}

/// A question for git's own protocol.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GitQuestion {
    pub(super) project: ProjectId,
    pub(super) service: GitService,
    pub(super) advertise: bool,
    pub(super) protocol: Option<String>,
    pub(super) push: Option<PushGrant>,
}

/// A call of the repository port.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Call {
    BranchHead { branch: String },
    CheckBranchName { branch: String },
    Grant(BranchGrant),
    Revoke { task: TaskId, branch: String, token: FencingToken },
    WriteCommit(NewCommit),
    WriteMergeCommit { tree: Oid, commit: NewCommit, candidate: Option<MergeId> },
    MoveBranch(BranchMove),
    Merge { ours: Oid, theirs: Oid },
    AmendTree { tree: Oid, files: Vec<(String, Option<(u32, ByteBuf)>)> },
    FourSides { base: Option<Oid>, ours: Oid, theirs: Oid, result_tree: Oid },
    Blob { oid: Oid },
    File { commit: Oid, path: String },
    TreeOf { commit: Oid },
    IsAncestor { ancestor: Oid, descendant: Oid },
    CommitsBetween { target: Oid, head: Oid, limit: usize },
    Changes { target: Oid, head: Oid },
    RunCheck { commit: Oid, check: CheckSpec },
    Land(Landing),
    DropCandidate { merge: MergeId },
    Receipt { commit: Oid },
}

/// An answer, as it was read.
pub(super) enum Answer<'a> {
    /// It was done, and this is what came of it.
    Done(&'a [u8]),
    /// The project's repository is not at this host.
    NotHere,
    /// The repository refused.
    Refused(RepositoryError),
}

const DONE: u8 = 0;
const NOT_HERE: u8 = 1;
const REFUSED: u8 = 2;

/// Returns the form of a value.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("what hosts ask has sized sequences only")
}

/// Returns the value of a form, if it is one.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    rmp_serde::from_slice(bytes).ok()
}

/// Reads an answer; none: it has no form known here.
pub(super) fn read(bytes: &[u8]) -> Option<Answer<'_>> {
    let (kind, rest) = bytes.split_first()?;
    match *kind {
        DONE => Some(Answer::Done(rest)),
        NOT_HERE => Some(Answer::NotHere),
        REFUSED => decode(rest).map(Answer::Refused),
        _ => None,
    }
}

/// Returns the answer of a host that does not have the project's repository.
pub(super) fn not_here() -> Vec<u8> {
    vec![NOT_HERE]
}

/// Returns the answer to what was done, or refused.
pub(super) fn answer<T: Serialize>(done: Result<T, RepositoryError>) -> Vec<u8> {
    let (kind, body) = match done {
        Ok(value) => (DONE, encode(&value)),
        Err(error) => (REFUSED, encode(&error)),
    };
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&body);
    bytes
}

/// Does what another host asks of a repository here.
pub(super) async fn perform(repository: &Arc<dyn Repository>, project: ProjectId, call: Call) -> Vec<u8> {
    let here = repository;
    match call {
        Call::BranchHead { branch } => answer(here.branch_head(project, &branch).await),
        Call::CheckBranchName { branch } => answer(here.check_branch_name(project, &branch).await),
        Call::Grant(grant) => answer(here.grant(project, grant).await),
        Call::Revoke { task, branch, token } => answer(here.revoke(project, task, &branch, token).await),
        Call::WriteCommit(commit) => answer(here.write_commit(project, commit).await),
        Call::WriteMergeCommit { tree, commit, candidate } => answer(here.write_merge_commit(project, tree, commit, candidate).await),
        Call::MoveBranch(step) => answer(here.move_branch(project, step).await),
        Call::Merge { ours, theirs } => answer(here.merge(project, ours, theirs).await),
        Call::AmendTree { tree, files } => {
            let files = files.into_iter().map(|(path, file)| (path, file.map(|(mode, bytes)| (mode, bytes.into_vec())))).collect();
            answer(here.amend_tree(project, tree, files).await)
        }
        Call::FourSides { base, ours, theirs, result_tree } => answer(here.four_sides(project, base, ours, theirs, result_tree).await),
        Call::Blob { oid } => answer(here.blob(project, oid).await.map(ByteBuf::from)),
        Call::File { commit, path } => answer(here.file(project, commit, &path).await.map(|file| file.map(ByteBuf::from))),
        Call::TreeOf { commit } => answer(here.tree_of(project, commit).await),
        Call::IsAncestor { ancestor, descendant } => answer(here.is_ancestor(project, ancestor, descendant).await),
        Call::CommitsBetween { target, head, limit } => answer(here.commits_between(project, target, head, limit).await),
        Call::Changes { target, head } => answer(here.changes(project, target, head).await),
        Call::RunCheck { commit, check } => answer(here.run_check(project, commit, check).await),
        Call::Land(landing) => answer(here.land(project, landing).await),
        Call::DropCandidate { merge } => answer(here.drop_candidate(project, merge).await),
        Call::Receipt { commit } => answer(here.receipt(project, commit).await),
    }
}
