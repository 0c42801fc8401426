//! What a caller wants to write, and its checking: one of the forms a write has, and nothing that contradicts it.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use pointsman_core::context::{ConflictPlace, DocumentError, DocumentHead, DocumentKey, JSON, TEXT, check_media_type, is_json};
use pointsman_core::ids::{AgentId, ConflictId};
use pointsman_core::limits::{DOCUMENTS_PER_WRITE_MAX, LABEL_CHARS_MAX};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::service::failure::Failure;

/// Media type of bytes that nobody named.
const BYTES: &str = "application/octet-stream";
/// Seconds a document may be told to last.
const EXPIRES_S_MAX: u64 = 10 * 365 * 24 * 60 * 60;

/// A side of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The newest version, as it is.
    Ours,
    /// What the writer wanted to write.
    Theirs,
}

/// A document to write: its content in one of `text`, `value`, `base64`, `patch`; or what else is to become of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WriteRequest {
    /// `plan/api`.
    pub key: String,
    /// The version it was made from; none or 0: a new document.
    pub base_version: Option<u64>,
    /// What it is; none: as it was, else `application/json` for `value`, `text/markdown` for `text`.
    pub media_type: Option<String>,
    /// The whole text.
    pub text: Option<String>,
    /// Or the whole value, for a JSON document.
    pub value: Option<Value>,
    /// Or the whole bytes.
    pub base64: Option<String>,
    /// Or what changes of the base version: operations of RFC 6902 for JSON, a unified diff for a text.
    pub patch: Option<Value>,
    /// Or the version whose content it gets again.
    pub restore: Option<u64>,
    /// Or: it goes.
    #[serde(skip_serializing_if = "is_false")]
    pub delete: bool,
    /// Or the key it goes to.
    pub rename_to: Option<String>,
    /// The name of this version, which is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Seconds after which it goes unless it is written again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// The conflict that this write resolves.
    pub resolves: Option<ConflictId>,
    /// The side that resolves it, in place of a content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub take: Option<Side>,
    /// The agent that is to resolve it instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hand_to: Option<String>,
    /// Other documents that must be at these versions; 0: not there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub expects: BTreeMap<String, u64>,
    /// The same key never writes a second version; none: derived from document, base and content.
    pub idempotency_key: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Documents to write together: all, or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WriteBatch {
    /// Each under another key.
    pub documents: Vec<WriteRequest>,
    /// Other documents that must be at these versions; 0: not there.
    pub expects: BTreeMap<String, u64>,
    /// The same key never writes twice.
    pub idempotency_key: Option<String>,
}

/// A document to write whose bytes came by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PutRequest {
    /// `plan/api`.
    pub key: String,
    /// The version it was made from; none or 0: a new document.
    pub base_version: Option<u64>,
    /// What it is; none: as it was, else `application/octet-stream`.
    pub media_type: Option<String>,
    /// The same key never writes a second version; none: derived from document, base and content.
    pub idempotency_key: Option<String>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum WriteOutcome {
    /// It is in the newest version.
    Applied {
        /// The newest version.
        version: u64,
        /// The version it was merged with, when others wrote since its base.
        merged_with: Option<u64>,
        /// The reconciler that merged them.
        plugin: Option<String>,
        /// Whether the newest version said exactly this before.
        unchanged: bool,
    },
    /// Nothing was written.
    Conflict {
        /// Names it in `resolves`.
        id: ConflictId,
        /// The newest version: the base of a write that resolves it.
        current_version: u64,
        /// Where the write and the newest version disagree.
        conflicts: Vec<ConflictPlace>,
        /// The reconciler that found so.
        plugin: Option<String>,
    },
    /// The conflict is another agent's to resolve.
    Handed {
        /// Which.
        id: ConflictId,
        /// Whose.
        to: AgentId,
    },
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        Self::refused("bad_argument", error.to_string(), "Write it in that form.")
    }
}

/// What a write does to a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// It says this.
    Put(Bytes),
    /// It says what its base says, with these changes.
    Patch(Value),
    /// It says what this version says.
    Restore(u64),
    /// It goes.
    Delete,
    /// It goes to another key.
    Rename(DocumentKey),
    /// A side of the conflict that is resolved.
    Take(Side),
    /// Somebody else resolves the conflict.
    Hand(String),
}

/// A checked [`WriteRequest`].
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) key: DocumentKey,
    pub(super) base_version: Option<u64>,
    media_type: Option<String>,
    /// The media type of a new document that names none.
    usual: &'static str,
    pub(super) change: Change,
    pub(super) label: Option<String>,
    pub(super) expires_in_s: Option<u64>,
    pub(super) resolves: Option<ConflictId>,
}

pub(super) fn wrong(why: impl Into<String>, advice: &str) -> Failure {
    Failure::refused("bad_argument", why, advice)
}

impl Write {
    pub(super) fn check(request: &WriteRequest) -> Result<Self, Failure> {
        let key: DocumentKey = request.key.parse()?;
        if let Some(media_type) = &request.media_type {
            check_media_type(media_type)?;
        }
        let (change, usual) = change(request)?;
        if matches!(change, Change::Take(_) | Change::Hand(_)) && request.resolves.is_none() {
            return Err(wrong("`take` and `hand_to` settle a conflict", "Name it in `resolves`."));
        }
        if request.value.is_some() && request.media_type.as_ref().is_some_and(|media_type| !is_json(media_type)) {
            return Err(wrong("`media_type` is not JSON but `value` is given", "Give `text`, or leave `media_type` out."));
        }
        if request.label.as_ref().is_some_and(|label| label.is_empty() || label.chars().count() > LABEL_CHARS_MAX) {
            return Err(wrong(format!("`label` has not 1 to {LABEL_CHARS_MAX} characters"), "Give one line, or leave it out."));
        }
        if request.expires_in_s.is_some_and(|seconds| !(1..=EXPIRES_S_MAX).contains(&seconds)) {
            return Err(wrong(format!("`expires_in_s` is not between 1 and {EXPIRES_S_MAX}"), "Give seconds, or leave it out."));
        }
        Ok(Self {
            key,
            base_version: request.base_version.filter(|version| *version > 0),
            media_type: request.media_type.clone(),
            usual,
            change,
            label: request.label.clone(),
            expires_in_s: request.expires_in_s,
            resolves: request.resolves,
        })
    }

    /// Returns a write of bytes.
    pub(super) fn of_bytes(request: &PutRequest, bytes: Bytes) -> Result<Self, Failure> {
        if let Some(media_type) = &request.media_type {
            check_media_type(media_type)?;
        }
        Ok(Self {
            key: request.key.parse()?,
            base_version: request.base_version.filter(|version| *version > 0),
            media_type: request.media_type.clone(),
            usual: BYTES,
            change: Change::Put(bytes),
            label: None,
            expires_in_s: None,
            resolves: None,
        })
    }

    /// Returns the media type of the write where `head` is the newest version.
    pub(super) fn media_type(&self, head: Option<&DocumentHead>) -> String {
        let kept = || head.map(|head| head.media_type.clone()).filter(|kept| is_json(kept) || self.usual != JSON);
        self.media_type.clone().or_else(kept).unwrap_or_else(|| self.usual.to_owned())
    }
}

/// Returns what a write does, and the media type of a new document by it.
fn change(request: &WriteRequest) -> Result<(Change, &'static str), Failure> {
    let mut found: Vec<(Change, &'static str)> = Vec::new();
    if let Some(text) = &request.text {
        found.push((Change::Put(text.clone().into()), TEXT));
    }
    if let Some(value) = &request.value {
        found.push((Change::Put(value.to_string().into()), JSON));
    }
    if let Some(base64) = &request.base64 {
        let bytes =
            BASE64.decode(base64.as_bytes()).map_err(|error| wrong(format!("`base64`: {error}"), "Encode it by RFC 4648, section 4."))?;
        found.push((Change::Put(bytes.into()), BYTES));
    }
    if let Some(patch) = &request.patch {
        found.push((Change::Patch(patch.clone()), TEXT));
    }
    if let Some(version) = request.restore {
        found.push((Change::Restore(version), TEXT));
    }
    if request.delete {
        found.push((Change::Delete, TEXT));
    }
    if let Some(key) = &request.rename_to {
        found.push((Change::Rename(key.parse()?), TEXT));
    }
    if let Some(side) = request.take {
        found.push((Change::Take(side), TEXT));
    }
    if let Some(agent) = &request.hand_to {
        found.push((Change::Hand(agent.clone()), TEXT));
    }
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(wrong(
            "a write is one of `text`, `value`, `base64`, `patch`, `restore`, `delete`, `rename_to`, `take`, `hand_to`, and this is several",
            "Give one of them.",
        )),
        (None, _) => Err(wrong(
            "a write has either `text` or `value`, or `base64`, `patch`, `restore`, `delete`, `rename_to`, `take`, `hand_to`",
            "Give the whole document as one of the first two, or one of the others.",
        )),
    }
}

impl WriteBatch {
    /// Returns the documents, checked, each with its key.
    pub(super) fn check(&self) -> Result<Vec<Write>, Failure> {
        if self.documents.is_empty() || self.documents.len() > DOCUMENTS_PER_WRITE_MAX {
            let why = format!("`documents` has {} entries, 1 to {DOCUMENTS_PER_WRITE_MAX} are written at once", self.documents.len());
            return Err(wrong(why, "Write them in several calls."));
        }
        let mut seen = std::collections::BTreeSet::new();
        let mut writes = Vec::with_capacity(self.documents.len());
        for (place, document) in self.documents.iter().enumerate() {
            if document.idempotency_key.is_some() || !document.expects.is_empty() {
                let why = format!("`documents[{place}]` has what is for all: `idempotency_key` or `expects`");
                return Err(wrong(why, "Give it beside `documents`."));
            }
            let write = Write::check(document)?;
            let mut keys = vec![write.key.clone()];
            if let Change::Rename(to) = &write.change {
                keys.push(to.clone());
            }
            if let Some(twice) = keys.into_iter().find(|key| !seen.insert(key.clone())) {
                return Err(wrong(format!("`documents` has `{twice}` twice"), "Write a document once in a call."));
            }
            writes.push(write);
        }
        Ok(writes)
    }
}
