//! One project's repository: its folder, open handles, preview folders and locks.
//!
//! Two kinds of handle: a *main* one sees the repository and is the only one that writes; a *wide* one also sees the
//! objects of merge previews. libgit2 does not write what it can already see, so writing through a wide handle would
//! lose objects when the previews go.

use std::collections::HashMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use git2::{Config, ConfigLevel, Oid, Repository, RepositoryInitOptions};
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::fault::Fault;
use super::merge::Spare;
use super::objects::loose_path;

/// Merges after which previews go to a new folder.
const PREVIEW_MERGES_MAX: u32 = 256;
/// How long a preview's objects can be read at the least.
const PREVIEW_KEPT: Duration = Duration::from_secs(10 * 60);

/// The kinds of open handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Main,
    Wide(u64),
    Staging,
}

/// A project's repository.
pub(super) struct Project {
    /// The bare repository.
    pub(super) dir: PathBuf,
    /// Held for reading while refs move, for writing while stale locks are swept.
    pub(super) refs: RwLock<()>,
    /// One push at a time for each branch.
    pub(super) pushes: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// A merge process that waits for its line.
    pub(super) spare: Mutex<Option<Spare>>,
    scratch: PathBuf,
    durable: PathBuf,
    handles: Mutex<Vec<(Kind, Repository)>>,
    handles_max: usize,
    serial: AtomicU64,
    previews: Mutex<Previews>,
}

/// The folders that merges write to: the one in use and the one before.
struct Previews {
    generation: u64,
    merges: u32,
    since: Instant,
    current: Option<PathBuf>,
    previous: Option<PathBuf>,
}

/// An open handle, given back when dropped.
pub(super) struct Handle<'a> {
    project: &'a Project,
    kind: Kind,
    repository: Option<Repository>,
}

impl Deref for Handle<'_> {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        self.repository.as_ref().expect("a handle keeps its repository until it is dropped")
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        let Some(repository) = self.repository.take() else { return };
        let stale = matches!(self.kind, Kind::Wide(generation) if generation != self.project.previews.lock().generation);
        let mut handles = self.project.handles.lock();
        let idle = handles.iter().filter(|(kind, _)| *kind == self.kind).count();
        if !stale && idle < self.project.handles_max {
            handles.push((self.kind, repository));
        }
    }
}

impl Project {
    /// Returns the state of the repository in `dir`; previews and staging go below `scratch`. `durable` is the file of
    /// settings that only libgit2 reads.
    pub(super) fn new(dir: PathBuf, scratch: PathBuf, durable: PathBuf, handles_max: usize, now: Instant) -> Self {
        Self {
            dir,
            scratch,
            durable,
            handles_max,
            refs: RwLock::new(()),
            pushes: Mutex::default(),
            spare: Mutex::default(),
            handles: Mutex::default(),
            serial: AtomicU64::new(0),
            previews: Mutex::new(Previews { generation: 0, merges: 0, since: now, current: None, previous: None }),
        }
    }

    /// Returns a handle that sees and writes the repository alone.
    pub(super) fn main(&self) -> Result<Handle<'_>, Fault> {
        self.handle(Kind::Main)
    }

    /// Returns a handle that sees previews too. Never write through it.
    pub(super) fn wide(&self) -> Result<Handle<'_>, Fault> {
        let generation = self.previews.lock().generation;
        self.handle(Kind::Wide(generation))
    }

    /// Returns an empty repository of one's own whose writes are not synced.
    pub(super) fn staging(&self) -> Result<Handle<'_>, Fault> {
        self.handle(Kind::Staging)
    }

    fn handle(&self, kind: Kind) -> Result<Handle<'_>, Fault> {
        let idle = {
            let mut handles = self.handles.lock();
            let place = handles.iter().position(|(found, _)| *found == kind);
            place.map(|place| handles.swap_remove(place).1)
        };
        let repository = match idle {
            Some(repository) => repository,
            None => match kind {
                Kind::Main => open_durable(&self.dir, &self.durable)?,
                Kind::Wide(_) => self.open_wide()?,
                Kind::Staging => self.open_staging()?,
            },
        };
        Ok(Handle { project: self, kind, repository: Some(repository) })
    }

    fn open_wide(&self) -> Result<Repository, Fault> {
        let repository = open_durable(&self.dir, &self.durable)?;
        let odb = repository.odb()?;
        let folders: Vec<PathBuf> = {
            let previews = self.previews.lock();
            previews.current.iter().chain(&previews.previous).cloned().collect()
        };
        for folder in folders {
            odb.add_disk_alternate(&folder.to_string_lossy())?;
        }
        drop(odb);
        Ok(repository)
    }

    fn open_staging(&self) -> Result<Repository, Fault> {
        let dir = self.scratch.join(format!("staging-{}", self.next_serial()));
        let mut options = RepositoryInitOptions::new();
        options.bare(true).no_reinit(true).external_template(false);
        let repository = Repository::init_opts(&dir, &options)?;
        repository.set_config(&Config::new()?)?;
        Ok(repository)
    }

    /// Returns a number not given before.
    pub(super) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the object folder that the next merge writes to.
    pub(super) fn preview_dir(&self, now: Instant) -> Result<PathBuf, Fault> {
        let mut previews = self.previews.lock();
        let age = now.saturating_duration_since(previews.since);
        let full = previews.merges >= PREVIEW_MERGES_MAX || age >= PREVIEW_KEPT;
        // The one before is dropped only when it has been readable for long enough, however many merges there are.
        let due = full && previews.merges > 0 && (previews.previous.is_none() || age >= PREVIEW_KEPT);
        if let (Some(current), false) = (&previews.current, due) {
            let current = current.clone();
            previews.merges += 1;
            return Ok(current);
        }
        self.rotate(&mut previews, now)
    }

    fn rotate(&self, previews: &mut MutexGuard<'_, Previews>, now: Instant) -> Result<PathBuf, Fault> {
        let generation = previews.generation + 1;
        let dir = self.scratch.join(format!("preview-{generation}"));
        fs::create_dir_all(&dir)?;
        let dropped = previews.previous.take();
        previews.previous = previews.current.replace(dir.clone());
        previews.generation = generation;
        previews.merges = 1;
        previews.since = now;
        self.handles.lock().retain(|(kind, _)| !matches!(kind, Kind::Wide(_)));
        if let Some(dropped) = dropped
            && let Err(error) = fs::remove_dir_all(&dropped)
        {
            tracing::warn!(%error, "an old preview folder could not be removed");
        }
        Ok(dir)
    }

    /// Returns where a preview keeps an object that the repository may not have.
    pub(super) fn preview_file(&self, id: Oid) -> Option<PathBuf> {
        let previews = self.previews.lock();
        previews.current.iter().chain(&previews.previous).map(|dir| loose_path(dir, id)).find(|path| path.is_file())
    }

    /// Returns the lock that pushes to a branch take in turn.
    pub(super) fn push_lock(&self, branch: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pushes = self.pushes.lock();
        pushes.retain(|name, lock| name == branch || Arc::strong_count(lock) > 1);
        Arc::clone(pushes.entry(branch.to_owned()).or_default())
    }
}

/// Opens a repository with its own configuration alone, plus the settings that make libgit2 sync what it writes.
pub(super) fn open_durable(dir: &Path, durable: &Path) -> Result<Repository, Fault> {
    let repository = Repository::open_bare(dir)?;
    let mut config = Config::new()?;
    config.add_file(&dir.join("config"), ConfigLevel::Local, false)?;
    config.add_file(durable, ConfigLevel::App, false)?;
    repository.set_config(&config)?;
    Ok(repository)
}
