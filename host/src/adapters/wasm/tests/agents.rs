//! Agents and providers: the scripted one, and some that do not fit.

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::guest::component;
use super::*;
use crate::ports::lookups::{LookupRefusal, Lookups};
use crate::ports::provider::{Emission, Emit, ProviderCall, ProviderContext, ProviderOutcome, Providers};
use crate::ports::resident::{Action, Cause, ResidentEvent, ResidentMemory, Residents};

const SCRIPTED: &[u8] = include_bytes!("scripted-agent.wasm");

fn scripted(name: &str, world: World, config: &Value) -> PluginSource {
    PluginSource { config_json: config.to_string(), lookups: Grant::Given, ..source(name, world, SCRIPTED.into()) }
}

async fn helper() -> Wasm {
    let wasm = runtime();
    let config = json!({"name": "helper", "capabilities": ["rust"], "events": ["task.*"], "on": {"timer:stop": {"fail": "not now"}}});
    wasm.load(scripted("helper", World::Agent, &config)).await.expect("it loads");
    wasm
}

/// A memory of one key.
struct One;

impl ResidentMemory for One {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        (key == "n").then(|| b"41".to_vec())
    }

    fn keys(&self, prefix: &str, after: &str, limit: u32) -> Vec<String> {
        vec![format!("{prefix}|{after}|{limit}")]
    }
}

impl Lookups for One {
    fn read(&self, uri: &str) -> Result<String, LookupRefusal> {
        match uri {
            "pointsman://tasks" => Ok("[]".to_owned()),
            "pointsman://T-1" => Ok("{\"task\":\"T-1\"}".to_owned()),
            "pointsman://secret" => Err(LookupRefusal::NotGranted("secrets".to_owned())),
            _ => Err(LookupRefusal::NotFound),
        }
    }
}

async fn handle(wasm: &Wasm, cause: Cause) -> Result<Result<Vec<Action>, String>, PluginFailure> {
    let event = ResidentEvent { id: "log:1.2".to_owned(), at_ms: 7, cause };
    wasm.handle("helper", event, Arc::new(One)).await
}

async fn told(wasm: &Wasm, script: Value) -> Result<Result<Vec<Action>, String>, PluginFailure> {
    handle(wasm, Cause::Message(json!({"body": script}).to_string())).await
}

#[tokio::test]
async fn an_agent_says_what_it_is_when_it_is_loaded() {
    let wasm = helper().await;
    let residents = wasm.residents();
    let [(name, described)] = residents.as_slice() else { panic!("{residents:?}") };
    assert_eq!((name.as_str(), described.name.as_str()), ("helper", "helper"));
    assert_eq!(
        (described.capabilities.as_slice(), described.events.as_slice()),
        (["rust".to_owned()].as_slice(), ["task.*".to_owned()].as_slice())
    );
    assert_eq!(wasm.providers(), ["helper"], "it offers MCP as well");
    assert_eq!(wasm.loaded()["helper"].0, World::Agent);
}

#[tokio::test]
async fn every_action_and_read_goes_through() {
    let wasm = helper().await;
    let script = json!({"do": [
        {"put": ["a", "1"]}, {"count": "n"}, {"delete": "b"}, {"keep": "event"},
        {"read": ["pointsman://tasks", "found"]}, {"read": ["pointsman://secret", "refused"]}, {"keys": ["p", "keys"]},
        {"send": [["agent:ana", "rust"], "question", "subject", "body"]}, {"write": ["plan", 3, "text/markdown", "text"]},
        {"task": ["title", ["T-1"], ["src/**"]]}, {"note": ["T-1", "seen"]}, {"timer": ["beat", 500]}, {"cancel": "other"},
        {"fetch": ["f", "POST", "http://a/", "body"]}, {"offers": {"tools": []}},
    ]});
    let actions = told(&wasm, script).await.expect("it runs").expect("it answers");
    let put = |key: &str, text: &str| Action::Put { key: key.to_owned(), bytes: text.as_bytes().to_vec() };
    assert_eq!(actions[..2], [put("a", "1"), put("n", "42")]);
    assert_eq!(actions[2], Action::Delete { key: "b".to_owned() });
    assert!(matches!(&actions[3], Action::Put { bytes, .. } if bytes.starts_with(b"log:1.2 {")), "{:?}", actions[3]);
    assert_eq!(actions[4], put("found", "[]"));
    assert_eq!(actions[5], put("refused", "Refusal::NotGranted(\"secrets\")"));
    assert_eq!(actions[6], put("keys", "p||1000"));
    let to = vec!["agent:ana".to_owned(), "rust".to_owned()];
    let text = |text: &str| text.to_owned();
    assert_eq!(
        actions[7..],
        [
            Action::SendMessage { to, kind: text("question"), subject: text("subject"), body: text("body") },
            Action::WriteContext { key: text("plan"), base_version: 3, media_type: text("text/markdown"), bytes: b"text".to_vec() },
            Action::CreateTask {
                title: text("title"),
                description: String::new(),
                kind: text("fix"),
                priority: 4,
                depends_on: vec![text("T-1")],
                paths: vec![text("src/**")],
            },
            Action::NoteTask { task: text("T-1"), note: text("seen") },
            Action::SetTimer { id: text("beat"), delay_ms: 500 },
            Action::CancelTimer { id: text("other") },
            Action::Fetch {
                id: text("f"),
                method: text("POST"),
                url: text("http://a/"),
                headers: vec![(text("accept"), text("text/plain"))],
                body: b"body".to_vec(),
            },
            Action::ReplaceOffers(text("{\"tools\":[]}")),
        ]
    );
}

#[tokio::test]
async fn causes_reach_the_agent_as_what_they_are() {
    let wasm = runtime();
    let on = json!({"timer:beat": {"do": [{"keep": "t"}]}, "http:f": {"do": [{"keep": "h"}]}, "task.created": {"do": [{"keep": "l"}]}});
    wasm.load(scripted("helper", World::Agent, &json!({"on": on}))).await.expect("it loads");
    for (cause, kept) in [
        (Cause::Timer("beat".to_owned()), "log:1.2 beat".to_owned()),
        (Cause::Http { id: "f".to_owned(), status: 204, body: b"hi".to_vec() }, "log:1.2 204 hi".to_owned()),
        (Cause::Logged(r#"{"type":"task.created"}"#.to_owned()), r#"log:1.2 {"type":"task.created"}"#.to_owned()),
    ] {
        let actions = handle(&wasm, cause).await.expect("it runs").expect("it answers");
        assert!(matches!(actions.as_slice(), [Action::Put { bytes, .. }] if *bytes == kept.as_bytes()), "{kept}: {actions:?}");
    }
}

#[tokio::test]
async fn refusal_trap_and_limit_are_kept_apart() {
    let wasm = helper().await;
    assert_eq!(handle(&wasm, Cause::Timer("stop".to_owned())).await, Ok(Err("not now".to_owned())));
    let trapped = told(&wasm, json!({"trap": true})).await;
    assert!(matches!(trapped, Err(PluginFailure::Trapped { .. })), "{trapped:?}");
    let endless = told(&wasm, json!({"spin": true})).await;
    assert_eq!(endless, Err(PluginFailure::Limit { plugin: "helper".to_owned(), limit: "time" }));
    assert_eq!(told(&wasm, json!({})).await, Ok(Ok(Vec::new())), "the next event finds it well");
}

fn context(state: &[u8], answers: &str) -> ProviderContext {
    ProviderContext {
        agent: "ana".to_owned(),
        principal: "team-a".to_owned(),
        call_id: "call-1".to_owned(),
        client_capabilities: "{}".to_owned(),
        state: state.to_vec(),
        answers: answers.to_owned(),
        at_ms: 7,
    }
}

/// Hears what a call tells, until it is cancelled.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<Emission>>,
    last: usize,
}

impl Emit for Ear {
    fn emit(&self, what: Emission) -> bool {
        let mut heard = self.heard.lock();
        heard.push(what);
        heard.len() != self.last
    }
}

async fn call(wasm: &Wasm, tool: &str, context: ProviderContext) -> Result<ProviderOutcome, PluginFailure> {
    let call = ProviderCall::Tool { name: tool.to_owned(), arguments: r#"{"a":1}"#.to_owned() };
    wasm.provide("helper", context, call, Arc::new(Ear::default()), Arc::new(One)).await
}

fn text_of(outcome: &Result<ProviderOutcome, PluginFailure>) -> String {
    let Ok(ProviderOutcome::Complete(json)) = outcome else { panic!("{outcome:?}") };
    let result: Value = serde_json::from_str(json).expect("JSON");
    result["content"][0]["text"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_provider_offers_and_answers() {
    let wasm = helper().await;
    let offers = wasm.initial_offers("helper").await.expect("offers");
    assert_eq!((offers.namespace.as_str(), offers.tools.len(), offers.resources.len(), offers.prompts.len()), ("test", 4, 1, 1));
    assert_eq!(text_of(&call(&wasm, "echo", context(&[], "{}")).await), r#"ana of team-a: {"a":1}"#);
    let ear = Arc::new(Ear::default());
    let resource = ProviderCall::Resource { uri: "test://one".to_owned() };
    let read = wasm.provide("helper", context(&[], "{}"), resource, ear.clone(), Arc::new(One)).await;
    assert_eq!(read, Ok(ProviderOutcome::Complete(r#"{"contents":[{"text":"one","uri":"test://one"}]}"#.to_owned())));
    let prompt = ProviderCall::Prompt { name: "greet".to_owned(), arguments: "{}".to_owned() };
    let filled = wasm.provide("helper", context(&[], "{}"), prompt, ear, Arc::new(One)).await;
    assert!(matches!(&filled, Ok(ProviderOutcome::Complete(json)) if json.contains("greet {}")), "{filled:?}");
    let complete = |argument: &str| wasm.complete("helper", "{}".to_owned(), argument.to_owned(), "x".to_owned());
    assert_eq!(complete("few").await, Ok(vec!["x0".to_owned(), "x1".to_owned()]));
    let many = complete("many").await;
    assert!(matches!(&many, Err(PluginFailure::Invalid { why, .. }) if why.contains("101 values")), "{many:?}");
}

#[tokio::test]
async fn a_call_may_take_several_rounds() {
    let wasm = helper().await;
    assert_eq!(call(&wasm, "wait", context(&[], "{}")).await, Ok(ProviderOutcome::Pending { state: vec![7], wake_ms: 250 }));
    assert_eq!(text_of(&call(&wasm, "wait", context(&[7], "{}")).await), "[7] of call-1");
    let asked = call(&wasm, "ask", context(&[], "{}")).await;
    assert!(matches!(&asked, Ok(ProviderOutcome::InputRequired { requests, .. }) if requests.contains("elicitation/create")), "{asked:?}");
    assert_eq!(text_of(&call(&wasm, "ask", context(&[1], r#"{"who":"ana"}"#)).await), r#"{"who":"ana"}"#);
    assert_eq!(call(&wasm, "missing", context(&[], "{}")).await, Ok(ProviderOutcome::MissingCapability(r#"{"sampling":{}}"#.to_owned())));
    let refused = ProviderOutcome::ProtocolError { code: -32602, message: "no".to_owned() };
    assert_eq!(call(&wasm, "protocol", context(&[], "{}")).await, Ok(refused));
    assert_eq!(wasm.cancelled("helper", "call-1".to_owned(), vec![7]).await, Ok(()));
    let trapped = wasm.cancelled("helper", "call-1".to_owned(), Vec::new()).await;
    assert!(matches!(trapped, Err(PluginFailure::Trapped { .. })), "{trapped:?}");
}

#[tokio::test]
async fn what_a_call_tells_is_heard_until_it_is_cancelled() {
    let wasm = helper().await;
    let tool = || ProviderCall::Tool { name: "emit".to_owned(), arguments: "{}".to_owned() };
    let ear = Arc::new(Ear::default());
    let outcome = wasm.provide("helper", context(&[], "{}"), tool(), ear.clone(), Arc::new(One)).await;
    assert_eq!(text_of(&outcome), "true");
    let progress = Emission::Progress { done: 1.0, total: 2.0, message: "half".to_owned() };
    let log = Emission::Log { level: "info".to_owned(), logger: String::new(), data: "\"line\"".to_owned() };
    assert_eq!(*ear.heard.lock(), [progress, log, Emission::DetachStream]);
    let cancelled = Arc::new(Ear { last: 1, ..Ear::default() });
    let outcome = wasm.provide("helper", context(&[], "{}"), tool(), cancelled.clone(), Arc::new(One)).await;
    assert_eq!((text_of(&outcome).as_str(), cancelled.heard.lock().len()), ("false", 1));
}

#[tokio::test]
async fn a_provider_gets_away_with_nothing() {
    let wasm = helper().await;
    let nonsense = call(&wasm, "nonsense", context(&[], "{}")).await;
    assert!(matches!(&nonsense, Err(PluginFailure::Invalid { why, .. }) if why == "its result is no JSON object"), "{nonsense:?}");
    let limit = |limit| Err(PluginFailure::Limit { plugin: "helper".to_owned(), limit });
    assert_eq!(call(&wasm, "huge", context(&[], "{}")).await, limit("result size"));
    assert_eq!(call(&wasm, "spin", context(&[], "{}")).await, limit("time"));
    assert_eq!(text_of(&call(&wasm, "remember", context(&[], "{}")).await), "None", "a call is no event: it has no memory");
    let unknown = wasm.initial_offers("nobody").await;
    assert_eq!(unknown, Err(PluginFailure::NotBound("nobody".to_owned())));
}

/// An agent by hand, that imports `calls` and may do without the interface that goes with it.
fn by_hand(world: &str) -> Arc<[u8]> {
    let text = r#"(module
        (import "pointsman:mcp-provider/calls@0.1.0" "emit" (func (param i32 i64 i64 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "pointsman:types/setup@0.1.0#configure") (param i32 i32) (result i32) (unreachable))
        (func (export "pointsman:agent/handling@0.1.0#describe") (result i32) (unreachable))
        (func (export "pointsman:agent/handling@0.1.0#handle") (param i32 i32 i64 i32 i32 i32 i32 i32 i32) (result i32) (unreachable)))"#;
    component(&wat::parse_str(text).expect("a module"), &format!("package test:guest; world guest {{ {world} }}"))
}

/// A provider by hand, each of whose calls looks the tool's name up: what it finds is the result, a refusal the error.
fn reader() -> Arc<[u8]> {
    let text = r#"(module
        (import "pointsman:agent/lookups@0.1.0" "read" (func $read (param i32 i32 i32)))
        (memory (export "memory") 2)
        (global $next (mut i32) (i32.const 65536))
        (func (export "cabi_realloc") (param i32 i32 i32) (param $bytes i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
            (global.set $next (i32.add (local.get $at) (local.get $bytes)))
            (local.get $at))
        (func $look (param $uri i32) (param $bytes i32) (result i32)
            (memory.fill (i32.const 1024) (i32.const 0) (i32.const 32))
            (call $read (local.get $uri) (local.get $bytes) (i32.const 1024))
            (if (i32.load8_u (i32.const 1024)) (then
                (i32.store8 (i32.const 1024) (i32.const 4))
                (i32.store (i32.const 1028) (i32.load8_u (i32.const 1028)))))
            (i32.const 1024))
        (func (export "pointsman:types/setup@0.1.0#configure") (param i32 i32) (result i32)
            (i32.store8 (i32.const 1024) (i32.const 0)) (i32.const 1024))
        (func (export "pointsman:mcp-provider/provider@0.1.0#initial-offers") (result i32) (unreachable))
        (func (export "pointsman:mcp-provider/provider@0.1.0#call") (param $all i32) (result i32)
            (call $look (i32.load offset=56 (local.get $all)) (i32.load offset=60 (local.get $all))))
        (func (export "pointsman:mcp-provider/provider@0.1.0#read-resource")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32) (unreachable))
        (func (export "pointsman:mcp-provider/provider@0.1.0#get-prompt") (param i32) (result i32) (unreachable))
        (func (export "pointsman:mcp-provider/provider@0.1.0#complete") (param i32 i32 i32 i32 i32 i32) (result i32) (unreachable))
        (func (export "pointsman:mcp-provider/provider@0.1.0#cancelled") (param i32 i32 i32 i32) (unreachable)))"#;
    let world = "include pointsman:mcp-provider/mcp-provider@0.1.0;";
    component(&wat::parse_str(text).expect("a module"), &format!("package test:guest; world guest {{ {world} }}"))
}

#[tokio::test]
async fn a_call_looks_up_what_it_is_let() {
    let wasm = runtime();
    let withheld = wasm.load(source("reader", World::McpProvider, reader())).await;
    let why =
        "it imports `pointsman:agent/lookups@0.1.0`, which is not granted: write `capabilities = [\"lookups\"]` into its `[plugins.NAME]`";
    assert!(matches!(&withheld, Err(PluginFailure::Invalid { why: said, .. }) if said == why), "{withheld:?}");
    wasm.load(PluginSource { lookups: Grant::Given, ..source("reader", World::McpProvider, reader()) }).await.expect("it loads");
    let look = async |uri: &str| {
        let call = ProviderCall::Tool { name: uri.to_owned(), arguments: "{}".to_owned() };
        wasm.provide("reader", context(&[], "{}"), call, Arc::new(Ear::default()), Arc::new(One)).await
    };
    assert_eq!(look("pointsman://T-1").await, Ok(ProviderOutcome::Complete("{\"task\":\"T-1\"}".to_owned())));
    let refused = |code: i32, message: &str| Ok(ProviderOutcome::ProtocolError { code, message: message.to_owned() });
    assert_eq!(look("pointsman://none").await, refused(0, ""), "not found");
    assert_eq!(look("pointsman://secret").await, refused(1, "secrets"), "not granted");
}

#[tokio::test]
async fn an_agent_that_looks_up_is_loaded_only_where_that_is_granted() {
    let wasm = runtime();
    let withheld = wasm.load(source("helper", World::Agent, SCRIPTED.into())).await;
    let why = |failure: &PluginFailure| matches!(failure, PluginFailure::Invalid { why, .. } if why.contains("write `capabilities"));
    assert!(withheld.as_ref().is_err_and(why), "{withheld:?}");
    assert!(wasm.loaded().is_empty());
}

#[tokio::test]
async fn only_the_two_shapes_of_an_agent_are_let_in() {
    let wasm = runtime();
    let refused = |result: Result<PluginRef, PluginFailure>| match result {
        Err(PluginFailure::Invalid { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    let half = by_hand("include pointsman:agent/agent@0.1.0; import pointsman:mcp-provider/calls@0.1.0;");
    assert_eq!(
        refused(wasm.load(source("half", World::Agent, half)).await),
        "it imports `pointsman:mcp-provider/calls@0.1.0`, which the world `agent` does not give"
    );
    assert_eq!(
        refused(wasm.load(scripted("helper", World::McpProvider, &json!({}))).await),
        "it imports `pointsman:agent/kv@0.1.0`, which the world `mcp-provider` does not give"
    );
    assert_eq!(
        refused(wasm.load(scripted("helper", World::Policy, &json!({}))).await).split(',').next_back(),
        Some(" which the world `policy` does not give")
    );
    let misspelt = wasm.load(scripted("helper", World::Agent, &json!({"nam": 1}))).await;
    assert!(matches!(&misspelt, Err(PluginFailure::Refused { why, .. }) if why.contains("`nam`")), "{misspelt:?}");
    assert_eq!(wasm.loaded().into_keys().collect::<Vec<_>>(), Vec::<String>::new());
}
