//! What is stored of a resident agent, where, and how its wake-ups are called.
//!
//! ```text
//! resident/<plugin>                          how far it was fed the log, and its tries at the next event
//! resident-wake/<plugin>/timer/<id>          a timer it set
//! resident-wake/<plugin>/fetch/<id>          a request it asked for, then that it was answered
//! resident-load/<plugin>/fetch/<id>          the request itself, then the answer itself
//! kv/<plugin>/<key>                          its memory
//! offers/<plugin>                            what it offers now, instead of what it offered first
//! offers-turn                                who changed the project's offers last
//! ```
//!
//! Due entries are called `timer/<plugin>/<id>`, `fetch/<plugin>/<id>` and, for a try that waits, `resident/<plugin>`. They
//! only ring; the records say what is to be done, and are armed again at each start.

use pointsman_core::event::{Cursor, Event, NewEvent};
use pointsman_core::ids::AgentId;
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};

use crate::ports::fetch::FetchRequest;
use crate::ports::provider::Offers;
use crate::ports::resident::Cause;

/// Event types an agent may ask for.
pub(super) const PATTERNS_MAX: usize = 64;
/// Bytes of the id of a timer or request.
pub(super) const ID_BYTES_MAX: usize = 128;
/// Bytes of a key of an agent's memory.
pub(super) const KV_KEY_BYTES_MAX: usize = 256;

/// Where an agent stands in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Feed {
    /// Everything up to here was handled, was not for it, or was given up.
    pub(super) cursor: Cursor,
    /// Tries at the next event for it.
    pub(super) attempts: u32,
    /// When the next try may be.
    pub(super) retry_at: Option<TimeMs>,
}

impl Stored for Feed {
    const NAME: &'static str = "resident's place";
}

/// A wake-up that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wake {
    /// The event's id.
    pub(super) event: String,
    /// When.
    pub(super) at: TimeMs,
    /// Tries so far.
    pub(super) attempts: u32,
    /// For what.
    pub(super) what: WakeKind,
}

impl Stored for Wake {
    const NAME: &'static str = "wake-up";
}

/// For what an agent is woken by time. What may be large stands beside it, in a [`Load`]: wake-ups are listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WakeKind {
    /// A timer of this id.
    Timer(String),
    /// A request of this id that is to be made.
    Ask(String),
    /// A request that was made.
    Answer {
        /// The request's.
        id: String,
        /// Or 0.
        status: u16,
    },
}

/// What goes with a wake-up and may be large. Written and removed with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Load {
    /// The event of the wake-up it goes with.
    pub(super) event: String,
    /// What.
    pub(super) what: LoadKind,
}

impl Stored for Load {
    const NAME: &'static str = "load of a wake-up";
}

/// What goes with a wake-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LoadKind {
    /// What to ask.
    Request(FetchRequest),
    /// The body of the answer, or why there is none.
    Body(Vec<u8>),
}

/// What an agent offers instead of what it offered first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredOffers {
    /// The component that said so: a newer one begins anew.
    pub(super) digest: String,
    /// What.
    pub(super) offers: Offers,
}

impl Stored for StoredOffers {
    const NAME: &'static str = "offers";
}

/// Who changed what is offered in a project last. Its version is what the next change rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OffersTurn {
    /// Which component.
    pub(super) plugin: String,
}

impl Stored for OffersTurn {
    const NAME: &'static str = "turn at the offers";
}

/// Where the turn at a project's offers stands.
pub(super) const OFFERS_TURN: &str = "offers-turn";

pub(super) fn feed_key(plugin: &str) -> String {
    format!("resident/{plugin}")
}

/// The name of the due entry that rings for a try that waits.
pub(super) fn retry_due(plugin: &str) -> String {
    format!("resident/{plugin}")
}

pub(super) fn kv_key(plugin: &str, key: &str) -> String {
    format!("kv/{plugin}/{key}")
}

/// What the keys of stored offers start with.
pub(super) const OFFERS: &str = "offers/";

pub(super) fn offers_key(plugin: &str) -> String {
    format!("{OFFERS}{plugin}")
}

/// What the keys of wake-ups start with, and those of what goes with them.
const WAKES: &str = "resident-wake/";
const LOADS: &str = "resident-load/";

pub(super) fn wakes_prefix(plugin: &str) -> String {
    format!("{WAKES}{plugin}/")
}

/// Returns where stands what goes with the wake-up of a key.
pub(super) fn load_key(wake_key: &str) -> String {
    format!("{LOADS}{}", wake_key.strip_prefix(WAKES).unwrap_or(wake_key))
}

pub(super) fn timer_due(plugin: &str, id: &str) -> String {
    format!("timer/{plugin}/{id}")
}

pub(super) fn fetch_due(plugin: &str, id: &str) -> String {
    format!("fetch/{plugin}/{id}")
}

/// Returns the plugin that a due entry rings for; none when it is no resident's.
pub(super) fn plugin_of_due(name: &str) -> Option<&str> {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["timer" | "fetch", plugin, _, ..] | ["resident", plugin] => Some(plugin),
        _ => None,
    }
}

/// Returns where the record of a due entry stands; none for a try that waits.
pub(super) fn wake_key(due: &str) -> Option<String> {
    let (kind, rest) = due.split_once('/')?;
    let (plugin, id) = rest.split_once('/')?;
    Some(format!("{}{kind}/{id}", wakes_prefix(plugin)))
}

/// Returns the due entry that rings for a record.
pub(super) fn due_of_wake(plugin: &str, key: &str) -> Option<String> {
    let (kind, id) = key.strip_prefix(&wakes_prefix(plugin))?.split_once('/')?;
    Some(format!("{kind}/{plugin}/{id}"))
}

/// Returns the id of the wake-up by an event of the log.
pub(super) fn logged_id(cursor: Cursor) -> String {
    format!("log:{cursor}")
}

/// Returns what a cause is called in events.
pub(super) fn cause_name(cause: &Cause) -> &'static str {
    match cause {
        Cause::Message(_) => "message",
        Cause::Logged(_) => "logged",
        Cause::Timer(_) => "timer",
        Cause::Http { .. } => "http",
    }
}

/// Which events of the log an agent is fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patterns(Vec<String>);

impl Patterns {
    /// Reads patterns: an event's type, `task.created`, or the beginning of some, `task.*`.
    ///
    /// # Errors
    /// Which one is wrong.
    pub(super) fn parse(texts: &[String]) -> Result<Self, String> {
        if texts.len() > PATTERNS_MAX {
            return Err(format!("it asks for {} types of events; at most {PATTERNS_MAX} are taken", texts.len()));
        }
        let part =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let fits = |text: &String| text == "*" || text.strip_suffix(".*").unwrap_or(text).split('.').all(part);
        match texts.iter().find(|text| !fits(text)) {
            Some(wrong) => Err(format!("`{}` is no type of events: write `task.created`, `task.*` or `*`", wrong.escape_default())),
            None => Ok(Self(texts.to_vec())),
        }
    }

    /// Returns whether an agent is fed an event: never what it did itself or what the host made of that, and nothing about
    /// residents, so that two that fail at each other's failures do not go on for ever.
    pub(super) fn cover(&self, event: &Event, agent: AgentId, plugin: &str) -> bool {
        let kind = event.event.kind.as_str();
        if event.event.actor.agent == Some(agent) || kind.starts_with("resident.") || is_effect(&event.event, agent, plugin) {
            return false;
        }
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => kind.starts_with(start),
            None => kind == pattern,
        })
    }
}

/// Returns whether an event is the host's, about what an agent did: where its message went, what became of its offers.
fn is_effect(event: &NewEvent, agent: AgentId, plugin: &str) -> bool {
    match event.kind.as_str() {
        "message.routed" => event.data["sender"].as_str() == Some(agent.to_string().as_str()),
        kind => kind.starts_with("offers.") && event.data["plugin"].as_str() == Some(plugin),
    }
}

#[cfg(test)]
mod tests {
    use pointsman_core::event::Actor;
    use pointsman_core::ids::ProjectId;
    use serde_json::{Value, json};

    use super::*;

    fn event(kind: &str, actor: Actor, data: Value) -> Event {
        let event = NewEvent::new(kind, actor, "T-1", data);
        Event { cursor: Cursor::default(), at: TimeMs(0), project: ProjectId::from_bytes([0; 16]), event }
    }

    #[test]
    fn patterns_cover_types_and_their_beginnings() {
        let me = AgentId::from_bytes([1; 16]);
        let covers = |patterns: &[&str], kind: &str| {
            let texts: Vec<String> = patterns.iter().map(|&text| text.to_owned()).collect();
            Patterns::parse(&texts).expect("patterns").cover(&event(kind, Actor::host(), json!({})), me, "helper")
        };
        assert!(covers(&["task.created"], "task.created"));
        assert!(!covers(&["task.created"], "task.created_again"));
        assert!(covers(&["merge.landed", "task.*"], "task.created"));
        assert!(!covers(&["task.*"], "tasks.created"));
        assert!(covers(&["*"], "message.sent"));
        assert!(!covers(&["*"], "resident.failed"));
        assert!(!covers(&[], "task.created"));
        let mine = Actor { agent: Some(me), ..Actor::host() };
        assert!(!Patterns::parse(&["*".to_owned()]).expect("patterns").cover(&event("task.created", mine, json!({})), me, "helper"));
        for bad in ["", "task.", ".x", "Task.*", "task*", "task.*.x"] {
            assert!(Patterns::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_agent_is_not_fed_what_came_of_its_own_acts() {
        let (me, other) = (AgentId::from_bytes([1; 16]), AgentId::from_bytes([2; 16]));
        let all = Patterns::parse(&["*".to_owned()]).expect("patterns");
        let covers = |kind: &str, data: Value| all.cover(&event(kind, Actor::host(), data), me, "helper");
        assert!(!covers("message.routed", json!({"sender": me})));
        assert!(covers("message.routed", json!({"sender": other})));
        assert!(covers("message.routed", json!({"sender": null})), "the host's own messages");
        assert!(!covers("offers.refused", json!({"plugin": "helper"})));
        assert!(covers("offers.replaced", json!({"plugin": "another"})));
        assert!(covers("mcp.called", json!({"plugin": "helper"})), "what others do with it is news");
    }

    #[test]
    fn names_lead_to_records_and_back() {
        let name = timer_due("helper", "a/b");
        assert_eq!(plugin_of_due(&name), Some("helper"));
        let key = wake_key(&name).expect("a record");
        assert_eq!(key, "resident-wake/helper/timer/a/b");
        assert_eq!(load_key(&key), "resident-load/helper/timer/a/b");
        assert_eq!(due_of_wake("helper", &key), Some(name));
        assert_eq!(plugin_of_due(&retry_due("helper")), Some("helper"));
        assert_eq!(wake_key(&retry_due("helper")), None);
        assert_eq!(plugin_of_due("message/route"), None);
        assert_eq!(plugin_of_due("claim/T-1"), None);
    }
}
