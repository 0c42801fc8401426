//! Checks: a throw-away clone of exactly one commit, the check in a sandbox there, its output's end, nothing left behind.
//!
//! **Invariant:** when a report is returned, no process of the check runs any more.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pointsman_core::ids::ProjectId;
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use super::GitRepositories;
use super::fault::{Fault, commit, oid};
use super::project::Project;
use super::recover::remove_tree;
use super::runner::{end_marked, signal, signal_group};
use super::sandbox::{REPORT, SandboxSpec};
use crate::ports::repository::{CheckReport, CheckSpec, Oid, RepositoryError};

/// Bytes kept of a check's output.
const TAIL_BYTES_MAX: usize = 16 << 10;
/// Marks the processes of one check.
const CHECK_MARK: &str = "POINTSMAN_CHECK";
/// How long output is read for after the check's own process ended and the rest was ended.
const DRAIN: Duration = Duration::from_secs(1);
/// What every check may read, where it is there.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/proc", "/sys", "/nix/store"];

/// How checks are kept in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckOptions {
    /// Variables that checks see, besides `PATH`, `HOME`, `TMPDIR` and `LANG`.
    pub variables: Vec<(String, String)>,
    /// Folders that checks may read beyond the system's: toolchains, caches.
    pub readable: Vec<PathBuf>,
    /// Folders that checks may write beyond their clone.
    pub writable: Vec<PathBuf>,
    /// Open files of one process.
    pub files_max: u64,
    /// Bytes of one written file.
    pub file_bytes_max: u64,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { variables: Vec::new(), readable: Vec::new(), writable: Vec::new(), files_max: 4_096, file_bytes_max: 8 << 30 }
    }
}

impl CheckOptions {
    /// Returns options that let checks use the toolchains an environment names: what is on `PATH`, and Rust's folders.
    #[must_use]
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut options = Self::default();
        let home = variable("HOME");
        let path = variable("PATH").unwrap_or_default();
        options.readable.extend(path.split(':').filter(|entry| entry.starts_with('/')).map(PathBuf::from));
        for (name, below) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let folder = variable(name).or_else(|| home.as_ref().map(|home| format!("{home}/{below}")));
            if let Some(folder) = folder.filter(|folder| Path::new(folder).is_dir()) {
                options.readable.push(PathBuf::from(&folder));
                options.variables.push((name.to_owned(), folder));
            }
        }
        options
    }
}

/// The folders of one check.
struct Place {
    work: PathBuf,
    home: PathBuf,
    temporary: PathBuf,
    mark: PathBuf,
}

impl GitRepositories {
    pub(super) async fn check_commit(&self, project: ProjectId, commit: Oid, check: CheckSpec) -> Result<CheckReport, RepositoryError> {
        let _permit = self.permit(&self.inner.checks, "a free place for a check").await?;
        let mut nonce = [0; 12];
        self.inner.system.random(&mut nonce);
        let mark = PathBuf::from(data_encoding::HEXLOWER.encode(&nonce));
        let whole = self.inner.options.scratch.join("checks").join(&mark);
        let place = Place { work: whole.join("work"), home: whole.join("home"), temporary: whole.join("tmp"), mark };
        let _clear = Clear(whole);
        let tree = self.check_out(project, commit, &place).await?;
        let objects = self.folder(project).join("objects");
        let begun = self.inner.system.instant();
        let ran = self.run_in(&place, objects, &check).await?;
        let took = self.inner.system.instant().saturating_duration_since(begun);
        let Some(sandbox) = ran.tail.sandbox.clone() else {
            return Err(RepositoryError::Failed { why: format!("the check `{}`: {}", check.name, ran.tail.text()) });
        };
        let mut output_tail = ran.tail.text();
        if ran.timed_out {
            output_tail += &format!("\n[stopped after {} ms]", check.limit_ms);
        }
        Ok(CheckReport {
            name: check.name,
            tree,
            exit: ran.exit,
            passed: ran.exit == Some(0) && !ran.timed_out,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            output_tail,
            sandbox,
        })
    }

    /// Makes a clone that borrows the repository's objects, with this commit checked out.
    async fn check_out(&self, project: ProjectId, of: Oid, place: &Place) -> Result<Oid, RepositoryError> {
        let folders = [place.work.clone(), place.home.clone(), place.temporary.clone()];
        let tree = self.step(project, "clone for check", move |project| clone_shell(project, of, &folders)).await?;
        let mut command = self.inner.runner.git(&place.work);
        command.args(["-c", "core.fsync=none", "reset", "--hard", "--quiet"]).arg(of.to_string());
        let limits = self.inner.options.limits;
        self.inner.runner.run("git reset", command, &[], limits.clone_ms).await?.ok("git reset")?;
        Ok(tree)
    }

    fn launcher(&self, place: &Place, objects: PathBuf, check: &CheckSpec) -> Result<Command, RepositoryError> {
        let options = &self.inner.options.check;
        let mut readable: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        readable.extend(options.readable.iter().cloned());
        readable.push(objects);
        readable.push(self.inner.options.scratch.join("gitconfig"));
        let mut writable = vec![place.work.clone(), place.home.clone(), place.temporary.clone()];
        writable.extend(options.writable.iter().cloned());
        let spec = SandboxSpec {
            command: check.command.clone(),
            readable,
            writable,
            // Each process of the check may use what all of them may take, at the most.
            cpu_s: check.limit_ms.div_ceil(1_000).saturating_add(1).saturating_mul(4),
            files_max: options.files_max,
            file_bytes_max: options.file_bytes_max,
        };
        let spec = serde_json::to_string(&spec).map_err(|error| RepositoryError::Failed { why: format!("the check: {error}") })?;
        let mut command = self.inner.runner.bare(&self.inner.options.binary, &place.home);
        command.arg("sandbox-exec").arg(spec).current_dir(&place.work).env("TMPDIR", &place.temporary).env(CHECK_MARK, &place.mark);
        command.envs(options.variables.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    async fn run_in(&self, place: &Place, objects: PathBuf, check: &CheckSpec) -> Result<Ran, RepositoryError> {
        let failed = |error: std::io::Error| RepositoryError::Failed { why: format!("the check `{}`: {error}", check.name) };
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let mut output = Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(failed)?;
        let mut command = self.launcher(place, objects, check)?;
        command.stdout(Stdio::from(writer.try_clone().map_err(failed)?)).stderr(Stdio::from(writer));
        let mut child = command.spawn().map_err(failed)?;
        // The command holds the pipe's other end.
        drop(command);
        let id = child.id();
        let mut group = Group { id, mark: place.mark.clone(), armed: true };
        let mut tail = Tail::default();
        let limit = Duration::from_millis(check.limit_ms);
        let waited = tokio::time::timeout(limit, follow(&mut child, &mut output, &mut tail)).await;
        if waited.is_err() {
            signal(child.id(), Signal::KILL);
        }
        let status = child.wait().await.map_err(failed)?;
        let mark = place.mark.clone();
        self.blocking("end check", move || {
            signal_group(id, Signal::KILL);
            Ok(end_marked(CHECK_MARK, &mark))
        })
        .await??;
        group.armed = false;
        let _ = tokio::time::timeout(DRAIN, tail.drain(&mut output)).await;
        Ok(Ran { exit: if waited.is_ok() { status.code() } else { None }, timed_out: waited.is_err(), tail })
    }
}

struct Ran {
    exit: Option<i32>,
    timed_out: bool,
    tail: Tail,
}

/// Reads output until the check's own process has ended.
async fn follow(child: &mut Child, output: &mut Receiver, tail: &mut Tail) -> std::io::Result<()> {
    let drain = tail.drain(output);
    tokio::pin!(drain);
    tokio::select! {
        status = child.wait() => status.map(|_| ()),
        // All ends are closed: only the process itself is left to wait for.
        () = &mut drain => child.wait().await.map(|_| ()),
    }
}

/// The end of a check's output, and its first line, which is the launcher's.
#[derive(Default)]
struct Tail {
    kept: VecDeque<u8>,
    begun: bool,
    cut: bool,
    sandbox: Option<String>,
}

impl Tail {
    async fn drain(&mut self, output: &mut Receiver) {
        let mut buffer = [0; 8 << 10];
        while let Ok(read @ 1..) = output.read(&mut buffer).await {
            self.push(&buffer[..read]);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        if !self.begun
            && let Some(end) = self.kept.iter().position(|byte| *byte == b'\n')
        {
            self.begun = true;
            let line: Vec<u8> = self.kept.iter().take(end).copied().collect();
            if let Some(sandbox) = String::from_utf8_lossy(&line).strip_prefix(REPORT) {
                self.sandbox = Some(sandbox.to_owned());
                self.kept.drain(..=end);
            }
        }
        let surplus = self.kept.len().saturating_sub(TAIL_BYTES_MAX);
        self.cut |= surplus > 0;
        self.kept.drain(..surplus);
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self.kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut from = text.len().saturating_sub(TAIL_BYTES_MAX);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let text = &text[from..];
        // A cut text begins amid a character, perhaps: that one is left out.
        if self.cut { text.trim_start_matches(char::REPLACEMENT_CHARACTER).to_owned() } else { text.to_owned() }
    }
}

/// Ends a check when its caller no longer waits.
struct Group {
    id: Option<u32>,
    mark: PathBuf,
    armed: bool,
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.armed {
            signal_group(self.id, Signal::KILL);
            end_marked(CHECK_MARK, &self.mark);
        }
    }
}

/// Removes a check's folders, off the async threads.
struct Clear(PathBuf);

impl Drop for Clear {
    fn drop(&mut self) {
        let folder = std::mem::take(&mut self.0);
        let clear = move || {
            if let Err(error) = remove_tree(&folder) {
                tracing::warn!(%error, "a check's folder could not be removed");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(clear)),
            Err(_) => clear(),
        }
    }
}

fn clone_shell(project: &Project, of: Oid, folders: &[PathBuf; 3]) -> Result<Oid, Fault> {
    let repository = project.main()?;
    let tree = commit(&repository, of)?.tree_id();
    for folder in folders {
        fs::create_dir_all(folder)?;
    }
    let git = folders[0].join(".git");
    for folder in ["objects/info", "objects/pack", "refs/heads"] {
        fs::create_dir_all(git.join(folder))?;
    }
    fs::write(git.join("objects/info/alternates"), format!("{}\n", project.dir.join("objects").display()))?;
    fs::write(git.join("config"), "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n[gc]\n\tauto = 0\n")?;
    fs::write(git.join("HEAD"), format!("{of}\n"))?;
    let shallow = project.dir.join("shallow");
    if shallow.exists() {
        fs::copy(shallow, git.join("shallow"))?;
    }
    Ok(oid(tree))
}
