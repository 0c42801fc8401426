//! Results, written straight into the bytes that are sent. What never changes is serialised once.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::call::TASKS;
use super::errors::Fault;
use super::{DISCOVER_TTL_MS, LEGACY_VERSIONS, LISTS_TTL_MS, MODERN_VERSION, RESOURCE_TTL_MS};
use crate::ports::offering::ListKind;
use crate::ports::provider::ProviderCall;
use crate::ports::surface::ToolAnswer;

/// The parts of results that never change, as JSON text.
pub(super) struct Texts {
    /// The result of `server/discover`.
    pub(super) discover: String,
    /// What ends each modern result: type and server.
    complete: String,
    /// What ends a modern list: cache hints, type, server.
    complete_list: String,
    /// What follows the revision in the result of `initialize`.
    initialize: String,
    /// Who answers.
    server: Value,
}

impl Texts {
    /// Returns the texts of this server.
    pub(super) fn new(name: &str, version: &str, instructions: &str) -> Self {
        let server = json!({"name": name, "title": "Pointsman", "version": version});
        let meta = json!({SERVER_INFO: server});
        let supported: Vec<_> = std::iter::once(MODERN_VERSION).chain(LEGACY_VERSIONS).collect();
        let mut capabilities = json!({
            "tools": {"listChanged": true},
            "resources": {"listChanged": true, "subscribe": true},
            "prompts": {"listChanged": true},
            "completions": {},
            "logging": {},
        });
        let legacy = capabilities.clone();
        capabilities["extensions"] = json!({TASKS: {}});
        let discover = json!({
            "resultType": "complete",
            "supportedVersions": supported,
            "capabilities": capabilities,
            "instructions": instructions,
            "ttlMs": DISCOVER_TTL_MS,
            "cacheScope": "public",
            "_meta": meta,
        });
        let instructions = Value::from(instructions);
        Self {
            discover: discover.to_string(),
            complete: format!(r#","resultType":"complete","_meta":{meta}}}"#),
            complete_list: format!(r#","ttlMs":{LISTS_TTL_MS},"cacheScope":"private","resultType":"complete","_meta":{meta}}}"#),
            initialize: format!(r#","capabilities":{legacy},"serverInfo":{server},"instructions":{instructions}}}"#),
            server,
        }
    }
}

const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// How a tool's answer is dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dress {
    /// 2026-07-28.
    Modern,
    /// 2025-11-25 and 2025-06-18.
    Structured,
    /// 2025-03-26, which has text only.
    TextOnly,
}

/// Bytes of an answer besides its parts.
const FRAME_BYTES: usize = 320;

fn begin(id: &RawValue, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity + id.get().len() + FRAME_BYTES);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.get().as_bytes());
    out.extend_from_slice(b",\"result\":");
    out
}

/// Returns a response around a whole result.
pub(super) fn result(id: &RawValue, result: &str) -> Vec<u8> {
    let mut out = begin(id, result.len());
    out.extend_from_slice(result.as_bytes());
    out.push(b'}');
    out
}

/// Returns the response to `initialize`.
pub(super) fn initialized(id: &RawValue, texts: &Texts, revision: &str) -> Vec<u8> {
    let mut out = begin(id, texts.initialize.len());
    out.extend_from_slice(b"{\"protocolVersion\":\"");
    out.extend_from_slice(revision.as_bytes());
    out.push(b'"');
    out.extend_from_slice(texts.initialize.as_bytes());
    out.push(b'}');
    out
}

/// Returns the response to a list's method around a page of it.
pub(super) fn list(id: &RawValue, texts: &Texts, kind: ListKind, page: &str, next: Option<&str>, dress: Dress) -> Vec<u8> {
    let mut out = begin(id, page.len() + texts.complete_list.len());
    out.extend_from_slice(match kind {
        ListKind::Tools => b"{\"tools\":",
        ListKind::Resources => b"{\"resources\":",
        ListKind::Templates => b"{\"resourceTemplates\":",
        ListKind::Prompts => b"{\"prompts\":",
    });
    out.extend_from_slice(page.as_bytes());
    if let Some(next) = next {
        out.extend_from_slice(b",\"nextCursor\":");
        write_string(&mut out, next);
    }
    match dress {
        Dress::Modern => out.extend_from_slice(texts.complete_list.as_bytes()),
        Dress::Structured | Dress::TextOnly => out.push(b'}'),
    }
    out.push(b'}');
    out
}

/// Returns the response to `tools/call`.
pub(super) fn tool(id: &RawValue, texts: &Texts, answer: &ToolAnswer, dress: Dress) -> Vec<u8> {
    // The text is the JSON once more, its quotes escaped: a quarter more is seldom too little.
    let mut out = begin(id, answer.json.len() * 9 / 4 + texts.complete.len());
    out.extend_from_slice(b"{\"content\":[{\"type\":\"text\",\"text\":");
    write_string(&mut out, &answer.json);
    out.extend_from_slice(b"}]");
    match dress {
        Dress::Modern | Dress::Structured => {
            out.extend_from_slice(b",\"structuredContent\":");
            out.extend_from_slice(answer.json.as_bytes());
        }
        Dress::TextOnly => {}
    }
    out.extend_from_slice(if answer.is_error { b",\"isError\":true" } else { b",\"isError\":false" });
    match dress {
        Dress::Modern => out.extend_from_slice(texts.complete.as_bytes()),
        Dress::Structured | Dress::TextOnly => out.push(b'}'),
    }
    out.push(b'}');
    out
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}

/// Returns what a wait is answered when the host drains before anything came.
pub(super) fn drained() -> ToolAnswer {
    ToolAnswer {
        json: r#"{"code":"host_draining","why":"the host is shutting down or restarting; nothing that was answered is lost","do":"call the same tool again in a few seconds"}"#
            .to_owned(),
        is_error: true,
        handle: None,
    }
}

/// Returns a notification.
pub(super) fn notification(method: &str, params: Map<String, Value>) -> Vec<u8> {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string().into_bytes()
}

/// Returns an empty result.
pub(super) fn empty(id: &RawValue, texts: &Texts, dress: Dress) -> Vec<u8> {
    match dress {
        Dress::Modern => spliced(id, texts, "{}", "complete"),
        Dress::Structured | Dress::TextOnly => result(id, "{}"),
    }
}

/// Returns a modern response around an object's members: type and server are added, the object's own `_meta` is kept.
pub(super) fn spliced(id: &RawValue, texts: &Texts, object: &str, result_type: &str) -> Vec<u8> {
    let mut members: Map<String, Value> = serde_json::from_str(object).unwrap_or_default();
    members.insert("resultType".to_owned(), result_type.into());
    let meta = members.entry("_meta").or_insert_with(|| json!({}));
    if let Some(meta) = meta.as_object_mut() {
        meta.insert(SERVER_INFO.to_owned(), texts.server.clone());
    }
    result(id, &Value::Object(members).to_string())
}

/// Returns the response to a component's call that is done.
///
/// # Errors
/// `Internal` when what the component gave is no object; the adapter behind it has checked that.
pub(super) fn completed(id: &RawValue, texts: &Texts, call: &ProviderCall, object: &str, dress: Dress) -> Result<Vec<u8>, Fault> {
    if dress == Dress::Structured && !has_unstructured(object) {
        return Ok(result(id, object));
    }
    let not_an_object = || Fault::Internal { trace: "a component's result is no JSON object".to_owned() };
    let mut members: Map<String, Value> = serde_json::from_str(object).map_err(|_| not_an_object())?;
    match dress {
        Dress::TextOnly | Dress::Structured => {
            members.remove("structuredContent");
            Ok(result(id, &Value::Object(members).to_string()))
        }
        Dress::Modern => {
            if matches!(call, ProviderCall::Resource { .. }) {
                members.entry("ttlMs").or_insert_with(|| RESOURCE_TTL_MS.into());
                members.entry("cacheScope").or_insert_with(|| "private".into());
            }
            Ok(spliced(id, texts, &Value::Object(members).to_string(), "complete"))
        }
    }
}

/// Returns whether a result has structured content that is no object, which clients before 2026-07-28 take for a broken answer.
fn has_unstructured(object: &str) -> bool {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(rename = "structuredContent", borrow)]
        structured: Option<&'a RawValue>,
    }
    serde_json::from_str::<Content<'_>>(object).map_or(true, |content| content.structured.is_some_and(|raw| !raw.get().starts_with('{')))
}

/// Returns the response that asks the client back (multi round-trip requests).
pub(super) fn input_required(id: &RawValue, texts: &Texts, requests: &str, state: &str) -> Vec<u8> {
    let requests: Value = serde_json::from_str(requests).unwrap_or_default();
    let mut members = json!({"requestState": state});
    if requests.as_object().is_some_and(|requests| !requests.is_empty()) {
        members["inputRequests"] = requests;
    }
    spliced(id, texts, &members.to_string(), "input_required")
}
