//! The session of a client that speaks a revision before 2026-07-28: what has to be sent again when the host forgot it.
//!
//! **Invariants:** only the client's own `initialize` is replayed, and only after the host said that the session is dead; a session that
//! several requests found dead is opened once.

use std::collections::BTreeSet;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Bridge;
use super::host::{Broken, Field, field, note};
use super::message::{Request, Response};

/// The first revision whose streams can be gone on with from their first event on.
const RESUMABLE: &str = "2025-11-25";
/// Resources whose subscription is remembered: what the host takes.
const SUBSCRIPTIONS_MAX: usize = 1_000;
/// What ends the initialization.
const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    id: Option<String>,
    revision: String,
    /// Which of those this process opened, from 1.
    pub(super) generation: u64,
}

impl Opened {
    /// Returns the header fields of its requests.
    pub(super) fn fields(&self) -> Vec<Field> {
        let mut fields = vec![field("mcp-protocol-version", &*self.revision)];
        fields.extend(self.id.as_ref().map(|id| field("mcp-session-id", id)));
        fields
    }

    /// Returns whether a stream of it that broke can be gone on with.
    pub(super) fn resumes(&self) -> bool {
        self.revision.as_str() >= RESUMABLE
    }
}

#[derive(Default)]
struct State {
    initialize: Bytes,
    opened: Option<Opened>,
    uris: BTreeSet<String>,
    level: Option<String>,
}

/// The session, if there is one.
pub(super) struct Session {
    state: Mutex<State>,
    reopening: tokio::sync::Mutex<()>,
    /// The session that was initialized and can be listened to; 0: none yet.
    pub(super) ready: watch::Sender<u64>,
}

impl Default for Session {
    fn default() -> Self {
        Self { state: Mutex::default(), reopening: tokio::sync::Mutex::default(), ready: watch::Sender::new(0) }
    }
}

impl Session {
    /// Returns the session as it is.
    pub(super) fn current(&self) -> Option<Opened> {
        self.state.lock().opened.clone()
    }

    /// Says that a session can be listened to.
    pub(super) fn is_ready(&self, generation: u64) {
        self.ready.send_if_modified(|known| {
            let is_newer = *known < generation;
            *known = (*known).max(generation);
            is_newer
        });
    }

    /// Forgets what an earlier session of the client was subscribed to.
    fn forget(&self) {
        let mut state = self.state.lock();
        state.uris.clear();
        state.level = None;
    }

    /// Takes the answer to an `initialize`.
    fn begin(&self, initialize: Bytes, id: Option<String>, response: &Response) -> Option<Opened> {
        let answer = response.json();
        let revision = answer["result"]["protocolVersion"].as_str()?.to_owned();
        let mut state = self.state.lock();
        let generation = state.opened.as_ref().map_or(1, |opened| opened.generation + 1);
        let opened = Opened { id, revision, generation };
        state.initialize = initialize;
        state.opened = Some(opened.clone());
        Some(opened)
    }

    /// Remembers what a request changed in the session, once it was answered well.
    pub(super) fn remember(&self, request: &Request) {
        let mut state = self.state.lock();
        let uri = request.message.params.uri.clone();
        match (request.method.as_str(), uri) {
            ("resources/subscribe", Some(uri)) if state.uris.len() < SUBSCRIPTIONS_MAX => {
                state.uris.insert(uri);
            }
            ("resources/unsubscribe", Some(uri)) => {
                state.uris.remove(&uri);
            }
            ("logging/setLevel", _) => state.level = request.message.param("level").as_str().map(str::to_owned),
            _ => {}
        }
    }

    /// Returns what the session is told of, in the form of an acknowledged subscription.
    pub(super) fn watched(&self) -> Value {
        let uris: Vec<String> = self.state.lock().uris.iter().cloned().collect();
        json!({"notifications": {
            "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true, "resourceSubscriptions": uris}})
    }

    /// Returns the requests that bring a session which the host holds anew to where it was.
    fn restoring(&self) -> Vec<String> {
        let state = self.state.lock();
        let level = state.level.iter().map(|level| ("logging/setLevel", json!({"level": level})));
        let uris = state.uris.iter().map(|uri| ("resources/subscribe", json!({"uri": uri})));
        let requests = level.chain(uris).enumerate().map(|(n, (method, params))| {
            json!({"jsonrpc": "2.0", "id": format!("pointsman-mcp-{n}"), "method": method, "params": params}).to_string()
        });
        requests.collect()
    }
}

impl Bridge {
    /// Opens the session that the client asks for.
    pub(super) async fn initialize(&self, request: &Request) -> Result<Response, Broken> {
        self.session.forget();
        let answer = self.host.open("POST", &[], request.message.line.clone()).await?;
        let id = answer.header("mcp-session-id").map(str::to_owned);
        let response = self.host.own(answer, &request.id).await?;
        self.session.begin(request.message.line.clone(), id, &response);
        Ok(response)
    }

    /// Opens a session in place of one that the host says is dead; whoever comes second gets what the first opened.
    pub(super) async fn reopen(&self, dead: &Opened) -> Result<Opened, Broken> {
        let _turn = self.session.reopening.lock().await;
        if let Some(current) = self.session.current().filter(|current| current.generation != dead.generation) {
            self.session.is_ready(current.generation);
            return Ok(current);
        }
        let initialize = self.session.state.lock().initialize.clone();
        let answer = self.host.open("POST", &[], initialize.clone()).await?;
        let id = answer.header("mcp-session-id").map(str::to_owned);
        let response = self.host.own(answer, "0").await?;
        let lost = || Broken::Lost { why: "the session could not be opened again".to_owned() };
        let opened = self.session.begin(initialize, id, &response).ok_or_else(lost)?;
        // At once: whoever waits for it must not depend on what becomes of the rest.
        self.session.is_ready(opened.generation);
        let accepted = self.host.open("POST", &opened.fields(), Bytes::from_static(INITIALIZED)).await?;
        accepted.whole().await.map_err(|error| Broken::Lost { why: error.to_string() })?;
        note("the host had forgotten the session: opened it again");
        Ok(opened)
    }

    /// Subscribes again to what the client subscribed to, and sets its log level: the host holds that in memory only.
    pub(super) async fn restore(&self, opened: &Opened) -> Result<(), Broken> {
        for request in self.session.restoring() {
            let answer = self.host.open("POST", &opened.fields(), request.into()).await?;
            let answer = self.host.admitted(answer).await?;
            answer.whole().await.map_err(|error| Broken::Lost { why: error.to_string() })?;
        }
        Ok(())
    }

    /// Ends the session at the host.
    pub(super) async fn end_session(&self) {
        if let Some(opened) = self.session.current() {
            drop(self.host.open("DELETE", &opened.fields(), Bytes::new()).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, bridge, initialize};

    #[tokio::test]
    async fn a_session_can_be_listened_to_once_it_is_open_whatever_comes_after() {
        let hangs_up = |asked: &str| (!asked.contains("notifications/initialized")).then_some((200, fixture::INITIALIZED));
        let (bridge, _writer) = bridge(std::io::sink(), hangs_up).await;
        initialize(&bridge).await;
        let dead = bridge.session.current().expect("a session");
        assert!(bridge.reopen(&dead).await.is_err(), "the host was gone before it was told that the session begins");
        assert_eq!(*bridge.session.ready.borrow(), 2, "who listens is told of the session");
        let mut ready = bridge.session.ready.subscribe();
        assert!(bridge.reopen(&dead).await.is_ok_and(|current| current.generation == 2));
        assert!(!ready.has_changed().expect("it lives") && *ready.borrow_and_update() == 2, "and only once");
    }
}
