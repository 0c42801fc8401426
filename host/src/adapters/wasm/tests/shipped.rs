//! The shipped components, as committed.
