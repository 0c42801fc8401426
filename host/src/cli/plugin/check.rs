//! `pointsman plugin check`: everything that can be said of a plugin before anybody relies on it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::subject::{Subject, Tried, brief};
use crate::cli::{FAILED, Trouble, block_on, print_json};
use crate::config::Environment;
use crate::plugin_build::Progress;
use crate::plugin_build::component;
use crate::plugin_cases::{Case, golden, mismatches};
use crate::ports::plugins::Instances;

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// A plugin's folder (built first), a component's file, or the name of a shipped plugin
    #[arg(default_value = ".", value_name = "PLUGIN")]
    plugin: PathBuf,
    /// A case, or a folder of cases [default: the folder `cases` beside the plugin]
    #[arg(long, value_name = "PATH")]
    cases: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Something that is not as it should be.
struct Finding {
    /// Whether a host would refuse it, or only its author should know.
    fatal: bool,
    what: String,
    mend: String,
}

pub(super) fn run(environment: &Environment, args: &CheckArgs) -> Result<ExitCode, Trouble> {
    let subject = Subject::open(&args.plugin, if args.json { Progress::Silent } else { Progress::Stderr })?;
    let mut findings = shape(&subject);
    let cases =
        if findings.iter().any(|finding| finding.fatal) { None } else { Some(ask_cases(environment, args, &subject, &mut findings)?) };
    let failed = findings.iter().any(|finding| finding.fatal);
    let code = if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
    if args.json {
        let listed = findings.iter().map(|one| json!({"fatal": one.fatal, "what": one.what, "mend": one.mend}));
        print_json(&json!({"ok": !failed, "cases": cases, "findings": listed.collect::<Vec<_>>()}))?;
        return Ok(code);
    }
    let mut out = std::io::stdout().lock();
    for Finding { fatal, what, mend } in &findings {
        writeln!(out, "{}  {what}\n       mend: {mend}", if *fatal { "error" } else { "note " })?;
    }
    let ran = match cases {
        Some(0) => "no cases".to_owned(),
        Some(count) => format!("{count} cases"),
        None => "cases not run".to_owned(),
    };
    let word = if failed { "not fit to be loaded" } else { "fit to be loaded" };
    writeln!(out, "{} {} is {word}: world `{}`, {ran}", subject.manifest.name, subject.manifest.version, subject.manifest.world)?;
    Ok(code)
}

/// Looks at the component without running it.
fn shape(subject: &Subject) -> Vec<Finding> {
    let mut findings = Vec::new();
    let world = subject.manifest.world;
    if let Err(error) = component::check(&subject.component, world) {
        findings.push(Finding {
            fatal: true,
            what: crate::service::kit::chain(&error),
            mend: "build it with `pointsman plugin build` of this version, for the world that plugin.toml names".to_owned(),
        });
    }
    if let Ok(anatomy) = component::anatomy(&subject.component) {
        for (capability, interface) in component::ASKED_BY_IMPORT {
            let uses = anatomy.imports.iter().any(|import| import.starts_with(interface));
            let asks = subject.manifest.capabilities.iter().any(|asked| asked == capability);
            if uses && !asks {
                findings.push(Finding {
                    fatal: true,
                    what: format!("it imports `{}` and does not ask for the capability `{capability}`", interface.trim_end_matches('@')),
                    mend: format!("write `capabilities = [\"{capability}\"]` into plugin.toml, and grant it where it is loaded"),
                });
            }
            if asks && !uses {
                findings.push(Finding {
                    fatal: false,
                    what: format!("it asks for the capability `{capability}` and does not use it"),
                    mend: "take it out of plugin.toml: operators grant what they must".to_owned(),
                });
            }
        }
    }
    findings
}

/// Returns the golden calls that the component carries.
fn carried(subject: &Subject, findings: &mut Vec<Finding>) -> Vec<Case> {
    let read =
        component::embedded_cases(&subject.component).and_then(|section| section.map_or(Ok(Vec::new()), |text| golden::parse(&text)));
    read.unwrap_or_else(|why| {
        findings.push(Finding {
            fatal: true,
            what: format!("its golden calls cannot be read: {why}"),
            mend: "build it again with `pointsman plugin build` of this version".to_owned(),
        });
        Vec::new()
    })
}

/// Loads it with its default configuration and asks its cases; returns how many there were.
fn ask_cases(environment: &Environment, args: &CheckArgs, subject: &Subject, findings: &mut Vec<Finding>) -> Result<usize, Trouble> {
    let mut cases: Vec<(Option<PathBuf>, Case)> =
        subject.cases(args.cases.as_deref())?.into_iter().map(|(file, case)| (Some(file), case)).collect();
    if cases.is_empty() {
        cases = carried(subject, findings).into_iter().map(|case| (None, case)).collect();
    }
    let mut tried = Tried::new(environment)?;
    let default = subject.manifest.config_json();
    block_on(async {
        if let Err(failure) = tried.loaded(subject, &default, Instances::Fresh).await {
            findings.push(Finding {
                fatal: true,
                what: format!("with the default configuration of its manifest, {failure}"),
                mend: "make [config] of plugin.toml one that the plugin takes, or give its fields defaults".to_owned(),
            });
        }
        for (file, case) in &cases {
            let answer = match tried.loaded(subject, &case.config_json(&default), Instances::Fresh).await {
                Ok(name) => tried.bench.ask(&name, &case.call).await.answer,
                Err(failure) => json!({"failure": "refused at load", "why": failure.to_string()}),
            };
            for one in mismatches(&case.expect, &answer, &case.call.input()) {
                findings.push(Finding {
                    fatal: true,
                    what: format!("{}: {} is {}, not {}", case.name, one.place, brief(&one.came), brief(&one.expected)),
                    mend: match file {
                        Some(file) => format!("run `pointsman plugin run --case {} --trace`", file.display()),
                        None => "it is a golden call that the component carries: its author mends the plugin, or the case".to_owned(),
                    },
                });
            }
        }
    })?;
    Ok(cases.len())
}
