//! A server of rmcp's own making, in this process: what it answers is what the SDK answers.
//!
//! It declares what our host declares, so that the forms of the answers can be compared, and leaves all else to the SDK.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData, Implementation, JsonObject, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A server with the one tool that ours has too.
#[derive(Clone, Copy)]
struct Desk;

impl Desk {
    fn tool() -> Tool {
        let Value::Object(schema) = json!({"type": "object", "properties": {"uri": {"type": "string"}}, "required": ["uri"]}) else {
            unreachable!("a schema is an object")
        };
        Tool::new("lookup", "Looks something up", Arc::<JsonObject>::new(schema))
    }
}

impl ServerHandler for Desk {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_completions();
        ServerConfig::new(capabilities.build()).with_server_info(Implementation::new("beside", "1")).with_instructions("Look things up.")
    }

    async fn list_tools(&self, _: Option<PaginatedRequestParams>, _: RequestContext<RoleServer>) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![Self::tool()]))
    }

    async fn call_tool(&self, asked: CallToolRequestParams, _: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        if asked.name != "lookup" {
            return Err(ErrorData::invalid_params(format!("Unknown tool: {}", asked.name), None));
        }
        let uri = asked.arguments.as_ref().and_then(|given| given.get("uri")).and_then(Value::as_str);
        let answer = match uri {
            Some(uri) => CallToolResult::structured(json!({"result": {"uri": uri}})),
            None => CallToolResult::structured_error(json!({"why": "`uri` is not a string"})),
        };
        Ok(answer.into())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        (name == "lookup").then(Self::tool)
    }
}

/// The server while it runs.
pub(crate) struct Beside {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Beside {
    /// Starts the server on a loopback port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        // `Origin` is checked as our host checks it, and JSON is preferred where the SDK has the choice.
        let config = StreamableHttpServerConfig::default().enforce_origin_validation().with_json_response(true);
        let service = StreamableHttpService::new(|| Ok(Desk), Arc::new(LocalSessionManager::default()), config);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream.set_nodelay(true));
                let service = service.clone();
                let answer = service_fn(move |request| {
                    let service = service.clone();
                    async move { Ok::<_, Infallible>(service.handle(request).await) }
                });
                connections.spawn(async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await) });
            }
        });
        Self { address, _serving: serving }
    }
}
