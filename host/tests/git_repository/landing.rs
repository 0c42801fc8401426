//! Landing: note, backup, swap, each repeated without harm.

use pointsman::ports::repository::{Landing, Oid, Repository, RepositoryError};
use pointsman_core::ids::{MergeId, TaskId};

use crate::world::{World, new_commit};

fn landing(merge: u64, old: Oid, new: Oid) -> Landing {
    Landing {
        merge: MergeId(merge),
        task: TaskId(1),
        target: "main".to_owned(),
        old,
        new,
        receipt: format!("receipt of M-{merge}\nline 2"),
    }
}

async fn merged(world: &World, ours: Oid, theirs: Oid) -> Oid {
    let merge = world.git.merge(world.project, ours, theirs).await.expect("merged");
    world.git.write_merge_commit(world.project, merge.tree, new_commit(&[ours, theirs], Vec::new()), None).await.expect("a commit")
}

#[tokio::test]
async fn a_landing_swaps_once_and_repeats_without_harm() {
    let world = World::with(&[("a", "1\n"), ("b", "1\n")]).await;
    let (one, two) = (world.commit(world.main, &[("a", "2\n")]).await, world.commit(world.main, &[("b", "2\n")]).await);
    let first = merged(&world, world.main, one).await;
    world.git.land(world.project, landing(1, world.main, first)).await.expect("landed");
    world.git.land(world.project, landing(1, world.main, first)).await.expect("landed again");
    assert_eq!(world.at("refs/heads/main"), Some(first));
    assert_eq!(world.at("refs/pointsman/backup/main/M-1"), Some(world.main));
    assert_eq!(world.oracle(&["notes", "--ref=pointsman", "show", &first.to_string()]), "receipt of M-1\nline 2");
    assert_eq!(world.git.receipt(world.project, first).await, Ok(Some("receipt of M-1\nline 2".to_owned())));
    assert_eq!(world.git.receipt(world.project, world.main).await, Ok(None));
    assert!(matches!(world.git.receipt(world.project, Oid([3; 20])).await, Err(RepositoryError::NotFound { .. })));

    // Made against the old target: the swap is refused, and only it can have left a note.
    let late = merged(&world, world.main, two).await;
    let refused = world.git.land(world.project, landing(2, world.main, late)).await;
    assert_eq!(
        refused,
        Err(RepositoryError::Moved { name: "refs/heads/main".to_owned(), expected: world.main.to_string(), actual: first.to_string() })
    );
    assert_eq!((world.at("refs/heads/main"), world.at("refs/pointsman/backup/main/M-2")), (Some(first), None));
    let second = merged(&world, first, two).await;
    world.git.land(world.project, landing(2, first, second)).await.expect("landed");
    world.git.land(world.project, landing(1, world.main, first)).await.expect("the target contains it");
    assert_eq!(world.at("refs/heads/main"), Some(second));
    let dropping = world.git.land(world.project, landing(3, second, two)).await;
    assert!(matches!(dropping, Err(RepositoryError::Refused { rule: "drops_work", .. })), "{dropping:?}");
    world.is_sound();
}

#[tokio::test]
async fn a_landing_cut_after_its_backup_is_finished_by_repetition() {
    let world = World::with(&[("a", "1\n")]).await;
    let one = world.commit(world.main, &[("a", "2\n")]).await;
    world.oracle(&["update-ref", "refs/pointsman/backup/main/M-1", &world.main.to_string()]);
    world.git.land(world.project, landing(1, world.main, one)).await.expect("landed");
    assert_eq!(world.at("refs/heads/main"), Some(one));
    // And one whose target moved while the backup was lost.
    world.oracle(&["update-ref", "-d", "refs/pointsman/backup/main/M-1"]);
    world.git.land(world.project, landing(1, world.main, one)).await.expect("landed again");
    assert_eq!(world.at("refs/pointsman/backup/main/M-1"), Some(world.main));
    world.is_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_landings_have_one_winner_and_all_notes() {
    let world = std::sync::Arc::new(World::with(&[("a", "1\n")]).await);
    let mut races = tokio::task::JoinSet::new();
    for n in 1..=8 {
        let world = std::sync::Arc::clone(&world);
        races.spawn(async move {
            let new = world.commit(world.main, &[(&format!("f{n}"), "x\n")]).await;
            (new, world.git.land(world.project, landing(n, world.main, new)).await)
        });
    }
    let mut won = Vec::new();
    while let Some(done) = races.join_next().await {
        match done.expect("no panic") {
            (new, Ok(())) => won.push(new),
            (_, Err(RepositoryError::Moved { .. })) => {}
            (_, Err(other)) => panic!("{other}"),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(world.at("refs/heads/main"), Some(won[0]));
    assert!(world.git.receipt(world.project, won[0]).await.expect("a commit").is_some());
    world.is_sound();
}
