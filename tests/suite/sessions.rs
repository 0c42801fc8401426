//! Sessions of the earlier revisions: what a client chose in one stands after the host was killed, and nothing is missed in silence.

use pointsman_client::Streamed;
use pointsman_tests::{Host, Redis, Session, Setup, next};
use serde_json::json;

const TASKS: &str = "pointsman://tasks";

/// Reads on until a resource is said to have changed.
async fn until_updated(stream: &mut Streamed, uri: &str) {
    while next(stream).await["params"]["uri"] != uri {}
}

async fn change(host: &Host) {
    host.agent("other", &[]).await.call("create_task", json!({"title": "Something new"})).await;
}

#[tokio::test]
async fn a_subscription_counts_from_its_answer_on() {
    let host = Host::start().await;
    let session = Session::open(&host, &host.token("ana"), json!({})).await;
    assert_eq!(session.ask(2, "resources/subscribe", json!({"uri": TASKS})).await, json!({}));
    change(&host).await;
    // Nobody listened yet when it changed.
    let mut stream = session.listen(None).await;
    until_updated(&mut stream, TASKS).await;
}

#[tokio::test]
async fn what_was_chosen_in_a_session_outlives_the_host() {
    let mut host = Host::start().await;
    let session = Session::open(&host, &host.token("ana"), json!({})).await;
    let started = session.ask(2, "tools/call", json!({"name": "start", "arguments": {"name": "ana-2", "capabilities": []}})).await;
    assert_ne!(started["isError"], true, "{started}");
    assert_eq!(session.ask(3, "resources/subscribe", json!({"uri": TASKS})).await, json!({}));
    let mut stream = session.listen(None).await;
    change(&host).await;
    until_updated(&mut stream, TASKS).await;
    let seen = stream.last_event_id().expect("events have ids").to_owned();

    host.kill().await;
    host.restart().await;
    // It may have missed something, and is told so; and it is still subscribed.
    let mut stream = session.listen(Some(&seen)).await;
    until_updated(&mut stream, TASKS).await;
    let after_restart = stream.last_event_id().expect("events have ids").to_owned();
    assert_ne!(after_restart, seen);
    change(&host).await;
    until_updated(&mut stream, TASKS).await;

    // The agent that `start` chose is still the one that acts.
    let sent = json!({"to": ["agent:ana-2"], "subject": "to myself", "body": "still here"});
    let answer = session.ask(4, "tools/call", json!({"name": "send_message", "arguments": sent})).await;
    assert_ne!(answer["isError"], true, "{answer}");
    let mail = json!({"name": "wait_for_events", "arguments": {"max_s": 5}});
    let heard = session.ask(5, "tools/call", mail).await;
    assert!(heard["structuredContent"].to_string().contains("still here"), "{heard}");
}

#[tokio::test]
async fn an_ended_session_stays_ended_after_a_restart() {
    let mut host = Host::start().await;
    let session = Session::open(&host, &host.token("ana"), json!({})).await;
    session.ask(2, "ping", json!({})).await;
    assert_eq!(session.end().await, 204);
    assert_eq!(session.send(3, "ping", json!({})).await.status, 404);
    host.kill().await;
    host.restart().await;
    assert_eq!(session.send(4, "ping", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_request_that_the_host_lost_ends_with_an_error() {
    let mut host = Host::start_with(Setup::with_fixtures()).await;
    let session = Session::open(&host, &host.token("ana"), json!({"elicitation": {}})).await;
    let params = json!({"name": "test_elicitation", "arguments": {"message": "who are you?"}});
    let body = json!({"jsonrpc": "2.0", "id": "call \"7\"", "method": "tools/call", "params": params}).to_string();
    let headers = [("mcp-session-id", session.id.as_str())];
    let mut stream = session.client.open("POST", &headers, body.into()).await.expect("an answer");
    assert_eq!(next(&mut stream).await["method"], "elicitation/create");
    let seen = stream.last_event_id().expect("events have ids").to_owned();

    host.kill().await;
    host.restart().await;
    let mut stream = session.listen(Some(&seen)).await;
    let answer = next(&mut stream).await;
    assert_eq!((&answer["id"], &answer["error"]["data"]["code"]), (&json!("call \"7\""), &json!("answer_lost")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_host_of_a_store_serves_a_session_and_takes_its_answers() {
    let redis = Redis::start().await;
    let setup = || Setup { config: Setup::with_fixtures().config + &redis.config() };
    let (one, two) = (Host::start_with(setup()).await, Host::start_with(setup()).await);
    let here = Session::open(&one, &one.token("ana"), json!({"elicitation": {}})).await;
    let there = here.at(&two);
    assert_eq!(there.ask(2, "ping", json!({})).await, json!({}));

    // Asked on the stream of one host, it answers to the other.
    let params = json!({"name": "test_elicitation", "arguments": {"message": "who are you?"}});
    let body = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params}).to_string();
    let mut stream = here.client.open("POST", &[("mcp-session-id", &here.id)], body.into()).await.expect("an answer");
    let asked = next(&mut stream).await;
    assert_eq!(asked["method"], "elicitation/create");
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"name": "ana"}}});
    let authorization = format!("Bearer {}", there.token);
    let taken = there.client.raw(answer.to_string(), &there.with(&authorization)).await.expect("an answer");
    assert_eq!(taken.status, 202);
    let done = next(&mut stream).await;
    assert!(done["id"] == 3 && done["result"].to_string().contains("accept"), "{done}");

    // What it chooses at one host holds at the other, which has the session in memory already.
    let mut stream = here.listen(None).await;
    assert_eq!(there.ask(4, "resources/subscribe", json!({"uri": TASKS})).await, json!({}));
    change(&two).await;
    until_updated(&mut stream, TASKS).await;
    assert_eq!(there.end().await, 204);
    assert_eq!(here.send(5, "ping", json!({})).await.status, 404, "it has ended for both");
}
