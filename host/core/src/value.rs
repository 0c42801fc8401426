//! The stored form of values: one version byte, then named `MessagePack`.
//!
//! **Invariant:** a value written by a newer version is refused, never guessed at.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// A type with a stored form.
pub trait Stored: Serialize + DeserializeOwned {
    /// The version written now. Rises when an old reader would misread the form.
    const VERSION: u8 = 1;
    /// The name used in errors.
    const NAME: &'static str;

    /// Writes the form that follows the version byte.
    ///
    /// # Panics
    /// Never for the types of this crate: `MessagePack` refuses only sequences of unknown length.
    fn write(&self, bytes: &mut Vec<u8>) {
        rmp_serde::encode::write_named(bytes, self).expect("stored types have sized sequences only");
    }

    /// Returns the value of a form that [`Stored::write`] wrote.
    ///
    /// # Errors
    /// What the reader met; none where it got nowhere.
    fn read(body: &[u8]) -> Result<Self, Option<rmp_serde::decode::Error>> {
        rmp_serde::from_slice(body).map_err(Some)
    }

    /// Returns the value of an older form, or none when that version never existed.
    #[must_use]
    fn upgrade(_version: u8, _body: &[u8]) -> Option<Self> {
        None
    }
}

/// Why stored bytes are not a value.
#[derive(Debug, Error)]
pub enum ValueError {
    /// Written by a newer host.
    #[error("a stored {name} has version {found}, this host knows up to {known}: upgrade the host")]
    Newer {
        /// What was read.
        name: &'static str,
        /// Its version.
        found: u8,
        /// The newest version known here.
        known: u8,
    },
    /// Empty, cut or changed bytes.
    #[error("a stored {name} cannot be read")]
    Damaged {
        /// What was read.
        name: &'static str,
        /// What the reader met, if it got so far.
        #[source]
        source: Option<rmp_serde::decode::Error>,
    },
}

/// Returns the stored form of a value.
#[must_use]
pub fn encode<T: Stored>(value: &T) -> Vec<u8> {
    let mut bytes = vec![T::VERSION];
    value.write(&mut bytes);
    bytes
}

/// Returns the value of a stored form.
///
/// # Errors
/// [`ValueError`] when it was written by a newer host or is damaged.
pub fn decode<T: Stored>(bytes: &[u8]) -> Result<T, ValueError> {
    let (&version, body) = bytes.split_first().ok_or(ValueError::Damaged { name: T::NAME, source: None })?;
    if version == T::VERSION {
        return T::read(body).map_err(|source| ValueError::Damaged { name: T::NAME, source });
    }
    if version > T::VERSION {
        return Err(ValueError::Newer { name: T::NAME, found: version, known: T::VERSION });
    }
    T::upgrade(version, body).ok_or(ValueError::Damaged { name: T::NAME, source: None })
}
