//! The merger `merge-union`: in files that only grow, what both sides added stands one after the other.
//!
//! A hunk is merged only when both sides kept each line of the base, in order; their additions at one place then
//! follow each other, ours first, and what they begin or end with in common stands once. A side that changed or
//! removed a line is a conflict. **Invariant:** each line of the base and of both sides is in the result.

use pointsman_sdk::Plugin;
use pointsman_sdk::glob::Glob;
use pointsman_sdk::lines;
use pointsman_sdk::merger::{Description, Hunk, HunkOutcome, Merger, Place, Resolution, Scope};
use serde::Deserialize;

/// What the operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path patterns of files that only grow.
    pub paths: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let names = ["CHANGELOG*", "CHANGES*", "HISTORY*", "NEWS*", "RELEASE-NOTES*", "AUTHORS*", "CONTRIBUTORS*", ".gitignore"];
        Self { paths: names.map(str::to_owned).to_vec() }
    }
}

/// The merger.
#[derive(Debug, Clone)]
pub struct MergeUnion {
    paths: Vec<String>,
}

impl Plugin for MergeUnion {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.paths.is_empty() {
            return Err("`paths` is empty: say which files only grow".to_owned());
        }
        Glob::all(&config.paths)?;
        Ok(Self { paths: config.paths })
    }
}

impl Merger for MergeUnion {
    fn describe(&self) -> Description {
        Description { scope: Scope::Hunks, paths: self.paths.clone() }
    }

    fn merge_hunk(&self, _: &Place, hunk: &Hunk) -> HunkOutcome {
        match union(&hunk.base, &hunk.ours, &hunk.theirs) {
            Some(bytes) => HunkOutcome::Resolved(Resolution::whole(bytes)),
            None => HunkOutcome::Conflict("a side changed or removed lines of a part that only grows".to_owned()),
        }
    }
}

/// Returns the lines of the base with what both sides added; none when a side did not keep them all.
#[must_use]
pub fn union(base: &[u8], ours: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
    let kept = lines::split(base);
    let (our_gaps, their_gaps) = (gaps(&kept, &lines::split(ours))?, gaps(&kept, &lines::split(theirs))?);
    let mut result: Vec<&[u8]> = Vec::new();
    for (n, (our, their)) in our_gaps.iter().zip(&their_gaps).enumerate() {
        result.extend(both(our, their));
        result.extend(kept.get(n));
    }
    let end = lines::line_end(if ours.is_empty() { theirs } else { ours });
    Some(lines::join(&result, end))
}

/// Returns what a side put before each line of the base and after the last; none when it lacks a line.
fn gaps<'a>(base: &[&[u8]], side: &[&'a [u8]]) -> Option<Vec<Vec<&'a [u8]>>> {
    let mut gaps = vec![Vec::new()];
    let mut wanted = base.iter();
    let mut next = wanted.next();
    for line in side {
        if next.is_some_and(|base| lines::body(base) == lines::body(line)) {
            next = wanted.next();
            gaps.push(Vec::new());
        } else if let Some(gap) = gaps.last_mut() {
            gap.push(*line);
        }
    }
    next.is_none().then_some(gaps)
}

/// Returns two additions at one place: common beginning, ours, theirs, common end.
fn both<'a>(ours: &[&'a [u8]], theirs: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let alike = |(a, b): &(&&[u8], &&[u8])| lines::body(a) == lines::body(b);
    let head = ours.iter().zip(theirs).take_while(alike).count();
    let (our_rest, their_rest) = (&ours[head..], &theirs[head..]);
    let tail = our_rest.iter().rev().zip(their_rest.iter().rev()).take_while(alike).count();
    let mut all = ours[..ours.len() - tail].to_vec();
    all.extend_from_slice(&their_rest[..their_rest.len() - tail]);
    all.extend_from_slice(&ours[ours.len() - tail..]);
    all
}

pointsman_sdk::export_merger!(MergeUnion);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(base: &str, ours: &str, theirs: &str) -> Option<String> {
        union(base.as_bytes(), ours.as_bytes(), theirs.as_bytes()).map(|bytes| String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn both_additions_stand_ours_first() {
        assert_eq!(text("", "- a\n", "- b\n").as_deref(), Some("- a\n- b\n"));
        assert_eq!(text("# log\n", "# log\n- a\n", "# log\n- b\n- c\n").as_deref(), Some("# log\n- a\n- b\n- c\n"));
        assert_eq!(text("x\ny\n", "0\nx\ny\n", "x\n1\ny\n").as_deref(), Some("0\nx\n1\ny\n"));
    }

    #[test]
    fn what_both_added_alike_stands_once() {
        assert_eq!(text("", "- a\n", "- a\n").as_deref(), Some("- a\n"));
        assert_eq!(text("", "## 2\n- a\n\n", "## 2\n- b\n\n").as_deref(), Some("## 2\n- a\n- b\n\n"));
    }

    #[test]
    fn a_missing_line_end_is_mended() {
        assert_eq!(text("x", "x\na", "x\nb").as_deref(), Some("x\na\nb"));
        assert_eq!(text("", "a", "b\r\n").as_deref(), Some("a\nb\r\n"));
    }

    #[test]
    fn changed_or_removed_lines_are_a_conflict() {
        assert_eq!(text("x\n", "y\n", "x\nb\n"), None);
        assert_eq!(text("x\ny\n", "y\nx\n", "x\ny\n"), None);
        let plugin = MergeUnion::from_json("").expect("fits");
        let place = Place { path: "CHANGELOG.md".to_owned(), media_type: String::new() };
        let hunk = Hunk { base: b"x\n".to_vec(), ours: b"".to_vec(), theirs: b"x\ny\n".to_vec() };
        assert!(matches!(plugin.merge_hunk(&place, &hunk), HunkOutcome::Conflict(_)));
        assert!(MergeUnion::from_json(r#"{"paths":[]}"#).is_err());
    }

    /// Puts additions between the lines of a base.
    fn grown(base: &[String], more: &[(usize, String)]) -> String {
        let mut all: Vec<String> = base.to_vec();
        for (at, line) in more {
            all.insert(at % (all.len() + 1), line.clone());
        }
        all.iter().map(|line| format!("{line}\n")).collect()
    }

    proptest! {
        #[test]
        fn no_line_of_anyone_is_lost(
            base in prop::collection::vec("[ab]", 0..5),
            ours in prop::collection::vec((0..9_usize, "[abc]"), 0..5),
            theirs in prop::collection::vec((0..9_usize, "[abd]"), 0..5),
        ) {
            let (o, t) = (grown(&base, &ours), grown(&base, &theirs));
            let b: String = base.iter().map(|line| format!("{line}\n")).collect();
            let result = text(&b, &o, &t).expect("both only grew");
            for side in [&b, &o, &t] {
                prop_assert!(lines::added_but_absent(b"", side.as_bytes(), result.as_bytes()).is_empty(), "{side:?} in {result:?}");
            }
            prop_assert!(lines::split(result.as_bytes()).len() <= base.len() + ours.len() + theirs.len());
            prop_assert_eq!(text(&b, &o, &o), Some(o.clone()));
            prop_assert_eq!(text(&b, &o, &b), Some(o));
        }
    }
}
