//! One commit as the script takes it, and as the journal keeps it.

use std::io::Read;

use pointsman_core::event::{Cursor, Event};
use pointsman_core::limits::IDEMPOTENCY_KEPT_MS;
use pointsman_core::time::TimeMs;
use pointsman_core::value;
use redis::{Cmd, FromRedisValue, Value, from_redis_value};

use super::keys::{self, Keys};
use super::{DUE_MS_MAX, unreadable};
use crate::ports::store::{Commit, Committed, DueChange, Expect, Fence, StoreError, host_log};

/// Fields of one entry, and bytes of one field, that a journal is believed.
const FIELDS_MAX: u32 = 1 << 20;
const FIELD_BYTES_MAX: u32 = 64 << 20;

/// A commit in the form in which the script takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Of which space.
    pub(super) space: String,
    /// Where its call is recorded; empty: it has none.
    pub(super) call: String,
    /// Its key, for whoever used it twice.
    pub(super) call_key: String,
    /// Whether it only adds: it may come again at any time, and is refused where it came before.
    pub(super) only_adds: bool,
    /// The lists, each behind its length.
    pub(super) lists: Vec<Vec<u8>>,
}

/// What is recorded of a call: the request's digest, and the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) digest: Vec<u8>,
    pub(super) answer: Vec<u8>,
}

/// Where a commit stands that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) epoch: u64,
    pub(super) version: u64,
    pub(super) seq: u64,
    pub(super) at: TimeMs,
}

/// What a script is to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Judge it, and do it if nothing speaks against it.
    Judge,
    /// Do it again at its place, next to the one before it.
    Restore(Place),
    /// Do it again at its place, whatever is lost before it.
    Skip(Place),
}

/// What the script said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Done {
        version: u64,
        seq: u64,
        at: TimeMs,
        /// Commits in whose place it came.
        undone: u64,
    },
    Replayed(Vec<u8>),
    Reused,
    Stale(String),
    Fenced(String),
    /// The space is in a later epoch.
    Epoch,
    /// It is there already.
    There,
    /// Others are missing between this version, the last that is there, and it.
    Gap(u64),
}

impl Entry {
    /// Returns a commit's entry.
    pub(super) fn of(commit: &Commit, keys: &Keys) -> Self {
        let space = keys::space(commit.project);
        let call = commit.idempotency.as_ref().and_then(|call| keys.call(&space, &call.principal, &call.operation, &call.key));
        let only_adds = commit.only_adds();
        let mut lists = Lists::default();
        match &commit.idempotency {
            Some(call) => {
                lists.push("1");
                lists.push(call.request_digest.as_slice());
                lists.push(call.response.as_slice());
            }
            None => lists.push("0"),
        }
        lists.fences(&commit.fences);
        lists.push(commit.expects.len().to_string());
        for (key, expect) in &commit.expects {
            lists.push(key.as_str());
            lists.push(match expect {
                Expect::Absent => String::new(),
                Expect::Version(version) => version.to_string(),
            });
        }
        lists.fences(&commit.raise);
        lists.push(commit.puts.len().to_string());
        for (key, bytes) in &commit.puts {
            lists.push(key.as_str());
            lists.push(bytes.as_slice());
        }
        lists.push(commit.deletes.len().to_string());
        for key in &commit.deletes {
            lists.push(key.as_str());
        }
        lists.push(commit.due.len().to_string());
        for change in &commit.due {
            let (name, at) = match change {
                DueChange::Set { name, at } => (name, at.0.clamp(-DUE_MS_MAX, DUE_MS_MAX).to_string()),
                DueChange::Clear { name } => (name, String::new()),
            };
            lists.push(name.as_str());
            lists.push(at);
        }
        lists.push(commit.events.len().to_string());
        let project = commit.project.unwrap_or_else(host_log);
        for event in &commit.events {
            // Its place and time are not known before it is taken; the stream has them.
            lists.push(value::encode(&Event { cursor: Cursor::default(), at: TimeMs(0), project, event: event.clone() }));
        }
        let call_key = commit.idempotency.as_ref().map(|call| call.key.clone()).unwrap_or_default();
        Self { space, call: call.unwrap_or_default(), call_key, only_adds, lists: lists.0 }
    }

    /// Returns where its call is recorded, and as what; none: it has none.
    pub(super) fn recorded(&self) -> Option<(String, Answered)> {
        match self.lists.as_slice() {
            [has_call, digest, answer, ..] if has_call == b"1" && !self.call.is_empty() => {
                Some((self.call.clone(), Answered { digest: digest.clone(), answer: answer.clone() }))
            }
            _ => None,
        }
    }

    /// Returns the bytes of its lists.
    pub(super) fn bytes(&self) -> usize {
        self.lists.iter().map(Vec::len).sum()
    }

    /// Returns the call of the script.
    pub(super) fn command(&self, hash: &str, keys: &Keys, epoch: u64, now: TimeMs, mode: Mode) -> Cmd {
        let space = self.space.as_str();
        let mut command = redis::cmd("EVALSHA");
        command.arg(hash).arg(8);
        command.arg(keys.facts(space)).arg(keys.values(space)).arg(keys.versions(space)).arg(keys.names(space));
        command.arg(keys.fences(space)).arg(keys.events(space)).arg(keys.due(space));
        // A script has to name every key that it touches, and touches none where there is no call.
        if self.call.is_empty() {
            command.arg(keys.facts(space))
        } else {
            command.arg(&self.call)
        };
        command.arg(epoch).arg(now.0).arg(space).arg(keys.channel()).arg(IDEMPOTENCY_KEPT_MS);
        match mode {
            Mode::Judge => command.arg("judge"),
            Mode::Restore(place) => command.arg("restore").arg(place.version).arg(place.seq).arg(place.at.0),
            Mode::Skip(place) => command.arg("skip").arg(place.version).arg(place.seq).arg(place.at.0),
        };
        command.arg(&self.lists);
        command
    }

    /// Returns the answer to whoever committed it; none: the epoch is over.
    pub(super) fn committed(&self, epoch: u64, verdict: Verdict) -> Option<Result<Committed, StoreError>> {
        Some(match verdict {
            Verdict::Done { version, seq, at, .. } => Ok(Committed::Done { version, cursor: Cursor { epoch, seq }, at }),
            Verdict::Replayed(answer) => Ok(Committed::Replayed(answer)),
            Verdict::Reused => Err(StoreError::KeyReused { key: self.call_key.clone() }),
            Verdict::Stale(key) => Err(StoreError::Stale { key }),
            Verdict::Fenced(key) => Err(StoreError::Fenced { key }),
            Verdict::Epoch => return None,
            Verdict::There | Verdict::Gap(_) => Err(unreadable("the answer to a commit")),
        })
    }

    /// Writes it with its place.
    pub(super) fn write(&self, place: Place, out: &mut Vec<u8>) {
        for number in [place.epoch, place.version, place.seq] {
            out.extend(number.to_le_bytes());
        }
        out.extend(place.at.0.to_le_bytes());
        out.push(u8::from(self.only_adds));
        for field in [&self.space, &self.call, &self.call_key] {
            put(out, field.as_bytes());
        }
        out.extend(u32::try_from(self.lists.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.lists.iter().for_each(|field| put(out, field));
    }

    /// Reads what [`Entry::write`] wrote; none where it is not whole.
    pub(super) fn read(mut from: &[u8]) -> Option<(Place, Self)> {
        let from = &mut from;
        let (epoch, version, seq) = (number(from)?, number(from)?, number(from)?);
        let at = TimeMs(i64::from_le_bytes(exact(from)?));
        let [only_adds] = exact(from)?;
        let mut text = || String::from_utf8(field(from)?).ok();
        let (space, call, call_key) = (text()?, text()?, text()?);
        let count = u32::from_le_bytes(exact(from)?);
        if count > FIELDS_MAX {
            return None;
        }
        let lists = (0..count).map(|_| field(from)).collect::<Option<_>>()?;
        from.is_empty().then_some((Place { epoch, version, seq, at }, Self { space, call, call_key, only_adds: only_adds == 1, lists }))
    }
}

/// Bytes before the answer in the record of a call: the request's digest, epoch and number of the commit.
pub(super) const RECORD_HEAD: usize = 64;

/// Returns whether the commit that a record is of was undone, by the space's list of what was: `EPOCH:FIRST`, the epoch that began
/// instead and the first commit that gave way.
pub(super) fn is_undone(record: &[u8], undone: &str) -> bool {
    let number = |at: std::ops::Range<usize>| std::str::from_utf8(record.get(at)?).ok()?.parse::<u64>().ok();
    let (Some(epoch), Some(version)) = (number(32..48), number(48..RECORD_HEAD)) else { return false };
    let mut times = undone.split_whitespace().filter_map(|time| time.split_once(':'));
    times.any(|(began, first)| began.parse().is_ok_and(|began| epoch < began) && first.parse().is_ok_and(|first| version >= first))
}

impl Verdict {
    /// Returns what the script's answer says; none where it says nothing that is known.
    pub(super) fn of(answer: Value) -> Option<Self> {
        let mut parts = Vec::<Value>::from_redis_value(answer).ok()?.into_iter();
        let word: String = read(parts.next()?)?;
        let mut next = || parts.next();
        Some(match word.as_str() {
            "done" => Self::Done { version: read(next()?)?, seq: read(next()?)?, at: TimeMs(read(next()?)?), undone: read(next()?)? },
            "replayed" => Self::Replayed(read(next()?)?),
            "reused" => Self::Reused,
            "stale" => Self::Stale(read(next()?)?),
            "fenced" => Self::Fenced(read(next()?)?),
            "epoch" => Self::Epoch,
            "there" => Self::There,
            "gap" => Self::Gap(read(next()?)?),
            _ => return None,
        })
    }
}

pub(super) fn read<T: FromRedisValue>(value: Value) -> Option<T> {
    from_redis_value(value).ok()
}

#[derive(Default)]
struct Lists(Vec<Vec<u8>>);

impl Lists {
    fn push(&mut self, value: impl Into<Vec<u8>>) {
        self.0.push(value.into());
    }

    fn fences(&mut self, fences: &[Fence]) {
        self.push(fences.len().to_string());
        for fence in fences {
            self.push(fence.key.as_str());
            self.push(keys::token(fence.token));
        }
    }
}

fn put(out: &mut Vec<u8>, field: &[u8]) {
    out.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(field);
}

fn exact<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn number(from: &mut &[u8]) -> Option<u64> {
    exact(from).map(u64::from_le_bytes)
}

fn field(from: &mut &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(exact(from)?);
    if length > FIELD_BYTES_MAX {
        return None;
    }
    let (field, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(field.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_entry_reads_back_and_half_of_one_does_not(
            lists in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6),
            (epoch, version, seq, at) in any::<(u64, u64, u64, i64)>(),
            space in "[a-z]{0,8}", only_adds in any::<bool>(), cut in 0usize..200,
        ) {
            let entry = Entry { space, call: "c".to_owned(), call_key: "k".to_owned(), only_adds, lists };
            let place = Place { epoch, version, seq, at: TimeMs(at) };
            let mut bytes = Vec::new();
            entry.write(place, &mut bytes);
            prop_assert_eq!(Entry::read(&bytes), Some((place, entry)));
            prop_assert_eq!(Entry::read(&bytes[..cut.min(bytes.len() - 1)]), None);
        }

        #[test]
        fn bytes_that_are_no_entry_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::read(&bytes);
        }
    }
}
