//! The reconciler `context-json`: two edits of one JSON document, by structure.
//!
//! Objects merge by key. A list that both sides changed is a conflict, unless its place has a rule: `set` (items
//! stand once, order means nothing) or `{by = "id"}` (items are objects, told apart by a member).
//! **Invariants:** no change that one side alone made is lost; equal sides give that side back, letter by letter.

use std::collections::BTreeMap;

use pointsman_sdk::Plugin;
use pointsman_sdk::json::{self, ArrayRule, Node, Rules};
use pointsman_sdk::reconciler::{Conflict, Edits, Outcome, Reconciler};
use serde::Deserialize;

/// What the operator can set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The rule for lists that no pattern names.
    pub default: ArrayRule,
    /// JSON pointers, in which `*` stands for any key or index, and the rule of the list there. Where several fit,
    /// the one without a `*` holds, else the first in the order of their texts.
    pub arrays: BTreeMap<String, ArrayRule>,
}

/// The reconciler.
#[derive(Debug, Clone)]
pub struct ContextJson {
    rules: Rules,
}

impl Plugin for ContextJson {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if let Some(wrong) = config.arrays.keys().find(|pattern| !pattern.is_empty() && !pattern.starts_with('/')) {
            return Err(format!("{wrong:?} is no JSON pointer: it must begin with `/`"));
        }
        let mut at: Vec<_> = config.arrays.into_iter().collect();
        at.sort_by_key(|(pattern, _)| pattern.split('/').any(|part| part == "*"));
        Ok(Self { rules: Rules { default: config.default, at } })
    }
}

impl Reconciler for ContextJson {
    fn reconcile(&self, edits: &Edits<'_>) -> Outcome {
        if !is_json(edits.media_type) {
            return Outcome::Declined(format!("{} is not JSON", edits.media_type));
        }
        self.merge(edits).unwrap_or_else(Outcome::Declined)
    }
}

impl ContextJson {
    fn merge(&self, edits: &Edits<'_>) -> Result<Outcome, String> {
        let read = |whose: &str, bytes: &'_ [u8]| -> Result<(), String> { text(whose, bytes).and_then(|text| node(whose, text)).map(drop) };
        // A side is given back as it is, but only when it is JSON.
        for (same, side) in
            [(edits.ours == edits.theirs || edits.base == edits.theirs, edits.ours), (edits.base == edits.ours, edits.theirs)]
        {
            if same {
                read("the document", side)?;
                return Ok(Outcome::Merged(side.to_vec()));
            }
        }
        let base = text("the common version", edits.base)?;
        let base = if base.trim().is_empty() { None } else { Some(node("the common version", base)?) };
        let ours_text = text("the stored version", edits.ours)?;
        let ours = node("the stored version", ours_text)?;
        let theirs = node("the writer's version", text("the writer's version", edits.theirs)?)?;
        Ok(match json::merge(base.as_ref(), &ours, &theirs, &self.rules) {
            Ok(merged) => {
                let end = &ours_text[ours_text.trim_end().len()..];
                Outcome::Merged(format!("{merged}{end}").into_bytes())
            }
            Err(conflicts) => Outcome::Conflicts(conflicts.into_iter().map(conflict).collect()),
        })
    }
}

/// Returns whether a media type is JSON (RFC 6839 for `+json`), whatever its parameters.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

fn text<'a>(whose: &str, bytes: &'a [u8]) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|_| format!("{whose} is not UTF-8"))
}

fn node<'a>(whose: &str, text: &'a str) -> Result<Node<'a>, String> {
    Node::parse(text).map_err(|error| format!("{whose} is not JSON: {error}"))
}

fn conflict(one: json::Conflict) -> Conflict {
    let bytes = |text: Option<String>| text.map(String::into_bytes);
    Conflict {
        pointer: one.pointer,
        reason: one.reason.to_owned(),
        base: bytes(one.base),
        ours: bytes(one.ours),
        theirs: bytes(one.theirs),
    }
}

pointsman_sdk::export_reconciler!(ContextJson);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reconcile(config: &str, base: &str, ours: &str, theirs: &str) -> Outcome {
        let edits = Edits { media_type: "application/json", base: base.as_bytes(), ours: ours.as_bytes(), theirs: theirs.as_bytes() };
        ContextJson::from_json(config).expect("fits").reconcile(&edits)
    }

    fn merged(text: &str) -> Outcome {
        Outcome::Merged(text.as_bytes().to_vec())
    }

    #[test]
    fn both_edits_stand() {
        assert_eq!(reconcile("", "{\"a\": 1}\n", "{\"a\": 1, \"b\": 2}\n", "{\"a\": 3}"), merged("{\"a\": 3, \"b\": 2}\n"));
        assert_eq!(reconcile("", "", "{\"a\": 1}", "{\"b\": 2}"), merged("{\"a\": 1, \"b\": 2}"));
        assert_eq!(reconcile("", "[1]", "[1]", " [2] "), merged(" [2] "));
    }

    #[test]
    fn disagreements_are_typed() {
        let found = reconcile("", "{\"a\":{\"b\":1}}", "{\"a\":{\"b\":2}}", "{\"a\":{}}");
        let expected = Conflict {
            pointer: "/a/b".to_owned(),
            reason: "one side removed what the other changed".to_owned(),
            base: Some(b"1".to_vec()),
            ours: Some(b"2".to_vec()),
            theirs: None,
        };
        assert_eq!(found, Outcome::Conflicts(vec![expected]));
    }

    #[test]
    fn rules_say_how_lists_merge() {
        let config = r#"{"arrays":{"/*":"set","/steps":{"by":"id"}}}"#;
        assert_eq!(reconcile(config, "{\"t\":[1]}", "{\"t\":[1,2]}", "{\"t\":[3]}"), merged("{\"t\":[2,3]}"));
        let ours = "{\"steps\":[{\"id\":1,\"done\":true}]}";
        let theirs = "{\"steps\":[{\"id\":1},{\"id\":2}]}";
        assert_eq!(
            reconcile(config, "{\"steps\":[{\"id\":1}]}", ours, theirs),
            merged("{\"steps\":[{\"id\":1,\"done\":true},{\"id\":2}]}")
        );
        assert!(matches!(reconcile("", "{\"t\":[1]}", "{\"t\":[1,2]}", "{\"t\":[3]}"), Outcome::Conflicts(_)));
        assert_eq!(reconcile(r#"{"default":"set"}"#, "[1]", "[1,2]", "[1,3]"), merged("[1,2,3]"));
        for wrong in [r#"{"arrays":{"x":"set"}}"#, r#"{"arrays":{"/x":"bag"}}"#, r#"{"lists":{}}"#] {
            assert!(ContextJson::from_json(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_json_is_declined() {
        assert!(matches!(reconcile("", "{}", "{", "{}"), Outcome::Declined(_)));
        assert!(matches!(reconcile("", "{}", "{}", "nope"), Outcome::Declined(_)));
        let edits = Edits { media_type: "text/plain", base: b"", ours: b"1", theirs: b"1" };
        assert!(matches!(ContextJson::from_json("").expect("fits").reconcile(&edits), Outcome::Declined(_)));
        assert!(is_json("application/vnd.x+json; charset=utf-8") && is_json("Application/JSON"));
    }

    fn document() -> impl Strategy<Value = BTreeMap<String, u8>> {
        prop::collection::btree_map("[a-f]", 0..4_u8, 0..6)
    }

    fn written(document: &BTreeMap<String, u8>) -> String {
        let members: Vec<_> = document.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        format!("{{{}}}", members.join(", "))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn agrees_with_a_merge_of_maps(base in document(), ours in document(), theirs in document()) {
            let keys: std::collections::BTreeSet<_> = base.keys().chain(ours.keys()).chain(theirs.keys()).collect();
            let mut expected = BTreeMap::new();
            let mut clash = Vec::new();
            for key in keys {
                let (b, o, t) = (base.get(key), ours.get(key), theirs.get(key));
                let value = if o == t || b == t { o } else if b == o { t } else { clash.push(format!("/{key}")); None };
                expected.extend(value.map(|value| (key.clone(), *value)));
            }
            match reconcile("", &written(&base), &written(&ours), &written(&theirs)) {
                Outcome::Merged(bytes) => {
                    let text = String::from_utf8(bytes).expect("text");
                    prop_assert!(clash.is_empty());
                    let (result, expected) = (Node::parse(&text).expect("JSON").canonical(), written(&expected));
                    prop_assert_eq!(result, Node::parse(&expected).expect("JSON").canonical());
                }
                Outcome::Conflicts(found) => {
                    let mut pointers: Vec<_> = found.into_iter().map(|one| one.pointer).collect();
                    pointers.sort();
                    prop_assert_eq!(pointers, clash);
                }
                Outcome::Declined(why) => prop_assert!(false, "{}", why),
            }
        }

        #[test]
        fn any_bytes_are_judged_without_a_trap(base in ".{0,12}", ours in ".{0,12}", theirs in ".{0,12}") {
            let _ = reconcile("", &base, &ours, &theirs);
        }
    }
}
