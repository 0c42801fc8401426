//! `pointsman plugin build`: guest crate to component, checked against its world, with its entry in the lock.
//!
//! Owns: the manifest's form, the choice of a toolchain, the flags that make the bytes reproducible, the check
//! of a component against its world, and the lock. Must not know: how components run.
//!
//! **Invariants:** a file in the output folder targets the world its manifest names and imports nothing else;
//! the lock names its digest; with the same sources, compiler and linker the bytes are the same in any folder.

use std::path::{Path, PathBuf};

mod compile;
pub mod component;
pub mod config_schema;
pub mod digest_lock;
mod interpreted;
pub mod lock;
pub mod manifest;
pub mod reference;
pub mod scaffold;
mod sources;
pub mod toolchain;

use crate::plugin_cases::golden::{self, Chosen};
use crate::plugin_cases::{self, CaseError};
use crate::ports::plugins::World;
use compile::{Guest, Purpose};
use component::Papers;
use lock::{Entry, Lock};
use manifest::{Lang, Manifest};
use toolchain::{StdSource, Toolchain};

/// The manifest's name in a guest crate.
pub const MANIFEST_FILE: &str = "plugin.toml";

/// Whether a build tells how it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Lines on stderr, the compiler's among them.
    Stderr,
    /// Nothing; a failure carries what the compiler said.
    Silent,
}

/// Whether `Cargo.lock` must be there and fit already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// It is taken as it is.
    Yes,
    /// Cargo may write it.
    No,
}

/// Whether a component takes cases along, for the host to ask before it takes the component in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// The golden calls among those of its folder.
    Golden,
    /// None.
    Nothing,
}

/// Asks a core module for the JSON Schema of its configuration, by running it.
pub type SchemaOf = fn(&[u8]) -> Result<Option<String>, String>;

/// What to build, and where to.
#[derive(Debug, Clone)]
pub struct Options {
    /// The guest crate's folder, with `Cargo.toml` and `plugin.toml`.
    pub dir: PathBuf,
    /// Where the component and the lock go.
    pub out: PathBuf,
    /// Where the compiler works; `guests` in the crate's own target folder when none.
    pub target_dir: Option<PathBuf>,
    /// Whether `Cargo.lock` must fit.
    pub locked: Locked,
    /// Whether to tell how it goes.
    pub progress: Progress,
    /// Asks a module for the schema of its configuration; none builds components without one.
    pub schema_of: Option<SchemaOf>,
    /// Whether it takes cases along.
    pub carry: Carry,
}

impl Options {
    /// Returns the usual options for a crate.
    pub fn new(dir: impl Into<PathBuf>, out: impl Into<PathBuf>) -> Self {
        let (locked, progress, carry) = (Locked::No, Progress::Stderr, Carry::Golden);
        Self { dir: dir.into(), out: out.into(), target_dir: None, locked, progress, schema_of: None, carry }
    }
}

/// A component that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// Where it is.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// What the lock says of it.
    pub entry: Entry,
}

/// What a rebuild says of a shipped component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// The rebuild gave the bytes that are shipped.
    SameBytes {
        /// Their digest.
        digest: String,
    },
    /// The rebuild fits its world, but another compiler or linker made it, so that bytes cannot be compared.
    OtherToolchain {
        /// What the lock names: compiler and linker.
        locked: String,
        /// What is here.
        here: String,
        /// The rebuilt component, for golden calls.
        component: Vec<u8>,
    },
}

/// Why a component was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no manifest.
    #[error("{} is missing: a guest crate needs one beside its Cargo.toml, with manifest_version, name, version, world and description", path.display())]
    NoManifest {
        /// Where it should be.
        path: PathBuf,
    },
    /// The manifest does not fit.
    #[error("{} does not fit: {reason}", path.display())]
    Manifest {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A case of its folder cannot be read.
    #[error(transparent)]
    Case(#[from] CaseError),
    /// The manifest and the crate disagree.
    #[error("plugin.toml says version {manifest}, Cargo.toml says {package}; make them the same")]
    Version {
        /// In `plugin.toml`.
        manifest: String,
        /// In `Cargo.toml`.
        package: String,
    },
    /// Nothing here compiles for the target.
    #[error(
        "no Rust toolchain here compiles for wasm32-unknown-unknown (asked: {}). Two ways out: \
         `rustup target add wasm32-unknown-unknown`, or on Debian `apt-get install rustc-web cargo-web rust-web-src lld-19`",
        if asked.is_empty() { "none found".to_owned() } else { asked.iter().filter_map(|text| text.lines().next()).collect::<Vec<_>>().join(", ") }
    )]
    NoToolchain {
        /// What the compilers that are here say of themselves.
        asked: Vec<String>,
    },
    /// Nothing here links for the target.
    #[error("no linker for WebAssembly here: install a rustup toolchain, which brings rust-lld, or on Debian `apt-get install lld-19`")]
    NoLinker,
    /// Cargo could not be started.
    #[error("{} could not be started", program.display())]
    Cargo {
        /// Which.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Cargo said something unexpected.
    #[error("cargo's report cannot be read")]
    CargoReport {
        /// Why.
        source: serde_json::Error,
    },
    /// The folder holds no crate.
    #[error("{} is not a crate that cargo can read: {said}", dir.display())]
    NoCrate {
        /// The folder.
        dir: PathBuf,
        /// What cargo said.
        said: String,
    },
    /// The crate makes no module.
    #[error("the crate {name} makes no module: write `[lib]` and `crate-type = [\"cdylib\", \"rlib\"]` into its Cargo.toml")]
    NotACdylib {
        /// Which.
        name: String,
    },
    /// The compiler refused.
    #[error("{} does not compile{}{said}", dir.display(), if said.is_empty() { "" } else { ": " })]
    DoesNotCompile {
        /// The folder.
        dir: PathBuf,
        /// What it said, when it did not say so on stderr.
        said: String,
    },
    /// The module wants what its world does not give.
    #[error(
        "the guest imports {}, which the world `{world}` does not give; \
         find the dependency that expects an operating system (`cargo tree`) and turn that feature off",
        imports.join(", ")
    )]
    ForeignImports {
        /// The world.
        world: World,
        /// Module and name of each.
        imports: Vec<String>,
    },
    /// The module cannot become a component.
    #[error(
        "the module cannot become a component of the world `{world}`; does the crate use the `pointsman-sdk` that belongs to this host?"
    )]
    Componentize {
        /// The world.
        world: World,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bytes are WIT, not a component.
    #[error("these bytes are a WIT package, not a component of the world `{world}`")]
    NotAComponent {
        /// The world.
        world: World,
    },
    /// The schema of the configuration cannot be had.
    #[error("the schema of the plugin's configuration cannot be had: {why}")]
    Schema {
        /// Why.
        why: String,
    },
    /// The manifest's own configuration does not fit the plugin.
    #[error("`[config]` of plugin.toml does not fit the plugin's configuration: {}", findings.join("; and "))]
    ManifestConfig {
        /// What does not fit, and where.
        findings: Vec<String>,
    },
    /// The folder lacks the file that a plugin of its language is.
    #[error("{} is missing: a plugin in this language is that file, and what it imports", path.display())]
    NoEntry {
        /// Where it should be.
        path: PathBuf,
    },
    /// A program is missing.
    #[error("{what} is missing: {advice}")]
    NoProgram {
        /// Which.
        what: &'static str,
        /// How to get it.
        advice: &'static str,
    },
    /// A tool failed.
    #[error("{what} failed: {said}")]
    Tool {
        /// What it was to do.
        what: String,
        /// What it said.
        said: String,
    },
    /// The component is of another shape than its world.
    #[error("the component is not of the world `{world}`: {}", mismatch(*world, missing, extra, foreign))]
    WorldMismatch {
        /// The world.
        world: World,
        /// Exports it lacks.
        missing: Vec<String>,
        /// Exports the world does not know.
        extra: Vec<String>,
        /// Imports the world does not give.
        foreign: Vec<String>,
    },
    /// Names fit, types do not.
    #[error(
        "the component's types are not those of the world `{world}` at this version; rebuild it with the `pointsman-sdk` that belongs to this host"
    )]
    WorldTypes {
        /// The world.
        world: World,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The host's own WIT is broken.
    #[error("the host's own WIT does not resolve; this is a bug in the host")]
    BrokenWit {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The lock does not fit.
    #[error("{} does not fit: {reason}", path.display())]
    Lock {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The lock does not know the plugin.
    #[error("{name} is not in the lock of {}; build it first", dist.display())]
    NotLocked {
        /// Which.
        name: String,
        /// The folder.
        dist: PathBuf,
    },
    /// The shipped bytes are not those of the lock, or a rebuild gives others.
    #[error("{name} differs: the lock says {locked}, {what} has {found}; build it again and commit both files")]
    Differs {
        /// Which.
        name: String,
        /// What was held against the lock.
        what: &'static str,
        /// The lock's digest.
        locked: String,
        /// The other one.
        found: String,
    },
}

/// Says in one line what is wrong with a shape, and how to mend it.
fn mismatch(world: World, missing: &[String], extra: &[String], foreign: &[String]) -> String {
    let mut parts = Vec::new();
    if !missing.is_empty() {
        let macro_name = world.name().replace('-', "_");
        parts.push(format!(
            "it does not export {} (write `#[pointsman_sdk::{macro_name}]` on your function, or `pointsman_sdk::export_{macro_name}!(YourType);`, once, and `world = \"{world}\"` in plugin.toml)",
            missing.join(", ")
        ));
    }
    if !extra.is_empty() {
        parts.push(format!("it exports {}, which belongs to another world (one component, one world)", extra.join(", ")));
    }
    if !foreign.is_empty() {
        parts.push(format!("it imports {}, which this world does not give", foreign.join(", ")));
    }
    parts.join("; ")
}

/// Builds the component of a guest crate, writes it and its entry in the lock.
///
/// # Errors
/// See [`BuildError`]; nothing is written unless the component fits its world.
pub fn build(options: &Options) -> Result<Built, BuildError> {
    let (manifest, component, made_by) = rebuild(options)?;
    let path = options.out.join(format!("{}.wasm", manifest.name));
    let entry = entry_of(&manifest, &component, made_by);
    let mut lock = read_lock(&options.out)?;
    std::fs::create_dir_all(&options.out).map_err(|source| BuildError::Write { path: options.out.clone(), source })?;
    write_whole(&path, &component)?;
    lock.put(entry.clone());
    write_whole(&options.out.join(lock::FILE), lock.to_text().as_bytes())?;
    tell(options, &format!("wrote {} ({} bytes, {})", path.display(), entry.size_bytes, &entry.digest[..16]));
    Ok(Built { path, manifest, entry })
}

/// Builds again what is shipped in `options.out` and holds it against the lock. Writes nothing there.
///
/// # Errors
/// See [`BuildError`]: what a build may meet, and a shipped or rebuilt component that is not the locked one.
pub fn verify(options: &Options) -> Result<Verified, BuildError> {
    let manifest = read_manifest(&options.dir)?.0;
    let name = manifest.name.to_string();
    let lock = read_lock(&options.out)?;
    let locked = lock.get(&name).ok_or_else(|| BuildError::NotLocked { name: name.clone(), dist: options.out.clone() })?;
    let path = options.out.join(format!("{name}.wasm"));
    let shipped = std::fs::read(&path).map_err(|source| BuildError::Read { path, source })?;
    let differs = |what, found: String| BuildError::Differs { name: name.clone(), what, locked: locked.digest.clone(), found };
    if digest(&shipped) != locked.digest {
        return Err(differs("the shipped file", digest(&shipped)));
    }
    let (_, component, made_by) = rebuild(options)?;
    // The same bytes are the same whoever made them; only a difference needs the toolchain as its explanation.
    if component == shipped {
        return Ok(Verified::SameBytes { digest: digest(&component) });
    }
    if made_by.compiler != locked.rustc || made_by.linker != locked.linker {
        let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        return Ok(Verified::OtherToolchain {
            locked: format!("{}, {}", first_line(&locked.rustc), locked.linker),
            here: format!("{}, {}", first_line(&made_by.compiler), made_by.linker),
            component,
        });
    }
    Err(differs("the rebuild", digest(&component)))
}

/// Builds the component of a guest crate and writes nothing but the compiler's own files.
///
/// # Errors
/// See [`BuildError`].
pub fn build_in_memory(options: &Options) -> Result<(Manifest, Vec<u8>), BuildError> {
    rebuild(options).map(|(manifest, component, _)| (manifest, component))
}

/// What made a component, as the lock says it.
#[derive(Debug, Clone)]
struct MadeBy {
    compiler: String,
    linker: String,
}

/// Builds a component in memory.
fn rebuild(options: &Options) -> Result<(Manifest, Vec<u8>, MadeBy), BuildError> {
    let (manifest, text) = read_manifest(&options.dir)?;
    let cases = carried(options)?;
    let papers = Papers { manifest: &manifest, text: &text, schema: None, cases: cases.as_deref() };
    let (component, made_by) = match manifest.lang {
        Lang::Rust => rebuild_rust(options, papers)?,
        Lang::Js | Lang::Python => {
            let (component, made_by) = interpreted::componentize(options, &manifest)?;
            tell(options, &format!("checking it against the world {}", manifest.world));
            (component::finish(component, papers)?, made_by)
        }
    };
    Ok((manifest, component, made_by))
}

/// Returns the cases that go along with the component, as the content of its section; none where the plugin has none.
fn carried(options: &Options) -> Result<Option<String>, BuildError> {
    let folder = options.dir.join(plugin_cases::FOLDER);
    if options.carry == Carry::Nothing || !folder.is_dir() {
        return Ok(None);
    }
    let cases: Vec<_> = plugin_cases::read(&folder)?.into_iter().map(|(_, case)| case).collect();
    let Some(Chosen { json, taken, of }) = golden::choose(&cases) else { return Ok(None) };
    if taken < of {
        let (count, bytes) = (golden::CASES_MAX, golden::BYTES_MAX);
        let most = format!("at most {count}, and {bytes} bytes of them");
        tell(options, &format!("{taken} of {of} cases go along as golden calls ({most}); mark those that are to by `golden = true`"));
    } else {
        tell(options, &format!("{taken} cases go along as golden calls"));
    }
    Ok(Some(json))
}

fn rebuild_rust(options: &Options, papers: Papers<'_>) -> Result<(Vec<u8>, MadeBy), BuildError> {
    let manifest = papers.manifest;
    let toolchain = Toolchain::find()?;
    let how = match toolchain.std {
        StdSource::Installed => "the installed target",
        StdSource::Built => "a standard library built from source (about a minute the first time)",
    };
    tell(options, &format!("building {} {} with {} and {how}", manifest.name, manifest.version, toolchain.name()));
    let guest = Guest::inspect(&options.dir, &toolchain, options.target_dir.as_deref(), options.locked)?;
    if guest.version != manifest.version.to_string() {
        return Err(BuildError::Version { manifest: manifest.version.to_string(), package: guest.version });
    }
    let compile = |purpose| guest.compile(&toolchain, options.locked, options.progress, purpose);
    let schema = match options.schema_of.filter(|_| guest.has_schema()) {
        Some(schema_of) => {
            tell(options, "asking it for the schema of its configuration");
            schema_of(&compile(Purpose::Schema)?).map_err(|why| BuildError::Schema { why })?
        }
        None => None,
    };
    let core = compile(Purpose::Component)?;
    tell(options, &format!("checking it against the world {}", manifest.world));
    let component = component::componentize(&core, Papers { schema: schema.as_deref(), ..papers })?;
    Ok((component, MadeBy { compiler: toolchain.version, linker: toolchain.linker_version }))
}

fn read_manifest(dir: &Path) -> Result<(Manifest, String), BuildError> {
    let path = dir.join(MANIFEST_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(BuildError::NoManifest { path }),
        Err(source) => return Err(BuildError::Read { path, source }),
    };
    let manifest = Manifest::parse(&text).map_err(|reason| BuildError::Manifest { path, reason })?;
    Ok((manifest, text))
}

fn read_lock(dist: &Path) -> Result<Lock, BuildError> {
    Lock::read(dist).map_err(|reason| BuildError::Lock { path: dist.join(lock::FILE), reason })
}

fn entry_of(manifest: &Manifest, component: &[u8], made_by: MadeBy) -> Entry {
    Entry {
        name: manifest.name.to_string(),
        version: manifest.version.to_string(),
        world: manifest.world.to_string(),
        digest: digest(component),
        size_bytes: component.len() as u64,
        rustc: made_by.compiler,
        linker: made_by.linker,
    }
}

/// Returns the digest by which a component is known: BLAKE3, in hex.
#[must_use]
pub fn digest(component: &[u8]) -> String {
    blake3::hash(component).to_hex().to_string()
}

/// Writes a file so that a reader sees the old one or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|source| BuildError::Write { path: path.to_owned(), source })
}

fn tell(options: &Options, line: &str) {
    if options.progress == Progress::Stderr {
        eprintln!("plugin build: {line}");
    }
}

#[cfg(test)]
mod tests;
