//! The look-up port: what a component may read of the project while it handles an event or a call.
//!
//! **Invariant:** a look-up changes nothing, and one that failed never passes for one that found nothing.

/// Why a look-up gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupRefusal {
    /// There is no such thing, or it may not be seen.
    #[error("not found")]
    NotFound,
    /// The grant is missing.
    #[error("not granted: {0}")]
    NotGranted(String),
    /// A limit was reached.
    #[error("limited: {0}")]
    Limited(String),
}

/// What a component may read of the project. Called on a thread that may block.
pub trait Lookups: Send + Sync {
    /// Reads a resource (`pointsman://…`) as JSON.
    ///
    /// # Errors
    /// [`LookupRefusal`].
    fn read(&self, uri: &str) -> Result<String, LookupRefusal>;

    /// Returns whether the host failed to give what was read, so that what came of it is not the component's own doing.
    fn is_broken(&self) -> bool {
        false
    }
}
