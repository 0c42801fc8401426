//! What the operator chose, as far as the use cases need it. The configuration adapter fills it.

use pointsman_core::path_glob::PathGlob;

use crate::ports::plugins::Grant;
use crate::ports::repository::CheckSpec;

/// A binding of a merger or reconciler to paths or keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternBinding {
    /// Which paths or document keys; none: all.
    pub patterns: Vec<PathGlob>,
    /// The plugin's name.
    pub plugin: String,
}

/// A component that acts as an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidentBinding {
    /// The plugin's name.
    pub plugin: String,
    /// Slugs of the projects it lives in; empty: all.
    pub projects: Vec<String>,
    /// Hosts it may send requests to, `HOST` or `HOST:PORT`.
    pub fetch_hosts: Vec<String>,
    /// Whether it may look the project up while it handles an event.
    pub lookups: Grant,
}

/// A component that offers MCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderBinding {
    /// The plugin's name.
    pub plugin: String,
    /// Slugs of the projects it offers in; empty: all.
    pub projects: Vec<String>,
    /// Whether its names may go without a prefix.
    pub allow_empty_namespace: bool,
    /// Whether it may look the project up while it handles a call.
    pub lookups: Grant,
}

/// Returns whether a binding to these projects covers one.
#[must_use]
pub fn covers(projects: &[String], slug: &str) -> bool {
    projects.is_empty() || projects.iter().any(|named| named == slug)
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
    /// Agents that live in the host.
    pub residents: Vec<ResidentBinding>,
    /// Offers to MCP clients.
    pub providers: Vec<ProviderBinding>,
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
