//! What is counted of messages since the host's start.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Messaging;
use crate::ports::metrics::{Family, Measured, Sample, Value};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Messages that retention removed.
    PrunedMessages,
    /// Their deliveries.
    PrunedDeliveries,
    /// Dead letters that retention removed.
    PrunedLetters,
    /// Dead letters that live again.
    Revived,
    /// Dead letters that an operator took off the list.
    Purged,
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Figures([AtomicU64; 5]);

impl Figures {
    fn counter(&self, what: Counted) -> &AtomicU64 {
        &self.0[what as usize]
    }

    pub(super) fn add(&self, what: Counted, count: u64) {
        self.counter(what).fetch_add(count, Ordering::Relaxed);
    }
}

impl Measured for Messaging {
    fn families(&self) -> Vec<Family> {
        let sample = |labels, what: Counted| Sample { labels, value: Value::Counter(self.figures.counter(what).load(Ordering::Relaxed)) };
        let letters = [(Counted::Revived, "revived"), (Counted::Purged, "purged"), (Counted::PrunedLetters, "pruned")];
        let (messages, searchable) = self.searches.size();
        let gauge =
            |value: usize| vec![Sample { labels: Vec::new(), value: Value::Gauge(f64::from(u32::try_from(value).unwrap_or(u32::MAX))) }];
        vec![
            Family {
                name: "pointsman_messages_pruned",
                help: "Settled messages that were removed after their time.",
                samples: vec![sample(Vec::new(), Counted::PrunedMessages)],
            },
            Family {
                name: "pointsman_deliveries_pruned",
                help: "Ended deliveries that went with their messages.",
                samples: vec![sample(Vec::new(), Counted::PrunedDeliveries)],
            },
            Family {
                name: "pointsman_dead_letters_ended",
                help: "Dead letters that are none any more, by how they ended.",
                samples: letters.into_iter().map(|(what, word)| sample(vec![("how", word.to_owned())], what)).collect(),
            },
            Family {
                name: "pointsman_message_index_messages",
                help: "Messages that the indexes of all projects have in memory.",
                samples: gauge(messages),
            },
            Family {
                name: "pointsman_message_index_projects",
                help: "Projects whose index of messages is whole.",
                samples: gauge(searchable),
            },
        ]
    }
}
