//! Agents that live in the host, told with a component that does what its script says.

use std::future::Future;
use std::time::Duration;

use pointsman::ports::store::Store;
use pointsman::service::contexts::Viewer;
use pointsman::service::contexts::WriteRequest;
use pointsman::service::due;
use pointsman::service::kit::Acting;
use pointsman::service::messaging::SendRequest;
use pointsman::service::tasks::CreateTask;
use pointsman_core::ids::{MessageId, ProjectId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{ATTEMPTS_MAX, Setup, World, subjects};

/// A host where `helper` lives.
pub(crate) async fn with_helper(config: Value) -> World {
    World::with(Setup { residents: vec![("helper", named(config))], ..Setup::default() }).await
}

pub(crate) fn named(mut config: Value) -> Value {
    config["name"] = json!("helper");
    config
}

/// Tells the helper what to do, by message.
pub(crate) async fn tell(world: &World, from: &Acting, script: Value) -> MessageId {
    let request =
        SendRequest { to: vec!["agent:helper".to_owned()], subject: Some("do".to_owned()), body: script, ..SendRequest::default() };
    world.messaging.send(from, &request).await.expect("it is sent").message
}

/// Has an agent make a task.
pub(crate) async fn create_task(world: &World, by: &Acting, title: &str) {
    let request = CreateTask { title: title.to_owned(), ..CreateTask::default() };
    world.services.tasks.create(by, request).await.expect("it is made");
}

async fn titles(world: &World) -> Vec<String> {
    world.services.tasks.all(world.project).await.expect("tasks").into_iter().map(|task| task.title).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_all_it_says_and_acks_its_message() {
    let world = with_helper(json!({"capabilities": ["answers"]})).await;
    let ana = world.agent("ana", &[]).await;
    let script = json!({"do": [
        {"put": ["seen", "yes"]}, {"count": "n"}, {"task": ["mend it", [], ["src/**"]]}, {"task": ["and that", [], []]},
        {"write": ["plan", 0, "text/markdown", "first"]}, {"send": [["agent:ana"], "answer", "done", "{\"ok\":true}"]},
        {"read": ["pointsman://agents", "agents"]},
    ]});
    let message = tell(&world, &ana, script).await;
    assert_eq!(world.work().await, 1);
    assert_eq!(world.kept("helper", "seen").await.as_deref(), Some("yes"));
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"));
    assert_eq!(titles(&world).await, ["mend it", "and that"]);
    assert_eq!(world.contexts.read(world.project, &Viewer::Host, "plan", None).await.expect("it is there").text(), Some("first"));
    let agents: Value = serde_json::from_str(&world.kept("helper", "agents").await.expect("kept")).expect("JSON");
    assert_eq!(agents.as_array().map(Vec::len), Some(2), "{agents}");
    let answer = world.take(&ana).await;
    assert_eq!(subjects(&answer), ["done"]);
    assert_eq!(answer.messages[0].message.body, json!({"ok": true}));
    assert_eq!(answer.messages[0].message.from.provenance, pointsman_core::event::Provenance::Plugin);

    let acked = world.events("message.acked").await;
    assert_eq!(acked.iter().map(|event| event.event.subject.clone()).collect::<Vec<_>>(), [message.to_string()]);
    let acted = world.events("resident.acted").await;
    let [acted] = acted.as_slice() else { panic!("{acted:?}") };
    assert_eq!(acted.event.causation, Some(message.to_string()));
    assert_eq!(acted.event.data["actions"].as_array().map(Vec::len), Some(7));
    let of_answer = ["task.created", "context.written", "message.acked"];
    for kind in of_answer {
        let events = world.events(kind).await;
        assert!(events.iter().all(|event| event.at == acted.at && event.event.trace == Some(message.to_string())), "{kind}: {events:?}");
    }
    assert_eq!(world.work().await, 0, "it does not hear of its own acts");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_may_look_nothing_up_is_told_so() {
    let world = World::with(Setup { residents: vec![("helper", named(json!({})))], blind: true, ..Setup::default() }).await;
    let ana = world.agent("ana", &[]).await;
    tell(&world, &ana, json!({"do": [{"read": ["pointsman://agents", "agents"]}, {"count": "n"}]})).await;
    world.work().await;
    assert_eq!(world.kept("helper", "agents").await.as_deref(), Some("Refusal::NotGranted(\"lookups\")"));
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"), "its own memory is its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_action_that_is_not_valid_undoes_the_answer() {
    let world = with_helper(json!({})).await;
    let ana = world.agent("ana", &[]).await;
    let first = WriteRequest { key: "plan".to_owned(), text: Some("ana's".to_owned()), ..WriteRequest::default() };
    world.contexts.write(&ana, first).await.expect("it is written");
    let bad = [
        (json!({"send": [["agent:nobody"], "", "s", "b"]}), "not_found"),
        (json!({"write": ["plan", 0, "text/markdown", "mine"]}), "conflict"),
        (json!({"task": ["", [], []]}), "bad_argument"),
        (json!({"task": ["x", ["T-99"], []]}), "not_found"),
        (json!({"task": ["x", ["nine"], []]}), "bad_argument"),
        (json!({"note": ["T-99", "x"]}), "not_found"),
        (json!({"put": ["", "x"]}), "bad_argument"),
        (json!({"timer": ["t", u64::MAX]}), "bad_argument"),
        (json!({"fetch": ["f", "GET", "http://127.0.0.1:1/", ""]}), "not_granted"),
        (json!({"fetch": ["f", "GET", "https://127.0.0.1:1/", ""]}), "not_granted"),
        (json!({"fetch": ["f", "GET", "ftp://127.0.0.1:1/", ""]}), "bad_argument"),
        (json!({"offers": {"tools": []}}), "not_granted"),
    ];
    for (action, code) in bad {
        let script = json!({"do": [{"put": ["k", "v"]}, {"task": ["never", [], []]}, {"timer": ["soon", 1]}, action]});
        let message = tell(&world, &ana, script).await;
        world.work().await;
        let refused = world.events("resident.refused").await.pop().expect("it is recorded");
        assert_eq!((refused.event.data["code"].as_str(), refused.event.causation), (Some(code), Some(message.to_string())), "{code}");
        assert!(refused.event.data["why"].as_str().is_some_and(|why| why.starts_with("action 3 (`")), "{:?}", refused.event.data);
    }
    assert_eq!(world.kept("helper", "k").await, None);
    assert_eq!(titles(&world).await, Vec::<String>::new());
    assert_eq!(world.contexts.read(world.project, &Viewer::Host, "plan", None).await.expect("it is there").text(), Some("ana's"));
    assert_eq!(world.contexts.open_conflicts(world.project, &Viewer::Host).await.expect("a list").len(), 0, "not even a conflict is kept");
    assert!(world.kit.store.range(Some(world.project), "resident-wake/", "", 10).await.expect("a page").entries.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_is_decided_again() {
    let world = with_helper(json!({})).await;
    let ana = world.agent("ana", &[]).await;
    for n in 0..15 {
        tell(&world, &ana, json!({"do": [{"count": "n"}, {"task": [format!("helper's {n}"), [], []]}]})).await;
    }
    // The serial of tasks is what both sides write.
    let makes = async {
        for n in 0..15 {
            create_task(&world, &ana, &format!("ana's {n}")).await;
        }
    };
    let (worked, ()) = tokio::join!(world.work(), makes);
    assert_eq!(worked, 15);
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("15"), "each message acted once");
    let all = titles(&world).await;
    assert_eq!((all.len(), all.iter().filter(|title| title.starts_with("helper's")).count()), (30, 15));
    assert_eq!(world.events("message.acked").await.len(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_message_comes_again_and_is_given_up() {
    let world = with_helper(json!({})).await;
    let ana = world.agent("ana", &[]).await;
    let message = tell(&world, &ana, json!({"fail": "no idea"})).await;
    tell(&world, &ana, json!({"do": [{"put": ["after", "yes"]}]})).await;
    world.work().await;
    assert_eq!(world.kept("helper", "after").await.as_deref(), Some("yes"), "one that fails holds up nothing");
    for _ in 0..10 {
        world.pass(600_000).await;
    }
    let failed = world.events("resident.failed").await;
    assert_eq!(failed.len(), ATTEMPTS_MAX as usize);
    let attempts: Vec<_> = failed.iter().map(|event| event.event.data["attempt"].as_u64()).collect();
    assert_eq!(attempts, [Some(1), Some(2), Some(3)]);
    assert!(failed.iter().all(|event| event.event.data["event"] == message.to_string() && event.event.data["why"] == "no idea"));
    assert_eq!(world.events("resident.gave_up").await.len(), 1);
    assert_eq!(world.messaging.dead_letters(world.project).await.expect("a list").len(), 1);
    assert_eq!(world.work().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_and_limit_are_tries_as_well() {
    let world = with_helper(json!({})).await;
    let ana = world.agent("ana", &[]).await;
    for (script, code) in [(json!({"trap": true}), "trapped"), (json!({"spin": true}), "limit")] {
        tell(&world, &ana, script).await;
        world.work().await;
        let failed = world.events("resident.failed").await.pop().expect("it is recorded");
        assert_eq!(failed.event.data["code"], code);
    }
    tell(&world, &ana, json!({"do": [{"put": ["still", "here"]}]})).await;
    world.work().await;
    assert_eq!(world.kept("helper", "still").await.as_deref(), Some("here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_takes_too_long_is_a_try_as_well() {
    let setup = Setup { residents: vec![("helper", named(json!({})))], slow: Some("/helper/slow"), ..Setup::default() };
    let world = World::with(setup).await;
    let ana = world.agent("ana", &[]).await;
    let message = tell(&world, &ana, json!({"do": [{"count": "slow"}, {"count": "slow"}]})).await;
    tell(&world, &ana, json!({"do": [{"put": ["after", "yes"]}]})).await;
    world.work().await;
    assert_eq!(world.kept("helper", "after").await.as_deref(), Some("yes"), "it holds up nothing");
    for _ in 0..4 {
        world.pass(600_000).await;
    }
    let failed = world.events("resident.failed").await;
    let tries: Vec<_> = failed.iter().map(|event| (event.event.data["attempt"].as_u64(), event.event.data["code"].as_str())).collect();
    assert_eq!(tries, [(Some(1), Some("slow")), (Some(2), Some("slow")), (Some(3), Some("slow"))]);
    assert_eq!(world.events("resident.gave_up").await.len(), 1);
    assert_eq!(world.messaging.dead_letters(world.project).await.expect("a list")[0].message, message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_out_when_the_host_died_comes_again() {
    let world = with_helper(json!({})).await;
    let ana = world.agent("ana", &[]).await;
    let message = tell(&world, &ana, json!({"do": [{"count": "n"}, {"keep": "event"}]})).await;
    // The first half of what a turn does: the message is leased, the component may have run, no answer was committed.
    let helper = world.agents.agent(world.project, "helper").await.expect("it lives here");
    let acting = Acting { agent: std::sync::Arc::clone(&helper), ..ana.clone() };
    assert_eq!(world.take(&acting).await.messages.len(), 1);
    let world = world.restart().await;
    world.work().await;
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"));
    assert!(world.kept("helper", "event").await.is_some_and(|event| event.starts_with(&message.to_string())), "under the same id");
    let world = world.restart().await;
    assert_eq!(world.work().await, 0);
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"), "what was committed does not come again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_fed_in_order_and_goes_on_after_a_restart() {
    let on = json!({"task.created": {"do": [{"count": "n"}, {"keep": "last"}, {"task": ["follow up", [], []]}]}});
    let world =
        World::with(Setup { residents: vec![("helper", named(json!({"events": ["task.*"], "on": on})))], ..Setup::default() }).await;
    let ana = world.agent("ana", &[]).await;
    create_task(&world, &ana, "one").await;
    world.work().await;
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"), "its own task woke it not");
    create_task(&world, &ana, "two").await;
    create_task(&world, &ana, "three").await;
    let world = world.restart().await;
    world.work().await;
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("3"));
    let last = world.kept("helper", "last").await.expect("kept");
    let (id, json) = last.split_once(' ').expect("an id and an event");
    let event: Value = serde_json::from_str(json).expect("JSON");
    assert_eq!((event["data"]["title"].as_str(), event["type"].as_str()), (Some("three"), Some("task.created")));
    assert!(id.starts_with("log:"), "{id}");
    let world = world.restart().await;
    assert_eq!(world.work().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_its_own_acts_does_not_wake_it() {
    let on = json!({"message.routed": {"do": [{"count": "n"}, {"send": [["agent:ana"], "", "again", "x"]}]}});
    let world = with_helper(json!({"events": ["message.*", "offers.*"], "on": on})).await;
    let ana = world.agent("ana", &[]).await;
    world.send(&ana, "agent:ana", "to myself").await;
    // Its message about a message is routed, too; were it fed that, it would go on for ever.
    assert!(tokio::time::timeout(Duration::from_secs(20), world.work()).await.is_ok());
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fails_holds_up_the_next_until_it_is_given_up() {
    let start = 1_800_000_000_000_i64;
    let on = json!({
        "task.created": {"fail": "too early", "fail_before_ms": start + 8_000, "do": [{"count": "n"}]},
        "agent.started": {"fail": "never"},
    });
    let world = with_helper(json!({"events": ["task.created", "agent.started"], "on": on})).await;
    let ana = world.agent("ana", &[]).await;
    create_task(&world, &ana, "one").await;
    world.work().await;
    let failed = world.events("resident.failed").await;
    assert_eq!(failed.iter().map(|event| event.event.data["why"].clone()).collect::<Vec<_>>(), ["never"]);
    let world = world.restart().await;
    assert_eq!(world.work().await, 0, "the try waits, also after a restart");
    for _ in 0..4 {
        world.pass(20_000).await;
    }
    let failed = world.events("resident.failed").await;
    assert_eq!(failed.len(), ATTEMPTS_MAX as usize, "{failed:?}");
    let first = failed[0].event.data["event"].clone();
    assert!(failed.iter().all(|event| event.event.data["event"] == first), "the same id each time");
    assert_eq!(world.events("resident.gave_up").await.len(), 1);
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"), "then the next one came");
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_ring_by_the_stores_clock() {
    let on = json!({"timer:beat": {"do": [{"count": "n"}, {"keep": "event"}, {"timer": ["beat", 5_000]}]}, "timer:once": {"do": [{"count": "once"}]}});
    let world = with_helper(json!({"on": on})).await;
    let ana = world.agent("ana", &[]).await;
    tell(&world, &ana, json!({"do": [{"timer": ["beat", 5_000]}, {"timer": ["once", 7_000]}, {"timer": ["never", 1_000]}]})).await;
    tell(&world, &ana, json!({"do": [{"cancel": "never"}]})).await;
    world.work().await;
    world.pass(4_000).await;
    assert_eq!(world.kept("helper", "n").await, None);
    world.pass(1_500).await;
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"));
    let world = world.restart().await;
    world.pass(5_500).await;
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("2"), "it was set again by its own answer");
    assert_eq!(world.kept("helper", "once").await.as_deref(), Some("1"));
    world.pass(60_000).await;
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("3"), "one that rang late rings once");
    assert_eq!(world.kept("helper", "once").await.as_deref(), Some("1"));
    assert!(world.events("resident.failed").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_fails_comes_again_under_its_id() {
    let start = 1_800_000_000_000_i64;
    let on = json!({"timer:t": {"fail": "too early", "fail_before_ms": start + 7_000, "do": [{"keep": "event"}]}, "timer:bad": {"fail": "never"}});
    let world = with_helper(json!({"on": on})).await;
    let ana = world.agent("ana", &[]).await;
    tell(&world, &ana, json!({"do": [{"timer": ["t", 1_000]}, {"timer": ["bad", 1_000]}]})).await;
    world.work().await;
    for _ in 0..6 {
        world.pass(15_000).await;
    }
    let failed = world.events("resident.failed").await;
    let of = |id: &str| failed.iter().filter(|event| event.event.data["event"].as_str().is_some_and(|event| event.starts_with(id))).count();
    assert_eq!((of("timer:t:"), of("timer:bad:")), (0, ATTEMPTS_MAX as usize), "{failed:?}");
    assert_eq!(world.events("resident.gave_up").await.len(), 1);
    assert!(world.kept("helper", "event").await.is_some());
    assert!(world.kit.store.range(Some(world.project), "resident-wake/", "", 10).await.expect("a page").entries.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_are_stored_with_the_answer_that_replaces_them() {
    let setup = Setup { residents: vec![("helper", named(json!({})))], providers: vec!["helper"], ..Setup::default() };
    let world = World::with(setup).await;
    let ana = world.agent("ana", &[]).await;
    let offers = json!({"namespace": "mine", "tools": [{"name": "new", "inputSchema": {"type": "object"}}], "updated": ["test://one"]});
    tell(&world, &ana, json!({"do": [{"offers": offers}]})).await;
    world.work().await;
    let replaced = world.events("offers.replaced").await.pop().expect("it is recorded");
    assert_eq!((replaced.event.data["tools"].as_u64(), replaced.event.data["resources"].as_u64()), (Some(1), Some(0)));
    assert_eq!(world.events("resource.updated").await.pop().expect("it is announced").event.subject, "test://one");
    assert!(world.kit.store.get(Some(world.project), "offers/helper").await.expect("the store answers").is_some());
    tell(&world, &ana, json!({"do": [{"offers": {"tools": ["no JSON"]}}]})).await;
    world.work().await;
    assert_eq!(world.events("resident.refused").await.len(), 1);
    let world = world.restart().await;
    assert!(world.events("offers.refused").await.is_empty(), "what was stored is installed again");
}

fn new_tool(namespace: &str, name: &str) -> Value {
    json!({"namespace": namespace, "tools": [{"name": name, "inputSchema": {"type": "object"}}]})
}

fn tools(world: &World) -> Vec<String> {
    world.services.offers.of(world.project).tools().map(|tool| tool.full_name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_that_are_not_taken_undo_the_answer() {
    let setup = Setup { residents: vec![("helper", named(json!({})))], providers: vec!["helper"], ..Setup::default() };
    let world = World::with(setup).await;
    let ana = world.agent("ana", &[]).await;
    tell(&world, &ana, json!({"do": [{"offers": new_tool("mine", "good")}]})).await;
    world.work().await;
    let before = world.kit.store.get(Some(world.project), "offers/helper").await.expect("the store answers");
    for bad in [new_tool("", "bare"), new_tool("pre", "Bad Name"), json!({"namespace": "mine", "tools": [{"name": "schemaless"}]})] {
        tell(&world, &ana, json!({"do": [{"put": ["k", "v"]}, {"offers": bad}]})).await;
        world.work().await;
        let refused = world.events("resident.refused").await.pop().expect("it is recorded");
        assert_eq!(refused.event.data["code"], "bad_argument");
        let why = refused.event.data["why"].as_str().unwrap_or_default();
        assert!(why.starts_with("action 1 (`replace-offers`): the offers are not taken: "), "{why}");
    }
    tell(&world, &ana, json!({"do": [{"offers": new_tool("a", "b")}, {"offers": new_tool("a", "c")}]})).await;
    world.work().await;
    assert_eq!(world.events("resident.refused").await.len(), 4, "one change of the offers an answer");
    assert_eq!(world.kept("helper", "k").await, None);
    assert_eq!(world.kit.store.get(Some(world.project), "offers/helper").await.expect("the store answers"), before);
    assert_eq!((tools(&world), world.events("offers.replaced").await.len()), (vec!["mine_good".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_offer_the_same_at_once_take_turns() {
    let resident = |name: &str| json!({"name": name});
    let residents = vec![("one", resident("one")), ("two", resident("two"))];
    // Both offer the same first, so the second is left out until it offers something else.
    let world = World::with(Setup { residents, providers: vec!["one", "two"], ..Setup::default() }).await;
    let ana = world.agent("ana", &[]).await;
    let stop = CancellationToken::new();
    let lives = tokio::spawn(world.residency.clone().run(stop.clone()));
    let store = &*world.kit.store;
    for round in 0..20 {
        let script = json!({"do": [{"offers": new_tool("same", &format!("tool_{round}"))}]});
        for name in ["one", "two"] {
            let request = SendRequest {
                to: vec![format!("agent:{name}")],
                subject: Some("do".to_owned()),
                body: script.clone(),
                ..SendRequest::default()
            };
            world.messaging.send(&ana, &request).await.expect("it is sent");
        }
        let settled =
            || async { world.events("offers.replaced").await.len() + world.events("resident.refused").await.len() == 2 * (round + 1) };
        until(store, Some(world.project), "the answers of both", settled).await;
        assert_eq!(world.events("offers.replaced").await.len(), round + 1, "one of them was first");
    }
    stop.cancel();
    assert!(lives.await.is_ok());
    let offered = tools(&world);
    let world = world.restart().await;
    assert_eq!(tools(&world), offered, "what stands is what was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_offers_that_are_not_taken_any_more_give_way_to_the_first() {
    let setup =
        Setup { residents: vec![("helper", named(json!({})))], providers: vec!["helper"], bare: vec!["helper"], ..Setup::default() };
    let mut world = World::with(setup).await;
    let first = tools(&world);
    let ana = world.agent("ana", &[]).await;
    tell(&world, &ana, json!({"do": [{"offers": new_tool("", "bare")}]})).await;
    world.work().await;
    assert_eq!(tools(&world), ["bare"]);
    world.setup.bare.clear();
    let world = world.restart().await;
    assert_eq!(tools(&world), first);
    let refused = world.events("offers.refused").await.pop().expect("it is recorded");
    assert!(refused.event.data["why"].as_str().is_some_and(|why| why.contains("what it offers first is")), "{:?}", refused.event.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resident_whose_name_is_taken_is_left_out_and_said_so() {
    let twins = vec![("one", named(json!({}))), ("two", named(json!({})))];
    let world = World::with(Setup { residents: twins, ..Setup::default() }).await;
    let refused = world.events("resident.refused").await.pop().expect("it is recorded");
    assert_eq!(refused.event.data["plugin"], "two");
    let ana = world.agent("ana", &[]).await;
    tell(&world, &ana, json!({"do": [{"put": ["k", "v"]}]})).await;
    world.work().await;
    assert_eq!(world.kept("one", "k").await.as_deref(), Some("v"));
}

/// Waits until something is so, looking again after each change of a log.
pub(crate) async fn until<F: Future<Output = bool>>(store: &dyn Store, project: Option<ProjectId>, what: &str, is_so: impl Fn() -> F) {
    let mut hint = store.watch(project);
    let looking = async {
        loop {
            hint.borrow_and_update();
            if is_so().await {
                break;
            }
            hint.changed().await.expect("the store is open");
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), looking).await.is_ok(), "{what} never came");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loops_wake_it_by_themselves_and_end_when_told() {
    let world = with_helper(json!({"on": {"timer:now": {"do": [{"count": "n"}, {"send": [["agent:ana"], "", "rang", "x"]}]}}})).await;
    let ana = world.agent("ana", &[]).await;
    let stop = CancellationToken::new();
    let rings = tokio::spawn(due::run(world.services.clone(), world.residency.clone(), stop.clone()));
    let lives = tokio::spawn(world.residency.clone().run(stop.clone()));
    let store = &*world.kit.store;
    tell(&world, &ana, json!({"do": [{"timer": ["now", 0]}]})).await;
    until(store, Some(world.project), "the timer", || async { world.kept("helper", "n").await.is_some() }).await;
    assert_eq!(subjects(&world.take(&ana).await), ["rang"]);

    let second = ProjectId::new(world.kit.now(), world.kit.system.id_bytes());
    world.agents.create_project(second, "second", "main").await.expect("a project");
    let moved_in = || async { world.agents.agent(second, "helper").await.is_ok() };
    until(store, Some(second), "the resident of a new project", moved_in).await;
    stop.cancel();
    let ended = async { (rings.await.is_ok(), lives.await.is_ok()) };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), ended).await, Ok((true, true)));
}
