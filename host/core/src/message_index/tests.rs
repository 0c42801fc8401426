use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ids::{AgentId, ProjectId, ThreadId};

fn message(n: u8, subject: &str, body: Value) -> Message {
    let at = TimeMs(1_000 + i64::from(n) / 3);
    let (name, tag) = (["Ana", "bo", "cy"][usize::from(n % 3)], ["ci/nightly", "ui"][usize::from(n % 2)]);
    let kind = if n.is_multiple_of(2) { "question" } else { "notice" };
    let written = json!({
        "id": MessageId::new(at, [n; 10]),
        "project": ProjectId::from_bytes([0; 16]),
        "thread": ThreadId::from_bytes([0; 16]),
        "kind": kind,
        "from": {"agent": AgentId::from_bytes([n % 3; 16]), "name": name, "provenance": "agent"},
        "to": ["agent:dee"],
        "subject": subject,
        "body": body,
        "paths": ["src/lexer/mod.rs"],
        "tags": [tag],
        "priority": 4,
        "ack_required": false,
        "context": {},
        "sent_at": at,
    });
    serde_json::from_value(written).expect("a message")
}

#[test]
fn words_are_folded_and_keep_their_accents() {
    let all: Vec<String> = words("Größe of parse_header(), 42× ÉTÉ — x").collect();
    assert_eq!(all, ["größe", "of", "parse", "header", "42", "été", "x"]);
    assert_eq!(words(&"a".repeat(200)).next().map(|word| word.len()), Some(WORD_CHARS_MAX));
}

#[test]
fn a_message_is_found_by_its_words_and_fields() {
    let mut index = MessageIndex::new(10, 1_000);
    let sent = message(0, "How is the Lexer meant?", json!({"why": ["it breaks", {"line": 42}]}));
    assert!(index.insert(&sent));
    let text = |text: &str| Search::default().with_words(text);
    let field = |field, value: &str| Search::default().with_field(field, &[value]);
    for found in [
        text("lexer how"),
        text("breaks why 42"),
        text(""),
        field(Field::From, "ANA"),
        field(Field::To, "agent:dee"),
        field(Field::To, "dee"),
        field(Field::Kind, "question"),
        field(Field::Tag, "ci/nightly"),
        field(Field::Path, "src/lexer/"),
        field(Field::Path, "src/lexer/mod.rs"),
        Search::default().with_field(Field::To, &["nobody", "dee"]),
        Search { since: Some(sent.sent_at), until: Some(sent.sent_at), ..text("lexer") },
    ] {
        assert_eq!(index.search(&found, 10), [sent.id], "{found:?}");
        assert!(found.matches(&sent), "{found:?}");
    }
    for other in [
        text("lexer parser"),
        text("lex"),
        field(Field::From, "bo"),
        field(Field::Path, "src/lex"),
        field(Field::Tag, "ci"),
        Search { since: Some(sent.sent_at + 1), ..text("lexer") },
        Search { before: Some(sent.id), ..text("lexer") },
    ] {
        assert!(index.search(&other, 10).is_empty(), "{other:?}");
        assert!(!other.matches(&sent), "{other:?}");
    }
}

#[test]
fn the_oldest_go_first_and_what_is_trimmed_stays_away() {
    let mut index = MessageIndex::new(3, 1_000);
    let all: Vec<Message> = (0..6).map(|n| message(n, "same", json!(null))).collect();
    for message in all.iter().rev() {
        index.insert(message);
    }
    assert_eq!((index.len(), index.floor()), (3, Some(all[2].id)));
    assert!(!index.insert(&all[0]), "it is older than there is room for");
    index.trim(all[3].id);
    assert_eq!(index.search(&Search::default(), 10), [all[5].id, all[4].id]);
    assert!(!index.insert(&all[3]));
    let mut narrow = MessageIndex::new(10, 5);
    assert!(narrow.insert(&all[0]), "one is kept, however many words it has");
    assert!(narrow.insert(&all[1]));
    assert_eq!(narrow.len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u8, Vec<u8>),
    Remove(u8),
    Trim(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0u8..40, proptest::collection::vec(0u8..6, 0..5)).prop_map(|(n, words)| Step::Insert(n, words)),
        1 => (0u8..40).prop_map(Step::Remove),
        1 => (0u8..12).prop_map(Step::Trim),
    ];
    proptest::collection::vec(step, 0..80)
}

fn said(words: &[u8]) -> String {
    words.iter().map(|word| format!("w{word} ")).collect()
}

proptest! {
    #[test]
    fn the_index_finds_what_a_scan_finds(
        schedule in steps(),
        messages_max in 1usize..30,
        asked in proptest::collection::vec(0u8..6, 0..3),
        from in proptest::option::of(0usize..3),
        since in proptest::option::of(0i64..15),
        until in proptest::option::of(0i64..15),
        before in proptest::option::of(0u8..40),
        limit in 0usize..20,
    ) {
        let mut index = MessageIndex::new(messages_max, 200);
        let mut naive: BTreeMap<MessageId, Message> = BTreeMap::new();
        for step in &schedule {
            match step {
                Step::Insert(n, words) => {
                    let message = message(*n, "subject", json!(said(words)));
                    let stays = index.insert(&message);
                    prop_assert_eq!(stays, index.floor().is_none_or(|floor| message.id > floor));
                    naive.insert(message.id, message);
                }
                Step::Remove(n) => {
                    let id = message(*n, "", json!(null)).id;
                    index.remove(id);
                    naive.remove(&id);
                }
                Step::Trim(n) => index.trim(message(*n, "", json!(null)).id),
            }
            let known = naive.keys().filter(|id| index.floor().is_none_or(|floor| **id > floor)).count();
            prop_assert_eq!(index.len(), known, "what is above the floor is in");
            prop_assert!(index.len() <= messages_max);
        }
        let mut search = Search {
            since: since.map(|ms| TimeMs(1_000 + ms)),
            until: until.map(|ms| TimeMs(1_000 + ms)),
            before: before.map(|n| message(n, "", json!(null)).id),
            ..Search::default().with_words(&said(&asked))
        };
        if let Some(from) = from {
            search = search.with_field(Field::From, &["nobody", ["ana", "bo", "cy"][from]]);
        }
        let is_covered = |id: &MessageId| index.floor().is_none_or(|floor| *id > floor);
        let expected: Vec<MessageId> = naive
            .values()
            .rev()
            .filter(|message| is_covered(&message.id) && search.matches(message))
            .map(|message| message.id)
            .take(limit)
            .collect();
        prop_assert_eq!(index.search(&search, limit), expected);
        naive.keys().for_each(|id| index.remove(*id));
        prop_assert!(index.is_empty() && index.terms.is_empty() && index.size == 0, "nothing is left behind");
    }
}
