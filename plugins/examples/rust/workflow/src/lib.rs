//! A workflow: branches carry the kind of their task, and what is urgent lands first.
//!
//! The world asks several things; what is not written here has the plain text of the trait. The host checks each name against
//! git's rules and keeps dependencies whatever the order says.

use std::collections::BTreeMap;

use pointsman_sdk::workflow::{Task, Waiting, Workflow, plain_branch};

/// What the operator can set, under `[plugins.NAME.config]`.
#[pointsman_sdk::config]
#[serde(default)]
#[derive(Debug)]
pub struct Config {
    /// What the branches of a kind of task begin with; others begin with `task`.
    pub prefixes: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        let prefixes = [("fix", "fix"), ("feature", "feat")].map(|(kind, prefix)| (kind.to_owned(), prefix.to_owned()));
        Self { prefixes: prefixes.into() }
    }
}

#[pointsman_sdk::workflow]
impl Workflow for Config {
    fn branch_name(&self, task: &Task, attempt: u32) -> String {
        let prefix = self.prefixes.get(&task.kind).map_or("task", String::as_str);
        format!("{prefix}/{}", plain_branch(task, attempt))
    }

    fn merge_order(&self, queue: &[Waiting]) -> Vec<u32> {
        let mut order: Vec<(u32, &Waiting)> = (0..).zip(queue).collect();
        order.sort_by_key(|(_, one)| (u8::MAX - one.priority, u64::MAX - one.waited_ms));
        order.into_iter().map(|(position, _)| position).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(kind: &str) -> Task {
        Task {
            id: "T-12".to_owned(),
            title: "Sort the inbox".to_owned(),
            description: String::new(),
            kind: kind.to_owned(),
            labels: Vec::new(),
            priority: 4,
            depends_on: Vec::new(),
        }
    }

    #[test]
    fn branches_carry_the_kind() {
        let config = Config::default();
        assert_eq!(config.branch_name(&task("fix"), 0), "fix/t-12-sort-the-inbox");
        assert_eq!(config.branch_name(&task("docs"), 1), "task/t-12-sort-the-inbox-2");
    }

    #[test]
    fn the_urgent_land_first_then_those_that_wait_longest() {
        let waiting = |priority, waited_ms| Waiting {
            task: "T-1".to_owned(),
            priority,
            kind: "fix".to_owned(),
            waited_ms,
            files: 1,
            after: Vec::new(),
            overlaps: Vec::new(),
        };
        assert_eq!(Config::default().merge_order(&[waiting(4, 10), waiting(9, 1), waiting(4, 20)]), [1, 2, 0]);
    }
}
