//! What the services need of an authorization server: who an access token names, and for what it is good.
//!
//! Must not know how tokens look, nor what the host gives to those they name.

use async_trait::async_trait;

/// What a checked access token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whom it names, unique at its issuer.
    pub subject: String,
    /// The client it was given to.
    pub client: Option<String>,
    /// What it is good for.
    pub scopes: Vec<String>,
    /// The resources it is meant for; one of those that were asked for at least.
    pub audiences: Vec<String>,
    /// From when on it is not accepted, in milliseconds since 1970; what clocks may differ is counted in.
    pub expires_at_ms: i64,
}

/// Why an access token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// It is no token of the issuer, or not for us, or not now.
    #[error("{why}")]
    Invalid {
        /// What is wrong with it; never the token itself.
        why: String,
    },
    /// The issuer's keys cannot be had.
    #[error("the authorization server's keys cannot be had")]
    Unavailable {
        /// When to try again.
        retry_after_ms: u64,
    },
}

/// Checks access tokens of one issuer.
#[async_trait]
pub trait Issuer: Send + Sync {
    /// Returns the issuer's identifier.
    fn id(&self) -> &str;

    /// Returns what a token says that is valid now and meant for one of `audiences`.
    ///
    /// # Errors
    /// [`GrantError`].
    async fn check(&self, token: &str, audiences: &[String]) -> Result<Grant, GrantError>;
}
