//! Events: what happened, in the order the store fixed. Audit, subscriptions, replay and analytics read them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::ids::{AgentId, IdError, PrincipalId, ProjectId};
use crate::time::TimeMs;
use crate::value::Stored;

/// Who stands behind an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// A person, by a credential minted for one.
    Human,
    /// A coding agent.
    Agent,
    /// A component.
    Plugin,
    /// The host itself: recovery, expiry, schedules.
    Host,
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The owner of the credential; none for the host itself.
    pub principal: Option<PrincipalId>,
    /// The agent, once it started.
    pub agent: Option<AgentId>,
    /// A name for people.
    pub name: String,
    /// What kind of author.
    pub provenance: Provenance,
}

impl Actor {
    /// Returns the host as an actor.
    #[must_use]
    pub fn host() -> Self {
        Self { principal: None, agent: None, name: "host".to_owned(), provenance: Provenance::Host }
    }
}

/// A place in a project's log. Epochs rise when a store may have lost its tail, so a cursor from before says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The store's epoch.
    pub epoch: u64,
    /// Rises by one with each event of the project.
    pub seq: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let token: crate::ids::FencingToken = text.parse()?;
        Ok(Self { epoch: token.epoch, seq: token.n })
    }
}

/// An event before the store gave it its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// Dotted, `task.claimed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Version of `data`'s shape for this type.
    pub v: u16,
    /// Who acted.
    pub actor: Actor,
    /// What it is about: `T-3`, `msg_…`, `ctx:plan/api`.
    pub subject: String,
    /// The subject or event that led to it, where there is one.
    pub causation: Option<String>,
    /// The request or trace id that log lines of the same act carry.
    pub trace: Option<String>,
    /// The rest, by type.
    pub data: Value,
}

impl NewEvent {
    /// Returns an event of version 1 without cause.
    #[must_use]
    pub fn new(kind: &str, actor: Actor, subject: impl fmt::Display, data: Value) -> Self {
        Self { kind: kind.to_owned(), v: 1, actor, subject: subject.to_string(), causation: None, trace: None, data }
    }

    /// Returns the event with its cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.causation = Some(cause.to_string());
        self
    }
}

/// An event in its place. Written with the fields of both on one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place in the project's log.
    pub cursor: Cursor,
    /// When the store took it.
    pub at: TimeMs,
    /// Whose log.
    pub project: ProjectId,
    /// What happened.
    pub event: NewEvent,
}

/// The written form, field by field: serde's own flattening goes through a buffer, and events are written and read all the time.
#[derive(Serialize)]
struct Written<'a> {
    cursor: Cursor,
    at: TimeMs,
    project: ProjectId,
    #[serde(rename = "type")]
    kind: &'a str,
    v: u16,
    actor: &'a Actor,
    subject: &'a str,
    causation: Option<&'a str>,
    trace: Option<&'a str>,
    data: &'a Value,
}

/// The same form, read.
#[derive(Deserialize)]
struct Read {
    cursor: Cursor,
    at: TimeMs,
    project: ProjectId,
    #[serde(rename = "type")]
    kind: String,
    v: u16,
    actor: Actor,
    subject: String,
    causation: Option<String>,
    trace: Option<String>,
    data: Value,
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let NewEvent { kind, v, actor, subject, causation, trace, data } = &self.event;
        let (cursor, at, project) = (self.cursor, self.at, self.project);
        let (causation, trace) = (causation.as_deref(), trace.as_deref());
        Written { cursor, at, project, kind, v: *v, actor, subject, causation, trace, data }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { cursor, at, project, kind, v, actor, subject, causation, trace, data } = Read::deserialize(deserializer)?;
        Ok(Self { cursor, at, project, event: NewEvent { kind, v, actor, subject, causation, trace, data } })
    }
}

impl Stored for Event {
    const NAME: &'static str = "event";
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_written_on_one_level_and_read_whatever_else_stands_there() {
        let mut event = NewEvent::new("task.claimed", Actor::host(), "T-3", json!({"by": "ana", "n": [1, null]})).caused_by("T-1");
        event.trace = Some("req_1".to_owned());
        let (cursor, project) = (Cursor { epoch: 2, seq: 7 }, ProjectId::from_bytes([1; 16]));
        let event = Event { cursor, at: TimeMs(5), project, event };
        let mut written = serde_json::to_value(&event).expect("JSON");
        assert_eq!((&written["type"], &written["subject"], &written["data"]["n"][0]), (&json!("task.claimed"), &json!("T-3"), &json!(1)));
        assert_eq!((&written["causation"], &written["trace"], &written["v"]), (&json!("T-1"), &json!("req_1"), &json!(1)));
        written["later"] = json!("a field of a newer host");
        assert_eq!(serde_json::from_value::<Event>(written).expect("an event"), event);
        let stored = crate::value::encode(&event);
        assert_eq!(crate::value::decode::<Event>(&stored).expect("an event"), event);
    }
}
