//! What the operator chose, as far as the use cases need it. The configuration adapter fills it.

use pointsman_core::path_glob::PathGlob;

use crate::ports::repository::CheckSpec;

/// A binding of a merger or reconciler to paths or keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternBinding {
    /// Which paths or document keys; none: all.
    pub patterns: Vec<PathGlob>,
    /// The plugin's name.
    pub plugin: String,
}

/// The choices of a project. One set serves every project in this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Routers, asked in this order until one has an opinion.
    pub routers: Vec<String>,
    /// Mergers, tried in this order on each conflicted path that matches.
    pub mergers: Vec<PatternBinding>,
    /// Reconcilers, tried in this order on each stale write whose key matches.
    pub reconcilers: Vec<PatternBinding>,
    /// Names, messages, order.
    pub workflow: String,
    /// Guards gates.
    pub policy: String,
    /// Run on each merged tree before it lands.
    pub checks: Vec<CheckSpec>,
    /// Milliseconds a claim lives without a sign of life.
    pub claim_lease_ms: u64,
    /// Milliseconds an agent has to ack what it was handed.
    pub delivery_lease_ms: u64,
    /// Times a delivery is tried.
    pub delivery_attempts_max: u32,
    /// Where clients reach the host: `http://127.0.0.1:7420`.
    pub public_url: String,
}
