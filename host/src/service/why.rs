//! Why something stands where it stands: its causal chain from the log, the oldest first, and whose move it is.
//!
//! Owns: which events belong to a message, delivery, task or merge. Must not know who asks. `words` says what an event means,
//! `stands` what the whole comes to; both are pure.
//!
//! **Invariant:** what is read of a log is bounded, and an answer that may miss something says so. There is no index by subject:
//! the chain's beginning is found by its time, in as many reads as the log's length has binary digits.

mod stands;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use pointsman_core::agent::{AgentRecord, ProjectRecord};
use pointsman_core::event::Event;
use pointsman_core::ids::{MergeId, MessageId, ProjectId, TaskId};
use pointsman_core::merge::Merge;
use pointsman_core::message::Message;
use pointsman_core::task::{Task, TaskState};
use pointsman_core::time::TimeMs;
use serde_json::Value;

use self::stands::Stands;
use super::failure::Failure;
use super::surface::Services;
use crate::ports::admin::{Explained, WhyQuery, WhyStep};

/// Events read at once.
const PAGE_EVENTS: usize = 1_024;
/// Events one question reads.
const EVENTS_READ_MAX: usize = 200_000;
/// Steps of an answer; of a longer chain the middle is left out.
const STEPS_MAX: usize = 500;
/// Of these, the oldest.
const FIRST_STEPS: usize = 100;

/// What is asked about, as its id names it.
enum Asked {
    /// A message, with what became of it with one agent where one is named.
    Message(MessageId, Option<String>),
    /// A task.
    Task(TaskId),
    /// A try to land one.
    Merge(MergeId),
}

/// What is asked about, as it stands now.
enum Subject {
    /// A message.
    Message(Box<Message>),
    /// A message with one agent.
    Delivery(Box<Message>, Arc<AgentRecord>),
    /// A task, its newest merge, the tasks it waits for.
    Task(Box<Task>, Option<Box<Merge>>, Vec<Task>),
    /// A merge, its task, the tasks that one waits for.
    Merge(Box<Merge>, Box<Task>, Vec<Task>),
}

/// Names by id.
pub(super) struct Names(HashMap<String, String>);

impl Names {
    /// Returns the name of an agent, or the text itself.
    pub(super) fn of(&self, id: &str) -> String {
        self.0.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }
}

/// Explains.
///
/// # Errors
/// `not_found`, `bad_argument`.
pub(in crate::service) async fn explain(services: &Services, query: &WhyQuery) -> Result<Explained, Failure> {
    let asked = Asked::read(&query.id)?;
    let (project, subject) = find(services, query, &asked).await?;
    let agents = services.agents.agents(project.id).await?;
    let names = Names(agents.iter().map(|agent| (agent.id.to_string(), agent.name.clone())).collect());
    let (events, is_cut) = chain(services, project.id, &subject).await?;
    let Stands { says, move_of } = subject.stands(&events, &names, services.kit.now());
    Ok(Explained {
        project: project.slug,
        id: query.id.clone(),
        kind: subject.kind().to_owned(),
        steps: steps(&events, &names),
        stands: says,
        move_of,
        is_cut,
    })
}

impl Asked {
    fn read(id: &str) -> Result<Self, Failure> {
        let (head, agent) = id.split_once('/').map_or((id, None), |(head, agent)| (head, Some(agent)));
        if let Ok(message) = head.parse() {
            return Ok(Self::Message(message, agent.map(str::to_owned)));
        }
        match (head.parse(), head.parse(), agent) {
            (Ok(task), _, None) => Ok(Self::Task(task)),
            (_, Ok(merge), None) => Ok(Self::Merge(merge)),
            _ => {
                let shown: String = id.chars().take(80).collect();
                let advice = "Give a message (msg_…), a delivery (msg_…/AGENT), a task (T-3) or a merge (M-2).";
                Err(Failure::refused("bad_argument", format!("`{shown}` is none of these"), advice))
            }
        }
    }
}

/// Finds what is asked about in the one project that has it.
async fn find(services: &Services, query: &WhyQuery, asked: &Asked) -> Result<(ProjectRecord, Subject), Failure> {
    let projects = match &query.project {
        Some(slug) => vec![services.agents.project_by_slug(slug).await?],
        None => services.agents.projects().await?,
    };
    let mut found = Vec::new();
    for project in projects {
        if let Some(subject) = look(services, project.id, asked).await? {
            found.push((project, subject));
        }
    }
    if let [(one, _), (other, _), ..] = found.as_slice() {
        let why = format!("the projects `{}` and `{}` both have a {}", one.slug, other.slug, query.id);
        return Err(Failure::refused("bad_argument", why, "Name the project: `--project SLUG`, or `?project=SLUG`."));
    }
    found.pop().ok_or_else(|| {
        let advice = "Check the id and the project: `lookup` with `messages`, `tasks` or `merges` lists what there is.";
        Failure::refused("not_found", format!("no project has a {}", query.id), advice)
    })
}

async fn look(services: &Services, project: ProjectId, asked: &Asked) -> Result<Option<Subject>, Failure> {
    match asked {
        Asked::Message(id, agent) => {
            let Some(message) = if_there(services.messaging.message(project, *id).await)? else { return Ok(None) };
            let message = Box::new(message);
            match agent {
                None => Ok(Some(Subject::Message(message))),
                Some(agent) => Ok(Some(Subject::Delivery(message, services.agents.agent(project, agent).await?))),
            }
        }
        Asked::Task(id) => {
            let Some(task) = if_there(services.tasks.get(project, *id).await)? else { return Ok(None) };
            let latest = services.queue.latest(project, &task.value).await?.map(|merge| Box::new(merge.value));
            let waits_for = waits_for(services, project, &task.value).await?;
            Ok(Some(Subject::Task(Box::new(task.value), latest, waits_for)))
        }
        Asked::Merge(id) => {
            let Some(merge) = if_there(services.queue.get(project, *id).await)? else { return Ok(None) };
            let task = services.tasks.get(project, merge.value.task).await?.value;
            let waits_for = waits_for(services, project, &task).await?;
            Ok(Some(Subject::Merge(Box::new(merge.value), Box::new(task), waits_for)))
        }
    }
}

fn if_there<T>(read: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(Failure::Refused(refusal)) if refusal.code == "not_found" => Ok(None),
        Err(other) => Err(other),
    }
}

/// Returns the tasks that must land before this one, and have not.
async fn waits_for(services: &Services, project: ProjectId, task: &Task) -> Result<Vec<Task>, Failure> {
    let mut waits_for = Vec::new();
    for id in &task.depends_on {
        let needed = services.tasks.get(project, *id).await?.value;
        if needed.state != TaskState::Landed {
            waits_for.push(needed);
        }
    }
    Ok(waits_for)
}

impl Subject {
    fn kind(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::Delivery(..) => "delivery",
            Self::Task(..) => "task",
            Self::Merge(..) => "merge",
        }
    }

    /// Returns a time before which nothing of the chain happened.
    fn begins(&self) -> TimeMs {
        match self {
            Self::Message(message) | Self::Delivery(message, _) => message.sent_at,
            Self::Task(task, ..) => task.created_at,
            Self::Merge(merge, ..) => merge.queued_at,
        }
    }

    /// Returns whether an event belongs to the chain. `merges` are those of the task that were met so far.
    fn has(&self, event: &Event, merges: &mut BTreeSet<String>) -> bool {
        let event = &event.event;
        let is_sent = event.kind == "message.sent";
        let caused_by = |what: &str| event.causation.as_deref() == Some(what);
        match self {
            Self::Message(message) => {
                let id = message.id.to_string();
                event.subject == id || (is_sent && event.data["reply_to"] == *id)
            }
            Self::Delivery(message, agent) => {
                let (id, agent) = (message.id.to_string(), agent.id.to_string());
                let is_answer = is_sent && event.data["reply_to"] == *id && event.actor.agent.is_some_and(|by| by.to_string() == agent);
                (event.subject == id && (is_sent || concerns(&event.data, &agent))) || is_answer
            }
            Self::Task(task, ..) => {
                let id = task.id.to_string();
                let is_merge = event.kind.starts_with("merge.") && event.data["task"] == *id;
                if is_merge {
                    merges.insert(event.subject.clone());
                }
                let is_told = is_sent && (caused_by(&id) || merges.iter().any(|merge| caused_by(merge)));
                event.subject == id || is_merge || is_told
            }
            Self::Merge(merge, task, _) => {
                let is_verdict = event.kind == "task.reviewed" && event.subject == task.id.to_string();
                event.subject == merge.id.to_string() || (is_sent && caused_by(&merge.id.to_string())) || is_verdict
            }
        }
    }

    fn stands(&self, events: &[Event], names: &Names, now: TimeMs) -> Stands {
        match self {
            Self::Message(message) => stands::message(message, events, names, None, now),
            Self::Delivery(message, agent) => stands::message(message, events, names, Some(agent.id), now),
            Self::Task(task, latest, waits_for) => stands::task(task, latest.as_deref(), waits_for, now),
            Self::Merge(merge, task, waits_for) => stands::merge(merge, task, waits_for, now),
        }
    }
}

/// Returns whether an event about a message concerns one agent.
fn concerns(data: &Value, agent: &str) -> bool {
    let lists = |field: &str| data[field].as_array().is_some_and(|all| all.iter().any(|one| one == agent));
    data["agent"] == agent || data["passed_to"] == agent || lists("agents") || lists("rest")
}

/// Reads the events of a chain, and whether some may be missing.
async fn chain(services: &Services, project: ProjectId, subject: &Subject) -> Result<(Vec<Event>, bool), Failure> {
    let store = &services.kit.store;
    let mut after = services.messaging.cursor_at(project, subject.begins()).await?;
    let (mut events, mut merges) = (Vec::new(), BTreeSet::new());
    let mut read = 0;
    let mut is_cut = false;
    loop {
        let page = store.events(Some(project), after, PAGE_EVENTS).await?;
        let Some(last) = page.last() else { return Ok((events, is_cut)) };
        after = last.cursor;
        read += page.len();
        for event in page {
            if !subject.has(&event, &mut merges) {
                continue;
            }
            if events.len() >= STEPS_MAX {
                events.remove(FIRST_STEPS);
                is_cut = true;
            }
            events.push(event);
        }
        if read >= EVENTS_READ_MAX {
            let is_end = after >= store.head(Some(project)).await?;
            return Ok((events, is_cut || !is_end));
        }
    }
}

fn steps(events: &[Event], names: &Names) -> Vec<WhyStep> {
    let mut earlier = None;
    let step = |event: &Event| {
        let after_ms = event.at.since_ms(earlier.unwrap_or(event.at));
        earlier = Some(event.at);
        WhyStep {
            at: event.at,
            after_ms,
            says: words::of(event, names),
            by: event.event.actor.name.clone(),
            event: event.event.kind.clone(),
            subject: event.event.subject.clone(),
            cursor: event.cursor.to_string(),
        }
    };
    events.iter().map(step).collect()
}
