//! What stands before every route that takes credentials: tokens in URLs, addresses that fail too often, and the challenge
//! by which an OAuth client finds its authorization server (RFC 9728).
//!
//! Must not know what a credential is worth: the endpoints answer 401 and 403, and this counts and completes them.
//!
//! **Invariant:** no trace of OAuth is shown when no issuer is configured: clients that see one stop sending their headers.

use std::time::Instant;

use data_encoding::BASE64;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use pointsman_core::time::TimeMs;

use super::body::ReplyBody;
use super::peers::{Form, Peer, Peers, Shown};
use super::plain::{Refusal, add_field, json};
use super::rest::{Problem, Rest};
use super::{Shared, documents, git, route};
use crate::ports::clock::System;

/// Where the metadata of a protected resource stands (RFC 9728, section 3).
pub(super) const METADATA_PATH: &str = "/.well-known/oauth-protected-resource";
/// Names under which tokens are put into URLs (RFC 6750, section 2.3, and habits).
const TOKEN_PARAMETERS: [&str; 4] = ["access_token", "token", "api_key", "authorization"];
/// The toolset of operators.
const OPERATORS: &str = "admin";
/// What the host's own secrets start with: tokens, and what a claim gives to git.
const SECRET_PREFIXES: [&str; 2] = ["pmt_", "pmg_"];

/// The host as a resource that an authorization server's tokens open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedResource {
    /// Where clients reach the host, without `/` at the end.
    pub public_url: String,
    /// The issuer's identifier.
    pub issuer: String,
    /// All scopes that mean something here.
    pub scopes_supported: Vec<String>,
}

impl ProtectedResource {
    /// Returns origin and path of the host.
    fn parts(&self) -> (&str, &str) {
        let host_at = self.public_url.find("://").map_or(0, |at| at + 3);
        let path_at = self.public_url[host_at..].find('/').map_or(self.public_url.len(), |at| host_at + at);
        self.public_url.split_at(path_at)
    }

    /// Returns the path below which clients reach the host; empty: the root.
    pub(super) fn base(&self) -> &str {
        self.parts().1
    }

    /// Returns the URL of an endpoint, or with a well-known path between host and path (RFC 9728, section 3.1).
    fn url(&self, between: &str, slug: Option<&str>) -> String {
        let tail = slug.map_or_else(String::new, |slug| format!("/{slug}"));
        let (origin, base) = self.parts();
        format!("{origin}{between}{base}/mcp{tail}")
    }

    /// Returns the metadata document of an endpoint (RFC 9728, section 2).
    fn metadata(&self, slug: Option<&str>) -> serde_json::Value {
        serde_json::json!({
            "resource": self.url("", slug),
            "resource_name": "Pointsman",
            "authorization_servers": [self.issuer],
            "scopes_supported": self.scopes_supported,
            "bearer_methods_supported": ["header"],
        })
    }

    /// Completes a challenge by where the metadata is, and by scopes to ask for.
    fn complete(&self, challenge: &str, scopes: &[String], slug: Option<&str>) -> String {
        let metadata = self.url(METADATA_PATH, slug);
        let mut completed = format!("{challenge}, resource_metadata=\"{metadata}\"");
        if !scopes.is_empty() {
            completed.push_str(&format!(", scope=\"{}\"", scopes.join(" ")));
        }
        completed
    }
}

/// Answers a question for the metadata of an endpoint.
pub(super) fn metadata(shared: &Shared, slug: Option<&str>, method: &Method, path: &str) -> Response<ReplyBody> {
    let Some(resource) = &shared.routes.entry.resource else { return Refusal::NoRoute { path: path.to_owned() }.response() };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Refusal::MethodNotAllowed { allow: "GET, HEAD" }.response();
    }
    let mut response = json(StatusCode::OK, &resource.metadata(slug));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

/// Answers a request for MCP.
pub(super) async fn mcp(
    shared: &Shared,
    peer: Peer,
    slug: Option<&str>,
    request: Box<Request<Incoming>>,
    trace: &str,
) -> Response<ReplyBody> {
    if request.uri().query().is_some_and(carries_token) {
        let mut response = Refusal::TokenInQuery.response();
        // RFC 6750, section 3.1.
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pointsman\", error=\"invalid_request\""));
        return response;
    }
    let visit = match Visit::begin(shared, peer, request.headers()) {
        Ok(visit) => visit,
        Err(refusal) => return refusal.response(),
    };
    let mut response = route::mcp(shared, slug, request, trace).await;
    visit.end(response.status());
    if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        && let Some(resource) = &shared.routes.entry.resource
        && let Some(challenge) = response.headers().get(WWW_AUTHENTICATE).and_then(|challenge| challenge.to_str().ok())
    {
        // A 403 names its scopes itself.
        let scopes = match response.status() {
            StatusCode::UNAUTHORIZED => shared.routes.surface.scopes_needed(slug).await,
            _ => Vec::new(),
        };
        let completed = resource.complete(challenge, &scopes, slug);
        add_field(&mut response, "www-authenticate", completed);
    }
    response
}

/// Answers a request for the operators' API.
pub(super) async fn api(shared: &Shared, peer: Peer, api: &Rest, request: Request<Incoming>, trace: &str) -> Response<ReplyBody> {
    if request.uri().query().is_some_and(carries_token) {
        return Problem::TokenInQuery.response(trace);
    }
    let visit = match Visit::begin(shared, peer, request.headers()) {
        Ok(visit) => visit,
        Err(Refusal::TooManyFailures { retry_after_ms }) => return Problem::TooManyFailures { retry_after_ms }.response(trace),
        Err(refusal) => return refusal.response(),
    };
    let response = match is_operator(shared, request.headers(), trace).await {
        Ok(()) => api.answer(request, &shared.limits, trace).await,
        Err(problem) => problem.response(trace),
    };
    visit.end(response.status());
    response
}

/// Lets a credential through that has the toolset of operators.
async fn is_operator(shared: &Shared, headers: &HeaderMap, trace: &str) -> Result<(), Problem> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let bearer = match (sent.next(), sent.next()) {
        (None, _) => None,
        (Some(value), None) => Some(value.to_str().map_err(|_| Problem::CredentialUnreadable)?),
        (Some(_), Some(_)) => return Err(Problem::CredentialUnreadable),
    };
    if bearer.is_some_and(|text| !text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "))) {
        return Err(Problem::CredentialUnreadable);
    }
    let caller = shared.routes.surface.admit(bearer, None, trace.to_owned()).await.map_err(Problem::Rejected)?;
    if caller.token.toolsets.iter().any(|toolset| toolset == OPERATORS) { Ok(()) } else { Err(Problem::NoOperator) }
}

/// Answers a request for a document.
pub(super) async fn documents(shared: &Shared, peer: Peer, request: Request<Incoming>, trace: &str) -> Response<ReplyBody> {
    if request.uri().query().is_some_and(carries_token) {
        return Problem::TokenInQuery.response(trace);
    }
    let visit = match Visit::begin(shared, peer, request.headers()) {
        Ok(visit) => visit,
        Err(Refusal::TooManyFailures { retry_after_ms }) => return Problem::TooManyFailures { retry_after_ms }.response(trace),
        Err(refusal) => return refusal.response(),
    };
    let response = documents::answer(shared, request, trace).await;
    visit.end(response.status());
    response
}

/// Answers a request of a git client.
pub(super) async fn git(
    shared: &Shared,
    peer: Peer,
    path: &git::GitPath<'_>,
    request: Request<Incoming>,
    trace: &str,
) -> Response<ReplyBody> {
    let visit = match Visit::begin(shared, peer, request.headers()) {
        Ok(visit) => visit,
        Err(refusal) => return refusal.response(),
    };
    let response = git::answer(&*shared.routes.git, &shared.limits, path, request, trace.to_owned()).await;
    visit.end(response.status());
    response
}

/// A request that may show a credential. One that its client gave up before it was answered failed, as far as we can tell.
struct Visit<'a> {
    peers: &'a Peers,
    clock: Clock<'a>,
    peer: Peer,
    shown: Option<Shown>,
}

impl<'a> Visit<'a> {
    /// Lets a request go on, unless its address failed too often.
    ///
    /// # Errors
    /// `TooManyFailures`.
    fn begin(shared: &'a Shared, peer: Peer, headers: &HeaderMap) -> Result<Self, Refusal> {
        Self::of(&shared.peers, Clock { system: &*shared.routes.system, started: shared.started }, peer, headers)
    }

    fn of(peers: &'a Peers, clock: Clock<'a>, peer: Peer, headers: &HeaderMap) -> Result<Self, Refusal> {
        let shown = headers.get(AUTHORIZATION).map(|credential| peers.shown(credential.as_bytes(), form(credential)));
        match peers.held_up(peer, shown, clock.now()) {
            Some(retry_after_ms) => Err(Refusal::TooManyFailures { retry_after_ms }),
            None => Ok(Self { peers, clock, peer, shown }),
        }
    }

    /// Remembers how it went. A signed token that nobody can check now is no better than one that is wrong.
    fn end(mut self, status: StatusCode) {
        let Some(shown) = self.shown.take() else { return };
        let (peers, now) = (self.peers, self.clock.now());
        let is_unknown = || shown.form == Form::Other && !peers.is_accepted(shown);
        match status {
            StatusCode::UNAUTHORIZED => peers.failed(self.peer, shown, now),
            StatusCode::SERVICE_UNAVAILABLE if is_unknown() => peers.failed(self.peer, shown, now),
            status if status.is_success() => peers.passed(shown),
            _ => {}
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if let Some(shown) = self.shown.filter(|shown| !self.peers.is_accepted(*shown)) {
            self.peers.failed(self.peer, shown, self.clock.now());
        }
    }
}

/// The server's time.
#[derive(Clone, Copy)]
struct Clock<'a> {
    system: &'a dyn System,
    started: Instant,
}

impl Clock<'_> {
    /// Milliseconds since the server started.
    fn now(self) -> TimeMs {
        let passed = self.system.instant().saturating_duration_since(self.started);
        TimeMs(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Returns whether a credential can be found by trying: the host's own secrets could, by their look.
fn form(credential: &HeaderValue) -> Form {
    let (scheme, rest) = credential.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
    let is_secret = |text: &str| SECRET_PREFIXES.iter().any(|prefix| text.starts_with(prefix));
    let guesses = if scheme.eq_ignore_ascii_case("basic") {
        let text = BASE64.decode(rest.trim().as_bytes()).ok().and_then(|text| String::from_utf8(text).ok());
        text.is_some_and(|text| text.split_once(':').is_some_and(|(_, password)| is_secret(password)))
    } else {
        is_secret(rest.trim())
    };
    if guesses { Form::Secret } else { Form::Other }
}

/// Returns whether a query holds what looks like a credential: URLs end up in logs and histories.
fn carries_token(query: &str) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        value.starts_with("pmt_") || TOKEN_PARAMETERS.iter().any(|token| name.eq_ignore_ascii_case(token))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource() -> ProtectedResource {
        ProtectedResource {
            public_url: "https://h".to_owned(),
            issuer: "https://as".to_owned(),
            scopes_supported: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
        }
    }

    /// A clock that stands still.
    struct Still(Instant);

    impl System for Still {
        fn random(&self, _: &mut [u8]) {}

        fn instant(&self) -> Instant {
            self.0
        }
    }

    #[test]
    fn a_visit_fails_by_its_answer_or_for_want_of_one() {
        #[expect(clippy::disallowed_methods, reason = "a test's own clock")]
        let still = Still(Instant::now());
        let clock = Clock { system: &still, started: still.0 };
        let peer = Peer::from(std::net::IpAddr::from([10, 0, 0, 1]));
        let headers = |text: &str| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(text).expect("a header"))]);
        let headers_of_guess = headers("Bearer pmt_guess");
        let (secret, signed) = (headers("Bearer pmt_x"), headers("Bearer a.b.c"));
        // Whether one visit that ends so uses up all the failures that an address has.
        let fails = |headers: &HeaderMap, before: Option<StatusCode>, status: Option<StatusCode>| {
            let peers = Peers::new(1, pointsman_core::rate::Rate::new(1, 60, 1));
            for status in before.into_iter().map(Some).chain([status]) {
                let visit = Visit::of(&peers, clock, peer, headers).expect("nobody failed yet");
                if let Some(status) = status {
                    visit.end(status);
                }
            }
            Visit::of(&peers, clock, peer, &headers_of_guess).is_err()
        };
        let ok = Some(StatusCode::OK);
        let (unauthorized, unavailable) = (Some(StatusCode::UNAUTHORIZED), Some(StatusCode::SERVICE_UNAVAILABLE));
        for (headers, before, status, expected) in [
            (&secret, None, ok, false),
            (&secret, None, unauthorized, true),
            (&secret, ok, unauthorized, true),
            (&signed, None, unauthorized, true),
            (&signed, None, unavailable, true),
            (&signed, ok, unavailable, false),
            (&secret, None, unavailable, false),
            (&secret, None, None, true),
            (&signed, None, None, true),
            (&secret, ok, None, false),
            (&HeaderMap::new(), None, unauthorized, false),
            (&HeaderMap::new(), None, None, false),
        ] {
            assert_eq!(fails(headers, before, status), expected, "{headers:?} {before:?} {status:?}");
        }
    }

    #[test]
    fn tokens_in_urls_are_seen() {
        for wrong in ["access_token=x", "a=1&Access_Token=x", "key=pmt_abc", "token"] {
            assert!(carries_token(wrong), "{wrong}");
        }
        for fine in ["", "a=1", "tokens=3", "q=access_token"] {
            assert!(!carries_token(fine), "{fine}");
        }
    }

    #[test]
    fn a_challenge_says_where_the_metadata_is_and_what_to_ask_for() {
        let scopes = ["a".to_owned(), "b".to_owned()];
        let completed = resource().complete("Bearer realm=\"pointsman\"", &scopes, Some("demo"));
        assert_eq!(
            completed,
            "Bearer realm=\"pointsman\", resource_metadata=\"https://h/.well-known/oauth-protected-resource/mcp/demo\", scope=\"a b\""
        );
        let forbidden = resource().complete("Bearer scope=\"c\"", &[], None);
        assert_eq!(forbidden, "Bearer scope=\"c\", resource_metadata=\"https://h/.well-known/oauth-protected-resource/mcp\"");
    }

    #[test]
    fn the_metadata_of_a_host_below_a_path_stands_between_host_and_path() {
        let below = ProtectedResource { public_url: "https://h:1/base/x".to_owned(), ..resource() };
        assert_eq!(below.url(METADATA_PATH, Some("demo")), "https://h:1/.well-known/oauth-protected-resource/base/x/mcp/demo");
        assert_eq!(below.metadata(None)["resource"], "https://h:1/base/x/mcp");
        assert_eq!((below.base(), resource().base()), ("/base/x", ""));
    }

    #[test]
    fn only_secrets_of_the_host_can_be_guessed() {
        let form = |text: &str| form(&HeaderValue::from_str(text).expect("a header"));
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        for secret in ["Bearer pmt_x".to_owned(), "bearer  pmt_x".to_owned(), basic("ana:pmt_x"), basic("t1:pmg_x")] {
            assert_eq!(form(&secret), Form::Secret, "{secret}");
        }
        for other in ["Bearer a.b.c".to_owned(), "Bearer".to_owned(), "Bearer ${X}".to_owned(), basic("ana:a.b.c"), "Basic ?".to_owned()] {
            assert_eq!(form(&other), Form::Other, "{other}");
        }
    }

    #[test]
    fn the_metadata_names_the_endpoint_it_was_asked_for() {
        assert_eq!(resource().metadata(None)["resource"], "https://h/mcp");
        assert_eq!(resource().metadata(Some("demo"))["resource"], "https://h/mcp/demo");
        assert_eq!(resource().metadata(None)["authorization_servers"], serde_json::json!(["https://as"]));
    }
}
