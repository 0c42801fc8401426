//! How a plugin has behaved of late: whether its calls are answered where they are asked, or have to take the lane.
//!
//! **Invariant:** one long call in a while changes nothing for a plugin of short calls; one whose calls keep taking most of
//! their deadline is slow until it has shown by as many quick ones that it no longer is.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::limits::{Limits, is_short};

/// What a slow call adds. A quick one takes one off: who is slow in more than one call of five goes up.
const SLOW: u32 = 4;
/// From here on the plugin is slow, until nothing is left.
const SLOW_FROM: u32 = 3 * SLOW;
/// The most that is remembered: so many quick calls make up for anything.
const SCORE_MAX: u32 = 32;

/// The conduct of a plugin.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    score: AtomicU32,
    slow: AtomicBool,
}

impl Conduct {
    /// Returns whether its calls have to take the lane.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Takes note of a call that took most of its deadline, or all of it. Returns whether the plugin is slow from now on.
    pub(super) fn took_long(&self, limits: &Limits) -> bool {
        // A long deadline is used up once: three times would hold a core for seconds.
        let add = if is_short(limits.deadline_ms) { SLOW } else { SLOW_FROM };
        let before = self.score.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |score| Some((score + add).min(SCORE_MAX)));
        before.is_ok_and(|score| score + add >= SLOW_FROM) && !self.slow.swap(true, Ordering::Relaxed)
    }

    /// Takes note of a quick call. Returns whether the plugin is slow no longer.
    pub(super) fn was_quick(&self) -> bool {
        // What is asked most has nothing on its score, and pays for one look.
        if self.score.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let before = self.score.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |score| score.checked_sub(1));
        before == Ok(1) && self.slow.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::Layout;
    use super::*;
    use crate::ports::plugins::{PluginLimits, World};

    fn limits(world: World) -> Limits {
        Limits::new(world, Layout::Compiled, PluginLimits::default(), PluginLimits::default()).expect("the defaults")
    }

    #[test]
    fn who_keeps_being_slow_is_slow_until_it_behaves() {
        let (conduct, limits) = (Conduct::default(), limits(World::Router));
        assert_eq!([conduct.took_long(&limits), conduct.took_long(&limits)], [false, false]);
        assert!(!conduct.is_slow());
        assert!(conduct.took_long(&limits) && conduct.is_slow());
        (0..100).for_each(|_| assert!(!conduct.took_long(&limits)));
        let quick = (0..SCORE_MAX).filter(|_| conduct.was_quick()).count();
        assert!(quick == 1 && !conduct.is_slow());
        assert!(!conduct.was_quick());
    }

    #[test]
    fn one_slow_call_in_ten_is_nothing() {
        let (conduct, limits) = (Conduct::default(), limits(World::Router));
        for call in 0..1_000 {
            let changed = if call % 10 == 0 { conduct.took_long(&limits) } else { conduct.was_quick() };
            assert!(!changed && !conduct.is_slow());
        }
    }

    #[test]
    fn a_long_deadline_is_used_up_once() {
        let (conduct, limits) = (Conduct::default(), limits(World::Policy));
        assert!(conduct.took_long(&limits) && conduct.is_slow());
    }
}
