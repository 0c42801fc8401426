//! What a session has while it lives: its streams, which a client may come back to, the requests it was sent, what it subscribed to.
//!
//! Kept in memory and bounded: after a restart a session goes on with new streams, and is told that its lists may have changed.
//!
//! **Invariants:** an event of a stream has one number for good; a client that comes back with the last number it saw gets what
//! followed, as long as it is kept; a response is never kept on two streams.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::call::Level;
use super::session::SessionKey;
use super::stream::{FRAMES_MAX, Frame, event_with_id, priming};

/// Sessions that have something in memory; the one idle for longest is let go.
const SESSIONS_MAX: usize = 16_384;
/// Events a stream keeps for a client that comes back.
const KEPT_EVENTS_MAX: usize = 256;
/// Bytes a stream keeps.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// Streams of a session; the oldest that ended is let go.
const STREAMS_MAX: usize = 64;
/// Resources one session may subscribe to.
pub(super) const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Milliseconds after which a client comes back to a stream that was closed.
const RETRY_MS: u32 = 500;
/// Milliseconds after which it comes back to the stream that no request opened. The usual clients give up after their second try:
/// both together outlast a restart, and what was missed is told then.
const STANDALONE_RETRY_MS: u32 = 3_000;
/// The stream that no request opened.
pub(super) const STANDALONE: u32 = 0;

/// What the client answered: a result, or an error's words.
pub(super) type Answered = Result<Box<RawValue>, String>;

#[derive(Default)]
struct Stream {
    next: u64,
    kept: VecDeque<(u64, Bytes)>,
    kept_bytes: usize,
    sink: Option<mpsc::Sender<Frame>>,
    ended: bool,
}

impl Stream {
    fn keep(&mut self, event: Bytes) {
        self.kept_bytes += event.len();
        self.kept.push_back((self.next, event));
        self.next += 1;
        while self.kept.len() > KEPT_EVENTS_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            let Some((_, dropped)) = self.kept.pop_front() else { break };
            self.kept_bytes -= dropped.len();
        }
    }
}

struct State {
    streams: BTreeMap<u32, Stream>,
    next_stream: u32,
    next_request: u64,
    waiting: HashMap<String, oneshot::Sender<Answered>>,
    calls: HashMap<String, CancellationToken>,
    uris: BTreeSet<String>,
    level: Level,
    is_told: bool,
}

/// A session's own.
pub(super) struct Live {
    state: Mutex<State>,
}

impl Live {
    fn new() -> Self {
        Self {
            state: Mutex::new(State {
                streams: BTreeMap::new(),
                next_stream: STANDALONE + 1,
                next_request: 1,
                waiting: HashMap::new(),
                calls: HashMap::new(),
                uris: BTreeSet::new(),
                level: Level::INFO,
                is_told: false,
            }),
        }
    }

    /// Opens the stream of a request; returns its number and what the client reads. It begins with a number and no data where
    /// the client's revision knows that.
    pub(super) fn open_stream(&self, is_primed: bool) -> (u32, mpsc::Receiver<Frame>) {
        let (sink, source) = mpsc::channel(FRAMES_MAX);
        let mut state = self.state.lock();
        let number = state.next_stream;
        state.next_stream += 1;
        while state.streams.len() >= STREAMS_MAX {
            let oldest = state.streams.iter().find(|(number, stream)| **number != STANDALONE && stream.ended).map(|(number, _)| *number);
            let Some(oldest) = oldest.or_else(|| state.streams.keys().copied().find(|number| *number != STANDALONE)) else { break };
            state.streams.remove(&oldest);
        }
        let mut stream = Stream { next: 1, ..Stream::default() };
        if is_primed {
            drop(sink.try_send(Frame::Event(priming(number, 0, RETRY_MS))));
        }
        stream.sink = Some(sink);
        state.streams.insert(number, stream);
        (number, source)
    }

    /// Adds a message to a stream: kept, and sent to whoever reads it now.
    pub(super) fn push(&self, stream: u32, json: &[u8]) {
        let mut state = self.state.lock();
        let Some(found) = state.streams.get_mut(&stream) else { return };
        let event = event_with_id(stream, found.next, json);
        found.keep(event.clone());
        // A reader that is too slow, or gone, comes back for what it missed.
        if found.sink.as_ref().is_some_and(|sink| sink.try_send(Frame::Event(event)).is_err()) {
            found.sink = None;
        }
    }

    /// Closes a stream for now: the client comes back for the rest.
    pub(super) fn detach(&self, stream: u32) {
        if let Some(found) = self.state.lock().streams.get_mut(&stream) {
            found.sink = None;
        }
    }

    /// Ends a stream after its last message.
    pub(super) fn end(&self, stream: u32) {
        if let Some(found) = self.state.lock().streams.get_mut(&stream) {
            found.sink = None;
            found.ended = true;
        }
    }

    /// Attaches a client to a stream after the event it saw last; none: there is no such stream, or what followed is gone.
    pub(super) fn resume(&self, stream: u32, seen: u64) -> Option<mpsc::Receiver<Frame>> {
        let mut state = self.state.lock();
        let found = state.streams.get_mut(&stream)?;
        let missed: Vec<Bytes> = found.kept.iter().filter(|(number, _)| *number > seen).map(|(_, event)| event.clone()).collect();
        let is_whole = found.kept.front().is_none_or(|(first, _)| *first <= seen + 1);
        if !is_whole {
            return None;
        }
        let (sink, source) = mpsc::channel(FRAMES_MAX.max(missed.len() + FRAMES_MAX));
        for event in missed {
            drop(sink.try_send(Frame::Event(event)));
        }
        if !found.ended {
            found.sink = Some(sink);
        }
        Some(source)
    }

    /// Attaches a client to the stream that no request opened, in place of an earlier one.
    pub(super) fn stand_alone(&self, is_primed: bool) -> mpsc::Receiver<Frame> {
        let (sink, source) = mpsc::channel(FRAMES_MAX);
        let mut state = self.state.lock();
        let stream = state.streams.entry(STANDALONE).or_insert_with(|| Stream { next: 1, ..Stream::default() });
        if is_primed {
            drop(sink.try_send(Frame::Event(priming(STANDALONE, stream.next - 1, STANDALONE_RETRY_MS))));
        }
        stream.sink = Some(sink);
        source
    }

    /// Returns whether somebody has to be charged with telling this session what changes; only the first to ask is.
    pub(super) fn take_telling(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().is_told, true)
    }

    /// Announces a request to the client; returns its id and where the answer comes.
    pub(super) fn expect_answer(&self) -> (String, oneshot::Receiver<Answered>) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        let id = format!("host-{}", state.next_request);
        state.next_request += 1;
        state.waiting.insert(id.clone(), sender);
        (id, receiver)
    }

    /// No answer is expected any more.
    pub(super) fn forget_answer(&self, id: &str) {
        self.state.lock().waiting.remove(id);
    }

    /// Takes a client's answer; false when nobody waits for it.
    pub(super) fn answered(&self, id: &str, answer: Answered) -> bool {
        let waiting = self.state.lock().waiting.remove(id);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    /// Notes a running call, so that the client can cancel it by its request's id.
    pub(super) fn begin(&self, request: &str, call: CancellationToken) {
        self.state.lock().calls.insert(request.to_owned(), call);
    }

    /// Forgets a call that ended.
    pub(super) fn finish(&self, request: &str) {
        self.state.lock().calls.remove(request);
    }

    /// Cancels a running call.
    pub(super) fn cancel(&self, request: &str) {
        if let Some(call) = self.state.lock().calls.remove(request) {
            call.cancel();
        }
    }

    /// Subscribes to a resource; false when there are too many.
    pub(super) fn subscribe(&self, uri: &str) -> bool {
        let mut state = self.state.lock();
        state.uris.len() < SUBSCRIPTIONS_MAX && {
            state.uris.insert(uri.to_owned());
            true
        }
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, uri: &str) {
        self.state.lock().uris.remove(uri);
    }

    /// Returns whether a resource is subscribed to.
    pub(super) fn is_subscribed(&self, uri: &str) -> bool {
        self.state.lock().uris.contains(uri)
    }

    /// Returns what is subscribed to.
    pub(super) fn subscriptions(&self) -> Vec<String> {
        self.state.lock().uris.iter().cloned().collect()
    }

    /// Sets from which level on log messages are told.
    pub(super) fn set_level(&self, level: Level) {
        self.state.lock().level = level;
    }

    /// Returns from which level on log messages are told.
    pub(super) fn level(&self) -> Level {
        self.state.lock().level
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.streams.clear();
        state.waiting.clear();
        for (_, call) in state.calls.drain() {
            call.cancel();
        }
    }
}

#[derive(Default)]
struct Known {
    lives: HashMap<SessionKey, (Arc<Live>, u64)>,
    clock: u64,
}

/// The sessions that have something in memory.
#[derive(Default)]
pub(super) struct Lives {
    known: Mutex<Known>,
}

impl Lives {
    /// Returns what a session has, made when it has nothing yet.
    pub(super) fn of(&self, key: SessionKey) -> Arc<Live> {
        let mut known = self.known.lock();
        known.clock += 1;
        let now = known.clock;
        if known.lives.len() >= SESSIONS_MAX && !known.lives.contains_key(&key) {
            let idle = known.lives.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            if let Some((live, _)) = idle.and_then(|idle| known.lives.remove(&idle)) {
                live.close();
            }
        }
        let (live, used) = known.lives.entry(key).or_insert_with(|| (Arc::new(Live::new()), now));
        *used = now;
        Arc::clone(live)
    }

    /// Ends what a session has.
    pub(super) fn end(&self, key: &SessionKey) {
        if let Some((live, _)) = self.known.lock().lives.remove(key) {
            live.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &mut mpsc::Receiver<Frame>) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(Frame::Event(event)) = source.try_recv() {
            all.push(String::from_utf8_lossy(&event).into_owned());
        }
        all
    }

    #[test]
    fn who_comes_back_gets_what_it_missed_and_what_follows() {
        let live = Live::new();
        let (stream, mut first) = live.open_stream(true);
        live.push(stream, b"{\"n\":1}");
        assert_eq!(read(&mut first), ["id: 1.0\nretry: 500\ndata: \n\n", "id: 1.1\ndata: {\"n\":1}\n\n"]);
        live.detach(stream);
        assert!(first.try_recv().is_err());
        live.push(stream, b"{\"n\":2}");
        let mut second = live.resume(stream, 1).expect("it is kept");
        live.push(stream, b"{\"n\":3}");
        assert_eq!(read(&mut second), ["id: 1.2\ndata: {\"n\":2}\n\n", "id: 1.3\ndata: {\"n\":3}\n\n"]);
        live.end(stream);
        assert_eq!(read(&mut live.resume(stream, 0).expect("kept after its end")).len(), 3);
        assert!(live.resume(9, 0).is_none());
    }

    #[test]
    fn what_is_no_longer_kept_is_not_passed_over_in_silence() {
        let live = Live::new();
        let (stream, _reader) = live.open_stream(false);
        for n in 0..1_000 {
            live.push(stream, format!("{n}").as_bytes());
        }
        assert!(live.resume(stream, 10).is_none());
        assert_eq!(read(&mut live.resume(stream, 990).expect("the end is kept")).len(), 10);
    }

    #[test]
    fn answers_reach_whoever_asked_once() {
        let live = Live::new();
        let (id, mut answer) = live.expect_answer();
        assert!(!live.answered("host-9", Err("no".to_owned())));
        assert!(live.answered(&id, Err("declined".to_owned())));
        assert!(matches!(answer.try_recv(), Ok(Err(_))));
        assert!(!live.answered(&id, Err("twice".to_owned())));
    }

    #[test]
    fn the_idle_session_is_let_go() {
        let lives = Lives::default();
        let key = |n: usize| {
            let mut key = SessionKey::default();
            key[..8].copy_from_slice(&n.to_be_bytes());
            key
        };
        let first = lives.of(key(0));
        assert!(first.subscribe("pointsman://tasks"));
        for n in 1..=SESSIONS_MAX {
            lives.of(key(n));
        }
        assert!(!lives.of(key(0)).is_subscribed("pointsman://tasks"));
    }
}
