//! A small MCP client over HTTP/1.1: what the command line, the demo, the tests and the benches talk to the host with.
//!
//! Speaks 2026-07-28 (stateless) or a legacy session. Calls may run at the same time: each takes a connection of its own from a
//! pool, so a long poll holds up nothing. Dropping a call closes its connection, which cancels a wait at the host. [`Client::open`]
//! gives an answer as it comes, for whoever relays it.
//!
//! **Invariant:** a call is repeated by the client only when the first try cannot have acted (it was never sent, or the session
//! was refused), or when repeating is harmless: it only reads, or carries an `idempotency_key`.

mod error;
mod pool;
mod sse;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

pub use self::error::{CallError, TransportError};
pub use self::pool::RawAnswer;
#[doc(hidden)]
pub use self::sse::{events_of, fuzz_events};
pub use self::stream::Streamed;

use self::pool::{Pool, Repeat, Target};

/// The stateless revision.
pub const MODERN_VERSION: &str = "2026-07-28";
/// The revision that legacy sessions ask for.
pub const LEGACY_VERSION: &str = "2025-11-25";
/// Milliseconds an answer may take: somewhat more than the longest poll.
pub const ANSWER_MS: u64 = 70_000;

/// Which family of revisions to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2026-07-28, stateless.
    Modern,
    /// 2025-11-25, in a session.
    Legacy,
}

/// What the host says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The revision spoken.
    pub protocol_version: String,
    /// How it wants to be used.
    pub instructions: String,
}

struct Shared {
    target: Target,
    authorization: String,
    era: Era,
    answer_ms: u64,
    pool: Pool,
    next_id: AtomicU64,
    /// The legacy session's id and revision.
    session: Mutex<Option<(String, String)>>,
}

/// A client of one endpoint with one token. Clones share connections and the session.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Returns a client of `http://HOST:PORT/mcp[/PROJECT]`. Nothing is sent yet.
    ///
    /// # Errors
    /// `BadRequest` when the URL is not of that form or the token cannot stand in a header.
    pub fn new(url: &str, token: &str, era: Era) -> Result<Self, TransportError> {
        Self::with_answer_ms(url, token, era, ANSWER_MS)
    }

    /// Returns a client that waits this long for answers.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_answer_ms(url: &str, token: &str, era: Era, answer_ms: u64) -> Result<Self, TransportError> {
        let target = Target::parse(url)?;
        if token.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(TransportError::BadRequest { why: "the token has characters that cannot stand in a header".to_owned() });
        }
        let authorization = if token.is_empty() { String::new() } else { format!("Bearer {token}") };
        let pool = Pool::new(target.authority.clone());
        let shared = Shared { target, authorization, era, answer_ms, pool, next_id: AtomicU64::new(1), session: Mutex::new(None) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns the era spoken.
    #[must_use]
    pub fn era(&self) -> Era {
        self.shared.era
    }

    /// Makes acquaintance: `server/discover`, or `initialize` and a session.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn connect(&self) -> Result<ServerInfo, CallError> {
        match self.shared.era {
            Era::Modern => {
                let result = self.rpc("server/discover", Map::new(), None, Repeat::Harmless).await?;
                let server = &result["_meta"]["io.modelcontextprotocol/serverInfo"];
                Ok(info(server, MODERN_VERSION, &result))
            }
            Era::Legacy => {
                let mut session = self.shared.session.lock().await;
                let (opened, info) = self.initialize().await?;
                *session = Some(opened);
                Ok(info)
            }
        }
    }

    /// Returns the tools, each as its whole definition.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn list_tools(&self) -> Result<Vec<Value>, CallError> {
        let mut result = self.rpc("tools/list", Map::new(), None, Repeat::Harmless).await?;
        let Value::Array(tools) = result["tools"].take() else {
            return Err(TransportError::malformed("`tools` is not an array".to_owned()).into());
        };
        Ok(tools)
    }

    /// Calls a tool and returns its structured result.
    ///
    /// # Errors
    /// [`CallError::Tool`] when the tool says so; else what kept it from being called.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Value, CallError> {
        let is_harmless = tool == "lookup" || arguments["idempotency_key"].is_string();
        let repeat = if is_harmless { Repeat::Harmless } else { Repeat::OnlyUnsent };
        let mut params = Map::new();
        params.insert("name".to_owned(), tool.into());
        params.insert("arguments".to_owned(), arguments);
        let mut result = self.rpc("tools/call", params, Some(tool), repeat).await?;
        let is_error = result["isError"].as_bool().unwrap_or(false);
        let mut structured = result["structuredContent"].take();
        if structured.is_null() {
            // Older revisions have the text only.
            let text = result["content"][0]["text"].as_str();
            structured = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
        }
        if is_error { Err(CallError::tool(structured)) } else { Ok(structured) }
    }

    /// Ends a legacy session at the host; nothing to do otherwise.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn close(&self) -> Result<(), CallError> {
        let Some((id, version)) = self.shared.session.lock().await.take() else { return Ok(()) };
        let headers = [
            ("authorization", self.shared.authorization.as_str()),
            ("mcp-session-id", id.as_str()),
            ("mcp-protocol-version", version.as_str()),
        ];
        let answer = self.request("DELETE", &self.shared.target.path, &headers, Bytes::new()).await?;
        if answer.status < 300 { Ok(()) } else { Err(error::refused(&answer)) }
    }

    /// Posts a body to the endpoint with these headers and no others (besides `Host` and the length).
    ///
    /// # Errors
    /// [`TransportError`]; any HTTP status is an answer.
    pub async fn raw(&self, body: impl Into<Bytes>, headers: &[(&str, &str)]) -> Result<RawAnswer, TransportError> {
        self.request("POST", &self.shared.target.path, headers, body.into()).await
    }

    /// Sends any request to the host, such as `GET /readyz`. It is not repeated once sent.
    ///
    /// # Errors
    /// [`TransportError`]; any HTTP status is an answer.
    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<RawAnswer, TransportError> {
        self.send(method, path, headers, body, Repeat::OnlyUnsent).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        repeat: Repeat,
    ) -> Result<RawAnswer, TransportError> {
        let build = self.builder(method, path, headers, body)?;
        let limit_ms = self.shared.answer_ms;
        let exchanged = tokio::time::timeout(Duration::from_millis(limit_ms), self.shared.pool.exchange(build, repeat)).await;
        exchanged.unwrap_or(Err(TransportError::TimedOut { limit_ms }))
    }

    /// Returns what writes a request, as often as it has to be sent.
    fn builder<'a>(
        &'a self,
        method: &str,
        path: &'a str,
        headers: &'a [(&'a str, &'a str)],
        body: Bytes,
    ) -> Result<impl Fn() -> Result<Request<Full<Bytes>>, TransportError> + use<'a>, TransportError> {
        let method = Method::from_bytes(method.as_bytes()).map_err(|e| TransportError::BadRequest { why: e.to_string() })?;
        Ok(move || {
            let mut request = Request::builder().method(&method).uri(path).header("host", &*self.shared.target.authority);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.body(Full::new(body.clone())).map_err(|e| TransportError::BadRequest { why: e.to_string() })
        })
    }

    /// Opens a legacy session.
    async fn initialize(&self) -> Result<((String, String), ServerInfo), CallError> {
        let params = json!({
            "protocolVersion": LEGACY_VERSION,
            "capabilities": {},
            "clientInfo": {"name": "pointsman-client", "version": env!("CARGO_PKG_VERSION")},
        });
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": params}).to_string();
        let answer = self.send("POST", &self.shared.target.path, &self.headers(), body.into(), Repeat::Harmless).await?;
        let session = answer.header("mcp-session-id").map(str::to_owned);
        let result = error::result(&answer, id)?;
        let version = result["protocolVersion"].as_str().unwrap_or(LEGACY_VERSION).to_owned();
        let session =
            session.ok_or_else(|| TransportError::malformed("no `Mcp-Session-Id` came with the answer to `initialize`".to_owned()))?;
        let mut headers = self.headers();
        headers.extend([("mcp-session-id", session.as_str()), ("mcp-protocol-version", version.as_str())]);
        let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let accepted = self.send("POST", &self.shared.target.path, &headers, ready.into(), Repeat::Harmless).await?;
        if accepted.status != 202 {
            return Err(error::refused(&accepted));
        }
        let info = info(&result["serverInfo"], &version, &result);
        Ok(((session, version), info))
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        if !self.shared.authorization.is_empty() {
            headers.push(("authorization", &self.shared.authorization));
        }
        headers
    }

    async fn rpc(&self, method: &str, params: Map<String, Value>, name: Option<&str>, repeat: Repeat) -> Result<Value, CallError> {
        match self.shared.era {
            Era::Modern => self.modern(method, params, name, repeat).await,
            Era::Legacy => self.legacy(method, params, repeat).await,
        }
    }

    async fn modern(&self, method: &str, mut params: Map<String, Value>, name: Option<&str>, repeat: Repeat) -> Result<Value, CallError> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
            "io.modelcontextprotocol/clientInfo": {"name": "pointsman-client", "version": env!("CARGO_PKG_VERSION")},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        params.insert("_meta".to_owned(), meta);
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        let name = name.map(header_value);
        let mut headers = self.headers();
        headers.extend([("mcp-protocol-version", MODERN_VERSION), ("mcp-method", method)]);
        if let Some(name) = &name {
            headers.push(("mcp-name", name));
        }
        let answer = self.send("POST", &self.shared.target.path, &headers, body.into(), repeat).await?;
        error::result(&answer, id)
    }

    /// A session that the host no longer knows is opened anew once: such a request has not acted.
    async fn legacy(&self, method: &str, params: Map<String, Value>, repeat: Repeat) -> Result<Value, CallError> {
        let mut stale: Option<(String, String)> = None;
        loop {
            let session = {
                let mut session = self.shared.session.lock().await;
                if session.is_none() || *session == stale {
                    *session = Some(self.initialize().await?.0);
                }
                session.clone().unwrap_or_default()
            };
            let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
            let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
            let mut headers = self.headers();
            headers.extend([("mcp-session-id", session.0.as_str()), ("mcp-protocol-version", session.1.as_str())]);
            let answer = self.send("POST", &self.shared.target.path, &headers, body.into(), repeat).await?;
            if answer.status == 404 && stale.is_none() {
                stale = Some(session);
                continue;
            }
            return error::result(&answer, id);
        }
    }
}

fn info(server: &Value, protocol_version: &str, result: &Value) -> ServerInfo {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ServerInfo {
        name: text(&server["name"]),
        version: text(&server["version"]),
        protocol_version: protocol_version.to_owned(),
        instructions: text(&result["instructions"]),
    }
}

/// Returns a value as a header can carry it (streamable HTTP, value encoding).
#[must_use]
pub fn header_value(value: &str) -> String {
    let plain = value.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) && value.trim() == value && !value.is_empty();
    let looks_encoded = value.starts_with("=?base64?") && value.ends_with("?=");
    if plain && !looks_encoded { value.to_owned() } else { format!("=?base64?{}?=", BASE64.encode(value.as_bytes())) }
}

/// Milliseconds that [`get`] waits for an answer.
const GET_MS: u64 = 2_000;

/// Asks a URL without a credential, such as `http://127.0.0.1:7420/readyz`; returns status and body.
///
/// # Errors
/// [`TransportError`].
pub async fn get(url: &str) -> Result<(u16, Bytes), TransportError> {
    let client = Client::with_answer_ms(url, "", Era::Modern, GET_MS)?;
    let path = client.shared.target.path.clone();
    let answer = client.request("GET", &path, &[], Bytes::new()).await?;
    Ok((answer.status, answer.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_travel_as_headers() {
        assert_eq!(header_value("claim_task"), "claim_task");
        assert_eq!(header_value("Hello, 世界"), "=?base64?SGVsbG8sIOS4lueVjA==?=");
        assert_eq!(header_value(" padded "), "=?base64?IHBhZGRlZCA=?=");
        assert_eq!(header_value("=?base64?literal?="), "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=");
    }
}
