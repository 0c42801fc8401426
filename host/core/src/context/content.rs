//! What a document says, as it is stored: in its version, or in chunks that versions and documents share.
//!
//! Chunks are cut where the content says so (`FastCDC`, Xia et al. 2016 and 2020), so that an edit changes those it touches and no other, and
//! named by their BLAKE3 hash.
//!
//! **Invariant:** the chunks of a content, one after another, are its bytes; equal bytes are cut alike on every host and in every client.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use fastcdc::v2020::FastCDC;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{CHUNK_BYTES_MAX, INLINE_BYTES_MAX};
use crate::value::Stored;

/// Bytes of the smallest chunk, the last aside.
const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Bytes of a chunk, on average.
const CHUNK_BYTES: usize = 16 << 10;

/// The name of a chunk: the BLAKE3 hash of its bytes. Hex on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkHash([u8; 32]);

/// Why a text is no name of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the name of a chunk is its BLAKE3 hash: 64 digits of lower-case hex")]
pub struct ChunkHashError;

impl ChunkHash {
    /// Returns the name of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkHash({self})")
    }
}

impl FromStr for ChunkHash {
    type Err = ChunkHashError;

    fn from_str(text: &str) -> Result<Self, ChunkHashError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| ChunkHashError)?;
        Ok(Self(bytes.try_into().map_err(|_| ChunkHashError)?))
    }
}

impl Serialize for ChunkHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for ChunkHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            let bytes = serde_bytes::ByteArray::<32>::deserialize(deserializer)?;
            Ok(Self(*bytes))
        }
    }
}

/// A chunk as a version names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// Its name.
    pub hash: ChunkHash,
    /// How many bytes it has.
    pub bytes: u32,
}

/// Returns where bytes are cut.
///
/// # Panics
/// Never: a chunk is within the bytes.
#[must_use]
pub fn cut(bytes: &[u8]) -> Vec<Range<usize>> {
    FastCDC::new(bytes, CHUNK_BYTES_MIN, CHUNK_BYTES, CHUNK_BYTES_MAX).map(|chunk| chunk.offset..chunk.offset + chunk.length).collect()
}

/// What a version says.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Content {
    /// A small text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    text: String,
    /// Few bytes that are no text.
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Vec::is_empty")]
    bytes: Vec<u8>,
    /// What is larger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chunks: Vec<ChunkRef>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes, {} chunks)", self.size_bytes(), self.chunks.len())
    }
}

impl Content {
    /// Returns a content that fits into its version; none: it has to be cut.
    #[must_use]
    pub fn inline(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > INLINE_BYTES_MAX {
            return None;
        }
        Some(match std::str::from_utf8(bytes) {
            Ok(text) => Self { text: text.to_owned(), ..Self::default() },
            Err(_) => Self { bytes: bytes.to_vec(), ..Self::default() },
        })
    }

    /// Returns the content of these chunks.
    #[must_use]
    pub fn of_chunks(chunks: Vec<ChunkRef>) -> Self {
        Self { chunks, ..Self::default() }
    }

    /// Returns the chunks; none: it is inline.
    #[must_use]
    pub fn chunks(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// Returns the bytes that are inline.
    #[must_use]
    pub fn inline_bytes(&self) -> &[u8] {
        if self.bytes.is_empty() { self.text.as_bytes() } else { &self.bytes }
    }

    /// Returns how many bytes it is.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let in_chunks: u64 = self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        in_chunks + self.inline_bytes().len() as u64
    }

    /// Returns the chunks that a range of bytes needs, and where the range begins in the first of them.
    #[must_use]
    pub fn covering(&self, range: &Range<u64>) -> (&[ChunkRef], u64) {
        let mut at = 0;
        let mut first = None;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let end = at + u64::from(chunk.bytes);
            if first.is_none() && range.start < end {
                first = Some((index, at));
            }
            if let Some((start, begins)) = first
                && range.end <= end
            {
                return (&self.chunks[start..=index], range.start - begins);
            }
            at = end;
        }
        match first {
            Some((start, begins)) => (&self.chunks[start..], range.start - begins),
            None => (&[], 0),
        }
    }
}

/// A chunk as stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredChunk {
    /// Its bytes, or those compressed by zstd.
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    /// How many they are when they are compressed.
    size: Option<u32>,
}

impl fmt::Debug for StoredChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredChunk({} bytes, of {:?})", self.bytes.len(), self.size)
    }
}

impl Stored for StoredChunk {
    const NAME: &'static str = "chunk";
}

/// The level of zstd: the library's own.
const LEVEL: i32 = 3;

impl StoredChunk {
    /// Returns the stored form of a chunk's bytes, at most [`CHUNK_BYTES_MAX`].
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let size = u32::try_from(bytes.len()).ok();
        match zstd::bulk::compress(bytes, LEVEL) {
            Ok(small) if size.is_some() && small.len() < bytes.len() => Self { bytes: small, size },
            Ok(_) | Err(_) => Self { bytes: bytes.to_vec(), size: None },
        }
    }

    /// Returns how many bytes it takes.
    #[must_use]
    pub fn stored_bytes(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// Returns the chunk's bytes; none: they are damaged.
    #[must_use]
    pub fn open(self) -> Option<Vec<u8>> {
        match self.size {
            None => Some(self.bytes),
            Some(size) if size as usize <= CHUNK_BYTES_MAX => zstd::bulk::decompress(&self.bytes, size as usize).ok(),
            Some(_) => None,
        }
    }
}

/// That a chunk is there: what versions rest on, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkMark {
    /// How many bytes it takes.
    pub stored_bytes: u32,
    /// When it came.
    pub at: crate::time::TimeMs,
    /// Whether no version named it when it was last looked at: nobody may rest on it without bringing it again.
    pub is_condemned: bool,
}

impl Stored for ChunkMark {
    const NAME: &'static str = "chunk mark";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..length).map(|_| next()).collect()
    }

    fn refs(bytes: &[u8]) -> Vec<ChunkRef> {
        let of = |range: Range<usize>| ChunkRef { bytes: u32::try_from(range.len()).expect("small"), hash: ChunkHash::of(&bytes[range]) };
        cut(bytes).into_iter().map(of).collect()
    }

    #[test]
    fn an_edit_changes_the_chunks_it_touches() {
        let old = noise(7, 1 << 20);
        let mut new = old.clone();
        new.splice(500_000..500_100, *b"a few other bytes");
        let known: std::collections::HashSet<_> = refs(&old).into_iter().map(|chunk| chunk.hash).collect();
        let changed: u32 = refs(&new).iter().filter(|chunk| !known.contains(&chunk.hash)).map(|chunk| chunk.bytes).sum();
        assert!((1..100_000).contains(&changed), "{changed} bytes");
    }

    #[test]
    fn small_contents_are_inline_and_say_what_they_are() {
        for bytes in [b"".to_vec(), b"text".to_vec(), vec![0xff, 0], vec![b'a'; INLINE_BYTES_MAX]] {
            let content = Content::inline(&bytes).expect("small");
            assert_eq!((content.inline_bytes(), content.size_bytes()), (&bytes[..], bytes.len() as u64));
            let stored: Content = rmp_serde::from_slice(&rmp_serde::to_vec_named(&content).expect("written")).expect("read");
            assert_eq!(stored, content);
        }
        assert_eq!(Content::inline(&vec![0; INLINE_BYTES_MAX + 1]), None);
    }

    #[test]
    fn names_of_chunks_are_hex_for_people_and_bytes_at_rest() {
        let hash = ChunkHash::of(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for wrong in ["", "ab", &hash.to_string().to_uppercase(), &format!("{hash}0")] {
            assert_eq!(wrong.parse::<ChunkHash>(), Err(ChunkHashError), "{wrong}");
        }
        let stored = rmp_serde::to_vec_named(&ChunkRef { hash, bytes: 1 }).expect("written");
        assert!(stored.len() < 50, "{} bytes", stored.len());
        assert_eq!(rmp_serde::from_slice::<ChunkRef>(&stored).expect("read").hash, hash);
    }

    #[test]
    fn chunks_are_stored_as_small_as_may_be_and_bombs_are_not_opened() {
        for bytes in [vec![b'a'; 10_000], noise(3, 10_000), Vec::new()] {
            let stored = StoredChunk::of(&bytes);
            assert!(stored.stored_bytes() as usize <= bytes.len());
            assert_eq!(stored.open(), Some(bytes));
        }
        assert_eq!(StoredChunk { bytes: vec![1, 2, 3], size: Some(u32::MAX) }.open(), None);
        assert_eq!(StoredChunk { bytes: vec![1, 2, 3], size: Some(3) }.open(), None);
    }

    proptest! {
        #[test]
        fn chunks_are_the_bytes_and_ranges_find_theirs(seed: u64, length in 0usize..300_000, from in 0u64..310_000, upto in 0u64..310_000) {
            let bytes = noise(seed, length);
            let cuts = cut(&bytes);
            prop_assert!(cuts.iter().all(|range| range.len() <= CHUNK_BYTES_MAX && !range.is_empty()));
            prop_assert_eq!(cuts.iter().flat_map(|range| bytes[range.clone()].iter().copied()).collect::<Vec<_>>(), bytes.clone());
            let content = Content::of_chunks(refs(&bytes));
            prop_assert_eq!(content.size_bytes(), length as u64);
            let (from, upto) = (from.min(upto).min(length as u64), from.max(upto).min(length as u64));
            let (covering, skipped) = content.covering(&(from..upto));
            let by_name: std::collections::HashMap<_, _> = cuts.iter().map(|range| (ChunkHash::of(&bytes[range.clone()]), range.clone())).collect();
            let joined: Vec<u8> = covering.iter().flat_map(|chunk| bytes[by_name[&chunk.hash].clone()].iter().copied()).collect();
            let (start, length) = (usize::try_from(skipped).expect("small"), usize::try_from(upto - from).expect("small"));
            if length > 0 {
                prop_assert_eq!(&joined[start..start + length], &bytes[usize::try_from(from).expect("small")..][..length]);
            }
        }
    }
}
