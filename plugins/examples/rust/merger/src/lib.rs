//! A merger: files whose lines are a sorted set, such as lists of words.
//!
//! The host asks where both sides of a merge changed the same place. What either side added is in the result, what either side
//! removed is not. The host checks each answer: a line that a side added and the result lacks must be named as discarded.

use std::collections::BTreeSet;

use pointsman_sdk::lines;
use pointsman_sdk::merger::{Hunk, HunkOutcome, Place, Resolution};

/// What the operator can set, under `[plugins.NAME.config]`.
#[pointsman_sdk::config]
#[serde(default)]
#[derive(Debug)]
pub struct Config {
    /// Path patterns of the files that are such sets.
    #[schemars(length(min = 1))]
    pub paths: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { paths: vec!["*.words".to_owned(), "CODEOWNERS".to_owned()] }
    }
}

/// Merges one hunk.
#[pointsman_sdk::merger(hunks, paths = config.paths.clone())]
pub fn merge(_place: &Place, hunk: &Hunk, _config: &Config) -> HunkOutcome {
    let [Some(base), Some(ours), Some(theirs)] = [set(&hunk.base), set(&hunk.ours), set(&hunk.theirs)] else {
        return HunkOutcome::Conflict("the lines of a side are not sorted, or one stands twice".to_owned());
    };
    let kept = |line: &&[u8]| !base.contains(line) || (ours.contains(line) && theirs.contains(line));
    let merged: Vec<&[u8]> = ours.union(&theirs).copied().filter(kept).collect();
    let end = lines::line_end(&hunk.ours);
    let mut bytes = merged.join(end);
    if !merged.is_empty() {
        bytes.extend_from_slice(end);
    }
    HunkOutcome::Resolved(Resolution::whole(bytes))
}

/// Returns the lines of a side without their ends; none when they are not a sorted set.
fn set(side: &[u8]) -> Option<BTreeSet<&[u8]>> {
    let all: Vec<&[u8]> = lines::split(side).into_iter().map(lines::body).collect();
    all.is_sorted_by(|one, next| one < next).then(|| all.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(base: &str, ours: &str, theirs: &str) -> Result<String, String> {
        let place = Place { path: "a.words".to_owned(), media_type: String::new() };
        let hunk = Hunk { base: base.into(), ours: ours.into(), theirs: theirs.into() };
        match merge(&place, &hunk, &Config::default()) {
            HunkOutcome::Resolved(resolution) => Ok(String::from_utf8(resolution.bytes).expect("text")),
            HunkOutcome::Conflict(why) => Err(why),
            HunkOutcome::Declined => Err("declined".to_owned()),
        }
    }

    #[test]
    fn both_additions_stand_in_order_and_removals_hold() {
        assert_eq!(merged("b\nd\n", "a\nb\nd\n", "b\nc\nd\n"), Ok("a\nb\nc\nd\n".to_owned()));
        assert_eq!(merged("b\nd\n", "b\n", "b\nc\nd\n"), Ok("b\nc\n".to_owned()));
        assert_eq!(merged("b\n", "", ""), Ok(String::new()));
    }

    #[test]
    fn what_is_not_sorted_is_left_to_someone_else() {
        assert!(merged("a\n", "b\na\n", "a\nc\n").is_err());
    }
}
