//! Guests that would take more than they are given. Each ends in its own outcome, and a good one beside it goes on.

use super::*;

/// Loads a good router and a hostile one, asks the hostile one, and makes sure that neither its next call nor the good
/// one's is any different for it.
async fn outcome(hostile: RouterText) -> PluginFailure {
    let wasm = runtime();
    load(&wasm, "good", &PASS).await.expect("a good router loads");
    load(&wasm, "hostile", &hostile).await.expect("a hostile router loads");
    let first = ask(&wasm, "hostile").expect_err("it does not get away with it");
    assert_eq!(ask(&wasm, "good"), Ok(pass()));
    let second = ask(&wasm, "hostile").expect_err("nor the second time");
    assert_eq!(first, second);
    assert_eq!(ask(&wasm, "good"), Ok(pass()));
    let stats = &wasm.loaded()["hostile"].2;
    assert_eq!((stats.calls, stats.traps + stats.limits + stats.invalid), (2, 2));
    assert_eq!(wasm.loaded()["good"].2.instances, 1, "the good one kept its instance");
    first
}

fn limit(which: &'static str) -> PluginFailure {
    PluginFailure::Limit { plugin: "hostile".to_owned(), limit: which }
}

fn invalid(why: &str) -> PluginFailure {
    PluginFailure::Invalid { plugin: "hostile".to_owned(), why: why.to_owned() }
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_deadline() {
    let failure = outcome(RouterText { route: "(loop $on (br $on)) (unreachable)", ..PASS }).await;
    assert_eq!(failure, limit("time"));
}

#[tokio::test]
async fn a_memory_bomb_ends_at_its_memory() {
    let route = "(loop $on (br_if $on (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) (unreachable)";
    assert_eq!(outcome(RouterText { route, ..PASS }).await, limit("memory"));
}

#[tokio::test]
async fn a_table_bomb_ends_at_its_tables() {
    let failure = outcome(RouterText {
        fields: "(table $t 1 funcref)",
        route: "(loop $on (br_if $on (i32.ge_s (table.grow $t (ref.null func) (i32.const 1000)) (i32.const 0)))) (unreachable)",
        ..PASS
    });
    assert_eq!(failure.await, limit("tables"));
}

#[tokio::test]
async fn deep_recursion_ends_at_its_stack() {
    let failure = outcome(RouterText {
        fields: "(func $deep (param i64) (result i64) (i64.add (local.get 0) (call $deep (i64.add (local.get 0) (i64.const 1)))))",
        route: "(drop (call $deep (i64.const 0))) (call $pass)",
        ..PASS
    });
    assert_eq!(failure.await, limit("stack"));
}

#[tokio::test]
async fn a_giant_answer_ends_at_its_size() {
    let route = "(call $reason (i32.const 0) (i32.const 1048576))";
    assert_eq!(outcome(RouterText { route, pages: 32, ..PASS }).await, limit("result size"));
}

#[tokio::test]
async fn a_trap_is_a_trap() {
    let failure = outcome(RouterText { route: "(unreachable)", ..PASS }).await;
    let why = "wasm trap: wasm `unreachable` instruction executed".to_owned();
    assert_eq!(failure, PluginFailure::Trapped { plugin: "hostile".to_owned(), why });
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
    assert_eq!(outcome(trap).await, PluginFailure::Trapped { plugin: "hostile".to_owned(), why });
    let none = "(call $report (i32.const 64) (i32.const 8) (i32.const 72) (i32.const 15))
        (global.set $next (i32.const 65536)) (call $pass)";
    let wasm = runtime();
    load(&wasm, "talks", &said(none)).await.expect("it loads");
    assert_eq!(ask(&wasm, "talks"), Ok(pass()), "words alone are no failure");
}

/// Returns a component with a custom section behind it (binary format of WebAssembly, 5.5.3).
fn with_section(component: &[u8], name: &str, data: &str) -> Arc<[u8]> {
    let leb = |number: usize| [u8::try_from(number & 0x7f).expect("seven bits") | 0x80, u8::try_from(number >> 7).expect("short")];
    let content = [&[u8::try_from(name.len()).expect("short")], name.as_bytes(), data.as_bytes()].concat();
    [component, &[0], &leb(content.len()), &content].concat().into()
}

#[tokio::test]
async fn a_configuration_is_held_against_its_schema_before_anything_runs() {
    let schema = r#"{"type": "object", "additionalProperties": false, "properties": {"max": {"type": "integer", "minimum": 1}}}"#;
    let never = RouterText { configure: "(unreachable)", ..PASS };
    let wasm = runtime();
    let attempt = async |config: &str, text: &RouterText| {
        let component = with_section(&text.component(), "pointsman.config-schema", schema);
        let source = PluginSource { config_json: config.to_owned(), ..source("router", World::Router, component) };
        wasm.load(source).await.map(drop)
    };
    let refused = |why: &str| Err(PluginFailure::Refused { plugin: "router".to_owned(), why: why.to_owned() });
    assert_eq!(attempt(r#"{"max": 0}"#, &never).await, refused("its configuration does not fit at `/max`: 0 is less than the minimum of 1"));
    let misspelt = "its configuration does not fit at the top: Additional properties are not allowed ('mux' was unexpected); it knows `max`";
    assert_eq!(attempt(r#"{"mux": 3}"#, &never).await, refused(misspelt));
    assert_eq!(attempt(r#"{"max": 3}"#, &PASS).await, Ok(()));
    assert_eq!(attempt("", &PASS).await, Ok(()));
    let broken = with_section(&PASS.component(), "pointsman.config-schema", "no JSON");
    let failure = wasm.load(source("router", World::Router, broken)).await.expect_err("no schema");
    assert!(failure.to_string().contains("is no JSON"), "{failure}");
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
async fn answers_that_make_no_sense_are_invalid() {
    let list = |fields, len| RouterText {
        fields,
        route: match len {
            0 => "(call $ranked (i32.const 64) (i32.const 0))",
            1 => "(call $ranked (i32.const 64) (i32.const 1))",
            _ => "(call $ranked (i32.const 64) (i32.const 2))",
        },
        ..PASS
    };
    let beyond = r#"(data (i32.const 64) "\03\00\00\00")"#;
    assert_eq!(outcome(list(beyond, 1)).await, invalid("it names position 3 of 3"));
    let twice = r#"(data (i32.const 64) "\01\00\00\00\01\00\00\00")"#;
    assert_eq!(outcome(list(twice, 2)).await, invalid("it names position 1 twice"));
    assert_eq!(outcome(list("", 0)).await, invalid("it names nobody; `pass` and `drop` are there for that"));
}

#[tokio::test]
async fn answers_that_are_no_answers_are_invalid() {
    let not_text = RouterText { fields: r#"(data (i32.const 64) "\ff\ff")"#, route: "(call $reason (i32.const 64) (i32.const 2))", ..PASS };
    let failure = outcome(not_text).await;
    assert!(matches!(&failure, PluginFailure::Invalid { why, .. } if why.contains("utf-8")), "{failure:?}");
    let beyond_memory = RouterText { route: "(call $ranked (i32.const 64) (i32.const 0x3fffffff))", ..PASS };
    let failure = outcome(beyond_memory).await;
    assert!(matches!(&failure, PluginFailure::Invalid { .. } | PluginFailure::Limit { limit: "result size", .. }), "{failure:?}");
}

#[tokio::test]
async fn what_loads_badly_is_refused_by_name_and_changes_nothing() {
    let wasm = runtime();
    let before = load(&wasm, "router", &PASS).await.expect("a good router loads");
    let why = |failure| match failure {
        PluginFailure::Invalid { why, .. } | PluginFailure::Refused { why, .. } => why,
        other @ (PluginFailure::NotBound(_) | PluginFailure::Trapped { .. } | PluginFailure::Limit { .. }) => format!("{other:?}"),
    };

    let foreign = RouterText {
        fields: r#"(import "pointsman:types/log@0.1.0" "write" (func $write (param i32 i32 i32)))"#,
        world: "import pointsman:types/log@0.1.0;",
        ..PASS
    };
    assert_eq!(
        why(load(&wasm, "router", &foreign).await.expect_err("foreign import")),
        "it imports `pointsman:types/log@0.1.0`, which the world `router` does not give"
    );
    let as_policy = source("router", World::Policy, PASS.component());
    assert_eq!(
        why(wasm.load(as_policy).await.expect_err("another world's import")),
        "it imports `pointsman:types/symbols@0.1.0`, which the world `policy` does not give"
    );
    let mut broken = PASS.component().to_vec();
    let cut = broken.len() / 2;
    broken.truncate(cut);
    let error = wasm.load(source("router", World::Router, broken.into())).await.expect_err("cut short");
    assert!(why(error).starts_with("it is no component: "));

    let refusing = RouterText {
        fields: r#"(data (i32.const 64) "no `rules` given")"#,
        configure: "(call $refuse (i32.const 64) (i32.const 16))",
        ..PASS
    };
    let failure = load(&wasm, "router", &refusing).await.expect_err("configuration refused");
    assert_eq!(failure, PluginFailure::Refused { plugin: "router".to_owned(), why: "no `rules` given".to_owned() });
    let looping = RouterText { configure: "(loop $on (br $on)) (unreachable)", ..PASS };
    let failure = load(&wasm, "router", &looping).await.expect_err("never configured");
    assert_eq!(failure, PluginFailure::Limit { plugin: "router".to_owned(), limit: "time" });
    let huge = RouterText { pages: 1_000, ..PASS };
    let failure = load(&wasm, "router", &huge).await.expect_err("too much memory");
    assert_eq!(failure, PluginFailure::Limit { plugin: "router".to_owned(), limit: "memory" });
    let mut greedy = source("router", World::Router, PASS.component());
    greedy.limits.deadline_ms = Some(0);
    assert!(why(wasm.load(greedy).await.expect_err("no deadline")).contains("deadline_ms"));
    let agent = source("router", World::Agent, PASS.component());
    assert_eq!(
        why(wasm.load(agent).await.expect_err("another world's import")),
        "it imports `pointsman:types/symbols@0.1.0`, `pointsman:types/origin@0.1.0`, which the world `agent` does not give"
    );

    assert_eq!(wasm.loaded()["router"].1, before);
    assert_eq!(ask(&wasm, "router"), Ok(pass()));
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
