//! Search over messages: which of them have all these words, fields and times. An inverted index of bounded size, newest first.
//!
//! Owns: what counts as a word, which terms a message has, who is found. Must not know: where messages stand, how the index is
//! filled.
//!
//! **Invariants:** of the messages above [`MessageIndex::floor`] that were put in, exactly those are found that
//! [`Search::matches`]; what is let go for want of room is always the oldest.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde_json::Value;

use crate::ids::MessageId;
use crate::message::{Address, Message};
use crate::time::TimeMs;

/// Characters by which words are told apart.
const WORD_CHARS_MAX: usize = 64;

/// A field that is searched as a whole, not by words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Who sent it: a name or id.
    From,
    /// For whom: an address, or what follows its `agent:` or `topic:`.
    To,
    /// Its kind.
    Kind,
    /// One of its tags.
    Tag,
    /// A path it speaks of, or a folder above one.
    Path,
}

impl Field {
    /// Returns the term of a value. Words have no colon.
    #[must_use]
    pub fn term(self, value: &str) -> String {
        let name = match self {
            Self::From => "from",
            Self::To => "to",
            Self::Kind => "kind",
            Self::Tag => "tag",
            Self::Path => "path",
        };
        format!("{name}:{}", folded(value.trim_matches('/')))
    }
}

fn folded(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Returns the words of a text: runs of letters and digits in lower case, their accents left.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    let runs = text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty());
    runs.map(|run| folded(run).chars().take(WORD_CHARS_MAX).collect())
}

/// Adds the words of every text in a JSON value, names of members too.
fn add_words(value: &Value, terms: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => terms.extend(words(text)),
        Value::Array(items) => items.iter().for_each(|item| add_words(item, terms)),
        Value::Object(members) => {
            for (name, member) in members {
                terms.extend(words(name));
                add_words(member, terms);
            }
        }
        Value::Number(number) => terms.extend(words(&number.to_string())),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Returns all terms a message is found by.
#[must_use]
pub fn terms(message: &Message) -> BTreeSet<String> {
    let mut terms: BTreeSet<String> = words(&message.subject).collect();
    add_words(&message.body, &mut terms);
    terms.insert(Field::Kind.term(&message.kind));
    terms.insert(Field::From.term(&message.from.name));
    terms.extend(message.from.agent.map(|agent| Field::From.term(&agent.to_string())));
    for address in &message.to {
        terms.insert(Field::To.term(&address.to_string()));
        match address {
            Address::Agent(name) | Address::Topic(name) => terms.extend([Field::To.term(name)]),
            Address::Capability(expr) => terms.extend(expr.names().into_iter().map(|name| Field::To.term(name))),
            Address::Everyone => {}
        }
    }
    terms.extend(message.tags.iter().map(|tag| Field::Tag.term(tag)));
    for path in &message.paths {
        let path = path.trim_matches('/');
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        terms.extend(ends.map(|end| Field::Path.term(&path[..end])));
    }
    terms
}

/// What is searched for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Of each of these at least one term must occur.
    pub all: Vec<Vec<String>>,
    /// Sent then or later.
    pub since: Option<TimeMs>,
    /// Sent then or before.
    pub until: Option<TimeMs>,
    /// Older than this one: where an earlier page ended.
    pub before: Option<MessageId>,
}

impl Search {
    /// Returns the search with every word of a text.
    #[must_use]
    pub fn with_words(mut self, text: &str) -> Self {
        self.all.extend(words(text).map(|word| vec![word]));
        self
    }

    /// Returns the search with a field that has one of these values.
    #[must_use]
    pub fn with_field(mut self, field: Field, values: &[&str]) -> Self {
        self.all.push(values.iter().map(|value| field.term(value)).collect());
        self
    }

    /// Returns the least id that may be found.
    #[must_use]
    pub fn first(&self) -> MessageId {
        self.since.map_or(MessageId::from_bytes([0; 16]), MessageId::first_at)
    }

    /// Returns the id that all that is found is below.
    #[must_use]
    pub fn end(&self) -> MessageId {
        let after = self.until.map(|until| MessageId::first_at(until + 1));
        [after, self.before].into_iter().flatten().min().unwrap_or(MessageId::from_bytes([u8::MAX; 16]))
    }

    /// Returns whether a message is one of those searched for: the index says the same, faster.
    #[must_use]
    pub fn matches(&self, message: &Message) -> bool {
        if message.id < self.first() || message.id >= self.end() {
            return false;
        }
        let terms = terms(message);
        self.all.iter().all(|group| group.iter().any(|term| terms.contains(term)))
    }
}

/// The messages with one term, the oldest first.
#[derive(Debug)]
struct Posting {
    term: Box<str>,
    messages: VecDeque<MessageId>,
}

/// The index.
#[derive(Debug)]
pub struct MessageIndex {
    messages_max: usize,
    postings_max: usize,
    /// The terms of each message, as places in `postings`.
    messages: BTreeMap<MessageId, Box<[u32]>>,
    terms: HashMap<Box<str>, u32>,
    postings: Vec<Option<Posting>>,
    free: Vec<u32>,
    /// Entries of all postings.
    size: usize,
    floor: Option<MessageId>,
}

impl MessageIndex {
    /// Returns an empty index for so many messages, with so many different words all together.
    #[must_use]
    pub fn new(messages_max: usize, postings_max: usize) -> Self {
        Self {
            messages_max,
            postings_max,
            messages: BTreeMap::new(),
            terms: HashMap::new(),
            postings: Vec::new(),
            free: Vec::new(),
            size: 0,
            floor: None,
        }
    }

    /// Returns the newest message that was let go for want of room; it and those before it are not found. None: all are.
    #[must_use]
    pub fn floor(&self) -> Option<MessageId> {
        self.floor
    }

    /// Returns how many messages it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Returns whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Puts a message in. Returns whether it stays: false where it is older than all there is room for.
    pub fn insert(&mut self, message: &Message) -> bool {
        let id = message.id;
        if self.floor.is_some_and(|floor| id <= floor) {
            return false;
        }
        self.remove(id);
        let terms: Vec<u32> = terms(message).into_iter().map(|term| self.place(term)).collect();
        for &place in &terms {
            let Some(posting) = self.postings.get_mut(place as usize).and_then(Option::as_mut) else { continue };
            // Mostly at one of the ends, where it costs nothing.
            let at = posting.messages.partition_point(|other| *other < id);
            posting.messages.insert(at, id);
        }
        self.size += terms.len();
        self.messages.insert(id, terms.into_boxed_slice());
        while self.messages.len() > self.messages_max || (self.size > self.postings_max && self.messages.len() > 1) {
            let Some((&oldest, _)) = self.messages.first_key_value() else { break };
            self.remove(oldest);
            self.floor = Some(oldest);
        }
        self.messages.contains_key(&id)
    }

    /// Takes a message out, if it is in.
    pub fn remove(&mut self, id: MessageId) {
        let Some(terms) = self.messages.remove(&id) else { return };
        self.size -= terms.len();
        for &place in &*terms {
            let Some(slot) = self.postings.get_mut(place as usize) else { continue };
            let Some(posting) = slot.as_mut() else { continue };
            if let Ok(at) = posting.messages.binary_search(&id) {
                posting.messages.remove(at);
            }
            if posting.messages.is_empty() {
                self.terms.remove(&posting.term);
                *slot = None;
                self.free.push(place);
            }
        }
    }

    /// Takes out everything up to a message that may no longer be there; it is not found here from now on.
    pub fn trim(&mut self, floor: MessageId) {
        while let Some((&oldest, _)) = self.messages.first_key_value().filter(|(oldest, _)| **oldest <= floor) {
            self.remove(oldest);
        }
        self.floor = self.floor.max(Some(floor));
    }

    /// Returns the messages above the floor that are searched for, the newest first, at most `limit`.
    #[must_use]
    pub fn search(&self, search: &Search, limit: usize) -> Vec<MessageId> {
        let (first, end) = (search.first(), search.end());
        if first >= end {
            return Vec::new();
        }
        let mut groups: Vec<Vec<&VecDeque<MessageId>>> = Vec::with_capacity(search.all.len());
        for group in &search.all {
            groups.push(group.iter().filter_map(|term| self.posting(term)).collect());
        }
        groups.sort_by_key(|group| group.iter().map(|posting| posting.len()).sum::<usize>());
        let Some((rarest, others)) = groups.split_first() else {
            return self.messages.range(first..end).rev().take(limit).map(|(id, _)| *id).collect();
        };
        let mut found: Vec<MessageId> = Vec::new();
        for posting in rarest {
            let window = posting.partition_point(|id| *id < first)..posting.partition_point(|id| *id < end);
            found.extend(posting.range(window));
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found.retain(|id| others.iter().all(|group| group.iter().any(|posting| posting.binary_search(id).is_ok())));
        found.truncate(limit);
        found
    }

    fn posting(&self, term: &str) -> Option<&VecDeque<MessageId>> {
        let place = *self.terms.get(term)?;
        self.postings.get(place as usize)?.as_ref().map(|posting| &posting.messages)
    }

    /// Returns the place of a term, a new one where it has none.
    fn place(&mut self, term: String) -> u32 {
        let term = term.into_boxed_str();
        if let Some(&place) = self.terms.get(&term) {
            return place;
        }
        let posting = Some(Posting { term: term.clone(), messages: VecDeque::new() });
        let place = match self.free.pop() {
            Some(place) => {
                self.postings[place as usize] = posting;
                place
            }
            None => {
                self.postings.push(posting);
                u32::try_from(self.postings.len() - 1).expect("postings are bounded far below")
            }
        };
        self.terms.insert(term, place);
        place
    }
}
