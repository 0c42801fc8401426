//! The repository port: one bare git repository a project, and what the services ask of it.
//!
//! Every effect is idempotent: recovery repeats what a stored intent asked for and gets the same answer. What goes in and out can
//! be written down (but for what `serve` streams), so that a host can ask another one that has the repository.
//!
//! **Invariants:** a branch moves only while its claim's fence stands (checked in the same ref transaction); the target
//! moves only by compare-and-swap; nothing is deleted before a backup ref holds it.

use std::path::PathBuf;
use std::pin::Pin;

use async_trait::async_trait;
use pointsman_core::ids::{FencingToken, MergeId, ProjectId, TaskId};
use pointsman_core::path_glob::PathGlob;
use pointsman_core::time::TimeMs;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use tokio::io::AsyncRead;

use super::plugins::{CommitInfo, FileChange};
pub use pointsman_core::ids::Oid;

/// Why the repository did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum RepositoryError {
    /// No such ref, commit, path or repository.
    #[error("{what} is not in the repository")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// A ref is not where the caller thought.
    #[error("{name} moved: expected {expected}, found {actual}")]
    Moved {
        /// The ref.
        name: String,
        /// What the caller expected.
        expected: String,
        /// What stands there.
        actual: String,
    },
    /// The claim was released or granted anew.
    #[error("the claim on {task} is no longer held")]
    Fenced {
        /// Whose claim.
        task: TaskId,
    },
    /// Refused for what it is: a path that leaves the tree, a name git does not take, a size.
    #[error("{why}")]
    Refused {
        /// Stable, short: `path_escapes`, `path_collides`, `not_leased`, `bad_ref`, `too_large`, …
        #[serde(deserialize_with = "rule")]
        rule: RuleName,
        /// For the agent.
        why: String,
    },
    /// It took longer than it may.
    #[error("git took longer than {limit_ms} ms: {what}")]
    TimedOut {
        /// What was done.
        what: String,
        /// The limit.
        limit_ms: u64,
    },
    /// Git or the disk failed.
    #[error("git failed: {why}")]
    Failed {
        /// What git said.
        why: String,
    },
    /// The host that has the repository cannot be asked now. What was asked may still have happened.
    #[error("the repository is at another host: {why}")]
    Away {
        /// Which one, and what is the matter with it.
        why: String,
        /// When to try again.
        retry_after_ms: u64,
    },
}

/// A rule's name: stable, short.
pub type RuleName = &'static str;

/// The rules that repositories refuse by.
const RULES: &[&str] = &[
    "bad_message",
    "bad_mode",
    "bad_ref",
    "branch_gone",
    "deletion",
    "drops_work",
    "edits_given",
    "fenced",
    "is_target",
    "non_fast_forward",
    "not_a_commit",
    "not_leased",
    "object_format",
    "octopus",
    "partial_source",
    "path_collides",
    "path_control",
    "path_empty",
    "path_escapes",
    "path_too_long",
    "read_only",
    "ref_taken",
    "too_large",
    "wrong_branch",
];

/// Reads a rule that another host names; one that this host does not know is a refusal all the same.
fn rule<'de, D: Deserializer<'de>>(from: D) -> Result<RuleName, D::Error> {
    let name = String::deserialize(from)?;
    Ok(RULES.iter().find(|known| **known == name).copied().unwrap_or("refused"))
}

/// Where a project's repository comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A new one with an empty first commit on the target.
    Empty,
    /// A copy of a local one; that one is only read.
    CopyOf(PathBuf),
}

/// A grant of a branch to a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchGrant {
    /// Whose.
    pub task: TaskId,
    /// Short name, without `refs/heads/`.
    pub branch: String,
    /// Where a new branch starts. An existing one is kept as it is.
    pub start: Oid,
    /// The claim's token, written to `refs/pointsman/fence/<task>`.
    pub token: FencingToken,
}

/// What becomes of one path in a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathEdit {
    /// A file's new content.
    Write {
        /// Where.
        path: String,
        /// What.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// Mode 100755 instead of what it was, or 100644 for a new one.
        executable: Option<bool>,
    },
    /// No file any more.
    Delete {
        /// Where.
        path: String,
    },
    /// The same file elsewhere.
    Rename {
        /// Where it is.
        from: String,
        /// Where it will be.
        to: String,
    },
}

/// An author or committer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Name.
    pub name: String,
    /// Mail address.
    pub email: String,
}

/// A commit to write. No ref moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCommit {
    /// Commits it follows; the first one's tree is edited.
    pub parents: Vec<Oid>,
    /// Edits of the first parent's tree; refused as a whole when one is.
    pub edits: Vec<PathEdit>,
    /// Paths that may be touched; empty: any.
    pub allowed: Vec<PathGlob>,
    /// Author.
    pub author: Signature,
    /// Time of author and committer, so that repetition gives the same commit.
    pub at: TimeMs,
    /// Message.
    pub message: String,
}

/// A branch to move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchMove {
    /// Whose.
    pub task: TaskId,
    /// Short name.
    pub branch: String,
    /// Where it must be.
    pub old: Oid,
    /// Where it goes.
    pub new: Oid,
    /// The claim's token.
    pub token: FencingToken,
}

/// A version of a file in one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileVersion {
    /// Its blob (or, for a submodule, commit).
    pub oid: Oid,
    /// Its git mode: 0o100644, 0o100755, 0o120000, 0o160000.
    pub mode: u32,
}

/// Why git could not merge a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// Both changed the same lines.
    Content,
    /// Both added it, differently.
    AddAdd,
    /// One changed, one deleted it.
    ModifyDelete,
    /// Renames that disagree, or a rename against a deletion.
    Rename,
    /// A file where the other has a directory.
    FileDirectory,
    /// Different types or modes, submodules, symlinks, binary files.
    Other,
}

/// A path git could not merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictedPath {
    /// Which.
    pub path: String,
    /// Why.
    pub kind: ConflictKind,
    /// The merge base's version.
    pub base: Option<FileVersion>,
    /// The target's.
    pub ours: Option<FileVersion>,
    /// The branch's.
    pub theirs: Option<FileVersion>,
}

/// What git's own merge gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeMerge {
    /// The best merge base, the one accounted against; none for unrelated histories.
    pub base: Option<Oid>,
    /// The merged tree; conflicted paths hold marked text.
    pub tree: Oid,
    /// What is left to do; empty: clean.
    pub conflicts: Vec<ConflictedPath>,
}

/// One path in the four trees of a merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FourSides {
    /// Which.
    pub path: String,
    /// In the merge base.
    pub base: Option<FileVersion>,
    /// On the target.
    pub ours: Option<FileVersion>,
    /// On the branch.
    pub theirs: Option<FileVersion>,
    /// In the result.
    pub result: Option<FileVersion>,
}

/// A check to run on a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSpec {
    /// Name in receipts.
    pub name: String,
    /// Run by `sh -c` in a clone of exactly that commit.
    pub command: String,
    /// Wall time.
    pub limit_ms: u64,
}

/// What a check said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The check's name.
    pub name: String,
    /// The tree it ran on.
    pub tree: Oid,
    /// Exit code; none when it was stopped.
    pub exit: Option<i32>,
    /// Whether it passed.
    pub passed: bool,
    /// How long it took.
    pub took_ms: u64,
    /// The end of its output, at most 16 KiB.
    pub output_tail: String,
    /// What kept it in: `landlock+rlimits`, `rlimits`.
    pub sandbox: String,
}

/// A landing: the target's swap and all that goes with it, in one ref transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landing {
    /// Which merge.
    pub merge: MergeId,
    /// Whose.
    pub task: TaskId,
    /// The target's short name.
    pub target: String,
    /// Where it must be; kept as `refs/pointsman/backup/<target>/<merge>`.
    pub old: Oid,
    /// Where it goes: the commit whose tree passed.
    pub new: Oid,
    /// The signed receipt, written as a note of `new` in `refs/notes/pointsman` before the swap.
    pub receipt: String,
}

/// What `git` asks for over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GitService {
    /// Clone and fetch.
    UploadPack,
    /// Push.
    ReceivePack,
}

/// What a push may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushGrant {
    /// The claim's task.
    pub task: TaskId,
    /// The only branch it may move.
    pub branch: String,
    /// The claim's token, checked against the fence while the branch is locked.
    pub token: FencingToken,
    /// The paths it may change; empty: any.
    pub allowed: Vec<PathGlob>,
    /// Bytes one new blob may have.
    pub file_bytes_max: u64,
}

/// A stream of bytes.
pub type ByteStream = Pin<Box<dyn AsyncRead + Send>>;

/// One smart-HTTP request (gitprotocol-http).
pub struct GitRequest {
    /// Whose repository.
    pub project: ProjectId,
    /// What is asked.
    pub service: GitService,
    /// `GET /info/refs`; else a call with a body.
    pub advertise: bool,
    /// The `Git-Protocol` header.
    pub protocol: Option<String>,
    /// What a push may do; a push without it is refused.
    pub push: Option<PushGrant>,
    /// The body, already decompressed; empty for an advertisement.
    pub body: ByteStream,
}

/// The answer to one.
pub struct GitResponse {
    /// `application/x-git-…`.
    pub content_type: &'static str,
    /// The body. A push is over, refs moved or refused, before this is handed out.
    pub body: ByteStream,
}

/// The repositories of all projects. Calls run on a bounded pool; none blocks an async worker.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Makes a project's repository; one that is there already is kept. Returns the target's head. With
    /// [`Origin::CopyOf`] the target is the given branch, or the source's HEAD when it is none.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn create(&self, project: ProjectId, origin: Origin, target: Option<String>) -> Result<(String, Oid), RepositoryError>;

    /// Returns whether a project's repository is here.
    async fn has(&self, project: ProjectId) -> bool;

    /// Takes a repository over from an earlier run, or from another host that is gone: clears what those left half done.
    /// Nobody else may be at work on it.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn adopt(&self, project: ProjectId) -> Result<(), RepositoryError>;

    /// Returns where a branch is; none: no such branch.
    ///
    /// # Errors
    /// `Failed`.
    async fn branch_head(&self, project: ProjectId, branch: &str) -> Result<Option<Oid>, RepositoryError>;

    /// Returns whether a name can be a branch here: valid for git, free, not below or above an existing one.
    ///
    /// # Errors
    /// `Refused` with the rule.
    async fn check_branch_name(&self, project: ProjectId, branch: &str) -> Result<(), RepositoryError>;

    /// Creates the branch (or keeps it) and sets its fence, in one transaction. Returns the branch's head. An older token is
    /// refused from then on.
    ///
    /// # Errors
    /// `Fenced` when the fence already has a newer token.
    async fn grant(&self, project: ProjectId, grant: BranchGrant) -> Result<Oid, RepositoryError>;

    /// Raises the fence so that the earlier claim can no longer move the branch, and keeps its head in
    /// `refs/pointsman/backup/<branch>/<token>`. The branch stays.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn revoke(&self, project: ProjectId, task: TaskId, branch: &str, token: FencingToken) -> Result<(), RepositoryError>;

    /// Writes a commit and its objects, durably; no ref moves. The same input gives the same commit.
    ///
    /// # Errors
    /// `Refused`, `NotFound`.
    async fn write_commit(&self, project: ProjectId, commit: NewCommit) -> Result<Oid, RepositoryError>;

    /// Writes a commit of an existing tree, durably, and keeps it under `refs/pointsman/candidate/<merge>` where a merge is named.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn write_merge_commit(
        &self,
        project: ProjectId,
        tree: Oid,
        commit: NewCommit,
        candidate: Option<MergeId>,
    ) -> Result<Oid, RepositoryError>;

    /// Moves a claimed branch by compare-and-swap, its fence verified in the same transaction. Already there: fine.
    ///
    /// # Errors
    /// `Moved`, `Fenced`.
    async fn move_branch(&self, project: ProjectId, step: BranchMove) -> Result<(), RepositoryError>;

    /// Merges two commits into a tree without a trace in the repository. Ours is the target's side.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn merge(&self, project: ProjectId, ours: Oid, theirs: Oid) -> Result<TreeMerge, RepositoryError>;

    /// Returns the tree with these files put in place of what it has (none: removed), its objects kept durably in the repository.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn amend_tree(&self, project: ProjectId, tree: Oid, files: Vec<(String, Option<(u32, Vec<u8>)>)>)
    -> Result<Oid, RepositoryError>;

    /// Returns every path that `ours`, `theirs` or the result changed against the base, by an own walk over the trees.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn four_sides(
        &self,
        project: ProjectId,
        base: Option<Oid>,
        ours: Oid,
        theirs: Oid,
        result_tree: Oid,
    ) -> Result<Vec<FourSides>, RepositoryError>;

    /// Returns a blob's bytes (those of a merge preview too).
    ///
    /// # Errors
    /// `NotFound`.
    async fn blob(&self, project: ProjectId, oid: Oid) -> Result<Vec<u8>, RepositoryError>;

    /// Returns the file at a path of a commit.
    ///
    /// # Errors
    /// `NotFound` when there is no such commit.
    async fn file(&self, project: ProjectId, commit: Oid, path: &str) -> Result<Option<Vec<u8>>, RepositoryError>;

    /// Returns a commit's tree.
    ///
    /// # Errors
    /// `NotFound`.
    async fn tree_of(&self, project: ProjectId, commit: Oid) -> Result<Oid, RepositoryError>;

    /// Returns whether `ancestor` is `descendant` or one of its ancestors.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn is_ancestor(&self, project: ProjectId, ancestor: Oid, descendant: Oid) -> Result<bool, RepositoryError>;

    /// Returns the commits of `head` that `target` lacks, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn commits_between(&self, project: ProjectId, target: Oid, head: Oid, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError>;

    /// Returns the files that `head` changes against its merge base with `target`.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn changes(&self, project: ProjectId, target: Oid, head: Oid) -> Result<Vec<FileChange>, RepositoryError>;

    /// Runs a check in a disposable, sandboxed clone of exactly this commit.
    ///
    /// # Errors
    /// [`RepositoryError`] when it could not be run; a failing check is a report.
    async fn run_check(&self, project: ProjectId, commit: Oid, check: CheckSpec) -> Result<CheckReport, RepositoryError>;

    /// Lands: note, backup ref, the target's compare-and-swap. Already landed: fine.
    ///
    /// # Errors
    /// `Moved` when the target is elsewhere and does not contain the landing; nothing has changed then, but for the note.
    async fn land(&self, project: ProjectId, landing: Landing) -> Result<(), RepositoryError>;

    /// Drops a candidate ref after its merge ended.
    ///
    /// # Errors
    /// `Failed`.
    async fn drop_candidate(&self, project: ProjectId, merge: MergeId) -> Result<(), RepositoryError>;

    /// Returns the receipt noted on a commit.
    ///
    /// # Errors
    /// `NotFound` when there is no such commit.
    async fn receipt(&self, project: ProjectId, commit: Oid) -> Result<Option<String>, RepositoryError>;

    /// Serves git's own HTTP protocol.
    ///
    /// # Errors
    /// [`RepositoryError`].
    async fn serve(&self, request: GitRequest) -> Result<GitResponse, RepositoryError>;
}
