//! `pointsman plugin reference`: what a world asks of a plugin and gives it, in the words of its WIT.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::{Trouble, write_atomically};
use crate::plugin_build::reference;
use crate::ports::plugins::World;

#[derive(Debug, Args)]
pub(in crate::cli) struct ReferenceArgs {
    /// Which world [default: all]
    #[arg(value_name = "WORLD", value_parser = world)]
    world: Option<World>,
    /// Write WORLD.md into this folder instead of printing it
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn world(text: &str) -> Result<World, String> {
    text.parse().map_err(|why: String| format!("{why}; there are {}", World::ALL.map(World::name).join(", ")))
}

pub(super) fn run(args: &ReferenceArgs) -> Result<ExitCode, Trouble> {
    let worlds = args.world.map_or_else(|| World::ALL.to_vec(), |world| vec![world]);
    for world in worlds {
        let text = reference::markdown(world).map_err(|error| Trouble::caused(&error))?;
        match &args.out {
            Some(folder) => write_atomically(&folder.join(reference::file_name(world)), &text)?,
            None => write!(std::io::stdout(), "{text}")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
