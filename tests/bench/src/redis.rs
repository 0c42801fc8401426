//! The store on Redis beside the commands it cannot do without, on one server that syncs each write before it answers.
//!
//! **Sends:** the commits that a host makes of sends, by as many senders at once over one connection, beside as many `XADD`s of as many
//! bytes by as many senders over one connection. The two take turns.
//!
//! **Sent to seen** across two replicas, one message at a time: from before the commit on one replica until the other has handed it
//! out, which is all that stands between the two calls of two agents but their HTTP; beside `XADD` and `PUBLISH` in one go until the
//! subscriber has read the entry.
//!
//! Two stores in this process, each with its journal, stand for two hosts (`Replicas`): two hosts over HTTP take their place once several may
//! serve one store.
//! What a failover loses and how long it lasts stands in `failover`.

mod failover;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pointsman::adapters::redis::{RedisOptions, RedisStore};
use pointsman::adapters::system::OsSystem;
use pointsman::ports::store::{Commit, DueChange, Expect, Store};
use pointsman_core::event::{Actor, Cursor, NewEvent};
use pointsman_core::limits::DELIVERY_LEASE_MS;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::server::Server;
use crate::figures::{BenchError, Figures, count, median, now, percentile, setup};
use crate::messaging::{SENDERS, commit_all, record, sends};
use crate::recorded::bytes_each;
use crate::stage::folder;

/// Rounds of commits and of raw entries, in turn; the figures are medians.
const ROUNDS: usize = 5;
/// Rounds of messages and of raw entries that are seen, in turn; the samples of all are taken together.
const SEEN_ROUNDS: usize = 3;
/// Messages of one such round.
const SEEN_EACH: usize = 300;
/// Entries read at once.
const PAGE: usize = 100;
/// How long one message may be on its way.
const SEEN_MAX: Duration = Duration::from_secs(10);
/// Where raw entries go.
const STREAM: &str = "raw";
/// Where raw entries are told of.
const CHANNEL: &str = "raw-woken";

pub(crate) async fn measure() -> Result<Figures, BenchError> {
    let folder = folder()?;
    let commits = sends(&record(&folder.path().join("recorded")).await?).await?;
    let server = Server::start(folder.path()).await?;
    let mut figures = Figures::default();
    figures.add("senders", count(SENDERS));
    figures.add("record_bytes", bytes_each(&commits)?);
    let record = vec![b'x'; figures.get("record_bytes") as usize];
    rates(&server, &commits, &record, &mut figures).await?;
    latencies(&server, &commits, &record, &mut figures).await?;
    failover::measure(folder.path(), &mut figures).await?;
    Ok(figures)
}

/// Returns how a host opens the store: with a journal on its disk, which is a new one each time.
fn options(server: &Server, prefix: &str) -> Result<RedisOptions, BenchError> {
    static JOURNALS: AtomicU64 = AtomicU64::new(0);
    let journal = server.folder().join(format!("journal-{}", JOURNALS.fetch_add(1, Ordering::Relaxed)));
    let address = server.url().parse().map_err(setup)?;
    Ok(RedisOptions { prefix: prefix.to_owned(), journal: Some(journal), ..RedisOptions::new(address, Arc::new(OsSystem)) })
}

async fn rates(server: &Server, commits: &[Commit], record: &[u8], figures: &mut Figures) -> Result<(), BenchError> {
    let number = count(commits.len());
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        server.empty().await?;
        let raw_s = add_all(server, commits.len(), record).await?;
        server.empty().await?;
        let store = RedisStore::open(&options(server, "rates")?).await.map_err(setup)?;
        let ours_s = commit_all(Arc::new(store), commits.to_vec()).await?;
        // The first round fills caches.
        if round > 0 {
            raw.push(number / raw_s);
            ours.push(number / ours_s);
        }
    }
    figures.add("sends_per_s", median(ours));
    figures.add("raw_xadd_per_s", median(raw));
    figures.add("send_ratio_vs_raw_xadd", figures.get("sends_per_s") / figures.get("raw_xadd_per_s"));
    Ok(())
}

/// Lets all senders at once add entries over one connection; returns the seconds it took.
async fn add_all(server: &Server, entries: usize, record: &[u8]) -> Result<f64, BenchError> {
    let (connection, _pushed) = server.connect().await?;
    let record: Arc<[u8]> = record.into();
    let began = now();
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (mut connection, record) = (connection.clone(), Arc::clone(&record));
        senders.spawn(async move {
            for _ in 0..entries / SENDERS {
                let mut add = redis::cmd("XADD");
                add.arg(STREAM).arg("*").arg("e").arg(&record[..]);
                add.query_async::<String>(&mut connection).await.map_err(setup)?;
            }
            Ok::<_, BenchError>(())
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.map_err(setup)??;
    }
    Ok(began.elapsed().as_secs_f64())
}

async fn latencies(server: &Server, commits: &[Commit], record: &[u8], figures: &mut Figures) -> Result<(), BenchError> {
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for round in 0..SEEN_ROUNDS {
        server.empty().await?;
        raw.extend(raw_seen(server, record).await?);
        server.empty().await?;
        let replicas = Replicas::open(server, &format!("seen{round}")).await?;
        for commit in commits.iter().take(SEEN_EACH) {
            let seen = tokio::time::timeout(SEEN_MAX, replicas.sent_to_seen(commit.clone())).await;
            ours.push(seen.map_err(setup)??);
        }
    }
    figures.add("seen_messages", count(ours.len()));
    for (name, samples, percent) in [
        ("raw_seen_p50_us", &raw, 50),
        ("raw_seen_p99_us", &raw, 99),
        ("sent_to_seen_p50_us", &ours, 50),
        ("sent_to_seen_p99_us", &ours, 99),
    ] {
        figures.add(name, percentile(samples.clone(), percent));
    }
    figures.add("sent_to_seen_p99_over_raw", figures.get("sent_to_seen_p99_us") / figures.get("raw_seen_p99_us"));
    Ok(())
}

/// Two replicas on one Redis: on one a message is sent, on the other its recipient waits.
struct Replicas {
    here: RedisStore,
    there: RedisStore,
}

impl Replicas {
    async fn open(server: &Server, prefix: &str) -> Result<Self, BenchError> {
        let here = RedisStore::open(&options(server, prefix)?).await.map_err(setup)?;
        Ok(Self { here, there: RedisStore::open(&options(server, prefix)?).await.map_err(setup)? })
    }

    /// Sends a message; returns after how many µs the other replica has handed it out.
    async fn sent_to_seen(&self, send: Commit) -> Result<f64, BenchError> {
        let sent = Sent::of(&send)?;
        let after = self.there.head(send.project).await.map_err(setup)?;
        let mut hint = self.there.watch(send.project);
        hint.borrow_and_update();
        let began = now();
        let seeing = async {
            self.see(&sent, &mut hint, after).await?;
            Ok::<_, BenchError>(began.elapsed().as_secs_f64() * 1e6)
        };
        let (done, seen_us) = tokio::join!(self.here.commit(send), seeing);
        done.map_err(setup)?;
        seen_us
    }

    /// What a host does for one that waits: reads on in the log when it is woken, looks at the inbox, hands out what is there.
    async fn see(&self, sent: &Sent, hint: &mut watch::Receiver<u64>, after: Cursor) -> Result<(), BenchError> {
        let (store, project) = (&self.there, sent.hand_out.project);
        loop {
            hint.changed().await.map_err(setup)?;
            let events = store.events(project, after, PAGE).await.map_err(setup)?;
            if events.iter().any(|event| event.event.subject == sent.message) {
                break;
            }
        }
        store.range(project, &sent.inbox, "", PAGE).await.map_err(setup)?;
        let delivery = store.get(project, &sent.delivery).await.map_err(setup)?.ok_or_else(|| setup("there is no delivery"))?;
        store.get(project, &format!("msg/{}", sent.message)).await.map_err(setup)?.ok_or_else(|| setup("there is no message"))?;
        let mut commit = sent.hand_out.clone();
        commit.expects = vec![(sent.delivery.clone(), Expect::Version(delivery.version))];
        commit.puts = vec![(sent.delivery.clone(), delivery.bytes)];
        commit.due = vec![DueChange::Set { name: format!("message/delivery/{}", sent.message), at: store.now() + DELIVERY_LEASE_MS }];
        store.commit(commit).await.map_err(setup)?;
        Ok(())
    }
}

/// Where a message stands that is sent, and how it is handed out.
struct Sent {
    message: String,
    delivery: String,
    inbox: String,
    hand_out: Commit,
}

impl Sent {
    fn of(send: &Commit) -> Result<Self, BenchError> {
        let key = |prefix: &str| {
            let found = send.puts.iter().find_map(|(key, _)| key.starts_with(prefix).then(|| key.clone()));
            found.ok_or_else(|| setup(format!("a send writes nothing under {prefix}")))
        };
        let (message, delivery, ready) = (key("msg/")?.replacen("msg/", "", 1), key("dlv/")?, key("rdy/")?);
        let inbox = ready.rsplit_once('/').map(|(inbox, _)| format!("{inbox}/")).unwrap_or_default();
        let data = json!({"attempt": 1, "attempts": 1, "until": "2030-01-01T00:00:00Z", "inbox": {inbox.as_str(): "leased"}});
        let events = vec![NewEvent::new("message.handed_out", Actor::host(), &message, data).caused_by(&message)];
        let hand_out = Commit { project: send.project, deletes: vec![ready], events, ..Commit::default() };
        Ok(Self { message, delivery, inbox, hand_out })
    }
}

/// Adds entries one at a time and tells of them; returns after how many µs each was read by who was told.
async fn raw_seen(server: &Server, record: &[u8]) -> Result<Vec<f64>, BenchError> {
    let (mut here, _pushed) = server.connect().await?;
    let (mut there, mut pushed) = server.connect().await?;
    there.subscribe(CHANNEL).await.map_err(setup)?;
    let (mut took_us, mut last) = (Vec::new(), "0-0".to_owned());
    for _ in 0..SEEN_EACH {
        let mut add = redis::pipe();
        add.cmd("XADD").arg(STREAM).arg("*").arg("e").arg(record).cmd("PUBLISH").arg(CHANNEL).arg("").ignore();
        let began = now();
        let seeing = async {
            let read = read_after(&mut there, &mut pushed, &last).await?;
            Ok::<_, BenchError>((read, began.elapsed().as_secs_f64() * 1e6))
        };
        let both = async { tokio::join!(add.query_async::<(String,)>(&mut here), seeing) };
        let (added, seen) = tokio::time::timeout(SEEN_MAX, both).await.map_err(setup)?;
        let ((added,), (read, seen_us)) = (added.map_err(setup)?, seen?);
        if read != added {
            return Err(setup(format!("{read} was read, {added} was added")));
        }
        last = read;
        took_us.push(seen_us);
    }
    Ok(took_us)
}

/// Waits for a word on the channel, then reads on; returns the id of what was read.
async fn read_after(
    connection: &mut MultiplexedConnection,
    pushed: &mut UnboundedReceiver<PushInfo>,
    last: &str,
) -> Result<String, BenchError> {
    while pushed.recv().await.ok_or_else(|| setup("the connection to Redis ended"))?.kind != PushKind::Message {}
    let mut read = redis::cmd("XRANGE");
    read.arg(STREAM).arg(format!("({last}")).arg("+").arg("COUNT").arg(PAGE);
    let found: Vec<(String, Value)> = read.query_async(connection).await.map_err(setup)?;
    found.into_iter().next().map(|(id, _)| id).ok_or_else(|| setup("nothing was added"))
}
