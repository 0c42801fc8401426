//! The resident port: agents that live in the host as components (`wit/agent`). They are woken by events and answer with
//! actions; reads they make meanwhile go through [`ResidentMemory`].
//!
//! **Invariant:** the component acts only through the actions it returns; the service applies all of them or none.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::lookups::Lookups;
use super::plugins::PluginFailure;

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidentDescription {
    /// Its name among agents.
    pub name: String,
    /// Capabilities it offers, `name[@version][{k=v}]`.
    pub capabilities: Vec<String>,
    /// Event types it wants, `task.created` or `task.*`.
    pub events: Vec<String>,
}

/// What woke it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A message to it, as JSON.
    Message(String),
    /// An event of the log, as JSON.
    Logged(String),
    /// A timer it set, by its id.
    Timer(String),
    /// An answer to a request of its own.
    Http {
        /// The id the request carried.
        id: String,
        /// Status, or 0 when the request did not get through.
        status: u16,
        /// The body; the reason when the status is 0.
        body: Vec<u8>,
    },
}

/// One wake-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidentEvent {
    /// Unique; the same id comes again when the host died before the answer was stored.
    pub id: String,
    /// Milliseconds since 1970, by the store's clock.
    pub at_ms: i64,
    /// What happened.
    pub cause: Cause,
}

/// Something the host shall do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Send a message.
    SendMessage {
        /// `agent:NAME`, `topic:NAME` or a capability expression.
        to: Vec<String>,
        /// `question`, `request`, …
        kind: String,
        /// One line.
        subject: String,
        /// Text, or JSON when it parses as such.
        body: String,
    },
    /// Write a shared document.
    WriteContext {
        /// Its key.
        key: String,
        /// The version it was made from; 0 for a new one.
        base_version: u64,
        /// Media type.
        media_type: String,
        /// Content.
        bytes: Vec<u8>,
    },
    /// Create a task.
    CreateTask {
        /// One line.
        title: String,
        /// Markdown.
        description: String,
        /// `feature`, …
        kind: String,
        /// 0 to 9.
        priority: u8,
        /// Ids of tasks it depends on.
        depends_on: Vec<String>,
        /// Path globs it will touch.
        paths: Vec<String>,
    },
    /// Report on a task.
    NoteTask {
        /// Which.
        task: String,
        /// The report.
        note: String,
    },
    /// Keep a value.
    Put {
        /// Its key.
        key: String,
        /// The value.
        bytes: Vec<u8>,
    },
    /// Forget a key.
    Delete {
        /// Which.
        key: String,
    },
    /// Wake it later; the same id again replaces the timer.
    SetTimer {
        /// Its id.
        id: String,
        /// After so many milliseconds.
        delay_ms: u64,
    },
    /// Do not wake it after all.
    CancelTimer {
        /// Which.
        id: String,
    },
    /// Make an HTTP request, at least once; the answer comes as an event.
    Fetch {
        /// Comes back with the answer; a later request under the same id takes the place of one that is not answered.
        id: String,
        /// `GET`, …
        method: String,
        /// Absolute.
        url: String,
        /// Name and value.
        headers: Vec<(String, String)>,
        /// May be empty.
        body: Vec<u8>,
    },
    /// Replace what it offers to MCP clients: the JSON form of [`super::provider::Offers`].
    ReplaceOffers(String),
}

/// What a component may read while it handles an event: the project, and its own keys. Called on a thread that may block.
pub trait ResidentMemory: Lookups {
    /// Returns the value of one of its own keys.
    fn get(&self, key: &str) -> Option<Vec<u8>>;

    /// Returns its own keys that start with `prefix`, in order, after `after`, at most `limit`.
    fn keys(&self, prefix: &str, after: &str, limit: u32) -> Vec<String>;
}

/// Resident agents, loaded and woken by their binding's name.
#[async_trait]
pub trait Residents: Send + Sync {
    /// Returns what the loaded agents said of themselves, by binding.
    fn residents(&self) -> Vec<(String, ResidentDescription)>;

    /// Wakes an agent; its own refusal is the inner `Err`.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn handle(
        &self,
        plugin: &str,
        event: ResidentEvent,
        memory: Arc<dyn ResidentMemory>,
    ) -> Result<Result<Vec<Action>, String>, PluginFailure>;
}
