//! The plugin book: its reference is that of the WIT, its chapters are linked, the messages it explains are those of the host.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pointsman::plugin_build::reference;
use pointsman::ports::plugins::World;

/// Bytes of a part of a quoted message that say something.
const PART_BYTES_MIN: usize = 6;

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/book/src")
}

/// Returns the files below a folder that end so, by their paths from it.
fn files(folder: &Path, ending: &str) -> Vec<(String, String)> {
    fn collect(folder: &Path, below: &str, ending: &str, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                collect(&entry.path(), &format!("{name}/"), ending, found);
            } else if name.ends_with(ending) {
                found.push((name, std::fs::read_to_string(entry.path()).expect("a text")));
            }
        }
    }
    let mut found = Vec::new();
    collect(folder, "", ending, &mut found);
    found.sort();
    found
}

/// Returns where the links of a text lead, as they are written.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[test]
fn the_reference_is_that_of_the_worlds() {
    let kept = |world: World| std::fs::read_to_string(book().join("reference").join(reference::file_name(world))).unwrap_or_default();
    let is_stale = |world: &World| kept(*world) != reference::markdown(*world).expect("wit/ resolves");
    let stale: Vec<&str> = World::ALL.iter().filter(|world| is_stale(world)).map(|world| world.name()).collect();
    assert!(
        stale.is_empty(),
        "the reference of {} is not that of wit/; write it anew, in the repository's root:\n  \
         cargo run --release -- plugin reference --out host/docs/book/src/reference",
        stale.join(", ")
    );
}

#[test]
fn every_chapter_is_in_the_summary_and_every_link_leads_somewhere() {
    let chapters = files(&book(), ".md");
    let summary = std::fs::read_to_string(book().join("SUMMARY.md")).expect("the book has a summary");
    let listed: BTreeSet<&str> = links(&summary).collect();
    let mut wrong = Vec::new();
    for (path, text) in &chapters {
        if path != "SUMMARY.md" && !listed.contains(path.as_str()) {
            wrong.push(format!("{path} is not in SUMMARY.md"));
        }
        let folder = book().join(path).parent().map(Path::to_owned).unwrap_or_default();
        for link in links(text).filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap_or_default();
            if !folder.join(file).is_file() {
                wrong.push(format!("{path}: there is no {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first column of the tables of `troubleshooting.md` quotes messages between double backticks; `…` stands for what changes.
#[test]
fn the_messages_it_explains_are_those_of_the_host() {
    let text = std::fs::read_to_string(book().join("troubleshooting.md")).expect("there is a chapter on trouble");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = [files(&root.join("src"), ".rs"), files(&root.join("core/src"), ".rs")].concat();
    let all: String = all.into_iter().map(|(_, text)| text).collect();
    // A text that goes on in the next line, and characters that Rust or its formats write otherwise.
    let sources: String = all.split("\\\n").enumerate().map(|(i, part)| if i == 0 { part } else { part.trim_start() }).collect();
    let sources = sources.replace("\\\"", "\"").replace("{{", "{").replace("}}", "}");
    let mut unknown = Vec::new();
    let mut quoted = 0;
    for row in text.lines().filter_map(|line| line.strip_prefix("| `` ")) {
        let message = row.split(" `` |").next().unwrap_or_default();
        for part in message.split('…').map(|part| part.trim()).filter(|part| part.len() >= PART_BYTES_MIN) {
            quoted += 1;
            if !sources.contains(part) {
                unknown.push(format!("{part:?} of {message:?}"));
            }
        }
    }
    assert!(quoted > 10, "the tables quote messages between double backticks");
    assert!(unknown.is_empty(), "the sources do not say:\n  {}", unknown.join("\n  "));
}
