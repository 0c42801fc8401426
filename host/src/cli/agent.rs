//! `pointsman agent`: credentials. A secret is printed once, when it is made.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use pointsman_core::event::Provenance;

use super::{SettingsArgs, Trouble, admin, block_on, print_json};
use crate::config::{Config, Environment, TOKEN_VARIABLE};
use crate::ports::admin::{AgentAdd, AgentListed};

const EXAMPLES: &str = "\
Examples:
  pointsman agent add ana --human
  pointsman agent add builder --capability rust --capability review --expires 30d
  export POINTSMAN_TOKEN=$(pointsman agent add ci --toolset files --json | jq -r .secret)";

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Mint a token; it is printed once
    #[command(after_help = EXAMPLES)]
    Add(AddArgs),
    /// List tokens, without their secrets
    List(ListArgs),
    /// Revoke one token by its id, or every token of a name
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Whom the token names; messages and commits carry it
    name: String,
    /// It is for a person: what is done with it counts as a human's word
    #[arg(long)]
    human: bool,
    /// Capability its agents may claim; repeat it for more [default: any]
    #[arg(long, value_name = "NAME")]
    capability: Vec<String>,
    /// Toolset beyond the default one: files, admin; repeat it for more
    #[arg(long, value_name = "NAME")]
    toolset: Vec<String>,
    /// Project it opens, the first one at plain /mcp; repeat it for more [default: all there are]
    #[arg(long, value_name = "SLUG")]
    project: Vec<String>,
    /// How long it works: 90m, 12h, 30d [default: until revoked]
    #[arg(long, value_name = "TIME", value_parser = lifetime_ms)]
    expires: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Expired and revoked ones too
    #[arg(long)]
    all: bool,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// Token id (tok_…), or a name
    #[arg(value_name = "TOKEN|NAME")]
    which: String,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(environment: &Environment, command: &AgentCommand) -> Result<ExitCode, Trouble> {
    match command {
        AgentCommand::Add(args) => add(environment, args),
        AgentCommand::List(args) => list(environment, args),
        AgentCommand::Revoke(args) => revoke(environment, args),
    }
}

fn add(environment: &Environment, args: &AddArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let add = AgentAdd {
        name: args.name.clone(),
        provenance: if args.human { Provenance::Human } else { Provenance::Agent },
        capabilities: args.capability.clone(),
        toolsets: args.toolset.clone(),
        projects: args.project.clone(),
        lifetime_ms: args.expires,
    };
    let added = block_on(async { Ok::<_, Trouble>(admin(&config).await?.agent_add(add).await?) })??;
    if args.json {
        print_json(&added)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} may open {}", added.name, projects(&added.projects))?;
    if let Some(end) = added.expires_at {
        writeln!(out, "until {end}")?;
    }
    writeln!(out, "\n  export {TOKEN_VARIABLE}={}\n", added.secret)?;
    writeln!(out, "It is shown this once. `pointsman agent revoke {}` ends it.", added.token)?;
    Ok(ExitCode::SUCCESS)
}

fn list(environment: &Environment, args: &ListArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let mut agents = block_on(async { Ok::<_, Trouble>(admin(&config).await?.agent_list().await?) })??;
    agents.retain(|agent| args.all || agent.live);
    if args.json {
        print_json(&agents)?;
    } else if agents.is_empty() {
        writeln!(std::io::stdout(), "no tokens; `pointsman agent add NAME` makes one")?;
    } else {
        print_table(&agents)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn revoke(environment: &Environment, args: &RevokeArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let revoked = block_on(async { Ok::<_, Trouble>(admin(&config).await?.agent_revoke(&args.which).await?) })??;
    if args.json {
        print_json(&revoked)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    for agent in &revoked {
        writeln!(out, "revoked {} of {}", agent.token, agent.name)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn projects(slugs: &[String]) -> String {
    if slugs.is_empty() { "no project".to_owned() } else { slugs.join(", ") }
}

fn print_table(agents: &[AgentListed]) -> Result<(), Trouble> {
    let rows = agents.iter().map(|agent| {
        let provenance = match agent.provenance {
            Provenance::Human => "human",
            Provenance::Agent => "agent",
            Provenance::Plugin => "plugin",
            Provenance::Host => "host",
        };
        let state = match (agent.revoked_at, agent.expires_at, agent.live) {
            (Some(at), ..) => format!("revoked {at}"),
            (None, Some(at), true) => format!("until {at}"),
            (None, Some(at), false) => format!("expired {at}"),
            (None, None, _) => "until revoked".to_owned(),
        };
        let may = if agent.capabilities.is_empty() { "any".to_owned() } else { agent.capabilities.join(" ") };
        [agent.name.clone(), provenance.to_owned(), projects(&agent.projects), may, state, agent.token.to_string()]
    });
    let head = ["NAME", "KIND", "PROJECTS", "CAPABILITIES", "WORKS", "TOKEN"].map(str::to_owned);
    write_columns(&mut std::io::stdout().lock(), std::iter::once(head).chain(rows))?;
    Ok(())
}

/// Writes rows in columns as wide as their widest cell.
pub(super) fn write_columns<const N: usize>(out: &mut impl Write, rows: impl Iterator<Item = [String; N]>) -> std::io::Result<()> {
    let rows: Vec<[String; N]> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Returns the milliseconds of `90m`, `12h`, `30d` or `45s`.
pub(super) fn lifetime_ms(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number and s, m, h or d, such as 30d".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms: u64 = match &text[digits.len()..] {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(unit_ms).filter(|ms| (1..=100 * 366 * 86_400_000).contains(ms)).ok_or_else(|| "expected 1s to 100 years".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_units() {
        assert_eq!(lifetime_ms("30d"), Ok(30 * 86_400_000));
        assert_eq!(lifetime_ms("90m"), Ok(5_400_000));
        for wrong in ["", "30", "d", "1.5h", "-1d", "30 d", "0s", "99999999999999999999d", "9999999d", "1w"] {
            assert!(lifetime_ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let rows = [["NAME", "X"], ["ä", "long"], ["longer", ""]].map(|row| row.map(str::to_owned));
        write_columns(&mut out, rows.into_iter()).expect("written");
        assert_eq!(String::from_utf8(out).expect("UTF-8"), "NAME    X\nä       long\nlonger\n");
    }
}
