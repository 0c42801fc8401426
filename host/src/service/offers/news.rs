//! The news of a project: what its event log says changed, beside what components announce. One reader of the log for all who
//! listen; it ends when nobody does.

use std::sync::Arc;

use pointsman_core::context::{DocumentKey, SUBJECT_PREFIX};
use pointsman_core::event::{Cursor, NewEvent};
use pointsman_core::ids::{MergeId, ProjectId, TaskId};
use serde_json::Value;
use tokio::sync::broadcast;

use super::OfferBook;
use crate::ports::offering::{DocumentNews, DocumentWrite, News, Reach};
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
            for news in changed(event.event) {
                book.announce(project, news);
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

/// Returns what an event changed.
fn changed(event: NewEvent) -> Vec<News> {
    // The subject of a component's own resource is its URI, whatever that begins with.
    let subject = event.subject.strip_prefix(SUBJECT_PREFIX).filter(|_| !event.kind.starts_with("resource."));
    match subject.map(str::parse) {
        Some(Ok(key)) => vec![News::Document(Arc::new(of_document(key, event)))],
        // As everywhere: what is about no document that can be judged is told to nobody.
        Some(Err(_)) => Vec::new(),
        None => resources(&event).into_iter().map(|uri| News::Resource(uri.into())).collect(),
    }
}

/// Returns what an event changed of the document that it is about.
fn of_document(key: DocumentKey, mut event: NewEvent) -> DocumentNews {
    let write = match event.kind.as_str() {
        "context.written" | "context.deleted" => event.data["version"].as_u64().map(|version| DocumentWrite {
            version,
            before: event.data["from"].as_u64().or_else(|| event.data["parents"][0].as_u64()),
            patch: event.data.get_mut("patch").map(Value::take),
            author: event.actor.name,
            is_deleted: event.kind == "context.deleted",
            is_several: false,
        }),
        _ => None,
    };
    let is_changed = event.kind.starts_with("context.") && event.kind != "context.denied";
    DocumentNews { key, reach: if is_changed { Reach::Document } else { Reach::Log }, write }
}

/// Returns the resources, none of them a document, that an event changed.
fn resources(event: &NewEvent) -> Vec<String> {
    let subject = event.subject.as_str();
    let resource = |noun: &str, list: &str| vec![format!("pointsman://{noun}/{subject}"), format!("pointsman://{list}")];
    let of_branch = |task: &str| vec![format!("pointsman://conflict/{task}"), format!("pointsman://pull_request/{task}")];
    let mut uris = match event.kind.split_once('.').map(|(noun, _)| noun) {
        Some("task" | "branch") if subject.parse::<TaskId>().is_ok() => [resource("task", "tasks"), of_branch(subject)].concat(),
        Some("merge") if subject.parse::<MergeId>().is_ok() => {
            let task = event.data["task"].as_str().filter(|task| task.parse::<TaskId>().is_ok());
            [resource("merge", "merges"), task.map(of_branch).unwrap_or_default()].concat()
        }
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
        let with = |kind: &str, subject: &str, data| resources(&NewEvent::new(kind, Actor::host(), subject, data));
        let of = |kind: &str, subject: &str| with(kind, subject, json!({}));
        let branch = ["pointsman://conflict/T-3", "pointsman://pull_request/T-3", "pointsman://events"];
        assert_eq!(of("task.claimed", "T-3"), [&["pointsman://task/T-3", "pointsman://tasks"], &branch[..]].concat());
        assert_eq!(of("branch.pushed", "T-3"), of("task.claimed", "T-3"));
        let conflicted = with("merge.conflicted", "M-2", json!({"task": "T-3"}));
        assert_eq!(conflicted, [&["pointsman://merge/M-2", "pointsman://merges"], &branch[..]].concat());
        let dead = of("message.dead_lettered", "msg_1");
        assert_eq!(dead, ["pointsman://message/msg_1", "pointsman://messages", "pointsman://dead_letters", "pointsman://events"]);
        assert!(!of("message.acked", "msg_1").contains(&"pointsman://dead_letters".to_owned()));
        assert_eq!(of("resource.updated", "test://one"), ["test://one", "pointsman://events"]);
        assert_eq!(of("token.minted", "tok_1"), ["pointsman://events"]);
    }
    #[test]
    fn events_of_documents_are_told_as_news_of_them_alone() {
        let of = |kind: &str, subject: &str, data| changed(NewEvent::new(kind, Actor::host(), subject, data));
        let one = |kind: &str, data| match of(kind, "ctx:plan/api", data).as_slice() {
            [News::Document(news)] => DocumentNews::clone(news),
            other => unreachable!("{kind}: {other:?}"),
        };
        let written = one("context.written", json!({"version": 3, "parents": [2, 1], "from": 2, "patch": "@@"}));
        assert_eq!((written.uri(), written.reach), ("pointsman://context/plan/api".to_owned(), Reach::Document));
        let write = written.write.expect("it was written");
        assert_eq!((write.version, write.before, write.patch, write.author.as_str()), (3, Some(2), Some(json!("@@")), "host"));
        let begun = one("context.written", json!({"version": 1, "parents": []})).write.expect("it was written");
        assert_eq!((begun.version, begun.before, begun.patch), (1, None, None));
        let gone = one("context.deleted", json!({"version": 4, "parents": [3]})).write.expect("it was written");
        assert_eq!((gone.version, gone.before, gone.is_deleted), (4, Some(3), true));
        let conflicted = one("context.conflicted", json!({"current": 4}));
        assert_eq!((conflicted.reach, conflicted.write), (Reach::Document, None));
        assert_eq!(one("context.denied", json!({})).reach, Reach::Log, "the document is as it was");
        assert_eq!(of("context.written", "ctx:../x", json!({"version": 1})), []);
        assert_eq!(of("resource.updated", "ctx:x", json!({}))[0], News::Resource("ctx:x".into()), "a component's own");
    }
}
