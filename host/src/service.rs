//! Use cases: load state, let `core` decide, commit, run effects through the ports.
//!
//! **Invariant:** an answer follows the commit that holds everything it says. Effects on git are asked for by an intent
//! in that commit, are idempotent, and are finished by recovery when the host dies in between.

pub mod admin;
pub mod agents;
pub mod claims;
pub mod commits;
pub mod contexts;
pub mod decisions;
pub mod deferred;
pub mod document_access;
pub mod due;
pub mod failure;
mod gates;
pub mod git_access;
pub mod governor;
pub mod homes;
pub mod intents;
pub mod kit;
pub mod letters;
mod lookups;
pub mod merge_queue;
pub mod messaging;
pub mod meters;
pub mod offers;
mod pack;
mod provided;
pub mod registry;
pub mod residents;
pub mod sessions;
pub mod settings;
pub mod spans;
pub mod surface;
pub mod tasks;
pub mod trace;
mod why;
