//! Agents that live in the host as components, and what components offer to MCP clients when the host starts.
//!
//! Owns: which resident lives in which project, when it is woken, what becomes of its answers, its tries. Must not know:
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

mod answer;
mod memory;
mod record;
mod requests;
mod seat;
mod standing;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pointsman_core::agent::ProjectRecord;
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::ProjectId;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::record::plugin_of_due;
use self::seat::Seat;
use super::failure::Failure;
use super::kit::chain;
use super::settings::{ResidentBinding, covers};
use super::surface::Services;
use crate::ports::fetch::Fetch;
use crate::ports::resident::ResidentDescription;
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

/// The residents of a host.
pub struct Residency {
    services: Services,
    fetch: Arc<dyn Fetch>,
    bells: Mutex<HashMap<(ProjectId, String), Arc<Bell>>>,
    /// Projects whose residents have moved in.
    settled: Mutex<HashSet<ProjectId>>,
    /// Residents that nobody runs yet.
    idle: tokio::sync::Mutex<Vec<Seat>>,
}

impl Residency {
    /// Returns the residents of a host, asleep.
    #[must_use]
    pub fn new(services: Services, fetch: Arc<dyn Fetch>) -> Self {
        Self { services, fetch, bells: Mutex::default(), settled: Mutex::default(), idle: tokio::sync::Mutex::default() }
    }

    /// Installs the offers, and moves the residents into the projects that have none of theirs yet.
    ///
    /// # Errors
    /// [`Failure`] when the store fails; a component that is at fault is recorded in its project's log and left out.
    pub async fn settle(&self) -> Result<(), Failure> {
        for project in self.services.agents.projects().await? {
            if self.settled.lock().contains(&project.id) {
                continue;
            }
            self.install_offers(&project).await?;
            for binding in &self.services.kit.settings.residents {
                if covers(&binding.projects, &project.slug) {
                    self.move_in(&project, binding).await?;
                }
            }
            self.settled.lock().insert(project.id);
        }
        Ok(())
    }

    /// Runs the residents until `stop`, also those of projects made meanwhile.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let store = Arc::clone(&self.services.kit.store);
        let mut hint = store.watch(None);
        let mut running = JoinSet::new();
        while !stop.is_cancelled() {
            hint.borrow_and_update();
            let settled = self.settle().await;
            for seat in self.idle.lock().await.drain(..) {
                running.spawn(seat.run(stop.clone()));
            }
            if let Err(failure) = &settled {
                tracing::warn!(error = %chain(failure), "residents could not move in; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                changed = hint.changed() => if changed.is_err() { hint = store.watch(None) },
                () = tokio::time::sleep(Duration::from_millis(RETRY_MS)), if settled.is_err() => {}
                Some(ended) = running.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "a resident's task died; it lives again after a restart");
                },
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
        let bell = self.bells.lock().get(&(entry.project, plugin.to_owned())).cloned();
        if let Some(bell) = bell {
            bell.ring(&entry.name);
            return Ok(());
        }
        let due = vec![DueChange::Clear { name: entry.name.clone() }];
        self.services.kit.store.commit(Commit { project: Some(entry.project), due, ..Commit::default() }).await?;
        Ok(())
    }

    async fn move_in(&self, project: &ProjectRecord, binding: &ResidentBinding) -> Result<(), Failure> {
        let plugin = &binding.plugin;
        if self.bells.lock().contains_key(&(project.id, plugin.clone())) {
            return Ok(());
        }
        let known: HashMap<String, ResidentDescription> = self.services.kit.residents.residents().into_iter().collect();
        let Some(description) = known.get(plugin) else {
            return self.left_out(project.id, plugin, "resident.refused", "it is loaded, but not as an agent").await;
        };
        let bell = Arc::new(Bell::default());
        let opened = Seat::open(&self.services, &self.fetch, project, binding, description, Arc::clone(&bell)).await;
        match opened {
            Ok(seat) => {
                self.bells.lock().insert((project.id, plugin.clone()), bell);
                self.idle.lock().await.push(seat);
                Ok(())
            }
            Err(Failure::Refused(refusal)) => self.left_out(project.id, plugin, "resident.refused", &refusal.why).await,
            Err(other) => Err(other),
        }
    }

    async fn install_offers(&self, project: &ProjectRecord) -> Result<(), Failure> {
        let services = &self.services;
        for binding in services.kit.settings.providers.iter().filter(|binding| covers(&binding.projects, &project.slug)) {
            let plugin = &binding.plugin;
            if let Some((offers, version)) = standing::last(services, project.id, plugin).await? {
                match services.offers.check(project.id, plugin, offers) {
                    Ok(checked) => {
                        services.offers.install(project.id, plugin, checked, version);
                        continue;
                    }
                    Err(why) => {
                        let why = format!("what it offered last is not taken any more, so what it offers first is: {why}");
                        self.left_out(project.id, plugin, "offers.refused", &why).await?;
                    }
                }
            }
            let first = services.kit.providers.initial_offers(plugin).await.map_err(|failure| failure.to_string());
            match first.and_then(|offers| services.offers.check(project.id, plugin, offers)) {
                Ok(checked) => services.offers.install(project.id, plugin, checked, 0),
                Err(why) => self.left_out(project.id, plugin, "offers.refused", &why).await?,
            }
        }
        Ok(())
    }

    /// Records why a component is left out of a project.
    async fn left_out(&self, project: ProjectId, plugin: &str, kind: &str, why: &str) -> Result<(), Failure> {
        tracing::error!(%project, plugin, kind, why, "a component is left out");
        let event = NewEvent::new(kind, Actor::host(), format!("plugin:{plugin}"), json!({"plugin": plugin, "why": why}));
        let commit = Commit { project: Some(project), events: vec![event], ..Commit::default() };
        self.services.kit.store.commit(commit).await?;
        Ok(())
    }
}
