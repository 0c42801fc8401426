//! What plugins that loop, trap, swell and lie cost those who do not ask them: 50 good clients beside the same traffic on two
//! hosts, one with the shipped plugins only, one with every hostile one bound before them.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hostile_guests::{Guest, When};
use pointsman_client::{Client, Era};
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::figures::{BenchError, Figures, count, median, setup};
use crate::slow_clients::{Latencies, good, mint};
use crate::startup;

/// Seconds of one measurement.
const MEASURE_S: u64 = 6;
/// Seconds for which the others call before the good clients do.
const SETTLE_S: u64 = 1;
/// Measurements without and with, in turn; the figures are medians.
const ROUNDS: usize = 5;
/// Agents that send messages to a capability: each message is put to every router that is bound.
const SENDERS: usize = 4;
/// Agents that write documents from stale versions, which are put to a reconciler.
const WRITERS: usize = 2;
/// Milliseconds between two calls of one of those.
const PACE_MS: u64 = 100;
/// What the looping reconciler answers for.
const KEYS: &str = "hostile";

pub(crate) async fn measure() -> Result<Figures, BenchError> {
    let folder = tempfile::tempdir().map_err(setup)?;
    let mut without = Host::start(&folder.path().join("without"), None).await?;
    let mut with = Host::start(&folder.path().join("with"), Some(bindings())).await?;
    let (mut good_without, mut good_with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        good_without.push(without.measure().await?);
        good_with.push(with.measure().await?);
    }
    let (calm, asked) = (without.asked.load(Ordering::Relaxed), with.asked.load(Ordering::Relaxed));
    without.child.kill().await.map_err(setup)?;
    with.child.kill().await.map_err(setup)?;
    let of = |rounds: &[Latencies], which: fn(&Latencies) -> f64| median(rounds.iter().map(which).collect());
    let mut figures = Figures::default();
    figures.add("good_p50_without_ms", of(&good_without, |round| round.p50_ms));
    figures.add("good_p99_without_ms", of(&good_without, |round| round.p99_ms));
    figures.add("good_p50_hostile_ms", of(&good_with, |round| round.p50_ms));
    figures.add("good_p99_hostile_ms", of(&good_with, |round| round.p99_ms));
    figures.add("hostile_p99_ratio", figures.get("good_p99_hostile_ms") / figures.get("good_p99_without_ms"));
    figures.add("good_calls_per_s", of(&good_with, |round| round.per_s));
    figures.add("hostile_plugins", count(hostile_guests().len()));
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    for (name, calls) in [("other_calls_without", calm), ("other_calls_hostile", asked)] {
        figures.add(name, calls as f64);
    }
    Ok(figures)
}

fn hostile_guests() -> Vec<&'static Guest> {
    let bound = |guest: &&Guest| {
        guest.when == When::Called && (guest.world == "router" || ["reconciler-loops", "agent-loops", "log-flood"].contains(&guest.name))
    };
    hostile_guests::guests().filter(bound).collect()
}

/// Returns the configuration that binds every hostile plugin somebody can ask for.
fn bindings() -> String {
    let guests = hostile_guests();
    let routers: Vec<&str> = guests.iter().filter(|guest| guest.world == "router").map(|guest| guest.name).collect();
    let mut config = format!("[routing]\nplugins = {}\n", json!([routers, vec!["routing-capability"]].concat()));
    let _ = write!(config, "[[context.reconciler]]\nplugin = \"reconciler-loops\"\nkeys = [\"{KEYS}/**\"]\n");
    config.push_str("[[context.reconciler]]\nplugin = \"context-json\"\n");
    config.push_str("[[agent]]\nplugin = \"agent-loops\"\n[[agent]]\nplugin = \"log-flood\"\n");
    for guest in guests {
        let source = json!(guest.path().to_string_lossy());
        let _ = writeln!(config, "[plugins.{}]\nsource = {source}\nworld = \"{}\"", guest.name, guest.world);
        if guest.name == "slow-drip" {
            // About nine parts of ten of a router's two milliseconds on a core of three gigahertz.
            config.push_str("config = { turns = 5000000 }\n");
        }
    }
    config
}

/// A host and what is called beside the good clients.
struct Host {
    child: Child,
    address: String,
    token: String,
    asked: Arc<AtomicU64>,
}

impl Host {
    async fn start(folder: &Path, bindings: Option<String>) -> Result<Self, BenchError> {
        let config = startup::configure(folder)?;
        if let Some(bindings) = bindings {
            let text = std::fs::read_to_string(&config.file).map_err(setup)?;
            std::fs::write(&config.file, format!("{text}{bindings}")).map_err(setup)?;
        }
        let (child, _) = startup::start_host(&config).await?;
        let token = mint(&config.file).await?;
        let host = Self { child, address: format!("127.0.0.1:{}", config.port), token, asked: Arc::default() };
        good(&host.address, &host.token, 1).await?;
        Ok(host)
    }

    async fn measure(&mut self) -> Result<Latencies, BenchError> {
        let _others = self.others()?;
        // Whoever rested while nobody called is tried at once: what is measured is what goes on after that.
        tokio::time::sleep(Duration::from_secs(SETTLE_S)).await;
        good(&self.address, &self.token, MEASURE_S).await
    }

    /// Lets the others call, until what is returned is dropped.
    fn others(&self) -> Result<DropGuard, BenchError> {
        let stop = CancellationToken::new();
        let mut all = JoinSet::new();
        let client = || Client::new(&format!("http://{}/mcp", self.address), &self.token, Era::Modern).map_err(setup);
        for n in 0..SENDERS {
            all.spawn(send(client()?, format!("sender-{n}"), Arc::clone(&self.asked)));
        }
        for n in 0..WRITERS {
            all.spawn(write_stale(client()?, format!("writer-{n}"), Arc::clone(&self.asked)));
        }
        for agent in ["flood", "loops"] {
            all.spawn(wake(client()?, agent, Arc::clone(&self.asked)));
        }
        let stopped = stop.clone();
        tokio::spawn(async move {
            stopped.cancelled().await;
            all.shutdown().await;
        });
        Ok(stop.drop_guard())
    }
}

/// Calls, whatever comes of it.
async fn call(client: &Client, asked: &AtomicU64, tool: &str, arguments: Value) -> Value {
    asked.fetch_add(1, Ordering::Relaxed);
    let answer = client.call(tool, arguments).await;
    tokio::time::sleep(Duration::from_millis(PACE_MS)).await;
    answer.map(|answer| answer["result"].clone()).unwrap_or_default()
}

/// Sends to a capability, and takes what others sent.
async fn send(client: Client, name: String, asked: Arc<AtomicU64>) {
    call(&client, &asked, "start", json!({"name": name, "capabilities": ["work"]})).await;
    let mut taken: Vec<Value> = Vec::new();
    loop {
        let message = json!({"agent": name, "to": ["work"], "kind": "request", "subject": "who?"});
        call(&client, &asked, "send_message", message).await;
        let mail = call(&client, &asked, "wait_for_events", json!({"agent": name, "ack": taken, "max_s": 0})).await;
        taken = mail["messages"].as_array().into_iter().flatten().map(|message| message["id"].clone()).collect();
    }
}

/// Writes a document from a version that is no longer the newest.
async fn write_stale(client: Client, name: String, asked: Arc<AtomicU64>) {
    call(&client, &asked, "start", json!({"name": name})).await;
    let key = format!("{KEYS}/{name}");
    let write = |base: Value, a: u64, b: u64| json!({"agent": name, "key": key, "base_version": base, "value": {"a": a, "b": b}});
    let mut first = call(&client, &asked, "write_context", write(json!(0), 1, 1)).await["version"].clone();
    if first.is_null() {
        first = call(&client, &asked, "lookup", json!({"agent": name, "uri": format!("context/{key}")})).await["version"].clone();
    }
    for n in 2.. {
        let newest = call(&client, &asked, "write_context", write(first.clone(), n, n - 1)).await["version"].clone();
        call(&client, &asked, "write_context", write(first.clone(), n - 1, n)).await;
        first = if newest.is_null() { first } else { newest };
    }
}

/// Sends to an agent that lives in the host, if it does.
async fn wake(client: Client, agent: &'static str, asked: Arc<AtomicU64>) {
    let name = format!("waker-{agent}");
    call(&client, &asked, "start", json!({"name": name})).await;
    loop {
        call(&client, &asked, "send_message", json!({"agent": name, "to": [format!("agent:{agent}")], "subject": "up"})).await;
    }
}
