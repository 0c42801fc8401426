use pointsman_sdk::policy::{CheckResult, Provenance};
use proptest::prelude::*;

use super::*;

fn actor(agent: &str) -> Actor {
    Actor { agent: agent.to_owned(), principal: format!("{agent}'s owner"), provenance: Provenance::Agent, capabilities: Vec::new() }
}

fn approval(agent: &str, approves: bool, head: &str) -> Approval {
    Approval { by: actor(agent), approves, head: head.to_owned() }
}

fn facts() -> Facts {
    Facts {
        actor: actor("ana"),
        owner: "ana".to_owned(),
        task: "T-1".to_owned(),
        kind: "fix".to_owned(),
        labels: Vec::new(),
        priority: 4,
        held: 0,
        target: "main".to_owned(),
        head: "h1".to_owned(),
        paths: vec!["src/a.rs".to_owned()],
        lines_changed: 10,
        approvals: Vec::new(),
        checks: vec![CheckResult { name: "test".to_owned(), passed: true }],
        capability: String::new(),
    }
}

fn policy(json: &str) -> PolicyDefault {
    PolicyDefault::from_json(json).expect("fits")
}

fn rule(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Allow => "",
        Verdict::Deny(denial) => &denial.rule,
        Verdict::Need(need) => &need.rule,
    }
}

#[test]
fn who_holds_enough_claims_no_more() {
    let claim = |held| policy("").check(Gate::Claim, &Facts { held, ..facts() });
    assert_eq!(claim(2), Verdict::Allow);
    assert_eq!(claim(3), Verdict::denied("held-max", "ana holds 3 tasks and may hold 3", "finish or give back a task first"));
}

#[test]
fn nobody_reviews_their_own_work() {
    let review = |agent| policy("").check(Gate::Review, &Facts { actor: actor(agent), ..facts() });
    assert_eq!(rule(&review("ana")), "own-work");
    assert_eq!(review("bob"), Verdict::Allow);
}

#[test]
fn large_changes_are_refused_where_a_limit_is_set() {
    let submit = |json| policy(json).check(Gate::Submit, &facts());
    assert_eq!(submit(""), Verdict::Allow);
    assert_eq!(rule(&submit(r#"{"lines_changed_max":9}"#)), "too-large");
    assert_eq!(submit(r#"{"lines_changed_max":10}"#), Verdict::Allow);
}

#[test]
fn landing_waits_for_an_approval_of_this_commit_by_another() {
    let land = |approvals: Vec<Approval>| policy("").check(Gate::Land, &Facts { approvals, ..facts() });
    let need = Requirement { rule: "approvals".to_owned(), approvals: 1, by: String::new(), why: "a change to main needs it".to_owned() };
    assert_eq!(land(vec![]), Verdict::Need(need));
    assert_eq!(rule(&land(vec![approval("ana", true, "h1")])), "approvals");
    assert_eq!(rule(&land(vec![approval("bob", true, "h0")])), "approvals");
    assert_eq!(land(vec![approval("bob", true, "h1")]), Verdict::Allow);
    assert_eq!(rule(&land(vec![approval("bob", true, "h1"), approval("cleo", false, "h1")])), "changes-requested");
    assert_eq!(land(vec![approval("bob", true, "h1"), approval("cleo", false, "h0")]), Verdict::Allow);
}

#[test]
fn failed_checks_stop_a_landing_whatever_the_approvals() {
    let checks = vec![CheckResult { name: "lint".to_owned(), passed: false }];
    let verdict = policy("").check(Gate::Land, &Facts { approvals: vec![approval("bob", true, "h1")], checks, ..facts() });
    assert_eq!(rule(&verdict), "check-failed");
}

#[test]
fn protected_paths_need_more_and_of_the_right_ones() {
    let policy = policy(r#"{"protected":[{"paths":["src/**"],"approvals":2,"by":"core"}]}"#);
    let core = |agent: &str| {
        let mut one = approval(agent, true, "h1");
        one.by.capabilities = vec!["core@1.2".to_owned()];
        one
    };
    let land =
        |approvals: Vec<Approval>, path: &str| policy.check(Gate::Land, &Facts { approvals, paths: vec![path.to_owned()], ..facts() });
    assert_eq!(rule(&land(vec![core("bob"), approval("cleo", true, "h1")], "src/a.rs")), "protected-path");
    assert_eq!(rule(&land(vec![core("bob"), core("bob")], "src/a.rs")), "protected-path");
    assert_eq!(land(vec![core("bob"), core("cleo")], "src/a.rs"), Verdict::Allow);
    assert_eq!(land(vec![approval("cleo", true, "h1")], "docs/a.md"), Verdict::Allow);
}

#[test]
fn a_principal_may_be_kept_from_approving_itself() {
    let same = |json| {
        let mut by_bob = approval("bob", true, "h1");
        by_bob.by.principal = "ana's owner".to_owned();
        policy(json).check(Gate::Land, &Facts { approvals: vec![by_bob], ..facts() })
    };
    assert_eq!(same(""), Verdict::Allow);
    assert_eq!(rule(&same(r#"{"same_principal":"does-not-count"}"#)), "approvals");
}

#[test]
fn grants_are_a_list() {
    let grant = |json, capability: &str| policy(json).check(Gate::Grant, &Facts { capability: capability.to_owned(), ..facts() });
    assert_eq!(grant("", "anything"), Verdict::Allow);
    let some = r#"{"grants":["kv","http.*"]}"#;
    assert_eq!((rule(&grant(some, "kv")), rule(&grant(some, "http.get")), rule(&grant(some, "kvx"))), ("", "", "not-granted"));
}

#[test]
fn wrong_configurations_are_refused() {
    for json in [
        r#"{"approvals":21}"#,
        r#"{"held_max":0}"#,
        r#"{"protected":[{"paths":[],"approvals":1}]}"#,
        r#"{"protected":[{"paths":["a**"],"approvals":1}]}"#,
        r#"{"approval":1}"#,
    ] {
        assert!(PolicyDefault::from_json(json).is_err(), "{json}");
    }
}

proptest! {
    #[test]
    fn landing_agrees_with_a_plain_count(
        verdicts in prop::collection::vec((0..4_usize, any::<bool>(), any::<bool>()), 0..6),
        asked in 0..4_u32,
    ) {
        let names = ["ana", "bob", "cleo", "dan"];
        let approvals: Vec<_> = verdicts.iter().map(|(who, approves, now)| approval(names[*who], *approves, if *now { "h1" } else { "h0" })).collect();
        let standing = || verdicts.iter().filter(|(who, _, now)| *who != 0 && *now);
        let against = standing().any(|(_, approves, _)| !approves);
        let given: BTreeSet<_> = standing().filter(|(_, approves, _)| *approves).map(|(who, _, _)| who).collect();
        let verdict = policy(&format!("{{\"approvals\":{asked}}}")).check(Gate::Land, &Facts { approvals, ..facts() });
        let expected = if against { "changes-requested" } else if (given.len() as u32) < asked { "approvals" } else { "" };
        prop_assert_eq!(rule(&verdict), expected);
    }
}
