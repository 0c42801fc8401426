//! Retention: what is settled is removed after its time, by a due entry of each project, a bounded number of messages a commit.
//!
//! Where a run stands is written in the commit that removes: whatever dies between two commits, the next one goes on behind the
//! last message that was looked at. A run that removed something ends with an event `messages.pruned`.
//!
//! **Invariants:** a message goes whole: with its deliveries, their entries and its places in the indexes, in one commit. What it is
//! judged by is read so that whoever makes it live again meanwhile is seen, or makes the commit stale: dead letters first, then live
//! deliveries, then ended ones. Idempotency records are not touched, and outlived by the messages they name.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::{AgentId, MessageId, ProjectId};
use pointsman_core::inbox::Delivery;
use pointsman_core::message::Message;
use pointsman_core::retention::{Keeping, Kept, prune};
use pointsman_core::time::TimeMs;
use pointsman_core::value::{self, Stored};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::figures::Counted;
use super::letters::{LETTERS, letter_key};
use super::reading::{MESSAGES, stored};
use super::{DELIVERIES, Messaging, Named, ended_key, message_key, newest_key, thread_key};
use crate::ports::letters::PruneReport;
use crate::ports::store::{Commit, DueChange, Expect, Version};
use crate::service::failure::Failure;
use crate::service::kit::CommitExt;

/// The due entry that keeps a project's messages in order.
pub(super) const RETENTION: &str = "message/retention";
/// Where the record of it stands.
const RECORD: &str = "retention";
/// Messages looked at for one commit.
const MESSAGES_AT_ONCE: usize = 64;
/// Entries that one commit removes, one more message's aside.
const REMOVED_AT_ONCE: usize = 4_000;
/// Entries read at once.
const PAGE_ENTRIES: usize = 256;
/// Milliseconds from the host's start to the first run.
const FIRST_MS: u64 = 60_000;
/// Milliseconds from the end of one run to the next.
const EVERY_MS: u64 = 60 * 60 * 1_000;
/// Milliseconds between two commits of a run: others have their turn.
const BETWEEN_MS: u64 = 20;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Removed {
    messages: u64,
    deliveries: u64,
    letters: u64,
}

impl Removed {
    fn plus(self, more: Self) -> Self {
        Self {
            messages: self.messages + more.messages,
            deliveries: self.deliveries + more.deliveries,
            letters: self.letters + more.letters,
        }
    }
}

/// How the retention of a project stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// Where the run that is under way goes on; empty: none is.
    from: String,
    /// What that run removed so far.
    run: Removed,
    /// Of the last run that came to its end: nothing younger was removed by it.
    before: Option<TimeMs>,
    /// What the last run that removed something removed.
    last: Option<LastRun>,
}

/// A run that came to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LastRun {
    at: TimeMs,
    before: TimeMs,
    removed: Removed,
}

impl Record {
    /// Ends the run that is under way. Returns the event of one that removed something.
    fn end_run(&mut self, project: ProjectId, now: TimeMs, before: TimeMs) -> Option<NewEvent> {
        let run = std::mem::take(&mut self.run);
        self.from.clear();
        self.before = Some(before);
        if run == Removed::default() {
            return None;
        }
        self.last = Some(LastRun { at: now, before, removed: run });
        let data = json!({
            "messages": run.messages, "deliveries": run.deliveries, "dead_letters": run.letters, "before": before.to_rfc3339(),
        });
        Some(NewEvent::new("messages.pruned", Actor::host(), project, data))
    }
}

impl Stored for Record {
    const NAME: &'static str = "retention record";
}

/// One page of old messages with everything they are judged by.
#[derive(Default)]
struct Batch {
    messages: Vec<(Version, Message)>,
    /// Where the next page starts; none: no message is old enough any more.
    next: Option<String>,
    letters: BTreeMap<MessageId, Vec<(Version, Delivery)>>,
    deliveries: BTreeMap<MessageId, Vec<Delivery>>,
    deferred: BTreeSet<MessageId>,
}

impl Messaging {
    pub(super) fn keeping(&self) -> Keeping {
        let settings = &self.kit.settings;
        Keeping { settled_ms: settings.messages_kept_ms, dead_letters_ms: settings.dead_letters_kept_ms }
    }

    /// Has a project's messages looked through soon, and from then on again and again. A run that was cut goes on.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn schedule_retention(&self, project: ProjectId) -> Result<(), Failure> {
        let due = vec![DueChange::Set { name: RETENTION.to_owned(), at: self.kit.now() + FIRST_MS }];
        self.kit.store.commit(Commit { project: Some(project), due, ..Commit::default() }).await?;
        Ok(())
    }

    /// Returns what the last run that removed something removed.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn pruned(&self, project: ProjectId) -> Result<Option<PruneReport>, Failure> {
        let record = self.kit.load::<Record>(Some(project), RECORD).await?;
        Ok(record.and_then(|record| record.value.last).map(|LastRun { at, before, removed }| PruneReport {
            at,
            before,
            messages: removed.messages,
            deliveries: removed.deliveries,
            dead_letters: removed.letters,
        }))
    }

    /// Returns why there is no message of an id: because it was removed, as far as its time says, or because there never was one.
    pub(super) async fn missing(&self, project: ProjectId, id: MessageId) -> Failure {
        let record = self.kit.load::<Record>(Some(project), RECORD).await;
        let before = record.ok().flatten().and_then(|record| record.value.before);
        if before.is_some_and(|before| id.made_at() < before) {
            let days = self.keeping().settled_ms / 86_400_000;
            return Failure::refused(
                "gone",
                format!("{id} is not kept any more, if it ever was here"),
                format!("Settled messages are removed after {days} days; ask its sender, or look for what was made of it."),
            );
        }
        Failure::refused("not_found", format!("there is no message {id}"), "Check the id; `lookup` lists messages.")
    }

    /// Does the next part of a run: one commit.
    pub(super) async fn handle_retention(&self, project: ProjectId) -> Result<(), Failure> {
        let (removed, _) = self.kit.decide(|| self.decide_retention(project)).await?;
        self.figures.add(Counted::PrunedMessages, removed.messages);
        self.figures.add(Counted::PrunedDeliveries, removed.deliveries);
        self.figures.add(Counted::PrunedLetters, removed.letters);
        Ok(())
    }

    async fn decide_retention(&self, project: ProjectId) -> Result<(Commit, Removed), Failure> {
        let (now, keeping) = (self.kit.now(), self.keeping());
        let found = self.kit.load::<Record>(Some(project), RECORD).await?;
        let version = found.as_ref().map(|found| found.version);
        let mut record = found.map(|found| found.value).unwrap_or_default();
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        let batch = self.batch(project, &record.from, MessageId::first_at(keeping.before(now))).await?;
        let (removed, from) = stage_batch(&mut commit, now, &keeping, &batch, &self.orders(project, &batch).await?);
        record.run = record.run.plus(removed);
        let wait_ms = match from {
            Some(from) => {
                record.from = from;
                BETWEEN_MS
            }
            None => {
                commit.events.extend(record.end_run(project, now, now - keeping.settled_ms));
                EVERY_MS
            }
        };
        commit.replace(RECORD, version, &record);
        commit.due.push(DueChange::Set { name: RETENTION.to_owned(), at: now + wait_ms });
        Ok((commit, removed))
    }

    /// Reads the next messages below `end`, and what they are judged by.
    async fn batch(&self, project: ProjectId, from: &str, end: MessageId) -> Result<Batch, Failure> {
        let page = self.kit.store.range(Some(project), MESSAGES, from, MESSAGES_AT_ONCE).await?;
        let mut batch = Batch { next: page.next, ..Batch::default() };
        for (_, entry) in page.entries {
            let message = stored(&entry)?;
            if message.id >= end {
                batch.next = None;
                break;
            }
            batch.messages.push((entry.version, message));
        }
        let (Some((_, first)), Some((_, last))) = (batch.messages.first(), batch.messages.last()) else { return Ok(batch) };
        let window = (first.id, last.id);
        // The order matters: see the invariants.
        for (_, version, letter) in self.window::<Delivery>(project, LETTERS, window).await? {
            batch.letters.entry(letter.message).or_default().push((version, letter));
        }
        for prefix in [DELIVERIES, "fin/"] {
            for seat in self.agents.board(project).await?.roster() {
                let own = format!("{prefix}{}/", seat.agent.id);
                for (_, _, delivery) in self.window::<Delivery>(project, &own, window).await? {
                    batch.deliveries.entry(delivery.message).or_default().push(delivery);
                }
            }
        }
        for key in self.window_keys(project, super::post::DEFERRED, window).await? {
            batch.deferred.extend(key.parse::<MessageId>().ok());
        }
        Ok(batch)
    }

    /// Returns the entries below a prefix whose next part is the id of one of these messages or between them.
    async fn window<T: Stored>(
        &self,
        project: ProjectId,
        prefix: &str,
        (first, last): (MessageId, MessageId),
    ) -> Result<Vec<(String, Version, T)>, Failure> {
        let (mut found, mut from) = (Vec::new(), format!("{prefix}{first}"));
        // No key goes on with a greater letter: an agent's id follows, or nothing.
        let end = format!("{prefix}{last}~");
        loop {
            let page = self.kit.store.range(Some(project), prefix, &from, PAGE_ENTRIES).await?;
            for (key, entry) in page.entries {
                if key > end {
                    return Ok(found);
                }
                let value = value::decode(&entry.bytes)?;
                found.push((key[prefix.len()..].to_owned(), entry.version, value));
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(found),
            }
        }
    }

    async fn window_keys(&self, project: ProjectId, prefix: &str, window: (MessageId, MessageId)) -> Result<Vec<String>, Failure> {
        let found = self.window::<super::post::Deferred>(project, prefix, window).await?;
        Ok(found.into_iter().map(|(key, ..)| key).collect())
    }

    /// Returns the places of messages in the order of sending, by which the indexes name them.
    async fn orders(&self, project: ProjectId, batch: &Batch) -> Result<BTreeMap<MessageId, u64>, Failure> {
        let mut orders = BTreeMap::new();
        for (_, message) in &batch.messages {
            let of_delivery = batch.deliveries.get(&message.id).and_then(|deliveries| deliveries.first());
            let order = match of_delivery {
                Some(delivery) => Some(delivery.place.order),
                None => self.order_in_thread(project, message).await?,
            };
            orders.extend(order.map(|order| (message.id, order)));
        }
        Ok(orders)
    }

    /// Returns the place of a message that nobody was sent.
    async fn order_in_thread(&self, project: ProjectId, message: &Message) -> Result<Option<u64>, Failure> {
        let prefix = format!("msg-thread/{}/", message.thread);
        // A place is never before the message's time.
        let mut from = format!("{prefix}{:016x}", u64::try_from(message.sent_at.0).unwrap_or(0) << 12);
        loop {
            let page = self.kit.store.range(Some(project), &prefix, &from, PAGE_ENTRIES).await?;
            for (key, entry) in page.entries {
                let Named(id) = value::decode(&entry.bytes)?;
                if id == message.id {
                    let order = key[prefix.len()..].split('/').next().unwrap_or_default();
                    return Ok(u64::from_str_radix(order, 16).ok());
                }
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(None),
            }
        }
    }
}

/// Adds the removal of what is old enough to a commit. Returns what that is, and where to go on.
fn stage_batch(
    commit: &mut Commit,
    now: TimeMs,
    keeping: &Keeping,
    batch: &Batch,
    orders: &BTreeMap<MessageId, u64>,
) -> (Removed, Option<String>) {
    let mut removed = Removed::default();
    let none = Vec::new();
    for (version, message) in &batch.messages {
        if commit.deletes.len() >= REMOVED_AT_ONCE {
            return (removed, Some(message_key(message.id)));
        }
        let id = message.id;
        let deliveries = batch.deliveries.get(&id).map(Vec::as_slice).unwrap_or_default();
        let own = batch.letters.get(&id).unwrap_or(&none);
        let letters: Vec<Delivery> = own.iter().map(|(_, letter)| letter.clone()).collect();
        let is_deferred = batch.deferred.contains(&id);
        let pruned = prune(now, keeping, &Kept { sent_at: message.sent_at, deliveries, letters: &letters, is_deferred });
        for (version, letter) in own.iter().filter(|(_, letter)| pruned.letters.contains(&letter.agent)) {
            let key = letter_key(id, letter.agent);
            commit.expects.push((key.clone(), Expect::Version(*version)));
            commit.deletes.push(key);
            removed.letters += 1;
        }
        if pruned.is_whole {
            commit.expects.push((message_key(id), Expect::Version(*version)));
            commit.expects.push((format!("{}{id}", super::post::DEFERRED), Expect::Absent));
            stage_whole(commit, message, deliveries.iter().map(|delivery| delivery.agent), orders.get(&id).copied());
            removed.messages += 1;
            removed.deliveries += u64::try_from(deliveries.len()).unwrap_or(0);
        }
    }
    (removed, batch.next.clone())
}

/// Adds the removal of a message and all that belongs to it.
fn stage_whole(commit: &mut Commit, message: &Message, agents: impl Iterator<Item = AgentId>, order: Option<u64>) {
    let id = message.id;
    commit.deletes.push(message_key(id));
    commit.deletes.extend(agents.map(|agent| ended_key(agent, id)));
    if let Some(order) = order {
        commit.deletes.extend([newest_key(order, id), thread_key(message.thread, order, id)]);
        // As they were named by earlier hosts.
        commit.deletes.push(format!("msg-new/{:016x}", u64::MAX - order));
        commit.deletes.push(format!("msg-thread/{}/{order:016x}", message.thread));
    }
}
