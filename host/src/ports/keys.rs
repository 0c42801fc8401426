//! The host's secrets: keys derived per purpose, and the signature under receipts.

/// What the services need of the host's keys.
pub trait Keys: Send + Sync {
    /// Returns the key for a purpose, derived from the root key by HKDF-SHA256 (RFC 5869) with the purpose as info.
    fn derive(&self, purpose: &str) -> [u8; 32];

    /// Returns the ed25519 signature (RFC 8032) of `bytes` by the receipt key, which is not derived from the root key.
    fn sign(&self, bytes: &[u8]) -> [u8; 64];

    /// Returns the receipt key's public half.
    fn public_key(&self) -> [u8; 32];
}
