//! The `pointsman` program. Two of its faces are for programs only and come before the command line is read: the wrapper
//! that confines a check, and the hooks git runs in a project's repository.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    match arguments.nth(1).as_ref().and_then(|face| face.to_str()) {
        Some("sandbox-exec") => pointsman::app::sandbox_exec(arguments),
        Some("git-hook") => pointsman::app::git_hook(arguments),
        _ => pointsman::cli::run(std::env::args_os()),
    }
}
