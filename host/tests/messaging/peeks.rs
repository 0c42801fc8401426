//! Looking on an agent's behalf: nothing is taken by it, and it is woken by whatever the agent would come for.

use std::sync::Arc;
use std::time::Duration;

use pointsman::ports::metrics::{Measured, Value};
use pointsman::ports::surface::Surface;
use pointsman::service::kit::Acting;
use pointsman::service::messaging::{PeekAnswer, PeekRequest, WaitRequest};
use pointsman::service::surface::AgentSurface;
use pointsman_core::event::Cursor;
use pointsman_core::limits::BACK_OFF_MS_MAX;
use serde_json::value::RawValue;

use crate::world::{LEASE_MS, World, subjects};

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it ends soon")
}

fn after(cursor: Cursor) -> PeekRequest {
    PeekRequest { after: Some(cursor), ..PeekRequest::default() }
}

async fn look(world: &World, agent: &Acting, request: &PeekRequest) -> PeekAnswer {
    world.messaging.peek(agent, request, || async { Ok(Vec::new()) }).await.expect("it looks")
}

fn waiting(answer: &PeekAnswer) -> Vec<&str> {
    answer.waiting.iter().map(|one| one.subject.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_takes_nothing() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    world.send(&ana, "agent:bo", "one").await;
    world.send(&ana, "agent:bo", "two").await;
    for _ in 0..3 {
        let seen = soon(look(&world, &bo, &PeekRequest::default())).await;
        assert_eq!((waiting(&seen), seen.arrived), (vec!["one", "two"], 0));
        assert_eq!((seen.waiting[0].from.as_str(), seen.waiting[0].attempt), ("ana", 1));
    }
    let taken = world.take(&bo).await;
    assert_eq!(subjects(&taken), ["one", "two"]);
    assert!(taken.messages.iter().all(|handed| handed.attempt == 1), "no try was used up");
    let at_once = PeekRequest { max_s: Some(0), ..PeekRequest::default() };
    assert!(look(&world, &bo, &at_once).await.waiting.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_ends_no_wait_and_both_are_woken() {
    let world = Arc::new(World::start().await);
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let cursor = world.take(&bo).await.cursor;
    let waits = tokio::spawn({
        let (world, bo) = (Arc::clone(&world), bo.clone());
        async move { world.messaging.wait(&bo, &WaitRequest::default()).await.expect("bo waits") }
    });
    let looks = tokio::spawn({
        let (world, bo) = (Arc::clone(&world), bo.clone());
        async move { look(&world, &bo, &after(cursor)).await }
    });
    let at_once = PeekRequest { max_s: Some(0), ..after(cursor) };
    let seen = look(&world, &bo, &at_once).await;
    assert!(seen.arrived == 0 && seen.waiting.is_empty(), "{seen:?}");
    world.send(&ana, "agent:bo", "wake up").await;
    let waited = soon(waits).await.expect("it does not panic");
    assert!(!waited.superseded && subjects(&waited) == ["wake up"], "{waited:?}");
    let seen = soon(looks).await.expect("it does not panic");
    assert_eq!(seen.arrived, 1, "{seen:?}");
    let others = PeekRequest { max_s: Some(0), ..after(seen.cursor) };
    assert_eq!(look(&world, &ana, &others).await.arrived, 0, "what is for bo wakes nobody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_wakes_again() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    world.send(&ana, "agent:bo", "once more").await;
    let cursor = world.take(&bo).await.cursor;
    world.pass(LEASE_MS + 1).await;
    world.pass(BACK_OFF_MS_MAX).await;
    let seen = soon(look(&world, &bo, &after(cursor))).await;
    assert_eq!((waiting(&seen), seen.arrived), (vec!["once more"], 1));
    assert_eq!(seen.waiting[0].attempt, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_is_no_sign_of_life_and_settles_nothing() {
    let world = World::start().await;
    let caller = world.caller("bo", &[]).await;
    let surface = AgentSurface::new(world.services.clone());
    let arguments = |text: &str| RawValue::from_string(text.to_owned()).expect("JSON");
    let early = surface.call(&caller, "wait_for_events", &arguments(r#"{"peek":true,"max_s":0}"#)).await.expect("an answer");
    assert!(early.is_error && early.json.contains("start_first"), "{}", early.json);
    surface.call(&caller, "start", &arguments(r#"{"name":"bo"}"#)).await.expect("it starts");
    let bo = world.agents.agent(world.project, "bo").await.expect("bo is there");
    let last = world.agents.last_call(&bo);
    world.pass(60_000).await;
    let seen = surface.call(&caller, "wait_for_events", &arguments(r#"{"peek":true,"max_s":0}"#)).await.expect("an answer");
    assert!(!seen.is_error && seen.json.contains(r#""waiting":[]"#) && seen.json.contains(r#""agent":"bo""#), "{}", seen.json);
    assert_eq!(world.agents.last_call(&bo), last);
    for wrong in [r#"{"peek":true,"ack":["msg_00000000000000000000000000"]}"#, r#"{"peek":1}"#] {
        let refused = surface.call(&caller, "wait_for_events", &arguments(wrong)).await.expect("an answer");
        assert!(refused.is_error && refused.json.contains("bad_argument"), "{wrong}: {}", refused.json);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_messages_wait_is_measured() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let figures = || world.agents.families().remove(0).samples;
    world.take(&bo).await;
    assert!(figures().is_empty(), "nothing was sent yet");
    let sent = world.send(&ana, "agent:bo", "how long?").await;
    world.pass(2_000).await;
    assert_eq!(subjects(&world.take(&bo).await), ["how long?"]);
    world.pass(30_000).await;
    world.ack(&bo, sent.message).await;
    world.take(&bo).await;
    let measured: Vec<(String, u64, f64)> = figures()
        .into_iter()
        .map(|sample| {
            let Value::Histogram { sum, count, .. } = sample.value else { unreachable!("times are histograms") };
            (sample.labels[0].1.clone(), count, sum)
        })
        .collect();
    let [(seen, 1, before), (acted, 1, then)] = measured.as_slice() else { unreachable!("one of each: {measured:?}") };
    assert_eq!((seen.as_str(), acted.as_str()), ("seen", "acted"));
    assert!((2.0..10.0).contains(before) && (30.0..40.0).contains(then), "{measured:?}");
}
