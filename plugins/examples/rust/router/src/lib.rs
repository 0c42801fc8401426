//! A router: of the agents that are able, whoever has the least to do comes first.
//!
//! The host asks once for each message and tries the agents of the answer one after the other. The author of a message and
//! whoever gave it back before are left out. The same question must have the same answer: there is no clock and no chance here.

use pointsman_sdk::router::{Candidate, Candidates, Message, Ranking, Symbol, Verdict};

/// What the operator can set, under `[plugins.NAME.config]`.
#[pointsman_sdk::config]
#[serde(default)]
#[derive(Debug)]
pub struct Config {
    /// Kinds of messages that go to everyone who is able, such as `notice`.
    pub broadcast_kinds: Vec<Symbol>,
    /// How many agents are tried, one after the other.
    #[schemars(range(min = 1, max = 100))]
    pub ranked_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { broadcast_kinds: Vec::new(), ranked_max: 8 }
    }
}

/// Decides one message.
#[pointsman_sdk::router]
pub fn route(message: &Message, candidates: &Candidates, config: &Config) -> Verdict {
    // Names are numbers here: comparing two costs nothing, and `.name()` gives the text where it is needed.
    let able = |one: &Candidate| one.satisfies() && !one.refused() && one.agent() != message.author();
    if config.broadcast_kinds.contains(&message.kind()) {
        let all = candidates.iter().filter(able).map(|one| one.position()).collect();
        return Verdict::broadcast(all, "a kind for everyone");
    }
    let mut ranking = Ranking::best_of(config.ranked_max);
    for one in candidates.iter().filter(able) {
        ranking.add(&one, one.load() + 2 * one.open_reviews());
    }
    // The reason is what `pointsman why` shows; nobody ranked means "no opinion".
    Verdict::ranked(ranking.positions(), "the least busy first")
}

#[cfg(test)]
mod tests {
    use pointsman_sdk::router::{CandidateFacts, Decision, MessageFacts, Question};

    use super::*;

    fn decide(config: &str, kind: &str) -> Decision {
        let config: Config = pointsman_sdk::read_config(config).expect("it fits");
        let message = MessageFacts { kind, author: "ana", ..MessageFacts::default() };
        let candidates = [
            CandidateFacts { agent: "ana", ..CandidateFacts::default() },
            CandidateFacts { agent: "bob", load: 3, ..CandidateFacts::default() },
            CandidateFacts { agent: "cleo", open_reviews: 1, ..CandidateFacts::default() },
            CandidateFacts { agent: "dan", satisfies: false, ..CandidateFacts::default() },
        ];
        Question::new(&message, &candidates).decide(|message, candidates| route(message, candidates, &config)).decision
    }

    #[test]
    fn the_least_busy_comes_first_and_the_author_never() {
        assert_eq!(decide("", "question"), Decision::Ranked(vec![2, 1]));
        assert_eq!(decide(r#"{"ranked_max": 1}"#, "question"), Decision::Ranked(vec![2]));
    }

    #[test]
    fn some_kinds_go_to_everyone_who_is_able() {
        assert_eq!(decide(r#"{"broadcast_kinds": ["notice"]}"#, "notice"), Decision::Broadcast(vec![1, 2]));
    }
}
