//! Every way an MCP request is refused, and what it looks like on the wire: the only place that knows JSON-RPC codes and
//! HTTP statuses.
//!
//! Codes and statuses follow the specification of 2026-07-28 (basic, streamable HTTP); the legacy revisions answer errors of
//! a well-formed request with 200, because their clients take any other status for a broken transport.
//!
//! **Invariant:** exhaustive, no `_` arm: a new refusal does not compile before it has a code, a status and advice.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{LEGACY_VERSIONS, MODERN_VERSION};
use crate::ports::endpoint::{BodyError, Reply};
use crate::ports::surface::{CallError, Rejected};

/// Which family of revisions a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2026-07-28: stateless, version and capabilities in each request.
    Modern,
    /// 2025-11-25 and before: sessions opened by `initialize`.
    Legacy,
}

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// PUT and the like, or GET outside a session.
    #[error("this endpoint takes POST; in sessions also GET for a stream and DELETE to end them")]
    MethodNotAllowed,
    /// The client takes no JSON.
    #[error("the `Accept` header excludes `application/json`")]
    NotAcceptable,
    /// The body is not announced as JSON.
    #[error("the `Content-Type` header is not `application/json`")]
    UnsupportedMediaType,
    /// The body did not come.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The header that should carry the credential does not.
    #[error("{why}")]
    CredentialUnreadable {
        /// What is wrong with it; never the credential itself.
        why: String,
    },
    /// The credential was refused.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Not JSON.
    #[error("the body is not valid JSON: {why}")]
    NotJson {
        /// The parser's words.
        why: String,
    },
    /// JSON, but no JSON-RPC message.
    #[error("not a JSON-RPC 2.0 message: {why}")]
    NotAMessage {
        /// What is wrong.
        why: Cow<'static, str>,
    },
    /// A batch where the revision has none.
    #[error("batches exist only in sessions of revision 2025-03-26")]
    BatchNotAllowed,
    /// A method we do not have.
    #[error("unknown method `{method}`")]
    UnknownMethod {
        /// Its name, cut.
        method: String,
    },
    /// A required header is missing.
    #[error("Header mismatch: the required header {name} is missing")]
    HeaderMissing {
        /// Which.
        name: &'static str,
    },
    /// A header says another thing than the body.
    #[error("Header mismatch: {name} header value '{header}' does not match body value '{body}'")]
    HeaderMismatch {
        /// Which.
        name: &'static str,
        /// What it says, cut.
        header: String,
        /// What the body says, cut.
        body: String,
    },
    /// A header that cannot be read.
    #[error("Header mismatch: {name} header {why}")]
    HeaderMalformed {
        /// Which.
        name: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// A required `_meta` field is missing or has the wrong type.
    #[error("Invalid params: `_meta` needs `{key}` ({expected})")]
    MetaInvalid {
        /// Which.
        key: &'static str,
        /// Its type.
        expected: &'static str,
    },
    /// A revision we do not speak (in this way).
    #[error("Unsupported protocol version")]
    UnsupportedVersion {
        /// What the client wants, cut.
        requested: String,
        /// The era it wanted it in.
        era: Era,
    },
    /// Parameters of the wrong shape.
    #[error("Invalid params: {why}")]
    InvalidParams {
        /// What is wrong.
        why: Cow<'static, str>,
    },
    /// A cursor that we did not give out.
    #[error("Invalid params: unknown cursor")]
    UnknownCursor,
    /// A tool this credential does not have.
    #[error("Unknown tool: {name}")]
    UnknownTool {
        /// Its name, cut.
        name: String,
    },
    /// A resource this credential does not have.
    #[error("Resource not found: {uri}")]
    UnknownResource {
        /// Its URI, cut.
        uri: String,
    },
    /// A prompt that is not there.
    #[error("Unknown prompt: {name}")]
    UnknownPrompt {
        /// Its name, cut.
        name: String,
    },
    /// A deferred call that is not there, or another principal's.
    #[error("Invalid params: unknown task {id}")]
    UnknownTask {
        /// Its id, cut.
        id: String,
    },
    /// What the call needs of the client.
    #[error("Missing required client capability")]
    CapabilityMissing {
        /// `requiredCapabilities`, a JSON object.
        required: String,
    },
    /// What a client brought back was not given to it for this request, or is too old.
    #[error("Invalid params: `requestState` is not of this request, or too old")]
    StateRefused,
    /// A header that should mirror an argument does not.
    #[error("Header mismatch: {name} {why}")]
    ParamHeader {
        /// Which.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Something that is only answered as a stream.
    #[error("this method answers with a stream, and the `Accept` header excludes `text/event-stream`")]
    EventsNotAccepted,
    /// As much as one client may have is going on.
    #[error("{why}")]
    TooMany {
        /// What, and how much of it.
        why: Cow<'static, str>,
    },
    /// A call that its component did not end in time.
    #[error("the call went on for longer than the host holds one open")]
    HeldTooLong,
    /// The client cancelled the request.
    #[error("the request was cancelled")]
    Cancelled,
    /// A stream that cannot be gone on with.
    #[error("the stream of `Last-Event-ID` is not kept any more")]
    StreamGone,
    /// The answer of a request that a client came back for.
    #[error("the answer to this request is no longer kept; it may have been carried out")]
    AnswerLost,
    /// A legacy request outside a session.
    #[error("no `Mcp-Session-Id` header")]
    SessionMissing,
    /// A session that ended, was forged, or belongs to another credential.
    #[error("the session has ended or is not this credential's")]
    SessionDead,
    /// A bug or a lost dependency.
    #[error("internal error; the host's log has the details under {trace}")]
    Internal {
        /// Which log lines.
        trace: String,
    },
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        match error {
            CallError::UnknownTool(name) => Self::UnknownTool { name: cut(&name) },
            CallError::UnknownResource(uri) => Self::UnknownResource { uri: cut(&uri) },
            CallError::UnknownPrompt(name) => Self::UnknownPrompt { name: cut(&name) },
            CallError::UnknownTask(id) => Self::UnknownTask { id: cut(&id) },
            CallError::InvalidParams(why) => Self::InvalidParams { why: why.into() },
            CallError::TooMany(why) => Self::TooMany { why: why.into() },
            CallError::Internal { trace } => Self::Internal { trace },
        }
    }
}

/// Returns at most the first 120 characters, for echoing what a client sent.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const INTERNAL_ERROR: i32 = -32603;
const HEADER_MISMATCH: i32 = -32020;
const CAPABILITY_MISSING: i32 = -32021;
/// Only in the legacy revisions.
const RESOURCE_NOT_FOUND: i32 = -32002;
const UNSUPPORTED_PROTOCOL_VERSION: i32 = -32022;

/// How a fault looks from outside.
struct Shape {
    /// JSON-RPC code.
    rpc: i32,
    /// HTTP status.
    http: u16,
    /// Stable name.
    name: &'static str,
    /// What to do, for whoever configured or wrote the client.
    advice: Cow<'static, str>,
}

impl Shape {
    fn new(rpc: i32, http: u16, name: &'static str, advice: impl Into<Cow<'static, str>>) -> Self {
        Self { rpc, http, name, advice: advice.into() }
    }
}

const TOKEN_ADVICE: &str = "Send `Authorization: Bearer TOKEN`. The usual mistakes are in the client's configuration: an environment \
    variable written as `${VAR}` that is not set where the client runs (it then sends nothing or the literal text), `Bearer ` missing \
    before the token, or a token of another host. `pointsman connect CLIENT` prints a working entry.";

/// What to look at besides when nothing arrived at all.
const HEADERS_ADVICE: &str = "If the entry has `headers`, the client ignored them: it reads them only in an entry of type `http` (not `sse` \
    or `stdio`), some read `requestInit.headers` or `http_headers` instead, and some forget them once they tried to sign in by OAuth (remove \
    that sign-in).";

/// Returns a text as a quoted value of a challenge can hold it (RFC 6750, section 3).
fn described(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') { c } else { '\'' }).take(200).collect()
}

const MIRROR_ADVICE: &str = "Mirror the body into MCP-Protocol-Version (`_meta`), Mcp-Method (`method`), Mcp-Name (`params.name`, `uri` or \
    `taskId`) and the Mcp-Param-… headers that the tool's schema names.";

fn method_advice() -> String {
    format!(
        "`server/discover` says what {MODERN_VERSION} has here. Sessions opened by a bare `initialize` (without `_meta`) speak {}.",
        LEGACY_VERSIONS.join(", ")
    )
}

fn session_advice() -> String {
    format!(
        "Open a session with `initialize` and send its `Mcp-Session-Id`, or speak {MODERN_VERSION}: its fields in `params._meta` and its \
         headers."
    )
}

fn body_shape(error: BodyError) -> Shape {
    let (status, name, advice) = match error {
        BodyError::TooLarge { .. } => (413, "body_too_large", "Send less at once, for example fewer or smaller files."),
        BodyError::TimedOut { .. } => (408, "body_timed_out", "Send the request again."),
        BodyError::TooDeep { .. } => (400, "body_too_deep", "Send flatter JSON, or the inner part as a string."),
        BodyError::UnknownEncoding => (415, "unsupported_encoding", "Send it plain, or with `Content-Encoding: zstd` or `gzip`."),
        BodyError::Damaged => (400, "body_damaged", "Compress it as `Content-Encoding` says, or send it plain."),
        BodyError::Broken => (400, "body_broken", "Send the request again."),
    };
    Shape::new(INVALID_REQUEST, status, name, advice)
}

impl Fault {
    /// Returns its stable name.
    pub(super) fn name(&self, era: Era) -> &'static str {
        self.shape(era).name
    }

    /// Returns code, status, name and advice. One line a refusal.
    fn shape(&self, era: Era) -> Shape {
        // Legacy clients read a JSON-RPC error only from an answer with status 200.
        let in_band = |modern: u16| match era {
            Era::Modern => modern,
            Era::Legacy => 200,
        };
        match self {
            Self::MethodNotAllowed => Shape::new(INVALID_REQUEST, 405, "method_not_allowed", "POST one JSON-RPC message a request."),
            Self::NotAcceptable => {
                Shape::new(INVALID_REQUEST, 406, "not_acceptable", "Send `Accept: application/json, text/event-stream`.")
            }
            Self::UnsupportedMediaType => {
                Shape::new(INVALID_REQUEST, 415, "unsupported_media_type", "Send `Content-Type: application/json`, encoded in UTF-8.")
            }
            Self::Body(error) => body_shape(*error),
            Self::CredentialUnreadable { .. } => Shape::new(INVALID_REQUEST, 401, "unauthorized", TOKEN_ADVICE),
            Self::Rejected(Rejected::Missing) => {
                Shape::new(INVALID_REQUEST, 401, "unauthorized", format!("{TOKEN_ADVICE} {HEADERS_ADVICE}"))
            }
            Self::Rejected(Rejected::Invalid { .. }) => Shape::new(INVALID_REQUEST, 401, "unauthorized", TOKEN_ADVICE),
            Self::Rejected(Rejected::InsufficientScope { scopes }) => Shape::new(
                INVALID_REQUEST,
                403,
                "insufficient_scope",
                format!("Authorize the client again, for the scopes `{}`.", scopes.join(" ")),
            ),
            Self::Rejected(Rejected::TooMany { .. }) => Shape::new(
                INVALID_REQUEST,
                429,
                "too_many_requests",
                "Wait as long as `Retry-After` says; wait for events instead of asking.",
            ),
            Self::Rejected(Rejected::Forbidden { .. }) => {
                Shape::new(INVALID_REQUEST, 403, "forbidden", "Use `/mcp` for the token's own project, or ask for a token for this one.")
            }
            Self::Rejected(Rejected::Unavailable { .. }) => Shape::new(INTERNAL_ERROR, 503, "unavailable", "Try again a little later."),
            Self::NotJson { .. } => Shape::new(PARSE_ERROR, 400, "not_json", "Send one JSON object, encoded in UTF-8."),
            Self::NotAMessage { .. } => Shape::new(
                INVALID_REQUEST,
                400,
                "not_a_message",
                "Send an object with `jsonrpc: \"2.0\"`, a string or integer `id`, a string `method` and, if any, an object `params`.",
            ),
            Self::BatchNotAllowed => Shape::new(INVALID_REQUEST, 400, "batch_not_allowed", "Send each message in a request of its own."),
            Self::UnknownMethod { .. } => Shape::new(METHOD_NOT_FOUND, in_band(404), "unknown_method", method_advice()),
            Self::HeaderMissing { .. } | Self::HeaderMismatch { .. } | Self::HeaderMalformed { .. } | Self::ParamHeader { .. } => {
                Shape::new(HEADER_MISMATCH, 400, "header_mismatch", MIRROR_ADVICE)
            }
            Self::MetaInvalid { .. } => Shape::new(
                INVALID_PARAMS,
                400,
                "meta_invalid",
                "Put the required fields of 2026-07-28 into `params._meta` of each request.",
            ),
            Self::UnsupportedVersion { .. } => {
                Shape::new(UNSUPPORTED_PROTOCOL_VERSION, 400, "unsupported_version", "Use one of the supported versions.")
            }
            Self::InvalidParams { .. } => Shape::new(INVALID_PARAMS, in_band(400), "invalid_params", "Correct the parameters."),
            Self::UnknownCursor => Shape::new(INVALID_PARAMS, 200, "unknown_cursor", "Begin the list again without `cursor`: it changed."),
            Self::UnknownTool { .. } => {
                Shape::new(INVALID_PARAMS, 200, "unknown_tool", "Call tools/list for the tools this credential has.")
            }
            Self::UnknownResource { .. } => match era {
                Era::Modern => Shape::new(INVALID_PARAMS, 200, "unknown_resource", "Call resources/list, or resources/templates/list."),
                Era::Legacy => Shape::new(RESOURCE_NOT_FOUND, 200, "unknown_resource", "Call resources/list, or resources/templates/list."),
            },
            Self::UnknownPrompt { .. } => Shape::new(INVALID_PARAMS, 200, "unknown_prompt", "Call prompts/list for what there is."),
            Self::UnknownTask { .. } => Shape::new(
                INVALID_PARAMS,
                200,
                "unknown_task",
                "Check the id; if it was right, make the call again: a task is kept for a day from its making, and an hour longer when it \
                 had not ended by then.",
            ),
            Self::CapabilityMissing { .. } => match era {
                Era::Modern => Shape::new(CAPABILITY_MISSING, 400, "capability_missing", "Declare it in `_meta` if the client has it."),
                Era::Legacy => Shape::new(INVALID_PARAMS, 200, "capability_missing", "Declare it in `initialize` if the client has it."),
            },
            Self::StateRefused => Shape::new(INVALID_PARAMS, 200, "state_refused", "Make the call again from the beginning."),
            Self::EventsNotAccepted => {
                Shape::new(INVALID_REQUEST, 406, "events_not_accepted", "Send `Accept: application/json, text/event-stream`.")
            }
            Self::TooMany { .. } => {
                Shape::new(INVALID_REQUEST, in_band(429), "too_many", "Wait until one of them ends, or cancel one; then call again.")
            }
            Self::HeldTooLong => {
                Shape::new(INTERNAL_ERROR, 200, "held_too_long", "Look up what it did, then call again if it is still needed.")
            }
            Self::Cancelled => Shape::new(INVALID_REQUEST, 200, "cancelled", "Nothing: it was cancelled by the client itself."),
            Self::StreamGone => Shape::new(INVALID_REQUEST, 404, "stream_gone", "Open a new stream without `Last-Event-ID`."),
            Self::AnswerLost => Shape::new(INTERNAL_ERROR, 200, "answer_lost", "Look up what it did before you make the request again."),
            Self::SessionMissing => Shape::new(INVALID_REQUEST, 400, "session_missing", session_advice()),
            Self::SessionDead => Shape::new(INVALID_REQUEST, 404, "session_dead", "Open a new session with `initialize`."),
            Self::Internal { .. } => Shape::new(INTERNAL_ERROR, 200, "internal", "Report it with the id; other calls may work."),
        }
    }

    /// Returns the fault as a JSON-RPC error response.
    pub(super) fn body(&self, id: Option<&RawValue>, era: Era) -> Vec<u8> {
        self.write(id, &self.shape(era))
    }

    fn write(&self, id: Option<&RawValue>, shape: &Shape) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",");
        if let Some(id) = id {
            out.extend_from_slice(b"\"id\":");
            out.extend_from_slice(id.get().as_bytes());
            out.push(b',');
        }
        let data = match self {
            // The specification fixes this one's data.
            Self::UnsupportedVersion { requested, era: Era::Modern } => {
                serde_json::json!({"supported": [MODERN_VERSION], "requested": requested})
            }
            Self::UnsupportedVersion { requested, era: Era::Legacy } => {
                let supported: Vec<_> = std::iter::once(MODERN_VERSION).chain(LEGACY_VERSIONS).collect();
                serde_json::json!({"supported": supported, "requested": requested})
            }
            Self::CapabilityMissing { required } => {
                let required: serde_json::Value = serde_json::from_str(required).unwrap_or_default();
                serde_json::json!({"requiredCapabilities": required, "code": shape.name, "do": shape.advice})
            }
            Self::UnknownResource { uri } => serde_json::json!({"uri": uri, "code": shape.name, "do": shape.advice}),
            Self::UnknownPrompt { .. }
            | Self::UnknownTask { .. }
            | Self::StateRefused
            | Self::ParamHeader { .. }
            | Self::EventsNotAccepted
            | Self::TooMany { .. }
            | Self::HeldTooLong
            | Self::Cancelled
            | Self::StreamGone
            | Self::AnswerLost
            | Self::MethodNotAllowed
            | Self::NotAcceptable
            | Self::UnsupportedMediaType
            | Self::Body(_)
            | Self::CredentialUnreadable { .. }
            | Self::Rejected(_)
            | Self::NotJson { .. }
            | Self::NotAMessage { .. }
            | Self::BatchNotAllowed
            | Self::UnknownMethod { .. }
            | Self::HeaderMissing { .. }
            | Self::HeaderMismatch { .. }
            | Self::HeaderMalformed { .. }
            | Self::MetaInvalid { .. }
            | Self::InvalidParams { .. }
            | Self::UnknownCursor
            | Self::UnknownTool { .. }
            | Self::SessionMissing
            | Self::SessionDead
            | Self::Internal { .. } => serde_json::json!({"code": shape.name, "do": shape.advice}),
        };
        let error = serde_json::json!({"code": shape.rpc, "message": self.to_string(), "data": data});
        out.extend_from_slice(b"\"error\":");
        out.extend_from_slice(error.to_string().as_bytes());
        out.push(b'}');
        out
    }

    /// Returns the fault as an HTTP answer.
    pub(super) fn reply(&self, id: Option<&RawValue>, era: Era) -> Reply {
        let shape = self.shape(era);
        let fields = match self {
            Self::MethodNotAllowed => vec![("allow", "GET, POST, DELETE".to_owned())],
            Self::CredentialUnreadable { .. } | Self::Rejected(Rejected::Missing) => {
                vec![("www-authenticate", "Bearer realm=\"pointsman\"".to_owned())]
            }
            // RFC 6750, section 3.1.
            Self::Rejected(Rejected::Invalid { why }) => {
                let challenge = format!("Bearer realm=\"pointsman\", error=\"invalid_token\", error_description=\"{}\"", described(why));
                vec![("www-authenticate", challenge)]
            }
            Self::Rejected(Rejected::InsufficientScope { scopes }) => {
                let scope = described(&scopes.join(" "));
                vec![("www-authenticate", format!("Bearer realm=\"pointsman\", error=\"insufficient_scope\", scope=\"{scope}\""))]
            }
            Self::Rejected(Rejected::Unavailable { retry_after_ms } | Rejected::TooMany { retry_after_ms }) => {
                vec![("retry-after", retry_after_ms.div_ceil(1_000).max(1).to_string())]
            }
            Self::UnknownResource { .. }
            | Self::UnknownPrompt { .. }
            | Self::UnknownTask { .. }
            | Self::CapabilityMissing { .. }
            | Self::StateRefused
            | Self::ParamHeader { .. }
            | Self::EventsNotAccepted
            | Self::TooMany { .. }
            | Self::HeldTooLong
            | Self::Cancelled
            | Self::StreamGone
            | Self::AnswerLost
            | Self::Rejected(Rejected::Forbidden { .. })
            | Self::NotAcceptable
            | Self::UnsupportedMediaType
            | Self::Body(_)
            | Self::NotJson { .. }
            | Self::NotAMessage { .. }
            | Self::BatchNotAllowed
            | Self::UnknownMethod { .. }
            | Self::HeaderMissing { .. }
            | Self::HeaderMismatch { .. }
            | Self::HeaderMalformed { .. }
            | Self::MetaInvalid { .. }
            | Self::UnsupportedVersion { .. }
            | Self::InvalidParams { .. }
            | Self::UnknownCursor
            | Self::UnknownTool { .. }
            | Self::SessionMissing
            | Self::SessionDead
            | Self::Internal { .. } => Vec::new(),
        };
        Reply { fields, ..Reply::json(shape.http, self.write(id, &shape)) }
    }
}
