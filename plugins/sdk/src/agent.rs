//! The world `agent`.

pub use crate::bindings::agent::exports::pointsman::agent::handling::{
    Action, Cause, Description, Document, Event, HttpAnswer, HttpRequest, NewTask, Send,
};
use crate::setup::Plugin;

/// Read-only look-ups of the host. Whoever uses `lookups` names the capability `lookups` in plugin.toml.
#[cfg(target_arch = "wasm32")]
pub mod host {
    pub use crate::bindings::agent::pointsman::agent::{kv, lookups};
    pub use crate::bindings::agent::pointsman::types::log;
}

/// Returns what the agent keeps under a key: what it last put there with [`Action::Put`]. Natively there is no host, and
/// nothing is kept.
#[must_use]
pub fn recall(key: &str) -> Option<Vec<u8>> {
    #[cfg(target_arch = "wasm32")]
    return host::kv::get(key);
    #[cfg(not(target_arch = "wasm32"))]
    return {
        let _ = key;
        None
    };
}

/// An agent that lives in the host. What it remembers it keeps in the host's key-value store, not in itself:
/// an instance may be dropped between any two events.
pub trait Agent: Plugin {
    /// Tells what the agent is.
    fn describe(&self) -> Description;

    /// Handles one event.
    ///
    /// # Errors
    /// Why it could not; the event comes again later.
    fn handle(&self, event: &Event) -> Result<Vec<Action>, String>;
}

/// Exports an [`Agent`] as the world `agent`.
#[macro_export]
macro_rules! export_agent {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the export glue of the component")]
        const _: () = {
            $crate::__setup!($plugin);
            $crate::__agent!();
        };
    };
}

/// Exports the `handling` of what `__setup!` declared.
#[doc(hidden)]
#[macro_export]
macro_rules! __agent {
    () => {
        impl $crate::bindings::agent::exports::pointsman::agent::handling::Guest for Glue {
            fn describe() -> $crate::agent::Description {
                SLOT.with(|slot| $crate::agent::Agent::describe(slot.plugin()))
            }
            fn handle(
                event: $crate::agent::Event,
            ) -> ::std::result::Result<::std::vec::Vec<$crate::agent::Action>, ::std::string::String> {
                SLOT.with(|slot| $crate::agent::Agent::handle(slot.plugin(), &event))
            }
        }
        $crate::bindings::agent::export!(Glue with_types_in $crate::bindings::agent);
    };
}
