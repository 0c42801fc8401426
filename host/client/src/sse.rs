//! Server-sent events, read as they come (HTML, server-sent events, event stream interpretation).
//!
//! Must not know JSON-RPC beyond [`response`]. **Invariants:** any bytes are read without a panic; an event is bounded; an id stands
//! for every event up to it, one without data among them, which is how a stream is primed.

use std::collections::VecDeque;

use serde_json::Value;

use crate::error::TransportError;

/// Bytes one event may have.
const EVENT_BYTES_MAX: usize = 64 << 20;

/// Reads a stream of events.
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    line: Vec<u8>,
    data: Option<String>,
    id: Option<String>,
    ready: VecDeque<String>,
    last_id: Option<String>,
    retry_ms: Option<u64>,
    ended_by_cr: bool,
    has_begun: bool,
}

impl EventReader {
    /// Takes what came.
    ///
    /// # Errors
    /// `Malformed` when it is not UTF-8 or an event is too large.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.ended_by_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line()?,
                _ => self.line.push(byte),
            }
        }
        if self.line.len() + self.data.as_ref().map_or(0, String::len) > EVENT_BYTES_MAX {
            return Err(TransportError::malformed(format!("an event of more than {EVENT_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    /// Returns the data of the next event; empty for one that has an id only.
    pub(crate) fn next_data(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    /// Returns the id to come back with after what was read.
    pub(crate) fn last_event_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Returns the milliseconds after which the host wants to be asked again.
    pub(crate) fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    fn end_line(&mut self) -> Result<(), TransportError> {
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line).map_err(|e| TransportError::malformed(format!("the event stream is not UTF-8: {e}")))?;
        let text = if std::mem::replace(&mut self.has_begun, true) { text } else { text.trim_start_matches('\u{feff}') };
        if text.is_empty() {
            let data = self.data.take().unwrap_or_default();
            let id = self.id.take();
            if id.is_some() || !data.is_empty() {
                self.ready.push_back(data);
            }
            self.last_id = id.or(self.last_id.take());
            return Ok(());
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok().or(self.retry_ms);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns the JSON-RPC response with this id from a whole event stream; a last event without its empty line counts.
pub(crate) fn response(stream: &[u8], id: u64) -> Option<Value> {
    let mut events = EventReader::default();
    events.push(stream).and_then(|()| events.push(b"\n\n")).ok()?;
    std::iter::from_fn(|| events.next_data())
        .filter_map(|data| serde_json::from_str(&data).ok())
        .find(|message: &Value| message["id"] == id && message["method"].is_null())
}

/// Returns the data of all events of a text, for tests of those who write them.
///
/// # Errors
/// `Malformed`.
pub fn events_of(bytes: &[u8]) -> Result<Vec<String>, TransportError> {
    let mut reader = EventReader::default();
    reader.push(bytes)?;
    Ok(std::iter::from_fn(|| reader.next_data()).collect())
}

/// What a fuzzer calls: the same events come, and the same id, however the bytes are cut.
///
/// # Panics
/// When they do not.
pub fn fuzz_events(bytes: &[u8]) {
    let Ok(whole) = events_of(bytes) else { return };
    let mut reader = EventReader::default();
    let mut pieces = Vec::new();
    for byte in bytes {
        assert!(reader.push(std::slice::from_ref(byte)).is_ok(), "it was readable as a whole");
        pieces.extend(std::iter::from_fn(|| reader.next_data()));
    }
    assert_eq!(pieces, whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_found_among_notifications_and_comments() {
        let stream = b": keep-alive\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"id\":7}\n\nevent: message\nid: 3\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":7,\"result\":{\"ok\":true}}\n\n";
        assert_eq!(response(stream, 7).expect("the answer")["result"]["ok"], true);
        assert_eq!(response(stream, 8), None);
        assert_eq!(response(b"", 7), None);
        assert_eq!(response(b"data: {\"id\":7,\"result\":1}", 7).expect("an unfinished last event counts")["result"], 1);
    }

    #[test]
    fn events_are_the_same_however_they_are_cut_and_whatever_ends_their_lines() {
        let lines = ["\u{feff}id: 1.0", "retry: 500", "data: ", "", ":x", "", "id: 1.1", "data: a", "data:b", "", "id: 1.2", "data: c"];
        for end in ["\n", "\r\n", "\r"] {
            let stream = lines.join(end) + end;
            for size in [1, 3, stream.len()] {
                let mut events = EventReader::default();
                for piece in stream.as_bytes().chunks(size) {
                    events.push(piece).expect("it can be read");
                }
                assert_eq!(std::iter::from_fn(|| events.next_data()).collect::<Vec<_>>(), ["", "a\nb"], "{end:?} {size}");
                assert_eq!((events.last_event_id(), events.retry_ms()), (Some("1.1"), Some(500)), "an event counts once it ended");
            }
        }
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        assert!(EventReader::default().push(b"data: \xff\n").is_err());
        let mut events = EventReader::default();
        events.push(b"retry: soon\nid: a\0b\nunknown: x\ndata\n\n").expect("it can be read");
        assert_eq!((events.next_data(), events.last_event_id(), events.retry_ms()), (None, None, None));
    }
}
