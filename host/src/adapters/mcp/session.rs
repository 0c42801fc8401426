//! Legacy sessions: their ids are sealed state, so that a restarted host, or another replica, goes on serving them.
//!
//! An id holds the token it was made for, the project, the revision and the time, under an AEAD; nobody else can make or change
//! one. What changes while a session lives (the agent that `start` chose, what it subscribed to, that it ended) is noted by the
//! host under the session's name.
//!
//! **Invariant:** an id opens only with the token and the project it was made for.

use std::fmt;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use pointsman_core::ids::{ProjectId, TokenId};
use pointsman_core::time::TimeMs;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::{Map, Value, json};

use super::live::Live;
use crate::ports::asking::{declares, takes_forms};
use crate::ports::clock::System;

/// Milliseconds a session id is good for; clients open a new one then.
pub const SESSION_AGE_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;

const FORMAT: u8 = 1;
const HEAD: usize = 2;
const STATE: usize = 16 + 16 + 1 + 1 + 8;
const TAG: usize = 16;
const SEALED: usize = HEAD + NONCE_LEN + STATE + TAG;
/// Characters of an id: base64 of [`SEALED`] bytes.
const ID_CHARS: usize = (SEALED * 4).div_ceil(3);

/// A key that session ids are sealed with.
#[derive(Clone)]
pub struct SealingKey {
    /// Stands in each id, so that keys can be rotated.
    pub id: u8,
    /// The key, derived for this purpose alone.
    pub bytes: [u8; 32],
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The revisions a session can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Revision {
    /// 2025-03-26: batches, no structured content.
    V2025_03_26,
    /// 2025-06-18.
    V2025_06_18,
    /// 2025-11-25.
    V2025_11_25,
}

impl Revision {
    /// Returns its date.
    pub(super) fn date(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
        }
    }

    /// Returns the revision of a date.
    pub(super) fn of_date(date: &str) -> Option<Self> {
        [Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26].into_iter().find(|revision| revision.date() == date)
    }

    fn byte(self) -> u8 {
        match self {
            Self::V2025_03_26 => 1,
            Self::V2025_06_18 => 2,
            Self::V2025_11_25 => 3,
        }
    }

    fn of_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::V2025_03_26),
            2 => Some(Self::V2025_06_18),
            3 => Some(Self::V2025_11_25),
            0 | 4.. => None,
        }
    }
}

/// What a session's client declared that it can be asked; a bit each. Ids made before a bit had a meaning have it unset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Capabilities(u8);

/// Elicitation by form.
const FORMS: u8 = 1;
const SAMPLING: u8 = 1 << 1;
const ROOTS: u8 = 1 << 2;
/// Elicitation by URL.
const URLS: u8 = 1 << 3;
/// Sampling with tools.
const SAMPLING_TOOLS: u8 = 1 << 4;

impl Capabilities {
    /// Returns what a declaration holds.
    pub(super) fn declared(json: Option<&str>) -> Self {
        let json = json.unwrap_or("{}");
        let bits = [
            (FORMS, takes_forms(json)),
            (SAMPLING, declares(json, &["sampling"])),
            (ROOTS, declares(json, &["roots"])),
            (URLS, declares(json, &["elicitation", "url"])),
            (SAMPLING_TOOLS, declares(json, &["sampling", "tools"])),
        ];
        Self(bits.iter().filter(|(_, has)| *has).map(|(bit, _)| bit).sum())
    }

    /// Returns the declaration as JSON.
    pub(super) fn json(self) -> String {
        let has = |bit: u8| self.0 & bit != 0;
        let mut declared = Map::new();
        if has(FORMS | URLS) {
            declared.insert(
                "elicitation".to_owned(),
                match (has(FORMS), has(URLS)) {
                    (true, true) => json!({"form": {}, "url": {}}),
                    (false, true) => json!({"url": {}}),
                    (_, false) => json!({}),
                },
            );
        }
        if has(ROOTS) {
            declared.insert("roots".to_owned(), json!({}));
        }
        if has(SAMPLING) {
            declared.insert("sampling".to_owned(), if has(SAMPLING_TOOLS) { json!({"tools": {}}) } else { json!({}) });
        }
        Value::Object(declared).to_string()
    }
}

/// Names a session: the nonce of its id.
pub(super) type SessionKey = [u8; NONCE_LEN];

/// What an id holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionState {
    /// The credential it was opened with.
    pub(super) token: TokenId,
    /// The project of the endpoint it was opened on.
    pub(super) project: ProjectId,
    /// What was negotiated.
    pub(super) revision: Revision,
    /// What the client can be asked.
    pub(super) capabilities: Capabilities,
    /// When.
    pub(super) issued_at: TimeMs,
}

impl SessionState {
    /// Returns from when on the id is no longer good.
    pub(super) fn ends_at(&self) -> TimeMs {
        self.issued_at + SESSION_AGE_MS_MAX
    }
}

/// A session that was opened by its id.
#[derive(Clone)]
pub(super) struct Session {
    /// Its name.
    pub(super) key: SessionKey,
    /// What its id holds.
    pub(super) state: SessionState,
    /// What it has while it lives.
    pub(super) live: Arc<Live>,
}

/// Seals and opens session ids.
pub(super) struct Sessions {
    keys: Vec<(u8, LessSafeKey)>,
    system: Arc<dyn System>,
}

impl Sessions {
    /// Returns sessions sealed with `current`; ids sealed with an older key are still opened.
    pub(super) fn new(current: &SealingKey, older: &[SealingKey], system: Arc<dyn System>) -> Self {
        let keys = std::iter::once(current)
            .chain(older)
            .map(|key| {
                let unbound = UnboundKey::new(&CHACHA20_POLY1305, &key.bytes).expect("32 bytes are this algorithm's key length");
                (key.id, LessSafeKey::new(unbound))
            })
            .collect();
        Self { keys, system }
    }

    /// Returns the id of a new session.
    pub(super) fn seal(&self, state: &SessionState) -> String {
        let (key_id, key) = &self.keys[0];
        let mut sealed = [0u8; SEALED];
        sealed[..HEAD].copy_from_slice(&[FORMAT, *key_id]);
        let mut nonce = [0u8; NONCE_LEN];
        self.system.random(&mut nonce);
        sealed[HEAD..HEAD + NONCE_LEN].copy_from_slice(&nonce);
        let body = &mut sealed[HEAD + NONCE_LEN..];
        body[..16].copy_from_slice(state.token.as_bytes());
        body[16..32].copy_from_slice(state.project.as_bytes());
        body[32] = state.revision.byte();
        body[33] = state.capabilities.0;
        body[34..STATE].copy_from_slice(&state.issued_at.0.to_be_bytes());
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from([FORMAT, *key_id]), &mut body[..STATE])
            .expect("a few bytes are within the algorithm's limit");
        body[STATE..].copy_from_slice(tag.as_ref());
        BASE64URL_NOPAD.encode(&sealed)
    }

    fn unseal(&self, id: &[u8]) -> Option<(SessionKey, SessionState)> {
        if id.len() != ID_CHARS {
            return None;
        }
        let mut sealed = [0u8; SEALED];
        BASE64URL_NOPAD.decode_mut(id, &mut sealed).ok()?;
        let (head, rest) = sealed.split_at_mut(HEAD);
        let (nonce, body) = rest.split_at_mut(NONCE_LEN);
        let nonce: SessionKey = (&*nonce).try_into().ok()?;
        let (key_id, key) = self.keys.iter().find(|(key_id, _)| *key_id == head[1])?;
        let state = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from([FORMAT, *key_id]), body).ok()?;
        let state = SessionState {
            token: TokenId::from_bytes(state[..16].try_into().ok()?),
            project: ProjectId::from_bytes(state[16..32].try_into().ok()?),
            revision: Revision::of_byte(state[32])?,
            capabilities: Capabilities(state[33]),
            issued_at: TimeMs(i64::from_be_bytes(state[34..].try_into().ok()?)),
        };
        (head[0] == FORMAT).then_some((nonce, state))
    }

    /// Returns what an id holds, none when it is forged, another credential's or project's, or too old.
    pub(super) fn open(&self, id: &[u8], token: TokenId, project: ProjectId, now: TimeMs) -> Option<(SessionKey, SessionState)> {
        let (key, state) = self.unseal(id)?;
        let ours = state.token == token && state.project == project;
        let fresh = now.since_ms(state.issued_at) <= SESSION_AGE_MS_MAX;
        (ours && fresh).then_some((key, state))
    }
}

#[cfg(test)]
#[path = "session/tests.rs"]
mod tests;
