//! The attributes of `pointsman-sdk`: one for each world, and one for configurations. Use them through that crate, which
//! explains the types they speak of.
//!
//! An attribute of a world stands on the function that decides, or on an `impl` of the world's trait for the configuration's
//! type. What is under it stays as it was written: it can be called, and tested, like any other code.
//!
//! Owns: the shape of what an author writes. Must not know: the bindings; the macros of the SDK make the exports.

use proc_macro::TokenStream;

mod arguments;
mod block;
mod config;
mod function;

use function::World;

/// Makes a router of a function or of an `impl Router for CONFIG`.
///
/// ```ignore
/// #[pointsman_sdk::router]
/// fn route(message: &Message, candidates: &Candidates, config: &Config) -> Verdict { … }
/// ```
/// The configuration may be left out.
#[proc_macro_attribute]
pub fn router(arguments: TokenStream, item: TokenStream) -> TokenStream {
    world(World::Router, arguments, item)
}

/// Makes a merger of a function or of an `impl Merger for CONFIG`.
///
/// ```ignore
/// #[pointsman_sdk::merger(hunks, paths = ["CHANGELOG*"])]
/// fn merge(place: &Place, hunk: &Hunk, config: &Config) -> HunkOutcome { … }
///
/// #[pointsman_sdk::merger(file, paths = config.paths.clone())]
/// fn merge(file: &File, config: &Config) -> FileOutcome { … }
/// ```
/// `paths` is anything that can be walked through as texts, in which `config` is the configuration; without it the merger is
/// meant for every text file. The configuration may be left out.
#[proc_macro_attribute]
pub fn merger(arguments: TokenStream, item: TokenStream) -> TokenStream {
    world(World::Merger, arguments, item)
}

/// Makes a reconciler of a function or of an `impl Reconciler for CONFIG`.
///
/// ```ignore
/// #[pointsman_sdk::reconciler]
/// fn reconcile(edits: &Edits, config: &Config) -> Outcome { … }
/// ```
/// The configuration may be left out.
#[proc_macro_attribute]
pub fn reconciler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    world(World::Reconciler, arguments, item)
}

/// Makes a policy of a function or of an `impl Policy for CONFIG`.
///
/// ```ignore
/// #[pointsman_sdk::policy]
/// fn check(gate: Gate, facts: &Facts, config: &Config) -> Verdict { … }
/// ```
/// The configuration may be left out.
#[proc_macro_attribute]
pub fn policy(arguments: TokenStream, item: TokenStream) -> TokenStream {
    world(World::Policy, arguments, item)
}

/// Makes an agent of a function or of an `impl Agent for CONFIG`.
///
/// ```ignore
/// #[pointsman_sdk::agent(name = "greeter", capabilities = ["greeting"], events = ["task.created"])]
/// fn handle(event: &Event, config: &Config) -> Result<Vec<Action>, String> { … }
/// ```
/// The name is that of the crate where none is given; `capabilities` and `events` are empty then. In all three `config` is the
/// configuration, which may be left out.
#[proc_macro_attribute]
pub fn agent(arguments: TokenStream, item: TokenStream) -> TokenStream {
    world(World::Agent, arguments, item)
}

/// Makes a workflow of an `impl Workflow for CONFIG`: what is not implemented has the trait's plain texts.
///
/// ```ignore
/// #[pointsman_sdk::workflow]
/// impl Workflow for Config {
///     fn branch_name(&self, task: &Task, attempt: u32) -> String { … }
/// }
/// ```
#[proc_macro_attribute]
pub fn workflow(arguments: TokenStream, item: TokenStream) -> TokenStream {
    world(World::Workflow, arguments, item)
}

/// Makes an MCP provider of an `impl Provider for CONFIG`.
///
/// ```ignore
/// #[pointsman_sdk::mcp_provider]
/// impl Provider for Config {
///     fn initial_offers(&self) -> Offers { … }
///     fn call(&self, ctx: &Context, name: &str, arguments: &str) -> Outcome { … }
/// }
/// ```
#[proc_macro_attribute]
pub fn mcp_provider(arguments: TokenStream, item: TokenStream) -> TokenStream {
    world(World::McpProvider, arguments, item)
}

/// Makes a struct or an enum part of a configuration: it is read from JSON, refuses keys it does not know, and has a JSON
/// Schema, by which the host tells an operator what does not fit before the plugin runs.
///
/// `#[serde(…)]` and `#[schemars(…)]` below it mean what they always mean. The feature `schema` of the SDK brings it.
#[proc_macro_attribute]
pub fn config(arguments: TokenStream, item: TokenStream) -> TokenStream {
    settle(config::expand(&arguments.into(), &item.into()))
}

fn world(world: World, arguments: TokenStream, item: TokenStream) -> TokenStream {
    settle(function::expand(world, arguments.into(), item.into()))
}

/// Returns the code, or the error in its place.
fn settle(expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    expanded.unwrap_or_else(|error| error.into_compile_error()).into()
}
