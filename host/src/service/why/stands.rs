//! What a chain comes to: where the thing stands, and whose move it is. Pure.

use std::collections::BTreeMap;

use pointsman_core::event::Event;
use pointsman_core::ids::AgentId;
use pointsman_core::merge::{Merge, MergeState};
use pointsman_core::message::Message;
use pointsman_core::task::{Task, TaskState};
use pointsman_core::time::{TimeMs, span};

use super::Names;
use super::words::{quoted, short};

/// Agents that are named one by one.
const NAMED_MAX: usize = 5;

/// The conclusion.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stands {
    /// One sentence.
    pub(super) says: String,
    /// Whose move it is; none: it is over.
    pub(super) move_of: Option<String>,
}

impl Stands {
    fn moved_by(who: &str, says: String) -> Self {
        Self { says: format!("{says}. It is the move of {who}."), move_of: Some(who.to_owned()) }
    }

    fn over(says: String) -> Self {
        Self { says: format!("{says}. Nothing is left to do."), move_of: None }
    }
}

const HOST: &str = "the host";
const OPERATOR: &str = "an operator";
const ANY_AGENT: &str = "any agent that can take it";

/// The last that is known of a message with one agent.
struct With<'a> {
    name: String,
    standing: &'a str,
    event: &'a Event,
}

/// Concludes about a message, or what became of it with one agent.
pub(super) fn message(message: &Message, events: &[Event], names: &Names, only: Option<AgentId>, now: TimeMs) -> Stands {
    let only = only.map(|agent| agent.to_string());
    let id = message.id.to_string();
    let mut inboxes: BTreeMap<&str, With<'_>> = BTreeMap::new();
    let mut addresses: BTreeMap<String, &Event> = BTreeMap::new();
    let mut expired = None;
    for event in events.iter().filter(|event| event.event.subject == id) {
        let data = &event.event.data;
        if event.event.kind == "message.routed" {
            addresses.insert(data["address"].as_str().unwrap_or_default().to_owned(), event);
        }
        if event.event.kind == "message.expired" && data["agent"].is_null() {
            expired = Some(event);
        }
        for (agent, standing) in data["inbox"].as_object().into_iter().flatten() {
            if only.as_ref().is_none_or(|only| only == agent) {
                inboxes.insert(agent, With { name: names.of(agent), standing: standing.as_str().unwrap_or_default(), event });
            }
        }
    }
    let live: Vec<&With<'_>> = inboxes.values().filter(|with| with.standing != "gone").collect();
    if !live.is_empty() {
        return live_message(&live, inboxes.len(), &inboxes, now);
    }
    let is_open = |event: &&Event| matches!(event.event.data["decision"].as_str(), Some("nobody" | "defer"));
    if only.is_none() && expired.is_none() {
        let waits = addresses.iter().find(|(address, event)| is_open(event) && is_deferred(address, event));
        if let Some((address, event)) = waits {
            let reason = quoted(event.event.data["reason"].as_str().unwrap_or_default());
            let says =
                format!("For {} it has waited for somebody who can take `{address}` ({reason})", span(now.since_ms(message.sent_at)));
            return Stands::moved_by(ANY_AGENT, says);
        }
    }
    ended_message(message, &inboxes, &addresses, expired)
}

/// Only capabilities wait for somebody to come; to a topic or everyone it is dropped when nobody is there.
fn is_deferred(address: &str, event: &Event) -> bool {
    event.event.data["decision"] == "defer" || !(address == "all" || address.starts_with("topic:") || address.starts_with("agent:"))
}

fn live_message(live: &[&With<'_>], count: usize, inboxes: &BTreeMap<&str, With<'_>>, now: TimeMs) -> Stands {
    let says = |with: &With<'_>| {
        let since = span(now.since_ms(with.event.at));
        let data = &with.event.event.data;
        let when = |field: &str| data[field].as_str().unwrap_or("later").to_owned();
        match with.standing {
            "leased" => format!("{} has had it for {since} and has not acked it; it comes back at {}", with.name, when("until")),
            "ready" => format!("it has lain in the inbox of {} for {since}, to be taken by wait_for_events", with.name),
            "held" => format!("it comes to {} once an earlier message of its thread no longer backs off", with.name),
            _ => format!("it comes to {} again at {}", with.name, when("ready_at")),
        }
    };
    let mut all: Vec<String> = live.iter().take(NAMED_MAX).map(|with| says(with)).collect();
    if live.len() > NAMED_MAX {
        all.push(format!("{} more have not acked it", live.len() - NAMED_MAX));
    }
    let acked = inboxes.values().filter(|with| with.event.event.kind == "message.acked").count();
    if acked > 0 {
        all.push(format!("{acked} of {count} acked it"));
    }
    let says = all.join("; ");
    let says = says.strip_prefix("it ").map_or_else(|| says.clone(), |rest| format!("It {rest}"));
    let mover = live.iter().find(|with| !matches!(with.standing, "waiting" | "held"));
    Stands::moved_by(mover.map_or(HOST, |with| with.name.as_str()), says)
}

fn ended_message(
    message: &Message,
    inboxes: &BTreeMap<&str, With<'_>>,
    addresses: &BTreeMap<String, &Event>,
    expired: Option<&Event>,
) -> Stands {
    let by_kind = |kind: &str| -> Vec<&With<'_>> { inboxes.values().filter(|with| with.event.event.kind == kind).collect() };
    let names = |with: &[&With<'_>]| with.iter().map(|with| with.name.as_str()).collect::<Vec<_>>().join(", ");
    let dead = by_kind("message.dead_lettered");
    if let Some(with) = dead.first() {
        let reason = quoted(with.event.event.data["reason"].as_str().unwrap_or_default());
        return Stands::moved_by(OPERATOR, format!("It is a dead letter: {} was the last to try ({reason})", names(&dead)));
    }
    let acked = by_kind("message.acked");
    if let Some(last) = acked.iter().map(|with| with.event.at).max() {
        let took = span(last.since_ms(message.sent_at));
        return Stands::over(format!("It was acked by {}, {took} after it was sent", names(&acked)));
    }
    let late = by_kind("message.expired");
    if expired.is_some() || !late.is_empty() {
        return Stands::over("It expired before anybody acked it".to_owned());
    }
    if let Some(with) = inboxes.values().find(|with| with.event.event.data["passed_to"].is_string()) {
        return Stands::over(format!("{} no longer has it: it went to the next one", with.name));
    }
    let why = addresses.values().next().map(|event| quoted(event.event.data["reason"].as_str().unwrap_or_default()));
    match why {
        Some(why) if inboxes.is_empty() => Stands::moved_by(&message.from.name, format!("Nobody got it ({why})")),
        _ => Stands::over("It is in nobody's inbox any more".to_owned()),
    }
}

/// Concludes about a task.
pub(super) fn task(task: &Task, latest: Option<&Merge>, waits_for: &[Task], now: TimeMs) -> Stands {
    let id = task.id;
    let age = span(now.since_ms(task.updated_at));
    let holder = task.claim.as_ref().map_or_else(|| "nobody".to_owned(), |claim| claim.agent_name.clone());
    match (task.state, latest) {
        (TaskState::Open, _) => match waits_for.iter().find(|needed| needed.branch.is_none()) {
            Some(needed) => Stands::moved_by("any agent", format!("{id} is open, but comes after {}, which nobody has begun", needed.id)),
            None => Stands::moved_by("any agent", format!("{id} has been open for {age}: nobody holds it")),
        },
        (TaskState::Claimed, Some(merge)) if !merge.is_live() && !matches!(merge.outcome, MergeState::Withdrawn) => {
            Stands::moved_by(&holder, format!("{id} is back with {holder}: {}", ended(merge)))
        }
        (TaskState::Claimed, _) => {
            let until = task.claim.as_ref().map_or(now, |claim| claim.until);
            let says = format!("{holder} works on {id} ({} %) and has until {until} to give a sign of life", task.progress);
            Stands::moved_by(&holder, says)
        }
        (TaskState::Submitted, Some(latest)) => merge(latest, task, waits_for, now),
        (TaskState::Submitted, None) => Stands::moved_by(HOST, format!("{id} is submitted")),
        (TaskState::Landed, latest) => {
            let took = span(task.updated_at.since_ms(task.created_at));
            let how = latest.map(|merge| format!(": {}", ended(merge))).unwrap_or_default();
            Stands::over(format!("{id} landed {took} after it was created{how}"))
        }
        (TaskState::Cancelled, _) => Stands::over(format!("{id} was given up")),
    }
}

/// Concludes about a merge.
pub(super) fn merge(merge: &Merge, task: &Task, waits_for: &[Task], now: TimeMs) -> Stands {
    let (id, age) = (merge.id, span(now.since_ms(merge.updated_at)));
    let is_newest = task.merges.last() == Some(&id);
    match &merge.outcome {
        MergeState::Queued | MergeState::Waiting { .. } if !waits_for.is_empty() => {
            let ids: Vec<String> = waits_for.iter().map(|needed| needed.id.to_string()).collect();
            let mover = waits_for.iter().find_map(|needed| needed.claim.as_ref()).map_or("any agent", |claim| claim.agent_name.as_str());
            Stands::moved_by(mover, format!("{id} waits until {} landed", ids.join(", ")))
        }
        MergeState::Queued => Stands::moved_by(HOST, format!("{id} has been in the queue for {age}")),
        MergeState::Waiting { rule, why, .. } => {
            let says = format!("{id} is merged and checked, and has waited for {age} for an approval (`{rule}`: {})", quoted(why));
            Stands::moved_by("a reviewer", says)
        }
        MergeState::Landing { commit } => Stands::moved_by(HOST, format!("{id} lands as {}", short(&commit.to_string()))),
        MergeState::Conflicted { .. } | MergeState::Failed { .. } | MergeState::Refused { .. } if is_newest => {
            Stands::moved_by(&merge.agent_name, ended(merge))
        }
        MergeState::Conflicted { .. } | MergeState::Failed { .. } | MergeState::Refused { .. } => {
            let newer = task.merges.last().map_or_else(|| "a newer one".to_owned(), ToString::to_string);
            Stands::over(format!("{}; {newer} took its place", ended(merge)))
        }
        MergeState::Landed { .. } | MergeState::Withdrawn => Stands::over(ended(merge)),
    }
}

/// Returns how a merge ended.
fn ended(merge: &Merge) -> String {
    let id = merge.id;
    match &merge.outcome {
        MergeState::Queued | MergeState::Waiting { .. } | MergeState::Landing { .. } => format!("{id} is {}", merge.state_name()),
        MergeState::Landed { commit } => format!("{id} is on `{}` as {}", merge.target, short(&commit.to_string())),
        MergeState::Conflicted { conflicts, .. } => {
            let files: Vec<&str> = conflicts.iter().map(|conflict| conflict.path.as_str()).collect();
            format!("{id} conflicts with `{}` in {}, to be settled by resolve_conflict", merge.target, quoted(&files.join(", ")))
        }
        MergeState::Failed { check, .. } => format!("{id} failed the check `{check}`, to be mended on the branch and submitted again"),
        MergeState::Refused { rule, why } => format!("{id} was refused by `{rule}` ({})", quoted(why)),
        MergeState::Withdrawn => format!("{id} was withdrawn"),
    }
}
