//! Servers of Redis that the tests start and end: one, a master with replicas and Sentinels, a cluster.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pointsman::adapters::redis::{RedisOptions, RedisStore};
use pointsman::adapters::system::OsSystem;
use redis::FromRedisValue;
use tempfile::TempDir;
use tokio::time::timeout;

pub(super) const SOON: Duration = Duration::from_secs(60);
/// Between two looks at something that is to come.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// What the Sentinels call their master.
const MASTER: &str = "main";

/// Keeps a server for as long as its own standard input is open: the server goes with the test, however that ends.
const KEEPER: &str =
    r#"redis-server "$@" >/dev/null 2>&1 & server=$!; echo $server >"$0/pid"; cat >/dev/null; kill -9 $server; wait $server"#;

/// A server of the test's own.
pub(crate) struct Server {
    keeper: Child,
    pub(super) port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn keep(folder: &Path, arguments: &[String]) -> Child {
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER]).arg(folder).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    keeper.spawn().expect("a shell runs; redis-server is what tests/run.sh installs")
}

/// Waits until a server answers; false when it cannot listen there.
async fn is_up(keeper: &mut Child, port: u16) -> bool {
    let up = async {
        while ask::<String>(port, &["PING"]).await.is_none() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let is_up = timeout(Duration::from_secs(10), up).await.is_ok();
    if !is_up {
        drop(keeper.stdin.take());
        let _ = keeper.wait();
    }
    is_up
}

/// Asks a server; none: no answer, or not of that form.
pub(super) async fn ask<T: FromRedisValue>(port: u16, words: &[&str]) -> Option<T> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("an address");
    let mut connection = timeout(Duration::from_secs(2), client.get_multiplexed_async_connection()).await.ok()?.ok()?;
    let mut command = redis::cmd(words[0]);
    timeout(Duration::from_secs(2), command.arg(&words[1..]).query_async(&mut connection)).await.ok()?.ok()
}

/// Asks again until there is an answer.
pub(super) async fn eventually<T, F: Future<Output = Option<T>> + Send>(what: &str, ask: impl Fn() -> F + Send) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    timeout(SOON, asking).await.unwrap_or_else(|_| panic!("{what}: it does not come in time"))
}

impl Server {
    /// Starts a server of data, which syncs each write before it answers.
    pub(super) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts one with further settings.
    async fn with(settings: &[&str]) -> Self {
        Self::begin(|_, port| {
            let fixed =
                ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"];
            let words = fixed.iter().chain(settings).map(|word| (*word).to_owned());
            words.chain(["--port".to_owned(), port.to_string()]).collect()
        })
        .await
    }

    async fn begin(arguments: impl Fn(&Path, u16) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder is made");
        loop {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free").port();
            let mut arguments = arguments(folder.path(), port);
            arguments.extend(["--dir".to_owned(), folder.path().display().to_string()]);
            let mut keeper = keep(folder.path(), &arguments);
            if is_up(&mut keeper, port).await {
                return Self { keeper, port, folder, arguments };
            }
        }
    }

    /// Makes a user who may give these commands alone, on keys and channels that begin with the prefix, and returns the address as that
    /// user.
    pub(super) async fn allow(&self, prefix: &str, commands: &[String]) -> String {
        let (keys, channels) = (format!("~{prefix}*"), format!("&{prefix}*"));
        let mut rules = vec!["on".to_owned(), ">secret".to_owned(), keys, channels];
        rules.extend(commands.iter().map(|command| format!("+{}", command.to_lowercase().replace(' ', "|"))));
        for rule in &rules {
            let done = ask::<String>(self.port, &["ACL", "SETUSER", "bound", rule]).await;
            // This one is of Redis 7.2, and what it fails for is no more than a name in a list.
            assert!(done.as_deref() == Some("OK") || rule == "+client|setinfo", "{rule}: {done:?}");
        }
        format!("redis://bound:secret@127.0.0.1:{}", self.port)
    }

    /// Ends the server as a power cut would, and returns once nobody listens.
    pub(super) async fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("the keeper ends");
        eventually("a killed server is gone", || async { TcpStream::connect(("127.0.0.1", self.port)).is_err().then_some(()) }).await;
    }

    pub(super) async fn restart(&mut self) {
        self.restart_with(&[]).await;
    }

    async fn restart_with(&mut self, settings: &[&str]) {
        let arguments: Vec<String> = self.arguments.iter().cloned().chain(settings.iter().map(|word| (*word).to_owned())).collect();
        self.keeper = keep(self.folder.path(), &arguments);
        assert!(is_up(&mut self.keeper, self.port).await, "it starts again");
    }

    /// Sends it a signal: `STOP` freezes it, `CONT` lets it go on.
    pub(super) fn signal(&self, name: &str) {
        let pid = fs::read_to_string(self.folder.path().join("pid")).expect("the keeper wrote it");
        let sent = Command::new("kill").args([&format!("-{name}"), pid.trim()]).status().expect("kill runs");
        assert!(sent.success(), "a server of the test's own is there");
    }

    /// Takes away the last of what a dead server has written, as if it had been synced never.
    pub(super) fn lose_tail(&self, bytes: u64) {
        let folder = self.folder.path().join("appendonlydir");
        let files = fs::read_dir(&folder).expect("it writes a file of appends").map(|entry| entry.expect("an entry").path());
        let file = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max().expect("there is one");
        let file = fs::OpenOptions::new().write(true).open(file).expect("it opens");
        let length = file.metadata().expect("it has a length").len();
        file.set_len(length.saturating_sub(bytes)).expect("it is cut");
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// A master, two replicas, and three Sentinels that watch them.
pub(crate) struct Watched {
    pub(super) data: Vec<Server>,
    sentinels: Vec<Server>,
}

impl Watched {
    pub(super) async fn start() -> Self {
        let master = Server::start().await;
        let port = master.port.to_string();
        let mut data = vec![master];
        for _ in 0..2 {
            data.push(Server::with(&["--replicaof", "127.0.0.1", &port]).await);
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let watch = format!(
                "sentinel monitor {MASTER} 127.0.0.1 {port} 2\nsentinel down-after-milliseconds {MASTER} 500\n\
                 sentinel failover-timeout {MASTER} 1000\nsentinel parallel-syncs {MASTER} 2\n"
            );
            sentinels.push(
                Server::begin(|folder, own| {
                    let file = folder.join("sentinel.conf");
                    fs::write(&file, format!("bind 127.0.0.1\nport {own}\n{watch}")).expect("it is written");
                    vec![file.display().to_string(), "--sentinel".to_owned()]
                })
                .await,
            );
        }
        let all = Self { data, sentinels };
        all.are_well().await;
        all
    }

    /// Starts a server again, as a replica of the master, and waits until both replicas follow.
    pub(super) async fn comes_back(&mut self, server: usize) {
        let port = self.data[self.master().await].port.to_string();
        self.data[server].restart_with(&["--replicaof", "127.0.0.1", &port]).await;
        self.two_replicas_follow().await;
    }

    async fn two_replicas_follow(&self) {
        eventually("two replicas follow", || async {
            let master = self.master().await;
            let info: String = ask(self.data[master].port, &["INFO", "replication"]).await?;
            (info.matches("state=online").count() == 2).then_some(())
        })
        .await;
    }

    /// Waits until each Sentinel knows the others, and two replicas that follow.
    async fn are_well(&self) {
        for sentinel in &self.sentinels {
            eventually("Sentinels and replicas are well", || async {
                ask::<String>(sentinel.port, &["SENTINEL", "CKQUORUM", MASTER]).await.filter(|said| said.starts_with("OK 3"))?;
                let replicas: Vec<std::collections::HashMap<String, String>> =
                    ask(sentinel.port, &["SENTINEL", "REPLICAS", MASTER]).await?;
                let well = replicas.iter().filter(|replica| replica["flags"] == "slave" && replica["master-link-status"] == "ok");
                (well.count() == 2).then_some(())
            })
            .await;
        }
        self.two_replicas_follow().await;
    }

    /// Returns which one is the master, by the Sentinels.
    pub(super) async fn master(&self) -> usize {
        eventually("the Sentinels name a master", || async {
            let (_, port): (String, u16) = ask(self.sentinels[0].port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await?;
            self.data.iter().position(|server| server.port == port)
        })
        .await
    }

    /// Waits until another than this one is the master.
    pub(super) async fn other_master(&self, than: usize) -> usize {
        eventually("another master is named", || async {
            let master = self.master().await;
            (master != than).then_some(master)
        })
        .await
    }

    pub(super) fn url(&self) -> String {
        let ports: Vec<String> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{}/{MASTER}", ports.join(","))
    }
}

/// A cluster of three masters, each with a replica.
pub(crate) struct Cluster {
    pub(super) nodes: Vec<Server>,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let bus = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free").port().to_string();
            nodes.push(Server::with(&["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus]).await);
        }
        let first = nodes[0].port;
        for node in &nodes[1..] {
            let bus: String = ask::<(String, String)>(node.port, &["CONFIG", "GET", "cluster-port"]).await.expect("it answers").1;
            ask::<String>(first, &["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus]).await.expect("they meet");
        }
        for (at, range) in [["0", "5460"], ["5461", "10922"], ["10923", "16383"]].iter().enumerate() {
            ask::<String>(nodes[at].port, &["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]]).await.expect("it takes its slots");
            let id: String = ask(nodes[at].port, &["CLUSTER", "MYID"]).await.expect("it has an id");
            let replica = nodes[at + 3].port;
            eventually("a replica knows its master", || async { ask::<String>(replica, &["CLUSTER", "REPLICATE", &id]).await }).await;
        }
        let all = Self { nodes };
        all.is_well().await;
        all
    }

    /// Waits until every node knows six that are well, and every master has its replica.
    pub(super) async fn is_well(&self) {
        for node in &self.nodes {
            eventually("the cluster is well", || async {
                let info: String = ask(node.port, &["CLUSTER", "INFO"]).await?;
                let known: String = ask(node.port, &["CLUSTER", "NODES"]).await?;
                let replication: String = ask(node.port, &["INFO", "replication"]).await?;
                let follows = replication.contains("state=online") || replication.contains("master_link_status:up");
                let is_well = info.contains("cluster_state:ok")
                    && known.lines().count() == 6
                    && known.lines().all(|line| line.contains("connected") && !line.contains("fail"))
                    && known.matches("slave").count() == 3;
                (is_well && follows).then_some(())
            })
            .await;
        }
    }

    pub(super) fn url(&self) -> String {
        let ports: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", ports.join(","))
    }
}

/// Returns how a store is opened there.
pub(super) fn options(url: &str, prefix: &str) -> RedisOptions {
    let address = url.parse().expect("an address");
    RedisOptions { prefix: prefix.to_owned(), ..RedisOptions::new(address, Arc::new(OsSystem)) }
}

pub(super) async fn open(url: &str, prefix: &str) -> Arc<RedisStore> {
    Arc::new(RedisStore::open(&options(url, prefix)).await.expect("the store opens"))
}
