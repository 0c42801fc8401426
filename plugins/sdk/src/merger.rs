//! The world `merger`.

pub use crate::bindings::merger::exports::pointsman::merger::merging::{
    Command, Conflict, Description, Discard, FileOutcome, Hunk, HunkOutcome, Place, Resolution, Scope, Side,
};
use crate::lines;
use crate::setup::Plugin;

/// A whole file of a merge.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Where it is.
    pub place: &'a Place,
    /// The merge base; none where both sides added the file.
    pub base: Option<&'a [u8]>,
    /// The target's side.
    pub ours: &'a [u8],
    /// The branch's side.
    pub theirs: &'a [u8],
    /// What the host's own merge gives, with its conflicts marked in diff3 style.
    pub so_far: &'a [u8],
}

/// Resolves what a text merge could not. Implement the function that the described scope names; the other
/// one declines.
pub trait Merger: Plugin {
    /// Tells what the merger is for.
    fn describe(&self) -> Description;

    /// Merges one conflicting hunk.
    fn merge_hunk(&self, place: &Place, hunk: &Hunk) -> HunkOutcome {
        let _ = (place, hunk);
        HunkOutcome::Declined
    }

    /// Merges a file.
    fn merge_file(&self, file: &File<'_>) -> FileOutcome {
        let _ = file;
        FileOutcome::Declined("this merger works on hunks".to_owned())
    }
}

impl Resolution {
    /// A result that leaves nothing out.
    #[must_use]
    pub fn whole(bytes: Vec<u8>) -> Self {
        Self { bytes, discards: Vec::new() }
    }

    /// A result in which every line that a side added and that is not there word for word is named, with one
    /// reason: for merges that keep the meaning and change the wording (a comma, a joined statement).
    #[must_use]
    pub fn reworded(bytes: Vec<u8>, base: &[u8], ours: &[u8], theirs: &[u8], reason: &str) -> Self {
        let mut discards = Vec::new();
        for (side, text) in [(Side::Ours, ours), (Side::Theirs, theirs)] {
            let missing = lines::added_but_absent(base, text, &bytes);
            if !missing.is_empty() {
                discards.push(Discard { side, text: missing, reason: reason.to_owned() });
            }
        }
        Self { bytes, discards }
    }
}

/// Exports a [`Merger`] as the world `merger`.
#[macro_export]
macro_rules! export_merger {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the export glue of the component")]
        const _: () = {
            $crate::__setup!($plugin);
            impl $crate::bindings::merger::exports::pointsman::merger::merging::Guest for Glue {
                fn describe() -> $crate::merger::Description {
                    SLOT.with(|slot| $crate::merger::Merger::describe(slot.plugin()))
                }
                fn merge_hunks(
                    place: $crate::merger::Place,
                    hunks: ::std::vec::Vec<$crate::merger::Hunk>,
                ) -> ::std::vec::Vec<$crate::merger::HunkOutcome> {
                    SLOT.with(|slot| hunks.iter().map(|hunk| $crate::merger::Merger::merge_hunk(slot.plugin(), &place, hunk)).collect())
                }
                fn merge_file(
                    place: $crate::merger::Place,
                    base: ::std::option::Option<::std::vec::Vec<u8>>,
                    ours: ::std::vec::Vec<u8>,
                    theirs: ::std::vec::Vec<u8>,
                    so_far: ::std::vec::Vec<u8>,
                ) -> $crate::merger::FileOutcome {
                    let file = $crate::merger::File { place: &place, base: base.as_deref(), ours: &ours, theirs: &theirs, so_far: &so_far };
                    SLOT.with(|slot| $crate::merger::Merger::merge_file(slot.plugin(), &file))
                }
            }
    $crate::bindings::merger::export!(Glue with_types_in $crate::bindings::merger);
        };
    };
}
