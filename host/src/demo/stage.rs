//! The host of the demo: a process of its own, that can be killed and started again on the same port and data.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pointsman_client::Era;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::DemoError;
use super::actor::Actor;
use super::scenery::Scene;
use super::timeline::Timeline;
use crate::config::Environment;

/// Milliseconds a start may take.
const READY_MS: u64 = 30_000;
/// Milliseconds between two looks at it.
const LOOK_MS: u64 = 20;
/// The project's name.
pub(super) const SLUG: &str = "demo";
/// The agents: name, era of their client, capabilities.
pub(super) const CAST: [(&str, Era, &[&str]); 4] = [
    ("ana", Era::Modern, &["backend", "rust@1.95.0"]),
    ("ben", Era::Legacy, &["backend", "frontend"]),
    ("cyn", Era::Modern, &["docs"]),
    ("dora", Era::Legacy, &["review"]),
];

/// Host, data, clones, agents.
pub(super) struct Stage {
    folder: Option<TempDir>,
    path: PathBuf,
    port: u16,
    child: Option<Child>,
    tokens: Vec<String>,
    /// How often the host was killed.
    pub(super) kills: u32,
    /// The agents, in the order of [`CAST`].
    pub(super) agents: Vec<Actor>,
}

impl Stage {
    /// Makes project and tokens, starts the host, lets the agents connect.
    pub(super) async fn set(scene: &Scene, timeline: &Timeline) -> Result<Self, DemoError> {
        let folder =
            tempfile::Builder::new().prefix("pointsman-demo-").tempdir().map_err(DemoError::io("no temporary folder can be made"))?;
        let path = folder.path().to_owned();
        let port = free_port()?;
        std::fs::write(path.join("pointsman.toml"), config(scene, port, &path))
            .map_err(DemoError::io("the configuration cannot be written"))?;
        let mut stage = Self { folder: Some(folder), path, port, child: None, tokens: Vec::new(), kills: 0, agents: Vec::new() };
        timeline.progress("copying the repository, compiling the plugins");
        stage.spawn().await?;
        timeline.say("demo", &format!("host runs at {}, embedded store, nothing else installed", stage.url()));
        for (name, era, capabilities) in CAST {
            let token = stage.mint(name).await?;
            let actor = Actor::start(name, &stage.url(), &token, era, capabilities).await?;
            stage.tokens.push(token);
            stage.agents.push(actor);
        }
        Ok(stage)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.path.join("host.log")
    }

    /// Returns the host's bare repository of the project.
    pub(super) fn repository(&self) -> Result<PathBuf, DemoError> {
        let root = self.path.join("data").join("repositories");
        let entries = std::fs::read_dir(&root).map_err(DemoError::io(format!("{} cannot be read", root.display())))?;
        let repos =
            entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "git"));
        repos.into_iter().next().ok_or_else(|| DemoError::Host(format!("no repository in {}", root.display())))
    }

    async fn mint(&self, name: &str) -> Result<String, DemoError> {
        let out = own_command()?
            .args(["agent", "add", name, "--toolset", "files", "--json", "--config"])
            .arg(self.path.join("pointsman.toml"))
            .output()
            .await
            .map_err(DemoError::io("the command line cannot be run"))?;
        let answer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        match answer["secret"].as_str() {
            Some(secret) => Ok(secret.to_owned()),
            None => Err(DemoError::Host(format!("agent add {name}: {}", String::from_utf8_lossy(&out.stderr)))),
        }
    }

    /// Starts the host and waits until it is ready.
    pub(super) async fn spawn(&mut self) -> Result<(), DemoError> {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).map_err(DemoError::io("no log can be written"))?;
        let child = own_command()?
            .arg("up")
            .arg("--config")
            .arg(self.path.join("pointsman.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(DemoError::io("the host cannot be started"))?;
        self.child = Some(child);
        for _ in 0..READY_MS / LOOK_MS {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return Err(DemoError::Host(format!("{status}: {}", self.last_words())));
            }
            if let Ok((200, _)) = pointsman_client::get(&format!("{}/readyz", self.url())).await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
        Err(DemoError::Host(format!("not ready after {READY_MS} ms: {}", self.last_words())))
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Kills the host the hard way (SIGKILL) and starts it again.
    pub(super) async fn kill_and_restart(&mut self) -> Result<(), DemoError> {
        self.kill().await?;
        self.spawn().await
    }

    /// Kills the host the hard way.
    pub(super) async fn kill(&mut self) -> Result<(), DemoError> {
        if let Some(child) = &mut self.child {
            child.kill().await.map_err(DemoError::io("the host cannot be killed"))?;
            self.kills += 1;
        }
        self.child = None;
        Ok(())
    }

    /// Drains the host by SIGTERM and removes its files.
    pub(super) async fn stop(mut self, timeline: &Timeline) -> Result<(), DemoError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let status = child.wait().await.map_err(DemoError::io("the host cannot be waited for"))?;
        timeline.progress("");
        if status.success() { Ok(()) } else { Err(DemoError::Host(format!("it did not drain: {status}"))) }
    }

    /// Keeps the folder for a look at what went wrong.
    pub(super) fn keep_files(&mut self) {
        if let Some(folder) = self.folder.take() {
            let _ = folder.keep();
        }
    }

    /// Leaves the host running and says how to connect.
    pub(super) fn leave_running(mut self, timeline: &Timeline) {
        let pid = self.child.as_ref().and_then(Child::id).unwrap_or_default();
        timeline.act("The host goes on");
        timeline.say("demo", &format!("MCP endpoint  {}/mcp", self.url()));
        for ((name, _, _), token) in CAST.iter().zip(&self.tokens) {
            timeline.say("demo", &format!("token of {name:<5} {token}"));
        }
        timeline.say(
            "demo",
            &format!(
                "try: claude mcp add --transport http pointsman {}/mcp --header \"Authorization: Bearer {}\"",
                self.url(),
                self.tokens[0]
            ),
        );
        timeline.say("demo", &format!("files in {}; stop it with: kill {pid}", self.path.display()));
        self.keep_files();
        if let Some(child) = self.child.take() {
            // The runtime kills children that it drops; this one is to outlive it.
            std::mem::forget(child);
        }
    }
}

/// Returns a call of this same program that has no settings but those in its file: the demo's host is not the user's.
fn own_command() -> Result<Command, DemoError> {
    let mut command = Command::new(std::env::current_exe().map_err(DemoError::io("the own binary cannot be found"))?);
    for name in Environment::of_process().map_err(DemoError::io("the working folder is gone"))?.setting_names() {
        command.env_remove(name);
    }
    Ok(command)
}

fn free_port() -> Result<u16, DemoError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(DemoError::io("no loopback port is free"))?;
    Ok(listener.local_addr().map_err(DemoError::io("no loopback port is free"))?.port())
}

/// Returns the demo's configuration: what a user would write, and no more.
fn config(scene: &Scene, port: u16, path: &Path) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let files = [&scene.imports.path, &scene.log, &scene.headline];
    let grep = files.map(|file| format!("'{file}'")).join(" ");
    let mut toml = String::new();
    let _ = write!(
        toml,
        r#"config_version = 1

[server]
bind = "127.0.0.1:{port}"

[data]
dir = {data}

[[project]]
slug = "{SLUG}"
source = {source}
target = {target}

[[merging.strategy]]
paths = [{log}]
plugin = "merge-union"

[[merging.strategy]]
paths = [{imports}]
plugin = "merge-imports"

[[check]]
name = "no-markers"
command = {check}
limit_s = 60
"#,
        data = quoted(&path.join("data").to_string_lossy()),
        source = quoted(&scene.source.to_string_lossy()),
        target = quoted(&scene.target),
        log = quoted(&scene.log),
        imports = quoted(&scene.imports.path),
        check = quoted(&format!("! grep -nE '^(<<<<<<<|>>>>>>>) ' {grep} && test -n \"$(git log -1 --format=%H)\"")),
    );
    toml
}
