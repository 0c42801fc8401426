//! A call's life, round by round.

use super::*;
use crate::ports::plugins::PluginFailure;

const MADE: TimeMs = TimeMs(1_790_000_000_000);

fn deferred() -> Deferred {
    Deferred {
        id: "t".to_owned(),
        principal: PrincipalId::from_bytes([1; 16]),
        principal_name: "ana".to_owned(),
        agent: String::new(),
        call: ProviderCall::Tool { name: "t".to_owned(), arguments: "{}".to_owned() },
        call_id: "call".to_owned(),
        client_capabilities: r#"{"elicitation":{}}"#.to_owned(),
        state: Vec::new(),
        answers: "{}".to_owned(),
        standing: Standing::Working,
        failures: 0,
        asked: 0,
        created_at: MADE,
        updated_at: MADE,
    }
}

fn shown(deferred: &Deferred) -> Value {
    parsed(deferred.shown().get())
}

fn asks(method: &str) -> Result<ProviderOutcome, Trouble> {
    Ok(ProviderOutcome::InputRequired { requests: json!({"name": {"method": method}}).to_string(), state: b"s".to_vec() })
}

fn failure() -> Result<ProviderOutcome, Trouble> {
    Err(Trouble::Failed(PluginFailure::Trapped { plugin: "p".to_owned(), why: "unreachable".to_owned() }))
}

fn answers(json: Value) -> Map<String, Value> {
    json.as_object().cloned().expect("an object")
}

#[test]
fn a_busy_component_has_not_failed() {
    let mut call = deferred();
    "given".clone_into(&mut call.answers);
    for _ in 0..10 {
        assert_eq!(call.settle(Err(Trouble::Busy), MADE), MADE + RETRY_MS);
    }
    assert_eq!((&call.standing, call.failures, call.answers.as_str()), (&Standing::Working, 0, "given"));
}

#[test]
fn failures_end_a_call_only_one_after_the_other() {
    let mut call = deferred();
    "given".clone_into(&mut call.answers);
    for _ in 0..3 {
        assert_eq!(call.settle(failure(), MADE), MADE + RETRY_MS);
        assert_eq!(call.settle(failure(), MADE), MADE + RETRY_MS);
        assert_eq!(call.answers, if call.asked == 0 && call.state.is_empty() { "given" } else { "{}" }, "until a round took them");
        assert_eq!(call.settle(Ok(ProviderOutcome::Pending { state: vec![1], wake_ms: 0 }), MADE), MADE + 50);
    }
    for _ in 0..3 {
        call.settle(failure(), MADE);
    }
    assert_eq!(shown(&call)["error"], json!({"code": -32603, "message": "the component failed 3 times"}));
}

#[test]
fn each_round_asks_under_keys_of_its_own() {
    let mut call = deferred();
    for round in ["1.name", "2.name"] {
        call.settle(asks("elicitation/create"), MADE);
        assert_eq!(shown(&call)["inputRequests"], json!({round: {"method": "elicitation/create"}}));
        let stale = answers(json!({"name": 1, "0.name": 2, "9.name": 3}));
        assert_eq!(call.answer(&stale, MADE), Answered::Partly, "answers of no round or of another");
        assert_eq!(call.answer(&answers(json!({round: {"action": "accept"}})), MADE), Answered::Wholly);
        assert_eq!(call.answers, r#"{"name":{"action":"accept"}}"#);
        assert_eq!(call.answer(&answers(json!({round: 7})), MADE), Answered::Nothing);
    }
}

#[test]
fn a_client_is_asked_only_what_it_can_answer() {
    let mut call = deferred();
    call.settle(asks("sampling/createMessage"), MADE);
    assert_eq!(shown(&call)["status"], "failed");
    let missing = |required: Value| {
        let data = json!({"requiredCapabilities": required});
        json!({"code": -32021, "message": "Missing required client capability", "data": data})
    };
    assert_eq!(shown(&call)["error"], missing(json!({"sampling": {}})));
    let mut call = deferred();
    call.settle(Ok(ProviderOutcome::MissingCapability(r#"{"roots":{}}"#.to_owned())), MADE);
    assert_eq!(shown(&call)["error"], missing(json!({"roots": {}})));
    let mut call = deferred();
    call.settle(asks("tools/call"), MADE);
    assert_eq!(shown(&call)["error"]["code"], -32603);
}

#[test]
fn errors_are_those_of_a_call_that_was_waited_for() {
    for (outcome, code) in [
        (Ok(ProviderOutcome::ProtocolError { code: -32602, message: "no".to_owned() }), -32602),
        (Err(Trouble::Broken("its result is not of its schema".to_owned())), -32603),
    ] {
        let mut call = deferred();
        assert_eq!(call.settle(outcome, MADE), call.ends_at());
        assert_eq!(shown(&call)["error"]["code"], code);
    }
}

#[test]
fn a_call_is_due_at_its_end_at_the_latest() {
    let mut call = deferred();
    let late = call.ends_at();
    let before = TimeMs(late.0 - 1_000);
    assert_eq!(call.settle(Ok(ProviderOutcome::Pending { state: vec![], wake_ms: u32::MAX }), before), late);
    assert_eq!(call.settle(Err(Trouble::Busy), before), late);
    call.expire(late);
    assert_eq!(shown(&call)["error"], json!({"code": -32603, "message": "expired"}));
    assert_eq!(call.kept_until(), late + EXPIRED_KEPT_MS);
    assert!(!call.cancel(late), "an end is final");
}

#[test]
fn a_record_of_an_earlier_host_is_read() {
    let mut record = json!(deferred());
    record.as_object_mut().expect("an object").remove("asked");
    record["standing"] = json!({"Failed": {"code": -32603, "message": "x"}});
    let read: Deferred = serde_json::from_value(record).expect("it is read");
    assert_eq!((read.asked, read.standing), (0, Standing::failed("x")));
}
