//! The harness: the services on the real store, plugin runtime, keys and git adapter, in a temporary folder, with a clock
//! that the test moves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use pointsman::adapters::embedded::{EmbeddedStore, Options};
use pointsman::adapters::git::{GitOptions, GitRepositories};
use pointsman::adapters::http::WebFetch;
use pointsman::adapters::keys::FileKeys;
use pointsman::adapters::system::OsSystem;
use pointsman::adapters::wasm::{Wasm, WasmOptions};
use pointsman::ports::clock::System;
use pointsman::ports::plugins::{Grant, Instances, PluginLimits, PluginSource, Plugins, World as PluginWorld};
use pointsman::ports::provider::Providers;
use pointsman::ports::store::Store;
use pointsman::ports::surface::Caller;
use pointsman::service::agents::{Access, Agents, NewToken, StartRequest};
use pointsman::service::contexts::Contexts;
use pointsman::service::due;
use pointsman::service::failure::Failure;
use pointsman::service::homes::Homes;
use pointsman::service::kit::{Acting, Kit};
use pointsman::service::messaging::{Messaging, SendReceipt, SendRequest, WaitAnswer, WaitRequest};
use pointsman::service::residents::Residency;
use pointsman::service::settings::{Binding, Bindings, ContextSettings, ProviderBinding, ResidentBinding, Settings};
use pointsman::service::surface::Services;
use pointsman_core::event::{Event, Provenance};
use pointsman_core::ids::{MessageId, ProjectId};
use pointsman_core::time::TimeMs;
use serde_json::Value;
use tempfile::TempDir;

use crate::slow::SlowStore;

/// Milliseconds an agent has to ack.
pub(crate) const LEASE_MS: u64 = 60_000;
/// Times a delivery is handed out.
pub(crate) const ATTEMPTS_MAX: u32 = 3;

/// Milliseconds a settled message is kept, and a dead letter.
pub(crate) const KEPT_MS: u64 = 30 * 86_400_000;
pub(crate) const LETTERS_KEPT_MS: u64 = 90 * 86_400_000;

/// How a host is set up.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(crate) routers: Vec<&'static str>,
    pub(crate) reconcilers: Vec<&'static str>,
    /// Agents that do what their configuration says, by plugin.
    pub(crate) residents: Vec<(&'static str, Value)>,
    /// Which of them are let offer MCP.
    pub(crate) providers: Vec<&'static str>,
    /// Which of those may offer under bare names.
    pub(crate) bare: Vec<&'static str>,
    /// Hosts they may ask.
    pub(crate) fetch_hosts: Vec<String>,
    /// Whether they may look nothing up while they handle an event.
    pub(crate) blind: bool,
    /// The ending of keys that take long to read.
    pub(crate) slow: Option<&'static str>,
    /// Who may do what with which documents.
    pub(crate) context: ContextSettings,
    /// Answers components' calls in their stead.
    pub(crate) answers: Option<Arc<dyn Providers>>,
}

/// A host without its transport.
pub(crate) struct World {
    pub(crate) kit: Kit,
    pub(crate) agents: Arc<Agents>,
    pub(crate) messaging: Arc<Messaging>,
    pub(crate) contexts: Arc<Contexts>,
    pub(crate) services: Services,
    pub(crate) residency: Arc<Residency>,
    pub(crate) project: ProjectId,
    clock: Arc<AtomicI64>,
    pub(crate) setup: Setup,
    folder: TempDir,
}

fn settings(setup: &Setup) -> Settings {
    let bind = |plugin: &&str| Binding::of(*plugin);
    let bindings = Bindings {
        routers: setup.routers.iter().map(bind).collect(),
        reconcilers: setup.reconcilers.iter().map(bind).collect(),
        workflows: vec![Binding::of("workflow-default")],
        policies: vec![Binding::of("policy-default")],
        residents: setup.residents.iter().map(|(plugin, _)| resident(plugin, setup)).collect(),
        providers: setup.providers.iter().map(|plugin| provider(plugin, setup.bare.contains(plugin))).collect(),
        ..Bindings::default()
    };
    Settings {
        bindings: bindings.into(),
        checks: Vec::new(),
        claim_lease_ms: 1_800_000,
        delivery_lease_ms: LEASE_MS,
        delivery_attempts_max: ATTEMPTS_MAX,
        messages_kept_ms: KEPT_MS,
        dead_letters_kept_ms: LETTERS_KEPT_MS,
        context: setup.context.clone(),
        public_url: "http://127.0.0.1:7420".to_owned(),
    }
}

fn resident(plugin: &str, setup: &Setup) -> ResidentBinding {
    let lookups = if setup.blind { Grant::Withheld } else { Grant::Given };
    ResidentBinding { plugin: plugin.to_owned(), projects: Vec::new(), fetch_hosts: setup.fetch_hosts.clone(), lookups }
}

fn provider(plugin: &str, allow_empty_namespace: bool) -> ProviderBinding {
    ProviderBinding { plugin: plugin.to_owned(), projects: Vec::new(), allow_empty_namespace, lookups: Grant::Given }
}

async fn kit(folder: &Path, clock: &Arc<AtomicI64>, setup: &Setup) -> Kit {
    let system: Arc<dyn System> = Arc::new(OsSystem);
    let hands = Arc::clone(clock);
    let options = Options::new(move || TimeMs(hands.load(Ordering::SeqCst)), Arc::clone(&system));
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&folder.join("store"), options).expect("the store opens"));
    let store: Arc<dyn Store> = match setup.slow {
        Some(ending) => Arc::new(SlowStore { store, ending }),
        None => store,
    };
    let plugins = Wasm::new(WasmOptions::new(None, [7; 32])).expect("components run here");
    for (names, world) in [(&setup.routers, PluginWorld::Router), (&setup.reconcilers, PluginWorld::Reconciler)] {
        for name in names {
            load(&plugins, name, world).await;
        }
    }
    for (name, config) in &setup.residents {
        load_scripted(&plugins, name, config).await;
    }
    let plugins = Arc::new(plugins);
    let git = GitOptions::new(folder.join("git"), folder.join("scratch"), "/bin/false".into());
    let keys = folder.join("keys");
    std::fs::create_dir_all(&keys).expect("a folder for keys");
    Kit {
        store,
        plugins: Arc::clone(&plugins) as Arc<dyn Plugins>,
        providers: setup.answers.clone().unwrap_or_else(|| Arc::clone(&plugins) as Arc<dyn Providers>),
        residents: plugins,
        repository: Arc::new(GitRepositories::open(git, Arc::clone(&system)).await.expect("git is installed")),
        homes: Homes::alone(),
        keys: Arc::new(FileKeys::open(&keys, &*system).expect("keys are made")),
        system,
        settings: Arc::new(settings(setup)),
        slugs: Arc::default(),
    }
}

/// Loads a shipped component; one that is not shipped stays unbound, as after a failed load.
async fn load(plugins: &Wasm, name: &str, world: PluginWorld) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{name}.wasm"));
    let Ok(component) = std::fs::read(shipped) else { return };
    let source = PluginSource {
        name: name.to_owned(),
        world,
        component: component.into(),
        config_json: "{}".to_owned(),
        limits: PluginLimits::default(),
        needs: PluginLimits::default(),
        instances: Instances::Warm,
        lookups: Grant::Withheld,
    };
    plugins.load(source).await.expect("a shipped component loads");
}

/// Loads the agent that does what its configuration says.
async fn load_scripted(plugins: &dyn Plugins, name: &str, config: &Value) {
    load_agent(plugins, name, SCRIPTED, config).await;
}

/// The agent that does what its configuration says.
pub(crate) const SCRIPTED: &[u8] = include_bytes!("../../src/adapters/wasm/tests/scripted-agent.wasm");

/// Loads an agent.
pub(crate) async fn load_agent(plugins: &dyn Plugins, name: &str, component: &[u8], config: &Value) {
    let source = PluginSource {
        name: name.to_owned(),
        world: PluginWorld::Agent,
        component: component.into(),
        config_json: config.to_string(),
        limits: PluginLimits::default(),
        needs: PluginLimits::default(),
        instances: Instances::Warm,
        lookups: Grant::Given,
    };
    plugins.load(source).await.expect("the agent loads");
}

impl World {
    /// A host with one project, without plugins.
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// A host with one project.
    pub(crate) async fn with(setup: Setup) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(AtomicI64::new(1_800_000_000_000));
        let kit = kit(folder.path(), &clock, &setup).await;
        let project = ProjectId::new(kit.now(), kit.system.id_bytes());
        let world = Self::of(kit, folder, clock, setup, project);
        world.agents.create_project(project, "demo", "main").await.expect("a project");
        world.residency.settle().await.expect("residents move in");
        world
    }

    fn of(kit: Kit, folder: TempDir, clock: Arc<AtomicI64>, setup: Setup, project: ProjectId) -> Self {
        let services = Services::new(kit.clone(), Access::default());
        let (agents, messaging, contexts) = (Arc::clone(&services.agents), Arc::clone(&services.messaging), Arc::clone(&services.contexts));
        let residency = Arc::new(Residency::new(services.clone(), Arc::new(WebFetch::new().expect("TLS is there"))));
        Self { kit, agents, messaging, contexts, services, residency, project, clock, setup, folder }
    }

    /// Ends the host and starts it on the same data.
    pub(crate) async fn restart(self) -> Self {
        let Self { kit: old, agents, messaging, contexts, services, residency, project, clock, setup, folder } = self;
        drop((old, agents, messaging, contexts, services, residency));
        let kit = kit(folder.path(), &clock, &setup).await;
        let world = Self::of(kit, folder, clock, setup, project);
        world.residency.settle().await.expect("residents move in");
        world
    }

    /// Lets time pass, and what it brings happen.
    pub(crate) async fn pass(&self, ms: u64) {
        // From what the store shows: its clock goes on a little while the wall clock stands.
        let then = self.kit.now() + ms;
        self.clock.store(then.0, Ordering::SeqCst);
        due::tick(&self.services, &self.residency).await.expect("what is due is worked off");
        self.work().await;
    }

    /// Lets the residents handle what waits for them.
    pub(crate) async fn work(&self) -> usize {
        self.residency.work().await.expect("the store answers")
    }

    /// What a resident keeps under a key.
    pub(crate) async fn kept(&self, plugin: &str, key: &str) -> Option<String> {
        let found = self.kit.store.get(Some(self.project), &format!("kv/{plugin}/{key}")).await.expect("the store answers");
        found.map(|found| String::from_utf8(found.bytes).expect("a text"))
    }

    /// A caller with a new token of a principal.
    pub(crate) async fn caller(&self, principal: &str, granted: &[&str]) -> Caller {
        let new = NewToken {
            principal_name: principal.to_owned(),
            provenance: Provenance::Agent,
            projects: vec![self.project],
            capabilities: granted.iter().map(|&name| name.to_owned()).collect(),
            toolsets: Vec::new(),
            ttl_ms: None,
        };
        let (secret, _) = self.agents.mint_token(&new).await.expect("a token");
        self.agents.admit(Some(&secret), Some("demo"), format!("trace-{principal}")).await.expect("it is admitted")
    }

    /// An agent that has started, of a principal of its own.
    pub(crate) async fn agent(&self, name: &str, capabilities: &[&str]) -> Acting {
        let caller = self.caller(name, &[]).await;
        let request = StartRequest {
            name: Some(name.to_owned()),
            capabilities: Some(capabilities.iter().map(|&text| text.to_owned()).collect()),
            ..StartRequest::default()
        };
        self.agents.start(&caller, &request).await.expect("it starts");
        self.agents.acting(&caller, None).await.expect("it acts")
    }

    /// Sends a plain message.
    pub(crate) async fn send(&self, from: &Acting, to: &str, subject: &str) -> SendReceipt {
        self.messaging.send(from, &message(to, subject)).await.expect("it is sent")
    }

    /// What an agent is handed at once.
    pub(crate) async fn take(&self, agent: &Acting) -> WaitAnswer {
        let request = WaitRequest { max_s: Some(0), ..WaitRequest::default() };
        self.messaging.wait(agent, &request).await.expect("it waits")
    }

    /// What an agent hears of that watches keys, from a place in the log.
    pub(crate) async fn hear(&self, agent: &Acting, after: &str, watch: &[&str]) -> Vec<Arc<Event>> {
        let watch = watch.iter().map(|&glob| glob.to_owned()).collect();
        let after = Some(after.parse().expect("a cursor"));
        let request = WaitRequest { max_s: Some(0), after, watch, ..WaitRequest::default() };
        self.messaging.wait(agent, &request).await.expect("it waits").events
    }

    /// Acks one message.
    pub(crate) async fn ack(&self, agent: &Acting, message: MessageId) {
        let settled = self.messaging.settle(agent, &[message], &[]).await.expect("it is acked");
        assert_eq!((settled.acked, settled.refused.len()), (1, 0), "{settled:?}");
    }

    /// The project's events of a type, oldest first.
    pub(crate) async fn events(&self, kind: &str) -> Vec<Event> {
        let all = self.kit.store.events(Some(self.project), Default::default(), 100_000).await.expect("the log is read");
        all.into_iter().filter(|event| event.event.kind == kind).collect()
    }
}

/// A plain message.
pub(crate) fn message(to: &str, subject: &str) -> SendRequest {
    SendRequest { to: vec![to.to_owned()], subject: Some(subject.to_owned()), body: Value::from("…"), ..SendRequest::default() }
}

/// The subjects of what was handed out.
pub(crate) fn subjects(answer: &WaitAnswer) -> Vec<&str> {
    answer.messages.iter().map(|handed| handed.message.subject.as_str()).collect()
}

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> &'static str {
    let Err(Failure::Refused(refusal)) = &result else { unreachable!("a refusal was expected, not {result:?}") };
    refusal.code
}
