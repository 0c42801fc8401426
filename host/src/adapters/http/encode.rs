//! Compression on the wire: bodies that come with `Content-Encoding`, answers to clients that take one (RFC 9110, section 8.4 and
//! 12.5.3).
//!
//! **Invariants:** nothing expands to more than a body may have; what is small, or comes piece by piece, goes as it is.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use hyper::{Response, StatusCode};

use super::body::ReplyBody;
use crate::ports::endpoint::BodyError;

/// Bytes of an answer from which it is compressed.
const COMPRESSED_BYTES_MIN: usize = 4 << 10;
/// Bytes that are compressed on a thread that serves others, too.
const AT_ONCE_BYTES_MAX: usize = 128 << 10;
/// Fast, and within a few percent of what slower ones save on JSON.
const ZSTD_LEVEL: i32 = 1;
/// The window that a sender may ask for: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A compression that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// How a body comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// As it is.
    Plain,
    /// Compressed.
    As(Coding),
    /// In a way that is not spoken here, or in several.
    Unknown,
}

impl Coding {
    fn named(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"zstd") {
            Some(Self::Zstd)
        } else if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            Some(Self::Gzip)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Returns a body as it was before it was compressed.
    ///
    /// # Errors
    /// `TooLarge`, `Damaged`.
    pub(super) fn expand(self, body: &[u8], bytes_max: usize) -> Result<Bytes, BodyError> {
        let mut out = Vec::new();
        self.read(body, bytes_max as u64 + 1, &mut out).map_err(|_| BodyError::Damaged)?;
        if out.len() > bytes_max { Err(BodyError::TooLarge { limit_bytes: bytes_max }) } else { Ok(out.into()) }
    }

    fn read(self, body: &[u8], bytes_max: u64, out: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Gzip => MultiGzDecoder::new(body).take(bytes_max).read_to_end(out),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                decoder.take(bytes_max).read_to_end(out)
            }
        }
    }

    fn compress(self, plain: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::Zstd => zstd::bulk::compress(plain, ZSTD_LEVEL),
        }
    }
}

/// Returns how a request's body comes.
pub(super) fn sent(headers: &HeaderMap) -> Sent {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    match (values.next().map(HeaderValue::as_bytes), values.next()) {
        (None, _) => Sent::Plain,
        (Some(name), None) if name.eq_ignore_ascii_case(b"identity") => Sent::Plain,
        (Some(name), None) => Coding::named(name).map_or(Sent::Unknown, Sent::As),
        (Some(_), Some(_)) => Sent::Unknown,
    }
}

/// Returns the best compression that a client takes; none: it named none.
pub(super) fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let named = headers.get_all(ACCEPT_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut best = None;
    for entry in named {
        let mut parts = entry.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        if parts.any(is_refusal) {
            continue;
        }
        match Coding::named(name) {
            Some(Coding::Zstd) => return Some(Coding::Zstd),
            Some(Coding::Gzip) => best = Some(Coding::Gzip),
            None => {}
        }
    }
    best
}

/// Returns whether a parameter is a weight of zero.
fn is_refusal(parameter: &[u8]) -> bool {
    let weight = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="));
    weight.is_some_and(|weight| weight.first() == Some(&b'0') && weight.iter().all(|digit| matches!(digit, b'0' | b'.')))
}

/// Compresses an answer that is worth it, for a client that takes it.
pub(super) async fn compress(response: &mut Response<ReplyBody>, accepted: Option<Coding>) {
    let ReplyBody::Whole(plain) = response.body() else { return };
    // A part is one of the plain whole.
    if response.status() == StatusCode::PARTIAL_CONTENT
        || plain.len() < COMPRESSED_BYTES_MIN
        || response.headers().contains_key(CONTENT_ENCODING)
        || !is_text(response.headers())
    {
        return;
    }
    let plain = plain.clone();
    // Whoever keeps answers is told, whichever one this is.
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    let Some(coding) = accepted else { return };
    let compressed = if plain.len() <= AT_ONCE_BYTES_MAX {
        coding.compress(&plain)
    } else {
        let plain = plain.clone();
        tokio::task::spawn_blocking(move || coding.compress(&plain)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    };
    match compressed {
        Ok(compressed) if compressed.len() < plain.len() => {
            *response.body_mut() = ReplyBody::full(compressed.into());
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "an answer could not be compressed"),
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    [b"application/json".as_slice(), b"application/problem+json", b"text/"].iter().any(|start| content_type.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: hyper::header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_str(value).expect("a header"));
        }
        headers
    }

    #[test]
    fn what_a_client_takes_is_found() {
        for (values, expected) in [
            (&[][..], None),
            (&["identity"][..], None),
            (&["gzip, deflate, br"][..], Some(Coding::Gzip)),
            (&["gzip, deflate, br, zstd"][..], Some(Coding::Zstd)),
            (&["gzip", "ZSTD;q=0.5"][..], Some(Coding::Zstd)),
            (&["zstd;q=0, gzip; q=0.1"][..], Some(Coding::Gzip)),
            (&["zstd;q=0.000,gzip;q=0"][..], None),
            (&["*, ,;q=1"][..], None),
        ] {
            assert_eq!(accepted(&fields(ACCEPT_ENCODING, values)), expected, "{values:?}");
        }
    }

    #[test]
    fn how_a_body_comes_is_found() {
        for (values, expected) in [
            (&[][..], Sent::Plain),
            (&["identity"][..], Sent::Plain),
            (&["zstd"][..], Sent::As(Coding::Zstd)),
            (&["X-Gzip"][..], Sent::As(Coding::Gzip)),
            (&["br"][..], Sent::Unknown),
            (&["gzip, zstd"][..], Sent::Unknown),
            (&["gzip", "zstd"][..], Sent::Unknown),
        ] {
            assert_eq!(sent(&fields(CONTENT_ENCODING, values)), expected, "{values:?}");
        }
    }

    #[test]
    fn what_expands_beyond_the_limit_is_refused_and_so_is_what_was_damaged() {
        let plain = vec![b'x'; 1 << 20];
        for coding in [Coding::Gzip, Coding::Zstd] {
            let compressed = coding.compress(&plain).expect("it is compressed");
            assert!(compressed.len() < 8 << 10);
            assert_eq!(coding.expand(&compressed, plain.len()).as_deref(), Ok(plain.as_slice()));
            assert_eq!(coding.expand(&compressed, plain.len() - 1), Err(BodyError::TooLarge { limit_bytes: plain.len() - 1 }));
            assert_eq!(coding.expand(&compressed[..compressed.len() - 4], plain.len()), Err(BodyError::Damaged));
            assert_eq!(coding.expand(b"{\"plain\":true}", plain.len()), Err(BodyError::Damaged));
        }
    }

    #[tokio::test]
    async fn only_long_answers_are_compressed() {
        let short = Bytes::from_static(b"{}");
        let long = Bytes::from(format!("\"{}\"", "word ".repeat(4_000)));
        for (body, accepted, expected) in [
            (&short, Some(Coding::Zstd), None),
            (&long, None, None),
            (&long, Some(Coding::Zstd), Some("zstd")),
            (&long, Some(Coding::Gzip), Some("gzip")),
        ] {
            let mut response = super::super::plain::with_type(hyper::StatusCode::OK, "application/json", body.clone());
            compress(&mut response, accepted).await;
            let coded = response.headers().get(CONTENT_ENCODING).map(|name| name.to_str().expect("a text").to_owned());
            assert_eq!(coded.as_deref(), expected);
            assert_eq!(response.headers().contains_key(VARY), body.len() > COMPRESSED_BYTES_MIN);
            if let (Some(coding), ReplyBody::Whole(sent)) = (accepted.filter(|_| expected.is_some()), response.body()) {
                assert!(sent.len() * 10 < body.len());
                assert_eq!(coding.expand(sent, body.len()).as_deref(), Ok(&body[..]));
            }
        }
    }
}
