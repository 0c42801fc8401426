//! What an event says, in plain words. Pure. An event of a type that is not known here is named by its type.

use pointsman_core::event::Event;
use pointsman_core::time::span;
use serde_json::Value;

use super::Names;

/// Characters of a text that somebody wrote.
const QUOTED_CHARS_MAX: usize = 120;

/// Returns an event in plain words.
pub(super) fn of(event: &Event, names: &Names) -> String {
    let kind = event.event.kind.as_str();
    let known = match kind.split_once('.') {
        Some(("message", what)) => message(what, event, names),
        Some(("task", what)) => task(what, event),
        Some(("branch", what)) => branch(what, event),
        Some(("merge", what)) => merge(what, event),
        _ => None,
    };
    known.unwrap_or_else(|| format!("{}: {}", event.event.actor.name, kind.replace(['.', '_'], " ")))
}

/// Returns a text as one line that is not too long.
pub(super) fn quoted(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= QUOTED_CHARS_MAX {
        return line;
    }
    let cut: String = line.chars().take(QUOTED_CHARS_MAX - 1).collect();
    format!("{}…", cut.trim_end())
}

/// Returns a commit as people write it.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}

fn text<'a>(data: &'a Value, field: &str) -> &'a str {
    data[field].as_str().unwrap_or_default()
}

fn listed(data: &Value, field: &str, word: impl Fn(&str) -> String) -> String {
    let all = data[field].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(Value::as_str).map(word).collect::<Vec<_>>().join(", ")
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {}", quoted(reason)) }
}

fn message(what: &str, event: &Event, names: &Names) -> Option<String> {
    let data = &event.event.data;
    let agent = names.of(text(data, "agent"));
    let attempts = data["attempts"].as_u64().unwrap_or(0);
    let reason = because(text(data, "reason"));
    let next = || match data["passed_to"].as_str() {
        Some(next) => format!("; passed to {}", names.of(next)),
        None => format!("; comes to {agent} again from {} on", text(data, "ready_at")),
    };
    Some(match what {
        "sent" => sent(event),
        "routed" => routed(data, names),
        "handed_out" => format!("handed out to {agent} (try {}), to be acked until {}", data["attempt"], text(data, "until")),
        "acked" => format!("acked by {agent}"),
        "nacked" => format!("given back by {agent}{reason}{}", next()),
        "lapsed" => format!("not acked by {agent} in time{}", next()),
        "unclaimed" => format!("not fetched by {agent} while another one waits{}", next()),
        "recalled" => format!("{agent} started again and is to get it anew"),
        "ready" => format!("ready for {agent} again"),
        "held" => format!("held back from {agent} behind {}, an earlier message of its thread that backs off", text(data, "behind")),
        "revived" => format!("a dead letter no more: {agent} is to get it again"),
        "purged" => "taken off the list of dead letters by an operator".to_owned(),
        "dead_lettered" => format!("a dead letter after {attempts} {}{reason}", if attempts == 1 { "try" } else { "tries" }),
        "expired" if agent.is_empty() => "expired before anybody could take it".to_owned(),
        "expired" => format!("expired before {agent} acked it"),
        _ => return None,
    })
}

fn sent(event: &Event) -> String {
    let data = &event.event.data;
    let kind = text(data, "kind").replace('_', " ");
    let to = listed(data, "to", str::to_owned);
    let cause = event.event.causation.as_deref().map(|cause| format!(", because of {cause}")).unwrap_or_default();
    let end = data["expires_at"].as_str().map(|end| format!(", worth delivering until {end}")).unwrap_or_default();
    let id = &event.event.subject;
    format!("{} sent {id} ({kind}) to {to}: “{}”{cause}{end}", event.event.actor.name, quoted(text(data, "subject")))
}

fn routed(data: &Value, names: &Names) -> String {
    let address = text(data, "address");
    let by = data["router"]["name"].as_str().map_or_else(|| "the host".to_owned(), |router| format!("router `{router}`"));
    let asked = data["asked"].as_array().map(Vec::as_slice).unwrap_or_default();
    let passed: Vec<String> = asked.iter().map(|asked| format!("`{}`: {}", text(asked, "router"), text(asked, "outcome"))).collect();
    let passed = if passed.is_empty() { String::new() } else { format!(" (asked before: {})", passed.join("; ")) };
    let reason = because(text(data, "reason"));
    let agents = listed(data, "agents", |id| names.of(id));
    let rest = listed(data, "rest", |id| names.of(id));
    let rest = if rest.is_empty() { rest } else { format!(", then {rest}") };
    match text(data, "decision") {
        "nobody" => format!("nobody is there for `{address}`{reason}{passed}"),
        "drop" => format!("`{address}` dropped by {by}{reason}{passed}"),
        "defer" => format!("`{address}` put off by {by}{reason}{passed}"),
        _ if agents.is_empty() => format!("routed by {by} for `{address}`, to go on{rest}{reason}{passed}"),
        _ => format!("routed by {by} for `{address}` to {agents}{rest}{reason}{passed}"),
    }
}

fn task(what: &str, event: &Event) -> Option<String> {
    let (data, by, id) = (&event.event.data, &event.event.actor.name, &event.event.subject);
    let note = || because(text(data, "note"));
    Some(match what {
        "created" => {
            let needs = listed(data, "depends_on", str::to_owned);
            let needs = if needs.is_empty() { needs } else { format!(", to come after {needs}") };
            format!("{id} created by {by}: “{}”{needs}", quoted(text(data, "title")))
        }
        "claimed" => format!("claimed by {by}, on `{}`", text(data, "branch")),
        "renewed" if event.event.actor.agent.is_none() => format!("claim of {} kept while its branch is in the queue", text(data, "agent")),
        "renewed" => format!("claim renewed by {by}"),
        "progressed" => format!("{by} is at {} %{}", data["progress"], note()),
        "released" => format!("given back by {by}{}", note()),
        "lapsed" => format!("taken back from {}: no sign of life until the end of its claim", text(data, "agent")),
        "reviewed" => {
            let verdict = if data["approves"] == true { "approved" } else { "changes asked for" };
            format!("{verdict} by {by} at {}{}", short(text(data, "head")), because(text(data, "comment")))
        }
        "noted" => format!("{by} noted{}", note()),
        _ => return None,
    })
}

fn branch(what: &str, event: &Event) -> Option<String> {
    let (data, by) = (&event.event.data, &event.event.actor.name);
    let commit = short(text(data, "commit"));
    Some(match what {
        "created" => format!("`{}` begun at {}", text(data, "branch"), short(text(data, "start"))),
        "pushed" => format!("pushed by {by}: now at {commit}"),
        "committed" => format!("committed by {by}: now at {commit}"),
        "resolved" => format!("conflict resolved by {by}: now at {commit}"),
        "refused" => format!("commit {commit} refused{}", because(text(data, "why"))),
        _ => return None,
    })
}

fn merge(what: &str, event: &Event) -> Option<String> {
    let (data, by, id) = (&event.event.data, &event.event.actor.name, &event.event.subject);
    let why = || because(text(data, "why"));
    Some(match what {
        "queued" => {
            format!("{id}: {} submitted by {by} at {} for `{}`", text(data, "task"), short(text(data, "head")), text(data, "target"))
        }
        "checked" => {
            let took = span(data["took_ms"].as_u64().unwrap_or(0));
            let passed = if data["passed"] == true { "passed" } else { "failed" };
            format!("{id}: check `{}` {passed} in {took}", text(data, "check"))
        }
        "waiting" => {
            let state = &data["state"];
            format!("{id}: merged and checked, but `{}` wants an approval{}", text(state, "rule"), because(text(state, "why")))
        }
        "landing" => format!("{id}: to land as {} on {}", short(text(data, "commit")), short(text(data, "onto"))),
        "landed" => format!("{id}: landed on `{}` as {}", text(data, "target"), short(text(data, "commit"))),
        "requeued" => format!("{id}: back in the queue{}", why()),
        "withdrawn" => format!("{id}: withdrawn"),
        "conflicted" => {
            let files = data["files"].as_array().map(Vec::as_slice).unwrap_or_default();
            let files: Vec<&str> = files.iter().map(|file| text(file, "path")).collect();
            format!("{id}: conflicts with `{}` in {}", text(data, "target"), quoted(&files.join(", ")))
        }
        "failed" => format!("{id}: check `{}` failed on the merged tree", text(data, "check")),
        "refused" => format!("{id}: refused by `{}`{}", text(data, "rule"), why()),
        _ => return None,
    })
}
