//! The operator's socket: `admin.sock` in the data folder, one JSON line in, one JSON line out.
//!
//! Owns: the socket file, its mode, the lines. Must not know: what the requests do.
//!
//! **Invariants:** only the data folder's owner can connect; a request and its reading are bounded; whoever binds holds
//! the data folder's lock, so a socket file that is there already belongs to a host that died.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ports::admin::{
    AdminError, AdminSurface, AgentAdd, AgentAdded, AgentListed, DecisionQuery, HostStatus, ProjectCreate, ProjectCreated,
};
use crate::ports::decision::DecisionPage;
use crate::ports::health::{Difference, Health};

/// The socket's name in the data folder.
const SOCKET: &str = "admin.sock";
/// Bytes of a request's line.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// Bytes of an answer's line.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Milliseconds a client has to send its line, and to take the answer.
const EXCHANGE_MS: u64 = 10_000;
/// Milliseconds a client waits for the answer: a project's first copy of a large repository takes its time.
const ANSWER_MS: u64 = 10 * 60 * 1_000;
/// Clients at once.
const CLIENTS_MAX: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", content = "with", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    AgentAdd(AgentAdd),
    AgentList,
    AgentRevoke(String),
    ProjectCreate(ProjectCreate),
    Status,
    Decisions(DecisionQuery),
    PluginHealth,
    PluginDifferences(String),
}

/// The way to a socket that may lie deeper than the 107 bytes a socket's address takes: through the open folder.
struct Address {
    path: PathBuf,
    _folder: std::fs::File,
}

fn address(data_dir: &Path) -> io::Result<Address> {
    let folder = std::fs::File::open(data_dir)?;
    Ok(Address { path: PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())), _folder: folder })
}

/// Returns a listener on the data folder's socket. Call it with the folder's lock held.
///
/// # Errors
/// When the folder cannot be written.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let address = address(data_dir)?;
    match std::fs::remove_file(&address.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&address.path)?;
    std::fs::set_permissions(&address.path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves requests until `stop`, then ends the ones under way and removes the socket.
pub async fn serve(listener: UnixListener, data_dir: PathBuf, surface: Arc<dyn AdminSurface>, stop: CancellationToken) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = clients.join_next() => {}
            accepted = listener.accept(), if clients.len() < CLIENTS_MAX => match accepted {
                Ok((stream, _)) => {
                    let surface = surface.clone();
                    clients.spawn(async move {
                        if let Err(error) = exchange(stream, surface.as_ref()).await {
                            tracing::debug!(%error, "an admin client went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    while clients.join_next().await.is_some() {}
    drop(listener);
    if let Ok(address) = address(&data_dir) {
        let _ = std::fs::remove_file(&address.path);
    }
}

async fn exchange(mut stream: UnixStream, surface: &dyn AdminSurface) -> io::Result<()> {
    let (reading, mut writing) = stream.split();
    let mut line = String::new();
    let limit = Duration::from_millis(EXCHANGE_MS);
    tokio::time::timeout(limit, BufReader::new(reading.take(REQUEST_BYTES_MAX)).read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => perform(surface, request).await,
        Err(error) => Err(AdminError::Refused {
            code: "bad_request".to_owned(),
            why: format!("the request cannot be read: {error}"),
            advice: "Use the `pointsman` command of the same version as the host.".to_owned(),
        }),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    tokio::time::timeout(limit, writing.write_all(&bytes)).await?
}

async fn perform(surface: &dyn AdminSurface, request: Request) -> Result<Value, AdminError> {
    match request {
        Request::AgentAdd(add) => surface.agent_add(add).await.and_then(|answer| json(&answer)),
        Request::AgentList => surface.agent_list().await.and_then(|answer| json(&answer)),
        Request::AgentRevoke(which) => surface.agent_revoke(&which).await.and_then(|answer| json(&answer)),
        Request::ProjectCreate(create) => surface.project_create(create).await.and_then(|answer| json(&answer)),
        Request::Status => surface.status().await.and_then(|answer| json(&answer)),
        Request::Decisions(query) => surface.decisions(query).await.and_then(|answer| json(&answer)),
        Request::PluginHealth => surface.plugin_health().await.and_then(|answer| json(&answer)),
        Request::PluginDifferences(plugin) => surface.plugin_differences(&plugin).await.and_then(|answer| json(&answer)),
    }
}

fn json<T: Serialize>(answer: &T) -> Result<Value, AdminError> {
    serde_json::to_value(answer).map_err(|error| AdminError::Unavailable { why: error.to_string() })
}

/// A running host, seen through its socket.
#[derive(Debug, Clone)]
pub struct AdminClient {
    data_dir: PathBuf,
}

impl AdminClient {
    /// Returns the host that runs on a data folder, if one does.
    ///
    /// # Errors
    /// When the socket is there and may not be used.
    pub async fn connect(data_dir: &Path) -> io::Result<Option<Self>> {
        match Self::open(data_dir).await {
            Ok(_) => Ok(Some(Self { data_dir: data_dir.to_owned() })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn open(data_dir: &Path) -> io::Result<UnixStream> {
        UnixStream::connect(&address(data_dir)?.path).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, AdminError> {
        let unavailable = |why: String| AdminError::Unavailable { why };
        let line = self.exchange(&request).await.map_err(|error| unavailable(format!("the host's socket: {error}")))?;
        if line.is_empty() {
            return Err(unavailable("the host went away before it answered".to_owned()));
        }
        let answer: Result<Value, AdminError> = serde_json::from_str(&line).map_err(|error| unavailable(error.to_string()))?;
        serde_json::from_value(answer?).map_err(|error| unavailable(format!("the host answered something else: {error}")))
    }

    async fn exchange(&self, request: &Request) -> io::Result<String> {
        let mut stream = Self::open(&self.data_dir).await?;
        let mut bytes = serde_json::to_vec(request)?;
        bytes.push(b'\n');
        stream.write_all(&bytes).await?;
        let mut line = String::new();
        let mut reading = BufReader::new(stream.take(ANSWER_BYTES_MAX));
        tokio::time::timeout(Duration::from_millis(ANSWER_MS), reading.read_line(&mut line)).await??;
        Ok(line)
    }
}

#[async_trait]
impl AdminSurface for AdminClient {
    async fn agent_add(&self, add: AgentAdd) -> Result<AgentAdded, AdminError> {
        self.ask(Request::AgentAdd(add)).await
    }

    async fn agent_list(&self) -> Result<Vec<AgentListed>, AdminError> {
        self.ask(Request::AgentList).await
    }

    async fn agent_revoke(&self, token_or_name: &str) -> Result<Vec<AgentListed>, AdminError> {
        self.ask(Request::AgentRevoke(token_or_name.to_owned())).await
    }

    async fn project_create(&self, create: ProjectCreate) -> Result<ProjectCreated, AdminError> {
        self.ask(Request::ProjectCreate(create)).await
    }

    async fn status(&self) -> Result<HostStatus, AdminError> {
        self.ask(Request::Status).await
    }

    async fn decisions(&self, query: DecisionQuery) -> Result<DecisionPage, AdminError> {
        self.ask(Request::Decisions(query)).await
    }

    async fn plugin_health(&self) -> Result<BTreeMap<String, Health>, AdminError> {
        self.ask(Request::PluginHealth).await
    }

    async fn plugin_differences(&self, plugin: &str) -> Result<Vec<Difference>, AdminError> {
        self.ask(Request::PluginDifferences(plugin.to_owned())).await
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use pointsman_core::event::Provenance;
    use pointsman_core::ids::{ProjectId, TokenId};
    use pointsman_core::time::TimeMs;

    use super::*;

    /// A surface that keeps its credentials in memory.
    #[derive(Default)]
    struct Memory(Mutex<Vec<AgentListed>>);

    #[async_trait]
    impl AdminSurface for Memory {
        async fn agent_add(&self, add: AgentAdd) -> Result<AgentAdded, AdminError> {
            let token = TokenId::new(TimeMs(1), [u8::try_from(self.0.lock().len()).unwrap_or(0); 10]);
            self.0.lock().push(AgentListed {
                token,
                name: add.name.clone(),
                provenance: add.provenance,
                projects: add.projects.clone(),
                capabilities: add.capabilities,
                toolsets: add.toolsets,
                created_at: TimeMs(1),
                expires_at: None,
                revoked_at: None,
                live: true,
            });
            Ok(AgentAdded { token, secret: "s3cret".to_owned(), name: add.name, projects: add.projects, expires_at: None })
        }

        async fn agent_list(&self) -> Result<Vec<AgentListed>, AdminError> {
            Ok(self.0.lock().clone())
        }

        async fn agent_revoke(&self, token_or_name: &str) -> Result<Vec<AgentListed>, AdminError> {
            let (gone, kept) = self.0.lock().drain(..).partition(|agent| agent.name == token_or_name);
            *self.0.lock() = kept;
            let gone: Vec<AgentListed> = gone;
            if gone.is_empty() {
                return Err(AdminError::Refused {
                    code: "not_found".to_owned(),
                    why: format!("there is no `{token_or_name}`"),
                    advice: "See `pointsman agent list`.".to_owned(),
                });
            }
            Ok(gone)
        }

        async fn project_create(&self, create: ProjectCreate) -> Result<ProjectCreated, AdminError> {
            Ok(ProjectCreated { id: ProjectId::new(TimeMs(1), [1; 10]), slug: create.slug, target: create.target, is_new: true })
        }

        async fn status(&self) -> Result<HostStatus, AdminError> {
            Ok(HostStatus { version: "0".to_owned(), url: None, not_ready: None, projects: Vec::new(), plugins: Vec::new() })
        }

        async fn decisions(&self, _: DecisionQuery) -> Result<DecisionPage, AdminError> {
            Ok(DecisionPage { decisions: Vec::new(), next: None })
        }

        async fn plugin_health(&self) -> Result<BTreeMap<String, Health>, AdminError> {
            Ok(BTreeMap::new())
        }

        async fn plugin_differences(&self, _: &str) -> Result<Vec<Difference>, AdminError> {
            Ok(Vec::new())
        }
    }

    struct Running {
        folder: tempfile::TempDir,
        data_dir: PathBuf,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    /// Serves a folder whose path is longer than a socket's address may be.
    fn run() -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("d".repeat(120));
        std::fs::create_dir(&data_dir).expect("a folder in it");
        let stop = CancellationToken::new();
        let listener = bind(&data_dir).expect("the socket binds");
        let task = tokio::spawn(serve(listener, data_dir.clone(), Arc::new(Memory::default()), stop.clone()));
        Running { folder, data_dir, stop, task }
    }

    fn ana() -> AgentAdd {
        AgentAdd {
            name: "ana".to_owned(),
            provenance: Provenance::Human,
            capabilities: vec!["rust".to_owned()],
            toolsets: Vec::new(),
            projects: vec!["p".to_owned()],
            lifetime_ms: None,
        }
    }

    #[tokio::test]
    async fn answers_and_refusals_cross_the_socket_whole() {
        let host = run();
        let mode = std::fs::metadata(host.data_dir.join(SOCKET)).expect("the socket is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let client = AdminClient::connect(&host.data_dir).await.expect("connects").expect("a host runs");
        let added = client.agent_add(ana()).await.expect("added");
        assert_eq!((added.name.as_str(), added.secret.as_str()), ("ana", "s3cret"));
        let listed = client.agent_list().await.expect("listed");
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].token, added.token);
        assert_eq!(client.agent_revoke("ana").await.expect("revoked"), listed);
        let refused = client.agent_revoke("ana").await.expect_err("nobody is left");
        assert!(matches!(refused, AdminError::Refused { ref code, .. } if code == "not_found"), "{refused:?}");
        assert!(client.status().await.is_ok());
        let project = ProjectCreate { slug: "p".to_owned(), source: None, target: "main".to_owned() };
        assert!(client.project_create(project).await.expect("made").is_new);

        host.stop.cancel();
        host.task.await.expect("the server ends");
        assert!(AdminClient::connect(&host.data_dir).await.expect("no error").is_none(), "nobody runs any more");
        drop(host.folder);
    }

    #[tokio::test]
    async fn a_socket_left_by_a_dead_host_is_no_host_and_is_taken_over() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(AdminClient::connect(folder.path()).await.expect("no error").is_none(), "no host ever ran");
        drop(bind(folder.path()).expect("binds"));
        assert!(AdminClient::connect(folder.path()).await.expect("no error").is_none(), "its host died");
        bind(folder.path()).expect("the next host binds");
    }

    #[tokio::test]
    async fn a_line_that_is_no_request_is_refused() {
        let host = run();
        for wrong in ["nonsense\n", "{\"op\":\"fly\"}\n", "\n"] {
            let mut stream = AdminClient::open(&host.data_dir).await.expect("connects");
            stream.write_all(wrong.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("answered");
            assert!(answer.contains("bad_request"), "{answer}");
        }
        host.stop.cancel();
        host.task.await.expect("the server ends");
    }
}
