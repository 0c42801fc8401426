//! Messages from agent to agent, and from the host to agents: sent, routed, waited for, settled.
//!
//! Owns: where messages and deliveries stand in the store, the events about them. Must not know: tools, tasks, plugins' ways.
//! `core::inbox` decides what becomes of a delivery; here its transitions become commits.
//!
//! ```text
//! msg/<message>                     the message
//! msg-new/<order, reversed>/<message>       message ids, newest first
//! msg-thread/<thread>/<order>/<message>     message ids of a thread, oldest first
//! dlv/<agent>/<message>             live deliveries
//! rdy/<agent>/<place>/<message>     of these, the ones to hand out, in that order
//! line/<agent>/<thread>             of these, the ones of a thread that back off, and those held behind them
//! fin/<agent>/<message>             ended deliveries
//! dead/<message>/<agent>            of these, the dead letters
//! dfr/<message>                     addresses nobody could take yet
//! retention                         how far the removal of old messages is, and what it removed
//! ```
//!
//! **Invariants:** a message, its deliveries, its idempotency record and its events are one commit; so is each transition
//! of a delivery with its event. An agent has one delivery of a message at most, ever: a dead letter that is revived is the same
//! delivery, live again (`letters`). What nobody could take is stored and routed later, and the sender is told. What is settled goes
//! after its time, a message with all its deliveries (`retention`).

mod coalesce;
mod due;
mod figures;
mod interest;
mod letters;
mod line;
mod look;
mod peek;
mod post;
mod reading;
mod retention;
mod route;
mod search;
mod settle;
mod sleepers;
mod wait;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::{AgentId, MessageId, ProjectId, TaskId, ThreadId};
use pointsman_core::inbox::{Delivery, Place, Terms};
use pointsman_core::message::{Address, Attachment, Message, PRIORITY_NORMAL, SenderContext};
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub use due::run_due;
pub use letters::{Letter, LetterChange, LetterFilter, Letters};
pub use look::MessageFilter;
pub use peek::{PeekAnswer, PeekRequest, Waiting};
pub(in crate::service) use post::stage_route_now;
pub use reading::{READ_MAX, Reading, Sent, Since};
pub use search::SearchAnswer;
pub(in crate::service) use sleepers::Sleepers;
pub use wait::{Handed, Nack, NotSettled, Settled, WaitAnswer, WaitRequest};

use self::figures::Figures;
use self::search::Searches;
use super::agents::{Agents, Standing};
use super::failure::Failure;
use super::kit::{Acting, CommitExt, Kit};
use crate::ports::store::{Commit, DueChange, Expect};

/// Where live deliveries stand.
pub(in crate::service) const DELIVERIES: &str = "dlv/";
/// The kind of a message that asks for a review.
pub const REVIEW_REQUEST: &str = "review_request";
/// The kind of a message that names none.
pub const KIND_DEFAULT: &str = "message";
/// What the names of this service's due entries start with.
const DUE: &str = "message/";
/// Times a settlement is decided again because a delivery changed meanwhile.
const DECISIONS_MAX: u32 = 64;

fn message_key(id: MessageId) -> String {
    format!("msg/{id}")
}

/// Two hosts may give two messages one place: the id tells them apart.
fn newest_key(order: u64, id: MessageId) -> String {
    format!("msg-new/{:016x}/{id}", u64::MAX - order)
}

fn thread_key(thread: ThreadId, order: u64, id: MessageId) -> String {
    format!("msg-thread/{thread}/{order:016x}/{id}")
}

fn delivery_key(agent: AgentId, message: MessageId) -> String {
    format!("{DELIVERIES}{agent}/{message}")
}

fn ready_prefix(agent: AgentId) -> String {
    format!("rdy/{agent}/")
}

/// The message is part of it: two hosts may give the same place.
fn ready_key(delivery: &Delivery) -> String {
    format!("rdy/{}/{}/{}", delivery.agent, delivery.place.key(), delivery.message)
}

fn ended_key(agent: AgentId, message: MessageId) -> String {
    format!("fin/{agent}/{message}")
}

fn delivery_due(agent: AgentId, message: MessageId) -> String {
    format!("{DUE}delivery/{agent}/{message}")
}

/// A message named by an index entry.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Named(MessageId);

impl Stored for Named {
    const NAME: &'static str = "message id";
}

/// A message to send.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SendRequest {
    /// `agent:NAME`, `topic:NAME`, `all` or a capability expression; none: to the sender of the message it answers.
    pub to: Vec<String>,
    /// `question`, `request`, `review_request`, …
    pub kind: Option<String>,
    /// One line; none: the first line of the body, or of the message it answers.
    pub subject: Option<String>,
    /// A text or a JSON value.
    pub body: Value,
    /// Repository paths it speaks of.
    pub paths: Vec<String>,
    /// Free labels.
    pub tags: Vec<String>,
    /// 0 to 9; 4 is normal.
    pub priority: Option<u8>,
    /// A thread to go on with.
    pub thread: Option<ThreadId>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// Seconds it is worth delivering.
    pub expires_in_s: Option<u64>,
    /// Whether the sender's waits report each ack.
    pub ack_required: bool,
    /// What it belongs to beyond its thread; none: what the message it answers belongs to.
    pub correlation: Option<String>,
    /// Files it names by their content.
    pub attachments: Vec<Attachment>,
    /// Whatever else programs tell each other.
    pub headers: BTreeMap<String, String>,
    /// Which of the tasks it holds it speaks of, where those are several. Everything else about the sender the host attaches.
    pub task: Option<TaskId>,
    /// The same key never sends a second message.
    pub idempotency_key: Option<String>,
}

/// Messages to send at once: all of them or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SendBatch {
    /// In the order in which they are sent.
    pub messages: Vec<SendRequest>,
    /// The same key never sends them a second time.
    pub idempotency_key: Option<String>,
}

/// The answer to messages sent at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchReceipt {
    /// One for each, in their order.
    pub messages: Vec<SendReceipt>,
}

/// Who got a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// The agent's name.
    pub agent: String,
    /// Its id.
    pub id: AgentId,
    /// The address it was chosen for.
    pub address: Address,
    /// Why.
    pub reason: String,
    /// The router that chose; none: the sender or the host did.
    pub router: Option<String>,
}

/// Why nobody, or one agent less, got a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotRoutedCode {
    /// Nobody fits the address.
    Nobody,
    /// Whoever fits has a full inbox.
    InboxFull,
    /// A router said so.
    Router,
}

/// An address nobody got the message for, or one agent of it did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRouted {
    /// Which.
    pub address: Address,
    /// For programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<NotRoutedCode>,
    /// The agent whose inbox is full, where others of the address got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// When to send it again to those who did not get it; none: the host does, or there is no use in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// Why.
    pub reason: String,
    /// When it is tried again at the latest; none: it is not.
    pub retry_at: Option<TimeMs>,
}

/// The answer to a sent message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendReceipt {
    /// The message.
    pub message: MessageId,
    /// Its thread.
    pub thread: ThreadId,
    /// Who got it.
    pub routed: Vec<Routed>,
    /// What waits for somebody who can take it.
    pub deferred: Vec<NotRouted>,
    /// What nobody gets.
    pub dropped: Vec<NotRouted>,
    /// The store is away: the message is kept by the host that answers, and sent when the store is back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

/// A message of the host to one agent, staged into the commit that causes it.
#[derive(Debug, Clone)]
pub struct Notice {
    to: AgentId,
    kind: String,
    subject: String,
    body: Value,
    causation: Option<String>,
    thread: Option<ThreadId>,
    priority: u8,
}

impl Notice {
    /// Returns a notice of normal priority.
    #[must_use]
    pub fn new(to: AgentId, kind: impl Into<String>, subject: impl Into<String>, body: Value) -> Self {
        let (kind, subject) = (kind.into(), subject.into());
        Self { to, kind, subject, body, causation: None, thread: None, priority: PRIORITY_NORMAL }
    }

    /// Returns the notice with its cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Display) -> Self {
        self.causation = Some(cause.to_string());
        self
    }

    /// Returns the notice as part of a thread.
    #[must_use]
    pub fn in_thread(mut self, thread: ThreadId) -> Self {
        self.thread = Some(thread);
        self
    }

    /// Returns the notice with a priority, 0 to 9.
    #[must_use]
    pub fn with_priority(mut self, priority: u8) -> Self {
        self.priority = priority.min(pointsman_core::message::PRIORITY_MAX);
        self
    }
}

/// A message of the host to whoever its addresses mean.
#[derive(Debug, Clone)]
pub struct HostMessage {
    /// For whom.
    pub to: Vec<Address>,
    /// Its kind.
    pub kind: String,
    /// One line.
    pub subject: String,
    /// A JSON value.
    pub body: Value,
    /// Repository paths it speaks of.
    pub paths: Vec<String>,
    /// 0 to 9.
    pub priority: u8,
    /// What led to it.
    pub causation: Option<String>,
    /// Agents that do not get it, such as the author of what is to be reviewed.
    pub except: Vec<AgentId>,
}

/// Messages and deliveries.
pub struct Messaging {
    kit: Kit,
    agents: Arc<Agents>,
    /// The place given to the last message.
    order: AtomicU64,
    /// The wait that each agent is in.
    turns: Arc<Mutex<HashMap<AgentId, CancellationToken>>>,
    searches: Searches,
    figures: Figures,
}

impl Messaging {
    /// Returns the service.
    #[must_use]
    pub fn new(kit: Kit, agents: Arc<Agents>) -> Self {
        let (searches, figures) = (Searches::default(), Figures::default());
        Self { kit, agents, order: AtomicU64::new(0), turns: Arc::default(), searches, figures }
    }

    /// Adds a message of an agent and its deliveries to a commit under way.
    ///
    /// # Errors
    /// As [`Messaging::send`].
    pub(in crate::service) async fn stage_send(
        &self,
        commit: &mut Commit,
        acting: &Acting,
        request: &SendRequest,
    ) -> Result<SendReceipt, Failure> {
        let message = self.compose(acting, request).await?;
        self.stage_post(commit, &message, &[acting.agent.id], Some(&acting.trace)).await
    }

    /// Adds a message of the host and its delivery to a commit: it is sent if and only if the commit is done.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn stage_notice(&self, commit: &mut Commit, project: ProjectId, notice: Notice) -> Result<MessageId, Failure> {
        let now = self.kit.now();
        let board = self.agents.board(project).await?;
        let to = board.agent(notice.to).map_or_else(|| notice.to.to_string(), |agent| agent.name.clone());
        let message = Message {
            id: MessageId::new(now, self.kit.system.id_bytes()),
            project,
            thread: notice.thread.unwrap_or_else(|| ThreadId::new(now, self.kit.system.id_bytes())),
            kind: notice.kind,
            from: Actor::host(),
            to: vec![Address::Agent(to)],
            subject: fit_line(&notice.subject),
            body: notice.body,
            paths: Vec::new(),
            tags: Vec::new(),
            priority: notice.priority,
            expires_at: None,
            ack_required: false,
            reply_to: None,
            causation: notice.causation,
            correlation: None,
            attachments: Vec::new(),
            headers: BTreeMap::new(),
            context: SenderContext::default(),
            sent_at: now,
        };
        let place = self.next_place(&message);
        stage_message(commit, &message, place, None);
        if let Some(delivery) = Delivery::new(now, message.id, &[notice.to], place) {
            let delivery = Delivery { is_review: message.kind == REVIEW_REQUEST, thread: Some(message.thread), ..delivery };
            self.stage_delivery(commit, &delivery);
            let data = json!({
                "kind": message.kind, "address": message.to[0], "decision": "direct", "reason": "the host tells its agent",
                "agents": [notice.to], "inbox": inbox([&delivery]),
            });
            commit.events.push(NewEvent::new("message.routed", Actor::host(), message.id, data).caused_by(message.id));
        }
        Ok(message.id)
    }

    fn terms(&self) -> Terms {
        Terms { lease_ms: self.kit.settings.delivery_lease_ms, attempts_max: self.kit.settings.delivery_attempts_max.max(1) }
    }

    /// Returns the place of a new message: after all that this host sent before, and by time among hosts.
    fn next_place(&self, message: &Message) -> Place {
        let by_time = u64::try_from(message.sent_at.0).unwrap_or(0) << 12;
        let last = self.order.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(by_time.max(last + 1)));
        let last = last.unwrap_or_else(|last| last);
        Place { priority: message.priority, order: by_time.max(last + 1) }
    }

    /// Adds a new delivery to a commit.
    fn stage_delivery(&self, commit: &mut Commit, delivery: &Delivery) {
        commit.replace(delivery_key(delivery.agent, delivery.message), None, delivery);
        commit.expects.push((ended_key(delivery.agent, delivery.message), Expect::Absent));
        commit.put(ready_key(delivery), &Named(delivery.message));
        if let Some(at) = delivery.due_at(&self.terms()) {
            commit.due.push(DueChange::Set { name: delivery_due(delivery.agent, delivery.message), at });
        }
    }

    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.kit.system.random(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Adds a message without its deliveries to a commit.
fn stage_message(commit: &mut Commit, message: &Message, place: Place, trace: Option<&str>) {
    commit.replace(message_key(message.id), None, message);
    commit.put(newest_key(place.order, message.id), &Named(message.id));
    commit.put(thread_key(message.thread, place.order, message.id), &Named(message.id));
    let data = json!({
        "to": message.to, "kind": message.kind, "subject": message.subject, "priority": message.priority, "thread": message.thread,
        "paths": message.paths, "tags": message.tags, "body_bytes": message.body_bytes(), "reply_to": message.reply_to,
        "expires_at": message.expires_at.map(TimeMs::to_rfc3339), "context": message.context, "correlation": message.correlation,
        "attachments": message.attachments.len(),
    });
    let mut event = NewEvent::new("message.sent", message.from.clone(), message.id, data);
    event.causation.clone_from(&message.causation);
    event.trace = trace.map(str::to_owned);
    commit.events.push(event);
}

/// Returns what the board reads of an event: where the message stands with each agent.
fn inbox<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> Value {
    let standing = |delivery: &Delivery| (delivery.agent.to_string(), Value::from(Standing::of(delivery).word()));
    Value::Object(deliveries.into_iter().map(standing).collect())
}

/// Returns a text as one line that fits a subject.
fn fit_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    if line.chars().count() <= pointsman_core::limits::TITLE_CHARS_MAX {
        return line.to_owned();
    }
    let cut: String = line.chars().take(pointsman_core::limits::TITLE_CHARS_MAX - 1).collect();
    format!("{}…", cut.trim_end())
}
