//! Documents in parts, patches, transactions, deletion, large ones, conflicts that are handed on, keys that are not everybody's.

use std::sync::Arc;

use bytes::Bytes;
use pointsman::service::contexts::{PutRequest, Side, Viewer, WriteBatch, WriteOutcome, WriteRequest};
use pointsman::service::due;
use pointsman::service::kit::Acting;
use pointsman::service::settings::ContextSettings;
use pointsman_core::context::content::{ChunkHash, cut};
use pointsman_core::context::rules::{Rule, Rules, Stale};
use pointsman_core::context::view::Part;
use pointsman_core::ids::ConflictId;
use pointsman_core::limits::{DOCUMENT_BYTES_MAX, JSON_BYTES_MAX};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::world::{Setup, World, code};

const DAY_MS: u64 = 86_400_000;

fn text(key: &str, base: u64, text: &str) -> WriteRequest {
    WriteRequest { key: key.to_owned(), base_version: Some(base), text: Some(text.to_owned()), ..WriteRequest::default() }
}

fn value(key: &str, base: u64, value: Value) -> WriteRequest {
    WriteRequest { key: key.to_owned(), base_version: Some(base), value: Some(value), ..WriteRequest::default() }
}

fn change(key: &str, base: u64, make: impl FnOnce(&mut WriteRequest)) -> WriteRequest {
    let mut request = WriteRequest { key: key.to_owned(), base_version: Some(base), ..WriteRequest::default() };
    make(&mut request);
    request
}

fn version_of(outcome: &WriteOutcome) -> u64 {
    match outcome {
        WriteOutcome::Applied { version, .. } => *version,
        other @ (WriteOutcome::Conflict { .. } | WriteOutcome::Handed { .. }) => unreachable!("{other:?}"),
    }
}

fn conflict_of(outcome: &WriteOutcome) -> ConflictId {
    match outcome {
        WriteOutcome::Conflict { id, .. } => *id,
        other @ (WriteOutcome::Applied { .. } | WriteOutcome::Handed { .. }) => unreachable!("{other:?}"),
    }
}

impl World {
    async fn write(&self, acting: &Acting, request: WriteRequest) -> u64 {
        version_of(&self.contexts.write(acting, request).await.expect("it is written"))
    }

    async fn text(&self, key: &str) -> String {
        let document = self.contexts.read(self.project, &Viewer::Host, key, None).await.expect("it is there");
        document.text().expect("a text").to_owned()
    }

    async fn code_of(&self, acting: &Acting, request: WriteRequest) -> &'static str {
        code(self.contexts.write(acting, request).await)
    }
}

/// Rules as an operator would write them.
fn rules(shared: &[&str], rules: Vec<Rule>) -> ContextSettings {
    let shared = shared.iter().map(|glob| glob.parse().expect("a glob")).collect();
    ContextSettings { rules: Rules { shared, rules }, ..ContextSettings::default() }
}

fn rule(keys: &str, make: impl FnOnce(&mut Rule)) -> Rule {
    let mut rule = Rule { keys: vec![keys.parse().expect("a glob")], ..Rule::default() };
    make(&mut rule);
    rule
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_and_changes_are_read() {
    let world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    world.write(&ana, value("api", 0, json!({"hosts": ["a", "b"], "port": 1}))).await;
    world.write(&ana, value("api", 1, json!({"hosts": ["a", "c"], "port": 1}))).await;
    world.write(&ana, text("notes", 0, "one\ntwo\nthree\n")).await;
    world.write(&ana, text("notes", 1, "one\n2\nthree\n")).await;
    let part = async |key, part| {
        let found = world.contexts.read_part(world.project, &Viewer::Host, key, None, &part).await;
        found.map(|(_, part)| part)
    };
    assert_eq!(part("api", Part::Pointer("/hosts/1".to_owned())).await.expect("it is there"), json!("c"));
    assert_eq!(code(part("api", Part::Pointer("/x".to_owned())).await), "not_found");
    assert_eq!(code(part("notes", Part::Pointer("/x".to_owned())).await), "bad_argument");
    assert_eq!(part("notes", Part::Lines(2, 3)).await.expect("it is there"), json!("2\nthree\n"));
    assert_eq!(part("notes", Part::Bytes(4, 6)).await.expect("it is there"), json!("2\n"));
    let changes = world.contexts.changes(world.project, &Viewer::Host, "api", 1).await.expect("changes");
    assert_eq!(changes.patch, Some(json!([{"op": "replace", "path": "/hosts/1", "value": "c"}])));
    assert_eq!((changes.version, changes.versions.len()), (2, 1));
    let diff = world.contexts.changes(world.project, &Viewer::Host, "notes", 1).await.expect("changes").patch.expect("a patch");
    assert!(diff.as_str().is_some_and(|diff| diff.contains("-two\n+2\n")), "{diff}");
    assert_eq!(code(world.contexts.changes(world.project, &Viewer::Host, "notes", 9).await), "not_found");
    assert_eq!(world.contexts.history(world.project, &Viewer::Host, "notes").await.expect("versions").len(), 2);
    let told = world.events("context.written").await;
    assert_eq!(told[1].event.data["patch"], json!([{"op": "replace", "path": "/hosts/1", "value": "c"}]));
    assert_eq!(told[1].event.data["from"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_are_applied_to_their_base_and_merged() {
    let world = World::with(Setup { reconcilers: vec!["context-json", "context-text"], ..Setup::default() }).await;
    let ana = world.agent("ana", &[]).await;
    world.write(&ana, value("api", 0, json!({"a": 1, "b": 1}))).await;
    let patch = |base, patch: Value| change("api", base, |request| request.patch = Some(patch));
    assert_eq!(world.write(&ana, patch(1, json!([{"op": "replace", "path": "/a", "value": 2}]))).await, 2);
    // From the first version still: both changes stand.
    assert_eq!(world.write(&ana, patch(1, json!([{"op": "replace", "path": "/b", "value": 3}]))).await, 4);
    assert_eq!(world.text("api").await, r#"{"a":2,"b":3}"#);
    assert_eq!(world.code_of(&ana, patch(4, json!([{"op": "remove", "path": "/x"}]))).await, "patch_misfit");
    assert_eq!(world.code_of(&ana, patch(4, json!("no list"))).await, "bad_argument");
    assert_eq!(world.code_of(&ana, patch(9, json!([]))).await, "unknown_base");
    world.write(&ana, text("notes", 0, "a\nb\n")).await;
    let diff = "@@ -1,2 +1,2 @@\n a\n-b\n+c\n";
    assert_eq!(world.write(&ana, change("notes", 1, |request| request.patch = Some(json!(diff)))).await, 2);
    assert_eq!(world.text("notes").await, "a\nc\n");
    assert_eq!(world.code_of(&ana, change("none", 0, |request| request.patch = Some(json!(diff)))).await, "unknown_base");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_written_together_or_not_at_all() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let batch = |documents: Vec<WriteRequest>, expects: &[(&str, u64)]| WriteBatch {
        documents,
        expects: expects.iter().map(|(key, version)| ((*key).to_owned(), *version)).collect(),
        idempotency_key: None,
    };
    let both = batch(vec![text("a", 0, "1"), text("b", 0, "1")], &[("c", 0)]);
    let written = world.contexts.write_all(&ana, &both).await.expect("written");
    assert_eq!(written.iter().map(version_of).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(world.contexts.write_all(&ana, &both).await.expect("the same answer"), written);
    world.write(&bo, text("b", 1, "bo's")).await;
    let stale = world.contexts.write_all(&ana, &batch(vec![text("a", 1, "2"), text("b", 1, "ana's")], &[])).await.expect("an outcome");
    assert!(matches!(stale[1], WriteOutcome::Conflict { current_version: 2, .. }), "{stale:?}");
    assert_eq!((world.text("a").await, world.text("b").await), ("1".to_owned(), "bo's".to_owned()), "none is written");
    let open = world.contexts.open_conflicts(world.project, &Viewer::Host).await.expect("a list");
    assert_eq!(open.iter().map(|open| open.theirs.as_deref()).collect::<Vec<_>>(), [Some("ana's")]);
    let refused = |batch: WriteBatch| {
        let (world, ana) = (&world, &ana);
        async move { code(world.contexts.write_all(ana, &batch).await) }
    };
    assert_eq!(refused(batch(vec![text("a", 1, "2")], &[("b", 1)])).await, "precondition_failed");
    assert_eq!(refused(batch(vec![text("a", 1, "2"), text("a", 1, "3")], &[])).await, "bad_argument");
    assert_eq!(refused(batch(Vec::new(), &[])).await, "bad_argument");
    assert_eq!(refused(batch(vec![text("a", 1, "2"), text("b", 7, "3")], &[])).await, "unknown_base");
    assert_eq!(world.text("a").await, "1");
    assert_eq!(world.write(&ana, WriteRequest { expects: [("b".to_owned(), 2)].into(), ..text("a", 1, "2") }).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_go_come_back_and_move() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    world.write(&ana, text("plan", 0, "one")).await;
    world.write(&ana, text("plan", 1, "two")).await;
    let delete = |base| change("plan", base, |request| request.delete = true);
    assert_eq!(world.code_of(&bo, delete(2)).await, "forbidden", "it is ana's");
    assert_eq!(world.code_of(&ana, delete(1)).await, "stale");
    assert_eq!(world.write(&ana, delete(2)).await, 3);
    assert_eq!(code(world.contexts.read(world.project, &Viewer::Host, "plan", None).await), "not_found");
    assert!(world.contexts.list(world.project, &Viewer::Host, "", 10).await.expect("a list").is_empty());
    let missed = world.contexts.write(&bo, text("plan", 2, "bo's")).await.expect("an outcome");
    assert!(matches!(missed, WriteOutcome::Conflict { current_version: 3, .. }), "{missed:?}");
    assert_eq!(world.write(&ana, change("plan", 3, |request| request.restore = Some(1))).await, 4);
    assert_eq!(world.text("plan").await, "one");
    let rename = |to: &str| change("plan", 4, |request| request.rename_to = Some(to.to_owned()));
    world.write(&ana, text("taken", 0, "x")).await;
    assert_eq!(world.code_of(&ana, rename("taken")).await, "exists");
    assert_eq!(world.write(&ana, rename("plans/first")).await, 1);
    assert_eq!(world.text("plans/first").await, "one");
    let moved = world.contexts.read(world.project, &Viewer::Host, "plan", None).await.expect_err("it went").to_string();
    assert!(moved.contains("`plan` went to `plans/first`"), "{moved}");
    let head = &world.contexts.history(world.project, &Viewer::Host, "plans/first").await.expect("versions")[0];
    assert_eq!((head.taken_from.as_deref(), head.creator()), (Some("plan@4"), Some(ana.agent.id)));
    // After a month nothing of it is left, and it can be begun anew.
    world.pass(31 * DAY_MS).await;
    assert_eq!(code(world.contexts.history(world.project, &Viewer::Host, "plan").await), "not_found");
    assert_eq!(world.write(&bo, text("plan", 0, "new")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn scratch_documents_expire_and_old_versions_end() {
    let scratch = rule("scratch/**", |rule| rule.expires_ms = Some(60_000));
    let few = rule("log", |rule| rule.versions_max = Some(10));
    let world = World::with(Setup { context: rules(&["**"], vec![scratch, few]), ..Setup::default() }).await;
    let ana = world.agent("ana", &[]).await;
    world.write(&ana, text("scratch/a", 0, "x")).await;
    world.write(&ana, WriteRequest { expires_in_s: Some(10), ..text("kept", 0, "x") }).await;
    world.write(&ana, text("kept", 1, "y")).await;
    world.pass(59_000).await;
    assert_eq!((world.text("scratch/a").await, world.text("kept").await), ("x".to_owned(), "y".to_owned()), "writing it again keeps it");
    world.pass(1_001).await;
    let gone = world.contexts.read(world.project, &Viewer::Host, "scratch/a", None).await.expect_err("it expired").to_string();
    assert!(gone.contains("deleted by version 2"), "{gone}");
    assert_eq!(world.events("context.deleted").await[0].event.actor.name, "host");
    for version in 0..64 {
        let label = (version == 4).then(|| "agreed".to_owned());
        world.write(&ana, WriteRequest { label, ..text("log", version, &format!("{version}")) }).await;
    }
    world.pass(0).await;
    let kept = world.contexts.history(world.project, &Viewer::Host, "log").await.expect("versions");
    let kept: Vec<u64> = kept.iter().map(|head| head.version).collect();
    assert_eq!(kept, [&[5], &(55..=64).collect::<Vec<_>>()[..]].concat(), "the labelled one, and the newest ten");
    assert_eq!(code(world.contexts.read(world.project, &Viewer::Host, "log", Some(6)).await), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_told_taken_and_handed_on() {
    let world = World::start().await;
    let (ana, bo, cy) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await, world.agent("cy", &[]).await);
    world.write(&ana, text("plan", 0, "base")).await;
    world.write(&cy, text("plan", 1, "cy's")).await;
    let first = conflict_of(&world.contexts.write(&bo, text("plan", 1, "bo's")).await.expect("an outcome"));
    let told = world.hear(&ana, "0.0", &[]).await;
    assert!(told.iter().any(|event| event.event.kind == "context.conflicted"), "ana began it: {told:?}");
    let settle = |id, make: fn(&mut WriteRequest)| {
        let mut request = WriteRequest { key: "plan".to_owned(), resolves: Some(id), ..WriteRequest::default() };
        make(&mut request);
        request
    };
    let handed = world.contexts.write(&bo, settle(first, |request| request.hand_to = Some("cy".to_owned()))).await.expect("an outcome");
    assert_eq!(handed, WriteOutcome::Handed { id: first, to: cy.agent.id });
    assert!(world.hear(&cy, "0.0", &[]).await.iter().any(|event| event.event.kind == "context.handed"));
    assert_eq!(world.write(&cy, settle(first, |request| request.take = Some(Side::Theirs))).await, 3);
    assert_eq!(world.text("plan").await, "bo's");
    let second = conflict_of(&world.contexts.write(&cy, text("plan", 2, "late")).await.expect("an outcome"));
    assert_eq!(world.write(&cy, settle(second, |request| request.take = Some(Side::Ours))).await, 3, "nothing is written");
    assert!(world.contexts.open_conflicts(world.project, &Viewer::Host).await.expect("a list").is_empty());
    assert_eq!(world.code_of(&cy, settle(second, |request| request.hand_to = Some("bo".to_owned()))).await, "already_resolved");
    assert_eq!(world.code_of(&cy, change("plan", 3, |request| request.take = Some(Side::Ours))).await, "bad_argument");
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_writes_meet_the_policy_of_their_key() {
    let policy = |keys: &str, stale| rule(keys, |rule| rule.stale = Some(stale));
    let policies = vec![policy("refused", Stale::Refuse), policy("last", Stale::LastWriter), policy("owned", Stale::OwnerWins)];
    let setup = Setup { reconcilers: vec!["context-text"], context: rules(&["**"], policies), ..Setup::default() };
    let world = World::with(setup).await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    for key in ["refused", "last", "owned"] {
        world.write(&ana, text(key, 0, "a\nb\nc\n")).await;
        world.write(&bo, text(key, 1, "A\nb\nc\n")).await;
    }
    let stale = world.contexts.write(&ana, text("refused", 1, "a\nb\nC\n")).await.expect("an outcome");
    assert!(matches!(stale, WriteOutcome::Conflict { .. }), "it could be merged, and is not: {stale:?}");
    assert_eq!(world.write(&ana, text("last", 1, "a\nb\nC\n")).await, 3);
    assert_eq!(world.text("last").await, "a\nb\nC\n");
    let head = world.contexts.read(world.project, &Viewer::Host, "last", None).await.expect("it is there").head;
    assert_eq!(head.parents, [2, 1], "what it replaced is among its parents");
    assert_eq!(world.write(&ana, text("owned", 1, "a\nb\nC\n")).await, 4, "what can be merged is");
    assert_eq!(world.write(&ana, text("owned", 1, "x\nb\nc\n")).await, 5, "ana began it: hers stands");
    let others = world.contexts.write(&bo, text("owned", 4, "y\nb\nc\n")).await.expect("an outcome");
    assert!(matches!(others, WriteOutcome::Conflict { current_version: 5, .. }), "{others:?}");
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[2]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_share_their_chunks_and_lose_none() {
    let world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    due::schedule(&world.services).await.expect("sweeps are set");
    let old = noise(1 << 20);
    let put = |base| PutRequest { key: "dump".to_owned(), base_version: Some(base), ..PutRequest::default() };
    let hashes = |bytes: &[u8]| cut(bytes).into_iter().map(|range| ChunkHash::of(&bytes[range])).collect::<Vec<_>>();
    let missing = world.contexts.missing_chunks(&ana, "dump", hashes(&old)).await.expect("an answer");
    assert_eq!(missing, hashes(&old));
    let named = world.contexts.joined(&ana, "dump", &hashes(&old)).await;
    assert_eq!(code(named), "missing_chunks", "a chunk's name opens nothing");
    let chunks: Vec<Vec<u8>> = cut(&old).into_iter().map(|range| old[range].to_vec()).collect();
    let (first, rest) = chunks.split_at(10);
    world.contexts.bring_chunks(&ana, "dump", first.to_vec()).await.expect("they are kept");
    let world = world.restart().await;
    let left = world.contexts.missing_chunks(&ana, "dump", hashes(&old)).await.expect("an answer");
    assert_eq!(left, hashes(&old)[10..], "an upload goes on where it was");
    world.contexts.bring_chunks(&ana, "dump", rest.to_vec()).await.expect("they are kept");
    let joined = world.contexts.joined(&ana, "dump", &hashes(&old)).await.expect("they are there");
    assert_eq!(version_of(&world.contexts.put(&ana, &put(0), Bytes::from(joined)).await.expect("it is written")), 1);
    let mut new = old.clone();
    new.splice(300_000..300_010, *b"an edit of other length");
    assert_eq!(version_of(&world.contexts.put(&ana, &put(1), Bytes::from(new.clone())).await.expect("it is written")), 2);
    let manifest =
        async |version| world.contexts.manifest(world.project, &Viewer::Host, "dump", Some(version)).await.expect("it is kept").chunks;
    let (one, two) = (manifest(1).await, manifest(2).await);
    assert!(two.iter().filter(|chunk| !one.contains(chunk)).count() <= 3, "an edit is a few chunks");
    let slice = world.contexts.read_bytes(world.project, &Viewer::Host, "dump", None, 299_990..300_040).await.expect("it is there").1;
    assert_eq!(slice, new[299_990..300_040]);
    // Sweeps find nothing to take, whatever goes on; and take what is named no more.
    let mut writers = JoinSet::new();
    let world = Arc::new(world);
    for n in 0..4_u8 {
        let (world, ana, old) = (Arc::clone(&world), ana.clone(), old.clone());
        writers.spawn(async move {
            for version in 0..6 {
                let mut bytes = old.clone();
                bytes[usize::from(n) * 1_000 + version] ^= 0xff;
                let request = PutRequest { key: format!("copy/{n}"), base_version: Some(version as u64), ..PutRequest::default() };
                world.contexts.put(&ana, &request, Bytes::from(bytes)).await.expect("it is written");
            }
        });
    }
    for _ in 0..6 {
        world.pass(2 * DAY_MS).await;
    }
    writers.join_all().await;
    assert_eq!(world.contexts.read(world.project, &Viewer::Host, "dump", Some(1)).await.expect("it is kept").bytes, old);
    assert_eq!(world.contexts.read(world.project, &Viewer::Host, "dump", None).await.expect("it is kept").bytes, new);
    for n in 0..4 {
        let found = world.contexts.read(world.project, &Viewer::Host, &format!("copy/{n}"), None).await.expect("it is kept");
        assert_eq!((found.head.version, found.bytes.len()), (6, old.len()));
    }
    for key in ["dump", "copy/0", "copy/1", "copy/2", "copy/3"] {
        let version = if key == "dump" { 2 } else { 6 };
        world.write(&ana, change(key, version, |request| request.delete = true)).await;
    }
    for _ in 0..4 {
        world.pass(31 * DAY_MS).await;
    }
    let left = world.kit.store.range(Some(world.project), "ctx-", "", 10).await.expect("a page").entries;
    assert!(left.is_empty(), "{:?}", left.iter().map(|(key, _)| key).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused() {
    let small = ContextSettings { bytes_max: 200_000, documents_max: 3, ..ContextSettings::default() };
    let world = World::with(Setup { context: small, ..Setup::default() }).await;
    let ana = world.agent("ana", &[]).await;
    let put = |key: &str| PutRequest { key: key.to_owned(), ..PutRequest::default() };
    let bytes = |length| Bytes::from(noise(length));
    assert_eq!(code(world.contexts.put(&ana, &put("a"), bytes(DOCUMENT_BYTES_MAX + 1)).await), "too_large");
    let json = PutRequest { media_type: Some("application/json".to_owned()), ..put("a") };
    assert_eq!(code(world.contexts.put(&ana, &json, vec![b' '; JSON_BYTES_MAX + 1].into()).await), "too_large");
    assert_eq!(code(world.contexts.put(&ana, &put("a"), bytes(300_000)).await), "quota");
    for key in ["a", "b", "c"] {
        world.write(&ana, text(key, 0, "x")).await;
    }
    assert_eq!(world.code_of(&ana, text("d", 0, "x")).await, "quota");
    assert_eq!(world.write(&ana, text("a", 1, "y")).await, 2, "there is room for versions");
    world.write(&ana, change("b", 1, |request| request.delete = true)).await;
    assert_eq!(world.write(&ana, text("d", 0, "x")).await, 1, "what goes makes room");
    assert_eq!(code(world.contexts.bring_chunks(&ana, "e", vec![Vec::new()]).await), "bad_argument");
    assert_eq!(code(world.contexts.bring_chunks(&ana, "e", vec![vec![0; 65_537]]).await), "bad_argument");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_open_to_those_whom_the_rules_name() {
    let who = |texts: &[&str]| Some(texts.iter().map(|text| text.parse().expect("somebody")).collect());
    let secret = rule("secret/**", |rule| rule.read = who(&["agent:ana"]));
    let decided = rule("decisions/**", |rule| rule.write = who(&["architect"]));
    let world =
        World::with(Setup { context: rules(&["plan/**", "secret/**", "decisions/**"], vec![secret, decided]), ..Setup::default() }).await;
    let (ana, bo) = (world.agent("ana", &["architect"]).await, world.agent("bo", &[]).await);
    world.write(&ana, text("secret/key", 0, "s")).await;
    world.write(&ana, text("decisions/db", 0, "d")).await;
    assert_eq!(world.code_of(&bo, text("decisions/db", 1, "x")).await, "forbidden");
    assert_eq!(world.code_of(&bo, text("elsewhere", 0, "x")).await, "forbidden", "closed by default");
    assert_eq!(world.code_of(&bo, text("private/ana/x", 0, "x")).await, "forbidden");
    assert_eq!(world.write(&bo, text("private/bo/x", 0, "x")).await, 1);
    let as_bo = Viewer::from(&bo);
    let there = world.contexts.read(world.project, &as_bo, "secret/key", None).await.expect_err("closed").to_string();
    let absent = world.contexts.read(world.project, &as_bo, "secret/kex", None).await.expect_err("closed").to_string();
    assert_eq!(there.replace("key", "kex"), absent, "nobody learns that it is there");
    for version in [Some(1), Some(7)] {
        assert_eq!(code(world.contexts.read(world.project, &as_bo, "secret/key", version).await), "not_found");
    }
    assert_eq!(code(world.contexts.history(world.project, &as_bo, "secret/key").await), "not_found");
    assert_eq!(code(world.contexts.changes(world.project, &as_bo, "secret/key", 1).await), "not_found");
    let listed = world.contexts.list(world.project, &as_bo, "", 10).await.expect("a list");
    assert_eq!(listed.iter().map(|head| head.key.as_str()).collect::<Vec<_>>(), ["decisions/db", "private/bo/x"]);
    let told = world.hear(&bo, "0.0", &["**"]).await;
    assert_eq!(told.iter().map(|event| event.event.subject.as_str()).collect::<Vec<_>>(), ["ctx:decisions/db"]);
    let denied = world.events("context.denied").await;
    assert!(denied.iter().any(|event| event.event.subject == "ctx:secret/key" && event.event.actor.name == "bo"), "{denied:?}");
    assert_eq!(denied.iter().filter(|event| event.event.subject == "ctx:secret/key").count(), 1, "one record a minute");
}
