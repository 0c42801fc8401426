//! The record of decisions: what components were asked and what they answered, for replay, for cases, for `why`.
//!
//! Not part of any answer: a record is written after the fact, in batches, and the oldest ones go when there are too many.
//!
//! **Invariant:** of each binding at most the configured number is kept, the newest ones, in the order they were decided.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pointsman_core::time::TimeMs;
use pointsman_core::value::{self, Stored};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure::Failure;
use crate::ports::decision::{DecisionPage, Recorded};
use crate::ports::store::{Commit, Store};

/// Where records stand.
const DECISIONS: &str = "decision/";
/// Entries read at once.
const PAGE: usize = 512;
/// Bytes of a record beyond which it is left out.
const RECORD_BYTES_MAX: usize = 512 << 10;
/// Bytes of one commit of records.
const COMMIT_BYTES: usize = 4 << 20;
/// Records one answer lists.
pub const LISTED_MAX: usize = 1_000;

/// The stored form: JSON as text, so that what a newer world adds to a question is kept as it is.
#[derive(Serialize, Deserialize)]
struct StoredDecision {
    at: TimeMs,
    plugin: String,
    digest: String,
    question: String,
    outcome: String,
    took_us: u64,
    /// Not there in records of earlier hosts.
    #[serde(default)]
    trace: Option<String>,
}

impl Stored for StoredDecision {
    const NAME: &'static str = "recorded decision";
}

/// The records.
#[derive(Clone)]
pub struct DecisionLog {
    store: Arc<dyn Store>,
    /// Records kept of each binding; 0: none is written.
    kept_max: usize,
    /// The keys of a binding's records, oldest first, once they were read.
    kept: Arc<Mutex<HashMap<String, VecDeque<String>>>>,
    /// Tells records of one millisecond apart.
    written: Arc<AtomicU64>,
}

impl DecisionLog {
    /// Returns the log over a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, kept_max: usize) -> Self {
        Self { store, kept_max, kept: Arc::default(), written: Arc::default() }
    }

    /// Writes records, in order, and drops the oldest ones beyond the number that is kept.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn append(&self, records: Vec<Recorded>) -> Result<(), Failure> {
        if self.kept_max == 0 || records.is_empty() {
            return Ok(());
        }
        let at = self.store.now();
        let (mut puts, mut bytes) = (Vec::with_capacity(records.len()), 0);
        for record in records {
            let key = format!("{}{:015}-{:012}", prefix(&record.plugin), at.0, self.written.fetch_add(1, Ordering::Relaxed));
            let Recorded { plugin, digest, question, outcome, took_us, trace, .. } = record;
            let (question, outcome) = (question.to_string(), outcome.to_string());
            if question.len() + outcome.len() > RECORD_BYTES_MAX {
                continue;
            }
            let value = value::encode(&StoredDecision { at, plugin: plugin.clone(), digest, question, outcome, took_us, trace });
            bytes += value.len();
            puts.push((plugin, key, value));
            if bytes > COMMIT_BYTES {
                self.write(std::mem::take(&mut puts)).await?;
                bytes = 0;
            }
        }
        self.write(puts).await
    }

    /// Writes records by plugin and key, and removes what is too many then.
    async fn write(&self, puts: Vec<(String, String, Vec<u8>)>) -> Result<(), Failure> {
        let mut deletes = Vec::new();
        for (plugin, key, _) in &puts {
            let known = self.kept.lock().remove(plugin);
            let mut keys = match known {
                Some(known) => known,
                None => self.read_keys(plugin).await?,
            };
            keys.push_back(key.clone());
            while keys.len() > self.kept_max {
                deletes.extend(keys.pop_front());
            }
            self.kept.lock().insert(plugin.clone(), keys);
        }
        let plugins: Vec<String> = puts.iter().map(|(plugin, ..)| plugin.clone()).collect();
        let puts = puts.into_iter().map(|(_, key, bytes)| (key, bytes)).collect();
        let written = self.store.commit(Commit { puts, deletes, ..Commit::default() }).await;
        if written.is_err() {
            // What is there is read again next time.
            self.kept.lock().retain(|plugin, _| !plugins.contains(plugin));
        }
        written?;
        Ok(())
    }

    /// Returns a binding's records from a time on, at most `limit`, after the place where an earlier page ended.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn list(&self, plugin: &str, since: TimeMs, after: Option<&str>, limit: usize) -> Result<DecisionPage, Failure> {
        let prefix = prefix(plugin);
        let from = match after {
            Some(after) => format!("{prefix}{after}"),
            None => format!("{prefix}{:015}", since.0.max(0)),
        };
        let limit = limit.clamp(1, LISTED_MAX);
        let page = self.store.range(None, &prefix, &from, limit).await?;
        let mut decisions = Vec::with_capacity(page.entries.len());
        for (_, found) in page.entries {
            decisions.push(read(&found.bytes)?);
        }
        let next = page.next.and_then(|key| key.strip_prefix(&prefix).map(str::to_owned));
        Ok(DecisionPage { decisions, next })
    }

    /// Returns a binding's newest records, oldest first.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn newest(&self, plugin: &str, limit: usize) -> Result<Vec<Recorded>, Failure> {
        let first = |keys: &VecDeque<String>| keys.get(keys.len().saturating_sub(limit.clamp(1, LISTED_MAX))).cloned();
        let known = self.kept.lock().get(plugin).map(first);
        let first = match known {
            Some(known) => known,
            None => first(&self.read_keys(plugin).await?),
        };
        let Some(first) = first else { return Ok(Vec::new()) };
        let after = first.rsplit('/').next().map(str::to_owned);
        Ok(self.list(plugin, TimeMs(0), after.as_deref(), limit).await?.decisions)
    }

    async fn read_keys(&self, plugin: &str) -> Result<VecDeque<String>, Failure> {
        let prefix = prefix(plugin);
        let (mut keys, mut from) = (VecDeque::new(), String::new());
        loop {
            let page = self.store.range(None, &prefix, &from, PAGE).await?;
            keys.extend(page.entries.into_iter().map(|(key, _)| key));
            match page.next {
                Some(next) => from = next,
                None => return Ok(keys),
            }
        }
    }
}

fn prefix(plugin: &str) -> String {
    format!("{DECISIONS}{plugin}/")
}

fn read(bytes: &[u8]) -> Result<Recorded, Failure> {
    let stored: StoredDecision = value::decode(bytes)?;
    let StoredDecision { at, plugin, digest, question, outcome, took_us, trace } = stored;
    // Written by this host as JSON; a damaged one is shown as the text it is.
    let json = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Recorded { at, plugin, digest, question: json(question), outcome: json(outcome), took_us, trace })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_earlier_hosts_are_read() {
        #[derive(Serialize, Deserialize)]
        struct Early {
            at: TimeMs,
            plugin: String,
            digest: String,
            question: String,
            outcome: String,
            took_us: u64,
        }
        impl Stored for Early {
            const NAME: &'static str = "early decision";
        }
        let text = || "{}".to_owned();
        let early = Early { at: TimeMs(7), plugin: "p".to_owned(), digest: text(), question: text(), outcome: text(), took_us: 3 };
        let recorded = read(&value::encode(&early)).expect("it is read");
        assert_eq!((recorded.at, recorded.took_us, recorded.trace), (TimeMs(7), 3, None));
    }
}
