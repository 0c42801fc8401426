//! `lookup` of messages: reading back from a point in time, and search. What is found is cut to what an answer may have; `more` goes
//! on behind it.
//!
//! ```text
//! messages?since=2h                         the project, in the order of its log
//! messages?q=words&from=ana&to=…&kind=…&tag=…&path=…&since=…&until=…     search, newest first
//! thread/thr_…?since=…                      a thread, oldest first
//! inbox?since=…                             what the asking agent was sent, and how that ended
//! ```

use std::borrow::Cow;

use pointsman_core::ids::{AgentId, MessageId, ProjectId};
use pointsman_core::inbox::{Delivery, DeliveryState};
use pointsman_core::message::Message;
use pointsman_core::message_index::{Field, Search};
use serde_json::{Value, json};

use super::own::SCHEME;
use super::{Said, Services};
use crate::service::contexts::Viewer;
use crate::service::failure::Failure;
use crate::service::messaging::{READ_MAX, Reading, Since};

/// Bytes of the messages in one answer: with what stands around them, some 1,500 tokens.
const RESULT_BYTES_MAX: usize = 5_000;
/// Characters of a body that are shown.
const BODY_CHARS_MAX: usize = 400;
/// Values of one parameter, and parameters.
const PARAMETERS_MAX: usize = 32;

/// The grammar, for those who got it wrong.
pub(super) const GRAMMAR: &str = "messages?since=2h, messages?q=WORDS&from=ana&to=bo&kind=K&tag=T&path=src&since=7d&until=2026-05-01, \
                                  thread/thr_…?since=2h or inbox?since=2h";

/// Who reads.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    /// In which project.
    pub(super) project: ProjectId,
    /// As whom.
    pub(super) viewer: Viewer,
}

impl Reader {
    /// Returns the agent; none: a component, or a client that has not started one.
    fn agent(&self) -> Option<AgentId> {
        self.viewer.agent().map(|agent| agent.id)
    }
}

/// What follows the question mark.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str, known: &[&str]) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let shown: String = name.chars().take(40).collect();
                return Err(wrong(format!("there is no parameter `{shown}` here; there are {}", known.join(", "))));
            }
            let value = decoded(value).ok_or_else(|| wrong(format!("the value of `{name}` is no text")))?;
            pairs.push((name.to_owned(), value));
        }
        if pairs.len() > PARAMETERS_MAX {
            return Err(wrong(format!("{} parameters, at most {PARAMETERS_MAX} are allowed", pairs.len())));
        }
        Ok(Self(pairs))
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn since(&self, name: &str) -> Result<Option<Since>, Failure> {
        self.one(name).map(str::parse).transpose()
    }

    /// Returns the query with one parameter set, those of another reading's place left out.
    fn going_on(&self, name: &str, value: &str) -> String {
        let stays = |known: &str| known != name && !(name == "after" && known == "since");
        let others = self.0.iter().filter(|(known, _)| stays(known)).map(|(known, value)| format!("{known}={}", encoded(value)));
        others.chain([format!("{name}={value}")]).collect::<Vec<_>>().join("&")
    }
}

fn wrong(why: String) -> Failure {
    Failure::refused("bad_argument", why, format!("Write {GRAMMAR}."))
}

/// Returns a text without percent-encoding (RFC 3986, section 2.1); what is no encoding stays as it is.
fn decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high * 16 + low);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

/// Returns a text as a value in a query.
fn encoded(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '#' | '%' | '+' | '=' | ' ' | '"' => value.push_str(&format!("%{:02X}", u32::from(letter))),
            other => value.push(other),
        }
    }
    value
}

/// Reads what a path with a query names; none: it is not of this kind.
pub(super) async fn back(services: &Services, reader: &Reader, path: &str) -> Result<Option<Said>, Failure> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let (noun, rest) = path.trim_end_matches('/').split_once('/').unwrap_or((path.trim_end_matches('/'), ""));
    match (noun, rest, query) {
        ("messages", "", Some(query)) => messages(services, reader, query).await.map(Some),
        ("inbox", "", query) => inbox(services, reader, query.unwrap_or_default()).await.map(Some),
        ("thread", id, query) if !id.is_empty() => thread(services, reader, id, query.unwrap_or_default()).await.map(Some),
        (id, "", query) if id.starts_with("thr_") => thread(services, reader, id, query.unwrap_or_default()).await.map(Some),
        _ => Ok(None),
    }
}

async fn thread(services: &Services, reader: &Reader, id: &str, query: &str) -> Result<Said, Failure> {
    let id = id.parse().map_err(|_| wrong(format!("`{}` is no thread", id.chars().take(80).collect::<String>())))?;
    let query = Query::parse(query, &["since", "after"])?;
    let reading = services.messaging.read_thread(reader.project, id, query.since("since")?, query.one("after")).await?;
    let place = |place: &str| format!("{SCHEME}thread/{id}?{}", query.going_on("after", place));
    Ok(said(reader, reading, shown, place, None))
}

async fn inbox(services: &Services, reader: &Reader, query: &str) -> Result<Said, Failure> {
    let Some(agent) = reader.agent() else {
        let advice = "Call the tool `lookup` as an agent that has started.";
        return Err(Failure::refused("bad_argument", "only an agent has an inbox, and none asks", advice));
    };
    let query = Query::parse(query, &["since", "after"])?;
    let reading = services.messaging.read_inbox(reader.project, agent, query.since("since")?, query.one("after")).await?;
    let show = |sent: &crate::service::messaging::Sent| {
        let mut shown = sent.message.as_ref().map_or_else(|| json!({"id": sent.delivery.message, "gone": true}), shown);
        standing(&mut shown, &sent.delivery);
        shown
    };
    Ok(said(reader, reading, show, |place| format!("{SCHEME}inbox?{}", query.going_on("after", place)), None))
}

async fn messages(services: &Services, reader: &Reader, query: &str) -> Result<Said, Failure> {
    let query = Query::parse(query, &["q", "from", "to", "kind", "tag", "path", "since", "until", "before"])?;
    let since = query.since("since")?;
    if let Some(since) = since.filter(|_| query.0.iter().all(|(name, _)| name == "since")) {
        let reading = services.messaging.read_project(reader.project, since).await?;
        let place = |place: &str| format!("{SCHEME}messages?{}", query.going_on("since", place));
        return Ok(said(reader, reading, shown, place, None));
    }
    let search = search(services, reader, &query, since).await?;
    let found = services.messaging.search(reader.project, &search, READ_MAX).await?;
    let entries = found.messages.into_iter().map(|message| (message.id.to_string(), message)).collect();
    let reading = Reading { entries, next: found.next.map(|id| id.to_string()) };
    let place = |place: &str| format!("{SCHEME}messages?{}", query.going_on("before", place));
    let incomplete = found.incomplete.then_some("the index of messages is being built: ask again in a moment");
    Ok(said(reader, reading, shown, place, incomplete))
}

async fn search(services: &Services, reader: &Reader, query: &Query, since: Option<Since>) -> Result<Search, Failure> {
    let messaging = &services.messaging;
    let mut search = Search::default();
    for text in query.all("q") {
        search = search.with_words(text);
    }
    for (name, field) in [("kind", Field::Kind), ("tag", Field::Tag), ("path", Field::Path)] {
        for value in query.all(name) {
            search = search.with_field(field, &[value]);
        }
    }
    for (name, field) in [("from", Field::From), ("to", Field::To)] {
        for value in query.all(name) {
            // An agent may be named by its id where it was answered, and by its name elsewhere.
            let bare = value.strip_prefix("agent:").unwrap_or(value);
            let known = services.agents.agent(reader.project, bare).await.ok();
            let (id, name) = known.map_or_else(Default::default, |agent| (agent.id.to_string(), agent.name.clone()));
            let values: Vec<&str> = [value, bare, &id, &name].into_iter().filter(|value| !value.is_empty()).collect();
            search = search.with_field(field, &values);
        }
    }
    if let Some(since) = since {
        search.since = Some(messaging.time_of(reader.project, since).await?);
    }
    if let Some(until) = query.since("until")? {
        search.until = Some(messaging.time_of(reader.project, until).await?);
    }
    search.before = query.one("before").map(str::parse::<MessageId>).transpose().map_err(|error| wrong(format!("`before`: {error}")))?;
    Ok(search)
}

/// Words a reading: as many entries as fit, at least one, and where the rest is.
fn said<T>(
    reader: &Reader,
    reading: Reading<T>,
    show: impl Fn(&T) -> Value,
    more: impl Fn(&str) -> String,
    incomplete: Option<&str>,
) -> Said {
    let Reading { entries, next } = reading;
    let (mut shown, mut bytes, mut last) = (Vec::new(), 0, None);
    let count = entries.len();
    for (place, entry) in &entries {
        let value = show(entry);
        bytes += value.to_string().len();
        if bytes > RESULT_BYTES_MAX && !shown.is_empty() {
            break;
        }
        shown.push(value);
        last = Some(place.as_str());
    }
    let next = if shown.len() < count { last.map(str::to_owned) } else { next };
    let advice = match (&next, shown.len()) {
        (Some(_), _) => "Look up `more` to read on; a message whose body is cut, by its id.",
        (None, 0) => "Nothing there: widen the time, or leave a word out.",
        (None, _) => "This was all. A message whose body is cut is read by its id.",
    };
    let mut result = json!({"messages": shown});
    if let Some(why) = incomplete {
        result["incomplete"] = true.into();
        result["why"] = why.into();
    }
    let more = next.map(|place| more(&place));
    if reader.agent().is_none() {
        // Components are given the result alone.
        result["more"] = more.clone().into();
    }
    Said { more: more.map(Cow::Owned), ..Said::new(&result, advice) }
}

/// Returns a message as a list shows it: what is empty is left out, a long body is cut.
fn shown(message: &Message) -> Value {
    let mut shown = json!({
        "id": message.id,
        "kind": message.kind,
        "from": message.from.name,
        "to": message.to,
        "subject": message.subject,
        "thread": message.thread,
        "sent_at": message.sent_at.to_rfc3339(),
    });
    let text = match &message.body {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            shown["body"] = other.clone();
            Some(other.to_string())
        }
    };
    if let Some(text) = text {
        if text.chars().count() > BODY_CHARS_MAX {
            shown["body"] = format!("{}…", text.chars().take(BODY_CHARS_MAX).collect::<String>()).into();
            shown["cut"] = true.into();
        } else if message.body.is_string() && !text.is_empty() {
            shown["body"] = text.into();
        }
    }
    for (name, all) in [("paths", &message.paths), ("tags", &message.tags)] {
        if !all.is_empty() {
            shown[name] = json!(all.iter().take(8).collect::<Vec<_>>());
        }
    }
    if let Some(answered) = message.reply_to {
        shown["reply_to"] = json!(answered);
    }
    shown
}

/// Adds how a delivery stands, or ended.
fn standing(shown: &mut Value, delivery: &Delivery) {
    let (word, at, why) = match &delivery.state {
        DeliveryState::Ready { since } => ("unread", since, None),
        DeliveryState::Waiting { until } => ("waiting", until, None),
        DeliveryState::Held { since, .. } => ("held", since, None),
        DeliveryState::Leased { until, .. } => ("handed_out", until, None),
        DeliveryState::Acked { at } => ("acked", at, None),
        DeliveryState::PassedOn { at, .. } => ("passed_on", at, None),
        DeliveryState::DeadLettered { at, reason } => ("dead_lettered", at, Some(reason)),
        DeliveryState::Expired { at } => ("expired", at, None),
    };
    shown["standing"] = word.into();
    shown["at"] = at.to_rfc3339().into();
    if let Some(why) = why {
        shown["reason"] = why.as_str().into();
    }
    if delivery.attempts_here > 0 {
        shown["attempts"] = delivery.attempts_here.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_strictly_and_goes_on_as_it_was() {
        let query = Query::parse("q=parse%20the header&from=ana&since=2h", &["q", "from", "since", "before"]).expect("it fits");
        assert_eq!((query.one("q"), query.one("from"), query.one("to")), (Some("parse the header"), Some("ana"), None));
        assert_eq!(query.going_on("before", "msg_x"), "q=parse%20the%20header&from=ana&since=2h&before=msg_x");
        assert_eq!(query.going_on("after", "msg_x"), "q=parse%20the%20header&from=ana&after=msg_x");
        assert!(Query::parse("qq=x", &["q"]).is_err());
        assert!(Query::parse("q=%FF", &["q"]).is_err(), "no UTF-8");
        assert_eq!(decoded("100% 1%2"), Some("100% 1%2".to_owned()), "what is no encoding is meant as it is");
        assert_eq!(decoded(&encoded("a&b=c +ü%")).as_deref(), Some("a&b=c +ü%"));
    }
}
