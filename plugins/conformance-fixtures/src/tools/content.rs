//! Tools that answer at once: each kind of content, a failure, and the schemas and headers that a host must leave alone.

use pointsman_sdk::mcp_provider::Outcome;
use serde_json::{Value, json};

use super::{Tool, nothing};
use crate::round::{Round, done, fail, say};

/// A PNG of one red pixel, in base64.
pub(crate) const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC";
/// A WAV of one silent sample, in base64.
const SILENCE: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQIAAAAAAA==";

pub(super) const TOOLS: [Tool; 8] = [
    Tool { name: "test_simple_text", description: "Answers with a text", schema: nothing, call: simple_text },
    Tool { name: "test_image_content", description: "Answers with an image", schema: nothing, call: image },
    Tool { name: "test_audio_content", description: "Answers with a sound", schema: nothing, call: audio },
    Tool { name: "test_embedded_resource", description: "Answers with a resource", schema: nothing, call: resource },
    Tool { name: "test_multiple_content_types", description: "Answers with three kinds of content", schema: nothing, call: mixed },
    Tool { name: "test_error_handling", description: "Always fails", schema: nothing, call: failing },
    Tool {
        name: "json_schema_2020_12_tool",
        description: "Has a schema with much of the vocabulary of JSON Schema 2020-12",
        schema: wide_schema,
        call: repeat,
    },
    Tool {
        name: "test_custom_header",
        description: "Has an argument that travels as the header `Mcp-Param-Region`, too",
        schema: header_schema,
        call: repeat,
    },
];

fn simple_text(_: &Round<'_>) -> Result<Outcome, Outcome> {
    Ok(say("This is a simple text response for testing."))
}

fn pixel() -> Value {
    json!({ "type": "image", "data": PIXEL, "mimeType": "image/png" })
}

fn image(_: &Round<'_>) -> Result<Outcome, Outcome> {
    Ok(done(&json!({ "content": [pixel()] })))
}

fn audio(_: &Round<'_>) -> Result<Outcome, Outcome> {
    Ok(done(&json!({ "content": [{ "type": "audio", "data": SILENCE, "mimeType": "audio/wav" }] })))
}

fn resource(_: &Round<'_>) -> Result<Outcome, Outcome> {
    let text = "This is an embedded resource content.";
    let resource = json!({ "uri": "test://embedded-resource", "mimeType": "text/plain", "text": text });
    Ok(done(&json!({ "content": [{ "type": "resource", "resource": resource }] })))
}

fn mixed(_: &Round<'_>) -> Result<Outcome, Outcome> {
    let text = json!({ "type": "text", "text": "Multiple content types test:" });
    let data = json!({ "test": "data", "value": 123 }).to_string();
    let resource = json!({ "uri": "test://mixed-content-resource", "mimeType": "application/json", "text": data });
    Ok(done(&json!({ "content": [text, pixel(), { "type": "resource", "resource": resource }] })))
}

fn failing(_: &Round<'_>) -> Result<Outcome, Outcome> {
    Ok(fail("This tool intentionally returns an error for testing"))
}

fn repeat(round: &Round<'_>) -> Result<Outcome, Outcome> {
    Ok(say(&format!("Called with: {}", round.arguments())))
}

/// The keywords that the suite looks for in `tools/list`, at the places where it looks.
fn wide_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })
}

fn header_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "region": { "type": "string", "description": "Where to look", "x-mcp-header": "Region" },
        },
        "required": ["region"],
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::first;
    use super::*;
    use crate::round::tests::{result, said};

    fn content(name: &str) -> Value {
        result(&first("{}", name, &json!({})))["content"].clone()
    }

    #[test]
    fn each_kind_of_content_is_as_the_suite_wants_it() {
        assert_eq!(content("test_simple_text")[0]["text"], "This is a simple text response for testing.");
        assert_eq!(content("test_image_content")[0]["mimeType"], "image/png");
        assert_eq!(content("test_audio_content")[0]["mimeType"], "audio/wav");
        assert_eq!(content("test_embedded_resource")[0]["resource"]["uri"], "test://embedded-resource");
        let kinds: Vec<Value> =
            content("test_multiple_content_types").as_array().expect("a list").iter().map(|one| one["type"].clone()).collect();
        assert_eq!(kinds, ["text", "image", "resource"]);
    }

    #[test]
    fn a_tools_own_failure_is_a_result() {
        let failure = result(&first("{}", "test_error_handling", &json!({})));
        assert_eq!(failure["isError"], true);
        assert_eq!(failure["content"][0]["text"], "This tool intentionally returns an error for testing");
    }

    #[test]
    fn an_argument_in_a_header_is_in_the_body_as_well() {
        let outcome = first("{}", "test_custom_header", &json!({ "region": "Hello" }));
        assert_eq!(said(&outcome), r#"Called with: {"region":"Hello"}"#);
        assert_eq!(header_schema()["properties"]["region"]["x-mcp-header"], "Region");
    }
}
