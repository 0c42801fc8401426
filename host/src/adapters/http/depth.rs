//! How deep a JSON text nests, seen before any parser that calls itself for each level.
//!
//! Must not know what the text says, nor whether it is JSON at all: that is the parser's to refuse.

/// Returns whether arrays and objects nest deeper than `limit` levels.
pub(super) fn is_deeper(json: &[u8], limit: usize) -> bool {
    let mut depth = 0_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_text(&mut bytes),
            _ => {}
        }
    }
    false
}

/// Goes on behind the closing quote.
fn skip_text(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn depth_of(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
            Value::Object(map) => 1 + map.values().map(depth_of).max().unwrap_or(0),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }

    fn nested() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), "[\\[\\]{}\"\\\\a-c]{0,8}".prop_map(Value::from)];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map("[\\[{\"\\\\a-c]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn brackets_in_texts_do_not_count_and_a_million_levels_are_no_matter() {
        assert!(!is_deeper(br#"{"a": "[[[[[\"[[["}"#, 1));
        assert!(is_deeper(br#"{"a\\": [1]}"#, 1));
        assert!(is_deeper(&vec![b'['; 1_000_000], 64));
        assert!(!is_deeper(br#""unclosed [[["#, 0));
    }

    proptest! {
        #[test]
        fn as_deep_as_the_tree(value in nested()) {
            let depth = depth_of(&value);
            let text = value.to_string();
            prop_assert!(!is_deeper(text.as_bytes(), depth));
            prop_assert!(depth == 0 || is_deeper(text.as_bytes(), depth - 1));
        }
    }
}
