//! One round of a call: what came with it, and the outcomes it may have. Everything that comes from a client is doubted
//! here once: a text that is not JSON is refused, an answer of another shape is no answer.

use pointsman_sdk::mcp_provider::{Context, InputRequired, Outcome, Pending, ProtocolError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// JSON-RPC: the parameters name nothing, or do not fit.
const INVALID_PARAMS: i32 = -32602;
/// JSON-RPC: the server failed.
const INTERNAL_ERROR: i32 = -32603;
/// The tasks extension, as a client declares it.
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// One round of a call.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    ctx: &'a Context,
    arguments: Value,
    answers: Value,
    capabilities: Value,
}

/// What a user made of a form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reply<'a> {
    /// Filled in.
    Accepted(&'a Map<String, Value>),
    /// Declined or put away.
    Refused,
    /// Not answered, or not in the shape of an answer.
    Missing,
}

impl<'a> Round<'a> {
    /// Reads what came with a round.
    ///
    /// # Errors
    /// The refusal of arguments or answers that are not JSON.
    pub(crate) fn read(ctx: &'a Context, arguments: &str) -> Result<Self, Outcome> {
        let object = |what: &str, text: &str| match text.trim() {
            "" | "null" => Ok(json!({})),
            text => serde_json::from_str(text).map_err(|error| invalid(&format!("the {what} cannot be read: {error}"))),
        };
        Ok(Self {
            ctx,
            arguments: object("arguments", arguments)?,
            answers: object("answers", &ctx.answers)?,
            capabilities: object("client's capabilities", &ctx.client_capabilities)?,
        })
    }

    /// Returns the time of the round, in milliseconds since 1970.
    pub(crate) fn at_ms(&self) -> i64 {
        self.ctx.at_ms
    }

    /// Returns the arguments as they came.
    pub(crate) fn arguments(&self) -> &Value {
        &self.arguments
    }

    /// Returns an argument that is a text.
    ///
    /// # Errors
    /// The refusal of a call without it.
    pub(crate) fn text(&self, name: &str) -> Result<&str, Outcome> {
        self.arguments[name].as_str().ok_or_else(|| invalid(&format!("the argument `{name}` must be a text")))
    }

    /// Returns what an earlier round kept; none in the first round.
    pub(crate) fn state<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.ctx.state).ok()
    }

    /// Returns whether the client declared a capability.
    pub(crate) fn declares(&self, capability: &str) -> bool {
        self.capabilities[capability].is_object()
    }

    /// Returns whether the client knows tasks.
    pub(crate) fn knows_tasks(&self) -> bool {
        self.capabilities["extensions"][TASKS].is_object()
    }

    /// Returns the client's answer to a request that is no form.
    pub(crate) fn answer(&self, key: &str) -> Option<&Map<String, Value>> {
        self.answers[key].as_object()
    }

    /// Returns the client's answer to a form. A filled one must hold `field`.
    pub(crate) fn reply(&self, key: &str, field: &str) -> Reply<'_> {
        match (self.answers[key]["action"].as_str(), self.answers[key]["content"].as_object()) {
            (Some("accept"), Some(content)) if content.contains_key(field) => Reply::Accepted(content),
            (Some("decline" | "cancel"), _) => Reply::Refused,
            _ => Reply::Missing,
        }
    }

    /// Asks the client, or refuses when it did not declare what a request needs.
    pub(crate) fn ask(&self, requests: Map<String, Value>, state: &impl Serialize) -> Outcome {
        let needs = requests.values().filter_map(|request| needed(&request["method"]));
        let missing: Map<String, Value> =
            needs.filter(|capability| !self.declares(capability)).map(|name| (name.to_owned(), json!({}))).collect();
        if missing.is_empty() {
            Outcome::InputRequired(InputRequired { requests: Value::Object(requests).to_string(), state: bytes(state) })
        } else {
            missing_capability(&Value::Object(missing))
        }
    }
}

/// Returns the capability without which a request may not be sent.
fn needed(method: &Value) -> Option<&'static str> {
    match method.as_str()? {
        "elicitation/create" => Some("elicitation"),
        "sampling/createMessage" => Some("sampling"),
        "roots/list" => Some("roots"),
        _ => None,
    }
}

fn bytes(state: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(state).expect("states are plain data")
}

/// Returns the requests of one round, by their keys.
pub(crate) fn requests<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, request)| (key.to_owned(), request)).collect()
}

/// Returns the request for a form. `required` are properties that must be filled in.
pub(crate) fn form(message: &str, properties: &Value, required: &[&str]) -> Value {
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    json!({ "method": "elicitation/create", "params": { "message": message, "requestedSchema": schema } })
}

/// Returns the request for a model's answer.
pub(crate) fn sample(prompt: &str, tokens_max: u32) -> Value {
    let message = json!({ "role": "user", "content": { "type": "text", "text": prompt } });
    json!({ "method": "sampling/createMessage", "params": { "messages": [message], "maxTokens": tokens_max } })
}

/// Returns the request for the client's roots.
pub(crate) fn list_roots() -> Value {
    json!({ "method": "roots/list", "params": {} })
}

/// Done.
pub(crate) fn done(result: &Value) -> Outcome {
    Outcome::Complete(result.to_string())
}

/// Done, with a text.
pub(crate) fn say(text: &str) -> Outcome {
    done(&json!({ "content": [{ "type": "text", "text": text }] }))
}

/// Done, with a tool's own failure.
pub(crate) fn fail(text: &str) -> Outcome {
    done(&json!({ "content": [{ "type": "text", "text": text }], "isError": true }))
}

/// Not yet.
pub(crate) fn later(state: &impl Serialize, wake_ms: u32) -> Outcome {
    Outcome::Pending(Pending { state: bytes(state), wake_ms })
}

/// The client must declare this first.
pub(crate) fn missing_capability(required: &Value) -> Outcome {
    Outcome::MissingCapability(required.to_string())
}

/// The client must know tasks.
pub(crate) fn tasks_required() -> Outcome {
    missing_capability(&json!({ "extensions": { TASKS: {} } }))
}

/// The parameters name nothing, or do not fit.
pub(crate) fn invalid(message: &str) -> Outcome {
    Outcome::ProtocolError(ProtocolError { code: INVALID_PARAMS, message: message.to_owned() })
}

/// The server failed.
pub(crate) fn broken(message: &str) -> Outcome {
    Outcome::ProtocolError(ProtocolError { code: INTERNAL_ERROR, message: message.to_owned() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A client that declares everything there is.
    pub(crate) const ABLE: &str = r#"{"elicitation":{},"sampling":{},"roots":{},"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;

    /// Returns the context of a first round.
    pub(crate) fn context(capabilities: &str) -> Context {
        Context {
            agent: String::new(),
            principal: "tester".to_owned(),
            call_id: "c1".to_owned(),
            client_capabilities: capabilities.to_owned(),
            state: Vec::new(),
            answers: "{}".to_owned(),
            at_ms: 1_000,
        }
    }

    /// Returns the context of the round that follows an outcome, with the client's answers.
    pub(crate) fn next(ctx: &Context, outcome: &Outcome, answers: &Value) -> Context {
        let mut next = ctx.clone();
        next.answers = answers.to_string();
        match outcome {
            Outcome::InputRequired(asked) => next.state.clone_from(&asked.state),
            Outcome::Pending(pending) => {
                next.state.clone_from(&pending.state);
                next.at_ms += i64::from(pending.wake_ms);
            }
            Outcome::Complete(_) | Outcome::MissingCapability(_) | Outcome::ProtocolError(_) => {
                panic!("the call has ended: {outcome:?}")
            }
        }
        next
    }

    /// Returns the result of a finished call.
    pub(crate) fn result(outcome: &Outcome) -> Value {
        let Outcome::Complete(json) = outcome else { panic!("not done: {outcome:?}") };
        serde_json::from_str(json).expect("JSON")
    }

    /// Returns the first text of a finished tool call.
    pub(crate) fn said(outcome: &Outcome) -> String {
        result(outcome)["content"][0]["text"].as_str().expect("a text").to_owned()
    }

    /// Returns the requests of a call that asks.
    pub(crate) fn asked(outcome: &Outcome) -> Map<String, Value> {
        let Outcome::InputRequired(asked) = outcome else { panic!("asks nothing: {outcome:?}") };
        serde_json::from_str(&asked.requests).expect("an object")
    }

    #[test]
    fn only_a_filled_form_counts_as_filled() {
        let mut ctx = context(ABLE);
        ctx.answers = json!({
            "number": 12_345,
            "empty": { "action": "accept", "content": {} },
            "filled": { "action": "accept", "content": { "name": "Alice" } },
            "declined": { "action": "decline" },
        })
        .to_string();
        let round = Round::read(&ctx, "").expect("JSON");
        assert_eq!(round.reply("number", "name"), Reply::Missing);
        assert_eq!(round.reply("empty", "name"), Reply::Missing);
        assert_eq!(round.reply("nowhere", "name"), Reply::Missing);
        assert_eq!(round.reply("declined", "name"), Reply::Refused);
        assert!(matches!(round.reply("filled", "name"), Reply::Accepted(content) if content["name"] == "Alice"));
    }

    #[test]
    fn a_client_is_asked_only_for_what_it_declared() {
        let ctx = context(r#"{"sampling":{}}"#);
        let round = Round::read(&ctx, "{}").expect("JSON");
        let outcome = round.ask(requests([("a", sample("?", 1)), ("b", list_roots()), ("c", form("?", &json!({}), &[]))]), &1);
        assert_eq!(outcome, Outcome::MissingCapability(r#"{"elicitation":{},"roots":{}}"#.to_owned()));
        assert_eq!(asked(&round.ask(requests([("a", sample("?", 1))]), &1)).len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let ctx = context(ABLE);
        let refusal = Round::read(&ctx, "{").expect_err("half an object");
        assert!(matches!(refusal, Outcome::ProtocolError(ProtocolError { code: INVALID_PARAMS, .. })), "{refusal:?}");
    }
}
