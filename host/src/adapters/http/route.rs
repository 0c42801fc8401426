//! From a request to what stands behind its path, with an id, a span and a log line each.

use std::borrow::Cow;

use hyper::body::Incoming;
use hyper::header::{EXPECT, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use tracing::Instrument;

use super::body::{ReplyBody, WholeBody};
use super::peers::Peer;
use super::plain::{Refusal, add_field, json};
use super::{Shared, access, documents, encode, git, guard, rest, siblings};
use crate::ports::endpoint::{self, Exchange, Field, Fields, Reply};

/// Characters of a path that are logged and echoed.
const PATH_CHARS_MAX: usize = 200;
/// Where MCP is.
const MCP: &str = "/mcp";
/// Bytes of a project's slug in a path.
const SLUG_BYTES_MAX: usize = 100;

/// Answers a request.
pub(super) async fn answer(shared: &Shared, peer: Peer, request: Box<Request<Incoming>>) -> Response<ReplyBody> {
    let trace = shared.traces.next();
    let started = shared.routes.system.instant();
    let span = tracing::info_span!("request", %trace);
    let accepted = encode::accepted(request.headers());
    let method = request.method().clone();
    // Not the request's own: that would hold the connection's buffer. Most calls go to one place.
    let path = match request.uri().path() {
        MCP => Cow::Borrowed(MCP),
        other => Cow::Owned(other.to_owned()),
    };
    let mut response = async {
        let response = dispatch(shared, peer, request, &path, &trace).await;
        let status = response.status().as_u16();
        let took_us = shared.routes.system.instant().saturating_duration_since(started).as_micros();
        let path = shown(&path);
        match status {
            500.. => tracing::warn!(%method, path, status, took_us, "answered"),
            400..500 => tracing::info!(%method, path, status, took_us, "answered"),
            0..400 => tracing::debug!(%method, path, status, took_us, "answered"),
        }
        response
    }
    .instrument(span)
    .await;
    encode::compress(&mut response, accepted).await;
    add_field(&mut response, "x-request-id", trace);
    response
}

/// Returns as much of a path as is shown.
fn shown(path: &str) -> &str {
    path.char_indices().nth(PATH_CHARS_MAX).map_or(path, |(end, _)| &path[..end])
}

/// What a path leads to.
enum Route<'a> {
    Health,
    Ready,
    Mcp(Option<&'a str>),
    Metadata(Option<&'a str>),
    Git(git::GitPath<'a>),
    Documents,
    Api,
}

/// Returns where a path leads; `base`: the path below which clients reach the host.
fn route<'a>(path: &'a str, base: &str) -> Option<Route<'a>> {
    match path {
        "/healthz" => return Some(Route::Health),
        "/readyz" => return Some(Route::Ready),
        access::METADATA_PATH => return Some(Route::Metadata(None)),
        _ => {}
    }
    if path.starts_with(rest::PREFIX) || path == rest::METRICS {
        return Some(Route::Api);
    }
    if path.starts_with(documents::PREFIX) {
        return Some(Route::Documents);
    }
    if let Some(of) = path.strip_prefix(access::METADATA_PATH) {
        return endpoint_of(of).or_else(|| endpoint_of(of.strip_prefix(base)?)).map(Route::Metadata);
    }
    endpoint_of(path).map(Route::Mcp).or_else(|| path.strip_prefix("/git/").and_then(git::path).map(Route::Git))
}

/// Returns the project that a path of MCP names, if it is one.
fn endpoint_of(path: &str) -> Option<Option<&str>> {
    let rest = path.strip_prefix(MCP)?;
    if matches!(rest, "" | "/") {
        return Some(None);
    }
    let rest = rest.strip_prefix('/')?;
    let slug = rest.strip_suffix('/').unwrap_or(rest);
    let good =
        (1..=SLUG_BYTES_MAX).contains(&slug.len()) && slug.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    good.then_some(Some(slug))
}

async fn dispatch(shared: &Shared, peer: Peer, request: Box<Request<Incoming>>, path: &str, trace: &str) -> Response<ReplyBody> {
    // Siblings are known by their tickets, whatever name they reach this host by.
    if let (Some(door), true) = (&shared.routes.siblings, path.starts_with(siblings::PREFIX)) {
        return Box::pin(door.answer(&shared.limits, *request)).await;
    }
    if let Err(refusal) = shared.guard.check(request.headers(), request.version()) {
        return refusal.response();
    }
    let page = shared.guard.page(request.headers());
    let mut response = match page.as_ref().and_then(|_| guard::preflight(&request)) {
        Some(response) => response,
        None => routed(shared, peer, request, path, trace).await,
    };
    if let Some(origin) = page {
        guard::let_read(&mut response, origin);
    }
    response
}

async fn routed(shared: &Shared, peer: Peer, request: Box<Request<Incoming>>, path: &str, trace: &str) -> Response<ReplyBody> {
    let base = shared.routes.entry.resource.as_ref().map_or("", |resource| resource.base());
    match route(path, base) {
        None => Refusal::NoRoute { path: shown(path).to_owned() }.response(),
        Some(Route::Health | Route::Ready) if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            Refusal::MethodNotAllowed { allow: "GET, HEAD" }.response()
        }
        Some(Route::Health) => json(StatusCode::OK, &serde_json::json!({"status": "ok"})),
        Some(Route::Ready) => match shared.routes.surface.ready().await {
            Ok(()) => json(StatusCode::OK, &serde_json::json!({"ready": true})),
            Err(reason) => {
                let is_degraded = shared.routes.surface.is_degraded();
                let body = serde_json::json!({"ready": false, "degraded": is_degraded, "reasons": [reason]});
                json(StatusCode::SERVICE_UNAVAILABLE, &body)
            }
        },
        Some(Route::Metadata(slug)) => access::metadata(shared, slug, request.method(), path),
        Some(Route::Mcp(slug)) => access::mcp(shared, peer, slug, request, trace).await,
        Some(Route::Git(at)) => Box::pin(access::git(shared, peer, &at, *request, trace)).await,
        Some(Route::Documents) => Box::pin(access::documents(shared, peer, *request, trace)).await,
        Some(Route::Api) => match &shared.routes.rest {
            Some(api) => Box::pin(access::api(shared, peer, api, *request, trace)).await,
            None => Refusal::NoRoute { path: shown(path).to_owned() }.response(),
        },
    }
}

/// Header fields, copied together: the library's map would hold the connection's buffer for as long as a call waits. Each is the lengths of its
/// name and value, and those.
struct Headers(Box<[u8]>);

impl Headers {
    fn of(map: &HeaderMap) -> Self {
        let length = map.iter().map(|(name, value)| 2 * size_of::<u32>() + name.as_str().len() + value.len()).sum();
        let mut bytes = Vec::with_capacity(length);
        for (name, value) in map {
            for part in [name.as_str().as_bytes(), value.as_bytes()] {
                // A head is bounded far below.
                bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            }
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        Self(bytes.into_boxed_slice())
    }

    /// Returns names and values.
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (name, after) = rest.split_first_chunk()?;
            let (value, after) = after.split_first_chunk()?;
            let (name, after) = after.split_at_checked(u32::from_le_bytes(*name) as usize)?;
            let (value, after) = after.split_at_checked(u32::from_le_bytes(*value) as usize)?;
            rest = after;
            Some((name, value))
        })
    }
}

impl Fields for Headers {
    fn field(&self, name: &str) -> Field<'_> {
        let mut values = self.iter().filter(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => Field::Absent,
            (Some(value), None) => Field::One(value),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }
}

/// Hands a request to the protocol.
pub(super) async fn mcp(shared: &Shared, slug: Option<&str>, request: Box<Request<Incoming>>, trace: &str) -> Response<ReplyBody> {
    let (head, incoming) = request.into_parts();
    let method = match head.method {
        Method::GET | Method::HEAD => endpoint::Method::Get,
        Method::POST => endpoint::Method::Post,
        Method::DELETE => endpoint::Method::Delete,
        _ => endpoint::Method::Other,
    };
    let mut body = WholeBody::new(incoming, &head.headers, &shared.limits);
    let (fields, expects) = (Headers::of(&head.headers), head.headers.contains_key(EXPECT));
    drop(head);
    let exchange = Exchange { method, slug, fields: &fields, body: &mut body, trace };
    let reply = shared.routes.mcp.serve(exchange).await;
    // A client that waits for `100 Continue` has sent nothing yet.
    if !expects {
        body.discard().await;
    }
    response(reply)
}

fn response(reply: Reply) -> Response<ReplyBody> {
    let mut response = Response::new(match reply.body {
        endpoint::Body::Whole(bytes) => ReplyBody::full(bytes),
        endpoint::Body::Events(source) => ReplyBody::Events(source),
    });
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(content_type) = reply.content_type {
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    }
    for (name, value) in reply.fields {
        add_field(&mut response, name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_are_found_as_they_came() {
        let mut map = HeaderMap::new();
        for (name, value) in [("accept", "text/plain"), ("mcp-name", ""), ("x-twice", "1"), ("x-twice", "2")] {
            map.append(name, value.parse().expect("a value"));
        }
        let headers = Headers::of(&map);
        assert_eq!(headers.field("accept"), Field::One(b"text/plain"));
        assert_eq!(headers.field("mcp-name"), Field::One(b""));
        assert_eq!((headers.field("x-twice"), headers.field("mcp")), (Field::Repeated, Field::Absent));
        assert_eq!(Headers::of(&HeaderMap::new()).field("accept"), Field::Absent);
    }

    #[test]
    fn metadata_is_found_below_a_base_path_and_without() {
        let metadata = |path: &str, base: &str| match route(path, base) {
            Some(Route::Metadata(slug)) => Some(slug.map(str::to_owned)),
            Some(Route::Health | Route::Ready | Route::Mcp(_) | Route::Git(_) | Route::Documents | Route::Api) | None => None,
        };
        let at = |rest: &str| format!("{}{rest}", access::METADATA_PATH);
        assert_eq!(metadata(&at("/base/mcp/demo"), "/base"), Some(Some("demo".to_owned())));
        assert_eq!(metadata(&at("/base/mcp"), "/base"), Some(None));
        assert_eq!(metadata(&at("/mcp/demo"), "/base"), Some(Some("demo".to_owned())), "a proxy took the path away");
        assert_eq!(metadata(&at("/base/mcp"), ""), None);
        assert_eq!(metadata(&at("/base"), "/base"), None);
    }
}
