//! The embedded store: one host, one folder, nothing to install.
//!
//! One thread writes. It drains a bounded queue, judges each commit in order against the database and the accepted commits
//! before it, writes the group as one batch, syncs once, then answers all of it (`writer`, `group`). Readers never wait for
//! it: they read a snapshot (`reads`). Must not know what the values mean.
//!
//! **Invariant:** an answered commit is on disk, whole; an unanswered one is there whole or not at all.
//! **Invariant:** once a write failed, nothing is answered from memory: the store is `Unavailable` until it is reopened.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use parking_lot::Mutex;
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use tokio::sync::watch;

use crate::ports::causes::chain;
use crate::ports::clock::System;
use crate::ports::store::{Commit, Committed, DueEntry, Page, Store, StoreError, Versioned, Wakers, commit_bytes};
use clock::{Clock, WallClock};
use disk::{Disk, DiskError};
use writer::Queue;

mod clock;
mod disk;
mod group;
mod keys;
mod reads;
mod writer;

pub use disk::OpenError;

/// Commits that wait for the writer.
pub const COMMITS_QUEUED_MAX: usize = 4_096;
/// Bytes of read blocks kept in memory.
pub const CACHE_BYTES: u64 = 16 << 20;
/// When to come back to a full queue.
const RETRY_FULL_MS: u64 = 50;
/// When to come back to a store that has to be reopened.
const RETRY_BROKEN_MS: u64 = 5_000;
/// Entries that are read on the caller's thread; more are read on a blocking one.
const INLINE_ENTRIES_MAX: usize = 256;

/// How a store is opened.
pub struct Options {
    /// The machine's wall clock. The store's clock follows it, but never back.
    pub wall_clock: WallClock,
    /// Measures how long the wall clock has been behind.
    pub system: Arc<dyn System>,
    /// Commits that may wait, at least 1.
    pub commits_queued_max: usize,
    /// Bytes of read blocks kept in memory.
    pub cache_bytes: u64,
}

impl Options {
    /// Returns the usual limits with these clocks.
    #[must_use]
    pub fn new(wall_clock: impl Fn() -> TimeMs + Send + Sync + 'static, system: Arc<dyn System>) -> Self {
        Self { wall_clock: Arc::new(wall_clock), system, commits_queued_max: COMMITS_QUEUED_MAX, cache_bytes: CACHE_BYTES }
    }
}

/// The embedded store. Dropping it writes what waits and frees the folder.
pub struct EmbeddedStore {
    queue: Queue,
    core: Arc<Core>,
}

/// What the writer and the readers share.
struct Core {
    disk: Disk,
    epoch: u64,
    clock: Clock,
    wakers: Wakers,
    next_due: Mutex<Option<TimeMs>>,
    /// Where logs end that were asked for or written to. Behind what the disk says only while a group is not answered yet.
    heads: Mutex<HashMap<Option<ProjectId>, Cursor>>,
    health: Health,
}

/// Why the store answers no more, once it does not.
#[derive(Default)]
struct Health(OnceLock<String>);

impl Health {
    fn break_down(&self, why: String) {
        // The first failure is the cause of the others.
        let _ = self.0.set(why);
    }

    fn check(&self) -> Result<(), StoreError> {
        self.0.get().map_or(Ok(()), |why| Err(unavailable(RETRY_BROKEN_MS, why.clone())))
    }
}

fn unavailable(retry_after_ms: u64, why: String) -> StoreError {
    StoreError::Unavailable { retry_after_ms, why }
}

impl EmbeddedStore {
    /// Opens the store of a folder, which is made where there is none. Reads and writes files: not for an async thread.
    ///
    /// # Errors
    /// [`OpenError`]: in use, of a newer host, damaged, or refused by the operating system.
    pub fn open(folder: &Path, options: Options) -> Result<Self, OpenError> {
        let (disk, opened) = Disk::open(folder, options.cache_bytes)?;
        let core = Core {
            disk,
            epoch: opened.epoch,
            clock: Clock::new(options.wall_clock, options.system, opened.last.at),
            wakers: Wakers::default(),
            next_due: Mutex::new(None),
            heads: Mutex::default(),
            health: Health::default(),
        };
        let first = core.first_due(TimeMs(i64::MIN));
        *core.next_due.lock() = first.map_err(|error| OpenError::Damaged { path: folder.to_owned(), why: chain(&error) })?;
        let core = Arc::new(core);
        let queue = Queue::start(Arc::clone(&core), opened.last, options.commits_queued_max);
        Ok(Self { queue: queue.map_err(|source| OpenError::Io { path: folder.to_owned(), source })?, core })
    }

    /// Takes no more commits and returns when the ones that wait are answered. Reads go on; the folder is freed by dropping.
    pub async fn close(&self) {
        if let Some(thread) = self.queue.close() {
            // A writer that panicked has said so to whoever asks.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Reads, on the caller's thread where that is short.
    async fn read<T: Send + 'static>(
        &self,
        entries: usize,
        read: impl FnOnce(&Core) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.core.health.check()?;
        let failed = |error: DiskError| {
            let why = chain(&error);
            tracing::error!(error = %why, "the store failed to read");
            unavailable(RETRY_BROKEN_MS, why)
        };
        if entries <= INLINE_ENTRIES_MAX {
            return read(&self.core).map_err(failed);
        }
        let core = Arc::clone(&self.core);
        let done = tokio::task::spawn_blocking(move || read(&core)).await;
        done.map_err(|error| unavailable(RETRY_BROKEN_MS, error.to_string()))?.map_err(failed)
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        if let Some(thread) = self.queue.close() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let bytes = commit_bytes(&commit)?;
        self.core.health.check()?;
        let answered = self.queue.push(commit, bytes)?;
        answered.await.unwrap_or_else(|_| Err(unavailable(RETRY_BROKEN_MS, "the store's writer has ended".to_owned())))
    }

    async fn get(&self, project: Option<ProjectId>, key: &str) -> Result<Option<Versioned>, StoreError> {
        let key = key.to_owned();
        self.read(1, move |core| core.get(project, &key)).await
    }

    async fn range(&self, project: Option<ProjectId>, prefix: &str, from: &str, limit: usize) -> Result<Page, StoreError> {
        let (prefix, from) = (prefix.to_owned(), from.to_owned());
        self.read(limit, move |core| core.range(project, &prefix, &from, limit)).await
    }

    async fn answered(
        &self,
        project: Option<ProjectId>,
        principal: &str,
        operation: &str,
        key: &str,
        request_digest: &[u8; 32],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (call, digest) = ((principal.to_owned(), operation.to_owned(), key.to_owned()), *request_digest);
        self.read(1, move |core| core.answered(project, (&call.0, &call.1, &call.2), &digest)).await?
    }

    async fn due(&self, before: TimeMs, limit: usize) -> Result<Vec<DueEntry>, StoreError> {
        self.read(limit, move |core| core.due(before, limit)).await
    }

    async fn next_due(&self) -> Result<Option<TimeMs>, StoreError> {
        self.core.health.check()?;
        Ok(*self.core.next_due.lock())
    }

    async fn events(&self, project: Option<ProjectId>, after: Cursor, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(limit, move |core| core.events(project, after, limit)).await
    }

    async fn head(&self, project: Option<ProjectId>) -> Result<Cursor, StoreError> {
        self.core.health.check()?;
        if let Some(head) = self.core.heads.lock().get(&project) {
            return Ok(*head);
        }
        let head = self.read(1, move |core| core.head(project)).await?;
        // The writer may have been faster, and knows better.
        Ok(*self.core.heads.lock().entry(project).or_insert(head))
    }

    fn watch(&self, project: Option<ProjectId>) -> watch::Receiver<u64> {
        self.core.wakers.watch(project)
    }

    fn watch_due(&self) -> watch::Receiver<u64> {
        self.core.wakers.watch_due()
    }

    fn now(&self) -> TimeMs {
        self.core.clock.now()
    }

    fn epoch(&self) -> u64 {
        self.core.epoch
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.core.health.check()?;
        if !self.queue.is_open() {
            return Err(unavailable(RETRY_BROKEN_MS, "the store takes no more commits".to_owned()));
        }
        // The engine also fails in the background, sorting what was written into files; asking it may wait for a sync.
        self.read(usize::MAX, |core| Ok(core.disk.database.persist(fjall::PersistMode::Buffer)?)).await
    }
}
