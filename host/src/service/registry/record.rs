//! What is stored of a plugin, in the host's own records: `plugin/<name>`.
//!
//! **Invariant:** the history names each digest once, the one loaded last at its end, and is bounded.

use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};

use crate::ports::plugins::World;
use crate::ports::registry::{ComponentOrigin, Mode, Places, PluginSpec, PluginTrouble, PluginVersion};

/// Components of one plugin that are remembered.
pub(super) const HISTORY_MAX: usize = 16;
/// Plugins of a host.
pub(super) const PLUGINS_MAX: usize = 1_000;
/// Where the records stand.
pub(super) const PLUGINS: &str = "plugin/";

/// Returns where the record of a plugin stands.
pub(super) fn key(name: &str) -> String {
    format!("{PLUGINS}{name}")
}

/// A component that was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past {
    /// Which.
    pub(super) version: PluginVersion,
    /// The signature it came with, so that it can be checked again.
    pub(super) signature: Option<String>,
}

/// A plugin that the API added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Added {
    /// What it is used for.
    pub(super) world: World,
    /// Where its component comes from.
    pub(super) origin: ComponentOrigin,
    /// A JSON object as text.
    pub(super) config_json: String,
    /// The only digest it may have.
    pub(super) digest: Option<String>,
    /// Its signature.
    pub(super) signature: Option<String>,
    /// Beside which binding it is asked in shadow.
    pub(super) shadow_of: Option<String>,
    /// Of how many calls in a thousand it is asked in shadow.
    pub(super) share_permille: u16,
    /// Where it is asked.
    pub(super) places: Places,
}

impl Added {
    /// Returns what is wanted by it.
    pub(super) fn spec(&self, name: &str) -> PluginSpec {
        PluginSpec {
            config_json: self.config_json.clone(),
            digest: self.digest.clone(),
            signature: self.signature.clone(),
            shadow_of: self.shadow_of.clone(),
            share_permille: self.share_permille,
            ..PluginSpec::new(name, self.world, self.origin.clone())
        }
    }
}

/// What is known of a plugin besides the configuration. Fields come with time: each is missing in older records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PluginRecord {
    /// Set where the API added it.
    pub(super) added: Option<Added>,
    /// The mode the API set.
    pub(super) mode: Option<Mode>,
    /// The digest the API holds it at.
    pub(super) pinned: Option<String>,
    /// What the API granted.
    pub(super) grants: Option<Vec<String>>,
    /// What was loaded, the last at the end.
    pub(super) history: Vec<Past>,
    /// Why it is not asked until an operator enables it.
    pub(super) quarantine: Option<PluginTrouble>,
    /// Why what is wanted was refused last.
    pub(super) trouble: Option<PluginTrouble>,
}

impl Stored for PluginRecord {
    const NAME: &'static str = "plugin's record";
}

impl PluginRecord {
    /// Remembers a component that was loaded from its source.
    pub(super) fn remember(&mut self, past: Past) {
        if self.history.last().is_some_and(|last| last.version.digest == past.version.digest) {
            return;
        }
        self.history.retain(|other| other.version.digest != past.version.digest);
        self.history.push(past);
        let surplus = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..surplus);
    }

    /// Returns what was loaded under a digest.
    pub(super) fn past(&self, digest: &str) -> Option<&Past> {
        self.history.iter().find(|past| past.version.digest == digest)
    }

    /// Returns the component that stood before the one with this digest.
    pub(super) fn before(&self, digest: &str) -> Option<&Past> {
        let at = self.history.iter().position(|past| past.version.digest == digest).unwrap_or(self.history.len());
        self.history[..at].last()
    }

    /// Returns the digests of the history that begin so.
    pub(super) fn beginning<'a>(&'a self, digest: &'a str) -> impl Iterator<Item = &'a str> {
        self.history.iter().map(|past| past.version.digest.as_str()).filter(move |known| known.starts_with(digest))
    }
}

/// Returns a trouble of this moment.
pub(super) fn trouble(why: impl Into<String>, digest: Option<&str>, at: TimeMs) -> PluginTrouble {
    PluginTrouble { why: why.into(), digest: digest.map(str::to_owned), at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(digest: &str) -> Past {
        let version = PluginVersion { digest: digest.to_owned(), version: None, source: "embedded".to_owned(), at: TimeMs(1) };
        Past { version, signature: None }
    }

    fn digests(record: &PluginRecord) -> Vec<&str> {
        record.history.iter().map(|past| past.version.digest.as_str()).collect()
    }

    #[test]
    fn the_history_names_each_digest_once_and_is_bounded() {
        let mut record = PluginRecord::default();
        for digest in ["a", "b", "a", "a", "c"] {
            record.remember(past(digest));
        }
        assert_eq!(digests(&record), ["b", "a", "c"]);
        assert_eq!(record.before("c").map(|past| past.version.digest.as_str()), Some("a"));
        assert_eq!(record.before("b"), None);
        assert_eq!(record.before("elsewhere").map(|past| past.version.digest.as_str()), Some("c"));
        for n in 0..2 * HISTORY_MAX {
            record.remember(past(&format!("d{n}")));
        }
        assert_eq!((record.history.len(), digests(&record)[HISTORY_MAX - 1]), (HISTORY_MAX, "d31"));
        assert_eq!(record.beginning("d3").count(), 2);
    }

    #[test]
    fn records_of_earlier_hosts_are_read() {
        #[derive(Serialize, Deserialize)]
        struct Early {
            pinned: Option<String>,
        }
        impl Stored for Early {
            const NAME: &'static str = "early record";
        }
        let bytes = pointsman_core::value::encode(&Early { pinned: Some("a".to_owned()) });
        let record: PluginRecord = pointsman_core::value::decode(&bytes).expect("it is read");
        assert_eq!(record, PluginRecord { pinned: Some("a".to_owned()), ..PluginRecord::default() });
    }
}
