//! What the header fields of an MCP request say: media types, the credential, mirrored body fields.
//!
//! Must not know sessions or methods. **Invariant:** a credential is never echoed.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde_json::Value;
use serde_json::value::RawValue;

use super::errors::{Fault, cut};
use crate::ports::endpoint::{Field, Fields};
use crate::ports::offering::ParamHeader;

/// The revision of the request.
pub(super) const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// A legacy session.
pub(super) const SESSION_ID: &str = "mcp-session-id";
/// Mirrors `method`.
pub(super) const METHOD: &str = "mcp-method";
/// Mirrors `params.name`, `params.uri` or `params.taskId`.
pub(super) const NAME: &str = "mcp-name";
/// The last event of a stream that a session's client saw.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";

/// Returns the value when it is one of visible ASCII, spaces and tabs (RFC 9110, section 5.5).
pub(super) fn plain(value: &[u8]) -> Option<&str> {
    if value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e)) { std::str::from_utf8(value).ok() } else { None }
}

/// Checks that the body is announced as JSON and that JSON may be answered.
///
/// # Errors
/// `UnsupportedMediaType`, `NotAcceptable`.
pub(super) fn check_media(fields: &dyn Fields) -> Result<(), Fault> {
    let Field::One(value) = fields.field("content-type") else { return Err(Fault::UnsupportedMediaType) };
    let mut parts = plain(value).ok_or(Fault::UnsupportedMediaType)?.split(';');
    let json = parts.next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"));
    let utf8 = parts.all(|parameter| match parameter.trim().split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8"),
        Some(_) | None => true,
    });
    if !json || !utf8 {
        return Err(Fault::UnsupportedMediaType);
    }
    match fields.field("accept") {
        // Several `Accept` lines are one list (RFC 9110, section 5.3); whoever writes them takes what comes.
        Field::Absent | Field::Repeated => Ok(()),
        Field::One(value) => {
            let text = plain(value).ok_or(Fault::NotAcceptable)?;
            let json = text.split(',').any(|range| {
                let media = range.split(';').next().unwrap_or_default().trim();
                ["application/json", "application/*", "*/*"].iter().any(|taken| media.eq_ignore_ascii_case(taken))
            });
            if json { Ok(()) } else { Err(Fault::NotAcceptable) }
        }
    }
}

/// Returns the bearer token, none when no `Authorization` header came.
///
/// # Errors
/// `CredentialUnreadable`, naming the mistake in the client's configuration.
pub(super) fn bearer(fields: &dyn Fields) -> Result<Option<&str>, Fault> {
    let unreadable = |why: &str| Fault::CredentialUnreadable { why: why.to_owned() };
    let value = match fields.field("authorization") {
        Field::Absent => return Ok(None),
        Field::Repeated => return Err(unreadable("there are several `Authorization` headers")),
        Field::One(value) => plain(value).ok_or_else(|| unreadable("the `Authorization` header is not plain ASCII"))?.trim(),
    };
    if value.contains("${") || value.contains("{env:") || value.contains("$env:") {
        return Err(unreadable(
            "the `Authorization` header holds the name of an environment variable instead of its value: the client did not replace `${VAR}`",
        ));
    }
    let (scheme, token) = value.split_once([' ', '\t']).unwrap_or((value, ""));
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return match token {
            "" => Err(unreadable("nothing follows `Bearer`: the environment variable for the token is unset or empty")),
            token if token.contains([' ', '\t']) => Err(unreadable("more than one word follows `Bearer`")),
            token if token.contains(['"', '\'', '<', '>']) => Err(unreadable("the token is still in quotes or angle brackets")),
            token => Ok(Some(token)),
        };
    }
    Err(unreadable(match (scheme, token) {
        ("", _) => "the `Authorization` header is empty",
        (_, "") => "the `Authorization` header has a single word: `Bearer ` is missing before the token",
        _ if scheme.eq_ignore_ascii_case("basic") => "the `Authorization` header is `Basic`, which is for git; agents send `Bearer`",
        _ => "the `Authorization` header does not start with `Bearer `",
    }))
}

/// Checks that a header mirrors a value of the body.
///
/// # Errors
/// `HeaderMissing`, `HeaderMalformed`, `HeaderMismatch`.
pub(super) fn mirrors(fields: &dyn Fields, header: &str, shown: &'static str, body: &str) -> Result<(), Fault> {
    let value = required(fields, header, shown)?;
    if value == body { Ok(()) } else { Err(Fault::HeaderMismatch { name: shown, header: cut(value), body: cut(body) }) }
}

/// Checks `Mcp-Name`, which may be encoded.
///
/// # Errors
/// `HeaderMissing`, `HeaderMalformed`, `HeaderMismatch`.
pub(super) fn mirrors_name(fields: &dyn Fields, body: &str) -> Result<(), Fault> {
    const SHOWN: &str = "Mcp-Name";
    let value =
        decoded(required(fields, NAME, SHOWN)?).ok_or(Fault::HeaderMalformed { name: SHOWN, why: "is not valid base64 of UTF-8" })?;
    if value == body { Ok(()) } else { Err(Fault::HeaderMismatch { name: SHOWN, header: cut(&value), body: cut(body) }) }
}

/// Checks that headers mirror a tool's arguments (streamable HTTP, server behaviour for custom headers).
///
/// # Errors
/// `HeaderMissing`, `HeaderMalformed`, `HeaderMismatch`.
pub(super) fn mirrors_arguments(fields: &dyn Fields, headers: &[ParamHeader], arguments: &RawValue) -> Result<(), Fault> {
    if headers.is_empty() {
        return Ok(());
    }
    let arguments: Value = serde_json::from_str(arguments.get()).unwrap_or_default();
    for mirrored in headers {
        let value = mirrored.path.iter().try_fold(&arguments, |at, name| at.get(name)).filter(|value| !value.is_null());
        let shown = || mirrored.header.clone();
        let sent = match (fields.field(&mirrored.header), value) {
            (Field::Absent, None) => continue,
            (Field::Absent, Some(_)) => return Err(Fault::ParamHeader { name: shown(), why: "is missing" }),
            (Field::Repeated, _) => return Err(Fault::ParamHeader { name: shown(), why: "is there more than once" }),
            (Field::One(sent), _) => {
                plain(sent).and_then(decoded).ok_or(Fault::ParamHeader { name: shown(), why: "has invalid characters" })?
            }
        };
        if !value.is_some_and(|value| says(value, &sent)) {
            return Err(Fault::ParamHeader { name: shown(), why: "does not match the body" });
        }
    }
    Ok(())
}

/// Returns whether a header says what an argument is; numbers are compared as numbers.
fn says(value: &Value, sent: &str) -> bool {
    match value {
        Value::String(text) => text == sent,
        Value::Bool(flag) => sent == if *flag { "true" } else { "false" },
        Value::Number(number) => match (number.as_i64(), sent.trim().parse::<i64>()) {
            (Some(number), Ok(sent)) => number == sent,
            _ => number.as_f64().zip(sent.trim().parse().ok()).is_some_and(|(number, sent): (f64, f64)| number == sent),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Returns whether the client takes server-sent events.
pub(super) fn takes_events(fields: &dyn Fields) -> bool {
    match fields.field("accept") {
        Field::Absent => false,
        Field::Repeated => true,
        Field::One(value) => plain(value).is_some_and(|text| {
            text.split(',').any(|range| {
                let media = range.split(';').next().unwrap_or_default().trim();
                ["text/event-stream", "text/*", "*/*"].iter().any(|taken| media.eq_ignore_ascii_case(taken))
            })
        }),
    }
}

/// Returns a header that must be there.
///
/// # Errors
/// `HeaderMissing`, `HeaderMalformed`.
pub(super) fn required<'a>(fields: &'a dyn Fields, header: &str, shown: &'static str) -> Result<&'a str, Fault> {
    match fields.field(header) {
        Field::Absent => Err(Fault::HeaderMissing { name: shown }),
        Field::Repeated => Err(Fault::HeaderMalformed { name: shown, why: "is there more than once" }),
        Field::One(value) => plain(value).ok_or(Fault::HeaderMalformed { name: shown, why: "has invalid characters" }),
    }
}

/// Returns a header value decoded from `=?base64?…?=` (streamable HTTP, value encoding), or as it is.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    let Some(digits) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Some(Cow::Borrowed(value));
    };
    String::from_utf8(BASE64.decode(digits.as_bytes()).ok()?).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(&'static str, Vec<u8>);

    impl Fields for One {
        fn field(&self, name: &str) -> Field<'_> {
            if name == self.0 { Field::One(&self.1) } else { Field::Absent }
        }
    }

    fn authorization(value: &str) -> One {
        One("authorization", value.as_bytes().to_vec())
    }

    #[test]
    fn bearer_tokens_are_found_and_mistakes_are_named() {
        assert_eq!(bearer(&One("x", vec![])), Ok(None));
        for good in ["Bearer abc", "bearer   abc", "BEARER\tabc"] {
            assert_eq!(bearer(&authorization(good)), Ok(Some("abc")), "{good}");
        }
        for (wrong, hint) in [
            ("", "empty"),
            ("abc", "`Bearer ` is missing"),
            ("Bearer", "unset or empty"),
            ("Bearer ${TOKEN}", "environment variable"),
            ("${TOKEN}", "environment variable"),
            ("Bearer {env:TOKEN}", "environment variable"),
            ("Bearer Bearer abc", "more than one word"),
            ("Bearer \"abc\"", "quotes"),
            ("Basic dTpw", "for git"),
            ("Token abc", "does not start with"),
            ("Bearer \u{e4}", "ASCII"),
        ] {
            let fault = bearer(&authorization(wrong)).expect_err(wrong).to_string();
            assert!(fault.contains(hint), "{wrong}: {fault}");
            assert!(!fault.contains("abc"), "{wrong} leaks: {fault}");
        }
    }

    #[test]
    fn names_are_decoded_before_they_are_compared() {
        let name = |value: &str| One(NAME, value.as_bytes().to_vec());
        assert_eq!(mirrors_name(&name("put"), "put"), Ok(()));
        assert_eq!(mirrors_name(&name("=?base64?SGVsbG8sIOS4lueVjA==?="), "Hello, 世界"), Ok(()));
        assert_eq!(mirrors_name(&name("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="), "=?base64?literal?="), Ok(()));
        assert!(matches!(mirrors_name(&name("Put"), "put"), Err(Fault::HeaderMismatch { .. })));
        assert!(matches!(mirrors_name(&name("=?base64?%%%?="), "put"), Err(Fault::HeaderMalformed { .. })));
        assert!(matches!(mirrors_name(&name("p\u{7f}t"), "put"), Err(Fault::HeaderMalformed { .. })));
        assert!(matches!(mirrors_name(&One("x", vec![]), "put"), Err(Fault::HeaderMissing { .. })));
    }

    #[test]
    fn media_types_are_checked() {
        let content = |value: &str| check_media(&One("content-type", value.as_bytes().to_vec()));
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=\"UTF-8\""] {
            assert_eq!(content(good), Ok(()), "{good}");
        }
        for wrong in ["text/plain", "application/jsonp", "application/json; charset=latin1", "", "multipart/form-data"] {
            assert_eq!(content(wrong), Err(Fault::UnsupportedMediaType), "{wrong}");
        }
    }
}
