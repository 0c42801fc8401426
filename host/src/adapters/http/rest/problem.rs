//! Everything that the API refuses, as problem documents (RFC 9457): the only place that knows its statuses.
//!
//! **Invariant:** every problem has a stable `code` and says in `do` what helps.

use bytes::Bytes;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::super::body::ReplyBody;
use super::super::plain::{add_field, with_type};
use super::add_allow;
use crate::ports::admin::AdminError;
use crate::ports::endpoint::BodyError;
use crate::ports::surface::Rejected;

/// The media type of problem documents.
const PROBLEM: &str = "application/problem+json";
/// What the `type` of a problem begins with; its code follows.
const TYPE: &str = "urn:pointsman:problem:";
/// What to do about a credential that is missing or wrong.
const TOKEN_ADVICE: &str =
    "Send `Authorization: Bearer TOKEN` with a token that has the toolset `admin`: `pointsman agent add NAME --toolset admin`.";

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::adapters::http) enum Problem {
    /// No such path.
    #[error("there is nothing at `{path}`")]
    NoRoute {
        /// What was asked for, cut.
        path: String,
    },
    /// Another method.
    #[error("this path takes {allow}")]
    MethodNotAllowed {
        /// What it takes.
        allow: &'static str,
    },
    /// A body that is not announced as JSON.
    #[error("the body is not `application/json`")]
    UnsupportedMediaType,
    /// The body did not come.
    #[error(transparent)]
    Body(BodyError),
    /// A body of another form.
    #[error("the body does not fit: {why}")]
    Malformed {
        /// The reader's words.
        why: String,
    },
    /// A credential in the URL.
    #[error("the URL holds a token")]
    TokenInQuery,
    /// An `Authorization` field that holds no bearer token.
    #[error("the `Authorization` field is not one `Bearer TOKEN`")]
    CredentialUnreadable,
    /// An address that was turned away too often.
    #[error("too many requests from this address had no valid credential")]
    TooManyFailures {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The credential was refused.
    #[error(transparent)]
    Rejected(Rejected),
    /// A good credential of somebody who is no operator.
    #[error("the token does not have the toolset `admin`")]
    NoOperator,
    /// What was asked was refused.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

impl Problem {
    fn parts(&self) -> (StatusCode, &str, &str) {
        match self {
            Self::NoRoute { .. } => (StatusCode::NOT_FOUND, "no_such_path", "host/docs/rest.md lists the paths; they begin with /api/v1/."),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Use one of the methods named."),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Send `Content-Type: application/json`.")
            }
            Self::Body(BodyError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Send less."),
            Self::Body(BodyError::TimedOut { .. }) => (StatusCode::REQUEST_TIMEOUT, "body_timed_out", "Send the request again."),
            Self::Body(BodyError::TooDeep { .. }) => (StatusCode::BAD_REQUEST, "body_too_deep", "Send flatter JSON."),
            Self::Body(BodyError::UnknownEncoding) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", "Send it plain, or with zstd or gzip.")
            }
            Self::Body(BodyError::Damaged) => {
                (StatusCode::BAD_REQUEST, "body_damaged", "Compress it as `Content-Encoding` says, or send it plain.")
            }
            Self::Body(BodyError::Broken) => (StatusCode::BAD_REQUEST, "body_broken", "Send the request again."),
            Self::Malformed { .. } => {
                (StatusCode::BAD_REQUEST, "malformed", "Send one JSON object of the form that host/docs/rest.md gives.")
            }
            Self::TokenInQuery => (
                StatusCode::BAD_REQUEST,
                "token_in_query",
                "URLs are logged: send `Authorization: Bearer TOKEN`, and take a new token for this one.",
            ),
            Self::CredentialUnreadable | Self::Rejected(Rejected::Missing | Rejected::Invalid { .. }) => {
                (StatusCode::UNAUTHORIZED, "unauthorized", TOKEN_ADVICE)
            }
            Self::TooManyFailures { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_failures", "Wait as long as `Retry-After` says, and mend the token first.")
            }
            Self::Rejected(Rejected::TooMany { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Wait as long as `Retry-After` says.")
            }
            Self::Rejected(Rejected::InsufficientScope { .. }) => {
                (StatusCode::FORBIDDEN, "insufficient_scope", "Authorize again for a scope that opens the toolset `admin`.")
            }
            Self::Rejected(Rejected::Forbidden { .. }) => (StatusCode::FORBIDDEN, "forbidden", "Use a token that opens a project."),
            Self::Rejected(Rejected::Unavailable { .. }) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again a little later."),
            Self::NoOperator => (StatusCode::FORBIDDEN, "not_an_operator", TOKEN_ADVICE),
            Self::Admin(AdminError::Refused { code, advice, .. }) => (status_of(code), code, advice),
            Self::Admin(AdminError::Unavailable { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again a little later; the host's log says more.")
            }
        }
    }

    fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::TooManyFailures { retry_after_ms }
            | Self::Rejected(Rejected::TooMany { retry_after_ms } | Rejected::Unavailable { retry_after_ms }) => Some(*retry_after_ms),
            Self::NoRoute { .. }
            | Self::MethodNotAllowed { .. }
            | Self::UnsupportedMediaType
            | Self::Body(_)
            | Self::Malformed { .. }
            | Self::TokenInQuery
            | Self::CredentialUnreadable
            | Self::Rejected(
                Rejected::Missing | Rejected::Invalid { .. } | Rejected::Forbidden { .. } | Rejected::InsufficientScope { .. },
            )
            | Self::NoOperator
            | Self::Admin(_) => None,
        }
    }

    /// Returns the problem as an answer.
    pub(in crate::adapters::http) fn response(&self, trace: &str) -> Response<ReplyBody> {
        let (status, code, advice) = self.parts();
        let document = json!({
            "type": format!("{TYPE}{code}"),
            "title": status.canonical_reason().unwrap_or("Refused"),
            "status": status.as_u16(),
            "detail": self.to_string(),
            "instance": format!("urn:pointsman:request:{trace}"),
            "code": code,
            "do": advice,
        });
        let mut response = with_type(status, PROBLEM, Bytes::from(format!("{document}\n")));
        if let Self::MethodNotAllowed { allow } = self {
            add_allow(&mut response, allow);
        }
        if status == StatusCode::UNAUTHORIZED {
            let error = if matches!(self, Self::Rejected(Rejected::Missing)) { "" } else { ", error=\"invalid_token\"" };
            add_field(&mut response, "www-authenticate", format!("Bearer realm=\"pointsman\"{error}"));
        }
        if let Self::Rejected(Rejected::InsufficientScope { scopes }) = self {
            let scopes = scopes.join(" ");
            add_field(
                &mut response,
                "www-authenticate",
                format!("Bearer realm=\"pointsman\", error=\"insufficient_scope\", scope=\"{scopes}\""),
            );
        }
        if let Self::TokenInQuery = self {
            // RFC 6750, section 3.1.
            let challenge = HeaderValue::from_static("Bearer realm=\"pointsman\", error=\"invalid_request\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(retry_after_ms) = self.retry_after_ms() {
            add_field(&mut response, "retry-after", retry_after_ms.div_ceil(1_000).max(1).to_string());
        }
        response
    }
}

/// Returns the status of a refusal by its code.
fn status_of(code: &str) -> StatusCode {
    match code {
        "not_found" => StatusCode::NOT_FOUND,
        "exists" | "slug_taken" | "file_beats_api" | "no_earlier_version" | "not_proven" | "no_project" => StatusCode::CONFLICT,
        "plugin_refused" | "bad_configuration" => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_have_statuses_and_fields() {
        let refused = |code: &str| AdminError::Refused { code: code.to_owned(), why: "w".to_owned(), advice: "a".to_owned() }.into();
        for (problem, status) in [
            (refused("not_found"), 404),
            (refused("file_beats_api"), 409),
            (refused("plugin_refused"), 422),
            (refused("bad_argument"), 400),
            (Problem::Admin(AdminError::Unavailable { why: "w".to_owned() }), 503),
            (Problem::Rejected(Rejected::Missing), 401),
            (Problem::NoOperator, 403),
            (Problem::Rejected(Rejected::TooMany { retry_after_ms: 1_500 }), 429),
        ] {
            let problem: Problem = problem;
            let response = problem.response("req_1");
            assert_eq!(response.status().as_u16(), status, "{problem}");
            assert_eq!(response.headers()["content-type"], PROBLEM);
            assert_eq!(response.headers().contains_key("www-authenticate"), status == 401);
            assert_eq!(response.headers().get("retry-after").map(HeaderValue::as_bytes), (status == 429).then_some(b"2".as_slice()));
        }
    }
}
