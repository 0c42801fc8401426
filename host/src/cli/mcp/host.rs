//! The host as the bridge reaches it: one exchange, what can go wrong with it sorted by what to do about it, patience.
//!
//! Must not know sessions. **Invariants:** what never reached the host may be sent again, what may have acted is told apart; patience has
//! an end, and none is left once the client is gone.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pointsman_client::{Client, RawAnswer, Streamed, TransportError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::complaint::Complaint;
use super::message::{Response, is_response};

/// Milliseconds for which a host that was never reached is tried: a client that starts wants to be told soon.
const FIRST_MS: u64 = 5_000;
/// Milliseconds for which a host that went away is tried: a restart, its plugins compiled anew.
const RESTART_MS: u64 = 45_000;
/// Milliseconds between the first two tries; doubled from try to try.
const PAUSE_MS: u64 = 100;
/// Milliseconds between two tries at most.
const PAUSE_MS_MAX: u64 = 2_000;
/// Characters of an answer that is none of MCP which are shown.
const SHOWN_MAX: usize = 200;

/// A header field.
pub(super) type Field = (String, String);

/// Returns a header field.
pub(super) fn field(name: &str, value: impl Into<String>) -> Field {
    (name.to_owned(), value.into())
}

/// Why an exchange has no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// It never reached the host.
    Away {
        /// The system's words.
        why: String,
    },
    /// The host did not take it, and may later.
    Busy {
        /// Its words.
        why: String,
        /// What it asked for.
        after_ms: u64,
    },
    /// It may have acted.
    Lost {
        /// The library's words.
        why: String,
    },
    /// Trying again would not help.
    Refused(Complaint),
}

/// The host.
pub(super) struct Host {
    client: Client,
    url: String,
    has_token: bool,
    was_reached: AtomicBool,
    is_away: AtomicBool,
    /// Cancelled when the client is gone.
    pub(super) closing: CancellationToken,
}

impl Host {
    /// Returns the host at this address; nothing is sent yet.
    pub(super) fn new(client: Client, url: String, has_token: bool) -> Self {
        let closing = CancellationToken::new();
        Self { client, url, has_token, was_reached: AtomicBool::new(false), is_away: AtomicBool::new(false), closing }
    }

    /// Sends a request; returns when the head of its answer came.
    pub(super) async fn open(&self, method: &str, fields: &[Field], body: Bytes) -> Result<Streamed, Broken> {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match self.client.open(method, &fields, body).await {
            Ok(answer) => {
                self.was_reached.store(true, Ordering::Relaxed);
                if self.is_away.swap(false, Ordering::Relaxed) {
                    note("the host is back");
                }
                match answer.status() {
                    429 | 503 => Err(busy(answer).await),
                    _ => Ok(answer),
                }
            }
            Err(TransportError::Unreachable { why }) => {
                if !self.is_away.swap(true, Ordering::Relaxed) {
                    note(&format!("the host at {} cannot be reached: {why}", self.url));
                }
                Err(Broken::Away { why })
            }
            Err(error @ (TransportError::Interrupted { .. } | TransportError::TimedOut { .. } | TransportError::Malformed { .. })) => {
                Err(Broken::Lost { why: error.to_string() })
            }
            Err(TransportError::BadRequest { why }) => Err(Broken::Refused(Complaint::Unsendable { why })),
        }
    }

    /// Reads an answer that is no stream as the response to the request with this id.
    pub(super) async fn response(&self, answer: Streamed, id: &str) -> Result<Response, Broken> {
        let answer = answer.whole().await.map_err(|error| Broken::Lost { why: error.to_string() })?;
        let read = Response::read(&answer.body, id);
        match (answer.status, read) {
            (401, _) if !self.has_token => Err(Broken::Refused(Complaint::TokenMissing)),
            (401, read) => {
                let said = read.map(|response| response.json()).unwrap_or_default();
                let why = said["error"]["message"].as_str().unwrap_or("HTTP 401").to_owned();
                Err(Broken::Refused(Complaint::TokenRefused { why }))
            }
            (_, Some(response)) => Ok(response),
            (_, None) => Err(Broken::Refused(self.not_mcp(&answer))),
        }
    }

    /// Returns an answer, unless the host says by it that it will not have the client, now or later.
    pub(super) async fn admitted(&self, answer: Streamed) -> Result<Streamed, Broken> {
        match answer.status() {
            400 | 401 | 403 | 406 => match self.response(answer, "null").await {
                Ok(refused) => {
                    let why = refused.json()["error"]["message"].as_str().unwrap_or("without a word").to_owned();
                    Err(Broken::Refused(Complaint::Refused { why }))
                }
                Err(broken) => Err(broken),
            },
            _ => Ok(answer),
        }
    }

    /// Returns the response to a request of the bridge's own, whatever else comes with it.
    pub(super) async fn own(&self, mut answer: Streamed, id: &str) -> Result<Response, Broken> {
        if !answer.is_events() {
            return self.response(answer, id).await;
        }
        loop {
            match answer.event().await {
                Ok(Some(data)) if is_response(&data) => {
                    let read = Response::read(data.as_bytes(), id);
                    return read.ok_or_else(|| Broken::Lost { why: "the response cannot be read".to_owned() });
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err(ended()),
                Err(error) => return Err(Broken::Lost { why: error.to_string() }),
            }
        }
    }

    fn not_mcp(&self, answer: &RawAnswer) -> Complaint {
        let text: String = String::from_utf8_lossy(&answer.body).chars().take(SHOWN_MAX).collect();
        let text = if text.trim().is_empty() { "no body".to_owned() } else { text };
        Complaint::NotMcp { url: self.url.clone(), status: answer.status, text }
    }

    /// Returns what to tell the client.
    pub(super) fn complaint(&self, broken: Broken) -> Complaint {
        let url = self.url.clone();
        match broken {
            Broken::Away { why } => Complaint::Unreachable { url, why },
            Broken::Busy { why, .. } => Complaint::Busy { url, why },
            Broken::Lost { why } => Complaint::Interrupted { why },
            Broken::Refused(complaint) => complaint,
        }
    }

    /// Returns the patience that one request has.
    pub(super) fn patience(&self) -> Patience {
        let limit_ms = if self.was_reached.load(Ordering::Relaxed) { RESTART_MS } else { FIRST_MS };
        Patience { until: Some(Instant::now() + Duration::from_millis(limit_ms)), pause_ms: PAUSE_MS }
    }

    /// Returns the patience of what stays for as long as the client does.
    pub(super) fn endless(&self) -> Patience {
        Patience { until: None, pause_ms: PAUSE_MS }
    }
}

/// Returns a stream that ended without its response.
pub(super) fn ended() -> Broken {
    Broken::Lost { why: "the stream ended without a response".to_owned() }
}

async fn busy(answer: Streamed) -> Broken {
    let after_s: u64 = answer.header("retry-after").and_then(|text| text.parse().ok()).unwrap_or(0);
    let status = answer.status();
    let said = match answer.whole().await {
        Ok(whole) => whole.json()["error"]["message"].as_str().map(str::to_owned),
        Err(_) => None,
    };
    Broken::Busy { why: said.unwrap_or_else(|| format!("HTTP {status}")), after_ms: after_s.saturating_mul(1_000) }
}

/// How long it is worth trying, and how often.
pub(super) struct Patience {
    until: Option<Instant>,
    pause_ms: u64,
}

impl Patience {
    /// Waits before the next try; false when there should be none.
    pub(super) async fn pause(&mut self, host: &Host, after_ms: u64) -> bool {
        let pause = Duration::from_millis(self.pause_ms.max(after_ms));
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
        if self.until.is_some_and(|until| Instant::now() + pause > until) {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = host.closing.cancelled() => false,
        }
    }

    /// Begins anew: something was reached.
    pub(super) fn renew(&mut self) {
        self.pause_ms = PAUSE_MS;
    }
}

/// Tells the person, on standard error.
pub(super) fn note(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "pointsman mcp: {text}");
}
