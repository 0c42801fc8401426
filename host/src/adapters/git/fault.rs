//! Faults inside the adapter: what libgit2 and the file system say, and how it becomes the port's words.
//!
//! **Invariant:** no text of a fault holds a path of this machine beyond what git itself prints.

use std::io;

use crate::ports::repository::{Oid, RepositoryError};

/// Why a step inside the adapter stopped.
#[derive(Debug)]
pub(super) enum Fault {
    /// Somebody else holds a ref's lock right now; worth another try.
    Locked(String),
    /// An answer for the caller.
    Port(RepositoryError),
    /// libgit2 failed.
    Git(git2::Error),
    /// The file system failed.
    Io(io::Error),
}

impl From<RepositoryError> for Fault {
    fn from(error: RepositoryError) -> Self {
        Self::Port(error)
    }
}

impl From<git2::Error> for Fault {
    fn from(error: git2::Error) -> Self {
        if error.code() == git2::ErrorCode::Locked { Self::Locked(error.message().to_owned()) } else { Self::Git(error) }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Fault> for RepositoryError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Port(error) => error,
            Fault::Locked(why) => Self::Failed { why },
            Fault::Git(error) => Self::Failed { why: error.message().to_owned() },
            Fault::Io(error) => Self::Failed { why: error.to_string() },
        }
    }
}

/// Returns a refusal.
pub(super) fn refused(rule: &'static str, why: impl Into<String>) -> Fault {
    Fault::Port(RepositoryError::Refused { rule, why: why.into() })
}

/// Returns that something is not there.
pub(super) fn not_found(what: impl Into<String>) -> Fault {
    Fault::Port(RepositoryError::NotFound { what: what.into() })
}

/// Returns that git failed.
pub(super) fn failed(why: impl Into<String>) -> Fault {
    Fault::Port(RepositoryError::Failed { why: why.into() })
}

/// Turns libgit2's "not found" into the port's, naming what was looked for.
pub(super) fn or_not_found<T>(found: Result<T, git2::Error>, what: impl FnOnce() -> String) -> Result<T, Fault> {
    found.map_err(|error| {
        if matches!(error.code(), git2::ErrorCode::NotFound | git2::ErrorCode::InvalidSpec) { not_found(what()) } else { error.into() }
    })
}

/// Returns an object's name as libgit2 has it.
pub(super) fn raw(oid: Oid) -> git2::Oid {
    git2::Oid::from_bytes(&oid.0).expect("an object's name has twenty bytes on both sides")
}

/// Returns an object's name as the port has it.
pub(super) fn oid(raw: git2::Oid) -> Oid {
    Oid(raw.as_bytes().try_into().expect("the repositories are SHA-1"))
}

/// Returns the commit of this name.
pub(super) fn commit(repository: &git2::Repository, commit: Oid) -> Result<git2::Commit<'_>, Fault> {
    or_not_found(repository.find_commit(raw(commit)), || format!("commit {commit}"))
}
