//! The way of commits to one server: what waits goes together, is done in its order, has reached a replica and the journal, and only
//! then is answered.
//!
//! **Invariant:** a commit is answered as done only after as many replicas as have to have it do, and the journal is synced.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pointsman_core::time::TimeMs;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::entry::{Entry, Mode, Place, Verdict};
use super::servers::Master;
use super::{Core, unavailable, unavailable_because, unreadable};
use crate::ports::store::{Committed, StoreError};

/// Commits that wait for a server; whoever comes then waits for a place.
const WAITING_MAX: usize = 1_024;
/// Commits that go together.
const GROUP_MAX: usize = 256;
/// Commits of a group after which the next one lets others come first: where many write at once, each trip less is time for all of them.
const GATHERING_COMMITS_MIN: usize = 4;
/// Bytes after which no further commit joins a group.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// Milliseconds for a replica to say that it has a write.
pub(super) const REPLICA_MS: u64 = 1_000;

/// Milliseconds for a server that fell out to say what became of what is under way.
const LAST_WORDS_MS: u64 = 500;

type Answer = Result<Committed, StoreError>;

struct Waiting {
    entry: Entry,
    reply: oneshot::Sender<Answer>,
}

/// The way to one server.
pub(super) struct Lane {
    queue: mpsc::Sender<Waiting>,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Lane {
    /// Opens the way to a server, in an epoch. It is closed by being dropped.
    pub(super) fn open(core: Arc<Core>, master: Arc<Master>, epoch: u64) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Waiting>(WAITING_MAX);
        let connection = master.writes();
        let running = tokio::spawn(async move {
            let way = Way { core, master, connection, epoch };
            let mut last_commits = 0;
            while let Some(Some(first)) = way.unless_it_fell_out(waiting.recv()).await {
                if last_commits >= GATHERING_COMMITS_MIN {
                    tokio::task::yield_now().await;
                }
                let mut bytes = first.entry.bytes();
                let mut group = vec![first];
                while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
                    let Ok(next) = waiting.try_recv() else { break };
                    bytes += next.entry.bytes();
                    group.push(next);
                }
                last_commits = group.len();
                way.go(group).await;
            }
        });
        Self { queue, running: Mutex::new(Some(running)) }
    }

    /// Waits until nothing is under way any more, once the server fell out: the journal then has all that was done.
    pub(super) async fn ended(&self) {
        let running = self.running.lock().take();
        if let Some(running) = running {
            running.await.expect("a lane does not panic");
        }
    }

    /// Sends a commit on its way, and returns what came of it.
    pub(super) async fn commit(&self, entry: Entry) -> Answer {
        self.begin(entry).await?.end().await
    }

    /// Sends a commit on its way: those that are begun one after another are judged so.
    pub(super) async fn begin(&self, entry: Entry) -> Result<Begun, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Waiting { entry, reply }).await.map_err(|_| closed())?;
        Ok(Begun(answer))
    }
}

/// A commit on its way.
pub(super) struct Begun(oneshot::Receiver<Answer>);

impl Begun {
    /// Returns what came of it.
    pub(super) async fn end(self) -> Answer {
        self.0.await.map_err(|_| closed())?
    }
}

fn closed() -> StoreError {
    unavailable_because("the connection to Redis was lost; the write may have happened")
}

struct Way {
    core: Arc<Core>,
    master: Arc<Master>,
    connection: MultiplexedConnection,
    epoch: u64,
}

impl Way {
    /// Returns what comes, or nothing as soon as the server fell out.
    async fn unless_it_fell_out<T>(&self, coming: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.master.fell_out() => None,
            come = coming => Some(come),
        }
    }

    async fn go(&self, group: Vec<Waiting>) {
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
        let mut done: Vec<(Place, Entry)> = Vec::new();
        let mut answers = Vec::with_capacity(group.len());
        for (Waiting { entry, reply }, said) in group.into_iter().zip(said) {
            let mut answer = self.answer(&entry, said);
            if let Ok(Committed::Done { version, cursor, at }) = answer {
                self.core.clock.reach(at);
                done.push((Place { epoch: self.epoch, version, seq: cursor.seq, at }, entry));
            }
            if answer.is_ok() && !is_replicated {
                answer = Err(unavailable_because("no replica of Redis has the write yet; it may still have happened"));
            }
            answers.push((reply, answer));
        }
        match &self.core.journal {
            Some(journal) if !done.is_empty() => journal.append(&done, move |is_synced| tell(answers, is_synced)),
            Some(_) | None => tell(answers, true),
        }
    }

    /// Sends a group; returns what the script said of each, and whether the replicas that have to have it do.
    async fn send(&self, group: &[Waiting]) -> Result<(Vec<RedisResult<Value>>, bool), RedisError> {
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
        &self,
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
        let mut connection = self.connection.clone();
        // A server that fell out may still say what it did: the journal is to have that.
        let too_late = async {
            self.master.fell_out().await;
            tokio::time::sleep(Duration::from_millis(LAST_WORDS_MS)).await;
        };
        let mut said: Vec<RedisResult<Value>> = tokio::select! {
            said = pipeline.query_async(&mut connection) => said?,
            () = too_late => return Err((ErrorKind::Io, "the server fell out before it answered").into()),
        };
        let mut followed = 0;
        if acks > 0 {
            let waited = said.pop().ok_or((ErrorKind::UnexpectedReturnType, "an answer is missing"))?;
            // A master that became a replica meanwhile refuses to say; none follows it then.
            followed = waited.and_then(|waited| Ok(redis::from_redis_value(waited)?)).unwrap_or(0);
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
}

fn tell(answers: Vec<(oneshot::Sender<Answer>, Answer)>, is_synced: bool) {
    for (reply, answer) in answers {
        let why = "the journal beside Redis cannot be written; the write has happened, and may be lost with Redis";
        let is_done = matches!(answer, Ok(Committed::Done { .. }));
        // Whoever asked may be gone.
        let _ = reply.send(if is_done && !is_synced { Err(unavailable_because(why)) } else { answer });
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
