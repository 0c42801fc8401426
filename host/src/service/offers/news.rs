//! The news of a project: what its event log says changed, beside what components announce. One reader of the log for all who
//! listen; it ends when nobody does.

use std::sync::Arc;

use pointsman_core::context::SUBJECT_PREFIX;
use pointsman_core::event::{Cursor, NewEvent};
use pointsman_core::ids::{MergeId, ProjectId, TaskId};
use tokio::sync::broadcast;

use super::OfferBook;
use crate::ports::offering::News;
use crate::service::failure::Failure;
use crate::service::kit::{Kit, chain};

/// News a listener may fall behind before it is told that everything may have changed.
const NEWS_MAX: usize = 256;
/// Events read at once.
const PAGE_EVENTS: usize = 256;
/// Milliseconds before a log that could not be read is read again.
const RETRY_MS: u64 = 1_000;
/// Milliseconds without an event after which it is looked whether anybody still listens.
const LOOK_MS: u64 = 60_000;

/// Returns a receiver that misses nothing from here on.
pub(super) async fn subscribe(book: &Arc<OfferBook>, kit: &Kit, project: ProjectId) -> Result<broadcast::Receiver<News>, Failure> {
    if let Some(hub) = book.hubs.lock().get(&project) {
        return Ok(hub.subscribe());
    }
    let head = kit.store.head(Some(project)).await?;
    let mut hubs = book.hubs.lock();
    if let Some(hub) = hubs.get(&project) {
        return Ok(hub.subscribe());
    }
    let (hub, receiver) = broadcast::channel(NEWS_MAX);
    hubs.insert(project, hub);
    drop(hubs);
    tokio::spawn(read_log(Arc::clone(book), kit.clone(), project, head));
    Ok(receiver)
}

async fn read_log(book: Arc<OfferBook>, kit: Kit, project: ProjectId, mut after: Cursor) {
    let mut hint = kit.store.watch(Some(project));
    loop {
        hint.borrow_and_update();
        let page = match kit.store.events(Some(project), after, PAGE_EVENTS).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%project, error = %chain(&error), "the log could not be read for those who listen");
                tokio::time::sleep(std::time::Duration::from_millis(RETRY_MS)).await;
                continue;
            }
        };
        let is_end = page.len() < PAGE_EVENTS;
        for event in page {
            after = event.cursor;
            for uri in changed(&event.event) {
                book.announce(project, News::Resource(uri.into()));
            }
        }
        if !is_end {
            continue;
        }
        let waited = tokio::time::timeout(std::time::Duration::from_millis(LOOK_MS), hint.changed()).await;
        if matches!(waited, Ok(Err(_))) {
            hint = kit.store.watch(Some(project));
        }
        let mut hubs = book.hubs.lock();
        if hubs.get(&project).is_none_or(|hub| hub.receiver_count() == 0) {
            hubs.remove(&project);
            return;
        }
    }
}

/// Returns the resources that an event changed.
fn changed(event: &NewEvent) -> Vec<String> {
    let subject = event.subject.as_str();
    let resource = |noun: &str, list: &str| vec![format!("pointsman://{noun}/{subject}"), format!("pointsman://{list}")];
    let of_branch = |task: &str| vec![format!("pointsman://conflict/{task}"), format!("pointsman://pull_request/{task}")];
    let mut uris = match event.kind.split_once('.').map(|(noun, _)| noun) {
        Some("task" | "branch") if subject.parse::<TaskId>().is_ok() => [resource("task", "tasks"), of_branch(subject)].concat(),
        Some("merge") if subject.parse::<MergeId>().is_ok() => {
            let task = event.data["task"].as_str().filter(|task| task.parse::<TaskId>().is_ok());
            [resource("merge", "merges"), task.map(of_branch).unwrap_or_default()].concat()
        }
        Some("context") => match subject.strip_prefix(SUBJECT_PREFIX) {
            Some(key) => vec![format!("pointsman://context/{key}"), "pointsman://context".to_owned()],
            None => Vec::new(),
        },
        Some("message") if event.kind == "message.dead_lettered" => {
            [resource("message", "messages"), vec!["pointsman://dead_letters".to_owned()]].concat()
        }
        Some("message") => resource("message", "messages"),
        // A component's own resource; the event's subject is its URI.
        Some("resource") => vec![subject.to_owned()],
        Some("agent") => vec!["pointsman://agents".to_owned()],
        _ => Vec::new(),
    };
    uris.push("pointsman://events".to_owned());
    uris
}

#[cfg(test)]
mod tests {
    use pointsman_core::event::Actor;
    use serde_json::json;

    use super::*;

    #[test]
    fn events_name_the_resources_they_change() {
        let with = |kind: &str, subject: &str, data| changed(&NewEvent::new(kind, Actor::host(), subject, data));
        let of = |kind: &str, subject: &str| with(kind, subject, json!({}));
        let branch = ["pointsman://conflict/T-3", "pointsman://pull_request/T-3", "pointsman://events"];
        assert_eq!(of("task.claimed", "T-3"), [&["pointsman://task/T-3", "pointsman://tasks"], &branch[..]].concat());
        assert_eq!(of("branch.pushed", "T-3"), of("task.claimed", "T-3"));
        let conflicted = with("merge.conflicted", "M-2", json!({"task": "T-3"}));
        assert_eq!(conflicted, [&["pointsman://merge/M-2", "pointsman://merges"], &branch[..]].concat());
        let dead = of("message.dead_lettered", "msg_1");
        assert_eq!(dead, ["pointsman://message/msg_1", "pointsman://messages", "pointsman://dead_letters", "pointsman://events"]);
        assert!(!of("message.acked", "msg_1").contains(&"pointsman://dead_letters".to_owned()));
        assert_eq!(of("context.written", "ctx:plan/api"), ["pointsman://context/plan/api", "pointsman://context", "pointsman://events"]);
        assert_eq!(of("resource.updated", "test://one"), ["test://one", "pointsman://events"]);
        assert_eq!(of("token.minted", "tok_1"), ["pointsman://events"]);
    }
}
