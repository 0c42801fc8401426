//! Checks: pass, fail, run too long, say too much, leave children, reach outside.

use std::fs;
use std::time::Duration;

use pointsman::ports::repository::{CheckReport, CheckSpec, Repository};

use crate::world::World;

async fn check(world: &World, command: &str, limit_ms: u64) -> CheckReport {
    let spec = CheckSpec { name: "c".to_owned(), command: command.to_owned(), limit_ms };
    world.git.run_check(world.project, world.main, spec).await.expect("a report")
}

/// Waits until no check's folder is left.
async fn cleared(world: &World) {
    let checks = world.folder.path().join("scratch/checks");
    let gone = async {
        while fs::read_dir(&checks).is_ok_and(|mut left| left.next().is_some()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the clones are removed");
}

/// Returns whether a process whose command line holds `text` runs.
fn runs(text: &str) -> bool {
    let entries = fs::read_dir("/proc").expect("/proc");
    entries.filter_map(Result::ok).any(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).replace('\0', " ").contains(text))
    })
}

#[tokio::test]
async fn a_check_runs_on_exactly_the_commit() {
    let world = World::with(&[("f", "hello\n"), ("sub/g", "x\n")]).await;
    let report = check(&world, "cat f && git log --format=%s -1 && git status --porcelain && ls .. && echo $HOME; pwd", 30_000).await;
    assert!(report.passed && report.exit == Some(0), "{report:?}");
    assert!(report.output_tail.starts_with("hello\nA change\n"), "{report:?}");
    assert_eq!(report.tree.to_string(), world.oracle(&["rev-parse", "main^{tree}"]));
    let failing = check(&world, "echo to stderr >&2; exit 3", 30_000).await;
    assert_eq!((failing.passed, failing.exit, failing.output_tail.as_str()), (false, Some(3), "to stderr\n"));
    let killed = check(&world, "kill -9 $$", 30_000).await;
    assert_eq!((killed.passed, killed.exit), (false, None));
    let environment = check(&world, "env", 30_000).await.output_tail;
    assert!(!environment.contains("CARGO_MANIFEST_DIR"), "the host's environment stays its own: {environment}");
    cleared(&world).await;
    world.is_sound();
}

#[tokio::test]
async fn a_check_that_runs_too_long_is_stopped_with_all_its_children() {
    let world = World::empty().await;
    let command = "(sleep 98761 &) ; setsid sleep 98762 & setsid nohup sleep 98763 >/dev/null 2>&1 & echo begun; sleep 98764";
    let report = check(&world, command, 700).await;
    assert_eq!((report.passed, report.exit), (false, None));
    assert!(report.output_tail.starts_with("begun\n") && report.output_tail.contains("stopped after 700 ms"), "{report:?}");
    assert!(report.took_ms >= 700 && report.took_ms < 10_000, "{report:?}");
    for child in ["sleep 98761", "sleep 98762", "sleep 98763", "sleep 98764"] {
        assert!(!runs(child), "{child} still runs");
    }
    let passing = check(&world, "setsid sleep 98765 & echo done", 30_000).await;
    assert!(passing.passed && passing.took_ms < 10_000, "{passing:?}");
    assert!(!runs("sleep 98765"), "what a passing check leaves is ended too");
    cleared(&world).await;
}

#[tokio::test]
async fn of_a_flood_the_end_is_kept() {
    let world = World::empty().await;
    let report = check(&world, "seq 1 2000000; printf 'ünd Schluss'", 60_000).await;
    assert!(report.passed, "{report:?}");
    assert!(report.output_tail.len() <= 16 << 10 && report.output_tail.ends_with("2000000\nünd Schluss"));
}

#[tokio::test]
async fn a_check_cannot_write_outside_its_clone() {
    let world = World::with(&[("f", "x\n")]).await;
    let outside = world.folder.path().join("outside");
    let bare = world.bare.display();
    let command = format!(
        "touch {outside}; touch {bare}/refs/heads/evil; rm -rf {bare}/objects/*; kill -9 {pid}; cat {secret}; \
         touch in-clone $TMPDIR/t $HOME/h && echo private-ok; echo x >/dev/null && echo null-ok",
        outside = outside.display(),
        pid = std::process::id(),
        secret = world.folder.path().join("secret").display(),
    );
    fs::write(world.folder.path().join("secret"), "TOP-SECRET").expect("written");
    let probe = check(&world, "true", 30_000).await;
    eprintln!("sandbox: {}", probe.sandbox);
    if !probe.sandbox.starts_with("landlock") {
        assert_eq!(probe.sandbox, "rlimits", "the report says what is missing");
        return;
    }
    let report = check(&world, &command, 30_000).await;
    assert!(report.passed, "{report:?}");
    assert!(report.output_tail.ends_with("private-ok\nnull-ok\n"), "{report:?}");
    assert!(!outside.exists() && world.at("refs/heads/evil").is_none(), "{report:?}");
    assert!(!report.output_tail.contains("TOP-SECRET"), "{report:?}");
    world.is_sound();
}
