//! The repository port on git: git2 for objects, refs and history, git's own processes for merges, clones and pushes.
//!
//! Owns a folder of bare repositories, one a project, and a scratch folder of previews, clones for checks and hooks. Must not
//! know the store, tasks or policies: it verifies fences, it does not grant them.
//!
//! **Invariants:**
//! - A ref moves under its lock, after its old value and its fence were read under that lock; pushes hold the same lock.
//! - A write is synced, file and folder, before it is answered.
//! - Only one host uses the scratch folder; what an earlier run left (processes, half clones) is cleared at the start.
//! - Only one host at a time works on a repository: the locks in it are cleared when it is adopted, and only then. The folder of
//!   repositories may be shared by hosts; its volume's id says which do.

mod check;
mod create;
mod fault;
mod history;
mod hook;
mod merge;
mod notes;
mod objects;
mod paths;
mod project;
mod recover;
mod refs;
mod runner;
mod sandbox;
mod serve;
mod sides;
mod tree;
mod write;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pointsman_core::ids::{FencingToken, MergeId, ProjectId, TaskId};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use check::CheckOptions;
pub use hook::git_hook;
pub use sandbox::sandbox_exec;

use crate::ports::clock::System;
use crate::ports::plugins::{CommitInfo, FileChange};
use crate::ports::repository::{
    BranchGrant, BranchMove, CheckReport, CheckSpec, FourSides, GitRequest, GitResponse, Landing, NewCommit, Oid, Origin, Repository,
    RepositoryError, TreeMerge,
};
use fault::Fault;
use project::Project;
use runner::Runner;

/// The oldest git that has `merge-tree --stdin`.
pub const GIT_VERSION_MIN: (u32, u32) = (2, 39);
/// How long a ref locked by somebody else is tried for.
const LOCK_WAIT_MS: u64 = 5_000;

/// What may take how long, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GitLimits {
    /// One short git process, or one step on the pool.
    pub step_ms: u64,
    /// One merge.
    pub merge_ms: u64,
    /// Copying a repository.
    pub clone_ms: u64,
    /// One clone or fetch served.
    pub serve_ms: u64,
    /// One push served.
    pub push_ms: u64,
    /// Bytes of one push.
    pub push_bytes_max: u64,
    /// Bytes of one file in a commit.
    pub file_bytes_max: usize,
    /// Files in one commit.
    pub files_max: usize,
    /// Fetches and pushes served at once; more wait.
    pub served_max: usize,
    /// Merges at once; more wait.
    pub merges_max: usize,
    /// Checks at once; more wait.
    pub checks_max: usize,
}

impl Default for GitLimits {
    fn default() -> Self {
        Self {
            step_ms: 60_000,
            merge_ms: 30_000,
            clone_ms: 15 * 60_000,
            serve_ms: 15 * 60_000,
            push_ms: 5 * 60_000,
            push_bytes_max: 512 << 20,
            file_bytes_max: pointsman_core::limits::COMMIT_FILE_BYTES_MAX,
            files_max: pointsman_core::limits::COMMIT_FILES_MAX,
            served_max: 16,
            merges_max: 4,
            checks_max: 2,
        }
    }
}

/// Where the repositories are and how git is run.
#[derive(Debug, Clone)]
pub struct GitOptions {
    /// The folder of `<project>.git`.
    pub root: PathBuf,
    /// This host's name among those that share `root`; empty: nobody else uses it.
    pub host: String,
    /// A folder for what may be lost; best on the same file system, so that objects are linked, not copied.
    pub scratch: PathBuf,
    /// This host's executable: hooks and checks run it as `git-hook` and `sandbox-exec`.
    pub binary: PathBuf,
    /// Git; a bare name is looked for on `path`.
    pub git: PathBuf,
    /// Where git and what checks run are found.
    pub path: String,
    /// Threads for libgit2 at once.
    pub workers: usize,
    /// How checks are kept in.
    pub check: CheckOptions,
    /// Limits.
    pub limits: GitLimits,
}

impl GitOptions {
    /// Returns the defaults for these folders.
    #[must_use]
    pub fn new(root: PathBuf, scratch: PathBuf, binary: PathBuf) -> Self {
        Self {
            root,
            host: String::new(),
            scratch,
            binary,
            git: PathBuf::from("git"),
            path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
            workers: 4,
            check: CheckOptions::default(),
            limits: GitLimits::default(),
        }
    }
}

/// Why the repositories cannot be served.
#[derive(Debug, Error)]
pub enum GitStartError {
    /// There is no git.
    #[error("`{program}` could not be run: install git {}.{} or newer, or name it in the configuration", GIT_VERSION_MIN.0, GIT_VERSION_MIN.1)]
    NoGit {
        /// What was tried.
        program: PathBuf,
        /// What happened.
        #[source]
        source: RepositoryError,
    },
    /// Git is too old.
    #[error("git {found} is too old: {}.{} or newer is needed", GIT_VERSION_MIN.0, GIT_VERSION_MIN.1)]
    TooOld {
        /// What it says of itself.
        found: String,
    },
    /// A folder could not be made or cleared.
    #[error("`{folder}` cannot be used for repositories")]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The repositories in one folder.
#[derive(Clone)]
pub struct GitRepositories {
    inner: Arc<Inner>,
}

struct Inner {
    options: GitOptions,
    volume: String,
    system: Arc<dyn System>,
    runner: Arc<Runner>,
    hooks: PathBuf,
    durable: PathBuf,
    version: String,
    projects: Mutex<HashMap<ProjectId, Arc<Project>>>,
    workers: Arc<Semaphore>,
    served: Arc<Semaphore>,
    merges: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    tasks: tokio_util::task::TaskTracker,
    stop: tokio_util::sync::CancellationToken,
}

/// Returns how the names of a host's half-made repositories begin.
fn half_of(host: &str) -> String {
    if host.is_empty() { recover::HALF.to_owned() } else { format!("{}{host}-", recover::HALF) }
}

impl GitRepositories {
    /// Opens the folders, checks git's version and clears what an earlier host left. The caller holds the data folder's lock.
    ///
    /// # Errors
    /// [`GitStartError`].
    pub async fn open(mut options: GitOptions, system: Arc<dyn System>) -> Result<Self, GitStartError> {
        for folder in [&mut options.root, &mut options.scratch] {
            let wrong = |source| GitStartError::Folder { folder: folder.clone(), source };
            fs::create_dir_all(&*folder).map_err(wrong)?;
            let whole = folder.canonicalize().map_err(wrong)?;
            *folder = whole;
        }
        let (root, scratch, half, random) = (options.root.clone(), options.scratch.clone(), half_of(&options.host), Arc::clone(&system));
        let files = tokio::task::spawn_blocking(move || {
            let cleared = recover::clear(&root, &scratch, &half).and_then(|()| recover::volume(&root, &*random));
            let volume = cleared.map_err(|source| GitStartError::Folder { folder: root, source })?;
            let files = recover::prepare(&scratch).map_err(|source| GitStartError::Folder { folder: scratch, source })?;
            Ok((files, volume))
        });
        let (files, volume) = files.await.expect("clearing folders does not panic")?;
        let runner = Runner::new(options.git.clone(), options.path.clone(), options.scratch.clone(), files.global);
        let version = recover::version(&runner, &options).await?;
        let permits = |n: usize| Arc::new(Semaphore::new(n.max(1)));
        let inner = Inner {
            workers: permits(options.workers),
            served: permits(options.limits.served_max),
            merges: permits(options.limits.merges_max),
            checks: permits(options.limits.checks_max),
            hooks: files.hooks,
            durable: files.durable,
            projects: Mutex::default(),
            tasks: tokio_util::task::TaskTracker::new(),
            stop: tokio_util::sync::CancellationToken::new(),
            version,
            volume,
            runner,
            system,
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns git's version.
    #[must_use]
    pub fn git_version(&self) -> &str {
        &self.inner.version
    }

    /// Returns the id of the volume that the repositories are on. Hosts that name the same one see the same repositories.
    #[must_use]
    pub fn volume(&self) -> &str {
        &self.inner.volume
    }

    /// Waits until the pushes that are under way have ended. Call it when no new request comes in any more.
    pub async fn drain(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Returns where a project's repository is.
    #[must_use]
    pub fn folder(&self, project: ProjectId) -> PathBuf {
        self.inner.options.root.join(format!("{project}.git"))
    }

    fn project(&self, project: ProjectId) -> Result<Arc<Project>, RepositoryError> {
        let mut projects = self.inner.projects.lock();
        if let Some(found) = projects.get(&project) {
            return Ok(Arc::clone(found));
        }
        let dir = self.folder(project);
        if !dir.join("HEAD").is_file() {
            return Err(RepositoryError::NotFound { what: format!("the repository of {project}") });
        }
        let scratch = self.inner.options.scratch.join("projects").join(project.to_string());
        fs::create_dir_all(&scratch).map_err(Fault::from)?;
        let now = self.inner.system.instant();
        let made = Arc::new(Project::new(dir, scratch, self.inner.durable.clone(), self.inner.options.workers, now));
        projects.insert(project, Arc::clone(&made));
        Ok(made)
    }

    /// Runs a step on the bounded pool.
    async fn step<T: Send + 'static>(
        &self,
        project: ProjectId,
        what: &'static str,
        work: impl FnOnce(&Project) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, RepositoryError> {
        let project = self.project(project)?;
        self.blocking(what, move || work(&project)).await?.map_err(RepositoryError::from)
    }

    /// Runs a step that locks refs, again and again while somebody else holds one.
    async fn locked_step<T: Send + 'static>(
        &self,
        project: ProjectId,
        what: &'static str,
        work: impl Fn(&Project) -> Result<T, Fault> + Send + Sync + 'static,
    ) -> Result<T, RepositoryError> {
        const PAUSE_MAX_MS: u64 = 40;
        let project = self.project(project)?;
        let work = Arc::new(work);
        let (mut waited, mut pause) = (0, 1);
        loop {
            let (project, work) = (Arc::clone(&project), Arc::clone(&work));
            let tried = self
                .blocking(what, move || {
                    let _moving = project.refs.read();
                    work(&project)
                })
                .await?;
            match tried {
                Err(Fault::Locked(_)) if waited < LOCK_WAIT_MS => {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    waited += pause;
                    pause = (pause * 2).min(PAUSE_MAX_MS);
                }
                Err(Fault::Locked(why)) => {
                    return Err(RepositoryError::TimedOut { what: format!("{what} ({why})"), limit_ms: LOCK_WAIT_MS });
                }
                other => return other.map_err(RepositoryError::from),
            }
        }
    }

    /// Waits for a place among so many at once, as long as one step may take.
    async fn permit(&self, places: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, RepositoryError> {
        let limit_ms = self.inner.options.limits.step_ms;
        let waited = tokio::time::timeout(Duration::from_millis(limit_ms), Arc::clone(places).acquire_owned()).await;
        let permit = waited.map_err(|_| RepositoryError::TimedOut { what: what.to_owned(), limit_ms })?;
        Ok(permit.expect("the semaphores are never closed"))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<Result<T, Fault>, RepositoryError> {
        let limit_ms = self.inner.options.limits.step_ms;
        let late = |_| RepositoryError::TimedOut { what: what.to_owned(), limit_ms };
        let permits = Arc::clone(&self.inner.workers);
        let all = async {
            let permit = permits.acquire_owned().await.expect("the pool's semaphore is never closed");
            // The permit stays with the thread, which goes on when the caller no longer waits.
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work()
            })
            .await
        };
        match tokio::time::timeout(Duration::from_millis(limit_ms), all).await.map_err(late)? {
            Ok(done) => Ok(done),
            Err(error) => Err(RepositoryError::Failed { why: format!("{what} panicked: {error}") }),
        }
    }
}

#[async_trait]
impl Repository for GitRepositories {
    async fn create(&self, project: ProjectId, origin: Origin, target: Option<String>) -> Result<(String, Oid), RepositoryError> {
        self.create_repository(project, origin, target).await
    }

    async fn has(&self, project: ProjectId) -> bool {
        self.folder(project).join("HEAD").is_file()
    }

    async fn adopt(&self, project: ProjectId) -> Result<(), RepositoryError> {
        let hooks = self.inner.hooks.clone();
        self.step(project, "adopt", move |project| {
            let _nobody_moves = project.refs.write();
            recover::sweep(&project.dir)?;
            let repository = project.main()?;
            repository.config()?.open_level(git2::ConfigLevel::Local)?.set_str("core.hooksPath", &hooks.to_string_lossy())?;
            Ok(())
        })
        .await
    }

    async fn branch_head(&self, project: ProjectId, branch: &str) -> Result<Option<Oid>, RepositoryError> {
        let branch = branch.to_owned();
        self.step(project, "branch head", move |project| refs::branch_head(project, &branch)).await
    }

    async fn check_branch_name(&self, project: ProjectId, branch: &str) -> Result<(), RepositoryError> {
        let branch = branch.to_owned();
        self.step(project, "branch name", move |project| refs::check_branch_name(project, &branch)).await
    }

    async fn grant(&self, project: ProjectId, grant: BranchGrant) -> Result<Oid, RepositoryError> {
        self.locked_step(project, "grant", move |project| refs::grant(project, &grant)).await
    }

    async fn revoke(&self, project: ProjectId, task: TaskId, branch: &str, token: FencingToken) -> Result<(), RepositoryError> {
        let branch = branch.to_owned();
        self.locked_step(project, "revoke", move |project| refs::revoke(project, task, &branch, token)).await
    }

    async fn write_commit(&self, project: ProjectId, commit: NewCommit) -> Result<Oid, RepositoryError> {
        let limits = self.inner.options.limits;
        self.step(project, "write commit", move |project| write::write_commit(project, commit, limits)).await
    }

    async fn write_merge_commit(
        &self,
        project: ProjectId,
        tree: Oid,
        commit: NewCommit,
        candidate: Option<MergeId>,
    ) -> Result<Oid, RepositoryError> {
        self.locked_step(project, "write merge commit", move |project| write::write_merge_commit(project, tree, &commit, candidate)).await
    }

    async fn move_branch(&self, project: ProjectId, step: BranchMove) -> Result<(), RepositoryError> {
        self.locked_step(project, "move branch", move |project| refs::move_branch(project, &step)).await
    }

    async fn merge(&self, project: ProjectId, ours: Oid, theirs: Oid) -> Result<TreeMerge, RepositoryError> {
        self.merge_trees(project, ours, theirs).await
    }

    async fn amend_tree(
        &self,
        project: ProjectId,
        tree: Oid,
        files: Vec<(String, Option<(u32, Vec<u8>)>)>,
    ) -> Result<Oid, RepositoryError> {
        self.step(project, "amend tree", move |project| write::amend_tree(project, tree, files)).await
    }

    async fn four_sides(
        &self,
        project: ProjectId,
        base: Option<Oid>,
        ours: Oid,
        theirs: Oid,
        result_tree: Oid,
    ) -> Result<Vec<FourSides>, RepositoryError> {
        self.step(project, "compare trees", move |project| sides::four_sides(project, base, ours, theirs, result_tree)).await
    }

    async fn blob(&self, project: ProjectId, oid: Oid) -> Result<Vec<u8>, RepositoryError> {
        self.step(project, "read blob", move |project| history::blob(project, oid)).await
    }

    async fn file(&self, project: ProjectId, commit: Oid, path: &str) -> Result<Option<Vec<u8>>, RepositoryError> {
        let path = path.to_owned();
        self.step(project, "read file", move |project| history::file(project, commit, &path)).await
    }

    async fn tree_of(&self, project: ProjectId, commit: Oid) -> Result<Oid, RepositoryError> {
        self.step(project, "tree of commit", move |project| history::tree_of(project, commit)).await
    }

    async fn is_ancestor(&self, project: ProjectId, ancestor: Oid, descendant: Oid) -> Result<bool, RepositoryError> {
        self.step(project, "ancestry", move |project| history::is_ancestor(&*project.main()?, ancestor, descendant)).await
    }

    async fn commits_between(&self, project: ProjectId, target: Oid, head: Oid, limit: usize) -> Result<Vec<CommitInfo>, RepositoryError> {
        self.step(project, "commits", move |project| history::commits_between(project, target, head, limit)).await
    }

    async fn changes(&self, project: ProjectId, target: Oid, head: Oid) -> Result<Vec<FileChange>, RepositoryError> {
        self.step(project, "changes", move |project| history::changes(project, target, head)).await
    }

    async fn run_check(&self, project: ProjectId, commit: Oid, check: CheckSpec) -> Result<CheckReport, RepositoryError> {
        self.check_commit(project, commit, check).await
    }

    async fn land(&self, project: ProjectId, landing: Landing) -> Result<(), RepositoryError> {
        self.locked_step(project, "land", move |project| refs::land(project, &landing)).await
    }

    async fn drop_candidate(&self, project: ProjectId, merge: MergeId) -> Result<(), RepositoryError> {
        self.locked_step(project, "drop candidate", move |project| refs::drop_candidate(project, merge)).await
    }

    async fn receipt(&self, project: ProjectId, commit: Oid) -> Result<Option<String>, RepositoryError> {
        self.step(project, "receipt", move |project| notes::receipt(project, commit)).await
    }

    async fn serve(&self, request: GitRequest) -> Result<GitResponse, RepositoryError> {
        self.serve_request(request).await
    }
}
