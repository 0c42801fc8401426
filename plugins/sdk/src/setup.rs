//! How a plugin takes its configuration: once, typed, before any other call.

use std::cell::OnceCell;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What every plugin is: a value made from its configuration.
pub trait Plugin: Sized + 'static {
    /// The configuration. Give it `#[serde(deny_unknown_fields)]`, so that a misspelt key is refused.
    type Config: DeserializeOwned;

    /// Makes the plugin.
    ///
    /// # Errors
    /// What is wrong with the configuration, for the operator.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// Makes the plugin from a JSON text, as the host hands it over. A blank text is an empty object.
    ///
    /// # Errors
    /// What is wrong with the text or the configuration, for the operator.
    fn from_json(json: &str) -> Result<Self, String> {
        Self::new(read_config(json)?)
    }
}

/// The configuration of a plugin that has none.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Reads a configuration from a JSON text, as the host hands it over: for tests. A blank text is an empty object.
///
/// # Errors
/// What does not fit, for the operator.
pub fn read_config<C: DeserializeOwned>(json: &str) -> Result<C, String> {
    let json = if json.trim().is_empty() { "{}" } else { json };
    serde_json::from_str(json).map_err(|error| format!("the configuration does not fit: {error}"))
}

/// Bytes of a panic's message that are told.
#[cfg(target_arch = "wasm32")]
const MESSAGE_BYTES_MAX: usize = 3 << 10;

/// Has a panic say to the host why and where, before the trap that it is.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub fn report_panics() {
    use crate::bindings::setup::pointsman::types::panics::report;

    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("it gave no message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        report(&message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)], &place);
    }));
}

/// Where the one plugin of an instance is kept between calls.
#[doc(hidden)]
#[derive(Debug)]
pub struct Slot<P>(OnceCell<P>);

impl<P: Plugin> Slot<P> {
    /// Returns a slot that is not configured.
    #[must_use]
    pub const fn empty() -> Self {
        Self(OnceCell::new())
    }

    /// Fills the slot.
    ///
    /// # Errors
    /// A configuration that does not fit, or a second one.
    pub fn configure(&self, json: &str) -> Result<(), String> {
        self.0.set(P::from_json(json)?).map_err(|_| "this instance is configured already".to_owned())
    }

    /// Returns the plugin.
    #[must_use]
    pub fn plugin(&self) -> &P {
        self.0.get().expect("the host configures an instance before any other call")
    }
}

impl<P: Plugin> Default for Slot<P> {
    fn default() -> Self {
        Self::empty()
    }
}

/// Declares `GLUE`, the slot and the export of `setup` for one plugin. Used by the macro of each world.
#[doc(hidden)]
#[macro_export]
macro_rules! __setup {
    ($plugin:ty) => {
        struct Glue;
        ::std::thread_local! {
            static SLOT: $crate::setup::Slot<$plugin> = const { $crate::setup::Slot::empty() };
        }
        impl $crate::bindings::setup::exports::pointsman::types::setup::Guest for Glue {
            fn configure(json: ::std::string::String) -> ::std::result::Result<(), ::std::string::String> {
                $crate::setup::report_panics();
                SLOT.with(|slot| slot.configure(&json))
            }
        }
        $crate::bindings::setup::export!(Glue with_types_in $crate::bindings::setup);
        $crate::__schema!(<$plugin as $crate::setup::Plugin>::Config);
    };
}

/// Declares the function that hands the configuration's schema to `pointsman plugin build`.
#[cfg(feature = "schema-export")]
#[doc(hidden)]
#[macro_export]
macro_rules! __schema {
    ($config:ty) => {
        #[unsafe(export_name = "pointsman-config-schema")]
        extern "C" fn config_schema() -> u64 {
            #[allow(unused_imports, reason = "needed where the type has no schema")]
            use $crate::schema::Absent as _;
            $crate::schema::hand_over($crate::schema::Of::<$config>::config().schema())
        }
    };
}

/// Declares nothing: this is the build whose bytes are kept.
#[cfg(not(feature = "schema-export"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __schema {
    ($config:ty) => {};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Doubling(u32);

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct DoublingConfig {
        #[serde(default)]
        by: u32,
    }

    impl Plugin for Doubling {
        type Config = DoublingConfig;
        fn new(config: DoublingConfig) -> Result<Self, String> {
            if config.by > 9 {
                return Err("`by` is at most 9".to_owned());
            }
            Ok(Self(config.by * 2))
        }
    }

    #[test]
    fn a_slot_is_configured_once() {
        let slot = Slot::<Doubling>::empty();
        slot.configure(r#"{"by": 4}"#).expect("fits");
        assert_eq!(slot.plugin().0, 8);
        assert_eq!(slot.configure("{}"), Err("this instance is configured already".to_owned()));
    }

    #[test]
    fn errors_say_what_does_not_fit() {
        let slot = Slot::<Doubling>::empty();
        let error = slot.configure(r#"{"bye": 4}"#).expect_err("misspelt");
        assert!(error.contains("unknown field `bye`, expected `by`"), "{error}");
        assert_eq!(slot.configure(r#"{"by": 10}"#), Err("`by` is at most 9".to_owned()));
        slot.configure("").expect("blank is empty");
        assert_eq!(slot.plugin().0, 0);
    }
}
