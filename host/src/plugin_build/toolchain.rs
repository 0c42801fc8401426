//! Finds a way to compile for `wasm32-unknown-unknown`: an installed target, else a standard library built from source.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::BuildError;

/// The target of every guest.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Compilers in the order they are asked: the active toolchain, then the distribution's.
const COMPILERS: [(&str, &str); 2] = [("rustc", "cargo"), ("/usr/bin/rustc", "/usr/bin/cargo")];
/// Linkers to be found by name, after the one that comes with a toolchain.
const LINKERS: [&str; 4] = ["rust-lld", "wasm-ld-19", "wasm-ld", "lld"];

/// Where the standard library comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StdSource {
    /// The target is installed.
    Installed,
    /// It is built from the toolchain's sources.
    Built,
}

/// A way to compile guests.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// Its cargo.
    pub cargo: PathBuf,
    /// What `rustc -vV` says.
    pub version: String,
    /// Where the standard library comes from.
    pub std: StdSource,
    /// The folder that holds `lib/rustlib`.
    pub sysroot: PathBuf,
    /// The linker.
    pub linker: PathBuf,
    /// What the linker says of its version.
    pub linker_version: String,
}

/// A compiler that answers.
struct Compiler {
    rustc: PathBuf,
    cargo: PathBuf,
    version: String,
    sysroot: PathBuf,
}

impl Toolchain {
    /// Finds the best way there is: an installed target first.
    ///
    /// # Errors
    /// [`BuildError::NoToolchain`] or [`BuildError::NoLinker`], which name the ways out.
    pub fn find() -> Result<Self, BuildError> {
        let compilers: Vec<Compiler> = COMPILERS.iter().filter_map(|(rustc, cargo)| Compiler::ask(rustc, cargo)).collect();
        let usable = compilers
            .iter()
            .find(|compiler| compiler.has_target())
            .map(|compiler| (compiler, StdSource::Installed))
            .or_else(|| compilers.iter().find(|compiler| compiler.has_sources()).map(|compiler| (compiler, StdSource::Built)));
        let Some((compiler, std)) = usable else {
            return Err(BuildError::NoToolchain { asked: compilers.into_iter().map(|compiler| compiler.version).collect() });
        };
        let mut linkers: Vec<PathBuf> = std::iter::once(compiler).chain(&compilers).map(Compiler::bundled_linker).collect();
        linkers.extend(LINKERS.iter().map(PathBuf::from));
        let (linker, linker_version) =
            linkers.into_iter().find_map(|linker| linker_version(&linker).map(|version| (linker, version))).ok_or(BuildError::NoLinker)?;
        Ok(Self {
            rustc: compiler.rustc.clone(),
            cargo: compiler.cargo.clone(),
            version: compiler.version.clone(),
            std,
            sysroot: compiler.sysroot.clone(),
            linker,
            linker_version,
        })
    }

    /// Returns the first line of the compiler's version, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        self.version.lines().next().unwrap_or_default()
    }
}

impl Compiler {
    fn ask(rustc: &str, cargo: &str) -> Option<Self> {
        let version = answer(rustc, &["-vV"])?;
        answer(cargo, &["--version"])?;
        let sysroot = PathBuf::from(answer(rustc, &["--print", "sysroot"])?);
        Some(Self { rustc: rustc.into(), cargo: cargo.into(), version, sysroot })
    }

    fn has_target(&self) -> bool {
        let folder = self.sysroot.join("lib/rustlib").join(TARGET).join("lib");
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with("libstd-"))
    }

    fn has_sources(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file()
    }

    /// Returns where the linker would be that comes with this compiler.
    fn bundled_linker(&self) -> PathBuf {
        let host = self.version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        self.sysroot.join("lib/rustlib").join(host).join("bin/rust-lld")
    }
}

/// Returns a command that does not inherit what a running cargo or toolchain set for its own children.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in [
        "CARGO",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
    ] {
        command.env_remove(name);
    }
    command
}

/// Returns what a program prints, trimmed; none when there is no such program or it fails.
fn answer(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = command(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the version of a linker for WebAssembly, as `LLD 22.1.2`.
fn linker_version(linker: &Path) -> Option<String> {
    let stem = linker.file_name()?.to_string_lossy();
    let arguments: &[&str] = if stem.starts_with("wasm-ld") { &["--version"] } else { &["-flavor", "wasm", "--version"] };
    let text = answer(linker, arguments)?;
    let start = text.find("LLD ")?;
    Some(text[start..].split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_no_answer() {
        assert_eq!(answer("/nowhere/rustc", &["-vV"]), None);
        assert!(linker_version(Path::new("/nowhere/rust-lld")).is_none());
    }
}
