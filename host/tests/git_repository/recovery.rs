//! What a host that died leaves behind, and how long things take.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use pointsman::adapters::git::GitRepositories;
use pointsman::ports::clock::System;
use pointsman::ports::repository::{BranchMove, Landing, Repository};
use pointsman_core::ids::{MergeId, TaskId};

use crate::world::{TestSystem, World, git_async, new_commit, options, serve, token};

#[tokio::test]
async fn leftovers_of_a_killed_host_are_cleared() {
    let world = World::with(&[("a", "1\n")]).await;
    world.grant(1, "t/1", world.main, 1).await.expect("granted");
    let new = world.commit(world.main, &[("a", "2\n")]).await;
    let (bare, root) = (&world.bare, world.folder.path().join("repositories"));
    for lock in
        ["refs/heads/main.lock", "refs/heads/t/1.lock", "refs/pointsman/fence/T-1.lock", "HEAD.lock", "packed-refs.lock", "config.lock"]
    {
        fs::write(bare.join(lock), "").expect("written");
    }
    fs::create_dir_all(bare.join("objects/tmp_objdir-incoming-x/ab")).expect("a folder");
    fs::write(bare.join("objects/pack/tmp_pack_x"), "half").expect("written");
    fs::create_dir_all(root.join(".half-prj_x/objects")).expect("a folder");
    let scratch = world.folder.path().join("scratch").canonicalize().expect("a folder");
    let mut orphan = Command::new("sleep").arg("98769").env("POINTSMAN_SCRATCH", &scratch).spawn().expect("started");
    let again = GitRepositories::open(options(world.folder.path()), Arc::new(TestSystem)).await.expect("opened again");
    assert_eq!(again.volume(), world.git.volume(), "the volume is the same");
    again.adopt(world.project).await.expect("adopted");
    assert!(!orphan.wait().expect("ended").success(), "the orphan was ended");
    assert!(!root.join(".half-prj_x").exists() && !bare.join("objects/tmp_objdir-incoming-x").exists());
    let step = BranchMove { task: TaskId(1), branch: "t/1".to_owned(), old: world.main, new, token: token(1) };
    again.move_branch(world.project, step).await.expect("no lock is in the way");
    world.is_sound();
}

#[tokio::test]
async fn a_killed_pushs_lock_does_not_stay() {
    let world = World::with(&[("a", "1\n")]).await;
    world.grant(1, "t/1", world.main, 1).await.expect("granted");
    // Held by somebody for good: a step gives up with a typed error rather than waiting for ever.
    let lock = world.bare.join("refs/heads/t/1.lock");
    fs::write(&lock, "").expect("written");
    let new = world.commit(world.main, &[("a", "2\n")]).await;
    let step = BranchMove { task: TaskId(1), branch: "t/1".to_owned(), old: world.main, new, token: token(1) };
    let late = world.git.move_branch(world.project, step.clone()).await;
    assert!(matches!(late, Err(pointsman::ports::repository::RepositoryError::TimedOut { .. })), "{late:?}");
    fs::remove_file(lock).expect("removed");
    world.git.move_branch(world.project, step).await.expect("moved");
}

/// Prints what the report quotes; fails only on the absurd.
#[tokio::test]
async fn timings() {
    const ROUNDS: usize = 20;
    let text: String = (0..400).map(|n| format!("line {n}\n")).collect();
    let names: Vec<String> = (0..300).map(|n| format!("dir{}/sub{}/file{n}", n % 10, n % 30)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), text.as_str())).collect();
    let world = World::with(&files).await;
    world.grant(1, "t/1", world.main, 1).await.expect("granted");
    let served = serve(&world, Some(crate::pushes::grant(&[], 1))).await;
    let made = git_async(world.folder.path(), &["clone", "--quiet", &served.url, "clone", "-b", "t/1"]).await;
    assert!(made.status.success());
    let clone = world.folder.path().join("clone");
    let mut took: std::collections::BTreeMap<&str, Vec<f64>> = std::collections::BTreeMap::new();
    let mut target = world.main;
    for round in 0..ROUNDS {
        let mut time = async |name, work: &mut (dyn Future<Output = ()> + Send + Unpin)| {
            let begun = TestSystem.instant();
            work.await;
            took.entry(name).or_default().push(begun.elapsed().as_secs_f64() * 1_000.0);
        };
        let ours_text = text.replace("line 3\n", &format!("ours {round}\n"));
        let theirs_text = text.replace("line 300\n", &format!("theirs {round}\n"));
        let ours = world.commit(target, &[(&names[0], &ours_text)]).await;
        let mut theirs = ours;
        time(
            "write_commit",
            &mut Box::pin(async { theirs = world.commit(target, &[(&names[0], &theirs_text), (&names[1], &theirs_text)]).await }),
        )
        .await;
        let mut tree = None;
        time("merge", &mut Box::pin(async { tree = Some(world.git.merge(world.project, ours, theirs).await.expect("merged")) })).await;
        let tree = tree.expect("merged");
        time(
            "four_sides",
            &mut Box::pin(async {
                world.git.four_sides(world.project, tree.base, ours, theirs, tree.tree).await.expect("sides");
            }),
        )
        .await;
        let mut new = ours;
        time(
            "write_merge_commit",
            &mut Box::pin(async {
                let commit = new_commit(&[ours, theirs], Vec::new());
                new = world.git.write_merge_commit(world.project, tree.tree, commit, Some(MergeId(1))).await.expect("kept");
            }),
        )
        .await;
        let landing = Landing {
            merge: MergeId(round as u64 + 1),
            task: TaskId(1),
            target: "main".to_owned(),
            old: target,
            new,
            receipt: "r".to_owned(),
        };
        time("land", &mut Box::pin(async { world.git.land(world.project, landing).await.expect("landed") })).await;
        target = new;
        fs::write(clone.join("pushed"), format!("{round}\n")).expect("written");
        crate::world::git(&clone, &["add", "-A"]);
        crate::world::git(&clone, &["commit", "--quiet", "-m", "x"]);
        time(
            "push",
            &mut Box::pin(async {
                let pushed = git_async(&clone, &["push", "--quiet", "origin", "t/1"]).await;
                assert!(pushed.status.success());
            }),
        )
        .await;
        time(
            "grant",
            &mut Box::pin(async {
                world.grant(100 + round as u64, &format!("g/{round}"), target, 1).await.expect("granted");
            }),
        )
        .await;
    }
    for (name, mut all) in took {
        all.sort_by(f64::total_cmp);
        eprintln!("{name}: median {:.1} ms, worst {:.1} ms", all[all.len() / 2], all[all.len() - 1]);
        assert!(all[all.len() / 2] < 5_000.0, "{name}");
    }
    world.is_sound();
}
