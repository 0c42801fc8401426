//! What was accepted while Redis was away: synced to this host's disk, and done when Redis is back.
//!
//! ```text
//! FOLDER/kept.log          records as the journal has them, without a place
//! FOLDER/kept.damaged      what followed the last whole record when the host started; half a record, as a rule
//! ```
//! **Invariants:** what was accepted is done at least once before it is forgotten, in its order, and a second time changes nothing, since
//! it expects the absence of what it writes; nothing is accepted while Redis can be used, and what is kept is bounded.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pointsman_core::time::TimeMs;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::entry::{Answered, Entry, Place};
use super::journal::{frame, unframe};
use super::lane::Begun;
use super::{Core, Up, unavailable, unavailable_because};
use crate::ports::store::{Committed, StoreError};

/// Bytes that are kept.
const BYTES_MAX: u64 = 64 << 20;
/// Commits that are on their way at once when Redis is back.
const AT_ONCE: usize = 64;

/// The kept commits.
pub(super) struct Kept {
    state: Arc<Mutex<State>>,
    waiting: AtomicU64,
    total: AtomicU64,
}

/// What stands on the disk, and what is known of it.
struct State {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Calls that were accepted, by where they are recorded.
    calls: HashMap<String, Answered>,
}

impl State {
    fn open(folder: &Path) -> io::Result<(Self, u64)> {
        let path = folder.join("kept.log");
        let found = match fs::read(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (entries, whole) = unframe(&found);
        if whole < found.len() {
            // Half a record was not answered. Should it be more than that, somebody can look.
            let damaged = folder.join("kept.damaged");
            tracing::warn!(bytes = found.len() - whole, damaged = %damaged.display(), "what was kept for Redis ends in what is no whole record");
            fs::write(damaged, &found[whole..])?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        File::open(folder)?.sync_all()?;
        let bytes = u64::try_from(whole).unwrap_or(u64::MAX);
        file.set_len(bytes)?;
        let calls = entries.iter().filter_map(|(_, entry)| entry.recorded()).collect();
        Ok((Self { path, file, bytes, calls }, u64::try_from(entries.len()).unwrap_or(u64::MAX)))
    }

    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(record).and_then(|()| self.file.sync_data());
        match &written {
            Ok(()) => self.bytes += u64::try_from(record.len()).unwrap_or(u64::MAX),
            // What stands there now was not answered; where it cannot be taken back, nothing is written behind it.
            Err(_) if self.file.set_len(self.bytes).is_err() => self.bytes = BYTES_MAX,
            Err(_) => {}
        }
        written
    }

    fn read(&self) -> io::Result<Vec<Entry>> {
        Ok(unframe(&fs::read(&self.path)?).0.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Forgets all but these. Where that fails, what is done comes again, and is known then.
    fn leave(&mut self, left: &[Entry]) -> io::Result<()> {
        let mut records = Vec::new();
        left.iter().for_each(|entry| frame(NOWHERE, entry, &mut records));
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&new)?;
        file.set_len(0)?;
        file.write_all(&records)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.file = file;
        self.bytes = u64::try_from(records.len()).unwrap_or(u64::MAX);
        self.calls = left.iter().filter_map(Entry::recorded).collect();
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

/// The place of what has none yet.
const NOWHERE: Place = Place { epoch: 0, version: 0, seq: 0, at: TimeMs(0) };

/// Does something with the state that takes the disk's time, also when nobody waits for it any more.
async fn on_disk<T: Send + 'static>(
    mut state: OwnedMutexGuard<State>,
    work: impl FnOnce(&mut State) -> io::Result<T> + Send + 'static,
) -> (Option<OwnedMutexGuard<State>>, io::Result<T>) {
    let done = tokio::task::spawn_blocking(move || {
        let done = work(&mut state);
        (state, done)
    });
    match done.await {
        Ok((state, done)) => (Some(state), done),
        Err(panic) => (None, Err(io::Error::other(panic))),
    }
}

impl Kept {
    /// Opens what an earlier run kept in a folder, or begins it.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let (state, waiting) = State::open(folder)?;
        Ok(Self { state: Arc::new(Mutex::new(state)), waiting: waiting.into(), total: AtomicU64::new(0) })
    }

    /// Returns how many commits wait for Redis, and how many were accepted so since the start.
    pub(super) fn counts(&self) -> [u64; 2] {
        [self.waiting.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed)]
    }

    /// Keeps a commit, or returns what became of the same call before; none: Redis can be used.
    ///
    /// # Errors
    /// `Unavailable`: there is no room, or no disk; `KeyReused`.
    pub(super) async fn keep(&self, entry: Entry, is_up: impl Fn() -> bool) -> Result<Option<Committed>, StoreError> {
        let state = Arc::clone(&self.state).lock_owned().await;
        // Under the lock: whoever finds Redis away is seen by the next that does what is kept.
        if is_up() {
            return Ok(None);
        }
        let recorded = entry.recorded();
        if let Some((call, now)) = &recorded
            && let Some(before) = state.calls.get(call)
        {
            if before.digest != now.digest {
                return Err(StoreError::KeyReused { key: entry.call_key });
            }
            return Ok(Some(Committed::Replayed(before.answer.clone())));
        }
        let mut record = Vec::with_capacity(entry.bytes() + 256);
        frame(NOWHERE, &entry, &mut record);
        if u64::try_from(record.len()).unwrap_or(u64::MAX) > BYTES_MAX.saturating_sub(state.bytes) {
            return Err(unavailable_because("Redis is away, and there is no more room beside it"));
        }
        let (state, written) = on_disk(state, move |state| state.append(&record).map(|()| state.calls.extend(recorded))).await;
        written.map_err(|error| {
            tracing::error!(%error, "what Redis is to have later cannot be written");
            unavailable_because("Redis is away, and what it is to have later cannot be written")
        })?;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        drop(state);
        Ok(Some(Committed::Kept))
    }

    /// Does what is kept, in its order. What could not be done stays.
    ///
    /// # Errors
    /// `Unavailable`: some of it could not be done.
    pub(super) async fn hand_in(&self, core: &Core, up: &Up) -> Result<(), StoreError> {
        let state = Arc::clone(&self.state).lock_owned().await;
        if state.bytes == 0 {
            return Ok(());
        }
        let failed = |error: io::Error| {
            tracing::error!(%error, "what is kept for Redis cannot be read or written");
            unavailable_because("what is kept for Redis cannot be read or written")
        };
        let (state, entries) = on_disk(state, |state| state.read()).await;
        let (Some(state), entries) = (state, entries.map_err(failed)?) else { return Ok(()) };
        let (all, mut new, mut left, mut last) = (entries.len(), 0, Vec::new(), None);
        for some in entries.chunks(AT_ONCE) {
            let mut begun = Vec::with_capacity(some.len());
            for entry in some {
                begun.push((entry, begin(core, up, entry).await));
            }
            for (entry, begun) in begun {
                let ended = match begun {
                    Ok(begun) => begun.end().await,
                    Err(error) => Err(error),
                };
                match ended {
                    Ok(Committed::Done { .. }) => new += 1,
                    // The call was done before Redis went away, or what it writes is there: nobody else writes that.
                    Ok(Committed::Replayed(_) | Committed::Kept) | Err(StoreError::Stale { .. }) => {}
                    Err(error @ StoreError::Unavailable { .. }) => {
                        left.push(entry.clone());
                        last = Some(error);
                    }
                    Err(error @ (StoreError::Fenced { .. } | StoreError::KeyReused { .. } | StoreError::Refused { .. })) => {
                        tracing::error!(%error, space = entry.space, "what was accepted while Redis was away cannot be done");
                    }
                }
            }
        }
        let waiting = u64::try_from(left.len()).unwrap_or(u64::MAX);
        let (state, forgotten) = on_disk(state, move |state| state.leave(&left)).await;
        self.waiting.store(waiting, Ordering::Relaxed);
        drop(state);
        tracing::warn!(kept = all, new, waiting, "what was accepted while Redis was away is done");
        forgotten.map_err(failed)?;
        last.map_or(Ok(()), Err)
    }
}

async fn begin(core: &Core, up: &Up, entry: &Entry) -> Result<Begun, StoreError> {
    core.note_space(&up.servers, &entry.space).await.map_err(|error| unavailable(&error))?;
    up.lane(&entry.space).map_err(|error| unavailable(&error))?.begin(entry.clone()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        Entry { space: "host".to_owned(), call: String::new(), call_key: String::new(), only_adds: true, lists: vec![text.into()] }
    }

    fn called(key: &str, digest: &str) -> Entry {
        let lists = ["1", digest, "the answer"].map(|field| field.as_bytes().to_vec()).to_vec();
        Entry { call: format!("call/{key}"), call_key: key.to_owned(), lists, ..entry("") }
    }

    async fn keep(kept: &Kept, entry: Entry) -> Result<Option<Committed>, StoreError> {
        kept.keep(entry, || false).await
    }

    fn found(folder: &Path) -> Vec<Entry> {
        let bytes = fs::read(folder.join("kept.log")).expect("it is there");
        unframe(&bytes).0.into_iter().map(|(_, entry)| entry).collect()
    }

    #[tokio::test]
    async fn what_was_accepted_outlives_the_host_and_half_a_record_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("it opens");
        assert_eq!(keep(&kept, entry("one")).await, Ok(Some(Committed::Kept)));
        assert_eq!(keep(&kept, entry("two")).await, Ok(Some(Committed::Kept)));
        drop(kept);
        let path = folder.path().join("kept.log");
        let bytes = fs::read(&path).expect("it is there");
        fs::write(&path, &bytes[..bytes.len() - 3]).expect("it is cut");
        let kept = Kept::open(folder.path()).expect("it opens again");
        assert_eq!(kept.counts(), [1, 0]);
        assert!(folder.path().join("kept.damaged").exists(), "what is cut off can be looked at");
        assert_eq!(keep(&kept, entry("three")).await, Ok(Some(Committed::Kept)));
        assert_eq!((found(folder.path()), kept.counts()), (vec![entry("one"), entry("three")], [2, 1]));
    }

    #[tokio::test]
    async fn nothing_is_kept_when_redis_can_be_used_or_there_is_no_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("it opens");
        assert_eq!(kept.keep(entry("one"), || true).await, Ok(None));
        let large = "x".repeat(usize::try_from(BYTES_MAX).expect("it fits"));
        assert!(matches!(keep(&kept, entry(&large)).await, Err(StoreError::Unavailable { .. })));
        assert_eq!((found(folder.path()), kept.counts()), (vec![], [0, 0]));
    }

    #[tokio::test]
    async fn a_call_that_comes_again_is_known_and_another_one_under_its_key_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("it opens");
        assert_eq!(keep(&kept, called("k", "first")).await, Ok(Some(Committed::Kept)));
        drop(kept);
        let kept = Kept::open(folder.path()).expect("it opens again");
        assert_eq!(keep(&kept, called("k", "first")).await, Ok(Some(Committed::Replayed(b"the answer".to_vec()))));
        assert_eq!(keep(&kept, called("k", "other")).await, Err(StoreError::KeyReused { key: "k".to_owned() }));
        assert_eq!((found(folder.path()).len(), kept.counts()), (1, [1, 0]));
    }

    #[tokio::test]
    async fn what_could_not_be_done_stays_and_the_rest_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("it opens");
        for text in ["one", "two", "three"] {
            assert_eq!(keep(&kept, entry(text)).await, Ok(Some(Committed::Kept)));
        }
        kept.state.lock().await.leave(&[entry("two")]).expect("it is written");
        assert_eq!(keep(&kept, entry("four")).await, Ok(Some(Committed::Kept)));
        assert_eq!(found(folder.path()), [entry("two"), entry("four")]);
    }
}
