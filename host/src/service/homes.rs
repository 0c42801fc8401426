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
mod leases;
mod repository;
mod rows;
mod visits;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use serde_bytes::ByteBuf;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::agents::Agents;
use super::failure::Failure;
use super::kit::{Kit, chain};
use crate::ports::admin::HostListed;
use crate::ports::repository::RepositoryError;
use crate::ports::sessions::SessionWord;
use crate::ports::siblings::Siblings;
use crate::ports::store::Store;

pub use self::keeper::Keeper;
pub use self::repository::HomedRepository;
use self::rows::{Home, Lease};
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
    /// Why repositories could not be taken up when that was tried last.
    unfit: Mutex<HashMap<ProjectId, String>>,
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

impl Homes {
    /// Returns the homes of a host that shares its store with nobody: all projects are at home.
    #[must_use]
    pub fn alone() -> Self {
        Self { shared: None, changes: Arc::new(watch::channel(0).0), queue: Arc::default() }
    }

    /// Returns the homes of a host that shares its store. None is its own before the first [`Homes::settle`].
    #[must_use]
    pub fn shared(me: Me, store: Arc<dyn Store>, siblings: Arc<dyn Siblings>) -> Self {
        let (view, gone, taken, took, unfit, turn, missed) = Default::default();
        Self { shared: Some(Arc::new(Shared { me, store, siblings, view, gone, taken, took, unfit, turn, missed })), ..Self::alone() }
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
        let question = Bytes::from(wire::encode(&wire::Question::Session { project, session: session.to_owned(), word }));
        let mut asked = JoinSet::new();
        for url in shared.others() {
            let (siblings, question) = (Arc::clone(&shared.siblings), question.clone());
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
        let question = Bytes::from(wire::encode(&wire::Question::Component { digest: digest.to_owned() }));
        for url in shared.others() {
            let Ok(answer) = shared.siblings.ask(&url, question.clone()).await else { continue };
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
                    shared.unfit.lock().remove(&project);
                    shared.taken.lock().insert(project);
                    shared.took.notify_one();
                }
                // One repository that cannot be used is no reason to be away for all others.
                Err(error) => {
                    let why = chain(&error);
                    if shared.unfit.lock().insert(project, why.clone()).as_ref() != Some(&why) {
                        tracing::error!(%project, error = why, "the repository cannot be taken up; it is tried again");
                    }
                }
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

    /// Returns where the other hosts are reached that show life.
    fn others(&self) -> Vec<String> {
        let view = self.view.load();
        let others = view.hosts.values().filter(|lease| lease.host != self.me.host && view.live.contains(&lease.host));
        others.map(|lease| lease.url.clone()).collect()
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
}
