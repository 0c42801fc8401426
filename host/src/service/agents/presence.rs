//! Who is there: each call of an agent renews its lease on being present; when that lapses it is away, until its next call.
//!
//! Calls are remembered in memory, and noted in the store once in a while: the first one, and then at most one in
//! [`PRESENCE_NOTED_MS`]. A host that did not hear the calls itself knows of the noted ones only, and so may take an agent for away
//! that much too early; its next noted call mends that.
//!
//! ```text
//! presence/<agent>     since when it is there or away, its last noted call; a due entry of the same name while it is there
//! ```
//!
//! **Invariants:** `agent.away` and `agent.back` alternate, each in the commit that changes the record; a call is never refused, nor
//! slowed more than by one commit in a while, for the sake of this. Components that act are there as long as they are set up.

use std::sync::Arc;

use pointsman_core::agent::AgentRecord;
use pointsman_core::event::{Actor, NewEvent, Provenance};
use pointsman_core::ids::{AgentId, ProjectId};
use pointsman_core::limits::{PRESENCE_NOTED_MS, PRESENT_MS};
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Agents, Board, Seat};
use crate::ports::store::{Commit, DueChange};
use crate::service::failure::Failure;
use crate::service::kit::{CommitExt, Loaded, chain};

/// What the keys and the due entries of presence start with.
pub(in crate::service) const PRESENCE: &str = "presence/";

/// Whether an agent is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It called lately.
    Present,
    /// It did not.
    Away,
}

/// What is noted of an agent's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::service) struct Seen {
    /// Whether it is there.
    pub(in crate::service) presence: Presence,
    /// Since when: its first call since it was away, or its last one before.
    pub(in crate::service) since: TimeMs,
    /// Its last noted call.
    pub(in crate::service) last_call: TimeMs,
}

impl Stored for Seen {
    const NAME: &'static str = "presence";
}

/// What this host heard of an agent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    last_call: TimeMs,
    /// When a call was last noted; none: not by this host.
    noted: Option<TimeMs>,
}

impl Heard {
    /// Takes a call in. Returns whether it is to be noted; whoever is told so notes it.
    fn call(&mut self, now: TimeMs) -> bool {
        self.last_call = self.last_call.max(now);
        let is_due = self.noted.is_none_or(|noted| now.since_ms(noted) >= PRESENCE_NOTED_MS);
        if is_due {
            self.noted = Some(now);
        }
        is_due
    }
}

/// Returns the key of an agent's record and the name of its due entry.
pub(super) fn presence_key(agent: AgentId) -> String {
    format!("{PRESENCE}{agent}")
}

/// Returns who comes and goes: not those who are part of the host.
fn comes_and_goes(agent: &AgentRecord) -> bool {
    agent.provenance != Provenance::Plugin
}

impl Agents {
    /// Notes a sign of life where nothing is to be stored of it.
    pub fn touch(&self, agent: AgentId) {
        let now = self.kit.now();
        let mut heard = self.heard.lock();
        let heard = heard.entry(agent).or_default();
        heard.last_call = heard.last_call.max(now);
    }

    /// Remembers a call that is noted already.
    pub(super) fn started(&self, agent: AgentId) {
        self.heard.lock().entry(agent).or_default().call(self.kit.now());
    }

    /// Takes a call in, and notes it where that is due.
    pub(super) async fn renew(&self, project: ProjectId, agent: &AgentRecord) {
        let is_due = self.heard.lock().entry(agent.id).or_default().call(self.kit.now());
        if is_due
            && comes_and_goes(agent)
            && let Err(failure) = Box::pin(self.note(project, agent)).await
        {
            // Tried again with the next call that is due, long before the lease lapses: a store that is away is not asked with each call.
            tracing::warn!(agent = %agent.name, error = %chain(&failure), "a call could not be noted");
        }
    }

    async fn note(&self, project: ProjectId, agent: &AgentRecord) -> Result<(), Failure> {
        let decide = || async {
            let mut commit = Commit { project: Some(project), ..Commit::default() };
            self.stage_present(&mut commit, agent).await?;
            Ok((commit, ()))
        };
        self.kit.decide(decide).await.map(drop)
    }

    /// Adds to a commit that an agent calls now.
    pub(super) async fn stage_present(&self, commit: &mut Commit, agent: &AgentRecord) -> Result<(), Failure> {
        if !comes_and_goes(agent) {
            return Ok(());
        }
        let now = self.kit.now();
        let key = presence_key(agent.id);
        let found = self.kit.load::<Seen>(commit.project, &key).await?;
        let version = found.as_ref().map(|found| found.version);
        let seen = match found.map(|found| found.value) {
            Some(before) if before.presence == Presence::Present => Seen { last_call: before.last_call.max(now), ..before },
            other => {
                if let Some(away) = other {
                    let data = json!({"agent": agent.id, "name": agent.name, "away_since": away.since.to_rfc3339()});
                    commit.events.push(NewEvent::new("agent.back", agent.actor(), agent.id, data));
                }
                Seen { presence: Presence::Present, since: now, last_call: now }
            }
        };
        commit.replace(key.clone(), version, &seen);
        commit.due.push(DueChange::Set { name: key, at: seen.last_call + PRESENT_MS });
        Ok(())
    }

    /// Works off the due entry of an agent that may be away.
    pub(in crate::service) async fn lapse(&self, project: ProjectId, name: &str) -> Result<(), Failure> {
        self.kit.decide(|| async { Ok((self.decide_lapse(project, name).await?, ())) }).await.map(drop)
    }

    async fn decide_lapse(&self, project: ProjectId, name: &str) -> Result<Commit, Failure> {
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        let agent = name.strip_prefix(PRESENCE).and_then(|id| id.parse::<AgentId>().ok());
        let found = self.kit.load::<Seen>(Some(project), name).await?;
        let (Some(agent), Some(Loaded { value: seen, version })) = (agent, found) else {
            commit.due.push(DueChange::Clear { name: name.to_owned() });
            return Ok(commit);
        };
        let heard = self.heard.lock().get(&agent).map_or(seen.last_call, |heard| heard.last_call);
        let last_call = seen.last_call.max(heard);
        let until = last_call + PRESENT_MS;
        if seen.presence == Presence::Present && self.kit.now() < until {
            commit.replace(name, Some(version), &Seen { last_call, ..seen });
            commit.due.push(DueChange::Set { name: name.to_owned(), at: until });
            return Ok(commit);
        }
        commit.due.push(DueChange::Clear { name: name.to_owned() });
        if seen.presence == Presence::Present {
            let away = Seen { presence: Presence::Away, since: last_call, last_call };
            commit.replace(name, Some(version), &away);
            let called = self.board(project).await?.agent(agent).map(|record| record.name.clone());
            let data = json!({"agent": agent, "name": called, "since": last_call.to_rfc3339()});
            commit.events.push(NewEvent::new("agent.away", Actor::host(), agent, data));
        }
        Ok(commit)
    }

    /// Returns when an agent last called this host, or started.
    #[must_use]
    pub fn last_call(&self, agent: &AgentRecord) -> TimeMs {
        let heard = self.heard.lock().get(&agent.id).map(|heard| heard.last_call);
        heard.unwrap_or(agent.started_at).max(agent.started_at)
    }

    /// Returns the agents of a project, by name, with whether they are there, and since when.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn attendance(&self, project: ProjectId) -> Result<Vec<(Arc<AgentRecord>, Presence, TimeMs)>, Failure> {
        let board = self.board(project).await?;
        let seated = |Seat { agent, .. }| {
            let (presence, since) = self.standing(&board, &agent);
            (agent, presence, since)
        };
        Ok(board.roster().into_iter().map(seated).collect())
    }

    fn standing(&self, board: &Board, agent: &AgentRecord) -> (Presence, TimeMs) {
        let is_new = || self.kit.now().since_ms(self.last_call(agent)) < PRESENT_MS;
        match board.presence(agent.id) {
            Some(known) => known,
            // Of a host that noted no calls yet, or a part of this one.
            None if !comes_and_goes(agent) || is_new() => (Presence::Present, agent.started_at),
            None => (Presence::Away, self.last_call(agent)),
        }
    }
}
