//! Tools that may become tasks. What makes a task is the first `Pending`: a question asked before it belongs to the call,
//! one asked after it to the task. A client that does not know tasks is answered when the work is done, or refused where
//! a tool insists on tasks.

use pointsman_sdk::mcp_provider::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Tool, nothing};
use crate::round::{Reply, Round, broken, fail, form, invalid, later, requests, say, tasks_required};

/// Milliseconds of a job that has nothing to compute.
const JOB_MS: u32 = 300;
/// Milliseconds until a task asks its questions.
const ASK_MS: u32 = 10;
/// Seconds a computation may take.
const SECONDS_MAX: u32 = 3_600;

pub(super) const TOOLS: [Tool; 7] = [
    Tool { name: "greet", description: "Greets at once, never as a task", schema: name_schema, call: greet },
    Tool { name: "slow_compute", description: "Answers after so many seconds", schema: seconds_schema, call: slow_compute },
    Tool { name: "failing_job", description: "Fails, as a task only", schema: nothing, call: failing_job },
    Tool { name: "protocol_error_job", description: "Ends in a protocol error", schema: nothing, call: protocol_error_job },
    Tool { name: "confirm_delete", description: "Asks once before it is done", schema: file_schema, call: confirm_delete },
    Tool { name: "multi_input", description: "Asks two questions at once", schema: nothing, call: multi_input },
    Tool { name: "test_tool_with_task", description: "Asks first, then works as a task", schema: nothing, call: asks_then_works },
];

fn greet(round: &Round<'_>) -> Result<Outcome, Outcome> {
    Ok(say(&format!("Hello, {}!", round.text("name")?)))
}

fn slow_compute(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let seconds = round.arguments()["seconds"].as_u64().and_then(|seconds| u32::try_from(seconds).ok());
    let Some(seconds) = seconds.filter(|seconds| *seconds <= SECONDS_MAX) else {
        return Err(invalid(&format!("`seconds` must be a whole number up to {SECONDS_MAX}")));
    };
    let until_ms = round.state().unwrap_or_else(|| round.at_ms() + i64::from(seconds) * 1_000);
    match u32::try_from(until_ms - round.at_ms()) {
        Ok(left_ms @ 1..) => Ok(later(&until_ms, left_ms)),
        _ => {
            let label = round.arguments()["label"].as_str().unwrap_or("slow_compute");
            Ok(say(&format!("{label}: done after {seconds} s")))
        }
    }
}

/// Returns the outcome of a first round that only takes time; none when the time has passed.
fn not_yet(round: &Round<'_>) -> Option<Outcome> {
    round.state::<bool>().is_none().then(|| later(&true, JOB_MS))
}

fn failing_job(round: &Round<'_>) -> Result<Outcome, Outcome> {
    if !round.knows_tasks() {
        return Err(tasks_required());
    }
    Ok(not_yet(round).unwrap_or_else(|| fail("The job failed, as it always does.")))
}

fn protocol_error_job(round: &Round<'_>) -> Result<Outcome, Outcome> {
    Ok(not_yet(round).unwrap_or_else(|| broken("The job broke off, as it always does.")))
}

/// What a job that asks has come to.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Asking {
    /// What was answered so far.
    answered: Map<String, Value>,
}

/// Asks the questions that are open; returns the answers once there is one to each. A client that knows tasks gets its
/// task first, and the questions there.
fn gather(round: &Round<'_>, questions: Map<String, Value>, field: &str) -> Result<Map<String, Value>, Outcome> {
    let kept = round.state::<Asking>();
    if kept.is_none() && round.knows_tasks() {
        return Err(later(&Asking::default(), ASK_MS));
    }
    let mut asking = kept.unwrap_or_default();
    let mut open = Map::new();
    for (key, question) in questions {
        if asking.answered.contains_key(&key) {
            continue;
        }
        match round.reply(&key, field) {
            Reply::Accepted(content) => _ = asking.answered.insert(key, Value::Object(content.clone())),
            Reply::Refused => _ = asking.answered.insert(key, Value::Null),
            Reply::Missing => _ = open.insert(key, question),
        }
    }
    if open.is_empty() { Ok(asking.answered) } else { Err(round.ask(open, &asking)) }
}

fn confirm_delete(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let file = round.text("filename")?;
    let question = form(&format!("Delete {file}?"), &json!({ "confirm": { "type": "boolean" } }), &["confirm"]);
    let answers = gather(round, requests([("confirm", question)]), "confirm")?;
    Ok(say(&if answers["confirm"]["confirm"] == true { format!("Deleted {file}") } else { format!("Kept {file}") }))
}

fn multi_input(round: &Round<'_>) -> Result<Outcome, Outcome> {
    let question = |who: &str| form(&format!("Who is the {who}?"), &json!({ "name": { "type": "string" } }), &["name"]);
    let answers = gather(round, requests([("author", question("author")), ("reviewer", question("reviewer"))]), "name")?;
    let name = |key: &str| answers[key]["name"].as_str().unwrap_or("nobody").to_owned();
    Ok(say(&format!("Written by {}, reviewed by {}", name("author"), name("reviewer"))))
}

fn asks_then_works(round: &Round<'_>) -> Result<Outcome, Outcome> {
    if !round.knows_tasks() {
        return Err(tasks_required());
    }
    if let Some(name) = round.state::<String>() {
        return Ok(say(&format!("Hello, {name}!")));
    }
    match round.reply("user_name", "name") {
        Reply::Accepted(content) => Ok(later(&content["name"].as_str().unwrap_or("whoever you are"), JOB_MS)),
        Reply::Refused => Ok(say("Nobody to greet.")),
        Reply::Missing => {
            let question = form("What is your name?", &json!({ "name": { "type": "string" } }), &["name"]);
            Ok(round.ask(requests([("user_name", question)]), &()))
        }
    }
}

fn name_schema() -> Value {
    json!({ "type": "object", "properties": { "name": { "type": "string" } }, "required": ["name"] })
}

fn file_schema() -> Value {
    json!({ "type": "object", "properties": { "filename": { "type": "string" } }, "required": ["filename"] })
}

fn seconds_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "seconds": { "type": "integer", "minimum": 0, "maximum": SECONDS_MAX },
            "label": { "type": "string" },
        },
        "required": ["seconds"],
    })
}

#[cfg(test)]
mod tests {
    use super::super::call;
    use super::super::tests::first;
    use super::*;
    use crate::round::tests::{ABLE, asked, context, next, result, said};

    const NO_TASKS: &str = r#"{"elicitation":{}}"#;

    /// Calls on after an outcome.
    fn on(capabilities: &str, name: &str, arguments: &Value, before: &Outcome, answers: &Value) -> Outcome {
        let ctx = next(&context(capabilities), before, answers);
        call(&Round::read(&ctx, &arguments.to_string()).expect("JSON"), name)
    }

    fn accept(content: &Value) -> Value {
        json!({ "action": "accept", "content": content })
    }

    #[test]
    fn a_computation_ends_when_its_time_has_passed() {
        let arguments = json!({ "seconds": 2, "label": "sum" });
        let outcome = first("{}", "slow_compute", &arguments);
        let Outcome::Pending(pending) = &outcome else { panic!("{outcome:?}") };
        assert_eq!(pending.wake_ms, 2_000);
        let mut early = next(&context("{}"), &outcome, &json!({}));
        early.at_ms -= 500;
        let again = call(&Round::read(&early, &arguments.to_string()).expect("JSON"), "slow_compute");
        assert!(matches!(&again, Outcome::Pending(pending) if pending.wake_ms == 500), "{again:?}");
        assert_eq!(said(&on("{}", "slow_compute", &arguments, &outcome, &json!({}))), "sum: done after 2 s");
        assert_eq!(said(&first("{}", "slow_compute", &json!({ "seconds": 0 }))), "slow_compute: done after 0 s");
        let refused = first("{}", "slow_compute", &json!({ "seconds": -1 }));
        assert!(matches!(refused, Outcome::ProtocolError(_)), "{refused:?}");
    }

    #[test]
    fn greeting_is_never_a_task() {
        assert_eq!(said(&first(ABLE, "greet", &json!({ "name": "World" }))), "Hello, World!");
    }

    #[test]
    fn a_job_that_fails_is_a_result_and_one_that_breaks_is_not() {
        let outcome = first(ABLE, "failing_job", &json!({}));
        assert_eq!(result(&on(ABLE, "failing_job", &json!({}), &outcome, &json!({})))["isError"], true);
        let outcome = first(ABLE, "protocol_error_job", &json!({}));
        let broken = on(ABLE, "protocol_error_job", &json!({}), &outcome, &json!({}));
        assert!(matches!(&broken, Outcome::ProtocolError(error) if error.code == -32603), "{broken:?}");
    }

    #[test]
    fn tools_that_insist_on_tasks_say_so() {
        for name in ["failing_job", "test_tool_with_task"] {
            let required = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
            assert_eq!(first(NO_TASKS, name, &json!({})), Outcome::MissingCapability(required.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_question_comes_within_the_task_where_there_is_one() {
        let arguments = json!({ "filename": "a.txt" });
        let created = first(ABLE, "confirm_delete", &arguments);
        assert!(matches!(created, Outcome::Pending(_)), "{created:?}");
        let asking = on(ABLE, "confirm_delete", &arguments, &created, &json!({}));
        assert_eq!(asked(&asking)["confirm"]["method"], "elicitation/create");
        let answers = json!({ "confirm": accept(&json!({ "confirm": true })), "unknown": { "ignored": true } });
        assert_eq!(said(&on(ABLE, "confirm_delete", &arguments, &asking, &answers)), "Deleted a.txt");
        let declined = json!({ "confirm": { "action": "decline" } });
        assert_eq!(said(&on(ABLE, "confirm_delete", &arguments, &asking, &declined)), "Kept a.txt");
        assert_eq!(asked(&first(NO_TASKS, "confirm_delete", &arguments)).len(), 1);
    }

    #[test]
    fn answers_are_kept_until_all_are_there() {
        let created = first(ABLE, "multi_input", &json!({}));
        let asking = on(ABLE, "multi_input", &json!({}), &created, &json!({}));
        assert_eq!(asked(&asking).keys().collect::<Vec<_>>(), ["author", "reviewer"]);
        let half = on(ABLE, "multi_input", &json!({}), &asking, &json!({ "author": accept(&json!({ "name": "Ana" })) }));
        assert_eq!(asked(&half).keys().collect::<Vec<_>>(), ["reviewer"]);
        let whole = on(ABLE, "multi_input", &json!({}), &half, &json!({ "reviewer": accept(&json!({ "name": "Bob" })) }));
        assert_eq!(said(&whole), "Written by Ana, reviewed by Bob");
    }

    #[test]
    fn what_was_asked_before_a_task_is_known_to_it() {
        let asking = first(ABLE, "test_tool_with_task", &json!({}));
        assert!(asked(&asking).contains_key("user_name"));
        let answers = json!({ "user_name": accept(&json!({ "name": "Alice" })) });
        let working = on(ABLE, "test_tool_with_task", &json!({}), &asking, &answers);
        assert!(matches!(working, Outcome::Pending(_)), "{working:?}");
        assert_eq!(said(&on(ABLE, "test_tool_with_task", &json!({}), &working, &json!({}))), "Hello, Alice!");
    }
}
