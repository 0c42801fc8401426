//! Server-sent events: the frames of one answer, and how they look on the wire.
//!
//! Must not know methods. **Invariants:** a stream that ends well ends with its last frame; whoever fills one learns from its
//! sender that nobody reads any more; a silent stream shows a sign of life, so that nothing in between closes it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::envelope;
use super::errors::{Era, Fault};
use crate::ports::endpoint::EventSource;

/// Milliseconds of silence after which a comment is sent.
pub(super) const KEEP_ALIVE_MS: u64 = 20_000;
/// Frames that wait to be sent. What a component tells beyond that is lost, its answer never.
pub(super) const FRAMES_MAX: usize = 32;
/// Bytes of a request's id that is named in the ids of its stream.
const NAMED_REQUEST_BYTES_MAX: usize = 96;

/// A piece of an answer.
pub(super) enum Frame {
    /// A notification, or in a session a request, as JSON.
    Message(Vec<u8>),
    /// An event in its wire form.
    Event(Bytes),
    /// The component wants the stream closed for now.
    Detach,
    /// The response. Nothing follows.
    Last(Result<Vec<u8>, Fault>),
}

/// Returns an event without an id.
pub(super) fn event(json: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() + 8);
    write_data(&mut out, json);
    out.into()
}

/// Names an event of a session, so that its client can go on after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventId {
    /// The session's stream.
    pub(super) stream: u32,
    /// The place in it; no two events of a session's stream ever have the same, restarts of the host included.
    pub(super) number: u64,
    /// The request that the stream answers, in base64; empty: none, or its id is too long.
    pub(super) request: Arc<str>,
}

impl EventId {
    /// Returns how a request is named in the ids of its stream.
    pub(super) fn naming(request: &RawValue) -> Arc<str> {
        let id = request.get();
        if id.len() > NAMED_REQUEST_BYTES_MAX { "".into() } else { BASE64URL_NOPAD.encode(id.as_bytes()).into() }
    }

    /// Reads an id; none: it is not one of ours.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let stream = parts.next()?.parse().ok()?;
        let number = parts.next()?.parse().ok()?;
        Some(Self { stream, number, request: parts.next().unwrap_or_default().into() })
    }

    /// Returns the id of the request whose answer the stream brings.
    pub(super) fn request_id(&self) -> Option<Box<RawValue>> {
        let id = BASE64URL_NOPAD.decode(self.request.as_bytes()).ok()?;
        envelope::request_id(std::str::from_utf8(&id).ok()?)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stream, self.number)?;
        if self.request.is_empty() { Ok(()) } else { write!(f, ".{}", self.request) }
    }
}

/// Returns an event with an id, by which a session's client can go on after it.
pub(super) fn event_with_id(id: &EventId, json: &[u8]) -> Bytes {
    let mut out = format!("id: {id}\n").into_bytes();
    write_data(&mut out, json);
    out.into()
}

/// Returns the event that opens a resumable stream: an id and no data, and after how long to come back.
pub(super) fn priming(id: &EventId, retry_ms: u32) -> Bytes {
    format!("id: {id}\nretry: {retry_ms}\ndata: \n\n").into()
}

/// JSON as we write it has no line ends, those of components are made spaces: in JSON they stand between tokens only.
fn write_data(out: &mut Vec<u8>, json: &[u8]) {
    out.extend_from_slice(b"data: ");
    let start = out.len();
    out.extend_from_slice(json);
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\n\n");
}

/// Frames as events.
pub(super) struct Frames {
    head: Option<Bytes>,
    frames: mpsc::Receiver<Frame>,
    silence: Pin<Box<Sleep>>,
    /// Whose answer it is, for a fault that comes after the stream began.
    request: Option<Box<RawValue>>,
    era: Era,
    ended: bool,
}

impl Frames {
    /// Returns the stream of what comes, after `head`.
    pub(super) fn new(head: Option<Bytes>, frames: mpsc::Receiver<Frame>, request: Option<Box<RawValue>>, era: Era) -> Self {
        let silence = Box::pin(tokio::time::sleep(Duration::from_millis(KEEP_ALIVE_MS)));
        Self { head, frames, silence, request, era, ended: false }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(head));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            return Poll::Ready(match ready!(self.frames.poll_recv(context)) {
                None => None,
                Some(Frame::Message(json)) => Some(event(&json)),
                Some(Frame::Event(event)) => Some(event),
                Some(Frame::Detach) => continue,
                Some(Frame::Last(answer)) => {
                    self.ended = true;
                    Some(event(&answer.unwrap_or_else(|fault| fault.body(self.request.as_deref(), self.era))))
                }
            });
        }
    }
}

impl EventSource for Frames {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let next = self.poll_frame(context);
        if next.is_pending() && self.silence.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.silence.as_mut().reset(Instant::now() + Duration::from_millis(KEEP_ALIVE_MS));
        match next {
            Poll::Ready(next) => Poll::Ready(next),
            Poll::Pending => {
                // Registers the new time.
                let _ = self.silence.as_mut().poll(context);
                Poll::Ready(Some(Bytes::from_static(b":\n\n")))
            }
        }
    }
}
