//! Claims: a task, its path leases and its branch, granted together with one fencing token.
//!
//! The commit grants all three; the branch and its fence in git follow by an intent, before the answer.
//!
//! **Invariant:** whoever's claim ended can move nothing: the fence in git has a newer token before anyone else gets one.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use pointsman_core::agent::ProjectRecord;
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::{AgentId, Oid, ProjectId, TaskId};
use pointsman_core::lease::{Lease, LeaseTable, Overlap};
use pointsman_core::path_glob::PathGlob;
use pointsman_core::task::{Claim, Task, TaskError, TaskState};
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::agents::Agents;
use super::failure::Failure;
use super::gates;
use super::intents::{Intent, Work};
use super::kit::{Acting, CommitExt, Kit, Loaded};
use super::messaging::{Messaging, Notice};
use super::tasks::{Tasks, check_text, flow_task, task_key};
use crate::ports::plugins::{Gate, GateActor, GateFacts, GateVerdict};
use crate::ports::repository::BranchGrant;
use crate::ports::store::{Commit, DueChange};

/// Where the lease table stands.
const LEASES: &str = "leases";
/// What git secrets start with.
pub const GIT_SECRET: &str = "pmg_";
/// Names the workflow is asked for before the host takes its own.
const BRANCH_NAME_TRIES: u32 = 5;

/// Where it stands what an agent holds: a short list for every answer.
const HOLDS: &str = "holds/";
/// Tasks one agent is shown to hold.
const HOLDS_MAX: usize = 256;

/// A task in an agent's hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Which.
    pub task: TaskId,
    /// Until when, unless renewed.
    pub until: TimeMs,
}

impl Stored for Holding {
    const NAME: &'static str = "holding";
}

fn hold_key(agent: AgentId, task: TaskId) -> String {
    format!("{HOLDS}{agent}/{:012}", task.0)
}

/// Returns what an agent holds, tasks in their order; while the store is away, as far as it is known.
pub(in crate::service) async fn holding(kit: &Kit, agents: &Agents, project: ProjectId, agent: AgentId) -> Result<Arc<[Holding]>, Failure> {
    let board = agents.board_as_known(project).await?;
    let turn = match board.holds(agent) {
        Ok(known) => return Ok(known),
        Err(turn) => turn,
    };
    let all = match kit.load_all::<Holding>(Some(project), &format!("{HOLDS}{agent}/"), HOLDS_MAX).await {
        // Not known, and not to be found out now.
        Err(Failure::Unavailable { .. }) if kit.store.is_away() => return Ok(Arc::default()),
        all => all?,
    };
    let holds = all.into_iter().map(|(_, loaded)| loaded.value).collect();
    board.keep_holds(turn, agent, &holds);
    Ok(holds)
}

/// What a claim gave.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The task as it stands now.
    pub task: Task,
    /// Its branch.
    pub branch: String,
    /// Where the branch is.
    pub head: Oid,
    /// Of the git credential: the user name is the task's id.
    pub secret: String,
    /// What the holder may change; empty: anything.
    pub paths: Vec<PathGlob>,
}

impl From<Box<Overlap>> for Failure {
    fn from(overlap: Box<Overlap>) -> Self {
        Self::refused_with(
            "paths_held",
            overlap.to_string(),
            format!("Claim another task, ask {} by `send_message`, or wait.", overlap.agent),
            json!({"task": overlap.task, "agent": overlap.agent, "until": overlap.until.to_rfc3339(), "glob": overlap.held}),
        )
    }
}

/// A report on a task.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Percent.
    pub progress: Option<u8>,
    /// In words.
    pub note: Option<String>,
}

/// Use cases over claims.
#[derive(Clone)]
pub struct Claims {
    kit: Kit,
    agents: Arc<Agents>,
    tasks: Tasks,
    messaging: Arc<Messaging>,
}

impl Claims {
    /// Returns the use cases.
    #[must_use]
    pub fn new(kit: Kit, agents: Arc<Agents>, tasks: Tasks, messaging: Arc<Messaging>) -> Self {
        Self { kit, agents, tasks, messaging }
    }

    /// Returns the git secret of a claim: bound to the task and its token, so that it ends with the claim and need not be stored.
    #[must_use]
    pub fn secret(&self, project: ProjectId, task: TaskId, claim: &Claim) -> String {
        let tag = hmac::sign(&self.git_key(), &credential_of(project, task, claim));
        format!("{GIT_SECRET}{}", HEXLOWER.encode(tag.as_ref()))
    }

    /// Returns whether a git secret is that of a claim.
    #[must_use]
    pub fn is_secret(&self, secret: &str, project: ProjectId, task: TaskId, claim: &Claim) -> bool {
        let tag = secret.strip_prefix(GIT_SECRET).and_then(|tag| HEXLOWER.decode(tag.as_bytes()).ok());
        tag.is_some_and(|tag| hmac::verify(&self.git_key(), &credential_of(project, task, claim), &tag).is_ok())
    }

    fn git_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.kit.keys.derive("git credential"))
    }

    /// Claims a task. Claiming one's own again renews it and answers the same.
    ///
    /// # Errors
    /// `held`, `paths_held`, `dependency_open`, `wrong_state`, or the policy's rule.
    pub async fn claim(&self, acting: &Acting, id: TaskId, extra_paths: &[PathGlob]) -> Result<Claimed, Failure> {
        let now_held = u32::try_from(self.holding(acting.project, acting.agent.id).await?.len()).unwrap_or(u32::MAX);
        let loaded = self.tasks.get(acting.project, id).await?;
        let start = self.branch_start(acting.project, &loaded.value).await?;
        let branch = match &loaded.value.branch {
            Some(branch) => branch.clone(),
            None => self.choose_branch(acting.project, &loaded.value).await?,
        };
        self.ask_policy(acting, &loaded.value, now_held).await?;
        let ((task, intent), _) = self.kit.decide(|| self.decide_claim(acting, id, extra_paths, &branch, start)).await?;
        self.finish_grant(acting.project, &intent).await?;
        let claim = task.held_by(acting.agent.id)?.clone();
        let branch = task.branch.clone().unwrap_or(branch);
        let head = self.kit.repository.branch_head(acting.project, &branch).await?.unwrap_or(start);
        let paths = self.leased(acting.project, id).await?;
        Ok(Claimed { secret: self.secret(acting.project, id, &claim), branch, head, paths, task })
    }

    async fn decide_claim(
        &self,
        acting: &Acting,
        id: TaskId,
        extra_paths: &[PathGlob],
        branch: &str,
        start: Oid,
    ) -> Result<(Commit, (Task, Intent)), Failure> {
        let now = self.kit.now();
        let project = acting.project;
        let Loaded { value: mut task, version } = self.tasks.get(project, id).await?;
        let until = now + self.kit.settings.claim_lease_ms;
        let renewed = task.held_by(acting.agent.id).is_ok();
        let token = pointsman_core::ids::FencingToken { epoch: 0, n: 0 };
        let claim =
            Claim { agent: acting.agent.id, agent_name: acting.agent.name.clone(), principal: acting.agent.principal, token, until };
        let before = task.claim.clone();
        task.claim(now, self.kit.store.epoch(), claim)?;
        let token = task.fence;
        task.branch.get_or_insert_with(|| branch.to_owned());
        task.base.get_or_insert(start);
        for glob in extra_paths {
            if !task.paths.contains(glob) {
                task.paths.push(glob.clone());
            }
        }
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        let table = self.kit.load::<LeaseTable>(Some(project), LEASES).await?;
        let table_version = table.as_ref().map(|table| table.version);
        let mut table = table.map(|table| table.value).unwrap_or_default();
        let leases = task.wanted_leases().into_iter().map(|(globs, mode)| Lease {
            task: id,
            agent: acting.agent.id,
            agent_name: acting.agent.name.clone(),
            globs,
            mode,
            token,
            until,
        });
        table.grant(now, leases.collect())?;
        commit.replace(LEASES, table_version, &table);
        commit.replace(task_key(id), Some(version), &task);
        if let Some(lapsed) = &before
            && lapsed.agent != acting.agent.id
        {
            commit.deletes.push(hold_key(lapsed.agent, id));
        }
        commit.put(hold_key(acting.agent.id, id), &Holding { task: id, until });
        commit.due.push(DueChange::Set { name: claim_due(id), at: until });
        let kind = if renewed { "task.renewed" } else { "task.claimed" };
        let paths = table.held_by(id);
        commit.events.push(acting.event(kind, id, json!({"branch": task.branch, "token": token.to_string(), "paths": paths})));
        let grant = BranchGrant { task: id, branch: task.branch.clone().unwrap_or_default(), start, token };
        let intent = Intent::ask(&self.kit, &mut commit, Work::Grant(grant));
        Ok((commit, (task, intent)))
    }

    /// Makes the branch and its fence, and records the end.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn finish_grant(&self, project: ProjectId, intent: &Intent) -> Result<(), Failure> {
        let Work::Grant(grant) = &intent.work else { return Ok(()) };
        let granted = self.kit.repository.grant(project, grant.clone()).await;
        let head = match granted {
            Ok(head) => head,
            Err(crate::ports::repository::RepositoryError::Fenced { .. }) => {
                // A newer claim went past this one: nothing is left to do for it.
                self.forget(project, intent).await?;
                return Ok(());
            }
            Err(other) => return Err(other.into()),
        };
        self.kit
            .decide(|| async {
                let Loaded { value: mut task, version } = self.tasks.get(project, grant.task).await?;
                let mut commit = Commit { project: Some(project), ..Commit::default() };
                if !self.kit.expect_intent(project, intent, &mut commit).await? {
                    return Ok((commit, ()));
                }
                let first = task.head.is_none();
                task.head.get_or_insert(head);
                commit.replace(task_key(grant.task), Some(version), &task);
                commit.deletes.push(intent.key());
                if first {
                    let data = json!({"branch": grant.branch, "start": grant.start, "head": head});
                    commit.events.push(NewEvent::new("branch.created", Actor::host(), grant.task, data).caused_by(intent.id));
                }
                Ok((commit, ()))
            })
            .await?;
        Ok(())
    }

    async fn forget(&self, project: ProjectId, intent: &Intent) -> Result<(), Failure> {
        let commit = Commit { project: Some(project), deletes: vec![intent.key()], ..Commit::default() };
        self.kit.store.commit(commit).await?;
        Ok(())
    }

    /// Returns where a new branch starts: on the head of the one dependency that has not landed, else on the target.
    async fn branch_start(&self, project: ProjectId, task: &Task) -> Result<Oid, Failure> {
        let target = self.target(project).await?;
        let target_head = self.kit.repository.branch_head(project, &target).await?;
        let mut start = target_head.ok_or_else(|| {
            Failure::refused("not_found", format!("the target branch `{target}` is gone"), "An operator must restore it.")
        })?;
        for dependency in &task.depends_on {
            let needed = self.tasks.get(project, *dependency).await?.value;
            match (&needed.branch, needed.state) {
                (_, TaskState::Landed) => {}
                (Some(branch), TaskState::Claimed | TaskState::Submitted) => {
                    if let Some(head) = self.kit.repository.branch_head(project, branch).await? {
                        start = head;
                    }
                }
                _ => return Err(TaskError::DependencyOpen { task: task.id, dependency: *dependency }.into()),
            }
        }
        Ok(start)
    }

    /// Returns the branch that a project's work lands on.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn target(&self, project: ProjectId) -> Result<String, Failure> {
        Ok(self.agents.project(project).await?.target)
    }

    /// Returns all projects.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn projects(&self) -> Result<Vec<ProjectRecord>, Failure> {
        self.agents.projects().await
    }

    async fn choose_branch(&self, project: ProjectId, task: &Task) -> Result<String, Failure> {
        let workflow = self.kit.workflow(project, Some(&task.kind)).await?;
        for attempt in 0..BRANCH_NAME_TRIES {
            let Some(workflow) = &workflow else { break };
            let named = self.kit.plugins.branch_name(workflow, flow_task(task), attempt).await;
            match named {
                Ok(name) => match self.kit.repository.check_branch_name(project, &name).await {
                    Ok(()) => return Ok(name),
                    Err(refused) => tracing::info!(task = %task.id, %name, %refused, "branch name refused"),
                },
                Err(failure) => {
                    tracing::warn!(task = %task.id, %failure, "workflow gave no branch name");
                    break;
                }
            }
        }
        let name = format!("task/{}", pointsman_core::ids::IntentId::new(self.kit.now(), self.kit.system.id_bytes()));
        self.kit.repository.check_branch_name(project, &name).await?;
        Ok(name)
    }

    async fn ask_policy(&self, acting: &Acting, task: &Task, held: u32) -> Result<(), Failure> {
        let facts = GateFacts { held, ..gate_facts(&gate_actor(acting), task) };
        match gates::ask(&self.kit, acting.project, Gate::Claim, facts).await? {
            GateVerdict::Allow => Ok(()),
            GateVerdict::Deny { rule, why, advice } => {
                Err(Failure::refused_with("policy_denied", why, advice, json!({"rule": rule, "gate": "claim"})))
            }
            GateVerdict::Need { rule, why, .. } => {
                Err(Failure::refused_with("approval_needed", why, "Ask for it, then claim again.", json!({"rule": rule, "gate": "claim"})))
            }
        }
    }

    /// Returns what an agent holds, the oldest task first.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn holding(&self, project: ProjectId, agent: AgentId) -> Result<Arc<[Holding]>, Failure> {
        holding(&self.kit, &self.agents, project, agent).await
    }

    /// Returns what a claim may change; empty: anything.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn leased(&self, project: ProjectId, task: TaskId) -> Result<Vec<PathGlob>, Failure> {
        let table = self.kit.load::<LeaseTable>(Some(project), LEASES).await?;
        Ok(table.map(|table| table.value.held_by(task)).unwrap_or_default())
    }

    /// Stores a report; a sign of life, so the claim and its leases are renewed.
    ///
    /// # Errors
    /// `not_holder`, `bad_argument`.
    pub async fn report(&self, acting: &Acting, id: TaskId, report: &Report) -> Result<Task, Failure> {
        if report.progress.is_some_and(|percent| percent > 100) {
            return Err(Failure::refused("bad_argument", "`progress` is over 100", "Give a percentage, 0 to 100."));
        }
        check_text("note", report.note.as_deref().unwrap_or_default())?;
        let (task, _) = self
            .kit
            .decide(|| async {
                let Loaded { value: mut task, version } = self.tasks.get(acting.project, id).await?;
                task.held_by(acting.agent.id)?;
                let now = self.kit.now();
                task.progress = report.progress.unwrap_or(task.progress);
                if let Some(note) = &report.note {
                    task.note.clone_from(note);
                }
                task.updated_at = now;
                let mut commit = Commit { project: Some(acting.project), ..Commit::default() };
                self.renew(acting.project, &mut task, &mut commit).await?;
                commit.replace(task_key(id), Some(version), &task);
                commit.events.push(acting.event("task.progressed", id, json!({"progress": task.progress, "note": task.note})));
                Ok((commit, task))
            })
            .await?;
        Ok(task)
    }

    /// Renews the claim and its leases within a commit that writes the task.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn renew(&self, project: ProjectId, task: &mut Task, commit: &mut Commit) -> Result<(), Failure> {
        let Some(claim) = &mut task.claim else { return Ok(()) };
        claim.until = self.kit.now() + self.kit.settings.claim_lease_ms;
        commit.due.push(DueChange::Set { name: claim_due(task.id), at: claim.until });
        commit.put(hold_key(claim.agent, task.id), &Holding { task: task.id, until: claim.until });
        if let Some(Loaded { value: mut table, version }) = self.kit.load::<LeaseTable>(Some(project), LEASES).await?
            && table.renew(task.id, claim.token, claim.until)
        {
            commit.replace(LEASES, Some(version), &table);
        }
        Ok(())
    }

    /// Gives a task back, by its holder. The branch stays.
    ///
    /// # Errors
    /// `not_holder`, `wrong_state`.
    pub async fn release(&self, acting: &Acting, id: TaskId, note: Option<&str>) -> Result<Task, Failure> {
        let ((task, intent), _) = self
            .kit
            .decide(|| async {
                let Loaded { value: mut task, version } = self.tasks.get(acting.project, id).await?;
                task.held_by(acting.agent.id)?;
                if let Some(note) = note {
                    note.clone_into(&mut task.note);
                }
                let event = acting.event("task.released", id, json!({"note": task.note}));
                self.decide_release(acting.project, task, version, event).await
            })
            .await?;
        self.finish_revoke(acting.project, intent.as_ref()).await?;
        Ok(task)
    }

    async fn decide_release(
        &self,
        project: ProjectId,
        mut task: Task,
        version: u64,
        event: NewEvent,
    ) -> Result<(Commit, (Task, Option<Intent>)), Failure> {
        let claim = task.claim.clone();
        let token = task.release(self.kit.now(), self.kit.store.epoch())?;
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        self.end_claim(project, &task, claim.as_ref(), &mut commit).await?;
        commit.replace(task_key(task.id), Some(version), &task);
        commit.events.push(event);
        let intent = task.branch.clone().map(|branch| Intent::ask(&self.kit, &mut commit, Work::Revoke { task: task.id, branch, token }));
        Ok((commit, (task, intent)))
    }

    /// Ends the leases and the due entry of a claim within a commit.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn end_claim(&self, project: ProjectId, task: &Task, claim: Option<&Claim>, commit: &mut Commit) -> Result<(), Failure> {
        commit.deletes.extend(claim.map(|claim| hold_key(claim.agent, task.id)));
        commit.due.push(DueChange::Clear { name: claim_due(task.id) });
        if let Some(Loaded { value: mut table, version }) = self.kit.load::<LeaseTable>(Some(project), LEASES).await?
            && table.release(task.id)
        {
            commit.replace(LEASES, Some(version), &table);
        }
        Ok(())
    }

    /// Raises the fence in git, and records the end.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn finish_revoke(&self, project: ProjectId, intent: Option<&Intent>) -> Result<(), Failure> {
        let Some(intent) = intent else { return Ok(()) };
        if let Work::Revoke { task, branch, token } = &intent.work {
            self.kit.repository.revoke(project, *task, branch, *token).await?;
        }
        self.forget(project, intent).await
    }

    /// Ends a claim whose lease ran out: loudly, the branch kept.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn lapse(&self, project: ProjectId, id: TaskId) -> Result<(), Failure> {
        let (intent, _) = self
            .kit
            .decide(|| async {
                let Loaded { value: task, version } = self.tasks.get(project, id).await?;
                let now = self.kit.now();
                let clear = Commit { project: Some(project), due: vec![DueChange::Clear { name: claim_due(id) }], ..Commit::default() };
                let Some(claim) = task.claim.clone() else { return Ok((clear, None)) };
                if task.state == TaskState::Submitted {
                    // Its branch is in the host's hands: nothing is asked of the holder until it comes back.
                    let mut task = task;
                    let mut commit = Commit { project: Some(project), ..Commit::default() };
                    self.renew(project, &mut task, &mut commit).await?;
                    commit.replace(task_key(id), Some(version), &task);
                    commit.events.push(NewEvent::new("task.renewed", Actor::host(), id, json!({"agent": claim.agent_name})));
                    return Ok((commit, None));
                }
                if now < claim.until {
                    let mut commit = clear;
                    commit.due = vec![DueChange::Set { name: claim_due(id), at: claim.until }];
                    return Ok((commit, None));
                }
                let data = json!({"agent": claim.agent_name, "progress": task.progress});
                let event = NewEvent::new("task.lapsed", Actor::host(), id, data);
                let (mut commit, (task, intent)) = self.decide_release(project, task, version, event).await?;
                let body =
                    json!({"task": id, "branch": task.branch, "what": "Your claim lapsed without a sign of life. The branch is kept."});
                let notice = Notice::new(claim.agent, "lapse", format!("{id} was released"), body).caused_by(id);
                self.messaging.stage_notice(&mut commit, project, notice).await?;
                Ok((commit, intent))
            })
            .await?;
        self.finish_revoke(project, intent.as_ref()).await
    }
}

fn credential_of(project: ProjectId, task: TaskId, claim: &Claim) -> Vec<u8> {
    format!("{project}/{task}/{}/{}", claim.token, claim.agent).into_bytes()
}

/// The name of a claim's due entry.
#[must_use]
pub fn claim_due(task: TaskId) -> String {
    format!("claim/{task}")
}

/// Returns the caller as gates see it.
#[must_use]
pub fn gate_actor(acting: &Acting) -> GateActor {
    GateActor {
        agent: acting.agent.name.clone(),
        principal: acting.principal_name.clone(),
        provenance: acting.agent.provenance,
        capabilities: acting.agent.capabilities.iter().map(ToString::to_string).collect(),
    }
}

/// Returns what every gate knows of a task.
#[must_use]
pub fn gate_facts(actor: &GateActor, task: &Task) -> GateFacts {
    GateFacts {
        actor: actor.clone(),
        owner: task.claim.as_ref().map(|claim| claim.agent_name.clone()).unwrap_or_default(),
        task: task.id.to_string(),
        kind: task.kind.clone(),
        labels: task.labels.clone(),
        priority: task.priority,
        held: 0,
        target: String::new(),
        head: task.head.map(|head| head.to_string()).unwrap_or_default(),
        paths: task.paths.iter().chain(&task.shared_paths).map(ToString::to_string).collect(),
        lines_changed: 0,
        approvals: Vec::new(),
        checks: Vec::new(),
        capability: String::new(),
    }
}
