//! The clock of deadlines: a thread that advances the engine's epoch once a millisecond while calls run.
//!
//! It knows no plugin. **Invariant:** while a call runs, the epoch advances; a host that asks no plugin for a second
//! has no timer running.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// Length of an epoch.
pub(super) const TICK_MS: u64 = 1;
/// After so many ticks without a call the thread sleeps until one begins.
const IDLE_TICKS_MAX: u32 = 1_000;

/// What calls and the thread share.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Calls that run now.
    active: AtomicUsize,
    /// The thread sleeps, or is about to.
    parked: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Pulse {
    /// Marks a call as running, until the guard goes.
    pub(super) fn begin(&self) -> Running<'_> {
        // Both sides write their own flag before they read the other's, so one of them sees the other.
        self.active.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) {
            self.wake();
        }
        Running(self)
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn run(&self, engine: &EngineWeak) {
        let mut idle_ticks = 0;
        while !self.stop.load(Ordering::SeqCst) {
            if idle_ticks >= IDLE_TICKS_MAX {
                self.parked.store(true, Ordering::SeqCst);
                if self.active.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.parked.store(false, Ordering::SeqCst);
                idle_ticks = 0;
            }
            // A wake-up that came early makes one epoch shorter; deadlines allow for that.
            std::thread::park_timeout(Duration::from_millis(TICK_MS));
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
            idle_ticks = if self.active.load(Ordering::SeqCst) == 0 { idle_ticks + 1 } else { 0 };
        }
    }
}

/// A call that runs.
#[derive(Debug)]
pub(super) struct Running<'a>(&'a Pulse);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The thread. Stopped and joined when this goes.
#[derive(Debug)]
pub(super) struct Ticker {
    pulse: Arc<Pulse>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(engine: &Engine) -> io::Result<Self> {
        let pulse = Arc::new(Pulse::default());
        let engine = engine.weak();
        let shared = Arc::clone(&pulse);
        let thread = std::thread::Builder::new().name("plugin-epochs".to_owned()).spawn(move || shared.run(&engine))?;
        // A call that begins before this is set finds the thread awake: it parks only after a second.
        let _unset_before = pulse.thread.set(thread.thread().clone());
        Ok(Self { pulse, thread: Some(thread) })
    }

    /// Returns what calls mark themselves with.
    pub(super) fn pulse(&self) -> &Pulse {
        &self.pulse
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.pulse.stop.store(true, Ordering::SeqCst);
        self.pulse.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that advances plugin deadlines had panicked");
        }
    }
}
