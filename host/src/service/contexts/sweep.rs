//! Chunks that no version names any more, conflicts that were settled long ago, uploads that were given up.
//!
//! A chunk goes in two sweeps: the first that finds no version naming it condemns its mark, so that no version can come to name it unseen; the
//! next one that still finds none removes it. A version that names it in between was written on the condition that the mark was not condemned,
//! so it was written before, and is found.
//!
//! **Invariant:** no chunk goes that a version, a conflict's side or an upload names.

use std::collections::HashSet;

use pointsman_core::context::content::{ChunkHash, ChunkMark};
use pointsman_core::context::{ConflictRecord, DocumentVersion};
use pointsman_core::ids::ProjectId;
use pointsman_core::value;

use super::content::{MARKS, chunk_key};
use super::uploads::{UPLOADS, Upload};
use super::{CONFLICTS, Contexts, HOUSEKEEPING, SIDES, TEXTS, side_key};
use crate::ports::store::{Commit, DueChange, ENTRIES_MAX, Expect, StoreError};
use crate::service::failure::Failure;
use crate::service::kit::CommitExt;

/// Milliseconds between two sweeps of a project.
const SWEEP_MS: u64 = 24 * 60 * 60 * 1_000;
/// Milliseconds to the next sweep where something was condemned.
const SWEEP_SOON_MS: u64 = 60 * 60 * 1_000;
/// Milliseconds for which a settled conflict is kept.
const SETTLED_KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Entries that one commit removes or marks.
const AT_ONCE: usize = 500;

fn sweep_due() -> String {
    format!("{HOUSEKEEPING}sweep")
}

impl Contexts {
    /// Has a project's documents swept soon, and from then on again and again.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn schedule_sweep(&self, project: ProjectId) -> Result<(), Failure> {
        let due = vec![DueChange::Set { name: sweep_due(), at: self.kit.now() + SWEEP_SOON_MS }];
        self.kit.store.commit(Commit { project: Some(project), due, ..Commit::default() }).await?;
        Ok(())
    }

    pub(super) async fn sweep(&self, project: ProjectId) -> Result<(), Failure> {
        self.forget_settled(project).await?;
        self.forget_uploads(project).await?;
        let condemned = self.sweep_chunks(project).await?;
        let next = self.kit.now() + if condemned { SWEEP_SOON_MS } else { SWEEP_MS };
        let due = vec![DueChange::Set { name: sweep_due(), at: next }];
        self.kit.store.commit(Commit { project: Some(project), due, ..Commit::default() }).await?;
        Ok(())
    }

    /// Returns whether a chunk was condemned.
    async fn sweep_chunks(&self, project: ProjectId) -> Result<bool, Failure> {
        // The marks before what names them: a chunk that comes in between is not looked at.
        let mut marks = Vec::new();
        let mut from = String::new();
        loop {
            let page = self.kit.store.range(Some(project), MARKS, &from, ENTRIES_MAX).await?;
            for (key, found) in page.entries {
                let mark: ChunkMark = value::decode(&found.bytes)?;
                marks.push((key, mark, found.version));
            }
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        if marks.is_empty() {
            return Ok(false);
        }
        let named = self.named_chunks(project).await?;
        let mut condemned = false;
        let now = self.kit.now();
        for batch in marks.chunks(AT_ONCE) {
            // Each by itself: one that changed meanwhile holds up no other.
            for (key, mark, version) in batch {
                let Some(hash) = key.strip_prefix(MARKS).and_then(|hash| hash.parse::<ChunkHash>().ok()) else { continue };
                let is_young = now.since_ms(mark.at) < SWEEP_SOON_MS;
                let mut commit = Commit { project: Some(project), ..Commit::default() };
                match (named.contains(&hash), mark.is_condemned) {
                    (true, false) => continue,
                    (true, true) => commit.replace(key.as_str(), Some(*version), &ChunkMark { is_condemned: false, ..*mark }),
                    (false, false) if is_young => continue,
                    (false, false) => {
                        condemned = true;
                        commit.replace(key.as_str(), Some(*version), &ChunkMark { is_condemned: true, ..*mark });
                    }
                    (false, true) => {
                        commit.expects.push((key.clone(), Expect::Version(*version)));
                        commit.deletes.extend([key.clone(), chunk_key(hash)]);
                    }
                }
                match self.kit.store.commit(commit).await {
                    Ok(_) | Err(StoreError::Stale { .. }) => {}
                    Err(other) => return Err(other.into()),
                }
            }
        }
        Ok(condemned)
    }

    /// Returns the chunks that something names. Versions are read in their order, the oldest first: where an older one went while this
    /// reads, the one that took its chunks over is still ahead.
    async fn named_chunks(&self, project: ProjectId) -> Result<HashSet<ChunkHash>, Failure> {
        let mut named = HashSet::new();
        for prefix in [TEXTS, SIDES] {
            self.each(project, prefix, |bytes| {
                let version: DocumentVersion = value::decode(bytes)?;
                named.extend(version.content.chunks().iter().map(|chunk| chunk.hash));
                Ok(())
            })
            .await?;
        }
        self.each(project, UPLOADS, |bytes| {
            let upload: Upload = value::decode(bytes)?;
            named.extend(upload.chunks.iter().map(|chunk| chunk.hash));
            Ok(())
        })
        .await?;
        Ok(named)
    }

    async fn forget_settled(&self, project: ProjectId) -> Result<(), Failure> {
        let now = self.kit.now();
        let mut deletes = Vec::new();
        self.each(project, CONFLICTS, |bytes| {
            let record: ConflictRecord = value::decode(bytes)?;
            if record.resolved_by.is_some() && now.since_ms(record.at) >= SETTLED_KEPT_MS {
                deletes.extend([super::conflict_key(record.id), side_key(record.id)]);
            }
            Ok(())
        })
        .await?;
        self.remove(project, deletes).await
    }

    async fn forget_uploads(&self, project: ProjectId) -> Result<(), Failure> {
        let now = self.kit.now();
        let mut deletes = Vec::new();
        self.each(project, UPLOADS, |bytes| {
            let upload: Upload = value::decode(bytes)?;
            if upload.until <= now {
                deletes.push(super::uploads::upload_key(upload.agent, &upload.key));
            }
            Ok(())
        })
        .await?;
        self.remove(project, deletes).await
    }

    async fn remove(&self, project: ProjectId, keys: Vec<String>) -> Result<(), Failure> {
        for batch in keys.chunks(AT_ONCE) {
            self.kit.store.commit(Commit { project: Some(project), deletes: batch.to_vec(), ..Commit::default() }).await?;
        }
        Ok(())
    }
}
