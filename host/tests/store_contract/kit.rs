//! What the tests of a store are written with.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use pointsman::ports::store::{Commit, Committed, Idempotency, Store, Version};
use pointsman_core::event::{Actor, Cursor, NewEvent};
use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use serde_json::{Value, json};

/// An implementation under test.
#[async_trait]
pub(crate) trait Subject: Sized + Send + Sync + 'static {
    /// Returns an empty store.
    async fn fresh() -> Self;
    /// Returns the store. Every clone must be gone before it is reopened.
    fn store(&self) -> Arc<dyn Store>;
    /// Returns the same store, closed and opened again.
    async fn reopened(self) -> Self;
}

/// Returns a project nobody else uses.
pub(crate) fn project() -> ProjectId {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    ProjectId::new(TimeMs(1_700_000_000_000), bytes)
}

/// Returns an empty commit of a project.
pub(crate) fn of(project: ProjectId) -> Commit {
    Commit { project: Some(project), ..Commit::default() }
}

/// Returns a commit that writes one value.
pub(crate) fn put(project: ProjectId, key: &str, bytes: &[u8]) -> Commit {
    Commit { puts: vec![(key.to_owned(), bytes.to_vec())], ..of(project) }
}

/// Returns an event with this data.
pub(crate) fn event(data: Value) -> NewEvent {
    NewEvent::new("test.happened", Actor::host(), "T-1", data).caused_by("T-0")
}

/// Returns the event of this number.
pub(crate) fn numbered(n: u64) -> NewEvent {
    event(json!({ "n": n }))
}

/// Returns an idempotency record: the request is known by one byte.
pub(crate) fn call(key: &str, request: u8, response: &[u8]) -> Option<Idempotency> {
    Some(Idempotency {
        principal: "own_ana".to_owned(),
        operation: "send_message".to_owned(),
        key: key.to_owned(),
        request_digest: [request; 32],
        response: response.to_vec(),
    })
}

/// Commits, and returns the version.
pub(crate) async fn done(store: &dyn Store, commit: Commit) -> Version {
    match store.commit(commit).await.expect("the commit is accepted") {
        Committed::Done { version, .. } => version,
        Committed::Replayed(response) => panic!("replayed {response:?}"),
        Committed::Kept => panic!("the store is away"),
    }
}

/// Returns a value's bytes.
pub(crate) async fn bytes(store: &dyn Store, project: ProjectId, key: &str) -> Option<Vec<u8>> {
    store.get(Some(project), key).await.expect("the store answers").map(|value| value.bytes)
}

/// Returns the numbers of the events after `seq`.
pub(crate) async fn numbers(store: &dyn Store, project: ProjectId, seq: u64) -> Vec<u64> {
    let after = Cursor { epoch: store.epoch(), seq };
    let events = store.events(Some(project), after, 1_000).await.expect("the store answers");
    events.iter().map(|event| event.event.data["n"].as_u64().expect("the event has a number")).collect()
}

/// Runs futures together, started in their order.
pub(crate) async fn all_at_once<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<Pin<Box<_>>> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<T>> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, result) in running.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}
