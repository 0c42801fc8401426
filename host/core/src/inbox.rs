//! Deliveries: what becomes of one message in one agent's inbox.
//!
//! ```text
//!            hand out            ack
//!   Ready ───────────► Leased ─────────► Acked
//!     ▲ ▲                │ nack, lapse
//!     │ └────────────────┼─► PassedOn      the next candidate's delivery starts as Ready
//!     └──── Waiting ◄────┼─► DeadLettered  tried too often
//!     ▲    (back-off)    └─► Expired       its time is over
//!     │ hold, release
//!     └──── Held           behind an earlier one of its thread that backs off
//! ```
//!
//! Owns: the states, who is next, back-off, the cap of attempts. Must not know: keys, events, what the message says.
//!
//! **Order.** An agent is handed what is ready by priority, then by the order in which the host took the messages (by the clock among
//! several hosts). Of one thread, a message is not handed out to an agent while an earlier one of that thread backs off there: it is
//! held until that one is ready again, acked or expired, whatever its priority. What may still come out of order, and why:
//! a more urgent message before one that is ready (the sender said so); a later one after an earlier one that is leased or that was
//! given back without delay while the later one was in hand already (nobody waits for an agent to finish); one that another agent
//! had first (the order is of one inbox). Deliveries that older hosts stored know no thread and are in no order.
//!
//! **Invariants:** of the deliveries one route made at most one is live at a time, and one is until the message is acked,
//! expired or dead-lettered; every change of state is a [`Transition`] other than `Unchanged`; a delivery is handed out
//! at most `attempts_max` times, over all agents it was passed to, tries that were taken back left out.

mod line;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::line::Line;

use crate::ids::{AgentId, MessageId, ThreadId};
use crate::limits::{BACK_OFF_MS, BACK_OFF_MS_MAX, NACK_DELAY_MS_MAX};
use crate::message::{Address, PRIORITY_MAX};
use crate::time::TimeMs;
use crate::value::Stored;

/// Where a delivery stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum DeliveryState {
    /// To be handed out by the agent's next wait.
    Ready {
        /// Since when.
        since: TimeMs,
    },
    /// Given back; comes again.
    Waiting {
        /// When.
        until: TimeMs,
    },
    /// To be handed out once an earlier one of its thread no longer backs off.
    Held {
        /// Since when.
        since: TimeMs,
        /// Behind which.
        behind: MessageId,
    },
    /// Handed out, neither acked nor given back yet.
    Leased {
        /// When it comes back by itself.
        until: TimeMs,
        /// Which try this is, from 1.
        attempt: u32,
    },
    /// The agent has it.
    Acked {
        /// When.
        at: TimeMs,
    },
    /// Another agent has it now.
    PassedOn {
        /// Who.
        to: AgentId,
        /// When.
        at: TimeMs,
    },
    /// Tried too often.
    DeadLettered {
        /// When.
        at: TimeMs,
        /// What the last try ended with.
        reason: String,
    },
    /// Its time was over before anyone acked it.
    Expired {
        /// When.
        at: TimeMs,
    },
}

/// A place in an inbox: urgent ones first, then older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// 0 (idle) to 9 (urgent).
    pub priority: u8,
    /// Rises with each message, so that those of one thread keep their order.
    pub order: u64,
}

impl Place {
    /// Returns a text whose order is the order of handing out.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}{:016x}", PRIORITY_MAX.saturating_sub(self.priority), self.order)
    }
}

/// One message in one agent's inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// What.
    pub message: MessageId,
    /// To whom.
    pub agent: AgentId,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it is handed out, relative to others.
    pub place: Place,
    /// The thread it keeps the order of; none: it was stored before there was an order.
    #[serde(default)]
    pub thread: Option<ThreadId>,
    /// Times it was handed out, to this agent and those before it, tries that were taken back left out.
    pub attempts: u32,
    /// Times it was handed out to this agent.
    pub attempts_here: u32,
    /// Who gets it when this agent does not take it, in this order.
    pub rest: Vec<AgentId>,
    /// Who gave it back or let its lease lapse.
    pub refused: Vec<AgentId>,
    /// When it is no longer worth delivering.
    pub expires_at: Option<TimeMs>,
    /// The address a router chose the agent for; none where the sender named it.
    pub via: Option<Address>,
    /// Who sent it, if an agent did.
    pub sender: Option<AgentId>,
    /// Whether the sender wants to be told of the ack.
    pub ack_required: bool,
    /// Whether the message asks for a review.
    pub is_review: bool,
}

impl Stored for Delivery {
    const NAME: &'static str = "delivery";
    const VERSION: u8 = 2;

    fn upgrade(version: u8, body: &[u8]) -> Option<Self> {
        // Version 1 had neither threads nor held ones.
        (version == 1).then(|| Self::read(body).ok()).flatten()
    }
}

/// What the operator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Milliseconds an agent has to ack what it was handed, and a candidate to fetch it when another one waits behind it.
    pub lease_ms: u64,
    /// Times a delivery is handed out.
    pub attempts_max: u32,
}

/// What is to be done with a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Hand it to its agent.
    HandOut,
    /// Keep it back: an earlier one of its thread backs off.
    Hold {
        /// That one.
        behind: MessageId,
    },
    /// Nothing keeps it back any more.
    Release,
    /// The agent has it.
    Ack {
        /// Who says so.
        by: AgentId,
    },
    /// The agent gives it back.
    Nack {
        /// Who says so.
        by: AgentId,
        /// Milliseconds before it comes back to the same agent; none: the host's back-off.
        delay_ms: Option<u64>,
        /// Why, for the next one and for the record.
        reason: String,
        /// Randomness for the back-off.
        random: u64,
    },
    /// Its time has come: a lease lapsed, a back-off is over, it expires, nobody fetched it.
    Due,
    /// Its agent lost what it was handed and wants it again.
    Recall(Try),
}

/// What becomes of the try that a recalled delivery was handed out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// It counts: handling it may be what the agent died of.
    Counts,
    /// It does not: the agent lost its context in the middle of work that goes on.
    TakenBack,
}

/// Why an agent no longer has a delivery it could have acked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It gave it back.
    Nacked,
    /// It let the lease lapse.
    Lapsed,
    /// It did not fetch it while another candidate waited.
    Unclaimed,
    /// It started again.
    Recalled,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// Nothing: it was so before.
    Unchanged,
    /// It is the agent's until then.
    HandedOut {
        /// Which try, from 1.
        attempt: u32,
        /// When it comes back by itself.
        until: TimeMs,
    },
    /// It is done.
    Acked,
    /// It comes back to the same agent.
    GivenBack {
        /// Why.
        cause: Cause,
        /// In words.
        reason: String,
        /// When.
        ready_at: TimeMs,
    },
    /// It goes to the next candidate.
    PassedOn {
        /// Why.
        cause: Cause,
        /// In words.
        reason: String,
        /// The next one's.
        next: Box<Delivery>,
    },
    /// It was tried too often.
    DeadLettered {
        /// Why the last try failed.
        cause: Cause,
        /// In words.
        reason: String,
    },
    /// Its time is over.
    Expired,
    /// An earlier one of its thread backs off.
    Held {
        /// That one.
        behind: MessageId,
    },
    /// Its back-off is over, or that of the one it was held behind.
    Ready,
}

/// Why a command does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InboxError {
    /// Somebody else has it, or had it.
    #[error("{message} is not with this agent")]
    NotHolder {
        /// Which.
        message: MessageId,
    },
    /// It is in the inbox but was not handed out yet.
    #[error("{message} was not handed out yet")]
    NotHandedOut {
        /// Which.
        message: MessageId,
    },
    /// It ended otherwise before.
    #[error("{message} {how} before")]
    Ended {
        /// Which.
        message: MessageId,
        /// `was acked`, `expired`, `was dead-lettered`.
        how: &'static str,
    },
}

/// Returns the milliseconds before try `attempts + 1`: doubled each time, the upper half of it random.
#[must_use]
pub fn back_off_ms(attempts: u32, random: u64) -> u64 {
    let doublings = attempts.saturating_sub(1).min(16);
    let full = (BACK_OFF_MS << doublings).min(BACK_OFF_MS_MAX);
    full / 2 + random % (full / 2 + 1)
}

impl Delivery {
    /// Returns the delivery of a message to the first of `ranked`; none when there is nobody.
    #[must_use]
    pub fn new(now: TimeMs, message: MessageId, ranked: &[AgentId], place: Place) -> Option<Self> {
        let (&agent, rest) = ranked.split_first()?;
        Some(Self {
            message,
            agent,
            state: DeliveryState::Ready { since: now },
            place,
            thread: None,
            attempts: 0,
            attempts_here: 0,
            rest: rest.to_vec(),
            refused: Vec::new(),
            expires_at: None,
            via: None,
            sender: None,
            ack_required: false,
            is_review: false,
        })
    }

    /// Returns whether it is still on its way.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self.state {
            DeliveryState::Ready { .. } | DeliveryState::Waiting { .. } | DeliveryState::Held { .. } | DeliveryState::Leased { .. } => true,
            DeliveryState::Acked { .. }
            | DeliveryState::PassedOn { .. }
            | DeliveryState::DeadLettered { .. }
            | DeliveryState::Expired { .. } => false,
        }
    }

    /// Returns whether a wait hands it out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.state, DeliveryState::Ready { .. })
    }

    /// Returns whether it stands in the line of its thread: it backs off, or is held behind one that does.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        matches!(self.state, DeliveryState::Waiting { .. } | DeliveryState::Held { .. })
    }

    /// Returns when [`Command::Due`] is next worth giving; none: never.
    #[must_use]
    pub fn due_at(&self, terms: &Terms) -> Option<TimeMs> {
        let soonest = |own: Option<TimeMs>| [own, self.expires_at].into_iter().flatten().min();
        match &self.state {
            DeliveryState::Ready { since } => soonest((!self.rest.is_empty()).then(|| *since + terms.lease_ms)),
            DeliveryState::Waiting { until } => soonest(Some(*until)),
            DeliveryState::Held { .. } => self.expires_at,
            // Whoever holds it may still ack it after its time; only its coming back is prevented.
            DeliveryState::Leased { until, .. } => Some(*until),
            DeliveryState::Acked { .. }
            | DeliveryState::PassedOn { .. }
            | DeliveryState::DeadLettered { .. }
            | DeliveryState::Expired { .. } => None,
        }
    }

    /// Applies a command.
    ///
    /// # Errors
    /// [`InboxError`]; the delivery is as before.
    pub fn apply(&mut self, now: TimeMs, terms: &Terms, command: Command) -> Result<Transition, InboxError> {
        match command {
            Command::HandOut => Ok(self.hand_out(now, terms)),
            Command::Hold { behind } if self.is_ready() => {
                if self.is_expired(now) {
                    return Ok(self.expire(now));
                }
                self.state = DeliveryState::Held { since: now, behind };
                Ok(Transition::Held { behind })
            }
            Command::Release if matches!(self.state, DeliveryState::Held { .. }) => {
                if self.is_expired(now) {
                    return Ok(self.expire(now));
                }
                self.state = DeliveryState::Ready { since: now };
                Ok(Transition::Ready)
            }
            Command::Hold { .. } | Command::Release => Ok(Transition::Unchanged),
            Command::Ack { by } => self.ack(now, by),
            Command::Nack { by, delay_ms, reason, random } => self.nack(now, terms, by, delay_ms, reason, random),
            Command::Due => Ok(self.due(now, terms)),
            Command::Recall(tried) if matches!(self.state, DeliveryState::Leased { .. }) => {
                if tried == Try::TakenBack {
                    self.attempts = self.attempts.saturating_sub(1);
                }
                let reason = "its agent started again".to_owned();
                Ok(self.give_back(now, terms, Cause::Recalled, reason, GoBack::ToSame { delay_ms: 0 }))
            }
            Command::Recall(_) => Ok(Transition::Unchanged),
        }
    }

    fn is_expired(&self, now: TimeMs) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }

    fn expire(&mut self, now: TimeMs) -> Transition {
        self.state = DeliveryState::Expired { at: now };
        Transition::Expired
    }

    fn hand_out(&mut self, now: TimeMs, terms: &Terms) -> Transition {
        if !self.is_ready() {
            return Transition::Unchanged;
        }
        if self.is_expired(now) {
            return self.expire(now);
        }
        self.attempts += 1;
        self.attempts_here += 1;
        let (attempt, until) = (self.attempts, now + terms.lease_ms);
        self.state = DeliveryState::Leased { until, attempt };
        Transition::HandedOut { attempt, until }
    }

    /// Refuses those who cannot have seen it.
    fn check_seen(&self, by: AgentId) -> Result<(), InboxError> {
        if by != self.agent {
            return Err(InboxError::NotHolder { message: self.message });
        }
        if self.is_live() && self.attempts_here == 0 {
            return Err(InboxError::NotHandedOut { message: self.message });
        }
        Ok(())
    }

    fn ack(&mut self, now: TimeMs, by: AgentId) -> Result<Transition, InboxError> {
        self.check_seen(by)?;
        let message = self.message;
        match self.state {
            // A late ack counts: the delivery came back, and nobody else has it.
            DeliveryState::Ready { .. } | DeliveryState::Waiting { .. } | DeliveryState::Held { .. } | DeliveryState::Leased { .. } => {
                self.state = DeliveryState::Acked { at: now };
                Ok(Transition::Acked)
            }
            DeliveryState::Acked { .. } => Ok(Transition::Unchanged),
            DeliveryState::PassedOn { .. } => Err(InboxError::NotHolder { message }),
            DeliveryState::DeadLettered { .. } => Err(InboxError::Ended { message, how: "was dead-lettered" }),
            DeliveryState::Expired { .. } => Err(InboxError::Ended { message, how: "expired" }),
        }
    }

    fn nack(
        &mut self,
        now: TimeMs,
        terms: &Terms,
        by: AgentId,
        delay_ms: Option<u64>,
        reason: String,
        random: u64,
    ) -> Result<Transition, InboxError> {
        self.check_seen(by)?;
        match self.state {
            DeliveryState::Leased { .. } => {
                let delay_ms = delay_ms.map_or_else(|| back_off_ms(self.attempts, random), |ms| ms.min(NACK_DELAY_MS_MAX));
                Ok(self.give_back(now, terms, Cause::Nacked, reason, GoBack::ToNext { delay_ms }))
            }
            // It went back before, by a nack or by itself.
            DeliveryState::Ready { .. }
            | DeliveryState::Waiting { .. }
            | DeliveryState::Held { .. }
            | DeliveryState::PassedOn { .. }
            | DeliveryState::DeadLettered { .. }
            | DeliveryState::Expired { .. } => Ok(Transition::Unchanged),
            DeliveryState::Acked { .. } => Err(InboxError::Ended { message: self.message, how: "was acked" }),
        }
    }

    fn due(&mut self, now: TimeMs, terms: &Terms) -> Transition {
        match self.state {
            DeliveryState::Leased { until, .. } if until <= now => {
                let reason = format!("not acked within {} s", terms.lease_ms / 1_000);
                // An agent that died is not waited for; one that is alive and alone gets it again at once.
                self.give_back(now, terms, Cause::Lapsed, reason, GoBack::ToNext { delay_ms: 0 })
            }
            DeliveryState::Ready { .. } | DeliveryState::Waiting { .. } | DeliveryState::Held { .. } if self.is_expired(now) => {
                self.expire(now)
            }
            DeliveryState::Waiting { until } if until <= now => {
                self.state = DeliveryState::Ready { since: now };
                Transition::Ready
            }
            DeliveryState::Ready { since } if !self.rest.is_empty() && since + terms.lease_ms <= now => {
                self.pass_on(now, Cause::Unclaimed, format!("not fetched within {} s", terms.lease_ms / 1_000))
            }
            DeliveryState::Ready { .. }
            | DeliveryState::Waiting { .. }
            | DeliveryState::Held { .. }
            | DeliveryState::Leased { .. }
            | DeliveryState::Acked { .. }
            | DeliveryState::PassedOn { .. }
            | DeliveryState::DeadLettered { .. }
            | DeliveryState::Expired { .. } => Transition::Unchanged,
        }
    }

    fn give_back(&mut self, now: TimeMs, terms: &Terms, cause: Cause, reason: String, go: GoBack) -> Transition {
        if self.is_expired(now) {
            return self.expire(now);
        }
        if cause != Cause::Recalled && !self.refused.contains(&self.agent) {
            self.refused.push(self.agent);
        }
        if self.attempts >= terms.attempts_max {
            self.state = DeliveryState::DeadLettered { at: now, reason: reason.clone() };
            return Transition::DeadLettered { cause, reason };
        }
        match go {
            GoBack::ToNext { .. } if !self.rest.is_empty() => self.pass_on(now, cause, reason),
            GoBack::ToNext { delay_ms } | GoBack::ToSame { delay_ms } => {
                let ready_at = now + delay_ms;
                self.state = if delay_ms == 0 { DeliveryState::Ready { since: now } } else { DeliveryState::Waiting { until: ready_at } };
                Transition::GivenBack { cause, reason, ready_at }
            }
        }
    }

    fn pass_on(&mut self, now: TimeMs, cause: Cause, reason: String) -> Transition {
        let to = self.rest.remove(0);
        let next = Self {
            agent: to,
            state: DeliveryState::Ready { since: now },
            attempts_here: 0,
            rest: std::mem::take(&mut self.rest),
            ..self.clone()
        };
        self.state = DeliveryState::PassedOn { to, at: now };
        Transition::PassedOn { cause, reason, next: Box::new(next) }
    }
}

/// Where a delivery goes that was not acked.
enum GoBack {
    /// To the next candidate, else to the same agent after so long.
    ToNext { delay_ms: u64 },
    /// To the same agent after so long.
    ToSame { delay_ms: u64 },
}
