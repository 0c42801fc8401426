//! A new plugin's folder: an example of its world under the author's name, with everything it needs to be built anywhere.
//!
//! **Invariant:** nothing that is there is written over; the folder appears whole or not at all.

use std::path::{Path, PathBuf};

use super::MANIFEST_FILE;
use super::component::PACKAGES;
use super::manifest::{Lang, PluginName};
use super::sources::{EXAMPLES, JS_SDK, PYTHON_SDK, RUST_SDK, RUST_SDK_MACROS, Source};
use crate::ports::plugins::World;

mod cargo;

/// Where the Rust SDK goes.
const RUST_VENDOR: &str = "vendor/pointsman-sdk";
const RUST_MACROS_VENDOR: &str = "vendor/pointsman-sdk-macros";
/// Where the SDKs of the other languages go.
const VENDOR: &str = "vendor/pointsman";

/// What to begin.
#[derive(Debug, Clone)]
pub struct NewPlugin {
    /// What it decides.
    pub world: World,
    /// Its name.
    pub name: PluginName,
    /// What it is written in.
    pub lang: Lang,
    /// Its folder.
    pub dir: PathBuf,
}

/// Why nothing was begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScaffoldError {
    /// There is something already.
    #[error("{} is there and not empty; nothing is written over: take another name, or `--dir`", dir.display())]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
    },
    /// There is no example to begin with.
    #[error("a plugin of the world `{world}` can be written in Rust only, as yet: leave `--lang {lang}` out")]
    NoExample {
        /// The world.
        world: World,
        /// The language.
        lang: Lang,
    },
    /// A file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes a new plugin's folder. Returns the paths of its files, below the folder, those of the vendored SDK left out.
///
/// # Errors
/// [`ScaffoldError`]; nothing is left behind.
pub fn scaffold(new: &NewPlugin) -> Result<Vec<String>, ScaffoldError> {
    let files = files(new)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ScaffoldError::Write { path, source }
    };
    let is_empty = std::fs::read_dir(&new.dir).map(|mut entries| entries.next().is_none());
    match is_empty {
        Ok(false) => return Err(ScaffoldError::NotEmpty { dir: new.dir.clone() }),
        Ok(true) => {}
        Err(_) if std::fs::symlink_metadata(&new.dir).is_ok() => return Err(ScaffoldError::NotEmpty { dir: new.dir.clone() }),
        Err(_) => {}
    }
    let parent = new.dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(failed(parent))?;
    // Written beside and renamed: a folder that is there is a whole one.
    let beside = tempfile::Builder::new().prefix(".new-plugin-").tempdir_in(parent).map_err(failed(parent))?;
    for (path, text) in &files {
        let path = beside.path().join(path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text));
        made.map_err(failed(&path))?;
    }
    // A temporary folder is private to its maker.
    open_to_all(beside.path()).map_err(failed(&new.dir))?;
    // An empty folder gives way to the renamed one.
    std::fs::rename(beside.path(), &new.dir).map_err(failed(&new.dir))?;
    drop(beside.keep());
    Ok(files.into_iter().map(|(path, _)| path).filter(|path| !path.starts_with("vendor/") && !path.starts_with("wit/")).collect())
}

fn open_to_all(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
}

type File = (String, String);

/// Returns the files of a new plugin.
fn files(new: &NewPlugin) -> Result<Vec<File>, ScaffoldError> {
    let (world, lang) = (new.world.name(), new.lang.name());
    let base = format!("{lang}/{world}/");
    let example: Vec<(&str, &str)> = EXAMPLES.iter().filter_map(|(path, text)| Some((path.strip_prefix(&base)?, *text))).collect();
    if example.is_empty() {
        return Err(ScaffoldError::NoExample { world: new.world, lang: new.lang });
    }
    let own_name = if new.lang == Lang::Rust { format!("example-{world}") } else { format!("example-{world}-{lang}") };
    let named = |text: &str| text.replace(&own_name, new.name.as_str()).replace("plugins.NAME.", &format!("plugins.{}.", new.name));
    let mut files: Vec<File> =
        example.iter().filter(|(path, _)| *path != "Cargo.toml").map(|(path, text)| ((*path).to_owned(), named(text))).collect();
    match new.lang {
        Lang::Rust => files.extend(rust(new, &example)),
        Lang::Js => {
            let package =
                serde_json::json!({"name": new.name.as_str(), "private": true, "type": "module", "scripts": {"test": "node --test"}});
            files.push(("package.json".to_owned(), format!("{package:#}\n")));
            files.extend(below(VENDOR, JS_SDK));
            files.extend(cases(world));
        }
        Lang::Python => {
            files.extend(below(VENDOR, PYTHON_SDK));
            files.extend(cases(world));
        }
    }
    for (file, text) in PACKAGES {
        let package = file.trim_end_matches(".wit");
        files.push((format!("wit/{package}/{file}"), text.to_owned()));
    }
    files.push((".gitignore".to_owned(), "/target/\n/dist/\n/.pointsman/\n__pycache__/\n".to_owned()));
    files.push(("README.md".to_owned(), readme(new)));
    files.sort();
    Ok(files)
}

/// Returns what a crate needs besides the example.
fn rust(new: &NewPlugin, example: &[(&str, &str)]) -> Vec<File> {
    let manifest = example.iter().find(|(path, _)| *path == "Cargo.toml").map_or("", |(_, text)| text);
    let own = cargo::own_manifest(manifest, new.name.as_str(), RUST_VENDOR);
    let of = |sources: &[Source]| sources.iter().find(|(path, _)| *path == "Cargo.toml").map_or("", |(_, text)| text);
    let mut files = vec![
        ("Cargo.lock".to_owned(), cargo::lock(&format!("example-{}", new.world), new.name.as_str())),
        ("Cargo.toml".to_owned(), own),
        (format!("{RUST_VENDOR}/Cargo.toml"), cargo::vendored_manifest(of(RUST_SDK))),
        (format!("{RUST_MACROS_VENDOR}/Cargo.toml"), cargo::vendored_manifest(of(RUST_SDK_MACROS))),
    ];
    files.extend(below(RUST_VENDOR, RUST_SDK).filter(|(path, _)| !path.ends_with("Cargo.toml")));
    files.extend(below(RUST_MACROS_VENDOR, RUST_SDK_MACROS).filter(|(path, _)| !path.ends_with("Cargo.toml")));
    files
}

fn below(folder: &str, sources: &'static [Source]) -> impl Iterator<Item = File> {
    let folder = folder.to_owned();
    sources.iter().map(move |(path, text)| (format!("{folder}/{path}"), (*text).to_owned()))
}

/// Returns the cases of a world: they are the same in every language.
fn cases(world: &str) -> Vec<File> {
    let base = format!("rust/{world}/");
    let own = |(path, text): &Source| Some((path.strip_prefix(&base)?.to_owned(), (*text).to_owned()));
    EXAMPLES.iter().filter_map(own).filter(|(path, _)| path.starts_with("cases/")).collect()
}

/// Returns how the configuration of a host names a plugin of a world.
fn binding(world: World, name: &str) -> String {
    match world {
        World::Router => format!("[routing]\nplugins = [\"{name}\"]"),
        World::Merger => format!("[[merging.strategy]]\npaths = [\"*.words\"]\nplugin = \"{name}\""),
        World::Reconciler => format!("[[context.reconciler]]\nkeys = [\"**\"]\nplugin = \"{name}\""),
        World::Workflow => format!("[workflow]\nplugin = \"{name}\""),
        World::Policy => format!("[policy]\nplugin = \"{name}\""),
        World::Agent => format!("[[agent]]\nplugin = \"{name}\""),
        World::McpProvider => format!("[[provider]]\nplugin = \"{name}\""),
    }
}

fn readme(new: &NewPlugin) -> String {
    let NewPlugin { world, name, .. } = new;
    let (main, test) = match new.lang {
        Lang::Rust => ("src/lib.rs", "cargo test"),
        Lang::Js => ("src/plugin.js", "node --test"),
        Lang::Python => ("src/plugin.py", "PYTHONPATH=src:vendor python3 -m unittest discover -s tests"),
    };
    let binding = binding(*world, name.as_str());
    format!(
        "# {name}\n\n\
         A plugin for Pointsman, of the world `{world}`. `{main}` is all of it; `{MANIFEST_FILE}` says what it is, `wit/{world}` what it\n\
         is asked and may answer, `cases/` what it shall answer.\n\n\
         ```sh\n\
         {test}\n\
         pointsman plugin test .     # its cases\n\
         pointsman plugin check .    # what a host would say of it\n\
         pointsman plugin build .    # dist/{name}.wasm\n\
         ```\n\n\
         A host asks it once its `pointsman.toml` names it (`pointsman init` writes one, `pointsman up` starts the host there):\n\n\
         ```toml\n{binding}\n\n[plugins.{name}]\nsource = \"dist/{name}.wasm\"\n```\n\n\
         A path is taken from the configuration's folder. Settings go below `[plugins.{name}.config]`, limits below\n\
         `[plugins.{name}.limits]`. A running host takes a component that was built anew without losing a call, and says under\n\
         `pointsman plugin list` what it thinks of it.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Manifest;
    use super::*;

    fn new(dir: &Path, world: World, lang: Lang) -> NewPlugin {
        NewPlugin { world, name: PluginName::try_from("my-own".to_owned()).expect("a name"), lang, dir: dir.join("my-own") }
    }

    #[test]
    fn every_world_has_a_beginning_in_rust_and_the_pure_ones_in_all_languages() {
        let dir = tempfile::tempdir().expect("a folder");
        for world in World::ALL {
            for lang in [Lang::Rust, Lang::Js, Lang::Python] {
                let new = NewPlugin { dir: dir.path().join(format!("{world}-{lang}")), ..new(dir.path(), world, lang) };
                let written = scaffold(&new);
                if matches!(world, World::Agent | World::McpProvider) && lang != Lang::Rust {
                    assert!(matches!(written, Err(ScaffoldError::NoExample { .. })), "{written:?}");
                    continue;
                }
                written.expect("it is written");
                let text = std::fs::read_to_string(new.dir.join(MANIFEST_FILE)).expect("a manifest");
                let manifest = Manifest::parse(&text).expect("it fits");
                assert_eq!((manifest.name.as_str(), manifest.world, manifest.lang), ("my-own", world, lang));
                for path in ["README.md", ".gitignore", "wit/types/types.wit"] {
                    assert!(new.dir.join(path).is_file(), "{world} {lang}: {path}");
                }
                assert_eq!(new.dir.join("cases").is_dir(), world != World::McpProvider, "{world} {lang}");
            }
        }
    }

    #[test]
    fn nothing_is_written_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let new = new(dir.path(), World::Router, Lang::Js);
        std::fs::create_dir(&new.dir).expect("a folder");
        scaffold(&new).expect("an empty folder is free");
        let before = std::fs::read_to_string(new.dir.join("src/plugin.js")).expect("a file");
        std::fs::write(new.dir.join("src/plugin.js"), "mine").expect("a file");
        let error = scaffold(&new).expect_err("it is there");
        assert!(error.to_string().contains("is there and not empty"), "{error}");
        assert_ne!(before, std::fs::read_to_string(new.dir.join("src/plugin.js")).expect("a file"));
        let names: Vec<_> = std::fs::read_dir(dir.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["my-own"], "nothing is left behind");
    }

    #[test]
    fn a_crate_stands_by_itself() {
        let dir = tempfile::tempdir().expect("a folder");
        let new = new(dir.path(), World::Agent, Lang::Rust);
        scaffold(&new).expect("it is written");
        for path in ["Cargo.toml", "vendor/pointsman-sdk/Cargo.toml", "vendor/pointsman-sdk-macros/Cargo.toml", "Cargo.lock"] {
            let text = std::fs::read_to_string(new.dir.join(path)).expect("a file");
            assert!(!text.contains("workspace = true") && !text.contains("example-") && !text.contains("proptest"), "{path}: {text}");
        }
        let own = std::fs::read_to_string(new.dir.join("Cargo.toml")).expect("a file");
        assert!(own.contains(r#"path = "vendor/pointsman-sdk""#) && own.contains(r#"features = ["agent", "schema"]"#), "{own}");
        assert!(own.contains("name = \"my-own\"") && own.contains("[workspace]"), "{own}");
        let lock = std::fs::read_to_string(new.dir.join("Cargo.lock")).expect("a file");
        assert!(lock.contains("name = \"schemars\"") && !lock.contains("name = \"wasmtime\""), "{lock}");
    }
}
