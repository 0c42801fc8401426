//! Components and cached code that somebody altered: whatever they have become, the host takes them for what they are or
//! refuses them, and goes on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman::adapters::wasm::{CodeCounts, Wasm, WasmOptions, fuzz};
use pointsman::ports::plugins::{Grant, Instances, PluginFailure, PluginLimits, PluginSource, Plugins, RouteMessage, World};
use pointsman_core::event::Provenance;

use super::Numbers;

/// Small components read as an admission reads them, in one run; each may be read by two readers for eight worlds.
const READ: usize = 20_000;
/// Shipped components, which are a hundred times as large.
const SHIPPED_READ: usize = 300;
/// Small components loaded.
const LOADED: usize = 1_000;
/// Shipped components loaded: those that pass are compiled.
const SHIPPED_LOADED: usize = 24;
/// Files of the code cache.
const CODE_FILES: usize = 400;

const SEED: u64 = 0x2545_F491_4F6C_DD1D;

fn source(name: &str, world: World, component: &[u8]) -> PluginSource {
    PluginSource {
        name: name.to_owned(),
        world,
        component: Arc::from(component),
        config_json: "{}".to_owned(),
        limits: PluginLimits::default(),
        needs: PluginLimits::default(),
        instances: Instances::Warm,
        lookups: Grant::Given,
    }
}

fn message() -> RouteMessage {
    RouteMessage {
        kind: "question".to_owned(),
        author: "ana".to_owned(),
        provenance: Provenance::Agent,
        owner: "team".to_owned(),
        priority: 4,
        size_bytes: 120,
        attempt: 0,
        age_ms: 5,
        paths: vec!["src/lib.rs".to_owned()],
        tags: Vec::new(),
        capabilities: Vec::new(),
    }
}

/// What components are made of: sections, interfaces, instructions.
fn words() -> Vec<&'static [u8]> {
    vec![
        b"\0asm\x0d\0\x01\0",
        b"\0asm\x01\0\0\0",
        b"\x04\x0a\0asm\x0d\0\x01\0\x00\x00",
        b"\x01\x08\0asm\x01\0\0\0",
        b"\x80\x80\x80\x80\x08",
        b"\xff\xff\xff\xff\x0f",
        b"pointsman:types/symbols@0.1.0",
        b"pointsman:types/log@0.1.0",
        b"pointsman:types/setup@0.1",
        b"@0.2.0",
        b"\x0b\x0b\x0b",
        b"\x03\x40\x0c\x00\x0b",
        b"\x00",
        b"\x40\x00",
    ]
}

fn small() -> Vec<Vec<u8>> {
    hostile_guests::guests().map(|guest| guest.read().expect("it is built")).collect()
}

fn shipped() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).expect("shipped components").map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.iter().filter(|path| path.extension().is_some_and(|end| end == "wasm")).map(|path| fs::read(path).expect("readable")).collect()
}

/// Returns one of the seeds, changed a few times.
fn changed(numbers: &mut Numbers, seeds: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    let mut input = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(3) {
        // Most changes stay small: a component is soon none at all.
        if numbers.below(4) > 0 {
            let at = numbers.below(input.len());
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << numbers.below(8);
            }
        } else {
            let other = numbers.below(seeds.len());
            numbers.change(&mut input, &seeds[other], words);
        }
    }
    input
}

#[test]
fn admission() {
    let (words, mut numbers) = (words(), Numbers(SEED));
    for (seeds, inputs) in [(small(), READ), (shipped(), SHIPPED_READ)] {
        let mut admitted = 0;
        for _ in 0..inputs {
            admitted += usize::from(fuzz::admission(&changed(&mut numbers, &seeds, &words)));
        }
        assert!(admitted > 0 && admitted < inputs, "{admitted} of {inputs}: the changes are neither too small nor too large");
        for length in [0, 1, 4, 7, 8, 9, 64, 1_024] {
            let random: Vec<u8> = (0..length).map(|_| u8::try_from(numbers.below(256)).unwrap_or(0)).collect();
            assert!(!fuzz::admission(&random));
        }
    }
}

#[tokio::test]
async fn loads() {
    let wasm = Wasm::new(WasmOptions::new(None, [7; 32])).expect("this machine runs components");
    let good = hostile_guests::bombs::router();
    wasm.load(source("good", World::Router, &good)).await.expect("it loads");
    let (words, mut numbers) = (words(), Numbers(SEED));
    let mut routers = vec![good];
    // Those that end at their load would only end there again, some of them after two seconds.
    let loads = |guest: &&hostile_guests::Guest| guest.world == "router" && guest.when == hostile_guests::When::Called;
    routers.extend(hostile_guests::guests().filter(loads).map(|guest| guest.read().expect("it is built")));
    let mut ran = 0;
    for _ in 0..LOADED {
        let input = changed(&mut numbers, &routers, &words);
        match wasm.load(source("altered", World::Router, &input)).await {
            Ok(_) => {
                ran += 1;
                let end = wasm.route("altered", &message(), &[]);
                assert!(!matches!(end, Err(PluginFailure::NotBound(_))), "{end:?}");
            }
            Err(failure) => assert!(!matches!(failure, PluginFailure::NotBound(_)), "{failure:?}"),
        }
        wasm.route("good", &message(), &[]).expect("the good one answers");
    }
    assert!(ran > LOADED / 20, "{ran} were loaded");
    let shipped = shipped();
    for _ in 0..SHIPPED_LOADED {
        let input = changed(&mut numbers, &shipped, &words);
        for world in [World::Router, World::Merger, World::Policy] {
            drop(wasm.load(source("altered", world, &input)).await);
        }
    }
    wasm.route("good", &message(), &[]).expect("the good one answers");
}

/// A runtime with a code cache, and the one file in it.
struct Cached {
    wasm: Wasm,
    router: Vec<u8>,
    folder: PathBuf,
    before: CodeCounts,
}

impl Cached {
    async fn new(folder: &Path) -> Self {
        let wasm = Wasm::new(WasmOptions::new(Some(folder.to_owned()), [7; 32])).expect("this machine runs components");
        let mut cached = Self { wasm, router: hostile_guests::bombs::router(), folder: folder.to_owned(), before: CodeCounts::default() };
        assert_eq!(cached.load().await, CodeCounts { compiled: 1, ..CodeCounts::default() });
        assert_eq!(cached.load().await, CodeCounts { cached: 1, ..CodeCounts::default() });
        cached
    }

    /// Loads the router; returns what that added to the counts.
    async fn load(&mut self) -> CodeCounts {
        self.wasm.load(source("router", World::Router, &self.router)).await.expect("it loads whatever the cache holds");
        self.wasm.route("router", &message(), &[]).expect("it answers");
        let (now, before) = (self.wasm.code_counts(), self.before);
        self.before = now;
        CodeCounts {
            compiled: now.compiled - before.compiled,
            cached: now.cached - before.cached,
            rejected: now.rejected - before.rejected,
        }
    }

    fn file(&self) -> PathBuf {
        let names: BTreeSet<PathBuf> = fs::read_dir(&self.folder).expect("a folder").map(|entry| entry.expect("readable").path()).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        names.into_iter().next().expect("one")
    }
}

const REJECTED: CodeCounts = CodeCounts { compiled: 1, cached: 0, rejected: 1 };
const FROM_CACHE: CodeCounts = CodeCounts { compiled: 0, cached: 1, rejected: 0 };
const COMPILED: CodeCounts = CodeCounts { compiled: 1, cached: 0, rejected: 0 };

#[tokio::test]
async fn cached_code() {
    let root = tempfile::tempdir().expect("a folder");
    let mut cached = Cached::new(&root.path().join("code")).await;
    let file = cached.file();
    let whole = fs::read(&file).expect("readable");
    let other = {
        let folder = root.path().join("other");
        let wasm = Wasm::new(WasmOptions::new(Some(folder.clone()), [7; 32])).expect("this machine runs components");
        let another = hostile_guests::guest("trap-in-route").expect("a guest").read().expect("it is built");
        wasm.load(source("other", World::Router, &another)).await.expect("it loads");
        let entry = fs::read_dir(&folder).expect("a folder").next().expect("a file").expect("readable");
        fs::read(entry.path()).expect("readable")
    };
    fs::write(&file, &other).expect("writable");
    assert_eq!(cached.load().await, REJECTED, "the same host's code of another component");
    let (seeds, words, mut numbers) = ([whole.clone(), other], words(), Numbers(SEED));
    let mut altered = 0;
    for _ in 0..CODE_FILES {
        let input = changed(&mut numbers, &seeds, &words);
        fs::write(&file, &input).expect("writable");
        assert_eq!(cached.load().await, if input == whole { FROM_CACHE } else { REJECTED });
        altered += usize::from(input != whole);
        // Written anew, by the same compiler: only the order in which it worked may differ.
        assert_eq!(cached.load().await, FROM_CACHE);
    }
    assert!(altered > CODE_FILES * 9 / 10, "{altered}");
}

#[tokio::test]
async fn names_of_cached_code() {
    let root = tempfile::tempdir().expect("a folder");
    let mut cached = Cached::new(&root.path().join("code")).await;
    let file = cached.file();
    let whole = fs::read(&file).expect("readable");
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let mut numbers = Numbers(SEED);
    for _ in 0..50 {
        // The right code under a name that is off by a letter is not looked at.
        let mut near = name.clone().into_bytes();
        let at = numbers.below(near.len() - ".code".len());
        near[at] = if near[at] == b'a' { b'b' } else { b'a' };
        let near = cached.folder.join(String::from_utf8(near).expect("ASCII"));
        fs::rename(&file, &near).expect("renamed");
        assert_eq!(cached.load().await, COMPILED, "{}", near.display());
        fs::remove_file(near).expect("removed");
        assert_eq!(cached.load().await, FROM_CACHE);
    }

    let elsewhere = root.path().join("elsewhere");
    fs::write(&elsewhere, &whole).expect("writable");
    fs::remove_file(&file).expect("removed");
    std::os::unix::fs::symlink(&elsewhere, &file).expect("a link");
    assert_eq!(cached.load().await, REJECTED, "a link, even to the right code");
    assert_eq!(cached.load().await, FROM_CACHE, "replaced by a file");
    assert_eq!(fs::read(&elsewhere).expect("readable"), whole, "nothing is written through it");

    fs::remove_file(&file).expect("removed");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    assert_eq!(cached.load().await, REJECTED, "a pipe, of which nothing ever comes");
    assert_eq!(cached.load().await, FROM_CACHE);

    fs::remove_file(&file).expect("removed");
    fs::create_dir(&file).expect("a folder");
    assert_eq!(cached.load().await, REJECTED, "a folder");
    assert_eq!(cached.load().await, REJECTED, "which stays, and is in the way");
}
