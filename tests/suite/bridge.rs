//! `pointsman mcp`: the host as a process that a client starts, seen line by line. The Python client's stories through it stand in
//! `clients.rs`.

use std::process::Stdio;
use std::time::Duration;

use pointsman_tests::{Client, DEADLINE_S, Era, Host, Relay, Setup, binary, free_port};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

struct Bridge {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Bridge {
    fn start(url: &str, token: &str) -> Self {
        let mut command = Command::new(binary());
        command.args(["mcp", "--url", url]).env_remove("POINTSMAN_TOKEN").stdin(Stdio::piped()).stdout(Stdio::piped());
        if !token.is_empty() {
            command.env("POINTSMAN_TOKEN", token);
        }
        let mut child = command.kill_on_drop(true).spawn().expect("the bridge starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, input, output }
    }

    async fn write(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }

    async fn ask(&mut self, id: u64, method: &str, params: Value) {
        self.write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()).await;
    }

    /// Returns the next message; none at the end of its output.
    async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(Duration::from_secs(2 * DEADLINE_S), self.output.next_line()).await;
        let line = line.expect("it says something in time").expect("it writes text")?;
        let message: Value = serde_json::from_str(&line).expect("it writes JSON and nothing else");
        assert_eq!(message["jsonrpc"], "2.0", "{message}");
        Some(message)
    }

    /// Returns the answer to a request, passing over notifications.
    async fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.next().await.expect("it goes on");
            if message["method"].is_null() {
                assert_eq!(message["id"], id, "{message}");
                return message;
            }
        }
    }

    async fn initialize(&mut self) -> Value {
        let info = json!({"name": "test", "version": "1"});
        self.ask(1, "initialize", json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info})).await;
        let answer = self.answer(1).await;
        self.write(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        answer
    }
}

fn modern(mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    });
    params
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named_with_what_to_do() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let mut bridge = Bridge::start(&url, "some-token");
    bridge.ask(1, "server/discover", modern(json!({}))).await;
    let error = bridge.answer(1).await["error"].take();
    assert!(error["message"].as_str().is_some_and(|why| why.contains(&url)), "{error}");
    assert_eq!(error["data"]["code"], "host_unreachable");
    assert!(error["data"]["do"].as_str().is_some_and(|advice| advice.contains("pointsman up") && advice.contains("--url")), "{error}");
}

#[tokio::test]
async fn a_missing_or_wrong_token_is_named_with_what_to_do() {
    let host = Host::start().await;
    for (token, why) in [("", "not set"), ("${POINTSMAN_TOKEN}", "did not replace"), ("ptm_wrong", "refused")] {
        let mut bridge = Bridge::start(&host.url(), token);
        bridge.ask(1, "server/discover", modern(json!({}))).await;
        let error = bridge.answer(1).await["error"].take();
        assert!(error["message"].as_str().is_some_and(|said| said.contains(why)), "{token}: {error}");
        assert_eq!(error["data"]["code"], "unauthorized", "{token}: {error}");
        let advice = error["data"]["do"].as_str().unwrap_or_default();
        assert!(advice.contains("POINTSMAN_TOKEN") && advice.contains("pointsman agent add"), "{token}: {error}");
    }
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_the_rest_goes_on() {
    let host = Host::start().await;
    let mut bridge = Bridge::start(&host.url(), &host.token("ana"));
    bridge.write("hello").await;
    let refused = bridge.next().await.expect("an answer");
    assert_eq!((&refused["error"]["code"], refused.get("id")), (&json!(-32700), None), "{refused}");
    // Both families of revisions at once, over one pair of streams.
    assert_eq!(bridge.initialize().await["result"]["protocolVersion"], "2025-11-25");
    bridge.ask(2, "ping", json!({})).await;
    assert_eq!(bridge.answer(2).await["result"], json!({}));
    bridge.ask(3, "server/discover", modern(json!({}))).await;
    assert_eq!(bridge.answer(3).await["result"]["resultType"], "complete");
}

#[tokio::test]
async fn the_end_of_the_input_comes_after_what_was_asked() {
    let host = Host::start().await;
    let mut bridge = Bridge::start(&host.url(), &host.token("ana"));
    for id in 1..=20 {
        bridge.ask(id, "tools/list", modern(json!({}))).await;
    }
    bridge.input = None;
    let mut answered = Vec::new();
    while let Some(message) = bridge.next().await {
        assert!(message["result"]["tools"].is_array(), "{message}");
        answered.extend(message["id"].as_u64());
    }
    answered.sort_unstable();
    assert_eq!(answered, (1..=20).collect::<Vec<_>>());
    let ended = tokio::time::timeout(Duration::from_secs(DEADLINE_S), bridge.child.wait()).await;
    assert!(ended.expect("it ends in time").expect("a status").success());
}

fn call(name: &str, arguments: Value) -> Value {
    modern(json!({"name": name, "arguments": arguments}))
}

/// Starts an agent; returns its handle.
async fn started(bridge: &mut Bridge) -> Value {
    bridge.ask(1, "tools/call", call("start", json!({"name": "ana"}))).await;
    let started = bridge.answer(1).await;
    let agent = started["result"]["structuredContent"]["result"]["handle"].clone();
    assert!(agent.is_string(), "{started}");
    agent
}

#[tokio::test]
async fn a_wait_outlives_the_host() {
    let mut host = Host::start().await;
    let mut bridge = Bridge::start(&host.url(), &host.token("ana"));
    let agent = started(&mut bridge).await;
    bridge.ask(2, "tools/call", call("wait_for_events", json!({"agent": agent, "max_s": 50}))).await;
    // An answer to what was asked after it: the wait is under way.
    bridge.ask(3, "tools/list", modern(json!({}))).await;
    assert!(bridge.answer(3).await["result"]["tools"].is_array());
    host.restart().await;
    let other = host.agent("other", &[]).await;
    other.call("send_message", json!({"to": ["agent:ana"], "kind": "note", "subject": "still there?"})).await;
    let waited = bridge.answer(2).await;
    let messages = waited["result"]["structuredContent"]["result"]["messages"].as_array().cloned().unwrap_or_default();
    assert!(messages.iter().any(|message| message["subject"] == "still there?"), "{waited}");
}

#[tokio::test]
async fn a_wait_that_the_client_cancelled_is_not_answered() {
    let host = Host::start().await;
    let mut bridge = Bridge::start(&host.url(), &host.token("ana"));
    let agent = started(&mut bridge).await;
    bridge.ask(2, "tools/call", call("wait_for_events", json!({"agent": agent, "max_s": 50}))).await;
    bridge.write(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#).await;
    bridge.input = None;
    assert_eq!(bridge.next().await, None, "neither an answer nor a wait for one");
}

#[tokio::test]
async fn a_session_that_the_host_forgot_is_opened_again_unseen() {
    let host = Host::start().await;
    let token = host.token("ana");
    let relay = Relay::before(&host.url()).await;
    let mut bridge = Bridge::start(relay.url(), &token);
    bridge.initialize().await;
    bridge.ask(2, "resources/subscribe", json!({"uri": "pointsman://tasks"})).await;
    assert_eq!(bridge.answer(2).await["result"], json!({}));

    let answered = String::from_utf8(relay.answered()).expect("text");
    let header = |line: &str| line.to_lowercase().strip_prefix("mcp-session-id: ").map(|id| line[line.len() - id.len()..].to_owned());
    let session = answered.lines().find_map(header).expect("a session was opened");
    let client = Client::new(&format!("{}/mcp", host.url()), &token, Era::Legacy).expect("a client");
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("mcp-session-id", session.trim())];
    let ended = client.request("DELETE", "/mcp", &headers, Vec::<u8>::new().into()).await.expect("an answer");
    assert_eq!(ended.status, 204);

    bridge.ask(3, "tools/list", json!({})).await;
    // The new session is subscribed as the old one was, and hears that it may have missed something: before the answer or after it.
    let updated =
        |message: &Value| message["method"] == "notifications/resources/updated" && message["params"]["uri"] == "pointsman://tasks";
    let (mut is_answered, mut is_told) = (false, false);
    while !(is_answered && is_told) {
        let message = bridge.next().await.expect("it goes on");
        is_told |= updated(&message);
        is_answered |= message["id"] == 3 && message["result"]["tools"].is_array();
    }
    host.agent("other", &[]).await.call("create_task", json!({"title": "Something new"})).await;
    while !updated(&bridge.next().await.expect("it goes on")) {}
}

#[tokio::test]
async fn arguments_are_mirrored_without_the_client_knowing_of_headers() {
    let host = Host::start_with(Setup::with_fixtures()).await;
    let mut bridge = Bridge::start(&host.url(), &host.token("ana"));
    // The client has not listed the tools, so the bridge learns of the headers from the host's refusal.
    bridge.ask(1, "tools/call", call("test_custom_header", json!({"region": "Côte d'Or"}))).await;
    let answer = bridge.answer(1).await;
    assert!(answer["result"]["content"].is_array() && answer["result"]["isError"] != true, "{answer}");
}
