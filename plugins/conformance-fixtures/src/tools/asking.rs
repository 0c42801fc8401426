//! Tools that ask their client. Whether a question travels as a result or as a request of its own is the host's affair:
//! each of these works for clients of every revision.

use pointsman_sdk::mcp_provider::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Tool, nothing};
use crate::round::{Reply, Round, form, invalid, list_roots, requests, sample, say};

/// Questions of one or several rounds.
pub(super) const TOOLS: [Tool; 8] = [
    Tool { name: "test_input_required_result_elicitation", description: "Asks for a name", schema: nothing, call: name },
    Tool { name: "test_input_required_result_sampling", description: "Asks for a model's answer", schema: nothing, call: capital },
    Tool { name: "test_input_required_result_list_roots", description: "Asks for the roots", schema: nothing, call: roots },
    Tool {
        name: "test_input_required_result_request_state",
        description: "Asks, and wants its state back",
        schema: nothing,
        call: request_state,
    },
    Tool {
        name: "test_input_required_result_multiple_inputs",
        description: "Asks three things at once",
        schema: nothing,
        call: multiple_inputs,
    },
    Tool { name: "test_input_required_result_multi_round", description: "Asks twice", schema: nothing, call: multi_round },
    Tool {
        name: "test_input_required_result_tampered_state",
        description: "Asks, and must not see a state that is not its own",
        schema: nothing,
        call: request_state,
    },
    Tool {
        name: "test_input_required_result_capabilities",
        description: "Asks whatever the client can answer",
        schema: nothing,
        call: capabilities,
    },
];

/// Questions that only sessions knew as requests of their own.
pub(super) const FORMS: [Tool; 4] = [
    Tool { name: "test_sampling", description: "Asks for a model's answer to a prompt", schema: prompt_schema, call: sampling },
    Tool { name: "test_elicitation", description: "Asks the user", schema: message_schema, call: elicitation },
    Tool {
        name: "test_elicitation_sep1034_defaults",
        description: "Asks with a form whose fields are filled in already",
        schema: nothing,
        call: defaults,
    },
    Tool { name: "test_elicitation_sep1330_enums", description: "Asks with a form of choices", schema: nothing, call: enums },
];

fn ask_name() -> Value {
    form("What is your name?", &json!({ "name": { "type": "string" } }), &["name"])
}

fn name(round: &Round<'_>) -> Result<Outcome, Outcome> {
    match round.reply("user_name", "name") {
        Reply::Accepted(content) => Ok(say(&format!("Hello, {}!", plain(content, "name")))),
        Reply::Refused => Ok(say("Hello, whoever you are!")),
        Reply::Missing => Ok(round.ask(requests([("user_name", ask_name())]), &())),
    }
}

/// Returns a field that should be a text.
fn plain<'a>(content: &'a Map<String, Value>, field: &str) -> &'a str {
    content.get(field).and_then(Value::as_str).unwrap_or("unknown")
}

/// Returns the text of a model's answer.
fn sampled(answer: &Map<String, Value>) -> &str {
    answer.get("content").and_then(|content| content["text"].as_str()).unwrap_or("nothing")
}

fn capital(round: &Round<'_>) -> Result<Outcome, Outcome> {
    match round.answer("capital_question") {
        Some(answer) => Ok(say(&format!("The model says: {}", sampled(answer)))),
        None => Ok(round.ask(requests([("capital_question", sample("What is the capital of France?", 100))]), &())),
    }
}

fn roots(round: &Round<'_>) -> Result<Outcome, Outcome> {
    match round.answer("client_roots") {
        Some(answer) => Ok(say(&format!("The roots are: {}", uris(answer)))),
        None => Ok(round.ask(requests([("client_roots", list_roots())]), &())),
    }
}

/// Returns the URIs of the roots, in one line.
fn uris(answer: &Map<String, Value>) -> String {
    let roots = answer.get("roots").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    roots.iter().filter_map(|root| root["uri"].as_str()).collect::<Vec<_>>().join(", ")
}

/// What must come back with the answer.
const CONFIRMING: &str = "confirming";

fn request_state(round: &Round<'_>) -> Result<Outcome, Outcome> {
    match (round.state::<String>().as_deref(), round.reply("confirm", "ok")) {
        (Some(CONFIRMING), Reply::Accepted(_)) => Ok(say("state-ok: the state came back with the answer")),
        (Some(CONFIRMING), Reply::Refused) => Ok(say("state-ok: the state came back, the confirmation did not")),
        (None | Some(CONFIRMING), _) => {
            let question = form("Please confirm", &json!({ "ok": { "type": "boolean" } }), &["ok"]);
            Ok(round.ask(requests([("confirm", question)]), &CONFIRMING))
        }
        (Some(_), _) => Err(invalid("this state is not one of mine")),
    }
}

fn multiple_inputs(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let name = match round.reply("user_name", "name") {
        Reply::Accepted(content) => Some(plain(content, "name")),
        Reply::Refused => Some("whoever you are"),
        Reply::Missing => None,
    };
    if let (Some(name), Some(greeting), Some(roots)) = (name, round.answer("greeting"), round.answer("client_roots")) {
        return Ok(say(&format!("{} {name}, at {}", sampled(greeting), uris(roots))));
    }
    let questions = requests([("user_name", ask_name()), ("greeting", sample("Generate a greeting", 50)), ("client_roots", list_roots())]);
    Ok(round.ask(questions, &"asked"))
}

/// Where a call of two questions stands.
#[derive(Debug, Serialize, Deserialize)]
enum Asked {
    Name,
    Color { name: String },
}

fn multi_round(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let ask_color = |name: String| {
        let question = form("Step 2: What is your favorite color?", &json!({ "color": { "type": "string" } }), &["color"]);
        round.ask(requests([("step2", question)]), &Asked::Color { name })
    };
    match round.state::<Asked>() {
        Some(Asked::Color { name }) => match round.reply("step2", "color") {
            Reply::Accepted(content) => Ok(say(&format!("{name} likes {}", plain(content, "color")))),
            Reply::Refused => Ok(say(&format!("{name} does not say"))),
            Reply::Missing => Ok(ask_color(name)),
        },
        Some(Asked::Name) | None => match round.reply("step1", "name") {
            Reply::Accepted(content) => Ok(ask_color(plain(content, "name").to_owned())),
            Reply::Refused => Ok(ask_color("Someone".to_owned())),
            Reply::Missing => {
                let question = form("Step 1: What is your name?", &json!({ "name": { "type": "string" } }), &["name"]);
                Ok(round.ask(requests([("step1", question)]), &Asked::Name))
            }
        },
    }
}

fn capabilities(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let questions = [
        ("elicitation", "value", form("Any value", &json!({ "value": { "type": "string" } }), &["value"])),
        ("sampling", "sample", sample("Say anything", 50)),
        ("roots", "roots", list_roots()),
    ];
    let mut open = Map::new();
    for (capability, key, question) in questions {
        if round.declares(capability) && round.answer(key).is_none() {
            open.insert(key.to_owned(), question);
        }
    }
    if open.is_empty() { Ok(say("The client answered all that it can.")) } else { Ok(round.ask(open, &())) }
}

fn sampling(round: &Round<'_>) -> Result<Outcome, Outcome> {
    match round.answer("response") {
        Some(answer) => Ok(say(&format!("LLM response: {}", sampled(answer)))),
        None => Ok(round.ask(requests([("response", sample(round.text("prompt")?, 100))]), &())),
    }
}

/// Says what became of a form; none when it was not answered.
fn outcome_of(round: &Round<'_>, prefix: &str) -> Option<Outcome> {
    let answer = round.answer("form")?;
    let action = answer.get("action")?.as_str()?;
    let content = answer.get("content").cloned().unwrap_or_else(|| json!({}));
    Some(say(&format!("{prefix}: action={action}, content={content}")))
}

fn ask_form(round: &Round<'_>, message: &str, properties: &Value, required: &[&str]) -> Outcome {
    round.ask(requests([("form", form(message, properties, required))]), &())
}

fn elicitation(round: &Round<'_>) -> Result<Outcome, Outcome> {
    if let Some(outcome) = outcome_of(round, "User response") {
        return Ok(outcome);
    }
    let properties = json!({
        "username": { "type": "string", "description": "User's response" },
        "email": { "type": "string", "description": "User's email address" },
    });
    Ok(ask_form(round, round.text("message")?, &properties, &["username", "email"]))
}

fn defaults(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let properties = json!({
        "name": { "type": "string", "default": "John Doe" },
        "age": { "type": "integer", "default": 30 },
        "score": { "type": "number", "default": 95.5 },
        "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
        "verified": { "type": "boolean", "default": true },
    });
    let ask = || ask_form(round, "Are these right?", &properties, &[]);
    Ok(outcome_of(round, "Elicitation completed").unwrap_or_else(ask))
}

fn enums(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let titled = |titles: [&str; 3]| -> Vec<Value> {
        let one = |(n, title): (usize, &str)| json!({ "const": format!("value{}", n + 1), "title": title });
        titles.into_iter().enumerate().map(one).collect()
    };
    let options = json!(["option1", "option2", "option3"]);
    let properties = json!({
        "untitledSingle": { "type": "string", "enum": options },
        "titledSingle": { "type": "string", "oneOf": titled(["First Option", "Second Option", "Third Option"]) },
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": { "type": "array", "items": { "type": "string", "enum": options } },
        "titledMulti": { "type": "array", "items": { "anyOf": titled(["First Choice", "Second Choice", "Third Choice"]) } },
    });
    let ask = || ask_form(round, "Which of these?", &properties, &[]);
    Ok(outcome_of(round, "Elicitation completed").unwrap_or_else(ask))
}

fn prompt_schema() -> Value {
    let prompt = json!({ "type": "string", "description": "What to ask the model" });
    json!({ "type": "object", "properties": { "prompt": prompt }, "required": ["prompt"] })
}

fn message_schema() -> Value {
    let message = json!({ "type": "string", "description": "What to ask the user" });
    json!({ "type": "object", "properties": { "message": message }, "required": ["message"] })
}

#[cfg(test)]
mod tests;
