//! What belongs to one instance: its symbols, its memory account, its deadline, and whom its imports reach meanwhile.
//!
//! **Invariant:** an instance's memories together stay below its limit, its tables below the engine's, and a call ends
//! once it has run for its deadline. Time the thread spent waiting for a processor is not the plugin's: it counts only
//! against ten times the deadline.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};

use super::limits::{Limits, is_short};
use super::log_lines::LogLines;
use super::symbols::Scope;
use super::ticker::TICK_MS;
use crate::ports::lookups::Lookups;
use crate::ports::provider::Emit;
use crate::ports::resident::ResidentMemory;

/// A call is ended after so many times its deadline, whether it ran or waited.
const WAIT_FACTOR: u64 = 10;
/// Lines of one call for the log, those that are left out of it counted: each costs the host some time.
const LINES_PER_CALL_MAX: u32 = 10_000;

/// The data of a store.
pub(super) struct State {
    /// The symbols as the instance sees them.
    pub(super) scope: Scope,
    /// Memory and tables.
    pub(super) account: Account,
    /// Whom the imports reach while a call runs.
    pub(super) reach: Reach,
    /// The plugin's lines in the host's log.
    pub(super) log: Arc<LogLines>,
    /// What the guest said, in the running call, of the trap that is to come.
    pub(super) last_words: Option<String>,
    /// Lines that the running call may still write to the log.
    lines_left: u32,
    deadline: Deadline,
}

/// Whom the imports of a running call reach; nobody between calls.
#[derive(Default)]
pub(super) struct Reach {
    /// What `lookups` reads.
    pub(super) lookups: Option<Arc<dyn Lookups>>,
    /// What `kv` reads.
    pub(super) memory: Option<Arc<dyn ResidentMemory>>,
    /// Who hears what `calls` tells.
    pub(super) emit: Option<Arc<dyn Emit>>,
}

impl State {
    /// Returns a store for one instance.
    pub(super) fn store(engine: &Engine, limits: &Limits, scope: Scope, log: Arc<LogLines>) -> Store<Self> {
        let account =
            Account { memory_bytes_max: limits.memory_bytes_max, table_elements_max: limits.table_elements_max, ..Account::default() };
        let (reach, deadline) = (Reach::default(), Deadline::default());
        let mut store = Store::new(engine, Self { scope, account, reach, log, last_words: None, lines_left: 0, deadline });
        store.limiter(|state| &mut state.account);
        store.set_hostcall_fuel(limits.result_bytes_max);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().deadline.reached()));
        store
    }

    /// Returns whether the running call may write one more line to the log; when it may not, that is the limit it reached.
    pub(super) fn may_write_line(&mut self) -> bool {
        let left = self.lines_left.checked_sub(1);
        self.lines_left = left.unwrap_or(0);
        if left.is_none() {
            self.account.exceeded = Some("log lines");
        }
        left.is_some()
    }
}

/// Returns whether the call that just ended ran for most of its deadline.
pub(super) fn took_long(store: &Store<State>) -> bool {
    store.data().deadline.took_long()
}

/// Starts a call: from here its deadline runs, and its lines are counted.
pub(super) fn start_call(store: &mut Store<State>, deadline_ms: u64) {
    let state = store.data_mut();
    (state.account.exceeded, state.last_words, state.lines_left) = (None, None, LINES_PER_CALL_MAX);
    let first = store.data_mut().deadline.start(deadline_ms);
    store.set_epoch_deadline(first);
}

/// Counts what the instance holds.
#[derive(Debug, Default)]
pub(super) struct Account {
    memory_bytes_max: usize,
    memory_bytes: usize,
    memory_asked: usize,
    table_elements_max: usize,
    table_elements: usize,
    table_asked: usize,
    /// The limit that a request was turned down for, if one was.
    pub(super) exceeded: Option<&'static str>,
}

impl Account {
    /// Returns the bytes of all memories.
    pub(super) fn memory_bytes(&self) -> u64 {
        u64::try_from(self.memory_bytes).unwrap_or(u64::MAX)
    }
}

impl ResourceLimiter for Account {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let asked = desired.saturating_sub(current);
        let sum = self.memory_bytes.saturating_add(asked);
        if sum > self.memory_bytes_max {
            self.exceeded = Some("memory");
            return Ok(false);
        }
        self.memory_asked = asked;
        self.memory_bytes = sum;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_bytes = self.memory_bytes.saturating_sub(std::mem::take(&mut self.memory_asked));
        self.exceeded = Some("memory");
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let asked = desired.saturating_sub(current);
        let sum = self.table_elements.saturating_add(asked);
        if sum > self.table_elements_max {
            self.exceeded = Some("tables");
            return Ok(false);
        }
        self.table_asked = asked;
        self.table_elements = sum;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.table_elements = self.table_elements.saturating_sub(std::mem::take(&mut self.table_asked));
        self.exceeded = Some("tables");
        Ok(())
    }
}

/// How long a call may still run. Reading the thread's processor time is a system call, so one with a short deadline that
/// ends within half of it never pays for it: the first look is then, and the rest is measured from there.
#[derive(Debug, Default)]
struct Deadline {
    /// Ticks of running time.
    limit_ticks: u64,
    /// Ticks given so far.
    given_ticks: u64,
    /// Processor time of the thread at the first look, which is the start of a call with a long deadline, and what was left.
    looked: Option<(Duration, Duration)>,
}

impl Deadline {
    fn start(&mut self, deadline_ms: u64) -> u64 {
        let limit_ticks = deadline_ms.div_ceil(TICK_MS).max(1);
        let first = limit_ticks.div_ceil(2);
        let looked = (!is_short(deadline_ms)).then(|| (thread_time(), Duration::from_millis(deadline_ms)));
        *self = Self { limit_ticks, given_ticks: first, looked };
        first
    }

    /// Returns whether more than half of the deadline is known to be used. Free for a call that ended before the first look.
    fn took_long(&self) -> bool {
        let Some((since, left)) = self.looked else { return false };
        let limit = Duration::from_millis(self.limit_ticks * TICK_MS);
        limit.saturating_sub(left) + thread_time().saturating_sub(since) >= limit / 2
    }

    fn reached(&mut self) -> UpdateDeadline {
        let now = thread_time();
        let (since, left) = *self.looked.get_or_insert_with(|| {
            // The tick that ended the first stretch may have come at once, so it is not counted.
            let ran_ticks = self.given_ticks.saturating_sub(1);
            (now, Duration::from_millis(self.limit_ticks.saturating_sub(ran_ticks) * TICK_MS))
        });
        let ran = now.saturating_sub(since);
        if ran >= left || self.given_ticks >= self.limit_ticks.saturating_mul(WAIT_FACTOR) {
            return UpdateDeadline::Interrupt;
        }
        let left_ms = u64::try_from((left - ran).as_millis()).unwrap_or(u64::MAX);
        let ticks = (left_ms / TICK_MS / 2).max(1);
        self.given_ticks = self.given_ticks.saturating_add(ticks);
        UpdateDeadline::Continue(ticks)
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
