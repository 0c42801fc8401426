//! Questions to components and their answers, as values: recorded, replayed, written down as test cases, compared.
//!
//! The five worlds that only decide (router, merger, reconciler, workflow, policy) are asked through [`ask`], which says
//! the same as the typed methods of [`Plugins`] do. The JSON of a question is what a case file and the REST API show.
//!
//! **Invariant:** a question holds everything its component is told, so that asking again a fresh instance with the same
//! configuration gives the same answer.

use std::sync::Arc;

use pointsman_core::event::Provenance;
use pointsman_core::time::TimeMs;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::plugins::{
    ChangeFacts, CommitFacts, FileOutcome, FlowTask, Gate, GateFacts, GateVerdict, HunkOutcome, MergeDiscard, MergeFile, MergeHunk,
    PluginFailure, Plugins, PullRequestText, ReconcileOutcome, RouteCandidate, RouteDecision, RouteMessage, RouteVerdict, WaitingBranch,
    World,
};

/// One question to a component that only decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", content = "input", rename_all = "kebab-case")]
pub enum Question {
    /// Who gets a message?
    Route(RouteQuestion),
    /// What becomes of these conflicting hunks?
    MergeHunks(HunksQuestion),
    /// What becomes of this file?
    MergeFile(MergeFile),
    /// What becomes of these two edits?
    Reconcile(ReconcileQuestion),
    /// What is the branch called?
    BranchName(BranchQuestion),
    /// What does the commit say?
    CommitMessage(CommitFacts),
    /// What does the landing say?
    MergeMessage(ChangeFacts),
    /// What does the pull request say?
    PullRequest(ChangeFacts),
    /// In which order do they land?
    MergeOrder(OrderQuestion),
    /// May it pass?
    Check(CheckQuestion),
}

/// `route`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteQuestion {
    /// The message.
    pub message: RouteMessage,
    /// Who could get it.
    pub candidates: Vec<NamedCandidate>,
}

/// A [`RouteCandidate`] with its texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamedCandidate {
    /// Name.
    pub agent: String,
    /// Principal.
    pub owner: String,
    /// Whether it satisfies the address.
    pub satisfies: bool,
    /// Deliveries waiting or leased.
    pub load: u32,
    /// Reviews asked for.
    pub open_reviews: u32,
    /// Milliseconds since its last call.
    pub idle_ms: u64,
    /// Deliveries acknowledged.
    pub acked: u32,
    /// Deliveries given back.
    pub nacked: u32,
    /// Whether it gave this message back before.
    pub refused: bool,
    /// Teams.
    pub teams: Vec<String>,
    /// Capability names.
    pub capabilities: Vec<String>,
}

impl NamedCandidate {
    /// Returns a candidate with its texts looked up.
    #[must_use]
    pub fn of(candidate: &RouteCandidate, plugins: &dyn Plugins) -> Self {
        let text = |symbol| plugins.symbol_text(symbol).to_string();
        Self {
            agent: text(candidate.agent),
            owner: text(candidate.owner),
            satisfies: candidate.satisfies,
            load: candidate.load,
            open_reviews: candidate.open_reviews,
            idle_ms: candidate.idle_ms,
            acked: candidate.acked,
            nacked: candidate.nacked,
            refused: candidate.refused,
            teams: candidate.teams.iter().copied().map(text).collect(),
            capabilities: candidate.capabilities.iter().copied().map(text).collect(),
        }
    }

    fn interned(&self, plugins: &dyn Plugins) -> RouteCandidate {
        let symbols = |texts: &[String]| texts.iter().map(|text| plugins.symbol(text)).collect::<Arc<[_]>>();
        RouteCandidate {
            agent: plugins.symbol(&self.agent),
            owner: plugins.symbol(&self.owner),
            satisfies: self.satisfies,
            load: self.load,
            open_reviews: self.open_reviews,
            idle_ms: self.idle_ms,
            acked: self.acked,
            nacked: self.nacked,
            refused: self.refused,
            teams: symbols(&self.teams),
            capabilities: symbols(&self.capabilities),
        }
    }
}

/// `merge-hunks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HunksQuestion {
    /// The file's path.
    pub path: String,
    /// Its conflicting places.
    pub hunks: Vec<MergeHunk>,
}

/// `reconcile`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReconcileQuestion {
    /// Of the document.
    pub media_type: String,
    /// The common version.
    #[serde(with = "shown_bytes")]
    pub base: Vec<u8>,
    /// The stored version.
    #[serde(with = "shown_bytes")]
    pub ours: Vec<u8>,
    /// The writer's.
    #[serde(with = "shown_bytes")]
    pub theirs: Vec<u8>,
}

/// `branch-name`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BranchQuestion {
    /// The task.
    pub task: FlowTask,
    /// Names tried before that were taken.
    pub attempt: u32,
}

/// `merge-order`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderQuestion {
    /// What waits.
    pub queue: Vec<WaitingBranch>,
}

/// `check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckQuestion {
    /// Where.
    pub gate: Gate,
    /// What is known.
    pub facts: GateFacts,
}

impl Question {
    /// The names of all calls, as case files write them.
    pub const CALLS: [&str; 10] = [
        "route",
        "merge-hunks",
        "merge-file",
        "reconcile",
        "branch-name",
        "commit-message",
        "merge-message",
        "pull-request",
        "merge-order",
        "check",
    ];

    /// Returns the call's name.
    #[must_use]
    pub const fn call(&self) -> &'static str {
        match self {
            Self::Route(_) => "route",
            Self::MergeHunks(_) => "merge-hunks",
            Self::MergeFile(_) => "merge-file",
            Self::Reconcile(_) => "reconcile",
            Self::BranchName(_) => "branch-name",
            Self::CommitMessage(_) => "commit-message",
            Self::MergeMessage(_) => "merge-message",
            Self::PullRequest(_) => "pull-request",
            Self::MergeOrder(_) => "merge-order",
            Self::Check(_) => "check",
        }
    }

    /// Returns the world it is put to.
    #[must_use]
    pub const fn world(&self) -> World {
        match self {
            Self::Route(_) => World::Router,
            Self::MergeHunks(_) | Self::MergeFile(_) => World::Merger,
            Self::Reconcile(_) => World::Reconciler,
            Self::BranchName(_) | Self::CommitMessage(_) | Self::MergeMessage(_) | Self::PullRequest(_) | Self::MergeOrder(_) => {
                World::Workflow
            }
            Self::Check(_) => World::Policy,
        }
    }
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To `route`.
    Route(RouteVerdict),
    /// To `merge-hunks`.
    Hunks(Vec<HunkOutcome>),
    /// To `merge-file`.
    File(FileOutcome),
    /// To `reconcile`.
    Document(ReconcileOutcome),
    /// To the calls that ask for a text.
    Text(String),
    /// To `pull-request`.
    PullRequest(PullRequestText),
    /// To `merge-order`.
    Order(Vec<u32>),
    /// To `check`.
    Verdict(GateVerdict),
}

/// An answer, or why there is none.
pub type Outcome = Result<Answer, PluginFailure>;

/// Puts a question to a component.
///
/// # Errors
/// [`PluginFailure`].
pub async fn ask(plugins: &dyn Plugins, plugin: &str, question: Question) -> Outcome {
    match question {
        Question::Route(asked) => {
            let candidates: Vec<RouteCandidate> = asked.candidates.iter().map(|one| one.interned(plugins)).collect();
            plugins.route(plugin, &asked.message, &candidates).map(Answer::Route)
        }
        Question::MergeHunks(asked) => plugins.merge_hunks(plugin, &asked.path, asked.hunks).await.map(Answer::Hunks),
        Question::MergeFile(file) => plugins.merge_file(plugin, file).await.map(Answer::File),
        Question::Reconcile(asked) => {
            let answer = plugins.reconcile(plugin, &asked.media_type, asked.base, asked.ours, asked.theirs).await;
            answer.map(Answer::Document)
        }
        Question::BranchName(asked) => plugins.branch_name(plugin, asked.task, asked.attempt).await.map(Answer::Text),
        Question::CommitMessage(facts) => plugins.commit_message(plugin, facts).await.map(Answer::Text),
        Question::MergeMessage(facts) => plugins.merge_message(plugin, facts).await.map(Answer::Text),
        Question::PullRequest(facts) => plugins.pull_request(plugin, facts).await.map(Answer::PullRequest),
        Question::MergeOrder(asked) => plugins.merge_order(plugin, asked.queue).await.map(Answer::Order),
        Question::Check(asked) => plugins.check(plugin, asked.gate, asked.facts).await.map(Answer::Verdict),
    }
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// When it was recorded.
    pub at: TimeMs,
    /// The binding.
    pub plugin: String,
    /// BLAKE3 of the component, hex.
    pub digest: String,
    /// The question, as a case file writes it.
    pub question: Value,
    /// The answer, or the failure.
    pub outcome: Value,
    /// Microseconds the call took.
    pub took_us: u64,
    /// The id of the act on whose behalf it was asked, which events and log lines carry; none where nobody's call caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl Recorded {
    /// Returns a record; its time is set when it is written.
    #[must_use]
    pub fn new(plugin: &str, digest: String, question: &Value, outcome: &Value, took_us: u64) -> Self {
        let (plugin, question, outcome) = (plugin.to_owned(), question.clone(), outcome.clone());
        Self { at: TimeMs(0), plugin, digest, question, outcome, took_us, trace: None }
    }

    /// Names the act on whose behalf it was asked.
    #[must_use]
    pub fn on_behalf(self, trace: Option<&str>) -> Self {
        Self { trace: trace.map(str::to_owned), ..self }
    }
}

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionPage {
    /// Oldest first.
    pub decisions: Vec<Recorded>,
    /// Pass it as `after` for more; none: these were the last.
    pub next: Option<String>,
}

/// Returns an outcome as the JSON object that cases expect and replays compare: the answer's fields, or `failure` and `why`.
#[must_use]
pub fn shown(outcome: &Outcome) -> Value {
    match outcome {
        Ok(answer) => answer.shown(),
        Err(failure) => {
            let why = match failure {
                PluginFailure::NotBound(_) => "no component of this name is loaded",
                PluginFailure::Refused { why, .. }
                | PluginFailure::Trapped { why, .. }
                | PluginFailure::Invalid { why, .. }
                | PluginFailure::Resting { why, .. } => why,
                PluginFailure::Limit { limit, .. } => limit,
            };
            json!({"failure": failure.word(), "why": why})
        }
    }
}

impl Answer {
    /// Returns the answer as a JSON object.
    #[must_use]
    pub fn shown(&self) -> Value {
        match self {
            Self::Route(verdict) => {
                let (decision, detail) = match &verdict.decision {
                    RouteDecision::Pass => ("pass", None),
                    RouteDecision::Ranked(to) => ("ranked", Some(("to", json!(to)))),
                    RouteDecision::Broadcast(to) => ("broadcast", Some(("to", json!(to)))),
                    RouteDecision::Drop => ("drop", None),
                    RouteDecision::Defer(delay_ms) => ("defer", Some(("delay_ms", json!(delay_ms)))),
                };
                let mut object = Map::from_iter([("decision".to_owned(), decision.into()), ("reason".to_owned(), json!(verdict.reason))]);
                object.extend(detail.map(|(name, value)| (name.to_owned(), value)));
                Value::Object(object)
            }
            Self::Hunks(outcomes) => json!({"hunks": outcomes.iter().map(hunk).collect::<Vec<_>>()}),
            Self::File(outcome) => match outcome {
                FileOutcome::Resolved(bytes, discards) => resolved(bytes, discards),
                FileOutcome::Conflicts(reasons) => json!({"outcome": "conflicts", "reasons": reasons}),
                FileOutcome::Declined(why) => json!({"outcome": "declined", "why": why}),
                FileOutcome::Regenerate(command, paths) => json!({"outcome": "regenerate", "command": command, "paths": paths}),
            },
            Self::Document(outcome) => match outcome {
                ReconcileOutcome::Merged(bytes) => json!({"outcome": "merged", "text": bytes_json(bytes)}),
                ReconcileOutcome::Conflicts(conflicts) => json!({"outcome": "conflicts", "conflicts": conflicts}),
                ReconcileOutcome::Declined(why) => json!({"outcome": "declined", "why": why}),
            },
            Self::Text(text) => json!({"text": text}),
            Self::PullRequest(text) => json!(text),
            Self::Order(order) => json!({"order": order}),
            Self::Verdict(verdict) => json!(verdict),
        }
    }
}

fn hunk(outcome: &HunkOutcome) -> Value {
    match outcome {
        HunkOutcome::Resolved(bytes, discards) => resolved(bytes, discards),
        HunkOutcome::Conflict(why) => json!({"outcome": "conflict", "why": why}),
        HunkOutcome::Declined => json!({"outcome": "declined"}),
    }
}

fn resolved(bytes: &[u8], discards: &[MergeDiscard]) -> Value {
    let discard = |one: &MergeDiscard| {
        let of = if one.of_ours { "ours" } else { "theirs" };
        json!({"of": of, "text": bytes_json(&one.text), "reason": one.reason})
    };
    json!({"outcome": "resolved", "text": bytes_json(bytes), "discards": discards.iter().map(discard).collect::<Vec<_>>()})
}

fn bytes_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": data_encoding::BASE64.encode(bytes)}),
    }
}

/// Bytes in a form that people read: a text where they are UTF-8, else an object with their base64.
pub mod shown_bytes {
    use data_encoding::BASE64;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Both forms.
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Shown {
        Text(String),
        Encoded { base64: String },
    }

    impl Shown {
        fn of(bytes: &[u8]) -> Self {
            match std::str::from_utf8(bytes) {
                Ok(text) => Self::Text(text.to_owned()),
                Err(_) => Self::Encoded { base64: BASE64.encode(bytes) },
            }
        }

        fn bytes<E: serde::de::Error>(self) -> Result<Vec<u8>, E> {
            match self {
                Self::Text(text) => Ok(text.into_bytes()),
                Self::Encoded { base64 } => BASE64.decode(base64.as_bytes()).map_err(|error| E::custom(format!("base64: {error}"))),
            }
        }
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Shown::of(bytes).serialize(serializer)
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// Neither form.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let shown = Shown::deserialize(deserializer)
            .map_err(|_| D::Error::custom("expected a text, or an object with `base64` for bytes that are no text"))?;
        shown.bytes()
    }

    /// The same for bytes that may be missing.
    pub mod option {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        use super::Shown;

        /// Writes bytes, if there are any.
        ///
        /// # Errors
        /// The serializer's.
        pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
            bytes.as_deref().map(Shown::of).serialize(serializer)
        }

        /// Reads bytes, if there are any.
        ///
        /// # Errors
        /// Neither form.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
            Option::<Shown>::deserialize(deserializer)?.map(Shown::bytes).transpose()
        }
    }
}

impl Default for RouteMessage {
    /// An agent's message of normal priority, with nothing said about it.
    fn default() -> Self {
        Self {
            kind: String::new(),
            author: String::new(),
            provenance: Provenance::Agent,
            owner: String::new(),
            priority: 4,
            size_bytes: 0,
            attempt: 0,
            age_ms: 0,
            paths: Vec::new(),
            tags: Vec::new(),
            capabilities: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_back_from_json_and_missing_fields_have_defaults() {
        let written =
            json!({"call": "route", "input": {"message": {"kind": "question"}, "candidates": [{"agent": "ana", "satisfies": true}]}});
        let question: Question = serde_json::from_value(written).expect("fits");
        let Question::Route(asked) = &question else { panic!("{question:?}") };
        assert_eq!((asked.message.priority, asked.candidates[0].agent.as_str()), (4, "ana"));
        assert_eq!((question.call(), question.world()), ("route", World::Router));
        let again: Question = serde_json::from_value(json!(question)).expect("reads what it writes");
        assert_eq!(again, question);
        for call in Question::CALLS {
            let question: Question = serde_json::from_value(json!({"call": call, "input": {}})).expect(call);
            assert_eq!(question.call(), call);
            assert_eq!(json!(question)["call"], call);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let question =
            Question::Reconcile(ReconcileQuestion { base: vec![0xff, 0], ours: b"a\n".to_vec(), ..ReconcileQuestion::default() });
        let shown = json!(question);
        assert_eq!(shown["input"]["base"], json!({"base64": "/wA="}));
        assert_eq!(shown["input"]["ours"], "a\n");
        assert_eq!(serde_json::from_value::<Question>(shown).expect("fits"), question);
        let bad = json!({"call": "reconcile", "input": {"base": 3}});
        assert!(serde_json::from_value::<Question>(bad).expect_err("a number").to_string().contains("`base64`"));
    }

    #[test]
    fn answers_and_failures_are_shown_flat() {
        let verdict = RouteVerdict { decision: RouteDecision::Ranked(vec![1, 0]), reason: "why".to_owned() };
        assert_eq!(Answer::Route(verdict).shown(), json!({"decision": "ranked", "to": [1, 0], "reason": "why"}));
        let denied = GateVerdict::Deny { rule: "r".to_owned(), why: "w".to_owned(), advice: "a".to_owned() };
        assert_eq!(Answer::Verdict(denied).shown(), json!({"verdict": "deny", "rule": "r", "why": "w", "advice": "a"}));
        let limit = PluginFailure::Limit { plugin: "p".to_owned(), limit: "time" };
        assert_eq!(shown(&Err(limit)), json!({"failure": "limit", "why": "time"}));
    }
}
