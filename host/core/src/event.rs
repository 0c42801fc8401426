//! Events: what happened, in the order the store fixed. Audit, subscriptions, replay and analytics read them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
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

/// An event in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the project's log.
    pub cursor: Cursor,
    /// When the store took it.
    pub at: TimeMs,
    /// Whose log.
    pub project: ProjectId,
    /// What happened.
    #[serde(flatten)]
    pub event: NewEvent,
}

impl Stored for Event {
    const NAME: &'static str = "event";
}
