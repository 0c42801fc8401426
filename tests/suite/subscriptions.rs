//! Being told of shared documents as they change, in either family of revisions: which of them, what is said, and to whom nothing is.

use std::time::Duration;

use pointsman_client::{Client, Era, Streamed};
use pointsman_tests::{Agent, DEADLINE_S, Host, Session, Setup, next};
use serde_json::{Value, json};

const VERSION: &str = "2026-07-28";
const PLAN: &str = "pointsman://context/plan/**";
const LIST: &str = "pointsman://context";
/// Everything that a reader of some folder could ask for, to hear of what is closed to it.
const CURIOUS: [&str; 4] = [PLAN, "pointsman://context/secret/*", "pointsman://context/secret/key", LIST];

/// Returns a host where only the agent `ana` may read what is below `secret/`.
async fn with_secrets() -> Host {
    Host::start_with(Setup { config: "[[context.rule]]\nkeys = [\"secret/**\"]\nread = [\"agent:ana\"]\n".to_owned() }).await
}

async fn write(agent: &Agent, key: &str, base: u64, value: Value) {
    let written = agent.call("write_context", json!({"key": key, "base_version": base, "value": value})).await;
    assert_eq!(written["version"], base + 1, "{written}");
}

/// Listens as 2026-07-28 has it; returns the stream and which resources were acknowledged.
async fn listen(host: &Host, agent: &Agent, uris: &[&str]) -> (Streamed, Value) {
    let client = Client::new(&format!("{}/mcp", host.url()), &agent.token, Era::Modern).expect("a client");
    let meta = json!({"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"notifications": {"resourceSubscriptions": uris}, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}).to_string();
    let headers = [("mcp-protocol-version", VERSION), ("mcp-method", "subscriptions/listen")];
    let mut stream = client.open("POST", &headers, body.into()).await.expect("a stream");
    let acknowledged = next(&mut stream).await["params"]["notifications"]["resourceSubscriptions"].take();
    (stream, acknowledged)
}

/// Subscribes in a session as the revisions before have it; returns the session and its stream.
async fn subscribe(host: &Host, agent: &Agent, uris: &[&str]) -> (Session, Streamed) {
    let session = Session::open(host, &agent.token, json!({})).await;
    for (id, uri) in (2..).zip(uris) {
        assert_eq!(session.ask(id, "resources/subscribe", json!({"uri": uri})).await, json!({}), "{uri}");
    }
    let stream = session.listen(None).await;
    (session, stream)
}

/// Returns the URI of the next resource that is said to have changed, and what of it.
async fn updated(stream: &mut Streamed) -> (String, Value) {
    let told = tokio::time::timeout(Duration::from_secs(DEADLINE_S), next(stream)).await.expect("it is told in time");
    assert_eq!(told["method"], "notifications/resources/updated", "{told}");
    let mut meta = told["params"]["_meta"].clone();
    if let Value::Object(meta) = &mut meta {
        meta.remove("io.modelcontextprotocol/subscriptionId");
    }
    (told["params"]["uri"].as_str().unwrap_or_default().to_owned(), meta)
}

/// Returns the next document that is said to have changed, and what of it.
async fn updated_document(stream: &mut Streamed) -> (String, Value) {
    loop {
        let (uri, meta) = updated(stream).await;
        if uri != LIST {
            return (uri, meta);
        }
    }
}

#[tokio::test]
async fn who_watches_a_folder_of_documents_hears_what_changed_and_nothing_of_closed_ones() {
    let host = with_secrets().await;
    let (ana, bo) = (host.agent("ana", &[]).await, host.agent("bo", &[]).await);
    let (mut of_ana, _) = listen(&host, &ana, &["pointsman://context/secret/*"]).await;
    let (listening, acknowledged) = listen(&host, &bo, &CURIOUS).await;
    let asked: std::collections::BTreeSet<_> = CURIOUS.into_iter().collect();
    assert_eq!(acknowledged, json!(asked), "a closed document is acknowledged as any that is not there");
    let (_session, in_session) = subscribe(&host, &bo, &CURIOUS).await;

    write(&ana, "secret/key", 0, json!({"k": 1})).await;
    write(&ana, "secret/key", 1, json!({"k": 2})).await;
    write(&ana, "plan/api", 0, json!({"routes": []})).await;
    let mut streams = [listening, in_session];
    for stream in &mut streams {
        let begun = json!({"pointsman/version": 1, "pointsman/author": "ana"});
        assert_eq!(updated(stream).await, ("pointsman://context/plan/api".to_owned(), begun), "the first that is told");
    }
    write(&bo, "plan/api", 1, json!({"routes": ["/a"]})).await;
    let patch = json!([{"op": "add", "path": "/routes/0", "value": "/a"}]);
    for stream in &mut streams {
        let (uri, changed) = updated_document(stream).await;
        assert_eq!((uri.as_str(), &changed["pointsman/version"]), ("pointsman://context/plan/api", &json!(2)));
        assert_eq!((&changed["pointsman/from"], &changed["pointsman/author"]), (&json!(1), &json!("bo")));
        assert_eq!(changed["pointsman/patch"], patch);
    }
    write(&ana, "secret/key", 2, json!({"k": 3})).await;
    ana.call("write_context", json!({"key": "plan/api", "base_version": 2, "delete": true})).await;
    let gone = json!({"pointsman/version": 3, "pointsman/author": "ana", "pointsman/from": 2, "pointsman/deleted": true});
    for stream in &mut streams {
        assert_eq!(updated_document(stream).await, ("pointsman://context/plan/api".to_owned(), gone.clone()));
    }

    // Its reader heard all of it.
    let mut newest = 0;
    while newest < 3 {
        let (uri, changed) = updated(&mut of_ana).await;
        assert_eq!(uri, "pointsman://context/secret/key");
        newest = changed["pointsman/version"].as_u64().expect("a version");
    }
}

#[tokio::test]
async fn a_session_hears_no_more_of_a_folder_it_unsubscribed_from() {
    let host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let (session, mut stream) = subscribe(&host, &ana, &[PLAN, "pointsman://context/notes/a"]).await;
    write(&ana, "plan/api", 0, json!(1)).await;
    assert_eq!(updated(&mut stream).await.0, "pointsman://context/plan/api");
    assert_eq!(session.ask(9, "resources/unsubscribe", json!({"uri": PLAN})).await, json!({}));
    write(&ana, "plan/api", 1, json!(2)).await;
    write(&ana, "notes/a", 0, json!(1)).await;
    assert_eq!(updated(&mut stream).await.0, "pointsman://context/notes/a");
}

#[tokio::test]
async fn writes_that_nobody_read_yet_are_told_as_one() {
    const WRITES: u64 = 6;
    let host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    write(&ana, "plan/api", 0, json!(0)).await;
    let session = Session::open(&host, &ana.token, json!({})).await;
    assert_eq!(session.ask(2, "resources/subscribe", json!({"uri": PLAN})).await, json!({}));
    for base in 1..WRITES {
        write(&ana, "plan/api", base, json!(base)).await;
    }
    let mut stream = session.listen(None).await;
    let first = updated(&mut stream).await.1;
    assert_eq!((&first["pointsman/since"], first.get("pointsman/patch")), (&json!(1), None), "{first}");
    // The last of them may still have been on their way.
    let mut newest = first["pointsman/version"].as_u64().expect("a version");
    while newest < WRITES {
        let further = updated(&mut stream).await.1;
        let before = further["pointsman/since"].as_u64().or(further["pointsman/from"].as_u64());
        assert_eq!(before, Some(newest), "{further}");
        newest = further["pointsman/version"].as_u64().expect("a version");
    }
}
