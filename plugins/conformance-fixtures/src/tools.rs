//! The tools: one table says what is listed and what is called.

use pointsman_sdk::mcp_provider::Outcome;
use serde_json::{Value, json};

use crate::round::{Round, invalid, say};

mod asking;
mod content;
mod running;
mod tasks;

pub(crate) use content::PIXEL;

/// The tool after which the list of tools changes.
pub(crate) const CHANGES_TOOLS: &str = "test_trigger_tool_change";
/// The tool after which the list of prompts changes.
pub(crate) const CHANGES_PROMPTS: &str = "test_trigger_prompt_change";
/// The tool after which the watched resource has changed.
pub(crate) const UPDATES_RESOURCE: &str = "test_trigger_resource_update";
/// What a tool that appeared later is called, before its number.
const DYNAMIC: &str = "test_dynamic_tool_";

/// A tool.
struct Tool {
    name: &'static str,
    description: &'static str,
    /// The JSON Schema of its arguments.
    schema: fn() -> Value,
    /// Runs one round of a call; a refusal ends it early.
    call: fn(&Round<'_>) -> Result<Outcome, Outcome>,
}

/// Tools that only say that they were called: what matters happens afterwards.
const TRIGGERS: [Tool; 3] = [
    Tool { name: CHANGES_TOOLS, description: "Changes the list of tools, afterwards", schema: nothing, call: announced },
    Tool { name: CHANGES_PROMPTS, description: "Changes the list of prompts, afterwards", schema: nothing, call: announced },
    Tool { name: UPDATES_RESOURCE, description: "Updates the watched resource, afterwards", schema: nothing, call: announced },
];

fn all() -> impl Iterator<Item = &'static Tool> {
    content::TOOLS.iter().chain(&running::TOOLS).chain(&asking::TOOLS).chain(&asking::FORMS).chain(&tasks::TOOLS).chain(&TRIGGERS)
}

/// Returns the `Tool` objects after so many changes.
pub(crate) fn list(changes: u32) -> Vec<Value> {
    let entry = |tool: &Tool| json!({ "name": tool.name, "description": tool.description, "inputSchema": (tool.schema)() });
    let mut entries: Vec<Value> = all().map(entry).collect();
    if changes > 0 {
        let name = format!("{DYNAMIC}{changes}");
        entries.push(json!({ "name": name, "description": "A tool that was not there at the start", "inputSchema": nothing() }));
    }
    entries
}

/// Runs one round of a call.
pub(crate) fn call(round: &Round<'_>, name: &str) -> Outcome {
    match all().find(|tool| tool.name == name) {
        Some(tool) => (tool.call)(round).unwrap_or_else(|refusal| refusal),
        None if name.starts_with(DYNAMIC) => say("This tool was not there at the start."),
        None => invalid(&format!("there is no tool {name:?}")),
    }
}

/// The schema of a tool without arguments.
fn nothing() -> Value {
    json!({ "type": "object", "properties": {} })
}

fn announced(_: &Round<'_>) -> Result<Outcome, Outcome> {
    Ok(say("The change follows this answer."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round::tests::{ABLE, context, said};

    /// Runs the first round of a call.
    pub(super) fn first(capabilities: &str, name: &str, arguments: &Value) -> Outcome {
        let ctx = context(capabilities);
        call(&Round::read(&ctx, &arguments.to_string()).expect("JSON"), name)
    }

    #[test]
    fn every_fixture_of_the_suite_is_there() {
        let listed: Vec<Value> = list(0);
        let expected = "test_simple_text test_image_content test_audio_content test_embedded_resource \
             test_multiple_content_types test_error_handling json_schema_2020_12_tool test_tool_with_progress \
             test_tool_with_logging test_reconnection test_logging_tool test_streaming_elicitation test_missing_capability \
             test_sampling test_elicitation test_elicitation_sep1034_defaults test_elicitation_sep1330_enums \
             test_input_required_result_elicitation test_input_required_result_sampling \
             test_input_required_result_list_roots test_input_required_result_request_state \
             test_input_required_result_multiple_inputs test_input_required_result_multi_round \
             test_input_required_result_tampered_state test_input_required_result_capabilities \
             greet slow_compute failing_job protocol_error_job confirm_delete multi_input test_tool_with_task \
             test_trigger_tool_change test_trigger_prompt_change";
        for name in expected.split_whitespace() {
            assert!(listed.iter().any(|tool| tool["name"] == name), "{name}");
        }
    }

    #[test]
    fn a_tool_that_appeared_later_can_be_called_and_one_that_never_did_cannot() {
        assert_eq!(said(&first(ABLE, "test_dynamic_tool_7", &json!({}))), "This tool was not there at the start.");
        let outcome = first(ABLE, "test_nothing", &json!({}));
        assert!(matches!(&outcome, Outcome::ProtocolError(refusal) if refusal.code == -32602), "{outcome:?}");
    }
}
