//! Dead letters in the operators' API: how a selection stands in a query and in a body.

use bytes::Bytes;
use hyper::StatusCode;
use pointsman_core::ids::MessageId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Problem, decoded, encoded, read, reply};
use crate::ports::admin::AdminSurface;
use crate::ports::letters::{LetterSelection, LetterVerb, ReplayTo, Run};

/// Names of the query's parameters.
const PARAMETERS: &str = "project, agent, kind, older_than_ms, message, after, limit";

/// What is to be changed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PurgeBody {
    select: LetterSelection,
    dry_run: bool,
}

/// What is to be delivered again.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReplayBody {
    select: LetterSelection,
    to: ReplayTo,
    dry_run: bool,
}

const fn run(dry_run: bool) -> Run {
    if dry_run { Run::Dry } else { Run::Real }
}

/// Reads which letters are listed.
pub(super) fn asked_of(query: &str) -> Result<LetterSelection, Problem> {
    let mut asked = LetterSelection::default();
    for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
        let wrong = || Problem::Malformed { why: format!("the parameter `{name}` does not take `{value}`") };
        let value = decoded(value).ok_or_else(wrong)?;
        match name {
            "project" => asked.project = Some(value),
            "agent" => asked.agent = Some(value),
            "kind" => asked.kind = Some(value),
            "older_than_ms" => asked.older_than_ms = Some(value.parse().map_err(|_| wrong())?),
            "message" => asked.messages.push(value.parse().map_err(|_| wrong())?),
            "after" => asked.after = Some(value),
            "limit" => asked.limit = Some(value.parse().map_err(|_| wrong())?),
            _ => return Err(Problem::Malformed { why: format!("there is no parameter `{name}`; there are {PARAMETERS}") }),
        }
    }
    Ok(asked)
}

/// Returns a selection as a query.
pub(in crate::adapters::http) fn query_of(selection: &LetterSelection) -> String {
    let LetterSelection { project, agent, kind, older_than_ms, messages, all: _, after, limit } = selection;
    let texts = [("project", project), ("agent", agent), ("kind", kind), ("after", after)];
    let texts = texts.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    let numbers = [("older_than_ms", *older_than_ms), ("limit", limit.map(|limit| u64::try_from(limit).unwrap_or(u64::MAX)))];
    let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name, value?.to_string())));
    let messages = messages.iter().map(|message| ("message", message.to_string()));
    let pairs: Vec<String> = texts.chain(numbers).chain(messages).map(|(name, value)| format!("{name}={}", encoded(&value))).collect();
    pairs.join("&")
}

/// Reads a message's id from a path.
pub(super) fn message_of(text: &str) -> Result<MessageId, Problem> {
    text.parse::<MessageId>().map_err(|error| Problem::Malformed { why: error.to_string() })
}

/// Returns a change as its path's last part and its body.
pub(in crate::adapters::http) fn change_body(verb: LetterVerb, run: Run, select: LetterSelection) -> (&'static str, Value) {
    let dry_run = run == Run::Dry;
    match verb {
        LetterVerb::Replay(to) => ("replay", json!(ReplayBody { select, to, dry_run })),
        LetterVerb::Purge => ("purge", json!(PurgeBody { select, dry_run })),
    }
}

pub(super) async fn replay(surface: &dyn AdminSurface, body: &Bytes) -> Result<(StatusCode, Value), Problem> {
    let ReplayBody { select, to, dry_run } = read(body)?;
    reply(surface.letters_change(LetterVerb::Replay(to), run(dry_run), select)).await
}

pub(super) async fn purge(surface: &dyn AdminSurface, body: &Bytes) -> Result<(StatusCode, Value), Problem> {
    let PurgeBody { select, dry_run } = read(body)?;
    reply(surface.letters_change(LetterVerb::Purge, run(dry_run), select)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection() -> LetterSelection {
        LetterSelection {
            project: Some("demo".to_owned()),
            agent: Some("a b&c".to_owned()),
            kind: Some("review_request".to_owned()),
            older_than_ms: Some(7),
            messages: vec![MessageId::from_bytes([1; 16]), MessageId::from_bytes([2; 16])],
            all: false,
            after: Some("prj_x/msg_y/agt_z".to_owned()),
            limit: Some(3),
        }
    }

    #[test]
    fn selections_go_both_ways() {
        assert_eq!(asked_of(&query_of(&selection())).expect("it reads"), selection());
        assert_eq!(asked_of("").expect("it reads"), LetterSelection::default());
        assert!(asked_of("all=true").is_err() && asked_of("limit=many").is_err());
        let (word, body) = change_body(LetterVerb::Replay(ReplayTo::Anew), Run::Dry, selection());
        let back: ReplayBody = read(&Bytes::from(body.to_string())).expect("it reads");
        assert_eq!((word, back.to, run(back.dry_run), back.select), ("replay", ReplayTo::Anew, Run::Dry, selection()));
        let (word, body) = change_body(LetterVerb::Purge, Run::Real, LetterSelection { all: true, ..LetterSelection::default() });
        assert_eq!((word, body), ("purge", json!({"select": {"all": true}, "dry_run": false})));
    }
}
