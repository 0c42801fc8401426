//! What can be unusual about a call, one thing at a time.

use serde_json::{Value, json};

use crate::calls::{Base, Version, Wire};

/// Which part of a request departs: two departures of one call are of different parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The HTTP method.
    Verb,
    /// `Accept`.
    Accept,
    /// `Content-Type`.
    Media,
    /// `Host`, `Origin`.
    Origin,
    /// `MCP-Protocol-Version`.
    Version,
    /// `Mcp-Method`, `Mcp-Name`.
    Mirror,
    /// `Mcp-Session-Id`.
    Session,
    /// `_meta`.
    Meta,
    /// The message.
    Message,
}

/// Where a departure makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// In all calls.
    Anywhere,
    /// In one call of each revision.
    Once,
    /// In requests.
    Requests,
    /// In requests of the stateless revision.
    ModernRequests,
    /// In one request of the stateless revision.
    Modern,
    /// In one request of a session.
    InSession,
    /// In the call of a tool.
    Call,
    /// In the stateless call of a tool.
    ModernCall,
    /// In `initialize`.
    Initialize,
}

/// Something unusual.
#[derive(Debug)]
pub(crate) struct Departure {
    /// In which part of the request.
    pub(crate) part: Part,
    place: Where,
    /// In words.
    pub(crate) name: &'static str,
    /// Makes it so.
    pub(crate) depart: fn(&mut Wire),
}

impl Departure {
    /// Returns whether it makes sense in a call.
    pub(crate) fn fits(&self, version: Version, base: Base) -> bool {
        let is_request = base != Base::Tell;
        match self.place {
            Where::Anywhere => true,
            Where::Once => base == Base::List,
            Where::Requests => is_request,
            Where::ModernRequests => version.is_modern() && is_request,
            Where::Modern => version.is_modern() && base == Base::List,
            Where::InSession => !version.is_modern() && base == Base::List,
            Where::Call => base == Base::Call,
            Where::ModernCall => version.is_modern() && base == Base::Call,
            Where::Initialize => !version.is_modern() && base == Base::Greet,
        }
    }
}

const fn new(part: Part, place: Where, name: &'static str, depart: fn(&mut Wire)) -> Departure {
    Departure { part, place, name, depart }
}

fn raw(wire: &mut Wire, body: &str) {
    wire.raw = Some(body.as_bytes().to_vec());
}

/// Sends the message as text with a piece put in place of another.
fn respelled(wire: &mut Wire, from: &str, to: &str) {
    raw(wire, &wire.message.to_string().replacen(from, to, 1));
}

fn without(wire: &mut Wire, name: &str) {
    wire.message.as_object_mut().expect("an object").remove(name);
}

fn param(wire: &mut Wire, name: &str, value: Value) {
    wire.message["params"][name] = value;
}

fn without_param(wire: &mut Wire, name: &str) {
    wire.message["params"].as_object_mut().expect("an object").remove(name);
}

/// Asks for another method, mirrored as it should be.
fn method(wire: &mut Wire, name: &str) {
    wire.message["method"] = name.into();
    if let Some(mirror) = wire.headers.iter_mut().find(|(known, _)| *known == "mcp-method") {
        mirror.1 = name.as_bytes().to_vec();
    }
}

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";

fn meta(wire: &mut Wire, name: &str, value: Value) {
    wire.message["params"]["_meta"][name] = value;
}

fn without_meta(wire: &mut Wire, name: &str) {
    wire.message["params"]["_meta"].as_object_mut().expect("an object").remove(name);
}

use Part::{Accept, Media, Message, Meta, Mirror, Origin, Session, Verb, Version as Revision};
use Where::{Anywhere, Call, InSession, Initialize, Modern, ModernCall, ModernRequests, Once, Requests};

/// All of them.
pub(crate) static DEPARTURES: &[Departure] = &[
    new(Verb, Once, "GET", |wire| wire.verb = "GET"),
    new(Verb, Once, "GET without a session", |wire| {
        wire.verb = "GET";
        wire.remove("mcp-session-id");
    }),
    new(Verb, Once, "GET of JSON only", |wire| {
        wire.verb = "GET";
        wire.set("accept", "application/json");
    }),
    new(Verb, Once, "DELETE", |wire| wire.verb = "DELETE"),
    new(Verb, Once, "DELETE without a session", |wire| {
        wire.verb = "DELETE";
        wire.remove("mcp-session-id");
    }),
    new(Verb, InSession, "DELETE of an unknown session", |wire| {
        wire.verb = "DELETE";
        wire.set("mcp-session-id", "unknown");
    }),
    new(Verb, Once, "PUT", |wire| wire.verb = "PUT"),
    new(Verb, Once, "OPTIONS", |wire| wire.verb = "OPTIONS"),
    new(Accept, Anywhere, "no Accept", |wire| wire.remove("accept")),
    new(Accept, Once, "Accept: */*", |wire| wire.set("accept", "*/*")),
    new(Accept, Once, "Accept: application/*, text/*", |wire| wire.set("accept", "application/*, text/*")),
    new(Accept, Once, "Accept of JSON only", |wire| wire.set("accept", "application/json")),
    new(Accept, Once, "Accept of events only", |wire| wire.set("accept", "text/event-stream")),
    new(Accept, Once, "Accept of text", |wire| wire.set("accept", "text/plain")),
    new(Accept, Once, "Accept in capitals", |wire| wire.set("accept", "APPLICATION/JSON,Text/Event-Stream")),
    new(Accept, Once, "Accept with weights", |wire| wire.set("accept", "application/json;q=0.9, text/event-stream;q=0.1")),
    new(Accept, Once, "Accept of JSON with weight 0", |wire| wire.set("accept", "application/json;q=0, text/event-stream")),
    new(Accept, Once, "Accept in two lines", |wire| {
        wire.set("accept", "application/json");
        wire.add("accept", "text/event-stream");
    }),
    new(Media, Anywhere, "no Content-Type", |wire| wire.remove("content-type")),
    new(Media, Once, "Content-Type of text", |wire| wire.set("content-type", "text/plain")),
    new(Media, Once, "Content-Type in capitals", |wire| wire.set("content-type", "Application/JSON")),
    new(Media, Once, "Content-Type with UTF-8", |wire| wire.set("content-type", "application/json; charset=utf-8")),
    new(Media, Once, "Content-Type with Latin-1", |wire| wire.set("content-type", "application/json; charset=latin1")),
    new(Media, Once, "Content-Type of another JSON", |wire| wire.set("content-type", "application/json-rpc")),
    new(Origin, Once, "a foreign Host", |wire| wire.set("host", "evil.example")),
    new(Origin, Once, "a foreign Origin", |wire| wire.set("origin", "http://evil.example")),
    new(Origin, Once, "Origin: null", |wire| wire.set("origin", "null")),
    new(Revision, Anywhere, "no version header", |wire| wire.remove("mcp-protocol-version")),
    new(Revision, Anywhere, "a later version header", |wire| wire.set("mcp-protocol-version", "2199-01-01")),
    new(Revision, Anywhere, "an early version header", |wire| wire.set("mcp-protocol-version", "1999-01-01")),
    new(Revision, Requests, "another version header", |wire| wire.set("mcp-protocol-version", "2025-06-18")),
    new(Revision, InSession, "the stateless version header", |wire| wire.set("mcp-protocol-version", "2026-07-28")),
    new(Revision, Once, "a version header that is none", |wire| wire.set("mcp-protocol-version", "latest")),
    new(Revision, Once, "a version header beyond ASCII", |wire| wire.set("mcp-protocol-version", "2025\u{e9}")),
    new(Mirror, Requests, "no Mcp-Method", |wire| wire.remove("mcp-method")),
    new(Mirror, Requests, "another Mcp-Method", |wire| wire.set("mcp-method", "prompts/list")),
    new(Mirror, Once, "Mcp-Method in capitals", |wire| wire.set("mcp-method", "TOOLS/LIST")),
    new(Mirror, Call, "no Mcp-Name", |wire| wire.remove("mcp-name")),
    new(Mirror, Call, "another Mcp-Name", |wire| wire.set("mcp-name", "other")),
    new(Mirror, ModernCall, "Mcp-Name in base64", |wire| wire.set("mcp-name", "=?base64?bG9va3Vw?=")),
    new(Mirror, ModernCall, "Mcp-Name in broken base64", |wire| wire.set("mcp-name", "=?base64?%%%?=")),
    new(Mirror, Modern, "Mcp-Name where there is no name", |wire| wire.set("mcp-name", "lookup")),
    new(Session, Anywhere, "no session", |wire| wire.remove("mcp-session-id")),
    new(Session, Anywhere, "an unknown session", |wire| wire.set("mcp-session-id", "11111111-2222-3333-4444-555555555555")),
    new(Session, Once, "an empty session", |wire| wire.set("mcp-session-id", "")),
    new(Meta, Modern, "no _meta", |wire| without_param(wire, "_meta")),
    new(Meta, Modern, "_meta is a string", |wire| param(wire, "_meta", "x".into())),
    new(Meta, Modern, "_meta is null", |wire| param(wire, "_meta", Value::Null)),
    new(Meta, ModernRequests, "no version in _meta", |wire| without_meta(wire, META_VERSION)),
    new(Meta, Modern, "a number as version in _meta", |wire| meta(wire, META_VERSION, 20_260_728.into())),
    new(Meta, Modern, "another version in _meta", |wire| meta(wire, META_VERSION, "2025-11-25".into())),
    new(Meta, Modern, "a later version in _meta and header", |wire| {
        meta(wire, META_VERSION, "2199-01-01".into());
        wire.set("mcp-protocol-version", "2199-01-01");
    }),
    new(Meta, Modern, "a session's version in _meta and header", |wire| {
        meta(wire, META_VERSION, "2025-11-25".into());
        wire.set("mcp-protocol-version", "2025-11-25");
    }),
    new(Meta, ModernRequests, "no capabilities in _meta", |wire| without_meta(wire, META_CAPABILITIES)),
    new(Meta, Modern, "capabilities are a string", |wire| meta(wire, META_CAPABILITIES, "x".into())),
    new(Meta, ModernRequests, "no client in _meta", |wire| without_meta(wire, META_CLIENT)),
    new(Meta, Modern, "the client is a string", |wire| meta(wire, META_CLIENT, "x".into())),
    new(Message, Anywhere, "an empty body", |wire| raw(wire, "")),
    new(Message, Once, "spaces only", |wire| raw(wire, " \n ")),
    new(Message, Once, "no JSON", |wire| raw(wire, "{\"jsonrpc\":")),
    new(Message, Once, "two messages", |wire| raw(wire, &format!("{0}{0}", wire.message))),
    new(Message, Once, "not UTF-8", |wire| wire.raw = Some(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}".to_vec())),
    new(Message, Once, "a string", |wire| raw(wire, "\"ping\"")),
    new(Message, Once, "null", |wire| raw(wire, "null")),
    new(Message, Once, "too deep", |wire| raw(wire, &format!("{}1{}", "[".repeat(500), "]".repeat(500)))),
    new(Message, Once, "spaces around", |wire| raw(wire, &format!(" \r\n\t{} ", wire.message))),
    new(Message, Once, "an unknown member", |wire| wire.message["x"] = 1.into()),
    new(Message, Once, "an empty batch", |wire| raw(wire, "[]")),
    new(Message, Anywhere, "a batch", |wire| raw(wire, &json!([wire.message]).to_string())),
    new(Message, Once, "id twice", |wire| respelled(wire, "\"id\":1", "\"id\":1,\"id\":1")),
    new(Message, Once, "method twice", |wire| {
        respelled(wire, "\"method\":\"tools/list\"", "\"method\":\"ping\",\"method\":\"tools/list\"")
    }),
    new(Message, Anywhere, "no jsonrpc", |wire| without(wire, "jsonrpc")),
    new(Message, Once, "jsonrpc 1.0", |wire| wire.message["jsonrpc"] = "1.0".into()),
    new(Message, Once, "jsonrpc is a number", |wire| wire.message["jsonrpc"] = 2.0.into()),
    new(Message, Requests, "no id", |wire| without(wire, "id")),
    new(Message, Requests, "null id", |wire| wire.message["id"] = Value::Null),
    new(Message, Once, "fractional id", |wire| wire.message["id"] = 1.5.into()),
    new(Message, Once, "id 1.0", |wire| wire.message["id"] = 1.0.into()),
    new(Message, Once, "string id", |wire| wire.message["id"] = "a \u{1f600} \" id".into()),
    new(Message, Once, "empty id", |wire| wire.message["id"] = "".into()),
    new(Message, Once, "negative id", |wire| wire.message["id"] = (-7).into()),
    new(Message, Once, "true as id", |wire| wire.message["id"] = true.into()),
    new(Message, Once, "an object as id", |wire| wire.message["id"] = json!({})),
    new(Message, Once, "an id of 53 bits", |wire| wire.message["id"] = 9_007_199_254_740_993_i64.into()),
    new(Message, Once, "an id of 64 bits", |wire| wire.message["id"] = u64::MAX.into()),
    new(Message, Once, "an id of 400 digits", |wire| respelled(wire, "\"id\":1", &format!("\"id\":{}", "9".repeat(400)))),
    new(Message, Requests, "no method", |wire| without(wire, "method")),
    new(Message, Once, "a number as method", |wire| wire.message["method"] = 1.into()),
    new(Message, Once, "an empty method", |wire| method(wire, "")),
    new(Message, Requests, "an unknown method", |wire| method(wire, "no/such")),
    new(Message, Once, "a method in capitals", |wire| method(wire, "Tools/List")),
    new(Message, Once, "an unknown notification", |wire| {
        method(wire, "notifications/none");
        without(wire, "id");
    }),
    new(Message, InSession, "no params", |wire| without(wire, "params")),
    new(Message, Requests, "params are null", |wire| wire.message["params"] = Value::Null),
    new(Message, Requests, "params are an array", |wire| wire.message["params"] = json!([1])),
    new(Message, Requests, "params are a string", |wire| wire.message["params"] = "x".into()),
    new(Message, Requests, "a result beside the method", |wire| wire.message["result"] = json!({})),
    new(Message, Once, "a response to nothing", |wire| wire.message = json!({"jsonrpc": "2.0", "id": "nobody-asked", "result": {}})),
    new(Message, Once, "an error to nothing", |wire| {
        wire.message = json!({"jsonrpc": "2.0", "id": "nobody-asked", "error": {"code": 1, "message": "x"}});
    }),
    new(Message, Once, "an error without an id", |wire| wire.message = json!({"jsonrpc": "2.0", "error": {"code": 1, "message": "x"}})),
    new(Message, Once, "result and error", |wire| {
        wire.message = json!({"jsonrpc": "2.0", "id": "x", "result": {}, "error": {"code": 1, "message": "x"}});
    }),
    new(Message, Once, "ping", |wire| method(wire, "ping")),
    new(Message, Modern, "initialize", |wire| {
        method(wire, "initialize");
        param(wire, "protocolVersion", "2025-11-25".into());
        param(wire, "capabilities", json!({}));
        param(wire, "clientInfo", json!({"name": "asker", "version": "1"}));
    }),
    new(Message, InSession, "server/discover", |wire| method(wire, "server/discover")),
    new(Message, InSession, "subscriptions/listen", |wire| {
        method(wire, "subscriptions/listen");
        param(wire, "notifications", json!({"toolsListChanged": true}));
    }),
    new(Message, Modern, "resources/subscribe", |wire| {
        method(wire, "resources/subscribe");
        param(wire, "uri", "x://y".into());
        wire.set("mcp-name", "x://y");
    }),
    new(Message, Modern, "logging/setLevel", |wire| {
        method(wire, "logging/setLevel");
        param(wire, "level", "info".into());
    }),
    new(Message, Once, "a cursor that is a number", |wire| param(wire, "cursor", 1.into())),
    new(Message, Once, "an unknown parameter", |wire| param(wire, "x", 1.into())),
    new(Message, Call, "an unknown tool", |wire| {
        param(wire, "name", "no_such_tool".into());
        wire.set("mcp-name", "no_such_tool");
    }),
    new(Message, Call, "no name", |wire| without_param(wire, "name")),
    new(Message, Call, "a number as name", |wire| param(wire, "name", 1.into())),
    new(Message, Call, "no arguments", |wire| without_param(wire, "arguments")),
    new(Message, Call, "arguments are null", |wire| param(wire, "arguments", Value::Null)),
    new(Message, Call, "arguments are an array", |wire| param(wire, "arguments", json!([]))),
    new(Message, Call, "an argument of another type", |wire| param(wire, "arguments", json!({"uri": 5}))),
    new(Message, Initialize, "no protocolVersion", |wire| without_param(wire, "protocolVersion")),
    new(Message, Initialize, "a number as protocolVersion", |wire| param(wire, "protocolVersion", 1.into())),
    new(Message, Initialize, "a later protocolVersion", |wire| param(wire, "protocolVersion", "2199-01-01".into())),
    new(Message, Initialize, "the stateless protocolVersion", |wire| param(wire, "protocolVersion", "2026-07-28".into())),
    new(Message, Initialize, "the first protocolVersion", |wire| param(wire, "protocolVersion", "2024-11-05".into())),
    new(Message, Initialize, "no capabilities", |wire| without_param(wire, "capabilities")),
    new(Message, Initialize, "no clientInfo", |wire| without_param(wire, "clientInfo")),
];
