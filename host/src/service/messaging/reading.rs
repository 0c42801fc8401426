//! Reading back from a point in time: a project, a thread, what an agent was sent. And messages by the time they were sent,
//! newest first, for whoever looks through them.
//!
//! **Invariant:** a reading goes on where it ended: nothing that was there at its beginning is left out or told twice, except that a
//! cursor given for a thread or an inbox stands for the time of its event, and may tell of a few seconds twice.

use std::collections::BTreeMap;
use std::str::FromStr;

use pointsman_core::event::Cursor;
use pointsman_core::ids::{AgentId, MessageId, ProjectId, ThreadId};
use pointsman_core::inbox::Delivery;
use pointsman_core::message::Message;
use pointsman_core::time::TimeMs;
use pointsman_core::value;

use super::{DELIVERIES, Messaging, Named};
use crate::ports::store::Versioned;
use crate::service::failure::Failure;
use crate::service::kit::Kit;

/// Messages, where they stand.
pub(super) const MESSAGES: &str = "msg/";
/// Entries of one answer.
pub const READ_MAX: usize = 50;
/// Events read at once.
const PAGE_EVENTS: usize = 256;
/// Events looked through for one answer.
const SCANNED_EVENTS_MAX: usize = 4_096;
/// Milliseconds between a message's own time and that of its commit, at the most.
const COMMIT_MS: u64 = 5_000;
/// The first stretch of time that is looked through, in milliseconds.
const STRETCH_MS: i64 = 60_000;
/// Messages of one stretch: where there are more, it is cut.
const STRETCH_MESSAGES: usize = 512;

/// A point in time, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Then.
    Time(TimeMs),
    /// So many milliseconds ago.
    Ago(u64),
    /// Behind a place in the log.
    Cursor(Cursor),
}

impl FromStr for Since {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::refused(
                "bad_argument",
                format!("`{}` is no point in time", text.chars().take(80).collect::<String>()),
                "Give a time (2026-05-01T12:00:00Z), a day (2026-05-01), an age (90s, 30m, 2h, 7d), or the `cursor` of an earlier answer.",
            )
        };
        if let Ok(cursor) = text.parse::<Cursor>() {
            return Ok(Self::Cursor(cursor));
        }
        if let Some(at) = TimeMs::from_rfc3339(text).or_else(|| TimeMs::from_rfc3339(&format!("{text}T00:00:00Z"))) {
            return Ok(Self::Time(at));
        }
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
        let unit_ms = match unit {
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let count: u64 = number.parse().map_err(|_| wrong())?;
        count.checked_mul(unit_ms).map(Self::Ago).ok_or_else(wrong)
    }
}

/// What was read: each entry with the place behind it, and the place to go on from when nothing more was found so far.
#[derive(Debug, Clone)]
pub struct Reading<T> {
    /// In their order.
    pub entries: Vec<(String, T)>,
    /// Where to go on; none: this was all.
    pub next: Option<String>,
}

/// What an agent was sent, and what became of it.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its delivery, live or ended.
    pub delivery: Delivery,
    /// The message; none: it is kept no longer.
    pub message: Option<Message>,
}

/// Returns a message as it is stored.
pub(super) fn stored(entry: &Versioned) -> Result<Message, Failure> {
    Ok(value::decode(&entry.bytes)?)
}

impl Messaging {
    /// Returns the time that is meant.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn time_of(&self, project: ProjectId, since: Since) -> Result<TimeMs, Failure> {
        let now = self.kit.now();
        match since {
            Since::Time(at) => Ok(at),
            Since::Ago(ms) => Ok(now - ms),
            Since::Cursor(cursor) => {
                let next = self.kit.store.events(Some(project), cursor, 1).await?;
                Ok(next.first().map_or(now, |event| event.at) - COMMIT_MS)
            }
        }
    }

    /// Returns the place in the log behind which all is that happened at `at` or later.
    ///
    /// # Errors
    /// [`Failure`].
    pub(in crate::service) async fn cursor_at(&self, project: ProjectId, at: TimeMs) -> Result<Cursor, Failure> {
        let Cursor { epoch, seq: mut end } = self.kit.store.head(Some(project)).await?;
        let mut start = 0;
        while start < end {
            let middle = start + (end - start) / 2;
            let next = self.kit.store.events(Some(project), Cursor { epoch, seq: middle }, 1).await?;
            match next.first() {
                Some(event) if event.at < at => start = middle + 1,
                _ => end = middle,
            }
        }
        Ok(Cursor { epoch, seq: start })
    }

    /// Returns the messages that a project was sent from a point in time on, in the order of its log.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn read_project(&self, project: ProjectId, since: Since) -> Result<Reading<Message>, Failure> {
        let mut after = match since {
            Since::Cursor(cursor) => cursor,
            Since::Time(_) | Since::Ago(_) => self.cursor_at(project, self.time_of(project, since).await?).await?,
        };
        let (mut entries, mut scanned) = (Vec::new(), 0);
        loop {
            let page = self.kit.store.events(Some(project), after, PAGE_EVENTS).await?;
            let is_last = page.len() < PAGE_EVENTS;
            scanned += page.len();
            for event in page {
                if entries.len() >= READ_MAX {
                    return Ok(Reading { entries, next: Some(after.to_string()) });
                }
                after = event.cursor;
                if event.event.kind == "message.sent"
                    && let Ok(id) = event.event.subject.parse()
                    && let Some(message) = self.found(project, id).await?
                {
                    entries.push((after.to_string(), message));
                }
            }
            if is_last {
                return Ok(Reading { entries, next: None });
            }
            if scanned >= SCANNED_EVENTS_MAX {
                return Ok(Reading { entries, next: Some(after.to_string()) });
            }
        }
    }

    /// Returns the messages of a thread from a point in time on, or behind a place of an earlier reading.
    ///
    /// # Errors
    /// `not_found`, `bad_argument`.
    pub async fn read_thread(
        &self,
        project: ProjectId,
        thread: ThreadId,
        since: Option<Since>,
        after: Option<&str>,
    ) -> Result<Reading<Message>, Failure> {
        let prefix = format!("msg-thread/{thread}/");
        let from = match (after, since) {
            (Some(after), _) => {
                let order = after.split('/').next().unwrap_or_default();
                u64::from_str_radix(order, 16).map_err(|_| bad_place(after))?;
                // Right behind it: no id goes on with this letter.
                format!("{prefix}{after}~")
            }
            (None, Some(since)) => {
                let at = u64::try_from(self.time_of(project, since).await?.0).unwrap_or(0);
                format!("{prefix}{:016x}", at << 12)
            }
            (None, None) => String::new(),
        };
        let page = self.kit.store.range(Some(project), &prefix, &from, READ_MAX).await?;
        if page.entries.is_empty() && self.kit.store.range(Some(project), &prefix, "", 1).await?.entries.is_empty() {
            let advice = "Check the id: a message names its thread. Settled messages are removed after a while, threads with them.";
            return Err(Failure::refused("not_found", format!("there is no thread {thread}"), advice));
        }
        let mut entries = Vec::new();
        let mut last = None;
        for (key, entry) in page.entries {
            let place = key.strip_prefix(&prefix).unwrap_or_default().to_owned();
            let Named(id) = value::decode(&entry.bytes)?;
            if let Some(message) = self.found(project, id).await? {
                entries.push((place.clone(), message));
            }
            last = Some(place);
        }
        Ok(Reading { entries, next: last.filter(|_| page.next.is_some()) })
    }

    /// Returns what an agent was sent from a point in time on, settled or not, or after a message of an earlier reading.
    ///
    /// # Errors
    /// `bad_argument`.
    pub async fn read_inbox(
        &self,
        project: ProjectId,
        agent: AgentId,
        since: Option<Since>,
        after: Option<&str>,
    ) -> Result<Reading<Sent>, Failure> {
        let after: Option<MessageId> = after.map(|after| after.parse().map_err(|_| bad_place(after))).transpose()?;
        let first = match (after, since) {
            (Some(after), _) => after,
            (None, Some(since)) => MessageId::first_at(self.time_of(project, since).await?),
            (None, None) => MessageId::from_bytes([0; 16]),
        };
        let mut all: BTreeMap<MessageId, Delivery> = BTreeMap::new();
        // Live ones first: what ends between the two reads is seen by the second.
        for prefix in [format!("{DELIVERIES}{agent}/"), format!("fin/{agent}/")] {
            let page = self.kit.store.range(Some(project), &prefix, &format!("{prefix}{first}"), READ_MAX + 2).await?;
            for (_, entry) in page.entries {
                let delivery: Delivery = value::decode(&entry.bytes)?;
                all.insert(delivery.message, delivery);
            }
        }
        all.retain(|id, _| Some(*id) != after);
        let is_more = all.len() > READ_MAX;
        let mut entries = Vec::new();
        for (id, delivery) in all.into_iter().take(READ_MAX) {
            entries.push((id.to_string(), Sent { delivery, message: self.found(project, id).await? }));
        }
        let next = entries.last().map(|(place, _)| place.clone()).filter(|_| is_more);
        Ok(Reading { entries, next })
    }

    /// Returns a message, if it is still kept.
    pub(super) async fn found(&self, project: ProjectId, id: MessageId) -> Result<Option<Message>, Failure> {
        match self.message(project, id).await {
            Ok(message) => Ok(Some(message)),
            Err(Failure::Refused(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

fn bad_place(given: &str) -> Failure {
    let given: String = given.chars().take(80).collect();
    Failure::refused("bad_argument", format!("`{given}` is no place in this reading"), "Call lookup with the `more` of the answer before.")
}

/// Goes through a project's messages from an id downwards, by stretches of time: as long ones as hold about a page.
pub(super) struct Backwards {
    project: ProjectId,
    /// All at or above it were seen.
    end: MessageId,
    /// Where messages begin; none: not known yet.
    first: Option<MessageId>,
    stretch_ms: i64,
}

impl Backwards {
    /// Returns a way through the messages below `end`.
    pub(super) fn new(project: ProjectId, end: MessageId) -> Self {
        Self { project, end, first: None, stretch_ms: STRETCH_MS }
    }

    /// Returns below which all is still to be seen.
    pub(super) fn end(&self) -> MessageId {
        self.end
    }

    /// Returns the next messages, the newest first; none: there are no more. Some may be empty.
    pub(super) async fn next(&mut self, kit: &Kit) -> Result<Option<Vec<Message>>, Failure> {
        let project = Some(self.project);
        let first = match self.first {
            Some(first) => first,
            None => {
                let page = kit.store.range(project, MESSAGES, "", 1).await?;
                let Some((_, entry)) = page.entries.first() else { return Ok(None) };
                let first = stored(entry)?.id;
                // An end beyond all messages is brought down to the present.
                self.end = self.end.min(MessageId::first_at(kit.now() + 1));
                *self.first.insert(first)
            }
        };
        if self.end <= first {
            return Ok(None);
        }
        let end_ms = self.end.made_at().0;
        let start = MessageId::first_at(TimeMs(end_ms - self.stretch_ms));
        let limit = if self.stretch_ms <= 1 { usize::MAX } else { STRETCH_MESSAGES };
        let mut found = Vec::new();
        let mut from = format!("{MESSAGES}{start}");
        loop {
            let page = kit.store.range(project, MESSAGES, &from, limit.min(STRETCH_MESSAGES)).await?;
            for (_, entry) in &page.entries {
                let message = stored(entry)?;
                if message.id >= self.end {
                    from.clear();
                    break;
                }
                found.push(message);
            }
            match page.next {
                Some(next) if !from.is_empty() && limit == usize::MAX => from = next,
                // More than a page: a shorter stretch is looked through instead.
                Some(_) if !from.is_empty() => {
                    self.stretch_ms = (self.stretch_ms / 4).max(1);
                    return Ok(Some(Vec::new()));
                }
                _ => break,
            }
        }
        if found.len() < STRETCH_MESSAGES / 4 {
            self.stretch_ms = self.stretch_ms.saturating_mul(4).min(i64::MAX / 4);
        }
        self.end = start.max(first);
        found.reverse();
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_read() {
        let read = |text: &str| text.parse::<Since>().ok();
        assert_eq!(read("2h"), Some(Since::Ago(7_200_000)));
        assert_eq!(read("90s"), Some(Since::Ago(90_000)));
        assert_eq!(read("1.42"), Some(Since::Cursor(Cursor { epoch: 1, seq: 42 })));
        assert_eq!(read("1970-01-01T00:00:01Z"), Some(Since::Time(TimeMs(1_000))));
        assert_eq!(read("1970-01-02"), Some(Since::Time(TimeMs(86_400_000))));
        for wrong in ["", "h", "2", "2w", "-1h", "1.5h", "yesterday", "ä", "99999999999999999999d"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
