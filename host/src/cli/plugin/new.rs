//! `pointsman plugin new`: the folder of a new plugin.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::Trouble;
use crate::plugin_build::manifest::{Lang, PluginName};
use crate::plugin_build::scaffold::{NewPlugin, ScaffoldError, scaffold};
use crate::ports::plugins::World;

#[derive(Debug, Args)]
pub(in crate::cli) struct NewArgs {
    /// What it decides: router, merger, reconciler, workflow, policy, agent or mcp-provider
    world: String,
    /// Its name: small letters, digits and dashes
    name: String,
    /// What it is written in: rust, js or python
    #[arg(long, value_name = "LANG", default_value = "rust")]
    lang: String,
    /// Its folder [default: its name]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &NewArgs) -> Result<ExitCode, Trouble> {
    let worlds = World::ALL.map(World::name).join(", ");
    let world: World = args.world.parse().map_err(|why: String| Trouble::misused(why, &format!("there are {worlds}")))?;
    let name = PluginName::try_from(args.name.clone()).map_err(|why| Trouble::misused(why, "such as `least-busy`"))?;
    let lang = [Lang::Rust, Lang::Js, Lang::Python].into_iter().find(|lang| lang.name() == args.lang);
    let lang = lang.ok_or_else(|| Trouble::misused(format!("there is no language {:?}", args.lang), "there are rust, js and python"))?;
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(name.as_str()));
    let new = NewPlugin { world, name, lang, dir };
    let files = scaffold(&new).map_err(|error| match error {
        ScaffoldError::NotEmpty { .. } | ScaffoldError::NoExample { .. } => Trouble::Misused(format!("error: {error}")),
        ScaffoldError::Write { .. } => Trouble::caused(&error),
    })?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} is a {} in {}:", new.dir.display(), new.world, new.lang)?;
    for file in files {
        writeln!(out, "  {file}")?;
    }
    writeln!(out, "next:\n  pointsman plugin build {}\n{}/README.md tells the rest", new.dir.display(), new.dir.display())?;
    Ok(ExitCode::SUCCESS)
}
