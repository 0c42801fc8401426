//! Components that do everything a host must survive: written by hand, since no compiler would produce them.
//!
//! [`GUESTS`] are the ones that run, each with the outcome it must end in; built, they stand in `dist/`, and a test holds
//! them to these sources. [`bombs`] are made when they are needed: what they cost is in compiling them.
//!
//! To build them anew after a change: `cargo build --release --workspace && target/release/hostile-guests`.

pub mod bombs;
mod others;
mod routers;
mod text;

use std::path::{Path, PathBuf};

pub use text::Text;

/// How a guest must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It gives an answer: what it does harms nobody but itself.
    Answer,
    /// It traps.
    Trap,
    /// It reaches the limit of this name.
    Limit(&'static str),
    /// It answers what its world does not allow; the reason has these words.
    Invalid(&'static str),
}

/// When it ends so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At its load, which changes nothing then.
    Loaded,
    /// In every call.
    Called,
}

/// A component and what must become of it.
#[derive(Debug, Clone, Copy)]
pub struct Guest {
    /// Its name, and its file's.
    pub name: &'static str,
    /// The world it is made for.
    pub world: &'static str,
    /// When it ends.
    pub when: When,
    /// How.
    pub outcome: Outcome,
    source: Source,
}

/// What a guest is made from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// A core module for a world.
    Module(Text),
    /// A whole component in WebAssembly text.
    Component(&'static str),
}

impl Guest {
    /// Returns the component, made from its source.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        match self.source {
            Source::Module(text) => text.component(self.world),
            Source::Component(text) => wat::parse_str(text).expect("the text of a component"),
        }
    }

    /// Returns where the built component stands.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        dist().join(format!("{}.wasm", self.name))
    }

    /// Returns the built component.
    ///
    /// # Errors
    /// There is no such file.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        std::fs::read(self.path())
    }
}

/// Returns the folder of the built components.
#[must_use]
pub fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist")
}

/// Returns every guest.
pub fn guests() -> impl Iterator<Item = &'static Guest> {
    routers::GUESTS.iter().chain(others::GUESTS)
}

/// Returns the guest of a name.
#[must_use]
pub fn guest(name: &str) -> Option<&'static Guest> {
    guests().find(|guest| guest.name == name)
}
