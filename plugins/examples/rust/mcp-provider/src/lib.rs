//! An MCP provider: a tool that adds numbers, offered to every client of the host.
//!
//! The host checks arguments against the tool's schema before it asks. Texts are those of the MCP schema, revision 2026-07-28;
//! the host converts them for older clients.

use pointsman_sdk::mcp_provider::{Context, Offers, Outcome, ProtocolError, Provider};
use serde::Deserialize;
use serde_json::json;

/// What the operator can set, under `[plugins.NAME.config]`.
#[pointsman_sdk::config]
#[serde(default)]
#[derive(Debug)]
pub struct Config {
    /// What the names of its tools begin with.
    #[schemars(length(min = 1))]
    pub namespace: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { namespace: "sums".to_owned() }
    }
}

/// The arguments of `add`.
#[derive(Debug, Deserialize)]
struct Numbers {
    numbers: Vec<f64>,
}

#[pointsman_sdk::mcp_provider]
impl Provider for Config {
    fn initial_offers(&self) -> Offers {
        let add = json!({
            "name": "add",
            "description": "Adds numbers",
            "inputSchema": {
                "type": "object",
                "properties": {"numbers": {"type": "array", "items": {"type": "number"}}},
                "required": ["numbers"],
            },
        });
        Offers {
            namespace: self.namespace.clone(),
            tools: vec![add.to_string()],
            resources: Vec::new(),
            templates: Vec::new(),
            prompts: Vec::new(),
        }
    }

    fn call(&self, _ctx: &Context, name: &str, arguments: &str) -> Outcome {
        match (name, serde_json::from_str::<Numbers>(arguments)) {
            ("add", Ok(Numbers { numbers })) => {
                let sum: f64 = numbers.iter().sum();
                Outcome::Complete(json!({"content": [{"type": "text", "text": sum.to_string()}]}).to_string())
            }
            ("add", Err(error)) => refused(format!("these are no numbers: {error}")),
            _ => refused(format!("there is no tool {name:?}")),
        }
    }
}

/// Returns the refusal of a call that makes no sense (JSON-RPC: invalid parameters).
fn refused(message: String) -> Outcome {
    Outcome::ProtocolError(ProtocolError { code: -32602, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &str) -> Outcome {
        let ctx = Context {
            agent: String::new(),
            principal: "ana".to_owned(),
            call_id: "c1".to_owned(),
            client_capabilities: "{}".to_owned(),
            state: Vec::new(),
            answers: "{}".to_owned(),
            at_ms: 1,
        };
        Config::default().call(&ctx, name, arguments)
    }

    #[test]
    fn numbers_are_added() {
        let outcome = call("add", r#"{"numbers": [1, 2.5]}"#);
        assert!(matches!(&outcome, Outcome::Complete(json) if json.contains(r#""text":"3.5""#)), "{outcome:?}");
        assert!(matches!(call("subtract", "{}"), Outcome::ProtocolError(_)));
        assert_eq!(Config::default().initial_offers().namespace, "sums");
    }
}
