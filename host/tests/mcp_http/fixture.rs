//! A host of the transport alone: the real server and protocol in front of a key-value store.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use parking_lot::Mutex;
use pointsman::adapters::http::{self, Drained, Entry, HttpLimits, Routes};
use pointsman::adapters::mcp::{Mcp, McpConfig, SealingKey};
use pointsman::ports::clock::System;
use pointsman::ports::documents::{DocumentAnswer, DocumentAsk, DocumentRejected, DocumentSurface};
use pointsman::ports::offering::{ListKind, Listing, Offering};
use pointsman::ports::repository::GitResponse;
use pointsman::ports::sessions::{NotesChange, SessionBook, SessionNotes, SessionWord};
use pointsman::ports::surface::{CallError, Caller, GitCall, GitRejected, GitSurface, Rejected, Surface, ToolAnswer};
use pointsman_client::{Client, Era};
use pointsman_core::agent::TokenRecord;
use pointsman_core::event::Provenance;
use pointsman_core::ids::{PrincipalId, ProjectId, TokenId};
use pointsman_core::time::TimeMs;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const TOKEN: &str = "secret-of-ana";
pub(crate) const OTHER_TOKEN: &str = "secret-of-bo";

/// The store, and what tests watch of it. It outlives restarts of the server.
pub(crate) struct KeyValues {
    values: watch::Sender<HashMap<String, Value>>,
    waiting: watch::Sender<usize>,
    working: watch::Sender<usize>,
    may_finish: watch::Sender<bool>,
    broken: Mutex<Option<String>>,
    notes: Mutex<HashMap<String, SessionNotes>>,
}

/// Counts a call while it runs, however it ends.
struct Counted<'a>(&'a watch::Sender<usize>);

impl<'a> Counted<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl KeyValues {
    fn new() -> Self {
        Self {
            values: watch::Sender::new(HashMap::new()),
            waiting: watch::Sender::new(0),
            working: watch::Sender::new(0),
            may_finish: watch::Sender::new(false),
            broken: Mutex::new(None),
            notes: Mutex::default(),
        }
    }

    async fn until(count: &watch::Sender<usize>, wanted: usize) {
        let mut seen = count.subscribe();
        let reached = tokio::time::timeout(super::DEADLINE, seen.wait_for(|n| *n == wanted)).await;
        reached.expect("it happens before the deadline").expect("the sender lives");
    }

    /// Waits until so many calls of `wait_for_events` are pending.
    pub(crate) async fn until_waiting(&self, wanted: usize) {
        Self::until(&self.waiting, wanted).await;
    }

    /// Waits until so many calls of `slow_put` are pending.
    pub(crate) async fn until_working(&self, wanted: usize) {
        Self::until(&self.working, wanted).await;
    }

    /// Lets `slow_put` go on.
    pub(crate) fn let_work_finish(&self) {
        self.may_finish.send_replace(true);
    }

    /// Makes `/readyz` say so.
    pub(crate) fn break_down(&self, why: &str) {
        *self.broken.lock() = Some(why.to_owned());
    }

    fn put(&self, key: &str, value: Value) -> ToolAnswer {
        self.values.send_modify(|values| {
            values.insert(key.to_owned(), value);
        });
        answer(&json!({"stored": true}))
    }

    async fn wait(&self, key: &str) -> Value {
        let _waiting = Counted::new(&self.waiting);
        let mut values = self.values.subscribe();
        let values = values.wait_for(|values| values.contains_key(key)).await.expect("the sender lives");
        values[key].clone()
    }
}

fn answer(json: &Value) -> ToolAnswer {
    ToolAnswer { json: json.to_string(), is_error: false, handle: None }
}

fn principal(token: &str) -> Option<(&'static str, u8)> {
    match token {
        TOKEN => Some(("ana", 1)),
        OTHER_TOKEN => Some(("bo", 2)),
        _ => None,
    }
}

impl Offering for KeyValues {
    fn list(&self, _: &Caller, kind: ListKind) -> Arc<Listing> {
        let names = ["start", "put", "get", "whoami", "wait_for_events", "slow_put"];
        let texts = names.map(|name| json!({"name": name, "inputSchema": {"type": "object"}}).to_string());
        let all = names.into_iter().zip(texts.iter().map(String::as_str));
        Arc::new(Listing::new(all.filter(|_| kind == ListKind::Tools)))
    }
}

#[async_trait]
impl SessionBook for KeyValues {
    async fn read(&self, _: ProjectId, session: &str) -> Result<SessionNotes, Rejected> {
        Ok(self.notes.lock().get(session).cloned().unwrap_or_default())
    }

    async fn write(&self, _: ProjectId, session: &str, change: NotesChange<'_>) -> Result<Option<SessionNotes>, Rejected> {
        self.notes.lock().insert(session.to_owned(), change.after.clone());
        Ok(None)
    }

    async fn pass_on(&self, _: ProjectId, _: &str, _: SessionWord) -> bool {
        false
    }
}

#[async_trait]
impl Surface for KeyValues {
    async fn admit(&self, bearer: Option<&str>, slug: Option<&str>, trace: String) -> Result<Caller, Rejected> {
        let (name, n) = principal(bearer.ok_or(Rejected::Missing)?).ok_or(Rejected::Invalid { why: "nobody has it".to_owned() })?;
        if let Some(slug) = slug.filter(|slug| *slug != "demo") {
            return Err(Rejected::Forbidden { slug: slug.to_owned() });
        }
        let project = ProjectId::from_bytes([9; 16]);
        let token = TokenRecord {
            id: TokenId::from_bytes([n; 16]),
            principal: PrincipalId::from_bytes([n; 16]),
            principal_name: name.to_owned(),
            provenance: Provenance::Agent,
            projects: vec![project],
            capabilities: Vec::new(),
            toolsets: Vec::new(),
            created_at: TimeMs(0),
            expires_at: None,
            revoked_at: None,
        };
        Ok(Caller { token: Arc::new(token), project, handle: None, trace })
    }

    fn count(&self, _: &Caller) -> Result<(), Rejected> {
        Ok(())
    }

    async fn is_good(&self, _: &TokenRecord) -> bool {
        true
    }

    async fn scopes_needed(&self, _: Option<&str>) -> Vec<String> {
        Vec::new()
    }

    fn instructions(&self) -> &'static str {
        "Values are kept by key."
    }

    async fn call(&self, caller: &Caller, tool: &str, arguments: &RawValue) -> Result<ToolAnswer, CallError> {
        let arguments: Value = serde_json::from_str(arguments.get()).expect("the transport passes JSON");
        let key = arguments["key"].as_str().unwrap_or_default();
        Ok(match tool {
            "put" => self.put(key, arguments["value"].clone()),
            "slow_put" => {
                let _working = Counted::new(&self.working);
                self.may_finish.subscribe().wait_for(|may| *may).await.expect("the sender lives");
                self.put(key, Value::Null)
            }
            "get" => match self.values.borrow().get(key) {
                Some(value) => answer(&json!({"value": value})),
                None => ToolAnswer {
                    json: json!({"code": "not_found", "why": format!("no value at `{key}`"), "do": "put one"}).to_string(),
                    is_error: true,
                    handle: None,
                },
            },
            "wait_for_events" => answer(&json!({"value": self.wait(key).await})),
            "whoami" => answer(&json!({"principal": caller.token.principal_name, "handle": caller.handle, "trace": caller.trace})),
            "start" => {
                let handle = format!("agent:{}", arguments["name"].as_str().unwrap_or_default());
                ToolAnswer { handle: Some(handle), ..answer(&json!({"started": true})) }
            }
            other => return Err(CallError::UnknownTool(other.to_owned())),
        })
    }

    async fn ready(&self) -> Result<(), String> {
        self.broken.lock().clone().map_or(Ok(()), Err)
    }
}

/// Answers what it was asked, then the body it got.
struct GitEcho;

#[async_trait]
impl GitSurface for GitEcho {
    async fn serve_git(&self, mut call: GitCall) -> Result<GitResponse, GitRejected> {
        let Some((user, password)) = call.basic else { return Err(GitRejected::Unauthorized { why: "who are you?".to_owned() }) };
        let mut out = format!("{user} {password} {} {:?} {} {:?}\n", call.slug, call.service, call.advertise, call.protocol).into_bytes();
        call.body.read_to_end(&mut out).await.map_err(|_| GitRejected::Internal { trace: call.trace })?;
        Ok(GitResponse { content_type: "application/x-git-upload-pack-advertisement", body: Box::pin(std::io::Cursor::new(out)) })
    }
}

/// The system's randomness, counting the nonces that session ids are sealed with.
pub(crate) struct Randomness {
    nonces: AtomicUsize,
}

impl Randomness {
    /// Returns how many session ids were made.
    pub(crate) fn nonces(&self) -> usize {
        self.nonces.load(Ordering::SeqCst)
    }
}

impl System for Randomness {
    fn random(&self, bytes: &mut [u8]) {
        if bytes.len() == 12 {
            self.nonces.fetch_add(1, Ordering::SeqCst);
        }
        getrandom::fill(bytes).expect("the system has randomness");
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own clock")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

#[derive(Clone, Copy)]
pub(crate) struct HostOptions {
    pub(crate) connections_max: usize,
    pub(crate) header_read_ms: u64,
    pub(crate) body_read_ms: u64,
    pub(crate) body_bytes_max: usize,
    pub(crate) drain_ms: u64,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self { connections_max: 256, header_read_ms: 20_000, body_read_ms: 20_000, body_bytes_max: 1 << 20, drain_ms: 20_000 }
    }
}

pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) surface: Arc<KeyValues>,
    pub(crate) system: Arc<Randomness>,
    pub(crate) shutdown: CancellationToken,
    options: HostOptions,
    served: JoinHandle<std::io::Result<Drained>>,
}

impl Host {
    pub(crate) async fn start(options: HostOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::serve(listener, options, Arc::new(KeyValues::new()), Arc::new(Randomness { nonces: AtomicUsize::new(0) }))
    }

    fn serve(listener: TcpListener, options: HostOptions, surface: Arc<KeyValues>, system: Arc<Randomness>) -> Self {
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let mcp = Mcp::new(
            Arc::<KeyValues>::clone(&surface),
            Arc::<KeyValues>::clone(&surface),
            McpConfig {
                server_name: "pointsman",
                server_version: "0.0.0-test",
                sealing_key: SealingKey { id: 1, bytes: [42; 32] },
                older_keys: Vec::new(),
                state_key: [43; 32],
                book: Arc::<KeyValues>::clone(&surface),
                tag: "".into(),
                system: Arc::<Randomness>::clone(&system),
                now: Arc::new(|| TimeMs(1_790_000_000_000)),
                draining: shutdown.clone(),
            },
        );
        let routes = Routes {
            siblings: None,
            mcp: Arc::new(mcp),
            git: Arc::new(GitEcho),
            documents: Arc::new(NoDocuments),
            surface: Arc::<KeyValues>::clone(&surface),
            rest: None,
            system: Arc::<Randomness>::clone(&system),
            origins: Vec::new(),
            hosts: Vec::new(),
            entry: Entry::default(),
        };
        let limits = HttpLimits {
            connections_max: options.connections_max,
            header_read_ms: options.header_read_ms,
            body_read_ms: options.body_read_ms,
            body_bytes_max: options.body_bytes_max,
            git_body_bytes_max: 4 << 20,
            drain_ms: options.drain_ms,
            ..HttpLimits::default()
        };
        let served = tokio::spawn(http::serve(listener, routes, limits, shutdown.clone()));
        Self { address, surface, system, shutdown, options, served }
    }

    /// Stops the server and starts another one on the same port, with the same keys and values.
    pub(crate) async fn restart(self) -> Self {
        let (address, surface, system, options) = (self.address, Arc::clone(&self.surface), Arc::clone(&self.system), self.options);
        self.stop().await;
        let listener = TcpListener::bind(address).await.expect("the port is free again");
        Self::serve(listener, options, surface, system)
    }

    pub(crate) async fn stop(self) -> Drained {
        self.shutdown.cancel();
        self.served.await.expect("the server does not panic").expect("it served")
    }

    pub(crate) fn client(&self, era: Era) -> Client {
        Client::new(&format!("http://{}/mcp", self.address), TOKEN, era).expect("a good URL")
    }
}

/// Sends text over a connection of its own and returns all that comes back.
pub(crate) async fn talk(address: SocketAddr, text: &str) -> String {
    let mut connection = TcpStream::connect(address).await.expect("connects");
    connection.write_all(text.as_bytes()).await.expect("sends");
    let mut answer = Vec::new();
    // A reset after the answer is as good an end as any.
    drop(connection.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("writes to memory");
    encoder.finish().expect("writes to memory")
}

pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut plain).expect("it is gzip");
    plain
}

/// A host without documents.
struct NoDocuments;

#[async_trait]
impl DocumentSurface for NoDocuments {
    async fn document(&self, _: &Caller, _: Option<&str>, _: &str, _: DocumentAsk) -> Result<DocumentAnswer, DocumentRejected> {
        Err(DocumentRejected::Internal)
    }

    async fn documents(&self, _: &Caller, _: Option<&str>, _: &str, _: &str) -> Result<DocumentAnswer, DocumentRejected> {
        Err(DocumentRejected::Internal)
    }
}
