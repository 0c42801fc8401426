//! What a host stored, read back from its store, and committed once more without a host.
//!
//! What one commit wrote carries one version, so the values of an act are found together, whatever they are by now. Must not know: which
//! acts those were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman::adapters::embedded::{EmbeddedStore, Options};
use pointsman::adapters::system::{OsSystem, wall_clock_ms};
use pointsman::ports::store::{Commit, Store, commit_bytes};
use pointsman_core::event::{Cursor, Event};
use pointsman_core::ids::ProjectId;
use serde_json::json;

use crate::figures::{BenchError, count, setup};
use crate::syncs;

/// Where projects stand, among the host's own records.
const PROJECTS: &str = "project/";
/// Entries read at once.
const PAGE: usize = 1_000;

fn open(folder: &Path) -> Result<EmbeddedStore, BenchError> {
    EmbeddedStore::open(folder, Options::new(wall_clock_ms, Arc::new(OsSystem))).map_err(setup)
}

/// A store that no host uses, and its only project.
pub(crate) struct Recorded {
    pub(crate) store: EmbeddedStore,
    pub(crate) project: ProjectId,
}

impl Recorded {
    /// Opens what a host left.
    ///
    /// # Errors
    /// It cannot be read, or has no project.
    pub(crate) async fn open(folder: &Path) -> Result<Self, BenchError> {
        let store = open(folder)?;
        let projects = store.range(None, PROJECTS, "", 1).await.map_err(setup)?;
        let project = projects.entries.first().and_then(|(key, _)| key.strip_prefix(PROJECTS)?.parse::<ProjectId>().ok());
        Ok(Self { store, project: project.ok_or_else(|| setup("the store has no project"))? })
    }

    /// Returns what is left of each commit, in their order: what was not overwritten since.
    pub(crate) async fn written(&self) -> Result<BTreeMap<u64, Vec<(String, Vec<u8>)>>, BenchError> {
        let mut written: BTreeMap<u64, Vec<(String, Vec<u8>)>> = BTreeMap::new();
        let mut from = Some(String::new());
        while let Some(first) = from {
            let page = self.store.range(Some(self.project), "", &first, PAGE).await.map_err(setup)?;
            for (key, found) in page.entries {
                written.entry(found.version).or_default().push((key, found.bytes));
            }
            from = page.next;
        }
        Ok(written)
    }

    /// Returns the project's log.
    pub(crate) async fn events(&self) -> Result<Vec<Event>, BenchError> {
        let (mut events, mut after) = (Vec::new(), Cursor::default());
        loop {
            let page = self.store.events(Some(self.project), after, PAGE).await.map_err(setup)?;
            let Some(last) = page.last() else { return Ok(events) };
            after = last.cursor;
            events.extend(page);
        }
    }
}

/// Returns the bytes of one commit, on the average.
pub(crate) fn bytes_each<'a>(commits: impl IntoIterator<Item = &'a Commit>) -> Result<f64, BenchError> {
    let (mut bytes, mut number) = (0, 0);
    for commit in commits {
        bytes += commit_bytes(commit).map_err(setup)?;
        number += 1;
    }
    Ok(count(bytes) / count(number))
}

/// What the baseline is told: where the records stand, and where syncs are counted.
pub(crate) struct Told<'a> {
    pub(crate) recorded: &'a Path,
    counter: &'a Path,
}

impl<'a> Told<'a> {
    /// Returns what stands behind the baseline's flag.
    ///
    /// # Errors
    /// It is not told two paths.
    pub(crate) fn of(paths: &'a [PathBuf]) -> Result<Self, BenchError> {
        let [recorded, counter] = paths else { return Err(setup("a store and a number of syncs are needed")) };
        Ok(Self { recorded, counter })
    }

    /// The baseline, a process of its own: lets `commit` commit to a new store, and prints how long it says that took, with how many syncs.
    ///
    /// # Errors
    /// The store cannot be made, or refuses a commit.
    pub(crate) async fn print<F: Future<Output = Result<f64, BenchError>>>(
        &self,
        commits: f64,
        bytes_each: f64,
        commit: impl FnOnce(Arc<dyn Store>) -> F,
    ) -> Result<(), BenchError> {
        let folder = tempfile::tempdir_in(self.counter.parent().unwrap_or(self.counter)).map_err(setup)?;
        let store = open(&folder.path().join("store"))?;
        let before = syncs::read(self.counter)?;
        let took_s = commit(Arc::new(store)).await?;
        let syncs = syncs::read(self.counter)? - before;
        println!("{}", json!({"commits": commits, "bytes_each": bytes_each, "took_s": took_s, "syncs": syncs}));
        Ok(())
    }
}
