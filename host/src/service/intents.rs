//! Intents: git work that a commit asked for. The commit that asks and the commit that records the end stand around the
//! git effect; what dies in between is finished at the next start.
//!
//! **Invariants:** git effects are idempotent, so an intent may be worked off any number of times; it is ended once, by the commit that
//! found it standing.

use pointsman_core::event::NewEvent;
use pointsman_core::ids::{FencingToken, IntentId, ProjectId, TaskId};
use pointsman_core::task::Resolution;
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};

use super::kit::{CommitExt, Kit, Once};
use crate::ports::repository::{BranchGrant, BranchMove, Landing};
use crate::ports::store::{Commit, Expect};

/// What git shall do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Create a branch and set its fence.
    Grant(BranchGrant),
    /// Raise a fence.
    Revoke {
        /// Whose.
        task: TaskId,
        /// Which branch.
        branch: String,
        /// The new token.
        token: FencingToken,
    },
    /// Move a claimed branch.
    Move {
        /// From where to where.
        step: BranchMove,
        /// The call that asked, so that its repetition is answered alike.
        once: Once,
        /// What happened.
        event: Box<NewEvent>,
        /// Conflicts resolved with it.
        resolutions: Vec<Resolution>,
    },
    /// Land a merge.
    Land(Landing),
}

/// Git work that is to be finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its own.
    pub id: IntentId,
    /// When it was asked for.
    pub at: TimeMs,
    /// What.
    pub work: Work,
}

impl Stored for Intent {
    const NAME: &'static str = "intent";
}

/// Where intents stand.
pub const INTENTS: &str = "intent/";
/// Intents worked off at one start; more would mean a damaged store.
pub const INTENTS_MAX: usize = 100_000;

impl Intent {
    /// Returns an intent, and writes it into the commit that asks for it.
    #[must_use]
    pub fn ask(kit: &Kit, commit: &mut Commit, work: Work) -> Self {
        let at = kit.now();
        let intent = Self { id: IntentId::new(at, kit.system.id_bytes()), at, work };
        commit.put(intent.key(), &intent);
        intent
    }

    /// Returns where it stands.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{INTENTS}{}", self.id)
    }
}

impl Kit {
    /// Has a commit that ends an intent hold only if the intent still stands; false where somebody has ended it already.
    ///
    /// # Errors
    /// [`super::failure::Failure`].
    pub async fn expect_intent(&self, project: ProjectId, intent: &Intent, commit: &mut Commit) -> Result<bool, super::failure::Failure> {
        let Some(open) = self.load::<Intent>(Some(project), &intent.key()).await? else { return Ok(false) };
        commit.expects.push((intent.key(), Expect::Version(open.version)));
        Ok(true)
    }

    /// Returns the intents of a project that nobody finished.
    ///
    /// # Errors
    /// [`super::failure::Failure`].
    pub async fn open_intents(&self, project: ProjectId) -> Result<Vec<Intent>, super::failure::Failure> {
        let all = self.load_all::<Intent>(Some(project), INTENTS, INTENTS_MAX).await?;
        Ok(all.into_iter().map(|(_, loaded)| loaded.value).collect())
    }
}
