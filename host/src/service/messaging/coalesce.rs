//! Many writes of one document are told as one: from the version before the first of them to the last. Pure.
//!
//! **Invariant:** the newest version of every document that was written is told; what lies between is counted, and can be read.

use std::collections::HashMap;
use std::sync::Arc;

use pointsman_core::event::Event;
use serde_json::{Value, json};

const WRITTEN: &str = "context.written";

/// Events on their way to one who waits, in the order of the log, a document's writes where the last of them stands.
#[derive(Default)]
pub(super) struct Coalesced {
    events: Vec<Option<Arc<Event>>>,
    /// Where the write of a document stands that is told.
    writes: HashMap<String, usize>,
    count: usize,
}

impl Coalesced {
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        self.count += 1;
        if event.event.kind != WRITTEN {
            // What happened to a document otherwise stays between the writes before and after it.
            self.writes.remove(&event.event.subject);
            self.events.push(Some(event));
            return;
        }
        let earlier = self.writes.insert(event.event.subject.clone(), self.events.len());
        let event = match earlier.and_then(|place| self.events[place].take()) {
            Some(earlier) => {
                self.count -= 1;
                Arc::new(joined(&earlier, &event))
            }
            None => event,
        };
        self.events.push(Some(event));
    }

    pub(super) fn into_events(self) -> Vec<Arc<Event>> {
        self.events.into_iter().flatten().collect()
    }
}

/// Returns the later of two writes of one document, standing for both.
fn joined(earlier: &Event, later: &Event) -> Event {
    let mut event = later.clone();
    let data = &mut event.event.data;
    let count = |event: &Event| event.event.data["writes"].as_u64().unwrap_or(1);
    let mut authors: Vec<Value> =
        earlier.event.data["authors"].as_array().cloned().unwrap_or_else(|| vec![json!(earlier.event.actor.name)]);
    if !authors.contains(&json!(later.event.actor.name)) {
        authors.push(json!(later.event.actor.name));
    }
    if let Value::Object(map) = data {
        // It leads from the last version but one.
        map.remove("patch");
        map.remove("from");
    }
    data["writes"] = (count(earlier) + 1).into();
    data["authors"] = authors.into();
    if let Some(from) = before(earlier) {
        data["since"] = from.into();
    }
    event
}

/// Returns the version before a write: what changed since it can be asked for.
fn before(event: &Event) -> Option<u64> {
    let data = &event.event.data;
    data["since"].as_u64().or_else(|| data["parents"][0].as_u64())
}

#[cfg(test)]
mod tests {
    use pointsman_core::event::{Actor, Cursor, NewEvent, Provenance};
    use pointsman_core::ids::ProjectId;
    use pointsman_core::time::TimeMs;

    use super::*;

    fn event(seq: u64, kind: &str, key: &str, version: u64, by: &str) -> Arc<Event> {
        let actor = Actor { principal: None, agent: None, name: by.to_owned(), provenance: Provenance::Agent };
        let parents: Vec<u64> = if version > 1 { vec![version - 1] } else { Vec::new() };
        let data = json!({"version": version, "parents": parents, "patch": [], "from": version.saturating_sub(1)});
        let event = NewEvent::new(kind, actor, format!("ctx:{key}"), data);
        Arc::new(Event { cursor: Cursor { epoch: 1, seq }, at: TimeMs(0), project: ProjectId::from_bytes([1; 16]), event })
    }

    #[test]
    fn writes_of_one_document_are_told_as_one() {
        let mut told = Coalesced::default();
        let all = [
            event(1, WRITTEN, "a", 4, "ana"),
            event(2, WRITTEN, "b", 1, "bo"),
            event(3, WRITTEN, "a", 5, "bo"),
            event(4, WRITTEN, "a", 6, "ana"),
            event(5, "context.deleted", "a", 7, "ana"),
            event(6, WRITTEN, "a", 8, "bo"),
        ];
        all.iter().for_each(|event| told.push(Arc::clone(event)));
        assert_eq!(told.len(), 4);
        let events = told.into_events();
        let shown: Vec<_> = events.iter().map(|event| (event.event.subject.as_str(), event.event.data["version"].as_u64())).collect();
        assert_eq!(shown, [("ctx:b", Some(1)), ("ctx:a", Some(6)), ("ctx:a", Some(7)), ("ctx:a", Some(8))]);
        let joined = &events[1].event.data;
        assert_eq!((&joined["since"], &joined["writes"], &joined["authors"]), (&json!(3), &json!(3), &json!(["ana", "bo"])));
        assert!(joined.get("patch").is_none() && joined.get("from").is_none());
        assert_eq!(events[3], all[5], "one alone is told as it is");
    }
}
