//! The demo's claims, checked from the outside: by git's own tools in the host's bare repository, by the receipts' signatures,
//! and by what the store still knows after a kill.

use std::path::Path;

use serde_json::Value;

use super::DemoError;
use super::scenery::{Scene, git};
use super::stage::Stage;
use super::story::{PLAN, Told};
use super::timeline::{Claim, Timeline};
use crate::service::merge_queue::receipt::{Receipt, SignedReceipt};

struct Claims(Vec<Claim>);

impl Claims {
    fn add(&mut self, what: &str, found: impl Into<String>, holds: bool) {
        self.0.push(Claim { what: what.to_owned(), found: found.into(), holds });
    }
}

/// Kills the host once more, starts it, and checks everything that was claimed.
pub(super) async fn verify(stage: &mut Stage, scene: &Scene, told: &Told, timeline: &Timeline) -> Result<Vec<Claim>, DemoError> {
    timeline.progress("killing and restarting the host, then checking");
    for agent in &stage.agents {
        agent.drain().await?;
    }
    stage.kill_and_restart().await?;
    let repo = stage.repository()?;
    let mut claims = Claims(Vec::new());
    landed_in_order(&repo, scene, told, &mut claims)?;
    nothing_lost(&repo, scene, told, &mut claims)?;
    receipts(&repo, told, &mut claims)?;
    branches(&repo, told, &mut claims)?;
    store(stage, told, &mut claims).await?;
    sound(&repo, scene, &mut claims);
    claims.add("the original repository is untouched", "refs, HEAD and work tree as before", scene.original_untouched()?);
    Ok(claims.0)
}

/// Lets git check every object. What it complains of in objects that the original has is the original's.
fn sound(repo: &Path, scene: &Scene, claims: &mut Claims) {
    let said = match git(repo, &["fsck", "--full", "--strict", "--no-dangling"]) {
        Ok(_) => String::new(),
        Err(DemoError::Git { said, .. }) => said,
        Err(other) => other.to_string(),
    };
    let inherited = |line: &str| {
        let object = line.split_whitespace().map(|word| word.trim_end_matches(':')).find(|word| word.len() == 40);
        object.is_some_and(|object| git(&scene.source, &["cat-file", "-e", object]).is_ok())
    };
    let (old, new): (Vec<&str>, Vec<&str>) = said.lines().filter(|line| !line.is_empty()).partition(|line| inherited(line));
    let found = match (new.first(), old.len()) {
        (Some(first), _) => (*first).to_owned(),
        (None, 0) => "clean".to_owned(),
        (None, count) => format!("{count} complaints about objects that came with the original"),
    };
    claims.add("git fsck finds nothing wrong with what was added", found, new.is_empty());
}

fn landed_in_order(repo: &Path, scene: &Scene, told: &Told, claims: &mut Claims) -> Result<(), DemoError> {
    let range = format!("{}..{}", scene.head, scene.target);
    let log = git(repo, &["log", "--first-parent", "--reverse", "--format=%H", &range])?;
    let found: Vec<&str> = log.lines().collect();
    let wanted: Vec<&str> = told.landed.iter().map(|(_, commit)| commit.as_str()).collect();
    let order: Vec<&str> = told.landed.iter().map(|(task, _)| task.as_str()).collect();
    claims.add(
        "the target has the three landings, in dependency order, and nothing else",
        order.join(", "),
        found == wanted && found.len() == 3,
    );
    let before = told.tasks.first().map(String::as_str) == order.first().copied();
    claims.add("the stacked task landed after the one it depends on", order.join(" before "), before);
    Ok(())
}

fn nothing_lost(repo: &Path, scene: &Scene, told: &Told, claims: &mut Claims) -> Result<(), DemoError> {
    let now = |path: &str| git(repo, &["cat-file", "blob", &format!("{}:{path}", scene.target)]);
    let has = |text: &str, line: &str| text.lines().filter(|found| *found == line).count();
    let imports = now(&scene.imports.path)?;
    let both = has(&imports, &scene.imports.by_ana) == 1 && has(&imports, &scene.imports.by_ben) == 1;
    claims.add("both imports are in the merged block, once each", scene.imports.path.clone(), both);
    let log = now(&scene.log)?;
    let both = has(&log, "- named by ana") == 1 && has(&log, "- announced by ben") == 1;
    claims.add("both lines are in the append-only file, once each", scene.log.clone(), both);
    let before = git(repo, &["cat-file", "blob", &format!("{}:{}", scene.head, scene.log)])?;
    let kept = before.lines().all(|line| log.lines().any(|found| found == line));
    claims.add("no earlier line of it is gone", format!("{} lines before", before.lines().count()), kept);
    let headline = now(&scene.headline)?;
    let resolved = headline.lines().nth(scene.headline_at) == Some(told.headline.as_str());
    claims.add(
        "the conflict stands as its agent resolved it",
        told.headline.clone(),
        resolved && told.headline.contains("ana") && told.headline.contains("ben"),
    );
    claims.add("the dependent task's file is there", told.page.clone(), now(&told.page).is_ok());
    Ok(())
}

fn receipts(repo: &Path, told: &Told, claims: &mut Claims) -> Result<(), DemoError> {
    let mut verified: Vec<Receipt> = Vec::new();
    let mut trees = 0;
    for (_, commit) in &told.landed {
        let note = git(repo, &["notes", "--ref=pointsman", "show", commit])?;
        if let Ok(receipt) = SignedReceipt::verify(&note) {
            let tree = git(repo, &["rev-parse", &format!("{commit}^{{tree}}")])?;
            let tested = !receipt.checks.is_empty() && receipt.checks.iter().all(|check| check.tree.to_string() == tree.trim());
            trees += usize::from(tested && receipt.tree.to_string() == tree.trim());
            verified.push(receipt);
        }
    }
    claims.add(
        "every landing has a receipt whose signature holds",
        format!("{} of {}", verified.len(), told.landed.len()),
        verified.len() == told.landed.len(),
    );
    claims.add(
        "the tree that passed the checks is the tree that landed",
        format!("{trees} of {}", told.landed.len()),
        trees == told.landed.len(),
    );
    let whole = verified.iter().all(|receipt| receipt.files.iter().all(|file| file.account.is_whole() || file.resolved_by.is_some()));
    let files: usize = verified.iter().map(|receipt| receipt.files.len()).sum();
    claims.add("hunk accounting: no change of either side is unaccounted for", format!("{files} files touched by both sides"), whole);
    let by_plugin =
        verified.iter().flat_map(|receipt| &receipt.resolutions).filter(|resolution| resolution.by.starts_with("plugin ")).count();
    let by_agent =
        verified.iter().flat_map(|receipt| &receipt.resolutions).filter(|resolution| resolution.by.starts_with("agent ")).count();
    claims.add(
        "the receipts name who resolved what",
        format!("{by_plugin} files by plugins, {by_agent} by an agent"),
        by_plugin >= 2 && by_agent == 1,
    );
    let approved = verified.iter().all(|receipt| receipt.approvals.iter().any(|by| by.starts_with("dora")));
    claims.add("the policy saw an approval of every landed head", "dora", approved);
    Ok(())
}

fn branches(repo: &Path, told: &Told, claims: &mut Claims) -> Result<(), DemoError> {
    let kept = git(repo, &["for-each-ref", "--format=%(refname)", "refs/pointsman/backup"])?;
    let backups = kept.lines().count();
    claims.add("every move of the target left a backup ref", format!("{backups} kept"), backups >= told.landed.len());
    let candidates = git(repo, &["for-each-ref", "--format=%(refname)", "refs/pointsman/candidate"])?;
    claims.add("no half-made merge is left", format!("{} candidate refs", candidates.lines().count()), candidates.trim().is_empty());
    Ok(())
}

async fn store(stage: &Stage, told: &Told, claims: &mut Claims) -> Result<(), DemoError> {
    let reader = &stage.agents[0];
    let mut there = 0;
    for id in &told.messages {
        there += usize::from(reader.lookup(id).await?["id"].as_str() == Some(id));
    }
    claims.add(
        "every answered message is in the store",
        format!("{there} of {}, after {} kills", told.messages.len(), stage.kills),
        there == told.messages.len(),
    );
    let mut waiting = 0;
    for agent in &stage.agents {
        waiting += agent.drain().await?.len();
    }
    claims.add("every delivery was acked, none comes back", format!("{waiting} left"), waiting == 0);
    let dead = reader.lookup("dead_letters").await?;
    claims.add("no message became a dead letter", "0", dead.as_array().is_some_and(Vec::is_empty));
    let (events, kinds) = events(stage).await?;
    if let Some((id, by)) = &told.returned {
        let of = |kind: &str| events.iter().filter(|event| event["type"] == kind && event["subject"] == id.as_str()).count();
        claims.add(
            "the message that was given back was acked by another agent",
            format!("nacked {}×, acked by {by}", of("message.nacked")),
            of("message.nacked") == 1 && of("message.acked") == 1,
        );
    }
    let landed = lookup_states(reader, &told.tasks).await?;
    claims.add("all tasks are landed and unclaimed", landed.join(", "), landed.iter().all(|state| state == "landed"));
    let plan = reader.lookup(&format!("context/{PLAN}")).await?;
    let value = &plan["value"];
    let merged = value["endpoints"]["release"].is_string() && value["clients"].is_array() && plan["version"].as_u64() == told.plan_seen;
    claims.add(
        "the document holds both edits, at the version the third agent saw",
        format!("version {}", plan["version"]),
        merged && told.plan_seen.is_some(),
    );
    let wanted = [
        "message.routed",
        "message.nacked",
        "message.acked",
        "task.claimed",
        "branch.created",
        "branch.pushed",
        "branch.committed",
        "merge.conflicted",
        "branch.resolved",
        "merge.checked",
        "task.reviewed",
        "merge.landed",
        "context.written",
    ];
    let missing: Vec<&str> = wanted.into_iter().filter(|kind| !kinds.iter().any(|found| found == kind)).collect();
    let found = if missing.is_empty() { format!("{} events", events.len()) } else { format!("missing {}", missing.join(", ")) };
    claims.add("the event log has every step", found, missing.is_empty());
    claims.add("a pull-request text was written", told.pull_request.clone(), !told.pull_request.is_empty());
    Ok(())
}

async fn lookup_states(reader: &super::actor::Actor, tasks: &[String]) -> Result<Vec<String>, DemoError> {
    let mut states = Vec::new();
    for task in tasks {
        let found = reader.lookup(task).await?;
        let free = found["claim"].is_null();
        states.push(if free { found["state"].as_str().unwrap_or_default().to_owned() } else { "still claimed".to_owned() });
    }
    Ok(states)
}

/// Reads the whole log through an agent.
async fn events(stage: &Stage) -> Result<(Vec<Value>, Vec<String>), DemoError> {
    let mut all: Vec<Value> = Vec::new();
    let mut after = String::new();
    loop {
        let page = stage.agents[0].lookup(&format!("events{after}")).await?;
        let page = page.as_array().cloned().unwrap_or_default();
        let Some(last) = page.last() else { break };
        after = format!("/{}.{}", last["cursor"]["epoch"], last["cursor"]["seq"]);
        all.extend(page);
    }
    let kinds = all.iter().filter_map(|event| event["type"].as_str().map(str::to_owned)).collect();
    Ok((all, kinds))
}
