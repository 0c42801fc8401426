//! Following other hosts on the same store: what an operator changed at one of them is taken in by all.
//!
//! A component whose source cannot be read here comes from the host that has it, by its digest.
//!
//! **Invariant:** what is taken in here changes no record in a way that others take in again.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_core::event::Cursor;
use tokio_util::sync::CancellationToken;

use super::change::Anew;
use super::{Effective, Registry, StartError};
use crate::ports::registry::Mode;
use crate::service::failure::Failure;
use crate::service::kit::chain;

/// What operators, and governors, change; and whether the component is loaded anew for it, though it be the same one: its configuration or
/// grants may be others, or it is to be asked again after it was given up.
const FOLLOWED: [(&str, Anew); 8] = [
    ("plugin.added", Anew::Always),
    ("plugin.removed", Anew::WhenChanged),
    ("plugin.enabled", Anew::Always),
    ("plugin.disabled", Anew::WhenChanged),
    ("plugin.pinned", Anew::WhenChanged),
    ("plugin.unpinned", Anew::WhenChanged),
    ("plugin.granted", Anew::Always),
    ("plugin.quarantined", Anew::WhenChanged),
];
/// Events read at once.
const PAGE_EVENTS: usize = 256;
/// Milliseconds before what failed for want of the store is tried again.
const RETRY_MS: u64 = 1_000;

impl Registry {
    /// Takes in what was changed at other hosts after a place in the hosts' own log, until `stop`.
    pub async fn follow(self: Arc<Self>, mut after: Cursor, stop: CancellationToken) {
        let mut hint = self.kit.store.watch(None);
        while !stop.is_cancelled() {
            hint.borrow_and_update();
            match self.follow_once(&mut after).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(failure) => {
                    tracing::warn!(error = chain(&failure), "what was changed at other hosts is not taken in yet");
                    tokio::time::sleep(std::time::Duration::from_millis(RETRY_MS)).await;
                    continue;
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                changed = hint.changed() => if changed.is_err() { hint = self.kit.store.watch(None) },
            }
        }
    }

    /// Takes in one page; returns whether there was one.
    async fn follow_once(&self, after: &mut Cursor) -> Result<bool, Failure> {
        let events = self.kit.store.events(None, *after, PAGE_EVENTS).await?;
        let Some(last) = events.last().map(|event| event.cursor) else { return Ok(false) };
        let own = self.kit.homes.own_name();
        let mut changed: BTreeMap<String, Anew> = BTreeMap::new();
        for event in events.iter().map(|event| &event.event).filter(|event| event.data["host"].as_str() != own) {
            let followed = FOLLOWED.iter().find(|(kind, _)| *kind == event.kind);
            let (Some((_, anew)), Some(name)) = (followed, event.data["plugin"].as_str()) else { continue };
            let known = changed.entry(name.to_owned()).or_insert(*anew);
            if *anew == Anew::Always {
                *known = Anew::Always;
            }
        }
        if !changed.is_empty() {
            self.take_in_of(&changed).await?;
        }
        *after = last;
        Ok(true)
    }

    async fn take_in_of(&self, changed: &BTreeMap<String, Anew>) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let wanted = self.wanted.load_full();
        let all = self.effective(&wanted).await?;
        for known in all.iter().filter(|known| known.spec.mode != Mode::Off) {
            let Some(anew) = changed.get(&known.spec.name) else { continue };
            if let Some(digest) = known.record.pinned.as_deref().or(known.spec.digest.as_deref())
                && self.components.kept(digest).await.is_none()
            {
                self.fetch_from_siblings(known, digest).await;
            }
            if self.loaded_digest(&known.spec.name).is_some() {
                // Refused, it is noted, and what is loaded goes on.
                let _ = self.again(&wanted, known, *anew).await?;
            } else {
                match self.start_one(&wanted, known).await {
                    Ok(()) => {}
                    Err(StartError::State(failure)) => return Err(failure),
                    Err(refused @ StartError::Plugin { .. }) => {
                        tracing::error!(error = chain(&refused), "what another host has loaded cannot be loaded here");
                    }
                }
            }
        }
        self.bind(&wanted).await?;
        self.let_go(&all);
        Ok(())
    }

    /// Returns what an event says, with the host that it happened at.
    pub(super) fn said_here(&self, mut data: serde_json::Value) -> serde_json::Value {
        if let Some(host) = self.kit.homes.own_name() {
            data["host"] = serde_json::json!(host);
        }
        data
    }

    /// Keeps a component here that another host has, if one does.
    pub(super) async fn fetch_from_siblings(&self, known: &Effective, digest: &str) {
        let Some(component) = self.kit.homes.component(digest).await else { return };
        if let Err(error) = self.components.keep(component).await {
            tracing::warn!(plugin = known.spec.name, error = chain(&error), "a component of another host cannot be kept");
        }
    }
}
