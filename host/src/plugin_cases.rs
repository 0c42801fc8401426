//! Cases: what a plugin is to answer to a question, as TOML files beside it.
//!
//! Owns: the form of a case, reading and writing it, and the comparison of an answer with what was expected. Must not
//! know: how components are loaded; whoever runs cases brings a [`Bench`].
//!
//! **Invariant:** a field that no question has is refused by name; what a case does not expect is not looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::providers::{Format, Toml};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;

mod compare;
pub mod golden;
mod write;

pub use self::compare::{Mismatch, mismatches, with_names};
pub use self::write::to_toml;
use crate::ports::decision::{Question, ask, shown, shown_bytes};
use crate::ports::lookups::{LookupRefusal, Lookups};
use crate::ports::plugins::{PluginFailure, Plugins};
use crate::ports::resident::{Action, Cause, ResidentEvent, ResidentMemory, Residents};

/// The folder of a plugin's cases, beside its manifest.
pub const FOLDER: &str = "cases";
/// Milliseconds that a call may take where a component is tried: what is slow is told, not cut.
pub const TRIED_DEADLINE_MS: u64 = 10_000;
/// The call that wakes an agent.
pub const HANDLE: &str = "handle";
/// The largest case file.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The most cases of one folder.
const CASES_MAX: usize = 10_000;

/// Why cases cannot be read.
#[derive(Debug, Error)]
pub enum CaseError {
    /// A file or folder cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no case.
    #[error("{}: {why}", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what would fit.
        why: String,
    },
}

/// What a case asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Of a component that decides.
    Decide(Box<Question>),
    /// Of an agent.
    Handle(Box<HandleQuestion>),
}

/// `handle`: an event, and what the agent may read meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandleQuestion {
    /// What wakes it.
    pub event: WakingEvent,
    /// What look-ups find: URI to JSON.
    pub lookups: BTreeMap<String, Value>,
    /// Its own values: key to text.
    pub kv: BTreeMap<String, String>,
}

/// An event with exactly one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WakingEvent {
    /// Its id.
    pub id: String,
    /// The clock: milliseconds since 1970.
    pub at_ms: i64,
    /// A message to the agent, as JSON.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub message: Value,
    /// An event of the log, as JSON.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub logged: Value,
    /// A timer, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<String>,
    /// An answer to a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpAnswer>,
}

impl Default for WakingEvent {
    fn default() -> Self {
        Self { id: "ev_1".to_owned(), at_ms: 1_800_000_000_000, message: Value::Null, logged: Value::Null, timer: None, http: None }
    }
}

/// An answer to an agent's request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpAnswer {
    /// The id of the request.
    pub id: String,
    /// Its status.
    pub status: u16,
    /// Its body.
    #[serde(with = "shown_bytes")]
    pub body: Vec<u8>,
}

impl WakingEvent {
    fn event(&self) -> Result<ResidentEvent, String> {
        let mut causes = Vec::new();
        if !self.message.is_null() {
            causes.push(Cause::Message(self.message.to_string()));
        }
        if !self.logged.is_null() {
            causes.push(Cause::Logged(self.logged.to_string()));
        }
        causes.extend(self.timer.clone().map(Cause::Timer));
        causes.extend(self.http.clone().map(|answer| Cause::Http { id: answer.id, status: answer.status, body: answer.body }));
        match (causes.pop(), causes.is_empty()) {
            (Some(cause), true) => Ok(ResidentEvent { id: self.id.clone(), at_ms: self.at_ms, cause }),
            _ => Err("`input.event` needs exactly one of `message`, `logged`, `timer` and `http`".to_owned()),
        }
    }
}

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The plugin's configuration; none: the default of its manifest.
    pub config: Option<Map<String, Value>>,
    /// Whether it goes along with the component; none: its author did not say.
    pub golden: Option<bool>,
    /// What is asked.
    pub call: Call,
    /// What the answer must have, as far as it matters.
    pub expect: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    name: Option<String>,
    call: String,
    #[serde(default)]
    config: Option<Map<String, Value>>,
    #[serde(default)]
    golden: Option<bool>,
    #[serde(default)]
    input: Map<String, Value>,
    expect: Map<String, Value>,
}

impl Case {
    /// Reads a case; `title` names one that does not name itself.
    ///
    /// # Errors
    /// Says what is wrong, and what would fit.
    pub fn parse(title: &str, text: &str) -> Result<Self, String> {
        let raw: Raw = Toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if raw.expect.is_empty() {
            return Err("`[expect]` is empty, so nothing could fail; say what the answer must have".to_owned());
        }
        if raw.golden == Some(true) && raw.expect.contains_key("failure") {
            return Err("`golden = true` cannot stand where `[expect]` has `failure`: a golden call is answered".to_owned());
        }
        let call = Call::read(&raw.call, raw.input)?;
        let name = raw.name.unwrap_or_else(|| title.to_owned());
        Ok(Self { name, config: raw.config, golden: raw.golden, call, expect: Value::Object(raw.expect) })
    }

    /// Returns the configuration it is asked with, as JSON.
    #[must_use]
    pub fn config_json(&self, default: &str) -> String {
        self.config.as_ref().map_or_else(|| default.to_owned(), |config| Value::Object(config.clone()).to_string())
    }
}

impl Call {
    /// Reads what is asked: the name of a call, and its input with all fields that matter.
    ///
    /// # Errors
    /// There is no such call, or a field does not fit or does not exist.
    pub fn read(call: &str, input: Map<String, Value>) -> Result<Self, String> {
        let input = Value::Object(input);
        let read = |error: serde_json::Error| format!("`[input]` of `{call}` does not fit: {error}");
        if call == HANDLE {
            let question: HandleQuestion = serde_json::from_value(input.clone()).map_err(read)?;
            // What wakes an agent, and what it reads, is of any form.
            let mut known = json!(question);
            known["event"]["message"] = input["event"]["message"].clone();
            known["event"]["logged"] = input["event"]["logged"].clone();
            known["lookups"] = input["lookups"].clone();
            compare::refuse_unknown(&input, &known)?;
            question.event.event()?;
            return Ok(Self::Handle(Box::new(question)));
        }
        if !Question::CALLS.contains(&call) {
            return Err(format!("there is no call `{call}`; there are {} and {HANDLE}", Question::CALLS.join(", ")));
        }
        let question: Question = serde_json::from_value(json!({"call": call, "input": input})).map_err(read)?;
        compare::refuse_unknown(&input, &json!(question)["input"])?;
        Ok(Self::Decide(Box::new(question)))
    }

    /// Returns the call's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Decide(question) => question.call(),
            Self::Handle(_) => HANDLE,
        }
    }

    /// Returns the whole input, defaults filled in.
    #[must_use]
    pub fn input(&self) -> Value {
        match self {
            Self::Decide(question) => json!(question)["input"].take(),
            Self::Handle(question) => json!(question),
        }
    }
}

/// Reads the cases of a file, or of all TOML files of a folder in the order of their names.
///
/// # Errors
/// [`CaseError`].
pub fn read(path: &Path) -> Result<Vec<(PathBuf, Case)>, CaseError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| CaseError::Read { path, source }
    };
    let mut files = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(unreadable(path))? {
            let file = entry.map_err(unreadable(path))?.path();
            if file.extension().is_some_and(|extension| extension == "toml") {
                files.push(file);
            }
        }
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    if files.len() > CASES_MAX {
        return Err(CaseError::Form { path: path.to_owned(), why: format!("{} cases; at most {CASES_MAX} are run at once", files.len()) });
    }
    let mut cases = Vec::with_capacity(files.len());
    for file in files {
        let bytes = std::fs::metadata(&file).map_err(unreadable(&file))?.len();
        let form = |why: String| CaseError::Form { path: file.clone(), why };
        if bytes > FILE_BYTES_MAX {
            return Err(form(format!("a case has at most {FILE_BYTES_MAX} bytes, not {bytes}")));
        }
        let text = std::fs::read_to_string(&file).map_err(unreadable(&file))?;
        let title = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let case = Case::parse(&title, &text).map_err(form)?;
        cases.push((file, case));
    }
    Ok(cases)
}

/// Where components are asked: nobody's host, with nothing but what a case brings.
#[derive(Clone)]
pub struct Bench {
    /// Those that decide.
    pub plugins: Arc<dyn Plugins>,
    /// Those that act.
    pub residents: Arc<dyn Residents>,
}

/// What came of a call on the bench.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The answer's fields, or `failure` and `why`.
    pub answer: Value,
    /// What an agent read meanwhile, in order.
    pub reads: Vec<Value>,
}

impl Bench {
    /// Puts a call to a component that is loaded under a name.
    pub async fn ask(&self, plugin: &str, call: &Call) -> Asked {
        match call {
            Call::Decide(question) => {
                let outcome = ask(self.plugins.as_ref(), plugin, Question::clone(question)).await;
                Asked { answer: shown(&outcome), reads: Vec::new() }
            }
            Call::Handle(question) => {
                let memory = Arc::new(CaseMemory { of: HandleQuestion::clone(question), reads: Mutex::default() });
                let event = match question.event.event() {
                    Ok(event) => event,
                    Err(why) => return Asked { answer: json!({"failure": "case", "why": why}), reads: Vec::new() },
                };
                let handled = self.residents.handle(plugin, event, Arc::clone(&memory) as Arc<dyn ResidentMemory>).await;
                let answer = match handled {
                    Ok(Ok(actions)) => json!({"actions": actions.iter().map(action).collect::<Vec<_>>()}),
                    Ok(Err(why)) => shown(&Err(PluginFailure::Refused { plugin: plugin.to_owned(), why })),
                    Err(failure) => shown(&Err(failure)),
                };
                let reads = std::mem::take(&mut *memory.reads.lock());
                Asked { answer, reads }
            }
        }
    }
}

/// Returns an action with its kind among its fields, its bytes as people read them.
fn action(action: &Action) -> Value {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": data_encoding::BASE64.encode(bytes)}),
    };
    match action {
        Action::SendMessage { to, kind, subject, body } => {
            json!({"action": "send-message", "to": to, "kind": kind, "subject": subject, "body": body})
        }
        Action::WriteContext { key, base_version, media_type, bytes } => {
            json!({"action": "write-context", "key": key, "base_version": base_version, "media_type": media_type, "text": text(bytes)})
        }
        Action::CreateTask { title, description, kind, priority, depends_on, paths } => json!({
            "action": "create-task", "title": title, "description": description, "kind": kind, "priority": priority,
            "depends_on": depends_on, "paths": paths,
        }),
        Action::NoteTask { task, note } => json!({"action": "note-task", "task": task, "note": note}),
        Action::Put { key, bytes } => json!({"action": "put", "key": key, "text": text(bytes)}),
        Action::Delete { key } => json!({"action": "delete", "key": key}),
        Action::SetTimer { id, delay_ms } => json!({"action": "set-timer", "id": id, "delay_ms": delay_ms}),
        Action::CancelTimer { id } => json!({"action": "cancel-timer", "id": id}),
        Action::Fetch { id, method, url, headers, body } => {
            json!({"action": "fetch", "id": id, "method": method, "url": url, "headers": headers, "body": text(body)})
        }
        Action::ReplaceOffers(offers) => {
            let offers = serde_json::from_str(offers).unwrap_or_else(|_| json!(offers));
            json!({"action": "replace-offers", "offers": offers})
        }
    }
}

/// What an agent reads in a case.
struct CaseMemory {
    of: HandleQuestion,
    reads: Mutex<Vec<Value>>,
}

impl ResidentMemory for CaseMemory {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let found = self.of.kv.get(key).map(|text| text.clone().into_bytes());
        self.reads.lock().push(json!({"kv": key, "found": found.is_some()}));
        found
    }

    fn keys(&self, prefix: &str, after: &str, limit: u32) -> Vec<String> {
        self.reads.lock().push(json!({"keys": prefix, "after": after}));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.of.kv.keys().filter(|key| key.starts_with(prefix) && key.as_str() > after).take(limit).cloned().collect()
    }
}

impl Lookups for CaseMemory {
    fn read(&self, uri: &str) -> Result<String, LookupRefusal> {
        let found = self.of.lookups.get(uri);
        self.reads.lock().push(json!({"lookup": uri, "found": found.is_some()}));
        found.map(Value::to_string).ok_or(LookupRefusal::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_with_its_defaults() {
        let text = "call = \"route\"\n[input]\nmessage = { kind = \"question\" }\ncandidates = [{ agent = \"ana\", satisfies = true }]\n\
                    [expect]\ndecision = \"ranked\"\nto = [\"ana\"]\n";
        let case = Case::parse("file", text).expect("fits");
        assert_eq!((case.name.as_str(), case.call.name(), case.config_json("{}").as_str()), ("file", "route", "{}"));
        assert_eq!(case.call.input()["candidates"][0]["load"], 0);
    }

    #[test]
    fn wrong_cases_are_refused_by_name() {
        for (text, why) in [
            ("call = \"rout\"\n[expect]\na = 1\n", "there is no call `rout`; there are route"),
            ("call = \"route\"\n", "missing field `expect`"),
            ("call = \"route\"\n[expect]\n", "nothing could fail"),
            ("call = \"route\"\n[input]\nmesage = {}\n[expect]\na = 1\n", "`mesage`"),
            ("call = \"route\"\n[input]\ncandidates = [{ laod = 1 }]\n[expect]\na = 1\n", "`candidates[0].laod`"),
            ("call = \"route\"\n[input]\ncandidates = [{ load = \"x\" }]\n[expect]\na = 1\n", "does not fit"),
            ("call = \"route\"\ninputs = 1\n[expect]\na = 1\n", "inputs"),
            ("call = \"route\"\ngolden = true\n[expect]\nfailure = \"limit\"\n", "a golden call is answered"),
            ("call = \"handle\"\n[expect]\na = 1\n", "exactly one of `message`"),
            ("call = \"handle\"\n[input.event]\ntimer = \"t\"\nlogged = { a = 1 }\n[expect]\na = 1\n", "exactly one of `message`"),
        ] {
            let error = Case::parse("x", text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn what_wakes_an_agent_is_of_any_form() {
        let text = "call = \"handle\"\n[input.event]\nlogged = { type = \"task.created\", data = { x = [1] } }\n\
                    [input.lookups]\n\"pointsman://tasks/T-1\" = { title = \"a\" }\n[expect]\nactions = []\n";
        let case = Case::parse("x", text).expect("fits");
        let Call::Handle(question) = &case.call else { panic!("{case:?}") };
        assert_eq!(question.event.logged["data"]["x"], json!([1]));
        assert_eq!(question.lookups["pointsman://tasks/T-1"], json!({"title": "a"}));
    }
}
