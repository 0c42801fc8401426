//! The fetch port: one HTTP/1.1 request, over TLS where the address says so; redirects are answers.
//!
//! Whether a component may reach the host it names is the service's to decide, before it calls.
//!
//! **Invariant:** a request costs at most its limits; an address reads back as it was checked.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of an address.
const URL_BYTES_MAX: usize = 8 << 10;
/// Why a text is no address that can be fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FetchUrlError {
    /// Another scheme, or none.
    #[error("only absolute URLs are fetched: `https://HOST[:PORT]/…`, or `http`")]
    Scheme,
    /// Not of the form.
    #[error("the URL is malformed: {0}")]
    Malformed(&'static str),
}

/// A URL of `http` or `https` in its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchUrl {
    /// Whether it is one of `https`.
    #[serde(default)]
    pub is_tls: bool,
    /// In lower case, an IPv6 address in its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query, beginning with `/`.
    pub path: String,
}

impl FetchUrl {
    /// Reads a URL (RFC 3986, without user information; the fragment is left off).
    ///
    /// # Errors
    /// [`FetchUrlError`].
    pub fn parse(text: &str) -> Result<Self, FetchUrlError> {
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        let is_tls = lower.starts_with("https://");
        if !is_tls && !lower.starts_with("http://") {
            return Err(FetchUrlError::Scheme);
        }
        if text.len() > URL_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FetchUrlError::Malformed("it is too long, or has other than visible ASCII characters"));
        }
        let rest = text[if is_tls { "https://" } else { "http://" }.len()..].split('#').next().unwrap_or_default();
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = split_port(authority, default_port(is_tls))?;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_v6 =
            host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
        if !is_v6 && (host.is_empty() || !host.bytes().all(named)) {
            return Err(FetchUrlError::Malformed("the host is no name or address"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { is_tls, host: host.to_ascii_lowercase(), port, path })
    }

    /// Returns `HOST:PORT`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl std::fmt::Display for FetchUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { is_tls, host, port, path } = self;
        let scheme = if *is_tls { "https" } else { "http" };
        if *port == default_port(*is_tls) { write!(f, "{scheme}://{host}{path}") } else { write!(f, "{scheme}://{host}:{port}{path}") }
    }
}

const fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

fn split_port(authority: &str, default: u16) -> Result<(&str, u16), FetchUrlError> {
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[host_end..].find(':') {
        None => Ok((authority, default)),
        Some(at) => {
            let (host, port) = authority.split_at(host_end + at);
            let port = port[1..].parse().map_err(|_| FetchUrlError::Malformed("the port is no number"))?;
            Ok((host, port))
        }
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// `GET`, …
    pub method: String,
    /// Where.
    pub url: FetchUrl,
    /// Name and value.
    pub headers: Vec<(String, String)>,
    /// May be empty.
    pub body: Vec<u8>,
}

/// What a request may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Bytes of the answer's body; the rest is cut off.
    pub body_bytes_max: usize,
    /// Milliseconds for all of it.
    pub limit_ms: u64,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchAnswer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FetchError {
    /// Not a request that can be sent.
    #[error("the request cannot be sent: {0}")]
    Malformed(String),
    /// No connection.
    #[error("`{authority}` cannot be reached: {why}")]
    Unreachable {
        /// Where.
        authority: String,
        /// Why.
        why: String,
    },
    /// The connection broke.
    #[error("the connection broke before the answer was whole: {0}")]
    Broken(String),
    /// It took too long.
    #[error("there was no answer within {limit_ms} ms")]
    TimedOut {
        /// The limit.
        limit_ms: u64,
    },
}

/// Makes requests.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// Makes one request, once.
    ///
    /// # Errors
    /// [`FetchError`]; after all but `Malformed` and `Unreachable` it may have acted.
    async fn fetch(&self, request: &FetchRequest, limits: FetchLimits) -> Result<FetchAnswer, FetchError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_their_parts() {
        let url = |text: &str| FetchUrl::parse(text).map(|url| format!("{} {}", url.authority(), url.path));
        assert_eq!(url("http://Example.com"), Ok("example.com:80 /".to_owned()));
        assert_eq!(url("HTTP://127.0.0.1:8080/a/b?c=d#e"), Ok("127.0.0.1:8080 /a/b?c=d".to_owned()));
        assert_eq!(url("http://[::1]:81?x"), Ok("[::1]:81 /?x".to_owned()));
        assert_eq!(url("https://example.com/"), Ok("example.com:443 /".to_owned()));
        for text in ["https://example.com/a?b", "http://example.com:443/", "https://[::1]:80/", "http://a/"] {
            assert_eq!(FetchUrl::parse(text).map(|url| url.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(url("ftp://example.com/"), Err(FetchUrlError::Scheme));
        for bad in ["http://", "http://a@b/", "http://a:b/", "http://a:1:2/", "http://[::1/", "http://a b/", "http://a\r\nx/"] {
            assert!(matches!(url(bad), Err(FetchUrlError::Malformed(_))), "{bad}");
        }
    }
}
