//! Who gets a message that is addressed to a capability: the configured routers in their order, then the host's default.
//!
//! A router that fails is passed over unless the operator said otherwise (`on_failure`), and the record says so. The host's
//! default takes those who satisfy the address: agents heard of lately first, then the least loaded, then the least idle, then
//! by name.

use std::cmp::Reverse;
use std::sync::Arc;

use pointsman_core::agent::AgentRecord;
use pointsman_core::capability::CapabilityExpr;
use pointsman_core::ids::AgentId;
use pointsman_core::limits::{CANDIDATES_MAX, INBOX_DELIVERIES_MAX, PRESENT_MS};
use pointsman_core::message::Message;
use serde::Serialize;
use serde_json::{Value, json};

use super::Messaging;
use crate::ports::plugins::{PluginRef, RouteCandidate, RouteDecision, RouteMessage};
use crate::ports::registry::OnFailure;
use crate::service::agents::Seat;
use crate::service::failure::Failure;

/// Milliseconds after which a message is routed again whose router failed and is to be waited for.
const FAILED_DEFER_MS: u32 = 5_000;

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// To the first of these that takes it.
    Ranked(Vec<AgentId>),
    /// To each of these.
    All(Vec<AgentId>),
    /// Nobody can take it now.
    Nobody,
    /// Nobody gets it.
    Drop,
    /// Ask again after so many milliseconds.
    Defer(u32),
}

impl Choice {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Ranked(_) => "ranked",
            Self::All(_) => "broadcast",
            Self::Nobody => "nobody",
            Self::Drop => "drop",
            Self::Defer(_) => "defer",
        }
    }
}

/// What a router said before another decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Asked {
    router: String,
    outcome: String,
}

/// A decision with its grounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) choice: Choice,
    pub(super) reason: String,
    /// Who decided; none: the host.
    pub(super) router: Option<PluginRef>,
    /// Whether there are some who could take it, all of them with full inboxes.
    pub(super) are_full: bool,
    asked: Vec<Asked>,
    candidates: usize,
}

impl Decision {
    /// Returns the host's own decision.
    pub(super) fn host(choice: Choice, reason: impl Into<String>) -> Self {
        Self { choice, reason: reason.into(), router: None, are_full: false, asked: Vec::new(), candidates: 0 }
    }

    /// Returns the decision as an event's data.
    pub(super) fn data(&self) -> Value {
        json!({
            "decision": self.choice.word(), "reason": self.reason, "router": self.router, "asked": self.asked,
            "candidates": self.candidates,
        })
    }
}

/// What is to be decided.
pub(super) struct Question<'a> {
    pub(super) message: &'a Message,
    pub(super) expr: &'a CapabilityExpr,
    /// Routers, in the order they are asked.
    pub(super) routers: &'a [String],
    /// Times it was handed out before.
    pub(super) attempts: u32,
    /// Who gave it back.
    pub(super) refused: &'a [AgentId],
    /// Who may not get it: the sender, whoever has it already.
    pub(super) except: &'a [AgentId],
}

impl Messaging {
    /// Returns the routers of a message, in the order they are asked.
    pub(super) async fn routers(&self, message: &Message) -> Result<Vec<String>, Failure> {
        let slug = self.kit.slug(message.project).await?;
        Ok(self.kit.settings.bindings.now().routers(&slug, &message.kind).into_iter().map(str::to_owned).collect())
    }

    /// Decides who gets a message.
    pub(super) fn choose(&self, seats: &[Seat], question: &Question<'_>) -> Decision {
        let facts = self.message_facts(question);
        let (agents, candidates) = self.candidates(seats, question);
        let are_full = are_full(&candidates);
        let mut asked = Vec::new();
        for router in question.routers {
            let outcome = match self.kit.plugins.route(router, &facts, &candidates) {
                Ok(verdict) => match accept(verdict.decision, &agents, &candidates) {
                    Some(choice) => {
                        let plugin = self.kit.plugins.reference(router);
                        let candidates = candidates.len();
                        return Decision { choice, reason: verdict.reason, router: plugin, are_full, asked, candidates };
                    }
                    None => format!("passed: {}", verdict.reason),
                },
                Err(failure) => {
                    let choice = match self.kit.plugins.on_failure(router) {
                        OnFailure::FallBack => None,
                        OnFailure::Refuse => Some(Choice::Drop),
                        OnFailure::Defer => Some(Choice::Defer(FAILED_DEFER_MS)),
                    };
                    tracing::warn!(message = %question.message.id, %router, %failure, ?choice, "a router failed");
                    if let Some(choice) = choice {
                        let reason = format!("router `{router}` failed: {failure}");
                        return Decision { asked, candidates: candidates.len(), ..Decision::host(choice, reason) };
                    }
                    format!("failed: {failure}")
                }
            };
            asked.push(Asked { router: router.clone(), outcome });
        }
        let (choice, reason) = host_default(&agents, &candidates);
        Decision { choice, reason, router: None, are_full, asked, candidates: candidates.len() }
    }

    fn message_facts(&self, question: &Question<'_>) -> RouteMessage {
        let message = question.message;
        RouteMessage {
            kind: message.kind.clone(),
            author: message.from.name.clone(),
            provenance: message.provenance(),
            owner: message.from.principal.map(|owner| owner.to_string()).unwrap_or_default(),
            priority: message.priority,
            size_bytes: u32::try_from(message.body_bytes()).unwrap_or(u32::MAX),
            attempt: question.attempts,
            age_ms: self.kit.now().since_ms(message.sent_at),
            paths: message.paths.clone(),
            tags: message.tags.clone(),
            capabilities: question.expr.names().into_iter().map(str::to_owned).collect(),
        }
    }

    fn candidates(&self, seats: &[Seat], question: &Question<'_>) -> (Vec<Arc<AgentRecord>>, Vec<RouteCandidate>) {
        let now = self.kit.now();
        let mut all: Vec<(Arc<AgentRecord>, RouteCandidate)> = seats
            .iter()
            .filter(|seat| !question.except.contains(&seat.agent.id))
            .map(|seat| {
                let agent = &seat.agent;
                let facts = RouteCandidate {
                    agent: seat.facts.name,
                    owner: seat.facts.owner,
                    satisfies: question.expr.is_satisfied_by(&agent.capabilities),
                    load: seat.load,
                    open_reviews: seat.open_reviews,
                    idle_ms: now.since_ms(self.agents.last_call(agent)),
                    acked: agent.acked,
                    nacked: agent.nacked,
                    refused: question.refused.contains(&agent.id),
                    teams: Arc::clone(&seat.facts.teams),
                    capabilities: Arc::clone(&seat.facts.capabilities),
                };
                (Arc::clone(agent), facts)
            })
            .collect();
        if all.len() > CANDIDATES_MAX {
            all.sort_by_key(|(_, facts)| (Reverse(facts.satisfies), facts.refused, facts.idle_ms));
            all.truncate(CANDIDATES_MAX);
            all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        }
        all.into_iter().unzip()
    }
}

/// Returns a router's decision in ids; none when it has no opinion. Full inboxes are passed over in a ranking; a broadcast keeps them
/// where others have room, so that its sender hears who did not get it.
fn accept(decision: RouteDecision, agents: &[Arc<AgentRecord>], candidates: &[RouteCandidate]) -> Option<Choice> {
    let named = |positions: &[u32], is_wanted: fn(&RouteCandidate) -> bool| -> Vec<AgentId> {
        let place = |position: &u32| usize::try_from(*position).ok().filter(|&i| i < agents.len() && is_wanted(&candidates[i]));
        let mut named: Vec<AgentId> = Vec::new();
        for id in positions.iter().filter_map(place).map(|i| agents[i].id) {
            if !named.contains(&id) {
                named.push(id);
            }
        }
        named
    };
    let some = |agents: Vec<AgentId>, choice: fn(Vec<AgentId>) -> Choice| if agents.is_empty() { Choice::Nobody } else { choice(agents) };
    match decision {
        RouteDecision::Pass => None,
        RouteDecision::Ranked(positions) => Some(some(named(&positions, has_room), Choice::Ranked)),
        RouteDecision::Broadcast(positions) if named(&positions, has_room).is_empty() => Some(Choice::Nobody),
        RouteDecision::Broadcast(positions) => Some(Choice::All(named(&positions, |_| true))),
        RouteDecision::Drop => Some(Choice::Drop),
        RouteDecision::Defer(ms) => Some(Choice::Defer(ms)),
    }
}

fn has_room(candidate: &RouteCandidate) -> bool {
    !is_full(candidate)
}

fn is_full(candidate: &RouteCandidate) -> bool {
    usize::try_from(candidate.load).is_ok_and(|load| load >= INBOX_DELIVERIES_MAX)
}

/// Returns whether there are some who could take it, all of them with full inboxes.
fn are_full(candidates: &[RouteCandidate]) -> bool {
    let mut able = candidates.iter().filter(|facts| facts.satisfies && !facts.refused).peekable();
    able.peek().is_some() && able.all(is_full)
}

/// Returns what the host decides when no router does.
fn host_default(agents: &[Arc<AgentRecord>], candidates: &[RouteCandidate]) -> (Choice, String) {
    let mut able: Vec<usize> = (0..agents.len()).filter(|&i| candidates[i].satisfies && !candidates[i].refused).collect();
    let able_count = able.len();
    able.retain(|&i| !is_full(&candidates[i]));
    able.sort_by_key(|&i| {
        let facts = &candidates[i];
        (facts.idle_ms > PRESENT_MS, facts.load, facts.idle_ms, &agents[i].name)
    });
    match able.first() {
        Some(&first) => {
            let least = &agents[first].name;
            let reason = format!("{able_count} of {} agents satisfy the address, `{least}` has the least to do", agents.len());
            (Choice::Ranked(able.into_iter().map(|i| agents[i].id).collect()), reason)
        }
        None if able_count > 0 => (Choice::Nobody, format!("the inboxes of all {able_count} agents that satisfy the address are full")),
        None if candidates.iter().any(|facts| facts.satisfies) => {
            (Choice::Nobody, "all agents that satisfy the address gave it back".to_owned())
        }
        None => (Choice::Nobody, "no agent satisfies the address".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use pointsman_core::event::Provenance;
    use pointsman_core::ids::PrincipalId;
    use pointsman_core::time::TimeMs;

    use super::*;
    use crate::ports::plugins::Symbol;

    fn candidate(load: u32, idle_ms: u64) -> RouteCandidate {
        RouteCandidate {
            agent: Symbol::NONE,
            owner: Symbol::NONE,
            satisfies: true,
            load,
            open_reviews: 0,
            idle_ms,
            acked: 0,
            nacked: 0,
            refused: false,
            teams: Arc::from([]),
            capabilities: Arc::from([]),
        }
    }

    fn agents(count: u8) -> Vec<Arc<AgentRecord>> {
        let agent = |n| AgentRecord {
            id: AgentId::from_bytes([n; 16]),
            principal: PrincipalId::from_bytes([0; 16]),
            principal_name: String::new(),
            provenance: Provenance::Agent,
            name: format!("agent-{n}"),
            capabilities: Vec::new(),
            teams: Vec::new(),
            topics: Vec::new(),
            model: None,
            tasks: Vec::new(),
            started_at: TimeMs(0),
            acked: 0,
            nacked: 0,
        };
        (0..count).map(agent).map(Arc::new).collect()
    }

    #[test]
    fn the_default_prefers_who_is_there_and_has_little_to_do() {
        let candidates = [candidate(0, PRESENT_MS + 1), candidate(3, 0), candidate(1, 9), candidate(1, 2)];
        let agents = agents(4);
        let (choice, _) = host_default(&agents, &candidates);
        assert_eq!(choice, Choice::Ranked([3, 2, 1, 0].map(|i: usize| agents[i].id).to_vec()));
    }

    #[test]
    fn the_default_names_why_nobody_takes_it() {
        let cannot = RouteCandidate { satisfies: false, ..candidate(0, 0) };
        let refused = RouteCandidate { refused: true, ..candidate(0, 0) };
        let full = candidate(u32::try_from(INBOX_DELIVERIES_MAX).expect("small"), 0);
        for (candidates, word) in [(vec![cannot.clone()], "satisfies"), (vec![cannot, refused], "gave it back"), (vec![full], "full")] {
            let (choice, reason) = host_default(&agents(u8::try_from(candidates.len()).expect("few")), &candidates);
            assert_eq!(choice, Choice::Nobody);
            assert!(reason.contains(word), "{reason}");
        }
        assert_eq!(host_default(&[], &[]).0, Choice::Nobody);
    }

    #[test]
    fn a_crowd_is_told_from_nobody() {
        let full = candidate(u32::try_from(INBOX_DELIVERIES_MAX).expect("small"), 0);
        let cannot = RouteCandidate { satisfies: false, ..candidate(0, 0) };
        assert!(are_full(&[full.clone(), cannot.clone(), full.clone()]));
        assert!(!are_full(&[full, candidate(0, 0)]) && !are_full(&[cannot]) && !are_full(&[]));
    }

    #[test]
    fn a_verdict_over_full_inboxes_and_doubles_keeps_the_rest() {
        let full = candidate(u32::try_from(INBOX_DELIVERIES_MAX).expect("small"), 0);
        let (agents, candidates) = (agents(3), [candidate(0, 0), full, candidate(0, 0)]);
        let choice = |decision| accept(decision, &agents, &candidates);
        assert_eq!(choice(RouteDecision::Ranked(vec![2, 1, 2, 0])), Some(Choice::Ranked(vec![agents[2].id, agents[0].id])));
        assert_eq!(choice(RouteDecision::Broadcast(vec![1])), Some(Choice::Nobody));
        assert_eq!(choice(RouteDecision::Broadcast(vec![1, 0])), Some(Choice::All(vec![agents[1].id, agents[0].id])));
        assert_eq!(choice(RouteDecision::Pass), None);
    }
}
