//! A group of commits: judged in order, written at once.
//!
//! Must not know threads, queues or callers.
//!
//! **Invariant:** a commit of the group sees the accepted ones before it, and nothing of a refused one.

use std::collections::HashMap;

use fjall::{PersistMode, UserValue};
use pointsman_core::event::{Cursor, Event, NewEvent};
use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use pointsman_core::value;

use super::disk::{Disk, DiskError};
use super::keys::{self, Call, LAST_KEY, Last};
use crate::ports::store::{Commit, Committed, DueChange, Expect, StoreError, host_log};

/// What a caller is told, once the group is on disk.
pub(super) type Verdict = Result<Committed, StoreError>;

/// Commits that become durable together.
pub(super) struct Group<'a> {
    disk: &'a Disk,
    epoch: u64,
    /// What will be written, by key: none removes. What is read is looked for here first.
    writes: HashMap<Vec<u8>, Option<UserValue>>,
    last: Last,
    accepted: usize,
    logs: HashMap<Option<ProjectId>, Cursor>,
    due: DueTouched,
}

/// What a group did to the due entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DueTouched {
    /// Whether it set or removed any.
    pub(super) any: bool,
    /// The earliest time it set.
    pub(super) earliest_set: Option<TimeMs>,
}

/// What a written group leaves to do.
pub(super) struct Written {
    /// Its last commit.
    pub(super) last: Last,
    /// Logs that grew, and where they end now.
    pub(super) logs: HashMap<Option<ProjectId>, Cursor>,
    /// Due entries it touched.
    pub(super) due: DueTouched,
}

impl<'a> Group<'a> {
    /// Returns an empty group that follows the commit `last`.
    pub(super) fn new(disk: &'a Disk, epoch: u64, last: Last) -> Self {
        Self { disk, epoch, writes: HashMap::new(), last, accepted: 0, logs: HashMap::new(), due: DueTouched::default() }
    }

    /// Returns how many commits were accepted.
    pub(super) fn accepted(&self) -> usize {
        self.accepted
    }

    /// Judges a commit made at `now` and takes it in when nothing speaks against it.
    ///
    /// # Errors
    /// When the database does not answer: then nothing is known, and the group must not be written.
    pub(super) fn judge(&mut self, commit: Commit, now: TimeMs) -> Result<Verdict, DiskError> {
        if let Some(verdict) = self.repeated(&commit, now)? {
            return Ok(verdict);
        }
        if let Some(refusal) = self.outdated(&commit)? {
            return Ok(Err(refusal));
        }
        self.take(commit, now).map(Ok)
    }

    fn repeated(&self, commit: &Commit, now: TimeMs) -> Result<Option<Verdict>, DiskError> {
        let Some(call) = &commit.idempotency else { return Ok(None) };
        let Some(place) = keys::call_key(commit.project, &call.principal, &call.operation, &call.key) else { return Ok(None) };
        let Some(record) = self.read(&place)? else { return Ok(None) };
        let kept = Call::of(&record)?;
        if !kept.lives(now) {
            return Ok(None);
        }
        if kept.digest != call.request_digest {
            return Ok(Some(Err(StoreError::KeyReused { key: call.key.clone() })));
        }
        Ok(Some(Ok(Committed::Replayed(kept.response.to_vec()))))
    }

    fn outdated(&self, commit: &Commit) -> Result<Option<StoreError>, DiskError> {
        let token = |key: &str| self.read(&keys::fence_key(commit.project, key))?.map(|record| keys::token_of(&record)).transpose();
        for fence in &commit.fences {
            if token(&fence.key)? != Some(fence.token) {
                return Ok(Some(StoreError::Fenced { key: fence.key.clone() }));
            }
        }
        for (key, expect) in &commit.expects {
            let record = self.read(&keys::value_key(commit.project, key.as_bytes()))?;
            let version = record.map(|record| keys::value_of(&record).map(|(version, _)| version)).transpose()?;
            let expected = match expect {
                Expect::Absent => None,
                Expect::Version(version) => Some(*version),
            };
            if version != expected {
                return Ok(Some(StoreError::Stale { key: key.clone() }));
            }
        }
        for fence in &commit.raise {
            // A lower token would give the right back to one who lost it.
            if token(&fence.key)?.is_some_and(|stands| stands > fence.token) {
                return Ok(Some(StoreError::Fenced { key: fence.key.clone() }));
            }
        }
        Ok(None)
    }

    fn take(&mut self, commit: Commit, now: TimeMs) -> Result<Committed, DiskError> {
        let project = commit.project;
        let last = Last { version: self.last.version + 1, at: now };
        for (key, bytes) in &commit.puts {
            self.write(keys::value_key(project, key.as_bytes()), keys::value_record(last.version, bytes));
        }
        for key in &commit.deletes {
            self.remove(keys::value_key(project, key.as_bytes()));
        }
        for fence in &commit.raise {
            self.write(keys::fence_key(project, &fence.key), keys::token_record(fence.token));
        }
        if let Some(project) = project {
            for change in &commit.due {
                self.change_due(project, change)?;
            }
        }
        if let Some(call) = &commit.idempotency
            && let Some(place) = keys::call_key(project, &call.principal, &call.operation, &call.key)
        {
            self.write(keys::call_age_key(now, last.version), place.clone());
            self.write(place, Call::record(now, call));
        }
        let cursor = self.append(project, commit.events, now)?;
        self.last = last;
        self.accepted += 1;
        Ok(Committed::Done { version: last.version, cursor, at: now })
    }

    fn change_due(&mut self, project: ProjectId, change: &DueChange) -> Result<(), DiskError> {
        let (DueChange::Set { name, .. } | DueChange::Clear { name }) = change;
        let place = keys::due_name_key(project, name);
        if let Some(record) = self.read(&place)? {
            let at = keys::time_of(&record).ok_or(DiskError::Unreadable { what: "due entry" })?;
            self.remove(keys::due_time_key(at, project, name));
            self.due.any = true;
        }
        match change {
            DueChange::Set { at, .. } => {
                self.write(keys::due_time_key(*at, project, name), Vec::new());
                self.write(place, keys::time_bytes(*at).to_vec());
                let earliest = self.due.earliest_set.map_or(*at, |earliest| earliest.min(*at));
                self.due = DueTouched { any: true, earliest_set: Some(earliest) };
            }
            DueChange::Clear { .. } => self.remove(place),
        }
        Ok(())
    }

    fn append(&mut self, project: Option<ProjectId>, events: Vec<NewEvent>, at: TimeMs) -> Result<Cursor, DiskError> {
        let place = keys::head_key(project);
        let seq = self.read(&place)?.map(|record| keys::head_of(&record)).transpose()?.map_or(0, |head| head.seq);
        let mut cursor = Cursor { epoch: self.epoch, seq };
        if events.is_empty() {
            return Ok(cursor);
        }
        for event in events {
            cursor.seq += 1;
            let event = Event { cursor, at, project: project.unwrap_or_else(host_log), event };
            self.write(keys::event_key(project, cursor.seq), value::encode(&event));
        }
        self.write(place, keys::head_record(cursor));
        self.logs.insert(project, cursor);
        Ok(cursor)
    }

    /// Removes up to `limit` idempotency records that no longer count, from the list's place `from` on. Returns where to go
    /// on and when the next one is over; none: not before all that are kept from now on are.
    pub(super) fn collect(&mut self, from: &[u8], now: TimeMs, limit: usize) -> Result<(Vec<u8>, Option<TimeMs>), DiskError> {
        let mut reached = from.to_vec();
        for (count, entry) in self.disk.records.range(from.to_vec()..keys::call_ages().1).enumerate() {
            let (listed, place) = entry.into_inner()?;
            let at = keys::call_age(&listed)?;
            if count == limit || now < Call::kept_until(at) {
                return Ok((reached, Some(Call::kept_until(at))));
            }
            // A call made anew after its record had lapsed has a new record, and a later place in the list.
            if let Some(record) = self.read(&place)?
                && Call::of(&record)?.at == at
            {
                self.remove(place.to_vec());
            }
            reached = listed.to_vec();
            self.remove(listed.to_vec());
        }
        Ok((reached, None))
    }

    /// Writes the group and waits until it is durable.
    ///
    /// # Errors
    /// When the database cannot say that it is: part of it may be on disk, all of it or nothing will count after a restart.
    pub(super) fn commit(mut self) -> Result<Written, DiskError> {
        self.write(LAST_KEY.to_vec(), self.last.record());
        let mut batch = self.disk.database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in self.writes {
            match value {
                Some(value) => batch.insert(&self.disk.records, key, value),
                None => batch.remove(&self.disk.records, key),
            }
        }
        batch.commit()?;
        Ok(Written { last: self.last, logs: self.logs, due: self.due })
    }

    fn read(&self, key: &[u8]) -> Result<Option<UserValue>, DiskError> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.disk.get(key),
        }
    }

    fn write(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value.into()));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }
}
