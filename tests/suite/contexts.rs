//! Fifty agents edit ten documents at once while the host is killed: everything they were told is counted at the end, against the
//! documents, their history, the conflicts that are on record, and the log.

#![expect(clippy::panic, reason = "an agent under test that cannot go on says so and ends")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pointsman_tests::{Agent, CallError, DEADLINE_S, Host};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const AGENTS: usize = 50;
const DOCUMENTS: u64 = 10;
/// Times the host is killed.
const KILLS: u64 = 2;
/// Seconds for which they edit, besides the host's starts. A whole minute is run by hand, with 60 here.
const EDIT_S: u64 = 20;
/// One of so many edits overwrites the title, too, on which agents disagree.
const TITLED_ONE_IN: u64 = 8;
/// Versions before the newest that are read back: fewer than the host keeps.
const READ_BACK: u64 = 100;
/// Milliseconds between two tries of a call that was not answered.
const PAUSE_MS: u64 = 20;
/// Tries of one call: those of two minutes.
const TRIES: u64 = 120_000 / PAUSE_MS;
/// What the agents' choices follow from.
const SEED: u64 = 0x5eed_c0de;
/// The title that documents begin with.
const BEGUN: &str = "begun";

/// A xorshift generator (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn of(agent: usize) -> Self {
        Self((SEED + agent as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % limit
    }
}

/// An edit: it adds an entry of this name, and may make the name the title.
#[derive(Debug)]
struct Edit {
    by: String,
    key: String,
    mark: String,
    has_title: bool,
}

/// What one agent was told.
#[derive(Default)]
struct Told {
    /// Edits that were accepted, and the versions they became.
    accepted: Vec<(Edit, u64)>,
    /// Edits that met a conflict, and its id.
    conflicts: Vec<(Edit, String)>,
    /// Edits from a version that the host does not keep any more.
    outdated: usize,
    /// Tries that had no answer.
    repeated: usize,
}

impl Told {
    fn add(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        self.conflicts.extend(other.conflicts);
        self.outdated += other.outdated;
        self.repeated += other.repeated;
    }

    /// Calls until the host says something: a result, or a refusal with its code. What its death left open is asked again, with the
    /// same idempotency key.
    async fn insist(&mut self, agent: &Agent, tool: &str, arguments: Value) -> Result<Value, (String, Value)> {
        for _ in 0..TRIES {
            match agent.client.call(tool, arguments.clone()).await {
                Ok(answer) => return Ok(answer["result"].clone()),
                Err(CallError::Transport(_)) => {}
                Err(CallError::Refused { status: 503, .. }) => {}
                Err(CallError::Tool { code, .. }) if code == "unavailable" || code == "contended" => {}
                Err(CallError::Tool { code, result, .. }) => return Err((code, result)),
                Err(refused @ CallError::Refused { .. }) => panic!("{}: {tool}: {refused}", agent.name),
            }
            self.repeated += 1;
            tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
        }
        panic!("{}: {tool} was not answered", agent.name);
    }
}

#[derive(Default)]
struct Progress {
    accepted: AtomicUsize,
    is_over: AtomicBool,
}

/// Edits one document after another: reads it, adds to it, writes it from the version that was read.
async fn edit(agent: Agent, mut dice: Dice, progress: Arc<Progress>) -> Told {
    let (mut told, mut number) = (Told::default(), 0);
    while !progress.is_over.load(Ordering::Relaxed) {
        number += 1;
        let (key, mark) = (format!("doc-{}", dice.below(DOCUMENTS)), format!("{}-{number}", agent.name));
        let has_title = dice.below(TITLED_ONE_IN) == 0;
        let read = told.insist(&agent, "lookup", json!({"uri": format!("context/{key}")})).await.expect("the document is there");
        let mut value = read["value"].clone();
        assert!(value["entries"].is_object(), "{key} is read whole: {read}");
        value["entries"][&mark] = number.into();
        if has_title {
            value["title"] = mark.as_str().into();
        }
        let write = json!({"key": key, "base_version": read["version"], "value": value, "idempotency_key": mark});
        let edit = Edit { by: agent.name.clone(), key, mark, has_title };
        match told.insist(&agent, "write_context", write).await {
            Ok(answer) => {
                let version = answer["version"].as_u64().unwrap_or_else(|| panic!("{edit:?} was accepted without a version: {answer}"));
                told.accepted.push((edit, version));
                progress.accepted.fetch_add(1, Ordering::Relaxed);
            }
            Err((code, result)) if code == "conflict" => {
                assert!(edit.has_title, "an entry of one's own is in nobody's way: {edit:?} {result}");
                told.conflicts.push((edit, text(&result["data"]["conflict"])));
            }
            Err((code, _)) if code == "unknown_base" => told.outdated += 1,
            Err((code, result)) => panic!("{edit:?}: {code}: {result}"),
        }
    }
    told
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Returns the whole log.
async fn log(agent: &Agent) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = agent.call("lookup", json!({"uri": format!("events{after}")})).await;
        let page = page.as_array().cloned().unwrap_or_default();
        let Some(last) = page.last() else { return all };
        after = format!("/{}.{}", last["cursor"]["epoch"], last["cursor"]["seq"]);
        all.extend(page);
    }
}

/// The writes of a document as the log has them.
#[derive(Default)]
struct History {
    newest: u64,
    /// The version that each write became, who wrote it, and what it was made from.
    writes: BTreeMap<u64, (String, Vec<u64>)>,
}

impl History {
    /// Adds a write, which has to follow the last one without a gap: a merge makes two versions, the writer's own and the merged one.
    fn add(&mut self, event: &Value) {
        let data = &event["data"];
        let version = data["version"].as_u64().unwrap_or(0);
        let parents: Vec<u64> = data["parents"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let newest = self.newest;
        let follows = match parents.as_slice() {
            [] => newest == 0 && version == 1,
            [parent] => *parent == newest && version == newest + 1,
            [ours, side] => *ours == newest && *side == newest + 1 && version == newest + 2,
            _ => false,
        };
        assert!(follows, "version {version} of {parents:?} follows version {newest}: {event}");
        self.newest = version;
        self.writes.insert(version, (text(&event["actor"]["name"]), parents));
    }

    fn merges(&self) -> usize {
        self.writes.values().filter(|(_, parents)| parents.len() == 2).count()
    }
}

/// Returns the history of each document.
fn histories(log: &[Value]) -> BTreeMap<String, History> {
    let mut histories: BTreeMap<String, History> = BTreeMap::new();
    for event in log.iter().filter(|event| event["type"] == "context.written") {
        if let Some(key) = text(&event["subject"]).strip_prefix("ctx:").filter(|key| key.starts_with("doc-")) {
            histories.entry(key.to_owned()).or_default().add(event);
        }
    }
    histories
}

/// Counts what was accepted: each write is in the log once, each entry in its document, and no others.
async fn settle_accepted(agent: &Agent, told: &Told, histories: &BTreeMap<String, History>) {
    let written: usize = histories.values().map(|history| history.writes.len()).sum();
    assert_eq!(written - histories.len(), told.accepted.len(), "each write that was accepted was done once, and no other");
    for (edit, version) in &told.accepted {
        let write = histories[&edit.key].writes.get(version);
        assert_eq!(write.map(|(by, _)| by), Some(&edit.by), "{edit:?} became version {version}");
    }
    for (key, history) in histories {
        let found = agent.call("lookup", json!({"uri": format!("context/{key}")})).await;
        assert_eq!(found["version"], history.newest, "{key}: the log ends with the newest version");
        let own = || told.accepted.iter().filter(|(edit, _)| edit.key == *key);
        let entries: BTreeSet<&str> = found["value"]["entries"].as_object().expect("entries").keys().map(String::as_str).collect();
        let accepted: BTreeSet<&str> = own().map(|(edit, _)| edit.mark.as_str()).collect();
        let lost: Vec<_> = accepted.difference(&entries).collect();
        let strange: Vec<_> = entries.difference(&accepted).collect();
        assert!(lost.is_empty() && strange.is_empty(), "{key}: lost {lost:?}, never accepted {strange:?}");
        let last = own().filter(|(edit, _)| edit.has_title).max_by_key(|(_, version)| *version);
        assert_eq!(found["value"]["title"], last.map_or(BEGUN, |(edit, _)| edit.mark.as_str()), "{key}: the last title that was accepted");
    }
}

/// Reads back versions with a title of their own, and of a merge the writer's side; returns how many.
async fn settle_titles(agent: &Agent, told: &Told, histories: &BTreeMap<String, History>) -> usize {
    let mut read = 0;
    for (edit, version) in told.accepted.iter().filter(|(edit, _)| edit.has_title) {
        let history = &histories[&edit.key];
        if version + READ_BACK <= history.newest {
            continue;
        }
        let sides = history.writes[version].1.iter().skip(1);
        for version in sides.chain([version]) {
            let found = agent.call("lookup", json!({"uri": format!("context/{}@{version}", edit.key)})).await;
            assert_eq!((&found["version"], &found["value"]["title"]), (&json!(version), &json!(edit.mark)), "{edit:?}");
            assert!(found["value"]["entries"][&edit.mark].is_u64(), "{edit:?}: {found}");
            read += 1;
        }
    }
    read
}

/// Sees that each conflict that was told is on record, with all that its writer wanted to write.
async fn settle_conflicts(agent: &Agent, told: &Told) {
    let ids: BTreeSet<&str> = told.conflicts.iter().map(|(_, id)| id.as_str()).collect();
    assert_eq!(ids.len(), told.conflicts.len(), "each has an id of its own");
    for (edit, id) in &told.conflicts {
        let record = agent.call("lookup", json!({"uri": format!("context_conflict/{id}")})).await;
        assert_eq!(record["key"], edit.key.as_str(), "{edit:?}: {record}");
        // As a value, or as the text of one.
        let theirs = match &record["theirs"] {
            Value::String(written) => serde_json::from_str(written).unwrap_or_default(),
            value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => value.clone(),
        };
        assert_eq!(theirs["title"], edit.mark.as_str(), "{edit:?}: {record}");
        assert!(theirs["entries"][&edit.mark].is_u64(), "{edit:?}: {record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_agents_edit_ten_documents_while_the_host_is_killed_twice() {
    println!("seed {SEED:#x}");
    let mut host = Host::start().await;
    let progress = Arc::new(Progress::default());
    let lead = host.agent("lead", &[]).await;
    for n in 0..DOCUMENTS {
        let begun = json!({"title": BEGUN, "entries": {}});
        lead.call("write_context", json!({"key": format!("doc-{n}"), "base_version": 0, "value": begun})).await;
    }
    let mut agents = Vec::new();
    for n in 0..AGENTS {
        agents.push((host.agent(&format!("agent-{n}"), &[]).await, Dice::of(n)));
    }
    let mut editing = JoinSet::new();
    for (agent, dice) in agents {
        editing.spawn(edit(agent, dice, Arc::clone(&progress)));
    }
    for phase in 0..=KILLS {
        let goal = progress.accepted.load(Ordering::Relaxed) + AGENTS;
        // How long they edit; whether they got anywhere is looked at after it.
        tokio::time::sleep(Duration::from_millis(EDIT_S * 1_000 / (KILLS + 1))).await;
        host.eventually("edits are accepted", || async { progress.accepted.load(Ordering::Relaxed) >= goal }).await;
        if phase < KILLS {
            host.kill().await;
            host.restart().await;
        }
    }
    progress.is_over.store(true, Ordering::Relaxed);
    let ending = async {
        let mut told = Told::default();
        while let Some(ended) = editing.join_next().await {
            told.add(ended.expect("nobody was told what cannot be"));
        }
        told
    };
    let told = tokio::time::timeout(Duration::from_secs(DEADLINE_S), ending).await.expect("every call is answered in time");

    let histories = histories(&log(&lead).await);
    assert_eq!(histories.len() as u64, DOCUMENTS);
    let merges: usize = histories.values().map(History::merges).sum();
    settle_accepted(&lead, &told, &histories).await;
    let read = settle_titles(&lead, &told, &histories).await;
    settle_conflicts(&lead, &told).await;
    println!(
        "kills {KILLS}, accepted {}, merged {merges}, conflicts {}, from versions no longer kept {}, versions read back {read}, tries without an answer {}",
        told.accepted.len(),
        told.conflicts.len(),
        told.outdated,
        told.repeated,
    );
    assert!(merges > 0 && !told.conflicts.is_empty() && read > 0, "agents were in each other's way");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_works_on_is_a_document_and_a_task_brings_what_to_know() {
    let host = Host::start().await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let decided = json!({"key": "decisions/parser", "base_version": 0, "text": "The parser is written by hand."});
    ben.call("write_context", decided).await;
    let first = text(&ben.call("create_task", json!({"title": "Write the parser", "paths": ["src/parser/**"]})).await["task"]);
    let next = json!({"title": "Fuzz the parser", "paths": ["fuzz/**"], "depends_on": [first]});
    let second = text(&ben.call("create_task", next).await["task"]);
    ben.call(
        "send_message",
        json!({"to": ["agent:ana"], "subject": "About the parser", "body": "Mind the tabs.", "paths": ["src/parser/lex.rs"]}),
    )
    .await;
    // The index of messages is made when it is first asked.
    let found = || ben.call("lookup", json!({"uri": "messages?path=src/parser"}));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(DEADLINE_S);
    while found().await["messages"].as_array().is_none_or(Vec::is_empty) {
        assert!(tokio::time::Instant::now() < deadline, "the message is not found");
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
    }
    let claimed = ana.call("claim_task", json!({"task": first})).await;
    let pack = &claimed["context"];
    assert_eq!(pack["decisions"][0]["says"], "The parser is written by hand.", "{pack}");
    assert_eq!((&pack["tasks"][0]["task"], &pack["tasks"][0]["how"]), (&json!(second), &json!("it waits for this")), "{pack}");
    assert_eq!(pack["threads"][0]["subject"], "About the parser", "{pack}");
    assert!(pack.to_string().len() <= 1_500, "{} bytes", pack.to_string().len());
    let small = ana.call("lookup", json!({"uri": format!("pack/{first}?bytes=300")})).await;
    assert!(small.to_string().len() <= 300 && small["left_out"].as_u64().is_some_and(|left| left > 0), "{small}");

    // Its own words beside the host's, however often the host writes its part.
    let own = ben.call("lookup", json!({"uri": "context/agents/ana"})).await;
    assert_eq!((&own["value"]["working"]["tasks"][0]["task"], &own["author"]["name"]), (&json!(first), &json!("host")), "{own}");
    let note = json!({"key": "agents/ana", "base_version": own["version"], "patch": [{"op": "add", "path": "/notes", "value": "tabs count as one"}]});
    ana.call("write_context", note.clone()).await;
    assert_eq!(ben.refused("write_context", note).await, "forbidden");
    ana.call("update_task", json!({"task": first, "progress": 40, "note": "lexer done"})).await;
    let own = ben.call("lookup", json!({"uri": "context/agents/ana"})).await["value"].clone();
    assert_eq!((&own["notes"], &own["working"]["tasks"][0]["progress"]), (&json!("tabs count as one"), &json!(40)), "{own}");
    ana.call("update_task", json!({"task": first, "release": true})).await;
    let own = ben.call("lookup", json!({"uri": "context/agents/ana"})).await["value"].clone();
    assert_eq!((&own["notes"], &own["working"]["tasks"]), (&json!("tabs count as one"), &json!([])), "{own}");
    let begun = ben.call("start", json!({"name": "ben"})).await;
    assert_eq!(begun["context"]["decisions"][0]["key"], "decisions/parser", "{begun}");
}
