//! What an answer is worth: the host killed by SIGKILL amid messages and amid landings, again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use pointsman_tests::{Host, git};
use serde_json::{Value, json};

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answered_message_survives_kills() {
    let mut host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let ben = host.agent("ben", &[]).await;
    let mut answered = BTreeSet::new();
    for round in 0..3 {
        let sending = async {
            let mut sent = Vec::new();
            for n in 0.. {
                let subject = format!("{round}-{n}");
                let message = json!({"to": ["agent:ben"], "subject": subject, "idempotency_key": subject});
                match ana.client.call("send_message", message).await {
                    Ok(_) => sent.push(subject),
                    Err(_) => break,
                }
            }
            sent
        };
        let killing = async {
            tokio::time::sleep(Duration::from_millis(60 + 70 * round)).await;
            host.kill().await;
        };
        let (sent, ()) = tokio::join!(sending, killing);
        assert!(!sent.is_empty(), "the round sent something before the kill");
        answered.extend(sent);
        host.restart().await;
    }
    let delivered: Vec<String> = ben.drain().await.iter().map(|message| text(&message["subject"])).collect();
    let unique: BTreeSet<String> = delivered.iter().cloned().collect();
    assert_eq!(unique.len(), delivered.len(), "nothing is delivered twice after its ack");
    assert!(answered.is_subset(&unique), "lost: {:?}", answered.difference(&unique).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_landing_is_whole_or_undone_wherever_the_host_dies() {
    let mut host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let dora = host.agent("dora", &["review"]).await;
    for round in 0..6u64 {
        let file = format!("file-{round}.txt");
        let task = text(&ana.call("create_task", json!({"title": file, "paths": [file]})).await["task"]);
        ana.call("claim_task", json!({"task": task})).await;
        ana.call("commit_files", json!({"task": task, "files": [{"path": file, "content": "here\n"}]})).await;
        ana.call("submit_branch", json!({"task": task})).await;
        let asked = dora.mail(&["review_request"]).await;
        dora.call("review_branch", json!({"task": task, "verdict": "approve", "head": asked["body"]["head"]})).await;
        tokio::time::sleep(Duration::from_millis(round * 4)).await;
        host.kill().await;

        let repo = host.repository();
        let landed_then = pointsman_tests::try_git(&repo, &["cat-file", "-e", &format!("main:{file}")]).status.success();
        git(&repo, &["fsck", "--full", "--no-dangling"]);
        host.restart().await;
        let outcome = ana.mail(&["landed", "conflict", "refused", "check_failed"]).await;
        assert_eq!(outcome["kind"], "landed", "round {round}, on the target at the kill: {landed_then}");
        assert_eq!(ana.call("lookup", json!({"uri": task})).await["state"], "landed");
    }
    let repo = host.repository();
    let landings = git(&repo, &["log", "--first-parent", "--format=%s", "main"]).lines().count();
    assert_eq!(landings, 7, "six landings, each once, on the first commit");
    let receipts = git(&repo, &["notes", "--ref=pointsman", "list"]);
    for commit in git(&repo, &["log", "--first-parent", "--merges", "--format=%H", "main"]).lines() {
        assert!(receipts.contains(commit), "{commit} has its receipt");
    }
}

#[tokio::test]
async fn a_second_host_on_the_same_data_is_refused_and_a_drain_is_clean() {
    let mut host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let second = host.command(&["up", "--bind", "127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains(&host.pid().to_string()), "it names the process that holds the data: {said}");
    let pid = host.pid().to_string();
    let waiting = ana.refused("wait_for_events", json!({"max_s": 40}));
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let killed = std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(killed.success());
        host.ended().await
    };
    let (answer, ended) = tokio::join!(waiting, ending);
    assert!(ended, "SIGTERM ends it well: {}", host.log());
    assert_eq!(answer, "host_draining", "the waiting agent was answered before the end");
}
