//! The store on Redis, with servers that the tests start and end: the contract over a single one, over a master that Sentinels
//! watch and over a cluster, and what only Redis can do to it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use pointsman::adapters::redis::{RedisOpenError, RedisOptions, RedisStore};
use pointsman::ports::store::{Commit, Committed, Expect, Store, StoreError, WhenAway};
use pointsman_core::event::Cursor;
use pointsman_core::ids::ProjectId;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

mod load;
mod servers;
mod wire;

use self::load::{Hosts, Load};
use self::servers::{Cluster, SOON, Server, Watched, ask, eventually, open, options};
use self::wire::Wire;
use crate::kit::{Subject, all_at_once, bytes, call, done, numbered, numbers, of, project, put};

/// A store of its own on servers that the tests of this process share.
pub(crate) struct On<T> {
    store: Arc<RedisStore>,
    url: String,
    prefix: String,
    servers: std::marker::PhantomData<T>,
}

/// Servers that the tests of a process share.
#[async_trait]
pub(crate) trait Shared: Send + Sync + 'static {
    /// Returns where they are.
    async fn url() -> String;
}

/// As a user who may do no more than the documentation asks for.
#[async_trait]
impl Shared for Server {
    async fn url() -> String {
        static SERVER: OnceCell<(Server, String)> = OnceCell::const_new();
        let (_, url) = SERVER
            .get_or_init(|| async {
                let server = Server::start().await;
                let url = server.allow("test", &documented_commands()).await;
                (server, url)
            })
            .await;
        url.clone()
    }
}

/// The commands that `docs/redis.md` names for an ACL of data servers.
fn documented_commands() -> Vec<String> {
    let page = include_str!("../../docs/redis.md");
    let (_, list) = page.split_once("- Commands, for an ACL: ").expect("the page lists them");
    let (list, _) = list.split_once("; keys").expect("its keys come next");
    let commands: Vec<String> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(commands.len() > 30, "{commands:?}");
    commands
}

#[async_trait]
impl Shared for Watched {
    async fn url() -> String {
        static SERVERS: OnceCell<Watched> = OnceCell::const_new();
        SERVERS.get_or_init(Watched::start).await.url()
    }
}

#[async_trait]
impl Shared for Cluster {
    async fn url() -> String {
        static SERVERS: OnceCell<Cluster> = OnceCell::const_new();
        SERVERS.get_or_init(Cluster::start).await.url()
    }
}

/// A single server.
pub(crate) type Single = On<Server>;
/// A master that Sentinels watch.
pub(crate) type Sentinel = On<Watched>;
/// A cluster.
pub(crate) type Clustered = On<Cluster>;

#[async_trait]
impl<T: Shared> Subject for On<T> {
    async fn fresh() -> Self {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let (url, prefix) = (T::url().await, format!("test{}", STORES.fetch_add(1, Ordering::Relaxed)));
        Self { store: open(&url, &prefix).await, url, prefix, servers: std::marker::PhantomData }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn reopened(self) -> Self {
        let Self { store, url, prefix, servers } = self;
        drop(Arc::into_inner(store).expect("nobody else holds the store"));
        Self { store: open(&url, &prefix).await, url, prefix, servers }
    }
}

#[tokio::test]
async fn what_was_answered_survives_the_loss_of_the_server() {
    let mut server = Server::start().await;
    let project = project();
    let store = open(&server.url(), "p").await;
    for round in 1..=3_u8 {
        let calling = || Commit {
            idempotency: call(&format!("key-{round}"), 1, b"answer"),
            events: vec![numbered(round.into())],
            ..put(project, "k", &[round])
        };
        // Right after a start the connection may still be that to the server before.
        let outcome = eventually("it is answered", || async { store.commit(calling()).await.ok() }).await;
        assert!(matches!(outcome, Committed::Done { .. }), "{outcome:?}");
        server.kill().await;
        assert!(matches!(store.commit(calling()).await, Err(StoreError::Unavailable { .. })), "nobody answers");
        assert!(matches!(store.ready().await, Err(StoreError::Unavailable { .. })));
        server.restart().await;
        let repeated = eventually("it is answered", || async { store.commit(calling()).await.ok() }).await;
        assert_eq!(repeated, Committed::Replayed(b"answer".to_vec()), "round {round}");
        assert_eq!(bytes(&*store, project, "k").await, Some(vec![round]));
        assert_eq!(numbers(&*store, project, 0).await, (1..=round.into()).collect::<Vec<u64>>());
        store.ready().await.expect("it is ready again");
    }
}

#[tokio::test]
async fn who_waits_is_woken_when_the_server_comes_back() {
    let mut server = Server::start().await;
    let project = project();
    let (here, there) = (open(&server.url(), "p").await, open(&server.url(), "p").await);
    let (mut log, mut due) = (here.watch(Some(project)), here.watch_due());
    done(&*there, Commit { events: vec![numbered(1)], ..of(project) }).await;
    timeout(SOON, log.changed()).await.expect("another replica's commit wakes").expect("the store is open");
    assert_eq!(numbers(&*here, project, 0).await, [1]);
    server.kill().await;
    server.restart().await;
    let commit = || Commit { events: vec![numbered(2)], idempotency: call("second", 1, b""), ..of(project) };
    eventually("it is answered", || async { there.commit(commit()).await.ok() }).await;
    timeout(SOON, log.changed()).await.expect("whoever did not hear it is woken").expect("the store is open");
    timeout(SOON, due.changed()).await.expect("so is who waits for what is due").expect("the store is open");
    let seen = eventually("it is answered", || async {
        let seen = numbers(&*here, project, 0).await;
        (seen.len() == 2).then_some(seen)
    });
    assert_eq!(seen.await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_is_granted_to_one_replica_only() {
    let server = Server::start().await;
    let project = project();
    let url = server.url();
    let replicas = all_at_once((0..4).map(|_| open(&url, "p"))).await;
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
    let nowhere = RedisOptions { connect_ms: 200, ..options("redis://127.0.0.1:1", "p") };
    assert!(matches!(RedisStore::open(&nowhere).await, Err(RedisOpenError::Connect { .. })));
    let unknown = RedisOptions { connect_ms: 200, ..options(&format!("redis+sentinel://127.0.0.1:{}/main", server.port), "p") };
    assert!(matches!(RedisStore::open(&unknown).await, Err(RedisOpenError::Connect { .. })), "it is no Sentinel");
    let alone = RedisOptions { connect_ms: 200, ..options(&format!("redis+cluster://127.0.0.1:{}", server.port), "p") };
    assert!(matches!(RedisStore::open(&alone).await, Err(RedisOpenError::Connect { .. })), "it is no cluster");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let journal = RedisOptions { journal: Some(file.path().to_owned()), ..options(&server.url(), "p") };
    assert!(matches!(RedisStore::open(&journal).await, Err(RedisOpenError::Journal { .. })));
    drop(open(&server.url(), "p").await);
    ask::<i64>(server.port, &["HSET", "p:{host}:store", "format", "99"]).await.expect("it is set");
    assert!(matches!(RedisStore::open(&options(&server.url(), "p")).await, Err(RedisOpenError::Newer { found: 99 })));
}

#[tokio::test]
async fn a_redis_that_was_emptied_is_not_taken_for_a_new_one() {
    let (server, project, folder) = (Server::start().await, project(), tempfile::tempdir().expect("a folder"));
    let journalled = RedisOptions { journal: Some(folder.path().to_owned()), ..options(&server.url(), "p") };
    let store = RedisStore::open(&journalled).await.expect("it opens");
    done(&store, put(project, "k", b"1")).await;
    assert!(matches!(RedisStore::open(&journalled).await, Err(RedisOpenError::Journal { .. })), "another host has the journal");
    drop(store);
    ask::<String>(server.port, &["FLUSHALL"]).await.expect("it is emptied");
    let opened = eventually("the journal is let go", || async {
        match RedisStore::open(&journalled).await {
            Err(RedisOpenError::Journal { .. }) => None,
            opened => Some(opened.err().map(|error| error.to_string())),
        }
    });
    let why = opened.await.unwrap_or_default();
    assert!(why.contains("is empty") && why.contains(&*folder.path().to_string_lossy()), "{why}");
}

#[tokio::test]
async fn scripts_that_somebody_flushed_are_loaded_again() {
    let (server, project) = (Server::start().await, project());
    let store = open(&server.url(), "p").await;
    done(&*store, put(project, "k", b"1")).await;
    ask::<String>(server.port, &["SCRIPT", "FLUSH"]).await.expect("it is done");
    done(&*store, put(project, "k", b"2")).await;
    assert_eq!(bytes(&*store, project, "k").await, Some(b"2".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_is_handed_in_again_by_the_hosts_that_wrote_it() {
    let mut server = Server::start().await;
    let hosts = Hosts::open(&server.url(), 2).await;
    let epoch = hosts.stores[0].epoch();
    let load = Load::start(&hosts, 6);
    for round in 1..=3 {
        load.goes_on(60).await;
        server.kill().await;
        server.lose_tail(20_000);
        server.restart().await;
        load.goes_on(20).await;
        assert_eq!(hosts.stores[0].epoch(), epoch + round, "a loss begins an epoch");
    }
    load.end(&hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_a_replica_meanwhile_is_not_the_one_it_was() {
    let (server, other, project, folder) =
        (Server::start().await, Server::start().await, project(), tempfile::tempdir().expect("a folder"));
    let options = RedisOptions { journal: Some(folder.path().to_owned()), ..options(&server.url(), "p") };
    let store = RedisStore::open(&options).await.expect("it opens");
    let message = |n: u64| Commit { events: vec![numbered(n)], ..put(project, &format!("message/{n}"), b"text") };
    done(&store, message(1)).await;
    let port = server.port.to_string();
    ask::<String>(other.port, &["REPLICAOF", "127.0.0.1", &port]).await.expect("it follows");
    eventually("it has the first", || async { ask::<i64>(other.port, &["DBSIZE"]).await.filter(|keys| *keys > 0) }).await;
    ask::<String>(other.port, &["REPLICAOF", "NO", "ONE"]).await.expect("it follows nobody");
    for n in 2..=10 {
        let done = || async { store.commit(Commit { idempotency: call(&format!("{n}"), 1, b""), ..message(n) }).await.ok() };
        eventually("it is answered", done).await;
    }
    // The process is the same, its connections stand, and what it had is gone.
    ask::<String>(server.port, &["REPLICAOF", "127.0.0.1", &other.port.to_string()]).await.expect("it follows the other");
    eventually("it has what the other has", || async {
        let info: String = ask(server.port, &["INFO", "replication"]).await?;
        info.contains("master_link_status:up").then_some(())
    })
    .await;
    eventually("the host says so", || async { store.ready().await.is_err().then_some(()) }).await;
    ask::<String>(server.port, &["REPLICAOF", "NO", "ONE"]).await.expect("it is master again");
    eventually("it can be used again", || async { store.ready().await.ok() }).await;
    assert_eq!(numbers(&store, project, 0).await, (1..=10).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_missed_an_epoch_takes_over_what_was_done_meanwhile() {
    let (one, other, project) = (Server::start().await, Server::start().await, project());
    ask::<String>(other.port, &["REPLICAOF", "127.0.0.1", &one.port.to_string()]).await.expect("it follows");
    eventually("it follows", || async {
        let info: String = ask(one.port, &["INFO", "replication"]).await?;
        info.contains("state=online").then_some(())
    })
    .await;
    let (mut wire, folder) = (Wire::to(one.port).await, tempfile::tempdir().expect("a folder"));
    let store = open_with_journal(&wire.url(), folder.path()).await;
    let message = |n: u64| Commit {
        events: vec![numbered(n)],
        puts: vec![(format!("message/{n}"), b"text".to_vec()), ("last".to_owned(), n.to_string().into_bytes())],
        idempotency: call(&format!("call-{n}"), 1, b""),
        ..of(project)
    };
    // A replica that has just come may take a while to say what it has.
    eventually("it is answered", || async { store.commit(message(1)).await.ok() }).await;
    ask::<String>(other.port, &["REPLICAOF", "NO", "ONE"]).await.expect("it follows nobody");
    eventually("nobody follows it", || async {
        let info: String = ask(one.port, &["INFO", "replication"]).await?;
        info.contains("connected_slaves:0").then_some(())
    })
    .await;
    // What is done on the first now, without replica and journal, is known to nobody else.
    let alone = open(&one.url(), "p").await;
    for n in 100..105 {
        done(&*alone, message(n)).await;
    }
    let forgotten = call("call-104", 1, b"").expect("a call");
    let is_known = |store: Arc<RedisStore>| {
        let forgotten = forgotten.clone();
        async move {
            let known =
                store.answered(Some(project), &forgotten.principal, &forgotten.operation, &forgotten.key, &forgotten.request_digest);
            known.await.expect("it answers").is_some()
        }
    };
    assert!(is_known(Arc::clone(&alone)).await);
    alone.close().await;
    let mut all = 1;
    for (back_and_forth, server) in [&other, &one, &other, &one].into_iter().enumerate() {
        wire.lead_to(server.port).await;
        for _ in 0..3 {
            all += 1;
            eventually("it is answered", || async { store.commit(message(all)).await.ok() }).await;
        }
        assert_eq!(numbers(&*store, project, 0).await, (1..=all).collect::<Vec<u64>>(), "{back_and_forth}");
        assert_eq!(bytes(&*store, project, "last").await, Some(all.to_string().into_bytes()), "{back_and_forth}");
        let again = store.commit(message(all - 1)).await;
        assert_eq!(again, Ok(Committed::Replayed(Vec::new())), "{back_and_forth}");
    }
    assert_eq!(store.epoch(), 5, "each begins an epoch");
    assert!(!is_known(Arc::clone(&store)).await, "it was undone");
    done(&*store, message(104)).await;
    assert_eq!(numbers(&*store, project, 0).await, (1..=all).chain([104]).collect::<Vec<u64>>(), "it is judged anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_replica_that_comes_holds_up_no_host() {
    let (server, replica, project) = (Server::start().await, Server::start().await, project());
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let here = open_with_journal(&server.url(), folders[0].path()).await;
    done(&*here, put(project, "k", b"1")).await;
    // A master without replicas begins another history with its first one.
    ask::<String>(replica.port, &["REPLICAOF", "127.0.0.1", &server.port.to_string()]).await.expect("it follows");
    eventually("it follows", || async {
        let info: String = ask(server.port, &["INFO", "replication"]).await?;
        info.contains("state=online").then_some(())
    })
    .await;
    let there = open_with_journal(&server.url(), folders[1].path()).await;
    for store in [&here, &there] {
        eventually("it can be used", || async { store.commit(put(project, "k", b"2")).await.ok() }).await;
    }
    assert_eq!(here.epoch(), there.epoch());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_does_not_miss_what_took_the_place_of_what_was_lost() {
    let mut server = Server::start().await;
    let (project, store) = (project(), open(&server.url(), "p").await);
    for n in 1..=5 {
        done(&*store, Commit { events: vec![numbered(n)], ..of(project) }).await;
    }
    let seen = store.head(Some(project)).await.expect("it answers");
    server.kill().await;
    // Nobody keeps a journal here: the last events are lost.
    server.lose_tail(300);
    server.restart().await;
    let next = || Commit { events: vec![numbered(6)], idempotency: call("six", 1, b""), ..of(project) };
    eventually("it is answered", || async { store.commit(next()).await.ok() }).await;
    let new = store.events(Some(project), seen, 10).await.expect("it answers");
    assert_eq!(new.last().map(|event| event.event.data["n"].clone()), Some(6.into()), "what is new is read: {new:?}");
    assert!(new[0].cursor.seq <= seen.seq && new[0].cursor > seen, "under a number that was seen before: {new:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_masters_die_under_load_and_nothing_is_lost() {
    let mut servers = Watched::start().await;
    let hosts = Hosts::open(&servers.url(), 2).await;
    let load = Load::start(&hosts, 6);
    for _ in 0..10 {
        load.goes_on(20).await;
        let master = servers.master().await;
        servers.data[master].kill().await;
        servers.other_master(master).await;
        load.goes_on(5).await;
        servers.comes_back(master).await;
    }
    load.end(&hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_frozen_and_comes_back_has_no_say_any_more() {
    let servers = Watched::start().await;
    let hosts = Hosts::open(&servers.url(), 2).await;
    let load = Load::start(&hosts, 6);
    load.goes_on(20).await;
    let master = servers.master().await;
    servers.data[master].signal("STOP");
    servers.other_master(master).await;
    servers.data[master].signal("CONT");
    load.goes_on(50).await;
    load.end(&hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_cut_off_goes_on_when_the_wire_is_mended() {
    let server = Server::start().await;
    let mut wire = Wire::to(server.port).await;
    let hosts = Hosts::at(&[wire.url(), server.url()]).await;
    let epoch = hosts.stores[1].epoch();
    let load = Load::start(&hosts, 6);
    for _ in 0..3 {
        load.goes_on(20).await;
        wire.cut().await;
        eventually("the host says so", || async { hosts.stores[0].ready().await.is_err().then_some(()) }).await;
        load.goes_on(20).await;
        wire.mend().await;
        eventually("it is back", || async { hosts.stores[0].ready().await.ok() }).await;
    }
    load.end(&hosts).await;
    assert_eq!(hosts.stores[0].epoch(), epoch, "nothing was lost, so no epoch began");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_dies_under_load_and_nothing_is_lost() {
    let mut servers = Cluster::start().await;
    let hosts = Hosts::open(&servers.url(), 2).await;
    let load = Load::start(&hosts, 6);
    for node in 0..3 {
        load.goes_on(20).await;
        servers.nodes[node].kill().await;
        load.goes_on(20).await;
        servers.nodes[node].restart().await;
        servers.is_well().await;
    }
    load.end(&hosts).await;
}

/// Opens a store with a journal, whose calls end soon.
async fn open_with_journal(url: &str, folder: &Path) -> Arc<RedisStore> {
    let options = RedisOptions { journal: Some(folder.to_owned()), answer_ms: 500, ..options(url, "p") };
    let opened = || async { RedisStore::open(&options).await.ok() };
    Arc::new(eventually("it opens, once the one before has let its journal go", opened).await)
}

/// Returns a commit of something new, which may be kept.
fn new_message(project: ProjectId, n: u64) -> Commit {
    let key = format!("message/{n}");
    Commit {
        expects: vec![(key.clone(), Expect::Absent)],
        events: vec![numbered(n)],
        when_away: WhenAway::Keep,
        ..put(project, &key, b"text")
    }
}

async fn has_all(store: &RedisStore, project: ProjectId, count: u64) {
    let all = || async { (events_of(store, project).await?.len() >= usize::try_from(count).ok()?).then_some(()) };
    eventually("all of them are there", all).await;
    let mut found = events_of(store, project).await.expect("it answers");
    found.sort_unstable();
    assert_eq!(found, (1..=count).collect::<Vec<u64>>(), "each of them once");
}

async fn events_of(store: &RedisStore, project: ProjectId) -> Option<Vec<u64>> {
    let events = store.events(Some(project), Cursor::default(), 10_000).await.ok()?;
    Some(events.iter().filter_map(|event| event.event.data["n"].as_u64()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_while_redis_is_away_is_done_once_when_it_is_back() {
    let (mut server, project, folder) = (Server::start().await, project(), tempfile::tempdir().expect("a folder"));
    let mut store = open_with_journal(&server.url(), folder.path()).await;
    done(&*store, Commit { when_away: WhenAway::Refuse, ..new_message(project, 1) }).await;
    let mut last = 1;
    for dies_too in [false, true] {
        server.kill().await;
        for n in last + 1..=last + 20 {
            let calling = || Commit { idempotency: call(&format!("call-{n}"), 1, b"answer"), ..new_message(project, n) };
            assert_eq!(store.commit(calling()).await, Ok(Committed::Kept), "{n}");
            if n % 5 == 0 {
                assert_eq!(store.commit(calling()).await, Ok(Committed::Replayed(b"answer".to_vec())), "it is known");
                let other = Commit { idempotency: call(&format!("call-{n}"), 2, b"answer"), ..new_message(project, 99) };
                assert!(matches!(store.commit(other).await, Err(StoreError::KeyReused { .. })));
            }
        }
        last += 20;
        assert!(store.is_away());
        let changes = Commit { expects: vec![("message/1".to_owned(), Expect::Version(1))], ..new_message(project, 99) };
        let removes = Commit { deletes: vec!["message/1".to_owned()], ..new_message(project, 99) };
        for commit in [changes, removes, Commit { when_away: WhenAway::Refuse, ..new_message(project, 99) }] {
            assert!(matches!(store.commit(commit).await, Err(StoreError::Unavailable { .. })));
        }
        if dies_too {
            drop(store);
            server.restart().await;
            store = open_with_journal(&server.url(), folder.path()).await;
        } else {
            server.restart().await;
        }
        has_all(&store, project, last).await;
        assert!(!store.is_away());
        assert_eq!(done(&*store, new_message(project, last + 1)).await, last + 1, "what came twice took no version");
        last += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_frozen_redis_may_have_done_is_not_done_twice() {
    let (server, project, folder) = (Server::start().await, project(), tempfile::tempdir().expect("a folder"));
    let store = open_with_journal(&server.url(), folder.path()).await;
    for round in 0..3 {
        done(&*store, new_message(project, 4 * round + 1)).await;
        server.signal("STOP");
        // The first is on its way when the wait for its answer ends, the others find nobody.
        for n in 2..=4 {
            assert_eq!(store.commit(new_message(project, 4 * round + n)).await, Ok(Committed::Kept));
        }
        server.signal("CONT");
        has_all(&store, project, 4 * round + 4).await;
        eventually("it is back", || async { store.ready().await.ok() }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_kept_under_load_through_three_deaths_of_redis_is_there_once() {
    const WRITERS: u64 = 6;
    let (mut server, project, folder) = (Server::start().await, project(), tempfile::tempdir().expect("a folder"));
    let store = open_with_journal(&server.url(), folder.path()).await;
    let (answered, kept, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, answered, kept, stop) = (Arc::clone(&store), Arc::clone(&answered), Arc::clone(&kept), stop.clone());
        writers.spawn(async move {
            let mut written = 0;
            while !stop.is_cancelled() {
                let n = writer + WRITERS * written + 1;
                let commit = || Commit { idempotency: call(&format!("call-{n}"), 1, b""), ..new_message(project, n) };
                match eventually("it is answered", || async { store.commit(commit()).await.ok() }).await {
                    Committed::Kept => kept.fetch_add(1, Ordering::Relaxed),
                    Committed::Done { .. } | Committed::Replayed(_) => answered.fetch_add(1, Ordering::Relaxed),
                };
                written += 1;
            }
            written
        });
    }
    let more = async |count: &AtomicU64, by: u64| {
        let from = count.load(Ordering::Relaxed);
        eventually("it goes on", || async { (count.load(Ordering::Relaxed) >= from + by).then_some(()) }).await;
    };
    for _ in 0..3 {
        more(&answered, 50).await;
        server.kill().await;
        more(&kept, 50).await;
        server.restart().await;
    }
    more(&answered, 50).await;
    stop.cancel();
    let written: Vec<u64> = writers.join_all().await;
    eventually("what was kept is done", || async { (store.kept() == 0).then_some(()) }).await;
    let mut found = events_of(&store, project).await.expect("it answers");
    let total: u64 = written.iter().sum();
    assert_eq!(
        found.len(),
        usize::try_from(total).expect("it fits"),
        "each once, of {total}, {} of them kept",
        kept.load(Ordering::Relaxed)
    );
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), usize::try_from(total).expect("it fits"));
}
