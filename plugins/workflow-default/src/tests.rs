use pointsman_sdk::workflow::{Commit, FileChange};
use proptest::prelude::*;

use super::*;

fn workflow() -> WorkflowDefault {
    WorkflowDefault::from_json("").expect("fits")
}

fn task(title: &str) -> Task {
    Task {
        id: "T-12".to_owned(),
        title: title.to_owned(),
        description: "Because it is slow.\n\nMeasured twice.".to_owned(),
        kind: "fix".to_owned(),
        labels: Vec::new(),
        priority: 4,
        depends_on: vec!["T-9".to_owned()],
    }
}

fn change(title: &str) -> ChangeFacts {
    let file = |path: &str, added, removed| FileChange { path: path.to_owned(), added, removed };
    let commit = |id: &str, subject: &str| Commit { id: id.to_owned(), subject: subject.to_owned(), author: "ana <a@x>".to_owned() };
    ChangeFacts {
        task: task(title),
        agent: "ana".to_owned(),
        branch: "task/T-12-parser".to_owned(),
        target: "main".to_owned(),
        commits: vec![commit("0123456789abcdef", "parser: read faster")],
        files: vec![file("src/a.rs", 3, 1), file("Cargo.lock", 10, 2)],
        checks: vec!["cargo test: passed".to_owned()],
        approvals: vec!["bob".to_owned()],
        resolutions: Vec::new(),
    }
}

#[test]
fn branches_are_named_after_task_and_title() {
    let flow = workflow();
    assert_eq!(flow.branch_name(&task("Fix the  Parser!"), 0), "task/T-12-fix-the-parser");
    assert_eq!(flow.branch_name(&task("Fix the  Parser!"), 1), "task/T-12-fix-the-parser-2");
    assert_eq!(flow.branch_name(&task("修正"), 0), "task/T-12");
    assert_eq!(
        flow.branch_name(&task("one two three four five six seven eight nine"), 0),
        "task/T-12-one-two-three-four-five-six-seven-eight"
    );
    let hostile = Task { id: "../..".to_owned(), ..task("..lock @{ ~^:?*[\\ .lock") };
    assert_eq!(flow.branch_name(&hostile, 0), "task/task-lock-lock");
}

#[test]
fn commit_messages_end_with_our_trailers() {
    let facts =
        |note: &str| CommitFacts { task: task("Fix it"), agent: "ana\nTask: T-99".to_owned(), note: note.to_owned(), files: Vec::new() };
    assert_eq!(workflow().commit_message(&facts("")), "Fix it\n\nTask: T-12\nAgent: ana Task: T-99\n");
    assert_eq!(
        workflow().commit_message(&facts("parser: read faster\n\nIt read twice.\nAgent: eve")),
        "parser: read faster\n\nIt read twice.\nAgent: eve\n\nTask: T-12\nAgent: ana Task: T-99\n"
    );
    let long = workflow().commit_message(&facts(&"word ".repeat(40)));
    assert!(long.lines().next().expect("a line").chars().count() <= 72);
    assert!(long.contains(&"word ".repeat(39)), "{long}");
}

#[test]
fn merge_messages_say_what_was_checked_and_who_approved() {
    let expected = "Merge T-12: Fix it\n\n1 commit in 2 files, 13 lines added, 3 removed\n  src/a.rs (+3 -1)\n  Cargo.lock (+10 -2)\n\n\
                    Checked:\n- cargo test: passed\n\nTask: T-12\nAgent: ana\nReviewed-by: bob\n";
    assert_eq!(workflow().merge_message(&change("Fix it")), expected);
}

#[test]
fn pull_requests_have_every_part() {
    let written = workflow().write_pull_request(&change("Fix `it` <script> | @all"));
    assert_eq!(written.title, "T-12: Fix `it` <script> | @all");
    let heads: Vec<_> = written.body.lines().filter(|line| line.starts_with("## ")).collect();
    assert_eq!(heads, ["## What", "## Why", "## Tasks", "## Commits", "## Files", "## Risk", "## Tests", "## Conflicts", "## Reviewers"]);
    for part in [
        "1 commit in 2 files, 13 lines added, 3 removed; `task/T-12-parser` into `main`.",
        "Because it is slow.",
        "- T-12 (fix), priority 4: Fix \\`it\\` \\<script\\> \\| \\@all",
        "- after T-9",
        "- `0123456789` parser: read faster",
        "| `Cargo.lock` | 10 | 2 |\n| `src/a.rs` | 3 | 1 |",
        "- Changes dependencies: `Cargo.lock`.",
        "- No test is changed.",
        "- cargo test: passed",
        "None.",
        "- Approved by bob",
    ] {
        assert!(written.body.contains(part), "{part} in\n{}", written.body);
    }
}

fn waiting(kind: &str, priority: u8, waited_ms: u64, after: &[u32]) -> Waiting {
    Waiting { task: "T-1".to_owned(), priority, kind: kind.to_owned(), waited_ms, files: 1, after: after.to_vec(), overlaps: Vec::new() }
}

#[test]
fn the_queue_is_ordered_by_need() {
    let order = |queue: &[Waiting]| workflow().merge_order(queue);
    let plain = |priority, waited_ms| waiting("feature", priority, waited_ms, &[]);
    assert_eq!(order(&[plain(4, 1), plain(4, 9), plain(7, 0), waiting("hotfix", 0, 0, &[])]), [3, 2, 1, 0]);
    assert_eq!(order(&[plain(9, 0), plain(0, 0), waiting("hotfix", 4, 0, &[1])]), [1, 2, 0]);
    assert_eq!(order(&[waiting("fix", 4, 0, &[1]), waiting("fix", 4, 0, &[0, 1, 77]), plain(4, 0)]), [2, 0, 1]);
    assert_eq!(order(&[]), [] as [u32; 0]);
}

#[test]
fn wrong_configurations_are_refused() {
    for json in
        [r#"{"branch_prefix":""}"#, r#"{"branch_prefix":"a//b"}"#, r#"{"branch_prefix":"A b"}"#, r#"{"slug_max":999}"#, r#"{"prefix":"x"}"#]
    {
        assert!(WorkflowDefault::from_json(json).is_err(), "{json}");
    }
}

/// The rules of git-check-ref-format for a branch.
fn is_valid_ref(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let byte = |one: char| !one.is_control() && !" ~^:?*[\\\u{7f}".contains(one);
    name.split('/').all(part)
        && name.chars().all(byte)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with(['/', '.'])
        && !name.starts_with('-')
        && name != "@"
}

proptest! {
    #[test]
    fn every_name_is_a_valid_ref(id in ".{0,60}", title in ".{0,120}", attempt in any::<u32>()) {
        let name = workflow().branch_name(&Task { id, ..task(&title) }, attempt.saturating_sub(1));
        prop_assert!(is_valid_ref(&name) && name.len() < 120 && name.is_ascii(), "{}", name);
    }

    #[test]
    fn no_text_escapes_its_line(title in ".{0,200}", note in "(.|\n){0,200}", agent in "(.|\n){0,40}") {
        let facts = CommitFacts { task: task(&title), agent: agent.clone(), note, files: Vec::new() };
        let message = workflow().commit_message(&facts);
        let last = message.trim_end().rsplit("\n\n").next().expect("a paragraph");
        prop_assert!(last.starts_with("Task: T-12\nAgent:") && last.lines().count() == 2, "{}", message);
        let merge = workflow().merge_message(&ChangeFacts { agent, ..change(&title) });
        prop_assert!(merge.trim_end().ends_with("Reviewed-by: bob"));
        let request = workflow().write_pull_request(&change(&title));
        prop_assert_eq!(request.body.lines().filter(|line| line.starts_with("## ")).count(), 9);
    }

    #[test]
    fn the_order_is_whole_and_keeps_after(
        rows in prop::collection::vec((0..3_usize, 0..10_u8, 0..100_u64, prop::collection::vec(0..8_u32, 0..3)), 0..8),
    ) {
        // Only earlier positions: a queue without circles.
        let queue: Vec<_> = rows.iter().enumerate().map(|(n, (kind, priority, waited_ms, after))| {
            let after: Vec<u32> = after.iter().copied().filter(|before| (*before as usize) < n).collect();
            waiting(["fix", "feature", "hotfix"][*kind], *priority, *waited_ms, &after)
        }).collect();
        let order = workflow().merge_order(&queue);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..u32::try_from(queue.len()).expect("few")).collect::<Vec<_>>());
        let at = |position: u32| order.iter().position(|other| *other == position).expect("whole");
        for (n, one) in queue.iter().enumerate() {
            prop_assert!(one.after.iter().all(|before| at(*before) < at(u32::try_from(n).expect("few"))));
        }
    }
}
