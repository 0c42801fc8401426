//! The merger `merge-json`: JSON files by structure, laid out as they were.
//!
//! Members that one side alone touched are taken letter by letter; members that both added stand side by side.
//! Lists must be equal or changed by one side only. What is not strict JSON (comments, a key twice) is declined.
//! **Invariant:** no change that one side alone made is lost; a line that reads otherwise than a side wrote it
//! (a comma more, another indentation) is named.

use pointsman_sdk::Plugin;
use pointsman_sdk::glob::Glob;
use pointsman_sdk::json::{self, Node, Rules};
use pointsman_sdk::merger::{Conflict, Description, File, FileOutcome, Merger, Resolution, Scope};
use serde::Deserialize;

/// What the operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path patterns of JSON files.
    pub paths: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { paths: vec!["*.json".to_owned()] }
    }
}

/// The merger.
#[derive(Debug, Clone)]
pub struct MergeJson {
    paths: Vec<String>,
}

impl Plugin for MergeJson {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.paths.is_empty() {
            return Err("`paths` is empty: say which files are JSON".to_owned());
        }
        Glob::all(&config.paths)?;
        Ok(Self { paths: config.paths })
    }
}

impl Merger for MergeJson {
    fn describe(&self) -> Description {
        Description { scope: Scope::File, paths: self.paths.clone() }
    }

    fn merge_file(&self, file: &File<'_>) -> FileOutcome {
        merge(file.base, file.ours, file.theirs).unwrap_or_else(FileOutcome::Declined)
    }
}

/// Merges three texts, or says why they are not for this merger.
///
/// # Errors
/// Why one of them is no JSON.
pub fn merge(base: Option<&[u8]>, ours: &[u8], theirs: &[u8]) -> Result<FileOutcome, String> {
    let base_text = base.map(|base| text("the base", base)).transpose()?;
    let (our_text, their_text) = (text("our side", ours)?, text("their side", theirs)?);
    let base_node = base_text.map(|text| node("the base", text)).transpose()?;
    let (our_node, their_node) = (node("our side", our_text)?, node("their side", their_text)?);
    Ok(match json::merge(base_node.as_ref(), &our_node, &their_node, &Rules::default()) {
        Ok(merged) => {
            let (before, after) = around(our_text);
            let bytes = format!("{before}{merged}{after}").into_bytes();
            let reason = "the member stands in the result with another comma or layout";
            FileOutcome::Resolved(Resolution::reworded(bytes, base.unwrap_or_default(), ours, theirs, reason))
        }
        Err(conflicts) => {
            let base_text = base_text.unwrap_or_default();
            FileOutcome::Conflicts(conflicts.iter().map(|one| place(one, base_text)).collect())
        }
    })
}

fn text<'a>(whose: &str, bytes: &'a [u8]) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|_| format!("{whose} is not UTF-8"))
}

fn node<'a>(whose: &str, text: &'a str) -> Result<Node<'a>, String> {
    Node::parse(text).map_err(|error| format!("{whose} is not JSON: {error}"))
}

/// Returns the white space around a document.
fn around(text: &str) -> (&str, &str) {
    let start = text.len() - text.trim_start().len();
    (&text[..start], &text[text.trim_end().len().max(start)..])
}

/// Returns a conflict with the lines of the base it covers.
fn place(conflict: &json::Conflict, base: &str) -> Conflict {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    // Conflicts carry the very slice's text, not its place: the first time it stands in the base is close enough
    // for a person, and nothing depends on it.
    let range = conflict.base.as_deref().and_then(|text| base.find(text).map(|start| (start, start + text.len())));
    let line_of = |offset: usize| base[..offset].matches('\n').count();
    let (first, count) = range.map_or((0, 0), |(start, end)| (line_of(start), line_of(end) - line_of(start) + 1));
    let pointer = if conflict.pointer.is_empty() { "the whole document" } else { conflict.pointer.as_str() };
    Conflict { base_line: number(first), base_lines: number(count), reason: format!("{pointer}: {}", conflict.reason) }
}

pointsman_sdk::export_merger!(MergeJson);

#[cfg(test)]
mod tests {
    use pointsman_sdk::merger::Side;
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = "{\n  \"name\": \"x\",\n  \"version\": \"1.0.0\",\n  \"scripts\": {\n    \"test\": \"t\"\n  }\n}\n";

    fn resolved(base: &str, ours: &str, theirs: &str) -> Resolution {
        match merge(Some(base.as_bytes()), ours.as_bytes(), theirs.as_bytes()) {
            Ok(FileOutcome::Resolved(resolution)) => resolution,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_sides_members_stand_and_moved_commas_are_named() {
        let ours = BASE.replace("\"test\": \"t\"", "\"test\": \"t\",\n    \"lint\": \"l\"");
        let theirs = BASE.replace("\"test\": \"t\"", "\"test\": \"t\",\n    \"build\": \"b\"");
        let result = resolved(BASE, &ours, &theirs);
        let expected = BASE.replace("\"test\": \"t\"", "\"test\": \"t\",\n    \"lint\": \"l\",\n    \"build\": \"b\"");
        assert_eq!(String::from_utf8(result.bytes).expect("text"), expected);
        assert_eq!(result.discards.len(), 1);
        assert_eq!((result.discards[0].side, result.discards[0].text.as_slice()), (Side::Ours, &b"    \"lint\": \"l\"\n"[..]));
    }

    #[test]
    fn conflicts_name_the_pointer_and_the_line() {
        let ours = BASE.replace("1.0.0", "1.1.0");
        let theirs = BASE.replace("1.0.0", "2.0.0");
        let found = merge(Some(BASE.as_bytes()), ours.as_bytes(), theirs.as_bytes()).expect("JSON");
        let reason = "/version: both sides changed this, differently".to_owned();
        assert_eq!(found, FileOutcome::Conflicts(vec![Conflict { base_line: 2, base_lines: 1, reason }]));
    }

    #[test]
    fn what_is_not_json_is_declined() {
        let found = merge(Some(b"{}"), b"{ // no\n}", b"{}");
        assert_eq!(found, Err("our side is not JSON: line 1: expected `\"`".to_owned()));
        assert_eq!(merge(None, b"\xff", b"{}"), Err("our side is not UTF-8".to_owned()));
    }

    #[test]
    fn files_that_both_added_are_joined() {
        let found = merge(None, b"{\n\t\"a\": 1\n}\n", b"{\n\t\"b\": 2\n}\n").expect("JSON");
        assert!(matches!(found, FileOutcome::Resolved(one) if one.bytes == b"{\n\t\"a\": 1,\n\t\"b\": 2\n}\n"));
    }

    fn object() -> impl Strategy<Value = String> {
        prop::collection::btree_map("[a-e]", 0..4_u8, 0..5).prop_map(|map| {
            let members: Vec<_> = map.iter().map(|(key, value)| format!("  \"{key}\": {value}")).collect();
            if members.is_empty() { "{}\n".to_owned() } else { format!("{{\n{}\n}}\n", members.join(",\n")) }
        })
    }

    proptest! {
        #[test]
        fn a_clean_merge_accounts_for_every_line(base in object(), ours in object(), theirs in object()) {
            let outcome = merge(Some(base.as_bytes()), ours.as_bytes(), theirs.as_bytes()).expect("JSON");
            if let FileOutcome::Resolved(result) = outcome {
                let named: Vec<u8> = result.discards.iter().flat_map(|one| one.text.clone()).collect();
                for side in [&ours, &theirs] {
                    let absent = pointsman_sdk::lines::added_but_absent(base.as_bytes(), side.as_bytes(), &result.bytes);
                    prop_assert!(pointsman_sdk::lines::added_but_absent(b"", &absent, &named).is_empty());
                }
            }
        }
    }
}
