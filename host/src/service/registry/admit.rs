//! What a component must fulfil before it is loaded: the operator's lock, signature, grants, and its own schema and world.
//!
//! **Invariant:** every component goes through [`Registry::admit`], also one that was loaded before.

use super::{Refused, Registry, Wanted};
use crate::ports::plugins::World;
use crate::ports::registry::{CAPABILITIES_KEY, ComponentOrigin, Facts, PluginSpec};
use std::sync::Arc;

/// The configuration of whoever wrote none.
const NO_CONFIG: &str = "{}";

/// A component that may be loaded.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its bytes.
    pub(super) component: Arc<[u8]>,
    /// BLAKE3 of them, hex.
    pub(super) digest: String,
    /// Its signature.
    pub(super) signature: Option<String>,
}

impl Candidate {
    pub(super) fn new(component: Arc<[u8]>, signature: Option<String>) -> Self {
        let digest = blake3::hash(&component).to_hex().to_string();
        Self { component, digest, signature }
    }
}

/// A component that was checked.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    /// What it is loaded as.
    pub(super) world: World,
    /// What it says of itself.
    pub(super) facts: Facts,
    /// The configuration it is given: its own where the operator wrote none.
    pub(super) config_json: String,
}

impl Registry {
    /// Checks a component by everything that can be seen without running it.
    pub(super) fn admit(&self, wanted: &Wanted, spec: &PluginSpec, candidate: &Candidate, is_added: bool) -> Result<Admitted, Refused> {
        let name = spec.name.as_str();
        let refused = |why: String, advice: String| Refused::of(candidate, why, advice);
        self.held_by_lock(wanted, spec, candidate, is_added)?;
        self.is_trusted(wanted, spec, candidate)?;
        let facts = match self.components.facts(&candidate.component) {
            Ok(facts) => facts,
            Err(why) => {
                return Err(refused(
                    format!("its manifest cannot be read: {why}"),
                    "Build it again by `pointsman plugin build`.".to_owned(),
                ));
            }
        };
        let world = world(spec, facts.world).map_err(|says| {
            let why = format!("it is of the world `{says}`, and cannot be used as one of `{}`", spec.world);
            refused(why, format!("Bind it where a {says} is asked, or name another component."))
        })?;
        ungranted(name, &facts.capabilities, &spec.capabilities).map_err(|(why, advice)| refused(why, advice))?;
        let config_json = match &facts.config_json {
            Some(own) if spec.config_json == NO_CONFIG => own.clone(),
            Some(_) | None => spec.config_json.clone(),
        };
        self.components
            .validate_config(&candidate.component, &config_json)
            .map_err(|why| refused(format!("its configuration does not fit: {why}"), format!("Correct `config` of [plugins.{name}].")))?;
        Ok(Admitted { world, facts, config_json })
    }

    fn held_by_lock(&self, wanted: &Wanted, spec: &PluginSpec, candidate: &Candidate, is_added: bool) -> Result<(), Refused> {
        let name = &spec.name;
        let digest = &candidate.digest;
        if let Some(only) = spec.digest.as_ref().filter(|only| *only != digest) {
            let why = format!("its component has the digest {digest}, and `digest` allows {only} only");
            return Err(Refused::of(candidate, why, "Put the right component back, or change `digest`."));
        }
        let Some(file) = &wanted.lock_file else { return Ok(()) };
        let locked = self.components.locked(file).map_err(|why| {
            Refused::of(candidate, format!("{} cannot be read: {why}", file.display()), "Write it anew by `pointsman plugin lock`.")
        })?;
        let Some(locked) = locked else { return Ok(()) };
        match locked.get(name) {
            Some(allowed) if allowed == digest => Ok(()),
            Some(allowed) => Err(Refused::of(
                candidate,
                format!("its component has the digest {digest}, and {} allows {allowed} only", file.display()),
                "Put the right component back; if the new one is wanted, write the lock anew by `pointsman plugin lock`.",
            )),
            // What the API adds names its digest itself.
            None if is_added && spec.digest.is_some() => Ok(()),
            None => Err(Refused::of(
                candidate,
                format!("{} does not name it", file.display()),
                "Write the lock anew by `pointsman plugin lock`; one that the API adds needs `--digest` beside a lock.",
            )),
        }
    }

    fn is_trusted(&self, wanted: &Wanted, spec: &PluginSpec, candidate: &Candidate) -> Result<(), Refused> {
        let trust = &wanted.trust;
        let Some(signature) = &candidate.signature else {
            if trust.required && spec.origin != ComponentOrigin::Embedded {
                return Err(Refused::of(
                    candidate,
                    "its component is not signed, and `plugin_trust.required` is set",
                    "Sign it: `pointsman plugin sign FILE --key KEYFILE` writes FILE.sig beside it.",
                ));
            }
            return Ok(());
        };
        if trust.keys.is_empty() || self.components.is_signed(&candidate.digest, signature, &trust.keys) {
            return Ok(());
        }
        Err(Refused::of(
            candidate,
            "its signature is not one of these bytes by a key of `plugin_trust.keys`",
            "Sign this very file by `pointsman plugin sign`, with a key whose public half stands in `plugin_trust.keys`.",
        ))
    }
}

/// Returns the world a component is loaded as. What it says of itself counts: one that is used as a provider may be an agent.
fn world(spec: &PluginSpec, says: Option<World>) -> Result<World, World> {
    match says {
        None | Some(World::Agent) if spec.world == World::McpProvider => Ok(says.unwrap_or(spec.world)),
        Some(says) if says != spec.world => Err(says),
        Some(_) | None => Ok(spec.world),
    }
}

/// Refuses a component that asks for what the operator did not grant, naming all of it: what is wrong, and what to do.
fn ungranted(name: &str, asked: &[String], granted: &[String]) -> Result<(), (String, String)> {
    let missing: Vec<&str> = asked.iter().filter(|one| !granted.contains(one)).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let listed = missing.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
    let all: Vec<String> = granted.iter().map(String::as_str).chain(missing.iter().copied()).map(|one| format!("\"{one}\"")).collect();
    let flags: Vec<String> = missing.iter().map(|one| format!("--grant {one}")).collect();
    let advice = format!(
        "If it may have that: write `{CAPABILITIES_KEY} = [{}]` into [plugins.{name}], or run `pointsman plugin grants {name} {}`.",
        all.join(", "),
        flags.join(" ")
    );
    Err((format!("it asks for {listed}, which it is not granted"), advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_granted_is_named_with_both_ways_to_grant_it() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(ungranted("mine", &texts(&["kv"]), &texts(&["log", "kv"])), Ok(()));
        let (why, advice) = ungranted("mine", &texts(&["kv", "log", "http"]), &texts(&["log"])).expect_err("not granted");
        assert_eq!(why, "it asks for `kv`, `http`, which it is not granted");
        assert!(advice.contains(r#"capabilities = ["log", "kv", "http"]"#), "{advice}");
        assert!(advice.contains("plugin grants mine --grant kv --grant http"), "{advice}");
    }

    #[test]
    fn an_agent_may_be_used_as_a_provider() {
        let spec = |world| PluginSpec::new("x", world, ComponentOrigin::Embedded);
        assert_eq!(world(&spec(World::McpProvider), Some(World::Agent)), Ok(World::Agent));
        assert_eq!(world(&spec(World::McpProvider), None), Ok(World::McpProvider));
        assert_eq!(world(&spec(World::Router), Some(World::Policy)), Err(World::Policy));
        assert_eq!(world(&spec(World::Router), None), Ok(World::Router));
    }
}
