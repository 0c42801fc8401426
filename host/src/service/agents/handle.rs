//! Handles: what `start` gives an agent so that later calls can name it, sealed so that nobody makes one up.
//!
//! `hdl_` and base32 of: key id (1 byte), nonce (12), ChaCha20-Poly1305 (RFC 8439) of agent id and principal id (32), tag (16).

use data_encoding::BASE32_NOPAD;
use pointsman_core::ids::{AgentId, PrincipalId};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::ports::clock::System;

const PREFIX: &str = "hdl_";
const KEY_ID: u8 = 1;
const PLAIN_BYTES: usize = 32;
const PURPOSE: &[u8] = b"pointsman agent handle 1";

/// The text is no handle of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HandleError;

/// What a handle says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed {
    /// Which agent.
    pub(super) agent: AgentId,
    /// To whom the handle was given.
    pub(super) principal: PrincipalId,
}

/// Seals and opens handles.
pub(super) struct Handles {
    key: LessSafeKey,
}

/// Returns whether a text is meant as a handle.
pub(super) fn is_handle(text: &str) -> bool {
    text.starts_with(PREFIX)
}

impl Handles {
    /// Returns the sealer of a key.
    pub(super) fn new(key: [u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).expect("the algorithm takes keys of 32 bytes");
        Self { key: LessSafeKey::new(key) }
    }

    /// Returns a new handle.
    pub(super) fn seal(&self, system: &dyn System, agent: AgentId, principal: PrincipalId) -> String {
        let mut nonce = [0; NONCE_LEN];
        system.random(&mut nonce);
        let mut sealed = [agent.as_bytes().as_slice(), principal.as_bytes()].concat();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(PURPOSE), &mut sealed)
            .expect("48 bytes are within the algorithm's bounds");
        let whole = [&[KEY_ID], nonce.as_slice(), &sealed].concat();
        format!("{PREFIX}{}", BASE32_NOPAD.encode(&whole).to_ascii_lowercase())
    }

    /// Returns what a handle says.
    pub(super) fn open(&self, text: &str) -> Result<Sealed, HandleError> {
        let digits = text.strip_prefix(PREFIX).ok_or(HandleError)?;
        let bytes = BASE32_NOPAD.decode(digits.to_ascii_uppercase().as_bytes()).map_err(|_| HandleError)?;
        let Some((&KEY_ID, rest)) = bytes.split_first() else { return Err(HandleError) };
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(HandleError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| HandleError)?;
        let mut sealed = sealed.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::from(PURPOSE), &mut sealed).map_err(|_| HandleError)?;
        let plain: &[u8; PLAIN_BYTES] = (&*plain).try_into().map_err(|_| HandleError)?;
        let half = |from: usize| -> [u8; 16] { plain[from..from + 16].try_into().expect("32 bytes have two halves") };
        Ok(Sealed { agent: AgentId::from_bytes(half(0)), principal: PrincipalId::from_bytes(half(16)) })
    }
}
