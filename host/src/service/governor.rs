//! What stands between the extension points and the components: who may be asked now, and what is learnt from each call.
//!
//! It is itself a [`Plugins`], so nobody above it knows whether it is there. For each binding it keeps a breaker, counts
//! outcomes and times, lets candidates that shadow a live binding hear a share of its questions, repeats a few warm calls
//! on fresh instances, and hands decisions to be recorded.
//!
//! **Invariants:** what it adds to a call on its way is bounded and waits for nobody: whatever takes longer is put into a
//! bounded queue, and what finds no room there is counted and left out. A shadow's answer has no effect.

mod guests;
mod post;
mod watcher;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use pointsman_core::breaker::{Change, Held, Tolerance};
use tokio::sync::mpsc;
use tracing::Instrument;

pub use self::guests::{GovernedProviders, GovernedResidents};
use self::post::Post;
pub use self::watcher::Watcher;
use self::watcher::{Seen, Subject};
use super::meters::seconds;
use super::settings::{Bindings, Rule};
use super::{spans, trace};
use crate::ports::clock::System;
use crate::ports::decision::{Answer, BranchQuestion, CheckQuestion, HunksQuestion, OrderQuestion, Question, ReconcileQuestion};
use crate::ports::health::{BreakerView, Counts, Difference, Health, LATENCY_BOUNDS_US};
use crate::ports::metrics::{Family, Measured, Sample, Value};
use crate::ports::plugins::{
    Aside, ChangeFacts, CommitFacts, FileOutcome, FlowTask, Gate, GateFacts, GateVerdict, HunkOutcome, MergeFile, MergeHunk,
    MergerDescription, PluginFailure, PluginRef, PluginSource, PluginStats, Plugins, PullRequestText, ReconcileOutcome, RouteCandidate,
    RouteMessage, RouteVerdict, Symbol, WaitingBranch, World,
};
use crate::ports::registry::{Mode, OnFailure};

/// Calls that wait to be looked at.
const SEEN_MAX: usize = 1_024;
/// Quarantines that wait to be recorded.
const STUCK_MAX: usize = 64;
/// Bytes of a question beyond which nobody but the live component sees it.
const WATCHED_BYTES_MAX: usize = 256 << 10;
/// How the names of the bindings end under which fresh instances are asked again.
const FRESH_SUFFIX: &str = "#fresh";

/// Whether decisions are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recording {
    /// All that fit are.
    On,
    /// None is.
    Off,
}

/// All bindings.
#[derive(Debug, Default)]
struct Posts {
    by_name: BTreeMap<String, Arc<Post>>,
    /// Whoever shadows a binding, by its name.
    shadows: BTreeMap<String, Vec<Arc<Post>>>,
}

impl Posts {
    fn with(&self, name: &str, post: Option<Arc<Post>>) -> Self {
        let mut by_name = self.by_name.clone();
        match post {
            Some(post) => by_name.insert(name.to_owned(), post),
            None => by_name.remove(name),
        };
        let mut shadows: BTreeMap<String, Vec<Arc<Post>>> = BTreeMap::new();
        for post in by_name.values() {
            let rule = post.rule.load();
            if let (Mode::Shadow, Some(of)) = (rule.mode, &rule.shadow_of) {
                shadows.entry(of.clone()).or_default().push(Arc::clone(post));
            }
        }
        Self { by_name, shadows }
    }
}

/// The plugins, governed.
pub struct Governor {
    inner: Arc<dyn Plugins>,
    system: Arc<dyn System>,
    since: Instant,
    posts: ArcSwap<Posts>,
    /// Held while the table is changed, so that no change is lost.
    changing: Mutex<()>,
    recording: Recording,
    seen: mpsc::Sender<Seen>,
    /// Who failed after every rest, and why.
    stuck: mpsc::Sender<GivenUp>,
    tolerance: Tolerance,
}

/// A plugin that fails after every rest, and how it failed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Which.
    pub plugin: String,
    /// Why.
    pub why: String,
}

impl Governor {
    /// Returns a governor; the one who looks at what it saw, who must run for shadows and records to come about; and who is given
    /// up, as it comes to pass: whoever listens puts it on record.
    #[must_use]
    pub fn new(
        inner: Arc<dyn Plugins>,
        system: Arc<dyn System>,
        recording: Recording,
        tolerance: Tolerance,
    ) -> (Arc<Self>, Watcher, mpsc::Receiver<GivenUp>) {
        let (seen, queue) = mpsc::channel(SEEN_MAX);
        let (stuck, given_up) = mpsc::channel(STUCK_MAX);
        let since = system.instant();
        let (posts, changing) = (ArcSwap::default(), Mutex::new(()));
        let governor = Arc::new(Self { inner, system, since, posts, changing, recording, seen, stuck, tolerance });
        let watcher = Watcher::new(Arc::clone(&governor), queue);
        (governor, watcher, given_up)
    }

    /// Sets by which rule a binding is asked; of one that is not loaded yet, too.
    pub fn set_rule(&self, plugin: &str, world: World, rule: Rule) {
        let _changing = self.changing.lock();
        let posts = self.posts.load();
        let post = posts.by_name.get(plugin).map_or_else(|| Arc::new(Post::new(plugin, world, self.tolerance)), Arc::clone);
        post.rule.store(Arc::new(rule));
        self.posts.store(Arc::new(posts.with(plugin, Some(post))));
    }

    /// Takes over what the operator wants now of everything that is loaded.
    pub fn follow(&self, bindings: &Bindings) {
        for (name, (world, _, _)) in self.loaded() {
            self.set_rule(&name, world, bindings.rule(&name));
        }
    }

    /// Forgets a binding; the component stays loaded.
    pub fn forget(&self, plugin: &str) {
        let _changing = self.changing.lock();
        let posts = self.posts.load();
        self.posts.store(Arc::new(posts.with(plugin, None)));
    }

    /// Returns how each binding fares.
    #[must_use]
    pub fn health(&self) -> BTreeMap<String, Health> {
        let now_ms = self.now_ms();
        self.posts.load().by_name.iter().map(|(name, post)| (name.clone(), post.health(now_ms))).collect()
    }

    /// Returns the last differences between a shadow and whom it shadows, the newest first.
    #[must_use]
    pub fn differences(&self, plugin: &str) -> Vec<Difference> {
        self.posts.load().by_name.get(plugin).map(|post| post.differences()).unwrap_or_default()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.system.instant().duration_since(self.since).as_millis()).unwrap_or(u64::MAX)
    }

    fn post(&self, plugin: &str) -> Option<Arc<Post>> {
        self.posts.load().by_name.get(plugin).map(Arc::clone)
    }

    /// Returns whether a question is to be kept for the watcher. A large one is not.
    fn is_watched(&self, plugin: &str, bytes: usize) -> bool {
        if bytes > WATCHED_BYTES_MAX {
            return false;
        }
        let posts = self.posts.load();
        self.recording == Recording::On
            || posts.shadows.contains_key(plugin)
            || posts.by_name.get(plugin).is_some_and(|post| post.is_next_fresh())
    }

    /// Lets a call through, if its binding may be asked now. Where it is given up before it ends, that says nothing.
    fn enter<'a>(&'a self, post: &'a Arc<Post>) -> Result<Entered<'a>, PluginFailure> {
        let begun = self.admit(post)?;
        Ok(Entered { governor: self, post, begun, is_settled: false })
    }

    fn admit(&self, post: &Post) -> Result<Instant, PluginFailure> {
        let resting = |why: String| PluginFailure::Resting { plugin: post.name.clone(), why };
        if post.rule.load().mode == Mode::Off {
            return Err(resting("it is switched off".to_owned()));
        }
        let now = self.system.instant();
        let now_ms = u64::try_from(now.duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        match post.breaker.lock().admit(now_ms) {
            Ok(()) => Ok(now),
            Err(held) => {
                post.count_rested();
                let why = post.why().unwrap_or_else(|| "it failed too often".to_owned());
                Err(resting(match held {
                    Held::For(left_ms) => format!("{why}; it is tried again in {left_ms} ms"),
                    Held::ForGood => format!("{why}; `pointsman plugin enable {}` tries it again", post.name),
                }))
            }
        }
    }

    fn learn(&self, post: &Post, failure: Option<&PluginFailure>, took_us: u64) {
        let change = match failure {
            Some(failure) if is_fault(failure) => {
                let now_ms = self.now_ms();
                let change = post.breaker.lock().failed(now_ms, took_us / 1_000);
                if change != Change::None {
                    post.note(failure.to_string());
                }
                change
            }
            Some(PluginFailure::Refused { .. }) | None => post.breaker.lock().succeeded(),
            Some(_) => return post.breaker.lock().gave_nothing(self.now_ms()),
        };
        tell(post, change);
        if change == Change::Stuck {
            let why = post.why().unwrap_or_default();
            // Where there is no room it stays shut all the same, until the next start.
            let _ = self.stuck.try_send(GivenUp { plugin: post.name.clone(), why });
        }
    }

    /// Hands a call to the watcher where it is watched.
    fn hand_on(&self, post: &Arc<Post>, took_us: u64, outcome: Result<&dyn Fn() -> Answer, &PluginFailure>, subject: Option<Subject>) {
        // Counted for every call, so that its turn comes whether or not the call is watched for anything else.
        let fresh = post.take_fresh_turn() && outcome.is_ok();
        let Some(subject) = subject else { return };
        let posts = self.posts.load();
        let shadows: Vec<Arc<Post>> = posts
            .shadows
            .get(&post.name)
            .map_or_else(Vec::new, |all| all.iter().filter(|shadow| shadow.takes_next()).map(Arc::clone).collect());
        if self.recording == Recording::Off && shadows.is_empty() && !fresh {
            return;
        }
        let outcome = match outcome {
            Ok(answer) => Ok(answer()),
            Err(failure) => Err(failure.clone()),
        };
        let seen = Seen { post: Arc::clone(post), subject, outcome, took_us, trace: trace::current(), fresh, shadows };
        if self.seen.try_send(seen).is_err() {
            post.count_missed();
        }
    }

    /// Puts a question by a typed call, governed.
    async fn governed<R>(
        &self,
        plugin: &str,
        asked: &'static str,
        question: Option<Question>,
        call: impl Future<Output = Result<R, PluginFailure>> + Send,
        answer: fn(R) -> Answer,
    ) -> Result<R, PluginFailure>
    where
        R: Clone + Send + Sync,
    {
        let Some(post) = self.post(plugin) else { return call.await };
        let entered = self.enter(&post)?;
        let outcome = spanned(plugin, asked, call).await;
        let took_us = entered.settle(outcome.as_ref().err());
        let subject = question.map(Subject::Asked);
        match &outcome {
            Ok(given) => self.hand_on(&post, took_us, Ok(&|| answer(given.clone())), subject),
            Err(failure) => self.hand_on(&post, took_us, Err(failure), subject),
        }
        outcome
    }

    /// Makes a call that nobody watches, governed. Where the host could not give it what it read, its failure is not its own.
    async fn guarded<R>(
        &self,
        plugin: &str,
        asked: &'static str,
        call: impl Future<Output = Result<R, PluginFailure>> + Send,
        is_starved: impl Fn() -> bool + Send,
    ) -> Result<R, PluginFailure>
    where
        R: Send + Sync,
    {
        let Some(post) = self.post(plugin) else { return call.await };
        let entered = self.enter(&post)?;
        let outcome = spanned(plugin, asked, call).await;
        if !is_starved() {
            entered.settle(outcome.as_ref().err());
        }
        outcome
    }
}

/// A call that was let through.
struct Entered<'a> {
    governor: &'a Governor,
    post: &'a Post,
    begun: Instant,
    is_settled: bool,
}

impl Entered<'_> {
    /// Takes note of how it went. Returns how many microseconds it took.
    fn settle(mut self, failure: Option<&PluginFailure>) -> u64 {
        self.is_settled = true;
        let took = self.governor.system.instant().duration_since(self.begun);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.post.count(failure, took_us);
        self.governor.learn(self.post, failure, took_us);
        took_us
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.post.breaker.lock().gave_nothing(self.governor.now_ms());
        }
    }
}

/// Makes a call within a span of its own.
async fn spanned<R>(
    plugin: &str,
    asked: &'static str,
    call: impl Future<Output = Result<R, PluginFailure>> + Send,
) -> Result<R, PluginFailure> {
    let span = spans::of_plugin(plugin, asked);
    let outcome = call.instrument(span.clone()).await;
    spans::ended(&span, outcome.as_ref());
    outcome
}

/// Returns whether a failure is the component's own doing. Being busy, or saying no, is none.
fn is_fault(failure: &PluginFailure) -> bool {
    match failure {
        PluginFailure::Trapped { .. } | PluginFailure::Invalid { .. } => true,
        PluginFailure::Limit { limit, .. } => {
            !limit.starts_with("concurrency") && !limit.ends_with("shutting down") && *limit != "candidates"
        }
        PluginFailure::NotBound(_) | PluginFailure::Refused { .. } | PluginFailure::Resting { .. } => false,
    }
}

fn tell(post: &Post, change: Change) {
    let plugin = post.name.as_str();
    match change {
        Change::None => {}
        Change::Opened { rest_ms } => {
            tracing::warn!(plugin, rest_ms, why = post.why(), "a plugin fails again and again; it is not asked for a while");
        }
        Change::Stuck => {
            tracing::error!(plugin, why = post.why(), "a plugin failed after every rest; it is not asked until it is enabled again");
        }
        Change::Closed => tracing::info!(plugin, "a plugin answers again"),
    }
}

impl Measured for Governor {
    fn families(&self) -> Vec<Family> {
        let health = self.health();
        let worlds = self.inner.loaded();
        let named = |name: &str| vec![("plugin", name.to_owned())];
        let outcomes = |counts: &Counts| {
            [
                ("answered", counts.answered),
                ("refused", counts.refused),
                ("trapped", counts.trapped),
                ("limited", counts.limited),
                ("invalid", counts.invalid),
                ("rested", counts.rested),
            ]
        };
        let calls = health.iter().flat_map(|(name, health)| {
            outcomes(&health.counts).map(|(outcome, count)| {
                let mut labels = named(name);
                labels.push(("outcome", outcome.to_owned()));
                Sample { labels, value: Value::Counter(count) }
            })
        });
        let times = health.iter().map(|(name, health)| {
            let value = seconds(&LATENCY_BOUNDS_US, &health.counts.latency, health.counts.took_us);
            Sample { labels: named(name), value }
        });
        let instances = worlds.iter().map(|(name, (_, _, stats))| Sample { labels: named(name), value: Value::Counter(stats.instances) });
        #[expect(clippy::cast_precision_loss, reason = "a memory has at most 2^32 bytes")]
        let memory = worlds.iter().map(|(name, (_, _, stats))| {
            let value = Value::Gauge(stats.memory_bytes_max as f64);
            Sample { labels: named(name), value }
        });
        let loads = health.iter().map(|(name, health)| Sample { labels: named(name), value: Value::Counter(health.generation) });
        let missed = health.iter().map(|(name, health)| Sample { labels: named(name), value: Value::Counter(health.counts.missed) });
        let open = health.iter().map(|(name, health)| {
            let value = if health.breaker == BreakerView::Closed { 0.0 } else { 1.0 };
            Sample { labels: named(name), value: Value::Gauge(value) }
        });
        let shadows = health.iter().filter_map(|(name, health)| Some((name, health.shadow.as_ref()?))).flat_map(|(name, report)| {
            [("same", report.same), ("different", report.different), ("failed", report.failed)].map(|(result, count)| {
                let mut labels = named(name);
                labels.push(("result", result.to_owned()));
                Sample { labels, value: Value::Counter(count) }
            })
        });
        let family = |name, help, samples: Vec<Sample>| Family { name, help, samples };
        vec![
            family("pointsman_plugin_calls", "Calls of plugins by outcome.", calls.collect()),
            family("pointsman_plugin_call_seconds", "How long calls of plugins took.", times.collect()),
            family("pointsman_plugin_instances", "Instances made of plugins.", instances.collect()),
            family("pointsman_plugin_memory_bytes", "The most memory an instance of a plugin had after a call.", memory.collect()),
            family("pointsman_plugin_loads", "Components loaded under a plugin's name.", loads.collect()),
            family("pointsman_plugin_unwatched", "Calls that were neither recorded nor shadowed, for want of room.", missed.collect()),
            family("pointsman_plugin_resting", "1 while a plugin is not asked because it failed too often.", open.collect()),
            family("pointsman_plugin_shadowed", "Calls that a shadow heard, by how its answer compared.", shadows.collect()),
        ]
    }
}

#[async_trait]
impl Plugins for Governor {
    async fn load(&self, source: PluginSource) -> Result<PluginRef, PluginFailure> {
        let reference = self.inner.load(source.clone()).await?;
        let _changing = self.changing.lock();
        let posts = self.posts.load();
        let (name, world) = (source.name.clone(), source.world);
        let post = match posts.by_name.get(&name) {
            Some(post) => Arc::clone(post),
            None => {
                let post = Arc::new(Post::new(&name, world, self.tolerance));
                self.posts.store(Arc::new(posts.with(&name, Some(Arc::clone(&post)))));
                post
            }
        };
        post.loaded(source);
        Ok(reference)
    }

    fn unload(&self, name: &str) {
        self.inner.unload(name);
        self.inner.unload(&format!("{name}{FRESH_SUFFIX}"));
        self.forget(name);
    }

    fn loaded(&self) -> BTreeMap<String, (World, PluginRef, PluginStats)> {
        let mut loaded = self.inner.loaded();
        loaded.retain(|name, _| !name.ends_with(FRESH_SUFFIX));
        loaded
    }

    fn reference(&self, plugin: &str) -> Option<PluginRef> {
        self.inner.reference(plugin)
    }

    fn load_number(&self, plugin: &str) -> Option<u64> {
        self.inner.load_number(plugin)
    }

    fn aside(&self) -> Aside {
        self.inner.aside()
    }

    fn rests(&self, plugin: &str) -> bool {
        self.post(plugin).is_some_and(|post| post.breaker.lock().holds(self.now_ms()))
    }

    fn on_failure(&self, plugin: &str) -> OnFailure {
        self.post(plugin).map_or(OnFailure::FallBack, |post| post.on_failure())
    }

    fn symbol(&self, text: &str) -> Symbol {
        self.inner.symbol(text)
    }

    fn symbol_text(&self, symbol: Symbol) -> Arc<str> {
        self.inner.symbol_text(symbol)
    }

    fn route(&self, plugin: &str, message: &RouteMessage, candidates: &[RouteCandidate]) -> Result<RouteVerdict, PluginFailure> {
        let Some(post) = self.post(plugin) else { return self.inner.route(plugin, message, candidates) };
        let entered = self.enter(&post)?;
        let span = spans::of_plugin(plugin, "route");
        let outcome = span.in_scope(|| self.inner.route(plugin, message, candidates));
        spans::ended(&span, outcome.as_ref());
        let took_us = entered.settle(outcome.as_ref().err());
        // Names are looked up later, off this thread: a candidate's clone copies no text.
        let subject = self.is_watched(plugin, 0).then(|| Subject::Route { message: message.clone(), candidates: candidates.to_vec() });
        match &outcome {
            Ok(verdict) => self.hand_on(&post, took_us, Ok(&|| Answer::Route(verdict.clone())), subject),
            Err(failure) => self.hand_on(&post, took_us, Err(failure), subject),
        }
        outcome
    }

    fn merger(&self, plugin: &str) -> Result<MergerDescription, PluginFailure> {
        self.inner.merger(plugin)
    }

    async fn merge_hunks(&self, plugin: &str, path: &str, hunks: Vec<MergeHunk>) -> Result<Vec<HunkOutcome>, PluginFailure> {
        let bytes = hunks.iter().map(|hunk| hunk.base.len() + hunk.ours.len() + hunk.theirs.len()).sum();
        let asked = || Question::MergeHunks(HunksQuestion { path: path.to_owned(), hunks: hunks.clone() });
        let question = self.is_watched(plugin, bytes).then(asked);
        self.governed(plugin, "merge_hunks", question, self.inner.merge_hunks(plugin, path, hunks), Answer::Hunks).await
    }

    async fn merge_file(&self, plugin: &str, file: MergeFile) -> Result<FileOutcome, PluginFailure> {
        let bytes = file.base.as_ref().map_or(0, Vec::len) + file.ours.len() + file.theirs.len() + file.so_far.len();
        let question = self.is_watched(plugin, bytes).then(|| Question::MergeFile(file.clone()));
        self.governed(plugin, "merge_file", question, self.inner.merge_file(plugin, file), Answer::File).await
    }

    async fn reconcile(
        &self,
        plugin: &str,
        media_type: &str,
        base: Vec<u8>,
        ours: Vec<u8>,
        theirs: Vec<u8>,
    ) -> Result<ReconcileOutcome, PluginFailure> {
        let asked = || {
            let (base, ours, theirs) = (base.clone(), ours.clone(), theirs.clone());
            Question::Reconcile(ReconcileQuestion { media_type: media_type.to_owned(), base, ours, theirs })
        };
        let question = self.is_watched(plugin, base.len() + ours.len() + theirs.len()).then(asked);
        self.governed(plugin, "reconcile", question, self.inner.reconcile(plugin, media_type, base, ours, theirs), Answer::Document).await
    }

    async fn branch_name(&self, plugin: &str, task: FlowTask, attempt: u32) -> Result<String, PluginFailure> {
        let asked = || Question::BranchName(BranchQuestion { task: task.clone(), attempt });
        let question = self.is_watched(plugin, task.description.len()).then(asked);
        self.governed(plugin, "branch_name", question, self.inner.branch_name(plugin, task, attempt), Answer::Text).await
    }

    async fn commit_message(&self, plugin: &str, facts: CommitFacts) -> Result<String, PluginFailure> {
        let question = self.is_watched(plugin, facts.note.len()).then(|| Question::CommitMessage(facts.clone()));
        self.governed(plugin, "commit_message", question, self.inner.commit_message(plugin, facts), Answer::Text).await
    }

    async fn merge_message(&self, plugin: &str, facts: ChangeFacts) -> Result<String, PluginFailure> {
        let question = self.is_watched(plugin, 0).then(|| Question::MergeMessage(facts.clone()));
        self.governed(plugin, "merge_message", question, self.inner.merge_message(plugin, facts), Answer::Text).await
    }

    async fn pull_request(&self, plugin: &str, facts: ChangeFacts) -> Result<PullRequestText, PluginFailure> {
        let question = self.is_watched(plugin, 0).then(|| Question::PullRequest(facts.clone()));
        self.governed(plugin, "pull_request", question, self.inner.pull_request(plugin, facts), Answer::PullRequest).await
    }

    async fn merge_order(&self, plugin: &str, queue: Vec<WaitingBranch>) -> Result<Vec<u32>, PluginFailure> {
        let question = self.is_watched(plugin, 0).then(|| Question::MergeOrder(OrderQuestion { queue: queue.clone() }));
        self.governed(plugin, "merge_order", question, self.inner.merge_order(plugin, queue), Answer::Order).await
    }

    async fn check(&self, plugin: &str, gate: Gate, facts: GateFacts) -> Result<GateVerdict, PluginFailure> {
        let question = self.is_watched(plugin, 0).then(|| Question::Check(CheckQuestion { gate, facts: facts.clone() }));
        self.governed(plugin, "check", question, self.inner.check(plugin, gate, facts), Answer::Verdict).await
    }
}
