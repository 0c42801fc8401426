//! Large documents in parts: an agent asks which chunks are missing, brings those, and names them all in a write. What it brought is kept for
//! a day, so that an upload that broke off goes on where it was.
//!
//! **Invariant:** an agent can name only chunks that it brought, or that are in the document as it may read it: the name of a chunk opens
//! nothing, and nobody learns what other documents say.

use std::collections::HashSet;

use pointsman_core::context::content::{ChunkHash, ChunkRef, Content};
use pointsman_core::context::rules::Operation;
use pointsman_core::context::{DocumentHead, DocumentKey};
use pointsman_core::ids::AgentId;
use pointsman_core::limits::{CHUNK_BYTES_MAX, DOCUMENT_BYTES_MAX};
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::content::{bring, join, named};
use super::request::wrong;
use super::{Contexts, Viewer, head_key};
use crate::ports::store::Commit;
use crate::service::failure::Failure;
use crate::service::kit::{Acting, CommitExt};

pub(super) const UPLOADS: &str = "ctx-upload/";
/// Milliseconds for which what was brought is kept.
const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// Chunks of one upload, more than a document of the largest size can have.
const CHUNKS_MAX: usize = 16_384;

/// What an agent brought for a document that it has not written yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    /// Who.
    pub(super) agent: AgentId,
    /// For which document.
    pub(super) key: DocumentKey,
    /// What it brought.
    pub(super) chunks: Vec<ChunkRef>,
    /// When it is forgotten.
    pub(super) until: TimeMs,
}

impl Stored for Upload {
    const NAME: &'static str = "upload";
}

pub(super) fn upload_key(agent: AgentId, key: &DocumentKey) -> String {
    format!("{UPLOADS}{agent}/{}", blake3::hash(key.as_str().as_bytes()).to_hex())
}

impl Contexts {
    /// Returns the chunks an agent may name in a write of a document: those it brought, and those of the document's newest version.
    async fn at_hand(&self, acting: &Acting, key: &DocumentKey) -> Result<Vec<ChunkRef>, Failure> {
        let project = acting.project;
        let head = self.kit.load::<DocumentHead>(Some(project), &head_key(key)).await?.map(|head| head.value);
        self.check(project, &Viewer::from(acting), Operation::Write, key, head.as_ref()).await?;
        let mut chunks = Vec::new();
        if let Some(head) = head.filter(|head| !head.deleted) {
            chunks.extend_from_slice(self.version(project, key, head.version).await?.content.chunks());
        }
        if let Some(upload) = self.kit.load::<Upload>(Some(project), &upload_key(acting.agent.id, key)).await? {
            chunks.extend(upload.value.chunks);
        }
        Ok(chunks)
    }

    /// Returns which of these chunks an agent has to bring before it names them in a write of a document.
    ///
    /// # Errors
    /// `bad_argument`, `forbidden`.
    pub async fn missing_chunks(&self, acting: &Acting, key: &str, chunks: Vec<ChunkHash>) -> Result<Vec<ChunkHash>, Failure> {
        let there: HashSet<ChunkHash> = self.at_hand(acting, &key.parse()?).await?.into_iter().map(|chunk| chunk.hash).collect();
        let mut seen = HashSet::new();
        Ok(chunks.into_iter().filter(|chunk| !there.contains(chunk) && seen.insert(*chunk)).collect())
    }

    /// Keeps chunks that an agent brings for a document. Returns how many.
    ///
    /// # Errors
    /// `bad_argument`, `forbidden`, `too_large`, `quota`.
    pub async fn bring_chunks(&self, acting: &Acting, key: &str, chunks: Vec<Vec<u8>>) -> Result<usize, Failure> {
        let key: DocumentKey = key.parse()?;
        let project = acting.project;
        let before = self.at_hand(acting, &key).await?;
        if let Some(wrong_one) = chunks.iter().find(|chunk| chunk.is_empty() || chunk.len() > CHUNK_BYTES_MAX) {
            let why = format!("a chunk has {} bytes, 1 to {CHUNK_BYTES_MAX} are taken", wrong_one.len());
            return Err(wrong(why, "Cut the document as the host does: FastCDC, of 4, 16 and 64 KiB."));
        }
        let bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let brought: u64 = before.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        if brought + bytes > 2 * DOCUMENT_BYTES_MAX as u64 || before.len() + chunks.len() > CHUNKS_MAX {
            return Err(Failure::refused(
                "too_large",
                "more was brought than a document can have",
                "Write the document from what you brought.",
            ));
        }
        self.usage.admit(self, project, bytes, false).await?;
        let cut = named(chunks).await;
        let count = cut.len();
        let refs: Vec<ChunkRef> = cut.iter().map(|(chunk, _)| *chunk).collect();
        let upload = upload_key(acting.agent.id, &key);
        let decided = self.kit.decide(|| async {
            let mut commit = Commit { project: Some(project), ..Commit::default() };
            commit.expects = bring(&self.kit, project, cut.clone()).await?;
            let found = self.kit.load::<Upload>(Some(project), &upload).await?;
            let version = found.as_ref().map(|found| found.version);
            let mut chunks = found.map(|found| found.value.chunks).unwrap_or_default();
            let known: HashSet<ChunkHash> = chunks.iter().map(|chunk| chunk.hash).collect();
            chunks.extend(refs.iter().filter(|chunk| !known.contains(&chunk.hash)));
            let record = Upload { agent: acting.agent.id, key: key.clone(), chunks, until: self.kit.now() + KEPT_MS };
            commit.replace(upload.as_str(), version, &record);
            Ok((commit, ()))
        });
        decided.await?;
        Ok(count)
    }

    /// Returns the bytes of chunks that an agent names.
    ///
    /// # Errors
    /// `missing_chunks`, naming those that it has to bring; `too_large`, `forbidden`.
    pub async fn joined(&self, acting: &Acting, key: &str, chunks: &[ChunkHash]) -> Result<Vec<u8>, Failure> {
        let there: std::collections::HashMap<ChunkHash, ChunkRef> =
            self.at_hand(acting, &key.parse()?).await?.into_iter().map(|chunk| (chunk.hash, chunk)).collect();
        let missing: Vec<&ChunkHash> = chunks.iter().filter(|chunk| !there.contains_key(chunk)).collect();
        if !missing.is_empty() {
            let why = format!("{} of the chunks were not brought", missing.len());
            return Err(Failure::refused_with(
                "missing_chunks",
                why,
                "Bring those that are named, then write again.",
                json!({"missing": missing}),
            ));
        }
        let refs: Vec<ChunkRef> = chunks.iter().filter_map(|chunk| there.get(chunk)).copied().collect();
        let content = Content::of_chunks(refs);
        if content.size_bytes() > DOCUMENT_BYTES_MAX as u64 {
            let why = format!("the document has {} bytes, at most {DOCUMENT_BYTES_MAX} are allowed", content.size_bytes());
            return Err(Failure::refused("too_large", why, "Split it into several keys."));
        }
        join(&self.kit, acting.project, content.chunks()).await
    }

    /// Forgets what an agent brought for a document that it wrote.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn brought_all(&self, acting: &Acting, key: &str) -> Result<(), Failure> {
        let deletes = vec![upload_key(acting.agent.id, &key.parse()?)];
        self.kit.store.commit(Commit { project: Some(acting.project), deletes, ..Commit::default() }).await?;
        Ok(())
    }
}
