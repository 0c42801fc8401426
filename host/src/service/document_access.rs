//! Documents for HTTP clients: whose request it is, and its words for shared context.

use std::sync::Arc;

use async_trait::async_trait;
use pointsman_core::context::content::ChunkHash;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tracing::Instrument;

use super::agents::Agents;
use super::contexts::{Contexts, DOCUMENTS_MAX, Manifest, PutRequest, Viewer, WriteOutcome};
use super::failure::{Failure, Refusal};
use super::kit::{Acting, chain};
use super::surface::conflict;
use crate::ports::documents::{
    ByteRange, DocumentAnswer, DocumentAsk, DocumentBody, DocumentBytes, DocumentRejected, DocumentSurface, DocumentWrite, WrittenContent,
};
use crate::ports::surface::Caller;

/// Bytes that are read at once of a document that is sent.
const SLICE_BYTES: u64 = 1 << 20;

/// Serves documents to whoever may.
pub struct DocumentAccess {
    agents: Arc<Agents>,
    contexts: Arc<Contexts>,
}

impl DocumentAccess {
    /// Returns the service.
    #[must_use]
    pub fn new(agents: Arc<Agents>, contexts: Arc<Contexts>) -> Self {
        Self { agents, contexts }
    }

    async fn read(&self, acting: &Acting, key: &str, version: Option<u64>, range: Option<ByteRange>) -> Result<DocumentBytes, Rejection> {
        let viewer = Viewer::from(acting);
        let Manifest { head, .. } = self.contexts.manifest(acting.project, &viewer, key, version).await?;
        let size = head.size_bytes;
        let range = range.map(|range| bounds(range, size).ok_or(Rejection::Unsatisfiable(size))).transpose()?;
        let (from, to) = range.unwrap_or((0, size));
        let body = if to - from <= SLICE_BYTES {
            let (_, bytes) = self.contexts.read_bytes(acting.project, &viewer, key, Some(head.version), from..to).await?;
            DocumentBody::Whole(bytes.into())
        } else {
            let (mut pipe, reader) = tokio::io::duplex(64 << 10);
            let (contexts, project, key, version) = (Arc::clone(&self.contexts), acting.project, key.to_owned(), head.version);
            let send = async move {
                let mut at = from;
                while at < to {
                    let next = (at + SLICE_BYTES).min(to);
                    match contexts.read_bytes(project, &viewer, &key, Some(version), at..next).await {
                        Ok((_, bytes)) if pipe.write_all(&bytes).await.is_ok() => at = next,
                        // The client went away.
                        Ok(_) => return,
                        Err(failure) => {
                            tracing::warn!(error = %chain(&failure), key, "a document could not be read to its end");
                            return;
                        }
                    }
                }
            };
            tokio::spawn(send.in_current_span());
            DocumentBody::Stream(Box::pin(reader))
        };
        Ok(DocumentBytes { version: head.version, hash: head.hash, media_type: head.media_type, size_bytes: size, range, body })
    }

    async fn write(&self, acting: &Acting, key: &str, write: DocumentWrite) -> Result<WriteOutcome, Failure> {
        let DocumentWrite { base_version, media_type, idempotency_key, content } = write;
        let request = PutRequest { key: key.to_owned(), base_version, media_type, idempotency_key };
        let (bytes, in_chunks) = match content {
            WrittenContent::Whole(bytes) => (bytes, false),
            WrittenContent::Chunks(chunks) => (self.contexts.joined(acting, key, &hashes(&chunks)?).await?.into(), true),
        };
        let outcome = self.contexts.put(acting, &request, bytes).await?;
        if in_chunks && matches!(outcome, WriteOutcome::Applied { .. }) {
            self.contexts.brought_all(acting, key).await?;
        }
        Ok(outcome)
    }

    async fn done(&self, acting: &Acting, key: &str, ask: DocumentAsk) -> Result<DocumentAnswer, Rejection> {
        let contexts = &self.contexts;
        Ok(DocumentAnswer::Json(match ask {
            DocumentAsk::Read { version, range } => return self.read(acting, key, version, range).await.map(DocumentAnswer::Bytes),
            DocumentAsk::Manifest { version } => {
                json!(contexts.manifest(acting.project, &Viewer::from(acting), key, version).await?)
            }
            DocumentAsk::Missing { chunks } => json!({"missing": contexts.missing_chunks(acting, key, hashes(&chunks)?).await?}),
            DocumentAsk::Bring { chunks } => {
                let chunks = chunks.iter().map(|chunk| chunk.to_vec()).collect();
                json!({"stored": contexts.bring_chunks(acting, key, chunks).await?})
            }
            DocumentAsk::Write(write) => match self.write(acting, key, write).await? {
                WriteOutcome::Conflict { id, current_version, conflicts, .. } => {
                    return Err(conflict(id, current_version, &conflicts).into());
                }
                done @ (WriteOutcome::Applied { .. } | WriteOutcome::Handed { .. }) => json!(done),
            },
        }))
    }
}

/// Why a request was not answered.
enum Rejection {
    Failed(Failure),
    Unsatisfiable(u64),
}

impl From<Failure> for Rejection {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Rejection {
    fn worded(self, key: &str) -> DocumentRejected {
        match self {
            Self::Unsatisfiable(size_bytes) => DocumentRejected::Unsatisfiable { size_bytes },
            Self::Failed(Failure::Refused(refusal)) => refused(&refusal),
            Self::Failed(Failure::Unavailable { retry_after_ms }) => DocumentRejected::Unavailable { retry_after_ms },
            Self::Failed(Failure::Contended { .. }) => DocumentRejected::Unavailable { retry_after_ms: 100 },
            Self::Failed(failure @ (Failure::Damaged(_) | Failure::Repository(_) | Failure::Plugin(_))) => {
                tracing::error!(error = %chain(&failure), key, "a document could not be served");
                DocumentRejected::Internal
            }
        }
    }
}

fn refused(refusal: &Refusal) -> DocumentRejected {
    DocumentRejected::Refused { code: refusal.code, json: serde_json::to_string(refusal).unwrap_or_default() }
}

/// Returns from which byte to before which; none: nothing of it is there.
fn bounds(range: ByteRange, size: u64) -> Option<(u64, u64)> {
    match range {
        ByteRange::From(from, to) => (from < size).then(|| (from, to.map_or(size, |to| to.saturating_add(1).min(size)))),
        ByteRange::Last(count) => (count > 0 && size > 0).then(|| (size.saturating_sub(count), size)),
    }
}

fn hashes(texts: &[String]) -> Result<Vec<ChunkHash>, Failure> {
    let parse = |text: &String| text.parse::<ChunkHash>();
    texts
        .iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::refused("bad_argument", error.to_string(), "Name each chunk by the BLAKE3 hash of its bytes."))
}

#[async_trait]
impl DocumentSurface for DocumentAccess {
    async fn document(
        &self,
        caller: &Caller,
        agent: Option<&str>,
        key: &str,
        ask: DocumentAsk,
    ) -> Result<DocumentAnswer, DocumentRejected> {
        let acting = self.agents.acting(caller, agent).await.map_err(|failure| Rejection::from(failure).worded(key))?;
        self.done(&acting, key, ask).await.map_err(|rejection| rejection.worded(key))
    }

    async fn documents(&self, caller: &Caller, agent: Option<&str>, prefix: &str, after: &str) -> Result<DocumentAnswer, DocumentRejected> {
        let listed = async {
            let acting = self.agents.acting(caller, agent).await?;
            self.contexts.list_after(acting.project, &Viewer::from(&acting), prefix, after, DOCUMENTS_MAX).await
        };
        let (listed, more) = listed.await.map_err(|failure| Rejection::from(failure).worded(prefix))?;
        Ok(DocumentAnswer::Json(json!({"documents": listed, "more": more})))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_what_is_there() {
        for (range, size, expected) in [
            (ByteRange::From(0, Some(9)), 100, Some((0, 10))),
            (ByteRange::From(90, Some(200)), 100, Some((90, 100))),
            (ByteRange::From(90, None), 100, Some((90, 100))),
            (ByteRange::From(0, Some(u64::MAX)), 100, Some((0, 100))),
            (ByteRange::From(100, None), 100, None),
            (ByteRange::From(0, None), 0, None),
            (ByteRange::Last(10), 100, Some((90, 100))),
            (ByteRange::Last(200), 100, Some((0, 100))),
            (ByteRange::Last(0), 100, None),
        ] {
            assert_eq!(bounds(range, size), expected, "{range:?} of {size}");
        }
    }
}
