//! `plugin diff`: where a shadow answered otherwise than whom it shadows.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{SettingsArgs, Trouble, block_on, brief, print_json, surface};
use crate::config::{Config, Environment};
use crate::ports::health::ShadowReport;

/// Differences that are printed where no number is named.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// The shadow
    name: String,
    /// Differences to print, the newest first; the host keeps a hundred
    #[arg(long, value_name = "N", default_value_t = SHOWN)]
    show: usize,
    /// Print one JSON object, with all of them
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Returns what came of a shadow, in words.
pub(super) fn summary(name: &str, report: &ShadowReport) -> String {
    let ShadowReport { of, calls, same, different, failed } = report;
    format!("{name} heard {calls} calls beside {of} since it was loaded: {same} the same, {different} different, {failed} failed")
}

pub(super) fn run(environment: &Environment, args: &DiffArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let name = args.name.as_str();
    let (health, differences) = block_on(async {
        let (surface, _) = surface(&config).await?;
        // Whoever does not exist is told from whoever is no shadow.
        surface.plugin(name).await?;
        Ok::<_, Trouble>((surface.plugin_health().await?.remove(name), surface.plugin_differences(name).await?))
    })??;
    let Some(report) = health.and_then(|health| health.shadow) else {
        return Err(Trouble::misused(
            format!("`{name}` is not heard beside another plugin, or no host runs"),
            "`pointsman plugin add NAME SOURCE --shadow-of OTHER` adds a shadow, as does `mode = \"shadow\"` in its table",
        ));
    };
    if args.json {
        print_json(&json!({"report": report, "differences": differences}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", summary(name, &report))?;
    for difference in differences.iter().take(args.show) {
        writeln!(out, "\nasked   {}", brief(&difference.question))?;
        writeln!(out, "live    {}", brief(&difference.live))?;
        writeln!(out, "shadow  {}", brief(&difference.shadow))?;
    }
    if differences.len() > args.show {
        writeln!(out, "\n{} more; --show prints them", differences.len() - args.show)?;
    }
    Ok(ExitCode::SUCCESS)
}
