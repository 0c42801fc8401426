//! What an operator on this machine asks of the host: credentials, projects, how it is.
//!
//! Driving port: the command line calls it, either over the data folder's socket or, when no host runs, on the opened
//! store itself. Whoever may open the data folder may do all of this.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use pointsman_core::event::Provenance;
use pointsman_core::ids::{ProjectId, TokenId};
use pointsman_core::time::TimeMs;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::decision::DecisionPage;
use super::health::{Difference, Health};
use super::plugins::World;

/// A credential to mint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAdd {
    /// The principal it names. A name that exists gets one more token.
    pub name: String,
    /// Human or agent.
    pub provenance: Provenance,
    /// Capability names its agents may claim; empty: any.
    pub capabilities: Vec<String>,
    /// Toolsets beyond the default one.
    pub toolsets: Vec<String>,
    /// Slugs of the projects it opens, the one behind plain `/mcp` first; empty: all there are now.
    pub projects: Vec<String>,
    /// Milliseconds until it stops working; none: never.
    pub lifetime_ms: Option<u64>,
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
    pub created_at: TimeMs,
    /// When it stops working.
    pub expires_at: Option<TimeMs>,
    /// When it was revoked.
    pub revoked_at: Option<TimeMs>,
    /// Whether it works now.
    pub live: bool,
}

/// A project to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectCreate {
    /// Its short name.
    pub slug: String,
    /// The repository it starts from, absolute; none: an empty one.
    pub source: Option<PathBuf>,
    /// The branch that work lands on.
    pub target: String,
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

/// A loaded plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginListed {
    /// The binding's name.
    pub name: String,
    /// What it decides.
    pub world: World,
    /// BLAKE3 of its component, hex.
    pub digest: String,
    /// Calls since the start.
    pub calls: u64,
    /// Calls that trapped, met a limit or answered something invalid.
    pub failures: u64,
}

/// How the host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its version.
    pub version: String,
    /// Where clients reach it; none: no host runs, the store was opened by the asker.
    pub url: Option<String>,
    /// Why it cannot serve now; none: it can.
    pub not_ready: Option<String>,
    /// Slugs of its projects.
    pub projects: Vec<String>,
    /// What is loaded.
    pub plugins: Vec<PluginListed>,
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
}
