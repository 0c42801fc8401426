//! Long polls: who wakes whom, who takes over, what a dropped one costs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman::ports::surface::Surface;
use pointsman::service::contexts::WriteRequest;
use pointsman::service::messaging::{WaitAnswer, WaitRequest};
use pointsman::service::surface::AgentSurface;
use pointsman_core::ids::TaskId;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::world::{World, code, subjects};

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it ends soon")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_wakes_who_waits() {
    let world = Arc::new(World::start().await);
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let waiting = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.messaging.wait(&bo, &WaitRequest::default()).await.expect("bo waits") }
    });
    world.send(&ana, "agent:bo", "wake up").await;
    let answer = soon(waiting).await.expect("it does not panic");
    assert_eq!(subjects(&answer), ["wake up"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_wait_takes_over() {
    let world = Arc::new(World::start().await);
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let wait = |world: &Arc<World>| {
        let (world, bo) = (Arc::clone(world), bo.clone());
        tokio::spawn(async move { world.messaging.wait(&bo, &WaitRequest::default()).await.expect("bo waits") })
    };
    let mut older: Vec<_> = (0..3).map(|_| wait(&world)).collect();
    // All but the newest answer without anyone sending anything.
    let mut ended = 0;
    while ended < 2 {
        let position = soon(async {
            loop {
                if let Some(position) = older.iter().position(tokio::task::JoinHandle::is_finished) {
                    return position;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let answer = older.remove(position).await.expect("it does not panic");
        assert!(answer.superseded && answer.messages.is_empty(), "{answer:?}");
        ended += 1;
    }
    world.send(&ana, "agent:bo", "for the newest").await;
    let answer = soon(older.remove(0)).await.expect("it does not panic");
    assert!(!answer.superseded);
    assert_eq!(subjects(&answer), ["for the newest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_superseded_is_told_not_to_wait_again() {
    let world = World::start().await;
    let caller = world.caller("bo", &[]).await;
    let surface = AgentSurface::new(world.services.clone());
    let arguments = |text: &str| RawValue::from_string(text.to_owned()).expect("JSON");
    surface.call(&caller, "start", &arguments(r#"{"name":"bo"}"#)).await.expect("it starts");
    let wait = arguments(r#"{"max_s":50}"#);
    let (one, other) = (surface.call(&caller, "wait_for_events", &wait), surface.call(&caller, "wait_for_events", &wait));
    let ended = soon(async {
        tokio::select! { ended = one => ended, ended = other => ended }
    })
    .await
    .expect("an answer");
    assert!(ended.json.contains(r#""superseded":true"#) && ended.json.contains("do not wait again here"), "{}", ended.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_wait_loses_nothing() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    for _ in 0..20 {
        let request = WaitRequest::default();
        let wait = world.messaging.wait(&bo, &request);
        assert!(tokio::time::timeout(Duration::from_millis(1), wait).await.is_err(), "nothing is there");
    }
    world.send(&ana, "agent:bo", "still here").await;
    assert_eq!(subjects(&world.take(&bo).await), ["still here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_document_wakes_who_waits() {
    let world = Arc::new(World::start().await);
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let request = WaitRequest { watch: vec!["plan/**".to_owned()], ..WaitRequest::default() };
    let after = world.take(&bo).await.cursor;
    let waiting = tokio::spawn({
        let (world, request) = (Arc::clone(&world), WaitRequest { after: Some(after), ..request.clone() });
        async move { world.messaging.wait(&bo, &request).await.expect("bo waits") }
    });
    for key in ["notes/x", "plan/api"] {
        let write = WriteRequest { key: key.to_owned(), text: Some("v1".to_owned()), ..WriteRequest::default() };
        world.contexts.write(&ana, write).await.expect("it is written");
    }
    let answer: WaitAnswer = soon(waiting).await.expect("it does not panic");
    let heard: Vec<&str> = answer.events.iter().map(|event| event.event.subject.as_str()).collect();
    assert_eq!(heard, ["ctx:plan/api"]);
    assert!(answer.cursor >= answer.events[0].cursor);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_cursor_reads_the_log_from_there() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let after = world.take(&bo).await.cursor;
    for version in 0..30u64 {
        let write = WriteRequest { key: format!("plan/{version:02}"), text: Some(format!("v{version}")), ..WriteRequest::default() };
        world.contexts.write(&ana, write).await.expect("it is written");
    }
    let world = world.restart().await;
    let mut heard = 0;
    let mut request = WaitRequest { after: Some(after), watch: vec!["plan/**".to_owned()], max_s: Some(0), ..WaitRequest::default() };
    loop {
        let answer = world.messaging.wait(&bo, &request).await.expect("bo waits");
        heard += answer.events.len();
        request.after = Some(answer.cursor);
        if !answer.more {
            break;
        }
    }
    assert_eq!(heard, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_waits_are_refused() {
    let world = World::start().await;
    let bo = world.agent("bo", &[]).await;
    let wait = async |request: WaitRequest| code(world.messaging.wait(&bo, &request).await);
    assert_eq!(wait(WaitRequest { max_s: Some(51), ..WaitRequest::default() }).await, "bad_argument");
    assert_eq!(wait(WaitRequest { watch: vec!["/abs".to_owned()], ..WaitRequest::default() }).await, "bad_argument");
    assert_eq!(wait(WaitRequest { watch: vec!["a".to_owned(); 33], ..WaitRequest::default() }).await, "bad_argument");
    let ack = vec![pointsman_core::ids::MessageId::from_bytes([1; 16]); 101];
    assert_eq!(wait(WaitRequest { ack, tasks: vec![TaskId(1)], ..WaitRequest::default() }).await, "too_many");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_waits_of_one_agent_hand_each_delivery_out_once() {
    let world = Arc::new(World::start().await);
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    for n in 0..50 {
        world.send(&ana, "agent:bo", &format!("m{n}")).await;
    }
    let mut waits = JoinSet::new();
    for _ in 0..64 {
        let (world, bo) = (Arc::clone(&world), bo.clone());
        waits.spawn(async move { world.take(&bo).await });
    }
    let mut times = BTreeMap::new();
    while let Some(answer) = waits.join_next().await {
        for handed in answer.expect("it does not panic").messages {
            *times.entry(handed.message.id).or_insert(0) += 1;
        }
    }
    // A wait that was superseded hands nothing out; what is left comes with the next ones.
    loop {
        let answer = world.take(&bo).await;
        if answer.messages.is_empty() {
            break;
        }
        for handed in answer.messages {
            *times.entry(handed.message.id).or_insert(0) += 1;
        }
    }
    assert_eq!(times.len(), 50);
    assert!(times.values().all(|&count| count == 1), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_agents_talk_at_once_and_every_message_is_acked_once() {
    const AGENTS: usize = 64;
    const EACH: usize = 6;
    let world = Arc::new(World::start().await);
    let mut agents = Vec::new();
    for n in 0..AGENTS {
        agents.push(world.agent(&format!("agent-{n}"), &["work"]).await);
    }
    let mut tasks = JoinSet::new();
    for (n, agent) in agents.iter().enumerate() {
        let (world, agent) = (Arc::clone(&world), agent.clone());
        tasks.spawn(async move {
            for k in 0..EACH {
                let to = if k % 2 == 0 { "work".to_owned() } else { format!("agent:agent-{}", (n + k) % AGENTS) };
                world.send(&agent, &to, &format!("{n}/{k}")).await;
            }
        });
    }
    let done = CancellationToken::new();
    let mut receivers = JoinSet::new();
    for agent in agents {
        let (world, done) = (Arc::clone(&world), done.clone());
        receivers.spawn(async move {
            let (mut ack, mut seen) = (Vec::new(), Vec::new());
            loop {
                let finished = done.is_cancelled();
                let request = WaitRequest { ack: std::mem::take(&mut ack), max_s: Some(u64::from(!finished)), ..WaitRequest::default() };
                let answer = world.messaging.wait(&agent, &request).await.expect("it waits");
                assert!(answer.settled.refused.is_empty(), "{:?}", answer.settled);
                ack.extend(answer.messages.iter().map(|handed| handed.message.id));
                seen.extend(answer.messages.into_iter().map(|handed| (handed.message.subject, handed.attempt)));
                if finished && ack.is_empty() {
                    return seen;
                }
            }
        });
    }
    while let Some(sent) = tasks.join_next().await {
        sent.expect("it does not panic");
    }
    done.cancel();
    let mut seen = BTreeMap::new();
    while let Some(received) = receivers.join_next().await {
        for (subject, attempt) in received.expect("it does not panic") {
            assert_eq!(attempt, 1);
            *seen.entry(subject).or_insert(0) += 1;
        }
    }
    // A message to oneself is one to be received too.
    assert_eq!(seen.len(), AGENTS * EACH);
    assert!(seen.values().all(|&count| count == 1));
    assert_eq!(world.events("message.acked").await.len(), AGENTS * EACH);
    assert!(world.messaging.dead_letters(world.project).await.expect("a list").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_works_off_what_is_due_and_ends_when_told() {
    let world = Arc::new(World::start().await);
    let ana = world.agent("ana", &[]).await;
    world.send(&ana, "rust", "for later").await;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (world, stop) = (Arc::clone(&world), stop.clone());
        async move { world.messaging.run(stop).await }
    });
    let bo = world.agent("bo", &["rust"]).await;
    let answer = soon(world.messaging.wait(&bo, &WaitRequest::default())).await.expect("bo waits");
    assert_eq!(subjects(&answer), ["for later"], "the start of an agent routes what waited for it");
    stop.cancel();
    soon(running).await.expect("it does not panic");
}
