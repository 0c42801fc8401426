//! Commits and trees written from memory.
//!
//! **Invariant:** the same input gives the same commit, and its objects are durable before its name is returned.

use git2::{ObjectType, Repository, Time};
use pointsman_core::ids::MergeId;
use pointsman_core::path_glob::PathGlob;

use super::GitLimits;
use super::fault::{Fault, commit, not_found, oid, or_not_found, raw, refused};
use super::objects::{Batch, preview_files};
use super::paths::validate;
use super::project::Project;
use super::refs::keep_candidate;
use super::tree::{MODE_EXECUTABLE, MODE_FILE, MODE_SYMLINK, TreeEdit};
use crate::ports::repository::{NewCommit, Oid, PathEdit, Signature};

/// Bytes of a commit message.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Bytes of an author's name or address.
const PERSON_BYTES_MAX: usize = 256;

/// An author or committer, cleaned of what would break a commit's header.
pub(super) struct Person<'a> {
    name: std::borrow::Cow<'a, str>,
    email: std::borrow::Cow<'a, str>,
}

/// The committer of everything the host writes.
pub(super) const HOST: Person<'static> =
    Person { name: std::borrow::Cow::Borrowed("Pointsman"), email: std::borrow::Cow::Borrowed("pointsman@localhost") };

impl<'a> Person<'a> {
    fn of(signature: &'a Signature) -> Self {
        let clean = |text: &'a str, otherwise: &'static str| {
            let kept: String = text.chars().filter(|c| !c.is_control() && !matches!(c, '<' | '>')).collect();
            let mut kept = kept.trim_matches(|c: char| c.is_whitespace() || ".,:;\"'".contains(c)).to_owned();
            while kept.len() > PERSON_BYTES_MAX {
                kept.pop();
            }
            if kept.is_empty() { otherwise.into() } else { std::borrow::Cow::Owned(kept) }
        };
        Self { name: clean(&signature.name, "unknown"), email: clean(&signature.email, "unknown@localhost") }
    }
}

/// Returns a commit object's bytes.
pub(super) fn commit_bytes(
    tree: git2::Oid,
    parents: &[git2::Oid],
    author: &Person<'_>,
    committer: &Person<'_>,
    at: Time,
    message: &str,
) -> Result<Vec<u8>, Fault> {
    if message.len() > MESSAGE_BYTES_MAX || message.contains('\0') {
        return Err(refused("bad_message", format!("a commit message has at most {MESSAGE_BYTES_MAX} bytes and no NUL")));
    }
    let mut text = format!("tree {tree}\n");
    for parent in parents {
        text += &format!("parent {parent}\n");
    }
    let seconds = at.seconds().max(0);
    text += &format!("author {} <{}> {seconds} +0000\n", author.name, author.email);
    text += &format!("committer {} <{}> {seconds} +0000\n\n", committer.name, committer.email);
    text += message;
    if !message.ends_with('\n') {
        text.push('\n');
    }
    Ok(text.into_bytes())
}

fn seal(repository: &Repository, batch: &mut Batch, tree: git2::Oid, new: &NewCommit) -> Result<git2::Oid, Fault> {
    let mut parents = Vec::with_capacity(new.parents.len());
    for parent in &new.parents {
        parents.push(commit(repository, *parent)?.id());
    }
    let author = Person::of(&new.author);
    let at = Time::new(new.at.0.div_euclid(1_000), 0);
    batch.add(ObjectType::Commit, commit_bytes(tree, &parents, &author, &HOST, at, &new.message)?)
}

/// Writes a commit that edits its first parent's tree.
pub(super) fn write_commit(project: &Project, new: NewCommit, limits: GitLimits) -> Result<Oid, Fault> {
    if new.edits.len() > limits.files_max {
        let why = format!("{} files in one commit; at most {} are taken: make several commits", new.edits.len(), limits.files_max);
        return Err(refused("too_large", why));
    }
    let repository = project.main()?;
    let origin = match new.parents.first() {
        Some(parent) => Some(commit(&repository, *parent)?.tree_id()),
        None => None,
    };
    let mut batch = Batch::default();
    let mut tree = TreeEdit::new(&repository, origin);
    for edit in &new.edits {
        apply(&mut tree, &mut batch, edit, &new.allowed, limits.file_bytes_max)?;
    }
    let root = tree.write(&mut batch)?;
    let id = seal(&repository, &mut batch, root, &new)?;
    batch.flush(project, Vec::new())?;
    Ok(oid(id))
}

fn check_lease(path: &str, allowed: &[PathGlob]) -> Result<(), Fault> {
    if allowed.is_empty() || allowed.iter().any(|glob| glob.matches(path)) {
        return Ok(());
    }
    Err(refused("not_leased", not_leased(path, allowed)))
}

/// Returns the words for a path outside a claim's lease.
pub(super) fn not_leased(path: &str, allowed: &[PathGlob]) -> String {
    const SHOWN_MAX: usize = 8;
    let mut globs: Vec<String> = allowed.iter().take(SHOWN_MAX).map(|glob| format!("`{glob}`")).collect();
    if allowed.len() > SHOWN_MAX {
        globs.push("…".to_owned());
    }
    format!("`{path}` is outside the paths this claim leases ({})", globs.join(", "))
}

fn apply(tree: &mut TreeEdit<'_>, batch: &mut Batch, edit: &PathEdit, allowed: &[PathGlob], file_bytes_max: usize) -> Result<(), Fault> {
    match edit {
        PathEdit::Write { path, bytes, executable } => {
            validate(path)?;
            check_lease(path, allowed)?;
            if bytes.len() > file_bytes_max {
                let why = format!("`{path}` has {} bytes; at most {file_bytes_max} are taken", bytes.len());
                return Err(refused("too_large", why));
            }
            let was = tree.get(path)?.map(|(_, mode)| mode);
            let mode = match (executable, was) {
                (Some(true), _) | (None, Some(MODE_EXECUTABLE)) => MODE_EXECUTABLE,
                // Text is never written into a link: it would point wherever the text says.
                _ => MODE_FILE,
            };
            let blob = batch.add(ObjectType::Blob, bytes.clone())?;
            tree.put(path, blob, mode)
        }
        PathEdit::Delete { path } => {
            check_lease(path, allowed)?;
            if tree.remove(path)? { Ok(()) } else { Err(not_found(format!("`{path}`"))) }
        }
        PathEdit::Rename { from, to } => {
            validate(to)?;
            check_lease(from, allowed)?;
            check_lease(to, allowed)?;
            let Some((id, mode)) = tree.get(from)? else { return Err(not_found(format!("`{from}`"))) };
            if from != to && tree.get(to)?.is_some() {
                return Err(refused("path_collides", format!("`{to}` is there already: delete it first")));
            }
            tree.remove(from)?;
            tree.put(to, id, mode)
        }
    }
}

/// A path and what is put there: mode and bytes, or nothing.
pub(super) type Replacement = (String, Option<(u32, Vec<u8>)>);

/// Returns a tree with files replaced, everything it needs kept durably.
pub(super) fn amend_tree(project: &Project, tree: Oid, files: Vec<Replacement>) -> Result<Oid, Fault> {
    let wide = project.wide()?;
    let origin = or_not_found(wide.find_tree(raw(tree)), || format!("tree {tree}"))?.id();
    let mut batch = Batch::default();
    let mut edit = TreeEdit::new(&wide, Some(origin));
    for (path, _) in files.iter().filter(|(_, content)| content.is_none()) {
        edit.remove(path)?;
    }
    for (path, content) in files {
        let Some((mode, bytes)) = content else { continue };
        if !matches!(mode, MODE_FILE | MODE_EXECUTABLE | MODE_SYMLINK) {
            return Err(refused("bad_mode", format!("`{path}` cannot have the mode {mode:o}")));
        }
        if edit.get(&path)?.is_none() {
            validate(&path)?;
        }
        let blob = batch.add(ObjectType::Blob, bytes)?;
        edit.put(&path, blob, mode)?;
    }
    let root = edit.write(&mut batch)?;
    let files = preview_files(project, &batch, root)?;
    batch.flush(project, files)?;
    Ok(oid(root))
}

/// Writes a commit of an existing tree, of a preview's too, and keeps it as a merge's candidate.
pub(super) fn write_merge_commit(project: &Project, tree: Oid, new: &NewCommit, candidate: Option<MergeId>) -> Result<Oid, Fault> {
    if !new.edits.is_empty() {
        return Err(refused("edits_given", "a commit of an existing tree takes no edits"));
    }
    let wide = project.wide()?;
    let tree = or_not_found(wide.find_tree(raw(tree)), || format!("tree {tree}"))?.id();
    let mut batch = Batch::default();
    let files = preview_files(project, &batch, tree)?;
    let id = seal(&wide, &mut batch, tree, new)?;
    batch.flush(project, files)?;
    if let Some(merge) = candidate {
        keep_candidate(project, merge, id)?;
    }
    Ok(oid(id))
}
