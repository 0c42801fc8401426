//! `pointsman plugin`: from a folder to a component, and what is loaded.

mod reference;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::agent::write_columns;
use super::{SettingsArgs, Trouble, block_on, print_json};
use crate::app;
use crate::config::{ComponentOrigin, Config, Environment, PluginSpec};
use crate::plugin_build::{self, Options, Progress, Verified};
use crate::ports::admin::PluginListed;
use crate::ports::plugins::{Instances, World};

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Build a plugin's folder into one component, checked against its world
    #[command(after_help = "Examples:\n  pointsman plugin build plugins/my-router\n  pointsman plugin build . --out target/components")]
    Build(BuildArgs),
    /// Build a plugin again and compare it with the component that is there
    #[command(after_help = "Example:\n  pointsman plugin verify plugins/merge-union")]
    Verify(BuildArgs),
    /// List the plugins that the configuration names, and how they fare in the running host
    List(ListArgs),
    /// Print what a world asks of a plugin and gives it, from its WIT
    #[command(after_help = "Examples:\n  pointsman plugin reference router\n  pointsman plugin reference --out host/docs/book/src/reference")]
    Reference(reference::ReferenceArgs),
}

#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// Folder with the plugin's Cargo.toml and plugin.toml
    dir: PathBuf,
    /// Folder to write the component and its lock entry to
    #[arg(long, value_name = "DIR", default_value = "plugins/dist")]
    out: PathBuf,
    /// Print one JSON object, and nothing of the compiler's unless it fails
    #[arg(long)]
    json: bool,
}

impl BuildArgs {
    fn options(&self) -> Options {
        let progress = if self.json { Progress::Silent } else { Progress::Stderr };
        Options { progress, ..Options::new(&self.dir, &self.out) }
    }
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(environment: &Environment, command: &PluginCommand) -> Result<ExitCode, Trouble> {
    match command {
        PluginCommand::Build(args) => build(args),
        PluginCommand::Verify(args) => verify(args),
        PluginCommand::List(args) => list(environment, args),
        PluginCommand::Reference(args) => reference::run(args),
    }
}

fn build(args: &BuildArgs) -> Result<ExitCode, Trouble> {
    let built = plugin_build::build(&args.options()).map_err(|error| Trouble::caused(&error))?;
    let entry = &built.entry;
    if args.json {
        print_json(&serde_json::json!({
            "path": built.path,
            "name": entry.name,
            "version": entry.version,
            "world": entry.world,
            "digest": entry.digest,
            "size_bytes": entry.size_bytes,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "built {} {} for the world `{}`", entry.name, entry.version, entry.world)?;
    writeln!(out, "  {} ({} bytes)\n  blake3 {}", built.path.display(), entry.size_bytes, entry.digest)?;
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &BuildArgs) -> Result<ExitCode, Trouble> {
    let verified = plugin_build::verify(&args.options()).map_err(|error| Trouble::caused(&error))?;
    let (same_bytes, said) = match verified {
        Verified::SameBytes { digest } => (true, format!("the same bytes, blake3 {digest}")),
        Verified::OtherToolchain { locked, here, .. } => {
            (false, format!("it fits its world; the bytes cannot be compared, because it was built by {locked} and here is {here}"))
        }
    };
    if args.json {
        print_json(&serde_json::json!({"same_bytes": same_bytes, "said": said}))?;
    } else {
        writeln!(std::io::stdout(), "{said}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A plugin as it is configured and, where a host runs, as it is loaded.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    world: World,
    source: String,
    instances: Instances,
    loaded: Option<PluginListed>,
}

fn list(environment: &Environment, args: &ListArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let loaded = block_on(async {
        match app::running(&config).await.map_err(|error| Trouble::caused(&error))? {
            Some(host) => Ok(host.status().await?.plugins),
            None => Ok::<_, Trouble>(Vec::new()),
        }
    })??;
    let lines: Vec<Line> = config.plugins.iter().map(|spec| line(spec, &loaded)).collect();
    if args.json {
        print_json(&lines)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = lines.iter().map(|line| {
        let (digest, calls) = line.loaded.as_ref().map_or(("not loaded".to_owned(), String::new()), |loaded| {
            let failed = if loaded.failures > 0 { format!(", {} failed", loaded.failures) } else { String::new() };
            (loaded.digest.chars().take(12).collect(), format!("{}{failed}", loaded.calls))
        });
        let instances = if line.instances == Instances::Warm { "warm" } else { "fresh" };
        [line.name.clone(), line.world.name().to_owned(), line.source.clone(), instances.to_owned(), digest, calls]
    });
    let head = ["NAME", "DECIDES", "SOURCE", "INSTANCES", "DIGEST", "CALLS"].map(str::to_owned);
    write_columns(&mut std::io::stdout().lock(), std::iter::once(head).chain(rows))?;
    Ok(ExitCode::SUCCESS)
}

fn line(spec: &PluginSpec, loaded: &[PluginListed]) -> Line {
    Line {
        name: spec.name.clone(),
        world: spec.world,
        source: match &spec.origin {
            ComponentOrigin::Embedded => "embedded".to_owned(),
            ComponentOrigin::File(path) => path.display().to_string(),
        },
        instances: spec.instances,
        loaded: loaded.iter().find(|plugin| plugin.name == spec.name).cloned(),
    }
}
