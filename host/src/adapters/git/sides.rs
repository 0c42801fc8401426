//! Trees beside each other, walked without rename detection and without git's merge: the accounting's own eyes.

use std::collections::BTreeMap;

use git2::{Oid, Repository};

use super::fault::{Fault, commit, oid, or_not_found, raw, refused};
use super::project::Project;
use super::tree::{MODE_TREE, mode_of};
use crate::ports::repository::{FileVersion, FourSides, Oid as PortOid};

/// A path and what each of `N` trees has there.
pub(super) type Row<const N: usize> = (Vec<u8>, [Option<(Oid, u32)>; N]);

/// Returns each path at which not all trees are equal, files only, sorted.
pub(super) fn compare<const N: usize>(repository: &Repository, roots: [Option<Oid>; N]) -> Result<Vec<Row<N>>, Fault> {
    let mut rows = Vec::new();
    let mut open: Vec<(Vec<u8>, [Option<Oid>; N])> = vec![(Vec::new(), roots)];
    while let Some((prefix, trees)) = open.pop() {
        if trees.iter().all(|tree| *tree == trees[0]) {
            continue;
        }
        for (name, entries) in entries(repository, &trees)? {
            if entries.iter().all(|entry| *entry == entries[0]) {
                continue;
            }
            let mut path = prefix.clone();
            path.extend_from_slice(&name);
            let files = entries.map(|entry| entry.filter(|(_, mode)| *mode != MODE_TREE));
            let folders = entries.map(|entry| entry.filter(|(_, mode)| *mode == MODE_TREE).map(|(id, _)| id));
            if files.iter().any(|file| *file != files[0]) {
                rows.push((path.clone(), files));
            }
            if folders.iter().any(Option::is_some) {
                path.push(b'/');
                open.push((path, folders));
            }
        }
    }
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(rows)
}

type Entries<const N: usize> = BTreeMap<Vec<u8>, [Option<(Oid, u32)>; N]>;

fn entries<const N: usize>(repository: &Repository, trees: &[Option<Oid>; N]) -> Result<Entries<N>, Fault> {
    let mut found = Entries::new();
    for (place, id) in trees.iter().enumerate() {
        let Some(id) = id else { continue };
        for entry in &repository.find_tree(*id)? {
            found.entry(entry.name_bytes().to_vec()).or_insert([None; N])[place] = Some((entry.id(), mode_of(&entry)));
        }
    }
    Ok(found)
}

/// Returns every path that the sides or the result changed.
pub(super) fn four_sides(
    project: &Project,
    base: Option<PortOid>,
    ours: PortOid,
    theirs: PortOid,
    result_tree: PortOid,
) -> Result<Vec<FourSides>, Fault> {
    let wide = project.wide()?;
    let base = match base {
        Some(base) => Some(commit(&wide, base)?.tree_id()),
        None => None,
    };
    let (ours, theirs) = (commit(&wide, ours)?.tree_id(), commit(&wide, theirs)?.tree_id());
    let result = or_not_found(wide.find_tree(raw(result_tree)), || format!("tree {result_tree}"))?.id();
    let version = |side: Option<(Oid, u32)>| side.map(|(id, mode)| FileVersion { oid: oid(id), mode });
    compare(&wide, [base, Some(ours), Some(theirs), Some(result)])?
        .into_iter()
        .map(|(path, [base, ours, theirs, result])| {
            let path = text(path)?;
            Ok(FourSides { path, base: version(base), ours: version(ours), theirs: version(theirs), result: version(result) })
        })
        .collect()
}

/// Returns a path as text.
pub(super) fn text(path: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(path).map_err(|error| {
        let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
        refused("path_not_utf8", format!("`{shown}` is not UTF-8: rename the file, then merge again"))
    })
}
