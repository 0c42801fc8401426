//! Dead letters, as an operator works with them.

use pointsman::ports::letters::{LetterEnd, LetterSelection, LetterVerb, LettersChanged, ReplayTo, Run};
use pointsman::service::kit::Acting;
use pointsman::service::letters;
use pointsman::service::messaging::{LetterFilter, Nack, SendRequest, WaitRequest};
use pointsman_core::ids::MessageId;
use pointsman_core::inbox::DeliveryState;

use crate::world::{ATTEMPTS_MAX, World, code, message};

/// Has an agent give a message back until it is a dead letter.
async fn give_up(world: &World, agent: &Acting, message: MessageId) {
    for _ in 0..ATTEMPTS_MAX {
        let answer = world.take(agent).await;
        assert!(answer.messages.iter().any(|handed| handed.message.id == message), "{answer:?}");
        let nack = Nack { message, reason: "the tool chain is broken".to_owned(), delay_s: Some(1) };
        world.messaging.settle(agent, &[], &[nack]).await.expect("it is given back");
        world.pass(1_001).await;
    }
}

async fn dead_letters(world: &World) -> Vec<MessageId> {
    let page = world.messaging.letters(world.project, &LetterFilter::default(), "", 100).await.expect("a page");
    page.letters.iter().map(|letter| letter.message.id).collect()
}

async fn change(world: &World, verb: LetterVerb, run: Run, selection: LetterSelection) -> LettersChanged {
    letters::change(&world.services, verb, run, &selection).await.expect("an answer")
}

fn of(message: MessageId) -> LetterSelection {
    LetterSelection { messages: vec![message], ..LetterSelection::default() }
}

const SAME: LetterVerb = LetterVerb::Replay(ReplayTo::Same);
const ANEW: LetterVerb = LetterVerb::Replay(ReplayTo::Anew);

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_looked_into_and_delivered_again_once() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let sent = world.send(&ana, "agent:bo", "poison").await.message;
    give_up(&world, &bo, sent).await;
    assert_eq!(dead_letters(&world).await, [sent]);

    let shown = letters::show(&world.services, sent).await.expect("it is shown");
    assert_eq!((shown.project.as_str(), shown.letters.len(), shown.is_whole), ("demo", 1, true));
    let letter = &shown.letters[0];
    assert_eq!((letter.agent.as_str(), letter.attempts, letter.reason.as_str()), ("bo", ATTEMPTS_MAX, "the tool chain is broken"));
    let history: Vec<&str> = shown.history.iter().map(|event| event.kind.as_str()).collect();
    let tries = history.iter().filter(|kind| **kind == "message.handed_out").count();
    assert_eq!((history[0], tries, *history.last().expect("an end")), ("message.sent", 3, "message.dead_lettered"), "{history:?}");
    assert!(shown.history.iter().any(|event| event.reason.as_deref() == Some("the tool chain is broken")));

    let start = world.take(&ana).await.cursor;
    let changed = change(&world, SAME, Run::Real, of(sent)).await;
    assert_eq!((changed.selected, changed.changed, changed.letters[0].outcome), (1, 1, LetterEnd::Revived), "{changed:?}");
    assert_eq!(changed.letters[0].to.as_deref(), Some("bo"));
    let again = change(&world, SAME, Run::Real, of(sent)).await;
    assert_eq!((again.changed, again.letters[0].outcome), (0, LetterEnd::Unchanged), "{again:?}");
    assert_eq!(world.events("message.revived").await.len(), 1);
    assert!(dead_letters(&world).await.is_empty());
    assert_eq!(world.messaging.unread(world.project, bo.agent.id).await.expect("a count"), 1);
    let told = WaitRequest { after: Some(start), ..WaitRequest::default() };
    let told = world.messaging.wait(&ana, &told).await.expect("ana is told");
    assert_eq!(told.events.iter().map(|event| event.event.kind.as_str()).collect::<Vec<_>>(), ["message.revived"]);

    let world = world.restart().await;
    assert_eq!(world.messaging.unread(world.project, bo.agent.id).await.expect("a count"), 1, "it is as live after a restart");
    let handed = world.take(&bo).await;
    assert_eq!((handed.messages[0].message.id, handed.messages[0].attempt), (sent, 1), "it has all its tries again");
    world.ack(&bo, sent).await;
    let acked = change(&world, SAME, Run::Real, of(sent)).await;
    assert_eq!(acked.letters[0].outcome, LetterEnd::Unchanged, "what is acked stays so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_routed_anew_goes_to_whom_it_fits_now_and_nobody_has_it_twice() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &["rust"]).await);
    let sent = world.send(&ana, "rust", "review this").await.message;
    give_up(&world, &bo, sent).await;
    let cy = world.agent("cy", &["rust"]).await;
    world.send(&ana, "agent:bo", "bo has more to do than cy").await;

    let changed = change(&world, ANEW, Run::Real, of(sent)).await;
    assert_eq!(changed.letters[0].to.as_deref(), Some("cy"), "{changed:?}");
    let key = |folder: &str, agent: &Acting| format!("{folder}/{}/{sent}", agent.agent.id);
    let has = async |key: String| world.kit.store.get(Some(world.project), &key).await.expect("the store answers").is_some();
    assert!(has(key("dlv", &cy)).await && !has(key("fin", &cy)).await);
    assert!(has(key("fin", &bo)).await && !has(key("dlv", &bo)).await);
    assert_eq!(world.events("message.revived").await[0].event.data["from"], bo.agent.id.to_string());

    // And back to bo, who had it before: its own delivery lives again.
    give_up(&world, &cy, sent).await;
    world.send(&ana, "agent:cy", "one").await;
    world.send(&ana, "agent:cy", "two").await;
    let changed = change(&world, ANEW, Run::Real, of(sent)).await;
    assert_eq!(changed.letters[0].to.as_deref(), Some("bo"), "{changed:?}");
    assert!(has(key("dlv", &bo)).await && !has(key("fin", &bo)).await);
    assert!(has(key("fin", &cy)).await && !has(key("dlv", &cy)).await);
    world.take(&bo).await;
    world.ack(&bo, sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_letter_is_gone_for_good_and_never_handed_out_again() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let sent = world.send(&ana, "agent:bo", "poison").await.message;
    give_up(&world, &bo, sent).await;
    for outcome in [LetterEnd::Purged, LetterEnd::Unchanged] {
        let changed = change(&world, LetterVerb::Purge, Run::Real, of(sent)).await;
        assert_eq!(changed.letters[0].outcome, outcome);
    }
    assert_eq!(world.events("message.purged").await.len(), 1);
    assert_eq!(change(&world, SAME, Run::Real, of(sent)).await.changed, 0);
    assert!(world.take(&bo).await.messages.is_empty());
    let unknown = MessageId::from_bytes([5; 16]);
    assert_eq!(change(&world, SAME, Run::Real, of(unknown)).await.letters[0].outcome, LetterEnd::Refused);
    assert_eq!(code(letters::show(&world.services, unknown).await), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_selected_counted_and_paged() {
    let world = World::start().await;
    let (ana, bo, cy) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await, world.agent("cy", &[]).await);
    let mut all = Vec::new();
    for (n, to) in [(0, &bo), (1, &cy), (2, &bo), (3, &bo)] {
        let kind = if n == 3 { Some("question".to_owned()) } else { None };
        let request = SendRequest { kind, ..message(&format!("agent:{}", to.agent.name), "poison") };
        let sent = world.messaging.send(&ana, &request).await.expect("it is sent").message;
        give_up(&world, to, sent).await;
        all.push(sent);
        world.pass(60_000).await;
    }
    let (bos, kinds) = (Some("bo".to_owned()), Some("question".to_owned()));
    let everything = LetterSelection { all: true, ..LetterSelection::default() };
    for (selection, expected) in [
        (everything.clone(), vec![0, 1, 2, 3]),
        (LetterSelection { agent: bos.clone(), ..LetterSelection::default() }, vec![0, 2, 3]),
        (LetterSelection { kind: kinds, agent: bos, ..LetterSelection::default() }, vec![3]),
        (LetterSelection { older_than_ms: Some(110_000), ..LetterSelection::default() }, vec![0, 1, 2]),
        (LetterSelection { agent: Some("nobody".to_owned()), ..LetterSelection::default() }, vec![]),
        (LetterSelection { project: Some("demo".to_owned()), messages: vec![all[2], all[1]], ..LetterSelection::default() }, vec![1, 2]),
    ] {
        let expected: Vec<MessageId> = expected.into_iter().map(|i: usize| all[i]).collect();
        let mut found = Vec::new();
        let mut paged = LetterSelection { limit: Some(2), ..selection.clone() };
        loop {
            let page = letters::list(&world.services, &paged).await.expect("a page");
            assert!(page.letters.len() <= 2);
            found.extend(page.letters.iter().map(|letter| letter.message));
            paged.after = page.next;
            if paged.after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{selection:?}");
        let counted = change(&world, LetterVerb::Purge, Run::Dry, selection).await;
        assert_eq!((counted.selected, counted.changed), (expected.len(), 0), "a dry run counts and changes nothing");
    }
    let unsaid = letters::change(&world.services, LetterVerb::Purge, Run::Real, &LetterSelection::default()).await;
    assert_eq!(code(unsaid), "bad_argument", "all must be said");
    let kept = letters::kept(&world.services).await.expect("a status");
    assert_eq!((kept[0].project.as_str(), kept[0].dead_letters), ("demo", 4));
    let revived = change(&world, SAME, Run::Real, LetterSelection { limit: Some(3), ..everything.clone() }).await;
    assert_eq!((revived.changed, revived.next.is_some()), (3, true));
    let rest = change(&world, SAME, Run::Real, LetterSelection { after: revived.next, ..everything }).await;
    assert_eq!((rest.changed, rest.next), (1, None));
    assert_eq!(world.messaging.unread(world.project, bo.agent.id).await.expect("a count"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_revive_at_once_revive_once() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let sent = world.send(&ana, "agent:bo", "poison").await.message;
    give_up(&world, &bo, sent).await;
    let revive = || world.messaging.change_letter(world.project, sent, bo.agent.id, SAME);
    let (one, two, three) = tokio::join!(revive(), revive(), revive());
    let ends: Vec<LetterEnd> = [one, two, three].into_iter().map(|change| change.expect("an answer").end).collect();
    assert_eq!(ends.iter().filter(|end| **end == LetterEnd::Revived).count(), 1, "{ends:?}");
    assert_eq!(world.events("message.revived").await.len(), 1);
    assert_eq!(world.take(&bo).await.messages.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_not_delivered_again() {
    let world = World::start().await;
    let (ana, bo) = (world.agent("ana", &[]).await, world.agent("bo", &[]).await);
    let request = SendRequest { expires_in_s: Some(60), ..message("agent:bo", "soon stale") };
    let sent = world.messaging.send(&ana, &request).await.expect("it is sent").message;
    give_up(&world, &bo, sent).await;
    world.pass(60_000).await;
    let changed = change(&world, SAME, Run::Real, of(sent)).await;
    assert_eq!((changed.changed, changed.letters[0].outcome), (0, LetterEnd::Refused), "{changed:?}");
    let dead = world.messaging.dead_letters(world.project).await.expect("a list");
    assert!(matches!(dead[0].state, DeliveryState::DeadLettered { .. }), "it is as before");
}
