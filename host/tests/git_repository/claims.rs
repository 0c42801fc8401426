//! Grants, fences, revocations, moves.

use pointsman::ports::repository::{BranchMove, Oid, Repository, RepositoryError};
use pointsman_core::ids::TaskId;

use crate::world::{World, token};

fn step(task: u64, branch: &str, old: Oid, new: Oid, n: u64) -> BranchMove {
    BranchMove { task: TaskId(task), branch: branch.to_owned(), old, new, token: token(n) }
}

fn fenced(task: u64) -> RepositoryError {
    RepositoryError::Fenced { task: TaskId(task) }
}

#[tokio::test]
async fn a_claim_moves_its_branch_until_it_is_revoked() {
    let world = World::with(&[("a", "1\n")]).await;
    let (git, project) = (&world.git, world.project);
    assert_eq!(world.grant(1, "t/1", world.main, 3).await, Ok(world.main));
    assert_eq!(world.grant(1, "t/1", world.main, 3).await, Ok(world.main), "again: the same");
    assert_eq!(world.oracle(&["cat-file", "blob", "refs/pointsman/fence/T-1"]), "1.3");
    let next = world.commit(world.main, &[("a", "2\n")]).await;
    git.move_branch(project, step(1, "t/1", world.main, next, 3)).await.expect("moved");
    git.move_branch(project, step(1, "t/1", world.main, next, 3)).await.expect("already there");
    let more = world.commit(next, &[("a", "3\n")]).await;
    assert!(matches!(git.move_branch(project, step(1, "t/1", world.main, more, 3)).await, Err(RepositoryError::Moved { .. })));
    assert_eq!(git.move_branch(project, step(1, "t/1", next, more, 2)).await, Err(fenced(1)), "an older token");
    assert_eq!(git.move_branch(project, step(1, "t/1", next, more, 4)).await, Err(fenced(1)), "a token nobody was granted");
    assert_eq!(git.move_branch(project, step(2, "t/1", next, more, 3)).await, Err(fenced(2)), "a task without a claim");

    git.revoke(project, TaskId(1), "t/1", token(5)).await.expect("revoked");
    git.revoke(project, TaskId(1), "t/1", token(5)).await.expect("revoked again");
    assert_eq!(world.at("refs/pointsman/backup/t/1/1.5"), Some(next));
    assert_eq!(git.move_branch(project, step(1, "t/1", next, more, 3)).await, Err(fenced(1)));
    assert_eq!(world.grant(1, "t/1", world.main, 4).await, Err(fenced(1)), "older than the revocation");
    assert_eq!(world.grant(1, "t/1", world.main, 6).await, Ok(next), "an existing branch is kept as it is");
    git.revoke(project, TaskId(1), "t/1", token(5)).await.expect("a late repetition changes nothing");
    git.move_branch(project, step(1, "t/1", next, more, 6)).await.expect("the new claim moves");
    assert_eq!(git.branch_head(project, "t/1").await, Ok(Some(more)));
    assert_eq!(git.branch_head(project, "t/2").await, Ok(None));
    let target = world.grant(9, "main", world.main, 1).await;
    assert!(matches!(target, Err(RepositoryError::Refused { rule: "is_target", .. })), "{target:?}");
    let absent = world.grant(9, "t/9", Oid([1; 20]), 1).await;
    assert!(matches!(absent, Err(RepositoryError::NotFound { .. })), "{absent:?}");
    assert_eq!(world.at("refs/pointsman/fence/T-9"), None, "nothing of a refused grant is left");
    world.is_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_grants_leave_the_newest() {
    let world = std::sync::Arc::new(World::empty().await);
    let mut races = tokio::task::JoinSet::new();
    for n in 1..=24 {
        let world = std::sync::Arc::clone(&world);
        races.spawn(async move { (n, world.grant(1, "t/1", world.main, n).await) });
    }
    let mut granted = Vec::new();
    while let Some(done) = races.join_next().await {
        match done.expect("no panic") {
            (n, Ok(_)) => granted.push(n),
            (_, Err(error)) => assert_eq!(error, fenced(1)),
        }
    }
    assert!(granted.contains(&24), "{granted:?}");
    assert_eq!(world.oracle(&["cat-file", "blob", "refs/pointsman/fence/T-1"]), "1.24");
    world.is_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_moves_have_one_winner() {
    let world = std::sync::Arc::new(World::empty().await);
    world.grant(1, "t/1", world.main, 1).await.expect("granted");
    let mut races = tokio::task::JoinSet::new();
    for n in 0..12 {
        let world = std::sync::Arc::clone(&world);
        races.spawn(async move {
            let new = world.commit(world.main, &[("a", &format!("{n}\n"))]).await;
            world.git.move_branch(world.project, step(1, "t/1", world.main, new, 1)).await
        });
    }
    let (mut won, mut lost) = (0, 0);
    while let Some(done) = races.join_next().await {
        match done.expect("no panic") {
            Ok(()) => won += 1,
            Err(RepositoryError::Moved { .. }) => lost += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((won, lost), (1, 11));
    world.is_sound();
}
