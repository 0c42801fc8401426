//! Placeholder until the branch that writes it lands.

/// A glob over repository paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct PathGlob(String);
