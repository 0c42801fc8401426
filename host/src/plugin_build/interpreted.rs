//! JavaScript and Python to component, by the tools of the Bytecode Alliance in a folder of the plugin's own.
//!
//! The author writes `src/plugin.js` or `src/plugin.py`; what connects it to its world is written beside it, from this host, at
//! each build. **Invariant:** tools are of one pinned version, and nothing outside of the plugin's folder is changed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::component::PACKAGES;
use super::manifest::{Lang, Manifest};
use super::sources::{JS_GLUE, PYTHON_GLUE, Source};
use super::toolchain::command;
use super::{BuildError, MadeBy, Options, tell};
use crate::ports::plugins::World;

/// Everything that a build leaves behind lies here.
pub(super) const WORK_FOLDER: &str = ".pointsman";
/// The tool for JavaScript; `jco`, of which it uses three functions, is held at a version without a whole second toolchain.
const COMPONENTIZE_JS: &str = "0.23.0";
const JCO: &str = "1.15.1";
/// The tool for Python.
const COMPONENTIZE_PY: &str = "0.25.1";
/// The oldest Node these tools run on.
const NODE_MAJOR_MIN: u32 = 20;

const NO_NODE: &str = "install Node 20 or newer with npm, from https://nodejs.org or on Debian `apt-get install nodejs npm`";
const NO_PYTHON: &str = "install Python 3.10 or newer with venv, on Debian `apt-get install python3 python3-venv`";

/// Runs the tool for JavaScript: where it is, the entry, the WIT, the world, where the component goes.
const COMPONENTIZE_MJS: &str = r"import { writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
const [tool, sourcePath, witPath, worldName, out] = process.argv.slice(2);
const { componentize } = await import(pathToFileURL(tool));
const disableFeatures = ['random', 'stdio', 'clocks', 'http', 'fetch-event'];
const { component } = await componentize({ sourcePath, witPath, worldName, disableFeatures });
await writeFile(out, component);
";

/// Returns the bare component of a plugin, and what made it.
pub(super) fn componentize(options: &Options, manifest: &Manifest) -> Result<(Vec<u8>, MadeBy), BuildError> {
    let dir = std::path::absolute(&options.dir).map_err(|source| BuildError::Read { path: options.dir.clone(), source })?;
    let work = Work { dir: &dir, folder: dir.join(WORK_FOLDER), options, manifest };
    match manifest.world {
        World::Router | World::Merger | World::Reconciler | World::Workflow | World::Policy => {}
        World::Agent | World::McpProvider => {
            return Err(BuildError::Manifest {
                path: dir.join(super::MANIFEST_FILE),
                reason: format!("the world `{}` is there for `lang = \"rust\"` only, as yet", manifest.world),
            });
        }
    }
    match manifest.lang {
        Lang::Python => work.python(),
        Lang::Js | Lang::Rust => work.js(),
    }
}

/// One build.
struct Work<'a> {
    dir: &'a Path,
    folder: PathBuf,
    options: &'a Options,
    manifest: &'a Manifest,
}

impl Work<'_> {
    fn js(&self) -> Result<(Vec<u8>, MadeBy), BuildError> {
        self.entry("src/plugin.js")?;
        let node = version("node", &["--version"]).filter(|version| major(version) >= NODE_MAJOR_MIN);
        let node = node.ok_or(BuildError::NoProgram { what: "Node", advice: NO_NODE })?;
        let package = self.folder.join("js/node_modules/@bytecodealliance/componentize-js");
        if !std::fs::read_to_string(package.join("package.json")).is_ok_and(|text| text.contains(&format!("\"{COMPONENTIZE_JS}\""))) {
            self.install_js()?;
        }
        self.write_glue("glue", JS_GLUE)?;
        let world = self.manifest.world.name();
        let exports = exported(self.manifest.world).0;
        let entry = format!(
            "import * as plugin from '../src/plugin.js';\nimport {{ component }} from './glue/{world}.js';\n\
             export const {{ setup, {exports} }} = component(plugin);\n"
        );
        self.write("entry.js", &entry)?;
        self.write("componentize.mjs", COMPONENTIZE_MJS)?;
        let (wit, out) = (self.write_wit()?, self.folder.join("component.wasm"));
        let mut run = command("node");
        run.arg(self.folder.join("componentize.mjs")).arg(package.join("src/componentize.js"));
        run.arg(self.folder.join("entry.js")).arg(wit).arg(world).arg(&out);
        self.run(&mut run, "componentize-js")?;
        self.made(&out, format!("componentize-js {COMPONENTIZE_JS}\nnode {node}"))
    }

    fn python(&self) -> Result<(Vec<u8>, MadeBy), BuildError> {
        self.entry("src/plugin.py")?;
        let tool = self.folder.join("python/bin/componentize-py");
        if version(&tool, &["--version"]).is_none_or(|version| !version.ends_with(&format!(" {COMPONENTIZE_PY}"))) {
            self.install_python()?;
        }
        self.write_glue("glue/pointsman_glue", PYTHON_GLUE)?;
        let world = self.manifest.world.name();
        let exports = exported(self.manifest.world).1;
        let entry = format!("import plugin\nfrom pointsman_glue.{world} import component\n\nSetup, {exports} = component(plugin)\n");
        self.write("glue/entry.py", &entry)?;
        let (wit, out) = (self.write_wit()?, self.folder.join("component.wasm"));
        let mut run = command(&tool);
        run.arg("--quiet")
            .arg("--wit-path")
            .arg(wit)
            .args(["--world", world, "componentize", "entry", "--stub-wasi", "--output"])
            .arg(&out);
        for folder in [self.folder.join("glue"), self.dir.join("src"), self.dir.join("vendor")] {
            run.arg("--python-path").arg(folder);
        }
        // Else its own packages would go into the component.
        run.env("VIRTUAL_ENV", self.folder.join("glue"));
        self.run(&mut run, "componentize-py")?;
        self.made(&out, format!("componentize-py {COMPONENTIZE_PY}"))
    }

    fn install_js(&self) -> Result<(), BuildError> {
        if version("npm", &["--version"]).is_none() {
            return Err(BuildError::NoProgram { what: "npm", advice: NO_NODE });
        }
        tell(self.options, &format!("installing componentize-js {COMPONENTIZE_JS} into {WORK_FOLDER}/js (once)"));
        let package = serde_json::json!({
            "private": true,
            "dependencies": {"@bytecodealliance/componentize-js": COMPONENTIZE_JS},
            "overrides": {"@bytecodealliance/jco": JCO},
        });
        self.write("js/package.json", &format!("{package:#}\n"))?;
        let mut npm = command("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]).arg(self.folder.join("js"));
        self.run(&mut npm, "npm install")
    }

    fn install_python(&self) -> Result<(), BuildError> {
        if version("python3", &["-c", "import sys, venv, ensurepip; assert sys.version_info >= (3, 10); print('fine')"]).is_none() {
            return Err(BuildError::NoProgram { what: "Python", advice: NO_PYTHON });
        }
        tell(self.options, &format!("installing componentize-py {COMPONENTIZE_PY} into {WORK_FOLDER}/python (once)"));
        let home = self.folder.join("python");
        self.run(command("python3").args(["-m", "venv"]).arg(&home), "python3 -m venv")?;
        let mut pip = command(home.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).arg(format!("componentize-py=={COMPONENTIZE_PY}"));
        self.run(&mut pip, "pip install")
    }

    /// Makes sure that the author's file is there.
    fn entry(&self, path: &str) -> Result<(), BuildError> {
        let path = self.dir.join(path);
        let how = format!("building {} {} for the world {}", self.manifest.name, self.manifest.version, self.manifest.world);
        tell(self.options, &how);
        if path.is_file() { Ok(()) } else { Err(BuildError::NoEntry { path }) }
    }

    /// Writes the WIT of the world as these tools want it: its own package in the folder, those it uses below `deps`.
    fn write_wit(&self) -> Result<PathBuf, BuildError> {
        let world = self.manifest.world.name();
        for (file, text) in PACKAGES {
            let name = file.trim_end_matches(".wit");
            if name == world {
                self.write(&format!("wit/{world}/{file}"), text)?;
            } else if name == "types" {
                self.write(&format!("wit/{world}/deps/{name}/{file}"), text)?;
            }
        }
        Ok(self.folder.join("wit").join(world))
    }

    fn write_glue(&self, below: &str, sources: &[Source]) -> Result<(), BuildError> {
        sources.iter().try_for_each(|(path, text)| self.write(&format!("{below}/{path}"), text))
    }

    /// Writes a file of the work folder.
    fn write(&self, path: &str, text: &str) -> Result<(), BuildError> {
        let path = self.folder.join(path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text));
        made.map_err(|source| BuildError::Write { path, source })
    }

    fn run(&self, command: &mut Command, what: &str) -> Result<(), BuildError> {
        let failed = |said: String| BuildError::Tool { what: what.to_owned(), said };
        let output = command.current_dir(self.dir).stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let said = [text(&output.stderr), text(&output.stdout)].join("\n");
        Err(failed(format!("{}\n{}", output.status, said.trim())))
    }

    fn made(&self, out: &Path, compiler: String) -> Result<(Vec<u8>, MadeBy), BuildError> {
        let component = std::fs::read(out).map_err(|source| BuildError::Read { path: out.to_owned(), source })?;
        Ok((component, MadeBy { compiler, linker: "none".to_owned() }))
    }
}

/// Returns the export of a world besides `setup`, as JavaScript and Python name it.
const fn exported(world: World) -> (&'static str, &'static str) {
    match world {
        World::Router => ("routing", "Routing"),
        World::Merger => ("merging", "Merging"),
        World::Reconciler => ("reconciling", "Reconciling"),
        World::Workflow => ("flow", "Flow"),
        World::Policy => ("gates", "Gates"),
        World::Agent => ("handling", "Handling"),
        World::McpProvider => ("provider", "Provider"),
    }
}

/// Returns what a program says of its version; none where it does not run.
fn version(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Option<String> {
    let output = command(program).args(arguments).stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the first number of a version; 0 where there is none.
fn major(version: &str) -> u32 {
    version.trim_start_matches('v').split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(manifest: &str) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        let text = format!("manifest_version = 1\nname = \"x\"\nversion = \"0.1.0\"\ndescription = \"d\"\n{manifest}");
        let manifest = Manifest::parse(&text).expect("it fits");
        let options = Options { progress: super::super::Progress::Silent, ..Options::new(dir.path(), dir.path()) };
        let error = componentize(&options, &manifest).expect_err("there is nothing to build");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0, "nothing is written");
        error.to_string()
    }

    #[test]
    fn what_is_missing_is_said_before_anything_is_installed() {
        assert!(attempt("world = \"router\"\nlang = \"js\"\n").contains("src/plugin.js is missing"));
        assert!(attempt("world = \"reconciler\"\nlang = \"python\"\n").contains("src/plugin.py is missing"));
        assert!(attempt("world = \"agent\"\nlang = \"js\"\n").contains("there for `lang = \"rust\"` only"));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!((major("v20.20.2"), major("18.1"), major("none")), (20, 18, 0));
        assert_eq!(version("/nowhere/node", &["--version"]), None);
    }
}
