//! The worker: takes the next merge, brings it as far as it goes, and says how it ended.
//!
//! Nothing is kept between steps that the store does not have: a step that died is taken again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pointsman_core::agent::ProjectRecord;
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::{MergeId, Oid, ProjectId, TaskId};
use pointsman_core::merge::{Merge, MergeState, PassedCheck};
use pointsman_core::message::Address;
use pointsman_core::task::{Task, TaskState, dependency_order};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::receipt::{Receipt, SignedReceipt};
use super::strategies::Prepared;
use super::{MergeQueue, approvals_on, plural};
use crate::ports::plugins::{Gate, GateActor, GateFacts, GateVerdict, PluginRef, WaitingBranch};
use crate::ports::repository::{CheckReport, Landing, NewCommit, RepositoryError, Signature};
use crate::ports::store::Commit;
use crate::service::claims::gate_facts;
use crate::service::failure::Failure;
use crate::service::gates;
use crate::service::intents::{Intent, Work};
use crate::service::kit::{CommitExt, Loaded, chain};
use crate::service::messaging::{HostMessage, Notice, REVIEW_REQUEST};
use crate::service::tasks::{merge_key, task_key};
use crate::service::trace;

/// Milliseconds after which the queues are looked at when nobody rang.
const LOOK_MS: u64 = 60_000;
/// The same where other hosts ring, whose word may be lost on the way.
const LOOK_SHARED_MS: u64 = 5_000;
/// Milliseconds before the queue is looked at again after a failure that nobody caused.
const RETRY_MS: u64 = 1_000;
/// Bytes of a conflicted side that go into the message; the rest is behind `lookup`.
const CONFLICT_EXCERPT_BYTES: usize = 4_000;

/// What the worker remembers of the merges that wait. It only saves work: all of it can be found out again.
#[derive(Default)]
struct Memory {
    /// The target's head and the number of verdicts a merge was last tried with, so that nothing is done twice on the same
    /// grounds.
    tried: HashMap<MergeId, (Oid, usize)>,
    /// The paths each branch changes.
    paths: HashMap<MergeId, BTreeSet<String>>,
}

impl Memory {
    fn keep_only(&mut self, live: &[Merge]) {
        let lives = |id: &MergeId| live.iter().any(|merge| merge.id == *id);
        self.tried.retain(|id, _| lives(id));
        self.paths.retain(|id, _| lives(id));
    }

    fn paths_of(&self, merge: &Merge) -> Option<&BTreeSet<String>> {
        self.paths.get(&merge.id)
    }
}

impl MergeQueue {
    /// Works the queues of all projects that are at home here until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        let mut homes = self.kit.homes.changes();
        let look_ms = if self.kit.homes.are_shared() { LOOK_SHARED_MS } else { LOOK_MS };
        while !stop.is_cancelled() {
            homes.borrow_and_update();
            let worked = self.work(&mut memory, &stop).await;
            let retry = match worked {
                Ok(()) => None,
                Err(failure) => {
                    tracing::error!(error = %chain(&failure), "the merge queue stopped short and will go on");
                    Some(RETRY_MS)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.kit.homes.queue_bell().notified() => {}
                Ok(()) = homes.changed() => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(retry.unwrap_or(look_ms))) => {}
            }
        }
    }

    async fn work(&self, memory: &mut Memory, stop: &CancellationToken) -> Result<(), Failure> {
        for ProjectRecord { id: project, .. } in self.claims.projects().await? {
            while !stop.is_cancelled() && self.kit.homes.is_here(project) && self.work_one(project, memory).await? {}
        }
        Ok(())
    }

    /// Takes the first merge that can go on; says whether there was one.
    async fn work_one(&self, project: ProjectId, memory: &mut Memory) -> Result<bool, Failure> {
        let mut live: Vec<Merge> = self.all(project).await?;
        live.retain(|merge| matches!(merge.outcome, MergeState::Queued | MergeState::Waiting { .. }));
        if live.is_empty() {
            return Ok(false);
        }
        let tasks: BTreeMap<TaskId, Task> = self.tasks.all(project).await?.into_iter().map(|task| (task.id, task)).collect();
        self.remember_paths(project, &live, memory).await?;
        for merge in self.order(project, &live, &tasks, memory).await {
            let Some(task) = tasks.get(&merge.task) else { continue };
            let landed = |id: &TaskId| tasks.get(id).is_none_or(|task| task.state == TaskState::Landed);
            if !task.depends_on.iter().all(landed) {
                continue;
            }
            let ours = self.head_of(project, &merge.target).await?;
            let reviews = task.reviews.iter().filter(|review| review.head == merge.head).count();
            if memory.tried.get(&merge.id) == Some(&(ours, reviews)) {
                continue;
            }
            trace::on_behalf(merge.id.to_string(), self.step(project, &merge, task, ours)).await?;
            memory.tried.insert(merge.id, (ours, reviews));
            return Ok(true);
        }
        memory.keep_only(&live);
        Ok(false)
    }

    /// Finds out what each waiting branch changes, once a merge.
    async fn remember_paths(&self, project: ProjectId, live: &[Merge], memory: &mut Memory) -> Result<(), Failure> {
        for merge in live {
            if memory.paths_of(merge).is_none() {
                let target = self.head_of(project, &merge.target).await?;
                let files = self.kit.repository.changes(project, target, merge.head).await?;
                memory.paths.insert(merge.id, files.into_iter().map(|file| file.path).collect());
            }
        }
        Ok(())
    }

    /// Orders the queue by the workflow's word; dependencies come first whatever it says.
    async fn order(&self, project: ProjectId, live: &[Merge], tasks: &BTreeMap<TaskId, Task>, memory: &Memory) -> Vec<Merge> {
        let overlaps = |merge: &Merge| {
            let own = memory.paths_of(merge)?;
            let shares = |other: &Merge| other.id != merge.id && memory.paths_of(other).is_some_and(|paths| !paths.is_disjoint(own));
            Some((0u32..).zip(live).filter(|(_, other)| shares(other)).map(|(at, _)| at).collect())
        };
        let position = |id: &TaskId| live.iter().position(|merge| merge.task == *id).and_then(|at| u32::try_from(at).ok());
        let now = self.kit.now();
        let waiting = live.iter().map(|merge| {
            let task = tasks.get(&merge.task);
            WaitingBranch {
                task: merge.task.to_string(),
                priority: task.map_or(4, |task| task.priority),
                kind: task.map(|task| task.kind.clone()).unwrap_or_default(),
                waited_ms: now.since_ms(merge.queued_at),
                files: memory.paths_of(merge).map_or(0, |paths| u32::try_from(paths.len()).unwrap_or(u32::MAX)),
                after: task.map(|task| task.depends_on.iter().filter_map(position).collect()).unwrap_or_default(),
                overlaps: overlaps(merge).unwrap_or_default(),
            }
        });
        let as_they_came = || (0..u32::try_from(live.len()).unwrap_or(0)).collect();
        let order = match self.kit.workflow(project, None).await {
            Ok(Some(workflow)) => self.kit.plugins.merge_order(&workflow, waiting.collect()).await.map_err(Failure::from),
            Ok(None) => Ok(as_they_came()),
            Err(failure) => Err(failure),
        };
        let order = order.unwrap_or_else(|failure| {
            tracing::warn!(error = %chain(&failure), "workflow gave no order; first come, first served");
            as_they_came()
        });
        let wanted: Vec<&Merge> = order.iter().filter_map(|at| live.get(usize::try_from(*at).ok()?)).collect();
        let needs = |merge: &Merge| tasks.get(&merge.task).map(|task| task.depends_on.clone()).unwrap_or_default();
        let pairs: Vec<(TaskId, Vec<TaskId>)> = wanted.iter().map(|merge| (merge.task, needs(merge))).collect();
        let sorted = dependency_order(&pairs);
        sorted.iter().filter_map(|id| wanted.iter().find(|merge| merge.task == *id).map(|merge| (*merge).clone())).collect()
    }

    /// Brings one merge as far as it goes.
    async fn step(&self, project: ProjectId, merge: &Merge, task: &Task, ours: Oid) -> Result<(), Failure> {
        tracing::info!(merge = %merge.id, task = %merge.task, head = %merge.head.short(), onto = %ours.short(), "merging");
        let branch_head = self.kit.repository.branch_head(project, &merge.branch).await?;
        if branch_head != Some(merge.head) {
            let why = format!("`{}` moved after it was submitted", merge.branch);
            return self.end(project, merge, MergeState::Refused { rule: "branch_moved".to_owned(), why }).await;
        }
        let prepared = self.prepare(project, ours, merge.head, &BTreeMap::new()).await?;
        if !prepared.conflicts.is_empty() {
            return self.end(project, merge, MergeState::Conflicted { ours, conflicts: prepared.conflicts }).await;
        }
        let commit = self.candidate(project, merge, task, ours, prepared.tree).await?;
        let passed = match self.check(project, merge, commit, prepared.tree).await? {
            Ok(passed) => passed,
            Err(failed) => return self.end(project, merge, failed).await,
        };
        match self.gate(project, merge, task, &passed).await? {
            GateVerdict::Allow => self.land(project, merge, task, ours, commit, &prepared, passed).await,
            GateVerdict::Deny { rule, why, .. } => self.end(project, merge, MergeState::Refused { rule, why }).await,
            GateVerdict::Need { rule, why, by, .. } => {
                self.wait_for_approval(project, merge, task, MergeState::Waiting { rule, why, ours }, passed, &by).await
            }
        }
    }

    /// Runs every check that this tree has not passed yet; the end of the merge when one fails.
    async fn check(
        &self,
        project: ProjectId,
        merge: &Merge,
        commit: Oid,
        tree: Oid,
    ) -> Result<Result<Vec<PassedCheck>, MergeState>, Failure> {
        let mut passed = Vec::new();
        for check in &self.kit.settings.checks {
            if let Some(before) = merge.passed_on(&check.name, &check.command, tree) {
                passed.push(before.clone());
                continue;
            }
            let report = self.kit.repository.run_check(project, commit, check.clone()).await?;
            self.record_check(project, merge, &report).await?;
            if !report.passed || report.tree != tree {
                return Ok(Err(MergeState::Failed { check: report.name, output: report.output_tail }));
            }
            let CheckReport { name, took_ms, sandbox, .. } = report;
            passed.push(PassedCheck { name, command: check.command.clone(), tree, took_ms, sandbox });
        }
        Ok(Ok(passed))
    }

    async fn candidate(&self, project: ProjectId, merge: &Merge, task: &Task, ours: Oid, tree: Oid) -> Result<Oid, Failure> {
        let facts = self.change_facts(project, task, &merge.agent_name, merge.head, &merge.target).await?;
        let said = match self.kit.workflow(project, Some(&task.kind)).await? {
            Some(workflow) => self.kit.plugins.merge_message(&workflow, facts).await,
            None => Ok(String::new()),
        };
        let message = match said {
            Ok(message) if !message.trim().is_empty() => message,
            other => {
                if let Err(failure) = other {
                    tracing::warn!(merge = %merge.id, %failure, "workflow gave no merge message");
                }
                format!("Merge {}: {}\n\nTask: {}\nAgent: {}\n", merge.task, task.title, merge.task, merge.agent_name)
            }
        };
        let new = NewCommit {
            parents: vec![ours, merge.head],
            edits: Vec::new(),
            allowed: Vec::new(),
            author: Signature { name: "Pointsman".to_owned(), email: "host@pointsman.invalid".to_owned() },
            at: self.kit.now(),
            message,
        };
        Ok(self.kit.repository.write_merge_commit(project, tree, new, Some(merge.id)).await?)
    }

    async fn record_check(&self, project: ProjectId, merge: &Merge, report: &CheckReport) -> Result<(), Failure> {
        let data = json!({"task": merge.task, "check": report.name, "tree": report.tree, "passed": report.passed, "exit": report.exit,
                          "took_ms": report.took_ms, "sandbox": report.sandbox});
        let event = NewEvent::new("merge.checked", Actor::host(), merge.id, data);
        self.kit.store.commit(Commit { project: Some(project), events: vec![event], ..Commit::default() }).await?;
        Ok(())
    }

    async fn gate(&self, project: ProjectId, merge: &Merge, task: &Task, passed: &[PassedCheck]) -> Result<GateVerdict, Failure> {
        let target = self.head_of(project, &merge.target).await?;
        let files = self.kit.repository.changes(project, target, merge.head).await?;
        let actor = GateActor {
            agent: merge.agent_name.clone(),
            principal: String::new(),
            provenance: pointsman_core::event::Provenance::Agent,
            capabilities: Vec::new(),
        };
        let facts = GateFacts {
            target: merge.target.clone(),
            head: merge.head.to_string(),
            paths: files.iter().map(|file| file.path.clone()).collect(),
            lines_changed: files.iter().map(|file| file.added + file.removed).sum(),
            approvals: approvals_on(task, merge.head),
            checks: passed.iter().map(|check| (check.name.clone(), true)).collect(),
            ..gate_facts(&actor, task)
        };
        gates::ask(&self.kit, project, Gate::Land, facts).await
    }

    /// Ends a merge that does not land: gives the task back and tells its agent.
    async fn end(&self, project: ProjectId, merge: &Merge, state: MergeState) -> Result<(), Failure> {
        let (kind, subject, body) = self.ending(project, merge, &state).await?;
        self.kit.repository.drop_candidate(project, merge.id).await?;
        self.kit
            .decide(|| async {
                let Loaded { value: mut stored, version } = self.get(project, merge.id).await?;
                let mut commit = Commit { project: Some(project), ..Commit::default() };
                if !stored.advance(self.kit.now(), state.clone()) {
                    return Ok((commit, ()));
                }
                commit.replace(merge_key(merge.id), Some(version), &stored);
                let Loaded { value: mut task, version } = self.tasks.get(project, merge.task).await?;
                task.give_back(self.kit.now());
                self.claims.renew(project, &mut task, &mut commit).await?;
                commit.replace(task_key(task.id), Some(version), &task);
                let event = format!("merge.{}", stored.state_name());
                commit.events.push(NewEvent::new(&event, Actor::host(), merge.id, body.clone()).caused_by(merge.task));
                let notice = Notice::new(merge.agent, kind, subject.clone(), body.clone()).caused_by(merge.id);
                self.messaging.stage_notice(&mut commit, project, notice).await?;
                Ok((commit, ()))
            })
            .await?;
        Ok(())
    }

    /// Returns kind, subject and body of the notice about an ending.
    async fn ending(&self, project: ProjectId, merge: &Merge, state: &MergeState) -> Result<(&'static str, String, Value), Failure> {
        let (id, task) = (merge.id, merge.task);
        Ok(match state {
            MergeState::Conflicted { ours, conflicts } => {
                let mut files = Vec::new();
                for conflict in conflicts {
                    files.push(json!({
                        "path": conflict.path, "kind": conflict.kind, "reasons": conflict.reasons,
                        "base": self.excerpt(project, conflict.base).await?,
                        "ours": self.excerpt(project, conflict.ours).await?,
                        "theirs": self.excerpt(project, conflict.theirs).await?,
                    }));
                }
                let body = json!({"merge": id, "task": task, "target": merge.target, "ours": ours, "theirs": merge.head, "files": files,
                    "do": "Call resolve_conflict with every file: `content`, or `take` ours (the target) | theirs (your branch) | base, or `delete`."});
                ("conflict", format!("{task} conflicts with {} in {}", merge.target, plural(conflicts.len(), "file")), body)
            }
            MergeState::Failed { check, output } => {
                let body = json!({"merge": id, "task": task, "check": check, "output": output, "do": "Mend it on your branch, then submit_branch again."});
                ("check_failed", format!("{task}: check `{check}` failed on the merged tree"), body)
            }
            MergeState::Refused { rule, why } => {
                let body = json!({"merge": id, "task": task, "rule": rule, "why": why, "do": "Mend what the rule names, then submit_branch again."});
                ("refused", format!("{task} may not land: {why}"), body)
            }
            MergeState::Queued
            | MergeState::Waiting { .. }
            | MergeState::Landing { .. }
            | MergeState::Landed { .. }
            | MergeState::Withdrawn => ("notice", format!("{task} is {}", merge.state_name()), json!({"merge": id, "task": task})),
        })
    }

    async fn excerpt(&self, project: ProjectId, blob: Option<Oid>) -> Result<Value, Failure> {
        let Some(blob) = blob else { return Ok(Value::Null) };
        let mut bytes = self.kit.repository.blob(project, blob).await?;
        if pointsman_core::merge_text::is_binary(&bytes) {
            return Ok(json!({"blob": blob, "binary": true, "bytes": bytes.len()}));
        }
        let whole = bytes.len();
        bytes.truncate(CONFLICT_EXCERPT_BYTES);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(if whole > CONFLICT_EXCERPT_BYTES {
            json!({"blob": blob, "text": text, "cut": true, "bytes": whole})
        } else {
            json!({"blob": blob, "text": text})
        })
    }

    /// Stores that approvals are missing and asks for them, once a head.
    async fn wait_for_approval(
        &self,
        project: ProjectId,
        merge: &Merge,
        task: &Task,
        state: MergeState,
        passed: Vec<PassedCheck>,
        by: &str,
    ) -> Result<(), Failure> {
        let first = matches!(merge.outcome, MergeState::Queued);
        let data = json!({"task": merge.task, "branch": merge.branch, "head": merge.head, "state": state});
        self.kit
            .decide(|| async {
                let Loaded { value: mut stored, version } = self.get(project, merge.id).await?;
                let mut commit = Commit { project: Some(project), ..Commit::default() };
                if stored.advance(self.kit.now(), state.clone()) {
                    stored.passed.clone_from(&passed);
                    commit.replace(merge_key(merge.id), Some(version), &stored);
                    if first {
                        commit.events.push(NewEvent::new("merge.waiting", Actor::host(), merge.id, data.clone()).caused_by(merge.task));
                    }
                }
                Ok((commit, ()))
            })
            .await?;
        if first && let Err(failure) = self.ask_review(project, merge, task, by).await {
            tracing::warn!(merge = %merge.id, error = %chain(&failure), "nobody could be asked for a review");
        }
        Ok(())
    }

    async fn ask_review(&self, project: ProjectId, merge: &Merge, task: &Task, by: &str) -> Result<(), Failure> {
        let to = if by.is_empty() { Address::Everyone } else { Address::Capability(by.parse()?) };
        let body = json!({"task": merge.task, "merge": merge.id, "title": task.title, "branch": merge.branch, "head": merge.head, "target": merge.target,
            "see": format!("pull_request/{}", merge.task), "do": "Read the branch, then call review_branch with this head."});
        let message = HostMessage {
            to: vec![to],
            kind: REVIEW_REQUEST.to_owned(),
            subject: format!("Please review {}: {}", merge.task, task.title),
            body,
            paths: Vec::new(),
            priority: task.priority,
            causation: Some(merge.id.to_string()),
            except: vec![merge.agent],
        };
        self.messaging.send_as_host(project, message).await?;
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the grounds of a landing, each of them named in the receipt")]
    async fn land(
        &self,
        project: ProjectId,
        merge: &Merge,
        task: &Task,
        ours: Oid,
        commit: Oid,
        prepared: &Prepared,
        passed: Vec<PassedCheck>,
    ) -> Result<(), Failure> {
        let plugins = self.plugins_used(project, &task.kind, prepared).await?;
        let receipt = Receipt {
            v: 1,
            project,
            merge: merge.id,
            task: merge.task,
            agent: merge.agent_name.clone(),
            target: merge.target.clone(),
            base: prepared.base,
            ours,
            theirs: merge.head,
            commit,
            tree: prepared.tree,
            only_ours: prepared.only_ours,
            only_theirs: prepared.only_theirs,
            files: prepared.files.clone(),
            resolutions: task.resolutions.clone(),
            checks: passed.clone(),
            approvals: approvals_on(task, merge.head)
                .into_iter()
                .filter(|a| a.approves)
                .map(|a| format!("{} ({})", a.by.agent, a.by.principal))
                .collect(),
            plugins,
            at: self.kit.now(),
        };
        let signed = serde_json::to_string(&SignedReceipt::sign(&receipt, self.kit.keys.as_ref())).unwrap_or_default();
        let landing = Landing { merge: merge.id, task: merge.task, target: merge.target.clone(), old: ours, new: commit, receipt: signed };
        let (intent, _) = self
            .kit
            .decide(|| async {
                let Loaded { value: mut stored, version } = self.get(project, merge.id).await?;
                let mut asked = Commit { project: Some(project), ..Commit::default() };
                if !stored.advance(self.kit.now(), MergeState::Landing { commit }) {
                    return Ok((asked, None));
                }
                stored.passed.clone_from(&passed);
                asked.replace(merge_key(merge.id), Some(version), &stored);
                let data = json!({"task": merge.task, "commit": commit, "tree": prepared.tree, "onto": ours});
                asked.events.push(NewEvent::new("merge.landing", Actor::host(), merge.id, data).caused_by(merge.task));
                let intent = Intent::ask(&self.kit, &mut asked, Work::Land(landing.clone()));
                Ok((asked, Some(intent)))
            })
            .await?;
        match intent {
            Some(intent) => self.finish_landing(project, &intent).await,
            None => Ok(()),
        }
    }

    async fn plugins_used(&self, project: ProjectId, kind: &str, prepared: &Prepared) -> Result<Vec<PluginRef>, Failure> {
        let loaded = self.kit.plugins.loaded();
        let slug = self.kit.slug(project).await?;
        let bindings = self.kit.settings.bindings.now();
        let mergers = prepared.files.iter().filter_map(|file| file.resolved_by.as_deref()?.strip_prefix("plugin "));
        let mut names: Vec<&str> = mergers.collect();
        names.extend(bindings.policies(&slug, Gate::Land, kind));
        names.extend(bindings.workflow(&slug, Some(kind)));
        names.sort_unstable();
        names.dedup();
        Ok(names.into_iter().filter_map(|name| loaded.get(name).map(|(_, reference, _)| reference.clone())).collect())
    }

    /// Swaps the target and records the end; a target that moved sends the merge back to the queue.
    ///
    /// # Errors
    /// [`Failure`]; the intent stays for the next try.
    pub async fn finish_landing(&self, project: ProjectId, intent: &Intent) -> Result<(), Failure> {
        let Work::Land(landing) = &intent.work else { return Ok(()) };
        let landed = match self.kit.repository.land(project, landing.clone()).await {
            Ok(()) => true,
            Err(RepositoryError::Moved { .. }) => false,
            Err(other) => return Err(other.into()),
        };
        // Before the commit that ends it: what dies in between is taken up again, so the ref cannot stay behind.
        self.kit.repository.drop_candidate(project, landing.merge).await?;
        let (revoke, _) = self.kit.decide(|| self.decide_landed(project, intent, landing, landed)).await?;
        self.claims.finish_revoke(project, revoke.as_ref()).await?;
        self.kit.homes.queue_bell().notify_one();
        Ok(())
    }

    async fn decide_landed(
        &self,
        project: ProjectId,
        intent: &Intent,
        landing: &Landing,
        landed: bool,
    ) -> Result<(Commit, Option<Intent>), Failure> {
        let now = self.kit.now();
        let Loaded { value: mut merge, version } = self.get(project, landing.merge).await?;
        let mut commit = Commit { project: Some(project), deletes: vec![intent.key()], ..Commit::default() };
        if !self.kit.expect_intent(project, intent, &mut commit).await? {
            // Somebody else ended it, and the merge may be at its next landing.
            return Ok((Commit::default(), None));
        }
        let next = if landed { MergeState::Landed { commit: landing.new } } else { MergeState::Queued };
        if !merge.advance(now, next) {
            return Ok((commit, None));
        }
        commit.replace(merge_key(merge.id), Some(version), &merge);
        if !landed {
            let event = NewEvent::new("merge.requeued", Actor::host(), merge.id, json!({"task": merge.task, "why": "the target moved"}));
            commit.events.push(event.caused_by(intent.id));
            return Ok((commit, None));
        }
        let Loaded { value: mut task, version } = self.tasks.get(project, merge.task).await?;
        let claim = task.claim.clone();
        let token = task.land(now, self.kit.store.epoch());
        self.claims.end_claim(project, &task, claim.as_ref(), &mut commit).await?;
        commit.replace(task_key(task.id), Some(version), &task);
        let receipt: Value = serde_json::from_str(&landing.receipt).unwrap_or_default();
        let data = json!({"task": merge.task, "commit": landing.new, "from": landing.old, "target": landing.target, "receipt": receipt});
        commit.events.push(NewEvent::new("merge.landed", Actor::host(), merge.id, data).caused_by(intent.id));
        let body = json!({"merge": merge.id, "task": merge.task, "commit": landing.new, "target": landing.target});
        let notice = Notice::new(merge.agent, "landed", format!("{} landed on {}", merge.task, landing.target), body).caused_by(merge.id);
        self.messaging.stage_notice(&mut commit, project, notice).await?;
        let revoke = Intent::ask(&self.kit, &mut commit, Work::Revoke { task: merge.task, branch: merge.branch.clone(), token });
        Ok((commit, Some(revoke)))
    }
}
