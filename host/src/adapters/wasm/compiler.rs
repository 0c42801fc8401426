//! Compiling: one component at a time, on threads that everything else goes before.
//!
//! **Invariant:** however many components are loaded, and however large they are, what the host does meanwhile goes first.

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::lane::yield_to_others;

/// Added to the threads' niceness: on a busy machine compiling gets one part of four, for somebody waits for the load.
const NICENESS: i32 = 5;

/// The compiler and its threads, which start with the first component that is not in the cache.
#[derive(Debug, Default)]
pub(super) struct Compiler(Mutex<Threads>);

#[derive(Debug, Default)]
enum Threads {
    #[default]
    NotYet,
    /// The system gave none: whoever loads compiles.
    None,
    Here(ThreadPool),
}

impl Compiler {
    /// Compiles a component when it is its turn. Takes long: not for async threads.
    ///
    /// # Errors
    /// The component is invalid.
    pub(super) fn compile(&self, engine: &Engine, component: &[u8]) -> wasmtime::Result<Component> {
        let mut threads = self.0.lock();
        if matches!(*threads, Threads::NotYet) {
            *threads = start();
        }
        match &*threads {
            // Within the pool, the engine's own parallel work stays in the pool.
            Threads::Here(pool) => pool.install(|| Component::new(engine, component)),
            Threads::None | Threads::NotYet => Component::new(engine, component),
        }
    }
}

fn start() -> Threads {
    let pool = ThreadPoolBuilder::new()
        .thread_name(|n| format!("plugin-compile-{n}"))
        .start_handler(|_| yield_to_others(NICENESS))
        .panic_handler(|_| tracing::error!("a thread that compiles components had panicked"))
        .build();
    match pool {
        Ok(pool) => Threads::Here(pool),
        Err(error) => {
            tracing::warn!(%error, "components are compiled without threads of their own");
            Threads::None
        }
    }
}
