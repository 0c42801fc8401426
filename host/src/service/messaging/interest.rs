//! Which events of the log an agent that waits is told of. Pure.
//!
//! - writes and conflicts of the context documents it watches and may read; conflicts that it is to know of as an owner, or to settle;
//! - what happens to tasks it holds and their merges, and tasks and merges that name it;
//! - what becomes of messages it sent: dead letters and their revival, expiry, refusal by a router, full inboxes, and, where it asked for acks, the first time one is
//!   handed out and each ack.
//! - what comes into its inbox, where somebody waits on its behalf: to itself that is handed out instead.
//!
//! Never what it did itself.

use pointsman_core::agent::AgentRecord;
use pointsman_core::context::SUBJECT_PREFIX;
use pointsman_core::context::rules::{Operation, Party, Place, Rules};
use pointsman_core::event::NewEvent;
use pointsman_core::ids::TaskId;
use pointsman_core::path_glob::PathGlob;
use serde_json::Value;

use crate::service::agents::Standing;

/// Fields of an event that name agents.
const NAMING: [&str; 10] = ["agent", "agents", "agent_name", "author", "holder", "owner", "reviewer", "reviewers", "to", "asked"];

/// Whether what comes into the inbox counts as an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrivals {
    /// It is told of.
    Told,
    /// It is handed out.
    HandedOut,
}

/// The rules of a project's keys.
#[derive(Clone, Copy)]
pub(super) struct KeyRules<'a> {
    pub(super) rules: &'a Rules,
    pub(super) slug: &'a str,
}

impl KeyRules<'_> {
    fn may_read(&self, agent: &AgentRecord, key: &str) -> bool {
        let Ok(key) = key.parse() else { return false };
        self.rules.may(&Party::of(agent), Operation::Read, Place { project: self.slug, key: &key, creator: None })
    }
}

/// What an agent wants to hear of.
pub(super) struct Interest<'a> {
    pub(super) agent: &'a AgentRecord,
    pub(super) tasks: &'a [TaskId],
    pub(super) watch: &'a [PathGlob],
    pub(super) arrivals: Arrivals,
    /// None: whether it may read a document is asked later.
    pub(super) keys: Option<KeyRules<'a>>,
}

impl Interest<'_> {
    /// Returns whether the agent is told of an event.
    pub(super) fn covers(&self, event: &NewEvent) -> bool {
        if event.actor.agent == Some(self.agent.id) {
            return false;
        }
        match event.kind.split_once('.') {
            Some(("context", what)) if what != "denied" => {
                let Some(key) = event.subject.strip_prefix(SUBJECT_PREFIX) else { return false };
                let is_asked_for = self.watch.iter().any(|glob| glob.matches(key)) || self.is_named(&event.data);
                is_asked_for && self.keys.is_none_or(|keys| keys.may_read(self.agent, key))
            }
            Some(("task" | "merge", _)) => self.holds_subject(event) || self.is_named(&event.data),
            Some(("message", what)) => (self.sent(event) && self.is_news(what, event)) || self.is_told_arrival(event),
            _ => false,
        }
    }

    fn is_told_arrival(&self, event: &NewEvent) -> bool {
        self.arrivals == Arrivals::Told && self.is_arrival(event)
    }

    /// Returns whether by this event a delivery became one to hand to the agent.
    pub(super) fn is_arrival(&self, event: &NewEvent) -> bool {
        let standing = event.data.get("inbox").and_then(|inbox| inbox.get(self.agent.id.to_string()));
        standing.and_then(Value::as_str) == Some(Standing::Ready.word())
    }

    fn holds_subject(&self, event: &NewEvent) -> bool {
        let is_held = |text: &str| text.parse::<TaskId>().is_ok_and(|task| self.tasks.contains(&task) || self.agent.tasks.contains(&task));
        is_held(&event.subject)
            || event.causation.as_deref().is_some_and(is_held)
            || event.data.get("task").and_then(Value::as_str).is_some_and(is_held)
    }

    fn is_named(&self, data: &Value) -> bool {
        let id = self.agent.id.to_string();
        let is_me = |value: &Value| value.as_str().is_some_and(|text| text == self.agent.name || text == id);
        NAMING.iter().filter_map(|field| data.get(field)).any(|value| match value {
            Value::Array(all) => all.iter().any(is_me),
            one @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => is_me(one),
        })
    }

    fn sent(&self, event: &NewEvent) -> bool {
        let sender = event.data.get("sender").and_then(Value::as_str);
        sender.is_some_and(|sender| sender == self.agent.id.to_string())
    }

    fn is_news(&self, what: &str, event: &NewEvent) -> bool {
        match what {
            "dead_lettered" | "expired" | "revived" => true,
            "routed" => {
                let is_dropped = event.data.get("decision").and_then(Value::as_str) == Some("drop");
                is_dropped || event.data.get("full").and_then(Value::as_array).is_some_and(|full| !full.is_empty())
            }
            "acked" => asked_for(event),
            "handed_out" => asked_for(event) && event.data.get("attempt").and_then(Value::as_u64) == Some(1),
            _ => false,
        }
    }
}

/// Returns whether the sender asked to be told of each ack.
fn asked_for(event: &NewEvent) -> bool {
    event.data.get("ack_required").and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use pointsman_core::event::{Actor, Provenance};
    use pointsman_core::ids::{AgentId, PrincipalId};
    use pointsman_core::time::TimeMs;
    use serde_json::json;

    use super::*;

    fn ana() -> AgentRecord {
        AgentRecord {
            id: AgentId::from_bytes([1; 16]),
            principal: PrincipalId::from_bytes([2; 16]),
            principal_name: String::new(),
            provenance: Provenance::Agent,
            name: "ana".to_owned(),
            capabilities: Vec::new(),
            teams: Vec::new(),
            topics: Vec::new(),
            model: None,
            tasks: vec![TaskId(3)],
            started_at: TimeMs(0),
            acked: 0,
            nacked: 0,
        }
    }

    fn is_told(kind: &str, subject: &str, data: Value) -> bool {
        let (ana, watch) = (ana(), ["plan/**".parse::<PathGlob>().expect("a glob")]);
        let interest = Interest { agent: &ana, tasks: &[TaskId(7)], watch: &watch, arrivals: Arrivals::HandedOut, keys: None };
        interest.covers(&NewEvent::new(kind, Actor::host(), subject, data))
    }

    #[test]
    fn an_agent_hears_of_what_concerns_it() {
        let me = AgentId::from_bytes([1; 16]).to_string();
        let other = AgentId::from_bytes([9; 16]).to_string();
        assert!(is_told("context.written", "ctx:plan/api", json!({})));
        assert!(!is_told("context.written", "ctx:notes/api", json!({})));
        assert!(is_told("task.reviewed", "T-3", json!({})));
        assert!(is_told("task.reviewed", "T-7", json!({})));
        assert!(!is_told("task.reviewed", "T-4", json!({})));
        assert!(is_told("merge.landed", "M-1", json!({"task": "T-7"})));
        assert!(is_told("task.lapsed", "T-4", json!({"agent": "ana"})));
        assert!(is_told("merge.waiting", "M-1", json!({"reviewers": ["bo", me]})));
        assert!(!is_told("merge.waiting", "M-1", json!({"target": "ana"})));
        assert!(is_told("message.expired", "msg_x", json!({"sender": me})));
        assert!(!is_told("message.expired", "msg_x", json!({"sender": other})));
        assert!(is_told("message.revived", "msg_x", json!({"sender": me})));
        assert!(is_told("message.acked", "msg_x", json!({"sender": me, "ack_required": true})));
        assert!(!is_told("message.acked", "msg_x", json!({"sender": me, "ack_required": false})));
        assert!(is_told("message.handed_out", "msg_x", json!({"sender": me, "ack_required": true, "attempt": 1})));
        assert!(!is_told("message.handed_out", "msg_x", json!({"sender": me, "ack_required": true, "attempt": 2})));
        assert!(!is_told("message.handed_out", "msg_x", json!({"sender": me, "ack_required": false, "attempt": 1})));
        assert!(is_told("message.routed", "msg_x", json!({"sender": me, "decision": "broadcast", "full": ["bo"]})));
        assert!(!is_told("message.routed", "msg_x", json!({"sender": me, "decision": "broadcast", "full": []})));
        assert!(!is_told("message.nacked", "msg_x", json!({"sender": me})));
        assert!(!is_told("token.minted", "tok_x", json!({"agent": "ana"})));
    }

    #[test]
    fn an_agent_does_not_hear_of_its_own_acts() {
        let ana = ana();
        let watch = ["**".parse::<PathGlob>().expect("a glob")];
        let interest = Interest { agent: &ana, tasks: &[], watch: &watch, arrivals: Arrivals::HandedOut, keys: None };
        assert!(!interest.covers(&NewEvent::new("context.written", ana.actor(), "ctx:plan", json!({}))));
    }

    #[test]
    fn who_waits_on_its_behalf_hears_of_its_inbox() {
        let ana = ana();
        let interest = |arrivals| Interest { agent: &ana, tasks: &[], watch: &[], arrivals, keys: None };
        let me = ana.id.to_string();
        for (kind, standing, arrives) in [
            ("message.routed", "ready", true),
            ("message.ready", "ready", true),
            ("message.handed_out", "leased", false),
            ("message.acked", "gone", false),
        ] {
            let event = NewEvent::new(kind, Actor::host(), "msg_x", json!({"inbox": {me.clone(): standing}}));
            let heard = (interest(Arrivals::Told).covers(&event), interest(Arrivals::HandedOut).covers(&event));
            assert_eq!(heard, (arrives, false), "{kind}");
        }
    }
}
