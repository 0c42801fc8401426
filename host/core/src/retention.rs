//! Retention: how long what is settled is kept. Pure.
//!
//! **Invariants:** a message goes with all its deliveries or not at all; never while one of them is live, an address of it waits
//! for somebody, or it has a dead letter that is still kept; and never before the newest of its ends is old enough.

use crate::ids::AgentId;
use crate::inbox::{Delivery, DeliveryState};
use crate::time::TimeMs;

/// What the operator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// Milliseconds a message is kept after the last of its deliveries ended.
    pub settled_ms: u64,
    /// Milliseconds a dead letter is kept.
    pub dead_letters_ms: u64,
}

impl Keeping {
    /// Returns the time before which a message must have been sent for anything of it to go at `now`.
    #[must_use]
    pub fn before(&self, now: TimeMs) -> TimeMs {
        now - self.settled_ms.min(self.dead_letters_ms)
    }
}

/// Where a message stands.
#[derive(Debug, Clone)]
pub struct Kept<'a> {
    /// When it was sent.
    pub sent_at: TimeMs,
    /// All its deliveries, live and ended.
    pub deliveries: &'a [Delivery],
    /// Of the ended ones, those that are dead letters: revived and purged ones are not.
    pub letters: &'a [Delivery],
    /// Whether an address of it waits for somebody who can take it.
    pub is_deferred: bool,
}

/// What goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Agents whose dead letters end.
    pub letters: Vec<AgentId>,
    /// Whether the message goes, with all its deliveries.
    pub is_whole: bool,
}

/// Returns when a delivery ended; none: it is live.
#[must_use]
pub fn ended_at(delivery: &Delivery) -> Option<TimeMs> {
    match &delivery.state {
        DeliveryState::Ready { .. } | DeliveryState::Waiting { .. } | DeliveryState::Held { .. } | DeliveryState::Leased { .. } => None,
        DeliveryState::Acked { at }
        | DeliveryState::PassedOn { at, .. }
        | DeliveryState::DeadLettered { at, .. }
        | DeliveryState::Expired { at } => Some(*at),
    }
}

/// Decides what of a message goes at `now`.
#[must_use]
pub fn prune(now: TimeMs, keeping: &Keeping, kept: &Kept<'_>) -> Pruned {
    let is_old = |at: TimeMs, ms: u64| now.since_ms(at) >= ms;
    let old_letter = |letter: &&Delivery| ended_at(letter).is_some_and(|at| is_old(at, keeping.dead_letters_ms));
    let letters: Vec<AgentId> = kept.letters.iter().filter(old_letter).map(|letter| letter.agent).collect();
    let mut ends = kept.deliveries.iter().map(ended_at);
    let is_whole = !kept.is_deferred
        && letters.len() == kept.letters.len()
        && is_old(kept.sent_at, keeping.settled_ms)
        && ends.all(|end| end.is_some_and(|at| is_old(at, keeping.settled_ms)));
    Pruned { letters, is_whole }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::MessageId;
    use crate::inbox::Place;

    const KEEPING: Keeping = Keeping { settled_ms: 100, dead_letters_ms: 300 };

    fn delivery(n: u8, state: DeliveryState) -> Delivery {
        let new =
            Delivery::new(TimeMs(0), MessageId::from_bytes([9; 16]), &[AgentId::from_bytes([n; 16])], Place { priority: 4, order: 1 });
        Delivery { state, ..new.expect("there is a candidate") }
    }

    fn kept<'a>(deliveries: &'a [Delivery], letters: &'a [Delivery]) -> Kept<'a> {
        Kept { sent_at: TimeMs(0), deliveries, letters, is_deferred: false }
    }

    #[test]
    fn what_is_settled_goes_after_its_time_and_dead_letters_after_theirs() {
        let acked = [delivery(1, DeliveryState::Acked { at: TimeMs(50) })];
        for (now, is_whole) in [(99, false), (149, false), (150, true)] {
            assert_eq!(prune(TimeMs(now), &KEEPING, &kept(&acked, &[])).is_whole, is_whole, "{now}");
        }
        assert!(!prune(TimeMs(150), &KEEPING, &Kept { is_deferred: true, ..kept(&acked, &[]) }).is_whole);
        let dead = [delivery(1, DeliveryState::DeadLettered { at: TimeMs(50), reason: String::new() })];
        assert_eq!(prune(TimeMs(349), &KEEPING, &kept(&dead, &dead)), Pruned::default());
        assert_eq!(prune(TimeMs(350), &KEEPING, &kept(&dead, &dead)), Pruned { letters: vec![dead[0].agent], is_whole: true });
        assert!(prune(TimeMs(150), &KEEPING, &kept(&dead, &[])).is_whole, "a purged one is settled");
        assert!(prune(TimeMs(100), &KEEPING, &kept(&[], &[])).is_whole, "nobody got it");
    }

    fn state() -> impl Strategy<Value = DeliveryState> {
        (0u8..6, 0i64..1_000).prop_map(|(kind, at)| match kind {
            0 => DeliveryState::Ready { since: TimeMs(at) },
            1 => DeliveryState::Leased { until: TimeMs(at), attempt: 1 },
            2 => DeliveryState::Acked { at: TimeMs(at) },
            3 => DeliveryState::Expired { at: TimeMs(at) },
            4 => DeliveryState::PassedOn { to: AgentId::from_bytes([0; 16]), at: TimeMs(at) },
            _ => DeliveryState::DeadLettered { at: TimeMs(at), reason: String::new() },
        })
    }

    proptest! {
        #[test]
        fn nothing_live_or_young_ever_goes_and_all_else_does(
            states in proptest::collection::vec((state(), any::<bool>()), 0..5),
            settled_ms in 0u64..500,
            dead_letters_ms in 0u64..500,
            now in 0i64..2_000,
            is_deferred: bool,
        ) {
            let keeping = Keeping { settled_ms, dead_letters_ms };
            let deliveries: Vec<Delivery> = states.iter().zip(1..).map(|((state, _), n)| delivery(n, state.clone())).collect();
            let is_dead = |(delivery, (_, purged)): &(&Delivery, &(DeliveryState, bool))| {
                matches!(delivery.state, DeliveryState::DeadLettered { .. }) && !purged
            };
            let letters: Vec<Delivery> = deliveries.iter().zip(&states).filter(is_dead).map(|(delivery, _)| delivery.clone()).collect();
            let kept = Kept { sent_at: TimeMs(0), deliveries: &deliveries, letters: &letters, is_deferred };
            let pruned = prune(TimeMs(now), &keeping, &kept);
            let age = |at: TimeMs| now.saturating_sub(at.0).max(0).unsigned_abs();
            let mut must_stay = is_deferred || age(TimeMs(0)) < settled_ms;
            for delivery in &deliveries {
                must_stay |= delivery.is_live() || ended_at(delivery).is_some_and(|at| age(at) < settled_ms);
            }
            for letter in &letters {
                let is_old = ended_at(letter).is_some_and(|at| age(at) >= dead_letters_ms);
                prop_assert_eq!(pruned.letters.contains(&letter.agent), is_old);
                must_stay |= !is_old;
            }
            prop_assert_eq!(pruned.is_whole, !must_stay);
            if pruned.is_whole || !pruned.letters.is_empty() {
                prop_assert!(keeping.before(TimeMs(now)) >= TimeMs(0), "who was not sent before then is not looked at");
            }
            let later = prune(TimeMs(now + 500), &keeping, &kept);
            prop_assert!(!pruned.is_whole || later.is_whole, "what may go may still go later");
        }
    }
}
