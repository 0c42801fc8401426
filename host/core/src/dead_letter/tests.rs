use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::inbox::{Command, Place, Terms, Transition};

const TERMS: Terms = Terms { lease_ms: 1_000, attempts_max: 2 };

fn agent(n: u8) -> AgentId {
    AgentId::from_bytes([n; 16])
}

fn delivery(candidates: u8) -> Delivery {
    let ranked: Vec<AgentId> = (1..=candidates).map(agent).collect();
    Delivery::new(TimeMs(0), MessageId::from_bytes([9; 16]), &ranked, Place { priority: 4, order: 1 }).expect("there is a candidate")
}

/// Tries a delivery until it is given up.
fn dead(mut it: Delivery) -> Delivery {
    it.rest.clear();
    for at in 0.. {
        it.apply(TimeMs(at), &TERMS, Command::HandOut).expect("it fits");
        let nack = Command::Nack { by: it.agent, delay_ms: Some(0), reason: "busy".to_owned(), random: 0 };
        if let Transition::DeadLettered { .. } = it.apply(TimeMs(at), &TERMS, nack).expect("it fits") {
            break;
        }
    }
    it
}

#[test]
fn a_letter_lives_again_with_all_its_tries() {
    let letter = dead(delivery(1));
    let Revived { mut live, left } = revive(&letter, TimeMs(50), Heir::Same).expect("it lives");
    assert_eq!((live.agent, live.attempts, live.place, left), (letter.agent, 0, letter.place, None));
    assert!(live.is_ready() && live.refused.is_empty());
    assert_eq!(revive(&live, TimeMs(51), Heir::Same), Err(LetterError::NotDead { message: live.message }), "once");
    let by = live.agent;
    let acked = live.apply(TimeMs(52), &TERMS, Command::Ack { by });
    assert_eq!(acked, Ok(Transition::Acked), "who was handed it before may still have done it");
}

#[test]
fn a_letter_goes_to_whom_it_is_routed_anew() {
    let letter = dead(delivery(1));
    let Revived { live, left } =
        revive(&letter, TimeMs(50), Heir::Routed { agent: agent(2), rest: &[agent(2), agent(3)], had: None }).expect("it lives");
    assert_eq!((live.agent, live.attempts_here, live.rest), (agent(2), 0, vec![agent(3)]));
    assert_eq!(left.map(|left| (left.agent, left.state)), Some((agent(1), DeliveryState::PassedOn { to: agent(2), at: TimeMs(50) })));
    let own = Delivery { agent: agent(2), ..dead(delivery(1)) };
    let heir = Heir::Routed { agent: agent(2), rest: &[], had: Some(&own) };
    assert_eq!(revive(&letter, TimeMs(50), heir), Err(LetterError::Served { message: letter.message, agent: agent(2) }));
}

#[test]
fn what_is_over_stays_dead() {
    let letter = Delivery { expires_at: Some(TimeMs(40)), ..dead(delivery(1)) };
    assert_eq!(revive(&letter, TimeMs(40), Heir::Same), Err(LetterError::Over { message: letter.message, at: TimeMs(40) }));
    assert!(revive(&letter, TimeMs(39), Heir::Same).is_ok());
}

/// What may happen to the deliveries of one message.
#[derive(Debug, Clone)]
enum Act {
    HandOut,
    Ack,
    Nack,
    Due,
    Revive,
    Route(u8),
}

fn acts() -> impl Strategy<Value = Vec<(Act, i64)>> {
    let act = prop_oneof![
        4 => Just(Act::HandOut),
        1 => Just(Act::Ack),
        4 => Just(Act::Nack),
        2 => Just(Act::Due),
        3 => Just(Act::Revive),
        3 => (1u8..5).prop_map(Act::Route),
    ];
    proptest::collection::vec((act, 0i64..700), 1..80)
}

/// The deliveries of one message, one an agent, as the store has them.
struct Chain {
    held: BTreeMap<AgentId, Delivery>,
    last: AgentId,
}

impl Chain {
    /// Returns whether the act changed anything.
    fn act(&mut self, act: &Act, now: TimeMs) -> bool {
        let mut it = self.held[&self.last].clone();
        let command = match act {
            Act::HandOut => Command::HandOut,
            Act::Ack => Command::Ack { by: it.agent },
            Act::Nack => Command::Nack { by: it.agent, delay_ms: Some(0), reason: String::new(), random: 0 },
            Act::Due => Command::Due,
            Act::Revive => return self.revive(now, None),
            Act::Route(n) => return self.revive(now, Some(agent(*n))),
        };
        let Ok(transition) = it.apply(now, &TERMS, command) else { return false };
        self.held.insert(it.agent, it);
        if let Transition::PassedOn { next, .. } = &transition {
            self.last = next.agent;
            assert!(self.held.insert(next.agent, (**next).clone()).is_none(), "nobody is served twice");
        }
        transition != Transition::Unchanged
    }

    fn revive(&mut self, now: TimeMs, to: Option<AgentId>) -> bool {
        let letter = self.held[&self.last].clone();
        let had = to.and_then(|to| self.held.get(&to)).cloned();
        let heir = to.map_or(Heir::Same, |agent| Heir::Routed { agent, rest: &[], had: had.as_ref() });
        let Ok(Revived { live, left }) = revive(&letter, now, heir) else { return false };
        assert!(live.is_ready() && live.attempts == 0);
        self.held.extend(left.map(|left| (left.agent, left)));
        self.last = live.agent;
        self.held.insert(live.agent, live);
        true
    }
}

proptest! {
    #[test]
    fn at_most_one_delivery_lives_and_none_is_forgotten(
        candidates in 1u8..4,
        expires in proptest::option::of(1i64..20_000),
        schedule in acts(),
    ) {
        let first = Delivery { expires_at: expires.map(TimeMs), ..delivery(candidates) };
        let mut chain = Chain { last: first.agent, held: BTreeMap::from([(first.agent, first)]) };
        let (mut now, mut handed_out) = (0, 0);
        for (act, later_ms) in &schedule {
            now += later_ms;
            let before = chain.held.clone();
            let changed = chain.act(act, TimeMs(now));
            if !changed {
                prop_assert_eq!(&chain.held, &before, "a refusal changes nothing");
                continue;
            }
            match act {
                Act::HandOut if chain.held[&chain.last].is_live() => handed_out += 1,
                Act::Revive | Act::Route(_) => {
                    prop_assert!(before.values().all(|delivery| !delivery.is_live()), "only what was given up lives again");
                    handed_out = 0;
                }
                Act::HandOut | Act::Ack | Act::Nack | Act::Due => {}
            }
            prop_assert!(handed_out <= TERMS.attempts_max, "each life has so many tries and no more");
            let live = chain.held.values().filter(|delivery| delivery.is_live()).count();
            let last = &chain.held[&chain.last];
            prop_assert_eq!(live, usize::from(last.is_live()), "one lives, and it is the last one");
            for (agent, delivery) in &chain.held {
                prop_assert_eq!(agent, &delivery.agent);
                let is_passed = matches!(delivery.state, DeliveryState::PassedOn { .. });
                prop_assert_eq!(is_passed, *agent != chain.last, "all others passed it on");
            }
        }
    }
}
