//! Looks at calls after they are done: asks shadows and fresh instances the same, and has decisions recorded.
//!
//! It runs beside the calls, on its own time. **Invariant:** nothing it does reaches whoever asked.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::post::Post;
use super::{FRESH_SUFFIX, Governor, Recording};
use crate::ports::decision::{NamedCandidate, Outcome, Question, Recorded, RouteQuestion, ask, shown};
use crate::ports::plugins::{Instances, PluginFailure, PluginSource, RouteCandidate, RouteMessage};
use crate::service::decisions::DecisionLog;

/// Calls looked at in one go.
const BATCH_MAX: usize = 256;
/// The most that a record waits for others to be written with it.
const BATCH_WAIT_MS: u64 = 200;

/// What was asked.
pub(super) enum Subject {
    /// Of a router: symbols are looked up when it is looked at.
    Route {
        /// The message.
        message: RouteMessage,
        /// Who could get it.
        candidates: Vec<RouteCandidate>,
    },
    /// Of another.
    Asked(Question),
}

/// A call that was done.
pub(super) struct Seen {
    pub(super) post: Arc<Post>,
    pub(super) subject: Subject,
    pub(super) outcome: Outcome,
    pub(super) took_us: u64,
    /// On whose behalf.
    pub(super) trace: Option<Arc<str>>,
    pub(super) fresh: bool,
    pub(super) shadows: Vec<Arc<Post>>,
}

/// Looks at calls.
pub struct Watcher {
    governor: Arc<Governor>,
    queue: mpsc::Receiver<Seen>,
}

impl Watcher {
    pub(super) fn new(governor: Arc<Governor>, queue: mpsc::Receiver<Seen>) -> Self {
        Self { governor, queue }
    }

    /// Looks at calls until `stop`, then at those that still wait.
    pub async fn run(mut self, log: DecisionLog, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                biased;
                count = self.queue.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
                () = stop.cancelled() => break,
            }
            self.look(std::mem::take(&mut batch), &log).await;
            // Lets a few more come together, so that one commit holds them.
            if self.queue.len() < BATCH_MAX {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(BATCH_WAIT_MS)) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        self.queue.close();
        while self.queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
            self.look(std::mem::take(&mut batch), &log).await;
        }
    }

    async fn look(&self, calls: Vec<Seen>, log: &DecisionLog) {
        let mut records = Vec::with_capacity(calls.len());
        for Seen { post, subject, outcome, took_us, trace, fresh, shadows } in calls {
            let question = self.named(subject);
            let (asked, answered) = (json!(question), shown(&outcome));
            for shadow in shadows {
                let answer = shown(&self.ask_aside(&shadow.name, question.clone()).await);
                shadow.compared(&asked, answered.clone(), answer);
            }
            if fresh {
                self.ask_fresh(&post, question, &answered).await;
            }
            if self.governor.recording == Recording::On {
                let digest = self.governor.inner.reference(&post.name).map(|reference| reference.digest).unwrap_or_default();
                records.push(Recorded::new(&post.name, digest, &asked, &answered, took_us).on_behalf(trace.as_deref()));
            }
        }
        if let Err(failure) = log.append(records).await {
            tracing::warn!(%failure, "decisions were not recorded");
        }
    }

    fn named(&self, subject: Subject) -> Question {
        match subject {
            Subject::Asked(question) => question,
            Subject::Route { message, candidates } => {
                let plugins = self.governor.inner.as_ref();
                let candidates = candidates.iter().map(|one| NamedCandidate::of(one, plugins)).collect();
                Question::Route(RouteQuestion { message, candidates })
            }
        }
    }

    /// Puts a question to a component that does not decide: a router is asked off the async threads as well.
    async fn ask_aside(&self, plugin: &str, question: Question) -> Outcome {
        let (inner, plugin) = (Arc::clone(&self.governor.inner), plugin.to_owned());
        if !matches!(question, Question::Route(_)) {
            return ask(inner.as_ref(), &plugin, question).await;
        }
        let runtime = tokio::runtime::Handle::current();
        let asked = tokio::task::spawn_blocking(move || runtime.block_on(ask(inner.as_ref(), &plugin, question)));
        asked.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(PluginFailure::Limit { plugin: String::new(), limit: "time: the host is shutting down" }),
        })
    }

    /// Asks a fresh instance what a warm one answered. A warm one that answers otherwise carries something over from call to
    /// call, which no replay can repeat: from then on it is asked on fresh instances only.
    async fn ask_fresh(&self, post: &Post, question: Question, answered: &Value) {
        let Some(source) = post.warm_source() else { return };
        let generation = post.generation();
        let name = format!("{}{FRESH_SUFFIX}", post.name);
        let sibling = PluginSource { name: name.clone(), instances: Instances::Fresh, ..source.clone() };
        let digest = blake3::hash(&source.component).to_hex();
        let is_loaded = self.governor.inner.reference(&name).is_some_and(|reference| reference.digest == digest.as_str());
        if !is_loaded && let Err(failure) = self.governor.inner.load(sibling).await {
            tracing::warn!(plugin = post.name, %failure, "no fresh instance to compare with");
            return;
        }
        let fresh = shown(&self.ask_aside(&name, question).await);
        // A limit met by the one and not by the other says nothing about the answer.
        if fresh == *answered || fresh.get("failure").is_some() || post.generation() != generation {
            return;
        }
        let why = "a warm instance answered otherwise than a fresh one; it is asked on fresh instances only";
        tracing::warn!(plugin = post.name, warm = %answered, %fresh, why);
        match self.governor.inner.load(PluginSource { instances: Instances::Fresh, ..source.clone() }).await {
            Ok(_) => {
                post.loaded(PluginSource { instances: Instances::Fresh, ..source });
                post.note(why.to_owned());
            }
            Err(failure) => tracing::warn!(plugin = post.name, %failure, "it could not be loaded again"),
        }
    }
}
