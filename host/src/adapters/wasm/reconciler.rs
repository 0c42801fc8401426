//! The world `reconciler`.
//!
//! **Invariant:** an answer that claims a conflict names one.

use self::bindings::exports::pointsman::reconciler::reconciling as wit;
use super::admission::Shape;
use super::pool::{Pool, guest};
use crate::ports::plugins::{DocumentConflict, PluginFailure, ReconcileOutcome};

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../wit/types", "../wit/reconciler"],
        world: "pointsman:reconciler/reconciler",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

guest!(
    bindings::Reconciler,
    ReconcilerPre,
    Reconciler,
    Shape { world: "reconciler", imports: &[], exports: &["pointsman:types/setup@0.1.0", "pointsman:reconciler/reconciling@0.1.0"] },
    |_linker| Ok(())
);

/// The three versions of a document.
#[derive(Debug)]
pub(super) struct Versions {
    pub(super) base: Vec<u8>,
    pub(super) ours: Vec<u8>,
    pub(super) theirs: Vec<u8>,
}

/// Asks for a merge.
pub(super) fn reconcile(
    pool: &Pool<bindings::Reconciler>,
    media_type: &str,
    versions: &Versions,
) -> Result<ReconcileOutcome, PluginFailure> {
    pool.ask(|guest, store| {
        let Versions { base, ours, theirs } = versions;
        let answer = guest.pointsman_reconciler_reconciling().call_reconcile(store, media_type, base, ours, theirs)?;
        Ok(match answer {
            wit::Outcome::Merged(bytes) => Ok(ReconcileOutcome::Merged(bytes)),
            wit::Outcome::Conflicts(places) if places.is_empty() => Err("it speaks of conflicts and names none".to_owned()),
            wit::Outcome::Conflicts(places) => Ok(ReconcileOutcome::Conflicts(places.into_iter().map(conflict).collect())),
            wit::Outcome::Declined(reason) => Ok(ReconcileOutcome::Declined(reason)),
        })
    })
}

fn conflict(one: wit::Conflict) -> DocumentConflict {
    // For people to read: what is not text is shown as far as it is.
    let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    DocumentConflict { pointer: one.pointer, reason: one.reason, base: text(one.base), ours: text(one.ours), theirs: text(one.theirs) }
}
