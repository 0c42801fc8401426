//! The world `mcp-provider`, and the half of an agent that exports its interface.
//!
//! **Invariants:** an accepted JSON text is an object of the form's own size; `emit` and `lookups` reach somebody only while a call
//! runs. What the objects mean is judged by whoever asked.

use std::sync::Arc;

use async_trait::async_trait;
use serde::de::IgnoredAny;
use wasmtime::component::{HasSelf, Linker};

use self::bindings::exports::pointsman::mcp_provider::provider as wit;
use self::bindings::pointsman::mcp_provider::calls;
use super::admission::{LOOKUPS, Shape};
use super::pool::{Pool, guest};
use super::store::{Reach, State};
use super::{Bound, Wasm};
use crate::ports::lookups::Lookups;
use crate::ports::plugins::PluginFailure;
use crate::ports::provider::{Emission, Emit, Offers, ProviderCall, ProviderContext, ProviderOutcome, Providers};

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../wit/types", "../wit/agent", "../wit/mcp-provider"],
        world: "pointsman:mcp-provider/mcp-provider",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

/// What makes an agent a provider, too.
pub(super) const INTERFACE: &str = "pointsman:mcp-provider/provider@0.1.0";
/// Bytes of what a component tells at once: a line, who logs, what is logged.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
const LOGGER_BYTES_MAX: usize = 256;
const DATA_BYTES_MAX: usize = 16 << 10;
/// Values of one completion (MCP 2026-07-28, `completion/complete`).
const COMPLETIONS_MAX: usize = 100;

guest!(
    bindings::McpProvider,
    McpProviderPre,
    Shape {
        world: "mcp-provider",
        imports: &["pointsman:mcp-provider/calls@0.1.0", LOOKUPS, "pointsman:types/log@0.1.0"],
        exports: &["pointsman:types/setup@0.1.0", INTERFACE],
    },
    link: |linker| super::agent::link(linker),
    pool: |bound| match bound {
        Bound::McpProvider(pool) => Some(pool),
        Bound::Agent(_, half) => half.as_deref(),
        Bound::Router(_) | Bound::Merger(_) | Bound::Reconciler(_) | Bound::Workflow(_) | Bound::Policy(_) => None,
    }
);

/// Adds `calls`.
pub(super) fn link_calls(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    calls::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl calls::Host for State {
    fn emit(&mut self, what: calls::Emission) -> bool {
        let Some(emit) = &self.reach.emit else { return true };
        emit.emit(match what {
            calls::Emission::Progress((done, total, message)) => {
                Emission::Progress { done, total, message: cut(message, MESSAGE_BYTES_MAX) }
            }
            calls::Emission::Log((_, _, data)) if data.len() > DATA_BYTES_MAX => return true,
            calls::Emission::Log((level, logger, data)) => Emission::Log { level, logger: cut(logger, LOGGER_BYTES_MAX), data },
            calls::Emission::DetachStream => Emission::DetachStream,
        })
    }
}

/// Returns the beginning of a text.
fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

fn initial_offers(pool: &Pool<bindings::McpProvider>) -> Result<Offers, PluginFailure> {
    pool.ask(|guest, store| {
        let wit::Offers { namespace, tools, resources, templates, prompts } =
            guest.pointsman_mcp_provider_provider().call_initial_offers(store)?;
        let lists = [("tool", &tools), ("resource", &resources), ("template", &templates), ("prompt", &prompts)];
        for (what, list) in lists {
            if let Some(at) = list.iter().position(|text| !is_object(text)) {
                return Ok(Err(format!("its {what} {at} is no JSON object")));
            }
        }
        Ok(Ok(Offers { namespace, tools, resources, templates, prompts }))
    })
}

fn provide(
    pool: &Pool<bindings::McpProvider>,
    context: &ProviderContext,
    call: &ProviderCall,
    reach: Reach,
) -> Result<ProviderOutcome, PluginFailure> {
    pool.ask(|guest, store| {
        store.data_mut().reach = reach;
        let known = wit::Context {
            agent: &context.agent,
            principal: &context.principal,
            call_id: &context.call_id,
            client_capabilities: &context.client_capabilities,
            state: &context.state,
            answers: &context.answers,
            at_ms: context.at_ms,
        };
        let half = guest.pointsman_mcp_provider_provider();
        let answer = match call {
            ProviderCall::Tool { name, arguments } => half.call_call(&mut *store, known, name, arguments),
            ProviderCall::Resource { uri } => half.call_read_resource(&mut *store, known, uri),
            ProviderCall::Prompt { name, arguments } => half.call_get_prompt(&mut *store, known, name, arguments),
        };
        store.data_mut().reach = Reach::default();
        Ok(outcome(answer?))
    })
}

fn outcome(answer: wit::Outcome) -> Result<ProviderOutcome, String> {
    let object = |what: &str, text: String| if is_object(&text) { Ok(text) } else { Err(format!("its {what} is no JSON object")) };
    Ok(match answer {
        wit::Outcome::Complete(result) => ProviderOutcome::Complete(object("result", result)?),
        wit::Outcome::InputRequired(wit::InputRequired { requests, state }) => {
            ProviderOutcome::InputRequired { requests: object("list of requests", requests)?, state }
        }
        wit::Outcome::Pending(wit::Pending { state, wake_ms }) => ProviderOutcome::Pending { state, wake_ms },
        wit::Outcome::MissingCapability(required) => ProviderOutcome::MissingCapability(object("required capabilities", required)?),
        wit::Outcome::ProtocolError(wit::ProtocolError { code, message }) => ProviderOutcome::ProtocolError { code, message },
    })
}

/// Returns whether a text is one JSON object. Nothing is built of it.
fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn complete(pool: &Pool<bindings::McpProvider>, reference: &str, argument: &str, typed: &str) -> Result<Vec<String>, PluginFailure> {
    pool.ask(|guest, store| {
        let values = guest.pointsman_mcp_provider_provider().call_complete(store, reference, argument, typed)?;
        if values.len() > COMPLETIONS_MAX {
            return Ok(Err(format!("it completes to {} values; at most {COMPLETIONS_MAX} are taken", values.len())));
        }
        Ok(Ok(values))
    })
}

#[async_trait]
impl Providers for Wasm {
    fn providers(&self) -> Vec<String> {
        let bindings = self.inner.bindings.load();
        let offers = |bound: &Bound| matches!(bound, Bound::McpProvider(_) | Bound::Agent(_, Some(_)));
        bindings.iter().filter(|(_, one)| offers(&one.bound)).map(|(name, _)| name.clone()).collect()
    }

    async fn initial_offers(&self, plugin: &str) -> Result<Offers, PluginFailure> {
        self.ask(plugin, initial_offers).await
    }

    async fn provide(
        &self,
        plugin: &str,
        context: ProviderContext,
        call: ProviderCall,
        emit: Arc<dyn Emit>,
        lookups: Arc<dyn Lookups>,
    ) -> Result<ProviderOutcome, PluginFailure> {
        let reach = Reach { lookups: Some(lookups), memory: None, emit: Some(emit) };
        self.ask(plugin, move |pool| provide(pool, &context, &call, reach)).await
    }

    async fn complete(&self, plugin: &str, reference: String, argument: String, typed: String) -> Result<Vec<String>, PluginFailure> {
        self.ask(plugin, move |pool| complete(pool, &reference, &argument, &typed)).await
    }

    async fn cancelled(&self, plugin: &str, call_id: String, state: Vec<u8>) -> Result<(), PluginFailure> {
        self.ask(plugin, move |pool: &Pool<bindings::McpProvider>| {
            pool.ask(|guest, store| guest.pointsman_mcp_provider_provider().call_cancelled(store, &call_id, &state).map(Ok))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::super::engine::{Layout, engine};
    use super::super::limits::Limits;
    use super::super::log_lines::LogLines;
    use super::super::symbols::{Quota, Scope, SymbolTable};
    use super::calls::Host as _;
    use super::*;
    use crate::ports::plugins::{PluginLimits, World};

    #[derive(Default)]
    struct Ear(Mutex<Vec<Emission>>);

    impl Emit for Ear {
        fn emit(&self, what: Emission) -> bool {
            self.0.lock().push(what);
            true
        }
    }

    #[test]
    fn what_a_component_tells_is_cut_or_dropped() {
        let limits =
            Limits::new(World::McpProvider, Layout::Compiled, PluginLimits::default(), PluginLimits::default()).expect("the defaults");
        let scope = Scope::new(Arc::new(SymbolTable::new()), Arc::<Quota>::default());
        let engine = engine(Layout::Compiled, crate::ports::plugins::Meter::Off).expect("this machine runs components");
        let mut store = State::store(&engine, &limits, scope, Arc::new(LogLines::new("p".to_owned())));
        let ear = Arc::new(Ear::default());
        let state = store.data_mut();
        state.reach.emit = Some(Arc::clone(&ear) as Arc<dyn Emit>);
        let log = |logger: &str, bytes: usize| calls::Emission::Log(("info".to_owned(), logger.to_owned(), "7".repeat(bytes)));
        assert!(state.emit(calls::Emission::Progress((1.0, 2.0, "é".repeat(MESSAGE_BYTES_MAX)))));
        assert!(state.emit(log(&"a".repeat(1_000), 7)));
        assert!(state.emit(log("a", DATA_BYTES_MAX)));
        assert!(state.emit(log("a", DATA_BYTES_MAX + 1)), "dropped, and no sign of a cancelled call");
        let sizes: Vec<_> = ear
            .0
            .lock()
            .iter()
            .map(|told| match told {
                Emission::Progress { message, .. } => (message.len(), 0),
                Emission::Log { logger, data, .. } => (logger.len(), data.len()),
                Emission::DetachStream => (0, 0),
            })
            .collect();
        assert_eq!(sizes, [(MESSAGE_BYTES_MAX, 0), (LOGGER_BYTES_MAX, 7), (1, DATA_BYTES_MAX)]);
    }
}
