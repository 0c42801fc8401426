//! What a session has while it lives: its streams, which a client may come back to, the requests it was sent, what it chose.
//!
//! Streams are kept in memory and bounded. What the client chose is noted by the host: a session that was let go, or that comes
//! back after a restart, stands where it stood, with new streams, and is told that what it hears of may have changed.
//!
//! **Invariants:** an event of a stream has one number for good, and no event of an earlier process has the same; a client that
//! comes back with the last number it saw gets what followed, as long as it is kept; what nobody read of the standalone stream
//! waits for its next reader; a response is never kept on two streams.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pointsman_core::agent::TokenRecord;
use pointsman_core::path_glob::PathGlob;
use pointsman_core::time::TimeMs;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::call::Level;
use super::documents::{self, Patch, Wanted};
use super::errors::Fault;
use super::session::SessionKey;
use super::stream::{EventId, FRAMES_MAX, Frame, event, event_with_id, priming};
use crate::ports::offering::DocumentNews;
use crate::ports::sessions::SessionNotes;

/// Sessions that have something in memory; the one idle for longest is let go.
const SESSIONS_MAX: usize = 16_384;
/// Events a stream keeps for a client that comes back.
const KEPT_EVENTS_MAX: usize = 256;
/// Bytes a stream keeps.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// Streams of a session; the oldest that ended is let go.
const STREAMS_MAX: usize = 64;
/// Resources one session may subscribe to: that all of them changed is told at once and has to be kept.
pub(super) const SUBSCRIPTIONS_MAX: usize = 200;
const _: () = assert!(SUBSCRIPTIONS_MAX + 3 <= KEPT_EVENTS_MAX, "and so have the three lists");
/// Calls of a session that run at once.
const CALLS_MAX: usize = 64;
/// Milliseconds after which a client comes back to a stream that was closed.
const RETRY_MS: u32 = 500;
/// Milliseconds after which it comes back to the stream that no request opened. The usual clients give up after their second try:
/// both together outlast a restart, and what was missed is told then.
const STANDALONE_RETRY_MS: u32 = 3_000;
/// The stream that no request opened.
pub(super) const STANDALONE: u32 = 0;

/// What the client answered: a result, or an error's words.
pub(super) type Answered = Result<Box<RawValue>, String>;

struct Stream {
    /// Of the next event; the first of a stream is the time in µs at which the process first saw the session.
    next: u64,
    kept: VecDeque<(u64, Bytes)>,
    kept_bytes: usize,
    /// Of the last event that somebody was there to read.
    handed: u64,
    sink: Option<mpsc::Sender<Frame>>,
    request: Arc<str>,
    ended: bool,
}

impl Stream {
    fn new(first: u64, request: Arc<str>) -> Self {
        Self { next: first, kept: VecDeque::new(), kept_bytes: 0, handed: first - 1, sink: None, request, ended: false }
    }

    fn id(&self, stream: u32, number: u64) -> EventId {
        EventId { stream, number, request: Arc::clone(&self.request) }
    }

    /// Keeps an event and sends it to whoever reads. A reader that is too slow, or gone, comes back for what it missed.
    fn push(&mut self, stream: u32, json: &[u8]) {
        let event = event_with_id(&self.id(stream, self.next), json);
        self.push_event(event.clone(), event);
    }

    /// Keeps the next event in one form and sends it in another.
    fn push_event(&mut self, kept: Bytes, sent: Bytes) {
        let number = self.next;
        self.keep(kept);
        let Some(sink) = &self.sink else { return };
        match sink.try_send(Frame::Event(sent)) {
            Ok(()) => self.handed = number,
            Err(_) => self.sink = None,
        }
    }

    /// Puts another message in the place of one that waits for a reader, under its number; false where it does not wait any more.
    fn replace(&mut self, stream: u32, number: u64, json: &[u8]) -> bool {
        let event = event_with_id(&self.id(stream, number), json);
        let waiting = self.kept.iter_mut().find(|(waiting, _)| *waiting == number).filter(|_| number > self.handed);
        let Some((_, waiting)) = waiting else { return false };
        self.kept_bytes = self.kept_bytes + event.len() - waiting.len();
        *waiting = event;
        true
    }

    /// Returns whether this very message waits for a reader.
    fn has_waiting(&self, json: &[u8]) -> bool {
        let event = event(json);
        let mut waiting = self.kept.iter().rev().take_while(|(number, _)| *number > self.handed);
        waiting.any(|(_, kept)| kept.ends_with(&event))
    }

    /// Returns whether everything from an event on is kept.
    fn keeps_from(&self, number: u64) -> bool {
        number <= self.next && number >= self.kept.front().map_or(self.next, |(first, _)| *first)
    }

    /// Attaches a reader, which is sent `head` and what is kept from an event on.
    fn attach(&mut self, head: Option<Bytes>, from: u64) -> mpsc::Receiver<Frame> {
        let missed = self.kept.iter().filter(|(number, _)| *number >= from).map(|(_, event)| event.clone());
        let sent: Vec<Bytes> = head.into_iter().chain(missed).collect();
        let (sink, source) = mpsc::channel(sent.len() + FRAMES_MAX);
        for event in sent {
            drop(sink.try_send(Frame::Event(event)));
        }
        self.handed = self.next - 1;
        self.sink = (!self.ended).then_some(sink);
        source
    }

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
    /// By the order of their beginning: whose request it is, and how it is cancelled.
    calls: BTreeMap<u64, (String, CancellationToken)>,
    next_call: u64,
    notes: SessionNotes,
    /// Of its subscriptions those that mean documents by a glob.
    globs: Vec<PathGlob>,
    /// News of documents that wait for a reader of its own stream, by their numbers there.
    unread: Vec<(u64, Arc<DocumentNews>)>,
    is_told: bool,
    /// What its stream was opened by, as it came last.
    credential: Option<Arc<TokenRecord>>,
}

/// A session's own.
pub(super) struct Live {
    state: Mutex<State>,
    /// The number of the first event of each stream.
    first: u64,
    /// Part of the ids of its requests: they differ from those of other hosts that serve the session.
    tag: Arc<str>,
    /// Held while a choice is noted, so that notes are written in the order in which they were made.
    turn: tokio::sync::Mutex<()>,
}

impl Live {
    fn new(notes: SessionNotes, first: u64, tag: Arc<str>) -> Self {
        Self {
            first,
            tag,
            turn: tokio::sync::Mutex::default(),
            state: Mutex::new(State {
                streams: BTreeMap::new(),
                next_stream: STANDALONE + 1,
                next_request: 1,
                waiting: HashMap::new(),
                calls: BTreeMap::new(),
                next_call: 0,
                globs: documents::globs(&notes.uris),
                unread: Vec::new(),
                notes,
                is_told: false,
                credential: None,
            }),
        }
    }

    /// Opens the stream of a request; returns its number and what the client reads. It begins with a number and no data where
    /// the client's revision knows that.
    pub(super) fn open_stream(&self, is_primed: bool, request: &RawValue) -> (u32, mpsc::Receiver<Frame>) {
        let mut state = self.state.lock();
        let number = state.next_stream;
        state.next_stream += 1;
        while state.streams.len() >= STREAMS_MAX {
            let oldest = state.streams.iter().find(|(number, stream)| **number != STANDALONE && stream.ended).map(|(number, _)| *number);
            let Some(oldest) = oldest.or_else(|| state.streams.keys().copied().find(|number| *number != STANDALONE)) else { break };
            state.streams.remove(&oldest);
        }
        let mut stream = Stream::new(self.first, EventId::naming(request));
        let head = is_primed.then(|| priming(&stream.id(number, self.first - 1), RETRY_MS));
        let source = stream.attach(head, self.first);
        state.streams.insert(number, stream);
        (number, source)
    }

    /// Adds a message to a stream: kept, and sent to whoever reads it now.
    pub(super) fn push(&self, stream: u32, json: &[u8]) {
        if let Some(found) = self.state.lock().streams.get_mut(&stream) {
            found.push(stream, json);
        }
    }

    /// Adds a notification to the stream that no request opened. While nobody reads, the same one waits there once.
    pub(super) fn tell(&self, json: &[u8]) {
        if let Some(found) = self.state.lock().streams.get_mut(&STANDALONE)
            && !found.has_waiting(json)
        {
            found.push(STANDALONE, json);
        }
    }

    /// Adds the notification of a document's news to the stream that no request opened. While nobody reads, one waits there for each
    /// document. What changed is said to who reads now, and not kept: a session may have a long memory of many documents.
    pub(super) fn tell_of(&self, news: &Arc<DocumentNews>, worded: impl Fn(&DocumentNews, Patch) -> Vec<u8>) {
        let mut state = self.state.lock();
        let State { streams, unread, .. } = &mut *state;
        let Some(stream) = streams.get_mut(&STANDALONE) else { return };
        unread.retain(|(number, _)| *number > stream.handed);
        if let Some((number, earlier)) = unread.iter_mut().find(|(_, earlier)| earlier.key == news.key) {
            let joined = Arc::new(news.joined(earlier));
            if stream.replace(STANDALONE, *number, &worded(&joined, Patch::LeftOut)) {
                *earlier = joined;
                return;
            }
        }
        unread.retain(|(_, earlier)| earlier.key != news.key);
        let number = stream.next;
        let event = |patch| event_with_id(&stream.id(STANDALONE, number), &worded(news, patch));
        let kept = event(Patch::LeftOut);
        let sent = if stream.sink.is_some() { event(Patch::Told) } else { kept.clone() };
        stream.push_event(kept, sent);
        if stream.handed < number {
            unread.push((number, Arc::clone(news)));
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
        let next = seen.checked_add(1)?;
        found.keeps_from(next).then(|| found.attach(None, next))
    }

    /// Attaches a client to the stream that no request opened, in place of an earlier one: it gets what nobody read yet. Also
    /// returns whether that is everything.
    pub(super) fn stand_alone(&self, is_primed: bool) -> (mpsc::Receiver<Frame>, bool) {
        let mut state = self.state.lock();
        let stream = state.streams.entry(STANDALONE).or_insert_with(|| Stream::new(self.first, "".into()));
        let from = stream.handed + 1;
        let is_whole = stream.keeps_from(from);
        let head = is_primed.then(|| priming(&stream.id(STANDALONE, stream.handed), STANDALONE_RETRY_MS));
        (stream.attach(head, from), is_whole)
    }

    /// Returns whether somebody has to be charged with telling this session what changes; only the first to ask is. From now on
    /// what is told waits for a reader.
    pub(super) fn take_telling(&self) -> bool {
        let mut state = self.state.lock();
        state.streams.entry(STANDALONE).or_insert_with(|| Stream::new(self.first, "".into()));
        !std::mem::replace(&mut state.is_told, true)
    }

    /// Notes the credential that asks to be told now; a refreshed one takes the place of an earlier.
    pub(super) fn admitted(&self, credential: &Arc<TokenRecord>) {
        self.state.lock().credential = Some(Arc::clone(credential));
    }

    /// Returns what asked last to be told.
    pub(super) fn credential(&self) -> Option<Arc<TokenRecord>> {
        self.state.lock().credential.clone()
    }

    /// Ends the stream that no request opened, unless another credential came since.
    pub(super) fn dismiss(&self, credential: &Arc<TokenRecord>) {
        let mut state = self.state.lock();
        let is_last = state.credential.as_ref().is_some_and(|last| Arc::ptr_eq(last, credential));
        if let Some(found) = state.streams.get_mut(&STANDALONE).filter(|_| is_last) {
            found.sink = None;
        }
    }

    /// Announces a request to the client; the answer comes as long as the expectation is held.
    pub(super) fn expect_answer(&self) -> Expected<'_> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        let id = format!("host-{}{}", self.tag, state.next_request);
        state.next_request += 1;
        state.waiting.insert(id.clone(), sender);
        Expected { live: self, id, answer }
    }

    /// Takes a client's answer; false when nobody here waits for it.
    pub(super) fn answered(&self, id: &str, answer: Answered) -> bool {
        let waiting = self.state.lock().waiting.remove(id);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    /// Notes a running call, so that the client can cancel it by its request's id. The call runs as long as the turn is held.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn begin(self: &Arc<Self>, request: &str, call: CancellationToken) -> Result<Turn, Fault> {
        let mut state = self.state.lock();
        if state.calls.len() >= CALLS_MAX {
            return Err(Fault::TooMany { why: format!("{CALLS_MAX} calls of this session are running").into() });
        }
        let number = state.next_call;
        state.next_call += 1;
        state.calls.insert(number, (request.to_owned(), call));
        Ok(Turn { live: Arc::clone(self), number })
    }

    /// Cancels a running call; false when none here has this id.
    pub(super) fn cancel(&self, request: &str) -> bool {
        let state = self.state.lock();
        let mut running = state.calls.values().filter(|(running, _)| running == request).peekable();
        let is_here = running.peek().is_some();
        running.for_each(|(_, call)| call.cancel());
        is_here
    }

    /// Waits until no other choice of this session is being noted.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Returns what the client chose.
    pub(super) fn notes(&self) -> SessionNotes {
        self.state.lock().notes.clone()
    }

    /// Takes over what was noted.
    pub(super) fn set_notes(&self, notes: SessionNotes) {
        let mut state = self.state.lock();
        state.globs = documents::globs(&notes.uris);
        state.notes = notes;
    }

    /// Returns whether the client ended the session.
    pub(super) fn is_ended(&self) -> bool {
        self.state.lock().notes.is_ended
    }

    /// Returns the agent that `start` chose.
    pub(super) fn handle(&self) -> Option<String> {
        self.state.lock().notes.handle.clone()
    }

    /// Returns whether a resource is subscribed to.
    pub(super) fn is_subscribed(&self, uri: &str) -> bool {
        self.state.lock().notes.uris.contains(uri)
    }

    /// Returns what of a document's news is subscribed to; none: nothing.
    pub(super) fn wants(&self, news: &DocumentNews) -> Option<Wanted> {
        let state = self.state.lock();
        documents::wanted(&state.notes.uris, &state.globs, news)
    }

    /// Returns from which level on log messages are told.
    pub(super) fn level(&self) -> Level {
        self.state.lock().notes.level.as_deref().and_then(Level::named).unwrap_or(Level::INFO)
    }

    /// Ends all that goes on.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.streams.clear();
        state.unread.clear();
        state.waiting.clear();
        for (_, call) in state.calls.values() {
            call.cancel();
        }
    }
}

/// A running call of a session; dropped, it is over.
pub(super) struct Turn {
    live: Arc<Live>,
    number: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.live.state.lock().calls.remove(&self.number);
    }
}

/// An answer that a session's client owes; dropped, it is expected no more.
pub(super) struct Expected<'a> {
    live: &'a Live,
    /// Of the request.
    pub(super) id: String,
    /// Where the answer comes.
    pub(super) answer: oneshot::Receiver<Answered>,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.live.state.lock().waiting.remove(&self.id);
    }
}

#[derive(Default)]
struct Known {
    lives: HashMap<SessionKey, (Arc<Live>, u64)>,
    clock: u64,
}

/// The sessions that have something in memory.
pub(super) struct Lives {
    known: Mutex<Known>,
    tag: Arc<str>,
}

impl Lives {
    /// Returns the sessions of a host whose requests have this in their ids.
    pub(super) fn new(tag: Arc<str>) -> Self {
        Self { known: Mutex::default(), tag }
    }

    /// Returns what a session has; none: nothing is in memory.
    pub(super) fn find(&self, key: &SessionKey) -> Option<Arc<Live>> {
        let mut known = self.known.lock();
        known.clock += 1;
        let now = known.clock;
        let (live, used) = known.lives.get_mut(key)?;
        *used = now;
        Some(Arc::clone(live))
    }

    /// Returns what a session has, made from its notes when nothing is in memory. `now`: its events are numbered from it on.
    pub(super) fn open(&self, key: SessionKey, notes: SessionNotes, now: TimeMs) -> Arc<Live> {
        let mut known = self.known.lock();
        known.clock += 1;
        let used = known.clock;
        if known.lives.len() >= SESSIONS_MAX && !known.lives.contains_key(&key) {
            let idle = known.lives.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            if let Some((live, _)) = idle.and_then(|idle| known.lives.remove(&idle)) {
                live.close();
            }
        }
        let first = u64::try_from(now.0).unwrap_or_default().saturating_mul(1_000).max(1);
        Arc::clone(&known.lives.entry(key).or_insert_with(|| (Arc::new(Live::new(notes, first, Arc::clone(&self.tag))), used)).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::offering::{DocumentWrite, Reach};

    fn read(source: &mut mpsc::Receiver<Frame>) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(Frame::Event(event)) = source.try_recv() {
            all.push(String::from_utf8_lossy(&event).into_owned());
        }
        all
    }

    const NOW: TimeMs = TimeMs(1_790_000_000_000);
    const FIRST: u64 = 1_790_000_000_000_000;

    fn lived() -> Live {
        Live::new(SessionNotes::default(), FIRST, "".into())
    }

    fn request(id: &str) -> Box<RawValue> {
        RawValue::from_string(id.to_owned()).expect("JSON")
    }

    #[test]
    fn who_comes_back_gets_what_it_missed_and_what_follows() {
        let live = lived();
        let (stream, mut first) = live.open_stream(true, &request("7"));
        live.push(stream, b"{\"n\":1}");
        let named = |number: u64| format!("id: 1.{number}.Nw\n");
        let event = |n: u64| format!("{}data: {{\"n\":{n}}}\n\n", named(FIRST + n - 1));
        assert_eq!(read(&mut first), [format!("{}retry: 500\ndata: \n\n", named(FIRST - 1)), event(1)]);
        live.detach(stream);
        assert!(first.try_recv().is_err());
        live.push(stream, b"{\"n\":2}");
        let mut second = live.resume(stream, FIRST).expect("it is kept");
        live.push(stream, b"{\"n\":3}");
        assert_eq!(read(&mut second), [event(2), event(3)]);
        live.end(stream);
        assert_eq!(read(&mut live.resume(stream, FIRST - 1).expect("kept after its end")).len(), 3);
        assert!(live.resume(9, FIRST).is_none());
    }

    #[test]
    fn an_event_of_an_earlier_process_is_not_taken_for_one_of_ours() {
        let before = lived();
        let (stream, _reader) = before.open_stream(true, &request("7"));
        for n in 0..500 {
            before.push(stream, format!("{n}").as_bytes());
        }
        let after = Live::new(SessionNotes::default(), FIRST + 1_000, "".into());
        let (again, _reader) = after.open_stream(true, &request("1"));
        assert_eq!(again, stream, "streams are counted from one again");
        assert!((FIRST - 1..FIRST + 500).all(|seen| after.resume(again, seen).is_none()));
        assert!(after.resume(again, FIRST + 999).is_some(), "nothing was told yet");
        assert!(after.resume(again, FIRST + 1_000).is_none(), "an event that never was");
        assert!(after.resume(again, u64::MAX).is_none());
    }

    #[test]
    fn what_is_no_longer_kept_is_not_passed_over_in_silence() {
        let live = lived();
        let (stream, _reader) = live.open_stream(false, &request("7"));
        for n in 0..1_000 {
            live.push(stream, format!("{n}").as_bytes());
        }
        assert!(live.resume(stream, FIRST + 9).is_none());
        assert_eq!(read(&mut live.resume(stream, FIRST + 989).expect("the end is kept")).len(), 10);
    }

    #[test]
    fn what_is_told_before_anybody_reads_waits_once() {
        let live = lived();
        assert!(live.take_telling() && !live.take_telling());
        for _ in 0..3 {
            live.tell(b"1");
            live.tell(b"2");
        }
        let (mut reader, is_whole) = live.stand_alone(false);
        assert!(is_whole);
        live.tell(b"1");
        live.tell(b"1");
        assert_eq!(read(&mut reader).len(), 4, "two that waited, two that were told");
        assert!(read(&mut live.stand_alone(false).0).is_empty(), "nothing is handed out twice");
        drop(reader);
        for n in 0..2 * KEPT_EVENTS_MAX {
            live.tell(format!("[{n}]").as_bytes());
        }
        let (mut reader, is_whole) = live.stand_alone(false);
        assert!(!is_whole, "some of it is no longer kept");
        assert_eq!(read(&mut reader).len(), KEPT_EVENTS_MAX);
    }

    #[test]
    fn what_happens_to_a_document_while_nobody_reads_waits_as_one() {
        let live = lived();
        assert!(live.take_telling());
        let (mut reader, _) = live.stand_alone(false);
        let tell = |key: &str, version: u64| {
            let write = DocumentWrite {
                version,
                before: Some(version - 1),
                patch: Some("@@".into()),
                author: "ana".to_owned(),
                is_deleted: false,
                is_several: false,
            };
            let news = DocumentNews { key: key.parse().expect("a key"), reach: Reach::Document, write: Some(write) };
            live.tell_of(&Arc::new(news), |news, patch| serde_json::to_vec(&documents::told(news, patch)).expect("JSON"));
        };
        let event = |number: u64, json: &str| format!("id: 0.{number}\ndata: {json}\n\n");
        tell("a", 2);
        let one = r#"{"_meta":{"pointsman/author":"ana","pointsman/from":1,"pointsman/patch":"@@","pointsman/version":2},"uri":"pointsman://context/a"}"#;
        assert_eq!(read(&mut reader), [event(FIRST, one)]);
        live.detach(STANDALONE);
        for version in 3..300 {
            tell("a", version);
            live.tell(b"{}");
        }
        tell("b", 2);
        let (mut reader, is_whole) = live.stand_alone(false);
        let joined = r#"{"_meta":{"pointsman/author":"ana","pointsman/since":2,"pointsman/version":299},"uri":"pointsman://context/a"}"#;
        let late = r#"{"_meta":{"pointsman/author":"ana","pointsman/from":1,"pointsman/version":2},"uri":"pointsman://context/b"}"#;
        assert!(is_whole);
        assert_eq!(read(&mut reader), [event(FIRST + 1, joined), event(FIRST + 2, "{}"), event(FIRST + 3, late)]);
        tell("a", 300);
        assert_eq!(read(&mut reader).len(), 1, "what was handed out is not told again");
        let again = read(&mut live.resume(STANDALONE, FIRST).expect("it is kept"));
        assert_eq!(again.len(), 4);
        assert_eq!(again[0], event(FIRST + 1, joined), "one number stands for one event");
        let kept: usize = live.state.lock().streams[&STANDALONE].kept.iter().map(|(_, event)| event.len()).sum();
        assert_eq!(live.state.lock().streams[&STANDALONE].kept_bytes, kept);
    }

    #[test]
    fn answers_reach_whoever_asked_once() {
        let live = lived();
        let mut expected = live.expect_answer();
        assert!(!live.answered("host-9", Err("no".to_owned())));
        assert!(live.answered("host-1", Err("declined".to_owned())));
        assert!(matches!(expected.answer.try_recv(), Ok(Err(_))));
        assert!(!live.answered("host-1", Err("twice".to_owned())));
        drop(live.expect_answer());
        assert_eq!(live.state.lock().waiting.len(), 0, "a call that is over expects nothing");
    }

    #[test]
    fn so_many_calls_run_at_once_and_the_next_when_one_ends() {
        let live = Arc::new(lived());
        let begin = |request: usize| live.begin(&request.to_string(), CancellationToken::new());
        // A client that uses an id twice does not hide a call.
        let mut turns: Vec<Turn> = (0..CALLS_MAX).map(|n| begin(n / 2).expect("there is room")).collect();
        assert!(matches!(begin(99), Err(Fault::TooMany { .. })));
        turns.pop();
        let cancelled = CancellationToken::new();
        let last = live.begin("99", cancelled.clone()).expect("one ended");
        assert!(begin(100).is_err());
        live.cancel("99");
        assert!(cancelled.is_cancelled() && begin(100).is_err(), "until it has ended");
        drop((turns, last));
        assert_eq!(live.state.lock().calls.len(), 0);
    }

    #[test]
    fn the_idle_session_is_let_go() {
        let lives = Lives::new("".into());
        let key = |n: usize| {
            let mut key = SessionKey::default();
            key[..8].copy_from_slice(&n.to_be_bytes());
            key
        };
        let notes = SessionNotes { handle: Some("a1".to_owned()), ..SessionNotes::default() };
        lives.open(key(0), notes.clone(), NOW);
        lives.open(key(1), SessionNotes::default(), NOW);
        assert_eq!(lives.find(&key(0)).and_then(|live| live.handle()), Some("a1".to_owned()));
        for n in 2..=SESSIONS_MAX {
            lives.open(key(n), SessionNotes::default(), NOW);
        }
        assert!(lives.find(&key(1)).is_none(), "the one used least recently");
        assert!(lives.find(&key(0)).is_some());
    }
}
