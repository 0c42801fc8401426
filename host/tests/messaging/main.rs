//! Stories of agents, messages, shared context and residents, told on the real store, plugin runtime, keys and git.

mod back;
mod calls;
mod contexts;
mod documents;
mod identity;
mod letters;
mod messages;
mod moves;
#[path = "../../core/src/inbox/tests/naive.rs"]
mod naive;
mod order;
mod peeks;
mod presence;
mod requests;
mod residents;
mod retention;
mod routing;
mod slow;
mod waits;
mod world;
