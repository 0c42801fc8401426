//! Calls of components' tools, waited for and not, told with a component whose answers are written down before.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pointsman::ports::lookups::{LookupRefusal, Lookups};
use pointsman::ports::offering::{News, Offering, Round};
use pointsman::ports::plugins::PluginFailure;
use pointsman::ports::provider::{Emission, Emit, Offers, ProviderCall, ProviderContext, ProviderOutcome, Providers};
use pointsman::ports::surface::{CallError, Caller};
use pointsman::service::surface::AgentSurface;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::world::{Setup, World};

const HOUR_MS: u64 = 60 * 60 * 1_000;

type Outcome = Result<ProviderOutcome, PluginFailure>;

/// A component that answers what it was told to, then that it goes on.
#[derive(Default)]
struct Scripted {
    outcomes: Mutex<VecDeque<Outcome>>,
    asked: Mutex<Vec<ProviderContext>>,
    over: Mutex<Vec<String>>,
    /// What each round looks up, and what came of it.
    look_up: Mutex<Vec<String>>,
    found: Mutex<Vec<Result<String, LookupRefusal>>>,
}

#[async_trait]
impl Providers for Scripted {
    fn providers(&self) -> Vec<String> {
        Vec::new()
    }

    async fn initial_offers(&self, plugin: &str) -> Result<Offers, PluginFailure> {
        Err(PluginFailure::NotBound(plugin.to_owned()))
    }

    async fn provide(&self, _: &str, context: ProviderContext, _: ProviderCall, _: Arc<dyn Emit>, lookups: Arc<dyn Lookups>) -> Outcome {
        self.asked.lock().push(context);
        let wanted = self.look_up.lock().clone();
        let found = tokio::task::spawn_blocking(move || wanted.iter().map(|uri| lookups.read(uri)).collect::<Vec<_>>()).await;
        self.found.lock().extend(found.expect("looking up does not panic"));
        self.outcomes.lock().pop_front().unwrap_or_else(pending)
    }

    async fn complete(&self, _: &str, _: String, _: String, _: String) -> Result<Vec<String>, PluginFailure> {
        Ok(Vec::new())
    }

    async fn cancelled(&self, _: &str, call_id: String, _: Vec<u8>) -> Result<(), PluginFailure> {
        self.over.lock().push(call_id);
        Ok(())
    }
}

struct Deaf;

impl Emit for Deaf {
    fn emit(&self, _: Emission) -> bool {
        true
    }
}

fn pending() -> Outcome {
    Ok(ProviderOutcome::Pending { state: b"s".to_vec(), wake_ms: u32::MAX })
}

fn busy() -> Outcome {
    Err(PluginFailure::Limit { plugin: "p".to_owned(), limit: "concurrency" })
}

fn asks() -> Outcome {
    let requests = json!({"name": {"method": "elicitation/create", "params": {"message": "who?"}}});
    Ok(ProviderOutcome::InputRequired { requests: requests.to_string(), state: b"asked".to_vec() })
}

fn complete(result: &Value) -> Outcome {
    Ok(ProviderOutcome::Complete(result.to_string()))
}

/// A host, whoever calls, and the component behind `p_count`.
struct Story {
    world: World,
    surface: Arc<AgentSurface>,
    caller: Caller,
    component: Arc<Scripted>,
    news: tokio::sync::Mutex<broadcast::Receiver<News>>,
}

fn call(arguments: &Value) -> ProviderCall {
    ProviderCall::Tool { name: "p_count".to_owned(), arguments: arguments.to_string() }
}

fn round(call_id: &str) -> Round {
    Round {
        call_id: call_id.to_owned(),
        client_capabilities: r#"{"elicitation":{}}"#.to_owned(),
        state: Vec::new(),
        answers: "{}".to_owned(),
    }
}

impl Story {
    async fn begin(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        Self::with(outcomes, Setup::default()).await
    }

    async fn with(outcomes: impl IntoIterator<Item = Outcome>, setup: Setup) -> Self {
        let component = Arc::new(Scripted { outcomes: Mutex::new(outcomes.into_iter().collect()), ..Scripted::default() });
        let world = World::with(Setup { answers: Some(Arc::clone(&component) as Arc<dyn Providers>), ..setup }).await;
        let numbers = json!({"type": "array", "items": {"type": "number"}});
        let tool = json!({
            "name": "count",
            "inputSchema": {"type": "object", "properties": {"numbers": numbers}},
            "outputSchema": {"type": "object", "required": ["sum"]},
        });
        let offers = Offers { namespace: "p_".to_owned(), tools: vec![tool.to_string()], ..Offers::default() };
        let checked = world.services.offers.check(world.project, "p", offers).expect("it is good");
        world.services.offers.install(world.project, "p", checked, 0);
        let caller = world.caller("ana", &[]).await;
        let surface = Arc::new(AgentSurface::new(world.services.clone()));
        let news = surface.news(&caller).await.expect("the log is read").into();
        Self { world, surface, caller, component, news }
    }

    /// The result of a call that is waited for.
    async fn called(&self, arguments: &Value) -> Value {
        let outcome = self.surface.round(&self.caller, &call(arguments), round("direct"), Arc::new(Deaf)).await;
        let Ok(ProviderOutcome::Complete(result)) = outcome else { unreachable!("a result was expected, not {outcome:?}") };
        serde_json::from_str(&result).expect("JSON")
    }

    /// The id of a call that goes on by itself.
    async fn deferred(&self) -> String {
        let task = self.surface.defer(&self.caller, call(&json!({})), round("deferred"), 0).await.expect("it is made");
        let task: Value = serde_json::from_str(task.get()).expect("JSON");
        task["taskId"].as_str().expect("an id").to_owned()
    }

    async fn task(&self, id: &str) -> Result<Value, CallError> {
        let task = self.surface.deferred(&self.caller, id).await?;
        Ok(serde_json::from_str(task.get()).expect("JSON"))
    }

    /// Lets time pass until a call stands so; no more of it than the call takes note of.
    async fn until(&self, id: &str, status: &str) -> Value {
        let mut news = self.news.lock().await;
        let standing = async {
            loop {
                self.world.pass(2_000).await;
                while !matches!(news.recv().await.expect("it goes on"), News::Deferred(of) if *of == *id) {}
                let task = self.task(id).await.expect("it is known");
                if task["status"] == status {
                    return task;
                }
            }
        };
        soon(standing).await
    }

    async fn answer(&self, id: &str, answers: &Value) {
        let answers = serde_json::value::to_raw_value(answers).expect("JSON");
        self.surface.answer_deferred(&self.caller, id, &answers).await.expect("it is known");
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it happens soon")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_tool_says_so_to_the_model() {
    let story = Story::begin([busy()]).await;
    let result = story.called(&json!({})).await;
    assert_eq!(result["isError"], true);
    assert_eq!(result["content"][0]["text"], "`p_count` is busy; call again in a second.");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_do_not_fit_are_answered_shortly_and_reach_nobody() {
    let story = Story::begin([]).await;
    for (wrong, says) in [
        (json!({"numbers": vec!["x"; 100_000]}), "/numbers/0"),
        (json!({"numbers": "x".repeat(500_000)}), "/numbers"),
        (json!({"text": "x".repeat(1 << 20)}), "at most 1048576 bytes"),
    ] {
        let result = story.called(&wrong).await;
        let text = result["content"][0]["text"].as_str().expect("a text");
        assert!(result["isError"] == true && text.contains(says) && text.len() < 500, "{text}");
    }
    assert!(story.component.asked.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_call_outlives_a_busy_component_and_asks_under_new_keys() {
    let done = json!({"content": [], "structuredContent": {"sum": 3}});
    let story = Story::begin([busy(), busy(), busy(), busy(), asks(), busy(), asks(), complete(&done)]).await;
    let id = story.deferred().await;
    for key in ["1.name", "2.name"] {
        let task = story.until(&id, "input_required").await;
        assert_eq!(task["inputRequests"][key]["method"], "elicitation/create", "{task}");
        story.answer(&id, &json!({"name": {"action": "decline"}, key: {"action": "accept"}})).await;
    }
    let task = story.until(&id, "completed").await;
    assert_eq!(task["result"], done);
    let answers: Vec<_> = story.component.asked.lock().iter().map(|context| context.answers.clone()).collect();
    let given = r#"{"name":{"action":"accept"}}"#;
    assert_eq!(answers[4..], ["{}", given, given, given], "answers outlive a round that did not take them");
    assert_eq!(story.world.events("mcp.called").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_result_is_held_to_its_schema() {
    let story = Story::begin([complete(&json!({"content": [], "structuredContent": {}}))]).await;
    let id = story.deferred().await;
    let task = story.until(&id, "failed").await;
    assert_eq!(task["error"]["code"], -32603, "{task}");
    assert!(story.world.events("mcp.called").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_call_ends_with_its_day_and_is_gone_an_hour_later() {
    let story = Story::begin([]).await;
    let id = story.deferred().await;
    story.world.pass(24 * HOUR_MS).await;
    assert_eq!(story.task(&id).await.expect("it is known")["error"], json!({"code": -32603, "message": "expired"}));
    soon(async {
        while story.component.over.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*story.component.over.lock(), ["deferred"]);
    story.world.pass(HOUR_MS / 2).await;
    assert!(story.task(&id).await.is_ok(), "its client may still look");
    story.world.pass(HOUR_MS).await;
    assert_eq!(story.task(&id).await, Err(CallError::UnknownTask(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_has_so_many_open_calls_and_no_more() {
    let story = Story::begin([]).await;
    let mut opened = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let (surface, caller) = (Arc::clone(&story.surface), story.caller.clone());
        opened.spawn(async move { surface.defer(&caller, call(&json!({})), round("deferred"), u32::MAX).await });
    }
    let mut made: Vec<Box<RawValue>> = Vec::new();
    while let Some(one) = opened.join_next().await {
        made.push(one.expect("it does not panic").expect("there is room"));
    }
    let refused = story.surface.defer(&story.caller, call(&json!({})), round("deferred"), 0).await;
    assert!(matches!(&refused, Err(CallError::TooMany(why)) if why.contains("1000")), "{refused:?}");
    let first: Value = serde_json::from_str(made[0].get()).expect("JSON");
    story.surface.cancel_deferred(&story.caller, first["taskId"].as_str().expect("an id")).await.expect("it is known");
    story.deferred().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_looks_the_project_up_where_its_provider_may() {
    let good = || complete(&json!({"content": [], "structuredContent": {"sum": 3}}));
    let story = Story::with([good(), good()], Setup { providers: vec!["p"], ..Setup::default() }).await;
    *story.component.look_up.lock() = vec!["pointsman://agents".to_owned(), "pointsman://T-9".to_owned()];
    story.called(&json!({"numbers": [1, 2]})).await;
    assert_eq!(*story.component.found.lock(), [Ok("[]".to_owned()), Err(LookupRefusal::NotFound)]);
    story.component.found.lock().clear();
    *story.component.look_up.lock() = vec!["pointsman://tasks".to_owned(); 70];
    story.called(&json!({"numbers": [1, 2]})).await;
    let found = story.component.found.lock().clone();
    assert!(found[..64].iter().all(Result::is_ok), "a call of its own, a budget of its own");
    assert_eq!(found[64..], vec![Err(LookupRefusal::Limited("64 look-ups at once".to_owned())); 6]);

    let story = Story::begin([good()]).await;
    *story.component.look_up.lock() = vec!["pointsman://agents".to_owned()];
    story.called(&json!({"numbers": [1, 2]})).await;
    assert_eq!(*story.component.found.lock(), [Err(LookupRefusal::NotGranted("lookups".to_owned()))]);
}
