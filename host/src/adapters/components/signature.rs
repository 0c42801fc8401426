//! Signatures of components: ed25519 (RFC 8032) over a fixed prefix and the component's BLAKE3 digest.
//!
//! Keys and signatures are written `ed25519:BASE64`. A key file holds the secret seed as `ed25519-secret:BASE64`.
//!
//! **Invariant:** what is signed can be mistaken for nothing else that the same key may sign.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use thiserror::Error;

/// What stands before the digest.
const PREFIX: &[u8] = b"pointsman component 1\0";
/// What keys and signatures begin with.
const SCHEME: &str = "ed25519:";
/// What a secret begins with.
const SECRET_SCHEME: &str = "ed25519-secret:";
/// Bytes of a seed.
const SEED_BYTES: usize = 32;

/// Why a key file cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("the key file {path} cannot be read or written")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no key.
    #[error("{path} is no key file: `pointsman plugin keygen FILE` makes one")]
    Damaged {
        /// Which.
        path: PathBuf,
    },
}

/// A key that signs components.
#[derive(Debug)]
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Makes a key of random bytes and writes its file, readable by its owner only. A file that is there is never replaced.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn make(path: &Path, random: [u8; SEED_BYTES]) -> Result<Self, KeyFileError> {
        let io = |source| KeyFileError::Io { path: path.to_owned(), source };
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        writeln!(file, "{SECRET_SCHEME}{}", BASE64.encode(&random)).and_then(|()| file.sync_all()).map_err(io)?;
        Self::of(&random, path)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
        let seed = text.trim().strip_prefix(SECRET_SCHEME).and_then(|text| BASE64.decode(text.as_bytes()).ok());
        Self::of(&seed.unwrap_or_default(), path)
    }

    fn of(seed: &[u8], path: &Path) -> Result<Self, KeyFileError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| KeyFileError::Damaged { path: path.to_owned() })
    }

    /// Returns the public half, as `plugin_trust.keys` takes it.
    #[must_use]
    pub fn public(&self) -> String {
        format!("{SCHEME}{}", BASE64.encode(self.0.public_key().as_ref()))
    }

    /// Returns the signature of a component.
    #[must_use]
    pub fn sign(&self, component: &[u8]) -> String {
        let signed = self.0.sign(&message(blake3::hash(component).as_bytes()));
        format!("{SCHEME}{}", BASE64.encode(signed.as_ref()))
    }
}

fn message(digest: &[u8]) -> Vec<u8> {
    [PREFIX, digest].concat()
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.trim().strip_prefix(SCHEME)?.as_bytes()).ok()
}

/// Returns whether a signature of the component with this digest was made by one of these keys.
pub(super) fn is_signed(digest: &str, signature: &str, keys: &[String]) -> bool {
    let (Some(signature), Ok(digest)) = (decoded(signature), HEXLOWER.decode(digest.as_bytes())) else { return false };
    let message = message(&digest);
    let by = |key: Vec<u8>| UnparsedPublicKey::new(&ED25519, key).verify(&message, &signature).is_ok();
    keys.iter().filter_map(|key| decoded(key)).any(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_file_by_one_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let key = SigningKey::make(&path, [7; 32]).expect("made");
        assert!(SigningKey::make(&path, [8; 32]).is_err(), "a key is never replaced");
        let again = SigningKey::open(&path).expect("read");
        assert_eq!(again.public(), key.public());
        let other = SigningKey::make(&folder.path().join("other"), [9; 32]).expect("made");
        let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
        let signature = again.sign(b"x");
        assert!(is_signed(&digest(b"x"), &signature, &[other.public(), key.public()]));
        assert!(!is_signed(&digest(b"x"), &signature, &[other.public()]));
        assert!(!is_signed(&digest(b"y"), &signature, &[key.public()]));
        for wrong in ["", "ed25519:", "ed25519:%%", &signature[8..]] {
            assert!(!is_signed(&digest(b"x"), wrong, &[key.public()]), "{wrong}");
        }
        std::fs::write(&path, "no key").expect("written");
        assert!(matches!(SigningKey::open(&path), Err(KeyFileError::Damaged { .. })));
    }
}
