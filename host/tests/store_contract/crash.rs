//! The embedded store in a process that dies, or that runs out of disk: every answered commit is there, none by half.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use pointsman::ports::store::{Commit, Expect, Store, StoreError};
use pointsman_core::event::Cursor;
use pointsman_core::ids::ProjectId;
use serde_json::json;

use crate::embedded::open;
use crate::kit::{call, event, of};

/// Names the folder of a child that writes until it is killed.
const WRITE: &str = "POINTSMAN_TEST_STORE_WRITE";
/// Names the folder of a child that writes until the disk is full.
const FILL: &str = "POINTSMAN_TEST_STORE_FILL";
const WRITERS: u64 = 8;
const KILLS: u64 = 14;

fn project() -> ProjectId {
    ProjectId::from_bytes([42; 16])
}

/// Starts this test program again, for one test only, with a folder to work on.
fn child(program: &[&str], test: &str, variable: &str, folder: &Path) -> Child {
    let mut words: Vec<_> = program.iter().map(|word| std::ffi::OsString::from(*word)).collect();
    words.push(std::env::current_exe().expect("this program has a path").into());
    words.extend([test, "--exact", "--nocapture", "--test-threads=1"].map(Into::into));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env(variable, folder).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().expect("the child starts")
}

fn folder_of(variable: &str) -> Option<std::path::PathBuf> {
    std::env::var_os(variable).map(Into::into)
}

/// One step of a writer: two values that are always equal, an event, a remembered call.
async fn step(store: &dyn Store, writer: u64, n: u64, pad: usize) -> Result<(), StoreError> {
    let keys = [format!("a/{writer}"), format!("b/{writer}")];
    let mut expects = Vec::new();
    for key in &keys {
        let expect = store.get(Some(project()), key).await?.map_or(Expect::Absent, |value| Expect::Version(value.version));
        expects.push((key.clone(), expect));
    }
    let mut value = n.to_be_bytes().to_vec();
    value.resize(8 + pad, 0);
    let commit = Commit {
        expects,
        idempotency: call(&format!("{writer}-{n}"), 1, &n.to_be_bytes()),
        puts: keys.map(|key| (key, value.clone())).to_vec(),
        events: vec![event(json!({ "writer": writer, "n": n, "pad": "x".repeat(pad) }))],
        ..of(project())
    };
    store.commit(commit).await.map(|_| ())
}

async fn written(store: &dyn Store, key: String) -> u64 {
    let value = store.get(Some(project()), &key).await.expect("the store answers");
    value.map_or(0, |value| u64::from_be_bytes(value.bytes[..8].try_into().expect("8 bytes")))
}

/// Checks everything that was ever answered, per writer.
async fn check(store: &dyn Store, answered: &[u64]) {
    let mut logged = vec![0; answered.len()];
    let (mut cursor, mut seq) = (Cursor::default(), 0);
    loop {
        let page = store.events(Some(project()), cursor, 500).await.expect("the store answers");
        let Some(last) = page.last() else { break };
        cursor = last.cursor;
        for event in &page {
            seq += 1;
            assert_eq!(event.cursor.seq, seq, "the log has no gap");
            let number = |name: &str| event.event.data[name].as_u64().expect("it is a number");
            let logged = &mut logged[usize::try_from(number("writer")).expect("writers are few")];
            *logged += 1;
            assert_eq!(number("n"), *logged, "each step once, in order");
        }
    }
    assert_eq!(store.head(Some(project())).await.expect("the store answers").seq, seq);
    for (writer, (answered, logged)) in answered.iter().zip(logged).enumerate() {
        let (a, b) = (written(store, format!("a/{writer}")).await, written(store, format!("b/{writer}")).await);
        assert_eq!((a, a), (b, logged), "writer {writer}: values and events stand or fall together");
        assert!(a >= *answered, "writer {writer}: {answered} was answered, {a} is there");
        if a > 0 {
            let response = store.answered(Some(project()), "own_ana", "send_message", &format!("{writer}-{a}"), &[1; 32]).await;
            assert_eq!(response, Ok(Some(a.to_be_bytes().to_vec())), "and so does the call");
        }
    }
}

/// Not a test of its own: what the killed child does.
#[test]
fn write_until_killed() {
    let Some(folder) = folder_of(WRITE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    println!("\nopening");
    let store = Arc::new(open(&folder).expect("the store opens"));
    runtime.block_on(async move {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                let mut n = written(&*store, format!("a/{writer}")).await;
                loop {
                    n += 1;
                    step(&*store, writer, n, 4_000).await.expect("the commit is accepted");
                    println!("answered {writer} {n}");
                }
            });
        }
        while writers.join_next().await.is_some() {}
    });
}

#[test]
fn a_killed_host_loses_nothing_it_answered() {
    let parent = tempfile::tempdir().expect("a folder is made");
    let folder = parent.path().join("store");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let mut seed = getrandom::u64().expect("the system has randomness") | 1;
    println!("seed {seed}");
    let mut answered = vec![0u64; WRITERS as usize];
    for kill in 0..KILLS {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // Some die while they open the store, the first two while they make it.
        let answers_before = if kill < 2 || kill % 5 == 4 { 0 } else { seed % 400 };
        let mut process = child(&[], "crash::write_until_killed", WRITE, &folder);
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        let (mut answers, mut killed, mut line) = (0, false, String::new());
        while output.read_line(&mut line).expect("it is read") > 0 {
            // A line cut by the kill says nothing.
            if let Some(words) = line.strip_suffix('\n').map(|line| line.split(' ').collect::<Vec<_>>()) {
                if let ["answered", writer, n] = words[..] {
                    let n = n.parse().expect("it is a number");
                    answered[writer.parse::<usize>().expect("it is a number")] = n;
                    answers += 1;
                }
                if !killed && (answers > answers_before || answers_before == 0 && words[0] == "opening") {
                    process.kill().expect("it is killed");
                    killed = true;
                }
            }
            line.clear();
        }
        process.wait().expect("it ends");
        assert!(killed, "the child ended by itself");
        let store = open(&folder).expect("the store opens again");
        runtime.block_on(check(&store, &answered));
    }
    assert!(answered.iter().all(|n| *n > 0), "{answered:?}");
}

/// Not a test of its own: what the child on the full disk does.
#[test]
fn write_until_the_disk_is_full() {
    let Some(folder) = folder_of(FILL) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let store = open(&folder).expect("the store opens");
    runtime.block_on(async {
        let mut n = written(&store, "a/0".to_owned()).await;
        println!("\nopened");
        loop {
            n += 1;
            match step(&store, 0, n, 4_000).await {
                Ok(()) => println!("answered 0 {n}"),
                Err(StoreError::Unavailable { why, .. }) => {
                    println!("unavailable {why}");
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        let unavailable = |outcome: Result<(), StoreError>| assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
        unavailable(store.commit(of(project())).await.map(|_| ()));
        unavailable(store.get(Some(project()), "a/0").await.map(|_| ()));
        unavailable(store.events(Some(project()), Cursor::default(), 1).await.map(|_| ()));
        unavailable(store.next_due().await.map(|_| ()));
        unavailable(store.ready().await);
        println!("refused");
    });
}

#[test]
fn a_host_on_a_full_disk_stops_answering() {
    let parent = tempfile::tempdir().expect("a folder is made");
    let folder = parent.path().join("store");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    drop(open(&folder).expect("the store opens"));
    let mut answered = 0;
    for round in 1..=3u32 {
        // A limit on the size of files stands for the full disk; the signal that comes with it is ignored.
        let limited = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", 600 * round);
        let mut process = child(&["/bin/sh", "-c", &limited], "crash::write_until_the_disk_is_full", FILL, &folder);
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let lines: Vec<_> = output.lines().map(|line| line.expect("it is read")).collect();
        process.wait().expect("it ends");
        let before = answered;
        for line in &lines {
            if let ["answered", "0", n] = line.split(' ').collect::<Vec<_>>()[..] {
                answered = n.parse().expect("it is a number");
            }
        }
        assert!(answered > before && lines.iter().any(|line| line == "refused"), "{lines:#?}");
        let store = open(&folder).expect("the store opens again");
        runtime.block_on(check(&store, &[answered]));
    }
}
