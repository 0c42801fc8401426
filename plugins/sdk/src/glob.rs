//! Path globs: `?` and `*` within a name, `**` for any number of folders.
//!
//! A pattern without `/` matches a file name in any folder; one that ends with `/` matches all below a folder.
//! There are no brackets and no braces.

use std::fmt;

/// The longest pattern that is taken.
pub const PATTERN_BYTES_MAX: usize = 1_024;

/// A path pattern, split at `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`
    Folders,
    /// A name with `?` and `*`.
    Name(String),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlobError {
    /// It is empty, or over [`PATTERN_BYTES_MAX`].
    Length(usize),
    /// `**` is not a whole part.
    Folders(String),
}

impl fmt::Display for GlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => write!(f, "a path pattern has 1 to {PATTERN_BYTES_MAX} bytes, not {bytes}"),
            Self::Folders(pattern) => write!(f, "in the path pattern {pattern:?}, `**` must stand alone between `/`"),
        }
    }
}

impl std::error::Error for GlobError {}

impl Glob {
    /// Returns the pattern that a text describes.
    ///
    /// # Errors
    /// The text is empty, too long, or has `**` within a name.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
            return Err(GlobError::Length(pattern.len()));
        }
        let mut parts = Vec::new();
        if !pattern.contains('/') {
            parts.push(Part::Folders);
        }
        for part in pattern.trim_start_matches('/').split('/') {
            match part {
                "" | "**" => parts.push(Part::Folders),
                name if name.contains("**") => return Err(GlobError::Folders(pattern.to_owned())),
                name => parts.push(Part::Name(name.to_owned())),
            }
        }
        parts.dedup_by(|a, b| *a == Part::Folders && *b == Part::Folders);
        Ok(Self { parts })
    }

    /// Returns the patterns of a list.
    ///
    /// # Errors
    /// As [`Glob::new`], for the first that fails, in words.
    pub fn all<T: AsRef<str>>(patterns: &[T]) -> Result<Vec<Self>, String> {
        patterns.iter().map(|pattern| Self::new(pattern.as_ref()).map_err(|error| error.to_string())).collect()
    }

    /// Returns whether a path (`/` between parts) fits.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').collect();
        // Greedy with one point to come back to: `**` takes one more folder at a time.
        let (mut part, mut name) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.parts.get(part) {
                Some(Part::Folders) if part + 1 == self.parts.len() => return name < names.len(),
                Some(Part::Folders) => {
                    retry = Some((part + 1, name));
                    part += 1;
                    continue;
                }
                Some(Part::Name(pattern)) if names.get(name).is_some_and(|text| name_matches(pattern, text)) => {
                    part += 1;
                    name += 1;
                    continue;
                }
                None if name == names.len() => return true,
                Some(Part::Name(_)) | None => {}
            }
            match retry {
                Some((after, from)) if from + 1 < names.len() => {
                    retry = Some((after, from + 1));
                    part = after;
                    name = from + 1;
                }
                Some(_) | None => return false,
            }
        }
    }
}

/// Returns whether one name fits a pattern of `?` and `*`.
fn name_matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(one) if *one == '?' || *one == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|one| *one == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_and_paths() {
        let cases = [
            ("*.md", "README.md", true),
            ("*.md", "docs/a/b.md", true),
            ("/*.md", "docs/b.md", false),
            ("docs/**", "docs/a/b.md", true),
            ("docs/**", "docs", false),
            ("docs/", "docs/x", true),
            ("docs/*", "docs/a/b", false),
            ("**/x/**/y", "a/x/b/c/y", true),
            ("**/x/**/y", "x/y", true),
            ("a/**/b", "a/b/c", false),
            ("src/?.rs", "src/a.rs", true),
            ("src/?.rs", "src/ab.rs", false),
            ("**", "anything/at/all", true),
            ("Cargo.*", "host/Cargo.lock", true),
            ("a*b*c", "a-b-b-c", true),
        ];
        for (pattern, path, expected) in cases {
            let glob = Glob::new(pattern).expect(pattern);
            assert_eq!(glob.matches(path), expected, "{pattern} on {path}");
        }
        assert_eq!(Glob::new(""), Err(GlobError::Length(0)));
        assert_eq!(Glob::new("a/b**"), Err(GlobError::Folders("a/b**".to_owned())));
    }

    /// The plain definition, without cleverness.
    fn oracle(parts: &[Part], names: &[&str]) -> bool {
        match parts {
            [] => names.is_empty(),
            [Part::Folders] => !names.is_empty(),
            [Part::Folders, rest @ ..] => (0..names.len()).any(|skip| oracle(rest, &names[skip..])),
            [Part::Name(pattern), rest @ ..] => {
                names.split_first().is_some_and(|(name, more)| name_matches(pattern, name) && oracle(rest, more))
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*/]{1,8}", path in "[ab]{1,2}(/[ab]{1,2}){0,4}") {
            if let Ok(glob) = Glob::new(&pattern) {
                let names: Vec<&str> = path.split('/').collect();
                prop_assert_eq!(glob.matches(&path), oracle(&glob.parts, &names));
            }
        }
    }
}
