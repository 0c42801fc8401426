//! One loaded plugin of one world: its instances, and the way a question goes to one of them.
//!
//! It knows no world; those bring a [`Guest`]. **Invariant:** an instance is configured once, before anything else; one
//! whose call failed in any way is never asked again; no more calls run at once than the binding allows.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use wasmtime::component::{InstancePre, Linker};
use wasmtime::{Engine, PoolConcurrencyLimitError, Store};

use super::Bound;
use super::admission::Shape;
use super::conduct::Conduct;
use super::failure::{classify, invalid};
use super::limits::Limits;
use super::log_lines::LogLines;
use super::slots::Slots;
use super::store::{State, start_call, took_long};
use super::symbols::{Phase, Quota, Scope, SymbolTable};
use super::ticker::Ticker;
use crate::ports::plugins::{Instances, Meter, PluginFailure, PluginStats};

/// Idle instances a plugin keeps.
const IDLE_MAX: usize = 8;
/// Running time of the probe at a load: the first call of a component also faults its pages in.
const PROBE_DEADLINE_MS: u64 = 2_000;

/// The bindings of a world.
pub(super) trait Guest: Sized + Send + 'static {
    /// What instances are made from.
    type Pre: Send + Sync + 'static;
    /// What the world gives and asks for.
    const SHAPE: Shape;

    /// Adds what the world imports.
    fn link(linker: &mut Linker<State>) -> wasmtime::Result<()>;
    /// Looks the exports up.
    fn prepare(pre: InstancePre<State>) -> wasmtime::Result<Self::Pre>;
    /// Makes an instance.
    fn instantiate(pre: &Self::Pre, store: &mut Store<State>) -> wasmtime::Result<Self>;
    /// Hands an instance its configuration.
    fn configure(&self, store: &mut Store<State>, json: &str) -> wasmtime::Result<Result<(), String>>;
    /// Returns the pool of this world, if it is of this world.
    fn pool(bound: &Bound) -> Option<&Pool<Self>>;
}

/// What all plugins of a host share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) engine: Engine,
    /// Stops when nobody has it any more, running calls included.
    pub(super) ticker: Arc<Ticker>,
    pub(super) symbols: Arc<SymbolTable>,
    /// Calls after which an instance is retired.
    pub(super) warm_calls_max: u32,
    /// Whether instructions are counted.
    pub(super) meter: Meter,
    /// Whatever holds instances between calls.
    pub(super) keepers: Keepers,
}

/// Something that holds idle instances.
trait Keeper: Send + Sync {
    /// Gives them all back.
    fn give_back(&self);
}

impl<G: Guest> Keeper for Mutex<Vec<Idle<G>>> {
    fn give_back(&self) {
        // Ended outside the lock.
        drop(std::mem::take(&mut *self.lock()));
    }
}

/// The idle instances of all plugins: they are given back when there is no room for one more.
#[derive(Clone, Default)]
pub(super) struct Keepers(Arc<Mutex<Vec<Weak<dyn Keeper>>>>);

impl fmt::Debug for Keepers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keepers").field(&self.0.lock().len()).finish()
    }
}

impl Keepers {
    fn add(&self, keeper: Weak<dyn Keeper>) {
        let mut all = self.0.lock();
        all.retain(|keeper| keeper.strong_count() > 0);
        all.push(keeper);
    }

    /// Gives back every instance that waits for a call.
    pub(super) fn give_back(&self) {
        let all: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        for keeper in all {
            keeper.give_back();
        }
    }
}

/// What is decided about a binding at its load.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) name: String,
    pub(super) config_json: String,
    pub(super) limits: Limits,
    pub(super) instances: Instances,
}

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    traps: AtomicU64,
    limits: AtomicU64,
    invalid: AtomicU64,
    instances: AtomicU64,
    instructions: AtomicU64,
    memory_bytes_max: AtomicU64,
}

/// An instance between calls.
struct Idle<G> {
    store: Store<State>,
    guest: G,
    calls: u32,
}

/// A loaded plugin.
pub(super) struct Pool<G: Guest> {
    pub(super) terms: Terms,
    pub(super) slots: Slots,
    pub(super) conduct: Conduct,
    shared: Shared,
    pre: G::Pre,
    quota: Arc<Quota>,
    log: Arc<LogLines>,
    idle: Arc<Mutex<Vec<Idle<G>>>>,
    counters: Counters,
}

impl<G: Guest> Pool<G> {
    /// Returns the pool of a component whose imports are linked.
    pub(super) fn new(shared: Shared, terms: Terms, pre: G::Pre) -> Self {
        let slots = Slots::new(terms.limits.concurrency_max);
        let log = Arc::new(LogLines::new(terms.name.clone()));
        let idle = Arc::<Mutex<Vec<Idle<G>>>>::default();
        let weak: Weak<Mutex<Vec<Idle<G>>>> = Arc::downgrade(&idle);
        shared.keepers.add(weak);
        let (quota, counters) = (Arc::default(), Counters::default());
        Self { terms, slots, conduct: Conduct::default(), shared, pre, quota, log, idle, counters }
    }

    /// Makes and configures one instance, and asks it something.
    ///
    /// # Errors
    /// As [`Pool::ask`].
    pub(super) fn probe<R>(
        &self,
        question: impl FnOnce(&G, &mut Store<State>) -> wasmtime::Result<Result<R, String>>,
    ) -> Result<R, PluginFailure> {
        let _running = self.shared.ticker.pulse().begin();
        let mut idle = self.instance(PROBE_DEADLINE_MS)?;
        self.put(&mut idle, question).inspect(|_| self.keep(idle))
    }

    /// Puts a question to an instance. The caller holds a slot. An inner `Err` of the question is an invalid answer.
    ///
    /// # Errors
    /// [`PluginFailure`].
    pub(super) fn ask<R>(
        &self,
        question: impl FnOnce(&G, &mut Store<State>) -> wasmtime::Result<Result<R, String>>,
    ) -> Result<R, PluginFailure> {
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        let _running = self.shared.ticker.pulse().begin();
        let deadline_ms = self.terms.limits.deadline_ms;
        let kept = if self.terms.instances == Instances::Warm { self.idle.lock().pop() } else { None };
        let mut idle = match kept.filter(|idle| idle.store.data().scope.holds()) {
            Some(mut idle) => {
                start_call(&mut idle.store, deadline_ms);
                idle
            }
            // Instantiation, configuration and question share the one deadline.
            None => self.instance(deadline_ms)?,
        };
        self.put(&mut idle, question).inspect(|_| self.keep(idle))
    }

    /// Returns the counters.
    pub(super) fn stats(&self) -> PluginStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PluginStats {
            calls: read(&self.counters.calls),
            traps: read(&self.counters.traps),
            limits: read(&self.counters.limits),
            invalid: read(&self.counters.invalid),
            instances: read(&self.counters.instances),
            instructions: read(&self.counters.instructions),
            memory_bytes_max: read(&self.counters.memory_bytes_max),
        }
    }

    /// Counts a failure.
    pub(super) fn count(&self, failure: PluginFailure) -> PluginFailure {
        let counter = match &failure {
            PluginFailure::Trapped { .. } => &self.counters.traps,
            PluginFailure::Limit { .. } => &self.counters.limits,
            PluginFailure::Invalid { .. } => &self.counters.invalid,
            PluginFailure::NotBound(_) | PluginFailure::Refused { .. } | PluginFailure::Resting { .. } => return failure,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        failure
    }

    fn store(&self, deadline_ms: u64) -> Store<State> {
        let scope = Scope::new(Arc::clone(&self.shared.symbols), Arc::clone(&self.quota));
        let mut store = State::store(&self.shared.engine, &self.terms.limits, scope, Arc::clone(&self.log));
        start_call(&mut store, deadline_ms);
        if self.shared.meter == Meter::On {
            store.set_fuel(u64::MAX).expect("an engine that meters takes fuel");
        }
        store
    }

    /// Makes an instance; when there is no room, a second time after all that idle are given back.
    fn instance(&self, deadline_ms: u64) -> Result<Idle<G>, PluginFailure> {
        self.counters.instances.fetch_add(1, Ordering::Relaxed);
        let mut store = self.store(deadline_ms);
        let made = match G::instantiate(&self.pre, &mut store) {
            Err(error) if error.is::<PoolConcurrencyLimitError>() => {
                self.shared.keepers.give_back();
                store = self.store(deadline_ms);
                G::instantiate(&self.pre, &mut store)
            }
            made => made,
        };
        match made.and_then(|guest| Ok((guest.configure(&mut store, &self.terms.config_json)?, guest))) {
            Ok((Ok(()), guest)) => {
                store.data_mut().scope.phase = Phase::Asked;
                Ok(Idle { store, guest, calls: 0 })
            }
            Ok((Err(why), _)) => Err(PluginFailure::Refused { plugin: self.terms.name.clone(), why }),
            Err(error) => {
                self.note(&store);
                Err(self.failed(&error, &store))
            }
        }
    }

    fn put<R>(
        &self,
        idle: &mut Idle<G>,
        question: impl FnOnce(&G, &mut Store<State>) -> wasmtime::Result<Result<R, String>>,
    ) -> Result<R, PluginFailure> {
        idle.calls += 1;
        let end = question(&idle.guest, &mut idle.store);
        self.note(&idle.store);
        let memory_bytes = idle.store.data().account.memory_bytes();
        if memory_bytes > self.counters.memory_bytes_max.load(Ordering::Relaxed) {
            self.counters.memory_bytes_max.fetch_max(memory_bytes, Ordering::Relaxed);
        }
        if self.shared.meter == Meter::On {
            self.measure(&mut idle.store)?;
        }
        match end {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(self.count(invalid(&self.terms.name, why))),
            Err(error) => Err(self.failed(&error, &idle.store)),
        }
    }

    /// Counts what a call took, and gives the store new fuel.
    fn measure(&self, store: &mut Store<State>) -> Result<(), PluginFailure> {
        let broken = |error: wasmtime::Error| invalid(&self.terms.name, error.to_string());
        let left = store.get_fuel().map_err(broken)?;
        self.counters.instructions.fetch_add(u64::MAX - left, Ordering::Relaxed);
        store.set_fuel(u64::MAX).map_err(broken)
    }

    /// Takes note of how long a call took.
    fn note(&self, store: &Store<State>) {
        let plugin = self.terms.name.as_str();
        if took_long(store) {
            if self.conduct.took_long(&self.terms.limits) {
                tracing::warn!(plugin, "a plugin's calls keep taking most of their deadline: they wait for one another and for all else");
            }
        } else if self.conduct.was_quick() {
            tracing::info!(plugin, "a plugin's calls are quick again");
        }
    }

    fn keep(&self, idle: Idle<G>) {
        if self.terms.instances == Instances::Fresh || idle.calls >= self.shared.warm_calls_max {
            return;
        }
        let mut kept = self.idle.lock();
        if kept.len() < IDLE_MAX {
            kept.push(idle);
        }
    }

    fn failed(&self, error: &wasmtime::Error, store: &Store<State>) -> PluginFailure {
        let state = store.data();
        self.count(classify(&self.terms.name, error, state.account.exceeded, state.last_words.as_deref()))
    }
}

/// Implements [`Guest`] over the bindings that `bindgen!` made of a world.
macro_rules! guest {
    ($bindings:ident :: $world:ident, $pre:ident, $variant:ident, $shape:expr, |$linker:ident| $link:expr) => {
        $crate::adapters::wasm::pool::guest!(
            $bindings::$world,
            $pre,
            $shape,
            link: |$linker| $link,
            pool: |bound| if let $crate::adapters::wasm::Bound::$variant(pool) = bound { Some(pool) } else { None }
        );
    };
    ($bindings:ident :: $world:ident, $pre:ident, $shape:expr, link: |$linker:ident| $link:expr, pool: |$bound:ident| $pool:expr) => {
        impl $crate::adapters::wasm::pool::Guest for $bindings::$world {
            type Pre = $bindings::$pre<$crate::adapters::wasm::store::State>;
            const SHAPE: $crate::adapters::wasm::admission::Shape = $shape;

            fn link($linker: &mut ::wasmtime::component::Linker<$crate::adapters::wasm::store::State>) -> ::wasmtime::Result<()> {
                $link
            }

            fn prepare(pre: ::wasmtime::component::InstancePre<$crate::adapters::wasm::store::State>) -> ::wasmtime::Result<Self::Pre> {
                $bindings::$pre::new(pre)
            }

            fn instantiate(
                pre: &Self::Pre,
                store: &mut ::wasmtime::Store<$crate::adapters::wasm::store::State>,
            ) -> ::wasmtime::Result<Self> {
                pre.instantiate(store)
            }

            fn configure(
                &self,
                store: &mut ::wasmtime::Store<$crate::adapters::wasm::store::State>,
                json: &str,
            ) -> ::wasmtime::Result<::std::result::Result<(), ::std::string::String>> {
                self.pointsman_types_setup().call_configure(store, json)
            }

            fn pool($bound: &$crate::adapters::wasm::Bound) -> Option<&$crate::adapters::wasm::pool::Pool<Self>> {
                $pool
            }
        }
    };
}
pub(super) use guest;
