//! Documents over plain HTTP: whole, in ranges, in chunks. Driving port: the transport calls it, shared context stands behind it.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

use super::repository::ByteStream;
use super::surface::Caller;

/// A range of bytes that is asked for (RFC 9110, section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From one to another, both included; no end: to the last.
    From(u64, Option<u64>),
    /// The last ones.
    Last(u64),
}

/// What is asked of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentAsk {
    /// What it says.
    Read {
        /// None: the newest.
        version: Option<u64>,
        /// None: all of it.
        range: Option<ByteRange>,
    },
    /// What it is made of.
    Manifest {
        /// None: the newest.
        version: Option<u64>,
    },
    /// Which of these chunks the host needs yet.
    Missing {
        /// Their names.
        chunks: Vec<String>,
    },
    /// Chunks for it.
    Bring {
        /// Their bytes.
        chunks: Vec<Bytes>,
    },
    /// A version of it.
    Write(DocumentWrite),
}

/// A version to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentWrite {
    /// The version it was made from; none or 0: a new document.
    pub base_version: Option<u64>,
    /// What it is.
    pub media_type: Option<String>,
    /// The same key never writes a second version.
    pub idempotency_key: Option<String>,
    /// What it says.
    pub content: WrittenContent,
}

/// What a version is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrittenContent {
    /// This.
    Whole(Bytes),
    /// The chunks of these names, one after another.
    Chunks(Vec<String>),
}

/// A part of a document, or all of it.
pub struct DocumentBytes {
    /// Which version.
    pub version: u64,
    /// Its hash, hex.
    pub hash: String,
    /// What it is.
    pub media_type: String,
    /// How many bytes it has in all.
    pub size_bytes: u64,
    /// From which byte to before which; none: all.
    pub range: Option<(u64, u64)>,
    /// They themselves.
    pub body: DocumentBody,
}

/// Bytes on their way out.
pub enum DocumentBody {
    /// Few.
    Whole(Bytes),
    /// Read as they are sent.
    Stream(ByteStream),
}

/// An answer.
pub enum DocumentAnswer {
    /// A value.
    Json(Value),
    /// Bytes.
    Bytes(DocumentBytes),
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentRejected {
    /// The caller can do something about it.
    Refused {
        /// Stable, for programs.
        code: &'static str,
        /// `{code, why, do, data}`.
        json: String,
    },
    /// The range lies behind the end.
    Unsatisfiable {
        /// How many bytes there are.
        size_bytes: u64,
    },
    /// Nobody can do anything about it now.
    Unavailable {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// A bug or a lost dependency; the details are in the log.
    Internal,
}

/// Shared context for HTTP clients.
#[async_trait]
pub trait DocumentSurface: Send + Sync {
    /// Does what is asked, for the agent that is named, or the caller's only one. A write that was begun is carried out, also when the future is
    /// dropped.
    ///
    /// # Errors
    /// [`DocumentRejected`].
    async fn document(&self, caller: &Caller, agent: Option<&str>, key: &str, ask: DocumentAsk)
    -> Result<DocumentAnswer, DocumentRejected>;

    /// Returns the newest versions of the documents below a prefix, behind a key (empty: from the first), without what they
    /// say; `more` names the key behind which the list goes on.
    ///
    /// # Errors
    /// [`DocumentRejected`].
    async fn documents(&self, caller: &Caller, agent: Option<&str>, prefix: &str, after: &str) -> Result<DocumentAnswer, DocumentRejected>;
}
