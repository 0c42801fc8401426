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
        let now = ana.call("send_message", json!({"to": ["agent:ben"], "subject": "now", "idempotency_key": "now"})).await;
        assert_eq!(now["kept"], true, "{now}");
        answered.insert("now".to_owned());
        assert_eq!(ana.refused("create_task", json!({"title": "Say hello"})).await, "unavailable");
        let status = pointsman_client::get(&format!("{}/readyz", host.url())).await.expect("the host answers").0;
        assert_eq!(status, 503, "a host without its store is not ready");
        redis.lose_tail(8_000);
        redis.restart().await;
        let ready = || async { pointsman_client::get(&format!("{}/readyz", host.url())).await.is_ok_and(|(status, _)| status == 200) };
        host.eventually("readiness", ready).await;
    }
    let delivered: Vec<String> = ben.drain().await.iter().map(|message| text(&message["subject"])).collect();
    let unique: BTreeSet<String> = delivered.iter().cloned().collect();
    assert_eq!(unique, answered, "nothing is lost");
    assert_eq!(delivered.len(), answered.len(), "nothing is delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_kept_while_redis_is_away_and_delivered_once_even_after_a_kill_of_the_host() {
    let mut redis = Redis::start().await;
    let mut host = host_on(&redis).await;
    let ana = host.agent("ana", &[]).await;
    let ben = host.agent("ben", &["rust"]).await;
    let mut expected = BTreeSet::new();
    for is_killed in [false, true] {
        redis.kill().await;
        for n in 0..5 {
            let subject = format!("{is_killed}-{n}");
            let whole = ana.whole("send_message", json!({"to": [if n % 2 == 0 { "agent:ben" } else { "rust" }], "subject": subject})).await;
            assert_eq!((&whole["result"]["kept"], &whole["result"]["routed"][0]["agent"]), (&json!(true), &json!("ben")), "{whole}");
            assert!(text(&whole["degraded"]).contains("the store is away"), "{whole}");
            expected.insert(subject);
        }
        let batch = json!({"messages": [{"to": ["agent:ben"], "subject": format!("{is_killed}-x")}, {"to": ["agent:ben"], "subject": format!("{is_killed}-y")}]});
        let batch = ana.call("send_message", batch).await;
        assert_eq!((&batch["messages"][0]["kept"], &batch["messages"][1]["kept"]), (&json!(true), &json!(true)), "{batch}");
        expected.extend([format!("{is_killed}-x"), format!("{is_killed}-y")]);
        assert_eq!(ben.refused("write_context", json!({"key": "plan", "base_version": 0, "value": 1})).await, "unavailable");
        let (status, body) = pointsman_client::get(&format!("{}/readyz", host.url())).await.expect("the host answers");
        let body: Value = serde_json::from_slice(&body).expect("it is JSON");
        assert_eq!((status, &body["degraded"]), (503, &json!(true)), "{body}");
        if is_killed {
            host.kill().await;
            redis.restart().await;
            host.restart().await;
        } else {
            redis.restart().await;
        }
        let ready = || async { pointsman_client::get(&format!("{}/readyz", host.url())).await.is_ok_and(|(status, _)| status == 200) };
        host.eventually("readiness", ready).await;
    }
    let (mut delivered, mut done): (Vec<String>, Vec<String>) = Default::default();
    for _ in 0..60 {
        let mail = ben.wait(&std::mem::take(&mut done), 1).await;
        done.extend(mail.iter().map(|message| text(&message["id"])));
        delivered.extend(mail.iter().map(|message| text(&message["subject"])));
        if delivered.len() >= expected.len() {
            break;
        }
    }
    delivered.extend(ben.wait(&done, 0).await.iter().map(|message| text(&message["subject"])));
    delivered.sort_unstable();
    assert_eq!(delivered, expected.into_iter().collect::<Vec<_>>(), "each once");
}
