//! Parts of a document, and what changed between two versions of it.
//!
//! **Invariants:** a patch applied to what it was made from gives what it was made to; a part is what the whole says there.

use diffy::{Patch, apply, create_patch};
use serde_json::Value;
use thiserror::Error;

/// A part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Of JSON, by JSON pointer (RFC 6901).
    Pointer(String),
    /// Of a text: lines from one to another, from 1, both included.
    Lines(u64, u64),
    /// Bytes from one to before another, from 0.
    Bytes(u64, u64),
}

/// Why there is no such part, or no such patch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ViewError {
    /// Not of a form.
    #[error("`{given}` is no range: write FROM-TO, as in 1-20")]
    Range {
        /// What was read, cut.
        given: String,
    },
    /// Nothing stands there.
    #[error("the document has nothing at `{pointer}`")]
    NothingThere {
        /// Where.
        pointer: String,
    },
    /// It is of another kind.
    #[error("the document is no {expected}")]
    Kind {
        /// What it should be.
        expected: &'static str,
    },
    /// The patch cannot be read.
    #[error("the patch is no {expected}: {why}")]
    Unreadable {
        /// What it should be.
        expected: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The patch does not fit what it is applied to.
    #[error("the patch does not fit the version it names: {why}")]
    Misfit {
        /// Where it does not.
        why: String,
    },
}

/// Returns what stands at a JSON pointer.
///
/// # Errors
/// [`ViewError::NothingThere`].
pub fn at_pointer<'a>(value: &'a Value, pointer: &str) -> Result<&'a Value, ViewError> {
    value.pointer(pointer).ok_or_else(|| ViewError::NothingThere { pointer: pointer.chars().take(80).collect() })
}

/// Returns lines of a text, from 1, both included; what lies behind the end is left out.
#[must_use]
pub fn lines(text: &str, from: u64, to: u64) -> &str {
    let mut at = 0;
    let mut start = text.len();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if number == from {
            start = at;
        }
        at += line.len();
        if number == to {
            break;
        }
    }
    text.get(start..at.max(start)).unwrap_or_default()
}

/// Reads `FROM-TO`.
///
/// # Errors
/// [`ViewError::Range`], also where it ends before it begins.
pub fn range(text: &str) -> Result<(u64, u64), ViewError> {
    let wrong = || ViewError::Range { given: text.chars().take(40).collect() };
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
    if from > to { Err(wrong()) } else { Ok((from, to)) }
}

/// Returns the operations that lead from one value to another (RFC 6902).
#[must_use]
pub fn json_patch(from: &Value, to: &Value) -> Value {
    serde_json::to_value(json_patch::diff(from, to)).unwrap_or(Value::Null)
}

/// Applies operations of RFC 6902; all, or none.
///
/// # Errors
/// `Unreadable`, `Misfit`.
pub fn apply_json_patch(to: &Value, patch: &Value) -> Result<Value, ViewError> {
    const EXPECTED: &str = "list of operations of RFC 6902";
    let unreadable = |error: serde_json::Error| ViewError::Unreadable { expected: EXPECTED, why: error.to_string() };
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(unreadable)?;
    let mut patched = to.clone();
    json_patch::patch(&mut patched, &patch).map_err(|error| ViewError::Misfit { why: error.to_string() })?;
    Ok(patched)
}

/// Returns a unified diff; both sides are called by the document's key and version.
#[must_use]
pub fn text_patch(from: &str, to: &str) -> String {
    create_patch(from, to).to_string()
}

/// Applies a unified diff.
///
/// # Errors
/// `Unreadable`, `Misfit`.
pub fn apply_text_patch(to: &str, patch: &str) -> Result<String, ViewError> {
    let patch = Patch::from_str(patch).map_err(|error| ViewError::Unreadable { expected: "unified diff", why: error.to_string() })?;
    if patch.hunks().is_empty() {
        return Err(ViewError::Unreadable { expected: "unified diff", why: "it has no hunk".to_owned() });
    }
    apply(to, &patch).map_err(|error| ViewError::Misfit { why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let text = "a\nb\nc";
        for (from, to, expected) in [(1, 1, "a\n"), (2, 3, "b\nc"), (3, 9, "c"), (1, 3, text), (4, 9, ""), (9, 9, "")] {
            assert_eq!(lines(text, from, to), expected, "{from}-{to}");
        }
        assert_eq!(lines("", 1, 5), "");
        assert_eq!(range("3-20"), Ok((3, 20)));
        for wrong in ["", "3", "3-", "-3", "5-3", "a-b", "1-2-3"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert!(matches!(apply_json_patch(&json!({}), &json!({"op": "add"})), Err(ViewError::Unreadable { .. })));
        assert!(matches!(apply_json_patch(&json!({}), &json!([{"op": "remove", "path": "/a"}])), Err(ViewError::Misfit { .. })));
        for wrong in ["", "no diff", "--- a\n+++ b\n"] {
            assert!(matches!(apply_text_patch("a\n", wrong), Err(ViewError::Unreadable { .. })), "{wrong:?}");
        }
        let patch = text_patch("a\nb\n", "a\nc\n");
        assert!(matches!(apply_text_patch("x\ny\n", &patch), Err(ViewError::Misfit { .. })));
        assert!(at_pointer(&json!({"a": [1]}), "/a/1").is_err());
        assert_eq!(at_pointer(&json!({"a": [1]}), "/a/0"), Ok(&json!(1)));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0i64..5).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c/~]{0,2}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_patch_leads_from_one_value_to_the_other(from in value(), to in value()) {
            prop_assert_eq!(apply_json_patch(&from, &json_patch(&from, &to)), Ok(to));
        }

        #[test]
        fn a_diff_leads_from_one_text_to_the_other(from in "([a-c]{0,2}\n){0,12}[a-c]?", to in "([a-c]{0,2}\n){0,12}[a-c]?") {
            if from != to {
                prop_assert_eq!(apply_text_patch(&from, &text_patch(&from, &to)), Ok(to));
            }
        }

        #[test]
        fn no_patch_brings_the_host_down(text in "\\PC{0,40}", patch in "[-+@ 0-9,\na-c]{0,60}") {
            let _ = apply_text_patch(&text, &patch);
        }
    }
}
