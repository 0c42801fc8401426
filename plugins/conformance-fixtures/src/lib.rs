//! The component `conformance-fixtures`: the tools, resources and prompts that the MCP conformance suite calls.
//!
//! It is an agent and a provider at once: some tools promise that the lists change afterwards, and lists change through
//! the actions of an agent. The event `mcp.called`, which the host logs after each finished call, tells the agent half
//! which promise to keep.
//!
//! Owns: the fixed values that the suite looks for. Must not know: protocol revisions, sessions, streams, tasks; what
//! becomes of an outcome on the wire is the host's, and is what the suite tests.
//!
//! **Invariant:** a call remembers nothing but its state; the only memory is the count in [`lists::Changes`].

use pointsman_sdk::agent::{Action, Agent, Cause, Description, Event};
use pointsman_sdk::mcp_provider::{Context, Offers, Outcome, Provider};
use pointsman_sdk::{NoConfig, Plugin};
use serde::Deserialize;

mod lists;
mod prompts;
mod resources;
mod round;
mod tools;

use lists::Changes;
use round::Round;

/// The component.
#[derive(Debug, Clone, Copy)]
pub struct ConformanceFixtures;

impl Plugin for ConformanceFixtures {
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Self)
    }
}

/// An event `mcp.called`: a call came to its end.
#[derive(Debug, Deserialize)]
struct Logged {
    data: Called,
}

/// What was called. The plugin is not looked at: in the empty namespace a name belongs to one provider.
#[derive(Debug, Deserialize)]
struct Called {
    verb: String,
    name: String,
}

impl Agent for ConformanceFixtures {
    fn describe(&self) -> Description {
        Description { name: env!("CARGO_PKG_NAME").to_owned(), capabilities: Vec::new(), events: vec!["mcp.called".to_owned()] }
    }

    fn handle(&self, event: &Event) -> Result<Vec<Action>, String> {
        let json = match &event.cause {
            Cause::Logged(json) => json,
            Cause::Message(_) | Cause::Timer(_) | Cause::Http(_) => return Ok(Vec::new()),
        };
        let logged: Logged = serde_json::from_str(json).map_err(|error| format!("this is not an event `mcp.called`: {error}"))?;
        Ok(after(Changes::recalled(), &logged.data))
    }
}

/// Returns what a finished call leads to.
fn after(mut changes: Changes, called: &Called) -> Vec<Action> {
    match changes.after(&called.verb, &called.name) {
        Some(updated) => changes.actions(&updated),
        None => Vec::new(),
    }
}

impl Provider for ConformanceFixtures {
    fn initial_offers(&self) -> Offers {
        Changes::recalled().offers()
    }

    fn call(&self, ctx: &Context, name: &str, arguments: &str) -> Outcome {
        Round::read(ctx, arguments).map_or_else(|refusal| refusal, |round| tools::call(&round, name))
    }

    fn read_resource(&self, _: &Context, uri: &str) -> Outcome {
        resources::read(uri)
    }

    fn get_prompt(&self, ctx: &Context, name: &str, arguments: &str) -> Outcome {
        Round::read(ctx, arguments).map_or_else(|refusal| refusal, |round| prompts::get(&round, name))
    }

    fn complete(&self, reference: &str, argument: &str, typed: &str) -> Vec<String> {
        prompts::complete(reference, argument, typed)
    }
}

pointsman_sdk::export_agent_provider!(ConformanceFixtures);

#[cfg(test)]
mod tests {
    use super::*;

    fn called(verb: &str, name: &str) -> Event {
        let json = format!(r#"{{"type":"mcp.called","data":{{"plugin":"conformance-fixtures","verb":"{verb}","name":"{name}"}}}}"#);
        Event { id: "e1".to_owned(), at_ms: 1, cause: Cause::Logged(json) }
    }

    #[test]
    fn a_promised_change_of_the_tools_is_kept_after_the_call() {
        let actions = ConformanceFixtures.handle(&called("tool", "test_trigger_tool_change")).expect("handled");
        let [Action::Put((key, count)), Action::ReplaceOffers(json)] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        assert_eq!((key.as_str(), count.as_slice()), ("changes", br#"{"tools":1,"prompts":0,"updates":0}"#.as_slice()));
        assert!(json.contains("test_dynamic_tool_1") && !json.contains("test_dynamic_prompt"), "{json}");
        assert!(!json.contains("updated"), "{json}");
    }

    #[test]
    fn an_updated_resource_is_named_beside_the_unchanged_lists() {
        let actions = ConformanceFixtures.handle(&called("tool", "test_trigger_resource_update")).expect("handled");
        let Some(Action::ReplaceOffers(json)) = actions.last() else { panic!("{actions:?}") };
        assert!(json.ends_with(r#","updated":["test://watched-resource"]}"#), "{json}");
    }

    #[test]
    fn other_calls_and_other_causes_lead_to_nothing() {
        for event in [called("tool", "greet"), called("prompt", "test_trigger_tool_change")] {
            assert_eq!(ConformanceFixtures.handle(&event), Ok(Vec::new()));
        }
        let timer = Event { id: "e2".to_owned(), at_ms: 1, cause: Cause::Timer("t".to_owned()) };
        assert_eq!(ConformanceFixtures.handle(&timer), Ok(Vec::new()));
        let foreign = Event { id: "e3".to_owned(), at_ms: 1, cause: Cause::Logged("{}".to_owned()) };
        assert!(ConformanceFixtures.handle(&foreign).is_err_and(|error| error.contains("missing field `data`")));
    }
}
