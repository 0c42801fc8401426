//! The world `router`: candidates as parallel lists of numbers.
//!
//! **Invariant:** every position in an accepted answer names a candidate, and none twice.

use std::cell::Cell;

use pointsman_core::event::Provenance;
use wasmtime::Store;
use wasmtime::component::HasSelf;

use self::bindings::exports::pointsman::router::routing as wit;
use self::bindings::pointsman::types::{origin, symbols};
use super::admission::Shape;
use super::failure::limit;
use super::pool::{Pool, guest};
use super::store::State;
use super::symbols::Scope;
use crate::ports::plugins::{PluginFailure, RouteCandidate, RouteDecision, RouteMessage, RouteVerdict, Symbol};

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../wit/types", "../wit/router"],
        world: "pointsman:router/router",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

guest!(
    bindings::Router,
    RouterPre,
    Router,
    Shape {
        world: "router",
        imports: &["pointsman:types/symbols@0.1.0", "pointsman:types/origin@0.1.0"],
        exports: &["pointsman:types/setup@0.1.0", "pointsman:router/routing@0.1.0"],
    },
    |linker| {
        origin::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
        symbols::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
    }
);

impl symbols::Host for State {
    fn symbol_name(&mut self, symbol: u32) -> String {
        self.scope.symbol_name(symbol).to_string()
    }

    fn symbol_of(&mut self, text: String) -> u32 {
        self.scope.symbol_of(&text)
    }
}

impl origin::Host for State {}

/// A question takes at most so many candidates; more are the caller's mistake, not the router's.
const CANDIDATES_MAX: usize = 1 << 16;

/// Asks a router on the calling thread.
pub(super) fn route(
    pool: &Pool<bindings::Router>,
    message: &RouteMessage,
    candidates: &[RouteCandidate],
) -> Result<RouteVerdict, PluginFailure> {
    if candidates.len() > CANDIDATES_MAX {
        return Err(pool.count(limit(&pool.terms.name, "candidates")));
    }
    let Some(_turn) = pool.slots.take_here(pool.terms.limits.wait()) else {
        return Err(pool.count(limit(&pool.terms.name, "concurrency")));
    };
    let mut lists = LISTS.take();
    lists.fill(candidates);
    let verdict = pool.ask(|guest, store| {
        lists.name(message, &mut store.data_mut().scope);
        let answer = lists.put(guest, store, message)?;
        Ok(verdict(answer, candidates.len()))
    });
    LISTS.set(lists);
    verdict
}

thread_local! {
    /// The lists of the last question on this thread, for their room.
    static LISTS: Cell<Lists> = Cell::default();
}

/// A question as it crosses the boundary.
#[derive(Debug, Default)]
struct Lists {
    kind: u32,
    author: u32,
    message_owner: u32,
    paths: Vec<u32>,
    tags: Vec<u32>,
    asked: Vec<u32>,
    agent: Vec<u32>,
    owner: Vec<u32>,
    satisfies: Vec<u8>,
    load: Vec<u32>,
    open_reviews: Vec<u32>,
    idle_ms: Vec<u64>,
    acked: Vec<u32>,
    nacked: Vec<u32>,
    refused: Vec<u8>,
    team_start: Vec<u32>,
    teams: Vec<u32>,
    capability_start: Vec<u32>,
    capabilities: Vec<u32>,
}

impl Lists {
    /// Takes the candidates over in one pass: they are many, and what is known of one lies together.
    fn fill(&mut self, candidates: &[RouteCandidate]) {
        let len = candidates.len();
        let agent = sized(&mut self.agent, len);
        let owner = sized(&mut self.owner, len);
        let satisfies = sized(&mut self.satisfies, len);
        let load = sized(&mut self.load, len);
        let open_reviews = sized(&mut self.open_reviews, len);
        let idle_ms = sized(&mut self.idle_ms, len);
        let acked = sized(&mut self.acked, len);
        let nacked = sized(&mut self.nacked, len);
        let refused = sized(&mut self.refused, len);
        let team_start = sized(&mut self.team_start, len + 1);
        let capability_start = sized(&mut self.capability_start, len + 1);
        self.teams.clear();
        self.capabilities.clear();
        for (at, one) in candidates.iter().enumerate() {
            agent[at] = one.agent.0;
            owner[at] = one.owner.0;
            satisfies[at] = u8::from(one.satisfies);
            load[at] = one.load;
            open_reviews[at] = one.open_reviews;
            idle_ms[at] = one.idle_ms;
            acked[at] = one.acked;
            nacked[at] = one.nacked;
            refused[at] = u8::from(one.refused);
            team_start[at] = join(&mut self.teams, &one.teams);
            capability_start[at] = join(&mut self.capabilities, &one.capabilities);
        }
        team_start[len] = join(&mut self.teams, &[]);
        capability_start[len] = join(&mut self.capabilities, &[]);
    }

    fn name(&mut self, message: &RouteMessage, scope: &mut Scope) {
        self.kind = scope.number(&message.kind);
        self.author = scope.number(&message.author);
        self.message_owner = scope.number(&message.owner);
        refill(&mut self.paths, message.paths.iter().map(|text| scope.number(text)));
        refill(&mut self.tags, message.tags.iter().map(|text| scope.number(text)));
        refill(&mut self.asked, message.capabilities.iter().map(|text| scope.number(text)));
    }

    fn put(&self, guest: &bindings::Router, store: &mut Store<State>, message: &RouteMessage) -> wasmtime::Result<wit::Verdict> {
        let about = wit::Message {
            kind: self.kind,
            author: self.author,
            provenance: provenance(message.provenance),
            owner: self.message_owner,
            priority: message.priority,
            size_bytes: message.size_bytes,
            attempt: message.attempt,
            age_ms: message.age_ms,
            paths: &self.paths,
            tags: &self.tags,
            capabilities: &self.asked,
        };
        let among = wit::Candidates {
            agent: &self.agent,
            owner: &self.owner,
            satisfies: &self.satisfies,
            load: &self.load,
            open_reviews: &self.open_reviews,
            idle_ms: &self.idle_ms,
            acked: &self.acked,
            nacked: &self.nacked,
            refused: &self.refused,
            team_start: &self.team_start,
            teams: &self.teams,
            capability_start: &self.capability_start,
            capabilities: &self.capabilities,
        };
        guest.pointsman_router_routing().call_route(store, about, among)
    }
}

fn refill<T>(list: &mut Vec<T>, values: impl Iterator<Item = T>) {
    list.clear();
    list.extend(values);
}

/// Returns a list of `len` entries, to be written over.
fn sized<T: Copy + Default>(list: &mut Vec<T>, len: usize) -> &mut [T] {
    list.resize(len, T::default());
    &mut list[..len]
}

/// Appends a list to those before it and returns where it starts.
fn join(joined: &mut Vec<u32>, list: &[Symbol]) -> u32 {
    let start = u32::try_from(joined.len()).unwrap_or(u32::MAX);
    joined.extend(list.iter().map(|symbol| symbol.0));
    start
}

const fn provenance(provenance: Provenance) -> origin::Provenance {
    match provenance {
        Provenance::Human => origin::Provenance::Human,
        Provenance::Agent => origin::Provenance::Agent,
        Provenance::Plugin => origin::Provenance::Plugin,
        Provenance::Host => origin::Provenance::Host,
    }
}

fn verdict(answer: wit::Verdict, candidates: usize) -> Result<RouteVerdict, String> {
    let decision = match answer.decision {
        wit::Decision::Pass => RouteDecision::Pass,
        wit::Decision::Ranked(positions) => RouteDecision::Ranked(checked(positions, candidates)?),
        wit::Decision::Broadcast(positions) => RouteDecision::Broadcast(checked(positions, candidates)?),
        wit::Decision::Drop => RouteDecision::Drop,
        wit::Decision::Defer(delay_ms) => RouteDecision::Defer(delay_ms),
    };
    Ok(RouteVerdict { decision, reason: answer.reason })
}

fn checked(positions: Vec<u32>, candidates: usize) -> Result<Vec<u32>, String> {
    if positions.is_empty() {
        return Err("it names nobody; `pass` and `drop` are there for that".to_owned());
    }
    super::distinct(&positions, candidates)?;
    Ok(positions)
}
