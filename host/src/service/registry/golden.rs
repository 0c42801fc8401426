//! Golden calls as a part of a load: what a component's author says that it answers is asked of it before it takes anybody's place.
//!
//! They are asked aside, on fresh instances, under the configuration they were written for and with limits of their own.
//!
//! **Invariants:** nothing that an operator set can make a golden call fail; where one fails, nothing but the reason that is shown
//! has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::admit::{Admitted, Candidate};
use super::{Refused, Registry, granted_lookups};
use crate::plugin_cases::{Bench, Case, TRIED_DEADLINE_MS, golden, mismatches};
use crate::ports::clock::System;
use crate::ports::plugins::{Aside, Instances, PluginFailure, PluginLimits, PluginSource, Plugins};
use crate::ports::registry::PluginSpec;

/// Milliseconds after which no further golden call of a load is asked: those left are passed over, and the log says so.
const GOLDEN_MS: u64 = 10_000;
/// The configuration of a component whose manifest has none.
const NO_CONFIG: &str = "{}";
/// Characters of a value that a reason shows.
const SHOWN_CHARS_MAX: usize = 160;

impl Registry {
    /// Asks the golden calls of a component that may be loaded.
    ///
    /// # Errors
    /// The first call that is not answered as it says, by its name and the answer's field.
    pub(super) async fn rehearse(&self, spec: &PluginSpec, candidate: &Candidate, admitted: &Admitted) -> Result<(), Refused> {
        let unreadable = |why: String| {
            let why = format!("its golden calls cannot be read: {why}");
            Refused::of(candidate, why, "Build it again by `pointsman plugin build` of this version.")
        };
        let Some(section) = self.components.cases(&candidate.component).map_err(unreadable)? else { return Ok(()) };
        let cases = golden::parse(&section).map_err(unreadable)?;
        let source = PluginSource {
            name: spec.name.clone(),
            world: admitted.world,
            component: Arc::clone(&candidate.component),
            config_json: admitted.facts.config_json.clone().unwrap_or_else(|| NO_CONFIG.to_owned()),
            // What `pointsman plugin test` allows: the operator's limits are for the operator's calls.
            limits: PluginLimits { deadline_ms: Some(TRIED_DEADLINE_MS), ..PluginLimits::default() },
            needs: PluginLimits::default(),
            instances: Instances::Fresh,
            lookups: granted_lookups(spec),
        };
        let (plugins, system) = (Arc::clone(&self.kit.plugins), Arc::clone(&self.kit.system));
        let stage = Stage { plugins, source, benches: BTreeMap::new(), system };
        // A router is asked on the thread of whoever asks.
        let runtime = tokio::runtime::Handle::current();
        let asked = tokio::task::spawn_blocking(move || runtime.block_on(stage.ask_all(cases))).await;
        let found = asked.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err("they were not asked: the host is shutting down".to_owned()),
        });
        found.map_err(|why| {
            let advice = "Its author mends it: `pointsman plugin check` on the component shows the same.";
            Refused::of(candidate, why, advice)
        })
    }
}

/// Where the golden calls of one component are asked.
struct Stage {
    /// Beside which it is asked.
    plugins: Arc<dyn Plugins>,
    /// With the configuration of the manifest.
    source: PluginSource,
    /// A bench for each configuration, with the component on it.
    benches: BTreeMap<String, Bench>,
    system: Arc<dyn System>,
}

impl Stage {
    /// Asks one after another; the error says which is answered otherwise, and where.
    async fn ask_all(mut self, cases: Vec<Case>) -> Result<(), String> {
        let (begun, all) = (self.system.instant(), cases.len());
        for (asked, case) in cases.into_iter().enumerate() {
            if self.system.instant().saturating_duration_since(begun) > Duration::from_millis(GOLDEN_MS) {
                tracing::warn!(plugin = self.source.name, asked, all, "golden calls are passed over: those before took too long");
                break;
            }
            self.ask(&case).await.map_err(|why| format!("its golden call `{}` {why}", case.name))?;
        }
        Ok(())
    }

    async fn ask(&mut self, case: &Case) -> Result<(), String> {
        let config = case.config_json(&self.source.config_json);
        let bench = self.bench(&config).await.map_err(|failure| format!("cannot be asked: {failure}"))?;
        let answer = bench.ask(&self.source.name, &case.call).await.answer;
        let Some(first) = mismatches(&case.expect, &answer, &case.call.input()).into_iter().next() else { return Ok(()) };
        let (place, expected) = (first.place, brief(&first.expected));
        match (answer["failure"].as_str(), answer["why"].as_str()) {
            (Some(failure), Some(why)) => Err(format!("is not answered ({failure}: {why}): `{place}` was to be {expected}")),
            _ => Err(format!("is answered otherwise: `{place}` is {}, not {expected}", brief(&first.came))),
        }
    }

    /// Returns the bench on which the component is loaded with a configuration.
    async fn bench(&mut self, config: &str) -> Result<Bench, PluginFailure> {
        if let Some(bench) = self.benches.get(config) {
            return Ok(bench.clone());
        }
        let Aside { plugins, residents } = self.plugins.aside();
        plugins.load(PluginSource { config_json: config.to_owned(), ..self.source.clone() }).await?;
        let bench = Bench { plugins, residents };
        self.benches.insert(config.to_owned(), bench.clone());
        Ok(bench)
    }
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
