//! Everything on offer besides the host's own tools: the host's resources and prompts, and what components offer.

use std::sync::Arc;

use async_trait::async_trait;
use pointsman_core::agent::TokenRecord;
use pointsman_core::context::DocumentKey;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::{AgentSurface, own, tools, worded};
use crate::ports::offering::{ListKind, Listing, News, Offering, ParamHeader, Reference, Round};
use crate::ports::provider::{Emit, ProviderCall, ProviderContext, ProviderOutcome};
use crate::ports::store::Commit;
use crate::ports::surface::{CallError, Caller};
use crate::service::contexts::Viewer;
use crate::service::deferred::called;
use crate::service::failure::Failure;
use crate::service::kit::chain;
use crate::service::lookups::StoreLookups;
use crate::service::offers::Tool;
use crate::service::provided::{Trouble, finding, judged};

/// Values of one completion.
const COMPLETIONS_MAX: usize = 100;
/// Bytes of the arguments of a component's tool.
const ARGUMENTS_BYTES_MAX: usize = 1 << 20;
/// Bytes of arguments that are checked on a thread that serves others, too.
const CHECKED_AT_ONCE_BYTES_MAX: usize = 64 << 10;

/// Which list of which credential, of which state of the offers.
pub(super) type ListKey = (pointsman_core::ids::ProjectId, ListKind, Vec<String>, u64);

#[async_trait]
impl Offering for AgentSurface {
    fn list(&self, caller: &Caller, kind: ListKind) -> Arc<Listing> {
        let offers = self.services.offers.of(caller.project);
        // Only the host's own tools differ by credential.
        let toolsets = if kind == ListKind::Tools { caller.token.toolsets.clone() } else { Vec::new() };
        let key = (caller.project, kind, toolsets, offers.generation);
        let mut lists = self.lists.lock();
        if let Some(list) = lists.get(&key) {
            return Arc::clone(list);
        }
        lists.retain(|(project, _, _, generation), _| *project != caller.project || *generation == offers.generation);
        let own = own::list(kind, &caller.token.toolsets);
        let provided: Vec<(&str, &str)> = match kind {
            ListKind::Tools => offers.tools().map(|tool| (tool.full_name.as_str(), tool.json.as_str())).collect(),
            ListKind::Resources => offers.resources().map(|one| (one.uri.as_str(), one.json.as_str())).collect(),
            ListKind::Templates => offers.templates().map(|one| (one.uri_template.as_str(), one.json.as_str())).collect(),
            ListKind::Prompts => offers.prompts().map(|one| (one.full_name.as_str(), one.json.as_str())).collect(),
        };
        let all = own.iter().map(|(name, json)| (name.as_str(), json.as_str())).chain(provided);
        let list = Arc::new(Listing::new(all));
        lists.insert(key, Arc::clone(&list));
        list
    }

    fn provided(&self, caller: &Caller, tool: &str) -> Option<Arc<[ParamHeader]>> {
        if tools::TOOLS.iter().any(|own| own.name == tool) {
            return None;
        }
        self.services.offers.of(caller.project).tool(tool).map(|tool| Arc::clone(&tool.headers))
    }

    async fn round(&self, caller: &Caller, call: &ProviderCall, round: Round, emit: Arc<dyn Emit>) -> Result<ProviderOutcome, CallError> {
        match call {
            ProviderCall::Resource { uri } if uri.starts_with(own::SCHEME) => self.own_resource(caller, uri).await,
            ProviderCall::Prompt { name, arguments } if own::is_prompt(name) => own::prompt(name, arguments).map(ProviderOutcome::Complete),
            ProviderCall::Tool { .. } | ProviderCall::Resource { .. } | ProviderCall::Prompt { .. } => {
                self.provided_round(caller, call, round, emit).await
            }
        }
    }

    async fn abandoned(&self, caller: &Caller, call: &ProviderCall, call_id: String, state: Vec<u8>) {
        let Ok((plugin, _, _)) = self.owner(caller, call) else { return };
        if let Err(failure) = self.services.kit.providers.cancelled(&plugin, call_id, state).await {
            tracing::info!(plugin, %failure, "a component was not told that its call is over");
        }
    }

    async fn complete(
        &self,
        caller: &Caller,
        reference: Reference,
        argument: &str,
        typed: &str,
    ) -> Result<(Vec<String>, usize), CallError> {
        let offers = self.services.offers.of(caller.project);
        let (plugin, reference) = match &reference {
            Reference::Prompt(name) if own::is_prompt(name) => return self.own_completion(caller, argument, typed).await,
            Reference::Resource(uri) if uri.starts_with(own::SCHEME) => {
                let noun = own::noun_of_template(uri).unwrap_or(argument);
                return self.own_completion(caller, noun, typed).await;
            }
            Reference::Prompt(name) => {
                let prompt = offers.prompt(name).ok_or_else(|| CallError::UnknownPrompt(name.clone()))?;
                (prompt.plugin.clone(), json!({"type": "ref/prompt", "name": prompt.name}))
            }
            Reference::Resource(uri) => {
                let template = offers.templates().find(|template| template.uri_template == *uri || template.fits(uri));
                let plugin = template.map(|template| template.plugin.clone()).or_else(|| offers.owner_of(uri).map(str::to_owned));
                (plugin.ok_or_else(|| CallError::UnknownResource(uri.clone()))?, json!({"type": "ref/resource", "uri": uri}))
            }
        };
        let asked = self.services.kit.providers.complete(&plugin, reference.to_string(), argument.to_owned(), typed.to_owned()).await;
        let values = asked.map_err(|failure| internal(caller, &plugin, &failure))?;
        Ok((values.iter().take(COMPLETIONS_MAX).cloned().collect(), values.len()))
    }

    fn has_resource(&self, caller: &Caller, uri: &str) -> bool {
        own::has(uri) || self.services.offers.of(caller.project).owner_of(uri).is_some()
    }

    async fn news(&self, caller: &Caller) -> Result<broadcast::Receiver<News>, CallError> {
        let news = self.services.offers.news(&self.services.kit, caller.project).await;
        news.map_err(|failure| failed(caller, &failure))
    }

    async fn may_hear(&self, caller: &Caller, key: &DocumentKey) -> Result<bool, CallError> {
        let viewer = self.viewer(caller).await?;
        let may = self.services.contexts.may_hear(caller.project, &viewer, &key.subject()).await;
        may.map_err(|failure| failed(caller, &failure))
    }

    async fn defer(&self, caller: &Caller, call: ProviderCall, round: Round, wake_ms: u32) -> Result<Box<RawValue>, CallError> {
        let agent = self.agent_name(caller).await;
        match self.services.deferred.open(caller, agent, call, round, wake_ms).await {
            Ok(made) => Ok(made),
            Err(Failure::Refused(refusal)) => Err(CallError::TooMany(refusal.why)),
            Err(failure) => Err(failed(caller, &failure)),
        }
    }

    async fn deferred(&self, caller: &Caller, id: &str) -> Result<Box<RawValue>, CallError> {
        let found = self.services.deferred.get(caller, id).await.map_err(|failure| failed(caller, &failure))?;
        found.ok_or_else(|| CallError::UnknownTask(id.to_owned()))
    }

    async fn answer_deferred(&self, caller: &Caller, id: &str, answers: &RawValue) -> Result<(), CallError> {
        let known = self.services.deferred.answer(caller, id, answers).await.map_err(|failure| failed(caller, &failure))?;
        if known { Ok(()) } else { Err(CallError::UnknownTask(id.to_owned())) }
    }

    async fn cancel_deferred(&self, caller: &Caller, id: &str) -> Result<(), CallError> {
        let known = self.services.deferred.cancel(caller, id).await.map_err(|failure| failed(caller, &failure))?;
        if known { Ok(()) } else { Err(CallError::UnknownTask(id.to_owned())) }
    }
}

impl AgentSurface {
    async fn agent_name(&self, caller: &Caller) -> String {
        self.services.agents.acting(caller, None).await.map_or_else(|_| String::new(), |acting| acting.agent.name.clone())
    }

    /// Returns as whom a caller looks at documents: as its agent where that is certain, else as its credential.
    async fn viewer(&self, caller: &Caller) -> Result<Viewer, CallError> {
        if let Ok(acting) = self.services.agents.on_behalf(caller, None).await {
            return Ok(Viewer::Agent(acting.agent));
        }
        let agents = self.services.agents.agents(caller.project).await.map_err(|failure| failed(caller, &failure))?;
        let agents = agents.into_iter().filter(|agent| agent.principal == caller.token.principal).collect();
        let TokenRecord { principal_name, provenance, .. } = &*caller.token;
        Ok(Viewer::Credential { principal: principal_name.clone(), provenance: *provenance, agents })
    }

    async fn own_resource(&self, caller: &Caller, uri: &str) -> Result<ProviderOutcome, CallError> {
        match super::lookup::lookup(
            &self.services,
            &super::back::Reader { project: caller.project, viewer: self.viewer(caller).await? },
            uri,
        )
        .await
        {
            Ok(said) => {
                let contents = json!([{"uri": uri, "mimeType": "application/json", "text": said.result.to_string()}]);
                Ok(ProviderOutcome::Complete(json!({"contents": contents}).to_string()))
            }
            Err(Failure::Refused(refusal)) if matches!(refusal.code, "not_found" | "gone") => {
                Err(CallError::UnknownResource(uri.to_owned()))
            }
            Err(failure) => Err(CallError::InvalidParams(worded(failure, caller, "resources/read")?.json)),
        }
    }

    async fn own_completion(&self, caller: &Caller, argument: &str, typed: &str) -> Result<(Vec<String>, usize), CallError> {
        let services = &self.services;
        let viewer = self.viewer(caller).await?;
        let found = async {
            let mut values: Vec<String> = match argument {
                "task" | "conflict" | "pull_request" => {
                    services.tasks.all(caller.project).await?.iter().map(|task| task.id.to_string()).collect()
                }
                "merge" => services.queue.all(caller.project).await?.iter().map(|merge| merge.id.to_string()).collect(),
                "agent" | "to" => services.agents.agents(caller.project).await?.iter().map(|agent| agent.name.clone()).collect(),
                "context" => services
                    .contexts
                    .list(caller.project, &viewer, typed, COMPLETIONS_MAX)
                    .await?
                    .into_iter()
                    .map(|head| head.key.to_string())
                    .collect(),
                _ => Vec::new(),
            };
            values.retain(|value| value.starts_with(typed));
            values.reverse();
            Ok::<_, Failure>(values)
        };
        let mut values = found.await.map_err(|failure| failed(caller, &failure))?;
        let total = values.len();
        values.truncate(COMPLETIONS_MAX);
        Ok((values, total))
    }

    /// Returns whose a call is, the call as the component knows it, and the tool it is of.
    fn owner(&self, caller: &Caller, call: &ProviderCall) -> Result<(String, ProviderCall, Option<Arc<Tool>>), CallError> {
        let offers = self.services.offers.of(caller.project);
        match call {
            ProviderCall::Tool { name, arguments } => {
                let tool = offers.tool(name).ok_or_else(|| CallError::UnknownTool(name.clone()))?;
                let call = ProviderCall::Tool { name: tool.name.clone(), arguments: arguments.clone() };
                Ok((tool.plugin.clone(), call, Some(Arc::clone(tool))))
            }
            ProviderCall::Resource { uri } => {
                let plugin = offers.owner_of(uri).ok_or_else(|| CallError::UnknownResource(uri.clone()))?;
                Ok((plugin.to_owned(), call.clone(), None))
            }
            ProviderCall::Prompt { name, arguments } => {
                let prompt = offers.prompt(name).ok_or_else(|| CallError::UnknownPrompt(name.clone()))?;
                Ok((prompt.plugin.clone(), ProviderCall::Prompt { name: prompt.name.clone(), arguments: arguments.clone() }, None))
            }
        }
    }

    async fn provided_round(
        &self,
        caller: &Caller,
        call: &ProviderCall,
        round: Round,
        emit: Arc<dyn Emit>,
    ) -> Result<ProviderOutcome, CallError> {
        let (plugin, own_call, tool) = self.owner(caller, call)?;
        let is_first = round.state.is_empty();
        if let (Some(tool), ProviderCall::Tool { arguments, .. }, true) = (&tool, &own_call, is_first)
            && let Some(refused) = checked(tool, arguments).await
        {
            return Ok(ProviderOutcome::Complete(refused));
        }
        let kit = &self.services.kit;
        let context = ProviderContext {
            agent: self.agent_name(caller).await,
            principal: caller.token.principal_name.clone(),
            call_id: round.call_id,
            client_capabilities: round.client_capabilities,
            state: round.state,
            answers: round.answers,
            at_ms: kit.now().0,
        };
        let lookups = StoreLookups::of_call(Arc::clone(&self.services), caller.project, &plugin, &caller.trace);
        let outcome = kit.providers.provide(&plugin, context, own_call.clone(), emit, Arc::new(lookups)).await;
        let outcome = match (judged(tool.as_deref(), outcome), &tool) {
            (Ok(outcome), _) => outcome,
            (Err(Trouble::Busy), Some(tool)) => {
                return Ok(ProviderOutcome::Complete(complaint(&format!("`{}` is busy; call again in a second.", tool.full_name))));
            }
            (Err(Trouble::Resting(why)), Some(tool)) => {
                return Ok(ProviderOutcome::Complete(complaint(&format!("`{}` is not asked now: {why}.", tool.full_name))));
            }
            (Err(trouble), _) => return Err(internal(caller, &plugin, &trouble)),
        };
        if matches!(outcome, ProviderOutcome::Complete(_)) {
            let commit = Commit { project: Some(caller.project), events: vec![called(&plugin, call)], ..Commit::default() };
            kit.store.commit(commit).await.map_err(|error| failed(caller, &error.into()))?;
        }
        Ok(outcome)
    }
}

/// Checks arguments as [`unfit`]; large ones off the threads that serve everybody.
async fn checked(tool: &Arc<Tool>, arguments: &str) -> Option<String> {
    if arguments.len() <= CHECKED_AT_ONCE_BYTES_MAX || arguments.len() > ARGUMENTS_BYTES_MAX {
        return unfit(tool, arguments);
    }
    let (tool, arguments) = (Arc::clone(tool), arguments.to_owned());
    tokio::task::spawn_blocking(move || unfit(&tool, &arguments)).await.unwrap_or_else(|error| {
        tracing::error!(%error, "arguments could not be checked");
        Some(complaint("The arguments could not be checked. Call again."))
    })
}

/// Returns what a model is told when its arguments do not fit a tool's schema: the first thing that does not.
fn unfit(tool: &Tool, arguments: &str) -> Option<String> {
    if arguments.len() > ARGUMENTS_BYTES_MAX {
        let why = format!("`{}` takes at most {ARGUMENTS_BYTES_MAX} bytes of arguments. Send less at once.", tool.full_name);
        return Some(complaint(&why));
    }
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
    let error = tool.input.validate(&arguments).err()?;
    let finding = finding(&match error.instance_path().to_string() {
        at if at.is_empty() => error.to_string(),
        at => format!("{at}: {error}"),
    });
    Some(complaint(&format!("The arguments of `{}` do not fit its schema: {finding}. Correct them and call again.", tool.full_name)))
}

/// Returns the result of a tool that says what its caller can mend.
fn complaint(text: &str) -> String {
    json!({"content": [{"type": "text", "text": text}], "isError": true}).to_string()
}

fn internal(caller: &Caller, plugin: &str, failure: &dyn std::fmt::Display) -> CallError {
    tracing::error!(trace = %caller.trace, plugin, %failure, "a component's call failed");
    CallError::Internal { trace: caller.trace.clone() }
}

fn failed(caller: &Caller, failure: &Failure) -> CallError {
    tracing::error!(trace = %caller.trace, error = %chain(failure), "a call failed");
    CallError::Internal { trace: caller.trace.clone() }
}
