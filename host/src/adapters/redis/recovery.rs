//! What happens when other servers answer than before: a replica was promoted, a process started again, a node was replaced.
//!
//! ```text
//! each host       hands in what it has committed and Redis does not have: each commit at its place, in order
//!                 waits, when one before it is missing, until the others have handed in theirs
//!                 says that it is done (`reported`), and waits for the other hosts, for a bounded time
//! the first       begins the next epoch; from then on commits are judged again
//! one that comes later hands in what only adds, and is refused where it is there already
//! ```
//! **Invariants:** nothing new is judged between the loss and the new epoch; a commit that was answered by a host that is alive is
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
/// Milliseconds without a move, while every host is done or waits, after which what is missing is lost with the host that had it.
const STUCK_MS: u64 = 500;

/// Why an epoch could not be joined.
#[derive(Debug, Error)]
pub(super) enum SettleError {
    #[error("Redis does not answer")]
    Redis(#[from] RedisError),
    #[error("what stands in Redis has the format {0}")]
    Newer(u32),
    #[error("Redis is empty, and this host has written to it before")]
    Empty,
    #[error("the journal beside Redis cannot be read")]
    Journal(#[source] std::io::Error),
}

impl SettleError {
    /// Returns it and its causes in one line.
    pub(super) fn with_causes(&self) -> String {
        let cause: &dyn std::fmt::Display = match self {
            Self::Redis(cause) => cause,
            Self::Journal(cause) => cause,
            Self::Newer(_) | Self::Empty => return self.to_string(),
        };
        format!("{self}: {cause}")
    }
}

/// How far a host is with a lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    /// It hands in.
    Busy,
    /// It can go on only after others.
    Waits,
    /// It has handed in everything.
    Done,
}

impl Report {
    fn text(self, lineage: &str) -> String {
        match self {
            Self::Busy => String::new(),
            Self::Waits => format!("waits {lineage}"),
            Self::Done => lineage.to_owned(),
        }
    }
}

/// One recovery of one host.
struct Recovery<'a> {
    core: &'a Core,
    servers: &'a Servers,
    home: &'a Master,
    lineage: String,
    /// The epoch that ends.
    epoch: u64,
    /// The lineage that was.
    was: String,
    waited_ms: u64,
}

/// Joins the epoch of these servers, which is begun where they are others than before. Returns it.
pub(super) async fn settle(core: &Core, servers: &Servers) -> Result<u64, SettleError> {
    let (home, lineage) = (servers.of(HOST)?, servers.lineage());
    let (epoch, was) = begin(core, home, &lineage).await?;
    let mut recovery = Recovery { core, servers, home, lineage, epoch, was, waited_ms: 0 };
    let joined = if recovery.was == recovery.lineage {
        recovery.come_late().await?;
        recovery.report(Report::Done).await?;
        epoch
    } else {
        recovery.recover().await?
    };
    if let Some(journal) = &core.journal {
        journal.joined(joined).map_err(SettleError::Journal)?;
    }
    Ok(joined)
}

/// Returns the epoch and the lineage that stand in Redis.
async fn begin(core: &Core, home: &Master, lineage: &str) -> Result<(u64, String), SettleError> {
    let store = core.keys.store();
    let is_begun: bool = home.ask(redis::cmd("HEXISTS").arg(&store).arg("lineage")).await?;
    if !is_begun && core.journal.as_ref().is_some_and(|journal| journal.epoch() > 0) {
        return Err(SettleError::Empty);
    }
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
    Ok((epoch, lineage))
}

impl Recovery<'_> {
    async fn recover(&mut self) -> Result<u64, SettleError> {
        tracing::warn!(epoch = self.epoch, "Redis is not the one it was; what it may have lost is handed in again");
        self.report(Report::Busy).await?;
        let restored = self.hand_in().await?;
        self.report(Report::Done).await?;
        while !self.are_others(&[Report::Done]).await? {
            self.pause().await;
        }
        let known = self.core.journal.as_ref().map_or(0, |journal| journal.epoch());
        let mut settle = redis::cmd("EVALSHA");
        settle.arg(self.core.settle.get_hash()).arg(1).arg(self.core.keys.store()).arg(&self.was).arg(&self.lineage).arg(known);
        let epoch = self.home.ask(&settle).await?;
        tracing::warn!(epoch, restored, "a new epoch: commits are judged again");
        Ok(epoch)
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        self.waited_ms += LOOK_MS;
    }

    async fn report(&self, report: Report) -> Result<(), SettleError> {
        let mut say = redis::cmd("HSET");
        say.arg(self.core.keys.reported()).arg(&self.core.host).arg(report.text(&self.lineage));
        Ok(self.home.ask::<i64>(&say).await.map(|_| ())?)
    }

    /// Returns whether all other hosts are that far, or are not waited for any more.
    async fn are_others(&self, far: &[Report]) -> Result<bool, SettleError> {
        let mut look = redis::pipe();
        look.cmd("HGET").arg(self.core.keys.store()).arg("lineage");
        look.cmd("ZRANGE").arg(self.core.keys.members()).arg(0).arg(-1).cmd("HGETALL").arg(self.core.keys.reported());
        let (stands, members, reported): (String, Vec<String>, BTreeMap<String, String>) = self.home.ask_all(&look).await?;
        let is_far = |host: &String| far.iter().any(|far| reported.get(host).is_some_and(|said| *said == far.text(&self.lineage)));
        let missing: Vec<&String> = members.iter().filter(|host| **host != self.core.host && !is_far(host)).collect();
        if stands != self.was || missing.is_empty() {
            return Ok(true);
        }
        let is_over = self.waited_ms >= self.core.options.settle_ms;
        if is_over {
            tracing::error!(?missing, "hosts did not hand in what they had in time; what only they had comes later, or is lost");
        }
        Ok(is_over)
    }

    /// Hands in what Redis does not have. Returns how much that was.
    async fn hand_in(&mut self) -> Result<usize, SettleError> {
        let Some(journal) = &self.core.journal else { return Ok(0) };
        let mut spaces: BTreeMap<String, BTreeMap<u64, (Place, Entry)>> = BTreeMap::new();
        for (place, entry) in journal.read().await.map_err(SettleError::Journal)? {
            if place.epoch >= self.epoch {
                spaces.entry(entry.space.clone()).or_default().insert(place.version, (place, entry));
            }
        }
        let mut restored = 0;
        for (space, entries) in spaces {
            let master = self.servers.of(&space)?;
            self.core.note_space(self.servers, &space).await?;
            let stands: Option<u64> = master.ask(redis::cmd("HGET").arg(self.core.keys.facts(&space)).arg("version")).await?;
            for (place, entry) in entries.range(stands.unwrap_or(0) + 1..).map(|(_, found)| found) {
                match self.restore(master, *place, entry).await? {
                    Verdict::Done { .. } => restored += 1,
                    // Others went on without waiting for this host any more.
                    Verdict::Epoch => return Ok(restored),
                    Verdict::There | Verdict::Gap(_) | Verdict::Replayed(_) | Verdict::Reused | Verdict::Stale(_) | Verdict::Fenced(_) => {}
                }
            }
        }
        Ok(restored)
    }

    /// Does a commit again once those before it are there, or are lost.
    async fn restore(&mut self, master: &Master, place: Place, entry: &Entry) -> Result<Verdict, SettleError> {
        let (mut still_ms, mut reached, mut waits) = (0, 0, false);
        let mut mode = Mode::Restore(place);
        loop {
            let verdict = self.judge(master, place.epoch, entry, mode).await?;
            let Verdict::Gap(stands) = verdict else {
                if waits {
                    self.report(Report::Busy).await?;
                }
                return Ok(verdict);
            };
            if !waits {
                self.report(Report::Waits).await?;
                waits = true;
            }
            if stands > reached || !self.are_others(&[Report::Waits, Report::Done]).await? {
                (still_ms, reached) = (0, stands);
            }
            if still_ms >= STUCK_MS {
                tracing::error!(
                    space = entry.space,
                    version = place.version,
                    "commits before this one are lost with the host that made them"
                );
                mode = Mode::Skip(place);
            }
            self.pause().await;
            still_ms += LOOK_MS;
        }
    }

    async fn judge(&self, master: &Master, epoch: u64, entry: &Entry, mode: Mode) -> Result<Verdict, SettleError> {
        let core = self.core;
        let said: Value = master.ask(&entry.command(core.commit.get_hash(), &core.keys, epoch, core.clock.now(), mode)).await?;
        let wrong = || RedisError::from((ErrorKind::UnexpectedReturnType, "the script said nothing that is known"));
        Ok(Verdict::of(said).ok_or_else(wrong)?)
    }

    /// Hands in what only adds, of an epoch that others ended without this host.
    async fn come_late(&self) -> Result<(), SettleError> {
        let Some(journal) = &self.core.journal else { return Ok(()) };
        let joined = journal.epoch();
        if joined == 0 || joined >= self.epoch {
            return Ok(());
        }
        let (mut added, mut dropped) = (0, 0);
        for (place, entry) in journal.read().await.map_err(SettleError::Journal)? {
            if place.epoch < joined || place.epoch >= self.epoch {
                continue;
            }
            if !entry.only_adds {
                dropped += 1;
                continue;
            }
            let verdict = self.judge(self.servers.of(&entry.space)?, self.epoch, &entry, Mode::Judge).await?;
            added += usize::from(matches!(verdict, Verdict::Done { .. }));
        }
        if added > 0 {
            tracing::error!(
                added,
                dropped,
                "others went on without this host: what only added was handed in, what changed something was not"
            );
        }
        Ok(())
    }
}
