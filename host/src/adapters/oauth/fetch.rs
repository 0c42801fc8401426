//! Documents of an authorization server, fetched over HTTPS with the web's roots; over plain HTTP from this machine only.
//!
//! **Invariants:** bounded in time and size; a redirection is not followed, so that what is fetched is what was named.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Milliseconds for one document.
const FETCH_MS: u64 = 5_000;
/// Bytes of one document.
const DOCUMENT_BYTES_MAX: usize = 512 << 10;

/// Why a document was not had.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    /// No URL that can be asked.
    #[error("`{url}` is no URL of HTTPS, nor of HTTP on this machine")]
    BadUrl {
        /// Which.
        url: String,
    },
    /// Nobody answers there, or not as itself.
    #[error("{authority} cannot be reached")]
    Unreachable {
        /// Where.
        authority: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It broke off.
    #[error("the exchange with {authority} broke off: {why}")]
    Broken {
        /// With whom.
        authority: String,
        /// Why.
        why: String,
    },
    /// Another status.
    #[error("{url} answers {status}")]
    Status {
        /// Where.
        url: String,
        /// What.
        status: u16,
    },
    /// Not JSON.
    #[error("{url} is no JSON document")]
    NotJson {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It took too long.
    #[error("{url} did not come within {limit_ms} ms")]
    TimedOut {
        /// Where.
        url: String,
        /// The limit.
        limit_ms: u64,
    },
}

/// Whether documents may come over plain HTTP from this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlainHttp {
    /// From this machine.
    Loopback,
    /// From nowhere.
    Never,
}

/// Fetches documents.
pub(super) struct Fetcher {
    tls: TlsConnector,
    plain: PlainHttp,
}

/// Returns whether a host is this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Fetcher {
    /// Returns a fetcher that trusts the roots browsers trust.
    ///
    /// # Errors
    /// The TLS library has no fitting protocol.
    pub(super) fn new(plain: PlainHttp) -> Result<Self, rustls::Error> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), plain })
    }

    /// Returns a JSON document.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(super) async fn json(&self, url: &str) -> Result<Value, FetchError> {
        let fetched = tokio::time::timeout(Duration::from_millis(FETCH_MS), self.fetch(url)).await;
        let body = fetched.unwrap_or_else(|_| Err(FetchError::TimedOut { url: url.to_owned(), limit_ms: FETCH_MS }))?;
        serde_json::from_slice(&body).map_err(|source| FetchError::NotJson { url: url.to_owned(), source })
    }

    async fn fetch(&self, url: &str) -> Result<Bytes, FetchError> {
        let bad = || FetchError::BadUrl { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?.clone();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if self.plain == PlainHttp::Loopback && is_loopback(authority.host()) => false,
            _ => return Err(bad()),
        };
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let unreachable = |source| FetchError::Unreachable { authority: authority.to_string(), source };
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if is_tls {
            let name = ServerName::try_from(host).map_err(|_| bad())?;
            let stream = self.tls.connect(name, stream).await.map_err(unreachable)?;
            exchange(stream, authority.as_str(), path, url).await
        } else {
            exchange(stream, authority.as_str(), path, url).await
        }
    }
}

async fn exchange<S>(stream: S, authority: &str, path: &str, url: &str) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |why: String| FetchError::Broken { authority: authority.to_owned(), why };
    let request = Request::get(path).header(HOST, authority).header(ACCEPT, "application/json").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| broken(error.to_string()))?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.to_string()))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(FetchError::Status { url: url.to_owned(), status });
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| broken(error.to_string()))
    };
    let mut answered = std::pin::pin!(answered);
    let mut driver = std::pin::pin!(driver);
    // The connection is driven here, so that it ends with the exchange.
    tokio::select! {
        answer = answered.as_mut() => answer,
        _ = driver.as_mut() => answered.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_https_and_this_machine_are_asked() {
        let strict = Fetcher::new(PlainHttp::Never).expect("TLS is there");
        let local = Fetcher::new(PlainHttp::Loopback).expect("TLS is there");
        for url in ["http://127.0.0.1:1/", "ftp://a/", "as.example.org", "/keys", ""] {
            assert!(matches!(strict.json(url).await, Err(FetchError::BadUrl { .. })), "{url}");
        }
        assert!(matches!(local.json("http://as.example.org/").await, Err(FetchError::BadUrl { .. })));
        assert!(matches!(local.json("http://127.0.0.1:1/").await, Err(FetchError::Unreachable { .. })));
    }

    #[test]
    fn this_machine_is_known() {
        assert!(is_loopback("localhost") && is_loopback("127.0.0.1") && is_loopback("[::1]") && is_loopback("127.8.8.8"));
        assert!(!is_loopback("localhost.example.org") && !is_loopback("10.0.0.1") && !is_loopback(""));
    }
}
