//! What a plugin author needs: an attribute for each world, typed configuration, and the pieces that plugins share.
//!
//! A plugin is the function that decides, and the type of its configuration if it has one:
//!
//! ```
//! # #[cfg(all(feature = "router", feature = "schema"))] mod example {
//! use pointsman_sdk::router::{Candidates, Message, Ranking, Verdict};
//!
//! /// What the operator can set.
//! #[pointsman_sdk::config]
//! #[derive(Default)]
//! #[serde(default)]
//! pub struct Config {
//!     /// What a review that is owed weighs; a delivery that waits weighs one.
//!     review_weight: u8,
//! }
//!
//! #[pointsman_sdk::router]
//! fn route(message: &Message, candidates: &Candidates, config: &Config) -> Verdict {
//!     let mut ranking = Ranking::best_of(16);
//!     for one in candidates.iter().filter(|one| one.satisfies() && one.agent() != message.author()) {
//!         ranking.add(&one, one.load() + u32::from(config.review_weight) * one.open_reviews());
//!     }
//!     Verdict::ranked(ranking.positions(), "least to do")
//! }
//! # }
//! ```
//!
//! Where a world asks several things the attribute stands on an `impl` of its trait for the configuration's type. A plugin that
//! prepares something from its configuration implements [`Plugin`] itself and is exported by `export_router!` and its like.
//!
//! A panic in a component ends the call, and the host shows its message and place.
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
#[cfg(feature = "schema")]
pub mod schema;
#[cfg(feature = "router")]
pub mod symbols;
#[cfg(feature = "text")]
pub mod text;
#[cfg(feature = "text")]
mod words;
#[cfg(feature = "workflow")]
pub mod workflow;

#[cfg(feature = "schema")]
pub use pointsman_sdk_macros::config;
pub use pointsman_sdk_macros::{agent, mcp_provider, merger, policy, reconciler, router, workflow};
#[cfg(feature = "schema")]
pub use schemars;
pub use serde;
pub use setup::{NoConfig, Plugin, read_config};
