//! Texts that nobody can foresee or compress much, and that are the same in every run.

/// Letters of a line: 64, so that none is likelier than others.
const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
/// Letters of the shortest line, and by how many more a line may have, a power of two.
const LINE_MIN: usize = 40;
const LINE_MORE: usize = 64;

/// A xorshift generator (Marsaglia 2003).
pub(super) struct Noise(u64);

impl Noise {
    /// Returns the generator of a seed.
    pub(super) fn of(seed: u64) -> Self {
        // Seeds that are near each other are spread over all states, of which 0 is none.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn letter(&mut self) -> char {
        char::from(LETTERS[self.next() as usize % LETTERS.len()])
    }

    /// Returns one line of so many letters, without its end.
    pub(super) fn text(&mut self, letters: usize) -> String {
        (0..letters).map(|_| self.letter()).collect()
    }

    /// Returns lines of different lengths, so many bytes together; the last one may be shorter.
    pub(super) fn lines(&mut self, bytes: usize) -> String {
        let mut lines = String::with_capacity(bytes);
        while lines.len() < bytes {
            let letters = (LINE_MIN + self.next() as usize % LINE_MORE).min(bytes - lines.len() - 1);
            lines.extend((0..letters).map(|_| self.letter()));
            lines.push('\n');
        }
        lines
    }
}
