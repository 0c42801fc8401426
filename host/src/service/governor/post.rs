//! One binding as the governor sees it: its rule, its breaker, its counts, what its shadow differed in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pointsman_core::breaker::{Breaker, State, Tolerance};
use serde_json::Value;

use crate::ports::health::{BreakerView, Counts, Difference, Health, LATENCY_BOUNDS_US, ShadowReport};
use crate::ports::plugins::{Instances, PluginFailure, PluginSource, World};
use crate::ports::registry::{Mode, OnFailure, PERMILLE};
use crate::service::settings::Rule;

/// One warm call in so many is asked again of a fresh instance.
const FRESH_EVERY: u64 = 512;
/// Differences of a shadow that are kept.
const DIFFERENCES_MAX: usize = 100;
/// Returns whether the `n`th call belongs to a share: of any run of calls so many do as it says, give or take one.
fn belongs(n: u64, share_permille: u16) -> bool {
    let upto = |n: u64| u128::from(n) * u128::from(share_permille.min(PERMILLE)) / u128::from(PERMILLE);
    upto(n + 1) > upto(n)
}

#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    refused: AtomicU64,
    trapped: AtomicU64,
    limited: AtomicU64,
    invalid: AtomicU64,
    rested: AtomicU64,
    missed: AtomicU64,
    took_us: AtomicU64,
    latency: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
}

#[derive(Debug, Default)]
struct ShadowTally {
    calls: u64,
    same: u64,
    different: u64,
    failed: u64,
    last: VecDeque<Difference>,
}

/// A binding.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) name: String,
    pub(super) world: World,
    pub(super) rule: ArcSwap<Rule>,
    tolerance: Tolerance,
    pub(super) breaker: Mutex<Breaker>,
    tally: Tally,
    why: Mutex<Option<String>>,
    source: Mutex<Option<PluginSource>>,
    generation: AtomicU64,
    heard: AtomicU64,
    shadow: Mutex<ShadowTally>,
    asked_fresh: AtomicU64,
}

impl Post {
    pub(super) fn new(name: &str, world: World, tolerance: Tolerance) -> Self {
        Self {
            name: name.to_owned(),
            world,
            rule: ArcSwap::default(),
            tolerance,
            breaker: Mutex::new(Breaker::new(tolerance)),
            tally: Tally::default(),
            why: Mutex::new(None),
            source: Mutex::new(None),
            generation: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            shadow: Mutex::default(),
            asked_fresh: AtomicU64::new(0),
        }
    }

    /// Takes note of a component that was loaded: it starts with a clean record.
    pub(super) fn loaded(&self, source: PluginSource) {
        *self.source.lock() = Some(source);
        self.generation.fetch_add(1, Ordering::Relaxed);
        *self.shadow.lock() = ShadowTally::default();
        *self.breaker.lock() = Breaker::new(self.tolerance);
        *self.why.lock() = None;
    }

    /// Returns what it was loaded from, where instances are kept.
    pub(super) fn warm_source(&self) -> Option<PluginSource> {
        self.source.lock().clone().filter(|source| source.instances == Instances::Warm)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(super) fn why(&self) -> Option<String> {
        self.why.lock().clone()
    }

    pub(super) fn note(&self, why: String) {
        *self.why.lock() = Some(why);
    }

    pub(super) fn count(&self, failure: Option<&PluginFailure>, took_us: u64) {
        let counter = match failure {
            None => &self.tally.answered,
            Some(PluginFailure::Refused { .. }) => &self.tally.refused,
            Some(PluginFailure::Trapped { .. }) => &self.tally.trapped,
            Some(PluginFailure::Limit { .. }) => &self.tally.limited,
            Some(PluginFailure::Invalid { .. } | PluginFailure::NotBound(_)) => &self.tally.invalid,
            Some(PluginFailure::Resting { .. }) => return self.count_rested(),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.tally.took_us.fetch_add(took_us, Ordering::Relaxed);
        let class = LATENCY_BOUNDS_US.iter().position(|bound| took_us <= *bound).unwrap_or(LATENCY_BOUNDS_US.len());
        self.tally.latency[class].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_rested(&self) {
        self.tally.rested.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_missed(&self) {
        self.tally.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether this shadow hears the next call.
    pub(super) fn takes_next(&self) -> bool {
        belongs(self.heard.fetch_add(1, Ordering::Relaxed), self.rule.load().share_permille)
    }

    /// Returns whether the next call is one of those that are repeated on a fresh instance.
    pub(super) fn is_next_fresh(&self) -> bool {
        self.asked_fresh.load(Ordering::Relaxed) % FRESH_EVERY == FRESH_EVERY - 1
    }

    /// Counts a call and returns whether it is repeated on a fresh instance.
    pub(super) fn take_fresh_turn(&self) -> bool {
        self.asked_fresh.fetch_add(1, Ordering::Relaxed) % FRESH_EVERY == FRESH_EVERY - 1
    }

    /// Takes note of what a shadow answered, where the live one answered `live`.
    pub(super) fn compared(&self, question: &Value, live: Value, shadow: Value) {
        let mut tally = self.shadow.lock();
        tally.calls += 1;
        if live == shadow {
            tally.same += 1;
            return;
        }
        if shadow.get("failure").is_some() && live.get("failure").is_none() {
            tally.failed += 1;
        } else {
            tally.different += 1;
        }
        if tally.last.len() == DIFFERENCES_MAX {
            tally.last.pop_front();
        }
        tally.last.push_back(Difference { question: question.clone(), live, shadow });
    }

    pub(super) fn differences(&self) -> Vec<Difference> {
        self.shadow.lock().last.iter().rev().cloned().collect()
    }

    pub(super) fn health(&self, now_ms: u64) -> Health {
        let rule = self.rule.load();
        let shadow = rule.shadow_of.as_ref().filter(|_| rule.mode == Mode::Shadow).map(|of| {
            let tally = self.shadow.lock();
            ShadowReport { of: of.clone(), calls: tally.calls, same: tally.same, different: tally.different, failed: tally.failed }
        });
        Health {
            mode: rule.mode,
            on_failure: self.on_failure(),
            breaker: match self.breaker.lock().state() {
                State::Closed => BreakerView::Closed,
                State::Open { until_ms } => BreakerView::Open { left_ms: until_ms.saturating_sub(now_ms) },
                State::Trying { .. } => BreakerView::Trying,
                State::Stuck => BreakerView::Quarantined,
            },
            why: self.why(),
            counts: self.counts(),
            shadow,
            generation: self.generation(),
        }
    }

    /// Returns what is done without its answer.
    pub(super) fn on_failure(&self) -> OnFailure {
        self.rule.load().on_failure.unwrap_or_else(|| self.world.on_failure())
    }

    fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.tally;
        Counts {
            answered: read(&tally.answered),
            refused: read(&tally.refused),
            trapped: read(&tally.trapped),
            limited: read(&tally.limited),
            invalid: read(&tally.invalid),
            rested: read(&tally.rested),
            missed: read(&tally.missed),
            took_us: read(&tally.took_us),
            latency: std::array::from_fn(|class| read(&tally.latency[class])),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_share_takes_as_many_as_it_says(share in 0_u16..=PERMILLE, calls in 1_u64..5_000) {
            let taken = (0..calls).filter(|n| belongs(*n, share)).count() as f64;
            prop_assert!((taken - f64::from(share) / 1e3 * calls as f64).abs() <= 1.01, "{taken} of {calls} for {share}");
        }
    }
}
