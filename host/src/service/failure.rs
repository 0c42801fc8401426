//! Why a use case did not do what was asked, in words an agent can act on.

use pointsman_core::value::ValueError;
use serde::Serialize;
use thiserror::Error;

use super::kit::chain;
use crate::ports::plugins::PluginFailure;
use crate::ports::repository::RepositoryError;
use crate::ports::store::StoreError;
use crate::ports::surface::Rejected;

/// Milliseconds after which to try again when nothing says when.
const RETRY_MS: u64 = 1_000;

/// A refusal an agent can act on: what, why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Stable, for programs: `not_found`, `stale`, `not_holder`, …
    pub code: &'static str,
    /// One sentence.
    pub why: String,
    /// One sentence.
    #[serde(rename = "do")]
    pub advice: String,
    /// What a program may need to go on, such as the present version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// Why a use case failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// The caller can do something about it. Nothing changed.
    #[error("{}: {}", .0.code, .0.why)]
    Refused(Box<Refusal>),
    /// Nobody can do anything about it now.
    #[error("not available now")]
    Unavailable {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// A stored value is damaged or from a newer host.
    #[error("stored state cannot be read")]
    Damaged(#[from] ValueError),
    /// Git failed in a way that no caller caused.
    #[error("the repository failed")]
    Repository(#[source] RepositoryError),
    /// A plugin that the operator made mandatory failed.
    #[error("a plugin failed")]
    Plugin(#[from] PluginFailure),
    /// Many others changed the same thing at once.
    #[error("`{key}` changed {tries} times while it was decided")]
    Contended {
        /// What.
        key: String,
        /// How often it was tried.
        tries: u32,
    },
}

impl Failure {
    /// Returns a refusal.
    #[must_use]
    pub fn refused(code: &'static str, why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Refused(Box::new(Refusal { code, why: why.into(), advice: advice.into(), data: None }))
    }

    /// Returns that nothing can be said now, and to try again soon.
    #[must_use]
    pub const fn later() -> Self {
        Self::Unavailable { retry_after_ms: RETRY_MS }
    }

    /// Returns a refusal with data for programs.
    #[must_use]
    pub fn refused_with(code: &'static str, why: impl Into<String>, advice: impl Into<String>, data: serde_json::Value) -> Self {
        Self::Refused(Box::new(Refusal { code, why: why.into(), advice: advice.into(), data: Some(data) }))
    }
}

/// Returns how a caller is told that it could not be checked whether it may.
pub(super) fn unavailable(failure: &Failure) -> Rejected {
    let retry_after_ms = match failure {
        Failure::Unavailable { retry_after_ms } => *retry_after_ms,
        other @ (Failure::Refused(_) | Failure::Damaged(_) | Failure::Repository(_) | Failure::Plugin(_) | Failure::Contended { .. }) => {
            tracing::error!(error = %chain(other), "a caller could not be checked");
            RETRY_MS
        }
    };
    Rejected::Unavailable { retry_after_ms }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { retry_after_ms, why } => {
                tracing::warn!(%why, "store unavailable");
                Self::Unavailable { retry_after_ms }
            }
            StoreError::KeyReused { key } => Self::refused(
                "key_reused",
                format!("idempotency key `{key}` was used for another request"),
                "Use a new key for a new request, or repeat the first request unchanged.",
            ),
            StoreError::Refused { why } => Self::refused("too_large", why, "Send less at once."),
            StoreError::Stale { key } | StoreError::Fenced { key } => Self::Contended { key, tries: 1 },
        }
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Refused { rule, why } => Self::refused(rule, why, "Change what the rule names and try again."),
            RepositoryError::NotFound { what } => {
                Self::refused("not_found", format!("{what} is not in the repository"), "Check the name; `lookup` lists what there is.")
            }
            RepositoryError::Moved { name, expected, actual } => Self::refused_with(
                "moved",
                format!("{name} is at {actual}, not at {expected}"),
                "Fetch, look at what changed, and try again from there.",
                serde_json::json!({"ref": name, "expected": expected, "actual": actual}),
            ),
            RepositoryError::Fenced { task } => Self::refused(
                "not_holder",
                format!("the claim on {task} is no longer yours"),
                format!("Call lookup(\"{task}\") to see who holds it; claim it again if it is free."),
            ),
            RepositoryError::Away { why, retry_after_ms } => {
                tracing::warn!(%why, "a repository is away");
                Self::Unavailable { retry_after_ms }
            }
            RepositoryError::TimedOut { .. } | RepositoryError::Failed { .. } => Self::Repository(error),
        }
    }
}
