//! What changed, for those who asked to be told of it. Pure.
//!
//! **Invariants:** news of a document name it only as a whole, so that who may not read it can be told nothing of them; news of
//! several writes of a document, joined, name the newest version and the one before the first.

use std::sync::Arc;

use pointsman_core::context::DocumentKey;
use pointsman_core::path_glob::{PathGlob, PathGlobError};
use serde_json::Value;

/// What the URIs of shared documents start with.
pub const DOCUMENTS: &str = "pointsman://context/";
/// The resources that show the documents, or all that happens, each to whom it may be shown.
const OF_DOCUMENTS: [&str; 2] = ["pointsman://context", "pointsman://events"];

/// Something changed that clients may have asked to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The list of tools.
    Tools,
    /// The list of prompts.
    Prompts,
    /// The list of resources or templates.
    Resources,
    /// A resource's content.
    Resource(Arc<str>),
    /// Something happened to a shared document: told only to those who may read it, whichever resource they asked for.
    Document(Arc<DocumentNews>),
    /// A deferred call.
    Deferred(Arc<str>),
}

/// What happened to a shared document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentNews {
    /// Which.
    pub key: DocumentKey,
    /// How far it went.
    pub reach: Reach,
    /// What it says now; none: what it said before.
    pub write: Option<DocumentWrite>,
}

/// What an event of a document changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The document, or what is known of it, such as its conflicts.
    Document,
    /// Nothing but the log.
    Log,
}

/// A write of a document, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentWrite {
    /// The version it became.
    pub version: u64,
    /// The version before, of several before the first of them; none: there was none.
    pub before: Option<u64>,
    /// What changed between the two; none: it is too much, or there were several writes.
    pub patch: Option<Value>,
    /// Who wrote, of several who wrote last.
    pub author: String,
    /// Whether the document is gone.
    pub is_deleted: bool,
    /// Whether there were several.
    pub is_several: bool,
}

impl DocumentNews {
    /// Returns the document's URI.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{DOCUMENTS}{}", self.key)
    }

    /// Returns the URIs of the lists it stands in.
    #[must_use]
    pub fn lists(&self) -> &'static [&'static str] {
        match self.reach {
            Reach::Document => &OF_DOCUMENTS,
            Reach::Log => &OF_DOCUMENTS[1..],
        }
    }

    /// Returns these news and earlier ones of the same document as one.
    #[must_use]
    pub fn joined(&self, earlier: &Self) -> Self {
        let reach = if earlier.reach == Reach::Document { Reach::Document } else { self.reach };
        let write = match (&earlier.write, &self.write) {
            (Some(earlier), Some(later)) => Some(DocumentWrite { before: earlier.before, patch: None, is_several: true, ..later.clone() }),
            (earlier, later) => later.clone().or_else(|| earlier.clone()),
        };
        Self { key: self.key.clone(), reach, write }
    }
}

/// Returns the glob over keys that a URI names in place of a key; none: it names no documents, or one. No key has a `*`.
#[must_use]
pub fn keys_of(uri: &str) -> Option<Result<PathGlob, PathGlobError>> {
    let keys = uri.strip_prefix(DOCUMENTS).filter(|keys| keys.contains('*'))?;
    Some(keys.parse())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(version: u64, author: &str) -> DocumentNews {
        let write = DocumentWrite {
            version,
            before: version.checked_sub(1).filter(|before| *before > 0),
            patch: Some(json!([])),
            author: author.to_owned(),
            is_deleted: false,
            is_several: false,
        };
        DocumentNews { key: "plan/api".parse().expect("a key"), reach: Reach::Document, write: Some(write) }
    }

    #[test]
    fn several_writes_are_told_as_one() {
        let joined = written(5, "ana").joined(&written(4, "bo").joined(&written(3, "ana")));
        let write = joined.write.expect("it was written");
        assert_eq!((write.version, write.before, write.patch, write.author.as_str()), (5, Some(2), None, "ana"));
        assert!(write.is_several && !write.is_deleted);
        let begun = written(2, "ana").joined(&written(1, "ana")).write.expect("it was written");
        assert_eq!((begun.version, begun.before), (2, None));
    }

    #[test]
    fn what_else_happens_to_a_document_takes_nothing_from_its_write() {
        let told = |reach| DocumentNews { reach, write: None, ..written(3, "ana") };
        assert_eq!(told(Reach::Log).joined(&written(3, "ana")), written(3, "ana"));
        assert_eq!(written(3, "ana").joined(&told(Reach::Log)), written(3, "ana"));
        assert_eq!(told(Reach::Document).joined(&told(Reach::Log)), told(Reach::Document));
        assert_eq!(told(Reach::Log).lists(), ["pointsman://events"]);
        assert_eq!(told(Reach::Document).lists(), ["pointsman://context", "pointsman://events"]);
    }

    #[test]
    fn a_uri_with_a_star_means_all_keys_that_fit() {
        let glob = keys_of("pointsman://context/plan/**").expect("a pattern").expect("a glob");
        assert!(glob.matches("plan/api") && glob.matches("plan/a/b") && !glob.matches("notes/api"));
        for one in ["pointsman://context/plan/api", "pointsman://context", "pointsman://task/*", "https://h/context/*"] {
            assert!(keys_of(one).is_none(), "{one}");
        }
        for wrong in ["pointsman://context/../*", "pointsman://context//*"] {
            assert!(keys_of(wrong).is_some_and(|glob| glob.is_err()), "{wrong}");
        }
    }
}
