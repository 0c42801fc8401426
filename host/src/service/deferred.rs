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
use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

mod record;

use self::record::{Answered, Deferred, Standing};
use super::failure::Failure;
use super::kit::{CommitExt, Kit, Loaded, chain};
use super::lookups::StoreLookups;
use super::offers::OfferBook;
use super::provided::{Trouble, judged};
use super::surface::Services;
use crate::ports::offering::{News, Round};
use crate::ports::plugins::PluginFailure;
use crate::ports::provider::{Emission, Emit, ProviderCall, ProviderContext, ProviderOutcome, wake_after_ms};
use crate::ports::store::{Commit, DueChange, StoreError};
use crate::ports::surface::Caller;

/// Where deferred calls stand, and what their due entries are called.
pub const DEFERRED: &str = "mcp-task/";
/// Where it stands that a principal's call has not ended.
const OPEN: &str = "mcp-open/";
/// Calls of a principal that have not ended.
const OPEN_MAX: usize = 1_000;
/// Milliseconds within which a wake-up has to end; then it comes again.
const WAKE_LEASE_MS: u64 = 120_000;

fn key(id: &str) -> String {
    format!("{DEFERRED}{id}")
}

/// Returns the key that stands as long as a call has not ended.
fn open_key(deferred: &Deferred) -> String {
    format!("{OPEN}{}/{}", deferred.principal, deferred.id)
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
    /// `too_many_tasks`, [`Failure`].
    pub async fn open(
        &self,
        caller: &Caller,
        agent: String,
        call: ProviderCall,
        round: Round,
        wake_ms: u32,
    ) -> Result<Box<RawValue>, Failure> {
        let prefix = format!("{OPEN}{}/", caller.token.principal);
        if self.kit.store.range(Some(caller.project), &prefix, "", OPEN_MAX).await?.entries.len() >= OPEN_MAX {
            let why = format!("{OPEN_MAX} tasks of yours have not ended");
            return Err(Failure::refused("too_many_tasks", why, "Wait until one ends, or cancel one."));
        }
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
            asked: 0,
            created_at: now,
            updated_at: now,
        };
        let mut commit = Commit { project: Some(caller.project), ..Commit::default() };
        commit.replace(key(&deferred.id), None, &deferred);
        commit.puts.push((open_key(&deferred), Vec::new()));
        commit.due.push(DueChange::Set { name: key(&deferred.id), at: deferred.due_in(wake_after_ms(wake_ms), now) });
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
        self.change(caller, id, |deferred, now| match deferred.answer(&given, now) {
            Answered::Nothing => None,
            Answered::Partly => Some(deferred.kept_until()),
            Answered::Wholly => Some(now),
        })
        .await
    }

    /// Cancels a call that has not ended. False: there is no such call.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn cancel(&self, caller: &Caller, id: &str) -> Result<bool, Failure> {
        let known = self.change(caller, id, |deferred, now| deferred.cancel(now).then(|| deferred.kept_until())).await?;
        if let Some(Loaded { value, .. }) = self.of_caller(caller, id).await?
            && value.standing == Standing::Cancelled
        {
            self.tell_over(caller.project, value).await;
        }
        Ok(known)
    }

    /// Tells the component that a call goes no further.
    async fn tell_over(&self, project: ProjectId, deferred: Deferred) {
        if let Some(plugin) = self.owner(project, &deferred.call)
            && let Err(failure) = self.kit.providers.cancelled(&plugin, deferred.call_id, deferred.state).await
        {
            tracing::info!(plugin, %failure, "a component was not told that its call is over");
        }
    }

    /// Changes a call of this principal: `decide` returns when it is due then; none: it is left as it is.
    async fn change(&self, caller: &Caller, id: &str, decide: impl Fn(&mut Deferred, TimeMs) -> Option<TimeMs>) -> Result<bool, Failure> {
        let ((known, changed), _) = self
            .kit
            .decide(|| async {
                let mut commit = Commit { project: Some(caller.project), ..Commit::default() };
                let Some(Loaded { mut value, version }) = self.of_caller(caller, id).await? else { return Ok((commit, (false, false))) };
                let now = self.kit.now();
                let due_at = decide(&mut value, now);
                if let Some(at) = due_at {
                    stage(&mut commit, version, &value, at);
                }
                Ok((commit, (true, due_at.is_some())))
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

    /// Takes up a call that is due; ends it when its time is over, and drops it after that. The wake-up itself runs on; should it
    /// be lost, it is due again.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn wake(&self, services: &Services, project: ProjectId, id: &str) -> Result<(), Failure> {
        let now = self.kit.now();
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        let Some(Loaded { value, version }) = self.load(project, id).await? else {
            commit.due.push(DueChange::Clear { name: key(id) });
            self.kit.store.commit(commit).await?;
            return Ok(());
        };
        if value.is_end() && now >= value.kept_until() {
            commit.due.push(DueChange::Clear { name: key(id) });
            commit.deletes.push(key(id));
            self.kit.store.commit(commit).await?;
            return Ok(());
        }
        if !value.is_end() && now >= value.ends_at() {
            return self.expire(project, value, version).await;
        }
        let is_working = value.standing == Standing::Working;
        let again = if is_working { value.due_in(WAKE_LEASE_MS, now) } else { value.kept_until() };
        commit.due.push(DueChange::Set { name: key(id), at: again });
        self.kit.store.commit(commit).await?;
        if is_working {
            let (calls, services) = (self.clone(), Arc::new(services.clone()));
            tokio::spawn(async move {
                if let Err(failure) = calls.round(services, project, value, version).await {
                    tracing::warn!(error = %chain(&failure), "a deferred call could not be taken further; it is tried again");
                }
            });
        }
        Ok(())
    }

    async fn expire(&self, project: ProjectId, mut deferred: Deferred, version: u64) -> Result<(), Failure> {
        deferred.expire(self.kit.now());
        let at = deferred.kept_until();
        if self.write(project, &deferred, version, at, Vec::new()).await? {
            let calls = self.clone();
            tokio::spawn(async move { calls.tell_over(project, deferred).await });
        }
        Ok(())
    }

    async fn round(&self, services: Arc<Services>, project: ProjectId, mut deferred: Deferred, version: u64) -> Result<(), Failure> {
        let outcome = self.ask(services, project, &deferred).await;
        let at = deferred.settle(outcome, self.kit.now());
        let owner = self.owner(project, &deferred.call).filter(|_| matches!(deferred.standing, Standing::Completed { .. }));
        let events = owner.map(|plugin| called(&plugin, &deferred.call)).into_iter().collect();
        self.write(project, &deferred, version, at, events).await?;
        Ok(())
    }

    /// Writes a call and announces it. False: it changed meanwhile, by its client's wish for example, and stays as that left it.
    async fn write(
        &self,
        project: ProjectId,
        deferred: &Deferred,
        version: u64,
        due_at: TimeMs,
        events: Vec<NewEvent>,
    ) -> Result<bool, Failure> {
        let mut commit = Commit { project: Some(project), events, ..Commit::default() };
        stage(&mut commit, version, deferred, due_at);
        match self.kit.store.commit(commit).await {
            Ok(_) => self.offers.announce(project, News::Deferred(deferred.id.as_str().into())),
            Err(StoreError::Stale { .. }) => return Ok(false),
            Err(other) => return Err(other.into()),
        }
        Ok(true)
    }

    async fn ask(&self, services: Arc<Services>, project: ProjectId, deferred: &Deferred) -> Result<ProviderOutcome, Trouble> {
        let offers = self.offers.of(project);
        let gone = |name: &str| Trouble::Failed(PluginFailure::NotBound(name.to_owned()));
        let ProviderCall::Tool { name, arguments } = &deferred.call else { return Err(gone("")) };
        let tool = offers.tool(name).ok_or_else(|| gone(name))?;
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
        let lookups = Arc::new(StoreLookups::of_call(services, project, &tool.plugin, &deferred.call_id));
        judged(Some(tool), self.kit.providers.provide(&tool.plugin, context, call, Arc::new(Unheard), lookups).await)
    }
}

/// Puts a changed call into a commit, with when it is due.
fn stage(commit: &mut Commit, version: u64, deferred: &Deferred, due_at: TimeMs) {
    commit.replace(key(&deferred.id), Some(version), deferred);
    commit.due.push(DueChange::Set { name: key(&deferred.id), at: due_at });
    if deferred.is_end() {
        commit.deletes.push(open_key(deferred));
    }
}
