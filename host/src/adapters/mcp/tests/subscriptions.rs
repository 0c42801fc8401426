//! Who asked to hear of shared documents hears what changed, of those that it may read, and of each the newest.

use std::sync::atomic::{AtomicU32, Ordering};

use pointsman_core::context::DocumentKey;

use super::*;
use crate::ports::offering::{DocumentNews, DocumentWrite, Reach, keys_of};

/// News that are queued for one listener.
const QUEUED_MAX: usize = 8;

/// Documents of which those below `secret/` are closed to everybody.
struct Documents {
    news: broadcast::Sender<News>,
    /// Times it is not known yet who may read what.
    unknown: AtomicU32,
}

#[async_trait]
impl Offering for Documents {
    fn list(&self, _: &Caller, _: ListKind) -> Arc<Listing> {
        Arc::new(Listing::new([]))
    }

    fn has_resource(&self, _: &Caller, uri: &str) -> bool {
        uri.starts_with("pointsman://") && keys_of(uri).is_none_or(|glob| glob.is_ok())
    }

    async fn news(&self, _: &Caller) -> Result<broadcast::Receiver<News>, CallError> {
        Ok(self.news.subscribe())
    }

    async fn may_hear(&self, caller: &Caller, key: &DocumentKey) -> Result<bool, CallError> {
        let is_unknown = self.unknown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if is_unknown { Err(CallError::Internal { trace: caller.trace.clone() }) } else { Ok(!key.as_str().starts_with("secret/")) }
    }
}

impl Documents {
    fn new() -> Arc<Self> {
        Arc::new(Self { news: broadcast::Sender::new(QUEUED_MAX), unknown: AtomicU32::new(0) })
    }

    fn written(&self, key: &str, version: u64) {
        let write = DocumentWrite {
            version,
            before: version.checked_sub(1).filter(|before| *before > 0),
            patch: Some(json!([{"op": "add", "path": "/x", "value": version}])),
            author: "bo".to_owned(),
            is_deleted: false,
            is_several: false,
        };
        self.happened(key, Reach::Document, Some(write));
    }

    fn happened(&self, key: &str, reach: Reach, write: Option<DocumentWrite>) {
        let news = DocumentNews { key: key.parse().expect("a key"), reach, write };
        self.news.send(News::Document(Arc::new(news))).expect("somebody listens");
    }
}

async fn asked_to_listen(endpoint: &Mcp, uris: &[String]) -> Reply {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"notifications": {"resourceSubscriptions": uris}, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}).to_string();
    let headers = [MODERN[0], ("mcp-method", b"subscriptions/listen".as_slice()), ("authorization", b"Bearer secret".as_slice())];
    sent(endpoint, Method::Post, &body, &headers).await
}

/// Listens; also returns what was acknowledged.
async fn listening_to(endpoint: &Mcp, uris: &[&str]) -> (Reply, Value) {
    let uris: Vec<String> = uris.iter().map(|uri| (*uri).to_owned()).collect();
    let mut reply = asked_to_listen(endpoint, &uris).await;
    let acknowledged = told(&mut reply).await["notifications"]["resourceSubscriptions"].take();
    (reply, acknowledged)
}

/// Returns the parameters of what a stream says next.
async fn told(reply: &mut Reply) -> Value {
    let said = said(reply).await.expect("it goes on");
    let data = said.split("data: ").nth(1).unwrap_or_else(|| unreachable!("no data: {said}"));
    serde_json::from_str::<Value>(data).expect("JSON")["params"].take()
}

/// A session and what speaks in it.
struct Opened<'a> {
    endpoint: &'a Mcp,
    id: String,
}

impl<'a> Opened<'a> {
    async fn new(endpoint: &'a Mcp) -> Self {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{}}}"#;
        let opened = sent(endpoint, Method::Post, body, &[("authorization", b"Bearer secret")]).await;
        let id = opened.fields.iter().find(|(name, _)| *name == headers::SESSION_ID).map(|(_, id)| id.clone()).expect("a session");
        Self { endpoint, id }
    }

    async fn ask(&self, method: &str, uri: &str) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 2, "method": method, "params": {"uri": uri}}).to_string();
        let headers = [("authorization", b"Bearer secret".as_slice()), (headers::SESSION_ID, self.id.as_bytes())];
        body_of(&sent(self.endpoint, Method::Post, &body, &headers).await)
    }

    async fn stream(&self) -> Reply {
        let headers = [("authorization", b"Bearer secret".as_slice()), (headers::SESSION_ID, self.id.as_bytes())];
        sent(self.endpoint, Method::Get, "", &headers).await
    }
}

const PLAN: &str = "pointsman://context/plan/**";

#[tokio::test]
async fn a_listener_hears_what_changed_in_the_documents_it_may_read() {
    let documents = Documents::new();
    let endpoint = endpoint_of(Arc::clone(&documents) as Arc<dyn Offering>);
    let asked = [PLAN, "pointsman://context/secret/**", "pointsman://context/secret/a", "pointsman://context/../*"];
    let (mut stream, acknowledged) = listening_to(&endpoint, &asked).await;
    assert_eq!(acknowledged, json!([PLAN, "pointsman://context/secret/**", "pointsman://context/secret/a"]));
    documents.written("secret/a", 7);
    documents.written("notes/a", 7);
    documents.written("plan/api", 3);
    insta::assert_snapshot!(told(&mut stream).await, @r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":1,"pointsman/author":"bo","pointsman/from":2,"pointsman/patch":[{"op":"add","path":"/x","value":3}],"pointsman/version":3},"uri":"pointsman://context/plan/api"}"#);
    let gone = DocumentWrite { version: 4, before: Some(3), patch: None, author: "bo".to_owned(), is_deleted: true, is_several: false };
    documents.happened("plan/api", Reach::Document, Some(gone));
    insta::assert_snapshot!(told(&mut stream).await, @r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":1,"pointsman/author":"bo","pointsman/deleted":true,"pointsman/from":3,"pointsman/version":4},"uri":"pointsman://context/plan/api"}"#);
    documents.happened("plan/api", Reach::Document, None);
    insta::assert_snapshot!(told(&mut stream).await, @r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":1},"uri":"pointsman://context/plan/api"}"#);
}

#[tokio::test]
async fn what_is_queued_is_told_once_for_each_document() {
    let documents = Documents::new();
    let endpoint = endpoint_of(Arc::clone(&documents) as Arc<dyn Offering>);
    let (mut stream, _) = listening_to(&endpoint, &[PLAN, "pointsman://context"]).await;
    for (key, version) in [("plan/a", 2), ("plan/b", 1), ("plan/a", 3), ("secret/x", 9), ("plan/a", 4), ("notes/n", 2)] {
        documents.written(key, version);
    }
    let told = [told(&mut stream).await, told(&mut stream).await, told(&mut stream).await];
    assert_eq!((&told[0]["uri"], &told[0]["_meta"]["pointsman/version"]), (&json!("pointsman://context/plan/b"), &json!(1)));
    assert!(told[0]["_meta"]["pointsman/patch"].is_array() && told[0]["_meta"].get("pointsman/from").is_none());
    let joined =
        json!({"io.modelcontextprotocol/subscriptionId": 1, "pointsman/author": "bo", "pointsman/since": 1, "pointsman/version": 4});
    assert_eq!((&told[1]["uri"], &told[1]["_meta"]), (&json!("pointsman://context/plan/a"), &joined));
    assert_eq!(told[2]["uri"], "pointsman://context", "once for all of them");
}

#[tokio::test]
async fn a_closed_document_does_not_show_in_the_lists() {
    let documents = Documents::new();
    let endpoint = endpoint_of(Arc::clone(&documents) as Arc<dyn Offering>);
    let (mut stream, _) = listening_to(&endpoint, &["pointsman://context", "pointsman://events"]).await;
    documents.written("secret/x", 1);
    documents.news.send(News::Resource("pointsman://events".into())).expect("somebody listens");
    assert_eq!(told(&mut stream).await["uri"], "pointsman://events", "of what is no document");
    documents.written("secret/x", 2);
    documents.happened("plan/a", Reach::Log, None);
    assert_eq!(told(&mut stream).await["uri"], "pointsman://events", "the log alone");
    documents.written("secret/x", 3);
    documents.written("plan/a", 1);
    assert_eq!(told(&mut stream).await["uri"], "pointsman://context");
    assert_eq!(told(&mut stream).await["uri"], "pointsman://events");
}

#[tokio::test]
async fn who_fell_behind_is_told_that_everything_may_have_changed() {
    let documents = Documents::new();
    let endpoint = endpoint_of(Arc::clone(&documents) as Arc<dyn Offering>);
    let (mut stream, _) = listening_to(&endpoint, &[PLAN, "pointsman://context/secret/a"]).await;
    (1..=2 * QUEUED_MAX as u64).for_each(|version| documents.written("plan/a", version));
    let told = [told(&mut stream).await, told(&mut stream).await];
    assert_eq!((&told[0]["uri"], &told[1]["uri"]), (&json!(PLAN), &json!("pointsman://context/secret/a")));
}

#[tokio::test]
async fn who_may_read_is_asked_until_it_is_known() {
    let documents = Documents::new();
    let endpoint = endpoint_of(Arc::clone(&documents) as Arc<dyn Offering>);
    let (mut stream, _) = listening_to(&endpoint, &[PLAN]).await;
    documents.unknown.store(1, Ordering::Relaxed);
    documents.written("plan/a", 1);
    assert_eq!(told(&mut stream).await["_meta"]["pointsman/version"], 1);
}

#[tokio::test]
async fn a_session_hears_of_documents_until_it_unsubscribes() {
    let documents = Documents::new();
    let endpoint = endpoint_of(Arc::clone(&documents) as Arc<dyn Offering>);
    let session = Opened::new(&endpoint).await;
    for uri in [PLAN, "pointsman://context/secret/a", "pointsman://context"] {
        assert_eq!(session.ask("resources/subscribe", uri).await["result"], json!({}), "{uri}");
    }
    let wrong = session.ask("resources/subscribe", "pointsman://context/../*").await;
    assert_eq!(wrong["error"]["code"], -32002, "{wrong}");
    let mut stream = session.stream().await;
    documents.written("secret/a", 1);
    documents.written("plan/a", 2);
    insta::assert_snapshot!(told(&mut stream).await, @r#"{"_meta":{"pointsman/author":"bo","pointsman/from":1,"pointsman/patch":[{"op":"add","path":"/x","value":2}],"pointsman/version":2},"uri":"pointsman://context/plan/a"}"#);
    assert_eq!(told(&mut stream).await, json!({"uri": "pointsman://context"}));
    assert_eq!(session.ask("resources/unsubscribe", PLAN).await["result"], json!({}));
    documents.written("plan/a", 3);
    assert_eq!(told(&mut stream).await, json!({"uri": "pointsman://context"}), "of the list alone");
}

#[tokio::test]
async fn patterns_are_bounded() {
    let documents = Documents::new();
    let endpoint = endpoint_of(Arc::clone(&documents) as Arc<dyn Offering>);
    let patterns: Vec<String> = (0..=32).map(|n| format!("pointsman://context/{n}/*")).collect();
    let refused = asked_to_listen(&endpoint, &patterns).await;
    assert_eq!(body_of(&refused)["error"]["code"], -32602);
    let session = Opened::new(&endpoint).await;
    for pattern in &patterns[..32] {
        assert_eq!(session.ask("resources/subscribe", pattern).await["result"], json!({}));
    }
    assert_eq!(session.ask("resources/subscribe", &patterns[32]).await["error"]["code"], -32602);
    assert_eq!(session.ask("resources/subscribe", &patterns[0]).await["result"], json!({}), "it has that one");
    assert_eq!(session.ask("resources/subscribe", "pointsman://context/0/a").await["result"], json!({}));
}
