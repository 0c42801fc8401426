//! Session ids: what opens them and what does not.

use std::time::Instant;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

struct Counter(Mutex<u64>);

impl System for Counter {
    fn random(&self, bytes: &mut [u8]) {
        let mut n = self.0.lock();
        *n += 1;
        bytes.fill(0);
        bytes[..8].copy_from_slice(&n.to_le_bytes());
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own clock")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

fn key(id: u8) -> SealingKey {
    SealingKey { id, bytes: [id; 32] }
}

fn sessions(current: u8, older: &[u8]) -> Sessions {
    Sessions::new(&key(current), &older.iter().map(|id| key(*id)).collect::<Vec<_>>(), Arc::new(Counter(Mutex::new(0))))
}

const NOW: TimeMs = TimeMs(1_790_000_000_000);

fn state(n: u8) -> SessionState {
    SessionState {
        token: TokenId::from_bytes([n; 16]),
        project: ProjectId::from_bytes([n; 16]),
        revision: Revision::V2025_11_25,
        capabilities: Capabilities::declared(Some(r#"{"elicitation":{},"roots":{},"x":{}}"#)),
        issued_at: NOW,
    }
}

fn open(sessions: &Sessions, id: &str, state: &SessionState, now: TimeMs) -> Option<SessionState> {
    sessions.open(id.as_bytes(), state.token, state.project, now).map(|(_, state)| state)
}

#[test]
fn an_id_carries_what_the_client_can_be_asked() {
    let sessions = sessions(1, &[]);
    let session = open(&sessions, &sessions.seal(&state(1)), &state(1), NOW).expect("it opens");
    assert_eq!(session.capabilities.json(), r#"{"elicitation":{},"roots":{}}"#);
    assert_eq!(Capabilities::declared(Some("no JSON")), Capabilities::default());
    for declared in [
        r#"{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}}}"#,
        r#"{"elicitation":{"url":{}}}"#,
        r#"{"elicitation":{}}"#,
        r#"{"roots":{},"sampling":{}}"#,
        "{}",
    ] {
        let told = SessionState { capabilities: Capabilities::declared(Some(declared)), ..state(1) };
        let session = open(&sessions, &sessions.seal(&told), &told, NOW).expect("it opens");
        assert_eq!(session.capabilities.json(), declared);
    }
    assert_eq!(Capabilities(0b111).json(), r#"{"elicitation":{},"roots":{},"sampling":{}}"#, "as ids of an earlier host say it");
}

#[test]
fn an_id_outlives_the_process_that_made_it() {
    let id = sessions(1, &[]).seal(&state(1));
    assert!(id.bytes().all(|byte| byte.is_ascii_graphic()), "{id}");
    let opened = open(&sessions(1, &[]), &id, &state(1), NOW).expect("another process with the same key opens it");
    assert_eq!(opened.revision, Revision::V2025_11_25);
    assert!(open(&sessions(2, &[1]), &id, &state(1), NOW).is_some(), "an older key still opens");
    assert!(open(&sessions(2, &[]), &id, &state(1), NOW).is_none(), "an unknown key does not");
}

#[test]
fn an_id_is_bound_to_its_token_its_project_and_its_time() {
    let ours = sessions(1, &[]);
    let id = ours.seal(&state(1));
    let other_token = SessionState { token: TokenId::from_bytes([9; 16]), ..state(1) };
    let other_project = SessionState { project: ProjectId::from_bytes([9; 16]), ..state(1) };
    assert!(open(&ours, &id, &other_token, NOW).is_none());
    assert!(open(&ours, &id, &other_project, NOW).is_none());
    assert!(open(&ours, &id, &state(1), NOW + SESSION_AGE_MS_MAX).is_some());
    assert!(open(&ours, &id, &state(1), NOW + (SESSION_AGE_MS_MAX + 1)).is_none());
}

proptest! {
    #[test]
    fn no_other_text_opens(noise in proptest::collection::vec(any::<u8>(), 0..140), at in 0usize..ID_CHARS, to in any::<u8>()) {
        let ours = sessions(1, &[]);
        let id = ours.seal(&state(1));
        prop_assert!(ours.open(&noise, state(1).token, state(1).project, NOW).is_none());
        let mut changed = id.clone().into_bytes();
        prop_assume!(changed[at] != to);
        changed[at] = to;
        prop_assert!(ours.open(&changed, state(1).token, state(1).project, NOW).is_none());
    }
}
