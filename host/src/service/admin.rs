//! What an operator asks: credentials, projects, plugins, how the host is.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use pointsman_core::agent::{ProjectRecord, TokenRecord};
use pointsman_core::ids::{MessageId, ProjectId, TokenId};
use pointsman_core::time::TimeMs;

use super::agents::{NewToken, Times};
use super::decisions::DecisionLog;
use super::failure::Failure;
use super::governor::Governor;
use super::kit::chain;
use super::letters;
use super::registry::Registry;
use super::surface::Services;
use super::why;
use crate::ports::admin::{
    AdminError, AdminSurface, AgentAdd, AgentAdded, AgentListed, DecisionQuery, Explained, HostStatus, InboxListed, Lag, ProjectCreate,
    ProjectCreated, ProjectListed, WhyQuery,
};
use crate::ports::decision::DecisionPage;
use crate::ports::health::{Difference, Health};
use crate::ports::letters::{LetterPage, LetterSelection, LetterShown, LetterVerb, LettersChanged, Run};
use crate::ports::registry::{PluginAdd, PluginChange, PluginListed};
use crate::ports::repository::Origin;

/// Inboxes that a status lists.
const INBOXES_LISTED_MAX: usize = 1_000;

/// The operator's surface over the services.
pub struct Admin {
    services: Services,
    governor: Arc<Governor>,
    decisions: DecisionLog,
    registry: Arc<Registry>,
    url: Option<String>,
}

impl From<Failure> for AdminError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => Self::Refused { code: refusal.code.to_owned(), why: refusal.why, advice: refusal.advice },
            other @ (Failure::Unavailable { .. }
            | Failure::Damaged(_)
            | Failure::Repository(_)
            | Failure::Plugin(_)
            | Failure::Contended { .. }) => Self::Unavailable { why: chain(&other) },
        }
    }
}

impl Admin {
    /// Returns the surface; `url` is where clients reach the host, none when nobody serves.
    #[must_use]
    pub fn new(services: Services, registry: Arc<Registry>, governor: Arc<Governor>, decisions: DecisionLog, url: Option<String>) -> Self {
        Self { services, governor, decisions, registry, url }
    }

    async fn slugs(&self, projects: &[ProjectId]) -> Result<Vec<String>, Failure> {
        let all = self.services.agents.projects().await?;
        Ok(projects.iter().filter_map(|id| all.iter().find(|project| project.id == *id).map(|project| project.slug.clone())).collect())
    }

    async fn listed(&self, token: &TokenRecord) -> Result<AgentListed, Failure> {
        Ok(AgentListed {
            token: token.id,
            name: token.principal_name.clone(),
            provenance: token.provenance,
            projects: self.slugs(&token.projects).await?,
            capabilities: token.capabilities.clone(),
            toolsets: token.toolsets.clone(),
            created_at: token.created_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
            live: token.is_live(self.services.kit.now()),
        })
    }

    /// Returns how agents fare with their messages, by project and name.
    async fn inboxes(&self) -> Result<Vec<InboxListed>, Failure> {
        let agents = &self.services.agents;
        let mut listed = Vec::new();
        for project in agents.projects().await? {
            let board = agents.board(project.id).await?;
            let room = INBOXES_LISTED_MAX - listed.len();
            listed.extend(board.roster().into_iter().take(room).map(|seat| {
                let latency = board.latency(seat.agent.id);
                InboxListed {
                    project: project.slug.clone(),
                    agent: seat.agent.name.clone(),
                    unread: board.ready(seat.agent.id),
                    held: u32::try_from(board.leased(seat.agent.id).len()).unwrap_or(u32::MAX),
                    last_call: agents.last_call(&seat.agent),
                    seen: lag(&latency.seen),
                    acted: lag(&latency.acted),
                }
            }));
        }
        Ok(listed)
    }

    async fn named_projects(&self, slugs: &[String]) -> Result<Vec<ProjectRecord>, Failure> {
        if slugs.is_empty() {
            let all = self.services.agents.projects().await?;
            if all.is_empty() {
                let advice = "Make one with `pointsman init` in a repository, or name it under [[project]].";
                return Err(Failure::refused("no_project", "there is no project yet", advice));
            }
            return Ok(all);
        }
        let mut found = Vec::new();
        for slug in slugs {
            found.push(self.services.agents.project_by_slug(slug).await?);
        }
        Ok(found)
    }

    /// Makes a project and its repository; one that is there is kept, and its repository completed when a crash left none.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn ensure_project(&self, slug: &str, origin: Origin, target: &str) -> Result<(ProjectRecord, bool), Failure> {
        let services = &self.services;
        let known = services.agents.projects().await?.into_iter().find(|project| project.slug == slug);
        if let Some(project) = known {
            // Where hosts share the store it may be at one that is not there now: a second one here would not be it.
            if !services.kit.homes.are_shared() {
                services.kit.repository.create(project.id, origin, Some(project.target.clone())).await?;
            }
            return Ok((project, false));
        }
        let id = ProjectId::new(services.kit.now(), services.kit.system.id_bytes());
        let (target, _) = services.kit.repository.create(id, origin, Some(target.to_owned())).await?;
        let record = match services.agents.create_project(id, slug, &target).await {
            Ok(record) => record,
            // Another host made it in the same moment: theirs is the one.
            Err(Failure::Refused(refusal)) if refusal.code == "slug_taken" => {
                return Ok((services.agents.project_by_slug(slug).await?, false));
            }
            Err(failure) => return Err(failure),
        };
        services.messaging.schedule_retention(record.id).await?;
        services.contexts.schedule_sweep(record.id).await?;
        services.kit.homes.settle(&services.kit, &services.agents).await?;
        Ok((record, true))
    }
}

fn lag(times: &Times) -> Lag {
    Lag { count: times.count(), p50_ms: times.within_ms(500), p99_ms: times.within_ms(990) }
}

#[async_trait]
impl AdminSurface for Admin {
    async fn agent_add(&self, add: AgentAdd) -> Result<AgentAdded, AdminError> {
        let projects = self.named_projects(&add.projects).await?;
        let new = NewToken {
            principal_name: add.name.clone(),
            provenance: add.provenance,
            projects: projects.iter().map(|project| project.id).collect(),
            capabilities: add.capabilities,
            toolsets: add.toolsets,
            ttl_ms: add.lifetime_ms,
        };
        let (secret, record) = self.services.agents.mint_token(&new).await?;
        Ok(AgentAdded {
            token: record.id,
            secret,
            name: record.principal_name,
            projects: projects.into_iter().map(|project| project.slug).collect(),
            expires_at: record.expires_at,
        })
    }

    async fn agent_list(&self) -> Result<Vec<AgentListed>, AdminError> {
        let mut listed = Vec::new();
        for token in self.services.agents.tokens().await? {
            listed.push(self.listed(&token).await?);
        }
        Ok(listed)
    }

    async fn agent_revoke(&self, token_or_name: &str) -> Result<Vec<AgentListed>, AdminError> {
        let all = self.services.agents.tokens().await?;
        let wanted: Option<TokenId> = token_or_name.parse().ok();
        let mut revoked = Vec::new();
        let now = self.services.kit.now();
        for token in all.iter().filter(|token| token.is_live(now) && (Some(token.id) == wanted || token.principal_name == token_or_name)) {
            let ended = self.services.agents.revoke_token(token.id).await?;
            revoked.push(self.listed(&ended).await?);
        }
        if revoked.is_empty() {
            return Err(Failure::refused(
                "not_found",
                format!("`{token_or_name}` names no live token"),
                "`pointsman agent list` shows them.",
            )
            .into());
        }
        Ok(revoked)
    }

    async fn project_list(&self) -> Result<Vec<ProjectListed>, AdminError> {
        let all = self.services.agents.projects().await?;
        let listed = |project: ProjectRecord| {
            let ProjectRecord { id, slug, target, created_at } = project;
            ProjectListed { id, slug, target, created_at }
        };
        Ok(all.into_iter().map(listed).collect())
    }

    async fn project_create(&self, create: ProjectCreate) -> Result<ProjectCreated, AdminError> {
        let origin = create.source.map_or(Origin::Empty, Origin::CopyOf);
        let (project, is_new) = self.ensure_project(&create.slug, origin, &create.target).await?;
        Ok(ProjectCreated { id: project.id, slug: project.slug, target: project.target, is_new })
    }

    async fn status(&self) -> Result<HostStatus, AdminError> {
        let services = &self.services;
        Ok(HostStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            url: self.url.clone(),
            not_ready: services.kit.store.ready().await.err().map(|error| chain(&error)),
            projects: services.agents.projects().await?.into_iter().map(|project| project.slug).collect(),
            messages: letters::kept(services).await?,
            plugins: self.registry.list().await?,
            configuration: self.registry.configuration_trouble(),
            inboxes: self.inboxes().await?,
            hosts: services.kit.homes.hosts(),
        })
    }

    async fn why(&self, query: WhyQuery) -> Result<Explained, AdminError> {
        Ok(why::explain(&self.services, &query).await?)
    }

    async fn letters(&self, selection: LetterSelection) -> Result<LetterPage, AdminError> {
        Ok(letters::list(&self.services, &selection).await?)
    }

    async fn letter(&self, message: MessageId) -> Result<LetterShown, AdminError> {
        Ok(letters::show(&self.services, message).await?)
    }

    async fn letters_change(&self, verb: LetterVerb, run: Run, selection: LetterSelection) -> Result<LettersChanged, AdminError> {
        Ok(letters::change(&self.services, verb, run, &selection).await?)
    }

    async fn decisions(&self, query: DecisionQuery) -> Result<DecisionPage, AdminError> {
        if query.since_ms == 0 && query.after.is_none() {
            return Ok(DecisionPage { decisions: self.decisions.newest(&query.plugin, query.limit).await?, next: None });
        }
        Ok(self.decisions.list(&query.plugin, TimeMs(query.since_ms), query.after.as_deref(), query.limit).await?)
    }

    async fn plugin_health(&self) -> Result<BTreeMap<String, Health>, AdminError> {
        Ok(self.governor.health())
    }

    async fn plugin_differences(&self, plugin: &str) -> Result<Vec<Difference>, AdminError> {
        Ok(self.governor.differences(plugin))
    }

    async fn plugin_list(&self) -> Result<Vec<PluginListed>, AdminError> {
        Ok(self.registry.list().await?)
    }

    async fn plugin(&self, name: &str) -> Result<PluginListed, AdminError> {
        Ok(self.registry.listed(name).await?)
    }

    async fn plugin_add(&self, add: PluginAdd) -> Result<PluginListed, AdminError> {
        Ok(self.registry.add(add).await?)
    }

    async fn plugin_remove(&self, name: &str) -> Result<PluginListed, AdminError> {
        Ok(self.registry.remove(name).await?)
    }

    async fn plugin_change(&self, name: &str, change: PluginChange) -> Result<PluginListed, AdminError> {
        Ok(self.registry.change(name, change).await?)
    }

    async fn reload(&self) -> Result<Vec<PluginListed>, AdminError> {
        Ok(self.registry.reread().await?)
    }
}
