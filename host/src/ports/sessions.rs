//! What the host remembers of an MCP session besides its id.
//!
//! Driving port: the transport calls it, a service stands behind it. The id itself holds what was negotiated; here is what
//! changes while the session lives, so that a restarted host, or another replica, goes on where it stood.

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

/// The notes of all sessions.
#[async_trait]
pub trait SessionBook: Send + Sync {
    /// Returns what is noted of a session: nothing yet is no error.
    ///
    /// # Errors
    /// `Rejected::Unavailable`.
    async fn read(&self, project: ProjectId, session: &str) -> Result<SessionNotes, Rejected>;

    /// Notes this in place of what stood there; it is forgotten at `ends_at`, when the id is no longer good either.
    ///
    /// # Errors
    /// `Rejected::Unavailable`; nothing changed.
    async fn write(&self, project: ProjectId, session: &str, notes: &SessionNotes, ends_at: TimeMs) -> Result<(), Rejected>;
}
