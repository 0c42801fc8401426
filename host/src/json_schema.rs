//! JSON Schemas of components: what a tool's arguments and results must fit, and a plugin's configuration.
//!
//! **Invariant:** a schema that was taken in needs no network, and validating one place of a value visits at most
//! [`EXPANDED_MAX`] places of the schema.

use std::collections::HashMap;
use std::ptr;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// Levels of a schema.
const DEPTH_MAX: usize = 32;
/// Places of a schema, each counted as often as `$ref` leads to it.
const EXPANDED_MAX: u64 = 10_000;
/// Levels of a schema, those that `$ref` leads to counted in: compiling and validating go down as far.
const EXPANDED_DEPTH_MAX: usize = 64;
/// Findings about one value.
const FINDINGS_MAX: usize = 8;
/// Bytes of one finding.
const FINDING_BYTES_MAX: usize = 400;

/// Returns what validates against a component's schema.
///
/// # Errors
/// What is wrong with it, under the name `what`.
pub(crate) fn validator(what: &str, schema: &Value) -> Result<Validator, String> {
    if depth(schema) > DEPTH_MAX {
        return Err(format!("`{what}` is deeper than {DEPTH_MAX} levels"));
    }
    let unusable = |why: String| format!("`{what}` is no usable JSON Schema: {why}");
    let expanded = Expansion::of(schema).and_then(|mut expansion| expansion.count(schema, 0)).map_err(unusable)?;
    if expanded.places > EXPANDED_MAX {
        return Err(format!("`{what}` has more than {EXPANDED_MAX} places once each `$ref` is followed"));
    }
    jsonschema::options().build(schema).map_err(|error| unusable(error.to_string()))
}

/// Returns what of a value does not fit a schema: a text for each finding, with its JSON pointer and what is expected there.
///
/// # Errors
/// What is wrong with the schema, under the name `what`.
pub(crate) fn misfits(what: &str, schema: &Value, value: &Value) -> Result<Vec<String>, String> {
    let validator = validator(what, schema)?;
    let finding = |error: jsonschema::ValidationError<'_>| {
        let at = error.instance_path().to_string();
        let place = if at.is_empty() { "at the top".to_owned() } else { format!("at `{at}`") };
        let mut said = error.to_string();
        said.truncate(said.floor_char_boundary(FINDING_BYTES_MAX));
        if let ValidationErrorKind::AdditionalProperties { .. } = error.kind() {
            said.push_str(&known(schema, &error.schema_path().to_string()));
        }
        format!("{place}: {said}")
    };
    Ok(validator.iter_errors(value).take(FINDINGS_MAX).map(finding).collect())
}

/// Returns the keys that a table knows, in words. `keyword` is the place of the rule that was broken.
fn known(schema: &Value, keyword: &str) -> String {
    let table = keyword.rsplit_once('/').and_then(|(table, _)| schema.pointer(table));
    let keys: Vec<String> = table
        .and_then(|table| table.get("properties")?.as_object())
        .map(|keys| keys.keys().map(|key| format!("`{key}`")).collect())
        .unwrap_or_default();
    if keys.is_empty() { String::new() } else { format!("; it knows {}", keys.join(", ")) }
}

fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::Array(all) => all.iter().map(depth).max(),
        Value::Object(all) => all.values().map(depth).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + deepest.unwrap_or(0)
}

/// How large a part of a schema is.
#[derive(Debug, Clone, Copy)]
struct Extent {
    places: u64,
    levels: usize,
}

/// Counts a schema as it is once every reference in it is replaced by what it refers to.
struct Expansion<'a> {
    root: &'a Value,
    anchors: HashMap<&'a str, &'a Value>,
    /// By place; none while it is being counted: who comes back to it counts one.
    counted: HashMap<*const Value, Option<Extent>>,
}

impl<'a> Expansion<'a> {
    /// Returns a count that begins at `root`.
    fn of(root: &'a Value) -> Result<Self, String> {
        let mut anchors = HashMap::new();
        find_anchors(root, root, &mut anchors)?;
        Ok(Self { root, anchors, counted: HashMap::new() })
    }

    /// Returns the extent of a place that lies below so many others.
    fn count(&mut self, place: &'a Value, above: usize) -> Result<Extent, String> {
        let key = ptr::from_ref(place);
        let mut extent = Extent { places: 1, levels: 1 };
        let too_deep = || format!("it is deeper than {EXPANDED_DEPTH_MAX} levels once each `$ref` is followed");
        if above >= EXPANDED_DEPTH_MAX {
            return Err(too_deep());
        }
        match self.counted.get(&key) {
            Some(counted) => return Ok(counted.unwrap_or(extent)),
            None => drop(self.counted.insert(key, None)),
        }
        let inner: Vec<&'a Value> = match place {
            Value::Array(all) => all.iter().collect(),
            Value::Object(all) => all.iter().map(|(word, inner)| self.meant(word, inner)).collect::<Result<_, _>>()?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        for inner in inner {
            let below = self.count(inner, above + 1)?;
            extent.places = extent.places.saturating_add(below.places);
            extent.levels = extent.levels.max(below.levels + 1);
            if extent.levels + above > EXPANDED_DEPTH_MAX {
                return Err(too_deep());
            }
        }
        self.counted.insert(key, Some(extent));
        Ok(extent)
    }

    /// Returns what stands under a word, or what a reference refers to.
    fn meant(&self, word: &str, inner: &'a Value) -> Result<&'a Value, String> {
        match (word, inner) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => self.target(reference),
            _ => Ok(inner),
        }
    }

    fn target(&self, reference: &str) -> Result<&'a Value, String> {
        let found = match reference.strip_prefix('#') {
            Some("") => Some(self.root),
            Some(pointer) if pointer.starts_with('/') => self.root.pointer(&decoded(pointer)),
            Some(anchor) => self.anchors.get(anchor).copied(),
            None => None,
        };
        found.ok_or_else(|| format!("`{reference}` names no place in it"))
    }
}

/// Collects the anchors. A part under an id of its own is refused: what references in it mean depends on that id.
fn find_anchors<'a>(root: &Value, place: &'a Value, anchors: &mut HashMap<&'a str, &'a Value>) -> Result<(), String> {
    match place {
        Value::Object(all) => {
            let is_inner = !ptr::eq(root, place);
            if is_inner && ["$id", "$schema"].iter().any(|word| all.get(*word).is_some_and(Value::is_string)) {
                return Err("a part of it has an `$id` or `$schema` of its own".to_owned());
            }
            for word in ["$anchor", "$dynamicAnchor"] {
                if let Some(anchor) = all.get(word).and_then(Value::as_str)
                    && anchors.insert(anchor, place).is_some_and(|other| !ptr::eq(other, place))
                {
                    return Err(format!("the anchor `{anchor}` stands twice"));
                }
            }
            all.values().try_for_each(|inner| find_anchors(root, inner, anchors))
        }
        Value::Array(all) => all.iter().try_for_each(|inner| find_anchors(root, inner, anchors)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Returns a fragment with its percent-encoded bytes as they are (RFC 6901, section 6).
fn decoded(fragment: &str) -> String {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high * 16 + low);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn doubling(levels: usize, reference: impl Fn(usize) -> String) -> Value {
        let mut defs = Map::from_iter([("a0".to_owned(), json!({"type": "string"}))]);
        for level in 1..=levels {
            let below = json!({"$ref": reference(level - 1)});
            defs.insert(format!("a{level}"), json!({"allOf": [below, below]}));
        }
        json!({"type": "object", "$defs": defs, "properties": {"a": {"$ref": format!("#/$defs/a{levels}")}}})
    }

    #[test]
    fn a_schema_that_doubles_with_each_level_is_refused_before_it_is_compiled() {
        for reference in ["#/$defs/a", "#/%24defs/a"] {
            let of = |levels| doubling(levels, |level| format!("{reference}{level}"));
            assert!(validator("inputSchema", &of(16)).expect_err("exponential").contains("more than 10000 places"));
            assert!(validator("inputSchema", &of(40)).expect_err("deep").contains("deeper than 64 levels"));
            validator("inputSchema", &of(5)).expect("a few levels are fine");
        }
    }

    #[test]
    fn a_chain_of_references_is_refused_before_it_is_followed_to_its_end() {
        let link = |n: usize| (format!("a{n}"), json!({"$ref": format!("#/$defs/a{}", n + 1)}));
        let mut defs: Map<String, Value> = (0..2_000).map(link).collect();
        defs.insert("a2000".to_owned(), json!(true));
        let chain = json!({"type": "object", "$defs": defs});
        assert!(validator("inputSchema", &chain).expect_err("deep").contains("deeper than 64 levels"));
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_place_and_what_is_expected() {
        let schema = json!({"type": "object", "additionalProperties": false, "properties": {
            "max": {"type": "integer", "minimum": 1}, "weights": {"$ref": "#/$defs/weights"}},
            "$defs": {"weights": {"type": "object", "additionalProperties": false, "properties": {"load": {"type": "number"}}}}});
        let of = |value| misfits("config", &schema, &value).expect("a schema");
        assert_eq!(of(json!({"max": 3, "weights": {"load": 1.5}})), Vec::<String>::new());
        assert_eq!(of(json!({"max": 0})), ["at `/max`: 0 is less than the minimum of 1"]);
        assert_eq!(of(json!({"weights": {"load": "x"}})), ["at `/weights/load`: \"x\" is not of type \"number\""]);
        let misspelt = of(json!({"weights": {"laod": 1}}));
        assert_eq!(misspelt, ["at `/weights`: Additional properties are not allowed ('laod' was unexpected); it knows `load`"]);
        assert!(misfits("config", &json!({"$ref": "#/none"}), &json!({})).is_err());
    }

    #[test]
    fn a_schema_may_refer_to_itself_and_to_nothing_else() {
        let tree = json!({"type": "object", "$anchor": "tree", "properties": {
            "left": {"$ref": "#"}, "right": {"$ref": "#tree"}, "name~/x": {"type": "string"}, "same": {"$ref": "#/properties/name~0~1x"}}});
        let tree = validator("inputSchema", &tree).expect("a tree");
        assert!(tree.is_valid(&json!({"left": {"right": {"same": "x"}}})));
        assert!(!tree.is_valid(&json!({"left": {"right": {"same": 7}}})));
        for (schema, why) in [
            (json!({"type": "object", "$ref": "https://example.com/schema.json"}), "names no place"),
            (json!({"type": "object", "$ref": "#/$defs/none"}), "names no place"),
            (json!({"type": "object", "$defs": {"a": {"$id": "other", "$ref": "#/$defs/b"}}}), "`$id`"),
            (json!({"type": "object", "properties": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}}), "twice"),
        ] {
            let refused = validator("inputSchema", &schema).expect_err(why);
            assert!(refused.contains(why) && refused.contains("no usable JSON Schema"), "{refused}");
        }
    }
}
