//! Merges by `git merge-tree --stdin`, into object folders that are thrown away.
//!
//! A process is started ahead, with everything read, and waits for its one line; its input is closed after it. A process
//! for many merges would save little more, and git before 2.48 answers only when its input ends. Attributes are read
//! from the target's tree, as a merge in a work tree would read them (git 2.41; before, none are read).
//!
//! **Invariant:** an unclean merge always names at least one conflicted path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::ids::ProjectId;
use tokio::process::Child;

use super::GitRepositories;
use super::fault::{Fault, commit, oid, raw};
use super::history::best_base;
use super::project::Project;
use super::runner::{Runner, finish, start};
use crate::ports::repository::{ConflictKind, ConflictedPath, FileVersion, Oid, RepositoryError, TreeMerge};

/// How long a process waits for a merge.
const SPARE_KEPT: Duration = Duration::from_secs(60);

/// A started process and what it was started for.
pub(super) struct Spare {
    serial: u64,
    attributes: Oid,
    preview: PathBuf,
    child: Child,
}

/// What can be said of a merge without merging.
enum Plan {
    /// One side has nothing of its own.
    Known(TreeMerge),
    /// Git is asked; this is the base accounted against.
    Ask(Option<Oid>),
}

impl GitRepositories {
    pub(super) async fn merge_trees(&self, project: ProjectId, ours: Oid, theirs: Oid) -> Result<TreeMerge, RepositoryError> {
        let _permit = self.permit(&self.inner.merges, "a free place for a merge").await?;
        let base = match self.step(project, "merge base", move |project| plan(project, ours, theirs)).await? {
            Plan::Known(merge) => return Ok(merge),
            Plan::Ask(base) => base,
        };
        let state = self.project(project)?;
        let preview = state.preview_dir(self.inner.system.instant())?;
        let taken = state.spare.lock().take();
        let child = match taken {
            Some(spare) if spare.attributes == ours && spare.preview == preview => spare.child,
            _ => start_merge(&self.inner.runner, &state, &preview, ours)?,
        };
        let line = format!("{ours} {theirs}\n");
        let output = finish("git merge-tree", child, line.as_bytes(), self.inner.options.limits.merge_ms).await?;
        self.start_spare(&state, preview, ours);
        if output.stdout.is_empty() || output.status.code().is_none_or(|code| code > 1) {
            return Err(output.failure("git merge-tree"));
        }
        let (tree, conflicts) = parse(&output.stdout).map_err(|why| RepositoryError::Failed { why: format!("git merge-tree: {why}") })?;
        Ok(TreeMerge { base, tree, conflicts })
    }

    /// Starts the process that the next merge into the same target takes.
    fn start_spare(&self, state: &Arc<Project>, preview: PathBuf, attributes: Oid) {
        let Ok(child) = start_merge(&self.inner.runner, state, &preview, attributes) else { return };
        let serial = state.next_serial();
        let _ = state.spare.lock().replace(Spare { serial, attributes, preview, child });
        let state = Arc::downgrade(state);
        let stop = self.inner.stop.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(SPARE_KEPT) => {}
                () = stop.cancelled() => {}
            }
            if let Some(state) = state.upgrade() {
                let mut spare = state.spare.lock();
                if spare.as_ref().is_some_and(|spare| spare.serial == serial) {
                    // Dropping it ends it.
                    let _ = spare.take();
                }
            }
        });
    }
}

fn plan(project: &Project, ours: Oid, theirs: Oid) -> Result<Plan, Fault> {
    let repository = project.main()?;
    let (our, their) = (commit(&repository, ours)?, commit(&repository, theirs)?);
    let base = best_base(&repository, our.id(), their.id())?;
    let known = |tree: git2::Oid| Ok(Plan::Known(TreeMerge { base: base.map(oid), tree: oid(tree), conflicts: Vec::new() }));
    match base {
        Some(base) if base == raw(theirs) => known(our.tree_id()),
        Some(base) if base == raw(ours) => known(their.tree_id()),
        base => Ok(Plan::Ask(base.map(oid))),
    }
}

fn start_merge(runner: &Runner, project: &Project, preview: &std::path::Path, attributes: Oid) -> Result<Child, RepositoryError> {
    let mut command = runner.git(&project.dir);
    for setting in [
        "core.fsync=none",
        "core.looseCompression=1",
        "core.attributesFile=/dev/null",
        "merge.renames=true",
        "merge.directoryRenames=conflict",
        "merge.renameLimit=7000",
        "merge.conflictStyle=merge",
        "merge.renormalize=false",
        "diff.algorithm=histogram",
    ] {
        command.args(["-c", setting]);
    }
    command.args(["--git-dir=.", "merge-tree", "--stdin", "-z", "--messages", "--allow-unrelated-histories"]);
    command.env("GIT_OBJECT_DIRECTORY", preview).env("GIT_ALTERNATE_OBJECT_DIRECTORIES", project.dir.join("objects"));
    command.env("GIT_ATTR_SOURCE", attributes.to_string()).stdin(Stdio::piped());
    start("git merge-tree", &mut command)
}

/// Returns the tree and the conflicts of one answer: the status, the tree, an entry for each conflicted version, an empty
/// field, the messages, an empty field; each field ends with NUL (git-merge-tree(1), "OUTPUT").
fn parse(output: &[u8]) -> Result<(Oid, Vec<ConflictedPath>), String> {
    let mut fields = output.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut next = |what: &str| fields.next().map(std::borrow::Cow::into_owned).ok_or_else(|| format!("its answer ends before {what}"));
    let clean = match next("the status")?.as_str() {
        "1" => true,
        "0" => false,
        other => return Err(format!("it answered `{other}` as status")),
    };
    let tree: Oid = next("the tree")?.parse().map_err(|error| format!("{error}"))?;
    let mut found: BTreeMap<String, ConflictedPath> = BTreeMap::new();
    loop {
        let entry = next("the conflicts' end")?;
        if entry.is_empty() {
            break;
        }
        let (path, stage, version) = stage(&entry).ok_or_else(|| format!("it gave the entry `{entry}`"))?;
        let conflict = found.entry(path.clone()).or_insert_with(|| unnamed(path));
        match stage {
            1 => conflict.base = Some(version),
            2 => conflict.ours = Some(version),
            _ => conflict.theirs = Some(version),
        }
    }
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    loop {
        let count = next("the messages' end")?;
        if count.is_empty() {
            break;
        }
        let count: usize = count.parse().map_err(|_| format!("it counted `{count}` paths"))?;
        let paths: Vec<String> = (0..count).map(|_| next("a message's paths")).collect::<Result<_, _>>()?;
        let kind = next("a message's kind")?;
        next("a message's text")?;
        if kind.starts_with("CONFLICT") {
            for path in paths {
                said.entry(path).or_default().insert(kind.clone());
            }
        }
    }
    if clean {
        return if found.is_empty() { Ok((tree, Vec::new())) } else { Err("it called a merge clean and named conflicts".to_owned()) };
    }
    if found.is_empty() {
        // A conflict between renames of folders may leave no version behind; its words still name the paths.
        found.extend(said.keys().map(|path| (path.clone(), unnamed(path.clone()))));
    }
    if found.is_empty() {
        return Err("it called a merge unclean and named nothing".to_owned());
    }
    let none = BTreeSet::new();
    for (path, conflict) in &mut found {
        conflict.kind = kind(conflict, said.get(path).unwrap_or(&none));
    }
    Ok((tree, found.into_values().collect()))
}

fn unnamed(path: String) -> ConflictedPath {
    ConflictedPath { path, kind: ConflictKind::Other, base: None, ours: None, theirs: None }
}

/// Reads `MODE OID STAGE<tab>PATH`.
fn stage(entry: &str) -> Option<(String, u8, FileVersion)> {
    let (facts, path) = entry.split_once('\t')?;
    let mut facts = facts.split(' ');
    let mode = u32::from_str_radix(facts.next()?, 8).ok()?;
    let oid = facts.next()?.parse().ok()?;
    let stage = facts.next()?.parse().ok().filter(|stage| (1..=3).contains(stage))?;
    Some((path.to_owned(), stage, FileVersion { oid, mode }))
}

/// Returns why a path is in conflict, from git's words first and from the versions where it has none.
fn kind(conflict: &ConflictedPath, said: &BTreeSet<String>) -> ConflictKind {
    let says = |words: &str| said.iter().any(|kind| kind.contains(words));
    let versions = [conflict.base, conflict.ours, conflict.theirs];
    let plain = versions.iter().flatten().all(|version| version.mode & 0o170_000 == 0o100_000);
    if says("rename") {
        ConflictKind::Rename
    } else if says("file/directory") {
        ConflictKind::FileDirectory
    } else if says("modify/delete") {
        ConflictKind::ModifyDelete
    } else if !plain || says("binary") || says("distinct") || says("submodule") {
        ConflictKind::Other
    } else {
        match versions {
            [Some(_), Some(_), Some(_)] => ConflictKind::Content,
            [None, Some(_), Some(_)] => ConflictKind::AddAdd,
            [Some(_), _, _] => ConflictKind::ModifyDelete,
            [None, _, _] => ConflictKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "3d9c955a4016d97e978adba1b1fe8da2e9197d4f";
    const BLOB: &str = "822aed3f0c8f7c957d025c90d84f97efba36a0dc";

    #[test]
    fn a_clean_answer_has_no_conflicts() {
        let output = format!("1\0{TREE}\0\x001\0f\0Auto-merging\0Auto-merging f\n\0\0");
        let (tree, conflicts) = parse(output.as_bytes()).expect("an answer");
        assert_eq!((tree.to_string().as_str(), conflicts.len()), (TREE, 0));
    }

    #[test]
    fn conflicts_have_kinds_and_versions() {
        let entry = |path: &str, stage: u8, mode: &str| format!("{mode} {BLOB} {stage}\t{path}\0");
        let mut output = format!("0\0{TREE}\0");
        for (path, stages) in [("a b", "123"), ("add", "23"), ("gone", "12")] {
            for stage in stages.bytes() {
                output += &entry(path, stage - b'0', "100644");
            }
        }
        output += &entry("link", 2, "120000");
        output += &entry("link", 3, "120000");
        output += "\x001\0a b\0CONFLICT (contents)\0CONFLICT (content): Merge conflict in a b\n\0";
        output += "1\0gone\0CONFLICT (modify/delete)\0…\n\0\0";
        let (_, conflicts) = parse(output.as_bytes()).expect("an answer");
        let kinds: Vec<_> = conflicts.iter().map(|conflict| (conflict.path.as_str(), conflict.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("a b", ConflictKind::Content),
                ("add", ConflictKind::AddAdd),
                ("gone", ConflictKind::ModifyDelete),
                ("link", ConflictKind::Other)
            ]
        );
        assert!(conflicts[0].base.is_some() && conflicts[2].theirs.is_none());
    }

    #[test]
    fn cut_and_contradictory_answers_are_errors() {
        let whole = format!("0\0{TREE}\x00100644 {BLOB} 2\tf\0\x001\0f\0CONFLICT (contents)\0text\0\0");
        assert!(parse(whole.as_bytes()).is_ok());
        for end in 0..whole.len() - 1 {
            if let Ok((_, conflicts)) = parse(&whole.as_bytes()[..end]) {
                assert!(!conflicts.is_empty(), "cut at {end}");
            }
        }
        assert!(parse(format!("0\0{TREE}\0\0\0").as_bytes()).is_err());
        assert!(parse(format!("1\0{TREE}\x00100644 {BLOB} 2\tf\0\0\0").as_bytes()).is_err());
        assert!(parse(b"").is_err());
    }
}
