//! Search: an index of each project's messages in memory, which follows the log and rebuilds itself.
//!
//! It is built from the newest message downwards, by a task of its own, when somebody searches for the first time, when the store's
//! epoch rose, or when it fell far behind; meanwhile it answers from what it has and says `incomplete`. It keeps a bounded number of
//! messages; the older ones are looked through in the store for a bounded time.
//!
//! **Invariants:** an answer that is not `incomplete` has every message it should have, among those whose commit was answered before
//! the call, down to `next`. The task only reads, and ends with the service.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::{MessageId, ProjectId};
use pointsman_core::message::Message;
use pointsman_core::message_index::{MessageIndex, Search};
use pointsman_core::time::TimeMs;
use tokio::task::JoinSet;

use super::reading::{Backwards, stored};
use super::{Messaging, message_key};
use crate::service::failure::Failure;
use crate::service::kit::{Kit, chain};

/// Messages of one project that the index keeps.
const MESSAGES_MAX: usize = 20_000;
/// Words of these messages, each counted once a message: some 20 bytes each.
const POSTINGS_MAX: usize = 1_000_000;
/// Events read at once.
const PAGE_EVENTS: usize = 256;
/// Events a search takes in itself; where there are more, the task does.
const FOLLOWED_MAX: u64 = 512;
/// Events after which building anew is less work than following.
const BEHIND_MAX: u64 = 50_000;
/// Milliseconds a search looks through what the index does not have.
const SCAN_MS: u64 = 300;

/// What a search found.
#[derive(Debug, Clone, Default)]
pub struct SearchAnswer {
    /// The newest first.
    pub messages: Vec<Message>,
    /// Below which to go on; none: there are no more.
    pub next: Option<MessageId>,
    /// Whether the index was still being built: there may be more than was found.
    pub incomplete: bool,
}

/// How far an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was read yet.
    Empty,
    /// The newest messages are in, down to some place.
    Building,
    /// All are in that there is room for, up to the cursor.
    Whole,
}

#[derive(Debug)]
struct State {
    epoch: u64,
    cursor: Cursor,
    phase: Phase,
    index: MessageIndex,
}

impl State {
    fn new() -> Self {
        let index = MessageIndex::new(MESSAGES_MAX, POSTINGS_MAX);
        Self { epoch: 0, cursor: Cursor::default(), phase: Phase::Empty, index }
    }
}

/// The index of one project.
struct Indexed {
    project: ProjectId,
    state: Mutex<State>,
    /// Whoever takes in what is new; the others wait for it and find the work done.
    reading: tokio::sync::Mutex<()>,
}

/// The indexes of all projects.
#[derive(Default)]
pub(super) struct Searches {
    projects: Mutex<HashMap<ProjectId, Arc<Indexed>>>,
    /// Builds that are under way, at most one a project.
    builds: Mutex<JoinSet<()>>,
}

impl Searches {
    /// Returns how many messages are in, and how many indexes are whole.
    pub(super) fn size(&self) -> (usize, usize) {
        let projects: Vec<Arc<Indexed>> = self.projects.lock().values().cloned().collect();
        projects.iter().fold((0, 0), |(messages, whole), indexed| {
            let state = indexed.state.lock();
            (messages + state.index.len(), whole + usize::from(state.phase == Phase::Whole))
        })
    }

    fn of(&self, project: ProjectId) -> Arc<Indexed> {
        let new = || Arc::new(Indexed { project, state: Mutex::new(State::new()), reading: tokio::sync::Mutex::default() });
        Arc::clone(self.projects.lock().entry(project).or_insert_with(new))
    }

    /// Has an index built, or brought up to the log's end, behind the caller's back. One that is at it goes on.
    fn build(&self, kit: &Kit, indexed: &Arc<Indexed>) {
        let (kit, indexed) = (kit.clone(), Arc::clone(indexed));
        let mut builds = self.builds.lock();
        while builds.try_join_next().is_some() {}
        builds.spawn(async move {
            // Somebody is at it.
            let Ok(_turn) = indexed.reading.try_lock() else { return };
            if let Err(failure) = indexed.catch_up(&kit).await {
                tracing::warn!(error = %chain(&failure), "the index of messages could not be built; the next search tries again");
            }
        });
    }
}

impl Indexed {
    /// Returns how many events the index lacks; none: it is to be built anew.
    fn behind(&self, head: Cursor, epoch: u64) -> Option<u64> {
        let state = self.state.lock();
        let behind = head.seq.saturating_sub(state.cursor.seq);
        (state.phase == Phase::Whole && state.epoch == epoch && behind <= BEHIND_MAX).then_some(behind)
    }

    /// Builds the index where that is to be done, then follows the log to its end.
    async fn catch_up(&self, kit: &Kit) -> Result<(), Failure> {
        let head = kit.store.head(Some(self.project)).await?;
        if self.behind(head, kit.store.epoch()).is_none() {
            self.build(kit, head).await?;
        }
        while self.follow(kit).await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn build(&self, kit: &Kit, head: Cursor) -> Result<(), Failure> {
        *self.state.lock() = State { epoch: kit.store.epoch(), cursor: head, phase: Phase::Building, ..State::new() };
        let mut way = Backwards::new(self.project, MessageId::from_bytes([u8::MAX; 16]));
        'all: while let Some(page) = way.next(kit).await? {
            for message in &page {
                if !self.state.lock().index.insert(message) {
                    break 'all;
                }
            }
            tokio::task::yield_now().await;
        }
        self.state.lock().phase = Phase::Whole;
        Ok(())
    }

    /// Takes in a page of the log. Returns whether there was one.
    async fn follow(&self, kit: &Kit) -> Result<bool, Failure> {
        let from = self.state.lock().cursor;
        let events = kit.store.events(Some(self.project), from, PAGE_EVENTS).await?;
        let Some(cursor) = events.last().map(|event| event.cursor) else { return Ok(false) };
        for event in events {
            match event.event.kind.as_str() {
                "message.sent" => {
                    let Ok(id) = event.event.subject.parse::<MessageId>() else { continue };
                    if let Some(entry) = kit.store.get(Some(self.project), &message_key(id)).await? {
                        let message = stored(&entry)?;
                        self.state.lock().index.insert(&message);
                    }
                }
                "messages.pruned" => self.trim(&event),
                _ => {}
            }
        }
        self.state.lock().cursor = cursor;
        Ok(true)
    }

    /// Lets go what may have been removed; what was not is found in the store.
    fn trim(&self, event: &Event) {
        let before = event.event.data.get("before").and_then(serde_json::Value::as_str).and_then(TimeMs::from_rfc3339);
        if let Some(before) = before {
            self.state.lock().index.trim(MessageId::first_at(before));
        }
    }
}

impl Messaging {
    /// Returns the messages of a project that are searched for, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn search(&self, project: ProjectId, search: &Search, limit: usize) -> Result<SearchAnswer, Failure> {
        let indexed = self.searches.of(project);
        let is_whole = self.bring_up(&indexed).await?;
        let (mut answer, floor) = self.ask_index(&indexed, search, limit).await?;
        if !is_whole {
            answer.incomplete = true;
            return Ok(answer);
        }
        if answer.messages.len() < limit
            && let Some(floor) = floor
        {
            self.scan(project, search, floor, limit, &mut answer).await?;
        }
        Ok(answer)
    }

    /// Brings an index up to the log's end, if that is little work; else has it done. Returns whether it is there.
    async fn bring_up(&self, indexed: &Arc<Indexed>) -> Result<bool, Failure> {
        let head = self.kit.store.head(Some(indexed.project)).await?;
        let epoch = self.kit.store.epoch();
        match indexed.behind(head, epoch) {
            Some(0) => return Ok(true),
            Some(behind) if behind <= FOLLOWED_MAX => {}
            _ => {
                self.searches.build(&self.kit, indexed);
                return Ok(false);
            }
        }
        let _turn = indexed.reading.lock().await;
        while indexed.behind(head, epoch).is_some_and(|behind| behind > 0) {
            if !indexed.follow(&self.kit).await? {
                break;
            }
        }
        Ok(indexed.behind(head, epoch) == Some(0))
    }

    /// Returns what the index finds, and the newest message that it does not cover.
    async fn ask_index(&self, indexed: &Indexed, search: &Search, limit: usize) -> Result<(SearchAnswer, Option<MessageId>), Failure> {
        let mut answer = SearchAnswer::default();
        let mut search = search.clone();
        loop {
            let wanted = limit - answer.messages.len();
            let (found, floor) = {
                let state = indexed.state.lock();
                (state.index.search(&search, wanted), state.index.floor())
            };
            for id in &found {
                match self.found(indexed.project, *id).await? {
                    Some(message) => answer.messages.push(message),
                    // Removed after its time, or it was never committed.
                    None => indexed.state.lock().index.remove(*id),
                }
            }
            search.before = found.last().copied();
            if found.len() < wanted {
                return Ok((answer, floor));
            }
            if answer.messages.len() >= limit {
                answer.next = answer.messages.last().map(|message| message.id);
                return Ok((answer, floor));
            }
        }
    }

    /// Adds what is searched for among the messages up to `floor`, as far as the time reaches.
    async fn scan(
        &self,
        project: ProjectId,
        search: &Search,
        floor: MessageId,
        limit: usize,
        answer: &mut SearchAnswer,
    ) -> Result<(), Failure> {
        let system = &self.kit.system;
        let deadline = system.instant() + Duration::from_millis(SCAN_MS);
        let mut floor_bytes = *floor.as_bytes();
        // The floor itself is not covered either.
        for byte in floor_bytes.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
        let mut way = Backwards::new(project, MessageId::from_bytes(floor_bytes).min(search.end()));
        let first = search.first();
        while way.end() > first {
            let Some(page) = way.next(&self.kit).await? else { return Ok(()) };
            for message in page {
                if !search.matches(&message) {
                    continue;
                }
                let id = message.id;
                answer.messages.push(message);
                if answer.messages.len() >= limit {
                    answer.next = Some(id);
                    return Ok(());
                }
            }
            if system.instant() >= deadline {
                answer.next = Some(way.end());
                return Ok(());
            }
        }
        Ok(())
    }
}
