//! The store on Redis, for many replicas: what one commits every other sees.
//!
//! A commit is one script (`redis/commit.lua`): Redis runs one after another, so each is judged and applied whole, after all
//! before it. Reads are scripts or single commands. Must not know what the values mean.
//!
//! ```text
//! address ─► servers      who serves which space now: one server, the Sentinels' master, a cluster's nodes
//!            recovery     before they are used: what they lost is handed in again, a new epoch begins
//!            lane         commits to one server: in groups, replicated, journalled, answered
//!            journal      what this host committed lately, on its own disk
//!            kept         what was accepted while Redis was away, until it is done
//! ```
//!
//! **Invariants:** whatever Redis does not answer in time may have happened: the caller is told `Unavailable` and repeats by its
//! idempotency key. What was answered survives the loss of Redis' memory and of its last writes as long as this host's disk does.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::ProjectId;
use pointsman_core::limits::IDEMPOTENCY_KEPT_MS;
use pointsman_core::time::TimeMs;
use pointsman_core::value;
use redis::{ErrorKind, RedisError, Script, Value};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod address;
mod clock;
mod entry;
mod journal;
mod kept;
mod keys;
mod lane;
mod recovery;
mod servers;

pub use self::address::{Address, AddressError};
use self::clock::Clock;
use self::entry::{Entry, read};
use self::journal::Journal;
use self::kept::Kept;
use self::keys::{HOST, Keys};
use self::lane::Lane;
use self::recovery::{SettleError, settle};
use self::servers::{Finder, Master, Servers};
use crate::ports::causes::chain;
use crate::ports::clock::System;
use crate::ports::metrics::{Family, Measured, Sample, Value as Figure};
use crate::ports::store::{
    Commit, Committed, DueEntry, ENTRIES_MAX, PAGE_BYTES_MAX, Page, Store, StoreError, Versioned, Wakers, WhenAway, commit_bytes,
};

/// The version of the form in which everything stands.
const FORMAT: u32 = 1;
/// Due times beyond this, to either side, are not told apart: scores are of 53 bits.
const DUE_MS_MAX: i64 = 1 << 53;
/// Milliseconds between two looks at the servers.
const LOOK_MS: u64 = 1_000;
/// When to come back to a Redis that does not answer.
const RETRY_MS: u64 = 500;
/// Milliseconds that a call waits for a connection that is made anew, before it is refused.
const GRACE_MS: u64 = 1_000;
/// Milliseconds between two tries to connect: the first, and the most.
const CONNECT_AGAIN_MS: (u64, u64) = (20, 1_000);
/// Milliseconds between two tries to do what was kept.
const HAND_IN_AGAIN_MS: u64 = 2_000;
/// Times that what may be kept is tried with a Redis that is there.
const TRIES_BEFORE_KEPT: usize = 3;
/// Looks after which hosts that showed no life meanwhile are forgotten.
const SILENT_LOOKS: u64 = 60;

/// How a store is opened.
#[derive(Clone)]
pub struct RedisOptions {
    /// Where it is.
    pub address: Address,
    /// User, where the address names none.
    pub user: Option<String>,
    /// Password, where the address names none.
    pub password: Option<String>,
    /// Password of the Sentinels.
    pub sentinel_password: Option<String>,
    /// The certificate that servers are signed by (PEM); none: the system's own.
    pub root_certificate: Option<Vec<u8>>,
    /// What all keys begin with.
    pub prefix: String,
    /// Where this host keeps what it committed lately; none: what Redis loses is lost.
    pub journal: Option<PathBuf>,
    /// Measures time between two looks at the clock of Redis.
    pub system: Arc<dyn System>,
    /// Time for a connection to stand.
    pub connect_ms: u64,
    /// Time for an answer.
    pub answer_ms: u64,
    /// Time for other hosts to hand in what Redis lost.
    pub settle_ms: u64,
}

impl RedisOptions {
    /// Returns the usual limits.
    #[must_use]
    pub fn new(address: Address, system: Arc<dyn System>) -> Self {
        Self {
            address,
            user: None,
            password: None,
            sentinel_password: None,
            root_certificate: None,
            prefix: "pointsman".to_owned(),
            journal: None,
            system,
            connect_ms: 2_000,
            answer_ms: 5_000,
            settle_ms: 5_000,
        }
    }
}

/// Why there is no store.
#[derive(Debug, Error)]
pub enum RedisOpenError {
    /// Nobody answers there, or not as Redis does.
    #[error("Redis does not answer at {address}")]
    Connect {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: RedisError,
    },
    /// What is there was written by a newer host.
    #[error("what stands in Redis has the format {found}, and this host knows {FORMAT}: use a newer host")]
    Newer {
        /// Which.
        found: u32,
    },
    /// What is there is not what this host wrote.
    #[error(
        "Redis at {address} is empty, and this host has written to it before: see that it is the right one, and that it has its data; \
         to begin anew, remove {}",
        folder.display()
    )]
    Empty {
        /// Where.
        address: Address,
        /// The journal that says so.
        folder: PathBuf,
    },
    /// The journal's folder.
    #[error("the journal beside Redis cannot be opened in {}", folder.display())]
    Journal {
        /// Where.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What all parts of a store share.
struct Core {
    options: RedisOptions,
    keys: Keys,
    /// This host's name among the others.
    host: String,
    journal: Option<Journal>,
    kept: Option<Kept>,
    clock: Clock,
    commit: Script,
    settle: Script,
    range: Script,
    finder: Finder,
    wakers: Arc<Wakers>,
    /// Spaces that are known to be noted in Redis.
    spaces: Mutex<HashSet<String>>,
    epoch: AtomicU64,
    connected: AtomicU64,
}

impl Core {
    /// Returns the last epoch that this host joined; 0: none.
    fn known_epoch(&self) -> u64 {
        self.journal.as_ref().map_or(0, Journal::epoch).max(self.epoch.load(Ordering::Acquire))
    }

    async fn load_scripts(&self, master: &Master) -> Result<(), RedisError> {
        let mut load = redis::pipe();
        for code in [COMMIT, SETTLE, RANGE] {
            load.cmd("SCRIPT").arg("LOAD").arg(code).ignore();
        }
        master.ask_all(&load).await
    }

    /// Shows the other hosts that this one is there.
    async fn show_life(&self, home: &Master) -> Result<(), RedisError> {
        let mut life = redis::cmd("ZADD");
        life.arg(self.keys.members()).arg(self.clock.now().0).arg(&self.host);
        home.ask::<i64>(&life).await.map(|_| ())
    }

    /// Notes a space before anything is written to it, so that what is due there is found.
    async fn note_space(&self, servers: &Servers, space: &str) -> Result<(), RedisError> {
        if self.spaces.lock().contains(space) {
            return Ok(());
        }
        servers.of(HOST)?.ask::<i64>(redis::cmd("SADD").arg(self.keys.spaces()).arg(space)).await?;
        self.spaces.lock().insert(space.to_owned());
        Ok(())
    }

    /// Notes all known spaces once more: what noted them may be lost.
    async fn note_spaces_again(&self, servers: &Servers) -> Result<(), RedisError> {
        let known: Vec<String> = self.spaces.lock().iter().cloned().collect();
        if known.is_empty() {
            return Ok(());
        }
        servers.of(HOST)?.ask::<i64>(redis::cmd("SADD").arg(self.keys.spaces()).arg(known)).await.map(|_| ())
    }

    /// Finds the servers, brings them up to what they should know, and opens the ways to them.
    async fn connect(self: &Arc<Self>) -> Result<Arc<Up>, SettleError> {
        let servers = self.finder.find().await?;
        for master in servers.all() {
            self.load_scripts(master).await?;
        }
        let epoch = settle(self, &servers).await?;
        self.note_spaces_again(&servers).await?;
        let lanes = servers.all().iter().map(|master| Lane::open(Arc::clone(self), Arc::clone(master), epoch)).collect();
        self.epoch.store(epoch, Ordering::Release);
        self.connected.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Up { lineage: servers.lineage(), servers, lanes, epoch }))
    }

    /// Looks at clock, replicas and members.
    async fn look(&self, up: &Up, looks: u64) -> Result<(), RedisError> {
        let home = up.servers.of(HOST)?;
        let mut ask = redis::pipe();
        ask.cmd("TIME").cmd("HGET").arg(self.keys.store()).arg("lineage");
        let (time, lineage): ((i64, i64), String) = home.ask_all(&ask).await?;
        self.clock.look(time_ms(time));
        if lineage != up.lineage {
            let error = RedisError::from((ErrorKind::Client, "other hosts begin a new epoch"));
            home.falls_out(&error);
            return Err(error);
        }
        self.show_life(home).await?;
        for master in up.servers.all() {
            master.look_at_replicas(&self.finder).await?;
        }
        if looks.is_multiple_of(SILENT_LOOKS) {
            let silent = self.clock.now().0.saturating_sub(i64::try_from(SILENT_LOOKS * LOOK_MS).unwrap_or(i64::MAX));
            home.ask::<i64>(redis::cmd("ZREMRANGEBYSCORE").arg(self.keys.members()).arg("-inf").arg(format!("({silent}"))).await?;
        }
        Ok(())
    }
}

/// Redis, as it can be used now.
struct Up {
    servers: Servers,
    /// One a server, in their order.
    lanes: Vec<Lane>,
    epoch: u64,
    lineage: String,
}

impl Up {
    fn lane(&self, space: &str) -> Result<&Lane, RedisError> {
        let master = self.servers.of(space)?;
        let at = self.servers.all().iter().position(|known| Arc::ptr_eq(known, master)).unwrap_or(0);
        Ok(&self.lanes[at])
    }

    fn is_well(&self) -> bool {
        !self.servers.fell_out.is_cancelled()
    }
}

/// Whether Redis can be used.
#[derive(Clone)]
enum State {
    Up(Arc<Up>),
    Down { why: String, since: Instant },
}

impl State {
    fn up(&self) -> Option<Arc<Up>> {
        match self {
            Self::Up(up) if up.is_well() => Some(Arc::clone(up)),
            Self::Up(_) | Self::Down { .. } => None,
        }
    }
}

/// The store.
pub struct RedisStore {
    core: Arc<Core>,
    state: watch::Receiver<State>,
    stop: CancellationToken,
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

const COMMIT: &str = include_str!("redis/commit.lua");
const SETTLE: &str = include_str!("redis/settle.lua");
const RANGE: &str = include_str!("redis/range.lua");

fn unavailable(error: &RedisError) -> StoreError {
    tracing::debug!(%error, "Redis did not answer as it should");
    StoreError::Unavailable { retry_after_ms: RETRY_MS, why: error.to_string() }
}

fn unavailable_because(why: &str) -> StoreError {
    StoreError::Unavailable { retry_after_ms: RETRY_MS, why: why.to_owned() }
}

fn unreadable(what: &str) -> StoreError {
    tracing::error!(what, "what stands in Redis cannot be read");
    unavailable_because(&format!("{what} in Redis cannot be read"))
}

fn time_ms((seconds, micros): (i64, i64)) -> TimeMs {
    TimeMs(seconds.saturating_mul(1_000).saturating_add(micros / 1_000))
}

/// Reads; where the connection turns out to be lost, once more over the next one.
macro_rules! reading {
    ($store:ident, |$up:ident| $read:block) => {{
        let $up = $store.up().await?;
        match async { $read }.await {
            Err(StoreError::Unavailable { .. }) if !$up.is_well() => {
                let $up = $store.up().await?;
                async { $read }.await
            }
            found => found,
        }
    }};
}

impl RedisStore {
    /// Opens the store that stands in a Redis, which is begun where there is none.
    ///
    /// # Errors
    /// [`RedisOpenError`].
    pub async fn open(options: &RedisOptions) -> Result<Self, RedisOpenError> {
        let mut random = [0; 8];
        options.system.random(&mut random);
        let new_name = data_encoding::HEXLOWER.encode(&random);
        let journal = match &options.journal {
            Some(folder) => {
                let failed = |source| RedisOpenError::Journal { folder: folder.clone(), source };
                Some(Journal::open(folder, &new_name).map_err(failed)?)
            }
            None => None,
        };
        let kept = match &options.journal {
            Some(folder) => Some(Kept::open(folder).map_err(|source| RedisOpenError::Journal { folder: folder.clone(), source })?),
            None => None,
        };
        let (keys, wakers) = (Keys::new(&options.prefix), Arc::new(Wakers::default()));
        let core = Arc::new(Core {
            host: journal.as_ref().map_or(new_name, |journal| journal.host().to_owned()),
            journal,
            kept,
            clock: Clock::new(Arc::clone(&options.system), TimeMs(0)),
            commit: Script::new(COMMIT),
            settle: Script::new(SETTLE),
            range: Script::new(RANGE),
            finder: Finder::new(options.clone(), keys.channel(), Arc::clone(&wakers)),
            options: options.clone(),
            keys,
            wakers,
            spaces: Mutex::default(),
            epoch: AtomicU64::new(0),
            connected: AtomicU64::new(0),
        });
        let up = core.connect().await.map_err(|error| match error {
            SettleError::Redis(source) => RedisOpenError::Connect { address: options.address.clone(), source },
            SettleError::Newer(found) => RedisOpenError::Newer { found },
            SettleError::Empty => {
                RedisOpenError::Empty { address: options.address.clone(), folder: options.journal.clone().unwrap_or_default() }
            }
            SettleError::Journal(source) => RedisOpenError::Journal { folder: options.journal.clone().unwrap_or_default(), source },
        })?;
        let (state, seen) = watch::channel(State::Up(Arc::clone(&up)));
        let stop = CancellationToken::new();
        tokio::spawn(keep(Arc::clone(&core), up, state, stop.clone()));
        Ok(Self { core, state: seen, stop })
    }

    /// Returns this host's name among those on the same Redis; with a journal it keeps it over restarts.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.core.host
    }

    /// Returns how many commits wait until Redis is back.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.core.kept.as_ref().map_or(0, |kept| kept.counts()[0])
    }

    /// Leaves the other hosts: none waits for what this one may have when Redis loses something.
    pub async fn close(&self) {
        let up = self.state.borrow().up();
        if let Some(up) = up
            && let Ok(home) = up.servers.of(HOST)
        {
            let mut leave = redis::pipe();
            leave.cmd("ZREM").arg(self.core.keys.members()).arg(&self.core.host).ignore();
            leave.cmd("HDEL").arg(self.core.keys.reported()).arg(&self.core.host).ignore();
            // Without an answer the others wait a little longer, once.
            let _ = home.ask_all::<()>(&leave).await;
        }
        self.stop.cancel();
    }

    /// Returns Redis, as soon as it can be used.
    async fn up(&self) -> Result<Arc<Up>, StoreError> {
        if let Some(up) = self.state.borrow().up() {
            return Ok(up);
        }
        let mut state = self.state.clone();
        loop {
            let came = tokio::time::timeout(self.grace(), state.wait_for(|state| state.up().is_some())).await;
            match came {
                Ok(Ok(state)) => return state.up().ok_or_else(|| unavailable_because("Redis fell out again")),
                Ok(Err(_)) => return Err(unavailable_because("the store is closed")),
                Err(_) => match &*self.state.borrow() {
                    State::Down { why, .. } if self.grace().is_zero() => return Err(unavailable_because(why)),
                    // That it is away was found out meanwhile: from then on the grace counts.
                    State::Down { .. } | State::Up(_) => {}
                },
            }
        }
    }

    /// Returns how long a call waits for Redis: once it has been away for that long, nobody waits for it.
    fn grace(&self) -> Duration {
        let away = match &*self.state.borrow() {
            State::Up(_) => Duration::ZERO,
            State::Down { since, .. } => self.core.options.system.instant().saturating_duration_since(*since),
        };
        Duration::from_millis(GRACE_MS).saturating_sub(away)
    }

    /// Does a commit that expects to be done now.
    async fn commit_now(&self, entry: Entry) -> Result<Committed, StoreError> {
        let up = self.up().await?;
        self.core.note_space(&up.servers, &entry.space).await.map_err(|error| unavailable(&error))?;
        let lane = up.lane(&entry.space).map_err(|error| unavailable(&error))?;
        lane.commit(entry).await
    }

    /// Reads by a script.
    async fn page(&self, up: &Up, space: &str, first: &[u8], end: &[u8], limit: usize) -> Result<Vec<Value>, StoreError> {
        let master = up.servers.of(space).map_err(|error| unavailable(&error))?;
        let mut invocation = self.core.range.prepare_invoke();
        let keys = &self.core.keys;
        invocation.key(keys.names(space)).key(keys.values(space)).key(keys.versions(space));
        invocation.arg(first).arg(end).arg(limit.min(ENTRIES_MAX)).arg(PAGE_BYTES_MAX);
        let answer = invocation.invoke_async(&mut master.connection()).await;
        answer.map_err(|error| {
            master.note(&error);
            unavailable(&error)
        })
    }

    /// Returns the number in a log behind which events are read for a cursor: of what was lost of its epoch, none.
    async fn read_after(&self, up: &Up, space: &str, after: Cursor) -> Result<u64, StoreError> {
        if after.epoch >= up.epoch {
            return Ok(after.seq);
        }
        let master = up.servers.of(space).map_err(|error| unavailable(&error))?;
        let facts: Vec<(String, String)> =
            master.ask(redis::cmd("HGETALL").arg(self.core.keys.facts(space))).await.map_err(|error| unavailable(&error))?;
        let mut ends = Vec::new();
        for (field, number) in &facts {
            let epoch = match field.strip_prefix("epoch:") {
                Some(epoch) => epoch.parse().map_err(|_| unreadable("an epoch"))?,
                None if field == "seq" => u64::MAX,
                None => continue,
            };
            if epoch > after.epoch {
                ends.push(number.parse::<u64>().map_err(|_| unreadable("the end of an epoch"))?);
            }
        }
        Ok(ends.into_iter().fold(after.seq, u64::min))
    }
}

/// Keeps Redis usable until `stop`: looks after it, and connects again when a server fell out.
async fn keep(core: Arc<Core>, first: Arc<Up>, state: watch::Sender<State>, stop: CancellationToken) {
    let mut up = first;
    loop {
        tokio::spawn(hand_in_kept(Arc::clone(&core), Arc::clone(&up)));
        let mut looks = 0;
        let mut ticks = tokio::time::interval(Duration::from_millis(LOOK_MS));
        ticks.tick().await;
        while up.is_well() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = up.servers.fell_out.cancelled() => {}
                _ = ticks.tick() => {
                    looks += 1;
                    if let Err(error) = core.look(&up, looks).await {
                        up.servers.fell_out.cancel();
                        tracing::warn!(%error, "Redis does not answer as it should");
                    }
                }
            }
        }
        let since = core.options.system.instant();
        state.send_replace(State::Down { why: "the connection to Redis was lost".to_owned(), since });
        for lane in &up.lanes {
            lane.ended().await;
        }
        let (mut pause_ms, pause_ms_max) = CONNECT_AGAIN_MS;
        up = loop {
            let connected = tokio::select! {
                () = stop.cancelled() => return,
                connected = core.connect() => connected,
            };
            match connected {
                Ok(up) => break up,
                Err(error) => {
                    let why = chain(&error);
                    tracing::warn!(why, "Redis cannot be used");
                    state.send_replace(State::Down { why, since });
                }
            }
            let mut random = [0];
            core.options.system.random(&mut random);
            let jitter_ms = pause_ms * u64::from(random[0]) / 512;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(pause_ms - jitter_ms)) => {}
            }
            pause_ms = (pause_ms * 2).min(pause_ms_max);
        };
        state.send_replace(State::Up(Arc::clone(&up)));
        // What happened while nobody listened is not known.
        core.wakers.wake_all();
        tracing::info!(epoch = up.epoch, "Redis can be used again");
    }
}

/// Does what was accepted while Redis was away, and does not give up while Redis is there.
async fn hand_in_kept(core: Arc<Core>, up: Arc<Up>) {
    let Some(kept) = &core.kept else { return };
    while let Err(error) = Box::pin(kept.hand_in(&core, &up)).await {
        tracing::warn!(error = chain(&error), "what was accepted while Redis was away waits further on");
        tokio::select! {
            () = up.servers.fell_out.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(HAND_IN_AGAIN_MS)) => {}
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        commit_bytes(&commit)?;
        let entry = Entry::of(&commit, &self.core.keys);
        let kept = self.core.kept.as_ref().filter(|_| commit.when_away == WhenAway::Keep && entry.only_adds);
        let Some(kept) = kept else { return self.commit_now(entry).await };
        for _ in 0..TRIES_BEFORE_KEPT {
            match self.commit_now(entry.clone()).await {
                Err(StoreError::Unavailable { .. }) if self.up().await.is_err() => {}
                Err(StoreError::Unavailable { .. }) => continue,
                done => return done,
            }
            if let Some(accepted) = kept.keep(entry.clone(), || self.state.borrow().up().is_some()).await? {
                return Ok(accepted);
            }
        }
        Err(unavailable_because("Redis comes and goes, or refuses what is new"))
    }

    async fn get(&self, project: Option<ProjectId>, key: &str) -> Result<Option<Versioned>, StoreError> {
        let space = keys::space(project);
        let mut both = redis::pipe();
        both.atomic().hget(self.core.keys.versions(&space), key).hget(self.core.keys.values(&space), key);
        let found: (Option<u64>, Option<Vec<u8>>) = reading!(self, |up| {
            let master = up.servers.of(&space).map_err(|error| unavailable(&error))?;
            master.ask_all(&both).await.map_err(|error| unavailable(&error))
        })?;
        match found {
            (Some(version), Some(bytes)) => Ok(Some(Versioned { version, bytes })),
            (None, None) => Ok(None),
            (Some(_), None) | (None, Some(_)) => Err(unreadable("a value")),
        }
    }

    async fn range(&self, project: Option<ProjectId>, prefix: &str, from: &str, limit: usize) -> Result<Page, StoreError> {
        let Some((first, end)) = keys::names_between(prefix, from) else { return Ok(Page::default()) };
        let space = keys::space(project);
        let parts = reading!(self, |up| { self.page(&up, &space, &first, &end, limit).await });
        let mut parts = parts?.into_iter();
        let wrong = || unreadable("a range");
        let next: String = parts.next().and_then(read).ok_or_else(wrong)?;
        let mut page = Page { next: (!next.is_empty()).then_some(next), ..Page::default() };
        while let Some(name) = parts.next() {
            let entry = (read(name), parts.next().and_then(read), parts.next().and_then(read));
            let (Some(name), Some(version), Some(bytes)) = entry else { return Err(wrong()) };
            page.entries.push((name, Versioned { version, bytes }));
        }
        Ok(page)
    }

    async fn answered(
        &self,
        project: Option<ProjectId>,
        principal: &str,
        operation: &str,
        key: &str,
        request_digest: &[u8; 32],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let space = keys::space(project);
        let Some(place) = self.core.keys.call(&space, principal, operation, key) else { return Ok(None) };
        let mut both = redis::pipe();
        both.get(&place).hget(self.core.keys.facts(&space), "undone");
        let record: Option<Vec<u8>> = reading!(self, |up| {
            let master = up.servers.of(&space).map_err(|error| unavailable(&error))?;
            let (record, undone): (Option<Vec<u8>>, Option<String>) = master.ask_all(&both).await.map_err(|error| unavailable(&error))?;
            let record = record.filter(|record| !entry::is_undone(record, undone.as_deref().unwrap_or_default()));
            if record.is_some() {
                // Whoever did it may have had no answer, because no replica had it yet.
                master.replicate(redis::cmd("PEXPIRE").arg(&place).arg(IDEMPOTENCY_KEPT_MS)).await.map_err(|error| unavailable(&error))?;
            }
            Ok(record)
        })?;
        let Some(record) = record else { return Ok(None) };
        let (head, response) = record.split_at_checked(entry::RECORD_HEAD).ok_or_else(|| unreadable("an idempotency record"))?;
        if head.starts_with(request_digest) { Ok(Some(response.to_vec())) } else { Err(StoreError::KeyReused { key: key.to_owned() }) }
    }

    async fn due(&self, before: TimeMs, limit: usize) -> Result<Vec<DueEntry>, StoreError> {
        let limit = limit.min(ENTRIES_MAX);
        let before = before.0.clamp(-DUE_MS_MAX, DUE_MS_MAX);
        let asked = |command: &mut redis::Pipeline, key: String| {
            command.cmd("ZRANGEBYSCORE").arg(key).arg("-inf").arg(before).arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit);
        };
        let mut due = self.due_of_all(asked).await?;
        due.sort_by(|a, b| (a.at, a.project, &a.name).cmp(&(b.at, b.project, &b.name)));
        due.truncate(limit);
        Ok(due)
    }

    async fn next_due(&self) -> Result<Option<TimeMs>, StoreError> {
        let asked = |command: &mut redis::Pipeline, key: String| {
            command.cmd("ZRANGE").arg(key).arg(0).arg(0).arg("WITHSCORES");
        };
        Ok(self.due_of_all(asked).await?.into_iter().map(|entry| entry.at).min())
    }

    async fn events(&self, project: Option<ProjectId>, after: Cursor, limit: usize) -> Result<Vec<Event>, StoreError> {
        let space = keys::space(project);
        let found: Vec<(String, Vec<Vec<u8>>)> = reading!(self, |up| {
            let after = self.read_after(&up, &space, after).await?;
            let Some(first) = after.checked_add(1).filter(|_| limit > 0) else { return Ok(Vec::new()) };
            let mut command = redis::cmd("XRANGE");
            command.arg(self.core.keys.events(&space)).arg(format!("{first}-0")).arg("+").arg("COUNT").arg(limit.min(ENTRIES_MAX));
            let master = up.servers.of(&space).map_err(|error| unavailable(&error))?;
            master.ask(&command).await.map_err(|error| unavailable(&error))
        })?;
        found.iter().map(|(id, fields)| event(id, fields).ok_or_else(|| unreadable("an event"))).collect()
    }

    async fn head(&self, project: Option<ProjectId>) -> Result<Cursor, StoreError> {
        let space = keys::space(project);
        reading!(self, |up| {
            let master = up.servers.of(&space).map_err(|error| unavailable(&error))?;
            let facts = self.core.keys.facts(&space);
            let seq: Option<u64> = master.ask(redis::cmd("HGET").arg(facts).arg("seq")).await.map_err(|error| unavailable(&error))?;
            Ok(Cursor { epoch: up.epoch, seq: seq.unwrap_or(0) })
        })
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
        self.core.epoch.load(Ordering::Acquire)
    }

    fn is_away(&self) -> bool {
        self.grace().is_zero()
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let up = self.up().await?;
        for master in up.servers.all() {
            master.ask::<String>(&redis::cmd("PING")).await.map_err(|error| unavailable(&error))?;
        }
        Ok(())
    }
}

impl RedisStore {
    /// Asks for the due entries of all spaces.
    async fn due_of_all(&self, asked: impl Fn(&mut redis::Pipeline, String)) -> Result<Vec<DueEntry>, StoreError> {
        let up = self.up().await?;
        let failed = |error| unavailable(&error);
        let home = up.servers.of(HOST).map_err(failed)?;
        let spaces: Vec<String> = home.ask(redis::cmd("SMEMBERS").arg(self.core.keys.spaces())).await.map_err(failed)?;
        let mut due = Vec::new();
        for master in up.servers.all() {
            let here = |space: &String| up.servers.of(space).is_ok_and(|of| Arc::ptr_eq(of, master));
            let here: Vec<(&String, Option<ProjectId>)> =
                spaces.iter().filter(|space| here(space)).filter_map(|space| Some((space, keys::project(space)?))).collect();
            if here.is_empty() {
                continue;
            }
            let mut pipeline = redis::pipe();
            here.iter().for_each(|(space, _)| asked(&mut pipeline, self.core.keys.due(space)));
            let found: Vec<Vec<(String, f64)>> = master.ask_all(&pipeline).await.map_err(failed)?;
            for ((_, project), entries) in here.iter().zip(found) {
                let Some(project) = project else { continue };
                due.extend(entries.into_iter().map(|(name, score)| DueEntry { project: *project, name, at: whole_ms(score) }));
            }
        }
        Ok(due)
    }
}

impl Measured for RedisStore {
    fn families(&self) -> Vec<Family> {
        let family = |name, help, value| Family { name, help, samples: vec![Sample { labels: Vec::new(), value }] };
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
        let gauge = |number: u64| Figure::Gauge(number as f64);
        let is_up = u64::from(self.state.borrow().up().is_some());
        let [waiting, accepted] = self.core.kept.as_ref().map_or([0, 0], Kept::counts);
        let connected = Figure::Counter(self.core.connected.load(Ordering::Relaxed));
        vec![
            family("pointsman_redis_up", "Whether Redis can be used.", gauge(is_up)),
            family("pointsman_redis_epoch", "The epoch of the store: it rises when Redis may have lost something.", gauge(self.epoch())),
            family("pointsman_redis_kept", "Commits that were accepted while Redis was away, and wait for it.", gauge(waiting)),
            family("pointsman_redis_kept_total", "Commits that were accepted while Redis was away.", Figure::Counter(accepted)),
            family("pointsman_redis_connections_total", "Times that the servers of Redis were found and connected.", connected),
        ]
    }
}

/// Returns the time of a score; what lies beyond the bounds is the first or the last time there is.
#[expect(clippy::cast_possible_truncation, reason = "scores are whole numbers of at most 53 bits")]
fn whole_ms(score: f64) -> TimeMs {
    TimeMs(match score as i64 {
        DUE_MS_MAX.. => i64::MAX,
        ms if ms <= -DUE_MS_MAX => i64::MIN,
        ms => ms,
    })
}

/// Returns an event of the stream: its place and time are the stream's.
fn event(id: &str, fields: &[Vec<u8>]) -> Option<Event> {
    let field = |name: &[u8]| fields.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_slice());
    let number = |name: &[u8]| std::str::from_utf8(field(name)?).ok();
    let cursor = Cursor { epoch: number(b"p")?.parse().ok()?, seq: id.split_once('-')?.0.parse().ok()? };
    let event: Event = value::decode(field(b"e")?).ok()?;
    Some(Event { cursor, at: TimeMs(number(b"t")?.parse().ok()?), ..event })
}
