//! What the demo prints: a line an act, a progress line on a terminal, a table of claims at the end.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::json;

use crate::adapters::system::OsSystem;
use crate::ports::clock::System;

/// A claim and whether it held.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// What is claimed.
    pub(super) what: String,
    /// What was found.
    pub(super) found: String,
    /// Whether it holds.
    pub(super) holds: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Plain,
    Terminal,
}

/// The printer.
pub(super) struct Timeline {
    form: Form,
    began: Instant,
    acts: Mutex<u32>,
}

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";
const COLOURS: [&str; 5] = ["\x1b[36m", "\x1b[35m", "\x1b[33m", "\x1b[34m", "\x1b[32m"];

impl Timeline {
    pub(super) fn new(json: bool) -> Self {
        let form = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Terminal,
            (false, false) => Form::Plain,
        };
        Self { form, began: OsSystem.instant(), acts: Mutex::new(0) }
    }

    fn elapsed_ms(&self) -> u128 {
        self.began.elapsed().as_millis()
    }

    fn print(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        let clear = if self.form == Form::Terminal { "\r\x1b[2K" } else { "" };
        // A closed pipe ends the reader's interest, not the demo.
        let _ = writeln!(out, "{clear}{line}");
        let _ = out.flush();
    }

    /// Shows what is being done, where lines can be overwritten.
    pub(super) fn progress(&self, what: &str) {
        if self.form == Form::Terminal {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\r\x1b[2K{DIM}{:>6.2} s  … {what}{RESET}", self.began.elapsed().as_secs_f32());
            let _ = out.flush();
        }
    }

    /// Begins an act.
    pub(super) fn act(&self, title: &str) {
        let number = {
            let mut acts = self.acts.lock();
            *acts += 1;
            *acts
        };
        match self.form {
            Form::Json => self.print(&json!({"t_ms": self.elapsed_ms(), "act": number, "title": title}).to_string()),
            Form::Plain => self.print(&format!("\n{number}. {title}")),
            Form::Terminal => self.print(&format!("\n{BOLD}{number}. {title}{RESET}")),
        }
    }

    /// Tells what somebody did.
    pub(super) fn say(&self, who: &str, what: &str) {
        let seconds = self.began.elapsed().as_secs_f32();
        match self.form {
            Form::Json => self.print(&json!({"t_ms": self.elapsed_ms(), "who": who, "what": what}).to_string()),
            Form::Plain => self.print(&format!("{seconds:>6.2} s  {who:<5} {what}")),
            Form::Terminal => {
                let colour = match who {
                    "ana" => COLOURS[0],
                    "ben" => COLOURS[1],
                    "cyn" => COLOURS[2],
                    "dora" => COLOURS[3],
                    _ => DIM,
                };
                self.print(&format!("{DIM}{seconds:>6.2} s{RESET}  {colour}{who:<5}{RESET} {what}"));
            }
        }
    }

    /// Tells that the demo cannot go on.
    pub(super) fn fail(&self, why: &str) {
        match self.form {
            Form::Json => self.print(&json!({"t_ms": self.elapsed_ms(), "failed": why}).to_string()),
            Form::Plain => self.print(&format!("FAILED  {why}")),
            Form::Terminal => self.print(&format!("{RED}FAILED{RESET}  {why}")),
        }
    }

    /// Prints the claims; says whether all hold.
    pub(super) fn summary(&self, claims: &[Claim]) -> bool {
        let held = claims.iter().filter(|claim| claim.holds).count();
        self.act("Checked from the outside: git's own tools, receipts, the store after kill -9 and restart");
        for claim in claims {
            let Claim { what, found, holds } = claim;
            match self.form {
                Form::Json => self.print(&json!({"t_ms": self.elapsed_ms(), "claim": what, "found": found, "holds": holds}).to_string()),
                Form::Plain => self.print(&format!("  {}  {what}: {found}", if *holds { "ok  " } else { "FAIL" })),
                Form::Terminal => {
                    let mark = if *holds { format!("{GREEN}✓{RESET}") } else { format!("{RED}✗{RESET}") };
                    self.print(&format!("  {mark} {what} {DIM}{found}{RESET}"));
                }
            }
        }
        let all = held == claims.len();
        match self.form {
            Form::Json => self.print(&json!({"t_ms": self.elapsed_ms(), "claims": claims.len(), "held": held, "ok": all}).to_string()),
            Form::Plain | Form::Terminal => {
                self.print(&format!("\n{held} of {} claims hold, in {:.1} s", claims.len(), self.began.elapsed().as_secs_f32()))
            }
        }
        all
    }
}
