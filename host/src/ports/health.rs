//! How loaded components fare, as operators see it: outcomes and times of their calls, breakers, shadows.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::registry::{Mode, OnFailure};

/// Upper bounds of the latency classes, in microseconds; one more class holds what took longer.
pub const LATENCY_BOUNDS_US: [u64; 12] = [2, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 25_000, 250_000, 2_500_000];

/// Outcomes of a binding's calls since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Answered.
    pub answered: u64,
    /// Refused in its own words.
    pub refused: u64,
    /// Trapped.
    pub trapped: u64,
    /// Met a limit.
    pub limited: u64,
    /// Answered something its world does not allow.
    pub invalid: u64,
    /// Not asked, because it rested or was off.
    pub rested: u64,
    /// Not looked at by shadows or recorded, for want of room.
    pub missed: u64,
    /// Microseconds of all calls together.
    pub took_us: u64,
    /// Calls by how long they took, see [`LATENCY_BOUNDS_US`].
    pub latency: [u64; LATENCY_BOUNDS_US.len() + 1],
}

impl Counts {
    /// Returns how many calls there were.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.answered + self.refused + self.trapped + self.limited + self.invalid
    }
}

/// What a breaker is doing, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum BreakerView {
    /// Calls go through.
    Closed,
    /// It rests.
    Open {
        /// For so many milliseconds yet.
        left_ms: u64,
    },
    /// One call tries.
    Trying,
    /// It rests until somebody enables it.
    Quarantined,
}

/// What became of the calls that a shadow heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowReport {
    /// Whom it shadows.
    pub of: String,
    /// Calls it heard.
    pub calls: u64,
    /// The same answer.
    pub same: u64,
    /// Another answer.
    pub different: u64,
    /// No answer where the live one gave one.
    pub failed: u64,
}

/// A call that a shadow would have decided otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The question, as a case file writes it.
    pub question: Value,
    /// What the live one answered.
    pub live: Value,
    /// What the shadow answered.
    pub shadow: Value,
}

/// How a binding fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it decides.
    pub mode: Mode,
    /// What is done without its answer.
    pub on_failure: OnFailure,
    /// Its breaker.
    pub breaker: BreakerView,
    /// The failure that opened the breaker last, or why it is asked on fresh instances only.
    pub why: Option<String>,
    /// What became of its calls.
    pub counts: Counts,
    /// Where it shadows another.
    pub shadow: Option<ShadowReport>,
    /// Loads since the start.
    pub generation: u64,
}
