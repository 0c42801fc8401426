//! What components write to the host's log: so many lines and no more, each of one line, marked with the plugin's name.
//!
//! **Invariant:** a plugin cannot fill the log, and what is left out is counted where the next line stands.

use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// Bytes of a line.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Lines at once.
const BURST: u32 = 100;
/// Milliseconds after which one more line may be written.
const LINE_MS: u64 = 100;

/// How loud a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Debug)]
struct Allowance {
    lines: u32,
    /// Until when lines were given out.
    at: Duration,
    left_out: u64,
}

impl Allowance {
    /// Takes a line at `now`: none when there is none left, else how many were left out before it.
    fn take(&mut self, now: Duration) -> Option<u64> {
        let gained = u64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX) / LINE_MS;
        if gained > 0 {
            self.lines = u32::try_from(u64::from(self.lines).saturating_add(gained)).unwrap_or(BURST).min(BURST);
            self.at = now;
        }
        if self.lines == 0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The log lines of one plugin.
#[derive(Debug)]
pub(super) struct LogLines {
    plugin: String,
    allowance: Mutex<Allowance>,
}

impl LogLines {
    /// Returns the lines of a plugin.
    pub(super) fn new(plugin: String) -> Self {
        Self { plugin, allowance: Mutex::new(Allowance { lines: BURST, at: now(), left_out: 0 }) }
    }

    /// Writes a line, or counts it as left out.
    pub(super) fn write(&self, level: Level, line: &str) {
        let Some(left_out) = self.allowance.lock().take(now()) else { return };
        let (plugin, line) = (self.plugin.as_str(), one_line(line));
        match level {
            Level::Debug => tracing::debug!(plugin, left_out, "{line}"),
            Level::Info => tracing::info!(plugin, left_out, "{line}"),
            Level::Warn => tracing::warn!(plugin, left_out, "{line}"),
            Level::Error => tracing::error!(plugin, left_out, "{line}"),
        }
    }
}

/// Returns a text cut to the length of a line, without anything a terminal would obey.
fn one_line(text: &str) -> String {
    let end = text.floor_char_boundary(LINE_BYTES_MAX);
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_given_out_by_time_and_counted_when_not() {
        let start = Duration::from_secs(10);
        let mut allowance = Allowance { lines: 2, at: start, left_out: 0 };
        assert_eq!([allowance.take(start), allowance.take(start), allowance.take(start)], [Some(0), Some(0), None]);
        let soon = start + Duration::from_millis(LINE_MS - 1);
        assert_eq!(allowance.take(soon), None);
        assert_eq!(allowance.take(start + Duration::from_millis(LINE_MS)), Some(2));
        let late = start + Duration::from_secs(3_600);
        assert_eq!((0..2 * BURST).filter(|_| allowance.take(late).is_some()).count(), BURST as usize);
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(one_line("a\nb\x1b[31mc"), "a b [31mc");
        let long = "é".repeat(LINE_BYTES_MAX);
        assert_eq!(one_line(&long).len(), LINE_BYTES_MAX);
    }
}
