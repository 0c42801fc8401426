//! Requests that agents in the host ask for: made by the host, answered by an event.

use std::time::Duration;

use pointsman::service::due;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::residents::{named, tell, until};
use crate::world::{Setup, World};

/// Answers requests as told, and says which came.
async fn server(mut answers: mpsc::Receiver<Option<&'static str>>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let authority = listener.local_addr().expect("an address").to_string();
    let (came, requests) = mpsc::channel(8);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 4_096];
            let read = stream.read(&mut bytes).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
            let _ = came.send(text).await;
            match answers.recv().await {
                Some(Some(answer)) => {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                // Never answered, but kept open.
                Some(None) => open.push(stream),
                None => return,
            }
        }
    });
    (authority, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_made_by_the_host_and_answered_by_an_event() {
    let (answers, answering) = mpsc::channel(8);
    let (authority, mut requests) = server(answering).await;
    let on = json!({"http:q": {"do": [{"count": "n"}, {"keep": "answer"}]}, "http:gone": {"do": [{"keep": "gone"}]}});
    let setup = Setup {
        residents: vec![("helper", named(json!({"on": on})))],
        fetch_hosts: vec![authority.clone(), "127.0.0.1:1".to_owned()],
        ..Setup::default()
    };
    let world = World::with(setup).await;
    let ana = world.agent("ana", &[]).await;
    let url = format!("http://{authority}/path?x=1");
    tell(&world, &ana, json!({"do": [{"fetch": ["q", "POST", url, "hello"]}, {"fetch": ["gone", "GET", "http://127.0.0.1:1/", ""]}]}))
        .await;
    // The first request never gets an answer: the host dies while it waits.
    answers.send(None).await.expect("the server runs");
    world.work().await;
    let first = tokio::select! {
        request = requests.recv() => request.expect("it asks"),
        () = world.pass(1) => panic!("the request ended without an answer"),
    };
    assert_eq!(world.kept("helper", "n").await, None);
    assert!(
        first.starts_with("POST /path?x=1 HTTP/1.1\r\n") && first.contains(&format!("host: {authority}")) && first.ends_with("hello"),
        "{first}"
    );

    answers.send(Some("HTTP/1.1 418 I'm a teapot\r\ncontent-length: 5\r\n\r\nshort")).await.expect("the server runs");
    let world = world.restart().await;
    world.pass(1).await;
    assert_eq!(requests.recv().await.as_deref(), Some(first.as_str()), "it is asked again, the same");
    let answer = world.kept("helper", "answer").await.expect("it was woken");
    assert!(answer.starts_with("http:q:") && answer.ends_with(" 418 short"), "{answer}");
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"));
    let gone = world.kept("helper", "gone").await.expect("it was woken");
    assert!(gone.contains(" 0 `127.0.0.1:1` cannot be reached"), "{gone}");
    assert_eq!(world.events("resident.fetched").await.len(), 2);
    assert!(world.kit.store.range(Some(world.project), "resident-", "", 10).await.expect("a page").entries.is_empty());
}

/// Hands over each request with its connection, to be answered in any order.
async fn switchboard() -> (String, mpsc::Receiver<(String, TcpStream)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let authority = listener.local_addr().expect("an address").to_string();
    let (came, requests) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let text = whole(&mut stream).await;
            if came.send((text, stream)).await.is_err() {
                return;
            }
        }
    });
    (authority, requests)
}

/// Reads a request with its body.
async fn whole(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return text.into_owned();
            }
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return String::new();
        }
    }
}

async fn answer(mut stream: TcpStream, body: &str) {
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.expect("the client reads");
}

/// Returns the value of a request's `Idempotency-Key`.
fn key_of(request: &str) -> &str {
    request.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).expect("it has one")
}

async fn next(requests: &mut mpsc::Receiver<(String, TcpStream)>) -> (String, TcpStream) {
    let came = tokio::time::timeout(Duration::from_secs(20), requests.recv()).await;
    came.expect("it asks").expect("the server runs")
}

fn asking(authority: &str, config: Value) -> Setup {
    Setup { residents: vec![("helper", named(config))], fetch_hosts: vec![authority.to_owned()], ..Setup::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_an_older_request_is_not_taken_for_that_to_a_newer_one() {
    let (authority, mut requests) = switchboard().await;
    let world = World::with(asking(&authority, json!({"on": {"http:q": {"do": [{"count": "n"}, {"keep": "answer"}]}}}))).await;
    let ana = world.agent("ana", &[]).await;
    let stop = CancellationToken::new();
    let rings = tokio::spawn(due::run(world.services.clone(), world.residency.clone(), stop.clone()));
    let lives = tokio::spawn(world.residency.clone().run(stop.clone()));
    let ask = |path: &str| json!({"do": [{"fetch": ["q", "GET", format!("http://{authority}{path}"), ""]}]});
    tell(&world, &ana, ask("/old")).await;
    let (old, old_stream) = next(&mut requests).await;
    tell(&world, &ana, ask("/new")).await;
    let (new, new_stream) = next(&mut requests).await;
    assert!(old.starts_with("GET /old ") && new.starts_with("GET /new "), "{old} {new}");
    assert_ne!(key_of(&old), key_of(&new), "it is another request");
    answer(old_stream, "the old answer").await;
    answer(new_stream, "the new answer").await;
    let store = &*world.kit.store;
    until(store, Some(world.project), "the answer", || async { world.kept("helper", "answer").await.is_some() }).await;
    let kept = world.kept("helper", "answer").await.expect("kept");
    assert!(kept.ends_with(" 200 the new answer"), "{kept}");
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("1"), "it is woken once");
    assert_eq!(world.events("resident.fetched").await.len(), 1);
    stop.cancel();
    let ended = async { (rings.await.is_ok(), lives.await.is_ok()) };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), ended).await, Ok((true, true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resident_that_is_always_busy_hears_its_answers_meanwhile() {
    let (authority, mut requests) = switchboard().await;
    let world = World::with(asking(&authority, json!({"on": {"http:q": {"do": [{"keep": "answer"}]}}}))).await;
    let ana = world.agent("ana", &[]).await;
    tell(&world, &ana, json!({"do": [{"fetch": ["q", "GET", format!("http://{authority}/"), ""]}]})).await;
    let (_, stream) = tokio::select! {
        came = next(&mut requests) => came,
        () = async { world.work().await; world.pass(1).await } => panic!("the request ended without an answer"),
    };
    for n in 0..50 {
        tell(&world, &ana, json!({"do": [{"put": ["n", n.to_string()]}]})).await;
    }
    answer(stream, "here").await;
    world.work().await;
    let heard = world.events("resident.fetched").await.pop().expect("it is recorded");
    let last = world.events("message.acked").await.pop().expect("all were handled");
    assert_eq!(world.kept("helper", "n").await.as_deref(), Some("49"));
    assert!(heard.cursor < last.cursor, "{} comes after {}", heard.cursor, last.cursor);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_is_not_read_when_wake_ups_are_counted() {
    let (authority, mut requests) = switchboard().await;
    let start = 1_800_000_000_000_i64;
    let on = json!({"http:q": {"fail": "too early", "fail_before_ms": start + 4_000, "do": [{"keep": "answer"}]}});
    let world = World::with(asking(&authority, json!({"on": on}))).await;
    let ana = world.agent("ana", &[]).await;
    let body = "b".repeat(50_000);
    tell(&world, &ana, json!({"do": [{"fetch": ["q", "POST", format!("http://{authority}/"), body]}]})).await;
    world.work().await;
    let listed = async || {
        let page = world.kit.store.range(Some(world.project), "resident-wake/", "", 10).await.expect("a page");
        page.entries.iter().map(|(_, found)| found.bytes.len()).collect::<Vec<_>>()
    };
    assert!(matches!(listed().await.as_slice(), [bytes] if *bytes < 300), "a request that waits: {:?}", listed().await);
    let answers = async {
        let (_, stream) = next(&mut requests).await;
        answer(stream, &"a".repeat(60_000)).await;
    };
    tokio::join!(world.pass(1), answers);
    assert_eq!(world.events("resident.failed").await.len(), 1);
    assert!(matches!(listed().await.as_slice(), [bytes] if *bytes < 300), "an answer that waits: {:?}", listed().await);
    world.pass(20_000).await;
    assert!(world.kept("helper", "answer").await.is_some_and(|answer| answer.len() > 60_000));
    assert!(world.kit.store.range(Some(world.project), "resident-", "", 10).await.expect("a page").entries.is_empty());
}
