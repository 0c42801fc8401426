//! One event: the component is asked, its answer is committed, or the try is recorded.
//!
//! **Invariant:** every way out either commits what became of the event, or returns the store's failure, after which the
//! event comes again.

use std::sync::Arc;

use pointsman_core::event::{Actor, Cursor, NewEvent};
use pointsman_core::ids::MessageId;
use pointsman_core::limits::{BACK_OFF_MS, BACK_OFF_MS_MAX};
use pointsman_core::value;
use serde_json::{Value, json};

use super::super::answer::{self, Changes, Ground};
use super::super::memory::StoreMemory;
use super::super::record::{Feed, Wake, cause_name, feed_key, load_key, retry_due};
use super::super::standing;
use super::{RETRY_MS, Seat};
use crate::ports::plugins::PluginFailure;
use crate::ports::resident::{Action, Cause, ResidentEvent, ResidentMemory};
use crate::ports::store::{Commit, Committed, DueChange, Expect, Version};
use crate::service::failure::Failure;
use crate::service::kit::{Acting, CommitExt, Loaded, chain};
use crate::service::lookups::{Broken, READ_MS, READS_MS};
use crate::service::messaging::Nack;
use crate::service::offers::Checked;
use crate::service::trace;

/// Times a component that had no turn is asked again at once; each time it waited for its turn.
const TURNS_MAX: u32 = 10;
/// Characters of a component's reason that are recorded.
const WHY_CHARS_MAX: usize = 1_000;
/// The code of a commit that came too late: somebody else settled the event.
const SUPERSEDED: &str = "superseded";

/// Where an event came from, and by that, how it is settled.
pub(super) enum Source {
    /// The log, at this place.
    Log(Cursor),
    /// The inbox.
    Message {
        /// Which.
        id: MessageId,
        /// Which try this is, from 1.
        attempt: u32,
    },
    /// A due entry.
    Wake {
        /// Its name.
        due: String,
        /// Where its record stands.
        key: String,
        /// The record.
        wake: Box<Wake>,
        /// When it was written.
        version: Version,
    },
}

/// Why a try failed.
struct Trouble {
    /// `resident.failed`, or `resident.refused` where it answered and the answer was not valid.
    kind: &'static str,
    code: String,
    why: String,
}

impl Trouble {
    fn failed(code: &str, why: impl Into<String>) -> Self {
        let why: String = why.into();
        Self { kind: "resident.failed", code: code.to_owned(), why: why.chars().take(WHY_CHARS_MAX).collect() }
    }

    /// What it read did not come in time: it may have asked for too much, so this is a try like any other.
    fn slow() -> Self {
        Self::failed("slow", format!("a read of its took longer than {READ_MS} ms, or all of them longer than {READS_MS} ms"))
    }
}

impl Seat {
    /// Has an event handled, and settles it.
    pub(super) async fn attend(&mut self, source: &Source, id: &str, cause: Cause) -> Result<(), Failure> {
        trace::on_behalf(id, self.settle(source, id, cause)).await
    }

    async fn settle(&mut self, source: &Source, id: &str, cause: Cause) -> Result<(), Failure> {
        let acting = Acting { trace: id.to_owned(), ..self.acting.clone() };
        let what = cause_name(&cause);
        let trouble = match self.ask(&acting, id, cause).await? {
            Ok(actions) => match self.apply(&acting, source, &actions).await {
                Ok(()) => return Ok(()),
                Err(Failure::Refused(refusal)) if refusal.code == SUPERSEDED => return self.superseded(source, id).await,
                Err(Failure::Refused(refusal)) => Trouble { kind: "resident.refused", code: refusal.code.to_owned(), why: refusal.why },
                Err(other @ (Failure::Unavailable { .. } | Failure::Contended { .. })) => return Err(other),
                Err(other @ (Failure::Damaged(_) | Failure::Repository(_) | Failure::Plugin(_))) => Trouble::failed("host", chain(&other)),
            },
            Err(trouble) => trouble,
        };
        tracing::warn!(plugin = %self.binding.plugin, event = id, code = %trouble.code, why = %trouble.why, "{}", trouble.kind);
        match self.fail(&acting, source, what, &trouble).await {
            Err(Failure::Refused(refusal)) if refusal.code == SUPERSEDED => self.superseded(source, id).await,
            other => other,
        }
    }

    /// Asks the component. The inner error is its own doing; the outer one the host's. An answer of another component than the one that
    /// this seat is for, which was loaded in its place meanwhile, is none: the event comes again, to the seat of that one.
    async fn ask(&self, acting: &Acting, id: &str, cause: Cause) -> Result<Result<Vec<Action>, Trouble>, Failure> {
        let plugin = self.binding.plugin.as_str();
        let event = ResidentEvent { id: id.to_owned(), at_ms: self.services.kit.now().0, cause };
        let moved = Failure::Unavailable { retry_after_ms: RETRY_MS };
        for _ in 0..TURNS_MAX {
            if self.is_own() != Some(true) {
                return Err(moved);
            }
            let memory = Arc::new(StoreMemory::new(Arc::new(self.services.clone()), acting, plugin, self.binding.lookups));
            let asked = Arc::clone(&memory) as Arc<dyn ResidentMemory>;
            let answer = self.services.kit.residents.handle(plugin, event.clone(), asked).await;
            if self.is_own() == Some(false) {
                return Err(moved);
            }
            match memory.broken() {
                Some(Broken::Failed) => return Err(Failure::Unavailable { retry_after_ms: RETRY_MS }),
                Some(Broken::Slow) => return Ok(Err(Trouble::slow())),
                None => {}
            }
            return Ok(match answer {
                Ok(Ok(actions)) => Ok(actions),
                Ok(Err(why)) => Err(Trouble::failed("error", why)),
                Err(PluginFailure::Limit { limit: "concurrency", .. }) => continue,
                Err(PluginFailure::NotBound(_)) => break,
                // Its events wait until it is asked again.
                Err(failure @ PluginFailure::Resting { .. }) => return Err(failure.into()),
                Err(PluginFailure::Limit { limit, .. }) if limit.ends_with("shutting down") => break,
                Err(failure) => Err(Trouble::failed(failure.word(), failure.to_string())),
            });
        }
        Err(Failure::Unavailable { retry_after_ms: RETRY_MS })
    }

    /// Commits an answer: its actions and that its event was handled.
    async fn apply(&mut self, acting: &Acting, source: &Source, actions: &[Action]) -> Result<(), Failure> {
        let (offers, committed) = self.services.kit.decide(|| self.decide_answer(acting, source, actions)).await?;
        self.follow(source, &committed, Feed { cursor: cursor_of(source), ..Feed::default() });
        if let (Some(checked), Committed::Done { version, .. }) = (offers, committed) {
            self.services.offers.install(acting.project, &self.binding.plugin, checked, version);
        }
        Ok(())
    }

    async fn decide_answer(&self, acting: &Acting, source: &Source, actions: &[Action]) -> Result<(Commit, Option<Checked>), Failure> {
        let (mut commit, mut changes) = (self.commit(), Changes::default());
        self.stage_handled(acting, source, &mut commit, &mut changes).await?;
        let (services, binding, digest) = (&self.services, &self.binding, self.digest.as_str());
        let ground = Ground { services, acting, binding, digest, is_provider: self.is_provider };
        let offers = answer::stage(&ground, &mut commit, &mut changes, actions).await?;
        changes.flush(&mut commit);
        Ok((commit, offers))
    }

    /// Adds to a commit that an event was handled.
    async fn stage_handled(&self, acting: &Acting, source: &Source, commit: &mut Commit, changes: &mut Changes) -> Result<(), Failure> {
        match source {
            Source::Log(cursor) => {
                self.still_fed().await?;
                commit.replace(feed_key(&self.binding.plugin), Some(self.feed.version), &Feed { cursor: *cursor, ..Feed::default() });
                if self.feed.value.retry_at.is_some() {
                    changes.due.insert(retry_due(&self.binding.plugin), None);
                }
                Ok(())
            }
            Source::Message { id, .. } => self.stage_message(acting, commit, *id, None).await,
            Source::Wake { due, key, version, .. } => {
                self.still_waits(key, *version).await?;
                commit.expects.push((key.clone(), Expect::Version(*version)));
                changes.values.insert(key.clone(), None);
                changes.values.insert(load_key(key), None);
                changes.due.insert(due.clone(), None);
                Ok(())
            }
        }
    }

    async fn stage_message(&self, acting: &Acting, commit: &mut Commit, id: MessageId, nack: Option<&Nack>) -> Result<(), Failure> {
        let staged = self.services.messaging.stage_settled(commit, acting, id, nack).await;
        staged.map_err(|failure| match failure {
            Failure::Refused(refusal) => superseded(refusal.why),
            other @ (Failure::Unavailable { .. }
            | Failure::Damaged(_)
            | Failure::Repository(_)
            | Failure::Plugin(_)
            | Failure::Contended { .. }) => other,
        })
    }

    async fn still_fed(&self) -> Result<(), Failure> {
        let found = self.services.kit.load::<Feed>(Some(self.project()), &feed_key(&self.binding.plugin)).await?;
        match found {
            Some(found) if found.version == self.feed.version => Ok(()),
            _ => Err(superseded("the place in the log moved".to_owned())),
        }
    }

    async fn still_waits(&self, key: &str, version: Version) -> Result<(), Failure> {
        match self.services.kit.load::<Wake>(Some(self.project()), key).await? {
            Some(found) if found.version == version => Ok(()),
            _ => Err(superseded("the wake-up was settled".to_owned())),
        }
    }

    /// Records a try that failed, and when the next one is; or gives the event up.
    async fn fail(&mut self, acting: &Acting, source: &Source, what: &str, trouble: &Trouble) -> Result<(), Failure> {
        let attempts = 1 + match source {
            Source::Log(_) => self.feed.value.attempts,
            Source::Message { attempt, .. } => attempt.saturating_sub(1),
            Source::Wake { wake, .. } => wake.attempts,
        };
        let attempts_max = self.services.kit.settings.delivery_attempts_max.max(1);
        let gives_up = attempts >= attempts_max;
        let retry_at = self.services.kit.now() + (BACK_OFF_MS << (attempts - 1).min(16)).min(BACK_OFF_MS_MAX);
        let feed = if gives_up {
            Feed { cursor: cursor_of(source), ..Feed::default() }
        } else {
            Feed { attempts, retry_at: Some(retry_at), ..self.feed.value }
        };
        let data = json!({
            "plugin": self.binding.plugin, "digest": self.digest, "event": acting.trace, "cause": what, "attempt": attempts,
            "attempts_max": attempts_max, "code": trouble.code, "why": trouble.why,
            "retry_at": (!gives_up).then(|| retry_at.to_rfc3339()),
        });
        let retry = Retry { gives_up, attempts, retry_at, feed };
        let (_, committed) = self.services.kit.decide(|| self.decide_failed(acting, source, trouble, &retry, &data)).await?;
        self.follow(source, &committed, feed);
        Ok(())
    }

    async fn decide_failed(
        &self,
        acting: &Acting,
        source: &Source,
        trouble: &Trouble,
        retry: &Retry,
        data: &Value,
    ) -> Result<(Commit, ()), Failure> {
        let mut commit = self.commit();
        let plugin = &self.binding.plugin;
        let mut tell = |kind: &str| {
            let event = NewEvent::new(kind, Actor::host(), format!("plugin:{plugin}"), data.clone());
            commit.events.push(event.caused_by(&acting.trace));
        };
        tell(trouble.kind);
        if retry.gives_up {
            tell("resident.gave_up");
        }
        match source {
            Source::Log(_) => {
                self.still_fed().await?;
                commit.replace(feed_key(plugin), Some(self.feed.version), &retry.feed);
                let name = retry_due(plugin);
                commit.due.push(match retry.feed.retry_at {
                    Some(at) => DueChange::Set { name, at },
                    None => DueChange::Clear { name },
                });
            }
            Source::Message { id, .. } => {
                let nack = Nack { message: *id, reason: format!("{}: {}", trouble.code, trouble.why), delay_s: None };
                self.stage_message(acting, &mut commit, *id, Some(&nack)).await?;
            }
            Source::Wake { due, key, wake, version } => {
                self.still_waits(key, *version).await?;
                commit.expects.push((key.clone(), Expect::Version(*version)));
                let name = due.clone();
                if retry.gives_up {
                    commit.deletes.extend([key.clone(), load_key(key)]);
                    commit.due.push(DueChange::Clear { name });
                } else {
                    let again = Wake { at: retry.retry_at, attempts: retry.attempts, ..Wake::clone(wake) };
                    commit.puts.push((key.clone(), value::encode(&again)));
                    commit.due.push(DueChange::Set { name, at: retry.retry_at });
                }
            }
        }
        Ok((commit, ()))
    }

    /// Keeps the seat's place in the log in step with what was committed.
    fn follow(&mut self, source: &Source, committed: &Committed, feed: Feed) {
        if let (Source::Log(_), Committed::Done { version, .. }) = (source, committed) {
            self.feed = Loaded { value: feed, version: *version };
        }
    }

    /// Somebody else settled the event: nothing is to be done, but to look again.
    async fn superseded(&mut self, source: &Source, id: &str) -> Result<(), Failure> {
        tracing::info!(plugin = %self.binding.plugin, event = id, "an answer came too late: its event was settled meanwhile");
        // It may be its own that was stored, and only the store's word for it was lost.
        if self.is_provider {
            standing::catch_up(&self.services, self.project()).await?;
        }
        match source {
            Source::Log(_) => self.reload_feed().await,
            Source::Message { .. } | Source::Wake { .. } => Ok(()),
        }
    }
}

/// What a failed try comes to.
struct Retry {
    gives_up: bool,
    attempts: u32,
    retry_at: pointsman_core::time::TimeMs,
    feed: Feed,
}

fn cursor_of(source: &Source) -> Cursor {
    match source {
        Source::Log(cursor) => *cursor,
        Source::Message { .. } | Source::Wake { .. } => Cursor::default(),
    }
}

fn superseded(why: String) -> Failure {
    Failure::refused(SUPERSEDED, why, "Nothing is to be done.")
}
