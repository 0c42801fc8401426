//! The store on Redis, for many replicas: what one commits every other sees.
//!
//! A commit is one script (`redis/commit.lua`): Redis runs one after another, so each is judged and applied whole, after all
//! before it. Reads are scripts or single commands. One connection carries all of it, many requests at once; pub/sub on it carries
//! the hints. Must not know what the values mean.
//!
//! **Invariant:** whatever Redis does not answer in time may have happened: the caller is told `Unavailable` and repeats by its
//! idempotency key.
//!
//! As durable as Redis is told to be: `appendonly yes` with `appendfsync always` is what the port promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::ProjectId;
use pointsman_core::limits::IDEMPOTENCY_KEPT_MS;
use pointsman_core::time::TimeMs;
use pointsman_core::value;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError, Script, Value, from_redis_value};
use thiserror::Error;
use tokio::sync::watch;

mod clock;
mod keys;

use self::clock::Clock;
use self::keys::Keys;
use crate::ports::clock::System;
use crate::ports::store::{
    Commit, Committed, DueChange, DueEntry, ENTRIES_MAX, Expect, Fence, PAGE_BYTES_MAX, Page, Store, StoreError, Versioned, Wakers,
    commit_bytes, host_log,
};

/// The version of the form in which everything stands.
const FORMAT: u32 = 1;
/// Due times beyond this, to either side, are not told apart: scores are of 53 bits.
const DUE_MS_MAX: i64 = 1 << 53;
/// Milliseconds between two looks at the clock of Redis.
const CLOCK_LOOK_MS: u64 = 5_000;
/// When to come back to a Redis that does not answer.
const RETRY_MS: u64 = 500;

/// How a store is opened.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port/db`, or `rediss://…` with TLS.
    pub url: String,
    /// What all keys begin with.
    pub prefix: String,
    /// Measures time between two looks at the clock of Redis.
    pub system: Arc<dyn System>,
    /// Time for a connection to stand.
    pub connect_ms: u64,
    /// Time for an answer.
    pub answer_ms: u64,
}

impl RedisOptions {
    /// Returns the usual limits.
    #[must_use]
    pub fn new(url: impl Into<String>, system: Arc<dyn System>) -> Self {
        Self { url: url.into(), prefix: "pointsman".to_owned(), system, connect_ms: 2_000, answer_ms: 5_000 }
    }
}

/// Why there is no store.
#[derive(Debug, Error)]
pub enum RedisOpenError {
    /// The address is none.
    #[error("the address of Redis cannot be read")]
    Address(#[source] RedisError),
    /// Nobody answers there, or not as Redis does.
    #[error("Redis does not answer")]
    Connect(#[source] RedisError),
    /// What is there was written by a newer host.
    #[error("what stands in Redis has the format {found}, and this host knows {FORMAT}: use a newer host")]
    Newer {
        /// Which.
        found: u32,
    },
}

/// The store.
pub struct RedisStore {
    connection: ConnectionManager,
    keys: Keys,
    commit: Script,
    range: Script,
    epoch: u64,
    clock: Arc<Clock>,
    wakers: Arc<Wakers>,
    looking: tokio::task::JoinHandle<()>,
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

fn unavailable(error: &RedisError) -> StoreError {
    tracing::warn!(%error, "Redis did not answer as it should");
    StoreError::Unavailable { retry_after_ms: RETRY_MS, why: error.to_string() }
}

fn unreadable(what: &str) -> StoreError {
    tracing::error!(what, "what stands in Redis cannot be read");
    StoreError::Unavailable { retry_after_ms: RETRY_MS, why: format!("{what} in Redis cannot be read") }
}

impl RedisStore {
    /// Opens the store that stands in a Redis, which is begun where there is none.
    ///
    /// # Errors
    /// [`RedisOpenError`].
    pub async fn open(options: &RedisOptions) -> Result<Self, RedisOpenError> {
        let info = options.url.as_str().into_connection_info().map_err(RedisOpenError::Address)?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).map_err(RedisOpenError::Address)?;
        let wakers = Arc::new(Wakers::default());
        let (woken, was_heard) = (Arc::clone(&wakers), AtomicBool::new(false));
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_millis(options.connect_ms)))
            .set_response_timeout(Some(Duration::from_millis(options.answer_ms)))
            .set_max_delay(Duration::from_millis(RETRY_MS))
            .set_push_sender(move |push: PushInfo| {
                // What happened while nobody listened is not known; before the first time nobody waited.
                if push.kind == PushKind::Subscribe && was_heard.swap(true, Ordering::Relaxed) {
                    woken.wake_all();
                }
                wake(&woken, &push);
                Ok::<(), redis::aio::SendError>(())
            })
            .set_automatic_resubscription();
        let connect = RedisOpenError::Connect;
        let mut connection = ConnectionManager::new_with_config(client, config).await.map_err(connect)?;
        let keys = Keys::new(&options.prefix);
        let mut begin = redis::pipe();
        begin.hset_nx(keys.store(), "format", FORMAT).ignore().hset_nx(keys.store(), "epoch", 1).ignore();
        begin.hget(keys.store(), "format").hget(keys.store(), "epoch").cmd("TIME");
        let (format, epoch, time): (u32, u64, (i64, i64)) = begin.query_async(&mut connection).await.map_err(connect)?;
        if format > FORMAT {
            return Err(RedisOpenError::Newer { found: format });
        }
        connection.subscribe(keys.channel()).await.map_err(connect)?;
        let clock = Arc::new(Clock::new(Arc::clone(&options.system), time_ms(time)));
        let looking = tokio::spawn(look_at_the_clock(connection.clone(), Arc::clone(&clock)));
        let (commit, range) = (Script::new(include_str!("redis/commit.lua")), Script::new(include_str!("redis/range.lua")));
        Ok(Self { connection, keys, commit, range, epoch, clock, wakers, looking })
    }

    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, StoreError> {
        command.query_async(&mut self.connection.clone()).await.map_err(|error| unavailable(&error))
    }

    /// Returns the keys and arguments of a commit's script, in the order that it takes them.
    fn arguments(&self, commit: &Commit) -> Arguments {
        let (space, keys) = (keys::space(commit.project), &self.keys);
        let call = commit.idempotency.as_ref().and_then(|call| keys.call(&space, &call.principal, &call.operation, &call.key));
        let names = vec![
            keys.store(),
            keys.facts(&space),
            keys.values(&space),
            keys.versions(&space),
            keys.names(&space),
            keys.fences(&space),
            keys.events(&space),
            keys.due_by_name(&space),
            keys.due(),
            // A script has to name every key that it touches, and touches none where there is no call.
            call.unwrap_or_else(|| keys.facts(&space)),
        ];
        let mut arguments = Arguments { keys: names, values: Vec::with_capacity(32) };
        let out = &mut arguments;
        for text in [self.epoch.to_string(), self.clock.now().0.to_string(), space, keys.channel(), IDEMPOTENCY_KEPT_MS.to_string()] {
            out.push(text);
        }
        match &commit.idempotency {
            Some(call) => {
                out.push("1");
                out.push(call.request_digest.as_slice());
                out.push(call.response.as_slice());
            }
            None => out.push("0"),
        }
        out.push_fences(&commit.fences);
        out.push(commit.expects.len().to_string());
        for (key, expect) in &commit.expects {
            out.push(key.as_str());
            out.push(match expect {
                Expect::Absent => String::new(),
                Expect::Version(version) => version.to_string(),
            });
        }
        out.push_fences(&commit.raise);
        out.push(commit.puts.len().to_string());
        for (key, bytes) in &commit.puts {
            out.push(key.as_str());
            out.push(bytes.as_slice());
        }
        out.push(commit.deletes.len().to_string());
        for key in &commit.deletes {
            out.push(key.as_str());
        }
        out.push(commit.due.len().to_string());
        for change in &commit.due {
            let (name, at) = match change {
                DueChange::Set { name, at } => (name, at.0.clamp(-DUE_MS_MAX, DUE_MS_MAX).to_string()),
                DueChange::Clear { name } => (name, String::new()),
            };
            out.push(name.as_str());
            out.push(at);
        }
        out.push(commit.events.len().to_string());
        let project = commit.project.unwrap_or_else(host_log);
        for event in &commit.events {
            // Its place and time are not known before it is taken; the stream has them.
            out.push(value::encode(&Event { cursor: Cursor::default(), at: TimeMs(0), project, event: event.clone() }));
        }
        arguments
    }

    /// Returns what the script's answer says.
    fn verdict(&self, commit: &Commit, answer: Vec<Value>) -> Result<Committed, StoreError> {
        let wrong = || unreadable("the answer to a commit");
        let mut parts = answer.into_iter();
        let word: String = parts.next().and_then(read).ok_or_else(wrong)?;
        let mut next = || parts.next().ok_or_else(wrong);
        match word.as_str() {
            "done" => {
                let (version, seq, at) = (read(next()?), read(next()?), read::<i64>(next()?).map(TimeMs));
                let (Some(version), Some(seq), Some(at)) = (version, seq, at) else { return Err(wrong()) };
                self.clock.reach(at);
                Ok(Committed::Done { version, cursor: Cursor { epoch: self.epoch, seq }, at })
            }
            "replayed" => Ok(Committed::Replayed(read(next()?).ok_or_else(wrong)?)),
            "reused" => {
                let key = commit.idempotency.as_ref().map(|call| call.key.clone()).unwrap_or_default();
                Err(StoreError::KeyReused { key })
            }
            "stale" => Err(StoreError::Stale { key: read(next()?).ok_or_else(wrong)? }),
            "fenced" => Err(StoreError::Fenced { key: read(next()?).ok_or_else(wrong)? }),
            "epoch" => {
                let why = "Redis lost what it had, or was changed for another one; the host has to be started again".to_owned();
                Err(StoreError::Unavailable { retry_after_ms: RETRY_MS, why })
            }
            _ => Err(wrong()),
        }
    }
}

/// What a script is called with.
struct Arguments {
    keys: Vec<String>,
    values: Vec<Vec<u8>>,
}

impl Arguments {
    fn push(&mut self, value: impl Into<Vec<u8>>) {
        self.values.push(value.into());
    }

    fn push_fences(&mut self, fences: &[Fence]) {
        self.push(fences.len().to_string());
        for fence in fences {
            self.push(fence.key.as_str());
            self.push(keys::token(fence.token));
        }
    }
}

fn read<T: FromRedisValue>(value: Value) -> Option<T> {
    from_redis_value(value).ok()
}

fn time_ms((seconds, micros): (i64, i64)) -> TimeMs {
    TimeMs(seconds.saturating_mul(1_000).saturating_add(micros / 1_000))
}

/// Wakes whom a push is for.
fn wake(wakers: &Wakers, push: &PushInfo) {
    if push.kind == PushKind::Message {
        let Some(payload) = push.data.get(1).cloned().and_then(read::<String>) else { return };
        if payload == keys::DUE {
            wakers.wake_due();
        } else if let Some(project) = keys::project(&payload) {
            wakers.wake(project);
        }
    }
}

async fn look_at_the_clock(mut connection: ConnectionManager, clock: Arc<Clock>) {
    let mut looks = tokio::time::interval(Duration::from_millis(CLOCK_LOOK_MS));
    loop {
        looks.tick().await;
        // Without an answer the clock goes on by itself.
        if let Ok(time) = redis::cmd("TIME").query_async::<(i64, i64)>(&mut connection).await {
            clock.look(time_ms(time));
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        commit_bytes(&commit)?;
        let Arguments { keys, values } = self.arguments(&commit);
        let mut invocation = self.commit.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for value in values {
            invocation.arg(value);
        }
        let answer: Result<Vec<Value>, RedisError> = invocation.invoke_async(&mut self.connection.clone()).await;
        self.verdict(&commit, answer.map_err(|error| unavailable(&error))?)
    }

    async fn get(&self, project: Option<ProjectId>, key: &str) -> Result<Option<Versioned>, StoreError> {
        let space = keys::space(project);
        let mut both = redis::pipe();
        both.atomic().hget(self.keys.versions(&space), key).hget(self.keys.values(&space), key);
        let found: (Option<u64>, Option<Vec<u8>>) =
            both.query_async(&mut self.connection.clone()).await.map_err(|error| unavailable(&error))?;
        match found {
            (Some(version), Some(bytes)) => Ok(Some(Versioned { version, bytes })),
            (None, None) => Ok(None),
            (Some(_), None) | (None, Some(_)) => Err(unreadable("a value")),
        }
    }

    async fn range(&self, project: Option<ProjectId>, prefix: &str, from: &str, limit: usize) -> Result<Page, StoreError> {
        let Some((first, end)) = keys::names_between(prefix, from) else { return Ok(Page::default()) };
        let space = keys::space(project);
        let mut invocation = self.range.prepare_invoke();
        invocation.key(self.keys.names(&space)).key(self.keys.values(&space)).key(self.keys.versions(&space));
        invocation.arg(first).arg(end).arg(limit.min(ENTRIES_MAX)).arg(PAGE_BYTES_MAX);
        let answer: Result<Vec<Value>, RedisError> = invocation.invoke_async(&mut self.connection.clone()).await;
        let mut parts = answer.map_err(|error| unavailable(&error))?.into_iter();
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
        let Some(place) = self.keys.call(&keys::space(project), principal, operation, key) else { return Ok(None) };
        let record: Option<Vec<u8>> = self.ask(redis::cmd("GET").arg(place)).await?;
        let Some(record) = record else { return Ok(None) };
        let (digest, response) = record.split_at_checked(request_digest.len()).ok_or_else(|| unreadable("an idempotency record"))?;
        if digest == request_digest { Ok(Some(response.to_vec())) } else { Err(StoreError::KeyReused { key: key.to_owned() }) }
    }

    async fn due(&self, before: TimeMs, limit: usize) -> Result<Vec<DueEntry>, StoreError> {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command
            .arg(self.keys.due())
            .arg("-inf")
            .arg(before.0.clamp(-DUE_MS_MAX, DUE_MS_MAX))
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(0)
            .arg(limit.min(ENTRIES_MAX));
        let found: Vec<(String, f64)> = self.ask(&command).await?;
        found.into_iter().map(|(member, score)| due_entry(&member, score).ok_or_else(|| unreadable("a due entry"))).collect()
    }

    async fn next_due(&self) -> Result<Option<TimeMs>, StoreError> {
        let first: Vec<(String, f64)> = self.ask(redis::cmd("ZRANGE").arg(self.keys.due()).arg(0).arg(0).arg("WITHSCORES")).await?;
        Ok(first.first().map(|(_, score)| whole_ms(*score)))
    }

    async fn events(&self, project: Option<ProjectId>, after: Cursor, limit: usize) -> Result<Vec<Event>, StoreError> {
        let Some(first) = after.seq.checked_add(1) else { return Ok(Vec::new()) };
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("XRANGE");
        command.arg(self.keys.events(&keys::space(project))).arg(format!("{first}-0")).arg("+").arg("COUNT").arg(limit.min(ENTRIES_MAX));
        let found: Vec<(String, Vec<Vec<u8>>)> = self.ask(&command).await?;
        found.iter().map(|(id, fields)| event(id, fields).ok_or_else(|| unreadable("an event"))).collect()
    }

    async fn head(&self, project: Option<ProjectId>) -> Result<Cursor, StoreError> {
        let seq: Option<u64> = self.ask(redis::cmd("HGET").arg(self.keys.facts(&keys::space(project))).arg("seq")).await?;
        Ok(Cursor { epoch: self.epoch, seq: seq.unwrap_or(0) })
    }

    fn watch(&self, project: Option<ProjectId>) -> watch::Receiver<u64> {
        self.wakers.watch(project)
    }

    fn watch_due(&self) -> watch::Receiver<u64> {
        self.wakers.watch_due()
    }

    fn now(&self) -> TimeMs {
        self.clock.now()
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let epoch: Option<u64> = self.ask(redis::cmd("HGET").arg(self.keys.store()).arg("epoch")).await?;
        if epoch == Some(self.epoch) { Ok(()) } else { Err(unreadable("the store's epoch")) }
    }
}

fn due_entry(member: &str, score: f64) -> Option<DueEntry> {
    let (space, name) = member.split_once(':')?;
    Some(DueEntry { project: keys::project(space)??, name: name.to_owned(), at: whole_ms(score) })
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
