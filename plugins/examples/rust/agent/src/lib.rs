//! An agent that lives in the host: it is woken by messages and events, and answers with actions.
//!
//! All actions of an answer are applied, or none. What it shall remember it keeps by [`Action::Put`] and reads by [`recall`]: an
//! instance may be gone between any two events. This one answers each message and counts them.

use pointsman_sdk::agent::{Action, Cause, Event, Send, recall};
use serde::Deserialize;

/// What the operator can set, under `[plugins.NAME.config]`.
#[pointsman_sdk::config]
#[serde(default)]
#[derive(Debug)]
pub struct Config {
    /// How an answer begins.
    pub greeting: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { greeting: "Hello".to_owned() }
    }
}

/// What is needed of a message.
#[derive(Debug, Deserialize)]
struct Message {
    from: Sender,
    subject: String,
}

/// Who sent it.
#[derive(Debug, Deserialize)]
struct Sender {
    name: String,
}

/// Handles one event.
///
/// # Errors
/// Why it could not; the event comes again later.
#[pointsman_sdk::agent(capabilities = ["greeting"])]
pub fn handle(event: &Event, config: &Config) -> Result<Vec<Action>, String> {
    let Cause::Message(json) = &event.cause else { return Ok(Vec::new()) };
    let Message { from, subject } = serde_json::from_str(json).map_err(|error| format!("this is no message: {error}"))?;
    let count = recall("count").and_then(|text| String::from_utf8(text).ok()?.parse().ok()).unwrap_or(0_u64) + 1;
    let answer = Send {
        to: vec![format!("agent:{}", from.name)],
        kind: "answer".to_owned(),
        subject: format!("Re: {subject}"),
        body: format!("{}, {}! You are number {count}.", config.greeting, from.name),
    };
    Ok(vec![Action::SendMessage(answer), Action::Put(("count".to_owned(), count.to_string().into_bytes()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(cause: Cause) -> Event {
        Event { id: "e1".to_owned(), at_ms: 1, cause }
    }

    #[test]
    fn a_message_is_answered_and_counted() {
        let message = event(Cause::Message(r#"{"from": {"name": "ana"}, "subject": "Hi"}"#.to_owned()));
        let actions = handle(&message, &Config::default()).expect("it is handled");
        let [Action::SendMessage(answer), Action::Put((key, count))] = actions.as_slice() else { unreachable!("{actions:?}") };
        assert_eq!((answer.to.as_slice(), answer.subject.as_str()), (["agent:ana".to_owned()].as_slice(), "Re: Hi"));
        assert_eq!(answer.body, "Hello, ana! You are number 1.");
        assert_eq!((key.as_str(), count.as_slice()), ("count", b"1".as_slice()));
    }

    #[test]
    fn what_is_no_message_is_nothing_or_an_error() {
        assert_eq!(handle(&event(Cause::Timer("t".to_owned())), &Config::default()), Ok(Vec::new()));
        assert!(handle(&event(Cause::Message("{}".to_owned())), &Config::default()).is_err());
    }
}
