//! `pointsman plugin test`: the cases of a plugin, asked of its component.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::subject::{Subject, Tried, brief, ms};
use crate::app;
use crate::cli::{FAILED, SettingsArgs, Trouble, admin, block_on, print_json};
use crate::config::{Config, Environment};
use crate::plugin_build::Progress;
use crate::plugin_cases::{self, Case, Mismatch, mismatches, to_toml, with_names};
use crate::ports::admin::DecisionQuery;
use crate::ports::decision::Question;
use crate::ports::plugins::Instances;

#[derive(Debug, Args)]
pub(in crate::cli) struct TestArgs {
    /// A plugin's folder (built first), a component's file, or the name of a shipped plugin
    #[arg(default_value = ".", value_name = "PLUGIN")]
    plugin: PathBuf,
    /// A case, or a folder of cases [default: the folder `cases` beside the plugin]
    #[arg(long, value_name = "PATH")]
    cases: Option<PathBuf>,
    /// Run only the cases whose name or file has this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// First write cases from the last N decisions that a running host recorded
    #[arg(long, value_name = "N")]
    record: Option<usize>,
    /// The binding whose decisions are recorded [default: the plugin's own name]
    #[arg(long, value_name = "NAME", requires = "record")]
    of: Option<String>,
    /// Write what each failing case is answered into the case, to be looked at by `git diff`
    #[arg(long)]
    bless: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Times that a case is asked again whose first call took too long: the first one pays for more than itself, and the machine may be
/// busy.
const AGAIN: usize = 2;
const US_PER_MS: u64 = 1_000;

/// What came of a case.
struct Ran {
    file: PathBuf,
    case: Case,
    answer: Value,
    mismatches: Vec<Mismatch>,
    /// Microseconds of its quickest call on a fresh instance.
    took_us: u64,
}

/// How long a call may take on a host.
struct Deadline {
    ms: u64,
    advice: String,
}

impl Deadline {
    fn is_beyond(&self, took_us: u64) -> bool {
        took_us > self.ms.saturating_mul(US_PER_MS)
    }
}

pub(super) fn run(environment: &Environment, args: &TestArgs) -> Result<ExitCode, Trouble> {
    let progress = if args.json { Progress::Silent } else { Progress::Stderr };
    let subject = Subject::open_bare(&args.plugin, progress)?;
    if let Some(count) = args.record {
        record(environment, args, &subject, count)?;
    }
    let mut cases = subject.cases(args.cases.as_deref())?;
    if let Some(only) = &args.only {
        cases.retain(|(file, case)| case.name.contains(only) || file.to_string_lossy().contains(only));
    }
    if cases.is_empty() {
        return Err(Trouble::misused(
            "there is no case to run",
            "write one into the folder `cases` beside plugin.toml (`pointsman plugin new` writes one; host/docs/book tells their form), or name it with --cases",
        ));
    }
    let mut tried = Tried::new(environment)?;
    let deadline = Deadline { ms: subject.deadline_ms()?, advice: subject.deadline_advice() };
    let ran = block_on(async {
        let mut ran = Vec::with_capacity(cases.len());
        for (file, case) in cases {
            ran.push(one(&mut tried, &subject, &deadline, file, case).await);
        }
        ran
    })?;
    if args.bless {
        bless(&ran)?;
    }
    let failed = ran.iter().filter(|one| !one.mismatches.is_empty()).count();
    report(args, &ran, &deadline, failed)?;
    Ok(if failed == 0 || args.bless { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

async fn one(tried: &mut Tried, subject: &Subject, deadline: &Deadline, file: PathBuf, case: Case) -> Ran {
    let config = case.config_json(&subject.manifest.config_json());
    let (answer, took_us) = match tried.loaded(subject, &config, Instances::Fresh).await {
        Ok(name) => {
            let (answer, mut took_us) = timed(tried, &name, &case).await;
            for _ in 0..AGAIN {
                if deadline.is_beyond(took_us) {
                    took_us = took_us.min(timed(tried, &name, &case).await.1);
                }
            }
            (answer, took_us)
        }
        Err(failure) => (json!({"failure": "refused at load", "why": failure.to_string()}), 0),
    };
    let mismatches = mismatches(&case.expect, &answer, &case.call.input());
    Ran { file, case, answer, mismatches, took_us }
}

/// Asks a case; returns the answer, and the microseconds it took.
async fn timed(tried: &Tried, name: &str, case: &Case) -> (Value, u64) {
    let begun = app::instant();
    let answer = tried.bench.ask(name, &case.call).await.answer;
    (answer, u64::try_from(app::instant().duration_since(begun).as_micros()).unwrap_or(u64::MAX))
}

fn report(args: &TestArgs, ran: &[Ran], deadline: &Deadline, failed: usize) -> Result<(), Trouble> {
    let passed = ran.len() - failed;
    if args.json {
        let cases = ran.iter().map(|one| {
            let places = one.mismatches.iter().map(|one| json!({"place": one.place, "expected": one.expected, "came": one.came}));
            json!({
                "file": one.file, "name": one.case.name, "passed": one.mismatches.is_empty(), "answer": one.answer,
                "mismatches": places.collect::<Vec<_>>(), "took_us": one.took_us, "beyond_deadline": deadline.is_beyond(one.took_us),
            })
        });
        let cases: Vec<_> = cases.collect();
        return print_json(&json!({"passed": passed, "failed": failed, "deadline_ms": deadline.ms, "cases": cases}));
    }
    let mut out = std::io::stdout().lock();
    for one in ran {
        if one.mismatches.is_empty() {
            writeln!(out, "ok      {}", one.case.name)?;
        } else {
            writeln!(out, "FAILED  {}  ({})", one.case.name, one.file.display())?;
            for Mismatch { place, expected, came } in &one.mismatches {
                writeln!(out, "        {place}: expected {}, came {}", brief(expected), brief(came))?;
            }
            writeln!(out, "        the whole answer: {}", brief(&with_names(&one.answer, &one.case.call.input())))?;
        }
        if deadline.is_beyond(one.took_us) {
            let Deadline { ms: most_ms, advice } = deadline;
            writeln!(out, "SLOW    {}: it took {}; a host ends a call after {most_ms} ms ({advice})", one.case.name, ms(one.took_us))?;
        }
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(())
}

/// Writes new expectations over those that were not met; what a case did not name stays unnamed.
fn bless(ran: &[Ran]) -> Result<(), Trouble> {
    for one in ran.iter().filter(|one| !one.mismatches.is_empty()) {
        let expected = one.case.expect.as_object().into_iter().flatten();
        let mut expect: serde_json::Map<String, Value> = expected.map(|(name, _)| (name.clone(), one.answer[name].clone())).collect();
        if expect.values().all(Value::is_null) {
            expect = one.answer.as_object().cloned().unwrap_or_default();
        }
        let text = std::fs::read_to_string(&one.file)?;
        // Everything above the expectation is the author's and stays as it is.
        let above = text.split("\n[expect]").next().unwrap_or_default();
        let written = to_toml("", "", "", &Value::Null, &Value::Null, &Value::Object(expect));
        let table = written.split("\n[expect]").nth(1).unwrap_or_default();
        crate::cli::write_atomically(&one.file, &format!("{above}\n[expect]{table}"))?;
    }
    Ok(())
}

/// Writes cases from what a host recorded.
fn record(environment: &Environment, args: &TestArgs, subject: &Subject, count: usize) -> Result<(), Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let of = args.of.clone().unwrap_or_else(|| subject.manifest.name.to_string());
    let query = DecisionQuery { plugin: of.clone(), limit: count, ..DecisionQuery::default() };
    let decisions = block_on(async { Ok::<_, Trouble>(admin(&config).await?.decisions(query).await?.decisions) })??;
    if decisions.is_empty() {
        return Err(Trouble::Failed(format!(
            "error: no decision of `{of}` is recorded on {}\n  name the binding with --of, as `pointsman plugin list` shows it; `decisions.kept_max` must not be 0",
            config.data_dir.display()
        )));
    }
    let folder = match (&args.cases, &subject.folder) {
        (Some(path), _) => path.clone(),
        (None, Some(folder)) => folder.join(plugin_cases::FOLDER),
        (None, None) => PathBuf::from(plugin_cases::FOLDER),
    };
    std::fs::create_dir_all(&folder)?;
    for recorded in &decisions {
        let call = recorded.question["call"].as_str().unwrap_or_default();
        let defaults =
            serde_json::from_value::<Question>(json!({"call": call, "input": {}})).map(|question| json!(question)["input"].take());
        let digest = blake3::hash(recorded.question.to_string().as_bytes()).to_hex();
        let name = format!("recorded {call} {}", &digest[..8]);
        let comment = format!("Recorded from `{of}`, component {}.", recorded.digest.get(..12).unwrap_or_default());
        let text = to_toml(&name, &comment, call, &recorded.question["input"], &defaults.unwrap_or_default(), &recorded.outcome);
        write_new(&folder.join(format!("recorded-{}.toml", &digest[..12])), &text)?;
    }
    Ok(())
}

/// Writes a file that is not there yet; the same question recorded again stays as its author left it.
fn write_new(path: &Path, text: &str) -> Result<(), Trouble> {
    if path.exists() { Ok(()) } else { crate::cli::write_atomically(path, text) }
}
