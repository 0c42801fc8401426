//! The loop that keeps a host's lease, follows its siblings, and finishes the work of those that are gone.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Homes, NAME_TAKEN, Shared};
use crate::service::due;
use crate::service::failure::Failure;
use crate::service::kit::chain;
use crate::service::surface::Services;

/// Milliseconds between two renewals.
const RENEW_MS: u64 = 4_000;
/// Milliseconds between two tries to renew that failed.
const RETRY_MS: u64 = 500;
/// The least milliseconds between two looks at the others.
const LOOK_MS: u64 = 100;
/// Milliseconds between two looks for work that nobody finishes.
const SWEEP_MS: u64 = 30_000;
/// Milliseconds after which work is taken for such: whoever asked for it has died, or could not reach the repository.
const ABANDONED_MS: u64 = 60_000;

/// Keeps what a host is to its siblings.
pub struct Keeper {
    services: Services,
}

impl Keeper {
    /// Begins to serve: compares keys, takes the lease, and the homes that are this host's.
    ///
    /// # Errors
    /// `other_keys`; [`Failure`].
    pub async fn begin(services: Services) -> Result<Self, Failure> {
        let (kit, homes) = (&services.kit, &services.kit.homes);
        if homes.are_shared() {
            Shared::compare_keys(kit).await?;
        } else {
            for project in services.agents.projects().await? {
                if kit.repository.has(project.id).await {
                    kit.repository.adopt(project.id).await?;
                }
            }
        }
        homes.settle(kit, &services.agents).await?;
        // What lies unfinished there is finished with all else, before anyone is served.
        homes.take_taken();
        Ok(Self { services })
    }

    /// Keeps the lease until all is `drained`, then gives it back. Where its name is another's, cancels `stop`.
    pub async fn run(self, stop: CancellationToken, drained: CancellationToken) {
        let Some(shared) = self.services.kit.homes.shared.clone() else { return self.sweep(&stop).await };
        tokio::select! {
            () = self.keep(&shared, &stop, &drained) => {}
            () = self.finish(&shared) => {}
            () = async {
                self.sweep(&stop).await;
                std::future::pending::<()>().await;
            } => {}
        }
        if let Err(failure) = shared.give_back(&self.services.kit).await {
            tracing::warn!(error = chain(&failure), "this host's lease is not given back; it runs out");
        }
    }

    async fn keep(&self, shared: &Arc<Shared>, stop: &CancellationToken, drained: &CancellationToken) {
        let kit = &self.services.kit;
        let mut hint = kit.store.watch(None);
        let mut pause_ms = RENEW_MS;
        loop {
            hint.borrow_and_update();
            let woken = async {
                tokio::select! {
                    _ = hint.changed() => {}
                    () = shared.missed.notified() => {}
                }
                tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            };
            tokio::select! {
                () = drained.cancelled() => return,
                () = woken => {}
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            }
            match kit.homes.settle(kit, &self.services.agents).await {
                Ok(()) => pause_ms = RENEW_MS,
                Err(failure) if matches!(&failure, Failure::Refused(refusal) if refusal.code == NAME_TAKEN) => {
                    tracing::error!(error = chain(&failure), "this host may not serve the store any more, and stops");
                    stop.cancel();
                    return;
                }
                Err(failure) => {
                    tracing::warn!(error = chain(&failure), "this host's lease is not renewed yet");
                    pause_ms = RETRY_MS;
                }
            }
        }
    }

    /// Finishes what was begun in projects that were just taken, and lets the lease be renewed meanwhile.
    async fn finish(&self, shared: &Shared) {
        loop {
            self.finish_taken().await;
            shared.took.notified().await;
        }
    }

    async fn finish_taken(&self) {
        for project in self.services.kit.homes.take_taken() {
            tracing::info!(%project, "the project is at home here now");
            match due::recover_project(&self.services, project, 0).await {
                Ok(finished) if finished > 0 => tracing::info!(%project, finished, "finished what its last home left"),
                Ok(_) => {}
                Err(failure) => tracing::error!(%project, error = chain(&failure), "what its last home left could not be looked at"),
            }
            self.services.kit.homes.queue_bell().notify_one();
        }
    }

    /// Finishes, now and again, what was begun for a project of this host and is nobody's any more.
    async fn sweep(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(SWEEP_MS)) => {}
            }
            match due::recover(&self.services, ABANDONED_MS).await {
                Ok(finished) if finished > 0 => {
                    tracing::warn!(finished, "finished what somebody else had begun and left");
                    self.services.kit.homes.queue_bell().notify_one();
                }
                Ok(_) => {}
                Err(failure) => tracing::warn!(error = chain(&failure), "unfinished work could not be looked for"),
            }
        }
    }
}

impl Homes {
    /// Returns the projects that were taken since this was asked last.
    fn take_taken(&self) -> Vec<pointsman_core::ids::ProjectId> {
        let taken = self.shared.as_ref().map(|shared| std::mem::take(&mut *shared.taken.lock()));
        taken.unwrap_or_default().into_iter().collect()
    }
}
