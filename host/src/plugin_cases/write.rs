//! A case as TOML, as its author would have written it.

use std::fmt::Write;

use serde_json::{Map, Value};

/// Returns a case file: what was asked without the fields that have their default, and what was answered.
///
/// `defaults` is the input of the same call with every field at its default.
#[must_use]
pub fn to_toml(name: &str, comment: &str, call: &str, input: &Value, defaults: &Value, expect: &Value) -> String {
    let mut text = String::new();
    for line in comment.lines() {
        let _ = writeln!(text, "# {line}");
    }
    let _ = writeln!(text, "name = {}\ncall = {}", quoted(name), quoted(call));
    let lean = without_defaults(input, defaults).unwrap_or_else(|| Value::Object(Map::new()));
    for (table, value) in [("input", &lean), ("expect", expect)] {
        let _ = writeln!(text, "\n[{table}]");
        for (key, value) in value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let _ = writeln!(text, "{} = {}", bare(key), inline(value));
        }
    }
    text
}

/// Returns a value without what is as by default; none when nothing is left. Entries of lists have the defaults of their kind,
/// which are not known here, so zeros, empty texts, empty lists and `false` are left out of them.
fn without_defaults(value: &Value, default: &Value) -> Option<Value> {
    match (value, default) {
        (value, default) if value == default => None,
        (Value::Object(fields), Value::Object(known)) => {
            let kept = fields.iter().filter_map(|(name, value)| {
                let default = known.get(name).unwrap_or(&Value::Null);
                without_defaults(value, default).map(|value| (name.clone(), value))
            });
            Some(Value::Object(kept.collect()))
        }
        (Value::Array(entries), _) => Some(Value::Array(entries.iter().map(lean).collect())),
        (value, _) => Some(value.clone()),
    }
}

fn lean(entry: &Value) -> Value {
    let is_plain = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(_) => false,
    };
    match entry {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !is_plain(value)).map(|(name, value)| (name.clone(), lean(value)));
            Value::Object(kept.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => entry.clone(),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(entries) => {
            let entries: Vec<String> = entries.iter().map(inline).collect();
            let one_line = format!("[{}]", entries.join(", "));
            if one_line.len() <= 100 { one_line } else { format!("[\n  {},\n]", entries.join(",\n  ")) }
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| format!("{} = {}", bare(name), inline(value)))
                .collect();
            if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
        }
    }
}

/// A JSON string is a basic string of TOML but for one character, which TOML wants escaped.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string().replace('\u{7f}', "\\u007F")
}

fn bare(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if is_bare { key.to_owned() } else { quoted(key) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::Case;
    use super::*;
    use crate::ports::decision::{NamedCandidate, Question, RouteQuestion};
    use crate::ports::plugins::RouteMessage;

    proptest! {
        /// What is written is read back as the same question, however odd its texts are.
        #[test]
        fn a_written_case_is_read_back(
            kind in any::<String>(),
            paths in prop::collection::vec(any::<String>(), 0..4),
            rows in prop::collection::vec((any::<String>(), any::<bool>(), 0_u32..9, any::<u64>()), 0..6),
        ) {
            let message = RouteMessage { kind, paths, ..RouteMessage::default() };
            let candidates = rows.into_iter().map(|(agent, satisfies, load, idle_ms)| {
                NamedCandidate { agent, satisfies, load, idle_ms: idle_ms >> 12, ..NamedCandidate::default() }
            });
            let question = Question::Route(RouteQuestion { message, candidates: candidates.collect() });
            let defaults = json!(RouteQuestion::default());
            let input = json!(question)["input"].take();
            let text = to_toml("a name", "recorded", "route", &input, &defaults, &json!({"decision": "pass"}));
            let case = Case::parse("x", &text).map_err(|why| TestCaseError::fail(format!("{why}\n{text}")))?;
            prop_assert_eq!(case.call.input(), input, "{}", text);
        }
    }
}
