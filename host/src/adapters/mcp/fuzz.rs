//! What a fuzzer calls: any bytes, where a client's bytes are read. Each target panics when a promise is broken.
//!
//! Not an interface: for the tests, and for whoever lets a fuzzer run longer than they do.

use std::collections::BTreeMap;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use pointsman_core::event::Cursor;
use serde_json::Value;
use serde_json::value::RawValue;

use super::envelope::{self, Message};
use super::errors::{Era, Fault};
use super::stream::{EventId, event, event_with_id};
use super::{era_of, headers};
use crate::ports::endpoint::{Field, Fields};
use crate::ports::offering::{Listing, ParamHeader};

/// What no refusal may repeat.
pub const SECRET: &str = "pmt_secret2of3ana4never5shown";

fn checked(fault: &Fault, id: Option<&RawValue>) {
    for era in [Era::Modern, Era::Legacy] {
        let body: Value = serde_json::from_slice(&fault.body(id, era)).expect("an error is JSON");
        assert!(body["error"]["code"].is_i64() && body["error"]["data"].is_object(), "{body}");
        let status = fault.reply(id, era).status;
        assert!((200..600).contains(&status), "{status}");
    }
}

/// A body: what is taken for a message is one, and says what any other reader of JSON finds in it.
pub fn envelope(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if envelope::is_batch(text) {
        match envelope::batch(text) {
            Ok(members) => members.into_iter().for_each(|member| message(member.get())),
            Err(fault) => checked(&fault, None),
        }
    }
    message(text);
}

fn message(text: &str) {
    let read = match envelope::message(text) {
        Ok(read) => read,
        Err(malformed) => return checked(&malformed.fault, malformed.id),
    };
    // Numbers of any size are JSON, and are left to whoever reads the parameters.
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).expect("a message is an object");
    let word = |name: &str| members.get(name).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    assert_eq!(word("jsonrpc").as_deref(), Some("2.0"));
    let (method, params) = match read {
        Message::Request { id, method, params } => {
            assert_eq!(members["id"].get(), id.get());
            (method, params)
        }
        Message::Notification { method, params } => (method, params),
        Message::Response { .. } => return assert!(word("method").is_none()),
    };
    assert_eq!(word("method").as_deref(), Some(&*method));
    match envelope::params(params).and_then(|params| params.meta().map(|_| ())) {
        Ok(()) => {}
        Err(fault) => checked(&fault, None),
    }
}

struct Lines<'a>(Vec<(&'a str, &'a [u8])>);

impl Fields for Lines<'_> {
    fn field(&self, name: &str) -> Field<'_> {
        let mut found = self.0.iter().filter(|(known, _)| *known == name).map(|(_, value)| *value);
        match (found.next(), found.next()) {
            (None, _) => Field::Absent,
            (Some(value), None) => Field::One(value),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }
}

/// Header fields, `name: value` a line: each is taken or refused, and no refusal repeats a credential.
pub fn headers(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((std::str::from_utf8(&line[..colon]).ok()?, line[colon + 1..].trim_ascii()))
    });
    let fields = Lines(lines.collect());
    let arguments = RawValue::from_string(r#"{"tone":"wörm","n":{"m":7}}"#.to_owned()).expect("JSON");
    let mirrored =
        |header: &str, path: &[&str]| ParamHeader { header: header.to_owned(), path: path.iter().map(|name| (*name).to_owned()).collect() };
    let tone = [mirrored("mcp-param-tone", &["tone"]), mirrored("mcp-param-m", &["n", "m"])];
    let all = [
        headers::check_media(&fields),
        headers::bearer(&fields).map(|_| ()),
        headers::required(&fields, headers::PROTOCOL_VERSION, "MCP-Protocol-Version").map(|_| ()),
        headers::mirrors(&fields, headers::METHOD, "Mcp-Method", "tools/call"),
        headers::mirrors_name(&fields, "grüßen"),
        headers::mirrors_arguments(&fields, &tone, &arguments),
    ];
    for fault in all.into_iter().filter_map(Result::err) {
        checked(&fault, None);
        let is_credential = matches!(fault, Fault::CredentialUnreadable { .. });
        assert!(!is_credential || !fault.to_string().contains(SECRET), "{fault}");
    }
    let _ = (headers::takes_events(&fields), era_of(&fields, None));
}

/// An event's text, and what a server may send: one event is one event, whatever stands in it.
pub fn events(bytes: &[u8]) {
    pointsman_client::fuzz_events(bytes);
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()) else { return };
    let id = EventId { stream: 1, number: 2, request: "".into() };
    for written in [event(bytes), event_with_id(&id, bytes)] {
        let read = pointsman_client::events_of(&written).expect("our own events are well-formed");
        assert_eq!(read, [text.replace(['\n', '\r'], " ")]);
    }
}

/// What a client brings back: cursors of lists and logs, ids of events.
pub fn cursors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = Cursor::from_str(text) {
        assert_eq!(Cursor::from_str(&cursor.to_string()), Ok(cursor));
    }
    if let Some(id) = EventId::parse(text) {
        assert_eq!(EventId::parse(&id.to_string()), Some(id.clone()));
        if let Some(request) = id.request_id() {
            assert_eq!(
                EventId { request: EventId::naming(&request), ..id.clone() }.request_id().map(|id| id.get().to_owned()),
                Some(request.get().to_owned())
            );
        }
    }
    let listing = Listing::new([("a", r#"{"name":"a"}"#), ("b", r#"{"name":"b"}"#), ("c", r#"{"name":"c"}"#)]);
    for after in [Some(text.to_owned()), BASE64URL_NOPAD.decode(bytes).ok().and_then(|name| String::from_utf8(name).ok())] {
        if let Some((page, next)) = listing.page(after.as_deref(), 2) {
            assert!(serde_json::from_str::<Vec<Value>>(&page).is_ok_and(|page| page.len() <= 2), "{page}");
            assert!(next.is_none_or(|next| ["a", "b", "c"].contains(&next)));
        }
    }
}
