//! How often a process asks the system to make files durable.
//!
//! Nothing that the kernel shows of a process counts its syncs. A small library is loaded into it before its own (`LD_PRELOAD`): it
//! stands before the C library's `fsync` and `fdatasync`, through which Rust and the store's engine go, adds one to a number in a file
//! that is mapped by both, and goes on to the real one. The host is the one that ships, the same for all, and does not know.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::figures::{BenchError, setup};

const SOURCE: &str = include_str!("syncs.c");
/// Where the library finds the number.
const VARIABLE: &str = "BENCH_SYNCS";

/// A number of syncs that rises while processes run that were started with it.
pub(crate) struct Syncs {
    library: PathBuf,
    counter: PathBuf,
}

impl Syncs {
    /// Compiles the library, and begins at 0.
    ///
    /// # Errors
    /// There is no C compiler.
    pub(crate) async fn begin(folder: &Path) -> Result<Self, BenchError> {
        let (source, library, counter) = (folder.join("syncs.c"), folder.join("syncs.so"), folder.join("syncs"));
        std::fs::write(&source, SOURCE).map_err(setup)?;
        std::fs::write(&counter, 0_u64.to_ne_bytes()).map_err(setup)?;
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).args(["-ldl"]).output().await;
        let compiled = compiled.map_err(|error| setup(format!("syncs are counted by a library in C, and cc cannot be run: {error}")))?;
        if !compiled.status.success() {
            return Err(setup(format!("cc: {}", String::from_utf8_lossy(&compiled.stderr))));
        }
        Ok(Self { library, counter })
    }

    /// Lets the syncs of a process be counted.
    pub(crate) fn of(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env(VARIABLE, &self.counter);
    }

    /// Returns where the number stands.
    pub(crate) fn counter(&self) -> &Path {
        &self.counter
    }

    /// Returns how many there were.
    pub(crate) fn count(&self) -> Result<f64, BenchError> {
        read(&self.counter)
    }
}

/// Returns the number that stands in a file.
pub(crate) fn read(counter: &Path) -> Result<f64, BenchError> {
    let bytes = std::fs::read(counter).map_err(setup)?;
    let count = u64::from_ne_bytes(bytes.try_into().map_err(|_| setup("the number of syncs cannot be read"))?);
    Ok(f64::from(u32::try_from(count).unwrap_or(u32::MAX)))
}
