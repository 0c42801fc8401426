//! `pointsman letters`: dead letters, and what `status` says of messages.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use pointsman_core::ids::MessageId;

use super::agent::{lifetime_ms, write_columns};
use super::{FAILED, SettingsArgs, Trouble, admin, block_on, print_json};
use crate::config::{Config, Environment};
use crate::ports::admin::{AdminSurface, HostStatus};
use crate::ports::letters::{
    LETTERS_LISTED_MAX, LetterEnd, LetterEvent, LetterListed, LetterOutcome, LetterSelection, LetterVerb, LettersChanged, ReplayTo, Run,
};

const REPLAY_EXAMPLES: &str = "\
Examples:
  pointsman letters replay msg_…
  pointsman letters replay --all --agent builder --dry-run
  pointsman letters replay --all --kind review_request --anew";

const PURGE_EXAMPLES: &str = "\
Examples:
  pointsman letters purge msg_…
  pointsman letters purge --all --older-than 30d --dry-run";

#[derive(Debug, Subcommand)]
pub(super) enum LettersCommand {
    /// List dead letters, the oldest message first
    List(ListArgs),
    /// Show a message, its dead letters, and all that was tried
    Show(ShowArgs),
    /// Deliver dead letters again, with all their tries
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Take dead letters off the list; their messages go with the settled ones
    #[command(after_help = PURGE_EXAMPLES)]
    Purge(ChangeArgs),
}

/// Which letters.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Of this project [default: all]
    #[arg(long, value_name = "SLUG")]
    project: Option<String>,
    /// That this agent had last: its name or id
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Whose message is of this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Given up at least so long ago: 90m, 12h, 30d
    #[arg(long, value_name = "AGE", value_parser = lifetime_ms)]
    older_than: Option<u64>,
}

impl FilterArgs {
    fn selection(&self) -> LetterSelection {
        LetterSelection {
            project: self.project.clone(),
            agent: self.agent.clone(),
            kind: self.kind.clone(),
            older_than_ms: self.older_than,
            ..LetterSelection::default()
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Go on behind an earlier page: what it gave as the place to go on from
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
    /// Print one JSON object: letters, and next
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The message (msg_…)
    message: MessageId,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Have the routers choose again, where they chose before [default: to the agent that had it last]
    #[arg(long)]
    anew: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// The messages (msg_…)
    #[arg(value_name = "MESSAGE")]
    messages: Vec<MessageId>,
    /// All that the other options leave, without naming messages
    #[arg(long, conflicts_with = "messages")]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Say how many it would be, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(environment: &Environment, command: &LettersCommand) -> Result<ExitCode, Trouble> {
    match command {
        LettersCommand::List(args) => list(environment, args),
        LettersCommand::Show(args) => show(environment, args),
        LettersCommand::Replay(args) => {
            let to = if args.anew { ReplayTo::Anew } else { ReplayTo::Same };
            change(environment, LetterVerb::Replay(to), &args.change)
        }
        LettersCommand::Purge(args) => change(environment, LetterVerb::Purge, args),
    }
}

fn list(environment: &Environment, args: &ListArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let selection = LetterSelection { limit: Some(args.limit), after: args.after.clone(), ..args.filter.selection() };
    let page = block_on(async { Ok::<_, Trouble>(admin(&config).await?.letters(selection).await?) })??;
    if args.json {
        print_json(&page)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    if page.letters.is_empty() && page.next.is_none() {
        writeln!(out, "no dead letters")?;
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["MESSAGE", "PROJECT", "AGENT", "KIND", "SINCE", "TRIES", "FROM", "SUBJECT", "REASON"].map(str::to_owned);
    write_columns(&mut out, std::iter::once(head).chain(page.letters.iter().map(row)))?;
    if let Some(next) = page.next {
        writeln!(out, "\nthere may be more: --after {next}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(letter: &LetterListed) -> [String; 9] {
    let cut = |text: &str| if text.chars().count() > 40 { text.chars().take(39).chain(['…']).collect() } else { text.to_owned() };
    [
        letter.message.to_string(),
        letter.project.clone(),
        letter.agent.clone(),
        letter.kind.clone(),
        letter.dead_at.to_string(),
        letter.attempts.to_string(),
        letter.from.clone(),
        cut(&letter.subject),
        cut(&letter.reason),
    ]
}

fn show(environment: &Environment, args: &ShowArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let shown = block_on(async { Ok::<_, Trouble>(admin(&config).await?.letter(args.message).await?) })??;
    if args.json {
        print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} in {}", args.message, shown.project)?;
    let text = |name: &str| shown.message[name].as_str().map_or_else(|| shown.message[name].to_string(), str::to_owned);
    for name in ["kind", "subject", "to", "body", "thread"] {
        writeln!(out, "{name:<8}  {}", text(name).replace('\n', "\n          "))?;
    }
    writeln!(out, "{:<8}  {}", "from", shown.message["from"]["name"].as_str().unwrap_or_default())?;
    match shown.letters.as_slice() {
        [] => writeln!(out, "\nit is no dead letter now")?,
        letters => {
            for letter in letters {
                writeln!(out, "\ndead with {} since {}: {}", letter.agent, letter.dead_at, letter.reason)?;
            }
        }
    }
    writeln!(out)?;
    write_columns(&mut out, shown.history.iter().map(event_row))?;
    if !shown.is_whole {
        writeln!(out, "… the log is longer than what was read of it")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn event_row(event: &LetterEvent) -> [String; 5] {
    [
        event.at.to_string(),
        event.kind.clone(),
        event.agent.clone().unwrap_or_default(),
        event.attempt.filter(|attempt| *attempt > 0).map(|attempt| format!("try {attempt}")).unwrap_or_default(),
        event.reason.clone().unwrap_or_default(),
    ]
}

fn change(environment: &Environment, verb: LetterVerb, args: &ChangeArgs) -> Result<ExitCode, Trouble> {
    if args.messages.is_empty() && !args.all {
        return Err(Trouble::misused(
            "nothing says which dead letters are meant",
            "Name messages, or say --all, narrowed by other options.",
        ));
    }
    let config = Config::load(environment, &args.settings.flags())?;
    let run = if args.dry_run { Run::Dry } else { Run::Real };
    let selection =
        LetterSelection { messages: args.messages.clone(), all: args.all, limit: Some(LETTERS_LISTED_MAX), ..args.filter.selection() };
    let changed = block_on(async { change_all(admin(&config).await?.as_ref(), verb, run, selection).await })??;
    let is_refused = changed.letters.iter().any(|outcome| outcome.outcome == LetterEnd::Refused);
    let code = if is_refused { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
    if args.json {
        print_json(&changed)?;
        return Ok(code);
    }
    let mut out = std::io::stdout().lock();
    let done = match verb {
        LetterVerb::Replay(_) => "delivered again",
        LetterVerb::Purge => "purged",
    };
    if run == Run::Dry {
        writeln!(out, "{} dead letters would be {done}; nothing was changed", changed.selected)?;
        return Ok(code);
    }
    for outcome in &changed.letters {
        write_outcome(&mut out, outcome)?;
    }
    writeln!(out, "{} of {} dead letters are {done}", changed.changed, changed.selected)?;
    Ok(code)
}

/// Changes letters page by page, until there are no more.
async fn change_all(
    surface: &dyn AdminSurface,
    verb: LetterVerb,
    run: Run,
    mut selection: LetterSelection,
) -> Result<LettersChanged, Trouble> {
    let mut all = LettersChanged::default();
    loop {
        let LettersChanged { selected, changed, letters, next } = surface.letters_change(verb, run, selection.clone()).await?;
        all.selected += selected;
        all.changed += changed;
        all.letters.extend(letters);
        match next {
            Some(next) => selection.after = Some(next),
            None => return Ok(all),
        }
    }
}

fn write_outcome(out: &mut impl Write, outcome: &LetterOutcome) -> std::io::Result<()> {
    let word = match outcome.outcome {
        LetterEnd::Revived => "revived",
        LetterEnd::Purged => "purged",
        LetterEnd::Unchanged => "unchanged",
        LetterEnd::Refused => "refused",
    };
    write!(out, "{word} {}", outcome.message)?;
    if let Some(agent) = &outcome.agent {
        write!(out, " of {agent}")?;
    }
    if let Some(to) = outcome.to.as_ref().filter(|to| Some(*to) != outcome.agent.as_ref()) {
        write!(out, ", to {to}")?;
    }
    if let Some(why) = &outcome.why {
        write!(out, ": {why}")?;
    }
    writeln!(out)
}

/// Writes what `status` says of the messages.
pub(super) fn write_status(out: &mut impl Write, status: &HostStatus) -> std::io::Result<()> {
    for kept in &status.messages {
        if kept.dead_letters > 0 {
            writeln!(out, "letters   {} dead in {}; `pointsman letters list` shows them", kept.dead_letters, kept.project)?;
        }
        if let Some(pruned) = &kept.pruned {
            let (messages, letters) = (pruned.messages, pruned.dead_letters);
            writeln!(out, "removed   {messages} old messages, {letters} dead letters in {}, at {}", kept.project, pruned.at)?;
        }
    }
    Ok(())
}
