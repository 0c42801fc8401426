//! An agent's inbox as wakers see it: what waits, what happened, without taking any of it. Knows the host by MCP only.
//!
//! **Invariants:** looking takes nothing and ends no wait of the agent; what went wrong is sorted by what to do about it; what is
//! kept of what happened is bounded.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use pointsman_client::{CallError, Client, Era, TransportError};
use serde_json::{Value, json};

use super::Trouble;
use super::connect::EndpointArgs;
use super::mcp::unusable;
use crate::config::{Environment, TOKEN_VARIABLE};

/// Milliseconds between the first two tries to reach a host that is away; doubled from try to try.
const PAUSE_MS: u64 = 200;
/// Milliseconds between two tries at most.
const PAUSE_MS_MAX: u64 = 10_000;
/// Events that are kept until somebody is told, the newest ones.
const EVENTS_KEPT_MAX: usize = 100;
/// Messages and events that a sentence names.
const NAMED_MAX: usize = 3;
/// Characters of a subject in a sentence.
const SUBJECT_CHARS_MAX: usize = 80;

/// Whose inbox, and where.
#[derive(Debug, Args)]
pub(super) struct InboxArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Token [default: the variable POINTSMAN_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The agent's name [default: the one that the token's owner started last]
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Option<String>,
}

impl InboxArgs {
    /// Returns the token; empty: none was given.
    pub(super) fn token<'a>(&'a self, environment: &'a Environment) -> &'a str {
        self.token.as_deref().or_else(|| environment.get(TOKEN_VARIABLE)).unwrap_or_default().trim()
    }

    /// Returns the inbox; nothing is sent yet. An answer may take so long beyond the wait it was asked for.
    pub(super) fn open(&self, environment: &Environment, answer_ms: u64) -> Result<Inbox, Trouble> {
        let url = self.endpoint.resolve(environment)?;
        let token = self.token(environment);
        if let Some(why) = unusable(token) {
            return Err(Trouble::misused(
                format!("the token cannot be used: {why}"),
                "set POINTSMAN_TOKEN to what `pointsman agent add` printed",
            ));
        }
        let client = Client::with_answer_ms(&url, token, Era::Modern, answer_ms).map_err(|error| {
            let advice = "the command line speaks plain http; run it beside the host, or through a tunnel";
            if let TransportError::BadRequest { why } = &error { Trouble::misused(why, advice) } else { Trouble::caused(&error) }
        })?;
        Ok(Inbox { client, url, agent: self.agent.clone(), has_token: !token.is_empty() })
    }
}

/// An agent's inbox.
pub(super) struct Inbox {
    pub(super) client: Client,
    /// Where the host is.
    pub(super) url: String,
    /// Its name, where one was given.
    pub(super) agent: Option<String>,
    has_token: bool,
}

/// Why nothing was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unseen {
    /// The host is away, or busy.
    Away {
        /// In its words, or the system's.
        why: String,
    },
    /// The agent has not started yet.
    NotStarted {
        /// The host's words.
        why: String,
    },
    /// Trying again would not help.
    Refused {
        /// What is wrong.
        why: String,
        /// What to do.
        advice: String,
    },
}

impl Unseen {
    /// Returns it in a line.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Away { why } | Self::NotStarted { why } => why.clone(),
            Self::Refused { why, advice } => format!("{why}; {advice}"),
        }
    }
}

/// What was seen by one look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) agent: String,
    pub(super) unread: u64,
    pub(super) waiting: Vec<Value>,
    pub(super) arrived: u64,
    pub(super) events: Vec<Value>,
    pub(super) cursor: String,
}

impl Inbox {
    /// Waits at most `max_s` seconds for something to come for.
    pub(super) async fn peek(&self, after: Option<&str>, max_s: u64, watch: &[String]) -> Result<Seen, Unseen> {
        let mut arguments = json!({"peek": true, "max_s": max_s});
        if let Some(after) = after {
            arguments["after"] = after.into();
        }
        if !watch.is_empty() {
            arguments["watch"] = json!(watch);
        }
        let answer = self.call("wait_for_events", arguments).await?;
        let result = &answer["result"];
        let list = |field: &str| result[field].as_array().cloned().unwrap_or_default();
        Ok(Seen {
            agent: answer["you"]["agent"].as_str().unwrap_or_default().to_owned(),
            unread: answer["unread"].as_u64().unwrap_or(0),
            waiting: list("waiting"),
            arrived: result["arrived"].as_u64().unwrap_or(0),
            events: list("events"),
            cursor: result["cursor"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// Starts the agent again under the name it has, else under the one that was given, else its owner's; returns the whole answer.
    pub(super) async fn start(&self) -> Result<Value, Unseen> {
        let known = match self.peek(None, 0, &[]).await {
            Ok(seen) => Some(seen.agent),
            Err(Unseen::NotStarted { .. }) => self.agent.clone(),
            Err(unseen) => return Err(unseen),
        };
        let arguments = known.map_or_else(|| json!({}), |name| json!({"name": name}));
        self.client.call("start", arguments).await.map_err(|error| self.sorted(error))
    }

    /// Calls a tool as the agent; returns the whole answer.
    pub(super) async fn call(&self, tool: &str, mut arguments: Value) -> Result<Value, Unseen> {
        if let Some(agent) = &self.agent {
            arguments["agent"] = agent.as_str().into();
        }
        self.client.call(tool, arguments).await.map_err(|error| self.sorted(error))
    }

    /// Returns what to do when the host takes no token, or not this one.
    pub(super) fn token_advice(&self) -> String {
        if self.has_token {
            "`pointsman agent list --all` says which are good".to_owned()
        } else {
            format!("{TOKEN_VARIABLE} is not set here; `pointsman agent add NAME` makes a token")
        }
    }

    fn sorted(&self, error: CallError) -> Unseen {
        let away = |why: String| Unseen::Away { why };
        match error {
            CallError::Tool { code, why, advice, .. } => match code.as_str() {
                "host_draining" | "unavailable" | "contended" => away(why),
                "start_first" => Unseen::NotStarted { why },
                "not_found" if self.agent.is_some() => Unseen::NotStarted { why },
                _ => Unseen::Refused { why, advice },
            },
            CallError::Refused { status: 429 | 500.., message, .. } => away(format!("the host at {} is not ready: {message}", self.url)),
            CallError::Refused { status: 401, .. } if !self.has_token => Unseen::Refused {
                why: format!("no token: {TOKEN_VARIABLE} is not set here"),
                advice: "`pointsman agent add NAME` makes one".to_owned(),
            },
            CallError::Refused { status: 401, message, .. } => {
                Unseen::Refused { why: format!("the host refused the token: {message}"), advice: self.token_advice() }
            }
            CallError::Refused { status, message, .. } => Unseen::Refused {
                why: format!("the host at {} refused with HTTP {status}: {message}", self.url),
                advice: "check --url and --project".to_owned(),
            },
            CallError::Transport(TransportError::BadRequest { why }) => Unseen::Refused { why, advice: "correct the call".to_owned() },
            CallError::Transport(
                error @ (TransportError::Unreachable { .. }
                | TransportError::Interrupted { .. }
                | TransportError::TimedOut { .. }
                | TransportError::Malformed { .. }),
            ) => away(format!("the host at {}: {error}", self.url)),
        }
    }
}

/// What happened since somebody was last told.
#[derive(Debug, Default)]
pub(super) struct Happened {
    /// The agent's name, once it is known.
    pub(super) agent: String,
    /// How many messages wait now.
    pub(super) unread: u64,
    /// The first of them.
    pub(super) waiting: Vec<Value>,
    /// Events, the oldest first.
    pub(super) events: Vec<Value>,
    /// Where the next look begins; none: nobody looked yet.
    pub(super) cursor: Option<String>,
}

impl Happened {
    /// Takes in what was seen; returns whether it brings anything to come for.
    pub(super) fn take_in(&mut self, seen: Seen) -> bool {
        let is_first = self.cursor.is_none();
        let brings = seen.arrived > 0 || !seen.events.is_empty() || (is_first && seen.unread > 0);
        self.agent = seen.agent;
        self.unread = seen.unread;
        self.waiting = seen.waiting;
        self.cursor = Some(seen.cursor);
        self.events.extend(seen.events);
        let too_many = self.events.len().saturating_sub(EVENTS_KEPT_MAX);
        self.events.drain(..too_many);
        brings
    }

    /// Forgets what somebody was told.
    pub(super) fn told(&mut self) {
        self.events.clear();
    }

    /// Returns it as one line of JSON.
    pub(super) fn line(&self) -> String {
        json!({
            "agent": self.agent, "unread": self.unread, "messages": self.waiting, "events": self.events, "cursor": self.cursor,
            "says": self.says(),
        })
        .to_string()
    }

    /// Returns it in a sentence or two, for the agent's model.
    pub(super) fn says(&self) -> String {
        let word = |value: &Value, field: &str| plain(value[field].as_str().unwrap_or_default());
        let mut says = String::new();
        if self.unread > 0 {
            let named = self.waiting.iter().take(NAMED_MAX);
            let named = named.map(|one| format!("{} from {}: “{}”", word(one, "kind"), word(one, "from"), word(one, "subject")));
            let (noun, verb) = if self.unread == 1 { ("message", "waits") } else { ("messages", "wait") };
            says.push_str(&format!("{} {noun} {verb} for you in Pointsman{}. ", self.unread, among(named.collect(), self.unread)));
        }
        if !self.events.is_empty() {
            let count = u64::try_from(self.events.len()).unwrap_or(u64::MAX);
            let named = self.events.iter().rev().take(NAMED_MAX).map(|one| format!("{} {}", word(one, "type"), word(one, "subject")));
            let what = if count == 1 { "thing happened that concerns you" } else { "things happened that concern you" };
            says.push_str(&format!("{count} {what}{}. ", among(named.collect(), count)));
        }
        says.push_str(if self.unread > 0 {
            "Take them with wait_for_events, act on them, ack them."
        } else {
            "Call start for where you stand, then go on."
        });
        says
    }
}

/// Returns names in brackets, and whether there are more.
fn among(named: Vec<String>, count: u64) -> String {
    if named.is_empty() {
        return String::new();
    }
    let more = if u64::try_from(named.len()).is_ok_and(|shown| shown < count) { "; …" } else { "" };
    format!(" ({}{more})", named.join("; "))
}

/// Returns a text of others as it may stand in a line.
fn plain(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SUBJECT_CHARS_MAX).collect();
    line.trim().to_owned()
}

/// How often a host that is away is tried, and what is said of it.
pub(super) struct Patience {
    command: &'static str,
    pause_ms: u64,
    /// Whether it was told that nothing is seen now.
    is_told: bool,
}

impl Patience {
    /// Returns patience that has no end, of a command of this name.
    pub(super) fn of(command: &'static str) -> Self {
        Self { command, pause_ms: PAUSE_MS, is_told: false }
    }

    /// Begins anew: the host answered.
    pub(super) fn renew(&mut self) {
        if std::mem::take(&mut self.is_told) {
            note(self.command, "it goes on");
        }
        self.pause_ms = PAUSE_MS;
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// Trying again would not help.
    pub(super) async fn pause(&mut self, unseen: Unseen) -> Result<(), Trouble> {
        if let Unseen::Refused { why, advice } = unseen {
            return Err(Trouble::Failed(format!("error: {why}\n  {advice}")));
        }
        if !std::mem::replace(&mut self.is_told, true) {
            note(self.command, &format!("{}; it is tried again", unseen.line()));
        }
        tokio::time::sleep(Duration::from_millis(self.pause_ms)).await;
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
        Ok(())
    }
}

/// Tells the person, on standard error.
pub(super) fn note(command: &str, text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "pointsman {command}: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(unread: u64, arrived: u64, events: Vec<Value>) -> Seen {
        let waiting = (0..unread.min(20)).map(|n| json!({"id": n, "kind": "question", "from": "bo", "subject": format!("Is it {n}?\n")}));
        Seen { agent: "ana".to_owned(), unread, waiting: waiting.collect(), arrived, events, cursor: "0.1".to_owned() }
    }

    #[test]
    fn what_waits_counts_once_and_what_comes_counts() {
        let mut happened = Happened::default();
        assert!(happened.take_in(seen(2, 0, Vec::new())), "it waited before anybody looked");
        assert!(!happened.take_in(seen(2, 0, Vec::new())), "it still waits");
        assert!(happened.take_in(seen(3, 1, Vec::new())));
        assert!(happened.take_in(seen(0, 0, vec![json!({"type": "task.reviewed", "subject": "T-3"})])));
        happened.told();
        assert!(happened.events.is_empty());
        assert!(!Happened::default().take_in(seen(0, 0, Vec::new())));
        for _ in 0..3 {
            happened.take_in(seen(0, 0, vec![json!({}); EVENTS_KEPT_MAX]));
        }
        assert_eq!(happened.events.len(), EVENTS_KEPT_MAX);
    }

    #[test]
    fn it_is_said_in_a_line() {
        let mut happened = Happened::default();
        happened.take_in(seen(5, 0, vec![json!({"type": "merge.landed", "subject": "M-2"})]));
        assert_eq!(
            happened.says(),
            "5 messages wait for you in Pointsman (question from bo: “Is it 0?”; question from bo: “Is it 1?”; question from bo: “Is it 2?”; …). \
             1 thing happened that concerns you (merge.landed M-2). Take them with wait_for_events, act on them, ack them."
        );
        let line: Value = serde_json::from_str(&happened.line()).expect("JSON");
        assert_eq!((&line["unread"], &line["agent"], &line["cursor"]), (&json!(5), &json!("ana"), &json!("0.1")));
        assert!(!happened.line().contains('\n'));
    }
}
