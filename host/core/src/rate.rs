//! How often someone may do something: token buckets, kept as the time at which the bucket is full again (the generic cell
//! rate algorithm, ITU-T I.371): one number for each, nothing to refill.
//!
//! **Invariant:** in any span of time no more is allowed than the burst and what the rate adds in that span.

use std::collections::HashMap;
use std::hash::Hash;

use crate::time::TimeMs;

const US_PER_S: i64 = 1_000_000;

/// How often, and how much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Microseconds that one costs.
    interval_us: i64,
    /// Microseconds of credit when nothing was taken for long.
    burst_us: i64,
}

impl Rate {
    /// Returns the rate of `count` in a time, `burst` at once after a rest; none when `count` is 0: without a limit.
    #[must_use]
    pub fn new(count: u32, per_s: u32, burst: u32) -> Option<Self> {
        if count == 0 {
            return None;
        }
        let interval_us = (i64::from(per_s.max(1)) * US_PER_S / i64::from(count)).max(1);
        Some(Self { interval_us, burst_us: interval_us * i64::from(burst.max(1)) })
    }
}

/// One bucket: when it is full again, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    full_at_us: i64,
}

impl Bucket {
    /// Takes one.
    ///
    /// # Errors
    /// The bucket is empty: the milliseconds until there is one again, 1 at least.
    pub fn take(&mut self, rate: Rate, now: TimeMs) -> Result<(), u64> {
        let now_us = now.0.saturating_mul(1_000);
        let full_at_us = self.full_at_us.max(now_us).saturating_add(rate.interval_us);
        let early_us = full_at_us.saturating_sub(now_us).saturating_sub(rate.burst_us);
        if early_us > 0 {
            return Err(u64::try_from(early_us).unwrap_or(0).div_ceil(1_000));
        }
        self.full_at_us = full_at_us;
        Ok(())
    }

    /// Returns the milliseconds until one can be taken, none when one can.
    #[must_use]
    pub fn wait_ms(&self, rate: Rate, now: TimeMs) -> Option<u64> {
        let mut tried = *self;
        tried.take(rate, now).err()
    }

    fn is_full(&self, now: TimeMs) -> bool {
        self.full_at_us <= now.0.saturating_mul(1_000)
    }
}

/// Buckets by whom they are for. Full ones are forgotten when there are too many.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    count_max: usize,
    known: HashMap<K, Bucket>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Returns buckets that all are full.
    #[must_use]
    pub fn new(rate: Rate, count_max: usize) -> Self {
        Self { rate, count_max, known: HashMap::new() }
    }

    /// Takes one from the bucket of `key`.
    ///
    /// # Errors
    /// As [`Bucket::take`].
    pub fn take(&mut self, key: K, now: TimeMs) -> Result<(), u64> {
        if self.known.len() >= self.count_max && !self.known.contains_key(&key) {
            self.known.retain(|_, bucket| !bucket.is_full(now));
            if self.known.len() >= self.count_max {
                // So many at once come from one who has many names: holding up everybody else would be what they want.
                self.known.clear();
            }
        }
        self.known.entry(key).or_default().take(self.rate, now)
    }

    /// Returns the milliseconds until one can be taken, none when one can.
    #[must_use]
    pub fn wait_ms(&self, key: &K, now: TimeMs) -> Option<u64> {
        self.known.get(key)?.wait_ms(self.rate, now)
    }

    /// Returns how many are not known to be full.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns whether all are full.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate::new(10, 1, 3).expect("a limit");
        let mut bucket = Bucket::default();
        let at = |ms: i64| TimeMs(1_790_000_000_000 + ms);
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, at(0)), Ok(()));
        }
        assert_eq!(bucket.take(rate, at(0)), Err(100));
        assert_eq!(bucket.take(rate, at(40)), Err(60), "a refusal costs nothing");
        assert_eq!(bucket.take(rate, at(100)), Ok(()));
        assert_eq!(bucket.wait_ms(rate, at(150)), Some(50));
        assert_eq!(bucket.wait_ms(rate, at(200)), None);
        assert_eq!(Rate::new(0, 1, 3), None);
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut buckets = Buckets::new(Rate::new(60, 60, 1).expect("a limit"), 2);
        assert_eq!(buckets.take("a", TimeMs(0)), Ok(()));
        assert_eq!(buckets.take("b", TimeMs(900)), Ok(()));
        assert_eq!(buckets.take("b", TimeMs(1_000)), Err(900));
        assert_eq!(buckets.take("c", TimeMs(1_000)), Ok(()), "`a` is full again and makes room");
        assert_eq!(buckets.len(), 2);
        assert_eq!(buckets.wait_ms(&"b", TimeMs(1_000)), Some(900), "`b` is still known");
        assert_eq!(buckets.wait_ms(&"a", TimeMs(1_000)), None);
    }

    proptest! {
        /// The oracle counts by hand what was let through in each span between two takes.
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            per_s in 1_u32..50,
            burst in 1_u32..20,
            steps in proptest::collection::vec(0_i64..400, 1..200),
        ) {
            let rate = Rate::new(per_s, 1, burst).expect("a limit");
            let mut bucket = Bucket::default();
            let mut now = 1_000_000;
            let mut taken: Vec<i64> = Vec::new();
            for step in steps {
                now += step;
                match bucket.take(rate, TimeMs(now)) {
                    Ok(()) => taken.push(now),
                    Err(wait_ms) => {
                        prop_assert!(wait_ms > 0);
                        let later = TimeMs(now + i64::try_from(wait_ms).expect("small"));
                        prop_assert_eq!(bucket.wait_ms(rate, later), None, "what is promised is kept");
                    }
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (j, to) in taken.iter().enumerate().skip(i) {
                    let count = i64::try_from(j - i + 1).expect("small");
                    // One more, because an interval is rounded down to whole microseconds.
                    let allowed = i64::from(burst) + (to - from) * i64::from(per_s) / 1_000 + 1;
                    prop_assert!(count <= allowed, "{count} within {} ms", to - from);
                }
            }
        }
    }
}
