//! The store's clock: that of Redis, followed from afar, made never to go back.
//!
//! Between two looks at Redis it goes by the machine's own measure of time; one that ran ahead goes slower until Redis has caught
//! up, so it never stands still and never runs ahead for ever.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pointsman_core::time::TimeMs;

use crate::ports::clock::System;

/// The clock.
pub(super) struct Clock {
    system: Arc<dyn System>,
    base: Mutex<Base>,
}

/// The last point at which Redis was followed.
#[derive(Debug, Clone, Copy)]
struct Base {
    at: TimeMs,
    instant: Instant,
    is_ahead: bool,
}

impl Base {
    fn shown(&self, instant: Instant) -> TimeMs {
        let passed_ms = u64::try_from(instant.saturating_duration_since(self.instant).as_millis()).unwrap_or(u64::MAX);
        self.at + if self.is_ahead { passed_ms / 2 } else { passed_ms }
    }

    /// Goes on from here, by what Redis shows.
    fn look(&mut self, redis: TimeMs, instant: Instant) {
        let shown = self.shown(instant);
        *self = Self { at: shown.max(redis), instant, is_ahead: shown > redis };
    }

    /// Goes forward to the time of a commit.
    fn reach(&mut self, at: TimeMs, instant: Instant) {
        if at > self.shown(instant) {
            *self = Self { at, instant, ..*self };
        }
    }
}

impl Clock {
    /// Returns a clock that shows what Redis shows.
    pub(super) fn new(system: Arc<dyn System>, redis: TimeMs) -> Self {
        let base = Mutex::new(Base { at: redis, instant: system.instant(), is_ahead: false });
        Self { system, base }
    }

    /// Returns the time. The machine's clock is read under the lock: two callers never see time go back between them.
    pub(super) fn now(&self) -> TimeMs {
        let base = self.base.lock();
        base.shown(self.system.instant())
    }

    /// Takes note of what Redis shows.
    pub(super) fn look(&self, redis: TimeMs) {
        let mut base = self.base.lock();
        base.look(redis, self.system.instant());
    }

    /// Takes note of a commit's time, whoever made it.
    pub(super) fn reach(&self, at: TimeMs) {
        let mut base = self.base.lock();
        base.reach(at, self.system.instant());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn time_never_goes_back_nor_stands_still(steps in prop::collection::vec((0i64..20_000, 2u64..5_000, any::<bool>()), 1..50)) {
            let start = tokio::time::Instant::now().into_std();
            let mut base = Base { at: TimeMs(5_000), instant: start, is_ahead: false };
            let (mut passed_ms, mut last) = (0, TimeMs(5_000));
            for (redis, step_ms, is_commit) in steps {
                passed_ms += step_ms;
                let instant = start + Duration::from_millis(passed_ms);
                let before = base.shown(instant);
                prop_assert!(before.since_ms(last) >= step_ms / 2);
                if is_commit { base.reach(TimeMs(redis), instant) } else { base.look(TimeMs(redis), instant) }
                last = base.shown(instant);
                prop_assert!(last >= before && last >= TimeMs(redis));
            }
        }
    }
}
