//! Documents by chunks over plain HTTP: whoever has most of the chunks moves the others, and counts what is moved.
//!
//! Owns: how a client cuts, asks and puts together. **Invariant:** every body of a request or an answer is counted, as long as it was on
//! the wire: nothing is compressed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use pointsman_client::{Client, RawAnswer};
use pointsman_core::context::content::{ChunkHash, cut};
use serde::Deserialize;
use serde_json::json;

use crate::figures::{BenchError, setup};
use crate::stage::Host;

/// The project's slug.
const PROJECT: &str = "bench";
/// What a list of chunks is that stands for a document.
const CHUNKS_TYPE: &str = "application/vnd.pointsman.chunks+json";
const JSON: &str = "application/json";
/// What frames are.
const FRAMES_TYPE: &str = "application/octet-stream";
/// Bytes of one body of frames.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes before each chunk in a frame: its length.
const LENGTH_BYTES: usize = 4;

/// A version of a document as the chunks it is made of.
#[derive(Deserialize)]
struct Listed {
    version: u64,
    size_bytes: usize,
    chunks: Vec<ListedChunk>,
}

#[derive(Deserialize)]
struct ListedChunk {
    hash: ChunkHash,
    bytes: usize,
}

#[derive(Deserialize)]
struct Missing {
    missing: Vec<ChunkHash>,
}

#[derive(Deserialize)]
struct Written {
    version: u64,
}

/// A client of one document.
pub(super) struct Transfer {
    client: Client,
    authorization: String,
    agent: String,
    path: String,
    moved: usize,
}

impl Transfer {
    pub(super) fn of(host: &Host, agent: &str, key: &str) -> Result<Self, BenchError> {
        let (authorization, path) = (format!("Bearer {}", host.token), format!("/context/{PROJECT}/{key}"));
        Ok(Self { client: host.client()?, authorization, agent: agent.to_owned(), path, moved: 0 })
    }

    /// Returns how many bytes were moved since this was asked last.
    pub(super) fn take_moved(&mut self) -> usize {
        std::mem::take(&mut self.moved)
    }

    /// Writes the whole document, moving only chunks that the host lacks; returns the version it became.
    pub(super) async fn upload(&mut self, document: &[u8], media_type: &str, base_version: u64) -> Result<u64, BenchError> {
        let chunks: Vec<(ChunkHash, Range<usize>)> =
            cut(document).into_iter().map(|range| (ChunkHash::of(&document[range.clone()]), range)).collect();
        let places: BTreeMap<ChunkHash, Range<usize>> = chunks.iter().cloned().collect();
        let hashes: Vec<ChunkHash> = chunks.into_iter().map(|(hash, _)| hash).collect();

        let distinct: Vec<&ChunkHash> = places.keys().collect();
        let asked = json!({"chunks": distinct}).to_string();
        let Missing { missing } = read(&self.ask("POST", "?missing", Some((JSON, asked.into())), None).await?)?;
        let mut frames = Vec::new();
        for hash in missing {
            let range = places.get(&hash).ok_or_else(|| setup(format!("the host lacks {hash}, which it was not asked for")))?;
            if frames.len() + LENGTH_BYTES + range.len() > BODY_BYTES_MAX {
                self.send(std::mem::take(&mut frames)).await?;
            }
            frames.extend(u32::try_from(range.len()).map_err(setup)?.to_le_bytes());
            frames.extend(&document[range.clone()]);
        }
        if !frames.is_empty() {
            self.send(frames).await?;
        }

        let listed = json!({"media_type": media_type, "chunks": hashes}).to_string();
        let query = format!("?base_version={base_version}");
        let Written { version } = read(&self.ask("PUT", &query, Some((CHUNKS_TYPE, listed.into())), None).await?)?;
        Ok(version)
    }

    async fn send(&mut self, frames: Vec<u8>) -> Result<(), BenchError> {
        self.ask("POST", "?chunks", Some((FRAMES_TYPE, frames.into())), None).await.map(drop)
    }

    /// Reads the newest version, moving only chunks that `known` has not; returns it with its number.
    pub(super) async fn download(&mut self, known: &[u8]) -> Result<(Vec<u8>, u64), BenchError> {
        let listed: Listed = read(&self.ask("GET", "?chunks", None, None).await?)?;
        let held: BTreeMap<ChunkHash, Range<usize>> =
            cut(known).into_iter().map(|range| (ChunkHash::of(&known[range.clone()]), range)).collect();
        let mut document = vec![0; listed.size_bytes];
        let (mut at, mut lacked) = (0, Vec::new());
        for chunk in &listed.chunks {
            let here = at..at + chunk.bytes;
            let place = document.get_mut(here.clone()).ok_or_else(|| setup("the chunks are larger than the document"))?;
            match held.get(&chunk.hash) {
                Some(range) => place.copy_from_slice(&known[range.clone()]),
                None => join(&mut lacked, here.clone()),
            }
            at = here.end;
        }
        let query = format!("?version={}", listed.version);
        for range in lacked {
            let answer = self.ask("GET", &query, None, Some(&range)).await?;
            if answer.body.len() != range.len() {
                return Err(setup(format!("{} bytes came of {range:?}", answer.body.len())));
            }
            document[range].copy_from_slice(&answer.body);
        }
        self.are_what_they_are_called(&listed, &document)?;
        Ok((document, listed.version))
    }

    /// Sees that every chunk has the bytes that its name says.
    fn are_what_they_are_called(&self, listed: &Listed, document: &[u8]) -> Result<(), BenchError> {
        let mut at = 0;
        let mut wrong = BTreeSet::new();
        for chunk in &listed.chunks {
            if document.get(at..at + chunk.bytes).map(ChunkHash::of) != Some(chunk.hash) {
                wrong.insert(chunk.hash);
            }
            at += chunk.bytes;
        }
        if wrong.is_empty() && at == document.len() { Ok(()) } else { Err(setup(format!("{}: chunks differ: {wrong:?}", self.path))) }
    }

    /// Asks, counts both bodies, and returns an answer that is none of a failure.
    async fn ask(
        &mut self,
        method: &str,
        query: &str,
        body: Option<(&str, Bytes)>,
        range: Option<&Range<usize>>,
    ) -> Result<RawAnswer, BenchError> {
        let (path, range) = (format!("{}{query}", self.path), range.map(|range| format!("bytes={}-{}", range.start, range.end - 1)));
        let mut headers = vec![("authorization", self.authorization.as_str()), ("pointsman-agent", self.agent.as_str())];
        headers.extend(range.as_deref().map(|range| ("range", range)));
        let mut sent = Bytes::new();
        if let Some((media_type, body)) = body {
            headers.push(("content-type", media_type));
            sent = body;
        }
        let sent_bytes = sent.len();
        let answer = self.client.request(method, &path, &headers, sent).await.map_err(setup)?;
        self.moved += sent_bytes + answer.body.len();
        let expected = if range.is_some() { 206 } else { 200 };
        if answer.status == expected {
            return Ok(answer);
        }
        let said: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
        Err(setup(format!("{method} {path}: {} where {expected} was expected: {said}", answer.status)))
    }
}

/// Adds a range, joined to the last one where that ends.
fn join(ranges: &mut Vec<Range<usize>>, range: Range<usize>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

fn read<'a, T: Deserialize<'a>>(answer: &'a RawAnswer) -> Result<T, BenchError> {
    serde_json::from_slice(&answer.body).map_err(|error| setup(format!("the answer cannot be read: {error}")))
}
