//! The stage of the black-box tests: the real binary on a loopback port, real git, real MCP clients.
//!
//! ```no_run
//! # async fn story() {
//! use pointsman_tests::Host;
//! let host = Host::start().await;
//! let ana = host.agent("ana", &["backend"]).await;
//! # }
//! ```
//!
//! Nothing here knows the host's code: the tests must survive a rewrite of it.

#![expect(clippy::panic, reason = "a test that cannot go on says so and ends")]

mod redis;
mod relay;
mod session;
mod template;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub use self::redis::Redis;
pub use self::relay::Relay;
pub use self::session::{Session, next};
pub use pointsman_client::{CallError, Client, Era};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;

/// Milliseconds a start may take, its first compilation of the plugins included.
const READY_MS: u64 = 60_000;
/// Milliseconds between two looks at a state that is to come.
const LOOK_MS: u64 = 20;
/// Seconds after which a state that should come is given up.
pub const DEADLINE_S: u64 = 30;

/// Returns the binary under test, beside the test's own.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let folder = own.parent().and_then(Path::parent).expect("tests stand in target/PROFILE/deps");
    let binary = folder.join("pointsman");
    assert!(binary.exists(), "{} is missing: build the workspace first (tests/run.sh does)", binary.display());
    binary
}

/// Returns a call of the binary under test, without the settings that the test's own environment may hold.
#[must_use]
pub fn pointsman(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"POINTSMAN_")) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

/// Waits until a host that was started here serves this address.
///
/// # Errors
/// It ended, or is not ready in time.
pub async fn until_ready(host: &mut Child, url: &str) -> Result<(), String> {
    for _ in 0..READY_MS / LOOK_MS {
        if let Some(status) = host.try_wait().ok().flatten() {
            return Err(format!("the host ended with {status}"));
        }
        if let Ok((200, _)) = pointsman_client::get(&format!("{url}/readyz")).await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
    Err(format!("the host is not ready after {READY_MS} ms"))
}

/// Returns a loopback port that is free now.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Runs git in a folder; returns what it prints.
///
/// # Panics
/// When git fails.
pub fn git(folder: &Path, args: &[&str]) -> String {
    let out = try_git(folder, args);
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs git in a folder.
///
/// # Panics
/// When there is no git.
pub fn try_git(folder: &Path, args: &[&str]) -> Output {
    Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.invalid"])
        .args(args)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git is installed")
}

/// How a host is set up.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Added to the configuration, TOML.
    pub config: String,
}

impl Setup {
    /// Returns the set-up in which the fixtures of the conformance suite are bound: tools that ask back, mirror, take long.
    #[must_use]
    pub fn with_fixtures() -> Self {
        let component = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/components/conformance-fixtures.wasm");
        let source = json!(component.to_string_lossy());
        let config = format!(
            "[plugins.conformance-fixtures]\nsource = {source}\ncapabilities = [\"kv\"]\n[[agent]]\nplugin = \"conformance-fixtures\"\n\
             [[provider]]\nplugin = \"conformance-fixtures\"\nallow_empty_namespace = true\n"
        );
        Self { config }
    }
}

/// A host on a loopback port, with a project `demo` made from a small repository.
pub struct Host {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Host {
    /// Starts a host with the default set-up.
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// Starts a host.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start_with(setup: Setup) -> Self {
        let folder = tempfile::Builder::new().prefix("pointsman-test-").tempdir().expect("a temporary folder");
        let source = folder.path().join("source");
        seed(&source);
        let port = free_port();
        let quoted = |path: &Path| json!(path.to_string_lossy()).to_string();
        let config = format!(
            "config_version = 1\n[server]\nbind = \"127.0.0.1:{port}\"\n[data]\ndir = {}\n[[project]]\nslug = \"demo\"\nsource = {}\ntarget = \"main\"\n{}\n",
            quoted(&folder.path().join("data")),
            quoted(&source),
            setup.config
        );
        std::fs::write(folder.path().join("pointsman.toml"), config).expect("a configuration");
        template::copy_to(&folder.path().join("data"));
        let mut host = Self { folder, port, child: None };
        host.spawn(pointsman(&["up"])).await;
        host
    }

    /// Returns where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the folder that holds everything of it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the repository the project was made from.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    /// Returns the host's bare repository.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        let root = self.folder.path().join("data/repositories");
        let entries = std::fs::read_dir(&root).expect("repositories").filter_map(Result::ok);
        let repo = entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "git"));
        repo.expect("the project's repository")
    }

    /// Returns the host's log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("host.log")).unwrap_or_default()
    }

    /// Runs the command line with this host's configuration.
    ///
    /// # Panics
    /// When the binary cannot be run.
    pub fn command(&self, args: &[&str]) -> Output {
        let config = self.folder.path().join("pointsman.toml");
        pointsman(args).arg("--config").arg(config).output().expect("the binary runs")
    }

    async fn spawn(&mut self, up: Command) {
        let url = self.url();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("host.log")).expect("a log");
        let child = tokio::process::Command::from(up)
            .arg("--config")
            .arg(self.folder.path().join("pointsman.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the host starts");
        let child = self.child.insert(child);
        if let Err(why) = until_ready(child, &url).await {
            panic!("{why}: {}", self.log());
        }
    }

    /// Kills the host by SIGKILL.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("a child can be killed");
        }
    }

    /// Starts the host again on the same port and data.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.spawn(pointsman(&["up"])).await;
    }

    /// Starts the host again by a shell that sets limits first.
    pub async fn restart_within(&mut self, limits: &str) {
        self.kill().await;
        let up = pointsman(&["up"]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(up.get_program()).args(up.get_args());
        for (name, _) in up.get_envs().filter(|(_, value)| value.is_none()) {
            shell.env_remove(name);
        }
        self.spawn(shell).await;
    }

    /// Returns the host's process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("the host runs")
    }

    /// Waits until the host ends by itself; returns whether it ended well.
    ///
    /// # Panics
    /// When it does not end within the deadline.
    pub async fn ended(&mut self) -> bool {
        let mut child = self.child.take().expect("the host runs");
        let status = tokio::time::timeout(Duration::from_secs(DEADLINE_S), child.wait()).await.expect("it ends in time");
        status.expect("a status").success()
    }

    /// Mints a token.
    ///
    /// # Panics
    /// When the command line fails.
    #[must_use]
    pub fn token(&self, name: &str) -> String {
        let out = self.command(&["agent", "add", name, "--toolset", "files", "--json"]);
        let answer: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        let secret = answer["secret"].as_str().map(str::to_owned);
        secret.unwrap_or_else(|| panic!("agent add: {} {}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
    }

    /// Returns an agent with a token of its own, started, in the modern era.
    pub async fn agent(&self, name: &str, capabilities: &[&str]) -> Agent {
        self.agent_in(name, Era::Modern, capabilities).await
    }

    /// Returns an agent with this token, started, in the modern era.
    ///
    /// # Panics
    /// When it cannot connect or start.
    pub async fn agent_with(&self, name: &str, token: &str, capabilities: &[&str]) -> Agent {
        self.started(name, token.to_owned(), Era::Modern, capabilities).await
    }

    /// Returns an agent with a token of its own, started.
    ///
    /// # Panics
    /// When it cannot connect or start.
    pub async fn agent_in(&self, name: &str, era: Era, capabilities: &[&str]) -> Agent {
        self.started(name, self.token(name), era, capabilities).await
    }

    async fn started(&self, name: &str, token: String, era: Era, capabilities: &[&str]) -> Agent {
        let client = Client::new(&format!("{}/mcp", self.url()), &token, era).expect("a client");
        client.connect().await.expect("it connects");
        let agent = Agent { name: name.to_owned(), token, client };
        agent.call("start", json!({"name": name, "capabilities": capabilities})).await;
        agent
    }

    /// Waits for a state.
    ///
    /// # Panics
    /// When it does not come within the deadline; with the host's log.
    pub async fn eventually<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        for _ in 0..DEADLINE_S * 1_000 / LOOK_MS {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
        panic!("{what} did not come within {DEADLINE_S} s\n{}", self.log());
    }
}

/// An agent: a client with a token.
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Its bearer token.
    pub token: String,
    /// Its client.
    pub client: Client,
}

impl Agent {
    /// Calls a tool that must succeed; returns its `result`.
    ///
    /// # Panics
    /// When it fails.
    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.whole(tool, arguments).await["result"].clone()
    }

    /// Calls a tool; returns all of its answer.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn whole(&self, tool: &str, arguments: Value) -> Value {
        match self.client.call(tool, arguments).await {
            Ok(answer) => answer,
            Err(error) => panic!("{}: {tool}: {error}", self.name),
        }
    }

    /// Calls a tool that must be refused; returns the code.
    ///
    /// # Panics
    /// When it is not.
    pub async fn refused(&self, tool: &str, arguments: Value) -> String {
        match self.client.call(tool, arguments).await {
            Err(CallError::Tool { code, why, advice, .. }) => {
                assert!(!why.is_empty() && !advice.is_empty(), "{code}: a refusal says why and what to do");
                code
            }
            other => panic!("{}: {tool} was to be refused: {other:?}", self.name),
        }
    }

    /// Hands out what waits, for at most `max_s`; acks these.
    pub async fn wait(&self, ack: &[String], max_s: u64) -> Vec<Value> {
        let answer = self.call("wait_for_events", json!({"ack": ack, "max_s": max_s})).await;
        answer["messages"].as_array().cloned().unwrap_or_default()
    }

    /// Waits for a message of one of these kinds, acking all on the way.
    ///
    /// # Panics
    /// When none comes within the deadline.
    pub async fn mail(&self, kinds: &[&str]) -> Value {
        let mut done = Vec::new();
        for _ in 0..DEADLINE_S {
            let mail = self.wait(&std::mem::take(&mut done), 1).await;
            done.extend(mail.iter().filter_map(|message| message["id"].as_str().map(str::to_owned)));
            if let Some(found) = mail.iter().find(|message| message["kind"].as_str().is_some_and(|kind| kinds.contains(&kind))) {
                self.wait(&done, 0).await;
                return found.clone();
            }
        }
        panic!("{}: no message of kind {kinds:?} came", self.name);
    }

    /// Acks everything that waits; returns it.
    pub async fn drain(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut done = Vec::new();
        loop {
            let mail = self.wait(&std::mem::take(&mut done), 0).await;
            if mail.is_empty() {
                return all;
            }
            done.extend(mail.iter().filter_map(|message| message["id"].as_str().map(str::to_owned)));
            all.extend(mail);
        }
    }
}

/// Makes a small repository with something to merge in every way.
///
/// # Panics
/// When the disk or git fails.
pub fn seed(folder: &Path) {
    std::fs::create_dir_all(folder.join("src")).expect("folders");
    let write = |path: &str, text: &str| std::fs::write(folder.join(path), text).expect("a file");
    write("README.md", "# Railway\n\nTrains run on time.\n");
    write("CHANGELOG.md", "# Changes\n\n- first\n");
    write("src/lib.rs", "use std::fmt;\nuse std::io;\n\npub fn run() -> io::Result<()> {\n    Ok(())\n}\n");
    git(folder, &["init", "-q", "-b", "main"]);
    git(folder, &["add", "-A"]);
    git(folder, &["commit", "-q", "-m", "Begin"]);
}
