//! What the services need of the world. Adapters stand behind these traits and know nothing else of the host.
//!
//! **Invariant:** no type of a library (`fjall`, `git2`, `wasmtime`, `hyper`) is named here.

pub mod admin;
pub mod asking;
pub mod causes;
pub mod clock;
pub mod decision;
pub mod documents;
pub mod endpoint;
pub mod fetch;
pub mod health;
pub mod issuer;
pub mod keys;
pub mod letters;
pub mod lookups;
pub mod metrics;
pub mod offering;
pub mod plugins;
pub mod provider;
pub mod registry;
pub mod repository;
pub mod resident;
pub mod sessions;
pub mod siblings;
pub mod store;
pub mod surface;
pub mod wire_time;
