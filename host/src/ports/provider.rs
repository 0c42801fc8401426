//! The provider port: components that offer tools, resources and prompts to MCP clients (`wit/mcp-provider`).
//!
//! JSON texts are those of the MCP schema, revision 2026-07-28. The adapter checks that they are JSON objects of at most the
//! binding's result size; what they mean is the service's to check.
//!
//! **Invariant:** a call costs at most its binding's limits; between two rounds of a call the component holds nothing.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::lookups::Lookups;
use super::plugins::PluginFailure;

/// What a component offers. Each entry is the JSON object that the list method returns for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offers {
    /// Prefix of tool and prompt names, `ns_`; empty only where the operator allows it.
    #[serde(default)]
    pub namespace: String,
    /// `Tool` objects.
    #[serde(default)]
    pub tools: Vec<String>,
    /// `Resource` objects.
    #[serde(default)]
    pub resources: Vec<String>,
    /// `ResourceTemplate` objects.
    #[serde(default)]
    pub templates: Vec<String>,
    /// `Prompt` objects.
    #[serde(default)]
    pub prompts: Vec<String>,
}

/// What a component is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderCall {
    /// Call a tool.
    Tool {
        /// Without the namespace.
        name: String,
        /// A JSON object.
        arguments: String,
    },
    /// Read a resource.
    Resource {
        /// Which.
        uri: String,
    },
    /// Fill a prompt.
    Prompt {
        /// Without the namespace.
        name: String,
        /// A JSON object.
        arguments: String,
    },
}

/// Who calls, and which round of the call it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderContext {
    /// The agent's name, or empty before `start`.
    pub agent: String,
    /// The principal's name.
    pub principal: String,
    /// Unique for the call, the same in each of its rounds.
    pub call_id: String,
    /// The client's declared capabilities, a JSON object.
    pub client_capabilities: String,
    /// What the component returned in the round before; empty in the first.
    pub state: Vec<u8>,
    /// The client's answers by request key, a JSON object; `{}` in the first round.
    pub answers: String,
    /// Milliseconds since 1970, by the store's clock.
    pub at_ms: i64,
}

/// What a round of a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderOutcome {
    /// Done: the JSON object of the result without `resultType`.
    Complete(String),
    /// Ask the client, then call again.
    InputRequired {
        /// Key to request object (elicitation, sampling, roots), as a JSON object.
        requests: String,
        /// Comes back in the next round.
        state: Vec<u8>,
    },
    /// Not yet.
    Pending {
        /// Comes back in the next round.
        state: Vec<u8>,
        /// Call again after so many milliseconds; see [`wake_after_ms`].
        wake_ms: u32,
    },
    /// The client must declare these capabilities: the JSON object of `requiredCapabilities`.
    MissingCapability(String),
    /// Refused as a protocol error; only -32602 and -32603 get through.
    ProtocolError {
        /// JSON-RPC code.
        code: i32,
        /// For the client's log.
        message: String,
    },
}

/// The shortest and the longest time, in milliseconds, after which a pending call is gone on with.
const WAKE_MS: (u32, u32) = (50, 3_600_000);

/// Returns after how many milliseconds a pending call is gone on with, whatever its component asks for.
#[must_use]
pub fn wake_after_ms(asked_ms: u32) -> u64 {
    u64::from(asked_ms.clamp(WAKE_MS.0, WAKE_MS.1))
}

/// What a component tells while a call runs. Lost when nobody listens.
#[derive(Debug, Clone, PartialEq)]
pub enum Emission {
    /// Progress.
    Progress {
        /// Done so far; rises from one to the next.
        done: f64,
        /// Of how much; 0 when unknown.
        total: f64,
        /// One line, may be empty.
        message: String,
    },
    /// A log line.
    Log {
        /// An MCP level: `debug` … `emergency`.
        level: String,
        /// Who logs, may be empty.
        logger: String,
        /// JSON.
        data: String,
    },
    /// Close the stream; a legacy client comes back with `Last-Event-ID`.
    DetachStream,
}

/// Takes what a component tells while a call runs. Called on the thread that runs the component: it must not block.
pub trait Emit: Send + Sync {
    /// Takes one; returns false once the call is cancelled.
    fn emit(&self, what: Emission) -> bool;
}

/// Components that offer MCP, loaded and asked by their binding's name.
#[async_trait]
pub trait Providers: Send + Sync {
    /// Returns the bindings that offer MCP: those of the world `mcp-provider`, and agents that export its interface.
    fn providers(&self) -> Vec<String>;

    /// Asks what is offered at the start.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn initial_offers(&self, plugin: &str) -> Result<Offers, PluginFailure>;

    /// Runs one round of a call; `lookups` is what it may read of the project meanwhile.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn provide(
        &self,
        plugin: &str,
        context: ProviderContext,
        call: ProviderCall,
        emit: Arc<dyn Emit>,
        lookups: Arc<dyn Lookups>,
    ) -> Result<ProviderOutcome, PluginFailure>;

    /// Asks for the completion of an argument. At most 100 values.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn complete(&self, plugin: &str, reference: String, argument: String, typed: String) -> Result<Vec<String>, PluginFailure>;

    /// Tells that a call whose last round was `Pending` was cancelled.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn cancelled(&self, plugin: &str, call_id: String, state: Vec<u8>) -> Result<(), PluginFailure>;
}
