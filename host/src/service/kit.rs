//! What every use case holds: the ports, the settings, and the few moves that all of them make.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use pointsman_core::agent::{AgentRecord, ProjectRecord};
use pointsman_core::event::NewEvent;
use pointsman_core::ids::ProjectId;
use pointsman_core::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use pointsman_core::time::TimeMs;
use pointsman_core::value::{self, Stored};
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::homes::Homes;
use super::settings::Settings;
pub use crate::ports::causes::chain;
use crate::ports::clock::System;
use crate::ports::keys::Keys;
use crate::ports::plugins::Plugins;
use crate::ports::provider::Providers;
use crate::ports::repository::Repository;
use crate::ports::resident::Residents;
use crate::ports::store::{Commit, Committed, Expect, Idempotency, Store, StoreError, Version};

/// Times a decision is made again because something it rested on changed.
const DECISIONS_MAX: u32 = 64;
/// Entries read at once when a whole range is wanted.
const PAGE_ENTRIES: usize = 512;

/// A value and the version it was read at; version none: there is none yet.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The value.
    pub value: T,
    /// When it was written.
    pub version: Version,
}

/// The ports and the settings.
#[derive(Clone)]
pub struct Kit {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The deciders.
    pub plugins: Arc<dyn Plugins>,
    /// Those that offer MCP.
    pub providers: Arc<dyn Providers>,
    /// Those that act.
    pub residents: Arc<dyn Residents>,
    /// The repositories, wherever they are.
    pub repository: Arc<dyn Repository>,
    /// Which of them are at home here.
    pub homes: Homes,
    /// Randomness.
    pub system: Arc<dyn System>,
    /// Secrets.
    pub keys: Arc<dyn Keys>,
    /// The operator's choices.
    pub settings: Arc<Settings>,
    /// Slugs that were read, which never change.
    pub slugs: Arc<Mutex<HashMap<ProjectId, String>>>,
}

/// An agent in the act of a call.
#[derive(Debug, Clone)]
pub struct Acting {
    /// In which project.
    pub project: ProjectId,
    /// Who.
    pub agent: Arc<AgentRecord>,
    /// Its principal's name.
    pub principal_name: String,
    /// The request id that events and log lines carry.
    pub trace: String,
}

/// Refuses an idempotency key that is empty, too long, or more than one line.
///
/// # Errors
/// `bad_argument`.
pub(super) fn check_idempotency_key(key: Option<&str>) -> Result<(), Failure> {
    let Some(key) = key else { return Ok(()) };
    let wrong = if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        format!("`idempotency_key` has {} bytes", key.len())
    } else if key.chars().any(char::is_control) {
        "`idempotency_key` has a control character".to_owned()
    } else {
        return Ok(());
    };
    let advice = format!("Give one line of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, another one for each new request.");
    Err(Failure::refused("bad_argument", wrong, advice))
}

impl Acting {
    /// Returns an event of this act.
    #[must_use]
    pub fn event(&self, kind: &str, subject: impl std::fmt::Display, data: serde_json::Value) -> NewEvent {
        let mut event = NewEvent::new(kind, self.agent.actor(), subject, data);
        event.trace = Some(self.trace.clone());
        event
    }

    /// Returns the identity under which a repeated call is recognised.
    #[must_use]
    pub fn once(&self, operation: &str, key: impl Into<String>, request: &impl Serialize) -> Once {
        let body = serde_json::to_vec(request).unwrap_or_default();
        Once {
            principal: self.agent.id.to_string(),
            operation: operation.to_owned(),
            key: key.into(),
            request_digest: *blake3::hash(&body).as_bytes(),
        }
    }
}

/// The identity of a call: the same one never acts twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// Who calls.
    pub principal: String,
    /// What is called.
    pub operation: String,
    /// The caller's key, or one derived from what the call is about.
    pub key: String,
    /// Of the request.
    pub request_digest: [u8; 32],
}

impl Once {
    /// Returns the record that goes into the commit with the answer.
    #[must_use]
    pub fn record(&self, answer: &impl Serialize) -> Idempotency {
        Idempotency {
            principal: self.principal.clone(),
            operation: self.operation.clone(),
            key: self.key.clone(),
            request_digest: self.request_digest,
            response: serde_json::to_vec(answer).unwrap_or_default(),
        }
    }
}

impl Kit {
    /// Returns the store's time.
    #[must_use]
    pub fn now(&self) -> TimeMs {
        self.store.now()
    }

    /// Returns the slug that bindings are chosen by; empty where none is for certain projects.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn slug(&self, project: ProjectId) -> Result<String, Failure> {
        if !self.settings.bindings.now().depend_on_project() && !self.settings.context.rules.depend_on_project() {
            return Ok(String::new());
        }
        if let Some(slug) = self.slugs.lock().get(&project) {
            return Ok(slug.clone());
        }
        let Some(found) = self.load::<ProjectRecord>(None, &project_key(project)).await? else { return Ok(String::new()) };
        self.slugs.lock().insert(project, found.value.slug.clone());
        Ok(found.value.slug)
    }

    /// Returns the workflow for a kind of task, or for what is of no one kind; none: the host's own words.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn workflow(&self, project: ProjectId, kind: Option<&str>) -> Result<Option<String>, Failure> {
        let slug = self.slug(project).await?;
        Ok(self.settings.bindings.now().workflow(&slug, kind).map(str::to_owned))
    }

    /// Returns a stored value.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn load<T: Stored>(&self, project: Option<ProjectId>, key: &str) -> Result<Option<Loaded<T>>, Failure> {
        match self.store.get(project, key).await? {
            Some(found) => Ok(Some(Loaded { value: value::decode(&found.bytes)?, version: found.version })),
            None => Ok(None),
        }
    }

    /// Returns all values under a prefix, in key order, at most `limit`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn load_all<T: Stored>(
        &self,
        project: Option<ProjectId>,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, Loaded<T>)>, Failure> {
        let mut all = Vec::new();
        let mut from = String::new();
        loop {
            let wanted = PAGE_ENTRIES.min(limit - all.len());
            let page = self.store.range(project, prefix, &from, wanted).await?;
            for (key, found) in page.entries {
                all.push((key, Loaded { value: value::decode(&found.bytes)?, version: found.version }));
            }
            match page.next {
                Some(next) if all.len() < limit => from = next,
                _ => return Ok(all),
            }
        }
    }

    /// Returns what an earlier call of the same identity was answered.
    ///
    /// # Errors
    /// `key_reused` when the key was used for another request.
    pub async fn answered<T: serde::de::DeserializeOwned>(&self, project: ProjectId, once: &Once) -> Result<Option<T>, Failure> {
        let stored = self.store.answered(Some(project), &once.principal, &once.operation, &once.key, &once.request_digest).await?;
        Ok(stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Decides and commits until the decision met the state it was made from: on a stale read `decide` is called again.
    /// `decide` returns the commit and what to answer when it is done.
    ///
    /// # Errors
    /// What `decide` returns; `Contended` when it never met.
    pub async fn decide<T, D, F>(&self, mut decide: D) -> Result<(T, Committed), Failure>
    where
        D: FnMut() -> F,
        F: Future<Output = Result<(Commit, T), Failure>>,
    {
        let mut last = String::new();
        for _ in 0..DECISIONS_MAX {
            let (commit, answer) = decide().await?;
            match self.store.commit(commit).await {
                Ok(committed) => return Ok((answer, committed)),
                Err(StoreError::Stale { key } | StoreError::Fenced { key }) => last = key,
                Err(other) => return Err(other.into()),
            }
        }
        Err(Failure::Contended { key: last, tries: DECISIONS_MAX })
    }
}

/// Moves that make commits readable.
pub trait CommitExt {
    /// Writes `value` where `version` (or nothing) stood when it was read.
    fn replace<T: Stored>(&mut self, key: impl Into<String>, version: Option<Version>, value: &T);

    /// Writes `value` whatever stands there.
    fn put<T: Stored>(&mut self, key: impl Into<String>, value: &T);
}

impl CommitExt for Commit {
    fn replace<T: Stored>(&mut self, key: impl Into<String>, version: Option<Version>, value: &T) {
        let key = key.into();
        self.expects.push((key.clone(), version.map_or(Expect::Absent, Expect::Version)));
        self.puts.push((key, value::encode(value)));
    }

    fn put<T: Stored>(&mut self, key: impl Into<String>, value: &T) {
        self.puts.push((key.into(), value::encode(value)));
    }
}

/// Where a project's record stands, among the host's own.
pub(super) fn project_key(project: ProjectId) -> String {
    format!("project/{project}")
}
