//! Who may reach any route at all: not the page of another site, by `Origin` or by a name that it points at this machine.
//!
//! The first is a MUST of MCP's streamable HTTP; the second closes DNS rebinding for clients that send no `Origin`.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, ORIGIN};
use hyper::{HeaderMap, Version};

use super::plain::Refusal;

/// The rules of one listener.
pub(super) struct Guard {
    loopback: bool,
    origins: Vec<String>,
    hosts: Vec<String>,
}

/// Returns whether a host name, without port, is this machine's own.
fn is_loopback(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
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
        Self { loopback: address.ip().is_loopback(), origins: origins.to_vec(), hosts: hosts.to_vec() }
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
        own || self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
    }

    fn lets_host(&self, host: &str) -> bool {
        without_port(host).is_some_and(|name| is_loopback(name) || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }
}

fn cut(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(120).collect()
}
