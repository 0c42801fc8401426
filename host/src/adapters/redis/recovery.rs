//! What happens when other servers answer than before: a replica was promoted, a process started again, a node was replaced.
//!
//! ```text
//! each host       lays down beside each space (`lost`) what it has committed there and Redis does not have
//!                 says so (`reported`), and waits for the others, as long as they show life
//!                 does all that lies there again: each commit at its place, in order; two hosts may do so at once
//! the first       begins the next epoch; from then on commits are judged again
//! one that comes later hands in what only adds, and is refused where it is there already
//! ```
//! Servers that were masters before, lost nothing, and missed an epoch that began on others are behind (Sentinels may go back to
//! one, or name one that was cut off): what was done on them alone since then, of which nobody was told, gives way.
//!
//! **Invariants:** nothing new is judged between the loss and the new epoch; a commit that was answered by a host that is alive is
//! there in the new epoch, under its version, its events under their numbers.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use redis::{ErrorKind, RedisError, Value};
use thiserror::Error;

use super::entry::{Entry, Mode, Place, Verdict};
use super::keys::HOST;
use super::servers::{Master, Servers};
use super::{Core, FORMAT, time_ms};

/// Milliseconds between two looks at something that others do.
const LOOK_MS: u64 = 25;
/// Looks between two signs of life.
const LIFE_LOOKS: u64 = 20;
/// Commits that are laid down or done again at once, and bytes after which no further one joins them.
const GROUP_MAX: usize = 128;
const GROUP_BYTES_MAX: usize = 4 << 20;

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

fn unknown_answer() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "the script said nothing that is known").into()
}

/// What the other hosts did meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// All have handed in what they have, or are gone.
    Wait,
    /// One has begun the epoch.
    WentOn,
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
}

/// Joins the epoch of these servers, which is begun where they are others than before. Returns it.
pub(super) async fn settle(core: &Core, servers: &Servers) -> Result<u64, SettleError> {
    let (home, lineage) = (servers.of(HOST)?, servers.lineage());
    let (epoch, was) = meet(core, home, &lineage).await?;
    let recovery = Recovery { core, servers, home, lineage, epoch, was };
    let joined = if recovery.was == recovery.lineage {
        recovery.come_late().await?;
        recovery.report().await?;
        epoch
    } else {
        recovery.recover().await?
    };
    if let Some(journal) = &core.journal {
        journal.joined(joined).map_err(SettleError::Journal)?;
    }
    Ok(joined)
}

/// Returns the epoch and the lineage that stand in Redis, which is begun where it is new.
async fn meet(core: &Core, home: &Master, lineage: &str) -> Result<(u64, String), SettleError> {
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
    let ((format, epoch, stands), time): ((u32, u64, String), (i64, i64)) = home.ask_all(&begin).await?;
    if format > FORMAT {
        return Err(SettleError::Newer(format));
    }
    core.clock.look(time_ms(time));
    core.show_life(home).await?;
    let known = core.known_epoch();
    if stands == lineage && epoch < known {
        // They lost nothing of their own, and know nothing of what was done on others meanwhile.
        return Ok(step(core, home, &["behind", lineage, &known.to_string()]).await?);
    }
    Ok((epoch, stands))
}

/// Takes a step from one epoch to the next. Returns the epoch and the lineage that stand then.
async fn step(core: &Core, home: &Master, words: &[&str]) -> Result<(u64, String), RedisError> {
    home.ask(redis::cmd("EVALSHA").arg(core.settle.get_hash()).arg(1).arg(core.keys.store()).arg(words)).await
}

/// A commit among those that are handed in: its epoch, its version.
type Lost = (u64, u64);

/// Returns the name under which a commit is handed in.
fn name((epoch, version): Lost) -> String {
    format!("{epoch}-{version}")
}

/// Returns those commits that are to be done again, in their order: where a later epoch began, what earlier ones had beyond that was
/// lost then.
fn in_force(names: &[String]) -> Vec<Lost> {
    let parsed = names
        .iter()
        .filter_map(|name| name.split_once('-').and_then(|(epoch, version)| Some((epoch.parse().ok()?, version.parse().ok()?))));
    let mut all: Vec<Lost> = parsed.collect();
    all.sort_unstable();
    let (mut later, mut begins, mut end) = (None, u64::MAX, u64::MAX);
    let mut kept: Vec<Lost> = Vec::with_capacity(all.len());
    for (epoch, version) in all.into_iter().rev() {
        if later != Some(epoch) {
            (later, end) = (Some(epoch), end.min(begins));
        }
        if version < end {
            begins = version;
            kept.push((epoch, version));
        }
    }
    kept.reverse();
    kept
}

impl Recovery<'_> {
    async fn recover(&self) -> Result<u64, SettleError> {
        tracing::warn!(epoch = self.epoch, "Redis is not the one it was; what it may have lost is handed in again");
        let handed_in = self.hand_in().await?;
        self.report().await?;
        if self.wait_for_others().await? == Others::WentOn {
            let epoch = self.home.ask(redis::cmd("HGET").arg(self.core.keys.store()).arg("epoch")).await?;
            // They may not have waited for what this host had.
            let missed = self.missed().await?;
            self.add(epoch, &missed).await?;
            self.add(epoch, &handed_in).await?;
            return Ok(epoch);
        }
        self.end_epoch().await?;
        let restored = self.restore().await?;
        let missed = self.missed().await?;
        let epoch = self.begin_epoch().await?;
        self.clear().await?;
        self.add(epoch, &missed).await?;
        tracing::warn!(epoch, restored, "a new epoch: commits are judged again");
        Ok(epoch)
    }

    /// Nothing of the epoch that was is judged from here on.
    async fn end_epoch(&self) -> Result<(), SettleError> {
        for space in self.spaces().await? {
            let mut end = redis::cmd("HSET");
            end.arg(self.core.keys.facts(&space)).arg("judged").arg(self.epoch + 1);
            self.servers.of(&space)?.ask::<i64>(&end).await?;
        }
        Ok(())
    }

    /// Begins the next epoch, which is joined once the replicas know of it: else servers that nobody follows would pass for those
    /// on which the last commits are.
    async fn begin_epoch(&self) -> Result<u64, SettleError> {
        let known = self.core.known_epoch().to_string();
        let (epoch, stands) = step(self.core, self.home, &["begin", &self.was, &self.lineage, &known]).await?;
        if stands != self.was {
            return Ok(epoch);
        }
        // Once more, on the connection whose replicas are waited for.
        let begun = format!("{epoch} {}", self.lineage);
        self.home.replicate(redis::cmd("HSET").arg(self.core.keys.store()).arg("begun").arg(begun)).await?;
        match step(self.core, self.home, &["join", &self.was, &self.lineage, &epoch.to_string()]).await? {
            (joined, stands) if joined == epoch && stands == self.lineage => Ok(epoch),
            _ => Err(RedisError::from((ErrorKind::Client, "other hosts begin another epoch")).into()),
        }
    }

    /// Says that this host has handed in what it has.
    async fn report(&self) -> Result<(), SettleError> {
        let mut say = redis::cmd("HSET");
        say.arg(self.core.keys.reported()).arg(&self.core.host).arg(self.report_of());
        Ok(self.home.ask::<i64>(&say).await.map(|_| ())?)
    }

    /// Returns what a host says that has handed in what it has.
    fn report_of(&self) -> String {
        format!("{} {}", self.epoch, self.lineage)
    }

    /// Lays down what Redis does not have, and returns it.
    async fn hand_in(&self) -> Result<Vec<(Place, Entry)>, SettleError> {
        let mut handed_in = Vec::new();
        let Some(journal) = &self.core.journal else { return Ok(handed_in) };
        let mut spaces: BTreeMap<String, BTreeMap<Lost, (Place, Entry)>> = BTreeMap::new();
        for (place, entry) in journal.read().await.map_err(SettleError::Journal)? {
            if place.epoch >= self.epoch {
                spaces.entry(entry.space.clone()).or_default().insert((place.epoch, place.version), (place, entry));
            }
        }
        for (space, entries) in spaces {
            let master = self.servers.of(&space)?;
            self.home.ask::<i64>(redis::cmd("SADD").arg(self.core.keys.spaces()).arg(&space)).await?;
            let facts = master.ask(redis::cmd("HMGET").arg(self.core.keys.facts(&space)).arg(&["epoch", "version"])).await?;
            let stands: (Option<u64>, Option<u64>) = facts;
            let stands = (stands.0.unwrap_or(0), stands.1.unwrap_or(0));
            let mut lay = redis::pipe();
            let mut bytes = 0;
            let lost = entries.into_iter().filter(|(lost, _)| *lost > stands);
            for (lost, (place, entry)) in lost {
                let mut written = Vec::new();
                entry.write(place, &mut written);
                bytes += written.len();
                handed_in.push((place, entry));
                lay.cmd("HSET").arg(self.core.keys.lost(&space)).arg(name(lost)).arg(written).ignore();
                if lay.len() >= GROUP_MAX || bytes >= GROUP_BYTES_MAX {
                    master.ask_all::<()>(&lay).await?;
                    self.core.show_life(self.home).await?;
                    lay.clear();
                    bytes = 0;
                }
            }
            if !lay.is_empty() {
                master.ask_all::<()>(&lay).await?;
            }
        }
        Ok(handed_in)
    }

    /// Waits until every host has handed in what it has, or showed no life for too long, or somebody began the epoch.
    async fn wait_for_others(&self) -> Result<Others, SettleError> {
        let (mut silent_ms, mut looks, mut last_lives, own) = (0, 0, HashMap::new(), self.report_of());
        loop {
            let mut look = redis::pipe();
            look.cmd("HGET").arg(self.core.keys.store()).arg("lineage");
            look.cmd("ZRANGE").arg(self.core.keys.members()).arg(0).arg(-1).arg("WITHSCORES");
            look.cmd("HGETALL").arg(self.core.keys.reported());
            let (stands, members, reported): (String, Vec<(String, f64)>, HashMap<String, String>) = self.home.ask_all(&look).await?;
            let is_missing = |host: &String| *host != self.core.host && reported.get(host) != Some(&own);
            let missing: HashMap<String, u64> =
                members.into_iter().filter(|(host, _)| is_missing(host)).map(|(host, life)| (host, life.to_bits())).collect();
            if stands != self.was {
                return Ok(Others::WentOn);
            }
            if missing.is_empty() {
                return Ok(Others::Wait);
            }
            if missing != last_lives {
                silent_ms = 0;
            }
            if silent_ms >= self.core.options.settle_ms {
                let hosts: Vec<&String> = missing.keys().collect();
                tracing::error!(?hosts, "hosts are not waited for any more; what only they have comes later, or is lost");
                return Ok(Others::Wait);
            }
            last_lives = missing;
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            silent_ms += LOOK_MS;
            looks += 1;
            if looks % LIFE_LOOKS == 0 {
                self.core.show_life(self.home).await?;
            }
        }
    }

    /// Does all that was handed in again. Returns how much this host did of it.
    async fn restore(&self) -> Result<usize, SettleError> {
        let mut restored = 0;
        for space in self.spaces().await? {
            let master = self.servers.of(&space)?;
            let names: Vec<String> = master.ask(redis::cmd("HKEYS").arg(self.core.keys.lost(&space))).await?;
            for lost in in_force(&names).chunks(GROUP_MAX) {
                let mut read = redis::cmd("HMGET");
                read.arg(self.core.keys.lost(&space)).arg(lost.iter().copied().map(name).collect::<Vec<_>>());
                let found: Vec<Option<Vec<u8>>> = master.ask(&read).await?;
                // What is gone has been done by whoever began the epoch.
                let entries: Vec<(Place, Entry)> = found.iter().flatten().filter_map(|bytes| Entry::read(bytes)).collect();
                restored += self.restore_group(master, &entries).await?;
                self.core.show_life(self.home).await?;
            }
        }
        Ok(restored)
    }

    async fn restore_group(&self, master: &Master, entries: &[(Place, Entry)]) -> Result<usize, SettleError> {
        let (mut restored, mut from, mut is_gap) = (0, 0, false);
        while from < entries.len() {
            let mut again = redis::pipe();
            for (at, (place, entry)) in entries[from..].iter().enumerate() {
                let mode = if at == 0 && is_gap { Mode::Skip(*place) } else { Mode::Restore(*place) };
                again.add_command(self.command(place.epoch, entry, mode));
            }
            let said: Vec<Value> = master.ask_all(&again).await?;
            let mut came = said.into_iter().map(|said| Verdict::of(said).ok_or_else(unknown_answer));
            is_gap = false;
            let begun = from;
            for verdict in came.by_ref() {
                match verdict? {
                    Verdict::Done { undone, .. } => {
                        restored += 1;
                        if undone > 0 {
                            let space = &entries[from].1.space;
                            tracing::error!(space, undone, "commits are undone that nobody was told of: these servers were not the master");
                        }
                    }
                    Verdict::Gap(stands) => {
                        let (place, entry) = &entries[from];
                        tracing::error!(
                            space = entry.space,
                            stands,
                            next = place.version,
                            "commits between are lost with the host that made them"
                        );
                        is_gap = true;
                        break;
                    }
                    Verdict::There | Verdict::Epoch | Verdict::Replayed(_) | Verdict::Reused | Verdict::Stale(_) | Verdict::Fenced(_) => {}
                }
                from += 1;
            }
            if from == begun && !is_gap {
                return Err(unknown_answer().into());
            }
        }
        Ok(restored)
    }

    async fn spaces(&self) -> Result<Vec<String>, SettleError> {
        Ok(self.home.ask(redis::cmd("SMEMBERS").arg(self.core.keys.spaces())).await?)
    }

    /// Removes what was handed in: all of it is done.
    async fn clear(&self) -> Result<(), SettleError> {
        for space in self.spaces().await? {
            self.servers.of(&space)?.ask::<i64>(redis::cmd("DEL").arg(self.core.keys.lost(&space))).await?;
        }
        Ok(())
    }

    fn command(&self, epoch: u64, entry: &Entry, mode: Mode) -> redis::Cmd {
        entry.command(self.core.commit.get_hash(), &self.core.keys, epoch, self.core.clock.now(), mode)
    }

    /// Hands in what only adds, of an epoch that others ended without this host.
    async fn come_late(&self) -> Result<(), SettleError> {
        let missed = self.missed().await?;
        self.add(self.epoch, &missed).await
    }

    /// Returns what this host did in epochs that others ended without it, and that is not handed in any more.
    async fn missed(&self) -> Result<Vec<(Place, Entry)>, SettleError> {
        let Some(journal) = &self.core.journal else { return Ok(Vec::new()) };
        let joined = journal.epoch();
        if joined == 0 || joined >= self.epoch {
            return Ok(Vec::new());
        }
        let kept = journal.read().await.map_err(SettleError::Journal)?;
        Ok(kept.into_iter().filter(|(place, _)| (joined..self.epoch).contains(&place.epoch)).collect())
    }

    /// Does again, in a later epoch, what only adds and is not there.
    async fn add(&self, epoch: u64, entries: &[(Place, Entry)]) -> Result<(), SettleError> {
        let (mut added, mut dropped) = (0, 0);
        for (_, entry) in entries {
            if !entry.only_adds {
                dropped += 1;
                continue;
            }
            let said: Value = self.servers.of(&entry.space)?.ask(&self.command(epoch, entry, Mode::Judge)).await?;
            let verdict = Verdict::of(said).ok_or_else(unknown_answer)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_epoch_began_before_is_not_done_again() {
        let of = |lost: &[Lost]| in_force(&lost.iter().copied().map(name).collect::<Vec<_>>());
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[(1, 11), (1, 9), (1, 10)]), [(1, 9), (1, 10), (1, 11)]);
        assert_eq!(of(&[(1, 9), (1, 10), (1, 11), (2, 10), (2, 11)]), [(1, 9), (2, 10), (2, 11)]);
        assert_eq!(of(&[(1, 5), (1, 9), (2, 7), (2, 8), (3, 6)]), [(1, 5), (3, 6)]);
        assert_eq!(of(&[(1, 5), (2, 7), (3, 6), (3, 9)]), [(1, 5), (3, 6), (3, 9)]);
        assert_eq!(in_force(&["7".to_owned(), "x-1".to_owned()]), []);
    }
}
