//! What is wrong with a configuration, where, and what to write instead.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In a file.
    File {
        /// Which, as it was named.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// That line.
        text: String,
        /// How many characters are meant.
        width: usize,
    },
    /// In a file that cannot be read.
    WholeFile(PathBuf),
    /// In an environment variable.
    Variable(String),
    /// In a flag of the command line.
    Flag(&'static str),
    /// Nowhere: it is missing everywhere.
    Nowhere,
}

impl Place {
    /// Returns it in a few words; none where it is nowhere.
    pub(super) fn short(&self) -> Option<String> {
        match self {
            Self::File { path, line, .. } => Some(format!("{}:{line}", path.display())),
            Self::WholeFile(path) => Some(path.display().to_string()),
            Self::Variable(name) => Some(format!("the environment variable {name}")),
            Self::Flag(name) => Some(format!("the flag {name}")),
            Self::Nowhere => None,
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Where.
    pub(super) place: Place,
    /// What.
    pub(super) what: String,
    /// What to do.
    pub(super) help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.what)?;
        let mut margin = 1;
        match &self.place {
            Place::File { path, line, column, text, width } => {
                margin = line.to_string().len();
                writeln!(f, "{:margin$}--> {}:{line}:{column}", "", path.display())?;
                writeln!(f, "{:margin$} |", "")?;
                writeln!(f, "{line} | {text}")?;
                // Tabs are kept, so that the mark stands under its word however wide they are shown.
                let indent: String = text.chars().take(column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
                writeln!(f, "{:margin$} | {indent}{}", "", "^".repeat((*width).max(1)))?;
            }
            Place::WholeFile(path) => writeln!(f, " --> {}", path.display())?,
            Place::Variable(name) => writeln!(f, " --> environment variable {name}")?,
            Place::Flag(name) => writeln!(f, " --> flag {name}")?,
            Place::Nowhere => {}
        }
        match &self.help {
            Some(help) => writeln!(f, "{:margin$} = help: {help}", ""),
            None => Ok(()),
        }
    }
}

/// Why a configuration is refused: everything that is wrong with it, in the order of the file.
#[derive(Debug, Error)]
pub struct ConfigError {
    pub(super) problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn one(place: Place, what: impl Into<String>, help: Option<String>) -> Self {
        Self { problems: vec![Problem { place, what: what.into(), help }] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        let count = self.problems.len();
        write!(f, "{count} problem{} in the configuration; nothing was started", if count == 1 { "" } else { "s" })
    }
}

/// Returns the candidate that `given` most likely means: within a third of its letters, two at least.
pub(super) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (given.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(given, candidate), candidate))
        .filter(|(far, candidate)| *far <= allowed && *far < candidate.chars().count())
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Returns how many letters must be inserted, removed, replaced or swapped with their neighbour (the restricted
/// Damerau-Levenshtein distance). Letters of either case are equal, as are `-` and `_`.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| text.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect::<Vec<_>>();
    let (a, b) = (letters(a), letters(b));
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_nearest_is_near() {
        let keys = ["bind", "public_url", "body_bytes_max", "connections_max"];
        for (given, expected) in [
            ("bnid", Some("bind")),
            ("body-bytes-max", Some("body_bytes_max")),
            ("body_max", None),
            ("connection_max", Some("connections_max")),
            ("x", None),
            ("colour", None),
        ] {
            assert_eq!(nearest(given, keys), expected, "{given}");
        }
    }

    proptest! {
        #[test]
        fn the_distance_is_symmetric_and_zero_for_the_same(a in "[a-f_]{0,12}", b in "[a-f_]{0,12}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &a), 0);
            prop_assert!(distance(&a, &b) <= a.len().max(b.len()));
        }
    }
}
