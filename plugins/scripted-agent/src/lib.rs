//! The agent of the tests: it does what the script of its cause says, and offers tools that try what a provider may do.
//!
//! A message's body is its script where it is a JSON object; every other cause has its script in the configuration's `on`,
//! by `timer:ID`, `http:ID` or the event's type. A cause without a script is answered with no action.

use std::collections::BTreeMap;

use pointsman_sdk::Plugin;
use pointsman_sdk::agent::{Action, Agent, Cause, Description, Document, Event, HttpRequest, NewTask, Send};
use serde::Deserialize;
use serde_json::Value;

#[cfg(target_arch = "wasm32")]
mod provider;

/// What the agent is and does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name among agents.
    #[serde(default = "default_name")]
    pub name: String,
    /// Capabilities it offers.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Event types it wants.
    #[serde(default)]
    pub events: Vec<String>,
    /// Scripts by cause.
    #[serde(default)]
    pub on: BTreeMap<String, Script>,
}

fn default_name() -> String {
    "scripted".to_owned()
}

/// What is done about one event.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// It fails with these words,
    pub fail: Option<String>,
    /// but only before this time; without it always.
    pub fail_before_ms: Option<i64>,
    /// It traps.
    pub trap: bool,
    /// It never ends.
    pub spin: bool,
    /// Its actions.
    #[serde(rename = "do")]
    pub steps: Vec<Step>,
}

/// One action, or a read whose result is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Keeps a text under a key.
    Put(String, String),
    /// Adds one to the number under a key.
    Count(String),
    /// Forgets a key.
    Delete(String),
    /// Keeps the event, as its id and what caused it, under a key.
    Keep(String),
    /// Keeps what a look-up gave, under a key: the URI, the key.
    Read(String, String),
    /// Keeps its keys of a prefix, under a key: the prefix, the key.
    Keys(String, String),
    /// Sends a message: to, kind, subject, body.
    Send(Vec<String>, String, String, String),
    /// Writes a document: key, base version, media type, text.
    Write(String, u64, String, String),
    /// Creates a task: title, tasks it depends on, paths.
    Task(String, Vec<String>, Vec<String>),
    /// Notes on a task.
    Note(String, String),
    /// Sets a timer: id, milliseconds.
    Timer(String, u64),
    /// Cancels a timer.
    Cancel(String),
    /// Makes a request: id, method, URL, body.
    Fetch(String, String, String, String),
    /// Replaces the offers.
    Offers(Value),
}

/// The plugin.
#[derive(Debug)]
pub struct Scripted(Config);

impl Plugin for Scripted {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self(config))
    }
}

impl Agent for Scripted {
    fn describe(&self) -> Description {
        Description { name: self.0.name.clone(), capabilities: self.0.capabilities.clone(), events: self.0.events.clone() }
    }

    fn handle(&self, event: &Event) -> Result<Vec<Action>, String> {
        host::log(&format!("{} at {}", event.id, event.at_ms));
        let script = self.script(&event.cause)?;
        if let Some(why) = &script.fail
            && script.fail_before_ms.is_none_or(|end| event.at_ms < end)
        {
            return Err(why.clone());
        }
        assert!(!script.trap, "the script says so");
        if script.spin {
            spin();
        }
        script.steps.iter().map(|step| step.action(event)).collect()
    }
}

impl Scripted {
    fn script(&self, cause: &Cause) -> Result<Script, String> {
        let named = |name: &str| self.0.on.get(name).cloned().unwrap_or_default();
        let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
        match cause {
            Cause::Message(text) => match json(text)?["body"].take() {
                body if body.is_object() => serde_json::from_value(body).map_err(|error| error.to_string()),
                _ => Ok(named("message")),
            },
            Cause::Logged(text) => Ok(named(json(text)?["type"].as_str().unwrap_or_default())),
            Cause::Timer(id) => Ok(named(&format!("timer:{id}"))),
            Cause::Http(answer) => Ok(named(&format!("http:{}", answer.id))),
        }
    }
}

impl Step {
    fn action(&self, event: &Event) -> Result<Action, String> {
        let put = |key: &str, text: String| Action::Put((key.to_owned(), text.into_bytes()));
        Ok(match self.clone() {
            Self::Put(key, text) => put(&key, text),
            Self::Count(key) => {
                let before: u64 = host::get(&key).and_then(|text| text.parse().ok()).unwrap_or(0);
                put(&key, (before + 1).to_string())
            }
            Self::Delete(key) => Action::Delete(key),
            Self::Keep(key) => put(&key, format!("{} {}", event.id, said(&event.cause))),
            Self::Read(uri, key) => put(&key, host::read(&uri)),
            Self::Keys(prefix, key) => put(&key, host::keys(&prefix).join(" ")),
            Self::Send(to, kind, subject, body) => Action::SendMessage(Send { to, kind, subject, body }),
            Self::Write(key, base_version, media_type, text) => {
                Action::WriteContext(Document { key, base_version, media_type, bytes: text.into_bytes() })
            }
            Self::Task(title, depends_on, paths) => {
                Action::CreateTask(NewTask { title, description: String::new(), kind: "fix".to_owned(), priority: 4, depends_on, paths })
            }
            Self::Note(task, note) => Action::NoteTask((task, note)),
            Self::Timer(id, delay_ms) => Action::SetTimer((id, delay_ms)),
            Self::Cancel(id) => Action::CancelTimer(id),
            Self::Fetch(id, method, url, body) => {
                let headers = vec![("accept".to_owned(), "text/plain".to_owned())];
                Action::Fetch(HttpRequest { id, method, url, headers, body: body.into_bytes() })
            }
            Self::Offers(offers) => Action::ReplaceOffers(offers.to_string()),
        })
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

fn said(cause: &Cause) -> String {
    match cause {
        Cause::Message(text) | Cause::Logged(text) => text.clone(),
        Cause::Timer(id) => id.clone(),
        Cause::Http(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
    }
}

/// The host's part, where there is one.
mod host {
    #[cfg(target_arch = "wasm32")]
    use pointsman_sdk::agent::host as imports;

    #[cfg(target_arch = "wasm32")]
    pub(super) fn log(line: &str) {
        imports::log::write(imports::log::Level::Info, line);
    }
    #[cfg(target_arch = "wasm32")]
    pub(super) fn get(key: &str) -> Option<String> {
        imports::kv::get(key).and_then(|bytes| String::from_utf8(bytes).ok())
    }
    #[cfg(target_arch = "wasm32")]
    pub(super) fn keys(prefix: &str) -> Vec<String> {
        imports::kv::keys(prefix, "", 1_000)
    }
    #[cfg(target_arch = "wasm32")]
    pub(super) fn read(uri: &str) -> String {
        imports::lookups::read(uri).unwrap_or_else(|refusal| format!("{refusal:?}"))
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn log(_line: &str) {}
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn get(_key: &str) -> Option<String> {
        None
    }
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn keys(_prefix: &str) -> Vec<String> {
        Vec::new()
    }
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn read(_uri: &str) -> String {
        String::new()
    }
}

pointsman_sdk::export_agent!(Scripted);
