//! Who may reach any route at all: not the page of another site, by `Origin` or by a name that it points at this machine.
//!
//! The first is a MUST of MCP's streamable HTTP; the second closes DNS rebinding for clients that send no `Origin`. Pages of the
//! origins that the operator names are answered so that their browsers let them read it (CORS, Fetch standard, section 3.3).

use std::net::{IpAddr, SocketAddr};

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};

use super::body::ReplyBody;
use super::plain::Refusal;

/// The rules of one listener.
pub(super) struct Guard {
    loopback: bool,
    origins: Vec<String>,
    hosts: Vec<String>,
}

/// Returns a host name without the brackets of an IPv6 address.
fn bare(name: &str) -> &str {
    name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name)
}

/// Returns whether a host name, without port, is this machine's own.
fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || bare(name).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns whether two host names, without port, are one: an IPv6 address has many forms.
fn is_same_host(a: &str, b: &str) -> bool {
    let (a, b) = (bare(a), bare(b));
    a.eq_ignore_ascii_case(b) || a.parse::<IpAddr>().is_ok_and(|a| b.parse() == Ok(a))
}

/// Returns an origin as browsers write it: without the port that its scheme has anyway.
fn without_default_port(origin: &str) -> &str {
    let port = if origin.starts_with("https:") { ":443" } else { ":80" };
    origin.strip_suffix(port).unwrap_or(origin)
}

/// Returns the host of `host[:port]`, none when the port is no number.
fn without_port(authority: &str) -> Option<&str> {
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[host_end..].rfind(':') {
        None => Some(authority),
        Some(colon) => {
            let (host, port) = authority.split_at(host_end + colon);
            port[1..].parse::<u16>().is_ok().then_some(host)
        }
    }
}

impl Guard {
    /// Returns the rules of a listener.
    pub(super) fn new(address: SocketAddr, origins: &[String], hosts: &[String]) -> Self {
        Self {
            loopback: address.ip().is_loopback(),
            origins: origins.iter().map(|origin| without_default_port(origin).to_owned()).collect(),
            hosts: hosts.to_vec(),
        }
    }

    /// Checks a request's head.
    ///
    /// # Errors
    /// `ForeignOrigin`, `ForeignHost`.
    pub(super) fn check(&self, headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
        for origin in headers.get_all(ORIGIN) {
            if !origin.to_str().is_ok_and(|origin| self.lets_origin(origin)) {
                return Err(Refusal::ForeignOrigin { origin: cut(origin.as_bytes()) });
            }
        }
        if !self.loopback {
            return Ok(());
        }
        let mut hosts = headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if host.to_str().is_ok_and(|host| self.lets_host(host)) => Ok(()),
            (None, _) if version < Version::HTTP_11 => Ok(()),
            (host, _) => Err(Refusal::ForeignHost { host: host.map_or_else(String::new, |host| cut(host.as_bytes())) }),
        }
    }

    fn lets_origin(&self, origin: &str) -> bool {
        let own =
            origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).and_then(without_port).is_some_and(is_loopback);
        own || self.is_named(origin)
    }

    fn is_named(&self, origin: &str) -> bool {
        let origin = without_default_port(origin);
        self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
    }

    /// Returns the origin of the page that asks, when it is one of those that may read answers.
    pub(super) fn page(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        origin.to_str().is_ok_and(|text| self.is_named(text)).then(|| origin.clone())
    }

    fn lets_host(&self, host: &str) -> bool {
        without_port(host).is_some_and(|name| is_loopback(name) || self.hosts.iter().any(|known| is_same_host(known, name)))
    }
}

/// Returns the answer to a browser that asks what a page may send; none: the request is another.
pub(super) fn preflight<B>(request: &Request<B>) -> Option<Response<ReplyBody>> {
    let is_one = *request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    is_one.then(|| {
        let mut response = Response::new(ReplyBody::full(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let fields = response.headers_mut();
        fields.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
        fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        // Which headers there are depends on the tools (`Mcp-Param-…`): all are let through, none does harm.
        if let Some(wanted) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
            fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        response
    })
}

/// Lets the page of an origin read an answer.
pub(super) fn let_read(response: &mut Response<ReplyBody>, origin: HeaderValue) {
    let fields = response.headers_mut();
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    fields.append(VARY, HeaderValue::from_static("Origin"));
    fields.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Mcp-Session-Id, WWW-Authenticate"));
}

fn cut(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(120).collect()
}
