//! A host whose store is a Redis: the whole way, and what happens when either of them goes.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use pointsman_tests::{DEADLINE_S, Host, Redis, Setup, free_port, git, pointsman};
use serde_json::{Value, json};

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn host_on(redis: &Redis) -> Host {
    Host::start_with(Setup { config: redis.config() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way_on_redis_through_a_kill_of_the_host() {
    let redis = Redis::start().await;
    let mut host = host_on(&redis).await;
    let ana = host.agent("ana", &["rust"]).await;
    let dora = host.agent("dora", &["review"]).await;
    let sent = dora.call("send_message", json!({"to": ["rust"], "subject": "Please look", "body": "at src/lib.rs"})).await;
    assert_eq!(sent["routed"][0]["agent"], "ana", "{sent}");
    host.restart().await;
    let asked = ana.mail(&["message"]).await;
    assert_eq!((&asked["id"], &asked["subject"]), (&sent["message"], &json!("Please look")));

    let task = text(&ana.call("create_task", json!({"title": "Say hello", "paths": ["hello.txt"]})).await["task"]);
    ana.call("claim_task", json!({"task": task})).await;
    ana.call("commit_files", json!({"task": task, "files": [{"path": "hello.txt", "content": "hello\n"}]})).await;
    ana.call("write_context", json!({"key": "plan/hello", "base_version": 0, "value": {"by": "ana"}})).await;
    host.restart().await;
    ana.call("submit_branch", json!({"task": task})).await;
    let review = dora.mail(&["review_request"]).await;
    dora.call("review_branch", json!({"task": task, "verdict": "approve", "head": review["body"]["head"]})).await;
    ana.mail(&["landed"]).await;
    assert_eq!(git(&host.repository(), &["show", "main:hello.txt"]), "hello\n");
    assert_eq!(ana.call("lookup", json!({"uri": "context/plan/hello"})).await["value"]["by"], "ana");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_redis_that_lost_its_last_writes() {
    let mut redis = Redis::start().await;
    let host = host_on(&redis).await;
    let ana = host.agent("ana", &[]).await;
    let ben = host.agent("ben", &[]).await;
    let mut answered = BTreeSet::new();
    for round in 0..3 {
        for n in 0..10 {
            let subject = format!("{round}-{n}");
            ana.call("send_message", json!({"to": ["agent:ben"], "subject": subject, "idempotency_key": subject})).await;
            answered.insert(subject);
        }
        redis.kill().await;
        let refused = ana.refused("send_message", json!({"to": ["agent:ben"], "subject": "now", "idempotency_key": "now"})).await;
        assert_eq!(refused, "unavailable");
        let status = pointsman_client::get(&format!("{}/readyz", host.url())).await.expect("the host answers").0;
        assert_eq!(status, 503, "a host without its store is not ready");
        redis.lose_tail(8_000);
        redis.restart().await;
        let ready = || async { pointsman_client::get(&format!("{}/readyz", host.url())).await.is_ok_and(|(status, _)| status == 200) };
        host.eventually("readiness", ready).await;
    }
    let delivered: Vec<String> = ben.drain().await.iter().map(|message| text(&message["subject"])).collect();
    let unique: BTreeSet<String> = delivered.iter().filter(|subject| *subject != "now").cloned().collect();
    assert_eq!(unique, answered, "nothing is lost");
    assert_eq!(delivered.iter().filter(|subject| *subject != "now").count(), answered.len(), "nothing is delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_on_the_same_redis_is_refused_until_the_first_is_gone() {
    let redis = Redis::start().await;
    let mut first = host_on(&redis).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pointsman.toml");
    let (port, data) = (free_port(), folder.path().join("data"));
    let config = format!("config_version = 1\n[server]\nbind = \"127.0.0.1:{port}\"\n[data]\ndir = {}\n{}", json!(data), redis.config());
    std::fs::write(&file, config).expect("a configuration");
    let out = pointsman(&["up", "--config"]).arg(&file).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains(&first.url()) && said.contains("serves this store"), "{said}");
    assert!(!said.contains("panicked") && !said.contains("a plugin is loaded"), "nothing is begun before: {said}");

    let terminated = std::process::Command::new("kill").args(["-TERM", &first.pid().to_string()]).status().expect("kill runs");
    assert!(terminated.success() && first.ended().await, "the first host drains");
    let mut second = tokio::process::Command::from(pointsman(&["up", "--config"]))
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let url = format!("http://127.0.0.1:{port}");
    let ready = tokio::time::timeout(Duration::from_secs(2 * DEADLINE_S), pointsman_tests::until_ready(&mut second, &url)).await;
    ready.expect("in time").expect("it serves now");
}
