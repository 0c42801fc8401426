//! The harness: a repository adapter on temporary folders, the git CLI as oracle, a small HTTP server before `serve`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pointsman::adapters::git::{CheckOptions, GitOptions, GitRepositories};
use pointsman::ports::clock::System;
use pointsman::ports::repository::{
    BranchGrant, GitRequest, GitService, NewCommit, Oid, Origin, PathEdit, PushGrant, Repository, RepositoryError, Signature,
};
use pointsman_core::ids::{FencingToken, ProjectId, RANDOM_BYTES, TaskId};
use pointsman_core::time::TimeMs;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Process time and randomness for tests.
pub(crate) struct TestSystem;

impl System for TestSystem {
    fn random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the system has randomness");
    }

    #[expect(clippy::disallowed_methods, reason = "the tests measure")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A repository and what looks at it from outside.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) git: GitRepositories,
    pub(crate) project: ProjectId,
    pub(crate) bare: PathBuf,
    pub(crate) main: Oid,
}

/// Returns the options for a folder.
pub(crate) fn options(folder: &Path) -> GitOptions {
    let mut options = GitOptions::new(folder.join("repositories"), folder.join("scratch"), env!("CARGO_BIN_EXE_pointsman").into());
    options.check = CheckOptions::of_environment(|name| (name == "PATH").then(|| "/usr/bin:/bin".to_owned()));
    options
}

impl World {
    /// An empty repository.
    pub(crate) async fn empty() -> Self {
        Self::of(tempfile::tempdir().expect("a folder"), Origin::Empty).await
    }

    /// A repository with these files on its target.
    pub(crate) async fn with(files: &[(&str, &str)]) -> Self {
        let mut world = Self::empty().await;
        let first = world.commit(world.main, files).await;
        git(&world.bare, &["update-ref", "refs/heads/main", &first.to_string()]);
        world.main = first;
        world
    }

    pub(crate) async fn of(folder: TempDir, origin: Origin) -> Self {
        let git = GitRepositories::open(options(folder.path()), Arc::new(TestSystem)).await.expect("an adapter");
        let project = ProjectId::new(TimeMs(1), [7; RANDOM_BYTES]);
        let (_, main) = git.create(project, origin, None).await.expect("a repository");
        let bare = git.folder(project);
        Self { folder, git, project, bare, main }
    }

    /// Writes a commit of whole files on a parent; an empty text deletes.
    pub(crate) async fn commit(&self, parent: Oid, files: &[(&str, &str)]) -> Oid {
        let edit = |(path, text): &(&str, &str)| match *text {
            "" => PathEdit::Delete { path: (*path).to_owned() },
            text => PathEdit::Write { path: (*path).to_owned(), bytes: text.as_bytes().to_vec(), executable: None },
        };
        let commit = new_commit(&[parent], files.iter().map(edit).collect());
        self.git.write_commit(self.project, commit).await.expect("a commit")
    }

    /// Grants a branch from `start` with the token `1.n`.
    pub(crate) async fn grant(&self, task: u64, branch: &str, start: Oid, n: u64) -> Result<Oid, RepositoryError> {
        let grant = BranchGrant { task: TaskId(task), branch: branch.to_owned(), start, token: token(n) };
        self.git.grant(self.project, grant).await
    }

    /// What git says in the bare repository.
    pub(crate) fn oracle(&self, arguments: &[&str]) -> String {
        git(&self.bare, arguments)
    }

    /// Where git says a ref is.
    pub(crate) fn at(&self, name: &str) -> Option<Oid> {
        let output = run(&self.bare, &["rev-parse", "--verify", "--quiet", name]);
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    }

    /// Git finds nothing wrong: every story ends so.
    pub(crate) fn is_sound(&self) {
        let output = run(&self.bare, &["fsck", "--strict", "--no-dangling", "--no-progress"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.trim().is_empty(), "git fsck: {said}");
        let left = run_any("find", &self.bare, &[".", "-name", "*.lock"]);
        assert!(left.stdout.is_empty(), "locks are left: {}", String::from_utf8_lossy(&left.stdout));
    }
}

/// Returns the token `1.n`.
pub(crate) fn token(n: u64) -> FencingToken {
    FencingToken { epoch: 1, n }
}

/// Returns a commit to write.
pub(crate) fn new_commit(parents: &[Oid], edits: Vec<PathEdit>) -> NewCommit {
    NewCommit {
        parents: parents.to_vec(),
        edits,
        allowed: Vec::new(),
        author: Signature { name: "ana".to_owned(), email: "ana@agents.example".to_owned() },
        at: TimeMs(1_700_000_000_000),
        message: "A change".to_owned(),
    }
}

/// Runs the git CLI, which must succeed.
pub(crate) fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs the git CLI, without hooks and without anybody's configuration.
pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    let hooks = ["-c", "core.hooksPath=/dev/null", "-c", "protocol.file.allow=always"];
    run_any("git", dir, &[&hooks, arguments].concat())
}

pub(crate) fn run_any(program: &str, dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.current_dir(dir).args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_TERMINAL_PROMPT", "0"), ("LC_ALL", "C")]);
    command.envs([("GIT_AUTHOR_NAME", "bo"), ("GIT_AUTHOR_EMAIL", "b@o"), ("GIT_COMMITTER_NAME", "bo"), ("GIT_COMMITTER_EMAIL", "b@o")]);
    command.output().expect("the program starts")
}

/// A git HTTP server with one credential's grant.
pub(crate) struct Served {
    pub(crate) url: String,
    pub(crate) grant: Arc<Mutex<Option<PushGrant>>>,
}

/// Serves the world's repository on loopback.
pub(crate) async fn serve(world: &World, grant: Option<PushGrant>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/repo.git", listener.local_addr().expect("an address"));
    let grant = Arc::new(Mutex::new(grant));
    let (repositories, project, granted) = (world.git.clone(), world.project, Arc::clone(&grant));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (repositories, grant) = (repositories.clone(), granted.lock().clone());
            tokio::spawn(answer(stream, repositories, project, grant));
        }
    });
    Served { url, grant }
}

/// Answers one request: what an HTTP surface does, less authentication.
async fn answer(stream: TcpStream, repositories: GitRepositories, project: ProjectId, push: Option<PushGrant>) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length, mut chunked, mut zipped, mut protocol) = (String::new(), 0, false, false, None);
    reader.read_line(&mut first).await.expect("a request line");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await.expect("a header");
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => length = value.parse().expect("a length"),
            ("transfer-encoding", _) => chunked = true,
            ("content-encoding", _) => zipped = true,
            ("git-protocol", value) => protocol = Some(value.to_owned()),
            ("expect", _) => reader.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.expect("a client"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    if chunked {
        body = chunks(&mut reader).await;
    } else {
        reader.read_exact(&mut body).await.expect("a body");
    }
    if zipped {
        body = gunzip(body);
    }
    let service = if first.contains("git-receive-pack") { GitService::ReceivePack } else { GitService::UploadPack };
    let advertise = first.starts_with("GET");
    let request = GitRequest { project, service, advertise, protocol, push, body: Box::pin(std::io::Cursor::new(body)) };
    let answer = match repositories.serve(request).await {
        Ok(mut response) => {
            let mut bytes = Vec::new();
            response.body.read_to_end(&mut bytes).await.expect("a whole answer");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\n", response.content_type, bytes.len());
            [format!("{head}Connection: close\r\n\r\n").into_bytes(), bytes].concat()
        }
        Err(error) => {
            let text = error.to_string();
            let head = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\n";
            format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
        }
    };
    let _ = reader.write_all(&answer).await;
    let _ = reader.shutdown().await;
}

async fn chunks(reader: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await.expect("a chunk's size");
        let size = usize::from_str_radix(line.trim(), 16).expect("a chunk's size");
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).await.expect("a chunk");
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

fn gunzip(bytes: Vec<u8>) -> Vec<u8> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut file, &bytes).expect("written");
    let output = Command::new("gzip").arg("-dc").stdin(file.reopen().expect("the file")).output().expect("gzip starts");
    output.stdout
}

/// Runs the git CLI on a thread, while this one serves.
pub(crate) async fn git_async(dir: &Path, arguments: &[&str]) -> Output {
    let (dir, arguments) = (dir.to_owned(), arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>());
    let work = move || run(&dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(work).await.expect("git runs")
}
