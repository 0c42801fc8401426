//! The store port: one atomic `commit`, a few reads, a log of events, a hint that wakes.
//!
//! Everything an answer depends on is in the commit that precedes it: state, idempotency record, due entries and
//! events stand or fall together.
//!
//! **Invariant:** when `commit` returns `Committed`, the write survives the loss of the process at any later point.

mod check;
mod wakers;

use async_trait::async_trait;
use pointsman_core::event::{Cursor, Event, NewEvent};
use pointsman_core::ids::{FencingToken, ProjectId};
use pointsman_core::time::TimeMs;
use thiserror::Error;
use tokio::sync::watch;

pub use self::check::bytes as commit_bytes;
pub use self::wakers::Wakers;

/// Entries of one answer, whatever the caller asks for.
pub const ENTRIES_MAX: usize = 10_000;
/// Bytes after which a page of a range ends, its last entry aside.
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// Returns what the events of the host's own log name as their project: the id of all zeros, which no project gets.
#[must_use]
pub fn host_log() -> ProjectId {
    ProjectId::from_bytes([0; 16])
}

/// The version of a stored value: the number of the commit that wrote it. Rises with every write of the key.
pub type Version = u64;

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// When it was written.
    pub version: Version,
    /// The stored form.
    pub bytes: Vec<u8>,
}

/// What a commit expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No value.
    Absent,
    /// The value of this version.
    Version(Version),
}

/// A held right that the commit rests on: the token stored under `key` must still be `token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Where the token stands, written by [`Commit::raise`].
    pub key: String,
    /// What the caller was granted.
    pub token: FencingToken,
}

/// Makes a repeated call answer what it answered the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Who calls.
    pub principal: String,
    /// What is called.
    pub operation: String,
    /// The caller's key.
    pub key: String,
    /// A digest of the request: the same key with another request is refused.
    pub request_digest: [u8; 32],
    /// The answer to keep.
    pub response: Vec<u8>,
}

/// Something that will be due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEntry {
    /// Whose.
    pub project: ProjectId,
    /// Unique in the project: a second entry of the same name moves the first.
    pub name: String,
    /// When.
    pub at: TimeMs,
}

/// A change of the due entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DueChange {
    /// Sets or moves an entry of the commit's project.
    Set {
        /// Its name.
        name: String,
        /// When it is due.
        at: TimeMs,
    },
    /// Removes an entry; none of that name is fine.
    Clear {
        /// Its name.
        name: String,
    },
}

/// What becomes of a commit while the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenAway {
    /// It is refused as `Unavailable`.
    #[default]
    Refuse,
    /// Where the adapter can, it is kept on this host's disk and done when the store is back. Only for what nobody else can write
    /// meanwhile: it removes nothing, raises no token, and expects the absence of something that is its alone.
    Keep,
}

/// Everything that happens at once. Keys are texts of at most [`KEY_BYTES_MAX`] bytes, unique within the project.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Whose; none for the host's own records (tokens, projects), which have a space of their own.
    pub project: Option<ProjectId>,
    /// Rights that must still be held.
    pub fences: Vec<Fence>,
    /// Values that must still be as they were read.
    pub expects: Vec<(String, Expect)>,
    /// The call's idempotency record.
    pub idempotency: Option<Idempotency>,
    /// Values to write.
    pub puts: Vec<(String, Vec<u8>)>,
    /// Values to remove; none there is fine.
    pub deletes: Vec<String>,
    /// Fencing tokens to write: the holder of any earlier one is refused from now on.
    pub raise: Vec<Fence>,
    /// Due entries to change.
    pub due: Vec<DueChange>,
    /// Events to append, in order.
    pub events: Vec<NewEvent>,
    /// Whether it may be done later.
    pub when_away: WhenAway,
}

impl Commit {
    /// Returns whether it only adds: it may come again at any time, and is refused where it came before.
    #[must_use]
    pub fn only_adds(&self) -> bool {
        let expects_nothing = |(_, expect): &(String, Expect)| *expect == Expect::Absent;
        self.fences.is_empty()
            && self.raise.is_empty()
            && self.deletes.is_empty()
            && !self.expects.is_empty()
            && self.expects.iter().all(expects_nothing)
    }
}

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 512;
/// Bytes of one commit, keys and values together.
pub const COMMIT_BYTES_MAX: usize = 16 << 20;

/// What became of a commit that was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// It is durable.
    Done {
        /// The version its values have now.
        version: Version,
        /// The place of its last event, or the log's end when it had none.
        cursor: Cursor,
        /// The store's time at the commit: the time of its events.
        at: TimeMs,
    },
    /// The same call was done before; this was its answer. Nothing changed.
    Replayed(Vec<u8>),
    /// The store is away: it is durable on this host's disk, and done when the store is back.
    Kept,
}

/// Why a commit changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// A value is not the one the caller read. Read again and decide again.
    #[error("`{key}` changed meanwhile")]
    Stale {
        /// Which.
        key: String,
    },
    /// A right was taken away.
    #[error("the right under `{key}` is no longer held")]
    Fenced {
        /// Which.
        key: String,
    },
    /// The idempotency key was used for another request.
    #[error("idempotency key `{key}` was used for another request")]
    KeyReused {
        /// Which.
        key: String,
    },
    /// Too large, or a key of a wrong form.
    #[error("the commit is refused: {why}")]
    Refused {
        /// What is wrong.
        why: String,
    },
    /// The store cannot answer now.
    #[error("the store is not available")]
    Unavailable {
        /// When to try again.
        retry_after_ms: u64,
        /// What happened, for the log.
        why: String,
    },
}

/// One page of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values, in the order of the keys.
    pub entries: Vec<(String, Versioned)>,
    /// Where the next page starts; none: this was the last.
    pub next: Option<String>,
}

/// The store. One contract suite runs over every implementation.
#[async_trait]
pub trait Store: Send + Sync {
    /// Judges and applies a commit, whole or not at all. Commits of one project are judged one after another; a commit
    /// sees all earlier ones.
    ///
    /// The order of judgement: idempotency record, fences, expects.
    ///
    /// # Errors
    /// [`StoreError`]; the state is as before, except that after `Unavailable` the commit may still have happened:
    /// repeat it with its idempotency key. A commit of [`WhenAway::Keep`] may be kept instead.
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;

    /// Returns the value of a key.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn get(&self, project: Option<ProjectId>, key: &str) -> Result<Option<Versioned>, StoreError>;

    /// Returns the entries whose key starts with `prefix`, from the key `from` on (inclusive, empty: the first), at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn range(&self, project: Option<ProjectId>, prefix: &str, from: &str, limit: usize) -> Result<Page, StoreError>;

    /// Returns the stored answer of an earlier call, so that a repeated call can be answered before it is decided again.
    ///
    /// # Errors
    /// `KeyReused` when the digest differs, `Unavailable`.
    async fn answered(
        &self,
        project: Option<ProjectId>,
        principal: &str,
        operation: &str,
        key: &str,
        request_digest: &[u8; 32],
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns entries of all projects due at or before `before`, the earliest first, at most `limit`. They stay until a
    /// commit clears or moves them.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn due(&self, before: TimeMs, limit: usize) -> Result<Vec<DueEntry>, StoreError>;

    /// Returns when the next entry is due.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn next_due(&self) -> Result<Option<TimeMs>, StoreError>;

    /// Returns the events of a project's log after a cursor, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn events(&self, project: Option<ProjectId>, after: Cursor, limit: usize) -> Result<Vec<Event>, StoreError>;

    /// Returns the end of a project's log.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn head(&self, project: Option<ProjectId>) -> Result<Cursor, StoreError>;

    /// Returns a receiver that changes after each commit with events. Only a hint: read on from your cursor.
    fn watch(&self, project: Option<ProjectId>) -> watch::Receiver<u64>;

    /// Returns a receiver that changes when an earlier due entry may have come.
    fn watch_due(&self) -> watch::Receiver<u64>;

    /// Returns the store's time, in whole milliseconds; never goes back within one epoch.
    fn now(&self) -> TimeMs;

    /// Returns the store's epoch.
    fn epoch(&self) -> u64;

    /// Returns whether the store has been away for some time: reads fail at once, and what was known before may be used where it is said.
    fn is_away(&self) -> bool {
        false
    }

    /// Says whether the store answers.
    ///
    /// # Errors
    /// `Unavailable`, with the reason.
    async fn ready(&self) -> Result<(), StoreError>;
}
