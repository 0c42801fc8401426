//! The demo, as a stranger runs it.

use pointsman_tests::{git, pointsman};
use serde_json::Value;

#[test]
fn the_demo_proves_its_claims_on_a_generated_repository() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The user's own settings are for the user's own host.
    let own = ("POINTSMAN_SERVER_BIND", "127.0.0.1:1");
    let out = pointsman(&["demo", "--json"]).env(own.0, own.1).current_dir(folder.path()).output().expect("the demo runs");
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{printed}\n{}", String::from_utf8_lossy(&out.stderr));
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    let claims = lines.iter().filter(|line| line["claim"].is_string()).count();
    assert!(claims >= 20, "{claims} claims");
    assert!(lines.iter().all(|line| line["holds"] != false));
}

#[test]
fn the_demo_leaves_the_repository_it_copies_untouched() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repo = folder.path();
    std::fs::write(repo.join("a.py"), "import os\nimport sys\n").expect("a file");
    std::fs::write(repo.join("CHANGES.md"), "# Changes\n").expect("a file");
    std::fs::write(repo.join("README.md"), "# A\n").expect("a file");
    git(repo, &["init", "-q", "-b", "trunk"]);
    git(repo, &["add", "-A"]);
    git(repo, &["commit", "-q", "-m", "Begin"]);
    std::fs::write(repo.join("a.py"), "import os\nimport sys\n# in the middle of something\n").expect("a dirty file");
    let before = (git(repo, &["for-each-ref"]), git(repo, &["status", "--porcelain"]));
    let out = pointsman(&["demo", "--repo"]).arg(repo).output().expect("the demo runs");
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{printed}");
    assert!(printed.contains("claims hold"), "{printed}");
    assert_eq!((git(repo, &["for-each-ref"]), git(repo, &["status", "--porcelain"])), before);
}
