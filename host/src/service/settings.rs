//! What the operator chose, as far as the use cases need it. The configuration adapter fills it.

mod bindings;

pub use self::bindings::{Binding, BindingBook, Bindings, Rule};
use crate::ports::plugins::Grant;
use crate::ports::repository::CheckSpec;

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

/// The choices of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Which components are asked where. They change while the host runs.
    pub bindings: BindingBook,
    /// Run on each merged tree before it lands.
    pub checks: Vec<CheckSpec>,
    /// Milliseconds a claim lives without a sign of life.
    pub claim_lease_ms: u64,
    /// Milliseconds an agent has to ack what it was handed.
    pub delivery_lease_ms: u64,
    /// Times a delivery is tried.
    pub delivery_attempts_max: u32,
    /// Milliseconds a message is kept after the last of its deliveries ended.
    pub messages_kept_ms: u64,
    /// Milliseconds a dead letter is kept.
    pub dead_letters_kept_ms: u64,
    /// Where clients reach the host: `http://127.0.0.1:7420`.
    pub public_url: String,
}
