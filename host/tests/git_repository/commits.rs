//! Commits written from memory, and what is refused.

use pointsman::ports::repository::{PathEdit, Repository, RepositoryError};
use pointsman_core::ids::MergeId;

use crate::world::{World, git, new_commit};

fn write(path: &str, text: &str) -> PathEdit {
    PathEdit::Write { path: path.to_owned(), bytes: text.as_bytes().to_vec(), executable: None }
}

fn rename(from: &str, to: &str) -> PathEdit {
    PathEdit::Rename { from: from.to_owned(), to: to.to_owned() }
}

fn delete(path: &str) -> PathEdit {
    PathEdit::Delete { path: path.to_owned() }
}

#[tokio::test]
async fn edits_make_the_tree_git_would_make() {
    let world = World::with(&[("src/a.rs", "a\n"), ("src/deep/b.rs", "b\n"), ("c.txt", "c\n"), ("a.b", "x\n"), ("a/b", "y\n")]).await;
    let edits = vec![
        write("src/new/n.rs", "new\n"),
        PathEdit::Write { path: "run.sh".to_owned(), bytes: b"#!/bin/sh\n".to_vec(), executable: Some(true) },
        rename("src/a.rs", "lib/a.rs"),
        delete("src/deep/b.rs"),
        write("c.txt", "changed\n"),
    ];
    let commit = new_commit(&[world.main], edits);
    let one = world.git.write_commit(world.project, commit.clone()).await.expect("written");
    let two = world.git.write_commit(world.project, commit).await.expect("written again");
    assert_eq!(one, two, "the same input, the same commit");
    let listing = world.oracle(&["ls-tree", "-r", "--format=%(objectmode) %(path)", &one.to_string()]);
    assert_eq!(listing, "100644 a.b\n100644 a/b\n100644 c.txt\n100644 lib/a.rs\n100755 run.sh\n100644 src/new/n.rs");
    assert_eq!(
        world.oracle(&["log", "-1", "--format=%an %ae %at %cn %s", &one.to_string()]),
        "ana ana@agents.example 1700000000 Pointsman A change"
    );
    assert_eq!(world.git.file(world.project, one, "c.txt").await, Ok(Some(b"changed\n".to_vec())));
    assert_eq!(world.git.file(world.project, one, "src/a.rs").await, Ok(None));
    assert_eq!(world.git.file(world.project, one, "src").await, Ok(None));
    // An executable stays one when its text changes.
    let kept = world.commit(one, &[("run.sh", "#!/bin/sh\ntrue\n")]).await;
    assert!(world.oracle(&["ls-tree", &kept.to_string(), "run.sh"]).starts_with("100755"));
    git(&world.bare, &["update-ref", "refs/heads/x", &kept.to_string()]);
    let between = world.git.commits_between(world.project, world.main, kept, 10).await.expect("commits");
    assert_eq!(between.iter().map(|commit| commit.id.as_str()).collect::<Vec<_>>(), [one.to_string(), kept.to_string()]);
    let changes = world.git.changes(world.project, world.main, kept).await.expect("changes");
    let of_c = changes.iter().find(|change| change.path == "c.txt").expect("c.txt");
    assert_eq!((of_c.added, of_c.removed), (1, 1));
    assert_eq!(world.git.is_ancestor(world.project, world.main, kept).await, Ok(true));
    assert_eq!(world.git.is_ancestor(world.project, kept, world.main).await, Ok(false));
    world.is_sound();
}

#[tokio::test]
async fn hostile_and_colliding_edits_are_refused_whole() {
    let world = World::with(&[("a", "file\n"), ("dir/x", "x\n"), ("README.md", "r\n"), ("src/lib.rs", "l\n")]).await;
    let lease = ["src/**".parse().expect("a glob")];
    for (edits, allowed, rule) in [
        (vec![write("../x", "")], &[][..], "path_escapes"),
        (vec![write(".git/hooks/post-checkout", "")], &[][..], "path_escapes"),
        (vec![write("src/.GIT/x", "")], &[][..], "path_escapes"),
        (vec![write("/etc/x", "")], &[][..], "path_escapes"),
        (vec![write("x\0", "")], &[][..], "path_control"),
        (vec![write("a/b", "")], &[][..], "path_collides"),
        (vec![write("dir", "")], &[][..], "path_collides"),
        (vec![write("readme.MD", "")], &[][..], "path_collides"),
        (vec![write("Src/lib.rs", "")], &[][..], "path_collides"),
        (vec![write("n/é", ""), write("n/É", "")], &[][..], "path_collides"),
        (vec![rename("a", "README.md")], &[][..], "path_collides"),
        (vec![rename("a", "dir/../y")], &[][..], "path_escapes"),
        (vec![write("src/ok", ""), write("other", "")], &lease[..], "not_leased"),
        (vec![delete("a")], &lease[..], "not_leased"),
        (vec![rename("src/lib.rs", "lib.rs")], &lease[..], "not_leased"),
        (vec![rename("a", "src/a")], &lease[..], "not_leased"),
        (vec![write("big", &"x".repeat((4 << 20) + 1))], &[][..], "too_large"),
        ((0..501).map(|n| write(&format!("f{n}"), "")).collect(), &[][..], "too_large"),
    ] {
        let mut commit = new_commit(&[world.main], edits);
        commit.allowed = allowed.to_vec();
        let shown = format!("{:?}", commit.edits).chars().take(80).collect::<String>();
        match world.git.write_commit(world.project, commit).await {
            Err(RepositoryError::Refused { rule: found, why }) => {
                assert_eq!(found, rule, "{shown}");
                assert!(rule != "not_leased" || why.contains("`src/**`"), "{why}");
            }
            other => panic!("{shown}: {other:?}"),
        }
    }
    for edits in [vec![delete("nowhere")], vec![rename("nowhere", "x")], vec![delete("dir")]] {
        let missing = world.git.write_commit(world.project, new_commit(&[world.main], edits)).await;
        assert!(matches!(missing, Err(RepositoryError::NotFound { .. })), "{missing:?}");
    }
    // A file and a folder may change places, and a name its case, within one commit.
    let fine =
        vec![delete("a"), write("a/b", "now a folder\n"), rename("README.md", "Readme.md"), delete("dir/x"), write("dir", "now a file\n")];
    let commit = world.git.write_commit(world.project, new_commit(&[world.main], fine)).await.expect("written");
    assert_eq!(world.oracle(&["ls-tree", "-r", "--name-only", &commit.to_string()]), "Readme.md\na/b\ndir\nsrc/lib.rs");
    world.is_sound();
}

#[tokio::test]
async fn wrong_words_do_not_break_a_commit() {
    let world = World::empty().await;
    let mut commit = new_commit(&[world.main], vec![write("a", "a")]);
    commit.author.name = "evil <x> \n committer y".to_owned();
    commit.author.email = " ".to_owned();
    commit.message = String::new();
    let made = world.git.write_commit(world.project, commit.clone()).await.expect("written");
    assert_eq!(world.oracle(&["log", "-1", "--format=%an|%ae", &made.to_string()]), "evil x  committer y|unknown@localhost");
    commit.message = "a\0b".to_owned();
    let refused = world.git.write_commit(world.project, commit).await;
    assert!(matches!(refused, Err(RepositoryError::Refused { rule: "bad_message", .. })));
    let absent = world.git.write_merge_commit(world.project, made, new_commit(&[world.main], Vec::new()), Some(MergeId(1))).await;
    assert!(matches!(absent, Err(RepositoryError::NotFound { .. })), "a commit is no tree: {absent:?}");
    world.is_sound();
}
