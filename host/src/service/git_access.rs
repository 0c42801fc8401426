//! Git over HTTP: who may clone and push, and what a push leaves in the log.
//!
//! Two credentials open a repository: an agent's token (any user name; read only) and a claim's own (the task's id as user
//! name; its branch may be pushed).

use std::sync::Arc;

use async_trait::async_trait;
use pointsman_core::event::{Actor, Provenance};
use pointsman_core::ids::{ProjectId, TaskId};
use pointsman_core::limits::COMMIT_FILE_BYTES_MAX;
use pointsman_core::task::{Claim, Task};
use serde_json::json;

use super::agents::Agents;
use super::claims::{Claims, GIT_SECRET};
use super::commits::Commits;
use super::failure::Failure;
use super::kit::Kit;
use super::tasks::Tasks;
use crate::ports::repository::{GitRequest, GitResponse, GitService, PushGrant, RepositoryError};
use crate::ports::surface::{GitCall, GitRejected, GitSurface, Rejected};

/// Serves git to whoever may.
pub struct GitAccess {
    kit: Kit,
    agents: Arc<Agents>,
    tasks: Tasks,
    claims: Claims,
    commits: Commits,
}

impl GitAccess {
    /// Returns the service.
    #[must_use]
    pub fn new(kit: Kit, agents: Arc<Agents>, tasks: Tasks, claims: Claims, commits: Commits) -> Self {
        Self { kit, agents, tasks, claims, commits }
    }

    async fn claimed(&self, project: ProjectId, id: TaskId, secret: &str) -> Result<(Task, Claim), GitRejected> {
        let task = self.tasks.get(project, id).await.map_err(|failure| match failure {
            Failure::Unavailable { retry_after_ms } => GitRejected::Unavailable { retry_after_ms },
            Failure::Refused(_) | Failure::Damaged(_) | Failure::Repository(_) | Failure::Plugin(_) | Failure::Contended { .. } => {
                GitRejected::Unauthorized { why: format!("there is no claim on {id}") }
            }
        })?;
        let task = task.value;
        let ended =
            || GitRejected::Unauthorized { why: format!("the claim on {id} that this credential belongs to has ended; claim it again") };
        let claim = task.claim.clone().ok_or_else(ended)?;
        if self.claims.is_secret(secret, project, id, &claim) { Ok((task, claim)) } else { Err(ended()) }
    }

    async fn grant(&self, project: ProjectId, task: &Task, claim: &Claim) -> Result<PushGrant, GitRejected> {
        let allowed = self.claims.leased(project, task.id).await.map_err(|_| GitRejected::Unavailable { retry_after_ms: 1_000 })?;
        Ok(PushGrant {
            task: task.id,
            branch: task.branch.clone().unwrap_or_default(),
            token: claim.token,
            allowed,
            file_bytes_max: u64::try_from(COMMIT_FILE_BYTES_MAX).unwrap_or(u64::MAX) * 4,
        })
    }

    /// Records where a pushed branch is now; says so in the log even when nothing moved it before.
    async fn record_push(&self, project: ProjectId, task: &Task, claim: &Claim, trace: &str) -> Result<(), Failure> {
        let Some(branch) = &task.branch else { return Ok(()) };
        let Some(head) = self.kit.repository.branch_head(project, branch).await? else { return Ok(()) };
        if task.head == Some(head) {
            return Ok(());
        }
        let actor = Actor {
            principal: Some(claim.principal),
            agent: Some(claim.agent),
            name: claim.agent_name.clone(),
            provenance: Provenance::Agent,
        };
        self.kit
            .decide(|| async {
                let mut commit = self.commits.record_head(project, task.id, head, &[]).await?;
                let data = json!({"branch": branch, "from": task.head, "commit": head});
                let mut event = pointsman_core::event::NewEvent::new("branch.pushed", actor.clone(), task.id, data);
                event.trace = Some(trace.to_owned());
                commit.events.push(event);
                Ok((commit, ()))
            })
            .await?;
        Ok(())
    }
}

#[async_trait]
impl GitSurface for GitAccess {
    async fn serve_git(&self, call: GitCall) -> Result<GitResponse, GitRejected> {
        let GitCall { basic, slug, service, advertise, protocol, body, trace } = call;
        let (user, secret) = basic.ok_or(GitRejected::Unauthorized { why: "no credential came".to_owned() })?;
        let claim_of = user.parse::<TaskId>().ok().filter(|_| secret.starts_with(GIT_SECRET));
        let (project, holder) = match claim_of {
            Some(id) => {
                let record = self.agents.project_by_slug(&slug).await.map_err(|_| GitRejected::NotFound { slug: slug.clone() })?;
                (record.id, Some(self.claimed(record.id, id, &secret).await?))
            }
            None => match self.agents.admit(Some(&format!("Bearer {secret}")), Some(&slug), trace.clone()).await {
                Ok(caller) => (caller.project, None),
                Err(Rejected::Unavailable { retry_after_ms } | Rejected::TooMany { retry_after_ms }) => {
                    return Err(GitRejected::Unavailable { retry_after_ms });
                }
                Err(Rejected::Forbidden { slug }) => return Err(GitRejected::NotFound { slug }),
                Err(rejected @ Rejected::InsufficientScope { .. }) => return Err(GitRejected::Forbidden { why: rejected.to_string() }),
                Err(rejected @ (Rejected::Missing | Rejected::Invalid { .. })) => {
                    return Err(GitRejected::Unauthorized { why: rejected.to_string() });
                }
            },
        };
        let push = match (&holder, service) {
            (Some((task, claim)), GitService::ReceivePack) => Some(self.grant(project, task, claim).await?),
            _ => None,
        };
        let pushed = push.is_some() && !advertise;
        let served = self.kit.repository.serve(GitRequest { project, service, advertise, protocol, push, body }).await;
        if let (true, Some((task, claim))) = (pushed, &holder)
            && let Err(failure) = self.record_push(project, task, claim, &trace).await
        {
            // The refs moved, durably; the log is mended by the next push, submission or start.
            tracing::error!(task = %task.id, %failure, "a push could not be recorded");
        }
        served.map_err(|error| match error {
            RepositoryError::Refused { why, .. } => GitRejected::Forbidden { why },
            RepositoryError::NotFound { what } => GitRejected::NotFound { slug: what },
            RepositoryError::Away { why, retry_after_ms } => {
                tracing::warn!(%why, %trace, "a repository is away");
                GitRejected::Unavailable { retry_after_ms }
            }
            other @ (RepositoryError::Moved { .. }
            | RepositoryError::Fenced { .. }
            | RepositoryError::TimedOut { .. }
            | RepositoryError::Failed { .. }) => {
                tracing::error!(error = %other, %trace, "git over HTTP failed");
                GitRejected::Internal { trace: trace.clone() }
            }
        })
    }
}
