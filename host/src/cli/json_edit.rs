//! Puts an entry into a JSON file that belongs to someone else: everything else stays as it was written, byte by byte.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

/// Why a file is left alone.
#[derive(Debug, Error)]
pub(super) enum JsonEditError {
    /// It is not JSON.
    #[error("line {line}, column {column}: not JSON ({problem})")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser met.
        problem: String,
    },
    /// It is JSON of another shape.
    #[error("{what} is not {wanted}")]
    OtherShape {
        /// What.
        what: String,
        /// `an object`, `a list`.
        wanted: &'static str,
    },
}

/// The entries of an object in their order, as they are written.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Returns `text` with `entry` under `outer.name`, replacing what stood there.
///
/// # Errors
/// [`JsonEditError`] when the text is not an object, or `outer` is there and is none.
pub(super) fn put<T: Serialize>(text: &str, outer: &str, name: &str, entry: &T) -> Result<String, JsonEditError> {
    let unit = indentation(text);
    if text.trim().is_empty() {
        return Ok(format!("{{\n{}\n}}\n", nested(outer, name, entry, unit)));
    }
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let top = entries(whole, "the file")?;
    let Some((_, servers)) = top.iter().find(|(key, _)| key == outer) else {
        return Ok(insert(text, whole, &top, 0, unit, &nested(outer, name, entry, unit)));
    };
    let inner = entries(servers, &format!("`{outer}`"))?;
    match inner.iter().find(|(key, _)| key == name) {
        Some((_, old)) => {
            let (start, end) = span(text, old);
            Ok(format!("{}{}{}", &text[..start], pretty(entry, unit, 2), &text[end..]))
        }
        None => {
            let line = format!("{}{}: {}", unit.repeat(2), quoted(name), pretty(entry, unit, 2));
            Ok(insert(text, servers, &inner, 1, unit, &line))
        }
    }
}

/// Returns `text` with `entry` in the list `outer.name`, in the place of the first one that is `ours`, else at the end; other ones of
/// ours are taken away.
///
/// # Errors
/// [`JsonEditError`] when the text is not an object, or `outer` is there and is none, or `outer.name` is there and is no list.
pub(super) fn put_in_list<T: Serialize>(
    text: &str,
    outer: &str,
    name: &str,
    entry: &T,
    ours: impl Fn(&serde_json::Value) -> bool,
) -> Result<String, JsonEditError> {
    let (unit, new) = (indentation(text), [entry]);
    if text.trim().is_empty() {
        return put(text, outer, name, &new);
    }
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let top = entries(whole, "the file")?;
    let Some((_, inside)) = top.iter().find(|(key, _)| key == outer) else { return put(text, outer, name, &new) };
    let inner = entries(inside, &format!("`{outer}`"))?;
    let Some((_, list)) = inner.iter().find(|(key, _)| key == name) else { return put(text, outer, name, &new) };
    let all: Vec<&RawValue> =
        serde_json::from_str(list.get()).map_err(|_| JsonEditError::OtherShape { what: format!("`{outer}.{name}`"), wanted: "a list" })?;
    let is_ours = |one: &RawValue| serde_json::from_str(one.get()).is_ok_and(|one| ours(&one));
    let shown = pretty(entry, unit, 3);
    let mut written = shown.as_str();
    let mut kept: Vec<&str> = Vec::new();
    for one in all {
        if !is_ours(one) {
            kept.push(one.get());
        } else if !written.is_empty() {
            kept.push(std::mem::take(&mut written));
        }
    }
    if !written.is_empty() {
        kept.push(written);
    }
    let (start, end) = span(text, list);
    let between = format!(",\n{}", unit.repeat(3));
    let list = format!("[\n{}{}\n{}]", unit.repeat(3), kept.join(&between), unit.repeat(2));
    Ok(format!("{}{list}{}", &text[..start], &text[end..]))
}

/// Returns `text` with `value` under a name at its top, unless something stands there.
///
/// # Errors
/// [`JsonEditError`] when the text is not an object.
pub(super) fn put_if_absent<T: Serialize>(text: &str, name: &str, value: &T) -> Result<String, JsonEditError> {
    let unit = indentation(text);
    let line = format!("{unit}{}: {}", quoted(name), pretty(value, unit, 1));
    if text.trim().is_empty() {
        return Ok(format!("{{\n{line}\n}}\n"));
    }
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let top = entries(whole, "the file")?;
    if top.iter().any(|(key, _)| key == name) {
        return Ok(text.to_owned());
    }
    Ok(insert(text, whole, &top, 0, unit, &line))
}

fn entries<'a>(raw: &'a RawValue, what: &str) -> Result<Vec<(String, &'a RawValue)>, JsonEditError> {
    if !raw.get().starts_with('{') {
        return Err(JsonEditError::OtherShape { what: what.to_owned(), wanted: "an object" });
    }
    serde_json::from_str::<Entries<'a>>(raw.get()).map(|entries| entries.0).map_err(|error| not_json(&error))
}

fn not_json(error: &serde_json::Error) -> JsonEditError {
    let problem = error.to_string();
    let problem = problem.split(" at line ").next().unwrap_or(&problem).to_owned();
    JsonEditError::NotJson { line: error.line(), column: error.column(), problem }
}

/// Returns where a value stands in the text it was read from.
fn span(text: &str, raw: &RawValue) -> (usize, usize) {
    // A `RawValue` borrowed from a text is a slice of it.
    let start = raw.get().as_ptr().addr() - text.as_ptr().addr();
    (start, start + raw.get().len())
}

/// Returns the text with a line after the last entry of an object that stands at this depth.
fn insert(text: &str, object: &RawValue, entries: &[(String, &RawValue)], depth: usize, unit: &str, line: &str) -> String {
    match entries.last() {
        Some((_, last)) => {
            let (_, end) = span(text, last);
            format!("{},\n{line}{}", &text[..end], &text[end..])
        }
        None => {
            let (start, end) = span(text, object);
            format!("{}{{\n{line}\n{}}}{}", &text[..start], unit.repeat(depth), &text[end..])
        }
    }
}

fn nested<T: Serialize>(outer: &str, name: &str, entry: &T, unit: &str) -> String {
    let (outer, name) = (quoted(outer), quoted(name));
    format!("{unit}{outer}: {{\n{}{name}: {}\n{unit}}}", unit.repeat(2), pretty(entry, unit, 2))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns a value as indented JSON, all lines but the first moved in by `depth` units.
pub(super) fn pretty<T: Serialize>(value: &T, unit: &str, depth: usize) -> String {
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(unit.as_bytes());
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, format)).expect("entries are plain texts and maps");
    let text = String::from_utf8(bytes).expect("JSON is UTF-8");
    text.replace('\n', &format!("\n{}", unit.repeat(depth)))
}

/// Returns what the text indents its first indented line by, else two spaces.
fn indentation(text: &str) -> &str {
    let indented = text.lines().find_map(|line| {
        let width = line.len() - line.trim_start_matches([' ', '\t']).len();
        (width > 0 && width < line.len()).then(|| &line[..width])
    });
    indented.unwrap_or("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn put_url(text: &str) -> Result<String, JsonEditError> {
        put(text, "mcpServers", "pointsman", &json!({"url": "u"}))
    }

    #[test]
    fn a_new_file_is_whole() {
        insta::assert_snapshot!(put_url("").expect("written"), @r#"
        {
          "mcpServers": {
            "pointsman": {
              "url": "u"
            }
          }
        }
        "#);
    }

    #[test]
    fn the_rest_stays_as_it_was_written() {
        let text =
            "{\n    \"z\": [1,2,  3],\n    \"mcpServers\": {\n        \"other\": {\"command\":  \"x\"}\n    },\n    \"a\": 1e400\n}\n";
        let once = put_url(text).expect("written");
        insta::assert_snapshot!(once, @r#"
        {
            "z": [1,2,  3],
            "mcpServers": {
                "other": {"command":  "x"},
                "pointsman": {
                    "url": "u"
                }
            },
            "a": 1e400
        }
        "#);
        assert_eq!(put_url(&once).expect("written"), once, "a second time changes nothing");
    }

    #[test]
    fn empty_objects_and_old_entries_are_filled() {
        for text in ["{}", " { }\n", "{\"mcpServers\":{}}", "{\"mcpServers\":{\"pointsman\":{\"url\":\"old\",\"x\":[{}]}},\"k\":1}"] {
            let edited = put_url(text).expect("written");
            let value: Value = serde_json::from_str(&edited).expect("still JSON");
            assert_eq!(value["mcpServers"]["pointsman"], json!({"url": "u"}), "{edited}");
        }
    }

    #[test]
    fn what_is_not_ours_to_repair_is_left_alone() {
        insta::assert_snapshot!(put_url("{\n  // mine\n  \"a\": 1\n}").expect_err("a comment"), @"line 2, column 3: not JSON (key must be a string)");
        insta::assert_snapshot!(put_url("{\"mcpServers\": []}").expect_err("a list"), @"`mcpServers` is not an object");
        insta::assert_snapshot!(put_url("[]").expect_err("a list"), @"the file is not an object");
    }

    fn hook(text: &str, command: &str) -> Result<String, JsonEditError> {
        put_in_list(text, "hooks", "Stop", &json!({"command": command}), |one| {
            one["command"].as_str().is_some_and(|c| c.starts_with("ours"))
        })
    }

    #[test]
    fn a_list_keeps_what_others_put_there() {
        insta::assert_snapshot!(hook("", "ours").expect("written"), @r#"
        {
          "hooks": {
            "Stop": [
              {
                "command": "ours"
              }
            ]
          }
        }
        "#);
        let others =
            "{\n  \"a\": 1,\n  \"hooks\": {\n    \"Stop\": [{\"command\":  \"theirs\"}, {\n      \"command\": \"other\"\n    }]\n  }\n}\n";
        let once = hook(others, "ours 1").expect("written");
        assert!(once.contains("{\"command\":  \"theirs\"}") && once.contains("\"a\": 1"), "{once}");
        assert_eq!(hook(&once, "ours 1").expect("written"), once, "a second time changes nothing");
        let value: Value = serde_json::from_str(&hook(&once, "ours 2").expect("written")).expect("JSON");
        assert_eq!(value["hooks"]["Stop"], json!([{"command": "theirs"}, {"command": "other"}, {"command": "ours 2"}]));
        let twice = "{\"hooks\": {\"Stop\": [{\"command\": \"ours\"}, {\"command\": \"x\"}, {\"command\": \"ours\"}]}}";
        let value: Value = serde_json::from_str(&hook(twice, "ours").expect("written")).expect("JSON");
        assert_eq!(value["hooks"]["Stop"], json!([{"command": "ours"}, {"command": "x"}]));
        assert!(hook("{\"hooks\": {\"Stop\": {}}}", "ours").is_err());
        assert!(hook("{\"hooks\": []}", "ours").is_err());
    }

    #[test]
    fn what_stands_at_the_top_is_left() {
        assert_eq!(put_if_absent("{\"version\": 7}", "version", &1).expect("left"), "{\"version\": 7}");
        let put: Value = serde_json::from_str(&put_if_absent("{\"a\": []}", "version", &1).expect("put")).expect("JSON");
        assert_eq!(put, json!({"a": [], "version": 1}));
        assert_eq!(put_if_absent("", "version", &1).expect("put"), "{\n  \"version\": 1\n}\n");
    }

    proptest! {
        #[test]
        fn only_the_entry_changes(keys in prop::collection::btree_map("[a-z ]{0,6}", 0i32..9, 0..5), inside: bool, compact: bool) {
            let map: serde_json::Map<String, Value> = keys.into_iter().map(|(key, n)| (key, json!({"n": [n, {}]}))).collect();
            let before = if inside { json!({"mcpServers": map, "k": null}) } else { Value::Object(map) };
            let text = if compact { before.to_string() } else { format!("{before:#}") };
            let after: Value = serde_json::from_str(&put_url(&text).expect("edited")).expect("JSON");
            let mut expected = before;
            expected["mcpServers"]["pointsman"] = json!({"url": "u"});
            prop_assert_eq!(after, expected);
        }
    }
}
