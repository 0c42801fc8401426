//! Two edits of one document: the configured reconcilers, in their order, until one merges or finds a conflict.
//!
//! A reconciler that fails, declines, or answers what the document's media type forbids is passed over; the record says so.

use pointsman_core::context::{ConflictPlace, is_json};
use pointsman_core::ids::ProjectId;
use pointsman_core::limits::DOCUMENT_BYTES_MAX;
use serde::Serialize;
use serde_json::Value;

use super::{Contexts, Document, stored_form};
use crate::ports::plugins::{DocumentConflict, PluginFailure, PluginRef, ReconcileOutcome};
use crate::ports::registry::OnFailure;
use crate::service::failure::Failure;

/// Bytes of each side that a conflict over the whole document shows.
const EXCERPT_BYTES: usize = 4 << 10;

/// What a reconciler said before another decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Asked {
    plugin: String,
    outcome: String,
}

/// What became of two edits.
pub(super) enum Reconciled {
    /// One document, in its stored form.
    Merged { bytes: Vec<u8>, plugin: PluginRef, asked: Vec<Asked> },
    /// They disagree.
    Conflict { places: Vec<ConflictPlace>, plugin: Option<PluginRef>, asked: Vec<Asked> },
}

impl Contexts {
    /// Merges `theirs`, made from `base`, with the newest version.
    pub(super) async fn reconcile(
        &self,
        project: ProjectId,
        base: Option<&Document>,
        ours: &Document,
        theirs: &Document,
    ) -> Result<Reconciled, Failure> {
        let media_type = &ours.head.media_type;
        let mut asked = Vec::new();
        if *media_type != theirs.head.media_type {
            let reason = format!("it is {media_type} now, the write is {}", theirs.head.media_type);
            return Ok(Reconciled::Conflict { places: vec![whole(base, ours, theirs, reason)], plugin: None, asked });
        }
        let base_bytes = base.map_or_else(|| common_ground(media_type, &ours.bytes, &theirs.bytes), |base| base.bytes.clone());
        let key = ours.head.key.as_str();
        let slug = self.kit.slug(project).await?;
        let bindings = self.kit.settings.bindings.now();
        for name in bindings.reconcilers(&slug, key) {
            let [base_bytes, ours_bytes, theirs_bytes] = [&base_bytes, &ours.bytes, &theirs.bytes].map(Clone::clone);
            let answer = self.kit.plugins.reconcile(name, media_type, base_bytes, ours_bytes, theirs_bytes).await;
            if let Err(failure) = &answer {
                match self.kit.plugins.on_failure(name) {
                    OnFailure::FallBack => {}
                    OnFailure::Refuse => {
                        let reason = format!("reconciler `{name}` failed: {failure}");
                        return Ok(Reconciled::Conflict { places: vec![whole(base, ours, theirs, reason)], plugin: None, asked });
                    }
                    OnFailure::Defer => return Err(Failure::later()),
                }
            }
            match accept(media_type, answer) {
                Ok(Answer::Merged(bytes)) => return Ok(Reconciled::Merged { bytes, plugin: self.plugin(name), asked }),
                Ok(Answer::Conflicts(places)) => {
                    return Ok(Reconciled::Conflict { places, plugin: Some(self.plugin(name)), asked });
                }
                Err(outcome) => asked.push(Asked { plugin: name.to_owned(), outcome }),
            }
        }
        let reason = if asked.is_empty() { "no reconciler is bound to this key" } else { "no reconciler could merge it" };
        Ok(Reconciled::Conflict { places: vec![whole(base, ours, theirs, reason.to_owned())], plugin: None, asked })
    }

    fn plugin(&self, name: &str) -> PluginRef {
        let loaded = self.kit.plugins.loaded().remove(name).map(|(_, plugin, _)| plugin);
        loaded.unwrap_or_else(|| PluginRef { name: name.to_owned(), digest: String::new() })
    }
}

enum Answer {
    Merged(Vec<u8>),
    Conflicts(Vec<ConflictPlace>),
}

/// Returns a reconciler's answer, or why the next one is asked.
fn accept(media_type: &str, answer: Result<ReconcileOutcome, PluginFailure>) -> Result<Answer, String> {
    match answer {
        Ok(ReconcileOutcome::Merged(bytes)) => {
            let bytes = stored_form(media_type, &bytes).map_err(|failure| format!("failed: {failure}"))?;
            if bytes.len() > DOCUMENT_BYTES_MAX {
                return Err(format!("failed: its document has {} bytes", bytes.len()));
            }
            Ok(Answer::Merged(bytes))
        }
        Ok(ReconcileOutcome::Conflicts(places)) if places.is_empty() => Err("failed: a conflict without a place".to_owned()),
        Ok(ReconcileOutcome::Conflicts(places)) => Ok(Answer::Conflicts(places.into_iter().map(place).collect())),
        Ok(ReconcileOutcome::Declined(why)) => Err(format!("declined: {why}")),
        Err(failure) => {
            tracing::warn!(%failure, "a reconciler failed, the next one is asked");
            Err(format!("failed: {failure}"))
        }
    }
}

fn place(conflict: DocumentConflict) -> ConflictPlace {
    let DocumentConflict { pointer, reason, base, ours, theirs } = conflict;
    ConflictPlace { pointer, reason, base, ours, theirs }
}

/// Returns what two documents begun apart have in common: nothing, in the form of the media type.
fn common_ground(media_type: &str, ours: &[u8], theirs: &[u8]) -> Vec<u8> {
    if !is_json(media_type) {
        return Vec::new();
    }
    let is_object = |bytes: &[u8]| matches!(serde_json::from_slice(bytes), Ok(Value::Object(_)));
    if is_object(ours) && is_object(theirs) { b"{}".to_vec() } else { b"null".to_vec() }
}

/// Returns a conflict over the whole document.
pub(super) fn whole(base: Option<&Document>, ours: &Document, theirs: &Document, reason: String) -> ConflictPlace {
    ConflictPlace { pointer: String::new(), reason, base: base.and_then(excerpt), ours: excerpt(ours), theirs: excerpt(theirs) }
}

/// Returns the beginning of a document that is a text.
fn excerpt(document: &Document) -> Option<String> {
    let text = document.text()?;
    if text.len() <= EXCERPT_BYTES {
        return Some(text.to_owned());
    }
    Some(format!("{}…", &text[..text.floor_char_boundary(EXCERPT_BYTES)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_begun_apart_share_an_empty_one() {
        assert_eq!(common_ground("text/markdown", b"a", b"b"), b"");
        assert_eq!(common_ground("application/json", b"{\"a\":1}", b"{}"), b"{}");
        assert_eq!(common_ground("application/json", b"[1]", b"{}"), b"null");
    }

    #[test]
    fn answers_that_are_no_documents_are_passed_over() {
        assert!(matches!(accept("image/png", Ok(ReconcileOutcome::Merged(vec![0xff]))), Ok(Answer::Merged(_))));
        assert!(accept("application/json", Ok(ReconcileOutcome::Merged(b"{".to_vec()))).is_err());
        assert!(accept("application/json", Ok(ReconcileOutcome::Conflicts(Vec::new()))).is_err());
        assert!(
            matches!(accept("application/json", Ok(ReconcileOutcome::Merged(b"{ }".to_vec()))), Ok(Answer::Merged(bytes)) if bytes == b"{}")
        );
    }
}
