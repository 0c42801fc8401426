//! What time brings to documents: expiry, and the end of old versions. Each is a due entry that its own commit clears or moves.

use pointsman_core::context::content::Content;
use pointsman_core::context::{DocumentHead, DocumentKey, DocumentVersion};
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::ProjectId;
use pointsman_core::value;
use serde_json::json;

use super::{Contexts, expiry_due, head_key, prune_due, text_key, texts_of};
use crate::ports::store::{Commit, DueChange, Expect};
use crate::service::failure::Failure;
use crate::service::kit::CommitExt;

/// What the due entries of documents begin with.
pub const HOUSEKEEPING: &str = "ctx/";
/// Milliseconds for which the versions of a deleted document are kept.
pub(super) const TOMBSTONE_KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Versions that one commit removes.
const PRUNED_AT_ONCE: usize = 256;

impl Contexts {
    /// Does what is due; `what`: the entry's name behind [`HOUSEKEEPING`].
    ///
    /// # Errors
    /// [`Failure`]; the entry stays.
    pub async fn keep_house(&self, project: ProjectId, what: &str) -> Result<(), Failure> {
        match what.split_once('/') {
            Some(("expire", key)) => self.expire(project, &key.parse()?).await,
            Some(("prune", key)) => self.prune(project, &key.parse()?).await,
            _ => self.sweep(project).await,
        }
    }

    async fn expire(&self, project: ProjectId, key: &DocumentKey) -> Result<(), Failure> {
        let decided = self.kit.decide(|| async {
            let mut commit = Commit { project: Some(project), ..Commit::default() };
            let now = self.kit.now();
            let head = self.kit.load::<DocumentHead>(Some(project), &head_key(key)).await?;
            commit.due.push(DueChange::Clear { name: expiry_due(key) });
            let Some(head) = head.filter(|head| !head.value.deleted) else { return Ok((commit, ())) };
            let Some(at) = head.value.expires_at else { return Ok((commit, ())) };
            commit.expects.push((head_key(key), Expect::Version(head.version)));
            if at > now {
                commit.due.push(DueChange::Set { name: expiry_due(key), at });
                return Ok((commit, ()));
            }
            let gone = tombstone(&head.value, Actor::host(), now);
            commit.puts.push((head_key(key), value::encode(&gone)));
            commit.due.push(DueChange::Set { name: prune_due(key), at: now + TOMBSTONE_KEPT_MS });
            let data = json!({"key": key, "version": gone.version, "parents": gone.parents, "expired": true});
            commit.events.push(NewEvent::new("context.deleted", Actor::host(), key.subject(), data));
            commit.put(text_key(key, gone.version), &DocumentVersion { head: gone, content: Content::default() });
            Ok((commit, ()))
        });
        decided.await.map(drop)
    }

    /// Removes versions beyond those that are kept, except those with a label; of a document that was deleted long ago, everything.
    async fn prune(&self, project: ProjectId, key: &DocumentKey) -> Result<(), Failure> {
        let slug = self.kit.slug(project).await?;
        let keep = self.kit.settings.context.rules.versions_max(&slug, key);
        let decided = self.kit.decide(|| async {
            let mut commit = Commit { project: Some(project), ..Commit::default() };
            let now = self.kit.now();
            let done = DueChange::Clear { name: prune_due(key) };
            let Some(head) = self.kit.load::<DocumentHead>(Some(project), &head_key(key)).await? else {
                commit.due.push(done);
                return Ok((commit, ()));
            };
            let is_over = head.value.deleted && now.since_ms(head.value.at) >= TOMBSTONE_KEPT_MS;
            let up_to = if is_over { head.value.version } else { head.value.version.saturating_sub(keep) };
            let page = self.kit.store.range(Some(project), &texts_of(key), "", PRUNED_AT_ONCE).await?;
            let mut went_on = page.next.is_some();
            for (name, found) in page.entries {
                let version: DocumentVersion = value::decode(&found.bytes)?;
                if version.head.version > up_to {
                    went_on = false;
                    break;
                }
                if is_over || version.head.label.is_none() {
                    commit.deletes.push(name);
                }
            }
            commit.expects.push((head_key(key), Expect::Version(head.version)));
            // A page of labels alone has no end that moves: it is looked at again with the next versions.
            if went_on && !commit.deletes.is_empty() {
                return Ok((commit, ()));
            }
            if is_over {
                commit.deletes.push(head_key(key));
            }
            commit.due.push(if head.value.deleted && !is_over {
                DueChange::Set { name: prune_due(key), at: head.value.at + TOMBSTONE_KEPT_MS }
            } else {
                done
            });
            Ok((commit, ()))
        });
        decided.await.map(drop)
    }
}

/// Returns the version that says that a document is gone.
pub(super) fn tombstone(newest: &DocumentHead, author: Actor, now: pointsman_core::time::TimeMs) -> DocumentHead {
    DocumentHead {
        creator: newest.creator(),
        deleted: true,
        deletions: newest.deletions + 1,
        ..DocumentHead::new(newest.key.clone(), newest.version + 1, &newest.media_type, &[], author, now, vec![newest.version])
    }
}
