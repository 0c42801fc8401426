//! `plugin build` and `plugin verify`: from a folder to a component.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{Trouble, print_json};
use crate::app;
use crate::plugin_build::{self, Options, Progress, Verified};

/// Where a repository of several plugins keeps their components.
const SHARED_OUT: &str = "plugins/dist";

#[derive(Debug, Args)]
pub(in crate::cli) struct BuildArgs {
    /// Folder with the plugin's Cargo.toml and plugin.toml
    dir: PathBuf,
    /// Folder to write the component and its lock entry to [default: plugins/dist where that stands, else `dist` in the plugin's folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object, and nothing of the compiler's unless it fails
    #[arg(long)]
    json: bool,
}

impl BuildArgs {
    fn options(&self) -> Options {
        let progress = if self.json { Progress::Silent } else { Progress::Stderr };
        let shared = Path::new(SHARED_OUT);
        let beside = || if shared.is_dir() { shared.to_owned() } else { self.dir.join("dist") };
        let out = self.out.clone().unwrap_or_else(beside);
        Options { progress, schema_of: Some(app::config_schema), ..Options::new(&self.dir, out) }
    }
}

pub(super) fn build(args: &BuildArgs) -> Result<ExitCode, Trouble> {
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

pub(super) fn verify(args: &BuildArgs) -> Result<ExitCode, Trouble> {
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
