//! Settings: shipped defaults, then the file, then `POINTSMAN_…` variables, then flags; checked as a whole, typed.
//!
//! Owns: the only reading of the process's environment, the shape of the configuration, its error messages.
//! Must not know: what the settings do.
//!
//! **Invariants:** a [`Config`] is whole and within its ranges; a refusal lists everything that is wrong, each with its
//! place and what to write instead; nothing has started by then.

mod access;
mod check;
mod context;
mod layers;
mod problem;
mod schema;
mod server;
mod store;
mod traces;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use pointsman_core::path_glob::PathGlob;
use serde::Deserialize;

pub use access::{AuthConfig, GrantConfig, LimitsConfig, TlsConfig};
pub use problem::ConfigError;
pub use schema::SHIPPED;
pub use server::ServerConfig;
pub use store::StoreConfig;
pub use traces::TracesConfig;

use crate::plugin_build::digest_lock;
use crate::ports::plugins::{Gate, Grant, Instances, PluginLimits, World};
pub use crate::ports::registry::{ComponentOrigin, PluginSpec};
use crate::ports::registry::{Mode, OnFailure, PERMILLE, Trust};
use crate::ports::repository::CheckSpec;
use crate::service::registry::Wanted;
use crate::service::settings::{Binding, Bindings, ContextSettings, ProviderBinding, ResidentBinding, Settings};
use layers::{File, Layers};
use problem::Place;

/// What the variables of settings start with.
pub const VARIABLE_PREFIX: &str = "POINTSMAN_";
/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "POINTSMAN_CONFIG";
/// The variable that clients keep their bearer token in.
pub const TOKEN_VARIABLE: &str = "POINTSMAN_TOKEN";
/// The variables that a command run by `pointsman watch` is told by: agent, unread messages, events, a sentence.
pub const WATCH_VARIABLES: [&str; 4] =
    ["POINTSMAN_WATCH_AGENT", "POINTSMAN_WATCH_UNREAD", "POINTSMAN_WATCH_EVENTS", "POINTSMAN_WATCH_SAYS"];
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

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// `[messages]`: how long what is settled is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagesConfig {
    /// Milliseconds a message is kept after the last of its deliveries ended.
    pub kept_ms: u64,
    /// Milliseconds a dead letter is kept.
    pub dead_letters_kept_ms: u64,
}

/// `[decisions]`: the record of what plugins decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct DecisionsConfig {
    /// Decisions kept of each plugin; 0: none is recorded.
    pub kept_max: usize,
}

/// `[git]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GitConfig {
    repositories: Option<PathBuf>,
    /// Threads for git work.
    pub workers: usize,
    /// Milliseconds of one git command.
    pub command_timeout_ms: u64,
    /// Milliseconds of one merge.
    pub merge_timeout_ms: u64,
    /// Milliseconds of one fetch, clone or push.
    pub transfer_timeout_ms: u64,
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
    /// The folder of the keys.
    pub keys_dir: PathBuf,
    /// The folder of the repositories.
    pub repositories_dir: PathBuf,
    /// The store; none: the embedded one, in the data folder.
    pub store: Option<StoreConfig>,
    /// The log.
    pub log: LogConfig,
    /// Where traces are sent; none: nowhere.
    pub traces: Option<TracesConfig>,
    /// Projects the host makes when they are not there yet.
    pub projects: Vec<ProjectConfig>,
    /// Leases and tries.
    pub agents: AgentsConfig,
    /// How long messages are kept.
    pub messages: MessagesConfig,
    /// `[decisions]`.
    pub decisions: DecisionsConfig,
    /// `[context]`, without its reconcilers.
    pub context: ContextSettings,
    /// Which components are asked where, each list in its order.
    pub bindings: Bindings,
    /// Run on each merged tree.
    pub checks: Vec<CheckSpec>,
    /// Every plugin named above, once.
    pub plugins: Vec<PluginSpec>,
    /// Whose signatures of components count.
    pub trust: Trust,
    /// Where the lock of their digests stands, beside the file; it counts when it is there.
    pub lock_file: Option<PathBuf>,
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
        let origin = Origin::of(&layers, environment, &values);
        Ok(raw.into_config(origin, data_dir))
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

    /// Returns where other hosts on the same store reach the one that listens at `bound`, on a machine of this name.
    #[must_use]
    pub fn sibling_url(&self, bound: SocketAddr, machine: &str) -> String {
        let scheme = if self.server.tls.is_some() { "https" } else { "http" };
        let own = || match bound.ip().is_unspecified() {
            true => format!("{scheme}://{machine}:{}", bound.port()),
            false => format!("{scheme}://{bound}"),
        };
        self.server.sibling_url.clone().unwrap_or_else(own)
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
            bindings: self.bindings.clone().into(),
            checks: self.checks.clone(),
            claim_lease_ms: self.agents.claim_lease_ms,
            delivery_lease_ms: self.agents.delivery_lease_ms,
            delivery_attempts_max: self.agents.delivery_attempts_max,
            messages_kept_ms: self.messages.kept_ms,
            dead_letters_kept_ms: self.messages.dead_letters_kept_ms,
            context: self.context.clone(),
            public_url,
        }
    }
}

impl Config {
    /// Returns what is wanted of the plugins.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted {
            plugins: self.plugins.clone(),
            bindings: self.bindings.clone(),
            trust: self.trust.clone(),
            lock_file: self.lock_file.clone(),
        }
    }

    /// Returns the settings without what [`Config::wanted`] returns: those that a running host does not take in.
    #[must_use]
    pub fn without_wanted(&self) -> Self {
        Self { plugins: Vec::new(), bindings: Bindings::default(), trust: Trust::default(), ..self.clone() }
    }
}

/// Where the plugins' settings were written.
struct Origin {
    file: Option<PathBuf>,
    lock_file: Option<PathBuf>,
    uses: Vec<check::Use>,
    /// By plugin: where it is named (under the empty key) and where its table's keys are.
    written: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether these sections come from the host's defaults.
    defaults: Defaults,
}

struct Defaults {
    routers: bool,
    mergers: bool,
    reconcilers: bool,
    workflow: bool,
    policy: bool,
}

impl Origin {
    fn of(layers: &Layers, environment: &Environment, values: &figment::value::Value) -> Self {
        let file = layers.file.as_ref().map(|file| file.path.clone());
        let folder = file.as_ref().and_then(|path| environment.folder.join(path).parent().map(Path::to_owned));
        let uses = check::uses(values);
        let mut written: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for used in &uses {
            let places = written.entry(used.plugin.clone()).or_insert_with(|| check::written_keys(layers, values, &used.plugin));
            if let Some(place) = used.place(layers) {
                places.entry(String::new()).or_insert(place);
            }
        }
        let is_default = |path: &str| !check::is_written(layers, values, path);
        Self {
            lock_file: folder.map(|folder| folder.join(digest_lock::FILE)),
            file,
            uses,
            written,
            defaults: Defaults {
                routers: is_default("routing.plugins"),
                mergers: is_default("merging.strategy"),
                reconcilers: is_default("context.reconciler"),
                workflow: is_default("workflow.plugin"),
                policy: is_default("policy.plugin"),
            },
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
    server: server::RawServer,
    limits: access::RawLimits,
    auth: access::RawAuth,
    #[serde(default)]
    data: RawData,
    store: store::RawStore,
    log: LogConfig,
    traces: traces::RawTraces,
    #[serde(default)]
    project: Vec<ProjectConfig>,
    agents: RawAgents,
    messages: RawMessages,
    decisions: DecisionsConfig,
    routing: RawRouting,
    merging: RawMerging,
    context: context::RawContext,
    workflow: RawWorkflow,
    policy: RawPolicy,
    #[serde(default)]
    check: Vec<RawCheck>,
    #[serde(default)]
    agent: Vec<RawResident>,
    #[serde(default)]
    provider: Vec<RawProvider>,
    #[serde(default)]
    plugins: BTreeMap<String, RawPlugin>,
    plugin_trust: RawTrust,
    git: GitConfig,
}

#[derive(Deserialize, Default)]
struct RawData {
    dir: Option<PathBuf>,
    keys: Option<PathBuf>,
}

#[derive(Deserialize)]
struct RawAgents {
    claim_lease_s: u64,
    delivery_lease_s: u64,
    delivery_attempts_max: u32,
}

#[derive(Deserialize)]
struct RawMessages {
    kept_days: u64,
    dead_letters_kept_days: u64,
}

#[derive(Deserialize)]
struct RawRouting {
    plugins: Vec<String>,
    #[serde(default)]
    binding: Vec<RawBinding>,
}

#[derive(Deserialize)]
struct RawBinding {
    plugin: String,
    #[serde(default)]
    projects: Vec<String>,
    #[serde(default)]
    kinds: Vec<String>,
    #[serde(default)]
    gates: Vec<Gate>,
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
    #[serde(default)]
    projects: Vec<String>,
}

#[derive(Deserialize)]
struct RawWorkflow {
    plugin: String,
    #[serde(default)]
    binding: Vec<RawBinding>,
}

#[derive(Deserialize)]
struct RawPolicy {
    plugin: String,
    #[serde(default)]
    binding: Vec<RawBinding>,
}

#[derive(Deserialize)]
struct RawTrust {
    required: bool,
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct RawResident {
    plugin: String,
    #[serde(default)]
    projects: Vec<String>,
    #[serde(default)]
    fetch_hosts: Vec<String>,
}

#[derive(Deserialize)]
struct RawProvider {
    plugin: String,
    #[serde(default)]
    projects: Vec<String>,
    #[serde(default)]
    allow_empty_namespace: bool,
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
    mode: Mode,
    shadow_of: Option<String>,
    share: Option<f64>,
    on_failure: Option<OnFailure>,
    digest: Option<String>,
    signature: Option<String>,
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    limits: PluginLimits,
    #[serde(default)]
    config: BTreeMap<String, serde_json::Value>,
}

impl Raw {
    fn into_config(self, mut origin: Origin, data_dir: PathBuf) -> Config {
        let mut plugins: Vec<PluginSpec> = Vec::new();
        let mut own = self.plugins;
        for used in &origin.uses {
            if plugins.iter().all(|plugin| plugin.name != used.plugin) {
                let written = origin.written.remove(&used.plugin).unwrap_or_default();
                plugins.push(own.remove(&used.plugin).unwrap_or_default().into_spec(used, written));
            }
        }
        let (reconcilers, context) = self.context.into_parts();
        let bindings = Bindings {
            residents: self.agent.into_iter().map(RawResident::into_binding).collect(),
            providers: self.provider.into_iter().map(RawProvider::into_binding).collect(),
            ..bindings(&origin.defaults, self.routing, self.merging, reconcilers, self.workflow, self.policy)
        };
        Config {
            file: origin.file,
            lock_file: origin.lock_file,
            bindings,
            trust: Trust { required: self.plugin_trust.required, keys: self.plugin_trust.keys },
            server: self.server.into_config(),
            limits: self.limits.into(),
            auth: self.auth.into_config(),
            keys_dir: self.data.keys.unwrap_or_else(|| data_dir.clone()),
            repositories_dir: self.git.repositories.clone().unwrap_or_else(|| data_dir.join("repositories")),
            data_dir,
            store: self.store.into_config(),
            log: self.log,
            traces: self.traces.into_config(),
            projects: self.project,
            messages: MessagesConfig {
                kept_ms: self.messages.kept_days * DAY_MS,
                dead_letters_kept_ms: self.messages.dead_letters_kept_days * DAY_MS,
            },
            decisions: self.decisions,
            context,
            agents: AgentsConfig {
                claim_lease_ms: self.agents.claim_lease_s * 1_000,
                delivery_lease_ms: self.agents.delivery_lease_s * 1_000,
                delivery_attempts_max: self.agents.delivery_attempts_max,
            },
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

/// Returns where components are asked: of each section first the list of tables, then the short form, which is for everything.
fn bindings(
    defaults: &Defaults,
    routing: RawRouting,
    merging: RawMerging,
    reconcilers: Vec<context::RawReconciler>,
    workflow: RawWorkflow,
    policy: RawPolicy,
) -> Bindings {
    let short = |plugin: String, is_default: bool| Binding { is_default, ..Binding::of(plugin) };
    let tables = |tables: Vec<RawBinding>| tables.into_iter().map(RawBinding::into_binding);
    let strategy = |strategy: RawStrategy| Binding {
        projects: strategy.projects,
        patterns: strategy.paths,
        is_default: defaults.mergers,
        ..Binding::of(strategy.plugin)
    };
    let reconciler = |reconciler: context::RawReconciler| Binding {
        projects: reconciler.projects,
        patterns: reconciler.keys,
        is_default: defaults.reconcilers,
        ..Binding::of(reconciler.plugin)
    };
    let routers = routing.plugins.into_iter().map(|plugin| short(plugin, defaults.routers));
    Bindings {
        routers: tables(routing.binding).chain(routers).collect(),
        mergers: merging.strategy.into_iter().map(strategy).collect(),
        reconcilers: reconcilers.into_iter().map(reconciler).collect(),
        workflows: tables(workflow.binding).chain([short(workflow.plugin, defaults.workflow)]).collect(),
        policies: tables(policy.binding).chain([short(policy.plugin, defaults.policy)]).collect(),
        ..Bindings::default()
    }
}

impl RawBinding {
    fn into_binding(self) -> Binding {
        Binding { projects: self.projects, kinds: self.kinds, gates: self.gates, ..Binding::of(self.plugin) }
    }
}

impl RawResident {
    fn into_binding(self) -> ResidentBinding {
        let Self { plugin, projects, fetch_hosts } = self;
        // What it imports was granted, or it was not loaded.
        ResidentBinding { plugin, projects, fetch_hosts, lookups: Grant::Given }
    }
}

impl RawProvider {
    fn into_binding(self) -> ProviderBinding {
        let Self { plugin, projects, allow_empty_namespace } = self;
        ProviderBinding { plugin, projects, allow_empty_namespace, lookups: Grant::Given }
    }
}

impl RawPlugin {
    fn into_spec(self, used: &check::Use, written: BTreeMap<String, String>) -> PluginSpec {
        let world = self.world.unwrap_or(used.world);
        let origin = self.source.map_or(ComponentOrigin::Embedded, ComponentOrigin::from);
        PluginSpec {
            mode: self.mode,
            shadow_of: self.shadow_of,
            share_permille: self.share.map_or(PERMILLE, permille),
            on_failure: self.on_failure,
            digest: self.digest,
            signature: self.signature,
            capabilities: self.capabilities,
            written,
            config_json: serde_json::Value::Object(self.config.into_iter().collect()).to_string(),
            limits: self.limits,
            instances: self.instances.unwrap_or(Instances::Warm),
            ..PluginSpec::new(&used.plugin, world, origin)
        }
    }
}

/// Returns a share of 0 to 1 in thousandths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1000")]
fn permille(share: f64) -> u16 {
    (share.clamp(0.0, 1.0) * f64::from(PERMILLE)).round() as u16
}

#[cfg(test)]
mod tests;
