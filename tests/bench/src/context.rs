//! Shared documents on the embedded store, each write made durable before it is answered, by clients over HTTP.
//!
//! **Writes** stand beside raw group commits of the same records, as the sends of `messaging` do: each agent writes keys of its own from
//! the version it knows. **Written to seen** (`notify`) runs from before a call of `write_context` to after the answer of the
//! `wait_for_events` that tells of that version, beside a lone synced write. **Edits** (`edit`): the bytes that an edit of a large document
//! moves, over its size. **Reconciling** (`reconcile`): what a stale write that is merged takes, and a fresh one of the same size.

mod edit;
mod noise;
mod notify;
mod reconcile;
mod records;
mod transfer;

use std::path::{Path, PathBuf};

use pointsman::adapters::system::raise_open_files;
use pointsman_core::context::rules::VERSIONS_MAX;
use serde_json::{Value, json};

pub(crate) use self::records::commit_again;

use self::noise::Noise;
use crate::figures::{BenchError, Figures, count, setup};
use crate::line::tool_call;
use crate::stage::{ALL_ROUNDS, Host, Raw, call, folder};
use crate::syncs::Syncs;

/// Agents that write at once; as many writers commit the same records raw.
const WRITERS: usize = 64;
/// Documents of each, which it writes in turn.
const KEYS_EACH: usize = 4;
/// Versions of each document that one round adds. In all rounds together they are fewer than the host keeps of a document, so that it
/// removes none meanwhile.
const VERSIONS_EACH: usize = 15;
/// Bytes of the text in a value: with what stands around it 1 KiB.
const TEXT_BYTES: usize = 960;
/// What the keys of the writers' documents begin with.
const FOLDER: &str = "notes/";
/// Seconds that all calls of a round may take.
const ROUND_S_MAX: u64 = 300;

const _: () = assert!(((ALL_ROUNDS * VERSIONS_EACH) as u64) < VERSIONS_MAX);

pub(crate) async fn measure() -> Result<Figures, BenchError> {
    raise_open_files().map_err(setup)?;
    let folder = folder()?;
    let syncs = Syncs::begin(folder.path()).await?;
    let recorded = record(&folder.path().join("recorded")).await?;
    let mut figures = Figures::default();
    let host = Host::start(&folder.path().join("host"), (0..WRITERS).map(writer), |command| syncs.of(command)).await?;
    writes_and_raw(&host, recorded, &syncs, &mut figures).await?;
    notify::measure(&host, folder.path(), &mut figures).await?;
    reconcile::measure(&host, &mut figures).await?;
    edit::measure(&host, &mut figures).await?;
    host.kill().await?;
    Ok(figures)
}

fn writer(n: usize) -> String {
    format!("writer-{n}")
}

fn key(writer: usize, document: usize) -> String {
    format!("{FOLDER}{writer}/{document}")
}

/// Returns the idempotency key of the write that makes a version: each is written once.
fn once(key: &str, version: u64) -> String {
    format!("{key}@{version}")
}

/// Returns a JSON value of about 1 KiB that differs from all others.
fn value(by: &str, number: u64, noise: &mut Noise) -> Value {
    json!({"by": by, "number": number, "text": noise.text(TEXT_BYTES)})
}

/// Lets every writer write its documents in turn, all writers at once; returns the seconds it took. That each write is made from the
/// version its writer knows is known beforehand: nobody else writes them.
async fn write_round(host: &Host, round: usize) -> Result<f64, BenchError> {
    let of = |n: usize, write: usize, noise: &mut Noise| {
        let base = (round * VERSIONS_EACH + write / KEYS_EACH) as u64;
        let (by, key) = (writer(n), key(n, write % KEYS_EACH));
        let once = once(&key, base + 1);
        let arguments = json!({"agent": by, "key": key, "base_version": base, "value": value(&by, base, noise), "idempotency_key": once});
        tool_call(&host.token, "write_context", &arguments)
    };
    let all_of = |n: usize| {
        let mut noise = Noise::of((round * WRITERS + n) as u64);
        (0..KEYS_EACH * VERSIONS_EACH).map(|write| of(n, write, &mut noise)).collect()
    };
    host.call_all((0..WRITERS).map(all_of).collect()).await
}

/// Lets a host store the writes of one round; returns where its store stands, once it ended.
async fn record(folder: &Path) -> Result<PathBuf, BenchError> {
    let host = Host::start(folder, (0..WRITERS).map(writer), |_| {}).await?;
    write_round(&host, 0).await?;
    host.kill().await?;
    Ok(folder.join("data/store"))
}

async fn writes_and_raw(host: &Host, recorded: PathBuf, syncs: &Syncs, figures: &mut Figures) -> Result<(), BenchError> {
    let raw = Raw { flag: "--raw-writes", recorded };
    let beside = raw.beside(count(WRITERS * KEYS_EACH * VERSIONS_EACH), syncs, |round| write_round(host, round)).await?;
    every_write_was_a_version(host).await?;
    figures.add("writers", count(WRITERS));
    figures.add("record_bytes", beside.record_bytes);
    figures.add("writes_per_s", beside.per_s);
    figures.add("writes_per_sync", beside.per_sync);
    figures.add("raw_commits_per_s", beside.raw_per_s);
    figures.add("raw_commits_per_sync", beside.raw_per_sync);
    figures.add_for("write_ratio_vs_raw_store", figures.get("writes_per_s") / figures.get("raw_commits_per_s"), ">= 0.3");
    Ok(())
}

/// Sees that no write was merged or said what was there before: then there were other versions than counted.
async fn every_write_was_a_version(host: &Host) -> Result<(), BenchError> {
    let client = host.client()?;
    for n in 0..WRITERS {
        for document in 0..KEYS_EACH {
            let uri = format!("context/{}", key(n, document));
            let found = call(&client, "lookup", json!({"agent": writer(n), "uri": uri})).await?;
            if found["version"] != ALL_ROUNDS * VERSIONS_EACH {
                return Err(setup(format!("{uri} has version {} after {} writes", found["version"], ALL_ROUNDS * VERSIONS_EACH)));
            }
        }
    }
    Ok(())
}

/// Returns the version that an answer to `write_context` names.
fn version(answer: &Value) -> Result<u64, BenchError> {
    answer["version"].as_u64().ok_or_else(|| setup(format!("a write was answered without a version: {answer}")))
}
