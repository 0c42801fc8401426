//! What the governor does around calls: breakers, shadows, fresh re-runs, records. Real components, a real store.

#![expect(clippy::panic, reason = "a test that cannot go on says so and ends")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pointsman::adapters::embedded::{EmbeddedStore, Options};
use pointsman::adapters::system::{OsSystem, wall_clock_ms};
use pointsman::adapters::wasm::{Wasm, WasmOptions};
use pointsman::ports::clock::System;
use pointsman::ports::decision::{CheckQuestion, NamedCandidate, Question, RouteQuestion, ask};
use pointsman::ports::health::{BreakerView, Health};
use pointsman::ports::plugins::{
    Gate, GateFacts, Grant, Instances, PluginFailure, PluginLimits, PluginSource, Plugins, RouteMessage, World,
};
use pointsman::ports::registry::{Mode, OnFailure};
use pointsman::ports::store::Store;
use pointsman::service::decisions::DecisionLog;
use pointsman::service::governor::{GivenUp, Governor, Recording};
use pointsman::service::settings::Rule;
use pointsman::service::trace;
use pointsman::shipped;
use pointsman_core::breaker::Tolerance;
use pointsman_core::time::TimeMs;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::guest::{PASS, RouterText};

#[path = "../src/adapters/wasm/tests/guest.rs"]
mod guest;

const TRAPS: RouterText = RouterText { route: "(unreachable)", ..PASS };

/// Says `a` on the first call of an instance and `b` on all later ones.
const REMEMBERS: RouterText = RouterText {
    fields: r#"(data (i32.const 16) "ab") (global $calls (mut i32) (i32.const 0))"#,
    route: "(global.set $next (i32.const 65536))
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (call $reason (i32.add (i32.const 16) (i32.gt_u (global.get $calls) (i32.const 1))) (i32.const 1))",
    ..PASS
};

struct Stage {
    governor: Arc<Governor>,
    log: DecisionLog,
    stop: CancellationToken,
    watching: JoinHandle<()>,
    store: Arc<EmbeddedStore>,
    given_up: mpsc::Receiver<GivenUp>,
    folder: TempDir,
}

impl Stage {
    fn new(recording: Recording, kept_max: usize) -> Self {
        Self::with_tolerance(recording, kept_max, Tolerance::default())
    }

    fn with_tolerance(recording: Recording, kept_max: usize, tolerance: Tolerance) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let system: Arc<dyn System> = Arc::new(OsSystem);
        let options = Options::new(wall_clock_ms, Arc::clone(&system));
        let store = Arc::new(EmbeddedStore::open(&folder.path().join("store"), options).expect("a store"));
        let wasm = Wasm::new(WasmOptions::new(None, [7; 32])).expect("this machine runs components");
        let (governor, watcher, given_up) = Governor::new(Arc::new(wasm), system, recording, tolerance);
        let log = DecisionLog::new(Arc::clone(&store) as Arc<dyn Store>, kept_max);
        let stop = CancellationToken::new();
        let watching = tokio::spawn(watcher.run(log.clone(), stop.clone()));
        Self { governor, log, stop, watching, store, given_up, folder }
    }

    async fn load(&self, name: &str, world: World, component: Arc<[u8]>, config: &str) {
        let source = PluginSource {
            name: name.to_owned(),
            world,
            component,
            config_json: config.to_owned(),
            limits: PluginLimits { deadline_ms: Some(2_000), ..PluginLimits::default() },
            needs: PluginLimits::default(),
            instances: Instances::Warm,
            lookups: Grant::Withheld,
        };
        self.governor.load(source).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }

    async fn load_shipped(&self, name: &str, shipped: &str, world: World, config: &str) {
        let component = shipped::component(shipped).expect("it is shipped");
        self.load(name, world, component.into(), config).await;
    }

    fn route(&self, plugin: &str) -> Result<String, PluginFailure> {
        self.governor.route(plugin, &RouteMessage::default(), &[]).map(|verdict| verdict.reason)
    }

    fn health(&self, plugin: &str) -> Health {
        self.governor.health().remove(plugin).unwrap_or_else(|| panic!("{plugin} is governed"))
    }

    /// Waits until everything seen so far was looked at.
    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        for _ in 0..1_500 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what} did not come");
    }

    /// Ends all of it; returns the folder in which the store is.
    async fn end(self) -> TempDir {
        let Self { governor, log, stop, watching, store, given_up, folder } = self;
        stop.cancel();
        watching.await.expect("no panic");
        store.close().await;
        drop((governor, log, store, given_up));
        folder
    }
}

fn among(names: &[&str]) -> Question {
    let candidates = names.iter().enumerate().map(|(at, name)| NamedCandidate {
        agent: (*name).to_owned(),
        satisfies: true,
        load: u32::try_from(at).expect("few"),
        ..NamedCandidate::default()
    });
    Question::Route(RouteQuestion { message: RouteMessage::default(), candidates: candidates.collect() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_names_the_act_that_caused_it() {
    let stage = Stage::new(Recording::On, 100);
    stage.load("r", World::Router, PASS.component(), "{}").await;
    assert!(trace::on_behalf("req-1", async { stage.route("r") }).await.is_ok());
    assert!(stage.route("r").is_ok());
    stage.until("both records", async || stage.log.newest("r", 10).await.expect("the store answers").len() == 2).await;
    let records = stage.log.newest("r", 10).await.expect("the store answers");
    let traces: Vec<Option<&str>> = records.iter().map(|one| one.trace.as_deref()).collect();
    assert_eq!(traces, [Some("req-1"), None]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fails_again_and_again_is_left_alone_until_a_better_one_comes() {
    let stage = Stage::new(Recording::Off, 0);
    stage.load("r", World::Router, TRAPS.component(), "{}").await;
    stage.load("good", World::Router, PASS.component(), "{}").await;
    for _ in 0..Tolerance::default().failures_max {
        assert!(matches!(stage.route("r"), Err(PluginFailure::Trapped { .. })));
    }
    let Err(PluginFailure::Resting { why, .. }) = stage.route("r") else { panic!("its breaker is open") };
    assert!(why.contains("unreachable") && why.contains("tried again in"), "{why}");
    let health = stage.health("r");
    assert!(matches!(health.breaker, BreakerView::Open { .. }), "{health:?}");
    assert_eq!((health.counts.trapped, health.counts.rested, health.counts.answered), (5, 1, 0));
    assert_eq!(stage.route("good"), Ok(String::new()), "another one is not touched by it");
    stage.load("r", World::Router, PASS.component(), "{}").await;
    assert_eq!(stage.route("r"), Ok(String::new()), "a new component starts with a clean record");
    assert_eq!(stage.health("r").generation, 2);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fails_after_every_rest_waits_for_an_operator() {
    let tolerance = Tolerance { failures_max: 1, rest_ms: 1, rest_ms_max: 1, rests_max: 2, ..Tolerance::default() };
    let mut stage = Stage::with_tolerance(Recording::Off, 0, tolerance);
    stage.load("r", World::Router, TRAPS.component(), "{}").await;
    let mut last = String::new();
    stage
        .until("the quarantine", async || {
            if let Err(PluginFailure::Resting { why, .. }) = stage.route("r") {
                last = why;
            }
            stage.health("r").breaker == BreakerView::Quarantined
        })
        .await;
    let Err(PluginFailure::Resting { why, .. }) = stage.route("r") else { panic!("it is not asked: {last}") };
    assert!(why.contains("`pointsman plugin enable r`"), "{why}");
    let told = stage.given_up.recv().await.expect("whoever listens is told");
    assert!(told.plugin == "r" && told.why.contains("unreachable"), "{told:?}");
    // What `enable` does.
    stage.load("r", World::Router, TRAPS.component(), "{}").await;
    assert!(matches!(stage.route("r"), Err(PluginFailure::Trapped { .. })), "it is asked again");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_say_who_is_asked_and_what_is_done_without_an_answer() {
    let stage = Stage::new(Recording::Off, 0);
    stage.load("r", World::Router, PASS.component(), "{}").await;
    assert_eq!((stage.governor.on_failure("r"), stage.governor.on_failure("nobody")), (OnFailure::FallBack, OnFailure::FallBack));
    stage.governor.set_rule("p", World::Policy, Rule::default());
    assert_eq!(stage.governor.on_failure("p"), OnFailure::Refuse, "whoever guards refuses");
    let off = Rule { mode: Mode::Off, on_failure: Some(OnFailure::Defer), ..Rule::default() };
    stage.governor.set_rule("r", World::Router, off);
    let Err(PluginFailure::Resting { why, .. }) = stage.route("r") else { panic!("it is off") };
    assert_eq!((why.as_str(), stage.governor.on_failure("r")), ("it is switched off", OnFailure::Defer));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_hears_its_share_and_each_difference_is_found() {
    let stage = Stage::new(Recording::Off, 0);
    stage.load_shipped("live", "routing-capability", World::Router, "{}").await;
    stage.load_shipped("next", "routing-capability", World::Router, r#"{"ranked_max":1}"#).await;
    let shadow = Rule { mode: Mode::Shadow, shadow_of: Some("live".to_owned()), share_permille: 500, ..Rule::default() };
    stage.governor.set_rule("next", World::Router, shadow);
    // Of one candidate both rank the one; of two they differ. Every second call is heard: half of each kind.
    for call in 0..80 {
        let names: &[&str] = if call < 40 { &["ana"] } else { &["ana", "bob"] };
        ask(stage.governor.as_ref(), "live", among(names)).await.expect("it answers");
    }
    stage.until("all calls", async || stage.health("next").shadow.is_some_and(|report| report.calls == 40)).await;
    let report = stage.health("next").shadow.expect("it shadows");
    assert_eq!((report.of.as_str(), report.same, report.different, report.failed), ("live", 20, 20, 0));
    let differences = stage.governor.differences("next");
    assert_eq!(differences.len(), 20);
    assert_eq!((&differences[0].live["to"], &differences[0].shadow["to"]), (&json!([0, 1]), &json!([0])));
    assert_eq!(differences[0].question["input"]["candidates"][1]["agent"], "bob");
    assert_eq!(stage.health("live").counts.answered, 80);
    assert_eq!(stage.health("next").counts.calls(), 0, "a shadow decides nothing");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_remembers_from_call_to_call_is_found_out() {
    let stage = Stage::new(Recording::Off, 0);
    stage.load("r", World::Router, REMEMBERS.component(), "{}").await;
    assert_eq!((stage.route("r"), stage.route("r")), (Ok("a".to_owned()), Ok("b".to_owned())));
    for _ in 0..600 {
        stage.route("r").expect("it answers");
    }
    stage.until("the demotion", async || stage.health("r").why.is_some()).await;
    assert_eq!((stage.route("r"), stage.route("r")), (Ok("a".to_owned()), Ok("a".to_owned())), "each call has an instance of its own");
    let why = stage.health("r").why.expect("a reason");
    assert!(why.contains("fresh instances only"), "{why}");
    assert_eq!(stage.governor.loaded().keys().collect::<Vec<_>>(), ["r"], "the one it was compared with is nobody's plugin");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_recorded_in_order_and_the_oldest_go() {
    let stage = Stage::new(Recording::On, 50);
    stage.load_shipped("route", "routing-capability", World::Router, "{}").await;
    stage.load_shipped("guard", "policy-default", World::Policy, "{}").await;
    for call in 0..120 {
        let names: Vec<String> = (0..call % 7).map(|n| format!("agent-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        ask(stage.governor.as_ref(), "route", among(&names)).await.expect("it answers");
    }
    let facts = GateFacts { task: "T-1".to_owned(), ..GateFacts::default() };
    let check = Question::Check(CheckQuestion { gate: Gate::Claim, facts });
    ask(stage.governor.as_ref(), "guard", check.clone()).await.expect("it answers");
    let log = stage.log.clone();
    let lengths = async || {
        let page = log.list("route", TimeMs(0), None, 1_000).await.expect("the store answers");
        let of = |question: &serde_json::Value| question["input"]["candidates"].as_array().map_or(0, Vec::len);
        page.decisions.iter().map(|one| of(&one.question)).collect::<Vec<_>>()
    };
    let wanted: Vec<usize> = (70..120).map(|call| call % 7).collect();
    stage.until("the last fifty", async || lengths().await == wanted).await;
    let guard = log.newest("guard", 10).await.expect("the store answers");
    assert_eq!(guard.len(), 1);
    assert_eq!(serde_json::from_value::<Question>(guard[0].question.clone()).expect("it is read back"), check);
    assert_eq!(guard[0].outcome["verdict"], "allow");
    let newest = log.newest("route", 3).await.expect("the store answers");
    assert_eq!(
        newest.iter().map(|one| one.question["input"]["candidates"].as_array().map_or(0, Vec::len)).collect::<Vec<_>>(),
        wanted[47..]
    );
    let first = log.list("route", TimeMs(0), None, 20).await.expect("the store answers");
    let second = log.list("route", TimeMs(0), first.next.as_deref(), 1_000).await.expect("the store answers");
    assert_eq!((first.decisions.len(), second.decisions.len(), second.next), (20, 30, None));
    stage.end().await;
}

/// Asks the command line to put the records of a data folder to a component; returns what it prints.
fn replayed(data: &Path, more: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args(["replay", "--plugin", "routing-capability", "--since", "all", "--json", "--data"]).arg(data).args(more);
    let out = command.current_dir(data).env("XDG_CACHE_HOME", data.join("cache")).output().expect("the binary runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_decisions_replay_to_the_same_bytes_and_a_planted_change_is_found_exactly() {
    const DECISIONS: u32 = 10_000;
    const AT_ONCE: u32 = 250;
    let stage = Stage::new(Recording::On, DECISIONS as usize);
    stage.load_shipped("routing-capability", "routing-capability", World::Router, "{}").await;
    for call in 0..DECISIONS {
        let able = |agent: &str, load| NamedCandidate { agent: agent.to_owned(), satisfies: true, load, ..NamedCandidate::default() };
        let mut candidates = vec![able("ana", call)];
        if call % 10 == 0 {
            candidates.push(able("ben", 0));
        }
        let question = Question::Route(RouteQuestion { message: RouteMessage::default(), candidates });
        ask(stage.governor.as_ref(), "routing-capability", question).await.expect("it answers");
        if call % AT_ONCE == AT_ONCE - 1 {
            let is_recorded = async || {
                let newest = stage.log.newest("routing-capability", 1).await.expect("the store answers");
                newest.first().is_some_and(|one| one.question["input"]["candidates"][0]["load"] == call)
            };
            stage.until("the record", is_recorded).await;
        }
    }
    let folder = stage.end().await;
    let first = replayed(folder.path(), &[]);
    assert_eq!(first, replayed(folder.path(), &[]), "twice the same, byte for byte");
    let found: serde_json::Value = serde_json::from_slice(&first).expect("JSON");
    assert_eq!((&found["replayed"], &found["same"], &found["changed"]), (&json!(DECISIONS), &json!(DECISIONS), &json!(0)), "{found}");
    let planted = replayed(folder.path(), &["--plugin-config", r#"{"ranked_max": 1}"#, "--show", "1000000"]);
    let found: serde_json::Value = serde_json::from_slice(&planted).expect("JSON");
    assert_eq!((&found["changed"], &found["kinds"]), (&json!(DECISIONS / 10), &json!({"ranked -> ranked": DECISIONS / 10})));
    let changes = found["changes"].as_array().expect("a list");
    let is_planted =
        |change: &serde_json::Value| change["question"]["input"]["candidates"][0]["load"].as_u64().is_some_and(|n| n % 10 == 0);
    assert!(changes.len() == (DECISIONS / 10) as usize && changes.iter().all(is_planted), "those and no others");
}
