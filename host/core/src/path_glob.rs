//! Path globs: which paths of a repository a lease, a rule or a plugin binding means.
//!
//! Owns: the syntax, whether a path matches, whether two globs can mean the same path.
//! Must not know: file systems, repositories, who asks.
//! Invariants: matching and overlap take polynomial time whatever the text; `overlaps` is exact, so two
//! leases that could meet on one path are never both granted, and disjoint ones never refused.
//!
//! Syntax, on paths relative to the repository's root with `/` between segments: `*` is any run of characters
//! within a segment, `?` one character, a segment `**` any number of segments (at the end of a glob: at
//! least one). A glob that ends in `/` means everything below; one without any wildcard means that path and
//! everything below it. Everything else stands for itself, brackets too: `app/[id]/page.tsx` is a file.

mod product;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use product::{Step, Wild};

/// The longest glob, in bytes.
pub const GLOB_BYTES_MAX: usize = 512;

/// A set of paths, written as a glob.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathGlob {
    text: String,
    /// What the text means: matches a path when the steps match its segments.
    steps: Vec<Step>,
}

/// Why a text is no path glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathGlobError {
    /// There is nothing.
    #[error("a path glob is empty; `**` means every path")]
    Empty,
    /// It is too long.
    #[error("a path glob has {bytes} bytes, at most {GLOB_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It starts at the root of a file system.
    #[error("`{glob}` is absolute; paths are relative to the repository's root, without a leading `/`")]
    Absolute {
        /// The text.
        glob: String,
    },
    /// It has a segment `..`.
    #[error("`{glob}` has a `..` segment; write the path it leads to")]
    Parent {
        /// The text.
        glob: String,
    },
    /// It has a segment `.` or an empty one.
    #[error("`{glob}` has an empty or `.` segment; leave it out")]
    Blank {
        /// The text.
        glob: String,
    },
    /// It points into git's own folder.
    #[error("`{glob}` names `.git`, which is not part of a tree")]
    GitFolder {
        /// The text.
        glob: String,
    },
    /// It holds a NUL.
    #[error("a path glob holds a NUL character")]
    Nul,
}

impl PathGlob {
    /// Returns the glob that `text` spells.
    ///
    /// # Errors
    /// [`PathGlobError`], one variant for each thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, PathGlobError> {
        let glob = || text.to_owned();
        if text.is_empty() {
            return Err(PathGlobError::Empty);
        }
        if text.len() > GLOB_BYTES_MAX {
            return Err(PathGlobError::TooLong { bytes: text.len() });
        }
        if text.contains('\0') {
            return Err(PathGlobError::Nul);
        }
        if text.starts_with('/') {
            return Err(PathGlobError::Absolute { glob: glob() });
        }
        let stem = text.strip_suffix('/').unwrap_or(text);
        for segment in stem.split('/') {
            match segment {
                "" | "." => return Err(PathGlobError::Blank { glob: glob() }),
                ".." => return Err(PathGlobError::Parent { glob: glob() }),
                name if name.eq_ignore_ascii_case(".git") => {
                    return Err(PathGlobError::GitFolder { glob: glob() });
                }
                _ => {}
            }
        }
        Ok(Self { steps: steps(stem, stem.len() < text.len()), text: glob() })
    }

    /// Returns the text it was parsed from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the glob means `path`, a relative path with `/` between its segments.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let literal = |segment: &str| Step::One(segment.chars().map(Wild::Char).collect());
        if path.split('/').any(str::is_empty) {
            return false;
        }
        let path: Vec<Step> = path.split('/').map(literal).collect();
        product::meet(&self.steps, &path)
    }

    /// Returns whether some path is meant by both globs.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        product::meet(&self.steps, &other.steps)
    }
}

/// Compiles segments; `below` is whether only what lies below them is meant.
fn steps(stem: &str, below: bool) -> Vec<Step> {
    let mut steps: Vec<Step> = stem.split('/').map(step).collect();
    let plain = !stem.contains(['*', '?']);
    let any_name = Step::One(vec![Wild::Run]);
    match steps.last() {
        _ if below => steps.extend([any_name, Step::Any]),
        Some(Step::Any) => steps.insert(steps.len() - 1, any_name),
        _ if plain => steps.push(Step::Any),
        _ => {}
    }
    // Two `**` in a row mean what one does.
    steps.dedup_by(|next, last| *next == Step::Any && *last == Step::Any);
    steps
}

fn step(segment: &str) -> Step {
    if segment == "**" {
        return Step::Any;
    }
    let mut wilds: Vec<Wild> = segment
        .chars()
        .map(|char| match char {
            '*' => Wild::Run,
            '?' => Wild::One,
            char => Wild::Char(char),
        })
        .collect();
    wilds.dedup_by(|next, last| *next == Wild::Run && *last == Wild::Run);
    Step::One(wilds)
}

impl PartialEq for PathGlob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathGlob {}

impl PartialOrd for PathGlob {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PathGlob {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl std::hash::Hash for PathGlob {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathGlob({:?})", self.text)
    }
}

impl FromStr for PathGlob {
    type Err = PathGlobError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for PathGlob {
    type Error = PathGlobError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<PathGlob> for String {
    fn from(glob: PathGlob) -> Self {
        glob.text
    }
}
