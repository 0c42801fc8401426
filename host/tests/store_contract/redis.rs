//! The store on Redis, with servers that the tests start and end: the contract over a single one, and what only Redis can do to it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pointsman::adapters::redis::{RedisOpenError, RedisOptions, RedisStore};
use pointsman::adapters::system::OsSystem;
use pointsman::ports::store::{Commit, Committed, Expect, Store, StoreError};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::kit::{Subject, all_at_once, bytes, call, done, numbered, numbers, of, project, put};

const SOON: Duration = Duration::from_secs(20);
/// Between two looks at something that is to come.
const LOOK: Duration = Duration::from_millis(20);

/// Keeps a server for as long as its own standard input is open: the server goes with the test, however that ends.
const KEEPER: &str = r#"redis-server "$@" >/dev/null 2>&1 & server=$!; cat >/dev/null; kill -9 $server; wait $server"#;

/// A server of the test's own, which syncs each write before it answers.
struct Server {
    keeper: Child,
    port: u16,
    folder: TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder is made");
        loop {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free").port();
            let mut keeper = keep(folder.path(), port);
            if is_up(&mut keeper, port).await {
                return Self { keeper, port, folder };
            }
        }
    }

    /// Ends the server as a power cut would, and returns once nobody listens.
    async fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("the keeper ends");
        let gone = async {
            while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                tokio::time::sleep(LOOK).await;
            }
        };
        timeout(SOON, gone).await.expect("the server ends");
    }

    async fn restart(&mut self) {
        self.keeper = keep(self.folder.path(), self.port);
        assert!(is_up(&mut self.keeper, self.port).await, "it starts again");
    }

    fn options(&self, prefix: &str) -> RedisOptions {
        let url = format!("redis://127.0.0.1:{}", self.port);
        RedisOptions { prefix: prefix.to_owned(), ..RedisOptions::new(url, Arc::new(OsSystem)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn keep(folder: &Path, port: u16) -> Child {
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "keeper", "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    keeper.args(["--port", &port.to_string(), "--dir"]).arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    keeper.spawn().expect("a shell runs; redis-server is what tests/run.sh installs")
}

/// Waits until a server answers; false when it cannot listen there.
async fn is_up(keeper: &mut Child, port: u16) -> bool {
    let up = async {
        loop {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("an address");
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await
                && redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let is_up = timeout(Duration::from_secs(5), up).await.is_ok();
    if !is_up {
        drop(keeper.stdin.take());
        let _ = keeper.wait();
    }
    is_up
}

async fn open(server: &Server, prefix: &str) -> Arc<RedisStore> {
    Arc::new(RedisStore::open(&server.options(prefix)).await.expect("the store opens"))
}

/// A store of its own on a server that the tests of this process share.
pub(crate) struct Single {
    store: Arc<RedisStore>,
    prefix: String,
}

async fn shared() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(Server::start).await
}

#[async_trait]
impl Subject for Single {
    async fn fresh() -> Self {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("test{}", STORES.fetch_add(1, Ordering::Relaxed));
        Self { store: open(shared().await, &prefix).await, prefix }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn reopened(self) -> Self {
        let Self { store, prefix } = self;
        drop(Arc::into_inner(store).expect("nobody else holds the store"));
        Self { store: open(shared().await, &prefix).await, prefix }
    }
}

#[tokio::test]
async fn what_was_answered_survives_the_loss_of_the_server() {
    let mut server = Server::start().await;
    let project = project();
    let store = open(&server, "p").await;
    for round in 1..=3_u8 {
        let calling = || Commit {
            idempotency: call(&format!("key-{round}"), 1, b"answer"),
            events: vec![numbered(round.into())],
            ..put(project, "k", &[round])
        };
        // Right after a start the connection may still be that to the server before.
        let outcome = eventually(async || store.commit(calling()).await.ok()).await;
        assert!(matches!(outcome, Committed::Done { .. }), "{outcome:?}");
        server.kill().await;
        assert!(matches!(store.commit(calling()).await, Err(StoreError::Unavailable { .. })), "nobody answers");
        assert!(matches!(store.ready().await, Err(StoreError::Unavailable { .. })));
        server.restart().await;
        let repeated = eventually(async || store.commit(calling()).await.ok()).await;
        assert_eq!(repeated, Committed::Replayed(b"answer".to_vec()), "round {round}");
        assert_eq!(bytes(&*store, project, "k").await, Some(vec![round]));
        assert_eq!(numbers(&*store, project, 0).await, (1..=round.into()).collect::<Vec<u64>>());
        store.ready().await.expect("it is ready again");
    }
}

/// Asks again until there is an answer.
async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    timeout(SOON, asking).await.expect("it comes in time")
}

#[tokio::test]
async fn who_waits_is_woken_when_the_server_comes_back() {
    let mut server = Server::start().await;
    let project = project();
    let (here, there) = (open(&server, "p").await, open(&server, "p").await);
    let (mut log, mut due) = (here.watch(Some(project)), here.watch_due());
    done(&*there, Commit { events: vec![numbered(1)], ..of(project) }).await;
    timeout(SOON, log.changed()).await.expect("another replica's commit wakes").expect("the store is open");
    assert_eq!(numbers(&*here, project, 0).await, [1]);
    server.kill().await;
    server.restart().await;
    let commit = || Commit { events: vec![numbered(2)], idempotency: call("second", 1, b""), ..of(project) };
    eventually(async || there.commit(commit()).await.ok()).await;
    timeout(SOON, log.changed()).await.expect("whoever did not hear it is woken").expect("the store is open");
    timeout(SOON, due.changed()).await.expect("so is who waits for what is due").expect("the store is open");
    let seen = eventually(async || {
        let seen = numbers(&*here, project, 0).await;
        (seen.len() == 2).then_some(seen)
    });
    assert_eq!(seen.await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_is_granted_to_one_replica_only() {
    let server = Server::start().await;
    let project = project();
    let replicas = all_at_once((0..4).map(|_| open(&server, "p"))).await;
    for task in 0..50_u8 {
        let key = format!("task/{task}");
        let claims = replicas.iter().enumerate().map(|(replica, store)| {
            let claim =
                Commit { expects: vec![(key.clone(), Expect::Absent)], ..put(project, &key, &[u8::try_from(replica).unwrap_or(0)]) };
            store.commit(claim)
        });
        let granted = all_at_once(claims).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(granted, 1, "task {task}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_told() {
    let server = Server::start().await;
    let of = |url: &str| RedisOptions { connect_ms: 200, ..RedisOptions::new(url, Arc::new(OsSystem)) };
    assert!(matches!(RedisStore::open(&of("no address")).await, Err(RedisOpenError::Address(_))));
    assert!(matches!(RedisStore::open(&of("redis://127.0.0.1:1")).await, Err(RedisOpenError::Connect(_))));
    drop(open(&server, "p").await);
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    redis::cmd("HSET").arg("p:store").arg("format").arg(99).query_async::<i64>(&mut connection).await.expect("it is set");
    assert!(matches!(RedisStore::open(&server.options("p")).await, Err(RedisOpenError::Newer { found: 99 })));
}
