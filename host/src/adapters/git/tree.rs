//! A tree under edit: folders are read when a path leads into them, and written when something in them changed.
//!
//! Owns the rules on neighbours: a file is never where a folder is, and no two names of a folder differ by case alone
//! unless they did before.

use std::collections::{BTreeMap, BTreeSet};

use git2::{ObjectType, Oid, Repository};

use super::fault::{Fault, refused};
use super::objects::Batch;
use super::paths::folded;

/// Mode of a folder's entry.
pub(super) const MODE_TREE: u32 = 0o040_000;
/// Mode of a plain file.
pub(super) const MODE_FILE: u32 = 0o100_644;
/// Mode of an executable file.
pub(super) const MODE_EXECUTABLE: u32 = 0o100_755;
/// Mode of a symbolic link.
pub(super) const MODE_SYMLINK: u32 = 0o120_000;
/// Mode of a submodule.
pub(super) const MODE_SUBMODULE: u32 = 0o160_000;

/// How deep folders may nest: half of the longest path.
const DEPTH_MAX: usize = 2_048;

enum Node {
    /// A file, link or submodule.
    Leaf(Oid, u32),
    /// A folder.
    Folder(Folder),
}

#[derive(Default)]
struct Folder {
    /// What it was; none: new.
    origin: Option<Oid>,
    /// Its entries, once read.
    entries: Option<BTreeMap<Vec<u8>, Node>>,
    /// Whether anything below changed.
    changed: bool,
}

impl Folder {
    fn entries<'a>(&'a mut self, repository: &Repository) -> Result<&'a mut BTreeMap<Vec<u8>, Node>, Fault> {
        if self.entries.is_none() {
            self.entries = Some(match self.origin {
                Some(origin) => read(repository, origin)?,
                None => BTreeMap::new(),
            });
        }
        Ok(self.entries.get_or_insert_default())
    }
}

fn read(repository: &Repository, tree: Oid) -> Result<BTreeMap<Vec<u8>, Node>, Fault> {
    let tree = repository.find_tree(tree)?;
    let node = |entry: &git2::TreeEntry<'_>| match mode_of(entry) {
        MODE_TREE => Node::Folder(Folder { origin: Some(entry.id()), ..Folder::default() }),
        mode => Node::Leaf(entry.id(), mode),
    };
    Ok(tree.iter().map(|entry| (entry.name_bytes().to_vec(), node(&entry))).collect())
}

/// Returns an entry's mode as it is stored.
pub(super) fn mode_of(entry: &git2::TreeEntry<'_>) -> u32 {
    u32::try_from(entry.filemode_raw()).unwrap_or(0)
}

/// A tree under edit.
pub(super) struct TreeEdit<'repo> {
    repository: &'repo Repository,
    root: Folder,
}

impl<'repo> TreeEdit<'repo> {
    /// Starts from a tree, or from nothing.
    pub(super) fn new(repository: &'repo Repository, origin: Option<Oid>) -> Self {
        Self { repository, root: Folder { origin, ..Folder::default() } }
    }

    /// Returns the file at a path; a folder is none.
    pub(super) fn get(&mut self, path: &str) -> Result<Option<(Oid, u32)>, Fault> {
        let mut folder = &mut self.root;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            match folder.entries(self.repository)?.get_mut(part.as_bytes()) {
                Some(Node::Leaf(id, mode)) if parts.peek().is_none() => return Ok(Some((*id, *mode))),
                Some(Node::Folder(below)) => folder = below,
                Some(Node::Leaf(..)) | None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Puts a file at a path.
    pub(super) fn put(&mut self, path: &str, id: Oid, mode: u32) -> Result<(), Fault> {
        let mut folder = &mut self.root;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            folder.changed = true;
            let entries = folder.entries(self.repository)?;
            if parts.peek().is_none() {
                if let Some(Node::Folder(_)) = entries.get(part.as_bytes()) {
                    return Err(refused("path_collides", format!("`{path}` is a folder here: a file cannot take its place")));
                }
                entries.insert(part.as_bytes().to_vec(), Node::Leaf(id, mode));
                return Ok(());
            }
            let next = entries.entry(part.as_bytes().to_vec()).or_insert_with(|| Node::Folder(Folder::default()));
            match next {
                Node::Folder(below) => folder = below,
                Node::Leaf(..) => {
                    return Err(refused("path_collides", format!("`{path}` would need a folder where the file `{part}` is")));
                }
            }
        }
        Ok(())
    }

    /// Takes the file at a path away, and each folder that is empty then. Returns whether there was one.
    pub(super) fn remove(&mut self, path: &str) -> Result<bool, Fault> {
        let parts: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        remove(self.repository, &mut self.root, &parts)
    }

    /// Adds each changed folder to the batch and returns the root's name.
    pub(super) fn write(mut self, batch: &mut Batch) -> Result<Oid, Fault> {
        match write(self.repository, &mut self.root, batch, 0)? {
            Some(id) => Ok(id),
            None => batch.add(ObjectType::Tree, Vec::new()),
        }
    }
}

fn remove(repository: &Repository, folder: &mut Folder, parts: &[&[u8]]) -> Result<bool, Fault> {
    let Some((part, rest)) = parts.split_first() else { return Ok(false) };
    let entries = folder.entries(repository)?;
    let gone = match entries.get_mut(*part) {
        Some(Node::Leaf(..)) if rest.is_empty() => true,
        Some(Node::Folder(below)) if !rest.is_empty() => {
            if !remove(repository, below, rest)? {
                return Ok(false);
            }
            below.entries(repository)?.is_empty()
        }
        Some(Node::Leaf(..) | Node::Folder(_)) | None => return Ok(false),
    };
    if gone {
        entries.remove(*part);
    }
    folder.changed = true;
    Ok(true)
}

/// Returns none for an empty folder.
fn write(repository: &Repository, folder: &mut Folder, batch: &mut Batch, depth: usize) -> Result<Option<Oid>, Fault> {
    if depth > DEPTH_MAX {
        return Err(refused("path_too_long", "folders nest too deep"));
    }
    if !folder.changed {
        return Ok(folder.origin);
    }
    let origin = folder.origin;
    let entries = folder.entries(repository)?;
    no_twins(repository, origin, entries)?;
    let mut lines: Vec<(Vec<u8>, u32, Oid)> = Vec::with_capacity(entries.len());
    for (name, node) in entries {
        match node {
            Node::Leaf(id, mode) => lines.push((name.clone(), *mode, *id)),
            Node::Folder(below) => {
                if let Some(id) = write(repository, below, batch, depth + 1)? {
                    lines.push((name.clone(), MODE_TREE, id));
                }
            }
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    Ok(Some(batch.add(ObjectType::Tree, encode(lines))?))
}

/// Returns a tree object's bytes: git sorts a folder as though its name ended in `/`.
pub(super) fn encode(mut lines: Vec<(Vec<u8>, u32, Oid)>) -> Vec<u8> {
    let key = |name: &[u8], mode: u32| {
        let mut key = name.to_vec();
        if mode == MODE_TREE {
            key.push(b'/');
        }
        key
    };
    lines.sort_by_cached_key(|(name, mode, _)| key(name, *mode));
    let mut bytes = Vec::new();
    for (name, mode, id) in lines {
        bytes.extend_from_slice(format!("{mode:o} ").as_bytes());
        bytes.extend_from_slice(&name);
        bytes.push(0);
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes
}

/// Refuses a new name that is one file with another where case does not count.
fn no_twins(repository: &Repository, origin: Option<Oid>, entries: &BTreeMap<Vec<u8>, Node>) -> Result<(), Fault> {
    let mut seen: BTreeMap<Vec<u8>, &[u8]> = BTreeMap::new();
    let mut twins = Vec::new();
    for name in entries.keys() {
        if let Some(other) = seen.insert(folded(name), name) {
            twins.push((other, name.as_slice()));
        }
    }
    if twins.is_empty() {
        return Ok(());
    }
    let before: BTreeSet<Vec<u8>> = match origin {
        Some(origin) => repository.find_tree(origin)?.iter().map(|entry| entry.name_bytes().to_vec()).collect(),
        None => BTreeSet::new(),
    };
    match twins.iter().find(|(a, b)| !before.contains(*a) || !before.contains(*b)) {
        None => Ok(()),
        Some((a, b)) => {
            let (a, b) = (String::from_utf8_lossy(a), String::from_utf8_lossy(b));
            Err(refused("path_collides", format!("`{a}` and `{b}` differ by case alone: on many machines they are one file")))
        }
    }
}
