//! The parts of the envelope that name what is elsewhere: attachments, headers, what a message belongs to.
//!
//! Must not know: what is done with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MessageError, at_most, check_line};
use crate::limits::{ATTACHMENTS_MAX, CORRELATION_CHARS_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, MEDIA_TYPE_CHARS_MAX, TITLE_CHARS_MAX};

/// What the names of the host's own headers start with: senders may not set them.
pub const RESERVED_HEADER_PREFIX: &str = "pointsman-";
/// Hex digits of either digest.
const DIGEST_DIGITS: usize = 64;

/// A file that a message names by its content. The host carries the reference, not the content: whoever needs that finds it by the
/// digest, in the repository, a store of artifacts or a document of the shared context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Its SHA-256, 64 lower-case hex digits; this or `blake3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Its BLAKE3, 64 lower-case hex digits; this or `sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// What to call it: one line.
    pub name: String,
    /// `text/plain`, `application/json`, …
    pub media_type: String,
    /// Its size.
    pub bytes: u64,
}

impl Attachment {
    fn check(&self) -> Result<(), MessageError> {
        let wrong = |why: &str| Err(MessageError::Malformed { field: "attachments", why: why.to_owned() });
        let digest = match (&self.sha256, &self.blake3) {
            (Some(digest), None) | (None, Some(digest)) => digest,
            (None, None) | (Some(_), Some(_)) => return wrong("each has one digest, `sha256` or `blake3`"),
        };
        if digest.len() != DIGEST_DIGITS || !digest.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit)) {
            return wrong("a digest has 64 lower-case hex digits");
        }
        if self.name.trim().is_empty() {
            return wrong("each has a `name`");
        }
        check_line("attachments", &self.name, TITLE_CHARS_MAX)?;
        check_line("attachments", &self.media_type, MEDIA_TYPE_CHARS_MAX)?;
        let essence = self.media_type.split(';').next().unwrap_or_default().trim_end();
        if !essence.split_once('/').is_some_and(|(kind, of)| is_token(kind) && is_token(of)) {
            return wrong("a media type is of the form `text/plain`");
        }
        Ok(())
    }
}

/// Returns whether a text is a token of HTTP (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Returns headers with their names in lower case.
///
/// # Errors
/// [`MessageError::Malformed`] when two differ in nothing else.
pub fn lower_headers(given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, MessageError> {
    let lowered: BTreeMap<String, String> = given.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    if lowered.len() < given.len() {
        return Err(MessageError::Malformed { field: "headers", why: "two names differ only in upper and lower case".to_owned() });
    }
    Ok(lowered)
}

pub(super) fn check_attachments(attachments: &[Attachment]) -> Result<(), MessageError> {
    at_most("attachments", attachments.len(), ATTACHMENTS_MAX, "entries")?;
    attachments.iter().try_for_each(Attachment::check)
}

pub(super) fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), MessageError> {
    at_most("headers", headers.len(), HEADERS_MAX, "entries")?;
    at_most("headers", headers.iter().map(|(name, value)| name.len() + value.len()).sum(), HEADERS_BYTES_MAX, "bytes")?;
    for (name, value) in headers {
        let wrong = |why: &str| {
            let name: String = name.chars().take(80).collect();
            Err(MessageError::Malformed { field: "headers", why: format!("`{}` {why}", name.escape_default()) })
        };
        if !is_token(name) || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return wrong("is no name: letters, digits, `-`, `_`, `.`");
        }
        if name.starts_with(RESERVED_HEADER_PREFIX) {
            return wrong("is the host's: take another prefix");
        }
        if value.chars().any(char::is_control) {
            return wrong("has a value with control characters");
        }
    }
    Ok(())
}

pub(super) fn check_correlation(correlation: Option<&str>) -> Result<(), MessageError> {
    match correlation {
        Some("") => Err(MessageError::Missing { field: "correlation" }),
        Some(id) => check_line("correlation", id, CORRELATION_CHARS_MAX),
        None => Ok(()),
    }
}
