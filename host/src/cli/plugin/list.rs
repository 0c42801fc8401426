//! `plugin list`, and what `status` says of plugins.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::diff::summary;
use super::{SettingsArgs, Trouble, block_on, print_json, surface};
use crate::cli::agent::write_columns;
use crate::config::{Config, Environment};
use crate::ports::admin::HostStatus;
use crate::ports::registry::{Mode, PluginListed, PluginState};

/// Digits of a digest that tell components apart.
const DIGEST_SHOWN: usize = 12;

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(environment: &Environment, args: &ListArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let (plugins, health) = block_on(async {
        let (surface, _) = surface(&config).await?;
        Ok::<_, Trouble>((surface.plugin_list().await?, surface.plugin_health().await?))
    })??;
    if args.json {
        print_json(&plugins)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    let head = ["NAME", "DECIDES", "SOURCE", "MODE", "DIGEST", "VERSION", "STATE", "CALLS", "FAILED"].map(str::to_owned);
    write_columns(&mut out, std::iter::once(head).chain(plugins.iter().map(row)))?;
    let shadows = health.iter().filter_map(|(name, health)| Some(summary(name, health.shadow.as_ref()?)));
    let mut notes = plugins.iter().flat_map(notes).chain(shadows).peekable();
    if notes.peek().is_some() {
        writeln!(out)?;
    }
    for note in notes {
        writeln!(out, "{note}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn short(digest: &str) -> String {
    digest.chars().take(DIGEST_SHOWN).collect()
}

fn row(plugin: &PluginListed) -> [String; 9] {
    let mode = match (plugin.mode, &plugin.shadow_of) {
        (Mode::Shadow, Some(of)) => format!("shadow of {of}"),
        (mode, _) => mode.name().to_owned(),
    };
    let digest = plugin.digest.as_deref().map_or_else(|| "-".to_owned(), short);
    let pin = if plugin.pinned.is_some() { " (pinned)" } else { "" };
    [
        plugin.name.clone(),
        plugin.world.name().to_owned(),
        plugin.source.clone(),
        mode,
        format!("{digest}{pin}"),
        plugin.version.clone().unwrap_or_else(|| "-".to_owned()),
        plugin.state.name().to_owned(),
        plugin.calls.to_string(),
        plugin.failures.to_string(),
    ]
}

/// Returns what an operator should know of a plugin besides its row.
fn notes(plugin: &PluginListed) -> Vec<String> {
    let name = &plugin.name;
    let mut notes = Vec::new();
    if let Some(quarantine) = &plugin.quarantine {
        notes.push(format!(
            "{name}: in quarantine since {}: {}\n  `pointsman plugin enable {name}` lifts it",
            quarantine.at, quarantine.why
        ));
    }
    if let Some(error) = &plugin.last_error {
        let of = error.digest.as_deref().map(|digest| format!(" ({})", short(digest))).unwrap_or_default();
        notes.push(format!("{name}: refused at {}{of}: {}", error.at, error.why));
    }
    notes
}

/// Writes what `status` says of the plugins.
pub(in crate::cli) fn write_status(out: &mut impl Write, status: &HostStatus) -> std::io::Result<()> {
    let loaded = status.plugins.iter().filter(|plugin| plugin.digest.is_some()).count();
    writeln!(out, "plugins   {loaded} loaded")?;
    let is_odd = |plugin: &&PluginListed| !matches!(plugin.state, PluginState::Loaded | PluginState::Off) || plugin.last_error.is_some();
    for plugin in status.plugins.iter().filter(is_odd) {
        let why = plugin.quarantine.as_ref().or(plugin.last_error.as_ref()).map(|why| format!(": {}", why.why)).unwrap_or_default();
        writeln!(out, "          {} is {}{why}", plugin.name, plugin.state.name())?;
    }
    if let Some(why) = &status.configuration {
        writeln!(out, "the configuration is not taken in since {}: {}", why.at, why.why)?;
    }
    Ok(())
}
