//! How long messages wait for an agent: from its inbox until it sees them, from there until it acts on them. Pure.
//!
//! **Invariant:** an agent's figures take the same room however many messages there were.

/// Upper bounds of the classes, in milliseconds.
const BOUNDS_MS: [u64; 22] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000,
    14_400_000, 86_400_000,
];

/// Times, counted by class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::service) struct Times {
    classes: [u64; BOUNDS_MS.len() + 1],
    sum_ms: u64,
}

impl Times {
    /// Counts a time.
    pub(super) fn add(&mut self, ms: u64) {
        let class = BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(BOUNDS_MS.len());
        self.classes[class] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    /// Counts all that another counted.
    pub(super) fn add_all(&mut self, other: &Self) {
        self.classes.iter_mut().zip(other.classes).for_each(|(mine, more)| *mine += more);
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
    }

    /// Returns how many were counted.
    pub(in crate::service) fn count(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Returns the milliseconds within which so many of a thousand lie: the upper bound of their class, or a day where it has
    /// none. None: nothing was counted.
    pub(in crate::service) fn within_ms(&self, permille: u64) -> Option<u64> {
        let wanted = (self.count() * permille).div_ceil(1_000).max(1);
        let mut below = 0;
        let class = self.classes.iter().position(|count| {
            below += count;
            below >= wanted
        })?;
        Some(BOUNDS_MS.get(class).copied().unwrap_or(BOUNDS_MS[BOUNDS_MS.len() - 1]))
    }

    /// Returns the bounds in microseconds, the counts by class, and the sum in microseconds.
    pub(super) fn parts(&self) -> ([u64; BOUNDS_MS.len()], &[u64], u64) {
        (BOUNDS_MS.map(|bound| bound * 1_000), &self.classes, self.sum_ms.saturating_mul(1_000))
    }
}

/// How an agent's messages fared since this host follows its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::service) struct Latency {
    /// From the commit that put one into its inbox until it was first handed out.
    pub(in crate::service) seen: Times,
    /// From there until it was acked.
    pub(in crate::service) acted: Times,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_lies_within_the_bound_of_its_class() {
        let mut times = Times::default();
        assert_eq!((times.count(), times.within_ms(500)), (0, None));
        for ms in 1..=100 {
            times.add(ms);
        }
        assert_eq!((times.count(), times.within_ms(500), times.within_ms(990)), (100, Some(50), Some(100)));
        times.add(u64::MAX);
        assert_eq!(times.within_ms(1_000), Some(86_400_000), "what takes longer than all classes counts in the last");
        let mut all = Times::default();
        all.add_all(&times);
        all.add_all(&times);
        assert_eq!((all.count(), all.within_ms(500)), (202, Some(100)));
    }
}
