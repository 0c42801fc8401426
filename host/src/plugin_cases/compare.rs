//! What was expected, held against what came.

use std::collections::BTreeSet;

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
/// Lists must be of one length. Positions may be written as the names of what stands there, and are told so. `{ contains = "…" }`
/// fits a text that has it somewhere.
#[must_use]
pub fn mismatches(expected: &Value, answer: &Value, input: &Value) -> Vec<Mismatch> {
    let mut found = Vec::new();
    let (mut expected, mut answer) = (expected.clone(), answer.clone());
    for (field, list, name) in POSITIONS {
        let names = Names::of(&input[list], name);
        let is_named = expected[field].as_array().is_some_and(|all| all.iter().any(Value::is_string));
        if is_named || names.tell_apart() {
            names.put(&mut expected, field);
            names.put(&mut answer, field);
        }
    }
    differ(&expected, &answer, "", &mut found);
    found
}

/// Returns an answer with names in place of positions, as far as they tell what is meant.
#[must_use]
pub fn with_names(answer: &Value, input: &Value) -> Value {
    let mut answer = answer.clone();
    for (field, list, name) in POSITIONS {
        let names = Names::of(&input[list], name);
        if names.tell_apart() {
            names.put(&mut answer, field);
        }
    }
    answer
}

/// Fields of answers that are positions: of what list of the input, and what names an entry of it.
const POSITIONS: [(&str, &str, &str); 2] = [("to", "candidates", "agent"), ("order", "queue", "task")];
/// What names an object in a list of an answer, the first that it has.
const LABELS: [&str; 2] = ["action", "pointer"];

/// The names of a list's entries.
struct Names<'a>(Vec<&'a Value>);

impl<'a> Names<'a> {
    fn of(list: &'a Value, name: &str) -> Self {
        Self(list.as_array().into_iter().flatten().map(|entry| &entry[name]).collect())
    }

    /// Returns whether each entry has a name of its own.
    fn tell_apart(&self) -> bool {
        let names: BTreeSet<&str> = self.0.iter().filter_map(|name| name.as_str()).filter(|name| !name.is_empty()).collect();
        names.len() == self.0.len()
    }

    /// Puts names in place of the positions in a field, where it has such.
    fn put(&self, object: &mut Value, field: &str) {
        let positions = object.get_mut(field).and_then(Value::as_array_mut);
        for position in positions.into_iter().flatten() {
            let name = position.as_u64().and_then(|at| self.0.get(usize::try_from(at).ok()?)).map(|name| Value::clone(name));
            *position = name.unwrap_or_else(|| position.take());
        }
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
                differ(wanted, one, &format!("{place}[{at}]{}", label(wanted, one)), found);
            }
        }
        _ if expected == came => {}
        _ => found.push(mismatch(place, expected, came)),
    }
}

/// Returns what names an object in a list, in parentheses; nothing where it has no name, or is to have another.
fn label(wanted: &Value, came: &Value) -> String {
    let named =
        LABELS.iter().find_map(|field| came.get(field)?.as_str().filter(|name| wanted.get(field).is_none_or(|other| other == name)));
    named.map(|name| format!("({name})")).unwrap_or_default()
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
    fn positions_and_entries_are_told_by_name() {
        let input = json!({"candidates": [{"agent": "ana"}, {"agent": "bob"}], "queue": [{"task": "T-1"}, {"task": "T-2"}]});
        let found = mismatches(&json!({"to": [1, 0]}), &json!({"to": [0, 1]}), &input);
        let told: Vec<_> = found.iter().map(|one| (one.place.as_str(), one.expected.clone(), one.came.clone())).collect();
        assert_eq!(told, [("to[0]", json!("bob"), json!("ana")), ("to[1]", json!("ana"), json!("bob"))]);
        assert!(mismatches(&json!({"order": ["T-2", "T-1"]}), &json!({"order": [1, 0]}), &input).is_empty());
        assert_eq!(with_names(&json!({"order": [1, 0], "to": [7]}), &input), json!({"order": ["T-2", "T-1"], "to": [7]}));
        let nameless = json!({"candidates": [{"agent": ""}, {"agent": ""}]});
        assert_eq!(mismatches(&json!({"to": [1]}), &json!({"to": [0]}), &nameless)[0].came, 0, "names that tell nothing apart are none");
        let came = json!({"actions": [{"action": "put", "key": "k"}, {"action": "set-timer", "delay_ms": 5}]});
        let wanted = json!({"actions": [{"action": "put"}, {"action": "set-timer", "delay_ms": 7}]});
        assert_eq!(places(&wanted, &came), ["actions[1](set-timer).delay_ms"]);
        assert_eq!(places(&json!({"actions": [{"action": "delete"}, {}]}), &came), ["actions[0].action"]);
    }

    #[test]
    fn a_name_that_is_a_position_too_is_not_mixed_up() {
        assert_eq!(places(&json!({"to": ["1"]}), &json!({"to": [1]})), ["to[0]"]);
    }
}
