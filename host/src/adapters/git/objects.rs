//! Durable objects in one go.
//!
//! Objects are written unsynced into a staging folder, then each file is synced, linked into the repository and the
//! folders synced once: a tenth of the cost of syncing file and folder for each object.
//!
//! **Invariant:** when [`Batch::flush`] or [`promote`] has returned, the objects survive a power cut; an object is linked
//! only after everything it names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid};

use super::fault::Fault;
use super::project::Project;

/// Objects to be written, each after those it names.
#[derive(Default)]
pub(super) struct Batch {
    objects: Vec<(Oid, ObjectType, Vec<u8>)>,
    places: HashMap<Oid, usize>,
}

impl Batch {
    /// Adds an object and returns its name.
    pub(super) fn add(&mut self, kind: ObjectType, bytes: Vec<u8>) -> Result<Oid, Fault> {
        let id = Oid::hash_object(kind, &bytes)?;
        if !self.places.contains_key(&id) {
            self.places.insert(id, self.objects.len());
            self.objects.push((id, kind, bytes));
        }
        Ok(id)
    }

    /// Returns an added object's kind and bytes.
    pub(super) fn get(&self, id: Oid) -> Option<(ObjectType, &[u8])> {
        self.places.get(&id).map(|place| (self.objects[*place].1, self.objects[*place].2.as_slice()))
    }

    /// Makes `files` (preview objects, children first) and all added objects durable in the repository.
    pub(super) fn flush(self, project: &Project, files: Vec<(PathBuf, Oid)>) -> Result<(), Fault> {
        let main = project.main()?;
        let odb = main.odb()?;
        let missing: Vec<_> = self.objects.into_iter().filter(|(id, _, _)| !odb.exists(*id)).collect();
        let mut sources = files;
        let staging = project.staging()?;
        let stage = staging.odb()?;
        let mut staged = Vec::with_capacity(missing.len());
        for (id, kind, bytes) in missing {
            stage.write(kind, &bytes)?;
            let path = loose_path(&staging.path().join("objects"), id);
            staged.push(path.clone());
            sources.push((path, id));
        }
        promote(&project.dir.join("objects"), &sources)?;
        for path in staged {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Returns where a loose object is.
pub(super) fn loose_path(objects: &Path, id: Oid) -> PathBuf {
    let hex = id.to_string();
    objects.join(&hex[..2]).join(&hex[2..])
}

/// Links object files into an object folder, durably.
pub(super) fn promote(objects: &Path, sources: &[(PathBuf, Oid)]) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    let mut made = false;
    sync_each(sources.iter().map(|(source, _)| source.as_path()).collect())?;
    for (source, id) in sources {
        let to = loose_path(objects, *id);
        let folder = to.parent().expect("a loose object is in a folder").to_owned();
        match fs::create_dir(&folder) {
            Ok(()) => made = true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        link(source, &to)?;
        folders.insert(folder);
    }
    if made {
        folders.insert(objects.to_owned());
    }
    sync_each(folders.iter().map(PathBuf::as_path).collect())
}

/// Syncs files or folders at the same time: the file system then commits them together.
fn sync_each(paths: Vec<&Path>) -> io::Result<()> {
    const THREADS_MAX: usize = 8;
    let sync = |paths: &[&Path]| paths.iter().try_for_each(|path| File::open(path)?.sync_all());
    let share = paths.len().div_ceil(THREADS_MAX).max(1);
    if paths.len() <= 1 {
        return sync(&paths);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = paths.chunks(share).map(|paths| scope.spawn(move || sync(paths))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("syncing does not panic"))
    })
}

fn link(source: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(source, to) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        // Another file system, or one without hard links.
        Err(_) => {}
    }
    let name = to.file_name().expect("a loose object has a name").to_string_lossy();
    let temporary = to.with_file_name(format!("tmp_obj_{name}"));
    fs::copy(source, &temporary)?;
    File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, to)
}

/// Returns the preview files that `tree` needs, children first, and that nothing it needs is missing.
pub(super) fn preview_files(project: &Project, batch: &Batch, tree: Oid) -> Result<Vec<(PathBuf, Oid)>, Fault> {
    let mut walk = Needed { project, wide: &*project.wide()?, main: &*project.main()?, batch, found: BTreeMap::new(), order: Vec::new() };
    walk.visit(tree, true)?;
    Ok(walk.order)
}

struct Needed<'a> {
    project: &'a Project,
    wide: &'a git2::Repository,
    main: &'a git2::Repository,
    batch: &'a Batch,
    found: BTreeMap<Oid, ()>,
    order: Vec<(PathBuf, Oid)>,
}

impl Needed<'_> {
    fn visit(&mut self, id: Oid, is_tree: bool) -> Result<(), Fault> {
        if self.found.insert(id, ()).is_some() {
            return Ok(());
        }
        let ours = self.batch.get(id).is_some();
        let file = if ours { None } else { self.project.preview_file(id) };
        if !ours && file.is_none() {
            // It is the repository's own, and so is everything below.
            return if self.main.odb()?.exists(id) { Ok(()) } else { Err(super::fault::not_found(format!("object {id}"))) };
        }
        if is_tree {
            for (child, mode) in self.children(id)? {
                if mode != super::tree::MODE_SUBMODULE {
                    self.visit(child, mode == super::tree::MODE_TREE)?;
                }
            }
        }
        if let Some(file) = file {
            self.order.push((file, id));
        }
        Ok(())
    }

    fn children(&self, id: Oid) -> Result<Vec<(Oid, u32)>, Fault> {
        match self.batch.get(id) {
            Some((_, bytes)) => Ok(decode(bytes)),
            None => Ok(self.wide.find_tree(id)?.iter().map(|entry| (entry.id(), super::tree::mode_of(&entry))).collect()),
        }
    }
}

/// Returns the entries of a tree object this adapter encoded.
fn decode(mut bytes: &[u8]) -> Vec<(Oid, u32)> {
    let mut entries = Vec::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        let Some(id) = bytes.get(end + 1..end + 21) else { break };
        let mode = std::str::from_utf8(&bytes[..end]).ok().or_else(|| {
            let space = bytes.iter().position(|byte| *byte == b' ')?;
            std::str::from_utf8(&bytes[..space]).ok()
        });
        let mode = mode.and_then(|text| text.split(' ').next()).and_then(|digits| u32::from_str_radix(digits, 8).ok()).unwrap_or(0);
        if let Ok(id) = Oid::from_bytes(id) {
            entries.push((id, mode));
        }
        bytes = &bytes[end + 21..];
    }
    entries
}
