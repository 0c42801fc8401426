//! `plugin keygen` and `plugin sign`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Trouble, print_json};
use crate::app;

#[derive(Debug, Args)]
pub(in crate::cli) struct KeygenArgs {
    /// File to write the secret key to; one that is there is never replaced
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SignArgs {
    /// The component
    file: PathBuf,
    /// Key file, as `plugin keygen` makes it
    #[arg(long, value_name = "KEYFILE")]
    key: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn keygen(args: &KeygenArgs) -> Result<ExitCode, Trouble> {
    let public = app::make_signing_key(&args.file).map_err(|error| Trouble::caused(&error))?;
    if args.json {
        print_json(&serde_json::json!({"file": args.file, "public": public}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "the secret key is in {}; keep it off the host\n", args.file.display())?;
    writeln!(out, "[plugin_trust]\nrequired = true\nkeys = [\"{public}\"]")?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn sign(args: &SignArgs) -> Result<ExitCode, Trouble> {
    let (file, signature) = app::sign_component(&args.file, &args.key).map_err(|error| Trouble::caused(&error))?;
    if args.json {
        print_json(&serde_json::json!({"file": file, "signature": signature}))?;
    } else {
        writeln!(std::io::stdout(), "signed into {}", file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
