//! Who may do what with a key, for every way that leads to a document; and what is said to those who may not.
//!
//! **Invariants:** whoever may not read a key is told what it would be told if there were no document, by its own name and by those that
//! other documents have of it; each denial is counted and logged, and
//! once a minute recorded.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pointsman_core::agent::AgentRecord;
use pointsman_core::context::rules::{Operation, Party, Place};
use pointsman_core::context::{DocumentHead, DocumentKey, SUBJECT_PREFIX};
use pointsman_core::event::{Actor, NewEvent, Provenance};
use pointsman_core::ids::{AgentId, ProjectId};
use pointsman_core::time::TimeMs;
use serde_json::json;

use super::Contexts;
use crate::ports::store::Commit;
use crate::service::failure::Failure;
use crate::service::kit::{Acting, chain};

/// Milliseconds for which one record of a denial stands for those after it.
const NOTED_MS: u64 = 60_000;
/// Denials that are remembered so.
const NOTED_MAX: usize = 1_000;

/// Who looks at documents.
#[derive(Debug, Clone)]
pub enum Viewer {
    /// An agent.
    Agent(Arc<AgentRecord>),
    /// A credential that acts for none of its agents: it sees what any of them may see.
    Credential {
        /// Its owner's name.
        principal: String,
        /// What kind it is.
        provenance: Provenance,
        /// Its agents in the project.
        agents: Vec<Arc<AgentRecord>>,
    },
    /// A component that is no agent.
    Plugin(String),
    /// The host, and its operators.
    Host,
}

impl From<&Acting> for Viewer {
    fn from(acting: &Acting) -> Self {
        Self::Agent(Arc::clone(&acting.agent))
    }
}

impl Viewer {
    /// Returns the agent, where it is one.
    #[must_use]
    pub fn agent(&self) -> Option<&AgentRecord> {
        match self {
            Self::Agent(agent) => Some(agent),
            Self::Credential { .. } | Self::Plugin(_) | Self::Host => None,
        }
    }

    fn is_any(&self, judge: impl Fn(&Party<'_>) -> bool) -> bool {
        let nameless = |name, principal, provenance| Party { agent: None, name, principal, provenance, capabilities: &[] };
        match self {
            Self::Agent(agent) => judge(&Party::of(agent)),
            Self::Credential { principal, provenance, agents } => {
                judge(&nameless("", principal, *provenance)) || agents.iter().any(|agent| judge(&Party::of(agent)))
            }
            Self::Plugin(name) => judge(&nameless(name, "", Provenance::Plugin)),
            Self::Host => judge(&nameless("host", "", Provenance::Host)),
        }
    }

    fn actor(&self) -> Actor {
        let nameless = |name: &str, provenance| Actor { principal: None, agent: None, name: name.to_owned(), provenance };
        match self {
            Self::Agent(agent) => agent.actor(),
            Self::Credential { principal, provenance, .. } => nameless(principal, *provenance),
            Self::Plugin(name) => nameless(name, Provenance::Plugin),
            Self::Host => Actor::host(),
        }
    }
}

/// Denials that were recorded.
#[derive(Default)]
pub(super) struct Denials(Mutex<HashMap<(Option<AgentId>, String), TimeMs>>);

impl Denials {
    /// Returns whether this one is to be recorded.
    fn is_news(&self, who: Option<AgentId>, key: &str, now: TimeMs) -> bool {
        let mut noted = self.0.lock();
        let place = (who, key.to_owned());
        if noted.get(&place).is_some_and(|at| now.since_ms(*at) < NOTED_MS) {
            return false;
        }
        if noted.len() >= NOTED_MAX {
            noted.retain(|_, at| now.since_ms(*at) < NOTED_MS);
        }
        // Many keys at once are one flood, and it is on record.
        if noted.len() >= NOTED_MAX {
            return false;
        }
        noted.insert(place, now);
        true
    }
}

impl Contexts {
    /// Returns whether somebody may do something with a key; `head`: its document.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn may(
        &self,
        project: ProjectId,
        viewer: &Viewer,
        operation: Operation,
        key: &DocumentKey,
        head: Option<&DocumentHead>,
    ) -> Result<bool, Failure> {
        let rules = &self.kit.settings.context.rules;
        let slug = self.kit.slug(project).await?;
        let place = Place { project: &slug, key, creator: head.and_then(DocumentHead::creator) };
        Ok(viewer.is_any(|party| rules.may(party, operation, place)))
    }

    /// Returns whether somebody may be told of an event: always, unless it is about a document.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn may_hear(&self, project: ProjectId, viewer: &Viewer, subject: &str) -> Result<bool, Failure> {
        match subject.strip_prefix(SUBJECT_PREFIX).map(str::parse::<DocumentKey>) {
            Some(Ok(key)) => self.may(project, viewer, Operation::Read, &key, None).await,
            Some(Err(_)) => Ok(false),
            None => Ok(true),
        }
    }

    /// Returns a head as somebody may see it: without the names of keys that it may not read.
    pub(super) async fn seen(&self, project: ProjectId, viewer: &Viewer, mut head: DocumentHead) -> Result<DocumentHead, Failure> {
        if let Some(to) = &head.renamed_to
            && !self.may(project, viewer, Operation::Read, to, None).await?
        {
            head.renamed_to = None;
        }
        let from = head.taken_from.as_deref().and_then(|from| from.rsplit_once('@')).and_then(|(key, _)| key.parse::<DocumentKey>().ok());
        if let Some(from) = from
            && !self.may(project, viewer, Operation::Read, &from, None).await?
        {
            head.taken_from = None;
        }
        Ok(head)
    }

    /// Lets somebody do something with a key, or refuses it.
    ///
    /// # Errors
    /// `not_found` where it may not even read, `forbidden`.
    pub(super) async fn check(
        &self,
        project: ProjectId,
        viewer: &Viewer,
        operation: Operation,
        key: &DocumentKey,
        head: Option<&DocumentHead>,
    ) -> Result<(), Failure> {
        if self.may(project, viewer, operation, key, head).await? {
            return Ok(());
        }
        self.denied(project, viewer, operation, key).await;
        if operation == Operation::Read {
            return Err(missing(key));
        }
        let why = format!("you may not {} `{key}`", operation.word());
        let advice = "Ask whoever may, or write under another key; `lookup` with `context` lists what you may read.";
        Err(Failure::refused_with("forbidden", why, advice, json!({"key": key, "operation": operation})))
    }

    async fn denied(&self, project: ProjectId, viewer: &Viewer, operation: Operation, key: &DocumentKey) {
        let actor = viewer.actor();
        tracing::warn!(%project, who = %actor.name, operation = operation.word(), %key, "denied");
        if !self.denials.is_news(actor.agent, key.as_str(), self.kit.now()) {
            return;
        }
        let event = NewEvent::new("context.denied", actor, key.subject(), json!({"key": key, "operation": operation}));
        let commit = Commit { project: Some(project), events: vec![event], ..Commit::default() };
        if let Err(error) = self.kit.store.commit(commit).await {
            tracing::warn!(error = %chain(&error), "a denial could not be recorded");
        }
    }
}

/// Returns what is said where there is no document, or none that may be known of.
pub(super) fn missing(key: &DocumentKey) -> Failure {
    let why = format!("there is no document `{key}`");
    Failure::refused("not_found", why, "`lookup` lists the keys; `write_context` with `base_version` 0 begins one.")
}
