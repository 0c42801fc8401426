//! A newcomer's first minutes: from a checkout to agents that are connected.

use std::path::Path;
use std::process::{Command, Output};

use pointsman_client::{Client, Era};
use pointsman_tests::{free_port, git, pointsman, seed, until_ready};
use serde_json::{Value, json};

/// A user with a home folder, a checkout and a port.
struct Newcomer {
    folder: tempfile::TempDir,
    port: u16,
}

impl Newcomer {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        seed(&folder.path().join("My Railway"));
        Self { folder, port: free_port() }
    }

    fn checkout(&self) -> std::path::PathBuf {
        self.folder.path().join("My Railway")
    }

    fn home(&self) -> std::path::PathBuf {
        self.folder.path().join("home")
    }

    fn call(&self, args: &[&str]) -> Command {
        let mut command = pointsman(args);
        command.current_dir(self.checkout()).env("HOME", self.home()).env("POINTSMAN_SERVER_BIND", format!("127.0.0.1:{}", self.port));
        for name in ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "CODEX_HOME"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.call(args).output().expect("the binary runs")
    }
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn json_of(out: &Output) -> Value {
    assert!(out.status.success(), "{}", said(out));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
}

#[tokio::test]
async fn init_then_up_then_connect() {
    let newcomer = Newcomer::new();
    let made = json_of(&newcomer.run(&["init", "--json"]));
    assert_eq!(made["project"]["slug"], "my-railway");
    let secret = made["token"]["secret"].as_str().expect("a token, shown once").to_owned();
    assert!(made["data_dir"].as_str().is_some_and(|dir| Path::new(dir).starts_with(newcomer.home())), "{made}");
    assert!(git(&newcomer.checkout(), &["status", "--porcelain"]).trim_end() == "?? config/", "the file is all that is new");

    let config = read(&newcomer.checkout().join("config/pointsman.toml"));
    let again = json_of(&newcomer.run(&["init", "--json"]));
    assert_eq!((&again["config_is_new"], &again["token"]), (&json!(false), &Value::Null), "run again, it changes nothing");
    assert_eq!(read(&newcomer.checkout().join("config/pointsman.toml")), config);

    let mut up = tokio::process::Command::from(newcomer.call(&["up"]));
    let mut host = up.kill_on_drop(true).stderr(std::process::Stdio::null()).spawn().expect("the host starts");
    let url = made["url"].as_str().expect("an address");
    until_ready(&mut host, url.strip_suffix("/mcp/my-railway").expect("the address names the project")).await.expect("it serves");
    let client = Client::new(url, &secret, Era::Modern).expect("a client");
    client.connect().await.expect("it connects with what init printed");
    let answer = client.call("start", json!({"name": "first"})).await.expect("it starts");
    assert!(answer["result"].is_object(), "{answer}");
    let running = json_of(&newcomer.run(&["agent", "list", "--json"]));
    assert!(running.to_string().contains("my-railway"), "the command line asks the host that runs: {running}");
}

#[test]
fn connect_writes_each_client_s_own_form_and_keeps_the_rest() {
    let newcomer = Newcomer::new();
    json_of(&newcomer.run(&["init", "--json"]));
    let before = "{\n  // mine\n  \"mcpServers\": {\"other\": {\"command\": \"other\"}}\n}\n";
    std::fs::write(newcomer.checkout().join(".mcp.json"), before).expect("a file");
    for client in ["claude-code", "codex", "cursor"] {
        let out = newcomer.run(&["connect", client, "--write"]);
        assert!(out.status.success() || client == "claude-code", "{client}: {}", said(&out));
    }
    assert_eq!(read(&newcomer.checkout().join(".mcp.json")), before, "a comment is no JSON: the file stays as it was");
    std::fs::write(newcomer.checkout().join(".mcp.json"), before.replace("  // mine\n", "")).expect("a file");
    assert!(newcomer.run(&["connect", "claude-code", "--write"]).status.success());

    let claude: Value = serde_json::from_str(&read(&newcomer.checkout().join(".mcp.json"))).expect("JSON");
    assert_eq!(claude["mcpServers"]["other"]["command"], "other");
    assert_eq!(claude["mcpServers"]["pointsman"]["headers"]["Authorization"], "Bearer ${POINTSMAN_TOKEN}");
    let cursor: Value = serde_json::from_str(&read(&newcomer.checkout().join(".cursor/mcp.json"))).expect("JSON");
    assert_eq!(cursor["mcpServers"]["pointsman"]["headers"]["Authorization"], "Bearer ${env:POINTSMAN_TOKEN}");
    let codex = read(&newcomer.home().join(".codex/config.toml"));
    assert!(codex.contains("bearer_token_env_var = \"POINTSMAN_TOKEN\""), "{codex}");
    let twice = newcomer.run(&["connect", "codex", "--write"]);
    assert!(twice.status.success() && read(&newcomer.home().join(".codex/config.toml")) == codex, "written twice is written once");
}

#[test]
fn init_outside_a_checkout_says_what_to_do() {
    let newcomer = Newcomer::new();
    let out = newcomer.call(&["init"]).current_dir(newcomer.folder.path()).output().expect("the binary runs");
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("git init"), "{}", said(&out));
}
