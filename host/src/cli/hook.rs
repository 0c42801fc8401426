//! `pointsman hook CLIENT`: what the hooks of coding clients call. It reads what the client says on standard input and answers in
//! that client's form.
//!
//! | when | Claude Code, Codex | Cursor |
//! |---|---|---|
//! | a session begins, comes back, lost its context | `SessionStart`: `additionalContext` | `sessionStart`: `additional_context` |
//! | a turn ends while messages wait | `Stop`: `decision: block`, once | `stop`: `followup_message` |
//! | an idle session gets something | Claude Code only: `Stop` with `--wake`, exit code 2 | |
//!
//! Sources: Claude Code's hooks reference (`asyncRewake` since 2.1: a hook in the background whose exit code 2 wakes the session
//! with what is on its standard error); Codex's hooks page and the schemas beside its source; Cursor's hooks page.
//!
//! **Invariants:** a client is never held up by a host that is away, and never broken by whatever is wrong here: a short note and
//! exit code 0. Exit code 2 means "wake" and nothing else, and only `--wake` has it.

mod waker;

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::inbox::{Happened, InboxArgs, Unseen, note};
use super::{FAILED, Trouble, block_on};
use crate::config::Environment;

/// Milliseconds that a client is held up by a host that does not answer.
const ANSWER_MS: u64 = 5_000;
/// Milliseconds for which a host that is away is tried when a session begins: it may be starting beside the client.
const START_MS: u64 = 2_000;
/// Milliseconds between two tries.
const PAUSE_MS: u64 = 200;
/// Bytes of what a client says.
const SAID_BYTES_MAX: u64 = 4 << 20;
/// Characters of what a model is told at the start; clients cut at about ten thousand.
const TOLD_CHARS_MAX: usize = 8_000;

const EXAMPLES: &str = "\
`pointsman connect CLIENT --hooks` prints the hooks that call this, `--write` merges them into the client's file.
By hand:
  echo '{\"hook_event_name\":\"SessionStart\",\"source\":\"startup\"}' | pointsman hook claude-code

A host that is away is a note on standard error and exit code 0.";

/// A client that has hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum HookClient {
    ClaudeCode,
    Codex,
    Cursor,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HookArgs {
    /// Whose hook it is
    client: HookClient,
    /// At the end of a turn: wait in the background, and wake the session by exit code 2 when something comes
    #[arg(long)]
    wake: bool,
    #[command(flatten)]
    inbox: InboxArgs,
}

/// What a hook is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// A session begins, comes back, or lost its context.
    Starts,
    /// A turn ended.
    TurnEnds,
    /// A session ended.
    Ends,
    /// Nothing of ours.
    Other,
}

/// What a client says of itself.
struct Said(Value);

impl Said {
    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    fn moment(&self) -> Moment {
        match self.text("hook_event_name") {
            "SessionStart" | "sessionStart" => Moment::Starts,
            "Stop" | "stop" => Moment::TurnEnds,
            "SessionEnd" | "sessionEnd" => Moment::Ends,
            _ => Moment::Other,
        }
    }

    /// Returns what tells sessions apart.
    fn session(&self) -> &str {
        ["session_id", "conversation_id"].into_iter().map(|field| self.text(field)).find(|id| !id.is_empty()).unwrap_or_default()
    }

    /// Returns whether the turn that ended was itself begun by a hook, or did not end well.
    fn wants_rest(&self) -> bool {
        let status = self.text("status");
        self.0["stop_hook_active"] == true || !(status.is_empty() || status == "completed")
    }
}

pub(super) fn run(environment: &Environment, args: &HookArgs) -> ExitCode {
    match perform(environment, args) {
        Ok(code) => code,
        Err(Trouble::Misused(why) | Trouble::Failed(why)) => {
            note("hook", why.trim_start_matches("error: "));
            ExitCode::SUCCESS
        }
    }
}

fn perform(environment: &Environment, args: &HookArgs) -> Result<ExitCode, Trouble> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        note("hook", "this is called by the hooks of a client, which says on standard input what happened");
        return Ok(ExitCode::from(FAILED));
    }
    let mut text = String::new();
    input.by_ref().take(SAID_BYTES_MAX).read_to_string(&mut text)?;
    let said: Value = serde_json::from_str(&text).map_err(|error| Trouble::failed(format!("what the client said is not JSON: {error}")))?;
    let said = Said(said);
    match (said.moment(), args.wake) {
        (Moment::Starts, _) => block_on(starts(environment, args))?,
        (Moment::TurnEnds, true) if args.client == HookClient::ClaudeCode => block_on(waker::wait(environment, args, &said))?,
        (Moment::TurnEnds, true) => {
            note("hook", "this client runs no hook in the background: leave --wake out, and wake it by `pointsman watch --exec`");
            Ok(ExitCode::SUCCESS)
        }
        (Moment::TurnEnds, false) => block_on(turn_ends(environment, args, &said))?,
        (Moment::Ends, _) => {
            waker::forget(environment, &said);
            Ok(ExitCode::SUCCESS)
        }
        (Moment::Other, _) => Ok(ExitCode::SUCCESS),
    }
}

fn answer(answer: &Value) -> Result<ExitCode, Trouble> {
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the agent (again), and tells the model where it stands.
async fn starts(environment: &Environment, args: &HookArgs) -> Result<ExitCode, Trouble> {
    let inbox = args.inbox.open(environment, ANSWER_MS)?;
    let until = Instant::now() + Duration::from_millis(START_MS);
    let started = loop {
        match inbox.start().await {
            Err(Unseen::Away { .. }) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await,
            ended => break ended,
        }
    };
    match started {
        Ok(started) => answer(&introduced(args.client, &introduction(&started))),
        Err(unseen) => {
            let why = format!("{}; the session begins without it", unseen.line());
            note("hook", &why);
            // What stands on standard error is shown to nobody when a session begins.
            match args.client {
                HookClient::ClaudeCode | HookClient::Codex => answer(&json!({"systemMessage": format!("pointsman: {why}")})),
                HookClient::Cursor => Ok(ExitCode::SUCCESS),
            }
        }
    }
}

/// Returns what a model is told, in its client's form.
fn introduced(client: HookClient, text: &str) -> Value {
    match client {
        HookClient::ClaudeCode | HookClient::Codex => {
            json!({"hookSpecificOutput": {"hookEventName": "SessionStart", "additionalContext": text}})
        }
        HookClient::Cursor => json!({"additional_context": text}),
    }
}

/// Returns what `start` answered, for a model that did not call it.
fn introduction(started: &Value) -> String {
    let word = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let (agent, next) = (word(&started["you"]["agent"]), word(&started["next"]));
    let unread = started["unread"].as_u64().unwrap_or(0);
    let whole = started["result"].to_string();
    let mut shown: String = whole.chars().take(TOLD_CHARS_MAX).collect();
    if shown.len() < whole.len() {
        shown.push_str("… (cut; call `start` for the rest)");
    }
    format!(
        "You are the agent `{agent}` of Pointsman, the host that keeps the agents of this repository from undoing each other's work. \
         `start` was called for you just now, through a hook, and answered:\n{shown}\nUnread messages: {unread}. Next: {next}"
    )
}

/// Lets a turn not end while messages wait.
async fn turn_ends(environment: &Environment, args: &HookArgs, said: &Said) -> Result<ExitCode, Trouble> {
    if said.wants_rest() {
        return Ok(ExitCode::SUCCESS);
    }
    let inbox = args.inbox.open(environment, ANSWER_MS)?;
    let mut happened = Happened::default();
    match inbox.peek(None, 0, &[]).await {
        Ok(seen) => happened.take_in(seen),
        Err(unseen) => {
            note("hook", &unseen.line());
            return Ok(ExitCode::SUCCESS);
        }
    };
    if happened.unread == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    answer(&match args.client {
        HookClient::ClaudeCode | HookClient::Codex => json!({"decision": "block", "reason": happened.says()}),
        HookClient::Cursor => json!({"followup_message": happened.says()}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_s_words_are_understood() {
        for (name, moment) in [
            ("SessionStart", Moment::Starts),
            ("sessionStart", Moment::Starts),
            ("Stop", Moment::TurnEnds),
            ("stop", Moment::TurnEnds),
            ("SessionEnd", Moment::Ends),
            ("PreToolUse", Moment::Other),
        ] {
            assert_eq!(Said(json!({"hook_event_name": name})).moment(), moment, "{name}");
        }
        assert_eq!(Said(json!([])).moment(), Moment::Other);
        assert_eq!(Said(json!({"conversation_id": "c"})).session(), "c");
        for (said, rests) in [
            (json!({}), false),
            (json!({"stop_hook_active": false}), false),
            (json!({"stop_hook_active": true}), true),
            (json!({"status": "completed", "loop_count": 2}), false),
            (json!({"status": "aborted"}), true),
        ] {
            assert_eq!(Said(said.clone()).wants_rest(), rests, "{said}");
        }
    }

    #[test]
    fn a_model_is_told_in_its_client_s_form() {
        let started = json!({"result": {"agent": "ana", "tasks": []}, "you": {"agent": "ana"}, "unread": 2, "next": "Read your messages."});
        let told = introduction(&started);
        assert!(
            told.contains("agent `ana`")
                && told.contains("\"tasks\":[]")
                && told.ends_with("Unread messages: 2. Next: Read your messages.")
        );
        let claude = introduced(HookClient::ClaudeCode, "x");
        assert_eq!(claude["hookSpecificOutput"], json!({"hookEventName": "SessionStart", "additionalContext": "x"}));
        assert_eq!(introduced(HookClient::Cursor, "x"), json!({"additional_context": "x"}));
        let long = introduction(&json!({"result": "ü".repeat(TOLD_CHARS_MAX)}));
        assert!(long.contains("cut; call `start`") && long.chars().count() < TOLD_CHARS_MAX + 1_000);
    }
}
