//! `pointsman context`, for people and scripts.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use pointsman_core::context::content::ChunkHash;
use pointsman_tests::{Host, pointsman};
use serde_json::{Value, json};

use super::{Documents, cut_up, noise};

/// Somebody at a shell.
struct Shell {
    url: String,
    token: String,
    folder: PathBuf,
}

impl Shell {
    fn of(host: &Host, token: &str) -> Self {
        Self { url: host.url(), token: token.to_owned(), folder: host.folder().to_owned() }
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, Stdio::null()).await
    }

    async fn run_with(&self, args: &[&str], input: impl Into<Stdio>) -> Output {
        let mut command = tokio::process::Command::from(pointsman(&["context"]));
        let command = command.args(args).args(["--url", &self.url]).env("POINTSMAN_TOKEN", &self.token).current_dir(&self.folder);
        command.stdin(input).output().await.expect("the binary runs")
    }

    /// Runs what must succeed; returns what it printed.
    async fn done(&self, args: &[&str]) -> String {
        let out = self.run(args).await;
        assert!(out.status.success(), "{args:?}: {}", said(&out));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "part")).collect()
}

#[tokio::test]
async fn a_document_is_put_listed_compared_and_deleted_from_a_shell() {
    let host = Host::start().await;
    let shell = Shell::of(&host, &host.token("ana"));
    shell.write("api.md", b"one\ntwo\n");
    assert_eq!(shell.done(&["put", "plan/api", "api.md"]).await, "plan/api@1\n", "an agent that was never started is");
    assert_eq!(shell.done(&["put", "plan/api", "api.md"]).await, "plan/api@1 (unchanged)\n");
    let next = shell.write("next.md", b"one\n2\n");
    assert_eq!(shell.done(&["put", "plan/api", "next.md"]).await, "plan/api@2\n", "on top of the newest");
    assert_eq!(shell.done(&["get", "plan/api"]).await, "one\n2\n");
    assert_eq!(shell.done(&["get", "plan/api@1"]).await, "one\ntwo\n");
    let listed = shell.done(&["list", "plan/"]).await;
    assert!(listed.contains("KEY") && listed.contains("plan/api") && listed.contains("text/markdown"), "{listed}");
    let listed: Value = serde_json::from_str(&shell.done(&["list", "--json"]).await).expect("JSON");
    assert_eq!(listed["documents"][0]["version"], 2);
    assert_eq!(shell.done(&["history", "plan/api"]).await.lines().count(), 3);
    let diff = shell.done(&["diff", "plan/api", "1"]).await;
    assert!(diff.contains("-two\n") && diff.contains("+2\n"), "{diff}");
    assert!(shell.done(&["diff", "plan/api", "2", "1"]).await.contains("+two\n"));

    let file = std::fs::File::open(&next).expect("a file");
    let piped = shell.run_with(&["put", "plan/piped", "-", "--media-type", "text/plain", "--json"], file).await;
    assert_eq!(serde_json::from_slice::<Value>(&piped.stdout).expect("JSON")["version"], 1, "{}", said(&piped));

    shell.write("value.json", b"{\"a\": 1}");
    shell.done(&["put", "plan/value", "value.json"]).await;
    shell.write("value.json", b"{\"a\": 2}");
    shell.done(&["put", "plan/value", "value.json"]).await;
    let patch: Value = serde_json::from_str(&shell.done(&["diff", "plan/value", "1", "--json"]).await).expect("JSON");
    assert_eq!(patch["patch"], json!([{"op": "replace", "path": "/a", "value": 2}]), "{patch}");

    shell.write("other.md", b"one\nother\n");
    let conflict = shell.run(&["put", "plan/api", "other.md", "--base", "1"]).await;
    assert_eq!(conflict.status.code(), Some(1));
    assert!(said(&conflict).contains("cfl_") && said(&conflict).contains("--base 2"), "{}", said(&conflict));
    assert_eq!(shell.done(&["get", "plan/api"]).await, "one\n2\n");
    let stale = shell.run(&["delete", "plan/api", "--base", "1"]).await;
    assert_eq!(stale.status.code(), Some(1), "{}", said(&stale));
    assert!(shell.done(&["delete", "plan/api"]).await.contains("version 2 of it can be restored"));
    let gone = shell.run(&["get", "plan/api"]).await;
    assert!(gone.status.code() == Some(1) && said(&gone).contains("there is no document"), "{}", said(&gone));
    assert_eq!(shell.done(&["put", "plan/api", "api.md"]).await, "plan/api@4\n", "it is begun anew");

    for (args, code) in [
        (&["get", "plan//api"][..], 2),
        (&["get", "plan/api@x"], 2),
        (&["list", "plan&x"], 2),
        (&["put", "plan/api", "no-such-file"], 1),
        (&["put", "plan/api", "api.md", "--base", "99"], 1),
        (&["put", "plan/api", "api.md", "--agent", "Not A Name!"], 1),
        (&["get", "plan/none"], 1),
        (&["history", "plan/none"], 1),
        (&["delete", "plan/none"], 1),
    ] {
        let out = shell.run(args).await;
        assert!(out.status.code() == Some(code) && said(&out).contains("error: "), "{args:?}: {}", said(&out));
    }
    let stranger = Shell { token: String::new(), ..Shell::of(&host, "") };
    let refused = stranger.run(&["list"]).await;
    assert!(refused.status.code() == Some(1) && said(&refused).contains("POINTSMAN_TOKEN"), "{}", said(&refused));
}

#[tokio::test]
async fn a_large_document_goes_on_where_it_broke_off_both_ways() {
    let mut host = Host::start().await;
    let ana = host.agent("ana", &[]).await;
    let shell = Shell::of(&host, &ana.token);
    let documents = Documents::of(&host, &ana.token);
    let bytes = noise(23, (6 << 20) + 123);
    shell.write("log.bin", &bytes);
    // What an earlier run brought before it broke off.
    let (chunks, names) = cut_up(&bytes);
    documents.bring("builds/log", &chunks[..20]).await;
    host.restart().await;
    assert_eq!(shell.done(&["put", "builds/log", "log.bin"]).await, "builds/log@1\n");
    assert!(documents.get("builds/log", &[]).await.body == bytes);
    assert_eq!(documents.missing("builds/log", &names).await, Vec::<String>::new());
    assert_eq!(shell.done(&["put", "builds/log", "log.bin"]).await, "builds/log@1 (unchanged)\n");
    let mut edited = bytes.clone();
    edited.splice(3_000_000..3_000_000, *b"a few more bytes");
    shell.write("log.bin", &edited);
    assert_eq!(shell.done(&["put", "builds/log", "log.bin"]).await, "builds/log@2\n");

    shell.done(&["get", "builds/log@1", "--out", "old.bin"]).await;
    assert!(std::fs::read(host.folder().join("old.bin")).expect("a file") == bytes);
    let hash = documents.get("builds/log?chunks", &[]).await.json()["hash"].as_str().expect("a hash").to_owned();
    assert_eq!(hash, ChunkHash::of(&edited).to_string());
    // A part of this version is gone on with; one of another version is left alone.
    shell.write(&format!("new.bin.2-{}.part", &hash[..16]), &edited[..5_000_000]);
    shell.write("new.bin.1-0123456789abcdef.part", b"of another version");
    let shown = shell.done(&["get", "builds/log", "--out", "new.bin", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON")["version"], 2);
    assert!(std::fs::read(host.folder().join("new.bin")).expect("a file") == edited);
    assert_eq!(parts(host.folder()).len(), 1);
    // A part that somebody changed is found out, not taken.
    shell.write(&format!("new.bin.2-{}.part", &hash[..16]), b"not what the host sent");
    let changed = shell.run(&["get", "builds/log", "--out", "new.bin"]).await;
    assert!(changed.status.code() == Some(1) && said(&changed).contains("Run the command again"), "{}", said(&changed));
    shell.done(&["get", "builds/log", "--out", "new.bin"]).await;
    assert!(std::fs::read(host.folder().join("new.bin")).expect("a file") == edited);
}
