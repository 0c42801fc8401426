//! Reading: a document whole or in part, its history, what changed since a version, which documents there are.

use std::ops::Range;

use pointsman_core::context::content::{ChunkHash, ChunkRef};
use pointsman_core::context::rules::Operation;
use pointsman_core::context::view::{self, Part, ViewError};
use pointsman_core::context::{DocumentHead, DocumentKey, DocumentVersion, is_json};
use pointsman_core::ids::ProjectId;
use serde::Serialize;
use serde_json::Value;

use super::content::Document;
use super::{Contexts, DOCUMENTS_MAX, HEADS, Viewer, texts_of};
use crate::service::failure::Failure;

/// Lines of one side times lines of the other up to which a diff is made.
const DIFFED_LINES_MAX: usize = 1 << 24;
/// Bytes of one side up to which a patch is made.
const DIFFED_BYTES_MAX: u64 = 4 << 20;

impl From<ViewError> for Failure {
    fn from(error: ViewError) -> Self {
        let code = if matches!(error, ViewError::NothingThere { .. }) { "not_found" } else { "bad_argument" };
        Self::refused(code, error.to_string(), "Read the whole document, or ask for another part.")
    }
}

/// What a document is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// What it is.
    #[serde(flatten)]
    pub head: DocumentHead,
    /// Its chunks, in their order; a small document is one.
    pub chunks: Vec<ChunkRef>,
}

/// What changed between two versions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changes {
    /// Which document.
    pub key: DocumentKey,
    /// The version asked about.
    pub from: u64,
    /// The newest.
    pub version: u64,
    /// What its bytes are.
    pub media_type: String,
    /// Operations of RFC 6902 for JSON, a unified diff for a text; none: too much changed, or it is neither. Read the newest whole then.
    pub patch: Option<Value>,
    /// The versions in between, oldest first.
    pub versions: Vec<DocumentHead>,
}

impl Contexts {
    /// Returns a version of a document with what it says, the newest when none is named.
    ///
    /// # Errors
    /// `bad_argument`, `not_found`.
    pub async fn read(&self, project: ProjectId, viewer: &Viewer, key: &str, version: Option<u64>) -> Result<Document, Failure> {
        let found = self.find(project, viewer, key, version).await?;
        self.document(project, found).await
    }

    /// Returns a version of a document, and bytes of it from one place to before another, cut to what there is.
    ///
    /// # Errors
    /// As [`Contexts::read`].
    pub async fn read_bytes(
        &self,
        project: ProjectId,
        viewer: &Viewer,
        key: &str,
        version: Option<u64>,
        range: Range<u64>,
    ) -> Result<(DocumentHead, Vec<u8>), Failure> {
        let found = self.find(project, viewer, key, version).await?;
        let bytes = self.slice(project, &found.content, range).await?;
        Ok((found.head, bytes))
    }

    /// Returns what a version of a document is, without what it says.
    ///
    /// # Errors
    /// As [`Contexts::read`].
    pub async fn manifest(&self, project: ProjectId, viewer: &Viewer, key: &str, version: Option<u64>) -> Result<Manifest, Failure> {
        let DocumentVersion { head, content } = self.find(project, viewer, key, version).await?;
        let bytes = content.inline_bytes();
        let chunks = match content.chunks() {
            [] if bytes.is_empty() => Vec::new(),
            [] => vec![ChunkRef { hash: ChunkHash::of(bytes), bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX) }],
            chunks => chunks.to_vec(),
        };
        Ok(Manifest { head, chunks })
    }

    pub(super) async fn find(
        &self,
        project: ProjectId,
        viewer: &Viewer,
        key: &str,
        version: Option<u64>,
    ) -> Result<DocumentVersion, Failure> {
        let key: DocumentKey = key.parse()?;
        let version = match version {
            Some(version) => {
                self.check(project, viewer, Operation::Read, &key, None).await?;
                version
            }
            None => self.head(project, viewer, &key).await?.version,
        };
        let DocumentVersion { head, content } = self.version(project, &key, version).await?;
        Ok(DocumentVersion { head: self.seen(project, viewer, head).await?, content })
    }

    /// Returns a part of a document: of JSON as a value, else as a text or, where it is none, as bytes.
    ///
    /// # Errors
    /// As [`Contexts::read`]; `not_found` where nothing stands there.
    pub async fn read_part(
        &self,
        project: ProjectId,
        viewer: &Viewer,
        key: &str,
        version: Option<u64>,
        part: &Part,
    ) -> Result<(DocumentHead, Value), Failure> {
        if let Part::Bytes(from, to) = part {
            let (head, bytes) = self.read_bytes(project, viewer, key, version, *from..*to).await?;
            let shown = String::from_utf8(bytes)
                .map_or_else(|error| serde_json::json!({"base64": data_encoding::BASE64.encode(error.as_bytes())}), Value::from);
            return Ok((head, shown));
        }
        let Document { head, bytes } = self.read(project, viewer, key, version).await?;
        let text = std::str::from_utf8(&bytes).map_err(|_| ViewError::Kind { expected: "text" })?;
        let found = match part {
            Part::Pointer(pointer) if is_json(&head.media_type) => {
                let value: Value = serde_json::from_str(text).map_err(|_| ViewError::Kind { expected: "JSON" })?;
                view::at_pointer(&value, pointer)?.clone()
            }
            Part::Pointer(_) => return Err(ViewError::Kind { expected: "JSON" }.into()),
            Part::Lines(from, to) => view::lines(text, *from, *to).into(),
            Part::Bytes(..) => Value::Null,
        };
        Ok((head, found))
    }

    /// Returns what changed since a version.
    ///
    /// # Errors
    /// As [`Contexts::read`].
    pub async fn changes(&self, project: ProjectId, viewer: &Viewer, key: &str, since: u64) -> Result<Changes, Failure> {
        let newest = self.find(project, viewer, key, None).await?;
        let old = self.version(project, &newest.head.key, since).await?;
        let history = self.history(project, viewer, key).await?;
        let versions = history.into_iter().filter(|head| head.version > since).collect();
        let DocumentHead { key, version, media_type, .. } = newest.head.clone();
        let fits = |version: &DocumentVersion| version.content.size_bytes() <= DIFFED_BYTES_MAX && !version.head.deleted;
        let patch = if fits(&old) && fits(&newest) && old.head.media_type == media_type {
            let (old, new) = (self.document(project, old).await?.bytes, self.document(project, newest).await?.bytes);
            let is_json = is_json(&media_type);
            tokio::task::spawn_blocking(move || patch(is_json, &old, &new)).await.ok().flatten()
        } else {
            None
        };
        Ok(Changes { key, from: since, version, media_type, patch, versions })
    }

    /// Returns the versions of a document that are kept, oldest first, without what they say.
    ///
    /// # Errors
    /// As [`Contexts::read`].
    pub async fn history(&self, project: ProjectId, viewer: &Viewer, key: &str) -> Result<Vec<DocumentHead>, Failure> {
        let key: DocumentKey = key.parse()?;
        self.check(project, viewer, Operation::Read, &key, None).await?;
        let all = self.kit.load_all::<DocumentVersion>(Some(project), &texts_of(&key), DOCUMENTS_MAX).await?;
        if all.is_empty() {
            return Err(super::access::missing(&key));
        }
        let mut heads = Vec::with_capacity(all.len());
        for (_, found) in all {
            heads.push(self.seen(project, viewer, found.value.head).await?);
        }
        Ok(heads)
    }

    /// Returns the newest versions of the documents whose keys start with `prefix` and that somebody may read, by key, without what they say,
    /// at most `limit`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn list(&self, project: ProjectId, viewer: &Viewer, prefix: &str, limit: usize) -> Result<Vec<DocumentHead>, Failure> {
        Ok(self.list_after(project, viewer, prefix, "", limit).await?.0)
    }

    /// As [`Contexts::list`], behind a key (empty: from the first); and the key behind which the list goes on, where it does.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn list_after(
        &self,
        project: ProjectId,
        viewer: &Viewer,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<DocumentHead>, Option<DocumentKey>), Failure> {
        let limit = limit.min(DOCUMENTS_MAX);
        let mut listed: Vec<DocumentHead> = Vec::new();
        // No key is between one and that with a zero behind it.
        let mut from = if after.is_empty() { String::new() } else { format!("{HEADS}{after}\0") };
        loop {
            let page = self.kit.store.range(Some(project), &format!("{HEADS}{prefix}"), &from, DOCUMENTS_MAX).await?;
            for (_, found) in page.entries {
                let head: DocumentHead = pointsman_core::value::decode(&found.bytes)?;
                if !head.deleted && self.may(project, viewer, Operation::Read, &head.key, Some(&head)).await? {
                    if listed.len() >= limit {
                        let last = listed.last().map(|last| last.key.clone());
                        return Ok((listed, last));
                    }
                    listed.push(self.seen(project, viewer, head).await?);
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok((listed, None)),
            }
        }
    }
}

fn patch(is_json: bool, from: &[u8], to: &[u8]) -> Option<Value> {
    let (from, to) = (std::str::from_utf8(from).ok()?, std::str::from_utf8(to).ok()?);
    if is_json {
        return Some(view::json_patch(&serde_json::from_str(from).ok()?, &serde_json::from_str(to).ok()?));
    }
    let lines = from.lines().count().saturating_mul(to.lines().count());
    (lines <= DIFFED_LINES_MAX).then(|| view::text_patch(from, to).into())
}
