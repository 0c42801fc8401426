//! The reconciler `context-text`: two edits of one text, line by line.
//!
//! Edits of different lines stand together; lines that both changed are conflicts, each with the three versions
//! of that place. **Invariant:** equal sides give that side back; no change of one side alone is lost.

use pointsman_sdk::Plugin;
use pointsman_sdk::reconciler::{Conflict, Edits, Outcome, Reconciler};
use pointsman_sdk::text::{self, Overlap};
use serde::Deserialize;

/// What the operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Media types it takes: whole, or all of a kind as `text/*`.
    pub media_types: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { media_types: vec!["text/*".to_owned()] }
    }
}

/// The reconciler.
#[derive(Debug, Clone)]
pub struct ContextText {
    media_types: Vec<String>,
}

impl Plugin for ContextText {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        match config.media_types.iter().find(|one| one.split('/').count() != 2) {
            Some(wrong) => Err(format!("{wrong:?} is no media type: write `text/markdown` or `text/*`")),
            None => Ok(Self { media_types: config.media_types.iter().map(|one| one.to_ascii_lowercase()).collect() }),
        }
    }
}

impl ContextText {
    fn takes(&self, media_type: &str) -> bool {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let fits = |pattern: &String| pattern.strip_suffix('*').map_or(*pattern == essence, |kind| essence.starts_with(kind));
        self.media_types.iter().any(fits)
    }
}

impl Reconciler for ContextText {
    fn reconcile(&self, edits: &Edits<'_>) -> Outcome {
        if !self.takes(edits.media_type) {
            return Outcome::Declined(format!("{} is not among the media types of this binding", edits.media_type));
        }
        if [edits.base, edits.ours, edits.theirs].iter().any(|side| text::has_zero_byte(side)) {
            return Outcome::Declined("not text: it has a zero byte".to_owned());
        }
        match text::merge(edits.base, edits.ours, edits.theirs) {
            Ok(bytes) => Outcome::Merged(bytes),
            Err(overlaps) => Outcome::Conflicts(overlaps.into_iter().map(conflict).collect()),
        }
    }
}

/// Returns a conflict. Its pointer counts from 1; where both sides only inserted, the second number is one less
/// than the first: nothing of the base stood there, and the insertions stand before the first.
fn conflict(overlap: Overlap) -> Conflict {
    let Overlap { base_lines, base, ours, theirs } = overlap;
    let reason = if base_lines.is_empty() { "both inserted different lines here" } else { "both changed these lines, differently" };
    let unless_empty = |bytes: Vec<u8>| if bytes.is_empty() { None } else { Some(bytes) };
    Conflict {
        pointer: format!("lines {}-{}", base_lines.start + 1, base_lines.end),
        reason: reason.to_owned(),
        base: unless_empty(base),
        ours: unless_empty(ours),
        theirs: unless_empty(theirs),
    }
}

pointsman_sdk::export_reconciler!(ContextText);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reconcile(media_type: &str, base: &str, ours: &str, theirs: &str) -> Outcome {
        let edits = Edits { media_type, base: base.as_bytes(), ours: ours.as_bytes(), theirs: theirs.as_bytes() };
        ContextText::from_json("").expect("fits").reconcile(&edits)
    }

    #[test]
    fn edits_of_different_lines_stand_together() {
        let result = reconcile("text/markdown; charset=utf-8", "a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n");
        assert_eq!(result, Outcome::Merged(b"A\nb\nC\n".to_vec()));
    }

    #[test]
    fn one_line_changed_twice_is_a_conflict_with_its_place() {
        let expected = Conflict {
            pointer: "lines 2-2".to_owned(),
            reason: "both changed these lines, differently".to_owned(),
            base: Some(b"b\n".to_vec()),
            ours: Some(b"B\n".to_vec()),
            theirs: None,
        };
        assert_eq!(reconcile("text/plain", "a\nb\nc\n", "a\nB\nc\n", "a\nc\n"), Outcome::Conflicts(vec![expected]));
    }

    #[test]
    fn a_new_text_written_twice_is_a_conflict_without_a_base() {
        let Outcome::Conflicts(found) = reconcile("text/plain", "", "x\n", "y\n") else { panic!("both wrote") };
        assert_eq!((found[0].pointer.as_str(), found[0].base.as_deref()), ("lines 1-0", None));
    }

    #[test]
    fn other_media_types_and_bytes_are_declined() {
        assert!(matches!(reconcile("image/png", "a", "b", "c"), Outcome::Declined(_)));
        assert!(matches!(reconcile("text/plain", "a", "b\0", "c"), Outcome::Declined(_)));
        let toml = ContextText::from_json(r#"{"media_types":["Application/TOML"]}"#).expect("fits");
        assert!(toml.takes("application/toml") && !toml.takes("text/plain"));
        assert!(ContextText::from_json(r#"{"media_types":["toml"]}"#).is_err());
    }

    proptest! {
        #[test]
        fn idempotent_and_one_sided_edits_win(base in "([a-c]\n){0,8}", side in "([a-e]\n){0,8}") {
            let whole = Outcome::Merged(side.clone().into_bytes());
            prop_assert_eq!(&reconcile("text/plain", &base, &side, &side), &whole);
            prop_assert_eq!(&reconcile("text/plain", &base, &base, &side), &whole);
            prop_assert_eq!(&reconcile("text/plain", &base, &side, &base), &whole);
        }
    }
}
