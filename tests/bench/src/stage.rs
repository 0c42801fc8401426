//! A host that stores for good and is called by clients over HTTP, and what suites measure it against on the same disk: raw commits in a
//! process of their own, and lone synced writes.
//!
//! Owns: how such a host is started and called. Must not know: what is measured of it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use pointsman_client::{Client, Era};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::figures::{BenchError, median, now, setup};
use crate::line::Line;
use crate::slow_clients::mint;
use crate::startup;
use crate::syncs::Syncs;

/// Rounds of a host's and of raw commits, in turn; the figures are medians.
const ROUNDS: usize = 5;
/// All rounds: the first fills caches and does not count.
pub(crate) const ALL_ROUNDS: usize = ROUNDS + 1;
/// Lone synced writes of one round.
const LONE_WRITES: usize = 300;

/// Returns a folder on the disk that this program is on: that for temporary files may be memory, where a sync costs nothing.
pub(crate) fn folder() -> Result<TempDir, BenchError> {
    let own = std::env::current_exe().map_err(setup)?;
    tempfile::tempdir_in(own.parent().unwrap_or(Path::new("."))).map_err(setup)
}

/// A host and who may call it.
pub(crate) struct Host {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

impl Host {
    /// Starts a host by a command that is made ready first, and these agents.
    pub(crate) async fn start(
        folder: &Path,
        agents: impl IntoIterator<Item = String>,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self, BenchError> {
        let config = startup::configure(folder)?;
        let (child, _) = startup::start_host_with(&config, prepare).await?;
        let token = mint(&config.file).await?;
        let host = Self { child, address: SocketAddr::from(([127, 0, 0, 1], config.port)), token };
        host.begin(agents).await?;
        Ok(host)
    }

    /// Starts agents.
    pub(crate) async fn begin(&self, agents: impl IntoIterator<Item = String>) -> Result<(), BenchError> {
        let client = self.client()?;
        for name in agents {
            call(&client, "start", json!({"name": name})).await?;
        }
        Ok(())
    }

    pub(crate) fn client(&self) -> Result<Client, BenchError> {
        Client::new(&format!("http://{}/mcp", self.address), &self.token, Era::Modern).map_err(setup)
    }

    /// Lets clients make their calls, each over a connection of its own, all at once; returns the seconds it took.
    pub(crate) async fn call_all(&self, clients: Vec<Vec<Vec<u8>>>) -> Result<f64, BenchError> {
        let address = self.address;
        tokio::task::spawn_blocking(move || call_all(address, &clients)).await.map_err(setup)?.map_err(setup)
    }

    pub(crate) async fn kill(mut self) -> Result<(), BenchError> {
        self.child.kill().await.map_err(setup)
    }
}

/// Calls a tool; returns its result.
pub(crate) async fn call(client: &Client, tool: &str, arguments: Value) -> Result<Value, BenchError> {
    Ok(client.call(tool, arguments).await.map_err(setup)?["result"].take())
}

fn call_all(address: SocketAddr, clients: &[Vec<Vec<u8>>]) -> std::io::Result<f64> {
    let ready = Barrier::new(clients.len() + 1);
    let send = |requests: &[Vec<u8>]| {
        let line = Line::open(address);
        ready.wait();
        let mut line = line?;
        for request in requests {
            line.call(request)?;
        }
        Ok::<(), std::io::Error>(())
    };
    std::thread::scope(|scope| {
        let send = &send;
        let senders: Vec<_> = clients.iter().map(|requests| scope.spawn(move || send(requests))).collect();
        ready.wait();
        let began = now();
        for sender in senders {
            sender.join().map_err(|_| std::io::Error::other("a client panicked"))??;
        }
        Ok(began.elapsed().as_secs_f64())
    })
}

/// The baseline of what a host commits: the same records, committed again without a host.
pub(crate) struct Raw {
    /// What this program is told to start as the baseline.
    pub(crate) flag: &'static str,
    /// The store that holds the records, which no host uses.
    pub(crate) recorded: PathBuf,
}

/// A host beside its baseline: medians over the rounds.
pub(crate) struct Beside {
    pub(crate) per_s: f64,
    pub(crate) per_sync: f64,
    pub(crate) raw_per_s: f64,
    pub(crate) raw_per_sync: f64,
    /// Bytes of one raw commit, on the average.
    pub(crate) record_bytes: f64,
}

impl Raw {
    /// Lets rounds of so many acts take turns with rounds of raw commits. `round` returns the seconds it took.
    pub(crate) async fn beside<F: Future<Output = Result<f64, BenchError>>>(
        &self,
        acts: f64,
        syncs: &Syncs,
        mut round: impl FnMut(usize) -> F,
    ) -> Result<Beside, BenchError> {
        let (mut per_s, mut per_sync, mut raw_per_s, mut raw_per_sync) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut record_bytes = f64::NAN;
        for turn in 0..ALL_ROUNDS {
            let before = syncs.count()?;
            let took_s = round(turn).await?;
            let synced = syncs.count()? - before;
            if synced < 1.0 {
                return Err(setup("no sync was counted: the host does not go through the C library's fsync"));
            }
            let raw = self.round(syncs).await?;
            let of = |name: &str| raw[name].as_f64().unwrap_or(f64::NAN);
            record_bytes = of("bytes_each");
            if turn > 0 {
                per_s.push(acts / took_s);
                per_sync.push(acts / synced);
                raw_per_s.push(of("commits") / of("took_s"));
                raw_per_sync.push(of("commits") / of("syncs"));
            }
        }
        let (raw_per_s, raw_per_sync) = (median(raw_per_s), median(raw_per_sync));
        Ok(Beside { per_s: median(per_s), per_sync: median(per_sync), raw_per_s, raw_per_sync, record_bytes })
    }

    /// Starts this program once more, as the baseline; returns what it measured.
    async fn round(&self, syncs: &Syncs) -> Result<Value, BenchError> {
        let mut command = Command::new(std::env::current_exe().map_err(setup)?);
        command.arg(self.flag).arg(&self.recorded).arg(syncs.counter()).kill_on_drop(true);
        syncs.of(&mut command);
        let out = command.output().await.map_err(setup)?;
        serde_json::from_slice(&out.stdout).map_err(|error| setup(format!("the raw commits failed: {error}")))
    }
}

/// Appends so many bytes to a file in a folder and syncs, one write at a time with nothing else going on; returns how long each took in µs.
pub(crate) async fn lone_writes(folder: &Path, bytes: f64) -> Result<Vec<f64>, BenchError> {
    let (path, record) = (folder.join("lone"), vec![b'x'; bytes as usize]);
    tokio::task::spawn_blocking(move || write_alone(&path, &record)).await.map_err(setup)?.map_err(setup)
}

fn write_alone(path: &Path, record: &[u8]) -> std::io::Result<Vec<f64>> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    let mut took_us = Vec::with_capacity(LONE_WRITES);
    for _ in 0..LONE_WRITES {
        let began = now();
        file.write_all(record)?;
        file.sync_all()?;
        took_us.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took_us)
}
