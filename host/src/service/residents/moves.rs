//! Who moves in and out: the residents and providers of each project, brought in step with the bindings and with what is loaded.
//!
//! A resident that is bound otherwise, or not at all, or whose component was loaded anew, leaves after the event under way; only then
//! does its successor move in. Offers follow in the same way: those of a component whose seat is about to leave change after that.
//!
//! **Invariant:** of one resident in one project at most one seat is there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use pointsman_core::agent::ProjectRecord;
use pointsman_core::ids::ProjectId;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::seat::Seat;
use super::{Bell, Key, Residency, standing};
use crate::ports::resident::ResidentDescription;
use crate::service::failure::Failure;
use crate::service::settings::{Bindings, ProviderBinding, ResidentBinding};

/// What a seat was opened on. It leaves when that is not what is wanted any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    /// Where it lives, and what it may.
    pub(super) binding: ResidentBinding,
    /// Whether it offers MCP in its project, too.
    pub(super) is_provider: bool,
    /// By which load its component stands.
    pub(super) load: u64,
}

/// What becomes of a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody runs it yet.
    Waits,
    /// A task runs it.
    Runs,
    /// Its task died.
    Died,
}

/// A seat as others know it.
pub(super) struct Held {
    /// What rings for it.
    pub(super) bell: Arc<Bell>,
    lease: Lease,
    leave: CancellationToken,
    stage: Stage,
}

/// What the offers of a provider in a project came of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offered {
    binding: ProviderBinding,
    load: Option<u64>,
    is_taken: bool,
    /// What was not taken, and why, as it was recorded.
    refused: Vec<String>,
}

impl Residency {
    /// Brings the residents and offers of all projects in step with the bindings, where they are not. Those who are to leave and are
    /// run by somebody are told so, and leave in their own time.
    ///
    /// # Errors
    /// [`Failure`] when the store fails; a component that is at fault is recorded in its project's log and left out.
    pub async fn settle(&self) -> Result<(), Failure> {
        let book = &self.services.kit.settings.bindings;
        // In this order: what changes in between is settled once more.
        let (replaced, bindings) = (book.replaced(), book.now());
        for project in self.services.agents.projects().await? {
            let step = (replaced, self.services.kit.homes.sees_to(project.id));
            if self.settled.lock().get(&project.id) == Some(&step) {
                continue;
            }
            self.settle_in(&project, &bindings, step.1).await?;
            self.settled.lock().insert(project.id, step);
        }
        Ok(())
    }

    /// Returns the plugins that live in a project now, those that are about to leave included.
    #[must_use]
    pub fn living(&self, project: ProjectId) -> BTreeSet<String> {
        self.seats.lock().keys().filter(|(of, _)| *of == project).map(|(_, plugin)| plugin.clone()).collect()
    }

    /// Residents live where their project is seen to; what is offered in it is offered by every host.
    async fn settle_in(&self, project: &ProjectRecord, bindings: &Bindings, is_seen_to: bool) -> Result<(), Failure> {
        let residents = if is_seen_to { bindings.residents(&project.slug) } else { Vec::new() };
        let providers = bindings.providers(&project.slug);
        let mut leases = BTreeMap::new();
        for binding in &residents {
            leases.extend(self.lease(binding, &providers).map(|lease| (binding.plugin.as_str(), lease)));
        }
        self.dismiss(project.id, &leases).await;
        let is_wanted = |plugin: &str| residents.iter().any(|binding| binding.plugin == plugin);
        self.left_out.lock().retain(|(of, plugin), _| *of != project.id || is_wanted(plugin));
        self.settle_offers(project, &providers).await?;
        for binding in residents {
            self.move_in(project, binding, leases.get(binding.plugin.as_str())).await?;
        }
        Ok(())
    }

    /// Returns what a seat for a binding would be opened on; none where nothing is loaded under its name.
    fn lease(&self, binding: &ResidentBinding, providers: &[&ProviderBinding]) -> Option<Lease> {
        let kit = &self.services.kit;
        let plugin = binding.plugin.as_str();
        let load = kit.plugins.load_number(plugin)?;
        let offers_here = providers.iter().any(|one| one.plugin == plugin);
        let is_provider = offers_here && kit.providers.providers().iter().any(|known| known == plugin);
        Some(Lease { binding: binding.clone(), is_provider, load })
    }

    /// Tells those to leave who live in a project on another lease than these. One that nobody runs is gone at once.
    async fn dismiss(&self, project: ProjectId, leases: &BTreeMap<&str, Lease>) {
        let mut gone = BTreeSet::new();
        self.seats.lock().retain(|(of, plugin), held| {
            if *of != project || leases.get(plugin.as_str()) == Some(&held.lease) {
                return true;
            }
            held.leave.cancel();
            match held.stage {
                Stage::Runs => true,
                Stage::Waits | Stage::Died => {
                    gone.insert(plugin.clone());
                    false
                }
            }
        });
        if !gone.is_empty() {
            self.idle.lock().await.retain(|seat| {
                let (of, plugin) = seat.key();
                of != project || !gone.contains(&plugin)
            });
        }
    }

    /// Takes back what is not offered in a project any more, and has those offer who do not yet, or whose component is another.
    async fn settle_offers(&self, project: &ProjectRecord, providers: &[&ProviderBinding]) -> Result<(), Failure> {
        let leaving: BTreeSet<String> = {
            let seats = self.seats.lock();
            let leaves = seats.iter().filter(|((of, _), held)| *of == project.id && held.leave.is_cancelled());
            leaves.map(|((_, plugin), _)| plugin.clone()).collect()
        };
        self.offered.lock().retain(|(of, plugin), _| {
            let stays = *of != project.id || leaving.contains(plugin) || providers.iter().any(|one| one.plugin == *plugin);
            if !stays {
                self.services.offers.remove(project.id, plugin);
            }
            stays
        });
        for binding in providers.iter().filter(|binding| !leaving.contains(&binding.plugin)) {
            self.offer(project.id, binding).await?;
        }
        Ok(())
    }

    /// Has a provider offer in a project: what it offered there last, else what it offers first. What was refused is tried again each
    /// time: it may have been for the sake of others, who are gone.
    async fn offer(&self, project: ProjectId, binding: &ProviderBinding) -> Result<(), Failure> {
        let (services, plugin) = (&self.services, binding.plugin.as_str());
        let key = (project, plugin.to_owned());
        let load = services.kit.plugins.load_number(plugin);
        let before = self.offered.lock().get(&key).cloned();
        if before.as_ref().is_some_and(|one| one.is_taken && one.load == load && one.binding == *binding) {
            return Ok(());
        }
        let (mut refused, mut taken) = (Vec::new(), None);
        if let Some((offers, version)) = standing::last(services, project, plugin).await? {
            match services.offers.check(project, plugin, offers) {
                Ok(checked) => taken = Some((checked, version)),
                Err(why) => refused.push(format!("what it offered last is not taken any more, so what it offers first is: {why}")),
            }
        }
        if taken.is_none() {
            let first = services.kit.providers.initial_offers(plugin).await.map_err(|failure| failure.to_string());
            match first.and_then(|offers| services.offers.check(project, plugin, offers)) {
                Ok(checked) => taken = Some((checked, 0)),
                Err(why) => refused.push(why),
            }
        }
        let is_taken = taken.is_some();
        match taken {
            Some((checked, version)) => services.offers.begin(project, plugin, checked, version),
            None => services.offers.remove(project, plugin),
        }
        for why in refused.iter().filter(|why| !before.as_ref().is_some_and(|one| one.refused.contains(why))) {
            self.say_left_out(project, plugin, "offers.refused", why).await?;
        }
        self.offered.lock().insert(key, Offered { binding: binding.clone(), load, is_taken, refused });
        Ok(())
    }

    async fn move_in(&self, project: &ProjectRecord, binding: &ResidentBinding, lease: Option<&Lease>) -> Result<(), Failure> {
        let key = (project.id, binding.plugin.clone());
        if self.seats.lock().contains_key(&key) {
            return Ok(());
        }
        let known: HashMap<String, ResidentDescription> = self.services.kit.residents.residents().into_iter().collect();
        let (Some(lease), Some(description)) = (lease, known.get(&binding.plugin)) else {
            return self.leave_out(key, "it is not loaded as an agent".to_owned()).await;
        };
        let (bell, leave) = (Arc::new(Bell::default()), CancellationToken::new());
        let opened = Seat::open(&self.services, &self.fetch, project, lease, description, (Arc::clone(&bell), leave.clone())).await;
        match opened {
            Ok(seat) => {
                self.left_out.lock().remove(&key);
                self.seats.lock().insert(key, Held { bell, lease: lease.clone(), leave, stage: Stage::Waits });
                self.idle.lock().await.push(seat);
                Ok(())
            }
            Err(Failure::Refused(refusal)) => self.leave_out(key, refusal.why).await,
            Err(other) => Err(other),
        }
    }

    /// Records why a resident does not move in, unless that was said before.
    async fn leave_out(&self, key: Key, why: String) -> Result<(), Failure> {
        if self.left_out.lock().get(&key) == Some(&why) {
            return Ok(());
        }
        self.say_left_out(key.0, &key.1, "resident.refused", &why).await?;
        self.left_out.lock().insert(key, why);
        Ok(())
    }

    /// Takes note of what becomes of a seat.
    pub(super) fn stage(&self, key: &Key, stage: Stage) {
        if let Some(held) = self.seats.lock().get_mut(key) {
            held.stage = stage;
        }
    }

    /// Takes note that the task of a seat is over. Where it was told to leave, its project is settled again: a successor may wait.
    pub(super) fn ended(&self, key: &Key, died: Option<&JoinError>) {
        if let Some(error) = died {
            tracing::error!(plugin = key.1, %error, "a resident's task died; it lives again after a restart, or a reload of the plugin");
        }
        let mut seats = self.seats.lock();
        if died.is_some() && seats.get(key).is_some_and(|held| !held.leave.is_cancelled()) {
            drop(seats);
            return self.stage(key, Stage::Died);
        }
        seats.remove(key);
        drop(seats);
        self.settled.lock().remove(&key.0);
    }
}
