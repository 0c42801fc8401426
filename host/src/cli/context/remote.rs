//! The host as `pointsman context` sees it: documents by HTTP, what HTTP has no word for by MCP.

use bytes::Bytes;
use pointsman_client::{Client, RawAnswer, TransportError};
use pointsman_core::context::DocumentKey;
use serde_json::Value;

use super::super::Trouble;
use super::super::inbox::{Inbox, InboxArgs, Unseen};
use super::{Manifest, RANGE_BYTES};
use crate::config::Environment;

/// Milliseconds an answer may take: a document of the largest size is written in it.
const ANSWER_MS: u64 = 300_000;

/// An answer to a question that may be about nothing.
pub(super) enum Asked {
    Found(RawAnswer),
    /// There is no such document.
    Missing,
}

/// The documents of a project, as an agent sees them.
pub(super) struct Remote {
    inbox: Inbox,
    authorization: String,
    /// What the paths of documents begin with.
    base: String,
}

impl Remote {
    /// Returns the documents; nothing is sent yet.
    pub(super) fn open(environment: &Environment, args: &InboxArgs) -> Result<Self, Trouble> {
        let inbox = args.open(environment, ANSWER_MS)?;
        let authorization = format!("Bearer {}", args.token(environment));
        let path = inbox.url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
        // The endpoint is PREFIX/mcp or PREFIX/mcp/SLUG.
        let (prefix, slug) = match path.rsplit_once("mcp/") {
            Some((prefix, slug)) => (prefix, slug),
            None => (path.strip_suffix("mcp").unwrap_or(path), "-"),
        };
        let base = format!("/{prefix}context/{slug}/");
        Ok(Self { inbox, authorization, base })
    }

    fn client(&self) -> &Client {
        &self.inbox.client
    }

    async fn once(&self, method: &str, path: &str, fields: &[(&str, &str)], body: Bytes) -> Result<RawAnswer, Trouble> {
        let mut headers = vec![("authorization", self.authorization.as_str())];
        headers.extend(self.inbox.agent.as_deref().map(|agent| ("pointsman-agent", agent)));
        headers.extend_from_slice(fields);
        let path = format!("{}{path}", self.base);
        self.client().request(method, &path, &headers, body).await.map_err(|error| match error {
            TransportError::BadRequest { why } => Trouble::misused(why, "correct the call"),
            other @ (TransportError::Unreachable { .. }
            | TransportError::Interrupted { .. }
            | TransportError::TimedOut { .. }
            | TransportError::Malformed { .. }) => {
                Trouble::failed(format!("the host at {}: {other}\n  Run the command again: it goes on where it was.", self.inbox.url))
            }
        })
    }

    /// Asks for a document, or for something to be done with it. An agent that has not started yet is started first.
    pub(super) async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: Vec<u8>) -> Result<Asked, Trouble> {
        let body = Bytes::from(body);
        let mut answer = self.once(method, path, fields, body.clone()).await?;
        if is_unstarted(&answer) {
            self.inbox.start().await.map_err(|unseen| unseen_trouble(&unseen))?;
            answer = self.once(method, path, fields, body).await?;
        }
        match answer.status {
            200..300 => Ok(Asked::Found(answer)),
            404 if method == "GET" && !is_unstarted(&answer) && answer.json()["code"] == "not_found" => Ok(Asked::Missing),
            _ => Err(self.refused(&answer)),
        }
    }

    /// As [`Remote::ask`], where what is not there is an error.
    pub(super) async fn found(&self, method: &str, path: &str, fields: &[(&str, &str)], body: Vec<u8>) -> Result<RawAnswer, Trouble> {
        match self.ask(method, path, fields, body).await? {
            Asked::Found(answer) => Ok(answer),
            Asked::Missing => Err(Trouble::failed("there is no such document\n  `pointsman context list` names those there are")),
        }
    }

    /// Hands on the bytes of a version behind a place, part by part.
    pub(super) async fn read(
        &self,
        key: &DocumentKey,
        manifest: &Manifest,
        mut from: u64,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), Trouble> {
        while from < manifest.size_bytes {
            let range = format!("bytes={from}-{}", from + RANGE_BYTES - 1);
            let path = format!("{key}?version={}", manifest.version);
            let part = self.found("GET", &path, &[("range", &range)], Vec::new()).await?;
            if part.status != 206 || part.body.is_empty() {
                return Err(Trouble::failed(format!(
                    "the host at {} sends no parts of documents\n  Is it of this version?",
                    self.inbox.url
                )));
            }
            take(&part.body)?;
            from += part.body.len() as u64;
        }
        Ok(())
    }

    /// Calls a tool; returns its result.
    pub(super) async fn call(&self, tool: &str, arguments: Value) -> Result<Value, Trouble> {
        let answer = match self.inbox.call(tool, arguments.clone()).await {
            Err(Unseen::NotStarted { .. }) => {
                self.inbox.start().await.map_err(|unseen| unseen_trouble(&unseen))?;
                self.inbox.call(tool, arguments).await
            }
            answered => answered,
        };
        Ok(answer.map_err(|unseen| unseen_trouble(&unseen))?["result"].clone())
    }

    fn refused(&self, answer: &RawAnswer) -> Trouble {
        let said = answer.json();
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let why =
            [text("why"), text("detail"), format!("HTTP {}", answer.status)].into_iter().find(|why| !why.is_empty()).unwrap_or_default();
        let advice = match (answer.status, said["data"]["conflict"].as_str()) {
            (_, Some(id)) => format!(
                "nothing was written; what you sent is kept as {id}: `lookup` of context_conflict/{id} shows both sides. Get version {}, work your \
                 change into it, and put it with --base {}",
                said["data"]["current_version"], said["data"]["current_version"]
            ),
            (401, _) => self.inbox.token_advice(),
            _ => text("do"),
        };
        Trouble::Failed(format!("error: {why}\n  {advice}").trim_end().to_owned())
    }
}

/// Returns whether the agent that asks was never started.
fn is_unstarted(answer: &RawAnswer) -> bool {
    let said = answer.json();
    said["code"] == "start_first" || said["why"].as_str().is_some_and(|why| why.starts_with("this project has no agent"))
}

fn unseen_trouble(unseen: &Unseen) -> Trouble {
    match unseen {
        Unseen::Refused { why, advice } => Trouble::Failed(format!("error: {why}\n  {advice}")),
        Unseen::Away { .. } | Unseen::NotStarted { .. } => Trouble::failed(unseen.line()),
    }
}
