//! Plugins as WebAssembly components, run by wasmtime.
//!
//! Owns the engine, the compiled code, the instances and every bound on them; each world has one file that converts
//! between its bindings and the port. It knows no service: what is done with an answer is decided elsewhere.
//!
//! **Invariants:**
//! - A call ends in exactly one outcome: an answer, a refusal, a trap, a limit, or an invalid answer.
//! - What a component does costs its own calls only: an instance that failed is dropped, a load that failed changes
//!   nothing, and calls that run while a plugin is replaced finish on the one they began with. A plugin whose calls keep
//!   taking most of their deadline takes the lane, where they wait for one another and for everything else.
//! - No type of the engine leaves this folder.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::task::JoinError;
use wasmtime::component::{Component, Linker};

mod admission;
mod agent;
mod bounds;
mod cache;
mod compiler;
mod conduct;
mod crew;
mod engine;
mod failure;
pub mod fuzz;
mod lane;
mod limits;
mod log_lines;
mod merger;
mod needs;
mod panics;
mod policy;
mod pool;
mod provider;
mod reconciler;
mod router;
mod schema;
mod slots;
mod store;
mod symbols;
#[cfg(test)]
mod tests;
mod ticker;
mod workflow;

use self::admission::Shape;
use self::cache::CodeCache;
pub use self::cache::CodeCounts;
use self::compiler::Compiler;
use self::crew::Crew;
use self::engine::Layout;
use self::failure::{invalid, limit};
use self::lane::Lane;
use self::limits::{Limits, is_short};
use self::pool::{Guest, Keepers, Pool, Shared, Terms};
use self::reconciler::Versions;
pub use self::schema::config_schema;
use self::symbols::SymbolTable;
use self::ticker::Ticker;
use crate::ports::plugins::{
    Aside, ChangeFacts, CommitFacts, FileOutcome, FlowTask, Gate, GateFacts, GateVerdict, HunkOutcome, MergeFile, MergeHunk,
    MergerDescription, Meter, PluginFailure, PluginLimits, PluginRef, PluginSource, PluginStats, Plugins, PullRequestText,
    ReconcileOutcome, RouteCandidate, RouteMessage, RouteVerdict, Symbol, WaitingBranch, World,
};
use crate::ports::resident::ResidentDescription;

/// Calls after which a warm instance is retired: what it leaked goes, and the cost of a new one is spread thin.
pub const WARM_CALLS_MAX: u32 = 1_000;

/// How the runtime is set up.
#[derive(Debug, Clone)]
pub struct WasmOptions {
    /// Where compiled code is kept; none compiles at each start.
    pub cache_dir: Option<PathBuf>,
    /// Authenticates the cache's files. Secret, and the same from start to start.
    pub cache_key: [u8; 32],
    /// Calls after which a warm instance is retired.
    pub warm_calls_max: u32,
    /// Whether instructions are counted.
    pub meter: Meter,
}

impl WasmOptions {
    /// Returns options with a cache.
    #[must_use]
    pub const fn new(cache_dir: Option<PathBuf>, cache_key: [u8; 32]) -> Self {
        Self { cache_dir, cache_key, warm_calls_max: WARM_CALLS_MAX, meter: Meter::Off }
    }
}

/// Why there is no runtime.
#[derive(Debug, Error)]
pub enum WasmError {
    /// This machine cannot run components: the address space, or a processor feature.
    #[error("components cannot be run on this machine: {0}")]
    Engine(String),
    /// There are no threads for plugins and their deadlines.
    #[error("the threads for plugins did not start")]
    Thread(#[source] io::Error),
}

/// The plugins of a host. Dropping it stops its threads; calls that still run keep what they need.
pub struct Wasm {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Shared,
    /// The engine for guests with an interpreter, once there was one.
    roomy: Arc<Mutex<Option<Shared>>>,
    cache: Arc<CodeCache>,
    compiler: Arc<Compiler>,
    bindings: ArcSwap<BTreeMap<String, Arc<Binding>>>,
    /// Loads so far.
    loads: AtomicU64,
    lanes: Arc<Lanes>,
    crew: Arc<Crew>,
}

/// Where slow plugins are asked: those of short deadlines do not wait behind those of long ones.
struct Lanes {
    short: Lane,
    long: Lane,
}

impl Lanes {
    const fn of(&self, limits: &Limits) -> &Lane {
        if is_short(limits.deadline_ms) { &self.short } else { &self.long }
    }
}

/// The code of a component, and what its instances share with others of its layout.
struct Code {
    component: Component,
    shared: Shared,
    layout: Layout,
}

/// A loaded component.
struct Binding {
    reference: PluginRef,
    /// Which load it came by.
    load: u64,
    world: World,
    bound: Bound,
    merger: Option<MergerDescription>,
    resident: Option<ResidentDescription>,
}

/// The pool of a loaded component, by its world.
enum Bound {
    Router(Pool<router::bindings::Router>),
    Merger(Pool<merger::bindings::Merger>),
    Reconciler(Pool<reconciler::bindings::Reconciler>),
    Workflow(Pool<workflow::bindings::Workflow>),
    Policy(Pool<policy::bindings::Policy>),
    /// The second one where the component offers MCP as well.
    Agent(Pool<agent::bindings::Agent>, Option<Box<Pool<provider::bindings::McpProvider>>>),
    McpProvider(Pool<provider::bindings::McpProvider>),
}

impl Bound {
    fn stats(&self) -> PluginStats {
        match self {
            Self::Router(pool) => pool.stats(),
            Self::Merger(pool) => pool.stats(),
            Self::Reconciler(pool) => pool.stats(),
            Self::Workflow(pool) => pool.stats(),
            Self::Policy(pool) => pool.stats(),
            Self::Agent(pool, None) => pool.stats(),
            Self::Agent(pool, Some(half)) => sum(pool.stats(), &half.stats()),
            Self::McpProvider(pool) => pool.stats(),
        }
    }
}

/// Returns the milliseconds that a call of a component may take where an operator sets nothing.
///
/// # Errors
/// It is no component, or a limit that it names is out of range.
pub fn deadline_ms(component: &[u8], world: World, needs: PluginLimits) -> Result<u64, String> {
    let layout = Layout::of(&needs::needs(component)?);
    Limits::new(world, layout, PluginLimits::default(), needs).map(|limits| limits.deadline_ms)
}

impl Wasm {
    /// Returns a runtime with nothing loaded.
    ///
    /// # Errors
    /// [`WasmError`]. A cache folder that cannot be had is logged and done without.
    pub fn new(options: WasmOptions) -> Result<Self, WasmError> {
        let engine = engine::engine(Layout::Compiled, options.meter).map_err(|error| WasmError::Engine(format!("{error:#}")))?;
        let ticker = Ticker::start(&engine).map_err(WasmError::Thread)?;
        let shared = Shared {
            engine,
            ticker: Arc::new(ticker),
            symbols: Arc::new(SymbolTable::new()),
            warm_calls_max: options.warm_calls_max.max(1),
            meter: options.meter,
            keepers: Keepers::default(),
        };
        let cache = Arc::new(CodeCache::open(options.cache_dir, &options.cache_key));
        let lanes = Arc::new(Lanes { short: Lane::new("plugin-lane"), long: Lane::new("plugin-lane-long") });
        let crew = Arc::new(Crew::new().map_err(WasmError::Thread)?);
        let (roomy, compiler) = (Arc::default(), Arc::default());
        let inner = Inner { shared, roomy, cache, compiler, bindings: ArcSwap::default(), loads: AtomicU64::new(0), lanes, crew };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns how often components were compiled, and how often the cache had them.
    #[must_use]
    pub fn code_counts(&self) -> CodeCounts {
        self.inner.cache.counts()
    }

    /// Puts a question to a plugin on a thread that may block, when it is its turn.
    async fn ask<G: Guest, R: Send + 'static>(
        &self,
        plugin: &str,
        question: impl FnOnce(&Pool<G>) -> Result<R, PluginFailure> + Send + 'static,
    ) -> Result<R, PluginFailure> {
        let not_bound = || PluginFailure::NotBound(plugin.to_owned());
        let binding = self.inner.bindings.load().get(plugin).map(Arc::clone).ok_or_else(not_bound)?;
        let pool = G::pool(&binding.bound).ok_or_else(not_bound)?;
        let Some(turn) = pool.slots.take(pool.terms.limits.wait()).await else {
            return Err(pool.count(limit(plugin, "concurrency")));
        };
        let (is_slow, limits) = (pool.conduct.is_slow(), pool.terms.limits);
        let asked = Arc::clone(&binding);
        let work = move || {
            let _turn = turn;
            question(G::pool(&asked.bound).ok_or_else(|| PluginFailure::NotBound(asked.reference.name.clone()))?)
        };
        if !is_slow {
            return self.inner.crew.run(work).await.unwrap_or_else(|error| gone(plugin, error));
        }
        let end = self.inner.lanes.of(&limits).run(limits.lane_wait(), work).await;
        end.unwrap_or_else(|| Err(not_its_turn::<G>(&binding)))
    }

    /// Asks a router on the lane. The caller sleeps meanwhile.
    fn route_slowly(
        &self,
        binding: &Arc<Binding>,
        limits: &Limits,
        message: &RouteMessage,
        candidates: &[RouteCandidate],
    ) -> Result<RouteVerdict, PluginFailure> {
        let (asked, message, candidates) = (Arc::clone(binding), message.clone(), candidates.to_vec());
        let work = move || match Guest::pool(&asked.bound) {
            Some(pool) => router::route(pool, &message, &candidates),
            None => Err(PluginFailure::NotBound(asked.reference.name.clone())),
        };
        let end = self.inner.lanes.of(limits).run_here(limits.lane_wait(), work);
        end.unwrap_or_else(|| Err(not_its_turn::<router::bindings::Router>(binding)))
    }
}

/// Counts a call whose turn on the lane did not come.
fn not_its_turn<G: Guest>(binding: &Binding) -> PluginFailure {
    let failure = limit(&binding.reference.name, "concurrency");
    G::pool(&binding.bound).map_or_else(|| failure.clone(), |pool| pool.count(failure.clone()))
}

/// Says what came of a call that its thread did not end: its panic is the caller's.
fn gone<R>(plugin: &str, error: JoinError) -> Result<R, PluginFailure> {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(limit(plugin, "time: the host is shutting down")),
    }
}

impl Inner {
    /// Returns one of the same engines, cache and lanes, with nothing loaded.
    fn aside(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            roomy: Arc::clone(&self.roomy),
            cache: Arc::clone(&self.cache),
            compiler: Arc::clone(&self.compiler),
            bindings: ArcSwap::default(),
            loads: AtomicU64::new(0),
            lanes: Arc::clone(&self.lanes),
            crew: Arc::clone(&self.crew),
        }
    }

    /// Verifies, compiles, links and probes a component, then swaps it in. Takes as long as compiling does.
    fn load(&self, source: PluginSource) -> Result<PluginRef, PluginFailure> {
        let reference = PluginRef { name: source.name.clone(), digest: blake3::hash(&source.component).to_hex().to_string() };
        let world = source.world;
        let (mut merger, mut resident) = (None, None);
        let bound = match world {
            World::Router => Bound::Router(self.probed(source, &reference.digest)?),
            World::Merger => {
                let pool = self.pool(&source, &reference.digest)?;
                merger = Some(merger::describe(&pool)?);
                Bound::Merger(pool)
            }
            World::Reconciler => Bound::Reconciler(self.probed(source, &reference.digest)?),
            World::Workflow => Bound::Workflow(self.probed(source, &reference.digest)?),
            World::Policy => Bound::Policy(self.probed(source, &reference.digest)?),
            World::Agent => {
                let offers_mcp = admission::exports(&source.component, provider::INTERFACE).map_err(|why| invalid(&source.name, why))?;
                let shape = if offers_mcp { agent::SHAPE_WITH_PROVIDER } else { agent::SHAPE };
                let code = self.component(&source, &reference.digest, &shape)?;
                let pool = self.pool_of(&source, World::Agent, &code)?;
                resident = Some(agent::describe(&pool)?);
                let half = offers_mcp.then(|| self.pool_of(&source, World::McpProvider, &code)).transpose()?;
                Bound::Agent(pool, half.map(Box::new))
            }
            World::McpProvider => Bound::McpProvider(self.probed(source, &reference.digest)?),
        };
        let load = self.loads.fetch_add(1, Ordering::Relaxed);
        let binding = Arc::new(Binding { reference: reference.clone(), load, world, bound, merger, resident });
        self.bindings.rcu(|bindings| {
            let mut bindings = BTreeMap::clone(bindings);
            bindings.insert(reference.name.clone(), Arc::clone(&binding));
            bindings
        });
        Ok(reference)
    }

    /// Returns a pool one of whose instances took its configuration.
    fn probed<G: Guest>(&self, source: PluginSource, digest: &str) -> Result<Pool<G>, PluginFailure> {
        let pool = self.pool(&source, digest)?;
        pool.probe(|_, _| Ok(Ok(())))?;
        Ok(pool)
    }

    fn pool<G: Guest>(&self, source: &PluginSource, digest: &str) -> Result<Pool<G>, PluginFailure> {
        let code = self.component(source, digest, &G::SHAPE)?;
        self.pool_of(source, source.world, &code)
    }

    /// Returns the code of a component that fits a shape.
    fn component(&self, source: &PluginSource, digest: &str, shape: &Shape) -> Result<Code, PluginFailure> {
        let name = source.name.as_str();
        let refused = |why: String| invalid(name, why);
        admission::admit(&source.component, shape, source.lookups).map_err(refused)?;
        let layout = Layout::of(&needs::needs(&source.component).map_err(refused)?);
        Limits::new(source.world, layout, source.limits, source.needs).map_err(refused)?;
        let shared = self.shared(layout).map_err(|error| refused(error.to_string()))?;
        let component = self.cache.component(&shared.engine, digest, || {
            bounds::check(&source.component)?;
            let compiled = self.compiler.compile(&shared.engine, &source.component);
            compiled.map_err(|error| format!("it does not compile: {error:#}"))
        });
        Ok(Code { component: component.map_err(refused)?, shared, layout })
    }

    /// Returns what the instances of a layout share; its engine is made when it is first asked for.
    fn shared(&self, layout: Layout) -> Result<Shared, WasmError> {
        if layout == Layout::Compiled {
            return Ok(self.shared.clone());
        }
        let mut roomy = self.roomy.lock();
        if let Some(roomy) = &*roomy {
            return Ok(roomy.clone());
        }
        let engine = engine::engine(layout, self.shared.meter).map_err(|error| WasmError::Engine(format!("{error:#}")))?;
        let ticker = Arc::new(Ticker::start(&engine).map_err(WasmError::Thread)?);
        let shared = Shared { engine, ticker, ..self.shared.clone() };
        *roomy = Some(shared.clone());
        Ok(shared)
    }

    /// Returns the pool of one world over a component's code.
    fn pool_of<G: Guest>(&self, source: &PluginSource, world: World, code: &Code) -> Result<Pool<G>, PluginFailure> {
        let name = source.name.as_str();
        let limits = Limits::new(world, code.layout, source.limits, source.needs).map_err(|why| invalid(name, why))?;
        let pre = Self::prepare::<G>(code).map_err(|error| invalid(name, format!("it does not fit its world: {error:#}")))?;
        let terms = Terms { name: source.name.clone(), config_json: source.config_json.clone(), limits, instances: source.instances };
        Ok(Pool::new(code.shared.clone(), terms, pre))
    }

    fn prepare<G: Guest>(code: &Code) -> wasmtime::Result<G::Pre> {
        code.component.initialize_copy_on_write_image()?;
        let mut linker = Linker::new(&code.shared.engine);
        panics::link(&mut linker)?;
        G::link(&mut linker)?;
        G::prepare(linker.instantiate_pre(&code.component)?)
    }
}

#[async_trait]
impl Plugins for Wasm {
    async fn load(&self, source: PluginSource) -> Result<PluginRef, PluginFailure> {
        let inner = Arc::clone(&self.inner);
        let name = source.name.clone();
        // Not by the crew: threads that a load starts would be of its priority, the clock of deadlines among them.
        tokio::task::spawn_blocking(move || inner.load(source)).await.unwrap_or_else(|error| gone(&name, error))
    }

    fn unload(&self, name: &str) {
        self.inner.bindings.rcu(|bindings| {
            let mut bindings = BTreeMap::clone(bindings);
            bindings.remove(name);
            bindings
        });
    }

    fn loaded(&self) -> BTreeMap<String, (World, PluginRef, PluginStats)> {
        let bindings = self.inner.bindings.load();
        let row = |(name, one): (&String, &Arc<Binding>)| (name.clone(), (one.world, one.reference.clone(), one.bound.stats()));
        bindings.iter().map(row).collect()
    }

    fn reference(&self, plugin: &str) -> Option<PluginRef> {
        self.inner.bindings.load().get(plugin).map(|binding| binding.reference.clone())
    }

    fn load_number(&self, plugin: &str) -> Option<u64> {
        self.inner.bindings.load().get(plugin).map(|binding| binding.load)
    }

    fn aside(&self) -> Aside {
        let aside = Arc::new(Self { inner: Arc::new(self.inner.aside()) });
        Aside { plugins: Arc::clone(&aside) as Arc<dyn Plugins>, residents: aside }
    }

    fn symbol(&self, text: &str) -> Symbol {
        self.inner.shared.symbols.intern(text)
    }

    fn symbol_text(&self, symbol: Symbol) -> Arc<str> {
        self.inner.shared.symbols.text(symbol.0)
    }

    fn route(&self, plugin: &str, message: &RouteMessage, candidates: &[RouteCandidate]) -> Result<RouteVerdict, PluginFailure> {
        let bindings = self.inner.bindings.load();
        let not_bound = || PluginFailure::NotBound(plugin.to_owned());
        let binding = bindings.get(plugin).ok_or_else(not_bound)?;
        let pool = Guest::pool(&binding.bound).ok_or_else(not_bound)?;
        if !pool.conduct.is_slow() {
            return router::route(pool, message, candidates);
        }
        let (binding, limits) = (Arc::clone(binding), pool.terms.limits);
        drop(bindings);
        self.route_slowly(&binding, &limits, message, candidates)
    }

    fn merger(&self, plugin: &str) -> Result<MergerDescription, PluginFailure> {
        let bindings = self.inner.bindings.load();
        let description = bindings.get(plugin).and_then(|binding| binding.merger.clone());
        description.ok_or_else(|| PluginFailure::NotBound(plugin.to_owned()))
    }

    async fn merge_hunks(&self, plugin: &str, path: &str, hunks: Vec<MergeHunk>) -> Result<Vec<HunkOutcome>, PluginFailure> {
        let path = path.to_owned();
        self.ask(plugin, move |pool| merger::merge_hunks(pool, &path, &hunks)).await
    }

    async fn merge_file(&self, plugin: &str, file: MergeFile) -> Result<FileOutcome, PluginFailure> {
        self.ask(plugin, move |pool| merger::merge_file(pool, &file)).await
    }

    async fn reconcile(
        &self,
        plugin: &str,
        media_type: &str,
        base: Vec<u8>,
        ours: Vec<u8>,
        theirs: Vec<u8>,
    ) -> Result<ReconcileOutcome, PluginFailure> {
        let media_type = media_type.to_owned();
        let versions = Versions { base, ours, theirs };
        self.ask(plugin, move |pool| reconciler::reconcile(pool, &media_type, &versions)).await
    }

    async fn branch_name(&self, plugin: &str, task: FlowTask, attempt: u32) -> Result<String, PluginFailure> {
        self.ask(plugin, move |pool| workflow::branch_name(pool, &task, attempt)).await
    }

    async fn commit_message(&self, plugin: &str, facts: CommitFacts) -> Result<String, PluginFailure> {
        self.ask(plugin, move |pool| workflow::commit_message(pool, &facts)).await
    }

    async fn merge_message(&self, plugin: &str, facts: ChangeFacts) -> Result<String, PluginFailure> {
        self.ask(plugin, move |pool| workflow::merge_message(pool, &facts)).await
    }

    async fn pull_request(&self, plugin: &str, facts: ChangeFacts) -> Result<PullRequestText, PluginFailure> {
        self.ask(plugin, move |pool| workflow::pull_request(pool, &facts)).await
    }

    async fn merge_order(&self, plugin: &str, queue: Vec<WaitingBranch>) -> Result<Vec<u32>, PluginFailure> {
        self.ask(plugin, move |pool| workflow::merge_order(pool, &queue)).await
    }

    async fn check(&self, plugin: &str, gate: Gate, facts: GateFacts) -> Result<GateVerdict, PluginFailure> {
        self.ask(plugin, move |pool| policy::check(pool, gate, &facts)).await
    }
}

fn sum(one: PluginStats, other: &PluginStats) -> PluginStats {
    PluginStats {
        calls: one.calls + other.calls,
        traps: one.traps + other.traps,
        limits: one.limits + other.limits,
        invalid: one.invalid + other.invalid,
        instances: one.instances + other.instances,
        instructions: one.instructions + other.instructions,
        memory_bytes_max: one.memory_bytes_max.max(other.memory_bytes_max),
    }
}

/// Returns a list of texts as the bindings want it.
fn texts(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// Checks that positions name entries of a list of `len`, and none twice.
fn distinct(positions: &[u32], len: usize) -> Result<(), String> {
    let mut seen = vec![false; len];
    for position in positions {
        let named = usize::try_from(*position).ok().and_then(|at| seen.get_mut(at));
        match named {
            None => return Err(format!("it names position {position} of {len}")),
            Some(seen) if *seen => return Err(format!("it names position {position} twice")),
            Some(seen) => *seen = true,
        }
    }
    Ok(())
}
