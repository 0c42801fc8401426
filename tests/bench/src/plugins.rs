//! The plugin platform: one call through everything that stands around a component, a reload, a merge against the library
//! it is made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman::adapters::system::OsSystem;
use pointsman::adapters::wasm::{Wasm, WasmOptions};
use pointsman::ports::lookups::{LookupRefusal, Lookups};
use pointsman::ports::plugins::{FileOutcome, Grant, Instances, MergeFile, PluginLimits, PluginSource, Plugins, World};
use pointsman::ports::resident::{Cause, ResidentEvent, ResidentMemory, Residents};
use pointsman::service::governor::{Governor, Recording};
use pointsman_core::breaker::Tolerance;
use serde_json::json;

use crate::figures::{BenchError, Figures, per_call_us, setup};
use crate::routing::{NOP, RULE, SAMPLES, empty, routed};

const MERGE_TEXT: &[u8] = include_bytes!("../../../plugins/dist/merge-text.wasm");
const AGENT: &[u8] = include_bytes!("../../../host/src/adapters/wasm/tests/scripted-agent.wasm");
/// Lines of the file that is merged.
const LINES: usize = 2_000;
/// Every so many lines one side changes one.
const CHANGED_EVERY: usize = 40;

pub(crate) async fn measure() -> Result<Figures, BenchError> {
    let cache = tempfile::tempdir().map_err(setup)?;
    let wasm = Arc::new(Wasm::new(WasmOptions::new(Some(cache.path().to_owned()), [7; 32])).map_err(setup)?);
    // As in a host: calls are governed, and what they decide is kept for the record.
    let inner = Arc::clone(&wasm) as Arc<dyn Plugins>;
    let (governor, _watcher, _) = Governor::new(inner, Arc::new(OsSystem), Recording::On, Tolerance::default());
    for (name, world, component, instances) in [
        ("warm", World::Router, RULE, Instances::Warm),
        ("fresh", World::Router, RULE, Instances::Fresh),
        ("nop", World::Router, NOP, Instances::Warm),
        ("merge", World::Merger, MERGE_TEXT, Instances::Warm),
    ] {
        governor.load(source(name, world, component, "{}", instances)).await.map_err(setup)?;
    }
    let mut figures = Figures::default();
    figures.add("warm_us_10", routed(governor.as_ref(), "warm", 10, 200)?);
    figures.add("warm_us_1000", routed(governor.as_ref(), "warm", 1_000, 20)?);
    figures.add("fresh_us_10", routed(governor.as_ref(), "fresh", 10, 100)?);
    figures.add("nop_us", empty(wasm.as_ref())?);
    let ratio = figures.get("warm_us_10") / figures.get("nop_us");
    figures.add("route_over_nop_10", ratio);
    figures.add("agent_event_us", agent_event(&wasm).await?);
    figures.add("reload_ms", reload(governor.as_ref())?);
    merge(governor.as_ref(), &mut figures)?;
    Ok(figures)
}

fn source(name: &str, world: World, component: &[u8], config: &str, instances: Instances) -> PluginSource {
    PluginSource {
        name: name.to_owned(),
        world,
        component: Arc::from(component),
        config_json: config.to_owned(),
        limits: PluginLimits::default(),
        needs: PluginLimits::default(),
        instances,
        lookups: Grant::Given,
    }
}

/// What an agent reads while it is measured.
struct Values(BTreeMap<String, Vec<u8>>);

impl ResidentMemory for Values {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.get(key).cloned()
    }

    fn keys(&self, _: &str, _: &str, _: u32) -> Vec<String> {
        Vec::new()
    }
}

impl Lookups for Values {
    fn read(&self, _: &str) -> Result<String, LookupRefusal> {
        Err(LookupRefusal::NotFound)
    }
}

/// An agent handles an event and answers with an action; what is made durable of it is not in here.
async fn agent_event(wasm: &Wasm) -> Result<f64, BenchError> {
    let config = json!({"name": "bench", "capabilities": [], "events": ["task.*"], "on": {"timer:tick": {"do": [{"put": ["n", "1"]}]}}});
    wasm.load(source("agent", World::Agent, AGENT, &config.to_string(), Instances::Warm)).await.map_err(setup)?;
    let memory: Arc<dyn ResidentMemory> = Arc::new(Values(BTreeMap::from([("n".to_owned(), b"1".to_vec())])));
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        per_call_us(SAMPLES, 100, || {
            let event = ResidentEvent { id: "log:1.2".to_owned(), at_ms: 7, cause: Cause::Timer("tick".to_owned()) };
            let handled = runtime.block_on(wasm.handle("agent", event, Arc::clone(&memory))).map_err(setup)?;
            handled.map(|_| ()).map_err(setup)
        })
    })
}

/// A component is loaded over the one that decides, its code taken from the cache.
fn reload(plugins: &dyn Plugins) -> Result<f64, BenchError> {
    let runtime = tokio::runtime::Handle::current();
    let us = tokio::task::block_in_place(|| {
        per_call_us(SAMPLES, 1, || {
            let reloaded = runtime.block_on(plugins.load(source("warm", World::Router, RULE, "{}", Instances::Warm)));
            reloaded.map(|_| ()).map_err(setup)
        })
    })?;
    Ok(us / 1_000.0)
}

/// One file merged by the component, and natively by diffy, whose results the component has to give: what it saves by an algorithm of its
/// own and what the sandbox costs are both in the ratio.
fn merge(plugins: &dyn Plugins, figures: &mut Figures) -> Result<(), BenchError> {
    let side = |offset: usize, mark: &str| -> Vec<u8> {
        let line = |n: usize| {
            if n % CHANGED_EVERY == offset { format!("line {n} {mark}\n") } else { format!("line {n} of the file, which says something\n") }
        };
        (0..LINES).map(line).collect::<String>().into_bytes()
    };
    let (base, ours, theirs) = (side(CHANGED_EVERY, ""), side(3, "ours"), side(23, "theirs"));
    let file =
        MergeFile { path: "a.txt".to_owned(), base: Some(base.clone()), ours: ours.clone(), theirs: theirs.clone(), so_far: Vec::new() };
    let runtime = tokio::runtime::Handle::current();
    let by_component = tokio::task::block_in_place(|| {
        per_call_us(SAMPLES, 3, || match runtime.block_on(plugins.merge_file("merge", file.clone())).map_err(setup)? {
            FileOutcome::Resolved(..) => Ok(()),
            other @ (FileOutcome::Conflicts(_) | FileOutcome::Declined(_) | FileOutcome::Regenerate(..)) => {
                Err(setup(format!("{other:?}")))
            }
        })
    })?;
    let by_library = per_call_us(SAMPLES, 3, || {
        diffy::MergeOptions::new().merge_bytes(&base, &ours, &theirs).map(|_| ()).map_err(|_| setup("the library sees a conflict"))
    })?;
    figures.add("merge_us", by_component);
    figures.add("merge_native_us", by_library);
    figures.add("merge_ratio_vs_native", by_component / by_library);
    Ok(())
}
