//! The forms of keys and records on disk. Big-endian throughout, so that bytes sort as numbers do.
//!
//! **Invariant:** a key of one space (the host's own, or one project's) never lies within another space's range.

use pointsman_core::event::Cursor;
use pointsman_core::ids::{FencingToken, ProjectId};
use pointsman_core::limits::IDEMPOTENCY_KEPT_MS;
use pointsman_core::time::TimeMs;

use super::disk::DiskError;
use crate::ports::store::{Idempotency, KEY_BYTES_MAX, Version};

/// What stands under a key, told by its first byte. One table holds all: making a table costs twenty syncs, and the fullest
/// one would hold back the journal of the others.
#[derive(Clone, Copy)]
enum Tag {
    StoreFact = 0,
    Value = 1,
    Event = 2,
    LogHead = 3,
    Fence = 4,
    Call = 5,
    CallByAge = 6,
    DueByName = 7,
    DueByTime = 8,
}

const HOST_SPACE: u8 = 0;
const PROJECT_SPACE: u8 = 1;

/// The version of everything below.
pub(super) const FORMAT: u32 = 1;
/// Where the format stands: the first key read of a store.
pub(super) const FORMAT_KEY: [u8; 2] = [Tag::StoreFact as u8, b'f'];
/// Where the epoch stands.
pub(super) const EPOCH_KEY: [u8; 2] = [Tag::StoreFact as u8, b'e'];
/// Where the number and the time of the last commit stand.
pub(super) const LAST_KEY: [u8; 2] = [Tag::StoreFact as u8, b'l'];

fn with_space(tag: Tag, project: Option<ProjectId>, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(18 + rest.len());
    key.push(tag as u8);
    match project {
        None => key.push(HOST_SPACE),
        Some(project) => {
            key.push(PROJECT_SPACE);
            key.extend_from_slice(project.as_bytes());
        }
    }
    key.extend_from_slice(rest);
    key
}

fn with_time(tag: Tag, at: TimeMs) -> Vec<u8> {
    [&[tag as u8][..], &time_bytes(at)].concat()
}

/// Returns where a value stands.
pub(super) fn value_key(project: Option<ProjectId>, key: &[u8]) -> Vec<u8> {
    with_space(Tag::Value, project, key)
}

/// Returns the text in a value's key.
pub(super) fn value_text(project: Option<ProjectId>, key: &[u8]) -> Result<String, DiskError> {
    let before_bytes = if project.is_some() { 18 } else { 2 };
    let text = key.get(before_bytes..).and_then(|text| std::str::from_utf8(text).ok());
    text.map(str::to_owned).ok_or(DiskError::Unreadable { what: "key" })
}

/// Returns where a fencing token stands: apart from the values, so that no put can give a right back.
pub(super) fn fence_key(project: Option<ProjectId>, key: &str) -> Vec<u8> {
    with_space(Tag::Fence, project, key.as_bytes())
}

/// Returns where the end of a log is counted.
pub(super) fn head_key(project: Option<ProjectId>) -> Vec<u8> {
    with_space(Tag::LogHead, project, b"")
}

/// Returns where an event stands.
pub(super) fn event_key(project: Option<ProjectId>, seq: u64) -> Vec<u8> {
    with_space(Tag::Event, project, &seq.to_be_bytes())
}

/// Returns where a log ends for good.
pub(super) fn after_events(project: Option<ProjectId>) -> Vec<u8> {
    after_prefix(&with_space(Tag::Event, project, b""))
}

/// Returns where the record of a call stands, or none when no call of such names can have been recorded.
pub(super) fn call_key(project: Option<ProjectId>, principal: &str, operation: &str, key: &str) -> Option<Vec<u8>> {
    let mut place = with_space(Tag::Call, project, b"");
    for part in [principal, operation, key] {
        let length = u16::try_from(part.len()).ok().filter(|length| usize::from(*length) <= KEY_BYTES_MAX)?;
        place.extend_from_slice(&length.to_be_bytes());
        place.extend_from_slice(part.as_bytes());
    }
    Some(place)
}

/// Returns where a call is listed by its age. The commit's number keeps calls of the same millisecond apart.
pub(super) fn call_age_key(at: TimeMs, version: Version) -> Vec<u8> {
    let mut key = with_time(Tag::CallByAge, at);
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// Returns where the list of calls by age starts and ends.
pub(super) fn call_ages() -> (Vec<u8>, Vec<u8>) {
    (vec![Tag::CallByAge as u8], vec![Tag::CallByAge as u8 + 1])
}

/// Returns when the call listed at a place was recorded.
pub(super) fn call_age(key: &[u8]) -> Result<TimeMs, DiskError> {
    key.get(1..9).and_then(time_of).ok_or(DiskError::Unreadable { what: "age of a call" })
}

/// Returns where the time of a due entry stands.
pub(super) fn due_name_key(project: ProjectId, name: &str) -> Vec<u8> {
    with_space(Tag::DueByName, Some(project), name.as_bytes())
}

/// Returns where a due entry stands in the order of time.
pub(super) fn due_time_key(at: TimeMs, project: ProjectId, name: &str) -> Vec<u8> {
    let mut key = due_from(at);
    key.extend_from_slice(project.as_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// Returns where the entries due at `at` or later start.
pub(super) fn due_from(at: TimeMs) -> Vec<u8> {
    with_time(Tag::DueByTime, at)
}

/// Returns where the entries due at `at` or earlier end.
pub(super) fn due_until(at: TimeMs) -> Vec<u8> {
    at.0.checked_add(1).map_or_else(|| vec![Tag::DueByTime as u8 + 1], |next| due_from(TimeMs(next)))
}

/// Returns what stands at a place in the order of time.
pub(super) fn due_of(key: &[u8]) -> Result<(TimeMs, ProjectId, String), DiskError> {
    let read = || {
        let at = time_of(key.get(1..9)?)?;
        let project = ProjectId::from_bytes(key.get(9..25)?.try_into().ok()?);
        Some((at, project, String::from_utf8(key.get(25..)?.to_vec()).ok()?))
    };
    read().ok_or(DiskError::Unreadable { what: "due entry" })
}

/// Returns the first key after all that start with `prefix`. Every key here starts with a tag below 255.
pub(super) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// Returns the bytes of a time, which sort as times do: the sign bit is turned.
pub(super) fn time_bytes(at: TimeMs) -> [u8; 8] {
    (at.0 ^ i64::MIN).to_be_bytes()
}

/// Returns the time of its bytes.
pub(super) fn time_of(bytes: &[u8]) -> Option<TimeMs> {
    Some(TimeMs(i64::from_be_bytes(bytes.try_into().ok()?) ^ i64::MIN))
}

/// Returns the number of its bytes.
pub(super) fn number_of(bytes: &[u8], what: &'static str) -> Result<u64, DiskError> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| DiskError::Unreadable { what })
}

/// Returns the stored form of a value.
pub(super) fn value_record(version: Version, bytes: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes(), bytes].concat()
}

/// Returns the version and the bytes of a stored value.
pub(super) fn value_of(record: &[u8]) -> Result<(Version, &[u8]), DiskError> {
    let (version, bytes) = record.split_at_checked(8).ok_or(DiskError::Unreadable { what: "value" })?;
    Ok((number_of(version, "value")?, bytes))
}

/// Returns the stored form of a fencing token.
pub(super) fn token_record(token: FencingToken) -> Vec<u8> {
    [token.epoch.to_be_bytes(), token.n.to_be_bytes()].concat()
}

/// Returns the token of its stored form.
pub(super) fn token_of(record: &[u8]) -> Result<FencingToken, DiskError> {
    let (epoch, n) = record.split_at_checked(8).ok_or(DiskError::Unreadable { what: "fencing token" })?;
    Ok(FencingToken { epoch: number_of(epoch, "fencing token")?, n: number_of(n, "fencing token")? })
}

/// Returns the stored form of a log's end.
pub(super) fn head_record(head: Cursor) -> Vec<u8> {
    [head.epoch.to_be_bytes(), head.seq.to_be_bytes()].concat()
}

/// Returns the log's end of its stored form.
pub(super) fn head_of(record: &[u8]) -> Result<Cursor, DiskError> {
    let token = token_of(record).map_err(|_| DiskError::Unreadable { what: "end of a log" })?;
    Ok(Cursor { epoch: token.epoch, seq: token.n })
}

/// The number and the time of the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    /// Its number: the version of what it wrote.
    pub(super) version: Version,
    /// Its time.
    pub(super) at: TimeMs,
}

impl Last {
    /// Returns the stored form.
    pub(super) fn record(self) -> Vec<u8> {
        [self.version.to_be_bytes(), time_bytes(self.at)].concat()
    }

    /// Returns the value of its stored form.
    pub(super) fn of(record: &[u8]) -> Result<Self, DiskError> {
        let wrong = DiskError::Unreadable { what: "number of the last commit" };
        let (version, at) = record.split_at_checked(8).ok_or(DiskError::Unreadable { what: "number of the last commit" })?;
        Ok(Self { version: number_of(version, "number of the last commit")?, at: time_of(at).ok_or(wrong)? })
    }
}

/// What is kept of a call, borrowed from its stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call<'a> {
    /// When it was committed.
    pub(super) at: TimeMs,
    /// Of its request.
    pub(super) digest: &'a [u8],
    /// Its answer.
    pub(super) response: &'a [u8],
}

impl<'a> Call<'a> {
    /// Returns the stored form of a call.
    pub(super) fn record(at: TimeMs, call: &Idempotency) -> Vec<u8> {
        [&time_bytes(at)[..], &call.request_digest, &call.response].concat()
    }

    /// Returns the call of its stored form.
    pub(super) fn of(record: &'a [u8]) -> Result<Self, DiskError> {
        let read = || {
            let (at, rest) = record.split_at_checked(8)?;
            let (digest, response) = rest.split_at_checked(32)?;
            Some(Self { at: time_of(at)?, digest, response })
        };
        read().ok_or(DiskError::Unreadable { what: "idempotency record" })
    }

    /// Returns until when it is kept.
    pub(super) fn kept_until(at: TimeMs) -> TimeMs {
        at + IDEMPOTENCY_KEPT_MS
    }

    /// Says whether it still counts.
    pub(super) fn lives(&self, now: TimeMs) -> bool {
        now < Self::kept_until(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn times_sort_and_read_back(a: i64, b: i64) {
            let (a, b) = (TimeMs(a), TimeMs(b));
            prop_assert_eq!(a.cmp(&b), time_bytes(a).cmp(&time_bytes(b)));
            prop_assert_eq!(time_of(&time_bytes(a)), Some(a));
        }

        #[test]
        fn due_entries_read_back(at: i64, project: [u8; 16], name in "\\PC{1,40}") {
            let project = ProjectId::from_bytes(project);
            let key = due_time_key(TimeMs(at), project, &name);
            prop_assert!(key >= due_from(TimeMs(at)) && key < due_until(TimeMs(at)));
            prop_assert_eq!(due_of(&key).ok(), Some((TimeMs(at), project, name)));
        }

        #[test]
        fn spaces_never_overlap(a: [u8; 16], b: [u8; 16], key in "\\PC{0,40}") {
            prop_assume!(a != b);
            let (a, b) = (Some(ProjectId::from_bytes(a)), Some(ProjectId::from_bytes(b)));
            for (one, other) in [(a, b), (None, b), (a, None)] {
                let range = value_key(other, b"")..after_prefix(&value_key(other, b""));
                prop_assert!(!range.contains(&value_key(one, key.as_bytes())));
                let range = event_key(other, 0)..after_events(other);
                prop_assert!(!range.contains(&event_key(one, 7)));
            }
        }

        #[test]
        fn names_of_calls_do_not_run_together(a in "[ab]{0,4}", b in "[ab]{0,4}", c in "[ab]{0,4}", d in "[ab]{0,4}") {
            prop_assume!((&a, &b) != (&c, &d));
            prop_assert_ne!(call_key(None, &a, &b, "k"), call_key(None, &c, &d, "k"));
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_after_all_of_it() {
        assert_eq!(after_prefix(&[1, 2]), [1, 3]);
        assert_eq!(after_prefix(&[1, 255, 255]), [2]);
    }

    #[test]
    fn cut_records_are_refused() {
        for bytes in [&b""[..], b"1234567", b"123456789"] {
            assert!(Last::of(bytes).is_err() && token_of(bytes).is_err() && Call::of(bytes).is_err());
        }
        assert!(value_of(b"1234567").is_err());
    }
}
