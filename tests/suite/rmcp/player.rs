//! rmcp's client with what the stories need of it, in every revision it speaks.

use std::time::Duration;

use pointsman_tests::{DEADLINE_S, Host};
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationAction,
    ErrorData, Implementation, JsonObject, ProtocolVersion, ResourceUpdatedNotificationParam, ServerNotification, SubscriptionFilter,
};
use rmcp::service::{NotificationContext, RequestContext, RunningService, Subscription};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientCacheConfig, ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Waits that are given up at once.
pub(crate) const WAITS: usize = 10;

/// How a client makes acquaintance, and in which revision it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// 2026-07-28, by `server/discover`.
    Modern,
    /// What is negotiated: the latest.
    Auto,
    /// A session.
    V2025_11_25,
    /// A session.
    V2025_06_18,
    /// A session.
    V2025_03_26,
}

impl Speaks {
    /// Returns whether each request stands alone.
    pub(crate) fn is_modern(self) -> bool {
        self.version() == ProtocolVersion::V_2026_07_28
    }

    fn version(self) -> ProtocolVersion {
        match self {
            Self::Modern | Self::Auto => ProtocolVersion::V_2026_07_28,
            Self::V2025_11_25 => ProtocolVersion::V_2025_11_25,
            Self::V2025_06_18 => ProtocolVersion::V_2025_06_18,
            Self::V2025_03_26 => ProtocolVersion::V_2025_03_26,
        }
    }

    fn lifecycle(self) -> ClientLifecycleMode {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        match self {
            Self::Modern => ClientLifecycleMode::Discover { preferred_versions },
            Self::Auto => ClientLifecycleMode::Auto { preferred_versions, legacy_version: None },
            Self::V2025_11_25 | Self::V2025_06_18 | Self::V2025_03_26 => ClientLifecycleMode::Initialize,
        }
    }
}

/// What a host may tell its client, or ask it.
struct Ears {
    config: ClientConfig,
    updates: mpsc::UnboundedSender<String>,
}

impl ClientHandler for Ears {
    /// Says `Alice` wherever a text is asked for.
    async fn create_elicitation(&self, asked: ElicitRequestParams, _: RequestContext<RoleClient>) -> Result<ElicitResult, ErrorData> {
        let asked = serde_json::to_value(asked).expect("a request is JSON");
        let fields = asked["requestedSchema"]["properties"].as_object().cloned().unwrap_or_default();
        let filled = fields.into_iter().map(|(name, kind)| {
            let said = if kind["format"] == "email" { "alice@example.invalid" } else { "Alice" };
            (name, said.into())
        });
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(Value::Object(filled.collect())))
    }

    async fn on_resource_updated(&self, told: ResourceUpdatedNotificationParam, _: NotificationContext<RoleClient>) {
        drop(self.updates.send(told.uri));
    }

    fn get_info(&self) -> ClientConfig {
        self.config.clone()
    }
}

/// What tells of changes.
pub(crate) enum Subscribed {
    /// A stream of its own.
    Listening(Box<Subscription>),
    /// The session's stream.
    InSession,
}

/// A connected client.
pub(crate) struct Player {
    client: RunningService<RoleClient, Ears>,
    speaks: Speaks,
    updates: mpsc::UnboundedReceiver<String>,
    /// Which agent calls: in the modern era nothing else says it.
    handle: Option<String>,
}

impl Player {
    /// Connects, with a token of its own.
    pub(crate) async fn connected(host: &Host, name: &str, speaks: Speaks) -> Self {
        let to = StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp", host.url())).auth_header(host.token(name));
        let (sender, updates) = mpsc::unbounded_channel();
        let config = ClientConfig::new(ClientCapabilities::builder().enable_elicitation().build(), Implementation::new("story", "1"))
            .with_protocol_version(speaks.version());
        let ears = Ears { config, updates: sender };
        let connecting = ears.serve_with_lifecycle(StreamableHttpClientTransport::from_config(to), speaks.lifecycle());
        let client = soon("the acquaintance", connecting).await.unwrap_or_else(|error| unreachable!("{error}\n{}", host.log()));
        // Each list is asked for.
        client.set_response_cache_config(ClientCacheConfig::disabled()).await;
        let negotiated = client.peer_info().expect("the host said who it is").protocol_version.clone();
        assert_eq!(negotiated, speaks.version(), "the revision that was asked for is spoken");
        Self { client, speaks, updates, handle: None }
    }

    /// Returns the names of the tools.
    pub(crate) async fn list_tools(&mut self) -> Vec<String> {
        let listed = soon("the tools", self.client.list_all_tools()).await.expect("the tools are listed");
        listed.into_iter().map(|tool| tool.name.into_owned()).collect()
    }

    /// Makes the client an agent of this name.
    pub(crate) async fn start(&mut self, name: &str) {
        let started = self.call("start", json!({"name": name, "capabilities": ["echo"]})).await;
        let handle = started["handle"].as_str().expect("a started agent has a handle").to_owned();
        self.handle = self.speaks.is_modern().then_some(handle);
    }

    /// Calls a tool of the host's own; returns its `result`.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Value {
        let answer = soon(tool, self.client.call_tool(self.params(tool, arguments))).await;
        let answer = answer.unwrap_or_else(|error| unreachable!("{tool}: {error}"));
        let said = text_of(&answer);
        assert_ne!(answer.is_error, Some(true), "`{tool}` was refused: {said}");
        let text: Value = serde_json::from_str(&said).expect("the text of the host's own tools is JSON");
        if self.speaks != Speaks::V2025_03_26 {
            assert_eq!(answer.structured_content.as_ref(), Some(&text), "the text of `{tool}` is its structured content");
        }
        text["result"].clone()
    }

    /// Calls a tool, whoever offers it; returns what it says.
    pub(crate) async fn text(&self, tool: &str, arguments: Value) -> String {
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(object(arguments));
        let answer = soon(tool, self.client.call_tool(params)).await;
        text_of(&answer.unwrap_or_else(|error| unreachable!("{tool}: {error}")))
    }

    /// Takes what waits for the agent.
    pub(crate) async fn messages(&self, arguments: Value) -> Vec<Value> {
        let taken = self.call("wait_for_events", arguments).await;
        taken["messages"].as_array().expect("messages").clone()
    }

    fn params(&self, tool: &str, arguments: Value) -> CallToolRequestParams {
        let mut arguments = object(arguments);
        // `start` makes the agent that the others name.
        if let Some(handle) = self.handle.clone().filter(|_| tool != "start") {
            arguments.insert("agent".to_owned(), handle.into());
        }
        CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments)
    }

    /// Begins waits that nothing ends soon.
    pub(crate) fn wait_in_vain(&self) -> Vec<JoinHandle<()>> {
        let begin = |_| {
            let (peer, params) = (self.client.peer().clone(), self.params("wait_for_events", json!({"max_s": 50})));
            tokio::spawn(async move { drop(peer.call_tool(params).await) })
        };
        (0..WAITS).map(begin).collect()
    }

    /// Gives waits up: rmcp cancels a request whose future is dropped.
    pub(crate) async fn give_up(waits: Vec<JoinHandle<()>>) {
        for wait in &waits {
            wait.abort();
        }
        for wait in waits {
            drop(soon("the end of a wait", wait).await);
        }
    }

    /// Subscribes to a resource.
    pub(crate) async fn subscribe(&mut self, uri: &str) -> Subscribed {
        if self.speaks.is_modern() {
            let filter = SubscriptionFilter::builder().resource_subscription(uri).build();
            let listening = soon("the subscription", self.client.listen(filter.clone())).await.expect("it is acknowledged");
            assert_eq!(*listening.acknowledged(), filter, "the subscription is honoured as asked");
            return Subscribed::Listening(Box::new(listening));
        }
        // What came before is old.
        while self.updates.try_recv().is_ok() {}
        #[expect(deprecated, reason = "the sessions of older revisions subscribe so")]
        let subscribed = self.client.subscribe(rmcp::model::SubscribeRequestParams::new(uri));
        soon("the subscription", subscribed).await.expect("it is accepted");
        Subscribed::InSession
    }

    /// Waits for the next change of the resource.
    pub(crate) async fn changed(&mut self, subscribed: &mut Subscribed, uri: &str) {
        let told = match subscribed {
            Subscribed::Listening(listening) => match soon("the news of a change", listening.next()).await.expect("the stream is whole") {
                Some(ServerNotification::ResourceUpdatedNotification(told)) => told.params.uri,
                other => unreachable!("instead of a change: {other:?}, {:?}", listening.end()),
            },
            Subscribed::InSession => soon("the news of a change", self.updates.recv()).await.expect("the client listens"),
        };
        assert_eq!(told, uri, "the resource that was subscribed to changed");
    }

    /// Ends a subscription.
    pub(crate) async fn unsubscribe(&self, subscribed: Subscribed, uri: &str) {
        match subscribed {
            Subscribed::Listening(mut listening) => soon("the end", listening.cancel()).await.expect("it is cancelled"),
            Subscribed::InSession => {
                #[expect(deprecated, reason = "the sessions of older revisions unsubscribe so")]
                let ended = self.client.unsubscribe(rmcp::model::UnsubscribeRequestParams::new(uri));
                soon("the end", ended).await.expect("it is accepted");
            }
        }
    }
}

/// Returns what comes of a future, or fails when it takes too long.
async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let came = tokio::time::timeout(Duration::from_secs(DEADLINE_S), future).await;
    came.unwrap_or_else(|_| unreachable!("{what} did not come within {DEADLINE_S} s"))
}

fn object(arguments: Value) -> JsonObject {
    let Value::Object(arguments) = arguments else { unreachable!("arguments are an object: {arguments}") };
    arguments
}

fn text_of(answer: &CallToolResult) -> String {
    answer.content.iter().filter_map(|part| part.as_text()).map(|part| part.text.as_str()).collect()
}
