//! The plugin that an author works on: a folder that is built, a component's file, or one that is shipped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::app;
use crate::cli::{Trouble, block_on};
use crate::config::Environment;
use crate::plugin_build::component::embedded_manifest;
use crate::plugin_build::config_schema::validate_config;
use crate::plugin_build::manifest::Manifest;
use crate::plugin_build::{self, Carry, MANIFEST_FILE, Options, Progress};
use crate::plugin_cases::{self, Bench, Case, TRIED_DEADLINE_MS};
use crate::ports::plugins::{Grant, Instances, Meter, PluginFailure, PluginLimits, PluginSource};
use crate::shipped;

/// A plugin under work.
pub(in crate::cli) struct Subject {
    pub(in crate::cli) manifest: Manifest,
    pub(in crate::cli) component: Arc<[u8]>,
    /// Where its manifest and cases are; none for a component alone.
    pub(in crate::cli) folder: Option<PathBuf>,
}

impl Subject {
    /// Opens a plugin: builds a folder, reads a file, takes one that is shipped.
    pub(in crate::cli) fn open(path: &Path, progress: Progress) -> Result<Self, Trouble> {
        Self::opened(path, progress, Carry::Golden)
    }

    /// Opens a plugin to ask it cases. One that is built does not carry them along: it is the same, and its compiled code can be
    /// used again, when only they changed.
    pub(in crate::cli) fn open_bare(path: &Path, progress: Progress) -> Result<Self, Trouble> {
        Self::opened(path, progress, Carry::Nothing)
    }

    fn opened(path: &Path, progress: Progress, carry: Carry) -> Result<Self, Trouble> {
        if path.is_dir() {
            let options = Options { progress, carry, schema_of: Some(app::config_schema), ..Options::new(path, path) };
            let (manifest, component) = plugin_build::build_in_memory(&options).map_err(|error| Trouble::caused(&error))?;
            return Ok(Self { manifest, component: component.into(), folder: Some(path.to_owned()) });
        }
        let (component, folder): (Arc<[u8]>, _) = match std::fs::read(path) {
            Ok(bytes) => (bytes.into(), path.parent().map(Path::to_owned)),
            Err(error) => match path.to_str().and_then(shipped::component) {
                Some(bytes) => (bytes.into(), None),
                None => {
                    return Err(Trouble::misused(
                        format!("{}: {error}", path.display()),
                        &format!("name a folder with a {MANIFEST_FILE}, a component's file, or a plugin that is shipped"),
                    ));
                }
            },
        };
        let text = embedded_manifest(&component).map_err(|why| Trouble::failed(format!("{}: {why}", path.display())))?;
        let Some(text) = text else {
            return Err(Trouble::Failed(format!(
                "error: {} carries no manifest\n  build it with `pointsman plugin build`, which puts {MANIFEST_FILE} inside",
                path.display()
            )));
        };
        let manifest = Manifest::parse(&text).map_err(|why| Trouble::failed(format!("{}: its manifest: {why}", path.display())))?;
        Ok(Self { manifest, component, folder })
    }

    /// Reads its cases: those of `given`, else of the folder `cases` beside it, else none.
    pub(in crate::cli) fn cases(&self, given: Option<&Path>) -> Result<Vec<(PathBuf, Case)>, Trouble> {
        let beside = self.folder.as_ref().map(|folder| folder.join(plugin_cases::FOLDER)).filter(|folder| folder.is_dir());
        match given.map(Path::to_owned).or(beside) {
            Some(path) => plugin_cases::read(&path).map_err(|error| Trouble::caused(&error)),
            None => Ok(Vec::new()),
        }
    }

    /// Returns the milliseconds that a host would let a call of it take: the least of what its world and its manifest say.
    pub(in crate::cli) fn deadline_ms(&self) -> Result<u64, Trouble> {
        app::deadline_ms(&self.component, self.manifest.world, self.manifest.limits.into())
            .map_err(|why| Trouble::failed(format!("{}: {why}", self.manifest.name)))
    }

    /// Says where a deadline comes from, and what may be done about it.
    pub(in crate::cli) fn deadline_advice(&self) -> String {
        let set = "an operator can set `deadline_ms` in `limits` of the plugin's table";
        match self.manifest.limits.deadline_ms {
            Some(_) => format!("`[limits]` of {MANIFEST_FILE} or its world says so; {set}"),
            None => format!("the world `{}` says so; {set}", self.manifest.world),
        }
    }

    /// Returns it as something to load under a name.
    pub(in crate::cli) fn source(&self, name: &str, config_json: String, instances: Instances) -> PluginSource {
        PluginSource {
            name: name.to_owned(),
            world: self.manifest.world,
            component: Arc::clone(&self.component),
            config_json,
            limits: PluginLimits { deadline_ms: Some(TRIED_DEADLINE_MS), ..PluginLimits::default() },
            needs: PluginLimits::default(),
            instances,
            lookups: Grant::Given,
        }
    }
}

/// A bench with one plugin, loaded once for each configuration it is asked with.
pub(in crate::cli) struct Tried {
    pub(in crate::cli) bench: Bench,
    loaded: std::collections::BTreeMap<String, String>,
}

impl Tried {
    /// Returns a bench on which time may be measured.
    pub(in crate::cli) fn new(environment: &Environment) -> Result<Self, Trouble> {
        Self::with_meter(environment, Meter::Off)
    }

    /// Returns a bench on which instructions may be counted.
    pub(in crate::cli) fn with_meter(environment: &Environment, meter: Meter) -> Result<Self, Trouble> {
        let cache = environment.cache_dir();
        let bench = block_on(async { app::bench(cache.as_deref(), meter) })?.map_err(|error| Trouble::caused(&error))?;
        Ok(Self { bench, loaded: std::collections::BTreeMap::new() })
    }

    /// Returns the name under which a plugin is loaded with a configuration.
    pub(in crate::cli) async fn loaded(
        &mut self,
        subject: &Subject,
        config_json: &str,
        instances: Instances,
    ) -> Result<String, PluginFailure> {
        let key = format!("{instances:?} {config_json}");
        if let Some(name) = self.loaded.get(&key) {
            return Ok(name.clone());
        }
        let name = format!("{}#{}", subject.manifest.name, self.loaded.len());
        validate_config(&subject.component, config_json)
            .map_err(|why| PluginFailure::Refused { plugin: name.clone(), why: format!("its configuration does not fit: {why}") })?;
        self.bench.plugins.load(subject.source(&name, config_json.to_owned(), instances)).await?;
        self.loaded.insert(key, name.clone());
        Ok(name)
    }
}

/// Returns a time in milliseconds, as people read it.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a call are far below 2^52")]
pub(in crate::cli) fn ms(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1e3)
}

/// Returns a value in one line, cut where it is long.
pub(in crate::cli) fn brief(value: &Value) -> String {
    const CHARS_MAX: usize = 160;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
