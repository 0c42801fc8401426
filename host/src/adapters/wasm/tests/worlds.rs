//! Each world but the router's, through the shipped components: what goes in, what comes out.

use super::shipped::shipped;
use super::*;
use crate::ports::plugins::{
    ChangeFacts, CommitFacts, CommitInfo, FileChange, FileOutcome, FlowTask, Gate, GateActor, GateApproval, GateFacts, GateVerdict,
    HunkOutcome, MergeFile, MergeHunk, MergeScope, ReconcileOutcome, WaitingBranch,
};

async fn with(name: &str, world: World) -> Wasm {
    let wasm = runtime();
    wasm.load(source(name, world, shipped(name))).await.unwrap_or_else(|error| panic!("{error}"));
    wasm
}

fn hunk(base: &str, ours: &str, theirs: &str) -> MergeHunk {
    MergeHunk { base: base.into(), ours: ours.into(), theirs: theirs.into() }
}

#[tokio::test]
async fn a_merger_of_hunks() {
    let wasm = with("merge-union", World::Merger).await;
    let description = wasm.merger("merge-union").expect("it said so when it was loaded");
    assert_eq!(description.scope, MergeScope::Hunks);
    assert!(description.paths.iter().any(|path| path == "CHANGELOG*"), "{description:?}");
    let hunks = vec![hunk("", "- a\n", "- b\n"), hunk("- x\n", "- y\n", "- z\n")];
    let answers = wasm.merge_hunks("merge-union", "CHANGELOG.md", hunks).await.expect("an answer");
    assert_eq!(answers[0], HunkOutcome::Resolved(b"- a\n- b\n".to_vec(), Vec::new()));
    assert!(matches!(&answers[1], HunkOutcome::Conflict(reason) if !reason.is_empty()), "{answers:?}");
    assert_eq!(wasm.merge_hunks("merge-union", "a", Vec::new()).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_merger_of_files() {
    let wasm = with("merge-text", World::Merger).await;
    let file = |ours: &str, theirs: &str| MergeFile {
        path: "notes.txt".to_owned(),
        base: Some(b"a\nb\nc\nd\ne\n".to_vec()),
        ours: ours.into(),
        theirs: theirs.into(),
        so_far: Vec::new(),
    };
    let apart = wasm.merge_file("merge-text", file("A\nb\nc\nd\ne\n", "a\nb\nc\nd\nE\n")).await.expect("an answer");
    assert_eq!(apart, FileOutcome::Resolved(b"A\nb\nc\nd\nE\n".to_vec(), Vec::new()));
    let same = wasm.merge_file("merge-text", file("a\nb\nX\nd\ne\n", "a\nb\nY\nd\ne\n")).await.expect("an answer");
    assert!(matches!(&same, FileOutcome::Conflicts(places) if places.len() == 1 && places[0].starts_with("line 3: ")), "{same:?}");
    let added = MergeFile { base: None, ..file("a\n", "b\n") };
    let added = wasm.merge_file("merge-text", added).await.expect("an answer");
    assert!(matches!(added, FileOutcome::Declined(_)), "{added:?}");
}

#[tokio::test]
async fn a_reconciler() {
    let wasm = with("context-json", World::Reconciler).await;
    let ask = |ours: &str, theirs: &str| {
        let sides = (ours.as_bytes().to_vec(), theirs.as_bytes().to_vec());
        let wasm = &wasm;
        async move {
            let base = br#"{"a":1,"b":1}"#.to_vec();
            wasm.reconcile("context-json", "application/json", base, sides.0, sides.1).await.expect("an answer")
        }
    };
    let ReconcileOutcome::Merged(bytes) = ask(r#"{"a":2,"b":1}"#, r#"{"a":1,"b":2}"#).await else { panic!("they do not overlap") };
    let merged: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(merged, serde_json::json!({"a": 2, "b": 2}));
    let ReconcileOutcome::Conflicts(places) = ask(r#"{"a":2,"b":1}"#, r#"{"a":3,"b":1}"#).await else { panic!("they overlap") };
    assert_eq!(places[0].pointer, "/a");
    assert_eq!(places[0].ours.as_deref(), Some("2"));
    let declined = wasm.reconcile("context-json", "text/plain", Vec::new(), Vec::new(), Vec::new()).await.expect("an answer");
    assert!(matches!(declined, ReconcileOutcome::Declined(_)), "{declined:?}");
}

#[tokio::test]
async fn a_workflow() {
    let wasm = with("workflow-default", World::Workflow).await;
    let name = "workflow-default";
    let task = FlowTask {
        id: "T-12".to_owned(),
        title: "Count retries".to_owned(),
        kind: "fix".to_owned(),
        labels: vec!["net".to_owned()],
        priority: 4,
        ..FlowTask::default()
    };
    let branch = wasm.branch_name(name, task.clone(), 0).await.expect("a name");
    assert!(branch.contains("count-retries"), "{branch}");
    assert_ne!(wasm.branch_name(name, task.clone(), 1).await.expect("a name"), branch);
    let files = vec![FileChange { path: "src/net.rs".to_owned(), added: 3, removed: 1 }];
    let facts = CommitFacts { task: task.clone(), agent: "ana".to_owned(), note: "retries are counted".to_owned(), files: files.clone() };
    let message = wasm.commit_message(name, facts).await.expect("a message");
    assert!(message.contains("T-12"), "{message}");
    let change = ChangeFacts {
        task,
        agent: "ana".to_owned(),
        branch,
        target: "main".to_owned(),
        commits: vec![CommitInfo { id: "0".repeat(40), subject: "count retries".to_owned(), author: "Ana <ana@a>".to_owned() }],
        files,
        checks: vec!["make check: passed".to_owned()],
        approvals: vec!["bob".to_owned()],
        resolutions: Vec::new(),
    };
    let message = wasm.merge_message(name, change.clone()).await.expect("a message");
    assert!(message.contains("T-12"), "{message}");
    let text = wasm.pull_request(name, change).await.expect("a text");
    assert!(text.title.contains("Count retries") && text.body.contains("src/net.rs"), "{text:?}");

    let waiting = |task: &str, priority, after: &[u32]| WaitingBranch {
        task: task.to_owned(),
        priority,
        kind: "feature".to_owned(),
        waited_ms: 10,
        files: 1,
        after: after.to_vec(),
        overlaps: Vec::new(),
    };
    let queue = vec![waiting("T-1", 4, &[]), waiting("T-2", 9, &[2]), waiting("T-3", 1, &[])];
    assert_eq!(wasm.merge_order(name, queue).await, Ok(vec![2, 1, 0]));
}

#[tokio::test]
async fn a_policy() {
    let wasm = with("policy-default", World::Policy).await;
    let actor = |agent: &str| GateActor {
        agent: agent.to_owned(),
        principal: "team-a".to_owned(),
        provenance: Provenance::Agent,
        capabilities: vec!["rust".to_owned()],
    };
    let facts = |approvals: &[&str]| GateFacts {
        actor: actor("ana"),
        owner: "ana".to_owned(),
        task: "T-12".to_owned(),
        kind: "fix".to_owned(),
        labels: Vec::new(),
        priority: 4,
        held: 1,
        target: "refs/heads/main".to_owned(),
        head: "abc".to_owned(),
        paths: vec!["src/net.rs".to_owned()],
        lines_changed: 4,
        approvals: approvals.iter().map(|by| GateApproval { by: actor(by), approves: true, head: "abc".to_owned() }).collect(),
        checks: vec![("make check".to_owned(), true)],
        capability: String::new(),
    };
    let check = |gate, facts| wasm.check("policy-default", gate, facts);
    let needed = check(Gate::Land, facts(&[])).await.expect("a verdict");
    assert!(matches!(&needed, GateVerdict::Need { approvals: 1, rule, .. } if !rule.is_empty()), "{needed:?}");
    let own = check(Gate::Land, facts(&["ana"])).await.expect("a verdict");
    assert!(matches!(own, GateVerdict::Need { .. }), "the author's own does not count: {own:?}");
    assert_eq!(check(Gate::Land, facts(&["bob"])).await, Ok(GateVerdict::Allow));
    let failed = GateFacts { checks: vec![("make check".to_owned(), false)], ..facts(&["bob"]) };
    let failed = check(Gate::Land, failed).await.expect("a verdict");
    assert!(matches!(failed, GateVerdict::Deny { .. }), "{failed:?}");
    assert_eq!(check(Gate::Claim, facts(&[])).await, Ok(GateVerdict::Allow));
}
