//! Calls that may take a while, tell of their progress and ask back: components' tools, resources and prompts.
//!
//! A call runs in a task of its own and fills a channel of frames; the first frame decides whether the answer is plain JSON or
//! a stream. Must not know how sessions keep streams.
//!
//! **Invariants:** a call ends with exactly one last frame, or with nobody left to read it; in revision 2026-07-28 a client that
//! goes away cancels its call; nothing is asked of a client that it did not say it can answer.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pointsman_core::time::TimeMs;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Dress, Texts};
use super::errors::Fault;
use super::live::{Live, Turn};
use super::sealed::Sealer;
use super::stream::Frame;
pub(super) use crate::ports::asking::declares;
use crate::ports::asking::{self, NotAsked};
use crate::ports::offering::{Offering, Round};
use crate::ports::provider::{Emission, Emit, ProviderCall, ProviderOutcome, wake_after_ms};
use crate::ports::surface::Caller;

/// What the extension for deferred calls is called.
pub(super) const TASKS: &str = "io.modelcontextprotocol/tasks";
/// Rounds of one call: a component that asks without end is ended.
const ROUNDS_MAX: u32 = 10_000;
/// Milliseconds a call is held open.
const HELD_MS_MAX: u64 = 60 * 60 * 1_000;
/// Milliseconds a client of a session has to answer what a call asks it.
const ASKED_MS: u64 = 10 * 60 * 1_000;

/// The levels of log messages, the least severe first (RFC 5424).
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// How severe a log message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level(usize);

impl Level {
    /// What sessions get that asked for nothing.
    pub(super) const INFO: Self = Self(1);

    /// Returns the level of a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        LEVELS.iter().position(|level| *level == name).map(Self)
    }

    /// Returns its name.
    pub(super) fn name(self) -> &'static str {
        LEVELS[self.0]
    }
}

/// Who gets what a call has to say besides its answer.
pub(super) enum Peer {
    /// A stateless client: it hears what it asked for, and is asked back in the answer itself.
    Stateless,
    /// A session: it is sent requests, and may come back to the stream.
    Session(Arc<Live>),
}

/// What every call needs.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) offering: Arc<dyn Offering>,
    pub(super) texts: Arc<Texts>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) now: Arc<dyn Fn() -> TimeMs + Send + Sync>,
}

/// A call on its way.
pub(super) struct Running {
    pub(super) desk: Desk,
    pub(super) caller: Caller,
    pub(super) call: ProviderCall,
    pub(super) round: Round,
    /// The request's id.
    pub(super) id: Box<RawValue>,
    pub(super) dress: Dress,
    pub(super) peer: Peer,
    /// Under which token progress is told; none: it is not.
    pub(super) progress: Option<Box<RawValue>>,
    /// From which level on log messages are told; none: they are not.
    pub(super) level: Option<Level>,
    /// Cancelled by the client, or by its going away.
    pub(super) cancelled: CancellationToken,
    /// Of a session's call: one of those that may run at once.
    pub(super) turn: Option<Turn>,
}

/// Takes what the component tells.
struct Teller {
    frames: mpsc::Sender<Frame>,
    cancelled: CancellationToken,
    is_stateless: bool,
    progress: Option<Box<RawValue>>,
    level: Option<Level>,
    done: Mutex<f64>,
}

impl Emit for Teller {
    fn emit(&self, what: Emission) -> bool {
        if self.cancelled.is_cancelled() || (self.is_stateless && self.frames.is_closed()) {
            return false;
        }
        match what {
            Emission::Progress { done, total, message } => self.progress(done, total, &message),
            Emission::Log { level, logger, data } => self.log(&level, &logger, &data),
            Emission::DetachStream => drop(self.frames.try_send(Frame::Detach)),
        }
        true
    }
}

impl Teller {
    /// Progress must rise (progress, behaviour requirements); a step back is not passed on.
    fn progress(&self, done: f64, total: f64, message: &str) {
        let Some(token) = &self.progress else { return };
        let mut before = self.done.lock();
        if !done.is_finite() || done <= *before {
            return;
        }
        *before = done;
        drop(before);
        let mut params = Map::new();
        params.insert("progressToken".to_owned(), json!(token));
        params.insert("progress".to_owned(), number(done));
        if total.is_finite() && total > 0.0 {
            params.insert("total".to_owned(), number(total));
        }
        if !message.is_empty() {
            params.insert("message".to_owned(), message.into());
        }
        drop(self.frames.try_send(Frame::Message(answer::notification("notifications/progress", params))));
    }

    fn log(&self, level: &str, logger: &str, data: &str) {
        let heard = Level::named(level).zip(self.level).is_some_and(|(level, least)| level >= least);
        if !heard {
            return;
        }
        let data = serde_json::from_str(data).unwrap_or_else(|_| Value::from(data));
        let mut params = Map::from_iter([("level".to_owned(), level.into()), ("data".to_owned(), data)]);
        if !logger.is_empty() {
            params.insert("logger".to_owned(), logger.into());
        }
        drop(self.frames.try_send(Frame::Message(answer::notification("notifications/message", params))));
    }
}

/// Whole numbers are written without a point: clients compare them.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "only taken where it is exact")]
    let whole = value as i64;
    #[expect(clippy::cast_precision_loss, reason = "compared, to see whether it is exact")]
    let is_whole = whole as f64 == value;
    if is_whole { whole.into() } else { json!(value) }
}

impl Running {
    /// Runs the call to its end; the last frame is its answer.
    pub(super) async fn run(mut self, frames: mpsc::Sender<Frame>) {
        let _turn = self.turn.take();
        let teller = Arc::new(Teller {
            frames: frames.clone(),
            cancelled: self.cancelled.clone(),
            is_stateless: matches!(self.peer, Peer::Stateless),
            progress: self.progress.take(),
            level: self.level,
            // Progress may begin with nothing done.
            done: Mutex::new(f64::NEG_INFINITY),
        });
        let over = self.cancelled.clone();
        let answer = tokio::select! {
            answer = self.rounds(&teller, &frames) => answer,
            () = over.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(HELD_MS_MAX)) => Err(Fault::HeldTooLong),
            () = gone(&frames), if teller.is_stateless => {
                over.cancel();
                return;
            }
        };
        // Nobody may be left to read it.
        drop(frames.send(Frame::Last(answer)).await);
    }

    async fn rounds(&mut self, teller: &Arc<Teller>, frames: &mpsc::Sender<Frame>) -> Result<Vec<u8>, Fault> {
        let mut pending = Abandon { running: None };
        for _ in 0..ROUNDS_MAX {
            let emit: Arc<dyn Emit> = Arc::clone(teller) as Arc<dyn Emit>;
            let outcome = self.desk.offering.round(&self.caller, &self.call, self.round.clone(), emit).await;
            pending.running = None;
            match outcome? {
                ProviderOutcome::Complete(result) => return answer::completed(&self.id, &self.desk.texts, &self.call, &result, self.dress),
                ProviderOutcome::MissingCapability(required) => return Err(Fault::CapabilityMissing { required }),
                ProviderOutcome::ProtocolError { message, .. } => return Err(Fault::InvalidParams { why: message.into() }),
                ProviderOutcome::InputRequired { requests, state } => {
                    match asking::check(&requests, &self.round.client_capabilities) {
                        Ok(()) => {}
                        Err(NotAsked::Undeclared(required)) => return Err(Fault::CapabilityMissing { required }),
                        Err(NotAsked::Malformed(why)) => return Err(self.broken(&why)),
                    }
                    let Peer::Session(live) = &self.peer else {
                        let now = (self.desk.now)();
                        let sealed = self.desk.sealer.seal(&self.caller, &self.call, &self.round.call_id, &state, now);
                        let sealed = sealed.ok_or_else(|| self.broken("its state is larger than a client is given to keep"))?;
                        return Ok(answer::input_required(&self.id, &self.desk.texts, &requests, &sealed));
                    };
                    self.round.answers = ask(live, frames, &requests).await?;
                    self.round.state = state;
                }
                ProviderOutcome::Pending { state, wake_ms } => {
                    self.round.state = state;
                    pending.running = Some((self.desk.offering.clone(), self.caller.clone(), self.call.clone(), self.round.clone()));
                    if self.may_defer() {
                        let task = self.desk.offering.defer(&self.caller, self.call.clone(), self.round.clone(), wake_ms).await?;
                        pending.running = None;
                        return Ok(answer::spliced(&self.id, &self.desk.texts, task.get(), "task"));
                    }
                    tokio::time::sleep(Duration::from_millis(wake_after_ms(wake_ms))).await;
                    // Answers are given once.
                    "{}".clone_into(&mut self.round.answers);
                }
            }
        }
        Err(self.broken("it took too many rounds"))
    }

    /// Returns the fault of a component that does what it may not.
    fn broken(&self, why: &str) -> Fault {
        tracing::error!(trace = %self.caller.trace, call = ?self.call, why, "a component's call cannot go on");
        Fault::Internal { trace: self.caller.trace.clone() }
    }

    fn may_defer(&self) -> bool {
        matches!(self.peer, Peer::Stateless)
            && matches!(self.call, ProviderCall::Tool { .. })
            && declares(&self.round.client_capabilities, &["extensions", TASKS])
    }
}

/// Tells the component when a call that is pending is dropped.
struct Abandon {
    running: Option<(Arc<dyn Offering>, Caller, ProviderCall, Round)>,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some((offering, caller, call, round)) = self.running.take() {
            tokio::spawn(async move { offering.abandoned(&caller, &call, round.call_id, round.state).await });
        }
    }
}

async fn gone(frames: &mpsc::Sender<Frame>) {
    frames.closed().await;
}

/// Sends a session's client what the component asks, and returns the answers by key.
async fn ask(live: &Live, frames: &mpsc::Sender<Frame>, requests: &str) -> Result<String, Fault> {
    let requests: Map<String, Value> = serde_json::from_str(requests).unwrap_or_default();
    let mut waiting = Vec::new();
    for (key, request) in requests {
        let expected = live.expect_answer();
        let mut message = json!({"jsonrpc": "2.0", "id": expected.id, "method": request["method"]});
        if !request["params"].is_null() {
            message["params"] = request["params"].clone();
        }
        drop(frames.send(Frame::Message(message.to_string().into_bytes())).await);
        waiting.push((key, expected));
    }
    let mut answers = Map::new();
    for (key, mut expected) in waiting {
        match tokio::time::timeout(Duration::from_millis(ASKED_MS), &mut expected.answer).await {
            Ok(Ok(Ok(result))) => drop(answers.insert(key, serde_json::from_str(result.get()).unwrap_or_default())),
            Ok(Ok(Err(refused))) => return Err(Fault::InvalidParams { why: format!("the client refused `{key}`: {refused}").into() }),
            Ok(Err(_)) | Err(_) => return Err(Fault::InvalidParams { why: format!("the client did not answer `{key}`").into() }),
        }
    }
    Ok(Value::Object(answers).to_string())
}
