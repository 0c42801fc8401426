//! `pointsman plugin bench`: what a call of a plugin costs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::subject::{Subject, Tried};
use crate::app;
use crate::cli::{FAILED, Trouble, block_on, print_json};
use crate::config::Environment;
use crate::plugin_build::{Progress, digest};
use crate::plugin_cases::Case;
use crate::ports::plugins::{Instances, Meter};

/// Calls on fresh instances, of as many as were asked for on warm ones.
const FRESH_PART: usize = 10;

#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArgs {
    /// A plugin's folder (built first), a component's file, or the name of a shipped plugin
    #[arg(default_value = ".", value_name = "PLUGIN")]
    plugin: PathBuf,
    /// A case, or a folder of cases [default: the folder `cases` beside the plugin]
    #[arg(long, value_name = "PATH")]
    cases: Option<PathBuf>,
    /// Calls of each case
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    calls: u32,
    /// Write the figures to a file, to be the baseline of a later run
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare with the figures of an earlier run
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Fail when a case takes so many times the instructions of the baseline
    #[arg(long, value_name = "RATIO", requires = "baseline", default_value_t = 1.1)]
    instructions_ratio_max: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What one case costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Figures {
    /// Microseconds of a call on a warm instance: half of the calls took less.
    warm_us_p50: f64,
    /// Of a hundred calls, one took more.
    warm_us_p99: f64,
    /// Microseconds of a call on a new instance, configuration included: half of the calls took less.
    fresh_us_p50: f64,
    /// Instructions of a call on a warm instance; the same on every machine.
    instructions: u64,
    /// Bytes of the instance's memories after its calls.
    memory_bytes: u64,
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Report {
    name: String,
    version: String,
    digest: String,
    size_bytes: usize,
    /// Milliseconds after which a host ends a call; 0 in what was saved by earlier versions.
    #[serde(default)]
    deadline_ms: u64,
    /// By the case's name.
    cases: BTreeMap<String, Figures>,
}

impl Report {
    /// Says of each case whose calls a host would end what that means, by its name.
    fn beyond(&self) -> Vec<(&String, String)> {
        #[expect(clippy::cast_precision_loss, reason = "a deadline is at most a minute")]
        let most_us = (self.deadline_ms * 1_000) as f64;
        let which = |figures: &Figures| match figures {
            Figures { warm_us_p50, .. } if *warm_us_p50 > most_us => Some("most calls would be ended, on warm instances, too"),
            Figures { fresh_us_p50, .. } if *fresh_us_p50 > most_us => {
                Some("most calls on fresh instances would be ended, and with them the first one of each warm instance")
            }
            Figures { warm_us_p99, .. } if *warm_us_p99 > most_us => Some("one call in a hundred would be ended"),
            _ => None,
        };
        self.cases.iter().filter_map(|(name, figures)| Some((name, which(figures)?.to_owned()))).collect()
    }
}

pub(super) fn run(environment: &Environment, args: &BenchArgs) -> Result<ExitCode, Trouble> {
    let subject = Subject::open(&args.plugin, if args.json { Progress::Silent } else { Progress::Stderr })?;
    let cases = subject.cases(args.cases.as_deref())?;
    if cases.is_empty() {
        return Err(Trouble::misused(
            "there is no case to measure",
            "write one into the folder `cases` beside plugin.toml, or name it with --cases",
        ));
    }
    let baseline = args.baseline.as_deref().map(read).transpose()?;
    let report = measure(environment, args, &subject, cases)?;
    if let Some(path) = &args.save {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Trouble::caused(&error))?;
        crate::cli::write_atomically(path, &format!("{text}\n"))?;
    }
    let slower: Vec<&String> = report
        .cases
        .iter()
        .filter(|(name, now)| ratio(now, baseline.as_ref(), name).is_some_and(|ratio| ratio > args.instructions_ratio_max))
        .map(|(name, _)| name)
        .collect();
    if args.json {
        let beyond: Vec<&String> = report.beyond().into_iter().map(|(name, _)| name).collect();
        print_json(&serde_json::json!({"report": report, "baseline": baseline, "slower": slower, "beyond_deadline": beyond}))?;
    } else {
        show(&report, baseline.as_ref())?;
        for (name, what) in report.beyond() {
            let (most_ms, advice) = (report.deadline_ms, subject.deadline_advice());
            writeln!(std::io::stdout(), "SLOW    {name}: a host ends a call after {most_ms} ms, so {what} ({advice})")?;
        }
        for name in &slower {
            writeln!(
                std::io::stdout(),
                "SLOWER  {name}: more than {} times the instructions of the baseline",
                args.instructions_ratio_max
            )?;
        }
    }
    Ok(if slower.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn measure(environment: &Environment, args: &BenchArgs, subject: &Subject, cases: Vec<(PathBuf, Case)>) -> Result<Report, Trouble> {
    let mut timed = Tried::new(environment)?;
    let mut counted = Tried::with_meter(environment, Meter::On)?;
    let calls = usize::try_from(args.calls).unwrap_or(usize::MAX);
    let default = subject.manifest.config_json();
    let cases = block_on(async {
        let mut figures = BTreeMap::new();
        for (_, case) in cases {
            let config = case.config_json(&default);
            let mut warm = times(&mut timed, subject, &case, &config, Instances::Warm, calls).await?;
            let mut fresh = times(&mut timed, subject, &case, &config, Instances::Fresh, (calls / FRESH_PART).max(1)).await?;
            let (instructions, memory_bytes) = count(&mut counted, subject, &case, &config).await?;
            let figure = Figures {
                warm_us_p50: percentile(&mut warm, 50),
                warm_us_p99: percentile(&mut warm, 99),
                fresh_us_p50: percentile(&mut fresh, 50),
                instructions,
                memory_bytes,
            };
            figures.insert(case.name, figure);
        }
        Ok::<_, Trouble>(figures)
    })??;
    Ok(Report {
        name: subject.manifest.name.to_string(),
        version: subject.manifest.version.to_string(),
        digest: digest(&subject.component),
        size_bytes: subject.component.len(),
        deadline_ms: subject.deadline_ms()?,
        cases,
    })
}

/// Returns how long each of so many calls took, in nanoseconds.
async fn times(
    tried: &mut Tried,
    subject: &Subject,
    case: &Case,
    config: &str,
    kept: Instances,
    calls: usize,
) -> Result<Vec<u64>, Trouble> {
    let name = tried.loaded(subject, config, kept).await.map_err(|failure| Trouble::caused(&failure))?;
    for _ in 0..calls / 10 {
        tried.bench.ask(&name, &case.call).await;
    }
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begun = app::instant();
        tried.bench.ask(&name, &case.call).await;
        times.push(u64::try_from(app::instant().duration_since(begun).as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(times)
}

/// Returns the instructions of a warm call, and the memory of its instance.
async fn count(tried: &mut Tried, subject: &Subject, case: &Case, config: &str) -> Result<(u64, u64), Trouble> {
    let name = tried.loaded(subject, config, Instances::Warm).await.map_err(|failure| Trouble::caused(&failure))?;
    let stats = |tried: &Tried| tried.bench.plugins.loaded().remove(&name).map(|(_, _, stats)| stats).unwrap_or_default();
    // The first call may set things up for those after it.
    tried.bench.ask(&name, &case.call).await;
    let before = stats(tried).instructions;
    tried.bench.ask(&name, &case.call).await;
    let after = stats(tried);
    Ok((after.instructions.saturating_sub(before), after.memory_bytes_max))
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a call are far below 2^52")]
fn percentile(times: &mut [u64], percent: usize) -> f64 {
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    (times.get(at).copied().unwrap_or(0) as f64 / 10.0).round() / 100.0
}

#[expect(clippy::cast_precision_loss, reason = "a ratio of counts needs no more digits")]
fn ratio(now: &Figures, baseline: Option<&Report>, name: &str) -> Option<f64> {
    let before = baseline?.cases.get(name)?;
    (before.instructions > 0).then(|| now.instructions as f64 / before.instructions as f64)
}

fn read(path: &Path) -> Result<Report, Trouble> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Trouble::misused(format!("{}: {error}", path.display()), "make one with --save"))?;
    serde_json::from_str(&text).map_err(|error| Trouble::misused(format!("{}: {error}", path.display()), "make one with --save"))
}

fn show(report: &Report, baseline: Option<&Report>) -> Result<(), Trouble> {
    let head = ["CASE", "WARM P50", "WARM P99", "FRESH P50", "INSTRUCTIONS", "MEMORY", "BASELINE"].map(str::to_owned);
    let rows = report.cases.iter().map(|(name, figures)| {
        [
            name.clone(),
            format!("{} us", figures.warm_us_p50),
            format!("{} us", figures.warm_us_p99),
            format!("{} us", figures.fresh_us_p50),
            figures.instructions.to_string(),
            format!("{} KiB", figures.memory_bytes / 1024),
            ratio(figures, baseline, name).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x")),
        ]
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} {} ({} bytes)", report.name, report.version, report.size_bytes)?;
    crate::cli::agent::write_columns(&mut out, std::iter::once(head).chain(rows))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_would_end_is_told() {
        let figures =
            |warm_us_p50, warm_us_p99, fresh_us_p50| Figures { warm_us_p50, warm_us_p99, fresh_us_p50, instructions: 1, memory_bytes: 1 };
        let cases = BTreeMap::from([
            ("a quick".to_owned(), figures(10.0, 20.0, 60.0)),
            ("b always".to_owned(), figures(2_500.0, 3_000.0, 4_000.0)),
            ("c fresh".to_owned(), figures(900.0, 1_900.0, 2_100.0)),
            ("d rarely".to_owned(), figures(900.0, 2_001.0, 1_000.0)),
        ]);
        let (name, version, digest) = ("x".to_owned(), "0.1.0".to_owned(), String::new());
        let report = Report { name, version, digest, size_bytes: 1, deadline_ms: 2, cases };
        let told: Vec<String> = report.beyond().into_iter().map(|(name, what)| format!("{name}: {what}")).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].starts_with("b always: most calls would be ended") && told[1].starts_with("c fresh: most calls on fresh"),
            "{told:?}"
        );
        assert_eq!(told[2], "d rarely: one call in a hundred would be ended");
    }
}
