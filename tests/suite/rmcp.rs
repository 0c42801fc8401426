//! The official Rust SDK beside ours: its client talks to our host, and its server is asked the same questions as our host.

#[path = "rmcp/answers.rs"]
mod answers;
#[path = "rmcp/calls.rs"]
mod calls;
#[path = "rmcp/departures.rs"]
mod departures;
#[path = "rmcp/differences.rs"]
mod differences;
#[path = "rmcp/player.rs"]
mod player;
#[path = "rmcp/server.rs"]
mod server;

use std::fmt::Write as _;
use std::net::SocketAddr;

use answers::{Form, Server, ask};
use calls::Call;
use differences::{DIFFERENCES, explained};
use player::{Player, Speaks, WAITS};
use pointsman_tests::{Agent, Host, Setup};
use serde_json::{Value, json};
use server::Beside;
use tokio::task::JoinSet;

/// What every client of the matrix hears of.
const TASKS: &str = "pointsman://tasks";

/// Has the agent send itself a message, take it, ack it.
async fn exchange(player: &Player, name: &str, subject: &str) {
    let message = json!({"to": [format!("agent:{name}")], "kind": "note", "subject": subject, "body": format!("from {name}")});
    player.call("send_message", message).await;
    let waited = player.messages(json!({"max_s": 5})).await;
    let ours: Vec<&Value> = waited.iter().filter(|message| message["subject"] == subject).collect();
    assert_eq!(ours.len(), 1, "the message is delivered once: {waited:?}");
    assert_eq!(ours[0]["body"], format!("from {name}"), "the body is as it was sent");
    let left = player.messages(json!({"ack": [ours[0]["id"]], "max_s": 0})).await;
    assert!(left.iter().all(|message| message["id"] != ours[0]["id"]), "an acked message does not come again: {left:?}");
}

async fn hears_of_a_change(player: &mut Player, other: &Agent) {
    let mut subscription = player.subscribe(TASKS).await;
    other.call("create_task", json!({"title": "Something new"})).await;
    player.changed(&mut subscription, TASKS).await;
    player.unsubscribe(subscription, TASKS).await;
}

/// Gives up long waits: the host notices, and hands what comes next to who still waits.
///
/// Waits that nobody gave up would take most messages; one may be taken while the host notices.
async fn gives_up_waits(player: &Player, name: &str) {
    let waits = player.wait_in_vain();
    player.call("lookup", json!({"uri": "agents"})).await;
    Player::give_up(waits).await;
    let mut missed = 0;
    for n in 0..WAITS / 2 {
        let subject = format!("after cancelled waits, {n}");
        player.call("send_message", json!({"to": [format!("agent:{name}")], "kind": "note", "subject": subject, "body": ""})).await;
        let came = player.messages(json!({"max_s": 2})).await;
        let ids: Vec<&Value> = came.iter().map(|message| &message["id"]).collect();
        player.messages(json!({"ack": ids, "max_s": 0})).await;
        missed += usize::from(came.iter().all(|message| message["subject"] != subject));
    }
    assert!(missed <= 1, "cancelled waits took {missed} messages");
}

/// Tells the story that every client of the matrix tells.
async fn works(speaks: Speaks) {
    let mut host = Host::start().await;
    let other = host.agent("other", &[]).await;
    let name = format!("rmcp-{speaks:?}").to_lowercase();
    let mut player = Player::connected(&host, &name, speaks).await;
    let tools = player.list_tools().await;
    for tool in ["start", "wait_for_events", "send_message", "lookup", "claim_task", "submit_branch", "write_context"] {
        assert!(tools.iter().any(|listed| listed == tool), "{tool} is listed: {tools:?}");
    }
    player.start(&name).await;
    exchange(&player, &name, "hello").await;
    hears_of_a_change(&mut player, &other).await;
    gives_up_waits(&player, &name).await;

    host.restart().await;
    // What was under way when the host died is lost; what is asked from now on is answered.
    assert_eq!(player.list_tools().await, tools, "the same tools after the restart");
    exchange(&player, &name, "hello again").await;
    hears_of_a_change(&mut player, &other).await;
}

#[tokio::test]
async fn the_client_in_the_modern_era() {
    works(Speaks::Modern).await;
}

#[tokio::test]
async fn the_client_by_negotiation() {
    works(Speaks::Auto).await;
}

#[tokio::test]
async fn the_client_in_sessions_of_2025_11_25() {
    works(Speaks::V2025_11_25).await;
}

#[tokio::test]
async fn the_client_in_sessions_of_2025_06_18() {
    works(Speaks::V2025_06_18).await;
}

#[tokio::test]
async fn the_client_in_sessions_of_2025_03_26() {
    works(Speaks::V2025_03_26).await;
}

/// Revision 2025-03-26 has no elicitation.
#[tokio::test]
async fn the_client_is_asked_by_a_tool() {
    let host = Host::start_with(Setup::with_fixtures()).await;
    for speaks in [Speaks::Modern, Speaks::Auto, Speaks::V2025_11_25, Speaks::V2025_06_18] {
        let mut player = Player::connected(&host, &format!("asked-{speaks:?}").to_lowercase(), speaks).await;
        let (tool, given, said) = if speaks.is_modern() {
            ("test_input_required_result_elicitation", json!({}), "Hello, Alice!")
        } else {
            ("test_elicitation", json!({"message": "Who are you?"}), "accept")
        };
        assert!(player.list_tools().await.iter().any(|listed| listed == tool), "{tool} is listed");
        let heard = player.text(tool, given).await;
        assert!(heard.contains(said), "{speaks:?}: the tool hears the answer: {heard}");
    }
}

/// Calls that are under way at once.
const AT_ONCE: usize = 8;

/// Asks both servers; returns what ours and theirs answered, in the order of the calls.
async fn asked(ours: &Server, theirs: &Server, calls: Vec<Call>) -> Vec<(Call, Form, Form)> {
    let mut answered = Vec::new();
    let mut asking = JoinSet::new();
    let mut calls = calls.into_iter().enumerate();
    loop {
        while asking.len() < AT_ONCE
            && let Some((n, call)) = calls.next()
        {
            let (ours, theirs) = (ours.clone(), theirs.clone());
            asking.spawn(async move {
                let wire = call.wire();
                let forms = (ask(&ours, call.version, &wire).await, ask(&theirs, call.version, &wire).await);
                (n, call, forms)
            });
        }
        let Some(done) = asking.join_next().await else { break };
        answered.push(done.expect("both answered"));
    }
    answered.sort_by_key(|(n, ..)| *n);
    answered.into_iter().map(|(_, call, (ours, theirs))| (call, ours, theirs)).collect()
}

#[tokio::test]
async fn the_server_answers_as_our_host_but_for_what_is_meant() {
    let host = Host::start_with(Setup { config: "[limits]\nrequests_per_s = 0\n".to_owned() }).await;
    let agent = host.agent("asker", &[]).await;
    let address: SocketAddr = host.url().trim_start_matches("http://").parse().expect("an address");
    let ours = Server { address, token: agent.token.clone() };
    let beside = Beside::start().await;
    let theirs = Server { address: beside.address, token: String::new() };

    let mut unexplained = String::new();
    let mut differs = |call: &Call, ours: &Form, theirs: &Form| {
        writeln!(unexplained, "  {}\n      ours   {ours}\n      theirs {theirs}", call.shown()).expect("memory");
    };
    let mut seen = vec![false; DIFFERENCES.len()];
    // Each departure by itself: the whole form of the answer counts.
    let alone = asked(&ours, &theirs, calls::single()).await;
    let plain = asked(&ours, &theirs, calls::plain()).await;
    for (call, ours, theirs) in alone.iter().chain(&plain) {
        match explained(call, ours, theirs) {
            Some(entries) => entries.into_iter().for_each(|entry| seen[entry] = true),
            None => differs(call, ours, theirs),
        }
    }
    // Of several departures each server may name another first: what it comes to counts.
    for (call, ours, theirs) in &asked(&ours, &theirs, calls::mixed()).await {
        let is_known = alone.iter().any(|(one, ours, theirs)| ours.meaning() != theirs.meaning() && one.is_part_of(call));
        if ours.meaning() != theirs.meaning() && !is_known && explained(call, ours, theirs).is_none() {
            differs(call, ours, theirs);
        }
    }
    let unseen: Vec<String> = DIFFERENCES.iter().zip(&seen).filter(|(_, seen)| !**seen).map(|(entry, _)| entry.shown()).collect();
    assert!(unexplained.is_empty(), "not among the differences that are meant:\n{unexplained}");
    assert!(unseen.is_empty(), "differences that do not occur: {unseen:#?}");
}
