//! What each agent works on, as a document that others may read: `agents/NAME`. The host keeps its member `working`; the rest is the agent's.

use pointsman_core::context::content::Content;
use pointsman_core::context::rules::AGENTS;
use pointsman_core::context::{DocumentHead, DocumentKey, DocumentVersion, JSON, is_json};
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::{AgentId, ProjectId};
use serde_json::{Value, json};

use super::{Contexts, head_key, prune_due, text_key};
use crate::ports::store::{Commit, DueChange};
use crate::service::failure::Failure;
use crate::service::kit::{CommitExt, Loaded};

/// The member that the host keeps.
const WORKING: &str = "working";

/// Returns the agent whose own document a key names.
#[must_use]
pub fn own_document_of(key: &str) -> Option<&str> {
    key.strip_prefix(AGENTS).filter(|name| !name.contains('/'))
}

impl Contexts {
    /// Writes what an agent works on, where that changed. A document that the agent made no object of is left alone.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn keep_own(&self, project: ProjectId, agent: AgentId, name: &str, working: &Value) -> Result<(), Failure> {
        let key: DocumentKey = format!("{AGENTS}{name}").parse()?;
        let decided = self.kit.decide(|| async {
            let mut commit = Commit { project: Some(project), ..Commit::default() };
            let head = self.kit.load::<DocumentHead>(Some(project), &head_key(&key)).await?;
            let Some(value) = self.with_working(project, &key, head.as_ref(), working).await? else { return Ok((commit, ())) };
            let bytes = value.to_string().into_bytes();
            let Some(content) = Content::inline(&bytes) else { return Ok((commit, ())) };
            let newest = head.as_ref().map_or(0, |head| head.value.version);
            let parents = (newest > 0).then_some(newest).into_iter().collect();
            let new = DocumentHead::new(key.clone(), newest + 1, JSON, &bytes, Actor::host(), self.kit.now(), parents);
            let new = DocumentHead { creator: Some(agent), deletions: head.as_ref().map_or(0, |head| head.value.deletions), ..new };
            let data = json!({
                "key": key, "version": new.version, "parents": new.parents, "media_type": new.media_type, "hash": new.hash,
                "size_bytes": new.size_bytes, "working": working,
            });
            commit.replace(head_key(&key), head.map(|head| head.version), &new);
            if new.version.is_multiple_of(super::stage::PRUNE_EACH) {
                commit.due.push(DueChange::Set { name: prune_due(&key), at: new.at });
            }
            commit.put(text_key(&key, new.version), &DocumentVersion { head: new, content });
            commit.events.push(NewEvent::new("context.written", Actor::host(), key.subject(), data));
            Ok((commit, ()))
        });
        decided.await.map(drop)
    }

    /// Returns the document with what the agent works on; none: it says so already, or is not for the host to change.
    async fn with_working(
        &self,
        project: ProjectId,
        key: &DocumentKey,
        head: Option<&Loaded<DocumentHead>>,
        working: &Value,
    ) -> Result<Option<Value>, Failure> {
        let mut value = match head.map(|head| &head.value).filter(|head| !head.deleted) {
            None => json!({}),
            Some(head) if !is_json(&head.media_type) => return Ok(None),
            Some(head) => {
                let version = self.version(project, key, head.version).await?;
                serde_json::from_slice(&self.document(project, version).await?.bytes).unwrap_or(Value::Null)
            }
        };
        let Some(members) = value.as_object_mut() else { return Ok(None) };
        if members.get(WORKING) == Some(working) {
            return Ok(None);
        }
        members.insert(WORKING.to_owned(), working.clone());
        Ok(Some(value))
    }
}
