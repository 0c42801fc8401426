//! Scratch.
use hostile_guests::bombs;
use pointsman::adapters::wasm::{Wasm, WasmOptions};
use pointsman::ports::plugins::*;
use std::sync::Arc;
fn rss() -> u64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let l = s.lines().find(|l| l.starts_with("VmHWM")).unwrap_or("").to_owned();
    l.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0) / 1024
}
#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let n = |i: usize| a.get(i).and_then(|t| t.parse::<u32>().ok()).unwrap_or(0);
    let b = match a[1].as_str() {
        "functions" => bombs::many_functions(n(2)),
        "giant" => bombs::giant_function(n(2) as usize),
        "locals" => bombs::many_locals(n(2)),
        "loops" => bombs::loops_and_locals(n(2), n(3)),
        "tables" => bombs::jump_tables(n(2), n(3)),
        "blocks" => bombs::nested_blocks(n(2)),
        "double" => bombs::doubling_components(n(2) as usize),
        "file" => std::fs::read(&a[2]).unwrap_or_default(),
        _ => bombs::router(),
    };
    let wasm = Wasm::new(WasmOptions::new(None, [7; 32])).expect("wasm");
    let len = b.len();
    let t = std::time::Instant::now();
    let r = wasm.load(PluginSource { name: "x".into(), world: World::Router, component: Arc::from(b), config_json: "{}".into(), limits: PluginLimits::default(), instances: Instances::Warm }).await;
    println!("{:?} {} KiB {:.2?} peak {} MiB {:?}", &a[1..], len / 1024, t.elapsed(), rss(), r.err());
}
