//! Requests of components: plain HTTP/1.1, one connection each.
//!
//! **Invariant:** a request ends within its limits, whatever the other side does; nothing is followed or repeated.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::handshake;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::ports::fetch::{Fetch, FetchAnswer, FetchError, FetchLimits, FetchRequest};

/// Makes requests over plain HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainFetch;

#[async_trait]
impl Fetch for PlainFetch {
    async fn fetch(&self, request: &FetchRequest, limits: FetchLimits) -> Result<FetchAnswer, FetchError> {
        let limit = Duration::from_millis(limits.limit_ms);
        let timed_out = |_| FetchError::TimedOut { limit_ms: limits.limit_ms };
        tokio::time::timeout(limit, exchange(request, limits.body_bytes_max)).await.map_err(timed_out)?
    }
}

async fn exchange(request: &FetchRequest, body_bytes_max: usize) -> Result<FetchAnswer, FetchError> {
    let built = build(request)?;
    let authority = request.url.authority();
    let unreachable = |why: String| FetchError::Unreachable { authority: authority.clone(), why };
    let stream = TcpStream::connect(&authority).await.map_err(|error| unreachable(error.to_string()))?;
    let (mut connection, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
    let broken = |error: hyper::Error| FetchError::Broken(error.to_string());
    // Driven here rather than in a task of its own, so that a request that is given up ends its connection.
    tokio::pin!(driver);
    let answer = async {
        let answer = connection.send_request(built).await.map_err(broken)?;
        let status = answer.status().as_u16();
        let mut incoming = answer.into_body();
        let mut body = Vec::new();
        while body.len() < body_bytes_max {
            let Some(frame) = incoming.frame().await else { break };
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                body.extend_from_slice(&data[..data.len().min(body_bytes_max - body.len())]);
            }
        }
        Ok(FetchAnswer { status, body })
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may be closed with the answer read but not yet taken.
        _ = &mut driver => answer.await,
    }
}

fn build(request: &FetchRequest) -> Result<Request<Full<Bytes>>, FetchError> {
    let url = &request.url;
    let host = if url.port == 80 { url.host.clone() } else { url.authority() };
    let mut builder = Request::builder().method(request.method.as_str()).uri(&url.path).header(HOST, host).header(CONNECTION, "close");
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    builder.body(Full::new(Bytes::from(request.body.clone()))).map_err(|error| FetchError::Malformed(error.to_string()))
}
