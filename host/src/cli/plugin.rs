//! `pointsman plugin`: from nothing to a folder, from a folder to a component, and from a component to a part of a running host.

mod bench;
mod build;
mod change;
mod check;
mod decisions;
mod diff;
mod inspect;
mod list;
mod lock;
mod new;
mod reference;
mod sign;
mod subject;
mod test;
mod trace;

pub(in crate::cli) use subject::{Subject, Tried, brief};
pub(in crate::cli) use trace::object;

use std::process::ExitCode;

use clap::Subcommand;

use super::{SettingsArgs, Trouble, block_on, print_json};
use crate::app::{self, Loading};
use crate::config::{Config, Environment};
use crate::ports::admin::AdminSurface;

pub(super) use self::list::write_status;

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Write the folder of a new plugin: an example of its world, its tests, and all it needs to be built
    #[command(after_help = "Examples:\n  pointsman plugin new router least-busy\n  pointsman plugin new reconciler lists --lang python")]
    New(new::NewArgs),
    /// Build a plugin's folder into one component, checked against its world
    #[command(after_help = "Examples:\n  pointsman plugin build plugins/my-router\n  pointsman plugin build . --out target/components")]
    Build(build::BuildArgs),
    /// Build a plugin again and compare it with the component that is there
    #[command(after_help = "Example:\n  pointsman plugin verify plugins/merge-union")]
    Verify(build::BuildArgs),
    /// Print what a world asks of a plugin and gives it, from its WIT
    #[command(
        after_help = "Examples:\n  pointsman plugin reference router\n  pointsman plugin reference --out host/docs/book/src/reference"
    )]
    Reference(reference::ReferenceArgs),
    /// Check a plugin: its world, what it imports and asks for, its configuration, its cases
    #[command(after_help = "Examples:\n  pointsman plugin check .\n  pointsman plugin check dist/my-router.wasm --cases cases")]
    Check(check::CheckArgs),
    /// Run a plugin's cases
    #[command(
        after_help = "Examples:\n  pointsman plugin test .\n  pointsman plugin test . --record 50 --of routing-capability\n  pointsman plugin test merge-union --cases cases"
    )]
    Test(test::TestArgs),
    /// Measure what a plugin's calls cost
    #[command(
        after_help = "Examples:\n  pointsman plugin bench . --save baseline.json\n  pointsman plugin bench . --baseline baseline.json"
    )]
    Bench(bench::BenchArgs),
    /// Make one call
    #[command(
        after_help = "Examples:\n  pointsman plugin run . --case cases/example.toml --trace\n  pointsman plugin run routing-capability --call route --input '{\"candidates\": [{\"agent\": \"ana\", \"satisfies\": true}]}'"
    )]
    Run(trace::RunArgs),
    /// Say what a component is, without running it
    Inspect(inspect::InspectArgs),
    /// List the plugins: what they decide, where they come from, how they stand
    #[command(after_help = "Examples:\n  pointsman plugin list\n  pointsman plugin list --json | jq '.[] | select(.state != \"loaded\")'")]
    List(list::ListArgs),
    /// Add a plugin that the configuration does not name; it is asked before the shipped ones
    #[command(after_help = change::ADD_EXAMPLES)]
    Add(Box<change::AddArgs>),
    /// Take away a plugin that was added
    #[command(after_help = "Example:\n  pointsman plugin remove my-router")]
    Remove(change::NameArgs),
    /// Have a plugin asked; lifts a quarantine
    #[command(after_help = "Example:\n  pointsman plugin enable my-router")]
    Enable(change::NameArgs),
    /// Have a plugin not asked: as if it were not bound
    #[command(after_help = "Example:\n  pointsman plugin disable my-router")]
    Disable(change::NameArgs),
    /// Hold a plugin at a component, whatever its source has
    #[command(after_help = "Examples:\n  pointsman plugin pin my-router\n  pointsman plugin pin my-router 3f9a0c21")]
    Pin(change::PinArgs),
    /// Let a plugin follow its source again
    #[command(after_help = "Example:\n  pointsman plugin unpin my-router")]
    Unpin(change::NameArgs),
    /// Hold a plugin at the component that was loaded before this one
    #[command(after_help = "Example:\n  pointsman plugin rollback my-router && pointsman plugin list")]
    Rollback(change::NameArgs),
    /// Show what a plugin was asked and what it answered, as a host recorded it
    #[command(
        after_help = "Examples:\n  pointsman plugin decisions my-router --last 5\n  pointsman plugin decisions my-router --trace ID, which stands in events and log lines"
    )]
    Decisions(decisions::DecisionsArgs),
    /// Show where a shadow answered otherwise than the plugin it shadows
    #[command(after_help = "Example:\n  pointsman plugin diff my-router-next")]
    Diff(diff::DiffArgs),
    /// Hold the plugin that a shadow shadows at the shadow's component, if it heard enough and differed in little
    #[command(
        after_help = "Examples:\n  pointsman plugin promote my-router-next\n  pointsman plugin promote my-router-next --heard-min 10000 --different-max 20"
    )]
    Promote(change::PromoteArgs),
    /// Show, grant or take away what a plugin may reach
    #[command(after_help = "Examples:\n  pointsman plugin grants my-agent\n  pointsman plugin grants my-agent --grant kv --revoke http")]
    Grants(change::GrantsArgs),
    /// Read the configuration and every source again, or one plugin's source
    #[command(after_help = "Examples:\n  pointsman plugin reload\n  pointsman plugin reload my-router")]
    Reload(change::ReloadArgs),
    /// Write the digests of all plugins into plugins.lock beside the configuration: no others are loaded from then on
    #[command(after_help = "Examples:\n  pointsman plugin lock\n  pointsman plugin lock --check")]
    Lock(lock::LockArgs),
    /// Make a key that signs components
    #[command(after_help = "Example:\n  pointsman plugin keygen ~/.config/pointsman/plugins.key")]
    Keygen(sign::KeygenArgs),
    /// Sign a component, into FILE.sig beside it
    #[command(after_help = "Example:\n  pointsman plugin sign my-router.wasm --key ~/.config/pointsman/plugins.key")]
    Sign(sign::SignArgs),
}

pub(super) fn run(environment: &Environment, command: &PluginCommand) -> Result<ExitCode, Trouble> {
    match command {
        PluginCommand::New(args) => new::run(args),
        PluginCommand::Reference(args) => reference::run(args),
        PluginCommand::Check(args) => check::run(environment, args),
        PluginCommand::Test(args) => test::run(environment, args),
        PluginCommand::Bench(args) => bench::run(environment, args),
        PluginCommand::Run(args) => trace::run(environment, args),
        PluginCommand::Inspect(args) => inspect::run(args),
        PluginCommand::Build(args) => build::build(args),
        PluginCommand::Verify(args) => build::verify(args),
        PluginCommand::List(args) => list::run(environment, args),
        PluginCommand::Add(args) => change::add(environment, args),
        PluginCommand::Remove(args) => change::remove(environment, args),
        PluginCommand::Enable(args) => change::enable(environment, args),
        PluginCommand::Disable(args) => change::disable(environment, args),
        PluginCommand::Pin(args) => change::pin(environment, args),
        PluginCommand::Unpin(args) => change::unpin(environment, args),
        PluginCommand::Rollback(args) => change::rollback(environment, args),
        PluginCommand::Decisions(args) => decisions::run(environment, args),
        PluginCommand::Diff(args) => diff::run(environment, args),
        PluginCommand::Promote(args) => change::promote(environment, args),
        PluginCommand::Grants(args) => change::grants(environment, args),
        PluginCommand::Reload(args) => change::reload(environment, args),
        PluginCommand::Lock(args) => lock::run(environment, args),
        PluginCommand::Keygen(args) => sign::keygen(args),
        PluginCommand::Sign(args) => sign::sign(args),
    }
}

/// Whether a host took the change in, or it waits in the records for the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Now,
    AtTheNextStart,
}

/// Returns the operator's surface: of the host that runs on the data folder, else of the data folder itself, with no plugin loaded.
async fn surface(config: &Config) -> Result<(Box<dyn AdminSurface>, Taken), Trouble> {
    let caused = |error: app::AppError| Trouble::caused(&error);
    if let Some(running) = app::running(config).await.map_err(caused)? {
        return Ok((running, Taken::Now));
    }
    Ok((app::offline(config, Loading::None).await.map_err(caused)?, Taken::AtTheNextStart))
}
