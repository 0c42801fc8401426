//! Connections to one host: idle ones are used again, each exchange has one for itself.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::error::TransportError;

/// Idle connections that are kept.
const IDLE_MAX: usize = 16;

/// An HTTP answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAnswer {
    /// Status.
    pub status: u16,
    /// Header fields, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Bytes,
}

impl RawAnswer {
    /// Returns the first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON, `null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Whether a request may be sent again after its connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Doing it twice is like doing it once.
    Harmless,
    /// Only when not a byte of it was sent.
    OnlyUnsent,
}

/// Where an endpoint is.
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) authority: Arc<str>,
    /// Path of the endpoint.
    pub(crate) path: String,
}

impl Target {
    /// Reads `http://HOST[:PORT][/PATH]`.
    pub(crate) fn parse(url: &str) -> Result<Self, TransportError> {
        let bad = |why: &str| TransportError::BadRequest { why: format!("`{url}`: {why}") };
        let rest = url.strip_prefix("http://").ok_or_else(|| bad("only http:// URLs are taken"))?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let host_end = authority.rfind(']').map_or(0, |at| at + 1);
        let authority = match authority[host_end..].rfind(':') {
            Some(colon) if authority[host_end + colon + 1..].parse::<u16>().is_ok() => authority.to_owned(),
            Some(_) => return Err(bad("the port is not a number")),
            None => format!("{authority}:80"),
        };
        if authority.starts_with(':') || authority.contains('@') || path.contains(['#', ' ']) {
            return Err(bad("not of the form http://HOST:PORT/PATH"));
        }
        Ok(Self { authority: authority.into(), path: path.to_owned() })
    }
}

/// A connection that carries one exchange at a time.
pub(crate) type Connection = SendRequest<Full<Bytes>>;
/// An answer whose head came: the head with an empty body, the body, what it comes over.
type Opened = (RawAnswer, Incoming, Connection);

pub(crate) struct Pool {
    authority: Arc<str>,
    idle: Mutex<Vec<Connection>>,
}

/// Why a try failed.
struct Failed {
    sent: bool,
    why: String,
}

impl Failed {
    fn told(self) -> TransportError {
        let Self { sent, why } = self;
        if sent { TransportError::Interrupted { why } } else { TransportError::Unreachable { why } }
    }
}

impl Pool {
    pub(crate) fn new(authority: Arc<str>) -> Self {
        Self { authority, idle: Mutex::new(Vec::new()) }
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    pub(crate) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !connection.is_closed() && idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    async fn open(&self) -> Result<Connection, TransportError> {
        let unreachable = |why: String| TransportError::Unreachable { why };
        let stream = TcpStream::connect(&*self.authority).await.map_err(|e| unreachable(format!("{}: {e}", self.authority)))?;
        stream.set_nodelay(true).map_err(|e| unreachable(e.to_string()))?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(e.to_string()))?;
        // The driver ends with the last half of the connection; what broke it is told to the request in flight.
        tokio::spawn(async move { drop(driver.await) });
        Ok(connection)
    }

    /// Sends a request and returns its whole answer. One whose answer broke off is sent once more if that is harmless.
    pub(crate) async fn exchange(
        &self,
        build: impl Fn() -> Result<Request<Full<Bytes>>, TransportError>,
        repeat: Repeat,
    ) -> Result<RawAnswer, TransportError> {
        match self.finish(self.open_exchange(&build, repeat).await?).await {
            Err(_) if repeat == Repeat::Harmless => {
                let fresh = self.open().await?;
                self.finish(Self::begin(fresh, build()?).await.map_err(Failed::told)?).await
            }
            done => done,
        }
    }

    /// Sends a request and returns when the head of its answer came. One that broke with an idle connection, which the host may have
    /// closed at the same moment, is sent once more on a fresh one if that is safe.
    pub(crate) async fn open_exchange(
        &self,
        build: impl Fn() -> Result<Request<Full<Bytes>>, TransportError>,
        repeat: Repeat,
    ) -> Result<Opened, TransportError> {
        while let Some(connection) = self.take_idle() {
            match Self::begin(connection, build()?).await {
                Ok(opened) => return Ok(opened),
                Err(Failed { sent: false, .. }) => {}
                Err(Failed { sent: true, .. }) if repeat == Repeat::Harmless => break,
                Err(failed @ Failed { sent: true, .. }) => return Err(failed.told()),
            }
        }
        let fresh = self.open().await?;
        Self::begin(fresh, build()?).await.map_err(Failed::told)
    }

    async fn begin(mut connection: Connection, request: Request<Full<Bytes>>) -> Result<Opened, Failed> {
        connection.ready().await.map_err(|e| Failed { sent: false, why: e.to_string() })?;
        let response = match connection.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let sent = error.take_message().is_none();
                return Err(Failed { sent, why: error.into_error().to_string() });
            }
        };
        let (head, body) = response.into_parts();
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        Ok((RawAnswer { status: head.status.as_u16(), headers, body: Bytes::new() }, body, connection))
    }

    async fn finish(&self, (head, body, connection): Opened) -> Result<RawAnswer, TransportError> {
        let body = body.collect().await.map_err(|e| TransportError::Interrupted { why: e.to_string() })?.to_bytes();
        self.give_back(connection);
        Ok(RawAnswer { body, ..head })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_an_authority_and_a_path() {
        for (url, authority, path) in [
            ("http://127.0.0.1:7420/mcp", "127.0.0.1:7420", "/mcp"),
            ("http://localhost/mcp/demo", "localhost:80", "/mcp/demo"),
            ("http://[::1]:9/mcp", "[::1]:9", "/mcp"),
            ("http://[::1]", "[::1]:80", "/"),
        ] {
            let target = Target::parse(url).expect(url);
            assert_eq!((&*target.authority, target.path.as_str()), (authority, path));
        }
        for wrong in ["https://a/mcp", "a:1/mcp", "http://a:x/mcp", "http://:80/", "http://u:p@a/", "http://a/ b"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
