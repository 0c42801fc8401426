//! The world `policy`.

pub use crate::bindings::policy::exports::pointsman::policy::gates::{
    Actor, Approval, CheckResult, Denial, Facts, Gate, Requirement, Verdict,
};
pub use crate::bindings::policy::pointsman::types::origin::Provenance;
use crate::setup::Plugin;

/// Guards gates.
pub trait Policy: Plugin {
    /// Judges one act. Pure: the same question has the same answer.
    fn check(&self, gate: Gate, facts: &Facts) -> Verdict;
}

impl Verdict {
    /// Refuses, by a stable rule name.
    #[must_use]
    pub fn denied(rule: &str, why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Deny(Denial { rule: rule.to_owned(), why: why.into(), advice: advice.into() })
    }
}

/// Exports a [`Policy`] as the world `policy`.
#[macro_export]
macro_rules! export_policy {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the export glue of the component")]
        const _: () = {
            $crate::__setup!($plugin);
            impl $crate::bindings::policy::exports::pointsman::policy::gates::Guest for Glue {
                fn check(gate: $crate::policy::Gate, facts: $crate::policy::Facts) -> $crate::policy::Verdict {
                    SLOT.with(|slot| $crate::policy::Policy::check(slot.plugin(), gate, &facts))
                }
            }
    $crate::bindings::policy::export!(Glue with_types_in $crate::bindings::policy);
        };
    };
}
