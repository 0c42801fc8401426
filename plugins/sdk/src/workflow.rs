//! The world `workflow`.

pub use crate::bindings::workflow::exports::pointsman::workflow::flow::{
    ChangeFacts, Commit, CommitFacts, FileChange, PullRequest, Task, Waiting,
};
use crate::setup::Plugin;

/// Gives git work its words and its order.
pub trait Workflow: Plugin {
    /// Names the branch of a task. `attempt` rises when the name was refused or taken.
    fn branch_name(&self, task: &Task, attempt: u32) -> String;
    /// Writes a commit message, trailers included.
    fn commit_message(&self, facts: &CommitFacts) -> String;
    /// Writes the message of the commit that lands a branch.
    fn merge_message(&self, facts: &ChangeFacts) -> String;
    /// Writes a pull request.
    fn write_pull_request(&self, facts: &ChangeFacts) -> PullRequest;
    /// Orders the queue: positions, the first to land first.
    fn merge_order(&self, queue: &[Waiting]) -> Vec<u32>;
}

/// Exports a [`Workflow`] as the world `workflow`.
#[macro_export]
macro_rules! workflow {
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
