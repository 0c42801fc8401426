//! The workflow `workflow-default`: names, texts and order that a team would settle on.
//!
//! Titles and notes come from agents and may hold anything; what is written here is one line where one line is
//! meant, names are valid refs (git-check-ref-format), and trailers are the last paragraph and ours alone.
//! **Invariant:** the merge order holds every position once, and no branch before one it must follow.

mod order;
mod text;

use pointsman_sdk::Plugin;
use pointsman_sdk::workflow::{ChangeFacts, CommitFacts, PullRequest, Task, Waiting, Workflow};
use serde::Deserialize;

/// The longest slug.
const SLUG_MAX: usize = 80;
/// The most files a text lists.
const FILES_MAX: usize = 500;

/// What the operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What branch names begin with, before a `/`.
    pub branch_prefix: String,
    /// The most characters of a title in a branch name.
    pub slug_max: usize,
    /// Kinds that land before all others.
    pub hotfix_kinds: Vec<String>,
    /// The most files that a text lists by name.
    pub files_listed_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { branch_prefix: "task".to_owned(), slug_max: 40, hotfix_kinds: vec!["hotfix".to_owned()], files_listed_max: 30 }
    }
}

/// The workflow.
#[derive(Debug, Clone)]
pub struct WorkflowDefault {
    config: Config,
}

impl Plugin for WorkflowDefault {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let parts = config.branch_prefix.split('/');
        if parts.into_iter().any(|part| part.is_empty() || part != text::slug(part, part.len())) {
            return Err("`branch_prefix` is made of small letters, digits and dashes, perhaps with `/` between".to_owned());
        }
        if config.slug_max > SLUG_MAX || config.files_listed_max > FILES_MAX {
            return Err(format!("`slug_max` is at most {SLUG_MAX}, `files_listed_max` at most {FILES_MAX}"));
        }
        Ok(Self { config })
    }
}

impl Workflow for WorkflowDefault {
    fn branch_name(&self, task: &Task, attempt: u32) -> String {
        let mut name = format!("{}/{}", self.config.branch_prefix, text::id(&task.id));
        let slug = text::slug(&task.title, self.config.slug_max);
        if !slug.is_empty() {
            name = format!("{name}-{slug}");
        }
        if attempt > 0 { format!("{name}-{}", attempt + 1) } else { name }
    }

    fn commit_message(&self, facts: &CommitFacts) -> String {
        text::commit_message(facts)
    }

    fn merge_message(&self, facts: &ChangeFacts) -> String {
        text::merge_message(facts, self.config.files_listed_max)
    }

    fn write_pull_request(&self, facts: &ChangeFacts) -> PullRequest {
        text::pull_request(facts, self.config.files_listed_max)
    }

    fn merge_order(&self, queue: &[Waiting]) -> Vec<u32> {
        order::merge_order(queue, &self.config.hotfix_kinds)
    }
}

pointsman_sdk::export_workflow!(WorkflowDefault);

#[cfg(test)]
mod tests;
