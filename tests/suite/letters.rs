//! Dead letters on the command line, with a host and without one; and what agents read back of their messages.

use std::process::Output;

use pointsman_client::Client;
use pointsman_tests::{Agent, Era, Host, Setup};
use serde_json::{Value, json};

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Runs a `letters` command that must succeed; returns its JSON.
fn letters(host: &Host, args: &[&str]) -> Value {
    let args: Vec<&str> = ["letters"].iter().chain(args).copied().chain(["--json"]).collect();
    let out = host.command(&args);
    assert!(out.status.success(), "{args:?}: {}\n{}", said(&out), host.log());
    serde_json::from_slice(&out.stdout).expect("JSON")
}

/// A host that gives a message up when it was given back once.
async fn impatient() -> Host {
    Host::start_with(Setup { config: "[agents]\ndelivery_attempts_max = 1\n".to_owned() }).await
}

async fn send(ana: &Agent, subject: &str) -> String {
    let sent = ana.call("send_message", json!({"to": ["agent:ben"], "subject": subject, "body": "the lexer is broken"})).await;
    sent["message"].as_str().expect("an id").to_owned()
}

/// Is handed what waits and gives it back; returns how much that was.
async fn give_back(ben: &Agent) -> usize {
    let mail = ben.wait(&[], 0).await;
    let nack: Vec<Value> = mail.iter().map(|message| json!({"message": message["id"], "reason": "no tool chain"})).collect();
    ben.call("wait_for_events", json!({"nack": nack, "max_s": 0})).await;
    mail.len()
}

#[tokio::test]
async fn an_operator_lists_looks_into_replays_and_purges_dead_letters() {
    let mut host = impatient().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    assert!(said(&host.command(&["letters", "list"])).contains("no dead letters"));
    let (one, two) = (send(&ana, "first").await, send(&ana, "second").await);
    assert_eq!(give_back(&ben).await, 2);

    let listed = letters(&host, &["list"]);
    let ids: Vec<&str> = listed["letters"].as_array().expect("a list").iter().filter_map(|letter| letter["message"].as_str()).collect();
    assert_eq!(ids, [one.as_str(), two.as_str()], "{listed}");
    assert_eq!((&listed["letters"][0]["agent"], &listed["letters"][0]["reason"]), (&json!("ben"), &json!("no tool chain")));
    let table = said(&host.command(&["letters", "list", "--agent", "ben", "--limit", "1"]));
    assert!(table.contains("first") && !table.contains("second") && table.contains("--after "), "{table}");
    assert_eq!(letters(&host, &["list", "--older-than", "1h"])["letters"], json!([]));
    assert!(said(&host.command(&["status"])).contains("2 dead in demo"));
    assert_eq!(ana.call("lookup", json!({"uri": "dead_letters"})).await.as_array().map(Vec::len), Some(2), "agents see them, too");

    let shown = letters(&host, &["show", &one]);
    assert_eq!((&shown["message"]["subject"], &shown["letters"][0]["agent"]), (&json!("first"), &json!("ben")));
    let kinds: Vec<&str> = shown["history"].as_array().expect("a list").iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds, ["message.sent", "message.routed", "message.handed_out", "message.dead_lettered"]);
    assert!(said(&host.command(&["letters", "show", &one])).contains("no tool chain"));

    let unsaid = host.command(&["letters", "replay"]);
    assert_eq!(unsaid.status.code(), Some(2), "{}", said(&unsaid));
    let dry = letters(&host, &["replay", "--all", "--agent", "ben", "--dry-run"]);
    assert_eq!((&dry["selected"], &dry["changed"]), (&json!(2), &json!(0)));
    assert_eq!(letters(&host, &["replay", &one])["letters"][0]["outcome"], "revived");
    assert_eq!(letters(&host, &["replay", &one])["letters"][0]["outcome"], "unchanged", "once");
    let again = ben.wait(&[], 0).await;
    assert_eq!((again.len(), &again[0]["id"], &again[0]["attempt"]), (1, &json!(one), &json!(1)));
    ben.wait(&[one], 0).await;

    host.kill().await;
    assert_eq!(letters(&host, &["list"])["letters"].as_array().map(Vec::len), Some(1), "without a host the store is opened");
    assert_eq!(letters(&host, &["replay", "--all", "--anew"])["changed"], 1);
    host.restart().await;
    let ben = Client::new(&format!("{}/mcp", host.url()), &ben.token, Era::Modern).expect("a client");
    ben.connect().await.expect("it connects");
    let mail = ben.call("wait_for_events", json!({"max_s": 0})).await.expect("an answer")["result"]["messages"].clone();
    assert_eq!(mail[0]["id"], json!(two));
    ben.call("wait_for_events", json!({"nack": [{"message": two}], "max_s": 0})).await.expect("it is given back");
    assert_eq!(letters(&host, &["purge", "--all"])["changed"], 1);
    assert_eq!(letters(&host, &["purge", &two])["letters"][0]["outcome"], "unchanged");
    assert_eq!(letters(&host, &["list"])["letters"], json!([]));
    let unknown = host.command(&["letters", "show", "msg_22222222222222222222222222"]);
    assert!(!unknown.status.success() && said(&unknown).contains("no project has a message"), "{}", said(&unknown));
}

#[tokio::test]
async fn agents_find_and_read_back_what_was_said() {
    let host = Host::start().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let first = send(&ana, "first").await;
    send(&ana, "second").await;
    let search = json!({"uri": "messages?q=LEXER broken&from=ana"});
    let subjects = |found: &Value| -> Vec<String> {
        let all = found["messages"].as_array().cloned().unwrap_or_default();
        all.iter().filter_map(|message| message["subject"].as_str().map(str::to_owned)).collect()
    };
    host.eventually("the index", || async { subjects(&ben.call("lookup", search.clone()).await) == ["second", "first"] }).await;
    assert_eq!(subjects(&ben.call("lookup", json!({"uri": "messages?since=1h"})).await), ["first", "second"]);
    ben.wait(&[], 0).await;
    ben.wait(&[first], 0).await;
    let inbox = ben.call("lookup", json!({"uri": "inbox?since=1h"})).await;
    let standings: Vec<&str> = inbox["messages"].as_array().expect("a list").iter().filter_map(|one| one["standing"].as_str()).collect();
    assert_eq!(standings, ["acked", "handed_out"], "{inbox}");
    assert_eq!(ben.refused("lookup", json!({"uri": "messages?since=whenever"})).await, "bad_argument");

    let out = host.command(&["agent", "add", "ops", "--toolset", "admin", "--json"]);
    let ops = serde_json::from_slice::<Value>(&out.stdout).expect("JSON")["secret"].as_str().expect("a secret").to_owned();
    let client = Client::new(&format!("{}/mcp", host.url()), "", Era::Modern).expect("a client");
    let credential = format!("Bearer {ops}");
    let figures = client.request("GET", "/metrics", &[("authorization", credential.as_str())], Default::default()).await.expect("figures");
    let text = String::from_utf8_lossy(&figures.body);
    assert!(text.contains("pointsman_messages_pruned_total 0") && text.contains("pointsman_message_index_messages 2"), "{text}");
}
