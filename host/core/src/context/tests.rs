use proptest::prelude::*;

use super::*;

fn head(version: u64, bytes: &[u8]) -> DocumentHead {
    DocumentHead::new("plan/api".parse().expect("a key"), version, TEXT, bytes, Actor::host(), TimeMs(0), Vec::new())
}

#[test]
fn what_was_deleted_is_begun_anew_or_missed() {
    let gone = DocumentHead { deleted: true, ..head(3, b"") };
    let decide = |base, bytes: &[u8]| decide_write(Some(&gone), base, TEXT, bytes);
    assert_eq!(decide(None, b"new"), WriteDecision::Apply { version: 4, parents: vec![3] });
    assert_eq!(decide(Some(3), b""), WriteDecision::Apply { version: 4, parents: vec![3] });
    assert_eq!(decide(Some(2), b"edit"), WriteDecision::Gone { newest: 3 });
}

#[test]
fn keys_are_hierarchical() {
    for good in ["plan", "plan/api", "a/b/c.d-e_f", "0"] {
        assert_eq!(good.parse::<DocumentKey>().expect(good).subject(), format!("ctx:{good}"));
    }
    let long = "a".repeat(DOCUMENT_KEY_BYTES_MAX + 1);
    for wrong in ["", "/", "/a", "a/", "a//b", "a/../b", "./a", ".git", "a b", "ä", long.as_str()] {
        assert!(wrong.parse::<DocumentKey>().is_err(), "{wrong}");
    }
}

#[test]
fn media_types_are_two_words() {
    for good in [JSON, TEXT, "application/ld+json", "text/plain"] {
        assert_eq!(check_media_type(good), Ok(()), "{good}");
    }
    for wrong in ["", "json", "text/", "/x", "a/b/c", "Text/Plain", "text/plain; charset=utf-8"] {
        assert!(check_media_type(wrong).is_err(), "{wrong}");
    }
    assert!(is_json("application/ld+json") && !is_json(TEXT));
}

#[test]
fn a_write_means_what_its_base_says() {
    let stored = head(3, b"three");
    let decide = |base, bytes: &[u8]| decide_write(Some(&stored), base, TEXT, bytes);
    assert_eq!(decide(Some(3), b"four"), WriteDecision::Apply { version: 4, parents: vec![3] });
    assert_eq!(decide(Some(2), b"four"), WriteDecision::Reconcile { base: Some(2), ours: 3 });
    assert_eq!(decide(None, b"four"), WriteDecision::Reconcile { base: None, ours: 3 });
    assert_eq!(decide(Some(0), b"four"), WriteDecision::Reconcile { base: None, ours: 3 });
    assert_eq!(decide(Some(1), b"three"), WriteDecision::Unchanged { version: 3 });
    assert_eq!(decide(Some(4), b"three"), WriteDecision::UnknownBase { newest: Some(3) });
    assert_eq!(decide_write(None, None, TEXT, b"one"), WriteDecision::Apply { version: 1, parents: Vec::new() });
    assert_eq!(decide_write(None, Some(1), TEXT, b"one"), WriteDecision::UnknownBase { newest: None });
    let large = vec![0; DOCUMENT_BYTES_MAX + 1];
    assert!(matches!(decide(Some(3), &large), WriteDecision::TooLarge { .. }));
    assert_eq!(decide_write(Some(&stored), Some(3), JSON, b"three"), WriteDecision::Apply { version: 4, parents: vec![3] });
}

proptest! {
    /// The oracle is the list of all contents ever applied.
    #[test]
    fn only_writes_from_the_newest_version_are_applied(writes in proptest::collection::vec((0u64..12, 0u8..4), 1..40)) {
        let mut contents: Vec<Vec<u8>> = Vec::new();
        for (base, content) in writes {
            let bytes = vec![content; 3];
            let newest = contents.len() as u64;
            let stored = contents.last().map(|last| head(newest, last));
            let same = contents.last() == Some(&bytes);
            match decide_write(stored.as_ref(), Some(base), TEXT, &bytes) {
                WriteDecision::Apply { version, parents } => {
                    prop_assert!(base == newest && !same && version == newest + 1);
                    prop_assert_eq!(parents, if newest == 0 { vec![] } else { vec![newest] });
                    contents.push(bytes);
                }
                WriteDecision::Unchanged { version } => prop_assert!(same && version == newest && base <= newest),
                WriteDecision::Reconcile { base: from, ours } => {
                    prop_assert!(base < newest && ours == newest && from == (base > 0).then_some(base) && !same);
                }
                WriteDecision::UnknownBase { newest: known } => {
                    prop_assert!(base > newest && known == (newest > 0).then_some(newest));
                }
                WriteDecision::TooLarge { .. } | WriteDecision::Gone { .. } => prop_assert!(false, "three bytes fit, and nothing is deleted"),
            }
        }
    }

    #[test]
    fn any_text_is_a_key_or_an_error(text in "\\PC{0,60}") {
        if let Ok(key) = text.parse::<DocumentKey>() {
            prop_assert_eq!(key.as_str(), text);
        }
    }
}
