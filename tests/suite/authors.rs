//! The way of a plugin's author, from an empty folder to a message that the plugin routed: with the documented commands, in each
//! language. `tests/run.sh` installs the tools for JavaScript and Python, which a build would install itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pointsman_tests::{Host, Setup, binary, pointsman};
use serde_json::json;

/// An author's empty folder.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("pointsman-author-").tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn plugin(&self, args: &[&str]) -> Output {
        let mut command = pointsman(&["plugin"]);
        // What cargo compiles for one run serves the next: the standard library takes a minute.
        command.args(args).current_dir(self.path()).env("CARGO_TARGET_DIR", target()).env("PATH", programs());
        command.output().expect("the binary runs")
    }

    /// Runs a command that must succeed; returns what it prints.
    fn done(&self, args: &[&str]) -> String {
        let out = self.plugin(args);
        assert!(out.status.success(), "pointsman plugin {args:?}: {}", said(&out));
        said(&out)
    }

    /// Runs a program in a plugin's folder, which must succeed.
    fn runs(&self, folder: &str, command: &mut Command) {
        let out = command.current_dir(self.path().join(folder)).env("PATH", programs()).output().expect("it runs");
        assert!(out.status.success(), "{command:?}: {}", said(&out));
    }

    /// Puts the tools that `tests/run.sh` installed where a build of this plugin looks for them.
    fn equip(&self, folder: &str, language: &str) {
        let tools = target().join("clients").join(format!("guest-{language}"));
        if tools.exists() {
            let own = self.path().join(folder).join(".pointsman");
            std::fs::create_dir_all(&own).expect("a folder");
            std::os::unix::fs::symlink(tools, own.join(language)).expect("a link");
        }
    }

    fn component(&self, name: &str) -> String {
        let path = self.path().join(name).join("dist").join(format!("{name}.wasm"));
        assert!(path.is_file(), "{} was not built", path.display());
        json!(path.to_string_lossy()).to_string()
    }
}

fn target() -> PathBuf {
    binary().parent().and_then(Path::parent).expect("the target folder").to_owned()
}

/// Returns where programs are: the Node that `tests/run.sh` installs where the system's is too old comes first.
fn programs() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::iter::once(target().join("clients/node/bin"));
    std::env::join_paths(own.chain(std::env::split_paths(&path))).expect("folders")
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Starts a host with a router of these settings, and sends a message of a kind that goes to everyone, and one that does not.
async fn routes(component: &str, name: &str) {
    let config = format!(
        "[routing]\nplugins = [\"{name}\"]\n[plugins.{name}]\nsource = {component}\n[plugins.{name}.config]\nbroadcast_kinds = [\"notice\"]\n"
    );
    let host = Host::start_with(Setup { config }).await;
    let (ana, ben, cyn) = (host.agent("ana", &["backend"]).await, host.agent("ben", &["backend"]).await, host.agent("cyn", &[]).await);
    let send = |kind: &str| json!({"to": ["backend"], "kind": kind, "subject": "hello", "idempotency_key": kind});
    let routed = cyn.call("send_message", send("notice")).await["routed"].clone();
    assert_eq!(routed.as_array().map(Vec::len), Some(2), "{routed}: the plugin sends notices to everyone\n{}", host.log());
    assert_eq!(
        (ana.mail(&["notice"]).await["subject"].as_str(), ben.mail(&["notice"]).await["subject"].as_str()),
        (Some("hello"), Some("hello"))
    );
    let routed = cyn.call("send_message", send("question")).await["routed"].clone();
    assert_eq!(routed.as_array().map(Vec::len), Some(1), "{routed}: and questions to the least busy");
    let listed: serde_json::Value = serde_json::from_slice(&host.command(&["plugin", "list", "--json"]).stdout).expect("JSON");
    let own = listed.as_array().into_iter().flatten().find(|line| line["name"] == name).expect("it is listed");
    assert!(own["calls"].as_u64() >= Some(2) && own["failures"] == 0, "{own}");
}

/// Returns what a host that is started with this configuration says.
fn refusal(component: &str, config: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "config_version = 1\n[server]\nbind = \"127.0.0.1:0\"\n[data]\ndir = \"data\"\n[routing]\nplugins = [\"mine\"]\n[plugins.mine]\nsource = {component}\n[plugins.mine.config]\n{config}\n"
    );
    let path = folder.path().join("pointsman.toml");
    std::fs::write(&path, text).expect("a file");
    let out = pointsman(&["up", "--config"]).arg(path).current_dir(folder.path()).output().expect("it runs");
    assert!(!out.status.success(), "it was to be refused");
    said(&out)
}

#[tokio::test]
async fn a_router_in_rust_from_an_empty_folder() {
    let desk = Desk::new();
    assert!(desk.done(&["new", "router", "least-busy"]).contains("pointsman plugin build least-busy"));
    let again = desk.plugin(&["new", "router", "least-busy"]);
    assert!(!again.status.success() && said(&again).contains("not empty"), "{}", said(&again));
    desk.done(&["build", "least-busy"]);
    let component = desk.component("least-busy");
    routes(&component, "least-busy").await;
    let misfit = refusal(&component, "ranked_max = 0");
    assert!(misfit.contains("at `/ranked_max`: 0 is less than the minimum of 1"), "{misfit}");
    let misspelt = refusal(&component, "ranked_mux = 3");
    assert!(
        misspelt.contains("'ranked_mux' was unexpected") && misspelt.contains("it knows `broadcast_kinds`, `ranked_max`"),
        "{misspelt}"
    );
}

#[tokio::test]
async fn a_router_in_javascript_from_an_empty_folder() {
    let desk = Desk::new();
    desk.done(&["new", "router", "least-busy", "--lang", "js"]);
    desk.runs("least-busy", Command::new("node").arg("--test"));
    desk.equip("least-busy", "js");
    desk.done(&["build", "least-busy"]);
    let component = desk.component("least-busy");
    routes(&component, "least-busy").await;
    let misfit = refusal(&component, "broadcast_kinds = \"notice\"");
    assert!(misfit.contains("`broadcast_kinds` is a list of kinds"), "{misfit}");
}

#[tokio::test]
async fn a_reconciler_in_python_from_an_empty_folder() {
    let desk = Desk::new();
    desk.done(&["new", "reconciler", "lists", "--lang", "python"]);
    let mut tests = Command::new("python3");
    tests.args(["-B", "-m", "unittest", "discover", "-s", "tests"]).env("PYTHONPATH", "src:vendor");
    desk.runs("lists", &mut tests);
    desk.equip("lists", "python");
    desk.done(&["build", "lists"]);
    let config = format!(
        "[[context.reconciler]]\nkeys = [\"lists/**\"]\nplugin = \"lists\"\n[plugins.lists]\nsource = {}\n[plugins.lists.config]\nmedia_type = \"text/plain\"\n",
        desk.component("lists")
    );
    let host = Host::start_with(Setup { config }).await;
    let (ana, ben) = (host.agent("ana", &[]).await, host.agent("ben", &[]).await);
    let write = |base: u64, text: &str| json!({"key": "lists/words", "base_version": base, "text": text, "media_type": "text/plain"});
    let first = ana.call("write_context", write(0, "a\nb\n")).await["version"].as_u64().expect("a version");
    ana.call("write_context", write(first, "b\nc\n")).await;
    let merged = ben.call("write_context", write(first, "a\nb\nd\n")).await;
    let read = ben.call("lookup", json!({"uri": "context/lists/words"})).await;
    assert_eq!((&read["version"], read["text"].as_str()), (&merged["version"], Some("b\nc\nd\n")), "{read}\n{}", host.log());
}

#[test]
fn the_examples_in_rust_answer_as_their_cases_say() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/examples/rust");
    let mut asked = 0;
    for folder in std::fs::read_dir(&examples).expect("the examples").map(|entry| entry.expect("an entry").path()) {
        if folder.join("cases").is_dir() {
            let out = Desk::new().plugin(&["test", &folder.to_string_lossy()]);
            assert!(out.status.success(), "{}: {}", folder.display(), said(&out));
            asked += 1;
        }
    }
    assert!(asked >= 6, "only {asked} examples have cases");
}

#[test]
fn what_cannot_be_begun_is_said() {
    let desk = Desk::new();
    for (args, what) in [
        (["new", "rooter", "mine", "--lang", "rust"], "there are router, merger"),
        (["new", "router", "My Own", "--lang", "rust"], "small letters"),
        (["new", "router", "mine", "--lang", "perl"], "there are rust, js and python"),
        (["new", "agent", "mine", "--lang", "js"], "in Rust only"),
    ] {
        let out = desk.plugin(&args);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", said(&out));
        assert!(said(&out).contains(what), "{args:?}: {}", said(&out));
    }
    assert_eq!(std::fs::read_dir(desk.path()).expect("a folder").count(), 0, "nothing is written");
}
