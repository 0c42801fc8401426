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
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pointsman::adapters::system::raise_open_files;
use pointsman_client::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

pub(crate) use self::records::{commit_again, commit_all, sends};

use crate::figures::{BenchError, Figures, count, now, percentile, setup};
use crate::line::tool_call;
use crate::stage::{Host, Raw, call, folder, lone_writes};
use crate::syncs::Syncs;

/// Clients that send at once; as many writers commit the same records raw.
pub(crate) const SENDERS: usize = 64;
/// Messages that each of them sends in one round.
const SENDS_EACH: usize = 60;
/// Bytes of a message's body.
const BODY_BYTES: usize = 512;
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
/// Seconds that all messages of a round may take.
const ROUND_S_MAX: u64 = 300;

pub(crate) async fn measure() -> Result<Figures, BenchError> {
    raise_open_files().map_err(setup)?;
    let folder = folder()?;
    let syncs = Syncs::begin(folder.path()).await?;
    let recorded = record(&folder.path().join("recorded")).await?;
    let mut figures = Figures::default();
    let host = Host::start(&folder.path().join("host"), (0..SENDERS).map(sender), |command| syncs.of(command)).await?;
    sends_and_raw(&host, recorded, &syncs, &mut figures).await?;
    round_trips(&host, &mut figures).await?;
    sent_to_seen(&host, folder.path(), &mut figures).await?;
    host.kill().await?;
    waiting::measure(&folder.path().join("waiting"), &mut figures).await?;
    Ok(figures)
}

/// Lets every sender send its messages of a round, all at once; returns the seconds it took.
async fn send_round(host: &Host, round: usize) -> Result<f64, BenchError> {
    let of = |n: usize, message: usize| {
        let (to, key) = (format!("agent:{}", sender((n + message + 1) % SENDERS)), format!("{round}-{n}-{message}"));
        let body = "x".repeat(BODY_BYTES);
        let arguments = json!({"agent": sender(n), "to": [to], "subject": key, "body": body, "idempotency_key": key});
        tool_call(&host.token, "send_message", &arguments)
    };
    host.call_all((0..SENDERS).map(|n| (0..SENDS_EACH).map(|message| of(n, message)).collect()).collect()).await
}

fn sender(n: usize) -> String {
    format!("sender-{n}")
}

/// Lets a host store the messages of one round; returns where its store stands, once it ended.
///
/// # Errors
/// The host does not start or refuses a message.
pub(crate) async fn record(folder: &Path) -> Result<PathBuf, BenchError> {
    let host = Host::start(folder, (0..SENDERS).map(sender), |_| {}).await?;
    send_round(&host, 0).await?;
    host.kill().await?;
    Ok(folder.join("data/store"))
}

async fn sends_and_raw(host: &Host, recorded: PathBuf, syncs: &Syncs, figures: &mut Figures) -> Result<(), BenchError> {
    let raw = Raw { flag: "--raw-commits", recorded };
    let beside = raw.beside(count(SENDERS * SENDS_EACH), syncs, |round| send_round(host, round)).await?;
    figures.add("senders", count(SENDERS));
    figures.add("record_bytes", beside.record_bytes);
    figures.add("sends_per_s", beside.per_s);
    figures.add("sends_per_sync", beside.per_sync);
    figures.add("raw_commits_per_s", beside.raw_per_s);
    figures.add("raw_commits_per_sync", beside.raw_per_sync);
    figures.add("send_ratio_vs_raw_store", figures.get("sends_per_s") / figures.get("raw_commits_per_s"));
    Ok(())
}

/// Agents in a ring: each sends to the next, waits for what the one before it sent, and acks it with its next wait.
async fn round_trips(host: &Host, figures: &mut Figures) -> Result<(), BenchError> {
    let ready = Arc::new(tokio::sync::Barrier::new(TRIP_AGENTS + 1));
    let mut ring = JoinSet::new();
    let name = |n: usize| format!("trip-{}", n % TRIP_AGENTS);
    host.begin((0..TRIP_AGENTS).map(name)).await?;
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
    host.begin((0..SEEN_AGENTS).map(seer)).await?;
    // As many bytes as a send writes, so that what differs is the way there.
    let bytes = figures.get("record_bytes");
    let (mut lone, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..SEEN_ROUNDS {
        lone.extend(lone_writes(folder, bytes).await?);
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
