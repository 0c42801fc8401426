//! The prompts, and the completion of their arguments.

use pointsman_sdk::mcp_provider::Outcome;
use serde_json::{Value, json};

use crate::round::{Reply, Round, done, form, invalid, requests};
use crate::tools::PIXEL;

/// What a prompt that appeared later is called, before its number.
const DYNAMIC: &str = "test_dynamic_prompt_";

/// A prompt.
struct Prompt {
    name: &'static str,
    description: &'static str,
    /// Names and descriptions of its arguments, all of them required.
    arguments: &'static [(&'static str, &'static str)],
    get: fn(&Round<'_>) -> Result<Outcome, Outcome>,
}

const PROMPTS: [Prompt; 5] = [
    Prompt { name: "test_simple_prompt", description: "A prompt without arguments", arguments: &[], get: simple },
    Prompt {
        name: "test_prompt_with_arguments",
        description: "A prompt that repeats its arguments",
        arguments: &[("arg1", "What to repeat first"), ("arg2", "What to repeat after that")],
        get: with_arguments,
    },
    Prompt {
        name: "test_prompt_with_embedded_resource",
        description: "A prompt that carries a resource",
        arguments: &[("resourceUri", "The URI that the resource shall have")],
        get: with_resource,
    },
    Prompt { name: "test_prompt_with_image", description: "A prompt that carries an image", arguments: &[], get: with_image },
    Prompt {
        name: "test_input_required_result_prompt",
        description: "A prompt that asks the client before it can be made",
        arguments: &[],
        get: asking,
    },
];

/// Returns the `Prompt` objects after so many changes.
pub(crate) fn list(changes: u32) -> Vec<Value> {
    let argument = |(name, description): &(&str, &str)| json!({ "name": name, "description": description, "required": true });
    let entry = |prompt: &Prompt| match prompt.arguments.iter().map(argument).collect::<Vec<_>>() {
        none if none.is_empty() => json!({ "name": prompt.name, "description": prompt.description }),
        arguments => json!({ "name": prompt.name, "description": prompt.description, "arguments": arguments }),
    };
    let mut entries: Vec<Value> = PROMPTS.iter().map(entry).collect();
    if changes > 0 {
        entries.push(json!({ "name": format!("{DYNAMIC}{changes}"), "description": "A prompt that was not there at the start" }));
    }
    entries
}

/// Fills a prompt.
pub(crate) fn get(round: &Round<'_>, name: &str) -> Outcome {
    match PROMPTS.iter().find(|prompt| prompt.name == name) {
        Some(prompt) => (prompt.get)(round).unwrap_or_else(|refusal| refusal),
        None if name.starts_with(DYNAMIC) => messages(&[text("This prompt was not there at the start.")]),
        None => invalid(&format!("there is no prompt {name:?}")),
    }
}

/// Returns what an argument could be, given how it starts.
pub(crate) fn complete(reference: &str, argument: &str, typed: &str) -> Vec<String> {
    let known: &[&str] = match (argument, reference.contains("test_prompt_with_arguments")) {
        ("arg1", true) => &["paris", "park", "party", "test"],
        ("arg2", true) => &["one", "two"],
        ("id", _) => &["1", "12", "123"],
        _ => &[],
    };
    known.iter().filter(|value| value.starts_with(typed)).map(ToString::to_string).collect()
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn messages(contents: &[Value]) -> Outcome {
    let messages: Vec<Value> = contents.iter().map(|content| json!({ "role": "user", "content": content })).collect();
    done(&json!({ "messages": messages }))
}

fn simple(_: &Round<'_>) -> Result<Outcome, Outcome> {
    Ok(messages(&[text("This is a simple prompt for testing.")]))
}

fn with_arguments(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let (first, second) = (round.text("arg1")?, round.text("arg2")?);
    Ok(messages(&[text(&format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]))
}

fn with_resource(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let content = "Embedded resource content for testing.";
    let resource = json!({ "uri": round.text("resourceUri")?, "mimeType": "text/plain", "text": content });
    Ok(messages(&[json!({ "type": "resource", "resource": resource }), text("Please process the embedded resource above.")]))
}

fn with_image(_: &Round<'_>) -> Result<Outcome, Outcome> {
    let image = json!({ "type": "image", "data": PIXEL, "mimeType": "image/png" });
    Ok(messages(&[image, text("Please analyze the image above.")]))
}

fn asking(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let context = match round.reply("user_context", "context") {
        Reply::Accepted(content) => content["context"].as_str().unwrap_or_default(),
        Reply::Refused => "none given",
        Reply::Missing => {
            let question = form("What context should the prompt use?", &json!({ "context": { "type": "string" } }), &["context"]);
            return Ok(round.ask(requests([("user_context", question)]), &()));
        }
    };
    Ok(messages(&[text(&format!("Prompt with context: {context}"))]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round::tests::{ABLE, asked, context, next, result};

    fn filled(name: &str, arguments: &str) -> Outcome {
        let ctx = context(ABLE);
        get(&Round::read(&ctx, arguments).expect("JSON"), name)
    }

    #[test]
    fn prompts_carry_what_they_were_given() {
        let first = |outcome: &Outcome| result(outcome)["messages"][0]["content"].clone();
        assert_eq!(first(&filled("test_simple_prompt", ""))["text"], "This is a simple prompt for testing.");
        let repeated = filled("test_prompt_with_arguments", r#"{"arg1":"hello","arg2":"world"}"#);
        assert_eq!(first(&repeated)["text"], "Prompt with arguments: arg1='hello', arg2='world'");
        let embedded = filled("test_prompt_with_embedded_resource", r#"{"resourceUri":"test://example-resource"}"#);
        assert_eq!(first(&embedded)["resource"]["uri"], "test://example-resource");
        assert_eq!(first(&filled("test_prompt_with_image", "{}"))["mimeType"], "image/png");
        assert!(first(&filled("test_dynamic_prompt_2", ""))["text"].is_string());
    }

    #[test]
    fn a_prompt_may_ask_first() {
        let ctx = context(ABLE);
        let outcome = filled("test_input_required_result_prompt", "");
        assert_eq!(asked(&outcome)["user_context"]["method"], "elicitation/create");
        let answers = json!({ "user_context": { "action": "accept", "content": { "context": "a test" } } });
        let ctx = next(&ctx, &outcome, &answers);
        let outcome = get(&Round::read(&ctx, "").expect("JSON"), "test_input_required_result_prompt");
        assert_eq!(result(&outcome)["messages"][0]["content"]["text"], "Prompt with context: a test");
    }

    #[test]
    fn unknown_prompts_and_missing_arguments_are_refused() {
        for (name, arguments) in [("test_nothing", ""), ("test_prompt_with_arguments", r#"{"arg1":"hello"}"#)] {
            let outcome = filled(name, arguments);
            assert!(matches!(&outcome, Outcome::ProtocolError(refusal) if refusal.code == -32602), "{outcome:?}");
        }
    }

    #[test]
    fn completions_continue_what_was_typed() {
        let prompt = r#"{"type":"ref/prompt","name":"test_prompt_with_arguments"}"#;
        assert_eq!(complete(prompt, "arg1", "par"), ["paris", "park", "party"]);
        assert_eq!(complete(r#"{"type":"ref/resource","uri":"test://template/{id}/data"}"#, "id", "12"), ["12", "123"]);
        assert!(complete(prompt, "arg3", "").is_empty());
    }
}
