//! What a round of a component's call came to, judged in one way whether its client waits for it or not.

use serde_json::Value;
use thiserror::Error;

use super::offers::Tool;
use crate::ports::plugins::PluginFailure;
use crate::ports::provider::ProviderOutcome;

/// JSON-RPC: what was asked names nothing, or does not fit. The only error of its own that a component may hand to a client.
const INVALID_PARAMS: i32 = -32602;
/// How the plugin runtime names the limit of calls at once.
const CONCURRENCY: &str = "concurrency";
/// Characters of what a validator says; it quotes the value, whatever its length.
const FINDING_CHARS_MAX: usize = 300;

/// Why a round has no outcome that a client is told.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    /// As many calls of the component run as may; nothing was asked of it.
    #[error("all its turns are taken")]
    Busy,
    /// It is not asked for now.
    #[error("{0}")]
    Resting(String),
    /// It failed.
    #[error(transparent)]
    Failed(PluginFailure),
    /// It broke what it promised.
    #[error("{0}")]
    Broken(String),
}

/// Judges an outcome; `tool` is the tool that was called, if one was.
///
/// # Errors
/// [`Trouble`].
pub(super) fn judged(tool: Option<&Tool>, outcome: Result<ProviderOutcome, PluginFailure>) -> Result<ProviderOutcome, Trouble> {
    match (&outcome, tool) {
        (Ok(ProviderOutcome::Complete(result)), Some(tool)) => check_result(tool, result).map_err(Trouble::Broken)?,
        (Ok(ProviderOutcome::ProtocolError { code, message }), _) if *code != INVALID_PARAMS => {
            return Err(Trouble::Broken(format!("it reports an error of its own, {code}: {message}")));
        }
        (Err(PluginFailure::Limit { limit: CONCURRENCY, .. }), _) => return Err(Trouble::Busy),
        (Err(PluginFailure::Resting { why, .. }), _) => return Err(Trouble::Resting(why.clone())),
        _ => {}
    }
    outcome.map_err(Trouble::Failed)
}

/// Checks what a tool gave against what it promised.
fn check_result(tool: &Tool, result: &str) -> Result<(), String> {
    let result: Value = serde_json::from_str(result).map_err(|error| error.to_string())?;
    if !result["content"].is_array() {
        return Err("`content` is no list".to_owned());
    }
    if result["isError"] == true {
        return Ok(());
    }
    match (&tool.output, result.get("structuredContent")) {
        (None, _) => Ok(()),
        (Some(_), None) => Err("`structuredContent` is missing, though `outputSchema` promises it".to_owned()),
        (Some(schema), Some(content)) => {
            schema.validate(content).map_err(|error| format!("`structuredContent`: {}", finding(&error.to_string())))
        }
    }
}

/// Returns the beginning of what a validator says.
pub(super) fn finding(text: &str) -> String {
    text.chars().take(FINDING_CHARS_MAX).collect()
}
