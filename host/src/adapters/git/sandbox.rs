//! What keeps a check in: run as `pointsman sandbox-exec SPEC`, it restricts itself, says how, and becomes the check.
//!
//! Landlock takes the file system away but for named folders, and signals to anything outside; rlimits bound processor time, open
//! files and file sizes. The network is not taken away: tests serve themselves on loopback.
//!
//! **Invariant:** the first line of output says what is in force; a check is never started under less than it says.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit, setsid};
use serde::{Deserialize, Serialize};

/// What the line begins with that says what is in force.
pub(super) const REPORT: &str = "pointsman-sandbox: ";
/// What a check that could not be restricted or started exits with.
const EXIT_NOT_STARTED: u8 = 125;

/// A check to become.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SandboxSpec {
    /// Given to `sh -c`.
    pub(super) command: String,
    /// Read and executed.
    pub(super) readable: Vec<PathBuf>,
    /// Written too.
    pub(super) writable: Vec<PathBuf>,
    /// Processor seconds of each process.
    pub(super) cpu_s: u64,
    /// Open files.
    pub(super) files_max: u64,
    /// Bytes of each file written.
    pub(super) file_bytes_max: u64,
}

/// Restricts this process and becomes the check; returns only when that failed. Takes the arguments after `sandbox-exec`.
#[must_use]
pub fn sandbox_exec(arguments: Vec<OsString>) -> ExitCode {
    let why = match become_check(&arguments) {
        Ok(never) => match never {},
        Err(why) => why,
    };
    #[expect(clippy::print_stderr, reason = "the host reads it as the check's output")]
    {
        eprintln!("pointsman: the check was not started: {why}");
    }
    ExitCode::from(EXIT_NOT_STARTED)
}

fn become_check(arguments: &[OsString]) -> Result<std::convert::Infallible, String> {
    let spec = arguments.first().and_then(|text| text.to_str()).ok_or("it has no specification")?;
    let spec: SandboxSpec = serde_json::from_str(spec).map_err(|error| format!("its specification is wrong: {error}"))?;
    // A session of its own: no terminal, and one group to end.
    let _ = setsid();
    limit(&spec).map_err(|error| format!("limits: {error}"))?;
    let status = restrict(&spec).map_err(|error| format!("landlock: {error}"))?;
    let in_force = match status {
        RulesetStatus::FullyEnforced => "landlock+rlimits",
        RulesetStatus::PartiallyEnforced => "landlock(partial)+rlimits",
        RulesetStatus::NotEnforced => "rlimits",
    };
    let mut out = std::io::stdout();
    writeln!(out, "{REPORT}{in_force}").and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    Err(Command::new("/bin/sh").args(["-c", &spec.command]).exec().to_string())
}

fn limit(spec: &SandboxSpec) -> rustix::io::Result<()> {
    let bounded =
        [(Resource::Cpu, spec.cpu_s), (Resource::Nofile, spec.files_max), (Resource::Fsize, spec.file_bytes_max), (Resource::Core, 0)];
    for (resource, most) in bounded {
        let hard = rustix::process::getrlimit(resource).maximum.map_or(most, |standing| standing.min(most));
        setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })?;
    }
    Ok(())
}

fn restrict(spec: &SandboxSpec) -> Result<RulesetStatus, RulesetError> {
    const KNOWN: ABI = ABI::V6;
    const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    let (read, all) = (AccessFs::from_read(KNOWN), AccessFs::from_all(KNOWN));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(&spec.readable, read))?
        .add_rules(path_beneath_rules(&spec.writable, all))?
        .add_rules(path_beneath_rules(DEVICES, all))?
        .restrict_self()?;
    Ok(status.ruleset)
}
