//! A running host, seen through its socket.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use pointsman_core::ids::MessageId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixStream;

use super::super::rest::{BASE, change_body, encoded, query_of, worded};
use super::address;
use crate::ports::admin::{
    AdminError, AdminSurface, AgentAdd, AgentAdded, AgentListed, DecisionQuery, Explained, HostStatus, ProjectCreate, ProjectCreated,
    ProjectListed, WhyQuery,
};
use crate::ports::decision::DecisionPage;
use crate::ports::health::{Difference, Health};
use crate::ports::letters::{LetterPage, LetterSelection, LetterShown, LetterVerb, LettersChanged, Run};
use crate::ports::registry::{PluginAdd, PluginChange, PluginListed};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Milliseconds a client waits for the answer: a project's first copy of a large repository takes its time.
const ANSWER_MS: u64 = 10 * 60 * 1_000;

/// A client of the host that runs on a data folder.
#[derive(Debug, Clone)]
pub struct AdminClient {
    data_dir: PathBuf,
}

/// What of a problem document the client needs.
#[derive(Deserialize)]
struct ProblemRead {
    code: String,
    detail: String,
    #[serde(rename = "do")]
    advice: String,
}

fn unavailable(why: impl Into<String>) -> AdminError {
    AdminError::Unavailable { why: why.into() }
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

    pub(super) async fn open(data_dir: &Path) -> io::Result<UnixStream> {
        UnixStream::connect(&address(data_dir)?.path).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> Result<T, AdminError> {
        let asked = tokio::time::timeout(Duration::from_millis(ANSWER_MS), self.exchange(method, path, body)).await;
        let (status, answer) = asked.map_err(|_| unavailable("the host did not answer in time"))??;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|error| unavailable(format!("the host answered something else: {error}")));
        }
        let problem: ProblemRead = serde_json::from_slice(&answer)
            .map_err(|_| unavailable(format!("the host answered {}: is it of the same version?", status.as_u16())))?;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(unavailable(problem.detail));
        }
        Err(AdminError::Refused { code: problem.code, why: problem.detail, advice: problem.advice })
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Value>) -> Result<(StatusCode, Bytes), AdminError> {
        let away = |error: hyper::Error| unavailable(format!("the host went away before it answered: {error}"));
        let stream = Self::open(&self.data_dir).await.map_err(|error| unavailable(format!("the host's socket: {error}")))?;
        let request = Request::builder()
            .method(method)
            .uri(format!("{BASE}/{path}"))
            .header(HOST, "localhost")
            .header(CONNECTION, "close")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.map(|body| body.to_string()).unwrap_or_default())))
            .map_err(|error| unavailable(error.to_string()))?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(away)?;
        let answered = async {
            let response = sender.send_request(request).await.map_err(away)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| unavailable(format!("the host's answer: {error}")))?.to_bytes()))
        };
        let mut answered = std::pin::pin!(answered);
        let mut driver = std::pin::pin!(driver);
        tokio::select! {
            answer = answered.as_mut() => answer,
            _ = driver.as_mut() => answered.await,
        }
    }

    async fn list<T: DeserializeOwned>(&self, method: Method, path: &str, name: &str) -> Result<Vec<T>, AdminError> {
        let mut answer: Value = self.ask(method, path, None).await?;
        serde_json::from_value(answer[name].take()).map_err(|error| unavailable(format!("the host answered something else: {error}")))
    }
}

fn json(body: &impl Serialize) -> Result<Option<Value>, AdminError> {
    serde_json::to_value(body).map(Some).map_err(|error| unavailable(error.to_string()))
}

#[async_trait]
impl AdminSurface for AdminClient {
    async fn agent_add(&self, add: AgentAdd) -> Result<AgentAdded, AdminError> {
        self.ask(Method::POST, "agents", json(&add)?).await
    }

    async fn agent_list(&self) -> Result<Vec<AgentListed>, AdminError> {
        self.list(Method::GET, "agents", "agents").await
    }

    async fn agent_revoke(&self, token_or_name: &str) -> Result<Vec<AgentListed>, AdminError> {
        self.list(Method::DELETE, &format!("agents/{}", encoded(token_or_name)), "revoked").await
    }

    async fn project_list(&self) -> Result<Vec<ProjectListed>, AdminError> {
        self.list(Method::GET, "projects", "projects").await
    }

    async fn project_create(&self, create: ProjectCreate) -> Result<ProjectCreated, AdminError> {
        self.ask(Method::POST, "projects", json(&create)?).await
    }

    async fn status(&self) -> Result<HostStatus, AdminError> {
        self.ask(Method::GET, "status", None).await
    }

    async fn why(&self, query: WhyQuery) -> Result<Explained, AdminError> {
        let project = query.project.map(|slug| format!("?project={}", encoded(&slug))).unwrap_or_default();
        self.ask(Method::GET, &format!("why/{}{project}", encoded(&query.id)), None).await
    }

    async fn plugin_list(&self) -> Result<Vec<PluginListed>, AdminError> {
        self.list(Method::GET, "plugins", "plugins").await
    }

    async fn plugin(&self, name: &str) -> Result<PluginListed, AdminError> {
        self.ask(Method::GET, &format!("plugins/{}", encoded(name)), None).await
    }

    async fn plugin_add(&self, add: PluginAdd) -> Result<PluginListed, AdminError> {
        self.ask(Method::POST, "plugins", json(&add)?).await
    }

    async fn plugin_remove(&self, name: &str) -> Result<PluginListed, AdminError> {
        self.ask(Method::DELETE, &format!("plugins/{}", encoded(name)), None).await
    }

    async fn plugin_change(&self, name: &str, change: PluginChange) -> Result<PluginListed, AdminError> {
        let (verb, body) = worded(&change);
        self.ask(Method::POST, &format!("plugins/{}/{verb}", encoded(name)), Some(body)).await
    }

    async fn reload(&self) -> Result<Vec<PluginListed>, AdminError> {
        self.list(Method::POST, "reload", "plugins").await
    }

    async fn letters(&self, selection: LetterSelection) -> Result<LetterPage, AdminError> {
        self.ask(Method::GET, &format!("letters?{}", query_of(&selection)), None).await
    }

    async fn letter(&self, message: MessageId) -> Result<LetterShown, AdminError> {
        self.ask(Method::GET, &format!("letters/{message}"), None).await
    }

    async fn letters_change(&self, verb: LetterVerb, run: Run, selection: LetterSelection) -> Result<LettersChanged, AdminError> {
        let (word, body) = change_body(verb, run, selection);
        self.ask(Method::POST, &format!("letters/{word}"), Some(body)).await
    }

    async fn decisions(&self, query: DecisionQuery) -> Result<DecisionPage, AdminError> {
        let DecisionQuery { plugin, since_ms, after, limit } = query;
        let after = after.map(|after| format!("&after={}", encoded(&after))).unwrap_or_default();
        self.ask(Method::GET, &format!("plugins/{}/decisions?since_ms={since_ms}&limit={limit}{after}", encoded(&plugin)), None).await
    }

    async fn plugin_health(&self) -> Result<BTreeMap<String, Health>, AdminError> {
        self.ask(Method::GET, "health", None).await
    }

    async fn plugin_differences(&self, plugin: &str) -> Result<Vec<Difference>, AdminError> {
        self.list(Method::GET, &format!("plugins/{}/differences", encoded(plugin)), "differences").await
    }
}
