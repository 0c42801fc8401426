//! What an operator asks of the host: credentials, projects, plugins, how it is.
//!
//! Driving port: the API calls it, over the data folder's socket and for credentials with the toolset `admin`; and so does the
//! command line when no host runs, on the opened store itself. Whoever may open the data folder may do all of this.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use pointsman_core::event::Provenance;
use pointsman_core::ids::{MessageId, ProjectId, TokenId};
use pointsman_core::time::TimeMs;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::decision::DecisionPage;
use super::health::{Difference, Health};
use super::letters::{LetterPage, LetterSelection, LetterShown, LetterVerb, LettersChanged, MessagesKept, Run};
use super::registry::{PluginAdd, PluginChange, PluginListed, PluginTrouble};
use super::wire_time;

/// A credential to mint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentAdd {
    /// The principal it names. A name that exists gets one more token.
    pub name: String,
    /// Human or agent.
    #[serde(default = "default_provenance")]
    pub provenance: Provenance,
    /// Capability names its agents may claim; empty: any.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Toolsets beyond the default one.
    #[serde(default)]
    pub toolsets: Vec<String>,
    /// Slugs of the projects it opens, the one behind plain `/mcp` first; empty: all there are now.
    #[serde(default)]
    pub projects: Vec<String>,
    /// Milliseconds until it stops working; none: never.
    #[serde(default)]
    pub lifetime_ms: Option<u64>,
}

fn default_provenance() -> Provenance {
    Provenance::Agent
}

/// A new credential. The only time its secret is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAdded {
    /// For listing and revoking.
    pub token: TokenId,
    /// The bearer token.
    pub secret: String,
    /// Whom it names.
    pub name: String,
    /// Slugs of the projects it opens.
    pub projects: Vec<String>,
    /// When it stops working.
    #[serde(with = "wire_time::option")]
    pub expires_at: Option<TimeMs>,
}

/// A credential, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentListed {
    /// Which.
    pub token: TokenId,
    /// Whom it names.
    pub name: String,
    /// Human or agent.
    pub provenance: Provenance,
    /// Slugs of the projects it opens.
    pub projects: Vec<String>,
    /// Capability names its agents may claim; empty: any.
    pub capabilities: Vec<String>,
    /// Toolsets beyond the default one.
    pub toolsets: Vec<String>,
    /// When it was minted.
    #[serde(with = "wire_time")]
    pub created_at: TimeMs,
    /// When it stops working.
    #[serde(with = "wire_time::option")]
    pub expires_at: Option<TimeMs>,
    /// When it was revoked.
    #[serde(with = "wire_time::option")]
    pub revoked_at: Option<TimeMs>,
    /// Whether it works now.
    pub live: bool,
}

/// A project to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectCreate {
    /// Its short name.
    pub slug: String,
    /// The repository it starts from, absolute; none: an empty one.
    #[serde(default)]
    pub source: Option<PathBuf>,
    /// The branch that work lands on.
    #[serde(default = "default_target")]
    pub target: String,
}

fn default_target() -> String {
    "main".to_owned()
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectListed {
    /// Its id.
    pub id: ProjectId,
    /// Its short name.
    pub slug: String,
    /// The branch that work lands on.
    pub target: String,
    /// When it was made.
    #[serde(with = "wire_time")]
    pub created_at: TimeMs,
}

/// A project that is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectCreated {
    /// Its id.
    pub id: ProjectId,
    /// Its short name.
    pub slug: String,
    /// The branch that work lands on.
    pub target: String,
    /// False when it was there before; nothing of it changed then.
    pub is_new: bool,
}

/// Times of deliveries, since the host follows the project's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// How many were measured.
    pub count: u64,
    /// Half of them took at most so long: the upper bound of a class; none: none was measured.
    pub p50_ms: Option<u64>,
    /// 99 of 100 took at most so long.
    pub p99_ms: Option<u64>,
}

/// How an agent fares with its messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxListed {
    /// Slug of its project.
    pub project: String,
    /// Its name.
    pub agent: String,
    /// Deliveries its next waits would hand out.
    pub unread: u32,
    /// Deliveries it was handed and has not acked.
    pub held: u32,
    /// When it last called this host, or started.
    #[serde(with = "wire_time")]
    pub last_call: TimeMs,
    /// From its inbox until it saw them.
    pub seen: Lag,
    /// From there until it acked them.
    pub acted: Lag,
}

/// How the host is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its version.
    pub version: String,
    /// Where clients reach it; none: no host runs, the store was opened by the asker.
    pub url: Option<String>,
    /// Why it cannot serve now; none: it can.
    pub not_ready: Option<String>,
    /// Slugs of its projects.
    pub projects: Vec<String>,
    /// How the messages of each project stand.
    #[serde(default)]
    pub messages: Vec<MessagesKept>,
    /// How its plugins stand.
    pub plugins: Vec<PluginListed>,
    /// Why the configuration was not taken in when it was read again.
    pub configuration: Option<PluginTrouble>,
    /// How agents fare with their messages, by project and name; at most 1,000.
    #[serde(default)]
    pub inboxes: Vec<InboxListed>,
    /// The hosts that serve the store, where several may.
    #[serde(default)]
    pub hosts: Vec<HostListed>,
}

/// A host that serves a store with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostListed {
    /// Its name, which it keeps over restarts.
    pub host: String,
    /// Where the others reach it.
    pub url: String,
    /// Whether it shows signs of life.
    pub is_live: bool,
    /// Whether it is the one that is asked.
    pub is_this: bool,
    /// Projects whose repositories it has.
    pub projects: usize,
}

/// What is to be explained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyQuery {
    /// `msg_…`, `msg_…/AGENT` for what became of it with one agent, `T-3`, `M-2`.
    pub id: String,
    /// Slug; none: the one project that has it.
    pub project: Option<String>,
}

/// One step of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyStep {
    /// When.
    #[serde(with = "wire_time")]
    pub at: TimeMs,
    /// Milliseconds since the step before.
    pub after_ms: u64,
    /// In plain words.
    pub says: String,
    /// Who acted.
    pub by: String,
    /// The event's type.
    pub event: String,
    /// What it is about.
    pub subject: String,
    /// Its place in the log.
    pub cursor: String,
}

/// How something came to stand where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Slug.
    pub project: String,
    /// What was asked for.
    pub id: String,
    /// `message`, `delivery`, `task` or `merge`.
    pub kind: String,
    /// What happened, the oldest first.
    pub steps: Vec<WhyStep>,
    /// Where it stands, and whose move it is: one sentence.
    pub stands: String,
    /// Whose move it is: an agent's name, `the host`, `an operator`, `any agent`; none: it is over.
    pub move_of: Option<String>,
    /// Whether the log is longer than was read: the newest steps may be missing.
    pub is_cut: bool,
}

/// Which recorded decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecisionQuery {
    /// Of which plugin.
    pub plugin: String,
    /// From this time on, in milliseconds since 1970.
    pub since_ms: i64,
    /// Where an earlier page ended.
    pub after: Option<String>,
    /// At most so many; with neither time nor place, the newest ones.
    pub limit: usize,
}

/// Why the host did not do what was asked. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminError {
    /// The operator can do something about it.
    #[error("{why}")]
    Refused {
        /// Stable, for programs: `not_found`, `exists`, …
        code: String,
        /// One sentence.
        why: String,
        /// One sentence.
        advice: String,
    },
    /// Nobody can do anything about it now.
    #[error("the host cannot do that now: {why}")]
    Unavailable {
        /// What is in the way.
        why: String,
    },
}

/// The operator's surface.
#[async_trait]
pub trait AdminSurface: Send + Sync {
    /// Mints a credential.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn agent_add(&self, add: AgentAdd) -> Result<AgentAdded, AdminError>;

    /// Returns all credentials, the oldest first.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn agent_list(&self) -> Result<Vec<AgentListed>, AdminError>;

    /// Revokes credentials: one by its token id, or all that name a principal. Returns those that stopped working.
    ///
    /// # Errors
    /// [`AdminError`]: `not_found`.
    async fn agent_revoke(&self, token_or_name: &str) -> Result<Vec<AgentListed>, AdminError>;

    /// Returns all projects, the oldest first.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn project_list(&self) -> Result<Vec<ProjectListed>, AdminError>;

    /// Makes a project, or finds the one of this slug.
    ///
    /// # Errors
    /// [`AdminError`]: the source is not a repository or has no such branch.
    async fn project_create(&self, create: ProjectCreate) -> Result<ProjectCreated, AdminError>;

    /// Returns how the host is.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn status(&self) -> Result<HostStatus, AdminError>;

    /// Returns how a message, delivery, task or merge came to stand where it stands.
    ///
    /// # Errors
    /// [`AdminError`]: `not_found`, `bad_argument`.
    async fn why(&self, query: WhyQuery) -> Result<Explained, AdminError>;

    /// Returns dead letters, the oldest message of a project first.
    ///
    /// # Errors
    /// [`AdminError`]: `not_found`, `bad_argument`.
    async fn letters(&self, selection: LetterSelection) -> Result<LetterPage, AdminError>;

    /// Returns a message with its dead letters and all that was tried.
    ///
    /// # Errors
    /// [`AdminError`]: `not_found`.
    async fn letter(&self, message: MessageId) -> Result<LetterShown, AdminError>;

    /// Delivers dead letters again, or takes them off the list: as many as one answer lists. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`AdminError`]: `not_found`, `bad_argument`. What does not fit one letter is said in the answer.
    async fn letters_change(&self, verb: LetterVerb, run: Run, selection: LetterSelection) -> Result<LettersChanged, AdminError>;

    /// Returns recorded decisions of a plugin, oldest first.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn decisions(&self, query: DecisionQuery) -> Result<DecisionPage, AdminError>;

    /// Returns how the plugins fare.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn plugin_health(&self) -> Result<BTreeMap<String, Health>, AdminError>;

    /// Returns where a shadow answered otherwise than whom it shadows, the newest first.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn plugin_differences(&self, plugin: &str) -> Result<Vec<Difference>, AdminError>;

    /// Returns every plugin, by name.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn plugin_list(&self) -> Result<Vec<PluginListed>, AdminError>;

    /// Returns one plugin.
    ///
    /// # Errors
    /// [`AdminError`]: `not_found`.
    async fn plugin(&self, name: &str) -> Result<PluginListed, AdminError>;

    /// Adds a plugin that the configuration does not name.
    ///
    /// # Errors
    /// [`AdminError`]: `exists`, `file_beats_api`, `bad_argument`, `plugin_refused`.
    async fn plugin_add(&self, add: PluginAdd) -> Result<PluginListed, AdminError>;

    /// Takes away a plugin that was added; returns it as it was.
    ///
    /// # Errors
    /// [`AdminError`]: `not_found`, `file_beats_api`.
    async fn plugin_remove(&self, name: &str) -> Result<PluginListed, AdminError>;

    /// Changes a plugin.
    ///
    /// # Errors
    /// [`AdminError`]: `not_found`, `file_beats_api`, `bad_argument`, `plugin_refused`, `no_earlier_version`, `not_proven`.
    async fn plugin_change(&self, name: &str, change: PluginChange) -> Result<PluginListed, AdminError>;

    /// Reads the configuration and every component again.
    ///
    /// # Errors
    /// [`AdminError`]: `bad_configuration`.
    async fn reload(&self) -> Result<Vec<PluginListed>, AdminError>;
}
