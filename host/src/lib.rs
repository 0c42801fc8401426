//! The host.

pub mod plugin_build;
