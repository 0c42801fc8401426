//! TLS by rustls with ring: the certificate and its key, read at the start and again when they change.
//!
//! Owns the files' checks. Must not know what is served over it. HTTP/1.1 only, by ALPN.
//!
//! **Invariant:** what is served was whole when it was read: a renewal that goes wrong leaves the last good pair in place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Why a certificate and key cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there or not ours to read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{} is not PEM: it should have lines such as `-----BEGIN {expected}-----`", path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
        /// What belongs there.
        expected: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// No certificate.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// No key.
    #[error("{} holds no private key", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// A key of a kind that is not known.
    #[error("the key in {} cannot be used: it should be RSA, ECDSA (P-256, P-384) or Ed25519, without a passphrase", path.display())]
    UnusableKey {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// They do not belong together.
    #[error("the key in {} is not that of the first certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The library has no fitting protocol.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// What a file was when it was read.
type Stamp = Option<(SystemTime, u64, u64)>;

/// A certificate and its key.
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: ArcSwap<ServerConfig>,
    seen: Mutex<(Stamp, Stamp)>,
}

impl Tls {
    /// Reads a certificate chain, the host's own first, and its key; both PEM.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let seen = (stamp(cert), stamp(key));
        let current = ArcSwap::new(load(cert, key)?);
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), current, seen: Mutex::new(seen) })
    }

    /// Returns whether the files changed since they were read last.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        *self.seen.lock() != (stamp(&self.cert), stamp(&self.key))
    }

    /// Reads the files again. New connections get what is read; open ones go on.
    ///
    /// # Errors
    /// [`TlsError`]; then nothing changes until the files do.
    pub fn reload(&self) -> Result<(), TlsError> {
        // Taken before reading: a change in between is seen the next time.
        *self.seen.lock() = (stamp(&self.cert), stamp(&self.key));
        self.current.store(load(&self.cert, &self.key)?);
        Ok(())
    }

    /// Returns the chain of certificates as it is in its file now; none where that cannot be read.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let chain = read(&self.cert).ok().and_then(|pem| CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().ok());
        chain.unwrap_or_default()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn load(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(cert)?).collect();
    let chain = chain.map_err(|source| TlsError::NotPem { path: cert.to_owned(), expected: "CERTIFICATE", source })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: cert.to_owned() });
    }
    let secret = match PrivateKeyDer::from_pem_slice(&read(key)?) {
        Ok(secret) => secret,
        Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey { path: key.to_owned() }),
        Err(source) => return Err(TlsError::NotPem { path: key.to_owned(), expected: "PRIVATE KEY", source }),
    };
    let provider = Arc::new(ring::default_provider());
    let signing = provider.key_provider.load_private_key(secret);
    let signing = signing.map_err(|source| TlsError::UnusableKey { path: key.to_owned(), source })?;
    let certified = CertifiedKey::new(chain, signing);
    certified.keys_match().map_err(|source| TlsError::Mismatch { cert: cert.to_owned(), key: key.to_owned(), source })?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(TlsError::Setup)?;
    let resolver = rustls::sign::SingleCertAndKey::from(certified);
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_renewal_is_seen_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let write = |(chain, secret): (String, String)| {
            fs::write(&cert, chain).expect("written");
            fs::write(&key, secret).expect("written");
        };
        write(signed());
        let tls = Tls::open(&cert, &key).expect("a good pair");
        assert!(!tls.has_changed());
        let first = tls.config();
        fs::write(&key, "").expect("written");
        assert!(tls.has_changed());
        assert!(matches!(tls.reload(), Err(TlsError::NoKey { .. })));
        assert!(Arc::ptr_eq(&first, &tls.config()) && !tls.has_changed());
        write(signed());
        assert!(tls.has_changed());
        tls.reload().expect("a good pair again");
        assert!(!Arc::ptr_eq(&first, &tls.config()));
    }

    #[test]
    fn each_mistake_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let ((chain, secret), (_, others)) = (signed(), signed());
        let (cert, key, other) = (file("cert.pem", &chain), file("key.pem", &secret), file("other.pem", &others));
        let garbled = file("garbled.pem", "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n");
        let refused = |cert: &Path, key: &Path| Tls::open(cert, key).err().expect("refused").to_string();
        assert!(Tls::open(&cert, &key).is_ok());
        assert!(refused(&cert, &other).contains("not that of the first certificate"));
        assert!(refused(&key, &key).contains("holds no certificate"));
        assert!(refused(&cert, &cert).contains("holds no private key"));
        assert!(refused(&garbled, &key).contains("not PEM"));
        assert!(refused(&folder.path().join("none.pem"), &key).contains("cannot be read"));
    }
}
