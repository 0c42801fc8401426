//! What the host remembers of an MCP session besides its id.
//!
//! Driving port: the transport calls it, a service stands behind it. The id itself holds what was negotiated; here is what
//! changes while the session lives, so that a restarted host, or another one on the same store, goes on where it stood. What a client
//! says to one host while another one waits for it is passed on ([`SessionEars`]).

use std::collections::BTreeSet;

use async_trait::async_trait;
use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use serde::{Deserialize, Serialize};

use super::surface::Rejected;

/// What a session's client chose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionNotes {
    /// The sealed handle of the agent that `start` chose.
    pub handle: Option<String>,
    /// From which level on it is told log messages; none: it never said.
    pub level: Option<String>,
    /// The resources it subscribed to.
    pub uris: BTreeSet<String>,
    /// Whether the client ended it: nothing opens it again.
    pub is_ended: bool,
}

/// A change of the notes of a session.
#[derive(Debug, Clone, Copy)]
pub struct NotesChange<'a> {
    /// What the caller knew.
    pub before: &'a SessionNotes,
    /// What it is to be.
    pub after: &'a SessionNotes,
    /// When it is forgotten.
    pub ends_at: TimeMs,
}

/// What a client said in its session to one host, and may be meant for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionWord {
    /// It answered a request.
    Answered {
        /// The request's.
        id: String,
        /// The result, JSON; or in words why there is none.
        answer: Result<String, String>,
    },
    /// It cancelled a request of its own.
    Cancelled {
        /// That one's id, JSON.
        request: String,
    },
    /// It chose something, which is noted.
    Noted,
}

/// Who hears what other hosts were told in a session.
#[async_trait]
pub trait SessionEars: Send + Sync {
    /// Takes a word; false where nobody here waits for it.
    async fn hear(&self, project: ProjectId, session: &str, word: SessionWord) -> bool;
}

/// The notes of all sessions.
#[async_trait]
pub trait SessionBook: Send + Sync {
    /// Returns what is noted of a session: nothing yet is no error.
    ///
    /// # Errors
    /// `Rejected::Unavailable`.
    async fn read(&self, project: ProjectId, session: &str) -> Result<SessionNotes, Rejected>;

    /// Notes this in place of what the caller knew; it is forgotten at `ends_at`, when the id is no longer good either. Where something
    /// else stands there by now that is returned, and nothing changed.
    ///
    /// # Errors
    /// `Rejected::Unavailable`; nothing changed.
    async fn write(&self, project: ProjectId, session: &str, change: NotesChange<'_>) -> Result<Option<SessionNotes>, Rejected>;

    /// Passes a word on to the other hosts, as far as they can be reached; returns whether one of them waited for it.
    async fn pass_on(&self, project: ProjectId, session: &str, word: SessionWord) -> bool;
}
