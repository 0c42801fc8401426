//! The host's keys: one root key file, everything else derived from it by HKDF; one separate key that signs receipts.
//!
//! **Invariants:** key files are readable by their owner only; they are written whole, once, and never overwritten.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::hkdf;
use ring::signature::{Ed25519KeyPair, KeyPair};
use thiserror::Error;

use crate::ports::clock::System;
use crate::ports::keys::Keys;

const ROOT_FILE: &str = "root.key";
const RECEIPT_FILE: &str = "receipt.key";
const KEY_BYTES: usize = 32;

/// Why the keys cannot be used.
#[derive(Debug, Error)]
pub enum KeysError {
    /// A file cannot be read or written.
    #[error("the key file {path} cannot be read or written")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not a key.
    #[error("{path} is not a key of this host: put the right file back, from a backup")]
    Damaged {
        /// Which.
        path: PathBuf,
    },
}

/// Keys in files of a folder.
pub struct FileKeys {
    root: hkdf::Prk,
    receipt: Ed25519KeyPair,
}

impl FileKeys {
    /// Opens the keys of a folder, making them at the first start.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn open(folder: &Path, system: &dyn System) -> Result<Self, KeysError> {
        let root = read_or_make(&folder.join(ROOT_FILE), system)?;
        let receipt_file = folder.join(RECEIPT_FILE);
        let seed = read_or_make(&receipt_file, system)?;
        let receipt = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeysError::Damaged { path: receipt_file })?;
        Ok(Self { root: hkdf::Salt::new(hkdf::HKDF_SHA256, b"pointsman root 1").extract(&root), receipt })
    }
}

fn read_or_make(path: &Path, system: &dyn System) -> Result<[u8; KEY_BYTES], KeysError> {
    let io = |source| KeysError::Io { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|_| KeysError::Damaged { path: path.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut key = [0; KEY_BYTES];
            system.random(&mut key);
            let half_written = path.with_extension("new");
            let _ = fs::remove_file(&half_written);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half_written).map_err(io)?;
            file.write_all(&key).and_then(|()| file.sync_all()).map_err(io)?;
            fs::rename(&half_written, path).map_err(io)?;
            if let Some(folder) = path.parent() {
                fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
            }
            Ok(key)
        }
        Err(error) => Err(io(error)),
    }
}

impl Keys for FileKeys {
    fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; 32];
        let info = [purpose.as_bytes()];
        self.root
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("HKDF-SHA256 gives up to 255 blocks of 32 bytes");
        key
    }

    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.receipt.sign(bytes).as_ref());
        signature
    }

    fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.receipt.public_key().as_ref());
        key
    }
}
