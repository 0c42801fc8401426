//! A router reloaded a hundred times while it is asked without pause.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Reloads.
const RELOADS: u64 = 100;
/// Threads that ask.
const ASKING: usize = 3;

/// A router whose reason has its configuration twice: as `configure` was handed it, and as the text of the symbol it got for
/// it then.
const TWICE: RouterText = RouterText {
    fields: r#"
        (import "pointsman:types/symbols@0.1.0" "symbol-of" (func $of (param i32 i32) (result i32)))
        (import "pointsman:types/symbols@0.1.0" "symbol-name" (func $name (param i32 i32)))
        (global $bytes (mut i32) (i32.const 0))
        (global $symbol (mut i32) (i32.const 0))"#,
    configure: "
        (memory.copy (i32.const 2048) (local.get $text) (local.get $bytes))
        (global.set $bytes (local.get $bytes))
        (global.set $symbol (call $of (i32.const 2048) (local.get $bytes)))
        (call $fine)",
    route: "
        (global.set $next (i32.const 65536))
        (call $name (global.get $symbol) (i32.const 512))
        (memory.copy
            (i32.add (i32.const 2048) (global.get $bytes)) (i32.load (i32.const 512)) (i32.load (i32.const 516)))
        (call $reason (i32.const 2048) (i32.add (global.get $bytes) (i32.load (i32.const 516))))",
    ..PASS
};

/// The same, of another digest.
const TWICE_AGAIN: RouterText = RouterText { pages: 5, ..TWICE };

fn generation(n: u64) -> PluginSource {
    let text = if n.is_multiple_of(2) { &TWICE } else { &TWICE_AGAIN };
    let mut source = source("router", World::Router, text.component());
    source.config_json = format!("{{\"generation\":{n}}}");
    // The machine may be busy with other tests.
    source.limits.deadline_ms = Some(10_000);
    source
}

/// Returns the generation an answer is of; none when its halves are of two.
fn generation_of(reason: &str) -> Option<u64> {
    let (one, other) = reason.split_at(reason.len() / 2);
    if one != other {
        return None;
    }
    one.strip_prefix("{\"generation\":")?.strip_suffix('}')?.parse().ok()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    answers: u64,
    dropped: u64,
    mixed: u64,
    back: u64,
    generations: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_drop_no_call_and_mix_no_answer() {
    let cache = tempfile::tempdir().expect("a folder");
    let wasm = Wasm::new(WasmOptions::new(Some(cache.path().join("code")), KEY)).expect("this machine runs components");
    wasm.load(generation(0)).await.expect("it loads");
    let stop = AtomicBool::new(false);
    let runtime = tokio::runtime::Handle::current();
    let asking = || {
        let (mut seen, mut last) = (Seen { generations: 1, ..Seen::default() }, 0);
        while !stop.load(Ordering::Relaxed) {
            match ask(&wasm, "router") {
                Err(_) => seen.dropped += 1,
                Ok(verdict) => match generation_of(&verdict.reason) {
                    None => seen.mixed += 1,
                    Some(now) => {
                        seen.answers += 1;
                        seen.back += u64::from(now < last);
                        seen.generations += u64::from(now > last);
                        last = now;
                    }
                },
            }
        }
        seen
    };
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ASKING).map(|_| scope.spawn(asking)).collect();
        scope.spawn(|| {
            for n in 1..=RELOADS {
                runtime.block_on(wasm.load(generation(n))).expect("it loads");
                assert_eq!(ask(&wasm, "router").map(|verdict| generation_of(&verdict.reason)), Ok(Some(n)), "new calls get the new one");
            }
            stop.store(true, Ordering::Relaxed);
        });
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for seen in &seen {
        assert_eq!((seen.dropped, seen.mixed, seen.back), (0, 0, 0), "{seen:?}");
        assert!(seen.answers > 0 && seen.generations > RELOADS / 10, "{seen:?}");
    }
}
