//! Components' bytes: read from the binary, a file or a URL; kept in the data folder under their digest; looked into.
//!
//! Owns `components/<digest>.wasm`. Must not know why a component is wanted.
//!
//! **Invariants:** a kept file is whole or not there; its bytes are hashed again each time they are read; nothing of a URL is
//! trusted before its digest was compared.

mod signature;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::plugin_build::component::{ASKED_BY_IMPORT, anatomy, embedded_cases, embedded_manifest};
use crate::plugin_build::config_schema;
use crate::plugin_build::digest_lock::DigestLock;
use crate::plugin_build::manifest::Manifest;
use crate::ports::registry::{ComponentError, ComponentOrigin, Components, Download, Facts, Fetched, is_digest};
use crate::shipped;

pub use self::signature::{KeyFileError, SigningKey};

/// The largest component.
const COMPONENT_BYTES_MAX: u64 = 32 << 20;
/// Bytes of a signature's file.
const SIGNATURE_BYTES_MAX: u64 = 4 << 10;
/// Bytes of a lock.
const LOCK_BYTES_MAX: u64 = 4 << 20;
/// Kept components; the oldest beyond that go.
const KEPT_MAX: usize = 256;
/// How a kept component's name ends.
const EXTENSION: &str = "wasm";

/// Components of the binary, of files, of URLs, and those that were kept.
pub struct FileComponents {
    folder: PathBuf,
    download: Arc<dyn Download>,
}

impl FileComponents {
    /// Returns components that are kept in a folder, which is made when the first one is.
    #[must_use]
    pub fn new(folder: PathBuf, download: Arc<dyn Download>) -> Self {
        Self { folder, download }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.{EXTENSION}"))
    }
}

/// Returns the file that a component's signature stands in: `X.wasm.sig` beside `X.wasm`.
#[must_use]
pub fn signature_file(component: &Path) -> PathBuf {
    let mut name = component.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Runs what reads files off the async threads.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Returns the bytes of a file that has at most so many.
fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ComponentError> {
    let named = |error: std::io::Error| {
        let why = format!("{}: {error}", path.display());
        if error.kind() == std::io::ErrorKind::NotFound { ComponentError::Missing(why) } else { ComponentError::Unreadable(why) }
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(named)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(named)?;
    if bytes.len() as u64 > bytes_max {
        return Err(ComponentError::Unreadable(format!("{} has more than {bytes_max} bytes", path.display())));
    }
    Ok(bytes)
}

fn read_with_signature(path: &Path) -> Result<Fetched, ComponentError> {
    let component = read_file(path, COMPONENT_BYTES_MAX)?;
    let signature = match read_file(&signature_file(path), SIGNATURE_BYTES_MAX) {
        Ok(text) => Some(String::from_utf8_lossy(&text).trim().to_owned()),
        Err(ComponentError::Missing(_)) => None,
        Err(unreadable @ ComponentError::Unreadable(_)) => return Err(unreadable),
    };
    Ok(Fetched { component: component.into(), signature })
}

/// Writes a component beside its place and renames it there, both synced.
fn keep(folder: &Path, path: &Path, component: &[u8]) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    file.write_all(component)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()?;
    prune(folder)
}

/// Removes the oldest files beyond the bound.
fn prune(folder: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    files.sort();
    let surplus = files.len().saturating_sub(KEPT_MAX);
    for (_, path) in &files[..surplus] {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

#[async_trait]
impl Components for FileComponents {
    async fn read(&self, name: &str, origin: &ComponentOrigin) -> Result<Fetched, ComponentError> {
        match origin {
            ComponentOrigin::Embedded => {
                let shipped = shipped::component(name);
                let component = shipped.ok_or_else(|| ComponentError::Missing(format!("no component `{name}` is shipped")))?;
                Ok(Fetched { component: component.into(), signature: None })
            }
            ComponentOrigin::File(path) => {
                let path = path.clone();
                blocking(move || read_with_signature(&path)).await
            }
            ComponentOrigin::Url(url) => {
                let bytes_max = usize::try_from(COMPONENT_BYTES_MAX).unwrap_or(usize::MAX);
                let component = self.download.download(url, bytes_max).await.map_err(ComponentError::Unreadable)?;
                Ok(Fetched { component: component.into(), signature: None })
            }
        }
    }

    async fn keep(&self, component: Arc<[u8]>) -> Result<(), ComponentError> {
        let digest = blake3::hash(&component).to_hex().to_string();
        if self.kept(&digest).await.is_some() {
            return Ok(());
        }
        let (folder, path) = (self.folder.clone(), self.path(&digest));
        let kept = blocking(move || keep(&folder, &path, &component)).await;
        kept.map_err(|error| ComponentError::Unreadable(format!("{}: {error}", self.folder.display())))
    }

    async fn kept(&self, digest: &str) -> Option<Arc<[u8]>> {
        if !is_digest(digest) {
            return None;
        }
        let (path, digest) = (self.path(digest), digest.to_owned());
        blocking(move || {
            let bytes = read_file(&path, COMPONENT_BYTES_MAX).ok()?;
            if blake3::hash(&bytes).to_hex().as_str() == digest {
                return Some(bytes.into());
            }
            tracing::error!(file = %path.display(), "a kept component is damaged, and does not count");
            None
        })
        .await
    }

    fn facts(&self, component: &[u8]) -> Result<Facts, String> {
        if !component.starts_with(b"\0asm") {
            return Err("it is no WebAssembly component".to_owned());
        }
        let manifest = embedded_manifest(component)?.map(|text| Manifest::parse(&text)).transpose()?;
        let facts = manifest.map_or_else(Facts::default, |manifest| Facts {
            world: Some(manifest.world),
            config_json: Some(manifest.config_json()),
            needs: manifest.limits.into(),
            version: Some(manifest.version.to_string()),
            capabilities: manifest.capabilities,
        });
        let (imports, mut capabilities) = (anatomy(component)?.imports, facts.capabilities);
        for (capability, interface) in ASKED_BY_IMPORT {
            if imports.iter().any(|name| name.starts_with(interface)) && !capabilities.iter().any(|asked| asked == capability) {
                capabilities.push(capability.to_owned());
            }
        }
        Ok(Facts { capabilities, ..facts })
    }

    fn cases(&self, component: &[u8]) -> Result<Option<String>, String> {
        embedded_cases(component)
    }

    fn validate_config(&self, component: &[u8], config_json: &str) -> Result<(), String> {
        config_schema::validate_config(component, config_json)
    }

    fn is_signed(&self, digest: &str, signature: &str, keys: &[String]) -> bool {
        signature::is_signed(digest, signature, keys)
    }

    fn locked(&self, lock_file: &Path) -> Result<Option<BTreeMap<String, String>>, String> {
        let text = match read_file(lock_file, LOCK_BYTES_MAX) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|error| error.to_string())?,
            Err(ComponentError::Missing(_)) => return Ok(None),
            Err(ComponentError::Unreadable(why)) => return Err(why),
        };
        let lock = DigestLock::parse(&text)?;
        Ok(Some(lock.entries.into_iter().map(|entry| (entry.name, entry.digest)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    #[async_trait]
    impl Download for Nowhere {
        async fn download(&self, url: &str, _: usize) -> Result<Vec<u8>, String> {
            Err(format!("{url} is nowhere"))
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_hashed_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let components = FileComponents::new(folder.path().join("components"), Arc::new(Nowhere));
        let bytes: Arc<[u8]> = b"some component".as_slice().into();
        let digest = blake3::hash(&bytes).to_hex().to_string();
        assert!(components.kept(&digest).await.is_none());
        components.keep(Arc::clone(&bytes)).await.expect("kept");
        components.keep(Arc::clone(&bytes)).await.expect("kept again");
        assert_eq!(components.kept(&digest).await.as_deref(), Some(&*bytes));
        std::fs::write(components.path(&digest), b"some other").expect("written");
        assert!(components.kept(&digest).await.is_none(), "other bytes are not it");
        components.keep(Arc::clone(&bytes)).await.expect("mended");
        assert!(components.kept(&digest).await.is_some());
        assert!(components.kept("../../etc/passwd").await.is_none());
    }

    #[tokio::test]
    async fn a_file_comes_with_the_signature_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.wasm");
        let components = FileComponents::new(folder.path().join("components"), Arc::new(Nowhere));
        let origin = ComponentOrigin::File(path.clone());
        assert!(matches!(components.read("x", &origin).await, Err(ComponentError::Missing(_))));
        std::fs::write(&path, b"x").expect("written");
        assert_eq!(components.read("x", &origin).await.expect("read").signature, None);
        std::fs::write(signature_file(&path), b" ed25519:abc\n").expect("written");
        assert_eq!(components.read("x", &origin).await.expect("read").signature.as_deref(), Some("ed25519:abc"));
        let url = ComponentOrigin::Url("https://h/x".to_owned());
        assert!(matches!(components.read("x", &url).await, Err(ComponentError::Unreadable(_))));
        assert!(components.read("routing-rules", &ComponentOrigin::Embedded).await.is_ok());
        assert!(matches!(components.read("x", &ComponentOrigin::Embedded).await, Err(ComponentError::Missing(_))));
    }
}
