use proptest::prelude::*;

use super::*;

fn message() -> Message {
    Message {
        id: MessageId::from_bytes([1; 16]),
        project: ProjectId::from_bytes([2; 16]),
        thread: ThreadId::from_bytes([3; 16]),
        kind: "question".to_owned(),
        from: Actor::host(),
        to: vec![Address::Everyone],
        subject: "How is the lexer meant?".to_owned(),
        body: Value::String("See above.".to_owned()),
        paths: vec!["src/lexer.rs".to_owned()],
        tags: vec!["lexer".to_owned()],
        priority: PRIORITY_NORMAL,
        expires_at: None,
        ack_required: false,
        reply_to: None,
        causation: None,
        context: SenderContext::default(),
        sent_at: TimeMs(10),
    }
}

#[test]
fn addresses_have_four_forms() {
    for (text, expected) in [
        ("agent:ana", Address::Agent("ana".to_owned())),
        ("topic:ci/nightly", Address::Topic("ci/nightly".to_owned())),
        ("all", Address::Everyone),
        ("all(rust, review)", Address::Capability("all(rust, review)".parse().expect("an expression"))),
        ("rust@^1.80", Address::Capability("rust@^1.80".parse().expect("an expression"))),
    ] {
        assert_eq!(text.parse::<Address>(), Ok(expected.clone()), "{text}");
        assert_eq!(expected.to_string(), text);
    }
    for wrong in ["", "agent:", "agent: ana", "agent:-x", "topic:/x", "Everyone", "agent:a/b", "user:ana"] {
        assert!(wrong.parse::<Address>().is_err(), "{wrong}");
    }
}

#[test]
fn each_wrong_field_is_named() {
    type Spoil = fn(&mut Message);
    let spoilt: [(&str, Spoil); 14] = [
        ("kind", |m| m.kind = String::new()),
        ("kind", |m| m.kind = "a b".to_owned()),
        ("kind", |m| m.kind = "k".repeat(KIND_CHARS_MAX + 1)),
        ("to", |m| m.to = Vec::new()),
        ("to", |m| m.to = vec![Address::Everyone; RECIPIENTS_MAX + 1]),
        ("subject", |m| m.subject = " ".to_owned()),
        ("subject", |m| m.subject = "two\nlines".to_owned()),
        ("subject", |m| m.subject = "ä".repeat(TITLE_CHARS_MAX + 1)),
        ("body", |m| m.body = Value::String("x".repeat(MESSAGE_BODY_BYTES_MAX + 1))),
        ("paths", |m| m.paths = vec!["../etc".to_owned()]),
        ("paths", |m| m.paths = vec!["a".to_owned(); MESSAGE_PATHS_MAX + 1]),
        ("tags", |m| m.tags = vec!["a b".to_owned()]),
        ("priority", |m| m.priority = 10),
        ("expires_in_s", |m| m.expires_at = Some(TimeMs(10))),
    ];
    assert_eq!(message().check(), Ok(()));
    for (field, spoil) in spoilt {
        let mut message = message();
        spoil(&mut message);
        let error = message.check().expect_err(field);
        assert_eq!(error.field(), field);
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn limits_are_inclusive() {
    let mut message = message();
    message.subject = "ä".repeat(TITLE_CHARS_MAX);
    message.body = Value::String("x".repeat(MESSAGE_BODY_BYTES_MAX));
    message.kind = "k".repeat(KIND_CHARS_MAX);
    message.priority = PRIORITY_MAX;
    message.expires_at = Some(TimeMs(11));
    assert_eq!(message.check(), Ok(()));
}

proptest! {
    #[test]
    fn any_text_is_an_address_or_an_error(text in "(agent:|topic:)?\\PC{0,80}") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }
    }

    #[test]
    fn stored_messages_read_back(subject in "\\PC{1,40}", body in "\\PC{0,200}", number in any::<i64>(), priority in 0u8..10) {
        let mut message = message();
        message.subject = subject;
        message.body = serde_json::json!({"text": body, "numbers": [number, 0.5, null]});
        message.priority = priority;
        let stored = crate::value::encode(&message);
        prop_assert_eq!(crate::value::decode::<Message>(&stored).expect("it was just written"), message);
    }
}
