//! The other half: tools that try what a provider may do, one a name.

use pointsman_sdk::agent::host::kv;
use pointsman_sdk::bindings::mcp_provider as bindings;
use pointsman_sdk::bindings::mcp_provider::exports::pointsman::mcp_provider::provider::Guest;
use pointsman_sdk::mcp_provider::host::calls::{Emission, emit};
use pointsman_sdk::mcp_provider::{Context, InputRequired, Offers, Outcome, Pending, ProtocolError};
use serde_json::json;

struct Half;

fn text(text: impl Into<String>) -> Outcome {
    let text: String = text.into();
    Outcome::Complete(json!({"content": [{"type": "text", "text": text}]}).to_string())
}

impl Guest for Half {
    fn initial_offers() -> Offers {
        let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}}).to_string();
        Offers {
            namespace: "test".to_owned(),
            tools: ["echo", "emit", "wait", "ask"].map(tool).to_vec(),
            resources: vec![json!({"uri": "test://one", "name": "one"}).to_string()],
            templates: Vec::new(),
            prompts: vec![json!({"name": "greet"}).to_string()],
        }
    }

    fn call(ctx: Context, name: String, arguments: String) -> Outcome {
        match name.as_str() {
            "echo" => text(format!("{} of {}: {arguments}", ctx.agent, ctx.principal)),
            "emit" => {
                let went_on = emit(&Emission::Progress((1.0, 2.0, "half".to_owned())))
                    && emit(&Emission::Log(("info".to_owned(), String::new(), "\"line\"".to_owned())))
                    && emit(&Emission::DetachStream);
                text(format!("{went_on}"))
            }
            "wait" if ctx.state.is_empty() => Outcome::Pending(Pending { state: vec![7], wake_ms: 250 }),
            "wait" => text(format!("{:?} of {}", ctx.state, ctx.call_id)),
            "ask" if ctx.answers == "{}" => Outcome::InputRequired(InputRequired {
                requests: json!({"who": {"method": "elicitation/create"}}).to_string(),
                state: vec![1],
            }),
            "ask" => text(ctx.answers),
            "missing" => Outcome::MissingCapability(json!({"sampling": {}}).to_string()),
            "protocol" => Outcome::ProtocolError(ProtocolError { code: -32602, message: "no".to_owned() }),
            "remember" => text(format!("{:?}", kv::get("any"))),
            "nonsense" => Outcome::Complete("[1]".to_owned()),
            "huge" => text("x".repeat(5 << 20)),
            "spin" => loop {
                std::hint::spin_loop();
            },
            _ => panic!("no tool {name}"),
        }
    }

    fn read_resource(_ctx: Context, uri: String) -> Outcome {
        Outcome::Complete(json!({"contents": [{"uri": uri, "text": "one"}]}).to_string())
    }

    fn get_prompt(_ctx: Context, name: String, arguments: String) -> Outcome {
        let content = json!({"type": "text", "text": format!("{name} {arguments}")});
        Outcome::Complete(json!({"messages": [{"role": "user", "content": content}]}).to_string())
    }

    fn complete(_reference: String, argument: String, typed: String) -> Vec<String> {
        let count = if argument == "many" { 101 } else { 2 };
        (0..count).map(|n| format!("{typed}{n}")).collect()
    }

    fn cancelled(_call_id: String, state: Vec<u8>) {
        assert!(!state.is_empty(), "a pending call has a state");
    }
}

#[allow(unsafe_code, reason = "the export glue of the component")]
const _: () = {
    pointsman_sdk::bindings::mcp_provider::export!(Half with_types_in bindings);
};
