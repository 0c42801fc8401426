//! What a call may cost: the defaults of each world, and what an operator may set instead.

use std::time::Duration;

use super::engine::{Layout, MEMORY_BYTES_MAX};
use crate::ports::plugins::{PluginLimits, World};

/// The longest deadline of a call that answers a question.
const DEADLINE_MS_MAX: u64 = 60_000;
/// The largest result.
const RESULT_BYTES_MAX: usize = 128 << 20;
/// A guest with an interpreter takes about so many times as long, its start included.
const INTERPRETED_DEADLINE_FACTOR: u64 = 10;
/// Memory of such a guest: the interpreter itself takes tens of megabytes.
const INTERPRETED_MEMORY_BYTES: usize = 128 << 20;
/// The most calls of one plugin at once.
const CONCURRENCY_MAX: usize = 128;

/// A call waits for its turn on the lane for so many times its deadline, and not longer than so many milliseconds.
const LANE_WAITS: u64 = 10;
const LANE_WAIT_MS_MAX: u64 = 10_000;
/// A deadline up to so many milliseconds is that of a call which is over before anything is worth measuring.
const SHORT_MS_MAX: u64 = 20;

/// Returns whether a deadline is a short one.
pub(super) const fn is_short(deadline_ms: u64) -> bool {
    deadline_ms <= SHORT_MS_MAX
}

/// The limits of a loaded plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Memory of one instance.
    pub(super) memory_bytes_max: usize,
    /// Running time of one call.
    pub(super) deadline_ms: u64,
    /// Bytes of one result, as the host holds it.
    pub(super) result_bytes_max: usize,
    /// Calls at once.
    pub(super) concurrency_max: usize,
    /// Elements of all tables of an instance.
    pub(super) table_elements_max: usize,
}

impl Limits {
    /// Returns what an operator set, else the defaults of a world and a layout, or what the plugin needs where that is less.
    ///
    /// # Errors
    /// Says which setting is out of range.
    pub(super) fn new(world: World, layout: Layout, set: PluginLimits, needs: PluginLimits) -> Result<Self, String> {
        fn one<N: Ord + Copy>(set: Option<N>, default: N, need: Option<N>) -> N {
            set.unwrap_or_else(|| need.map_or(default, |need| need.min(default)))
        }
        let default = defaults(world, layout);
        let limits = Self {
            memory_bytes_max: one(set.memory_bytes_max, default.memory_bytes_max, needs.memory_bytes_max),
            deadline_ms: one(set.deadline_ms, default.deadline_ms, needs.deadline_ms),
            result_bytes_max: one(set.result_bytes_max, default.result_bytes_max, needs.result_bytes_max),
            concurrency_max: one(set.concurrency_max, default.concurrency_max, needs.concurrency_max),
            table_elements_max: default.table_elements_max,
        };
        within("memory_bytes_max", limits.memory_bytes_max, MEMORY_BYTES_MAX)?;
        within("deadline_ms", limits.deadline_ms, DEADLINE_MS_MAX)?;
        within("result_bytes_max", limits.result_bytes_max, RESULT_BYTES_MAX)?;
        within("concurrency_max", limits.concurrency_max, CONCURRENCY_MAX)?;
        Ok(limits)
    }

    /// Returns how long a call waits for its turn: as long as it may run.
    pub(super) const fn wait(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    /// Returns how long a call of a slow plugin waits for its turn on the lane, where others go before each.
    pub(super) const fn lane_wait(&self) -> Duration {
        let wait_ms = self.deadline_ms * LANE_WAITS;
        Duration::from_millis(if wait_ms < LANE_WAIT_MS_MAX { wait_ms } else { LANE_WAIT_MS_MAX })
    }
}

fn within<N: PartialOrd + From<u8> + std::fmt::Display>(name: &str, value: N, max: N) -> Result<(), String> {
    if value >= N::from(1) && value <= max { Ok(()) } else { Err(format!("its limit `{name}` is {value}; it must be 1 to {max}")) }
}

fn defaults(world: World, layout: Layout) -> Limits {
    let (memory_bytes_max, deadline_ms, result_bytes_max, concurrency_max) = match world {
        World::Router => (32 << 20, 2, 256 << 10, 32),
        World::Merger | World::Reconciler => (128 << 20, 2_000, 32 << 20, 4),
        World::Workflow | World::Policy => (32 << 20, 500, 1 << 20, 8),
        World::Agent => (64 << 20, 1_000, 4 << 20, 4),
        World::McpProvider => (64 << 20, 1_000, 4 << 20, 8),
    };
    let table_elements_max = layout.sizes().table_elements;
    let compiled = Limits { memory_bytes_max, deadline_ms, result_bytes_max, concurrency_max, table_elements_max };
    match layout {
        Layout::Compiled => compiled,
        Layout::Interpreted => Limits {
            memory_bytes_max: memory_bytes_max.max(INTERPRETED_MEMORY_BYTES),
            deadline_ms: deadline_ms * INTERPRETED_DEADLINE_FACTOR,
            ..compiled
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_go_over_defaults_and_stay_in_range() {
        let set = PluginLimits { deadline_ms: Some(7), ..PluginLimits::default() };
        let no_needs = PluginLimits::default();
        let limits = Limits::new(World::Router, Layout::Compiled, set, no_needs).expect("in range");
        assert_eq!((limits.deadline_ms, limits.concurrency_max), (7, 32));
        let limits = Limits::new(World::Router, Layout::Interpreted, set, no_needs).expect("in range");
        assert_eq!((limits.deadline_ms, limits.memory_bytes_max), (7, INTERPRETED_MEMORY_BYTES), "what is set holds");
        let limits = Limits::new(World::Router, Layout::Interpreted, PluginLimits::default(), no_needs).expect("in range");
        assert_eq!(limits.deadline_ms, 20);
        let needs = PluginLimits { deadline_ms: Some(1), memory_bytes_max: Some(usize::MAX), ..no_needs };
        let limits = Limits::new(World::Router, Layout::Compiled, no_needs, needs).expect("in range");
        assert_eq!((limits.deadline_ms, limits.memory_bytes_max), (1, 32 << 20), "a plugin takes less, never more");
        assert_eq!(Limits::new(World::Router, Layout::Compiled, set, needs).map(|limits| limits.deadline_ms), Ok(7));
        let none = PluginLimits { concurrency_max: Some(0), ..PluginLimits::default() };
        assert_eq!(
            Limits::new(World::Router, Layout::Compiled, none, no_needs),
            Err("its limit `concurrency_max` is 0; it must be 1 to 128".to_owned())
        );
        let huge = PluginLimits { memory_bytes_max: Some(usize::MAX), ..PluginLimits::default() };
        assert!(Limits::new(World::Merger, Layout::Compiled, huge, no_needs).is_err());
    }
}
