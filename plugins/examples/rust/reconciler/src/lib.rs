//! A reconciler: documents that are lists, one entry a line, in no order.
//!
//! The host asks when a document was written from a version that is no longer the newest. What either side added is in the
//! result, what either side removed is not: two edits of such a list never disagree.

use pointsman_sdk::lines;
use pointsman_sdk::reconciler::{Edits, Outcome};

/// What the operator can set, under `[plugins.NAME.config]`.
#[pointsman_sdk::config]
#[serde(default)]
#[derive(Debug)]
pub struct Config {
    /// The media type of such lists.
    pub media_type: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { media_type: "text/x-list".to_owned() }
    }
}

/// Merges two edits.
#[pointsman_sdk::reconciler]
pub fn reconcile(edits: &Edits, config: &Config) -> Outcome {
    if edits.media_type != config.media_type {
        return Outcome::Declined(format!("{} is not {}", edits.media_type, config.media_type));
    }
    let [base, ours, theirs] = [edits.base, edits.ours, edits.theirs].map(entries);
    let kept = ours.iter().filter(|entry| theirs.contains(entry) || !base.contains(entry));
    let added = theirs.iter().filter(|entry| !ours.contains(entry) && !base.contains(entry));
    let mut merged = Vec::new();
    for entry in kept.chain(added) {
        merged.extend_from_slice(entry);
        merged.push(b'\n');
    }
    Outcome::Merged(merged)
}

/// Returns the entries of a list.
fn entries(text: &[u8]) -> Vec<&[u8]> {
    lines::split(text).into_iter().map(lines::body).filter(|entry| !lines::is_blank(entry)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(base: &str, ours: &str, theirs: &str) -> Outcome {
        let edits = Edits { media_type: "text/x-list", base: base.as_bytes(), ours: ours.as_bytes(), theirs: theirs.as_bytes() };
        reconcile(&edits, &Config::default())
    }

    #[test]
    fn additions_of_both_stand_and_removals_hold() {
        assert_eq!(merged("a\nb\n", "b\nc\n", "a\nb\nd\n"), Outcome::Merged(b"b\nc\nd\n".to_vec()));
        assert_eq!(merged("a\n", "b\n", "b\n"), Outcome::Merged(b"b\n".to_vec()), "equal sides give that side back");
    }

    #[test]
    fn other_documents_are_declined() {
        let config = Config { media_type: "text/x-other".to_owned() };
        let edits = Edits { media_type: "text/plain", base: b"", ours: b"", theirs: b"" };
        assert_eq!(reconcile(&edits, &config), Outcome::Declined("text/plain is not text/x-other".to_owned()));
    }
}
