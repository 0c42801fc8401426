//! The order of one thread's messages in one agent's inbox.
//!
//! Owns: which deliveries stand still, and behind which. Must not know: where that is stored.

use serde::{Deserialize, Serialize};

use super::{Delivery, DeliveryState};
use crate::ids::MessageId;
use crate::value::Stored;

/// A delivery that stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Spot {
    order: u64,
    message: MessageId,
}

/// What stands still of one thread in one agent's inbox: deliveries that back off, and those held behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Those that back off, in no order.
    waiting: Vec<Spot>,
    /// Those held, in no order.
    held: Vec<Spot>,
}

impl Stored for Line {
    const NAME: &'static str = "line of a thread";
}

impl Line {
    /// Returns whether nothing stands still.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.held.is_empty()
    }

    /// Returns the first message that backs off before a delivery; none: that may be handed out.
    #[must_use]
    pub fn before(&self, delivery: &Delivery) -> Option<MessageId> {
        let own = Spot { order: delivery.place.order, message: delivery.message };
        self.waiting.iter().min().filter(|first| **first < own).map(|first| first.message)
    }

    /// Notes where a delivery of the thread stands now.
    pub fn note(&mut self, delivery: &Delivery) {
        let spot = Spot { order: delivery.place.order, message: delivery.message };
        self.waiting.retain(|known| *known != spot);
        self.held.retain(|known| *known != spot);
        match delivery.state {
            DeliveryState::Waiting { .. } => self.waiting.push(spot),
            DeliveryState::Held { .. } => self.held.push(spot),
            DeliveryState::Ready { .. }
            | DeliveryState::Leased { .. }
            | DeliveryState::Acked { .. }
            | DeliveryState::PassedOn { .. }
            | DeliveryState::DeadLettered { .. }
            | DeliveryState::Expired { .. } => {}
        }
    }

    /// Takes out those that are held behind nothing any more, the earliest first.
    pub fn release(&mut self) -> Vec<MessageId> {
        let first = self.waiting.iter().min().copied();
        let is_free = |spot: &Spot| first.is_none_or(|first| *spot < first);
        let mut free: Vec<Spot> = self.held.iter().copied().filter(is_free).collect();
        self.held.retain(|spot| !is_free(spot));
        free.sort_unstable();
        free.into_iter().map(|spot| spot.message).collect()
    }
}
