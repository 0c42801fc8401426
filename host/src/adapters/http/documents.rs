//! Shared context over plain HTTP: `/context/SLUG/KEY`. `host/docs/context.md` is its description.
//!
//! **Invariants:** a body is read only after its caller was let in, and few large ones at once; what is downloaded can be gone on with by range,
//! since a version never changes.

use bytes::{Buf, Bytes};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use hyper::{Method, Request, Response, StatusCode};
use pointsman_core::limits::{CHUNK_BYTES_MAX, DOCUMENT_BYTES_MAX};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::HttpLimits;
use super::Shared;
use super::body::{ReplyBody, WholeBody};
use super::plain::{self, add_field, with_type};
use super::rest::{Problem, decoded};
use crate::ports::documents::{
    ByteRange, DocumentAnswer, DocumentAsk, DocumentBody, DocumentBytes, DocumentRejected, DocumentWrite, WrittenContent,
};
use crate::ports::endpoint::BodySource;
use crate::ports::surface::Caller;

/// What every path begins with.
pub(super) const PREFIX: &str = "/context/";
/// In place of a slug: the project that the credential opens, the first of several.
const ANY: &str = "-";
/// The field that names the agent.
const AGENT: &str = "pointsman-agent";
/// The field that makes a repeated write the same one.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The media type of a version that is named by its chunks.
const CHUNKS: &str = "application/vnd.pointsman.chunks+json";
/// Bytes of one body of chunks.
const CHUNKS_BODY_BYTES_MAX: usize = 4 << 20;
/// Milliseconds for a body.
const BODY_READ_MS: u64 = 300_000;
/// Large bodies that are read at once.
const LARGE_BODIES_MAX: usize = 4;

/// Places for large bodies.
pub(super) struct Places(Semaphore);

impl Default for Places {
    fn default() -> Self {
        Self(Semaphore::new(LARGE_BODIES_MAX))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    chunks: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedVersion {
    media_type: Option<String>,
    chunks: Vec<String>,
}

/// Why a request has no answer.
enum Refused {
    Problem(Problem),
    Rejected(DocumentRejected),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// What the query says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    chunks: bool,
    missing: bool,
    version: Option<u64>,
    base_version: Option<u64>,
    prefix: Option<String>,
    after: Option<String>,
}

impl Query {
    fn parse(text: &str) -> Result<Self, Problem> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = || Problem::Malformed { why: format!("the parameter `{name}` does not take `{value}`") };
            match name {
                "chunks" => query.chunks = true,
                "missing" => query.missing = true,
                "version" => query.version = Some(value.parse().map_err(|_| wrong())?),
                "base_version" => query.base_version = Some(value.parse().map_err(|_| wrong())?),
                "prefix" => query.prefix = Some(decoded(value).ok_or_else(wrong)?),
                "after" => query.after = Some(decoded(value).ok_or_else(wrong)?),
                _ => {
                    let why = format!("there is no parameter `{name}`; there are version, base_version, chunks, missing, prefix, after");
                    return Err(Problem::Malformed { why });
                }
            }
        }
        Ok(query)
    }
}

/// Answers a request whose path begins with [`PREFIX`].
pub(super) async fn answer(shared: &Shared, request: Request<Incoming>, trace: &str) -> Response<ReplyBody> {
    match answered(shared, request, trace).await {
        Ok(response) => response,
        Err(Refused::Problem(Problem::Malformed { why })) => {
            let body = json!({"code": "malformed", "why": why, "do": "Send it in the form that host/docs/context.md gives."});
            plain::json(StatusCode::BAD_REQUEST, &body)
        }
        Err(Refused::Problem(problem)) => problem.response(trace),
        Err(Refused::Rejected(rejected)) => worded(rejected, trace),
    }
}

async fn answered(shared: &Shared, request: Request<Incoming>, trace: &str) -> Result<Response<ReplyBody>, Refused> {
    let (head, incoming) = request.into_parts();
    let no_route = || Problem::NoRoute { path: head.uri.path().chars().take(200).collect() };
    let rest = head.uri.path().strip_prefix(PREFIX).ok_or_else(no_route)?;
    let (slug, key) = rest.split_once('/').unwrap_or((rest, ""));
    let key = decoded(key).ok_or_else(no_route)?;
    let query = Query::parse(head.uri.query().unwrap_or_default())?;
    let caller = caller(shared, &head.headers, slug, trace).await?;
    let agent =
        head.headers.get(AGENT).map(|value| value.to_str().map_err(|_| Problem::Malformed { why: format!("`{AGENT}` is no text") }));
    let agent = agent.transpose()?;
    let documents = &shared.routes.documents;
    let method = if head.method == Method::HEAD { Method::GET } else { head.method.clone() };
    if key.is_empty() {
        if method != Method::GET {
            return Err(Problem::MethodNotAllowed { allow: "GET, HEAD" }.into());
        }
        let (prefix, after) = (query.prefix.as_deref().unwrap_or_default(), query.after.as_deref().unwrap_or_default());
        let listed = documents.documents(&caller, agent, prefix, after).await;
        return listed.map_err(Refused::Rejected).map(|answer| reply(answer, &head.headers));
    }
    let ask = match method {
        Method::GET if query.chunks => DocumentAsk::Manifest { version: query.version },
        Method::GET => {
            let is_other = is_another(shared, &caller, agent, &key, query.version, &head.headers).await;
            DocumentAsk::Read { version: query.version, range: range(&head.headers).filter(|_| !is_other) }
        }
        Method::POST if query.missing => {
            let body = body(shared, incoming, &head.headers, CHUNKS_BODY_BYTES_MAX).await?;
            DocumentAsk::Missing { chunks: read::<Named>(&body)?.chunks }
        }
        Method::POST if query.chunks => {
            let body = body(shared, incoming, &head.headers, CHUNKS_BODY_BYTES_MAX).await?;
            DocumentAsk::Bring { chunks: frames(body)? }
        }
        Method::PUT => DocumentAsk::Write(write(shared, incoming, &head.headers, query.base_version).await?),
        _ => return Err(Problem::MethodNotAllowed { allow: "GET, HEAD, PUT, POST ?missing, POST ?chunks" }.into()),
    };
    let asked = if matches!(ask, DocumentAsk::Write(_) | DocumentAsk::Bring { .. }) {
        // In a task of its own: a client that goes away does not stop half way what it began.
        let (documents, agent) = (std::sync::Arc::clone(documents), agent.map(str::to_owned));
        let work = async move { documents.document(&caller, agent.as_deref(), &key, ask).await };
        tokio::spawn(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    } else {
        documents.document(&caller, agent, &key, ask).await
    };
    asked.map_err(Refused::Rejected).map(|answer| reply(answer, &head.headers))
}

async fn caller(shared: &Shared, headers: &HeaderMap, slug: &str, trace: &str) -> Result<Caller, Problem> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let bearer = match (sent.next(), sent.next()) {
        (None, _) => None,
        (Some(value), None) => Some(value.to_str().map_err(|_| Problem::CredentialUnreadable)?),
        (Some(_), Some(_)) => return Err(Problem::CredentialUnreadable),
    };
    let slug = (slug != ANY).then_some(slug);
    let caller = shared.routes.surface.admit(bearer, slug, trace.to_owned()).await.map_err(Problem::Rejected)?;
    shared.routes.surface.count(&caller).map_err(Problem::Rejected)?;
    Ok(caller)
}

async fn body(shared: &Shared, incoming: Incoming, headers: &HeaderMap, bytes_max: usize) -> Result<Bytes, Problem> {
    let _place = shared.document_places.0.acquire().await;
    let limits = HttpLimits { body_bytes_max: bytes_max, body_read_ms: BODY_READ_MS, json_depth_max: usize::MAX, ..shared.limits };
    WholeBody::new(incoming, headers, &limits).read_all().await.map_err(Problem::Body)
}

async fn write(shared: &Shared, incoming: Incoming, headers: &HeaderMap, base_version: Option<u64>) -> Result<DocumentWrite, Problem> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let media_type = text(&CONTENT_TYPE).and_then(|value| value.split(';').next().map(|essence| essence.trim().to_ascii_lowercase()));
    let idempotency_key = text(&HeaderName::from_static(IDEMPOTENCY_KEY));
    let body = body(shared, incoming, headers, DOCUMENT_BYTES_MAX).await?;
    Ok(if media_type.as_deref() == Some(CHUNKS) {
        let NamedVersion { media_type, chunks } = read(&body)?;
        DocumentWrite { base_version, media_type, idempotency_key, content: WrittenContent::Chunks(chunks) }
    } else {
        DocumentWrite { base_version, media_type, idempotency_key, content: WrittenContent::Whole(body) }
    })
}

fn read<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::Malformed { why: error.to_string() })
}

/// Cuts a body into its frames: the length of each, 32 bits, little-endian, and its bytes.
fn frames(mut body: Bytes) -> Result<Vec<Bytes>, Problem> {
    let wrong = |why: String| Problem::Malformed { why };
    let mut frames = Vec::new();
    while body.has_remaining() {
        if body.len() < size_of::<u32>() {
            return Err(wrong("the last frame has no length".to_owned()));
        }
        let length = body.get_u32_le() as usize;
        if length == 0 || length > CHUNK_BYTES_MAX || length > body.len() {
            return Err(wrong(format!(
                "frame {} has {length} bytes, of {} that came; 1 to {CHUNK_BYTES_MAX} are taken",
                frames.len(),
                body.len()
            )));
        }
        frames.push(body.split_to(length));
    }
    Ok(frames)
}

/// Returns the one range that is asked for; several, or none that can be read: all (RFC 9110, section 14.2).
fn range(headers: &HeaderMap) -> Option<ByteRange> {
    let text = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (from, to) = text.trim().split_once('-')?;
    match (from.trim(), to.trim()) {
        ("", count) => count.parse().ok().map(ByteRange::Last),
        (from, "") => from.parse().ok().map(|from| ByteRange::From(from, None)),
        (from, to) => {
            let (from, to) = (from.parse().ok()?, to.parse().ok()?);
            (from <= to).then_some(ByteRange::From(from, Some(to)))
        }
    }
}

/// Returns whether a range is asked of another version than the one that would be read (RFC 9110, section 13.1.5).
async fn is_another(shared: &Shared, caller: &Caller, agent: Option<&str>, key: &str, version: Option<u64>, headers: &HeaderMap) -> bool {
    let Some(wanted) = headers.get(IF_RANGE) else { return false };
    match shared.routes.documents.document(caller, agent, key, DocumentAsk::Manifest { version }).await {
        Ok(DocumentAnswer::Json(found)) => {
            let (version, hash) = (found["version"].as_u64().unwrap_or_default(), found["hash"].as_str().unwrap_or_default());
            wanted.as_bytes() != tag(version, hash).as_bytes()
        }
        Ok(DocumentAnswer::Bytes(_)) | Err(_) => true,
    }
}

/// Returns the entity tag of a version.
fn tag(version: u64, hash: &str) -> String {
    format!("\"{version}-{}\"", hash.get(..16).unwrap_or(hash))
}

fn reply(answer: DocumentAnswer, headers: &HeaderMap) -> Response<ReplyBody> {
    match answer {
        DocumentAnswer::Json(value) => plain::json(StatusCode::OK, &value),
        DocumentAnswer::Bytes(bytes) => bytes_reply(bytes, headers),
    }
}

fn bytes_reply(answer: DocumentBytes, headers: &HeaderMap) -> Response<ReplyBody> {
    let DocumentBytes { version, hash, media_type, size_bytes, range, body } = answer;
    let tag = tag(version, &hash);
    let names = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.split(',').any(|one| one.trim() == tag || one.trim() == "*"));
    let mut response = Response::new(match body {
        _ if headers.get(IF_NONE_MATCH).is_some_and(names) => {
            let mut response = with_type(StatusCode::NOT_MODIFIED, "application/octet-stream", Bytes::new());
            add_field(&mut response, "etag", tag);
            return response;
        }
        DocumentBody::Whole(bytes) => ReplyBody::full(bytes),
        DocumentBody::Stream(stream) => ReplyBody::stream(stream),
    });
    if let Some((from, to)) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        add_field(&mut response, CONTENT_RANGE.as_str(), format!("bytes {from}-{}/{size_bytes}", to.saturating_sub(1)));
    }
    for (name, value) in [
        (CONTENT_TYPE.as_str(), media_type),
        (ETAG.as_str(), tag),
        (ACCEPT_RANGES.as_str(), "bytes".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
        ("content-security-policy", "sandbox".to_owned()),
        ("pointsman-version", version.to_string()),
        ("pointsman-size", size_bytes.to_string()),
    ] {
        add_field(&mut response, name, value);
    }
    response
}

fn worded(rejected: DocumentRejected, trace: &str) -> Response<ReplyBody> {
    match rejected {
        DocumentRejected::Refused { code, json } => with_type(status(code), "application/json", format!("{json}\n").into()),
        DocumentRejected::Unsatisfiable { size_bytes } => {
            let why = format!("the document has {size_bytes} bytes");
            let body = json!({"code": "range_not_satisfiable", "why": why, "do": "Ask for a range within it."});
            let mut response = plain::json(StatusCode::RANGE_NOT_SATISFIABLE, &body);
            add_field(&mut response, CONTENT_RANGE.as_str(), format!("bytes */{size_bytes}"));
            response
        }
        DocumentRejected::Unavailable { retry_after_ms } => {
            let body =
                json!({"code": "unavailable", "why": "the host cannot do it now", "do": "Try again, with the same Idempotency-Key."});
            let mut response = plain::json(StatusCode::SERVICE_UNAVAILABLE, &body);
            add_field(&mut response, "retry-after", retry_after_ms.div_ceil(1_000).max(1).to_string());
            response
        }
        DocumentRejected::Internal => {
            let body = json!({"code": "internal", "why": "internal error", "do": format!("See the host's log for {trace}.")});
            plain::json(StatusCode::INTERNAL_SERVER_ERROR, &body)
        }
    }
}

/// Returns the status of a refusal; what is the caller's to correct and has none of its own is 400.
fn status(code: &str) -> StatusCode {
    match code {
        "not_found" => StatusCode::NOT_FOUND,
        "forbidden" | "not_yours" => StatusCode::FORBIDDEN,
        "conflict" | "stale" | "unknown_base" | "precondition_failed" | "exists" => StatusCode::CONFLICT,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "missing_chunks" | "key_reused" => StatusCode::UNPROCESSABLE_ENTITY,
        "quota" => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_read_and_several_are_all() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_static(text));
            range(&headers)
        };
        assert_eq!(of("bytes=0-99"), Some(ByteRange::From(0, Some(99))));
        assert_eq!(of("bytes=5-"), Some(ByteRange::From(5, None)));
        assert_eq!(of("bytes=-5"), Some(ByteRange::Last(5)));
        for whole in ["bytes=9-5", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=", "bytes=-"] {
            assert_eq!(of(whole), None, "{whole}");
        }
    }

    #[test]
    fn bodies_are_cut_into_frames() {
        let frame = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("small").to_le_bytes(), bytes].concat();
        let body = [frame(b"one"), frame(b"two!")].concat();
        assert_eq!(frames(body.clone().into()).ok(), Some(vec![Bytes::from("one"), Bytes::from("two!")]));
        assert_eq!(frames(Bytes::new()).ok(), Some(Vec::new()));
        let cut = body[..body.len() - 1].to_vec();
        for wrong in [cut, frame(b""), frame(&[0; CHUNK_BYTES_MAX + 1]), vec![1, 0]] {
            assert!(matches!(frames(wrong.into()), Err(Problem::Malformed { .. })));
        }
    }

    #[test]
    fn queries_are_read_strictly() {
        let query = Query::parse("chunks&version=3").ok();
        assert_eq!(query, Some(Query { chunks: true, version: Some(3), ..Query::default() }));
        for wrong in ["version=x", "verson=1", "base_version=-1"] {
            assert!(Query::parse(wrong).is_err(), "{wrong}");
        }
    }
}
