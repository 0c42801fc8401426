//! Dead letters: how a delivery that was given up becomes live again.
//!
//! Owns: what a revival makes of the deliveries of one message. Must not know: keys, events, who is asked for a heir.
//!
//! **Invariants:** an agent has one delivery of a message before and after a revival: what it had ended is the very one that
//! lives again. Where no delivery of a route was live, exactly one is afterwards; it has all its tries again. A refusal changes
//! nothing.

#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::ids::{AgentId, MessageId};
use crate::inbox::{Delivery, DeliveryState};
use crate::time::TimeMs;

/// Who gets a dead letter that lives again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heir<'a> {
    /// The agent that had it last.
    Same,
    /// Whom it was routed to anew.
    Routed {
        /// Who.
        agent: AgentId,
        /// Who gets it when that one does not take it, in this order.
        rest: &'a [AgentId],
        /// What became of that agent's own delivery of the message, if it had one.
        had: Option<&'a Delivery>,
    },
}

/// What a revival makes of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revived {
    /// The delivery that is live now.
    pub live: Delivery,
    /// The dead letter as it stays with its agent; none where that agent has the live one.
    pub left: Option<Delivery>,
}

/// Why a delivery does not become live again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LetterError {
    /// It was not given up.
    #[error("{message} is no dead letter")]
    NotDead {
        /// Which.
        message: MessageId,
    },
    /// Nobody would be handed it.
    #[error("{message} was worth delivering until {at} only")]
    Over {
        /// Which.
        message: MessageId,
        /// When its time was over.
        at: TimeMs,
    },
    /// The heir has it, had it to the end, or has a dead letter of its own.
    #[error("{message} was delivered to {agent} before")]
    Served {
        /// Which.
        message: MessageId,
        /// To whom.
        agent: AgentId,
    },
}

impl Heir<'_> {
    /// Returns whether an agent can be the heir, by what became of its own delivery.
    #[must_use]
    pub fn may_be(had: Option<&Delivery>) -> bool {
        had.is_none_or(|had| matches!(had.state, DeliveryState::PassedOn { .. }))
    }
}

/// Makes a dead letter live again: ready at once, with all its tries, in its old place among others.
///
/// # Errors
/// [`LetterError`].
pub fn revive(dead: &Delivery, now: TimeMs, heir: Heir<'_>) -> Result<Revived, LetterError> {
    let message = dead.message;
    if !matches!(dead.state, DeliveryState::DeadLettered { .. }) {
        return Err(LetterError::NotDead { message });
    }
    if let Some(at) = dead.expires_at.filter(|end| *end <= now) {
        return Err(LetterError::Over { message, at });
    }
    let again = |agent: AgentId, rest: &[AgentId], attempts_here: u32| Delivery {
        agent,
        state: DeliveryState::Ready { since: now },
        attempts: 0,
        // What it was handed before it can still ack: it is the same delivery.
        attempts_here,
        rest: rest.iter().copied().filter(|other| *other != agent).collect(),
        refused: Vec::new(),
        ..dead.clone()
    };
    match heir {
        Heir::Same => Ok(Revived { live: again(dead.agent, &[], dead.attempts_here), left: None }),
        Heir::Routed { agent, rest, .. } if agent == dead.agent => Ok(Revived { live: again(agent, rest, dead.attempts_here), left: None }),
        Heir::Routed { agent, rest, had } => {
            if !Heir::may_be(had) {
                return Err(LetterError::Served { message, agent });
            }
            let left = Delivery { state: DeliveryState::PassedOn { to: agent, at: now }, ..dead.clone() };
            Ok(Revived { live: again(agent, rest, had.map_or(0, |had| had.attempts_here)), left: Some(left) })
        }
    }
}
