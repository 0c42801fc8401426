//! The JSON-RPC envelope, read once with borrowed fields.
//!
//! Must not know methods or revisions. **Invariants:** any bytes give a message or a typed fault, never a panic; a repeated key
//! is refused, since two readers could take different ones; nothing is unescaped or copied that is only passed on.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::errors::Fault;

/// Bytes of a request id: it is echoed.
const ID_BYTES_MAX: usize = 256;
/// Bytes of a method's name.
const METHOD_BYTES_MAX: usize = 256;
/// Messages in a batch.
pub(super) const BATCH_MAX: usize = 50;

/// A key that is there, were it `null`: `Option` alone would take `null` for absent.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// What of `params` any method reads.
#[derive(Default, Deserialize)]
pub(super) struct Params<'a> {
    #[serde(borrow, default, deserialize_with = "present", rename = "_meta")]
    meta: Option<&'a RawValue>,
    /// The tool's name.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) name: Option<&'a RawValue>,
    /// The tool's arguments.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) arguments: Option<&'a RawValue>,
    /// A list's cursor.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) cursor: Option<&'a RawValue>,
    /// `initialize`: what the client speaks.
    #[serde(borrow, default, deserialize_with = "present", rename = "protocolVersion")]
    pub(super) protocol_version: Option<&'a RawValue>,
    /// `initialize`: what the client can do.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) capabilities: Option<&'a RawValue>,
    /// A resource.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) uri: Option<&'a RawValue>,
    /// The client's answers to what a call asked for.
    #[serde(borrow, default, deserialize_with = "present", rename = "inputResponses")]
    pub(super) input_responses: Option<&'a RawValue>,
    /// What a call gave the client to bring back.
    #[serde(borrow, default, deserialize_with = "present", rename = "requestState")]
    pub(super) request_state: Option<&'a RawValue>,
    /// `subscriptions/listen`: what to be told of.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) notifications: Option<&'a RawValue>,
    /// `tasks/…`: which.
    #[serde(borrow, default, deserialize_with = "present", rename = "taskId")]
    pub(super) task_id: Option<&'a RawValue>,
    /// `completion/complete`: what the argument belongs to.
    #[serde(borrow, default, deserialize_with = "present", rename = "ref")]
    pub(super) reference: Option<&'a RawValue>,
    /// `completion/complete`: name and what was typed.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) argument: Option<&'a RawValue>,
    /// `logging/setLevel`.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) level: Option<&'a RawValue>,
    /// `notifications/cancelled`: which request.
    #[serde(borrow, default, deserialize_with = "present", rename = "requestId")]
    pub(super) request_id: Option<&'a RawValue>,
}

/// What of `_meta` we read.
#[derive(Default, Deserialize)]
pub(super) struct Meta<'a> {
    /// The revision of this request.
    #[serde(borrow, default, deserialize_with = "present", rename = "io.modelcontextprotocol/protocolVersion")]
    pub(super) protocol_version: Option<&'a RawValue>,
    /// What the client can do.
    #[serde(borrow, default, deserialize_with = "present", rename = "io.modelcontextprotocol/clientCapabilities")]
    pub(super) client_capabilities: Option<&'a RawValue>,
    /// Log messages of this request the client wants, from this level on.
    #[serde(borrow, default, deserialize_with = "present", rename = "io.modelcontextprotocol/logLevel")]
    pub(super) log_level: Option<&'a RawValue>,
    /// Progress of this request is told under this token.
    #[serde(borrow, default, deserialize_with = "present", rename = "progressToken")]
    pub(super) progress_token: Option<&'a RawValue>,
    /// The trace that this request belongs to (W3C Trace Context).
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) traceparent: Option<&'a RawValue>,
}

/// A message.
pub(super) enum Message<'a> {
    /// It wants an answer.
    Request {
        /// Echoed as it came.
        id: &'a RawValue,
        /// What is asked.
        method: Cow<'a, str>,
        /// An object, if any; its text is checked by [`params`].
        params: Option<&'a RawValue>,
    },
    /// It wants none.
    Notification {
        /// What happened.
        method: Cow<'a, str>,
        /// Whose `_meta` may tell the era.
        params: Option<&'a RawValue>,
    },
    /// An answer to a request of ours, which only sessions have.
    Response {
        /// Which request.
        id: Option<&'a RawValue>,
        /// Its result, or none for an error.
        result: Option<&'a RawValue>,
        /// Its error.
        error: Option<&'a RawValue>,
    },
}

/// A fault with the id of the request it answers, where that could be read.
pub(super) struct Malformed<'a> {
    /// The request's id.
    pub(super) id: Option<&'a RawValue>,
    /// What is wrong.
    pub(super) fault: Fault,
}

fn not_a_message(why: impl Into<Cow<'static, str>>) -> Fault {
    Fault::NotAMessage { why: why.into() }
}

/// Returns the string a raw value is; borrowed unless it has escapes.
pub(super) fn string<'a>(raw: &'a RawValue) -> Option<Cow<'a, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'a>>(raw.get()).ok().map(|text| text.0)
}

/// Returns whether a raw value is an object.
pub(super) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Returns whether the body is a batch.
pub(super) fn is_batch(text: &str) -> bool {
    text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('[')
}

/// Returns the members of a batch, unread.
///
/// # Errors
/// `NotJson`, or `NotAMessage` for an empty or oversized one.
pub(super) fn batch(text: &str) -> Result<Vec<&RawValue>, Fault> {
    let members: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| Fault::NotJson { why: e.to_string() })?;
    if members.is_empty() || members.len() > BATCH_MAX {
        return Err(not_a_message(format!("a batch has 1 to {BATCH_MAX} messages")));
    }
    Ok(members)
}

/// Reads one message.
///
/// # Errors
/// `NotJson` or `NotAMessage`, with the id where there is one.
pub(super) fn message(text: &str) -> Result<Message<'_>, Malformed<'_>> {
    let bare = |fault| Malformed { id: None, fault };
    // A derived reader would take `["2.0", 1, …]` for the object with these fields.
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        return Err(bare(match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => not_a_message("the body is not an object"),
            Err(e) => Fault::NotJson { why: e.to_string() },
        }));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| {
        bare(match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => not_a_message(error.to_string()),
            Err(e) => Fault::NotJson { why: e.to_string() },
        })
    })?;
    let id = match envelope.id.map(check_id) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(fault)) => return Err(bare(fault)),
    };
    classify(&envelope, id).map_err(|fault| Malformed { id, fault })
}

/// Reads a request's id that stands alone; none: it cannot be one.
pub(super) fn request_id(text: &str) -> Option<Box<RawValue>> {
    let raw: Box<RawValue> = serde_json::from_str(text).ok()?;
    check_id(&raw).is_ok().then_some(raw)
}

fn check_id(id: &RawValue) -> Result<&RawValue, Fault> {
    let text = id.get();
    if text.len() > ID_BYTES_MAX {
        return Err(not_a_message(format!("`id` is longer than {ID_BYTES_MAX} bytes")));
    }
    let digits = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    // `1.0` is an integer of the schema (JSON Schema, validation, section 6.1.1).
    let integer = digits || text.parse::<f64>().is_ok_and(|number| number.fract() == 0.0);
    if integer || string(id).is_some() { Ok(id) } else { Err(not_a_message("`id` is neither a string nor an integer")) }
}

fn classify<'a>(envelope: &Envelope<'a>, id: Option<&'a RawValue>) -> Result<Message<'a>, Fault> {
    if envelope.jsonrpc.and_then(string).as_deref() != Some("2.0") {
        return Err(not_a_message("`jsonrpc` is not \"2.0\""));
    }
    // Of two that exclude each other, two readers could take different ones; some write `null` for none.
    let is_there = |member: Option<&RawValue>| member.is_some_and(|raw| raw.get() != "null");
    if [envelope.method, envelope.result, envelope.error].into_iter().filter(|member| is_there(*member)).count() > 1 {
        return Err(not_a_message("a message has one of `method`, `result` and `error`"));
    }
    let Some(method) = envelope.method else {
        return match (id, envelope.result.is_some() || envelope.error.is_some()) {
            (id, true) => Ok(Message::Response { id, result: envelope.result, error: envelope.error }),
            (Some(_) | None, false) => Err(not_a_message("`method` is missing")),
        };
    };
    let method = string(method).ok_or_else(|| not_a_message("`method` is not a string"))?;
    if method.len() > METHOD_BYTES_MAX {
        return Err(not_a_message(format!("`method` is longer than {METHOD_BYTES_MAX} bytes")));
    }
    if envelope.params.is_some_and(|params| !is_object(params)) {
        return Err(not_a_message("`params` is not an object"));
    }
    Ok(match id {
        Some(id) => Message::Request { id, method, params: envelope.params },
        None => Message::Notification { method, params: envelope.params },
    })
}

/// Reads the parameters.
///
/// # Errors
/// `InvalidParams` when a key is repeated.
pub(super) fn params(raw: Option<&RawValue>) -> Result<Params<'_>, Fault> {
    let Some(raw) = raw else { return Ok(Params::default()) };
    serde_json::from_str(raw.get()).map_err(|e| Fault::InvalidParams { why: e.to_string().into() })
}

impl<'a> Params<'a> {
    /// Reads `_meta`; an absent one has no fields.
    ///
    /// # Errors
    /// `InvalidParams` when it is not an object or a key is repeated.
    pub(super) fn meta(&self) -> Result<Meta<'a>, Fault> {
        let Some(raw) = self.meta else { return Ok(Meta::default()) };
        if !is_object(raw) {
            return Err(Fault::InvalidParams { why: "`_meta` is not an object".into() });
        }
        serde_json::from_str(raw.get()).map_err(|e| Fault::InvalidParams { why: e.to_string().into() })
    }
}
