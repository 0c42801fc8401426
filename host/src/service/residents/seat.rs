//! One resident in one project: what wakes it next, what becomes of its answer.
//!
//! **Invariant:** one event at a time, and nothing of a seat's own memory is needed to go on after a restart: its records,
//! its inbox and the log say everything.

mod attend;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::agent::ProjectRecord;
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::ProjectId;
use pointsman_core::inbox::Try;
use serde_json::json;
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::moves::Lease;
use super::record::{
    Feed, Load, LoadKind, Patterns, Wake, WakeKind, due_of_wake, feed_key, load_key, logged_id, retry_due, wake_key, wakes_prefix,
};
use super::{Bell, Key, RETRY_MS, requests};
use crate::ports::fetch::{Fetch, FetchAnswer, FetchError, FetchRequest};
use crate::ports::plugins::PluginFailure;
use crate::ports::resident::{Cause, ResidentDescription};
use crate::ports::store::{Commit, Committed, DueChange};
use crate::service::agents::principal_of;
use crate::service::contexts::Viewer;
use crate::service::failure::Failure;
use crate::service::kit::{Acting, CommitExt, Loaded, chain};
use crate::service::messaging::Handed;
use crate::service::settings::ResidentBinding;
use crate::service::surface::Services;
use attend::Source;

/// Events read at once.
const PAGE_EVENTS: usize = 256;
/// Events passed over before the place in the log is stored.
const PASSED_OVER_MAX: u64 = 1_000;
/// Wake-ups armed again at a start.
const WAKES_MAX: usize = 10_000;
/// Requests under way at once.
const REQUESTS_MAX: usize = 8;

/// A resident in a project.
pub(super) struct Seat {
    services: Services,
    fetch: Arc<dyn Fetch>,
    binding: ResidentBinding,
    digest: String,
    /// By which load the component stands that this seat is for.
    load: u64,
    is_provider: bool,
    /// Cancelled when it is to leave.
    leave: CancellationToken,
    acting: Acting,
    patterns: Patterns,
    bell: Arc<Bell>,
    feed: Loaded<Feed>,
    /// How far the log was looked through; `feed` says how far it was settled.
    scanned: Cursor,
    /// A message that was handed out and not settled, because the store failed meanwhile.
    held: Option<Handed>,
    requests: JoinSet<Asked>,
    /// The event of each request under way.
    asked: HashMap<task::Id, String>,
}

/// A request that was made, and what came of it.
struct Asked {
    /// The due entry that rang for it.
    due: String,
    /// The event by which its agent will be woken: another one by now where it asked anew under the same id.
    event: String,
    came: Result<FetchAnswer, FetchError>,
}

impl Seat {
    /// Moves a resident in: notes where the log ends, makes it an agent, takes back what it was handed before, arms its
    /// wake-ups.
    pub(super) async fn open(
        services: &Services,
        fetch: &Arc<dyn Fetch>,
        project: &ProjectRecord,
        lease: &Lease,
        description: &ResidentDescription,
        (bell, leave): (Arc<Bell>, CancellationToken),
    ) -> Result<Self, Failure> {
        let Lease { binding, is_provider, load } = lease;
        let plugin = binding.plugin.as_str();
        let kit = &services.kit;
        let wrong = |why: String| Failure::refused("bad_argument", why, "Correct the component.");
        let patterns = Patterns::parse(&description.events).map_err(wrong)?;
        let feed = load_feed(services, project.id, plugin).await?;
        let agent = services.agents.enrol(project.id, plugin, description).await?;
        let acting = Acting {
            project: project.id,
            agent: Arc::new(agent),
            principal_name: principal_of(plugin),
            trace: format!("resident-{plugin}"),
        };
        // Its tries count: what it was handed may be what the host, or its component, ended by.
        let recalled = services.messaging.recall(&acting, Try::Counts).await?;
        if recalled > 0 {
            tracing::info!(plugin, recalled, "messages come again that were not handled before");
        }
        let seat = Self {
            services: services.clone(),
            fetch: Arc::clone(fetch),
            binding: binding.clone(),
            digest: kit.plugins.reference(plugin).map(|reference| reference.digest).unwrap_or_default(),
            load: *load,
            is_provider: *is_provider,
            leave,
            acting,
            patterns,
            bell,
            scanned: feed.value.cursor,
            feed,
            held: None,
            requests: JoinSet::new(),
            asked: HashMap::new(),
        };
        seat.arm().await?;
        Ok(seat)
    }

    fn project(&self) -> ProjectId {
        self.acting.project
    }

    /// Returns where it is.
    pub(super) fn key(&self) -> Key {
        (self.acting.project, self.binding.plugin.clone())
    }

    /// Returns whether the component that is loaded is the one that this seat is for; none: none is loaded.
    fn is_own(&self) -> Option<bool> {
        self.services.kit.plugins.load_number(&self.binding.plugin).map(|load| load == self.load)
    }

    fn commit(&self) -> Commit {
        Commit { project: Some(self.project()), ..Commit::default() }
    }

    /// Sets the due entries of all records: those that rang while it did not live here are gone.
    async fn arm(&self) -> Result<(), Failure> {
        let plugin = &self.binding.plugin;
        let wakes = self.services.kit.load_all::<Wake>(Some(self.project()), &wakes_prefix(plugin), WAKES_MAX).await?;
        let mut commit = self.commit();
        for (key, found) in wakes {
            commit.due.extend(due_of_wake(plugin, &key).map(|name| DueChange::Set { name, at: found.value.at }));
        }
        commit.due.extend(self.feed.value.retry_at.map(|at| DueChange::Set { name: retry_due(plugin), at }));
        if !commit.due.is_empty() {
            self.services.kit.store.commit(commit).await?;
        }
        Ok(())
    }

    /// Handles one event after another until `stop`, or until it is to leave.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut hint = self.services.kit.store.watch(Some(self.project()));
        let leave = self.leave.clone();
        while !stop.is_cancelled() && !leave.is_cancelled() {
            hint.borrow_and_update();
            let mut pause = false;
            match self.turn().await {
                Ok(true) => continue,
                Ok(false) => {}
                // That it rests is said where that begins.
                Err(Failure::Plugin(PluginFailure::Resting { .. })) => pause = true,
                Err(failure) => {
                    tracing::warn!(plugin = %self.binding.plugin, error = %chain(&failure), "a resident waits");
                    pause = true;
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = leave.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(RETRY_MS)), if pause => {}
                changed = hint.changed(), if !pause => if changed.is_err() {
                    hint = self.services.kit.store.watch(Some(self.acting.project));
                },
                () = self.bell.rung.notified(), if !pause => {}
                Some(ended) = self.requests.join_next_with_id(), if !pause => if let Err(failure) = self.answered(ended).await {
                    tracing::warn!(plugin = %self.binding.plugin, error = %chain(&failure), "an answer is not stored; it is asked for again");
                },
            }
        }
        if leave.is_cancelled() && self.held.take().is_some() {
            // Its successor is handed it again; that this one did not come to an end with it is no try.
            let recalled = self.services.messaging.recall(&self.acting, Try::TakenBack).await;
            if let Err(failure) = recalled {
                tracing::warn!(plugin = %self.binding.plugin, error = %chain(&failure), "a message comes again when its lease is over");
            }
        }
    }

    /// Takes in the requests that ended, and handles at most one of each kind of what waits: something due, a message, an event
    /// of the log. When it is to leave, the event under way is its last. Returns whether there was any.
    pub(super) async fn turn(&mut self) -> Result<bool, Failure> {
        let mut any = false;
        while let Some(ended) = self.requests.try_join_next_with_id() {
            any = true;
            self.answered(ended).await?;
        }
        if let Some(name) = self.bell.take() {
            any = true;
            let rung = self.rung(&name).await;
            if rung.is_err() {
                self.bell.ring(&name);
            }
            rung?;
        }
        // What it is sent stays in its inbox until it is asked again.
        if self.held.is_none() && self.services.kit.plugins.rests(&self.binding.plugin) {
            let (plugin, why) = (self.binding.plugin.clone(), "it rests".to_owned());
            return Err(PluginFailure::Resting { plugin, why }.into());
        }
        if !self.leave.is_cancelled() {
            any |= self.message().await?;
        }
        if !self.leave.is_cancelled() {
            any |= self.logged().await?;
        }
        Ok(any)
    }

    /// Waits for the requests under way. Returns how many there were.
    pub(super) async fn finish_requests(&mut self) -> Result<usize, Failure> {
        let mut count = 0;
        while let Some(ended) = self.requests.join_next_with_id().await {
            self.answered(ended).await?;
            count += 1;
        }
        Ok(count)
    }

    /// Works off what a due entry rang for.
    async fn rung(&mut self, name: &str) -> Result<(), Failure> {
        let Some(key) = wake_key(name) else {
            // A try that waited: the log is looked at anyway.
            if self.feed.value.retry_at.is_none() {
                self.set_due(DueChange::Clear { name: name.to_owned() }).await?;
            }
            return Ok(());
        };
        let Some(found) = self.services.kit.load::<Wake>(Some(self.project()), &key).await? else {
            return self.set_due(DueChange::Clear { name: name.to_owned() }).await;
        };
        let Loaded { value: wake, version } = found;
        if wake.at > self.services.kit.now() {
            return self.set_due(DueChange::Set { name: name.to_owned(), at: wake.at }).await;
        }
        let id = wake.event.clone();
        let load = match &wake.what {
            WakeKind::Timer(_) => None,
            WakeKind::Ask(_) | WakeKind::Answer { .. } => self.load_of(&key, &wake).await?,
        };
        let cause = match (&wake.what, load) {
            (WakeKind::Timer(id), _) => Cause::Timer(id.clone()),
            (WakeKind::Answer { id, status }, Some(LoadKind::Body(body))) => Cause::Http { id: id.clone(), status: *status, body },
            (WakeKind::Ask(_), Some(LoadKind::Request(request))) => {
                self.request(name, id, request);
                return Ok(());
            }
            // Written together: it changed between the two reads, and rings again.
            (WakeKind::Ask(_) | WakeKind::Answer { .. }, _) => return Ok(()),
        };
        let source = Source::Wake { due: name.to_owned(), key, wake: Box::new(wake), version };
        self.attend(&source, &id, cause).await
    }

    /// Returns what goes with a wake-up, if it is still the same.
    async fn load_of(&self, key: &str, wake: &Wake) -> Result<Option<LoadKind>, Failure> {
        let found = self.services.kit.load::<Load>(Some(self.project()), &load_key(key)).await?;
        Ok(found.filter(|found| found.value.event == wake.event).map(|found| found.value.what))
    }

    /// Makes a request, unless it is under way or too many are. It is made at least once: where its answer is lost, it rings again.
    fn request(&mut self, due: &str, event: String, request: FetchRequest) {
        if self.requests.len() >= REQUESTS_MAX || self.asked.values().any(|asked| *asked == event) {
            return;
        }
        let (fetch, due, asked) = (Arc::clone(&self.fetch), due.to_owned(), event.clone());
        let handle = self.requests.spawn(async move {
            let came = fetch.fetch(&request, requests::LIMITS).await;
            Asked { due, event, came }
        });
        self.asked.insert(handle.id(), asked);
    }

    async fn set_due(&self, change: DueChange) -> Result<(), Failure> {
        let commit = Commit { due: vec![change], ..self.commit() };
        self.services.kit.store.commit(commit).await?;
        Ok(())
    }

    /// Stores what came of a request; it wakes the agent by that.
    async fn answered(&mut self, ended: Result<(task::Id, Asked), JoinError>) -> Result<(), Failure> {
        let (id, asked) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // It is made again as it rings.
                tracing::error!(plugin = %self.binding.plugin, %error, "a request died");
                self.asked.remove(&error.id());
                return Ok(());
            }
        };
        self.asked.remove(&id);
        let Some(key) = wake_key(&asked.due) else { return Ok(()) };
        let (status, body) = match asked.came {
            Ok(answer) => (answer.status, answer.body),
            Err(error) => (0, error.to_string().into_bytes()),
        };
        let answer = LoadKind::Body(body);
        let (due, event) = (asked.due.as_str(), asked.event.as_str());
        let (is_stored, _) = self.services.kit.decide(|| self.decide_answered(due, &key, event, status, &answer)).await?;
        if !is_stored {
            tracing::info!(plugin = %self.binding.plugin, event, "an answer is not waited for any more");
        }
        self.bell.ring(due);
        Ok(())
    }

    /// Decides what is stored of an answer: nothing where the agent asked for something else under the same id meanwhile.
    async fn decide_answered(&self, due: &str, key: &str, event: &str, status: u16, answer: &LoadKind) -> Result<(Commit, bool), Failure> {
        let mut commit = self.commit();
        let found = self.services.kit.load::<Wake>(Some(self.project()), key).await?;
        let Some(Loaded { value: wake, version }) = found.filter(|found| found.value.event == event) else { return Ok((commit, false)) };
        let (WakeKind::Ask(id), Some(LoadKind::Request(request)), LoadKind::Body(body)) =
            (&wake.what, self.load_of(key, &wake).await?, answer)
        else {
            return Ok((commit, false));
        };
        let data = json!({
            "plugin": self.binding.plugin, "event": wake.event, "method": request.method, "host": request.url.authority(),
            "status": status, "body_bytes": body.len(),
        });
        let fetched = self.acting.event("resident.fetched", format!("plugin:{}", self.binding.plugin), data);
        commit.events.push(fetched.caused_by(&wake.event));
        let at = self.services.kit.now();
        let what = WakeKind::Answer { id: id.clone(), status };
        commit.put(load_key(key), &Load { event: event.to_owned(), what: answer.clone() });
        commit.replace(key, Some(version), &Wake { at, what, ..wake.clone() });
        commit.due.push(DueChange::Set { name: due.to_owned(), at });
        Ok((commit, true))
    }

    /// Handles the next message of the inbox.
    async fn message(&mut self) -> Result<bool, Failure> {
        if self.held.is_none() {
            let project = self.project();
            if self.services.messaging.unread(project, self.acting.agent.id).await? == 0 {
                return Ok(false);
            }
            self.services.agents.touch(self.acting.agent.id);
            self.held = self.services.messaging.hand_out(&self.acting, 1).await?.into_iter().next();
        }
        let Some(handed) = self.held.clone() else { return Ok(false) };
        let id = handed.message.id.to_string();
        let json = serde_json::to_string(&handed.message).unwrap_or_default();
        let source = Source::Message { id: handed.message.id, attempt: handed.attempt };
        self.attend(&source, &id, Cause::Message(json)).await?;
        self.held = None;
        Ok(true)
    }

    /// Handles the next event of the log that is for it.
    async fn logged(&mut self) -> Result<bool, Failure> {
        if self.feed.value.retry_at.is_some_and(|at| at > self.services.kit.now()) {
            return Ok(false);
        }
        loop {
            let page = self.page().await?;
            if page.is_empty() {
                return Ok(false);
            }
            for event in page {
                if self.patterns.cover(&event, self.acting.agent.id, &self.binding.plugin) && self.may_hear(&event).await? {
                    let json = serde_json::to_string(&*event).unwrap_or_default();
                    let (id, source) = (logged_id(event.cursor), Source::Log(event.cursor));
                    let attended = self.attend(&source, &id, Cause::Logged(json)).await;
                    self.scanned = self.feed.value.cursor;
                    return attended.map(|()| true);
                }
                self.scanned = event.cursor;
            }
            self.pass_over().await?;
        }
    }

    async fn may_hear(&self, event: &Event) -> Result<bool, Failure> {
        let viewer = Viewer::from(&self.acting);
        self.services.contexts.may_hear(self.project(), &viewer, &event.event.subject).await
    }

    async fn page(&self) -> Result<Vec<Arc<Event>>, Failure> {
        let board = self.services.agents.board(self.project()).await?;
        if let Some(page) = board.recent(self.scanned, PAGE_EVENTS) {
            return Ok(page);
        }
        let stored = self.services.kit.store.events(Some(self.project()), self.scanned, PAGE_EVENTS).await?;
        Ok(stored.into_iter().map(Arc::new).collect())
    }

    /// Stores the place in the log after many events that were not for it.
    async fn pass_over(&mut self) -> Result<(), Failure> {
        let passed = self.scanned.seq.saturating_sub(self.feed.value.cursor.seq);
        if passed < PASSED_OVER_MAX && self.scanned.epoch == self.feed.value.cursor.epoch {
            return Ok(());
        }
        let mut commit = self.commit();
        let feed = Feed { cursor: self.scanned, attempts: 0, retry_at: None };
        commit.replace(feed_key(&self.binding.plugin), Some(self.feed.version), &feed);
        match self.services.kit.store.commit(commit).await {
            Ok(Committed::Done { version, .. }) => self.feed = Loaded { value: feed, version },
            Ok(Committed::Replayed(_) | Committed::Kept) => {}
            Err(error) => {
                self.reload_feed().await?;
                tracing::debug!(plugin = %self.binding.plugin, %error, "the place in the log is not stored");
            }
        }
        Ok(())
    }

    async fn reload_feed(&mut self) -> Result<(), Failure> {
        self.feed = load_feed(&self.services, self.project(), &self.binding.plugin).await?;
        self.scanned = self.feed.value.cursor;
        Ok(())
    }
}

/// Returns where a resident stands in the log: at its end, when it is new.
async fn load_feed(services: &Services, project: ProjectId, plugin: &str) -> Result<Loaded<Feed>, Failure> {
    let key = feed_key(plugin);
    if let Some(found) = services.kit.load::<Feed>(Some(project), &key).await? {
        return Ok(found);
    }
    let feed = Feed { cursor: services.kit.store.head(Some(project)).await?, ..Feed::default() };
    let mut commit = Commit { project: Some(project), ..Commit::default() };
    commit.replace(key, None, &feed);
    match services.kit.store.commit(commit).await? {
        Committed::Done { version, .. } => Ok(Loaded { value: feed, version }),
        Committed::Replayed(_) | Committed::Kept => Err(Failure::Unavailable { retry_after_ms: RETRY_MS }),
    }
}
