//! What changes the plugins of a host: add, remove, enable, disable, pin, unpin, rollback, grants, promote, reload.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value};

use super::{SettingsArgs, Taken, Trouble, block_on, print_json, surface};
use crate::config::{Config, Environment};
use crate::ports::plugins::World;
use crate::ports::registry::{Mode, PERMILLE, PROMOTE_HEARD_MIN, Places, PluginAdd, PluginChange, PluginListed, is_url};

pub(super) const ADD_EXAMPLES: &str = "\
Examples:
  pointsman plugin add my-router my-router.wasm
  pointsman plugin add my-rules embedded --world router --plugin-config '{\"rules\": []}' --project web
  pointsman plugin add my-policy https://example.com/my-policy.wasm --digest 3f9a…
  pointsman plugin add my-router my-router.wasm --shadow-of routing-capability --share 0.1";

#[derive(Debug, Args)]
pub(in crate::cli) struct AddArgs {
    /// Its name
    name: String,
    /// Path or URL of its component, or `embedded`
    source: String,
    /// World it is used for: router, merger, reconciler, workflow, policy, agent, mcp-provider [default: its own]
    #[arg(long, value_parser = world)]
    world: Option<World>,
    /// Its own configuration (`--config` names the host's)
    #[arg(long, value_name = "JSON|@FILE", value_parser = object)]
    plugin_config: Option<Map<String, Value>>,
    /// BLAKE3 the component must have; a URL needs it
    #[arg(long)]
    digest: Option<String>,
    /// The component's signature, where no FILE.sig has it
    #[arg(long)]
    signature: Option<String>,
    /// What it may reach: lookups, kv, log, http; repeat it for more
    #[arg(long, value_name = "CAPABILITY")]
    grant: Vec<String>,
    /// Project it is asked in; repeat it for more [default: all]
    #[arg(long, value_name = "SLUG")]
    project: Vec<String>,
    /// Kind of messages or tasks it is asked for; repeat it for more [default: all]
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Paths or keys it is asked for, for mergers and reconcilers; repeat it for more [default: all]
    #[arg(long, value_name = "GLOB")]
    path: Vec<String>,
    /// Asked beside this plugin, deciding nothing
    #[arg(long, value_name = "NAME", conflicts_with = "disabled")]
    shadow_of: Option<String>,
    /// Share of the calls it is asked beside that plugin, 0 to 1
    #[arg(long, value_name = "SHARE", requires = "shadow_of", value_parser = permille)]
    share: Option<u16>,
    /// Add it switched off
    #[arg(long)]
    disabled: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct NameArgs {
    /// Which
    name: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PinArgs {
    #[command(flatten)]
    which: NameArgs,
    /// Digest, or the beginning of one that was loaded [default: the one that is loaded]
    digest: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct GrantsArgs {
    #[command(flatten)]
    which: NameArgs,
    /// Capability to grant; repeat it for more
    #[arg(long, value_name = "CAPABILITY")]
    grant: Vec<String>,
    /// Capability to take away; repeat it for more
    #[arg(long, value_name = "CAPABILITY")]
    revoke: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PromoteArgs {
    #[command(flatten)]
    which: NameArgs,
    /// Calls it must have heard since it was loaded
    #[arg(long, value_name = "N", default_value_t = PROMOTE_HEARD_MIN)]
    heard_min: u64,
    /// Answers of these that may be others; a failure of its own never may
    #[arg(long, value_name = "N", default_value_t = 0)]
    different_max: u64,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReloadArgs {
    /// Which [default: the configuration and all of them]
    name: Option<String>,
    /// Print one JSON object, or array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

fn world(text: &str) -> Result<World, String> {
    let known = World::ALL.map(World::name).join(", ");
    text.parse().map_err(|why: String| format!("{why}; there are {known}"))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    let read = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
        None => text.to_owned(),
    };
    serde_json::from_str(&read).map_err(|error| format!("expected a JSON object, or @FILE with one: {error}"))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1000")]
fn permille(text: &str) -> Result<u16, String> {
    let share: f64 = text.parse().map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok((share * f64::from(PERMILLE)).round() as u16) } else { Err("expected 0 to 1".to_owned()) }
}

/// Returns a source as the host can read it: paths from the root on.
fn source(environment: &Environment, text: &str) -> Result<String, Trouble> {
    if text == "embedded" || is_url(text) {
        return Ok(text.to_owned());
    }
    let path: PathBuf = environment.folder().join(Path::new(text));
    match path.canonicalize() {
        Ok(path) if path.is_file() => Ok(path.to_string_lossy().into_owned()),
        Ok(_) => Err(Trouble::misused(format!("{text} is no file"), "Name a component, such as `pointsman plugin build` makes.")),
        Err(error) => Err(Trouble::misused(format!("{text}: {error}"), "Name a component's file, its URL, or `embedded`.")),
    }
}

pub(super) fn add(environment: &Environment, args: &AddArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let add = PluginAdd {
        name: args.name.clone(),
        source: source(environment, &args.source)?,
        world: args.world,
        config: args.plugin_config.clone().unwrap_or_default(),
        digest: args.digest.clone(),
        signature: args.signature.clone(),
        capabilities: args.grant.clone(),
        mode: match (&args.shadow_of, args.disabled) {
            (Some(_), _) => Mode::Shadow,
            (None, true) => Mode::Off,
            (None, false) => Mode::Live,
        },
        shadow_of: args.shadow_of.clone(),
        share_permille: args.share,
        places: Places { projects: args.project.clone(), kinds: args.kind.clone(), patterns: args.path.clone() },
    };
    let (added, taken) = block_on(async {
        let (surface, taken) = surface(&config).await?;
        Ok::<_, Trouble>((surface.plugin_add(add).await?, taken))
    })??;
    say(args.json, &added, "added", taken)
}

pub(super) fn remove(environment: &Environment, args: &NameArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let (removed, taken) = block_on(async {
        let (surface, taken) = surface(&config).await?;
        Ok::<_, Trouble>((surface.plugin_remove(&args.name).await?, taken))
    })??;
    if args.json {
        print_json(&removed)?;
    } else {
        writeln!(std::io::stdout(), "removed {}{}", removed.name, when(&removed, taken))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn change(environment: &Environment, args: &NameArgs, change: PluginChange, word: &str) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let (changed, taken) = block_on(async {
        let (surface, taken) = surface(&config).await?;
        Ok::<_, Trouble>((surface.plugin_change(&args.name, change).await?, taken))
    })??;
    say(args.json, &changed, word, taken)
}

pub(super) fn enable(environment: &Environment, args: &NameArgs) -> Result<ExitCode, Trouble> {
    change(environment, args, PluginChange::Enable, "enabled")
}

pub(super) fn disable(environment: &Environment, args: &NameArgs) -> Result<ExitCode, Trouble> {
    change(environment, args, PluginChange::Disable, "disabled")
}

pub(super) fn pin(environment: &Environment, args: &PinArgs) -> Result<ExitCode, Trouble> {
    change(environment, &args.which, PluginChange::Pin { digest: args.digest.clone() }, "pinned")
}

pub(super) fn unpin(environment: &Environment, args: &NameArgs) -> Result<ExitCode, Trouble> {
    change(environment, args, PluginChange::Unpin, "unpinned")
}

pub(super) fn rollback(environment: &Environment, args: &NameArgs) -> Result<ExitCode, Trouble> {
    change(environment, args, PluginChange::Rollback, "rolled back")
}

pub(super) fn promote(environment: &Environment, args: &PromoteArgs) -> Result<ExitCode, Trouble> {
    let (heard_min, different_max) = (args.heard_min, args.different_max);
    change(environment, &args.which, PluginChange::Promote { heard_min, different_max }, "promoted to")
}

pub(super) fn grants(environment: &Environment, args: &GrantsArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.which.settings.flags())?;
    let (grant, revoke) = (args.grant.clone(), args.revoke.clone());
    let plugin = block_on(async {
        let (surface, _) = surface(&config).await?;
        let asked = surface.plugin_change(&args.which.name, PluginChange::Grants { grant, revoke }).await?;
        Ok::<_, Trouble>(asked)
    })??;
    if args.which.json {
        print_json(&serde_json::json!({"name": plugin.name, "asked": plugin.asked, "granted": plugin.granted}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} asks for  {}", plugin.name, list(&plugin.asked))?;
    writeln!(out, "{} is granted {}", plugin.name, list(&plugin.granted))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn reload(environment: &Environment, args: &ReloadArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let (plugins, taken) = block_on(async {
        let (surface, taken) = surface(&config).await?;
        if taken == Taken::AtTheNextStart {
            let folder = config.data_dir.display();
            return Err(Trouble::Failed(format!("error: no host runs on {folder}\n  At its start it reads everything anyway.")));
        }
        match &args.name {
            Some(name) => Ok((vec![surface.plugin_change(name, PluginChange::Reload).await?], taken)),
            None => Ok((surface.reload().await?, taken)),
        }
    })??;
    if args.name.is_some()
        && let [one] = plugins.as_slice()
    {
        return say(args.json, one, "reloaded", taken);
    }
    if args.json {
        print_json(&plugins)?;
    } else {
        let failed: Vec<&PluginListed> = plugins.iter().filter(|plugin| plugin.last_error.is_some()).collect();
        let mut out = std::io::stdout().lock();
        writeln!(out, "read again: {} plugins, {} refused", plugins.len(), failed.len())?;
        for plugin in failed {
            writeln!(out, "  {}: {}", plugin.name, plugin.last_error.as_ref().map_or("", |error| error.why.as_str()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns when a change takes effect, where that is not now.
fn when(plugin: &PluginListed, taken: Taken) -> &'static str {
    match (taken, plugin.world) {
        (Taken::AtTheNextStart, _) => "; no host runs now: it takes effect at its start",
        (Taken::Now, World::Agent | World::McpProvider) => "; agents and providers move in and out at the host's next start",
        (Taken::Now, _) => "",
    }
}

fn say(json: bool, plugin: &PluginListed, word: &str, taken: Taken) -> Result<ExitCode, Trouble> {
    if json {
        print_json(plugin)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} {}, a plugin of the world `{}`{}", plugin.name, plugin.world, when(plugin, taken))?;
    if let Some(digest) = &plugin.digest {
        let version = plugin.version.as_deref().unwrap_or("without a version");
        writeln!(out, "  {version}, blake3 {digest}, {}", plugin.state.name())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_objects_are_read() {
        assert_eq!(permille("0.25"), Ok(250));
        assert!(permille("1.5").is_err() && permille("x").is_err());
        assert!(object("{\"a\": 1}").is_ok_and(|map| map.len() == 1));
        assert!(object("[1]").is_err() && object("@/nowhere/at/all").is_err());
        assert!(world("ruter").expect_err("none").contains("router"));
    }
}
