//! Asking siblings: HTTP/1.1 over connections that are kept, with TLS where the address says so.
//!
//! **Invariant:** a question that may have been read is not asked again here.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio_util::task::TaskTracker;

use super::super::body::{ReplyBody, StreamedBody};
use super::super::outgoing::Outgoing;
use super::super::tls::TlsError;
use super::{ANSWER_BYTES_MAX, ASK, GIT, GIT_TYPES, MEDIA_TYPE, QUESTION, Tickets};
use crate::ports::repository::{ByteStream, GitResponse};
use crate::ports::siblings::{SiblingError, Siblings, Streamed};
use crate::service::kit::chain;

/// Milliseconds to reach a host.
const CONNECT_MS: u64 = 3_000;
/// Milliseconds for a whole answer: git's own steps are bounded at its side.
const ANSWER_MS: u64 = 90_000;
/// Milliseconds for the head of git's answer: a push is judged and moved before it.
const GIT_HEAD_MS: u64 = 10 * 60_000;
/// Milliseconds that a stream may stand still.
const STILL_MS: u64 = 60_000;
/// Connections to one host that are kept for the next question.
const IDLE_MAX: usize = 16;
/// Characters of a refusal that are shown.
const REFUSAL_CHARS_MAX: usize = 300;

type Sender = SendRequest<ReplyBody>;

/// Siblings that are reached over HTTP.
pub struct WebSiblings {
    tickets: Tickets,
    outgoing: Outgoing,
    idle: Mutex<HashMap<String, Vec<Sender>>>,
    drivers: TaskTracker,
}

/// What came of sending a request.
enum Sent {
    Answered(Response<Incoming>, Sender),
    /// The connection had ended before anything of the request was read.
    Unread,
    Broken(String),
}

impl WebSiblings {
    /// Returns the way to siblings whose certificates the web's roots sign, or these.
    ///
    /// # Errors
    /// The TLS library has no fitting protocol.
    pub fn new(tickets: Tickets, certificates: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        Ok(Self { tickets, outgoing: Outgoing::new(certificates)?, idle: Mutex::default(), drivers: TaskTracker::new() })
    }

    async fn connect(&self, url: &str) -> Result<Sender, String> {
        let reached = tokio::time::timeout(Duration::from_millis(CONNECT_MS), self.connect_unbounded(url)).await;
        reached.unwrap_or_else(|_| Err(format!("{url} was not reached within {CONNECT_MS} ms")))
    }

    async fn connect_unbounded(&self, url: &str) -> Result<Sender, String> {
        let uri: Uri = url.parse().map_err(|_| format!("`{url}` is no address of a host"))?;
        let stream = self.outgoing.connect(&uri).await.map_err(|error| chain(&error))?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // It ends with the sender, and with what still reads an answer.
        self.drivers.spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to a sibling broke");
            }
        });
        Ok(sender)
    }

    fn kept(&self, url: &str) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(url)?;
        while let Some(sender) = kept.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, url: &str, sender: Sender) {
        let mut idle = self.idle.lock();
        let kept = idle.entry(url.to_owned()).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(sender);
        }
    }

    fn request(&self, url: &str, path: &str, question: Option<&[u8]>, body: ReplyBody) -> Result<Request<ReplyBody>, SiblingError> {
        let malformed = |_| SiblingError::Refused { why: format!("`{url}` is no address of a host") };
        let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        let mut request = Request::post(path).header(HOST, authority).header(AUTHORIZATION, self.tickets.mint(path));
        request = match question {
            Some(question) => request.header(&QUESTION, BASE64.encode(question)),
            None => request.header(CONTENT_TYPE, MEDIA_TYPE),
        };
        request.body(body).map_err(malformed)
    }
}

async fn send(mut sender: Sender, request: Request<ReplyBody>, limit_ms: u64) -> Sent {
    match tokio::time::timeout(Duration::from_millis(limit_ms), sender.try_send_request(request)).await {
        Ok(Ok(response)) => Sent::Answered(response, sender),
        // Handed back whole: the connection ended before it was written.
        Ok(Err(mut error)) => match error.take_message() {
            Some(_) => Sent::Unread,
            None => Sent::Broken(error.into_error().to_string()),
        },
        Err(_) => Sent::Broken(format!("it did not answer within {limit_ms} ms")),
    }
}

/// Returns the media type of an answer, or how it refuses.
async fn accepted(url: &str, response: Response<Incoming>) -> Result<(String, Incoming), SiblingError> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let status = response.status();
    if status == StatusCode::OK {
        return Ok((kind, response.into_body()));
    }
    let said = Limited::new(response.into_body(), 4 << 10).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let said: String = String::from_utf8_lossy(&said).trim().chars().take(REFUSAL_CHARS_MAX).collect();
    let why = format!("{url} answers {}: {said}", status.as_u16());
    Err(if status.is_server_error() { SiblingError::Away { why } } else { SiblingError::Refused { why } })
}

#[async_trait]
impl Siblings for WebSiblings {
    async fn ask(&self, url: &str, question: Bytes) -> Result<Bytes, SiblingError> {
        let away = |why: String| SiblingError::Away { why: format!("{url}: {why}") };
        let mut kept = self.kept(url);
        loop {
            let (sender, is_kept) = match kept.take() {
                Some(sender) => (sender, true),
                None => (self.connect(url).await.map_err(|why| SiblingError::Away { why })?, false),
            };
            let request = self.request(url, ASK, None, ReplyBody::full(question.clone()))?;
            match send(sender, request, ANSWER_MS).await {
                Sent::Answered(response, sender) => {
                    let (kind, body) = accepted(url, response).await?;
                    let body = tokio::time::timeout(Duration::from_millis(STILL_MS), Limited::new(body, ANSWER_BYTES_MAX).collect());
                    let body = body.await.map_err(|_| away("its answer stood still".to_owned()))?;
                    let body = body.map_err(|error| away(error.to_string()))?.to_bytes();
                    if kind != MEDIA_TYPE {
                        return Err(SiblingError::Refused { why: format!("{url} is no host of this version") });
                    }
                    self.keep(url, sender);
                    return Ok(body);
                }
                Sent::Unread if is_kept => {}
                Sent::Unread => return Err(away("it hung up".to_owned())),
                Sent::Broken(why) => return Err(away(why)),
            }
        }
    }

    async fn serve(&self, url: &str, question: Bytes, body: ByteStream) -> Result<Streamed, SiblingError> {
        let away = |why: String| SiblingError::Away { why: format!("{url}: {why}") };
        // A connection of its own: a body that streams cannot be sent twice.
        let sender = self.connect(url).await.map_err(|why| SiblingError::Away { why })?;
        let request = self.request(url, GIT, Some(&question), ReplyBody::stream(body))?;
        let response = match send(sender, request, GIT_HEAD_MS).await {
            Sent::Answered(response, _) => response,
            Sent::Unread => return Err(away("it hung up".to_owned())),
            Sent::Broken(why) => return Err(away(why)),
        };
        let (kind, body) = accepted(url, response).await?;
        match GIT_TYPES.iter().find(|known| **known == kind) {
            Some(content_type) => {
                let body = Box::pin(StreamedBody::new(body, u64::MAX, STILL_MS));
                Ok(Streamed::Git(GitResponse { content_type, body }))
            }
            None if kind == MEDIA_TYPE => {
                let whole = Limited::new(body, 1 << 20).collect().await.map_err(|error| away(error.to_string()))?;
                Ok(Streamed::Instead(whole.to_bytes()))
            }
            None => Err(SiblingError::Refused { why: format!("{url} is no host of this version") }),
        }
    }
}
