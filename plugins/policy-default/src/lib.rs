//! The policy `policy-default`: approvals from others than the author, few tasks at once, guarded paths.
//!
//! | gate | what is asked |
//! | --- | --- |
//! | claim | the agent holds fewer than `held_max` tasks |
//! | review | the reviewer does not own the task |
//! | submit | the change is not larger than `lines_changed_max`, where that is set |
//! | land | no check failed, nobody asks for changes, enough approvals of this very commit |
//! | grant | the capability is in `grants` |
//!
//! **Invariant:** the author's own verdict never counts, nor does one on another commit.

use std::collections::BTreeSet;

use pointsman_sdk::Plugin;
use pointsman_sdk::glob::Glob;
use pointsman_sdk::policy::{Actor, Approval, Facts, Gate, Policy, Requirement, Verdict};
use serde::Deserialize;

/// The most approvals that can be asked for.
const APPROVALS_MAX: u32 = 20;

/// What the operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Approvals a change needs to land.
    pub approvals: u32,
    /// Tasks an agent may hold at once.
    pub held_max: u32,
    /// Lines a change may have; any number when not set.
    pub lines_changed_max: Option<u32>,
    /// Whether another agent of the author's principal may approve.
    pub same_principal: SamePrincipal,
    /// Paths that need more.
    pub protected: Vec<Protected>,
    /// Capabilities that are granted: names, `name.*`, or `*`.
    pub grants: Vec<String>,
}

/// Whether agents of one principal may approve each other's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SamePrincipal {
    /// They may.
    Counts,
    /// Their approval does not count.
    DoesNotCount,
}

/// Paths that need more approvals.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protected {
    /// Path patterns.
    pub paths: Vec<String>,
    /// Approvals a change to them needs.
    pub approvals: u32,
    /// A capability that each of these approvers has; anyone's counts when empty.
    #[serde(default)]
    pub by: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            approvals: 1,
            held_max: 3,
            lines_changed_max: None,
            same_principal: SamePrincipal::Counts,
            protected: Vec::new(),
            grants: vec!["*".to_owned()],
        }
    }
}

/// The policy.
#[derive(Debug, Clone)]
pub struct PolicyDefault {
    config: Config,
    protected: Vec<Guard>,
}

/// Protected paths, ready to match.
#[derive(Debug, Clone)]
struct Guard {
    paths: Vec<Glob>,
    approvals: u32,
    by: String,
}

impl Plugin for PolicyDefault {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let asked = config.protected.iter().map(|one| one.approvals).chain([config.approvals]);
        if asked.into_iter().any(|count| count > APPROVALS_MAX) {
            return Err(format!("`approvals` is at most {APPROVALS_MAX}"));
        }
        if config.held_max == 0 {
            return Err("`held_max` is 0: nobody could ever claim a task".to_owned());
        }
        let guard = |one: &Protected| {
            if one.paths.is_empty() {
                return Err("a protected entry has no `paths`".to_owned());
            }
            Ok(Guard { paths: Glob::all(&one.paths)?, approvals: one.approvals, by: one.by.clone() })
        };
        let protected = config.protected.iter().map(guard).collect::<Result<_, String>>()?;
        Ok(Self { config, protected })
    }
}

impl Policy for PolicyDefault {
    fn check(&self, gate: Gate, facts: &Facts) -> Verdict {
        match gate {
            Gate::Claim => self.claim(facts),
            Gate::Review => Self::review(facts),
            Gate::Submit => self.submit(facts),
            Gate::Land => self.land(facts),
            Gate::Grant => self.grant(facts),
        }
    }
}

impl PolicyDefault {
    fn claim(&self, facts: &Facts) -> Verdict {
        if facts.held < self.config.held_max {
            return Verdict::Allow;
        }
        let why = format!("{} holds {} tasks and may hold {}", facts.actor.agent, facts.held, self.config.held_max);
        Verdict::denied("held-max", why, "finish or give back a task first")
    }

    fn review(facts: &Facts) -> Verdict {
        if facts.owner.is_empty() || facts.actor.agent != facts.owner {
            return Verdict::Allow;
        }
        let why = format!("{} is the author of {}", facts.owner, facts.task);
        Verdict::denied("own-work", why, "ask another agent for the review")
    }

    fn submit(&self, facts: &Facts) -> Verdict {
        match self.config.lines_changed_max {
            Some(max) if facts.lines_changed > max => {
                let why = format!("{} lines are changed and {max} may be", facts.lines_changed);
                Verdict::denied("too-large", why, "split the task and submit the parts one by one")
            }
            Some(_) | None => Verdict::Allow,
        }
    }

    fn land(&self, facts: &Facts) -> Verdict {
        if let Some(failed) = facts.checks.iter().find(|check| !check.passed) {
            let why = format!("the check `{}` did not pass on this tree", failed.name);
            return Verdict::denied("check-failed", why, "mend it on the branch and submit again");
        }
        let verdicts = self.counting(facts);
        if let Some(against) = verdicts.iter().find(|one| !one.approves) {
            let why = format!("{} asks for changes", against.by.agent);
            return Verdict::denied("changes-requested", why, "answer the review on the branch and submit again");
        }
        for guard in &self.protected {
            let hit = facts.paths.iter().find(|path| guard.paths.iter().any(|glob| glob.matches(path)));
            if let Some(path) = hit {
                let why = format!("{path} is protected");
                if let Some(missing) = missing("protected-path", guard.approvals, &guard.by, why, &verdicts) {
                    return missing;
                }
            }
        }
        let why = format!("a change to {} needs it", if facts.target.is_empty() { "the target" } else { &facts.target });
        missing("approvals", self.config.approvals, "", why, &verdicts).unwrap_or(Verdict::Allow)
    }

    /// Returns the verdicts that count: on this commit, by others than the author.
    fn counting<'a>(&self, facts: &'a Facts) -> Vec<&'a Approval> {
        // At this gate the actor is the author's agent, unless the host lands on its own account.
        let own_principal = (facts.actor.agent == facts.owner).then_some(facts.actor.principal.as_str()).filter(|one| !one.is_empty());
        let counts = |one: &&Approval| {
            let same_principal = own_principal == Some(one.by.principal.as_str());
            one.head == facts.head
                && one.by.agent != facts.owner
                && !(same_principal && self.config.same_principal == SamePrincipal::DoesNotCount)
        };
        facts.approvals.iter().filter(counts).collect()
    }

    fn grant(&self, facts: &Facts) -> Verdict {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => facts.capability.starts_with(start),
            None => *pattern == facts.capability,
        };
        if self.config.grants.iter().any(fits) {
            return Verdict::Allow;
        }
        let why = format!("the capability `{}` is not granted here", facts.capability);
        Verdict::denied("not-granted", why, "ask the operator to add it to `grants` of this policy")
    }
}

/// Returns what is missing to so many approvals; none when they are there.
fn missing(rule: &str, approvals: u32, by: &str, why: String, verdicts: &[&Approval]) -> Option<Verdict> {
    let able = |one: &&&Approval| one.approves && (by.is_empty() || has_capability(&one.by, by));
    let agents: BTreeSet<&str> = verdicts.iter().filter(able).map(|one| one.by.agent.as_str()).collect();
    if u32::try_from(agents.len()).is_ok_and(|given| given < approvals) {
        return Some(Verdict::Need(Requirement { rule: rule.to_owned(), approvals, by: by.to_owned(), why }));
    }
    None
}

/// Returns whether an agent has a capability, in whatever version.
fn has_capability(actor: &Actor, name: &str) -> bool {
    actor.capabilities.iter().any(|own| own.split(['@', '{']).next() == Some(name))
}

pointsman_sdk::export_policy!(PolicyDefault);

#[cfg(test)]
mod tests;
