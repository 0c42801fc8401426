//! Real clones and pushes through `serve`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use pointsman::ports::repository::{PushGrant, Repository};
use pointsman_core::ids::TaskId;

use crate::world::{Served, World, git, git_async, serve, token};

pub(crate) fn grant(allowed: &[&str], n: u64) -> PushGrant {
    let allowed = allowed.iter().map(|glob| glob.parse().expect("a glob")).collect();
    PushGrant { task: TaskId(1), branch: "t/1".to_owned(), token: token(n), allowed, file_bytes_max: 1 << 20 }
}

/// A served repository with a granted branch, and a clone of it.
async fn story(files: &[(&str, &str)], allowed: &[&str]) -> (World, Served, PathBuf) {
    let world = World::with(files).await;
    world.grant(1, "t/1", world.main, 1).await.expect("granted");
    let served = serve(&world, Some(grant(allowed, 1))).await;
    let clone = world.folder.path().join("clone");
    let made = git_async(world.folder.path(), &["clone", "--quiet", &served.url, "clone", "-b", "t/1"]).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (world, served, clone)
}

fn change(clone: &Path, path: &str, text: &str) {
    let file = clone.join(path);
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    fs::write(file, text).expect("written");
    git(clone, &["add", "-A"]);
    git(clone, &["commit", "--quiet", "-m", &format!("change {path}")]);
}

async fn push(clone: &Path, arguments: &[&str]) -> Output {
    git_async(clone, &[&["push"], arguments].concat()).await
}

fn refused(output: &Output, rule: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(&format!("pointsman: refused [{rule}]")), "{rule}: {said}");
    said
}

#[tokio::test]
async fn a_clone_pushes_to_its_branch() {
    let (world, _served, clone) = story(&[("src/a", "1\n")], &["src/**"]).await;
    change(&clone, "src/a", "2\n");
    let pushed = push(&clone, &["origin", "t/1"]).await;
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let head = git(&clone, &["rev-parse", "HEAD"]);
    assert_eq!(world.git.branch_head(world.project, "t/1").await.expect("read").map(|head| head.to_string()), Some(head));
    let refs = git_async(&clone, &["ls-remote", "origin"]).await;
    assert!(!String::from_utf8_lossy(&refs.stdout).contains("refs/pointsman"), "the host's own refs are hidden");
    let old = git_async(&clone, &["-c", "protocol.version=0", "fetch", "--quiet", "origin"]).await;
    assert!(old.status.success());
    let partial =
        git_async(world.folder.path(), &["clone", "--quiet", "--filter=blob:none", "--no-checkout", &_served.url, "partial"]).await;
    assert!(partial.status.success());
    world.is_sound();
}

#[tokio::test]
async fn a_push_is_refused_with_a_rule_and_a_way_out() {
    let (world, served, clone) = story(&[("src/a", "1\n"), ("other", "1\n")], &["src/**"]).await;
    let start = git(&clone, &["rev-parse", "HEAD"]);
    change(&clone, "src/a", "2\n");
    let said = refused(&push(&clone, &["origin", "HEAD:refs/heads/main"]).await, "wrong_branch");
    assert!(said.contains("git push origin HEAD:refs/heads/t/1"), "{said}");
    refused(&push(&clone, &["origin", "HEAD:refs/heads/brand-new"]).await, "wrong_branch");
    refused(&push(&clone, &["origin", "HEAD:refs/notes/pointsman"]).await, "wrong_branch");
    let hidden = push(&clone, &["origin", "HEAD:refs/pointsman/fence/T-1"]).await;
    assert!(!hidden.status.success(), "internal refs are out of reach");
    let deletion = push(&clone, &["origin", ":t/1"]).await;
    assert!(!deletion.status.success());
    assert!(push(&clone, &["origin", "t/1"]).await.status.success());

    change(&clone, "other", "2\n");
    let said = refused(&push(&clone, &["origin", "t/1"]).await, "not_leased");
    assert!(said.contains("`other`") && said.contains("`src/**`"), "{said}");
    git(&clone, &["reset", "--quiet", "--hard", "HEAD~1"]);
    git(&clone, &["mv", "src/a", "moved"]);
    git(&clone, &["commit", "--quiet", "-m", "a rename out of the lease"]);
    refused(&push(&clone, &["origin", "t/1"]).await, "not_leased");
    // A change and its undoing are both in the history.
    git(&clone, &["revert", "--no-edit", "HEAD"]);
    refused(&push(&clone, &["origin", "t/1"]).await, "not_leased");

    git(&clone, &["reset", "--quiet", "--hard", &start]);
    change(&clone, "src/b", "x\n");
    refused(&push(&clone, &["--force", "origin", "t/1"]).await, "non_fast_forward");
    git(&clone, &["reset", "--quiet", "--hard", "origin/t/1"]);
    change(&clone, "src/big", &"x".repeat((1 << 20) + 1));
    refused(&push(&clone, &["origin", "t/1"]).await, "too_large");

    *served.grant.lock() = None;
    let read_only = push(&clone, &["origin", "t/1"]).await;
    assert!(!read_only.status.success());
    world.is_sound();
}

#[tokio::test]
async fn a_push_after_the_claim_ended_is_fenced() {
    let (world, served, clone) = story(&[("a", "1\n")], &[]).await;
    world.git.revoke(world.project, TaskId(1), "t/1", token(2)).await.expect("revoked");
    change(&clone, "a", "2\n");
    let said = refused(&push(&clone, &["origin", "t/1"]).await, "fenced");
    assert!(said.contains("T-1") && said.contains("claim it again"), "{said}");
    assert_eq!(world.at("refs/heads/t/1"), Some(world.main));
    world.grant(1, "t/1", world.main, 3).await.expect("granted anew");
    *served.grant.lock() = Some(grant(&[], 3));
    assert!(push(&clone, &["origin", "t/1"]).await.status.success());
    world.is_sound();
}

#[tokio::test]
async fn merging_the_target_in_touches_nothing_but_undoing_it_does() {
    let (world, _served, clone) = story(&[("src/a", "1\n"), ("other", "1\n")], &["src/**"]).await;
    change(&clone, "src/a", "2\n");
    let moved = world.commit(world.main, &[("other", "by somebody else\n")]).await;
    world.oracle(&["update-ref", "refs/heads/main", &moved.to_string()]);
    assert!(git_async(&clone, &["fetch", "--quiet", "origin"]).await.status.success());
    let before = git(&clone, &["rev-parse", "HEAD"]);
    git(&clone, &["merge", "--quiet", "--strategy=ours", "--no-edit", "origin/main"]);
    let said = refused(&push(&clone, &["origin", "t/1"]).await, "not_leased");
    assert!(said.contains("`other`"), "keeping the branch's side undoes somebody else's work: {said}");
    git(&clone, &["reset", "--quiet", "--hard", &before]);
    git(&clone, &["merge", "--quiet", "--no-edit", "origin/main"]);
    let pushed = push(&clone, &["origin", "t/1"]).await;
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    world.is_sound();
}

#[tokio::test]
async fn hostile_objects_are_refused() {
    let (world, _served, clone) = story(&[("a", "1\n")], &[]).await;
    let blob = git(&clone, &["hash-object", "-w", "a"]);
    for name in [".git", ".GIT", "git~1"] {
        let listing = clone.join("listing");
        fs::write(&listing, format!("100644 blob {blob}\t{name}\n")).expect("written");
        let tree = String::from_utf8(
            std::process::Command::new("git")
                .arg("mktree")
                .current_dir(&clone)
                .stdin(fs::File::open(&listing).expect("a file"))
                .output()
                .expect("git")
                .stdout,
        )
        .expect("a name");
        let commit = git(&clone, &["commit-tree", tree.trim(), "-p", "HEAD", "-m", "evil"]);
        let pushed = push(&clone, &["origin", &format!("{commit}:refs/heads/t/1")]).await;
        assert!(!pushed.status.success(), "{name}: {}", String::from_utf8_lossy(&pushed.stderr));
    }
    assert_eq!(world.at("refs/heads/t/1"), Some(world.main));
    world.is_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_race_with_revocations_and_the_loser_is_told() {
    let (world, served, clone) = story(&[("a", "1\n")], &[]).await;
    for round in 0..6_u64 {
        let n = 1 + round * 2;
        *served.grant.lock() = Some(grant(&[], n));
        world.grant(1, "t/1", world.main, n).await.expect("granted");
        change(&clone, "a", &format!("round {round}\n"));
        let before = world.at("refs/heads/t/1");
        let (pushed, revoked) =
            tokio::join!(push(&clone, &["origin", "t/1"]), world.git.revoke(world.project, TaskId(1), "t/1", token(n + 1)));
        revoked.expect("revoked");
        let after = world.at("refs/heads/t/1");
        let backup = world.at(&format!("refs/pointsman/backup/t/1/1.{}", n + 1));
        assert_eq!(backup, after, "the backup has what the push brought, or the push was fenced");
        assert_eq!(pushed.status.success(), after != before);
    }
    world.is_sound();
}
