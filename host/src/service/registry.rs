//! The registry of plugins: what stands under each name, from where, in which mode; what was loaded before; why something is not.
//!
//! What is wanted comes from the configuration; what the API set comes on top, key by key, where the configuration does not
//! say it (`change`). Owns: the records, the order of a load. Must not know: how a component is run, where bytes are kept.
//!
//! A load goes: read, check (`admit`), keep the bytes, compile, ask the golden calls that the component carries (`golden`), probe and
//! swap ([`Plugins::load`](crate::ports::plugins::Plugins::load)), record.
//!
//! **Invariants:**
//! - A component that is refused changes nothing but the reason that is shown: the one that was loaded goes on.
//! - What the file says goes before what the API says; the API is refused by the file's key and line.
//! - One change at a time; calls never wait for one.

mod admit;
mod change;
mod follow;
mod golden;
mod listing;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pointsman_core::event::{Actor, NewEvent};
use serde_json::json;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::admit::{Admitted, Candidate};
use self::record::{PLUGINS, PLUGINS_MAX, Past, PluginRecord, trouble};
use super::failure::Failure;
use super::governor::{GivenUp, Governor};
use super::kit::{CommitExt, Kit, Loaded, chain};
use super::settings::{Binding, Bindings, Rule};
use crate::ports::plugins::{Grant, PluginSource, World};
use crate::ports::registry::{ComponentError, ComponentOrigin, Components, Mode, NamedBy, PluginSpec, PluginTrouble, PluginVersion, Trust};
use crate::ports::store::Commit;

/// What the configuration wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Every plugin that it names, once.
    pub plugins: Vec<PluginSpec>,
    /// Where they are asked; without rules.
    pub bindings: Bindings,
    /// Whose signatures count.
    pub trust: Trust,
    /// The lock of digests; it counts when it is there.
    pub lock_file: Option<PathBuf>,
}

impl Wanted {
    fn spec(&self, name: &str) -> Option<&PluginSpec> {
        self.plugins.iter().find(|spec| spec.name == name)
    }
}

/// Reads the configuration again.
pub type Reread = Arc<dyn Fn() -> Result<Wanted, String> + Send + Sync>;

/// Why a component is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{why}")]
pub struct Refused {
    /// Which; none where there was none to look at.
    digest: Option<String>,
    /// One sentence.
    why: String,
    /// One sentence.
    advice: String,
}

impl Refused {
    fn of(candidate: &Candidate, why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { digest: Some(candidate.digest.clone()), why: why.into(), advice: advice.into() }
    }
}

/// Why the plugins of the configuration are not there.
#[derive(Debug, Error)]
pub enum StartError {
    /// One cannot be loaded, and no earlier component of it is kept.
    #[error("plugin `{plugin}` cannot be loaded: {why}\n  {advice}")]
    Plugin {
        /// Which.
        plugin: String,
        /// One sentence.
        why: String,
        /// One sentence.
        advice: String,
    },
    /// The store.
    #[error("the records of the plugins cannot be read")]
    State(#[from] Failure),
}

/// What is loaded under a name, and why not what is wanted.
#[derive(Debug, Clone, Default)]
struct Running {
    loaded: Option<PluginVersion>,
    world: Option<World>,
    asked: Vec<String>,
    is_last_good: bool,
    trouble: Option<PluginTrouble>,
}

/// A plugin as it is wanted now, all layers taken together.
#[derive(Debug, Clone)]
struct Effective {
    spec: PluginSpec,
    named_by: NamedBy,
    record: PluginRecord,
}

/// The registry.
pub struct Registry {
    kit: Kit,
    components: Arc<dyn Components>,
    governor: Option<Arc<Governor>>,
    reread: Option<Reread>,
    wanted: ArcSwap<Wanted>,
    running: Mutex<BTreeMap<String, Running>>,
    /// Why the configuration was not taken in when it was read again.
    refused: Mutex<Option<PluginTrouble>>,
    turn: tokio::sync::Mutex<()>,
}

impl Registry {
    /// Returns the registry of what is wanted, with nothing loaded.
    #[must_use]
    pub fn new(kit: Kit, components: Arc<dyn Components>, wanted: Wanted, reread: Option<Reread>) -> Self {
        Self {
            kit,
            components,
            governor: None,
            reread,
            wanted: ArcSwap::from_pointee(wanted),
            running: Mutex::default(),
            refused: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Has a governor follow what is wanted.
    #[must_use]
    pub fn governed_by(mut self, governor: Arc<Governor>) -> Self {
        self.governor = Some(governor);
        self
    }

    /// Puts on record who is given up, until `stop`. Its load by `enable` is what lets it be asked again.
    pub async fn keep_quarantines(self: Arc<Self>, mut given_up: mpsc::Receiver<GivenUp>, stop: CancellationToken) {
        loop {
            let GivenUp { plugin, why } = tokio::select! {
                told = given_up.recv() => match told {
                    Some(told) => told,
                    None => return,
                },
                () = stop.cancelled() => return,
            };
            if let Err(failure) = self.quarantine(&plugin, &why).await {
                tracing::error!(plugin, error = chain(&failure), "a quarantine could not be put on record");
            }
        }
    }

    /// Loads everything that is wanted, many at once, and binds it. Where a component is refused the last good one is loaded.
    ///
    /// # Errors
    /// [`StartError`]: a plugin of the configuration is not there in any form.
    pub async fn start(self: &Arc<Self>) -> Result<(), StartError> {
        let _turn = self.turn.lock().await;
        let wanted = self.wanted.load_full();
        let mut loading = JoinSet::new();
        for effective in self.effective(&wanted).await? {
            if effective.spec.mode == Mode::Off {
                continue;
            }
            let (registry, wanted) = (Arc::clone(self), Arc::clone(&wanted));
            loading.spawn(async move { registry.start_one(&wanted, &effective).await });
        }
        let mut first = None;
        while let Some(started) = loading.join_next().await {
            if let Err(error) = started.expect("loading a plugin does not panic") {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)?;
        Ok(self.bind(&wanted).await?)
    }

    async fn start_one(&self, wanted: &Wanted, effective: &Effective) -> Result<(), StartError> {
        let name = effective.spec.name.as_str();
        let Err(refused) = self.bring(wanted, effective, effective.record.pinned.as_deref()).await? else { return Ok(()) };
        let last_good = effective.record.history.iter().rev().map(|past| past.version.digest.as_str());
        for digest in last_good.filter(|digest| refused.digest.as_deref() != Some(*digest)) {
            if self.components.kept(digest).await.is_none() {
                self.fetch_from_siblings(effective, digest).await;
            }
            if self.components.kept(digest).await.is_none() {
                continue;
            }
            if self.bring(wanted, effective, Some(digest)).await?.is_ok() {
                tracing::error!(plugin = name, why = refused.why, digest, "THE WANTED COMPONENT IS NOT LOADED: the last good one is");
                self.note_trouble(name, &refused, LastGood::Yes).await?;
                return Ok(());
            }
        }
        tracing::error!(plugin = name, why = refused.why, "a plugin cannot be loaded");
        self.note_trouble(name, &refused, LastGood::No).await?;
        let Refused { why, advice, .. } = refused;
        match effective.named_by {
            NamedBy::Configuration => Err(StartError::Plugin { plugin: name.to_owned(), why, advice }),
            NamedBy::Api => Ok(()),
        }
    }

    /// Returns every plugin as it is wanted now, by name.
    async fn effective(&self, wanted: &Wanted) -> Result<Vec<Effective>, Failure> {
        let mut records: BTreeMap<String, PluginRecord> = BTreeMap::new();
        for (key, found) in self.kit.load_all::<PluginRecord>(None, PLUGINS, PLUGINS_MAX).await? {
            records.insert(key[PLUGINS.len()..].to_owned(), found.value);
        }
        let names: BTreeSet<String> = wanted.plugins.iter().map(|spec| spec.name.clone()).chain(records.keys().cloned()).collect();
        Ok(names.into_iter().filter_map(|name| effective(wanted, &name, records.remove(&name).unwrap_or_default())).collect())
    }

    async fn effective_of(&self, wanted: &Wanted, name: &str) -> Result<Option<Effective>, Failure> {
        Ok(effective(wanted, name, self.record(name).await?.value))
    }

    async fn record(&self, name: &str) -> Result<Loaded<PluginRecord>, Failure> {
        let found = self.kit.load::<PluginRecord>(None, &record::key(name)).await?;
        // Version 0 is none that a commit gives.
        Ok(found.unwrap_or(Loaded { value: PluginRecord::default(), version: 0 }))
    }

    /// Changes the record of a plugin, with an event of what was done.
    async fn change_record(
        &self,
        name: &str,
        kind: &str,
        data: serde_json::Value,
        change: impl Fn(&mut PluginRecord),
    ) -> Result<(), Failure> {
        let decided = self.kit.decide(|| async {
            let Loaded { value: mut record, version } = self.record(name).await?;
            let before = record.clone();
            change(&mut record);
            let mut commit = Commit::default();
            if record != before {
                commit.replace(record::key(name), (version > 0).then_some(version), &record);
                commit.events.push(NewEvent::new(kind, Actor::host(), format!("plugin:{name}"), self.said_here(data.clone())));
            }
            Ok((commit, ()))
        });
        decided.await?;
        Ok(())
    }

    /// Loads one plugin: as it is held, else from its source. On a refusal nothing changed.
    async fn bring(&self, wanted: &Wanted, effective: &Effective, held: Option<&str>) -> Result<Result<(), Refused>, Failure> {
        let Effective { spec, named_by, record } = effective;
        let candidate = match self.candidate(spec, record, held).await {
            Ok(candidate) => candidate,
            Err(refused) => return Ok(Err(refused)),
        };
        match self.load(wanted, spec, &candidate, *named_by == NamedBy::Api).await {
            Ok(admitted) => self.note_loaded(spec, &candidate, admitted, held.is_some()).await.map(Ok),
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// Returns the component that is to be loaded: the one it is held at, else what its source has.
    async fn candidate(&self, spec: &PluginSpec, record: &PluginRecord, held: Option<&str>) -> Result<Candidate, Refused> {
        if let Some(digest) = held.or(spec.digest.as_deref())
            && let Some(component) = self.components.kept(digest).await
        {
            let signature = spec.signature.clone().or_else(|| record.past(digest).and_then(|past| past.signature.clone()));
            return Ok(Candidate::new(component, signature));
        }
        let read = self.components.read(&spec.name, &spec.origin).await.map_err(|error| {
            let advice = match (&error, &spec.origin) {
                (ComponentError::Missing(_), ComponentOrigin::Embedded) => {
                    format!("Name a file as its `source`: no component `{}` is shipped.", spec.name)
                }
                (ComponentError::Missing(_), _) => "Correct its `source`, or put the component there.".to_owned(),
                (ComponentError::Unreadable(_), _) => "See that it can be read, then `pointsman plugin reload`.".to_owned(),
            };
            Refused { digest: None, why: format!("its component cannot be read: {error}"), advice }
        })?;
        let candidate = Candidate::new(read.component, spec.signature.clone().or(read.signature));
        match held.filter(|held| *held != candidate.digest) {
            None => Ok(candidate),
            Some(held) => Err(Refused::of(
                &candidate,
                format!("it is held at {held}, which is not kept here, and its source has {}", candidate.digest),
                format!("Put that component back, or follow the source again by `pointsman plugin unpin {}`.", spec.name),
            )),
        }
    }

    /// Checks a component, keeps its bytes, and swaps it in.
    async fn load(&self, wanted: &Wanted, spec: &PluginSpec, candidate: &Candidate, is_added: bool) -> Result<Admitted, Refused> {
        let admitted = self.admit(wanted, spec, candidate, is_added)?;
        if spec.origin != ComponentOrigin::Embedded {
            self.components.keep(Arc::clone(&candidate.component)).await.map_err(|error| {
                Refused::of(candidate, format!("its component cannot be kept: {error}"), "See that the data folder can be written.")
            })?;
        }
        self.rehearse(spec, candidate, &admitted).await?;
        let source = PluginSource {
            name: spec.name.clone(),
            world: admitted.world,
            component: Arc::clone(&candidate.component),
            config_json: admitted.config_json.clone(),
            limits: spec.limits,
            needs: admitted.facts.needs,
            instances: spec.instances,
            lookups: granted_lookups(spec),
        };
        self.kit.plugins.load(source).await.map_err(|failure| {
            Refused::of(candidate, failure.to_string(), "Mend the component or its configuration; the host's log says more.")
        })?;
        Ok(admitted)
    }

    async fn note_loaded(&self, spec: &PluginSpec, candidate: &Candidate, admitted: Admitted, is_held: bool) -> Result<(), Failure> {
        let name = spec.name.as_str();
        let version = PluginVersion {
            digest: candidate.digest.clone(),
            version: admitted.facts.version,
            source: spec.origin.to_string(),
            at: self.kit.now(),
        };
        let running = Running {
            loaded: Some(version.clone()),
            world: Some(admitted.world),
            asked: admitted.facts.capabilities,
            ..Running::default()
        };
        let before = self.running.lock().insert(name.to_owned(), running);
        if before.and_then(|before| before.loaded).is_none_or(|loaded| loaded.digest != candidate.digest) {
            tracing::info!(plugin = name, digest = candidate.digest, version = version.version, "a plugin is loaded");
        }
        let data = json!({"plugin": name, "digest": version.digest, "version": version.version, "source": version.source});
        let past = Past { version, signature: candidate.signature.clone() };
        let remembered = |record: &mut PluginRecord| {
            record.trouble = None;
            if !is_held || record.past(&past.version.digest).is_none() {
                record.remember(past.clone());
            }
        };
        self.change_record(name, "plugin.loaded", data, remembered).await
    }

    async fn note_trouble(&self, name: &str, refused: &Refused, last_good: LastGood) -> Result<(), Failure> {
        let trouble = trouble(&refused.why, refused.digest.as_deref(), self.kit.now());
        {
            let mut running = self.running.lock();
            let entry = running.entry(name.to_owned()).or_default();
            entry.is_last_good = last_good == LastGood::Yes;
            entry.trouble = Some(trouble.clone());
        }
        let data = json!({"plugin": name, "why": refused.why, "digest": refused.digest});
        self.change_record(name, "plugin.refused", data, |record| record.trouble = Some(trouble.clone())).await
    }

    /// Binds what is wanted now.
    async fn bind(&self, wanted: &Wanted) -> Result<(), Failure> {
        let mut bindings = wanted.bindings.clone();
        for Effective { spec, named_by, record } in self.effective(wanted).await? {
            if let (NamedBy::Api, Some(added)) = (named_by, &record.added) {
                let places = added.places.clone();
                let patterns = places.patterns.iter().filter_map(|text| text.parse().ok()).collect();
                let (projects, kinds) = (places.projects, places.kinds);
                bindings.add(added.world, Binding { projects, kinds, patterns, ..Binding::of(&spec.name) });
            }
            let rule = Rule {
                mode: spec.mode,
                shadow_of: spec.shadow_of,
                share_permille: spec.share_permille,
                on_failure: spec.on_failure,
                quarantine: record.quarantine.map(|why| why.why),
            };
            if rule != Rule::default() {
                bindings.rules.insert(spec.name, rule);
            }
        }
        if let Some(governor) = &self.governor {
            governor.follow(&bindings);
        }
        self.kit.settings.bindings.replace(bindings);
        Ok(())
    }

    /// Returns the files that components are read from, by plugin.
    #[must_use]
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        let file = |spec: &PluginSpec| match &spec.origin {
            ComponentOrigin::File(path) => Some((spec.name.clone(), path.clone())),
            ComponentOrigin::Embedded | ComponentOrigin::Url(_) => None,
        };
        let mut files: Vec<_> = self.wanted.load().plugins.iter().filter_map(file).collect();
        let added = self
            .running
            .lock()
            .iter()
            .filter_map(|(name, running)| Some((name.clone(), running.loaded.as_ref()?.source.clone())))
            .collect::<Vec<_>>();
        for (name, source) in added {
            if let ComponentOrigin::File(path) = source.into()
                && !files.iter().any(|(known, _)| *known == name)
            {
                files.push((name, path));
            }
        }
        files
    }
}

/// Returns whether an operator lets a plugin look the project up.
fn granted_lookups(spec: &PluginSpec) -> Grant {
    if spec.capabilities.iter().any(|granted| granted == "lookups") { Grant::Given } else { Grant::Withheld }
}

/// Whether an earlier component is loaded in place of the wanted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastGood {
    Yes,
    No,
}

/// Returns a plugin as it is wanted, all layers taken together; none where no layer names it.
fn effective(wanted: &Wanted, name: &str, record: PluginRecord) -> Option<Effective> {
    let (mut spec, named_by) = match wanted.spec(name) {
        Some(spec) => (spec.clone(), NamedBy::Configuration),
        None => (record.added.as_ref()?.spec(name), NamedBy::Api),
    };
    let by_api = |key: &str| !spec.written.contains_key(key);
    let (mode, grants) = (record.mode.filter(|_| by_api("mode")), record.grants.clone().filter(|_| by_api("capabilities")));
    let pinned = record.pinned.clone().filter(|_| by_api("digest"));
    spec.mode = mode.unwrap_or(spec.mode);
    spec.capabilities = grants.unwrap_or(spec.capabilities);
    Some(Effective { spec, named_by, record: PluginRecord { pinned, ..record } })
}
