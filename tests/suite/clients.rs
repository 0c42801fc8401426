//! Real clients, each in both eras: list tools, start, send, wait, ack. `tests/run.sh` installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use pointsman_tests::{Host, binary};
use serde_json::Value;

fn clients() -> PathBuf {
    let target = binary().parent().and_then(Path::parent).expect("the target folder").to_owned();
    let clients = target.join("clients");
    assert!(clients.exists(), "{} is missing: run tests/run.sh, which installs the clients", clients.display());
    clients
}

fn drivers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn told(mut command: Command, host: &Host, era: &str) {
    let out = command.output().expect("the client runs");
    let (said, complained) = (String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned());
    assert!(out.status.success(), "{era}: {said}\n{complained}\n{}", host.log());
    let last = said.lines().last().unwrap_or_default();
    let answer: Value = serde_json::from_str(last).expect("the last line is JSON");
    assert_eq!(answer["ok"], true);
    let tools = answer["tools"].as_array().expect("tools");
    for tool in ["start", "wait_for_events", "send_message", "lookup", "claim_task", "submit_branch", "write_context"] {
        assert!(tools.iter().any(|listed| listed == tool), "{tool} is listed: {tools:?}");
    }
}

/// Appends what every driver takes: address, token, era.
fn story(command: &mut Command, host: &Host, era: &str) {
    command.arg(format!("{}/mcp", host.url())).arg(host.token(&format!("client-{era}"))).arg(era);
}

async fn python(era: &str) {
    let host = Host::start().await;
    let mut command = Command::new(clients().join("python/bin/python"));
    command.arg(drivers().join("story.py"));
    story(&mut command, &host, era);
    told(command, &host, era);
}

async fn node(era: &str) {
    let host = Host::start().await;
    let own = clients().join("node/bin/node");
    let mut command = Command::new(if own.exists() { own } else { PathBuf::from("node") });
    command.arg(drivers().join("story.mjs"));
    story(&mut command, &host, era);
    command.arg(clients().join("node"));
    told(command, &host, era);
}

#[tokio::test]
async fn the_python_client_in_the_modern_era() {
    python("modern").await;
}

#[tokio::test]
async fn the_python_client_in_the_legacy_era() {
    python("legacy").await;
}

#[tokio::test]
async fn the_npm_client_in_the_modern_era() {
    node("modern").await;
}

#[tokio::test]
async fn the_npm_client_in_the_legacy_era() {
    node("legacy").await;
}
