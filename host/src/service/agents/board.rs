//! The board: what a project's log says about its agents and inboxes, kept in memory.
//!
//! It is read from the store once and then follows the log, so that counting an inbox or listing the agents costs nothing
//! that grows with either, whichever replica wrote. Events say what changed: each event about a delivery carries `inbox`, the standing
//! of the message with each agent concerned; each `agent.…` event names its agent in `agent`.
//!
//! **Invariant:** after [`Board::catch_up`] the board has seen every commit that was answered before the call.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use pointsman_core::agent::AgentRecord;
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::{AgentId, MessageId, PrincipalId, ProjectId};
use pointsman_core::inbox::{Delivery, DeliveryState};
use pointsman_core::time::TimeMs;
use serde_json::Value;

use super::latency::Latency;
use super::presence::{PRESENCE, Presence, Seen};
use super::{AGENTS, AGENTS_MAX, TALLIES, Tally, agent_key, tally_key};
use crate::ports::plugins::{Plugins, Symbol};
use crate::service::claims::Holding;
use crate::service::failure::Failure;
use crate::service::kit::Kit;
use crate::service::messaging::{DELIVERIES, REVIEW_REQUEST, Sleepers};

/// Events read at once.
const PAGE_EVENTS: usize = 256;
/// Events kept for those who wait.
const RECENT_EVENTS: usize = 1_024;

/// Where a live delivery stands, as events call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) enum Standing {
    /// To be handed out.
    Ready,
    /// Backing off.
    Waiting,
    /// Behind one of its thread that backs off.
    Held,
    /// Handed out.
    Leased,
    /// In this inbox no more.
    Gone,
}

impl Standing {
    /// Returns the standing of a delivery.
    pub(in crate::service) fn of(delivery: &Delivery) -> Self {
        match delivery.state {
            DeliveryState::Ready { .. } => Self::Ready,
            DeliveryState::Waiting { .. } => Self::Waiting,
            DeliveryState::Held { .. } => Self::Held,
            DeliveryState::Leased { .. } => Self::Leased,
            DeliveryState::Acked { .. }
            | DeliveryState::PassedOn { .. }
            | DeliveryState::DeadLettered { .. }
            | DeliveryState::Expired { .. } => Self::Gone,
        }
    }

    /// Returns the word for it.
    pub(in crate::service) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Leased => "leased",
            Self::Gone => "gone",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Ready, Self::Waiting, Self::Held, Self::Leased, Self::Gone].into_iter().find(|standing| standing.word() == word)
    }
}

/// What routers are told of an agent, interned once when it is read.
#[derive(Debug)]
pub(in crate::service) struct Facts {
    pub(in crate::service) name: Symbol,
    pub(in crate::service) owner: Symbol,
    pub(in crate::service) teams: Arc<[Symbol]>,
    pub(in crate::service) capabilities: Arc<[Symbol]>,
}

impl Facts {
    fn of(agent: &AgentRecord, plugins: &dyn Plugins) -> Self {
        Self {
            name: plugins.symbol(&agent.name),
            owner: plugins.symbol(&agent.principal.to_string()),
            teams: agent.teams.iter().map(|team| plugins.symbol(team)).collect(),
            capabilities: agent.capabilities.iter().map(|capability| plugins.symbol(&capability.name)).collect(),
        }
    }
}

/// An agent with what routing and listing need of its inbox.
#[derive(Debug, Clone)]
pub(in crate::service) struct Seat {
    /// Who.
    pub(in crate::service) agent: Arc<AgentRecord>,
    /// Its texts, as routers are told them.
    pub(in crate::service) facts: Arc<Facts>,
    /// Deliveries waiting or leased.
    pub(in crate::service) load: u32,
    /// Reviews asked for and not acked.
    pub(in crate::service) open_reviews: u32,
}

/// A delivery in an inbox.
#[derive(Debug, Clone, Copy)]
struct Live {
    standing: Standing,
    is_review: bool,
    /// When it came into this inbox, as far as that is known.
    arrived_at: Option<TimeMs>,
    /// When it was first handed out from it, as far as that is known.
    seen_at: Option<TimeMs>,
}

/// What an event says of a delivery.
#[derive(Debug, Clone, Copy)]
struct Change {
    standing: Standing,
    is_review: Option<bool>,
    /// When it happened; none: it is how things stood when the board was read.
    at: Option<TimeMs>,
    is_ack: bool,
}

#[derive(Debug, Default)]
struct Inbox {
    live: HashMap<MessageId, Live>,
    ready: u32,
    /// Those that back off or are held.
    still: u32,
    reviews: u32,
    latency: Latency,
}

impl Inbox {
    fn set(&mut self, message: MessageId, change: Change) {
        let Change { standing, is_review, at, is_ack } = change;
        let before = self.live.remove(&message);
        if let Some(before) = before {
            self.ready -= u32::from(before.standing == Standing::Ready);
            self.still -= u32::from(matches!(before.standing, Standing::Waiting | Standing::Held));
            self.reviews -= u32::from(before.is_review);
        }
        let mut arrived_at = before.map_or(at, |before| before.arrived_at);
        let mut seen_at = before.and_then(|before| before.seen_at);
        if let (Some(seen), Some(at), true) = (seen_at, at, is_ack) {
            self.latency.acted.add(at.since_ms(seen));
        }
        if standing == Standing::Gone {
            return;
        }
        if standing == Standing::Leased && seen_at.is_none() {
            if let (Some(arrived), Some(at)) = (arrived_at, at) {
                self.latency.seen.add(at.since_ms(arrived));
                seen_at = Some(at);
            }
            // What was handed out before the board was read is measured no more.
            arrived_at = None;
        }
        let is_review = is_review.or(before.map(|before| before.is_review)).unwrap_or(false);
        self.ready += u32::from(standing == Standing::Ready);
        self.still += u32::from(matches!(standing, Standing::Waiting | Standing::Held));
        self.reviews += u32::from(is_review);
        self.live.insert(message, Live { standing, is_review, arrived_at, seen_at });
    }
}

#[derive(Debug, Default)]
struct State {
    /// The store's epoch this was read in; none: not read yet.
    epoch: Option<u64>,
    cursor: Cursor,
    agents: BTreeMap<AgentId, (Arc<AgentRecord>, Arc<Facts>)>,
    names: BTreeMap<String, AgentId>,
    presence: HashMap<AgentId, (Presence, TimeMs)>,
    inboxes: HashMap<AgentId, Inbox>,
    recent: VecDeque<Arc<Event>>,
    /// What agents hold, of those who were asked for since it last may have changed.
    holds: HashMap<AgentId, Arc<[Holding]>>,
    /// Rises when it may have changed.
    holds_turn: u64,
}

impl State {
    fn seat(&mut self, agent: AgentRecord, plugins: &dyn Plugins) {
        let facts = Arc::new(Facts::of(&agent, plugins));
        self.names.insert(agent.name.clone(), agent.id);
        self.agents.insert(agent.id, (Arc::new(agent), facts));
    }

    fn apply(&mut self, event: &Arc<Event>) {
        if let (Some(inbox), Ok(message)) = (event.event.data.get("inbox").and_then(Value::as_object), event.event.subject.parse()) {
            let is_review = event.event.data.get("kind").and_then(Value::as_str).map(|kind| kind == REVIEW_REQUEST);
            let is_ack = event.event.kind == "message.acked";
            for (agent, standing) in inbox {
                if let (Ok(agent), Some(standing)) = (agent.parse(), standing.as_str().and_then(Standing::from_word)) {
                    let change = Change { standing, is_review, at: Some(event.at), is_ack };
                    self.inboxes.entry(agent).or_default().set(message, change);
                }
            }
        }
        if let (Some(agent), "agent.started" | "agent.back" | "agent.away") = (event.event.subject.parse().ok(), event.event.kind.as_str())
        {
            let known = self.presence.get(&agent).copied();
            self.presence.insert(agent, standing_after(known, event));
        }
        if may_change_holds(&event.event.kind) {
            self.holds.clear();
            self.holds_turn += 1;
        }
        self.cursor = event.cursor;
        if self.recent.len() >= RECENT_EVENTS {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(event));
    }
}

/// Returns whether an agent is there after such an event about it, and since when.
fn standing_after(known: Option<(Presence, TimeMs)>, event: &Event) -> (Presence, TimeMs) {
    let since = event.event.data.get("since").and_then(Value::as_str).and_then(TimeMs::from_rfc3339);
    match (event.event.kind.as_str(), known) {
        ("agent.away", _) => (Presence::Away, since.unwrap_or(event.at)),
        ("agent.started", Some((Presence::Present, since))) => (Presence::Present, since),
        _ => (Presence::Present, event.at),
    }
}

/// Returns whether a commit with such an event may change what agents hold: each that does has one about a task, a branch or a
/// merge.
fn may_change_holds(kind: &str) -> bool {
    !["message.", "messages.", "agent.", "context.", "mcp.", "resource.", "offers.", "resident."]
        .iter()
        .any(|about| kind.starts_with(about))
}

/// What is known of one project.
pub(in crate::service) struct Board {
    project: ProjectId,
    sleepers: Arc<Sleepers>,
    state: Mutex<State>,
    /// Whoever reads the log; the others wait for it and find the work done.
    reading: tokio::sync::Mutex<()>,
}

impl Board {
    pub(super) fn new(project: ProjectId) -> Self {
        Self { project, sleepers: Arc::default(), state: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    fn has_seen(&self, head: Cursor, epoch: u64) -> bool {
        let state = self.state.lock();
        state.epoch == Some(epoch) && state.cursor >= head
    }

    /// Returns whether it was ever read.
    pub(super) fn is_read(&self) -> bool {
        self.state.lock().epoch.is_some()
    }

    /// Reads the log up to its end.
    pub(super) async fn catch_up(&self, kit: &Kit) -> Result<(), Failure> {
        let head = kit.store.head(Some(self.project)).await?;
        let epoch = kit.store.epoch();
        if self.has_seen(head, epoch) {
            return Ok(());
        }
        let _turn = self.reading.lock().await;
        if self.state.lock().epoch != Some(epoch) {
            self.read_all(kit, epoch).await?;
        }
        while !self.has_seen(head, epoch) {
            let from = self.state.lock().cursor;
            let events = kit.store.events(Some(self.project), from, PAGE_EVENTS).await?;
            if events.is_empty() {
                break;
            }
            let changed = self.reload(kit, &events).await?;
            let mut state = self.state.lock();
            changed.into_iter().for_each(|agent| state.seat(agent, &*kit.plugins));
            let events: Vec<Arc<Event>> = events.into_iter().map(Arc::new).collect();
            events.iter().for_each(|event| state.apply(event));
            self.sleepers.tell(from, &events, |id| state.agents.get(&id).map(|(agent, _)| Arc::clone(agent)));
        }
        Ok(())
    }

    /// Reads everything anew. What is written meanwhile is read again from the log: all entries are absolute.
    async fn read_all(&self, kit: &Kit, epoch: u64) -> Result<(), Failure> {
        let project = Some(self.project);
        let cursor = kit.store.head(project).await?;
        let mut state = State { epoch: Some(epoch), cursor, ..State::default() };
        let tallies = kit.load_all::<Tally>(project, TALLIES, AGENTS_MAX).await?;
        let tallies: HashMap<String, Tally> = tallies.into_iter().map(|(key, found)| (key, found.value)).collect();
        for (_, found) in kit.load_all::<AgentRecord>(project, AGENTS, AGENTS_MAX).await? {
            let tally = tallies.get(&tally_key(found.value.id)).copied().unwrap_or_default();
            state.seat(AgentRecord { acked: tally.acked, nacked: tally.nacked, ..found.value }, &*kit.plugins);
        }
        for (key, found) in kit.load_all::<Seen>(project, PRESENCE, AGENTS_MAX).await? {
            if let Some(agent) = key.strip_prefix(PRESENCE).and_then(|id| id.parse().ok()) {
                state.presence.insert(agent, (found.value.presence, found.value.since));
            }
        }
        for (_, found) in kit.load_all::<Delivery>(project, DELIVERIES, usize::MAX).await? {
            let delivery = found.value;
            let inbox = state.inboxes.entry(delivery.agent).or_default();
            let arrived_at = match delivery.state {
                DeliveryState::Ready { since } | DeliveryState::Held { since, .. } if delivery.attempts_here == 0 => Some(since),
                DeliveryState::Ready { .. }
                | DeliveryState::Held { .. }
                | DeliveryState::Waiting { .. }
                | DeliveryState::Leased { .. }
                | DeliveryState::Acked { .. }
                | DeliveryState::PassedOn { .. }
                | DeliveryState::DeadLettered { .. }
                | DeliveryState::Expired { .. } => None,
            };
            let is_review = Some(delivery.is_review);
            inbox.set(delivery.message, Change { standing: Standing::of(&delivery), is_review, at: arrived_at, is_ack: false });
        }
        let mut present = self.state.lock();
        state.holds_turn = present.holds_turn + 1;
        *present = state;
        self.sleepers.tell_all(cursor);
        Ok(())
    }

    /// Returns the agents that these events changed, as they are now.
    async fn reload(&self, kit: &Kit, events: &[Event]) -> Result<Vec<AgentRecord>, Failure> {
        let project = Some(self.project);
        let about_agents = |event: &&Event| {
            let kind = event.event.kind.as_str();
            kind.starts_with("agent.") || matches!(kind, "message.acked" | "message.nacked" | "message.lapsed" | "message.dead_lettered")
        };
        let named = |event: &Event| event.event.data.get("agent").and_then(Value::as_str).and_then(|id| id.parse().ok());
        let ids: BTreeSet<AgentId> = events.iter().filter(about_agents).filter_map(named).collect();
        let mut changed = Vec::new();
        for id in ids {
            let Some(found) = kit.load::<AgentRecord>(project, &agent_key(id)).await? else { continue };
            let tally = kit.load::<Tally>(project, &tally_key(id)).await?.map(|tally| tally.value).unwrap_or_default();
            changed.push(AgentRecord { acked: tally.acked, nacked: tally.nacked, ..found.value });
        }
        Ok(changed)
    }

    /// Returns those who wait for what happens.
    pub(in crate::service) fn sleepers(&self) -> &Arc<Sleepers> {
        &self.sleepers
    }

    /// Returns what an agent holds, when that is known, and the turn in which it is not.
    pub(in crate::service) fn holds(&self, agent: AgentId) -> Result<Arc<[Holding]>, u64> {
        let state = self.state.lock();
        state.holds.get(&agent).cloned().ok_or(state.holds_turn)
    }

    /// Keeps what was read in a turn, unless it may have changed since.
    pub(in crate::service) fn keep_holds(&self, turn: u64, agent: AgentId, holds: &Arc<[Holding]>) {
        let mut state = self.state.lock();
        if state.holds_turn == turn {
            state.holds.insert(agent, Arc::clone(holds));
        }
    }

    /// Returns where in the log the board stands.
    pub(in crate::service) fn cursor(&self) -> Cursor {
        self.state.lock().cursor
    }

    /// Returns an agent.
    pub(in crate::service) fn agent(&self, id: AgentId) -> Option<Arc<AgentRecord>> {
        self.state.lock().agents.get(&id).map(|(agent, _)| Arc::clone(agent))
    }

    /// Returns an agent by its name or id.
    pub(in crate::service) fn named(&self, name_or_id: &str) -> Option<Arc<AgentRecord>> {
        let state = self.state.lock();
        let id = state.names.get(name_or_id).copied().or_else(|| name_or_id.parse().ok())?;
        state.agents.get(&id).map(|(agent, _)| Arc::clone(agent))
    }

    /// Returns the agent that a principal started last.
    pub(super) fn last_started(&self, principal: PrincipalId) -> Option<Arc<AgentRecord>> {
        let state = self.state.lock();
        let own = state.agents.values().map(|(agent, _)| agent).filter(|agent| agent.principal == principal);
        own.max_by_key(|agent| (agent.started_at, agent.id)).cloned()
    }

    /// Returns all agents, by name.
    pub(in crate::service) fn roster(&self) -> Vec<Seat> {
        let state = self.state.lock();
        let seat = |id: &AgentId| {
            let inbox = state.inboxes.get(id);
            let load = inbox.map_or(0, |inbox| u32::try_from(inbox.live.len()).unwrap_or(u32::MAX));
            let (agent, facts) = state.agents.get(id)?.clone();
            Some(Seat { agent, facts, load, open_reviews: inbox.map_or(0, |inbox| inbox.reviews) })
        };
        state.names.values().filter_map(seat).collect()
    }

    /// Returns how many deliveries an agent's next waits would hand out.
    pub(in crate::service) fn ready(&self, agent: AgentId) -> u32 {
        self.state.lock().inboxes.get(&agent).map_or(0, |inbox| inbox.ready)
    }

    /// Returns how many deliveries of an agent back off or are held behind one that does.
    pub(in crate::service) fn still(&self, agent: AgentId) -> u32 {
        self.state.lock().inboxes.get(&agent).map_or(0, |inbox| inbox.still)
    }

    /// Returns whether an agent is there and since when, if that was noted.
    pub(super) fn presence(&self, agent: AgentId) -> Option<(Presence, TimeMs)> {
        self.state.lock().presence.get(&agent).copied()
    }

    /// Returns how many deliveries an agent has waiting or leased.
    pub(in crate::service) fn load(&self, agent: AgentId) -> u32 {
        let state = self.state.lock();
        state.inboxes.get(&agent).map_or(0, |inbox| u32::try_from(inbox.live.len()).unwrap_or(u32::MAX))
    }

    /// Returns what an agent was handed and has neither acked nor given back, the oldest first.
    pub(in crate::service) fn leased(&self, agent: AgentId) -> Vec<MessageId> {
        let state = self.state.lock();
        let Some(inbox) = state.inboxes.get(&agent) else { return Vec::new() };
        let mut leased: Vec<MessageId> =
            inbox.live.iter().filter(|(_, live)| live.standing == Standing::Leased).map(|(message, _)| *message).collect();
        leased.sort_unstable();
        leased
    }

    /// Returns how long messages waited for an agent.
    pub(in crate::service) fn latency(&self, agent: AgentId) -> Latency {
        self.state.lock().inboxes.get(&agent).map(|inbox| inbox.latency.clone()).unwrap_or_default()
    }

    /// Adds how long messages waited for any agent.
    pub(super) fn add_latency(&self, all: &mut Latency) {
        for inbox in self.state.lock().inboxes.values() {
            all.seen.add_all(&inbox.latency.seen);
            all.acted.add_all(&inbox.latency.acted);
        }
    }

    /// Returns the events after a cursor, at most `limit`; none when they lie too far back.
    pub(in crate::service) fn recent(&self, after: Cursor, limit: usize) -> Option<Vec<Arc<Event>>> {
        let state = self.state.lock();
        if after >= state.cursor {
            return Some(Vec::new());
        }
        let first = state.recent.front()?.cursor;
        let reaches = first.epoch == after.epoch && first.seq <= after.seq + 1;
        let start = state.recent.partition_point(|event| event.cursor <= after);
        reaches.then(|| state.recent.iter().skip(start).take(limit).cloned().collect())
    }
}
