//! What time brings: lapsed claims, deliveries that come back, expiries, residents' timers. And what a start finds half done.

use std::sync::Arc;

use pointsman_core::agent::ProjectRecord;
use pointsman_core::ids::ProjectId;
use tokio_util::sync::CancellationToken;

use super::agents::PRESENCE;
use super::contexts::HOUSEKEEPING;
use super::deferred::DEFERRED;
use super::failure::Failure;
use super::intents::{Intent, Work};
use super::kit::chain;
use super::messaging::run_due;
use super::residents::Residency;
use super::sessions::SESSIONS;
use super::surface::Services;
use crate::ports::store::DueEntry;

/// Handles due entries of all services until `stop`, in the projects that this host sees to.
pub async fn run(services: Services, residency: Arc<Residency>, stop: CancellationToken) {
    if let Err(failure) = schedule(&services).await {
        tracing::error!(error = %chain(&failure), "the removal of old messages could not be scheduled; the next start tries again");
    }
    let homes = services.kit.homes.clone();
    run_due(&services.kit, stop, |project| homes.sees_to(project), |entry| handle(&services, &residency, entry)).await;
}

/// Sets what happens again and again in every project.
///
/// # Errors
/// [`Failure`].
pub async fn schedule(services: &Services) -> Result<(), Failure> {
    for ProjectRecord { id: project, .. } in services.agents.projects().await? {
        services.messaging.schedule_retention(project).await?;
        services.contexts.schedule_sweep(project).await?;
    }
    Ok(())
}

/// Works off what is due now. Returns how much that was.
///
/// # Errors
/// [`Failure`].
pub async fn tick(services: &Services, residency: &Residency) -> Result<usize, Failure> {
    let due = services.kit.store.due(services.kit.now(), usize::MAX).await?;
    let count = due.len();
    for entry in due {
        handle(services, residency, entry).await?;
    }
    Ok(count)
}

async fn handle(services: &Services, residency: &Residency, entry: DueEntry) -> Result<(), Failure> {
    if let Some(id) = entry.name.strip_prefix(DEFERRED) {
        return services.deferred.wake(services, entry.project, id).await;
    }
    if let Some(session) = entry.name.strip_prefix(SESSIONS) {
        return services.sessions.forget(entry.project, session).await;
    }
    if entry.name.starts_with(PRESENCE) {
        return services.agents.lapse(entry.project, &entry.name).await;
    }
    if let Some(what) = entry.name.strip_prefix(HOUSEKEEPING) {
        return services.contexts.keep_house(entry.project, what).await;
    }
    if Residency::owns(&entry) {
        return residency.ring(&entry).await;
    }
    match entry.name.strip_prefix("claim/").and_then(|id| id.parse().ok()) {
        Some(task) => services.claims.lapse(entry.project, task).await,
        None => services.messaging.handle_due(&entry).await,
    }
}

/// Finishes what was left half done `left_ms` ago or earlier, in every project that is at home here. Called before anyone is served, for
/// what the last run of the host left; and now and again, for what others asked for and left.
///
/// # Errors
/// [`Failure`] when the store cannot be read; work that fails is kept and logged.
pub async fn recover(services: &Services, left_ms: u64) -> Result<usize, Failure> {
    let mut finished = 0;
    for ProjectRecord { id: project, .. } in services.agents.projects().await? {
        finished += recover_project(services, project, left_ms).await?;
    }
    Ok(finished)
}

/// Finishes what was left half done in one project, if it is at home here.
///
/// # Errors
/// [`Failure`] when the store cannot be read; work that fails is kept and logged.
pub async fn recover_project(services: &Services, project: ProjectId, left_ms: u64) -> Result<usize, Failure> {
    let mut finished = 0;
    if !services.kit.homes.is_here(project) {
        return Ok(finished);
    }
    let now = services.kit.now();
    for intent in services.kit.open_intents(project).await? {
        if now.since_ms(intent.at) < left_ms {
            continue;
        }
        match finish(services, project, &intent).await {
            Ok(()) => finished += 1,
            Err(failure) => {
                tracing::error!(intent = %intent.id, error = %chain(&failure), "an intent could not be finished; it is kept")
            }
        }
    }
    Ok(finished)
}

async fn finish(services: &Services, project: ProjectId, intent: &Intent) -> Result<(), Failure> {
    tracing::info!(intent = %intent.id, work = ?intent.work, "finishing what was begun");
    match &intent.work {
        Work::Grant(_) => services.claims.finish_grant(project, intent).await,
        Work::Revoke { .. } => services.claims.finish_revoke(project, Some(intent)).await,
        Work::Move { .. } => match services.commits.finish_move(project, intent).await {
            // Too late: recorded as refused; nobody waits for the answer any more.
            Err(Failure::Refused(_)) => Ok(()),
            other => other,
        },
        Work::Land(_) => services.queue.finish_landing(project, intent).await,
    }
}
