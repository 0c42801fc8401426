//! Agents that sleep are woken: `pointsman watch`, the hooks of clients, and `pointsman why` for what comes late.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use pointsman_tests::{Agent, Client, DEADLINE_S, Era, Host, free_port, git, pointsman, seed};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A call of the command line on behalf of an agent, with a home folder of its own.
fn on_behalf(home: &Path, token: &str, args: &[&str]) -> Command {
    let mut command = Command::from(pointsman(args));
    command.env("POINTSMAN_TOKEN", token).env("HOME", home).env_remove("XDG_CACHE_HOME").kill_on_drop(true);
    command
}

async fn send(from: &Agent, to: &str, subject: &str) -> String {
    let sent = from.call("send_message", json!({"to": [to], "kind": "question", "subject": subject})).await;
    sent["message"].as_str().expect("an id").to_owned()
}

/// A watch whose lines are read.
struct Watch {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    notes: Lines<BufReader<ChildStderr>>,
}

impl Watch {
    fn start(host: &Host, token: &str, args: &[&str]) -> Self {
        let url = host.url();
        let args = [&["watch", "--url", &url][..], args].concat();
        let mut command = on_behalf(host.folder(), token, &args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("piped")).lines();
        let notes = BufReader::new(child.stderr.take().expect("piped")).lines();
        Self { child, out, notes }
    }

    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(DEADLINE_S), self.out.next_line()).await;
        let line = line.expect("it says something in time").expect("text").expect("it goes on");
        serde_json::from_str(&line).expect("a line of JSON")
    }

    async fn note(&mut self, about: &str) -> String {
        loop {
            let line = tokio::time::timeout(Duration::from_secs(DEADLINE_S), self.notes.next_line()).await;
            let line = line.expect("it notes something in time").expect("text").expect("it goes on");
            if line.contains(about) {
                return line;
            }
        }
    }

    async fn ended(&mut self) -> Option<i32> {
        let status = tokio::time::timeout(Duration::from_secs(DEADLINE_S), self.child.wait()).await;
        status.expect("it ends in time").expect("a status").code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_runs_its_command_once_a_burst_and_takes_nothing() {
    let host = Host::start().await;
    let (ana, bo) = (host.agent("ana", &[]).await, host.agent("bo", &[]).await);
    for n in 0..3 {
        send(&ana, "agent:bo", &format!("before {n}")).await;
    }
    let told = host.folder().join("told");
    let command = "echo begin >> \"$OUT\"; cat >> \"$OUT\"; echo \"$POINTSMAN_WATCH_AGENT $POINTSMAN_WATCH_UNREAD\" >> \"$OUT\"; \
                   sleep 0.3; echo end >> \"$OUT\"";
    let url = host.url();
    let mut watching = on_behalf(host.folder(), &bo.token, &["watch", "--url", &url, "--settle", "1500", "--exec", command]);
    let _watching = watching.env("OUT", &told).spawn().expect("it starts");
    host.eventually("the first run", || async { lines(&told).len() == 4 }).await;
    let first: Value = serde_json::from_str(&lines(&told)[1]).expect("a line of JSON");
    assert_eq!((&first["agent"], &first["unread"]), (&json!("bo"), &json!(3)));
    assert_eq!(first["messages"][0]["subject"], "before 0");
    assert!(
        first["messages"][0]["body"].is_null() && first["says"].as_str().is_some_and(|says| says.contains("3 messages wait")),
        "{first}"
    );
    assert_eq!((lines(&told)[0].as_str(), lines(&told)[2].as_str(), lines(&told)[3].as_str()), ("begin", "bo 3", "end"));

    tokio::join!(send(&ana, "agent:bo", "x"), send(&ana, "agent:bo", "y"), send(&ana, "agent:bo", "z"));
    host.eventually("the run for the burst", || async { lines(&told).len() >= 8 }).await;
    assert_eq!((lines(&told).len(), lines(&told)[6].as_str()), (8, "bo 6"), "one run for the burst");
    let mail = bo.drain().await;
    assert_eq!(mail.len(), 6, "all of it is there for bo to take");
    assert!(mail.iter().all(|message| message["attempt"] == 1), "{mail:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_the_host() {
    let mut host = Host::start().await;
    let (ana, bo) = (host.agent("ana", &["review"]).await, host.agent("bo", &[]).await);
    let mut watch = Watch::start(&host, &bo.token, &[]);
    send(&ana, "agent:bo", "one").await;
    assert_eq!(watch.next().await["unread"], 1);
    host.kill().await;
    watch.note("it is tried again").await;
    host.restart().await;
    watch.note("it goes on").await;
    send(&ana, "agent:bo", "two").await;
    let line = watch.next().await;
    assert_eq!((&line["unread"], &line["messages"][1]["subject"]), (&json!(2), &json!("two")));
    // What concerns its tasks wakes it, too.
    let task = bo.call("create_task", json!({"title": "Lay rails", "paths": ["rails/**"]})).await["task"].clone();
    bo.call("claim_task", json!({"task": task})).await;
    bo.call("commit_files", json!({"task": task, "files": [{"path": "rails/a", "content": "a\n"}]})).await;
    ana.call("review_branch", json!({"task": task, "verdict": "request_changes", "comment": "longer"})).await;
    let line = watch.next().await;
    let events = line["events"].as_array().cloned().unwrap_or_default();
    assert!(events.iter().any(|event| event["type"] == "task.reviewed" && event["subject"] == task), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_for_one_ends_with_its_command_and_a_failed_run_is_repeated() {
    let host = Host::start().await;
    let (ana, bo) = (host.agent("ana", &[]).await, host.agent("bo", &[]).await);
    send(&ana, "agent:bo", "hello").await;
    let mut once = Watch::start(&host, &bo.token, &["--once"]);
    assert_eq!((once.next().await["unread"].clone(), once.ended().await), (json!(1), Some(0)));
    let mut failing = Watch::start(&host, &bo.token, &["--once", "--exec", "exit 3"]);
    failing.note("exit status: 3").await;
    assert_eq!(failing.ended().await, Some(1));

    let flag = host.folder().join("flag");
    let command = format!("cat; test -e '{}'", flag.display());
    let mut repeating = Watch::start(&host, &bo.token, &["--exec", &command]);
    assert_eq!(repeating.next().await["unread"], 1);
    repeating.note("it is run again in 5 s").await;
    std::fs::write(&flag, "").expect("a file");
    assert_eq!(repeating.next().await["unread"], 1, "what was not told is told again");

    let mut early = Watch::start(&host, &host.token("carl"), &[]);
    early.note("no agent of this credential has started").await;
    let mut wrong = Watch::start(&host, "ptm_wrong", &[]);
    wrong.note("refused the token").await;
    assert_eq!(wrong.ended().await, Some(1));
}

/// Calls a hook the way a client does; returns what it answers.
async fn hook(home: &Path, token: &str, args: &[&str], says: Value) -> Output {
    let args = [&["hook"][..], args].concat();
    let mut command = on_behalf(home, token, &args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(says.to_string().as_bytes()).await.expect("it reads");
    drop(input);
    let ended = tokio::time::timeout(Duration::from_secs(2 * DEADLINE_S), child.wait_with_output()).await;
    ended.expect("it ends in time").expect("its output")
}

fn answer(out: &Output) -> Value {
    assert!(out.status.success(), "{}", said(out));
    serde_json::from_slice(&out.stdout).expect("one JSON object")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_begins_is_told_where_it_stands() {
    let mut host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let token = host.token("team");
    let team = Client::new(&format!("{}/mcp", host.url()), &token, Era::Modern).expect("a client");
    team.call("start", json!({"name": "bo", "capabilities": ["rust"]})).await.expect("it starts");
    send(&ana, "agent:bo", "are you there?").await;
    let url = host.url();
    for (client, event) in [("claude-code", "SessionStart"), ("codex", "SessionStart"), ("cursor", "sessionStart")] {
        let says = json!({"hook_event_name": event, "source": "compact", "session_id": "s"});
        let out = answer(&hook(host.folder(), &token, &[client, "--url", &url], says).await);
        let told = if client == "cursor" { &out["additional_context"] } else { &out["hookSpecificOutput"]["additionalContext"] };
        let told = told.as_str().unwrap_or_default();
        assert!(told.contains("You are the agent `bo`") && told.contains("Unread messages: 1"), "{client}: {out}");
    }
    let agents = ana.call("lookup", json!({"uri": "agents"})).await;
    assert_eq!(agents.as_array().map(Vec::len), Some(2), "it is the same agent as before: {agents}");

    host.kill().await;
    let says = || json!({"hook_event_name": "SessionStart", "source": "startup"});
    let out = hook(host.folder(), &token, &["claude-code", "--url", &url], says()).await;
    assert!(answer(&out)["systemMessage"].as_str().is_some_and(|note| note.contains("cannot be reached")), "{}", said(&out));
    let out = hook(host.folder(), &token, &["cursor", "--url", &url], json!({"hook_event_name": "sessionStart"})).await;
    assert!(out.status.success() && out.stdout.is_empty() && said(&out).contains("cannot be reached"), "{}", said(&out));
    let out = hook(host.folder(), &token, &["codex", "--fly"], says()).await;
    assert_eq!(out.status.code(), Some(1), "a wrong call never looks like a word to the client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_does_not_end_while_messages_wait() {
    let host = Host::start().await;
    let (ana, bo) = (host.agent("ana", &[]).await, host.agent("bo", &[]).await);
    let url = host.url();
    let stop = |client: &'static str, says: Value| {
        let (token, url, home) = (bo.token.clone(), url.clone(), host.folder().to_owned());
        async move { hook(&home, &token, &[client, "--url", &url], says).await }
    };
    let quiet = stop("codex", json!({"hook_event_name": "Stop", "stop_hook_active": false})).await;
    assert!(quiet.status.success() && quiet.stdout.is_empty(), "{}", said(&quiet));
    send(&ana, "agent:bo", "one more thing").await;
    let blocked = answer(&stop("codex", json!({"hook_event_name": "Stop", "stop_hook_active": false})).await);
    assert_eq!(blocked["decision"], "block");
    assert!(blocked["reason"].as_str().is_some_and(|why| why.contains("one more thing") && why.contains("wait_for_events")), "{blocked}");
    let again = stop("codex", json!({"hook_event_name": "Stop", "stop_hook_active": true})).await;
    assert!(again.stdout.is_empty(), "it is said once: {}", said(&again));
    let cursor = answer(&stop("cursor", json!({"hook_event_name": "stop", "status": "completed"})).await);
    assert!(cursor["followup_message"].as_str().is_some_and(|text| text.contains("one more thing")), "{cursor}");
    assert!(stop("cursor", json!({"hook_event_name": "stop", "status": "aborted"})).await.stdout.is_empty());
    assert_eq!(bo.drain().await.len(), 1, "nothing was taken");
}

/// The process that a session's note names.
fn armed(home: &Path) -> Option<u64> {
    let folder = std::fs::read_dir(home.join(".cache/pointsman/wakers")).ok()?;
    let notes = folder.filter_map(|entry| std::fs::read(entry.ok()?.path()).ok());
    let notes: Vec<Value> = notes.filter_map(|text| serde_json::from_slice(&text).ok()).collect();
    notes.first()?["waker"].as_u64()
}

async fn waker(host: &Host, token: &str) -> Child {
    let url = host.url();
    let mut command = on_behalf(host.folder(), token, &["hook", "claude-code", "--wake", "--url", &url]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(json!({"hook_event_name": "Stop", "session_id": "s"}).to_string().as_bytes()).await.expect("it reads");
    drop(input);
    let pid = child.id().map(u64::from);
    host.eventually("the waker to be armed", || async { pid.is_some() && armed(host.folder()) == pid }).await;
    child
}

async fn woke(child: Child) -> (Option<i32>, String) {
    let out = tokio::time::timeout(Duration::from_secs(2 * DEADLINE_S), child.wait_with_output()).await;
    let out = out.expect("it ends in time").expect("its output");
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_is_woken_once_for_each_message() {
    let mut host = Host::start().await;
    let (ana, bo) = (host.agent("ana", &[]).await, host.agent("bo", &[]).await);
    let older = waker(&host, &bo.token).await;
    let newer = waker(&host, &bo.token).await;
    send(&ana, "agent:bo", "wake up").await;
    let (code, told) = woke(newer).await;
    assert!(code == Some(2) && told.contains("1 message waits") && told.contains("wake up"), "{code:?}: {told}");
    assert_eq!(woke(older).await, (Some(0), String::new()), "an older waker gives way");

    // The model ignored it. It is not woken for that again, but for what comes next, also when the host was away meanwhile.
    let next = waker(&host, &bo.token).await;
    host.restart().await;
    send(&ana, "agent:bo", "please").await;
    let (code, told) = woke(next).await;
    assert!(code == Some(2) && told.contains("2 messages wait"), "{code:?}: {told}");

    let last = waker(&host, &bo.token).await;
    let over = hook(host.folder(), &bo.token, &["claude-code"], json!({"hook_event_name": "SessionEnd", "session_id": "s"})).await;
    assert!(over.status.success(), "{}", said(&over));
    send(&ana, "agent:bo", "too late").await;
    assert_eq!(woke(last).await.0, Some(0), "a session that ended is not woken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_goes_on_while_messages_wait_and_is_not_held_up() {
    let host = Host::start().await;
    let (ana, bo) = (host.agent("ana", &[]).await, host.agent("bo", &[]).await);
    let url = host.url();
    let turn_ends = async || {
        let mut command = on_behalf(host.folder(), &bo.token, &["hook", "claude-code", "--wake", "--url", &url]);
        command.env("CLAUDE_CODE_ENTRYPOINT", "sdk-cli").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(json!({"hook_event_name": "Stop", "session_id": "s"}).to_string().as_bytes()).await.expect("it reads");
        drop(input);
        woke(child).await
    };
    assert_eq!(turn_ends().await, (Some(0), String::new()), "nothing waits: the run ends");
    send(&ana, "agent:bo", "before you go").await;
    let (code, told) = turn_ends().await;
    assert!(code == Some(2) && told.contains("before you go"), "{code:?}: {told}");
    assert_eq!(turn_ends().await, (Some(0), String::new()), "it was told, and ignored it");
}

#[tokio::test]
async fn a_waker_that_never_reaches_the_host_says_so_and_ends_well() {
    let home = tempfile::tempdir().expect("a folder");
    let url = format!("http://127.0.0.1:{}", free_port());
    let says = json!({"hook_event_name": "Stop", "session_id": "s"});
    let codex = hook(home.path(), "t", &["codex", "--wake", "--url", &url], says.clone()).await;
    assert!(
        codex.status.success() && said(&codex).contains("pointsman watch --exec"),
        "what a client does not allow is said: {}",
        said(&codex)
    );
    let out = hook(home.path(), "t", &["claude-code", "--url", &url], says).await;
    assert!(out.status.success() && said(&out).contains("cannot be reached"), "{}", said(&out));
}

fn why(host: &Host, id: &str) -> Value {
    let out = host.command(&["why", id, "--json"]);
    assert!(out.status.success(), "{id}: {}", said(&out));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

fn events(explained: &Value) -> Vec<&str> {
    explained["steps"].as_array().expect("steps").iter().filter_map(|step| step["event"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_the_way_of_a_message() {
    let mut host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let waits = send(&ana, "cobol", "Who knows it?").await;
    assert_eq!(why(&host, &waits)["move_of"], "any agent that can take it");
    let (bo, carl) = (host.agent("bo", &["rust"]).await, host.agent("carl", &["rust"]).await);
    let id = send(&ana, "rust", "Which parser?").await;
    let first = why(&host, &id);
    let holder = first["move_of"].as_str().expect("somebody").to_owned();
    let (holder, other) = if holder == "bo" { (&bo, &carl) } else { (&carl, &bo) };
    assert!(first["stands"].as_str().is_some_and(|says| says.contains(&format!("inbox of {}", holder.name))), "{first}");
    assert_eq!(holder.wait(&[], 1).await.len(), 1);
    holder.call("wait_for_events", json!({"max_s": 0, "nack": [{"message": id, "reason": "not my parser"}]})).await;
    assert_eq!(other.wait(&[], 5).await.len(), 1);
    other.wait(std::slice::from_ref(&id), 0).await;
    let whole = why(&host, &id);
    assert_eq!(
        events(&whole),
        ["message.sent", "message.routed", "message.handed_out", "message.nacked", "message.handed_out", "message.acked"]
    );
    assert!(whole["steps"][3]["says"].as_str().is_some_and(|says| says.contains("not my parser")), "{whole}");
    assert!(whole["stands"].as_str().is_some_and(|says| says.contains(&format!("acked by {}", other.name))), "{whole}");
    assert_eq!((&whole["move_of"], &whole["is_cut"]), (&Value::Null, &json!(false)));
    let one = why(&host, &format!("{id}/{}", holder.name));
    assert_eq!(events(&one), ["message.sent", "message.routed", "message.handed_out", "message.nacked"]);

    let status: Value = serde_json::from_slice(&host.command(&["status", "--json"]).stdout).expect("JSON");
    let inboxes = status["inboxes"].as_array().expect("inboxes");
    let fared = inboxes.iter().find(|inbox| inbox["agent"] == other.name.as_str()).expect("it is listed");
    assert!(fared["acted"]["count"] == 1 && fared["seen"]["p50_ms"].is_u64() && fared["held"] == 0, "{fared}");

    let text = said(&host.command(&["why", &id]));
    assert!(text.contains("given back by") && text.contains("It was acked by"), "{text}");
    let unknown = host.command(&["why", "T-99"]);
    assert!(unknown.status.code() == Some(1) && said(&unknown).contains("no project has a T-99"), "{}", said(&unknown));
    assert!(said(&host.command(&["why", "nonsense"])).contains("msg_…/AGENT"));

    host.kill().await;
    let offline = why(&host, &id);
    assert_eq!((&offline["steps"], &offline["stands"]), (&whole["steps"], &whole["stands"]), "the same without a host");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_the_way_of_a_task_and_its_merge() {
    let host = Host::start().await;
    let (ana, dora) = (host.agent("ana", &[]).await, host.agent("dora", &["review"]).await);
    let task =
        ana.call("create_task", json!({"title": "Lay rails", "paths": ["rails/**"]})).await["task"].as_str().expect("an id").to_owned();
    assert_eq!(why(&host, &task)["move_of"], "any agent");
    ana.call("claim_task", json!({"task": task})).await;
    ana.call("commit_files", json!({"task": task, "files": [{"path": "rails/a", "content": "a\n"}]})).await;
    assert_eq!(why(&host, &task)["move_of"], "ana");
    let merge = ana.call("submit_branch", json!({"task": task})).await["merge"].as_str().expect("an id").to_owned();
    let asked = dora.mail(&["review_request"]).await;
    let waits = why(&host, &merge);
    assert_eq!(waits["move_of"], "a reviewer", "{waits}");
    dora.call("review_branch", json!({"task": task, "verdict": "approve", "head": asked["body"]["head"]})).await;
    ana.mail(&["landed"]).await;
    let landed = why(&host, &task);
    let told = events(&landed);
    for event in [
        "task.created",
        "task.claimed",
        "branch.created",
        "branch.committed",
        "merge.queued",
        "merge.waiting",
        "task.reviewed",
        "merge.landed",
    ] {
        assert!(told.contains(&event), "{event}: {told:?}");
    }
    assert!(landed["stands"].as_str().is_some_and(|says| says.contains(&format!("{task} landed")) && says.contains(&merge)), "{landed}");

    let token: Value = serde_json::from_slice(&host.command(&["agent", "add", "op", "--toolset", "admin", "--json"]).stdout).expect("JSON");
    let bearer = format!("Bearer {}", token["secret"].as_str().expect("a token"));
    let get = async |path: String| {
        let answer = ana.client.request("GET", &path, &[("authorization", &bearer)], Vec::new().into()).await.expect("an answer");
        (answer.status, answer.json())
    };
    let (status, answer) = get(format!("/api/v1/why/{merge}?project=demo")).await;
    assert_eq!((status, &answer["kind"], &answer["move_of"]), (200, &json!("merge"), &Value::Null), "{answer}");
    assert_eq!(get("/api/v1/why/T-99".to_owned()).await.0, 404);
    assert_eq!(get("/api/v1/why/nonsense".to_owned()).await.0, 400);
    let figures = ana.client.request("GET", "/metrics", &[("authorization", &bearer)], Vec::new().into()).await.expect("an answer");
    assert!(String::from_utf8_lossy(&figures.body).contains("pointsman_delivery_seconds_count{stage=\"seen\"}"), "what waited is measured");
}

#[test]
fn connect_merges_hooks_beside_those_of_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkout: PathBuf = folder.path().join("web");
    seed(&checkout);
    let connect = |client: &str| {
        let mut command = pointsman(&["connect", client, "--url", "http://127.0.0.1:7420", "--write", "--hooks"]);
        command.current_dir(&checkout).env("HOME", folder.path()).env_remove("CODEX_HOME").env_remove("XDG_CONFIG_HOME");
        let out = command.output().expect("the binary runs");
        assert!(out.status.success(), "{client}: {}", said(&out));
        said(&out)
    };
    std::fs::create_dir(checkout.join(".claude")).expect("a folder");
    let settings = checkout.join(".claude/settings.json");
    std::fs::write(&settings, "{\n  \"hooks\": {\"Stop\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"say done\"}]}]}\n}\n")
        .expect("a file");
    for (client, file, limit) in [
        ("claude-code", settings.clone(), "2.1"),
        ("codex", folder.path().join(".codex/hooks.json"), "none in the background"),
        ("cursor", checkout.join(".cursor/hooks.json"), "no hook in the background"),
    ] {
        let first = connect(client);
        assert!(first.contains("wrote the hooks") && first.contains(limit), "what it does not allow is said: {first}");
        let once = std::fs::read_to_string(&file).expect("the file");
        assert!(once.contains(&format!("pointsman hook {client} ")), "{once}");
        let second = connect(client);
        assert!(second.contains("has the hooks already"), "{second}");
        assert_eq!(std::fs::read_to_string(&file).expect("the file"), once);
    }
    assert!(std::fs::read_to_string(&settings).expect("the file").contains("say done"));
    assert!(!git(&checkout, &["status", "--porcelain"]).is_empty());
}
