//! Git's own HTTP protocol (gitprotocol-http): clones and fetches are streamed, a push runs to its end first.
//!
//! **Invariant:** a push goes on when its client leaves after the last byte: what it moved is moved, and no lock stays.

use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pointsman_core::ids::ProjectId;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::GitRepositories;
use super::hook::{HookGrant, SAID};
use super::project::Project;
use super::runner::{end, finish, signal, start};
use crate::ports::repository::{ByteStream, GitRequest, GitResponse, GitService, PushGrant, RepositoryError};

/// Bytes of git's answer to a push.
const PUSH_ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Bytes of what git and the hooks say beside it.
const SAID_BYTES_MAX: u64 = 256 << 10;
/// Bytes of the `Git-Protocol` header.
const PROTOCOL_BYTES_MAX: usize = 64;

impl GitService {
    fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "upload-pack",
            Self::ReceivePack => "receive-pack",
        }
    }
}

impl GitRepositories {
    pub(super) async fn serve_request(&self, request: GitRequest) -> Result<GitResponse, RepositoryError> {
        let state = self.project(request.project)?;
        let grant = match (request.service, &request.push) {
            (GitService::UploadPack, _) => None,
            (GitService::ReceivePack, Some(grant)) => Some(grant.clone()),
            (GitService::ReceivePack, None) => {
                let why = "this credential only reads: claim the task, then push with the credential that the claim gives";
                return Err(RepositoryError::Refused { rule: "read_only", why: why.to_owned() });
            }
        };
        let permit = self.permit(&self.inner.served, "a free place for a fetch or push").await?;
        let mut command = self.service(&state, &request, grant.as_ref())?;
        if request.advertise {
            return self.advertise(request.service, command, request.protocol.as_deref()).await;
        }
        command.arg(&state.dir).stdin(Stdio::piped());
        match grant {
            None => fetch(command, request.body, permit, self.inner.options.limits.serve_ms),
            Some(grant) => self.push(request.project, state, command, request.body, grant, permit).await,
        }
    }

    fn service(&self, state: &Project, request: &GitRequest, grant: Option<&PushGrant>) -> Result<Command, RepositoryError> {
        let runner = &self.inner.runner;
        let mut command = runner.hooked(&state.dir, &self.inner.hooks);
        if let Some(grant) = grant {
            command.arg("-c").arg(format!("receive.maxInputSize={}", self.inner.options.limits.push_bytes_max));
            let grant = HookGrant::of(grant).to_text()?;
            command.env("POINTSMAN_GRANT", grant).env("POINTSMAN_BINARY", &self.inner.options.binary);
        }
        if let Some(protocol) = wanted_protocol(request) {
            command.env("GIT_PROTOCOL", protocol);
        }
        command.args([request.service.name(), "--stateless-rpc"]);
        if request.service == GitService::UploadPack {
            command.args(["--strict", "--timeout=120"]);
        }
        if request.advertise {
            command.arg("--http-backend-info-refs").arg(&state.dir);
        }
        Ok(command)
    }

    async fn advertise(&self, service: GitService, mut command: Command, protocol: Option<&str>) -> Result<GitResponse, RepositoryError> {
        let what = format!("git {}", service.name());
        let child = start(&what, &mut command)?;
        let advertised = finish(&what, child, &[], self.inner.options.limits.step_ms).await?.ok(&what)?;
        let mut body = Vec::with_capacity(advertised.len() + 64);
        // Version 2 begins with its own line instead (gitprotocol-v2, "HTTP Transport").
        if service == GitService::ReceivePack || !protocol.is_some_and(|protocol| protocol.split(':').any(|part| part == "version=2")) {
            let line = format!("# service=git-{}\n", service.name());
            body.extend_from_slice(format!("{:04x}{line}0000", line.len() + 4).as_bytes());
        }
        body.extend_from_slice(&advertised);
        let content_type = match service {
            GitService::UploadPack => "application/x-git-upload-pack-advertisement",
            GitService::ReceivePack => "application/x-git-receive-pack-advertisement",
        };
        Ok(GitResponse { content_type, body: Box::pin(std::io::Cursor::new(body)) })
    }

    async fn push(
        &self,
        project: ProjectId,
        state: Arc<Project>,
        mut command: Command,
        body: ByteStream,
        grant: PushGrant,
        permit: OwnedSemaphorePermit,
    ) -> Result<GitResponse, RepositoryError> {
        let turn = state.push_lock(&grant.branch);
        let limit_ms = self.inner.options.limits.push_ms;
        let repositories = self.clone();
        let work = async move {
            let _permit = permit;
            let _turn = turn.lock().await;
            let mut child = start("git receive-pack", &mut command)?;
            let answer = tokio::time::timeout(Duration::from_millis(limit_ms), receive(&mut child, body)).await;
            let whole = matches!(&answer, Ok(Ok((_, status))) if status.code().is_some());
            if !whole {
                end(&mut child).await;
                repositories.free_branch(project, &grant.branch).await;
            }
            match answer {
                Ok(Ok((answer, _))) => repositories.settle_branch(project, &grant.branch).await.map(|()| answer),
                Ok(Err(error)) => Err(RepositoryError::Failed { why: format!("the push ended early: {error}") }),
                Err(_) => Err(RepositoryError::TimedOut { what: "git receive-pack".to_owned(), limit_ms }),
            }
        };
        // A task of its own: the push is not cut in two when the client goes away.
        let answer = self.inner.tasks.spawn(work).await;
        let answer = answer.map_err(|error| RepositoryError::Failed { why: format!("git receive-pack: {error}") })??;
        Ok(GitResponse { content_type: "application/x-git-receive-pack-result", body: Box::pin(std::io::Cursor::new(answer)) })
    }

    /// Removes the lock that an ended push may have left on its branch. No other push to it runs, and no step of the host
    /// is within a ref transaction while `refs` is held for writing.
    async fn free_branch(&self, project: ProjectId, branch: &str) {
        let name = super::refs::branch_ref(branch);
        let done = self.step(project, "free branch", move |project| {
            let _alone = project.refs.write();
            match std::fs::remove_file(project.dir.join(format!("{name}.lock"))) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                done => Ok(done?),
            }
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, branch, "the lock of an ended push could not be removed");
        }
    }

    /// Syncs the folder of a pushed branch: git syncs the file alone.
    async fn settle_branch(&self, project: ProjectId, branch: &str) -> Result<(), RepositoryError> {
        let name = super::refs::branch_ref(branch);
        let done = self.step(project, "settle branch", move |project| {
            let file = project.dir.join(name);
            match file.parent().map(std::fs::File::open) {
                Some(Ok(folder)) => Ok(folder.sync_all()?),
                // It has never been pushed to and stands in packed-refs.
                Some(Err(_)) | None => Ok(()),
            }
        });
        done.await
    }
}

/// Returns what is passed on of the `Git-Protocol` header. A push speaks version 0 or 1.
fn wanted_protocol(request: &GitRequest) -> Option<&str> {
    let known = |c: char| c.is_ascii_alphanumeric() || "=:.-_".contains(c);
    let protocol = request.protocol.as_deref()?;
    let fits = protocol.len() <= PROTOCOL_BYTES_MAX && protocol.chars().all(known);
    (fits && request.service == GitService::UploadPack).then_some(protocol)
}

async fn feed(mut stdin: ChildStdin, mut body: ByteStream) -> std::io::Result<()> {
    match tokio::io::copy(&mut body, &mut stdin).await {
        // It has read all it wants, and its answer says why.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
            Ok(())
        }
        Err(error) => Err(error),
        Ok(_) => stdin.shutdown().await,
    }
}

async fn receive(child: &mut Child, body: ByteStream) -> std::io::Result<(Vec<u8>, ExitStatus)> {
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err(std::io::ErrorKind::BrokenPipe.into());
    };
    let (mut answer, mut said) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (stdout.take(PUSH_ANSWER_BYTES_MAX), stderr.take(SAID_BYTES_MAX));
    tokio::try_join!(feed(stdin, body), stdout.read_to_end(&mut answer), stderr.read_to_end(&mut said))?;
    let status = child.wait().await?;
    if !status.success() {
        answer.extend_from_slice(&fatal(&said));
    }
    Ok((answer, status))
}

/// Returns what the client is told when receive-pack ended without its report, as when a fence fell while the branch was being
/// locked: one packet on band 3 (gitprotocol-pack, "side-band").
fn fatal(said: &[u8]) -> Vec<u8> {
    const PACKET_BYTES_MAX: usize = 60_000;
    let said = String::from_utf8_lossy(said);
    let mut text: String = said.lines().filter(|line| line.starts_with(SAID)).flat_map(|line| [line, "\n"]).collect();
    if text.is_empty() {
        text = format!("{SAID} the push failed in git receive-pack; the branch is as it was\n");
    }
    while text.len() > PACKET_BYTES_MAX {
        text.pop();
    }
    format!("{:04x}\u{3}{text}", text.len() + 5).into_bytes()
}

fn fetch(mut command: Command, body: ByteStream, permit: OwnedSemaphorePermit, limit_ms: u64) -> Result<GitResponse, RepositoryError> {
    let mut child = start("git upload-pack", command.stderr(Stdio::null()))?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(RepositoryError::Failed { why: "git upload-pack has no pipes".to_owned() });
    };
    let feeder = tokio::spawn(feed(stdin, body));
    let limit = Box::pin(tokio::time::sleep(Duration::from_millis(limit_ms)));
    let body = Fetched { stdout, child, feeder, limit, _permit: permit };
    Ok(GitResponse { content_type: "application/x-git-upload-pack-result", body: Box::pin(body) })
}

/// What a fetch is answered with; ends its process when dropped.
struct Fetched {
    stdout: ChildStdout,
    child: Child,
    feeder: JoinHandle<std::io::Result<()>>,
    limit: Pin<Box<tokio::time::Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Fetched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.limit.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the fetch took too long")));
        }
        Pin::new(&mut self.stdout).poll_read(context, buffer)
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        self.feeder.abort();
        // A process that has been waited for has no id any more.
        signal(self.child.id(), Signal::KILL);
    }
}
