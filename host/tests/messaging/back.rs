//! Reading back from a point in time, and search.

use std::collections::BTreeSet;

use pointsman::ports::surface::Surface;
use pointsman::service::kit::Acting;
use pointsman::service::messaging::{SendRequest, WaitRequest};
use pointsman::service::surface::AgentSurface;
use pointsman_core::ids::MessageId;
use pointsman_core::message_index::Search;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::world::{World, message};

/// Calls `lookup` as an agent; returns the whole answer.
async fn lookup(world: &World, agent: &Acting, uri: &str) -> Result<Value, Value> {
    let caller = world.caller(&agent.agent.name, &[]).await;
    let arguments = RawValue::from_string(json!({"uri": uri}).to_string()).expect("JSON");
    let answer = AgentSurface::new(world.services.clone()).call(&caller, "lookup", &arguments).await.expect("it is answered");
    let json = serde_json::from_str(&answer.json).expect("JSON");
    if answer.is_error { Err(json) } else { Ok(json) }
}

/// Follows `more` to the end; returns the subjects.
async fn all(world: &World, agent: &Acting, uri: &str) -> Vec<String> {
    let mut subjects = Vec::new();
    let mut next = Some(uri.to_owned());
    while let Some(uri) = next {
        let answer = lookup(world, agent, &uri).await.expect("it is found");
        let messages = answer["result"]["messages"].as_array().expect("a list");
        assert!(answer["result"].to_string().len() < 6_500, "an answer stays small");
        subjects.extend(messages.iter().map(|message| message["subject"].as_str().unwrap_or("gone").to_owned()));
        next = answer["more"].as_str().map(str::to_owned);
    }
    subjects
}

/// Waits until the project's index is whole.
pub(crate) async fn indexed(world: &World) {
    for _ in 0..3_000 {
        let answer = world.messaging.search(world.project, &Search::default(), 1).await.expect("an answer");
        if !answer.incomplete {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    unreachable!("the index is not whole within 30 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_a_thread_and_an_inbox_are_read_back() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let old = world.send(&ana, "agent:bo", "old").await;
    world.pass(3 * 3_600_000).await;
    let then = world.kit.now().to_rfc3339();
    let cursor = world.kit.store.head(Some(world.project)).await.expect("an end");
    let mut expected = Vec::new();
    for n in 0..60 {
        let request =
            SendRequest { thread: Some(old.thread), body: Value::from("word ".repeat(60)), ..message("agent:bo", &format!("m{n:02}")) };
        world.messaging.send(&ana, &request).await.expect("it is sent");
        expected.push(format!("m{n:02}"));
        world.pass(7).await;
    }
    for since in ["2h", then.as_str(), &cursor.to_string()] {
        assert_eq!(all(&world, &bo, &format!("messages?since={since}")).await, expected, "{since}");
        assert_eq!(all(&world, &bo, &format!("thread/{}?since={since}", old.thread)).await, expected, "{since}");
        assert_eq!(all(&world, &bo, &format!("inbox?since={since}")).await, expected, "{since}");
    }
    assert_eq!(all(&world, &bo, &format!("pointsman://thread/{}", old.thread)).await.len(), 61);
    assert!(all(&world, &ana, "inbox?since=5h").await.is_empty(), "nobody wrote to ana");

    let handed = world.take(&bo).await;
    assert_eq!(handed.messages[0].message.subject, "old");
    world.ack(&bo, old.message).await;
    let answer = lookup(&world, &bo, "inbox").await.expect("it is found");
    let first = &answer["result"]["messages"][0];
    assert_eq!((&first["standing"], &first["attempts"], &first["from"]), (&json!("acked"), &json!(1), &json!("ana")), "{first}");
    assert_eq!(answer["result"]["messages"][1]["standing"], "handed_out");

    for wrong in ["messages?since=yesterday", "messages?colour=red", "thread/nonsense?since=2h", "inbox?after=x", "thread/thr_x"] {
        let refused = lookup(&world, &bo, wrong).await.expect_err("it is refused");
        assert_eq!(refused["code"], "bad_argument", "{wrong}: {refused}");
    }
    let unknown = lookup(&world, &bo, "nonsense").await.expect_err("it is refused");
    assert!(unknown["do"].as_str().is_some_and(|advice| advice.contains("messages?q=")), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_by_words_fields_and_time() {
    let world = World::start().await;
    let (ana, bo, cy) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await, world.agent("cy", &[]).await);
    let send = async |from: &Acting, request: SendRequest| {
        world.pass(1_000).await;
        world.messaging.send(from, &request).await.expect("it is sent")
    };
    let first = send(&ana, SendRequest { body: json!({"why": "Größe of the LEXER"}), ..message("agent:bo", "one") }).await;
    let tagged =
        SendRequest { tags: vec!["ci/nightly".to_owned()], paths: vec!["src/lexer/mod.rs".to_owned()], ..message("agent:cy", "two") };
    send(&bo, tagged).await;
    send(&cy, SendRequest { kind: Some("question".to_owned()), ..message("agent:ana", "three lexer") }).await;
    send(&bo, SendRequest { reply_to: Some(first.message), to: Vec::new(), ..message("", "four") }).await;
    indexed(&world).await;
    for (query, expected) in [
        ("q=lexer", vec!["three lexer", "one"]),
        ("q=größe lexer", vec!["one"]),
        ("q=grosse", vec![]),
        ("q=lexer&from=cy", vec!["three lexer"]),
        ("from=bo", vec!["four", "two"]),
        ("to=ana", vec!["four", "three lexer"]),
        ("to=agent:cy", vec!["two"]),
        ("kind=question", vec!["three lexer"]),
        ("tag=ci/nightly", vec!["two"]),
        ("path=src/lexer", vec!["two"]),
        ("path=src&from=ana", vec![]),
        ("q=&until=2000-01-01", vec![]),
        ("q=&since=1h&kind=question", vec!["three lexer"]),
    ] {
        assert_eq!(all(&world, &ana, &format!("messages?{query}")).await, expected, "{query}");
    }
    // What is sent later is found at once: the index follows the log.
    world.send(&ana, "agent:bo", "five lexer").await;
    assert_eq!(all(&world, &ana, "messages?q=lexer").await, ["five lexer", "three lexer", "one"]);

    let world = world.restart().await;
    indexed(&world).await;
    assert_eq!(all(&world, &ana, "messages?q=lexer").await, ["five lexer", "three lexer", "one"], "it is built anew after a start");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_of_many_messages_is_paged_and_right_while_others_send() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    for n in 0..700 {
        let subject = format!("{} {}", if n % 3 == 0 { "fizz" } else { "plain" }, if n % 5 == 0 { "buzz" } else { "dull" });
        world.send(&ana, "agent:bo", &subject).await;
        if n % 10 == 0 {
            world.pass(3).await;
        }
        if n == 50 {
            // What follows is more than a search takes in itself.
            indexed(&world).await;
        }
        if n % 50 == 0 {
            let request = WaitRequest { max_s: Some(0), ..WaitRequest::default() };
            let handed = world.messaging.wait(&bo, &request).await.expect("it waits").messages;
            let ids: Vec<MessageId> = handed.iter().map(|handed| handed.message.id).collect();
            world.messaging.settle(&bo, &ids, &[]).await.expect("they are acked");
        }
    }
    indexed(&world).await;
    let (mut seen, mut search) = (Vec::new(), Search::default().with_words("FIZZ buzz"));
    loop {
        let answer = world.messaging.search(world.project, &search, 20).await.expect("an answer");
        assert!(!answer.incomplete && answer.messages.len() <= 20);
        seen.extend(answer.messages.iter().map(|message| message.id));
        search.before = answer.next;
        if answer.next.is_none() {
            break;
        }
        // Newer ones do not move the pages.
        world.send(&ana, "agent:bo", "fizz buzz").await;
    }
    assert_eq!(seen.len(), 47);
    assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "newest first");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
}
