use proptest::prelude::*;

use super::*;
use crate::limits::{ATTACHMENTS_MAX, COMPRESSED_MESSAGE_BYTES_MAX, CORRELATION_CHARS_MAX, HEADERS_BYTES_MAX, HEADERS_MAX};

fn attachment() -> Attachment {
    Attachment {
        sha256: Some("ab".repeat(32)),
        blake3: None,
        name: "build.log".to_owned(),
        media_type: "text/plain; charset=utf-8".to_owned(),
        bytes: 12,
    }
}

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
        correlation: Some("order-7".to_owned()),
        attachments: vec![attachment()],
        headers: BTreeMap::from([("x-build".to_owned(), "412".to_owned())]),
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
    let spoilt: [(&str, Spoil); 31] = [
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
        ("correlation", |m| m.correlation = Some(String::new())),
        ("correlation", |m| m.correlation = Some("two\nlines".to_owned())),
        ("correlation", |m| m.correlation = Some("c".repeat(CORRELATION_CHARS_MAX + 1))),
        ("attachments", |m| m.attachments = vec![attachment(); ATTACHMENTS_MAX + 1]),
        ("attachments", |m| m.attachments[0].sha256 = None),
        ("attachments", |m| m.attachments[0].blake3 = Some("cd".repeat(32))),
        ("attachments", |m| m.attachments[0].sha256 = Some("AB".repeat(32))),
        ("attachments", |m| m.attachments[0].sha256 = Some("ab".repeat(31))),
        ("attachments", |m| m.attachments[0].name = " ".to_owned()),
        ("attachments", |m| m.attachments[0].media_type = "text".to_owned()),
        ("attachments", |m| m.attachments[0].media_type = "text/a b".to_owned()),
        ("headers", |m| m.headers = BTreeMap::from([("X-Upper".to_owned(), String::new())])),
        ("headers", |m| m.headers = BTreeMap::from([("a b".to_owned(), String::new())])),
        ("headers", |m| m.headers = BTreeMap::from([("pointsman-trace".to_owned(), String::new())])),
        ("headers", |m| m.headers = BTreeMap::from([("x".to_owned(), "a\r\nb".to_owned())])),
        ("headers", |m| m.headers = BTreeMap::from([("x".to_owned(), "v".repeat(HEADERS_BYTES_MAX))])),
        ("headers", |m| m.headers = (0..=HEADERS_MAX).map(|n| (format!("x-{n}"), String::new())).collect()),
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

#[test]
fn header_names_are_kept_in_lower_case_and_once() {
    let given = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "v".to_owned())).collect::<BTreeMap<_, _>>();
    assert_eq!(lower_headers(&given(&["X-Build", "trace"])), Ok(given(&["x-build", "trace"])));
    assert_eq!(lower_headers(&given(&["X-Build", "x-build"])).expect_err("twice").field(), "headers");
}

#[test]
fn what_an_older_host_stored_is_read() {
    /// The message as version 1 knew it.
    #[derive(Serialize)]
    struct Old {
        id: MessageId,
        project: ProjectId,
        thread: ThreadId,
        kind: String,
        from: Actor,
        to: Vec<Address>,
        subject: String,
        body: Value,
        paths: Vec<String>,
        tags: Vec<String>,
        priority: u8,
        expires_at: Option<TimeMs>,
        ack_required: bool,
        reply_to: Option<MessageId>,
        causation: Option<String>,
        context: BTreeMap<String, Option<String>>,
        sent_at: TimeMs,
    }
    let Message { id, project, thread, kind, from, to, subject, body, paths, tags, priority, expires_at, ack_required, .. } = message();
    let context = BTreeMap::from([("branch".to_owned(), Some("task/7".to_owned())), ("head".to_owned(), None), ("task".to_owned(), None)]);
    let (reply_to, causation, sent_at) = (None, None, TimeMs(10));
    let old = Old {
        id,
        project,
        thread,
        kind,
        from,
        to,
        subject,
        body,
        paths,
        tags,
        priority,
        expires_at,
        ack_required,
        reply_to,
        causation,
        context,
        sent_at,
    };
    let mut stored = vec![1];
    rmp_serde::encode::write_named(&mut stored, &old).expect("it is written");
    let read = crate::value::decode::<Message>(&stored).expect("it is read");
    let context = SenderContext { branch: Some("task/7".to_owned()), ..SenderContext::default() };
    assert_eq!(read, Message { correlation: None, attachments: Vec::new(), headers: BTreeMap::new(), context, ..message() });
}

#[test]
fn long_bodies_are_stored_compressed_and_no_damage_expands() {
    let short = crate::value::encode(&message());
    assert_eq!(short[..2], [2, 0], "a short one is plain");
    let long = Message { body: Value::String("all work and no play ".repeat(2_000)), ..message() };
    let stored = crate::value::encode(&long);
    assert_eq!(stored[..2], [2, 1]);
    assert!(stored.len() * 20 < long.body_bytes(), "{} bytes", stored.len());
    assert_eq!(crate::value::decode::<Message>(&stored).expect("it reads back"), long);
    for claimed in [0, 1, 4 << 10, u32::MAX] {
        let mut damaged = stored.clone();
        damaged[2..6].copy_from_slice(&claimed.to_le_bytes());
        assert!(crate::value::decode::<Message>(&damaged).is_err(), "{claimed}");
    }
    // Says that it expands to more than it may; what it holds would.
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).expect("it is compressed");
    for claimed in [u32::try_from(COMPRESSED_MESSAGE_BYTES_MAX).expect("small"), 64 << 20] {
        let mut stored = vec![2, 1];
        stored.extend_from_slice(&claimed.to_le_bytes());
        stored.extend_from_slice(&bomb);
        assert!(crate::value::decode::<Message>(&stored).is_err());
    }
    for cut in [1, 2, 5, 6, stored.len() - 1] {
        assert!(crate::value::decode::<Message>(&stored[..cut]).is_err(), "{cut}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_address_or_an_error(text in "(agent:|topic:)?\\PC{0,80}") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }
    }

    #[test]
    fn stored_messages_read_back(subject in "\\PC{1,40}", body in "\\PC{0,200}", times in prop::sample::select(vec![1usize, 50, 1_000]), number in any::<i64>(), priority in 0u8..10) {
        let mut message = message();
        message.subject = subject;
        message.body = serde_json::json!({"text": body.repeat(times), "numbers": [number, 0.5, null]});
        message.priority = priority;
        let stored = crate::value::encode(&message);
        prop_assert_eq!(crate::value::decode::<Message>(&stored).expect("it was just written"), message);
    }
}
