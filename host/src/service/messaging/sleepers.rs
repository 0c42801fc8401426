//! Who waits in a project, and for what: an event wakes those whom it concerns, and nobody else.
//!
//! The board tells what happened as it reads the log. Somebody has to have it read on: of those who wait one watches the store's hints
//! for all, and hands that on when it leaves.
//!
//! **Invariants:**
//! - Where somebody waits somebody watches.
//! - What concerns one who waits was told it, or lies behind the place that [`Sleeper::quiet_until`] returns.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use pointsman_core::agent::AgentRecord;
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::{AgentId, TaskId};
use pointsman_core::path_glob::PathGlob;
use tokio::sync::Notify;

use super::interest::{Arrivals, Interest};

/// What one waits for, beside messages.
#[derive(Debug, Clone, Default)]
pub(super) struct Wishes {
    /// Tasks it holds, beside those its record names.
    pub(super) tasks: Arc<[TaskId]>,
    /// Context keys.
    pub(super) watch: Arc<[PathGlob]>,
}

/// One who waits.
struct Asleep {
    agent: AgentId,
    wishes: Wishes,
    bell: Arc<Notify>,
    /// The place before the first event that concerns it and that it was not asked about since.
    rung_at: Option<Cursor>,
}

#[derive(Default)]
struct State {
    asleep: BTreeMap<u64, Asleep>,
    by_agent: HashMap<AgentId, Vec<u64>>,
    next: u64,
    watcher: Option<u64>,
    /// How far events were told.
    told: Cursor,
}

/// Those who wait in a project.
#[derive(Default)]
pub(in crate::service) struct Sleepers {
    state: Mutex<State>,
}

/// A place among those who wait, given up when dropped.
pub(super) struct Sleeper {
    sleepers: Arc<Sleepers>,
    number: u64,
    bell: Arc<Notify>,
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let mut state = self.sleepers.state.lock();
        if let Some(gone) = state.asleep.remove(&self.number) {
            let own = state.by_agent.get_mut(&gone.agent);
            if own.is_some_and(|own| {
                own.retain(|number| *number != self.number);
                own.is_empty()
            }) {
                state.by_agent.remove(&gone.agent);
            }
        }
        if state.watcher == Some(self.number) {
            state.watcher = state.asleep.keys().next().copied();
            if let Some(next) = state.watcher.and_then(|next| state.asleep.get(&next)) {
                next.bell.notify_one();
            }
        }
    }
}

impl Sleeper {
    /// Waits until something may concern it, or it has to watch for all.
    pub(super) async fn woken(&self) {
        self.bell.notified().await;
    }

    /// Returns whether it is the one who watches for all.
    pub(super) fn watches(&self) -> bool {
        self.sleepers.state.lock().watcher == Some(self.number)
    }

    /// Returns a place in the log up to which nothing concerns it that it was not told, and forgets what rang.
    pub(super) fn quiet_until(&self) -> Cursor {
        let mut state = self.sleepers.state.lock();
        let told = state.told;
        state.asleep.get_mut(&self.number).and_then(|own| own.rung_at.take()).unwrap_or(told)
    }
}

impl Sleepers {
    /// Takes a place for an agent. What happens from now on wakes it, if it concerns it.
    pub(super) fn lie_down(self: &Arc<Self>, agent: AgentId, wishes: Wishes) -> Sleeper {
        let bell = Arc::new(Notify::new());
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.asleep.insert(number, Asleep { agent, wishes, bell: Arc::clone(&bell), rung_at: None });
        state.by_agent.entry(agent).or_default().push(number);
        state.watcher.get_or_insert(number);
        Sleeper { sleepers: Arc::clone(self), number, bell }
    }

    /// Wakes those whom events concern. `before`: the place before the first of them; `agent`: an agent's record as it is now.
    pub(in crate::service) fn tell(&self, before: Cursor, events: &[Arc<Event>], agent: impl Fn(AgentId) -> Option<Arc<AgentRecord>>) {
        let mut state = self.state.lock();
        let mut place = before;
        for event in events {
            let found = concerned(&state, event, &agent);
            for number in found {
                if let Some(one) = state.asleep.get_mut(&number) {
                    one.rung_at.get_or_insert(place);
                    one.bell.notify_one();
                }
            }
            place = event.cursor;
        }
        state.told = place;
    }

    /// Wakes everybody: what happened since cannot be told one by one.
    pub(in crate::service) fn tell_all(&self, now: Cursor) {
        let mut state = self.state.lock();
        for one in state.asleep.values_mut() {
            one.rung_at = Some(Cursor::default());
            one.bell.notify_one();
        }
        state.told = now;
    }
}

/// Returns those whom an event concerns. Most events are about one message: only its sender and recipients are asked then.
fn concerned(state: &State, event: &Event, agent: &impl Fn(AgentId) -> Option<Arc<AgentRecord>>) -> Vec<u64> {
    let of_agent = |id: &str| id.parse().ok().and_then(|id: AgentId| state.by_agent.get(&id)).into_iter().flatten().copied();
    let asked: Vec<u64> = match event.event.kind.split_once('.').map_or("", |(about, _)| about) {
        "message" => {
            let inbox = event.event.data.get("inbox").and_then(serde_json::Value::as_object);
            let sender = event.event.data.get("sender").and_then(serde_json::Value::as_str);
            inbox.into_iter().flat_map(|inbox| inbox.keys().map(String::as_str)).chain(sender).flat_map(of_agent).collect()
        }
        "context" => {
            let named = event.event.data.get("agents").and_then(serde_json::Value::as_array);
            let named = named.into_iter().flatten().filter_map(serde_json::Value::as_str).flat_map(of_agent);
            let watching = state.asleep.iter().filter(|(_, one)| !one.wishes.watch.is_empty()).map(|(number, _)| *number);
            watching.chain(named).collect()
        }
        "task" | "merge" => state.asleep.keys().copied().collect(),
        _ => return Vec::new(),
    };
    let is_concerned = |number: &u64| {
        let Some(one) = state.asleep.get(number) else { return false };
        // One that is not on record yet is woken rather than passed over.
        let Some(record) = agent(one.agent) else { return true };
        let interest =
            Interest { agent: &record, tasks: &one.wishes.tasks, watch: &one.wishes.watch, arrivals: Arrivals::Told, keys: None };
        // What comes into its inbox concerns it, also by an act of its own elsewhere.
        interest.covers(&event.event) || interest.is_arrival(&event.event)
    };
    asked.into_iter().filter(is_concerned).collect()
}

#[cfg(test)]
mod tests {
    use pointsman_core::event::{Actor, NewEvent, Provenance};
    use pointsman_core::ids::{PrincipalId, ProjectId};
    use pointsman_core::time::TimeMs;
    use serde_json::{Value, json};

    use super::*;

    fn id(n: u8) -> AgentId {
        AgentId::from_bytes([n; 16])
    }

    #[expect(clippy::unnecessary_wraps, reason = "the form of a look-up")]
    fn record(id: AgentId) -> Option<Arc<AgentRecord>> {
        Some(Arc::new(AgentRecord {
            id,
            principal: PrincipalId::from_bytes([2; 16]),
            principal_name: String::new(),
            provenance: Provenance::Agent,
            name: format!("agent-{id}"),
            capabilities: Vec::new(),
            teams: Vec::new(),
            topics: Vec::new(),
            model: None,
            tasks: Vec::new(),
            started_at: TimeMs(0),
            acked: 0,
            nacked: 0,
        }))
    }

    fn event(seq: u64, kind: &str, subject: &str, data: Value) -> Arc<Event> {
        let event = NewEvent::new(kind, Actor::host(), subject, data);
        Arc::new(Event { cursor: Cursor { epoch: 0, seq }, at: TimeMs(0), project: ProjectId::from_bytes([1; 16]), event })
    }

    async fn is_woken(sleeper: &Sleeper) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, sleeper.woken()).await.is_ok()
    }

    #[tokio::test]
    async fn an_event_wakes_those_it_concerns_and_nobody_else() {
        let sleepers = Arc::new(Sleepers::default());
        let (ana, bo) = (sleepers.lie_down(id(1), Wishes::default()), sleepers.lie_down(id(2), Wishes::default()));
        let watch: Arc<[PathGlob]> = ["plan/**".parse().expect("a glob")].into();
        let reader = sleepers.lie_down(id(3), Wishes { watch, ..Wishes::default() });
        let arrives = event(5, "message.routed", "msg_x", json!({"inbox": {id(1).to_string(): "ready"}, "sender": id(2)}));
        sleepers.tell(Cursor { epoch: 0, seq: 4 }, &[arrives], record);
        assert!(is_woken(&ana).await && !is_woken(&bo).await && !is_woken(&reader).await);
        assert_eq!((ana.quiet_until().seq, bo.quiet_until().seq), (4, 5), "who was not woken need not look at it");
        assert_eq!(ana.quiet_until().seq, 5, "what rang is forgotten once it was asked for");

        let written = event(6, "context.written", "ctx:plan/api", json!({}));
        let held = event(7, "task.lapsed", "T-1", json!({"agent": id(2)}));
        sleepers.tell(Cursor { epoch: 0, seq: 5 }, &[written, held], record);
        assert!(!is_woken(&ana).await && is_woken(&bo).await && is_woken(&reader).await);
        assert_eq!((reader.quiet_until().seq, bo.quiet_until().seq), (5, 6));
        sleepers.tell_all(Cursor { epoch: 1, seq: 1 });
        assert!(is_woken(&ana).await && is_woken(&bo).await);
        assert_eq!(ana.quiet_until(), Cursor::default(), "everything is to be looked at");
    }

    #[tokio::test]
    async fn what_an_agent_brought_into_its_own_inbox_elsewhere_wakes_it() {
        let sleepers = Arc::new(Sleepers::default());
        let ana = sleepers.lie_down(id(1), Wishes::default());
        let by = record(id(1)).expect("an agent").actor();
        let event = NewEvent::new("message.ready", by, "msg_x", json!({"inbox": {id(1).to_string(): "ready"}}));
        let (cursor, project) = (Cursor { epoch: 0, seq: 1 }, ProjectId::from_bytes([1; 16]));
        sleepers.tell(Cursor::default(), &[Arc::new(Event { cursor, at: TimeMs(0), project, event })], record);
        assert!(is_woken(&ana).await);
    }

    #[tokio::test]
    async fn somebody_watches_as_long_as_somebody_waits() {
        let sleepers = Arc::new(Sleepers::default());
        let (first, second) = (sleepers.lie_down(id(1), Wishes::default()), sleepers.lie_down(id(1), Wishes::default()));
        assert!(first.watches() && !second.watches());
        drop(first);
        assert!(is_woken(&second).await && second.watches(), "it is told that it watches now");
        drop(second);
        let third = sleepers.lie_down(id(2), Wishes::default());
        assert!(third.watches());
        assert_eq!(sleepers.state.lock().by_agent.len(), 1, "who left is forgotten");
    }
}
