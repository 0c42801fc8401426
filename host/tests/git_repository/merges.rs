//! Merges: what git calls clean, every kind of conflict, previews without a trace, and the four sides.

use pointsman::ports::repository::{ConflictKind, Oid, Repository};
use pointsman_core::ids::MergeId;

use crate::world::{World, git, new_commit};

/// Everything in the object folder and all refs.
fn trace(world: &World) -> (String, String) {
    (world.oracle(&["count-objects", "-v"]), world.oracle(&["for-each-ref"]))
}

async fn kinds(world: &World, ours: Oid, theirs: Oid) -> Vec<(String, ConflictKind)> {
    let merge = world.git.merge(world.project, ours, theirs).await.expect("merged");
    merge.conflicts.into_iter().map(|conflict| (conflict.path, conflict.kind)).collect()
}

fn lines(changed: &[(usize, &str)]) -> String {
    let line =
        |n: usize| changed.iter().find(|(place, _)| *place == n).map_or_else(|| format!("line {n}\n"), |(_, text)| format!("{text}\n"));
    (1..=20).map(line).collect()
}

#[tokio::test]
async fn a_clean_merge_is_previewed_without_a_trace_and_then_kept() {
    let world = World::with(&[("src/f", &lines(&[])), ("old/name", &lines(&[])), ("same", "s\n")]).await;
    let ours = world.commit(world.main, &[("src/f", &lines(&[(2, "ours")])), ("added/by-us", "u\n")]).await;
    let theirs =
        world.commit(world.main, &[("src/f", &lines(&[(18, "theirs")])), ("old/name", ""), ("new/name", &lines(&[(3, "x")]))]).await;
    let before = trace(&world);
    let merge = world.git.merge(world.project, ours, theirs).await.expect("merged");
    assert_eq!((merge.base, merge.conflicts.len()), (Some(world.main), 0));
    assert_eq!(trace(&world), before, "no object, no ref");
    let again = world.git.merge(world.project, ours, theirs).await.expect("merged again");
    assert_eq!(again, merge);
    let sides = world.git.four_sides(world.project, merge.base, ours, theirs, merge.tree).await.expect("sides");
    let paths: Vec<_> = sides.iter().map(|side| side.path.as_str()).collect();
    assert_eq!(paths, ["added/by-us", "new/name", "old/name", "src/f"]);
    let merged = sides[3].result.expect("src/f is there");
    let text = world.git.blob(world.project, merged.oid).await.expect("a preview's blob");
    assert_eq!(String::from_utf8_lossy(&text), lines(&[(2, "ours"), (18, "theirs")]));
    assert!(sides[2].result.is_none() && sides[2].base.is_some() && sides[0].theirs.is_none());

    let commit = new_commit(&[ours, theirs], Vec::new());
    let candidate = world.git.write_merge_commit(world.project, merge.tree, commit, Some(MergeId(4))).await.expect("kept");
    assert_eq!(world.at("refs/pointsman/candidate/M-4"), Some(candidate));
    assert_eq!(world.oracle(&["rev-parse", &format!("{candidate}^{{tree}}")]), merge.tree.to_string());
    git(&world.bare, &["update-ref", "refs/heads/x", &ours.to_string()]);
    let known = world.oracle(&["merge-tree", "--write-tree", &ours.to_string(), &theirs.to_string()]);
    assert_eq!(known, merge.tree.to_string(), "as git itself merges");
    world.git.drop_candidate(world.project, MergeId(4)).await.expect("dropped");
    world.git.drop_candidate(world.project, MergeId(4)).await.expect("dropped again");
    assert_eq!(world.at("refs/pointsman/candidate/M-4"), None);
    world.is_sound();
}

#[tokio::test]
async fn an_amended_tree_keeps_all_it_needs() {
    let world = World::with(&[("f", &lines(&[])), ("deep/er/g", &lines(&[]))]).await;
    let ours = world.commit(world.main, &[("f", &lines(&[(5, "ours")])), ("deep/er/g", &lines(&[(1, "ours")]))]).await;
    let theirs = world.commit(world.main, &[("f", &lines(&[(5, "theirs")])), ("deep/er/g", &lines(&[(20, "theirs")]))]).await;
    let merge = world.git.merge(world.project, ours, theirs).await.expect("merged");
    assert_eq!(merge.conflicts.len(), 1);
    let conflict = &merge.conflicts[0];
    assert_eq!((conflict.path.as_str(), conflict.kind), ("f", ConflictKind::Content));
    assert!(conflict.base.is_some() && conflict.ours.is_some() && conflict.theirs.is_some());
    let files = vec![
        ("f".to_owned(), Some((0o100_644, b"resolved\n".to_vec()))),
        ("new/link".to_owned(), Some((0o120_000, b"../f".to_vec()))),
        ("absent".to_owned(), None),
    ];
    let tree = world.git.amend_tree(world.project, merge.tree, files).await.expect("amended");
    let commit = world.git.write_merge_commit(world.project, tree, new_commit(&[ours, theirs], Vec::new()), None).await.expect("a commit");
    git(&world.bare, &["update-ref", "refs/heads/merged", &commit.to_string()]);
    assert_eq!(world.oracle(&["show", "merged:f"]), "resolved");
    assert_eq!(world.oracle(&["show", "merged:deep/er/g"]), lines(&[(1, "ours"), (20, "theirs")]).trim());
    assert!(world.oracle(&["ls-tree", "-r", "merged", "new/link"]).starts_with("120000"));
    world.is_sound();
}

#[tokio::test]
async fn every_kind_of_conflict_is_named() {
    let base = [("f", lines(&[])), ("g", lines(&[])), ("dir/x", "x\n".to_owned())];
    let files: Vec<_> = base.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let world = World::with(&files).await;
    let (changed, other) = (lines(&[(5, "a")]), lines(&[(5, "b")]));
    for (ours, theirs, expected) in [
        (vec![("f", changed.as_str())], vec![("f", other.as_str())], vec![("f", ConflictKind::Content)]),
        (vec![("f", "")], vec![("f", changed.as_str())], vec![("f", ConflictKind::ModifyDelete)]),
        (vec![("n", "1\n")], vec![("n", "2\n")], vec![("n", ConflictKind::AddAdd)]),
        (
            vec![("g", ""), ("g1", &lines(&[]))],
            vec![("g", ""), ("g2", &lines(&[]))],
            vec![("g", ConflictKind::Rename), ("g1", ConflictKind::Rename), ("g2", ConflictKind::Rename)],
        ),
        (vec![("f", changed.as_str())], vec![("f", ""), ("moved", &lines(&[(15, "c")]))], vec![]),
    ] {
        let (one, two) = (world.commit(world.main, &ours).await, world.commit(world.main, &theirs).await);
        let found = kinds(&world, one, two).await;
        let found: Vec<_> = found.iter().map(|(path, kind)| (path.as_str(), *kind)).collect();
        assert_eq!(found, expected, "{ours:?} with {theirs:?}");
    }
    let (file, folder) = (world.commit(world.main, &[("spot", "file\n")]).await, world.commit(world.main, &[("spot/in", "x\n")]).await);
    let found = kinds(&world, file, folder).await;
    assert!(found.iter().any(|(_, kind)| *kind == ConflictKind::FileDirectory), "{found:?}");
    world.is_sound();
}

#[tokio::test]
async fn links_modes_and_binary_files() {
    let world = World::with(&[("run", "#!/bin/sh\n"), ("link", "x"), ("bin", "\0\u{1}base")]).await;
    let tree = async |parent: Oid, files: &[(&str, u32, &str)]| {
        let tree = world.git.tree_of(world.project, parent).await.expect("a tree");
        let files = files.iter().map(|(path, mode, text)| ((*path).to_owned(), Some((*mode, text.as_bytes().to_vec())))).collect();
        let tree = world.git.amend_tree(world.project, tree, files).await.expect("amended");
        world.git.write_merge_commit(world.project, tree, new_commit(&[parent], Vec::new()), None).await.expect("a commit")
    };
    let ours = tree(world.main, &[("run", 0o100_755, "#!/bin/sh\n"), ("link", 0o120_000, "to-a")]).await;
    let theirs = tree(world.main, &[("run", 0o100_644, "#!/bin/sh\ntrue\n")]).await;
    let merge = world.git.merge(world.project, ours, theirs).await.expect("merged");
    assert_eq!(merge.conflicts, [], "a mode and a text go together");
    let sides = world.git.four_sides(world.project, merge.base, ours, theirs, merge.tree).await.expect("sides");
    let run = sides.iter().find(|side| side.path == "run").expect("run");
    assert_eq!(run.result.map(|version| version.mode), Some(0o100_755));
    let other = tree(world.main, &[("link", 0o120_000, "to-b")]).await;
    let found = kinds(&world, ours, other).await;
    assert!(found.iter().any(|(path, kind)| path.starts_with("link") && *kind == ConflictKind::Other), "{found:?}");
    let (one, two) = (world.commit(world.main, &[("bin", "\0\u{1}one")]).await, world.commit(world.main, &[("bin", "\0\u{1}two")]).await);
    assert_eq!(kinds(&world, one, two).await, [("bin".to_owned(), ConflictKind::Other)]);
    world.is_sound();
}

#[tokio::test]
async fn criss_cross_history_keeps_its_conflict() {
    let world = World::with(&[("f", &lines(&[])), ("gone", &lines(&[]))]).await;
    let commit = async |parents: &[Oid], files: &[(&str, &str)]| {
        let tree = world.git.tree_of(world.project, world.commit(parents[0], files).await).await.expect("a tree");
        world.git.write_merge_commit(world.project, tree, new_commit(parents, Vec::new()), None).await.expect("a commit")
    };
    let a = commit(&[world.main], &[("f", &lines(&[(3, "a")]))]).await;
    let b = commit(&[world.main], &[("f", &lines(&[(17, "b")]))]).await;
    let both = lines(&[(3, "a"), (17, "b")]);
    let left = commit(&[a, b], &[("f", &both), ("gone", "")]).await;
    let right = commit(&[b, a], &[("f", &both), ("gone", &lines(&[(9, "changed")]))]).await;
    assert_eq!(world.oracle(&["merge-base", "--all", &left.to_string(), &right.to_string()]).lines().count(), 2);
    assert_eq!(kinds(&world, left, right).await, [("gone".to_owned(), ConflictKind::ModifyDelete)]);
    world.is_sound();
}

#[tokio::test]
async fn sides_without_own_work_and_unrelated_histories() {
    let world = World::with(&[("f", "1\n")]).await;
    let ahead = world.commit(world.main, &[("f", "2\n")]).await;
    let tree = |commit: Oid| world.git.tree_of(world.project, commit);
    let forward = world.git.merge(world.project, world.main, ahead).await.expect("merged");
    assert_eq!((forward.base, forward.tree), (Some(world.main), tree(ahead).await.expect("a tree")));
    let behind = world.git.merge(world.project, ahead, world.main).await.expect("merged");
    assert_eq!(behind.tree, tree(ahead).await.expect("a tree"));
    let edit = pointsman::ports::repository::PathEdit::Write { path: "g".to_owned(), bytes: b"g\n".to_vec(), executable: None };
    let root = world.git.write_commit(world.project, new_commit(&[], vec![edit])).await.expect("a root commit");
    let merge = world.git.merge(world.project, ahead, root).await.expect("merged");
    assert_eq!((merge.base, merge.conflicts.len()), (None, 0));
    world.is_sound();
}

#[tokio::test]
async fn the_targets_attributes_are_heeded() {
    let world = World::with(&[("lock", &lines(&[])), (".gitattributes", "lock -merge\n")]).await;
    let ours = world.commit(world.main, &[("lock", &lines(&[(2, "a")]))]).await;
    let theirs = world.commit(world.main, &[("lock", &lines(&[(18, "b")]))]).await;
    let found = kinds(&world, ours, theirs).await;
    assert_eq!(found, [("lock".to_owned(), ConflictKind::Other)], "a file that must not be merged by lines is not");
}
