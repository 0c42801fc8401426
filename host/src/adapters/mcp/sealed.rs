//! What a call gives a client to bring back (`requestState`): sealed, so that it is only good for the principal, the project
//! and the request it was made for, and only for a while (multi round-trip requests, server requirements).
//!
//! **Invariant:** nothing of it is believed before the seal is verified.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use pointsman_core::time::TimeMs;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::Value;

use crate::ports::clock::System;
use crate::ports::provider::ProviderCall;
use crate::ports::surface::Caller;

/// Milliseconds a client has to answer: people are asked.
pub(super) const STATE_AGE_MS_MAX: u64 = 60 * 60 * 1_000;
/// Bytes of a sealed state in its text form.
const SEALED_BYTES_MAX: usize = 1 << 20;
const FORMAT: u8 = 1;

/// What a call goes on from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resumed {
    /// Of the call.
    pub(super) call_id: String,
    /// The component's own.
    pub(super) state: Vec<u8>,
}

/// Seals and opens.
pub(super) struct Sealer {
    key: LessSafeKey,
    system: Arc<dyn System>,
}

impl Sealer {
    /// Returns a sealer with a key of its own.
    pub(super) fn new(key: &[u8; 32], system: Arc<dyn System>) -> Self {
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are this algorithm's key length");
        Self { key: LessSafeKey::new(unbound), system }
    }

    /// Returns the text a client brings back; none when it would be longer than [`Sealer::open`] takes.
    pub(super) fn seal(&self, caller: &Caller, call: &ProviderCall, call_id: &str, state: &[u8], now: TimeMs) -> Option<String> {
        let bytes = 1 + NONCE_LEN + 8 + 1 + call_id.len() + state.len() + CHACHA20_POLY1305.tag_len();
        if bytes > SEALED_BYTES_MAX / 4 * 3 {
            return None;
        }
        let mut nonce = [0; NONCE_LEN];
        self.system.random(&mut nonce);
        let id_len = u8::try_from(call_id.len()).expect("call ids are short");
        let mut body = now.0.to_be_bytes().to_vec();
        body.push(id_len);
        body.extend_from_slice(call_id.as_bytes());
        body.extend_from_slice(state);
        let bound = Aad::from(bound_to(caller, call));
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut body)
            .expect("a state is within the algorithm's limit");
        let mut sealed = vec![FORMAT];
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Some(BASE64URL_NOPAD.encode(&sealed))
    }

    /// Returns what was sealed; none when it was changed, is another's, another request's, or too old.
    pub(super) fn open(&self, caller: &Caller, call: &ProviderCall, text: &str, now: TimeMs) -> Option<Resumed> {
        if text.len() > SEALED_BYTES_MAX {
            return None;
        }
        let sealed = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (format, rest) = sealed.split_first()?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce.try_into().ok()?);
        let plain = self.key.open_in_place(nonce, Aad::from(bound_to(caller, call)), &mut body).ok()?;
        let (at, rest) = plain.split_at_checked(8)?;
        let at = TimeMs(i64::from_be_bytes(at.try_into().ok()?));
        let (id_len, rest) = rest.split_first()?;
        let (call_id, state) = rest.split_at_checked(usize::from(*id_len))?;
        let good = *format == FORMAT && now.since_ms(at) <= STATE_AGE_MS_MAX;
        good.then(|| Resumed { call_id: String::from_utf8_lossy(call_id).into_owned(), state: state.to_vec() })
    }
}

/// Returns what a state is bound to: principal, project, and what was asked.
fn bound_to(caller: &Caller, call: &ProviderCall) -> [u8; 32] {
    let mut digest = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    part(caller.token.principal.as_bytes());
    part(caller.project.as_bytes());
    let (method, name, arguments) = match call {
        ProviderCall::Tool { name, arguments } => ("tools/call", name, same(arguments)),
        ProviderCall::Resource { uri } => ("resources/read", uri, String::new()),
        ProviderCall::Prompt { name, arguments } => ("prompts/get", name, same(arguments)),
    };
    part(method.as_bytes());
    part(name.as_bytes());
    part(arguments.as_bytes());
    digest.finalize().into()
}

/// Returns a JSON text in one form, whatever order and spaces a client writes it with the second time.
fn same(json: &str) -> String {
    serde_json::from_str::<Value>(json).map_or_else(|_| json.to_owned(), |value| value.to_string())
}
