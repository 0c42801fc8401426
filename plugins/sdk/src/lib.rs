//! What a plugin author needs: one trait for each world, typed configuration, and the pieces that plugins share.
//!
//! A plugin is a type that implements [`Plugin`] (how it is made from its configuration) and the trait of its
//! world, and one macro line that exports it:
//!
//! ```
//! # #[cfg(feature = "router")] mod example {
//! use pointsman_sdk::router::{Candidates, Message, Ranking, Router, Verdict};
//! use pointsman_sdk::{NoConfig, Plugin};
//!
//! struct LeastLoaded;
//! impl Plugin for LeastLoaded {
//!     type Config = NoConfig;
//!     fn new(_: NoConfig) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//! }
//! impl Router for LeastLoaded {
//!     fn route(&self, message: &Message<'_>, candidates: &Candidates<'_>) -> Verdict {
//!         let mut ranking = Ranking::best_of(16);
//!         for one in candidates.iter().filter(|one| one.satisfies() && one.agent() != message.author()) {
//!             ranking.add(&one, one.load());
//!         }
//!         Verdict::ranked(ranking.positions(), "least loaded")
//!     }
//! }
//! pointsman_sdk::router!(LeastLoaded);
//! # }
//! ```
//!
//! Owns: the conversion between the generated bindings and the types an author sees, and the rule that an
//! instance is configured once, before anything else. Must not know: the host, or any one plugin.
//!
//! **Invariant:** the export glue exists on `wasm32` only. Everywhere else a plugin is an ordinary library, so
//! that its decisions are tested, and measured, natively; [`symbols`] then uses an interner of its own.

#[doc(hidden)]
pub mod bindings;
pub mod glob;
pub mod lines;
pub mod setup;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "agent-provider")]
pub mod agent_provider;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "mcp-provider")]
pub mod mcp_provider;
#[cfg(feature = "merger")]
pub mod merger;
#[cfg(feature = "policy")]
pub mod policy;
#[cfg(feature = "reconciler")]
pub mod reconciler;
#[cfg(feature = "router")]
pub mod router;
#[cfg(feature = "router")]
pub mod symbols;
#[cfg(feature = "text")]
pub mod text;
#[cfg(feature = "workflow")]
pub mod workflow;

pub use setup::{NoConfig, Plugin};
