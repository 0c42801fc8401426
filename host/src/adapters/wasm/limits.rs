//! What a call may cost: the defaults of each world, and what an operator may set instead.

use std::time::Duration;

use super::engine::MEMORY_BYTES_MAX;
use crate::ports::plugins::{PluginLimits, World};

/// The longest deadline of a call that answers a question.
const DEADLINE_MS_MAX: u64 = 60_000;
/// The largest result.
const RESULT_BYTES_MAX: usize = 128 << 20;
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
}

impl Limits {
    /// Returns a world's defaults with an operator's settings over them.
    ///
    /// # Errors
    /// Says which setting is out of range.
    pub(super) fn new(world: World, set: PluginLimits) -> Result<Self, String> {
        let default = defaults(world);
        let limits = Self {
            memory_bytes_max: set.memory_bytes_max.unwrap_or(default.memory_bytes_max),
            deadline_ms: set.deadline_ms.unwrap_or(default.deadline_ms),
            result_bytes_max: set.result_bytes_max.unwrap_or(default.result_bytes_max),
            concurrency_max: set.concurrency_max.unwrap_or(default.concurrency_max),
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

const fn defaults(world: World) -> Limits {
    match world {
        World::Router => Limits { memory_bytes_max: 32 << 20, deadline_ms: 2, result_bytes_max: 256 << 10, concurrency_max: 32 },
        World::Merger | World::Reconciler => {
            Limits { memory_bytes_max: 128 << 20, deadline_ms: 2_000, result_bytes_max: 32 << 20, concurrency_max: 4 }
        }
        World::Workflow | World::Policy => {
            Limits { memory_bytes_max: 32 << 20, deadline_ms: 500, result_bytes_max: 1 << 20, concurrency_max: 8 }
        }
        World::Agent => Limits { memory_bytes_max: 64 << 20, deadline_ms: 1_000, result_bytes_max: 4 << 20, concurrency_max: 4 },
        World::McpProvider => Limits { memory_bytes_max: 64 << 20, deadline_ms: 1_000, result_bytes_max: 4 << 20, concurrency_max: 8 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_go_over_defaults_and_stay_in_range() {
        let set = PluginLimits { deadline_ms: Some(7), ..PluginLimits::default() };
        let limits = Limits::new(World::Router, set).expect("in range");
        assert_eq!((limits.deadline_ms, limits.concurrency_max), (7, 32));
        let none = PluginLimits { concurrency_max: Some(0), ..PluginLimits::default() };
        assert_eq!(Limits::new(World::Router, none), Err("its limit `concurrency_max` is 0; it must be 1 to 128".to_owned()));
        let huge = PluginLimits { memory_bytes_max: Some(usize::MAX), ..PluginLimits::default() };
        assert!(Limits::new(World::Merger, huge).is_err());
    }
}
