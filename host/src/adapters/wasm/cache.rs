//! Compiled code on disk.
//!
//! Deserialising compiled code trusts it wholly, so a file counts only when its MAC, made with a key that never leaves
//! the host, covers its content *and* its name. **Invariant:** any doubt (missing, cut short, altered, of another
//! engine or version) means that the component is compiled again; never an error.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ring::hmac;
use wasmtime::Engine;
use wasmtime::component::Component;

/// First bytes of a file: what it is, and the version of this form.
const MAGIC: &[u8; 8] = b"pmcode\x00\x01";
/// Bytes of the MAC that follows.
const TAG_BYTES: usize = 32;
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// The oldest files beyond so many are removed.
const FILES_MAX: usize = 128;
/// How a file's name ends.
const EXTENSION: &str = "code";

/// Where components came from, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CodeCounts {
    /// Compiled.
    pub compiled: u64,
    /// Taken from the cache.
    pub cached: u64,
    /// Files of the cache that were not trusted.
    pub rejected: u64,
}

#[derive(Debug, Default)]
struct Counters {
    compiled: AtomicU64,
    cached: AtomicU64,
    rejected: AtomicU64,
}

/// The cache.
#[derive(Debug)]
pub(super) struct CodeCache {
    folder: Option<PathBuf>,
    key: hmac::Key,
    counters: Counters,
}

impl CodeCache {
    /// Opens a cache in a folder that nobody else may enter; none where there is no folder or it cannot be had.
    pub(super) fn open(folder: Option<PathBuf>, key: &[u8; 32]) -> Self {
        let folder = folder.filter(|folder| match private(folder) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "components are compiled at each start: no code cache");
                false
            }
        });
        Self { folder, key: hmac::Key::new(hmac::HMAC_SHA256, key), counters: Counters::default() }
    }

    /// Returns the component of a digest, from the cache or compiled. Takes as long as compiling does: not for async threads.
    ///
    /// # Errors
    /// Those of `compile`.
    pub(super) fn component(
        &self,
        engine: &Engine,
        digest: &str,
        compile: impl FnOnce() -> Result<Component, String>,
    ) -> Result<Component, String> {
        let name = format!("{digest}-{}.{EXTENSION}", compatibility(engine));
        if let Some(component) = self.read(engine, &name) {
            self.counters.cached.fetch_add(1, Ordering::Relaxed);
            return Ok(component);
        }
        let component = compile()?;
        self.counters.compiled.fetch_add(1, Ordering::Relaxed);
        if let Some(folder) = &self.folder {
            let code = component.serialize().map_err(|error| format!("its code cannot be kept: {error:#}"))?;
            if let Err(error) = self.write(folder, &name, &code) {
                tracing::warn!(file = name, %error, "compiled code was not kept");
            }
        }
        Ok(component)
    }

    /// Returns where components came from.
    pub(super) fn counts(&self) -> CodeCounts {
        CodeCounts {
            compiled: self.counters.compiled.load(Ordering::Relaxed),
            cached: self.counters.cached.load(Ordering::Relaxed),
            rejected: self.counters.rejected.load(Ordering::Relaxed),
        }
    }

    fn read(&self, engine: &Engine, name: &str) -> Option<Component> {
        let path = self.folder.as_ref()?.join(name);
        let mut content = Vec::new();
        match open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(_) => content.clear(),
            Ok(file) => {
                if file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).is_err() {
                    content.clear();
                }
            }
        }
        let code = self.trusted(name, &content);
        let component = code.and_then(|code| deserialize(engine, code));
        if component.is_none() {
            self.counters.rejected.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(file = %path.display(), "a file of the code cache is not to be trusted; compiling again");
        }
        component
    }

    /// Returns the code of a file whose MAC holds.
    fn trusted<'a>(&self, name: &str, content: &'a [u8]) -> Option<&'a [u8]> {
        let rest = content.strip_prefix(MAGIC)?;
        let (tag, code) = rest.split_at_checked(TAG_BYTES)?;
        let expected = self.tag(name, code);
        // Both are MACs under the same key, so comparing them again by MAC takes the same time whatever they hold.
        let blind = hmac::sign(&self.key, expected.as_ref());
        hmac::verify(&self.key, tag, blind.as_ref()).ok().map(|()| code)
    }

    fn tag(&self, name: &str, code: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(MAGIC);
        context.update(name.as_bytes());
        context.update(&[0]);
        context.update(code);
        context.sign()
    }

    fn write(&self, folder: &Path, name: &str, code: &[u8]) -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.write_all(MAGIC)?;
        file.write_all(self.tag(name, code).as_ref())?;
        file.write_all(code)?;
        file.persist(folder.join(name)).map_err(|error| error.error)?;
        prune(folder)
    }
}

/// Returns the engine's settings and version in a few letters.
fn compatibility(engine: &Engine) -> String {
    struct Stable(blake3::Hasher);
    impl Hasher for Stable {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Stable(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().to_hex()[..16].to_owned()
}

/// Opens a file: no link, and no pipe or device whose reader would wait.
fn open(path: &Path) -> std::io::Result<fs::File> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// Makes sure that a folder exists, is the host's own and is closed to everyone else.
fn private(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, "the folder is a link or another user's"));
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// Removes the oldest files beyond the bound.
fn prune(folder: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    files.sort();
    let surplus = files.len().saturating_sub(FILES_MAX);
    for (_, path) in &files[..surplus] {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Loads compiled code that this host made itself. None when the engine does not take it.
#[expect(unsafe_code, reason = "wasmtime trusts compiled code wholly; the only caller has checked its MAC")]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `code` was made by `Component::serialize` in a host with the same key: its MAC, which covers the name
    // with the component's digest and the engine's compatibility hash, was verified over these very bytes in memory.
    match unsafe { Component::deserialize(engine, code) } {
        Ok(component) => Some(component),
        Err(error) => {
            tracing::debug!(%error, "the engine does not take the cached code");
            None
        }
    }
}
