//! Guests that would take more than they are given. Each ends in its own outcome, and a good one beside it goes on.

use std::time::Duration;

use hostile_guests::{Outcome, When, bombs};

use super::*;
use crate::ports::lookups::{LookupRefusal, Lookups};
use crate::ports::plugins::{ChangeFacts, CommitFacts, FlowTask, Gate, GateActor, GateFacts, MergeFile, MergeHunk, WaitingBranch};
use crate::ports::provider::{Emission, Emit, ProviderCall, ProviderContext, Providers};
use crate::ports::resident::{Cause, ResidentEvent, ResidentMemory, Residents};

/// Milliseconds of a deadline that is to be reached, where the world's own is long.
const DEADLINE_MS: u64 = 40;

/// How much dearer to compile a component may be than as many plain functions as one may have.
const DEARER_MAX: u32 = 4;

/// No memory, and nobody to tell.
struct Nobody;

impl ResidentMemory for Nobody {
    fn get(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn keys(&self, _: &str, _: &str, _: u32) -> Vec<String> {
        Vec::new()
    }
}

impl Lookups for Nobody {
    fn read(&self, _: &str) -> Result<String, LookupRefusal> {
        Err(LookupRefusal::NotFound)
    }
}

impl Emit for Nobody {
    fn emit(&self, _: Emission) -> bool {
        true
    }
}

fn hostile_source(guest: &hostile_guests::Guest) -> PluginSource {
    let world = guest.world.parse().expect("a world");
    let mut source = source(guest.name, world, guest.read().expect("it is built").into());
    if world != World::Router && guest.outcome == Outcome::Limit("time") {
        source.limits.deadline_ms = Some(DEADLINE_MS);
    }
    source
}

/// Puts every question of its world to a guest; returns what came of each.
async fn ask_everything(wasm: &Wasm, name: &str, world: World) -> Vec<Result<(), PluginFailure>> {
    let context = || ProviderContext {
        agent: String::new(),
        principal: String::new(),
        call_id: "call".to_owned(),
        client_capabilities: "{}".to_owned(),
        state: Vec::new(),
        answers: "{}".to_owned(),
        at_ms: 7,
    };
    let (text, task) = (String::new, FlowTask { id: "T-1".to_owned(), ..FlowTask::default() });
    let actor = GateActor { agent: text(), principal: text(), provenance: Provenance::Agent, capabilities: Vec::new() };
    let waiting = |task: &str| WaitingBranch {
        task: task.to_owned(),
        priority: 4,
        kind: text(),
        waited_ms: 0,
        files: 1,
        after: Vec::new(),
        overlaps: Vec::new(),
    };
    let change = || ChangeFacts {
        task: task.clone(),
        agent: text(),
        branch: text(),
        target: text(),
        commits: Vec::new(),
        files: Vec::new(),
        checks: Vec::new(),
        approvals: Vec::new(),
        resolutions: Vec::new(),
    };
    match world {
        World::Router => vec![ask(wasm, name).map(drop)],
        World::Merger => {
            let hunk = MergeHunk { base: b"a\n".to_vec(), ours: b"b\n".to_vec(), theirs: b"c\n".to_vec() };
            let file = MergeFile { path: "a".to_owned(), base: None, ours: Vec::new(), theirs: Vec::new(), so_far: Vec::new() };
            vec![wasm.merge_hunks(name, "a", vec![hunk]).await.map(drop), wasm.merge_file(name, file).await.map(drop)]
        }
        World::Reconciler => vec![wasm.reconcile(name, "text/plain", b"a".to_vec(), Vec::new(), Vec::new()).await.map(drop)],
        World::Workflow => {
            let commit = CommitFacts { task: task.clone(), agent: text(), note: text(), files: Vec::new() };
            vec![
                wasm.branch_name(name, task.clone(), 1).await.map(drop),
                wasm.commit_message(name, commit).await.map(drop),
                wasm.merge_message(name, change()).await.map(drop),
                wasm.pull_request(name, change()).await.map(drop),
                wasm.merge_order(name, vec![waiting("T-1"), waiting("T-2")]).await.map(drop),
            ]
        }
        World::Policy => {
            let facts = GateFacts {
                actor,
                owner: text(),
                task: text(),
                kind: text(),
                labels: Vec::new(),
                priority: 4,
                held: 0,
                target: text(),
                head: text(),
                paths: Vec::new(),
                lines_changed: 0,
                approvals: Vec::new(),
                checks: Vec::new(),
                capability: text(),
            };
            vec![wasm.check(name, Gate::Claim, facts).await.map(drop)]
        }
        World::Agent => {
            let event = ResidentEvent { id: "log:1.2".to_owned(), at_ms: 7, cause: Cause::Timer("t".to_owned()) };
            vec![wasm.handle(name, event, Arc::new(Nobody)).await.map(drop)]
        }
        World::McpProvider => {
            let tool = ProviderCall::Tool { name: "a".to_owned(), arguments: "{}".to_owned() };
            let prompt = ProviderCall::Prompt { name: "a".to_owned(), arguments: "{}".to_owned() };
            vec![
                wasm.initial_offers(name).await.map(drop),
                wasm.provide(name, context(), tool, Arc::new(Nobody), Arc::new(Nobody)).await.map(drop),
                wasm.provide(name, context(), ProviderCall::Resource { uri: text() }, Arc::new(Nobody), Arc::new(Nobody)).await.map(drop),
                wasm.provide(name, context(), prompt, Arc::new(Nobody), Arc::new(Nobody)).await.map(drop),
                wasm.complete(name, text(), text(), text()).await.map(drop),
                wasm.cancelled(name, text(), Vec::new()).await,
            ]
        }
    }
}

/// Returns whether this is what must become of a guest.
fn is_outcome(outcome: Outcome, end: &Result<(), PluginFailure>) -> bool {
    match (outcome, end) {
        (Outcome::Answer, Ok(())) | (Outcome::Trap, Err(PluginFailure::Trapped { .. })) => true,
        (Outcome::Limit(name), Err(PluginFailure::Limit { limit, .. })) => *limit == name,
        (Outcome::Invalid(words), Err(PluginFailure::Invalid { why, .. })) => why.contains(words),
        (Outcome::Answer | Outcome::Trap | Outcome::Limit(_) | Outcome::Invalid(_), _) => false,
    }
}

/// Makes sure that no instance is left when those that wait for the next call are given back.
fn all_places_are_free(wasm: &Wasm) {
    wasm.inner.shared.keepers.give_back();
    let metrics = wasm.inner.shared.engine.pooling_allocator_metrics().expect("instances come from the pool");
    let taken = (metrics.component_instances(), metrics.core_instances(), metrics.memories(), metrics.tables());
    assert_eq!(taken, (0, 0, 0, 0));
}

#[tokio::test]
async fn every_guest_ends_in_its_own_outcome_and_costs_nobody_else() {
    let wasm = runtime();
    load(&wasm, "good", &PASS).await.expect("a good router loads");
    for guest in hostile_guests::guests().filter(|guest| guest.when == When::Called) {
        let reference = wasm.load(hostile_source(guest)).await.unwrap_or_else(|error| panic!("{error}"));
        let world = guest.world.parse().expect("a world");
        for turn in 0..2 {
            let ends = ask_everything(&wasm, guest.name, world).await;
            assert!(ends.iter().any(|end| is_outcome(guest.outcome, end)), "{} in turn {turn}: {ends:?}", guest.name);
            // What it has no mind to, it traps in.
            let others = ends.iter().filter(|end| !matches!(end, Ok(()) | Err(PluginFailure::Trapped { .. })));
            let others: Vec<_> = others.filter(|end| !is_outcome(guest.outcome, end)).collect();
            assert!(others.is_empty() || guest.name == "answers-missing", "{}: {others:?}", guest.name);
            assert_eq!(ask(&wasm, "good"), Ok(pass()), "after {}", guest.name);
        }
        let (_, loaded, stats) = &wasm.loaded()[guest.name];
        assert_eq!(*loaded, reference);
        if guest.outcome != Outcome::Answer {
            assert_eq!(stats.calls, stats.traps + stats.limits + stats.invalid, "{}: {stats:?}", guest.name);
        }
    }
    assert_eq!(wasm.loaded()["good"].2.instances, 1, "the good one kept its instance");
    all_places_are_free(&wasm);
}

#[tokio::test]
async fn a_trap_is_told_in_the_words_of_the_guest() {
    let said = |route| RouterText {
        fields: r#"
            (import "pointsman:types/panics@0.1.0" "report" (func $report (param i32 i32 i32 i32)))
            (data (i32.const 64) "no rulessrc/lib.rs:12:5")"#,
        route,
        world: "import pointsman:types/panics@0.1.0;",
        ..PASS
    };
    let trap = said("(call $report (i32.const 64) (i32.const 8) (i32.const 72) (i32.const 15)) (unreachable)");
    let why = "panicked at src/lib.rs:12:5: no rules".to_owned();
    let wasm = runtime();
    load(&wasm, "dies", &trap).await.expect("it loads");
    assert_eq!(ask(&wasm, "dies"), Err(PluginFailure::Trapped { plugin: "dies".to_owned(), why }));
    let none = "(call $report (i32.const 64) (i32.const 8) (i32.const 72) (i32.const 15))
        (global.set $next (i32.const 65536)) (call $pass)";
    load(&wasm, "talks", &said(none)).await.expect("it loads");
    assert_eq!(ask(&wasm, "talks"), Ok(pass()), "words alone are no failure");
}

#[tokio::test]
async fn what_does_not_fit_the_tight_engine_runs_on_the_roomy_one() {
    let wasm = runtime();
    load(&wasm, "small", &PASS).await.expect("it loads");
    load(&wasm, "large", &RouterText { fields: "(table 30000 funcref)", ..PASS }).await.expect("it loads");
    for name in ["small", "large", "small", "large"] {
        assert_eq!(ask(&wasm, name), Ok(pass()), "{name}");
    }
    let failure = load(&wasm, "huge", &RouterText { fields: "(table 200000 funcref)", ..PASS }).await.expect_err("no engine has so much");
    assert!(matches!(failure, PluginFailure::Invalid { .. } | PluginFailure::Limit { limit: "tables", .. }), "{failure:?}");
    let spinning = RouterText { fields: "(table 30000 funcref)", route: "(loop $on (br $on)) (unreachable)", ..PASS };
    load(&wasm, "spinning", &spinning).await.expect("it loads");
    assert_eq!(ask(&wasm, "spinning"), Err(PluginFailure::Limit { plugin: "spinning".to_owned(), limit: "time" }), "it has a clock, too");
}

#[tokio::test]
async fn what_must_not_load_is_refused_and_the_one_before_stays() {
    let wasm = runtime();
    for world in ["router", "merger"] {
        let good = if world == "router" { PASS.component() } else { shipped_merger() };
        let before = wasm.load(source(world, world.parse().expect("a world"), good)).await.expect("a good one loads");
        for guest in hostile_guests::guests().filter(|guest| guest.when == When::Loaded && guest.world == world) {
            let source = PluginSource { name: world.to_owned(), ..hostile_source(guest) };
            let end = wasm.load(source).await.map(drop);
            assert!(is_outcome(guest.outcome, &end), "{}: {end:?}", guest.name);
            assert_eq!(wasm.loaded()[world].1, before, "after {}", guest.name);
        }
    }
    assert_eq!(ask(&wasm, "router"), Ok(pass()));
    all_places_are_free(&wasm);
}

fn shipped_merger() -> Arc<[u8]> {
    include_bytes!("../../../../../plugins/dist/merge-union.wasm").as_slice().into()
}

#[tokio::test]
async fn more_failed_calls_than_there_are_places_leave_all_of_them_free() {
    let wasm = runtime();
    load(&wasm, "good", &PASS).await.expect("a good router loads");
    let names =
        ["trap-in-route", "memory-bomb", "table-bomb", "deep-recursion", "reason-not-utf8", "trap-after-the-answer", "realloc-traps"];
    for name in names {
        wasm.load(hostile_source(hostile_guests::guest(name).expect("a guest"))).await.expect("it loads");
    }
    for turn in 0..60 {
        for name in names {
            ask(&wasm, name).expect_err("it does not get away with it");
        }
        assert_eq!(ask(&wasm, "good"), Ok(pass()), "after {turn}");
    }
    all_places_are_free(&wasm);
}

/// A router that never ends at priority 9, and has no opinion otherwise.
const MOODY: RouterText = RouterText {
    route: "
        (global.set $next (i32.const 65536))
        (loop $on (br_if $on (i32.eq (i32.load8_u offset=16 (local.get $question)) (i32.const 9))))
        (call $pass)",
    ..PASS
};

fn is_slow(wasm: &Wasm, name: &str) -> bool {
    let bindings = wasm.inner.bindings.load();
    let super::super::Bound::Router(pool) = &bindings[name].bound else { panic!("a router") };
    pool.conduct.is_slow()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_keeps_being_slow_takes_the_lane_until_it_behaves() {
    let wasm = Arc::new(runtime());
    load(&wasm, "moody", &MOODY).await.expect("it loads");
    let candidates = candidates(&wasm, 3);
    let bad = RouteMessage { priority: 9, ..message() };
    let time = Err(PluginFailure::Limit { plugin: "moody".to_owned(), limit: "time" });
    for _ in 0..3 {
        assert!(!is_slow(&wasm, "moody"));
        assert_eq!(wasm.route("moody", &bad, &candidates), time);
    }
    assert!(is_slow(&wasm, "moody"));
    // On the lane it is the same router: bad calls end at their deadline, or are told that there is no turn for them.
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let (wasm, bad, candidates) = (Arc::clone(&wasm), bad.clone(), candidates.clone());
            tokio::spawn(async move { wasm.route("moody", &bad, &candidates) })
        })
        .collect();
    for call in calls {
        let end = call.await.expect("no panic");
        assert!(matches!(end, Err(PluginFailure::Limit { limit: "time" | "concurrency", .. })), "{end:?}");
    }
    assert!(is_slow(&wasm, "moody"));
    let mut quick = 0;
    while is_slow(&wasm, "moody") {
        // With other work on the machine the lane is late, which is not the router's fault.
        quick += u32::from(wasm.route("moody", &message(), &candidates) == Ok(pass()));
        assert!(quick <= 64, "it behaves, and is believed");
    }
    assert_eq!(wasm.route("moody", &message(), &candidates), Ok(pass()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_of_long_calls_takes_the_lane_one_at_a_time() {
    let wasm = Arc::new(runtime());
    wasm.load(hostile_source(hostile_guests::guest("policy-loops").expect("a guest"))).await.expect("it loads");
    ask_everything(&wasm, "policy-loops", World::Policy).await;
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let wasm = Arc::clone(&wasm);
            tokio::spawn(async move { ask_everything(&wasm, "policy-loops", World::Policy).await.remove(0) })
        })
        .collect();
    for call in calls {
        let end = call.await.expect("no panic");
        assert!(matches!(end, Err(PluginFailure::Limit { limit: "time" | "concurrency", .. })), "{end:?}");
    }
    let stats = &wasm.loaded()["policy-loops"].2;
    assert_eq!((stats.limits, stats.calls <= 7), (7, true), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gets_no_turn_is_told_so() {
    let wasm = Arc::new(runtime());
    let mut slow = source("slow", World::Router, RouterText { route: "(loop $on (br $on)) (unreachable)", ..PASS }.component());
    slow.limits = PluginLimits { concurrency_max: Some(1), deadline_ms: Some(200), ..PluginLimits::default() };
    wasm.load(slow).await.expect("it loads");
    let limits = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| ask(&wasm, "slow"))).collect();
        let ends = calls.into_iter().map(|call| call.join().expect("no panic"));
        ends.map(|end| match end {
            Err(PluginFailure::Limit { limit, .. }) => limit,
            other => panic!("{other:?}"),
        })
        .collect::<Vec<_>>()
    });
    assert!(limits.contains(&"time") && limits.contains(&"concurrency"), "{limits:?}");
}

#[tokio::test]
async fn what_is_dear_to_compile_is_refused_before_it_is() {
    let wasm = runtime();
    for (bomb, words) in [
        (bombs::many_modules(65), "core modules"),
        (bombs::many_functions(100_001), "100001 functions"),
        (bombs::giant_function(600 << 10), "bytes; at most"),
        (bombs::many_locals(10_001), "10001 locals"),
        (bombs::nested_blocks(10_001), "blocks in one another"),
        (bombs::loops_and_locals(9_000, 3_000), "jumps times locals"),
        (bombs::nested_components(2_000), "components within one another"),
        (bombs::doubling_components(24), "instances of components within it"),
    ] {
        let end = wasm.load(source("bomb", World::Router, bomb.into())).await;
        assert!(matches!(&end, Err(PluginFailure::Invalid { why, .. }) if why.contains(words)), "{words}: {end:?}");
    }
    // Types that double are the engine's own affair: it refuses them before they are dear.
    let types = wasm.load(source("bomb", World::Router, bombs::doubling_types(60).into())).await;
    assert!(matches!(&types, Err(PluginFailure::Invalid { why, .. }) if why.contains("does not compile")), "{types:?}");
    assert_eq!(wasm.code_counts().compiled, 0);
    load(&wasm, "router", &PASS).await.expect("it loads");
    assert_eq!(ask(&wasm, "router"), Ok(pass()));
}

/// Processor time of this test's process so far; other tests have processes of their own.
fn processor_time() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    at.try_into().expect("it is positive")
}

#[tokio::test]
async fn what_is_within_the_bounds_costs_no_more_than_plain_code_of_the_largest_size() {
    let wasm = runtime();
    let mut plain = Duration::ZERO;
    for (name, large) in [
        ("functions", bombs::many_functions(99_990)),
        ("bytes", bombs::giant_function(500 << 10)),
        ("locals", bombs::many_locals(10_000)),
        ("blocks", bombs::nested_blocks(10_000)),
        ("jumps", bombs::loops_and_locals(4_000, 2_000)),
        ("modules", bombs::many_modules(60)),
        ("jump tables", bombs::jump_tables(900, 250)),
    ] {
        let before = processor_time();
        wasm.load(source(name, World::Router, large.into())).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let cost = processor_time() - before;
        eprintln!("{name}: {cost:?}");
        if name == "functions" {
            plain = cost;
        }
        assert!(cost <= plain * DEARER_MAX, "{name} costs {cost:?}, plain functions {plain:?}");
        assert_eq!(ask(&wasm, name), Ok(pass()));
    }
}
