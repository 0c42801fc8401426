//! `pointsman connect`: the MCP entry in each client's own form.
//!
//! The forms, as the clients document them: Claude Code reads `.mcp.json` and expands `${NAME}`; Codex reads
//! `~/.codex/config.toml` (`CODEX_HOME`), takes the token from a variable it is given the name of and refuses one in the
//! file unless it is a plain header; Cursor reads `.cursor/mcp.json` and expands `${env:NAME}`. `hooks` has those of their hooks.

mod hooks;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;
use toml_edit::{DocumentMut, Item, Table, value};

use super::{SettingsArgs, Trouble, checkout_around, json_edit, write_atomically};
use crate::config::{Config, Environment, TOKEN_VARIABLE};

/// The entry's name in every client.
const ENTRY: &str = "pointsman";

/// A client that can be told about the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    ClaudeCode,
    Codex,
    Cursor,
}

const EXAMPLES: &str = "\
Examples:
  pointsman connect claude-code                 print the entry
  pointsman connect cursor --write              merge it into .cursor/mcp.json, keeping everything else
  pointsman connect codex --write --url https://pointsman.example.com --project web
  pointsman connect cursor --stdio              let the client start `pointsman mcp` instead of calling the host
  pointsman connect claude-code --write --hooks told where it stands when it starts, woken when something comes

The token is taken from the variable POINTSMAN_TOKEN when the client starts, so the file may be committed.";

/// Which host, and which of its projects.
#[derive(Debug, Args)]
pub(super) struct EndpointArgs {
    /// Where the host is reached [default: from the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Project, where a token opens several
    #[arg(long, value_name = "SLUG")]
    project: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl EndpointArgs {
    /// Returns the address of the endpoint: what was given, else what the configuration says.
    pub(super) fn resolve(&self, environment: &Environment) -> Result<String, Trouble> {
        let base = match &self.url {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => url.trim_end_matches('/').to_owned(),
            Some(url) => {
                return Err(Trouble::misused(format!("`{url}` is not a URL"), "write it with its scheme, such as http://127.0.0.1:7420"));
            }
            None => {
                let config = Config::load(environment, &self.settings.flags())?;
                config.public_url(config.server.bind)
            }
        };
        // An endpoint that `connect` wrote down names its project.
        let named = base.rsplit_once("/mcp/").filter(|(_, slug)| !slug.is_empty() && !slug.contains('/'));
        let base = match (named, &self.project) {
            (Some(_), None) => return Ok(base),
            (Some((host, _)), Some(_)) => format!("{host}/mcp"),
            (None, _) if base.ends_with("/mcp") => base,
            (None, _) => format!("{base}/mcp"),
        };
        Ok(self.project.as_ref().map_or_else(|| base.clone(), |slug| format!("{base}/{slug}")))
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConnectArgs {
    /// Which client
    client: Client,
    /// Merge the entry into the client's file
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Write this token itself instead of the variable
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Let the client start `pointsman mcp`, for clients that call no address
    #[arg(long)]
    stdio: bool,
    /// Its hooks too: it is told where it stands when it starts, and what waits when it stops or sleeps
    #[arg(long)]
    hooks: bool,
}

/// Where the entry goes, and how it is written.
struct Target {
    client: Client,
    file: PathBuf,
    url: String,
    token: Option<String>,
    way: Way,
}

/// How the client reaches the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It calls the host's address.
    Http,
    /// It starts `pointsman mcp`.
    Stdio,
}

#[derive(Serialize)]
struct JsonCommand {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    command: &'static str,
    args: [String; 3],
    env: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct JsonEntry {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    url: String,
    headers: BTreeMap<&'static str, String>,
}

pub(super) fn run(environment: &Environment, args: &ConnectArgs) -> Result<ExitCode, Trouble> {
    let target = target(environment, args)?;
    let mut out = std::io::stdout().lock();
    let placed = place(&mut out, args, &target.file, &format!("the entry `{ENTRY}`"), |there| target.merged(there))?;
    match (placed, &target.token) {
        (Placed::Written, Some(_)) => writeln!(out, "It holds the token: keep the file out of version control.")?,
        (Placed::Written, None) => {
            writeln!(out, "Set {TOKEN_VARIABLE} where the client starts; `pointsman agent add NAME` makes a token.")?;
        }
        (Placed::Printed | Placed::There, _) => {}
    }
    if args.hooks {
        hooks::place_all(&mut out, args, &target)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of something for a client's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    /// Nobody asked to write it.
    Printed,
    /// It was there before.
    There,
    /// It is there now.
    Written,
}

/// Merges something into a client's file, or prints it where nobody asked to write it.
fn place(
    out: &mut impl Write,
    args: &ConnectArgs,
    file: &Path,
    what: &str,
    merged: impl Fn(&str) -> Result<String, String>,
) -> Result<Placed, Trouble> {
    let shown = file.display();
    if !args.write {
        write!(out, "{}", merged("").map_err(Trouble::failed)?)?;
        out.flush()?;
        writeln!(std::io::stderr(), "\nThis belongs in {shown}; `--write` merges it in.")?;
        return Ok(Placed::Printed);
    }
    let there = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Trouble::failed(format!("{shown}: {error}"))),
    };
    let text = merged(&there).map_err(|problem| {
        Trouble::failed(format!(
            "{shown}: {problem}\n  Nothing was written there. Repair the file, or add by hand what `pointsman connect` prints."
        ))
    })?;
    if text == there {
        writeln!(out, "{shown} has {what} already")?;
        return Ok(Placed::There);
    }
    write_atomically(file, &text)?;
    writeln!(out, "wrote {what} to {shown}")?;
    Ok(Placed::Written)
}

fn target(environment: &Environment, args: &ConnectArgs) -> Result<Target, Trouble> {
    let url = args.endpoint.resolve(environment)?;
    let root = checkout_around(environment.folder()).unwrap_or_else(|| environment.folder());
    let file = match args.client {
        Client::ClaudeCode => root.join(".mcp.json"),
        Client::Cursor => root.join(".cursor/mcp.json"),
        Client::Codex => {
            let home = || environment.get("HOME").map(|home| Path::new(home).join(".codex"));
            let folder = environment.get("CODEX_HOME").map(PathBuf::from).or_else(home);
            folder
                .ok_or_else(|| Trouble::misused("neither CODEX_HOME nor HOME is set", "set one, so that Codex's folder is known"))?
                .join("config.toml")
        }
    };
    let way = if args.stdio { Way::Stdio } else { Way::Http };
    Ok(Target { client: args.client, file, url, token: args.token.clone(), way })
}

impl Target {
    /// Returns the client's file with the entry in it.
    fn merged(&self, there: &str) -> Result<String, String> {
        let variable = match self.client {
            Client::ClaudeCode => format!("${{{TOKEN_VARIABLE}}}"),
            Client::Cursor => format!("${{env:{TOKEN_VARIABLE}}}"),
            Client::Codex => return self.merged_toml(there),
        };
        let token = self.token.clone().unwrap_or(variable);
        let is_typed = self.client == Client::ClaudeCode;
        let put = match self.way {
            Way::Http => {
                let headers = BTreeMap::from([("Authorization", format!("Bearer {token}"))]);
                let entry = JsonEntry { kind: is_typed.then_some("http"), url: self.url.clone(), headers };
                json_edit::put(there, "mcpServers", ENTRY, &entry)
            }
            Way::Stdio => {
                let kind = is_typed.then_some("stdio");
                let env = BTreeMap::from([(TOKEN_VARIABLE, token)]);
                json_edit::put(there, "mcpServers", ENTRY, &JsonCommand { kind, command: ENTRY, args: self.arguments(), env })
            }
        };
        put.map_err(|error| error.to_string())
    }

    /// Returns the arguments of `pointsman` that make it the host. The address is written out: a client starts it in any folder.
    fn arguments(&self) -> [String; 3] {
        ["mcp".to_owned(), "--url".to_owned(), self.url.clone()]
    }

    fn merged_toml(&self, there: &str) -> Result<String, String> {
        let mut document: DocumentMut = there.parse().map_err(|error: toml_edit::TomlError| {
            let line = there[..error.span().map_or(0, |span| span.start.min(there.len()))].matches('\n').count() + 1;
            format!("line {line}: not TOML ({})", error.message().lines().collect::<Vec<_>>().join(", "))
        })?;
        let servers = document.entry("mcp_servers").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let servers = servers.as_table_like_mut().ok_or("`mcp_servers` is not a table")?;
        let entry = servers.entry(ENTRY).or_insert_with(|| Item::Table(Table::new()));
        let entry = entry.as_table_like_mut().ok_or_else(|| format!("`mcp_servers.{ENTRY}` is not a table"))?;
        // An entry is either a command or a URL; one from an older set-up would be refused beside ours.
        for other in ["command", "args", "env", "env_vars", "url", "bearer_token_env_var", "http_headers"] {
            if other != if self.way == Way::Http { "url" } else { "command" } {
                entry.remove(other);
            }
        }
        match self.way {
            Way::Http => set(entry, "url", value(&self.url)),
            Way::Stdio => {
                set(entry, "command", value(ENTRY));
                set(entry, "args", value(toml_edit::Array::from_iter(self.arguments())));
            }
        }
        match (&self.token, self.way) {
            (None, Way::Http) => set(entry, "bearer_token_env_var", value(TOKEN_VARIABLE)),
            (None, Way::Stdio) => set(entry, "env_vars", value(toml_edit::Array::from_iter([TOKEN_VARIABLE]))),
            (Some(token), Way::Stdio) => {
                let mut variables = toml_edit::InlineTable::new();
                variables.insert(TOKEN_VARIABLE, token.into());
                set(entry, "env", value(variables));
            }
            (Some(token), Way::Http) => {
                let mut headers = toml_edit::InlineTable::new();
                headers.insert("Authorization", format!("Bearer {token}").into());
                set(entry, "http_headers", value(headers));
            }
        }
        Ok(document.to_string())
    }
}

/// Sets a key and leaves the comments around it.
fn set(table: &mut dyn toml_edit::TableLike, key: &str, new: Item) {
    match table.get_mut(key) {
        Some(old) => {
            let decor = old.as_value().map(|value| value.decor().clone());
            *old = new;
            if let (Some(decor), Some(value)) = (decor, old.as_value_mut()) {
                *value.decor_mut() = decor;
            }
        }
        None => {
            table.insert(key, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(client: Client, token: Option<&str>) -> Target {
        Target {
            client,
            file: PathBuf::new(),
            url: "http://127.0.0.1:7420/mcp".to_owned(),
            token: token.map(str::to_owned),
            way: Way::Http,
        }
    }

    fn by_stdio(client: Client, token: Option<&str>) -> Target {
        Target { way: Way::Stdio, ..target(client, token) }
    }

    #[test]
    fn a_client_can_start_the_bridge_instead() {
        insta::assert_snapshot!(by_stdio(Client::ClaudeCode, None).merged("").expect("merged"), @r#"
        {
          "mcpServers": {
            "pointsman": {
              "type": "stdio",
              "command": "pointsman",
              "args": [
                "mcp",
                "--url",
                "http://127.0.0.1:7420/mcp"
              ],
              "env": {
                "POINTSMAN_TOKEN": "${POINTSMAN_TOKEN}"
              }
            }
          }
        }
        "#);
        let http = target(Client::Codex, None).merged("").expect("merged");
        insta::assert_snapshot!(by_stdio(Client::Codex, None).merged(&http).expect("merged"), @r#"
        [mcp_servers.pointsman]
        command = "pointsman"
        args = ["mcp", "--url", "http://127.0.0.1:7420/mcp"]
        env_vars = ["POINTSMAN_TOKEN"]
        "#);
        let stdio = by_stdio(Client::Codex, Some("t0ken")).merged("").expect("merged");
        assert!(stdio.contains("env = { POINTSMAN_TOKEN = \"t0ken\" }"), "{stdio}");
        assert_eq!(target(Client::Codex, None).merged(&stdio).expect("merged"), http, "and back");
    }

    #[test]
    fn each_client_gets_its_own_form() {
        insta::assert_snapshot!(target(Client::ClaudeCode, None).merged("").expect("merged"), @r#"
        {
          "mcpServers": {
            "pointsman": {
              "type": "http",
              "url": "http://127.0.0.1:7420/mcp",
              "headers": {
                "Authorization": "Bearer ${POINTSMAN_TOKEN}"
              }
            }
          }
        }
        "#);
        insta::assert_snapshot!(target(Client::Codex, None).merged("").expect("merged"), @r#"
        [mcp_servers.pointsman]
        url = "http://127.0.0.1:7420/mcp"
        bearer_token_env_var = "POINTSMAN_TOKEN"
        "#);
        insta::assert_snapshot!(target(Client::Cursor, None).merged("").expect("merged"), @r#"
        {
          "mcpServers": {
            "pointsman": {
              "url": "http://127.0.0.1:7420/mcp",
              "headers": {
                "Authorization": "Bearer ${env:POINTSMAN_TOKEN}"
              }
            }
          }
        }
        "#);
        insta::assert_snapshot!(target(Client::Codex, Some("t0ken")).merged("").expect("merged"), @r#"
        [mcp_servers.pointsman]
        url = "http://127.0.0.1:7420/mcp"
        http_headers = { Authorization = "Bearer t0ken" }
        "#);
    }

    #[test]
    fn codex_keeps_its_other_settings_and_comments() {
        let there = "# mine\nmodel = \"x\" # the good one\n\n[mcp_servers.other]\ncommand = \"o\"\n\n[mcp_servers.pointsman]\n# old\ncommand = \"p\"\nstartup_timeout_sec = 9\n";
        let merged = target(Client::Codex, None).merged(there).expect("merged");
        insta::assert_snapshot!(merged, @r#"
        # mine
        model = "x" # the good one

        [mcp_servers.other]
        command = "o"

        [mcp_servers.pointsman]
        startup_timeout_sec = 9
        url = "http://127.0.0.1:7420/mcp"
        bearer_token_env_var = "POINTSMAN_TOKEN"
        "#);
        assert_eq!(target(Client::Codex, None).merged(&merged).expect("merged"), merged, "a second time changes nothing");
    }

    #[test]
    fn a_broken_file_is_named_by_line() {
        insta::assert_snapshot!(target(Client::Codex, None).merged("a = 1\nb = = 2\n").expect_err("broken"), @"line 2: not TOML (extra `=`, expected nothing)");
        insta::assert_snapshot!(target(Client::Codex, None).merged("mcp_servers = 3\n").expect_err("no table"), @"`mcp_servers` is not a table");
        insta::assert_snapshot!(target(Client::Cursor, None).merged("{\n  \"a\": 1,\n}").expect_err("broken"), @"line 3, column 1: not JSON (key must be a string)");
    }
}
