//! Dead letters as operators work with them: listed, looked into, delivered again, taken off the list.

use pointsman_core::ids::{AgentId, MessageId};
use pointsman_core::time::TimeMs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire_time;

/// Letters of one answer that names no number.
pub const LETTERS_LISTED: usize = 100;
/// Letters of one answer at the most.
pub const LETTERS_LISTED_MAX: usize = 1_000;

/// Which dead letters. What is left out does not narrow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LetterSelection {
    /// Slug of their project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Name or id of the agent that had them last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The kind of their messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Given up at least so many milliseconds ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_ms: Option<u64>,
    /// Of these messages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<MessageId>,
    /// All of them are meant: to be said by who changes letters and narrows them by nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Where an earlier page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many; none: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl LetterSelection {
    /// Returns whether it leaves anything out.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        let Self { project, agent, kind, older_than_ms, messages, all: _, after: _, limit: _ } = self;
        project.is_some() || agent.is_some() || kind.is_some() || older_than_ms.is_some() || !messages.is_empty()
    }
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterListed {
    /// Slug of its project.
    pub project: String,
    /// The message.
    pub message: MessageId,
    /// Name of the agent that had it last.
    pub agent: String,
    /// That agent's id.
    pub agent_id: AgentId,
    /// The message's kind.
    pub kind: String,
    /// Its one line.
    pub subject: String,
    /// Who sent it.
    pub from: String,
    /// When.
    #[serde(with = "wire_time")]
    pub sent_at: TimeMs,
    /// When it was given up.
    #[serde(with = "wire_time")]
    pub dead_at: TimeMs,
    /// Times it was handed out.
    pub attempts: u32,
    /// What the last try ended with.
    pub reason: String,
}

/// One page of dead letters, the oldest message of a project first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterPage {
    /// The letters.
    pub letters: Vec<LetterListed>,
    /// For `after`; none: this was the last page. A page may be short and not the last.
    pub next: Option<String>,
}

/// What happened to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterEvent {
    /// When.
    #[serde(with = "wire_time")]
    pub at: TimeMs,
    /// `message.handed_out`, `message.nacked`, `message.lapsed`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Who did it.
    pub by: String,
    /// Name of the agent it is about, where it is about one.
    pub agent: Option<String>,
    /// Which try it was, or how many there were by then.
    pub attempt: Option<u64>,
    /// Why.
    pub reason: Option<String>,
}

/// A message with its dead letters and all that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LetterShown {
    /// Slug of its project.
    pub project: String,
    /// The whole message.
    pub message: Value,
    /// Its dead letters; none: they were revived or purged.
    pub letters: Vec<LetterListed>,
    /// What the log says of it, the oldest first.
    pub history: Vec<LetterEvent>,
    /// False when the log was too long to be read to its end.
    pub is_whole: bool,
}

/// To whom a dead letter goes again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayTo {
    /// To the agent that had it last.
    #[default]
    Same,
    /// To whom the routers choose now, where they chose before; else to the same agent.
    Anew,
}

/// What is done with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterVerb {
    /// They are delivered again, with all their tries.
    Replay(ReplayTo),
    /// They are no dead letters any more; their messages go with the settled ones.
    Purge,
}

/// Whether something is done or only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// It is done.
    Real,
    /// Nothing is changed.
    Dry,
}

/// What became of one dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterOutcome {
    /// Slug of its project; none where the message is not known.
    pub project: Option<String>,
    /// The message.
    pub message: MessageId,
    /// Name of the agent that had it last, where there was a dead letter.
    pub agent: Option<String>,
    /// What became of it.
    pub outcome: LetterEnd,
    /// Name of the agent that has it now, of a revived one.
    pub to: Option<String>,
    /// Why, of one that is as before.
    pub why: Option<String>,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterEnd {
    /// It is live again.
    Revived,
    /// It is off the list.
    Purged,
    /// It is no dead letter, or not any more: nothing was to be done.
    Unchanged,
    /// It could not be done.
    Refused,
}

/// What became of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LettersChanged {
    /// How many were selected: by a dry run all there are, else those of this answer.
    pub selected: usize,
    /// How many were changed.
    pub changed: usize,
    /// What became of each; none of a dry run.
    pub letters: Vec<LetterOutcome>,
    /// For `after`, to go on; none: these were all.
    pub next: Option<String>,
}

/// How a project's messages stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagesKept {
    /// Slug of the project.
    pub project: String,
    /// Its dead letters, counted up to [`LETTERS_COUNTED_MAX`].
    pub dead_letters: usize,
    /// What was removed when something was for the last time.
    pub pruned: Option<PruneReport>,
}

/// Dead letters that a status counts at the most.
pub const LETTERS_COUNTED_MAX: usize = 10_000;

/// What one run of the retention removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneReport {
    /// When it ended.
    #[serde(with = "wire_time")]
    pub at: TimeMs,
    /// Nothing that was sent or settled later was looked at.
    #[serde(with = "wire_time")]
    pub before: TimeMs,
    /// Messages.
    pub messages: u64,
    /// Their deliveries.
    pub deliveries: u64,
    /// Dead letters.
    pub dead_letters: u64,
}
