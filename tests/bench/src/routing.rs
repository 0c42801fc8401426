//! One routing decision: through the whole host path warm and fresh, by the same rule linked natively, and as an empty call.

use std::sync::Arc;

use pointsman::adapters::wasm::{Wasm, WasmOptions};
use pointsman::ports::plugins::{
    Grant, Instances, PluginLimits, PluginSource, Plugins, RouteCandidate, RouteDecision, RouteMessage, World,
};
use pointsman_core::event::Provenance;
use pointsman_sdk::Plugin;
use pointsman_sdk::router::{CandidateFacts, MessageFacts, Question};
use routing_capability::RoutingCapability;

use crate::figures::{BenchError, Figures, per_call_us, setup};

/// Samples behind each median.
pub(crate) const SAMPLES: usize = 31;
pub(crate) const RULE: &[u8] = include_bytes!("../../../plugins/dist/routing-capability.wasm");
pub(crate) const NOP: &[u8] = include_bytes!("../components/nop-router.wasm");

pub(crate) async fn measure() -> Result<Figures, BenchError> {
    let cache = tempfile::tempdir().map_err(setup)?;
    let wasm = Wasm::new(WasmOptions::new(Some(cache.path().to_owned()), [7; 32])).map_err(setup)?;
    for (name, component, instances) in [("warm", RULE, Instances::Warm), ("fresh", RULE, Instances::Fresh), ("nop", NOP, Instances::Warm)]
    {
        let source = PluginSource {
            name: name.to_owned(),
            world: World::Router,
            component: Arc::from(component),
            config_json: "{}".to_owned(),
            limits: PluginLimits::default(),
            needs: PluginLimits::default(),
            instances,
            lookups: Grant::Withheld,
        };
        wasm.load(source).await.map_err(setup)?;
    }
    let mut figures = Figures::default();
    let warm = |count, batch| routed(&wasm, "warm", count, batch);
    figures.add("warm_us_10", warm(10, 200)?);
    figures.add("warm_us_100", warm(100, 100)?);
    figures.add("warm_us_1000", warm(1_000, 20)?);
    figures.add("fresh_us_10", routed(&wasm, "fresh", 10, 100)?);
    figures.add("nop_us", empty(&wasm)?);
    figures.add("native_us_10", native(10, 1_000)?);
    figures.add("native_us_1000", native(1_000, 50)?);
    let figure = |name: &str| figures.get(name);
    let ratio = figure("warm_us_10") / figure("nop_us");
    figures.add("warm_10_over_nop", ratio);
    Ok(figures)
}

fn message() -> RouteMessage {
    RouteMessage {
        kind: "request".to_owned(),
        author: "author".to_owned(),
        provenance: Provenance::Agent,
        owner: "owner".to_owned(),
        priority: 4,
        size_bytes: 400,
        attempt: 0,
        age_ms: 0,
        paths: vec!["src/lib.rs".to_owned()],
        tags: Vec::new(),
        capabilities: vec!["backend".to_owned()],
    }
}

/// Whether the candidate of this position can take the message: every second one.
fn satisfies(position: u32) -> bool {
    position.is_multiple_of(2)
}

fn candidates(wasm: &dyn Plugins, count: u32) -> Vec<RouteCandidate> {
    let all = (0..count).map(|n| RouteCandidate {
        agent: wasm.symbol(&format!("agent-{n}")),
        owner: wasm.symbol(&format!("owner-{}", n % 7)),
        satisfies: satisfies(n),
        load: n * 7 % 13,
        open_reviews: n % 3,
        idle_ms: u64::from(n) * 1_000,
        acked: n,
        nacked: n % 5,
        refused: false,
        teams: [wasm.symbol("core")].into(),
        capabilities: [wasm.symbol("backend"), wasm.symbol("rust")].into(),
    });
    all.collect()
}

pub(crate) fn routed(wasm: &dyn Plugins, plugin: &str, count: u32, batch: u32) -> Result<f64, BenchError> {
    let (message, candidates) = (message(), candidates(wasm, count));
    per_call_us(SAMPLES, batch, || {
        let verdict = wasm.route(plugin, &message, &candidates).map_err(setup)?;
        match verdict.decision {
            RouteDecision::Ranked(_) => Ok(()),
            other @ (RouteDecision::Pass | RouteDecision::Broadcast(_) | RouteDecision::Drop | RouteDecision::Defer(_)) => {
                Err(setup(format!("expected a ranking, got {other:?}")))
            }
        }
    })
}

/// The cheapest call the path has: no candidates, a component that passes at once.
pub(crate) fn empty(wasm: &dyn Plugins) -> Result<f64, BenchError> {
    let message = RouteMessage { paths: Vec::new(), capabilities: Vec::new(), ..message() };
    per_call_us(SAMPLES, 500, || wasm.route("nop", &message, &[]).map(|_| ()).map_err(setup))
}

fn native(count: u32, batch: u32) -> Result<f64, BenchError> {
    let rule = RoutingCapability::new(routing_capability::Config::default()).map_err(setup)?;
    let names: Vec<String> = (0..count).map(|n| format!("agent-{n}")).collect();
    let facts: Vec<CandidateFacts<'_>> = (0..count)
        .zip(&names)
        .map(|(n, name)| CandidateFacts {
            agent: name,
            satisfies: satisfies(n),
            load: n * 7 % 13,
            open_reviews: n % 3,
            idle_ms: u64::from(n) * 1_000,
            acked: n,
            nacked: n % 5,
            ..CandidateFacts::default()
        })
        .collect();
    let question = Question::new(&MessageFacts { kind: "request", author: "author", ..MessageFacts::default() }, &facts);
    per_call_us(SAMPLES, batch, || {
        std::hint::black_box(question.ask(&rule));
        Ok(())
    })
}
