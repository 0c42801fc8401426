//! `lookup`: everything an agent may read, by a short name or `pointsman://` URI.

use std::borrow::Cow;

use pointsman_core::agent::AgentRecord;
use pointsman_core::capability::Capability;
use pointsman_core::event::Cursor;
use pointsman_core::ids::{AgentId, MergeId, MessageId, Oid, ProjectId, TaskId};
use pointsman_core::merge::MergeState;
use pointsman_core::time::TimeMs;
use serde::Serialize;
use serde_json::{Value, json};

use super::back::{GRAMMAR, Reader, back};
use super::documents::documents;
use super::own::SCHEME;
use super::{Said, Services};
use crate::service::agents::Presence;
use crate::service::failure::Failure;
use crate::service::merge_queue::receipt::SignedReceipt;
use crate::service::messaging::MessageFilter;

pub(super) const GO_ON: &str = "Go on with your task.";
/// Entries of a list.
const LISTED_MAX: usize = 100;
/// Events of one answer.
const EVENTS_MAX: usize = 50;
/// Events that are looked at for one answer, where the reader may hear of few.
const EVENTS_SCANNED_MAX: usize = 2_000;

/// Reads what `uri` names.
/// What is rarely asked for and takes much room is boxed: every call would carry that room.
///
/// # Errors
/// `not_found`, `bad_argument`.
pub(super) async fn lookup(services: &Services, reader: &Reader, uri: &str) -> Result<Said, Failure> {
    let project = reader.project;
    let path = uri.trim().strip_prefix("pointsman://").unwrap_or(uri.trim());
    if (path.starts_with("context") || path.starts_with("pack"))
        && let Some(said) = Box::pin(documents(services, reader, path)).await?
    {
        return Ok(said);
    }
    let is_back = path.contains('?') || path.starts_with("inbox") || path.starts_with("thr");
    if is_back && let Some(said) = Box::pin(back(services, reader, path)).await? {
        return Ok(said);
    }
    let (noun, rest) = path.split_once('/').unwrap_or((path, ""));
    let found = match (noun, rest) {
        ("tasks", "") => tasks(services, project).await?,
        ("agents", "") => {
            let agents = services.agents.attendance(project).await?;
            let listed = agents.iter().take(LISTED_MAX);
            let shown: Vec<_> = listed.map(|(agent, presence, since)| ShownAgent::of(agent, *presence, *since)).collect();
            return Ok(Said::new(&shown, GO_ON));
        }
        ("merges", "") => {
            let merges = services.queue.all(project).await?;
            let newest = merges.iter().rev().take(LISTED_MAX);
            json!(
                newest
                    .map(|merge| json!({"merge": merge.id, "task": merge.task, "agent": merge.agent_name, "state": merge.state_name()}))
                    .collect::<Vec<_>>()
            )
        }
        ("messages", "") => {
            json!(services.messaging.messages(project, &MessageFilter { limit: LISTED_MAX, ..MessageFilter::default() }).await?)
        }
        ("dead_letters", "") => json!(services.messaging.dead_letters(project).await?),
        ("pull_request", id) => {
            let task = id.parse::<TaskId>().map_err(|_| unknown(uri))?;
            json!(Box::pin(services.queue.pull_request(project, task)).await?)
        }
        ("conflict", id) => Box::pin(conflict(services, project, id.parse().map_err(|_| unknown(uri))?)).await?,
        ("receipt", commit) => Box::pin(receipt(services, project, commit.parse().map_err(|_| unknown(uri))?)).await?,
        ("events", after) => {
            let after = if after.is_empty() { Cursor::default() } else { after.parse().map_err(|_| unknown(uri))? };
            return Box::pin(events(services, reader, after)).await;
        }
        ("task" | "merge" | "message", id) if !id.is_empty() => by_id(services, project, id).await?.ok_or_else(|| unknown(uri))?,
        (id, "") => by_id(services, project, id).await?.ok_or_else(|| unknown(uri))?,
        _ => return Err(unknown(uri)),
    };
    let next = match (noun, rest) {
        ("conflict", id) => format!("Settle each file and call resolve_conflict(\"{id}\") with all of them.").into(),
        _ => Cow::Borrowed(GO_ON),
    };
    Ok(Said::new(&found, next))
}

/// Returns the events behind a cursor that the reader may hear of; where there are more, `more` goes on behind all that were looked at.
async fn events(services: &Services, reader: &Reader, after: Cursor) -> Result<Said, Failure> {
    let (mut shown, mut after, mut scanned) = (Vec::new(), after, 0);
    loop {
        let page = services.kit.store.events(Some(reader.project), after, EVENTS_MAX).await?;
        let is_end = page.len() < EVENTS_MAX;
        scanned += page.len();
        for event in page {
            if shown.len() >= EVENTS_MAX {
                break;
            }
            after = event.cursor;
            if services.contexts.may_hear(reader.project, &reader.viewer, &event.event.subject).await? {
                shown.push(event);
            }
        }
        let is_full = shown.len() >= EVENTS_MAX || scanned >= EVENTS_SCANNED_MAX;
        if is_end && shown.len() < EVENTS_MAX {
            return Ok(Said::new(&shown, GO_ON));
        }
        if is_full {
            let more = format!("{SCHEME}events/{after}");
            return Ok(Said { more: Some(Cow::Owned(more)), ..Said::new(&shown, "Look up `more` to read on.") });
        }
    }
}

/// An agent the way others read it.
#[derive(Serialize)]
struct ShownAgent<'a> {
    agent: &'a str,
    capabilities: &'a [Capability],
    #[serde(skip_serializing_if = "Option::is_none")]
    away_since: Option<String>,
    id: AgentId,
    presence: Presence,
    teams: &'a [String],
}

impl<'a> ShownAgent<'a> {
    fn of(agent: &'a AgentRecord, presence: Presence, since: TimeMs) -> Self {
        let away_since = (presence == Presence::Away).then(|| since.to_rfc3339());
        Self { agent: &agent.name, away_since, capabilities: &agent.capabilities, id: agent.id, presence, teams: &agent.teams }
    }
}

pub(super) fn unknown(uri: &str) -> Failure {
    Failure::refused(
        "not_found",
        format!("`{}` names nothing", uri.chars().take(80).collect::<String>()),
        format!(
            "Use tasks, agents, merges, messages, dead_letters, context, T-3, M-2, msg_…, context/KEY, context_conflict/ID, pack/T-3, pull_request/T-3, conflict/T-3, receipt/COMMIT, events, {GRAMMAR}."
        ),
    )
}

async fn by_id(services: &Services, project: ProjectId, id: &str) -> Result<Option<Value>, Failure> {
    if let Ok(task) = id.parse::<TaskId>() {
        let task = services.tasks.get(project, task).await?.value;
        return Ok(Some(json!(task)));
    }
    if let Ok(merge) = id.parse::<MergeId>() {
        return Ok(Some(json!(services.queue.get(project, merge).await?.value)));
    }
    if let Ok(message) = id.parse::<MessageId>() {
        return Ok(Some(json!(services.messaging.message(project, message).await?)));
    }
    Ok(None)
}

async fn tasks(services: &Services, project: ProjectId) -> Result<Value, Failure> {
    let all = services.tasks.all(project).await?;
    let newest = all.iter().rev().take(LISTED_MAX);
    let shown = newest.map(|task| {
        let holder = task.claim.as_ref().map(|claim| &claim.agent_name);
        json!({"task": task.id, "title": task.title, "state": task.state, "holder": holder, "progress": task.progress, "depends_on": task.depends_on})
    });
    Ok(json!(shown.collect::<Vec<_>>()))
}

/// Returns the three sides of every conflicted file, whole.
async fn conflict(services: &Services, project: ProjectId, id: TaskId) -> Result<Value, Failure> {
    let task = services.tasks.get(project, id).await?.value;
    let latest = services.queue.latest(project, &task).await?;
    let Some(MergeState::Conflicted { ours, conflicts }) = latest.map(|merge| merge.value.outcome) else {
        return Err(Failure::refused(
            "not_conflicted",
            format!("{id} has no conflict"),
            format!("Call lookup(\"{id}\") to see how it stands."),
        ));
    };
    let mut files = Vec::new();
    for conflict in conflicts {
        let mut sides = json!({"path": conflict.path, "kind": conflict.kind, "reasons": conflict.reasons});
        for (name, blob) in [("base", conflict.base), ("ours", conflict.ours), ("theirs", conflict.theirs)] {
            sides[name] = match blob {
                Some(blob) => String::from_utf8_lossy(&services.kit.repository.blob(project, blob).await?).into_owned().into(),
                None => Value::Null,
            };
        }
        files.push(sides);
    }
    Ok(json!({"task": id, "onto": ours, "files": files}))
}

async fn receipt(services: &Services, project: ProjectId, commit: Oid) -> Result<Value, Failure> {
    let note = services.kit.repository.receipt(project, commit).await?;
    let note =
        note.ok_or_else(|| Failure::refused("not_found", format!("{commit} has no receipt"), "Only landed merge commits have one."))?;
    let verified = SignedReceipt::verify(&note);
    Ok(match verified {
        Ok(receipt) => json!({"verified": true, "receipt": receipt}),
        Err(error) => json!({"verified": false, "why": error.to_string()}),
    })
}
