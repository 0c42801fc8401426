//! The store against a naive model: maps, changed one commit at a time.

use std::collections::BTreeMap;

use pointsman::ports::store::{Commit, Committed, DueChange, Expect, Fence, Store, StoreError, Version};
use pointsman_core::ids::{FencingToken, ProjectId};
use pointsman_core::time::TimeMs;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::kit::{Subject, all_at_once, call, done, numbered, numbers, of, project};

const KEYS: u8 = 4;

/// What a step expects of a value, without knowing versions.
#[derive(Debug, Clone, Copy)]
enum Guess {
    Absent,
    Present,
    Wrong,
}

/// A random commit.
#[derive(Debug, Clone)]
struct Step {
    project: usize,
    call: Option<(u8, u8)>,
    fences: Vec<(u8, u64)>,
    expects: Vec<(u8, Guess)>,
    puts: Vec<(u8, u8)>,
    deletes: Vec<u8>,
    raise: Vec<(u8, u64)>,
    due: Vec<(u8, Option<i8>)>,
    events: usize,
}

fn step() -> impl Strategy<Value = Step> {
    let guess = prop_oneof![1 => Just(Guess::Absent), 4 => Just(Guess::Present), 1 => Just(Guess::Wrong)];
    (
        0..2usize,
        prop::option::weighted(0.3, (0..3u8, 0..2u8)),
        vec((0..2u8, 0..3u64), 0..2),
        vec((0..KEYS, guess), 0..2),
        vec((0..KEYS, any::<u8>()), 0..3),
        vec(0..KEYS, 0..2),
        vec((0..2u8, 0..3u64), 0..2),
        vec((0..3u8, prop::option::weighted(0.7, -3..9i8)), 0..3),
        0..3usize,
    )
        .prop_map(|(project, call, fences, expects, puts, deletes, raise, due, events)| Step {
            project,
            call,
            fences,
            expects,
            puts,
            deletes,
            raise,
            due,
            events,
        })
}

#[derive(Debug, Default)]
struct Space {
    values: BTreeMap<String, (Version, u8)>,
    tokens: BTreeMap<String, u64>,
    calls: BTreeMap<String, u8>,
    due: BTreeMap<String, i64>,
    events: Vec<u64>,
}

/// What the store should hold.
#[derive(Debug)]
struct Model {
    projects: [ProjectId; 2],
    spaces: [Space; 2],
    written: u64,
}

#[derive(Debug, PartialEq)]
enum Expected {
    Done { seq: u64 },
    Not(Result<Committed, StoreError>),
}

impl Model {
    fn new() -> Self {
        Self { projects: [project(), project()], spaces: Default::default(), written: 0 }
    }

    /// Returns the commit of a step as things stand.
    fn commit(&self, step: &Step, number: u64) -> Commit {
        let space = &self.spaces[step.project];
        let key = |n: u8| format!("key/{n}");
        let fence = |(n, token): &(u8, u64)| Fence { key: key(*n), token: FencingToken { epoch: 1, n: *token } };
        let expect = |(n, guess): &(u8, Guess)| {
            let stands = space.values.get(&key(*n)).map_or(1, |(version, _)| *version);
            let expect = match guess {
                Guess::Absent => Expect::Absent,
                Guess::Present => Expect::Version(stands),
                Guess::Wrong => Expect::Version(stands + 1),
            };
            (key(*n), expect)
        };
        Commit {
            fences: step.fences.iter().map(fence).collect(),
            expects: step.expects.iter().map(expect).collect(),
            idempotency: step.call.and_then(|(n, request)| call(&key(n), request, &[n, request])),
            puts: step.puts.iter().map(|(n, byte)| (key(*n), vec![*byte])).collect(),
            deletes: step.deletes.iter().map(|n| key(*n)).collect(),
            raise: step.raise.iter().map(fence).collect(),
            due: step
                .due
                .iter()
                .map(|(n, at)| match at {
                    Some(at) => DueChange::Set { name: key(*n), at: TimeMs(i64::from(*at)) },
                    None => DueChange::Clear { name: key(*n) },
                })
                .collect(),
            events: (0..step.events as u64).map(|part| numbered(number * 10 + part)).collect(),
            ..of(self.projects[step.project])
        }
    }

    /// Judges and applies a commit that would get this version.
    fn apply(&mut self, step: &Step, commit: &Commit, version: Version) -> Expected {
        let space = &mut self.spaces[step.project];
        if let Some(call) = &commit.idempotency {
            match space.calls.get(&call.key) {
                Some(request) if *request == call.request_digest[0] => {
                    return Expected::Not(Ok(Committed::Replayed(call.response.clone())));
                }
                Some(_) => return Expected::Not(Err(StoreError::KeyReused { key: call.key.clone() })),
                None => {}
            }
        }
        for fence in &commit.fences {
            if space.tokens.get(&fence.key) != Some(&fence.token.n) {
                return Expected::Not(Err(StoreError::Fenced { key: fence.key.clone() }));
            }
        }
        for (key, expect) in &commit.expects {
            let holds = match (expect, space.values.get(key)) {
                (Expect::Absent, None) => true,
                (Expect::Version(expected), Some((stands, _))) => expected == stands,
                (Expect::Absent, Some(_)) | (Expect::Version(_), None) => false,
            };
            if !holds {
                return Expected::Not(Err(StoreError::Stale { key: key.clone() }));
            }
        }
        for fence in &commit.raise {
            if space.tokens.get(&fence.key).is_some_and(|stands| *stands > fence.token.n) {
                return Expected::Not(Err(StoreError::Fenced { key: fence.key.clone() }));
            }
        }
        space.values.extend(commit.puts.iter().map(|(key, bytes)| (key.clone(), (version, bytes[0]))));
        space.values.retain(|key, _| !commit.deletes.contains(key));
        space.tokens.extend(commit.raise.iter().map(|fence| (fence.key.clone(), fence.token.n)));
        space.calls.extend(commit.idempotency.iter().map(|call| (call.key.clone(), call.request_digest[0])));
        for change in &commit.due {
            match change {
                DueChange::Set { name, at } => space.due.insert(name.clone(), at.0),
                DueChange::Clear { name } => space.due.remove(name),
            };
        }
        space.events.extend(commit.events.iter().map(|event| event.data["n"].as_u64().expect("the event has a number")));
        self.written += 1;
        Expected::Done { seq: space.events.len() as u64 }
    }

    /// Compares everything that can be read.
    async fn check(&self, store: &dyn Store) {
        for (project, space) in self.projects.iter().zip(&self.spaces) {
            let page = store.range(Some(*project), "", "", 100).await.expect("the store answers");
            let read: Vec<_> = page.entries.into_iter().map(|(key, value)| (key, (value.version, value.bytes[0]))).collect();
            assert_eq!(read, space.values.clone().into_iter().collect::<Vec<_>>());
            for n in 0..KEYS {
                let key = format!("key/{n}");
                let value = store.get(Some(*project), &key).await.expect("the store answers");
                assert_eq!(value.map(|value| (value.version, value.bytes[0])), space.values.get(&key).copied());
                let stands = store.answered(Some(*project), "own_ana", "send_message", &key, &[1; 32]).await;
                let expected = match space.calls.get(&key) {
                    None => Ok(None),
                    Some(1) => Ok(Some(vec![n, 1])),
                    Some(_) => Err(StoreError::KeyReused { key }),
                };
                assert_eq!(stands, expected);
            }
            assert_eq!(numbers(store, *project, 0).await, space.events);
            assert_eq!(store.head(Some(*project)).await.expect("the store answers").seq, space.events.len() as u64);
        }
        let mut due: Vec<_> = Vec::new();
        for (project, space) in self.projects.iter().zip(&self.spaces) {
            due.extend(space.due.iter().map(|(name, at)| (*at, *project, name.clone())));
        }
        due.sort();
        let read = store.due(TimeMs(100), 100).await.expect("the store answers");
        assert_eq!(read.into_iter().map(|entry| (entry.at.0, entry.project, entry.name)).collect::<Vec<_>>(), due);
        assert_eq!(store.next_due().await.expect("the store answers").map(|at| at.0), due.first().map(|(at, ..)| *at));
    }

    /// Leaves nothing due to the next model.
    async fn clear(&self, store: &dyn Store) {
        for (project, space) in self.projects.iter().zip(&self.spaces) {
            let due = space.due.keys().map(|name| DueChange::Clear { name: name.clone() }).collect();
            done(store, Commit { due, ..of(*project) }).await;
        }
    }
}

fn compare_outcome(outcome: Result<Committed, StoreError>, expected: Expected) -> Option<Version> {
    match (outcome, expected) {
        (Ok(Committed::Done { version, cursor, .. }), Expected::Done { seq }) => {
            assert_eq!(cursor.seq, seq);
            Some(version)
        }
        (outcome, expected) => {
            assert_eq!(Expected::Not(outcome), expected);
            None
        }
    }
}

fn run(cases: u32, case: impl Fn(Vec<Step>)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&vec(step(), 1..25), |steps| {
        case(steps);
        Ok(())
    });
    outcome.expect("the store and the model agree");
}

/// Runs random commits one after another over a store and the model.
pub(crate) fn compare<S: Subject>() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let subject = runtime.block_on(S::fresh());
    run(48, |steps| {
        runtime.block_on(async {
            let (store, mut model) = (subject.store(), Model::new());
            let mut last = [0; 2];
            for (number, step) in steps.iter().enumerate() {
                let commit = model.commit(step, number as u64);
                let outcome = store.commit(commit.clone()).await;
                let version = if let Ok(Committed::Done { version, .. }) = &outcome { *version } else { 0 };
                let expected = model.apply(step, &commit, version);
                if let Some(version) = compare_outcome(outcome, expected) {
                    assert!(version > last[step.project]);
                    last[step.project] = version;
                }
            }
            model.check(&*store).await;
            model.clear(&*store).await;
        });
    });
}

/// Hands random commits over all at once, to a store that numbers them one by one in the order it is given them.
pub(crate) fn compare_groups(subject: &impl Subject) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    run(96, |steps| {
        runtime.block_on(async {
            let (store, mut model) = (subject.store(), Model::new());
            let base = done(&*store, of(model.projects[0])).await;
            let mut commits = Vec::new();
            let mut expected = Vec::new();
            for (number, step) in steps.iter().enumerate() {
                let commit = model.commit(step, number as u64);
                let version = base + model.written + 1;
                let outcome = model.apply(step, &commit, version);
                expected.push((matches!(outcome, Expected::Done { .. }).then_some(version), outcome));
                commits.push(commit);
            }
            let outcomes = all_at_once(commits.into_iter().map(|commit| store.commit(commit))).await;
            for (outcome, (version, expected)) in outcomes.into_iter().zip(expected) {
                assert_eq!(compare_outcome(outcome, expected), version);
            }
            model.check(&*store).await;
            model.clear(&*store).await;
        });
    });
}
