//! The composition root: the only place that names adapters. Opens the data folder, loads the plugins, finishes what the
//! last run left, serves, drains.
//!
//! Order matters: the store's lock first (it keeps a second host off the data folder), then keys, git's leftovers, the homes of
//! projects, plugins, recovery, and only then the listener's first answer.

mod access;
mod plugins;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::breaker::Tolerance;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::adapters::components::{FileComponents, KeyFileError, SigningKey, signature_file};
use crate::adapters::embedded::{EmbeddedStore, OpenError, Options};
use crate::adapters::git::{CheckOptions, GitLimits, GitOptions, GitRepositories, GitStartError};
use crate::adapters::http::{
    self, AdminClient, Entry, Figures, Rest, Routes, SiblingDoor, Tickets, TlsError, WebDownload, WebFetch, WebSiblings,
};
use crate::adapters::keys::{FileKeys, KeysError};
use crate::adapters::mcp::{Mcp, McpConfig, SealingKey};
use crate::adapters::metrics;
use crate::adapters::oauth::OAuthSetupError;
use crate::adapters::redis::{AddressError, RedisOpenError, RedisOptions, RedisStore};
use crate::adapters::system::{OsSystem, machine_name, wall_clock_ms};
use crate::adapters::wasm::{self, Wasm, WasmError, WasmOptions};
use crate::config::{Config, Environment, Flags, StoreConfig};
use crate::plugin_cases::Bench;
use crate::ports::admin::AdminSurface;
use crate::ports::clock::System;
use crate::ports::fetch::Fetch;
use crate::ports::keys::Keys;
use crate::ports::metrics::Measured;
use crate::ports::plugins::{Meter, PluginLimits, Plugins, World};
use crate::ports::provider::Providers;
use crate::ports::registry::Components;
use crate::ports::repository::{Origin, Repository};
use crate::ports::store::Store;
use crate::service::admin::Admin;
use crate::service::decisions::DecisionLog;
use crate::service::document_access::DocumentAccess;
use crate::service::due;
use crate::service::failure::Failure;
use crate::service::git_access::GitAccess;
use crate::service::governor::{GivenUp, GovernedProviders, GovernedResidents, Governor, Recording, Watcher};
use crate::service::homes::{HomedRepository, Homes, Keeper, Me, Visits};
use crate::service::kit::Kit;
use crate::service::registry::{Registry, Reread, StartError};
use crate::service::residents::Residency;
use crate::service::surface::{AgentSurface, Services};
use crate::telemetry::{Exporter, Tally};

/// Milliseconds that the last traces have to be sent.
const TRACES_MS: u64 = 2_000;
/// Identifies the key that seals sessions; a second one comes with the first rotation.
const SEALING_KEY_ID: u8 = 1;

/// Characters of a run's random name in the ids of its requests to clients.
const TAG_CHARS: usize = 8;

/// Why the host does not run.
#[derive(Debug, Error)]
pub enum AppError {
    /// The data folder's store.
    #[error("the store cannot be opened")]
    Store(#[from] OpenError),
    /// The store on Redis.
    #[error("the store on Redis cannot be opened")]
    Redis(#[source] Box<RedisOpenError>),
    /// Where Redis is.
    #[error("`store.url` is no address of Redis")]
    RedisAddress(#[from] AddressError),
    /// The certificate of Redis' servers.
    #[error("`store.root_certificate` cannot be read")]
    RedisCertificate(#[source] io::Error),
    /// Its keys are others than those of its siblings, or its name is one's of theirs.
    #[error("this host may not serve the store: {why}\n  {advice}")]
    Serving {
        /// One sentence.
        why: String,
        /// One sentence.
        advice: String,
    },
    /// The key files.
    #[error("the host's keys cannot be used")]
    Keys(#[from] KeysError),
    /// Git or its folders.
    #[error("git cannot be used")]
    Git(#[from] GitStartError),
    /// The plugin runtime.
    #[error("plugins cannot be run")]
    Wasm(#[from] WasmError),
    /// A plugin that is not there in any form.
    #[error(transparent)]
    Plugins(#[from] StartError),
    /// A component to sign.
    #[error("{path} cannot be signed")]
    Component {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key that signs components.
    #[error(transparent)]
    SigningKey(#[from] KeyFileError),
    /// The certificate or its key.
    #[error("`server.tls` cannot be used")]
    Tls(#[from] TlsError),
    /// The authorization server.
    #[error("`auth.issuer` cannot be used")]
    OAuth(#[from] OAuthSetupError),
    /// The listener.
    #[error("{address} cannot be listened on")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A project of the configuration, or recovery.
    #[error("the state cannot be made ready")]
    State(#[source] Failure),
    /// The operating system.
    #[error("the operating system refused: {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The store that was chosen.
#[derive(Clone)]
enum OpenStore {
    Embedded(Arc<EmbeddedStore>),
    Redis(Arc<RedisStore>),
}

impl OpenStore {
    async fn open(config: &Config, system: &Arc<dyn System>) -> Result<Self, AppError> {
        if let Some(redis) = &config.store {
            let options = redis_options(redis, &config.data_dir, system)?;
            return Ok(Self::Redis(Arc::new(RedisStore::open(&options).await.map_err(|error| AppError::Redis(Box::new(error)))?)));
        }
        let folder = config.data_dir.join("store");
        let options = Options::new(wall_clock_ms, Arc::clone(system));
        let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(&folder, options));
        Ok(Self::Embedded(Arc::new(store.await.expect("opening a store does not panic")?)))
    }

    fn port(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::clone(store) as _,
            Self::Redis(store) => Arc::clone(store) as _,
        }
    }

    async fn close(&self) {
        match self {
            Self::Embedded(store) => store.close().await,
            Self::Redis(store) => store.close().await,
        }
    }
}

fn redis_options(redis: &StoreConfig, data_dir: &Path, system: &Arc<dyn System>) -> Result<RedisOptions, AppError> {
    let root_certificate = redis.root_certificate.as_ref().map(std::fs::read).transpose().map_err(AppError::RedisCertificate)?;
    Ok(RedisOptions {
        user: redis.user.clone(),
        password: redis.password.clone(),
        sentinel_password: redis.sentinel_password.clone(),
        root_certificate,
        prefix: redis.prefix.clone(),
        journal: Some(data_dir.join("redis-journal")),
        ..RedisOptions::new(redis.url.parse()?, Arc::clone(system))
    })
}

/// An opened data folder with everything on it.
struct Opened {
    services: Services,
    registry: Arc<Registry>,
    store: OpenStore,
    git: GitRepositories,
    siblings: Option<Siblingship>,
    /// What the ids of its requests to clients have in them.
    tag: String,
    governor: Arc<Governor>,
    decisions: DecisionLog,
}

impl Opened {
    fn admin(&self, url: Option<String>) -> Admin {
        let (registry, governor) = (Arc::clone(&self.registry), Arc::clone(&self.governor));
        Admin::new(self.services.clone(), registry, governor, self.decisions.clone(), url)
    }
}

/// What the governor saw, to be looked at while the host runs.
type Watching = (Watcher, mpsc::Receiver<GivenUp>);

/// Whether the plugins are loaded when a data folder is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loading {
    /// All of them.
    All,
    /// None: only records are looked at and changed.
    None,
}

/// Returns the operating system's part of the host.
#[must_use]
pub fn system() -> Arc<dyn System> {
    Arc::new(OsSystem)
}

/// Opens the data folder; no plugin is loaded yet, and nothing is written to the store.
async fn open(config: &Config, urls: Urls, gate: &access::Gate, reread: Option<Reread>) -> Result<(Opened, Watching), AppError> {
    let system: Arc<dyn System> = system();
    let store = OpenStore::open(config, &system).await?;
    let keys: Arc<dyn Keys> = Arc::new(FileKeys::open(&config.keys_dir, system.as_ref())?);
    let wasm = Arc::new(Wasm::new(WasmOptions::new(Some(config.data_dir.join("code-cache")), keys.derive("code cache")))?);
    let recording = if config.decisions.kept_max > 0 { Recording::On } else { Recording::Off };
    let inner = Arc::clone(&wasm) as Arc<dyn Plugins>;
    let (governor, watcher, given_up) = Governor::new(inner, Arc::clone(&system), recording, Tolerance::default());
    let git = GitRepositories::open(git_options(config, &store)?, Arc::clone(&system)).await?;
    let local: Arc<dyn Repository> = Arc::new(git.clone());
    let components = FileComponents::new(config.data_dir.join("components"), Arc::new(WebDownload::new()?));
    let components: Arc<dyn Components> = Arc::new(components);
    let boot = data_encoding::HEXLOWER.encode(&system.id_bytes());
    let (homes, repository, siblings, tag) = match &store {
        OpenStore::Embedded(_) => (Homes::alone(), local, None, String::new()),
        OpenStore::Redis(redis) => {
            let tag = format!("{}-", &boot[..TAG_CHARS]);
            let me = Me { host: redis.host().to_owned(), boot, url: urls.sibling, volume: git.volume().to_owned() };
            let (homes, repository, siblings) = share(me, store.port(), local, &components, &keys, gate)?;
            (homes, repository, Some(siblings), tag)
        }
    };
    let (wanted, settings) = (config.wanted(), config.settings(urls.public));
    let kit = Kit {
        store: store.port(),
        plugins: Arc::clone(&governor) as Arc<dyn Plugins>,
        providers: Arc::new(GovernedProviders::new(Arc::clone(&governor), Arc::clone(&wasm) as Arc<dyn Providers>)),
        residents: Arc::new(GovernedResidents::new(Arc::clone(&governor), wasm)),
        repository,
        homes,
        system,
        keys,
        settings: Arc::new(settings),
        slugs: Arc::default(),
    };
    let decisions = DecisionLog::new(Arc::clone(&kit.store), config.decisions.kept_max);
    let registry = Registry::new(kit.clone(), components, wanted, reread).governed_by(Arc::clone(&governor));
    let registry = Arc::new(registry);
    let services = Services::new(kit, gate.access(config));
    Ok((Opened { services, registry, store, git, siblings, tag, governor, decisions }, (watcher, given_up)))
}

fn may_not_serve(failure: Failure) -> AppError {
    match failure {
        Failure::Refused(refusal) => AppError::Serving { why: format!("{} ({})", refusal.why, refusal.code), advice: refusal.advice },
        other @ (Failure::Unavailable { .. }
        | Failure::Damaged(_)
        | Failure::Repository(_)
        | Failure::Plugin(_)
        | Failure::Contended { .. }) => AppError::State(other),
    }
}

/// Where the host is reached.
struct Urls {
    /// By clients.
    public: String,
    /// By other hosts.
    sibling: String,
}

impl Urls {
    fn of(config: &Config, bound: SocketAddr) -> Self {
        Self { public: config.public_url(bound), sibling: config.sibling_url(bound, &machine_name()) }
    }
}

/// What answers siblings.
struct Siblingship {
    visits: Arc<Visits>,
    door: SiblingDoor,
}

/// Returns what a host needs that shares its store with others.
fn share(
    me: Me,
    store: Arc<dyn Store>,
    local: Arc<dyn Repository>,
    components: &Arc<dyn Components>,
    keys: &Arc<dyn Keys>,
    gate: &access::Gate,
) -> Result<(Homes, Arc<dyn Repository>, Siblingship), AppError> {
    let clock = Arc::clone(&store);
    let tickets = Tickets::new(&keys.derive("sibling ticket"), Arc::new(move || clock.now()));
    let certificates = gate.tls.as_ref().map(|tls| tls.chain()).unwrap_or_default();
    let siblings = Arc::new(WebSiblings::new(tickets.clone(), certificates)?);
    let homes = Homes::shared(me, store, Arc::clone(&siblings) as _);
    let visits = Arc::new(Visits::new(homes.clone(), Arc::clone(&local), Arc::clone(components)));
    let door = SiblingDoor::new(Arc::clone(&visits) as _, tickets);
    let repository = HomedRepository::new(local, siblings, homes.clone());
    Ok((homes, Arc::new(repository), Siblingship { visits, door }))
}

fn git_options(config: &Config, store: &OpenStore) -> Result<GitOptions, AppError> {
    let system = |what| move |source| AppError::System { what, source };
    let environment = Environment::of_process().map_err(system("the working folder is gone"))?;
    let binary = std::env::current_exe().map_err(system("the own executable cannot be found"))?;
    let mut options = GitOptions::new(config.repositories_dir.clone(), config.data_dir.join("scratch"), binary);
    if let OpenStore::Redis(store) = store {
        store.host().clone_into(&mut options.host);
    }
    if let Some(path) = environment.get("PATH") {
        path.clone_into(&mut options.path);
    }
    options.workers = config.git.workers;
    options.check = CheckOptions::of_environment(|name| environment.get(name).map(str::to_owned));
    options.limits = GitLimits {
        step_ms: config.git.command_timeout_ms,
        merge_ms: config.git.merge_timeout_ms,
        clone_ms: config.git.transfer_timeout_ms,
        serve_ms: config.git.transfer_timeout_ms,
        push_ms: config.git.transfer_timeout_ms,
        ..GitLimits::default()
    };
    Ok(options)
}

/// Returns the JSON Schema that a plugin's core module, built for that, hands over; none when it has none.
///
/// # Errors
/// It does not run, or what it hands over is no text.
pub fn config_schema(module: &[u8]) -> Result<Option<String>, String> {
    wasm::config_schema(module)
}

/// Returns the milliseconds that a host lets a call of a component take where its operator sets nothing.
///
/// # Errors
/// It is no component, or a limit that it names is out of range.
pub fn deadline_ms(component: &[u8], world: World, needs: PluginLimits) -> Result<u64, String> {
    wasm::deadline_ms(component, world, needs)
}

async fn make_ready(config: &Config, opened: &Opened) -> Result<(), AppError> {
    let admin = opened.admin(None);
    for project in &config.projects {
        let origin = project.source.clone().map_or(Origin::Empty, Origin::CopyOf);
        let (record, is_new) = admin.ensure_project(&project.slug, origin, &project.target).await.map_err(AppError::State)?;
        if is_new {
            tracing::info!(project = %record.slug, target = %record.target, "project made");
        }
    }
    let finished = due::recover(&opened.services, 0).await.map_err(AppError::State)?;
    if finished > 0 {
        tracing::info!(finished, "finished what the last run left");
    }
    Ok(())
}

/// Serves until SIGTERM or SIGINT, then drains. With `reread` it takes in what changes of the plugins meanwhile; `traces` are sent.
///
/// # Errors
/// [`AppError`].
pub async fn up(config: Config, reread: Option<Reread>, traces: Option<Exporter>) -> Result<(), AppError> {
    let address = config.server.bind;
    let listen = |source| AppError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    let urls = Urls::of(&config, bound);
    let url = urls.public.clone();
    let system: Arc<dyn System> = system();
    let gate = access::Gate::open(&config, &system)?;
    let (opened, (watcher, given_up)) = open(&config, urls, &gate, reread).await?;
    let (stop, drained_all) = (CancellationToken::new(), CancellationToken::new());
    let keeper = Keeper::begin(opened.services.clone()).await.map_err(may_not_serve)?;
    let keeping = tokio::spawn(keeper.run(stop.clone(), drained_all.clone()));
    let mut background = JoinSet::new();
    let store = opened.store.port();
    let seen = store.head(None).await.map_err(|error| AppError::State(error.into()))?;
    opened.registry.start().await?;
    make_ready(&config, &opened).await?;
    if opened.services.kit.homes.are_shared() {
        background.spawn(Arc::clone(&opened.registry).follow(seen, stop.clone()));
    }
    background.spawn(Arc::clone(&opened.registry).keep_quarantines(given_up, stop.clone()));
    background.spawn(watcher.run(opened.decisions.clone(), stop.clone()));
    if let Some(issuer) = &gate.issuer {
        background.spawn(Arc::clone(issuer).keep_keys(stop.clone()));
    }
    if let Some(tls) = &gate.tls {
        let hang_up = signal(SignalKind::hangup()).map_err(|source| AppError::System { what: "signals cannot be taken", source })?;
        background.spawn(access::keep_certificate(Arc::clone(tls), hang_up, stop.clone()));
    }
    let services = &opened.services;
    let fetch: Arc<dyn Fetch> = Arc::new(WebFetch::new()?);
    let spans = traces.as_ref().map(Exporter::tally);
    let traced = CancellationToken::new();
    let sending = traces.map(|traces| tokio::spawn(traces.run(Arc::clone(&fetch), url.clone(), traced.clone())));
    let residency = Arc::new(Residency::new(services.clone(), fetch));
    residency.settle().await.map_err(AppError::State)?;
    background.spawn(due::run(services.clone(), Arc::clone(&residency), stop.clone()));
    background.spawn(residency.run(stop.clone()));
    background.spawn(services.queue.clone().run(stop.clone()));
    let hang_up = signal(SignalKind::hangup()).map_err(|source| AppError::System { what: "signals cannot be taken", source })?;
    background.spawn(plugins::watch(Arc::clone(&opened.registry), plugins::files(&config), hang_up, stop.clone()));
    let socket = http::bind_socket(&config.data_dir).map_err(|source| AppError::System { what: "no socket in the data folder", source })?;
    let rest = Rest::new(Arc::new(opened.admin(Some(url.clone()))), metrics::MEDIA_TYPE, figures(&opened, spans));
    background.spawn(http::serve_socket(socket, config.data_dir.clone(), rest.clone(), Arc::clone(&system), stop.clone()));
    let signalled = signalled(stop.clone())?;
    tracing::info!(%url, data = %config.data_dir.display(), git = opened.git.git_version(), "ready");
    eprintln!("pointsman serves {url}/mcp (stop with Ctrl-C)");
    if config.server.anonymous {
        tracing::warn!("callers without a token are let in, as `server.anonymous` says");
    }
    let routes = routes(&opened, &config, rest, gate.entry(&config, &url), stop.clone());
    let drained = http::serve(listener, routes, access::limits(&config), stop.clone()).await.map_err(listen)?;
    signalled.abort();
    let waited = Duration::from_millis(config.server.drain_ms);
    let finish = async {
        while background.join_next().await.is_some() {}
        opened.git.drain().await;
    };
    if tokio::time::timeout(waited, finish).await.is_ok() {
        drained_all.cancel();
        keeping.await.expect("keeping the host's lease does not panic");
    } else {
        tracing::warn!("the drain's deadline passed; what was under way is finished at the next start");
        // Its lease runs out by itself: nobody may take over while something still goes on here.
        keeping.abort();
    }
    traced.cancel();
    if let Some(sending) = sending {
        // What was drained is traced, too; a collector that does not answer holds nobody up.
        drop(tokio::time::timeout(Duration::from_millis(TRACES_MS), sending).await);
    }
    opened.store.close().await;
    tracing::info!(cut = drained.cut, "drained");
    Ok(())
}

/// Cancels `stop` at the first signal; a second one ends the process at once.
fn signalled(stop: CancellationToken) -> Result<tokio::task::JoinHandle<()>, AppError> {
    let system = |source| AppError::System { what: "signals cannot be taken", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    Ok(tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("draining; a second signal ends the host at once");
        stop.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    }))
}

/// Returns what makes the text of all figures.
fn figures(opened: &Opened, spans: Option<Arc<Tally>>) -> Figures {
    let services = &opened.services;
    let mut sources: Vec<Arc<dyn Measured>> = vec![
        Arc::clone(&services.meters) as _,
        Arc::clone(&services.agents) as _,
        Arc::clone(&services.messaging) as _,
        Arc::clone(&opened.governor) as _,
    ];
    sources.extend(spans.map(|spans| spans as Arc<dyn Measured>));
    if let OpenStore::Redis(store) = &opened.store {
        sources.push(Arc::clone(store) as _);
    }
    Arc::new(move || {
        let families: Vec<_> = sources.iter().flat_map(|source| source.families()).collect();
        metrics::text(&families)
    })
}

fn routes(opened: &Opened, config: &Config, rest: Rest, entry: Entry, stop: CancellationToken) -> Routes {
    let services = &opened.services;
    let kit = &services.kit;
    let surface = Arc::new(AgentSurface::new(services.clone()));
    let store = Arc::clone(&kit.store);
    let endpoint = Mcp::new(
        surface.clone(),
        surface.clone(),
        McpConfig {
            server_name: "pointsman",
            server_version: env!("CARGO_PKG_VERSION"),
            sealing_key: SealingKey { id: SEALING_KEY_ID, bytes: kit.keys.derive("mcp session") },
            older_keys: Vec::new(),
            state_key: kit.keys.derive("mcp request state"),
            book: Arc::new(services.sessions.clone()),
            tag: opened.tag.as_str().into(),
            system: Arc::clone(&kit.system),
            now: Arc::new(move || store.now()),
            draining: stop,
        },
    );
    let git = GitAccess::new(
        kit.clone(),
        Arc::clone(&services.agents),
        services.tasks.clone(),
        services.claims.clone(),
        services.commits.clone(),
    );
    let endpoint = Arc::new(endpoint);
    if let Some(siblings) = &opened.siblings {
        siblings.visits.listen(Arc::clone(&endpoint) as _);
    }
    Routes {
        mcp: endpoint,
        git: Arc::new(git),
        documents: Arc::new(DocumentAccess::new(Arc::clone(&services.agents), Arc::clone(&services.contexts))),
        surface,
        rest: Some(rest),
        siblings: opened.siblings.as_ref().map(|siblings| siblings.door.clone()),
        system: Arc::clone(&kit.system),
        origins: config.origins(),
        hosts: config.public_names(),
        entry,
    }
}

/// Returns what the machine's wall clock shows.
#[must_use]
pub fn wall_clock() -> pointsman_core::time::TimeMs {
    wall_clock_ms()
}

/// Returns a point for measuring durations.
#[must_use]
pub fn instant() -> std::time::Instant {
    OsSystem.instant()
}

/// Returns a bench for asking components without a host. Compiled code is kept in `cache_dir`, if there is one.
///
/// # Errors
/// [`AppError`].
pub fn bench(cache_dir: Option<&Path>, meter: Meter) -> Result<Bench, AppError> {
    let options = match cache_dir {
        Some(folder) => {
            let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            created.map_err(|source| AppError::System { what: "the cache folder cannot be made", source })?;
            let keys = FileKeys::open(folder, &OsSystem)?;
            WasmOptions::new(Some(folder.join("code-cache")), keys.derive("code cache"))
        }
        None => WasmOptions::new(None, [0; 32]),
    };
    let wasm = Arc::new(Wasm::new(WasmOptions { meter, ..options })?);
    Ok(Bench { plugins: Arc::clone(&wasm) as Arc<dyn Plugins>, residents: wasm })
}

/// Returns the operator's way to a host that runs on the data folder; none when no host does.
///
/// # Errors
/// [`AppError`].
pub async fn running(config: &Config) -> Result<Option<Box<dyn AdminSurface>>, AppError> {
    let client = AdminClient::connect(&config.data_dir).await;
    let client = client.map_err(|source| AppError::System { what: "the data folder's socket cannot be opened", source })?;
    Ok(client.map(|client| Box::new(client) as Box<dyn AdminSurface>))
}

/// Opens the data folder itself, for an operator when no host runs. Without plugins only they can be looked at and changed.
///
/// # Errors
/// [`AppError`].
pub async fn offline(config: &Config, loading: Loading) -> Result<Box<dyn AdminSurface>, AppError> {
    let (opened, _) = open(config, Urls::of(config, config.server.bind), &access::Gate::default(), None).await?;
    if loading == Loading::All {
        // Nobody keeps the lease: it runs out after the process has ended, or is the host's own again when that starts.
        Keeper::begin(opened.services.clone()).await.map_err(may_not_serve)?;
        opened.registry.start().await?;
        make_ready(config, &opened).await?;
    }
    Ok(Box::new(opened.admin(None)))
}

/// Returns what reads the configuration again, with the environment and flags of the start.
#[must_use]
pub fn reread(environment: Environment, flags: Flags, started: &Config) -> Reread {
    plugins::reread(environment, flags, started.without_wanted())
}

/// Makes a key that signs components; returns its public half.
///
/// # Errors
/// [`AppError`]: the file is there already, or cannot be written.
pub fn make_signing_key(path: &Path) -> Result<String, AppError> {
    let mut random = [0; 32];
    OsSystem.random(&mut random);
    Ok(SigningKey::make(path, random)?.public())
}

/// Signs a component into the file beside it; returns that file and the signature.
///
/// # Errors
/// [`AppError`].
pub fn sign_component(component: &Path, key: &Path) -> Result<(PathBuf, String), AppError> {
    let unreadable = |source| AppError::Component { path: component.to_owned(), source };
    let signature = SigningKey::open(key)?.sign(&std::fs::read(component).map_err(unreadable)?);
    let file = signature_file(component);
    std::fs::write(&file, format!("{signature}\n")).map_err(unreadable)?;
    Ok((file, signature))
}

/// Runs a check's command confined; the rest of the command line says how.
#[must_use]
pub fn sandbox_exec(arguments: std::env::ArgsOs) -> ExitCode {
    crate::adapters::git::sandbox_exec(arguments.collect())
}

/// Answers one of git's hooks.
#[must_use]
pub fn git_hook(arguments: std::env::ArgsOs) -> ExitCode {
    crate::adapters::git::git_hook(arguments.collect())
}
