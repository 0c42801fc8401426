//! The world `router`: views over the parallel lists of the interface, and the trait an author implements.
//!
//! Nothing here copies a list or asks for a name: a view is two words, and a look at a candidate is an index.

use std::fmt;

pub use crate::bindings::router::exports::pointsman::router::routing::{Decision, Verdict};
pub use crate::bindings::router::pointsman::types::origin::Provenance;
use crate::setup::Plugin;
pub use crate::symbols::Symbol;

#[cfg(not(target_arch = "wasm32"))]
mod facts;
#[cfg(not(target_arch = "wasm32"))]
pub use facts::{CandidateFacts, MessageFacts, Question};

/// The records as they cross the boundary.
pub mod raw {
    pub use crate::bindings::router::exports::pointsman::router::routing::{Candidates, Message};
}

/// Decides which agents get a message.
pub trait Router: Plugin {
    /// Decides one message. Pure: the same question has the same answer.
    fn route(&self, message: &Message<'_>, candidates: &Candidates<'_>) -> Verdict;

    /// Decides one message from the records of the interface; lists of unequal length are passed on.
    fn route_raw(&self, message: &raw::Message, candidates: &raw::Candidates) -> Verdict {
        match Candidates::new(candidates) {
            Ok(candidates) => self.route(&Message::new(message), &candidates),
            Err(uneven) => Verdict::pass(uneven.to_string()),
        }
    }
}

impl Verdict {
    /// No opinion.
    #[must_use]
    pub fn pass(reason: impl Into<String>) -> Self {
        Self { decision: Decision::Pass, reason: reason.into() }
    }

    /// To the first of these that takes it; [`Decision::Pass`] when there is none.
    #[must_use]
    pub fn ranked(positions: Vec<u32>, reason: impl Into<String>) -> Self {
        if positions.is_empty() {
            return Self::pass(reason);
        }
        Self { decision: Decision::Ranked(positions), reason: reason.into() }
    }

    /// To every one of these; [`Decision::Pass`] when there is none.
    #[must_use]
    pub fn broadcast(positions: Vec<u32>, reason: impl Into<String>) -> Self {
        if positions.is_empty() {
            return Self::pass(reason);
        }
        Self { decision: Decision::Broadcast(positions), reason: reason.into() }
    }

    /// To nobody.
    #[must_use]
    pub fn drop(reason: impl Into<String>) -> Self {
        Self { decision: Decision::Drop, reason: reason.into() }
    }

    /// Ask again later.
    #[must_use]
    pub fn defer(delay_ms: u32, reason: impl Into<String>) -> Self {
        Self { decision: Decision::Defer(delay_ms), reason: reason.into() }
    }
}

/// The message in question.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a>(&'a raw::Message);

impl<'a> Message<'a> {
    /// Returns the view of a record.
    #[must_use]
    pub const fn new(raw: &'a raw::Message) -> Self {
        Self(raw)
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Symbol {
        Symbol::from_raw(self.0.kind)
    }

    /// The agent that sent it.
    #[must_use]
    pub const fn author(&self) -> Symbol {
        Symbol::from_raw(self.0.author)
    }

    /// What kind of author that is.
    #[must_use]
    pub const fn provenance(&self) -> Provenance {
        self.0.provenance
    }

    /// The principal that owns the sending agent.
    #[must_use]
    pub const fn owner(&self) -> Symbol {
        Symbol::from_raw(self.0.owner)
    }

    /// 0 (idle) to 9 (urgent).
    #[must_use]
    pub const fn priority(&self) -> u8 {
        self.0.priority
    }

    /// Bytes of the body.
    #[must_use]
    pub const fn size_bytes(&self) -> u32 {
        self.0.size_bytes
    }

    /// Deliveries tried and given back so far.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Milliseconds since it was sent.
    #[must_use]
    pub const fn age_ms(&self) -> u64 {
        self.0.age_ms
    }

    /// Repository paths it speaks of.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = Symbol> + use<'a> {
        self.0.paths.iter().copied().map(Symbol::from_raw)
    }

    /// Free labels.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = Symbol> + use<'a> {
        self.0.tags.iter().copied().map(Symbol::from_raw)
    }

    /// Names of the capabilities its address asks for.
    pub fn capabilities(&self) -> impl ExactSizeIterator<Item = Symbol> + use<'a> {
        self.0.capabilities.iter().copied().map(Symbol::from_raw)
    }
}

/// Those who could get the message. Checked once: all lists speak of the same candidates.
#[derive(Debug, Clone, Copy)]
pub struct Candidates<'a>(&'a raw::Candidates);

/// The lists of a question differ in length, which only a faulty host can bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uneven {
    candidates: usize,
}

impl fmt::Display for Uneven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lists of the {} candidates differ in length", self.candidates)
    }
}

impl std::error::Error for Uneven {}

impl<'a> Candidates<'a> {
    /// Returns the view of a record.
    ///
    /// # Errors
    /// The lists differ in length, or a range of teams or capabilities lies outside its list.
    pub fn new(raw: &'a raw::Candidates) -> Result<Self, Uneven> {
        let len = raw.agent.len();
        let lengths = [
            raw.owner.len(),
            raw.satisfies.len(),
            raw.load.len(),
            raw.open_reviews.len(),
            raw.idle_ms.len(),
            raw.acked.len(),
            raw.nacked.len(),
            raw.refused.len(),
            raw.team_start.len().wrapping_sub(1),
            raw.capability_start.len().wrapping_sub(1),
        ];
        if lengths.iter().all(|length| *length == len) { Ok(Self(raw)) } else { Err(Uneven { candidates: len }) }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.agent.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.agent.is_empty()
    }

    /// Returns the one at a position.
    #[must_use]
    pub fn get(&self, position: u32) -> Option<Candidate<'a>> {
        let index = usize::try_from(position).ok().filter(|index| *index < self.len())?;
        Some(Candidate { raw: self.0, index })
    }

    /// Returns them in the host's order.
    pub fn iter(&self) -> impl Iterator<Item = Candidate<'a>> + use<'a> {
        let raw = self.0;
        (0..raw.agent.len()).map(move |index| Candidate { raw, index })
    }
}

/// One who could get the message.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    raw: &'a raw::Candidates,
    index: usize,
}

// Called for every candidate of every message: a call each would be most of a router's time in a component, which
// is compiled for size.
impl<'a> Candidate<'a> {
    /// Its position, which is how a decision names it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a list of the interface has at most 2^32 - 1 entries")]
    #[inline(always)]
    pub const fn position(&self) -> u32 {
        self.index as u32
    }

    /// The agent.
    #[must_use]
    #[inline(always)]
    pub fn agent(&self) -> Symbol {
        Symbol::from_raw(self.raw.agent[self.index])
    }

    /// The principal that owns it.
    #[must_use]
    #[inline(always)]
    pub fn owner(&self) -> Symbol {
        Symbol::from_raw(self.raw.owner[self.index])
    }

    /// Whether it satisfies the address's capability expression, as judged by the host.
    #[must_use]
    #[inline(always)]
    pub fn satisfies(&self) -> bool {
        self.raw.satisfies[self.index] != 0
    }

    /// Deliveries waiting or leased.
    #[must_use]
    #[inline(always)]
    pub fn load(&self) -> u32 {
        self.raw.load[self.index]
    }

    /// Reviews it was asked for and has not given.
    #[must_use]
    #[inline(always)]
    pub fn open_reviews(&self) -> u32 {
        self.raw.open_reviews[self.index]
    }

    /// Milliseconds since its last call.
    #[must_use]
    #[inline(always)]
    pub fn idle_ms(&self) -> u64 {
        self.raw.idle_ms[self.index]
    }

    /// Deliveries it acknowledged.
    #[must_use]
    #[inline(always)]
    pub fn acked(&self) -> u32 {
        self.raw.acked[self.index]
    }

    /// Deliveries it gave back or let lapse.
    #[must_use]
    #[inline(always)]
    pub fn nacked(&self) -> u32 {
        self.raw.nacked[self.index]
    }

    /// Whether it gave this very message back before.
    #[must_use]
    #[inline(always)]
    pub fn refused(&self) -> bool {
        self.raw.refused[self.index] != 0
    }

    /// Its teams.
    #[inline(always)]
    pub fn teams(&self) -> impl Iterator<Item = Symbol> + use<'a> {
        part(&self.raw.team_start, &self.raw.teams, self.index)
    }

    /// The names of its capabilities.
    #[inline(always)]
    pub fn capabilities(&self) -> impl Iterator<Item = Symbol> + use<'a> {
        part(&self.raw.capability_start, &self.raw.capabilities, self.index)
    }
}

/// Returns the part of a shared list that belongs to one candidate; nothing where the range is not one.
fn part<'a>(starts: &[u32], values: &'a [u32], index: usize) -> impl Iterator<Item = Symbol> + use<'a> {
    let bound = |at: usize| starts.get(at).map_or(0, |start| *start as usize);
    let range = bound(index)..bound(index + 1);
    values.get(range).unwrap_or_default().iter().copied().map(Symbol::from_raw)
}

/// Up to so many rankings are kept sorted as they grow; beyond, sorting once is cheaper.
const KEPT_SORTED_MAX: usize = 64;

/// The cheapest of the candidates that were added. Equal costs keep the host's order.
#[derive(Debug, Clone)]
pub struct Ranking {
    /// The cost above, the position below: one number to compare.
    keys: Vec<u64>,
    count_max: usize,
    added: usize,
}

impl Ranking {
    /// Returns an empty ranking of at most so many.
    #[must_use]
    pub fn best_of(count_max: usize) -> Self {
        Self { keys: Vec::with_capacity(count_max.min(KEPT_SORTED_MAX)), count_max, added: 0 }
    }

    /// Adds a candidate.
    #[inline]
    pub fn add(&mut self, candidate: &Candidate<'_>, cost: u32) {
        let key = (u64::from(cost) << 32) | u64::from(candidate.position());
        self.added += 1;
        if self.count_max > KEPT_SORTED_MAX {
            self.keys.push(key);
            return;
        }
        if self.keys.len() == self.count_max {
            if self.keys.last().is_none_or(|last| key >= *last) {
                return;
            }
            self.keys.pop();
        }
        let at = self.keys.partition_point(|other| *other < key);
        self.keys.insert(at, key);
    }

    /// How many were added, kept or not.
    #[must_use]
    pub const fn added(&self) -> usize {
        self.added
    }

    /// Whether none was added.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added == 0
    }

    /// Returns the positions, the cheapest first.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half of a key is the position")]
    pub fn positions(mut self) -> Vec<u32> {
        if self.count_max > KEPT_SORTED_MAX {
            self.keys.sort_unstable();
            self.keys.truncate(self.count_max);
        }
        self.keys.into_iter().map(|key| key as u32).collect()
    }
}

/// Exports a [`Router`] as the world `router`.
#[macro_export]
macro_rules! export_router {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the export glue of the component")]
        const _: () = {
            $crate::__setup!($plugin);
            impl $crate::bindings::router::exports::pointsman::router::routing::Guest for Glue {
                fn route(message: $crate::router::raw::Message, candidates: $crate::router::raw::Candidates) -> $crate::router::Verdict {
                    SLOT.with(|slot| $crate::router::Router::route_raw(slot.plugin(), &message, &candidates))
                }
            }
    $crate::bindings::router::export!(Glue with_types_in $crate::bindings::router);
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Question {
        Question::new(
            &MessageFacts { author: "ana", ..MessageFacts::default() },
            &[
                CandidateFacts { agent: "ana", teams: &["core", "docs"], ..CandidateFacts::default() },
                CandidateFacts { agent: "bob", load: 3, capabilities: &["rust"], ..CandidateFacts::default() },
                CandidateFacts { agent: "cleo", load: 1, teams: &["docs"], ..CandidateFacts::default() },
            ],
        )
    }

    #[test]
    fn views_read_the_parallel_lists() {
        let question = three();
        let candidates = Candidates::new(&question.candidates).expect("even");
        let names: Vec<_> = candidates.iter().map(|one| one.agent().name()).collect();
        assert_eq!(names, ["ana", "bob", "cleo"]);
        let teams: Vec<Vec<_>> = candidates.iter().map(|one| one.teams().map(Symbol::name).collect()).collect();
        assert_eq!(teams, [vec!["core", "docs"], vec![], vec!["docs"]]);
        let rust = Symbol::intern("rust").expect("short");
        let able: Vec<_> = candidates.iter().map(|one| one.capabilities().any(|name| name == rust)).collect();
        assert_eq!(able, [false, true, false]);
    }

    #[test]
    fn uneven_lists_are_refused() {
        let mut question = three();
        question.candidates.load.pop();
        assert!(Candidates::new(&question.candidates).is_err());
        let mut question = three();
        question.candidates.team_start.clear();
        assert!(Candidates::new(&question.candidates).is_err());
    }

    #[test]
    fn ranking_is_cheapest_first_and_stable() {
        let question = three();
        let candidates = Candidates::new(&question.candidates).expect("even");
        let rank = |costs: [u32; 3], max: usize| {
            let mut ranking = Ranking::best_of(max);
            for (one, cost) in candidates.iter().zip(costs) {
                ranking.add(&one, cost);
            }
            assert_eq!((ranking.added(), ranking.is_empty()), (3, false));
            ranking.positions()
        };
        assert_eq!(rank([5, 1, 3], 9), [1, 2, 0]);
        assert_eq!(rank([5, 1, 3], 2), [1, 2]);
        assert_eq!(rank([7, 7, 7], 3), [0, 1, 2]);
        assert_eq!(rank([9, 7, 8], 1), [1]);
        assert_eq!(rank([9, 7, 8], KEPT_SORTED_MAX + 1), [1, 2, 0]);
        assert_eq!(rank([7, 7, 7], 0), [] as [u32; 0]);
    }
}
