//! The hooks that tell a client where its agent stands and wake it, in each client's own form.
//!
//! The forms, as the clients document them: Claude Code reads `.claude/settings.json`, Codex `hooks.json` beside its configuration,
//! both as groups of commands by event; Cursor reads `.cursor/hooks.json`, commands by event.
//!
//! **Invariants:** entries of others stay byte by byte; ours are known by their command and are there once; written twice is written
//! once.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::json_edit::{self, JsonEditError};
use super::{Client, ConnectArgs, Placed, Target, Trouble, place};
use crate::config::TOKEN_VARIABLE;

/// What every command of ours holds.
const OURS: &str = "pointsman hook ";
/// Seconds that a hook may hold up its client.
const SHORT_S: u64 = 15;
/// Seconds that a waker may wait in the background.
const LONG_S: u64 = 24 * 3_600;
/// Turns in a row that Cursor lets a hook begin.
const LOOPS: u64 = 5;

/// Merges the hooks of a client into its file, or prints them; says what the client does not allow.
pub(super) fn place_all(out: &mut impl Write, args: &ConnectArgs, target: &Target) -> Result<(), Trouble> {
    let file = target.hooks_file();
    let placed = place(out, args, &file, "the hooks", |there| target.hooked(there).map_err(|error| error.to_string()))?;
    if placed == Placed::Written && target.token.is_some() {
        writeln!(out, "They hold the token: keep the file out of version control.")?;
    }
    let allows = match target.client {
        Client::ClaudeCode => {
            "Claude Code 2.1 or newer wakes a session that is idle; an older one would be held up by it: take the hook with `--wake` out there."
        }
        Client::Codex => {
            "Codex asks you to trust new hooks (`/hooks`). It runs none in the background: an idle session is not woken by a hook; \
             `pointsman watch --exec 'codex exec resume --last \"$POINTSMAN_WATCH_SAYS\"'` does that for one that nobody sits at."
        }
        Client::Cursor => {
            "Cursor runs no hook in the background: a session is kept going while messages wait, one that is idle is not woken. Some \
             versions leave out what the first hook adds to the context; call `start` there."
        }
    };
    writeln!(std::io::stderr(), "{allows}")?;
    Ok(())
}

impl Target {
    fn hooks_file(&self) -> PathBuf {
        match self.client {
            // Beside `.mcp.json`, which stands at the root.
            Client::ClaudeCode => self.file.with_file_name(".claude").join("settings.json"),
            Client::Codex | Client::Cursor => self.file.with_file_name("hooks.json"),
        }
    }

    /// Returns the command of a hook.
    fn hook(&self, flag: &str) -> String {
        let client = match self.client {
            Client::ClaudeCode => "claude-code",
            Client::Codex => "codex",
            Client::Cursor => "cursor",
        };
        let token = self.token.as_ref().map(|token| format!("{TOKEN_VARIABLE}={} ", shell(token))).unwrap_or_default();
        format!("{token}{OURS}{client}{flag} --url {}", shell(&self.url))
    }

    /// Returns the client's file with the hooks in it.
    fn hooked(&self, there: &str) -> Result<String, JsonEditError> {
        let group = |text: &str, event: &str, group: &Value| json_edit::put_in_list(text, "hooks", event, group, is_our_group);
        let command = |flag: &str, timeout: u64| json!({"type": "command", "command": self.hook(flag), "timeout": timeout});
        let starts = json!({"matcher": "startup|resume|clear|compact", "hooks": [command("", SHORT_S)]});
        match self.client {
            Client::ClaudeCode => {
                let mut waker = command(" --wake", LONG_S);
                waker["asyncRewake"] = true.into();
                let text = group(there, "SessionStart", &starts)?;
                let text = group(&text, "Stop", &json!({"hooks": [waker]}))?;
                group(&text, "SessionEnd", &json!({"hooks": [command("", SHORT_S)]}))
            }
            Client::Codex => {
                let text = group(there, "SessionStart", &starts)?;
                group(&text, "Stop", &json!({"hooks": [command("", SHORT_S)]}))
            }
            Client::Cursor => {
                let one = |text: &str, event: &str, hook: &Value| json_edit::put_in_list(text, "hooks", event, hook, is_ours);
                let text = json_edit::put_if_absent(there, "version", &1)?;
                let text = one(&text, "sessionStart", &json!({"command": self.hook(""), "timeout": SHORT_S}))?;
                one(&text, "stop", &json!({"command": self.hook(""), "timeout": SHORT_S, "loop_limit": LOOPS}))
            }
        }
    }
}

fn is_ours(hook: &Value) -> bool {
    hook["command"].as_str().is_some_and(|command| command.contains(OURS))
}

/// A group that somebody put a hook of their own into is theirs.
fn is_our_group(group: &Value) -> bool {
    group["hooks"].as_array().is_some_and(|hooks| !hooks.is_empty() && hooks.iter().all(is_ours))
}

/// Returns a text as one word of a shell's command.
fn shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Way;
    use super::*;

    fn target(client: Client, file: &str) -> Target {
        Target { client, file: PathBuf::from(file), url: "http://127.0.0.1:7420/mcp".to_owned(), token: None, way: Way::Http }
    }

    fn read(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn each_client_gets_the_hooks_it_can_have() {
        let claude = target(Client::ClaudeCode, "/home/a/web/.mcp.json");
        assert_eq!(claude.hooks_file(), Path::new("/home/a/web/.claude/settings.json"));
        let hooks = read(&claude.hooked("").expect("written"))["hooks"].take();
        let command = "pointsman hook claude-code --url http://127.0.0.1:7420/mcp";
        assert_eq!(
            hooks["SessionStart"],
            json!([{"matcher": "startup|resume|clear|compact", "hooks": [{"type": "command", "command": command, "timeout": 15}]}])
        );
        let waker = &hooks["Stop"][0]["hooks"][0];
        assert_eq!((&waker["asyncRewake"], &waker["timeout"]), (&json!(true), &json!(86_400)));
        assert_eq!(waker["command"], "pointsman hook claude-code --wake --url http://127.0.0.1:7420/mcp");
        assert_eq!(hooks["SessionEnd"][0]["hooks"][0]["command"], command);

        let codex = target(Client::Codex, "/home/a/.codex/config.toml");
        assert_eq!(codex.hooks_file(), Path::new("/home/a/.codex/hooks.json"));
        let text = codex.hooked("").expect("written");
        assert!(!text.contains("asyncRewake") && !text.contains("--wake"), "{text}");
        assert_eq!(read(&text)["hooks"]["Stop"][0]["hooks"][0]["command"], "pointsman hook codex --url http://127.0.0.1:7420/mcp");

        let cursor = target(Client::Cursor, "/home/a/web/.cursor/mcp.json");
        assert_eq!(cursor.hooks_file(), Path::new("/home/a/web/.cursor/hooks.json"));
        let file = read(&cursor.hooked("").expect("written"));
        assert_eq!((&file["version"], &file["hooks"]["stop"][0]["loop_limit"]), (&json!(1), &json!(5)));
        assert_eq!(file["hooks"]["sessionStart"][0]["command"], "pointsman hook cursor --url http://127.0.0.1:7420/mcp");
    }

    #[test]
    fn hooks_of_others_stay_and_ours_are_there_once() {
        let there = r#"{
  "model": "x",
  "hooks": {
    "Stop": [
      {"hooks": [{"type": "command",  "command": "say done"}]},
      {"hooks": [{"type": "command", "command": "/usr/bin/pointsman hook claude-code --url http://old/mcp"}]}
    ]
  }
}
"#;
        let claude = target(Client::ClaudeCode, ".mcp.json");
        let once = claude.hooked(there).expect("written");
        assert!(
            once.contains(r#"{"hooks": [{"type": "command",  "command": "say done"}]}"#) && once.contains("\"model\": \"x\""),
            "{once}"
        );
        assert!(!once.contains("http://old/mcp"), "ours is brought up to date: {once}");
        assert_eq!(read(&once)["hooks"]["Stop"].as_array().map(Vec::len), Some(2));
        assert_eq!(claude.hooked(&once).expect("written"), once, "written twice is written once");
        let mixed = r#"{"hooks": {"Stop": [{"hooks": [{"command": "pointsman hook codex"}, {"command": "mine"}]}]}}"#;
        let kept = claude.hooked(mixed).expect("written");
        assert!(kept.contains(r#"{"command": "mine"}"#), "{kept}");
    }

    #[test]
    fn a_token_and_an_odd_address_are_one_word_each() {
        let odd = Target { token: Some("t'k".to_owned()), url: "http://h/mcp/a&b".to_owned(), ..target(Client::Codex, "config.toml") };
        assert_eq!(odd.hook(""), "POINTSMAN_TOKEN='t'\\''k' pointsman hook codex --url 'http://h/mcp/a&b'");
    }
}
