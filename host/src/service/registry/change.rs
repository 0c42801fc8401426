//! What operators and the governor change: add, remove, enable, disable, pin, roll back, grant, reload, quarantine.
//!
//! **Invariant:** a change that is refused left everything as it was; each refusal says what to do instead.

use std::sync::Arc;

use pointsman_core::event::{Actor, NewEvent};
use serde_json::json;

use super::record::{Added, PluginRecord, key, trouble};
use super::{Effective, LastGood, Refused, Registry, Wanted};
use crate::ports::plugins::World;
use crate::ports::registry::{
    CAPABILITIES, ComponentError, ComponentOrigin, DIGEST_CHARS, Mode, NamedBy, PERMILLE, PluginAdd, PluginChange, PluginListed,
    PluginSpec, is_digest,
};
use crate::ports::store::Commit;
use crate::service::failure::Failure;

/// Characters of a plugin's name.
const NAME_CHARS_MAX: usize = 64;
/// Digits of a digest that name a component of the history.
const DIGEST_CHARS_MIN: usize = 6;

/// Returns that there is no such plugin.
pub(super) fn unknown(name: &str) -> Failure {
    let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
    Failure::refused("not_found", format!("there is no plugin `{shown}`"), "`pointsman plugin list` shows them.")
}

fn bad(why: impl Into<String>, advice: impl Into<String>) -> Failure {
    Failure::refused("bad_argument", why, advice)
}

fn not_loaded(name: &str, refused: &Refused) -> Failure {
    Failure::refused_with(
        "plugin_refused",
        format!("plugin `{name}`: {}", refused.why),
        refused.advice.clone(),
        json!({"digest": refused.digest}),
    )
}

/// Whether a component is loaded again that is loaded already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anew {
    /// Also then: its configuration or limits are others.
    Always,
    /// Only another one, or one that may not be loaded any more.
    WhenChanged,
}

/// Refuses to change a key that stands in the configuration.
fn not_written(spec: &PluginSpec, key: &str) -> Result<(), Failure> {
    let Some(place) = spec.written.get(key) else { return Ok(()) };
    Err(Failure::refused(
        "file_beats_api",
        format!("`plugins.{}.{key}` is written at {place}, and what is written there goes before the API", spec.name),
        "Change it there: the host takes it in by itself. Or take the key out of there, then try again.",
    ))
}

/// Returns where a plugin of the configuration is named.
fn named_at(spec: &PluginSpec) -> String {
    spec.written.get("").cloned().unwrap_or_else(|| "the host's defaults".to_owned())
}

impl Registry {
    /// Adds a plugin that the configuration does not name.
    ///
    /// # Errors
    /// `exists`, `file_beats_api`, `bad_argument`, `plugin_refused`.
    pub async fn add(&self, add: PluginAdd) -> Result<PluginListed, Failure> {
        let _turn = self.turn.lock().await;
        let wanted = self.wanted.load_full();
        let name = add.name.clone();
        if let Some(known) = self.effective_of(&wanted, &name).await? {
            return Err(match known.named_by {
                NamedBy::Configuration => Failure::refused(
                    "file_beats_api",
                    format!("`{name}` is named at {}, and what is written there goes before the API", named_at(&known.spec)),
                    format!("Write what you want of it into [plugins.{name}] there, or choose another name."),
                ),
                NamedBy::Api => Failure::refused(
                    "exists",
                    format!("there is a plugin `{name}` already"),
                    format!("Remove it first by `pointsman plugin remove {name}`, or choose another name."),
                ),
            });
        }
        let spec = self.spec_of(&add).await?;
        check_added(&spec, &add)?;
        let refused = |refused: Refused| not_loaded(&name, &refused);
        let candidate = self.candidate(&spec, &PluginRecord::default(), None).await.map_err(refused)?;
        let admitted = match spec.mode {
            Mode::Off => self.admit(&wanted, &spec, &candidate, true).map_err(refused)?,
            Mode::Live | Mode::Shadow => self.load(&wanted, &spec, &candidate, true).await.map_err(refused)?,
        };
        let added = Added {
            world: spec.world,
            origin: spec.origin.clone(),
            config_json: spec.config_json.clone(),
            digest: spec.digest.clone(),
            signature: spec.signature.clone(),
            shadow_of: spec.shadow_of.clone(),
            share_permille: spec.share_permille,
            places: add.places.clone(),
        };
        let data = json!({"plugin": name, "world": admitted.world, "source": added.origin, "digest": candidate.digest, "mode": spec.mode});
        let stored = self.change_record(&name, "plugin.added", data, |record| {
            // What is left of an earlier plugin of this name is its history.
            *record = PluginRecord {
                added: Some(added.clone()),
                mode: Some(spec.mode),
                grants: Some(spec.capabilities.clone()),
                history: std::mem::take(&mut record.history),
                ..PluginRecord::default()
            };
        });
        stored.await?;
        if spec.mode != Mode::Off {
            self.note_loaded(&spec, &candidate, admitted, false).await?;
        }
        self.bind(&wanted).await?;
        self.listed(&name).await
    }

    /// Returns what is wanted by an addition; its world is the component's own where none is named.
    async fn spec_of(&self, add: &PluginAdd) -> Result<PluginSpec, Failure> {
        let origin = ComponentOrigin::from(add.source.clone());
        let mut spec = PluginSpec {
            config_json: serde_json::Value::Object(add.config.clone()).to_string(),
            mode: add.mode,
            shadow_of: add.shadow_of.clone(),
            share_permille: add.share_permille.unwrap_or(PERMILLE),
            digest: add.digest.clone(),
            signature: add.signature.clone(),
            capabilities: add.capabilities.clone(),
            ..PluginSpec::new(&add.name, World::Router, origin)
        };
        check_added(&spec, add)?;
        spec.world = match add.world {
            Some(world) => world,
            None => {
                let refused = |refused: Refused| not_loaded(&add.name, &refused);
                let candidate = self.candidate(&spec, &PluginRecord::default(), None).await.map_err(refused)?;
                let says = self.components.facts(&candidate.component).ok().and_then(|facts| facts.world);
                says.ok_or_else(|| {
                    bad("the component does not say which world it was made for", "Name it: `--world router`, for example.")
                })?
            }
        };
        Ok(spec)
    }

    /// Takes away a plugin that the API added.
    ///
    /// # Errors
    /// `not_found`, `file_beats_api`.
    pub async fn remove(&self, name: &str) -> Result<PluginListed, Failure> {
        let _turn = self.turn.lock().await;
        let wanted = self.wanted.load_full();
        let known = self.effective_of(&wanted, name).await?.ok_or_else(|| unknown(name))?;
        if known.named_by == NamedBy::Configuration {
            return Err(Failure::refused(
                "file_beats_api",
                format!("`{name}` is named at {}, and what is written there goes before the API", named_at(&known.spec)),
                format!("Take it out there; or `pointsman plugin disable {name}`, and it is not asked."),
            ));
        }
        let listed = self.listed(name).await?;
        let event = NewEvent::new("plugin.removed", Actor::host(), format!("plugin:{name}"), self.said_here(json!({"plugin": name})));
        self.kit.store.commit(Commit { deletes: vec![key(name)], events: vec![event], ..Commit::default() }).await?;
        // First nobody asks it any more, then it goes.
        self.bind(&wanted).await?;
        self.kit.plugins.unload(name);
        self.running.lock().remove(name);
        Ok(listed)
    }

    /// Changes a plugin.
    ///
    /// # Errors
    /// `not_found`, `file_beats_api`, `bad_argument`, `plugin_refused`.
    pub async fn change(&self, name: &str, change: PluginChange) -> Result<PluginListed, Failure> {
        let _turn = self.turn.lock().await;
        let wanted = self.wanted.load_full();
        let known = self.effective_of(&wanted, name).await?.ok_or_else(|| unknown(name))?;
        match change {
            PluginChange::Enable => self.enable(&wanted, known).await?,
            PluginChange::Disable => {
                not_written(&known.spec, "mode")?;
                let data = json!({"plugin": name, "mode": Mode::Off});
                self.change_record(name, "plugin.disabled", data, |record| record.mode = Some(Mode::Off)).await?;
            }
            PluginChange::Pin { digest } => {
                let digest = self.digest_of(&known, digest.as_deref())?;
                self.hold(&wanted, known, Some(digest)).await?;
            }
            PluginChange::Unpin => self.hold(&wanted, known, None).await?,
            PluginChange::Rollback => {
                let present = self.loaded_digest(name).unwrap_or_default();
                let before = known.record.before(&present).map(|past| past.version.digest.clone());
                let before = before.ok_or_else(|| {
                    let why = format!("nothing was loaded as `{name}` before what is loaded now");
                    Failure::refused("no_earlier_version", why, format!("`pointsman plugin list --json` shows the history of `{name}`."))
                })?;
                self.hold(&wanted, known, Some(before)).await?;
            }
            PluginChange::Grants { grant, revoke } => self.grants(&wanted, known, &grant, &revoke).await?,
            PluginChange::Promote { heard_min, different_max } => {
                let promoted = self.promote(&wanted, known, heard_min, different_max).await?;
                self.bind(&wanted).await?;
                return self.listed(&promoted).await;
            }
            PluginChange::Reload => {
                let again = self.again(&wanted, &known, Anew::Always).await?;
                again.map_err(|refused| not_loaded(name, &refused))?;
            }
        }
        self.bind(&wanted).await?;
        self.listed(name).await
    }

    pub(super) fn loaded_digest(&self, name: &str) -> Option<String> {
        self.running.lock().get(name).and_then(|running| Some(running.loaded.as_ref()?.digest.clone()))
    }

    async fn enable(&self, wanted: &Wanted, mut known: Effective) -> Result<(), Failure> {
        let name = known.spec.name.clone();
        if known.spec.mode != Mode::Live {
            not_written(&known.spec, "mode")?;
        }
        known.spec.mode = Mode::Live;
        self.must_bring(wanted, &known).await?;
        let data = json!({"plugin": name, "mode": Mode::Live});
        let is_written = known.spec.written.contains_key("mode");
        let enabled = |record: &mut PluginRecord| {
            record.quarantine = None;
            if !is_written {
                record.mode = Some(Mode::Live);
            }
        };
        self.change_record(&name, "plugin.enabled", data, enabled).await
    }

    /// Loads what is wanted, or says why not.
    async fn must_bring(&self, wanted: &Wanted, known: &Effective) -> Result<(), Failure> {
        let brought = self.bring(wanted, known, known.record.pinned.as_deref()).await?;
        brought.map_err(|refused| not_loaded(&known.spec.name, &refused))
    }

    async fn hold(&self, wanted: &Wanted, mut known: Effective, digest: Option<String>) -> Result<(), Failure> {
        let name = known.spec.name.clone();
        not_written(&known.spec, "digest")?;
        known.record.pinned.clone_from(&digest);
        if known.spec.mode != Mode::Off {
            self.must_bring(wanted, &known).await?;
        }
        let (kind, data) = match &digest {
            Some(digest) => ("plugin.pinned", json!({"plugin": name, "digest": digest})),
            None => ("plugin.unpinned", json!({"plugin": name})),
        };
        self.change_record(&name, kind, data, |record| record.pinned.clone_from(&digest)).await
    }

    /// Holds whom a shadow shadows at the shadow's component. Returns its name.
    async fn promote(&self, wanted: &Wanted, shadow: Effective, heard_min: u64, different_max: u64) -> Result<String, Failure> {
        let name = shadow.spec.name.clone();
        let health = self.governor.as_ref().and_then(|governor| governor.health().remove(&name));
        let (Some(report), Some(digest)) = (health.and_then(|health| health.shadow), self.loaded_digest(&name)) else {
            return Err(bad(
                format!("`{name}` is no shadow that is loaded"),
                "Only what was heard beside another is promoted: `mode = \"shadow\"` and `shadow_of`, or `plugin add --shadow-of NAME`.",
            ));
        };
        if report.calls < heard_min || report.different > different_max || report.failed > 0 {
            return Err(Failure::refused_with(
                "not_proven",
                format!(
                    "`{name}` heard {} calls beside `{}` since it was loaded: {} answers were others, {} calls failed",
                    report.calls, report.of, report.different, report.failed
                ),
                format!(
                    "At least {heard_min} calls, at most {different_max} other answers and no failure are asked for; \
                     `pointsman plugin diff {name}` shows the differences."
                ),
                json!({"heard": report.calls, "different": report.different, "failed": report.failed}),
            ));
        }
        let live = self.effective_of(wanted, &report.of).await?.ok_or_else(|| unknown(&report.of))?;
        if live.spec.config_json != shadow.spec.config_json {
            return Err(bad(
                format!("the configuration of `{name}` is not that of `{}`, with which it would go on", report.of),
                format!("Give both the same, so that what was compared is what is promoted; or bind `{name}` itself."),
            ));
        }
        if self.components.kept(&digest).await.is_none() {
            let unreadable =
                |error: ComponentError| bad(format!("the component of `{name}` cannot be kept: {error}"), "See the data folder.");
            let read = self.components.read(&name, &shadow.spec.origin).await.map_err(unreadable)?;
            self.components.keep(read.component).await.map_err(unreadable)?;
        }
        self.hold(wanted, live, Some(digest)).await?;
        Ok(report.of)
    }

    /// Returns the digest that is meant: what is loaded, or one of the history by how it begins.
    fn digest_of(&self, known: &Effective, asked: Option<&str>) -> Result<String, Failure> {
        let name = &known.spec.name;
        let Some(asked) = asked else {
            return self.loaded_digest(name).ok_or_else(|| {
                bad(
                    format!("`{name}` is not loaded, so it has no digest to be held at"),
                    format!("Name one: `pointsman plugin pin {name} DIGEST`."),
                )
            });
        };
        if is_digest(asked) {
            return Ok(asked.to_owned());
        }
        let is_hex = asked.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let found: Vec<&str> = known.record.beginning(asked).collect();
        match found.as_slice() {
            [one] if is_hex && asked.len() >= DIGEST_CHARS_MIN => Ok((*one).to_owned()),
            _ => Err(bad(
                format!("`{}` names no one component that was loaded as `{name}`", asked.chars().take(DIGEST_CHARS).collect::<String>()),
                format!("Give {DIGEST_CHARS_MIN} digits or more of a digest that `pointsman plugin list --json` shows under `history`."),
            )),
        }
    }

    async fn grants(&self, wanted: &Wanted, mut known: Effective, grant: &[String], revoke: &[String]) -> Result<(), Failure> {
        let name = known.spec.name.clone();
        known_capabilities(grant.iter().chain(revoke))?;
        if grant.is_empty() && revoke.is_empty() {
            return Ok(());
        }
        not_written(&known.spec, "capabilities")?;
        let mut granted = known.spec.capabilities.clone();
        granted.extend(grant.iter().filter(|one| !known.spec.capabilities.contains(one)).cloned());
        granted.retain(|one| !revoke.contains(one));
        granted.dedup();
        known.spec.capabilities.clone_from(&granted);
        if known.spec.mode != Mode::Off {
            let brought = self.bring(wanted, &known, known.record.pinned.as_deref()).await?;
            brought.map_err(|refused| {
                let advice = format!("{} To take away what it asks for, first `pointsman plugin disable {name}`.", refused.advice);
                not_loaded(&name, &Refused { advice, ..refused })
            })?;
        }
        let data = json!({"plugin": name, "granted": granted});
        self.change_record(&name, "plugin.granted", data, |record| record.grants = Some(granted.clone())).await
    }

    /// Reads a plugin's source again. A refusal is noted, and the one that was loaded goes on.
    pub(super) async fn again(&self, wanted: &Wanted, known: &Effective, anew: Anew) -> Result<Result<(), Refused>, Failure> {
        let name = known.spec.name.as_str();
        if known.spec.mode == Mode::Off || (anew == Anew::WhenChanged && self.is_as_wanted(wanted, known).await) {
            return Ok(Ok(()));
        }
        let Err(refused) = self.bring(wanted, known, known.record.pinned.as_deref()).await? else { return Ok(Ok(())) };
        tracing::error!(
            plugin = name,
            why = refused.why,
            digest = refused.digest,
            "a new component is refused; the one that is loaded goes on"
        );
        let was_last_good = self.running.lock().get(name).is_some_and(|running| running.is_last_good);
        self.note_trouble(name, &refused, if was_last_good { LastGood::Yes } else { LastGood::No }).await?;
        Ok(Err(refused))
    }

    /// Looks at a plugin's source again, because its file changed.
    ///
    /// # Errors
    /// [`Failure`]; that the component is refused is no error: it is noted.
    pub async fn source_changed(&self, name: &str) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let wanted = self.wanted.load_full();
        let Some(known) = self.effective_of(&wanted, name).await? else { return Ok(()) };
        // Whoever is interested finds the reason in the list; it was logged.
        let _ = self.again(&wanted, &known, Anew::WhenChanged).await?;
        self.bind(&wanted).await
    }

    /// Returns whether the very component that is wanted is loaded, and may be.
    async fn is_as_wanted(&self, wanted: &Wanted, known: &Effective) -> bool {
        let held = known.record.pinned.as_deref();
        let Ok(candidate) = self.candidate(&known.spec, &known.record, held).await else { return false };
        let is_loaded = self.running.lock().get(&known.spec.name).is_some_and(|running| {
            running.trouble.is_none() && running.loaded.as_ref().is_some_and(|loaded| loaded.digest == candidate.digest)
        });
        is_loaded && self.admit(wanted, &known.spec, &candidate, known.named_by == NamedBy::Api).is_ok()
    }

    /// Reads the configuration again, and takes in what changed of the plugins and where they are asked.
    ///
    /// # Errors
    /// `bad_configuration`: all stays as it was.
    pub async fn reread(&self) -> Result<Vec<PluginListed>, Failure> {
        let Some(reread) = self.reread.clone() else { return self.list().await };
        let _turn = self.turn.lock().await;
        let before = self.wanted.load_full();
        let new = match reread() {
            Ok(new) => Arc::new(new),
            Err(why) => return Err(self.stays(why)),
        };
        self.take_in(&before, &new).await?;
        tracing::info!("the configuration was read again");
        self.list().await
    }

    /// Brings what is loaded in step with what is wanted now.
    async fn take_in(&self, before: &Wanted, new: &Arc<Wanted>) -> Result<(), Failure> {
        let all = self.effective(new).await?;
        // What is not loaded at all comes first: when it cannot be, its place must not be bound either.
        let is_loaded = |known: &Effective| self.loaded_digest(&known.spec.name).is_some();
        for known in all.iter().filter(|known| known.spec.mode != Mode::Off && !is_loaded(known)) {
            if let Err(refused) = self.bring(new, known, known.record.pinned.as_deref()).await? {
                self.note_trouble(&known.spec.name, &refused, LastGood::No).await?;
                if known.named_by == NamedBy::Configuration {
                    return Err(self.stays(format!("plugin `{}`: {}\n  {}", known.spec.name, refused.why, refused.advice)));
                }
            }
        }
        for known in all.iter().filter(|known| is_loaded(known)) {
            let changed = before.spec(&known.spec.name) != new.spec(&known.spec.name);
            let _ = self.again(new, known, if changed { Anew::Always } else { Anew::WhenChanged }).await?;
        }
        *self.refused.lock() = None;
        self.wanted.store(Arc::clone(new));
        self.bind(new).await?;
        self.let_go(&all);
        Ok(())
    }

    /// Unloads what is none of these any more.
    pub(super) fn let_go(&self, all: &[Effective]) {
        let gone: Vec<String> =
            self.running.lock().keys().filter(|name| !all.iter().any(|known| known.spec.name == **name)).cloned().collect();
        for name in gone {
            self.kit.plugins.unload(&name);
            self.running.lock().remove(&name);
        }
    }

    /// Notes that the configuration cannot be taken in.
    fn stays(&self, why: String) -> Failure {
        tracing::error!(why, "the configuration is not taken in; all stays as it was");
        *self.refused.lock() = Some(trouble(&why, None, self.kit.now()));
        Failure::refused("bad_configuration", why, "Correct it; the host looks again by itself when the file changes.")
    }

    /// Takes a plugin out of use until an operator enables it again: what keeps failing in a way that restarting does not mend.
    ///
    /// # Errors
    /// [`Failure`]; `not_found`.
    pub async fn quarantine(&self, name: &str, reason: &str) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let wanted = self.wanted.load_full();
        self.effective_of(&wanted, name).await?.ok_or_else(|| unknown(name))?;
        let digest = self.loaded_digest(name);
        tracing::error!(plugin = name, reason, digest, "a plugin is in quarantine until an operator enables it");
        let quarantine = trouble(reason, digest.as_deref(), self.kit.now());
        let data = json!({"plugin": name, "why": reason, "digest": digest});
        self.change_record(name, "plugin.quarantined", data, |record| record.quarantine = Some(quarantine.clone())).await?;
        self.bind(&wanted).await
    }
}

fn known_capabilities<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Failure> {
    for name in names {
        if !CAPABILITIES.contains(&name.as_str()) {
            let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
            return Err(bad(format!("there is no capability `{shown}`"), format!("There are: {}.", CAPABILITIES.join(", "))));
        }
    }
    Ok(())
}

fn check_added(spec: &PluginSpec, add: &PluginAdd) -> Result<(), Failure> {
    let fits = (1..=NAME_CHARS_MAX).contains(&add.name.len())
        && add.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
        && add.name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !fits {
        let advice = "1 to 64 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit.";
        return Err(bad("that is no name for a plugin", advice));
    }
    if spec.digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
        return Err(bad(
            "`digest` is no digest",
            format!("It is BLAKE3 of the component: {DIGEST_CHARS} hex digits; `b3sum FILE` prints it."),
        ));
    }
    match &spec.origin {
        ComponentOrigin::Url(_) if spec.digest.is_none() => {
            return Err(bad(
                "a component from a URL needs the digest it must have",
                "Add `--digest` with its BLAKE3: what comes later from there is not taken unseen.",
            ));
        }
        ComponentOrigin::File(path) if !path.is_absolute() => {
            return Err(bad(format!("`{}` is not absolute", path.display()), "Give the whole path: the host's folder is not yours."));
        }
        ComponentOrigin::Url(_) | ComponentOrigin::File(_) | ComponentOrigin::Embedded => {}
    }
    if spec.share_permille > PERMILLE {
        return Err(bad(format!("`share_permille` is {}", spec.share_permille), "It is of a thousand calls: 0 to 1000."));
    }
    for pattern in &add.places.patterns {
        if let Err(error) = pattern.parse::<pointsman_core::path_glob::PathGlob>() {
            return Err(bad(format!("`{pattern}` is no glob: {error}"), "Write it relative to the root, such as `src/**`."));
        }
    }
    known_capabilities(add.capabilities.iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_key_of_the_file_is_refused_by_its_place() {
        let written = BTreeMap::from([("mode".to_owned(), "config/pointsman.toml:7".to_owned())]);
        let spec = PluginSpec { written, ..PluginSpec::new("mine", World::Router, ComponentOrigin::Embedded) };
        let Err(Failure::Refused(refusal)) = not_written(&spec, "mode") else { panic!("it was let through") };
        assert_eq!(refusal.code, "file_beats_api");
        assert!(refusal.why.contains("`plugins.mine.mode` is written at config/pointsman.toml:7"), "{}", refusal.why);
        assert!(not_written(&spec, "digest").is_ok());
    }
}
