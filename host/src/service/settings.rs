//! What the operator chose, as far as the use cases need it. The configuration adapter fills it.

mod bindings;

use pointsman_core::context::rules::Rules;

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

/// Bytes of documents that a project may keep where the operator does not say.
const CONTEXT_BYTES_MAX: u64 = 1 << 30;
/// Documents that a project may have where the operator does not say.
const CONTEXT_DOCUMENTS_MAX: u64 = 100_000;

/// What holds for the documents of every project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextSettings {
    /// Who may do what with which keys, and what becomes of their versions.
    pub rules: Rules,
    /// Bytes of documents that a project may keep.
    pub bytes_max: u64,
    /// Documents that a project may have.
    pub documents_max: u64,
}

impl Default for ContextSettings {
    /// The shipped values.
    fn default() -> Self {
        Self { rules: Rules::default(), bytes_max: CONTEXT_BYTES_MAX, documents_max: CONTEXT_DOCUMENTS_MAX }
    }
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
    /// Who may do what with documents, and how much is kept.
    pub context: ContextSettings,
    /// Where clients reach the host: `http://127.0.0.1:7420`.
    pub public_url: String,
}
