//! The official Rust SDK beside ours: its client talks to our host, and its server is asked the same questions as our host.

#[path = "rmcp/player.rs"]
mod player;

use player::{Player, Speaks, WAITS};
use pointsman_tests::{Agent, Host, Setup};
use serde_json::{Value, json};

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
