//! What happens, act by act.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::DemoError;
use super::actor::Actor;
use super::scenery::{Scene, git};
use super::stage::Stage;
use super::timeline::Timeline;

/// Messages that each agent sends while the host is killed.
const STORM_MESSAGES: usize = 12;
/// The shared document.
pub(super) const PLAN: &str = "plan/api";

/// What the story leaves to be checked.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Ids of messages that the host answered.
    pub(super) messages: Vec<String>,
    /// Tasks, in the order of their making.
    pub(super) tasks: Vec<String>,
    /// Commits that landed, in order.
    pub(super) landed: Vec<(String, String)>,
    /// The message that was given back once: id and who acked it in the end.
    pub(super) returned: Option<(String, &'static str)>,
    /// The line that ben resolved the conflict to.
    pub(super) headline: String,
    /// What cyn added.
    pub(super) page: String,
    /// The plan's version after the merge, as a third agent saw it.
    pub(super) plan_seen: Option<u64>,
    /// Title of the pull request.
    pub(super) pull_request: String,
}

/// Plays all acts.
pub(super) async fn play(stage: &mut Stage, scene: &Scene, timeline: &Timeline) -> Result<Told, DemoError> {
    let mut told = Told::default();
    messages(stage, timeline, &mut told).await?;
    storm(stage, timeline, &mut told).await?;
    claims(stage, scene, timeline, &mut told).await?;
    context(stage, timeline, &mut told).await?;
    landings(stage, scene, timeline, &mut told).await?;
    Ok(told)
}

fn cast(stage: &Stage) -> [&Actor; 4] {
    [&stage.agents[0], &stage.agents[1], &stage.agents[2], &stage.agents[3]]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn messages(stage: &Stage, timeline: &Timeline, told: &mut Told) -> Result<(), DemoError> {
    timeline.act("Messages find whoever can answer them");
    let [ana, ben, cyn, dora] = cast(stage);
    let asked = send(cyn, "backend", "request", "Who owns the parser?", told).await?;
    let routed = text(&asked["routed"][0]["agent"]);
    timeline.say("cyn", &format!("asks capability `backend`; routing-capability picks {routed}: {}", text(&asked["routed"][0]["reason"])));
    let (first, second) = if routed == "ana" { (ana, ben) } else { (ben, ana) };
    let question = first_of_kind(first, "request").await?;
    first.wait(&[], &[json!({"message": question.id, "reason": "not mine"})], 0, &[]).await?;
    timeline.say(first.name, "is not the one: nack");
    let again = first_of_kind(second, "request").await?;
    second.wait(std::slice::from_ref(&again.id), &[], 0, &[]).await?;
    timeline.say(second.name, &format!("gets it on attempt {}, answers, acks", again.attempt));
    told.returned = Some((again.id.clone(), second.name));
    let answer = json!({"to": ["agent:cyn"], "kind": "answer", "subject": "Mine; what do you need?", "reply_to": again.id, "idempotency_key": "answer-1"});
    told.messages.push(text(&second.call("send_message", answer).await?["result"]["message"]));
    first_and_ack(cyn, "answer").await?;
    let checked = send(ben, "all(review, not(docs))", "request", "Please read my plan", told).await?;
    timeline.say("ben", &format!("asks `all(review, not(docs))`; it goes to {}", text(&checked["routed"][0]["agent"])));
    first_and_ack(dora, "request").await?;
    timeline.say("dora", "acks");
    Ok(())
}

async fn send(from: &Actor, to: &str, kind: &str, subject: &str, told: &mut Told) -> Result<Value, DemoError> {
    let key = format!("{}:{subject}", from.name);
    let answer = from.call("send_message", json!({"to": [to], "kind": kind, "subject": subject, "idempotency_key": key})).await?;
    told.messages.push(text(&answer["result"]["message"]));
    Ok(answer["result"].clone())
}

async fn first_of_kind(agent: &Actor, kind: &str) -> Result<super::actor::Mail, DemoError> {
    let (mail, _) = agent.wait(&[], &[], 10, &[]).await?;
    let found = mail.into_iter().find(|mail| mail.kind == kind);
    found.ok_or_else(|| DemoError::Unexpected { who: agent.name.to_owned(), what: format!("no {kind} came") })
}

async fn first_and_ack(agent: &Actor, kind: &str) -> Result<(), DemoError> {
    let mail = first_of_kind(agent, kind).await?;
    agent.wait(&[mail.id], &[], 0, &[]).await?;
    Ok(())
}

/// All agents send at once while the host is killed; answered or not, each call is repeated with its key.
async fn storm(stage: &mut Stage, timeline: &Timeline, told: &mut Told) -> Result<(), DemoError> {
    timeline.act("The host is killed amid messages");
    let total = STORM_MESSAGES * stage.agents.len();
    timeline.progress("sending, killing, sending again");
    let agents = std::mem::take(&mut stage.agents);
    let gate = tokio::sync::Semaphore::new(0);
    let sent = async {
        let all = agents.iter().map(|agent| {
            let gate = &gate;
            async move {
                let mut ids = Vec::new();
                for n in 0..STORM_MESSAGES {
                    let key = format!("storm-{}-{n}", agent.name);
                    let message = json!({"to": ["all"], "kind": "storm", "subject": key, "idempotency_key": key});
                    ids.push(text(&agent.call("send_message", message).await?["result"]["message"]));
                    gate.add_permits(1);
                }
                Ok::<_, DemoError>(ids)
            }
        });
        let mut ids = Vec::new();
        for answered in join_all(all).await {
            ids.extend(answered?);
        }
        Ok::<_, DemoError>(ids)
    };
    let killed = async {
        // The kill falls when a third of the calls were answered and others are on their way.
        let enough = u32::try_from(total / 3).unwrap_or(1);
        let _ = gate.acquire_many(enough).await;
        stage.kill_and_restart().await
    };
    let (sent, killed) = tokio::join!(sent, killed);
    stage.agents = agents;
    killed?;
    let ids = sent?;
    timeline.say("demo", &format!("kill -9 while {total} messages were on their way; every call was repeated with its key"));
    let mut seen = 0;
    for agent in &stage.agents {
        let mail = agent.drain().await?;
        let mut subjects: Vec<&String> = mail.iter().filter(|mail| mail.kind == "storm").map(|mail| &mail.subject).collect();
        let handed = subjects.len();
        subjects.sort_unstable();
        subjects.dedup();
        if subjects.len() != handed {
            return Err(DemoError::Unexpected { who: agent.name.to_owned(), what: "a message came twice after it was acked".to_owned() });
        }
        seen += handed;
    }
    timeline.say("demo", &format!("{seen} deliveries seen and acked, none lost, none twice"));
    told.messages.extend(ids);
    Ok(())
}

async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        let mut waiting = false;
        for (future, slot) in pending.iter_mut().zip(done.iter_mut()).filter(|(_, slot)| slot.is_none()) {
            match future.as_mut().poll(cx) {
                std::task::Poll::Ready(value) => *slot = Some(value),
                std::task::Poll::Pending => waiting = true,
            }
        }
        if waiting { std::task::Poll::Pending } else { std::task::Poll::Ready(done.drain(..).flatten().collect()) }
    })
    .await
}

async fn claims(stage: &Stage, scene: &Scene, timeline: &Timeline, told: &mut Told) -> Result<(), DemoError> {
    timeline.act("Three tasks are claimed: paths leased, branches made, one stacked");
    let [ana, ben, cyn, _] = cast(stage);
    let shared = json!([scene.log, scene.imports.path, scene.headline]);
    let page = "docs/pointsman-demo.md";
    page.clone_into(&mut told.page);
    let make = |title: &str, paths: Value, shared: Value, needs: Value| json!({"title": title, "paths": paths, "shared_paths": shared, "depends_on": needs, "idempotency_key": title});
    let first = ana.call("create_task", make("Name the release", json!([]), shared.clone(), json!([]))).await?;
    let t1 = text(&first["result"]["task"]);
    let second = ana.call("create_task", make("Announce the release", json!([]), shared, json!([]))).await?;
    let t2 = text(&second["result"]["task"]);
    let third = cyn.call("create_task", make("Document the release", json!([page]), json!([scene.log]), json!([t1]))).await?;
    let t3 = text(&third["result"]["task"]);
    told.tasks = vec![t1.clone(), t2.clone(), t3.clone()];
    timeline.say("ana", &format!("creates {t1}, {t2}; cyn creates {t3}, which depends on {t1}"));
    let (code, why) = cyn.refused("claim_task", json!({"task": t3})).await?;
    timeline.say("cyn", &format!("cannot claim {t3} yet: {code}: {why}"));
    let by_ana = ana.call("claim_task", json!({"task": t1})).await?;
    timeline.say("ana", &format!("claims {t1}: branch {}, token {}", text(&by_ana["result"]["branch"]), text(&by_ana["result"]["token"])));
    let (code, _) = ben.refused("claim_task", json!({"task": t1})).await?;
    timeline.say("ben", &format!("wants {t1} too: {code}"));
    let by_ben = ben.call("claim_task", json!({"task": t2})).await?;
    timeline.say("ben", &format!("claims {t2}: branch {}", text(&by_ben["result"]["branch"])));

    let clone_of_ana = clone(stage, &by_ana, "ana")?;
    write_release(&clone_of_ana, scene, &scene.imports.by_ana, "- named by ana", "named by ana")?;
    push(&clone_of_ana, &by_ana, "Name the release")?;
    timeline.say("ana", &format!("edits {}, {}, {} in a clone and pushes", scene.imports.path, scene.log, scene.headline));
    let stray = off_lease_push(&clone_of_ana, &by_ana)?;
    timeline.say("ana", &format!("pushes a file outside the lease: {stray}"));

    let by_cyn = cyn.call("claim_task", json!({"task": t3})).await?;
    timeline.say("cyn", &format!("claims {t3}: branch {} stacked on {t1}", text(&by_cyn["result"]["branch"])));
    let clone_of_cyn = clone(stage, &by_cyn, "cyn")?;
    write(&clone_of_cyn.join(page), "# The release\n\nIt was named on another branch, and this page builds on it.\n")?;
    push(&clone_of_cyn, &by_cyn, "Document the release")?;
    timeline.say("cyn", &format!("adds {page} on top of ana's commit and pushes"));

    let base = git(stage.path(), &["-C", &stage.repository()?.to_string_lossy(), "rev-parse", &scene.target])?;
    let read = |path: &str| git(&stage.repository().unwrap_or_default(), &["cat-file", "blob", &format!("{}:{path}", base.trim())]);
    let files = json!([
        {"path": scene.imports.path, "content": with_import(&read(&scene.imports.path)?, scene, &scene.imports.by_ben)},
        {"path": scene.log, "content": format!("{}- announced by ben\n", read(&scene.log)?)},
        {"path": scene.headline, "content": with_headline(&read(&scene.headline)?, scene.headline_at, "announced by ben")},
    ]);
    let made = ben.call("commit_files", json!({"task": t2, "files": files, "note": "Announce the release"})).await?;
    timeline.say("ben", &format!("edits the same places by commit_files: {}", &text(&made["result"]["commit"])[..10]));
    Ok(())
}

fn write(path: &Path, content: &str) -> Result<(), DemoError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(DemoError::io("a folder cannot be made"))?;
    }
    std::fs::write(path, content).map_err(DemoError::io(format!("{} cannot be written", path.display())))
}

fn clone(stage: &Stage, claimed: &Value, who: &str) -> Result<PathBuf, DemoError> {
    let (url, branch) = (text(&claimed["result"]["git"]["url"]), text(&claimed["result"]["branch"]));
    let folder = stage.path().join("clones").join(who);
    std::fs::create_dir_all(stage.path().join("clones")).map_err(DemoError::io("a folder cannot be made"))?;
    git(stage.path(), &["clone", "-q", "--branch", &branch, &url, &folder.to_string_lossy()])?;
    Ok(folder)
}

fn push(clone: &Path, claimed: &Value, message: &str) -> Result<(), DemoError> {
    git(clone, &["add", "-A", "-f"])?;
    git(clone, &["commit", "-q", "-m", message])?;
    git(clone, &["push", "-q", "origin", &format!("HEAD:refs/heads/{}", text(&claimed["result"]["branch"]))])?;
    Ok(())
}

/// Pushes what may not be pushed; returns what git showed of the reason. The clone is put back.
fn off_lease_push(clone: &Path, claimed: &Value) -> Result<String, DemoError> {
    write(&clone.join("stray.txt"), "not mine to write\n")?;
    let said = match push(clone, claimed, "Stray") {
        Err(DemoError::Git { said, .. }) => said,
        Err(other) => return Err(other),
        Ok(()) => return Err(DemoError::Unexpected { who: "ana".to_owned(), what: "a push outside the lease went through".to_owned() }),
    };
    git(clone, &["reset", "-q", "--hard", "HEAD~1"])?;
    let line = said.lines().find(|line| line.contains("stray.txt")).unwrap_or("refused");
    Ok(line.trim_start_matches("remote:").trim().to_owned())
}

fn write_release(clone: &Path, scene: &Scene, import: &str, line: &str, headline: &str) -> Result<(), DemoError> {
    let edit = |path: &str, change: &dyn Fn(&str) -> String| {
        let full = clone.join(path);
        let before = std::fs::read_to_string(&full).map_err(DemoError::io(format!("{path} cannot be read")))?;
        write(&full, &change(&before))
    };
    edit(&scene.imports.path, &|text| with_import(text, scene, import))?;
    edit(&scene.log, &|text| format!("{text}{line}\n"))?;
    edit(&scene.headline, &|text| with_headline(text, scene.headline_at, headline))
}

fn with_import(text: &str, scene: &Scene, import: &str) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let line = format!("{import}\n");
    lines.insert(scene.imports.after + 1, &line);
    lines.concat()
}

fn with_headline(text: &str, at: usize, words: &str) -> String {
    let lines = text.split_inclusive('\n').enumerate().map(|(n, line)| {
        if n == at {
            format!("{} ({words}){}", line.trim_end_matches('\n'), if line.ends_with('\n') { "\n" } else { "" })
        } else {
            line.to_owned()
        }
    });
    lines.collect()
}

async fn context(stage: &Stage, timeline: &Timeline, told: &mut Told) -> Result<(), DemoError> {
    timeline.act("Two agents write the same document from the same version; a third sees both");
    let [ana, ben, cyn, _] = cast(stage);
    let first = json!({"key": PLAN, "base_version": 0, "value": {"endpoints": {"health": "GET /healthz"}, "owner": "ana"}, "idempotency_key": "plan-1"});
    let base = ana.call("write_context", first).await?["result"]["version"].as_u64().unwrap_or(0);
    cyn.wait(&[], &[], 0, &["plan/**"]).await?;
    let watching = cyn.wait(&[], &[], 20, &["plan/**"]);
    let writing = async {
        let by_ana = json!({"key": PLAN, "base_version": base, "value": {"endpoints": {"health": "GET /healthz", "release": "POST /release"}, "owner": "ana"}, "idempotency_key": "plan-2"});
        let by_ben = json!({"key": PLAN, "base_version": base, "value": {"endpoints": {"health": "GET /healthz"}, "owner": "ana", "clients": ["web"]}, "idempotency_key": "plan-3"});
        let (ana, ben) = tokio::join!(ana.call("write_context", by_ana), ben.call("write_context", by_ben));
        Ok::<_, DemoError>((ana?, ben?))
    };
    let (seen, written) = tokio::join!(watching, writing);
    let (by_ana, by_ben) = written?;
    let versions = [by_ana["result"]["version"].as_u64().unwrap_or(0), by_ben["result"]["version"].as_u64().unwrap_or(0)];
    timeline.say(
        "ana",
        &format!("and ben write {PLAN} from version {base}: versions {} and {}, the later one merged", versions[0], versions[1]),
    );
    let newest = versions[0].max(versions[1]);
    let mut events = seen?.1;
    for _ in 0..20 {
        let last = events.iter().filter_map(|event| event["data"]["version"].as_u64()).max();
        if last == Some(newest) {
            told.plan_seen = last;
            break;
        }
        events = cyn.wait(&[], &[], 5, &["plan/**"]).await?.1;
    }
    timeline.say("cyn", &format!("was waiting and sees version {newest}"));
    Ok(())
}

async fn landings(stage: &mut Stage, scene: &Scene, timeline: &Timeline, told: &mut Told) -> Result<(), DemoError> {
    timeline.act("Branches come home in order: merged, checked, approved, landed by compare-and-swap");
    let [t1, t2, t3] = [0, 1, 2].map(|n| told.tasks[n].clone());
    {
        let [ana, _, cyn, dora] = cast(stage);
        cyn.call("submit_branch", json!({"task": t3})).await?;
        timeline.say("cyn", &format!("submits {t3}; it waits for {t1}"));
        ana.call("submit_branch", json!({"task": t1})).await?;
        timeline.say("ana", &format!("submits {t1}"));
        approve(dora, &t1, timeline).await?;
        land(ana, &t1, timeline, told).await?;
        let text = cyn.lookup(&format!("pull_request/{t3}")).await?;
        told.pull_request = super::story::text(&text["title"]);
        timeline.say(
            "cyn",
            &format!(
                "has a pull-request text written: “{}”, {} lines",
                told.pull_request,
                text["body"].as_str().unwrap_or_default().lines().count()
            ),
        );
        approve(dora, &t3, timeline).await?;
    }
    timeline.progress("killing the host amid a landing");
    stage.kill_and_restart().await?;
    timeline.say("demo", "kill -9 amid the landing; the host is back");
    let [_, ben, cyn, dora] = cast(stage);
    land(cyn, &t3, timeline, told).await?;
    ben.call("submit_branch", json!({"task": t2})).await?;
    timeline.say("ben", &format!("submits {t2}, which changed the same lines as {t1}"));
    let conflict = ben.mail(&["conflict", "landed", "check_failed", "refused"]).await?;
    let files = conflict.body["files"].as_array().cloned().unwrap_or_default();
    let paths: Vec<String> = files.iter().map(|file| text(&file["path"])).collect();
    if conflict.kind != "conflict" || paths != [scene.headline.clone()] {
        return Err(DemoError::Unexpected {
            who: "ben".to_owned(),
            what: format!("expected a conflict in {} alone, got {} {paths:?}", scene.headline, conflict.kind),
        });
    }
    timeline.say(
        "ben",
        &format!("gets back {} as base/ours/theirs; {} and {} were merged by plugins", scene.headline, scene.imports.path, scene.log),
    );
    let sides = ben.lookup(&format!("conflict/{t2}")).await?;
    let ours = text(&sides["files"][0]["ours"]);
    let resolved = with_headline(&ours, scene.headline_at, "announced by ben");
    told.headline = resolved.lines().nth(scene.headline_at).unwrap_or_default().to_owned();
    ben.call("resolve_conflict", json!({"task": t2, "files": [{"path": scene.headline, "content": resolved}]})).await?;
    timeline.say("ben", &format!("resolves it to “{}”", told.headline));
    approve(dora, &t2, timeline).await?;
    land(ben, &t2, timeline, told).await
}

async fn approve(dora: &Actor, task: &str, timeline: &Timeline) -> Result<(), DemoError> {
    loop {
        let asked = dora.mail(&["review_request"]).await?;
        if asked.body["task"].as_str() == Some(task) {
            let head = text(&asked.body["head"]);
            dora.call("review_branch", json!({"task": task, "verdict": "approve", "head": head, "comment": "Reads well."})).await?;
            timeline.say("dora", &format!("is asked by the policy, reads {task} at {}, approves", &head[..10.min(head.len())]));
            return Ok(());
        }
    }
}

async fn land(agent: &Actor, task: &str, timeline: &Timeline, told: &mut Told) -> Result<(), DemoError> {
    timeline.progress(&format!("{task} is landing"));
    loop {
        let mail = agent.mail(&["landed", "conflict", "check_failed", "refused"]).await?;
        if mail.body["task"].as_str() != Some(task) {
            continue;
        }
        if mail.kind != "landed" {
            return Err(DemoError::Unexpected { who: agent.name.to_owned(), what: format!("{task}: {}: {}", mail.kind, mail.body) });
        }
        let commit = text(&mail.body["commit"]);
        timeline.say(agent.name, &format!("{task} landed as {} on {}", &commit[..10.min(commit.len())], text(&mail.body["target"])));
        told.landed.push((task.to_owned(), commit));
        return Ok(());
    }
}
