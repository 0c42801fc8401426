//! Context documents: shared texts and values that agents edit, version by version.
//!
//! Owns: keys, versions, what a write from some version means. Must not know: how two edits are merged, where bytes lie.
//!
//! **Invariants:** versions of a document rise by one and name their parents; a write that was not made from the newest
//! version never replaces it without having been reconciled with it; a refused or conflicting write changes nothing.

pub mod content;
pub mod rules;
#[cfg(test)]
mod tests;
pub mod view;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::content::Content;
use crate::event::Actor;
use crate::ids::{AgentId, ConflictId};
use crate::limits::{DOCUMENT_BYTES_MAX, DOCUMENT_KEY_BYTES_MAX};
use crate::time::TimeMs;
use crate::value::Stored;

/// Media type of JSON documents.
pub const JSON: &str = "application/json";
/// Media type of text documents that name none.
pub const TEXT: &str = "text/markdown";
/// Bytes of a media type.
const MEDIA_TYPE_BYTES_MAX: usize = 100;

/// The name of a document: parts joined by `/`, `plan/api`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DocumentKey(String);

/// Why a text is no document key or media type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// Not of the form.
    #[error(
        "`{given}` is no document key: it is parts joined by `/`, each of A-Z, a-z, 0-9, `-`, `_`, `.`, not starting with `.`, at most {DOCUMENT_KEY_BYTES_MAX} bytes"
    )]
    Key {
        /// What was read, cut to 80 characters.
        given: String,
    },
    /// Not of the form.
    #[error("`{given}` is no media type: it is `type/subtype` in lower case, as in `{JSON}` or `{TEXT}`")]
    MediaType {
        /// What was read, cut to 80 characters.
        given: String,
    },
}

impl DocumentKey {
    /// Returns the key as a text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what events call it: `ctx:plan/api`.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{SUBJECT_PREFIX}{}", self.0)
    }
}

/// What the subjects of a document's events start with.
pub const SUBJECT_PREFIX: &str = "ctx:";

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DocumentKey {
    type Err = DocumentError;

    fn from_str(text: &str) -> Result<Self, DocumentError> {
        let accepted = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(accepted);
        if text.len() <= DOCUMENT_KEY_BYTES_MAX && text.split('/').all(part) {
            return Ok(Self(text.to_owned()));
        }
        Err(DocumentError::Key { given: text.chars().take(80).collect() })
    }
}

impl TryFrom<String> for DocumentKey {
    type Error = DocumentError;

    fn try_from(text: String) -> Result<Self, DocumentError> {
        text.parse()
    }
}

impl From<DocumentKey> for String {
    fn from(key: DocumentKey) -> Self {
        key.0
    }
}

/// Checks a media type: `type/subtype`, without parameters.
///
/// # Errors
/// [`DocumentError::MediaType`].
pub fn check_media_type(text: &str) -> Result<(), DocumentError> {
    let accepted = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | '_');
    let part = |part: &str| !part.is_empty() && part.chars().all(accepted);
    match text.split_once('/') {
        Some((main, sub)) if text.len() <= MEDIA_TYPE_BYTES_MAX && part(main) && part(sub) => Ok(()),
        _ => Err(DocumentError::MediaType { given: text.chars().take(80).collect() }),
    }
}

/// Returns whether documents of this media type hold JSON.
#[must_use]
pub fn is_json(media_type: &str) -> bool {
    media_type == JSON || media_type.ends_with("+json")
}

/// Returns the hash documents are compared by: BLAKE3, hex.
#[must_use]
pub fn content_hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// A version of a document, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentHead {
    /// Which document.
    pub key: DocumentKey,
    /// From 1.
    pub version: u64,
    /// What its bytes are.
    pub media_type: String,
    /// By [`content_hash`].
    pub hash: String,
    /// How many bytes.
    pub size_bytes: u64,
    /// Who wrote it.
    pub author: Actor,
    /// When.
    pub at: TimeMs,
    /// The versions it was made from: none for the first, two for a merge.
    pub parents: Vec<u64>,
    /// The reconciler that merged its parents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_by: Option<String>,
    /// Who began the document; none: its author did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator: Option<AgentId>,
    /// Whether this version says that the document is gone. Earlier ones can be restored.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// How often it was deleted before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deletions: u64,
    /// Where a document went whose last version says that it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_to: Option<DocumentKey>,
    /// Where the first version of a document came from, `KEY@VERSION`; the content of another version, `@VERSION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_from: Option<String>,
    /// Its name among the versions: one that has a label is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When the document is deleted unless it is written again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<TimeMs>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl DocumentHead {
    /// Returns a version that says this, and nothing else of note.
    #[must_use]
    pub fn new(key: DocumentKey, version: u64, media_type: &str, bytes: &[u8], author: Actor, at: TimeMs, parents: Vec<u64>) -> Self {
        Self {
            key,
            version,
            media_type: media_type.to_owned(),
            hash: content_hash(bytes),
            size_bytes: bytes.len() as u64,
            author,
            at,
            parents,
            merged_by: None,
            creator: None,
            deleted: false,
            deletions: 0,
            renamed_to: None,
            taken_from: None,
            label: None,
            expires_at: None,
        }
    }

    /// Returns who began the document.
    #[must_use]
    pub fn creator(&self) -> Option<AgentId> {
        self.creator.or(self.author.agent)
    }
}

impl Stored for DocumentHead {
    const NAME: &'static str = "document head";
}

/// A version of a document with what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentVersion {
    /// What it is.
    pub head: DocumentHead,
    /// What it says.
    pub content: Content,
}

impl Stored for DocumentVersion {
    const NAME: &'static str = "document version";
}

/// What a write means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteDecision {
    /// It becomes this version.
    Apply {
        /// The new version.
        version: u64,
        /// What it was made from.
        parents: Vec<u64>,
    },
    /// The newest version says exactly this.
    Unchanged {
        /// The newest version.
        version: u64,
    },
    /// The document was deleted since.
    Gone {
        /// The version that says so.
        newest: u64,
    },
    /// Others wrote since: merge the two.
    Reconcile {
        /// What the writer started from; none: it did not know of the document.
        base: Option<u64>,
        /// The newest version.
        ours: u64,
    },
    /// There is no such version to start from.
    UnknownBase {
        /// The newest version; none: there is no document.
        newest: Option<u64>,
    },
    /// Too many bytes.
    TooLarge {
        /// How many.
        actual: usize,
        /// How many there may be.
        max: usize,
    },
}

/// Decides what a write from `base_version` (none or 0: a new document) means where `head` is the newest version.
#[must_use]
pub fn decide_write(head: Option<&DocumentHead>, base_version: Option<u64>, media_type: &str, bytes: &[u8]) -> WriteDecision {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return WriteDecision::TooLarge { actual: bytes.len(), max: DOCUMENT_BYTES_MAX };
    }
    let base = base_version.filter(|&version| version > 0);
    let Some(head) = head else {
        return match base {
            None => WriteDecision::Apply { version: 1, parents: Vec::new() },
            Some(_) => WriteDecision::UnknownBase { newest: None },
        };
    };
    if base.is_some_and(|base| base > head.version) {
        return WriteDecision::UnknownBase { newest: Some(head.version) };
    }
    if !head.deleted && head.media_type == media_type && head.hash == content_hash(bytes) {
        return WriteDecision::Unchanged { version: head.version };
    }
    // Whoever begins a document anew need not know that there was one.
    if base == Some(head.version) || (head.deleted && base.is_none()) {
        return WriteDecision::Apply { version: head.version + 1, parents: vec![head.version] };
    }
    if head.deleted {
        return WriteDecision::Gone { newest: head.version };
    }
    WriteDecision::Reconcile { base, ours: head.version }
}

/// A place where a write and the newest version disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictPlace {
    /// JSON pointer or line range; empty: the whole document.
    pub pointer: String,
    /// Why.
    pub reason: String,
    /// The common version's part.
    pub base: Option<String>,
    /// The newest version's part.
    pub ours: Option<String>,
    /// The writer's part.
    pub theirs: Option<String>,
}

/// A write that met a conflict. What the writer wanted to write is kept beside it, as a version that is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// Never changes.
    pub id: ConflictId,
    /// Which document.
    pub key: DocumentKey,
    /// What the writer started from.
    pub base_version: Option<u64>,
    /// The newest version then.
    pub current_version: u64,
    /// What the writer's bytes are.
    pub media_type: String,
    /// Who.
    pub author: Actor,
    /// When.
    pub at: TimeMs,
    /// Where they disagree.
    pub places: Vec<ConflictPlace>,
    /// The reconciler that found so; none: no one could tell.
    pub plugin: Option<String>,
    /// Agents that were told, beside the writer.
    #[serde(default)]
    pub owners: Vec<AgentId>,
    /// Whom it was handed to.
    #[serde(default)]
    pub handed_to: Option<AgentId>,
    /// The version that resolved it.
    pub resolved_by: Option<u64>,
}

impl Stored for ConflictRecord {
    const NAME: &'static str = "document conflict";
}
