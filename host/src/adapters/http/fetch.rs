//! Requests of components, and of the host's own services: one connection each.
//!
//! **Invariant:** a request ends within its limits, whatever the other side does; nothing is followed or repeated.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use super::outgoing::{Outgoing, OutgoingError};
use super::tls::TlsError;
use crate::ports::fetch::{Fetch, FetchAnswer, FetchError, FetchLimits, FetchRequest};
use crate::service::kit::chain;

/// Makes requests, over TLS where the address says so.
#[derive(Clone)]
pub struct WebFetch {
    outgoing: Outgoing,
}

impl WebFetch {
    /// Returns what trusts the roots browsers trust.
    ///
    /// # Errors
    /// The TLS library has no fitting protocol.
    pub fn new() -> Result<Self, TlsError> {
        Ok(Self { outgoing: Outgoing::new(Vec::new())? })
    }
}

#[async_trait]
impl Fetch for WebFetch {
    async fn fetch(&self, request: &FetchRequest, limits: FetchLimits) -> Result<FetchAnswer, FetchError> {
        let limit = Duration::from_millis(limits.limit_ms);
        let exchange = self.outgoing.exchange(build(request)?, limits.body_bytes_max);
        let answered = tokio::time::timeout(limit, exchange).await.map_err(|_| FetchError::TimedOut { limit_ms: limits.limit_ms })?;
        match answered {
            Ok(answer) => Ok(FetchAnswer { status: answer.status, body: answer.body }),
            Err(error @ OutgoingError::NotUrl(_)) => Err(FetchError::Malformed(error.to_string())),
            Err(OutgoingError::Unreachable { authority, source }) => Err(FetchError::Unreachable { authority, why: chain(&source) }),
            Err(OutgoingError::Broken { why, .. }) => Err(FetchError::Broken(why)),
        }
    }
}

fn build(request: &FetchRequest) -> Result<Request<Full<Bytes>>, FetchError> {
    let mut builder = Request::builder().method(request.method.as_str()).uri(request.url.to_string());
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    builder.body(Full::new(Bytes::from(request.body.clone()))).map_err(|error| FetchError::Malformed(error.to_string()))
}
