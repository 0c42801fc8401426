//! Tools that take a while and tell their client meanwhile. A step ends by asking to be called again: a component cannot
//! sleep.

use pointsman_sdk::mcp_provider::Outcome;
use pointsman_sdk::mcp_provider::emit::{self, Level};
use serde_json::{Value, json};

use super::{Tool, nothing};
use crate::round::{Round, form, later, missing_capability, requests, say};

/// Milliseconds between two steps.
const STEP_MS: u32 = 50;
/// Milliseconds that a client has to come back for its answer.
const AWAY_MS: u32 = 100;
/// Who writes log lines.
const LOGGER: &str = "conformance-fixtures";

pub(super) const TOOLS: [Tool; 6] = [
    Tool { name: "test_tool_with_progress", description: "Reports progress in three steps", schema: nothing, call: progress },
    Tool { name: "test_tool_with_logging", description: "Logs a line in each of three steps", schema: nothing, call: logging },
    Tool { name: "test_reconnection", description: "Closes its stream before it answers", schema: nothing, call: reconnection },
    Tool { name: "test_logging_tool", description: "Logs a line, for clients that want to hear it", schema: nothing, call: log_once },
    Tool { name: "test_streaming_elicitation", description: "Reports progress, then asks", schema: nothing, call: streaming_elicitation },
    Tool { name: "test_missing_capability", description: "Needs a client that can sample", schema: nothing, call: needs_sampling },
];

/// Takes the step that is due; returns the outcome once all were taken.
fn steps(round: &Round<'_>, take: [&dyn Fn(); 3], end: &str) -> Outcome {
    let step: usize = round.state().unwrap_or(0);
    let Some(act) = take.get(step) else { return say(end) };
    act();
    if step + 1 == take.len() { say(end) } else { later(&(step + 1), STEP_MS) }
}

fn progress(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let at = |done: f64| emit::progress(done, 100.0, &format!("{done} of 100"));
    let take: [&dyn Fn(); 3] = [&|| _ = at(0.0), &|| _ = at(50.0), &|| _ = at(100.0)];
    Ok(steps(round, take, "Progress was reported."))
}

fn log_line(line: &str) {
    emit::log(Level::Info, LOGGER, &Value::from(line).to_string());
}

fn logging(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let take: [&dyn Fn(); 3] =
        [&|| log_line("Tool execution started"), &|| log_line("Tool processing data"), &|| log_line("Tool execution completed")];
    Ok(steps(round, take, "Three lines were logged."))
}

fn reconnection(round: &Round<'_>) -> Result<Outcome, Outcome> {
    if round.state::<bool>().is_some() {
        return Ok(say("The answer came after the stream was closed and opened again."));
    }
    emit::detach_stream();
    Ok(later(&true, AWAY_MS))
}

fn log_once(_: &Round<'_>) -> Result<Outcome, Outcome> {
    log_line("The tool was called");
    Ok(say("A line was logged, if it was wanted."))
}

fn streaming_elicitation(round: &Round<'_>) -> Result<Outcome, Outcome> {
    if round.answer("detail").is_some() {
        return Ok(say("The question was answered."));
    }
    emit::progress(1.0, 2.0, "about to ask");
    let question = form("Which detail matters?", &json!({ "detail": { "type": "string" } }), &["detail"]);
    Ok(round.ask(requests([("detail", question)]), &()))
}

fn needs_sampling(round: &Round<'_>) -> Result<Outcome, Outcome> {
    if round.declares("sampling") {
        return Ok(say("The client can sample."));
    }
    Ok(missing_capability(&json!({ "sampling": {} })))
}

#[cfg(test)]
mod tests {
    use super::super::tests::first;
    use super::super::{call, list};
    use super::*;
    use crate::round::tests::{ABLE, asked, context, next, said};

    /// Calls until the call ends; returns how many rounds it took.
    fn rounds(name: &str) -> (u32, Outcome) {
        let mut ctx = context("{}");
        for taken in 1..10 {
            let outcome = call(&Round::read(&ctx, "{}").expect("JSON"), name);
            if matches!(outcome, Outcome::Complete(_)) {
                return (taken, outcome);
            }
            ctx = next(&ctx, &outcome, &json!({}));
        }
        panic!("{name} does not end");
    }

    #[test]
    fn each_step_is_a_round() {
        for (name, expected) in [("test_tool_with_progress", 3), ("test_tool_with_logging", 3), ("test_reconnection", 2)] {
            let (taken, outcome) = rounds(name);
            assert_eq!(taken, expected, "{name}");
            assert!(!said(&outcome).is_empty());
        }
        assert_eq!(rounds("test_logging_tool").0, 1);
    }

    #[test]
    fn a_capability_that_was_not_declared_is_named() {
        let refused = first(r#"{"elicitation":{}}"#, "test_missing_capability", &json!({}));
        assert_eq!(refused, Outcome::MissingCapability(r#"{"sampling":{}}"#.to_owned()));
        assert_eq!(said(&first(ABLE, "test_missing_capability", &json!({}))), "The client can sample.");
    }

    #[test]
    fn a_question_in_a_stream_is_a_result_not_a_request() {
        let outcome = first(r#"{"elicitation":{}}"#, "test_streaming_elicitation", &json!({}));
        assert_eq!(asked(&outcome)["detail"]["method"], "elicitation/create");
        assert!(list(0).iter().any(|tool| tool["name"] == "test_streaming_elicitation"));
    }
}
