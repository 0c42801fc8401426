//! What a resident agent reads while it handles an event: its own keys, and the project as its agents see it.
//!
//! **Invariant:** a read that failed never passes for one that found nothing: the whole answer is thrown away then.

use std::sync::Arc;

use super::record::{KV_KEY_BYTES_MAX, kv_key};
use crate::ports::lookups::{LookupRefusal, Lookups};
use crate::ports::plugins::Grant;
use crate::ports::resident::ResidentMemory;
use crate::service::failure::Failure;
use crate::service::kit::Acting;
use crate::service::lookups::{Broken, StoreLookups};
use crate::service::surface::Services;

/// Keys of one listing.
const KEYS_MAX: u32 = 1_000;

/// The memory of one agent during one event.
pub(super) struct StoreMemory {
    services: Arc<Services>,
    acting: Acting,
    plugin: String,
    lookups: StoreLookups,
}

impl StoreMemory {
    /// Returns the memory; the grant is for look-ups. Called on a runtime.
    pub(super) fn new(services: Arc<Services>, acting: &Acting, plugin: &str, grant: Grant) -> Self {
        let lookups = StoreLookups::new(Arc::clone(&services), acting.project, plugin, &acting.trace, grant);
        Self { services, acting: acting.clone(), plugin: plugin.to_owned(), lookups }
    }

    /// Returns whether and how a read came to nothing, so that what the agent decided may rest on nothing.
    pub(super) fn broken(&self) -> Option<Broken> {
        self.lookups.broken()
    }

    async fn range(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, Failure> {
        let (own, within) = (kv_key(&self.plugin, ""), kv_key(&self.plugin, prefix));
        let mut from = if after.is_empty() { String::new() } else { kv_key(&self.plugin, after) };
        let mut keys = Vec::new();
        loop {
            // The first page may start with `after` itself.
            let page = self.services.kit.store.range(Some(self.acting.project), &within, &from, limit - keys.len() + 1).await?;
            let found = page.entries.iter().filter_map(|(key, _)| key.strip_prefix(&own)).filter(|key| after.is_empty() || *key > after);
            keys.extend(found.map(str::to_owned));
            match page.next {
                Some(next) if keys.len() < limit => from = next,
                _ => break,
            }
        }
        keys.truncate(limit);
        Ok(keys)
    }
}

impl ResidentMemory for StoreMemory {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        if key.len() > KV_KEY_BYTES_MAX {
            return None;
        }
        let (project, key) = (Some(self.acting.project), kv_key(&self.plugin, key));
        let found = self.lookups.wait(async { Ok(self.services.kit.store.get(project, &key).await?) })?.ok()?;
        found.map(|found| found.bytes)
    }

    fn keys(&self, prefix: &str, after: &str, limit: u32) -> Vec<String> {
        if prefix.len().max(after.len()) > KV_KEY_BYTES_MAX || limit == 0 {
            return Vec::new();
        }
        let limit = usize::try_from(limit.min(KEYS_MAX)).unwrap_or(0);
        self.lookups.wait(self.range(prefix, after, limit)).and_then(Result::ok).unwrap_or_default()
    }
}

impl Lookups for StoreMemory {
    fn read(&self, uri: &str) -> Result<String, LookupRefusal> {
        self.lookups.read(uri)
    }

    fn is_broken(&self) -> bool {
        self.lookups.is_broken()
    }
}
