//! What the operator rules about keys: who may do what with them, and what becomes of their versions. Pure.
//!
//! Each rule names keys by globs and says something about some of them; for each thing the first rule that says it holds. Where
//! no rule names who may do something:
//! - keys below `private/NAME/` are the agent NAME's alone, unless a rule names people for a glob that begins with `private/`;
//! - keys below `agents/` are read by all, and written and resolved by the host and by the agent they are named after;
//! - keys that `shared` matches are read, written and resolved by all, and administered by their owners;
//! - all other keys are closed.
//!
//! **Invariants:** whoever may not read a key may do nothing with it; a rule never opens to one agent what it names another for.

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::DocumentKey;
use crate::agent::AgentRecord;
use crate::capability::{Capability, CapabilityError, CapabilityExpr};
use crate::event::Provenance;
use crate::ids::AgentId;
use crate::message::{NameError, check_agent_name};
use crate::path_glob::PathGlob;

/// Where agents keep what is theirs alone.
pub const PRIVATE: &str = "private/";
/// Where the host keeps what each agent works on.
pub const AGENTS: &str = "agents/";

/// What somebody wants to do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Read it: versions, history, that it is there, that it changed.
    Read,
    /// Write a version.
    Write,
    /// Settle a conflict.
    Resolve,
    /// Delete, rename, restore, expire.
    Administer,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Resolve, Self::Administer];

    /// Returns its name in configurations and events.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Resolve => "resolve",
            Self::Administer => "administer",
        }
    }
}

/// Whom a rule names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// Everybody with a credential for the project: `all`.
    Everybody,
    /// One agent by name: `agent:ana`. The name is its principal's that started it first.
    Agent(String),
    /// The agents of a credential: `principal:ci`.
    Principal(String),
    /// A component: `plugin:triage`.
    Plugin(String),
    /// Those of a kind: `role:human`, `role:agent`, `role:plugin`.
    Role(Provenance),
    /// Whoever can do something, within its credential's grants: `architect`, `all(rust, review)`.
    Capable(CapabilityExpr),
}

/// Why a text names nobody.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WhoError {
    /// What follows the prefix is no name.
    #[error("`{given}` names nobody: {source}")]
    Name {
        /// What was read, cut to 80 characters.
        given: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// No such role.
    #[error("`role:{given}` is none of `role:human`, `role:agent`, `role:plugin`")]
    Role {
        /// What was read, cut to 80 characters.
        given: String,
    },
    /// Neither a prefix nor a capability expression.
    #[error(
        "it is none of `all`, `agent:NAME`, `principal:NAME`, `plugin:NAME`, `role:human|agent|plugin`, and no capability expression either: {0}"
    )]
    Expression(#[from] CapabilityError),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("all"),
            Self::Agent(name) => write!(f, "agent:{name}"),
            Self::Principal(name) => write!(f, "principal:{name}"),
            Self::Plugin(name) => write!(f, "plugin:{name}"),
            Self::Role(role) => write!(f, "role:{}", role_word(*role)),
            Self::Capable(expression) => expression.fmt(f),
        }
    }
}

const fn role_word(role: Provenance) -> &'static str {
    match role {
        Provenance::Human => "human",
        Provenance::Agent => "agent",
        Provenance::Plugin => "plugin",
        Provenance::Host => "host",
    }
}

impl FromStr for Who {
    type Err = WhoError;

    fn from_str(text: &str) -> Result<Self, WhoError> {
        let text = text.trim();
        let cut = |text: &str| text.chars().take(80).collect::<String>();
        let named = |name: &str, make: fn(String) -> Self| {
            check_agent_name(name).map_err(|source| WhoError::Name { given: cut(text), source })?;
            Ok(make(name.to_owned()))
        };
        match text.split_once(':') {
            None if text == "all" => Ok(Self::Everybody),
            Some(("agent", name)) => named(name, Self::Agent),
            Some(("principal", name)) => named(name, Self::Principal),
            Some(("plugin", name)) => named(name, Self::Plugin),
            Some(("role", role)) => {
                let known = [Provenance::Human, Provenance::Agent, Provenance::Plugin].into_iter().find(|known| role_word(*known) == role);
                known.map(Self::Role).ok_or_else(|| WhoError::Role { given: cut(role) })
            }
            None | Some(_) => Ok(Self::Capable(text.parse()?)),
        }
    }
}

impl TryFrom<String> for Who {
    type Error = WhoError;

    fn try_from(text: String) -> Result<Self, WhoError> {
        text.parse()
    }
}

impl From<Who> for String {
    fn from(who: Who) -> Self {
        who.to_string()
    }
}

/// Who asks: an agent, or a credential or component that acts for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party<'a> {
    /// The agent.
    pub agent: Option<AgentId>,
    /// The agent's name, or the component's.
    pub name: &'a str,
    /// The name of its credential's owner.
    pub principal: &'a str,
    /// What kind it is.
    pub provenance: Provenance,
    /// What it can do.
    pub capabilities: &'a [Capability],
}

impl<'a> Party<'a> {
    /// Returns an agent as a party.
    #[must_use]
    pub fn of(agent: &'a AgentRecord) -> Self {
        Self {
            agent: Some(agent.id),
            name: &agent.name,
            principal: &agent.principal_name,
            provenance: agent.provenance,
            capabilities: &agent.capabilities,
        }
    }

    fn is(&self, who: &Who) -> bool {
        match who {
            Who::Everybody => true,
            Who::Agent(name) => self.agent.is_some() && self.name == name,
            Who::Principal(name) => !self.principal.is_empty() && self.principal == name,
            Who::Plugin(name) => self.provenance == Provenance::Plugin && self.name == name,
            Who::Role(role) => self.provenance == *role,
            Who::Capable(expression) => expression.is_satisfied_by(self.capabilities),
        }
    }

    /// Returns whether it is among these.
    #[must_use]
    pub fn is_among(&self, these: &[Who]) -> bool {
        these.iter().any(|who| self.is(who))
    }
}

/// What becomes of a write that was not made from the newest version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stale {
    /// It is merged by the reconcilers; where they find a conflict nothing changes.
    #[default]
    Merge,
    /// It is refused as a conflict, unmerged.
    Refuse,
    /// It replaces the newest version.
    LastWriter,
    /// It is merged; where that fails an owner's write replaces the newest version, and anybody else's conflicts.
    OwnerWins,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// The keys it is about.
    pub keys: Vec<PathGlob>,
    /// Slugs of the projects it is for; empty: all.
    pub projects: Vec<String>,
    /// Who may read.
    pub read: Option<Vec<Who>>,
    /// Who may write, of those who may read.
    pub write: Option<Vec<Who>>,
    /// Who may settle conflicts, of those who may read.
    pub resolve: Option<Vec<Who>>,
    /// Who may delete, rename and restore, of those who may read.
    pub administer: Option<Vec<Who>>,
    /// Who is told of conflicts and wins where owners do, beside whoever began the document.
    pub owners: Option<Vec<Who>>,
    /// What becomes of stale writes.
    pub stale: Option<Stale>,
    /// Versions kept of a document, besides those with a label.
    pub versions_max: Option<u64>,
    /// Milliseconds after its last write at which a document is deleted.
    pub expires_ms: Option<u64>,
}

impl Rule {
    fn whom(&self, operation: Operation) -> Option<&[Who]> {
        let named = match operation {
            Operation::Read => &self.read,
            Operation::Write => &self.write,
            Operation::Resolve => &self.resolve,
            Operation::Administer => &self.administer,
        };
        named.as_deref()
    }
}

/// Versions kept of a document where no rule says how many.
pub const VERSIONS_MAX: u64 = 200;

/// The rules for all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Keys that are everybody's where no rule names anybody.
    pub shared: Vec<PathGlob>,
    /// The first that says something holds.
    pub rules: Vec<Rule>,
}

impl Default for Rules {
    /// Everything is shared.
    fn default() -> Self {
        Self { shared: vec!["**".parse().expect("`**` is a glob")], rules: Vec::new() }
    }
}

/// A key in its project, and who began its document, if there is one.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The project's slug.
    pub project: &'a str,
    /// The key.
    pub key: &'a DocumentKey,
    /// Who began the document.
    pub creator: Option<AgentId>,
}

impl Rules {
    fn first<'a, T>(&'a self, project: &str, key: &str, says: impl Fn(&'a Rule) -> Option<T>) -> Option<T> {
        self.for_project(project).filter(|rule| rule.keys.iter().any(|glob| glob.matches(key))).find_map(says)
    }

    /// Returns whom the first rule names that names anybody. A private key is meant only by a glob that says so.
    fn named(&self, project: &str, key: &str, operation: Operation) -> Option<&[Who]> {
        let is_meant = |glob: &PathGlob| glob.matches(key) && (!key.starts_with(PRIVATE) || glob.as_str().starts_with(PRIVATE));
        self.for_project(project).filter(|rule| rule.keys.iter().any(is_meant)).find_map(|rule| rule.whom(operation))
    }

    fn for_project<'a>(&'a self, project: &str) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| rule.projects.is_empty() || rule.projects.iter().any(|named| named == project))
    }

    /// Returns whether the rules differ between projects.
    #[must_use]
    pub fn depend_on_project(&self) -> bool {
        self.rules.iter().any(|rule| !rule.projects.is_empty())
    }

    /// Returns whether everybody may read every key but private ones: nobody has to be asked.
    #[must_use]
    pub fn are_open(&self) -> bool {
        self.shared.iter().any(|glob| glob.as_str() == "**") && self.rules.iter().all(|rule| rule.read.is_none())
    }

    /// Returns whether a party may do something. The host may do everything.
    #[must_use]
    pub fn may(&self, party: &Party<'_>, operation: Operation, place: Place<'_>) -> bool {
        if party.provenance == Provenance::Host {
            return true;
        }
        self.may_one(party, Operation::Read, place) && (operation == Operation::Read || self.may_one(party, operation, place))
    }

    fn may_one(&self, party: &Party<'_>, operation: Operation, place: Place<'_>) -> bool {
        let key = place.key.as_str();
        if let Some(named) = self.named(place.project, key, operation) {
            return party.is_among(named);
        }
        if let Some(below) = key.strip_prefix(PRIVATE) {
            return party.agent.is_some() && below.split('/').next() == Some(party.name);
        }
        if let Some(below) = key.strip_prefix(AGENTS) {
            let is_own = party.agent.is_some() && below.split('/').next() == Some(party.name);
            return match operation {
                Operation::Read => true,
                Operation::Write | Operation::Resolve => is_own,
                Operation::Administer => false,
            };
        }
        let is_shared = self.shared.iter().any(|glob| glob.matches(key));
        match operation {
            Operation::Read | Operation::Write | Operation::Resolve => is_shared,
            Operation::Administer => is_shared && (self.is_owner(party, place) || place.creator.is_none()),
        }
    }

    /// Returns whether a party is an owner of a key: it began the document, or a rule names it.
    #[must_use]
    pub fn is_owner(&self, party: &Party<'_>, place: Place<'_>) -> bool {
        let began = place.creator.is_some() && place.creator == party.agent;
        began || self.first(place.project, place.key.as_str(), |rule| rule.owners.as_deref()).is_some_and(|named| party.is_among(named))
    }

    /// Returns what becomes of stale writes of a key.
    #[must_use]
    pub fn stale(&self, project: &str, key: &DocumentKey) -> Stale {
        self.first(project, key.as_str(), |rule| rule.stale).unwrap_or_default()
    }

    /// Returns how many versions of a key's document are kept, at least one.
    #[must_use]
    pub fn versions_max(&self, project: &str, key: &DocumentKey) -> u64 {
        self.first(project, key.as_str(), |rule| rule.versions_max).unwrap_or(VERSIONS_MAX).max(1)
    }

    /// Returns after how many milliseconds without a write a key's document is deleted; none: never.
    #[must_use]
    pub fn expires_ms(&self, project: &str, key: &DocumentKey) -> Option<u64> {
        self.first(project, key.as_str(), |rule| rule.expires_ms)
    }
}
