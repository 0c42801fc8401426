//! The decisions of Pointsman: state machines and value types without I/O, clock or randomness.
//!
//! What is decided here is decided from arguments alone, so it can be tested by properties, replayed from the
//! log and run the same way on every replica. Time comes in as [`time::TimeMs`], randomness as bytes.

pub mod accounting;
pub mod agent;
pub mod breaker;
pub mod capability;
pub mod context;
pub mod dead_letter;
pub mod event;
pub mod ids;
pub mod inbox;
pub mod lease;
pub mod limits;
pub mod merge;
pub mod merge_text;
pub mod message;
pub mod message_index;
pub mod path_glob;
pub mod rate;
pub mod retention;
pub mod task;
pub mod time;
pub mod value;
