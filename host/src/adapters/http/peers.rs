//! Who is at the other end, by address: how many connections each has, and how often each was turned away for its
//! credential.
//!
//! Must not know what a credential is: it sees only what came and whether it was accepted.
//!
//! **Invariant:** only what may be a guess is held up: a credential that was accepted lately is let through whatever others at the
//! same address do, and so is who shows none, or one that nobody can guess: behind one address there may be many, and on a
//! developer's machine there are.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use pointsman_core::rate::{Buckets, Rate};
use pointsman_core::time::TimeMs;

/// Addresses whose failures are counted.
const COUNTED_MAX: usize = 10_000;
/// Accepted credentials that are remembered; beyond that they are learnt anew.
const ACCEPTED_MAX: usize = 20_000;

/// An address, or what one customer of a provider has of IPv6 (a /64).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Peer(IpAddr);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            v6 @ IpAddr::V6(own) if own.is_loopback() => v6,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }
}

/// What is known of the other ends.
pub(super) struct Peers {
    connections_max: usize,
    connections: Mutex<HashMap<Peer, usize>>,
    failures: Option<Mutex<Buckets<Peer>>>,
    accepted: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

/// One connection of a peer, until it is dropped.
pub(super) struct Seat {
    peers: Arc<Peers>,
    peer: Peer,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut connections = self.peers.connections.lock();
        if let Some(count) = connections.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.peer);
            }
        }
    }
}

/// Whether a credential can be found by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A secret of the host's own: whoever says the right one is in.
    Secret,
    /// Any other, such as a signed token.
    Other,
}

/// A credential as it came, under a key of this process: good for telling whether it came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    key: u64,
    /// Whether it may be a guess.
    pub(super) form: Form,
}

impl Peers {
    /// Returns that nothing is known yet.
    pub(super) fn new(connections_max: usize, failures: Option<Rate>) -> Self {
        Self {
            connections_max,
            connections: Mutex::default(),
            failures: failures.map(|rate| Mutex::new(Buckets::new(rate, COUNTED_MAX))),
            accepted: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Returns a seat for one more connection, none when the peer has as many as it may.
    pub(super) fn seat(self: &Arc<Self>, peer: Peer) -> Option<Seat> {
        let mut connections = self.connections.lock();
        let count = connections.entry(peer).or_default();
        if *count >= self.connections_max {
            return None;
        }
        *count += 1;
        Some(Seat { peers: Arc::clone(self), peer })
    }

    /// Returns a credential as it is remembered.
    pub(super) fn shown(&self, credential: &[u8], form: Form) -> Shown {
        Shown { key: self.hasher.hash_one(credential), form }
    }

    /// Returns the milliseconds that a request has to wait: its address failed too often, and its credential may be a guess.
    pub(super) fn held_up(&self, peer: Peer, shown: Option<Shown>, now: TimeMs) -> Option<u64> {
        let shown = shown.filter(|shown| shown.form == Form::Secret)?;
        let wait_ms = self.failures.as_ref()?.lock().wait_ms(&peer, now)?;
        (!self.is_accepted(shown)).then_some(wait_ms)
    }

    /// Returns whether a credential was accepted when it came last.
    pub(super) fn is_accepted(&self, shown: Shown) -> bool {
        self.accepted.lock().contains(&shown.key)
    }

    /// Remembers that a request was turned away for its credential.
    pub(super) fn failed(&self, peer: Peer, shown: Shown, now: TimeMs) {
        if let Some(failures) = &self.failures {
            // A bucket that is empty already stays so.
            let _ = failures.lock().take(peer, now);
        }
        self.accepted.lock().remove(&shown.key);
    }

    /// Remembers that a credential was accepted.
    pub(super) fn passed(&self, shown: Shown) {
        let mut accepted = self.accepted.lock();
        if accepted.len() >= ACCEPTED_MAX {
            accepted.clear();
        }
        accepted.insert(shown.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn a_peer_is_an_address_or_a_network_of_ipv6() {
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_eq!(peer("::1"), peer("::1"));
    }

    #[test]
    fn seats_come_back() {
        let peers = Arc::new(Peers::new(2, None));
        let (one, two) = (peers.seat(peer("10.0.0.1")), peers.seat(peer("10.0.0.1")));
        assert!(one.is_some() && two.is_some() && peers.seat(peer("10.0.0.1")).is_none());
        assert!(peers.seat(peer("10.0.0.2")).is_some(), "another's seats are its own");
        drop(one);
        assert!(peers.seat(peer("10.0.0.1")).is_some());
        drop(two);
        assert!(peers.connections.lock().is_empty(), "nothing is kept of who left");
    }

    #[test]
    fn who_failed_too_often_waits_unless_its_credential_was_accepted() {
        let peers = Peers::new(1, Rate::new(60, 60, 2));
        let shown = |text: &[u8]| peers.shown(text, Form::Secret);
        let (ana, mallory) = (shown(b"Bearer good"), shown(b"Bearer bad"));
        peers.passed(ana);
        for _ in 0..2 {
            assert_eq!(peers.held_up(peer("10.0.0.1"), Some(mallory), TimeMs(0)), None);
            peers.failed(peer("10.0.0.1"), mallory, TimeMs(0));
        }
        assert_eq!(peers.held_up(peer("10.0.0.1"), Some(mallory), TimeMs(0)), Some(1_000));
        assert_eq!(peers.held_up(peer("10.0.0.1"), None, TimeMs(0)), None, "who shows nothing does not guess");
        let signed = peers.shown(b"Bearer a.b.c", Form::Other);
        assert_eq!(peers.held_up(peer("10.0.0.1"), Some(signed), TimeMs(0)), None, "a signature is not guessed");
        assert_eq!(peers.held_up(peer("10.0.0.1"), Some(ana), TimeMs(0)), None);
        assert_eq!(peers.held_up(peer("10.0.0.2"), Some(mallory), TimeMs(0)), None);
        assert_eq!(peers.held_up(peer("10.0.0.1"), Some(mallory), TimeMs(1_000)), None);
        peers.failed(peer("10.0.0.1"), ana, TimeMs(0));
        assert!(peers.held_up(peer("10.0.0.1"), Some(ana), TimeMs(0)).is_some(), "a revoked one is forgotten");
    }
}
