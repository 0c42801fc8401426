//! Reading: each call sees one state of the whole database, always one between two groups.

use fjall::Readable;
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use pointsman_core::value;

use super::Core;
use super::disk::DiskError;
use super::keys::{self, Call};
use crate::ports::store::{DueEntry, ENTRIES_MAX, KEY_BYTES_MAX, PAGE_BYTES_MAX, Page, StoreError, Versioned};

impl Core {
    /// Returns the value of a key.
    pub(super) fn get(&self, project: Option<ProjectId>, key: &str) -> Result<Option<Versioned>, DiskError> {
        if key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let record = self.disk.database.snapshot().get(&self.disk.records, keys::value_key(project, key.as_bytes()))?;
        record.map(|record| versioned(&record)).transpose()
    }

    /// Returns a page of a range.
    pub(super) fn range(&self, project: Option<ProjectId>, prefix: &str, from: &str, limit: usize) -> Result<Page, DiskError> {
        // No key is longer than the bound, so one byte more decides every comparison.
        let bounded = |text: &str| text.as_bytes()[..text.len().min(KEY_BYTES_MAX + 1)].to_vec();
        let lower = keys::value_key(project, &bounded(prefix.max(from)));
        let upper = keys::after_prefix(&keys::value_key(project, &bounded(prefix)));
        let mut page = Page::default();
        if lower >= upper {
            return Ok(page);
        }
        let mut page_bytes = 0;
        for entry in self.disk.database.snapshot().range(&self.disk.records, lower..upper) {
            let full = page.entries.len() >= limit.min(ENTRIES_MAX) || page_bytes >= PAGE_BYTES_MAX;
            if full {
                page.next = Some(keys::value_text(project, &entry.key()?)?);
                break;
            }
            let (key, record) = entry.into_inner()?;
            page_bytes += key.len() + record.len();
            page.entries.push((keys::value_text(project, &key)?, versioned(&record)?));
        }
        Ok(page)
    }

    /// Returns the answer of an earlier call.
    pub(super) fn answered(
        &self,
        project: Option<ProjectId>,
        (principal, operation, key): (&str, &str, &str),
        request_digest: &[u8; 32],
    ) -> Result<Result<Option<Vec<u8>>, StoreError>, DiskError> {
        let Some(place) = keys::call_key(project, principal, operation, key) else { return Ok(Ok(None)) };
        let Some(record) = self.disk.database.snapshot().get(&self.disk.records, place)? else { return Ok(Ok(None)) };
        let call = Call::of(&record)?;
        if !call.lives(self.clock.now()) {
            return Ok(Ok(None));
        }
        if call.digest != request_digest {
            return Ok(Err(StoreError::KeyReused { key: key.to_owned() }));
        }
        Ok(Ok(Some(call.response.to_vec())))
    }

    /// Returns entries due at or before a time.
    pub(super) fn due(&self, before: TimeMs, limit: usize) -> Result<Vec<DueEntry>, DiskError> {
        // From the next one on, so that the remains of the ones done are not walked over.
        let Some(next) = (*self.next_due.lock()).filter(|next| *next <= before) else { return Ok(Vec::new()) };
        let range = keys::due_from(next)..keys::due_until(before);
        let entries = self.disk.database.snapshot().range(&self.disk.records, range);
        let read = |entry: fjall::Guard| {
            let (at, project, name) = keys::due_of(&entry.key()?)?;
            Ok(DueEntry { project, name, at })
        };
        entries.take(limit.min(ENTRIES_MAX)).map(read).collect()
    }

    /// Returns the events after a cursor.
    pub(super) fn events(&self, project: Option<ProjectId>, after: Cursor, limit: usize) -> Result<Vec<Event>, DiskError> {
        let Some(first) = after.seq.checked_add(1) else { return Ok(Vec::new()) };
        let range = keys::event_key(project, first)..keys::after_events(project);
        let entries = self.disk.database.snapshot().range(&self.disk.records, range);
        entries.take(limit.min(ENTRIES_MAX)).map(|entry| Ok(value::decode(&entry.value()?)?)).collect()
    }

    /// Returns the end of a log.
    pub(super) fn head(&self, project: Option<ProjectId>) -> Result<Cursor, DiskError> {
        let record = self.disk.database.snapshot().get(&self.disk.records, keys::head_key(project))?;
        let none = Cursor { epoch: self.epoch, seq: 0 };
        record.map_or(Ok(none), |record| Ok(Cursor { epoch: self.epoch, ..keys::head_of(&record)? }))
    }
}

fn versioned(record: &[u8]) -> Result<Versioned, DiskError> {
    let (version, bytes) = keys::value_of(record)?;
    Ok(Versioned { version, bytes: bytes.to_vec() })
}
