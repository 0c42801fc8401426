//! A `redis-server` of the test's own, on a free port, that syncs each write before it answers.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{DEADLINE_S, LOOK_MS, free_port};

/// Keeps a server for as long as its own standard input is open: the server goes with the test, however that ends.
const KEEPER: &str =
    r#"redis-server "$@" >/dev/null 2>&1 & server=$!; echo $server >"$0/pid"; cat >/dev/null; kill -9 $server; wait $server"#;

/// A server.
pub struct Redis {
    keeper: Child,
    port: u16,
    folder: TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl Redis {
    /// Starts a server.
    ///
    /// # Panics
    /// When it cannot be started; `tests/run.sh` installs it.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pointsman-redis-").tempdir().expect("a temporary folder");
        let port = free_port();
        let redis = Self { keeper: keep(&folder, port), port, folder };
        redis.until("listens", true).await;
        redis
    }

    /// Returns where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns the configuration of a host that uses it.
    #[must_use]
    pub fn config(&self) -> String {
        format!("[store]\nurl = \"{}\"\n", self.url())
    }

    /// Ends it as a power cut would.
    pub async fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        self.until("is gone", false).await;
    }

    /// Starts it again on what it has written.
    pub async fn restart(&mut self) {
        self.keeper = keep(&self.folder, self.port);
        self.until("listens again", true).await;
    }

    /// Takes away the last bytes of what it has written, while it is dead.
    ///
    /// # Panics
    /// When it has written nothing.
    pub fn lose_tail(&self, bytes: u64) {
        let files = fs::read_dir(self.folder.path().join("appendonlydir")).expect("it writes a file of appends");
        let files = files.filter_map(|entry| Some(entry.ok()?.path()));
        let file = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max().expect("there is one");
        let file = fs::OpenOptions::new().write(true).open(file).expect("it opens");
        let length = file.metadata().expect("it has a length").len();
        file.set_len(length.saturating_sub(bytes)).expect("it is cut");
    }

    async fn until(&self, what: &str, listens: bool) {
        for _ in 0..DEADLINE_S * 1_000 / LOOK_MS {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() == listens {
                return;
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
        panic!("redis-server on port {}: that it {what} did not come in time", self.port);
    }
}

fn keep(folder: &TempDir, port: u16) -> Child {
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER]).arg(folder.path());
    keeper.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    keeper.args(["--port", &port.to_string(), "--dir"]).arg(folder.path());
    keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    keeper.spawn().expect("a shell runs; redis-server is what tests/run.sh installs")
}
