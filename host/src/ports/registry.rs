//! Plugins as an operator has them: which component stands under a name, from where, in which mode, under which rules.
//!
//! Two ports: [`Components`] reads, keeps and looks into a component's bytes; [`Download`] fetches them. What is loaded in which
//! order and what is done when it fails is the registry's (`service::registry`).
//!
//! **Invariant:** bytes that were kept under a digest have that digest when they are read again, or are not there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use pointsman_core::time::TimeMs;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::plugins::{Instances, PluginLimits, World};
use super::wire_time;

/// Hex digits of a digest.
pub const DIGEST_CHARS: usize = 64;
/// Thousandths in a whole.
pub const PERMILLE: u16 = 1_000;
/// Names of what an operator can grant to a component.
pub const CAPABILITIES: [&str; 4] = ["lookups", "kv", "log", "http"];
/// Calls that a shadow must have heard before it is promoted, where nothing else is said.
pub const PROMOTE_HEARD_MIN: u64 = 100;
/// The key of `plugins.NAME` that an operator grants capabilities by.
pub const CAPABILITIES_KEY: &str = "capabilities";

/// Whether a binding is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It decides.
    #[default]
    Live,
    /// It is asked beside another, and decides nothing.
    Shadow,
    /// It is not asked: its extension point acts as if it were not listed.
    Off,
}

impl Mode {
    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

/// What happens where a binding fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The next binding is asked, in the end the host's own default.
    FallBack,
    /// The operation is refused.
    Refuse,
    /// The operation waits and is tried again.
    Defer,
}

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum ComponentOrigin {
    /// Shipped inside the binary, under the plugin's name.
    Embedded,
    /// A file.
    File(PathBuf),
    /// An `http` or `https` URL; its digest must be given.
    Url(String),
}

impl From<String> for ComponentOrigin {
    fn from(text: String) -> Self {
        if text == "embedded" {
            Self::Embedded
        } else if is_url(&text) {
            Self::Url(text)
        } else {
            Self::File(text.into())
        }
    }
}

impl From<ComponentOrigin> for String {
    fn from(origin: ComponentOrigin) -> Self {
        origin.to_string()
    }
}

impl fmt::Display for ComponentOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// Returns whether a source is fetched rather than read.
#[must_use]
pub fn is_url(source: &str) -> bool {
    source.starts_with("https://") || source.starts_with("http://")
}

/// Returns whether a text is a digest: BLAKE3 in 64 small hex digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.len() == DIGEST_CHARS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A plugin as it is wanted: by the configuration, or by the API where the configuration does not name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginSpec {
    /// The binding's name.
    pub name: String,
    /// Which extension point: as its table says, else where it is used. A component that offers MCP may turn out an agent.
    pub world: World,
    /// Where its component comes from.
    pub origin: ComponentOrigin,
    /// Its configuration, a JSON object as text.
    pub config_json: String,
    /// What it may cost.
    pub limits: PluginLimits,
    /// Whether instances are kept.
    pub instances: Instances,
    /// Whether it is asked.
    pub mode: Mode,
    /// Beside which binding it is asked in [`Mode::Shadow`].
    pub shadow_of: Option<String>,
    /// Of how many calls in a thousand it is asked in [`Mode::Shadow`].
    pub share_permille: u16,
    /// What happens where it fails; none: what its extension point does by default.
    pub on_failure: Option<OnFailure>,
    /// The only component that may be loaded.
    pub digest: Option<String>,
    /// The component's signature, instead of the one in a file beside it.
    pub signature: Option<String>,
    /// What it may reach, by the names of [`CAPABILITIES`].
    pub capabilities: Vec<String>,
    /// The keys that the operator wrote in a place which the API does not change, and where that is.
    pub written: BTreeMap<String, String>,
}

impl PluginSpec {
    /// Returns a plugin with the defaults of everything but name, world and origin.
    #[must_use]
    pub fn new(name: impl Into<String>, world: World, origin: ComponentOrigin) -> Self {
        Self {
            name: name.into(),
            world,
            origin,
            config_json: "{}".to_owned(),
            limits: PluginLimits::default(),
            instances: Instances::Warm,
            mode: Mode::Live,
            shadow_of: None,
            share_permille: PERMILLE,
            on_failure: None,
            digest: None,
            signature: None,
            capabilities: Vec::new(),
            written: BTreeMap::new(),
        }
    }
}

/// Whose signatures count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Whether a component without a good signature is refused. What is shipped in the binary needs none.
    pub required: bool,
    /// `ed25519:BASE64`.
    pub keys: Vec<String>,
}

/// A component's bytes with what came along.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The bytes.
    pub component: Arc<[u8]>,
    /// What stands in the file beside it, if there is one.
    pub signature: Option<String>,
}

/// What a component says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The world it was made for.
    pub world: Option<World>,
    /// Its version.
    pub version: Option<String>,
    /// What it asks for.
    pub capabilities: Vec<String>,
    /// The configuration of a binding that gives none, a JSON object as text.
    pub config_json: Option<String>,
    /// What it needs at most.
    pub needs: PluginLimits,
}

/// Why a component is not at hand.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ComponentError {
    /// It is not there.
    #[error("{0}")]
    Missing(String),
    /// It is there and cannot be had now.
    #[error("{0}")]
    Unreadable(String),
}

/// Components' bytes: where they come from, where they are kept, what they say.
#[async_trait]
pub trait Components: Send + Sync {
    /// Reads a component from its origin. A URL is fetched within its limits.
    ///
    /// # Errors
    /// [`ComponentError`].
    async fn read(&self, name: &str, origin: &ComponentOrigin) -> Result<Fetched, ComponentError>;

    /// Keeps a component under its digest, durably.
    ///
    /// # Errors
    /// `Unreadable`: the folder cannot be written.
    async fn keep(&self, component: Arc<[u8]>) -> Result<(), ComponentError>;

    /// Returns the component that was kept under a digest; one whose bytes have another digest now counts as missing.
    async fn kept(&self, digest: &str) -> Option<Arc<[u8]>>;

    /// Returns what a component says of itself.
    ///
    /// # Errors
    /// What is wrong with it.
    fn facts(&self, component: &[u8]) -> Result<Facts, String>;

    /// Returns the golden calls that a component carries, as they stand in it; none when it carries none.
    ///
    /// # Errors
    /// What is wrong with it.
    fn cases(&self, component: &[u8]) -> Result<Option<String>, String>;

    /// Checks a configuration against the schema that the component carries; one without a schema takes everything.
    ///
    /// # Errors
    /// What is wrong, with the place as a JSON pointer.
    fn validate_config(&self, component: &[u8], config_json: &str) -> Result<(), String>;

    /// Returns whether a signature of the component with this digest was made by one of these keys.
    fn is_signed(&self, digest: &str, signature: &str, keys: &[String]) -> bool;

    /// Returns the digests that a lock file allows, by plugin; none where there is no such file.
    ///
    /// # Errors
    /// The file cannot be read.
    fn locked(&self, lock_file: &std::path::Path) -> Result<Option<BTreeMap<String, String>>, String>;
}

/// Fetches a component.
#[async_trait]
pub trait Download: Send + Sync {
    /// Returns the body at an `http` or `https` URL. Redirections are not followed.
    ///
    /// # Errors
    /// Why there is none, in words for the operator.
    async fn download(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, String>;
}

/// How a plugin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginState {
    /// Loaded as it is wanted.
    Loaded,
    /// An earlier component is loaded, because the wanted one cannot be.
    LastGood,
    /// Loaded, and not asked until an operator enables it again.
    Quarantined,
    /// Not asked, by its mode.
    Off,
    /// It cannot be loaded.
    Failed,
    /// No host runs that would load it.
    NotLoaded,
}

impl PluginState {
    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::LastGood => "last-good",
            Self::Quarantined => "quarantined",
            Self::Off => "off",
            Self::Failed => "failed",
            Self::NotLoaded => "not-loaded",
        }
    }
}

/// A component that was loaded under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginVersion {
    /// BLAKE3 of the component, hex.
    pub digest: String,
    /// The version it names.
    pub version: Option<String>,
    /// Where it came from.
    pub source: String,
    /// When it was loaded first, or again after another.
    #[serde(with = "wire_time")]
    pub at: TimeMs,
}

/// Why a component is not loaded, or not asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginTrouble {
    /// In words for the operator.
    pub why: String,
    /// Which component; none where there was none to look at.
    pub digest: Option<String>,
    /// When.
    #[serde(with = "wire_time")]
    pub at: TimeMs,
}

/// Who named a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedBy {
    /// The configuration, the shipped defaults included.
    Configuration,
    /// The API.
    Api,
}

/// A plugin as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginListed {
    /// The binding's name.
    pub name: String,
    /// What it decides.
    pub world: World,
    /// Where its component comes from.
    pub source: String,
    /// Who named it.
    pub named_by: NamedBy,
    /// Whether it is asked.
    pub mode: Mode,
    /// Beside which binding it is asked in shadow.
    pub shadow_of: Option<String>,
    /// Of how many calls in a thousand it is asked in shadow.
    pub share_permille: u16,
    /// What happens where it fails.
    pub on_failure: Option<OnFailure>,
    /// Whether instances are kept.
    pub instances: Instances,
    /// How it stands.
    pub state: PluginState,
    /// BLAKE3 of the component that is loaded, hex.
    pub digest: Option<String>,
    /// The version that component names.
    pub version: Option<String>,
    /// The digest it is held at, whatever its source has.
    pub pinned: Option<String>,
    /// What the component asks for.
    pub asked: Vec<String>,
    /// What it is granted.
    pub granted: Vec<String>,
    /// Calls since the start.
    pub calls: u64,
    /// Calls that trapped, met a limit or answered something invalid.
    pub failures: u64,
    /// Why the wanted component is not the loaded one.
    pub last_error: Option<PluginTrouble>,
    /// Why it is not asked until an operator enables it.
    pub quarantine: Option<PluginTrouble>,
    /// What was loaded under this name, the oldest first.
    pub history: Vec<PluginVersion>,
}

/// Where a plugin that the API adds is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Places {
    /// Slugs of projects; empty: all.
    pub projects: Vec<String>,
    /// Kinds of messages (routers) or tasks; empty: all.
    pub kinds: Vec<String>,
    /// Paths (mergers) or document keys (reconcilers); empty: all.
    pub patterns: Vec<String>,
}

/// A plugin to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginAdd {
    /// Its name.
    pub name: String,
    /// `embedded`, an absolute path, or a URL.
    pub source: String,
    /// The world it is used for; none: the one it names itself.
    #[serde(default)]
    pub world: Option<World>,
    /// Its configuration, a JSON object.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// The digest it must have; a URL needs one.
    #[serde(default)]
    pub digest: Option<String>,
    /// The component's signature, where no file beside it has one.
    #[serde(default)]
    pub signature: Option<String>,
    /// What it may reach.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Whether it begins switched off.
    #[serde(default)]
    pub mode: Mode,
    /// Beside which binding it is asked in shadow.
    #[serde(default)]
    pub shadow_of: Option<String>,
    /// Of how many calls in a thousand it is asked in shadow; none: all.
    #[serde(default)]
    pub share_permille: Option<u16>,
    /// Where it is asked.
    #[serde(default)]
    pub places: Places,
}

/// A change of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginChange {
    /// It decides again; lifts a quarantine.
    Enable,
    /// It is not asked.
    Disable,
    /// It is held at a digest; none: the one that is loaded.
    Pin {
        /// Which, or the beginning of it.
        digest: Option<String>,
    },
    /// It follows its source again.
    Unpin,
    /// It is held at the digest that was loaded before this one.
    Rollback,
    /// Other capabilities.
    Grants {
        /// To be granted.
        grant: Vec<String>,
        /// To be taken away.
        revoke: Vec<String>,
    },
    /// Whom it shadows is held at its component, if it heard enough calls and differed in few enough.
    Promote {
        /// Calls it must have heard since it was loaded.
        heard_min: u64,
        /// Answers of these that may be others. A failure of its own is never one of them.
        different_max: u64,
    },
    /// Its source is read again.
    Reload,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_go_both_ways() {
        for (text, origin) in [
            ("embedded", ComponentOrigin::Embedded),
            ("/a/b.wasm", ComponentOrigin::File("/a/b.wasm".into())),
            ("https://h/x.wasm", ComponentOrigin::Url("https://h/x.wasm".to_owned())),
        ] {
            assert_eq!(ComponentOrigin::from(text.to_owned()), origin);
            assert_eq!(origin.to_string(), text);
        }
        assert!(is_digest(&"a1".repeat(32)) && !is_digest(&"A1".repeat(32)) && !is_digest("a1"));
    }
}
