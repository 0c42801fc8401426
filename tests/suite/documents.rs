//! Shared documents over HTTP, told to the real binary: whole, in ranges, in chunks, by whoever may; and `pointsman context`.
//!
//! Of the host's code this knows what every client has to: where documents are cut and how chunks are named.

#[path = "documents/command.rs"]
mod command;
#[path = "documents/matrix.rs"]
mod matrix;

use std::time::Duration;

use bytes::Bytes;
use pointsman_client::RawAnswer;
use pointsman_core::context::content::{ChunkHash, cut};
use pointsman_core::ids::ConflictId;
use pointsman_tests::{Agent, Client, DEADLINE_S, Era, Host};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CHUNKS: &str = "application/vnd.pointsman.chunks+json";
/// Bytes of one body of chunks, well below what is taken.
const BODY_BYTES: usize = 1 << 20;

/// Bytes that nobody can compress (xorshift, Marsaglia 2003).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// A client of the documents with a token.
struct Documents {
    client: Client,
    authorization: String,
}

impl Documents {
    fn of(host: &Host, token: &str) -> Self {
        Self { client: Client::new(&host.url(), "", Era::Modern).expect("a client"), authorization: format!("Bearer {token}") }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> RawAnswer {
        let mut all = vec![("authorization", self.authorization.as_str())];
        all.extend_from_slice(headers);
        self.client.request(method, &format!("/context/demo/{path}"), &all, body.into()).await.expect("an answer")
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> RawAnswer {
        self.ask("GET", path, headers, Vec::new()).await
    }

    /// Writes a document that must be taken; returns its version.
    async fn put(&self, path: &str, media_type: &str, body: impl Into<Bytes>) -> u64 {
        let answer = self.ask("PUT", path, &[("content-type", media_type)], body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        answer.json()["version"].as_u64().expect("a version")
    }

    async fn missing(&self, key: &str, names: &[String]) -> Vec<String> {
        let answer = self.ask("POST", &format!("{key}?missing"), &[], json!({"chunks": names}).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        serde_json::from_value(answer.json()["missing"].clone()).expect("a list of names")
    }

    async fn bring(&self, key: &str, chunks: &[&[u8]]) -> RawAnswer {
        self.ask("POST", &format!("{key}?chunks"), &[], framed(chunks)).await
    }
}

fn framed(chunks: &[&[u8]]) -> Vec<u8> {
    let frame = |chunk: &&[u8]| [&u32::try_from(chunk.len()).expect("small").to_le_bytes(), *chunk].concat();
    chunks.iter().flat_map(frame).collect()
}

fn cut_up(bytes: &[u8]) -> (Vec<&[u8]>, Vec<String>) {
    let chunks: Vec<&[u8]> = cut(bytes).into_iter().map(|range| &bytes[range]).collect();
    let names = chunks.iter().map(|chunk| ChunkHash::of(chunk).to_string()).collect();
    (chunks, names)
}

/// Begins a request of so many bytes, sends none of them, and returns the head of the answer.
async fn answer_to_length(host: &Host, line: &str, token: &str, length: usize) -> String {
    let authority = host.url().trim_start_matches("http://").to_owned();
    let mut wire = TcpStream::connect(&authority).await.expect("a connection");
    let head = format!("{line} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n");
    wire.write_all(head.as_bytes()).await.expect("sent");
    let mut said = vec![0; 1024];
    let count = tokio::time::timeout(Duration::from_secs(DEADLINE_S), wire.read(&mut said)).await.expect("it comes in time").expect("read");
    String::from_utf8_lossy(&said[..count]).into_owned()
}

/// Method, path, fields, body, and the status it is answered with.
type WrongRequest = (&'static str, &'static str, Vec<(&'static str, &'static str)>, Vec<u8>, u16);

#[tokio::test]
async fn a_document_is_put_whole_and_read_whole_or_in_part() {
    let host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let documents = Documents::of(&host, &ana.token);
    let text = "one\ntwo\nthree\n";
    assert_eq!(documents.put("plan/a?base_version=0", "text/plain; charset=utf-8", text).await, 1);
    assert_eq!(documents.put("plan/a?base_version=0", "text/plain", text).await, 1, "the same again is the same version");

    let whole = documents.get("plan/a", &[]).await;
    assert_eq!((whole.status, &whole.body[..]), (200, text.as_bytes()));
    let field = |answer: &RawAnswer, name: &str| answer.header(name).unwrap_or_default().to_owned();
    assert_eq!(field(&whole, "content-type"), "text/plain");
    assert_eq!((field(&whole, "pointsman-version"), field(&whole, "pointsman-size")), ("1".to_owned(), "14".to_owned()));
    assert_eq!(field(&whole, "accept-ranges"), "bytes");
    let tag = field(&whole, "etag");
    let same = documents.get("plan/a", &[("if-none-match", &tag)]).await;
    assert_eq!((same.status, same.body.len(), field(&same, "etag")), (304, 0, tag.clone()));
    let head = documents.ask("HEAD", "plan/a", &[], Vec::new()).await;
    assert_eq!(
        (head.status, head.body.len(), field(&head, "etag"), field(&head, "content-length")),
        (200, 0, tag.clone(), "14".to_owned())
    );

    for (range, status, body, placed) in [
        ("bytes=4-6", 206, "two", "bytes 4-6/14"),
        ("bytes=8-", 206, "three\n", "bytes 8-13/14"),
        ("bytes=-6", 206, "three\n", "bytes 8-13/14"),
        ("bytes=0-1,3-4", 200, text, ""),
        ("lines=1-2", 200, text, ""),
    ] {
        let part = documents.get("plan/a", &[("range", range), ("if-range", &tag)]).await;
        assert_eq!((part.status, &part.body[..], field(&part, "content-range")), (status, body.as_bytes(), placed.to_owned()), "{range}");
    }
    let beyond = documents.get("plan/a", &[("range", "bytes=14-")]).await;
    assert_eq!((beyond.status, field(&beyond, "content-range")), (416, "bytes */14".to_owned()));

    assert_eq!(documents.put("plan/a?base_version=1", "text/plain", "four\n").await, 2);
    let other = documents.get("plan/a", &[("range", "bytes=4-6"), ("if-range", &tag)]).await;
    assert_eq!((other.status, &other.body[..]), (200, &b"four\n"[..]), "a part of another version would fit nothing");
    let old = documents.get("plan/a?version=1", &[("range", "bytes=4-6"), ("if-range", &tag)]).await;
    assert_eq!((old.status, &old.body[..]), (206, &b"two"[..]));
    assert_eq!(documents.get("plan/a", &[("if-none-match", &tag)]).await.status, 200, "it changed");

    let listed = documents.get("?prefix=plan/", &[]).await.json();
    assert_eq!((&listed["documents"][0]["key"], &listed["documents"][0]["version"]), (&json!("plan/a"), &json!(2)), "{listed}");
    let empty = documents.put("plan/empty", "text/plain", "").await;
    assert_eq!((empty, documents.get("plan/empty", &[]).await.body.len()), (1, 0));
    assert_eq!(documents.get("plan/empty", &[("range", "bytes=0-")]).await.status, 416);
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_on_after_the_host_was_killed() {
    let mut host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let ben = host.agent("ben", &[]).await;
    let documents = Documents::of(&host, &ana.token);
    let bytes = noise(11, 3 << 20);
    let (chunks, names) = cut_up(&bytes);
    assert_eq!(documents.missing("builds/log", &names).await, names, "nothing of it is there");
    let brought = chunks.len() / 3;
    assert_eq!(documents.bring("builds/log", &chunks[..brought]).await.json()["stored"], brought);

    // The client goes away half way through a body: nothing of that body is there, and nothing else is lost.
    let body = framed(&chunks[brought..brought + 20]);
    let authority = host.url().trim_start_matches("http://").to_owned();
    let mut wire = TcpStream::connect(&authority).await.expect("a connection");
    let head = format!(
        "POST /context/demo/builds/log?chunks HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        ana.token,
        body.len()
    );
    wire.write_all(head.as_bytes()).await.expect("sent");
    wire.write_all(&body[..body.len() / 2]).await.expect("sent");
    drop(wire);
    host.restart().await;

    assert_eq!(documents.missing("builds/log", &names).await, names[brought..], "what was brought is kept");
    let others = Documents::of(&host, &ben.token);
    assert_eq!(others.missing("builds/log", &names).await, names, "it is ana's upload");
    let manifest = json!({"media_type": "text/x-log", "chunks": names}).to_string();
    let refused = others.ask("PUT", "builds/log", &[("content-type", CHUNKS)], manifest.clone()).await;
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("missing_chunks")), "the name of a chunk opens nothing");
    let early = documents.ask("PUT", "builds/log", &[("content-type", CHUNKS)], manifest.clone()).await;
    assert_eq!((early.status, &early.json()["data"]["missing"]), (422, &json!(names[brought..])));

    let mut rest: &[&[u8]] = &chunks[brought..];
    while !rest.is_empty() {
        let fits = rest.iter().scan(0, |size, chunk| Some((*size += chunk.len(), *size).1)).take_while(|size| *size <= BODY_BYTES).count();
        let (now, later) = rest.split_at(fits.max(1));
        assert_eq!(documents.bring("builds/log", now).await.json()["stored"], now.len());
        rest = later;
    }
    assert_eq!(documents.put("builds/log", CHUNKS, manifest.clone()).await, 1);
    assert_eq!(documents.put("builds/log", CHUNKS, manifest).await, 1, "the same again is the same version");

    let mut read = Vec::new();
    let tag = documents.ask("HEAD", "builds/log", &[], Vec::new()).await.header("etag").expect("a tag").to_owned();
    while read.len() < bytes.len() {
        let range = format!("bytes={}-{}", read.len(), read.len() + 700_000);
        let part = documents.get("builds/log", &[("range", &range), ("if-range", &tag)]).await;
        assert_eq!(part.status, 206);
        read.extend_from_slice(&part.body);
    }
    assert!(read == bytes, "the parts are the whole");
    let whole = documents.get("builds/log", &[]).await;
    assert!(whole.body == bytes && whole.header("content-type") == Some("text/x-log"), "so is the whole");

    let mut edited = bytes.clone();
    edited[1_500_000..1_500_010].copy_from_slice(b"ten others");
    let (chunks, names) = cut_up(&edited);
    let missing = documents.missing("builds/log", &names).await;
    assert!((1..=3).contains(&missing.len()), "an edit moves what it touches: {}", missing.len());
    let new: Vec<&[u8]> = chunks.into_iter().filter(|chunk| missing.contains(&ChunkHash::of(chunk).to_string())).collect();
    documents.bring("builds/log", &new).await;
    let manifest = json!({"chunks": names}).to_string();
    assert_eq!(documents.put("builds/log?base_version=1", CHUNKS, manifest).await, 2);
    assert!(documents.get("builds/log", &[]).await.body == edited);
    assert_eq!(documents.get("builds/log?chunks", &[]).await.json()["chunks"].as_array().map(Vec::len), Some(names.len()));
}

#[tokio::test]
async fn a_stale_write_that_disagrees_is_answered_with_its_conflict_and_changes_nothing() {
    let host = Host::start().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let (hers, his) = (Documents::of(&host, &ana.token), Documents::of(&host, &ben.token));
    hers.put("plan/a", "text/markdown", "a\n\nb\n\nc\n").await;
    hers.put("plan/a?base_version=1", "text/markdown", "A\n\nb\n\nc\n").await;
    let merged = his.ask("PUT", "plan/a?base_version=1", &[("content-type", "text/markdown")], "a\n\nb\n\nC\n").await.json();
    assert_eq!((&merged["version"], &merged["merged_with"]), (&json!(4), &json!(2)), "{merged}");
    assert_eq!(&his.get("plan/a", &[]).await.body[..], b"A\n\nb\n\nC\n");
    let before = his.get("plan/a?chunks", &[]).await.json();
    let stale = his.ask("PUT", "plan/a?base_version=1", &[("content-type", "text/markdown")], "mine\n\nb\n\nc\n").await;
    let said = stale.json();
    assert_eq!((stale.status, &said["code"], &said["data"]["current_version"]), (409, &json!("conflict"), &json!(4)), "{said}");
    assert_eq!(his.get("plan/a?chunks", &[]).await.json(), before);
    let id = said["data"]["conflict"].as_str().expect("an id").to_owned();
    let record = ana.call("lookup", json!({"uri": format!("context_conflict/{id}")})).await;
    assert_eq!((&record["key"], &record["theirs"]), (&json!("plan/a"), &json!("mine\n\nb\n\nc\n")), "{record}");
    let taken = ana.call("write_context", json!({"key": "plan/a", "base_version": 4, "resolves": id, "take": "theirs"})).await;
    assert_eq!(taken["version"], 5);
    assert_eq!(&his.get("plan/a", &[]).await.body[..], b"mine\n\nb\n\nc\n");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_and_changes_nothing() {
    let host = Host::start().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let documents = Documents::of(&host, &ana.token);
    documents.put("plan/a", "text/plain", "as it was\n").await;
    let before = documents.get("plan/a?chunks", &[]).await.json();
    let plain = ("content-type", "text/plain");
    let named = |names: Value| json!({"chunks": names}).to_string().into_bytes();
    let frame = |length: u32, bytes: &[u8]| [&length.to_le_bytes()[..], bytes].concat();
    let unknown = ChunkHash::of(b"never brought").to_string();
    let wrong: Vec<WrongRequest> = vec![
        ("PUT", "plan/a?base_version=9", vec![plain], b"x".to_vec(), 409),
        ("PUT", "plan/a?base_version=x", vec![plain], b"x".to_vec(), 400),
        ("PUT", "plan/a?verson=1", vec![plain], b"x".to_vec(), 400),
        ("PUT", "plan/.hidden", vec![plain], b"x".to_vec(), 400),
        ("PUT", "plan/a", vec![("content-type", "Text Plain")], b"x".to_vec(), 400),
        ("PUT", "plan/j", vec![("content-type", "application/json")], b"{".to_vec(), 400),
        ("PUT", "plan/a", vec![("content-type", CHUNKS)], b"{}".to_vec(), 400),
        ("PUT", "plan/a", vec![("content-type", CHUNKS)], named(json!(["abc"])), 400),
        ("PUT", "plan/a", vec![("content-type", CHUNKS)], named(json!([unknown])), 422),
        ("POST", "plan/a?missing", vec![], named(json!(["ABC"])), 400),
        ("POST", "plan/a?missing", vec![], b"[]".to_vec(), 400),
        ("POST", "plan/a?chunks", vec![], frame(0, b""), 400),
        ("POST", "plan/a?chunks", vec![], frame(9, b"cut off"), 400),
        ("POST", "plan/a?chunks", vec![], frame((64 << 10) + 1, &[0; (64 << 10) + 1]), 400),
        ("POST", "plan/a?chunks", vec![], b"ab".to_vec(), 400),
        ("POST", "plan/a", vec![], b"x".to_vec(), 405),
        ("DELETE", "plan/a", vec![], Vec::new(), 405),
        ("PUT", "", vec![plain], b"x".to_vec(), 405),
        ("GET", "plan/a?version=7", vec![], Vec::new(), 404),
        ("GET", "plan/none", vec![], Vec::new(), 404),
        ("PUT", "plan/a", vec![plain, ("pointsman-agent", "ben")], b"x".to_vec(), 403),
        ("PUT", "plan/a", vec![plain, ("pointsman-agent", "nobody")], b"x".to_vec(), 404),
        ("PUT", "plan/a", vec![plain, ("idempotency-key", "")], b"x".to_vec(), 400),
    ];
    for (method, path, headers, body, status) in wrong {
        let answer = documents.ask(method, path, &headers, body).await;
        let said = answer.json();
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {said}");
        let words = said["why"].as_str().or_else(|| said["detail"].as_str()).unwrap_or_default();
        assert!(!words.is_empty(), "{method} {path}: {said}");
    }
    for (line, length) in [("POST /context/demo/plan/a?chunks", (4 << 20) + 1), ("PUT /context/demo/plan/large", (64 << 20) + 1)] {
        let said = answer_to_length(&host, line, &ana.token, length).await;
        assert!(said.starts_with("HTTP/1.1 413 "), "{line}: {said}");
    }
    for headers in [&[][..], &[("authorization", "Bearer ptm_nonsense")]] {
        for (method, path) in [("GET", "plan/a"), ("GET", ""), ("PUT", "plan/a"), ("POST", "plan/a?chunks"), ("POST", "plan/a?missing")] {
            let answer =
                documents.client.request(method, &format!("/context/demo/{path}"), headers, Bytes::new()).await.expect("an answer");
            assert_eq!(answer.status, 401, "{method} {path}");
        }
    }
    let credential = [("authorization", documents.authorization.as_str())];
    let elsewhere = documents.client.request("GET", "/context/other/plan/a", &credential, Bytes::new());
    assert!(matches!(elsewhere.await.expect("an answer").status, 403 | 404));
    assert_eq!(documents.get("plan/a?chunks", &[]).await.json(), before);
    assert_eq!(documents.get("", &[]).await.json()["documents"].as_array().map(Vec::len), Some(1), "nothing else was begun");
    let key = ("idempotency-key", "once");
    let first = documents.ask("PUT", "plan/b", &[plain, key], "x").await.json();
    assert_eq!(documents.ask("PUT", "plan/b", &[plain, key], "x").await.json(), first);
    assert_eq!(documents.ask("PUT", "plan/b", &[plain, key], "y").await.status, 422, "another write under the same key");
    drop(ben);
}

#[tokio::test]
async fn a_renamed_document_does_not_tell_where_it_was_or_went_to_who_may_not_know() {
    let host = Host::start().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    for (key, to) in [("private/ana/draft", "plan/out"), ("plan/in", "private/ana/kept")] {
        ana.call("write_context", json!({"key": key, "base_version": 0, "text": "words\n"})).await;
        ana.call("write_context", json!({"key": key, "base_version": 1, "rename_to": to})).await;
    }
    let told = ben.call("wait_for_events", json!({"watch": ["**"], "after": "0.0", "max_s": 0})).await;
    let mut seen = vec![told, ben.call("lookup", json!({"uri": "events"})).await, ben.call("lookup", json!({"uri": "context"})).await];
    for uri in ["context/plan/out", "context/plan/out?history", "context/plan/out?since=1", "context/plan/in?history", "context/plan/in@2"]
    {
        seen.push(ben.call("lookup", json!({"uri": uri})).await);
    }
    let documents = Documents::of(&host, &ben.token);
    for path in ["plan/out?chunks", "plan/in", ""] {
        seen.push(documents.get(path, &[]).await.json());
    }
    for answer in seen {
        assert!(!answer.to_string().contains("private/ana"), "{answer}");
    }
    let own = ana.call("lookup", json!({"uri": "context/plan/out"})).await;
    assert_eq!(own["taken_from"], "private/ana/draft@1", "{own}");
    let gone = Documents::of(&host, &ana.token).get("plan/in", &[]).await.json();
    assert!(gone["why"].as_str().is_some_and(|why| why.contains("private/ana/kept")), "{gone}");
}

#[tokio::test]
async fn who_may_only_write_gives_what_others_began_no_end() {
    let host = Host::start().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let write = |base: u64, text: &str| json!({"key": "plan/a", "base_version": base, "text": text, "expires_in_s": 1});
    ana.call("write_context", json!({"key": "plan/a", "base_version": 0, "text": "one\n"})).await;
    assert_eq!(ben.refused("write_context", write(1, "two\n")).await, "forbidden");
    assert_eq!(ana.call("lookup", json!({"uri": "context/plan/a"})).await["version"], 1);
    ana.call("write_context", write(1, "two\n")).await;
    host.eventually("the document goes", || async { ana.client.call("lookup", json!({"uri": "context/plan/a"})).await.is_err() }).await;
    let status = |base: u64, text: &str| json!({"key": "agents/ben/status", "base_version": base, "text": text, "expires_in_s": 600});
    ben.call("write_context", status(0, "busy\n")).await;
    ben.call("write_context", status(1, "idle\n")).await;
}

#[tokio::test]
async fn another_documents_conflict_is_none() {
    let host = Host::start().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let id = conflict(&ana, "private/ana/a").await;
    ben.call("write_context", json!({"key": "plan/b", "base_version": 0, "text": "mine\n"})).await;
    let mut words = Vec::new();
    for id in [id, no_conflict()] {
        for more in [json!({"take": "theirs"}), json!({"take": "ours"}), json!({"hand_to": "ben"}), json!({"text": "new\n"})] {
            let mut write = json!({"key": "plan/b", "base_version": 1, "resolves": id});
            write.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            let Err(refused) = ben.client.call("write_context", write.clone()).await else { unreachable!("{write} was to be refused") };
            words.push(refused.to_string().replace(&id, "ID"));
        }
    }
    let (of_a_real_one, of_none) = words.split_at(4);
    assert_eq!(of_a_real_one, of_none);
    assert_eq!(ben.call("lookup", json!({"uri": "context/plan/b"})).await["version"], 1);
}

/// Returns the id of a conflict that nobody had.
fn no_conflict() -> String {
    ConflictId::from_bytes([7; 16]).to_string()
}

#[tokio::test]
async fn what_is_written_again_after_it_went_is_written() {
    let host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let begin = json!({"key": "plan/a", "base_version": 0, "text": "one\n"});
    let version = |answer: &Value| answer["version"].as_u64().expect("a version");
    assert_eq!(version(&ana.call("write_context", begin.clone()).await), 1);
    ana.call("write_context", json!({"key": "plan/a", "base_version": 1, "delete": true})).await;
    assert_eq!(version(&ana.call("write_context", begin.clone()).await), 3, "it is begun anew");
    assert_eq!(version(&ana.call("write_context", begin).await), 3, "which is not done twice");
    ana.call("write_context", json!({"key": "plan/a", "base_version": 3, "text": "two\n"})).await;
    let back = json!({"key": "plan/a", "restore": 1});
    assert_eq!(version(&ana.call("write_context", back.clone()).await), 5);
    ana.call("write_context", json!({"key": "plan/a", "base_version": 5, "text": "three\n"})).await;
    let again = json!({"documents": [back]});
    ana.call("write_context", again.clone()).await;
    ana.call("write_context", json!({"key": "plan/a", "base_version": 7, "text": "four\n"})).await;
    ana.call("write_context", again).await;
    let read = ana.call("lookup", json!({"uri": "context/plan/a"})).await;
    assert_eq!((version(&read), &read["text"]), (9, &json!("one\n")));
}

/// Makes a conflict of a key that only this agent writes: a second edit of the same line of version 1.
async fn conflict(agent: &Agent, key: &str) -> String {
    let write = |base: u64, text: &str| json!({"key": key, "base_version": base, "text": text});
    agent.call("write_context", write(0, "one\n")).await;
    agent.call("write_context", write(1, "two\n")).await;
    match agent.client.call("write_context", write(1, "other\n")).await {
        Err(pointsman_tests::CallError::Tool { code, result, .. }) if code == "conflict" => {
            result["data"]["conflict"].as_str().expect("an id").to_owned()
        }
        other => unreachable!("it was to conflict: {other:?}"),
    }
}

#[tokio::test]
async fn who_may_not_read_a_document_is_not_told_that_it_changed() {
    let host = Host::start().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let client = Client::new(&format!("{}/mcp", host.url()), &ben.token, Era::Modern).expect("a client");
    let uris = ["pointsman://context/private/ana/a", "pointsman://context/plan/a"];
    let version = "2026-07-28";
    let params = json!({"notifications": {"resourceSubscriptions": uris}, "_meta": {
        "io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {}}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}).to_string();
    let headers = [("mcp-protocol-version", version), ("mcp-method", "subscriptions/listen")];
    let mut stream = client.open("POST", &headers, body.into()).await.expect("a stream");
    assert!(stream.event().await.expect("it goes on").is_some_and(|event| event.contains("acknowledged")));
    for key in ["private/ana/a", "plan/a"] {
        ana.call("write_context", json!({"key": key, "base_version": 0, "text": "words\n"})).await;
    }
    let first = stream.event().await.expect("it goes on").expect("an event");
    assert!(first.contains("pointsman://context/plan/a") && !first.contains("private"), "{first}");
}

/// A page of the log that holds only what a reader may not hear of does not end its reading.
#[tokio::test]
async fn the_log_goes_on_behind_what_a_reader_may_not_hear_of() {
    let host = Host::start().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let begin = ben.call("start", json!({"name": "ben"})).await["cursor"].as_str().expect("a cursor").to_owned();
    for n in 0..60 {
        ana.call("write_context", json!({"key": format!("private/ana/{n}"), "base_version": 0, "text": "words\n"})).await;
    }
    ana.call("write_context", json!({"key": "plan/a", "base_version": 0, "text": "words\n"})).await;
    let events = ben.call("lookup", json!({"uri": format!("events/{begin}")})).await;
    let subjects: Vec<&str> = events.as_array().expect("events").iter().filter_map(|event| event["subject"].as_str()).collect();
    assert!(subjects.contains(&"ctx:plan/a") && subjects.iter().all(|subject| !subject.contains("private")), "{subjects:?}");
}
