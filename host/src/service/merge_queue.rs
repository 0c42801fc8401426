//! The merge queue: branches come home in order, merged, accounted for, checked, approved, by compare-and-swap.
//!
//! One worker a project takes one merge at a time (`worker`), merges it (`strategies`), writes down what became of every
//! change (`receipt`). What agents ask for (submit, review, resolve, a pull request's text) is here.
//!
//! **Invariants:** the tree that passed the checks is the tree that lands; no change of either side is missing from it unless
//! the signed receipt names it; whatever ends a merge is told to its agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_core::ids::{MergeId, Oid, ProjectId, TaskId};
use pointsman_core::limits::COMMIT_FILES_MAX;
use pointsman_core::merge::{Merge, MergeState};
use pointsman_core::task::{Review, Task, TaskState};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::claims::{Claims, gate_actor, gate_facts};
use super::commits::{Commits, Step, author};
use super::failure::Failure;
use super::gates;
use super::kit::{Acting, CommitExt, Kit, Loaded};
use super::messaging::Messaging;
use super::tasks::{MERGES, Tasks, check_text, flow_task, merge_key, next_serial, task_key};
use crate::ports::plugins::{ChangeFacts, Gate, GateActor, GateApproval, GateFacts, GateVerdict, PullRequestText};
use crate::ports::repository::NewCommit;
use crate::ports::store::Commit;

pub mod receipt;
mod strategies;
mod worker;

pub use strategies::Manual;

/// Merges read at once.
const MERGES_MAX: usize = 10_000;
/// Commits named in a pull request.
const COMMITS_LISTED_MAX: usize = 200;

/// A conflicted file as its agent wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolvedFile {
    /// Which.
    pub path: String,
    /// Its whole content.
    #[serde(default)]
    pub content: Option<String>,
    /// Or one side as it is: `ours` (the target), `theirs` (the branch), `base`.
    #[serde(default)]
    pub take: Option<Take>,
    /// Or no such file.
    #[serde(default)]
    pub delete: bool,
}

/// A side taken whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Take {
    /// The target's.
    Ours,
    /// The branch's.
    Theirs,
    /// The merge base's.
    Base,
}

/// A verdict to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GiveReview {
    /// On which task's branch.
    pub task: TaskId,
    /// Approves, or asks for changes.
    pub approves: bool,
    /// The commit that was read; none: the present head.
    pub head: Option<Oid>,
    /// In words.
    pub comment: String,
}

/// The queue's use cases.
#[derive(Clone)]
pub struct MergeQueue {
    kit: Kit,
    tasks: Tasks,
    claims: Claims,
    commits: Commits,
    messaging: Arc<Messaging>,
}

impl MergeQueue {
    /// Returns the use cases; [`MergeQueue::run`] works the queue.
    #[must_use]
    pub fn new(kit: Kit, tasks: Tasks, claims: Claims, commits: Commits, messaging: Arc<Messaging>) -> Self {
        Self { kit, tasks, claims, commits, messaging }
    }

    /// Returns a merge.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get(&self, project: ProjectId, id: MergeId) -> Result<Loaded<Merge>, Failure> {
        let found = self.kit.load::<Merge>(Some(project), &merge_key(id)).await?;
        found.ok_or_else(|| Failure::refused("not_found", format!("there is no merge {id}"), "`lookup` with `merges` lists them."))
    }

    /// Returns all merges, by number.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn all(&self, project: ProjectId) -> Result<Vec<Merge>, Failure> {
        let all = self.kit.load_all::<Merge>(Some(project), MERGES, MERGES_MAX).await?;
        Ok(all.into_iter().map(|(_, loaded)| loaded.value).collect())
    }

    /// Returns the newest merge of a task.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn latest(&self, project: ProjectId, task: &Task) -> Result<Option<Loaded<Merge>>, Failure> {
        match task.merges.last() {
            Some(id) => Ok(Some(self.get(project, *id).await?)),
            None => Ok(None),
        }
    }

    /// Puts a branch into the queue. Submitting the same head again answers the merge that waits.
    ///
    /// # Errors
    /// `not_holder`, `moved`, `nothing_to_land`, or the policy's rule.
    pub async fn submit(&self, acting: &Acting, id: TaskId, head: Option<Oid>) -> Result<Merge, Failure> {
        let task = self.tasks.get(acting.project, id).await?.value;
        task.held_by(acting.agent.id)?;
        let (branch, head) = self.commits.branch_at(acting.project, &task, head).await?;
        if let Some(latest) = self.latest(acting.project, &task).await?
            && latest.value.is_live()
            && latest.value.head == head
        {
            return Ok(latest.value);
        }
        let target = self.claims.target(acting.project).await?;
        let target_head = self.head_of(acting.project, &target).await?;
        let files = self.kit.repository.changes(acting.project, target_head, head).await?;
        if self.kit.repository.is_ancestor(acting.project, head, target_head).await? {
            return Err(Failure::refused(
                "nothing_to_land",
                format!("`{branch}` has no commit that `{target}` lacks"),
                "Commit something first, by `git push` or `commit_files`.",
            ));
        }
        let facts = GateFacts {
            target: target.clone(),
            head: head.to_string(),
            paths: files.iter().map(|file| file.path.clone()).collect(),
            lines_changed: files.iter().map(|file| file.added + file.removed).sum(),
            ..gate_facts(&gate_actor(acting), &task)
        };
        match gates::ask(&self.kit, acting.project, Gate::Submit, facts).await? {
            GateVerdict::Allow | GateVerdict::Need { .. } => {}
            GateVerdict::Deny { rule, why, advice } => {
                return Err(Failure::refused_with("policy_denied", why, advice, json!({"rule": rule, "gate": "submit"})));
            }
        }
        let (merge, _) = self.kit.decide(|| self.decide_submit(acting, id, &branch, head, &target)).await?;
        self.kit.homes.ring_queue(acting.project).await;
        Ok(merge)
    }

    async fn decide_submit(&self, acting: &Acting, id: TaskId, branch: &str, head: Oid, target: &str) -> Result<(Commit, Merge), Failure> {
        let now = self.kit.now();
        let Loaded { value: mut task, version } = self.tasks.get(acting.project, id).await?;
        let mut commit = Commit { project: Some(acting.project), ..Commit::default() };
        if let Some(Loaded { value: mut earlier, version }) = self.latest(acting.project, &task).await?
            && earlier.advance(now, MergeState::Withdrawn)
        {
            commit.replace(merge_key(earlier.id), Some(version), &earlier);
            commit.events.push(acting.event("merge.withdrawn", earlier.id, json!({"task": id})));
        }
        let merge = Merge {
            id: MergeId(next_serial(&self.kit, acting.project, &mut commit, "merge").await?),
            task: id,
            agent: acting.agent.id,
            agent_name: acting.agent.name.clone(),
            branch: branch.to_owned(),
            head,
            target: target.to_owned(),
            outcome: MergeState::Queued,
            passed: Vec::new(),
            queued_at: now,
            updated_at: now,
        };
        task.submit(now, acting.agent.id, head, merge.id)?;
        self.claims.renew(acting.project, &mut task, &mut commit).await?;
        commit.replace(task_key(id), Some(version), &task);
        commit.replace(merge_key(merge.id), None, &merge);
        commit.events.push(acting.event("merge.queued", merge.id, json!({"task": id, "branch": branch, "head": head, "target": target})));
        Ok((commit, merge))
    }

    async fn head_of(&self, project: ProjectId, branch: &str) -> Result<Oid, Failure> {
        let head = self.kit.repository.branch_head(project, branch).await?;
        head.ok_or_else(|| Failure::refused("not_found", format!("there is no branch `{branch}`"), "An operator must restore it."))
    }

    /// Stores a verdict on a commit; the queue looks at the merge again.
    ///
    /// # Errors
    /// `stale_head`, `wrong_state`, or the policy's rule.
    pub async fn review(&self, acting: &Acting, give: &GiveReview) -> Result<Task, Failure> {
        check_text("comment", &give.comment)?;
        let task = self.tasks.get(acting.project, give.task).await?.value;
        let present = task.head.filter(|_| matches!(task.state, TaskState::Claimed | TaskState::Submitted));
        let present = present.ok_or_else(|| {
            Failure::refused("wrong_state", format!("{} has nothing to review", task.id), "Review a task that is claimed or submitted.")
        })?;
        let head = give.head.unwrap_or(present);
        if head != present {
            return Err(Failure::refused_with(
                "stale_head",
                format!("{} is at {present} now", task.id),
                "Read the new commits, then review that head.",
                json!({"head": present}),
            ));
        }
        let facts = GateFacts { head: head.to_string(), ..gate_facts(&gate_actor(acting), &task) };
        match gates::ask(&self.kit, acting.project, Gate::Review, facts).await? {
            GateVerdict::Allow => {}
            GateVerdict::Deny { rule, why, advice } => {
                return Err(Failure::refused_with("policy_denied", why, advice, json!({"rule": rule, "gate": "review"})));
            }
            GateVerdict::Need { rule, why, .. } => {
                return Err(Failure::refused_with("policy_denied", why, "Ask an operator.", json!({"rule": rule, "gate": "review"})));
            }
        }
        let (task, _) = self
            .kit
            .decide(|| async {
                let Loaded { value: mut task, version } = self.tasks.get(acting.project, give.task).await?;
                task.review(Review {
                    agent: acting.agent.id,
                    agent_name: acting.agent.name.clone(),
                    principal: acting.agent.principal,
                    principal_name: acting.principal_name.clone(),
                    provenance: acting.agent.provenance,
                    capabilities: acting.agent.capabilities.iter().map(ToString::to_string).collect(),
                    head,
                    approves: give.approves,
                    comment: give.comment.clone(),
                    at: self.kit.now(),
                });
                let mut commit = Commit { project: Some(acting.project), ..Commit::default() };
                commit.replace(task_key(task.id), Some(version), &task);
                let data = json!({"head": head, "approves": give.approves, "comment": give.comment});
                commit.events.push(acting.event("task.reviewed", task.id, data.clone()));
                if let Some(claim) = &task.claim {
                    let subject =
                        format!("{} {} {}", acting.agent.name, if give.approves { "approves" } else { "asks for changes to" }, task.id);
                    let notice = super::messaging::Notice::new(claim.agent, "review", subject, data).caused_by(task.id);
                    self.messaging.stage_notice(&mut commit, acting.project, notice).await?;
                }
                Ok((commit, task))
            })
            .await?;
        self.kit.homes.ring_queue(acting.project).await;
        Ok(task)
    }

    /// Takes the agent's word on every conflicted file, commits the merge on its branch and submits it again.
    ///
    /// # Errors
    /// `not_conflicted`, `unresolved` with the paths that are missing, `bad_argument`, `moved`.
    pub async fn resolve(&self, acting: &Acting, id: TaskId, files: &[ResolvedFile]) -> Result<Merge, Failure> {
        let task = self.tasks.get(acting.project, id).await?.value;
        let claim = task.held_by(acting.agent.id)?.clone();
        let latest = self.latest(acting.project, &task).await?.map(|loaded| loaded.value);
        let Some((merge, ours, conflicts)) = latest.as_ref().and_then(|merge| match &merge.outcome {
            MergeState::Conflicted { ours, conflicts } => Some((merge, *ours, conflicts)),
            MergeState::Queued
            | MergeState::Waiting { .. }
            | MergeState::Landing { .. }
            | MergeState::Landed { .. }
            | MergeState::Failed { .. }
            | MergeState::Refused { .. }
            | MergeState::Withdrawn => None,
        }) else {
            let advice = format!("Call lookup(\"{id}\") to see how it stands.");
            return Err(Failure::refused("not_conflicted", format!("{id} has no conflict to resolve"), advice));
        };
        // The same call again, whose answer was lost before it was queued: the branch has moved for it.
        let once = acting.once("resolve_conflict", format!("{id}@{}", merge.head), &files);
        if let Some(made) = self.commits.made_before(acting.project, &once).await? {
            return self.submit(acting, id, Some(made.commit)).await;
        }
        let (branch, head) = self.commits.branch_at(acting.project, &task, Some(merge.head)).await?;
        let manual = self.manual(acting, files, conflicts)?;
        let missing: Vec<&str> =
            conflicts.iter().map(|conflict| conflict.path.as_str()).filter(|path| !manual.contains_key(*path)).collect();
        if !missing.is_empty() {
            return Err(Failure::refused_with(
                "unresolved",
                format!("{} of {} conflicted files are not resolved", missing.len(), conflicts.len()),
                "Give all of them in one call.",
                json!({"missing": missing}),
            ));
        }
        let prepared = self.prepare(acting.project, ours, head, &manual).await?;
        if let Some(conflict) = prepared.conflicts.first() {
            let why = format!("`{}` is still in conflict: {}", conflict.path, conflict.reasons.join("; "));
            return Err(Failure::refused("unresolved", why, "Resolve that file too."));
        }
        let note = format!("Merge {} into {branch}: {} resolved by {}", merge.target, plural(files.len(), "file"), acting.agent.name);
        let new = NewCommit {
            parents: vec![head, ours],
            edits: Vec::new(),
            allowed: Vec::new(),
            author: author(acting),
            at: self.kit.now(),
            message: format!("{note}\n\nTask: {id}\nAgent: {}\n", acting.agent.name),
        };
        let commit = self.kit.repository.write_merge_commit(acting.project, prepared.tree, new, None).await?;
        let step = Step { old: head, new: commit, once, event: "branch.resolved", resolutions: prepared.resolutions };
        self.commits.advance(acting, &task, &claim, &branch, step).await?;
        self.submit(acting, id, Some(commit)).await
    }

    fn manual(
        &self,
        acting: &Acting,
        files: &[ResolvedFile],
        conflicts: &[pointsman_core::merge::Conflict],
    ) -> Result<BTreeMap<String, Manual>, Failure> {
        if files.is_empty() || files.len() > COMMIT_FILES_MAX {
            return Err(Failure::refused("bad_argument", "`files` is empty or too long", "Give each conflicted file once."));
        }
        let mut manual = BTreeMap::new();
        for file in files {
            let wrong = |why: &str| {
                Failure::refused(
                    "bad_argument",
                    format!("`{}` {why}", file.path),
                    "Give one of `content`, `take`, `delete` for each conflicted file.",
                )
            };
            let conflict = conflicts.iter().find(|conflict| conflict.path == file.path).ok_or_else(|| wrong("is not in conflict"))?;
            let content = match (&file.content, file.take, file.delete) {
                (Some(text), None, false) => strategies::Content::Bytes(text.clone().into_bytes()),
                (None, Some(Take::Ours), false) => strategies::Content::Blob(conflict.ours),
                (None, Some(Take::Theirs), false) => strategies::Content::Blob(conflict.theirs),
                (None, Some(Take::Base), false) => strategies::Content::Blob(conflict.base),
                (None, None, true) => strategies::Content::Blob(None),
                _ => return Err(wrong("says nothing, or two things at once")),
            };
            if let strategies::Content::Bytes(bytes) = &content
                && let Some(line) = pointsman_core::merge_text::marker_line(bytes)
            {
                return Err(wrong(&format!("has a conflict marker in line {}", line + 1)));
            }
            if manual.insert(file.path.clone(), Manual { content, by: format!("agent {}", acting.agent.name) }).is_some() {
                return Err(wrong("is given twice"));
            }
        }
        Ok(manual)
    }

    /// Returns what a merge message or a pull request is written from.
    async fn change_facts(&self, project: ProjectId, task: &Task, agent: &str, head: Oid, target: &str) -> Result<ChangeFacts, Failure> {
        let target_head = self.head_of(project, target).await?;
        let approvals = task.reviews.iter().filter(|review| review.head == head && review.approves);
        Ok(ChangeFacts {
            task: flow_task(task),
            agent: agent.to_owned(),
            branch: task.branch.clone().unwrap_or_default(),
            target: target.to_owned(),
            commits: self.kit.repository.commits_between(project, target_head, head, COMMITS_LISTED_MAX).await?,
            files: self.kit.repository.changes(project, target_head, head).await?,
            checks: self.kit.settings.checks.iter().map(|check| format!("{}: `{}`", check.name, check.command)).collect(),
            approvals: approvals.map(|review| format!("{} ({})", review.agent_name, review.principal_name)).collect(),
            resolutions: task.resolutions.iter().map(|resolution| format!("`{}` by {}", resolution.path, resolution.by)).collect(),
        })
    }

    /// Returns the text of a pull request for a task's branch as it stands.
    ///
    /// # Errors
    /// `not_found` when the task has no branch; the workflow's failure.
    pub async fn pull_request(&self, project: ProjectId, id: TaskId) -> Result<PullRequestText, Failure> {
        let task = self.tasks.get(project, id).await?.value;
        let (_, head) = self.commits.branch_at(project, &task, None).await?;
        let agent = task.claim.as_ref().map_or("", |claim| claim.agent_name.as_str()).to_owned();
        let target = self.claims.target(project).await?;
        let facts = self.change_facts(project, &task, &agent, head, &target).await?;
        match self.kit.workflow(project, Some(&task.kind)).await? {
            Some(workflow) => Ok(self.kit.plugins.pull_request(&workflow, facts).await?),
            None => Ok(PullRequestText { title: task.title.clone(), body: format!("{}\n\nTask: {}\n", task.description, task.id) }),
        }
    }
}

/// Returns the verdicts on a head as gates see them.
fn approvals_on(task: &Task, head: Oid) -> Vec<GateApproval> {
    let on_head = task.reviews.iter().filter(|review| review.head == head);
    on_head
        .map(|review| GateApproval {
            by: GateActor {
                agent: review.agent_name.clone(),
                principal: review.principal_name.clone(),
                provenance: review.provenance,
                capabilities: review.capabilities.clone(),
            },
            approves: review.approves,
            head: review.head.to_string(),
        })
        .collect()
}

/// Returns `1 file`, `2 files`.
fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
