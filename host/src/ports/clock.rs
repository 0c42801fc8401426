//! Randomness and process time. The time that is stored comes from the store's clock, not from here.

use std::time::Instant;

use pointsman_core::ids::RANDOM_BYTES;

/// What the host takes from the operating system.
pub trait System: Send + Sync {
    /// Fills `bytes` with cryptographically secure randomness.
    fn random(&self, bytes: &mut [u8]);

    /// Returns a point for measuring durations.
    fn instant(&self) -> Instant;

    /// Returns the random part of an id.
    fn id_bytes(&self) -> [u8; RANDOM_BYTES] {
        let mut bytes = [0; RANDOM_BYTES];
        self.random(&mut bytes);
        bytes
    }
}
