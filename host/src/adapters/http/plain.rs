//! The answers of the server itself: routes that are not there, health, refusals. `{code, why, do}` as everywhere.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::ReplyBody;

/// Returns what a connection above the limit gets, written without reading its request.
pub(super) fn too_many_connections() -> String {
    by_hand("503 Service Unavailable", "too_many_connections", "the host serves as many connections as it may", WHEN_TOO_MANY)
}

/// Returns what a connection above its address's limit gets.
pub(super) fn too_many_of_peer() -> String {
    by_hand("429 Too Many Requests", "too_many_connections", "your address has as many connections as it may", WHEN_TOO_MANY)
}

/// Returns what a client gets that speaks HTTP to a listener of TLS.
pub(super) fn not_tls() -> String {
    by_hand("400 Bad Request", "tls_expected", "this port speaks TLS", "use an https:// URL")
}

const WHEN_TOO_MANY: &str = "close idle ones and try again in a second or later";

fn by_hand(status: &str, code: &str, why: &str, advice: &str) -> String {
    let body = format!("{}\n", serde_json::json!({"code": code, "why": why, "do": advice}));
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Why the server itself does not pass a request on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// No such path.
    #[error("there is nothing at `{path}`")]
    NoRoute {
        /// What was asked for, cut.
        path: String,
    },
    /// Another method.
    #[error("this path takes {allow}")]
    MethodNotAllowed {
        /// What it takes.
        allow: &'static str,
    },
    /// A page of another site.
    #[error("requests from the origin `{origin}` are not let in")]
    ForeignOrigin {
        /// Which, cut.
        origin: String,
    },
    /// A name that does not belong to this machine.
    #[error("`{host}` is not a name of this host")]
    ForeignHost {
        /// Which, cut.
        host: String,
    },
    /// A credential in the URL.
    #[error("the URL holds a token")]
    TokenInQuery,
    /// An address that was turned away too often.
    #[error("too many requests from this address had no valid credential")]
    TooManyFailures {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// A git client that speaks the dumb protocol, or no git client.
    #[error("git's dumb HTTP protocol is not spoken here")]
    DumbGit,
    /// A body of another type.
    #[error("the body is not `{expected}`")]
    UnsupportedMediaType {
        /// What it should be.
        expected: &'static str,
    },
    /// A compression other than gzip.
    #[error("the body's encoding is not known")]
    UnsupportedEncoding,
    /// A body above the limit.
    #[error("the body is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
}

impl Refusal {
    fn parts(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoRoute { .. } => (
                StatusCode::NOT_FOUND,
                "no_such_path",
                "Agents POST to /mcp or /mcp/PROJECT; git uses /git/PROJECT.git; /healthz and /readyz tell how the host is.",
            ),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Use one of the methods named."),
            Self::ForeignOrigin { .. } => (
                StatusCode::FORBIDDEN,
                "foreign_origin",
                "Open the page from this machine, or list its origin in the host's configuration.",
            ),
            Self::ForeignHost { .. } => {
                (StatusCode::FORBIDDEN, "foreign_host", "Use localhost or 127.0.0.1, or list the name in the host's configuration.")
            }
            Self::TokenInQuery => (
                StatusCode::BAD_REQUEST,
                "token_in_query",
                "URLs are logged: send `Authorization: Bearer TOKEN`, and take a new token for this one.",
            ),
            Self::TooManyFailures { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_failures",
                "Wait as long as `Retry-After` says, and mend the client's token first: `pointsman connect CLIENT` prints a working entry.",
            ),
            Self::DumbGit => (StatusCode::FORBIDDEN, "dumb_git", "Use git 1.6.6 or newer, with the URL the host gave you."),
            Self::UnsupportedMediaType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Use git itself."),
            Self::UnsupportedEncoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", "Send it plain or with gzip."),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Push fewer or smaller objects at once."),
        }
    }

    /// Returns the refusal as an answer.
    pub(super) fn response(&self) -> Response<ReplyBody> {
        let (status, code, advice) = self.parts();
        let mut response = json(status, &serde_json::json!({"code": code, "why": self.to_string(), "do": advice}));
        if let Self::MethodNotAllowed { allow } = self {
            response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Self::TooManyFailures { retry_after_ms } = self {
            add_field(&mut response, "retry-after", retry_after_ms.div_ceil(1_000).max(1).to_string());
        }
        response
    }
}

/// Returns a JSON answer.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Response<ReplyBody> {
    with_type(status, "application/json", Bytes::from(format!("{value}\n")))
}

/// Returns an answer of the given type.
pub(super) fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Adds a field whose value we made ourselves; one that HTTP cannot carry is left out and logged.
pub(super) fn add_field(response: &mut Response<ReplyBody>, name: &'static str, value: String) {
    match HeaderValue::from_maybe_shared(Bytes::from(value)) {
        Ok(value) => {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
        Err(error) => tracing::error!(name, %error, "a header field cannot be sent"),
    }
}
