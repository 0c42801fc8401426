//! `pointsman plugin inspect`: what a component is, without running it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::subject::Subject;
use crate::cli::{Trouble, print_json};
use crate::plugin_build::Progress;
use crate::plugin_build::component;

#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// A plugin's folder (built first), a component's file, or the name of a shipped plugin
    #[arg(default_value = ".", value_name = "PLUGIN")]
    plugin: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &InspectArgs) -> Result<ExitCode, Trouble> {
    let subject = Subject::open(&args.plugin, if args.json { Progress::Silent } else { Progress::Stderr })?;
    let (manifest, bytes) = (&subject.manifest, subject.component.as_ref());
    let anatomy = component::anatomy(bytes).map_err(Trouble::failed)?;
    let digest = crate::plugin_build::digest(bytes);
    if args.json {
        print_json(&json!({
            "name": manifest.name.as_str(),
            "version": manifest.version.to_string(),
            "world": manifest.world,
            "description": manifest.description,
            "capabilities": manifest.capabilities,
            "config": manifest.config,
            "digest": digest,
            "size_bytes": bytes.len(),
            "imports": anatomy.imports,
            "exports": anatomy.exports,
            "sections": anatomy.sections,
            "modules": anatomy.modules,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} {} for the world `{}`", manifest.name, manifest.version, manifest.world)?;
    writeln!(out, "  {}", manifest.description)?;
    writeln!(out, "blake3        {digest}")?;
    writeln!(out, "size          {} bytes, {} modules", bytes.len(), anatomy.modules)?;
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    writeln!(out, "asks for      {}", list(&manifest.capabilities))?;
    writeln!(out, "imports       {}", list(&anatomy.imports))?;
    writeln!(out, "exports       {}", list(&anatomy.exports))?;
    writeln!(out, "sections      {}", list(&anatomy.sections))?;
    writeln!(out, "config        {}", manifest.config_json())?;
    Ok(ExitCode::SUCCESS)
}
