//! Messages and addresses: what agents tell each other, and to whom.
//!
//! Owns: the written forms, the limits of each field. Must not know: inboxes, routers, who exists.
//!
//! What the sender says: to whom, kind, subject, body, paths, tags, priority, expiry, thread, what it answers, `correlation`,
//! `attachments` (references by digest, not contents), `headers`. What the host attaches and nobody else can: id, project, author and
//! provenance, time, `causation`, and the sender's [`SenderContext`].
//!
//! **Invariant:** a message that passed [`Message::check`] fits its limits and reads back from its stored form.

mod envelope;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use thiserror::Error;

pub use self::envelope::{Attachment, RESERVED_HEADER_PREFIX, lower_headers};

use crate::capability::{CapabilityError, CapabilityExpr};
use crate::event::{Actor, Provenance};
use crate::ids::{MessageId, ProjectId, TaskId, ThreadId};
use crate::limits::{
    AGENT_NAME_CHARS_MAX, KIND_CHARS_MAX, MESSAGE_BODY_BYTES_MAX, MESSAGE_PATHS_MAX, PATH_BYTES_MAX, RECIPIENTS_MAX, TAG_CHARS_MAX,
    TAGS_MAX, TITLE_CHARS_MAX,
};
use crate::time::TimeMs;

/// The highest priority.
pub const PRIORITY_MAX: u8 = 9;
/// The priority of a message that names none.
pub const PRIORITY_NORMAL: u8 = 4;

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// One agent, by name or id: `agent:ana`.
    Agent(String),
    /// Whoever can do something; routers choose: `all(rust, review)`.
    Capability(CapabilityExpr),
    /// Everyone who subscribed: `topic:releases`.
    Topic(String),
    /// Every agent of the project but the sender: `all`.
    Everyone,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// What follows `agent:` or `topic:` is no name.
    #[error("`{given}` is not an address: {source}")]
    Name {
        /// What was read, cut to 80 characters.
        given: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// Neither a prefix nor a capability expression.
    #[error("it is none of `agent:NAME`, `topic:NAME`, `all`, and no capability expression either: {0}")]
    Expression(#[from] CapabilityError),
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a name is 1 to {max} characters of A-Z, a-z, 0-9, `-`, `_`, `.`{extra}, the first a letter or digit")]
pub struct NameError {
    max: usize,
    extra: &'static str,
}

fn check_name(text: &str, max: usize, slash: Option<char>) -> Result<(), NameError> {
    let accepted = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || Some(c) == slash;
    let fits = text.chars().count() <= max && text.chars().all(accepted) && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if fits { Ok(()) } else { Err(NameError { max, extra: if slash.is_some() { ", `/`" } else { "" } }) }
}

/// Checks an agent's name.
///
/// # Errors
/// [`NameError`].
pub fn check_agent_name(text: &str) -> Result<(), NameError> {
    check_name(text, AGENT_NAME_CHARS_MAX, None)
}

/// Checks the name of a topic, team or tag: an agent's name that may have parts, `ci/nightly`.
///
/// # Errors
/// [`NameError`].
pub fn check_label(text: &str) -> Result<(), NameError> {
    check_name(text, TAG_CHARS_MAX, Some('/'))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(name) => write!(f, "agent:{name}"),
            Self::Capability(expr) => expr.fmt(f),
            Self::Topic(name) => write!(f, "topic:{name}"),
            Self::Everyone => f.write_str("all"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let wrong = |source| AddressError::Name { given: text.chars().take(80).collect(), source };
        if let Some(name) = text.strip_prefix("agent:") {
            check_agent_name(name).map_err(wrong)?;
            return Ok(Self::Agent(name.to_owned()));
        }
        if let Some(name) = text.strip_prefix("topic:") {
            check_label(name).map_err(wrong)?;
            return Ok(Self::Topic(name.to_owned()));
        }
        if text == "all" {
            return Ok(Self::Everyone);
        }
        Ok(Self::Capability(text.parse()?))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a sender stood when it wrote, by the host's records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderContext {
    /// The task it held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Its branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The branch's head as far as the host saw it, a full hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// The model behind it, as it said when it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// A message as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Never changes; sorts by time.
    pub id: MessageId,
    /// Whose.
    pub project: ProjectId,
    /// The chain of answers it belongs to.
    pub thread: ThreadId,
    /// `question`, `request`, `review`, `notice`, …
    pub kind: String,
    /// Who sent it, and what kind of author that is.
    pub from: Actor,
    /// For whom.
    pub to: Vec<Address>,
    /// One line.
    pub subject: String,
    /// A text or a JSON value.
    pub body: Value,
    /// Repository paths it speaks of.
    pub paths: Vec<String>,
    /// Free labels.
    pub tags: Vec<String>,
    /// 0 (idle) to 9 (urgent).
    pub priority: u8,
    /// When it is no longer worth delivering; none: never.
    pub expires_at: Option<TimeMs>,
    /// Whether the sender wants to be told of each ack. It is always told of failures.
    pub ack_required: bool,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// The subject or event that led to it.
    pub causation: Option<String>,
    /// What it belongs to beyond its thread, in the sender's own words; an answer has that of what it answers unless it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// Files it names by their content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Whatever else programs tell each other, names in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Where the sender stood.
    pub context: SenderContext,
    /// When.
    pub sent_at: TimeMs,
}

/// What is wrong with a message, by field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Nothing stands where something must.
    #[error("`{field}` is missing")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// Too many entries, characters or bytes.
    #[error("`{field}` has {actual} {unit}, at most {max} are allowed")]
    TooLong {
        /// Which.
        field: &'static str,
        /// How much it has.
        actual: usize,
        /// How much it may have.
        max: usize,
        /// Of what.
        unit: &'static str,
    },
    /// Not of the form.
    #[error("`{field}` is wrong: {why}")]
    Malformed {
        /// Which.
        field: &'static str,
        /// What the form is.
        why: String,
    },
    /// Beyond the range.
    #[error("`{field}` is {actual}, it goes from {min} to {max}")]
    OutOfRange {
        /// Which.
        field: &'static str,
        /// What was given.
        actual: u64,
        /// The lowest.
        min: u64,
        /// The highest.
        max: u64,
    },
}

impl MessageError {
    /// Returns the field that is wrong.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Missing { field } | Self::TooLong { field, .. } | Self::Malformed { field, .. } | Self::OutOfRange { field, .. } => field,
        }
    }
}

fn at_most(field: &'static str, actual: usize, max: usize, unit: &'static str) -> Result<(), MessageError> {
    if actual > max { Err(MessageError::TooLong { field, actual, max, unit }) } else { Ok(()) }
}

/// Checks the texts of one line.
fn check_line(field: &'static str, text: &str, chars_max: usize) -> Result<(), MessageError> {
    at_most(field, text.chars().count(), chars_max, "characters")?;
    if text.chars().any(char::is_control) {
        return Err(MessageError::Malformed { field, why: "it is one line without control characters".to_owned() });
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), MessageError> {
    at_most("paths", path.len(), PATH_BYTES_MAX, "bytes in one path")?;
    let wrong = path.is_empty() || path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..");
    if wrong {
        let why = format!("`{}` is no path relative to the repository's root", path.chars().take(80).collect::<String>().escape_default());
        return Err(MessageError::Malformed { field: "paths", why });
    }
    Ok(())
}

impl Message {
    /// Returns what kind of author sent it.
    #[must_use]
    pub fn provenance(&self) -> Provenance {
        self.from.provenance
    }

    /// Returns the bytes of the body as JSON text, a plain text without its quotes and escapes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        match &self.body {
            Value::String(text) => text.len(),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string().len(),
        }
    }

    /// Returns whether it is no longer worth delivering.
    #[must_use]
    pub fn is_expired(&self, now: TimeMs) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }

    /// Checks every field against its form and limits. The addresses are checked by their parsing.
    ///
    /// # Errors
    /// The first [`MessageError`], in the order of the fields.
    pub fn check(&self) -> Result<(), MessageError> {
        self.check_head()?;
        at_most("body", self.body_bytes(), MESSAGE_BODY_BYTES_MAX, "bytes")?;
        at_most("paths", self.paths.len(), MESSAGE_PATHS_MAX, "entries")?;
        self.paths.iter().try_for_each(|path| check_path(path))?;
        at_most("tags", self.tags.len(), TAGS_MAX, "entries")?;
        for tag in &self.tags {
            check_label(tag).map_err(|error| MessageError::Malformed { field: "tags", why: error.to_string() })?;
        }
        if self.priority > PRIORITY_MAX {
            let (actual, max) = (u64::from(self.priority), u64::from(PRIORITY_MAX));
            return Err(MessageError::OutOfRange { field: "priority", actual, min: 0, max });
        }
        if self.is_expired(self.sent_at) {
            return Err(MessageError::Malformed { field: "expires_in_s", why: "it would expire before it is sent".to_owned() });
        }
        envelope::check_correlation(self.correlation.as_deref())?;
        envelope::check_attachments(&self.attachments)?;
        envelope::check_headers(&self.headers)
    }

    fn check_head(&self) -> Result<(), MessageError> {
        let kind_form = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if self.kind.is_empty() {
            return Err(MessageError::Missing { field: "kind" });
        }
        at_most("kind", self.kind.chars().count(), KIND_CHARS_MAX, "characters")?;
        if !self.kind.chars().all(kind_form) {
            return Err(MessageError::Malformed { field: "kind", why: "it is a word of a-z, 0-9, `-`, `_`, `.`".to_owned() });
        }
        if self.to.is_empty() {
            return Err(MessageError::Missing { field: "to" });
        }
        at_most("to", self.to.len(), RECIPIENTS_MAX, "addresses")?;
        if self.subject.trim().is_empty() {
            return Err(MessageError::Missing { field: "subject" });
        }
        check_line("subject", &self.subject, TITLE_CHARS_MAX)
    }
}
