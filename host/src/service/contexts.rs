//! Shared context: documents that agents read and write by version; reconcilers merge writes that cross.
//!
//! Owns: where documents stand in the store, the events about them. Must not know: how a reconciler merges, how bytes come and go.
//! `core::context` decides what a write means, and who may do what.
//!
//! ```text
//! ctx-head/<key>              the newest version, without its text
//! ctx-text/<key>@<version>    every version with its text, or the names of its chunks
//! ctx-conflict/<id>           writes that met a conflict
//! ctx-side/<id>               what those wanted to write, as a version that is none
//! ctx-chunk, ctx-mark, ctx-upload     see `content`
//! ```
//!
//! **Invariants:** the newest version moves by compare-and-set only, by one, or by two where two versions were merged; a merge names both
//! versions it was made from, and both can be read; a write that conflicts changes no document and is kept whole.

mod access;
mod content;
mod housekeeping;
mod own;
mod reads;
mod reconcile;
mod request;
mod stage;
mod sweep;
mod uploads;
mod usage;

use std::sync::Arc;

use data_encoding::HEXLOWER;
use pointsman_core::context::rules::Operation;
use pointsman_core::context::{ConflictRecord, DocumentHead, DocumentKey, DocumentVersion, is_json};
use pointsman_core::ids::{ConflictId, ProjectId};
use pointsman_core::limits::JSON_BYTES_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::access::Viewer;
pub use self::content::Document;
pub use self::housekeeping::HOUSEKEEPING;
pub use self::own::own_document_of;
pub use self::reads::{Changes, Manifest};
use self::request::{Change, Write};
pub use self::request::{PutRequest, Side, WriteBatch, WriteOutcome, WriteRequest};
use super::agents::Agents;
use super::failure::Failure;
use super::kit::{Acting, Kit, Once, check_idempotency_key};
use crate::ports::store::{Commit, Committed};

const HEADS: &str = "ctx-head/";
const CONFLICTS: &str = "ctx-conflict/";
const TEXTS: &str = "ctx-text/";
const SIDES: &str = "ctx-side/";
/// Documents one listing returns at the most.
pub const DOCUMENTS_MAX: usize = 1_000;

fn head_key(key: &DocumentKey) -> String {
    format!("{HEADS}{key}")
}

/// Returns what all versions of a document stand below. No key has an `@`.
fn texts_of(key: &DocumentKey) -> String {
    format!("{TEXTS}{key}@")
}

fn text_key(key: &DocumentKey, version: u64) -> String {
    format!("{}{version:016x}", texts_of(key))
}

fn conflict_key(id: ConflictId) -> String {
    format!("{CONFLICTS}{id}")
}

fn side_key(id: ConflictId) -> String {
    format!("{SIDES}{id}")
}

fn expiry_due(key: &DocumentKey) -> String {
    format!("{HOUSEKEEPING}expire/{key}")
}

fn prune_due(key: &DocumentKey) -> String {
    format!("{HOUSEKEEPING}prune/{key}")
}

/// Returns a document as it is stored: JSON in one form, so that equal values are equal bytes.
fn stored_form(media_type: &str, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    if !is_json(media_type) {
        return Ok(bytes.to_vec());
    }
    if bytes.len() > JSON_BYTES_MAX {
        let why = format!("the JSON has {} bytes, at most {JSON_BYTES_MAX} are taken", bytes.len());
        return Err(Failure::refused("too_large", why, "Split it into several keys, or give another `media_type`."));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        Failure::refused("bad_json", format!("the text is no JSON: {error}"), "Correct it, or give another `media_type`.")
    })?;
    Ok(value.to_string().into_bytes())
}

/// A conflict, with what its writer wanted to write.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpenConflict {
    /// The record.
    #[serde(flatten)]
    pub record: ConflictRecord,
    /// The writer's text, as far as it is one and small.
    pub theirs: Option<String>,
}

/// Shared context.
pub struct Contexts {
    kit: Kit,
    agents: Arc<Agents>,
    denials: access::Denials,
    usage: usage::Usage,
}

/// One write, or several that are one.
struct Job {
    writes: Vec<Write>,
    expects: Vec<(String, u64)>,
    is_derived: bool,
    /// None: the same was done so often that nobody can tell the times apart.
    once: Option<Once>,
}

impl Contexts {
    /// Returns the service.
    #[must_use]
    pub fn new(kit: Kit, agents: Arc<Agents>) -> Self {
        Self { kit, agents, denials: access::Denials::default(), usage: usage::Usage::default() }
    }

    /// Writes a document. A write from an older version is reconciled with the newest, or conflicts and changes nothing.
    ///
    /// # Errors
    /// `bad_argument`, `bad_json`, `too_large`, `unknown_base`, `not_found` (of `resolves`), `forbidden`, `stale` (of what is deleted or
    /// renamed), `exists`, `patch_misfit`, `precondition_failed`, `quota`, `key_reused`.
    pub async fn write(&self, acting: &Acting, request: WriteRequest) -> Result<WriteOutcome, Failure> {
        check_idempotency_key(request.idempotency_key.as_deref())?;
        let write = Write::check(&request)?;
        let job = Job {
            writes: vec![write],
            expects: request.expects.iter().map(|(key, version)| (key.clone(), *version)).collect(),
            is_derived: request.idempotency_key.is_none(),
            once: Some(once(acting, request.idempotency_key.as_deref(), &request)),
        };
        self.one(acting, job).await
    }

    /// Writes a document whose bytes came by themselves.
    ///
    /// # Errors
    /// As [`Contexts::write`].
    pub async fn put(&self, acting: &Acting, request: &PutRequest, bytes: bytes::Bytes) -> Result<WriteOutcome, Failure> {
        check_idempotency_key(request.idempotency_key.as_deref())?;
        let facts = (request, blake3::hash(&bytes).to_hex().to_string());
        let job = Job {
            writes: vec![Write::of_bytes(request, bytes)?],
            expects: Vec::new(),
            is_derived: request.idempotency_key.is_none(),
            once: Some(once(acting, request.idempotency_key.as_deref(), &facts)),
        };
        self.one(acting, job).await
    }

    /// Does a job of one write.
    async fn one(&self, acting: &Acting, mut job: Job) -> Result<WriteOutcome, Failure> {
        if let Some(answered) = self.answered(acting, &mut job).await? {
            return Ok(answered);
        }
        let (mut outcomes, committed) = self.kit.decide(|| self.decide(acting, &job, |outcomes| outcomes[0].clone())).await?;
        if let Committed::Replayed(stored) = &committed
            && let Ok(answered) = serde_json::from_slice(stored)
        {
            return Ok(answered);
        }
        Ok(outcomes.swap_remove(0))
    }

    /// Returns what the same job was answered before.
    async fn answered<A: DeserializeOwned>(&self, acting: &Acting, job: &mut Job) -> Result<Option<A>, Failure> {
        if job.is_derived {
            self.tell_apart(acting.project, job).await?;
        }
        match &job.once {
            Some(once) => self.kit.answered(acting.project, once).await,
            None => Ok(None),
        }
    }

    /// Lets a job that names no key be another one where its like means something else: whoever begins a document anew that was deleted,
    /// or goes back to a version once more, means it.
    async fn tell_apart(&self, project: ProjectId, job: &mut Job) -> Result<(), Failure> {
        for write in &job.writes {
            let Some(once) = &mut job.once else { return Ok(()) };
            match &write.change {
                // Done twice, it changes nothing.
                Change::Restore(_) if write.base_version.is_none() => job.once = None,
                Change::Put(_) | Change::Patch(_) | Change::Restore(_) => {
                    let head = self.kit.load::<DocumentHead>(Some(project), &head_key(&write.key)).await?;
                    once.key.push_str(&format!("/{}", head.map_or(0, |head| head.value.deletions)));
                }
                // Their versions say which one is meant.
                Change::Delete | Change::Rename(_) | Change::Take(_) | Change::Hand(_) => {}
            }
        }
        Ok(())
    }

    /// Writes documents together: all of them, or none where one conflicts.
    ///
    /// # Errors
    /// As [`Contexts::write`].
    pub async fn write_all(&self, acting: &Acting, batch: &WriteBatch) -> Result<Vec<WriteOutcome>, Failure> {
        check_idempotency_key(batch.idempotency_key.as_deref())?;
        let writes = batch.check()?;
        let mut job = Job {
            writes,
            expects: batch.expects.iter().map(|(key, version)| (key.clone(), *version)).collect(),
            is_derived: batch.idempotency_key.is_none(),
            once: Some(once(acting, batch.idempotency_key.as_deref(), batch)),
        };
        if let Some(answered) = self.answered(acting, &mut job).await? {
            return Ok(answered);
        }
        let (outcomes, committed) = self.kit.decide(|| self.decide(acting, &job, |outcomes| outcomes.to_vec())).await?;
        match committed {
            Committed::Done { .. } | Committed::Kept => Ok(outcomes),
            Committed::Replayed(stored) => Ok(serde_json::from_slice(&stored).unwrap_or(outcomes)),
        }
    }

    async fn decide<A: Serialize>(
        &self,
        acting: &Acting,
        job: &Job,
        answer: impl Fn(&[WriteOutcome]) -> A,
    ) -> Result<(Commit, Vec<WriteOutcome>), Failure> {
        let empty = || Commit { project: Some(acting.project), ..Commit::default() };
        let mut commit = empty();
        self.stage_expects(&mut commit, acting, &job.expects).await?;
        let mut outcomes = Vec::with_capacity(job.writes.len());
        let mut conflicts = empty();
        for write in &job.writes {
            let mut own = empty();
            let outcome = self.stage(&mut own, acting, write).await?;
            if matches!(outcome, WriteOutcome::Conflict { .. }) {
                add(&mut conflicts, own);
            } else {
                add(&mut commit, own);
            }
            outcomes.push(outcome);
        }
        let conflicted = outcomes.iter().any(|outcome| matches!(outcome, WriteOutcome::Conflict { .. }));
        let mut commit = if conflicted { conflicts } else { commit };
        // A conflict is tried again when it is written again, unless the writer itself asked for the same answer.
        if !job.is_derived || !conflicted {
            commit.idempotency = job.once.as_ref().map(|once| once.record(&answer(&outcomes)));
        }
        Ok((commit, outcomes))
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

    async fn version(&self, project: ProjectId, key: &DocumentKey, version: u64) -> Result<DocumentVersion, Failure> {
        let found = self.kit.load::<DocumentVersion>(Some(project), &text_key(key, version)).await?;
        found.map(|found| found.value).ok_or_else(|| {
            let why = format!("`{key}` has no version {version}, or it is no longer kept");
            Failure::refused("not_found", why, "Read it without a version for the newest one.")
        })
    }

    /// Returns what the writer of a conflict wanted to write.
    async fn side(&self, project: ProjectId, id: ConflictId) -> Result<DocumentVersion, Failure> {
        let found = self.kit.load::<DocumentVersion>(Some(project), &side_key(id)).await?;
        found.map(|found| found.value).ok_or_else(|| Failure::refused("not_found", format!("there is no conflict {id}"), "Check the id."))
    }

    /// Returns the conflicts nobody resolved yet that somebody may read, the oldest first.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn open_conflicts(&self, project: ProjectId, viewer: &Viewer) -> Result<Vec<OpenConflict>, Failure> {
        let mut open = Vec::new();
        for (_, found) in self.kit.load_all::<ConflictRecord>(Some(project), CONFLICTS, DOCUMENTS_MAX).await? {
            let record = found.value;
            if record.resolved_by.is_none() && self.may(project, viewer, Operation::Read, &record.key, None).await? {
                open.push(self.with_side(project, record).await?);
            }
        }
        Ok(open)
    }

    /// Returns a conflict.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn conflict(&self, project: ProjectId, viewer: &Viewer, id: ConflictId) -> Result<OpenConflict, Failure> {
        let unknown = || Failure::refused("not_found", format!("there is no conflict {id}"), "Check the id.");
        let found = self.kit.load::<ConflictRecord>(Some(project), &conflict_key(id)).await?.ok_or_else(unknown)?;
        if !self.may(project, viewer, Operation::Read, &found.value.key, None).await? {
            return Err(unknown());
        }
        self.with_side(project, found.value).await
    }

    async fn with_side(&self, project: ProjectId, record: ConflictRecord) -> Result<OpenConflict, Failure> {
        let side = self.kit.load::<DocumentVersion>(Some(project), &side_key(record.id)).await?;
        let inline = side.map(|side| side.value.content).filter(|content| content.chunks().is_empty());
        let theirs = inline.and_then(|content| String::from_utf8(content.inline_bytes().to_vec()).ok());
        Ok(OpenConflict { record, theirs })
    }

    /// Returns the newest version of a document that is not deleted.
    async fn head(&self, project: ProjectId, viewer: &Viewer, key: &DocumentKey) -> Result<DocumentHead, Failure> {
        let found = self.kit.load::<DocumentHead>(Some(project), &head_key(key)).await?.map(|found| found.value);
        self.check(project, viewer, Operation::Read, key, found.as_ref()).await?;
        match found {
            Some(head) if head.deleted => Err(gone(&self.seen(project, viewer, head).await?)),
            Some(head) => Ok(head),
            None => Err(access::missing(key)),
        }
    }
}

/// Returns what is said of a document that was deleted, to those who may read it.
fn gone(head: &DocumentHead) -> Failure {
    let DocumentHead { key, version, renamed_to, .. } = head;
    match renamed_to {
        Some(to) => Failure::refused("not_found", format!("`{key}` went to `{to}`"), format!("Read `{to}`.")),
        None => Failure::refused(
            "not_found",
            format!("`{key}` was deleted by version {version}"),
            format!("Read an earlier version, `{key}@{}`; `restore` brings it back.", version.saturating_sub(1)),
        ),
    }
}

/// Returns the identity of a write; one that names no key is known by its digest.
fn once(acting: &Acting, key: Option<&str>, request: &impl Serialize) -> Once {
    let mut once = acting.once("write_context", key.unwrap_or_default(), request);
    if key.is_none() {
        once.key = format!("derived:{}", HEXLOWER.encode(&once.request_digest));
    }
    once
}

/// Adds all of a commit to another.
fn add(commit: &mut Commit, own: Commit) {
    commit.expects.extend(own.expects);
    commit.puts.extend(own.puts);
    commit.deletes.extend(own.deletes);
    commit.due.extend(own.due);
    commit.events.extend(own.events);
}
