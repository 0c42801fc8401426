//! The notes of MCP sessions, in the store.
//!
//! **Invariant:** a note stands until its session's id is no longer good, and no longer.

use async_trait::async_trait;
use pointsman_core::ids::ProjectId;
use pointsman_core::value::Stored;

use super::failure::{Failure, unavailable};
use super::kit::{CommitExt, Kit};
use crate::ports::sessions::{NotesChange, SessionBook, SessionNotes, SessionWord};
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

    async fn write(&self, project: ProjectId, session: &str, change: NotesChange<'_>) -> Result<Option<SessionNotes>, Rejected> {
        let name = key(session);
        let decided = self.kit.decide(|| async {
            let found = self.kit.load::<SessionNotes>(Some(project), &name).await?;
            let (version, stands) = found.map_or((None, SessionNotes::default()), |found| (Some(found.version), found.value));
            let mut commit = Commit { project: Some(project), ..Commit::default() };
            if stands != *change.before {
                return Ok((commit, Some(stands)));
            }
            commit.replace(name.clone(), version, change.after);
            commit.due.push(DueChange::Set { name: name.clone(), at: change.ends_at });
            Ok((commit, None))
        });
        Ok(decided.await.map_err(|failure| unavailable(&failure))?.0)
    }

    async fn pass_on(&self, project: ProjectId, session: &str, word: SessionWord) -> bool {
        self.kit.homes.pass_on(project, session, word).await
    }
}
