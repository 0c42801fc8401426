//! The order within a thread, as it is stored: one line for each thread that has something standing still in an inbox.
//!
//! `core::inbox` says what is promised and who stands where; here a commit reads each line it touches once and writes it once.
//!
//! **Invariant:** whoever is handed a message rests on the thread's line as it was read, absence included: a commit that makes an
//! earlier message back off meanwhile makes it decide again.

use std::collections::BTreeMap;

use pointsman_core::ids::{AgentId, ProjectId, ThreadId};
use pointsman_core::inbox::{Command, Delivery, Line, Transition};

use super::settle::By;
use super::{Messaging, delivery_key};
use crate::ports::store::{Commit, Expect, Version};
use crate::service::agents::Tally;
use crate::service::failure::Failure;
use crate::service::kit::{CommitExt, Loaded};

fn line_key(agent: AgentId, thread: ThreadId) -> String {
    format!("line/{agent}/{thread}")
}

/// A line as a commit sees it.
#[derive(Default)]
struct Open {
    line: Line,
    version: Option<Version>,
    is_changed: bool,
}

/// The lines that one commit touches.
#[derive(Default)]
pub(super) struct Lines {
    open: BTreeMap<(AgentId, ThreadId), Open>,
    /// Whether lines are taken to be empty without being read; the commit fails when one is not.
    are_empty: bool,
}

impl Lines {
    /// Returns the lines of an inbox in which nothing stands still, as far as is known.
    pub(super) fn empty() -> Self {
        Self { are_empty: true, ..Self::default() }
    }
}

impl Messaging {
    /// Returns a line, read once.
    pub(super) async fn line<'a>(
        &self,
        project: Option<ProjectId>,
        lines: &'a mut Lines,
        agent: AgentId,
        thread: ThreadId,
    ) -> Result<&'a Line, Failure> {
        Ok(&self.open(project, lines, agent, thread).await?.line)
    }

    async fn open<'a>(
        &self,
        project: Option<ProjectId>,
        lines: &'a mut Lines,
        agent: AgentId,
        thread: ThreadId,
    ) -> Result<&'a mut Open, Failure> {
        let known = lines.open.contains_key(&(agent, thread));
        let found = if known || lines.are_empty { None } else { self.kit.load::<Line>(project, &line_key(agent, thread)).await? };
        let read = |Loaded { value: line, version }| Open { line, version: Some(version), is_changed: false };
        Ok(lines.open.entry((agent, thread)).or_insert_with(|| found.map(read).unwrap_or_default()))
    }

    /// Adds a transition to a commit, and what it means for the order of its thread. The commit ends with [`Messaging::close`].
    pub(super) async fn stage_step(
        &self,
        commit: &mut Commit,
        lines: &mut Lines,
        before: &Loaded<Delivery>,
        after: &Delivery,
        transition: &Transition,
        by: &By<'_>,
    ) -> Result<Tally, Failure> {
        if let Some(thread) = after.thread
            && (before.value.stands_still() || after.stands_still())
        {
            let open = self.open(commit.project, lines, after.agent, thread).await?;
            open.line.note(after);
            open.is_changed = true;
        }
        Ok(self.stage_transition(commit, before, after, transition, by))
    }

    /// Adds to a commit what its lines came to: those that nothing holds back any more are ready again.
    pub(super) async fn close(&self, commit: &mut Commit, lines: Lines) -> Result<(), Failure> {
        for ((agent, thread), mut open) in lines.open {
            let freed = if open.is_changed { open.line.release() } else { Vec::new() };
            for message in freed {
                let Some(before) = self.kit.load::<Delivery>(commit.project, &delivery_key(agent, message)).await? else { continue };
                let mut after = before.value.clone();
                if let Ok(transition) = after.apply(self.kit.now(), &self.terms(), Command::Release) {
                    self.stage_transition(commit, &before, &after, &transition, &By::host());
                }
            }
            let key = line_key(agent, thread);
            if open.is_changed && !open.line.is_empty() {
                commit.replace(key, open.version, &open.line);
                continue;
            }
            commit.expects.push((key.clone(), open.version.map_or(Expect::Absent, Expect::Version)));
            if open.version.is_some() && open.line.is_empty() {
                commit.deletes.push(key);
            }
        }
        Ok(())
    }
}
