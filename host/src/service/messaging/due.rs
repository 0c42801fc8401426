//! What happens by time alone: leases that lapse, back-offs that end, messages that expire, deferred ones tried again.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use tokio_util::sync::CancellationToken;

use super::post::ROUTE_NOW;
use super::retention::RETENTION;
use super::{DUE, Messaging};
use crate::ports::store::{Commit, DueChange, DueEntry};
use crate::service::failure::Failure;
use crate::service::kit::{Kit, chain};

/// Entries worked off before the clock is read again.
const ENTRIES_AT_ONCE: usize = 256;
/// Milliseconds before an entry that is still due after it was handled is tried again.
const RETRY_MS: u64 = 1_000;
/// The longest sleep: a clock that was set back is noticed after it.
const SLEEP_MS_MAX: u64 = 30_000;

impl Messaging {
    /// Returns whether a due entry is this service's.
    #[must_use]
    pub fn owns(entry: &DueEntry) -> bool {
        entry.name.starts_with(DUE)
    }

    /// Works off a due entry of this service; one that is none is left alone.
    ///
    /// # Errors
    /// [`Failure`]; the entry stays.
    pub async fn handle_due(&self, entry: &DueEntry) -> Result<(), Failure> {
        if entry.name == ROUTE_NOW {
            // Cleared first: an agent that starts meanwhile sets it again.
            let due = vec![DueChange::Clear { name: entry.name.clone() }];
            self.kit.store.commit(Commit { project: Some(entry.project), due, ..Commit::default() }).await?;
            return self.route_deferred(entry.project).await;
        }
        if entry.name == RETENTION {
            return self.handle_retention(entry.project).await;
        }
        let parts: Vec<&str> = entry.name.split('/').collect();
        match parts.as_slice() {
            ["message", "delivery", agent, message] => match (agent.parse(), message.parse()) {
                (Ok(agent), Ok(message)) => self.handle_delivery(entry.project, agent, message).await,
                _ => self.forget(entry).await,
            },
            ["message", "deferred", message] => match message.parse() {
                Ok(message) => self.route_one_deferred(entry.project, message).await,
                Err(_) => self.forget(entry).await,
            },
            ["message", ..] => self.forget(entry).await,
            _ => Ok(()),
        }
    }

    async fn forget(&self, entry: &DueEntry) -> Result<(), Failure> {
        tracing::warn!(name = %entry.name, "a due entry means nothing to this host and is dropped");
        let due = vec![DueChange::Clear { name: entry.name.clone() }];
        self.kit.store.commit(Commit { project: Some(entry.project), due, ..Commit::default() }).await?;
        Ok(())
    }

    /// Works off all entries of this service that are due now. Returns how many.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn tick(&self) -> Result<usize, Failure> {
        let due = self.kit.store.due(self.kit.now(), usize::MAX).await?;
        let mut handled = 0;
        for entry in due.iter().filter(|entry| Self::owns(entry)) {
            self.handle_due(entry).await?;
            handled += 1;
        }
        Ok(handled)
    }

    /// Works off this service's entries when they are due, until `shutdown`. A host with other services that keep due
    /// entries runs one [`run_due`] for all of them instead.
    pub async fn run(&self, shutdown: CancellationToken) {
        run_due(&self.kit, shutdown, |_| true, |entry| async move { self.handle_due(&entry).await }).await;
    }
}

/// Hands each due entry of a project that is `seen_to` here to `handle` when its time has come, one after another, until `shutdown`. An
/// entry that is still due after it was handled, or whose handling failed, is tried again after a second; one that is another host's to
/// handle is looked at again then.
pub async fn run_due<F>(kit: &Kit, shutdown: CancellationToken, seen_to: impl Fn(ProjectId) -> bool, handle: impl Fn(DueEntry) -> F)
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut hint = kit.store.watch_due();
    let mut held: HashMap<(ProjectId, String, TimeMs), TimeMs> = HashMap::new();
    while !shutdown.is_cancelled() {
        hint.borrow_and_update();
        let now = kit.now();
        held.retain(|_, until| *until > now);
        let entries = match kit.store.due(now, ENTRIES_AT_ONCE + held.len()).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "due entries cannot be read");
                pause(&shutdown, std::future::pending::<()>(), RETRY_MS).await;
                continue;
            }
        };
        // Behind a full page more may be due: it is read next, past those that are held.
        let is_full = entries.len() >= ENTRIES_AT_ONCE + held.len();
        let mut handled = 0;
        for entry in entries {
            let key = (entry.project, entry.name.clone(), entry.at);
            if shutdown.is_cancelled() || held.contains_key(&key) {
                continue;
            }
            if seen_to(entry.project) {
                handled += 1;
                if let Err(failure) = handle(entry).await {
                    tracing::warn!(name = %key.1, error = %chain(&failure), "a due entry could not be worked off");
                }
            }
            held.insert(key, kit.now() + RETRY_MS);
        }
        if handled == 0 && !is_full {
            let sleep_ms = sleep_ms(kit, held.values().copied().min()).await;
            pause(&shutdown, hint.changed(), sleep_ms).await;
        }
    }
}

/// Returns how long nothing new can be due.
async fn sleep_ms(kit: &Kit, first_held: Option<TimeMs>) -> u64 {
    let now = kit.now();
    let next = kit.store.next_due().await.ok().flatten().filter(|next| *next > now);
    let until = [next, first_held].into_iter().flatten().min();
    until.map_or(SLEEP_MS_MAX, |until| until.since_ms(now)).clamp(1, SLEEP_MS_MAX)
}

async fn pause(shutdown: &CancellationToken, woken: impl Future, ms: u64) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = woken => {}
        () = tokio::time::sleep(Duration::from_millis(ms)) => {}
    }
}
