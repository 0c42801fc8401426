//! What operators do with plugins while the host runs: the real binary, its command line and its API.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use pointsman_client::{Client, RawAnswer};
use pointsman_tests::{Agent, Era, Host, Setup, pointsman};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Returns a shipped router that names itself of another version, so that it has a digest of its own.
fn router(version: &str) -> Vec<u8> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/routing-rules.wasm");
    let bytes = std::fs::read(shipped).expect("a shipped component");
    replaced(bytes, b"version = \"0.1.0\"\nworld", format!("version = \"{version}\"\nworld").as_bytes())
}

fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "a section's length stays");
    let at = bytes.windows(from.len()).position(|window| window == from).expect("the manifest has it");
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

/// Appends a custom section (binary format of WebAssembly, 5.5.3).
fn with_section(mut component: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
    let leb = |mut number: usize| {
        let mut out = Vec::new();
        while number > 0x7f {
            out.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
            number >>= 7;
        }
        out.push(u8::try_from(number).expect("seven bits"));
        out
    };
    let content = [leb(name.len()), name.as_bytes().to_vec(), data.to_vec()].concat();
    component.push(0);
    component.extend(leb(content.len()));
    component.extend(content);
    component
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Runs a `plugin` command that must succeed; returns its JSON.
fn plugin(host: &Host, args: &[&str]) -> Value {
    let args: Vec<&str> = ["plugin"].iter().chain(args).copied().chain(["--json"]).collect();
    let out = host.command(&args);
    assert!(out.status.success(), "{args:?}: {}\n{}", said(&out), host.log());
    serde_json::from_slice(&out.stdout).expect("JSON")
}

/// Runs a `plugin` command that must be refused; returns what it says.
fn refused(host: &Host, args: &[&str]) -> String {
    let args: Vec<&str> = ["plugin"].iter().chain(args).copied().collect();
    let out = host.command(&args);
    assert!(!out.status.success(), "{args:?} was to be refused: {}", said(&out));
    said(&out)
}

fn of<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array().and_then(|all| all.iter().find(|one| one["name"] == name)).unwrap_or(&Value::Null)
}

fn row(host: &Host, name: &str) -> Value {
    of(&plugin(host, &["list"]), name).clone()
}

/// Waits until a plugin's row is so.
async fn until(host: &Host, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    host.eventually(what, || async { holds(&row(host, name)) }).await;
    row(host, name)
}

/// A folder with a component, and the set-up of a host that routes by it.
struct Mine {
    folder: tempfile::TempDir,
}

impl Mine {
    fn new(component: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mine = Self { folder };
        mine.put(component);
        mine
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("mine.wasm")
    }

    fn put(&self, component: &[u8]) {
        // Whole or not at all, as `pointsman plugin build` does it.
        let new = self.folder.path().join("new");
        std::fs::write(&new, component).expect("written");
        std::fs::rename(new, self.file()).expect("renamed");
    }

    fn setup(&self, more: &str) -> Setup {
        let source = json!(self.file().to_string_lossy());
        Setup { config: format!("[routing]\nplugins = [\"mine\"]\n[plugins.mine]\nsource = {source}\n{more}") }
    }
}

#[tokio::test]
async fn a_plugin_is_added_asked_switched_and_taken_away() {
    let host = Host::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.wasm");
    std::fs::write(&file, router("0.2.0")).expect("written");
    let file = file.to_string_lossy().into_owned();
    let added = plugin(&host, &["add", "mine", &file, "--plugin-config", "{\"rules\": []}"]);
    assert_eq!((&added["world"], &added["state"], &added["version"]), (&json!("router"), &json!("loaded"), &json!("0.2.0")), "{added}");
    assert!(refused(&host, &["add", "mine", &file]).contains("there is a plugin `mine` already"));
    assert!(refused(&host, &["add", "other", "/nowhere.wasm"]).contains("/nowhere.wasm"));

    let (ana, _ben) = (host.agent("ana", &[]).await, host.agent("ben", &["review"]).await);
    let send = async || ana.call("send_message", json!({"to": ["review"], "kind": "note", "subject": "s", "body": "b"})).await;
    send().await;
    assert_eq!(row(&host, "mine")["calls"], 1, "it is asked before the shipped one");
    assert_eq!(plugin(&host, &["disable", "mine"])["state"], "off");
    send().await;
    assert_eq!(row(&host, "mine")["calls"], 1, "it is not asked");
    assert_eq!(plugin(&host, &["enable", "mine"])["state"], "loaded");
    send().await;
    assert!(row(&host, "mine")["calls"].as_u64() >= Some(1));

    let table = said(&host.command(&["plugin", "list"]));
    assert!(table.contains("mine") && table.contains("routing-capability") && table.contains("STATE"), "{table}");
    plugin(&host, &["remove", "mine"]);
    assert_eq!(row(&host, "mine"), Value::Null);
    assert!(refused(&host, &["enable", "mine"]).contains("there is no plugin `mine`"));
}

#[tokio::test]
async fn a_bad_version_never_replaces_a_good_one_and_each_can_be_had_back() {
    let mine = Mine::new(&router("1.0.0"));
    let mut host = Host::start_with(mine.setup("")).await;
    let first = row(&host, "mine")["digest"].clone();
    mine.put(b"no component at all");
    let bad = until(&host, "mine", "the refusal", |row| row["last_error"].is_object()).await;
    assert_eq!((&bad["digest"], &bad["state"]), (&first, &json!("loaded")), "{bad}");
    assert!(host.log().contains("a new component is refused"), "{}", host.log());
    assert!(said(&host.command(&["status"])).contains("mine is loaded"), "the status says so, too");

    mine.put(&router("2.0.0"));
    let second = until(&host, "mine", "the second version", |row| row["version"] == "2.0.0").await;
    assert_eq!((&second["last_error"], second["history"].as_array().map(Vec::len)), (&Value::Null, Some(2)), "{second}");

    let back = plugin(&host, &["rollback", "mine"]);
    assert_eq!((&back["version"], &back["pinned"]), (&json!("1.0.0"), &first), "{back}");
    assert!(refused(&host, &["rollback", "mine"]).contains("nothing was loaded as `mine` before"));
    host.restart().await;
    assert_eq!(row(&host, "mine")["version"], "1.0.0", "a pin outlives the host");
    assert_eq!(plugin(&host, &["unpin", "mine"])["version"], "2.0.0");
    let digest = second["digest"].as_str().expect("a digest");
    assert_eq!(plugin(&host, &["pin", "mine", &digest[..12]])["pinned"], digest);
    assert!(refused(&host, &["pin", "mine", "ffffffff"]).contains("names no one component"));
    plugin(&host, &["unpin", "mine"]);

    mine.put(b"damaged");
    host.restart().await;
    let last_good = row(&host, "mine");
    assert_eq!((&last_good["state"], &last_good["version"]), (&json!("last-good"), &json!("2.0.0")), "{last_good}");
    assert!(host.log().contains("the last good one is"), "{}", host.log());
}

#[tokio::test]
async fn the_configuration_is_taken_in_when_it_changes_and_a_wrong_one_is_not() {
    let mine = Mine::new(&router("1.0.0"));
    let host = Host::start().await;
    let file = host.folder().join("pointsman.toml");
    let before = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, format!("{before}{}", mine.setup("").config)).expect("written");
    until(&host, "mine", "the plugin that was named", |row| row["state"] == "loaded").await;
    std::fs::write(&file, format!("{before}[routing]\nplugins = [\"nobody\"]\n")).expect("written");
    host.eventually("the refusal", || async { said(&host.command(&["status"])).contains("nobody") || host.log().contains("not taken in") })
        .await;
    std::fs::write(&file, format!("{before}[routing]\nplugins = []\n")).expect("written");
    host.eventually("the plugin's end", || async { row(&host, "mine") == Value::Null }).await;
}

#[tokio::test]
async fn a_lock_lets_only_its_digests_in() {
    let mine = Mine::new(&router("1.0.0"));
    let host = Host::start_with(mine.setup("")).await;
    let locked = plugin(&host, &["lock"]);
    assert_eq!(of(&locked["plugins"], "mine")["digest"], row(&host, "mine")["digest"]);
    assert!(host.folder().join("plugins.lock").exists());
    assert!(host.command(&["plugin", "lock", "--check"]).status.success());
    mine.put(&router("2.0.0"));
    let held = until(&host, "mine", "the refusal", |row| row["last_error"].is_object()).await;
    assert_eq!(held["version"], "1.0.0");
    assert!(held["last_error"]["why"].as_str().is_some_and(|why| why.contains("plugins.lock allows")), "{held}");
    assert!(!host.command(&["plugin", "lock", "--check"]).status.success());
    plugin(&host, &["lock"]);
    until(&host, "mine", "the version of the new lock", |row| row["version"] == "2.0.0").await;
    let file = mine.file().to_string_lossy().into_owned();
    assert!(refused(&host, &["add", "other", &file]).contains("does not name it"));
}

#[tokio::test]
async fn only_signed_components_are_loaded_where_signatures_are_required() {
    let mine = Mine::new(&router("1.0.0"));
    let (key, other) = (mine.folder.path().join("key"), mine.folder.path().join("other"));
    let run = |args: &[&str]| {
        let out = pointsman(args).output().expect("the binary runs");
        assert!(out.status.success(), "{}", said(&out));
        serde_json::from_slice::<Value>(&out.stdout).expect("JSON")
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let public = run(&["plugin", "keygen", &text(&key), "--json"])["public"].as_str().expect("a public key").to_owned();
    run(&["plugin", "keygen", &text(&other), "--json"]);
    let sign = |key: &Path| run(&["plugin", "sign", &text(&mine.file()), "--key", &text(key), "--json"]);
    sign(&key);
    let host = Host::start_with(mine.setup(&format!("[plugin_trust]\nrequired = true\nkeys = [\"{public}\"]\n"))).await;
    assert_eq!(row(&host, "mine")["version"], "1.0.0");

    let why = |row: &Value| row["last_error"]["why"].as_str().unwrap_or_default().to_owned();
    std::fs::remove_file(mine.folder.path().join("mine.wasm.sig")).expect("removed");
    mine.put(&router("2.0.0"));
    until(&host, "mine", "the refusal of an unsigned one", |row| why(row).contains("not signed")).await;
    sign(&other);
    let bad = until(&host, "mine", "the refusal of another's signature", |row| why(row).contains("signature is not one")).await;
    assert_eq!(bad["version"], "1.0.0");
    sign(&key);
    until(&host, "mine", "the signed version", |row| row["version"] == "2.0.0").await;
}

/// Serves these bytes to whoever asks, until it is dropped.
async fn serve(bytes: Vec<u8>) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}/x.wasm", listener.local_addr().expect("an address"));
    let bytes = Arc::new(bytes);
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bytes = Arc::clone(&bytes);
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.write_all(&bytes).await;
            });
        }
    });
    (url, serving)
}

/// Takes spans as a collector does, and keeps them.
async fn collector() -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let kept = Arc::<Mutex<Vec<Value>>>::default();
    let spans = Arc::clone(&kept);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let whole = |request: &[u8]| {
                let text = String::from_utf8_lossy(request).into_owned();
                let (head, body) = text.split_once("\r\n\r\n")?;
                let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
                (head.starts_with("POST /v1/traces ") && head.contains("x-key: 7") && body.len() == length).then(|| body.to_owned())
            };
            let body = loop {
                if let Some(body) = whole(&request) {
                    break body;
                }
                if stream.read_buf(&mut request).await.unwrap_or_default() == 0 {
                    break "{}".to_owned();
                }
            };
            let batch: Value = serde_json::from_str(&body).expect("JSON");
            let of = batch["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned().unwrap_or_default();
            spans.lock().expect("nobody panics with it").extend(of);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await;
        }
    });
    (url, kept)
}

#[tokio::test]
async fn a_call_and_the_plugins_it_asked_are_one_trace() {
    let (url, kept) = collector().await;
    let config = format!("[traces]\nendpoint = {}\nheaders = [\"x-key: 7\"]\n", json!(url));
    let mut host = Host::start_with(Setup { config }).await;
    let (ana, _ben) = (host.agent("ana", &[]).await, host.agent("ben", &["backend"]).await);
    ana.call("send_message", json!({"to": ["backend"], "subject": "hello"})).await;
    assert_eq!(ana.refused("claim_task", json!({"task": "T-99"})).await, "not_found");
    let named = |name: &str| {
        let kept = kept.lock().expect("nobody panics with it");
        kept.iter().find(|span| span["name"] == name).cloned().unwrap_or_default()
    };
    let attribute = |span: &Value, key: &str| {
        let all = span["attributes"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["key"] == key).map(|one| one["value"]["stringValue"].clone()).unwrap_or_default()
    };
    host.eventually("the spans", async || !named("tools/call claim_task").is_null()).await;
    let (call, route, refused) = (named("tools/call send_message"), named("route"), named("tools/call claim_task"));
    assert_eq!((&route["traceId"], &route["parentSpanId"]), (&call["traceId"], &call["spanId"]), "{call} {route}");
    assert_eq!(attribute(&call, "gen_ai.tool.name"), "send_message");
    assert_eq!(
        (attribute(&route, "pointsman.plugin"), attribute(&route, "pointsman.outcome")),
        ("routing-capability".into(), "answered".into())
    );
    assert_eq!(attribute(&route, "pointsman.trace"), attribute(&call, "pointsman.trace"), "as the log has it");
    assert_eq!(attribute(&refused, "error.type"), "not_found");
    // What waits when the host drains is sent before it ends.
    ana.call("send_message", json!({"to": ["agent:ben"], "subject": "last"})).await;
    let before = kept.lock().expect("nobody panics with it").len();
    let drained = std::process::Command::new("kill").args(["-TERM", &host.pid().to_string()]).status();
    assert!(drained.is_ok_and(|status| status.success()) && host.ended().await);
    assert!(kept.lock().expect("nobody panics with it").len() > before);
}

// The command line blocks the test's thread; whoever serves the component needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_of_the_web_needs_its_digest_and_is_kept() {
    let mut host = Host::start().await;
    let (url, serving) = serve(router("3.0.0")).await;
    assert!(refused(&host, &["add", "far", &url]).contains("needs the digest"));
    let wrong = refused(&host, &["add", "far", &url, "--digest", &"0".repeat(64)]);
    let digest = wrong.split("has the digest ").nth(1).and_then(|rest| rest.get(..64)).expect("the refusal names what came").to_owned();
    assert_eq!(plugin(&host, &["add", "far", &url, "--digest", &digest])["version"], "3.0.0");
    serving.abort();
    host.restart().await;
    assert_eq!(row(&host, "far")["state"], "loaded", "it is not fetched again");
}

#[tokio::test]
async fn what_the_file_says_the_api_does_not_change() {
    let mine = Mine::new(&router("1.0.0"));
    let host = Host::start_with(mine.setup("mode = \"live\"\n")).await;
    let mode = refused(&host, &["disable", "mine"]);
    assert!(mode.contains("`plugins.mine.mode` is written at") && mode.contains("pointsman.toml:"), "{mode}");
    assert!(refused(&host, &["remove", "mine"]).contains("is named at"));
    let file = mine.file().to_string_lossy().into_owned();
    assert!(refused(&host, &["add", "mine", &file]).contains("goes before the API"));
    assert_eq!(plugin(&host, &["disable", "merge-text"])["state"], "off", "what the file does not say, the API may");
}

#[tokio::test]
async fn a_component_gets_what_it_asks_for_only_when_it_is_granted_and_its_configuration_fits() {
    let asking =
        replaced(router("1.0.0"), b"# Pure: it asks for nothing.\ncapabilities = []", b"# Pure: it asks for noth\ncapabilities = [\"kv\"]");
    let schema = br#"{"type": "object", "properties": {"rules": {"type": "array"}}}"#;
    let asking = with_section(asking, "pointsman.config-schema", schema);
    let mut host = Host::start().await;
    let file = host.folder().join("asking.wasm");
    std::fs::write(&file, asking).expect("written");
    let file = file.to_string_lossy().into_owned();
    let ungranted = refused(&host, &["add", "asking", &file]);
    assert!(ungranted.contains("asks for `kv`, which it is not granted") && ungranted.contains("--grant kv"), "{ungranted}");
    let misfit = refused(&host, &["add", "asking", &file, "--grant", "kv", "--plugin-config", "{\"rules\": 1}"]);
    assert!(misfit.contains("`/rules`"), "{misfit}");
    plugin(&host, &["add", "asking", &file, "--grant", "kv"]);
    assert_eq!(plugin(&host, &["grants", "asking"]), json!({"name": "asking", "asked": ["kv"], "granted": ["kv"]}));
    assert!(refused(&host, &["grants", "asking", "--revoke", "kv"]).contains("plugin disable asking"));
    assert!(refused(&host, &["grants", "asking", "--grant", "flying"]).contains("there is no capability `flying`"));
    assert_eq!(plugin(&host, &["grants", "asking", "--grant", "log"])["granted"], json!(["kv", "log"]));
    host.restart().await;
    assert_eq!(row(&host, "asking")["granted"], json!(["kv", "log"]));
    host.kill().await;
    assert_eq!(plugin(&host, &["disable", "asking"])["mode"], "off", "without a host the records are changed");
    assert_eq!(row(&host, "asking")["state"], "off");
}

/// Returns the shipped router of this version with a golden call: by the configuration of its manifest it is to decide so.
fn with_golden(version: &str, name: &str, decision: &str) -> Vec<u8> {
    let input = json!({"message": {"kind": "question"}, "candidates": [{"agent": "ana", "satisfies": true}]});
    let case = json!({"name": name, "call": "route", "input": input, "expect": {"decision": decision}});
    with_section(router(version), "pointsman.cases", json!({"version": 1, "cases": [case]}).to_string().as_bytes())
}

#[tokio::test]
async fn a_component_whose_golden_call_fails_never_replaces_one_that_holds() {
    // What the operator set is not what the call was written for: here everything is dropped.
    let drops = "[plugins.mine.config]\nrules = [{ name = \"none\", to = \"drop\" }]\n";
    let mine = Mine::new(&with_golden("1.0.0", "no rule, no opinion", "pass"));
    let host = Host::start_with(mine.setup(drops)).await;
    let first = row(&host, "mine");
    assert_eq!((&first["state"], &first["version"]), (&json!("loaded"), &json!("1.0.0")), "{first}\n{}", host.log());
    mine.put(&with_golden("2.0.0", "everything is dropped", "drop"));
    let held = until(&host, "mine", "the refusal", |row| row["last_error"].is_object()).await;
    assert_eq!((&held["version"], &held["digest"]), (&json!("1.0.0"), &first["digest"]), "{held}");
    let why = held["last_error"]["why"].as_str().unwrap_or_default().to_owned();
    assert_eq!(why, "its golden call `everything is dropped` is answered otherwise: `decision` is \"pass\", not \"drop\"");
    let checked = pointsman(&["plugin", "check", &mine.file().to_string_lossy()]).output().expect("the binary runs");
    assert!(!checked.status.success() && said(&checked).contains("everything is dropped: decision is"), "{}", said(&checked));
    mine.put(&with_section(router("3.0.0"), "pointsman.cases", b"{}"));
    let unread = until(&host, "mine", "the next refusal", |row| row["last_error"]["why"] != why).await;
    assert!(unread["last_error"]["why"].as_str().is_some_and(|why| why.contains("its golden calls cannot be read")), "{unread}");
    mine.put(&with_golden("4.0.0", "no rule, no opinion", "pass"));
    let next = until(&host, "mine", "the version that holds", |row| row["version"] == "4.0.0").await;
    assert_eq!((&next["last_error"], &next["failures"]), (&Value::Null, &json!(0)), "{next}");
}

#[tokio::test]
async fn an_agent_moves_in_and_out_while_the_host_runs() {
    let host = Host::start().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src/adapters/wasm/tests/scripted-agent.wasm");
    let file = file.to_string_lossy().into_owned();
    let config = r#"{"name": "helper"}"#;
    let grants = ["--grant", "kv", "--grant", "lookups", "--grant", "log"];
    let add = [&["add", "helper", &file, "--world", "agent", "--plugin-config", config][..], &grants[..]].concat();
    let broken = with_section(
        std::fs::read(&file).expect("the tests' agent"),
        "pointsman.cases",
        json!({"version": 1, "cases": [
            {"name": "it beats", "call": "handle", "input": {"event": {"timer": "t"}}, "expect": {"actions": [{"action": "put"}]}},
        ]})
        .to_string()
        .as_bytes(),
    );
    let broken_file = host.folder().join("broken.wasm");
    std::fs::write(&broken_file, broken).expect("written");
    let broken_file = broken_file.to_string_lossy().into_owned();
    let why = refused(&host, &[&["add", "helper", &broken_file, "--world", "agent", "--plugin-config", config][..], &grants[..]].concat());
    assert!(why.contains("its golden call `it beats` is answered otherwise: `actions` is [], not"), "{why}");
    assert_eq!(plugin(&host, &add)["state"], "loaded");
    let ana = host.agent("ana", &[]).await;
    let lives = || async { ana.call("lookup", json!({"uri": "agents"})).await.to_string().contains("helper") };
    host.eventually("the agent moves in", lives).await;
    let ask = async |word: &str| {
        let body = json!({"do": [{"send": [["agent:ana"], word, word, "{}"]}]});
        ana.call("send_message", json!({"to": ["agent:helper"], "kind": "request", "subject": word, "body": body})).await;
    };
    ask("first").await;
    assert_eq!(ana.mail(&["first"]).await["subject"], "first");

    plugin(&host, &["disable", "helper"]);
    ask("second").await;
    let offers = [&["add", "tools", &file, "--world", "mcp-provider"][..], &grants[..]].concat();
    assert_eq!(plugin(&host, &offers)["state"], "loaded");
    host.eventually("its tools are there", || async { tools(&ana).await > 0 }).await;
    plugin(&host, &["enable", "helper"]);
    assert_eq!(ana.mail(&["second"]).await["subject"], "second", "what came while it was away was kept");
    plugin(&host, &["remove", "tools"]);
    host.eventually("its tools are gone", || async { tools(&ana).await == 0 }).await;
}

/// Returns how many tools of the tests' agent a client is shown.
async fn tools(agent: &Agent) -> usize {
    let all = agent.client.list_tools().await.expect("a list");
    all.iter().filter(|tool| tool["name"].as_str().is_some_and(|name| name.starts_with("test_"))).count()
}

async fn ask(host: &Host, method: &str, path: &str, token: Option<&str>, body: Value) -> RawAnswer {
    let client = Client::new(&format!("{}/mcp", host.url()), "", Era::Modern).expect("a client");
    let credential = token.map(|token| format!("Bearer {token}"));
    let mut headers: Vec<(&str, &str)> = credential.as_deref().map(|credential| ("authorization", credential)).into_iter().collect();
    let mut bytes = Vec::new();
    if !body.is_null() {
        headers.push(("content-type", "application/json"));
        bytes = body.to_string().into_bytes();
    }
    client.request(method, path, &headers, bytes.into()).await.expect("an answer")
}

fn hostile(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/hostile/dist").join(format!("{name}.wasm"));
    json!(file.to_string_lossy()).to_string()
}

/// Starts a host with a component that fails whenever it is asked, and what is done then.
async fn failing(binding: &str, component: &str, on_failure: &str) -> Host {
    let source = hostile(component);
    Host::start_with(Setup { config: format!("{binding}\n[plugins.mine]\nsource = {source}\non_failure = \"{on_failure}\"\n") }).await
}

#[tokio::test]
async fn what_is_done_when_a_plugin_fails_is_the_operators_choice() {
    for (on_failure, routed) in [("fall-back", 1), ("refuse", 0), ("defer", 0)] {
        let host = failing("[routing]\nplugins = [\"mine\"]", "trap-in-route", on_failure).await;
        let (ana, _ben) = (host.agent("ana", &[]).await, host.agent("ben", &["review"]).await);
        let sent = ana.call("send_message", json!({"to": ["review"], "kind": "note", "subject": "s", "body": "b"})).await;
        assert_eq!(sent["routed"].as_array().map(Vec::len), Some(routed), "{on_failure}: {sent}\n{}", host.log());
        assert_eq!(sent.to_string().contains("router `mine` failed"), routed == 0, "{on_failure}: {sent}");
    }
    for (on_failure, code) in [("refuse", "policy_failed"), ("defer", "unavailable")] {
        let host = failing("[policy]\nplugin = \"mine\"", "policy-traps", on_failure).await;
        let ana = host.agent("ana", &[]).await;
        let task = ana.call("create_task", json!({"title": "t", "paths": ["src/**"]})).await["task"].clone();
        assert_eq!(ana.refused("claim_task", json!({"task": task})).await, code, "{on_failure}");
    }
    for (on_failure, outcome) in [("fall-back", None), ("refuse", Some("conflict")), ("defer", Some("unavailable"))] {
        let of = |plugin: &str| format!("[[context.reconciler]]\nkeys = [\"**\"]\nplugin = \"{plugin}\"\n");
        let host = failing(&(of("mine") + &of("context-json")), "reconciler-traps", on_failure).await;
        let ana = host.agent("ana", &[]).await;
        let write = |base: u64, value: Value| json!({"key": "plan", "base_version": base, "value": value});
        let first = ana.call("write_context", write(0, json!({"a": 1, "b": 1}))).await["version"].as_u64().expect("a version");
        ana.call("write_context", write(first, json!({"a": 2, "b": 1}))).await;
        let stale = write(first, json!({"a": 1, "b": 2}));
        match outcome {
            Some(code) => assert_eq!(ana.refused("write_context", stale).await, code, "{on_failure}"),
            None => drop(ana.call("write_context", stale).await),
        }
    }
}

#[tokio::test]
async fn a_shadow_is_promoted_once_it_has_heard_enough_and_not_before() {
    let mine = Mine::new(&router("1.0.0"));
    let host = Host::start_with(mine.setup("")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let next = |version: &str| {
        let file = folder.path().join(format!("{version}.wasm"));
        std::fs::write(&file, router(version)).expect("written");
        file.to_string_lossy().into_owned()
    };
    plugin(&host, &["add", "next", &next("2.0.0"), "--shadow-of", "mine"]);
    assert!(refused(&host, &["promote", "next"]).contains("heard 0 calls beside `mine`"));
    assert!(refused(&host, &["promote", "mine"]).contains("`mine` is no shadow"));
    let (ana, _ben) = (host.agent("ana", &[]).await, host.agent("ben", &["review"]).await);
    let send = async || ana.call("send_message", json!({"to": ["review"], "kind": "note", "subject": "s", "body": "b"})).await;
    for _ in 0..4 {
        send().await;
    }
    let heard = async |name: &str| {
        let told = plugin(&host, &["diff", name]);
        told["report"].clone()
    };
    host.eventually("the shadow heard all", || async { heard("next").await["calls"] == 4 }).await;
    assert_eq!(heard("next").await["same"], 4);
    assert!(refused(&host, &["promote", "next", "--heard-min", "5"]).contains("At least 5 calls"));
    let promoted = plugin(&host, &["promote", "next", "--heard-min", "4"]);
    assert_eq!((&promoted["name"], &promoted["version"]), (&json!("mine"), &json!("2.0.0")), "{promoted}");
    assert_eq!(row(&host, "mine")["pinned"], row(&host, "next")["digest"]);
    assert_eq!(plugin(&host, &["rollback", "mine"])["version"], "1.0.0", "and it can be taken back");

    let drops = r#"{"rules": [{"name": "none", "to": "drop"}]}"#;
    plugin(&host, &["add", "other", &next("3.0.0"), "--shadow-of", "mine", "--plugin-config", drops]);
    send().await;
    host.eventually("the other heard it", || async { heard("other").await["different"] == 1 }).await;
    assert!(refused(&host, &["promote", "other", "--heard-min", "1"]).contains("1 answers were others"));
    let anyway = refused(&host, &["promote", "other", "--heard-min", "1", "--different-max", "1"]);
    assert!(anyway.contains("the configuration of `other` is not that of `mine`"), "{anyway}");
    plugin(&host, &["add", "failing", hostile("trap-in-route").trim_matches('"'), "--shadow-of", "mine", "--world", "router"]);
    send().await;
    host.eventually("it heard that", || async { heard("failing").await["failed"] == 1 }).await;
    let table = said(&host.command(&["plugin", "list"]));
    assert!(table.contains("failing heard 1 calls beside mine since it was loaded: 0 the same, 0 different, 1 failed"), "{table}");
    assert!(refused(&host, &["promote", "failing", "--heard-min", "1"]).contains("1 calls failed"));
    assert!(said(&host.command(&["plugin", "diff", "failing"])).contains("\nshadow  "));
}

#[tokio::test]
async fn a_decision_is_found_by_the_call_that_caused_it() {
    let host = Host::start().await;
    let (ana, _ben) = (host.agent("ana", &[]).await, host.agent("ben", &["review"]).await);
    ana.call("send_message", json!({"to": ["review"], "kind": "note", "subject": "s", "body": "b"})).await;
    let listed = || host.command(&["plugin", "decisions", "routing-capability", "--json"]);
    host.eventually("the record", || async { listed().status.success() }).await;
    let listed: Value = serde_json::from_slice(&listed().stdout).expect("JSON");
    let trace = listed["decisions"][0]["trace"].as_str().expect("a call caused it").to_owned();
    assert!(ana.call("lookup", json!({"uri": "events"})).await.to_string().contains(&trace), "its events carry the same id");
    let shown = host.command(&["plugin", "decisions", "routing-capability", "--trace", &trace]);
    let shown = said(&shown);
    assert!(shown.contains("call          route") && shown.contains("\"ben\"") && shown.contains("answer"), "{shown}");
    assert!(said(&host.command(&["plugin", "decisions", "routing-capability"])).contains(&trace));
    assert!(refused(&host, &["decisions", "routing-capability", "--trace", "nobody"]).contains("that the call nobody caused"));
}

#[tokio::test]
async fn the_api_is_for_tokens_with_the_toolset_admin() {
    let host = Host::start().await;
    let out = host.command(&["agent", "add", "ops", "--toolset", "admin", "--json"]);
    let ops = serde_json::from_slice::<Value>(&out.stdout).expect("JSON")["secret"].as_str().expect("a secret").to_owned();
    let ana = host.token("ana");
    for (token, status, code) in
        [(None, 401, "unauthorized"), (Some("pmt_wrong"), 401, "unauthorized"), (Some(ana.as_str()), 403, "not_an_operator")]
    {
        let answer = ask(&host, "GET", "/api/v1/plugins", token, Value::Null).await;
        assert_eq!((answer.status, answer.json()["code"].clone()), (status, json!(code)), "{token:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
        assert!(answer.json()["detail"].is_string() && answer.json()["do"].is_string() && answer.json()["status"] == status);
    }
    let ops = Some(ops.as_str());
    let status = ask(&host, "GET", "/api/v1/status", ops, Value::Null).await.json();
    assert_eq!((&status["projects"], &status["url"]), (&json!(["demo"]), &json!(host.url())), "{status}");
    let plugins = ask(&host, "GET", "/api/v1/plugins", ops, Value::Null).await.json();
    assert_eq!(of(&plugins["plugins"], "policy-default")["state"], "loaded", "{plugins}");
    let one = ask(&host, "GET", "/api/v1/plugins/merge-text", ops, Value::Null).await;
    assert_eq!((one.status, one.json()["world"].clone()), (200, json!("merger")));
    assert_eq!(ask(&host, "POST", "/api/v1/plugins/merge-text/disable", ops, json!({})).await.json()["mode"], "off");
    assert_eq!(ask(&host, "GET", "/api/v1/plugins/nobody", ops, Value::Null).await.status, 404);
    assert_eq!(ask(&host, "PUT", "/api/v1/plugins", ops, Value::Null).await.status, 405);

    let figures = ask(&host, "GET", "/metrics", ops, Value::Null).await;
    let text = String::from_utf8_lossy(&figures.body).into_owned();
    assert_eq!(figures.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(text.contains("pointsman_plugin_loads_total{plugin=\"merge-text\"} 1\n") && text.ends_with("# EOF\n"), "{text}");
    assert_eq!(ask(&host, "GET", "/metrics", None, Value::Null).await.status, 401);
    assert_eq!(ask(&host, "POST", "/metrics", ops, json!({})).await.status, 405);

    let made = ask(&host, "POST", "/api/v1/agents", ops, json!({"name": "ben", "projects": ["demo"]})).await;
    assert_eq!((made.status, made.json()["name"].clone()), (201, json!("ben")), "{}", made.json());
    let agents = ask(&host, "GET", "/api/v1/agents", ops, Value::Null).await.json();
    let created = of(&agents["agents"], "ben")["created_at"].as_str().expect("a time").to_owned();
    assert!(created.starts_with("20") && created.ends_with('Z'), "{created}");
    let gone = ask(&host, "DELETE", "/api/v1/agents/ben", ops, Value::Null).await.json();
    assert_eq!(of(&gone["revoked"], "ben")["live"], false, "{gone}");
    let project = ask(&host, "POST", "/api/v1/projects", ops, json!({"slug": "second"})).await;
    assert_eq!((project.status, project.json()["is_new"].clone()), (201, json!(true)));
    assert_eq!(ask(&host, "POST", "/api/v1/projects", ops, json!({"slug": "second"})).await.status, 200);
    let slugs = ask(&host, "GET", "/api/v1/projects", ops, Value::Null).await.json();
    assert_eq!(slugs["projects"].as_array().map(Vec::len), Some(2), "{slugs}");
    let wrong = ask(&host, "POST", "/api/v1/projects", ops, json!({"slgu": "x"})).await;
    assert_eq!((wrong.status, wrong.json()["code"].clone()), (400, json!("malformed")));
}
