//! The way of commits to one server: what waits goes together, is done in its order, has reached a replica and the journal, and only
//! then is answered.
//!
//! **Invariant:** a commit is answered as done only after as many replicas as have to have it do, and the journal is synced.

use std::sync::Arc;

use pointsman_core::time::TimeMs;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{mpsc, oneshot};

use super::entry::{Entry, Mode, Place, Verdict};
use super::servers::Master;
use super::{Core, unavailable, unavailable_because, unreadable};
use crate::ports::store::{Committed, StoreError};

/// Commits that wait for a server; whoever comes then waits for a place.
const WAITING_MAX: usize = 1_024;
/// Commits that go together.
const GROUP_MAX: usize = 256;
/// Bytes after which no further commit joins a group.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// Milliseconds for a replica to say that it has a write.
const REPLICA_MS: u64 = 1_000;

type Answer = Result<Committed, StoreError>;

struct Waiting {
    entry: Entry,
    reply: oneshot::Sender<Answer>,
}

/// The way to one server.
pub(super) struct Lane {
    queue: mpsc::Sender<Waiting>,
}

impl Lane {
    /// Opens the way to a server, in an epoch. It is closed by being dropped.
    pub(super) fn open(core: Arc<Core>, master: Arc<Master>, epoch: u64) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Waiting>(WAITING_MAX);
        let connection = master.writes();
        tokio::spawn(async move {
            let mut way = Way { core, master, connection, epoch };
            while let Some(first) = waiting.recv().await {
                let mut bytes = first.entry.bytes();
                let mut group = vec![first];
                while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
                    let Ok(next) = waiting.try_recv() else { break };
                    bytes += next.entry.bytes();
                    group.push(next);
                }
                way.go(group).await;
            }
        });
        Self { queue }
    }

    /// Sends a commit on its way, and returns what came of it.
    pub(super) async fn commit(&self, entry: Entry) -> Answer {
        let (reply, answer) = oneshot::channel();
        let closed = || unavailable_because("the connection to Redis was lost; the write may have happened");
        self.queue.send(Waiting { entry, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

struct Way {
    core: Arc<Core>,
    master: Arc<Master>,
    connection: MultiplexedConnection,
    epoch: u64,
}

impl Way {
    async fn go(&mut self, group: Vec<Waiting>) {
        let (said, is_replicated) = match self.send(&group).await {
            Ok(said) => said,
            Err(error) => {
                self.master.falls_out(&error);
                for waiting in group {
                    let _ = waiting.reply.send(Err(unavailable(&error)));
                }
                return;
            }
        };
        let mut done: Vec<(Place, Waiting, Committed)> = Vec::new();
        for (waiting, said) in group.into_iter().zip(said) {
            let answer = self.answer(&waiting.entry, said);
            match answer {
                Ok(Committed::Done { version, cursor, at }) if is_replicated => {
                    self.core.clock.reach(at);
                    let place = Place { epoch: self.epoch, version, seq: cursor.seq, at };
                    done.push((place, waiting, Committed::Done { version, cursor, at }));
                }
                Ok(_) if !is_replicated => {
                    let why = "no replica of Redis has the write yet; it may still have happened";
                    let _ = waiting.reply.send(Err(unavailable_because(why)));
                }
                settled => {
                    // Whoever asked may be gone.
                    let _ = waiting.reply.send(settled);
                }
            }
        }
        self.keep(done);
    }

    /// Sends a group; returns what the script said of each, and whether the replicas that have to have it do.
    async fn send(&mut self, group: &[Waiting]) -> Result<(Vec<RedisResult<Value>>, bool), RedisError> {
        let acks = self.master.acks();
        let now = self.core.clock.now();
        let (mut said, mut followed) = self.ask(group.iter().map(|waiting| &waiting.entry), now, acks).await?;
        let unknown: Vec<usize> = (0..said.len()).filter(|&at| said[at].as_ref().is_err_and(is_unknown_script)).collect();
        if !unknown.is_empty() {
            // Somebody flushed the scripts; what was refused so was not begun.
            self.core.load_scripts(&self.master).await?;
            let (again, followed_again) = self.ask(unknown.iter().map(|&at| &group[at].entry), now, acks).await?;
            followed = followed_again;
            for (at, answer) in unknown.into_iter().zip(again) {
                said[at] = answer;
            }
        }
        let is_replicated = followed >= acks;
        if !is_replicated {
            self.master.falls_out(&(ErrorKind::Io, "no replica followed in time").into());
        }
        Ok((said, is_replicated))
    }

    async fn ask(
        &mut self,
        entries: impl Iterator<Item = &Entry>,
        now: TimeMs,
        acks: u32,
    ) -> Result<(Vec<RedisResult<Value>>, u32), RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for entry in entries {
            pipeline.add_command(entry.command(self.core.commit.get_hash(), &self.core.keys, self.epoch, now, Mode::Judge));
        }
        if acks > 0 {
            pipeline.cmd("WAIT").arg(acks).arg(REPLICA_MS);
        }
        let mut said: Vec<RedisResult<Value>> = pipeline.query_async(&mut self.connection).await?;
        let mut followed = 0;
        if acks > 0 {
            let waited = said.pop().ok_or((ErrorKind::UnexpectedReturnType, "an answer is missing"))??;
            followed = redis::from_redis_value(waited)?;
        }
        Ok((said, followed))
    }

    /// Returns the answer to a commit of which the script said this.
    fn answer(&self, entry: &Entry, said: RedisResult<Value>) -> Answer {
        let said = said.map_err(|error| {
            self.master.note(&error);
            unavailable(&error)
        })?;
        let verdict = Verdict::of(said).ok_or_else(|| unreadable("the answer to a commit"))?;
        entry.committed(self.epoch, verdict).unwrap_or_else(|| {
            self.master.falls_out(&(ErrorKind::Client, "other hosts have begun a new epoch").into());
            Err(unavailable_because("other hosts have begun a new epoch, which this one joins now"))
        })
    }

    /// Answers what was done, after the journal has it.
    fn keep(&self, done: Vec<(Place, Waiting, Committed)>) {
        if done.is_empty() {
            return;
        }
        let Some(journal) = &self.core.journal else {
            return tell(done.into_iter().map(|(_, waiting, committed)| (waiting.reply, committed)), true);
        };
        let mut replies = Vec::with_capacity(done.len());
        let mut entries = Vec::with_capacity(done.len());
        for (place, waiting, committed) in done {
            replies.push((waiting.reply, committed));
            entries.push((place, waiting.entry));
        }
        journal.append(&entries, move |is_synced| tell(replies.into_iter(), is_synced));
    }
}

fn tell(replies: impl Iterator<Item = (oneshot::Sender<Answer>, Committed)>, is_synced: bool) {
    for (reply, committed) in replies {
        let why = "the journal beside Redis cannot be written; the write has happened, and may be lost with Redis";
        // Whoever asked may be gone.
        let _ = reply.send(if is_synced { Ok(committed) } else { Err(unavailable_because(why)) });
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
