//! The way out: HTTP/1.1 to others, plain or over TLS. It knows nothing of who asks for what.
//!
//! **Invariants:** an exchange is made once; nothing is followed or repeated. A connection ends with its exchange, or with whoever
//! gives it up.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls::TlsError;
use crate::service::kit::chain;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum OutgoingError {
    /// Not an address.
    #[error("`{0}` is no URL of HTTP or HTTPS")]
    NotUrl(String),
    /// No connection.
    #[error("{authority} cannot be reached")]
    Unreachable {
        /// Where.
        authority: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke; what was sent may have arrived.
    #[error("the exchange with {authority} broke off: {why}")]
    Broken {
        /// With whom.
        authority: String,
        /// Why.
        why: String,
    },
}

/// A connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// There was more of the body than was asked for.
    pub(super) is_cut: bool,
}

/// Reaches others.
#[derive(Clone)]
pub(super) struct Outgoing {
    tls: TlsConnector,
}

impl Outgoing {
    /// Returns the way to servers whose certificates the web's roots sign, or these.
    ///
    /// # Errors
    /// The TLS library has no fitting protocol.
    pub(super) fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        roots.add_parsable_certificates(certificates);
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Setup)?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Opens a connection to where a URL leads.
    ///
    /// # Errors
    /// `NotUrl`, `Unreachable`.
    pub(super) async fn connect(&self, uri: &Uri) -> Result<Box<dyn Duplex>, OutgoingError> {
        let not_url = || OutgoingError::NotUrl(uri.to_string());
        let authority = uri.authority().ok_or_else(not_url)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(not_url()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let unreachable = |source| OutgoingError::Unreachable { authority: authority.to_string(), source };
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host).map_err(|_| not_url())?;
        Ok(Box::new(self.tls.connect(name, stream).await.map_err(unreachable)?))
    }

    /// Makes one exchange on a connection of its own, and reads so much of the answer. The request names an absolute URL.
    ///
    /// # Errors
    /// [`OutgoingError`].
    pub(super) async fn exchange(&self, mut request: Request<Full<Bytes>>, body_bytes_max: usize) -> Result<Answer, OutgoingError> {
        let uri = request.uri().clone();
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let broken = |error: hyper::Error| OutgoingError::Broken { authority: authority.clone(), why: chain(&error) };
        let stream = self.connect(&uri).await?;
        *request.uri_mut() = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
        let host = HeaderValue::from_str(&authority).map_err(|_| OutgoingError::NotUrl(uri.to_string()))?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let answered = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let mut answer = Answer { status: response.status().as_u16(), body: Vec::new(), is_cut: false };
            let mut incoming = response.into_body();
            while let Some(frame) = incoming.frame().await {
                let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
                let room = body_bytes_max - answer.body.len();
                answer.body.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    answer.is_cut = true;
                    break;
                }
            }
            Ok(answer)
        };
        let (mut answered, mut driver) = (std::pin::pin!(answered), std::pin::pin!(driver));
        // Driven here rather than in a task of its own, so that the connection ends with the exchange; it may end with the answer read
        // but not yet taken.
        tokio::select! {
            answer = answered.as_mut() => answer,
            _ = driver.as_mut() => answered.await,
        }
    }
}
