//! Bytes of documents, to the store and back: small ones within their version, others in chunks that are stored once.
//!
//! ```text
//! ctx-chunk/<hash>                 a chunk
//! ctx-mark/<hash>                  that it is there
//! ctx-upload/<agent>/<key hash>    the chunks an agent brought for a document that it has not written yet
//! ```
//!
//! **Invariants:** a version names chunks that are there: it is written on the condition that their marks are as they were seen, and a
//! chunk goes only after its mark was condemned and no version was found that names it ([`super::sweep`]).

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use pointsman_core::context::DocumentVersion;
use pointsman_core::context::content::{ChunkHash, ChunkMark, ChunkRef, Content, StoredChunk, cut};
use pointsman_core::ids::ProjectId;
use pointsman_core::value;

use super::Contexts;
use crate::ports::store::{Commit, Committed, Expect, StoreError};
use crate::service::failure::Failure;
use crate::service::kit::{CommitExt, Kit};

pub(super) const CHUNKS: &str = "ctx-chunk/";
pub(super) const MARKS: &str = "ctx-mark/";
/// Bytes of the chunks that one commit brings.
const COMMIT_BYTES: usize = 4 << 20;
/// Bytes above which cutting and hashing is done beside the runtime's own threads.
const ASIDE_BYTES: usize = 256 << 10;
/// Times chunks are brought again because one was condemned meanwhile.
const TRIES: u32 = 8;

pub(super) fn chunk_key(hash: ChunkHash) -> String {
    format!("{CHUNKS}{hash}")
}

pub(super) fn mark_key(hash: ChunkHash) -> String {
    format!("{MARKS}{hash}")
}

/// A version of a document with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub head: pointsman_core::context::DocumentHead,
    /// What it says.
    pub bytes: Vec<u8>,
}

impl Document {
    /// Returns what it says, as far as it is a text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }
}

/// What a version will say, and what that rests on.
pub(super) struct Kept {
    pub(super) content: Content,
    pub(super) expects: Vec<(String, Expect)>,
}

fn damaged(hash: ChunkHash) -> Failure {
    tracing::error!(%hash, "a chunk is missing or damaged");
    Failure::Damaged(value::ValueError::Damaged { name: "chunk", source: None })
}

/// Returns a chunk's bytes, which are those of its name.
async fn chunk(kit: &Kit, project: ProjectId, hash: ChunkHash) -> Result<Vec<u8>, Failure> {
    let found = kit.load::<StoredChunk>(Some(project), &chunk_key(hash)).await?;
    let bytes = found.and_then(|found| found.value.open()).filter(|bytes| ChunkHash::of(bytes) == hash);
    bytes.ok_or_else(|| damaged(hash))
}

/// Returns chunks that are there for certain, one after another.
pub(super) async fn join(kit: &Kit, project: ProjectId, chunks: &[ChunkRef]) -> Result<Vec<u8>, Failure> {
    let size: usize = chunks.iter().map(|chunk| chunk.bytes as usize).sum();
    let mut bytes = Vec::with_capacity(size);
    for one in chunks {
        bytes.extend_from_slice(&chunk(kit, project, one.hash).await?);
    }
    Ok(bytes)
}

/// Chunks with their bytes.
pub(super) type Cut = Vec<(ChunkRef, Vec<u8>)>;

fn chunk_ref(bytes: &[u8]) -> ChunkRef {
    ChunkRef { hash: ChunkHash::of(bytes), bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX) }
}

/// Does what takes long beside the runtime's own threads.
async fn aside<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= ASIDE_BYTES {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Returns the chunks of these bytes.
async fn cut_all(bytes: Bytes) -> Cut {
    let size = bytes.len();
    aside(size, move || cut(&bytes).into_iter().map(|range| (chunk_ref(&bytes[range.clone()]), bytes[range].to_vec())).collect()).await
}

/// Returns bytes as chunks under their names.
pub(super) async fn named(chunks: Vec<Vec<u8>>) -> Cut {
    let size = chunks.iter().map(Vec::len).sum();
    aside(size, move || chunks.into_iter().map(|bytes| (chunk_ref(&bytes), bytes)).collect()).await
}

/// Sees to it that chunks are there. Returns what to expect of a commit that names them.
pub(super) async fn bring(kit: &Kit, project: ProjectId, chunks: Cut) -> Result<Vec<(String, Expect)>, Failure> {
    let mut chunks: Vec<(ChunkRef, Vec<u8>)> = chunks;
    let mut seen = HashSet::new();
    chunks.retain(|(chunk, _)| seen.insert(chunk.hash));
    let mut expects = Vec::with_capacity(chunks.len());
    for _ in 0..TRIES {
        let mut absent = Vec::new();
        for (chunk, bytes) in chunks {
            match kit.load::<ChunkMark>(Some(project), &mark_key(chunk.hash)).await? {
                Some(mark) if !mark.value.is_condemned => expects.push((mark_key(chunk.hash), Expect::Version(mark.version))),
                mark => absent.push((chunk, bytes, mark.map(|mark| mark.version))),
            }
        }
        if absent.is_empty() {
            return Ok(expects);
        }
        chunks = put(kit, project, absent, &mut expects).await?;
        if chunks.is_empty() {
            return Ok(expects);
        }
    }
    Err(Failure::Contended { key: MARKS.to_owned(), tries: TRIES })
}

/// Puts chunks that were absent. Returns those that were not any more.
async fn put(
    kit: &Kit,
    project: ProjectId,
    absent: Vec<(ChunkRef, Vec<u8>, Option<u64>)>,
    expects: &mut Vec<(String, Expect)>,
) -> Result<Cut, Failure> {
    let mut again = Vec::new();
    let mut absent = absent.into_iter().peekable();
    while absent.peek().is_some() {
        let mut size = 0;
        let mut batch = Vec::new();
        while let Some(one) = absent.next_if(|(chunk, ..)| batch.is_empty() || size + chunk.bytes as usize <= COMMIT_BYTES) {
            size += one.0.bytes as usize;
            batch.push(one);
        }
        let (batch, stored) = aside(size, move || {
            let stored: Vec<StoredChunk> = batch.iter().map(|(_, bytes, _)| StoredChunk::of(bytes)).collect();
            (batch, stored)
        })
        .await;
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        for ((chunk, _, version), stored) in batch.iter().zip(&stored) {
            commit.put(chunk_key(chunk.hash), stored);
            let mark = ChunkMark { stored_bytes: stored.stored_bytes(), at: kit.now(), is_condemned: false };
            commit.replace(mark_key(chunk.hash), *version, &mark);
        }
        match kit.store.commit(commit).await {
            Ok(Committed::Done { version, .. }) => {
                expects.extend(batch.into_iter().map(|(chunk, ..)| (mark_key(chunk.hash), Expect::Version(version))));
            }
            Ok(Committed::Replayed(_) | Committed::Kept) | Err(StoreError::Stale { .. }) => {
                again.extend(batch.into_iter().map(|(chunk, bytes, _)| (chunk, bytes)));
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(again)
}

impl Contexts {
    /// Returns what a version of these bytes says; `newest`: what the newest version says, whose chunks stay in any case.
    pub(super) async fn keep(&self, project: ProjectId, bytes: &Bytes, newest: Option<&Content>) -> Result<Kept, Failure> {
        if let Some(content) = Content::inline(bytes) {
            return Ok(Kept { content, expects: Vec::new() });
        }
        let cut = cut_all(bytes.clone()).await;
        let content = Content::of_chunks(cut.iter().map(|(chunk, _)| *chunk).collect());
        let known: HashSet<ChunkHash> = newest.into_iter().flat_map(Content::chunks).map(|chunk| chunk.hash).collect();
        let new = cut.into_iter().filter(|(chunk, _)| !known.contains(&chunk.hash)).collect();
        Ok(Kept { content, expects: bring(&self.kit, project, new).await? })
    }

    /// Returns what a version says that names these chunks again: those of another version of the project.
    pub(super) async fn keep_again(&self, project: ProjectId, content: &Content) -> Result<Kept, Failure> {
        let mut cut = Vec::new();
        for one in content.chunks() {
            cut.push((*one, chunk(&self.kit, project, one.hash).await?));
        }
        Ok(Kept { content: content.clone(), expects: bring(&self.kit, project, cut).await? })
    }

    /// Returns a version with its bytes.
    pub(super) async fn document(&self, project: ProjectId, version: DocumentVersion) -> Result<Document, Failure> {
        let DocumentVersion { head, content } = version;
        let bytes = match content.chunks() {
            [] => content.inline_bytes().to_vec(),
            chunks => join(&self.kit, project, chunks).await?,
        };
        Ok(Document { head, bytes })
    }

    /// Returns bytes of a version, from one place to before another, cut to what there is.
    pub(super) async fn slice(&self, project: ProjectId, content: &Content, range: Range<u64>) -> Result<Vec<u8>, Failure> {
        let size = content.size_bytes();
        let range = range.start.min(size)..range.end.min(size).max(range.start.min(size));
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let (bytes, skipped) = match content.chunks() {
            [] => (content.inline_bytes().to_vec(), range.start),
            _ => {
                let (covering, skipped) = content.covering(&range);
                (join(&self.kit, project, covering).await?, skipped)
            }
        };
        Ok(bytes.into_iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX)).take(length).collect())
    }
}
