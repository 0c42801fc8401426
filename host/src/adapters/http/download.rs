//! Components from URLs: over HTTPS with the web's roots, or plain HTTP. Who asks compares digests.
//!
//! **Invariants:** bounded in time and size; a redirection is not followed, so that what is fetched is what was named.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ports::registry::Download;
use crate::service::kit::chain;

/// Milliseconds for one component.
const DOWNLOAD_MS: u64 = 60_000;

/// Fetches components from the web.
pub struct WebDownload {
    tls: TlsConnector,
}

impl WebDownload {
    /// Returns a downloader that trusts the roots browsers trust.
    ///
    /// # Errors
    /// The TLS library has no fitting protocol.
    pub fn new() -> Result<Self, super::TlsError> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(super::TlsError::Setup)?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    async fn fetch(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
        let bad = || format!("`{url}` is no URL of a component");
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?.clone();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let unreachable = |error: std::io::Error| format!("{authority} cannot be reached: {error}");
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
        if is_tls {
            let name = ServerName::try_from(host).map_err(|_| bad())?;
            let stream = self.tls.connect(name, stream).await.map_err(unreachable)?;
            exchange(stream, &uri, authority.as_str(), bytes_max).await
        } else {
            exchange(stream, &uri, authority.as_str(), bytes_max).await
        }
    }
}

async fn exchange<S>(stream: S, uri: &Uri, authority: &str, bytes_max: usize) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: &(dyn std::error::Error + 'static)| format!("the exchange with {authority} broke off: {}", chain(error));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/wasm, application/octet-stream, */*")
        .header(USER_AGENT, concat!("pointsman/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(&error))?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(format!("{uri} answers {}: redirections are not followed, name the place itself", status.as_u16()));
        }
        if status != hyper::StatusCode::OK {
            return Err(format!("{uri} answers {}", status.as_u16()));
        }
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        body.map(|body| body.to_bytes().to_vec())
            .map_err(|error| format!("{uri} did not come whole, with at most {bytes_max} bytes: {error}"))
    };
    let mut answered = std::pin::pin!(answered);
    let mut driver = std::pin::pin!(driver);
    // The connection is driven here, so that it ends with the exchange.
    tokio::select! {
        answer = answered.as_mut() => answer,
        _ = driver.as_mut() => answered.await,
    }
}

#[async_trait]
impl Download for WebDownload {
    async fn download(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
        let fetched = tokio::time::timeout(Duration::from_millis(DOWNLOAD_MS), self.fetch(url, bytes_max)).await;
        fetched.unwrap_or_else(|_| Err(format!("{url} did not come within {DOWNLOAD_MS} ms")))
    }
}
