//! The composition root: the only place that names adapters. Opens the data folder, loads the plugins, finishes what the
//! last run left, serves, drains.
//!
//! Order matters: the store's lock first (it keeps a second host out), then keys, then git's leftovers, then plugins, then
//! recovery, and only then the listener's first answer.

mod access;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::adapters::admin::{self, AdminClient};
use crate::adapters::embedded::{EmbeddedStore, OpenError, Options};
use crate::adapters::git::{CheckOptions, GitLimits, GitOptions, GitRepositories, GitStartError};
use crate::adapters::http::{self, Entry, PlainFetch, Routes, TlsError};
use crate::adapters::keys::{FileKeys, KeysError};
use crate::adapters::mcp::{Mcp, McpConfig, SealingKey};
use crate::adapters::oauth::OAuthSetupError;
use crate::adapters::system::{OsSystem, wall_clock_ms};
use crate::adapters::wasm::{self, Wasm, WasmError, WasmOptions};
use crate::config::{ComponentOrigin, Config, Environment, PluginSpec};
use crate::plugin_build::component::embedded_manifest;
use crate::plugin_build::manifest::Manifest;
use crate::ports::admin::AdminSurface;
use crate::ports::clock::System;
use crate::ports::keys::Keys;
use crate::ports::plugins::{PluginFailure, PluginSource, Plugins, World};
use crate::ports::provider::Providers;
use crate::ports::repository::Origin;
use crate::ports::store::Store;
use crate::service::admin::Admin;
use crate::service::agents::Access;
use crate::service::due;
use crate::service::failure::Failure;
use crate::service::git_access::GitAccess;
use crate::service::kit::Kit;
use crate::service::residents::Residency;
use crate::service::surface::{AgentSurface, Services};
use crate::shipped;

/// Identifies the key that seals sessions; a second one comes with the first rotation.
const SEALING_KEY_ID: u8 = 1;

/// Why the host does not run.
#[derive(Debug, Error)]
pub enum AppError {
    /// The data folder's store.
    #[error("the store cannot be opened")]
    Store(#[from] OpenError),
    /// The key files.
    #[error("the host's keys cannot be used")]
    Keys(#[from] KeysError),
    /// Git or its folders.
    #[error("git cannot be used")]
    Git(#[from] GitStartError),
    /// The plugin runtime.
    #[error("plugins cannot be run")]
    Wasm(#[from] WasmError),
    /// A component file.
    #[error("the component of plugin `{plugin}` cannot be read")]
    Component {
        /// Which plugin.
        plugin: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A component that is not shipped.
    #[error("no component `{plugin}` is shipped: name a file as its `source`")]
    NotShipped {
        /// Which plugin.
        plugin: String,
    },
    /// A plugin that was made for something else.
    #[error("plugin `{plugin}` is of the world `{says}`, and cannot be used as one of `{used}`")]
    OtherWorld {
        /// Which.
        plugin: String,
        /// What its manifest says.
        says: World,
        /// What the configuration asks of it.
        used: World,
    },
    /// A plugin that does not load.
    #[error("plugin `{plugin}` cannot be loaded")]
    Plugin {
        /// Which.
        plugin: String,
        /// Why.
        #[source]
        source: PluginFailure,
    },
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

/// An opened data folder with everything on it.
struct Opened {
    services: Services,
    store: Arc<EmbeddedStore>,
    git: GitRepositories,
}

async fn open(config: &Config, public_url: String, access: Access) -> Result<Opened, AppError> {
    let system: Arc<dyn System> = Arc::new(OsSystem);
    let folder = config.data_dir.join("store");
    let options = Options::new(wall_clock_ms, Arc::clone(&system));
    let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(&folder, options));
    let store = Arc::new(store.await.expect("opening a store does not panic")?);
    let keys: Arc<dyn Keys> = Arc::new(FileKeys::open(&config.data_dir, system.as_ref())?);
    let (git, plugins) =
        tokio::join!(GitRepositories::open(git_options(config)?, Arc::clone(&system)), load_plugins(config, keys.as_ref()));
    let (git, plugins) = (git?, Arc::new(plugins?));
    let kit = Kit {
        store: Arc::clone(&store) as Arc<dyn Store>,
        plugins: Arc::clone(&plugins) as Arc<dyn Plugins>,
        providers: Arc::clone(&plugins) as Arc<dyn Providers>,
        residents: plugins,
        repository: Arc::new(git.clone()),
        system,
        keys,
        settings: Arc::new(config.settings(public_url)),
    };
    Ok(Opened { services: Services::new(kit, access), store, git })
}

fn git_options(config: &Config) -> Result<GitOptions, AppError> {
    let system = |what| move |source| AppError::System { what, source };
    let environment = Environment::of_process().map_err(system("the working folder is gone"))?;
    let binary = std::env::current_exe().map_err(system("the own executable cannot be found"))?;
    let mut options = GitOptions::new(config.data_dir.join("repositories"), config.data_dir.join("scratch"), binary);
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

async fn load_plugins(config: &Config, keys: &dyn Keys) -> Result<Wasm, AppError> {
    let wasm = Arc::new(Wasm::new(WasmOptions::new(Some(config.data_dir.join("code-cache")), keys.derive("code cache")))?);
    let mut loading = JoinSet::new();
    for spec in config.plugins.clone() {
        let wasm = Arc::clone(&wasm);
        let source = source(spec)?;
        loading.spawn(async move {
            let plugin = source.name.clone();
            wasm.load(source).await.map_err(|source| AppError::Plugin { plugin, source })
        });
    }
    while let Some(loaded) = loading.join_next().await {
        loaded.expect("loading a plugin does not panic")?;
    }
    Ok(Arc::into_inner(wasm).expect("all loads have ended"))
}

fn source(spec: PluginSpec) -> Result<PluginSource, AppError> {
    let component: Arc<[u8]> = match &spec.origin {
        ComponentOrigin::Embedded => {
            shipped::component(&spec.name).ok_or_else(|| AppError::NotShipped { plugin: spec.name.clone() })?.into()
        }
        ComponentOrigin::File(path) => {
            let bytes = std::fs::read(path).map_err(|source| AppError::Component { plugin: spec.name.clone(), source })?;
            bytes.into()
        }
    };
    let world = world(&spec, &component)?;
    Ok(PluginSpec { world, ..spec }.with_component(component))
}

/// Returns the world a component is loaded as. What it says of itself counts: one that is used as a provider may be an agent.
fn world(spec: &PluginSpec, component: &[u8]) -> Result<World, AppError> {
    let manifest = embedded_manifest(component).and_then(|text| text.map(|text| Manifest::parse(&text)).transpose());
    let says = match manifest {
        Ok(manifest) => manifest.map(|manifest| manifest.world),
        Err(why) => {
            tracing::warn!(plugin = %spec.name, why, "the component's manifest cannot be read");
            None
        }
    };
    match says {
        None | Some(World::Agent) if spec.world == World::McpProvider => Ok(says.unwrap_or(spec.world)),
        Some(says) if says != spec.world => Err(AppError::OtherWorld { plugin: spec.name.clone(), says, used: spec.world }),
        Some(_) | None => Ok(spec.world),
    }
}

async fn make_ready(config: &Config, opened: &Opened) -> Result<(), AppError> {
    let admin = Admin::new(opened.services.clone(), None);
    for project in &config.projects {
        let origin = project.source.clone().map_or(Origin::Empty, Origin::CopyOf);
        let (record, is_new) = admin.ensure_project(&project.slug, origin, &project.target).await.map_err(AppError::State)?;
        if is_new {
            tracing::info!(project = %record.slug, target = %record.target, "project made");
        }
    }
    let finished = due::recover(&opened.services).await.map_err(AppError::State)?;
    if finished > 0 {
        tracing::info!(finished, "finished what the last run left");
    }
    Ok(())
}

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// [`AppError`].
pub async fn up(config: Config) -> Result<(), AppError> {
    let address = config.server.bind;
    let listen = |source| AppError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    let url = config.public_url(bound);
    let system: Arc<dyn System> = Arc::new(OsSystem);
    let gate = access::Gate::open(&config, &system)?;
    let opened = open(&config, url.clone(), gate.access(&config)).await?;
    make_ready(&config, &opened).await?;
    let stop = CancellationToken::new();
    let mut background = JoinSet::new();
    if let Some(issuer) = &gate.issuer {
        background.spawn(Arc::clone(issuer).keep_keys(stop.clone()));
    }
    if let Some(tls) = &gate.tls {
        let hang_up = signal(SignalKind::hangup()).map_err(|source| AppError::System { what: "signals cannot be taken", source })?;
        background.spawn(access::keep_certificate(Arc::clone(tls), hang_up, stop.clone()));
    }
    let services = &opened.services;
    let residency = Arc::new(Residency::new(services.clone(), Arc::new(PlainFetch)));
    residency.settle().await.map_err(AppError::State)?;
    background.spawn(due::run(services.clone(), Arc::clone(&residency), stop.clone()));
    background.spawn(residency.run(stop.clone()));
    background.spawn(services.queue.clone().run(stop.clone()));
    let socket = admin::bind(&config.data_dir).map_err(|source| AppError::System { what: "no socket in the data folder", source })?;
    let operator: Arc<dyn AdminSurface> = Arc::new(Admin::new(services.clone(), Some(url.clone())));
    background.spawn(admin::serve(socket, config.data_dir.clone(), operator, stop.clone()));
    let signalled = signalled(stop.clone())?;
    tracing::info!(%url, data = %config.data_dir.display(), git = opened.git.git_version(), "ready");
    eprintln!("pointsman serves {url}/mcp (stop with Ctrl-C)");
    if config.server.anonymous {
        tracing::warn!("callers without a token are let in, as `server.anonymous` says");
    }
    let routes = routes(&opened, &config, gate.entry(&config, &url), stop.clone());
    let drained = http::serve(listener, routes, access::limits(&config), stop.clone()).await.map_err(listen)?;
    signalled.abort();
    let waited = Duration::from_millis(config.server.drain_ms);
    let finish = async {
        while background.join_next().await.is_some() {}
        opened.git.drain().await;
    };
    if tokio::time::timeout(waited, finish).await.is_err() {
        tracing::warn!("the drain's deadline passed; what was under way is finished at the next start");
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

fn routes(opened: &Opened, config: &Config, entry: Entry, stop: CancellationToken) -> Routes {
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
    Routes {
        mcp: Arc::new(endpoint),
        git: Arc::new(git),
        surface,
        system: Arc::clone(&kit.system),
        origins: config.origins(),
        hosts: config.public_names(),
        entry,
    }
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

/// Opens the data folder itself, for an operator when no host runs.
///
/// # Errors
/// [`AppError`].
pub async fn offline(config: &Config) -> Result<Box<dyn AdminSurface>, AppError> {
    let opened = open(config, config.public_url(config.server.bind), Access::default()).await?;
    make_ready(config, &opened).await?;
    Ok(Box::new(Admin::new(opened.services, None)))
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
