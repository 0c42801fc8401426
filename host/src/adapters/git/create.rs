//! A project's repository is made whole in a folder of another name, then renamed: it is there or it is not.
//!
//! **Invariant:** a source is only read, and what is copied does not depend on it afterwards.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{ObjectType, Repository, RepositoryInitOptions, Signature};
use pointsman_core::ids::ProjectId;

use super::fault::{Fault, failed, not_found, oid, refused};
use super::project::open_durable;
use super::recover::remove_tree;
use super::refs::{branch_ref, read_ref};
use super::runner::Runner;
use super::{GitRepositories, half_of};
use crate::ports::repository::{Oid, Origin, RepositoryError};

/// The target of a new repository.
const TARGET_DEFAULT: &str = "main";

/// What every repository is set to.
const SETTINGS: &[(&str, &str)] = &[
    ("core.bare", "true"),
    ("core.fsync", "all"),
    ("core.fsyncMethod", "fsync"),
    ("core.logAllRefUpdates", "true"),
    ("core.filesRefLockTimeout", "3000"),
    ("core.packedRefsTimeout", "3000"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("receive.autogc", "false"),
    ("receive.denyDeletes", "true"),
    // The hook decides: it knows whose branch it is, and says what to do.
    ("receive.denyNonFastForwards", "false"),
    ("receive.fsckObjects", "true"),
    ("receive.advertisePushOptions", "false"),
    ("receive.updateServerInfo", "false"),
    ("transfer.hideRefs", "refs/pointsman"),
    ("uploadpack.allowFilter", "true"),
    ("uploadpack.allowAnySHA1InWant", "false"),
    ("http.receivepack", "true"),
];

impl GitRepositories {
    pub(super) async fn create_repository(
        &self,
        project: ProjectId,
        origin: Origin,
        target: Option<String>,
    ) -> Result<(String, Oid), RepositoryError> {
        let dir = self.folder(project);
        if !dir.exists() {
            let mut nonce = [0; 8];
            self.inner.system.random(&mut nonce);
            let nonce = data_encoding::HEXLOWER.encode(&nonce);
            let half = self.inner.options.root.join(format!("{}{project}-{nonce}", half_of(&self.inner.options.host)));
            let made = self.fill(&half, origin, target).await;
            if let Err(error) = made {
                let _ = self.blocking("clear", move || Ok(remove_tree(&half)?)).await;
                return Err(error);
            }
            let root = self.inner.options.root.clone();
            self.blocking("create", move || put_in_place(&half, &dir, &root)).await??;
        }
        let hooks = self.inner.hooks.clone();
        self.step(project, "read target", move |project| {
            let repository = project.main()?;
            repository.config()?.open_level(git2::ConfigLevel::Local)?.set_str("core.hooksPath", &hooks.to_string_lossy())?;
            let head = repository.find_reference("HEAD")?;
            let target = head.symbolic_target()?.and_then(|name| name.strip_prefix("refs/heads/")).map(str::to_owned);
            let target = target.ok_or_else(|| failed("HEAD is not a branch"))?;
            match read_ref(&repository, &branch_ref(&target))? {
                Some(at) => Ok((target, oid(at))),
                None => Err(not_found(format!("the target branch {target}"))),
            }
        })
        .await
    }

    async fn fill(&self, half: &Path, origin: Origin, target: Option<String>) -> Result<(), RepositoryError> {
        let durable = self.inner.durable.clone();
        let copied = match origin {
            Origin::Empty => None,
            Origin::CopyOf(source) => Some(self.copy(&source, half).await?),
        };
        let half = half.to_owned();
        let work = move || match copied {
            None => make_empty(&half, &durable, target.as_deref().unwrap_or(TARGET_DEFAULT)),
            Some(detached) => make_copy(&half, &durable, target.as_deref(), detached),
        };
        Ok(self.blocking("create", work).await??)
    }

    /// Clones a source. Returns its HEAD when that is no branch.
    async fn copy(&self, source: &Path, half: &Path) -> Result<Option<String>, RepositoryError> {
        let (runner, limits) = (&self.inner.runner, self.inner.options.limits);
        if !source.is_dir() {
            return Err(RepositoryError::NotFound { what: format!("the repository `{}`", source.display()) });
        }
        let facts = source_facts(runner, source, limits.step_ms).await?;
        let mut command = runner.git(&self.inner.options.root);
        command.args(["clone", "--quiet", "--bare", "--template=", "--no-hardlinks", "-c", "core.fsync=all"]);
        if facts.borrows {
            // A plain copy would go on reading the objects that the source borrows.
            command.arg("--no-local");
        }
        command.arg("--").arg(source).arg(half);
        runner.run("git clone", command, &[], limits.clone_ms).await?.ok("git clone")?;
        Ok(facts.detached)
    }
}

struct SourceFacts {
    /// HEAD, when it is no branch.
    detached: Option<String>,
    /// Whether it has objects of another repository.
    borrows: bool,
}

async fn source_facts(runner: &Arc<Runner>, source: &Path, limit_ms: u64) -> Result<SourceFacts, RepositoryError> {
    let ask = async |what: &'static str, arguments: &[&str]| {
        let mut command = runner.git(source);
        command.args(arguments);
        runner.run(what, command, &[], limit_ms).await
    };
    let form = ask("git rev-parse", &["rev-parse", "--show-object-format", "--path-format=absolute", "--git-common-dir"]).await?;
    if !form.status.success() {
        return Err(RepositoryError::NotFound { what: format!("a git repository in `{}`", source.display()) });
    }
    let text = String::from_utf8_lossy(&form.stdout).into_owned();
    let mut lines = text.lines();
    let refuse = |rule, why: &str| Err(RepositoryError::Refused { rule, why: format!("`{}` {why}", source.display()) });
    if lines.next() != Some("sha1") {
        return refuse("object_format", "names its objects by SHA-256, which libgit2 does not read yet");
    }
    let common = PathBuf::from(lines.next().unwrap_or_default());
    let partial = ask("git config", &["config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"]).await?;
    if partial.status.success() {
        return refuse("partial_source", "is a partial clone: it lacks objects. Use a full one, or `git fetch --refetch --no-filter`");
    }
    let head = ask("git symbolic-ref", &["symbolic-ref", "--quiet", "HEAD"]).await?;
    let detached = if head.status.success() {
        None
    } else {
        let at = ask("git rev-parse", &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await?;
        Some(String::from_utf8_lossy(&at.stdout).trim().to_owned())
    };
    Ok(SourceFacts { detached, borrows: common.join("objects/info/alternates").exists() })
}

fn make_empty(half: &Path, durable: &Path, target: &str) -> Result<(), Fault> {
    let mut options = RepositoryInitOptions::new();
    options.bare(true).external_template(false).initial_head(target);
    Repository::init_opts(half, &options)?;
    set_up(half)?;
    let repository = open_durable(half, durable)?;
    let tree = repository.odb()?.write(ObjectType::Tree, &[])?;
    let by = Signature::now("Pointsman", "pointsman@localhost")?;
    let commit = repository.commit(None, &by, &by, "Start\n", &repository.find_tree(tree)?, &[])?;
    check_target(target)?;
    repository.reference(&branch_ref(target), commit, false, "start")?;
    Ok(())
}

fn check_target(target: &str) -> Result<(), Fault> {
    if git2::Reference::is_valid_name(&branch_ref(target)) && !target.starts_with('-') && !target.starts_with("refs/") {
        return Ok(());
    }
    Err(refused("bad_ref", format!("`{target}` is no branch name")))
}

fn make_copy(half: &Path, durable: &Path, target: Option<&str>, detached: Option<String>) -> Result<(), Fault> {
    fs::write(half.join("config"), "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n")?;
    set_up(half)?;
    let repository = open_durable(half, durable)?;
    let names: Vec<String> = repository.references()?.names().map(|name| Ok(name?.to_owned())).collect::<Result<_, git2::Error>>()?;
    for name in names.iter().filter(|name| !name.starts_with("refs/heads/") && !name.starts_with("refs/tags/")) {
        repository.find_reference(name)?.delete()?;
    }
    let target = match (target, detached) {
        (Some(target), _) => target.to_owned(),
        (None, Some(at)) => branch_for(&repository, &at)?,
        (None, None) => match repository.find_reference("HEAD")?.symbolic_target()? {
            Some(name) => name.trim_start_matches("refs/heads/").to_owned(),
            None => return Err(failed("the copy's HEAD is no branch")),
        },
    };
    check_target(&target)?;
    if read_ref(&repository, &branch_ref(&target))?.is_none() {
        return Err(not_found(format!("branch `{target}` (a repository without a commit has none yet)")));
    }
    repository.set_head(&branch_ref(&target))?;
    Ok(())
}

/// Returns the branch that stands at a detached HEAD; when none does, one is made there.
fn branch_for(repository: &Repository, at: &str) -> Result<String, Fault> {
    let at = repository.find_commit(git2::Oid::from_str(at)?)?.id();
    let mut here = Vec::new();
    for reference in repository.references_glob("refs/heads/*")? {
        let reference = reference?;
        if reference.target() == Some(at) {
            here.push(reference.shorthand()?.to_owned());
        }
    }
    here.sort_by_key(|name| (name != "main" && name != "master", name.clone()));
    if let Some(name) = here.into_iter().next() {
        return Ok(name);
    }
    let free = read_ref(repository, &branch_ref(TARGET_DEFAULT))?.is_none();
    let name = if free { TARGET_DEFAULT.to_owned() } else { format!("head-{}", &at.to_string()[..10]) };
    repository.reference(&branch_ref(&name), at, true, "the source's HEAD")?;
    Ok(name)
}

fn set_up(dir: &Path) -> Result<(), Fault> {
    let mut config = git2::Config::open(&dir.join("config"))?;
    for (name, value) in SETTINGS {
        config.set_str(name, value)?;
    }
    Ok(())
}

/// Syncs everything below and renames it.
fn put_in_place(half: &Path, dir: &Path, root: &Path) -> Result<(), Fault> {
    sync_all(half)?;
    match fs::rename(half, dir) {
        Ok(()) => {}
        // Somebody else was first: theirs is kept.
        Err(_) if dir.join("HEAD").is_file() => remove_tree(half)?,
        Err(error) => return Err(error.into()),
    }
    Ok(File::open(root)?.sync_all()?)
}

fn sync_all(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_all(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}
