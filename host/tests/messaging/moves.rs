//! Agents and providers that are bound, taken away and loaded anew while the host runs.

use std::time::Duration;

use pointsman::ports::offering::News;
use pointsman::service::settings::Bindings;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::residents::{create_task, named, tell, until, with_helper};
use crate::world::{SCRIPTED, Setup, World, load_agent};

/// Milliseconds between two looks at what is to come.
const LOOK_MS: u64 = 20;

fn bound(world: &World) -> Bindings {
    Bindings::clone(&world.kit.settings.bindings.now())
}

/// Binds otherwise, and has those move who are to.
async fn bind(world: &World, bindings: Bindings) {
    world.kit.settings.bindings.replace(bindings);
    world.residency.settle().await.expect("the store answers");
}

/// Returns the agent of the tests as another component: with another digest.
fn another() -> Vec<u8> {
    // A custom section (binary format of WebAssembly, 5.5.3): 3 bytes, of which the name has 2.
    [SCRIPTED, &[0, 3, 2, b'v', b'2']].concat()
}

fn tools(world: &World) -> Vec<(String, String)> {
    let offered = world.services.offers.of(world.project);
    offered.tools().map(|tool| (tool.plugin.clone(), tool.full_name.clone())).collect()
}

/// Returns whether it was told that the tools are others.
fn told(news: &mut broadcast::Receiver<News>) -> bool {
    let mut is_told = false;
    while let Ok(news) = news.try_recv() {
        is_told |= news == News::Tools;
    }
    is_told
}

fn new_tool(name: &str) -> Value {
    json!({"namespace": "mine", "tools": [{"name": name, "inputSchema": {"type": "object"}}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resident_that_is_taken_away_leaves_and_goes_on_where_it_was_when_it_comes_back() {
    let on = json!({"task.created": {"do": [{"count": "n"}]}, "timer:later": {"do": [{"count": "rang"}]}});
    let world = with_helper(json!({"events": ["task.created"], "on": on})).await;
    let ana = world.agent("ana", &[]).await;
    tell(&world, &ana, json!({"do": [{"timer": ["later", 1_000]}]})).await;
    create_task(&world, &ana, "one").await;
    world.work().await;
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"));
    let wanted = bound(&world);
    bind(&world, Bindings { residents: Vec::new(), ..wanted.clone() }).await;
    assert!(world.residency.living(world.project).is_empty());

    create_task(&world, &ana, "two").await;
    tell(&world, &ana, json!({"do": [{"put": ["told", "yes"]}]})).await;
    world.pass(5_000).await;
    assert_eq!((world.kept("helper", "n").await.as_deref(), world.kept("helper", "told").await), (Some("1"), None), "nobody hears it");
    assert_eq!(world.kept("helper", "rang").await, None);

    bind(&world, wanted).await;
    world.work().await;
    world.pass(1).await;
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("2"), "the log waited");
    assert_eq!(world.kept("helper", "told").await.as_deref(), Some("yes"), "its inbox waited");
    assert_eq!(world.kept("helper", "rang").await.as_deref(), Some("1"), "its timer rings late, and once");
    assert!(world.events("resident.failed").await.is_empty() && world.events("resident.refused").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loops_take_in_who_comes_goes_and_is_loaded_anew() {
    let world = with_helper(json!({})).await;
    let ana = world.agent("ana", &[]).await;
    let wanted = bound(&world);
    let stop = CancellationToken::new();
    let lives = tokio::spawn(world.residency.clone().run(stop.clone()));
    let (store, book) = (&*world.kit.store, &world.kit.settings.bindings);
    let has = async |key: &'static str| world.kept("helper", key).await.is_some();
    tell(&world, &ana, json!({"do": [{"put": ["a", "1"]}]})).await;
    until(store, Some(world.project), "the first", || has("a")).await;

    book.replace(Bindings { residents: Vec::new(), ..wanted.clone() });
    let gone = async {
        while !world.residency.living(world.project).is_empty() {
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), gone).await.is_ok(), "it does not leave");
    tell(&world, &ana, json!({"do": [{"put": ["b", "1"]}]})).await;
    book.replace(wanted.clone());
    until(store, Some(world.project), "what came meanwhile", || has("b")).await;

    // Under the same name, another component with another configuration; what is bound is the same.
    let on = json!({"task.created": {"do": [{"put": ["c", "1"]}]}});
    load_agent(&*world.kit.plugins, "helper", &another(), &named(json!({"events": ["task.created"], "on": on}))).await;
    book.replace(wanted);
    create_task(&world, &ana, "for the new one").await;
    let acted_as = async |digest: &str| world.events("resident.acted").await.iter().any(|event| event.event.data["digest"] == digest);
    let new = world.kit.plugins.reference("helper").expect("it is loaded").digest;
    // It may have moved in after the event; then the next one is for it.
    let taken_in = async {
        while !has("c").await {
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), taken_in).await.is_ok(), "the new one does not act");
    assert!(acted_as(&new).await, "what it did is its own");
    stop.cancel();
    assert!(tokio::time::timeout(Duration::from_secs(20), lives).await.is_ok_and(|ended| ended.is_ok()));
    assert!(world.events("resident.failed").await.is_empty(), "nothing failed by it");
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_go_with_their_provider_and_come_back_with_it() {
    let setup = Setup { residents: vec![("helper", named(json!({})))], providers: vec!["helper"], ..Setup::default() };
    let world = World::with(setup).await;
    let (ana, wanted, first) = (world.agent("ana", &[]).await, bound(&world), tools(&world));
    assert!(!first.is_empty());
    let mut news = world.services.offers.news(&world.kit, world.project).await.expect("news");
    bind(&world, Bindings { providers: Vec::new(), ..wanted.clone() }).await;
    assert_eq!((tools(&world), told(&mut news)), (Vec::new(), true));
    tell(&world, &ana, json!({"do": [{"offers": new_tool("new")}]})).await;
    world.work().await;
    let refused = world.events("resident.refused").await.pop().expect("it is recorded");
    assert_eq!(refused.event.data["code"], "not_granted", "who is no provider any more offers nothing");
    bind(&world, wanted.clone()).await;
    assert_eq!((tools(&world), told(&mut news)), (first.clone(), true));
    bind(&world, wanted.clone()).await;
    assert!(!told(&mut news), "what did not change is not told");

    tell(&world, &ana, json!({"do": [{"offers": new_tool("newer")}]})).await;
    world.work().await;
    let own = vec![("helper".to_owned(), "mine_newer".to_owned())];
    assert_eq!(tools(&world), own);
    bind(&world, Bindings { providers: Vec::new(), ..wanted.clone() }).await;
    bind(&world, wanted.clone()).await;
    assert_eq!(tools(&world), own, "what it offered last is what it offers");

    told(&mut news);
    load_agent(&*world.kit.plugins, "helper", &another(), &named(json!({}))).await;
    bind(&world, wanted).await;
    assert_eq!((tools(&world), told(&mut news)), (first, true), "another component begins anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_left_out_for_the_sake_of_another_comes_when_that_one_is_gone() {
    let resident = |name: &str| json!({"name": name});
    let residents = vec![("one", resident("one")), ("two", resident("two"))];
    let world = World::with(Setup { residents, providers: vec!["one", "two"], ..Setup::default() }).await;
    let (wanted, offered) = (bound(&world), tools(&world));
    assert!(offered.iter().all(|(plugin, _)| plugin == "one"), "{offered:?}");
    bind(&world, wanted.clone()).await;
    assert_eq!(world.events("offers.refused").await.len(), 1, "it is said once");
    let without = wanted.providers.iter().filter(|binding| binding.plugin != "one").cloned().collect();
    bind(&world, Bindings { providers: without, ..wanted }).await;
    let names = |all: &[(String, String)]| all.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&tools(&world)), names(&offered));
    assert!(tools(&world).iter().all(|(plugin, _)| plugin == "two"));
}
