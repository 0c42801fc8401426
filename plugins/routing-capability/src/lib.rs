//! The router `routing-capability`: of the agents that satisfy an address, the one with the least to do.
//!
//! The author of a message and whoever gave it back before are left out. The others are ranked by a cost:
//! deliveries waiting, reviews owed, the share of deliveries given back, and minutes since the last call, each
//! times its weight. Kinds named in `broadcast_kinds` go to all of them instead.
//!
//! **Invariant:** the same question has the same answer; nothing is allocated per candidate but its rank.

use pointsman_sdk::Plugin;
use pointsman_sdk::router::{Candidate, Candidates, Message, Ranking, Router, Symbol, Verdict};
use serde::Deserialize;

/// Beyond two hours without a call an agent does not get less likely.
const IDLE_MS_MAX: u64 = 120 * 60_000;
/// The most deliveries of a track record that are told apart.
const RECORD_MAX: u32 = 1_000_000;
/// The most names a verdict may rank.
const RANKED_MAX: usize = 1_000;
/// The highest weight.
const WEIGHT_MAX: u32 = 1_000;
/// The most loads or reviews that are told apart, so that a cost stays within 32 bits.
const COUNT_MAX: u32 = 1_000;

/// What the operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What each part of the cost counts for.
    pub weights: Weights,
    /// How many agents a verdict ranks at most; they are tried in that order.
    pub ranked_max: usize,
    /// Kinds of messages that go to everyone who satisfies the address.
    pub broadcast_kinds: Vec<String>,
    /// What becomes of a message that nobody can take now.
    pub when_none: WhenNone,
}

/// Weights of the parts of the cost.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// For each delivery waiting or leased.
    pub load: u32,
    /// For each review owed.
    pub open_reviews: u32,
    /// For each tenth of the deliveries that was given back.
    pub given_back: u32,
    /// For each minute since the last call.
    pub idle_minute: u32,
}

/// What becomes of a message that nobody can take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenNone {
    /// The next router, or the host's default, decides.
    Pass,
    /// Ask again after so many milliseconds.
    DeferMs(u32),
    /// Nobody gets it.
    Drop,
}

impl Default for Config {
    fn default() -> Self {
        Self { weights: Weights::default(), ranked_max: 16, broadcast_kinds: Vec::new(), when_none: WhenNone::Pass }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self { load: 100, open_reviews: 60, given_back: 40, idle_minute: 1 }
    }
}

/// The router.
#[derive(Debug, Clone)]
pub struct RoutingCapability {
    weights: Weights,
    ranked_max: usize,
    broadcast_kinds: Vec<Symbol>,
    when_none: WhenNone,
}

impl Plugin for RoutingCapability {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let Weights { load, open_reviews, given_back, idle_minute } = config.weights;
        if [load, open_reviews, given_back, idle_minute].into_iter().any(|weight| weight > WEIGHT_MAX) {
            return Err(format!("a weight is at most {WEIGHT_MAX}"));
        }
        if config.ranked_max == 0 || config.ranked_max > RANKED_MAX {
            return Err(format!("`ranked_max` is 1 to {RANKED_MAX}"));
        }
        Ok(Self {
            weights: config.weights,
            ranked_max: config.ranked_max,
            broadcast_kinds: Symbol::intern_all(&config.broadcast_kinds)?,
            when_none: config.when_none,
        })
    }
}

impl Router for RoutingCapability {
    fn route(&self, message: &Message<'_>, candidates: &Candidates<'_>) -> Verdict {
        let author = message.author();
        let able = |one: &Candidate<'_>| one.satisfies() && !one.refused() && one.agent() != author;
        if self.broadcast_kinds.contains(&message.kind()) {
            let all: Vec<u32> = candidates.iter().filter(able).map(|one| one.position()).collect();
            let reason = format!("to all {} able", all.len());
            return if all.is_empty() { self.nobody(message, candidates) } else { Verdict::broadcast(all, reason) };
        }
        let mut ranking = Ranking::best_of(self.ranked_max);
        for one in candidates.iter().filter(able) {
            ranking.add(&one, self.cost(&one));
        }
        let count = ranking.added();
        let best = ranking.positions();
        match best.first().and_then(|position| candidates.get(*position)) {
            Some(first) => {
                let reason = format!("best of {count} able: {} waiting, {} reviews owed", first.load(), first.open_reviews());
                Verdict::ranked(best, reason)
            }
            None => self.nobody(message, candidates),
        }
    }
}

impl RoutingCapability {
    /// Returns what giving a candidate one more message costs.
    #[must_use]
    #[inline]
    pub fn cost(&self, one: &Candidate<'_>) -> u32 {
        let (acked, nacked) = (one.acked().min(RECORD_MAX), one.nacked().min(RECORD_MAX));
        // One of each is assumed beforehand, so that a newcomer is neither perfect nor hopeless.
        let tenths = (nacked + 1) * 10 / (acked + nacked + 2);
        // Fits: at most IDLE_MS_MAX.
        let minutes = one.idle_ms().min(IDLE_MS_MAX) as u32 / 60_000;
        self.weights.load * one.load().min(COUNT_MAX)
            + self.weights.open_reviews * one.open_reviews().min(COUNT_MAX)
            + self.weights.given_back * tenths
            + self.weights.idle_minute * minutes
    }

    /// Says why there is nobody, and what that means for the message.
    fn nobody(&self, message: &Message<'_>, candidates: &Candidates<'_>) -> Verdict {
        let refused = candidates.iter().filter(|one| one.satisfies() && one.refused() && one.agent() != message.author()).count();
        let reason = match refused {
            0 => "nobody but the author is able".to_owned(),
            1 => "the one who is able gave it back".to_owned(),
            count => format!("all {count} who are able gave it back"),
        };
        match self.when_none {
            WhenNone::Pass => Verdict::pass(reason),
            WhenNone::DeferMs(delay_ms) => Verdict::defer(delay_ms, reason),
            WhenNone::Drop => Verdict::drop(reason),
        }
    }
}

pointsman_sdk::export_router!(RoutingCapability);

#[cfg(test)]
mod tests {
    use pointsman_sdk::router::{CandidateFacts, Decision, MessageFacts, Question};
    use proptest::prelude::*;

    use super::*;

    fn router(json: &str) -> RoutingCapability {
        RoutingCapability::from_json(json).expect("fits")
    }

    fn ask(router: &RoutingCapability, message: &MessageFacts<'_>, candidates: &[CandidateFacts<'_>]) -> Verdict {
        Question::new(message, candidates).ask(router)
    }

    const ANA: CandidateFacts<'_> = CandidateFacts {
        agent: "ana",
        owner: "",
        satisfies: true,
        load: 0,
        open_reviews: 0,
        idle_ms: 0,
        acked: 9,
        nacked: 0,
        refused: false,
        teams: &[],
        capabilities: &[],
    };

    #[test]
    fn the_least_busy_comes_first() {
        let candidates = [
            CandidateFacts { agent: "busy", load: 3, ..ANA },
            CandidateFacts { agent: "unable", satisfies: false, ..ANA },
            CandidateFacts { agent: "reviewing", open_reviews: 1, ..ANA },
            CandidateFacts { agent: "asleep", idle_ms: 30 * 60_000, ..ANA },
            CandidateFacts { agent: "careless", acked: 1, nacked: 9, ..ANA },
            ANA,
        ];
        let verdict = ask(&router(""), &MessageFacts::default(), &candidates);
        assert_eq!(verdict.decision, Decision::Ranked(vec![5, 3, 2, 0, 4]));
        assert_eq!(verdict.reason, "best of 5 able: 0 waiting, 0 reviews owed");
    }

    #[test]
    fn the_author_and_who_refused_are_left_out() {
        let message = MessageFacts { author: "ana", attempt: 1, ..MessageFacts::default() };
        let candidates = [ANA, CandidateFacts { agent: "bob", refused: true, ..ANA }, CandidateFacts { agent: "cleo", load: 2, ..ANA }];
        let verdict = ask(&router(""), &message, &candidates);
        assert_eq!(verdict.decision, Decision::Ranked(vec![2]));
        assert_eq!(verdict.reason, "best of 1 able: 2 waiting, 0 reviews owed");
        let verdict = ask(&router(r#"{"when_none":{"defer-ms":500}}"#), &message, &candidates[..2]);
        assert_eq!((verdict.decision, verdict.reason.as_str()), (Decision::Defer(500), "the one who is able gave it back"));
        let verdict = ask(&router(""), &message, &candidates[..1]);
        assert_eq!((verdict.decision, verdict.reason.as_str()), (Decision::Pass, "nobody but the author is able"));
    }

    #[test]
    fn some_kinds_go_to_all_and_rankings_are_cut() {
        let candidates =
            [CandidateFacts { load: 5, ..ANA }, CandidateFacts { agent: "bob", ..ANA }, CandidateFacts { satisfies: false, ..ANA }];
        let notice = MessageFacts { kind: "notice", ..MessageFacts::default() };
        let verdict = ask(&router(r#"{"broadcast_kinds":["notice"]}"#), &notice, &candidates);
        assert_eq!(verdict.decision, Decision::Broadcast(vec![0, 1]));
        let verdict = ask(&router(r#"{"ranked_max":1}"#), &notice, &candidates);
        assert_eq!(verdict.decision, Decision::Ranked(vec![1]));
    }

    #[test]
    fn wrong_configurations_are_refused() {
        for (json, what) in [
            (r#"{"weights":{"loud":1}}"#, "unknown field `loud`"),
            (r#"{"weights":{"load":1001}}"#, "at most 1000"),
            (r#"{"ranked_max":0}"#, "1 to 1000"),
            (r#"{"when_none":"wait"}"#, "unknown variant `wait`"),
            (r#"{"broadcast_kinds":[""]}"#, "empty name"),
        ] {
            let error = RoutingCapability::from_json(json).expect_err(json);
            assert!(error.contains(what), "{json} gives {error}");
        }
    }

    proptest! {
        #[test]
        fn ranks_exactly_the_able_and_by_rising_cost(
            rows in prop::collection::vec((any::<bool>(), any::<bool>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<u32>(), any::<u32>()), 0..40),
        ) {
            let router = router(r#"{"ranked_max":1000,"weights":{"load":1000,"open_reviews":1000,"given_back":1000,"idle_minute":1000}}"#);
            let candidates: Vec<_> = rows.iter().map(|(satisfies, refused, load, open_reviews, idle_ms, acked, nacked)| CandidateFacts {
                satisfies: *satisfies, refused: *refused, load: *load, open_reviews: *open_reviews, idle_ms: *idle_ms, acked: *acked, nacked: *nacked, ..ANA
            }).collect();
            let question = Question::new(&MessageFacts::default(), &candidates);
            let (_, views) = question.views().expect("even");
            let all: Vec<_> = views.iter().collect();
            let able: Vec<u32> = all.iter().filter(|one| one.satisfies() && !one.refused()).map(Candidate::position).collect();
            match question.ask(&router).decision {
                Decision::Ranked(ranked) => {
                    prop_assert!(ranked.windows(2).all(|two| router.cost(&all[two[0] as usize]) <= router.cost(&all[two[1] as usize])));
                    let mut ranked = ranked;
                    ranked.sort_unstable();
                    prop_assert_eq!(ranked, able);
                }
                Decision::Pass => prop_assert!(able.is_empty()),
                other @ (Decision::Broadcast(_) | Decision::Drop | Decision::Defer(_)) => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
