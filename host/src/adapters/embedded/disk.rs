//! The store's folder: its lock, its database, and the mark that tells a lost tail.
//!
//! ```text
//! lock      held exclusively while a host uses the folder; the host's process id
//! db/       the database; made as `db.new` and renamed when whole, so that a half-made one is never taken for a store
//! answered  the number of the last answered commit, written without a sync after the sync of the commit itself
//! ```
//!
//! The engine drops whatever follows a damaged place of its journal, as it must drop a torn tail. `answered` tells the two
//! apart: a database behind it lost commits that were answered, and is refused.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, UserValue};
use pointsman_core::time::TimeMs;
use pointsman_core::value::ValueError;
use thiserror::Error;

use super::keys::{EPOCH_KEY, FORMAT, FORMAT_KEY, LAST_KEY, Last};
use crate::ports::causes::chain;
use crate::ports::store::Version;

/// The engine's table that holds everything.
const RECORDS: &str = "records";
/// Bytes of writes kept in memory before they are sorted into a file.
const MEMTABLE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of journal after which the engine writes out what holds back its oldest part. It allows no less.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// The epoch of a new store. It stays: this store answers only what is on disk, so it has no tail to lose.
const FIRST_EPOCH: u64 = 1;
/// The mode of the store's folder: its owner's alone.
const FOLDER_MODE: u32 = 0o700;
/// The mode of the store's files.
const FILE_MODE: u32 = 0o600;

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another host uses the folder. Stop it, or choose another folder.
    #[error("the store in {} is in use by another host{}", path.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The other host's process, where it said.
        pid: Option<u32>,
    },
    /// A newer host wrote it. Upgrade this one.
    #[error("the store in {} has format {found}, this host knows up to {known}: upgrade the host", path.display())]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// It cannot be read as it was written. Restore it from a backup.
    #[error("the store in {} is damaged: {why}; restore it from a backup", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What was met.
        why: String,
    },
    /// The operating system refused.
    #[error("the store in {} cannot be opened", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Its words.
        #[source]
        source: io::Error,
    },
}

/// Why the database did not answer.
#[derive(Debug, Error)]
pub(super) enum DiskError {
    /// The engine failed.
    #[error("the storage engine failed")]
    Engine(#[from] fjall::Error),
    /// A record has not the form it was written in.
    #[error("a stored {what} cannot be read")]
    Unreadable {
        /// Of what.
        what: &'static str,
    },
    /// A value has not.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// The open store. Fields are dropped in order: the lock goes last.
pub(super) struct Disk {
    /// Everything stored.
    pub(super) records: Keyspace,
    /// The database.
    pub(super) database: Database,
    answered: File,
    _lock: Lock,
}

/// What a store knew when it was opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    /// Its epoch.
    pub(super) epoch: u64,
    /// Its last commit.
    pub(super) last: Last,
}

impl Disk {
    /// Opens the store of a folder, makes both where there are none.
    pub(super) fn open(folder: &Path, cache_bytes: u64) -> Result<(Self, Opened), OpenError> {
        let io = |source| OpenError::Io { path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(io)?;
        let lock = lock(folder)?;
        let answered = file(&folder.join("answered")).map_err(io)?;
        let engine = |error| engine_error(folder, error);
        if !folder.join("db").try_exists().map_err(io)? {
            if answered_number(&answered) > 0 {
                return Err(damaged(folder, "the database is gone"));
            }
            create(folder, cache_bytes)?;
        }
        let (database, records) = guarded(folder, || {
            let database = database(&folder.join("db"), cache_bytes).map_err(engine)?;
            if !database.keyspace_exists(RECORDS) {
                return Err(damaged(folder, "its records are gone"));
            }
            let records = records(&database).map_err(engine)?;
            check_format(folder, records.get(FORMAT_KEY).map_err(engine)?.as_deref())?;
            Ok((database, records))
        })?;
        let disk = Self { records, database, answered, _lock: lock };
        let opened = disk.facts().map_err(|error| damaged(folder, &chain(&error)))?;
        let answered = answered_number(&disk.answered);
        if answered > opened.last.version {
            let why = format!("commit {answered} was answered, commit {} is the last that can be read", opened.last.version);
            return Err(damaged(folder, &why));
        }
        Ok((disk, opened))
    }

    /// Returns what stands under a key now: for the writer, which alone changes it.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<UserValue>, DiskError> {
        Ok(self.records.get(key)?)
    }

    /// Marks a commit as answered. Without a sync, and without an error: the mark only ever helps to find damage.
    pub(super) fn mark_answered(&self, version: Version) {
        let mark = [version.to_be_bytes(), (!version).to_be_bytes()].concat();
        if let Err(error) = self.answered.write_all_at(&mark, 0) {
            tracing::warn!(%error, version, "the store's mark of the last answered commit was not written");
        }
    }

    fn facts(&self) -> Result<Opened, DiskError> {
        let fact = |key: &[u8], what| self.get(key)?.ok_or(DiskError::Unreadable { what });
        let epoch = super::keys::number_of(&fact(&EPOCH_KEY, "epoch")?, "epoch")?;
        Ok(Opened { epoch, last: Last::of(&fact(&LAST_KEY, "number of the last commit")?)? })
    }
}

fn file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

/// The folder is ours. Unlocked in so many words: a process started meanwhile by another thread holds the open file until it
/// runs its own program, so closing alone would free the folder some time later.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the store's folder was not unlocked");
        }
    }
}

fn lock(folder: &Path) -> Result<Lock, OpenError> {
    let io = |source| OpenError::Io { path: folder.to_owned(), source };
    let mut lock = file(&folder.join("lock")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&lock).take(16).read_to_string(&mut pid);
            return Err(OpenError::Locked { path: folder.to_owned(), pid: pid.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(io)?;
    Ok(Lock(lock))
}

/// Returns the number of the last answered commit, 0 where no whole mark stands.
fn answered_number(mark: &File) -> Version {
    let mut bytes = [0; 16];
    if mark.read_exact_at(&mut bytes, 0).is_err() {
        return 0;
    }
    let number = u128::from_be_bytes(bytes);
    let (version, inverse) = ((number >> 64) as u64, number as u64);
    if version == !inverse { version } else { 0 }
}

fn database(path: &Path, cache_bytes: u64) -> fjall::Result<Database> {
    // One: with more, the first hands itself each compaction that the others are still busy with, again and again, and burns a core.
    Database::builder(path).cache_size(cache_bytes).max_journaling_size(JOURNAL_BYTES_MAX).worker_threads(1).open()
}

fn records(database: &Database) -> fjall::Result<Keyspace> {
    database.keyspace(RECORDS, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX))
}

/// Makes an empty database, whole or not at all.
fn create(folder: &Path, cache_bytes: u64) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: folder.to_owned(), source };
    let engine = |error| engine_error(folder, error);
    let new = folder.join("db.new");
    if new.try_exists().map_err(io)? {
        std::fs::remove_dir_all(&new).map_err(io)?;
    }
    guarded(folder, || {
        let database = database(&new, cache_bytes).map_err(engine)?;
        let records = records(&database).map_err(engine)?;
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&records, FORMAT_KEY, FORMAT.to_be_bytes());
        batch.insert(&records, EPOCH_KEY, FIRST_EPOCH.to_be_bytes());
        batch.insert(&records, LAST_KEY, Last { version: 0, at: TimeMs(0) }.record());
        batch.commit().map_err(engine)
    })?;
    std::fs::rename(&new, folder.join("db")).and_then(|()| File::open(folder)?.sync_all()).map_err(io)
}

/// Judges the format, before anything whose form it fixes is read.
fn check_format(folder: &Path, recorded: Option<&[u8]>) -> Result<(), OpenError> {
    match recorded.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes) {
        Some(FORMAT) => Ok(()),
        Some(found) if found > FORMAT => Err(OpenError::Newer { path: folder.to_owned(), found, known: FORMAT }),
        Some(_) | None => Err(damaged(folder, "its format is not recorded")),
    }
}

/// Runs engine code that takes the form of its files for granted: where it panics over them, they are damaged.
fn guarded<T>(folder: &Path, run: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(damaged(folder, "the storage engine gave up over it")))
}

fn damaged(folder: &Path, why: &str) -> OpenError {
    OpenError::Damaged { path: folder.to_owned(), why: why.to_owned() }
}

fn engine_error(folder: &Path, error: fjall::Error) -> OpenError {
    if matches!(error, fjall::Error::Locked) {
        return OpenError::Locked { path: folder.to_owned(), pid: None };
    }
    if let fjall::Error::Io(source) | fjall::Error::Storage(LsmError::Io(source)) = &error
        && !tells_damage(source.kind())
    {
        return OpenError::Io { path: folder.to_owned(), source: io::Error::new(source.kind(), source.to_string()) };
    }
    damaged(folder, &chain(&error))
}

fn tells_damage(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
}
