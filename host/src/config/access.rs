//! Who may come in, by which way and how often: `[server.tls]`, `[limits]`, `[auth]`, and what fits together of them.
//!
//! Must not know how any of it is done.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use figment::value::Value;
use pointsman_core::rate::Rate;
use serde::Deserialize;

use super::layers::{Layers, Part, Step, dotted};
use super::problem::Problem;

/// `[server.tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TlsConfig {
    /// The certificate chain, the host's own first, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Calls of one credential; none: without a limit.
    pub calls: Option<Rate>,
    /// Requests of one address without a valid credential; none: without a limit.
    pub failures: Option<Rate>,
    /// Levels that a JSON body may nest.
    pub json_depth_max: usize,
}

/// `[auth]`, when it names an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// The authorization server's issuer identifier.
    pub issuer: String,
    /// The audience its tokens must name; none: the endpoint's URL.
    pub audience: Option<String>,
    /// Where its keys are; none: its metadata says so.
    pub jwks_uri: Option<String>,
    /// Scopes every token needs.
    pub required_scopes: Vec<String>,
    /// Seconds that the clocks may differ.
    pub leeway_s: u64,
    /// Milliseconds between two fetches of keys that unknown keys cause.
    pub keys_interval_ms: u64,
    /// What scopes open.
    pub grants: Vec<GrantConfig>,
}

/// `[[auth.grant]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GrantConfig {
    /// Which scope.
    pub scope: String,
    /// Slugs of the projects it opens; empty: all.
    #[serde(default)]
    pub projects: Vec<String>,
    /// Toolsets beyond the default one.
    #[serde(default)]
    pub toolsets: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct RawLimits {
    requests_per_s: u32,
    burst: u32,
    failures_per_min: u32,
    failures_burst: u32,
    json_depth_max: usize,
}

impl From<RawLimits> for LimitsConfig {
    fn from(raw: RawLimits) -> Self {
        Self {
            calls: Rate::new(raw.requests_per_s, 1, raw.burst),
            failures: Rate::new(raw.failures_per_min, 60, raw.failures_burst),
            json_depth_max: raw.json_depth_max,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RawAuth {
    issuer: Option<String>,
    audience: Option<String>,
    jwks_uri: Option<String>,
    required_scopes: Vec<String>,
    leeway_s: u64,
    keys_interval_s: u64,
    #[serde(default)]
    grant: Vec<GrantConfig>,
}

impl RawAuth {
    pub(super) fn into_config(self) -> Option<AuthConfig> {
        Some(AuthConfig {
            issuer: self.issuer?,
            audience: self.audience,
            jwks_uri: self.jwks_uri,
            required_scopes: self.required_scopes,
            leeway_s: self.leeway_s,
            keys_interval_ms: self.keys_interval_s * 1_000,
            grants: self.grant,
        })
    }
}

/// Returns the host of a URL that has the form of one, without port and brackets.
pub(super) fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// Returns the origin of a URL that has the form of one.
pub(super) fn origin_of(url: &str) -> &str {
    let host_at = url.find("://").map_or(0, |at| at + 3);
    url[host_at..].find('/').map_or(url, |end| &url[..host_at + end])
}

/// Returns whether a host is this machine.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns what does not fit together, each value being fine by itself.
pub(super) fn check(layers: &Layers, values: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut report = |path: &[&str], value: &Value, what: &dyn Fn(&str) -> String, help: &str| {
        let steps: Vec<Step> = path.iter().map(|name| Step::Key((*name).to_owned())).collect();
        let place = layers.place(&steps, value.tag(), Part::Value);
        problems.push(Problem { place, what: what(&dotted(&steps)), help: Some(help.to_owned()) });
    };
    if let Some(value @ Value::Bool(_, true)) = values.find_ref("server.anonymous") {
        let bind = values.find_ref("server.bind").and_then(Value::as_str).and_then(|text| text.parse::<SocketAddr>().ok());
        if let Some(bind) = bind.filter(|bind| !bind.ip().is_loopback()) {
            let what = |name: &str| format!("`{name}` lets everybody in, and `server.bind` is {bind}, which others can reach");
            report(
                &["server", "anonymous"],
                value,
                &what,
                "bind 127.0.0.1 or [::1], or give each client a token: `pointsman agent add NAME`",
            );
        }
        let url = values.find_ref("server.public_url").and_then(Value::as_str);
        if let Some(url) = url.filter(|url| !is_loopback(host_of(url))) {
            let what = |name: &str| format!("`{name}` lets everybody in, and `server.public_url` is {url}, where others come from");
            report(
                &["server", "anonymous"],
                value,
                &what,
                "leave `public_url` out, or give each client a token: `pointsman agent add NAME`",
            );
        }
    }
    let issuer = values.find_ref("auth.issuer");
    if let (Some(issuer), None) = (issuer, values.find_ref("server.public_url"))
        && let Some(bind) = values.find_ref("server.bind").and_then(Value::as_str).and_then(|text| text.parse::<SocketAddr>().ok())
        && !bind.ip().is_loopback()
    {
        let what =
            |name: &str| format!("`{name}` is set, and `server.bind` is {bind}: which URL the tokens must be meant for is not known");
        report(&["auth", "issuer"], issuer, &what, "add `public_url = \"https://…\"` to [server]: where clients reach this host");
    }
    for name in ["issuer", "jwks_uri"] {
        let value = values.find_ref(&format!("auth.{name}"));
        if let Some(value @ Value::String(_, url)) = value
            && url.starts_with("http://")
            && !is_loopback(host_of(url))
        {
            let what = |name: &str| format!("`{name}` is {url}: keys that come over plain HTTP could be anybody's");
            report(&["auth", name], value, &what, "write an https:// URL; http:// is for an authorization server on this machine");
        }
    }
    if issuer.is_none() {
        for name in ["audience", "jwks_uri", "grant"] {
            if let Some(value) = values.find_ref(&format!("auth.{name}")) {
                let what = |name: &str| format!("`{name}` is set, but no authorization server is");
                report(&["auth", name], value, &what, "add `issuer = \"https://…\"` to [auth], or leave this out");
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_is_found() {
        for (url, host) in [
            ("https://as.example.org/t", "as.example.org"),
            ("http://127.0.0.1:8080", "127.0.0.1"),
            ("http://[::1]:8080/x", "::1"),
            ("https://h:1", "h"),
        ] {
            assert_eq!(host_of(url), host);
        }
        assert_eq!(origin_of("https://h:1/base/x"), "https://h:1");
        assert_eq!(origin_of("https://h"), "https://h");
        assert!(is_loopback("::1") && is_loopback("LOCALHOST") && !is_loopback("example.org"));
    }
}
