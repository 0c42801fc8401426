//! Who is there.

use pointsman::ports::surface::Caller;
use pointsman::service::agents::{Presence, StartRequest};
use pointsman_core::limits::PRESENT_MS;

use crate::world::World;

async fn is_there(world: &World, name: &str) -> Presence {
    let all = world.agents.attendance(world.project).await.expect("a list");
    all.into_iter().find(|(agent, ..)| agent.name == name).map(|(_, presence, _)| presence).expect("it is listed")
}

async fn started(world: &World, name: &str) -> Caller {
    let caller = world.caller(name, &[]).await;
    let request = StartRequest { name: Some(name.to_owned()), ..StartRequest::default() };
    world.agents.start(&caller, &request).await.expect("it starts");
    caller
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_call_is_away_until_it_does() {
    let world = World::start().await;
    let (ana, _) = (started(&world, "ana").await, started(&world, "bo").await);
    world.pass(PRESENT_MS / 2).await;
    world.agents.acting(&ana, None).await.expect("ana calls");
    world.pass(PRESENT_MS / 2).await;
    assert_eq!((is_there(&world, "ana").await, is_there(&world, "bo").await), (Presence::Present, Presence::Away));
    let away = world.events("agent.away").await;
    assert_eq!(away.iter().map(|event| event.event.data["name"].as_str()).collect::<Vec<_>>(), [Some("bo")]);

    let world = world.restart().await;
    world.pass(PRESENT_MS).await;
    world.pass(PRESENT_MS).await;
    assert_eq!((is_there(&world, "ana").await, is_there(&world, "bo").await), (Presence::Away, Presence::Away));
    assert_eq!(world.events("agent.away").await.len(), 2, "each is said once");
    assert!(world.events("agent.back").await.is_empty());

    for _ in 0..3 {
        world.agents.acting(&ana, None).await.expect("ana calls");
    }
    assert_eq!((is_there(&world, "ana").await, is_there(&world, "bo").await), (Presence::Present, Presence::Away));
    assert_eq!(world.events("agent.back").await.len(), 1);
    world.pass(PRESENT_MS).await;
    started(&world, "bo").await;
    assert_eq!((is_there(&world, "ana").await, is_there(&world, "bo").await), (Presence::Away, Presence::Present));
    assert_eq!((world.events("agent.away").await.len(), world.events("agent.back").await.len()), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_are_noted_once_in_a_while() {
    let world = World::start().await;
    let ana = started(&world, "ana").await;
    let head = world.kit.store.get(Some(world.project), &key(&world).await).await.expect("the store answers").expect("it is noted").version;
    for _ in 0..50 {
        world.agents.acting(&ana, None).await.expect("ana calls");
    }
    let later =
        world.kit.store.get(Some(world.project), &key(&world).await).await.expect("the store answers").expect("it is noted").version;
    assert_eq!(later, head, "none of them is stored");
}

async fn key(world: &World) -> String {
    let ana = world.agents.agent(world.project, "ana").await.expect("ana");
    format!("presence/{}", ana.id)
}
