//! Bytes taken eight at a time: in a component nothing else is fast, as there the standard library goes byte by byte.
//!
//! **Invariant:** what is found does not depend on the machine; words are little-endian everywhere.

/// Bytes of a word.
const WORD_BYTES: usize = 8;
/// A word whose bytes are all 1.
const ONES: u64 = u64::from_le_bytes([1; WORD_BYTES]);
/// All bits but the highest of each byte.
const LOW: u64 = u64::from_le_bytes([0x7f; WORD_BYTES]);
/// An odd factor with its bits spread: 2^64 over the golden ratio (Knuth, The Art of Computer Programming, 6.4).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns a word with the highest bit of each byte set that is `byte` in `word` (Warren, Hacker's Delight, 6-1).
const fn marks(word: [u8; WORD_BYTES], byte: u8) -> u64 {
    let zero_where_equal = u64::from_le_bytes(word) ^ (ONES * byte as u64);
    !(((zero_where_equal & LOW) + LOW) | zero_where_equal | LOW)
}

/// Returns whether a byte occurs.
pub(crate) fn contains(bytes: &[u8], byte: u8) -> bool {
    let (words, rest) = bytes.as_chunks::<WORD_BYTES>();
    let (blocks, words) = words.as_chunks::<4>();
    let in_block = |block: &[[u8; WORD_BYTES]]| block.iter().fold(0, |all, word| all | marks(*word, byte)) != 0;
    blocks.iter().any(|block| in_block(block)) || in_block(words) || rest.contains(&byte)
}

/// Returns where a byte is first.
pub(crate) fn position(bytes: &[u8], byte: u8) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<WORD_BYTES>();
    for (n, word) in words.iter().enumerate() {
        let marks = marks(*word, byte);
        if marks != 0 {
            return Some(n * WORD_BYTES + first(marks));
        }
    }
    rest.iter().position(|one| *one == byte).map(|at| words.len() * WORD_BYTES + at)
}

/// Tells every place where a byte is, in order.
pub(crate) fn each_position(bytes: &[u8], byte: u8, mut found: impl FnMut(usize)) {
    let (words, rest) = bytes.as_chunks::<WORD_BYTES>();
    for (n, word) in words.iter().enumerate() {
        let mut marks = marks(*word, byte);
        while marks != 0 {
            found(n * WORD_BYTES + first(marks));
            marks &= marks - 1;
        }
    }
    for (n, one) in rest.iter().enumerate() {
        if *one == byte {
            found(words.len() * WORD_BYTES + n);
        }
    }
}

/// Returns the number of the first byte that has a bit set.
const fn first(word: u64) -> usize {
    (word.trailing_zeros() / u8::BITS) as usize
}

/// Returns whether two texts are the same.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<WORD_BYTES>(), b.as_chunks::<WORD_BYTES>());
    if !a_words.iter().zip(b_words).all(|(a, b)| u64::from_le_bytes(*a) == u64::from_le_bytes(*b)) {
        return false;
    }
    // The last word overlaps the one before it.
    match (a.last_chunk(), b.last_chunk()) {
        (Some(a), Some(b)) => u64::from_le_bytes(*a) == u64::from_le_bytes(*b),
        _ => a_rest.iter().zip(b_rest).all(|(a, b)| a == b),
    }
}

/// Returns how many bytes two texts begin with that are the same.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let (a_words, b_words) = (a[..len].as_chunks::<WORD_BYTES>().0, b[..len].as_chunks::<WORD_BYTES>().0);
    for (n, (a, b)) in a_words.iter().zip(b_words).enumerate() {
        let different = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if different != 0 {
            return n * WORD_BYTES + first(different);
        }
    }
    let compared = a_words.len() * WORD_BYTES;
    compared + a[compared..len].iter().zip(&b[compared..len]).take_while(|(a, b)| a == b).count()
}

/// Returns a number that differs for most texts that differ. Whoever makes texts collide makes their own call slow.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let add = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<WORD_BYTES>();
    let hash = words.iter().fold(add(0, bytes.len() as u64), |hash, word| add(hash, u64::from_le_bytes(*word)));
    let last = bytes
        .last_chunk()
        .map_or_else(|| rest.iter().fold(0, |word, byte| word << u8::BITS | u64::from(*byte)), |word| u64::from_le_bytes(*word));
    let hash = add(hash, last);
    (hash ^ (hash >> 32)).wrapping_mul(FACTOR)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_find_what_bytes_find(bytes in proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(10), Just(11), any::<u8>()], 0..90)) {
            for byte in [0, 1, 10, 0x80, 0xff] {
                let naive: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == byte).collect();
                let mut found = Vec::new();
                each_position(&bytes, byte, |at| found.push(at));
                prop_assert_eq!(position(&bytes, byte), naive.first().copied());
                prop_assert_eq!(contains(&bytes, byte), !naive.is_empty());
                prop_assert_eq!(found, naive);
            }
        }

        #[test]
        fn words_tell_texts_apart(bytes in proptest::collection::vec(any::<u8>(), 1..40), at in any::<proptest::sample::Index>(), bit in 0..8) {
            let (mut other, at) = (bytes.clone(), at.index(bytes.len()));
            prop_assert!(equal(&bytes, &other));
            prop_assert_eq!((hash(&bytes), common_prefix(&bytes, &other)), (hash(&other), bytes.len()));
            other[at] ^= 1_u8 << bit;
            prop_assert!(!equal(&bytes, &other));
            prop_assert!(hash(&bytes) != hash(&other), "one bit always shows");
            prop_assert_eq!(common_prefix(&bytes, &other), at);
            let shorter = &bytes[..at];
            prop_assert!(!equal(&bytes, shorter));
            prop_assert_eq!((common_prefix(shorter, &bytes), common_prefix(&bytes, shorter)), (at, at));
        }
    }
}
