//! Messages on the embedded store, each made durable before it is answered, by clients over HTTP.
//!
//! **Sends** stand beside raw group commits of the same records: what a host stored of as many sends before is read back and committed
//! again by as many writers, in a process of its own without a host, to a new store of the same engine and settings. The two take turns,
//! and the syncs of both are counted alike (`syncs`).
//!
//! **Sent to seen** runs from before a client's call of `send_message` to after the answer of the other's `wait_for_events`: two commits,
//! the message's and that of handing it out. It stands beside a lone synced write: as many bytes appended to a file and synced, with
//! nothing else going on.
//!
//! Everything stands beside this program and not in the folder for temporary files, which may be memory, where a sync costs nothing.

mod records;
mod syncs;
mod waiting;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use pointsman::adapters::system::raise_open_files;
use pointsman_client::{Client, Era};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

pub(crate) use self::records::{bytes_each, commit_again, commit_all, sends};

use self::syncs::Syncs;
use crate::figures::{BenchError, Figures, count, median, now, percentile, setup};
use crate::line::{Line, tool_call};
use crate::slow_clients::mint;
use crate::startup;

/// Clients that send at once; as many writers commit the same records raw.
pub(crate) const SENDERS: usize = 64;
/// Messages that each of them sends in one round.
const SENDS_EACH: usize = 60;
/// Bytes of a message's body.
const BODY_BYTES: usize = 512;
/// Rounds of sends and of raw commits, in turn; the figures are medians.
const ROUNDS: usize = 5;
/// Agents in a ring, each sending to the next.
const TRIP_AGENTS: usize = 64;
/// Messages that each of them sends, after some that do not count.
const TRIPS_EACH: usize = 40;
const TRIPS_BEFORE: usize = 5;
/// Agents that hear from each other.
const SEEN_AGENTS: usize = 50;
/// Messages that each of them gets in one round.
const SEEN_EACH: usize = 20;
/// Milliseconds between two messages of all together.
const SEEN_GAP_MS: u64 = 10;
/// Rounds of lone writes and of messages that are seen, in turn; the samples of all are taken together.
const SEEN_ROUNDS: usize = 3;
/// Lone synced writes of one round.
const LONE_WRITES: usize = 300;
/// Seconds that all messages of a round may take.
const ROUND_S_MAX: u64 = 300;

pub(crate) async fn measure() -> Result<Figures, BenchError> {
    raise_open_files().map_err(setup)?;
    let folder = folder()?;
    let syncs = Syncs::begin(folder.path()).await?;
    let recorded = record(&folder.path().join("recorded")).await?;
    let mut figures = Figures::default();
    let mut host = Host::start(&folder.path().join("host"), |command| syncs.of(command)).await?;
    sends_and_raw(&host, &recorded, &syncs, &mut figures).await?;
    round_trips(&host, &mut figures).await?;
    sent_to_seen(&host, folder.path(), &mut figures).await?;
    host.child.kill().await.map_err(setup)?;
    waiting::measure(&folder.path().join("waiting"), &mut figures).await?;
    Ok(figures)
}

/// Returns a folder on the disk that this program is on.
pub(crate) fn folder() -> Result<TempDir, BenchError> {
    let own = std::env::current_exe().map_err(setup)?;
    tempfile::tempdir_in(own.parent().unwrap_or(Path::new("."))).map_err(setup)
}

/// A host and who may call it.
struct Host {
    child: Child,
    address: SocketAddr,
    token: String,
}

impl Host {
    async fn start(folder: &Path, prepare: impl FnOnce(&mut Command)) -> Result<Self, BenchError> {
        let config = startup::configure(folder)?;
        let (child, _) = startup::start_host_with(&config, prepare).await?;
        let token = mint(&config.file).await?;
        let host = Self { child, address: SocketAddr::from(([127, 0, 0, 1], config.port)), token };
        for n in 0..SENDERS {
            call(&host.client()?, "start", json!({"name": sender(n)})).await?;
        }
        Ok(host)
    }

    fn client(&self) -> Result<Client, BenchError> {
        Client::new(&format!("http://{}/mcp", self.address), &self.token, Era::Modern).map_err(setup)
    }

    /// Lets every sender send its messages of a round, each over a connection of its own, all at once; returns the seconds it took.
    async fn send_round(&self, round: usize) -> Result<f64, BenchError> {
        let of = |n: usize, message: usize| {
            let (to, key) = (format!("agent:{}", sender((n + message + 1) % SENDERS)), format!("{round}-{n}-{message}"));
            let body = "x".repeat(BODY_BYTES);
            let arguments = json!({"agent": sender(n), "to": [to], "subject": key, "body": body, "idempotency_key": key});
            tool_call(&self.token, "send_message", &arguments)
        };
        let clients: Vec<Vec<Vec<u8>>> = (0..SENDERS).map(|n| (0..SENDS_EACH).map(|message| of(n, message)).collect()).collect();
        let address = self.address;
        tokio::task::spawn_blocking(move || send_all(address, &clients)).await.map_err(setup)?.map_err(setup)
    }
}

fn sender(n: usize) -> String {
    format!("sender-{n}")
}

async fn call(client: &Client, tool: &str, arguments: Value) -> Result<Value, BenchError> {
    Ok(client.call(tool, arguments).await.map_err(setup)?["result"].take())
}

fn send_all(address: SocketAddr, clients: &[Vec<Vec<u8>>]) -> std::io::Result<f64> {
    let ready = Barrier::new(clients.len() + 1);
    let send = |requests: &[Vec<u8>]| {
        let line = Line::open(address);
        ready.wait();
        let mut line = line?;
        for request in requests {
            line.call(request)?;
        }
        Ok::<(), std::io::Error>(())
    };
    std::thread::scope(|scope| {
        let send = &send;
        let senders: Vec<_> = clients.iter().map(|requests| scope.spawn(move || send(requests))).collect();
        ready.wait();
        let began = now();
        for sender in senders {
            sender.join().map_err(|_| std::io::Error::other("a client panicked"))??;
        }
        Ok(began.elapsed().as_secs_f64())
    })
}

/// Lets a host store the messages of one round; returns where its store stands, once it ended.
///
/// # Errors
/// The host does not start or refuses a message.
pub(crate) async fn record(folder: &Path) -> Result<PathBuf, BenchError> {
    let mut host = Host::start(folder, |_| {}).await?;
    host.send_round(0).await?;
    host.child.kill().await.map_err(setup)?;
    Ok(folder.join("data/store"))
}

async fn sends_and_raw(host: &Host, recorded: &Path, syncs: &Syncs, figures: &mut Figures) -> Result<(), BenchError> {
    let sends = count(SENDERS * SENDS_EACH);
    let (mut per_s, mut per_sync, mut raw_per_s, mut raw_per_sync) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let before = syncs.count()?;
        let took_s = host.send_round(round).await?;
        let synced = syncs.count()? - before;
        if synced < 1.0 {
            return Err(setup("no sync was counted: the host does not go through the C library's fsync"));
        }
        let raw = raw_round(recorded, syncs).await?;
        let of = |name: &str| raw[name].as_f64().unwrap_or(f64::NAN);
        // The first round fills caches.
        if round > 0 {
            per_s.push(sends / took_s);
            per_sync.push(sends / synced);
            raw_per_s.push(of("commits") / of("took_s"));
            raw_per_sync.push(of("commits") / of("syncs"));
        } else {
            figures.add("senders", count(SENDERS));
            figures.add("record_bytes", of("bytes_each"));
        }
    }
    figures.add("sends_per_s", median(per_s));
    figures.add("sends_per_sync", median(per_sync));
    figures.add("raw_commits_per_s", median(raw_per_s));
    figures.add("raw_commits_per_sync", median(raw_per_sync));
    figures.add("send_ratio_vs_raw_store", figures.get("sends_per_s") / figures.get("raw_commits_per_s"));
    Ok(())
}

/// Starts this program once more, as the baseline; returns what it measured.
async fn raw_round(recorded: &Path, syncs: &Syncs) -> Result<Value, BenchError> {
    let mut command = Command::new(std::env::current_exe().map_err(setup)?);
    command.arg("--raw-commits").arg(recorded).arg(syncs.counter()).kill_on_drop(true);
    syncs.of(&mut command);
    let out = command.output().await.map_err(setup)?;
    serde_json::from_slice(&out.stdout).map_err(|error| setup(format!("the raw commits failed: {error}")))
}

/// Agents in a ring: each sends to the next, waits for what the one before it sent, and acks it with its next wait.
async fn round_trips(host: &Host, figures: &mut Figures) -> Result<(), BenchError> {
    let ready = Arc::new(tokio::sync::Barrier::new(TRIP_AGENTS + 1));
    let mut ring = JoinSet::new();
    let name = |n: usize| format!("trip-{}", n % TRIP_AGENTS);
    for n in 0..TRIP_AGENTS {
        call(&host.client()?, "start", json!({"name": name(n)})).await?;
    }
    for n in 0..TRIP_AGENTS {
        let (client, own, next, ready) = (host.client()?, name(n), name(n + 1), Arc::clone(&ready));
        ring.spawn(async move {
            go_round(&client, &own, &next, TRIPS_BEFORE).await?;
            ready.wait().await;
            go_round(&client, &own, &next, TRIPS_EACH).await
        });
    }
    let all = async {
        ready.wait().await;
        let began = now();
        while let Some(ended) = ring.join_next().await {
            ended.map_err(setup)??;
        }
        Ok::<_, BenchError>(began.elapsed().as_secs_f64())
    };
    let took_s = tokio::time::timeout(Duration::from_secs(ROUND_S_MAX), all).await.map_err(setup)??;
    figures.add("roundtrip_per_s_64", count(TRIP_AGENTS * TRIPS_EACH) / took_s);
    Ok(())
}

async fn go_round(client: &Client, own: &str, next: &str, trips: usize) -> Result<(), BenchError> {
    let (mut taken, mut received) = (Vec::new(), 0);
    for sent in 1..=trips {
        let message = json!({"agent": own, "to": [format!("agent:{next}")], "subject": "round", "body": "x".repeat(BODY_BYTES)});
        call(client, "send_message", message).await?;
        while received < sent {
            let mail = wait(client, own, &taken, 45).await?;
            received += mail.len();
            taken = mail.iter().map(|message| message["id"].clone()).collect();
        }
    }
    wait(client, own, &taken, 0).await?;
    Ok(())
}

async fn wait(client: &Client, own: &str, ack: &[Value], max_s: u64) -> Result<Vec<Value>, BenchError> {
    let mut answer = call(client, "wait_for_events", json!({"agent": own, "ack": ack, "max_s": max_s})).await?;
    let Value::Array(messages) = answer["messages"].take() else { return Err(setup("the answer of a wait has no list of messages")) };
    Ok(messages)
}

async fn sent_to_seen(host: &Host, folder: &Path, figures: &mut Figures) -> Result<(), BenchError> {
    for n in 0..SEEN_AGENTS {
        call(&host.client()?, "start", json!({"name": seer(n)})).await?;
    }
    // As many bytes as a send writes, so that what differs is the way there.
    let bytes = figures.get("record_bytes") as usize;
    let (mut lone, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..SEEN_ROUNDS {
        let path = folder.join("lone");
        let written = tokio::task::spawn_blocking(move || lone_writes(&path, bytes));
        lone.extend(written.await.map_err(setup)?.map_err(setup)?);
        let round = tokio::time::timeout(Duration::from_secs(ROUND_S_MAX), seen_round(host)).await;
        seen.extend(round.map_err(setup)??);
    }
    figures.add("seen_agents", count(SEEN_AGENTS));
    figures.add("seen_messages", count(seen.len()));
    figures.add("seen_messages_per_s", 1e3 / count(usize::try_from(SEEN_GAP_MS).unwrap_or(usize::MAX)));
    for (name, samples, percent) in [
        ("lone_sync_p50_us", &lone, 50),
        ("lone_sync_p99_us", &lone, 99),
        ("sent_to_seen_p50_us", &seen, 50),
        ("sent_to_seen_p99_us", &seen, 99),
    ] {
        figures.add(name, percentile(samples.clone(), percent));
    }
    figures.add("sent_to_seen_p99_over_fsync", figures.get("sent_to_seen_p99_us") / figures.get("lone_sync_p99_us"));
    Ok(())
}

fn seer(n: usize) -> String {
    format!("seer-{}", n % SEEN_AGENTS)
}

/// Appends to a file and syncs, one write at a time; returns how long each took in µs.
fn lone_writes(path: &Path, bytes: usize) -> std::io::Result<Vec<f64>> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    let record = vec![b'x'; bytes];
    let mut took_us = Vec::with_capacity(LONE_WRITES);
    for _ in 0..LONE_WRITES {
        let began = now();
        file.write_all(&record)?;
        file.sync_all()?;
        took_us.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took_us)
}

/// Lets each agent tell the next one when it called; returns how much later each word was there, in µs.
async fn seen_round(host: &Host) -> Result<Vec<f64>, BenchError> {
    let began = now();
    let (mut tellers, mut seers) = (JoinSet::new(), JoinSet::new());
    for n in 0..SEEN_AGENTS {
        let client = host.client()?;
        seers.spawn(async move {
            let (mut took_us, mut taken) = (Vec::new(), Vec::new());
            while took_us.len() < SEEN_EACH {
                let mail = wait(&client, &seer(n), &taken, 45).await?;
                let seen_us = began.elapsed().as_secs_f64() * 1e6;
                for message in &mail {
                    let sent_us: f64 = message["subject"].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
                    took_us.push(seen_us - sent_us);
                }
                taken = mail.iter().map(|message| message["id"].clone()).collect();
            }
            wait(&client, &seer(n), &taken, 0).await?;
            Ok::<_, BenchError>(took_us)
        });
        let client = host.client()?;
        tellers.spawn(async move {
            for turn in 0..SEEN_EACH {
                let at = Duration::from_millis(SEEN_GAP_MS) * u32::try_from(turn * SEEN_AGENTS + n).unwrap_or(u32::MAX);
                tokio::time::sleep(at.saturating_sub(began.elapsed())).await;
                let sent_us = began.elapsed().as_secs_f64() * 1e6;
                let to = format!("agent:{}", seer(n + 1));
                let message = json!({"agent": seer(n), "to": [to], "subject": sent_us.to_string(), "body": "x".repeat(BODY_BYTES)});
                call(&client, "send_message", message).await?;
            }
            Ok::<_, BenchError>(())
        });
    }
    while let Some(ended) = tellers.join_next().await {
        ended.map_err(setup)??;
    }
    let mut all = Vec::new();
    while let Some(ended) = seers.join_next().await {
        all.extend(ended.map_err(setup)??);
    }
    Ok(all)
}
