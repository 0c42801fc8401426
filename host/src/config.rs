//! Settings: shipped defaults, then the file, then `POINTSMAN_…` variables, then flags; checked as a whole, typed.
//!
//! Owns: the only reading of the process's environment, the shape of the configuration, its error messages.
//! Must not know: what the settings do.
//!
//! **Invariants:** a [`Config`] is whole and within its ranges; a refusal lists everything that is wrong, each with its
//! place and what to write instead; nothing has started by then.

mod access;
mod check;
mod layers;
mod problem;
mod schema;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman_core::path_glob::PathGlob;
use serde::Deserialize;

pub use access::{AuthConfig, GrantConfig, LimitsConfig, TlsConfig};
pub use problem::ConfigError;
pub use schema::SHIPPED;

use crate::ports::plugins::{Grant, Instances, PluginLimits, PluginSource, World};
use crate::ports::repository::CheckSpec;
use crate::service::settings::{PatternBinding, ProviderBinding, ResidentBinding, Settings};
use layers::{File, Layers};
use problem::Place;

/// What the variables of settings start with.
pub const VARIABLE_PREFIX: &str = "POINTSMAN_";
/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "POINTSMAN_CONFIG";
/// The variable that clients keep their bearer token in.
pub const TOKEN_VARIABLE: &str = "POINTSMAN_TOKEN";
/// Variables that start like settings and are none.
const RESERVED_VARIABLES: [&str; 2] = [CONFIG_VARIABLE, TOKEN_VARIABLE];
/// Where a repository keeps its configuration.
pub const FILE_IN_REPOSITORY: &str = "config/pointsman.toml";
/// The shipped defaults, every key with its comment.
pub const SHIPPED_FILE: &str = include_str!("../../config/pointsman.toml");

/// The process's environment, read once.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    folder: PathBuf,
}

impl Environment {
    /// Returns the environment of this process.
    ///
    /// # Errors
    /// When the working folder is gone.
    pub fn of_process() -> std::io::Result<Self> {
        Ok(Self { variables: std::env::vars_os().collect(), folder: std::env::current_dir()? })
    }

    /// Returns an environment made of these variables, in a working folder.
    #[must_use]
    pub fn of(variables: &[(&str, &str)], folder: &Path) -> Self {
        Self { variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(), folder: folder.to_owned() }
    }

    /// Returns the value of a variable that is set, not empty, and UTF-8.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// Returns the working folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the names of the variables that start like settings.
    pub fn setting_names(&self) -> impl Iterator<Item = &OsStr> {
        self.settings().map(|(name, _)| name.as_os_str())
    }

    fn settings(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.variables.iter().filter(|(name, _)| name.as_encoded_bytes().starts_with(VARIABLE_PREFIX.as_bytes()))
    }

    /// Returns the folder for what can be made again, if there is a home for it.
    #[must_use]
    pub fn cache_dir(&self) -> Option<PathBuf> {
        self.xdg("XDG_CACHE_HOME", ".cache").map(|folder| folder.join("pointsman"))
    }

    /// Returns a folder of the XDG base directory specification: an absolute `variable`, or a folder of the home folder.
    fn xdg(&self, variable: &str, in_home: &str) -> Option<PathBuf> {
        let given = self.get(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        given.or_else(|| self.get("HOME").map(|home| Path::new(home).join(in_home)))
    }
}

/// What the command line says, as far as it concerns settings.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`: the file.
    pub config: Option<PathBuf>,
    /// `--data`: `data.dir`.
    pub data_dir: Option<PathBuf>,
    /// `--bind`: `server.bind`.
    pub bind: Option<String>,
    /// `--log`: `log.level`.
    pub log_level: Option<String>,
    /// `--log-format`: `log.format`.
    pub log_format: Option<String>,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where to listen.
    pub bind: SocketAddr,
    /// Where clients reach the host, when that is not `bind`; without `/` at the end.
    pub public_url: Option<String>,
    /// Bytes of one request's body.
    pub body_bytes_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// Milliseconds a client has to send its headers.
    pub header_timeout_ms: u64,
    /// Milliseconds that running calls have to end when the host is told to stop.
    pub drain_ms: u64,
    /// Web origins allowed besides the host's own.
    pub allowed_origins: Vec<String>,
    /// Connections of one address at once.
    pub connections_per_peer_max: usize,
    /// Milliseconds a client has to send a body.
    pub body_timeout_ms: u64,
    /// Milliseconds that an answer may wait for the client to read on.
    pub write_timeout_ms: u64,
    /// Whether callers without a credential are let in; then no other machine can reach the listener.
    pub anonymous: bool,
    /// The certificate; none: plain HTTP.
    pub tls: Option<TlsConfig>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogConfig {
    /// `info`, or with overrides: `info,pointsman=debug`.
    pub level: String,
    /// The form of the lines.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[[project]]`: a project that the host makes when it is not there yet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ProjectConfig {
    /// Its short name in URLs.
    pub slug: String,
    /// The repository it starts from, which is only read; none: an empty one.
    pub source: Option<PathBuf>,
    /// The branch that work lands on.
    #[serde(default = "default_target")]
    pub target: String,
}

fn default_target() -> String {
    "main".to_owned()
}

/// `[agents]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentsConfig {
    /// Milliseconds a claim lives without a sign of life.
    pub claim_lease_ms: u64,
    /// Milliseconds an agent has to ack what it was handed.
    pub delivery_lease_ms: u64,
    /// Times a delivery is tried.
    pub delivery_attempts_max: u32,
}

/// `[decisions]`: the record of what plugins decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct DecisionsConfig {
    /// Decisions kept of each plugin; 0: none is recorded.
    pub kept_max: usize,
}

/// `[git]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct GitConfig {
    /// Threads for git work.
    pub workers: usize,
    /// Milliseconds of one git command.
    pub command_timeout_ms: u64,
    /// Milliseconds of one merge.
    pub merge_timeout_ms: u64,
    /// Milliseconds of one fetch, clone or push.
    pub transfer_timeout_ms: u64,
}

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComponentOrigin {
    /// Shipped inside the binary, under the plugin's name.
    Embedded,
    /// A file.
    File(PathBuf),
}

/// A plugin that some section asks for.
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
    /// Whether one of its uses grants it to look the project up.
    pub lookups: Grant,
}

impl PluginSpec {
    /// Returns what the plugin port loads, once the component's bytes are at hand.
    #[must_use]
    pub fn with_component(self, component: Arc<[u8]>) -> PluginSource {
        PluginSource {
            name: self.name,
            world: self.world,
            component,
            config_json: self.config_json,
            limits: self.limits,
            instances: self.instances,
            lookups: self.lookups,
        }
    }
}

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file they came from; none: only defaults, environment and flags.
    pub file: Option<PathBuf>,
    /// The listener.
    pub server: ServerConfig,
    /// How often anyone may call.
    pub limits: LimitsConfig,
    /// The authorization server; none: only tokens of the host.
    pub auth: Option<AuthConfig>,
    /// The data folder, absolute.
    pub data_dir: PathBuf,
    /// The log.
    pub log: LogConfig,
    /// Projects the host makes when they are not there yet.
    pub projects: Vec<ProjectConfig>,
    /// Leases and tries.
    pub agents: AgentsConfig,
    /// `[decisions]`.
    pub decisions: DecisionsConfig,
    /// Routers, in the order they are asked.
    pub routers: Vec<String>,
    /// Mergers, in the order they are tried.
    pub mergers: Vec<PatternBinding>,
    /// Reconcilers, in the order they are tried.
    pub reconcilers: Vec<PatternBinding>,
    /// Names, messages, order.
    pub workflow: String,
    /// Guards gates.
    pub policy: String,
    /// Agents that live in the host.
    pub residents: Vec<ResidentBinding>,
    /// Offers to MCP clients.
    pub providers: Vec<ProviderBinding>,
    /// Run on each merged tree.
    pub checks: Vec<CheckSpec>,
    /// Every plugin named above, once.
    pub plugins: Vec<PluginSpec>,
    /// Git's workers and limits.
    pub git: GitConfig,
}

impl Config {
    /// Returns the settings of all layers. The file is `--config`, else `POINTSMAN_CONFIG`, else `config/pointsman.toml`
    /// of the working folder, else `pointsman/pointsman.toml` of the XDG configuration folder, else none.
    ///
    /// # Errors
    /// [`ConfigError`]: everything that is wrong.
    pub fn load(environment: &Environment, flags: &Flags) -> Result<Self, ConfigError> {
        let file = match find_file(environment, flags) {
            Some(path) => {
                let full = environment.folder.join(&path);
                Some(File::read(&path, &full).map_err(|problem| ConfigError { problems: vec![problem] })?)
            }
            None => None,
        };
        Self::from_layers(file, environment, flags)
    }

    /// Returns the shipped settings with a data folder; reads neither file nor environment.
    ///
    /// # Errors
    /// Never for the file that is shipped; a test says so.
    pub fn shipped(data_dir: &Path) -> Result<Self, ConfigError> {
        Self::from_layers(None, &Environment::default(), &Flags { data_dir: Some(data_dir.to_owned()), ..Flags::default() })
    }

    fn from_layers(file: Option<File>, environment: &Environment, flags: &Flags) -> Result<Self, ConfigError> {
        let defaults = File::parse(Path::new(FILE_IN_REPOSITORY), SHIPPED_FILE.to_owned())
            .map_err(|problem| ConfigError { problems: vec![problem] })?
            .values();
        let (layers, mut problems) = Layers::merge(defaults, file, environment, flags);
        let mut values = layers.values();
        problems.extend(check::check(&layers, environment, &mut values));
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let raw: Raw = values.deserialize().map_err(|error| ConfigError::one(Place::Nowhere, error.to_string(), None))?;
        let data_dir =
            raw.data.dir.clone().or_else(|| environment.xdg("XDG_DATA_HOME", ".local/share").map(|folder| folder.join("pointsman")));
        let Some(data_dir) = data_dir else {
            let help = "pass `--data DIR`, or set `POINTSMAN_DATA_DIR`, `XDG_DATA_HOME` or `HOME`";
            return Err(ConfigError::one(Place::Nowhere, "there is no data folder", Some(help.to_owned())));
        };
        Ok(raw.into_config(layers.file.map(|file| file.path), data_dir, &check::uses(&values)))
    }

    /// Returns where clients reach the host that listens at `bound`: the configured URL, or that address, with the
    /// loopback address for one that means every interface.
    #[must_use]
    pub fn public_url(&self, bound: SocketAddr) -> String {
        let mut reached = bound;
        if bound.ip().is_unspecified() {
            reached.set_ip(if bound.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        let scheme = if self.server.tls.is_some() { "https" } else { "http" };
        self.server.public_url.clone().unwrap_or_else(|| format!("{scheme}://{reached}"))
    }

    /// Returns the names by which clients may call the host, besides those of this machine: that of the public URL.
    #[must_use]
    pub fn public_names(&self) -> Vec<String> {
        self.server.public_url.iter().map(|url| access::host_of(url).to_owned()).collect()
    }

    /// Returns the web origins that may call: those that are allowed, and that of the public URL.
    #[must_use]
    pub fn origins(&self) -> Vec<String> {
        let own = self.server.public_url.iter().map(|url| access::origin_of(url).to_owned());
        self.server.allowed_origins.iter().cloned().chain(own).collect()
    }

    /// Returns what the use cases need to know, for a host that clients reach at `public_url`.
    #[must_use]
    pub fn settings(&self, public_url: String) -> Settings {
        Settings {
            routers: self.routers.clone(),
            mergers: self.mergers.clone(),
            reconcilers: self.reconcilers.clone(),
            workflow: self.workflow.clone(),
            policy: self.policy.clone(),
            residents: self.residents.clone(),
            providers: self.providers.clone(),
            checks: self.checks.clone(),
            claim_lease_ms: self.agents.claim_lease_ms,
            delivery_lease_ms: self.agents.delivery_lease_ms,
            delivery_attempts_max: self.agents.delivery_attempts_max,
            public_url,
        }
    }
}

fn find_file(environment: &Environment, flags: &Flags) -> Option<PathBuf> {
    let named = flags.config.clone().or_else(|| environment.get(CONFIG_VARIABLE).map(PathBuf::from));
    named.or_else(|| {
        let in_repository = PathBuf::from(FILE_IN_REPOSITORY);
        let of_user = environment.xdg("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("pointsman/pointsman.toml"));
        std::iter::once(in_repository).chain(of_user).find(|path| environment.folder.join(path).is_file())
    })
}

/// Returns the text of a new configuration: the shipped one with every setting commented out, so that later defaults
/// take effect, and the project in it.
#[must_use]
pub fn file_for_project(slug: &str, source: &str, target: &str) -> String {
    let quoted = |text: &str| toml_edit::Value::from(text).to_string();
    let mut text = String::new();
    for line in SHIPPED_FILE.lines() {
        let is_section = line.starts_with('[') && !line.starts_with("[[");
        if line.is_empty() || line.starts_with('#') || line.starts_with("config_version") || is_section {
            text.push_str(line);
        } else {
            text.push_str("# ");
            text.push_str(line);
        }
        text.push('\n');
        if line.starts_with("config_version") {
            let (slug, source, target) = (quoted(slug), quoted(source), quoted(target));
            text.push_str(&format!("\n[[project]]\nslug = {slug}\nsource = {source}\ntarget = {target}\n"));
        }
    }
    text
}

#[derive(Deserialize)]
struct Raw {
    server: RawServer,
    limits: access::RawLimits,
    auth: access::RawAuth,
    #[serde(default)]
    data: RawData,
    log: LogConfig,
    #[serde(default)]
    project: Vec<ProjectConfig>,
    agents: RawAgents,
    decisions: DecisionsConfig,
    routing: RawRouting,
    merging: RawMerging,
    context: RawContext,
    workflow: RawNamed,
    policy: RawNamed,
    #[serde(default)]
    check: Vec<RawCheck>,
    #[serde(default)]
    agent: Vec<RawResident>,
    #[serde(default)]
    provider: Vec<RawProvider>,
    #[serde(default)]
    plugins: BTreeMap<String, RawPlugin>,
    git: GitConfig,
}

#[derive(Deserialize)]
struct RawServer {
    bind: SocketAddr,
    public_url: Option<String>,
    body_bytes_max: usize,
    connections_max: usize,
    header_timeout_ms: u64,
    drain_ms: u64,
    allowed_origins: Vec<String>,
    connections_per_peer_max: usize,
    body_timeout_ms: u64,
    write_timeout_ms: u64,
    anonymous: bool,
    tls: Option<TlsConfig>,
}

#[derive(Deserialize, Default)]
struct RawData {
    dir: Option<PathBuf>,
}

#[derive(Deserialize)]
struct RawAgents {
    claim_lease_s: u64,
    delivery_lease_s: u64,
    delivery_attempts_max: u32,
}

#[derive(Deserialize)]
struct RawRouting {
    plugins: Vec<String>,
}

#[derive(Deserialize)]
struct RawMerging {
    #[serde(default)]
    strategy: Vec<RawStrategy>,
}

#[derive(Deserialize)]
struct RawStrategy {
    #[serde(default)]
    paths: Vec<PathGlob>,
    plugin: String,
}

#[derive(Deserialize)]
struct RawContext {
    #[serde(default)]
    reconciler: Vec<RawReconciler>,
}

#[derive(Deserialize)]
struct RawReconciler {
    #[serde(default)]
    keys: Vec<PathGlob>,
    plugin: String,
}

#[derive(Deserialize)]
struct RawNamed {
    plugin: String,
}

#[derive(Deserialize)]
struct RawResident {
    plugin: String,
    #[serde(default)]
    projects: Vec<String>,
    #[serde(default)]
    fetch_hosts: Vec<String>,
    #[serde(default)]
    lookups: bool,
}

#[derive(Deserialize)]
struct RawProvider {
    plugin: String,
    #[serde(default)]
    projects: Vec<String>,
    #[serde(default)]
    allow_empty_namespace: bool,
    #[serde(default)]
    lookups: bool,
}

#[derive(Deserialize)]
struct RawCheck {
    name: String,
    command: String,
    #[serde(default = "default_check_limit_s")]
    limit_s: u64,
}

/// Seconds a check may take when its table does not say.
const CHECK_LIMIT_S: u64 = 600;

fn default_check_limit_s() -> u64 {
    CHECK_LIMIT_S
}

#[derive(Deserialize, Default)]
struct RawPlugin {
    source: Option<String>,
    world: Option<World>,
    instances: Option<Instances>,
    #[serde(default)]
    limits: PluginLimits,
    #[serde(default)]
    config: BTreeMap<String, serde_json::Value>,
}

impl Raw {
    fn into_config(self, file: Option<PathBuf>, data_dir: PathBuf, uses: &[check::Use]) -> Config {
        let mut plugins: Vec<PluginSpec> = Vec::new();
        let mut own = self.plugins;
        for used in uses {
            if plugins.iter().all(|plugin| plugin.name != used.plugin) {
                let grants = self.agent.iter().map(|agent| (&agent.plugin, agent.lookups));
                let mut grants = grants.chain(self.provider.iter().map(|provider| (&provider.plugin, provider.lookups)));
                let lookups = grant(grants.any(|(plugin, is_given)| is_given && *plugin == used.plugin));
                plugins.push(own.remove(&used.plugin).unwrap_or_default().into_spec(used, lookups));
            }
        }
        Config {
            file,
            server: ServerConfig {
                bind: self.server.bind,
                public_url: self.server.public_url.map(|url| url.trim_end_matches('/').to_owned()),
                body_bytes_max: self.server.body_bytes_max,
                connections_max: self.server.connections_max,
                header_timeout_ms: self.server.header_timeout_ms,
                drain_ms: self.server.drain_ms,
                allowed_origins: self.server.allowed_origins,
                connections_per_peer_max: self.server.connections_per_peer_max,
                body_timeout_ms: self.server.body_timeout_ms,
                write_timeout_ms: self.server.write_timeout_ms,
                anonymous: self.server.anonymous,
                tls: self.server.tls,
            },
            limits: self.limits.into(),
            auth: self.auth.into_config(),
            data_dir,
            log: self.log,
            projects: self.project,
            decisions: self.decisions,
            agents: AgentsConfig {
                claim_lease_ms: self.agents.claim_lease_s * 1_000,
                delivery_lease_ms: self.agents.delivery_lease_s * 1_000,
                delivery_attempts_max: self.agents.delivery_attempts_max,
            },
            routers: self.routing.plugins,
            mergers: self.merging.strategy.into_iter().map(|s| PatternBinding { patterns: s.paths, plugin: s.plugin }).collect(),
            reconcilers: self.context.reconciler.into_iter().map(|r| PatternBinding { patterns: r.keys, plugin: r.plugin }).collect(),
            workflow: self.workflow.plugin,
            policy: self.policy.plugin,
            residents: self.agent.into_iter().map(RawResident::into_binding).collect(),
            providers: self.provider.into_iter().map(RawProvider::into_binding).collect(),
            checks: self
                .check
                .into_iter()
                .map(|check| CheckSpec { name: check.name, command: check.command, limit_ms: check.limit_s * 1_000 })
                .collect(),
            plugins,
            git: self.git,
        }
    }
}

impl RawResident {
    fn into_binding(self) -> ResidentBinding {
        let Self { plugin, projects, fetch_hosts, lookups } = self;
        ResidentBinding { plugin, projects, fetch_hosts, lookups: grant(lookups) }
    }
}

impl RawProvider {
    fn into_binding(self) -> ProviderBinding {
        let Self { plugin, projects, allow_empty_namespace, lookups } = self;
        ProviderBinding { plugin, projects, allow_empty_namespace, lookups: grant(lookups) }
    }
}

fn grant(is_given: bool) -> Grant {
    if is_given { Grant::Given } else { Grant::Withheld }
}

impl RawPlugin {
    fn into_spec(self, used: &check::Use, lookups: Grant) -> PluginSpec {
        PluginSpec {
            name: used.plugin.clone(),
            world: self.world.unwrap_or(used.world),
            origin: match self.source {
                None => ComponentOrigin::Embedded,
                Some(source) if source == "embedded" => ComponentOrigin::Embedded,
                Some(path) => ComponentOrigin::File(path.into()),
            },
            config_json: serde_json::Value::Object(self.config.into_iter().collect()).to_string(),
            limits: self.limits,
            instances: self.instances.unwrap_or(Instances::Warm),
            lookups,
        }
    }
}

#[cfg(test)]
mod tests;
