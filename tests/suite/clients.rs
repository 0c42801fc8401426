//! Real clients, each in every era it speaks: list, start, send, wait, ack, hear of a change, give up a wait, be asked, and go on
//! without being restarted after the host was killed. `tests/run.sh` installs them.
//!
//! The drivers below `tests/clients` tell the story; what only the world around a client can do they ask for here.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pointsman_tests::{Agent, DEADLINE_S, Host, Setup, binary};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// Seconds between two words of a driver: its own deadlines are shorter and say more.
const SILENCE_S: u64 = 4 * DEADLINE_S;

fn clients() -> PathBuf {
    let target = binary().parent().and_then(Path::parent).expect("the target folder").to_owned();
    let clients = target.join("clients");
    assert!(clients.exists(), "{} is missing: run tests/run.sh, which installs the clients", clients.display());
    clients
}

fn drivers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Returns the Node that the npm clients want: the one beside them, else the system's.
fn node() -> PathBuf {
    let own = clients().join("node/bin/node");
    if own.exists() { own } else { PathBuf::from("node") }
}

/// What the drivers of a language are given: `STORY CLIENT ERA URL TOKEN` and what is its own.
fn driver(language: &str, story: &str, client: &str, era: &str, host: &Host) -> Command {
    let (program, file) = match language {
        "python" => (clients().join("python/bin/python"), "story.py"),
        _ => (node(), "story.mjs"),
    };
    let mut command = Command::new(program);
    command.arg(drivers().join(file)).args([story, client, era]);
    command.arg(format!("{}/mcp", host.url())).arg(host.token(&format!("client-{client}-{era}")));
    command.arg(clients().join("node")).env("BRIDGE", binary());
    command
}

/// Runs a driver and does what it asks for; returns its outcome.
async fn told(mut command: Command, host: &mut Host) -> Value {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("it runs");
    let mut done = child.stdin.take().expect("piped");
    let mut words = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut complaints = child.stderr.take().expect("piped");
    let complaints = tokio::spawn(async move {
        let mut text = String::new();
        drop(complaints.read_to_string(&mut text).await);
        text
    });
    let other = host.agent("other", &[]).await;
    let mut last = Value::Null;
    loop {
        let word = tokio::time::timeout(Duration::from_secs(SILENCE_S), words.next_line()).await;
        let Some(word) = word.expect("the driver says something").expect("its words are text") else { break };
        last = serde_json::from_str(&word).expect("its words are JSON");
        if let Some(asked) = last["ask"].as_str() {
            perform(asked, &other, host).await;
            done.write_all(b"done\n").await.expect("the driver listens");
        }
    }
    let status = child.wait().await.expect("it ended");
    let complaints = complaints.await.expect("read");
    assert!(status.success() && last["ok"] == true, "{last}\n{complaints}\n{}", host.log());
    last
}

/// Plays the world around a client.
async fn perform(asked: &str, other: &Agent, host: &mut Host) {
    match asked {
        "change" => drop(other.call("create_task", json!({"title": "Something new"})).await),
        "restart" => host.restart().await,
        unknown => unreachable!("a driver asked for `{unknown}`"),
    }
}

async fn works(language: &str, client: &str, era: &str) {
    let mut host = Host::start().await;
    let outcome = told(driver(language, "work", client, era, &host), &mut host).await;
    has_the_tools(&outcome["tools"]);
}

fn has_the_tools(tools: &Value) {
    let tools = tools.as_array().expect("tools");
    for tool in ["start", "wait_for_events", "send_message", "lookup", "claim_task", "submit_branch", "write_context"] {
        assert!(tools.iter().any(|listed| listed == tool), "{tool} is listed: {tools:?}");
    }
}

#[tokio::test]
async fn the_python_client_in_the_modern_era() {
    works("python", "mcp", "modern").await;
}

#[tokio::test]
async fn the_python_client_by_negotiation() {
    works("python", "mcp", "auto").await;
}

#[tokio::test]
async fn the_python_client_in_the_legacy_era() {
    works("python", "mcp", "legacy").await;
}

#[tokio::test]
async fn the_python_client_through_the_bridge_in_the_modern_era() {
    works("python", "stdio", "modern").await;
}

#[tokio::test]
async fn the_python_client_through_the_bridge_in_the_legacy_era() {
    works("python", "stdio", "legacy").await;
}

#[tokio::test]
async fn fastmcp_by_negotiation() {
    works("python", "fastmcp", "auto").await;
}

#[tokio::test]
async fn fastmcp_in_the_legacy_era() {
    works("python", "fastmcp", "legacy").await;
}

#[tokio::test]
async fn the_npm_client_in_the_modern_era() {
    works("node", "client", "modern").await;
}

#[tokio::test]
async fn the_npm_client_by_negotiation() {
    works("node", "client", "auto").await;
}

#[tokio::test]
async fn the_npm_client_in_the_legacy_era() {
    works("node", "client", "legacy").await;
}

#[tokio::test]
async fn the_npm_sdk_in_the_legacy_era() {
    works("node", "sdk", "legacy").await;
}

/// Runs the inspector once; it lives for one question, so there is nothing for it to outlive.
async fn inspected(host: &Host, token: &str, era: &str, question: &[&str]) -> Value {
    let program = clients().join("node/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    let mut command = Command::new(node());
    command.arg(program).args(["--cli", "--server-url", &format!("{}/mcp", host.url()), "--transport", "http", "--protocol-era", era]);
    command.args(["--header", &format!("Authorization: Bearer {token}"), "--format", "json", "--quiet"]).args(question);
    // Its catalogue and its OAuth store stay with the test.
    command.env("HOME", host.folder()).stdin(Stdio::null()).kill_on_drop(true);
    let ran = tokio::time::timeout(Duration::from_secs(SILENCE_S), command.output()).await;
    let out = ran.expect("the inspector ends in time").expect("it runs");
    let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{era} {question:?}: {said}\n{complained}\n{}", host.log());
    let mut printed: Value = serde_json::from_str(&said).expect("the inspector prints JSON");
    printed["result"].take()
}

async fn inspects(era: &str) {
    let mut host = Host::start().await;
    let token = host.token("inspector");
    for when in ["first", "after the host was killed"] {
        let listed = inspected(&host, &token, era, &["--method", "tools/list"]).await;
        let names: Vec<Value> = listed["tools"].as_array().expect("tools").iter().map(|tool| tool["name"].clone()).collect();
        has_the_tools(&names.into());
        let name = r#"{"name":"inspector"}"#;
        let started = inspected(&host, &token, era, &["--method", "tools/call", "--tool-name", "start", "--tool-args-json", name]).await;
        assert!(started["structuredContent"]["result"]["handle"].is_string(), "{when}: {started}");
        host.restart().await;
    }
}

#[tokio::test]
async fn the_inspector_in_the_modern_era() {
    inspects("modern").await;
}

#[tokio::test]
async fn the_inspector_by_negotiation() {
    inspects("auto").await;
}

#[tokio::test]
async fn the_inspector_in_the_legacy_era() {
    inspects("legacy").await;
}

/// Has a tool ask the client something. The conformance fixtures are what asks.
async fn is_asked(language: &str, client: &str, era: &str) {
    let mut host = Host::start_with(Setup::with_fixtures()).await;
    told(driver(language, "elicit", client, era, &host), &mut host).await;
}

#[tokio::test]
async fn the_python_client_is_asked_by_a_tool() {
    for era in ["modern", "auto", "legacy"] {
        is_asked("python", "mcp", era).await;
    }
}

#[tokio::test]
async fn the_python_client_is_asked_through_the_bridge() {
    for era in ["modern", "legacy"] {
        is_asked("python", "stdio", era).await;
    }
}

#[tokio::test]
async fn fastmcp_is_asked_by_a_tool() {
    for era in ["auto", "legacy"] {
        is_asked("python", "fastmcp", era).await;
    }
}

#[tokio::test]
async fn the_npm_clients_are_asked_by_a_tool() {
    for (client, era) in [("client", "modern"), ("client", "auto"), ("client", "legacy"), ("sdk", "legacy")] {
        is_asked("node", client, era).await;
    }
}
