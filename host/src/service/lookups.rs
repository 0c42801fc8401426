//! What a component reads of the store while it handles one event or call, and what all of that may cost.
//!
//! Owns: the budget of the reads of one event or call. Must not know: what a component decides by them.
//!
//! **Invariants:** the reads of one event or call end within [`READS_MS`]; after one that failed or took too long nothing more
//! is read.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pointsman_core::event::Provenance;
use pointsman_core::ids::ProjectId;
use tokio::runtime::Handle;

use super::contexts::Viewer;
use super::failure::Failure;
use super::kit::chain;
use super::surface::{self, Services};
use crate::ports::lookups::{LookupRefusal, Lookups};
use crate::ports::plugins::Grant;

/// Look-ups of one event or call.
const LOOKUPS_MAX: u32 = 64;
/// Bytes of one look-up's answer.
const LOOKUP_BYTES_MAX: usize = 1 << 20;
/// Bytes of the answers to all look-ups of one event or call.
const LOOKUPS_BYTES_MAX: usize = 8 << 20;
/// Milliseconds of one read.
pub(super) const READ_MS: u64 = 1_000;
/// Milliseconds of all reads of one event or call.
pub(super) const READS_MS: u64 = 5_000;

/// Why nothing more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The store or the repository failed: what the component asked for is not to blame.
    Failed,
    /// A read took too long, or all of them did: what the component asked for may be to blame.
    Slow,
}

/// What the reads of one event or call may still cost.
struct Budget {
    lookups: u32,
    bytes: usize,
    time: Duration,
    broken: Option<Broken>,
}

/// The reads of one component during one event or call.
pub(super) struct StoreLookups {
    services: Arc<Services>,
    project: ProjectId,
    plugin: String,
    trace: String,
    grant: Grant,
    budget: Mutex<Budget>,
    /// Reads are made on the component's thread, which may block.
    runtime: Handle,
}

impl StoreLookups {
    /// Returns the reads of a component in a project; the grant is for look-ups. Called on a runtime.
    pub(super) fn new(services: Arc<Services>, project: ProjectId, plugin: &str, trace: &str, grant: Grant) -> Self {
        let budget = Budget { lookups: LOOKUPS_MAX, bytes: LOOKUPS_BYTES_MAX, time: Duration::from_millis(READS_MS), broken: None };
        Self {
            services,
            project,
            plugin: plugin.to_owned(),
            trace: trace.to_owned(),
            grant,
            budget: Mutex::new(budget),
            runtime: Handle::current(),
        }
    }

    /// Returns the reads of a provider in a call, as its binding grants them.
    pub(super) fn of_call(services: Arc<Services>, project: ProjectId, plugin: &str, trace: &str) -> Self {
        let bindings = services.kit.settings.bindings.now();
        let binding = bindings.providers.iter().find(|binding| binding.plugin == plugin);
        let grant = binding.map_or(Grant::Withheld, |binding| binding.lookups);
        Self::new(services, project, plugin, trace, grant)
    }

    /// Returns why nothing more is read, if that is so.
    pub(super) fn broken(&self) -> Option<Broken> {
        self.budget.lock().broken
    }

    /// Makes a read, within its time. None: it did not come to an end, or was not begun.
    pub(super) fn wait<T>(&self, read: impl Future<Output = Result<T, Failure>>) -> Option<Result<T, Failure>> {
        let left = {
            let budget = self.budget.lock();
            budget.broken.is_none().then_some(budget.time)?
        };
        let system = &self.services.kit.system;
        let start = system.instant();
        let limit = left.min(Duration::from_millis(READ_MS));
        let result = self.runtime.block_on(async { tokio::time::timeout(limit, read).await }).ok();
        let spent = system.instant().saturating_duration_since(start);
        let broken = match &result {
            None => Some((Broken::Slow, "it took too long".to_owned())),
            Some(Err(Failure::Refused(_)) | Ok(_)) => None,
            Some(Err(failure)) => Some((Broken::Failed, chain(failure))),
        };
        let mut budget = self.budget.lock();
        budget.time = budget.time.saturating_sub(spent);
        if let Some((broken, why)) = broken {
            tracing::warn!(plugin = %self.plugin, trace = %self.trace, why, "a component's read failed");
            budget.broken = Some(broken);
        }
        result
    }

    /// Returns as whom the component looks: as the agent it is here, where it is one.
    async fn viewer(&self) -> Result<Viewer, Failure> {
        let agents = self.services.agents.agents(self.project).await?;
        let own = agents.into_iter().find(|agent| agent.provenance == Provenance::Plugin && agent.name == self.plugin);
        Ok(own.map_or_else(|| Viewer::Plugin(self.plugin.clone()), Viewer::Agent))
    }

    /// Takes one look-up of those that are left.
    fn take_one(&self) -> Result<(), LookupRefusal> {
        let mut budget = self.budget.lock();
        budget.lookups = budget.lookups.checked_sub(1).ok_or_else(|| limited(format!("{LOOKUPS_MAX} look-ups at once")))?;
        Ok(())
    }

    /// Takes the bytes of an answer of those that are left.
    fn take_bytes(&self, bytes: usize) -> Result<(), LookupRefusal> {
        if bytes > LOOKUP_BYTES_MAX {
            return Err(limited(format!("{LOOKUP_BYTES_MAX} bytes a look-up")));
        }
        let mut budget = self.budget.lock();
        budget.bytes = budget.bytes.checked_sub(bytes).ok_or_else(|| limited(format!("{LOOKUPS_BYTES_MAX} bytes of look-ups at once")))?;
        Ok(())
    }
}

fn limited(limit: String) -> LookupRefusal {
    LookupRefusal::Limited(limit)
}

impl Lookups for StoreLookups {
    fn is_broken(&self) -> bool {
        self.broken().is_some()
    }

    fn read(&self, uri: &str) -> Result<String, LookupRefusal> {
        if self.grant == Grant::Withheld {
            return Err(LookupRefusal::NotGranted("lookups".to_owned()));
        }
        self.take_one()?;
        let read = async {
            let viewer = self.viewer().await?;
            surface::read(&self.services, self.project, viewer, uri).await
        };
        match self.wait(read) {
            Some(Ok(value)) => {
                let json: String = Box::<str>::from(value).into_string();
                self.take_bytes(json.len())?;
                Ok(json)
            }
            Some(Err(Failure::Refused(_))) => Err(LookupRefusal::NotFound),
            Some(Err(_)) | None => Err(limited("the host cannot read now".to_owned())),
        }
    }
}
