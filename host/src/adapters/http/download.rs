//! Components from URLs. Who asks compares digests.
//!
//! **Invariants:** bounded in time and size; a redirection is not followed, so that what is fetched is what was named.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{Request, StatusCode};

use super::outgoing::Outgoing;
use super::tls::TlsError;
use crate::ports::registry::Download;
use crate::service::kit::chain;

/// Milliseconds for one component.
const DOWNLOAD_MS: u64 = 60_000;

/// Fetches components from the web.
pub struct WebDownload {
    outgoing: Outgoing,
}

impl WebDownload {
    /// Returns a downloader that trusts the roots browsers trust.
    ///
    /// # Errors
    /// The TLS library has no fitting protocol.
    pub fn new() -> Result<Self, TlsError> {
        Ok(Self { outgoing: Outgoing::new(Vec::new())? })
    }

    async fn fetch(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
        let request = Request::get(url)
            .header(ACCEPT, "application/wasm, application/octet-stream, */*")
            .header(USER_AGENT, concat!("pointsman/", env!("CARGO_PKG_VERSION")))
            .body(Full::<Bytes>::default())
            .map_err(|_| format!("`{url}` is no URL of a component"))?;
        let answer = self.outgoing.exchange(request, bytes_max).await.map_err(|error| chain(&error))?;
        match StatusCode::from_u16(answer.status) {
            Ok(StatusCode::OK) if answer.is_cut => Err(format!("{url} has more than {bytes_max} bytes")),
            Ok(StatusCode::OK) => Ok(answer.body),
            Ok(status) if status.is_redirection() => {
                Err(format!("{url} answers {}: redirections are not followed, name the place itself", answer.status))
            }
            Ok(_) | Err(_) => Err(format!("{url} answers {}", answer.status)),
        }
    }
}

#[async_trait]
impl Download for WebDownload {
    async fn download(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
        let fetched = tokio::time::timeout(Duration::from_millis(DOWNLOAD_MS), self.fetch(url, bytes_max)).await;
        fetched.unwrap_or_else(|_| Err(format!("{url} did not come within {DOWNLOAD_MS} ms")))
    }
}
