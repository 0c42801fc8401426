//! The schema of a plugin's configuration: JSON Schema in the custom section `pointsman.config-schema`.
//!
//! **Invariant:** a schema needs no network: what it refers to stands in itself.

use serde_json::Value;

use super::component::embedded_section;

/// The custom section that carries the schema.
pub const SECTION: &str = "pointsman.config-schema";
/// The longest schema.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Mistakes that are named at once.
const SHOWN_MAX: usize = 5;

/// Checks a configuration against the schema that a component carries; one without a schema takes everything.
///
/// # Errors
/// What is wrong, each place as a JSON pointer.
pub fn validate_config(component: &[u8], config_json: &str) -> Result<(), String> {
    let Some(text) = embedded_section(component, SECTION, SCHEMA_BYTES_MAX)? else { return Ok(()) };
    let unusable = |why: String| format!("the component's own schema is not usable: {why}");
    let schema: Value = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    let validator = jsonschema::options().build(&schema).map_err(|error| unusable(error.to_string()))?;
    let config: Value = serde_json::from_str(config_json).map_err(|error| format!("it is no JSON: {error}"))?;
    let mut mistakes: Vec<String> = Vec::new();
    for error in validator.iter_errors(&config).take(SHOWN_MAX) {
        let pointer = error.instance_path().to_string();
        let place = if pointer.is_empty() { "as a whole".to_owned() } else { format!("at `{pointer}`") };
        mistakes.push(format!("{place}: {error}"));
    }
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::super::component::append_section;
    use super::*;

    #[test]
    fn mistakes_are_named_by_their_place() {
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        assert_eq!(validate_config(&component, "{\"anything\": 1}"), Ok(()));
        let schema = r#"{"type": "object", "properties": {"weights": {"type": "object", "properties": {"load": {"type": "integer"}}}}, "additionalProperties": false}"#;
        append_section(&mut component, SECTION, schema.as_bytes());
        assert_eq!(validate_config(&component, r#"{"weights": {"load": 1}}"#), Ok(()));
        let wrong = validate_config(&component, r#"{"weights": {"load": "x"}}"#).expect_err("no integer");
        assert!(wrong.contains("at `/weights/load`"), "{wrong}");
        let unknown = validate_config(&component, r#"{"wieghts": {}}"#).expect_err("unknown");
        assert!(unknown.contains("wieghts"), "{unknown}");
        let mut broken = b"\0asm\x0d\0\x01\0".to_vec();
        append_section(&mut broken, SECTION, b"{");
        assert!(validate_config(&broken, "{}").expect_err("broken").contains("own schema"));
    }
}
