//! The merger `merge-text`: a second opinion on whole text files, line by line.
//!
//! It is asked where git saw a conflict. Where the two differences do not overlap after all the file is merged;
//! else each overlap is named by the lines of the base it covers. **Invariant:** nothing is ever discarded.

use pointsman_sdk::Plugin;
use pointsman_sdk::glob::Glob;
use pointsman_sdk::merger::{Conflict, Description, File, FileOutcome, Merger, Resolution, Scope};
use pointsman_sdk::text;
use serde::Deserialize;

/// What the operator can set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path patterns it is meant for; all text files when empty.
    pub paths: Vec<String>,
}

/// The merger.
#[derive(Debug, Clone)]
pub struct MergeText {
    paths: Vec<String>,
}

impl Plugin for MergeText {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Glob::all(&config.paths)?;
        Ok(Self { paths: config.paths })
    }
}

impl Merger for MergeText {
    fn describe(&self) -> Description {
        Description { scope: Scope::File, paths: self.paths.clone() }
    }

    fn merge_file(&self, file: &File<'_>) -> FileOutcome {
        let sides = [file.base.unwrap_or_default(), file.ours, file.theirs];
        if sides.iter().any(|side| text::has_zero_byte(side)) {
            return FileOutcome::Declined("not text: it has a zero byte".to_owned());
        }
        if file.base.is_none() && file.ours != file.theirs {
            return FileOutcome::Declined("both sides added this file, so there is nothing to merge from".to_owned());
        }
        match text::merge(sides[0], file.ours, file.theirs) {
            Ok(bytes) => FileOutcome::Resolved(Resolution::whole(bytes)),
            Err(overlaps) => FileOutcome::Conflicts(overlaps.iter().map(conflict).collect()),
        }
    }
}

fn conflict(overlap: &text::Overlap) -> Conflict {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let reason = if overlap.base_lines.is_empty() {
        "both sides inserted different lines here"
    } else if overlap.ours.is_empty() || overlap.theirs.is_empty() {
        "one side removed the lines that the other changed"
    } else {
        "both sides changed these lines, differently"
    };
    Conflict { base_line: number(overlap.base_lines.start), base_lines: number(overlap.base_lines.len()), reason: reason.to_owned() }
}

pointsman_sdk::export_merger!(MergeText);

#[cfg(test)]
mod tests {
    use pointsman_sdk::merger::Place;

    use super::*;

    fn merge(base: Option<&str>, ours: &str, theirs: &str) -> FileOutcome {
        let place = Place { path: "a.txt".to_owned(), media_type: String::new() };
        let base = base.map(str::as_bytes);
        let file = File { place: &place, base, ours: ours.as_bytes(), theirs: theirs.as_bytes(), so_far: b"" };
        MergeText::from_json("{}").expect("fits").merge_file(&file)
    }

    #[test]
    fn separate_changes_are_merged() {
        let expected = FileOutcome::Resolved(Resolution::whole(b"A\nb\nc\nD\n".to_vec()));
        assert_eq!(merge(Some("a\nb\nc\nd\n"), "A\nb\nc\nd\n", "a\nb\nc\nD\n"), expected);
    }

    #[test]
    fn conflicts_name_their_lines() {
        let found = merge(Some("a\nb\nc\n"), "a\nB\nc\nx\n", "a\nc\ny\n");
        let conflict = |base_line, base_lines, reason: &str| Conflict { base_line, base_lines, reason: reason.to_owned() };
        let expected = FileOutcome::Conflicts(vec![
            conflict(1, 1, "one side removed the lines that the other changed"),
            conflict(3, 0, "both sides inserted different lines here"),
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_text_or_has_no_base_is_declined() {
        assert!(matches!(merge(Some("a\0"), "b", "c"), FileOutcome::Declined(why) if why.contains("zero byte")));
        assert!(matches!(merge(None, "b", "c"), FileOutcome::Declined(why) if why.contains("both sides added")));
        assert_eq!(merge(None, "b", "b"), FileOutcome::Resolved(Resolution::whole(b"b".to_vec())));
    }

    #[test]
    fn patterns_are_checked() {
        assert!(MergeText::from_json(r#"{"paths":["a**"]}"#).is_err());
    }
}
