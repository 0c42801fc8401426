//! Placeholder.

pub mod accounting;
pub mod merge_text;
pub mod path_glob;
