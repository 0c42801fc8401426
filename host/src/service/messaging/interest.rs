//! Which events of the log an agent that waits is told of. Pure.
//!
//! - writes and conflicts of the context documents it watches;
//! - what happens to tasks it holds and their merges, and tasks and merges that name it;
//! - what becomes of messages it sent: dead letters and their revival, expiry, refusal by a router, and acks where it asked for them.
//!
//! Never what it did itself.

use pointsman_core::agent::AgentRecord;
use pointsman_core::context::SUBJECT_PREFIX;
use pointsman_core::event::NewEvent;
use pointsman_core::ids::TaskId;
use pointsman_core::path_glob::PathGlob;
use serde_json::Value;

/// Fields of an event that name agents.
const NAMING: [&str; 10] = ["agent", "agents", "agent_name", "author", "holder", "owner", "reviewer", "reviewers", "to", "asked"];

/// What an agent wants to hear of.
pub(super) struct Interest<'a> {
    pub(super) agent: &'a AgentRecord,
    pub(super) tasks: &'a [TaskId],
    pub(super) watch: &'a [PathGlob],
}

impl Interest<'_> {
    /// Returns whether the agent is told of an event.
    pub(super) fn covers(&self, event: &NewEvent) -> bool {
        if event.actor.agent == Some(self.agent.id) {
            return false;
        }
        match event.kind.split_once('.') {
            Some(("context", _)) => {
                let key = event.subject.strip_prefix(SUBJECT_PREFIX);
                key.is_some_and(|key| self.watch.iter().any(|glob| glob.matches(key)))
            }
            Some(("task" | "merge", _)) => self.holds_subject(event) || self.is_named(&event.data),
            Some(("message", what)) => self.sent(event) && self.is_news(what, event),
            _ => false,
        }
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
            "routed" => event.data.get("decision").and_then(Value::as_str) == Some("drop"),
            "acked" => event.data.get("ack_required").and_then(Value::as_bool) == Some(true),
            _ => false,
        }
    }
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
        let interest = Interest { agent: &ana, tasks: &[TaskId(7)], watch: &watch };
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
        assert!(!is_told("message.nacked", "msg_x", json!({"sender": me})));
        assert!(!is_told("token.minted", "tok_x", json!({"agent": "ana"})));
    }

    #[test]
    fn an_agent_does_not_hear_of_its_own_acts() {
        let ana = ana();
        let watch = ["**".parse::<PathGlob>().expect("a glob")];
        let interest = Interest { agent: &ana, tasks: &[], watch: &watch };
        assert!(!interest.covers(&NewEvent::new("context.written", ana.actor(), "ctx:plan", json!({}))));
    }
}
