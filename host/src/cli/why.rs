//! `pointsman why`: how a message, delivery, task or merge came to stand where it stands, and whose move it is.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use pointsman_core::time::span;

use super::{SettingsArgs, Trouble, admin_of_records, block_on, print_json};
use crate::config::{Config, Environment};
use crate::ports::admin::{Explained, WhyQuery};

const EXAMPLES: &str = "\
Examples:
  pointsman why T-3                 a task: who claimed it, what became of its merges
  pointsman why M-2 --project web   a try to land one
  pointsman why msg_01…             a message: who got it, why, when, what they did with it
  pointsman why msg_01…/ana         the same, with one agent only

It asks the host that runs on the data folder; when none does, it reads the folder itself.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WhyArgs {
    /// msg_…, msg_…/AGENT, T-3 or M-2
    id: String,
    /// Project, where several have one of that id
    #[arg(long, value_name = "SLUG")]
    project: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(environment: &Environment, args: &WhyArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let query = WhyQuery { id: args.id.clone(), project: args.project.clone() };
    let explained = block_on(async { Ok::<_, Trouble>(admin_of_records(&config).await?.why(query).await?) })??;
    if args.json {
        print_json(&explained)?;
    } else {
        show(&mut std::io::stdout().lock(), &explained)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(out: &mut impl Write, explained: &Explained) -> std::io::Result<()> {
    writeln!(out, "{} {} of {}", explained.kind, explained.id, explained.project)?;
    for (position, step) in explained.steps.iter().enumerate() {
        let after = if position == 0 { String::new() } else { format!("+{}", span(step.after_ms)) };
        writeln!(out, "  {:<24}  {after:>11}  {}", step.at.to_rfc3339(), step.says)?;
    }
    if explained.is_cut {
        writeln!(out, "  (the log is longer than was read, or the chain than is shown)")?;
    }
    writeln!(out, "{}", explained.stands)
}

#[cfg(test)]
mod tests {
    use pointsman_core::time::TimeMs;

    use super::*;
    use crate::ports::admin::WhyStep;

    #[test]
    fn a_chain_is_told_step_by_step() {
        let step = |at: i64, after_ms, says: &str| WhyStep {
            at: TimeMs(at),
            after_ms,
            says: says.to_owned(),
            by: "ana".to_owned(),
            event: "message.sent".to_owned(),
            subject: "msg_1".to_owned(),
            cursor: "0.1".to_owned(),
        };
        let explained = Explained {
            project: "web".to_owned(),
            id: "msg_1".to_owned(),
            kind: "message".to_owned(),
            steps: vec![step(1_000, 0, "sent"), step(1_040, 40, "acked by bo")],
            stands: "It was acked by bo.".to_owned(),
            move_of: None,
            is_cut: false,
        };
        let mut out = Vec::new();
        show(&mut out, &explained).expect("written");
        let told = String::from_utf8(out).expect("UTF-8");
        let lines: Vec<String> = told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            ["message msg_1 of web", "1970-01-01T00:00:01Z sent", "1970-01-01T00:00:01.04Z +40 ms acked by bo", "It was acked by bo."]
        );
    }
}
