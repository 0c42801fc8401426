//! Components that behave, that misbehave, and what the host makes of both.

use std::sync::Arc;

use pointsman_core::event::Provenance;

use self::guest::{PASS, RouterText};
use super::{Wasm, WasmOptions};
use crate::ports::plugins::{
    Grant, Instances, PluginFailure, PluginLimits, PluginRef, PluginSource, Plugins, RouteCandidate, RouteDecision, RouteMessage,
    RouteVerdict, World,
};

mod agents;
mod guest;
mod hostile;
mod life;
mod reload;
mod shipped;

const KEY: [u8; 32] = [7; 32];

fn runtime() -> Wasm {
    Wasm::new(WasmOptions::new(None, KEY)).expect("this machine runs components")
}

fn source(name: &str, world: World, component: Arc<[u8]>) -> PluginSource {
    PluginSource {
        name: name.to_owned(),
        world,
        component,
        config_json: "{}".to_owned(),
        limits: PluginLimits::default(),
        needs: PluginLimits::default(),
        instances: Instances::Warm,
        lookups: Grant::Withheld,
    }
}

async fn load(wasm: &Wasm, name: &str, text: &RouterText) -> Result<PluginRef, PluginFailure> {
    wasm.load(source(name, World::Router, text.component())).await
}

fn message() -> RouteMessage {
    RouteMessage {
        kind: "question".to_owned(),
        author: "ana".to_owned(),
        provenance: Provenance::Agent,
        owner: "team-a".to_owned(),
        priority: 4,
        size_bytes: 120,
        attempt: 0,
        age_ms: 5,
        paths: vec!["src/lib.rs".to_owned()],
        tags: vec!["build".to_owned()],
        capabilities: vec!["rust".to_owned()],
    }
}

/// Returns candidates of whom every second satisfies the address, the later the more loaded.
fn candidates(wasm: &Wasm, count: u32) -> Vec<RouteCandidate> {
    let owner = wasm.symbol("team-a");
    let teams: Arc<[_]> = Arc::from([wasm.symbol("core"), wasm.symbol("web")]);
    let capabilities: Arc<[_]> = Arc::from([wasm.symbol("rust"), wasm.symbol("sql")]);
    (0..count)
        .map(|n| RouteCandidate {
            agent: wasm.symbol(&format!("agent-{n}")),
            owner,
            satisfies: n % 2 == 0,
            load: n,
            open_reviews: 0,
            idle_ms: u64::from(n) * 10,
            acked: n,
            nacked: 0,
            refused: false,
            teams: Arc::clone(&teams),
            capabilities: Arc::clone(&capabilities),
        })
        .collect()
}

fn ask(wasm: &Wasm, name: &str) -> Result<RouteVerdict, PluginFailure> {
    wasm.route(name, &message(), &candidates(wasm, 3))
}

fn pass() -> RouteVerdict {
    RouteVerdict { decision: RouteDecision::Pass, reason: String::new() }
}
