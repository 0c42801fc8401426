//! On whose behalf something is done: the id that its events and log lines carry, known to whatever is called meanwhile.
//!
//! Owns nothing else: what is decided must not depend on it. It does not follow into tasks that are spawned.

use std::future::Future;
use std::sync::Arc;

tokio::task_local! {
    static TRACE: Arc<str>;
}

/// Does something on behalf of the act with this id. It takes no more room than the work.
pub fn on_behalf<F: Future>(trace: impl Into<Arc<str>>, work: F) -> impl Future<Output = F::Output> {
    TRACE.scope(trace.into(), work)
}

/// Returns the id of the act on whose behalf this is done; none where nobody said so.
#[must_use]
pub fn current() -> Option<Arc<str>> {
    TRACE.try_with(Arc::clone).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_known_to_what_is_called_and_to_nobody_else() {
        assert_eq!(current(), None);
        let within = on_behalf("outer", async {
            let inner = on_behalf("inner", async { current() }).await;
            (inner, current(), tokio::spawn(async { current() }).await.expect("no panic"))
        });
        let (inner, outer, spawned) = within.await;
        assert_eq!((inner.as_deref(), outer.as_deref(), spawned), (Some("inner"), Some("outer"), None));
        assert_eq!(current(), None);
    }
}
