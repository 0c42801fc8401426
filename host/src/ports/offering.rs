//! What the transport needs of everything on offer besides the host's own tools: lists, provided tools, resources,
//! prompts, completions, deferred calls, and the news that something changed.
//!
//! Driving port. JSON texts are those of the MCP schema, revision 2026-07-28; the transport converts for older clients.

mod news;

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use pointsman_core::context::DocumentKey;
use serde_json::value::RawValue;
use tokio::sync::broadcast;

pub use self::news::{DOCUMENTS, DocumentNews, DocumentWrite, News, Reach, keys_of};
use super::provider::{Emit, ProviderCall, ProviderOutcome};
use super::surface::{CallError, Caller};

/// The lists a client can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// `tools/list`.
    Tools,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
    /// `prompts/list`.
    Prompts,
}

/// A list as JSON text, serialised once, that can be handed out in pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    json: String,
    /// Name of each entry, and where its text ends.
    entries: Vec<(String, usize)>,
}

impl Listing {
    /// Returns a list of these entries: what names each, and its JSON object.
    #[must_use]
    pub fn new<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut list = Self { json: "[".to_owned(), entries: Vec::new() };
        for (name, json) in all {
            if !list.entries.is_empty() {
                list.json.push(',');
            }
            list.json.push_str(json);
            list.entries.push((name.to_owned(), list.json.len()));
        }
        list.json.push(']');
        list
    }

    /// Returns the entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let starts = std::iter::once(1).chain(self.entries.iter().map(|(_, end)| end + 1));
        self.entries.iter().zip(starts).map(|((name, end), start)| (name.as_str(), &self.json[start..*end]))
    }

    /// Returns the JSON array of at most `len` entries that follow the one named `after`, and the name to go on after when
    /// there are more; none when there is no such entry.
    #[must_use]
    pub fn page(&self, after: Option<&str>, len: usize) -> Option<(Cow<'_, str>, Option<&str>)> {
        let first = match after {
            None => 0,
            Some(after) => 1 + self.entries.iter().position(|(name, _)| name == after)?,
        };
        let last = first.saturating_add(len).min(self.entries.len());
        if first == 0 && last == self.entries.len() {
            return Some((Cow::Borrowed(&self.json), None));
        }
        let start = if first == 0 { 1 } else { self.entries[first - 1].1 + 1 };
        let text = if first == last { "" } else { &self.json[start..self.entries[last - 1].1] };
        let next = (last < self.entries.len()).then(|| self.entries[last - 1].0.as_str());
        Some((Cow::Owned(format!("[{text}]")), next))
    }
}

/// A tool argument that a header mirrors (streamable HTTP, custom headers from tool parameters).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamHeader {
    /// The header's name in lower case, `mcp-param-region`.
    pub header: String,
    /// Property names from the root of the arguments to the value.
    pub path: Vec<String>,
}

/// One round of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Unique for the call, the same in each of its rounds.
    pub call_id: String,
    /// The client's declared capabilities, a JSON object.
    pub client_capabilities: String,
    /// What the round before gave; empty in the first.
    pub state: Vec<u8>,
    /// The client's answers, a JSON object.
    pub answers: String,
}

/// What an argument to complete belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A prompt's name.
    Prompt(String),
    /// A resource's URI or a template.
    Resource(String),
}

/// Everything on offer in a project. What is not implemented is offered by nobody: a host of tools alone has only lists.
#[async_trait]
pub trait Offering: Send + Sync {
    /// Returns a list for this credential, in a fixed order.
    fn list(&self, caller: &Caller, kind: ListKind) -> Arc<Listing>;

    /// Returns what of a component's tool is mirrored into headers; none: no component offers a tool of this name.
    fn provided(&self, caller: &Caller, tool: &str) -> Option<Arc<[ParamHeader]>> {
        let _ = (caller, tool);
        None
    }

    /// Runs one round of a call: a component's tool, any resource, any prompt. Dropping the future does not stop the component.
    ///
    /// # Errors
    /// [`CallError`].
    async fn round(&self, caller: &Caller, call: &ProviderCall, round: Round, emit: Arc<dyn Emit>) -> Result<ProviderOutcome, CallError> {
        let _ = (caller, round, emit);
        Err(match call {
            ProviderCall::Tool { name, .. } => CallError::UnknownTool(name.clone()),
            ProviderCall::Resource { uri } => CallError::UnknownResource(uri.clone()),
            ProviderCall::Prompt { name, .. } => CallError::UnknownPrompt(name.clone()),
        })
    }

    /// Tells the component that a call whose last round was `Pending` goes no further.
    async fn abandoned(&self, caller: &Caller, call: &ProviderCall, call_id: String, state: Vec<u8>) {
        let _ = (caller, call, call_id, state);
    }

    /// Returns completions of an argument, at most 100, and how many there are in all.
    ///
    /// # Errors
    /// [`CallError`].
    async fn complete(
        &self,
        caller: &Caller,
        reference: Reference,
        argument: &str,
        typed: &str,
    ) -> Result<(Vec<String>, usize), CallError> {
        let _ = (caller, argument, typed);
        Err(match reference {
            Reference::Prompt(name) => CallError::UnknownPrompt(name),
            Reference::Resource(uri) => CallError::UnknownResource(uri),
        })
    }

    /// Returns whether there is such a resource, or documents that such a pattern may mean ([`keys_of`]), so that it can be subscribed to.
    /// Says the same of a document that the caller may not read and of one that does not exist.
    fn has_resource(&self, caller: &Caller, uri: &str) -> bool {
        let _ = (caller, uri);
        false
    }

    /// Returns what changes from now on.
    ///
    /// # Errors
    /// `Internal` when that cannot be found out.
    async fn news(&self, caller: &Caller) -> Result<broadcast::Receiver<News>, CallError> {
        let _ = caller;
        Ok(broadcast::channel(1).1)
    }

    /// Returns whether a caller may be told of a shared document.
    ///
    /// # Errors
    /// `Internal` when that cannot be found out.
    async fn may_hear(&self, caller: &Caller, key: &DocumentKey) -> Result<bool, CallError> {
        let _ = (caller, key);
        Ok(false)
    }

    /// Makes a pending call one that goes on by itself (the tasks extension): durable when this returns. Returns the `Task`.
    ///
    /// # Errors
    /// [`CallError`].
    async fn defer(&self, caller: &Caller, call: ProviderCall, round: Round, wake_ms: u32) -> Result<Box<RawValue>, CallError> {
        let _ = (call, round, wake_ms);
        Err(CallError::Internal { trace: caller.trace.clone() })
    }

    /// Returns a deferred call of this principal as a `DetailedTask`.
    ///
    /// # Errors
    /// `UnknownTask`.
    async fn deferred(&self, caller: &Caller, id: &str) -> Result<Box<RawValue>, CallError> {
        let _ = caller;
        Err(CallError::UnknownTask(id.to_owned()))
    }

    /// Gives a deferred call the client's answers.
    ///
    /// # Errors
    /// `UnknownTask`.
    async fn answer_deferred(&self, caller: &Caller, id: &str, answers: &RawValue) -> Result<(), CallError> {
        let _ = (caller, answers);
        Err(CallError::UnknownTask(id.to_owned()))
    }

    /// Cancels a deferred call; one that ended is left as it is.
    ///
    /// # Errors
    /// `UnknownTask`.
    async fn cancel_deferred(&self, caller: &Caller, id: &str) -> Result<(), CallError> {
        let _ = caller;
        Err(CallError::UnknownTask(id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_to_the_list() {
        let names = ["a", "b", "c", "d", "e"];
        let texts: Vec<String> = names.iter().map(|name| format!("{{\"n\":\"{name}\"}}")).collect();
        let list = Listing::new(names.iter().copied().zip(texts.iter().map(String::as_str)));
        assert_eq!(list.iter().collect::<Vec<_>>(), names.iter().copied().zip(texts.iter().map(String::as_str)).collect::<Vec<_>>());
        let whole = list.page(None, 10).expect("the first page").0;
        for len in 1..6 {
            let (mut after, mut joined) = (None, Vec::new());
            loop {
                let (page, next) = list.page(after, len).expect("a page");
                joined.extend(serde_json::from_str::<Vec<serde_json::Value>>(&page).expect("JSON"));
                match next {
                    Some(name) => after = Some(name),
                    None => break,
                }
            }
            assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&whole).expect("JSON"), joined, "pages of {len}");
        }
        assert_eq!(list.page(Some("z"), 2), None);
        assert_eq!(Listing::new([]).page(None, 5), Some((Cow::Borrowed("[]"), None)));
    }
}
