//! Agents that live in the host as components, and what components offer to MCP clients.
//!
//! Owns: which resident lives in which project (`moves`), when it is woken, what becomes of its answers, its tries. Must not know:
//! how a component runs. One task a resident and project feeds it one event after another:
//!
//! - the events of the project's log that it asked for, in order, after a stored cursor;
//! - the messages in its inbox, like any agent's: handed out under a lease, acked with the answer;
//! - its timers, and the answers to its requests.
//!
//! **Invariants:**
//! - What an answer does and that its event was handled are one commit, or neither is.
//! - An event comes again, under the same id, until that commit; a failed try is recorded (`resident.failed`,
//!   `resident.refused`) and repeated with back-off; one that failed too often is given up, and that is recorded, too
//!   (`resident.gave_up`).
//! - An agent is not fed what it did itself, nor anything about residents.
//! - What is committed of an answer was decided by the component that the seat was opened on: one that takes its place has a seat of
//!   its own, which is opened when the event under way is settled.

mod answer;
mod memory;
mod moves;
mod record;
mod requests;
mod seat;
mod standing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::ProjectId;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::moves::{Held, Offered, Stage};
use self::record::plugin_of_due;
use self::seat::Seat;
use super::failure::Failure;
use super::kit::chain;
use super::surface::Services;
use crate::ports::fetch::Fetch;
use crate::ports::store::{Commit, DueChange, DueEntry};

/// Milliseconds before what failed for want of the store is tried again.
const RETRY_MS: u64 = 1_000;

/// What rang for one resident in one project, and was not looked at yet.
#[derive(Default)]
struct Bell {
    names: Mutex<BTreeSet<String>>,
    rung: Notify,
}

impl Bell {
    fn ring(&self, name: &str) {
        self.names.lock().insert(name.to_owned());
        self.rung.notify_one();
    }

    fn take(&self) -> Option<String> {
        self.names.lock().pop_first()
    }
}

/// A resident of a project: its project and its plugin.
type Key = (ProjectId, String);

/// The residents of a host.
pub struct Residency {
    services: Services,
    fetch: Arc<dyn Fetch>,
    seats: Mutex<HashMap<Key, Held>>,
    /// What the providers' offers in a project came of.
    offered: Mutex<HashMap<Key, Offered>>,
    /// Why residents were left out, as it was recorded last.
    left_out: Mutex<HashMap<Key, String>>,
    /// Projects that are in step with the bindings as they were after so many changes, and with whether they are seen to here.
    settled: Mutex<HashMap<ProjectId, (u64, bool)>>,
    /// Residents that nobody runs yet.
    idle: tokio::sync::Mutex<Vec<Seat>>,
}

impl Residency {
    /// Returns the residents of a host, asleep.
    #[must_use]
    pub fn new(services: Services, fetch: Arc<dyn Fetch>) -> Self {
        let (seats, offered, left_out, settled, idle) = Default::default();
        Self { services, fetch, seats, offered, left_out, settled, idle }
    }

    /// Runs the residents until `stop`, also those of projects made and of plugins bound or loaded meanwhile.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let store = Arc::clone(&self.services.kit.store);
        let mut hint = store.watch(None);
        let mut bound = self.services.kit.settings.bindings.changes();
        let mut homes = self.services.kit.homes.changes();
        let (mut running, mut keys) = (JoinSet::new(), HashMap::new());
        while !stop.is_cancelled() {
            hint.borrow_and_update();
            bound.borrow_and_update();
            homes.borrow_and_update();
            let settled = self.settle().await;
            for seat in self.idle.lock().await.drain(..) {
                let key = seat.key();
                self.stage(&key, Stage::Runs);
                keys.insert(running.spawn(seat.run(stop.clone())).id(), key);
            }
            if let Err(failure) = &settled {
                tracing::warn!(error = %chain(failure), "residents could not move in; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                changed = hint.changed() => if changed.is_err() { hint = store.watch(None) },
                Ok(()) = bound.changed() => {}
                Ok(()) = homes.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(RETRY_MS)), if settled.is_err() => {}
                Some(ended) = running.join_next_with_id() => {
                    let (id, died) = match ended {
                        Ok((id, ())) => (id, None),
                        Err(error) => (error.id(), Some(error)),
                    };
                    if let Some(key) = keys.remove(&id) {
                        self.ended(&key, died.as_ref());
                    }
                }
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Lets the residents that nobody runs handle everything that waits for them now. Returns how much that was.
    ///
    /// # Errors
    /// [`Failure`]; what was under way comes again.
    pub async fn work(&self) -> Result<usize, Failure> {
        let mut seats = self.idle.lock().await;
        let mut done = 0;
        loop {
            let before = done;
            for seat in seats.iter_mut() {
                while seat.turn().await? {
                    done += 1;
                }
                done += seat.finish_requests().await?;
            }
            if done == before {
                return Ok(done);
            }
        }
    }

    /// Returns whether a due entry rings for a resident.
    #[must_use]
    pub fn owns(entry: &DueEntry) -> bool {
        plugin_of_due(&entry.name).is_some()
    }

    /// Rings for the resident of a due entry. Where it lives no more the entry goes; its record stays, and rings again should
    /// it come back.
    ///
    /// # Errors
    /// [`Failure`]; the entry stays.
    pub async fn ring(&self, entry: &DueEntry) -> Result<(), Failure> {
        let Some(plugin) = plugin_of_due(&entry.name) else { return Ok(()) };
        let bell = self.seats.lock().get(&(entry.project, plugin.to_owned())).map(|held| Arc::clone(&held.bell));
        if let Some(bell) = bell {
            bell.ring(&entry.name);
            return Ok(());
        }
        let due = vec![DueChange::Clear { name: entry.name.clone() }];
        self.services.kit.store.commit(Commit { project: Some(entry.project), due, ..Commit::default() }).await?;
        Ok(())
    }

    /// Records why a component is left out of a project.
    async fn say_left_out(&self, project: ProjectId, plugin: &str, kind: &str, why: &str) -> Result<(), Failure> {
        tracing::error!(%project, plugin, kind, why, "a component is left out");
        let event = NewEvent::new(kind, Actor::host(), format!("plugin:{plugin}"), json!({"plugin": plugin, "why": why}));
        let commit = Commit { project: Some(project), events: vec![event], ..Commit::default() };
        self.services.kit.store.commit(commit).await?;
        Ok(())
    }
}
