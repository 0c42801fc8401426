//! Use cases: load state, let `core` decide, commit, run effects through the ports.
//!
//! **Invariant:** an answer follows the commit that holds everything it says. Effects on git are asked for by an intent
//! in that commit, are idempotent, and are finished by recovery when the host dies in between.

pub mod agents;
pub mod contexts;
pub mod failure;
pub mod kit;
pub mod messaging;
pub mod settings;
