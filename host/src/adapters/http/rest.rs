//! The operators' API: `/api/v1/…`, JSON in, JSON out; what goes wrong is a problem document (RFC 9457). `host/docs/rest.md`
//! is its description. `/metrics` stands beside it: figures as text for those who watch the host.
//!
//! Served on the data folder's socket (`socket`) to whoever may open it, and on the main listener (`access`) to credentials
//! with the toolset `admin`. Must not know what the requests do.
//!
//! **Invariants:** a request that was begun is carried out, also when its client goes away; a refused one changed nothing.

mod letters;
mod problem;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

pub(super) use self::letters::{change_body, query_of};
pub(super) use self::problem::Problem;
use super::HttpLimits;
use super::body::{ReplyBody, WholeBody};
use super::plain;
use crate::ports::admin::{AdminError, AdminSurface, AgentAdd, DecisionQuery, ProjectCreate, WhyQuery};
use crate::ports::endpoint::BodySource;
use crate::ports::registry::{PROMOTE_HEARD_MIN, PluginAdd, PluginChange};

/// What every path begins with.
pub(super) const PREFIX: &str = "/api/";
/// Where the figures are.
pub(super) const METRICS: &str = "/metrics";
/// Where the resources of this version are.
pub(super) const BASE: &str = "/api/v1";

/// Makes the text of the figures as they are now.
pub type Figures = Arc<dyn Fn() -> String + Send + Sync>;

/// The API over a surface. Clones are one.
#[derive(Clone)]
pub struct Rest {
    surface: Arc<dyn AdminSurface>,
    /// The media type of the figures, and what makes them.
    figures: (&'static str, Figures),
    under_way: TaskTracker,
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Resource {
    Status,
    Reload,
    Agents,
    Agent(String),
    Projects,
    Plugins,
    Plugin(String),
    Change(String, Verb),
    Health,
    Why(String),
    Letters,
    Letter(String),
    LettersReplay,
    LettersPurge,
    Decisions(String),
    Differences(String),
}

/// A change of a plugin, as the last part of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Enable,
    Disable,
    Pin,
    Unpin,
    Rollback,
    Grants,
    Promote,
    Reload,
}

const VERBS: [(&str, Verb); 8] = [
    ("enable", Verb::Enable),
    ("disable", Verb::Disable),
    ("pin", Verb::Pin),
    ("unpin", Verb::Unpin),
    ("rollback", Verb::Rollback),
    ("grants", Verb::Grants),
    ("promote", Verb::Promote),
    ("reload", Verb::Reload),
];

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct PinBody {
    digest: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct GrantsBody {
    grant: Vec<String>,
    revoke: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PromoteBody {
    heard_min: u64,
    different_max: u64,
}

impl Default for PromoteBody {
    fn default() -> Self {
        Self { heard_min: PROMOTE_HEARD_MIN, different_max: 0 }
    }
}

/// A body that says nothing.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Resource {
    fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(BASE)?.strip_prefix('/')?;
        let parts: Vec<String> = rest.split('/').map(decoded).collect::<Option<_>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Some(match parts.as_slice() {
            ["status"] => Self::Status,
            ["reload"] => Self::Reload,
            ["agents"] => Self::Agents,
            ["agents", which] if !which.is_empty() => Self::Agent((*which).to_owned()),
            ["projects"] => Self::Projects,
            ["plugins"] => Self::Plugins,
            ["plugins", name] if !name.is_empty() => Self::Plugin((*name).to_owned()),
            ["health"] => Self::Health,
            ["why", id] if !id.is_empty() => Self::Why((*id).to_owned()),
            ["why", message, agent] => Self::Why(format!("{message}/{agent}")),
            ["letters"] => Self::Letters,
            ["letters", "replay"] => Self::LettersReplay,
            ["letters", "purge"] => Self::LettersPurge,
            ["letters", message] if !message.is_empty() => Self::Letter((*message).to_owned()),
            ["plugins", name, "decisions"] => Self::Decisions((*name).to_owned()),
            ["plugins", name, "differences"] => Self::Differences((*name).to_owned()),
            ["plugins", name, verb] => {
                let (_, verb) = VERBS.iter().find(|(known, _)| known == verb)?;
                Self::Change((*name).to_owned(), *verb)
            }
            _ => return None,
        })
    }

    const fn allow(&self) -> &'static str {
        match self {
            Self::Status | Self::Health | Self::Why(_) | Self::Letters | Self::Letter(_) | Self::Decisions(_) | Self::Differences(_) => {
                "GET, HEAD"
            }
            Self::Agents | Self::Projects | Self::Plugins => "GET, HEAD, POST",
            Self::Agent(_) => "DELETE",
            Self::Plugin(_) => "GET, HEAD, DELETE",
            Self::Reload | Self::Change(..) | Self::LettersReplay | Self::LettersPurge => "POST",
        }
    }
}

impl Rest {
    /// Returns the API over a surface, with figures of this media type.
    #[must_use]
    pub fn new(surface: Arc<dyn AdminSurface>, media_type: &'static str, figures: Figures) -> Self {
        Self { surface, figures: (media_type, figures), under_way: TaskTracker::new() }
    }

    /// Waits for what is under way. Nothing new may come any more.
    pub async fn drain(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }

    /// Answers a request whose caller may do all.
    pub(super) async fn answer(&self, request: Request<Incoming>, limits: &HttpLimits, trace: &str) -> Response<ReplyBody> {
        if request.uri().path() == METRICS {
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                return Problem::MethodNotAllowed { allow: "GET, HEAD" }.response(trace);
            }
            let (media_type, figures) = &self.figures;
            return plain::with_type(StatusCode::OK, media_type, figures().into());
        }
        match self.answered(request, limits).await {
            Ok((status, value)) => plain::json(status, &value),
            Err(problem) => problem.response(trace),
        }
    }

    async fn answered(&self, request: Request<Incoming>, limits: &HttpLimits) -> Result<(StatusCode, Value), Problem> {
        let (head, incoming) = request.into_parts();
        let path = head.uri.path();
        let resource = Resource::of(path).ok_or_else(|| Problem::NoRoute { path: path.chars().take(200).collect() })?;
        let method = if head.method == Method::HEAD { Method::GET } else { head.method };
        if !resource.allow().split(", ").any(|allowed| allowed == method.as_str()) {
            return Err(Problem::MethodNotAllowed { allow: resource.allow() });
        }
        let body = WholeBody::new(incoming, &head.headers, limits).read_all().await.map_err(Problem::Body)?;
        let is_json =
            head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
                value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
            });
        if !body.is_empty() && !is_json {
            return Err(Problem::UnsupportedMediaType);
        }
        let surface = Arc::clone(&self.surface);
        let query = head.uri.query().unwrap_or_default().to_owned();
        // In a task of its own: a client that goes away does not stop half way what it began.
        let done = self.under_way.spawn(async move { perform(surface.as_ref(), resource, &method, &query, &body).await });
        done.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

async fn perform(
    surface: &dyn AdminSurface,
    resource: Resource,
    method: &Method,
    query: &str,
    body: &Bytes,
) -> Result<(StatusCode, Value), Problem> {
    let is_post = *method == Method::POST;
    match resource {
        Resource::Status => reply(surface.status()).await,
        Resource::Reload => {
            read::<Nothing>(body)?;
            listed("plugins", surface.reload()).await
        }
        Resource::Agents if is_post => made(surface.agent_add(read::<AgentAdd>(body)?)).await,
        Resource::Agents => listed("agents", surface.agent_list()).await,
        Resource::Agent(which) => listed("revoked", surface.agent_revoke(&which)).await,
        Resource::Projects if is_post => {
            let made = surface.project_create(read::<ProjectCreate>(body)?).await?;
            let status = if made.is_new { StatusCode::CREATED } else { StatusCode::OK };
            Ok((status, value(&made)?))
        }
        Resource::Projects => listed("projects", surface.project_list()).await,
        Resource::Plugins if is_post => made(surface.plugin_add(read::<PluginAdd>(body)?)).await,
        Resource::Plugins => listed("plugins", surface.plugin_list()).await,
        Resource::Plugin(name) if *method == Method::DELETE => reply(surface.plugin_remove(&name)).await,
        Resource::Plugin(name) => reply(surface.plugin(&name)).await,
        Resource::Health => reply(surface.plugin_health()).await,
        Resource::Why(id) => reply(surface.why(why_of(id, query)?)).await,
        Resource::Letters => reply(surface.letters(letters::asked_of(query)?)).await,
        Resource::Letter(message) => reply(surface.letter(letters::message_of(&message)?)).await,
        Resource::LettersReplay => letters::replay(surface, body).await,
        Resource::LettersPurge => letters::purge(surface, body).await,
        Resource::Decisions(plugin) => reply(surface.decisions(asked_of(plugin, query)?)).await,
        Resource::Differences(name) => listed("differences", surface.plugin_differences(&name)).await,
        Resource::Change(name, verb) => reply(surface.plugin_change(&name, change(verb, body)?)).await,
    }
}

/// Decisions of an answer that names no number.
const DECISIONS_LISTED: usize = 100;

/// Reads which decisions are asked for: `since_ms`, `after`, `limit`.
fn asked_of(plugin: String, query: &str) -> Result<DecisionQuery, Problem> {
    let mut asked = DecisionQuery { plugin, limit: DECISIONS_LISTED, ..DecisionQuery::default() };
    for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
        let wrong = || Problem::Malformed { why: format!("the parameter `{name}` does not take `{value}`") };
        match name {
            "since_ms" => asked.since_ms = value.parse().map_err(|_| wrong())?,
            "limit" => asked.limit = value.parse().map_err(|_| wrong())?,
            "after" => asked.after = Some(decoded(value).ok_or_else(wrong)?),
            _ => return Err(Problem::Malformed { why: format!("there is no parameter `{name}`; there are since_ms, after, limit") }),
        }
    }
    Ok(asked)
}

/// Reads what is to be explained: `project`.
fn why_of(id: String, query: &str) -> Result<WhyQuery, Problem> {
    let mut asked = WhyQuery { id, project: None };
    for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
        let wrong = || Problem::Malformed { why: format!("the parameter `{name}` does not take `{value}`") };
        match name {
            "project" => asked.project = Some(decoded(value).ok_or_else(wrong)?),
            _ => return Err(Problem::Malformed { why: format!("there is no parameter `{name}`; there is project") }),
        }
    }
    Ok(asked)
}

fn change(verb: Verb, body: &Bytes) -> Result<PluginChange, Problem> {
    let plain = |change: PluginChange| read::<Nothing>(body).map(|_| change);
    match verb {
        Verb::Enable => plain(PluginChange::Enable),
        Verb::Disable => plain(PluginChange::Disable),
        Verb::Pin => read::<PinBody>(body).map(|pin| PluginChange::Pin { digest: pin.digest }),
        Verb::Unpin => plain(PluginChange::Unpin),
        Verb::Rollback => plain(PluginChange::Rollback),
        Verb::Grants => read::<GrantsBody>(body).map(|body| PluginChange::Grants { grant: body.grant, revoke: body.revoke }),
        Verb::Promote => {
            read::<PromoteBody>(body).map(|PromoteBody { heard_min, different_max }| PluginChange::Promote { heard_min, different_max })
        }
        Verb::Reload => plain(PluginChange::Reload),
    }
}

/// Returns a change as its path's last part and its body.
pub(super) fn worded(change: &PluginChange) -> (&'static str, Value) {
    match change {
        PluginChange::Enable => ("enable", json!({})),
        PluginChange::Disable => ("disable", json!({})),
        PluginChange::Pin { digest } => ("pin", json!({"digest": digest})),
        PluginChange::Unpin => ("unpin", json!({})),
        PluginChange::Rollback => ("rollback", json!({})),
        PluginChange::Grants { grant, revoke } => ("grants", json!({"grant": grant, "revoke": revoke})),
        PluginChange::Promote { heard_min, different_max } => ("promote", json!({"heard_min": heard_min, "different_max": different_max})),
        PluginChange::Reload => ("reload", json!({})),
    }
}

/// Reads a body; none is an empty object.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(text).map_err(|error| Problem::Malformed { why: error.to_string() })
}

fn value<T: Serialize>(answer: &T) -> Result<Value, Problem> {
    serde_json::to_value(answer).map_err(|error| AdminError::Unavailable { why: error.to_string() }.into())
}

async fn reply<T: Serialize>(asked: impl Future<Output = Result<T, AdminError>>) -> Result<(StatusCode, Value), Problem> {
    Ok((StatusCode::OK, value(&asked.await?)?))
}

async fn made<T: Serialize>(asked: impl Future<Output = Result<T, AdminError>>) -> Result<(StatusCode, Value), Problem> {
    Ok((StatusCode::CREATED, value(&asked.await?)?))
}

/// A list stands under its name, so that it can have company later.
async fn listed<T: Serialize>(name: &str, asked: impl Future<Output = Result<Vec<T>, AdminError>>) -> Result<(StatusCode, Value), Problem> {
    Ok((StatusCode::OK, json!({name: value(&asked.await?)?})))
}

/// Returns a part of a path without percent-encoding (RFC 3986, section 2.1); none when that is broken.
pub(super) fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// Returns a text as a part of a path can hold it.
pub(super) fn encoded(text: &str) -> String {
    let mut part = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            part.push(char::from(byte));
        } else {
            part.push_str(&format!("%{byte:02X}"));
        }
    }
    part
}

/// Names the methods that a resource takes.
fn add_allow(response: &mut Response<ReplyBody>, allow: &'static str) {
    response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static(allow));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_resources() {
        for (path, resource) in [
            ("/api/v1/status", Some(Resource::Status)),
            ("/api/v1/agents/tok_1", Some(Resource::Agent("tok_1".to_owned()))),
            ("/api/v1/agents/a%20b", Some(Resource::Agent("a b".to_owned()))),
            ("/api/v1/plugins/x", Some(Resource::Plugin("x".to_owned()))),
            ("/api/v1/plugins/x/pin", Some(Resource::Change("x".to_owned(), Verb::Pin))),
            ("/api/v1/plugins/x/fly", None),
            ("/api/v1/why/T-3", Some(Resource::Why("T-3".to_owned()))),
            ("/api/v1/why/msg_1%2Fana", Some(Resource::Why("msg_1/ana".to_owned()))),
            ("/api/v1/why/msg_1/ana", Some(Resource::Why("msg_1/ana".to_owned()))),
            ("/api/v1/why/", None),
            ("/api/v1/letters", Some(Resource::Letters)),
            ("/api/v1/letters/msg_1", Some(Resource::Letter("msg_1".to_owned()))),
            ("/api/v1/letters/purge", Some(Resource::LettersPurge)),
            ("/api/v1/plugins/", None),
            ("/api/v1/agents/%4", None),
            ("/api/v2/status", None),
            ("/api/v1", None),
        ] {
            assert_eq!(Resource::of(path), resource, "{path}");
        }
        assert_eq!(decoded(&encoded("a b/ü%")).as_deref(), Some("a b/ü%"));
    }

    #[test]
    fn changes_go_both_ways() {
        let grants = PluginChange::Grants { grant: vec!["kv".to_owned()], revoke: Vec::new() };
        for asked in [PluginChange::Enable, PluginChange::Pin { digest: Some("ab".to_owned()) }, PluginChange::Rollback, grants] {
            let (verb, body) = worded(&asked);
            let (_, verb) = VERBS.iter().find(|(known, _)| *known == verb).expect("a verb of the API");
            assert_eq!(change(*verb, &Bytes::from(body.to_string())).expect("it reads"), asked);
        }
        assert!(matches!(change(Verb::Pin, &Bytes::from_static(b"{\"digset\": 1}")), Err(Problem::Malformed { .. })));
    }
}
