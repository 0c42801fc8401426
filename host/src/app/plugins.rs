//! What changes of the plugins while the host runs: their files, the configuration, the lock of digests.
//!
//! Files are looked at twice a second and taken in when they did not change between two looks, so that half of a file is
//! mostly not seen; when it is, it is refused like any bad one, and the whole one follows.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::adapters::components::signature_file;
use crate::config::{Config, Environment, Flags};
use crate::service::failure::Failure;
use crate::service::kit::chain;
use crate::service::registry::{Registry, Reread};

/// Milliseconds between two looks.
const LOOK_MS: u64 = 500;

/// What a file was when it was looked at.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// Returns what reads the configuration again. What is not about plugins is left for the next start, and said so.
pub(super) fn reread(environment: Environment, flags: Flags, started: Config) -> Reread {
    Arc::new(move || {
        let now = Config::load(&environment, &flags).map_err(|error| error.to_string())?;
        if now.without_wanted() != started {
            tracing::warn!("settings changed that are not those of plugins: they take effect at the next start");
        }
        Ok(now.wanted())
    })
}

/// Returns the files whose change means that the configuration is read again.
pub(super) fn files(config: &Config) -> Vec<PathBuf> {
    let file = config.file.as_ref().and_then(|path| std::path::absolute(path).ok());
    file.into_iter().chain(config.lock_file.clone()).collect()
}

/// A file as it was taken in last, and as it was at the last look.
#[derive(Debug, Clone, Copy)]
struct Seen {
    taken: Stamp,
    last: Stamp,
}

/// Looks at files.
#[derive(Default)]
struct Looks(HashMap<PathBuf, Seen>);

impl Looks {
    /// Returns whether a file changed since it was taken in, and is at rest now.
    fn changed(&mut self, path: &Path) -> bool {
        let now = stamp(path);
        let Some(seen) = self.0.get_mut(path) else {
            self.0.insert(path.to_owned(), Seen { taken: now, last: now });
            return false;
        };
        let at_rest = seen.last == now;
        seen.last = now;
        if !at_rest || seen.taken == now {
            return false;
        }
        seen.taken = now;
        true
    }
}

/// Takes in what changes, until `stop`. A hang-up signal reads everything again.
pub(super) async fn watch(registry: Arc<Registry>, settings: Vec<PathBuf>, mut hang_up: Signal, stop: CancellationToken) {
    let mut looks = Looks::default();
    loop {
        // A few files, rarely: not worth a thread of their own.
        let settings_changed = settings.iter().fold(false, |any, path| looks.changed(path) | any);
        let mut changed = Vec::new();
        for (name, path) in registry.files() {
            if looks.changed(&path) | looks.changed(&signature_file(&path)) {
                changed.push(name);
            }
        }
        if settings_changed {
            said(registry.reread().await.map(drop));
        } else {
            for name in changed {
                said(registry.source_changed(&name).await);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            signalled = hang_up.recv() => if signalled.is_some() {
                said(registry.reread().await.map(drop));
            },
            () = tokio::time::sleep(Duration::from_millis(LOOK_MS)) => {}
        }
    }
}

fn said(done: Result<(), Failure>) {
    match done {
        // Refusals are logged where they are noted.
        Ok(()) | Err(Failure::Refused(_)) => {}
        Err(failure) => tracing::error!(error = chain(&failure), "what changed of the plugins could not be taken in"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_once_and_when_it_is_at_rest() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let mut looks = Looks::default();
        assert!(!looks.changed(&path), "what is there at first is no change");
        std::fs::write(&path, "a").expect("written");
        assert!(!looks.changed(&path), "it may still be written to");
        assert!(looks.changed(&path));
        assert!(!looks.changed(&path), "once");
        std::fs::write(&path, "ab").expect("written");
        assert!(!looks.changed(&path));
        std::fs::write(&path, "abc").expect("written");
        assert!(!looks.changed(&path));
        assert!(looks.changed(&path));
    }
}
