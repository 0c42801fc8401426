//! A store that takes its time over some keys.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pointsman::ports::store::{Commit, Committed, DueEntry, Page, Store, StoreError, Versioned};
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use tokio::sync::watch;

/// Longer than any read may take.
const SLOW_MS: u64 = 60_000;

/// Reads the keys with this ending slowly, and all others as the store behind it.
pub(crate) struct SlowStore {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ending: &'static str,
}

#[async_trait]
impl Store for SlowStore {
    async fn get(&self, project: Option<ProjectId>, key: &str) -> Result<Option<Versioned>, StoreError> {
        if key.ends_with(self.ending) {
            tokio::time::sleep(Duration::from_millis(SLOW_MS)).await;
        }
        self.store.get(project, key).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        self.store.commit(commit).await
    }

    async fn range(&self, project: Option<ProjectId>, prefix: &str, from: &str, limit: usize) -> Result<Page, StoreError> {
        self.store.range(project, prefix, from, limit).await
    }

    async fn answered(
        &self,
        project: Option<ProjectId>,
        principal: &str,
        operation: &str,
        key: &str,
        request_digest: &[u8; 32],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.answered(project, principal, operation, key, request_digest).await
    }

    async fn due(&self, before: TimeMs, limit: usize) -> Result<Vec<DueEntry>, StoreError> {
        self.store.due(before, limit).await
    }

    async fn next_due(&self) -> Result<Option<TimeMs>, StoreError> {
        self.store.next_due().await
    }

    async fn events(&self, project: Option<ProjectId>, after: Cursor, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.store.events(project, after, limit).await
    }

    async fn head(&self, project: Option<ProjectId>) -> Result<Cursor, StoreError> {
        self.store.head(project).await
    }

    fn watch(&self, project: Option<ProjectId>) -> watch::Receiver<u64> {
        self.store.watch(project)
    }

    fn watch_due(&self) -> watch::Receiver<u64> {
        self.store.watch_due()
    }

    fn now(&self) -> TimeMs {
        self.store.now()
    }

    fn epoch(&self) -> u64 {
        self.store.epoch()
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.store.ready().await
    }
}
