//! The commits that a host made of writes, read back from its store, and the same ones committed again without a host.
//!
//! Of an earlier write only its version is left as it was; what the next one overwrote, such as the head, is taken from the last write of
//! that document, where it has the same length but for digits. The answer that is kept under the idempotency key is made again.
//!
//! **Invariant:** the writes of a document are committed in their order, each expecting the head of the one before, as the host does.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman::ports::store::{Commit, Committed, Expect, Idempotency, Store};
use pointsman_core::context::SUBJECT_PREFIX;
use pointsman_core::event::NewEvent;
use serde_json::json;
use tokio::task::JoinSet;

use super::{FOLDER, WRITERS, once};
use crate::figures::{BenchError, count, now, setup};
use crate::recorded::{Recorded, Told, bytes_each};

/// What the keys of what belongs to documents begin with.
const CONTEXT: &str = "ctx-";
/// What the keys of heads begin with.
const HEADS: &str = "ctx-head/";
/// The event of a write.
const WRITTEN: &str = "context.written";

/// A write as the host committed it, but for what it expects of its head.
struct Write {
    head: String,
    commit: Commit,
}

/// What a commit put.
type Puts = Vec<(String, Vec<u8>)>;

/// Returns the writes of each writer in a store that no host uses, in their order.
async fn writes(folder: &Path) -> Result<Vec<Vec<Write>>, BenchError> {
    let recorded = Recorded::open(folder).await?;
    let mine = |(key, _): &(String, Vec<u8>)| key.starts_with(CONTEXT) && key.contains(&format!("/{FOLDER}"));
    let groups: Vec<Puts> = recorded.written().await?.into_values().filter(|puts| puts.iter().any(mine)).collect();
    let is_written = |event: &NewEvent| event.kind == WRITTEN && event.subject.starts_with(&format!("{SUBJECT_PREFIX}{FOLDER}"));
    let events: Vec<NewEvent> = recorded.events().await?.into_iter().map(|event| event.event).filter(is_written).collect();
    // A project's commits are made one after another: the values of the first stand beside the event of the first.
    if groups.is_empty() || groups.len() != events.len() {
        return Err(setup(format!("the store has {} writes and {} events of writes", groups.len(), events.len())));
    }
    let last: HashMap<String, Puts> = events.iter().zip(&groups).map(|(event, puts)| (event.subject.clone(), puts.clone())).collect();
    let mut writers: BTreeMap<String, Vec<Write>> = BTreeMap::new();
    for (event, mut puts) in events.into_iter().zip(groups) {
        let overwritten = |(key, _): &&(String, Vec<u8>)| puts.iter().all(|(own, _)| kind(own) != kind(key));
        let filled: Puts = last[&event.subject].iter().filter(overwritten).cloned().collect();
        puts.extend(filled);
        let head = puts.iter().find_map(|(key, _)| key.starts_with(HEADS).then(|| key.clone()));
        let head = head.ok_or_else(|| setup(format!("a write put nothing under {HEADS}")))?;
        let by = event.actor.agent.map(|agent| agent.to_string()).unwrap_or_default();
        let idempotency = Some(answered(&by, &event));
        let commit = Commit { project: Some(recorded.project), idempotency, puts, events: vec![event], ..Commit::default() };
        writers.entry(by).or_default().push(Write { head, commit });
    }
    if writers.len() == WRITERS { Ok(writers.into_values().collect()) } else { Err(setup("the store has not the writes of all writers")) }
}

/// Returns what a key is of: keys of one kind differ by document, or by document and version.
fn kind(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}

/// Returns the record that answers a repeated write: as long as that of the host.
fn answered(by: &str, event: &NewEvent) -> Idempotency {
    let version = event.data["version"].as_u64().unwrap_or(0);
    let answer = json!({"outcome": "applied", "version": version, "merged_with": null, "plugin": null, "unchanged": false});
    Idempotency {
        principal: by.to_owned(),
        operation: "write_context".to_owned(),
        key: once(event.subject.trim_start_matches(SUBJECT_PREFIX), version),
        request_digest: [7; 32],
        response: answer.to_string().into_bytes(),
    }
}

/// Lets all writers at once commit to a store, each its writes one after another; returns the seconds it took.
async fn commit_all(store: Arc<dyn Store>, writes: Vec<Vec<Write>>) -> Result<f64, BenchError> {
    let began = now();
    let mut writers = JoinSet::new();
    for own in writes {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut heads = HashMap::new();
            for Write { head, mut commit } in own {
                let expected = heads.get(&head).map_or(Expect::Absent, |version| Expect::Version(*version));
                commit.expects.push((head.clone(), expected));
                match store.commit(commit).await.map_err(setup)? {
                    Committed::Done { version, .. } => heads.insert(head, version),
                    Committed::Replayed(_) | Committed::Kept => return Err(setup(format!("{head} was not written anew"))),
                };
            }
            Ok::<_, BenchError>(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.map_err(setup)??;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// The baseline, a process of its own: commits the writes of one store to a new one, and prints how long it took with how many syncs.
///
/// # Errors
/// There are no such writes, or they cannot be committed.
pub(crate) async fn commit_again(paths: &[PathBuf]) -> Result<(), BenchError> {
    let told = Told::of(paths)?;
    let writes = writes(told.recorded).await?;
    let bytes = bytes_each(writes.iter().flatten().map(|write| &write.commit))?;
    told.print(count(writes.iter().map(Vec::len).sum()), bytes, |store| commit_all(store, writes)).await
}
