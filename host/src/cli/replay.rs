//! `pointsman replay`: recorded decisions, put to another component; what would have been decided otherwise.
//!
//! **Invariant:** the same records and the same component give the same output, byte for byte: every question is asked of a
//! fresh instance, and no time is printed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::plugin::{Subject, Tried, brief, object};
use super::{FAILED, SettingsArgs, Trouble, admin, block_on, print_json};
use crate::config::{Config, Environment};
use crate::plugin_build::{Progress, digest};
use crate::plugin_cases::Call;
use crate::ports::admin::{AdminSurface, DecisionQuery};
use crate::ports::decision::{Question, Recorded};
use crate::ports::plugins::Instances;
use crate::service::decisions::LISTED_MAX;

/// Changes that are printed one by one unless more are asked for.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The component to ask: a plugin's folder (built first), a component's file, or the name of a shipped plugin
    #[arg(long, value_name = "PLUGIN")]
    plugin: PathBuf,
    /// The binding whose decisions are replayed [default: the plugin's own name]
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// From when on: 30m, 12h, 7d, or all
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = since)]
    since: Since,
    /// The newest N of them
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Its configuration: a JSON object, or @FILE [default: that of the binding when the names are the same, else of the manifest]
    #[arg(long, value_name = "JSON")]
    plugin_config: Option<String>,
    /// Count a decision as changed when only its words differ
    #[arg(long)]
    words: bool,
    /// Changes to print
    #[arg(long, value_name = "N", default_value_t = SHOWN)]
    show: usize,
    /// Fail when more than this share of the decisions would have been others: 0.01 is one of a hundred
    #[arg(long, value_name = "SHARE")]
    changed_max: Option<f64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// From when on.
#[derive(Debug, Clone, Copy)]
enum Since {
    All,
    AgeMs(i64),
}

fn since(text: &str) -> Result<Since, String> {
    if text == "all" {
        return Ok(Since::All);
    }
    let wrong = || format!("{text:?} is no age: write 30m, 12h, 7d or all");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: i64 = number.parse().ok().filter(|number| (1..=100_000).contains(number)).ok_or_else(wrong)?;
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    Ok(Since::AgeMs(number * unit_ms))
}

/// A decision that would have been another.
#[derive(Debug, Serialize)]
struct Change {
    at: i64,
    question: Value,
    was: Value,
    would_be: Value,
}

/// What a replay found.
#[derive(Debug, Serialize)]
struct Found {
    of: String,
    component: String,
    replayed: usize,
    same: usize,
    changed: usize,
    /// Questions of another world or form, which this component cannot be asked.
    not_asked: usize,
    /// How often what became what: `ranked -> broadcast`.
    kinds: BTreeMap<String, usize>,
    changes: Vec<Change>,
}

pub(super) fn run(environment: &Environment, args: &ReplayArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let subject = Subject::open(&args.plugin, if args.json { Progress::Silent } else { Progress::Stderr })?;
    let of = args.of.clone().unwrap_or_else(|| subject.manifest.name.to_string());
    let given = args.plugin_config.as_deref().map(|given| object("--plugin-config", given)).transpose()?;
    // Another plugin has a configuration of its own form.
    let binding = config.plugins.iter().find(|spec| spec.name == of && of == subject.manifest.name.as_str());
    let plugin_config = match (given, binding) {
        (Some(given), _) => Value::Object(given).to_string(),
        (None, Some(spec)) if spec.config_json != "{}" => spec.config_json.clone(),
        (None, _) => subject.manifest.config_json(),
    };
    let mut tried = Tried::new(environment)?;
    let found = block_on(async {
        let surface = admin(&config).await?;
        let decisions = recorded(surface.as_ref(), args, &of).await?;
        if decisions.is_empty() {
            return Err(Trouble::Failed(format!(
                "error: no decision of `{of}` is recorded since then on {}\n  name the binding with --of, or go further back with --since all",
                config.data_dir.display()
            )));
        }
        replay(&mut tried, &subject, &plugin_config, args, of, decisions).await
    })??;
    #[expect(clippy::cast_precision_loss, reason = "counts of decisions are far below 2^52")]
    let share = found.changed as f64 / found.replayed.max(1) as f64;
    if args.json {
        print_json(&found)?;
    } else {
        show(&found)?;
    }
    match args.changed_max {
        Some(max) if share > max => {
            writeln!(std::io::stderr(), "{share:.4} of the decisions would have been others; at most {max} were to be")?;
            Ok(ExitCode::from(FAILED))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Reads the records page by page.
async fn recorded(surface: &dyn AdminSurface, args: &ReplayArgs, of: &str) -> Result<Vec<Recorded>, Trouble> {
    let since_ms = match args.since {
        Since::All => 1,
        Since::AgeMs(age_ms) => crate::app::wall_clock().0.saturating_sub(age_ms).max(1),
    };
    let mut query = DecisionQuery { plugin: of.to_owned(), since_ms, after: None, limit: LISTED_MAX };
    let mut decisions = Vec::new();
    loop {
        let page = surface.decisions(query.clone()).await?;
        decisions.extend(page.decisions);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    if let Some(last) = args.last {
        decisions.drain(..decisions.len().saturating_sub(last));
    }
    Ok(decisions)
}

async fn replay(
    tried: &mut Tried,
    subject: &Subject,
    config: &str,
    args: &ReplayArgs,
    of: String,
    decisions: Vec<Recorded>,
) -> Result<Found, Trouble> {
    let name = tried.loaded(subject, config, Instances::Fresh).await.map_err(|failure| Trouble::caused(&failure))?;
    let component = digest(&subject.component);
    let mut found = Found { of, component, replayed: 0, same: 0, changed: 0, not_asked: 0, kinds: BTreeMap::new(), changes: Vec::new() };
    for recorded in decisions {
        let question = match serde_json::from_value::<Question>(recorded.question.clone()) {
            Ok(question) if question.world() == subject.manifest.world => question,
            Ok(_) | Err(_) => {
                found.not_asked += 1;
                continue;
            }
        };
        found.replayed += 1;
        let would_be = tried.bench.ask(&name, &Call::Decide(Box::new(question))).await.answer;
        if matter(&recorded.outcome, args.words) == matter(&would_be, args.words) {
            found.same += 1;
            continue;
        }
        found.changed += 1;
        *found.kinds.entry(format!("{} -> {}", kind(&recorded.outcome), kind(&would_be))).or_default() += 1;
        if found.changes.len() < args.show {
            found.changes.push(Change { at: recorded.at.0, question: recorded.question, was: recorded.outcome, would_be });
        }
    }
    Ok(found)
}

/// Returns what counts of an answer: without its words, unless they are asked for.
fn matter(answer: &Value, words: bool) -> Value {
    let mut answer = answer.clone();
    if !words && let Some(fields) = answer.as_object_mut() {
        for name in ["reason", "why", "advice"] {
            fields.remove(name);
        }
    }
    answer
}

/// Returns what sort of answer it is, in a word.
fn kind(answer: &Value) -> String {
    let names = ["failure", "decision", "outcome", "verdict"];
    let word = names.iter().find_map(|name| answer[*name].as_str());
    word.map_or_else(|| answer.as_object().and_then(|fields| fields.keys().next().cloned()).unwrap_or_default(), str::to_owned)
}

fn show(found: &Found) -> Result<(), Trouble> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "replayed {} decisions of {} with component {}", found.replayed, found.of, &found.component[..12])?;
    writeln!(out, "  {} the same, {} changed", found.same, found.changed)?;
    if found.not_asked > 0 {
        writeln!(out, "  {} not asked: their form is of another world or version", found.not_asked)?;
    }
    for (kind, count) in &found.kinds {
        writeln!(out, "  {count:>6}  {kind}")?;
    }
    for change in &found.changes {
        writeln!(out, "\nat       {}", change.at)?;
        writeln!(out, "asked    {}", brief(&change.question))?;
        writeln!(out, "was      {}", brief(&change.was))?;
        writeln!(out, "would be {}", brief(&change.would_be))?;
    }
    if found.changed > found.changes.len() {
        writeln!(out, "\n{} more; --show prints them", found.changed - found.changes.len())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ages_are_read() {
        assert!(matches!(since("30m"), Ok(Since::AgeMs(1_800_000))));
        assert!(matches!(since("all"), Ok(Since::All)));
        for wrong in ["", "m", "0h", "1y", "-1h", "9999999999d", "ü"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_do_not_count_unless_asked_for() {
        let (one, other) = (json!({"decision": "pass", "reason": "a"}), json!({"decision": "pass", "reason": "b"}));
        assert_eq!(matter(&one, false), matter(&other, false));
        assert_ne!(matter(&one, true), matter(&other, true));
        assert_eq!(
            (kind(&one), kind(&json!({"failure": "limit"})), kind(&json!({"order": []}))),
            ("pass".into(), "limit".into(), "order".into())
        );
    }
}
