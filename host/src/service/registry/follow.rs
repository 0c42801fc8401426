//! Following other hosts on the same store: what an operator changed at one of them is taken in by all.
//!
//! A component whose source cannot be read here comes from the host that has it, by its digest.
//!
//! **Invariant:** what is taken in here changes no record in a way that others take in again.

use std::collections::BTreeSet;
use std::sync::Arc;

use pointsman_core::event::Cursor;
use tokio_util::sync::CancellationToken;

use super::change::Anew;
use super::{Effective, Registry, StartError};
use crate::ports::registry::Mode;
use crate::service::failure::Failure;
use crate::service::kit::chain;

/// What operators, and governors, change.
const FOLLOWED: [&str; 8] = [
    "plugin.added",
    "plugin.removed",
    "plugin.enabled",
    "plugin.disabled",
    "plugin.pinned",
    "plugin.unpinned",
    "plugin.granted",
    "plugin.quarantined",
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
        let followed = events.iter().filter(|event| FOLLOWED.contains(&event.event.kind.as_str()));
        let names: BTreeSet<String> = followed.filter_map(|event| event.event.data["plugin"].as_str().map(str::to_owned)).collect();
        if !names.is_empty() {
            self.take_in_of(&names).await?;
        }
        *after = last;
        Ok(true)
    }

    async fn take_in_of(&self, names: &BTreeSet<String>) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let wanted = self.wanted.load_full();
        let all = self.effective(&wanted).await?;
        for known in all.iter().filter(|known| names.contains(&known.spec.name) && known.spec.mode != Mode::Off) {
            if self.loaded_digest(&known.spec.name).is_some() {
                // Refused, it is noted, and what is loaded goes on.
                let _ = self.again(&wanted, known, Anew::WhenChanged).await?;
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

    /// Keeps a component here that another host has, if one does.
    pub(super) async fn fetch_from_siblings(&self, known: &Effective, digest: &str) {
        let Some(component) = self.kit.homes.component(digest).await else { return };
        if let Err(error) = self.components.keep(component).await {
            tracing::warn!(plugin = known.spec.name, error = chain(&error), "a component of another host cannot be kept");
        }
    }
}
