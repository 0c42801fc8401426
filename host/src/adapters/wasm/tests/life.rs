//! How components come and go: the code cache, reloads, warm and fresh instances, symbols.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::CodeCounts;
use super::*;

/// A router that answers with how often its instance was asked, as a delay.
const COUNTING: RouterText = RouterText {
    fields: "(global $asked (mut i32) (i32.const 0))",
    route: "
        (global.set $next (i32.const 65536))
        (global.set $asked (i32.add (global.get $asked) (i32.const 1)))
        (drop (call $pass))
        (i32.store8 (i32.const 1024) (i32.const 4))
        (i32.store offset=4 (i32.const 1024) (global.get $asked))
        (i32.const 1024)",
    ..PASS
};

fn cached(folder: &Path, key: [u8; 32]) -> Wasm {
    Wasm::new(WasmOptions::new(Some(folder.to_owned()), key)).expect("this machine runs components")
}

async fn counts(folder: &Path, key: [u8; 32]) -> CodeCounts {
    let wasm = cached(folder, key);
    load(&wasm, "router", &PASS).await.expect("it loads");
    assert_eq!(ask(&wasm, "router"), Ok(pass()));
    wasm.code_counts()
}

fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(folder).expect("there is a folder").map(|entry| entry.expect("readable").path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().expect("one")
}

fn delay(wasm: &Wasm) -> u32 {
    match ask(wasm, "router").expect("an answer").decision {
        RouteDecision::Defer(delay_ms) => delay_ms,
        other @ (RouteDecision::Pass | RouteDecision::Ranked(_) | RouteDecision::Broadcast(_) | RouteDecision::Drop) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn compiled_code_is_kept_and_trusted_only_when_untouched() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("code");
    let compiled = CodeCounts { compiled: 1, ..CodeCounts::default() };
    let from_cache = CodeCounts { cached: 1, ..CodeCounts::default() };
    let rejected = CodeCounts { compiled: 1, rejected: 1, ..CodeCounts::default() };
    assert_eq!(counts(&folder, KEY).await, compiled);
    assert_eq!(fs::metadata(&folder).expect("there").permissions().mode() & 0o777, 0o700);
    assert_eq!(counts(&folder, KEY).await, from_cache);

    let file = only_file(&folder);
    let whole = fs::read(&file).expect("readable");
    let mut flipped = whole.clone();
    flipped[whole.len() - 100] ^= 1;
    for bad in [flipped, whole[..whole.len() - 1].to_vec(), whole[..20].to_vec(), Vec::new()] {
        fs::write(&file, bad).expect("writable");
        assert_eq!(counts(&folder, KEY).await, rejected);
        assert_eq!(fs::read(&file).expect("readable").len(), whole.len(), "written anew");
    }
    assert_eq!(counts(&folder, [8; 32]).await, rejected, "made with another key");
    assert_eq!(counts(&folder, [8; 32]).await, from_cache);
}

#[tokio::test]
async fn code_of_one_component_does_not_pass_for_another() {
    let root = tempfile::tempdir().expect("a folder");
    let (one, other) = (root.path().join("one"), root.path().join("other"));
    counts(&one, KEY).await;
    let wasm = cached(&other, KEY);
    load(&wasm, "router", &COUNTING).await.expect("it loads");
    fs::copy(only_file(&other), only_file(&one)).expect("swapped");
    assert_eq!(counts(&one, KEY).await.rejected, 1);
}

#[tokio::test]
async fn without_a_folder_everything_is_compiled() {
    let root = tempfile::tempdir().expect("a folder");
    let file = root.path().join("not-a-folder");
    fs::write(&file, "").expect("writable");
    assert_eq!(counts(&file, KEY).await, CodeCounts { compiled: 1, ..CodeCounts::default() });
}

#[tokio::test]
async fn fresh_instances_remember_nothing() {
    let wasm = runtime();
    let fresh = PluginSource { instances: Instances::Fresh, ..source("router", World::Router, COUNTING.component()) };
    wasm.load(fresh).await.expect("it loads");
    assert_eq!([delay(&wasm), delay(&wasm), delay(&wasm)], [1, 1, 1]);
    assert_eq!(wasm.loaded()["router"].2.instances, 4, "the probe's, and one a call");
}

#[tokio::test]
async fn idle_instances_make_room_for_those_that_are_asked() {
    let root = tempfile::tempdir().expect("a folder");
    let wasm = cached(root.path(), KEY);
    // Each keeps the instance of its probe: more than there is room for.
    let names: Vec<String> = (0..260).map(|n| format!("router-{n}")).collect();
    for name in &names {
        load(&wasm, name, &PASS).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
    for name in &names {
        assert_eq!(ask(&wasm, name), Ok(pass()), "{name}");
    }
}

#[tokio::test]
async fn warm_instances_are_retired() {
    let options = WasmOptions { warm_calls_max: 4, ..WasmOptions::new(None, KEY) };
    let wasm = Wasm::new(options).expect("this machine runs components");
    load(&wasm, "router", &COUNTING).await.expect("it loads");
    let delays: Vec<u32> = (0..9).map(|_| delay(&wasm)).collect();
    assert_eq!(delays, [1, 2, 3, 1, 2, 3, 4, 1, 2], "the probe was the first instance's first call");
    let stats = wasm.loaded()["router"].2.clone();
    assert_eq!((stats.calls, stats.instances), (9, 3));
}

#[tokio::test]
async fn names_bind_to_one_world() {
    let wasm = runtime();
    let reference = load(&wasm, "router", &PASS).await.expect("it loads");
    assert_eq!(reference.digest, blake3::hash(&PASS.component()).to_hex().to_string());
    assert_eq!(ask(&wasm, "other"), Err(PluginFailure::NotBound("other".to_owned())));
    let as_merger = wasm.merge_hunks("router", "a", Vec::new()).await;
    assert_eq!(as_merger, Err(PluginFailure::NotBound("router".to_owned())));
    assert_eq!(wasm.merger("router"), Err(PluginFailure::NotBound("router".to_owned())));
}

#[tokio::test]
async fn what_is_tried_aside_is_seen_nowhere_else() {
    let wasm = runtime();
    assert_eq!(wasm.load_number("router"), None);
    load(&wasm, "router", &PASS).await.expect("it loads");
    let first = wasm.load_number("router");
    let aside = wasm.aside();
    assert!(aside.plugins.loaded().is_empty(), "it begins with nothing");
    aside.plugins.load(source("router", World::Router, COUNTING.component())).await.expect("it loads there");
    let there = aside.plugins.route("router", &message(), &candidates(&wasm, 3)).expect("an answer");
    assert!(matches!(there.decision, RouteDecision::Defer(_)), "{there:?}");
    assert_eq!((ask(&wasm, "router"), wasm.load_number("router")), (Ok(pass()), first));
    assert_eq!(wasm.loaded()["router"].2.calls, 1);
    load(&wasm, "router", &PASS).await.expect("it loads");
    assert_ne!(wasm.load_number("router"), first, "the same component, loaded anew, is another load");
    wasm.unload("router");
    assert_eq!(wasm.load_number("router"), None);
}

#[tokio::test]
async fn a_reload_swaps_under_running_calls() {
    let wasm = runtime();
    // The first one works for a while before it answers, so that calls are under way at each swap.
    let slow = RouterText {
        fields: "(global $left (mut i32) (i32.const 0))",
        route: "
            (global.set $next (i32.const 65536))
            (global.set $left (i32.const 200000))
            (loop $on
                (global.set $left (i32.sub (global.get $left) (i32.const 1)))
                (br_if $on (global.get $left)))
            (call $pass)",
        ..PASS
    };
    let roomy = |text: &RouterText| {
        let mut source = source("router", World::Router, text.component());
        source.limits.deadline_ms = Some(1_000);
        source
    };
    wasm.load(roomy(&slow)).await.expect("it loads");
    let stop = AtomicBool::new(false);
    let runtime = tokio::runtime::Handle::current();
    let answers = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = 0_u32;
                    while !stop.load(Ordering::Relaxed) {
                        ask(&wasm, "router").expect("every call is answered");
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        let loading = scope.spawn(|| {
            for turn in 0..10 {
                let next = if turn % 2 == 0 { &COUNTING } else { &slow };
                runtime.block_on(wasm.load(roomy(next))).expect("it loads");
            }
            stop.store(true, Ordering::Relaxed);
        });
        loading.join().expect("no panic");
        asking.into_iter().map(|thread| thread.join().expect("no panic")).sum::<u32>()
    });
    assert!(answers > 0);
}

#[tokio::test]
async fn a_router_sees_the_same_symbol_for_the_same_text() {
    // Compares the message's first path with the first candidate's name, and answers with both texts' symbols equal
    // as a ranking of that candidate.
    let comparing = RouterText {
        route: "
            (global.set $next (i32.const 65536))
            (if (result i32)
                (i32.eq
                    (i32.load (i32.load offset=40 (local.get $question)))
                    (i32.load (i32.load offset=64 (local.get $question))))
                (then (i32.store (i32.const 64) (i32.const 0)) (call $ranked (i32.const 64) (i32.const 1)))
                (else (call $pass)))",
        ..PASS
    };
    let wasm = runtime();
    load(&wasm, "router", &comparing).await.expect("it loads");
    let candidates = candidates(&wasm, 2);
    let about = |path: &str| RouteMessage { paths: vec![path.to_owned()], ..message() };
    let same = wasm.route("router", &about("agent-0"), &candidates).expect("an answer");
    assert_eq!(same.decision, RouteDecision::Ranked(vec![0]));
    let other = wasm.route("router", &about("agent-1"), &candidates).expect("an answer");
    assert_eq!(other.decision, RouteDecision::Pass);
    assert_eq!(&*wasm.symbol_text(candidates[1].agent), "agent-1");

    // A text that a message brought first and the host interns later is one text still.
    let later = wasm.route("router", &about("newcomer"), &candidates).expect("an answer");
    assert_eq!(later.decision, RouteDecision::Pass);
    let mut newcomer = candidates.clone();
    newcomer[0].agent = wasm.symbol("newcomer");
    let now = wasm.route("router", &about("newcomer"), &newcomer).expect("an answer");
    assert_eq!(now.decision, RouteDecision::Ranked(vec![0]));
}
