//! Commits made by the host for agents without a clone, and the one way a claimed branch is moved.

use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::{Oid, ProjectId, TaskId};
use pointsman_core::limits::{COMMIT_FILE_BYTES_MAX, COMMIT_FILES_MAX};
use pointsman_core::task::{Claim, Resolution, Task, TaskState};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::claims::Claims;
use super::failure::Failure;
use super::intents::{Intent, Work};
use super::kit::{Acting, CommitExt, Kit, Loaded, Once, chain, check_idempotency_key};
use super::tasks::{Tasks, check_text, flow_task, task_key};
use crate::ports::plugins::{CommitFacts, FileChange};
use crate::ports::repository::{BranchMove, NewCommit, PathEdit, RepositoryError, Signature};
use crate::ports::store::Commit;

/// One file of `commit_files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEdit {
    /// Where.
    pub path: String,
    /// New content as text.
    #[serde(default)]
    pub content: Option<String>,
    /// New content in base64, for what is not text.
    #[serde(default)]
    pub content_base64: Option<String>,
    /// Remove it.
    #[serde(default)]
    pub delete: bool,
    /// It stood here before.
    #[serde(default)]
    pub rename_from: Option<String>,
    /// Executable or not; else as it was.
    #[serde(default)]
    pub executable: Option<bool>,
}

impl FileEdit {
    fn edits(&self) -> Result<Vec<PathEdit>, Failure> {
        let wrong = |why: String| {
            Failure::refused("bad_argument", why, "Give one of `content`, `content_base64`, `delete`, `rename_from` per file.")
        };
        let bytes = match (&self.content, &self.content_base64) {
            (Some(_), Some(_)) => return Err(wrong(format!("`{}` has both `content` and `content_base64`", self.path))),
            (Some(text), None) => Some(text.clone().into_bytes()),
            (None, Some(text)) => {
                let decoded = data_encoding::BASE64.decode(text.as_bytes());
                Some(decoded.map_err(|error| wrong(format!("`content_base64` of `{}` is not base64: {error}", self.path)))?)
            }
            (None, None) => None,
        };
        if let Some(bytes) = &bytes
            && bytes.len() > COMMIT_FILE_BYTES_MAX
        {
            let why = format!("`{}` has {} bytes", self.path, bytes.len());
            return Err(Failure::refused(
                "too_large",
                why,
                format!("Keep a file under {COMMIT_FILE_BYTES_MAX} bytes, or push it from a clone."),
            ));
        }
        let write = |bytes: Vec<u8>| PathEdit::Write { path: self.path.clone(), bytes, executable: self.executable };
        match (bytes, self.delete, &self.rename_from) {
            (Some(bytes), false, None) => Ok(vec![write(bytes)]),
            (None, true, None) => Ok(vec![PathEdit::Delete { path: self.path.clone() }]),
            (bytes, false, Some(from)) => {
                let mut edits = vec![PathEdit::Rename { from: from.clone(), to: self.path.clone() }];
                edits.extend(bytes.map(write));
                Ok(edits)
            }
            _ => Err(wrong(format!("`{}` says nothing, or two things at once", self.path))),
        }
    }
}

/// A commit to make on a claimed branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitFiles {
    /// Whose branch.
    pub task: TaskId,
    /// What changes.
    pub files: Vec<FileEdit>,
    /// What it is about, for the message.
    #[serde(default)]
    pub note: String,
    /// The head it was made from; refused when the branch is elsewhere. None: whatever the head is.
    #[serde(default)]
    pub parent: Option<Oid>,
    /// The same key never makes a second commit.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// A commit that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitMade {
    /// Whose branch.
    pub task: TaskId,
    /// The branch.
    pub branch: String,
    /// What it followed.
    pub parent: Oid,
    /// The new head.
    pub commit: Oid,
}

/// How a claimed branch is moved.
pub(crate) struct Step {
    /// From where.
    pub(crate) old: Oid,
    /// To where.
    pub(crate) new: Oid,
    /// The call that asked.
    pub(crate) once: Once,
    /// Event type.
    pub(crate) event: &'static str,
    /// Conflicts resolved with it.
    pub(crate) resolutions: Vec<Resolution>,
}

/// Use cases over commits.
#[derive(Clone)]
pub struct Commits {
    kit: Kit,
    tasks: Tasks,
    claims: Claims,
}

impl Commits {
    /// Returns the use cases.
    #[must_use]
    pub fn new(kit: Kit, tasks: Tasks, claims: Claims) -> Self {
        Self { kit, tasks, claims }
    }

    /// Commits files on a claimed branch.
    ///
    /// # Errors
    /// `not_holder`, `moved`, `not_leased`, `path_escapes`, `too_large`, …
    pub async fn commit_files(&self, acting: &Acting, request: &CommitFiles) -> Result<CommitMade, Failure> {
        if request.files.is_empty() || request.files.len() > COMMIT_FILES_MAX {
            let why = format!("`files` has {} entries", request.files.len());
            return Err(Failure::refused("bad_argument", why, format!("Give 1 to {COMMIT_FILES_MAX} files.")));
        }
        check_text("note", &request.note)?;
        check_idempotency_key(request.idempotency_key.as_deref())?;
        let once = |key: String| acting.once("commit_files", key, request);
        let on_top_of = |parent: Oid| format!("{}@{parent}", request.task);
        let known = request.idempotency_key.clone().or_else(|| request.parent.map(on_top_of)).map(once);
        if let Some(once) = &known
            && let Some(made) = self.made_before(acting.project, once).await?
        {
            return Ok(made);
        }
        let task = self.tasks.get(acting.project, request.task).await?.value;
        let claim = task.held_by(acting.agent.id)?.clone();
        let (branch, parent) = self.branch_at(acting.project, &task, request.parent).await?;
        let edits = request.files.iter().map(FileEdit::edits).collect::<Result<Vec<_>, _>>()?.concat();
        let new = NewCommit {
            parents: vec![parent],
            message: self.message(acting, &task, &request.note, &edits).await,
            edits,
            allowed: self.claims.leased(acting.project, task.id).await?,
            author: author(acting),
            at: self.kit.now(),
        };
        let commit = self.kit.repository.write_commit(acting.project, new).await?;
        let once = known.unwrap_or_else(|| once(on_top_of(parent)));
        let step = Step { old: parent, new: commit, once, event: "branch.committed", resolutions: vec![] };
        self.advance(acting, &task, &claim, &branch, step).await
    }

    /// Returns what an earlier call of the same identity came to. One whose answer was lost on the way is finished first: its commit may
    /// stand on the branch already.
    pub(crate) async fn made_before(&self, project: ProjectId, once: &Once) -> Result<Option<CommitMade>, Failure> {
        if let Some(made) = self.kit.answered(project, once).await? {
            return Ok(Some(made));
        }
        for intent in self.kit.open_intents(project).await? {
            if matches!(&intent.work, Work::Move { once: of, .. } if of == once) {
                self.finish_move(project, &intent).await?;
                return self.kit.answered(project, once).await;
            }
        }
        Ok(None)
    }

    /// Returns a task's branch and where it is, refused when that is not where the caller thinks.
    pub(crate) async fn branch_at(&self, project: ProjectId, task: &Task, expected: Option<Oid>) -> Result<(String, Oid), Failure> {
        let branch = task.branch.clone().unwrap_or_default();
        let head = self.kit.repository.branch_head(project, &branch).await?;
        let head = head.ok_or_else(|| Failure::refused("not_found", format!("{} has no branch yet", task.id), "Claim the task first."))?;
        match expected {
            Some(expected) if expected != head => {
                Err(RepositoryError::Moved { name: branch, expected: expected.to_string(), actual: head.to_string() }.into())
            }
            _ => Ok((branch, head)),
        }
    }

    async fn message(&self, acting: &Acting, task: &Task, note: &str, edits: &[PathEdit]) -> String {
        let lines = |bytes: &[u8]| u32::try_from(bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u32::MAX);
        let files = edits.iter().map(|edit| match edit {
            PathEdit::Write { path, bytes, .. } => FileChange { path: path.clone(), added: lines(bytes), removed: 0 },
            PathEdit::Delete { path } | PathEdit::Rename { to: path, .. } => FileChange { path: path.clone(), added: 0, removed: 0 },
        });
        let facts = CommitFacts { task: flow_task(task), agent: acting.agent.name.clone(), note: note.to_owned(), files: files.collect() };
        let said = match self.kit.workflow(acting.project, Some(&task.kind)).await {
            Ok(Some(workflow)) => self.kit.plugins.commit_message(&workflow, facts).await.map_err(Failure::from),
            Ok(None) => Ok(String::new()),
            Err(failure) => Err(failure),
        };
        match said {
            Ok(message) if !message.trim().is_empty() => message,
            other => {
                if let Err(failure) = other {
                    tracing::warn!(task = %task.id, error = %chain(&failure), "workflow gave no commit message");
                }
                let subject = if note.trim().is_empty() { &task.title } else { note.trim() };
                format!("{subject}\n\nTask: {}\nAgent: {}\n", task.id, acting.agent.name)
            }
        }
    }

    /// Moves a claimed branch: asks by an intent, moves, records the end.
    ///
    /// # Errors
    /// `moved`, `not_holder`.
    pub(crate) async fn advance(
        &self,
        acting: &Acting,
        task: &Task,
        claim: &Claim,
        branch: &str,
        step: Step,
    ) -> Result<CommitMade, Failure> {
        let made = CommitMade { task: task.id, branch: branch.to_owned(), parent: step.old, commit: step.new };
        let moving = BranchMove { task: task.id, branch: branch.to_owned(), old: step.old, new: step.new, token: claim.token };
        let event = acting.event(step.event, task.id, json!({"branch": branch, "parent": step.old, "commit": step.new}));
        let work = Work::Move { step: moving, once: step.once, event: Box::new(event), resolutions: step.resolutions };
        let mut commit = Commit { project: Some(acting.project), ..Commit::default() };
        let intent = Intent::ask(&self.kit, &mut commit, work);
        self.kit.store.commit(commit).await?;
        self.finish_move(acting.project, &intent).await?;
        Ok(made)
    }

    /// Moves the branch and records the end; a move that came too late is recorded as refused.
    ///
    /// # Errors
    /// `moved`, `not_holder`.
    pub async fn finish_move(&self, project: ProjectId, intent: &Intent) -> Result<(), Failure> {
        let Work::Move { step, once, event, resolutions } = &intent.work else { return Ok(()) };
        if let Err(error) = self.kit.repository.move_branch(project, step.clone()).await {
            if matches!(error, RepositoryError::Moved { .. } | RepositoryError::Fenced { .. }) {
                let refused =
                    NewEvent::new("branch.refused", Actor::host(), step.task, json!({"commit": step.new, "why": error.to_string()}));
                let ended = self.kit.decide(|| async {
                    let mut commit = Commit { project: Some(project), ..Commit::default() };
                    let stands = self.kit.expect_intent(project, intent, &mut commit).await?;
                    if stands {
                        commit.deletes.push(intent.key());
                        commit.events.push(refused.clone().caused_by(intent.id));
                    }
                    Ok((commit, stands))
                });
                // Somebody else ended it: the branch may have gone on from there since.
                if !ended.await?.0 && self.kit.answered::<CommitMade>(project, once).await?.is_some() {
                    return Ok(());
                }
            }
            return Err(error.into());
        }
        let made = CommitMade { task: step.task, branch: step.branch.clone(), parent: step.old, commit: step.new };
        self.kit
            .decide(|| async {
                let mut commit = self.record_head(project, step.task, step.new, resolutions).await?;
                if !self.kit.expect_intent(project, intent, &mut commit).await? {
                    return Ok((Commit::default(), ()));
                }
                commit.deletes.push(intent.key());
                commit.events.push(NewEvent::clone(event).caused_by(intent.id));
                commit.idempotency = Some(once.record(&made));
                Ok((commit, ()))
            })
            .await?;
        Ok(())
    }

    /// Returns a commit that records where a task's branch is now, and what was resolved on the way; a sign of life.
    pub(crate) async fn record_head(
        &self,
        project: ProjectId,
        id: TaskId,
        head: Oid,
        resolutions: &[Resolution],
    ) -> Result<Commit, Failure> {
        let Loaded { value: mut task, version } = self.tasks.get(project, id).await?;
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        task.head = Some(head);
        task.resolutions.extend_from_slice(resolutions);
        task.updated_at = self.kit.now();
        if task.state == TaskState::Claimed {
            self.claims.renew(project, &mut task, &mut commit).await?;
        }
        commit.replace(task_key(id), Some(version), &task);
        Ok(commit)
    }
}

/// Returns the git identity of an agent.
#[must_use]
pub fn author(acting: &Acting) -> Signature {
    Signature { name: acting.agent.name.clone(), email: format!("{}@agents.pointsman.invalid", acting.agent.id) }
}
