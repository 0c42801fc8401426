//! The merger `merge-imports`: blocks of imports as sets of statements, and version numbers that both sides raised.
//!
//! A hunk of imports is merged when every line of it belongs to one: statements that either side added are there,
//! those that a side removed are not, two lists of names from one module become one, and the block stays sorted
//! the way it was. A hunk of equal lines that differ in a version number takes the higher one and names the
//! lower. Everything else is declined. **Invariants:** each added statement is in the result or named as
//! discarded; a name that the sides take from different places is never merged.

mod block;
mod statement;
mod version;

pub use statement::Language;

use pointsman_sdk::Plugin;
use pointsman_sdk::merger::{Description, Hunk, HunkOutcome, Merger, Place, Scope};
use serde::Deserialize;

/// What the operator can set.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether version numbers are merged, too.
    pub versions: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { versions: true }
    }
}

/// The merger.
#[derive(Debug, Clone, Copy)]
pub struct MergeImports {
    versions: bool,
}

impl Plugin for MergeImports {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self { versions: config.versions })
    }
}

impl Merger for MergeImports {
    fn describe(&self) -> Description {
        // Version numbers stand in files of any kind.
        let paths = if self.versions { Vec::new() } else { Language::patterns() };
        Description { scope: Scope::Hunks, paths }
    }

    fn merge_hunk(&self, place: &Place, hunk: &Hunk) -> HunkOutcome {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let (Some(base), Some(ours), Some(theirs)) = (text(&hunk.base), text(&hunk.ours), text(&hunk.theirs)) else {
            return HunkOutcome::Declined;
        };
        let imports = Language::of(&place.path).and_then(|language| block::merge(language, base, ours, theirs));
        match imports {
            Some(outcome) => outcome,
            None if self.versions => version::merge(base, ours, theirs).map_or(HunkOutcome::Declined, HunkOutcome::Resolved),
            None => HunkOutcome::Declined,
        }
    }
}

pointsman_sdk::export_merger!(MergeImports);

#[cfg(test)]
mod tests;
