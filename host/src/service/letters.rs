//! Dead letters over all projects, as an operator selects them.
//!
//! A place to go on from is `<project>/<message>/<agent>` of the next letter.

use pointsman_core::agent::ProjectRecord;
use pointsman_core::ids::{AgentId, MessageId, ProjectId};
use pointsman_core::message::Message;

use crate::ports::letters::{
    LETTERS_COUNTED_MAX, LETTERS_LISTED, LETTERS_LISTED_MAX, LetterEnd, LetterListed, LetterOutcome, LetterPage, LetterSelection,
    LetterShown, LetterVerb, LettersChanged, MessagesKept, Run,
};
use crate::service::failure::Failure;
use crate::service::messaging::{Letter, LetterChange, LetterFilter};
use crate::service::surface::Services;

/// What the keys of dead letters begin with, in a place to go on from.
const KEYS: &str = "dead/";

/// A letter and whose it is.
struct Found {
    project: ProjectId,
    listed: LetterListed,
}

/// Dead letters of some projects, and where to go on.
struct Selected {
    found: Vec<Found>,
    next: Option<String>,
}

/// Returns how the messages of each project stand.
///
/// # Errors
/// [`Failure`].
pub async fn kept(services: &Services) -> Result<Vec<MessagesKept>, Failure> {
    let mut all = Vec::new();
    for ProjectRecord { id, slug, .. } in services.agents.projects().await? {
        let dead_letters = services.messaging.count_letters(id, LETTERS_COUNTED_MAX).await?;
        all.push(MessagesKept { project: slug, dead_letters, pruned: services.messaging.pruned(id).await? });
    }
    Ok(all)
}

/// Returns a page of dead letters.
///
/// # Errors
/// `bad_argument`, `not_found`, or [`Failure`].
pub async fn list(services: &Services, selection: &LetterSelection) -> Result<LetterPage, Failure> {
    let Selected { found, next } = select(services, selection, limit(selection)).await?;
    Ok(LetterPage { letters: found.into_iter().map(|found| found.listed).collect(), next })
}

/// Returns a message with its dead letters and its history.
///
/// # Errors
/// `not_found`.
pub async fn show(services: &Services, id: MessageId) -> Result<LetterShown, Failure> {
    let Some((record, message)) = find(services, id).await? else {
        let advice = "`pointsman letters list` shows the dead letters; what is settled is removed after a while.";
        return Err(Failure::refused("not_found", format!("no project has a message {id}"), advice));
    };
    let selection = LetterSelection { project: Some(record.slug.clone()), messages: vec![id], ..LetterSelection::default() };
    let letters = list(services, &selection).await?.letters;
    let (history, is_whole) = services.messaging.history(&message).await?;
    let message = serde_json::to_value(&message).unwrap_or_default();
    Ok(LetterShown { project: record.slug, message, letters, history, is_whole })
}

/// Does something with the dead letters that are selected, or counts them.
///
/// # Errors
/// `bad_argument`, `not_found`, or [`Failure`].
pub async fn change(services: &Services, verb: LetterVerb, run: Run, selection: &LetterSelection) -> Result<LettersChanged, Failure> {
    if !selection.is_narrow() && !selection.all {
        let advice = "Name messages, a project, an agent, a kind or an age; or say that all are meant.";
        return Err(Failure::refused("bad_argument", "nothing says which dead letters are meant", advice));
    }
    if run == Run::Dry {
        return count(services, selection).await;
    }
    let Selected { found, next } = select(services, selection, limit(selection)).await?;
    let mut changed = LettersChanged { selected: found.len(), next, ..LettersChanged::default() };
    for Found { project, listed } in found {
        let change = services.messaging.change_letter(project, listed.message, listed.agent_id, verb).await?;
        changed.changed += usize::from(matches!(change.end, LetterEnd::Revived | LetterEnd::Purged));
        changed.letters.push(outcome(services, project, listed, change).await);
    }
    // Said once, with the first page, where that is the only one.
    let unsaid = if selection.after.is_none() && changed.next.is_none() { selection.messages.as_slice() } else { &[] };
    for &message in unsaid {
        if !changed.letters.iter().any(|outcome| outcome.message == message) {
            changed.letters.push(without_letter(services, message).await?);
        }
    }
    Ok(changed)
}

async fn outcome(services: &Services, project: ProjectId, listed: LetterListed, change: LetterChange) -> LetterOutcome {
    let to = match change.to {
        Some(agent) => Some(name(services, project, agent).await),
        None => None,
    };
    LetterOutcome {
        project: Some(listed.project),
        message: listed.message,
        agent: Some(listed.agent),
        outcome: change.end,
        to,
        why: change.why,
    }
}

/// Returns what is said of a message that has no dead letter: where it is known, nothing is to be done.
async fn without_letter(services: &Services, id: MessageId) -> Result<LetterOutcome, Failure> {
    let found = find(services, id).await?;
    let (outcome, why) = match &found {
        Some(_) => (LetterEnd::Unchanged, "it has no dead letter, or none that was selected"),
        None => (LetterEnd::Refused, "there is no such message"),
    };
    let project = found.map(|(record, _)| record.slug);
    Ok(LetterOutcome { project, message: id, agent: None, outcome, to: None, why: Some(why.to_owned()) })
}

/// Counts all dead letters that are selected.
async fn count(services: &Services, selection: &LetterSelection) -> Result<LettersChanged, Failure> {
    let mut selection = selection.clone();
    let mut selected = 0;
    loop {
        let page = select(services, &selection, LETTERS_LISTED_MAX).await?;
        selected += page.found.len();
        match page.next {
            Some(next) => selection.after = Some(next),
            None => return Ok(LettersChanged { selected, ..LettersChanged::default() }),
        }
    }
}

fn limit(selection: &LetterSelection) -> usize {
    selection.limit.unwrap_or(LETTERS_LISTED).clamp(1, LETTERS_LISTED_MAX)
}

async fn select(services: &Services, selection: &LetterSelection, limit: usize) -> Result<Selected, Failure> {
    let (mut at_project, mut from) = (None, String::new());
    if let Some(after) = &selection.after {
        let place = after.split_once('/').and_then(|(project, key)| Some((project.parse::<ProjectId>().ok()?, key)));
        let wrong =
            || Failure::refused("bad_argument", "`after` is no place in a list of dead letters", "Give the `next` of the page before.");
        let (project, key) = place.ok_or_else(wrong)?;
        at_project = Some(project);
        from = format!("{KEYS}{key}");
    }
    let projects = match &selection.project {
        Some(slug) => vec![services.agents.project_by_slug(slug).await?],
        None => services.agents.projects().await?,
    };
    let mut found = Vec::new();
    let skipped = projects.into_iter().skip_while(|record| at_project.is_some_and(|at| at != record.id));
    for record in skipped {
        let Some(filter) = filter(services, record.id, selection).await? else { continue };
        let filters: Vec<LetterFilter> = match selection.messages.as_slice() {
            [] => vec![filter],
            messages => {
                let mut messages = messages.to_vec();
                messages.sort_unstable();
                messages.dedup();
                messages.into_iter().map(|message| LetterFilter { message: Some(message), ..filter.clone() }).collect()
            }
        };
        for filter in filters {
            let page = services.messaging.letters(record.id, &filter, &from, limit - found.len()).await?;
            for letter in page.letters {
                found.push(Found { project: record.id, listed: listed(services, &record, letter).await });
            }
            if let Some(key) = page.next {
                let next = Some(format!("{}/{}", record.id, key.strip_prefix(KEYS).unwrap_or(&key)));
                return Ok(Selected { found, next });
            }
        }
        from.clear();
    }
    Ok(Selected { found, next: None })
}

/// Returns the filter for one project; none: nothing of it is selected.
async fn filter(services: &Services, project: ProjectId, selection: &LetterSelection) -> Result<Option<LetterFilter>, Failure> {
    let agent = match &selection.agent {
        Some(named) => match services.agents.agent(project, named).await {
            Ok(agent) => Some(agent.id),
            Err(Failure::Refused(_)) => return Ok(None),
            Err(failure) => return Err(failure),
        },
        None => None,
    };
    let until = selection.older_than_ms.map(|ms| services.kit.now() - ms);
    Ok(Some(LetterFilter { agent, kind: selection.kind.clone(), until, message: None }))
}

async fn listed(services: &Services, record: &ProjectRecord, letter: Letter) -> LetterListed {
    let Letter { delivery, dead_at, reason, message } = letter;
    LetterListed {
        project: record.slug.clone(),
        message: message.id,
        agent: name(services, record.id, delivery.agent).await,
        agent_id: delivery.agent,
        kind: message.kind,
        subject: message.subject,
        from: message.from.name,
        sent_at: message.sent_at,
        dead_at,
        attempts: delivery.attempts,
        reason,
    }
}

async fn name(services: &Services, project: ProjectId, agent: AgentId) -> String {
    let known = services.agents.agent(project, &agent.to_string()).await;
    known.map_or_else(|_| agent.to_string(), |agent| agent.name.clone())
}

/// Returns a message of whichever project has it.
async fn find(services: &Services, id: MessageId) -> Result<Option<(ProjectRecord, Message)>, Failure> {
    for record in services.agents.projects().await? {
        match services.messaging.message(record.id, id).await {
            Ok(message) => return Ok(Some((record, message))),
            Err(Failure::Refused(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}
