//! Written to seen: one agent writes a document now and then, fifty wait for what happens in its folder.
//!
//! Each wait goes on where the last one came to (`after`), so that no version is missed however late a subscriber asks again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_client::Client;
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::noise::Noise;
use super::{ROUND_S_MAX, value, version};
use crate::figures::{BenchError, Figures, count, now, percentile, setup};
use crate::stage::{Host, call, lone_writes};

/// Agents that wait.
const SUBSCRIBERS: usize = 50;
/// What they wait for, what is written, and what its events call it.
const WATCHED: &str = "plan/**";
const KEY: &str = "plan/x";
const SUBJECT: &str = "ctx:plan/x";
/// Who writes.
const WRITER: &str = "planner";
/// Rounds of lone writes and of writes that are seen, in turn; the samples of all are taken together.
const ROUNDS: u64 = 3;
/// Writes of one round.
const WRITES: u64 = 100;
/// Milliseconds between two of them.
const GAP_MS: u64 = 50;
/// Seconds of one wait.
const WAIT_S: u64 = 45;

pub(super) async fn measure(host: &Host, folder: &Path, figures: &mut Figures) -> Result<(), BenchError> {
    host.begin((0..SUBSCRIBERS).map(subscriber).chain([WRITER.to_owned()])).await?;
    let (mut lone, mut seen) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // As many bytes as a write commits, so that what differs is the way there.
        lone.extend(lone_writes(folder, figures.get("record_bytes")).await?);
        let samples = tokio::time::timeout(Duration::from_secs(ROUND_S_MAX), seen_round(host, round * WRITES)).await;
        seen.extend(samples.map_err(setup)??);
    }
    figures.add("subscribers", count(SUBSCRIBERS));
    figures.add("seen_writes", count(seen.len()));
    for (name, samples, percent) in
        [("lone_sync_p50_us", &lone, 50), ("lone_sync_p99_us", &lone, 99), ("notify_p50_us", &seen, 50), ("notify_p99_us", &seen, 99)]
    {
        figures.add(name, percentile(samples.clone(), percent));
    }
    figures.add_for("notify_p99_over_fsync", figures.get("notify_p99_us") / figures.get("lone_sync_p99_us"), "<= 6");
    Ok(())
}

fn subscriber(n: usize) -> String {
    format!("subscriber-{n}")
}

/// Lets the document be written, from this version on; returns how much later each version was seen by each subscriber, in µs.
async fn seen_round(host: &Host, known: u64) -> Result<Vec<f64>, BenchError> {
    let (began, ready) = (now(), Arc::new(Barrier::new(SUBSCRIBERS + 1)));
    let mut subscribers = JoinSet::new();
    for n in 0..SUBSCRIBERS {
        let (client, ready) = (host.client()?, Arc::clone(&ready));
        subscribers.spawn(async move {
            let mut cursor = wait(&client, n, None, 0).await?.0;
            ready.wait().await;
            let mut seen = BTreeMap::new();
            while !seen.contains_key(&(known + WRITES)) {
                let (further, versions) = wait(&client, n, Some(cursor), WAIT_S).await?;
                let at_us = began.elapsed().as_secs_f64() * 1e6;
                seen.extend(versions.into_iter().map(|version| (version, at_us)));
                cursor = further;
            }
            Ok::<_, BenchError>(seen)
        });
    }
    let writing = write(host, known, &ready, began);
    let hearing = async {
        let mut all = Vec::new();
        while let Some(ended) = subscribers.join_next().await {
            all.push(ended.map_err(setup)??);
        }
        Ok::<_, BenchError>(all)
    };
    let (written, all) = tokio::try_join!(writing, hearing)?;
    let mut took_us = Vec::with_capacity(all.len() * written.len());
    for seen in all {
        for (version, written_us) in &written {
            let seen_us = seen.get(version).ok_or_else(|| setup(format!("version {version} of {KEY} was not seen by all")))?;
            took_us.push(seen_us - written_us);
        }
    }
    Ok(took_us)
}

/// Writes now and then; returns when the call of each version began, in µs.
async fn write(host: &Host, known: u64, ready: &Barrier, began: std::time::Instant) -> Result<Vec<(u64, f64)>, BenchError> {
    let (client, mut noise, mut written) = (host.client()?, Noise::of(known + 1), Vec::new());
    ready.wait().await;
    let first = began.elapsed();
    for n in 0..WRITES {
        tokio::time::sleep((first + Duration::from_millis(GAP_MS * (n + 1))).saturating_sub(began.elapsed())).await;
        let document = value(WRITER, known + n, &mut noise);
        let written_us = began.elapsed().as_secs_f64() * 1e6;
        let arguments = json!({"agent": WRITER, "key": KEY, "base_version": known + n, "value": document});
        let version = version(&call(&client, "write_context", arguments).await?)?;
        if version != known + n + 1 {
            return Err(setup(format!("the write from version {} of {KEY} made version {version}", known + n)));
        }
        written.push((version, written_us));
    }
    Ok(written)
}

/// Waits; returns where to go on, and the versions it heard of.
async fn wait(client: &Client, n: usize, after: Option<String>, max_s: u64) -> Result<(String, Vec<u64>), BenchError> {
    let mut arguments = json!({"agent": subscriber(n), "watch": [WATCHED], "max_s": max_s});
    if let Some(after) = after {
        arguments["after"] = after.into();
    }
    let answer = call(client, "wait_for_events", arguments).await?;
    let cursor = answer["cursor"].as_str().ok_or_else(|| setup("the answer of a wait has no cursor"))?.to_owned();
    let events = answer["events"].as_array().into_iter().flatten();
    let of_it = events.filter(|event| event["type"] == "context.written" && event["subject"] == SUBJECT);
    Ok((cursor, of_it.filter_map(|event| event["data"]["version"].as_u64()).collect()))
}
