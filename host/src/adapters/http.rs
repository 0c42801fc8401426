//! The HTTP server: sockets, limits, routes, drain. The library's types stay in this folder.
//!
//! Owns connections and what may arrive on them; must not know MCP or git, which stand behind ports.
//!
//! **Invariants:** everything is bounded: connections, in all and of one address, the time of a header, of a body and of an
//! answer, the size and depth of a body, the drain; whoever is turned away is told so; a page of another site reaches no
//! route.

mod access;
mod body;
mod depth;
mod documents;
mod download;
mod encode;
mod fetch;
mod git;
mod guard;
mod outgoing;
mod peers;
mod plain;
mod rest;
mod route;
mod siblings;
mod slow;
mod socket;
mod tls;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pointsman_core::rate::Rate;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use self::access::ProtectedResource;
pub use self::download::WebDownload;
pub use self::fetch::WebFetch;
pub use self::rest::{Figures, Rest};
pub use self::siblings::{SiblingDoor, Tickets, WebSiblings};
pub use self::socket::{AdminClient, bind as bind_socket, serve as serve_socket};
pub use self::tls::{Tls, TlsError};

use self::peers::{Peer, Peers, Seat};
use crate::ports::clock::System;
use crate::ports::documents::DocumentSurface;
use crate::ports::endpoint::Endpoint;
use crate::ports::surface::{GitSurface, Surface};

/// Milliseconds to wait after the system refused a connection, such as for want of file descriptors.
const ACCEPT_RETRY_MS: u64 = 50;
/// Connections at once that are being told that there are too many.
const REFUSALS_MAX: usize = 64;
/// Milliseconds such a connection may take to read that.
const REFUSAL_MS: u64 = 500;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Header fields of a request.
const HEADERS_MAX: usize = 100;

/// What the server lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at once; one more is answered 503. Each waiting agent holds one.
    pub connections_max: usize,
    /// Connections of one address at once; one more is answered 429.
    pub connections_per_peer_max: usize,
    /// Milliseconds for the head of a request, and so for a connection to stay idle.
    pub header_read_ms: u64,
    /// Milliseconds for the body of a request; of a push: for any one part of it.
    pub body_read_ms: u64,
    /// Milliseconds that an answer may wait for the client to read on.
    pub write_ms: u64,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Levels that a JSON body may nest.
    pub json_depth_max: usize,
    /// Requests of one address without a valid credential; none: without a limit.
    pub failures: Option<Rate>,
    /// Bytes of a git client's body, decompressed.
    pub git_body_bytes_max: u64,
    /// Milliseconds that requests in flight have when the server drains.
    pub drain_ms: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 2_048,
            connections_per_peer_max: 2_048,
            header_read_ms: 60_000,
            body_read_ms: 30_000,
            write_ms: 30_000,
            body_bytes_max: 16 << 20,
            json_depth_max: 64,
            failures: None,
            git_body_bytes_max: 2 << 30,
            drain_ms: 10_000,
        }
    }
}

/// What stands behind the routes.
#[derive(Clone)]
pub struct Routes {
    /// `/mcp` and `/mcp/{slug}`.
    pub mcp: Arc<dyn Endpoint>,
    /// `/git/{slug}.git/…`.
    pub git: Arc<dyn GitSurface>,
    /// `/context/{slug}/{key}`.
    pub documents: Arc<dyn DocumentSurface>,
    /// `/readyz`, and who may call the API.
    pub surface: Arc<dyn Surface>,
    /// `/api/v1/…`; none: there is nothing at those paths.
    pub rest: Option<Rest>,
    /// `/sibling/…`; none: this host shares its store with nobody.
    pub siblings: Option<SiblingDoor>,
    /// Randomness for request ids, durations for the log.
    pub system: Arc<dyn System>,
    /// Values of `Origin` that are let in besides those of this machine, such as `https://dash.example.org`.
    pub origins: Vec<String>,
    /// Names that `Host` may have on a loopback listener besides those of this machine, without port.
    pub hosts: Vec<String>,
    /// How clients come in.
    pub entry: Entry,
}

/// How clients come in, besides by plain HTTP with a token of ours.
#[derive(Clone, Default)]
pub struct Entry {
    /// The certificate; none: plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// The authorization server that clients are sent to; none: OAuth is never mentioned.
    pub resource: Option<ProtectedResource>,
}

/// How the drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that still had a request in flight at the deadline and were cut.
    pub cut: usize,
}

/// What all connections share.
struct Shared {
    routes: Routes,
    limits: HttpLimits,
    guard: guard::Guard,
    peers: Arc<Peers>,
    started: Instant,
    traces: Traces,
    document_places: documents::Places,
}

/// Request ids: unguessable across starts, in order within one.
struct Traces {
    start: u32,
    next: AtomicU64,
}

impl Traces {
    fn new(system: &dyn System) -> Self {
        let mut bytes = [0; 4];
        system.random(&mut bytes);
        Self { start: u32::from_le_bytes(bytes), next: AtomicU64::new(1) }
    }

    fn next(&self) -> String {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        format!("req_{:08x}_{n:x}", self.start)
    }
}

/// Serves until `shutdown` is cancelled, then lets requests in flight finish within `limits.drain_ms`.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(listener: TcpListener, routes: Routes, limits: HttpLimits, shutdown: CancellationToken) -> io::Result<Drained> {
    let guard = guard::Guard::new(listener.local_addr()?, &routes.origins, &routes.hosts);
    let traces = Traces::new(&*routes.system);
    let peers = Arc::new(Peers::new(limits.connections_per_peer_max, limits.failures));
    let started = routes.system.instant();
    let shared = Arc::new(Shared { routes, limits, guard, peers, started, traces, document_places: documents::Places::default() });
    let seats = Arc::new(Semaphore::new(limits.connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                continue;
            }
        };
        let peer = Peer::from(address.ip());
        let refusal = match (Arc::clone(&seats).try_acquire_owned(), shared.peers.seat(peer)) {
            (Ok(seat), Some(of_peer)) => {
                connections.spawn(connection(stream, peer, (seat, of_peer), Arc::clone(&shared), shutdown.clone()));
                continue;
            }
            (Err(_), _) => {
                tracing::warn!(limit = limits.connections_max, "a connection was refused: there are too many");
                plain::too_many_connections()
            }
            (Ok(_), None) => {
                let limit = limits.connections_per_peer_max;
                tracing::warn!(limit, peer = %address.ip(), "a connection was refused: its address has too many");
                plain::too_many_of_peer()
            }
        };
        // Nobody reads plain text where TLS is spoken.
        if shared.routes.entry.tls.is_none()
            && let Ok(seat) = Arc::clone(&refusals).try_acquire_owned()
        {
            connections.spawn(refuse(stream, seat, refusal));
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    let late = tokio::time::timeout(Duration::from_millis(limits.drain_ms), finish).await.is_err();
    let cut = if late { connections.len() } else { 0 };
    connections.shutdown().await;
    Ok(Drained { cut })
}

/// A place among all connections, and one among those of the address.
type Seats = (OwnedSemaphorePermit, Seat);

async fn connection(stream: TcpStream, peer: Peer, _seats: Seats, shared: Arc<Shared>, shutdown: CancellationToken) {
    if let Err(error) = slow::prepare(&stream, shared.limits.write_ms) {
        tracing::debug!(%error, "a connection ended at once");
        return;
    }
    match shared.routes.entry.tls.clone() {
        None => serve_connection(stream, peer, shared, shutdown).await,
        // A connection without TLS takes no room for it.
        Some(tls) => Box::pin(tls_connection(stream, peer, tls, shared, shutdown)).await,
    }
}

async fn tls_connection(stream: TcpStream, peer: Peer, tls: Arc<Tls>, shared: Arc<Shared>, shutdown: CancellationToken) {
    let limit = Duration::from_millis(shared.limits.header_read_ms);
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(limit, shake_hands(stream, &tls)) => shaken,
        () = shutdown.cancelled() => return,
    };
    match shaken {
        Ok(Ok(stream)) => serve_connection(stream, peer, shared, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended in its TLS handshake"),
        Err(_) => tracing::debug!("a connection took too long for its TLS handshake"),
    }
}

/// Opens TLS; a client that speaks HTTP instead is told so.
async fn shake_hands(mut stream: TcpStream, tls: &Tls) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    let mut first = [0];
    // The first byte of a TLS handshake is its record type, 22; that of an HTTP request is a letter.
    if stream.peek(&mut first).await? == 1 && first[0].is_ascii_alphabetic() {
        tokio::io::AsyncWriteExt::write_all(&mut stream, plain::not_tls().as_bytes()).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not TLS"));
    }
    TlsAcceptor::from(tls.config()).accept(stream).await
}

async fn serve_connection<S>(stream: S, peer: Peer, shared: Arc<Shared>, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = shared.limits;
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        // It is handed on a few times, and each would keep room for it as long as the call lasts.
        let request = Box::new(request);
        async move { Ok::<_, std::convert::Infallible>(route::answer(&shared, peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_read_ms))
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(slow::Paced::new(stream, limits.write_ms)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Tells a connection that there are too many, and waits a moment for it to be read.
async fn refuse(mut stream: TcpStream, _seat: OwnedSemaphorePermit, why: String) {
    let told = async {
        tokio::io::AsyncWriteExt::write_all(&mut stream, why.as_bytes()).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Whether it listened does not matter: the seat is free again either way.
    drop(tokio::time::timeout(Duration::from_millis(REFUSAL_MS), told).await);
}
