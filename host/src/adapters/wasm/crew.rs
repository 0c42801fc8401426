//! Where plugins are asked whose calls may take long: threads that what is asked of the host goes before.
//!
//! It knows no plugin. **Invariant:** whoever calls the host and asks no plugin does not wait behind somebody's plugin, however many
//! of them compute.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinError;

use super::lane::yield_to_others;

/// Added to the threads' niceness: beside something that answers agents, plugins get one part of four (sched(7)).
const NICENESS: i32 = 5;

/// Threads of lower priority, which come as they are needed and go when they are not.
#[derive(Debug)]
pub(super) struct Crew(Option<Runtime>);

impl Crew {
    /// Returns a crew without a thread as yet.
    ///
    /// # Errors
    /// The system gives nothing to run on.
    pub(super) fn new() -> io::Result<Self> {
        // Of this runtime only the threads for what blocks are used.
        let runtime = Builder::new_current_thread().thread_name("plugin-crew").on_thread_start(|| yield_to_others(NICENESS)).build()?;
        Ok(Self(Some(runtime)))
    }

    /// Does work on one of the threads.
    ///
    /// # Errors
    /// The work panicked, or the crew is gone.
    pub(super) async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, JoinError> {
        let runtime = self.0.as_ref().expect("it is taken at the drop only");
        runtime.spawn_blocking(work).await
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Whatever runs ends by its own deadline; nobody waits for it here, where it may be a worker that drops.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_with_lower_priority_and_its_panic_is_the_callers() {
        let crew = Crew::new().expect("it starts");
        let niceness = || rustix::process::getpriority_process(None).expect("a priority");
        let own = niceness();
        assert_eq!(crew.run(niceness).await.expect("it is done"), (own + NICENESS).min(19));
        assert_eq!(niceness(), own, "only the crew yields");
        assert!(crew.run(|| std::panic::resume_unwind(Box::new("gone"))).await.expect_err("it panicked").is_panic());
        assert_eq!(crew.run(|| 7).await.expect("another takes its place"), 7);
    }
}
