//! The order within a thread, and what an inbox does whatever happens: stories, and any schedule against the naive inbox.

use std::collections::BTreeMap;

use pointsman::service::kit::Acting;
use pointsman::service::messaging::{Nack, SendRequest, WaitRequest};
use pointsman_core::ids::{MessageId, ThreadId};
use pointsman_core::inbox::Try;
use proptest::prelude::*;

use crate::naive::{Letter, Naive};
use crate::world::{ATTEMPTS_MAX, LEASE_MS, World, message, subjects};

#[tokio::test(flavor = "multi_thread")]
async fn a_later_message_of_a_thread_waits_for_one_that_backs_off() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let first = world.send(&ana, "agent:bo", "one").await;
    let more = |subject: &str, priority| SendRequest { thread: Some(first.thread), priority, ..message("agent:bo", subject) };
    assert_eq!(subjects(&world.take(&bo).await), ["one"]);
    let nack = Nack { message: first.message, reason: "not now".to_owned(), delay_s: Some(30) };
    world.messaging.settle(&bo, &[], &[nack]).await.expect("it is given back");
    for (subject, priority) in [("two", None), ("three, urgent", Some(9))] {
        world.messaging.send(&ana, &more(subject, priority)).await.expect("it is sent");
    }
    world.send(&ana, "agent:bo", "of another thread").await;
    let answer = world.take(&bo).await;
    assert_eq!((subjects(&answer), answer.unread), (vec!["of another thread"], 0));
    let held = world.events("message.held").await;
    assert_eq!(held.len(), 2, "each is held once");
    assert!(held.iter().all(|event| event.event.data["behind"] == first.message.to_string()));

    let world = world.restart().await;
    assert!(world.take(&bo).await.messages.is_empty(), "a restart changes nothing");
    world.pass(30_000).await;
    assert_eq!(subjects(&world.take(&bo).await), ["three, urgent", "one", "two"], "all are ready again, urgent ones first");
    assert_eq!(world.events("message.held").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_ack_lets_the_thread_go_on() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let first = world.send(&ana, "agent:bo", "one").await;
    world.take(&bo).await;
    let nack = Nack { message: first.message, reason: String::new(), delay_s: Some(600) };
    world.messaging.settle(&bo, &[], &[nack]).await.expect("it is given back");
    let next = SendRequest { thread: Some(first.thread), ..message("agent:bo", "two") };
    world.messaging.send(&ana, &next).await.expect("it is sent");
    assert!(world.take(&bo).await.messages.is_empty());
    world.ack(&bo, first.message).await;
    assert_eq!(subjects(&world.take(&bo).await), ["two"]);
}

/// What the schedule counts time in: so long that what the test itself takes never matters.
const UNIT_MS: u64 = LEASE_MS;
/// Threads of one schedule.
const THREADS: usize = 2;

#[derive(Debug, Clone)]
enum Act {
    /// To one of the two, or to both.
    Send {
        to: usize,
        thread: usize,
        priority: u8,
        expires_in: Option<u8>,
    },
    Take {
        who: usize,
        max: usize,
    },
    /// Acks and gives back, in one call.
    Settle {
        who: usize,
        ack: Vec<usize>,
        nack: Vec<(usize, u8)>,
    },
    Pass {
        units: u8,
    },
    Recall {
        who: usize,
        is_taken_back: bool,
    },
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let expires_in = proptest::option::weighted(0.2, 1u8..6);
    let picks = || proptest::collection::vec(0usize..12, 0..3);
    let nacks = proptest::collection::vec((0usize..12, 0u8..4), 0..3);
    let act = prop_oneof![
        8 => (0usize..3, 0..THREADS, 3u8..6, expires_in)
            .prop_map(|(to, thread, priority, expires_in)| Act::Send { to, thread, priority, expires_in }),
        8 => (0usize..2, 1usize..4).prop_map(|(who, max)| Act::Take { who, max }),
        9 => (0usize..2, picks(), nacks).prop_map(|(who, ack, nack)| Act::Settle { who, ack, nack }),
        5 => (1u8..4).prop_map(|units| Act::Pass { units }),
        1 => (0usize..2, any::<bool>()).prop_map(|(who, is_taken_back)| Act::Recall { who, is_taken_back }),
        1 => Just(Act::Restart),
    ];
    proptest::collection::vec(act, 10..60)
}

/// One agent with its inbox as it should be.
struct Reader {
    agent: Acting,
    naive: Naive,
    messages: Vec<MessageId>,
}

impl Reader {
    fn new(agent: Acting) -> Self {
        Self { agent, naive: Naive::new(1, ATTEMPTS_MAX), messages: Vec::new() }
    }

    async fn take(&mut self, world: &World, max: usize) -> Result<Vec<MessageId>, TestCaseError> {
        let request = WaitRequest { max_s: Some(0), messages_max: Some(max), ..WaitRequest::default() };
        let answer = world.messaging.wait(&self.agent, &request).await.expect("it waits");
        let handed: Vec<(MessageId, u32)> = answer.messages.iter().map(|handed| (handed.message.id, handed.attempt)).collect();
        let expected: Vec<(MessageId, u32)> =
            self.naive.take(max).into_iter().map(|i| (self.messages[i], self.naive.letters[i].attempts)).collect();
        prop_assert_eq!(&handed, &expected);
        Ok(handed.into_iter().map(|(message, _)| message).collect())
    }

    async fn settle(&mut self, world: &World, ack: &[usize], nack: &[(usize, u8)]) -> Result<(), TestCaseError> {
        let count = self.messages.len();
        if count == 0 {
            return Ok(());
        }
        // Each message once: what contradicts itself is another story.
        let mut chosen: BTreeMap<usize, Option<u8>> = nack.iter().map(|(pick, delay)| (pick % count, Some(*delay))).collect();
        chosen.extend(ack.iter().map(|pick| (pick % count, None)));
        let acks: Vec<MessageId> = chosen.iter().filter(|(_, delay)| delay.is_none()).map(|(i, _)| self.messages[*i]).collect();
        let nacks: Vec<Nack> = chosen
            .iter()
            .filter_map(|(i, delay)| delay.map(|units| (self.messages[*i], u64::from(units) * UNIT_MS / 1_000)))
            .map(|(message, delay_s)| Nack { message, reason: "not now".to_owned(), delay_s: Some(delay_s) })
            .collect();
        let settled = world.messaging.settle(&self.agent, &acks, &nacks).await.expect("it settles");
        // The host settles acks before nacks; of different messages the order does not matter.
        let mut refused: Vec<MessageId> = Vec::new();
        for (i, delay) in chosen {
            let fits = match delay {
                None => self.naive.ack(i),
                Some(units) => self.naive.nack(i, units.into()),
            };
            if !fits {
                refused.push(self.messages[i]);
            }
        }
        let mut found: Vec<MessageId> = settled.refused.iter().map(|refused| refused.message).collect();
        refused.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, refused);
        Ok(())
    }
}

async fn send(
    world: &World,
    from: &Acting,
    readers: &mut [Reader; 2],
    threads: &mut [Option<ThreadId>; THREADS],
    act: (usize, usize, u8, Option<u8>),
) {
    let (to, thread, priority, expires_in) = act;
    let recipients = match to {
        0 => vec!["agent:bo".to_owned()],
        1 => vec!["agent:cy".to_owned()],
        _ => vec!["agent:bo".to_owned(), "agent:cy".to_owned()],
    };
    let expires_in_s = expires_in.map(|units| u64::from(units) * UNIT_MS / 1_000);
    let request =
        SendRequest { to: recipients, thread: threads[thread], priority: Some(priority), expires_in_s, ..message("agent:bo", "step") };
    let receipt = world.messaging.send(from, &request).await.expect("it is sent");
    threads[thread] = Some(receipt.thread);
    for (i, reader) in readers.iter_mut().enumerate() {
        if to == i || to == 2 {
            reader.naive.send(thread, priority, expires_in.map(i64::from));
            reader.messages.push(receipt.message);
        }
    }
}

/// What the log says of each delivery: acked at most once, handed out at most so often, ended once.
async fn check_log(world: &World, readers: &[Reader; 2]) -> Result<(), TestCaseError> {
    let mut counts: BTreeMap<(String, String, String), u32> = BTreeMap::new();
    for event in world.kit.store.events(Some(world.project), Default::default(), 100_000).await.expect("the log is read") {
        if let Some(agent) = event.event.data["agent"].as_str().filter(|_| event.event.kind.starts_with("message.")) {
            *counts.entry((event.event.subject.clone(), agent.to_owned(), event.event.kind.clone())).or_default() += 1;
        }
    }
    for reader in readers {
        for (message, letter) in reader.messages.iter().zip(&reader.naive.letters) {
            let count = |kind: &str| {
                let key = (message.to_string(), reader.agent.agent.id.to_string(), format!("message.{kind}"));
                counts.get(&key).copied().unwrap_or(0)
            };
            prop_assert!(count("acked") <= 1);
            prop_assert_eq!(count("acked") + count("expired") + count("dead_lettered"), 1, "{:?}", letter);
            prop_assert!(count("handed_out") <= ATTEMPTS_MAX + count("recalled"));
        }
    }
    Ok(())
}

async fn play(acts: &[Act]) -> Result<(), TestCaseError> {
    let mut world = World::start().await;
    let ana = world.agent("ana", &[]).await;
    let mut readers = [Reader::new(world.agent("bo", &[]).await), Reader::new(world.agent("cy", &[]).await)];
    let mut threads = [None; THREADS];
    for act in acts {
        match act {
            Act::Send { to, thread, priority, expires_in } => {
                send(&world, &ana, &mut readers, &mut threads, (*to, *thread, *priority, *expires_in)).await;
            }
            Act::Take { who, max } => {
                readers[*who].take(&world, *max).await?;
            }
            Act::Settle { who, ack, nack } => readers[*who].settle(&world, ack, nack).await?,
            Act::Pass { units } => {
                world.pass(u64::from(*units) * UNIT_MS).await;
                readers.iter_mut().for_each(|reader| reader.naive.pass(i64::from(*units)));
            }
            Act::Recall { who, is_taken_back } => {
                let tried = if *is_taken_back { Try::TakenBack } else { Try::Counts };
                world.messaging.recall(&readers[*who].agent, tried).await.expect("it is recalled");
                readers[*who].naive.recall(*is_taken_back);
            }
            Act::Restart => world = world.restart().await,
        }
        for reader in &readers {
            let live = u32::try_from(reader.naive.letters.iter().filter(|letter| letter.is_live()).count()).expect("few");
            let unread = world.messaging.unread(world.project, reader.agent.agent.id).await.expect("a count");
            prop_assert!(unread <= live, "after {:?}", act);
        }
    }
    // Whoever acks what it is handed sees the end of everything.
    while readers.iter().any(|reader| reader.naive.letters.iter().any(Letter::is_live)) {
        world.pass(4 * UNIT_MS).await;
        for reader in &mut readers {
            reader.naive.pass(4);
            let handed = reader.take(&world, 20).await?;
            let settled = world.messaging.settle(&reader.agent, &handed, &[]).await.expect("it is acked");
            prop_assert!(settled.refused.is_empty());
            handed.iter().filter_map(|id| reader.messages.iter().position(|known| known == id)).for_each(|i| {
                reader.naive.ack(i);
            });
        }
    }
    check_log(&world, &readers).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]
    /// On a real store, which is reopened in between as after a crash: nothing is lost, nothing acked twice, threads keep their order.
    #[test]
    fn the_service_does_what_the_naive_inbox_does(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(play(&acts))?;
    }
}
