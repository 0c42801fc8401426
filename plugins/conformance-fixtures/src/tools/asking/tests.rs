use super::super::call;
use super::super::tests::first;
use super::*;
use crate::round::tests::{ABLE, asked, context, next, said};

/// Returns what a client that can everything answers to a request.
fn answer_to(request: &Value) -> Value {
    match request["method"].as_str() {
        Some("elicitation/create") => {
            let content = json!({ "name": "Alice", "color": "blue", "ok": true, "value": "v", "username": "u", "email": "e" });
            json!({ "action": "accept", "content": content })
        }
        Some("sampling/createMessage") => json!({ "role": "assistant", "content": { "type": "text", "text": "Hello there!" } }),
        Some("roots/list") => json!({ "roots": [{ "uri": "file:///test/root" }] }),
        other => panic!("an unknown request {other:?}"),
    }
}

/// Answers until the call ends; returns the keys that were asked and what it said.
fn through(name: &str, arguments: &Value) -> (Vec<String>, String) {
    let (mut ctx, mut keys) = (context(ABLE), Vec::new());
    loop {
        let outcome = call(&Round::read(&ctx, &arguments.to_string()).expect("JSON"), name);
        if matches!(outcome, Outcome::Complete(_)) {
            return (keys, said(&outcome));
        }
        let questions = asked(&outcome);
        let answers: Map<String, Value> = questions.iter().map(|(key, request)| (key.clone(), answer_to(request))).collect();
        keys.extend(questions.keys().cloned());
        ctx = next(&ctx, &outcome, &Value::Object(answers));
    }
}

#[test]
fn each_question_is_asked_by_its_key_and_its_answer_is_heard() {
    let cases = [
        ("test_input_required_result_elicitation", "user_name", "Hello, Alice!"),
        ("test_input_required_result_sampling", "capital_question", "The model says: Hello there!"),
        ("test_input_required_result_list_roots", "client_roots", "The roots are: file:///test/root"),
        ("test_input_required_result_request_state", "confirm", "state-ok: the state came back with the answer"),
        ("test_input_required_result_multiple_inputs", "client_roots greeting user_name", "Hello there! Alice, at file:///test/root"),
        ("test_input_required_result_multi_round", "step1 step2", "Alice likes blue"),
        ("test_input_required_result_tampered_state", "confirm", "state-ok: the state came back with the answer"),
        ("test_input_required_result_capabilities", "roots sample value", "The client answered all that it can."),
    ];
    for (tool, keys, text) in cases {
        let (asked, said) = through(tool, &json!({}));
        assert_eq!((asked.join(" ").as_str(), said.as_str()), (keys, text), "{tool}");
    }
}

#[test]
fn forms_of_sessions_are_answered_in_words() {
    let (_, said) = through("test_sampling", &json!({ "prompt": "Test prompt" }));
    assert_eq!(said, "LLM response: Hello there!");
    for (tool, arguments) in [
        ("test_elicitation", json!({ "message": "Who?" })),
        ("test_elicitation_sep1034_defaults", json!({})),
        ("test_elicitation_sep1330_enums", json!({})),
    ] {
        let (keys, said) = through(tool, &arguments);
        assert_eq!(keys, ["form"], "{tool}");
        assert!(said.contains("action=accept, content={"), "{said}");
    }
}

#[test]
fn the_forms_hold_the_fields_that_the_suite_reads() {
    let properties = |tool: &str| asked(&first(ABLE, tool, &json!({})))["form"]["params"]["requestedSchema"]["properties"].clone();
    let filled = properties("test_elicitation_sep1034_defaults");
    assert_eq!((&filled["age"]["default"], &filled["score"]["default"]), (&json!(30), &json!(95.5)));
    let choices = properties("test_elicitation_sep1330_enums");
    assert_eq!(choices["titledSingle"]["oneOf"][0], json!({ "const": "value1", "title": "First Option" }));
    assert_eq!(choices["legacyEnum"]["enumNames"].as_array().map(Vec::len), Some(3));
    assert_eq!(choices["titledMulti"]["items"]["anyOf"][2], json!({ "const": "value3", "title": "Third Choice" }));
}

#[test]
fn wrong_answers_are_asked_for_again() {
    let mut ctx = context(ABLE);
    for answers in [json!({ "wrong_key": { "action": "accept", "content": { "data": "wrong" } } }), json!({ "user_name": 12_345 })] {
        ctx.answers = answers.to_string();
        let outcome = call(&Round::read(&ctx, "{}").expect("JSON"), "test_input_required_result_elicitation");
        assert!(asked(&outcome).contains_key("user_name"), "{answers}");
    }
    // An answer that comes with the first call is as good as one that was asked for; what else comes is not looked at.
    ctx.answers = json!({ "user_name": answer_to(&ask_name()), "another": 1 }).to_string();
    let outcome = call(&Round::read(&ctx, "{}").expect("JSON"), "test_input_required_result_elicitation");
    assert_eq!(said(&outcome), "Hello, Alice!");
}

#[test]
fn only_what_the_client_can_answer_is_asked() {
    let outcome = first(r#"{"sampling":{}}"#, "test_input_required_result_capabilities", &json!({}));
    assert_eq!(asked(&outcome).keys().collect::<Vec<_>>(), ["sample"]);
    let refused = first("{}", "test_input_required_result_elicitation", &json!({}));
    assert_eq!(refused, Outcome::MissingCapability(r#"{"elicitation":{}}"#.to_owned()));
}

#[test]
fn a_state_that_is_not_its_own_is_refused() {
    let mut ctx = context(ABLE);
    ctx.state = br#""forged""#.to_vec();
    let outcome = call(&Round::read(&ctx, "{}").expect("JSON"), "test_input_required_result_tampered_state");
    assert!(matches!(&outcome, Outcome::ProtocolError(refusal) if refusal.code == -32602), "{outcome:?}");
}
