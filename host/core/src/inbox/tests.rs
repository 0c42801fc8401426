mod naive;
mod order;

use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms { lease_ms: 1_000, attempts_max: 4 };

fn agent(n: u8) -> AgentId {
    AgentId::from_bytes([n; 16])
}

fn delivery(candidates: u8) -> Delivery {
    let ranked: Vec<AgentId> = (1..=candidates).map(agent).collect();
    Delivery::new(TimeMs(0), MessageId::from_bytes([9; 16]), &ranked, Place { priority: 4, order: 1 }).expect("there is a candidate")
}

fn nack(by: u8) -> Command {
    Command::Nack { by: agent(by), delay_ms: None, reason: "busy".to_owned(), random: 7 }
}

fn apply(delivery: &mut Delivery, at: i64, command: Command) -> Transition {
    delivery.apply(TimeMs(at), &TERMS, command).expect("it fits")
}

#[test]
fn what_is_acked_is_done_and_stays_so() {
    let mut it = delivery(1);
    assert_eq!(apply(&mut it, 5, Command::HandOut), Transition::HandedOut { attempt: 1, until: TimeMs(1_005) });
    assert_eq!(apply(&mut it, 6, Command::HandOut), Transition::Unchanged);
    assert_eq!(apply(&mut it, 7, Command::Ack { by: agent(1) }), Transition::Acked);
    assert_eq!(apply(&mut it, 8, Command::Ack { by: agent(1) }), Transition::Unchanged);
    assert_eq!(it.due_at(&TERMS), None);
    let message = it.message;
    assert_eq!(it.apply(TimeMs(9), &TERMS, nack(1)), Err(InboxError::Ended { message, how: "was acked" }));
}

#[test]
fn only_who_was_handed_it_can_ack_it() {
    let mut it = delivery(2);
    let message = it.message;
    assert_eq!(it.apply(TimeMs(1), &TERMS, Command::Ack { by: agent(1) }), Err(InboxError::NotHandedOut { message }));
    apply(&mut it, 1, Command::HandOut);
    assert_eq!(it.apply(TimeMs(1), &TERMS, Command::Ack { by: agent(2) }), Err(InboxError::NotHolder { message }));
    assert!(matches!(apply(&mut it, 2, nack(1)), Transition::PassedOn { .. }));
    assert_eq!(it.apply(TimeMs(3), &TERMS, Command::Ack { by: agent(1) }), Err(InboxError::NotHolder { message }));
    assert_eq!(apply(&mut it, 3, nack(1)), Transition::Unchanged, "a repeated nack is none");
}

#[test]
fn given_back_it_goes_to_the_next_then_waits() {
    let mut first = delivery(2);
    apply(&mut first, 0, Command::HandOut);
    let Transition::PassedOn { next, cause: Cause::Nacked, .. } = apply(&mut first, 1, nack(1)) else {
        panic!("the second candidate is next");
    };
    let mut second = *next;
    assert_eq!((second.agent, second.attempts, second.refused.clone()), (agent(2), 1, vec![agent(1)]));
    assert_eq!(apply(&mut second, 2, Command::HandOut), Transition::HandedOut { attempt: 2, until: TimeMs(1_002) });
    let Transition::GivenBack { ready_at, .. } = apply(&mut second, 3, nack(2)) else { panic!("nobody is left") };
    assert!(ready_at > TimeMs(3) && !second.is_ready());
    assert_eq!(apply(&mut second, ready_at.0 - 1, Command::Due), Transition::Unchanged);
    assert_eq!(apply(&mut second, ready_at.0, Command::Due), Transition::Ready);
}

#[test]
fn a_lease_lapses_and_a_late_ack_counts() {
    let mut it = delivery(1);
    apply(&mut it, 0, Command::HandOut);
    assert_eq!(apply(&mut it, 999, Command::Due), Transition::Unchanged);
    assert!(matches!(apply(&mut it, 1_000, Command::Due), Transition::GivenBack { cause: Cause::Lapsed, .. }));
    assert!(it.is_ready());
    assert_eq!(apply(&mut it, 1_001, Command::Ack { by: agent(1) }), Transition::Acked);
}

#[test]
fn who_does_not_fetch_it_loses_it_to_the_next() {
    let mut it = delivery(2);
    assert_eq!(it.due_at(&TERMS), Some(TimeMs(1_000)));
    let Transition::PassedOn { next, cause: Cause::Unclaimed, .. } = apply(&mut it, 1_000, Command::Due) else {
        panic!("the second candidate is next");
    };
    assert_eq!((next.agent, next.attempts, next.refused.len()), (agent(2), 0, 0));
    assert_eq!(next.due_at(&TERMS), None, "the last one keeps it");
}

#[test]
fn too_many_tries_make_a_dead_letter() {
    let mut it = delivery(1);
    let mut at = 0;
    for attempt in 1..=TERMS.attempts_max {
        assert!(matches!(apply(&mut it, at, Command::HandOut), Transition::HandedOut { .. }), "{attempt}");
        let given_back = apply(&mut it, at, nack(1));
        if attempt == TERMS.attempts_max {
            assert!(matches!(given_back, Transition::DeadLettered { cause: Cause::Nacked, .. }));
        } else {
            at = it.due_at(&TERMS).expect("it waits").0;
            assert_eq!(apply(&mut it, at, Command::Due), Transition::Ready);
        }
    }
    assert!(!it.is_live());
}

#[test]
fn it_expires_wherever_it_waits_but_not_in_hand() {
    let mut ready = Delivery { expires_at: Some(TimeMs(500)), ..delivery(1) };
    assert_eq!(ready.due_at(&TERMS), Some(TimeMs(500)));
    let mut leased = ready.clone();
    assert_eq!(apply(&mut ready, 500, Command::HandOut), Transition::Expired);
    apply(&mut leased, 100, Command::HandOut);
    assert_eq!(apply(&mut leased, 600, Command::Due), Transition::Unchanged);
    let mut acked = leased.clone();
    assert_eq!(apply(&mut acked, 700, Command::Ack { by: agent(1) }), Transition::Acked);
    assert_eq!(apply(&mut leased, 1_100, Command::Due), Transition::Expired);
}

#[test]
fn a_recalled_delivery_comes_back_to_its_agent() {
    let mut it = delivery(2);
    apply(&mut it, 0, Command::HandOut);
    assert!(matches!(apply(&mut it, 1, Command::Recall(Try::Counts)), Transition::GivenBack { cause: Cause::Recalled, .. }));
    assert!(it.is_ready() && it.agent == agent(1) && it.refused.is_empty());
    assert_eq!(apply(&mut it, 1, Command::Recall(Try::Counts)), Transition::Unchanged);
}

#[test]
fn a_try_that_is_taken_back_does_not_count() {
    let mut it = delivery(1);
    for at in 0..i64::from(TERMS.attempts_max) * 3 {
        let Transition::HandedOut { attempt, .. } = apply(&mut it, at, Command::HandOut) else { panic!("{it:?}") };
        assert_eq!(attempt, 1);
        assert!(matches!(apply(&mut it, at, Command::Recall(Try::TakenBack)), Transition::GivenBack { cause: Cause::Recalled, .. }));
    }
    assert_eq!(apply(&mut it, 100, Command::Ack { by: agent(1) }), Transition::Acked, "it has seen it all the same");
    let mut counted = delivery(1);
    for at in 1..=i64::from(TERMS.attempts_max) {
        apply(&mut counted, at, Command::HandOut);
        apply(&mut counted, at, Command::Recall(Try::Counts));
    }
    assert!(matches!(counted.state, DeliveryState::DeadLettered { .. }));
}

#[test]
fn places_sort_urgent_first_then_old_first() {
    let mut places: Vec<Place> = [(4, 2), (9, 3), (4, 1), (0, 0)].into_iter().map(|(priority, order)| Place { priority, order }).collect();
    places.sort_by_key(Place::key);
    let sorted: Vec<(u8, u64)> = places.iter().map(|place| (place.priority, place.order)).collect();
    assert_eq!(sorted, [(9, 3), (4, 1), (4, 2), (0, 0)]);
}

/// One step of a schedule: which agent, what it does, how much later.
#[derive(Debug, Clone)]
struct Step {
    by: u8,
    act: u8,
    later_ms: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (1u8..5, 0u8..6, 0i64..1_500).prop_map(|(by, act, later_ms)| Step { by, act, later_ms });
    proptest::collection::vec(step, 1..60)
}

fn command(step: &Step) -> Command {
    match step.act {
        0 => Command::HandOut,
        1 => Command::Ack { by: agent(step.by) },
        2 => nack(step.by),
        3 => Command::Due,
        4 => Command::Recall(Try::Counts),
        _ => Command::Recall(Try::TakenBack),
    }
}

/// What a reader of the transitions alone believes: the naive model of the chain.
#[derive(Debug, Default)]
struct Reader {
    handed_out: u32,
    ends: u32,
    holder: u8,
}

proptest! {
    #[test]
    fn a_route_never_loses_nor_doubles_its_message(
        candidates in 1u8..4,
        expires in proptest::option::of(1i64..20_000),
        schedule in steps(),
    ) {
        let first = Delivery { expires_at: expires.map(TimeMs), ..delivery(candidates) };
        let mut chain = vec![first];
        let mut reader = Reader { holder: 1, ..Reader::default() };
        let mut now = 0;
        for step in &schedule {
            now += step.later_ms;
            let live = chain.len() - 1;
            let before = chain[live].clone();
            let result = chain[live].apply(TimeMs(now), &TERMS, command(step));
            match result {
                Err(_) | Ok(Transition::Unchanged) => prop_assert_eq!(&chain[live], &before, "a refusal changes nothing"),
                Ok(transition) => {
                    prop_assert_ne!(&chain[live].state, &before.state, "each transition changes the state");
                    prop_assert!(before.is_live(), "what ended stays ended");
                    match transition {
                        Transition::HandedOut { attempt, .. } => {
                            reader.handed_out += 1;
                            prop_assert_eq!(attempt, reader.handed_out);
                        }
                        Transition::PassedOn { next, .. } => {
                            reader.holder += 1;
                            prop_assert_eq!(next.agent, agent(reader.holder));
                            chain.push(*next);
                        }
                        Transition::Acked | Transition::DeadLettered { .. } | Transition::Expired => reader.ends += 1,
                        Transition::GivenBack { .. } if step.act == 5 => reader.handed_out -= 1,
                        Transition::GivenBack { .. } | Transition::Ready | Transition::Held { .. } => {}
                        Transition::Unchanged => unreachable!("judged above"),
                    }
                }
            }
            let live = chain.iter().filter(|delivery| delivery.is_live()).count();
            prop_assert_eq!(live + usize::try_from(reader.ends).expect("few"), 1, "one live delivery, or one end");
            prop_assert!(reader.handed_out <= TERMS.attempts_max);
            prop_assert!(chain.len() <= usize::from(candidates));
        }
    }

    #[test]
    fn left_alone_it_comes_back_until_it_is_a_dead_letter(candidates in 1u8..4) {
        let mut it = delivery(candidates);
        let mut now = 0;
        let mut handed_out = 0;
        for _ in 0..100 {
            if it.is_ready() {
                handed_out += 1;
                apply(&mut it, now, Command::HandOut);
            }
            let Some(due) = it.due_at(&TERMS) else { break };
            now = due.0.max(now);
            if let Transition::PassedOn { next, .. } = apply(&mut it, now, Command::Due) {
                it = *next;
            }
        }
        prop_assert_eq!(handed_out, TERMS.attempts_max);
        let dead = matches!(it.state, DeliveryState::DeadLettered { .. });
        prop_assert!(dead);
    }

    #[test]
    fn back_off_grows_and_is_bounded(attempts in 0u32..1_000, random: u64) {
        let ms = back_off_ms(attempts, random);
        prop_assert!((BACK_OFF_MS / 2..=BACK_OFF_MS_MAX).contains(&ms));
        prop_assert!(back_off_ms(attempts + 1, 0) >= back_off_ms(attempts, 0));
    }
}
