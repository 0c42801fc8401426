//! Which host serves a store that many can reach: one at a time, until its lease lapses.
//!
//! A project's repository lies on the disk of the host that serves it; a second host on the same store would work on another
//! copy. On the embedded store the data folder's lock keeps it out, and nothing of this is used.
//!
//! **Invariant:** a host that cannot renew its lease in time stops, before another may begin.

use std::time::Duration;

use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::kit::{CommitExt, Kit, chain};
use crate::ports::store::Commit;

/// Where the lease stands, in the host's own space.
const KEY: &str = "serving";
/// Milliseconds a lease lasts.
const LEASE_MS: u64 = 15_000;
/// Milliseconds between two renewals.
const RENEW_MS: u64 = 4_000;
/// Milliseconds between two tries to renew that failed.
const RETRY_MS: u64 = 500;

/// Who serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    /// The host's name, which it keeps over restarts.
    host: String,
    /// Where it is reached.
    url: String,
    /// Until when, unless it is renewed.
    until: TimeMs,
}

impl Stored for Lease {
    const NAME: &'static str = "serving lease";
}

/// The right to serve a store.
pub struct Serving {
    kit: Kit,
    host: String,
    url: String,
    until: TimeMs,
}

impl Serving {
    /// Takes the right to serve, also back from an earlier run of the same host.
    ///
    /// # Errors
    /// `served_elsewhere`; [`Failure`].
    pub async fn begin(kit: Kit, host: &str, url: &str) -> Result<Self, Failure> {
        let mut serving = Self { kit, host: host.to_owned(), url: url.to_owned(), until: TimeMs(0) };
        serving.until = serving.take().await?;
        Ok(serving)
    }

    async fn take(&self) -> Result<TimeMs, Failure> {
        let decided = self.kit.decide(|| async {
            let found = self.kit.load::<Lease>(None, KEY).await?;
            let (now, mut commit) = (self.kit.now(), Commit::default());
            let held = found.as_ref().map(|found| &found.value).filter(|lease| lease.until > now);
            if let Some(lease) = held.filter(|lease| lease.host != self.host) {
                let left_s = lease.until.since_ms(now).div_ceil(1_000);
                return Err(Failure::refused_with(
                    "served_elsewhere",
                    format!("the host at {} serves this store", lease.url),
                    format!("Stop that one first; if it died, start again in {left_s} seconds."),
                    json!({"url": lease.url, "until": lease.until.to_rfc3339()}),
                ));
            }
            if held.is_none() {
                let data = json!({"host": self.host, "url": self.url});
                commit.events.push(NewEvent::new("host.serves", Actor::host(), format!("host:{}", self.host), data));
            }
            let lease = Lease { host: self.host.clone(), url: self.url.clone(), until: now + LEASE_MS };
            commit.replace(KEY, found.map(|found| found.version), &lease);
            Ok((commit, lease.until))
        });
        Ok(decided.await?.0)
    }

    /// Renews the lease until all is `drained`, then gives it back. Where it is lost, cancels `stop`.
    pub async fn keep(mut self, stop: CancellationToken, drained: CancellationToken) {
        let mut pause_ms = RENEW_MS;
        loop {
            tokio::select! {
                () = drained.cancelled() => break,
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            }
            match self.take().await {
                Ok(until) => (self.until, pause_ms) = (until, RENEW_MS),
                Err(failure) if matches!(failure, Failure::Refused(_)) || self.kit.now() >= self.until => {
                    tracing::error!(error = chain(&failure), "the right to serve this store is lost: the host stops");
                    stop.cancel();
                    return;
                }
                Err(failure) => {
                    tracing::warn!(error = chain(&failure), "the right to serve this store is not renewed yet");
                    pause_ms = RETRY_MS;
                }
            }
        }
        if let Err(failure) = self.give_back().await {
            tracing::warn!(error = chain(&failure), "the right to serve this store is not given back; it lapses");
        }
    }

    async fn give_back(&self) -> Result<(), Failure> {
        let decided = self.kit.decide(|| async {
            let mut commit = Commit::default();
            if let Some(found) = self.kit.load::<Lease>(None, KEY).await?
                && found.value.host == self.host
            {
                commit.replace(KEY, Some(found.version), &Lease { until: self.kit.now(), ..found.value });
            }
            Ok((commit, ()))
        });
        decided.await?;
        Ok(())
    }
}
