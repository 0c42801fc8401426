//! `pointsman plugin run`: one call, and what happened in it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::subject::{Subject, Tried};
use crate::app;
use crate::cli::{FAILED, Trouble, block_on, print_json};
use crate::config::{Environment, LogConfig, LogFormat};
use crate::plugin_build::Progress;
use crate::plugin_cases::{self, Call, Case};
use crate::ports::plugins::{Instances, Meter};
use crate::telemetry;

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// A plugin's folder (built first), a component's file, or the name of a shipped plugin
    #[arg(default_value = ".", value_name = "PLUGIN")]
    plugin: PathBuf,
    /// The case to ask
    #[arg(long, value_name = "FILE", conflicts_with_all = ["call", "input"], required_unless_present = "call")]
    case: Option<PathBuf>,
    /// The call to make, `route` say, with --input
    #[arg(long, value_name = "CALL")]
    call: Option<String>,
    /// Its input: a JSON object, or @FILE
    #[arg(long, value_name = "JSON", default_value = "{}")]
    input: String,
    /// The configuration: a JSON object, or @FILE [default: that of the case, else of the manifest]
    #[arg(long, value_name = "JSON")]
    plugin_config: Option<String>,
    /// Tell what it was given, what it read, logged and used
    #[arg(long)]
    trace: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(environment: &Environment, args: &RunArgs) -> Result<ExitCode, Trouble> {
    if args.trace {
        let log = LogConfig { level: "info,pointsman::adapters::wasm=trace".to_owned(), format: LogFormat::Auto };
        telemetry::init(&log, None, app::system()).map_err(|error| Trouble::caused(&error))?;
    }
    let subject = Subject::open_bare(&args.plugin, if args.json { Progress::Silent } else { Progress::Stderr })?;
    let (call, config) = asked(args, &subject)?;
    let mut tried = Tried::with_meter(environment, Meter::On)?;
    let begun = app::instant();
    let asked = block_on(async {
        let name = tried.loaded(&subject, &config, Instances::Fresh).await.map_err(|failure| Trouble::caused(&failure))?;
        Ok::<_, Trouble>(tried.bench.ask(&name, &call).await)
    })??;
    let took_us = u64::try_from(app::instant().duration_since(begun).as_micros()).unwrap_or(u64::MAX);
    let stats = tried.bench.plugins.loaded().into_values().next().map(|(_, _, stats)| stats).unwrap_or_default();
    let failed = asked.answer.get("failure").is_some();
    let code = if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
    if args.json {
        let mut object = Map::from_iter([("answer".to_owned(), asked.answer)]);
        if args.trace {
            object.insert("call".to_owned(), json!(call.name()));
            object.insert("config".to_owned(), serde_json::from_str(&config).unwrap_or_default());
            object.insert("input".to_owned(), call.input());
            object.insert("reads".to_owned(), json!(asked.reads));
            object.insert("instructions".to_owned(), json!(stats.instructions));
            object.insert("memory_bytes".to_owned(), json!(stats.memory_bytes_max));
            object.insert("took_us".to_owned(), json!(took_us));
        }
        print_json(&Value::Object(object))?;
        return Ok(code);
    }
    let mut out = std::io::stdout().lock();
    if args.trace {
        writeln!(out, "call          {}", call.name())?;
        writeln!(out, "config        {config}")?;
        writeln!(out, "input         {:#}", call.input())?;
        for read in &asked.reads {
            writeln!(out, "read          {read}")?;
        }
        writeln!(out, "instructions  {}", stats.instructions)?;
        writeln!(out, "memory        {} KiB", stats.memory_bytes_max / 1024)?;
        writeln!(out, "took          {took_us} us, loading included")?;
        write!(out, "answer        ")?;
    }
    writeln!(out, "{:#}", asked.answer)?;
    Ok(code)
}

fn asked(args: &RunArgs, subject: &Subject) -> Result<(Call, String), Trouble> {
    let (call, config) = match (&args.case, &args.call) {
        (Some(file), _) => {
            let mut cases = plugin_cases::read(file).map_err(|error| Trouble::caused(&error))?;
            let (Some((_, case)), true) = (cases.pop(), cases.is_empty()) else {
                return Err(Trouble::misused(format!("{} holds several cases", file.display()), "name one of them"));
            };
            let config = case.config_json(&subject.manifest.config_json());
            let Case { call, .. } = case;
            (call, config)
        }
        (None, call) => {
            let input = object("--input", &args.input)?;
            let call = Call::read(call.as_deref().unwrap_or_default(), input)
                .map_err(|why| Trouble::misused(why, "host/docs/book/src/guide/cases.md shows the input of each call"))?;
            (call, subject.manifest.config_json())
        }
    };
    match &args.plugin_config {
        Some(given) => Ok((call, Value::Object(object("--plugin-config", given)?).to_string())),
        None => Ok((call, config)),
    }
}

/// Reads a JSON object that is given as itself, or as a file.
pub(in crate::cli) fn object(flag: &str, given: &str) -> Result<Map<String, Value>, Trouble> {
    let text = match given.strip_prefix('@') {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| Trouble::misused(format!("{flag}: {path}: {error}"), "name a readable file"))?
        }
        None => given.to_owned(),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(Trouble::misused(format!("{flag}: {other} is no JSON object"), "write one in braces, or @FILE")),
        Err(error) => Err(Trouble::misused(format!("{flag}: {error}"), "write a JSON object, or @FILE")),
    }
}
