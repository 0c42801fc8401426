//! What a component may ask a client, and what the client must have declared before (MCP, client capabilities; elicitation;
//! sampling with tools).
//!
//! **Invariant:** what passes [`check`] is a list of requests that MCP knows, and the client said it can answer each.

use serde_json::{Map, Value, json};

/// Why a client is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAsked {
    /// It did not declare what that needs: the JSON object of `requiredCapabilities`.
    Undeclared(String),
    /// The component's own mistake, in words for its author.
    Malformed(String),
}

/// Checks requests, by key, against a client's declared capabilities; both are JSON objects.
///
/// # Errors
/// [`NotAsked`].
pub fn check(requests: &str, capabilities: &str) -> Result<(), NotAsked> {
    let requests: Map<String, Value> =
        serde_json::from_str(requests).map_err(|error| NotAsked::Malformed(format!("its requests are no JSON object: {error}")))?;
    let declared = parsed(capabilities);
    let mut required = json!({});
    for (key, request) in &requests {
        let path = needed(request, &declared).map_err(|why| NotAsked::Malformed(format!("its request `{key}` {why}")))?;
        if !has(&declared, path) {
            let mut at = &mut required;
            for name in path {
                at = at.as_object_mut().expect("only objects are put in").entry(*name).or_insert_with(|| json!({}));
            }
        }
    }
    if required == json!({}) { Ok(()) } else { Err(NotAsked::Undeclared(required.to_string())) }
}

/// Returns whether declared capabilities have an object at a path.
#[must_use]
pub fn declares(capabilities: &str, path: &[&str]) -> bool {
    has(&parsed(capabilities), path)
}

/// Returns whether a client can be asked by form: one that declares nothing closer takes forms (elicitation, capabilities).
#[must_use]
pub fn takes_forms(capabilities: &str) -> bool {
    takes_forms_in(&parsed(capabilities))
}

fn takes_forms_in(declared: &Value) -> bool {
    has(declared, &["elicitation", "form"]) || (has(declared, &["elicitation"]) && !has(declared, &["elicitation", "url"]))
}

fn parsed(capabilities: &str) -> Value {
    serde_json::from_str(capabilities).unwrap_or_default()
}

fn has(declared: &Value, path: &[&str]) -> bool {
    path.iter().try_fold(declared, |at, name| at.get(name)).is_some_and(Value::is_object)
}

/// Returns the capability that a request needs of a client with these.
fn needed(request: &Value, declared: &Value) -> Result<&'static [&'static str], String> {
    let params = &request["params"];
    match request["method"].as_str() {
        Some("roots/list") => Ok(&["roots"]),
        Some("sampling/createMessage") if params["tools"].is_null() && params["toolChoice"].is_null() => Ok(&["sampling"]),
        Some("sampling/createMessage") => Ok(&["sampling", "tools"]),
        Some("elicitation/create") => match (&params["mode"], params["mode"].as_str()) {
            (Value::Null, _) | (_, Some("form")) => Ok(form(declared)),
            (_, Some("url")) => Ok(&["elicitation", "url"]),
            (other, _) => Err(format!("has the mode {other}, neither `form` nor `url`")),
        },
        Some(other) => Err(format!("is `{other}`, which clients are not asked")),
        None => Err("has no method".to_owned()),
    }
}

fn form(declared: &Value) -> &'static [&'static str] {
    if takes_forms_in(declared) || !has(declared, &["elicitation"]) { &["elicitation"] } else { &["elicitation", "form"] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, params: Value, capabilities: Value) -> Result<(), NotAsked> {
        check(&json!({"k": {"method": method, "params": params}}).to_string(), &capabilities.to_string())
    }

    #[test]
    fn each_way_of_asking_needs_its_own_capability() {
        let (elicit, sample) = ("elicitation/create", "sampling/createMessage");
        let (form_only, url_only, both) =
            (json!({"elicitation": {}}), json!({"elicitation": {"url": {}}}), json!({"elicitation": {"form": {}, "url": {}}}));
        let needs = |required: Value| Err(NotAsked::Undeclared(required.to_string()));
        for (method, params, capabilities, expected) in [
            (elicit, json!({}), form_only.clone(), Ok(())),
            (elicit, json!({"mode": "form"}), both.clone(), Ok(())),
            (elicit, json!({"mode": "form"}), url_only.clone(), needs(json!({"elicitation": {"form": {}}}))),
            (elicit, json!({}), json!({}), needs(json!({"elicitation": {}}))),
            (elicit, json!({"mode": "url"}), both, Ok(())),
            (elicit, json!({"mode": "url"}), url_only, Ok(())),
            (elicit, json!({"mode": "url"}), form_only, needs(json!({"elicitation": {"url": {}}}))),
            (sample, json!({}), json!({"sampling": {}}), Ok(())),
            (sample, json!({"tools": []}), json!({"sampling": {}}), needs(json!({"sampling": {"tools": {}}}))),
            (sample, json!({"toolChoice": {}}), json!({"sampling": {"tools": {}}}), Ok(())),
            ("roots/list", json!(null), json!({"roots": true}), needs(json!({"roots": {}}))),
        ] {
            assert_eq!(asked(method, params.clone(), capabilities.clone()), expected, "{method} {params} {capabilities}");
        }
        let several = json!({"a": {"method": elicit}, "b": {"method": sample, "params": {"tools": []}}, "c": {"method": sample}});
        assert_eq!(check(&several.to_string(), "{}"), needs(json!({"elicitation": {}, "sampling": {"tools": {}}})));
    }

    #[test]
    fn what_no_client_knows_is_the_components_mistake() {
        let everything = json!({"elicitation": {}, "sampling": {}, "roots": {}});
        for (method, params) in [("tools/call", json!({})), ("elicitation/create", json!({"mode": "telepathy"}))] {
            assert!(matches!(asked(method, params, everything.clone()), Err(NotAsked::Malformed(_))), "{method}");
        }
        for requests in [r#"{"k":{}}"#, r#"{"k":7}"#, "[]"] {
            assert!(matches!(check(requests, "{}"), Err(NotAsked::Malformed(_))), "{requests}");
        }
        assert_eq!(check("{}", "{}"), Ok(()), "nothing is asked");
    }
}
