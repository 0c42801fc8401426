//! Calls of components that go on by themselves: what MCP's extension calls tasks (`io.modelcontextprotocol/tasks`).
//!
//! A call that is not done when its client may be sent away is written down, woken when its component asked for it, and kept
//! for its client until it expires. It survives a restart: what a component needs to go on is in its state.
//!
//! **Invariants:** a call that was answered with its id can be got by that id from then on; only the principal that made a
//! call sees it; an end is final. A wake-up may come twice, after a crash; never not at all.

use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::{PrincipalId, ProjectId};
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::kit::{CommitExt, Kit, Loaded, chain};
use super::offers::OfferBook;
use crate::ports::offering::{News, Round};
use crate::ports::plugins::PluginFailure;
use crate::ports::provider::{Emission, Emit, ProviderCall, ProviderContext, ProviderOutcome};
use crate::ports::store::{Commit, DueChange};
use crate::ports::surface::Caller;

/// Where deferred calls stand, and what their due entries are called.
pub const DEFERRED: &str = "mcp-task/";
/// Milliseconds from its making after which a call is dropped, and failed if it is not done.
const TTL_MS: u64 = 24 * 60 * 60 * 1_000;
/// Milliseconds a client is asked to let pass between two looks.
const POLL_MS: u64 = 500;
/// Milliseconds within which a wake-up has to end; then it comes again.
const WAKE_LEASE_MS: u64 = 120_000;
/// Failures of the component itself after which a call is failed.
const FAILURES_MAX: u32 = 3;
/// Milliseconds before a call whose component failed is woken again.
const RETRY_MS: u64 = 2_000;

/// How a call stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Standing {
    Working,
    InputRequired { requests: String, answers: String },
    Completed { result: String },
    Failed { code: i32, message: String },
    Cancelled,
}

impl Standing {
    fn is_end(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Failed { .. } | Self::Cancelled)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired { .. } => "input_required",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A call that goes on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Deferred {
    id: String,
    principal: PrincipalId,
    principal_name: String,
    agent: String,
    call: ProviderCall,
    call_id: String,
    client_capabilities: String,
    state: Vec<u8>,
    /// What the client answered, for the next round.
    answers: String,
    standing: Standing,
    failures: u32,
    created_at: TimeMs,
    updated_at: TimeMs,
}

impl Stored for Deferred {
    const NAME: &'static str = "deferred call";
}

fn key(id: &str) -> String {
    format!("{DEFERRED}{id}")
}

impl Deferred {
    /// Returns the call as a `DetailedTask`.
    fn shown(&self) -> Box<RawValue> {
        let parsed = |json: &str| serde_json::from_str::<Value>(json).unwrap_or_default();
        let mut shown = json!({
            "taskId": self.id,
            "status": self.standing.name(),
            "createdAt": self.created_at.to_rfc3339(),
            "lastUpdatedAt": self.updated_at.to_rfc3339(),
            "ttlMs": TTL_MS,
            "pollIntervalMs": POLL_MS,
        });
        match &self.standing {
            Standing::Working | Standing::Cancelled => {}
            Standing::InputRequired { requests, answers } => {
                let (mut open, given) = (parsed(requests), parsed(answers));
                if let (Some(open), Some(given)) = (open.as_object_mut(), given.as_object()) {
                    open.retain(|key, _| !given.contains_key(key));
                }
                shown["inputRequests"] = open;
            }
            Standing::Completed { result } => shown["result"] = parsed(result),
            Standing::Failed { code, message } => shown["error"] = json!({"code": code, "message": message}),
        }
        serde_json::value::to_raw_value(&shown).expect("a value is JSON")
    }

    fn ends_at(&self) -> TimeMs {
        self.created_at + TTL_MS
    }
}

/// Returns the event that says that a component's call is done.
#[must_use]
pub fn called(plugin: &str, call: &ProviderCall) -> NewEvent {
    let (verb, name) = match call {
        ProviderCall::Tool { name, .. } => ("tool", name),
        ProviderCall::Resource { uri } => ("resource", uri),
        ProviderCall::Prompt { name, .. } => ("prompt", name),
    };
    NewEvent::new("mcp.called", Actor::host(), plugin, json!({"plugin": plugin, "verb": verb, "name": name}))
}

/// Nobody listens to a call that goes on by itself.
struct Unheard;

impl Emit for Unheard {
    fn emit(&self, _: Emission) -> bool {
        true
    }
}

/// Use cases over deferred calls.
#[derive(Clone)]
pub struct DeferredCalls {
    kit: Kit,
    offers: Arc<OfferBook>,
}

impl DeferredCalls {
    /// Returns the use cases.
    #[must_use]
    pub fn new(kit: Kit, offers: Arc<OfferBook>) -> Self {
        Self { kit, offers }
    }

    /// Writes a call down and returns it as its client sees it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn open(
        &self,
        caller: &Caller,
        agent: String,
        call: ProviderCall,
        round: Round,
        wake_ms: u32,
    ) -> Result<Box<RawValue>, Failure> {
        let mut random = [0; 20];
        self.kit.system.random(&mut random);
        let now = self.kit.now();
        let deferred = Deferred {
            id: BASE32_NOPAD.encode(&random).to_ascii_lowercase(),
            principal: caller.token.principal,
            principal_name: caller.token.principal_name.clone(),
            agent,
            call,
            call_id: round.call_id,
            client_capabilities: round.client_capabilities,
            state: round.state,
            answers: "{}".to_owned(),
            standing: Standing::Working,
            failures: 0,
            created_at: now,
            updated_at: now,
        };
        let mut commit = Commit { project: Some(caller.project), ..Commit::default() };
        commit.replace(key(&deferred.id), None, &deferred);
        commit.due.push(DueChange::Set { name: key(&deferred.id), at: now + u64::from(wake_ms) });
        self.kit.store.commit(commit).await?;
        Ok(deferred.shown())
    }

    async fn load(&self, project: ProjectId, id: &str) -> Result<Option<Loaded<Deferred>>, Failure> {
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_id { self.kit.load(Some(project), &key(id)).await } else { Ok(None) }
    }

    async fn of_caller(&self, caller: &Caller, id: &str) -> Result<Option<Loaded<Deferred>>, Failure> {
        let found = self.load(caller.project, id).await?;
        Ok(found.filter(|found| found.value.principal == caller.token.principal))
    }

    /// Returns a call of this principal; none: there is no such.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Option<Box<RawValue>>, Failure> {
        Ok(self.of_caller(caller, id).await?.map(|found| found.value.shown()))
    }

    /// Takes a client's answers; those that nobody asked for are passed over. False: there is no such call.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn answer(&self, caller: &Caller, id: &str, given: &RawValue) -> Result<bool, Failure> {
        let given: Map<String, Value> = serde_json::from_str(given.get()).unwrap_or_default();
        self.change(caller, id, |deferred, commit, now| {
            let Standing::InputRequired { requests, answers } = &mut deferred.standing else { return false };
            let asked: Map<String, Value> = serde_json::from_str(requests).unwrap_or_default();
            let mut all: Map<String, Value> = serde_json::from_str(answers).unwrap_or_default();
            all.extend(given.iter().filter(|(key, _)| asked.contains_key(*key)).map(|(key, value)| (key.clone(), value.clone())));
            let is_whole = asked.keys().all(|key| all.contains_key(key));
            *answers = Value::Object(all).to_string();
            if is_whole {
                deferred.answers.clone_from(answers);
                deferred.standing = Standing::Working;
                commit.due.push(DueChange::Set { name: key(&deferred.id), at: now });
            }
            true
        })
        .await
    }

    /// Cancels a call that has not ended. False: there is no such call.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn cancel(&self, caller: &Caller, id: &str) -> Result<bool, Failure> {
        let known = self
            .change(caller, id, |deferred, commit, _| {
                if deferred.standing.is_end() {
                    return false;
                }
                deferred.standing = Standing::Cancelled;
                commit.due.push(DueChange::Set { name: key(&deferred.id), at: deferred.ends_at() });
                true
            })
            .await?;
        if let Some(Loaded { value, .. }) = self.of_caller(caller, id).await?
            && value.standing == Standing::Cancelled
            && let Some(plugin) = self.owner(caller.project, &value.call)
            && let Err(failure) = self.kit.providers.cancelled(&plugin, value.call_id, value.state).await
        {
            tracing::info!(plugin, %failure, "a component was not told that its call is cancelled");
        }
        Ok(known)
    }

    async fn change(
        &self,
        caller: &Caller,
        id: &str,
        decide: impl Fn(&mut Deferred, &mut Commit, TimeMs) -> bool,
    ) -> Result<bool, Failure> {
        let ((known, changed), _) = self
            .kit
            .decide(|| async {
                let mut commit = Commit { project: Some(caller.project), ..Commit::default() };
                let Some(Loaded { mut value, version }) = self.of_caller(caller, id).await? else { return Ok((commit, (false, false))) };
                let now = self.kit.now();
                let changed = decide(&mut value, &mut commit, now);
                if changed {
                    value.updated_at = now;
                    commit.replace(key(id), Some(version), &value);
                }
                Ok((commit, (true, changed)))
            })
            .await?;
        if changed {
            self.offers.announce(caller.project, News::Deferred(id.into()));
        }
        Ok(known)
    }

    fn owner(&self, project: ProjectId, call: &ProviderCall) -> Option<String> {
        let offers = self.offers.of(project);
        match call {
            ProviderCall::Tool { name, .. } => offers.tool(name).map(|tool| tool.plugin.clone()),
            ProviderCall::Resource { uri } => offers.owner_of(uri).map(str::to_owned),
            ProviderCall::Prompt { name, .. } => offers.prompt(name).map(|prompt| prompt.plugin.clone()),
        }
    }

    /// Takes up a call that is due, or drops it when it expired. The wake-up itself runs on; should it be lost, it is due again.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn wake(&self, project: ProjectId, id: &str) -> Result<(), Failure> {
        let now = self.kit.now();
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        let Some(Loaded { value, version }) = self.load(project, id).await? else {
            commit.due.push(DueChange::Clear { name: key(id) });
            self.kit.store.commit(commit).await?;
            return Ok(());
        };
        if now >= value.ends_at() {
            commit.due.push(DueChange::Clear { name: key(id) });
            commit.deletes.push(key(id));
            self.kit.store.commit(commit).await?;
            return Ok(());
        }
        let again = if value.standing == Standing::Working { now + WAKE_LEASE_MS } else { value.ends_at() };
        commit.due.push(DueChange::Set { name: key(id), at: again });
        self.kit.store.commit(commit).await?;
        if value.standing == Standing::Working {
            let calls = self.clone();
            tokio::spawn(async move {
                if let Err(failure) = calls.round(project, value, version).await {
                    tracing::warn!(error = %chain(&failure), "a deferred call could not be taken further; it is tried again");
                }
            });
        }
        Ok(())
    }

    async fn round(&self, project: ProjectId, mut deferred: Deferred, version: u64) -> Result<(), Failure> {
        let outcome = self.ask(project, &deferred).await;
        let now = self.kit.now();
        let mut due_at = deferred.ends_at();
        deferred.answers = "{}".to_owned();
        deferred.standing = match outcome {
            Ok(ProviderOutcome::Complete(result)) => Standing::Completed { result },
            Ok(ProviderOutcome::Pending { state, wake_ms }) => {
                deferred.state = state;
                due_at = now + u64::from(wake_ms);
                Standing::Working
            }
            Ok(ProviderOutcome::InputRequired { requests, state }) => {
                deferred.state = state;
                Standing::InputRequired { requests, answers: "{}".to_owned() }
            }
            Ok(ProviderOutcome::MissingCapability(required)) => {
                Standing::Failed { code: -32021, message: format!("Missing required client capability: {required}") }
            }
            Ok(ProviderOutcome::ProtocolError { code, message }) => Standing::Failed { code, message },
            Err(failure) => {
                deferred.failures += 1;
                tracing::warn!(task = %deferred.id, %failure, failures = deferred.failures, "a deferred call's component failed");
                if deferred.failures < FAILURES_MAX {
                    due_at = now + RETRY_MS;
                    Standing::Working
                } else {
                    Standing::Failed { code: -32603, message: format!("the component failed {FAILURES_MAX} times") }
                }
            }
        };
        deferred.updated_at = now;
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        // Cancelled meanwhile: the version says so, and the end stays.
        commit.replace(key(&deferred.id), Some(version), &deferred);
        commit.due.push(DueChange::Set { name: key(&deferred.id), at: due_at });
        if let (Standing::Completed { .. }, Some(plugin)) = (&deferred.standing, self.owner(project, &deferred.call)) {
            commit.events.push(called(&plugin, &deferred.call));
        }
        match self.kit.store.commit(commit).await {
            Ok(_) => self.offers.announce(project, News::Deferred(deferred.id.as_str().into())),
            Err(crate::ports::store::StoreError::Stale { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        Ok(())
    }

    async fn ask(&self, project: ProjectId, deferred: &Deferred) -> Result<ProviderOutcome, PluginFailure> {
        let offers = self.offers.of(project);
        let ProviderCall::Tool { name, arguments } = &deferred.call else { return Err(PluginFailure::NotBound(String::new())) };
        let tool = offers.tool(name).ok_or_else(|| PluginFailure::NotBound(name.clone()))?;
        let context = ProviderContext {
            agent: deferred.agent.clone(),
            principal: deferred.principal_name.clone(),
            call_id: deferred.call_id.clone(),
            client_capabilities: deferred.client_capabilities.clone(),
            state: deferred.state.clone(),
            answers: deferred.answers.clone(),
            at_ms: self.kit.now().0,
        };
        let call = ProviderCall::Tool { name: tool.name.clone(), arguments: arguments.clone() };
        self.kit.providers.provide(&tool.plugin, context, call, Arc::new(Unheard)).await
    }
}
