//! Several hosts on one Redis: any of them serves any call; a project's repository is at one of them, and goes to another when that dies.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pointsman_tests::{Agent, DEADLINE_S, Host, Redis, Relay, Setup, free_port, git, pointsman, try_git};
use serde_json::{Value, json};

/// Seconds in which another host takes over: the lease of the one that died, the grace it has to come back, and a look.
const TAKEOVER_S: u64 = 60;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Returns a host on a Redis, with repositories of its own or in a folder that others see, too.
async fn host_on(redis: &Redis, repositories: Option<&Path>) -> Host {
    let shared = repositories.map(|folder| format!("[git]\nrepositories = {}\n", json!(folder)));
    Host::start_with(Setup { config: redis.config() + &shared.unwrap_or_default() }).await
}

/// Returns the hosts as one of them sees them.
fn hosts(host: &Host) -> Vec<Value> {
    let out = host.command(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    status["hosts"].as_array().cloned().unwrap_or_default()
}

/// Returns whether a host says that the project's repository is at it.
fn is_home(host: &Host) -> bool {
    hosts(host).iter().any(|one| one["is_this"] == true && one["projects"] == 1)
}

fn the_repository_in(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder).expect("repositories").filter_map(Result::ok);
    let repository = entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "git"));
    repository.expect("the project's repository")
}

/// Makes a task of one file, claims it, commits the file, submits it.
async fn submit(agent: &Agent, file: &str) -> String {
    let task = text(&agent.call("create_task", json!({"title": file, "paths": [file]})).await["task"]);
    agent.call("claim_task", json!({"task": task})).await;
    agent.call("commit_files", json!({"task": task, "files": [{"path": file, "content": "here\n"}]})).await;
    agent.call("submit_branch", json!({"task": task})).await;
    task
}

/// Waits for a message of one of these kinds as long as a takeover may take.
#[expect(clippy::panic, reason = "how a test ends that waited in vain")]
async fn mail_within(agent: &Agent, kinds: &[&str], seconds: u64) -> Value {
    let mut done: Vec<String> = Vec::new();
    for _ in 0..seconds {
        let answer = agent.client.call("wait_for_events", json!({"ack": done, "max_s": 1})).await;
        let Ok(answer) = answer else { continue };
        let mail = answer["result"]["messages"].as_array().cloned().unwrap_or_default();
        done = mail.iter().map(|message| text(&message["id"])).collect();
        if let Some(found) = mail.iter().find(|message| kinds.contains(&message["kind"].as_str().unwrap_or_default())) {
            agent.wait(&done, 0).await;
            return found.clone();
        }
    }
    panic!("{}: no message of kind {kinds:?} came within {seconds} s", agent.name);
}

fn signal(host: &Host, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &host.pid().to_string()]).status().expect("kill runs");
    assert!(sent.success(), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_at_one_host_is_done_where_the_repository_is() {
    let redis = Redis::start().await;
    let mut home = host_on(&redis, None).await;
    let other = host_on(&redis, None).await;
    assert!(is_home(&home) && !is_home(&other));
    assert_eq!(hosts(&other).iter().filter(|one| one["is_live"] == true).count(), 2, "{:?}", hosts(&other));

    let ana = other.agent("ana", &["rust"]).await;
    let dora = home.agent("dora", &["review"]).await;
    let task = text(&ana.call("create_task", json!({"title": "Mend", "paths": ["src/**", "notes.md"]})).await["task"]);
    let claimed = ana.call("claim_task", json!({"task": task})).await;
    let (url, branch) = (text(&claimed["git"]["url"]), text(&claimed["branch"]));
    assert!(url.contains(&other.url()["http://".len()..]), "git is reached where the agent is: {url}");
    let clone = other.folder().join("clone");
    git(other.folder(), &["clone", "-q", "--branch", &branch, &url, &clone.to_string_lossy()]);
    std::fs::write(clone.join("src/lib.rs"), "pub fn run() {}\n").expect("a file");
    git(&clone, &["commit", "-qam", "Edit"]);
    git(&clone, &["push", "-q", "origin", &format!("HEAD:refs/heads/{branch}")]);
    std::fs::write(clone.join("README.md"), "# Mine\n").expect("a file");
    git(&clone, &["commit", "-qam", "Stray"]);
    let stray = try_git(&clone, &["push", "origin", &format!("HEAD:refs/heads/{branch}")]);
    let said = String::from_utf8_lossy(&stray.stderr).into_owned();
    assert!(!stray.status.success() && said.contains("README.md"), "the home's hook speaks through the other host: {said}");

    ana.call("commit_files", json!({"task": task, "files": [{"path": "notes.md", "content": "noted\n"}]})).await;
    let refused = ana.refused("commit_files", json!({"task": task, "files": [{"path": "README.md", "content": "no\n"}]})).await;
    assert_eq!(refused, "not_leased", "the home's refusals keep their names");
    ana.call("submit_branch", json!({"task": task})).await;
    let review = dora.mail(&["review_request"]).await;
    dora.call("review_branch", json!({"task": task, "verdict": "approve", "head": review["body"]["head"]})).await;
    let landed = ana.mail(&["landed"]).await;
    assert_eq!(git(&home.repository(), &["show", "main:notes.md"]), "noted\n");
    let receipt = ana.call("lookup", json!({"uri": format!("receipt/{}", text(&landed["body"]["commit"]))})).await;
    assert_eq!(receipt["receipt"]["task"], task.as_str(), "{receipt}");
    let own = other.folder().join("data/repositories");
    let entries = std::fs::read_dir(own).expect("a folder").filter_map(Result::ok).map(|entry| entry.path());
    assert!(entries.into_iter().all(|path| !path.is_dir()), "nothing of the project is at the other host");

    // Without its home, all but git goes on, and git says when to come again.
    signal(&home, "-TERM");
    assert!(home.ended().await, "it drains");
    let next = text(&ana.call("create_task", json!({"title": "Later", "paths": ["later.txt"]})).await["task"]);
    assert_eq!(ana.refused("claim_task", json!({"task": next})).await, "unavailable");
    let sent = ana.call("send_message", json!({"to": ["agent:dora"], "subject": "still here"})).await;
    assert_eq!(sent["routed"][0]["agent"], "dora");
    home.restart().await;
    ana.call("claim_task", json!({"task": next})).await;
    assert_eq!(dora.mail(&["message"]).await["subject"], "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answer_was_lost_between_hosts_is_done_once() {
    let redis = Redis::start().await;
    let mut home = host_on(&redis, None).await;
    let relay = Relay::before(&home.url()).await;
    let file = home.folder().join("pointsman.toml");
    let config = std::fs::read_to_string(&file).expect("a configuration");
    let server = format!("[server]\nsibling_url = \"{}\"\n", relay.url());
    std::fs::write(&file, config.replace("[server]\n", &server)).expect("written");
    home.restart().await;
    let other = host_on(&redis, None).await;

    let (ana, ben) = (other.agent("ana", &[]).await, other.agent("ben", &[]).await);
    let dora = home.agent("dora", &["review"]).await;
    let task = async |agent: &Agent, title: &str| {
        let task = text(&agent.call("create_task", json!({"title": title, "shared_paths": ["src/lib.rs"]})).await["task"]);
        let claimed = agent.call("claim_task", json!({"task": task})).await;
        (task, text(&claimed["branch"]))
    };
    let ((first, _), (second, branch)) = (task(&ana, "one").await, task(&ben, "two").await);
    let edit = |task: &str, content: &str| json!({"task": task, "files": [{"path": "src/lib.rs", "content": content}], "idempotency_key": content.trim()});
    ana.call("commit_files", edit(&first, "one\n")).await;

    relay.lose(Some("MoveBranch"));
    assert_eq!(ben.refused("commit_files", edit(&second, "two\n")).await, "unavailable");
    relay.lose(None);
    let head = || git(&home.repository(), &["rev-parse", &branch]).trim().to_owned();
    let made = head();
    assert_eq!(ben.call("commit_files", edit(&second, "two\n")).await["commit"], made.as_str(), "the commit that was made");
    assert_eq!(head(), made);

    ana.call("submit_branch", json!({"task": first})).await;
    let review = dora.mail(&["review_request"]).await;
    dora.call("review_branch", json!({"task": first, "verdict": "approve", "head": review["body"]["head"]})).await;
    ana.mail(&["landed"]).await;
    ben.call("submit_branch", json!({"task": second})).await;
    ben.mail(&["conflict"]).await;
    let resolve = json!({"task": second, "files": [{"path": "src/lib.rs", "content": "both\n"}]});
    relay.lose(Some("MoveBranch"));
    assert_eq!(ben.refused("resolve_conflict", resolve.clone()).await, "unavailable");
    relay.lose(None);
    let made = head();
    ben.call("resolve_conflict", resolve).await;
    assert_eq!(head(), made, "it is resolved once");
    let review = dora.mail(&["review_request"]).await;
    dora.call("review_branch", json!({"task": second, "verdict": "approve", "head": review["body"]["head"]})).await;
    ben.mail(&["landed"]).await;
    assert_eq!(git(&home.repository(), &["show", "main:src/lib.rs"]), "both\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_killed_amid_a_landing_is_replaced_and_the_landing_is_whole() {
    const ROUNDS: u64 = 3;
    let redis = Redis::start().await;
    let folder = tempfile::tempdir().expect("a folder that all hosts see");
    let mut pair = [host_on(&redis, Some(folder.path())).await, host_on(&redis, Some(folder.path())).await];
    for round in 0..ROUNDS {
        let at = pair.iter().position(is_home).expect("one of them is the home");
        let (ana, dora) = (format!("ana-{round}"), format!("dora-{round}"));
        let (ana, dora) = (pair[1 - at].agent(&ana, &[]).await, pair[1 - at].agent(&dora, &["review"]).await);
        let file = format!("file-{round}.txt");
        let task = submit(&ana, &file).await;
        let asked = dora.mail(&["review_request"]).await;
        dora.call("review_branch", json!({"task": task, "verdict": "approve", "head": asked["body"]["head"]})).await;
        tokio::time::sleep(Duration::from_millis(round * 6)).await;
        pair[at].kill().await;
        let outcome = mail_within(&ana, &["landed", "conflict", "refused", "check_failed"], TAKEOVER_S).await;
        assert_eq!(outcome["kind"], "landed", "round {round}");
        pair[at].restart().await;
        assert_eq!(ana.call("lookup", json!({"uri": task})).await["state"], "landed");
    }
    let repository = the_repository_in(folder.path());
    git(&repository, &["fsck", "--full", "--no-dangling"]);
    let landings = git(&repository, &["log", "--first-parent", "--format=%s", "main"]).lines().count() as u64;
    assert_eq!(landings, ROUNDS + 1, "each landing once, on the first commit");
    let receipts = git(&repository, &["notes", "--ref=pointsman", "list"]);
    for commit in git(&repository, &["log", "--first-parent", "--merges", "--format=%H", "main"]).lines() {
        assert!(receipts.contains(commit), "{commit} has its receipt");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_was_frozen_finds_that_it_is_none_any_more() {
    let redis = Redis::start().await;
    let folder = tempfile::tempdir().expect("a folder that all hosts see");
    let (home, other) = (host_on(&redis, Some(folder.path())).await, host_on(&redis, Some(folder.path())).await);
    let (ana, ben) = (home.agent("ana", &[]).await, other.agent("ben", &[]).await);
    let held = text(&ana.call("create_task", json!({"title": "held", "paths": ["held.txt"]})).await["task"]);
    ana.call("claim_task", json!({"task": held})).await;
    signal(&home, "-STOP");
    tokio::time::timeout(Duration::from_secs(TAKEOVER_S), async {
        while !is_home(&other) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await
    .expect("the other one takes over");
    let task = text(&ben.call("create_task", json!({"title": "mine", "paths": ["mine.txt"]})).await["task"]);
    ben.call("claim_task", json!({"task": task})).await;
    signal(&home, "-CONT");
    // Its connections idled too long meanwhile: a call that only reads is repeated on a new one.
    ana.call("lookup", json!({"uri": held})).await;
    ana.call("commit_files", json!({"task": held, "files": [{"path": "held.txt", "content": "kept\n"}]})).await;
    ben.call("commit_files", json!({"task": task, "files": [{"path": "mine.txt", "content": "too\n"}]})).await;
    assert!(is_home(&other) && !is_home(&home), "it works through the one that took over");
    git(&the_repository_in(folder.path()), &["fsck", "--full", "--no-dangling"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_gone_keeps_nothing_else_from_going_on() {
    let redis = Redis::start().await;
    let mut host = host_on(&redis, None).await;
    let (ana, _ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let task = text(&ana.call("create_task", json!({"title": "mine", "paths": ["mine.txt"]})).await["task"]);
    host.kill().await;
    let (repository, aside) = (host.repository(), host.folder().join("aside"));
    std::fs::rename(&repository, &aside).expect("moved away");
    host.restart().await;
    assert_eq!(ana.refused("claim_task", json!({"task": task})).await, "unavailable");
    let sent = ana.call("send_message", json!({"to": ["agent:ben"], "subject": "still here"})).await;
    assert_eq!(sent["routed"][0]["agent"], "ben");
    std::fs::rename(&aside, &repository).expect("moved back");
    host.eventually("the repository", || async { ana.client.call("claim_task", json!({"task": task})).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_race_for_one_inbox_and_each_message_is_handled_once() {
    const MESSAGES: usize = 60;
    let redis = Redis::start().await;
    let (one, two) = (host_on(&redis, None).await, host_on(&redis, None).await);
    let sender = one.agent("ana", &[]).await;
    let here = one.agent("ben", &[]).await;
    let there = two.agent_with("ben", &here.token, &[]).await;
    let send = async {
        for n in 0..MESSAGES {
            let subject = n.to_string();
            sender.call("send_message", json!({"to": ["agent:ben"], "subject": subject, "idempotency_key": subject})).await;
        }
    };
    // Each acks what it was handed by its next call; what both ack counts for the one that held it.
    let work = async |agent: &Agent| {
        let (mut handled, mut done, mut idle) = (Vec::new(), Vec::new(), 0);
        while idle < 3 {
            let mail = agent.wait(&std::mem::take(&mut done), 1).await;
            idle = if mail.is_empty() { idle + 1 } else { 0 };
            done.extend(mail.iter().map(|message| text(&message["id"])));
            handled.extend(mail.iter().map(|message| text(&message["subject"])));
        }
        handled
    };
    let ((), first, second) = tokio::join!(send, work(&here), work(&there));
    let all: BTreeSet<String> = first.iter().chain(&second).cloned().collect();
    assert_eq!(all.len(), MESSAGES, "nothing is lost");
    assert_eq!(first.len() + second.len(), MESSAGES, "nothing is handed out twice: {} and {}", first.len(), second.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_added_at_one_host_is_asked_at_all() {
    let redis = Redis::start().await;
    let (one, two) = (host_on(&redis, None).await, host_on(&redis, None).await);
    let component = one.folder().join("mine.wasm");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/routing-rules.wasm");
    std::fs::copy(shipped, &component).expect("a component");
    let added = one.command(&["plugin", "add", "mine", &component.to_string_lossy(), "--json"]);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let digest_at = |host: &Host| {
        let listed: Value = serde_json::from_slice(&host.command(&["plugin", "list", "--json"]).stdout).unwrap_or_default();
        let all = listed.as_array().or_else(|| listed["plugins"].as_array()).cloned().unwrap_or_default();
        all.iter().find(|plugin| plugin["name"] == "mine").map(|plugin| plugin["digest"].clone())
    };
    let wanted = digest_at(&one);
    assert!(wanted.as_ref().is_some_and(|digest| digest.is_string()), "{wanted:?}");
    two.eventually("the plugin at the other host", || async { digest_at(&two) == wanted }).await;

    // Its file is gone, and a host that comes later never saw it: it gets the bytes from those that have them.
    std::fs::remove_file(&component).expect("removed");
    let three = host_on(&redis, None).await;
    assert_eq!(digest_at(&three), wanted);

    // Another version at one, pinned back at another, is the same at all.
    let second = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/routing-capability.wasm");
    std::fs::copy(second, &component).expect("a component");
    one.eventually("the new version where its file is", || async { digest_at(&one) != wanted }).await;
    let newer = digest_at(&one);
    for host in [&two, &three] {
        host.eventually("the new version", || async { digest_at(host) == newer }).await;
    }
    let held = wanted.as_ref().and_then(|digest| digest.as_str()).expect("a digest");
    assert!(two.command(&["plugin", "pin", "mine", held]).status.success());
    for host in [&one, &two, &three] {
        host.eventually("the pinned version", || async { digest_at(host) == wanted }).await;
    }
    assert!(three.command(&["plugin", "unpin", "mine"]).status.success());
    one.eventually("the newest version again", || async { digest_at(&one) == newer }).await;
    assert!(two.command(&["plugin", "remove", "mine"]).status.success());
    for host in [&one, &two, &three] {
        host.eventually("its removal", || async { digest_at(host).is_none() }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_other_keys_is_refused() {
    let redis = Redis::start().await;
    let _first = host_on(&redis, None).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pointsman.toml");
    let (port, data) = (free_port(), folder.path().join("data"));
    let config = format!("config_version = 1\n[server]\nbind = \"127.0.0.1:{port}\"\n[data]\ndir = {}\n{}", json!(data), redis.config());
    std::fs::write(&file, config).expect("a configuration");
    let up = tokio::process::Command::from(pointsman(&["up", "--config"]))
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let out = tokio::time::timeout(Duration::from_secs(DEADLINE_S), up).await.expect("it ends in time").expect("the binary runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("other_keys") && said.contains("root.key"), "{said}");
    assert!(!said.contains("panicked") && !said.contains("a plugin is loaded"), "nothing is begun before: {said}");
}
