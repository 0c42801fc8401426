//! `pointsman watch`: runs a command when something concerns an agent, so that somebody who sleeps is woken.
//!
//! **Invariants:** nothing is taken from the agent, and no wait of its is ended; never two runs at once; what comes while one runs
//! is told by the next; a run that failed is repeated while what it was to tell still holds.

use std::io::Write;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::inbox::{Happened, Inbox, InboxArgs, Patience, note};
use super::{Trouble, block_on};
use crate::config::{Environment, WATCH_VARIABLES};

/// Seconds of one look.
const LOOK_S: u64 = 45;
/// Milliseconds an answer may take: somewhat more than a look.
const ANSWER_MS: u64 = 60_000;
/// Times that a burst is given to settle.
const SETTLES_MAX: u32 = 10;
/// Milliseconds before a run that failed is repeated; doubled from run to run.
const REPEAT_MS: u64 = 5_000;
/// Milliseconds between two repetitions at most.
const REPEAT_MS_MAX: u64 = 5 * 60_000;

const EXAMPLES: &str = "\
Examples:
  pointsman watch                                       print a JSON line each time something is to be done
  pointsman watch --exec 'notify-send \"$POINTSMAN_WATCH_SAYS\"'
  pointsman watch --agent ana --messages --exec 'codex exec resume --last \"$POINTSMAN_WATCH_SAYS\"'
  pointsman watch --once                                wait for one

What happened comes to the command on its standard input, as one line of JSON, and in the variables
POINTSMAN_WATCH_AGENT, POINTSMAN_WATCH_UNREAD, POINTSMAN_WATCH_EVENTS (how many), POINTSMAN_WATCH_SAYS
(a sentence or two for the model). Nothing is taken: the agent itself does that by wait_for_events.
A host that restarts is waited for.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WatchArgs {
    /// Command to run, by `sh -c` [default: print the line]
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// End after the first time; with --exec, fail when the command does
    #[arg(long)]
    once: bool,
    /// Only for messages, not for events of its tasks, merges and documents
    #[arg(long)]
    messages: bool,
    /// Context keys whose writes concern it, such as plan/**; repeat it for more
    #[arg(long, value_name = "GLOB")]
    context: Vec<String>,
    /// Milliseconds without anything new after which a burst counts as one
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    settle: u64,
    #[command(flatten)]
    inbox: InboxArgs,
}

pub(super) fn run(environment: &Environment, args: &WatchArgs) -> Result<ExitCode, Trouble> {
    let inbox = args.inbox.open(environment, ANSWER_MS)?;
    let watcher = Watcher { inbox, args, happened: Happened::default(), patience: Patience::of("watch") };
    block_on(watcher.run())?
}

/// When a run that failed is repeated.
struct Repeat {
    at: Instant,
    pause_ms: u64,
}

struct Watcher<'a> {
    inbox: Inbox,
    args: &'a WatchArgs,
    happened: Happened,
    patience: Patience,
}

impl Watcher<'_> {
    async fn run(mut self) -> Result<ExitCode, Trouble> {
        let mut repeat: Option<Repeat> = None;
        loop {
            let left = repeat.as_ref().map_or(LOOK_S, |repeat| repeat.at.saturating_duration_since(Instant::now()).as_secs() + 1);
            if self.see(left.min(LOOK_S)).await? {
                self.settle().await?;
            } else if repeat.as_ref().is_none_or(|repeat| repeat.at > Instant::now()) {
                continue;
            }
            if self.happened.unread == 0 && (self.args.messages || self.happened.events.is_empty()) {
                // The agent took it meanwhile.
                self.happened.told();
                repeat = None;
                continue;
            }
            match self.tell().await? {
                None => {
                    self.happened.told();
                    repeat = None;
                    if self.args.once {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                Some(why) if self.args.once => return Err(Trouble::failed(why)),
                Some(why) => {
                    let pause_ms = repeat.map_or(REPEAT_MS, |repeat| (repeat.pause_ms * 2).min(REPEAT_MS_MAX));
                    note("watch", &format!("{why}; it is run again in {} s unless nothing is left to tell", pause_ms / 1_000));
                    repeat = Some(Repeat { at: Instant::now() + Duration::from_millis(pause_ms), pause_ms });
                }
            }
        }
    }

    /// Looks once, however long the host is away; returns whether there is anything new.
    async fn see(&mut self, max_s: u64) -> Result<bool, Trouble> {
        let mut max_s = max_s;
        loop {
            match self.inbox.peek(self.happened.cursor.as_deref(), max_s, &self.args.context).await {
                Ok(seen) => {
                    self.patience.renew();
                    return Ok(self.happened.take_in(seen));
                }
                Err(unseen) => self.patience.pause(unseen).await?,
            }
            // Whether it is back shows by an answer, not by a wait.
            max_s = 0;
        }
    }

    /// Waits until nothing new comes for a little while, so that a burst is told as one.
    async fn settle(&mut self) -> Result<(), Trouble> {
        for _ in 0..SETTLES_MAX {
            tokio::time::sleep(Duration::from_millis(self.args.settle)).await;
            if !self.see(0).await? {
                break;
            }
        }
        Ok(())
    }

    /// Tells what happened: by the command, else on standard output. Returns how the command failed.
    async fn tell(&self) -> Result<Option<String>, Trouble> {
        let line = self.happened.line();
        let Some(command) = &self.args.exec else {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{line}")?;
            out.flush()?;
            return Ok(None);
        };
        let [agent, unread, events, says] = WATCH_VARIABLES;
        let failed = |why: String| Ok(Some(format!("`{command}` {why}")));
        let started = tokio::process::Command::new("sh")
            .arg("-c")
            .arg(command)
            .env(agent, &self.happened.agent)
            .env(unread, self.happened.unread.to_string())
            .env(events, self.happened.events.len().to_string())
            .env(says, self.happened.says())
            .stdin(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => return failed(format!("cannot be run: {error}")),
        };
        if let Some(mut input) = child.stdin.take() {
            // Whether the command reads it is its own affair.
            let _ = input.write_all(format!("{line}\n").as_bytes()).await;
        }
        match child.wait().await {
            Ok(status) if status.success() => Ok(None),
            Ok(status) => failed(format!("ended with {status}")),
            Err(error) => failed(format!("is lost: {error}")),
        }
    }
}
