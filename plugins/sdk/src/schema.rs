//! The JSON Schema of a configuration, made from its type.
//!
//! `pointsman plugin build` compiles a plugin twice: once with the feature `schema-export`, to call the function that hands
//! the schema over, and once without, for the component. **Invariant:** a component carries the text of its schema and
//! nothing of the code that makes it.

use std::marker::PhantomData;

use schemars::JsonSchema;

/// A configuration's type, of which it is not yet known whether it has a schema.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Of<C>(PhantomData<C>);

impl<C> Of<C> {
    /// Returns the question.
    #[must_use]
    pub const fn config() -> Self {
        Self(PhantomData)
    }
}

impl<C: JsonSchema> Of<C> {
    /// Returns the schema as a JSON text. A method of the type itself is found before one of a trait.
    #[must_use]
    pub fn schema(&self) -> Option<String> {
        Some(schemars::schema_for!(C).to_value().to_string())
    }
}

/// What holds for types without a schema.
#[doc(hidden)]
pub trait Absent {
    /// Returns that there is none.
    fn schema(&self) -> Option<String> {
        None
    }
}

impl<C> Absent for Of<C> {}

/// Leaks a text and returns its address above its length; 0 for none.
#[cfg(all(target_arch = "wasm32", feature = "schema-export"))]
#[doc(hidden)]
#[must_use]
pub fn hand_over(schema: Option<String>) -> u64 {
    let Some(text) = schema.map(String::leak) else { return 0 };
    ((text.as_ptr().addr() as u64) << 32) | text.len() as u64
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// What the operator can set.
    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Known {
        /// How many.
        #[schemars(range(min = 1))]
        count: u32,
    }

    impl Default for Known {
        fn default() -> Self {
            Self { count: 3 }
        }
    }

    #[derive(Deserialize)]
    struct Unknown {}

    #[test]
    fn a_type_with_a_schema_hands_it_over_and_others_none() {
        assert_eq!(Known::default().count, 3);
        let text = Of::<Known>::config().schema().expect("it derives one");
        let schema: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(schema["properties"]["count"]["minimum"], 1);
        assert_eq!(schema["properties"]["count"]["description"], "How many.");
        assert_eq!(schema["additionalProperties"], false);
        let _ = Unknown {};
        assert_eq!(Of::<Unknown>::config().schema(), None);
    }
}
