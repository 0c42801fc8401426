//! What becomes of a message.

use pointsman::ports::store::{Commit, Expect, StoreError};
use pointsman::ports::surface::Surface;
use pointsman::service::messaging::{MessageFilter, Nack, Notice, SendRequest, WaitRequest};
use pointsman::service::surface::AgentSurface;
use pointsman_core::inbox::{DeliveryState, Try};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::world::{ATTEMPTS_MAX, LEASE_MS, World, code, message, subjects};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_handed_out_once_and_acked() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let receipt = world.send(&ana, "agent:bo", "How is the lexer meant?").await;
    assert_eq!(receipt.routed[0].agent, "bo");
    assert_eq!(world.messaging.unread(world.project, bo.agent.id).await.expect("a count"), 1);

    let answer = world.take(&bo).await;
    assert_eq!(subjects(&answer), ["How is the lexer meant?"]);
    assert_eq!((answer.messages[0].attempt, answer.unread), (1, 0));
    assert!(world.take(&bo).await.messages.is_empty(), "it is leased");

    let request = WaitRequest { ack: vec![receipt.message], max_s: Some(0), ..WaitRequest::default() };
    for _ in 0..2 {
        let settled = world.messaging.wait(&bo, &request).await.expect("it is acked").settled;
        assert_eq!((settled.acked, settled.refused.len()), (1, 0), "a second ack changes nothing");
    }
    assert_eq!(world.events("message.acked").await.len(), 1);
    world.pass(2 * LEASE_MS).await;
    assert!(world.take(&bo).await.messages.is_empty(), "it is done");
    let record = world.agents.agent(world.project, "bo").await.expect("bo");
    assert_eq!((record.acked, record.nacked), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_messages_come_first_and_the_rest_in_order() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    for n in 0..30 {
        let priority = if n == 17 { Some(9) } else { None };
        let request = SendRequest { priority, ..message("agent:bo", &format!("m{n}")) };
        world.messaging.send(&ana, &request).await.expect("it is sent");
    }
    let first = world.take(&bo).await;
    let expected: Vec<String> = [17].into_iter().chain((0..20).filter(|n| *n != 17)).map(|n| format!("m{n}")).collect();
    assert_eq!(subjects(&first), expected);
    assert_eq!((first.messages.len(), first.unread), (20, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_lapses_brings_it_back_and_a_late_ack_counts() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let sent = world.send(&ana, "agent:bo", "again").await;
    assert_eq!(world.take(&bo).await.messages.len(), 1);
    world.pass(LEASE_MS).await;
    assert_eq!(world.messaging.unread(world.project, bo.agent.id).await.expect("a count"), 1);
    let again = world.take(&bo).await;
    assert_eq!(again.messages[0].attempt, 2);
    world.pass(LEASE_MS).await;
    world.ack(&bo, sent.message).await;
    assert!(world.take(&bo).await.messages.is_empty());
    assert_eq!(world.events("message.lapsed").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_back_it_waits_and_after_too_many_tries_it_is_a_dead_letter() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let sent = world.send(&ana, "agent:bo", "poison").await;
    for attempt in 1..=ATTEMPTS_MAX {
        let answer = world.take(&bo).await;
        assert_eq!(answer.messages[0].attempt, attempt);
        let nack = Nack { message: sent.message, reason: "it makes no sense".to_owned(), delay_s: Some(5) };
        world.messaging.settle(&bo, &[], std::slice::from_ref(&nack)).await.expect("it is given back");
        let again = world.messaging.settle(&bo, &[], &[nack]).await.expect("it was given back");
        assert_eq!(again.nacked, 1, "a repeated nack is none");
        assert!(world.take(&bo).await.messages.is_empty(), "it backs off");
        world.pass(5_001).await;
    }
    let dead = world.messaging.dead_letters(world.project).await.expect("a list");
    assert_eq!((dead.len(), dead[0].message, dead[0].attempts), (1, sent.message, ATTEMPTS_MAX));
    assert!(matches!(&dead[0].state, DeliveryState::DeadLettered { reason, .. } if reason == "it makes no sense"));
    let told = WaitRequest { max_s: Some(0), after: Some(Default::default()), ..WaitRequest::default() };
    let told = world.messaging.wait(&ana, &told).await.expect("ana waits");
    assert!(told.events.iter().any(|event| event.event.kind == "message.dead_lettered"), "the sender is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_is_never_handed_out_and_its_sender_is_told() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let start = world.take(&ana).await.cursor;
    let request = SendRequest { expires_in_s: Some(10), ..message("agent:bo", "soon stale") };
    world.messaging.send(&ana, &request).await.expect("it is sent");
    world.pass(10_000).await;
    assert!(world.take(&bo).await.messages.is_empty());
    let request = WaitRequest { after: Some(start), ..WaitRequest::default() };
    let told = world.messaging.wait(&ana, &request).await.expect("ana is told");
    assert_eq!(told.events.iter().map(|event| event.event.kind.as_str()).collect::<Vec<_>>(), ["message.expired"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_holder_settles() {
    let world = World::start().await;
    let (ana, bo, cy) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await, world.agent("cy", &[]).await);
    let sent = world.send(&ana, "agent:bo", "for bo").await;
    let not_yet = world.messaging.settle(&bo, &[sent.message], &[]).await.expect("an answer");
    assert_eq!(not_yet.refused[0].code, "not_handed_out");
    world.take(&bo).await;
    let request = WaitRequest { ack: vec![sent.message], ..WaitRequest::default() };
    let stolen = world.messaging.wait(&cy, &request).await.expect("it is answered at once");
    assert_eq!(stolen.settled.refused[0].code, "not_holder");
    let unknown = pointsman_core::ids::MessageId::from_bytes([5; 16]);
    let unknown = world.messaging.settle(&cy, &[unknown], &[]).await.expect("an answer");
    assert_eq!(unknown.refused[0].code, "not_found");
    world.ack(&bo, sent.message).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_sends_once() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let request = SendRequest { idempotency_key: Some("k1".to_owned()), ..message("agent:bo", "once") };
    let first = world.messaging.send(&ana, &request).await.expect("it is sent");
    let world = world.restart().await;
    assert_eq!(world.messaging.send(&ana, &request).await.expect("it was sent"), first);
    assert_eq!(world.take(&bo).await.messages.len(), 1);
    let other = SendRequest { subject: Some("another".to_owned()), ..request };
    assert_eq!(code(world.messaging.send(&ana, &other).await), "key_reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_messages_change_nothing() {
    let world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    let head = world.kit.store.head(Some(world.project)).await.expect("a head");
    for (request, expected) in [
        (message("agent:nobody", "x"), "not_found"),
        (message("user:bo", "x"), "bad_address"),
        (message("agent:ana", " "), "bad_message"),
        (SendRequest { to: Vec::new(), ..message("", "x") }, "bad_message"),
        (SendRequest { priority: Some(12), ..message("all", "x") }, "bad_message"),
        (SendRequest { expires_in_s: Some(0), ..message("all", "x") }, "bad_message"),
        (SendRequest { paths: vec!["/etc".to_owned()], ..message("all", "x") }, "bad_message"),
        (SendRequest { idempotency_key: Some(String::new()), ..message("all", "x") }, "bad_argument"),
        (SendRequest { idempotency_key: Some("two\nlines".to_owned()), ..message("all", "x") }, "bad_argument"),
        (SendRequest { reply_to: Some(pointsman_core::ids::MessageId::from_bytes([1; 16])), ..message("all", "x") }, "not_found"),
        (SendRequest { thread: Some(pointsman_core::ids::ThreadId::from_bytes([1; 16])), ..message("all", "x") }, "not_found"),
    ] {
        assert_eq!(code(world.messaging.send(&ana, &request).await), expected, "{request:?}");
    }
    assert_eq!(world.kit.store.head(Some(world.project)).await.expect("a head"), head);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_stays_in_its_thread_and_goes_to_who_asked() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let question = world.send(&ana, "agent:bo", "Why?").await;
    let reply = SendRequest { to: Vec::new(), subject: None, reply_to: Some(question.message), ..message("", "") };
    let answer = world.messaging.send(&bo, &reply).await.expect("it is sent");
    assert_eq!((answer.thread, answer.routed[0].agent.as_str()), (question.thread, "ana"));
    assert_eq!(subjects(&world.take(&ana).await), ["Re: Why?"]);
    let thread = MessageFilter { thread: Some(question.thread), limit: 0 };
    let thread = world.messaging.messages(world.project, &thread).await.expect("a thread");
    assert_eq!(thread.iter().map(|message| message.id).collect::<Vec<_>>(), [question.message, answer.message]);
    let newest = world.messaging.messages(world.project, &MessageFilter { thread: None, limit: 1 }).await.expect("a list");
    assert_eq!(newest[0].id, answer.message);
    assert_eq!(newest[0].causation, Some(question.message.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_stands_or_falls_with_its_commit() {
    let world = World::start().await;
    let bo = world.agent("bo", &[]).await;
    let notice = || Notice::new(bo.agent.id, "landed", "T-3 landed", json!({"task": "T-3"})).caused_by("M-1");
    let mut lost = Commit { project: Some(world.project), ..Commit::default() };
    lost.expects.push(("merge/1".to_owned(), Expect::Version(77)));
    world.messaging.stage_notice(&mut lost, world.project, notice()).await.expect("it is staged");
    assert!(matches!(world.kit.store.commit(lost).await, Err(StoreError::Stale { .. })));
    assert!(world.take(&bo).await.messages.is_empty());

    let mut done = Commit { project: Some(world.project), puts: vec![("merge/1".to_owned(), vec![1])], ..Commit::default() };
    let id = world.messaging.stage_notice(&mut done, world.project, notice()).await.expect("it is staged");
    world.kit.store.commit(done).await.expect("it is done");
    let answer = world.take(&bo).await;
    assert_eq!((answer.messages[0].message.id, answer.messages[0].message.causation.as_deref()), (id, Some("M-1")));
    world.ack(&bo, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_start_again_as_often_as_it_likes() {
    let world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    let caller = world.caller("bo", &[]).await;
    let surface = AgentSurface::new(world.services.clone());
    let start = async || {
        let answer = surface.call(&caller, "start", &RawValue::from_string("{}".to_owned()).expect("JSON")).await.expect("it starts");
        serde_json::from_str::<Value>(&answer.json).expect("JSON")["unread"].clone()
    };
    start().await;
    let bo = world.agents.acting(&caller, None).await.expect("it acts");
    let sent = world.send(&ana, "agent:bo", "to do").await;
    for _ in 0..=2 * ATTEMPTS_MAX {
        assert_eq!(start().await, 1, "it is told what is unread");
        let handed = world.take(&bo).await;
        assert_eq!((subjects(&handed).as_slice(), handed.messages[0].attempt), (["to do"].as_slice(), 1));
    }
    assert!(world.messaging.dead_letters(world.project).await.expect("a list").is_empty());
    // A lease that lapses is a try, as before.
    for attempt in 2..=ATTEMPTS_MAX {
        world.pass(LEASE_MS).await;
        assert_eq!(world.take(&bo).await.messages[0].attempt, attempt);
    }
    world.pass(LEASE_MS).await;
    assert_eq!(world.messaging.dead_letters(world.project).await.expect("a list")[0].message, sent.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_what_was_not_acked() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let acked = world.send(&ana, "agent:bo", "acked").await;
    world.take(&bo).await;
    world.ack(&bo, acked.message).await;
    world.send(&ana, "agent:bo", "leased").await;
    world.take(&bo).await;
    world.send(&ana, "agent:bo", "ready").await;

    let world = world.restart().await;
    assert_eq!(world.messaging.unread(world.project, bo.agent.id).await.expect("a count"), 1);
    assert_eq!(subjects(&world.take(&bo).await), ["ready"]);
    assert_eq!(world.messaging.held(world.project, bo.agent.id).await.expect("a list").len(), 2);
    assert_eq!(world.messaging.recall(&bo, Try::Counts).await.expect("they come back"), 2);
    let again = world.take(&bo).await;
    assert_eq!(subjects(&again), ["leased", "ready"]);
    assert!(again.messages.iter().all(|handed| handed.attempt == 2));
}
