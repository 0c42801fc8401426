//! Merges: one try to land one branch, from the queue to the target.
//!
//! ```text
//! queued ──► waiting (for approvals) ──► landing ──► landed
//!   │  ▲        │                           │
//!   │  └────────┴───── target moved ────────┘
//!   └──► conflicted, failed, refused, withdrawn      (ends; the next try is a new merge)
//! ```
//!
//! **Invariant:** only a merge in `landing` has asked for the target's swap, and it names the tree that was checked.

use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, MergeId, Oid, TaskId};
use crate::time::TimeMs;
use crate::value::Stored;

/// A file that nobody merged yet, as three sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Which file.
    pub path: String,
    /// `content`, `modify-delete`, …
    pub kind: String,
    /// Blob of the merge base; none: it was not there.
    pub base: Option<Oid>,
    /// Blob on the target.
    pub ours: Option<Oid>,
    /// Blob on the branch.
    pub theirs: Option<Oid>,
    /// Why each strategy left it, a line each.
    pub reasons: Vec<String>,
}

/// What a merge came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum MergeState {
    /// Waits for its turn.
    Queued,
    /// Merged and checked; approvals are missing.
    Waiting {
        /// The policy's rule.
        rule: String,
        /// The policy's words.
        why: String,
        /// The head of the target it was merged with.
        ours: Oid,
    },
    /// The swap was asked for.
    Landing {
        /// The commit whose tree was checked.
        commit: Oid,
    },
    /// On the target.
    Landed {
        /// That commit.
        commit: Oid,
    },
    /// Back with its agent: both sides changed the same places.
    Conflicted {
        /// The head of the target it was merged with.
        ours: Oid,
        /// What is left to resolve.
        conflicts: Vec<Conflict>,
    },
    /// Back with its agent: a check failed.
    Failed {
        /// Which check.
        check: String,
        /// The end of its output.
        output: String,
    },
    /// Back with its agent: refused by a rule.
    Refused {
        /// Which rule.
        rule: String,
        /// Why.
        why: String,
    },
    /// A newer submission, a release or a cancellation took its place.
    Withdrawn,
}

/// A check that passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedCheck {
    /// Its name.
    pub name: String,
    /// What was run; another command is another check.
    pub command: String,
    /// The tree it ran on.
    pub tree: Oid,
    /// How long it took.
    pub took_ms: u64,
    /// What kept it in: `landlock+rlimits`, `rlimits`.
    pub sandbox: String,
}

/// One try to land one branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// Its number.
    pub id: MergeId,
    /// Whose branch.
    pub task: TaskId,
    /// Who submitted it.
    pub agent: AgentId,
    /// That agent's name.
    pub agent_name: String,
    /// The branch.
    pub branch: String,
    /// The commit to land.
    pub head: Oid,
    /// Where to.
    pub target: String,
    /// What it came to.
    pub outcome: MergeState,
    /// Checks that the latest merged tree passed; they are not run again on that tree.
    pub passed: Vec<PassedCheck>,
    /// When it was submitted.
    pub queued_at: TimeMs,
    /// When it last changed.
    pub updated_at: TimeMs,
}

impl Stored for Merge {
    const NAME: &'static str = "merge";
}

impl Merge {
    /// Returns whether the queue still has to do something for it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.outcome, MergeState::Queued | MergeState::Waiting { .. } | MergeState::Landing { .. })
    }

    /// Returns the check of this name and command if it passed on this tree.
    #[must_use]
    pub fn passed_on(&self, name: &str, command: &str, tree: Oid) -> Option<&PassedCheck> {
        self.passed.iter().find(|check| check.name == name && check.command == command && check.tree == tree)
    }

    /// Moves on; says whether the step is allowed from where it stands. A refused step changes nothing.
    pub fn advance(&mut self, now: TimeMs, next: MergeState) -> bool {
        use MergeState as S;
        let allowed = match (&self.outcome, &next) {
            (S::Queued | S::Waiting { .. }, S::Landing { .. } | S::Queued | S::Waiting { .. } | S::Withdrawn)
            | (S::Queued | S::Waiting { .. }, S::Conflicted { .. } | S::Failed { .. } | S::Refused { .. })
            | (S::Landing { .. }, S::Queued) => true,
            (S::Landing { commit: asked }, S::Landed { commit }) => asked == commit,
            _ => false,
        };
        if allowed {
            self.outcome = next;
            self.updated_at = now;
        }
        allowed
    }

    /// Returns the state's name.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.outcome {
            MergeState::Queued => "queued",
            MergeState::Waiting { .. } => "waiting",
            MergeState::Landing { .. } => "landing",
            MergeState::Landed { .. } => "landed",
            MergeState::Conflicted { .. } => "conflicted",
            MergeState::Failed { .. } => "failed",
            MergeState::Refused { .. } => "refused",
            MergeState::Withdrawn => "withdrawn",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RANDOM_BYTES;
    use proptest::prelude::*;

    fn state() -> impl Strategy<Value = MergeState> {
        let oid = (0u8..3).prop_map(|n| Oid([n; 20]));
        prop_oneof![
            Just(MergeState::Queued),
            oid.clone().prop_map(|ours| MergeState::Waiting { rule: "r".into(), why: "w".into(), ours }),
            oid.clone().prop_map(|commit| MergeState::Landing { commit }),
            oid.clone().prop_map(|commit| MergeState::Landed { commit }),
            oid.prop_map(|ours| MergeState::Conflicted { ours, conflicts: vec![] }),
            Just(MergeState::Failed { check: "c".into(), output: String::new() }),
            Just(MergeState::Refused { rule: "r".into(), why: "w".into() }),
            Just(MergeState::Withdrawn),
        ]
    }

    proptest! {
        #[test]
        fn ends_are_final_and_landed_is_what_was_asked(steps in proptest::collection::vec(state(), 1..30)) {
            let mut merge = Merge {
                id: MergeId(1), task: TaskId(1), agent: AgentId::new(TimeMs(0), [0; RANDOM_BYTES]), agent_name: "a".into(), branch: "b".into(),
                head: Oid([0; 20]), target: "main".into(), outcome: MergeState::Queued, passed: vec![], queued_at: TimeMs(0), updated_at: TimeMs(0),
            };
            for step in steps {
                let before = merge.clone();
                let moved = merge.advance(TimeMs(1), step);
                if !moved || !before.is_live() {
                    prop_assert!(!moved && merge == before);
                }
                if let MergeState::Landed { commit } = &merge.outcome {
                    let asked = matches!(&before.outcome, MergeState::Landing { commit: asked } if asked == commit);
                    prop_assert!(asked || before.outcome == merge.outcome);
                }
            }
        }
    }
}
