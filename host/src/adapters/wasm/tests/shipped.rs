//! The shipped components, as committed, each in its world; and the WIT they were made from.

use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::DocumentMut;
use wit_parser::Resolve;

use super::*;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn shipped(name: &str) -> Arc<[u8]> {
    let path = root("plugins/dist").join(format!("{name}.wasm"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

fn world(name: &str) -> World {
    match name {
        "router" => World::Router,
        "merger" => World::Merger,
        "reconciler" => World::Reconciler,
        "workflow" => World::Workflow,
        "policy" => World::Policy,
        other => panic!("no shipped component is of the world {other}"),
    }
}

#[tokio::test]
async fn every_shipped_component_fits_its_world() {
    let wasm = runtime();
    let lock = fs::read_to_string(root("plugins/dist/plugins.lock")).expect("there is a lock");
    let lock: DocumentMut = lock.parse().expect("the lock is TOML");
    let plugins = lock["plugin"].as_array_of_tables().expect("the lock lists plugins");
    for plugin in plugins {
        let text = |key: &str| plugin[key].as_str().unwrap_or_else(|| panic!("{key}: {plugin}"));
        let source = source(text("name"), world(text("world")), shipped(text("name")));
        let reference = wasm.load(source).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(reference.digest, text("digest"), "{}", reference.name);
    }
    assert_eq!(wasm.loaded().len(), plugins.len());
}

#[tokio::test]
async fn routing_capability_prefers_who_has_the_least_to_do() {
    let wasm = runtime();
    for (name, instances) in [("warm", Instances::Warm), ("fresh", Instances::Fresh)] {
        let source = source(name, World::Router, shipped("routing-capability"));
        wasm.load(PluginSource { instances, ..source }).await.expect("it loads");
    }
    let mut candidates = candidates(&wasm, 6);
    candidates[0].load = 9;
    candidates[2].agent = wasm.symbol("ana");
    for name in ["warm", "fresh", "warm"] {
        let verdict = wasm.route(name, &message(), &candidates).expect("an answer");
        assert_eq!(verdict.decision, RouteDecision::Ranked(vec![4, 0]), "the author and who is not able are left out");
        assert!(verdict.reason.contains("best of 2"), "{}", verdict.reason);
    }
    let config = |config: &str| PluginSource {
        config_json: config.to_owned(),
        ..source("warm", World::Router, shipped("routing-capability"))
    };
    let failure = wasm.load(config(r#"{"ranked_maxx": 3}"#)).await.expect_err("a misspelt key");
    assert!(matches!(&failure, PluginFailure::Refused { why, .. } if why.contains("`ranked_maxx`")), "{failure:?}");
    wasm.load(config(r#"{"broadcast_kinds": ["question"]}"#)).await.expect("it loads");
    let verdict = wasm.route("warm", &message(), &candidates).expect("an answer");
    assert_eq!(verdict.decision, RouteDecision::Broadcast(vec![0, 4]), "the kind's symbol is the configured one");
}

#[test]
fn all_worlds_resolve() {
    let mut resolve = Resolve::default();
    resolve.push_dir(root("wit/types")).expect("types");
    for name in ["router", "merger", "reconciler", "workflow", "policy", "agent", "mcp-provider"] {
        let (package, _) = resolve.push_dir(root("wit").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        resolve.select_world(&[package], Some(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
