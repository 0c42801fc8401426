//! Hosts that serve one store together: what one asks of another.
//!
//! Driven side [`Siblings`], driving side [`SiblingSurface`]. What is asked is bytes here: the services on both sides know their form.
//! Must not know how bytes travel, nor how a sibling is known to be one.

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use super::repository::{ByteStream, GitResponse};

/// Why a sibling did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SiblingError {
    /// It cannot be reached, or broke off. It may still have done what was asked.
    #[error("{why}")]
    Away {
        /// One sentence, with its address.
        why: String,
    },
    /// It answered that it does not take such a question: it has other keys, or is of another version.
    #[error("{why}")]
    Refused {
        /// One sentence.
        why: String,
    },
}

/// The other hosts.
#[async_trait]
pub trait Siblings: Send + Sync {
    /// Asks a host; returns its whole answer. Where it breaks off before the host can have read the question it is asked once more.
    ///
    /// # Errors
    /// [`SiblingError`].
    async fn ask(&self, url: &str, question: Bytes) -> Result<Bytes, SiblingError>;

    /// Asks a host for git's own protocol, with a body that streams both ways.
    ///
    /// # Errors
    /// [`SiblingError`].
    async fn serve(&self, url: &str, question: Bytes, body: ByteStream) -> Result<Streamed, SiblingError>;
}

/// An answer whose body streams.
pub enum Streamed {
    /// The answer of git.
    Git(GitResponse),
    /// What stands in its place, in the services' form.
    Instead(Bytes),
}

/// What a host answers its siblings.
#[async_trait]
pub trait SiblingSurface: Send + Sync {
    /// Answers a question; none: it has no form known here.
    async fn answer(&self, question: Bytes) -> Option<Vec<u8>>;

    /// Answers a question for git's own protocol; none: it has no form known here.
    async fn serve(&self, question: Bytes, body: ByteStream) -> Option<Streamed>;
}
