//! Plugins that would take more than they are given, bound into a real host: each ends in its own outcome, by name, and the
//! host goes on serving everybody else.

use std::fmt::Write as _;
use std::path::Path;

use hostile_guests::{Guest, Outcome, When};
use pointsman_tests::{Agent, Host, Setup, pointsman};
use serde_json::{Value, json};

/// Lines of its own that a plugin may have in the host's log after a minute.
const LINES_MAX: usize = 1_000;
/// MiB the host may grow by while hostile plugins are asked again and again: each of them alone asks for 32 in a call.
const GROWTH_MIB_MAX: usize = 96;

fn routers(when: When) -> Vec<&'static Guest> {
    hostile_guests::guests().filter(|guest| guest.world == "router" && guest.when == when).collect()
}

/// Returns the tables of plugins, and their names in a list.
fn bound(guests: &[&Guest]) -> (String, Vec<&'static str>) {
    let mut tables = String::new();
    for guest in guests {
        let source = json!(guest.path().to_string_lossy());
        let _ = writeln!(tables, "[plugins.{}]\nsource = {source}\nworld = \"{}\"", guest.name, guest.world);
    }
    (tables, guests.iter().map(|guest| guest.name).collect())
}

/// Returns the words an outcome is recorded with.
fn words(guest: &Guest) -> String {
    let plugin = guest.name;
    match guest.outcome {
        Outcome::Answer => "passed: ".to_owned(),
        Outcome::Trap => format!("plugin `{plugin}` trapped: "),
        Outcome::Limit(name) => format!("plugin `{plugin}` reached its limit of {name}"),
        Outcome::Invalid(why) => why.to_owned(),
    }
}

/// Returns the first event of a type about a subject, if it has come.
async fn event(agent: &Agent, kind: &str, subject: &Value) -> Option<Value> {
    let mut after = String::new();
    loop {
        let events = agent.call("lookup", json!({"uri": format!("events{after}")})).await;
        let events = events.as_array().cloned().unwrap_or_default();
        if let Some(found) = events.iter().find(|event| event["type"] == kind && event["subject"] == *subject) {
            return Some(found.clone());
        }
        let last = &events.last()?["cursor"];
        after = format!("/{}.{}", last["epoch"], last["seq"]);
    }
}

/// Returns what every router said of a message, by its name.
async fn asked(agent: &Agent, message: &Value) -> Vec<(String, String)> {
    let routed = event(agent, "message.routed", message).await.expect("it was routed");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = routed["data"]["asked"].as_array().cloned().unwrap_or_default();
    list.iter().map(|one| (text(&one["router"]), text(&one["outcome"]))).collect()
}

fn resident_mib(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the host runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().expect("a number") / 1_024
}

async fn send(from: &Agent, to: &str) -> Value {
    from.call("send_message", json!({"to": [to], "kind": "request", "subject": "who?"})).await["message"].clone()
}

#[tokio::test]
async fn each_hostile_router_ends_in_its_outcome_and_every_message_arrives() {
    let guests = routers(When::Called);
    let (tables, mut names) = bound(&guests);
    names.push("routing-capability");
    let host = Host::start_with(Setup { config: format!("[routing]\nplugins = {}\n{tables}", json!(names)) }).await;
    let ana = host.agent("ana", &["backend"]).await;
    let ben = host.agent("ben", &[]).await;

    let message = send(&ben, "backend").await;
    let said = asked(&ben, &message).await;
    assert_eq!(said.len(), guests.len(), "{said:?}");
    for (guest, (router, outcome)) in guests.iter().zip(&said) {
        assert!(*router == guest.name && outcome.contains(&words(guest)), "{router}: {outcome}");
    }
    assert_eq!(ana.drain().await.len(), 1);

    let before = resident_mib(host.pid());
    for _ in 0..12 {
        send(&ben, "backend").await;
        assert_eq!(ana.drain().await.len(), 1);
    }
    let after = resident_mib(host.pid());
    assert!(after < before + GROWTH_MIB_MAX, "the host grew from {before} to {after} MiB");
    // Those that keep looping wait for their turn by now, which does not come at once; the others are as before.
    let message = send(&ben, "backend").await;
    let said = asked(&ben, &message).await;
    for (guest, (router, outcome)) in guests.iter().zip(&said) {
        let has_no_turn = guest.outcome == Outcome::Limit("time") && outcome.contains("reached its limit of concurrency");
        assert!(has_no_turn || outcome.contains(&words(guest)), "{router}: {outcome}");
    }
}

#[tokio::test]
async fn a_hostile_reconciler_costs_a_conflict_and_the_others_go_on() {
    let guests: Vec<&Guest> = ["reconciler-loops", "reconciler-traps"].iter().filter_map(|name| hostile_guests::guest(name)).collect();
    let (tables, _) = bound(&guests);
    let bindings = "[[context.reconciler]]\nplugin = \"reconciler-loops\"\nkeys = [\"loops/**\"]\n\
                    [[context.reconciler]]\nplugin = \"reconciler-traps\"\nkeys = [\"traps/**\"]\n\
                    [[context.reconciler]]\nplugin = \"context-json\"\n";
    let tables = tables.replace("reconciler-loops.wasm\"\n", "reconciler-loops.wasm\"\nlimits = { deadline_ms = 100 }\n");
    let host = Host::start_with(Setup { config: format!("{bindings}{tables}") }).await;
    let ana = host.agent("ana", &[]).await;
    let write = |key: &str, base: u64, value: Value| json!({"key": key, "base_version": base, "value": value});
    for key in ["loops/a", "traps/a", "plan"] {
        let first = ana.call("write_context", write(key, 0, json!({"a": 1, "b": 1}))).await["version"].as_u64().expect("a version");
        ana.call("write_context", write(key, first, json!({"a": 2, "b": 1}))).await;
        // The hostile ones are passed over; the shipped one merges.
        let merged = ana.call("write_context", write(key, first, json!({"a": 1, "b": 2}))).await;
        assert_eq!(merged["plugin"], "context-json", "{key}: {merged}");
    }
}

#[tokio::test]
async fn an_agent_that_never_ends_is_left_alone_and_its_messages_wait() {
    let guests: Vec<&Guest> = hostile_guests::guest("agent-loops").into_iter().collect();
    let (tables, _) = bound(&guests);
    let tables = tables.replace("agent-loops.wasm\"\n", "agent-loops.wasm\"\nlimits = { deadline_ms = 50 }\n");
    let host = Host::start_with(Setup { config: format!("[[agent]]\nplugin = \"agent-loops\"\n{tables}") }).await;
    let ana = host.agent("ana", &[]).await;
    let out = host.command(&["agent", "add", "ops", "--toolset", "admin", "--json"]);
    let ops: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let credential = format!("Bearer {}", ops["secret"].as_str().expect("a secret"));
    let figure = async |labels: &str| {
        let answer = ana.client.request("GET", "/metrics", &[("authorization", credential.as_str())], Vec::new().into()).await;
        let text = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned()).expect("figures");
        let value = text.lines().find_map(|line| line.strip_prefix(labels).and_then(|value| value.trim().parse::<f64>().ok()));
        value.unwrap_or_default()
    };
    for n in 0..8 {
        ana.call("send_message", json!({"to": ["agent:loops"], "subject": n.to_string()})).await;
    }
    host.eventually("its rest", async || figure("pointsman_plugin_resting{plugin=\"agent-loops\"}").await > 0.0).await;
    let limited = figure("pointsman_plugin_calls_total{plugin=\"agent-loops\",outcome=\"limited\"}").await;
    assert!((5.0..8.0).contains(&limited), "it was asked {limited} times, and then no more");
    let letters = host.command(&["letters", "list", "--json"]);
    assert!(letters.status.success() && !String::from_utf8_lossy(&letters.stdout).contains("msg_"), "what it was sent waits");
    host.eventually("another try, after its rest", async || {
        figure("pointsman_plugin_calls_total{plugin=\"agent-loops\",outcome=\"limited\"}").await > limited
    })
    .await;
}

#[tokio::test]
async fn what_must_not_load_is_named_and_the_host_does_not_start() {
    let host = Host::start().await;
    let data = host.folder().join("data");
    let mut host = host;
    host.kill().await;
    for guest in routers(When::Loaded) {
        let (tables, names) = bound(&[guest]);
        let config = host.folder().join("hostile.toml");
        let text =
            format!("config_version = 1\n[data]\ndir = {}\n[routing]\nplugins = {}\n{tables}", json!(data.to_string_lossy()), json!(names));
        std::fs::write(&config, text).expect("a configuration");
        let said = refused(&config);
        let words = match guest.outcome {
            Outcome::Trap => "trapped: ".to_owned(),
            Outcome::Answer | Outcome::Limit(_) | Outcome::Invalid(_) => words(guest),
        };
        assert!(said.contains(&format!("plugin `{}` cannot be loaded", guest.name)) && said.contains(&words), "{}: {said}", guest.name);
    }
    // Nothing of them stays behind: the host starts as before.
    host.restart().await;
    host.agent("ana", &[]).await;
}

fn refused(config: &Path) -> String {
    let out = pointsman(&["agent", "list", "--json", "--config"]).arg(config).output().expect("the binary runs");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(!out.status.success(), "{said}");
    said
}

#[tokio::test]
async fn a_flood_of_log_lines_is_a_trickle_in_the_hosts_log() {
    let flood = hostile_guests::guest("log-flood").expect("a guest");
    let (tables, _) = bound(&[flood]);
    let host = Host::start_with(Setup { config: format!("[[agent]]\nplugin = \"log-flood\"\n{tables}") }).await;
    let ana = host.agent("ana", &[]).await;
    let message = send(&ana, "agent:flood").await;
    host.eventually("the flood ends at its limit", || async {
        let failed = event(&ana, "resident.failed", &json!("plugin:log-flood")).await;
        failed.is_some_and(|failed| failed["data"]["event"] == message && failed["data"]["why"].to_string().contains("log lines"))
    })
    .await;
    // Of 10,000 lines a call the log has a hundred at most; the next one that is written says how many were left out before it.
    host.eventually("a line after the flood", async || floods(&host).iter().any(|left_out| *left_out > 9_000)).await;
    let lines = floods(&host).len();
    assert!(lines < LINES_MAX, "{lines} lines");
}

/// Returns how many lines were left out before each line of the flood.
fn floods(host: &Host) -> Vec<u64> {
    let log = host.log();
    let lines = log.lines().filter(|line| line.contains("flood of lines"));
    lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()?["left_out"].as_u64()).collect()
}
