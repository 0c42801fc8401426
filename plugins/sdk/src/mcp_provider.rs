//! The world `mcp-provider`.

pub mod emit;

pub use crate::bindings::mcp_provider::exports::pointsman::mcp_provider::provider::{
    Context, InputRequired, Offers, Outcome, Pending, ProtocolError,
};
use crate::setup::Plugin;

/// What the host does for a running call. Whoever uses `lookups` names the capability `lookups` in plugin.toml.
#[cfg(target_arch = "wasm32")]
pub mod host {
    pub use crate::bindings::mcp_provider::pointsman::agent::lookups;
    pub use crate::bindings::mcp_provider::pointsman::mcp_provider::calls;
    pub use crate::bindings::mcp_provider::pointsman::types::log;
}

/// The JSON-RPC code for parameters that name nothing.
const INVALID_PARAMS: i32 = -32602;

/// Offers tools, resources and prompts to MCP clients. What is not implemented refuses by name.
pub trait Provider: Plugin {
    /// Returns what is offered at the start.
    fn initial_offers(&self) -> Offers;

    /// Calls a tool.
    fn call(&self, ctx: &Context, name: &str, arguments: &str) -> Outcome {
        let _ = (ctx, arguments);
        refused("tool", name)
    }

    /// Reads a resource.
    fn read_resource(&self, ctx: &Context, uri: &str) -> Outcome {
        let _ = ctx;
        refused("resource", uri)
    }

    /// Fills a prompt.
    fn get_prompt(&self, ctx: &Context, name: &str, arguments: &str) -> Outcome {
        let _ = (ctx, arguments);
        refused("prompt", name)
    }

    /// Completes an argument.
    fn complete(&self, reference: &str, argument: &str, typed: &str) -> Vec<String> {
        let _ = (reference, argument, typed);
        Vec::new()
    }

    /// Tells that a pending call was cancelled.
    fn cancelled(&self, call_id: &str, state: &[u8]) {
        let _ = (call_id, state);
    }
}

/// Returns the refusal of something that is not offered.
fn refused(what: &str, name: &str) -> Outcome {
    Outcome::ProtocolError(ProtocolError { code: INVALID_PARAMS, message: format!("there is no {what} {name:?}") })
}

/// Exports a [`Provider`] as the world `mcp-provider`.
#[macro_export]
macro_rules! export_mcp_provider {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the export glue of the component")]
        const _: () = {
            $crate::__setup!($plugin);
            $crate::__mcp_provider!();
        };
    };
}

/// Exports the `provider` of what `__setup!` declared.
#[doc(hidden)]
#[macro_export]
macro_rules! __mcp_provider {
    () => {
        impl $crate::bindings::mcp_provider::exports::pointsman::mcp_provider::provider::Guest for Glue {
            fn initial_offers() -> $crate::mcp_provider::Offers {
                SLOT.with(|slot| $crate::mcp_provider::Provider::initial_offers(slot.plugin()))
            }
            fn call(
                ctx: $crate::mcp_provider::Context,
                name: ::std::string::String,
                arguments: ::std::string::String,
            ) -> $crate::mcp_provider::Outcome {
                SLOT.with(|slot| $crate::mcp_provider::Provider::call(slot.plugin(), &ctx, &name, &arguments))
            }
            fn read_resource(ctx: $crate::mcp_provider::Context, uri: ::std::string::String) -> $crate::mcp_provider::Outcome {
                SLOT.with(|slot| $crate::mcp_provider::Provider::read_resource(slot.plugin(), &ctx, &uri))
            }
            fn get_prompt(
                ctx: $crate::mcp_provider::Context,
                name: ::std::string::String,
                arguments: ::std::string::String,
            ) -> $crate::mcp_provider::Outcome {
                SLOT.with(|slot| $crate::mcp_provider::Provider::get_prompt(slot.plugin(), &ctx, &name, &arguments))
            }
            fn complete(
                reference: ::std::string::String,
                argument: ::std::string::String,
                typed: ::std::string::String,
            ) -> ::std::vec::Vec<::std::string::String> {
                SLOT.with(|slot| $crate::mcp_provider::Provider::complete(slot.plugin(), &reference, &argument, &typed))
            }
            fn cancelled(call_id: ::std::string::String, state: ::std::vec::Vec<u8>) {
                SLOT.with(|slot| $crate::mcp_provider::Provider::cancelled(slot.plugin(), &call_id, &state));
            }
        }
        $crate::bindings::mcp_provider::export!(Glue with_types_in $crate::bindings::mcp_provider);
    };
}
