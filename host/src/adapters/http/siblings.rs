//! Hosts that serve one store, over HTTP: `POST /sibling/v1/ask` with a question as its body, `POST /sibling/v1/git` with the question
//! in a header field and git's own stream as its body.
//!
//! Who asks shows a ticket: the time and its MAC under a key that only the hosts of one store have. It is good for one path and a
//! minute; what it keeps out is who does not have the keys, not who listens on the wire: where others do, hosts speak TLS.
//!
//! **Invariants:** nothing is read of a question before its ticket was checked; an answer of another version is refused, not guessed.

mod client;

use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use pointsman_core::time::TimeMs;
use ring::hmac;

use super::HttpLimits;
use super::body::{ReplyBody, StreamedBody};
use super::plain::{Refusal, with_type};
use crate::ports::repository::GitResponse;
use crate::ports::siblings::{SiblingSurface, Streamed};

pub use self::client::WebSiblings;

/// What the paths of siblings begin with.
pub(super) const PREFIX: &str = "/sibling/";
/// A question with a whole answer.
const ASK: &str = "/sibling/v1/ask";
/// A question for git's protocol.
const GIT: &str = "/sibling/v1/git";
/// Before the ticket, in `Authorization`.
const SCHEME: &str = "Pointsman-Sibling ";
/// Carries the question where the body is git's.
static QUESTION: HeaderName = HeaderName::from_static("pointsman-question");
/// The media type of questions and of answers that are none of git's.
const MEDIA_TYPE: &str = "application/vnd.pointsman.sibling";
/// The media types of git's answers.
const GIT_TYPES: [&str; 4] = [
    "application/x-git-upload-pack-advertisement",
    "application/x-git-upload-pack-result",
    "application/x-git-receive-pack-advertisement",
    "application/x-git-receive-pack-result",
];
/// Bytes of a question: as many as the files of one commit have, and some more.
const QUESTION_BYTES_MAX: usize = 256 << 20;
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Milliseconds that a ticket is good for, before and after the time it names: the store's clock is one for all.
const TICKET_MS: u64 = 60_000;

/// Returns the store's time.
type Now = Arc<dyn Fn() -> TimeMs + Send + Sync>;

/// Makes and checks tickets.
#[derive(Clone)]
pub struct Tickets {
    key: Arc<hmac::Key>,
    now: Now,
}

impl Tickets {
    /// Returns the tickets of those who have this key.
    #[must_use]
    pub fn new(key: &[u8; 32], now: Now) -> Self {
        Self { key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key)), now }
    }

    fn claim(at: TimeMs, path: &str) -> Vec<u8> {
        format!("{} {path}", at.0).into_bytes()
    }

    /// Returns a ticket of this moment.
    fn mint(&self, path: &str) -> String {
        let at = (self.now)();
        format!("{SCHEME}{}.{}", at.0, HEXLOWER.encode(hmac::sign(&self.key, &Self::claim(at, path)).as_ref()))
    }

    fn is_good(&self, path: &str, shown: &str) -> bool {
        let Some((at, tag)) = shown.strip_prefix(SCHEME).and_then(|ticket| ticket.split_once('.')) else { return false };
        let (Ok(at), Ok(tag)) = (at.parse::<i64>(), HEXLOWER.decode(tag.as_bytes())) else { return false };
        let is_fresh = (self.now)().0.abs_diff(at) <= TICKET_MS;
        is_fresh && hmac::verify(&self.key, &Self::claim(TimeMs(at), path), &tag).is_ok()
    }
}

/// What answers siblings.
#[derive(Clone)]
pub struct SiblingDoor {
    surface: Arc<dyn SiblingSurface>,
    tickets: Tickets,
}

impl SiblingDoor {
    /// Returns what answers those who show a good ticket.
    #[must_use]
    pub fn new(surface: Arc<dyn SiblingSurface>, tickets: Tickets) -> Self {
        Self { surface, tickets }
    }

    /// Answers a request below [`PREFIX`].
    pub(super) async fn answer(&self, limits: &HttpLimits, request: Request<Incoming>) -> Response<ReplyBody> {
        let (head, incoming) = request.into_parts();
        let path = head.uri.path();
        if !matches!(path, ASK | GIT) {
            return Refusal::NoRoute { path: path.chars().take(100).collect() }.response();
        }
        if head.method != Method::POST {
            return Refusal::MethodNotAllowed { allow: "POST" }.response();
        }
        let shown = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !self.tickets.is_good(path, shown) {
            let text = "this host does not know the one that asks: hosts of one store have the same keys, and clocks that agree\n";
            return with_type(StatusCode::UNAUTHORIZED, "text/plain; charset=utf-8", text.into());
        }
        let unknown = || with_type(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", "the question has no form known here\n".into());
        if path == ASK {
            let Ok(question) = Limited::new(incoming, QUESTION_BYTES_MAX).collect().await else {
                return Refusal::TooLarge { limit_bytes: QUESTION_BYTES_MAX as u64 }.response();
            };
            let answer = self.surface.answer(question.to_bytes()).await;
            return answer.map_or_else(unknown, |answer| with_type(StatusCode::OK, MEDIA_TYPE, answer.into()));
        }
        let question = head.headers.get(&QUESTION).and_then(|value| BASE64.decode(value.as_bytes()).ok());
        let Some(question) = question else { return unknown() };
        let body = StreamedBody::new(incoming, limits.git_body_bytes_max, limits.body_read_ms);
        match self.surface.serve(question.into(), Box::pin(body)).await {
            None => unknown(),
            Some(Streamed::Instead(answer)) => with_type(StatusCode::OK, MEDIA_TYPE, answer),
            Some(Streamed::Git(GitResponse { content_type, body })) => {
                let mut response = Response::new(ReplyBody::stream(body));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                response
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(key: u8, at: i64) -> Tickets {
        Tickets::new(&[key; 32], Arc::new(move || TimeMs(at)))
    }

    #[test]
    fn a_ticket_is_good_for_one_path_and_a_minute_and_for_who_has_the_key() {
        let ticket = tickets(1, 1_000_000).mint(ASK);
        assert!(tickets(1, 1_000_000).is_good(ASK, &ticket));
        assert!(tickets(1, 1_060_000).is_good(ASK, &ticket) && tickets(1, 940_000).is_good(ASK, &ticket));
        assert!(!tickets(1, 1_060_001).is_good(ASK, &ticket), "too old");
        assert!(!tickets(1, 1_000_000).is_good(GIT, &ticket), "for another path");
        assert!(!tickets(2, 1_000_000).is_good(ASK, &ticket), "of another key");
        let later = ticket.replacen("1000000", "1000001", 1);
        assert!(!tickets(1, 1_000_000).is_good(ASK, &later), "its time was changed");
        for broken in ["", SCHEME, "Bearer x", &format!("{SCHEME}1000000."), &format!("{SCHEME}x.00")] {
            assert!(!tickets(1, 1_000_000).is_good(ASK, broken), "{broken}");
        }
    }
}
