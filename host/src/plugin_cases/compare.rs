//! What was expected, held against what came.

use serde_json::Value;

/// A place where an answer is not what was expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// Where: `to[1]`.
    pub place: String,
    /// What the case says.
    pub expected: Value,
    /// What came; null where nothing did.
    pub came: Value,
}

/// Returns where an answer differs from what a case expects; fields that it does not name are not looked at.
///
/// Lists must be of one length. Positions of candidates may be written as their names. `{ contains = "…" }` fits a text
/// that has it somewhere.
#[must_use]
pub fn mismatches(expected: &Value, answer: &Value, input: &Value) -> Vec<Mismatch> {
    let mut found = Vec::new();
    let mut answer = answer.clone();
    if expected["to"].as_array().is_some_and(|to| to.iter().any(Value::is_string)) {
        name_positions(&mut answer["to"], &input["candidates"]);
    }
    differ(expected, &answer, "", &mut found);
    found
}

fn name_positions(to: &mut Value, candidates: &Value) {
    for position in to.as_array_mut().into_iter().flatten() {
        let name = position.as_u64().and_then(|at| candidates.get(usize::try_from(at).ok()?)).map(|one| one["agent"].clone());
        *position = name.unwrap_or_else(|| position.clone());
    }
}

fn differ(expected: &Value, came: &Value, place: &str, found: &mut Vec<Mismatch>) {
    match (expected, came) {
        (Value::Object(fields), Value::String(text)) if fields.len() == 1 && fields.contains_key("contains") => {
            if !fields["contains"].as_str().is_some_and(|part| text.contains(part)) {
                found.push(mismatch(place, expected, came));
            }
        }
        (Value::Object(fields), Value::Object(_)) => {
            for (name, wanted) in fields {
                differ(wanted, &came[name], &below(place, name), found);
            }
        }
        (Value::Array(wanted), Value::Array(all)) if wanted.len() == all.len() => {
            for (at, (wanted, one)) in wanted.iter().zip(all).enumerate() {
                differ(wanted, one, &format!("{place}[{at}]"), found);
            }
        }
        _ if expected == came => {}
        _ => found.push(mismatch(place, expected, came)),
    }
}

fn mismatch(place: &str, expected: &Value, came: &Value) -> Mismatch {
    Mismatch { place: place.to_owned(), expected: expected.clone(), came: came.clone() }
}

fn below(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

/// Refuses fields that nobody reads: `known` is what was understood of `written`, with every field there is.
pub(super) fn refuse_unknown(written: &Value, known: &Value) -> Result<(), String> {
    fn unknown(written: &Value, known: &Value, place: &str) -> Option<String> {
        match (written, known) {
            (Value::Object(fields), Value::Object(all)) => fields.iter().find_map(|(name, value)| {
                let place = below(place, name);
                match all.get(name) {
                    Some(known) => unknown(value, known, &place),
                    None => {
                        let names: Vec<&str> = all.keys().map(String::as_str).collect();
                        Some(format!("nothing is called `{place}` here; there are {}", names.join(", ")))
                    }
                }
            }),
            (Value::Array(values), Value::Array(all)) => {
                values.iter().zip(all).enumerate().find_map(|(at, (value, known))| unknown(value, known, &format!("{place}[{at}]")))
            }
            _ => None,
        }
    }
    unknown(written, known, "").map_or(Ok(()), |why| Err(format!("`[input]`: {why}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places(expected: &Value, came: &Value) -> Vec<String> {
        mismatches(expected, came, &json!({"candidates": [{"agent": "ana"}, {"agent": "bob"}]})).into_iter().map(|one| one.place).collect()
    }

    #[test]
    fn only_what_is_expected_is_looked_at() {
        let came = json!({"decision": "ranked", "to": [1, 0], "reason": "least loaded"});
        assert!(places(&json!({"decision": "ranked"}), &came).is_empty());
        assert!(places(&json!({"to": [1, 0]}), &came).is_empty());
        assert!(places(&json!({"to": ["bob", "ana"]}), &came).is_empty());
        assert!(places(&json!({"reason": {"contains": "least"}}), &came).is_empty());
        assert_eq!(places(&json!({"to": ["ana", "bob"]}), &came), ["to[0]", "to[1]"]);
        assert_eq!(places(&json!({"to": [1]}), &came), ["to"]);
        assert_eq!(places(&json!({"decision": "pass", "failure": "trapped"}), &came), ["decision", "failure"]);
        assert_eq!(places(&json!({"reason": {"contains": "most"}}), &came), ["reason"]);
    }

    #[test]
    fn a_name_that_is_a_position_too_is_not_mixed_up() {
        assert_eq!(places(&json!({"to": ["1"]}), &json!({"to": [1]})), ["to[0]"]);
    }
}
