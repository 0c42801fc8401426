//! Who works here: projects, the tokens that open them, the agents behind the tokens.
//!
//! Owns: names, grants, handles, presence, the snapshot of a project's agents. Must not know: what they do.
//!
//! **Invariants:** identity comes from the credential; an argument, a session or a handle only selects among the agents of
//! the principal the credential names. An agent never has a capability that its token does not grant.

mod access;
mod board;
mod handle;
mod latency;
mod presence;
mod tokens;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pointsman_core::agent::{AgentRecord, TokenRecord};
use pointsman_core::capability::Capability;
use pointsman_core::event::{NewEvent, Provenance};
use pointsman_core::ids::{AgentId, PrincipalId, ProjectId, TokenId};
use pointsman_core::limits::{CAPABILITIES_MAX, TITLE_CHARS_MAX, TOPICS_MAX};
use pointsman_core::message::{check_agent_name, check_label};
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use access::{Access, LOCAL_PRINCIPAL, OAuth, ScopeGrant, resource};
pub(in crate::service) use board::{Board, Seat, Standing};
pub(in crate::service) use latency::Times;
pub(in crate::service) use presence::PRESENCE;
pub use presence::Presence;
pub use tokens::NewToken;

use super::failure::Failure;
use super::kit::{Acting, CommitExt, Kit, Loaded};
use super::messaging::stage_route_now;
use super::meters::seconds;
use crate::ports::metrics::{Family, Measured, Sample};
use crate::ports::resident::ResidentDescription;
use crate::ports::store::Commit;
use crate::ports::surface::Caller;
use access::Gate;
use handle::{HandleError, Handles};
use latency::Latency;
use presence::Heard;
use tokens::Admissions;

/// Where agents stand.
const AGENTS: &str = "agent/";
/// When to come back for what cannot be done while the store is away.
pub(in crate::service) const AWAY_RETRY_MS: u64 = 1_000;
/// Agents of one project.
const AGENTS_MAX: usize = 10_000;

/// Returns the key of an agent.
#[must_use]
pub fn agent_key(id: AgentId) -> String {
    format!("{AGENTS}{id}")
}

fn name_key(name: &str) -> String {
    format!("agent-name/{name}")
}

fn tally_key(id: AgentId) -> String {
    format!("{TALLIES}{id}")
}

/// Where tallies stand.
const TALLIES: &str = "agent-tally/";

/// Which agent has a name.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Named(AgentId);

impl Stored for Named {
    const NAME: &'static str = "agent name";
}

/// What an agent did with its deliveries. Apart from its record, so that acks never meet claims.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(in crate::service) struct Tally {
    /// Acknowledged.
    pub(in crate::service) acked: u32,
    /// Given back, or let lapse.
    pub(in crate::service) nacked: u32,
}

impl Stored for Tally {
    const NAME: &'static str = "tally";
}

impl Tally {
    /// Writes an agent's tally, raised by `more`, into a commit.
    pub(in crate::service) async fn raise(kit: &Kit, commit: &mut Commit, agent: AgentId, more: Self) -> Result<(), Failure> {
        if more.acked == 0 && more.nacked == 0 {
            return Ok(());
        }
        let key = tally_key(agent);
        let stored = kit.load::<Self>(commit.project, &key).await?;
        let version = stored.as_ref().map(|stored| stored.version);
        let before = stored.map(|stored| stored.value).unwrap_or_default();
        let after = Self { acked: before.acked.saturating_add(more.acked), nacked: before.nacked.saturating_add(more.nacked) };
        commit.replace(key, version, &after);
        Ok(())
    }
}

/// What an agent says of itself. What it leaves out stays as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StartRequest {
    /// Its name, unique in the project; none: its principal's name.
    pub name: Option<String>,
    /// What it can do.
    pub capabilities: Option<Vec<String>>,
    /// Teams it belongs to.
    pub teams: Option<Vec<String>>,
    /// Topics it subscribes to.
    pub topics: Option<Vec<String>>,
    /// The model behind it.
    pub model: Option<String>,
}

/// An agent that started.
#[derive(Debug, Clone)]
pub struct Started {
    /// As it is now.
    pub agent: AgentRecord,
    /// Selects it in later calls of the same principal.
    pub handle: String,
    /// Whether nobody had this name before.
    pub is_new: bool,
}

/// Projects, tokens and agents.
pub struct Agents {
    kit: Kit,
    handles: Handles,
    admissions: Admissions,
    gate: Gate,
    heard: Mutex<HashMap<AgentId, Heard>>,
    boards: Mutex<HashMap<ProjectId, Arc<Board>>>,
}

impl Agents {
    /// Returns the service. Handles are sealed with a key derived from the host's root key.
    #[must_use]
    pub fn new(kit: Kit) -> Self {
        let handles = Handles::new(kit.keys.derive("agent-handle"));
        Self { kit, handles, admissions: Admissions::default(), gate: Gate::default(), heard: Mutex::default(), boards: Mutex::default() }
    }

    /// Starts an agent, or starts it again: the same name of the same principal is the same agent.
    ///
    /// # Errors
    /// `bad_argument`, `bad_capability`, `not_granted`, `name_taken`, `too_many`.
    pub async fn start(&self, caller: &Caller, request: &StartRequest) -> Result<Started, Failure> {
        let claims = Claims::check(&caller.token, request)?;
        let ((agent, is_new), _) = self.kit.decide(|| self.decide_start(caller, &claims)).await?;
        self.started(agent.id);
        let handle = self.handles.seal(&*self.kit.system, agent.id, agent.principal);
        Ok(Started { agent, handle, is_new })
    }

    async fn decide_start(&self, caller: &Caller, claims: &Claims) -> Result<(Commit, (AgentRecord, bool)), Failure> {
        let project = caller.project;
        let now = self.kit.now();
        let mut commit = Commit { project: Some(project), ..Commit::default() };
        let found = self.find(project, &claims.name).await?;
        let is_new = found.is_none();
        let (mut agent, version) = match found {
            Some(Loaded { value, version }) if value.principal == caller.token.principal => (value, Some(version)),
            Some(_) => {
                return Err(Failure::refused(
                    "name_taken",
                    format!("another principal's agent is called `{}`", claims.name),
                    "Start under another name.",
                ));
            }
            None => {
                if self.board(project).await?.roster().len() >= AGENTS_MAX {
                    return Err(Failure::refused(
                        "too_many",
                        format!("the project has {AGENTS_MAX} agents"),
                        "Start under a name used before.",
                    ));
                }
                let agent = claims.new_agent(AgentId::new(now, self.kit.system.id_bytes()), &caller.token, now);
                commit.replace(name_key(&agent.name), None, &Named(agent.id));
                (agent, None)
            }
        };
        claims.update(&mut agent, &caller.token, now);
        commit.replace(agent_key(agent.id), version, &agent);
        let data = json!({
            "agent": agent.id, "name": agent.name, "capabilities": agent.capabilities, "teams": agent.teams,
            "topics": agent.topics, "model": agent.model, "new": is_new,
        });
        let mut event = NewEvent::new("agent.started", agent.actor(), agent.id, data);
        event.trace = Some(caller.trace.clone());
        commit.events.push(event);
        self.stage_present(&mut commit, &agent).await?;
        stage_route_now(&self.kit, &mut commit).await?;
        Ok((commit, (agent, is_new)))
    }

    /// Makes a component an agent of a project, so that messages reach it; one that was it before is brought up to date.
    ///
    /// # Errors
    /// `bad_argument`, `bad_capability`, `name_taken`.
    pub(in crate::service) async fn enrol(
        &self,
        project: ProjectId,
        plugin: &str,
        description: &ResidentDescription,
    ) -> Result<AgentRecord, Failure> {
        let now = self.kit.now();
        let token = resident_token(project, plugin, now);
        let request = StartRequest {
            name: Some(description.name.clone()),
            capabilities: Some(description.capabilities.clone()),
            ..StartRequest::default()
        };
        let claims = Claims::check(&token, &request)?;
        let trace = format!("resident-{plugin}");
        let caller = Caller { token: Arc::new(token), project, handle: None, trace };
        let ((agent, _), _) = self.kit.decide(|| self.decide_start(&caller, &claims)).await?;
        self.touch(agent.id);
        Ok(agent)
    }

    async fn find(&self, project: ProjectId, name: &str) -> Result<Option<Loaded<AgentRecord>>, Failure> {
        match self.kit.load::<Named>(Some(project), &name_key(name)).await? {
            Some(named) => self.kit.load(Some(project), &agent_key(named.value.0)).await,
            None => Ok(None),
        }
    }

    /// Returns the agent a call is made by: the one its argument names, else the one its session or handle selects, else
    /// the one the principal started last. Counts as a sign of life.
    ///
    /// # Errors
    /// `not_found`, `not_yours`, `bad_handle`, `start_first`.
    pub async fn resolve(&self, caller: &Caller, agent: Option<&str>) -> Result<Arc<AgentRecord>, Failure> {
        let found = self.meant(caller, agent).await?;
        self.renew(caller.project, &found).await;
        Ok(found)
    }

    async fn meant(&self, caller: &Caller, agent: Option<&str>) -> Result<Arc<AgentRecord>, Failure> {
        let board = self.board_as_known(caller.project).await?;
        match agent.or(caller.handle.as_deref()) {
            Some(text) => self.select(caller, &board, text),
            None => board.last_started(caller.token.principal).ok_or_else(|| {
                Failure::refused("start_first", "no agent of this credential has started in this project", "Call `start` first.")
            }),
        }
    }

    /// Returns the act of a call: [`Agents::resolve`] with what events need.
    ///
    /// # Errors
    /// As [`Agents::resolve`].
    pub async fn acting(&self, caller: &Caller, agent: Option<&str>) -> Result<Acting, Failure> {
        let agent = self.resolve(caller, agent).await?;
        let principal_name = caller.token.principal_name.clone();
        Ok(Acting { project: caller.project, agent, principal_name, trace: caller.trace.clone() })
    }

    /// Returns the act of somebody who looks on an agent's behalf: as [`Agents::acting`], but no sign of life of the agent.
    ///
    /// # Errors
    /// As [`Agents::resolve`].
    pub async fn on_behalf(&self, caller: &Caller, agent: Option<&str>) -> Result<Acting, Failure> {
        let agent = self.meant(caller, agent).await?;
        let principal_name = caller.token.principal_name.clone();
        Ok(Acting { project: caller.project, agent, principal_name, trace: caller.trace.clone() })
    }

    fn select(&self, caller: &Caller, board: &Board, text: &str) -> Result<Arc<AgentRecord>, Failure> {
        let principal = caller.token.principal;
        let not_yours = || {
            Failure::refused(
                "not_yours",
                "the agent belongs to another principal",
                "Use the handle that your own `start` gave you, or the name of an agent you started.",
            )
        };
        let found = if handle::is_handle(text) {
            let sealed = self.handles.open(text).map_err(|HandleError| {
                Failure::refused(
                    "bad_handle",
                    "the agent handle cannot be read: it was cut, changed, or made by another host",
                    "Call `start` again.",
                )
            })?;
            if sealed.principal != principal {
                return Err(not_yours());
            }
            board.agent(sealed.agent)
        } else {
            board.named(text)
        };
        let found = found.ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            Failure::refused("not_found", format!("this project has no agent `{shown}`"), "Call `start`; `lookup` lists the agents.")
        })?;
        if found.principal == principal { Ok(found) } else { Err(not_yours()) }
    }

    /// Returns the agents of a project, by name, with their tallies filled in.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn agents(&self, project: ProjectId) -> Result<Vec<Arc<AgentRecord>>, Failure> {
        Ok(self.board(project).await?.roster().into_iter().map(|seat| seat.agent).collect())
    }

    /// Returns an agent of a project, by name or id.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn agent(&self, project: ProjectId, name_or_id: &str) -> Result<Arc<AgentRecord>, Failure> {
        let board = self.board(project).await?;
        board.named(name_or_id).ok_or_else(|| {
            let shown: String = name_or_id.chars().take(80).collect();
            let names: Vec<String> = board.roster().iter().take(20).map(|seat| seat.agent.name.clone()).collect();
            let advice = format!("The agents here are: {}.", if names.is_empty() { "none".to_owned() } else { names.join(", ") });
            Failure::refused("not_found", format!("this project has no agent `{shown}`"), advice)
        })
    }

    /// Returns what is known of a project's agents and inboxes, up to the end of its log.
    pub(in crate::service) async fn board(&self, project: ProjectId) -> Result<Arc<Board>, Failure> {
        let board = Arc::clone(self.boards.lock().entry(project).or_insert_with(|| Arc::new(Board::new(project))));
        board.catch_up(&self.kit).await?;
        Ok(board)
    }

    /// Returns the board of a project; while the store is away, as it was last known: for who somebody is and whom a message goes to.
    pub(in crate::service) async fn board_as_known(&self, project: ProjectId) -> Result<Arc<Board>, Failure> {
        match self.board(project).await {
            Err(Failure::Unavailable { .. }) if self.kit.store.is_away() => {
                let known = self.boards.lock().get(&project).map(Arc::clone);
                known.filter(|board| board.is_read()).ok_or(Failure::Unavailable { retry_after_ms: AWAY_RETRY_MS })
            }
            board => board,
        }
    }
}

impl Measured for Agents {
    fn families(&self) -> Vec<Family> {
        let mut all = Latency::default();
        let boards: Vec<Arc<Board>> = self.boards.lock().values().cloned().collect();
        boards.iter().for_each(|board| board.add_latency(&mut all));
        let stages = [("seen", &all.seen), ("acted", &all.acted)].into_iter().filter(|(_, times)| times.count() > 0);
        let sample = |(stage, times): (&str, &Times)| {
            let (bounds_us, classes, sum_us) = times.parts();
            Sample { labels: vec![("stage", stage.to_owned())], value: seconds(&bounds_us, classes, sum_us) }
        };
        let help =
            "How long messages lay in an inbox until they were first handed out (seen), and from there until they were acked (acted).";
        vec![Family { name: "pointsman_delivery_seconds", help, samples: stages.map(sample).collect() }]
    }
}

/// Returns what stands for a credential where a component acts: there is no secret to it, and no way to present it.
fn resident_token(project: ProjectId, plugin: &str, now: TimeMs) -> TokenRecord {
    let digest = blake3::derive_key("pointsman resident principal 2026", plugin.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    TokenRecord {
        id: TokenId::from_bytes(id),
        principal: PrincipalId::from_bytes(id),
        principal_name: principal_of(plugin),
        provenance: Provenance::Plugin,
        projects: vec![project],
        capabilities: Vec::new(),
        toolsets: Vec::new(),
        created_at: now,
        expires_at: None,
        revoked_at: None,
    }
}

/// Returns the name of the principal that a component acts for: one that no token can have.
#[must_use]
pub(in crate::service) fn principal_of(plugin: &str) -> String {
    format!("plugin:{plugin}")
}

/// A checked [`StartRequest`].
struct Claims {
    name: String,
    capabilities: Option<Vec<Capability>>,
    teams: Option<Vec<String>>,
    topics: Option<Vec<String>>,
    model: Option<String>,
}

impl Claims {
    fn check(token: &TokenRecord, request: &StartRequest) -> Result<Self, Failure> {
        let name = request.name.clone().unwrap_or_else(|| token.principal_name.clone());
        let wrong = |field: &str, why: String| Failure::refused("bad_argument", format!("`{field}`: {why}"), "Correct it and start again.");
        check_agent_name(&name).map_err(|error| wrong("name", error.to_string()))?;
        if handle::is_handle(&name) || name.parse::<AgentId>().is_ok() {
            return Err(wrong("name", "it looks like an id".to_owned()));
        }
        for (field, labels) in [("teams", &request.teams), ("topics", &request.topics)] {
            let labels = labels.as_deref().unwrap_or_default();
            if labels.len() > TOPICS_MAX {
                return Err(wrong(field, format!("it has {} entries, at most {TOPICS_MAX} are allowed", labels.len())));
            }
            labels.iter().try_for_each(|label| check_label(label)).map_err(|error| wrong(field, error.to_string()))?;
        }
        if request.model.as_ref().is_some_and(|model| model.chars().count() > TITLE_CHARS_MAX) {
            return Err(wrong("model", format!("it is longer than {TITLE_CHARS_MAX} characters")));
        }
        let capabilities = request.capabilities.as_deref().map(|texts| capabilities(token, texts)).transpose()?;
        Ok(Self { name, capabilities, teams: request.teams.clone(), topics: request.topics.clone(), model: request.model.clone() })
    }

    fn new_agent(&self, id: AgentId, token: &TokenRecord, now: TimeMs) -> AgentRecord {
        AgentRecord {
            id,
            principal: token.principal,
            principal_name: token.principal_name.clone(),
            provenance: token.provenance,
            name: self.name.clone(),
            capabilities: Vec::new(),
            teams: Vec::new(),
            topics: Vec::new(),
            model: None,
            tasks: Vec::new(),
            started_at: now,
            acked: 0,
            nacked: 0,
        }
    }

    fn update(&self, agent: &mut AgentRecord, token: &TokenRecord, now: TimeMs) {
        agent.started_at = now;
        agent.provenance = token.provenance;
        agent.principal_name.clone_from(&token.principal_name);
        if let Some(capabilities) = &self.capabilities {
            agent.capabilities.clone_from(capabilities);
        }
        // A token with fewer grants than the one it started with before takes what it no longer grants.
        agent.capabilities.retain(|capability| is_granted(token, capability));
        if let Some(teams) = &self.teams {
            agent.teams.clone_from(teams);
        }
        if let Some(topics) = &self.topics {
            agent.topics.clone_from(topics);
        }
        if self.model.is_some() {
            agent.model.clone_from(&self.model);
        }
    }
}

fn is_granted(token: &TokenRecord, capability: &Capability) -> bool {
    token.capabilities.is_empty() || token.capabilities.contains(&capability.name)
}

fn capabilities(token: &TokenRecord, texts: &[String]) -> Result<Vec<Capability>, Failure> {
    if texts.len() > CAPABILITIES_MAX {
        let why = format!("`capabilities` has {} entries, at most {CAPABILITIES_MAX} are allowed", texts.len());
        return Err(Failure::refused("bad_argument", why, "Name the ones others will ask for."));
    }
    let mut parsed: Vec<Capability> = Vec::new();
    for text in texts {
        let capability = text.parse::<Capability>().map_err(|error| {
            Failure::refused("bad_capability", error.to_string(), "Write it as `name`, `name@1.2.3` or `name{key=value}`.")
        })?;
        if !parsed.contains(&capability) {
            parsed.push(capability);
        }
    }
    let missing: Vec<String> = parsed.iter().filter(|offered| !is_granted(token, offered)).map(|offered| offered.name.clone()).collect();
    if missing.is_empty() {
        return Ok(parsed);
    }
    Err(Failure::refused_with(
        "not_granted",
        format!("the credential does not grant {}", missing.join(", ")),
        format!("Start with some of: {}. The operator grants more.", token.capabilities.join(", ")),
        json!({"not_granted": missing, "granted": token.capabilities}),
    ))
}
