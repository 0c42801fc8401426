//! Who gets a message that is addressed to a capability, a topic, or everyone.

use pointsman::service::agents::StartRequest;
use pointsman::service::messaging::{HostMessage, Nack, REVIEW_REQUEST};
use pointsman_core::message::Address;
use serde_json::{Value, json};

use crate::world::{LEASE_MS, Setup, World, message, subjects};

fn nack(message: pointsman_core::ids::MessageId) -> Nack {
    Nack { message, reason: "busy".to_owned(), delay_s: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_component_chooses_and_who_refuses_sends_it_to_the_next() {
    let world = World::with(Setup { routers: vec!["routing-capability"], ..Setup::default() }).await;
    let ana = world.agent("ana", &["rust"]).await;
    let (bo, cy) = (world.agent("bo", &["rust@1.95.0", "review"]).await, world.agent("cy", &["rust@1.90.0"]).await);
    world.agent("di", &["go"]).await;
    world.send(&ana, "agent:bo", "something to do").await;

    let sent = world.send(&ana, "rust@^1.80", "a review, please").await;
    assert_eq!((sent.routed[0].agent.as_str(), sent.routed[0].router.as_deref()), ("cy", Some("routing-capability")), "bo is busier");
    let routed = &world.events("message.routed").await[1].event;
    let digest = world.kit.plugins.loaded()["routing-capability"].1.digest.clone();
    assert_eq!(routed.data["router"], json!({"name": "routing-capability", "digest": digest}));
    assert_eq!((&routed.data["decision"], &routed.data["rest"]), (&json!("ranked"), &json!([bo.agent.id])));

    assert_eq!(subjects(&world.take(&cy).await), ["a review, please"]);
    world.messaging.settle(&cy, &[], &[nack(sent.message)]).await.expect("it is given back");
    let handed = world.take(&bo).await;
    assert_eq!(handed.messages.iter().map(|handed| handed.attempt).collect::<Vec<_>>(), [1, 2]);
    let late = world.messaging.settle(&cy, &[sent.message], &[]).await.expect("an answer");
    assert_eq!(late.refused[0].code, "not_holder", "cy gave it away");
    world.ack(&bo, sent.message).await;
    assert_eq!(world.agents.agent(world.project, "cy").await.expect("cy").nacked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn routed_again_when_nobody_is_left_on_the_list() {
    let world = World::with(Setup { routers: vec!["routing-capability"], ..Setup::default() }).await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &["rust"]).await);
    let sent = world.send(&ana, "rust", "take it").await;
    let cy = world.agent("cy", &["rust"]).await;
    world.take(&bo).await;
    world.messaging.settle(&bo, &[], &[nack(sent.message)]).await.expect("it is given back");
    assert_eq!(subjects(&world.take(&cy).await), ["take it"], "cy came after the first decision");
    let again = &world.events("message.routed").await[1].event;
    assert_eq!((&again.data["attempt"], &again.data["rest"]), (&json!(1), &json!([cy.agent.id])));
    world.messaging.settle(&cy, &[], &[nack(sent.message)]).await.expect("it is given back");
    assert!(world.take(&bo).await.messages.is_empty() && world.take(&cy).await.messages.is_empty(), "both refused: it backs off");
    world.pass(60_000).await;
    assert_eq!(world.take(&cy).await.messages[0].attempt, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_fails_is_passed_over_and_recorded() {
    let world = World::with(Setup { routers: vec!["no-such-router", "routing-capability"], ..Setup::default() }).await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &["rust"]).await);
    let sent = world.send(&ana, "rust", "still arrives").await;
    assert_eq!((sent.routed[0].id, sent.routed[0].router.as_deref()), (bo.agent.id, Some("routing-capability")));
    let asked = &world.events("message.routed").await[0].event.data["asked"][0];
    assert_eq!(asked["router"], "no-such-router");
    assert!(asked["outcome"].as_str().is_some_and(|outcome| outcome.starts_with("failed")), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_routers_the_least_loaded_gets_it() {
    let world = World::start().await;
    let ana = world.agent("ana", &["rust"]).await;
    let mut counts = std::collections::BTreeMap::new();
    for name in ["bo", "cy", "di"] {
        world.agent(name, &["rust"]).await;
    }
    for n in 0..9 {
        let sent = world.send(&ana, "rust", &format!("m{n}")).await;
        *counts.entry(sent.routed[0].agent.clone()).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [3, 3, 3], "never to the sender");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_fetch_it_loses_it_to_the_next() {
    let world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    let agents = [world.agent("bo", &["rust"]).await, world.agent("cy", &["rust"]).await];
    let sent = world.send(&ana, "rust", "anybody there?").await;
    let (first, second) = if sent.routed[0].agent == "bo" { (0, 1) } else { (1, 0) };
    world.pass(LEASE_MS).await;
    assert!(world.take(&agents[first]).await.messages.is_empty());
    assert_eq!(subjects(&world.take(&agents[second]).await), ["anybody there?"]);
    assert_eq!(world.events("message.unclaimed").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_take_waits_for_somebody_who_can() {
    let world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    let sent = world.send(&ana, "all(rust, review)", "for later").await;
    assert!(sent.routed.is_empty() && sent.deferred[0].retry_at.is_some());
    assert_eq!(world.events("message.routed").await[0].event.data["decision"], "nobody");
    let bo = world.agent("bo", &["rust"]).await;
    world.pass(0).await;
    assert!(world.take(&bo).await.messages.is_empty());

    let world = world.restart().await;
    let cy = world.agent("cy", &["rust", "review"]).await;
    world.pass(0).await;
    assert_eq!(subjects(&world.take(&cy).await), ["for later"]);
    world.ack(&cy, sent.message).await;
    world.pass(3_600_000).await;
    assert_eq!(world.events("message.routed").await.len(), 2, "it is routed once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_message_expires_too() {
    let world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    let request = pointsman::service::messaging::SendRequest { expires_in_s: Some(60), ..message("rust", "for nobody") };
    world.messaging.send(&ana, &request).await.expect("it is stored");
    world.pass(60_000).await;
    assert_eq!(world.events("message.expired").await.len(), 1);
    let bo = world.agent("bo", &["rust"]).await;
    world.pass(0).await;
    assert!(world.take(&bo).await.messages.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_everyone_reach_each_other_agent_once() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &["rust"]).await);
    let caller = world.caller("cy", &[]).await;
    let request = StartRequest { name: Some("cy".to_owned()), topics: Some(vec!["releases".to_owned()]), ..StartRequest::default() };
    world.agents.start(&caller, &request).await.expect("cy starts");
    let cy = world.agents.acting(&caller, None).await.expect("cy acts");

    let sent = world.send(&ana, "topic:releases", "1.0 is out").await;
    assert_eq!(sent.routed.iter().map(|routed| routed.agent.as_str()).collect::<Vec<_>>(), ["cy"]);
    let nobody = world.send(&ana, "topic:weather", "rain").await;
    assert!(nobody.routed.is_empty() && nobody.dropped.len() == 1, "the sender is told");

    let mut request = message("all", "for all");
    request.to.extend(["agent:bo".to_owned(), "rust".to_owned()]);
    world.messaging.send(&ana, &request).await.expect("it is sent");
    assert_eq!(subjects(&world.take(&bo).await), ["for all"], "once, however often it is addressed");
    assert_eq!(subjects(&world.take(&cy).await), ["1.0 is out", "for all"]);
    assert!(world.take(&ana).await.messages.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_asks_for_reviews_but_not_the_author() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &["review"]).await, world.agent("bo", &["review"]).await);
    let ask = HostMessage {
        to: vec![Address::Capability("review".parse().expect("an expression"))],
        kind: REVIEW_REQUEST.to_owned(),
        subject: "Please review T-1".to_owned(),
        body: Value::Null,
        paths: Vec::new(),
        priority: 4,
        causation: Some("M-1".to_owned()),
        except: vec![ana.agent.id],
    };
    let sent = world.messaging.send_as_host(world.project, ask).await.expect("it is sent");
    assert_eq!(sent.routed[0].agent, "bo");
    assert_eq!(world.take(&bo).await.messages[0].message.from.name, "host");
}
