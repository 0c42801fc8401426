//! Why a request has no answer of the host's own, in words that say how to mend it.
//!
//! **Invariants:** each complaint is one JSON-RPC error, in the form of the host's own (`data.code`, `data.do`); none holds a token.

use bytes::Bytes;
use serde_json::{Value, json};

use super::message::line_of;
use crate::config::TOKEN_VARIABLE;

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const INTERNAL_ERROR: i32 = -32603;

/// Why a request has no answer of the host's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Complaint {
    /// No connection.
    #[error("the host at {url} cannot be reached: {why}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// The system's words.
        why: String,
    },
    /// The host has no room now.
    #[error("the host at {url} is not ready: {why}")]
    Busy {
        /// Where it is.
        url: String,
        /// Its words.
        why: String,
    },
    /// The connection ended after the request was sent.
    #[error("the connection to the host ended before the answer came, so the request may have acted: {why}")]
    Interrupted {
        /// The library's words.
        why: String,
    },
    /// The host wants a token and there is none.
    #[error("no token: {TOKEN_VARIABLE} is not set where this client starts `pointsman mcp`")]
    TokenMissing,
    /// The token cannot be sent.
    #[error("the token cannot be used: {why}")]
    TokenUnusable {
        /// What is wrong.
        why: &'static str,
    },
    /// The host knows no such token.
    #[error("the host refused the token: {why}")]
    TokenRefused {
        /// Its words.
        why: String,
    },
    /// The host does not serve the client so.
    #[error("the host refused: {why}")]
    Refused {
        /// Its words.
        why: String,
    },
    /// Too many at once.
    #[error("{max} requests are under way already")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// A line that is no message.
    #[error("a line that is no JSON-RPC message: {why}")]
    NotAMessage {
        /// What is wrong.
        why: String,
    },
    /// A line beyond the bound.
    #[error("a line of more than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: usize,
    },
    /// The request cannot be put into HTTP.
    #[error("the request cannot be sent: {why}")]
    Unsendable {
        /// What is wrong.
        why: String,
    },
    /// An answer that is none of MCP.
    #[error("what answers at {url} is no MCP endpoint: HTTP {status}, {text}")]
    NotMcp {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
        /// The beginning of what it said.
        text: String,
    },
}

impl Complaint {
    fn shape(&self) -> (i32, &'static str, String) {
        match self {
            Self::Unreachable { .. } => (
                INTERNAL_ERROR,
                "host_unreachable",
                "Start the host with `pointsman up`, or say where it is: `pointsman mcp --url http://HOST:PORT`. The next request tries again."
                    .to_owned(),
            ),
            Self::Busy { .. } => (INTERNAL_ERROR, "host_busy", "Try again a little later; `pointsman status` says what it waits for.".to_owned()),
            Self::Interrupted { .. } => (
                INTERNAL_ERROR,
                "interrupted",
                "Look whether it acted before you repeat it. A call with an `idempotency_key` is repeated without asking.".to_owned(),
            ),
            Self::TokenMissing | Self::TokenUnusable { .. } => (
                INVALID_REQUEST,
                "unauthorized",
                format!(
                    "Set {TOKEN_VARIABLE} in the environment of this client's entry for pointsman, or give `--token`; \
                     `pointsman agent add NAME` makes a token. Then restart the server in the client."
                ),
            ),
            Self::TokenRefused { .. } => (
                INVALID_REQUEST,
                "unauthorized",
                format!(
                    "{TOKEN_VARIABLE} holds a token of another host, or one that expired or was revoked: `pointsman agent list --all` says \
                     which, `pointsman agent add NAME` makes one. Then restart the server in the client."
                ),
            ),
            Self::Refused { .. } => {
                (INVALID_REQUEST, "refused", "Correct the client's entry: `pointsman connect CLIENT` prints a working one.".to_owned())
            }
            Self::TooMany { .. } => (INTERNAL_ERROR, "too_many_requests", "Wait for an answer before the next request.".to_owned()),
            Self::NotAMessage { .. } => (PARSE_ERROR, "not_a_message", "Write one JSON-RPC message a line, encoded in UTF-8.".to_owned()),
            Self::TooLong { .. } => {
                (INVALID_REQUEST, "line_too_long", "Send less at once, for example fewer or smaller files.".to_owned())
            }
            Self::Unsendable { .. } => (INVALID_REQUEST, "unsendable", "Correct the request.".to_owned()),
            Self::NotMcp { .. } => {
                (INTERNAL_ERROR, "not_mcp", "Give the host's own address: `pointsman status` prints it.".to_owned())
            }
        }
    }

    /// Returns it as the answer to a request; none: to a line whose id could not be read.
    pub(super) fn line(&self, id: Option<&str>) -> Bytes {
        let (code, name, advice) = self.shape();
        let mut message =
            json!({"jsonrpc": "2.0", "error": {"code": code, "message": self.to_string(), "data": {"code": name, "do": advice}}});
        if let Some(id) = id.and_then(|id| serde_json::from_str::<Value>(id).ok()) {
            message["id"] = id;
        }
        line_of(message.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_an_error_that_says_how_to_mend_it() {
        let line = Complaint::TokenMissing.line(Some("\"7\""));
        let answer: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("7"), &json!(INVALID_REQUEST)));
        let advice = answer["error"]["data"]["do"].as_str().expect("advice");
        assert!(advice.contains("POINTSMAN_TOKEN") && advice.contains("agent add"), "{advice}");
        let nameless: Value = serde_json::from_slice(&Complaint::TooLong { bytes_max: 9 }.line(None)).expect("JSON");
        assert!(nameless.get("id").is_none());
    }
}
