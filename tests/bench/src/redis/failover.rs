//! A master that dies under load, with a Sentinel that promotes a replica: what is lost, and how long nothing is answered.
//!
//! Two stores with journals stand for two hosts; each of their writers sends one message after another, under a key, and repeats what
//! is not answered. The pause is the longest time between two answers around the death; the Sentinel takes a master for dead after
//! [`DOWN_AFTER_MS`] of silence, which is part of it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pointsman::adapters::redis::{RedisOptions, RedisStore};
use pointsman::adapters::system::OsSystem;
use pointsman::ports::store::{Commit, Committed, Expect, Idempotency, Store};
use pointsman_core::ids::ProjectId;
use tokio::task::JoinSet;

use super::server::Server;
use crate::figures::{BenchError, Figures, count, median, now, setup};

/// Masters that die.
const ROUNDS: usize = 3;
/// Writers of each host.
const WRITERS: usize = 4;
/// Milliseconds of silence after which the Sentinel takes a master for dead.
const DOWN_AFTER_MS: u64 = 500;
/// Load before the death, and after the first answer that follows it.
const AROUND: Duration = Duration::from_secs(1);
/// Milliseconds before what was not answered is repeated.
const REPEAT: Duration = Duration::from_millis(10);
/// How long a round may take.
const ROUND_MAX: Duration = Duration::from_secs(60);
const MASTER: &str = "main";

/// Adds what failovers lose, and how long they take.
pub(super) async fn measure(folder: &Path, figures: &mut Figures) -> Result<(), BenchError> {
    let (mut pauses, mut answered, mut lost) = (Vec::new(), 0, 0);
    for round in 0..ROUNDS {
        let folder = folder.join(format!("failover-{round}"));
        let one = tokio::time::timeout(ROUND_MAX, fail_over(&folder)).await.map_err(|_| setup("no replica was promoted in time"))??;
        pauses.push(one.pause_ms);
        answered += one.answered;
        lost += one.lost;
    }
    figures.add("failover_down_after_ms", count(usize::try_from(DOWN_AFTER_MS).unwrap_or(0)));
    figures.add("failover_pause_ms", median(pauses));
    figures.add("failover_answered", count(answered));
    figures.add("failover_lost", count(lost));
    Ok(())
}

/// What came of one death.
struct Failover {
    pause_ms: f64,
    answered: usize,
    lost: usize,
}

/// What was answered, and when.
#[derive(Default)]
struct Answered(Mutex<Vec<(Instant, String)>>);

impl Answered {
    fn count(&self) -> usize {
        self.0.lock().len()
    }
}

async fn fail_over(folder: &Path) -> Result<Failover, BenchError> {
    let data = |name: &str| {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).map_err(setup).map(|()| folder)
    };
    let master = Server::start(&data("master")?).await?;
    let follow = ["--replicaof", "127.0.0.1", &master.port().to_string()].map(str::to_owned);
    let _replicas = [Server::start_with(&data("replica-1")?, &follow).await?, Server::start_with(&data("replica-2")?, &follow).await?];
    let sentinel = Server::sentinel(&data("sentinel")?, MASTER, master.port(), DOWN_AFTER_MS).await?;
    let address = format!("redis+sentinel://127.0.0.1:{}/{MASTER}", sentinel.port());
    let mut stores = Vec::new();
    for host in ["host-1", "host-2"] {
        let options = RedisOptions::new(address.parse().map_err(setup)?, Arc::new(OsSystem));
        let store = RedisStore::open(&RedisOptions { journal: Some(folder.join(host)), ..options }).await.map_err(setup)?;
        stores.push(Arc::new(store));
    }
    let project = ProjectId::from_bytes([7; 16]);
    let (answered, is_over) = (Arc::new(Answered::default()), Arc::new(AtomicBool::new(false)));
    let mut writers = JoinSet::new();
    for (host, store) in stores.iter().enumerate() {
        for writer in 0..WRITERS {
            let (store, answered, is_over) = (Arc::clone(store), Arc::clone(&answered), Arc::clone(&is_over));
            writers.spawn(async move { write(&store, project, &format!("{host}-{writer}"), &answered, &is_over).await });
        }
    }
    tokio::time::sleep(AROUND).await;
    let (died_at, before) = (now(), answered.count());
    drop(master);
    while answered.count() < before + 2 * stores.len() * WRITERS {
        tokio::time::sleep(REPEAT).await;
    }
    tokio::time::sleep(AROUND).await;
    is_over.store(true, Ordering::Relaxed);
    while writers.join_next().await.is_some() {}

    let answered = std::mem::take(&mut *answered.0.lock());
    let mut kept = HashSet::new();
    let mut from = String::new();
    loop {
        let page = stores[0].range(Some(project), "m/", &from, 1_000).await.map_err(setup)?;
        kept.extend(page.entries.into_iter().map(|(key, _)| key));
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    let mut at: Vec<Instant> = answered.iter().map(|(at, _)| *at).collect();
    at.sort_unstable();
    let around = at.windows(2).filter(|pair| pair[1] >= died_at);
    let pause_ms = around.map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).fold(0.0, f64::max);
    let lost = answered.iter().filter(|(_, key)| !kept.contains(key)).count();
    Ok(Failover { pause_ms, answered: answered.len(), lost })
}

async fn write(store: &RedisStore, project: ProjectId, name: &str, answered: &Answered, is_over: &AtomicBool) {
    for n in 0_u64.. {
        let key = format!("m/{name}-{n}");
        let commit = || Commit {
            project: Some(project),
            expects: vec![(key.clone(), Expect::Absent)],
            idempotency: Some(Idempotency {
                principal: "bench".to_owned(),
                operation: "send".to_owned(),
                key: key.clone(),
                request_digest: [1; 32],
                response: Vec::new(),
            }),
            puts: vec![(key.clone(), vec![b'x'; 1_024])],
            ..Commit::default()
        };
        while !matches!(store.commit(commit()).await, Ok(Committed::Done { .. } | Committed::Replayed(_))) {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(REPEAT).await;
        }
        answered.0.lock().push((now(), key));
        if is_over.load(Ordering::Relaxed) {
            return;
        }
    }
}
