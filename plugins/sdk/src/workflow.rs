//! The world `workflow`.

pub use crate::bindings::workflow::exports::pointsman::workflow::flow::{
    ChangeFacts, Commit, CommitFacts, FileChange, PullRequest, Task, Waiting,
};
use crate::setup::Plugin;

/// Bytes of a title in a branch's name.
const SLUG_BYTES_MAX: usize = 40;

/// Gives git work its words and its order. What is not implemented has a plain text.
pub trait Workflow: Plugin {
    /// Names the branch of a task. `attempt` rises when the name was refused or taken.
    fn branch_name(&self, task: &Task, attempt: u32) -> String {
        plain_branch(task, attempt)
    }

    /// Writes a commit message, trailers included.
    fn commit_message(&self, facts: &CommitFacts) -> String {
        let Task { id, title, .. } = &facts.task;
        let note = if facts.note.is_empty() { String::new() } else { format!("\n{}\n", facts.note) };
        format!("{title}\n{note}\nTask: {id}\n")
    }

    /// Writes the message of the commit that lands a branch.
    fn merge_message(&self, facts: &ChangeFacts) -> String {
        format!("Merge {}: {}\n\nTask: {}\n", facts.branch, facts.task.title, facts.task.id)
    }

    /// Writes a pull request.
    fn write_pull_request(&self, facts: &ChangeFacts) -> PullRequest {
        PullRequest { title: facts.task.title.clone(), body: facts.task.description.clone() }
    }

    /// Orders the queue: positions, the first to land first.
    fn merge_order(&self, queue: &[Waiting]) -> Vec<u32> {
        (0..).zip(queue).map(|(position, _)| position).collect()
    }
}

/// Returns `t-12-what-it-is-about`, with the attempt behind it from the second on.
#[must_use]
pub fn plain_branch(task: &Task, attempt: u32) -> String {
    let mut name = String::new();
    for c in task.id.chars().chain(['-']).chain(task.title.chars()).flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
        if name.len() >= task.id.len() + SLUG_BYTES_MAX {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    if attempt == 0 { name.to_owned() } else { format!("{name}-{}", attempt + 1) }
}

/// Exports a [`Workflow`] as the world `workflow`.
#[macro_export]
macro_rules! export_workflow {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the export glue of the component")]
        const _: () = {
            $crate::__setup!($plugin);
            impl $crate::bindings::workflow::exports::pointsman::workflow::flow::Guest for Glue {
                fn branch_name(task: $crate::workflow::Task, attempt: u32) -> ::std::string::String {
                    SLOT.with(|slot| $crate::workflow::Workflow::branch_name(slot.plugin(), &task, attempt))
                }
                fn commit_message(facts: $crate::workflow::CommitFacts) -> ::std::string::String {
                    SLOT.with(|slot| $crate::workflow::Workflow::commit_message(slot.plugin(), &facts))
                }
                fn merge_message(facts: $crate::workflow::ChangeFacts) -> ::std::string::String {
                    SLOT.with(|slot| $crate::workflow::Workflow::merge_message(slot.plugin(), &facts))
                }
                fn write_pull_request(facts: $crate::workflow::ChangeFacts) -> $crate::workflow::PullRequest {
                    SLOT.with(|slot| $crate::workflow::Workflow::write_pull_request(slot.plugin(), &facts))
                }
                fn merge_order(queue: ::std::vec::Vec<$crate::workflow::Waiting>) -> ::std::vec::Vec<u32> {
                    SLOT.with(|slot| $crate::workflow::Workflow::merge_order(slot.plugin(), &queue))
                }
            }
    $crate::bindings::workflow::export!(Glue with_types_in $crate::bindings::workflow);
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_branches_are_short_and_clean() {
        let task = |title: &str| Task {
            id: "T-12".to_owned(),
            title: title.to_owned(),
            description: String::new(),
            kind: String::new(),
            labels: Vec::new(),
            priority: 4,
            depends_on: Vec::new(),
        };
        assert_eq!(plain_branch(&task("Sort: the *Inbox*!"), 0), "t-12-sort-the-inbox");
        assert_eq!(plain_branch(&task("Sort"), 1), "t-12-sort-2");
        assert_eq!(plain_branch(&task("ü"), 0), "t-12");
        assert!(plain_branch(&task(&"long ".repeat(40)), 0).len() <= 4 + SLUG_BYTES_MAX);
    }
}
