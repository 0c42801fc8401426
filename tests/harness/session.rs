//! Sessions of the earlier revisions, spoken by hand.

use pointsman_client::{Client, Era, RawAnswer, Streamed};
use serde_json::{Value, json};

use super::Host;

/// A client of revision 2025-11-25, as bare as can be.
pub struct Session {
    /// Its client.
    pub client: Client,
    /// What it shows.
    pub token: String,
    /// What names it.
    pub id: String,
}

impl Session {
    /// Opens one with a token.
    ///
    /// # Panics
    /// As all that follows, when the host does not answer as it should.
    pub async fn open(host: &Host, token: &str, capabilities: Value) -> Self {
        let client = Client::new(&format!("{}/mcp", host.url()), token, Era::Legacy).expect("a client");
        let mut session = Self { client, token: token.to_owned(), id: String::new() };
        let client_info = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": client_info});
        let opened = session.send(1, "initialize", params).await;
        session.id = opened.header("mcp-session-id").expect("a session").to_owned();
        session
    }

    /// Returns the headers of a request.
    #[must_use]
    pub fn with<'a>(&'a self, authorization: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut headers =
            vec![("authorization", authorization), ("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        if !self.id.is_empty() {
            headers.push(("mcp-session-id", &self.id));
        }
        headers
    }

    /// Sends a request, and returns what came.
    pub async fn send(&self, id: u32, method: &str, params: Value) -> RawAnswer {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        self.client.raw(body, &self.with(&format!("Bearer {}", self.token))).await.expect("an answer")
    }

    /// Returns the same session, spoken to another host.
    #[must_use]
    pub fn at(&self, host: &Host) -> Self {
        let client = Client::new(&format!("{}/mcp", host.url()), &self.token, Era::Legacy).expect("a client");
        Self { client, token: self.token.clone(), id: self.id.clone() }
    }

    /// Sends a request, and returns its result.
    pub async fn ask(&self, id: u32, method: &str, params: Value) -> Value {
        let answer = self.send(id, method, params).await.json();
        assert_eq!(answer["id"], id, "{answer}");
        answer["result"].clone()
    }

    /// Opens the session's own stream, after an event where there is one.
    pub async fn listen(&self, after: Option<&str>) -> Streamed {
        let mut headers = vec![("mcp-session-id", self.id.as_str())];
        headers.extend(after.map(|after| ("last-event-id", after)));
        let opened = self.client.open("GET", &headers, Vec::<u8>::new().into()).await.expect("an answer");
        assert_eq!(opened.status(), 200);
        opened
    }

    /// Ends it; returns the status.
    pub async fn end(&self) -> u16 {
        let authorization = format!("Bearer {}", self.token);
        let headers = self.with(&authorization);
        self.client.request("DELETE", "/mcp", &headers, Vec::<u8>::new().into()).await.expect("an answer").status
    }
}

/// Returns the next message of a stream.
///
/// # Panics
/// When it ends first.
pub async fn next(stream: &mut Streamed) -> Value {
    loop {
        let data = stream.event().await.expect("it goes on").expect("it has not ended");
        if !data.is_empty() {
            return serde_json::from_str(&data).expect("JSON");
        }
    }
}
