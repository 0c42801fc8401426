//! The commits that a host made of sends, read back from its store, and the same ones committed again without a host.
//!
//! What one commit wrote carries one version, so the values of a send are found together, whatever they are by now; its events are
//! those about its message. Only the answer that is kept under the idempotency key cannot be read back: it is made again of what it says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman::ports::store::{Commit, DueChange, Expect, Idempotency, Store};
use pointsman_core::event::NewEvent;
use pointsman_core::time::TimeMs;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::SENDERS;
use crate::figures::{BenchError, count, now, setup};
use crate::recorded::{Recorded, Told, bytes_each};

/// What the key of a message begins with.
const MESSAGES: &str = "msg/";
/// What the keys of live and of ended deliveries begin with.
const DELIVERIES: [&str; 2] = ["dlv/", "fin/"];

/// Returns the commits of all sends in a store that no host uses.
///
/// # Errors
/// It cannot be read, or holds none.
pub(crate) async fn sends(folder: &Path) -> Result<Vec<Commit>, BenchError> {
    let recorded = Recorded::open(folder).await?;
    let mut events: BTreeMap<String, Vec<NewEvent>> = BTreeMap::new();
    for event in recorded.events().await? {
        events.entry(event.event.subject.clone()).or_default().push(event.event);
    }
    let mut due: BTreeMap<String, Vec<DueChange>> = BTreeMap::new();
    for entry in recorded.store.due(TimeMs(i64::MAX), usize::MAX).await.map_err(setup)? {
        let about = entry.name.rsplit('/').next().unwrap_or_default().to_owned();
        due.entry(about).or_default().push(DueChange::Set { name: entry.name, at: entry.at });
    }
    let mut sends = Vec::new();
    for puts in recorded.written().await?.into_values() {
        let Some(message) = puts.iter().find_map(|(key, _)| key.strip_prefix(MESSAGES)).map(str::to_owned) else { continue };
        let events = events.remove(&message).unwrap_or_default();
        sends.push(Commit {
            project: Some(recorded.project),
            expects: puts.iter().flat_map(|(key, _)| absent(key)).collect(),
            idempotency: once(&message, &events),
            due: due.remove(&message).unwrap_or_default(),
            puts,
            events,
            ..Commit::default()
        });
    }
    if sends.is_empty() { Err(setup("the store has no messages")) } else { Ok(sends) }
}

/// Returns what a send expects not to find where it writes a delivery: that one, and one that ended.
fn absent(key: &str) -> Vec<(String, Expect)> {
    match key.strip_prefix(DELIVERIES[0]) {
        Some(rest) => DELIVERIES.iter().map(|kind| (format!("{kind}{rest}"), Expect::Absent)).collect(),
        None => Vec::new(),
    }
}

/// Returns the record that answers a repeated send: as long as that of the host.
fn once(message: &str, events: &[NewEvent]) -> Option<Idempotency> {
    let sent = events.iter().find(|event| event.kind == "message.sent")?;
    let routed = events.iter().find(|event| event.kind == "message.routed")?;
    let name = routed.data["address"].as_str().unwrap_or_default().trim_start_matches("agent:");
    let to = json!({"agent": name, "id": routed.data["agents"][0], "address": routed.data["address"], "reason": routed.data["reason"], "router": Value::Null});
    let receipt = json!({"message": message, "thread": sent.data["thread"], "routed": [to], "deferred": [], "dropped": []});
    Some(Idempotency {
        principal: sent.actor.agent.map(|agent| agent.to_string()).unwrap_or_default(),
        operation: "send_message".to_owned(),
        key: message.to_owned(),
        request_digest: [7; 32],
        response: receipt.to_string().into_bytes(),
    })
}

/// Lets all senders at once commit to a store, each its share one after another; returns the seconds it took.
///
/// # Errors
/// A commit was refused.
pub(crate) async fn commit_all(store: Arc<dyn Store>, commits: Vec<Commit>) -> Result<f64, BenchError> {
    let mut shares: Vec<Vec<Commit>> = (0..SENDERS).map(|_| Vec::new()).collect();
    for (n, commit) in commits.into_iter().enumerate() {
        shares[n % SENDERS].push(commit);
    }
    let began = now();
    let mut senders = JoinSet::new();
    for share in shares {
        let store = Arc::clone(&store);
        senders.spawn(async move {
            for commit in share {
                store.commit(commit).await.map_err(setup)?;
            }
            Ok::<_, BenchError>(())
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.map_err(setup)??;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// The baseline, a process of its own: commits the sends of one store to a new one, and prints how long it took with how many syncs.
///
/// # Errors
/// There are no such sends, or they cannot be committed.
pub(crate) async fn commit_again(paths: &[PathBuf]) -> Result<(), BenchError> {
    let told = Told::of(paths)?;
    let commits = sends(told.recorded).await?;
    told.print(count(commits.len()), bytes_each(&commits)?, |store| commit_all(store, commits)).await
}
