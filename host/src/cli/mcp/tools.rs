//! What the bridge knows of the host's tools: which arguments are mirrored into headers, which calls may be repeated.
//!
//! Learnt from every `tools/list` that passes by, and asked for when the host says that headers are missing. **Invariant:** knowing
//! too little costs a round trip, never a wrong call: the host checks the headers, and a call that is not known to be harmless is not
//! repeated.

use std::collections::HashMap;

use parking_lot::Mutex;
use pointsman_client::header_value;
use serde_json::Value;

/// Tools that are remembered.
const TOOLS_MAX: usize = 10_000;
/// The host's own wait for messages: what was handed out and not acked is handed out again, and acks count once.
const WAIT: &str = "wait_for_events";

/// An argument that is mirrored: its header, and the path to it.
type Mirrored = (String, Vec<String>);

#[derive(Debug, Default, Clone)]
struct Tool {
    mirrored: Vec<Mirrored>,
    is_harmless: bool,
}

/// The tools that were seen.
#[derive(Debug, Default)]
pub(super) struct Tools {
    known: Mutex<HashMap<String, Tool>>,
}

impl Tools {
    /// Takes a result of `tools/list`.
    pub(super) fn learn(&self, result: &Value) {
        let mut known = self.known.lock();
        for tool in result["tools"].as_array().into_iter().flatten() {
            let Some(name) = tool["name"].as_str() else { continue };
            if known.len() >= TOOLS_MAX && !known.contains_key(name) {
                return;
            }
            let mut mirrored = Vec::new();
            find(&tool["inputSchema"], &mut Vec::new(), &mut mirrored);
            let hint = |name: &str| tool["annotations"][name].as_bool().unwrap_or(false);
            let is_harmless = hint("readOnlyHint") || hint("idempotentHint");
            known.insert(name.to_owned(), Tool { mirrored, is_harmless });
        }
    }

    /// Returns whether a tool mirrors arguments, as far as is known.
    pub(super) fn mirrors(&self, name: &str) -> bool {
        self.known.lock().get(name).is_some_and(|tool| !tool.mirrored.is_empty())
    }

    /// Returns the headers that mirror a call's arguments (streamable HTTP, custom headers from tool parameters).
    pub(super) fn headers(&self, name: &str, arguments: &Value) -> Vec<(String, String)> {
        let known = self.known.lock();
        let mirrored = known.get(name).map_or(&[][..], |tool| &tool.mirrored);
        let said = mirrored.iter().filter_map(|(header, path)| {
            let value = path.iter().try_fold(arguments, |at, name| at.get(name))?;
            Some((header.clone(), header_value(&shown(value)?)))
        });
        said.collect()
    }

    /// Returns whether a call may be repeated when nobody knows whether it acted.
    pub(super) fn may_repeat(&self, name: &str, arguments: &Value) -> bool {
        name == WAIT || arguments["idempotency_key"].is_string() || self.known.lock().get(name).is_some_and(|tool| tool.is_harmless)
    }
}

/// Returns a value as a header says it; none for what is not mirrored.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Finds the annotated properties, along chains of `properties` only.
fn find(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirrored>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        if let Some(header) = property["x-mcp-header"].as_str().filter(|text| is_token(text)) {
            found.push((format!("mcp-param-{}", header.to_ascii_lowercase()), path.clone()));
        }
        find(property, path, found);
        path.pop();
    }
}

/// Returns whether a text can be part of a field's name (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn learnt() -> Tools {
        let tools = Tools::default();
        tools.learn(&json!({"tools": [
            {"name": "query", "inputSchema": {"type": "object", "properties": {
                "where": {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
                "limit": {"type": "integer", "x-mcp-header": "Limit"},
                "dry": {"type": "boolean", "x-mcp-header": "Dry"},
                "bad": {"type": "string", "x-mcp-header": "a b"},
                "many": {"type": "array", "items": {"properties": {"x": {"type": "string", "x-mcp-header": "X"}}}}}}},
            {"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}},
            {"nameless": true}]}));
        tools
    }

    #[test]
    fn annotated_arguments_become_headers() {
        let tools = learnt();
        let mut headers = tools.headers("query", &json!({"where": {"region": "Hello, 世界"}, "limit": 42, "dry": false, "bad": "x"}));
        headers.sort();
        let pairs: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let region = "=?base64?SGVsbG8sIOS4lueVjA==?=";
        assert_eq!(pairs, [("mcp-param-dry", "false"), ("mcp-param-limit", "42"), ("mcp-param-region", region)]);
        assert!(tools.headers("query", &json!({"where": null, "limit": null})).is_empty());
        assert!(tools.headers("unknown", &json!({"a": 1})).is_empty());
        assert!(tools.mirrors("query") && !tools.mirrors("look"));
    }

    #[test]
    fn only_what_is_harmless_is_repeated() {
        let tools = learnt();
        assert!(tools.may_repeat("look", &Value::Null) && tools.may_repeat("wait_for_events", &json!({"max_s": 5})));
        assert!(tools.may_repeat("query", &json!({"idempotency_key": "k"})));
        assert!(!tools.may_repeat("query", &json!({})) && !tools.may_repeat("unknown", &Value::Null));
    }
}
