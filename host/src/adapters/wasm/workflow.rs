//! The world `workflow`.
//!
//! **Invariant:** an accepted order is a permutation of the queue. Names and texts are judged by whoever asked.

use self::bindings::exports::pointsman::workflow::flow as wit;
use super::admission::Shape;
use super::pool::{Pool, guest};
use crate::ports::plugins::{ChangeFacts, CommitFacts, CommitInfo, FileChange, FlowTask, PluginFailure, PullRequestText, WaitingBranch};

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../wit/types", "../wit/workflow"],
        world: "pointsman:workflow/workflow",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

guest!(
    bindings::Workflow,
    WorkflowPre,
    Workflow,
    Shape { world: "workflow", imports: &[], exports: &["pointsman:types/setup@0.1.0", "pointsman:workflow/flow@0.1.0"] },
    |_linker| Ok(())
);

/// Asks for a branch name.
pub(super) fn branch_name(pool: &Pool<bindings::Workflow>, task: &FlowTask, attempt: u32) -> Result<String, PluginFailure> {
    let task = Task::new(task);
    pool.ask(|guest, store| guest.pointsman_workflow_flow().call_branch_name(store, task.wit(), attempt).map(Ok))
}

/// Asks for a commit message.
pub(super) fn commit_message(pool: &Pool<bindings::Workflow>, facts: &CommitFacts) -> Result<String, PluginFailure> {
    let task = Task::new(&facts.task);
    let files = files(&facts.files);
    pool.ask(|guest, store| {
        let known = wit::CommitFacts { task: task.wit(), agent: &facts.agent, note: &facts.note, files: &files };
        guest.pointsman_workflow_flow().call_commit_message(store, known).map(Ok)
    })
}

/// Asks for the message of a landing.
pub(super) fn merge_message(pool: &Pool<bindings::Workflow>, facts: &ChangeFacts) -> Result<String, PluginFailure> {
    let change = Change::new(facts);
    pool.ask(|guest, store| guest.pointsman_workflow_flow().call_merge_message(store, change.wit()).map(Ok))
}

/// Asks for a pull request's text.
pub(super) fn pull_request(pool: &Pool<bindings::Workflow>, facts: &ChangeFacts) -> Result<PullRequestText, PluginFailure> {
    let change = Change::new(facts);
    pool.ask(|guest, store| {
        let answer = guest.pointsman_workflow_flow().call_write_pull_request(store, change.wit())?;
        Ok(Ok(PullRequestText { title: answer.title, body: answer.body }))
    })
}

/// Asks for the queue's order.
pub(super) fn merge_order(pool: &Pool<bindings::Workflow>, queue: &[WaitingBranch]) -> Result<Vec<u32>, PluginFailure> {
    let waiting: Vec<wit::Waiting<'_>> = queue
        .iter()
        .map(|one| wit::Waiting {
            task: &one.task,
            priority: one.priority,
            kind: &one.kind,
            waited_ms: one.waited_ms,
            files: one.files,
            after: &one.after,
            overlaps: &one.overlaps,
        })
        .collect();
    pool.ask(|guest, store| {
        let order = guest.pointsman_workflow_flow().call_merge_order(store, &waiting)?;
        if order.len() != queue.len() {
            return Ok(Err(format!("its order has {} positions for {} branches", order.len(), queue.len())));
        }
        Ok(super::distinct(&order, queue.len()).map(|()| order))
    })
}

/// A task with its lists as the boundary wants them.
struct Task<'a> {
    of: &'a FlowTask,
    labels: Vec<&'a str>,
    depends_on: Vec<&'a str>,
}

impl<'a> Task<'a> {
    fn new(of: &'a FlowTask) -> Self {
        Self { of, labels: super::texts(&of.labels), depends_on: super::texts(&of.depends_on) }
    }

    fn wit(&self) -> wit::Task<'_> {
        wit::Task {
            id: &self.of.id,
            title: &self.of.title,
            description: &self.of.description,
            kind: &self.of.kind,
            labels: &self.labels,
            priority: self.of.priority,
            depends_on: &self.depends_on,
        }
    }
}

/// A change with its lists as the boundary wants them.
struct Change<'a> {
    of: &'a ChangeFacts,
    task: Task<'a>,
    commits: Vec<wit::Commit<'a>>,
    files: Vec<wit::FileChange<'a>>,
    checks: Vec<&'a str>,
    approvals: Vec<&'a str>,
    resolutions: Vec<&'a str>,
}

impl<'a> Change<'a> {
    fn new(of: &'a ChangeFacts) -> Self {
        Self {
            of,
            task: Task::new(&of.task),
            commits: of.commits.iter().map(commit).collect(),
            files: files(&of.files),
            checks: super::texts(&of.checks),
            approvals: super::texts(&of.approvals),
            resolutions: super::texts(&of.resolutions),
        }
    }

    fn wit(&self) -> wit::ChangeFacts<'_> {
        wit::ChangeFacts {
            task: self.task.wit(),
            agent: &self.of.agent,
            branch: &self.of.branch,
            target: &self.of.target,
            commits: &self.commits,
            files: &self.files,
            checks: &self.checks,
            approvals: &self.approvals,
            resolutions: &self.resolutions,
        }
    }
}

fn commit(one: &CommitInfo) -> wit::Commit<'_> {
    wit::Commit { id: &one.id, subject: &one.subject, author: &one.author }
}

fn files(changes: &[FileChange]) -> Vec<wit::FileChange<'_>> {
    changes.iter().map(|one| wit::FileChange { path: &one.path, added: one.added, removed: one.removed }).collect()
}
