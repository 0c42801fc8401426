//! A Redis server of the suite's own, which syncs each write before it answers.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::figures::{BenchError, now, setup};

/// Seconds a start may take.
const START_S: u64 = 10;
/// Between two looks at whether it is up.
const LOOK: Duration = Duration::from_millis(10);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The server; it goes with this value.
pub(super) struct Server {
    _child: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    /// Starts it, its files in a folder.
    ///
    /// # Errors
    /// There is no `redis-server`, or it does not answer.
    pub(super) async fn start(folder: &Path) -> Result<Self, BenchError> {
        Self::start_with(folder, &[]).await
    }

    /// Starts one with further settings.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(super) async fn start_with(folder: &Path, settings: &[String]) -> Result<Self, BenchError> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--repl-diskless-sync-delay", "0"]).args(settings);
        command.args(["--port", &port.to_string(), "--dir"]).arg(folder);
        Self::run(command, port, folder).await
    }

    /// Starts a Sentinel that watches a master and promotes a replica by itself; returns once it knows two of them.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(super) async fn sentinel(folder: &Path, name: &str, master: u16, down_after_ms: u64) -> Result<Self, BenchError> {
        let (port, file) = (free_port()?, folder.join("sentinel.conf"));
        let text = format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor {name} 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds {name} {down_after_ms}\nsentinel failover-timeout {name} 2000\n"
        );
        std::fs::write(&file, text).map_err(setup)?;
        let mut command = Command::new("redis-server");
        command.arg(file).arg("--sentinel");
        let server = Self::run(command, port, folder).await?;
        let (mut connection, _pushed) = server.connect().await?;
        let began = now();
        loop {
            let mut ask = redis::cmd("SENTINEL");
            let known: Vec<HashMap<String, String>> = ask.arg("REPLICAS").arg(name).query_async(&mut connection).await.map_err(setup)?;
            let well = known.iter().filter(|replica| replica["flags"] == "slave" && replica["master-link-status"] == "ok");
            if well.count() == 2 {
                return Ok(server);
            }
            if began.elapsed().as_secs() > 2 * START_S {
                return Err(setup("the Sentinel does not see two replicas"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn run(mut command: Command, port: u16, folder: &Path) -> Result<Self, BenchError> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().map_err(|error| setup(format!("redis-server cannot be started: {error}")))?;
        let server = Self { _child: child, port, folder: folder.to_owned() };
        let began = now();
        while began.elapsed().as_secs() < START_S {
            if server.connect().await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(setup("redis-server does not answer"))
    }

    /// Returns its port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns its folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns its address.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns a connection, and what is pushed over it.
    ///
    /// # Errors
    /// Nobody answers.
    pub(super) async fn connect(&self) -> Result<(MultiplexedConnection, UnboundedReceiver<PushInfo>), BenchError> {
        let (push, pushed) = unbounded_channel();
        let client = Client::open(format!("{}/?protocol=resp3", self.url())).map_err(setup)?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER)).set_push_sender(push);
        Ok((client.get_multiplexed_async_connection_with_config(&config).await.map_err(setup)?, pushed))
    }

    /// Removes all there is.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) async fn empty(&self) -> Result<(), BenchError> {
        let (mut connection, _pushed) = self.connect().await?;
        redis::cmd("FLUSHALL").query_async::<String>(&mut connection).await.map_err(setup).map(|_| ())
    }
}

fn free_port() -> Result<u16, BenchError> {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).map(|address| address.port()).map_err(setup)
}
