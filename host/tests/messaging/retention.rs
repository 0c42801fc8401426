//! What is settled goes after its time, and nothing else.

use pointsman::service::letters;
use pointsman::service::messaging::{LetterFilter, Nack, Since};
use pointsman_core::ids::MessageId;
use pointsman_core::message_index::Search;
use pointsman_core::time::TimeMs;
use serde_json::json;

use crate::back::indexed;
use crate::world::{ATTEMPTS_MAX, KEPT_MS, LETTERS_KEPT_MS, World, code};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Lets a run of the retention come to its end: each part of it is due a moment after the one before.
async fn run(world: &World) {
    world.messaging.schedule_retention(world.project).await.expect("it is scheduled");
    world.pass(60_000).await;
    for _ in 0..50 {
        world.pass(100).await;
    }
}

/// The keys of a project that begin so.
async fn keys(world: &World, prefix: &str) -> Vec<String> {
    let page = world.kit.store.range(Some(world.project), prefix, "", 10_000).await.expect("the store answers");
    page.entries.into_iter().map(|(key, _)| key).collect()
}

async fn is_there(world: &World, id: MessageId) -> bool {
    world.kit.store.get(Some(world.project), &format!("msg/{id}")).await.expect("the store answers").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_messages_go_whole_and_live_ones_stay() {
    let world = World::start().await;
    let (ana, bo, cy) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await, world.agent("cy", &[]).await);
    let both = world.send(&ana, "all", "for both").await;
    let live = world.send(&ana, "agent:cy", "unread").await.message;
    let waiting = world.send(&ana, "cobol", "nobody can").await.message;
    let nobody = world.send(&ana, "topic:void", "nobody listens").await.message;
    world.take(&bo).await;
    world.ack(&bo, both.message).await;

    indexed(&world).await;

    world.pass(KEPT_MS + DAY_MS).await;
    run(&world).await;
    assert!(is_there(&world, both.message).await, "cy has not acked it yet");
    assert!(!is_there(&world, nobody).await, "nobody ever got it, and its time is over");
    world.take(&cy).await;
    world.ack(&cy, both.message).await;
    world.pass(KEPT_MS - DAY_MS).await;
    run(&world).await;
    assert!(is_there(&world, both.message).await, "its last delivery ended less than its time ago");

    world.pass(2 * DAY_MS).await;
    run(&world).await;
    for (id, stays) in [(both.message, false), (live, true), (waiting, true)] {
        assert_eq!(is_there(&world, id).await, stays, "{id}");
    }
    for prefix in ["fin/", "msg-new/", "msg-thread/"] {
        for key in keys(&world, prefix).await {
            let value = world.kit.store.get(Some(world.project), &key).await.expect("the store answers").expect("it is there");
            let text = format!("{key} {}", String::from_utf8_lossy(&value.bytes));
            assert!(!text.contains(&both.message.to_string()) && !text.contains(&nobody.to_string()), "{text}");
        }
    }
    assert_eq!(code(world.messaging.message(world.project, both.message).await), "gone");
    assert_eq!(code(world.messaging.message(world.project, MessageId::first_at(world.kit.now())).await), "not_found");
    for (words, found) in [("unread", vec![live]), ("for both", vec![])] {
        let answer = world.messaging.search(world.project, &Search::default().with_words(words), 10).await.expect("an answer");
        assert!(!answer.incomplete);
        assert_eq!(answer.messages.iter().map(|message| message.id).collect::<Vec<_>>(), found, "the index let go what was removed");
    }
    let events = world.events("messages.pruned").await;
    let messages: Vec<u64> = events.iter().filter_map(|event| event.event.data["messages"].as_u64()).collect();
    assert_eq!(messages, [1, 1], "{events:?}");
    assert_eq!(events[1].event.data["deliveries"], 2);
    let before = events[1].event.data["before"].as_str().and_then(TimeMs::from_rfc3339).expect("a time");
    assert_eq!(world.kit.now().since_ms(before) / DAY_MS, KEPT_MS / DAY_MS);
    let kept = letters::kept(&world.services).await.expect("a status");
    let report = kept[0].pruned.clone().expect("a report");
    assert_eq!((report.messages, report.deliveries), (1, 2));
    world.take(&cy).await;
    world.ack(&cy, live).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_keeps_its_message_until_its_own_time_or_its_purge() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let (kept, purged) = (world.send(&ana, "agent:bo", "kept").await.message, world.send(&ana, "agent:bo", "purged").await.message);
    for _ in 0..ATTEMPTS_MAX {
        world.take(&bo).await;
        let nack = |message| Nack { message, reason: "no".to_owned(), delay_s: Some(1) };
        world.messaging.settle(&bo, &[], &[nack(kept), nack(purged)]).await.expect("they are given back");
        world.pass(1_001).await;
    }
    let verb = pointsman::ports::letters::LetterVerb::Purge;
    world.messaging.change_letter(world.project, purged, bo.agent.id, verb).await.expect("it is purged");
    world.pass(KEPT_MS + HOUR_MS).await;
    run(&world).await;
    assert_eq!((is_there(&world, kept).await, is_there(&world, purged).await), (true, false));
    world.pass(LETTERS_KEPT_MS - KEPT_MS).await;
    run(&world).await;
    assert!(!is_there(&world, kept).await);
    let page = world.messaging.letters(world.project, &LetterFilter::default(), "", 10).await.expect("a page");
    assert!(page.letters.is_empty());
    assert!(keys(&world, "dead/").await.is_empty() && keys(&world, "fin/").await.is_empty());
    assert_eq!(world.events("messages.pruned").await.last().expect("a run").event.data["dead_letters"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_dies_between_two_commits_is_gone_on_with() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let mut sent = Vec::new();
    for n in 0..150 {
        sent.push(world.send(&ana, "agent:bo", &format!("m{n}")).await.message);
    }
    for _ in 0..8 {
        for handed in world.take(&bo).await.messages {
            if handed.message.id != sent[149] {
                world.ack(&bo, handed.message.id).await;
            }
        }
    }
    world.pass(KEPT_MS + DAY_MS).await;
    world.messaging.schedule_retention(world.project).await.expect("it is scheduled");
    world.pass(60_000).await;
    let left = keys(&world, "msg/").await.len();
    assert!((1..150).contains(&left), "one commit removes a part only: {left}");
    assert_eq!(world.events("messages.pruned").await.len(), 0, "the run is not over");

    let world = world.restart().await;
    run(&world).await;
    assert_eq!(keys(&world, "msg/").await, [format!("msg/{}", sent[149])], "the one that is not settled");
    assert_eq!(keys(&world, "fin/").await.len(), 0);
    let events = world.events("messages.pruned").await;
    assert_eq!((events.len(), &events[0].event.data["messages"]), (1, &json!(149)), "one report of the whole run");
    let reading = world.messaging.read_project(world.project, Since::Time(TimeMs(0))).await.expect("it is read");
    assert_eq!(reading.entries.len(), 1, "what is gone is passed over");
}
