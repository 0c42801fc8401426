//! Questions written down in words, for tests and measurements outside a component.

use super::{Candidates, Message, Provenance, Router, Symbol, Verdict, raw};

/// A message in words. Names are interned when the question is made.
#[derive(Debug, Clone, Copy)]
pub struct MessageFacts<'a> {
    /// Its kind.
    pub kind: &'a str,
    /// The agent that sent it.
    pub author: &'a str,
    /// The principal behind that agent.
    pub owner: &'a str,
    /// 0 to 9.
    pub priority: u8,
    /// Bytes of the body.
    pub size_bytes: u32,
    /// Deliveries tried and given back.
    pub attempt: u32,
    /// Milliseconds since it was sent.
    pub age_ms: u64,
    /// Paths it speaks of.
    pub paths: &'a [&'a str],
    /// Labels.
    pub tags: &'a [&'a str],
    /// Capability names its address asks for.
    pub capabilities: &'a [&'a str],
}

impl Default for MessageFacts<'_> {
    fn default() -> Self {
        Self {
            kind: "question",
            author: "",
            owner: "",
            priority: 4,
            size_bytes: 0,
            attempt: 0,
            age_ms: 0,
            paths: &[],
            tags: &[],
            capabilities: &[],
        }
    }
}

/// A candidate in words.
#[derive(Debug, Clone, Copy)]
pub struct CandidateFacts<'a> {
    /// The agent.
    pub agent: &'a str,
    /// The principal behind it.
    pub owner: &'a str,
    /// Whether it satisfies the address.
    pub satisfies: bool,
    /// Deliveries waiting or leased.
    pub load: u32,
    /// Reviews it owes.
    pub open_reviews: u32,
    /// Milliseconds since its last call.
    pub idle_ms: u64,
    /// Deliveries acknowledged.
    pub acked: u32,
    /// Deliveries given back.
    pub nacked: u32,
    /// Whether it gave this message back.
    pub refused: bool,
    /// Its teams.
    pub teams: &'a [&'a str],
    /// The names of its capabilities.
    pub capabilities: &'a [&'a str],
}

impl Default for CandidateFacts<'_> {
    fn default() -> Self {
        Self {
            agent: "",
            owner: "",
            satisfies: true,
            load: 0,
            open_reviews: 0,
            idle_ms: 0,
            acked: 0,
            nacked: 0,
            refused: false,
            teams: &[],
            capabilities: &[],
        }
    }
}

/// A whole question as it would cross the boundary.
#[derive(Debug, Clone)]
pub struct Question {
    /// The message.
    pub message: raw::Message,
    /// The candidates.
    pub candidates: raw::Candidates,
}

impl Question {
    /// Returns the question that the facts make.
    #[must_use]
    pub fn new(message: &MessageFacts<'_>, candidates: &[CandidateFacts<'_>]) -> Self {
        Self { message: message_record(message), candidates: candidate_lists(candidates) }
    }

    /// Asks a router.
    pub fn ask(&self, router: &impl Router) -> Verdict {
        router.route_raw(&self.message, &self.candidates)
    }

    /// Has a function decide it, as the one under `#[pointsman_sdk::router]`.
    pub fn decide(&self, route: impl FnOnce(&Message<'_>, &Candidates<'_>) -> Verdict) -> Verdict {
        match Candidates::new(&self.candidates) {
            Ok(candidates) => route(&Message::new(&self.message), &candidates),
            Err(uneven) => Verdict::pass(uneven.to_string()),
        }
    }

    /// Returns the views a router sees; none when the lists were made uneven.
    #[must_use]
    pub fn views(&self) -> Option<(Message<'_>, Candidates<'_>)> {
        Some((Message::new(&self.message), Candidates::new(&self.candidates).ok()?))
    }
}

fn message_record(facts: &MessageFacts<'_>) -> raw::Message {
    raw::Message {
        kind: number(facts.kind),
        author: number(facts.author),
        provenance: Provenance::Agent,
        owner: number(facts.owner),
        priority: facts.priority,
        size_bytes: facts.size_bytes,
        attempt: facts.attempt,
        age_ms: facts.age_ms,
        paths: numbers(facts.paths),
        tags: numbers(facts.tags),
        capabilities: numbers(facts.capabilities),
    }
}

fn candidate_lists(facts: &[CandidateFacts<'_>]) -> raw::Candidates {
    let (team_start, teams) = joined(facts.iter().map(|one| one.teams));
    let (capability_start, capabilities) = joined(facts.iter().map(|one| one.capabilities));
    raw::Candidates {
        agent: facts.iter().map(|one| number(one.agent)).collect(),
        owner: facts.iter().map(|one| number(one.owner)).collect(),
        satisfies: facts.iter().map(|one| u8::from(one.satisfies)).collect(),
        load: facts.iter().map(|one| one.load).collect(),
        open_reviews: facts.iter().map(|one| one.open_reviews).collect(),
        idle_ms: facts.iter().map(|one| one.idle_ms).collect(),
        acked: facts.iter().map(|one| one.acked).collect(),
        nacked: facts.iter().map(|one| one.nacked).collect(),
        refused: facts.iter().map(|one| u8::from(one.refused)).collect(),
        team_start,
        teams,
        capability_start,
        capabilities,
    }
}

fn number(text: &str) -> u32 {
    Symbol::intern(text).map_or(0, Symbol::raw)
}

fn numbers(texts: &[&str]) -> Vec<u32> {
    texts.iter().map(|text| number(text)).collect()
}

fn joined<'a>(parts: impl Iterator<Item = &'a [&'a str]>) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0];
    let mut values = Vec::new();
    for part in parts {
        values.extend(numbers(part));
        starts.push(u32::try_from(values.len()).unwrap_or(u32::MAX));
    }
    (starts, values)
}
