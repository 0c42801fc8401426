//! Every process this adapter starts: a scrubbed environment, a process group of its own, a time limit that ends the whole
//! group, caps on what is read.
//!
//! **Invariant:** no process sees the caller's environment, its git configuration or its hooks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::ports::repository::RepositoryError;

/// Bytes of standard output that a process may give.
const STDOUT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of standard error that are kept.
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// How long a process group has to end by itself after SIGTERM, so that git removes its lock files.
const GRACE: Duration = Duration::from_secs(2);
/// Marks every process of this host, so that a later one finds what an earlier one left.
pub(super) const MARK: &str = "POINTSMAN_SCRATCH";

/// Starts git.
pub(super) struct Runner {
    program: PathBuf,
    path: String,
    scratch: PathBuf,
    global: PathBuf,
}

/// What a process that ended gave.
pub(super) struct Output {
    /// How it ended.
    pub(super) status: ExitStatus,
    /// All of standard output.
    pub(super) stdout: Vec<u8>,
    /// The start of standard error.
    pub(super) stderr: String,
}

impl Output {
    /// Returns standard output when the process succeeded.
    pub(super) fn ok(self, what: &str) -> Result<Vec<u8>, RepositoryError> {
        if self.status.success() { Ok(self.stdout) } else { Err(self.failure(what)) }
    }

    /// Returns what went wrong, in git's words.
    pub(super) fn failure(&self, what: &str) -> RepositoryError {
        RepositoryError::Failed { why: format!("{what}: {}: {}", self.status, self.stderr.trim()) }
    }
}

impl Runner {
    /// Returns a runner of `program`, found on `path` when it has no folder. `global` is the only configuration beyond
    /// a repository's own.
    pub(super) fn new(program: PathBuf, path: String, scratch: PathBuf, global: PathBuf) -> Arc<Self> {
        Arc::new(Self { program, path, scratch, global })
    }

    /// Returns a command for any program with the scrubbed environment.
    pub(super) fn bare(&self, program: &Path, home: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        command.envs([("PATH", self.path.as_str()), ("LANG", "C.UTF-8"), ("GIT_CONFIG_NOSYSTEM", "1")]);
        command.env("HOME", home).env("GIT_CONFIG_GLOBAL", &self.global).env(MARK, &self.scratch);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Returns a git command that runs in `dir`, without hooks.
    pub(super) fn git(&self, dir: &Path) -> Command {
        let mut command = self.hooked(dir, Path::new("/dev/null"));
        command.args(["-c", "core.fsmonitor=false"]);
        command
    }

    /// Returns a git command that runs in `dir` with the hooks of a folder.
    pub(super) fn hooked(&self, dir: &Path, hooks: &Path) -> Command {
        let mut command = self.bare(&self.program, &self.scratch);
        command.envs([
            ("LC_ALL", "C"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", ""),
            ("SSH_ASKPASS", ""),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_DEFAULT_HASH", "sha1"),
            ("GIT_DEFAULT_REF_FORMAT", "files"),
            ("GIT_ALLOW_PROTOCOL", "file"),
        ]);
        command.current_dir(dir).process_group(0).arg("-c");
        let mut setting = std::ffi::OsString::from("core.hooksPath=");
        setting.push(hooks);
        command.arg(setting);
        command
    }

    /// Runs a command to its end within a limit.
    pub(super) async fn run(&self, what: &str, mut command: Command, input: &[u8], limit_ms: u64) -> Result<Output, RepositoryError> {
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let child = start(what, &mut command)?;
        finish(what, child, input, limit_ms).await
    }
}

/// Starts a process.
pub(super) fn start(what: &str, command: &mut Command) -> Result<Child, RepositoryError> {
    command.spawn().map_err(|error| RepositoryError::Failed { why: format!("{what} could not be started: {error}") })
}

/// Feeds a process, reads it and waits for it, all within a limit.
pub(super) async fn finish(what: &str, mut child: Child, input: &[u8], limit_ms: u64) -> Result<Output, RepositoryError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let work = async {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A process that does not want its input says so by its status.
                let _ = stdin.write_all(input).await;
                let _ = stdin.shutdown().await;
            }
        };
        let ((), stdout, stderr) = tokio::join!(feed, read(stdout, STDOUT_BYTES_MAX), read(stderr, STDERR_BYTES_MAX));
        let status = child.wait().await?;
        Ok::<_, std::io::Error>((status, stdout?, stderr?))
    };
    match tokio::time::timeout(Duration::from_millis(limit_ms), work).await {
        Ok(Ok((status, stdout, stderr))) => {
            if stdout.len() as u64 > STDOUT_BYTES_MAX {
                return Err(RepositoryError::Failed { why: format!("{what} gave more than {STDOUT_BYTES_MAX} bytes") });
            }
            Ok(Output { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
        }
        Ok(Err(error)) => Err(RepositoryError::Failed { why: format!("{what}: {error}") }),
        Err(_) => {
            end(&mut child).await;
            Err(RepositoryError::TimedOut { what: what.to_owned(), limit_ms })
        }
    }
}

/// Reads at most `max` bytes and one more, then goes on reading for nothing.
async fn read(source: Option<impl AsyncRead + Unpin>, max: u64) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut source) = source {
        (&mut source).take(max + 1).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut source, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

/// Ends a process and its group: politely first.
pub(super) async fn end(child: &mut Child) {
    let id = child.id();
    signal(id, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        signal(id, Signal::KILL);
        let _ = child.wait().await;
    }
    signal_group(id, Signal::KILL);
}

/// Sends a signal to a process that has not been waited for, and to its group.
pub(super) fn signal(id: Option<u32>, signal: Signal) {
    signal_group(id, signal);
    if let Some(pid) = pid(id) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends a signal to what is left of a process's group. None left is no error.
pub(super) fn signal_group(id: Option<u32>, signal: Signal) {
    if let Some(pid) = pid(id) {
        let _ = kill_process_group(pid, signal);
    }
}

fn pid(id: Option<u32>) -> Option<Pid> {
    id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// Ends every process whose environment has `name=value`, those that left their group too. Returns how many.
pub(super) fn end_marked(name: &str, value: &Path) -> usize {
    const ROUNDS_MAX: usize = 8;
    let mut mark = format!("{name}=").into_bytes();
    mark.extend_from_slice(value.as_os_str().as_encoded_bytes());
    let mut ended = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let found = marked(&mark);
        if found.is_empty() {
            break;
        }
        for id in found {
            if let Some(pid) = Pid::from_raw(id) {
                ended.insert(id);
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    ended.len()
}

fn marked(mark: &[u8]) -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|id| *id != own)
        .filter(|id| fs::read(format!("/proc/{id}/environ")).is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == mark)))
        .collect()
}
