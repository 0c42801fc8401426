//! What was accepted while Redis was away: synced to this host's disk, and done when Redis is back.
//!
//! ```text
//! FOLDER/kept.log          records as the journal has them, without a place
//! ```
//! **Invariants:** what was accepted is done at least once before it is forgotten, and a second time changes nothing, since it expects
//! the absence of what it writes; nothing is accepted while Redis can be used, and what is kept is bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pointsman_core::time::TimeMs;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::entry::{Entry, Place};
use super::journal::{frame, unframe};
use super::{Core, Up, unavailable, unavailable_because};
use crate::ports::store::{Committed, StoreError};

/// Bytes that are kept.
const BYTES_MAX: u64 = 64 << 20;
/// Commits that are on their way at once when Redis is back.
const AT_ONCE: usize = 64;

/// The kept commits.
pub(super) struct Kept {
    file: Mutex<Arc<KeptFile>>,
    waiting: AtomicU64,
    total: AtomicU64,
}

/// The file; written to under the lock only.
struct KeptFile {
    file: File,
    bytes: AtomicU64,
}

impl KeptFile {
    fn append(&self, record: &[u8]) -> io::Result<()> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let written = (&self.file).write_all(record).and_then(|()| self.file.sync_data());
        match &written {
            Ok(()) => self.bytes.store(bytes + u64::try_from(record.len()).unwrap_or(u64::MAX), Ordering::Relaxed),
            // What stands there now was not answered; where it cannot be taken back, nothing is written behind it.
            Err(_) if self.file.set_len(bytes).is_err() => self.bytes.store(BYTES_MAX, Ordering::Relaxed),
            Err(_) => {}
        }
        written
    }

    fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_all()?;
        self.bytes.store(0, Ordering::Relaxed);
        Ok(())
    }
}

impl Kept {
    /// Opens what an earlier run kept in a folder, or begins it.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("kept.log");
        let found = match fs::read(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        File::open(folder)?.sync_all()?;
        let (entries, whole_bytes) = unframe(&found);
        let bytes = u64::try_from(whole_bytes).unwrap_or(u64::MAX);
        // Half a record was not answered.
        file.set_len(bytes)?;
        let file = Mutex::new(Arc::new(KeptFile { file, bytes: bytes.into() }));
        let waiting = AtomicU64::new(u64::try_from(entries.len()).unwrap_or(u64::MAX));
        Ok(Self { file, waiting, total: AtomicU64::new(0) })
    }

    /// Returns how many commits wait for Redis, and how many were accepted so since the start.
    pub(super) fn counts(&self) -> [u64; 2] {
        [self.waiting.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed)]
    }

    /// Keeps a commit, unless Redis can be used.
    ///
    /// # Errors
    /// `Unavailable`: there is no room, or no disk; or Redis can be used again, and the commit is returned to be done now.
    pub(super) async fn keep(&self, entry: Entry, up: impl Fn() -> bool) -> Result<Result<Committed, Entry>, StoreError> {
        let file = self.file.lock().await;
        // Under the lock: whoever finds Redis away is seen by the next that does what is kept.
        if up() {
            return Ok(Err(entry));
        }
        let mut record = Vec::with_capacity(entry.bytes() + 256);
        frame(Place { epoch: 0, version: 0, seq: 0, at: TimeMs(0) }, &entry, &mut record);
        let room = BYTES_MAX.saturating_sub(file.bytes.load(Ordering::Relaxed));
        if u64::try_from(record.len()).unwrap_or(u64::MAX) > room {
            return Err(unavailable_because("Redis is away, and there is no more room beside it"));
        }
        let writes = Arc::clone(&file);
        let written = tokio::task::spawn_blocking(move || writes.append(&record)).await;
        written.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(|error| {
            tracing::error!(%error, "what Redis is to have later cannot be written");
            unavailable_because("Redis is away, and what it is to have later cannot be written")
        })?;
        drop(file);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        Ok(Ok(Committed::Kept))
    }

    /// Does what is kept.
    pub(super) async fn hand_in(&self, core: &Arc<Core>, up: &Arc<Up>, folder: &Path) -> Result<(), StoreError> {
        let file = self.file.lock().await;
        if file.bytes.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let path = folder.join("kept.log");
        let read = tokio::task::spawn_blocking(move || fs::read(path)).await;
        let found = read.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(|error| {
            tracing::error!(%error, "what Redis is to have cannot be read");
            unavailable_because("what Redis is to have cannot be read")
        })?;
        let (entries, _) = unframe(&found);
        let (all, mut new) = (entries.len(), 0);
        for some in entries.chunks(AT_ONCE) {
            let again = |(_, entry): &(Place, Entry)| again(Arc::clone(core), Arc::clone(up), entry.clone());
            for done in some.iter().map(again).collect::<JoinSet<_>>().join_all().await {
                new += usize::from(done?);
            }
        }
        let cleared = Arc::clone(&file);
        let cleared = tokio::task::spawn_blocking(move || cleared.clear()).await;
        if let Err(error) = cleared.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            // It comes again, and is known then.
            tracing::error!(%error, "what Redis has now cannot be forgotten");
        }
        self.waiting.store(0, Ordering::Relaxed);
        tracing::warn!(kept = all, new, "what was accepted while Redis was away is done");
        Ok(())
    }
}

/// Does a kept commit. Returns whether it was not there yet.
async fn again(core: Arc<Core>, up: Arc<Up>, entry: Entry) -> Result<bool, StoreError> {
    core.note_space(&up.servers, &entry.space).await.map_err(|error| unavailable(&error))?;
    let space = entry.space.clone();
    match up.lane(&space).map_err(|error| unavailable(&error))?.commit(entry).await {
        Ok(Committed::Done { .. }) => Ok(true),
        // The call was done before Redis went away, or what it writes is there: nobody else writes that.
        Ok(Committed::Replayed(_) | Committed::Kept) | Err(StoreError::Stale { .. }) => Ok(false),
        Err(error @ StoreError::Unavailable { .. }) => Err(error),
        Err(error @ (StoreError::Fenced { .. } | StoreError::KeyReused { .. } | StoreError::Refused { .. })) => {
            tracing::error!(%error, space, "what was accepted while Redis was away cannot be done");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        Entry { space: "host".to_owned(), call: String::new(), call_key: String::new(), only_adds: true, lists: vec![text.into()] }
    }

    async fn keep(kept: &Kept, text: &str) -> Result<Result<Committed, Entry>, StoreError> {
        kept.keep(entry(text), || false).await
    }

    fn found(folder: &Path) -> Vec<Entry> {
        let bytes = fs::read(folder.join("kept.log")).expect("it is there");
        unframe(&bytes).0.into_iter().map(|(_, entry)| entry).collect()
    }

    #[tokio::test]
    async fn what_was_accepted_outlives_the_host_and_half_a_record_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("it opens");
        assert_eq!(keep(&kept, "one").await, Ok(Ok(Committed::Kept)));
        assert_eq!(keep(&kept, "two").await, Ok(Ok(Committed::Kept)));
        drop(kept);
        let path = folder.path().join("kept.log");
        let bytes = fs::read(&path).expect("it is there");
        fs::write(&path, &bytes[..bytes.len() - 3]).expect("it is cut");
        let kept = Kept::open(folder.path()).expect("it opens again");
        assert_eq!(kept.counts(), [1, 0]);
        assert_eq!(keep(&kept, "three").await, Ok(Ok(Committed::Kept)));
        assert_eq!((found(folder.path()), kept.counts()), (vec![entry("one"), entry("three")], [2, 1]));
    }

    #[tokio::test]
    async fn nothing_is_kept_when_redis_can_be_used_or_there_is_no_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("it opens");
        assert_eq!(kept.keep(entry("one"), || true).await, Ok(Err(entry("one"))));
        let large = "x".repeat(usize::try_from(BYTES_MAX).expect("it fits"));
        assert!(matches!(keep(&kept, &large).await, Err(StoreError::Unavailable { .. })));
        assert_eq!((found(folder.path()), kept.counts()), (vec![], [0, 0]));
    }
}
