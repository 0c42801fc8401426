//! The messages that pass through, as far as the bridge has to read them.
//!
//! Must not know the network. **Invariants:** a message is passed on as it was read, byte for byte; any bytes give a message or say why
//! they are none; nothing is written that a newline could cut in two.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// What a request or notification says in its parameters, as far as headers mirror it or the bridge acts on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Params {
    /// The revision of a request that stands alone; none in a session.
    pub(super) revision: Option<String>,
    /// `name`.
    pub(super) name: Option<String>,
    /// `uri`.
    pub(super) uri: Option<String>,
    /// `taskId`.
    pub(super) task: Option<String>,
    /// `requestId`, as it was written.
    pub(super) cancelled: Option<String>,
}

/// What kind a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// It wants an answer.
    Request {
        /// As it was written.
        id: String,
        /// What is asked.
        method: String,
    },
    /// It wants none.
    Notification {
        /// What happened.
        method: String,
    },
    /// The client's answer to the host.
    Response,
    /// Several messages, which the host takes apart.
    Batch {
        /// Of the requests among them, as they were written.
        ids: Vec<String>,
    },
}

/// A message of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// As it was read.
    pub(super) line: Bytes,
    /// What it is.
    pub(super) kind: Kind,
    /// What it says.
    pub(super) params: Params,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct RawParams<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, rename = "taskId")]
    task: Option<&'a RawValue>,
    #[serde(borrow, rename = "requestId")]
    cancelled: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct RawMeta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    revision: Option<&'a RawValue>,
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

impl Message {
    /// Reads a line.
    ///
    /// # Errors
    /// Why it is no message.
    pub(super) fn read(line: Bytes) -> Result<Self, String> {
        let json = std::str::from_utf8(&line).map_err(|_| "it is not UTF-8".to_owned())?;
        if json.trim_start().starts_with('[') {
            let members: Vec<&RawValue> = serde_json::from_str(json).map_err(|e| e.to_string())?;
            let mut ids = Vec::new();
            for member in members {
                if let Ok(Envelope { id: Some(id), method: Some(_), .. }) = serde_json::from_str(member.get()) {
                    ids.push(id.get().to_owned());
                }
            }
            return Ok(Self { line, kind: Kind::Batch { ids }, params: Params::default() });
        }
        let envelope: Envelope<'_> = serde_json::from_str(json).map_err(|e| e.to_string())?;
        // What does not fit is the host's to refuse: it says it best.
        let raw: RawParams<'_> = envelope.params.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let meta: RawMeta<'_> = raw.meta.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let params = Params {
            revision: text(meta.revision),
            name: text(raw.name),
            uri: text(raw.uri),
            task: text(raw.task),
            cancelled: raw.cancelled.map(|raw| raw.get().to_owned()),
        };
        let kind = match (envelope.id, envelope.method) {
            (Some(id), Some(method)) => Kind::Request { id: id.get().to_owned(), method: method.into_owned() },
            (None, Some(method)) => Kind::Notification { method: method.into_owned() },
            (_, None) => Kind::Response,
        };
        Ok(Self { line, kind, params })
    }

    /// Returns a member of `params`, read whole.
    pub(super) fn param(&self, name: &str) -> Value {
        let message: Value = serde_json::from_slice(&self.line).unwrap_or_default();
        message["params"][name].clone()
    }
}

/// A request that stands for itself while it is answered.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// As it was written.
    pub(super) id: String,
    /// What is asked.
    pub(super) method: String,
    /// The whole message.
    pub(super) message: Message,
}

impl Request {
    /// Returns the parameter that the `Mcp-Name` header mirrors (streamable HTTP, standard request headers; tasks extension).
    pub(super) fn mirrored_name(&self) -> Option<&str> {
        let params = &self.message.params;
        match self.method.as_str() {
            "tools/call" | "prompts/get" => params.name.as_deref(),
            "resources/read" => params.uri.as_deref(),
            "tasks/get" | "tasks/update" | "tasks/cancel" => params.task.as_deref(),
            _ => None,
        }
    }

    /// Returns whether asking twice is like asking once, whatever the tool.
    pub(super) fn only_reads(&self) -> bool {
        const READING: [&str; 15] = [
            "initialize",
            "ping",
            "server/discover",
            "tools/list",
            "resources/list",
            "resources/templates/list",
            "resources/read",
            "resources/subscribe",
            "resources/unsubscribe",
            "prompts/list",
            "prompts/get",
            "completion/complete",
            "logging/setLevel",
            "tasks/get",
            "tasks/cancel",
        ];
        READING.contains(&self.method.as_str())
    }
}

/// Returns whether a message of the host is the response to a request, which ends it.
pub(super) fn is_response(json: &str) -> bool {
    serde_json::from_str::<Envelope<'_>>(json).is_ok_and(|envelope| envelope.method.is_none() && envelope.id.is_some())
}

/// Returns a message as a line: in JSON a line end stands between tokens only, so a space is as good.
pub(super) fn line_of(json: impl Into<Vec<u8>>) -> Bytes {
    let mut line: Vec<u8> = json.into();
    while line.last().is_some_and(u8::is_ascii_whitespace) {
        line.pop();
    }
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    line.into()
}

/// A response of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    /// As it is passed on.
    pub(super) line: Bytes,
    /// The JSON-RPC code of a refusal.
    pub(super) refused: Option<i64>,
}

impl Response {
    /// Reads a response to the request with this id; none when it is none. Refusals from before the body was read have no id: they get it.
    pub(super) fn read(body: &[u8], id: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            #[serde(borrow)]
            result: Option<&'a RawValue>,
            #[serde(borrow)]
            error: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Refusal {
            code: i64,
        }
        let raw: Raw<'_> = serde_json::from_slice(body).ok()?;
        let refused = raw.error.and_then(|error| serde_json::from_str::<Refusal>(error.get()).ok()).map(|refusal| refusal.code);
        let line = match (raw.id, raw.result, raw.error) {
            (Some(_), Some(_), _) | (Some(_), None, Some(_)) => line_of(body),
            (None, None, Some(error)) if refused.is_some() => {
                line_of(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{}}}", error.get()))
            }
            (_, _, _) => return None,
        };
        Some(Self { line, refused })
    }

    /// Returns the whole message.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.line).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &'static str) -> Message {
        Message::read(Bytes::from_static(line.as_bytes())).expect("a message")
    }

    #[test]
    fn messages_are_told_apart() {
        let request = read(
            r#"{"jsonrpc":"2.0","id":"a\"b","method":"tools/call","params":{"name":"x","arguments":{"name":"y"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        );
        assert_eq!(request.kind, Kind::Request { id: r#""a\"b""#.to_owned(), method: "tools/call".to_owned() });
        assert_eq!((request.params.revision.as_deref(), request.params.name.as_deref()), (Some("2026-07-28"), Some("x")));
        assert_eq!(request.param("arguments"), serde_json::json!({"name": "y"}));
        let cancel = read(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#);
        assert_eq!(cancel.kind, Kind::Notification { method: "notifications/cancelled".to_owned() });
        assert_eq!(cancel.params.cancelled.as_deref(), Some("7"));
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":"host-1","result":{}}"#).kind, Kind::Response);
        assert_eq!(read(" [{}]").kind, Kind::Batch { ids: Vec::new() });
        let batch = r#"[{"id":1,"method":"ping"},{"method":"notifications/initialized"},{"id":"x","result":{}},7,{"id":"b","method":"a"}]"#;
        assert_eq!(read(batch).kind, Kind::Batch { ids: vec!["1".to_owned(), "\"b\"".to_owned()] });
        assert_eq!(read(r#"{"id":1,"method":"ping","params":[1]}"#).params, Params::default());
        for wrong in ["", "hello", "{", "7", "\"x\""] {
            assert!(Message::read(Bytes::from_static(wrong.as_bytes())).is_err(), "{wrong}");
        }
        assert!(Message::read(Bytes::from_static(b"{\"a\":\"\xff\"}")).is_err());
    }

    #[test]
    fn a_message_is_one_line_whatever_it_was() {
        assert_eq!(&line_of("{\r\n \"a\":1}\n\n")[..], b"{   \"a\":1}\n");
    }

    #[test]
    fn refusals_get_the_id_they_could_not_know() {
        let refused = Response::read(br#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"no"}}"#, "\"r\"").expect("a response");
        assert_eq!((&refused.json()["id"], refused.refused), (&serde_json::json!("r"), Some(-32600)));
        let result = br#"{"jsonrpc":"2.0", "id":5,"result":{"big":12345678901234567890123}}"#;
        let passed = Response::read(result, "9").expect("a response");
        assert_eq!((passed.line.strip_suffix(b"\n"), passed.refused), (Some(&result[..]), None), "byte for byte");
        for none in ["<html>", "{\"status\":\"ok\"}", "{\"id\":1}", "{\"error\":\"no\"}"] {
            assert_eq!(Response::read(none.as_bytes(), "1"), None, "{none}");
        }
    }

    #[test]
    fn responses_are_no_requests_of_the_host() {
        assert!(is_response(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
        assert!(!is_response(r#"{"jsonrpc":"2.0","id":1,"method":"elicitation/create"}"#));
        assert!(!is_response(r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#));
    }
}
