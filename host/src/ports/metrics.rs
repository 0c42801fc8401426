//! Figures of a running host, as those who watch it collect them.
//!
//! **Invariant:** a figure's labels have few values: names of tools, plugins, outcomes; never ids of tasks, agents or messages.

/// What kind of figure it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Only rises, from 0 at the start.
    Counter(u64),
    /// Goes up and down.
    Gauge(f64),
    /// How many lay at or below each bound, the sum of all and their number.
    Histogram {
        /// Upper bound and count of what lies at or below it; the last bound is infinite.
        buckets: Vec<(f64, u64)>,
        /// Sum.
        sum: f64,
        /// Number.
        count: u64,
    },
}

/// One figure with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Labels and their values.
    pub labels: Vec<(&'static str, String)>,
    /// The figure.
    pub value: Value,
}

/// All figures of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// `pointsman_tool_calls`; what only rises gets `_total` at the end.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// By label.
    pub samples: Vec<Sample>,
}

/// Whoever has figures.
pub trait Measured: Send + Sync {
    /// Returns them as they are now.
    fn families(&self) -> Vec<Family>;
}
