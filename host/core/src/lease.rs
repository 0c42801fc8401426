//! Path leases: who may change which part of the tree while a claim lasts.
//!
//! **Invariant:** no two live leases overlap unless both are shared.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{AgentId, FencingToken, TaskId};
use crate::path_glob::PathGlob;
use crate::time::TimeMs;
use crate::value::Stored;

/// Whether others may hold the same paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseMode {
    /// Nobody else.
    Exclusive,
    /// Others too, if they share: append-only files, changelogs.
    Shared,
}

/// One claim's hold on paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// For which task.
    pub task: TaskId,
    /// Held by.
    pub agent: AgentId,
    /// That agent's name.
    pub agent_name: String,
    /// Which paths; never empty.
    pub globs: Vec<PathGlob>,
    /// With or without others.
    pub mode: LeaseMode,
    /// Granted with the claim.
    pub token: FencingToken,
    /// When it ends unless renewed.
    pub until: TimeMs,
}

/// Two leases want the same paths.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{wanted}` overlaps `{held}`, which {agent} holds for {task} until {until}")]
pub struct Overlap {
    /// The glob asked for.
    pub wanted: PathGlob,
    /// The glob that is held.
    pub held: PathGlob,
    /// For which task.
    pub task: TaskId,
    /// By whom.
    pub agent: String,
    /// Until when.
    pub until: TimeMs,
}

/// All leases of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTable {
    leases: Vec<Lease>,
}

impl Stored for LeaseTable {
    const NAME: &'static str = "lease table";
}

impl LeaseTable {
    /// Returns the leases that live at `now`.
    pub fn live(&self, now: TimeMs) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(move |lease| now < lease.until)
    }

    /// Grants a lease in place of the task's earlier ones.
    ///
    /// # Errors
    /// [`Overlap`] with the first live lease in the way; the table is as before.
    pub fn grant(&mut self, now: TimeMs, leases: Vec<Lease>) -> Result<(), Overlap> {
        for wanted in &leases {
            for held in self.live(now).filter(|held| held.task != wanted.task) {
                if held.mode == LeaseMode::Shared && wanted.mode == LeaseMode::Shared {
                    continue;
                }
                let clash = wanted.globs.iter().find_map(|glob| Some((glob, held.globs.iter().find(|other| glob.overlaps(other))?)));
                if let Some((glob, other)) = clash {
                    return Err(Overlap {
                        wanted: glob.clone(),
                        held: other.clone(),
                        task: held.task,
                        agent: held.agent_name.clone(),
                        until: held.until,
                    });
                }
            }
        }
        self.leases.retain(|lease| now < lease.until && leases.iter().all(|new| new.task != lease.task));
        self.leases.extend(leases);
        Ok(())
    }

    /// Renews a task's leases under the token they were granted with; says whether there were any.
    pub fn renew(&mut self, task: TaskId, token: FencingToken, until: TimeMs) -> bool {
        let mut found = false;
        for lease in self.leases.iter_mut().filter(|lease| lease.task == task && lease.token == token) {
            lease.until = lease.until.max(until);
            found = true;
        }
        found
    }

    /// Ends a task's leases; says whether there were any.
    pub fn release(&mut self, task: TaskId) -> bool {
        let before = self.leases.len();
        self.leases.retain(|lease| lease.task != task);
        self.leases.len() < before
    }

    /// Returns the globs a task holds.
    #[must_use]
    pub fn held_by(&self, task: TaskId) -> Vec<PathGlob> {
        self.leases.iter().filter(|lease| lease.task == task).flat_map(|lease| lease.globs.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RANDOM_BYTES;
    use proptest::prelude::*;

    fn lease(task: u64, globs: &[&str], mode: LeaseMode, until: i64) -> Lease {
        Lease {
            task: TaskId(task),
            agent: AgentId::new(TimeMs(0), [1; RANDOM_BYTES]),
            agent_name: "ana".to_owned(),
            globs: globs.iter().map(|glob| glob.parse().expect("a glob")).collect(),
            mode,
            token: FencingToken { epoch: 1, n: 1 },
            until: TimeMs(until),
        }
    }

    #[test]
    fn exclusive_leases_keep_others_out_until_they_end() {
        let mut table = LeaseTable::default();
        table.grant(TimeMs(0), vec![lease(1, &["src/**"], LeaseMode::Exclusive, 10)]).expect("free");
        let clash = table.grant(TimeMs(5), vec![lease(2, &["src/a.rs"], LeaseMode::Shared, 20)]).expect_err("held");
        assert_eq!(clash.task, TaskId(1));
        table.grant(TimeMs(10), vec![lease(2, &["src/a.rs"], LeaseMode::Shared, 20)]).expect("ended");
        table.grant(TimeMs(11), vec![lease(3, &["src"], LeaseMode::Shared, 20)]).expect("both share");
        assert!(table.release(TaskId(2)) && !table.release(TaskId(2)));
    }

    #[test]
    fn renewal_needs_the_token() {
        let mut table = LeaseTable::default();
        table.grant(TimeMs(0), vec![lease(1, &["a"], LeaseMode::Exclusive, 10)]).expect("free");
        assert!(!table.renew(TaskId(1), FencingToken { epoch: 1, n: 2 }, TimeMs(50)));
        assert!(table.renew(TaskId(1), FencingToken { epoch: 1, n: 1 }, TimeMs(50)));
        assert_eq!(table.live(TimeMs(40)).count(), 1);
    }

    proptest! {
        #[test]
        fn live_leases_never_overlap_unless_shared(steps in proptest::collection::vec((1u64..6, 0usize..5, any::<bool>(), 1i64..8), 1..40)) {
            let globs = ["src/**", "src/a.rs", "docs/*", "CHANGELOG.md", "src/b/**"];
            let mut table = LeaseTable::default();
            for (now, (task, glob, shared, ttl)) in (0i64..).zip(steps) {
                let mode = if shared { LeaseMode::Shared } else { LeaseMode::Exclusive };
                let _ = table.grant(TimeMs(now), vec![lease(task, &[globs[glob]], mode, now + ttl)]);
                let live: Vec<_> = table.live(TimeMs(now)).collect();
                for (i, a) in live.iter().enumerate() {
                    for b in &live[i + 1..] {
                        let both_share = a.mode == LeaseMode::Shared && b.mode == LeaseMode::Shared;
                        prop_assert!(both_share || a.task == b.task || !a.globs[0].overlaps(&b.globs[0]));
                    }
                }
            }
        }
    }
}
