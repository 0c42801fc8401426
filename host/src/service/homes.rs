//! Homes: which host has which project's repository, where several hosts serve one store.
//!
//! Each host renews a lease on its own name; each project's record of its home names a host, an epoch, and the volume that the
//! repository is on. A host whose lease has run out is gone: another one that sees the same volume takes its projects over, at the next
//! epoch, and finishes what was begun. Where no other host sees the volume, the repository is away until its host comes back; messages,
//! context and tasks go on.
//!
//! Owns: the leases, the records, what this host knows of both ([`Homes`]), the loop that keeps them ([`Keeper`]), the repositories as
//! the services see them ([`HomedRepository`]), what siblings ask ([`Visits`]). Must not know: how hosts reach one another.
//!
//! **Invariants:**
//! - A host acts for a project only while its own lease runs, and after it adopted the repository at the epoch that the record names.
//! - A record changes hands only in a commit that saw the earlier home's lease run out, or given back.
//! - Hosts of one store have the same keys: what one seals the others open.

mod keeper;
mod repository;
mod visits;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::agents::Agents;
use super::failure::Failure;
use super::kit::{CommitExt, Kit, Loaded};
use crate::ports::admin::HostListed;
use crate::ports::repository::RepositoryError;
use crate::ports::sessions::SessionWord;
use crate::ports::siblings::Siblings;
use crate::ports::store::{Commit, Expect, Store};

pub use self::keeper::Keeper;
pub use self::repository::HomedRepository;
pub use self::visits::Visits;

/// Milliseconds a lease lasts.
const LEASE_MS: u64 = 15_000;
/// Milliseconds a lease must have left for its host to begin work on a repository.
const MARGIN_MS: u64 = 1_000;
/// Milliseconds a host must have been seen gone before it is replaced, unless it said good-bye: after the store was away for everybody,
/// each has this long to come back.
const GRACE_MS: u64 = 6_000;
/// Milliseconds to wait for a home to be known, or taken over, before a caller is told to come again.
const FIND_MS: u64 = 2_000;
/// Milliseconds for passing on what a client said.
const PASS_ON_MS: u64 = 1_000;
/// Milliseconds after which a caller is told to come again.
const RETRY_MS: u64 = 2_000;
/// Hosts of one store, and projects.
const ROWS_MAX: usize = 10_000;

/// The code of a refusal after which a host may not go on.
const NAME_TAKEN: &str = "host_name_taken";
/// Where leases stand, in the hosts' own space.
const HOSTS: &str = "host/";
/// Where projects' homes stand, there too.
const HOMES: &str = "home/";
/// Where it stands which keys the hosts of this store have.
const KEYS: &str = "host-keys";

/// A host that serves the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    /// Its name, which it keeps over restarts.
    host: String,
    /// Of this run of it.
    boot: String,
    /// Where siblings reach it.
    url: String,
    /// The volume that its repositories are on.
    volume: String,
    /// Until when, unless it is renewed.
    until: TimeMs,
}

impl Stored for Lease {
    const NAME: &'static str = "host's lease";
}

/// Where a project's repository is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Home {
    /// Which host has it.
    host: String,
    /// Rises with each host that takes it.
    epoch: u64,
    /// The volume it is on.
    volume: String,
    /// Since when.
    since: TimeMs,
}

impl Stored for Home {
    const NAME: &'static str = "project's home";
}

/// Which keys the hosts of a store have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HostKeys {
    /// What only the holder of the root key can say.
    fingerprint: String,
    /// Verifies receipts, in hexadecimal.
    receipts: String,
}

impl Stored for HostKeys {
    const NAME: &'static str = "fingerprint of the hosts' keys";
}

/// What this host is to its siblings.
#[derive(Debug, Clone)]
pub struct Me {
    /// Its name, which it keeps over restarts.
    pub host: String,
    /// Of this run.
    pub boot: String,
    /// Where siblings reach it.
    pub url: String,
    /// The volume that its repositories are on.
    pub volume: String,
}

/// Where a project's repository is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At this host.
    Here,
    /// At another one.
    At {
        /// Where that is.
        url: String,
    },
}

/// What this host last saw of all others.
#[derive(Debug, Clone, Default)]
struct View {
    hosts: BTreeMap<String, Lease>,
    /// Hosts whose leases ran when this was seen.
    live: BTreeSet<String>,
    homes: HashMap<ProjectId, Home>,
    /// Projects whose repositories this host adopted, and at which epoch.
    adopted: HashMap<ProjectId, u64>,
}

impl View {
    /// Returns whether the two differ in anything but how long leases run.
    fn differs(&self, other: &Self) -> bool {
        let urls = |view: &Self| view.hosts.iter().map(|(host, lease)| (host.clone(), lease.url.clone())).collect::<Vec<_>>();
        self.live != other.live || self.homes != other.homes || self.adopted != other.adopted || urls(self) != urls(other)
    }
}

/// What hosts that share a store know of one another.
struct Shared {
    me: Me,
    store: Arc<dyn Store>,
    siblings: Arc<dyn Siblings>,
    view: ArcSwap<View>,
    /// Since when hosts have been seen gone.
    gone: Mutex<HashMap<String, TimeMs>>,
    /// Projects that were taken, and whose unfinished work was not looked at yet.
    taken: Mutex<BTreeSet<ProjectId>>,
    /// Rung when there is one.
    took: Notify,
    turn: tokio::sync::Mutex<()>,
    /// Rung by who misses a home.
    missed: Notify,
}

/// Which projects are at home here. Cheap to clone.
#[derive(Clone)]
pub struct Homes {
    shared: Option<Arc<Shared>>,
    changes: Arc<watch::Sender<u64>>,
    queue: Arc<Notify>,
}

fn host_key(host: &str) -> String {
    format!("{HOSTS}{host}")
}

fn home_key(project: ProjectId) -> String {
    format!("{HOMES}{project}")
}

impl Homes {
    /// Returns the homes of a host that shares its store with nobody: all projects are at home.
    #[must_use]
    pub fn alone() -> Self {
        Self { shared: None, changes: Arc::new(watch::channel(0).0), queue: Arc::default() }
    }

    /// Returns the homes of a host that shares its store. None is its own before the first [`Homes::settle`].
    #[must_use]
    pub fn shared(me: Me, store: Arc<dyn Store>, siblings: Arc<dyn Siblings>) -> Self {
        let (view, gone, taken, took, turn, missed) = Default::default();
        Self { shared: Some(Arc::new(Shared { me, store, siblings, view, gone, taken, took, turn, missed })), ..Self::alone() }
    }

    /// Returns this host's name, where others may serve the store, too.
    #[must_use]
    pub fn own_name(&self) -> Option<&str> {
        self.shared.as_ref().map(|shared| shared.me.host.as_str())
    }

    /// Returns whether other hosts may serve the store, too.
    #[must_use]
    pub fn are_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Returns whether a project's repository is here, and this host may work on it now.
    #[must_use]
    pub fn is_here(&self, project: ProjectId) -> bool {
        let Some(shared) = &self.shared else { return true };
        let view = shared.view.load();
        view.homes.get(&project).is_some_and(|home| shared.is_own(&view, project, home))
    }

    /// Returns whether this host sees to what happens in a project by itself: what falls due, its residents. Its home does; where that
    /// is gone for now, one of the hosts that are there. Two may think so for a moment, and what they do is judged by the store.
    #[must_use]
    pub fn sees_to(&self, project: ProjectId) -> bool {
        let Some(shared) = &self.shared else { return true };
        let view = shared.view.load();
        match view.homes.get(&project) {
            Some(home) if view.live.contains(&home.host) => home.host == shared.me.host,
            Some(_) | None => {
                let rank = |host: &&String| *blake3::hash(format!("{project}{host}").as_bytes()).as_bytes();
                view.live.iter().max_by_key(rank) == Some(&shared.me.host)
            }
        }
    }

    /// Returns where a project's repository is.
    ///
    /// # Errors
    /// `Away`: its host is gone, and nobody could take it over in time.
    pub async fn find(&self, project: ProjectId) -> Result<Place, RepositoryError> {
        let Some(shared) = &self.shared else { return Ok(Place::Here) };
        let mut changes = self.changes.subscribe();
        let found = async {
            loop {
                changes.borrow_and_update();
                if let Some(place) = shared.place(project) {
                    return place;
                }
                shared.missed.notify_one();
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(Duration::from_millis(FIND_MS), found).await {
            Ok(place) => Ok(place),
            Err(_) => {
                shared.place(project).ok_or_else(|| RepositoryError::Away { why: shared.why_away(project), retry_after_ms: RETRY_MS })
            }
        }
    }

    /// Returns a receiver that changes with what is at home where.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits for a newer view, at most so long.
    pub async fn news(&self, limit: Duration) {
        let mut changes = self.changes.subscribe();
        if let Some(shared) = &self.shared {
            shared.missed.notify_one();
        }
        let _ = tokio::time::timeout(limit, changes.changed()).await;
    }

    /// Returns what rings when a merge queue of this host shall be looked at.
    #[must_use]
    pub fn queue_bell(&self) -> &Arc<Notify> {
        &self.queue
    }

    /// Has a project's merge queue looked at, wherever it is worked. Where that host cannot be told it looks by itself, later.
    pub async fn ring_queue(&self, project: ProjectId) {
        let place = match &self.shared {
            None => Some(Place::Here),
            Some(shared) => shared.place(project),
        };
        let (Some(Place::At { url }), Some(shared)) = (place, &self.shared) else { return self.queue.notify_one() };
        if let Err(error) = shared.siblings.ask(&url, wire::encode(&wire::Question::Queue { project }).into()).await {
            tracing::info!(%error, %project, "the project's home was not told of its queue; it looks by itself");
        }
    }

    /// Passes on what a client said in its session, to every other host that shows life; returns whether one waited for it.
    pub async fn pass_on(&self, project: ProjectId, session: &str, word: SessionWord) -> bool {
        let Some(shared) = &self.shared else { return false };
        let view = shared.view.load_full();
        let others = view.hosts.values().filter(|lease| lease.host != shared.me.host && view.live.contains(&lease.host));
        let question = Bytes::from(wire::encode(&wire::Question::Session { project, session: session.to_owned(), word }));
        let mut asked = JoinSet::new();
        for lease in others {
            let (siblings, url, question) = (Arc::clone(&shared.siblings), lease.url.clone(), question.clone());
            asked.spawn(async move { siblings.ask(&url, question).await });
        }
        let heard = |answer: &Bytes| match wire::read(answer) {
            Some(wire::Answer::Done(heard)) => wire::decode(heard).unwrap_or(false),
            Some(wire::Answer::NotHere | wire::Answer::Refused(_)) | None => false,
        };
        let all = async {
            let mut is_heard = false;
            while let Some(answer) = asked.join_next().await {
                is_heard |= answer.is_ok_and(|answer| answer.is_ok_and(|answer| heard(&answer)));
            }
            is_heard
        };
        // A host that hangs holds up nobody for longer.
        tokio::time::timeout(Duration::from_millis(PASS_ON_MS), all).await.unwrap_or(false)
    }

    /// Returns a component with this digest that another host keeps.
    pub async fn component(&self, digest: &str) -> Option<Arc<[u8]>> {
        let shared = self.shared.as_ref()?;
        let view = shared.view.load_full();
        let question = Bytes::from(wire::encode(&wire::Question::Component { digest: digest.to_owned() }));
        for lease in view.hosts.values().filter(|lease| lease.host != shared.me.host && view.live.contains(&lease.host)) {
            let Ok(answer) = shared.siblings.ask(&lease.url, question.clone()).await else { continue };
            let Some(wire::Answer::Done(found)) = wire::read(&answer) else { continue };
            let found: Option<ByteBuf> = wire::decode(found).unwrap_or_default();
            if let Some(component) = found.filter(|component| blake3::hash(component).to_hex().as_str() == digest) {
                return Some(component.into_vec().into());
            }
        }
        None
    }

    /// Returns the hosts that serve this store, this one among them; none where it is not shared.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostListed> {
        let Some(shared) = &self.shared else { return Vec::new() };
        let view = shared.view.load();
        let listed = view.hosts.values().map(|lease| HostListed {
            host: lease.host.clone(),
            url: lease.url.clone(),
            is_live: view.live.contains(&lease.host),
            is_this: lease.host == shared.me.host,
            projects: view.homes.values().filter(|home| home.host == lease.host).count(),
        });
        listed.collect()
    }

    /// Renews this host's lease, looks at all others, and takes what nobody has: projects that have no home, and those of hosts that are
    /// gone, where the repository can be reached from here.
    ///
    /// # Errors
    /// `host_name_taken`; [`Failure`].
    pub async fn settle(&self, kit: &Kit, agents: &Agents) -> Result<(), Failure> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let _turn = shared.turn.lock().await;
        shared.renew(kit).await?;
        let mut view = shared.look(kit).await?;
        // What has to be done before the lease is to be renewed again; the rest follows in the next turn, at once.
        let until = view.hosts.get(&shared.me.host).map_or(TimeMs(0), |lease| lease.until);
        let has_time = || kit.now() + LEASE_MS / 2 < until;
        for project in agents.projects().await? {
            if !has_time() {
                shared.missed.notify_one();
                break;
            }
            if let Some(home) = shared.take(kit, &view, project.id).await? {
                view.homes.insert(project.id, home);
            }
        }
        view.adopted.retain(|project, _| view.homes.get(project).is_some_and(|home| home.host == shared.me.host));
        let own = view.homes.iter().filter(|(_, home)| home.host == shared.me.host);
        let fresh: Vec<(ProjectId, u64)> =
            own.map(|(project, home)| (*project, home.epoch)).filter(|(project, epoch)| view.adopted.get(project) != Some(epoch)).collect();
        for (project, epoch) in fresh {
            if !has_time() {
                shared.missed.notify_one();
                break;
            }
            match kit.repository.adopt(project).await {
                Ok(()) => {
                    view.adopted.insert(project, epoch);
                    shared.taken.lock().insert(project);
                    shared.took.notify_one();
                }
                // One repository that cannot be used is no reason to be away for all others.
                Err(error) => tracing::error!(%project, %error, "the repository cannot be taken up; it is tried again"),
            }
        }
        self.show(view);
        Ok(())
    }

    fn show(&self, view: View) {
        let Some(shared) = &self.shared else { return };
        let before = shared.view.load_full();
        // After an outage nothing may differ but that the lease runs again: whoever waits for that is woken.
        let ran_out = !shared.runs(&before);
        let differs = ran_out || view.differs(&before);
        shared.view.store(Arc::new(view));
        if differs {
            self.changes.send_modify(|count| *count += 1);
        }
    }
}

impl Shared {
    /// Returns whether this host's lease runs, with time to begin something.
    fn runs(&self, view: &View) -> bool {
        let lease = view.hosts.get(&self.me.host);
        lease.is_some_and(|lease| lease.boot == self.me.boot && lease.until > self.store.now() + MARGIN_MS)
    }

    fn is_own(&self, view: &View, project: ProjectId, home: &Home) -> bool {
        home.host == self.me.host && self.runs(view) && view.adopted.get(&project) == Some(&home.epoch)
    }

    /// Returns where a project is reached; none: nowhere now.
    fn place(&self, project: ProjectId) -> Option<Place> {
        let view = self.view.load();
        let home = view.homes.get(&project)?;
        if home.host == self.me.host {
            return self.is_own(&view, project, home).then_some(Place::Here);
        }
        let lease = view.hosts.get(&home.host).filter(|lease| lease.until > self.store.now())?;
        Some(Place::At { url: lease.url.clone() })
    }

    fn why_away(&self, project: ProjectId) -> String {
        let view = self.view.load();
        match view.homes.get(&project) {
            None => format!("{project} has no home yet"),
            Some(home) if home.host == self.me.host => "this host's lease on the store has run out, and is being renewed".to_owned(),
            Some(home) => {
                let url = view.hosts.get(&home.host).map_or("an unknown address", |lease| lease.url.as_str());
                format!("{} at {url} has it, and shows no sign of life", home.host)
            }
        }
    }

    async fn renew(&self, kit: &Kit) -> Result<(), Failure> {
        let me = &self.me;
        let decided = kit.decide(|| async {
            let found = kit.load::<Lease>(None, &host_key(&me.host)).await?;
            let (now, mut commit) = (kit.now(), Commit::default());
            let until = now + LEASE_MS;
            let known = self.view.load().hosts.contains_key(&me.host);
            match found.as_ref().map(|found| &found.value) {
                // It was this run's once, and is another's: two hosts of one name, on copies of one data folder.
                Some(lease) if known && lease.boot != me.boot && lease.until > now => {
                    return Err(Failure::refused_with(
                        NAME_TAKEN,
                        format!("a host at {} has this one's name, {}", lease.url, me.host),
                        "Each host needs a data folder of its own, not a copy of another's.",
                        json!({"url": lease.url}),
                    ));
                }
                Some(lease) if lease.boot == me.boot => {}
                Some(_) | None => {
                    let data = json!({"host": me.host, "url": me.url, "volume": me.volume});
                    commit.events.push(NewEvent::new("host.serves", Actor::host(), format!("host:{}", me.host), data));
                }
            }
            let lease = Lease { host: me.host.clone(), boot: me.boot.clone(), url: me.url.clone(), volume: me.volume.clone(), until };
            commit.replace(host_key(&me.host), found.map(|found| found.version), &lease);
            Ok((commit, ()))
        });
        decided.await?;
        Ok(())
    }

    /// Refuses to serve with other keys than the first host of this store has.
    async fn compare_keys(kit: &Kit) -> Result<(), Failure> {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let own = HostKeys { fingerprint: hex(&kit.keys.derive("fingerprint of the root key")), receipts: hex(&kit.keys.public_key()) };
        let decided = kit.decide(|| async {
            let mut commit = Commit::default();
            match kit.load::<HostKeys>(None, KEYS).await? {
                None => commit.replace(KEYS, None, &own),
                Some(found) if found.value == own => {}
                Some(_) => {
                    return Err(Failure::refused(
                        "other_keys",
                        "this host's keys are not those of the hosts that serve this store",
                        "Copy `root.key` and `receipt.key` of the first host's data folder to this one's, or name one folder for all as `data.keys`.",
                    ));
                }
            }
            Ok((commit, ()))
        });
        decided.await?;
        Ok(())
    }

    async fn look(&self, kit: &Kit) -> Result<View, Failure> {
        let before = self.view.load_full();
        let mut view = View { adopted: before.adopted.clone(), ..View::default() };
        let now = kit.now();
        for (_, Loaded { value: lease, .. }) in kit.load_all::<Lease>(None, HOSTS, ROWS_MAX).await? {
            if lease.until > now {
                view.live.insert(lease.host.clone());
            }
            view.hosts.insert(lease.host.clone(), lease);
        }
        for (key, Loaded { value: home, .. }) in kit.load_all::<Home>(None, HOMES, ROWS_MAX).await? {
            if let Ok(project) = key[HOMES.len()..].parse() {
                view.homes.insert(project, home);
            }
        }
        let mut gone = self.gone.lock();
        gone.retain(|host, _| !view.live.contains(host));
        for home in view.homes.values().filter(|home| !view.live.contains(&home.host)) {
            gone.entry(home.host.clone()).or_insert(now);
        }
        Ok(view)
    }

    /// Takes a project, if nobody has it and its repository is here.
    async fn take(&self, kit: &Kit, view: &View, project: ProjectId) -> Result<Option<Home>, Failure> {
        let before = view.homes.get(&project);
        let may = match before {
            None => true,
            // Its repositories were moved to another volume: the record follows, so that others there can take over.
            Some(home) if home.host == self.me.host => home.volume != self.me.volume,
            Some(home) => {
                let since = self.gone.lock().get(&home.host).copied();
                let said_goodbye = !view.hosts.contains_key(&home.host);
                let is_gone = since.is_some_and(|since| said_goodbye || kit.now().since_ms(since) >= GRACE_MS);
                is_gone && home.volume == self.me.volume
            }
        };
        if !may || !kit.repository.has(project).await {
            return Ok(None);
        }
        let (taken, _) = kit.decide(|| self.decide_take(kit, project)).await?;
        Ok(taken)
    }

    async fn decide_take(&self, kit: &Kit, project: ProjectId) -> Result<(Commit, Option<Home>), Failure> {
        let found = kit.load::<Home>(None, &home_key(project)).await?;
        let mut commit = Commit::default();
        let mut from = None;
        if let Some(Loaded { value: home, .. }) = &found {
            if home.host == self.me.host {
                if home.volume == self.me.volume {
                    return Ok((commit, None));
                }
            } else {
                let lease = kit.load::<Lease>(None, &host_key(&home.host)).await?;
                let runs = lease.as_ref().is_some_and(|lease| lease.value.until > kit.now());
                if runs || home.volume != self.me.volume {
                    return Ok((commit, None));
                }
                // Renewed in the last moment, it keeps what it has.
                commit.expects.push((host_key(&home.host), lease.map_or(Expect::Absent, |lease| Expect::Version(lease.version))));
            }
            from = Some(home.host.clone());
        }
        // Who takes has to be there itself.
        match kit.load::<Lease>(None, &host_key(&self.me.host)).await? {
            Some(own) if own.value.boot == self.me.boot && own.value.until > kit.now() + MARGIN_MS => {
                commit.expects.push((host_key(&self.me.host), Expect::Version(own.version)));
            }
            Some(_) | None => return Ok((Commit::default(), None)),
        }
        let epoch = found.as_ref().map_or(0, |found| found.value.epoch) + 1;
        let home = Home { host: self.me.host.clone(), epoch, volume: self.me.volume.clone(), since: kit.now() };
        commit.replace(home_key(project), found.map(|found| found.version), &home);
        let data = json!({"project": project, "host": home.host, "url": self.me.url, "epoch": epoch, "from": from});
        commit.events.push(NewEvent::new("home.taken", Actor::host(), project, data));
        Ok((commit, Some(home)))
    }

    /// Gives this host's lease back, so that others need not wait for its end.
    async fn give_back(&self, kit: &Kit) -> Result<(), Failure> {
        let key = host_key(&self.me.host);
        let decided = kit.decide(|| async {
            let mut commit = Commit::default();
            if let Some(found) = kit.load::<Lease>(None, &key).await?
                && found.value.boot == self.me.boot
            {
                commit.expects.push((key.clone(), Expect::Version(found.version)));
                commit.deletes.push(key.clone());
                let data = json!({"host": self.me.host});
                commit.events.push(NewEvent::new("host.left", Actor::host(), format!("host:{}", self.me.host), data));
            }
            Ok((commit, ()))
        });
        decided.await?;
        Ok(())
    }
}
