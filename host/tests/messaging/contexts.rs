//! Documents that several agents write.

use std::sync::Arc;

use pointsman::service::contexts::{Viewer, WriteOutcome, WriteRequest};
use serde_json::json;
use tokio::task::JoinSet;

use crate::world::{Setup, World, code};

fn write(base: u64, text: &str) -> WriteRequest {
    WriteRequest { key: "plan/api".to_owned(), base_version: Some(base), text: Some(text.to_owned()), ..WriteRequest::default() }
}

fn applied(version: u64) -> WriteOutcome {
    WriteOutcome::Applied { version, merged_with: None, plugin: None, unchanged: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_rise_and_all_can_be_read() {
    let world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    assert_eq!(world.contexts.write(&ana, write(0, "one")).await.expect("it is written"), applied(1));
    assert_eq!(world.contexts.write(&ana, write(1, "two")).await.expect("it is written"), applied(2));
    let world = world.restart().await;
    let newest = world.contexts.read(world.project, &Viewer::Host, "plan/api", None).await.expect("it is there");
    assert_eq!((newest.text(), newest.head.version, newest.head.parents.as_slice()), (Some("two"), 2, [1].as_slice()));
    assert_eq!(world.contexts.read(world.project, &Viewer::Host, "plan/api", Some(1)).await.expect("it is kept").text(), Some("one"));
    let value = WriteRequest { key: "plan/db".to_owned(), value: Some(json!({"b": 1, "a": [2]})), ..WriteRequest::default() };
    world.contexts.write(&ana, value).await.expect("it is written");
    let listed = world.contexts.list(world.project, &Viewer::Host, "plan/", 10).await.expect("a list");
    assert_eq!(
        listed.iter().map(|head| (head.key.as_str(), head.media_type.as_str())).collect::<Vec<_>>(),
        [("plan/api", "text/markdown"), ("plan/db", "application/json")]
    );
    assert_eq!(world.events("context.written").await.len(), 3);
    let page = async |prefix, after, limit| {
        let (page, more) = world.contexts.list_after(world.project, &Viewer::Host, prefix, after, limit).await.expect("a list");
        (page.iter().map(|head| head.key.to_string()).collect::<Vec<_>>(), more.map(|more| more.to_string()))
    };
    assert_eq!(page("", "", 1).await, (vec!["plan/api".to_owned()], Some("plan/api".to_owned())));
    assert_eq!(page("", "plan/api", 1).await, (vec!["plan/db".to_owned()], None));
    assert_eq!(page("plan/", "a", 2).await.0.len(), 2, "a key before all of them");
    assert_eq!(page("plan/", "plan/db", 2).await, (Vec::new(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_write_is_one_write() {
    let world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    world.contexts.write(&ana, write(0, "one")).await.expect("it is written");
    world.contexts.write(&ana, write(1, "two")).await.expect("it is written");
    world.contexts.write(&ana, write(2, "three")).await.expect("it is written");
    assert_eq!(world.contexts.write(&ana, write(1, "two")).await.expect("it was written"), applied(2), "derived key");
    assert_eq!(world.contexts.list(world.project, &Viewer::Host, "", 10).await.expect("a list")[0].version, 3);
    let keyed = WriteRequest { idempotency_key: Some("k".to_owned()), ..write(3, "four") };
    assert_eq!(world.contexts.write(&ana, keyed.clone()).await.expect("it is written"), applied(4));
    assert_eq!(world.contexts.write(&ana, keyed.clone()).await.expect("it was written"), applied(4));
    let other = WriteRequest { text: Some("five".to_owned()), ..keyed };
    assert_eq!(code(world.contexts.write(&ana, other).await), "key_reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_write_without_reconciler_conflicts_and_can_be_resolved() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    world.contexts.write(&ana, write(0, "base")).await.expect("it is written");
    world.contexts.write(&ana, write(1, "ana's")).await.expect("it is written");
    let outcome = world.contexts.write(&bo, write(1, "bo's")).await.expect("an outcome");
    let WriteOutcome::Conflict { id, current_version: 2, conflicts, plugin: None } = outcome else { panic!("{outcome:?}") };
    assert_eq!(
        (conflicts[0].base.as_deref(), conflicts[0].ours.as_deref(), conflicts[0].theirs.as_deref()),
        (Some("base"), Some("ana's"), Some("bo's"))
    );
    assert_eq!(
        world.contexts.read(world.project, &Viewer::Host, "plan/api", None).await.expect("it is there").text(),
        Some("ana's"),
        "nothing changed"
    );
    assert_eq!(world.contexts.open_conflicts(world.project, &Viewer::Host).await.expect("a list")[0].theirs.as_deref(), Some("bo's"));

    let wrong = WriteRequest { key: "plan/other".to_owned(), base_version: None, resolves: Some(id), ..write(0, "x") };
    assert_eq!(code(world.contexts.write(&bo, wrong).await), "not_found");
    let resolved = WriteRequest { resolves: Some(id), ..write(2, "both") };
    assert_eq!(world.contexts.write(&bo, resolved).await.expect("it is written"), applied(3));
    assert!(world.contexts.open_conflicts(world.project, &Viewer::Host).await.expect("a list").is_empty());
    assert_eq!(world.contexts.conflict(world.project, &Viewer::Host, id).await.expect("it is kept").record.resolved_by, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn crossing_writes_are_reconciled_and_both_sides_are_kept() {
    let world = World::with(Setup { reconcilers: vec!["context-json", "context-text"], ..Setup::default() }).await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let value =
        |base, value| WriteRequest { key: "plan/api".to_owned(), base_version: Some(base), value: Some(value), ..WriteRequest::default() };
    world.contexts.write(&ana, value(0, json!({"host": "a", "port": 1}))).await.expect("it is written");
    world.contexts.write(&ana, value(1, json!({"host": "b", "port": 1}))).await.expect("it is written");
    let outcome = world.contexts.write(&bo, value(1, json!({"host": "a", "port": 2}))).await.expect("an outcome");
    if !world.kit.plugins.loaded().contains_key("context-json") {
        // Not built here: the write conflicts, and the record says that the reconciler failed.
        assert!(matches!(outcome, WriteOutcome::Conflict { .. }), "{outcome:?}");
        return;
    }
    let merged = WriteOutcome::Applied { version: 4, merged_with: Some(2), plugin: Some("context-json".to_owned()), unchanged: false };
    assert_eq!(outcome, merged);
    let read = async |version| world.contexts.read(world.project, &Viewer::Host, "plan/api", version).await.expect("it is kept");
    let newest = read(None).await;
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&newest.bytes).expect("JSON"), json!({"host": "b", "port": 2}));
    assert_eq!(newest.head.parents, [2, 3]);
    assert_eq!((read(Some(3)).await.head.parents, read(Some(3)).await.head.author.name), (vec![1], "bo".to_owned()));
    let outcome = world.contexts.write(&bo, value(1, json!({"host": "c", "port": 1}))).await.expect("an outcome");
    let WriteOutcome::Conflict { conflicts, plugin: Some(plugin), .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((conflicts[0].pointer.as_str(), plugin.as_str()), ("/host", "context-json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writes_from_one_version_one_is_applied() {
    let world = Arc::new(World::start().await);
    let ana = world.agent("ana", &[]).await;
    world.contexts.write(&ana, write(0, "base")).await.expect("it is written");
    let mut writers = JoinSet::new();
    for n in 0..16 {
        let (world, ana) = (Arc::clone(&world), ana.clone());
        writers.spawn(async move { world.contexts.write(&ana, write(1, &format!("by {n}"))).await.expect("an outcome") });
    }
    let outcomes = writers.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == applied(2)).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, WriteOutcome::Conflict { current_version: 2, .. })).count(), 15);
    assert_eq!(world.contexts.open_conflicts(world.project, &Viewer::Host).await.expect("a list").len(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_writes_change_nothing() {
    let world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    let both = WriteRequest { value: Some(json!(1)), ..write(0, "x") };
    let no_json = WriteRequest { media_type: Some("application/json".to_owned()), ..write(0, "{") };
    let text_json = WriteRequest { media_type: Some("text/plain".to_owned()), text: None, value: Some(json!(1)), ..write(0, "") };
    for (request, expected) in [
        (WriteRequest { key: "/plan".to_owned(), ..write(0, "x") }, "bad_argument"),
        (both, "bad_argument"),
        (text_json, "bad_argument"),
        (WriteRequest { media_type: Some("JSON".to_owned()), ..write(0, "{}") }, "bad_argument"),
        (no_json, "bad_json"),
        (write(0, &"x".repeat((64 << 20) + 1)), "too_large"),
        (write(3, "x"), "unknown_base"),
    ] {
        assert_eq!(code(world.contexts.write(&ana, request).await), expected);
    }
    assert_eq!(code(world.contexts.read(world.project, &Viewer::Host, "plan/api", None).await), "not_found");
    world.contexts.write(&ana, write(0, "one")).await.expect("it is written");
    assert_eq!(code(world.contexts.write(&ana, write(2, "x")).await), "unknown_base");
    assert_eq!(code(world.contexts.read(world.project, &Viewer::Host, "plan/api", Some(9)).await), "not_found");
}
