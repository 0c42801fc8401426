//! The command line: what is asked, in words of the operator; printing; exit codes.
//!
//! Owns: flags and their help, what is printed where (answers on standard output, everything else on standard error).
//! Must not know: adapters; `app` puts them together.
//!
//! **Invariant:** exit 0 when it was done, 1 when it failed, 2 when it was asked for wrongly (usage, configuration).

mod agent;
mod connect;
mod context;
mod hook;
mod inbox;
mod init;
mod json_edit;
mod letters;
mod mcp;
mod plugin;
mod replay;
mod watch;
mod why;

use std::ffi::OsString;
use std::fmt::Display;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::app::{self, Loading};
use crate::config::{Config, ConfigError, Environment, Flags};
use crate::demo::{self, DemoOptions};
use crate::ports::admin::{AdminError, AdminSurface};
use crate::service::kit::chain;
use crate::telemetry;

/// It failed.
const FAILED: u8 = 1;
/// It was asked for wrongly.
const MISUSED: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  pointsman demo                          four agents work on a copy of this repository, in a minute
  pointsman init                          in a repository: configuration, project, first token
  pointsman up                            serve it
  pointsman connect claude-code --write   tell a client about it

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.";

/// The host for many coding agents on one repository.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, about, after_help = EXAMPLES, disable_help_subcommand = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve agents, git and operators until SIGTERM or SIGINT
    #[command(
        after_help = "Examples:\n  pointsman up\n  pointsman up --data /srv/pointsman --bind 0.0.0.0:7420 --log info,pointsman=debug"
    )]
    Up(UpArgs),
    /// In a git repository: write its configuration, make its project and a first token
    Init(init::InitArgs),
    /// Print, or write, the entry by which a client finds the host
    Connect(connect::ConnectArgs),
    /// Be the host for a client that starts its servers as a process (stdio)
    Mcp(mcp::McpArgs),
    /// Credentials of agents and people
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Plugins: build, test, measure, sign, add, switch, pin and roll back; see how they fare
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Dead letters: messages that nobody took. List, look into, deliver again, purge
    #[command(subcommand)]
    Letters(letters::LettersCommand),
    /// Shared documents: list, get, put, compare, delete, with an agent's token
    Context(context::ContextArgs),
    /// Put recorded decisions to another component: what would it have decided otherwise?
    #[command(
        after_help = "Examples:\n  pointsman replay --plugin plugins/my-router --of routing-capability --since 24h\n  pointsman replay --plugin new.wasm --of routing-capability --since all --changed-max 0.01"
    )]
    Replay(replay::ReplayArgs),
    /// Say how the host on this data folder is; exit 0 only when it can serve
    Status(StatusArgs),
    /// Say how a message, task or merge came to stand where it stands, and whose move it is
    Why(why::WhyArgs),
    /// Run a command when something concerns an agent, taking nothing from it
    Watch(watch::WatchArgs),
    /// What a client's hooks call: what the agent comes back to, what waits for it
    Hook(hook::HookArgs),
    /// Watch four agents work on a copy of a repository, and check what they did
    #[command(after_help = "Examples:\n  pointsman demo\n  pointsman demo --repo ~/src/linux --json | jq .what\n  pointsman demo --keep")]
    Demo(DemoArgs),
}

/// Which settings.
#[derive(Debug, Clone, Args)]
struct SettingsArgs {
    /// Data folder [default: pointsman in the XDG data folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file [default: config/pointsman.toml, then ~/.config/pointsman/pointsman.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SettingsArgs {
    fn flags(&self) -> Flags {
        Flags { config: self.config.clone(), data_dir: self.data.clone(), ..Flags::default() }
    }
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Address to listen at; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    bind: Option<String>,
    /// Log level, with overrides: info,pointsman=debug
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Form of the log
    #[arg(long, value_name = "auto|text|json")]
    log_format: Option<String>,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Repository to work on a copy of [default: the one around here, else a generated one]
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Leave the host running and say how to connect
    #[arg(long)]
    keep: bool,
    /// Print the timeline as JSON lines
    #[arg(long)]
    json: bool,
}

/// Why a command ended without doing what was asked.
#[derive(Debug)]
enum Trouble {
    /// Asked for wrongly.
    Misused(String),
    /// Failed.
    Failed(String),
}

impl Trouble {
    fn misused(what: impl Display, advice: &str) -> Self {
        Self::Misused(format!("error: {what}\n  {advice}"))
    }

    fn failed(what: impl Display) -> Self {
        Self::Failed(format!("error: {what}"))
    }

    fn caused(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::failed(chain(error))
    }
}

impl From<ConfigError> for Trouble {
    fn from(error: ConfigError) -> Self {
        Self::Misused(error.to_string())
    }
}

impl From<AdminError> for Trouble {
    fn from(error: AdminError) -> Self {
        match &error {
            AdminError::Refused { why, advice, .. } => Self::Failed(format!("error: {why}\n  {advice}")),
            AdminError::Unavailable { .. } => Self::failed(&error),
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

/// Does what these arguments ask for; the first is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // To a client the code of misuse means that its hook wants it to go on.
    let misused = if arguments.get(1).is_some_and(|face| face == "hook") { FAILED } else { MISUSED };
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; clap knows the stream and the code of each.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { misused } else { 0 });
        }
    };
    match perform(cli.command) {
        Ok(code) => code,
        Err(Trouble::Misused(text)) => fail(&text, misused),
        Err(Trouble::Failed(text)) => fail(&text, FAILED),
    }
}

fn fail(text: &str, code: u8) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}

fn perform(command: Command) -> Result<ExitCode, Trouble> {
    let environment = Environment::of_process()?;
    match command {
        Command::Up(args) => up(&environment, args),
        Command::Init(args) => init::run(&environment, &args),
        Command::Connect(args) => connect::run(&environment, &args),
        Command::Mcp(args) => mcp::run(&environment, &args),
        Command::Agent(command) => agent::run(&environment, &command),
        Command::Plugin(command) => plugin::run(&environment, &command),
        Command::Letters(command) => letters::run(&environment, &command),
        Command::Context(args) => context::run(&environment, &args),
        Command::Replay(args) => replay::run(&environment, &args),
        Command::Status(args) => status(&environment, &args),
        Command::Why(args) => why::run(&environment, &args),
        Command::Watch(args) => watch::run(&environment, &args),
        Command::Hook(args) => Ok(hook::run(&environment, &args)),
        Command::Demo(args) => {
            let options = DemoOptions { repo: args.repo, keep: args.keep, json: args.json };
            block_on(demo::run(options))
        }
    }
}

/// Runs a future on a runtime of its own.
fn block_on<F: Future>(future: F) -> Result<F::Output, Trouble> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

fn up(environment: &Environment, args: UpArgs) -> Result<ExitCode, Trouble> {
    let flags = Flags { bind: args.bind, log_level: args.log, log_format: args.log_format, ..args.settings.flags() };
    let config = Config::load(environment, &flags)?;
    let exporter = telemetry::init(&config.log, config.traces.clone(), app::system()).map_err(|error| Trouble::caused(&error))?;
    let reread = app::reread(environment.clone(), flags, &config);
    block_on(app::up(config, Some(reread), exporter))?.map_err(|error| Trouble::caused(&error))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the operator's surface: of the host that runs on the data folder, else of the data folder itself.
async fn admin(config: &Config) -> Result<Box<dyn AdminSurface>, Trouble> {
    if let Some(running) = app::running(config).await.map_err(|error| Trouble::caused(&error))? {
        return Ok(running);
    }
    app::offline(config, Loading::All).await.map_err(|error| Trouble::caused(&error))
}

/// Returns the operator's surface for what needs no plugin: of the host that runs on the data folder, else of the folder itself.
async fn admin_of_records(config: &Config) -> Result<Box<dyn AdminSurface>, Trouble> {
    if let Some(running) = app::running(config).await.map_err(|error| Trouble::caused(&error))? {
        return Ok(running);
    }
    app::offline(config, Loading::None).await.map_err(|error| Trouble::caused(&error))
}

fn status(environment: &Environment, args: &StatusArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let folder = config.data_dir.display();
    let Some(status) = block_on(async {
        match app::running(&config).await.map_err(|error| Trouble::caused(&error))? {
            Some(host) => Ok(Some(host.status().await?)),
            None => Ok::<_, Trouble>(None),
        }
    })??
    else {
        return Err(Trouble::Failed(format!("no host runs on {folder}\n  start one with `pointsman up`")));
    };
    let code = if status.not_ready.is_none() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) };
    if args.json {
        print_json(&status)?;
        return Ok(code);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "pointsman {} at {}", status.version, status.url.as_deref().unwrap_or("no address"))?;
    match &status.not_ready {
        None => writeln!(out, "ready")?,
        Some(why) => writeln!(out, "not ready: {why}")?,
    }
    writeln!(out, "data      {folder}")?;
    writeln!(out, "projects  {}", if status.projects.is_empty() { "none".to_owned() } else { status.projects.join(", ") })?;
    for host in &status.hosts {
        let name = if host.is_this { "this host" } else { host.url.as_str() };
        let life = if host.is_live { "serves" } else { "gone" };
        writeln!(out, "host      {} ({name}) {life}, repositories of {} projects", host.host, host.projects)?;
    }
    letters::write_status(&mut out, &status)?;
    plugin::write_status(&mut out, &status)?;
    Ok(code)
}

fn print_json<T: serde::Serialize>(answer: &T) -> Result<(), Trouble> {
    let text = serde_json::to_string(answer).map_err(|error| Trouble::caused(&error))?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Writes a file whole or not at all: beside it, synced, renamed onto it. A link is followed, a mode is kept.
fn write_atomically(path: &Path, text: &str) -> Result<(), Trouble> {
    let named = |error: std::io::Error| Trouble::failed(format!("{}: {error}", path.display()));
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = real.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(folder).map_err(named)?;
    let mut file = tempfile::Builder::new().prefix(".pointsman-").tempfile_in(folder).map_err(named)?;
    let mode = match std::fs::metadata(&real) {
        Ok(there) => there.permissions(),
        Err(_) => std::os::unix::fs::PermissionsExt::from_mode(0o644),
    };
    file.write_all(text.as_bytes()).map_err(named)?;
    file.as_file().set_permissions(mode).map_err(named)?;
    file.as_file().sync_all().map_err(named)?;
    file.persist(&real).map_err(|error| named(error.error))?;
    Ok(())
}

/// Returns the root of the git checkout around a folder.
fn checkout_around(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|folder| folder.join(".git").exists())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_says_what_each_command_is_for() {
        let mut command = Cli::command();
        insta::assert_snapshot!(command.render_help().to_string(), @"
        The host for many coding agents on one repository: routing, shared context, branches and tested
        merges over MCP

        Usage: pointsman <COMMAND>

        Commands:
          up       Serve agents, git and operators until SIGTERM or SIGINT
          init     In a git repository: write its configuration, make its project and a first token
          connect  Print, or write, the entry by which a client finds the host
          mcp      Be the host for a client that starts its servers as a process (stdio)
          agent    Credentials of agents and people
          plugin   Plugins: build, test, measure, sign, add, switch, pin and roll back; see how they fare
          letters  Dead letters: messages that nobody took. List, look into, deliver again, purge
          context  Shared documents: list, get, put, compare, delete, with an agent's token
          replay   Put recorded decisions to another component: what would it have decided otherwise?
          status   Say how the host on this data folder is; exit 0 only when it can serve
          why      Say how a message, task or merge came to stand where it stands, and whose move it is
          watch    Run a command when something concerns an agent, taking nothing from it
          hook     What a client's hooks call: what the agent comes back to, what waits for it
          demo     Watch four agents work on a copy of a repository, and check what they did

        Options:
          -h, --help     Print help
          -V, --version  Print version

        Examples:
          pointsman demo                          four agents work on a copy of this repository, in a minute
          pointsman init                          in a repository: configuration, project, first token
          pointsman up                            serve it
          pointsman connect claude-code --write   tell a client about it

        Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
        ");
    }

    #[test]
    fn a_file_is_replaced_whole_through_a_link_and_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().join("real.json");
        std::fs::write(&real, "old").expect("written");
        std::fs::set_permissions(&real, PermissionsExt::from_mode(0o600)).expect("mode set");
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        write_atomically(&link, "new").expect("replaced");
        assert_eq!(std::fs::read_to_string(&real).expect("read"), "new");
        assert!(link.is_symlink());
        assert_eq!(std::fs::metadata(&real).expect("there").permissions().mode() & 0o777, 0o600);
        write_atomically(&folder.path().join("deep/er/new.toml"), "x").expect("folders are made");
    }
}
