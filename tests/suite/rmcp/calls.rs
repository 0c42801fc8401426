//! The questions: a good call of a revision, and what departs from it.
//!
//! **Invariant:** the corpus is fixed: the same calls in the same order in every run.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::departures::{DEPARTURES, Departure};

/// Stands where a session's id will stand.
pub(crate) const SESSION: &str = "(the session)";
/// Calls with several departures.
const MIXED: u32 = 300;
/// Good calls with members of any kind.
const PLAIN: u32 = 120;

/// The revisions that both servers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Stateless.
    V2026_07_28,
    /// Sessions.
    V2025_11_25,
    /// Sessions.
    V2025_06_18,
    /// Sessions, with batches.
    V2025_03_26,
}

impl Version {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26];

    /// Returns the revision's name.
    pub(crate) fn date(self) -> &'static str {
        match self {
            Self::V2026_07_28 => "2026-07-28",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_03_26 => "2025-03-26",
        }
    }

    /// Returns whether each request stands alone.
    pub(crate) fn is_modern(self) -> bool {
        self == Self::V2026_07_28
    }
}

/// A good call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// `server/discover`, `initialize`.
    Greet,
    /// `tools/list`.
    List,
    /// `tools/call` of the tool both have.
    Call,
    /// `ping`, which the modern era has not.
    Ping,
    /// A notification.
    Tell,
}

impl Base {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Greet, Self::List, Self::Call, Self::Ping, Self::Tell];
}

/// A request as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    /// HTTP method.
    pub(crate) verb: &'static str,
    /// Header fields, besides host, length and credential.
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    /// The body, unless `raw` is sent.
    pub(crate) message: Value,
    /// The body.
    pub(crate) raw: Option<Vec<u8>>,
}

impl Wire {
    /// Returns a good call.
    pub(crate) fn new(version: Version, base: Base) -> Self {
        let is_modern = version.is_modern();
        let (method, params) = match base {
            Base::Greet if is_modern => ("server/discover", json!({})),
            Base::Greet => return Self::initialize(version),
            Base::List => ("tools/list", json!({})),
            Base::Call => ("tools/call", json!({"name": "lookup", "arguments": {"uri": "agents"}})),
            Base::Ping => ("ping", json!({})),
            Base::Tell => ("notifications/progress", json!({"progressToken": 7, "progress": 1})),
        };
        let mut wire = Self::of(version, json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        if base == Base::Tell {
            wire.message.as_object_mut().expect("an object").remove("id");
        }
        if is_modern {
            wire.message["params"]["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": version.date(),
                "io.modelcontextprotocol/clientInfo": {"name": "asker", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            });
            wire.set("mcp-method", method);
            if base == Base::Call {
                wire.set("mcp-name", "lookup");
            }
        } else {
            wire.set("mcp-session-id", SESSION);
        }
        wire
    }

    /// Returns what opens a session.
    pub(crate) fn initialize(version: Version) -> Self {
        let params = json!({"protocolVersion": version.date(), "capabilities": {}, "clientInfo": {"name": "asker", "version": "1"}});
        let mut wire = Self::of(version, json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}));
        wire.remove("mcp-protocol-version");
        wire
    }

    /// Returns what a session begins with.
    pub(crate) fn initialized(version: Version) -> Self {
        let mut wire = Self::of(version, json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        wire.set("mcp-session-id", SESSION);
        wire
    }

    fn of(version: Version, message: Value) -> Self {
        let mut wire = Self { verb: "POST", headers: Vec::new(), message, raw: None };
        wire.set("content-type", "application/json");
        wire.set("accept", "application/json, text/event-stream");
        wire.set("host", "127.0.0.1");
        // The first revision had no such header.
        if version != Version::V2025_03_26 {
            wire.set("mcp-protocol-version", version.date());
        }
        wire
    }

    /// Sets a header field, in place of what it was.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.remove(name);
        self.add(name, value);
    }

    /// Adds a header field, beside what is there.
    pub(crate) fn add(&mut self, name: &'static str, value: &str) {
        self.headers.push((name, value.as_bytes().to_vec()));
    }

    /// Removes a header field.
    pub(crate) fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| *known != name);
    }

    /// Returns the body.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match (&self.raw, self.verb) {
            (Some(raw), _) => raw.clone(),
            (None, "POST" | "PUT") => self.message.to_string().into_bytes(),
            (None, _) => Vec::new(),
        }
    }
}

/// A question to both servers.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// In which revision.
    pub(crate) version: Version,
    /// What it would be without the departures.
    pub(crate) base: Base,
    /// What is unusual about it.
    pub(crate) departures: Vec<&'static Departure>,
    /// Members that no revision knows, and an id.
    pub(crate) more: Option<(Value, Value)>,
}

impl Call {
    /// Returns the request.
    pub(crate) fn wire(&self) -> Wire {
        let mut wire = Wire::new(self.version, self.base);
        if let Some((id, member)) = &self.more {
            if wire.message.get("id").is_some() {
                wire.message["id"] = id.clone();
            }
            wire.message["params"]["x-unknown"] = member.clone();
        }
        for departure in &self.departures {
            (departure.depart)(&mut wire);
        }
        wire
    }

    /// Returns whether another call has the departures of this one, among others.
    pub(crate) fn is_part_of(&self, other: &Self) -> bool {
        let has = |departure: &&'static Departure| other.departures.iter().any(|known| known.name == departure.name);
        self.version == other.version && self.base == other.base && self.departures.iter().all(has)
    }

    /// Returns what is asked, to be read.
    pub(crate) fn shown(&self) -> String {
        let departures: Vec<_> = self.departures.iter().map(|departure| departure.name).collect();
        format!("{} {:?}: {}", self.version.date(), self.base, departures.join(" + "))
    }
}

/// Returns each departure by itself, in each call it can be one of.
pub(crate) fn single() -> Vec<Call> {
    let mut calls = Vec::new();
    for version in Version::ALL {
        for base in Base::ALL {
            calls.push(Call { version, base, departures: Vec::new(), more: None });
            // The modern era has no `ping`: that is a departure already.
            let is_one = version.is_modern() && base == Base::Ping;
            let fitting = DEPARTURES.iter().filter(|departure| !is_one && departure.fits(version, base));
            calls.extend(fitting.map(|departure| Call { version, base, departures: vec![departure], more: None }));
        }
    }
    calls
}

/// Returns calls with several departures.
pub(crate) fn mixed() -> Vec<Call> {
    let all: Vec<&'static Departure> = DEPARTURES.iter().collect();
    let several = (select(Version::ALL.to_vec()), select(Base::ALL.to_vec()), subsequence(all, 12));
    let calls = several.prop_map(|(version, base, drawn)| {
        let mut departures: Vec<&'static Departure> = Vec::new();
        for departure in drawn {
            let is_new = departures.iter().all(|known| known.part != departure.part);
            if is_new && departures.len() < 3 && departure.fits(version, base) {
                departures.push(departure);
            }
        }
        Call { version, base, departures, more: None }
    });
    drawn(&calls, MIXED)
}

/// Returns good calls with ids of any kind and members that nobody knows.
pub(crate) fn plain() -> Vec<Call> {
    let id = prop_oneof![any::<i32>().prop_map(Value::from), "\\PC{1,40}".prop_map(Value::from)];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from)
    ];
    let member = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("\\PC{0,8}", inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    });
    let calls = (select(Version::ALL.to_vec()), select(Base::ALL.to_vec()), id, member);
    let calls = calls.prop_map(|(version, base, id, member)| Call { version, base, departures: Vec::new(), more: Some((id, member)) });
    drawn(&calls, PLAIN)
}

/// Draws from a strategy, the same in every run.
fn drawn(calls: &impl Strategy<Value = Call>, count: u32) -> Vec<Call> {
    let config = Config { cases: count, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    (0..count).map(|_| calls.new_tree(&mut runner).expect("a call").current()).collect()
}
