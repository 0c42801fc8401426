use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use async_trait::async_trait;
use parking_lot::Mutex;
use pointsman_core::event::Provenance;
use pointsman_core::ids::{MessageId, ProjectId, TokenId};
use pointsman_core::time::TimeMs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::adapters::http::rest::Rest;
use crate::ports::admin::{
    AdminError, AdminSurface, AgentAdd, AgentAdded, AgentListed, DecisionQuery, Explained, HostStatus, ProjectCreate, ProjectCreated,
    ProjectListed, WhyQuery,
};
use crate::ports::decision::DecisionPage;
use crate::ports::health::{Difference, Health};
use crate::ports::letters::{LetterPage, LetterSelection, LetterShown, LetterVerb, LettersChanged, ReplayTo, Run};
use crate::ports::registry::{PluginAdd, PluginChange, PluginListed};

/// A surface that keeps its credentials in memory.
#[derive(Default)]
struct Memory(Mutex<Vec<AgentListed>>);

fn refused(what: &str) -> AdminError {
    AdminError::Refused { code: "not_found".to_owned(), why: format!("there is no `{what}`"), advice: "See the list.".to_owned() }
}

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
        Ok(AgentAdded { token, secret: "s3cret".to_owned(), name: add.name, projects: add.projects, expires_at: Some(TimeMs(5)) })
    }

    async fn agent_list(&self) -> Result<Vec<AgentListed>, AdminError> {
        Ok(self.0.lock().clone())
    }

    async fn agent_revoke(&self, token_or_name: &str) -> Result<Vec<AgentListed>, AdminError> {
        let (gone, kept) = self.0.lock().drain(..).partition(|agent| agent.name == token_or_name);
        *self.0.lock() = kept;
        let gone: Vec<AgentListed> = gone;
        if gone.is_empty() { Err(refused(token_or_name)) } else { Ok(gone) }
    }

    async fn project_list(&self) -> Result<Vec<ProjectListed>, AdminError> {
        Ok(Vec::new())
    }

    async fn project_create(&self, create: ProjectCreate) -> Result<ProjectCreated, AdminError> {
        Ok(ProjectCreated { id: ProjectId::new(TimeMs(1), [1; 10]), slug: create.slug, target: create.target, is_new: true })
    }

    async fn status(&self) -> Result<HostStatus, AdminError> {
        Ok(HostStatus::default())
    }

    async fn why(&self, query: WhyQuery) -> Result<Explained, AdminError> {
        Err(refused(&format!("{} in {:?}", query.id, query.project)))
    }

    async fn plugin_list(&self) -> Result<Vec<PluginListed>, AdminError> {
        Ok(Vec::new())
    }

    async fn plugin(&self, name: &str) -> Result<PluginListed, AdminError> {
        Err(refused(name))
    }

    async fn plugin_add(&self, add: PluginAdd) -> Result<PluginListed, AdminError> {
        Err(refused(&add.source))
    }

    async fn plugin_remove(&self, name: &str) -> Result<PluginListed, AdminError> {
        Err(refused(name))
    }

    async fn plugin_change(&self, name: &str, change: PluginChange) -> Result<PluginListed, AdminError> {
        Err(refused(&format!("{name} {change:?}")))
    }

    async fn reload(&self) -> Result<Vec<PluginListed>, AdminError> {
        Err(AdminError::Unavailable { why: "not now".to_owned() })
    }

    async fn letters(&self, selection: LetterSelection) -> Result<LetterPage, AdminError> {
        Ok(LetterPage { letters: Vec::new(), next: Some(format!("{selection:?}")) })
    }

    async fn letter(&self, message: MessageId) -> Result<LetterShown, AdminError> {
        Err(refused(&message.to_string()))
    }

    async fn letters_change(&self, verb: LetterVerb, run: Run, selection: LetterSelection) -> Result<LettersChanged, AdminError> {
        Ok(LettersChanged { next: Some(format!("{verb:?} {run:?} {selection:?}")), ..LettersChanged::default() })
    }

    async fn decisions(&self, query: DecisionQuery) -> Result<DecisionPage, AdminError> {
        Ok(DecisionPage { decisions: Vec::new(), next: Some(format!("{query:?}")) })
    }

    async fn plugin_health(&self) -> Result<BTreeMap<String, Health>, AdminError> {
        Ok(BTreeMap::new())
    }

    async fn plugin_differences(&self, _: &str) -> Result<Vec<Difference>, AdminError> {
        Ok(Vec::new())
    }
}

struct Randomness;

impl System for Randomness {
    fn random(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own clock")]
    fn instant(&self) -> std::time::Instant {
        std::time::Instant::now()
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
    let rest = Rest::new(Arc::new(Memory::default()), "text/plain", Arc::new(|| "some_figure 1\n".to_owned()));
    let task = tokio::spawn(serve(listener, data_dir.clone(), rest, Arc::new(Randomness), stop.clone()));
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
    assert_eq!((added.name.as_str(), added.secret.as_str(), added.expires_at), ("ana", "s3cret", Some(TimeMs(5))));
    let listed = client.agent_list().await.expect("listed");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].token, added.token);
    assert_eq!(client.agent_revoke("ana").await.expect("revoked"), listed);
    let nobody = client.agent_revoke("a b/c").await.expect_err("nobody is left");
    assert_eq!(nobody, refused("a b/c"));
    assert!(client.status().await.is_ok() && client.project_list().await.is_ok() && client.plugin_list().await.is_ok());
    let project = ProjectCreate { slug: "p".to_owned(), source: None, target: "main".to_owned() };
    assert!(client.project_create(project).await.expect("made").is_new);
    let pin = PluginChange::Pin { digest: Some("ab".to_owned()) };
    assert_eq!(client.plugin_change("x", pin.clone()).await, Err(refused(&format!("x {pin:?}"))));
    let why = WhyQuery { id: "msg_1/ana b".to_owned(), project: Some("p/q".to_owned()) };
    assert_eq!(client.why(why).await, Err(refused("msg_1/ana b in Some(\"p/q\")")));
    assert!(matches!(client.reload().await, Err(AdminError::Unavailable { .. })));

    let selection = LetterSelection { agent: Some("a b".to_owned()), limit: Some(3), ..LetterSelection::default() };
    assert_eq!(client.letters(selection.clone()).await.expect("a page").next, Some(format!("{selection:?}")));
    let id = MessageId::new(TimeMs(1), [1; 10]);
    assert_eq!(client.letter(id).await, Err(refused(&id.to_string())));
    let verb = LetterVerb::Replay(ReplayTo::Anew);
    let changed = client.letters_change(verb, Run::Dry, selection.clone()).await.expect("an answer");
    assert_eq!(changed.next, Some(format!("{verb:?} Dry {selection:?}")));

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
async fn what_is_no_request_is_refused_as_a_problem() {
    let host = run();
    let post = |path: &str, kind: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (request, status, code) in [
        (post("/api/v1/agents", "application/json", "nonsense"), "400", "malformed"),
        (post("/api/v1/agents", "application/json", "{\"fly\": 1}"), "400", "malformed"),
        (post("/api/v1/agents", "text/plain", "{}"), "415", "unsupported_media_type"),
        (post("/api/v1/status", "application/json", ""), "405", "method_not_allowed"),
        (post("/api/v1/fly", "application/json", ""), "404", "no_such_path"),
        (post("/api/v1/plugins/x/enable", "application/json", "{}"), "404", "not_found"),
    ] {
        let mut stream = AdminClient::open(&host.data_dir).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    }
    host.stop.cancel();
    host.task.await.expect("the server ends");
}
