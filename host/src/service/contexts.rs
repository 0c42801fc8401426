//! Shared context: documents that agents read and write by version; reconcilers merge writes that cross.
//!
//! Owns: where documents stand in the store, the events about them. Must not know: how a reconciler merges.
//! `core::context` decides what a write means.
//!
//! ```text
//! ctx-head/<key>              the newest version, without its text
//! ctx-text/<key>/<version>    every version with its text
//! ctx-conflict/<id>           writes that met a conflict
//! ```
//!
//! **Invariants:** the newest version moves by compare-and-set only; a merge names both versions it was made from, and both
//! can be read; a write that conflicts changes no document and is kept whole.

mod reconcile;

use pointsman_core::context::{
    ConflictPlace, ConflictRecord, DocumentError, DocumentHead, DocumentKey, DocumentVersion, JSON, TEXT, WriteDecision, check_media_type,
    content_hash, decide_write, is_json,
};
use pointsman_core::ids::{ConflictId, ProjectId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::failure::Failure;
use super::kit::{Acting, CommitExt, Kit, Loaded, Once, check_idempotency_key};
use crate::ports::plugins::PluginRef;
use crate::ports::store::{Commit, Committed, Expect, Version};
use reconcile::Reconciled;

const HEADS: &str = "ctx-head/";
const CONFLICTS: &str = "ctx-conflict/";
/// Documents one listing returns at the most.
pub const DOCUMENTS_MAX: usize = 1_000;

fn head_key(key: &DocumentKey) -> String {
    format!("{HEADS}{key}")
}

fn text_key(key: &DocumentKey, version: u64) -> String {
    format!("ctx-text/{key}/{version:016x}")
}

fn conflict_key(id: ConflictId) -> String {
    format!("{CONFLICTS}{id}")
}

/// A document to write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WriteRequest {
    /// `plan/api`.
    pub key: String,
    /// The version it was made from; none or 0: a new document.
    pub base_version: Option<u64>,
    /// What it is; none: as it was, else `application/json` for `value` and `text/markdown` for `text`.
    pub media_type: Option<String>,
    /// The whole text.
    pub text: Option<String>,
    /// Or the whole value, for a JSON document.
    pub value: Option<Value>,
    /// The conflict that this write resolves.
    pub resolves: Option<ConflictId>,
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
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        Self::refused("bad_argument", error.to_string(), "Write it in that form.")
    }
}

/// A checked [`WriteRequest`].
struct Write {
    key: DocumentKey,
    base_version: Option<u64>,
    media_type: Option<String>,
    text: String,
    is_value: bool,
    resolves: Option<ConflictId>,
}

impl Write {
    fn check(request: &WriteRequest) -> Result<Self, Failure> {
        let key: DocumentKey = request.key.parse()?;
        if let Some(media_type) = &request.media_type {
            check_media_type(media_type)?;
        }
        let (text, is_value) = match (&request.text, &request.value) {
            (Some(text), None) => (text.clone(), false),
            (None, Some(value)) => (value.to_string(), true),
            _ => {
                return Err(Failure::refused(
                    "bad_argument",
                    "a write has either `text` or `value`",
                    "Give the whole document as one of them.",
                ));
            }
        };
        if is_value && request.media_type.as_ref().is_some_and(|media_type| !is_json(media_type)) {
            return Err(Failure::refused(
                "bad_argument",
                "`media_type` is not JSON but `value` is given",
                "Give `text`, or leave `media_type` out.",
            ));
        }
        let media_type = request.media_type.clone();
        Ok(Self { key, base_version: request.base_version, media_type, text, is_value, resolves: request.resolves })
    }

    /// Returns the media type of the write where `head` is the newest version.
    fn media_type(&self, head: Option<&DocumentHead>) -> String {
        let usual = || if self.is_value { JSON } else { TEXT }.to_owned();
        let kept = || head.map(|head| head.media_type.clone()).filter(|media_type| is_json(media_type) || !self.is_value);
        self.media_type.clone().or_else(kept).unwrap_or_else(usual)
    }
}

/// Returns a text as it is stored: JSON in one form, so that equal values are equal texts.
fn stored_form(media_type: &str, text: &str) -> Result<String, Failure> {
    if !is_json(media_type) {
        return Ok(text.to_owned());
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Failure::refused("bad_json", format!("the text is no JSON: {error}"), "Correct it, or give another `media_type`.")
    })?;
    Ok(value.to_string())
}

/// Shared context.
pub struct Contexts {
    kit: Kit,
}

impl Contexts {
    /// Returns the service.
    #[must_use]
    pub fn new(kit: Kit) -> Self {
        Self { kit }
    }

    /// Writes a document. A write from an older version is reconciled with the newest, or conflicts and changes nothing.
    ///
    /// # Errors
    /// `bad_argument`, `bad_json`, `too_large`, `unknown_base`, `not_found` (of `resolves`), `key_reused`.
    pub async fn write(&self, acting: &Acting, request: WriteRequest) -> Result<WriteOutcome, Failure> {
        check_idempotency_key(request.idempotency_key.as_deref())?;
        let write = Write::check(&request)?;
        let is_derived = request.idempotency_key.is_none();
        let derived = || {
            let facts = format!("{}\0{:?}\0{:?}\0{}", write.key, write.base_version, write.media_type, write.text);
            format!("derived:{}", blake3::hash(facts.as_bytes()).to_hex())
        };
        let once = acting.once("write_context", request.idempotency_key.clone().unwrap_or_else(derived), &request);
        if let Some(answered) = self.kit.answered(acting.project, &once).await? {
            return Ok(answered);
        }
        let (outcome, committed) = self.kit.decide(|| self.decide(acting, &write, &once, is_derived)).await?;
        match committed {
            Committed::Done { .. } | Committed::Kept => Ok(outcome),
            Committed::Replayed(stored) => Ok(serde_json::from_slice(&stored).unwrap_or(outcome)),
        }
    }

    async fn decide(&self, acting: &Acting, write: &Write, once: &Once, is_derived: bool) -> Result<(Commit, WriteOutcome), Failure> {
        let mut commit = Commit { project: Some(acting.project), ..Commit::default() };
        let outcome = self.stage(&mut commit, acting, write).await?;
        // A conflict is tried again when it is written again, unless the writer itself asked for the same answer.
        if !is_derived || matches!(outcome, WriteOutcome::Applied { .. }) {
            commit.idempotency = Some(once.record(&outcome));
        }
        Ok((commit, outcome))
    }

    /// Adds a write to a commit under way, which has no other write of that document. Nothing is added for good before the
    /// caller has seen the outcome: a conflict is staged like any other.
    ///
    /// # Errors
    /// As [`Contexts::write`].
    pub(in crate::service) async fn stage_write(
        &self,
        commit: &mut Commit,
        acting: &Acting,
        request: &WriteRequest,
    ) -> Result<WriteOutcome, Failure> {
        self.stage(commit, acting, &Write::check(request)?).await
    }

    async fn stage(&self, commit: &mut Commit, acting: &Acting, write: &Write) -> Result<WriteOutcome, Failure> {
        let project = acting.project;
        let head = self.kit.load::<DocumentHead>(Some(project), &head_key(&write.key)).await?;
        let newest = head.as_ref().map(|head| &head.value);
        let media_type = write.media_type(newest);
        let text = stored_form(&media_type, &write.text)?;
        let version = head.as_ref().map(|head| head.version);
        let outcome = match decide_write(newest, write.base_version, &media_type, text.as_bytes()) {
            WriteDecision::TooLarge { actual, max } => {
                let why = format!("the document has {actual} bytes, at most {max} are allowed");
                return Err(Failure::refused("too_large", why, "Split it into several keys."));
            }
            WriteDecision::UnknownBase { newest } => return Err(unknown_base(&write.key, newest)),
            WriteDecision::Unchanged { version } => WriteOutcome::Applied { version, merged_with: None, plugin: None, unchanged: true },
            WriteDecision::Apply { version: next, parents } => {
                let new = self.new_version(acting, write, &media_type, next, parents, text);
                stage_newest(commit, acting, version, &new, None, Value::Null);
                WriteOutcome::Applied { version: next, merged_with: None, plugin: None, unchanged: false }
            }
            WriteDecision::Reconcile { base, ours } => {
                let side = self.new_version(acting, write, &media_type, ours + 1, base.into_iter().collect(), text);
                self.stage_reconciled(commit, acting, write, version, ours, side).await?
            }
        };
        if let (Some(id), &WriteOutcome::Applied { version, .. }) = (write.resolves, &outcome) {
            self.stage_resolved(commit, acting, write, id, version).await?;
        }
        Ok(outcome)
    }

    fn new_version(
        &self,
        acting: &Acting,
        write: &Write,
        media_type: &str,
        version: u64,
        parents: Vec<u64>,
        text: String,
    ) -> DocumentVersion {
        let head = DocumentHead {
            key: write.key.clone(),
            version,
            media_type: media_type.to_owned(),
            hash: content_hash(text.as_bytes()),
            size_bytes: text.len() as u64,
            author: acting.agent.actor(),
            at: self.kit.now(),
            parents,
            merged_by: None,
        };
        DocumentVersion { head, text }
    }

    /// Merges `side`, the writer's version, with version `ours`, or records the conflict.
    async fn stage_reconciled(
        &self,
        commit: &mut Commit,
        acting: &Acting,
        write: &Write,
        head_version: Option<Version>,
        ours: u64,
        side: DocumentVersion,
    ) -> Result<WriteOutcome, Failure> {
        let newest = self.version(acting.project, &write.key, ours).await?;
        let base = match side.head.parents.first() {
            Some(&base) => Some(self.version(acting.project, &write.key, base).await?),
            None => None,
        };
        let reconciled = self.reconcile(acting.project, base.as_ref(), &newest, &side).await?;
        match reconciled {
            Reconciled::Merged { text, plugin, .. } if text == newest.text => {
                Ok(WriteOutcome::Applied { version: ours, merged_with: Some(ours), plugin: Some(plugin.name), unchanged: true })
            }
            Reconciled::Merged { text, plugin, asked } => {
                let mut merged = self.new_version(acting, write, &newest.head.media_type, ours + 2, vec![ours, ours + 1], text);
                merged.head.merged_by = Some(plugin.name.clone());
                commit.put(text_key(&write.key, side.head.version), &side);
                stage_newest(commit, acting, head_version, &merged, Some(&plugin), json!(asked));
                Ok(WriteOutcome::Applied { version: ours + 2, merged_with: Some(ours), plugin: Some(plugin.name), unchanged: false })
            }
            Reconciled::Conflict { places, plugin, asked } => {
                let id = ConflictId::new(self.kit.now(), self.kit.system.id_bytes());
                let record = ConflictRecord {
                    id,
                    key: write.key.clone(),
                    base_version: write.base_version,
                    current_version: ours,
                    media_type: side.head.media_type,
                    theirs: side.text,
                    author: side.head.author,
                    at: side.head.at,
                    places: places.clone(),
                    plugin: plugin.as_ref().map(|plugin| plugin.name.clone()),
                    resolved_by: None,
                };
                commit.expects.push((head_key(&write.key), head_version.map_or(Expect::Absent, Expect::Version)));
                commit.put(conflict_key(id), &record);
                let pointers: Vec<&str> = places.iter().map(|place| place.pointer.as_str()).collect();
                let data = json!({
                    "conflict": id, "key": write.key, "base": write.base_version, "current": ours, "pointers": pointers,
                    "plugin": plugin, "asked": asked,
                });
                commit.events.push(acting.event("context.conflicted", write.key.subject(), data).caused_by(id));
                let plugin = plugin.map(|plugin| plugin.name);
                Ok(WriteOutcome::Conflict { id, current_version: ours, conflicts: places, plugin })
            }
        }
    }

    async fn stage_resolved(
        &self,
        commit: &mut Commit,
        acting: &Acting,
        write: &Write,
        id: ConflictId,
        version: u64,
    ) -> Result<(), Failure> {
        let found = self.kit.load::<ConflictRecord>(Some(acting.project), &conflict_key(id)).await?;
        let Some(found) = found.filter(|found| found.value.key == write.key) else {
            let why = format!("`{}` has no conflict {id}", write.key);
            return Err(Failure::refused("not_found", why, "Leave `resolves` out, or name the conflict that the write was answered with."));
        };
        if found.value.resolved_by.is_none() {
            let resolved = ConflictRecord { resolved_by: Some(version), ..found.value };
            commit.replace(conflict_key(id), Some(found.version), &resolved);
            let data = json!({"conflict": id, "key": write.key, "version": version});
            commit.events.push(acting.event("context.resolved", write.key.subject(), data).caused_by(id));
        }
        Ok(())
    }

    /// Returns a version of a document, the newest when none is named.
    ///
    /// # Errors
    /// `bad_argument`, `not_found`.
    pub async fn read(&self, project: ProjectId, key: &str, version: Option<u64>) -> Result<DocumentVersion, Failure> {
        let key: DocumentKey = key.parse()?;
        let version = match version {
            Some(version) => version,
            None => match self.kit.load::<DocumentHead>(Some(project), &head_key(&key)).await? {
                Some(Loaded { value, .. }) => value.version,
                None => {
                    let why = format!("there is no document `{key}`");
                    return Err(Failure::refused(
                        "not_found",
                        why,
                        "`lookup` lists the keys; `write_context` with `base_version` 0 begins one.",
                    ));
                }
            },
        };
        self.version(project, &key, version).await
    }

    async fn version(&self, project: ProjectId, key: &DocumentKey, version: u64) -> Result<DocumentVersion, Failure> {
        let found = self.kit.load::<DocumentVersion>(Some(project), &text_key(key, version)).await?;
        found.map(|found| found.value).ok_or_else(|| {
            Failure::refused("not_found", format!("`{key}` has no version {version}"), "Read it without a version for the newest one.")
        })
    }

    /// Returns the newest versions of the documents whose keys start with `prefix`, by key, without their texts, at most `limit`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn list(&self, project: ProjectId, prefix: &str, limit: usize) -> Result<Vec<DocumentHead>, Failure> {
        let all = self.kit.load_all::<DocumentHead>(Some(project), &format!("{HEADS}{prefix}"), limit.min(DOCUMENTS_MAX)).await?;
        Ok(all.into_iter().map(|(_, found)| found.value).collect())
    }

    /// Returns the conflicts nobody resolved yet, the oldest first.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn open_conflicts(&self, project: ProjectId) -> Result<Vec<ConflictRecord>, Failure> {
        let all = self.kit.load_all::<ConflictRecord>(Some(project), CONFLICTS, DOCUMENTS_MAX).await?;
        Ok(all.into_iter().map(|(_, found)| found.value).filter(|conflict| conflict.resolved_by.is_none()).collect())
    }

    /// Returns a conflict.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn conflict(&self, project: ProjectId, id: ConflictId) -> Result<ConflictRecord, Failure> {
        let found = self.kit.load::<ConflictRecord>(Some(project), &conflict_key(id)).await?;
        found.map(|found| found.value).ok_or_else(|| Failure::refused("not_found", format!("there is no conflict {id}"), "Check the id."))
    }
}

/// Makes `new` the newest version.
fn stage_newest(
    commit: &mut Commit,
    acting: &Acting,
    head_version: Option<Version>,
    new: &DocumentVersion,
    plugin: Option<&PluginRef>,
    asked: Value,
) {
    let head = &new.head;
    commit.replace(head_key(&head.key), head_version, head);
    commit.put(text_key(&head.key, head.version), new);
    let merged_with = plugin.and(head.parents.first());
    let data = json!({
        "key": head.key, "version": head.version, "parents": head.parents, "media_type": head.media_type, "hash": head.hash,
        "size_bytes": head.size_bytes, "merged_with": merged_with, "plugin": plugin, "asked": asked,
    });
    commit.events.push(acting.event("context.written", head.key.subject(), data));
}

fn unknown_base(key: &DocumentKey, newest: Option<u64>) -> Failure {
    let data = json!({"key": key, "newest": newest});
    match newest {
        Some(newest) => Failure::refused_with(
            "unknown_base",
            format!("`{key}` has no such version, the newest is {newest}"),
            "Read the document and write from the version you read.",
            data,
        ),
        None => Failure::refused_with(
            "unknown_base",
            format!("there is no document `{key}` yet"),
            "Give 0 as `base_version` to begin it.",
            data,
        ),
    }
}
