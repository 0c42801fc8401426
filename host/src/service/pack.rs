//! What an agent should know before it goes on: its own document, kept fresh, and the context pack of a task: documents, threads, related
//! tasks, files that others change, within a budget of bytes.
//!
//! Nothing is decided here; everything that is told can be looked up where `see` says.

use pointsman_core::agent::AgentRecord;
use pointsman_core::context::DocumentHead;
use pointsman_core::ids::{ProjectId, TaskId};
use pointsman_core::message_index::{Field, Search};
use pointsman_core::path_glob::PathGlob;
use pointsman_core::task::{Task, TaskState};
use serde_json::{Value, json};

use super::contexts::{DOCUMENTS_MAX, Viewer};
use super::failure::Failure;
use super::surface::Services;

/// Bytes of a pack where nobody says how many.
pub(super) const PACK_BYTES: usize = 6_000;
/// Bytes of a pack at the most.
pub(super) const PACK_BYTES_MAX: usize = 100_000;
/// Bytes of the pack that `start` and `claim_task` bring along.
pub(super) const BROUGHT_BYTES: usize = 1_500;
/// Characters of a document that a pack shows.
const EXCERPT_CHARS: usize = 400;
/// Threads of a pack.
const THREADS_MAX: usize = 8;
/// Documents that are looked at for a pack.
const LOOKED_AT_MAX: usize = 40;
/// Bytes that a document takes in a pack at the least.
const DOCUMENT_BYTES_MIN: usize = 100;
/// Where decisions are written, by habit.
const DECISIONS: &str = "decisions/";
/// Where those who hand a task off write what is left.
const HAND_OFFS: &str = "handoff/";

/// Returns what an agent works on, as its own document says it.
///
/// # Errors
/// [`Failure`].
pub(super) async fn working(services: &Services, project: ProjectId, agent: &AgentRecord) -> Result<Value, Failure> {
    let mut tasks = Vec::new();
    for held in services.claims.holding(project, agent.id).await?.iter() {
        let task = services.tasks.get(project, held.task).await?.value;
        tasks.push(json!({
            "task": task.id, "title": task.title, "state": task.state, "branch": task.branch, "head": task.head,
            "progress": task.progress, "note": task.note, "files": services.claims.leased(project, task.id).await?,
        }));
    }
    Ok(json!({"agent": agent.name, "model": agent.model, "tasks": tasks}))
}

/// Brings an agent's own document up to what it works on now.
///
/// # Errors
/// [`Failure`].
pub(super) async fn keep_own(services: &Services, project: ProjectId, agent: &AgentRecord) -> Result<(), Failure> {
    let working = working(services, project, agent).await?;
    services.contexts.keep_own(project, agent.id, &agent.name, &working).await
}

/// Something a pack tells, and how much it matters.
struct Item {
    section: &'static str,
    weight: i64,
    value: Value,
}

/// Returns the context pack of a task, or of the project where there is none, in at most `bytes`: what matters most of each kind comes first.
/// `all`: the project's tasks.
///
/// # Errors
/// [`Failure`].
pub(super) async fn pack(
    services: &Services,
    project: ProjectId,
    viewer: &Viewer,
    all: &[Task],
    task: Option<TaskId>,
    bytes: usize,
) -> Result<Value, Failure> {
    let own = task.and_then(|id| all.iter().find(|task| task.id == id));
    let mut items = documents(services, project, viewer, own, bytes).await?;
    if let Some(own) = own {
        items.extend(related(all, own));
        items.extend(threads(services, project, own).await?);
    }
    items.sort_by_key(|item| std::cmp::Reverse(item.weight));
    Ok(packed(items, bytes))
}

/// Puts items in while there is room. What is left out is counted.
fn packed(items: Vec<Item>, bytes: usize) -> Value {
    let mut pack = json!({});
    let mut room = bytes.saturating_sub(64);
    let mut left_out = 0;
    for Item { section, value, .. } in items {
        let size = value.to_string().len() + 1 + if pack.get(section).is_some() { 0 } else { section.len() + 6 };
        if size > room {
            left_out += 1;
            continue;
        }
        room -= size;
        match pack.get_mut(section).and_then(Value::as_array_mut) {
            Some(list) => list.push(value),
            None => pack[section] = json!([value]),
        }
    }
    if left_out > 0 {
        pack["left_out"] = left_out.into();
    }
    pack
}

async fn documents(
    services: &Services,
    project: ProjectId,
    viewer: &Viewer,
    task: Option<&Task>,
    bytes: usize,
) -> Result<Vec<Item>, Failure> {
    let mut heads = services.contexts.list(project, viewer, "", DOCUMENTS_MAX).await?;
    let newest = heads.iter().map(|head| head.at).max().unwrap_or_default();
    let weight = |head: &DocumentHead| {
        let key = head.key.as_str();
        let said = task.map(|task| format!("{} {} {}", task.title, task.description, task.acceptance.join(" "))).unwrap_or_default();
        let is_hand_off = task.is_some_and(|task| key.strip_prefix(HAND_OFFS) == Some(task.id.to_string().as_str()));
        let folder = key.rsplit('/').next().unwrap_or(key);
        let age_h = i64::try_from(newest.since_ms(head.at) / 3_600_000).unwrap_or(i64::MAX).min(500);
        let bonuses = [
            (is_hand_off, 4_000),
            (said.contains(key), 3_000),
            (key.starts_with(DECISIONS), 1_500),
            (folder.len() > 3 && said.contains(folder), 800),
            (key.starts_with(pointsman_core::context::rules::AGENTS) || key.starts_with(HAND_OFFS), -1_000),
        ];
        1_000 - age_h + bonuses.iter().filter(|(holds, _)| *holds).map(|(_, bonus)| bonus).sum::<i64>()
    };
    heads.sort_by_key(|head| std::cmp::Reverse(weight(head)));
    let mut items = Vec::new();
    for head in heads.iter().take(LOOKED_AT_MAX.min(bytes / DOCUMENT_BYTES_MIN + 1)) {
        let (_, begin) =
            services.contexts.read_bytes(project, viewer, head.key.as_str(), Some(head.version), 0..4 * EXCERPT_CHARS as u64).await?;
        let text = String::from_utf8_lossy(&begin);
        let excerpt: String = text.chars().take(EXCERPT_CHARS).collect();
        let mut value = json!({"key": head.key, "version": head.version, "by": head.author.name, "see": format!("context/{}", head.key)});
        if is_shown(&begin) {
            value["says"] = if excerpt.len() as u64 == head.size_bytes { excerpt.into() } else { format!("{excerpt}…").into() };
        }
        items.push(Item {
            section: if head.key.as_str().starts_with(DECISIONS) { "decisions" } else { "documents" },
            weight: weight(head),
            value,
        });
    }
    Ok(items)
}

/// Returns whether what a document begins with is a text, as far as it was cut between characters.
fn is_shown(begin: &[u8]) -> bool {
    std::str::from_utf8(begin).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// Returns the tasks before and after a task, and those whose files meet its own, with whoever works on them.
fn related(all: &[Task], own: &Task) -> Vec<Item> {
    let meets = |other: &Task| {
        let files = |task: &Task| task.paths.iter().chain(&task.shared_paths).cloned().collect::<Vec<PathGlob>>();
        let theirs = files(other);
        files(own).iter().any(|glob| theirs.iter().any(|other| glob.overlaps(other)))
    };
    let mut items = Vec::new();
    for other in all.iter().filter(|other| other.id != own.id) {
        let is_live = !matches!(other.state, TaskState::Landed | TaskState::Cancelled);
        let relation = if own.depends_on.contains(&other.id) {
            Some(("it must land before", 1_400))
        } else if other.depends_on.contains(&own.id) {
            Some(("it waits for this", 1_100))
        } else if meets(other) {
            Some(("its files meet this one's", if is_live { 1_300 } else { 400 }))
        } else {
            None
        };
        let Some((how, weight)) = relation else { continue };
        let holder = other.claim.as_ref().map(|claim| claim.agent_name.as_str());
        let mut value =
            json!({"task": other.id, "title": other.title, "state": other.state, "how": how, "holder": holder, "see": other.id});
        if holder.is_some() && is_live {
            value["files"] = json!(other.paths);
        }
        items.push(Item { section: "tasks", weight, value });
    }
    items
}

/// Returns the newest threads that speak of a task or of its files.
async fn threads(services: &Services, project: ProjectId, task: &Task) -> Result<Vec<Item>, Failure> {
    let mut searches = vec![Search::default().with_words(&task.id.to_string())];
    // The folder before the first wildcard: the index knows those above each path.
    let folder = |glob: &PathGlob| {
        let text = glob.as_str();
        let plain = text.split(['*', '?']).next().unwrap_or_default();
        let whole = if plain.len() == text.len() { plain } else { plain.rsplit_once('/').map_or("", |(folder, _)| folder) };
        whole.trim_end_matches('/').to_owned()
    };
    let folders: Vec<String> = task.paths.iter().map(folder).filter(|folder| !folder.is_empty()).collect();
    if !folders.is_empty() {
        let values: Vec<&str> = folders.iter().map(String::as_str).collect();
        searches.push(Search::default().with_field(Field::Path, &values));
    }
    let mut items: Vec<Item> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (search, weight) in searches.iter().zip([1_200, 700]) {
        for message in services.messaging.search(project, search, THREADS_MAX).await?.messages {
            if seen.insert(message.thread) && items.len() < THREADS_MAX {
                let value = json!({
                    "subject": message.subject, "from": message.from.name, "at": message.sent_at.to_rfc3339(), "see": format!("thread/{}", message.thread),
                });
                items.push(Item { section: "threads", weight, value });
            }
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_most_goes_in_and_the_budget_holds() {
        let item = |section, weight, text: &str| Item { section, weight, value: json!({"says": text}) };
        let items = || vec![item("decisions", 9, &"a".repeat(100)), item("documents", 8, &"b".repeat(5_000)), item("documents", 7, "c")];
        let pack = packed(items(), 600);
        assert_eq!(pack["decisions"][0]["says"].as_str().map(str::len), Some(100));
        assert_eq!((&pack["documents"], &pack["left_out"]), (&json!([{"says": "c"}]), &json!(1)));
        for bytes in [0, 64, 100, 300, 600, 6_000] {
            assert!(packed(items(), bytes).to_string().len() <= bytes.max(16), "{bytes}");
        }
        assert!(is_shown("ä".as_bytes()) && is_shown(&"aä".as_bytes()[..2]) && !is_shown(&[b'a', 0xff, b'b']));
    }
}
