//! How plugins stand, as operators read it.

use super::{Effective, Registry, Running};
use crate::ports::plugins::PluginStats;
use crate::ports::registry::{Mode, PluginListed, PluginState, PluginTrouble};
use crate::service::failure::Failure;

impl Registry {
    /// Returns every plugin, by name.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn list(&self) -> Result<Vec<PluginListed>, Failure> {
        let wanted = self.wanted.load_full();
        let all = self.effective(&wanted).await?;
        let stats = self.kit.plugins.loaded();
        let running = self.running.lock().clone();
        let row = |effective: Effective| {
            let name = effective.spec.name.clone();
            let stats = stats.get(&name).map(|(_, _, stats)| stats.clone()).unwrap_or_default();
            listed(effective, running.get(&name).cloned().unwrap_or_default(), &stats)
        };
        Ok(all.into_iter().map(row).collect())
    }

    /// Returns one plugin.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn listed(&self, name: &str) -> Result<PluginListed, Failure> {
        let found = self.list().await?.into_iter().find(|listed| listed.name == name);
        found.ok_or_else(|| super::change::unknown(name))
    }

    /// Returns why the configuration was not taken in when it was read again; none: it was.
    #[must_use]
    pub fn configuration_trouble(&self) -> Option<PluginTrouble> {
        self.refused.lock().clone()
    }
}

fn listed(effective: Effective, running: Running, stats: &PluginStats) -> PluginListed {
    let Effective { spec, named_by, record } = effective;
    let state = match (spec.mode, &record.quarantine, &running.loaded, &running.trouble) {
        (Mode::Off, ..) => PluginState::Off,
        (_, Some(_), ..) => PluginState::Quarantined,
        (_, None, Some(_), _) if running.is_last_good => PluginState::LastGood,
        (_, None, Some(_), _) => PluginState::Loaded,
        (_, None, None, Some(_)) => PluginState::Failed,
        (_, None, None, None) => PluginState::NotLoaded,
    };
    let (digest, version) = running.loaded.map_or((None, None), |loaded| (Some(loaded.digest), loaded.version));
    PluginListed {
        name: spec.name,
        world: running.world.unwrap_or(spec.world),
        source: spec.origin.to_string(),
        named_by,
        mode: spec.mode,
        shadow_of: spec.shadow_of,
        share_permille: spec.share_permille,
        on_failure: spec.on_failure,
        instances: spec.instances,
        state,
        digest,
        version,
        pinned: record.pinned.or(spec.digest),
        asked: running.asked,
        granted: spec.capabilities,
        calls: stats.calls,
        failures: stats.traps + stats.limits + stats.invalid,
        last_error: running.trouble.or(record.trouble),
        quarantine: record.quarantine,
        history: record.history.into_iter().map(|past| past.version).collect(),
    }
}
