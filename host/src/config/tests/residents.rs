//! Agents and providers in the configuration.

use super::*;
use crate::ports::plugins::Grant;

const MINE: &str = "[plugins.mine]\nsource = \"mine.wasm\"\n";

/// Loads a file beside which there is a component `mine.wasm`.
fn with_component(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("config")).expect("made");
    std::fs::write(folder.path().join("config/mine.wasm"), b"\0asm").expect("written");
    std::fs::write(folder.path().join(FILE_IN_REPOSITORY), format!("config_version = 1\n{text}")).expect("written");
    Config::load(&Environment::of(&[("HOME", "/home/ana")], folder.path()), &Flags::default())
}

fn world_of(text: &str) -> World {
    let config = with_component(text).expect("whole");
    config.plugins.iter().find(|plugin| plugin.name == "mine").expect("it is used").world
}

#[test]
fn agents_and_providers_are_bound() {
    let text = format!(
        "[[project]]\nslug = \"demo\"\n[[agent]]\nplugin = \"mine\"\nprojects = [\"demo\"]\nfetch_hosts = [\"127.0.0.1:8080\", \"example.com\"]\n\
         [[provider]]\nplugin = \"mine\"\nallow_empty_namespace = true\n{MINE}"
    );
    let config = with_component(&text).expect("whole");
    let bindings = config.settings(config.public_url(config.server.bind)).bindings.now();
    let fetch_hosts = vec!["127.0.0.1:8080".to_owned(), "example.com".to_owned()];
    let projects = vec!["demo".to_owned()];
    assert_eq!(bindings.residents, [ResidentBinding { plugin: "mine".to_owned(), projects, fetch_hosts, lookups: Grant::Given }]);
    let (plugin, lookups) = ("mine".to_owned(), Grant::Given);
    let provider = ProviderBinding { plugin, projects: Vec::new(), allow_empty_namespace: true, lookups };
    assert_eq!(bindings.providers, [provider]);
    assert_eq!(config.plugins.iter().filter(|plugin| plugin.name == "mine").count(), 1, "loaded once");
}

#[test]
fn the_world_is_as_said_else_as_used() {
    assert_eq!(world_of(&format!("[[agent]]\nplugin = \"mine\"\n{MINE}")), World::Agent);
    assert_eq!(world_of(&format!("[[provider]]\nplugin = \"mine\"\n{MINE}")), World::McpProvider);
    assert_eq!(world_of(&format!("[[provider]]\nplugin = \"mine\"\n[[agent]]\nplugin = \"mine\"\n{MINE}")), World::Agent);
    assert_eq!(world_of(&format!("[[provider]]\nplugin = \"mine\"\n{MINE}world = \"agent\"\n")), World::Agent);
}

#[test]
fn slips_are_named() {
    let said = |text: &str| with_component(text).expect_err("it is wrong").to_string();
    let misfit = said(&format!("[[agent]]\nplugin = \"mine\"\n{MINE}world = \"mcp-provider\"\n"));
    assert!(misfit.contains("`agent.plugin` names `mine`, which is a provider; an agent is needed here"), "{misfit}");
    let shipped = said("[[agent]]\nplugin = \"merge-json\"\n");
    assert!(shipped.contains("which is a merger; an agent is needed here") && shipped.contains("none is shipped"), "{shipped}");
    let both = said(&format!("[[agent]]\nplugin = \"mine\"\n[policy]\nplugin = \"mine\"\n{MINE}"));
    assert!(both.contains("`policy.plugin` names `mine`, which is an agent; a policy is needed here"), "{both}");
    let world = said(&format!("[[agent]]\nplugin = \"mine\"\n{MINE}world = \"agnet\"\n"));
    assert!(world.contains("did you mean \"agent\"?"), "{world}");
    let host = said(&format!("[[agent]]\nplugin = \"mine\"\nfetch_hosts = [\"http://a/\"]\n{MINE}"));
    assert!(host.contains("expected a host such as"), "{host}");
    let slug = said(&format!("[[project]]\nslug = \"demo\"\n[[agent]]\nplugin = \"mine\"\nprojects = [\"dmeo\"]\n{MINE}"));
    assert!(slug.contains("did you mean \"demo\"?"), "{slug}");
    let twice = said(&format!("[[agent]]\nplugin = \"mine\"\n[[agent]]\nplugin = \"mine\"\n{MINE}"));
    assert!(twice.contains("`agent.plugin` is \"mine\" a second time"), "{twice}");
    let truth = said(&format!("[[provider]]\nplugin = \"mine\"\nallow_empty_namespace = \"true\"\n{MINE}"));
    assert!(truth.contains("expected true or false") && truth.contains("without quotes"), "{truth}");
    let key = said(&format!("[[agent]]\nplugin = \"mine\"\nfetch_host = []\n{MINE}"));
    assert!(key.contains("did you mean `fetch_hosts`?"), "{key}");
}
