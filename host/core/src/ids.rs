//! Identifiers: one newtype a kind, so that a task can never be passed for a message.
//!
//! Long ids are `kind_` and a UUIDv7 (RFC 9562, section 5.7) in lower-case base32 without padding: sortable by the
//! time of their making, unguessable in their last 74 bits. Tasks and merges, which people say aloud, have serials.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::time::TimeMs;

/// Bytes of randomness that an id is made from.
pub const RANDOM_BYTES: usize = 10;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{given}` is not a {kind} id: expected {expected}")]
pub struct IdError {
    /// What was read, cut to 80 characters.
    pub given: String,
    /// What was wanted.
    pub kind: &'static str,
    /// The form it should have had.
    pub expected: &'static str,
}

impl IdError {
    fn new(given: &str, kind: &'static str, expected: &'static str) -> Self {
        Self { given: given.chars().take(80).collect(), kind, expected }
    }
}

/// Base32 digits of an id's 16 bytes.
const DIGITS: usize = 26;

fn base32() -> &'static Encoding {
    static ENCODING: std::sync::OnceLock<Encoding> = std::sync::OnceLock::new();
    ENCODING.get_or_init(|| {
        let mut form = Specification::new();
        // In the order of their bytes, so that written ids sort as the ids do.
        form.symbols.push_str("234567abcdefghijklmnopqrstuvwxyz");
        form.encoding().unwrap_or(BASE32_NOPAD)
    })
}

/// Returns the 16 bytes of a UUIDv7 made at `at` from `random`.
#[must_use]
pub fn uuid_v7(at: TimeMs, random: [u8; RANDOM_BYTES]) -> [u8; 16] {
    let mut bytes = [0u8; 16];
    bytes[..6].copy_from_slice(&at.0.max(0).to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&random);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    bytes
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// What the written form starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Returns the id made at `at` from `random`.
            #[must_use]
            pub fn new(at: TimeMs, random: [u8; RANDOM_BYTES]) -> Self {
                Self(uuid_v7(at, random))
            }

            /// Returns the time an id made by `new` has in it.
            #[must_use]
            pub fn made_at(&self) -> TimeMs {
                TimeMs(self.0[..6].iter().fold(0, |ms, byte| ms << 8 | i64::from(*byte)))
            }

            /// Returns the least id that can be made at `at`: those made earlier are below it.
            #[must_use]
            pub fn first_at(at: TimeMs) -> Self {
                Self::new(at, [0; RANDOM_BYTES])
            }

            /// Returns the id's 16 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Returns the id of these 16 bytes.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                let mut digits = [0; DIGITS];
                base32().encode_mut(&self.0, &mut digits);
                f.write_str(std::str::from_utf8(&digits).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError::new(text, stringify!($name), concat!("`", $prefix, "` and 26 base32 characters"));
                let digits = text.strip_prefix($prefix).ok_or_else(wrong)?;
                let bytes = base32().decode(digits.as_bytes()).map_err(|_| wrong())?;
                Ok(Self(bytes.try_into().map_err(|_| wrong())?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_id!(
    /// A project: one repository and everything known about it.
    ProjectId, "prj_"
);
uuid_id!(
    /// A principal: whoever a credential names. Agents belong to principals.
    PrincipalId, "own_"
);
uuid_id!(
    /// A token, as it is listed and revoked; never the secret.
    TokenId, "tok_"
);
uuid_id!(
    /// An agent.
    AgentId, "agt_"
);
uuid_id!(
    /// A message.
    MessageId, "msg_"
);
uuid_id!(
    /// A chain of messages that answer each other.
    ThreadId, "thr_"
);
uuid_id!(
    /// A write of a context document that met a conflict.
    ConflictId, "cfl_"
);
uuid_id!(
    /// Git work that a stored decision asked for and that recovery finishes.
    IntentId, "int_"
);

macro_rules! serial_id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "-{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError::new(text, stringify!($name), concat!("`", $letter, "-` and a number"));
                let digits = text.strip_prefix(concat!($letter, "-")).ok_or_else(wrong)?;
                if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(wrong());
                }
                digits.parse().map(Self).map_err(|_| wrong())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serial_id!(
    /// A task, by its number in the project.
    TaskId, "T"
);
serial_id!(
    /// A merge: one try to land one branch, by its number in the project.
    MergeId, "M"
);

/// A git object's name: SHA-1, twenty bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(pub [u8; 20]);

impl Oid {
    /// Returns the first ten hex digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..10].to_owned()
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Oid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError { given: text.chars().take(80).collect(), kind: "object", expected: "40 hex digits" };
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| wrong())?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

impl Serialize for Oid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Oid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A fencing token: rises with every grant, so that whoever holds an older one is refused everywhere. The epoch rises
/// when the store itself may have lost its newest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FencingToken {
    /// The store's epoch at the grant.
    pub epoch: u64,
    /// Rises by at least one with each grant in the epoch.
    pub n: u64,
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

impl FromStr for FencingToken {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::new(text, "fencing token", "`EPOCH.N`");
        let (epoch, n) = text.split_once('.').ok_or_else(wrong)?;
        Ok(Self { epoch: epoch.parse().map_err(|_| wrong())?, n: n.parse().map_err(|_| wrong())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn written_ids_read_back(at in 0i64..(1 << 47), random: [u8; RANDOM_BYTES], serial in 1u64..) {
            let id = MessageId::new(TimeMs(at), random);
            prop_assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
            prop_assert_eq!(id.made_at(), TimeMs(at));
            prop_assert!(MessageId::first_at(TimeMs(at)) <= id && id < MessageId::first_at(TimeMs(at + 1)));
            prop_assert!(id.to_string().parse::<AgentId>().is_err());
            let task = TaskId(serial);
            prop_assert_eq!(task.to_string().parse::<TaskId>(), Ok(task));
        }

        #[test]
        fn ids_sort_by_time(a in 0i64..(1 << 47), b in 0i64..(1 << 47), ra: [u8; RANDOM_BYTES], rb: [u8; RANDOM_BYTES]) {
            prop_assume!(a < b);
            prop_assert!(MessageId::new(TimeMs(a), ra).to_string() < MessageId::new(TimeMs(b), rb).to_string());
        }

        #[test]
        fn any_text_is_an_id_or_a_clear_error(text in "\\PC{0,120}") {
            let _ = text.parse::<MessageId>();
            let _ = text.parse::<TaskId>();
            let _ = text.parse::<FencingToken>();
        }
    }

    #[test]
    fn serials_are_canonical() {
        for wrong in ["T-", "T-0", "T-01", "t-1", "T1", "T-1 ", "T--1", "T-99999999999999999999"] {
            assert!(wrong.parse::<TaskId>().is_err(), "{wrong}");
        }
    }
}
