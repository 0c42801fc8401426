//! What can go wrong with a call, told apart by what the caller can do about it.

use serde_json::Value;

use crate::pool::RawAnswer;
use crate::sse;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The tool answered with an error that the agent can act on.
    #[error("{code}: {why} ({advice})")]
    Tool {
        /// Stable code.
        code: String,
        /// What happened.
        why: String,
        /// What to do.
        advice: String,
        /// The whole answer.
        result: Value,
    },
    /// The host refused the request.
    #[error("refused with {status}, {code}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// JSON-RPC code; 0 when the answer was none of JSON-RPC.
        code: i64,
        /// Its words.
        message: String,
        /// What it adds.
        data: Value,
    },
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection: the request did not act.
    #[error("the host cannot be reached: {why}")]
    Unreachable {
        /// The system's words.
        why: String,
    },
    /// The connection ended after the request was sent: it may have acted. Repeat it with its idempotency key, or look.
    #[error("the connection ended before the answer came: {why}")]
    Interrupted {
        /// The library's words.
        why: String,
    },
    /// The answer did not come in time: the request may have acted.
    #[error("no answer came within {limit_ms} ms")]
    TimedOut {
        /// The limit.
        limit_ms: u64,
    },
    /// The answer cannot be read.
    #[error("the answer cannot be read: {why}")]
    Malformed {
        /// What is wrong.
        why: String,
    },
    /// The request cannot be sent as it is.
    #[error("the request cannot be sent: {why}")]
    BadRequest {
        /// What is wrong.
        why: String,
    },
}

impl TransportError {
    pub(crate) fn malformed(why: String) -> Self {
        Self::Malformed { why }
    }
}

impl CallError {
    /// Returns the tool's stable code, none for the other errors.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Tool { code, .. } => Some(code),
            Self::Refused { .. } | Self::Transport(_) => None,
        }
    }

    pub(crate) fn tool(result: Value) -> Self {
        let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
        Self::Tool { code: text("code"), why: text("why"), advice: text("do"), result }
    }
}

/// Returns an answer that is no result as an error.
pub(crate) fn refused(answer: &RawAnswer) -> CallError {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let error = &body["error"];
    let message = [&error["message"], &body["why"]].into_iter().find_map(Value::as_str).map(str::to_owned);
    CallError::Refused {
        status: answer.status,
        code: error["code"].as_i64().unwrap_or(0),
        message: message.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).chars().take(500).collect()),
        data: error["data"].clone(),
    }
}

/// Returns the result that answers the request `id`.
pub(crate) fn result(answer: &RawAnswer, id: u64) -> Result<Value, CallError> {
    let streamed = answer.header("content-type").is_some_and(|media| media.starts_with("text/event-stream"));
    let mut message = if streamed {
        sse::response(&answer.body, id).ok_or_else(|| TransportError::malformed("the stream has no answer to the request".to_owned()))?
    } else {
        match serde_json::from_slice::<Value>(&answer.body) {
            Ok(message) => message,
            Err(_) if answer.status >= 300 => return Err(refused(answer)),
            Err(e) => return Err(TransportError::malformed(e.to_string()).into()),
        }
    };
    if message["error"].is_object() || answer.status >= 300 {
        return Err(refused(&RawAnswer { body: message.to_string().into(), ..answer.clone() }));
    }
    if message["id"] != id {
        return Err(TransportError::malformed(format!("the answer is to {}, not to {id}", message["id"])).into());
    }
    // Indexing for a change would panic on anything but an object.
    match message.get_mut("result").map(Value::take) {
        Some(result) if result.is_object() => Ok(result),
        Some(_) | None => Err(TransportError::malformed("the result is not an object".to_owned()).into()),
    }
}
