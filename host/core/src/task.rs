//! Tasks: what is to be done, who holds it, where its branch is.
//!
//! ```text
//! open ──claim──► claimed ──submit──► submitted ──land──► landed
//!   ▲               │  ▲                  │
//!   └───release─────┘  └──conflict, fail──┘         (cancel: from anywhere before landed)
//! ```
//!
//! **Invariants:** a claim has one fencing token, higher than all before; a task has at most one holder; dependencies
//! form no cycle, since a task can only depend on tasks that exist.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event::Provenance;
use crate::ids::{AgentId, FencingToken, MergeId, Oid, PrincipalId, TaskId};
use crate::lease::LeaseMode;
use crate::path_glob::PathGlob;
use crate::time::TimeMs;
use crate::value::Stored;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Nobody works on it.
    Open,
    /// Its holder works on it.
    Claimed,
    /// Its branch waits to land.
    Submitted,
    /// Its branch is on the target.
    Landed,
    /// Given up.
    Cancelled,
}

/// A right to work on a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who.
    pub agent: AgentId,
    /// That agent's name.
    pub agent_name: String,
    /// Whose agent.
    pub principal: PrincipalId,
    /// Checked by every later ref move.
    pub token: FencingToken,
    /// When it ends unless renewed.
    pub until: TimeMs,
}

/// A reviewer's word on a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Who.
    pub agent: AgentId,
    /// That agent's name.
    pub agent_name: String,
    /// Whose agent.
    pub principal: PrincipalId,
    /// That principal's name.
    pub principal_name: String,
    /// Human or agent.
    pub provenance: Provenance,
    /// What the reviewer can do, as written.
    pub capabilities: Vec<String>,
    /// Which commit.
    pub head: Oid,
    /// Approves, or asks for changes.
    pub approves: bool,
    /// In words.
    pub comment: String,
    /// When.
    pub at: TimeMs,
}

/// A conflicted file that was resolved, and what that left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// Which file.
    pub path: String,
    /// `agent NAME` or `plugin NAME`.
    pub by: String,
    /// Changes of either side that are not in the result, in words.
    pub left_out: Vec<String>,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// One line.
    pub title: String,
    /// Markdown.
    pub description: String,
    /// `feature`, `fix`, `hotfix`, `docs`, …
    pub kind: String,
    /// 0 to 9.
    pub priority: u8,
    /// Free labels.
    pub labels: Vec<String>,
    /// What must hold for it to be done.
    pub acceptance: Vec<String>,
    /// Tasks that must land before it.
    pub depends_on: Vec<TaskId>,
    /// Paths it will change, leased exclusively with the claim.
    pub paths: Vec<PathGlob>,
    /// Paths it will change beside others: changelogs and the like.
    pub shared_paths: Vec<PathGlob>,
    /// Where it stands.
    pub state: TaskState,
    /// Who holds it.
    pub claim: Option<Claim>,
    /// The newest fencing token's number in its epoch.
    pub fence: FencingToken,
    /// Its branch, from the first claim on.
    pub branch: Option<String>,
    /// Where the branch started.
    pub base: Option<Oid>,
    /// The branch's head as far as the host moved or saw it.
    pub head: Option<Oid>,
    /// Percent.
    pub progress: u8,
    /// The holder's last words.
    pub note: String,
    /// Verdicts, newest last, one a reviewer and head.
    pub reviews: Vec<Review>,
    /// Conflicts resolved on its branch.
    pub resolutions: Vec<Resolution>,
    /// Tries to land it.
    pub merges: Vec<MergeId>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: TimeMs,
    /// When it last changed.
    pub updated_at: TimeMs,
}

impl Stored for Task {
    const NAME: &'static str = "task";
}

/// Why a step is not possible.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TaskError {
    /// Somebody else holds it.
    #[error("{task} is held by {agent} until {until}")]
    Held {
        /// Which.
        task: TaskId,
        /// By whom.
        agent: String,
        /// Until when.
        until: TimeMs,
    },
    /// The caller does not hold it.
    #[error("you do not hold {task}; it is {state:?}")]
    NotHolder {
        /// Which.
        task: TaskId,
        /// How it stands.
        state: TaskState,
    },
    /// The step does not fit its state.
    #[error("{task} is {state:?}: it cannot be {step}")]
    WrongState {
        /// Which.
        task: TaskId,
        /// How it stands.
        state: TaskState,
        /// What was wanted.
        step: &'static str,
    },
    /// A dependency has no branch to build on yet.
    #[error("{task} depends on {dependency}, which nobody has begun")]
    DependencyOpen {
        /// Which.
        task: TaskId,
        /// On which.
        dependency: TaskId,
    },
}

impl Task {
    /// Returns the claim if `agent` holds it.
    ///
    /// # Errors
    /// [`TaskError::NotHolder`].
    pub fn held_by(&self, agent: AgentId) -> Result<&Claim, TaskError> {
        let not_holder = TaskError::NotHolder { task: self.id, state: self.state };
        self.claim.as_ref().filter(|claim| claim.agent == agent).ok_or(not_holder)
    }

    /// Grants the task. A lapsed claim is taken over; the holder's own is renewed with the token it has.
    ///
    /// # Errors
    /// [`TaskError`]; the task is as before.
    pub fn claim(&mut self, now: TimeMs, epoch: u64, mut claim: Claim) -> Result<(), TaskError> {
        match self.state {
            TaskState::Open | TaskState::Claimed => {}
            TaskState::Submitted | TaskState::Landed | TaskState::Cancelled => {
                return Err(TaskError::WrongState { task: self.id, state: self.state, step: "claimed" });
            }
        }
        if let Some(held) = &self.claim {
            if held.agent == claim.agent {
                claim.token = held.token;
                self.claim = Some(claim);
                self.updated_at = now;
                return Ok(());
            }
            if now < held.until {
                return Err(TaskError::Held { task: self.id, agent: held.agent_name.clone(), until: held.until });
            }
        }
        claim.token = self.next_fence(epoch);
        self.fence = claim.token;
        self.claim = Some(claim);
        self.state = TaskState::Claimed;
        self.updated_at = now;
        Ok(())
    }

    fn next_fence(&self, epoch: u64) -> FencingToken {
        let n = if epoch > self.fence.epoch { 1 } else { self.fence.n + 1 };
        FencingToken { epoch: epoch.max(self.fence.epoch), n }
    }

    /// Takes the claim away, so that the next one has a new token. The branch stays.
    ///
    /// # Errors
    /// [`TaskError::WrongState`] once it landed or was cancelled.
    pub fn release(&mut self, now: TimeMs, epoch: u64) -> Result<FencingToken, TaskError> {
        match self.state {
            TaskState::Claimed | TaskState::Submitted => {
                self.fence = self.next_fence(epoch);
                self.claim = None;
                self.state = TaskState::Open;
                self.updated_at = now;
                Ok(self.fence)
            }
            TaskState::Open | TaskState::Landed | TaskState::Cancelled => {
                Err(TaskError::WrongState { task: self.id, state: self.state, step: "released" })
            }
        }
    }

    /// Gives the task up. Its branch stays.
    ///
    /// # Errors
    /// [`TaskError::WrongState`] once it landed.
    pub fn cancel(&mut self, now: TimeMs, epoch: u64) -> Result<(), TaskError> {
        if self.state == TaskState::Landed {
            return Err(TaskError::WrongState { task: self.id, state: self.state, step: "cancelled" });
        }
        self.fence = self.next_fence(epoch);
        self.claim = None;
        self.state = TaskState::Cancelled;
        self.updated_at = now;
        Ok(())
    }

    /// Offers the branch for landing as `merge`.
    ///
    /// # Errors
    /// [`TaskError`]; the task is as before.
    pub fn submit(&mut self, now: TimeMs, agent: AgentId, head: Oid, merge: MergeId) -> Result<(), TaskError> {
        self.held_by(agent)?;
        match self.state {
            TaskState::Claimed | TaskState::Submitted => {
                self.state = TaskState::Submitted;
                self.head = Some(head);
                self.merges.push(merge);
                self.updated_at = now;
                Ok(())
            }
            TaskState::Open | TaskState::Landed | TaskState::Cancelled => {
                Err(TaskError::WrongState { task: self.id, state: self.state, step: "submitted" })
            }
        }
    }

    /// Gives a submitted task back to its holder: a conflict, a failed check.
    pub fn give_back(&mut self, now: TimeMs) {
        if self.state == TaskState::Submitted {
            self.state = if self.claim.is_some() { TaskState::Claimed } else { TaskState::Open };
            self.updated_at = now;
        }
    }

    /// Marks the task as landed and ends its claim; returns the token that keeps its last holder out.
    pub fn land(&mut self, now: TimeMs, epoch: u64) -> FencingToken {
        self.fence = self.next_fence(epoch);
        self.state = TaskState::Landed;
        self.claim = None;
        self.progress = 100;
        self.updated_at = now;
        self.fence
    }

    /// Stores a verdict in place of the reviewer's earlier one on the same commit.
    pub fn review(&mut self, review: Review) {
        self.reviews.retain(|old| old.agent != review.agent || old.head != review.head);
        self.updated_at = review.at;
        self.reviews.push(review);
    }

    /// Returns the leases that a claim of this task wants: globs and mode.
    #[must_use]
    pub fn wanted_leases(&self) -> Vec<(Vec<PathGlob>, LeaseMode)> {
        [(&self.paths, LeaseMode::Exclusive), (&self.shared_paths, LeaseMode::Shared)]
            .into_iter()
            .filter(|(globs, _)| !globs.is_empty())
            .map(|(globs, mode)| (globs.clone(), mode))
            .collect()
    }
}

/// Returns the tasks of `all` (id and dependencies) in an order in which each follows what it depends on; ties in the order
/// given. Dependencies outside the list do not count.
#[must_use]
pub fn dependency_order(all: &[(TaskId, Vec<TaskId>)]) -> Vec<TaskId> {
    let mut placed: Vec<TaskId> = Vec::with_capacity(all.len());
    while placed.len() < all.len() {
        let ready = all.iter().find(|(id, needs)| {
            !placed.contains(id) && needs.iter().all(|need| placed.contains(need) || all.iter().all(|(other, _)| other != need))
        });
        // Only a damaged store has a cycle; what is left then keeps its order.
        let next = ready.or_else(|| all.iter().find(|(id, _)| !placed.contains(id)));
        match next {
            Some((id, _)) => placed.push(*id),
            None => break,
        }
    }
    placed
}

#[cfg(test)]
mod tests;
