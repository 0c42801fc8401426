//! Git's smart HTTP protocol (gitprotocol-http): paths, credential, compression, and the forms of refusals that git shows.

use data_encoding::BASE64;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::HttpLimits;
use super::body::{GunzippedBody, ReplyBody, StreamedBody};
use super::plain::{Refusal, add_field, with_type};
use crate::ports::repository::{ByteStream, GitService};
use crate::ports::surface::{GitCall, GitRejected, GitSurface};

/// What a path below `/git/` names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GitPath<'a> {
    slug: &'a str,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    InfoRefs,
    Rpc(GitService),
}

/// Reads the path after `/git/`.
pub(super) fn path(rest: &str) -> Option<GitPath<'_>> {
    let (slug, tail) = rest.split_once(".git/")?;
    let what = match tail {
        "info/refs" => What::InfoRefs,
        "git-upload-pack" => What::Rpc(GitService::UploadPack),
        "git-receive-pack" => What::Rpc(GitService::ReceivePack),
        _ => return None,
    };
    (!slug.is_empty() && !slug.contains('/')).then_some(GitPath { slug, what })
}

/// Serves a request of a git client.
pub(super) async fn answer(
    git: &dyn GitSurface,
    limits: &HttpLimits,
    path: &GitPath<'_>,
    request: Request<Incoming>,
    trace: String,
) -> Response<ReplyBody> {
    let call = match call(limits, path, request, trace) {
        Ok(call) => call,
        Err(refusal) => return refusal.response(),
    };
    match git.serve_git(call).await {
        Ok(served) => {
            let mut response = Response::new(ReplyBody::stream(served.body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(served.content_type));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0, must-revalidate"));
            response
        }
        Err(rejected) => refused(&rejected),
    }
}

fn call(limits: &HttpLimits, path: &GitPath<'_>, request: Request<Incoming>, trace: String) -> Result<GitCall, Refusal> {
    let (head, incoming) = request.into_parts();
    let (service, advertise) = match (&path.what, head.method) {
        (What::InfoRefs, Method::GET) => (advertised(head.uri.query()).ok_or(Refusal::DumbGit)?, true),
        (What::InfoRefs, _) => return Err(Refusal::MethodNotAllowed { allow: "GET" }),
        (What::Rpc(service), Method::POST) => (*service, false),
        (What::Rpc(_), _) => return Err(Refusal::MethodNotAllowed { allow: "POST" }),
    };
    if !advertise {
        let expected = match service {
            GitService::UploadPack => "application/x-git-upload-pack-request",
            GitService::ReceivePack => "application/x-git-receive-pack-request",
        };
        if head.headers.get(CONTENT_TYPE).is_none_or(|value| value != expected) {
            return Err(Refusal::UnsupportedMediaType { expected });
        }
    }
    let body = body(limits, &head.headers, incoming)?;
    let protocol = head.headers.get("git-protocol").and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(GitCall { basic: basic(&head.headers), slug: path.slug.to_owned(), service, advertise, protocol, body, trace })
}

fn advertised(query: Option<&str>) -> Option<GitService> {
    match query?.split('&').find_map(|pair| pair.strip_prefix("service="))? {
        "git-upload-pack" => Some(GitService::UploadPack),
        "git-receive-pack" => Some(GitService::ReceivePack),
        _ => None,
    }
}

/// Git compresses what it asks of `upload-pack` when that is longer than a kilobyte.
fn body(limits: &HttpLimits, headers: &HeaderMap, incoming: Incoming) -> Result<ByteStream, Refusal> {
    let limit_bytes = limits.git_body_bytes_max;
    if hyper::body::Body::size_hint(&incoming).lower() > limit_bytes {
        return Err(Refusal::TooLarge { limit_bytes });
    }
    let plain = StreamedBody::new(incoming, limit_bytes, limits.body_read_ms);
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Box::pin(plain)),
        Some(b"gzip" | b"x-gzip") => Ok(Box::pin(GunzippedBody::new(plain, limit_bytes))),
        Some(_) => Err(Refusal::UnsupportedEncoding),
    }
}

/// Returns user name and password (RFC 7617); one that cannot be read is none, so that git asks again.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, digits) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(digits.trim().as_bytes()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Git shows a plain text as `remote: …`.
fn refused(rejected: &GitRejected) -> Response<ReplyBody> {
    let status = match rejected {
        GitRejected::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
        GitRejected::Forbidden { .. } => StatusCode::FORBIDDEN,
        GitRejected::NotFound { .. } => StatusCode::NOT_FOUND,
        GitRejected::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        GitRejected::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = with_type(status, "text/plain; charset=utf-8", format!("{rejected}\n").into());
    match rejected {
        GitRejected::Unauthorized { .. } => add_field(&mut response, "www-authenticate", "Basic realm=\"pointsman\"".to_owned()),
        GitRejected::Unavailable { retry_after_ms } => {
            add_field(&mut response, "retry-after", retry_after_ms.div_ceil(1_000).max(1).to_string());
        }
        GitRejected::Forbidden { .. } | GitRejected::NotFound { .. } | GitRejected::Internal { .. } => {}
    }
    response
}
