//! The operating system's randomness and clocks: the one place that reads them.
//!
//! Must not know what the time or the randomness is for.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pointsman_core::time::TimeMs;

use crate::ports::clock::System;

/// The operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsSystem;

impl System for OsSystem {
    fn random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("an operating system that starts a process has randomness for it");
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock adapter")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// Returns what the machine's wall clock shows. It may go back; the store's clock is built on it and does not.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock adapter")]
pub fn wall_clock_ms() -> TimeMs {
    let ms = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => TimeMs(ms(since)),
        Err(before) => TimeMs(-ms(before.duration())),
    }
}

/// Returns what this machine is called.
#[must_use]
pub fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Raises the number of files this process may open to what the system lets it, and returns that; none when it is
/// unlimited. Each connection is one, and systems start processes with as few as 1024.
///
/// # Errors
/// The system refuses.
pub fn raise_open_files() -> std::io::Result<Option<u64>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_differs_and_time_is_of_this_century() {
        assert_ne!(OsSystem.id_bytes(), OsSystem.id_bytes());
        assert!(OsSystem.instant() <= OsSystem.instant());
        assert!(wall_clock_ms() > TimeMs(1_700_000_000_000), "{}", wall_clock_ms());
    }
}
