//! Everything that touches the world, one folder a neighbour. Adapters know `ports` and `core`, never each other.

pub mod components;
pub mod embedded;
pub mod git;
pub mod http;
pub mod keys;
pub mod mcp;
pub mod metrics;
pub mod oauth;
pub mod redis;
pub mod system;
pub mod wasm;
