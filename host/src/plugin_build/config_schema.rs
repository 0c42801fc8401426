//! The schema of a plugin's configuration: JSON Schema in a custom section, held against what an operator set.
//!
//! **Invariant:** a configuration that does not fit is refused before any code of the component runs.

use serde_json::Value;

use super::component::{SCHEMA_SECTION, embedded_section};
use crate::json_schema::misfits;

/// The longest schema.
pub(super) const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// Checks a configuration against the schema that a component carries; one without a schema takes everything.
///
/// # Errors
/// What is wrong, each place as a JSON pointer.
pub fn validate_config(component: &[u8], config_json: &str) -> Result<(), String> {
    let Some(schema) = embedded_section(component, SCHEMA_SECTION, SCHEMA_BYTES_MAX)? else { return Ok(()) };
    let config: Value = serde_json::from_str(config_json).map_err(|error| format!("it is no JSON: {error}"))?;
    let findings = findings(&schema, &config).map_err(|why| format!("the component's own schema is not usable: {why}"))?;
    if findings.is_empty() { Ok(()) } else { Err(findings.join("; and ")) }
}

/// Returns what of a configuration does not fit a schema, a text each.
///
/// # Errors
/// What is wrong with the schema.
pub(super) fn findings(schema: &str, config: &Value) -> Result<Vec<String>, String> {
    let schema: Value = serde_json::from_str(schema).map_err(|error| error.to_string())?;
    misfits(SCHEMA_SECTION, &schema, config)
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
        append_section(&mut component, SCHEMA_SECTION, schema.as_bytes());
        assert_eq!(validate_config(&component, r#"{"weights": {"load": 1}}"#), Ok(()));
        let wrong = validate_config(&component, r#"{"weights": {"load": "x"}}"#).expect_err("no integer");
        assert!(wrong.contains("at `/weights/load`"), "{wrong}");
        let unknown = validate_config(&component, r#"{"wieghts": {}}"#).expect_err("unknown");
        assert!(unknown.contains("wieghts"), "{unknown}");
        let mut broken = b"\0asm\x0d\0\x01\0".to_vec();
        append_section(&mut broken, SCHEMA_SECTION, b"{");
        assert!(validate_config(&broken, "{}").expect_err("broken").contains("own schema"));
    }
}
