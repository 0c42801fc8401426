//! What a project's documents take, and whether there is room for more. Counted now and again, and in between by what this host adds.

use std::collections::HashMap;

use parking_lot::Mutex;
use pointsman_core::context::DocumentHead;
use pointsman_core::context::content::ChunkMark;
use pointsman_core::ids::ProjectId;
use pointsman_core::limits::INLINE_BYTES_MAX;
use pointsman_core::time::TimeMs;
use pointsman_core::value;

use super::content::MARKS;
use super::{Contexts, HEADS};
use crate::ports::store::ENTRIES_MAX;
use crate::service::failure::Failure;

/// Milliseconds for which a count holds.
const COUNTED_MS: u64 = 10 * 60 * 1_000;

#[derive(Debug, Clone, Copy)]
struct Counted {
    at: TimeMs,
    documents: u64,
    bytes: u64,
}

/// What the projects take.
#[derive(Default)]
pub(super) struct Usage(Mutex<HashMap<ProjectId, Counted>>);

impl Usage {
    /// Takes room for a version, or refuses it. A version that is not written after all is forgotten by the next count.
    pub(super) async fn admit(&self, contexts: &Contexts, project: ProjectId, bytes: u64, is_new: bool) -> Result<(), Failure> {
        let now = contexts.kit.now();
        let known = self.0.lock().get(&project).copied().filter(|counted| now.since_ms(counted.at) < COUNTED_MS);
        let is_old = known.is_some();
        let mut counted = match known {
            Some(counted) => counted,
            None => count(contexts, project).await?,
        };
        let mut over = taken(contexts, &mut counted, bytes, is_new);
        if over.is_err() && is_old {
            // What was removed meanwhile makes room.
            counted = count(contexts, project).await?;
            over = taken(contexts, &mut counted, bytes, is_new);
        }
        if over.is_ok() {
            self.0.lock().insert(project, counted);
        }
        over.map_err(|why| {
            Failure::refused(
                "quota",
                why,
                "Delete what nobody needs, or ask the operator for `context.quota_mib` or `context.documents_max`.",
            )
        })
    }
}

/// Takes room of what there is.
fn taken(contexts: &Contexts, counted: &mut Counted, bytes: u64, is_new: bool) -> Result<(), String> {
    counted.documents += u64::from(is_new);
    counted.bytes += bytes;
    let settings = &contexts.kit.settings.context;
    if counted.documents > settings.documents_max && is_new {
        return Err(format!("the project has {} documents, as many as it may", settings.documents_max));
    }
    if counted.bytes > settings.bytes_max {
        return Err(format!("the project's documents take more than the {} bytes they may", settings.bytes_max));
    }
    Ok(())
}

async fn count(contexts: &Contexts, project: ProjectId) -> Result<Counted, Failure> {
    let mut counted = Counted { at: contexts.kit.now(), documents: 0, bytes: 0 };
    let slug = contexts.kit.slug(project).await?;
    contexts
        .each(project, HEADS, |bytes| {
            let head: DocumentHead = value::decode(bytes)?;
            counted.documents += u64::from(!head.deleted);
            // Versions are about as large as the newest; what is in chunks is counted below.
            if head.size_bytes <= INLINE_BYTES_MAX as u64 {
                let kept = contexts.kit.settings.context.rules.versions_max(&slug, &head.key).min(head.version);
                counted.bytes += head.size_bytes * kept;
            }
            Ok(())
        })
        .await?;
    contexts
        .each(project, MARKS, |bytes| {
            counted.bytes += u64::from(value::decode::<ChunkMark>(bytes)?.stored_bytes);
            Ok(())
        })
        .await?;
    Ok(counted)
}

impl Contexts {
    /// Hands on every value below a prefix, page by page.
    pub(super) async fn each(
        &self,
        project: ProjectId,
        prefix: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure> + Send,
    ) -> Result<(), Failure> {
        let mut from = String::new();
        loop {
            let page = self.kit.store.range(Some(project), prefix, &from, ENTRIES_MAX).await?;
            for (_, found) in &page.entries {
                take(&found.bytes)?;
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }
}
