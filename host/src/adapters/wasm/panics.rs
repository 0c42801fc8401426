//! The interface `panics`, which every world gives: what a guest says before it traps.
//!
//! **Invariant:** last words are bounded, and belong to the call in which they were said.

use wasmtime::component::{HasSelf, Linker};

use self::bindings::pointsman::types::panics;
use super::store::State;

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        inline: "
            package pointsman:host-panics;
            world panics-part { import pointsman:types/panics@0.1.0; }
        ",
        path: ["../wit/types"],
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

/// Its name.
pub(super) const INTERFACE: &str = "pointsman:types/panics@0.1.0";
/// Bytes of last words.
const WORDS_BYTES_MAX: usize = 4 << 10;
/// Bytes of a place in the source, of these.
const PLACE_BYTES_MAX: usize = 512;

/// Adds the interface.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    panics::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl panics::Host for State {
    fn report(&mut self, message: String, location: String) {
        self.last_words = Some(words(&message, &location));
    }
}

/// Returns one text, as a panic prints it.
fn words(message: &str, location: &str) -> String {
    let place = &location[..location.floor_char_boundary(PLACE_BYTES_MAX)];
    let mut text = if place.is_empty() { format!("panicked: {message}") } else { format!("panicked at {place}: {message}") };
    text.truncate(text.floor_char_boundary(WORDS_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_bounded_and_name_the_place() {
        assert_eq!(words("no rules", "src/lib.rs:12:5"), "panicked at src/lib.rs:12:5: no rules");
        assert_eq!(words("no rules", ""), "panicked: no rules");
        let long = words(&"é".repeat(WORDS_BYTES_MAX), &"é".repeat(PLACE_BYTES_MAX));
        assert!(long.len() <= WORDS_BYTES_MAX && long.contains(": é"), "{}", long.len());
    }
}
