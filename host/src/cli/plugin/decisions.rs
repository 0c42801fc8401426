//! `plugin decisions`: what a plugin was asked and what it answered, as a host recorded it; all of it, for one call.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{SettingsArgs, Trouble, block_on, brief, print_json, surface};
use crate::config::{Config, Environment};
use crate::plugin_cases::with_names;
use crate::ports::admin::{AdminSurface, DecisionQuery};
use crate::ports::decision::Recorded;
use crate::service::decisions::LISTED_MAX;

/// Decisions that are listed where no number is named.
const LISTED: usize = 20;
/// Digits of a digest that are shown.
const DIGEST_SHOWN: usize = 12;

#[derive(Debug, Args)]
pub(in crate::cli) struct DecisionsArgs {
    /// The binding
    name: String,
    /// How many, the newest of all that are recorded
    #[arg(long, value_name = "N", default_value_t = LISTED)]
    last: usize,
    /// Show all of those that the call with this id caused: `trace` of events and log lines
    #[arg(long, value_name = "ID", conflicts_with = "last")]
    trace: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(environment: &Environment, args: &DecisionsArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let decisions = block_on(async {
        let (surface, _) = surface(&config).await?;
        match &args.trace {
            Some(trace) => caused_by(surface.as_ref(), &args.name, trace).await,
            None => {
                let query = DecisionQuery { plugin: args.name.clone(), limit: args.last.clamp(1, LISTED_MAX), ..DecisionQuery::default() };
                Ok(surface.decisions(query).await?.decisions)
            }
        }
    })??;
    if decisions.is_empty() {
        return Err(Trouble::misused(
            match &args.trace {
                Some(trace) => format!("no decision of `{}` is recorded that the call {trace} caused", args.name),
                None => format!("no decision of `{}` is recorded", args.name),
            },
            "`pointsman plugin list` shows the bindings; `decisions.kept_max` says how many decisions of each are kept",
        ));
    }
    if args.json {
        print_json(&json!({"decisions": decisions}))?;
    } else if args.trace.is_some() {
        for one in &decisions {
            show(one)?;
        }
    } else {
        list(&decisions)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads all records, and returns those that one call caused.
async fn caused_by(surface: &dyn AdminSurface, plugin: &str, trace: &str) -> Result<Vec<Recorded>, Trouble> {
    // From the first millisecond on: without a time, only the newest are listed.
    let mut query = DecisionQuery { plugin: plugin.to_owned(), since_ms: 1, after: None, limit: LISTED_MAX };
    let mut found = Vec::new();
    loop {
        let page = surface.decisions(query.clone()).await?;
        found.extend(page.decisions.into_iter().filter(|one| one.trace.as_deref() == Some(trace)));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(found),
        }
    }
}

fn list(decisions: &[Recorded]) -> Result<(), Trouble> {
    let head = ["AT", "CALL", "TOOK", "TRACE", "ANSWER"].map(str::to_owned);
    let rows = decisions.iter().map(|one| {
        [
            one.at.to_rfc3339(),
            one.question["call"].as_str().unwrap_or_default().to_owned(),
            format!("{} us", one.took_us),
            one.trace.clone().unwrap_or_else(|| "-".to_owned()),
            brief(&with_names(&one.outcome, &one.question["input"])),
        ]
    });
    crate::cli::agent::write_columns(&mut std::io::stdout().lock(), std::iter::once(head).chain(rows))?;
    Ok(())
}

/// Shows everything that is known of one decision, in the form of `plugin run --trace`.
fn show(one: &Recorded) -> Result<(), Trouble> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "at            {}", one.at.to_rfc3339())?;
    writeln!(out, "component     {}", one.digest.get(..DIGEST_SHOWN).unwrap_or(&one.digest))?;
    writeln!(out, "call          {}", one.question["call"].as_str().unwrap_or_default())?;
    writeln!(out, "input         {:#}", one.question["input"])?;
    writeln!(out, "took          {} us", one.took_us)?;
    writeln!(out, "answer        {:#}", with_names(&one.outcome, &one.question["input"]))?;
    Ok(())
}
