//! The order within a thread: an inbox of deliveries and lines, against the naive one.

use std::collections::BTreeMap;

use super::naive::{Naive, State};
use super::*;

/// One agent's inbox, kept as the host keeps it.
#[derive(Debug, Default)]
struct Inbox {
    deliveries: Vec<Delivery>,
    lines: BTreeMap<ThreadId, Line>,
}

fn thread(n: usize) -> ThreadId {
    ThreadId::from_bytes([u8::try_from(n).expect("few threads"); 16])
}

impl Inbox {
    fn send(&mut self, now: i64, in_thread: usize, priority: u8, expires_in: Option<i64>) {
        let order = self.deliveries.len() as u64;
        // Ids do not sort as their messages were sent: the order is that of places.
        let message = MessageId::from_bytes([255 - u8::try_from(order).expect("few messages"); 16]);
        let new = Delivery::new(TimeMs(now), message, &[agent(1)], Place { priority, order }).expect("there is an agent");
        let expires_at = expires_in.map(|after| TimeMs(now + after));
        self.deliveries.push(Delivery { thread: Some(thread(in_thread)), expires_at, ..new });
    }

    fn step(&mut self, now: i64, i: usize, command: Command) -> Result<Transition, InboxError> {
        let delivery = &mut self.deliveries[i];
        let stood_still = delivery.stands_still();
        let transition = delivery.apply(TimeMs(now), &TERMS, command)?;
        if stood_still || delivery.stands_still() {
            let thread = delivery.thread.expect("each has one");
            let line = self.lines.entry(thread).or_default();
            line.note(delivery);
            let freed = line.release();
            if line.is_empty() {
                self.lines.remove(&thread);
            }
            for message in freed {
                let freed = self.deliveries.iter_mut().find(|delivery| delivery.message == message).expect("it is in the line");
                freed.apply(TimeMs(now), &TERMS, Command::Release).expect("it fits");
            }
        }
        Ok(transition)
    }

    fn take(&mut self, now: i64, max: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.deliveries.len()).filter(|&i| self.deliveries[i].is_ready()).collect();
        order.sort_by_key(|&i| self.deliveries[i].place.key());
        let mut taken = Vec::new();
        for i in order {
            if taken.len() == max {
                break;
            }
            let line = self.deliveries[i].thread.and_then(|thread| self.lines.get(&thread));
            match line.and_then(|line| line.before(&self.deliveries[i])) {
                Some(behind) => {
                    self.step(now, i, Command::Hold { behind }).expect("it fits");
                }
                None => {
                    if let Ok(Transition::HandedOut { .. }) = self.step(now, i, Command::HandOut) {
                        taken.push(i);
                    }
                }
            }
        }
        taken
    }

    fn pass(&mut self, now: i64) {
        for i in 0..self.deliveries.len() {
            if self.deliveries[i].due_at(&TERMS).is_some_and(|at| at.0 <= now) {
                self.step(now, i, Command::Due).expect("it fits");
            }
        }
    }

    /// What a restart does: everything is read from its stored form.
    fn reload(&mut self) {
        for delivery in &mut self.deliveries {
            *delivery = crate::value::decode(&crate::value::encode(delivery)).expect("it reads back");
        }
        for line in self.lines.values_mut() {
            *line = crate::value::decode(&crate::value::encode(line)).expect("it reads back");
        }
    }

    fn states(&self) -> Vec<(State, u32)> {
        let state = |delivery: &Delivery| match delivery.state {
            DeliveryState::Ready { .. } | DeliveryState::Held { .. } => State::Ready,
            DeliveryState::Waiting { until } => State::Waiting(until.0),
            DeliveryState::Leased { until, .. } => State::Leased(until.0),
            DeliveryState::Acked { .. } => State::Acked,
            DeliveryState::DeadLettered { .. } => State::Dead,
            DeliveryState::Expired { .. } => State::Expired,
            DeliveryState::PassedOn { .. } => unreachable!("there is one agent"),
        };
        self.deliveries.iter().map(|delivery| (state(delivery), delivery.attempts)).collect()
    }
}

#[derive(Debug, Clone)]
enum Act {
    Send { thread: usize, priority: u8, expires_in: Option<i64> },
    Take { max: usize },
    Ack { pick: usize },
    Nack { pick: usize, delay: i64 },
    Pass { ms: i64 },
    Recall { is_taken_back: bool },
    Reload,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let expires_in = proptest::option::weighted(0.2, (1i64..40).prop_map(|n| n * 100));
    let act = prop_oneof![
        4 => (0usize..3, 3u8..6, expires_in).prop_map(|(thread, priority, expires_in)| Act::Send { thread, priority, expires_in }),
        4 => (1usize..4).prop_map(|max| Act::Take { max }),
        3 => any::<usize>().prop_map(|pick| Act::Ack { pick }),
        4 => (any::<usize>(), 0i64..20).prop_map(|(pick, n)| Act::Nack { pick, delay: n * 100 }),
        3 => (1i64..20).prop_map(|n| Act::Pass { ms: n * 100 }),
        1 => any::<bool>().prop_map(|is_taken_back| Act::Recall { is_taken_back }),
        1 => Just(Act::Reload),
    ];
    proptest::collection::vec(act, 1..120)
}

fn play(inbox: &mut Inbox, naive: &mut Naive, act: &Act) -> Result<(), TestCaseError> {
    let now = naive.now;
    let count = naive.letters.len();
    match *act {
        Act::Send { thread, priority, expires_in } => {
            naive.send(thread, priority, expires_in);
            inbox.send(now, thread, priority, expires_in);
        }
        Act::Take { max } => prop_assert_eq!(inbox.take(now, max), naive.take(max)),
        Act::Ack { .. } | Act::Nack { .. } if count == 0 => {}
        Act::Ack { pick } => {
            let fits = inbox.step(now, pick % count, Command::Ack { by: agent(1) }).is_ok();
            prop_assert_eq!(fits, naive.ack(pick % count));
        }
        Act::Nack { pick, delay } => {
            let delay_ms = Some(u64::try_from(delay).expect("not negative"));
            let nack = Command::Nack { by: agent(1), delay_ms, reason: "busy".to_owned(), random: 0 };
            prop_assert_eq!(inbox.step(now, pick % count, nack).is_ok(), naive.nack(pick % count, delay));
        }
        Act::Pass { ms } => {
            naive.pass(ms);
            inbox.pass(naive.now);
        }
        Act::Recall { is_taken_back } => {
            naive.recall(is_taken_back);
            let tried = if is_taken_back { Try::TakenBack } else { Try::Counts };
            for i in 0..count {
                inbox.step(now, i, Command::Recall(tried)).expect("it fits");
            }
        }
        Act::Reload => inbox.reload(),
    }
    Ok(())
}

#[test]
fn what_is_held_goes_on_when_the_one_before_it_does() {
    let mut inbox = Inbox::default();
    (0..3).for_each(|_| inbox.send(0, 1, 4, None));
    inbox.send(0, 2, 4, None);
    assert_eq!(inbox.take(0, 1), [0]);
    let nack = Command::Nack { by: agent(1), delay_ms: Some(500), reason: "later".to_owned(), random: 0 };
    inbox.step(0, 0, nack).expect("it fits");
    assert_eq!(inbox.take(1, 9), [3], "another thread goes on");
    assert_eq!(inbox.deliveries[2].state, DeliveryState::Held { since: TimeMs(1), behind: inbox.deliveries[0].message });
    assert_eq!(inbox.take(2, 9), [0; 0]);
    inbox.pass(500);
    assert_eq!(inbox.take(500, 9), [0, 1, 2]);
    assert!(inbox.lines.is_empty());
}

proptest! {
    #[test]
    fn an_inbox_does_what_the_naive_one_does(acts in acts()) {
        let (mut inbox, mut naive) = (Inbox::default(), Naive::new(1_000, TERMS.attempts_max));
        for act in &acts {
            play(&mut inbox, &mut naive, act)?;
            let expected: Vec<_> = naive.letters.iter().map(|letter| (letter.state, letter.attempts)).collect();
            prop_assert_eq!(inbox.states(), expected, "after {:?}", act);
            prop_assert!(naive.letters.iter().all(|letter| letter.attempts <= TERMS.attempts_max));
        }
        // Whoever acks what it is handed sees the end of everything.
        for _ in 0..acts.len() {
            naive.pass(2_000);
            inbox.pass(naive.now);
            let taken = inbox.take(naive.now, 8);
            prop_assert_eq!(&taken, &naive.take(8));
            for i in taken {
                inbox.step(naive.now, i, Command::Ack { by: agent(1) }).expect("it has it");
                naive.ack(i);
            }
        }
        prop_assert!(inbox.deliveries.iter().all(|delivery| !delivery.is_live()), "nothing is lost");
        prop_assert!(inbox.lines.is_empty());
    }
}
