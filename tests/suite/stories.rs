//! Stories of agents at work, told to the real binary over HTTP.

use pointsman_tests::{Era, Host, Setup, git, try_git};
use serde_json::{Value, json};

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_message_to_a_capability_finds_another_when_it_is_given_back() {
    let host = Host::start().await;
    let ana = host.agent("ana", &["backend"]).await;
    let ben = host.agent_in("ben", Era::Legacy, &["backend"]).await;
    let cyn = host.agent("cyn", &["docs"]).await;
    let sent = cyn.call("send_message", json!({"to": ["backend"], "kind": "request", "subject": "who?", "idempotency_key": "k"})).await;
    let again = cyn.call("send_message", json!({"to": ["backend"], "kind": "request", "subject": "who?", "idempotency_key": "k"})).await;
    assert_eq!(sent["message"], again["message"], "the same key sends once");
    assert_eq!(cyn.refused("send_message", json!({"to": ["backend"], "subject": "other", "idempotency_key": "k"})).await, "key_reused");
    let (first, second) = if sent["routed"][0]["agent"] == "ana" { (&ana, &ben) } else { (&ben, &ana) };
    assert!(second.wait(&[], 0).await.is_empty());
    let mail = first.wait(&[], 5).await;
    assert_eq!(mail.len(), 1);
    let id = text(&mail[0]["id"]);
    let meddled = second.call("wait_for_events", json!({"ack": [id], "max_s": 0})).await;
    assert_eq!(meddled["not_settled"][0]["message"], id.as_str(), "only its holder may ack");
    first.call("wait_for_events", json!({"nack": [{"message": id, "reason": "not mine"}], "max_s": 0})).await;
    let mail = second.wait(&[], 5).await;
    assert_eq!(text(&mail[0]["id"]), id);
    assert!(second.wait(&[id], 0).await.is_empty());
    assert!(first.wait(&[], 0).await.is_empty());
}

#[tokio::test]
async fn a_claim_leases_paths_and_its_credential_ends_with_it() {
    let host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let ben = host.agent("ben", &[]).await;
    let task = |title: &str, path: &str| json!({"title": title, "paths": [path]});
    let t1 = text(&ana.call("create_task", task("one", "src/**")).await["task"]);
    let t2 = text(&ana.call("create_task", task("two", "src/lib.rs")).await["task"]);
    let claimed = ana.call("claim_task", json!({"task": t1})).await;
    assert_eq!(ben.refused("claim_task", json!({"task": t1})).await, "held");
    assert_eq!(ben.refused("claim_task", json!({"task": t2})).await, "paths_held");
    let url = text(&claimed["git"]["url"]);
    let branch = text(&claimed["branch"]);
    let clone = host.folder().join("clone");
    git(host.folder(), &["clone", "-q", "--branch", &branch, &url, &clone.to_string_lossy()]);
    std::fs::write(clone.join("src/lib.rs"), "pub fn run() {}\n").expect("a file");
    git(&clone, &["commit", "-qam", "Edit"]);
    git(&clone, &["push", "-q", "origin", &format!("HEAD:refs/heads/{branch}")]);
    let head = git(&clone, &["rev-parse", "HEAD"]).trim().to_owned();
    assert_eq!(ana.call("lookup", json!({"uri": t1})).await["head"], head.as_str(), "the host knows where the push went");

    std::fs::write(clone.join("README.md"), "# Mine now\n").expect("a file");
    git(&clone, &["commit", "-qam", "Stray"]);
    let stray = try_git(&clone, &["push", "origin", &format!("HEAD:refs/heads/{branch}")]);
    let said = String::from_utf8_lossy(&stray.stderr).into_owned();
    assert!(!stray.status.success() && said.contains("README.md"), "{said}");
    let other = try_git(&clone, &["push", "origin", "HEAD~1:refs/heads/main"]);
    assert!(!other.status.success(), "the target is nobody's to push");

    ana.call("update_task", json!({"task": t1, "release": true})).await;
    git(&clone, &["reset", "-q", "--hard", &head]);
    git(&clone, &["commit", "-q", "--allow-empty", "-m", "Late"]);
    let late = try_git(&clone, &["push", "origin", &format!("HEAD:refs/heads/{branch}")]);
    assert!(!late.status.success(), "a released claim moves nothing");
    ben.call("claim_task", json!({"task": t2})).await;
    assert!(git(&host.repository(), &["fsck", "--strict", "--no-dangling"]).is_empty());
}

#[tokio::test]
async fn a_failing_check_comes_back_with_its_log_and_nothing_lands() {
    let config = "[[check]]\nname = \"no-boom\"\ncommand = \"! grep -q boom README.md || { echo the boom is in; exit 3; }\"\n";
    let host = Host::start_with(Setup { config: config.to_owned() }).await;
    let ana = host.agent("ana", &[]).await;
    let dora = host.agent("dora", &["review"]).await;
    let t1 = text(&ana.call("create_task", json!({"title": "boom", "paths": ["README.md"]})).await["task"]);
    ana.call("claim_task", json!({"task": t1})).await;
    let before = git(&host.repository(), &["rev-parse", "main"]);
    ana.call("commit_files", json!({"task": t1, "files": [{"path": "README.md", "content": "boom\n"}]})).await;
    ana.call("submit_branch", json!({"task": t1})).await;
    let back = ana.mail(&["check_failed", "landed"]).await;
    assert_eq!(back["kind"], "check_failed");
    assert!(text(&back["body"]["output"]).contains("the boom is in"), "{back}");
    assert_eq!(git(&host.repository(), &["rev-parse", "main"]), before);

    ana.call("commit_files", json!({"task": t1, "files": [{"path": "README.md", "content": "calm\n"}]})).await;
    ana.call("submit_branch", json!({"task": t1})).await;
    let asked = dora.mail(&["review_request"]).await;
    assert_eq!(
        ana.refused("review_branch", json!({"task": t1, "verdict": "approve"})).await,
        "policy_denied",
        "nobody approves their own work"
    );
    dora.call("review_branch", json!({"task": t1, "verdict": "approve", "head": asked["body"]["head"]})).await;
    assert_eq!(ana.mail(&["landed", "check_failed"]).await["kind"], "landed");
    assert_eq!(git(&host.repository(), &["show", "main:README.md"]), "calm\n");
    let events = ana.call("lookup", json!({"uri": "events"})).await;
    let checked = events.as_array().expect("events").iter().filter(|event| event["type"] == "merge.checked");
    let passed: Vec<&Value> = checked.map(|event| &event["data"]["passed"]).collect();
    assert_eq!(passed, [false, true], "what passed before the approval is not run again on the same tree");
}

#[tokio::test]
async fn stale_writes_merge_or_conflict_and_change_nothing_then() {
    let host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let ben = host.agent("ben", &[]).await;
    let write = |base: u64, value: Value| json!({"key": "plan", "base_version": base, "value": value});
    let v1 = ana.call("write_context", write(0, json!({"a": 1, "b": 1}))).await["version"].as_u64().expect("a version");
    ana.call("write_context", write(v1, json!({"a": 2, "b": 1}))).await;
    let merged = ben.call("write_context", write(v1, json!({"a": 1, "b": 2}))).await;
    let read = ben.call("lookup", json!({"uri": "context/plan"})).await;
    assert_eq!((&read["value"], &read["version"]), (&json!({"a": 2, "b": 2}), &merged["version"]));
    assert_eq!(ben.refused("write_context", write(v1, json!({"a": 3, "b": 1}))).await, "conflict");
    assert_eq!(ben.call("lookup", json!({"uri": "context/plan"})).await, read);
}

#[tokio::test]
async fn wrong_arguments_are_named_and_change_nothing() {
    let host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let events = ana.call("lookup", json!({"uri": "events"})).await;
    for (tool, arguments, code) in [
        ("create_task", json!({"title": ""}), "bad_argument"),
        ("create_task", json!({"title": "x".repeat(300)}), "bad_argument"),
        ("create_task", json!({"title": "t", "colour": "red"}), "bad_argument"),
        ("create_task", json!({"title": "t", "depends_on": ["T-9"]}), "not_found"),
        ("create_task", json!({"title": "t", "paths": ["../up"]}), "bad_argument"),
        ("claim_task", json!({"task": "T-9"}), "not_found"),
        ("claim_task", json!({"task": 9}), "bad_argument"),
        ("submit_branch", json!({"task": "T-9"}), "not_found"),
        ("lookup", json!({"uri": "nonsense"}), "not_found"),
        ("send_message", json!({"to": [], "subject": "s"}), "bad_message"),
        ("wait_for_events", json!({"max_s": -1}), "bad_argument"),
    ] {
        assert_eq!(ana.refused(tool, arguments.clone()).await, code, "{tool} {arguments}");
    }
    assert_eq!(ana.call("lookup", json!({"uri": "events"})).await, events, "nothing happened");
}

#[tokio::test]
async fn a_message_says_where_its_sender_stands_and_several_are_sent_at_once_or_not_at_all() {
    let host = Host::start().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let task = text(&ana.call("create_task", json!({"title": "one", "paths": ["src/**"]})).await["task"]);
    let claimed = ana.call("claim_task", json!({"task": task})).await;
    let attachment = json!({"sha256": "ab".repeat(32), "name": "build.log", "media_type": "text/plain", "bytes": 12});
    let long = "word ".repeat(10_000);
    let batch = json!({"idempotency_key": "k", "messages": [
        {"to": ["agent:ben"], "subject": "one", "correlation": "order-7", "headers": {"X-Build": "412"}, "attachments": [attachment]},
        {"to": ["agent:ben"], "subject": "two", "body": long},
    ]});
    let sent = ana.call("send_message", batch.clone()).await;
    assert_eq!(sent["messages"].as_array().map(Vec::len), Some(2));
    assert_eq!(ana.call("send_message", batch).await, sent, "the same key sends once");
    let mail = ben.wait(&[], 5).await;
    assert_eq!(mail.iter().map(|message| text(&message["subject"])).collect::<Vec<_>>(), ["one", "two"]);
    let context = &mail[0]["context"];
    assert_eq!((&context["task"], &context["branch"], &context["head"]), (&json!(task), &claimed["branch"], &claimed["head"]));
    assert_eq!((&mail[0]["headers"], &mail[0]["attachments"]), (&json!({"x-build": "412"}), &json!([attachment])));
    assert_eq!(text(&mail[1]["body"]), long);
    ben.call("send_message", json!({"reply_to": mail[0]["id"], "body": "done"})).await;
    assert_eq!(ana.wait(&[], 5).await[0]["correlation"], "order-7", "an answer belongs to the same");

    let half = json!({"messages": [{"to": ["agent:ben"], "subject": "three"}, {"to": ["agent:nobody"], "subject": "four"}]});
    assert_eq!(ana.refused("send_message", half).await, "not_found");
    assert_eq!(ana.refused("send_message", json!({"messages": vec![json!({"to": ["all"], "subject": "s"}); 21]})).await, "too_many");
    let reserved = json!({"to": ["agent:ben"], "subject": "s", "headers": {"Pointsman-Trace": "x"}});
    assert_eq!(ana.refused("send_message", reserved).await, "bad_message");
    assert!(ben.wait(&[], 0).await.is_empty(), "none of them was sent");
}
