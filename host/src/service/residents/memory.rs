//! What a resident agent reads while it handles an event: its own keys, and the project as its agents see it.
//!
//! **Invariant:** a read that failed never passes for one that found nothing: the whole answer is thrown away then.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use super::record::{KV_KEY_BYTES_MAX, kv_key};
use crate::ports::resident::{LookupRefusal, ResidentMemory};
use crate::service::failure::Failure;
use crate::service::kit::{Acting, chain};
use crate::service::surface::{self, Services};

/// Look-ups of one event.
const LOOKUPS_MAX: u32 = 64;
/// Bytes of one look-up's answer.
const LOOKUP_BYTES_MAX: usize = 1 << 20;
/// Keys of one listing.
const KEYS_MAX: u32 = 1_000;
/// Milliseconds of one read.
const READ_MS: u64 = 1_000;

/// The memory of one agent during one event.
pub(super) struct StoreMemory {
    services: Services,
    acting: Acting,
    plugin: String,
    lookups_left: AtomicU32,
    failed: AtomicBool,
    /// Reads are made on the component's thread, which may block.
    runtime: Handle,
}

impl StoreMemory {
    /// Returns the memory. Called on a runtime.
    pub(super) fn new(services: &Services, acting: &Acting, plugin: &str) -> Self {
        Self {
            services: services.clone(),
            acting: acting.clone(),
            plugin: plugin.to_owned(),
            lookups_left: AtomicU32::new(LOOKUPS_MAX),
            failed: AtomicBool::new(false),
            runtime: Handle::current(),
        }
    }

    /// Returns whether a read failed, so that what the agent decided may rest on nothing.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Makes a read, within its time.
    fn wait<T>(&self, read: impl Future<Output = Result<T, Failure>>) -> Option<Result<T, Failure>> {
        let limited = async { tokio::time::timeout(Duration::from_millis(READ_MS), read).await };
        let result = self.runtime.block_on(limited).ok();
        match &result {
            None => self.fail("it took too long"),
            Some(Err(Failure::Refused(_)) | Ok(_)) => {}
            Some(Err(failure)) => self.fail(&chain(failure)),
        }
        result
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

    fn fail(&self, why: &str) {
        tracing::warn!(plugin = %self.plugin, trace = %self.acting.trace, why, "a resident's read failed");
        self.failed.store(true, Ordering::Relaxed);
    }
}

impl ResidentMemory for StoreMemory {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        if key.len() > KV_KEY_BYTES_MAX {
            return None;
        }
        let (project, key) = (Some(self.acting.project), kv_key(&self.plugin, key));
        let found = self.wait(async { Ok(self.services.kit.store.get(project, &key).await?) })?.ok()?;
        found.map(|found| found.bytes)
    }

    fn keys(&self, prefix: &str, after: &str, limit: u32) -> Vec<String> {
        if prefix.len().max(after.len()) > KV_KEY_BYTES_MAX || limit == 0 {
            return Vec::new();
        }
        let limit = usize::try_from(limit.min(KEYS_MAX)).unwrap_or(0);
        self.wait(self.range(prefix, after, limit)).and_then(Result::ok).unwrap_or_default()
    }

    fn read(&self, uri: &str) -> Result<String, LookupRefusal> {
        let take = |left: u32| left.checked_sub(1);
        if self.lookups_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(LookupRefusal::Limited(format!("{LOOKUPS_MAX} look-ups an event")));
        }
        match self.wait(surface::read(&self.services, self.acting.project, uri)) {
            Some(Ok(value)) => {
                let json = value.to_string();
                if json.len() > LOOKUP_BYTES_MAX {
                    return Err(LookupRefusal::Limited(format!("{LOOKUP_BYTES_MAX} bytes a look-up")));
                }
                Ok(json)
            }
            Some(Err(Failure::Refused(_))) => Err(LookupRefusal::NotFound),
            Some(Err(_)) | None => Err(LookupRefusal::Limited("the host cannot read now".to_owned())),
        }
    }
}
