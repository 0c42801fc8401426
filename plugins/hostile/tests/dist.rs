//! The built guests are those of the sources.

use std::collections::BTreeSet;
use std::fs;

/// Bytes of a built guest: they stay small.
const BYTES_MAX: usize = 8 << 10;

#[test]
fn the_built_guests_are_those_of_the_sources() {
    let mut stale = Vec::new();
    for guest in hostile_guests::guests() {
        let built = guest.build();
        assert!(built.len() <= BYTES_MAX, "{}: {} bytes", guest.name, built.len());
        let kept = guest.read().unwrap_or_default();
        if kept != built {
            stale.push(guest.name);
        }
    }
    assert!(stale.is_empty(), "build them anew with target/release/hostile-guests: {stale:?}");
}

#[test]
fn nothing_else_stands_among_them() {
    let known: BTreeSet<_> = hostile_guests::guests().map(|guest| format!("{}.wasm", guest.name)).collect();
    assert_eq!(known.len(), hostile_guests::guests().count(), "names are unique");
    let found: BTreeSet<_> = fs::read_dir(hostile_guests::dist())
        .expect("there is a folder")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, known);
}
