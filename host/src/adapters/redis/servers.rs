//! Finding the servers of data, and connections to them.
//!
//! Owns: who is the master now (by Sentinels, by the cluster's own map), what a connection is set up with, whether a server
//! fell out. Must not know: what is asked of it.
//!
//! **Invariant:** a server that answered wrongly, or not in time, is not asked again over the same connection: all are found anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo, PushKind,
    RedisError, ServerErrorKind, Value,
};
use tokio_util::sync::CancellationToken;

use super::RedisOptions;
use super::address::{Kind, Server};
use super::entry::read;
use super::keys::{self, SLOTS};
use super::lane::REPLICA_MS;
use crate::ports::store::Wakers;

/// A master that does not know its replicas is asked again after.
const SENTINELS_ASKED_MS: u64 = 1_000;

/// A connected server of data.
pub(super) struct Master {
    server: Server,
    connection: MultiplexedConnection,
    /// For writes: waiting for replicas holds up whatever comes behind.
    writes: MultiplexedConnection,
    /// The process that serves and the history that it is the master of: another one may have lost what this one knew. A process that was
    /// a replica meanwhile took over what another master had, and begins a history of its own when it is promoted again.
    lineage: String,
    /// Replicas that have to have a write before it is answered.
    acks: AtomicU32,
    fell_out: CancellationToken,
}

/// All servers of data, as they are now.
pub(super) struct Servers {
    masters: Vec<Arc<Master>>,
    /// First and last slot, and whose they are.
    slots: Vec<(u16, u16, usize)>,
    /// Cancelled when any of them fell out.
    pub(super) fell_out: CancellationToken,
}

impl Servers {
    /// Returns the server that has a space.
    pub(super) fn of(&self, space: &str) -> Result<&Arc<Master>, RedisError> {
        let slot = keys::slot(space);
        let found = self.slots.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        let missing = || RedisError::from((ErrorKind::ClusterConnectionNotFound, "no node of the cluster serves the slot"));
        found.map(|(_, _, master)| &self.masters[*master]).ok_or_else(missing)
    }

    /// Returns each of them once.
    pub(super) fn all(&self) -> &[Arc<Master>] {
        &self.masters
    }

    /// Returns what names these very processes and their histories.
    pub(super) fn lineage(&self) -> String {
        let mut ids: Vec<&str> = self.masters.iter().map(|master| master.lineage.as_str()).collect();
        ids.sort_unstable();
        ids.join(" ")
    }
}

impl Master {
    /// Returns a connection to it.
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Returns the connection for writes.
    pub(super) fn writes(&self) -> MultiplexedConnection {
        self.writes.clone()
    }

    fn history(&self) -> &str {
        self.lineage.split_once(':').map_or("", |(_, history)| history)
    }

    /// Returns how many replicas have to have a write before it is answered.
    pub(super) fn acks(&self) -> u32 {
        self.acks.load(Ordering::Relaxed)
    }

    /// Returns once it is not to be asked any more.
    pub(super) async fn fell_out(&self) {
        self.fell_out.cancelled().await;
    }

    /// Notes that it is not to be asked any more.
    pub(super) fn falls_out(&self, why: &RedisError) {
        if !self.fell_out.is_cancelled() {
            tracing::warn!(server = %self.server, error = %why, "a server of Redis fell out");
        }
        self.fell_out.cancel();
    }

    /// Asks one thing. What shows that another is to be asked makes it fall out.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let answer = command.query_async(&mut self.connection()).await;
        answer.inspect_err(|error| self.note(error))
    }

    /// Asks several things at once.
    pub(super) async fn ask_all<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, RedisError> {
        let answer = pipeline.query_async(&mut self.connection()).await;
        answer.inspect_err(|error| self.note(error))
    }

    /// Writes, and waits until as many replicas as have to have a write do have it and all before it.
    pub(super) async fn replicate(&self, write: &Cmd) -> Result<(), RedisError> {
        let acks = self.acks();
        if acks == 0 {
            return Ok(());
        }
        let mut both = redis::pipe();
        both.add_command(write.clone()).ignore().cmd("WAIT").arg(acks).arg(REPLICA_MS);
        let asked = both.query_async(&mut self.writes()).await;
        let (followed,): (u32,) = asked.inspect_err(|error| self.note(error))?;
        if followed < acks {
            return Err((ErrorKind::Io, "no replica followed in time").into());
        }
        Ok(())
    }

    /// Makes it fall out where an error says that it is not the one to be asked.
    pub(super) fn note(&self, error: &RedisError) {
        let is_broken = error.is_io_error() || error.is_connection_dropped() || error.is_timeout() || error.kind() == ErrorKind::Parse;
        let is_moved = matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::Moved
                    | ServerErrorKind::Ask
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::BusyLoading
            )
        );
        if is_broken || is_moved {
            self.falls_out(error);
        }
    }

    /// Looks at how many replicas follow it; with Sentinels none is done without unless they say, by a majority, that there is none.
    pub(super) async fn look_at_replicas(&self, finder: &Finder) -> Result<(), RedisError> {
        let info: String = self.ask(redis::cmd("INFO").arg("replication")).await?;
        if field(&info, "role") != Some("master") {
            let error = RedisError::from((ServerErrorKind::ReadOnly.into(), "it is no master any more"));
            self.falls_out(&error);
            return Err(error);
        }
        if field(&info, "master_replid") != Some(self.history()) {
            // It was a replica meanwhile, or its first one came: only who connects anew can tell what it has.
            let error = RedisError::from((ErrorKind::Client, "it has begun another history"));
            self.falls_out(&error);
            return Err(error);
        }
        if finder.name_another(&self.server).await {
            // It may not know that yet: what it answers until it does would be lost.
            let error = RedisError::from((ServerErrorKind::ReadOnly.into(), "the Sentinels name another master"));
            self.falls_out(&error);
            return Err(error);
        }
        // All that follow: which of them is promoted is not ours to say.
        let follow = info.lines().filter(|line| line.starts_with("slave") && line.contains("state=online")).count();
        let follow = u32::try_from(follow).unwrap_or(u32::MAX);
        let acks = if follow == 0 && finder.expects_replicas().await { 1 } else { follow };
        self.acks.store(acks, Ordering::Relaxed);
        Ok(())
    }
}

/// Returns a field of what `INFO` says.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
}

/// Finds servers.
pub(super) struct Finder {
    options: RedisOptions,
    channel: String,
    wakers: Arc<Wakers>,
}

impl Finder {
    pub(super) fn new(options: RedisOptions, channel: String, wakers: Arc<Wakers>) -> Self {
        Self { options, channel, wakers }
    }

    /// Finds and connects all servers of data.
    pub(super) async fn find(&self) -> Result<Servers, RedisError> {
        let places = match self.options.address.kind() {
            Kind::Single => vec![(0, SLOTS - 1, self.options.address.seeds()[0].clone())],
            Kind::Sentinel => vec![(0, SLOTS - 1, self.master().await?)],
            Kind::Cluster => self.map().await?,
        };
        let fell_out = CancellationToken::new();
        let (mut masters, mut known, mut slots) = (Vec::new(), HashMap::new(), Vec::new());
        for (first, last, server) in places {
            let at = match known.get(&server) {
                Some(at) => *at,
                None => {
                    masters.push(Arc::new(self.connect(&server, &fell_out).await?));
                    known.insert(server, masters.len() - 1);
                    masters.len() - 1
                }
            };
            slots.push((first, last, at));
        }
        Ok(Servers { masters, slots, fell_out })
    }

    async fn connect(&self, server: &Server, fell_out: &CancellationToken) -> Result<Master, RedisError> {
        let client = self.client(server)?;
        let (woken, cut) = (Arc::clone(&self.wakers), fell_out.clone());
        let config = self.config(self.options.answer_ms).set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                cut.cancel();
            }
            wake(&woken, &push);
            Ok::<(), redis::aio::SendError>(())
        });
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let (server_info, replication): (String, String) =
            redis::pipe().cmd("INFO").arg("server").cmd("INFO").arg("replication").query_async(&mut connection).await?;
        if field(&replication, "role") != Some("master") {
            return Err((ServerErrorKind::ReadOnly.into(), "the server is no master", server.to_string()).into());
        }
        let unnamed = || RedisError::from((ErrorKind::UnexpectedReturnType, "the server does not name its run and its history"));
        let run = field(&server_info, "run_id").ok_or_else(unnamed)?;
        let history = field(&replication, "master_replid").ok_or_else(unnamed)?;
        let master = Master {
            server: server.clone(),
            connection: connection.clone(),
            writes: client.get_multiplexed_async_connection_with_config(&self.config(self.options.answer_ms)).await?,
            lineage: format!("{run}:{history}"),
            acks: AtomicU32::new(1),
            fell_out: fell_out.clone(),
        };
        master.look_at_replicas(self).await?;
        connection.subscribe(&self.channel).await?;
        Ok(master)
    }

    fn client(&self, server: &Server) -> Result<Client, RedisError> {
        let info = self.options.address.to(server)?;
        let mut settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = &self.options.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.options.password {
            settings = settings.set_password(password);
        }
        self.open(info.set_redis_settings(settings))
    }

    fn open(&self, info: impl IntoConnectionInfo) -> Result<Client, RedisError> {
        match &self.options.root_certificate {
            Some(pem) if self.options.address.is_tls() => {
                let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                Client::build_with_tls(info, certificates)
            }
            Some(_) | None => Client::open(info),
        }
    }

    fn config(&self, answer_ms: u64) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_millis(self.options.connect_ms)))
            .set_response_timeout(Some(Duration::from_millis(answer_ms)))
    }

    /// Asks the Sentinels, one after another, until one answers as it should.
    async fn sentinels<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let mut last = RedisError::from((ErrorKind::EmptySentinelList, "no Sentinel is named"));
        for server in self.options.address.seeds() {
            match self.sentinel(server, command).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn sentinel<T: FromRedisValue>(&self, server: &Server, command: &Cmd) -> Result<T, RedisError> {
        let info = self.options.address.to_sentinel(server)?;
        let mut settings = info.redis_settings().clone();
        if let Some(password) = &self.options.sentinel_password {
            settings = settings.set_password(password);
        }
        let client = self.open(info.set_redis_settings(settings))?;
        let config = self.config(SENTINELS_ASKED_MS).set_connection_timeout(Some(Duration::from_millis(SENTINELS_ASKED_MS)));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        command.query_async::<T>(&mut connection).await
    }

    /// Returns the master that more than half of the named Sentinels name: while they move to another one they disagree, and one alone
    /// may not have heard of it.
    async fn master(&self) -> Result<Server, RedisError> {
        let name = self.options.address.master();
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let (mut named, mut last) = (HashMap::<Server, usize>::new(), None);
        for server in self.options.address.seeds() {
            match self.sentinel::<Option<(String, u16)>>(server, &command).await {
                Ok(Some((host, port))) => *named.entry(Server { host, port }).or_default() += 1,
                Ok(None) => {
                    let why = "the Sentinels do not know the master";
                    last = Some((ErrorKind::MasterNameNotFoundBySentinel, why, name.to_owned()).into());
                }
                Err(error) => last = Some(error),
            }
        }
        let most = named.into_iter().max_by_key(|(_, count)| *count);
        match most {
            Some((master, count)) if 2 * count > self.options.address.seeds().len() => Ok(master),
            Some(_) => Err((ErrorKind::Client, "no majority of the named Sentinels agrees on the master").into()),
            None => Err(last.unwrap_or_else(|| (ErrorKind::EmptySentinelList, "no Sentinel is named").into())),
        }
    }

    /// Returns whether the Sentinels name another master by now. What they say while they disagree changes nothing.
    async fn name_another(&self, server: &Server) -> bool {
        self.options.address.kind() == Kind::Sentinel && self.master().await.is_ok_and(|master| master != *server)
    }

    /// Returns whether a write has to wait for a replica although none follows: with Sentinels, unless a majority of them answers and
    /// knows of none that is well. A master that was cut off cannot say that.
    async fn expects_replicas(&self) -> bool {
        if self.options.address.kind() != Kind::Sentinel {
            return false;
        }
        let name = self.options.address.master();
        let ask = |what: &str| {
            let mut command = redis::cmd("SENTINEL");
            command.arg(what).arg(name);
            command
        };
        if self.sentinels::<String>(&ask("CKQUORUM")).await.is_err() {
            return true;
        }
        match self.sentinels::<Vec<HashMap<String, String>>>(&ask("REPLICAS")).await {
            Ok(replicas) => replicas.iter().any(|replica| replica.get("flags").is_some_and(|flags| flags == "slave")),
            Err(_) => true,
        }
    }

    /// Asks the nodes, one after another, for the map of slots.
    async fn map(&self) -> Result<Vec<(u16, u16, Server)>, RedisError> {
        let mut last = RedisError::from((ErrorKind::ClusterConnectionNotFound, "no node is named"));
        for seed in self.options.address.seeds() {
            let asked = async {
                let mut connection =
                    self.client(seed)?.get_multiplexed_async_connection_with_config(&self.config(self.options.answer_ms)).await?;
                redis::cmd("CLUSTER").arg("SLOTS").query_async::<Vec<Value>>(&mut connection).await
            };
            match asked.await {
                Ok(ranges) => {
                    let map: Option<Vec<_>> = ranges.into_iter().map(|range| slots(range, &seed.host)).collect();
                    let map = map.ok_or((ErrorKind::UnexpectedReturnType, "the map of slots cannot be read"))?;
                    let served: u32 = map.iter().map(|(first, last, _)| u32::from(last.saturating_sub(*first)) + 1).sum();
                    if served == u32::from(SLOTS) {
                        return Ok(map);
                    }
                    last = (ServerErrorKind::ClusterDown.into(), "not all slots are served", seed.to_string()).into();
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Returns a range of slots and its master.
fn slots(range: Value, asked: &str) -> Option<(u16, u16, Server)> {
    let mut parts = read::<Vec<Value>>(range)?.into_iter();
    let (first, last) = (read(parts.next()?)?, read(parts.next()?)?);
    let mut master = read::<Vec<Value>>(parts.next()?)?.into_iter();
    let (host, port) = (read::<Option<String>>(master.next()?)?, read(master.next()?)?);
    let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| asked.to_owned());
    Some((first, last, Server { host, port }))
}

/// Wakes whom a push is for.
fn wake(wakers: &Wakers, push: &PushInfo) {
    if push.kind == PushKind::Message {
        let Some(payload) = push.data.get(1).cloned().and_then(read::<String>) else { return };
        if payload == keys::DUE {
            wakers.wake_due();
        } else if let Some(project) = keys::project(&payload) {
            wakers.wake(project);
        }
    }
}
