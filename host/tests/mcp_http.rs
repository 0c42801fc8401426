//! The HTTP server and the protocol over real sockets, in front of a small surface: a key-value store with a wait.

#[path = "mcp_http/fixture.rs"]
mod fixture;

use std::time::Duration;

use fixture::{Host, HostOptions, OTHER_TOKEN, TOKEN, gunzip, gzip, talk};
use pointsman_client::{CallError, Client, Era, TransportError};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Longer than anything here takes; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it happens before the deadline")
}

const JSON: [(&str, &str); 2] = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];

fn bearer() -> String {
    format!("Bearer {TOKEN}")
}

#[tokio::test]
async fn both_eras_list_call_and_wait() {
    let host = Host::start(HostOptions::default()).await;
    for era in [Era::Modern, Era::Legacy] {
        let client = host.client(era);
        let info = soon(client.connect()).await.expect("connects");
        assert_eq!(info.name, "pointsman");
        assert_eq!(info.protocol_version, if era == Era::Modern { "2026-07-28" } else { "2025-11-25" });
        assert!(info.instructions.contains("key"));
        let names: Vec<_> = soon(client.list_tools()).await.expect("lists").iter().map(|tool| tool["name"].clone()).collect();
        assert!(names.contains(&json!("put")) && names.contains(&json!("wait_for_events")), "{names:?}");

        let key = format!("{era:?}");
        let waiting = tokio::spawn({
            let (client, key) = (client.clone(), key.clone());
            async move { client.call("wait_for_events", json!({"key": key})).await }
        });
        host.surface.until_waiting(1).await;
        let put = soon(client.call("put", json!({"key": key, "value": {"n": [1, "ü\"\n"]}}))).await.expect("a call during the wait");
        assert_eq!(put["stored"], true);
        let woken = soon(waiting).await.expect("the task ends").expect("the wait is answered");
        assert_eq!(woken["value"]["n"], json!([1, "ü\"\n"]));

        let refused = soon(client.call("get", json!({"key": "nothing"}))).await.expect_err("no such key");
        assert_eq!(refused.code(), Some("not_found"));
        let CallError::Tool { why, advice, .. } = refused else { panic!("not a tool's error") };
        assert!(why.contains("nothing") && advice.contains("put"));
        let unknown = soon(client.call("no_such_tool", json!({}))).await.expect_err("no such tool");
        assert!(matches!(unknown, CallError::Refused { status: 200, code: -32602, .. }), "{unknown:?}");
        soon(client.close()).await.expect("closes");
    }
}

#[tokio::test]
async fn a_legacy_session_and_its_agent_survive_a_restart() {
    let host = Host::start(HostOptions::default()).await;
    let client = host.client(Era::Legacy);
    soon(client.connect()).await.expect("connects");
    assert_eq!(soon(client.call("whoami", json!({}))).await.expect("answers")["handle"], Value::Null);
    soon(client.call("start", json!({"name": "ana"}))).await.expect("starts");
    assert_eq!(soon(client.call("whoami", json!({}))).await.expect("answers")["handle"], "agent:ana");
    let opened = host.system.nonces();

    let host = host.restart().await;
    let after = soon(client.call("whoami", json!({}))).await.expect("the old session is served by the new process");
    assert_eq!(after["handle"], "agent:ana");
    assert_eq!(host.system.nonces(), opened, "no new session was opened");
    host.stop().await;
}

#[tokio::test]
async fn sessions_belong_to_their_token_and_end() {
    let host = Host::start(HostOptions::default()).await;
    let client = host.client(Era::Legacy);
    let token = bearer();
    let with = |extra: &[(&'static str, String)]| {
        let mut headers: Vec<(&str, String)> = JSON.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        headers.extend(extra.iter().cloned());
        headers
    };
    let post = async |body: &str, extra: &[(&'static str, String)]| {
        let headers = with(extra);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        soon(client.raw(body.to_owned(), &headers)).await.expect("an answer")
    };
    let auth = ("authorization", token.clone());
    let init = |version: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}})
            .to_string()
    };
    for (asked, got) in [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
    ] {
        let answer = post(&init(asked), std::slice::from_ref(&auth)).await;
        assert_eq!((answer.status, &answer.json()["result"]["protocolVersion"]), (200, &json!(got)), "{asked}");
    }
    let session = post(&init("2025-11-25"), std::slice::from_ref(&auth)).await.header("mcp-session-id").expect("an id").to_owned();
    let named = ("mcp-session-id", session.clone());
    let list = r#"{"jsonrpc":"2.0","id":"s","method":"tools/list"}"#;
    assert_eq!(post(list, &[auth.clone(), named.clone()]).await.status, 200, "an absent version header means the session's");
    let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let accepted = post(ready, &[auth.clone(), named.clone()]).await;
    assert_eq!((accepted.status, accepted.body.len()), (202, 0));
    let ping = post(r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#, &[auth.clone(), named.clone()]).await;
    assert_eq!(ping.json(), json!({"jsonrpc": "2.0", "id": 0, "result": {}}));

    assert_eq!(post(list, std::slice::from_ref(&auth)).await.status, 400, "no session");
    let other = ("authorization", format!("Bearer {OTHER_TOKEN}"));
    assert_eq!(post(list, &[other, named.clone()]).await.status, 404, "another token's session");
    let mut tampered = session.clone();
    tampered.replace_range(40..41, if &session[40..41] == "A" { "B" } else { "A" });
    assert_eq!(post(list, &[auth.clone(), ("mcp-session-id", tampered)]).await.status, 404);
    assert_eq!(post(list, &[auth.clone(), ("mcp-session-id", "7".to_owned())]).await.status, 404);

    let delete = [("authorization", token.as_str()), ("mcp-session-id", session.as_str())];
    let deleted = soon(client.request("DELETE", "/mcp", &delete, bytes::Bytes::new())).await.expect("an answer");
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(post(list, &[auth.clone(), named]).await.status, 404, "the session has ended");
    let get = soon(client.request("GET", "/mcp", &delete, bytes::Bytes::new())).await.expect("an answer");
    assert_eq!(get.status, 404, "nor has it a stream");
}

#[tokio::test]
async fn batches_are_answered_where_the_revision_has_them() {
    let host = Host::start(HostOptions::default()).await;
    let client = host.client(Era::Legacy);
    let token = bearer();
    for (version, status) in [("2025-03-26", 200), ("2025-06-18", 400)] {
        let init = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": version}}).to_string();
        let auth = [JSON[0], JSON[1], ("authorization", token.as_str())];
        let opened = soon(client.raw(init, &auth)).await.expect("an answer");
        let session = opened.header("mcp-session-id").expect("an id").to_owned();
        let named = [JSON[0], JSON[1], ("authorization", token.as_str()), ("mcp-session-id", session.as_str())];
        let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/initialized"},
            {"jsonrpc":"2.0","id":2,"method":"nope"},7,{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"whoami"}}]"#;
        let answer = soon(client.raw(batch, &named)).await.expect("an answer");
        assert_eq!(answer.status, status, "{version}");
        if status == 200 {
            let answers = answer.json();
            assert_eq!(answers.as_array().map(Vec::len), Some(4));
            assert_eq!(answers[0]["result"], json!({}));
            assert_eq!(answers[1]["error"]["code"], -32601);
            assert_eq!(answers[2]["error"]["code"], -32600);
            assert_eq!(answers[3]["id"], 3);
            assert_eq!(answers[3]["result"]["structuredContent"], Value::Null, "2025-03-26 has text only");
            let only_news =
                soon(client.raw(r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#, &named)).await.expect("an answer");
            assert_eq!(only_news.status, 202);
        }
    }
}

fn meta() -> Value {
    json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}})
}

fn request(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 9, "method": method, "params": params}).to_string()
}

/// What a malformed request is and what it must be answered.
struct Wrong {
    what: &'static str,
    body: String,
    headers: Vec<(&'static str, &'static str)>,
    status: u16,
    code: i64,
}

fn wrong(what: &'static str, body: String, headers: &[(&'static str, &'static str)], status: u16, code: i64) -> Wrong {
    Wrong { what, body, headers: headers.to_vec(), status, code }
}

fn malformed() -> Vec<Wrong> {
    let v = ("mcp-protocol-version", "2026-07-28");
    let list = [v, ("mcp-method", "tools/list")];
    let call = [v, ("mcp-method", "tools/call"), ("mcp-name", "put")];
    let good_list = request("tools/list", &json!({"_meta": meta()}));
    let put = |name: Value, arguments: Value| request("tools/call", &json!({"name": name, "arguments": arguments, "_meta": meta()}));
    let no_caps = json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}});
    let no_version = json!({"_meta": {"io.modelcontextprotocol/clientCapabilities": {}}});
    let other =
        json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2025-11-25", "io.modelcontextprotocol/clientCapabilities": {}}});
    vec![
        wrong("broken JSON", r#"{"jsonrpc":"2.0","id":1"#.to_owned(), &list, 400, -32700),
        wrong("no JSON", "hello".to_owned(), &list, 400, -32700),
        wrong("nothing", String::new(), &list, 400, -32700),
        wrong("two values", format!("{good_list}{good_list}"), &list, 400, -32700),
        wrong("a number", "7".to_owned(), &list, 400, -32600),
        wrong("a batch", format!("[{good_list}]"), &list, 400, -32600),
        wrong("an array of fields", r#"["2.0",1,"tools/list",{}]"#.to_owned(), &list, 400, -32600),
        wrong("another jsonrpc", r#"{"jsonrpc":"1.0","id":1,"method":"tools/list"}"#.to_owned(), &list, 400, -32600),
        wrong("no jsonrpc", r#"{"id":1,"method":"tools/list"}"#.to_owned(), &list, 400, -32600),
        wrong("a null id", r#"{"jsonrpc":"2.0","id":null,"method":"tools/list"}"#.to_owned(), &list, 400, -32600),
        wrong("a fractional id", r#"{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}"#.to_owned(), &list, 400, -32600),
        wrong("an object as id", r#"{"jsonrpc":"2.0","id":{},"method":"tools/list"}"#.to_owned(), &list, 400, -32600),
        wrong("two ids", r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/list"}"#.to_owned(), &list, 400, -32600),
        wrong("a number as method", r#"{"jsonrpc":"2.0","id":1,"method":7}"#.to_owned(), &list, 400, -32600),
        wrong("no method", r#"{"jsonrpc":"2.0","id":1}"#.to_owned(), &list, 400, -32600),
        wrong("an array as params", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":[]}"#.to_owned(), &list, 400, -32600),
        wrong("a response", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned(), &list, 400, -32600),
        wrong("no _meta", request("tools/list", &json!({})), &list, 400, -32602),
        wrong("no capabilities", request("tools/list", &no_caps), &list, 400, -32602),
        wrong("no version in _meta", request("tools/list", &no_version), &list, 400, -32602),
        wrong("no version header", good_list.clone(), &[("mcp-method", "tools/list")], 400, -32020),
        wrong("no method header", good_list.clone(), &[v], 400, -32020),
        wrong("another method header", good_list.clone(), &[v, ("mcp-method", "tools/call")], 400, -32020),
        wrong("a method header in capitals", good_list.clone(), &[v, ("mcp-method", "Tools/List")], 400, -32020),
        wrong("two method headers", good_list.clone(), &[v, ("mcp-method", "tools/list"), ("mcp-method", "tools/list")], 400, -32020),
        wrong("version header and body differ", request("tools/list", &other), &list, 400, -32020),
        wrong("an unknown version", good_list.replace("2026-07-28", "2031-01-01"), &[("mcp-protocol-version", "2031-01-01")], 400, -32022),
        wrong(
            "a legacy version without session",
            request("tools/list", &json!({})),
            &[("mcp-protocol-version", "2025-11-25")],
            400,
            -32600,
        ),
        wrong("a dead version", request("tools/list", &json!({})), &[("mcp-protocol-version", "2023-01-01")], 400, -32022),
        wrong("no name header", put(json!("put"), json!({})), &[v, ("mcp-method", "tools/call")], 400, -32020),
        wrong("another name header", put(json!("get"), json!({})), &call, 400, -32020),
        wrong("a number as tool", put(json!(7), json!({})), &call, 400, -32602),
        wrong("an array as arguments", put(json!("put"), json!([])), &call, 400, -32602),
        wrong("an unknown cursor", request("tools/list", &json!({"cursor": "x", "_meta": meta()})), &list, 200, -32602),
        wrong("an unknown method", request("a/b", &json!({"_meta": meta()})), &[v, ("mcp-method", "a/b")], 404, -32601),
        wrong("a removed method", request("initialize", &json!({"_meta": meta()})), &[v, ("mcp-method", "initialize")], 404, -32601),
        wrong("no session", request("tools/list", &json!({})), &[], 400, -32600),
    ]
}

#[tokio::test]
async fn malformed_requests_are_refused_by_code_and_status() {
    let host = Host::start(HostOptions::default()).await;
    let client = host.client(Era::Modern);
    let token = bearer();
    for case in malformed() {
        let mut headers = vec![JSON[0], JSON[1], ("authorization", token.as_str())];
        headers.extend(&case.headers);
        let answer = soon(client.raw(case.body.clone(), &headers)).await.expect("an answer");
        let body = answer.json();
        assert_eq!((answer.status, &body["error"]["code"]), (case.status, &json!(case.code)), "{}: {body}", case.what);
        assert!(body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{}", case.what);
        if case.body.contains("\"id\":9") && case.body.starts_with('{') && case.code != -32700 {
            assert_eq!(body["id"], 9, "{}", case.what);
        }
        assert!(answer.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{}", case.what);
    }
    let asked = request("tools/list", &json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2031-01-01"}}));
    let headers = [JSON[0], JSON[1], ("authorization", token.as_str()), ("mcp-protocol-version", "2031-01-01")];
    let answer = soon(client.raw(asked, &headers)).await.expect("an answer");
    assert_eq!(answer.json()["error"]["data"], json!({"supported": ["2026-07-28"], "requested": "2031-01-01"}));
    let latin1 = soon(client.raw(b"{\"jsonrpc\":\"2.0\",\"id\":\"\xe4\"}".to_vec(), &headers)).await.expect("an answer");
    assert_eq!((latin1.status, &latin1.json()["error"]["code"]), (400, &json!(-32700)));
}

#[tokio::test]
async fn heads_are_checked_before_bodies() {
    let host = Host::start(HostOptions { body_bytes_max: 64 << 10, ..HostOptions::default() }).await;
    let client = host.client(Era::Modern);
    let token = bearer();
    let auth = ("authorization", token.as_str());
    let status = async |headers: &[(&str, &str)]| soon(client.raw("{}", headers)).await.expect("an answer").status;
    assert_eq!(status(&[JSON[0], JSON[1]]).await, 401);
    assert_eq!(status(&[JSON[0], ("authorization", "Bearer wrong")]).await, 401);
    assert_eq!(status(&[JSON[0], ("authorization", "Bearer ${TOKEN}")]).await, 401);
    assert_eq!(status(&[("content-type", "text/plain"), auth]).await, 415);
    assert_eq!(status(&[auth]).await, 415);
    assert_eq!(status(&[JSON[0], ("accept", "text/html"), auth]).await, 406);
    assert_eq!(status(&[JSON[0], ("accept", "*/*"), auth]).await, 400, "an empty object is no message");
    assert_eq!(status(&[JSON[0], auth, ("origin", "https://evil.example.com")]).await, 403);
    assert_eq!(status(&[JSON[0], auth, ("origin", "http://localhost:3000")]).await, 400);

    let refused = soon(client.raw("{}", &[JSON[0]])).await.expect("an answer");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"pointsman\""));
    let elsewhere = soon(client.request("POST", "/mcp/other", &[JSON[0], auth], "{}".into())).await.expect("an answer");
    assert_eq!((elsewhere.status, &elsewhere.json()["error"]["data"]["code"]), (403, &json!("forbidden")));

    for size in [(64 << 10) + 1, 8 << 20] {
        let large = soon(client.raw(vec![b' '; size], &[JSON[0], auth])).await.expect("an answer, though the client was still sending");
        assert_eq!((large.status, &large.json()["error"]["data"]["code"]), (413, &json!("body_too_large")), "{size}");
    }
    let announced = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nauthorization: Bearer secret-of-ana\r\n\
        connection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks: String = std::iter::once(announced.to_owned())
        .chain(std::iter::repeat_n(format!("8000\r\n{}\r\n", " ".repeat(0x8000)), 4))
        .chain(std::iter::once("0\r\n\r\n".to_owned()))
        .collect();
    let answer = soon(talk(host.address, &chunks)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let foreign = soon(talk(host.address, "GET /healthz HTTP/1.1\r\nhost: evil.example.com\r\nconnection: close\r\n\r\n")).await;
    assert!(foreign.starts_with("HTTP/1.1 403") && foreign.contains("foreign_host"), "{foreign}");
}

#[tokio::test]
async fn bodies_come_and_go_compressed() {
    let host = Host::start(HostOptions { body_bytes_max: 64 << 10, ..HostOptions::default() }).await;
    let client = host.client(Era::Modern);
    let auth = bearer();
    let call = |name: &str, arguments: Value| {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
        let params = json!({"name": name, "arguments": arguments, "_meta": meta});
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string().into_bytes()
    };
    let send = async |name: &str, extra: &[(&str, &str)], body: Vec<u8>| {
        let mut headers = vec![JSON[0], JSON[1], ("authorization", auth.as_str()), ("mcp-protocol-version", "2026-07-28")];
        headers.extend([("mcp-method", "tools/call"), ("mcp-name", name)]);
        headers.extend(extra);
        soon(client.request("POST", "/mcp", &headers, body.into())).await.expect("an answer")
    };
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).expect("it is compressed");
    let long = "word ".repeat(6_000);
    for (encoding, pack) in [("zstd", &zstd as &dyn Fn(&[u8]) -> Vec<u8>), ("gzip", &gzip)] {
        let put = pack(&call("put", json!({"key": encoding, "value": long})));
        assert_eq!(send("put", &[("content-encoding", encoding)], put).await.status, 200, "{encoding}");
        let bomb = pack(&vec![b' '; 8 << 20]);
        assert!(bomb.len() < 32 << 10);
        let refused = send("put", &[("content-encoding", encoding)], bomb).await;
        assert_eq!((refused.status, &refused.json()["error"]["data"]["code"]), (413, &json!("body_too_large")));
        let damaged = send("put", &[("content-encoding", encoding)], b"{}".to_vec()).await;
        assert_eq!((damaged.status, &damaged.json()["error"]["data"]["code"]), (400, &json!("body_damaged")));

        let get = call("get", json!({"key": encoding}));
        let plain = send("get", &[], get.clone()).await;
        assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Accept-Encoding")));
        let packed = send("get", &[("accept-encoding", encoding)], get).await;
        assert_eq!((packed.header("content-encoding"), packed.header("vary")), (Some(encoding), Some("Accept-Encoding")));
        assert!(packed.body.len() * 10 < plain.body.len());
        let unpacked = match encoding {
            "zstd" => zstd::bulk::decompress(&packed.body, 1 << 20).expect("it is zstd"),
            _ => gunzip(&packed.body),
        };
        assert_eq!(unpacked, plain.body);
    }
    let unknown = send("put", &[("content-encoding", "br")], b"{}".to_vec()).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["data"]["code"]), (415, &json!("unsupported_encoding")));
    let short = send("get", &[("accept-encoding", "zstd")], call("get", json!({"key": "nothing"}))).await;
    assert_eq!((short.status, short.header("content-encoding"), short.header("vary")), (200, None, None));
}

#[tokio::test]
async fn other_paths_and_health() {
    let host = Host::start(HostOptions::default()).await;
    let client = host.client(Era::Modern);
    let get = async |method: &str, path: &str| soon(client.request(method, path, &[], bytes::Bytes::new())).await.expect("an answer");
    assert_eq!(get("GET", "/healthz").await.json(), json!({"status": "ok"}));
    assert_eq!(get("GET", "/readyz").await.json(), json!({"ready": true}));
    host.surface.break_down("the store is away");
    let unready = get("GET", "/readyz").await;
    assert_eq!((unready.status, unready.json()), (503, json!({"ready": false, "degraded": false, "reasons": ["the store is away"]})));
    let nothing = get("GET", "/nothing").await;
    assert_eq!((nothing.status, &nothing.json()["code"]), (404, &json!("no_such_path")));
    assert_eq!(get("POST", "/healthz").await.status, 405);
    assert_eq!(get("GET", "/mcp/a/b").await.status, 404);
}

#[tokio::test]
async fn git_requests_arrive_whole() {
    let host = Host::start(HostOptions::default()).await;
    let client = host.client(Era::Modern);
    let basic = ("authorization", "Basic YW5hOnMzY3JldDp4");
    let send = async |method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        soon(client.request(method, path, headers, body.into())).await.expect("an answer")
    };
    let asked = send("GET", "/git/demo.git/info/refs?service=git-upload-pack", &[], Vec::new()).await;
    assert_eq!((asked.status, asked.header("www-authenticate")), (401, Some("Basic realm=\"pointsman\"")));
    let refs = send("GET", "/git/demo.git/info/refs?service=git-upload-pack", &[basic, ("git-protocol", "version=2")], Vec::new()).await;
    assert_eq!((refs.status, refs.header("content-type")), (200, Some("application/x-git-upload-pack-advertisement")));
    assert_eq!(refs.body, "ana s3cret:x demo UploadPack true Some(\"version=2\")\n");

    let body = "0032want 0123456789\n".repeat(5_000).into_bytes();
    let kind = ("content-type", "application/x-git-upload-pack-request");
    let path = "/git/demo.git/git-upload-pack";
    for (encoding, sent) in [(None, body.clone()), (Some(("content-encoding", "gzip")), gzip(&body))] {
        let mut headers = vec![basic, kind];
        headers.extend(encoding);
        let answer = send("POST", path, &headers, sent).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with(b"ana s3cret:x demo UploadPack false None\n"));
        assert!(answer.body.ends_with(&body), "{encoding:?}: the body arrives as it was");
    }
    let bomb = gzip(&vec![0; 16 << 20]);
    let answer = send("POST", path, &[basic, kind, ("content-encoding", "gzip")], bomb).await;
    assert_eq!(answer.status, 500, "what does not fit is not passed on: {}", String::from_utf8_lossy(&answer.body));
    let broken = send("POST", path, &[basic, kind, ("content-encoding", "gzip")], b"no gzip".to_vec()).await;
    assert_eq!(broken.status, 500);
    assert_eq!(send("POST", path, &[basic, kind, ("content-encoding", "br")], Vec::new()).await.status, 415);
    assert_eq!(send("POST", path, &[basic, JSON[0]], Vec::new()).await.status, 415);
    assert_eq!(send("GET", path, &[basic], Vec::new()).await.status, 405);
    assert_eq!(send("GET", "/git/demo.git/info/refs", &[basic], Vec::new()).await.status, 403, "the dumb protocol");
    assert_eq!(send("GET", "/git/demo.git/HEAD", &[basic], Vec::new()).await.status, 404);
}

#[tokio::test]
async fn a_slow_header_and_a_crowd_are_turned_away() {
    let host = Host::start(HostOptions { header_read_ms: 150, body_read_ms: 150, connections_max: 2, ..HostOptions::default() }).await;
    let mut slow = TcpStream::connect(host.address).await.expect("connects");
    slow.write_all(b"POST /mcp HTTP/1.1\r\nhost: local").await.expect("sends");
    let mut answer = Vec::new();
    soon(slow.read_to_end(&mut answer)).await.expect("the host closes the connection");

    let head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
        authorization: Bearer secret-of-ana\r\ncontent-length: 100\r\n\r\n{";
    let answer = soon(talk(host.address, head)).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timed_out"), "{answer}");

    let host = Host::start(HostOptions { connections_max: 2, ..HostOptions::default() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut connection = TcpStream::connect(host.address).await.expect("connects");
        connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sends");
        let mut first = [0; 12];
        soon(connection.read_exact(&mut first)).await.expect("is served");
        held.push(connection);
    }
    let answer = soon(talk(host.address, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("too_many_connections"), "{answer}");
}

#[tokio::test]
async fn a_drain_answers_waits_lets_work_finish_and_closes_the_rest() {
    let host = Host::start(HostOptions::default()).await;
    let client = host.client(Era::Modern);
    let spawn = |tool: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.call(tool, json!({"key": "drain"})).await })
    };
    let (waiting, working) = (spawn("wait_for_events"), spawn("slow_put"));
    host.surface.until_waiting(1).await;
    host.surface.until_working(1).await;
    let idle = TcpStream::connect(host.address).await.expect("connects");
    host.shutdown.cancel();
    let ended = soon(waiting).await.expect("the task ends").expect_err("nothing came");
    assert_eq!(ended.code(), Some("host_draining"));
    host.surface.let_work_finish();
    assert_eq!(soon(working).await.expect("the task ends").expect("work in flight is finished")["stored"], true);
    let address = host.address;
    assert_eq!(host.stop().await.cut, 0);
    drop(idle);
    let refused = soon(client.call("whoami", json!({}))).await.expect_err("the host is gone");
    assert!(matches!(refused, CallError::Transport(TransportError::Unreachable { .. })), "{refused:?}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let host = Host::start(HostOptions { drain_ms: 100, ..HostOptions::default() }).await;
    let client = host.client(Era::Modern);
    let working = tokio::spawn(async move { client.call("slow_put", json!({"key": "never"})).await });
    host.surface.until_working(1).await;
    host.shutdown.cancel();
    assert_eq!(soon(host.stop()).await.cut, 1);
    let ended = soon(working).await.expect("the task ends").expect_err("it was cut");
    assert!(matches!(ended, CallError::Transport(TransportError::Interrupted { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_wait_and_nothing_else() {
    let host = Host::start(HostOptions::default()).await;
    for era in [Era::Modern, Era::Legacy] {
        let client = host.client(era);
        soon(client.connect()).await.expect("connects");
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.call("wait_for_events", json!({"key": "gone"})).await }
        });
        host.surface.until_waiting(1).await;
        waiting.abort();
        host.surface.until_waiting(0).await;
        let served = soon(client.call("whoami", json!({}))).await.expect("other calls go on");
        assert_eq!(served["principal"], "ana");
    }
}

#[tokio::test]
async fn the_client_finds_the_host_again_after_a_restart() {
    let host = Host::start(HostOptions::default()).await;
    let client = host.client(Era::Modern);
    soon(client.call("put", json!({"key": "k", "value": 1}))).await.expect("stored, and the connection is idle now");
    let host = host.restart().await;
    assert_eq!(soon(client.call("get", json!({"key": "k"}))).await.expect("a fresh connection is made")["value"], 1);
    host.stop().await;
}

#[tokio::test]
async fn many_calls_at_once_share_a_few_connections() {
    let host = Host::start(HostOptions::default()).await;
    let client: Client = host.client(Era::Modern);
    let calls: Vec<_> = (0..64)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.call("put", json!({"key": format!("k{n}"), "value": n})).await })
        })
        .collect();
    for call in calls {
        soon(call).await.expect("the task ends").expect("stored");
    }
    for n in 0..64 {
        assert_eq!(soon(client.call("get", json!({"key": format!("k{n}")}))).await.expect("kept")["value"], n);
    }
}
