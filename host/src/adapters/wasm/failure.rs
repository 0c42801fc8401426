//! From the engine's errors to the port's outcomes: a trap, a limit, or an answer the world does not allow.

use wasmtime::{PoolConcurrencyLimitError, Trap};

use crate::ports::plugins::PluginFailure;

/// How the engine says that an answer has more bytes than the host takes. The error has no public type; the test with
/// the giant answer holds this text to it.
const RESULT_TOO_BIG: &str = "too much data is being copied between the host and the guest";

/// Returns a limit reached.
pub(super) fn limit(plugin: &str, limit: &'static str) -> PluginFailure {
    PluginFailure::Limit { plugin: plugin.to_owned(), limit }
}

/// Returns an invalid answer.
pub(super) fn invalid(plugin: &str, why: impl Into<String>) -> PluginFailure {
    PluginFailure::Invalid { plugin: plugin.to_owned(), why: why.into() }
}

/// Says what an error of a call means. `exceeded` is the limit, if any, for which the instance was turned down before;
/// `last_words` what the guest said before it ended itself.
pub(super) fn classify(plugin: &str, error: &wasmtime::Error, exceeded: Option<&'static str>, last_words: Option<&str>) -> PluginFailure {
    tracing::debug!(plugin, error = ?error, "a plugin call failed");
    if let Some(trap) = error.downcast_ref::<Trap>() {
        if *trap == Trap::Interrupt {
            return limit(plugin, "time");
        }
        if *trap == Trap::StackOverflow {
            return limit(plugin, "stack");
        }
        // A guest that gets no memory ends itself by a trap: the cause is the limit.
        let why = || last_words.map_or_else(|| trap.to_string(), str::to_owned);
        return exceeded.map_or_else(|| PluginFailure::Trapped { plugin: plugin.to_owned(), why: why() }, |which| limit(plugin, which));
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return limit(plugin, "concurrency");
    }
    if let Some(which) = exceeded {
        return limit(plugin, which);
    }
    let why = error.root_cause().to_string();
    if why.starts_with(RESULT_TOO_BIG) { limit(plugin, "result size") } else { invalid(plugin, why) }
}
