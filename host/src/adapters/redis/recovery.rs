//! What happens when other servers answer than before: a replica was promoted, a process started again, a node was replaced.
//!
//! ```text
//! each host       hands in what it has committed and Redis does not have: each commit at its place, in order
//!                 says so (`reported`), and waits for the other hosts, for a bounded time
//! the first       begins the next epoch; from then on commits are judged again
//! one that comes later hands in what only adds, and is refused where it is there already
//! ```
//! **Invariants:** nothing is judged between the loss and the new epoch; a commit that was answered by a host that is alive is
//! there in the new epoch, under its version, its events under their numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{ErrorKind, RedisError, Value};
use thiserror::Error;

use super::entry::{Entry, Mode, Place, Verdict};
use super::keys::HOST;
use super::servers::{Master, Servers};
use super::{Core, FORMAT, time_ms};

/// Milliseconds between two looks at something that others do.
const LOOK_MS: u64 = 25;
/// Milliseconds that a commit waits for those before it, while nothing moves; then they are lost with the host that had them.
const STUCK_MS: u64 = 1_500;

/// Why an epoch could not be joined.
#[derive(Debug, Error)]
pub(super) enum SettleError {
    #[error("Redis does not answer")]
    Redis(#[from] RedisError),
    #[error("what stands in Redis has the format {0}")]
    Newer(u32),
    #[error("the journal beside Redis cannot be read")]
    Journal(#[source] std::io::Error),
}

impl SettleError {
    /// Returns it and its causes in one line.
    pub(super) fn with_causes(&self) -> String {
        let cause: &dyn std::fmt::Display = match self {
            Self::Redis(cause) => cause,
            Self::Journal(cause) => cause,
            Self::Newer(_) => return self.to_string(),
        };
        format!("{self}: {cause}")
    }
}

/// What stands in the facts of the store.
struct Facts {
    epoch: u64,
    lineage: String,
}

/// Joins the epoch of these servers, which is begun where they are others than before. Returns it.
pub(super) async fn settle(core: &Core, servers: &Servers) -> Result<u64, SettleError> {
    let home = servers.of(HOST)?;
    let lineage = servers.lineage();
    let mut facts = begin(core, home, &lineage).await?;
    if facts.lineage != lineage {
        tracing::warn!(epoch = facts.epoch, "Redis is not the one it was; what it may have lost is handed in again");
        let restored = restore(core, servers, facts.epoch).await?;
        report(core, home, &lineage).await?;
        facts.epoch = wait_for_others(core, home, &facts.lineage, &lineage).await?;
        tracing::warn!(epoch = facts.epoch, restored, "a new epoch: commits are judged again");
    } else {
        report(core, home, &lineage).await?;
        come_late(core, servers, facts.epoch).await?;
    }
    if let Some(journal) = &core.journal {
        journal.joined(facts.epoch).map_err(SettleError::Journal)?;
    }
    Ok(facts.epoch)
}

async fn begin(core: &Core, home: &Master, lineage: &str) -> Result<Facts, SettleError> {
    let store = core.keys.store();
    let mut begin = redis::pipe();
    for (field, value) in [("format", FORMAT.to_string()), ("epoch", "1".to_owned()), ("lineage", lineage.to_owned())] {
        begin.cmd("HSETNX").arg(&store).arg(field).arg(value).ignore();
    }
    begin.cmd("HMGET").arg(&store).arg(&["format", "epoch", "lineage"]).cmd("TIME");
    let ((format, epoch, lineage), time): ((u32, u64, String), (i64, i64)) = home.ask_all(&begin).await?;
    if format > FORMAT {
        return Err(SettleError::Newer(format));
    }
    core.clock.look(time_ms(time));
    core.show_life(home).await?;
    Ok(Facts { epoch, lineage })
}

/// Hands in what Redis does not have. Returns how much that was.
async fn restore(core: &Core, servers: &Servers, epoch: u64) -> Result<usize, SettleError> {
    let Some(journal) = &core.journal else { return Ok(0) };
    let mut spaces: BTreeMap<String, BTreeMap<u64, (Place, Entry)>> = BTreeMap::new();
    for (place, entry) in journal.read().await.map_err(SettleError::Journal)? {
        if place.epoch >= epoch {
            spaces.entry(entry.space.clone()).or_default().insert(place.version, (place, entry));
        }
    }
    let mut restored = 0;
    for (space, entries) in spaces {
        let master = servers.of(&space)?;
        let stands: Option<u64> = master.ask(redis::cmd("HGET").arg(core.keys.facts(&space)).arg("version")).await?;
        for (place, entry) in entries.range(stands.unwrap_or(0) + 1..).map(|(_, found)| found) {
            match restore_one(core, master, *place, entry).await? {
                Verdict::Done { .. } => restored += 1,
                // Others went on without waiting for this host any more.
                Verdict::Epoch => return Ok(restored),
                Verdict::There | Verdict::Gap(_) | Verdict::Replayed(_) | Verdict::Reused | Verdict::Stale(_) | Verdict::Fenced(_) => {}
            }
        }
        core.note_space(servers, &space).await?;
    }
    Ok(restored)
}

/// Does a commit again once those before it are there, or are lost.
async fn restore_one(core: &Core, master: &Master, place: Place, entry: &Entry) -> Result<Verdict, SettleError> {
    let (mut waited_ms, mut reached) = (0, 0);
    let mut mode = Mode::Restore(place);
    loop {
        let verdict = judge(core, master, place.epoch, entry, mode).await?;
        let Verdict::Gap(stands) = verdict else { return Ok(verdict) };
        if stands > reached {
            (waited_ms, reached) = (0, stands);
        }
        if waited_ms >= STUCK_MS {
            tracing::error!(space = entry.space, version = place.version, "commits before this one are lost with the host that made them");
            mode = Mode::Skip(place);
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        waited_ms += LOOK_MS;
    }
}

async fn judge(core: &Core, master: &Master, epoch: u64, entry: &Entry, mode: Mode) -> Result<Verdict, SettleError> {
    let said: Value = master.ask(&entry.command(core.commit.get_hash(), &core.keys, epoch, core.clock.now(), mode)).await?;
    let wrong = || RedisError::from((ErrorKind::UnexpectedReturnType, "the script said nothing that is known"));
    Ok(Verdict::of(said).ok_or_else(wrong)?)
}

async fn report(core: &Core, home: &Master, lineage: &str) -> Result<(), SettleError> {
    Ok(home.ask(redis::cmd("HSET").arg(core.keys.reported()).arg(&core.host).arg(lineage)).await.map(|_: i64| ())?)
}

/// Waits until every host has handed in what it has, or is given up, then begins the epoch. Returns it.
async fn wait_for_others(core: &Core, home: &Master, was: &str, lineage: &str) -> Result<u64, SettleError> {
    let mut waited_ms = 0;
    loop {
        let mut look = redis::pipe();
        look.cmd("HGET").arg(core.keys.store()).arg("lineage");
        look.cmd("ZRANGE").arg(core.keys.members()).arg(0).arg(-1).cmd("HGETALL").arg(core.keys.reported());
        let (stands, members, reported): (String, Vec<String>, BTreeMap<String, String>) = home.ask_all(&look).await?;
        let missing: Vec<&String> = members.iter().filter(|host| reported.get(*host).is_none_or(|to| to != lineage)).collect();
        if stands != was || missing.is_empty() || waited_ms >= core.options.settle_ms {
            if !missing.is_empty() && stands == was {
                tracing::error!(?missing, "hosts did not hand in what they had in time; what only they had comes later, or is lost");
            }
            break;
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        waited_ms += LOOK_MS;
    }
    let known = core.journal.as_ref().map_or(0, |journal| journal.epoch());
    let mut settle = redis::cmd("EVALSHA");
    settle.arg(core.settle.get_hash()).arg(1).arg(core.keys.store()).arg(was).arg(lineage).arg(known);
    Ok(home.ask(&settle).await?)
}

/// Hands in what only adds, of an epoch that others ended without this host.
async fn come_late(core: &Core, servers: &Servers, epoch: u64) -> Result<(), SettleError> {
    let Some(journal) = &core.journal else { return Ok(()) };
    let joined = journal.epoch();
    if joined == 0 || joined >= epoch {
        return Ok(());
    }
    let (mut added, mut dropped) = (0, 0);
    for (place, entry) in journal.read().await.map_err(SettleError::Journal)? {
        if place.epoch < joined || place.epoch >= epoch {
            continue;
        }
        if !entry.only_adds {
            dropped += 1;
            continue;
        }
        let verdict = judge(core, servers.of(&entry.space)?, epoch, &entry, Mode::Judge).await?;
        added += usize::from(matches!(verdict, Verdict::Done { .. }));
    }
    if added > 0 {
        tracing::error!(added, dropped, "others went on without this host: what only added was handed in, what changed something was not");
    }
    Ok(())
}
