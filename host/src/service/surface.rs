//! What agents see: eleven verbs and one opt-in, each answered with the result, who you are, what waits, what to do next.
//!
//! Reads arguments, resolves the agent, calls the use case, words the answer. Decides nothing itself.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use parking_lot::Mutex;
use pointsman_core::agent::TokenRecord;
use pointsman_core::context::ConflictPlace;
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::{ConflictId, ProjectId, TaskId};
use pointsman_core::inbox::Try;
use pointsman_core::message::SenderContext;
use pointsman_core::task::{Task, TaskState};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tracing::Instrument;

use super::agents::{Access, Agents, StartRequest, Started};
use super::claims::{Claimed, Claims, Report};
use super::commits::Commits;
use super::contexts::{Contexts, Viewer, WriteBatch, WriteOutcome};
use super::deferred::DeferredCalls;
use super::failure::{Failure, Refusal};
use super::kit::{Acting, Kit, chain};
use super::merge_queue::{GiveReview, MergeQueue};
use super::messaging::{Handed, Messaging, PeekRequest, SendBatch, WaitRequest};
use super::meters::{Ending, Meters};
use super::offers::OfferBook;
use super::pack::{self, BROUGHT_BYTES, pack};
use super::sessions::Sessions;
use super::tasks::{CreateTask, Tasks};
use super::{spans, trace};
use crate::ports::offering::Listing;
use crate::ports::surface::{CallError, Caller, Rejected, Surface, ToolAnswer};

mod arguments;
mod back;
mod documents;
mod lookup;
mod offering;
pub(in crate::service) mod own;
pub mod tools;

/// Tools after which an agent works on something else than before.
const CHANGES_WORK: [&str; 6] = ["claim_task", "update_task", "submit_branch", "resolve_conflict", "commit_files", "review_branch"];
/// Bytes of an answer besides its result and what comes next.
const ANSWER_BYTES: usize = 256;
/// Open tasks that `start` names.
const OPEN_TASKS_SHOWN_MAX: usize = 10;

/// The use cases behind the surface.
#[derive(Clone)]
pub struct Services {
    /// The ports.
    pub kit: Kit,
    /// Credentials and agents.
    pub agents: Arc<Agents>,
    /// Messages.
    pub messaging: Arc<Messaging>,
    /// Documents.
    pub contexts: Arc<Contexts>,
    /// Tasks.
    pub tasks: Tasks,
    /// Claims.
    pub claims: Claims,
    /// Commits.
    pub commits: Commits,
    /// The queue.
    pub queue: MergeQueue,
    /// What components offer.
    pub offers: Arc<OfferBook>,
    /// Components' calls that go on by themselves.
    pub deferred: DeferredCalls,
    /// What MCP sessions chose.
    pub sessions: Sessions,
    /// What is counted.
    pub meters: Arc<Meters>,
}

impl Services {
    /// Returns the use cases over these ports.
    #[must_use]
    pub fn new(kit: Kit, access: Access) -> Self {
        let agents = Arc::new(Agents::new(kit.clone()).with_access(access));
        let messaging = Arc::new(Messaging::new(kit.clone(), Arc::clone(&agents)));
        let contexts = Arc::new(Contexts::new(kit.clone(), Arc::clone(&agents)));
        let tasks = Tasks::new(kit.clone());
        let claims = Claims::new(kit.clone(), Arc::clone(&agents), tasks.clone(), Arc::clone(&messaging));
        let commits = Commits::new(kit.clone(), tasks.clone(), claims.clone());
        let queue = MergeQueue::new(kit.clone(), tasks.clone(), claims.clone(), commits.clone(), Arc::clone(&messaging));
        let offers = Arc::new(OfferBook::new(&kit.settings));
        let deferred = DeferredCalls::new(kit.clone(), Arc::clone(&offers));
        let sessions = Sessions::new(kit.clone());
        let meters = Arc::default();
        Self { kit, agents, messaging, contexts, tasks, claims, commits, queue, offers, deferred, sessions, meters }
    }
}

/// Reads what a `pointsman://` URI names, as `lookup` shows it.
///
/// # Errors
/// `not_found`, `bad_argument`.
pub(in crate::service) async fn read(services: &Services, project: ProjectId, viewer: Viewer, uri: &str) -> Result<Box<RawValue>, Failure> {
    Ok(lookup::lookup(services, &back::Reader { project, viewer }, uri).await?.result)
}

/// What an answer says while the store is away.
const DEGRADED: &str = "the store is away: what is shown may be old, messages are kept and sent when it is back, all else waits";
/// What to do after a message was kept.
const KEPT: &str = "The store is away: the message is kept and sent when it is back. Do not send it again; go on with your work.";

/// The agents' surface.
pub struct AgentSurface {
    services: Arc<Services>,
    lists: Mutex<HashMap<offering::ListKey, Arc<Listing>>>,
}

/// A result before it is worded: its JSON, what to do next, where more is.
struct Said {
    result: Box<RawValue>,
    next: Cow<'static, str>,
    more: Option<Cow<'static, str>>,
    handle: Option<String>,
}

impl Said {
    fn new(result: &impl Serialize, next: impl Into<Cow<'static, str>>) -> Self {
        let result = serde_json::value::to_raw_value(result).expect("what is shown has texts as keys");
        Self { result, next: next.into(), more: None, handle: None }
    }
}

/// The form that all answers share.
#[derive(Serialize)]
struct Worded<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<&'a str>,
    next: &'a str,
    result: &'a RawValue,
    unread: u32,
    you: You<'a>,
}

/// Who is answered.
#[derive(Serialize)]
struct You<'a> {
    agent: &'a str,
    lease_left_s: Option<u64>,
    task: Option<TaskId>,
}

impl AgentSurface {
    /// Returns the surface over these services.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services: Arc::new(services), lists: Mutex::new(HashMap::new()) }
    }

    fn count(&self, tool: usize, ending: Ending, begun: Instant) {
        let took = self.services.kit.system.instant().duration_since(begun);
        self.services.meters.called(tool, ending, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

#[async_trait]
impl Surface for AgentSurface {
    async fn admit(&self, bearer: Option<&str>, slug: Option<&str>, trace: String) -> Result<Caller, Rejected> {
        self.services.agents.admit(bearer, slug, trace).await
    }

    fn count(&self, caller: &Caller) -> Result<(), Rejected> {
        self.services.agents.count(caller)
    }

    async fn is_good(&self, credential: &TokenRecord) -> bool {
        self.services.agents.is_good(credential).await
    }

    async fn scopes_needed(&self, slug: Option<&str>) -> Vec<String> {
        self.services.agents.scopes_needed(slug).await
    }

    fn instructions(&self) -> &'static str {
        tools::INSTRUCTIONS
    }

    async fn call(&self, caller: &Caller, tool: &str, arguments: &RawValue) -> Result<ToolAnswer, CallError> {
        let known = tools::TOOLS.iter().enumerate().find(|(_, known)| known.name == tool);
        let known = known.filter(|(_, known)| known.toolset.is_none_or(|set| caller.token.toolsets.iter().any(|granted| granted == set)));
        let Some((position, known)) = known else { return Err(CallError::UnknownTool(tool.to_owned())) };
        let begun = self.services.kit.system.instant();
        let call = Call { services: Arc::clone(&self.services), caller: caller.clone(), tool: known.name };
        let answered = match arguments::split(tool, arguments) {
            Err(failure) => Err(failure),
            // A long poll ends with its caller, and so may what only reads; everything else is seen through whoever hangs up.
            Ok((arguments, agent)) if matches!(tool, "wait_for_events" | "lookup") => call.run(arguments, agent).await,
            Ok((arguments, agent)) => match tokio::spawn(async move { call.run(arguments, agent).await }.in_current_span()).await {
                Ok(answered) => answered,
                Err(panicked) => {
                    tracing::error!(trace = %caller.trace, tool, error = %panicked, "a tool died");
                    self.count(position, Ending::Failed, begun);
                    return Err(CallError::Internal { trace: caller.trace.clone() });
                }
            },
        };
        let answered = answered.or_else(|failure| worded(failure, caller, tool));
        let ending = match &answered {
            Ok(ToolAnswer { is_error: false, .. }) => Ending::Answered,
            Ok(_) => Ending::Refused,
            Err(_) => Ending::Failed,
        };
        self.count(position, ending, begun);
        answered
    }

    async fn ready(&self) -> Result<(), String> {
        self.services.kit.store.ready().await.map_err(|error| chain(&error))?;
        match self.services.kit.plugins.loaded().len() {
            0 => Err("no plugin is loaded".to_owned()),
            _ => Ok(()),
        }
    }

    fn is_degraded(&self) -> bool {
        self.services.kit.store.is_away()
    }
}

/// Returns a failure as a tool's answer where the agent can act on it.
fn worded(failure: Failure, caller: &Caller, tool: &str) -> Result<ToolAnswer, CallError> {
    let refusal = match failure {
        Failure::Refused(refusal) => *refusal,
        Failure::Unavailable { retry_after_ms } => Refusal {
            code: "unavailable",
            why: "the host cannot store anything right now".to_owned(),
            advice: format!("Try again in {} s, with the same idempotency key if you gave one.", retry_after_ms.div_ceil(1_000).max(1)),
            data: Some(json!({"retry_after_ms": retry_after_ms})),
        },
        Failure::Contended { key, tries } => Refusal {
            code: "contended",
            why: format!("`{key}` changed {tries} times while your call was decided"),
            advice: "Try again.".to_owned(),
            data: None,
        },
        internal @ (Failure::Damaged(_) | Failure::Repository(_) | Failure::Plugin(_)) => {
            tracing::error!(trace = %caller.trace, tool, error = %chain(&internal), "a call failed");
            return Err(CallError::Internal { trace: caller.trace.clone() });
        }
    };
    tracing::info!(trace = %caller.trace, tool, code = refusal.code, why = %refusal.why, "refused");
    spans::refused(refusal.code);
    let json = serde_json::to_string(&refusal).map_err(|_| CallError::Internal { trace: caller.trace.clone() })?;
    Ok(ToolAnswer { json, is_error: true, handle: None })
}

/// Returns a message the way an agent reads it: what is empty is left out.
fn shown_message(handed: &Handed) -> Value {
    let message = &handed.message;
    let mut shown = json!({
        "id": message.id,
        "kind": message.kind,
        "from": message.from.name,
        "provenance": message.from.provenance,
        "subject": message.subject,
        "body": message.body,
        "thread": message.thread,
        "attempt": handed.attempt,
        "sent_at": message.sent_at.to_rfc3339(),
    });
    if let Some(answered) = message.reply_to {
        shown["reply_to"] = json!(answered);
    }
    if !message.paths.is_empty() {
        shown["paths"] = json!(message.paths);
    }
    if let Some(correlation) = &message.correlation {
        shown["correlation"] = json!(correlation);
    }
    if !message.attachments.is_empty() {
        shown["attachments"] = json!(message.attachments);
    }
    if !message.headers.is_empty() {
        shown["headers"] = json!(message.headers);
    }
    if message.context != SenderContext::default() {
        shown["context"] = json!(message.context);
    }
    shown
}

/// Returns an event the way an agent reads it.
fn shown_event(event: &Event) -> Value {
    json!({"type": event.event.kind, "subject": event.event.subject, "by": event.event.actor.name, "data": event.event.data, "at": event.at.to_rfc3339()})
}

/// Reads the cursor of an earlier answer.
fn cursor(after: Option<&str>) -> Result<Option<Cursor>, Failure> {
    after.map(str::parse).transpose().map_err(|error| {
        Failure::refused("bad_argument", format!("`after`: {error}"), "Give the `cursor` of an earlier answer, or leave it out.")
    })
}

/// Returns a write that conflicts, as a refusal that says how to go on.
pub(in crate::service) fn conflict(id: ConflictId, current_version: u64, places: &[ConflictPlace]) -> Failure {
    Failure::refused_with(
        "conflict",
        format!("others wrote since your base, and disagree with you in {} places", places.len()),
        format!("Read the document, settle the places, and write from version {current_version} with `resolves`: \"{id}\"."),
        json!({"conflict": id, "current_version": current_version, "places": places}),
    )
}

/// One call on its way.
struct Call {
    services: Arc<Services>,
    caller: Caller,
    tool: &'static str,
}

impl Call {
    fn run(self, arguments: Value, agent: Option<String>) -> impl Future<Output = Result<ToolAnswer, Failure>> {
        let id: Arc<str> = self.caller.trace.as_str().into();
        trace::on_behalf(id, self.answer(arguments, agent))
    }

    async fn answer(self, mut arguments: Value, agent: Option<String>) -> Result<ToolAnswer, Failure> {
        if self.tool == "start" {
            return Box::pin(self.start(&arguments)).await;
        }
        if self.tool == "wait_for_events" && arguments::take_peek(&mut arguments)? {
            let acting = Box::pin(self.services.agents.on_behalf(&self.caller, agent.as_deref())).await?;
            let said = Box::pin(self.peek(&acting, &arguments)).await?;
            return Box::pin(self.word(&acting, said)).await;
        }
        // A call that waits keeps no room for what is before and behind that.
        let acting = Box::pin(self.services.agents.acting(&self.caller, agent.as_deref())).await?;
        let said = self.dispatch(&acting, &arguments).await?;
        if CHANGES_WORK.contains(&self.tool) {
            Box::pin(self.keep_own(&acting)).await;
        }
        Box::pin(self.word(&acting, said)).await
    }

    /// Has the agent's own document say what it works on now. Where that fails the call was done all the same: who reads the document brings
    /// it up, too.
    async fn keep_own(&self, acting: &Acting) {
        if let Err(failure) = pack::keep_own(&self.services, acting.project, &acting.agent).await {
            tracing::info!(agent = %acting.agent.name, error = %super::kit::chain(&failure), "an agent's own document is behind");
        }
    }

    /// Puts the answer into the form that all tools share.
    async fn word(&self, acting: &Acting, said: Said) -> Result<ToolAnswer, Failure> {
        let now = self.services.kit.now();
        let holding = self.services.claims.holding(acting.project, acting.agent.id).await?;
        let first = holding.first();
        let worded = Worded {
            degraded: self.services.kit.store.is_away().then_some(DEGRADED),
            more: said.more.as_deref(),
            next: &said.next,
            result: &said.result,
            unread: self.services.messaging.unread(acting.project, acting.agent.id).await?,
            you: You {
                agent: &acting.agent.name,
                lease_left_s: first.map(|held| held.until.since_ms(now) / 1_000),
                task: first.map(|held| held.task),
            },
        };
        let mut json = Vec::with_capacity(said.result.get().len() + said.next.len() + ANSWER_BYTES);
        serde_json::to_writer(&mut json, &worded).expect("writing to memory does not fail");
        let json = String::from_utf8(json).expect("serde_json writes UTF-8");
        Ok(ToolAnswer { json, is_error: false, handle: said.handle })
    }

    /// Each tool takes the room it needs, and no call that of the largest.
    async fn dispatch(&self, acting: &Acting, arguments: &Value) -> Result<Said, Failure> {
        let services = &self.services;
        match self.tool {
            "wait_for_events" => Box::pin(self.wait(acting, arguments)).await,
            "send_message" => {
                let next = "Go on with your work; answers come with wait_for_events.";
                if arguments.get("messages").is_some() {
                    let batch: SendBatch = arguments::read(self.tool, arguments)?;
                    let receipt = Box::pin(services.messaging.send_all(acting, &batch)).await?;
                    let is_kept = receipt.messages.iter().any(|message| message.kept);
                    return Ok(Said::new(&receipt, if is_kept { KEPT } else { next }));
                }
                let receipt = Box::pin(services.messaging.send(acting, &arguments::read(self.tool, arguments)?)).await?;
                Ok(Said::new(&receipt, if receipt.kept { KEPT } else { next }))
            }
            "lookup" => {
                let arguments::Lookup { uri } = arguments::read(self.tool, arguments)?;
                let reader = back::Reader { project: acting.project, viewer: acting.into() };
                Box::pin(lookup::lookup(services, &reader, &uri)).await
            }
            "create_task" => {
                let request: CreateTask = arguments::read(self.tool, arguments)?;
                let task = Box::pin(services.tasks.create(acting, request)).await?;
                let next = format!("Claim it with claim_task(\"{}\") if it is for you.", task.id);
                Ok(Said::new(&json!({"task": task.id, "title": task.title}), next))
            }
            "claim_task" => {
                let request: arguments::ClaimTask = arguments::read(self.tool, arguments)?;
                let claimed = Box::pin(services.claims.claim(acting, request.task, &request.paths)).await?;
                self.claimed(acting, &claimed).await
            }
            "update_task" => Box::pin(self.update(acting, arguments)).await,
            "submit_branch" => {
                let request: arguments::SubmitBranch = arguments::read(self.tool, arguments)?;
                let merge = Box::pin(services.queue.submit(acting, request.task, request.head)).await?;
                let result = json!({"merge": merge.id, "task": merge.task, "head": merge.head, "state": merge.state_name()});
                Ok(Said::new(&result, "Call wait_for_events: the outcome comes as a message (landed, conflict, check_failed, refused)."))
            }
            "review_branch" => {
                let request: arguments::ReviewBranch = arguments::read(self.tool, arguments)?;
                let give = GiveReview {
                    task: request.task,
                    approves: request.verdict == arguments::Verdict::Approve,
                    head: request.head,
                    comment: request.comment,
                };
                let task = Box::pin(services.queue.review(acting, &give)).await?;
                Ok(Said::new(&json!({"task": task.id, "head": task.head}), "Ack the review request with wait_for_events."))
            }
            "resolve_conflict" => {
                let request: arguments::ResolveConflict = arguments::read(self.tool, arguments)?;
                let merge = Box::pin(services.queue.resolve(acting, request.task, &request.files)).await?;
                let result = json!({"merge": merge.id, "task": merge.task, "head": merge.head, "state": merge.state_name()});
                Ok(Said::new(&result, "Your resolution is on your branch and queued; fetch before you commit again, then wait_for_events."))
            }
            "write_context" => Box::pin(self.write_context(acting, arguments)).await,
            "commit_files" => {
                let request: arguments::CommitFiles = arguments::read(self.tool, arguments)?;
                let made = Box::pin(services.commits.commit_files(acting, &request)).await?;
                let next = format!("Commit more, or submit_branch(\"{}\").", made.task);
                Ok(Said::new(&made, next))
            }
            other => Err(Failure::refused("unknown_tool", format!("there is no tool `{other}`"), "List the tools.")),
        }
    }

    async fn write_context(&self, acting: &Acting, arguments: &Value) -> Result<Said, Failure> {
        const WRITTEN: &str = "Go on; others who watch the key are told.";
        let contexts = &self.services.contexts;
        if arguments.get("documents").is_some() {
            let batch: WriteBatch = arguments::read(self.tool, arguments)?;
            let outcomes = contexts.write_all(acting, &batch).await?;
            let named: Vec<_> = batch.documents.iter().zip(&outcomes).map(|(document, outcome)| (&document.key, outcome)).collect();
            let shown: Vec<Value> = named.iter().map(|(key, outcome)| json!({"key": key, "is": outcome})).collect();
            if let Some((key, _)) = named.iter().find(|(_, outcome)| matches!(outcome, WriteOutcome::Conflict { .. })) {
                return Err(Failure::refused_with(
                    "conflict",
                    format!("`{key}` conflicts, so none of the documents was written"),
                    "Settle each conflict that is named, then write all of them again from the newest versions.",
                    json!({"documents": shown}),
                ));
            }
            return Ok(Said::new(&json!({"documents": shown}), WRITTEN));
        }
        match contexts.write(acting, arguments::read(self.tool, arguments)?).await? {
            applied @ WriteOutcome::Applied { .. } => Ok(Said::new(&applied, WRITTEN)),
            handed @ WriteOutcome::Handed { .. } => Ok(Said::new(&handed, "It is that agent's to settle now; it was told. Go on.")),
            WriteOutcome::Conflict { id, current_version, conflicts, .. } => Err(conflict(id, current_version, &conflicts)),
        }
    }

    async fn wait(&self, acting: &Acting, arguments: &Value) -> Result<Said, Failure> {
        let asked: arguments::WaitForEvents = arguments::read(self.tool, arguments)?;
        let after = cursor(asked.after.as_deref())?;
        let holding = Box::pin(self.services.claims.holding(acting.project, acting.agent.id)).await?;
        let request = WaitRequest {
            ack: asked.ack,
            nack: asked.nack,
            max_s: asked.max_s,
            after,
            watch: asked.watch,
            tasks: holding.iter().map(|held| held.task).collect(),
            messages_max: None,
        };
        let answer = self.services.messaging.wait(acting, &request).await?;
        let next = match (answer.messages.is_empty(), answer.events.is_empty()) {
            (true, _) if answer.superseded => "A newer wait of yours took over: do not wait again here.",
            (false, _) => "Act on the messages, then ack each id in your next wait_for_events.",
            (true, false) => "Look at the events, then go on.",
            (true, true) => "Nothing new: go on with your work, or wait again.",
        };
        let mut result = json!({
            "messages": answer.messages.iter().map(shown_message).collect::<Vec<_>>(),
            "events": answer.events.iter().map(|event| shown_event(event)).collect::<Vec<_>>(),
            "cursor": answer.cursor.to_string(),
        });
        if !answer.settled.refused.is_empty() {
            result["not_settled"] = json!(answer.settled.refused);
        }
        if answer.superseded {
            result["superseded"] = true.into();
        }
        Ok(Said::new(&result, next))
    }

    /// Looks what there is for the agent to come for, and takes nothing.
    async fn peek(&self, acting: &Acting, arguments: &Value) -> Result<Said, Failure> {
        let asked: arguments::WaitForEvents = arguments::read(self.tool, arguments)?;
        if !asked.ack.is_empty() || !asked.nack.is_empty() {
            return Err(Failure::refused("bad_argument", "`peek` only looks: it settles nothing", "Leave `ack` and `nack` out."));
        }
        let holds = || async {
            let holding = self.services.claims.holding(acting.project, acting.agent.id).await?;
            Ok(holding.iter().map(|held| held.task).collect())
        };
        let request = PeekRequest { max_s: asked.max_s, after: cursor(asked.after.as_deref())?, watch: asked.watch };
        let seen = self.services.messaging.peek(acting, &request, holds).await?;
        let result = json!({
            "waiting": seen.waiting,
            "arrived": seen.arrived,
            "events": seen.events.iter().map(|event| shown_event(event)).collect::<Vec<_>>(),
            "cursor": seen.cursor.to_string(),
            "more_events": seen.more,
        });
        Ok(Said::new(&result, "Nothing was taken: the agent itself takes what waits with wait_for_events."))
    }

    async fn update(&self, acting: &Acting, arguments: &Value) -> Result<Said, Failure> {
        let request: arguments::UpdateTask = arguments::read(self.tool, arguments)?;
        let task = if request.release {
            self.services.claims.release(acting, request.task, request.note.as_deref()).await?
        } else {
            let report = Report { progress: request.progress, note: request.note };
            self.services.claims.report(acting, request.task, &report).await?
        };
        let next = match task.state {
            TaskState::Open => "It is free again; claim another with claim_task.".to_owned(),
            TaskState::Claimed | TaskState::Submitted | TaskState::Landed | TaskState::Cancelled => {
                format!("Go on; submit_branch(\"{}\") when it is done.", task.id)
            }
        };
        Ok(Said::new(&json!({"task": task.id, "state": task.state, "progress": task.progress}), next))
    }

    async fn claimed(&self, acting: &Acting, claimed: &Claimed) -> Result<Said, Failure> {
        let services = &self.services;
        let target = services.agents.project(acting.project).await?;
        let url = services.kit.settings.public_url.trim_end_matches('/');
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let id = claimed.task.id;
        let clone = format!("{scheme}://{id}:{}@{rest}/git/{}.git", claimed.secret, target.slug);
        let result = json!({
            "task": id,
            "title": claimed.task.title,
            "description": claimed.task.description,
            "acceptance": claimed.task.acceptance,
            "branch": claimed.branch,
            "head": claimed.head,
            "base": claimed.task.base,
            "target": target.target,
            "paths": claimed.paths,
            "token": claimed.task.fence.to_string(),
            "git": {
                "url": clone,
                "commands": [
                    format!("git clone --branch {} {clone} {}-{id}", claimed.branch, target.slug),
                    format!("git push origin HEAD:refs/heads/{}", claimed.branch),
                ],
            },
        });
        let mut result = result;
        result["context"] =
            pack(services, acting.project, &acting.into(), &services.tasks.all(acting.project).await?, Some(id), BROUGHT_BYTES).await?;
        let next = format!("Change only the leased paths on `{}`; update_task as you go; then submit_branch(\"{id}\").", claimed.branch);
        Ok(Said { more: Some(Cow::Owned(format!("pointsman://pack/{id}"))), ..Said::new(&result, next) })
    }

    async fn start(&self, arguments: &Value) -> Result<ToolAnswer, Failure> {
        let request: StartRequest = arguments::read(self.tool, arguments)?;
        let Started { agent, handle, .. } = self.services.agents.start(&self.caller, &request).await?;
        let acting = Acting {
            project: self.caller.project,
            agent: Arc::new(agent),
            principal_name: self.caller.token.principal_name.clone(),
            trace: self.caller.trace.clone(),
        };
        // Whoever starts again has lost what it was handed: it comes again at once, not after its lease, and as the same try.
        self.services.messaging.recall(&acting, Try::TakenBack).await?;
        let project = self.services.agents.project(acting.project).await?;
        let all = self.services.tasks.all(acting.project).await?;
        let mine: Vec<&Task> = all.iter().filter(|task| task.claim.as_ref().is_some_and(|claim| claim.agent == acting.agent.id)).collect();
        let landed = |id| all.iter().any(|task: &Task| task.id == id && task.state == TaskState::Landed);
        let open: Vec<Value> = all
            .iter()
            .filter(|task| task.state == TaskState::Open)
            .take(OPEN_TASKS_SHOWN_MAX)
            .map(|task| {
                let waits: Vec<_> = task.depends_on.iter().filter(|id| !landed(**id)).collect();
                json!({"task": task.id, "title": task.title, "priority": task.priority, "kind": task.kind, "waits_for": waits})
            })
            .collect();
        let unread = self.services.messaging.unread(acting.project, acting.agent.id).await?;
        let mut conflicts = Vec::new();
        for task in &mine {
            if let Some(latest) = self.services.queue.latest(acting.project, task).await?
                && latest.value.state_name() == "conflicted"
            {
                conflicts.push(json!({"task": task.id, "merge": latest.value.id, "see": format!("conflict/{}", task.id)}));
            }
        }
        let next = match (mine.first(), unread, conflicts.first()) {
            (_, _, Some(conflict)) => {
                format!("Resolve the conflict: lookup(\"{}\"), then resolve_conflict.", conflict["see"].as_str().unwrap_or_default())
            }
            (Some(task), _, _) if task.state == TaskState::Submitted => "Your branch is in the queue: wait_for_events.".to_owned(),
            (Some(task), _, _) => format!("Go on with {}: claim_task(\"{}\") gives its git commands again.", task.id, task.id),
            (None, 1.., _) => "Read your messages with wait_for_events.".to_owned(),
            (None, 0, _) if open.is_empty() => "Nothing is open: wait_for_events, or create_task.".to_owned(),
            (None, 0, _) => "Claim a task with claim_task.".to_owned(),
        };
        let tasks: Vec<Value> = mine
            .iter()
            .map(|task| json!({"task": task.id, "title": task.title, "state": task.state, "branch": task.branch, "progress": task.progress, "note": task.note}))
            .collect();
        let result = json!({
            "agent": acting.agent.name,
            "id": acting.agent.id,
            "handle": handle,
            "capabilities": acting.agent.capabilities,
            "project": project.slug,
            "target": project.target,
            "tasks": tasks,
            "conflicts": conflicts,
            "open": open,
            "context": pack(&self.services, acting.project, &(&acting).into(), &all, mine.first().map(|task| task.id), BROUGHT_BYTES).await?,
            "cursor": self.services.kit.store.head(Some(acting.project)).await?.to_string(),
        });
        self.word(&acting, Said { handle: Some(handle), more: Some(Cow::Borrowed("pointsman://tasks")), ..Said::new(&result, next) }).await
    }
}
