//! What an answer is worth when the host is killed under load again and again, and when its disk is full: everything that agents were
//! told is counted at the end, against what they saw and against the log.

#![expect(clippy::panic, reason = "an agent under test that cannot go on says so and ends")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pointsman_tests::{Agent, CallError, Host};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Times the host is killed.
const KILLS: usize = 20;
const SENDERS: usize = 4;
const RECEIVERS: usize = 3;
const CLAIMERS: usize = 3;
/// Tasks, fewer than those who want one.
const TASKS: usize = 2;
/// Milliseconds between two tries of a call that was not answered.
const PAUSE_MS: u64 = 20;
/// Tries of one call: those of two minutes.
const TRIES: u64 = 120_000 / PAUSE_MS;
/// Every so many messages to one agent, one is given back once.
const NACKED_EVERY: u64 = 7;
/// What receivers can do.
const SKILL: &str = "work";

/// A fencing token: epoch and number.
type Token = (u64, u64);

/// What the agents were told.
#[derive(Default)]
struct Ledger {
    /// The message that was answered to each idempotency key.
    answered: Mutex<BTreeMap<String, String>>,
    /// How often each message was handed out, by its sender's key.
    seen: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
    /// Messages whose ack was answered.
    acked: Mutex<BTreeSet<String>>,
    /// Who was granted a task with which token.
    grants: Mutex<BTreeMap<(String, Token), String>>,
    /// Tries that had no answer.
    repeated: AtomicU64,
    nacked: AtomicU64,
    is_sent: AtomicBool,
    is_over: AtomicBool,
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    fn all_answered_are_acked(&self) -> bool {
        let acked = lock(&self.acked);
        lock(&self.answered).values().all(|message| acked.contains(message))
    }

    /// Calls until the host says something: a result, or the code of a refusal. What its death left open is asked again.
    async fn insist(&self, agent: &Agent, tool: &str, arguments: Value) -> Result<Value, String> {
        for _ in 0..TRIES {
            match agent.client.call(tool, arguments.clone()).await {
                Ok(answer) => return Ok(answer["result"].clone()),
                Err(error) if is_unavailable(&error) => {}
                Err(CallError::Transport(_)) => {}
                Err(CallError::Tool { code, .. }) => return Err(code),
                Err(refused @ CallError::Refused { .. }) => panic!("{}: {tool}: {refused}", agent.name),
            }
            self.repeated.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
        }
        panic!("{}: {tool} was not answered", agent.name);
    }
}

/// Returns whether an error says by name that the host cannot store anything now, and what to do.
fn is_unavailable(error: &CallError) -> bool {
    match error {
        CallError::Tool { code, why, advice, .. } => code == "unavailable" && !why.is_empty() && !advice.is_empty(),
        CallError::Refused { status, data, .. } => *status == 503 && data["code"] == "unavailable" && data["do"].is_string(),
        CallError::Transport(_) => false,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn token(value: &Value) -> Token {
    let parsed = value.as_str().and_then(|text| text.split_once('.')).map(|(epoch, n)| (epoch.parse(), n.parse()));
    let Some((Ok(epoch), Ok(n))) = parsed else { panic!("{value} is no token") };
    (epoch, n)
}

/// Sends one message after another, each until it is answered.
async fn send(sender: Agent, ledger: Arc<Ledger>) {
    for n in 0.. {
        if ledger.is_sent.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("{}-{n}", sender.name);
        let to = if n % 4 == 3 { SKILL.to_owned() } else { format!("agent:receiver-{}", n % RECEIVERS) };
        let message = json!({"to": [to], "kind": "request", "subject": key, "body": {"n": n}, "idempotency_key": key});
        match ledger.insist(&sender, "send_message", message).await {
            Ok(sent) => lock(&ledger.answered).insert(key, text(&sent["message"])),
            Err(code) => panic!("{key}: {code}"),
        };
    }
}

/// Takes what comes, gives some of it back once, acks the rest with the next wait. Whoever lost an answer starts again: what it held
/// comes again.
async fn receive(receiver: Agent, ledger: Arc<Ledger>) {
    let (mut ack, mut nack) = (BTreeSet::new(), BTreeMap::new());
    while !ledger.is_over.load(Ordering::Relaxed) {
        let nacks: Vec<Value> = nack.values().cloned().collect();
        let Ok(answer) = receiver.client.call("wait_for_events", json!({"ack": ack, "nack": nacks, "max_s": 1})).await else {
            let again = json!({"name": receiver.name, "capabilities": [SKILL]});
            ledger.insist(&receiver, "start", again).await.expect("it may start");
            continue;
        };
        let result = &answer["result"];
        let listed = |name: &str| result[name].as_array().cloned().unwrap_or_default();
        let unsettled: BTreeSet<String> = listed("not_settled").iter().map(|one| text(&one["message"])).collect();
        lock(&ledger.acked).extend(std::mem::take(&mut ack).into_iter().filter(|id| !unsettled.contains(id)));
        ledger.nacked.fetch_add(u64::try_from(nack.len()).unwrap_or(0), Ordering::Relaxed);
        nack.clear();
        for message in listed("messages") {
            let (id, key, n) = (text(&message["id"]), text(&message["subject"]), message["body"]["n"].as_u64().expect("its number"));
            *lock(&ledger.seen).entry(key).or_default().entry(id.clone()).or_default() += 1;
            if message["attempt"] == 1 && n % 4 != 3 && n % NACKED_EVERY == 0 {
                nack.insert(id.clone(), json!({"message": id, "reason": "not now", "delay_s": 0}));
            } else {
                ack.insert(id);
            }
        }
    }
}

/// Claims one task after another, and gives each back.
async fn claim(claimer: Agent, tasks: Vec<String>, ledger: Arc<Ledger>) {
    for task in tasks.iter().cycle() {
        if ledger.is_sent.load(Ordering::Relaxed) {
            return;
        }
        match ledger.insist(&claimer, "claim_task", json!({"task": task})).await {
            Ok(claimed) => {
                let grant = (task.clone(), token(&claimed["token"]));
                let before = lock(&ledger.grants).insert(grant, claimer.name.clone());
                assert!(before.as_ref().is_none_or(|holder| *holder == claimer.name), "{task} was granted twice: {before:?} {claimed}");
            }
            Err(code) => {
                assert_eq!(code, "held", "{task}");
                continue;
            }
        }
        let progress = ledger.insist(&claimer, "update_task", json!({"task": task, "progress": 50})).await;
        assert!(progress.is_ok(), "who holds {task} may report: {progress:?}");
        // A release whose answer was lost is refused when it is repeated: the task is not held any more.
        let released = ledger.insist(&claimer, "update_task", json!({"task": task, "release": true})).await;
        assert!(released.as_ref().map_or_else(|code| code == "not_holder", |_| true), "{released:?}");
    }
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

/// Counts messages: what was answered against what was seen and what the log says.
fn settle(ledger: &Ledger, log: &[Value]) {
    let of = |kind: &'static str| log.iter().filter(move |event| event["type"] == kind);
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in of("message.sent") {
        sent.entry(text(&event["data"]["subject"])).or_default().push(text(&event["subject"]));
    }
    let mut acks: BTreeMap<String, usize> = BTreeMap::new();
    for event in of("message.acked") {
        *acks.entry(text(&event["subject"])).or_default() += 1;
    }
    let (answered, seen) = (lock(&ledger.answered), lock(&ledger.seen));
    let lost: Vec<_> = answered.iter().filter(|(key, id)| !acks.contains_key(*id) || !seen.contains_key(*key)).collect();
    let doubled: Vec<_> = sent.iter().filter(|(_, ids)| ids.len() > 1).collect();
    let acked_twice: Vec<_> = acks.iter().filter(|(_, times)| **times > 1).collect();
    let handed_out_again = seen.values().flat_map(BTreeMap::values).filter(|times| **times > 1).count();
    println!(
        "kills {KILLS}, answered {}, delivered {}, acked {}, lost {}, duplicated {}; tries without an answer {}, given back {}, handed out again {}",
        answered.len(),
        seen.len(),
        acks.len(),
        lost.len(),
        doubled.len() + acked_twice.len(),
        ledger.repeated.load(Ordering::Relaxed),
        ledger.nacked.load(Ordering::Relaxed),
        handed_out_again,
    );
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(doubled.is_empty() && acked_twice.is_empty(), "twice: {doubled:?} {acked_twice:?}");
    assert!(of("message.dead_lettered").next().is_none(), "no message was given up");
    assert_eq!(acks.len(), answered.len(), "nothing was acked that was not answered");
    for (key, id) in answered.iter() {
        assert_eq!(sent.get(key), Some(&vec![id.clone()]), "{key}: what was answered is what was sent");
        assert!(seen[key].keys().eq([id]), "{key}: what was answered is what was seen: {:?}", seen[key]);
    }
}

/// Counts claims: one holder at a time, each grant with a token higher than all before it, each agent told what the log says.
fn settle_claims(ledger: &Ledger, log: &[Value]) {
    let mut holders: BTreeMap<String, (String, Token)> = BTreeMap::new();
    let mut granted: BTreeMap<(String, Token), String> = BTreeMap::new();
    let (mut twice, mut by_others) = (Vec::new(), Vec::new());
    for event in log {
        let (task, actor) = (text(&event["subject"]), text(&event["actor"]["name"]));
        let is_holder = holders.get(&task).is_some_and(|(holder, _)| *holder == actor);
        match event["type"].as_str().unwrap_or_default() {
            "task.claimed" => {
                let token = token(&event["data"]["token"]);
                let is_highest = granted.keys().filter(|(known, _)| *known == task).all(|(_, before)| *before < token);
                let held = holders.insert(task.clone(), (actor.clone(), token));
                if held.is_some() || !is_highest {
                    twice.push(format!("{task} to {actor} with {token:?} while {held:?} held it"));
                }
                granted.insert((task, token), actor);
            }
            "task.renewed" | "task.progressed" | "task.released" if !is_holder => by_others.push(event),
            "task.released" => drop(holders.remove(&task)),
            _ => {}
        }
    }
    let told = lock(&ledger.grants);
    println!("claims granted {}, answered {}, granted twice {}", granted.len(), told.len(), twice.len());
    assert!(twice.is_empty() && by_others.is_empty(), "granted twice: {twice:?}; by who does not hold it: {by_others:?}");
    assert!(told.len() > TASKS, "they took turns");
    for (grant, name) in told.iter() {
        assert_eq!(granted.get(grant), Some(name), "{grant:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_under_load_lose_nothing_and_do_nothing_twice() {
    let mut host = Host::start().await;
    let ledger = Arc::new(Ledger::default());
    let lead = host.agent("lead", &[]).await;
    let (mut working, mut receiving) = (JoinSet::new(), JoinSet::new());
    for n in 0..RECEIVERS {
        receiving.spawn(receive(host.agent(&format!("receiver-{n}"), &[SKILL]).await, Arc::clone(&ledger)));
    }
    let mut tasks = Vec::new();
    for n in 0..TASKS {
        let task = lead.call("create_task", json!({"title": format!("Part {n}"), "paths": [format!("part-{n}/**")]})).await;
        tasks.push(text(&task["task"]));
    }
    for n in 0..CLAIMERS {
        working.spawn(claim(host.agent(&format!("claimer-{n}"), &[]).await, tasks.clone(), Arc::clone(&ledger)));
    }
    for n in 0..SENDERS {
        working.spawn(send(host.agent(&format!("sender-{n}"), &[]).await, Arc::clone(&ledger)));
    }
    for kill in 0..KILLS {
        let goal = lock(&ledger.answered).len() + 12 + kill * 7 % 23;
        host.eventually("messages are answered", || async { lock(&ledger.answered).len() >= goal }).await;
        host.kill().await;
        host.restart().await;
    }
    ledger.is_sent.store(true, Ordering::Relaxed);
    while let Some(ended) = working.join_next().await {
        ended.expect("nobody was told what cannot be");
    }
    host.eventually("everything is acked", || async { ledger.all_answered_are_acked() }).await;
    ledger.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = receiving.join_next().await {
        ended.expect("nobody was told what cannot be");
    }
    let log = log(&lead).await;
    settle(&ledger, &log);
    settle_claims(&ledger, &log);
}

/// Times the disk is full.
const FULL: u64 = 3;
/// Bytes that files may grow by until it is.
const ROOM_BYTES: u64 = 192 << 10;
/// Bytes of a message on the full disk.
const BODY_BYTES: usize = 8 << 10;
/// Messages of which one has to be too much.
const TOO_MANY: u64 = 1_000;

/// Returns the size of the largest file below a folder.
fn largest(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder").filter_map(Result::ok);
    let sizes = entries.map(|entry| match entry.metadata().expect("it is there") {
        folder if folder.is_dir() => largest(&entry.path()),
        file => file.len(),
    });
    sizes.max().unwrap_or(0)
}

#[tokio::test]
async fn a_full_disk_is_told_by_name_and_what_was_answered_stays() {
    let mut host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let ben = host.agent("ben", &[]).await;
    let message = |key: &str| json!({"to": ["agent:ben"], "subject": key, "body": "x".repeat(BODY_BYTES), "idempotency_key": key});
    let mut answered = BTreeMap::new();
    for round in 0..FULL {
        // A limit on the size of files stands for the full disk; the signal that comes with it is ignored. It counts blocks of 512 bytes.
        let blocks = (largest(&host.folder().join("data/store")) + ROOM_BYTES) / 512;
        host.restart_within(&format!("trap '' XFSZ; ulimit -f {blocks}")).await;
        let (mut open, before) = (None, answered.len());
        for n in 0..TOO_MANY {
            let key = format!("{round}-{n}");
            match ana.client.call("send_message", message(&key)).await {
                Ok(sent) => answered.insert(key, text(&sent["result"]["message"])),
                Err(error) => {
                    assert!(is_unavailable(&error), "{error}");
                    open = Some(key);
                    break;
                }
            };
        }
        let open = open.expect("the disk was full at last");
        assert!(answered.len() > before, "there was room for something");
        // Nothing is answered from memory now, and whoever watches the host is told.
        for (tool, arguments) in [
            ("send_message", message("another")),
            ("wait_for_events", json!({"max_s": 0})),
            ("create_task", json!({"title": "More"})),
            ("lookup", json!({"uri": "tasks"})),
        ] {
            let refused = ben.client.call(tool, arguments).await.expect_err("there is no store to answer from");
            assert!(is_unavailable(&refused), "{tool}: {refused}");
        }
        let (status, why) = pointsman_client::get(&format!("{}/readyz", host.url())).await.expect("the host is there");
        assert_eq!(status, 503, "{why:?}");

        // With room again, the host that is started anew goes on, and what was open is sent once.
        host.restart().await;
        let sent = ana.call("send_message", message(&open)).await;
        answered.insert(open, text(&sent["message"]));
    }
    let mail = ben.drain().await;
    let delivered: BTreeMap<String, String> = mail.iter().map(|message| (text(&message["subject"]), text(&message["id"]))).collect();
    println!("full {FULL} times, answered {}, delivered {}", answered.len(), mail.len());
    assert_eq!(delivered, answered);
    assert_eq!(mail.len(), answered.len(), "each once");
}
