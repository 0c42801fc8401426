//! Waiting: what an agent acks and gives back first, then what it is handed, or what it hears of, or nothing for a while.
//!
//! **Invariants:** a delivery is handed out by a commit right before the answer, so a wait that is dropped loses nothing:
//! at the worst a lease lapses. A newer wait of the same agent ends the older one. Who waits sleeps until something concerns it
//! ([`super::sleepers`]).

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::{AgentId, MessageId, TaskId};
use pointsman_core::limits::{EVENTS_PER_WAIT_MAX, WAIT_DEFAULT_S, WAIT_MAX_S, WATCHED_GLOBS_MAX};
use pointsman_core::message::Message;
use pointsman_core::path_glob::PathGlob;
use pointsman_core::time::TimeMs;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Messaging;
use super::coalesce::Coalesced;
use super::interest::{Arrivals, Interest, KeyRules};
use super::sleepers::Wishes;
use crate::service::failure::Failure;
use crate::service::kit::Acting;

/// Events read at once.
const PAGE_EVENTS: usize = 256;
/// Events one wait looks through before it answers with how far it came.
const SCANNED_EVENTS_MAX: usize = 4_096;

/// A delivery that is given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nack {
    /// Which.
    pub message: MessageId,
    /// Why, for whoever gets it next.
    #[serde(default)]
    pub reason: String,
    /// Seconds before it may come back to the same agent; none: the host's back-off.
    #[serde(default)]
    pub delay_s: Option<u64>,
}

/// What an agent waits for.
#[derive(Debug, Clone, Default)]
pub struct WaitRequest {
    /// Deliveries it has done with.
    pub ack: Vec<MessageId>,
    /// Deliveries it gives back.
    pub nack: Vec<Nack>,
    /// Seconds to wait: 0 to 50, 45 when not given.
    pub max_s: Option<u64>,
    /// The cursor of the last answer; none: events from now on.
    pub after: Option<Cursor>,
    /// Globs of context keys whose writes it wants to hear of.
    pub watch: Vec<String>,
    /// Tasks it holds, beside those its record names.
    pub tasks: Vec<TaskId>,
    /// Deliveries it takes at once, at most 20; none: 20.
    pub messages_max: Option<usize>,
}

/// A delivery as it is handed out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Handed {
    /// The message.
    pub message: Message,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// When it comes back unless it is acked.
    pub lease_until: TimeMs,
}

/// An ack or nack that did not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotSettled {
    /// Of which message.
    pub message: MessageId,
    /// `not_found`, `not_holder`, `not_handed_out`, `ended` or `contradiction`.
    pub code: String,
    /// One sentence.
    pub why: String,
}

/// What became of acks and nacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// Acked now or before.
    pub acked: u32,
    /// Given back now or before.
    pub nacked: u32,
    /// What did not fit.
    pub refused: Vec<NotSettled>,
}

/// The answer of a wait.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WaitAnswer {
    /// What became of the acks and nacks.
    pub settled: Settled,
    /// What the agent has now, to be acked by a later call.
    pub messages: Vec<Handed>,
    /// What it hears of, oldest first.
    pub events: Vec<Arc<Event>>,
    /// To be given as `after` by the next wait.
    pub cursor: Cursor,
    /// Deliveries that further waits would hand out.
    pub unread: u32,
    /// Whether there are events behind `cursor` that were not looked at.
    pub more: bool,
    /// Whether a newer wait took over.
    pub superseded: bool,
}

/// The right of one wait to answer for its agent, until a newer one takes it.
struct Turn<'a> {
    messaging: &'a Messaging,
    agent: AgentId,
    over: CancellationToken,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // A newer turn cancels this one under the same lock.
        let mut turns = self.messaging.turns.lock();
        if !self.over.is_cancelled() {
            turns.remove(&self.agent);
        }
    }
}

impl Messaging {
    fn take_turn(&self, agent: AgentId) -> Turn<'_> {
        let over = CancellationToken::new();
        let mut turns = self.turns.lock();
        if let Some(older) = turns.insert(agent, over.clone()) {
            older.cancel();
        }
        drop(turns);
        Turn { messaging: self, agent, over }
    }

    /// Settles, then waits for deliveries and events. What is done before and after the waiting has its room only while it is done:
    /// thousands wait at once.
    ///
    /// # Errors
    /// `bad_argument`, `too_many`, or [`Failure`]. Acks and nacks that do not fit are named in the answer instead.
    pub async fn wait(&self, acting: &Acting, request: &WaitRequest) -> Result<WaitAnswer, Failure> {
        let wishes = Wishes { watch: globs(&request.watch)?.into(), tasks: request.tasks.as_slice().into() };
        let max_s = max_s(request.max_s)?;
        let messages_max = request.messages_max.unwrap_or(EVENTS_PER_WAIT_MAX).clamp(1, EVENTS_PER_WAIT_MAX);
        let board = Box::pin(self.agents.board(acting.project)).await?;
        let start = board.cursor();
        let settled = Box::pin(self.settle(acting, &request.ack, &request.nack)).await?;
        let turn = self.take_turn(acting.agent.id);
        let sleeper = board.sleepers().lie_down(acting.agent.id, wishes.clone());
        let slug = Box::pin(self.kit.slug(acting.project)).await?;
        let mut hint = self.kit.store.watch(Some(acting.project));
        let deadline = tokio::time::sleep(Duration::from_secs(max_s));
        tokio::pin!(deadline);
        // What did not fit is told at once.
        let mut is_over = max_s == 0 || !settled.refused.is_empty();
        let mut heard = Heard { events: Vec::new(), cursor: request.after.map_or(start, |after| after.min(start)), more: false };
        loop {
            hint.borrow_and_update();
            let board = Box::pin(self.agents.board(acting.project)).await?;
            let agent = board.agent(acting.agent.id);
            let agent = agent.as_deref().unwrap_or(&acting.agent);
            let keys = Some(KeyRules { rules: &self.kit.settings.context.rules, slug: &slug });
            let interest = Interest { agent, tasks: &wishes.tasks, watch: &wishes.watch, arrivals: Arrivals::HandedOut, keys };
            heard = Box::pin(self.listen(acting, heard.cursor, &interest)).await?;
            let superseded = turn.over.is_cancelled();
            let messages = if board.ready(acting.agent.id) > 0 && !superseded {
                Box::pin(self.hand_out(acting, messages_max)).await?
            } else {
                Vec::new()
            };
            if is_over || superseded || !messages.is_empty() || !heard.events.is_empty() || heard.more {
                let unread = Box::pin(self.unread(acting.project, acting.agent.id)).await?;
                let Heard { events, cursor, more } = heard;
                return Ok(WaitAnswer { settled, messages, events, cursor, unread, more, superseded });
            }
            tokio::select! {
                () = sleeper.woken() => {}
                changed = hint.changed(), if sleeper.watches() => if changed.is_err() { hint = self.kit.store.watch(Some(acting.project)) },
                () = turn.over.cancelled() => {}
                () = &mut deadline => is_over = true,
            }
            heard.cursor = heard.cursor.max(sleeper.quiet_until());
        }
    }

    /// Looks through the log after a cursor for what concerns the agent.
    pub(super) async fn listen(&self, acting: &Acting, after: Cursor, interest: &Interest<'_>) -> Result<Heard, Failure> {
        let mut heard = Heard { events: Vec::new(), cursor: after, more: false };
        let mut found = Coalesced::default();
        let mut scanned = 0;
        loop {
            let board = self.agents.board(acting.project).await?;
            let page = match board.recent(heard.cursor, PAGE_EVENTS) {
                Some(page) => page,
                None => {
                    let stored = self.kit.store.events(Some(acting.project), heard.cursor, PAGE_EVENTS).await?;
                    stored.into_iter().map(Arc::new).collect()
                }
            };
            if page.is_empty() {
                heard.events = found.into_events();
                return Ok(heard);
            }
            for event in page {
                heard.cursor = event.cursor;
                if interest.covers(&event.event) {
                    found.push(event);
                    if found.len() >= EVENTS_PER_WAIT_MAX {
                        heard.more = heard.cursor < board.cursor();
                        heard.events = found.into_events();
                        return Ok(heard);
                    }
                }
                scanned += 1;
            }
            if scanned >= SCANNED_EVENTS_MAX {
                heard.more = true;
                heard.events = found.into_events();
                return Ok(heard);
            }
        }
    }
}

/// What was heard on the way to a cursor.
pub(super) struct Heard {
    pub(super) events: Vec<Arc<Event>>,
    pub(super) cursor: Cursor,
    pub(super) more: bool,
}

pub(super) fn globs(texts: &[String]) -> Result<Vec<PathGlob>, Failure> {
    if texts.len() > WATCHED_GLOBS_MAX {
        let why = format!("`watch` has {} globs, at most {WATCHED_GLOBS_MAX} are allowed", texts.len());
        return Err(Failure::refused("bad_argument", why, "Watch a folder of keys: `plan/**`."));
    }
    let parse = |text: &String| {
        text.parse::<PathGlob>()
            .map_err(|error| Failure::refused("bad_argument", format!("`watch`: {error}"), "Write a glob over context keys: `plan/**`."))
    };
    texts.iter().map(parse).collect()
}

pub(super) fn max_s(given: Option<u64>) -> Result<u64, Failure> {
    match given {
        None => Ok(WAIT_DEFAULT_S),
        Some(max_s) if max_s <= WAIT_MAX_S => Ok(max_s),
        Some(max_s) => Err(Failure::refused(
            "bad_argument",
            format!("`max_s` is {max_s}, it goes from 0 to {WAIT_MAX_S}"),
            "Wait shorter and call again; nothing is lost in between.",
        )),
    }
}
