//! The notes of MCP sessions, in the store.
//!
//! **Invariant:** a note stands until its session's id is no longer good, and no longer.

use async_trait::async_trait;
use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use pointsman_core::value::{self, Stored};

use super::failure::{Failure, unavailable};
use super::kit::Kit;
use crate::ports::sessions::{SessionBook, SessionNotes, SessionWord};
use crate::ports::store::{Commit, DueChange};
use crate::ports::surface::Rejected;

/// Where notes stand, and what their due entries are called.
pub const SESSIONS: &str = "mcp-session/";

impl Stored for SessionNotes {
    const NAME: &'static str = "session notes";
}

fn key(session: &str) -> String {
    format!("{SESSIONS}{session}")
}

/// Use cases over the notes of sessions.
#[derive(Clone)]
pub struct Sessions {
    kit: Kit,
}

impl Sessions {
    /// Returns the use cases.
    #[must_use]
    pub fn new(kit: Kit) -> Self {
        Self { kit }
    }

    /// Drops the notes of a session whose id is no longer good.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn forget(&self, project: ProjectId, session: &str) -> Result<(), Failure> {
        let name = key(session);
        let commit =
            Commit { project: Some(project), deletes: vec![name.clone()], due: vec![DueChange::Clear { name }], ..Commit::default() };
        self.kit.store.commit(commit).await?;
        Ok(())
    }
}

#[async_trait]
impl SessionBook for Sessions {
    async fn read(&self, project: ProjectId, session: &str) -> Result<SessionNotes, Rejected> {
        let found = self.kit.load::<SessionNotes>(Some(project), &key(session)).await.map_err(|failure| unavailable(&failure))?;
        Ok(found.map(|found| found.value).unwrap_or_default())
    }

    async fn write(&self, project: ProjectId, session: &str, notes: &SessionNotes, ends_at: TimeMs) -> Result<(), Rejected> {
        let name = key(session);
        let commit = Commit {
            project: Some(project),
            puts: vec![(name.clone(), value::encode(notes))],
            due: vec![DueChange::Set { name, at: ends_at }],
            ..Commit::default()
        };
        self.kit.store.commit(commit).await.map_err(|error| unavailable(&error.into()))?;
        Ok(())
    }

    async fn pass_on(&self, project: ProjectId, session: &str, word: SessionWord) -> bool {
        self.kit.homes.pass_on(project, session, word).await
    }
}
