//! `[server]`: where the host listens, and what it lets in.

use std::net::SocketAddr;

use serde::Deserialize;

use super::access::TlsConfig;

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where to listen.
    pub bind: SocketAddr,
    /// Where clients reach the host, when that is not `bind`; without `/` at the end.
    pub public_url: Option<String>,
    /// Where other hosts on the same store reach this one; without `/` at the end.
    pub sibling_url: Option<String>,
    /// Bytes of one request's body.
    pub body_bytes_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// Milliseconds a client has to send its headers.
    pub header_timeout_ms: u64,
    /// Milliseconds that running calls have to end when the host is told to stop.
    pub drain_ms: u64,
    /// Web origins allowed besides the host's own.
    pub allowed_origins: Vec<String>,
    /// Connections of one address at once.
    pub connections_per_peer_max: usize,
    /// Milliseconds a client has to send a body.
    pub body_timeout_ms: u64,
    /// Milliseconds that an answer may wait for the client to read on.
    pub write_timeout_ms: u64,
    /// Whether callers without a credential are let in; then no other machine can reach the listener.
    pub anonymous: bool,
    /// The certificate; none: plain HTTP.
    pub tls: Option<TlsConfig>,
}

#[derive(Deserialize)]
pub(super) struct RawServer {
    bind: SocketAddr,
    public_url: Option<String>,
    sibling_url: Option<String>,
    body_bytes_max: usize,
    connections_max: usize,
    header_timeout_ms: u64,
    drain_ms: u64,
    allowed_origins: Vec<String>,
    connections_per_peer_max: usize,
    body_timeout_ms: u64,
    write_timeout_ms: u64,
    anonymous: bool,
    tls: Option<TlsConfig>,
}

impl RawServer {
    pub(super) fn into_config(self) -> ServerConfig {
        ServerConfig {
            bind: self.bind,
            public_url: self.public_url.map(|url| url.trim_end_matches('/').to_owned()),
            sibling_url: self.sibling_url.map(|url| url.trim_end_matches('/').to_owned()),
            body_bytes_max: self.body_bytes_max,
            connections_max: self.connections_max,
            header_timeout_ms: self.header_timeout_ms,
            drain_ms: self.drain_ms,
            allowed_origins: self.allowed_origins,
            connections_per_peer_max: self.connections_per_peer_max,
            body_timeout_ms: self.body_timeout_ms,
            write_timeout_ms: self.write_timeout_ms,
            anonymous: self.anonymous,
            tls: self.tls,
        }
    }
}
