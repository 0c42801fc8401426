//! The stored form of a message: named `MessagePack`, compressed where it is long.
//!
//! ```text
//! 2 0 <MessagePack>                          plain
//! 2 1 <bytes, u32 little-endian> <zstd>      compressed, and how much it expands to
//! 1   <MessagePack>                          as versions before this wrote it
//! ```
//!
//! **Invariant:** no stored form, however it was damaged, expands to more than [`COMPRESSED_MESSAGE_BYTES_MAX`].

use super::Message;
use crate::limits::{COMPRESSED_MESSAGE_BYTES_MAX, PLAIN_MESSAGE_BYTES_MAX};
use crate::value::Stored;

const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;
/// Fast, and within a few percent of what slower ones save on text.
const LEVEL: i32 = 1;

impl Stored for Message {
    const NAME: &'static str = "message";
    const VERSION: u8 = 2;

    fn write(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.push(PLAIN);
        rmp_serde::encode::write_named(bytes, self).expect("a message has sized sequences only");
        let plain = &bytes[start + 1..];
        if let Some(compressed) = compress(plain) {
            bytes.truncate(start);
            bytes.push(COMPRESSED);
            bytes.extend_from_slice(&compressed);
        }
    }

    fn read(body: &[u8]) -> Result<Self, Option<rmp_serde::decode::Error>> {
        match body.split_first() {
            Some((&PLAIN, plain)) => rmp_serde::from_slice(plain).map_err(Some),
            Some((&COMPRESSED, compressed)) => rmp_serde::from_slice(&expand(compressed).ok_or(None)?).map_err(Some),
            Some(_) | None => Err(None),
        }
    }

    fn upgrade(version: u8, body: &[u8]) -> Option<Self> {
        (version == 1).then(|| rmp_serde::from_slice(body).ok()).flatten()
    }
}

/// Returns the length and the compressed bytes; none where that is not worth it.
fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() <= PLAIN_MESSAGE_BYTES_MAX || plain.len() > COMPRESSED_MESSAGE_BYTES_MAX {
        return None;
    }
    let length = u32::try_from(plain.len()).ok()?;
    let compressed = zstd::bulk::compress(plain, LEVEL).ok()?;
    let mut out = Vec::with_capacity(compressed.len() + size_of::<u32>());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&compressed);
    (out.len() < plain.len()).then_some(out)
}

/// Returns what was compressed, if it is as long as it says and may be.
fn expand(stored: &[u8]) -> Option<Vec<u8>> {
    let (length, compressed) = stored.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length > COMPRESSED_MESSAGE_BYTES_MAX {
        return None;
    }
    let plain = zstd::bulk::decompress(compressed, length).ok()?;
    (plain.len() == length).then_some(plain)
}
