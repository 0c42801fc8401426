//! What every store promises.

use std::time::Duration;

use pointsman::ports::store::{
    COMMIT_BYTES_MAX, Commit, Committed, DueChange, DueEntry, Expect, Fence, Idempotency, KEY_BYTES_MAX, Store, StoreError,
};
use pointsman_core::event::Cursor;
use pointsman_core::ids::{FencingToken, ProjectId};
use pointsman_core::time::TimeMs;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::kit::{Subject, all_at_once, bytes, call, done, event, numbered, numbers, of, project, put};

const SOON: Duration = Duration::from_secs(20);

fn fence(key: &str, n: u64) -> Fence {
    Fence { key: key.to_owned(), token: FencingToken { epoch: 1, n } }
}

fn set(name: &str, at: i64) -> DueChange {
    DueChange::Set { name: name.to_owned(), at: TimeMs(at) }
}

fn clear(name: &str) -> DueChange {
    DueChange::Clear { name: name.to_owned() }
}

fn stale(key: &str) -> Result<Committed, StoreError> {
    Err(StoreError::Stale { key: key.to_owned() })
}

fn fenced(key: &str) -> Result<Committed, StoreError> {
    Err(StoreError::Fenced { key: key.to_owned() })
}

async fn due(store: &dyn Store, before: i64) -> Vec<(String, i64)> {
    let entries = store.due(TimeMs(before), 100).await.expect("the store answers");
    entries.into_iter().map(|entry| (entry.name, entry.at.0)).collect()
}

pub(crate) async fn a_value_has_the_version_of_its_commit<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    assert_eq!(store.get(Some(project), "task/1").await, Ok(None));

    let two = Commit { puts: vec![("task/1".to_owned(), b"a".to_vec()), ("task/2".to_owned(), Vec::new())], ..of(project) };
    let first = done(&*store, two).await;
    for (key, value) in [("task/1", &b"a"[..]), ("task/2", b"")] {
        let stored = store.get(Some(project), key).await.expect("the store answers").expect("the value is there");
        assert_eq!((stored.version, &stored.bytes[..]), (first, value));
    }

    let second = done(&*store, put(project, "task/1", b"a")).await;
    assert!(second > first, "a write of the same bytes is a write");
    done(&*store, Commit { deletes: vec!["task/1".to_owned(), "never/there".to_owned()], ..of(project) }).await;
    assert_eq!(bytes(&*store, project, "task/1").await, None);
    let third = done(&*store, put(project, "task/1", b"b")).await;
    assert!(third > second, "a value made anew is not taken for the one removed");

    let twice = vec![("task/3".to_owned(), b"x".to_vec()), ("task/3".to_owned(), b"y".to_vec()), ("task/4".to_owned(), b"z".to_vec())];
    done(&*store, Commit { puts: twice, deletes: vec!["task/4".to_owned()], ..of(project) }).await;
    assert_eq!(bytes(&*store, project, "task/3").await, Some(b"y".to_vec()), "the last put counts");
    assert_eq!(bytes(&*store, project, "task/4").await, None, "removals come after puts");
}

pub(crate) async fn a_commit_is_whole_or_nothing<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    done(&*store, Commit { due: vec![set("lease", 50)], events: vec![numbered(1)], ..put(project, "kept", b"1") }).await;

    let refused = Commit {
        expects: vec![("kept".to_owned(), Expect::Absent)],
        idempotency: call("k", 1, b"answer"),
        puts: vec![("kept".to_owned(), b"2".to_vec()), ("new".to_owned(), b"2".to_vec())],
        raise: vec![fence("right", 9)],
        due: vec![set("lease", 10), set("other", 10)],
        events: vec![numbered(2)],
        ..of(project)
    };
    assert_eq!(store.commit(refused).await, stale("kept"));
    assert_eq!(bytes(&*store, project, "kept").await, Some(b"1".to_vec()));
    assert_eq!(bytes(&*store, project, "new").await, None);
    assert_eq!(due(&*store, 100).await, [("lease".to_owned(), 50)]);
    assert_eq!(numbers(&*store, project, 0).await, [1]);
    assert_eq!(store.answered(Some(project), "own_ana", "send_message", "k", &[1; 32]).await, Ok(None));
    assert_eq!(store.commit(Commit { fences: vec![fence("right", 9)], ..of(project) }).await, fenced("right"));
}

pub(crate) async fn expects_are_judged<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    let expecting = |expect: Expect, byte: u8| Commit { expects: vec![("k".to_owned(), expect)], ..put(project, "k", &[byte]) };

    assert_eq!(store.commit(expecting(Expect::Version(1), 0)).await, stale("k"), "there is none yet");
    let first = done(&*store, expecting(Expect::Absent, 1)).await;
    assert_eq!(store.commit(expecting(Expect::Absent, 2)).await, stale("k"));
    let second = done(&*store, expecting(Expect::Version(first), 2)).await;
    assert_eq!(store.commit(expecting(Expect::Version(first), 3)).await, stale("k"));
    assert_eq!(store.commit(expecting(Expect::Version(second + 1), 3)).await, stale("k"));
    assert_eq!(bytes(&*store, project, "k").await, Some(vec![2]));

    let both = vec![("k".to_owned(), Expect::Version(second)), ("other".to_owned(), Expect::Version(second))];
    assert_eq!(store.commit(Commit { expects: both, ..of(project) }).await, stale("other"));
    done(&*store, Commit { deletes: vec!["k".to_owned()], ..of(project) }).await;
    done(&*store, expecting(Expect::Absent, 4)).await;
}

pub(crate) async fn fences_are_judged<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    let holding = |n: u64| Commit { fences: vec![fence("task/T-1", n)], ..put(project, "k", b"v") };

    assert_eq!(store.commit(holding(1)).await, fenced("task/T-1"), "nobody was granted anything");
    done(&*store, Commit { raise: vec![fence("task/T-1", 1)], ..of(project) }).await;
    done(&*store, holding(1)).await;
    done(&*store, Commit { raise: vec![fence("task/T-1", 5)], ..of(project) }).await;
    for n in [0, 1, 4, 6] {
        assert_eq!(store.commit(holding(n)).await, fenced("task/T-1"), "{n}");
    }
    done(&*store, holding(5)).await;

    let other_epoch = Fence { key: "task/T-1".to_owned(), token: FencingToken { epoch: 2, n: 5 } };
    assert_eq!(store.commit(Commit { fences: vec![other_epoch], ..of(project) }).await, fenced("task/T-1"));
    let change_hands = Commit { fences: vec![fence("task/T-1", 5)], raise: vec![fence("task/T-1", 6)], ..of(project) };
    done(&*store, change_hands.clone()).await;
    assert_eq!(store.commit(change_hands).await, fenced("task/T-1"));

    done(&*store, put(project, "task/T-1", b"1.5")).await;
    done(&*store, Commit { deletes: vec!["task/T-1".to_owned()], ..of(project) }).await;
    done(&*store, holding(6)).await;
}

pub(crate) async fn a_right_is_never_given_back<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    done(&*store, Commit { raise: vec![fence("f", 7)], ..of(project) }).await;
    assert_eq!(store.commit(Commit { raise: vec![fence("f", 6)], ..put(project, "k", b"v") }).await, fenced("f"));
    assert_eq!(bytes(&*store, project, "k").await, None);
    done(&*store, Commit { raise: vec![fence("f", 7)], ..of(project) }).await;
    done(&*store, Commit { fences: vec![fence("f", 7)], ..of(project) }).await;
}

pub(crate) async fn a_repeated_call_is_answered_as_before<S: Subject>() {
    let subject = S::fresh().await;
    let (store, one, other) = (subject.store(), project(), project());
    let calling = |project: ProjectId, request: u8| Commit {
        idempotency: call("key-1", request, b"the answer"),
        events: vec![numbered(1)],
        ..put(project, "sent", &[request])
    };
    let answered = |request: u8| {
        let store = subject.store();
        async move { store.answered(Some(one), "own_ana", "send_message", "key-1", &[request; 32]).await }
    };
    assert_eq!(answered(1).await, Ok(None));
    done(&*store, calling(one, 1)).await;
    let reused = StoreError::KeyReused { key: "key-1".to_owned() };
    for _ in 0..3 {
        assert_eq!(store.commit(calling(one, 1)).await, Ok(Committed::Replayed(b"the answer".to_vec())));
        assert_eq!(store.commit(calling(one, 2)).await, Err(reused.clone()));
        assert_eq!(answered(1).await, Ok(Some(b"the answer".to_vec())));
        assert_eq!(answered(2).await, Err(reused.clone()));
    }
    assert_eq!(bytes(&*store, one, "sent").await, Some(vec![1]));
    assert_eq!(numbers(&*store, one, 0).await, [1], "it acted once");

    done(&*store, calling(other, 2)).await;
    let other_scopes: [fn(&mut Idempotency); 3] =
        [|call| call.principal.push('2'), |call| call.operation.push('2'), |call| call.key.push('2')];
    for change in other_scopes {
        let mut commit = calling(one, 3);
        change(commit.idempotency.as_mut().expect("the commit has one"));
        done(&*store, commit).await;
    }

    // The same call from many places at once acts once.
    let racing = || Commit { idempotency: call("key-2", 1, b"raced"), events: vec![numbered(2)], ..of(other) };
    let outcomes = all_at_once((0..32).map(|_| store.commit(racing()))).await;
    let acted = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Committed::Done { .. }))).count();
    let replayed = outcomes.iter().filter(|outcome| **outcome == Ok(Committed::Replayed(b"raced".to_vec()))).count();
    assert_eq!((acted, replayed), (1, 31));
    assert_eq!(numbers(&*store, other, 1).await, [2]);
}

pub(crate) async fn a_refused_call_is_not_remembered<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    let calling =
        |expect: Expect| Commit { idempotency: call("k", 1, b"r"), expects: vec![("v".to_owned(), expect)], ..put(project, "v", b"1") };
    assert_eq!(store.commit(calling(Expect::Version(1))).await, stale("v"));
    done(&*store, calling(Expect::Absent)).await;
    assert_eq!(store.commit(calling(Expect::Absent)).await, Ok(Committed::Replayed(b"r".to_vec())));
}

pub(crate) async fn the_order_of_judgement_is_fixed<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    let wrong = |request: u8| Commit {
        idempotency: call("k", request, b"r"),
        fences: vec![fence("no", 1)],
        expects: vec![("no".to_owned(), Expect::Version(1))],
        raise: vec![fence("f", 1)],
        ..of(project)
    };
    assert_eq!(store.commit(wrong(1)).await, fenced("no"), "fences before expects");
    done(&*store, Commit { idempotency: call("k", 1, b"r"), raise: vec![fence("f", 2)], ..of(project) }).await;
    assert_eq!(store.commit(wrong(1)).await, Ok(Committed::Replayed(b"r".to_vec())), "the record before all");
    assert_eq!(store.commit(wrong(2)).await, Err(StoreError::KeyReused { key: "k".to_owned() }));
    let unfenced = Commit { idempotency: None, fences: Vec::new(), ..wrong(1) };
    assert_eq!(store.commit(unfenced).await, stale("no"), "expects before the tokens to raise");
}

pub(crate) async fn ranges_come_in_pages<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    let mut keys: Vec<String> = (0..1_000).map(|n| format!("task/{n:04}")).collect();
    let longest = format!("task/{}", "x".repeat(KEY_BYTES_MAX - 5));
    keys.extend(["task/é", "task/𝕏", "task"].map(str::to_owned));
    keys.push(longest.clone());
    keys.extend(["tasj/9", "tasl/0", "a", "\u{10ffff}"].map(str::to_owned));
    let puts = keys.iter().map(|key| (key.clone(), key.clone().into_bytes())).collect();
    let version = done(&*store, Commit { puts, ..of(project) }).await;
    let mut expected: Vec<String> = keys.iter().filter(|key| key.starts_with("task/")).cloned().collect();
    expected.sort();

    for limit in [1, 7, 300, 2_000] {
        let (mut from, mut met) = (String::new(), Vec::new());
        loop {
            let page = store.range(Some(project), "task/", &from, limit).await.expect("the store answers");
            assert!(page.entries.len() <= limit && !page.entries.is_empty());
            for (key, value) in page.entries {
                assert_eq!((value.version, &value.bytes[..]), (version, key.as_bytes()));
                met.push(key);
            }
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!(met, expected, "{limit}");
    }

    let range = |prefix: &str, from: &str, limit: usize| {
        let (store, prefix, from) = (subject.store(), prefix.to_owned(), from.to_owned());
        async move { store.range(Some(project), &prefix, &from, limit).await.expect("the store answers") }
    };
    assert_eq!(range("task/", "task/0990", 2).await.entries[0].0, "task/0990", "from is inclusive");
    assert_eq!(range("task/", "task/0990x", 2).await.entries[0].0, "task/0991");
    assert_eq!(range("task/", "a", 1).await.entries[0].0, "task/0000", "from before the prefix");
    assert_eq!(range("task/", "tasl", 9).await, Default::default(), "from after the prefix");
    assert_eq!(range("task/0005", "task/0004", 9).await.entries.len(), 1);
    assert_eq!(range("", "", 5_000).await.entries.len(), keys.len());
    assert_eq!(range("\u{10ffff}", "", 9).await.entries.len(), 1);
    assert_eq!(range("none", "", 9).await, Default::default());
    assert_eq!(range(&longest, "", 9).await.entries.len(), 1);
    assert_eq!(range(&format!("{longest}y"), "", 9).await, Default::default());
    assert_eq!(range("task/", &format!("{longest}{}", "y".repeat(70_000)), 9).await.entries[0].0, "task/é");
    let none = range("task/", "", 0).await;
    assert!(none.entries.is_empty() && none.next == Some("task/0000".to_owned()));
}

pub(crate) async fn due_entries_are_set_moved_and_cleared<S: Subject>() {
    let subject = S::fresh().await;
    let (store, one, other) = (subject.store(), project(), project());
    let next = || async { store.next_due().await.expect("the store answers").map(|at| at.0) };
    assert_eq!((next().await, due(&*store, i64::MAX).await), (None, Vec::new()));

    done(&*store, Commit { due: vec![set("b", 20), set("a", 30), set("c", 10)], ..of(one) }).await;
    done(&*store, Commit { due: vec![set("a", 15)], ..of(other) }).await;
    let entries = store.due(TimeMs(20), 10).await.expect("the store answers");
    let entry = |project, name: &str, at| DueEntry { project, name: name.to_owned(), at: TimeMs(at) };
    assert_eq!(entries, [entry(one, "c", 10), entry(other, "a", 15), entry(one, "b", 20)], "all projects', earliest first, inclusive");
    assert_eq!(store.due(TimeMs(99), 2).await.expect("the store answers").len(), 2);
    assert_eq!(due(&*store, 9).await, []);
    assert_eq!(next().await, Some(10));
    assert_eq!(due(&*store, 10).await.len(), 1, "reading leaves them");

    done(&*store, Commit { due: vec![set("c", 40), clear("b"), clear("never")], ..of(one) }).await;
    assert_eq!(due(&*store, 99).await, [("a".to_owned(), 15), ("a".to_owned(), 30), ("c".to_owned(), 40)]);
    assert_eq!(next().await, Some(15));
    done(&*store, Commit { due: vec![clear("a")], ..of(other) }).await;
    assert_eq!(next().await, Some(30));
    done(&*store, Commit { due: vec![set("a", 5), set("a", 50), clear("c"), set("c", -7)], ..of(one) }).await;
    assert_eq!(due(&*store, 99).await, [("c".to_owned(), -7), ("a".to_owned(), 50)], "changes of one commit follow each other");
    assert_eq!(next().await, Some(-7));

    done(&*store, Commit { due: vec![set("a", i64::MAX), set("c", i64::MIN)], ..of(one) }).await;
    assert_eq!(due(&*store, i64::MAX).await.len(), 2);
    assert_eq!(due(&*store, i64::MIN).await.len(), 1);
    done(&*store, Commit { due: vec![clear("c")], ..of(one) }).await;
    assert_eq!(next().await, Some(i64::MAX));
    done(&*store, Commit { due: vec![clear("a")], ..of(one) }).await;
    assert_eq!((next().await, due(&*store, i64::MAX).await), (None, Vec::new()));
    done(&*store, Commit { due: vec![set("z", 3)], ..of(one) }).await;
    assert_eq!(next().await, Some(3));
}

pub(crate) async fn events_keep_their_order<S: Subject>() {
    let subject = S::fresh().await;
    let (store, one, other) = (subject.store(), project(), project());
    let epoch = store.epoch();
    assert_eq!(store.head(Some(one)).await, Ok(Cursor { epoch, seq: 0 }));
    let mut last_at = store.now();
    let mut expected_seq = 0;
    for n in 0..40u64 {
        let events: Vec<_> = (0..n % 4).map(|part| numbered(n * 10 + part)).collect();
        expected_seq += events.len() as u64;
        let outcome = store.commit(Commit { events, ..of(one) }).await.expect("the commit is accepted");
        let Committed::Done { cursor, at, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(cursor, Cursor { epoch, seq: expected_seq }, "its last event's, or the log's end");
        assert!(at >= last_at);
        last_at = at;
    }
    assert!(store.now() >= last_at);
    assert_eq!(store.head(Some(one)).await, Ok(Cursor { epoch, seq: expected_seq }));
    assert_eq!(store.head(Some(other)).await, Ok(Cursor { epoch, seq: 0 }));

    let all = store.events(Some(one), Cursor::default(), 1_000).await.expect("the store answers");
    assert_eq!(all.iter().map(|event| event.cursor.seq).collect::<Vec<_>>(), (1..=expected_seq).collect::<Vec<_>>());
    assert!(all.is_sorted_by_key(|event| (event.at, event.event.data["n"].as_u64())));
    assert!(all.iter().all(|event| event.project == one && event.cursor.epoch == epoch));
    let mut met = Vec::new();
    let mut cursor = Cursor::default();
    loop {
        let page = store.events(Some(one), cursor, 7).await.expect("the store answers");
        let Some(last) = page.last() else { break };
        cursor = last.cursor;
        met.extend(page);
    }
    assert_eq!(met, all);
    assert_eq!(store.events(Some(one), Cursor { epoch, seq: u64::MAX }, 7).await, Ok(Vec::new()));
    assert_eq!(store.events(Some(one), Cursor::default(), 0).await, Ok(Vec::new()));
}

pub(crate) async fn events_keep_their_data<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    let mut nested = json!("deep");
    for _ in 0..100 {
        nested = json!([{ "x": nested }]);
    }
    let datas = [
        json!(null),
        json!({}),
        json!([]),
        json!({ "text": "é\u{0}\n𝕏", "min": i64::MIN, "max": u64::MAX, "float": 0.1, "yes": true, "none": null }),
        json!({ "type": "not the event's", "cursor": 1, "at": "x", "data": { "data": [] }, "": { "": "" } }),
        json!("x".repeat(300_000)),
        nested.pointer("/0/x/0/x/0/x").cloned().expect("it is nested deeper"),
    ];
    let shallow: Vec<Value> = datas.iter().filter(|data| depth(data) <= 120).cloned().collect();
    done(&*store, Commit { events: shallow.iter().cloned().map(event).collect(), ..of(project) }).await;
    let events = store.events(Some(project), Cursor::default(), 100).await.expect("the store answers");
    assert_eq!(events.len(), shallow.len());
    for (read, data) in events.iter().zip(shallow) {
        assert_eq!(read.event, event(data));
    }

    let mut bottomless = json!(0);
    for _ in 0..5_000 {
        bottomless = json!([bottomless]);
    }
    let outcome = store.commit(Commit { events: vec![event(bottomless)], ..of(project) }).await;
    assert!(matches!(outcome, Err(StoreError::Refused { .. })), "{outcome:?}");
    assert_eq!(store.head(Some(project)).await.expect("the store answers").seq, events.len() as u64);
}

fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + inner.unwrap_or(0)
}

pub(crate) async fn a_log_wakes_who_waits<S: Subject>() {
    let subject = S::fresh().await;
    let (store, one, other) = (subject.store(), project(), project());
    let (mut here, mut there) = (store.watch(Some(one)), store.watch(Some(other)));
    let mut late = None;
    for n in 0..5 {
        done(&*store, Commit { events: vec![numbered(n)], ..of(one) }).await;
        timeout(SOON, here.changed()).await.expect("it is woken").expect("the store is open");
        here.mark_unchanged();
        if let Some(late) = &mut late {
            timeout(SOON, tokio::sync::watch::Receiver::changed(late)).await.expect("it is woken").expect("the store is open");
        }
        late = Some(store.watch(Some(one)));
    }
    assert!(!there.has_changed().expect("the store is open"), "other logs stay asleep");
    done(&*store, put(other, "k", b"v")).await;
    assert!(!there.has_changed().expect("the store is open"), "a commit without events wakes nobody");

    // Whoever reads after being woken reads what woke it.
    let reader = {
        let store = subject.store();
        tokio::spawn(async move {
            let mut seen = 0;
            while seen < 50 {
                there.changed().await.expect("the store is open");
                seen = store.head(Some(other)).await.expect("the store answers").seq;
            }
        })
    };
    for n in 0..50 {
        done(&*store, Commit { events: vec![numbered(n)], ..of(other) }).await;
    }
    timeout(SOON, reader).await.expect("no wake is lost").expect("the reader ends");
}

pub(crate) async fn an_earlier_due_entry_wakes_who_waits<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    let mut waiter = store.watch_due();
    for at in [100, 50, 49, -1] {
        done(&*store, Commit { due: vec![set(&format!("at {at}"), at)], ..of(project) }).await;
        timeout(SOON, waiter.changed()).await.expect("it is woken").expect("the store is open");
        assert_eq!(store.next_due().await, Ok(Some(TimeMs(at))), "what woke it can be read");
    }
    done(&*store, Commit { due: ["at 100", "at 50", "at 49", "at -1"].map(clear).to_vec(), ..of(project) }).await;
    waiter.mark_unchanged();
    done(&*store, Commit { due: vec![set("x", 1_000)], ..of(project) }).await;
    timeout(SOON, waiter.changed()).await.expect("the first one wakes").expect("the store is open");
}

pub(crate) async fn writers_race_for_one_counter<S: Subject>() {
    const WRITERS: u64 = 64;
    const ROUNDS: u64 = 8;
    let subject = S::fresh().await;
    let project = project();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let store = subject.store();
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                loop {
                    let value = store.get(Some(project), "counter").await.expect("the store answers");
                    let (expect, count) = match value {
                        None => (Expect::Absent, 0),
                        Some(value) => (Expect::Version(value.version), u64::from_be_bytes(value.bytes.try_into().expect("8 bytes"))),
                    };
                    let next = Commit {
                        expects: vec![("counter".to_owned(), expect)],
                        events: vec![numbered(count + 1)],
                        ..put(project, "counter", &(count + 1).to_be_bytes())
                    };
                    match store.commit(next).await {
                        Ok(_) => break,
                        Err(StoreError::Stale { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("the writer ends");
    }
    let store = subject.store();
    assert_eq!(bytes(&*store, project, "counter").await, Some((WRITERS * ROUNDS).to_be_bytes().to_vec()));
    assert_eq!(numbers(&*store, project, 0).await, (1..=WRITERS * ROUNDS).collect::<Vec<_>>(), "every step once, in order");
}

pub(crate) async fn projects_do_not_see_each_other<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    // Neighbours in the order of bytes, and random ones.
    let mut projects: Vec<_> = [[0; 16], [0xff; 16]].map(ProjectId::from_bytes).to_vec();
    let mut neighbour = [7; 16];
    for last in [0xfe, 0xff] {
        neighbour[15] = last;
        projects.push(ProjectId::from_bytes(neighbour));
    }
    projects.extend((0..30).map(|_| project()));
    let commits = projects.iter().enumerate().map(|(n, project)| {
        let events = (0..=n as u64).map(numbered).collect();
        let raise = vec![fence("f", n as u64 + 1)];
        store.commit(Commit { events, raise, idempotency: call("k", n as u8, &[n as u8]), ..put(*project, "same/key", &[n as u8]) })
    });
    for outcome in all_at_once(commits).await {
        assert!(matches!(outcome, Ok(Committed::Done { .. })), "{outcome:?}");
    }
    for (n, project) in projects.into_iter().enumerate() {
        let page = store.range(Some(project), "", "", 100).await.expect("the store answers");
        assert_eq!(
            page.entries.iter().map(|(key, value)| (&key[..], &value.bytes[..])).collect::<Vec<_>>(),
            [("same/key", &[n as u8][..])]
        );
        assert_eq!(numbers(&*store, project, 0).await, (0..=n as u64).collect::<Vec<_>>());
        done(&*store, Commit { fences: vec![fence("f", n as u64 + 1)], ..of(project) }).await;
        let answer = store.answered(Some(project), "own_ana", "send_message", "k", &[n as u8; 32]).await;
        assert_eq!(answer, Ok(Some(vec![n as u8])));
    }
    assert_eq!(store.range(None, "", "", 9).await, Ok(Default::default()));
}

pub(crate) async fn the_host_has_a_space_of_its_own<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let zeros = ProjectId::from_bytes([0; 16]);
    let mut waiter = store.watch(None);
    done(&*store, put(zeros, "k", b"project")).await;
    done(&*store, Commit { puts: vec![("k".to_owned(), b"host".to_vec())], events: vec![numbered(1)], ..Commit::default() }).await;
    timeout(SOON, waiter.changed()).await.expect("it is woken").expect("the store is open");
    assert_eq!(store.get(None, "k").await.expect("the store answers").expect("it is there").bytes, b"host");
    assert_eq!(bytes(&*store, zeros, "k").await, Some(b"project".to_vec()));
    assert_eq!(store.range(None, "", "", 9).await.expect("the store answers").entries.len(), 1);
    assert_eq!(store.events(None, Cursor::default(), 9).await.expect("the store answers").len(), 1);
    assert_eq!(store.head(None).await.expect("the store answers").seq, 1);
    assert_eq!(store.head(Some(zeros)).await.expect("the store answers").seq, 0);
}

pub(crate) async fn hostile_commits_change_nothing<S: Subject>() {
    let subject = S::fresh().await;
    let (store, project) = (subject.store(), project());
    let before = done(&*store, Commit { events: vec![numbered(1)], ..put(project, "k", b"v") }).await;
    let long = "x".repeat(KEY_BYTES_MAX + 1);
    for key in ["", "a\nb", "a\0", "\u{7f}", "\u{85}", long.as_str(), &"é".repeat(KEY_BYTES_MAX / 2 + 1)] {
        let key = || key.to_owned();
        let hostile = [
            Commit { puts: vec![(key(), Vec::new())], ..of(project) },
            Commit { deletes: vec![key()], ..of(project) },
            Commit { expects: vec![(key(), Expect::Absent)], ..of(project) },
            Commit { fences: vec![fence(&key(), 1)], ..of(project) },
            Commit { raise: vec![fence(&key(), 1)], ..of(project) },
            Commit { due: vec![set(&key(), 1)], ..of(project) },
            Commit { due: vec![clear(&key())], ..of(project) },
            Commit { idempotency: call(&key(), 1, b""), ..of(project) },
        ];
        for mut commit in hostile {
            commit.puts.push(("k".to_owned(), b"changed".to_vec()));
            commit.events.push(numbered(2));
            let outcome = store.commit(commit).await;
            assert!(matches!(outcome, Err(StoreError::Refused { .. })), "{outcome:?}");
        }
        assert_eq!(store.get(Some(project), &key()).await, Ok(None));
        assert_eq!(store.answered(Some(project), &key(), "o", "k", &[1; 32]).await, Ok(None));
    }
    let huge = vec![0; COMMIT_BYTES_MAX / 2];
    let too_large = Commit { puts: vec![("a".to_owned(), huge.clone()), ("k".to_owned(), huge.clone())], ..of(project) };
    assert!(matches!(store.commit(too_large).await, Err(StoreError::Refused { .. })));
    let answer = Commit { idempotency: call("i", 1, &huge), ..put(project, "k", &huge) };
    assert!(matches!(store.commit(answer).await, Err(StoreError::Refused { .. })));
    let events = vec![event(Value::String("x".repeat(COMMIT_BYTES_MAX)))];
    assert!(matches!(store.commit(Commit { events, ..put(project, "k", b"c") }).await, Err(StoreError::Refused { .. })));
    let homeless = Commit { due: vec![set("a", 1)], ..Commit::default() };
    assert!(matches!(store.commit(homeless).await, Err(StoreError::Refused { .. })), "due entries belong to a project");

    let value = store.get(Some(project), "k").await.expect("the store answers").expect("it is there");
    assert_eq!((value.version, &value.bytes[..]), (before, &b"v"[..]));
    assert_eq!(numbers(&*store, project, 0).await, [1]);
    assert_eq!(store.next_due().await, Ok(None));

    let largest = vec![1; COMMIT_BYTES_MAX - 1];
    done(&*store, put(project, "l", &largest)).await;
    assert_eq!(bytes(&*store, project, "l").await, Some(largest));
    done(&*store, put(project, &"x".repeat(KEY_BYTES_MAX), b"longest")).await;
    assert_eq!(bytes(&*store, project, &"x".repeat(KEY_BYTES_MAX)).await, Some(b"longest".to_vec()));
}

pub(crate) async fn everything_survives_reopening<S: Subject>() {
    let mut subject = S::fresh().await;
    let project = project();
    let (mut last_version, mut last_at, epoch) = (0, subject.store().now(), subject.store().epoch());
    for round in 1..=4u64 {
        let store = subject.store();
        assert!(store.now() >= last_at, "time does not go back");
        let commit = Commit {
            expects: vec![("k".to_owned(), if round == 1 { Expect::Absent } else { Expect::Version(last_version) })],
            fences: if round == 1 { Vec::new() } else { vec![fence("f", round - 1)] },
            raise: vec![fence("f", round)],
            idempotency: call("same", round as u8, &[round as u8]),
            events: vec![numbered(round)],
            ..put(project, "k", &[round as u8])
        };
        let repeated = store.commit(commit.clone()).await;
        if round == 1 {
            let Ok(Committed::Done { version, .. }) = repeated else { panic!("{repeated:?}") };
            last_version = version;
        } else {
            assert_eq!(repeated, Err(StoreError::KeyReused { key: "same".to_owned() }));
            let outcome = store.commit(Commit { idempotency: None, ..commit }).await.expect("the commit is accepted");
            let Committed::Done { version, cursor, at } = outcome else { panic!("{outcome:?}") };
            assert!(version > last_version && at >= last_at);
            assert_eq!(cursor, Cursor { epoch, seq: round });
            (last_version, last_at) = (version, at);
        }
        assert_eq!(store.answered(Some(project), "own_ana", "send_message", "same", &[1; 32]).await, Ok(Some(vec![1])));
        assert_eq!(numbers(&*store, project, 0).await, (1..=round).collect::<Vec<_>>());
        assert_eq!(store.epoch(), epoch);
        store.ready().await.expect("it is ready");
        drop(store);
        subject = subject.reopened().await;
    }
}

pub(crate) async fn what_is_due_survives_reopening<S: Subject>() {
    let mut subject = S::fresh().await;
    let project = project();
    done(&*subject.store(), Commit { due: vec![set("a", 10), set("b", 20)], ..of(project) }).await;
    for (expected, change) in [(10, clear("a")), (20, set("b", 5)), (5, set("b", 30))] {
        subject = subject.reopened().await;
        let store = subject.store();
        assert_eq!(store.next_due().await, Ok(Some(TimeMs(expected))));
        assert_eq!(due(&*store, expected).await.len(), 1);
        done(&*store, Commit { due: vec![change], ..of(project) }).await;
    }
    assert_eq!(due(&*subject.store(), 99).await, [("b".to_owned(), 30)]);
}
