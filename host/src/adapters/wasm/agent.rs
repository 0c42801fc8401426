//! The world `agent`, with or without the interface by which it offers MCP as well.
//!
//! **Invariants:** `lookups` and `kv` reach somebody only while an event or a call is handled: an instance keeps nothing of one call
//! that it could read in the next. What an action asks for is judged by whoever asked the agent.

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::component::{HasSelf, Linker};

use self::bindings::exports::pointsman::agent::handling as wit;
use self::bindings::pointsman::agent::{kv, lookups};
use self::bindings::pointsman::types::log;
use super::admission::{LOOKUPS, Shape};
use super::log_lines::Level;
use super::pool::{Pool, guest};
use super::store::{Reach, State};
use super::{Bound, Wasm, provider};
use crate::ports::lookups::{LookupRefusal, Lookups};
use crate::ports::plugins::PluginFailure;
use crate::ports::resident::{Action, Cause, ResidentDescription, ResidentEvent, ResidentMemory, Residents};

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../wit/types", "../wit/agent"],
        world: "pointsman:agent/agent",
        imports: { "pointsman:types/log.write": trappable },
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

/// An agent alone.
pub(super) const SHAPE: Shape = Shape {
    world: "agent",
    imports: &[LOOKUPS, "pointsman:agent/kv@0.1.0", "pointsman:types/log@0.1.0"],
    exports: &["pointsman:types/setup@0.1.0", "pointsman:agent/handling@0.1.0"],
};

/// An agent that offers MCP as well.
pub(super) const SHAPE_WITH_PROVIDER: Shape = Shape {
    world: "agent-provider",
    imports: &[LOOKUPS, "pointsman:agent/kv@0.1.0", "pointsman:types/log@0.1.0", "pointsman:mcp-provider/calls@0.1.0"],
    exports: &["pointsman:types/setup@0.1.0", "pointsman:agent/handling@0.1.0", provider::INTERFACE],
};

guest!(
    bindings::Agent,
    AgentPre,
    SHAPE,
    link: |linker| link(linker),
    pool: |bound| if let Bound::Agent(pool, _) = bound { Some(pool) } else { None }
);

/// Adds what agents and providers import; admission has seen to it that each imports its own only.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    lookups::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    kv::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    log::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    provider::link_calls(linker)
}

impl lookups::Host for State {
    fn read(&mut self, uri: String) -> Result<String, lookups::Refusal> {
        let Some(reads) = &self.reach.lookups else {
            return Err(lookups::Refusal::Limited("nothing can be looked up outside an event or a call".to_owned()));
        };
        reads.read(&uri).map_err(|refusal| match refusal {
            LookupRefusal::NotFound => lookups::Refusal::NotFound,
            LookupRefusal::NotGranted(grant) => lookups::Refusal::NotGranted(grant),
            LookupRefusal::Limited(limit) => lookups::Refusal::Limited(limit),
        })
    }
}

impl kv::Host for State {
    fn get(&mut self, key: String) -> Option<Vec<u8>> {
        self.reach.memory.as_ref()?.get(&key)
    }

    fn keys(&mut self, prefix: String, after: String, limit: u32) -> Vec<String> {
        self.reach.memory.as_ref().map(|memory| memory.keys(&prefix, &after, limit)).unwrap_or_default()
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, line: String) -> wasmtime::Result<()> {
        if !self.may_write_line() {
            return Err(wasmtime::Error::msg("it writes more lines than a call may"));
        }
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.log.write(level, &line);
        Ok(())
    }
}

/// Asks an agent, at its load, what it is.
pub(super) fn describe(pool: &Pool<bindings::Agent>) -> Result<ResidentDescription, PluginFailure> {
    pool.probe(|guest, store| {
        let answer = guest.pointsman_agent_handling().call_describe(store)?;
        Ok(Ok(ResidentDescription { name: answer.name, capabilities: answer.capabilities, events: answer.events }))
    })
}

/// Wakes an agent.
fn handle(
    pool: &Pool<bindings::Agent>,
    event: &ResidentEvent,
    memory: Arc<dyn ResidentMemory>,
) -> Result<Result<Vec<Action>, String>, PluginFailure> {
    pool.ask(|guest, store| {
        store.data_mut().reach.lookups = Some(Arc::clone(&memory) as Arc<dyn Lookups>);
        store.data_mut().reach.memory = Some(memory);
        let known = wit::Event { id: &event.id, at_ms: event.at_ms, cause: cause(&event.cause) };
        let answer = guest.pointsman_agent_handling().call_handle(&mut *store, known);
        store.data_mut().reach = Reach::default();
        Ok(Ok(answer?.map(|actions| actions.into_iter().map(action).collect())))
    })
}

fn cause(cause: &Cause) -> wit::Cause<'_> {
    match cause {
        Cause::Message(json) => wit::Cause::Message(json),
        Cause::Logged(json) => wit::Cause::Logged(json),
        Cause::Timer(id) => wit::Cause::Timer(id),
        Cause::Http { id, status, body } => wit::Cause::Http(wit::HttpAnswer { id, status: *status, body }),
    }
}

fn action(answer: wit::Action) -> Action {
    match answer {
        wit::Action::SendMessage(wit::Send { to, kind, subject, body }) => Action::SendMessage { to, kind, subject, body },
        wit::Action::WriteContext(wit::Document { key, base_version, media_type, bytes }) => {
            Action::WriteContext { key, base_version, media_type, bytes }
        }
        wit::Action::CreateTask(wit::NewTask { title, description, kind, priority, depends_on, paths }) => {
            Action::CreateTask { title, description, kind, priority, depends_on, paths }
        }
        wit::Action::NoteTask((task, note)) => Action::NoteTask { task, note },
        wit::Action::Put((key, bytes)) => Action::Put { key, bytes },
        wit::Action::Delete(key) => Action::Delete { key },
        wit::Action::SetTimer((id, delay_ms)) => Action::SetTimer { id, delay_ms },
        wit::Action::CancelTimer(id) => Action::CancelTimer { id },
        wit::Action::Fetch(wit::HttpRequest { id, method, url, headers, body }) => Action::Fetch { id, method, url, headers, body },
        wit::Action::ReplaceOffers(json) => Action::ReplaceOffers(json),
    }
}

#[async_trait]
impl Residents for Wasm {
    fn residents(&self) -> Vec<(String, ResidentDescription)> {
        let bindings = self.inner.bindings.load();
        bindings.iter().filter_map(|(name, one)| Some((name.clone(), one.resident.clone()?))).collect()
    }

    async fn handle(
        &self,
        plugin: &str,
        event: ResidentEvent,
        memory: Arc<dyn ResidentMemory>,
    ) -> Result<Result<Vec<Action>, String>, PluginFailure> {
        self.ask(plugin, move |pool| handle(pool, &event, memory)).await
    }
}
