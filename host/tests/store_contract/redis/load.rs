//! A load on several hosts at once, each with a journal of its own, and the count of what came of it.
//!
//! Each worker takes turns: it sends a message (a new value, an event), and it raises a counter from what it read (a compare-and-set).
//! Each carries a key and is repeated until it is answered. What was answered has to be there at the end, once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use pointsman::adapters::redis::RedisStore;
use pointsman::ports::store::{Commit, Committed, Expect, Store, StoreError};
use pointsman_core::event::Cursor;
use pointsman_core::ids::ProjectId;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use super::servers::{LOOK, SOON, eventually, options};
use crate::kit::{call, event, of, project, put};

const COUNTER: &str = "counter";

/// Several hosts on one Redis.
pub(super) struct Hosts {
    pub(super) stores: Vec<Arc<RedisStore>>,
    /// Their journals.
    folders: Vec<TempDir>,
}

impl Hosts {
    pub(super) async fn open(url: &str, count: usize) -> Self {
        Self::at(&vec![url.to_owned(); count]).await
    }

    /// Opens a host at each of these addresses.
    pub(super) async fn at(urls: &[String]) -> Self {
        // What the hosts say is shown where a test fails.
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_test_writer().try_init();
        let mut hosts = Self { stores: Vec::new(), folders: Vec::new() };
        for url in urls {
            let folder = tempfile::tempdir().expect("a folder");
            let journalled = pointsman::adapters::redis::RedisOptions { journal: Some(folder.path().to_owned()), ..options(url, "p") };
            hosts.stores.push(Arc::new(RedisStore::open(&journalled).await.expect("the store opens")));
            hosts.folders.push(folder);
        }
        hosts
    }
}

/// What was answered.
#[derive(Default)]
struct Answered {
    sent: Mutex<HashSet<String>>,
    /// Who raised the counter to what, and what they were told.
    raised: Mutex<BTreeMap<u64, Vec<(String, Committed)>>>,
    refused: AtomicU64,
    /// Raises that were not answered at first, and then refused: what was built on them may have brought them in.
    doubtful: AtomicU64,
}

/// A load that goes on until it is ended.
pub(super) struct Load {
    project: ProjectId,
    answered: Arc<Answered>,
    is_over: Arc<AtomicBool>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(hosts: &Hosts, workers: usize) -> Self {
        let (project, answered, is_over) = (project(), Arc::new(Answered::default()), Arc::new(AtomicBool::new(false)));
        let workers = (0..workers).map(|worker| {
            let store = Arc::clone(&hosts.stores[worker % hosts.stores.len()]);
            let (answered, is_over) = (Arc::clone(&answered), Arc::clone(&is_over));
            tokio::spawn(async move {
                for turn in 0_u64.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("{worker}-{turn}");
                    send(&store, project, &answered, &name).await;
                    raise(&store, project, &answered, &name).await;
                }
            })
        });
        Self { project, answered: Arc::clone(&answered), is_over: Arc::clone(&is_over), workers: workers.collect() }
    }

    /// Returns how many messages were answered.
    pub(super) fn sent(&self) -> usize {
        self.answered.sent.lock().len()
    }

    /// Waits until so many more messages were answered.
    pub(super) async fn goes_on(&self, more: usize) {
        let before = self.sent();
        eventually("the load goes on", || async { (self.sent() >= before + more).then_some(()) }).await;
    }

    /// Ends the load, counts, and checks that nothing was lost and nothing done twice, as each host sees it.
    pub(super) async fn end(self, hosts: &Hosts) {
        self.is_over.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await.expect("a worker ends well");
        }
        let (sent, raised) = (self.answered.sent.lock().clone(), self.answered.raised.lock().clone());
        for store in &hosts.stores {
            let (mut seen, mut count, mut after) = (HashSet::new(), 0, Cursor::default());
            loop {
                let page = eventually("the log is read", || async { store.events(Some(self.project), after, 1_000).await.ok() }).await;
                let Some(last) = page.last() else { break };
                after = last.cursor;
                for event in page.iter().filter_map(|event| event.event.data["sent"].as_str()) {
                    count += 1;
                    seen.insert(event.to_owned());
                }
            }
            let lost: Vec<&String> = sent.difference(&seen).collect();
            let doubled = count - seen.len();
            let stands = counter(store, self.project).await.map_or(0, |(value, _)| value);
            let twice: Vec<_> = raised.iter().filter(|(_, by)| by.len() > 1).collect();
            println!(
                "answered {} messages and {} raises ({} refusals), found {}, lost {}, doubled {doubled}, granted twice {}",
                sent.len(),
                raised.len(),
                self.answered.refused.load(Ordering::Relaxed),
                seen.len(),
                lost.len(),
                twice.len()
            );
            assert!(lost.is_empty() && doubled == 0 && twice.is_empty(), "nothing is lost, doubled or granted twice: {twice:?}");
            let doubtful = self.answered.doubtful.load(Ordering::Relaxed);
            let counted = raised.len() as u64;
            assert!(
                (counted..=counted + doubtful).contains(&stands),
                "{counted} raises were answered, {doubtful} in doubt, it stands at {stands}"
            );
        }
    }
}

/// Commits until it is answered; none: what it was decided on has changed.
async fn answered(store: &RedisStore, answered: &Answered, commit: impl Fn() -> Commit + Send) -> Option<Committed> {
    let asking = async {
        let mut doubt = 0;
        loop {
            match store.commit(commit()).await {
                Ok(committed) => return Some(committed),
                Err(StoreError::Stale { .. }) => {
                    answered.doubtful.fetch_add(doubt, Ordering::Relaxed);
                    return None;
                }
                Err(StoreError::Unavailable { .. }) => {
                    answered.refused.fetch_add(1, Ordering::Relaxed);
                    doubt = 1;
                }
                Err(other) => panic!("{other}"),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    timeout(SOON, asking).await.expect("a commit is answered in time")
}

async fn send(store: &RedisStore, project: ProjectId, counts: &Answered, name: &str) {
    let key = format!("m/{name}");
    let commit = || Commit {
        expects: vec![(key.clone(), Expect::Absent)],
        idempotency: call(&format!("send {name}"), 1, b"sent"),
        events: vec![event(json!({"sent": name}))],
        ..put(project, &key, name.as_bytes())
    };
    if answered(store, counts, commit).await.is_none() {
        // What nobody was told of may have been undone, and its own value be there all the same: nobody else sends it.
        let found = eventually("it is read", || async { store.get(Some(project), &key).await.ok() }).await;
        assert_eq!(found.map(|found| found.bytes), Some(name.as_bytes().to_vec()), "{name}");
        return;
    }
    counts.sent.lock().insert(name.to_owned());
}

async fn counter(store: &RedisStore, project: ProjectId) -> Option<(u64, u64)> {
    let reading = async {
        loop {
            if let Ok(found) = store.get(Some(project), COUNTER).await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let found = timeout(SOON, reading).await.expect("the counter is read in time")?;
    Some((String::from_utf8(found.bytes).ok()?.parse().ok()?, found.version))
}

async fn raise(store: &RedisStore, project: ProjectId, counts: &Answered, name: &str) {
    for attempt in 0.. {
        let stands = counter(store, project).await;
        let (value, expect) = stands.map_or((1, Expect::Absent), |(value, version)| (value + 1, Expect::Version(version)));
        let text = value.to_string();
        let commit = || Commit {
            expects: vec![(COUNTER.to_owned(), expect)],
            idempotency: call(&format!("raise {name} {attempt}"), 1, text.as_bytes()),
            puts: vec![(COUNTER.to_owned(), text.clone().into_bytes())],
            ..of(project)
        };
        if let Some(committed) = answered(store, counts, commit).await {
            counts.raised.lock().entry(value).or_default().push((name.to_owned(), committed));
            return;
        }
        tokio::time::sleep(LOOK / 4).await;
    }
}
