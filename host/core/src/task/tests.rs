use super::*;
use crate::ids::RANDOM_BYTES;
use proptest::prelude::*;

fn agent(n: u8) -> AgentId {
    AgentId::new(TimeMs(0), [n; RANDOM_BYTES])
}

fn task() -> Task {
    Task {
        id: TaskId(1),
        title: "t".to_owned(),
        description: String::new(),
        kind: "feature".to_owned(),
        priority: 4,
        labels: vec![],
        acceptance: vec![],
        depends_on: vec![],
        paths: vec![],
        shared_paths: vec![],
        state: TaskState::Open,
        claim: None,
        fence: FencingToken { epoch: 0, n: 0 },
        branch: None,
        base: None,
        head: None,
        progress: 0,
        note: String::new(),
        reviews: vec![],
        resolutions: vec![],
        merges: vec![],
        created_by: "ana".to_owned(),
        created_at: TimeMs(0),
        updated_at: TimeMs(0),
    }
}

fn claim(n: u8, until: i64) -> Claim {
    Claim {
        agent: agent(n),
        agent_name: format!("agent-{n}"),
        principal: PrincipalId::new(TimeMs(0), [n; RANDOM_BYTES]),
        token: FencingToken { epoch: 0, n: 0 },
        until: TimeMs(until),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Claim(u8),
    Release,
    Submit(u8),
    GiveBack,
    Land,
    Cancel,
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..4).prop_map(Step::Claim),
        2 => Just(Step::Release),
        3 => (1u8..4).prop_map(Step::Submit),
        1 => Just(Step::GiveBack),
        1 => Just(Step::Land),
        1 => Just(Step::Cancel),
        2 => (1i64..20).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn a_claim_has_one_holder_and_tokens_only_rise(steps in proptest::collection::vec(step(), 1..60)) {
        let mut task = task();
        let mut now = 0i64;
        let mut holder: Option<(u8, i64)> = None;
        let mut granted: Vec<FencingToken> = Vec::new();
        for step in steps {
            let before = task.clone();
            let failed = match step {
                Step::Wait(ms) => { now += ms; false }
                Step::Claim(n) => {
                    let outcome = task.claim(TimeMs(now), 1, claim(n, now + 10));
                    if outcome.is_ok() {
                        let same = holder.is_some_and(|(held, _)| held == n);
                        let free = holder.is_none_or(|(_, until)| now >= until);
                        prop_assert!(same || free);
                        let token = task.claim.as_ref().expect("claimed").token;
                        if !same {
                            prop_assert!(granted.iter().all(|old| *old < token));
                            granted.push(token);
                        }
                        holder = Some((n, now + 10));
                    }
                    outcome.is_err()
                }
                Step::Release => { let outcome = task.release(TimeMs(now), 1); if outcome.is_ok() { holder = None; } outcome.is_err() }
                Step::Submit(n) => {
                    let outcome = task.submit(TimeMs(now), agent(n), Oid([n; 20]), MergeId(1));
                    prop_assert!(outcome.is_err() || holder.is_some_and(|(held, _)| held == n));
                    outcome.is_err()
                }
                Step::GiveBack => { task.give_back(TimeMs(now)); false }
                Step::Land => { if task.state == TaskState::Submitted { task.land(TimeMs(now), 1); holder = None; } false }
                Step::Cancel => { let outcome = task.cancel(TimeMs(now), 1); if outcome.is_ok() { holder = None; } outcome.is_err() }
            };
            if failed {
                prop_assert_eq!(&task, &before);
            }
            prop_assert_eq!(task.claim.is_some(), matches!(task.state, TaskState::Claimed | TaskState::Submitted));
        }
    }

    #[test]
    fn dependency_order_keeps_dependencies(edges in proptest::collection::vec((1u64..12, 1u64..12), 0..30)) {
        let all: Vec<_> = (1..12u64)
            .map(|id| (TaskId(id), edges.iter().filter(|(of, on)| *of == id && on < of).map(|(_, on)| TaskId(*on)).collect::<Vec<_>>()))
            .rev()
            .collect();
        let order = dependency_order(&all);
        prop_assert_eq!(order.len(), all.len());
        for (id, needs) in &all {
            let place = |wanted: &TaskId| order.iter().position(|id| id == wanted);
            for need in needs {
                prop_assert!(place(need) < place(id));
            }
        }
    }
}
