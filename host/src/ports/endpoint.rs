//! What stands behind a route of the HTTP server: an exchange comes in, a reply goes out.
//!
//! Driving port: the server owns sockets, limits and the library's types; a protocol behind it sees only this. It must not
//! know how bytes arrive.

use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;

/// The request methods that endpoints tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET or HEAD.
    Get,
    /// POST.
    Post,
    /// DELETE.
    Delete,
    /// Any other.
    Other,
}

/// One header field as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// Not sent.
    Absent,
    /// Sent once; white space around the value is already cut.
    One(&'a [u8]),
    /// Sent more than once: whoever reads the first and whoever reads the last would disagree.
    Repeated,
}

/// The header fields of a request.
pub trait Fields: Send + Sync {
    /// Returns a field by its name in lower case.
    fn field(&self, name: &str) -> Field<'_>;
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More than the server takes.
    #[error("the body is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// It did not arrive in time.
    #[error("the body did not arrive within {limit_ms} ms")]
    TimedOut {
        /// The limit.
        limit_ms: u64,
    },
    /// It nests deeper than any parser should follow.
    #[error("the body nests deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// The connection ended before the body did.
    #[error("the connection ended before the body did")]
    Broken,
    /// Compressed in a way that is not spoken here.
    #[error("the body's `Content-Encoding` is not known")]
    UnknownEncoding,
    /// It is not what its `Content-Encoding` says.
    #[error("the body cannot be decompressed as its `Content-Encoding` says")]
    Damaged,
}

/// A body still to be read, so that an endpoint can refuse a request by its head alone.
#[async_trait]
pub trait BodySource: Send {
    /// Returns the whole body. To be called once.
    ///
    /// # Errors
    /// [`BodyError`].
    async fn read_all(&mut self) -> Result<Bytes, BodyError>;
}

/// A request.
pub struct Exchange<'a> {
    /// Its method.
    pub method: Method,
    /// The project that the path names.
    pub slug: Option<&'a str>,
    /// Its header fields.
    pub fields: &'a dyn Fields,
    /// Its body.
    pub body: &'a mut dyn BodySource,
    /// The request id that logs and events carry.
    pub trace: &'a str,
}

/// What is sent piece by piece: server-sent events, already in their wire form.
pub trait EventSource: Send {
    /// Returns the next piece; none: the stream ends. Dropping the source says that the client is gone.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// The body of an answer.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// What comes, as it comes.
    Events(Box<dyn EventSource>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes) => f.debug_tuple("Whole").field(bytes).finish(),
            Self::Events(_) => f.write_str("Events"),
        }
    }
}

/// The answer.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Media type; none: no body.
    pub content_type: Option<&'static str>,
    /// Further header fields.
    pub fields: Vec<(&'static str, String)>,
    /// The body.
    pub body: Body,
}

impl Reply {
    /// Returns an answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, content_type: None, fields: Vec::new(), body: Body::Whole(Bytes::new()) }
    }

    /// Returns JSON.
    #[must_use]
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Self { status, content_type: Some("application/json"), fields: Vec::new(), body: Body::Whole(body.into()) }
    }

    /// Returns a stream of events; proxies are asked not to gather them.
    #[must_use]
    pub fn events(source: Box<dyn EventSource>) -> Self {
        let fields = vec![("cache-control", "no-store".to_owned()), ("x-accel-buffering", "no".to_owned())];
        Self { status: 200, content_type: Some("text/event-stream"), fields, body: Body::Events(source) }
    }
}

/// A protocol behind a route.
#[async_trait]
pub trait Endpoint: Send + Sync {
    /// Answers one request. The server drops the future when the client is gone.
    async fn serve(&self, exchange: Exchange<'_>) -> Reply;
}
