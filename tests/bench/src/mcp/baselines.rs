//! What a call is compared with: a bare JSON echo on hyper, and a server of the official SDK, each a process of its own.
//!
//! **The echo:** hyper 1, the body read whole, parsed as JSON and written again.
//!
//! **The SDK:** rmcp's own handler and streamable HTTP service over the same hyper, in the mode that costs it least: no sessions, and
//! plain JSON answers instead of event streams. Its one tool gives an answer of the form of the host's, made once; its schema is
//! shared, it checks no credential, counts nothing and looks nothing up.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData, Implementation, JsonObject, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::figures::{BenchError, now, setup};

/// Seconds a baseline may take to start.
const START_S: u64 = 10;

/// A baseline while it runs.
pub(super) struct Baseline {
    child: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Baseline {
    /// Starts this program once more, as the baseline that an argument names.
    ///
    /// # Errors
    /// It does not start.
    pub(super) async fn start(argument: &str) -> Result<Self, BenchError> {
        let own = std::env::current_exe().map_err(setup)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(setup)?;
        let address = listener.local_addr().map_err(setup)?;
        drop(listener);
        let child = Command::new(own).args([argument, &address.to_string()]).kill_on_drop(true).spawn().map_err(setup)?;
        let began = now();
        while began.elapsed().as_secs() < START_S {
            if TcpStream::connect(address).is_ok() {
                return Ok(Self { child, address });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(setup(format!("the baseline of {argument} did not start")))
    }

    /// Returns its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Ends it.
    ///
    /// # Errors
    /// It cannot be killed.
    pub(super) async fn end(mut self) -> Result<(), BenchError> {
        self.child.kill().await.map_err(setup)
    }
}

/// Serves the echo until it is killed.
pub(crate) async fn serve_echo(address: SocketAddr) -> Result<(), BenchError> {
    let listener = tokio::net::TcpListener::bind(address).await.map_err(setup)?;
    loop {
        let (stream, _) = listener.accept().await.map_err(setup)?;
        stream.set_nodelay(true).map_err(setup)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo)));
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, BenchError> {
    let body = request.into_body().collect().await.map_err(setup)?.to_bytes();
    let value: Value = serde_json::from_slice(&body).map_err(setup)?;
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Serves the SDK until it is killed.
pub(crate) async fn serve_rmcp(address: SocketAddr) -> Result<(), BenchError> {
    let listener = tokio::net::TcpListener::bind(address).await.map_err(setup)?;
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    let desk = Desk::new();
    let service = StreamableHttpService::new(move || Ok(desk.clone()), Arc::new(NeverSessionManager::default()), config);
    loop {
        let (stream, _) = listener.accept().await.map_err(setup)?;
        stream.set_nodelay(true).map_err(setup)?;
        let service = service.clone();
        let answer = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.handle(request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

/// A server with one tool, whose answer is there already.
#[derive(Clone)]
struct Desk {
    tool: Tool,
    answer: Arc<CallToolResult>,
}

impl Desk {
    fn new() -> Self {
        let mut schema = JsonObject::new();
        schema.insert("type".to_owned(), "object".into());
        schema.insert("properties".to_owned(), json!({"uri": {"type": "string"}}));
        schema.insert("required".to_owned(), json!(["uri"]));
        let agent = json!({"name": "bench", "capabilities": [], "state": "present", "seen_ms_ago": 0});
        let answer = CallToolResult::structured(json!({"result": {"uri": "agents", "agents": [agent]}, "unread": 0}));
        Self { tool: Tool::new("lookup", "Looks something up", Arc::new(schema)), answer: Arc::new(answer) }
    }
}

impl ServerHandler for Desk {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build()).with_server_info(Implementation::new("baseline", "1"))
    }

    async fn list_tools(&self, _: Option<PaginatedRequestParams>, _: RequestContext<RoleServer>) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![self.tool.clone()]))
    }

    async fn call_tool(&self, asked: CallToolRequestParams, _: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        if asked.name != "lookup" || !asked.arguments.is_some_and(|given| given.get("uri").is_some_and(Value::is_string)) {
            return Err(ErrorData::invalid_params("unknown tool or argument", None));
        }
        Ok(CallToolResult::clone(&self.answer).into())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        (name == "lookup").then(|| self.tool.clone())
    }
}
