//! Repositories: empty ones, copies of all kinds of sources, names of branches.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pointsman::adapters::git::{GitOptions, GitRepositories, GitStartError};
use pointsman::ports::repository::{Origin, Repository, RepositoryError};
use pointsman_core::ids::{ProjectId, RANDOM_BYTES};
use pointsman_core::time::TimeMs;

use crate::world::{TestSystem, World, git, options, run};

/// Every file below a folder, with its bytes and times.
fn snapshot(folder: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let changed = path.symlink_metadata().and_then(|meta| meta.modified()).expect("a time");
            if path.is_dir() && !path.is_symlink() {
                files.insert(path.display().to_string(), (Vec::new(), changed));
                open.push(path);
            } else {
                files.insert(path.display().to_string(), (fs::read(&path).unwrap_or_default(), changed));
            }
        }
    }
    files
}

fn source(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    git(folder, &["init", "--quiet", "--initial-branch=trunk"]);
    fs::write(folder.join("a.txt"), "one\n").expect("written");
    git(folder, &["add", "a.txt"]);
    git(folder, &["commit", "--quiet", "-m", "first"]);
    git(folder, &["branch", "side"]);
    git(folder, &["tag", "-a", "v1", "-m", "one"]);
}

#[tokio::test]
async fn an_empty_repository_starts_with_an_empty_commit_and_is_kept() {
    let world = World::empty().await;
    let again = world.git.create(world.project, Origin::Empty, Some("other".to_owned())).await;
    assert_eq!(again, Ok(("main".to_owned(), world.main)), "one that is there is kept");
    assert_eq!(world.oracle(&["rev-parse", "HEAD"]), world.main.to_string());
    assert_eq!(world.oracle(&["ls-tree", "-r", "HEAD"]), "");
    for (name, value) in [("core.fsync", "all"), ("transfer.hideRefs", "refs/pointsman"), ("gc.auto", "0"), ("receive.fsckObjects", "true")]
    {
        assert_eq!(world.oracle(&["config", name]), value);
    }
    world.is_sound();
}

#[tokio::test]
async fn a_copy_leaves_a_dirty_source_byte_identical() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("source");
    source(&from);
    fs::write(from.join("a.txt"), "dirty\n").expect("written");
    fs::write(from.join("new.txt"), "untracked\n").expect("written");
    git(&from, &["update-ref", "refs/elsewhere/x", "HEAD"]);
    git(&from, &["update-ref", "refs/remotes/origin/x", "HEAD"]);
    let before = snapshot(&from);
    let world = World::of(folder, Origin::CopyOf(from.clone())).await;
    assert_eq!(snapshot(&from), before, "the source is only read");
    let refs = world.oracle(&["for-each-ref", "--format=%(refname)"]);
    assert_eq!(refs, "refs/heads/side\nrefs/heads/trunk\nrefs/tags/v1");
    assert_eq!(world.oracle(&["symbolic-ref", "HEAD"]), "refs/heads/trunk");
    assert!(run(&world.bare, &["config", "--get-regexp", "^remote"]).stdout.is_empty());
    fs::remove_dir_all(&from).expect("removed");
    world.is_sound();
}

#[tokio::test]
async fn copies_of_unusual_sources() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("source");
    source(&from);
    let place = folder.path().to_owned();
    git(&place, &["clone", "--quiet", "--bare", "source", "bare.git"]);
    git(&place, &["clone", "--quiet", "--shared", "source", "borrowing"]);
    git(&place, &["clone", "--quiet", "source", "detached"]);
    git(&place.join("detached"), &["checkout", "--quiet", "--detach"]);
    git(&place.join("detached"), &["commit", "--quiet", "--allow-empty", "-m", "off any branch"]);
    fs::write(from.join("a.txt"), "two\n").expect("written");
    git(&from, &["commit", "--quiet", "-am", "second"]);
    let url = format!("file://{}", from.display());
    git(&place, &["clone", "--quiet", "--depth=1", &url, "shallow"]);
    git(&from, &["worktree", "add", "--quiet", "../tree", "side"]);
    let git_of = GitRepositories::open(options(&place), Arc::new(TestSystem)).await.expect("an adapter");
    for (place_number, (name, target)) in
        [("bare.git", "trunk"), ("borrowing", "trunk"), ("detached", "main"), ("shallow", "trunk"), ("tree", "side")]
            .into_iter()
            .enumerate()
    {
        let project = ProjectId::new(TimeMs(2), [u8::try_from(place_number).expect("few"); RANDOM_BYTES]);
        let made = git_of.create(project, Origin::CopyOf(place.join(name)), None).await;
        let (found, head) = made.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((found.as_str(), head.to_string()), (target, git(&place.join(name), &["rev-parse", "HEAD"])), "{name}");
        let bare = git_of.folder(project);
        assert!(!bare.join("objects/info/alternates").exists(), "{name} depends on nothing");
        git(&bare, &["fsck", "--strict"]);
    }
    let project = ProjectId::new(TimeMs(3), [9; RANDOM_BYTES]);
    for (origin, target) in [(place.join("nowhere"), None), (place.clone(), None), (from.clone(), Some("absent".to_owned()))] {
        let refused = git_of.create(project, Origin::CopyOf(origin), target).await;
        assert!(matches!(refused, Err(RepositoryError::NotFound { .. })), "{refused:?}");
        assert!(!git_of.folder(project).exists(), "nothing half-made is left");
    }
    git(&place, &["init", "--quiet", "--object-format=sha256", "wide"]);
    let refused = git_of.create(project, Origin::CopyOf(place.join("wide")), None).await;
    assert!(matches!(refused, Err(RepositoryError::Refused { rule: "object_format", .. })), "{refused:?}");
    assert_eq!(
        fs::read_dir(place.join("repositories")).expect("a folder").count(),
        6,
        "no leftovers: five repositories and the id of the volume"
    );
}

#[tokio::test]
async fn branch_names_are_judged() {
    let world = World::empty().await;
    world.grant(1, "task/one", world.main, 1).await.expect("granted");
    for (name, rule) in [
        ("", Some("bad_ref")),
        ("a..b", Some("bad_ref")),
        ("a.lock", Some("bad_ref")),
        ("-x", Some("bad_ref")),
        ("HEAD", Some("bad_ref")),
        ("a b", Some("bad_ref")),
        ("refs/heads/x", Some("bad_ref")),
        ("main", Some("ref_taken")),
        ("Task/One", Some("ref_taken")),
        ("task", Some("ref_collides")),
        ("task/one/more", Some("ref_collides")),
        ("task/two", None),
        ("ümlaut", None),
    ] {
        let judged = match world.git.check_branch_name(world.project, name).await {
            Ok(()) => None,
            Err(RepositoryError::Refused { rule, .. }) => Some(rule),
            Err(other) => panic!("{name}: {other}"),
        };
        assert_eq!(judged, rule, "{name}");
    }
    world.is_sound();
}

#[tokio::test]
async fn a_missing_git_is_a_typed_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let without = GitOptions { git: "/nowhere/git".into(), ..options(folder.path()) };
    let refused = GitRepositories::open(without, Arc::new(TestSystem)).await;
    assert!(matches!(refused.err(), Some(GitStartError::NoGit { .. })));
    let old = folder.path().join("old-git");
    fs::write(&old, "#!/bin/sh\necho git version 2.30.1\n").expect("written");
    fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    let refused = GitRepositories::open(GitOptions { git: old, ..options(folder.path()) }, Arc::new(TestSystem)).await;
    assert!(matches!(refused.err(), Some(GitStartError::TooOld { found }) if found == "2.30.1"));
}
