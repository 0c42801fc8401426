//! The plugin port: components asked for decisions.
//!
//! Four outcomes are kept apart, never merged: an answer, a declared refusal, a trap, a limit.
//!
//! **Invariant:** a call costs at most its binding's limits, whatever the component does.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use pointsman_core::event::Provenance;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::decision::shown_bytes;
use super::registry::OnFailure;
use super::resident::Residents;

/// A loaded component of a given content, bound with a given configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRef {
    /// The binding's name, `routing-capability`.
    pub name: String,
    /// BLAKE3 of the component, hex.
    pub digest: String,
}

/// An extension point: what a component is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// Decides who gets a message.
    Router,
    /// Resolves conflicting hunks or files.
    Merger,
    /// Merges edits of a document.
    Reconciler,
    /// Words and order of git work.
    Workflow,
    /// Guards gates.
    Policy,
    /// Acts on events.
    Agent,
    /// Offers tools, resources and prompts to MCP clients.
    McpProvider,
}

impl World {
    /// All worlds.
    pub const ALL: [Self; 7] = [Self::Router, Self::Merger, Self::Reconciler, Self::Workflow, Self::Policy, Self::Agent, Self::McpProvider];

    /// Returns its name, which is that of its WIT package.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Merger => "merger",
            Self::Reconciler => "reconciler",
            Self::Workflow => "workflow",
            Self::Policy => "policy",
            Self::Agent => "agent",
            Self::McpProvider => "mcp-provider",
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for World {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|world| world.name() == text).ok_or_else(|| format!("there is no world {text:?}"))
    }
}

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PluginFailure {
    /// No component of this name is bound to this extension point.
    #[error("no plugin `{0}` is bound here")]
    NotBound(String),
    /// The component said no, by its own error.
    #[error("plugin `{plugin}` refused: {why}")]
    Refused {
        /// Who.
        plugin: String,
        /// Its words.
        why: String,
    },
    /// It trapped.
    #[error("plugin `{plugin}` trapped: {why}")]
    Trapped {
        /// Who.
        plugin: String,
        /// The trap.
        why: String,
    },
    /// It reached a limit: time, memory, tables, result size, concurrency.
    #[error("plugin `{plugin}` reached its limit of {limit}")]
    Limit {
        /// Who.
        plugin: String,
        /// Which.
        limit: &'static str,
    },
    /// It answered something the world does not allow, such as an index beyond the list.
    #[error("plugin `{plugin}` gave an invalid answer: {why}")]
    Invalid {
        /// Who.
        plugin: String,
        /// What was wrong.
        why: String,
    },
    /// It was not asked: it failed too often, or was taken out.
    #[error("plugin `{plugin}` is not asked: {why}")]
    Resting {
        /// Who.
        plugin: String,
        /// Since when and until when, in words.
        why: String,
    },
}

impl PluginFailure {
    /// Returns which kind of failure it is, in a word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotBound(_) => "not-bound",
            Self::Refused { .. } => "refused",
            Self::Trapped { .. } => "trapped",
            Self::Limit { .. } => "limit",
            Self::Invalid { .. } => "invalid",
            Self::Resting { .. } => "resting",
        }
    }
}

/// What a router sees of a message. `wit/router` says what each field means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteMessage {
    /// Kind of message.
    pub kind: String,
    /// Sender's name.
    pub author: String,
    /// What kind of author.
    pub provenance: Provenance,
    /// Sender's principal.
    pub owner: String,
    /// 0 to 9.
    pub priority: u8,
    /// Bytes of the body.
    pub size_bytes: u32,
    /// Deliveries tried so far.
    pub attempt: u32,
    /// Milliseconds since it was sent.
    pub age_ms: u64,
    /// Repository paths.
    pub paths: Vec<String>,
    /// Labels.
    pub tags: Vec<String>,
    /// Capability names asked for.
    pub capabilities: Vec<String>,
}

/// A text interned by the plugin runtime, for facts that stay the same from call to call: an agent's name, its owner, its
/// teams, its capabilities. Interned once when the fact is learnt, so that a call over a thousand candidates hashes nothing.
///
/// Valid as long as the [`Plugins`] it came from; never stored, never compared with another runtime's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(pub u32);

impl Symbol {
    /// The empty text: "none".
    pub const NONE: Self = Self(0);
}

/// What a router sees of one candidate. Cloning it copies no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCandidate {
    /// Name.
    pub agent: Symbol,
    /// Principal.
    pub owner: Symbol,
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
    pub teams: Arc<[Symbol]>,
    /// Capability names.
    pub capabilities: Arc<[Symbol]>,
}

/// What becomes of a message. Numbers are positions among the candidates, checked by the adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "decision", content = "to")]
pub enum RouteDecision {
    /// No opinion.
    Pass,
    /// One after another.
    Ranked(Vec<u32>),
    /// All of these.
    Broadcast(Vec<u32>),
    /// Nobody.
    Drop,
    /// Ask again after so many milliseconds.
    Defer(u32),
}

/// A router's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteVerdict {
    /// What becomes of the message.
    pub decision: RouteDecision,
    /// Why.
    pub reason: String,
}

/// How much of a file a merger sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeScope {
    /// Conflicting hunks.
    Hunks,
    /// Whole files.
    File,
}

/// What a merger says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergerDescription {
    /// How much it sees.
    pub scope: MergeScope,
    /// Globs it is meant for; empty: every text file.
    pub paths: Vec<String>,
}

/// One conflicting place: whole lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MergeHunk {
    /// The merge base's lines.
    #[serde(with = "shown_bytes")]
    pub base: Vec<u8>,
    /// The target's.
    #[serde(with = "shown_bytes")]
    pub ours: Vec<u8>,
    /// The branch's.
    #[serde(with = "shown_bytes")]
    pub theirs: Vec<u8>,
}

/// A change left out on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeDiscard {
    /// True where it is the target's change, else the branch's.
    pub of_ours: bool,
    /// The lines.
    pub text: Vec<u8>,
    /// Why.
    pub reason: String,
}

/// An answer for one hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HunkOutcome {
    /// Merged, with what was left out.
    Resolved(Vec<u8>, Vec<MergeDiscard>),
    /// Left in conflict, with the reason.
    Conflict(String),
    /// Not the merger's.
    Declined,
}

/// An answer for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOutcome {
    /// Merged, with what was left out.
    Resolved(Vec<u8>, Vec<MergeDiscard>),
    /// In conflict, with a reason for each place.
    Conflicts(Vec<String>),
    /// Not the merger's, with the reason.
    Declined(String),
    /// Make it anew by this command; the paths it may write.
    Regenerate(Vec<String>, Vec<String>),
}

/// The three sides of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MergeFile {
    /// Its path.
    pub path: String,
    /// None where both sides added it.
    #[serde(with = "shown_bytes::option")]
    pub base: Option<Vec<u8>>,
    /// The target's.
    #[serde(with = "shown_bytes")]
    pub ours: Vec<u8>,
    /// The branch's.
    #[serde(with = "shown_bytes")]
    pub theirs: Vec<u8>,
    /// What the host's merge gives, conflicts marked.
    #[serde(with = "shown_bytes")]
    pub so_far: Vec<u8>,
}

/// A place where two edits of a document disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentConflict {
    /// JSON pointer or line range.
    pub pointer: String,
    /// Why.
    pub reason: String,
    /// The common version's part.
    pub base: Option<String>,
    /// The stored version's part.
    pub ours: Option<String>,
    /// The writer's part.
    pub theirs: Option<String>,
}

/// A reconciler's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconcileOutcome {
    /// Both edits in one.
    Merged(Vec<u8>),
    /// Nothing is written.
    Conflicts(Vec<DocumentConflict>),
    /// Not the reconciler's, with the reason.
    Declined(String),
}

/// A task, as words need it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowTask {
    /// `T-12`.
    pub id: String,
    /// One line.
    pub title: String,
    /// Markdown.
    pub description: String,
    /// Kind.
    pub kind: String,
    /// Labels.
    pub labels: Vec<String>,
    /// 0 to 9.
    pub priority: u8,
    /// Ids.
    pub depends_on: Vec<String>,
}

/// A changed file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileChange {
    /// Path after the change.
    pub path: String,
    /// Lines added.
    pub added: u32,
    /// Lines removed.
    pub removed: u32,
}

/// A commit of a branch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommitInfo {
    /// Full hash.
    pub id: String,
    /// First line.
    pub subject: String,
    /// `Name <mail>`.
    pub author: String,
}

/// What a commit message is written from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommitFacts {
    /// The task.
    pub task: FlowTask,
    /// The agent's name.
    pub agent: String,
    /// What the agent said.
    pub note: String,
    /// What changed.
    pub files: Vec<FileChange>,
}

/// What a merge message or a pull request is written from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeFacts {
    /// The task.
    pub task: FlowTask,
    /// The agent's name.
    pub agent: String,
    /// The branch.
    pub branch: String,
    /// Where it goes.
    pub target: String,
    /// Oldest first.
    pub commits: Vec<CommitInfo>,
    /// Against the merge base.
    pub files: Vec<FileChange>,
    /// A line each.
    pub checks: Vec<String>,
    /// A line each.
    pub approvals: Vec<String>,
    /// A line each.
    pub resolutions: Vec<String>,
}

/// The text of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestText {
    /// One line.
    pub title: String,
    /// Markdown.
    pub body: String,
}

/// A branch that waits to land.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitingBranch {
    /// `T-12`.
    pub task: String,
    /// 0 to 9.
    pub priority: u8,
    /// Kind of task.
    pub kind: String,
    /// Milliseconds in the queue.
    pub waited_ms: u64,
    /// Files it changes.
    pub files: u32,
    /// Positions that must land before it.
    pub after: Vec<u32>,
    /// Positions that share a path with it.
    pub overlaps: Vec<u32>,
}

/// When a policy is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// Taking a task.
    #[default]
    Claim,
    /// Giving a review.
    Review,
    /// Offering a branch.
    Submit,
    /// Moving the target.
    Land,
    /// Granting a capability.
    Grant,
}

/// Who asks at a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateActor {
    /// Agent's name.
    pub agent: String,
    /// Principal's name.
    pub principal: String,
    /// What kind of author.
    pub provenance: Provenance,
    /// Capabilities as written.
    pub capabilities: Vec<String>,
}

/// A review verdict on the head in question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateApproval {
    /// Who.
    pub by: GateActor,
    /// Approves, or asks for changes.
    pub approves: bool,
    /// Which commit.
    pub head: String,
}

impl Default for GateActor {
    /// An agent without name or capabilities.
    fn default() -> Self {
        Self { agent: String::new(), principal: String::new(), provenance: Provenance::Agent, capabilities: Vec::new() }
    }
}

/// What a policy judges by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateFacts {
    /// Who asks.
    pub actor: GateActor,
    /// Who holds the task.
    pub owner: String,
    /// `T-12` or empty.
    pub task: String,
    /// Kind of task.
    pub kind: String,
    /// Labels.
    pub labels: Vec<String>,
    /// 0 to 9.
    pub priority: u8,
    /// Tasks the actor holds.
    pub held: u32,
    /// Target ref.
    pub target: String,
    /// Commit in question.
    pub head: String,
    /// Changed or leased paths.
    pub paths: Vec<String>,
    /// Added and removed.
    pub lines_changed: u32,
    /// Verdicts on this head.
    pub approvals: Vec<GateApproval>,
    /// Name and whether it passed.
    pub checks: Vec<(String, bool)>,
    /// Asked for at `grant`.
    pub capability: String,
}

/// A policy's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
pub enum GateVerdict {
    /// Go on.
    Allow,
    /// Refused.
    Deny {
        /// Stable name.
        rule: String,
        /// Why.
        why: String,
        /// What helps.
        advice: String,
    },
    /// Not yet.
    Need {
        /// Stable name.
        rule: String,
        /// How many approvals.
        approvals: u32,
        /// By whom: a capability expression, or empty.
        by: String,
        /// Why.
        why: String,
    },
}

/// Whether the operator gives a component what its world leaves to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Grant {
    /// No: a component that asks for it is not loaded.
    #[default]
    Withheld,
    /// Yes.
    Given,
}

/// A component to load.
#[derive(Debug, Clone)]
pub struct PluginSource {
    /// The binding's name.
    pub name: String,
    /// Which extension point.
    pub world: World,
    /// The component's bytes.
    pub component: Arc<[u8]>,
    /// Its configuration, a JSON object as text.
    pub config_json: String,
    /// What it may cost; missing ones have the world's default, or what it needs where that is less.
    pub limits: PluginLimits,
    /// What it needs, as its author says.
    pub needs: PluginLimits,
    /// Whether instances are kept between calls.
    pub instances: Instances,
    /// Whether it may look the project up, in events or in calls.
    pub lookups: Grant,
}

/// What a call may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginLimits {
    /// Memory of one instance, summed over its memories.
    pub memory_bytes_max: Option<usize>,
    /// Running time of one call. Time the thread was not given a processor is left out, up to ten times the deadline.
    pub deadline_ms: Option<u64>,
    /// Bytes of one result.
    pub result_bytes_max: Option<usize>,
    /// Calls at once.
    pub concurrency_max: Option<usize>,
}

/// Whether an instance lives on after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Instances {
    /// A new one for each call.
    Fresh,
    /// Kept, bounded, retired after a number of calls.
    Warm,
}

impl World {
    /// Returns what happens without an answer when the operator did not say: whoever guards refuses, all others are done without.
    #[must_use]
    pub const fn on_failure(self) -> OnFailure {
        match self {
            Self::Policy => OnFailure::Refuse,
            Self::Router | Self::Merger | Self::Reconciler | Self::Workflow | Self::Agent | Self::McpProvider => OnFailure::FallBack,
        }
    }
}

/// Whether the instructions of calls are counted, which makes them slower: for benches of authors, not for hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// They are.
    On,
    /// They are not.
    Off,
}

/// Counters of one binding since its load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PluginStats {
    /// Calls.
    pub calls: u64,
    /// Ended in a trap.
    pub traps: u64,
    /// Ended at a limit.
    pub limits: u64,
    /// Invalid answers.
    pub invalid: u64,
    /// Instances made.
    pub instances: u64,
    /// Instructions of all calls, where they are counted.
    pub instructions: u64,
    /// The most memory an instance had after a call.
    pub memory_bytes_max: u64,
}

/// A stage on which components are loaded and asked without anybody's noticing.
#[derive(Clone)]
pub struct Aside {
    /// Those that decide.
    pub plugins: Arc<dyn Plugins>,
    /// Those that act: the same ones.
    pub residents: Arc<dyn Residents>,
}

/// Components, loaded and asked by their binding's name.
#[async_trait]
pub trait Plugins: Send + Sync {
    /// Loads a component and swaps it in for an earlier one of the same name: verifies that it fits its world and imports
    /// nothing else, compiles it or takes it from the code cache, configures one instance as a probe. The earlier one
    /// stays when anything fails.
    ///
    /// # Errors
    /// [`PluginFailure`], in words for the operator.
    async fn load(&self, source: PluginSource) -> Result<PluginRef, PluginFailure>;

    /// Lets go of a binding; none of that name is fine. Calls that run finish on it.
    fn unload(&self, name: &str);

    /// Returns what is loaded, by binding name.
    fn loaded(&self) -> BTreeMap<String, (World, PluginRef, PluginStats)>;

    /// Returns which component is loaded under a name.
    fn reference(&self, plugin: &str) -> Option<PluginRef>;

    /// Returns the number of the load by which a name stands: another one, never used before, after each load; none when nothing
    /// stands under it.
    fn load_number(&self, plugin: &str) -> Option<u64>;

    /// Returns an empty stage with the same engines and code cache, to try a component before it is loaded here.
    fn aside(&self) -> Aside;

    /// Returns whether a plugin is not asked now, because it failed too often.
    fn rests(&self, plugin: &str) -> bool {
        let _ = plugin;
        false
    }

    /// Returns what the operator wants done when a plugin gives no answer.
    fn on_failure(&self, plugin: &str) -> OnFailure {
        let _ = plugin;
        OnFailure::FallBack
    }

    /// Returns the symbol of a text, the same for equal texts; [`Symbol::NONE`] for the empty text, one over 256 bytes, or
    /// any new one once the bounded table is full. Meant for the facts of candidates, not for those of messages, which
    /// come and go: those are passed as text.
    fn symbol(&self, text: &str) -> Symbol;

    /// Returns the text behind a symbol; the empty text for one that was never given out.
    fn symbol_text(&self, symbol: Symbol) -> Arc<str>;

    /// Asks a router. Runs on the calling thread: its deadline is two milliseconds unless configured.
    ///
    /// # Errors
    /// [`PluginFailure`].
    fn route(&self, plugin: &str, message: &RouteMessage, candidates: &[RouteCandidate]) -> Result<RouteVerdict, PluginFailure>;

    /// Returns what a merger said of itself when it was loaded.
    ///
    /// # Errors
    /// `NotBound`.
    fn merger(&self, plugin: &str) -> Result<MergerDescription, PluginFailure>;

    /// Asks a merger for hunks; one answer each.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn merge_hunks(&self, plugin: &str, path: &str, hunks: Vec<MergeHunk>) -> Result<Vec<HunkOutcome>, PluginFailure>;

    /// Asks a merger for a file.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn merge_file(&self, plugin: &str, file: MergeFile) -> Result<FileOutcome, PluginFailure>;

    /// Asks a reconciler.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn reconcile(
        &self,
        plugin: &str,
        media_type: &str,
        base: Vec<u8>,
        ours: Vec<u8>,
        theirs: Vec<u8>,
    ) -> Result<ReconcileOutcome, PluginFailure>;

    /// Asks for a branch name.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn branch_name(&self, plugin: &str, task: FlowTask, attempt: u32) -> Result<String, PluginFailure>;

    /// Asks for a commit message.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn commit_message(&self, plugin: &str, facts: CommitFacts) -> Result<String, PluginFailure>;

    /// Asks for the message of a landing.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn merge_message(&self, plugin: &str, facts: ChangeFacts) -> Result<String, PluginFailure>;

    /// Asks for a pull request's text.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn pull_request(&self, plugin: &str, facts: ChangeFacts) -> Result<PullRequestText, PluginFailure>;

    /// Asks for the queue's order: a permutation of the positions, checked by the adapter.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn merge_order(&self, plugin: &str, queue: Vec<WaitingBranch>) -> Result<Vec<u32>, PluginFailure>;

    /// Asks a policy.
    ///
    /// # Errors
    /// [`PluginFailure`].
    async fn check(&self, plugin: &str, gate: Gate, facts: GateFacts) -> Result<GateVerdict, PluginFailure>;
}
