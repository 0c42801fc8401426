//! A host whose store is a Redis: the whole way, and what happens when either of them goes.

use std::collections::BTreeSet;

use pointsman_tests::{Host, Redis, Setup, git};
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
