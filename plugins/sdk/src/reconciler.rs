//! The world `reconciler`.

pub use crate::bindings::reconciler::exports::pointsman::reconciler::reconciling::{Conflict, Outcome};
use crate::setup::Plugin;

/// Two edits of one document that started from the same version.
#[derive(Debug, Clone, Copy)]
pub struct Edits<'a> {
    /// The document's media type.
    pub media_type: &'a str,
    /// The version both started from; empty for a new document.
    pub base: &'a [u8],
    /// The newest stored version.
    pub ours: &'a [u8],
    /// The writer's version.
    pub theirs: &'a [u8],
}

/// Merges two edits of one shared document.
pub trait Reconciler: Plugin {
    /// Merges. Pure, and idempotent: equal sides give that side back.
    fn reconcile(&self, edits: &Edits<'_>) -> Outcome;
}

/// Exports a [`Reconciler`] as the world `reconciler`.
#[macro_export]
macro_rules! export_reconciler {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the export glue of the component")]
        const _: () = {
            $crate::__setup!($plugin);
            impl $crate::bindings::reconciler::exports::pointsman::reconciler::reconciling::Guest for Glue {
                fn reconcile(
                    media_type: ::std::string::String,
                    base: ::std::vec::Vec<u8>,
                    ours: ::std::vec::Vec<u8>,
                    theirs: ::std::vec::Vec<u8>,
                ) -> $crate::reconciler::Outcome {
                    let edits = $crate::reconciler::Edits { media_type: &media_type, base: &base, ours: &ours, theirs: &theirs };
                    SLOT.with(|slot| $crate::reconciler::Reconciler::reconcile(slot.plugin(), &edits))
                }
            }
    $crate::bindings::reconciler::export!(Glue with_types_in $crate::bindings::reconciler);
        };
    };
}
