//! What the transport needs of the host: who a credential names, which tools there are, what a call answers.
//!
//! Driving port: the transport calls it, the services stand behind it.

use std::sync::Arc;

use async_trait::async_trait;
use pointsman_core::agent::TokenRecord;
use pointsman_core::ids::ProjectId;
use serde_json::value::RawValue;

use super::repository::{ByteStream, GitResponse, GitService};

/// A caller whose credential was checked.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The credential.
    pub token: Arc<TokenRecord>,
    /// The project the endpoint names, opened by the token.
    pub project: ProjectId,
    /// The agent that the legacy session or a sealed handle in the call selects; none before `start`.
    pub handle: Option<String>,
    /// The request id that logs and events carry.
    pub trace: String,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No credential came.
    #[error("no bearer token in the `Authorization` header")]
    Missing,
    /// The credential is unknown, expired or revoked.
    #[error("the bearer token is not valid: {why}")]
    Invalid {
        /// What seems wrong with it, in words for whoever configured the client.
        why: String,
    },
    /// The token does not open this project.
    #[error("the token does not open project `{slug}`")]
    Forbidden {
        /// The project asked for.
        slug: String,
    },
    /// The access token is valid, but not good for this.
    #[error("the access token lacks a scope that this needs")]
    InsufficientScope {
        /// All that it takes, for one new authorization.
        scopes: Vec<String>,
    },
    /// The credential calls too often.
    #[error("this credential calls more often than the host allows")]
    TooMany {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// We could not find out.
    #[error("credentials cannot be checked now")]
    Unavailable {
        /// When to try again.
        retry_after_ms: u64,
    },
}

/// The answer of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolAnswer {
    /// The JSON object that is both the structured content and the text.
    pub json: String,
    /// Whether it is an error the agent can act on.
    pub is_error: bool,
    /// A new sealed agent handle, which a legacy session remembers.
    pub handle: Option<String>,
}

/// Why a call had no tool answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such tool for this credential.
    #[error("unknown tool `{0}`")]
    UnknownTool(String),
    /// No such resource for this credential.
    #[error("unknown resource `{0}`")]
    UnknownResource(String),
    /// No such prompt.
    #[error("unknown prompt `{0}`")]
    UnknownPrompt(String),
    /// No such deferred call of this principal, or no longer.
    #[error("unknown task `{0}`")]
    UnknownTask(String),
    /// Parameters that fit nothing.
    #[error("{0}")]
    InvalidParams(String),
    /// As much as one caller may have is going on.
    #[error("{0}")]
    TooMany(String),
    /// A bug or a lost dependency; the details are in the log under the trace id.
    #[error("internal error, see the host's log for {trace}")]
    Internal {
        /// Which log lines.
        trace: String,
    },
}

/// The agents' surface.
#[async_trait]
pub trait Surface: Send + Sync {
    /// Checks a credential for a project: by its slug, or the token's first when none is named.
    ///
    /// # Errors
    /// [`Rejected`].
    async fn admit(&self, bearer: Option<&str>, slug: Option<&str>, trace: String) -> Result<Caller, Rejected>;

    /// Counts a call beyond the one that a caller was admitted for: a request may carry several.
    ///
    /// # Errors
    /// `TooMany`.
    fn count(&self, caller: &Caller) -> Result<(), Rejected>;

    /// Returns whether a credential that was admitted is good still: streams end with the credential they were opened by.
    async fn is_good(&self, credential: &TokenRecord) -> bool;

    /// Returns the scopes that a caller without any should ask an authorization server for; none when there is none, or it needs none.
    async fn scopes_needed(&self, slug: Option<&str>) -> Vec<String>;

    /// Returns the instructions for clients.
    fn instructions(&self) -> &'static str;

    /// Calls one of the host's own tools. Dropping the future cancels the wait of a long poll and nothing else: a started write goes on.
    ///
    /// # Errors
    /// [`CallError`]; everything an agent can act on is a [`ToolAnswer`] with `is_error`.
    async fn call(&self, caller: &Caller, tool: &str, arguments: &RawValue) -> Result<ToolAnswer, CallError>;

    /// Returns whether calls of this tool mostly wait, so that the transport ends them at once when the host drains. By
    /// convention these are the tools named `wait_…`.
    fn waits(&self, tool: &str) -> bool {
        tool.starts_with("wait_")
    }

    /// Returns whether the host can serve: the store answers, plugins are loaded.
    ///
    /// # Errors
    /// The reason, for `/readyz`.
    async fn ready(&self) -> Result<(), String>;

    /// Returns whether the store is away, and the host does meanwhile what it can without it.
    fn is_degraded(&self) -> bool {
        false
    }
}

/// One request of a git client, its credential not yet checked.
pub struct GitCall {
    /// User name and password of the `Authorization: Basic` header.
    pub basic: Option<(String, String)>,
    /// The project named by the path.
    pub slug: String,
    /// What is asked.
    pub service: GitService,
    /// `GET /info/refs`; else a call with a body.
    pub advertise: bool,
    /// The `Git-Protocol` header.
    pub protocol: Option<String>,
    /// The body, already decompressed; empty for an advertisement.
    pub body: ByteStream,
    /// The request id that logs and events carry.
    pub trace: String,
}

/// Why a git client is not served. The text reaches whoever runs git, as `remote: …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitRejected {
    /// No credential, or one that names nobody: git asks its credential helper and comes again.
    #[error("{why}")]
    Unauthorized {
        /// What is missing or wrong.
        why: String,
    },
    /// The credential is good, but not for this.
    #[error("{why}")]
    Forbidden {
        /// What it may not do, and what to do instead.
        why: String,
    },
    /// No such repository for this credential.
    #[error("no repository `{slug}`")]
    NotFound {
        /// The project asked for.
        slug: String,
    },
    /// We could not find out, or the repository is busy.
    #[error("the repository cannot be served now")]
    Unavailable {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// A bug or a lost dependency; the details are in the log under the trace id.
    #[error("internal error, see the host's log for {trace}")]
    Internal {
        /// Which log lines.
        trace: String,
    },
}

/// The git clients' surface: checks the credential, then lets the repository answer.
#[async_trait]
pub trait GitSurface: Send + Sync {
    /// Serves one request of git's smart HTTP protocol. Dropping the future does not undo a push that began.
    ///
    /// # Errors
    /// [`GitRejected`].
    async fn serve_git(&self, call: GitCall) -> Result<GitResponse, GitRejected>;
}
