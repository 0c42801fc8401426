//! An answer that is read as it comes: whole, or as events.
//!
//! **Invariants:** dropping one that has not ended closes its connection, which is how 2026-07-28 cancels; the connection of one that
//! was read to its end is used again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use crate::error::TransportError;
use crate::pool::{Connection, RawAnswer};
use crate::sse::EventReader;
use crate::{Client, Repeat, Shared};

/// Milliseconds of silence after which a stream counts as broken: a host shows a sign of life each 20 seconds.
const SILENCE_MS: u64 = 65_000;
/// Bytes of an answer that comes whole.
const WHOLE_BYTES_MAX: usize = 64 << 20;

/// An answer whose head came.
pub struct Streamed {
    /// Its status and header fields; the body is empty.
    head: RawAnswer,
    body: Incoming,
    events: EventReader,
    /// Goes back to the pool at the end.
    lent: Option<(Connection, Arc<Shared>)>,
}

impl Streamed {
    /// Returns its status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Returns the first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// Returns whether it is a stream of events.
    #[must_use]
    pub fn is_events(&self) -> bool {
        self.header("content-type").is_some_and(|media| media.starts_with("text/event-stream"))
    }

    /// Returns the id to come back with after what was read.
    #[must_use]
    pub fn last_event_id(&self) -> Option<&str> {
        self.events.last_event_id()
    }

    /// Returns the milliseconds after which the host wants to be asked again.
    #[must_use]
    pub fn retry_ms(&self) -> Option<u64> {
        self.events.retry_ms()
    }

    /// Returns the next event's data, none at the end of the stream. It is empty when the event tells its id only.
    ///
    /// # Errors
    /// `Interrupted` when the connection broke or fell silent; `Malformed`.
    pub async fn event(&mut self) -> Result<Option<String>, TransportError> {
        loop {
            if let Some(data) = self.events.next_data() {
                return Ok(Some(data));
            }
            match tokio::time::timeout(Duration::from_millis(SILENCE_MS), self.body.frame()).await {
                Ok(Some(Ok(frame))) => self.events.push(frame.data_ref().map_or(&[][..], |data| data))?,
                Ok(Some(Err(e))) => return Err(TransportError::Interrupted { why: e.to_string() }),
                Ok(None) => {
                    self.give_back();
                    return Ok(None);
                }
                Err(_) => return Err(TransportError::Interrupted { why: format!("nothing came for {SILENCE_MS} ms") }),
            }
        }
    }

    /// Returns the whole answer.
    ///
    /// # Errors
    /// `Interrupted` when the connection broke, fell silent, or the answer is too large.
    pub async fn whole(mut self) -> Result<RawAnswer, TransportError> {
        let read = Limited::new(&mut self.body, WHOLE_BYTES_MAX).collect();
        let read = tokio::time::timeout(Duration::from_millis(SILENCE_MS), read).await;
        let read = read.map_err(|_| TransportError::Interrupted { why: format!("it did not come whole in {SILENCE_MS} ms") })?;
        let body: Bytes = read.map_err(|e| TransportError::Interrupted { why: e.to_string() })?.to_bytes();
        self.give_back();
        Ok(RawAnswer { body, ..self.head })
    }

    fn give_back(&mut self) {
        if let Some((connection, shared)) = self.lent.take() {
            shared.pool.give_back(connection);
        }
    }
}

impl Client {
    /// Sends a request to the endpoint with these headers besides the credential and the media types; returns as soon as the head of
    /// the answer came. It is not repeated once sent.
    ///
    /// # Errors
    /// [`TransportError`]; any HTTP status is an answer.
    pub async fn open(&self, method: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Streamed, TransportError> {
        let mut all = self.headers();
        all.extend_from_slice(headers);
        let build = self.builder(method, &self.shared.target.path, &all, body)?;
        let limit_ms = self.shared.answer_ms;
        let opened = tokio::time::timeout(Duration::from_millis(limit_ms), self.shared.pool.open_exchange(build, Repeat::OnlyUnsent)).await;
        let (head, body, connection) = opened.unwrap_or(Err(TransportError::TimedOut { limit_ms }))?;
        Ok(Streamed { head, body, events: EventReader::default(), lent: Some((connection, Arc::clone(&self.shared))) })
    }
}
