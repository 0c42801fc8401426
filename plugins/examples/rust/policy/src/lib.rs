//! A policy: a large change needs more approvals than a small one, and one that touches a frozen path does not land at all.
//!
//! The host asks at each gate, with everything that may be judged by. What is refused names a rule and what would help: both
//! are told to the agent.

use pointsman_sdk::glob::Glob;
use pointsman_sdk::policy::{Facts, Gate, Requirement, Verdict};

/// What the operator can set, under `[plugins.NAME.config]`.
#[pointsman_sdk::config]
#[serde(default)]
#[derive(Debug)]
pub struct Config {
    /// Lines a change may have before it is large.
    pub lines_max: u32,
    /// Approvals that a large change needs; a small one needs one.
    #[schemars(range(min = 1, max = 10))]
    pub approvals: u32,
    /// Path patterns that nothing lands on.
    pub frozen: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { lines_max: 400, approvals: 2, frozen: Vec::new() }
    }
}

/// Judges one act.
#[pointsman_sdk::policy]
pub fn check(gate: Gate, facts: &Facts, config: &Config) -> Verdict {
    match gate {
        Gate::Land => land(facts, config),
        Gate::Claim | Gate::Review | Gate::Submit | Gate::Grant => Verdict::Allow,
    }
}

fn land(facts: &Facts, config: &Config) -> Verdict {
    let is_frozen = |path: &&String| config.frozen.iter().any(|frozen| Glob::new(frozen).is_ok_and(|glob| glob.matches(path)));
    if let Some(path) = facts.paths.iter().find(is_frozen) {
        return Verdict::denied("frozen", format!("{path} is frozen"), "leave it as it is, or ask the operator");
    }
    let is_large = facts.lines_changed > config.lines_max;
    let needed = if is_large { config.approvals } else { 1 };
    let given = facts.approvals.iter().filter(|one| one.approves && one.by.agent != facts.owner).count();
    if usize::try_from(needed).is_ok_and(|needed| given >= needed) {
        return Verdict::Allow;
    }
    let why = format!("{} lines are changed, which asks for {needed} approvals; there are {given}", facts.lines_changed);
    Verdict::Need(Requirement { rule: "approvals".to_owned(), approvals: needed, by: String::new(), why })
}

#[cfg(test)]
mod tests {
    use pointsman_sdk::policy::{Actor, Approval, Provenance};

    use super::*;

    fn actor(agent: &str) -> Actor {
        Actor { agent: agent.to_owned(), principal: String::new(), provenance: Provenance::Agent, capabilities: Vec::new() }
    }

    fn facts(lines_changed: u32, approvers: &[&str]) -> Facts {
        let approval = |agent: &&str| Approval { by: actor(agent), approves: true, head: String::new() };
        Facts {
            actor: actor("ana"),
            owner: "ana".to_owned(),
            task: "T-12".to_owned(),
            kind: "fix".to_owned(),
            labels: Vec::new(),
            priority: 4,
            held: 1,
            target: "main".to_owned(),
            head: String::new(),
            paths: vec!["src/lib.rs".to_owned()],
            lines_changed,
            approvals: approvers.iter().map(approval).collect(),
            checks: Vec::new(),
            capability: String::new(),
        }
    }

    #[test]
    fn large_changes_need_more_approvals() {
        let config = Config::default();
        assert_eq!(check(Gate::Land, &facts(10, &["bob"]), &config), Verdict::Allow);
        let verdict = check(Gate::Land, &facts(401, &["bob", "ana"]), &config);
        assert!(matches!(&verdict, Verdict::Need(need) if need.approvals == 2), "{verdict:?}");
        assert_eq!(check(Gate::Land, &facts(401, &["bob", "cleo"]), &config), Verdict::Allow);
        assert_eq!(check(Gate::Claim, &facts(0, &[]), &config), Verdict::Allow);
    }

    #[test]
    fn frozen_paths_stay() {
        let config = Config { frozen: vec!["src/**".to_owned()], ..Config::default() };
        let verdict = check(Gate::Land, &facts(1, &["bob"]), &config);
        assert!(matches!(&verdict, Verdict::Deny(denial) if denial.rule == "frozen"), "{verdict:?}");
    }
}
