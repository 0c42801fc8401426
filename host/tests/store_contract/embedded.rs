//! What the embedded store promises beyond the port: its folder, its clock, its limits, its refusals.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use pointsman::adapters::embedded::{EmbeddedStore, OpenError, Options};
use pointsman::adapters::system::{OsSystem, wall_clock_ms};
use pointsman::ports::store::{Commit, Committed, Store, StoreError};
use pointsman_core::limits::IDEMPOTENCY_KEPT_MS;
use pointsman_core::time::TimeMs;
use tempfile::TempDir;

use crate::kit::{Subject, all_at_once, bytes, call, done, numbered, numbers, of, project, put};

/// An embedded store in a folder that is removed with it.
pub(crate) struct Embedded {
    store: Arc<EmbeddedStore>,
    folder: TempDir,
}

#[async_trait]
impl Subject for Embedded {
    async fn fresh() -> Self {
        let folder = tempfile::tempdir().expect("a folder is made");
        Self { store: Arc::new(open(&folder.path().join("store")).expect("the store opens")), folder }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn reopened(self) -> Self {
        let Self { store, folder } = self;
        drop(Arc::into_inner(store).expect("nobody else holds the store"));
        Self { store: Arc::new(open(&folder.path().join("store")).expect("the store opens again")), folder }
    }
}

pub(crate) fn open(folder: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(folder, Options::new(wall_clock_ms, Arc::new(OsSystem)))
}

fn open_at(folder: &Path, clock: &Arc<AtomicI64>) -> EmbeddedStore {
    let clock = Arc::clone(clock);
    EmbeddedStore::open(folder, Options::new(move || TimeMs(clock.load(Ordering::SeqCst)), Arc::new(OsSystem))).expect("the store opens")
}

fn folder() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a folder is made");
    let folder = parent.path().join("deep/store");
    (parent, folder)
}

fn why(opened: Result<EmbeddedStore, OpenError>) -> String {
    match opened {
        Ok(_) => panic!("it opens"),
        Err(OpenError::Damaged { why, .. }) => why,
        Err(other) => panic!("{other}"),
    }
}

async fn filled(folder: &Path, commits: u64) {
    let (store, project) = (open(folder).expect("the store opens"), project());
    for n in 0..commits {
        done(&store, Commit { events: vec![numbered(n)], ..put(project, "k", &[7; 2_000]) }).await;
    }
    store.close().await;
}

#[tokio::test]
async fn a_second_host_is_refused() {
    let (_parent, folder) = folder();
    let store = open(&folder).expect("the store opens");
    match open(&folder) {
        Err(error @ OpenError::Locked { pid, .. }) => {
            assert_eq!(pid, Some(std::process::id()));
            assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
        }
        other => panic!("{:?}", other.map(|_| "it opens")),
    }
    store.ready().await.expect("the first one goes on");
    assert_eq!(std::fs::metadata(&folder).expect("the folder is there").permissions().mode() & 0o777, 0o700);
    drop(store);
    open(&folder).expect("the folder is free again");
}

#[tokio::test]
async fn a_newer_store_is_refused() {
    let (_parent, folder) = folder();
    filled(&folder, 3).await;
    {
        let database = fjall::Database::builder(folder.join("db")).open().expect("the database opens");
        let records = database.keyspace("records", fjall::KeyspaceCreateOptions::default).expect("the table opens");
        records.insert([0, b'f'], 2u32.to_be_bytes()).expect("the format is written");
    }
    let Err(OpenError::Newer { found: 2, known: 1, .. }) = open(&folder) else { panic!("it is not refused as newer") };
}

#[tokio::test]
async fn a_damaged_store_is_refused() {
    let (_parent, folder) = folder();
    filled(&folder, 20).await;
    open(&folder).expect("it is whole");
    let copy = |name: &str| {
        let to = folder.with_file_name(name);
        let done = std::process::Command::new("cp").arg("-r").arg(&folder).arg(&to).status().expect("cp runs");
        assert!(done.success());
        to
    };

    let gone = copy("gone");
    std::fs::remove_dir_all(gone.join("db")).expect("it is removed");
    assert!(why(open(&gone)).contains("gone"));
    assert!(why(open(&gone)).contains("gone"), "no new store is made over it");

    let foreign = copy("foreign");
    std::fs::write(foreign.join("db/version"), b"not a store").expect("it is written");
    why(open(&foreign));

    let emptied = copy("emptied");
    for entry in std::fs::read_dir(emptied.join("db/keyspaces")).expect("it is read") {
        std::fs::remove_dir_all(entry.expect("it is read").path()).expect("it is removed");
    }
    why(open(&emptied));

    // A cut or changed journal loses answered commits, wherever that happens.
    let journal = |folder: &Path| {
        let names = std::fs::read_dir(folder.join("db")).expect("it is read").map(|entry| entry.expect("it is read").path());
        names.filter(|path| path.extension().is_some_and(|end| end == "jnl")).max().expect("there is a journal")
    };
    let journal_bytes = std::fs::metadata(journal(&folder)).expect("it is there").len();
    for (number, at) in (1..8).map(|eighth| (eighth, journal_bytes * eighth / 8)) {
        let cut = copy(&format!("cut-{number}"));
        let file = std::fs::OpenOptions::new().write(true).open(journal(&cut)).expect("it opens");
        file.set_len(at).expect("it is cut");
        drop(file);
        why(open(&cut));

        let changed = copy(&format!("changed-{number}"));
        let file = std::fs::OpenOptions::new().write(true).open(journal(&changed)).expect("it opens");
        file.write_all_at(&[0xee; 64], at).expect("it is changed");
        drop(file);
        why(open(&changed));
    }
    open(&folder).expect("the original is untouched");
}

#[tokio::test]
async fn a_store_half_made_is_made_anew() {
    let (_parent, folder) = folder();
    std::fs::create_dir_all(folder.join("db.new/keyspaces/0")).expect("it is made");
    std::fs::write(folder.join("db.new/0.jnl"), b"half").expect("it is written");
    filled(&folder, 1).await;
    assert!(!folder.join("db.new").exists());
}

#[tokio::test]
async fn time_never_goes_back() {
    let (_parent, folder) = folder();
    let (clock, project) = (Arc::new(AtomicI64::new(1_000_000)), project());
    let store = open_at(&folder, &clock);
    assert_eq!(store.now(), TimeMs(1_000_000));
    clock.store(500, Ordering::SeqCst);
    assert!(store.now() >= TimeMs(1_000_000));
    let Ok(Committed::Done { at, .. }) = store.commit(put(project, "k", b"v")).await else { panic!("it is accepted") };
    assert!(at >= TimeMs(1_000_000) && at < TimeMs(1_060_000));
    drop(store);
    let store = open_at(&folder, &clock);
    assert!(store.now() >= at);
    clock.store(2_000_000, Ordering::SeqCst);
    assert_eq!(store.now(), TimeMs(2_000_000));
}

#[tokio::test]
async fn calls_are_forgotten_when_their_time_is_over() {
    let (_parent, folder) = folder();
    let kept_ms = i64::try_from(IDEMPOTENCY_KEPT_MS).expect("days fit");
    let (clock, project) = (Arc::new(AtomicI64::new(1_000)), project());
    let calling = |key: String, request: u8| Commit { idempotency: call(&key, request, b"r"), ..of(project) };
    let mut store = open_at(&folder, &clock);
    let outcomes = all_at_once((0..1_500).map(|n| store.commit(calling(format!("old-{n}"), 1)))).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Committed::Done { .. }))));

    clock.store(kept_ms - 60_000, Ordering::SeqCst);
    assert_eq!(store.commit(calling("old-7".to_owned(), 1)).await, Ok(Committed::Replayed(b"r".to_vec())));
    clock.store(kept_ms + 600_000, Ordering::SeqCst);
    assert_eq!(store.answered(Some(project), "own_ana", "send_message", "old-7", &[1; 32]).await, Ok(None));
    done(&store, calling("old-7".to_owned(), 2)).await;

    // Each group takes away more than it can add; the record made anew stays.
    for n in 0..6 {
        if n == 2 {
            drop(store);
            store = open_at(&folder, &clock);
        }
        done(&store, calling(format!("new-{n}"), 1)).await;
    }
    assert_eq!(store.answered(Some(project), "own_ana", "send_message", "old-7", &[2; 32]).await, Ok(Some(b"r".to_vec())));
    drop(store);
    let database = fjall::Database::builder(folder.join("db")).open().expect("the database opens");
    let records = database.keyspace("records", fjall::KeyspaceCreateOptions::default).expect("the table opens");
    assert_eq!((records.prefix([5]).count(), records.prefix([6]).count()), (7, 7), "seven live calls, each by name and by age");
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let (_parent, folder) = folder();
    let options = Options { commits_queued_max: 1, ..Options::new(wall_clock_ms, Arc::new(OsSystem)) };
    let (store, project) = (EmbeddedStore::open(&folder, options).expect("the store opens"), project());
    let commits = (0..200u64).map(|n| store.commit(Commit { events: vec![numbered(n)], ..put(project, &format!("k/{n}"), b"v") }));
    let outcomes = all_at_once(commits).await;
    let mut accepted = Vec::new();
    for (n, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(_) => accepted.push(n as u64),
            Err(StoreError::Unavailable { retry_after_ms, .. }) => assert!(*retry_after_ms > 0),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(!accepted.is_empty() && accepted.len() < outcomes.len(), "{}", accepted.len());
    assert_eq!(numbers(&store, project, 0).await, accepted, "the refused ones did not happen");

    // Bytes are bounded too: sixteen of the largest commits do not wait together.
    let large = vec![0; 15 << 20];
    let outcomes = all_at_once((0..16).map(|_| store.commit(put(project, "large", &large)))).await;
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(StoreError::Unavailable { .. }))));
    done(&store, put(project, "k", b"after")).await;
}

#[tokio::test]
async fn a_closed_store_takes_nothing_more() {
    let (_parent, folder) = folder();
    let (store, project) = (open(&folder).expect("the store opens"), project());
    let waiting = all_at_once((0..50).map(|n| store.commit(put(project, &format!("k/{n}"), b"v"))));
    let (outcomes, ()) = tokio::join!(biased; waiting, store.close());
    assert!(outcomes.iter().all(Result::is_ok), "what waited is written");
    store.close().await;
    assert!(matches!(store.commit(put(project, "k", b"v")).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.ready().await, Err(StoreError::Unavailable { .. })));
    assert_eq!(bytes(&store, project, "k").await, None);
    drop(store);
    let store = open(&folder).expect("the store opens again");
    assert_eq!(store.range(Some(project), "k/", "", 100).await.expect("the store answers").entries.len(), 50);
}

#[tokio::test]
async fn many_values_are_written_to_files_and_read_back() {
    let (_parent, folder) = folder();
    let project = project();
    let store = open(&folder).expect("the store opens");
    // More than the memory tables hold: the engine writes and sorts files meanwhile.
    for round in 0..40u8 {
        let puts = (0..512).map(|n| (format!("v/{n:03}"), [round; 2_048].to_vec())).collect();
        done(&store, Commit { puts, events: vec![numbered(round.into())], ..of(project) }).await;
    }
    drop(store);
    let store = open(&folder).expect("the store opens again");
    let page = store.range(Some(project), "v/", "", 1_000).await.expect("the store answers");
    assert_eq!(page.entries.len(), 512);
    assert!(page.entries.iter().all(|(_, value)| value.bytes == [39; 2_048]));
    assert_eq!(numbers(&store, project, 0).await, (0..40).collect::<Vec<_>>());
}

#[test]
fn members_of_a_group_see_the_earlier_ones() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let subject = runtime.block_on(Embedded::fresh());
    crate::model::compare_groups(&subject);
}
