//! The names of keys in Redis, and how values stand in them; `host/docs/redis.md` describes both for operators.
//!
//! **Invariant:** all keys of one space (the host's own, or one project's) carry the same hash tag, so that a cluster keeps them
//! together.

use pointsman_core::ids::{FencingToken, ProjectId};

use crate::ports::store::KEY_BYTES_MAX;

/// What the host's own space is called.
pub(super) const HOST: &str = "host";
/// What is published when an earlier due entry may have come.
pub(super) const DUE: &str = "due";

/// Returns the name of a space: that of the host, or the project's id in hex.
pub(super) fn space(project: Option<ProjectId>) -> String {
    project.map_or_else(|| HOST.to_owned(), |project| data_encoding::HEXLOWER.encode(project.as_bytes()))
}

/// Returns the project that a space is of; none where the name is no space's.
pub(super) fn project(space: &str) -> Option<Option<ProjectId>> {
    if space == HOST {
        return Some(None);
    }
    let bytes = data_encoding::HEXLOWER.decode(space.as_bytes()).ok()?;
    Some(Some(ProjectId::from_bytes(bytes.try_into().ok()?)))
}

/// The keys of one store.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Hash: `format`, `epoch`, `lineage`.
    pub(super) fn store(&self) -> String {
        self.of(HOST, "store")
    }

    /// Set of the spaces that anything was written to.
    pub(super) fn spaces(&self) -> String {
        self.of(HOST, "spaces")
    }

    /// Sorted set: hosts by their last sign of life, in milliseconds since 1970.
    pub(super) fn members(&self) -> String {
        self.of(HOST, "members")
    }

    /// Hash: by host, the lineage to which it has handed in what was lost.
    pub(super) fn reported(&self) -> String {
        self.of(HOST, "reported")
    }

    /// Channel of the hints.
    pub(super) fn channel(&self) -> String {
        format!("{}:woken", self.prefix)
    }

    /// Hash: `version`, `seq`, `at` of the last commit, its `epoch`, and `epoch:N`, the end of the log when epoch N began.
    pub(super) fn facts(&self, space: &str) -> String {
        self.of(space, "facts")
    }

    /// Hash: bytes by name.
    pub(super) fn values(&self, space: &str) -> String {
        self.of(space, "values")
    }

    /// Hash: the number of the commit that wrote a value, by its name.
    pub(super) fn versions(&self, space: &str) -> String {
        self.of(space, "versions")
    }

    /// Sorted set of names, all of score 0: the order of bytes.
    pub(super) fn names(&self, space: &str) -> String {
        self.of(space, "names")
    }

    /// Hash: fencing tokens by name.
    pub(super) fn fences(&self, space: &str) -> String {
        self.of(space, "fences")
    }

    /// Stream: `SEQ-0`, with `e` the event, `t` its time, `p` its epoch.
    pub(super) fn events(&self, space: &str) -> String {
        self.of(space, "events")
    }

    /// Sorted set: names of due entries by time, in milliseconds since 1970.
    pub(super) fn due(&self, space: &str) -> String {
        self.of(space, "due")
    }

    /// Hash: what hosts hand in again after a loss, by the number of the commit.
    pub(super) fn lost(&self, space: &str) -> String {
        self.of(space, "lost")
    }

    /// Text that expires: digest of a request, epoch and number of its commit (16 digits each), then its answer. None: no call of such names can have been recorded.
    pub(super) fn call(&self, space: &str, principal: &str, operation: &str, key: &str) -> Option<String> {
        let mut hasher = blake3::Hasher::new();
        for part in [principal, operation, key] {
            let length = u32::try_from(part.len()).ok().filter(|_| part.len() <= KEY_BYTES_MAX)?;
            hasher.update(&length.to_be_bytes()).update(part.as_bytes());
        }
        Some(self.of(space, &format!("done:{}", hasher.finalize().to_hex())))
    }

    fn of(&self, space: &str, what: &str) -> String {
        format!("{}:{{{space}}}:{what}", self.prefix)
    }
}

/// Slots of a cluster.
pub(super) const SLOTS: u16 = 16_384;

/// Returns the slot of a space's keys: CRC16 (XMODEM) of the hash tag, as the cluster specification says.
pub(super) fn slot(space: &str) -> u16 {
    let crc = space.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

/// Returns a fencing token as text that sorts as tokens do.
pub(super) fn token(token: FencingToken) -> String {
    format!("{:020}{:020}", token.epoch, token.n)
}

/// Returns the first and the end of the names that begin so, from one on, as `ZRANGEBYLEX` takes them; none: there is no such name.
pub(super) fn names_between(prefix: &str, from: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    // No name is longer than the bound, so one byte more decides every comparison.
    let bounded = |text: &str| text.as_bytes()[..text.len().min(KEY_BYTES_MAX + 1)].to_vec();
    let (first, mut end) = (bounded(prefix.max(from)), bounded(prefix));
    // The bytes of a text are below 255.
    if let Some(last) = end.last_mut() {
        *last += 1;
        if first >= end {
            return None;
        }
    }
    let end = if end.is_empty() { b"+".to_vec() } else { [&b"("[..], &end].concat() };
    Some(([&b"["[..], &first].concat(), end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_sort_as_texts(a: (u64, u64), b: (u64, u64)) {
            let of = |(epoch, n)| FencingToken { epoch, n };
            prop_assert_eq!(a.cmp(&b), token(of(a)).cmp(&token(of(b))));
        }

        #[test]
        fn spaces_are_read_back(id: [u8; 16]) {
            let id = Some(ProjectId::from_bytes(id));
            prop_assert_eq!(project(&space(id)), Some(id));
        }

        #[test]
        fn names_of_calls_do_not_run_together(a in "[ab]{0,4}", b in "[ab]{0,4}", c in "[ab]{0,4}", d in "[ab]{0,4}") {
            prop_assume!((&a, &b) != (&c, &d));
            let keys = Keys::new("p");
            prop_assert_ne!(keys.call("host", &a, &b, "k"), keys.call("host", &c, &d, "k"));
        }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // `CLUSTER KEYSLOT` of these texts.
        assert_eq!((slot("123456789"), slot("foo"), slot("bar"), slot("")), (12_739, 12_182, 5_061, 0));
    }

    #[test]
    fn a_range_ends_behind_its_prefix() {
        let of = |prefix, from| names_between(prefix, from);
        assert_eq!(of("", ""), Some((b"[".to_vec(), b"+".to_vec())));
        assert_eq!(of("a/", ""), Some((b"[a/".to_vec(), b"(a0".to_vec())));
        assert_eq!(of("a/", "a/x"), Some((b"[a/x".to_vec(), b"(a0".to_vec())));
        assert_eq!(of("a/", "b"), None);
        assert_eq!(project("nobody"), None);
    }
}
