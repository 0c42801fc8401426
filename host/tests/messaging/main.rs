//! Stories of agents, messages and shared context, told on the real store, plugin runtime, keys and git.

mod contexts;
mod identity;
mod messages;
mod routing;
mod waits;
mod world;
