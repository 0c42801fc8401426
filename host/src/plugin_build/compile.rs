//! Guest crate to core module, by cargo, with flags that make the bytes depend on the sources and the compiler only.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::toolchain::{StdSource, TARGET, Toolchain, command};
use super::{BuildError, Locked, Progress};

/// The profile of guests: fast (a router over a thousand candidates takes half the time of one built for size, in a
/// component a quarter larger), and the same bytes every time. All that counts is said here; a workspace that sets single
/// packages of its `release` apart sets them apart in guests, too.
const PROFILE: &str = "pointsman-guest";
const SETTINGS: [&str; 11] = [
    "inherits=\"release\"",
    "opt-level=3",
    "lto=true",
    "codegen-units=1",
    "strip=true",
    "debug=false",
    "panic=\"abort\"",
    "overflow-checks=false",
    "debug-assertions=false",
    "incremental=false",
    "split-debuginfo=\"off\"",
];

/// The crate that brings the schema of a configuration, and its features: the one by which an author asks for it, and the one by
/// which a module hands it over.
const SDK: &str = "pointsman-sdk";
const SCHEMA: &str = "schema";
const SCHEMA_EXPORT: &str = "schema-export";

/// What a module is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To become a component.
    Component,
    /// To be asked for the schema of its configuration, and then thrown away.
    Schema,
}

/// What cargo knows of the crate.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
    resolve: Resolved,
}

#[derive(Debug, Deserialize)]
struct Resolved {
    root: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    rename: Option<String>,
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

/// A line of cargo's report.
#[derive(Debug, Deserialize)]
struct Report {
    reason: String,
    package_id: Option<String>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// A crate that can be compiled.
#[derive(Debug)]
pub(super) struct Guest {
    manifest_path: PathBuf,
    id: String,
    /// The crate's own version.
    pub(super) version: String,
    target_dir: PathBuf,
    remaps: Vec<(PathBuf, String)>,
    /// The name under which the SDK is to be asked for the schema; none where the author did not ask for one.
    schema_from: Option<String>,
}

impl Guest {
    /// Asks cargo about the crate in a folder.
    pub(super) fn inspect(dir: &Path, toolchain: &Toolchain, target_dir: Option<&Path>, locked: Locked) -> Result<Self, BuildError> {
        let manifest_path = dir.join("Cargo.toml");
        let mut cargo = cargo(toolchain, dir);
        cargo.args(["metadata", "--format-version", "1", "--filter-platform", TARGET]);
        add_locked(&mut cargo, locked);
        let output = cargo.output().map_err(|source| BuildError::Cargo { program: toolchain.cargo.clone(), source })?;
        if !output.status.success() {
            return Err(BuildError::NoCrate { dir: dir.to_owned(), said: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout).map_err(|source| BuildError::CargoReport { source })?;
        let root = metadata.resolve.root.as_deref().and_then(|id| metadata.packages.iter().find(|package| package.id == id));
        let Some(root) = root else {
            return Err(BuildError::NoCrate { dir: dir.to_owned(), said: "Cargo.toml describes a workspace, not a crate".to_owned() });
        };
        if !root.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "cdylib")) {
            return Err(BuildError::NotACdylib { name: root.name.clone() });
        }
        let target_dir = target_dir.map_or_else(|| metadata.target_directory.join("guests"), Path::to_owned);
        let remaps = remaps(&metadata, toolchain, &target_dir);
        let sdk = root.dependencies.iter().find(|one| one.name == SDK && one.features.iter().any(|feature| feature == SCHEMA));
        let schema_from = sdk.map(|sdk| sdk.rename.clone().unwrap_or_else(|| sdk.name.clone()));
        Ok(Self { manifest_path, id: root.id.clone(), version: root.version.clone(), target_dir, remaps, schema_from })
    }

    /// Returns whether the crate can be compiled to be asked for a schema.
    pub(super) const fn has_schema(&self) -> bool {
        self.schema_from.is_some()
    }

    /// Compiles and returns the core module.
    pub(super) fn compile(
        &self,
        toolchain: &Toolchain,
        locked: Locked,
        progress: Progress,
        purpose: Purpose,
    ) -> Result<Vec<u8>, BuildError> {
        let dir = self.manifest_path.parent().unwrap_or(Path::new("."));
        let mut cargo = cargo(toolchain, dir);
        cargo.args(["build", "--profile", PROFILE, "--lib", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
        cargo.arg("--target-dir").arg(&self.target_dir);
        for setting in SETTINGS {
            cargo.arg("--config").arg(format!("profile.{PROFILE}.{setting}"));
        }
        if let (Purpose::Schema, Some(sdk)) = (purpose, &self.schema_from) {
            cargo.arg("--features").arg(format!("{sdk}/{SCHEMA_EXPORT}"));
        }
        add_locked(&mut cargo, locked);
        if toolchain.std == StdSource::Built {
            cargo.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", "").env("RUSTC_WRAPPER", self.wrapper()?);
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &toolchain.linker);
        cargo.stdout(Stdio::piped()).stderr(match progress {
            Progress::Stderr => Stdio::inherit(),
            Progress::Silent => Stdio::piped(),
        });
        let output = cargo.spawn().and_then(std::process::Child::wait_with_output);
        let output = output.map_err(|source| BuildError::Cargo { program: toolchain.cargo.clone(), source })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(BuildError::DoesNotCompile { dir: dir.to_owned(), said });
        }
        let path = self.artifact(&output.stdout)?;
        std::fs::read(&path).map_err(|source| BuildError::Read { path, source })
    }

    /// Finds the module in cargo's report.
    fn artifact(&self, report: &[u8]) -> Result<PathBuf, BuildError> {
        for line in report.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{")) {
            let line: Report = serde_json::from_slice(line).map_err(|source| BuildError::CargoReport { source })?;
            if line.reason == "compiler-artifact"
                && line.package_id.as_ref() == Some(&self.id)
                && let Some(path) = line.filenames.into_iter().find(|path| path.extension().is_some_and(|end| end == "wasm"))
            {
                return Ok(path);
            }
        }
        Err(BuildError::NotACdylib { name: self.id.clone() })
    }

    /// Writes the script through which cargo calls the compiler: it adds which paths are not to be seen in the module. Were they flags
    /// of cargo's, each folder would have a standard library of its own compiled.
    fn wrapper(&self) -> Result<PathBuf, BuildError> {
        let quoted = |text: &OsStr| format!("'{}'", text.to_string_lossy().replace('\'', "'\\''"));
        let mut script = "#!/bin/sh\nexec \"$@\"".to_owned();
        for (from, to) in &self.remaps {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from);
            flag.push("=");
            flag.push(to);
            script.push_str(&format!(" {}", quoted(&flag)));
        }
        script.push('\n');
        let name = format!("rustc-{}.sh", &blake3::hash(script.as_bytes()).to_hex()[..16]);
        let path = self.target_dir.join(name);
        let written = std::fs::create_dir_all(&self.target_dir).and_then(|()| write_program(&path, &script));
        written.map_err(|source| BuildError::Write { path: path.clone(), source })?;
        Ok(path)
    }
}

/// Writes a program, unless it is there: whoever runs it right now keeps it.
fn write_program(path: &Path, text: &str) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut beside = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempfile_in(folder)?;
    beside.write_all(text.as_bytes())?;
    beside.into_temp_path().persist(path).map_err(|error| error.error)
}

fn cargo(toolchain: &Toolchain, dir: &Path) -> Command {
    let mut cargo = command(&toolchain.cargo);
    cargo.current_dir(dir).env("CARGO_INCREMENTAL", "0");
    // `rustc` by name stays a matter of PATH and rustup; a path is one compiler and must be said.
    if toolchain.rustc.is_absolute() {
        cargo.env("RUSTC", &toolchain.rustc);
    }
    cargo
}

fn add_locked(cargo: &mut Command, locked: Locked) {
    if locked == Locked::Yes {
        cargo.arg("--locked");
    }
}

/// Returns the folders whose paths must not reach the module, and what stands there instead. The compiler takes
/// the last that fits, so the more special ones come later.
fn remaps(metadata: &Metadata, toolchain: &Toolchain, target_dir: &Path) -> Vec<(PathBuf, String)> {
    let mut registries = BTreeSet::new();
    let mut elsewhere = BTreeSet::new();
    for package in &metadata.packages {
        let Some(folder) = package.manifest_path.parent() else { continue };
        if package.source.is_some() {
            registries.extend(folder.parent().map(Path::to_owned));
        } else if !folder.starts_with(&metadata.workspace_root) {
            elsewhere.insert((folder.to_owned(), format!("/path/{}", package.name)));
        }
    }
    let sources = toolchain.sysroot.join("lib/rustlib/src/rust");
    let mut remaps = vec![(metadata.workspace_root.clone(), "/src".to_owned()), (target_dir.to_owned(), "/target".to_owned())];
    remaps.extend(elsewhere);
    remaps.extend(registries.into_iter().map(|folder| (folder, "/deps".to_owned())));
    remaps.extend(std::fs::canonicalize(&sources).ok().map(|folder| (folder, "/rust".to_owned())));
    remaps.push((sources, "/rust".to_owned()));
    remaps
}
