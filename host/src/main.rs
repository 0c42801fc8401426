//! Placeholder.

use std::process::ExitCode;

use pointsman::adapters::git::{git_hook, sandbox_exec};

fn main() -> ExitCode {
    // What git and checks run, before anything else is read: both must start in milliseconds.
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|name| name.to_str()) {
        Some("git-hook") => git_hook(arguments.collect()),
        Some("sandbox-exec") => sandbox_exec(arguments.collect()),
        _ => ExitCode::SUCCESS,
    }
}
