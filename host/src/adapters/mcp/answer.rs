//! Results, written straight into the bytes that are sent. What never changes is serialised once.

use serde_json::value::RawValue;

use super::{DISCOVER_TTL_MS, LEGACY_VERSIONS, MODERN_VERSION, TOOLS_TTL_MS};
use crate::ports::surface::ToolAnswer;

/// The parts of results that never change, as JSON text.
pub(super) struct Texts {
    /// The result of `server/discover`.
    pub(super) discover: String,
    /// What ends each modern result: type and server.
    complete: String,
    /// What ends a modern tool list: cache hints, type, server.
    complete_tools: String,
    /// What follows the revision in the result of `initialize`.
    initialize: String,
}

impl Texts {
    /// Returns the texts of this server.
    pub(super) fn new(name: &str, version: &str, instructions: &str) -> Self {
        let server = serde_json::json!({"name": name, "title": "Pointsman", "version": version});
        let meta = serde_json::json!({"io.modelcontextprotocol/serverInfo": server});
        let supported: Vec<_> = std::iter::once(MODERN_VERSION).chain(LEGACY_VERSIONS).collect();
        let discover = serde_json::json!({
            "resultType": "complete",
            "supportedVersions": supported,
            "capabilities": {"tools": {}},
            "instructions": instructions,
            "ttlMs": DISCOVER_TTL_MS,
            "cacheScope": "public",
            "_meta": meta,
        });
        let instructions = serde_json::Value::from(instructions);
        Self {
            discover: discover.to_string(),
            complete: format!(r#","resultType":"complete","_meta":{meta}}}"#),
            complete_tools: format!(r#","ttlMs":{TOOLS_TTL_MS},"cacheScope":"private","resultType":"complete","_meta":{meta}}}"#),
            initialize: format!(r#","capabilities":{{"tools":{{}}}},"serverInfo":{server},"instructions":{instructions}}}"#),
        }
    }
}

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

/// Returns the response to `tools/list` around the array of tools.
pub(super) fn tools(id: &RawValue, texts: &Texts, tools: &str, dress: Dress) -> Vec<u8> {
    let mut out = begin(id, tools.len() + texts.complete_tools.len());
    out.extend_from_slice(b"{\"tools\":");
    out.extend_from_slice(tools.as_bytes());
    match dress {
        Dress::Modern => out.extend_from_slice(texts.complete_tools.as_bytes()),
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
