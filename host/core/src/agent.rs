//! Agents and the principals that own them, as stored.

use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::event::{Actor, Provenance};
use crate::ids::{AgentId, PrincipalId, ProjectId, TaskId, TokenId};
use crate::time::TimeMs;
use crate::value::Stored;

/// A token as stored: the secret's hash and what it opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// For listing and revoking.
    pub id: TokenId,
    /// Whom it names.
    pub principal: PrincipalId,
    /// That principal's name.
    pub principal_name: String,
    /// Human or agent.
    pub provenance: Provenance,
    /// The projects it opens; the first is the one behind plain `/mcp`.
    pub projects: Vec<ProjectId>,
    /// Capability names its agents may claim; empty means any.
    pub capabilities: Vec<String>,
    /// Toolsets beyond the default one: `files`, `admin`.
    pub toolsets: Vec<String>,
    /// When it was minted.
    pub created_at: TimeMs,
    /// When it stops working; none: never.
    pub expires_at: Option<TimeMs>,
    /// When it was revoked.
    pub revoked_at: Option<TimeMs>,
}

impl Stored for TokenRecord {
    const NAME: &'static str = "token";
}

impl TokenRecord {
    /// Returns whether the token opens anything at `now`.
    #[must_use]
    pub fn is_live(&self, now: TimeMs) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A project as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectRecord {
    /// Never changes.
    pub id: ProjectId,
    /// Short name in URLs; never changes.
    pub slug: String,
    /// The branch that work lands on.
    pub target: String,
    /// When it was made.
    pub created_at: TimeMs,
}

impl Stored for ProjectRecord {
    const NAME: &'static str = "project";
}

/// An agent as stored: one for each name that a principal uses in a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Never changes.
    pub id: AgentId,
    /// Whose agent it is.
    pub principal: PrincipalId,
    /// That principal's name; empty where it started before names were kept, until it starts again.
    #[serde(default)]
    pub principal_name: String,
    /// Human or agent, from the credential.
    pub provenance: Provenance,
    /// Unique in the project.
    pub name: String,
    /// What it says it can do, within its token's grants.
    pub capabilities: Vec<Capability>,
    /// Teams it belongs to.
    pub teams: Vec<String>,
    /// Topics it subscribed to.
    #[serde(default)]
    pub topics: Vec<String>,
    /// The model behind it, as it says.
    pub model: Option<String>,
    /// The tasks it holds.
    pub tasks: Vec<TaskId>,
    /// When it last called `start`.
    pub started_at: TimeMs,
    /// Deliveries it acknowledged.
    pub acked: u32,
    /// Deliveries it gave back.
    pub nacked: u32,
}

impl Stored for AgentRecord {
    const NAME: &'static str = "agent";
}

impl AgentRecord {
    /// Returns the agent as an actor.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor { principal: Some(self.principal), agent: Some(self.id), name: self.name.clone(), provenance: self.provenance }
    }
}
