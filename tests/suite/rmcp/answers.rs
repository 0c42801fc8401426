//! Sends a request as it is, and puts the answer into a form in which the answers of two servers can be compared.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pointsman_tests::DEADLINE_S;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::calls::{SESSION, Version, Wire};

/// One of the two servers.
#[derive(Clone)]
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its credential; rmcp's server looks at none.
    pub(crate) token: String,
}

/// An answer in five words: what two servers that mean the same have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    /// HTTP status.
    pub(crate) status: u16,
    /// `none`, `json`, `events`, `open` for a stream that goes on, or `text`.
    pub(crate) kind: &'static str,
    /// `error:CODE`, or `result:` with the members of the result, or `-`.
    pub(crate) says: String,
    /// Whether the id of the request came back: `same`, `other`, `no`.
    pub(crate) id: &'static str,
    /// Whether a result says who answers: `named`, `-`.
    pub(crate) who: &'static str,
}

impl fmt::Display for Form {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {} {} {}", self.status, self.kind, self.says, self.id, self.who)
    }
}

impl Form {
    /// Returns what it comes to: `refused`, `accepted`, `answered`.
    pub(crate) fn meaning(&self) -> &'static str {
        match (self.status, self.says.starts_with("error:")) {
            (400.., _) | (_, true) => "refused",
            (202 | 204, false) => "accepted",
            (_, false) => "answered",
        }
    }
}

struct Answer {
    status: u16,
    media: String,
    session: Option<String>,
    body: Bytes,
    is_open: bool,
}

/// Sends a request in a new session, where the revision has sessions; returns the form of the answer.
pub(crate) async fn ask(server: &Server, version: Version, wire: &Wire) -> Form {
    let session = match version {
        Version::V2026_07_28 => None,
        Version::V2025_11_25 | Version::V2025_06_18 | Version::V2025_03_26 => Some(open_session(server, version).await),
    };
    let answer = send(server, wire, session.as_deref().unwrap_or("no-session")).await;
    form(&answer, wire)
}

async fn open_session(server: &Server, version: Version) -> String {
    let opened = send(server, &Wire::initialize(version), "").await;
    let session = opened.session.unwrap_or_else(|| unreachable!("no session: {:?}", opened.body));
    let accepted = send(server, &Wire::initialized(version), &session).await;
    assert_eq!(accepted.status, 202, "a session begins");
    session
}

async fn send(server: &Server, wire: &Wire, session: &str) -> Answer {
    let exchange = tokio::time::timeout(Duration::from_secs(DEADLINE_S), exchange(server, wire, session));
    exchange.await.unwrap_or_else(|_| unreachable!("no answer within {DEADLINE_S} s: {wire:?}"))
}

async fn exchange(server: &Server, wire: &Wire, session: &str) -> Answer {
    let stream = TcpStream::connect(server.address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    let driving = tokio::spawn(connection);
    let mut request = Request::builder().method(wire.verb).uri("/mcp").header("authorization", format!("Bearer {}", server.token));
    for (name, value) in &wire.headers {
        let value = if *value == SESSION.as_bytes() { session.as_bytes() } else { value };
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(Bytes::from(wire.bytes()))).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let media = header("content-type").unwrap_or_default();
    // A stream that no request opened goes on: its head says all.
    let is_open = wire.verb == "GET" && media.starts_with("text/event-stream");
    let body = if is_open { Bytes::new() } else { whole(body).await };
    driving.abort();
    Answer { status: head.status.as_u16(), media, session: header("mcp-session-id"), body, is_open }
}

async fn whole(body: Incoming) -> Bytes {
    body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default()
}

fn form(answer: &Answer, wire: &Wire) -> Form {
    let kind = match answer.media.split(';').next().unwrap_or_default() {
        "application/json" => "json",
        "text/event-stream" if answer.is_open => "open",
        "text/event-stream" => "events",
        _ if answer.body.is_empty() => "none",
        _ => "text",
    };
    let message = message(&answer.body, kind);
    let says = match (&message["error"]["code"], &message["result"]) {
        (Value::Number(code), _) => format!("error:{code}"),
        (_, result @ Value::Object(_)) => shape(result, answer.session.is_some()),
        _ if message.is_array() => "batch".to_owned(),
        _ => "-".to_owned(),
    };
    let id = match message.get("id") {
        None => "no",
        Some(id) if wire.message.get("id") == Some(id) => "same",
        Some(_) => "other",
    };
    let is_named = message["result"]["_meta"].get("io.modelcontextprotocol/serverInfo").is_some();
    Form { status: answer.status, kind, says, id, who: if is_named { "named" } else { "-" } }
}

/// Returns the message that answers the request.
fn message(body: &[u8], kind: &str) -> Value {
    if kind != "events" {
        return serde_json::from_slice(body).unwrap_or_default();
    }
    let text = String::from_utf8_lossy(body);
    let mut messages = text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?.trim()).ok());
    messages.next_back().unwrap_or_default()
}

/// Returns the members of a result, with what is in them where the revisions fix it.
fn shape(result: &Value, has_session: bool) -> String {
    let members = result.as_object().into_iter().flatten().filter(|(name, _)| *name != "_meta");
    let shown = members.map(|(name, value)| match (name.as_str(), value) {
        ("protocolVersion" | "resultType" | "isError", value) => format!("{name}={}", value.to_string().trim_matches('"')),
        ("content", Value::Array(parts)) => format!("content[{}]", parts.first().map_or("", |part| part["type"].as_str().unwrap_or("?"))),
        _ => name.clone(),
    });
    let mut shown: Vec<String> = shown.collect();
    shown.sort_unstable();
    format!("result:{}{}", shown.join(","), if has_session { "+session" } else { "" })
}
