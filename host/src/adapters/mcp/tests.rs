//! The protocol over exchanges in memory: whatever comes is answered, and answered in a known form.

mod subscriptions;

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;

use parking_lot::Mutex;
use pointsman_core::agent::TokenRecord;
use pointsman_core::event::Provenance;
use pointsman_core::ids::{PrincipalId, ProjectId, TokenId};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::*;

use crate::ports::endpoint::{Body, BodyError, BodySource};
use crate::ports::offering::{Listing, News, ParamHeader, Round};
use crate::ports::provider::{Emission, Emit, ProviderCall, ProviderOutcome};
use crate::ports::sessions::{NotesChange, SessionWord};
use crate::ports::surface::{CallError, Rejected};

struct Echo;

/// What all endpoints here hear of.
static NEWS: LazyLock<broadcast::Sender<News>> = LazyLock::new(|| broadcast::Sender::new(8));
/// A credential that is let in, and is good no longer when it is looked at again.
const ENDING: &[u8] = b"Bearer ended";

#[async_trait]
impl Surface for Echo {
    fn count(&self, _: &Caller) -> Result<(), Rejected> {
        Ok(())
    }

    async fn is_good(&self, credential: &TokenRecord) -> bool {
        credential.id != TokenId::from_bytes(["ended".len() as u8; 16])
    }

    async fn scopes_needed(&self, _: Option<&str>) -> Vec<String> {
        Vec::new()
    }

    async fn admit(&self, bearer: Option<&str>, _: Option<&str>, trace: String) -> Result<Caller, Rejected> {
        let id = match bearer {
            None => return Err(Rejected::Missing),
            Some("busy") => return Err(Rejected::Unavailable { retry_after_ms: 1_200 }),
            Some(token) => [token.len() as u8; 16],
        };
        let project = ProjectId::from_bytes([7; 16]);
        let token = Arc::new(TokenRecord {
            id: TokenId::from_bytes(id),
            principal: PrincipalId::from_bytes(id),
            principal_name: "ana".to_owned(),
            provenance: Provenance::Human,
            projects: vec![project],
            capabilities: Vec::new(),
            toolsets: Vec::new(),
            created_at: TimeMs(0),
            expires_at: None,
            revoked_at: None,
        });
        Ok(Caller { token, project, handle: None, trace })
    }

    fn instructions(&self) -> &'static str {
        "Say it, hear it."
    }

    async fn call(&self, caller: &Caller, tool: &str, arguments: &RawValue) -> Result<ToolAnswer, CallError> {
        match tool {
            "echo" => Ok(ToolAnswer {
                json: json!({"said": arguments, "as": caller.handle}).to_string(),
                is_error: false,
                handle: Some("h1".to_owned()),
            }),
            "bug" => Err(CallError::Internal { trace: caller.trace.clone() }),
            other => Err(CallError::UnknownTool(other.to_owned())),
        }
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Offers a tool that asks the client's name before it greets.
#[async_trait]
impl Offering for Echo {
    fn list(&self, _: &Caller, kind: ListKind) -> Arc<Listing> {
        let tools = [("echo", r#"{"name":"echo","inputSchema":{"type":"object"}}"#)];
        Arc::new(Listing::new(tools.into_iter().filter(|_| kind == ListKind::Tools)))
    }

    async fn news(&self, _: &Caller) -> Result<broadcast::Receiver<News>, CallError> {
        Ok(NEWS.subscribe())
    }

    fn provided(&self, _: &Caller, tool: &str) -> Option<Arc<[ParamHeader]>> {
        let tools = ["greet", "greet_by_url", "greet_by_call", "greet_at_length"];
        tools.contains(&tool).then(|| [ParamHeader { header: "mcp-param-tone".to_owned(), path: vec!["tone".to_owned()] }].into())
    }

    async fn round(&self, _: &Caller, call: &ProviderCall, round: Round, emit: Arc<dyn Emit>) -> Result<ProviderOutcome, CallError> {
        emit.emit(Emission::Progress { done: 1.0, total: 2.0, message: String::new() });
        let ProviderCall::Tool { name: tool, .. } = call else { return Err(CallError::UnknownResource("x".to_owned())) };
        let (method, mode) = match tool.as_str() {
            "greet_by_url" => ("elicitation/create", "url"),
            "greet_by_call" => ("tools/call", "form"),
            _ => ("elicitation/create", "form"),
        };
        let state = if tool == "greet_at_length" { vec![7; 1 << 20] } else { b"asked".to_vec() };
        let answers: Value = serde_json::from_str(&round.answers).expect("an object");
        match answers["name"]["content"]["name"].as_str() {
            Some(name) => Ok(ProviderOutcome::Complete(json!({"content": [], "hello": name}).to_string())),
            None => Ok(ProviderOutcome::InputRequired {
                requests: json!({"name": {"method": method, "params": {"mode": mode, "message": "who?"}}}).to_string(),
                state,
            }),
        }
    }
}

/// Notes of sessions, in memory.
#[derive(Default)]
struct Book(Mutex<HashMap<String, SessionNotes>>);

#[async_trait]
impl SessionBook for Book {
    async fn read(&self, _: ProjectId, session: &str) -> Result<SessionNotes, Rejected> {
        Ok(self.0.lock().get(session).cloned().unwrap_or_default())
    }

    async fn write(&self, _: ProjectId, session: &str, change: NotesChange<'_>) -> Result<Option<SessionNotes>, Rejected> {
        self.0.lock().insert(session.to_owned(), change.after.clone());
        Ok(None)
    }

    async fn pass_on(&self, _: ProjectId, _: &str, _: SessionWord) -> bool {
        false
    }
}

struct Plain;

impl System for Plain {
    fn random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the system has randomness");
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own clock")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

struct Sent<'a>(HashMap<&'static str, Vec<&'a [u8]>>);

impl Fields for Sent<'_> {
    fn field(&self, name: &str) -> Field<'_> {
        match self.0.get(name).map(Vec::as_slice) {
            None | Some([]) => Field::Absent,
            Some([value]) => Field::One(value),
            Some(_) => Field::Repeated,
        }
    }
}

struct Ready(Bytes);

#[async_trait]
impl BodySource for Ready {
    async fn read_all(&mut self) -> Result<Bytes, BodyError> {
        Ok(self.0.clone())
    }
}

fn endpoint() -> Mcp {
    endpoint_of(Arc::new(Echo))
}

/// Returns an endpoint with other offers.
fn endpoint_of(offering: Arc<dyn Offering>) -> Mcp {
    Mcp::new(
        Arc::new(Echo),
        offering,
        McpConfig {
            server_name: "pointsman",
            server_version: "0",
            sealing_key: SealingKey { id: 1, bytes: [1; 32] },
            older_keys: Vec::new(),
            state_key: [2; 32],
            book: Arc::new(Book::default()),
            tag: "".into(),
            system: Arc::new(Plain),
            now: Arc::new(|| TimeMs(1_790_000_000_000)),
            draining: CancellationToken::new(),
        },
    )
}

fn post(endpoint: &Mcp, body: &[u8], headers: &[(&'static str, &[u8])]) -> Reply {
    let mut fields: HashMap<&'static str, Vec<&[u8]>> = HashMap::from([
        ("content-type", vec![b"application/json".as_slice()]),
        ("accept", vec![b"application/json, text/event-stream".as_slice()]),
        ("authorization", vec![b"Bearer secret".as_slice()]),
    ]);
    for (name, value) in headers {
        fields.entry(name).or_default().push(value);
    }
    let mut body = Ready(Bytes::copy_from_slice(body));
    let exchange = Exchange { method: Method::Post, slug: None, fields: &Sent(fields), body: &mut body, trace: "req_1" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(endpoint.serve(exchange))
}

fn bytes_of(reply: &Reply) -> &[u8] {
    match &reply.body {
        Body::Whole(bytes) => bytes,
        Body::Events(_) => panic!("a stream"),
    }
}

fn body_of(reply: &Reply) -> Value {
    serde_json::from_slice(bytes_of(reply)).expect("an answer is JSON")
}

const MODERN: [(&str, &[u8]); 1] = [("mcp-protocol-version", b"2026-07-28")];

fn modern_call(name: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":"a\"b","method":"tools/call","params":{{"name":"{name}","arguments":{arguments},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

#[test]
fn a_modern_call_is_answered_whole() {
    let headers = [MODERN[0], ("mcp-method", b"tools/call"), ("mcp-name", b"echo")];
    let reply = post(&endpoint(), modern_call("echo", r#"{"x":"a \"quoted\" ü\n"}"#).as_bytes(), &headers);
    assert_eq!(reply.status, 200);
    insta::assert_snapshot!(String::from_utf8_lossy(bytes_of(&reply)), @r#"{"jsonrpc":"2.0","id":"a\"b","result":{"content":[{"type":"text","text":"{\"as\":null,\"said\":{\"x\":\"a \\\"quoted\\\" ü\\n\"}}"}],"structuredContent":{"as":null,"said":{"x":"a \"quoted\" ü\n"}},"isError":false,"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"pointsman","title":"Pointsman","version":"0"}}}}"#);
}

fn greet(endpoint: &Mcp, capabilities: &str, extra: &str, tone: &str) -> Value {
    ask("greet", endpoint, capabilities, extra, tone)
}

fn ask(tool: &str, endpoint: &Mcp, capabilities: &str, extra: &str, tone: &str) -> Value {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"tone":"warm"}}{extra},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{capabilities}}}}}}}"#
    );
    let headers = [MODERN[0], ("mcp-method", b"tools/call".as_slice()), ("mcp-name", tool.as_bytes()), ("mcp-param-tone", tone.as_bytes())];
    let reply = post(endpoint, body.as_bytes(), &headers);
    let mut answer = body_of(&reply);
    answer["status"] = reply.status.into();
    answer
}

#[test]
fn a_call_that_asks_back_goes_on_with_the_answer_and_with_nothing_else() {
    let endpoint = endpoint();
    let missing = greet(&endpoint, "{}", "", "warm");
    assert_eq!((&missing["status"], &missing["error"]["code"]), (&json!(400), &json!(-32021)));
    assert_eq!(missing["error"]["data"]["requiredCapabilities"], json!({"elicitation": {}}));
    let asked = greet(&endpoint, r#"{"elicitation":{}}"#, "", "=?base64?d2FybQ==?=");
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    assert_eq!(asked["result"]["inputRequests"]["name"]["method"], "elicitation/create");
    let state = asked["result"]["requestState"].as_str().expect("a state").to_owned();
    let answers = r#","inputResponses":{"name":{"action":"accept","content":{"name":"ana"}}}"#;
    let done = greet(&endpoint, "{}", &format!(r#"{answers},"requestState":"{state}""#), "warm");
    assert_eq!((&done["result"]["hello"], &done["result"]["resultType"]), (&json!("ana"), &json!("complete")));
    for forged in [format!("{state}A"), state.replace(&state[20..22], "zz"), String::new(), "A".repeat(60)] {
        let refused = greet(&endpoint, "{}", &format!(r#"{answers},"requestState":"{forged}""#), "warm");
        assert_eq!(refused["error"]["code"], -32602, "{forged}");
    }
    assert_eq!(greet(&endpoint, "{}", "", "cold")["error"]["code"], -32020, "the header says another thing than the body");
}

#[test]
fn a_client_may_answer_before_it_was_asked() {
    let early = r#","inputResponses":{"name":{"action":"accept","content":{"name":"ana"}}}"#;
    let asked = greet(&endpoint(), r#"{"elicitation":{}}"#, early, "warm");
    assert_eq!(asked["result"]["hello"], "ana", "{asked}");
}

#[test]
fn what_cannot_be_asked_or_brought_back_is_not_sent() {
    let endpoint = endpoint();
    let by_url = ask("greet_by_url", &endpoint, r#"{"elicitation":{}}"#, "", "warm");
    assert_eq!(by_url["error"]["data"]["requiredCapabilities"], json!({"elicitation": {"url": {}}}), "{by_url}");
    let by_url = ask("greet_by_url", &endpoint, r#"{"elicitation":{"url":{}}}"#, "", "warm");
    assert_eq!(by_url["result"]["resultType"], "input_required", "{by_url}");
    for tool in ["greet_by_call", "greet_at_length"] {
        let refused = ask(tool, &endpoint, r#"{"elicitation":{"form":{}}}"#, "", "warm");
        assert_eq!(refused["error"]["code"], -32603, "{tool}: {refused}");
    }
}

#[test]
fn sessions_get_structured_content_only_as_an_object() {
    let texts = answer::Texts::new("pointsman", "0", "");
    let id = RawValue::from_string("1".to_owned()).expect("JSON");
    let call = ProviderCall::Tool { name: "t".to_owned(), arguments: "{}".to_owned() };
    for (given, modern, session) in [("[1]", json!([1]), Value::Null), (r#"{"a":1}"#, json!({"a": 1}), json!({"a": 1}))] {
        let object = format!(r#"{{"content":[],"structuredContent":{given}}}"#);
        for (dress, expected) in [(Dress::Modern, &modern), (Dress::Structured, &session), (Dress::TextOnly, &Value::Null)] {
            let body = answer::completed(&id, &texts, &call, &object, dress).expect("an answer");
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!((&body["result"]["structuredContent"], &body["result"]["content"]), (expected, &json!([])), "{dress:?}");
        }
    }
}

#[test]
fn internal_errors_name_their_log_lines_and_nothing_else() {
    let headers = [MODERN[0], ("mcp-method", b"tools/call"), ("mcp-name", b"bug")];
    let error = body_of(&post(&endpoint(), modern_call("bug", "{}").as_bytes(), &headers))["error"].take();
    assert_eq!(error["code"], -32603);
    assert_eq!(error["message"], "internal error; the host's log has the details under req_1");
}

#[test]
fn credentials_are_told_apart() {
    let refused = |authorization: Option<&[u8]>| {
        let mut fields = HashMap::from([("content-type", vec![b"application/json".as_slice()])]);
        if let Some(value) = authorization {
            fields.insert("authorization", vec![value]);
        }
        let mut body = Ready(Bytes::new());
        let exchange = Exchange { method: Method::Post, slug: None, fields: &Sent(fields), body: &mut body, trace: "req_1" };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(endpoint().serve(exchange))
    };
    let none = refused(None);
    assert_eq!((none.status, &none.fields[0]), (401, &("www-authenticate", "Bearer realm=\"pointsman\"".to_owned())));
    let error = body_of(&none)["error"].take();
    assert!(error["data"]["do"].as_str().is_some_and(|advice| advice.contains("${VAR}") && advice.contains("`Bearer ` missing")));
    assert!(body_of(&refused(Some(b"Bearer ${TOKEN}")))["error"]["message"].as_str().is_some_and(|why| why.contains("did not replace")));
    let busy = refused(Some(b"Bearer busy"));
    assert_eq!((busy.status, &busy.fields[0]), (503, &("retry-after", "2".to_owned())));
}

#[test]
fn an_integer_may_be_written_with_a_fraction_of_zero_and_comes_back_as_it_was() {
    let headers = [MODERN[0], ("mcp-method", b"tools/list".as_slice())];
    let listed = |id: &str| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        );
        String::from_utf8_lossy(bytes_of(&post(&endpoint(), body.as_bytes(), &headers))).into_owned()
    };
    for id in ["1", "-7", "1.0", "1e2", "18446744073709551616"] {
        let answer = listed(id);
        assert!(answer.starts_with(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\"")), "{id}: {answer}");
    }
    for id in ["1.5", "1e-2", "1e400", "null", "true", "[1]"] {
        assert!(listed(id).contains("neither a string nor an integer"), "{id}");
    }
}

#[test]
fn a_message_is_of_one_kind() {
    let refused = |members: &str| body_of(&post(&endpoint(), format!(r#"{{"jsonrpc":"2.0",{members}}}"#).as_bytes(), &MODERN));
    for members in [
        r#""id":1,"method":"tools/list","result":{}"#,
        r#""id":1,"method":"tools/list","error":{"code":1,"message":"x"}"#,
        r#""id":1,"result":{},"error":{"code":1,"message":"x"}"#,
        r#""method":"notifications/progress","result":{}"#,
    ] {
        let message = refused(members)["error"]["message"].take();
        assert!(message.as_str().is_some_and(|why| why.contains("one of `method`, `result` and `error`")), "{members}: {message}");
    }
    let code = |members: &str| refused(members)["error"]["code"].take();
    assert_eq!(code(r#""id":1,"method":"tools/list","result":null,"error":null"#), -32020, "`null` is none; the header is missing");
    assert_eq!(code(r#""id":1,"method":"""#), -32020, "a method without letters is one we do not have, once its header is there");
}

#[test]
fn a_session_that_ended_is_not_opened_again_by_its_old_id() {
    let endpoint = endpoint();
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
    let opened = post(&endpoint, body, &[]);
    let session = opened.fields.iter().find(|(name, _)| *name == "mcp-session-id").map(|(_, id)| id.clone()).expect("a session");
    assert_eq!((opened.status, post(&endpoint, body, &[("mcp-session-id", session.as_bytes())]).status), (200, 200));
    for ended in ["", "forged"] {
        assert_eq!(post(&endpoint, body, &[("mcp-session-id", ended.as_bytes())]).status, 404, "{ended:?}");
    }
}

#[test]
fn a_notification_of_a_revision_we_do_not_speak_is_refused() {
    let status = |headers: &[(&'static str, &[u8])]| {
        let body =
            br#"{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        post(&endpoint(), body, headers).status
    };
    assert_eq!((status(&[]), status(&MODERN)), (202, 202));
    for version in ["2199-01-01", "1999-01-01", "latest"] {
        assert_eq!(status(&[("mcp-protocol-version", version.as_bytes())]), 400, "{version}");
    }
}

/// Whatever comes in is answered with one of these.
fn is_known(reply: &Reply) -> bool {
    match reply.status {
        202 => bytes_of(reply).is_empty(),
        200 | 400 | 404 | 415 => {
            let body = body_of(reply);
            body.is_array() || (body["jsonrpc"] == "2.0" && (body["result"].is_object() || body["error"]["code"].is_i64()))
        }
        _ => false,
    }
}

/// JSON that is nearly a message.
fn nearly_a_message() -> impl Strategy<Value = String> {
    let id = prop_oneof![Just("1"), Just("\"x\""), Just("null"), Just("1.5"), Just("\"\\ud800\""), Just("[]"), Just("-0"), Just("1e3")];
    let method = prop_oneof![
        Just("\"tools/call\""),
        Just("\"tools/list\""),
        Just("\"server/discover\""),
        Just("\"initialize\""),
        Just("\"ping\""),
        Just("\"\\u0070ing\""),
        Just("7"),
        Just("\"notifications/initialized\"")
    ];
    let params = prop_oneof![
        Just("{}"),
        Just("[]"),
        Just("null"),
        Just("{\"name\":\"echo\",\"name\":\"x\"}"),
        Just("{\"name\":7}"),
        Just("{\"_meta\":[]}"),
        Just("{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":3}}"),
        Just("{\"cursor\":\"x\"}"),
        Just("{\"protocolVersion\":\"2025-03-26\"}"),
        Just("{\"name\":\"echo\",\"arguments\":[[[[]]]]}")
    ];
    let version = prop_oneof![Just("\"2.0\""), Just("2.0"), Just("\"1.0\"")];
    (version, id, method, params, any::<[bool; 4]>(), prop_oneof![Just(""), Just("["), Just("}")]).prop_map(
        |(version, id, method, params, has, tail)| {
            let parts = [("jsonrpc", version), ("id", id), ("method", method), ("params", params)];
            let fields: Vec<_> =
                parts.iter().zip(has).filter(|(_, has)| *has).map(|((key, value), _)| format!("\"{key}\":{value}")).collect();
            format!(" {{{}}}{tail}", fields.join(","))
        },
    )
}

fn some_header() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let name = prop_oneof![Just("mcp-protocol-version"), Just("mcp-method"), Just("mcp-name"), Just("mcp-session-id")];
    let value = prop_oneof![
        Just(b"2026-07-28".to_vec()),
        Just(b"2025-11-25".to_vec()),
        Just(b"tools/call".to_vec()),
        Just(b"=?base64?ZWNobw==?=".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40)
    ];
    (name, value)
}

proptest! {
    #[test]
    fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..200), headers in proptest::collection::vec(some_header(), 0..4)) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let reply = post(&endpoint(), &body, &headers);
        prop_assert!(is_known(&reply), "{reply:?}");
    }

    #[test]
    fn any_near_message_is_answered(body in nearly_a_message(), headers in proptest::collection::vec(some_header(), 0..4)) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let reply = post(&endpoint(), body.as_bytes(), &headers);
        prop_assert!(is_known(&reply), "{body}: {reply:?}");
    }
}

#[test]
fn deep_nesting_is_passed_on_without_recursion() {
    let headers = [MODERN[0], ("mcp-method", b"tools/call"), ("mcp-name", b"bug")];
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let reply = post(&endpoint(), modern_call("bug", &deep).as_bytes(), &headers);
    assert_eq!(body_of(&reply)["error"]["code"], -32603, "the tool was reached");
}

/// Sends a request with a credential of its own.
async fn sent(endpoint: &Mcp, method: Method, body: &str, headers: &[(&'static str, &[u8])]) -> Reply {
    let mut fields: HashMap<&'static str, Vec<&[u8]>> = HashMap::from([
        ("content-type", vec![b"application/json".as_slice()]),
        ("accept", vec![b"application/json, text/event-stream".as_slice()]),
    ]);
    for (name, value) in headers {
        fields.entry(name).or_default().push(value);
    }
    let mut body = Ready(Bytes::copy_from_slice(body.as_bytes()));
    endpoint.serve(Exchange { method, slug: None, fields: &Sent(fields), body: &mut body, trace: "req_1" }).await
}

/// Returns what a stream says next; none: it ended.
async fn said(reply: &mut Reply) -> Option<String> {
    let Body::Events(source) = &mut reply.body else { panic!("no stream") };
    let next = tokio::time::timeout(Duration::from_secs(20), std::future::poll_fn(|context| source.poll_next(context)));
    next.await.expect("it says something, or ends").map(|piece| String::from_utf8_lossy(&piece).into_owned())
}

async fn listening(endpoint: &Mcp, authorization: &[u8]) -> Reply {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let headers = [MODERN[0], ("mcp-method", b"subscriptions/listen".as_slice()), ("authorization", authorization)];
    let mut reply = sent(endpoint, Method::Post, body, &headers).await;
    assert!(said(&mut reply).await.is_some_and(|first| first.contains("acknowledged")));
    reply
}

/// Opens a session and its stream.
async fn standing(endpoint: &Mcp, authorization: &[u8]) -> Reply {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
    let opened = sent(endpoint, Method::Post, body, &[("authorization", authorization)]).await;
    let id = opened.fields.iter().find(|(name, _)| *name == headers::SESSION_ID).map(|(_, id)| id.clone()).expect("a session");
    let mut reply = sent(endpoint, Method::Get, "", &[("authorization", authorization), (headers::SESSION_ID, id.as_bytes())]).await;
    assert!(said(&mut reply).await.is_some_and(|first| first.contains("retry:")));
    reply
}

#[tokio::test]
async fn a_stream_ends_with_its_credential() {
    let endpoint = endpoint();
    let (mut good, mut ending) = (listening(&endpoint, b"Bearer secret").await, listening(&endpoint, ENDING).await);
    let (mut good_session, mut ending_session) = (standing(&endpoint, b"Bearer secret").await, standing(&endpoint, ENDING).await);
    NEWS.send(News::Tools).expect("somebody listens");
    assert!(said(&mut good).await.is_some_and(|told| told.contains("tools/list_changed")));
    assert!(said(&mut good_session).await.is_some_and(|told| told.contains("tools/list_changed")));
    let last = said(&mut ending).await.expect("a response");
    assert!(last.contains("\"id\":1") && last.contains("unauthorized") && !last.contains("list_changed"), "{last}");
    assert_eq!(said(&mut ending).await, None);
    assert_eq!(said(&mut ending_session).await, None, "told nothing");
}

#[tokio::test]
async fn a_drain_ends_the_streams_of_sessions() {
    let endpoint = endpoint();
    let mut before = standing(&endpoint, b"Bearer secret").await;
    endpoint.draining.cancel();
    assert_eq!(said(&mut before).await, None);
    let mut after = standing(&endpoint, b"Bearer secret").await;
    assert_eq!(said(&mut after).await, None, "who comes while it drains does not hold it up");
}
