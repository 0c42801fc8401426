//! A write on its way into a commit: what it was made from, what it means now, and everything that is to happen with it at once.

use bytes::Bytes;
use pointsman_core::context::content::Content;
use pointsman_core::context::rules::{Operation, Party, Place, Stale};
use pointsman_core::context::view::{self, ViewError};
use pointsman_core::context::{
    ConflictPlace, ConflictRecord, DocumentHead, DocumentKey, DocumentVersion, WriteDecision, decide_write, is_json,
};
use pointsman_core::ids::{AgentId, ConflictId};
use pointsman_core::limits::{INLINE_BYTES_MAX, RECONCILED_BYTES_MAX, TOLD_PATCH_BYTES_MAX};
use serde_json::{Value, json};

use super::access::{Viewer, missing};
use super::content::{Document, Kept};
use super::housekeeping::{TOMBSTONE_KEPT_MS, tombstone};
use super::reconcile::{Reconciled, whole};
use super::request::{Change, Side, Write, WriteOutcome, wrong};
use super::{Contexts, conflict_key, expiry_due, head_key, prune_due, side_key, stored_form, text_key};
use crate::ports::plugins::PluginRef;
use crate::ports::store::{Commit, DueChange, Expect, Version};
use crate::service::failure::Failure;
use crate::service::kit::{Acting, CommitExt, Loaded};

/// Versions after which the oldest of a document are looked at again.
pub(super) const PRUNE_EACH: u64 = 32;
/// Lines of one side times lines of the other up to which an event tells what changed.
const TOLD_LINES_MAX: usize = 1 << 20;

/// A document as a write finds it.
struct Found {
    head: Option<Loaded<DocumentHead>>,
    /// Its newest version, where it is not deleted.
    newest: Option<DocumentVersion>,
}

impl Found {
    fn head(&self) -> Option<&DocumentHead> {
        self.head.as_ref().map(|head| &head.value)
    }

    fn expect(&self) -> Expect {
        self.head.as_ref().map_or(Expect::Absent, |head| Expect::Version(head.version))
    }

    fn version(&self) -> Option<Version> {
        self.head.as_ref().map(|head| head.version)
    }
}

/// What a version is to say.
enum Wanted {
    Bytes(Bytes),
    /// The same as another version of the project.
    Again(Content, Vec<u8>),
    Nothing,
}

impl Wanted {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Again(_, bytes) => bytes,
            Self::Nothing => &[],
        }
    }
}

/// Who writes what, where.
struct Staging<'a> {
    contexts: &'a Contexts,
    acting: &'a Acting,
    viewer: Viewer,
    slug: String,
    write: &'a Write,
    found: Found,
}

impl Contexts {
    /// Adds a write to a commit under way, which has no other write of that document.
    pub(super) async fn stage(&self, commit: &mut Commit, acting: &Acting, write: &Write) -> Result<WriteOutcome, Failure> {
        let head = self.kit.load::<DocumentHead>(Some(acting.project), &head_key(&write.key)).await?;
        let newest = match head.as_ref().map(|head| &head.value).filter(|head| !head.deleted) {
            Some(head) => Some(self.version(acting.project, &write.key, head.version).await?),
            None => None,
        };
        let slug = self.kit.slug(acting.project).await?;
        let found = Found { head, newest };
        let staging = Staging { contexts: self, acting, viewer: Viewer::from(acting), slug, write, found };
        staging.admit().await?;
        if let Some(id) = write.resolves {
            // Another document's conflict is none, before anything of it is looked at.
            staging.record(id).await?;
        }
        let outcome = match (&write.change, write.resolves) {
            (Change::Hand(to), Some(id)) => return staging.hand(commit, id, to).await,
            (Change::Take(Side::Ours), Some(_)) => staging.stays()?,
            (Change::Delete, _) => staging.delete(commit).await?,
            (Change::Rename(to), _) => staging.rename(commit, to).await?,
            _ => staging.put(commit).await?,
        };
        if let (Some(id), &WriteOutcome::Applied { version, .. }) = (write.resolves, &outcome) {
            staging.resolved(commit, id, version).await?;
        }
        Ok(outcome)
    }

    /// Adds that other documents must be at these versions.
    pub(super) async fn stage_expects(&self, commit: &mut Commit, acting: &Acting, expects: &[(String, u64)]) -> Result<(), Failure> {
        for (key, expected) in expects {
            let key: DocumentKey = key.parse()?;
            let head = self.kit.load::<DocumentHead>(Some(acting.project), &head_key(&key)).await?;
            self.check(acting.project, &Viewer::from(acting), Operation::Read, &key, head.as_ref().map(|head| &head.value)).await?;
            let actual = head.as_ref().filter(|head| !head.value.deleted).map_or(0, |head| head.value.version);
            if actual != *expected {
                let why = format!("`{key}` is at version {actual}, not {expected}");
                let data = json!({"key": key, "expected": expected, "actual": actual});
                return Err(Failure::refused_with("precondition_failed", why, "Read it, and decide again.", data));
            }
            let expect = head.map_or(Expect::Absent, |head| Expect::Version(head.version));
            commit.expects.push((head_key(&key), expect));
        }
        Ok(())
    }
}

impl Staging<'_> {
    fn place(&self) -> Place<'_> {
        Place { project: &self.slug, key: &self.write.key, creator: self.found.head().and_then(DocumentHead::creator) }
    }

    /// Refuses who may not do it.
    async fn admit(&self) -> Result<(), Failure> {
        let is_gone = self.found.head().is_some_and(|head| head.deleted);
        let needed = match &self.write.change {
            Change::Put(_) | Change::Patch(_) => Operation::Write,
            Change::Restore(_) if is_gone => Operation::Administer,
            Change::Restore(_) => Operation::Write,
            Change::Delete | Change::Rename(_) => Operation::Administer,
            Change::Take(_) | Change::Hand(_) => Operation::Resolve,
        };
        if self.write.resolves.is_some() && needed != Operation::Resolve {
            self.may(Operation::Resolve, &self.write.key, self.found.head()).await?;
        }
        self.may(needed, &self.write.key, self.found.head()).await?;
        if let Change::Rename(to) = &self.write.change {
            self.may(Operation::Write, to, None).await?;
        }
        // An end for what others began is a way to delete it.
        let rules = &self.contexts.kit.settings.context.rules;
        if self.write.expires_in_s.is_some() && self.found.newest.is_some() && !rules.is_owner(&Party::of(&self.acting.agent), self.place())
        {
            self.may(Operation::Administer, &self.write.key, self.found.head()).await?;
        }
        Ok(())
    }

    async fn may(&self, operation: Operation, key: &DocumentKey, head: Option<&DocumentHead>) -> Result<(), Failure> {
        self.contexts.check(self.acting.project, &self.viewer, operation, key, head).await
    }

    fn new_head(&self, media_type: &str, version: u64, parents: Vec<u64>, bytes: &[u8]) -> DocumentHead {
        let now = self.contexts.kit.now();
        let by_rule = || self.contexts.kit.settings.context.rules.expires_ms(&self.slug, &self.write.key);
        DocumentHead {
            creator: self.found.head().and_then(DocumentHead::creator),
            deletions: self.found.head().map_or(0, |head| head.deletions),
            label: self.write.label.clone(),
            expires_at: self.write.expires_in_s.map(|seconds| seconds * 1_000).or_else(by_rule).map(|ms| now + ms),
            ..DocumentHead::new(self.write.key.clone(), version, media_type, bytes, self.acting.agent.actor(), now, parents)
        }
    }

    /// Returns what the write wants the document to say.
    async fn wanted(&self, media_type: &str) -> Result<Wanted, Failure> {
        let (project, key) = (self.acting.project, &self.write.key);
        let wanted = match &self.write.change {
            Change::Put(bytes) => Wanted::Bytes(bytes.clone()),
            Change::Patch(patch) => {
                let base = self.write.base_version.ok_or_else(|| unknown_base(key, self.found.head().map(|head| head.version)))?;
                let base = self.base(base).await?;
                Wanted::Bytes(patched(&base, patch)?.into())
            }
            Change::Restore(version) => {
                let version = self.contexts.version(project, key, *version).await?;
                if version.head.deleted {
                    return Err(wrong(format!("`{key}` was deleted by that version"), "Restore the one before it."));
                }
                let Document { bytes, .. } = self.contexts.document(project, version.clone()).await?;
                Wanted::Again(version.content, bytes)
            }
            Change::Take(_) => {
                let id = self.write.resolves.ok_or_else(|| wrong("`take` settles a conflict", "Name it in `resolves`."))?;
                let side = self.contexts.side(project, id).await?;
                let Document { bytes, .. } = self.contexts.document(project, side.clone()).await?;
                Wanted::Again(side.content, bytes)
            }
            Change::Delete | Change::Rename(_) | Change::Hand(_) => Wanted::Nothing,
        };
        match (wanted, is_json(media_type)) {
            (Wanted::Bytes(bytes), true) => Ok(Wanted::Bytes(stored_form(media_type, &bytes)?.into())),
            (other, _) => Ok(other),
        }
    }

    /// Returns the version a write was made from.
    async fn base(&self, version: u64) -> Result<Document, Failure> {
        let newest = self.found.head().map(|head| head.version);
        if newest.is_none_or(|newest| version > newest) {
            return Err(unknown_base(&self.write.key, newest));
        }
        let base = self.contexts.version(self.acting.project, &self.write.key, version).await?;
        self.contexts.document(self.acting.project, base).await
    }

    async fn put(&self, commit: &mut Commit) -> Result<WriteOutcome, Failure> {
        let media_type = self.media_type().await?;
        let wanted = self.wanted(&media_type).await?;
        // Whoever names the content of a version, or of a side that others met, means: as the document is now.
        let head = self.found.head();
        let base = match &self.write.change {
            Change::Take(_) => head.map(|head| head.version),
            Change::Restore(_) => self.write.base_version.or(head.map(|head| head.version)),
            Change::Put(_) | Change::Patch(_) | Change::Delete | Change::Rename(_) | Change::Hand(_) => self.write.base_version,
        };
        match decide_write(head, base, &media_type, wanted.bytes()) {
            WriteDecision::TooLarge { actual, max } => {
                let why = format!("the document has {actual} bytes, at most {max} are allowed");
                Err(Failure::refused("too_large", why, "Split it into several keys."))
            }
            WriteDecision::UnknownBase { newest } => Err(unknown_base(&self.write.key, newest)),
            WriteDecision::Unchanged { version } => Ok(applied(version, None, None, true)),
            WriteDecision::Apply { version, parents } => {
                let new = self.new_version(commit, &media_type, version, parents, &wanted).await?;
                self.newest(commit, &new, wanted.bytes(), None, Value::Null);
                Ok(applied(version, None, None, false))
            }
            WriteDecision::Gone { newest } => {
                let side = self.new_version(commit, &media_type, newest + 1, base.into_iter().collect(), &wanted).await?;
                let place = ConflictPlace {
                    pointer: String::new(),
                    reason: format!("it was deleted by version {newest}"),
                    base: None,
                    ours: None,
                    theirs: None,
                };
                self.conflict(commit, newest, side, vec![place], None, json!([])).await
            }
            WriteDecision::Reconcile { base, ours } => {
                let side = self.new_version(commit, &media_type, ours + 1, base.into_iter().collect(), &wanted).await?;
                self.reconciled(commit, ours, side, wanted).await
            }
        }
    }

    async fn media_type(&self) -> Result<String, Failure> {
        match &self.write.change {
            Change::Restore(version) => Ok(self.contexts.version(self.acting.project, &self.write.key, *version).await?.head.media_type),
            Change::Take(_) => match self.write.resolves {
                Some(id) => Ok(self.contexts.side(self.acting.project, id).await?.head.media_type),
                None => Ok(self.write.media_type(self.found.head())),
            },
            Change::Put(_) | Change::Patch(_) | Change::Delete | Change::Rename(_) | Change::Hand(_) => {
                Ok(self.write.media_type(self.found.head()))
            }
        }
    }

    async fn new_version(
        &self,
        commit: &mut Commit,
        media_type: &str,
        version: u64,
        parents: Vec<u64>,
        wanted: &Wanted,
    ) -> Result<DocumentVersion, Failure> {
        let mut head = self.new_head(media_type, version, parents, wanted.bytes());
        if let Change::Restore(from) = &self.write.change {
            head.taken_from = Some(format!("@{from}"));
        }
        self.contexts.usage.admit(self.contexts, self.acting.project, head.size_bytes, self.found.head.is_none()).await?;
        let project = self.acting.project;
        let kept = match wanted {
            Wanted::Bytes(bytes) => self.contexts.keep(project, bytes, self.found.newest.as_ref().map(|newest| &newest.content)).await?,
            Wanted::Again(content, _) => self.contexts.keep_again(project, content).await?,
            Wanted::Nothing => Kept { content: Content::default(), expects: Vec::new() },
        };
        commit.expects.extend(kept.expects);
        Ok(DocumentVersion { head, content: kept.content })
    }

    /// Makes `new` the newest version. `bytes`: what it says.
    fn newest(&self, commit: &mut Commit, new: &DocumentVersion, bytes: &[u8], plugin: Option<&PluginRef>, asked: Value) {
        let head = &new.head;
        commit.replace(head_key(&head.key), self.found.version(), head);
        commit.put(text_key(&head.key, head.version), new);
        let merged_with = plugin.and(head.parents.first());
        let mut data = json!({
            "key": head.key, "version": head.version, "parents": head.parents, "media_type": head.media_type, "hash": head.hash,
            "size_bytes": head.size_bytes,
        });
        let patch = self.found.newest.as_ref().and_then(|newest| told_patch(newest, head, bytes));
        if let (Some(patch), Some(from)) = (patch, self.found.head()) {
            data["from"] = from.version.into();
            data["patch"] = patch;
        }
        for (name, value) in
            [("merged_with", json!(merged_with)), ("plugin", json!(plugin)), ("asked", asked), ("label", json!(head.label))]
        {
            if !value.is_null() {
                data[name] = value;
            }
        }
        commit.events.push(self.acting.event("context.written", head.key.subject(), data));
        let was_to_go = self.found.head().is_some_and(|head| head.expires_at.is_some());
        match head.expires_at {
            Some(at) => commit.due.push(DueChange::Set { name: expiry_due(&head.key), at }),
            None if was_to_go => commit.due.push(DueChange::Clear { name: expiry_due(&head.key) }),
            None => {}
        }
        if head.version.is_multiple_of(PRUNE_EACH) {
            commit.due.push(DueChange::Set { name: prune_due(&head.key), at: head.at });
        }
    }

    /// Merges `side`, the writer's version, with version `ours`, or records the conflict.
    async fn reconciled(&self, commit: &mut Commit, ours: u64, side: DocumentVersion, wanted: Wanted) -> Result<WriteOutcome, Failure> {
        let rules = &self.contexts.kit.settings.context.rules;
        let policy = rules.stale(&self.slug, &self.write.key);
        if policy == Stale::LastWriter {
            return Ok(self.replaces(commit, ours, side, wanted.bytes()));
        }
        let project = self.acting.project;
        let newest = self.base(ours).await?;
        let base = match side.head.parents.first() {
            Some(&base) => Some(self.base(base).await?),
            None => None,
        };
        let theirs = Document { head: side.head.clone(), bytes: wanted.bytes().to_vec() };
        let sizes = [newest.bytes.len(), theirs.bytes.len(), base.as_ref().map_or(0, |base| base.bytes.len())];
        let met = if policy == Stale::Refuse {
            let reason = "stale writes of this key are refused, not merged".to_owned();
            Reconciled::Conflict { places: vec![whole(base.as_ref(), &newest, &theirs, reason)], plugin: None, asked: Vec::new() }
        } else if sizes.into_iter().any(|size| size > RECONCILED_BYTES_MAX) {
            let reason = format!("documents of more than {RECONCILED_BYTES_MAX} bytes are not merged");
            Reconciled::Conflict { places: vec![whole(base.as_ref(), &newest, &theirs, reason)], plugin: None, asked: Vec::new() }
        } else {
            self.contexts.reconcile(project, base.as_ref(), &newest, &theirs).await?
        };
        match met {
            Reconciled::Merged { bytes, plugin, .. } if bytes == newest.bytes => Ok(applied(ours, Some(ours), Some(plugin.name), true)),
            Reconciled::Merged { bytes, plugin, asked } => {
                let merged = Wanted::Bytes(bytes.into());
                let mut merged_version = self.new_version(commit, &newest.head.media_type, ours + 2, vec![ours, ours + 1], &merged).await?;
                merged_version.head.merged_by = Some(plugin.name.clone());
                commit.put(text_key(&self.write.key, side.head.version), &side);
                self.newest(commit, &merged_version, merged.bytes(), Some(&plugin), json!(asked));
                Ok(applied(ours + 2, Some(ours), Some(plugin.name), false))
            }
            Reconciled::Conflict { .. } if policy == Stale::OwnerWins && rules.is_owner(&Party::of(&self.acting.agent), self.place()) => {
                Ok(self.replaces(commit, ours, side, &theirs.bytes))
            }
            Reconciled::Conflict { places, plugin, asked } => self.conflict(commit, ours, side, places, plugin, json!(asked)).await,
        }
    }

    /// Lets the writer's version stand above the newest, which stays among its parents.
    fn replaces(&self, commit: &mut Commit, ours: u64, mut side: DocumentVersion, bytes: &[u8]) -> WriteOutcome {
        side.head.parents.insert(0, ours);
        self.newest(commit, &side, bytes, None, Value::Null);
        applied(side.head.version, None, None, false)
    }

    async fn conflict(
        &self,
        commit: &mut Commit,
        ours: u64,
        side: DocumentVersion,
        places: Vec<ConflictPlace>,
        plugin: Option<PluginRef>,
        asked: Value,
    ) -> Result<WriteOutcome, Failure> {
        let kit = &self.contexts.kit;
        let id = ConflictId::new(kit.now(), kit.system.id_bytes());
        let owners = self.owners().await?;
        let record = ConflictRecord {
            id,
            key: self.write.key.clone(),
            base_version: self.write.base_version,
            current_version: ours,
            media_type: side.head.media_type.clone(),
            author: side.head.author.clone(),
            at: side.head.at,
            places: places.clone(),
            plugin: plugin.as_ref().map(|plugin| plugin.name.clone()),
            owners: owners.clone(),
            handed_to: None,
            resolved_by: None,
        };
        commit.expects.push((head_key(&self.write.key), self.found.expect()));
        commit.put(conflict_key(id), &record);
        commit.put(side_key(id), &side);
        let pointers: Vec<&str> = places.iter().map(|place| place.pointer.as_str()).collect();
        let data = json!({
            "conflict": id, "key": self.write.key, "base": self.write.base_version, "current": ours, "pointers": pointers,
            "plugin": plugin, "asked": asked, "agents": owners,
        });
        commit.events.push(self.acting.event("context.conflicted", self.write.key.subject(), data).caused_by(id));
        Ok(WriteOutcome::Conflict { id, current_version: ours, conflicts: places, plugin: plugin.map(|plugin| plugin.name) })
    }

    /// Returns the owners of the document, the writer aside.
    async fn owners(&self) -> Result<Vec<AgentId>, Failure> {
        let rules = &self.contexts.kit.settings.context.rules;
        let agents = self.contexts.agents.agents(self.acting.project).await?;
        let is_told = |agent: &&std::sync::Arc<_>| agent_is_owner(rules, agent, self.place());
        let all = agents.iter().filter(is_told).map(|agent| agent.id).filter(|id| *id != self.acting.agent.id);
        Ok(all.collect())
    }

    /// The conflict's other side is not taken.
    fn stays(&self) -> Result<WriteOutcome, Failure> {
        match self.found.head() {
            Some(head) => Ok(applied(head.version, None, None, true)),
            None => Err(missing(&self.write.key)),
        }
    }

    /// Returns the newest version for who wants it gone, and knows it.
    fn known_newest(&self) -> Result<&DocumentVersion, Failure> {
        let newest = self.found.newest.as_ref().ok_or_else(|| missing(&self.write.key))?;
        if self.write.base_version != Some(newest.head.version) {
            let why = format!("`{}` is at version {}, not the one you name", self.write.key, newest.head.version);
            let data = json!({"key": self.write.key, "newest": newest.head.version});
            return Err(Failure::refused_with("stale", why, "Read it, and give its version as `base_version`.", data));
        }
        Ok(newest)
    }

    fn tombstone(&self, newest: &DocumentHead) -> DocumentVersion {
        let head = tombstone(newest, self.acting.agent.actor(), self.contexts.kit.now());
        DocumentVersion { head, content: Content::default() }
    }

    fn goes(&self, commit: &mut Commit, gone: &DocumentVersion) {
        let head = &gone.head;
        commit.replace(head_key(&head.key), self.found.version(), head);
        commit.put(text_key(&head.key, head.version), gone);
        if self.found.head().is_some_and(|head| head.expires_at.is_some()) {
            commit.due.push(DueChange::Clear { name: expiry_due(&head.key) });
        }
        commit.due.push(DueChange::Set { name: prune_due(&head.key), at: head.at + TOMBSTONE_KEPT_MS });
        let mut data = json!({"key": head.key, "version": head.version, "parents": head.parents});
        // Not where to: who hears of this key need not know the other.
        if head.renamed_to.is_some() {
            data["renamed"] = true.into();
        }
        commit.events.push(self.acting.event("context.deleted", head.key.subject(), data));
    }

    async fn delete(&self, commit: &mut Commit) -> Result<WriteOutcome, Failure> {
        if let Some(head) = self.found.head().filter(|head| head.deleted) {
            return Ok(applied(head.version, None, None, true));
        }
        let gone = self.tombstone(&self.known_newest()?.head);
        self.goes(commit, &gone);
        Ok(applied(gone.head.version, None, None, false))
    }

    async fn rename(&self, commit: &mut Commit, to: &DocumentKey) -> Result<WriteOutcome, Failure> {
        let newest = self.known_newest()?;
        let project = self.acting.project;
        let there = self.contexts.kit.load::<DocumentHead>(Some(project), &head_key(to)).await?;
        if there.as_ref().is_some_and(|there| !there.value.deleted) {
            let why = format!("there is a document `{to}` already");
            return Err(Failure::refused("exists", why, "Choose another key, or delete that one first."));
        }
        let mut gone = self.tombstone(&newest.head);
        gone.head.renamed_to = Some(to.clone());
        self.goes(commit, &gone);
        let version = there.as_ref().map_or(1, |there| there.value.version + 1);
        let kept = self.contexts.keep_again(project, &newest.content).await?;
        commit.expects.extend(kept.expects);
        let now = self.contexts.kit.now();
        let head = DocumentHead {
            key: to.clone(),
            version,
            at: now,
            author: self.acting.agent.actor(),
            parents: there.iter().map(|there| there.value.version).collect(),
            merged_by: None,
            creator: newest.head.creator(),
            deletions: there.as_ref().map_or(0, |there| there.value.deletions),
            taken_from: Some(format!("{}@{}", self.write.key, newest.head.version)),
            label: None,
            expires_at: self.contexts.kit.settings.context.rules.expires_ms(&self.slug, to).map(|ms| now + ms),
            ..newest.head.clone()
        };
        if let Some(at) = head.expires_at {
            commit.due.push(DueChange::Set { name: expiry_due(to), at });
        }
        commit.replace(head_key(to), there.map(|there| there.version), &head);
        let data = json!({
            "key": to, "version": version, "parents": head.parents, "media_type": head.media_type, "hash": head.hash,
            "size_bytes": head.size_bytes, "renamed": true,
        });
        commit.put(text_key(to, version), &DocumentVersion { head, content: kept.content });
        commit.events.push(self.acting.event("context.written", to.subject(), data));
        Ok(applied(version, None, None, false))
    }

    async fn record(&self, id: ConflictId) -> Result<Loaded<ConflictRecord>, Failure> {
        let found = self.contexts.kit.load::<ConflictRecord>(Some(self.acting.project), &conflict_key(id)).await?;
        found.filter(|found| found.value.key == self.write.key).ok_or_else(|| {
            let why = format!("`{}` has no conflict {id}", self.write.key);
            Failure::refused("not_found", why, "Leave `resolves` out, or name the conflict that the write was answered with.")
        })
    }

    async fn resolved(&self, commit: &mut Commit, id: ConflictId, version: u64) -> Result<(), Failure> {
        let found = self.record(id).await?;
        if found.value.resolved_by.is_none() {
            let told: Vec<_> = found.value.owners.iter().chain(found.value.author.agent.iter()).collect();
            let data = json!({"conflict": id, "key": self.write.key, "version": version, "agents": told});
            commit.events.push(self.acting.event("context.resolved", self.write.key.subject(), data).caused_by(id));
            let resolved = ConflictRecord { resolved_by: Some(version), ..found.value };
            commit.replace(conflict_key(id), Some(found.version), &resolved);
        }
        Ok(())
    }

    async fn hand(&self, commit: &mut Commit, id: ConflictId, to: &str) -> Result<WriteOutcome, Failure> {
        let found = self.record(id).await?;
        if let Some(version) = found.value.resolved_by {
            let why = format!("version {version} resolved {id} already");
            return Err(Failure::refused("already_resolved", why, "Read the document: nothing is left to do."));
        }
        let agents = self.contexts.agents.agents(self.acting.project).await?;
        let agent = agents.iter().find(|agent| agent.name == to || agent.id.to_string() == to);
        let agent =
            agent.ok_or_else(|| Failure::refused("not_found", format!("there is no agent `{to}`"), "`lookup` lists the agents."))?;
        let theirs = Viewer::Agent(std::sync::Arc::clone(agent));
        if !self.contexts.may(self.acting.project, &theirs, Operation::Resolve, &self.write.key, self.found.head()).await? {
            let why = format!("`{to}` may not resolve conflicts of `{}`", self.write.key);
            return Err(Failure::refused("forbidden", why, "Hand it to somebody who may."));
        }
        let data = json!({"conflict": id, "key": self.write.key, "agents": [agent.id]});
        commit.events.push(self.acting.event("context.handed", self.write.key.subject(), data).caused_by(id));
        commit.replace(conflict_key(id), Some(found.version), &ConflictRecord { handed_to: Some(agent.id), ..found.value });
        Ok(WriteOutcome::Handed { id, to: agent.id })
    }
}

fn agent_is_owner(rules: &pointsman_core::context::rules::Rules, agent: &pointsman_core::agent::AgentRecord, place: Place<'_>) -> bool {
    rules.is_owner(&Party::of(agent), place)
}

fn applied(version: u64, merged_with: Option<u64>, plugin: Option<String>, unchanged: bool) -> WriteOutcome {
    WriteOutcome::Applied { version, merged_with, plugin, unchanged }
}

/// Returns what a base says, with a patch applied.
fn patched(base: &Document, patch: &Value) -> Result<Vec<u8>, Failure> {
    let misfit = |error: ViewError| {
        let code = if matches!(error, ViewError::Misfit { .. }) { "patch_misfit" } else { "bad_argument" };
        Failure::refused(code, error.to_string(), "Make the patch from the version that `base_version` names, or write the whole document.")
    };
    let text = base.text().ok_or_else(|| wrong(format!("`{}` is no text", base.head.key), "Write it whole, as `base64`."))?;
    if is_json(&base.head.media_type) {
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string(), "Write the whole document."))?;
        return Ok(view::apply_json_patch(&value, patch).map_err(misfit)?.to_string().into_bytes());
    }
    let patch = patch.as_str().ok_or_else(|| wrong("the patch of a text is a unified diff, as a text", "Give it so."))?;
    Ok(view::apply_text_patch(text, patch).map_err(misfit)?.into_bytes())
}

/// Returns what an event tells of a change; none: too much, or nothing that a patch says.
fn told_patch(from: &DocumentVersion, head: &DocumentHead, to: &[u8]) -> Option<Value> {
    if !from.content.chunks().is_empty() || to.len() > INLINE_BYTES_MAX || from.head.media_type != head.media_type {
        return None;
    }
    let (from, to) = (std::str::from_utf8(from.content.inline_bytes()).ok()?, std::str::from_utf8(to).ok()?);
    let patch = if is_json(&head.media_type) {
        view::json_patch(&serde_json::from_str(from).ok()?, &serde_json::from_str(to).ok()?)
    } else {
        (from.lines().count() * to.lines().count() <= TOLD_LINES_MAX).then(|| view::text_patch(from, to))?.into()
    };
    (patch.to_string().len() <= TOLD_PATCH_BYTES_MAX).then_some(patch)
}

pub(super) fn unknown_base(key: &DocumentKey, newest: Option<u64>) -> Failure {
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
