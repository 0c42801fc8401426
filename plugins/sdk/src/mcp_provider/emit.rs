//! What a running call tells its client besides the answer. All of it is optional: the host drops what the client did not
//! ask for, and natively, where no call runs, nothing is told.
//!
//! Each function returns whether the call still goes on: once it returns false the client has cancelled, and the answer
//! will not be heard.

/// How much a log line matters: the levels of RFC 5424, as MCP names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For whoever mends it.
    Debug,
    /// The normal course.
    Info,
    /// Normal, but worth a look.
    Notice,
    /// Something may be wrong.
    Warning,
    /// Something is wrong.
    Error,
    /// A part has failed.
    Critical,
    /// Someone must act now.
    Alert,
    /// Nothing works.
    Emergency,
}

impl Level {
    /// Returns its name in MCP.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }
}

/// Reports progress: `done` must rise from one report to the next; a `total` of 0 is unknown.
pub fn progress(done: f64, total: f64, message: &str) -> bool {
    #[cfg(target_arch = "wasm32")]
    return calls::emit(&calls::Emission::Progress((done, total, message.to_owned())));
    #[cfg(not(target_arch = "wasm32"))]
    return unheard(&(done, total, message));
}

/// Writes a log line. `json` is its data as a JSON text.
pub fn log(level: Level, logger: &str, json: &str) -> bool {
    #[cfg(target_arch = "wasm32")]
    return calls::emit(&calls::Emission::Log((level.name().to_owned(), logger.to_owned(), json.to_owned())));
    #[cfg(not(target_arch = "wasm32"))]
    return unheard(&(level, logger, json));
}

/// Closes the stream of the call: a legacy client comes back for the answer with `Last-Event-ID`.
pub fn detach_stream() -> bool {
    #[cfg(target_arch = "wasm32")]
    return calls::emit(&calls::Emission::DetachStream);
    #[cfg(not(target_arch = "wasm32"))]
    return unheard(&());
}

#[cfg(target_arch = "wasm32")]
use super::host::calls;

/// Natively no call runs, so none was cancelled.
#[cfg(not(target_arch = "wasm32"))]
const fn unheard<T>(_: &T) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natively_nothing_is_told_and_the_call_goes_on() {
        assert!(progress(1.0, 2.0, "half") && log(Level::Info, "test", r#""a line""#) && detach_stream());
        assert!(Level::Debug < Level::Emergency);
        assert_eq!(Level::Warning.name(), "warning");
    }
}
