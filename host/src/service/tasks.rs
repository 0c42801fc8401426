//! Tasks as stored: made, listed, reported on, given up. Claims are next door.

use pointsman_core::capability::CapabilityError;
use pointsman_core::ids::{MergeId, ProjectId, TaskId};
use pointsman_core::limits::{DEPENDENCIES_MAX, LEASE_GLOBS_MAX, TEXT_BYTES_MAX, TITLE_CHARS_MAX};
use pointsman_core::path_glob::PathGlob;
use pointsman_core::task::{Task, TaskError, TaskState};
use pointsman_core::value::{self, Stored};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::failure::Failure;
use super::kit::{Acting, CommitExt, Kit, Loaded, check_idempotency_key};
use crate::ports::plugins::FlowTask;
use crate::ports::store::{Commit, Committed};

/// Where tasks stand.
pub const TASKS: &str = "task/";
/// Tasks read at once.
pub const TASKS_MAX: usize = 10_000;

/// Returns the key of a task: zero-padded, so that keys sort as numbers.
#[must_use]
pub fn task_key(id: TaskId) -> String {
    format!("{TASKS}{:012}", id.0)
}

/// The last serial given out.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Serial(u64);

impl Stored for Serial {
    const NAME: &'static str = "serial";
}

/// Writes the next serial of a kind into the commit and returns it.
///
/// # Errors
/// [`Failure`].
pub async fn next_serial(kit: &Kit, project: ProjectId, commit: &mut Commit, kind: &str) -> Result<u64, Failure> {
    let key = format!("serial/{kind}");
    // One commit may take several.
    if let Some((_, staged)) = commit.puts.iter_mut().find(|(staged, _)| *staged == key) {
        let Serial(last) = value::decode(staged)?;
        *staged = value::encode(&Serial(last + 1));
        return Ok(last + 1);
    }
    let last = kit.load::<Serial>(Some(project), &key).await?;
    let next = last.as_ref().map_or(0, |last| last.value.0) + 1;
    commit.replace(key, last.map(|last| last.version), &Serial(next));
    Ok(next)
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let why = error.to_string();
        match error {
            TaskError::Held { until, .. } => {
                Self::refused_with("held", why, "Claim another task, or wait until the lease ends.", json!({"until": until.to_rfc3339()}))
            }
            TaskError::NotHolder { task, .. } => {
                Self::refused("not_holder", why, format!("Claim {task} first; lookup(\"{task}\") says who holds it."))
            }
            TaskError::WrongState { task, .. } => {
                Self::refused("wrong_state", why, format!("Call lookup(\"{task}\") to see how it stands."))
            }
            TaskError::DependencyOpen { dependency, .. } => {
                Self::refused("dependency_open", why, format!("Claim {dependency} first, or wait until it is begun."))
            }
        }
    }
}

impl From<CapabilityError> for Failure {
    fn from(error: CapabilityError) -> Self {
        Self::refused("bad_capability", error.to_string(), "Write it in that form.")
    }
}

/// A task to make.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTask {
    /// One line.
    pub title: String,
    /// Markdown.
    #[serde(default)]
    pub description: String,
    /// `feature`, `fix`, `hotfix`, `docs`, …
    #[serde(default)]
    pub kind: Option<String>,
    /// 0 to 9; 4 is normal.
    #[serde(default)]
    pub priority: Option<u8>,
    /// Free labels.
    #[serde(default)]
    pub labels: Vec<String>,
    /// What must hold for it to be done.
    #[serde(default)]
    pub acceptance: Vec<String>,
    /// Tasks that must land before it.
    #[serde(default)]
    pub depends_on: Vec<TaskId>,
    /// Paths it will change.
    #[serde(default)]
    pub paths: Vec<PathGlob>,
    /// Paths it will change beside others.
    #[serde(default)]
    pub shared_paths: Vec<PathGlob>,
    /// The same key never makes a second task.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// Refuses a text that is empty or too long.
pub(crate) fn check_line(field: &str, text: &str, chars_max: usize) -> Result<(), Failure> {
    let chars = text.chars().count();
    if text.trim().is_empty() || chars > chars_max || text.contains(['\n', '\r', '\0']) {
        return Err(Failure::refused(
            "bad_argument",
            format!("`{field}` has {chars} characters"),
            format!("Give one line of 1 to {chars_max} characters."),
        ));
    }
    Ok(())
}

/// Refuses a text beyond a size.
pub(crate) fn check_text(field: &str, text: &str) -> Result<(), Failure> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Failure::refused(
            "too_large",
            format!("`{field}` has {} bytes", text.len()),
            format!("Keep it under {TEXT_BYTES_MAX} bytes; put long texts into a context document."),
        ));
    }
    Ok(())
}

impl CreateTask {
    fn check(&self) -> Result<(), Failure> {
        check_line("title", &self.title, TITLE_CHARS_MAX)?;
        check_text("description", &self.description)?;
        if let Some(kind) = &self.kind {
            check_line("kind", kind, 32)?;
        }
        for label in self.labels.iter().chain(&self.acceptance) {
            check_line("labels or acceptance", label, TITLE_CHARS_MAX)?;
        }
        if self.priority.is_some_and(|priority| priority > 9) {
            return Err(Failure::refused("bad_argument", "`priority` is over 9", "Give 0 (idle) to 9 (urgent); 4 is normal."));
        }
        let lists = [
            ("labels", self.labels.len(), 32),
            ("acceptance", self.acceptance.len(), 32),
            ("depends_on", self.depends_on.len(), DEPENDENCIES_MAX),
            ("paths", self.paths.len() + self.shared_paths.len(), LEASE_GLOBS_MAX),
        ];
        match lists.iter().find(|(_, len, max)| len > max) {
            Some((field, len, max)) => {
                Err(Failure::refused("too_many", format!("`{field}` has {len} entries"), format!("Give at most {max}.")))
            }
            None => Ok(()),
        }
    }
}

/// Use cases over tasks.
#[derive(Clone)]
pub struct Tasks {
    kit: Kit,
}

impl Tasks {
    /// Returns the use cases.
    #[must_use]
    pub fn new(kit: Kit) -> Self {
        Self { kit }
    }

    /// Makes a task.
    ///
    /// # Errors
    /// `bad_argument`, `too_many`, `not_found` for an unknown dependency, `key_reused`.
    pub async fn create(&self, acting: &Acting, request: CreateTask) -> Result<Task, Failure> {
        request.check()?;
        check_idempotency_key(request.idempotency_key.as_deref())?;
        let once = request.idempotency_key.clone().map(|key| acting.once("create_task", key, &request));
        if let Some(once) = &once
            && let Some(task) = self.kit.answered(acting.project, once).await?
        {
            return Ok(task);
        }
        let (task, committed) = self.kit.decide(|| self.decide_create(acting, &request, once.as_ref())).await?;
        match committed {
            Committed::Done { .. } | Committed::Kept => Ok(task),
            Committed::Replayed(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or(task)),
        }
    }

    async fn decide_create(
        &self,
        acting: &Acting,
        request: &CreateTask,
        once: Option<&super::kit::Once>,
    ) -> Result<(Commit, Task), Failure> {
        let mut commit = Commit { project: Some(acting.project), ..Commit::default() };
        let task = self.stage_create(&mut commit, acting, request).await?;
        commit.idempotency = once.map(|once| once.record(&task));
        Ok((commit, task))
    }

    /// Adds a new task to a commit under way.
    ///
    /// # Errors
    /// As [`Tasks::create`].
    pub(in crate::service) async fn stage_create(
        &self,
        commit: &mut Commit,
        acting: &Acting,
        request: &CreateTask,
    ) -> Result<Task, Failure> {
        request.check()?;
        let id = TaskId(next_serial(&self.kit, acting.project, commit, "task").await?);
        for dependency in &request.depends_on {
            self.get(acting.project, *dependency).await?;
        }
        let now = self.kit.now();
        let mut depends_on = request.depends_on.clone();
        depends_on.sort_unstable();
        depends_on.dedup();
        let task = Task {
            id,
            title: request.title.trim().to_owned(),
            description: request.description.clone(),
            kind: request.kind.clone().unwrap_or_else(|| "feature".to_owned()),
            priority: request.priority.unwrap_or(4),
            labels: request.labels.clone(),
            acceptance: request.acceptance.clone(),
            depends_on,
            paths: request.paths.clone(),
            shared_paths: request.shared_paths.clone(),
            state: TaskState::Open,
            claim: None,
            fence: pointsman_core::ids::FencingToken { epoch: self.kit.store.epoch(), n: 0 },
            branch: None,
            base: None,
            head: None,
            progress: 0,
            note: String::new(),
            reviews: Vec::new(),
            resolutions: Vec::new(),
            merges: Vec::new(),
            created_by: acting.agent.name.clone(),
            created_at: now,
            updated_at: now,
        };
        commit.replace(task_key(id), None, &task);
        commit.events.push(acting.event(
            "task.created",
            id,
            json!({"title": task.title, "kind": task.kind, "priority": task.priority, "depends_on": task.depends_on}),
        ));
        Ok(task)
    }

    /// Returns a task.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get(&self, project: ProjectId, id: TaskId) -> Result<Loaded<Task>, Failure> {
        let found = self.kit.load::<Task>(Some(project), &task_key(id)).await?;
        found.ok_or_else(|| Failure::refused("not_found", format!("there is no task {id}"), "`lookup` with `tasks` lists them."))
    }

    /// Returns all tasks of a project, by number.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn all(&self, project: ProjectId) -> Result<Vec<Task>, Failure> {
        let all = self.kit.load_all::<Task>(Some(project), TASKS, TASKS_MAX).await?;
        Ok(all.into_iter().map(|(_, loaded)| loaded.value).collect())
    }
}

/// Returns a task the way words need it.
#[must_use]
pub fn flow_task(task: &Task) -> FlowTask {
    FlowTask {
        id: task.id.to_string(),
        title: task.title.clone(),
        description: task.description.clone(),
        kind: task.kind.clone(),
        labels: task.labels.clone(),
        priority: task.priority,
        depends_on: task.depends_on.iter().map(TaskId::to_string).collect(),
    }
}

/// Where merges stand.
pub const MERGES: &str = "merge/";

/// Returns the key of a merge.
#[must_use]
pub fn merge_key(id: MergeId) -> String {
    format!("{MERGES}{:012}", id.0)
}
