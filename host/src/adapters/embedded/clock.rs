//! The store's clock: the wall clock, made never to go back.
//!
//! When the wall clock is set back, time goes on at half speed until the wall clock has caught up: it never stands still,
//! so leases still expire, and never runs ahead for ever.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pointsman_core::time::TimeMs;

use crate::ports::clock::System;

/// Reads a wall clock.
pub(super) type WallClock = Arc<dyn Fn() -> TimeMs + Send + Sync>;

/// The store's clock.
pub(super) struct Clock {
    wall: WallClock,
    system: Arc<dyn System>,
    base: Mutex<Base>,
}

/// The last point at which the wall clock was followed.
#[derive(Debug, Clone, Copy)]
struct Base {
    at: TimeMs,
    instant: Instant,
}

impl Base {
    fn advance(&mut self, wall: TimeMs, instant: Instant) -> TimeMs {
        let passed_ms = instant.saturating_duration_since(self.instant).as_millis();
        let slow = self.at + u64::try_from(passed_ms / 2).unwrap_or(u64::MAX);
        if wall < slow {
            return slow;
        }
        *self = Self { at: wall, instant };
        wall
    }
}

impl Clock {
    /// Returns a clock that shows `floor` or later.
    pub(super) fn new(wall: WallClock, system: Arc<dyn System>, floor: TimeMs) -> Self {
        let base = Mutex::new(Base { at: floor, instant: system.instant() });
        Self { wall, system, base }
    }

    /// Returns the time. The clocks are read under the lock: two callers never see time go back between them.
    pub(super) fn now(&self) -> TimeMs {
        let mut base = self.base.lock();
        base.advance((self.wall)(), self.system.instant())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn time_never_goes_back_nor_stands_still(steps in prop::collection::vec((0i64..10_000, 0u64..10_000), 1..50)) {
            let start = tokio::time::Instant::now().into_std();
            let mut base = Base { at: TimeMs(5_000), instant: start };
            let (mut passed_ms, mut last) = (0, TimeMs(5_000));
            for (wall, step_ms) in steps {
                passed_ms += step_ms;
                let now = base.advance(TimeMs(wall), start + Duration::from_millis(passed_ms));
                prop_assert!(now >= last && now >= TimeMs(wall));
                prop_assert!(now.since_ms(last) + 1 >= step_ms / 2);
                last = now;
            }
        }
    }
}
