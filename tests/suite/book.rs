//! The plugin book, done by a test as a reader would: its plugins are built, its cases run, its commands typed.
//!
//! The info string of a fence says what a block is:
//!
//! - `rust,ignore,plugin=NAME,world=WORLD`: the whole `src/lib.rs` of a plugin; with `asks=CAPABILITY` its manifest asks for that;
//! - `toml,case=NAME`: a case of that plugin;
//! - `…,file=PATH`: a file in the reader's folder, written when its turn comes;
//! - `…,example=PATH`: a part of a file below `plugins/examples`, word for word;
//! - `console`: commands after `$ `, and parts of what they print, where `…` stands for anything. With `background` the command
//!   goes on, with `eventually` what is to be printed may take its time, with `fails` the last command fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use pointsman_tests::{DEADLINE_S, binary, free_port, pointsman};

/// The chapter whose commands are typed.
const TUTORIAL: &str = "tutorial/router.md";
/// Milliseconds between two looks at what is to come.
const LOOK_MS: u64 = 200;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Returns the folder of this build: what guests of the repository need is compiled there for those of the book, too.
fn target() -> PathBuf {
    binary().parent().and_then(Path::parent).expect("the binary is in target/PROFILE").to_owned()
}

/// Returns a folder that stays from run to run, so that what did not change is not compiled again.
fn kept(name: &str) -> PathBuf {
    let folder = target().join("book").join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// A fenced block.
struct Block {
    /// Where it is: chapter and line.
    place: String,
    words: Vec<String>,
    text: String,
}

impl Block {
    fn is(&self, word: &str) -> bool {
        self.words.iter().any(|one| one == word)
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

/// Returns the blocks of all chapters, in the order of their paths.
fn blocks() -> Vec<Block> {
    fn collect(folder: &Path, below: &str, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                collect(&entry.path(), &format!("{name}/"), found);
            } else if name.ends_with(".md") {
                found.insert(name, std::fs::read_to_string(entry.path()).expect("a text"));
            }
        }
    }
    let mut chapters = BTreeMap::new();
    collect(&repository().join("host/docs/book/src"), "", &mut chapters);
    chapters.iter().flat_map(|(chapter, text)| blocks_of(chapter, text)).collect()
}

fn blocks_of(chapter: &str, text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (i, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if is_open => is_open = false,
            Some(info) => {
                let words = info.split(',').map(|word| word.trim().to_owned()).collect();
                found.push(Block { place: format!("{chapter}:{}", i + 1), words, text: String::new() });
                is_open = true;
            }
            None => {
                if let (true, Some(block)) = (is_open, found.last_mut()) {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
        }
    }
    found
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Writes a file, unless it has this text already: what is not newer is not compiled again.
fn write(path: &Path, text: &str) {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
    std::fs::write(path, text).expect("a file");
}

/// Lays the plugins of the book out as crates of one workspace; returns their names.
fn lay_out(workspace: &Path, blocks: &[Block]) -> Vec<String> {
    let sdk = repository().join("plugins/sdk");
    let mut names = Vec::new();
    for block in blocks {
        let Some(name) = block.value("plugin") else { continue };
        let world = block.value("world").expect("a plugin names its world");
        let asks = block.value("asks").map(|one| format!("\"{one}\"")).unwrap_or_default();
        let folder = workspace.join(name);
        let cases = folder.join("cases");
        if cases.is_dir() {
            std::fs::remove_dir_all(&cases).expect("old cases go");
        }
        write(&folder.join("src/lib.rs"), &block.text);
        let package = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n[lib]\n\
             crate-type = [\"cdylib\", \"rlib\"]\n\n[dependencies]\npointsman-sdk = {{ path = {sdk:?}, features = [\"{world}\", \"schema\"] }}\n\
             serde = {{ version = \"1\", features = [\"derive\"] }}\nserde_json = \"1\"\n"
        );
        write(&folder.join("Cargo.toml"), &package);
        let manifest = format!(
            "manifest_version = 1\nname = \"{name}\"\nversion = \"0.1.0\"\nworld = \"{world}\"\ndescription = \"A recipe of the book\"\n\
             capabilities = [{asks}]\n"
        );
        write(&folder.join("plugin.toml"), &manifest);
        names.push(name.to_owned());
    }
    for (i, block) in blocks.iter().enumerate() {
        if let Some(name) = block.value("case") {
            assert!(names.iter().any(|one| one == name), "{}: there is no plugin {name}", block.place);
            write(&workspace.join(name).join(format!("cases/{i:04}.toml")), &block.text);
        }
    }
    let members: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    write(&workspace.join("Cargo.toml"), &format!("[workspace]\nresolver = \"3\"\nmembers = [{}]\n", members.join(", ")));
    // The versions that the repository is tested with; cargo takes out what is not needed here.
    if !workspace.join("Cargo.lock").exists() {
        std::fs::copy(repository().join("Cargo.lock"), workspace.join("Cargo.lock")).expect("the lock");
    }
    names
}

#[test]
fn the_plugins_of_the_book_build_and_answer_as_their_cases_say() {
    let blocks = blocks();
    let (workspace, out) = (kept("cookbook"), kept("components"));
    let names = lay_out(&workspace, &blocks);
    assert!(names.len() >= 5, "the cookbook has plugins: {names:?}");
    for name in &names {
        let folder = workspace.join(name);
        let cases = folder.join("cases");
        assert!(cases.is_dir(), "the book has no case of {name}");
        let run = |args: &[&std::ffi::OsStr]| {
            let done = pointsman(&["plugin"])
                .args(args)
                .env("CARGO_TARGET_DIR", target())
                .env("XDG_CACHE_HOME", kept("cache"))
                .current_dir(&workspace)
                .output()
                .expect("the binary runs");
            assert!(done.status.success(), "{name}: pointsman plugin {args:?}\n{}", said(&done));
        };
        let component = out.join(format!("{name}.wasm"));
        run(&["build".as_ref(), folder.as_os_str(), "--out".as_ref(), out.as_os_str()]);
        run(&["test".as_ref(), component.as_os_str(), "--cases".as_ref(), cases.as_os_str()]);
        run(&["check".as_ref(), component.as_os_str(), "--cases".as_ref(), cases.as_os_str()]);
    }
}

#[test]
fn what_the_book_shows_of_the_examples_is_in_them() {
    let mut wrong = Vec::new();
    for block in blocks() {
        let Some(path) = block.value("example") else { continue };
        let text = std::fs::read_to_string(repository().join("plugins/examples").join(path)).unwrap_or_default();
        if !text.contains(block.text.trim_end()) {
            wrong.push(format!("{}: plugins/examples/{path} does not say this any more", block.place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A command of a console block, and what it is to print.
struct Step {
    command: String,
    expected: Vec<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut found: Vec<Step> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("$ ") else {
            if let (Some(step), false) = (found.last_mut(), line.trim().is_empty()) {
                step.expected.push(line.to_owned());
            }
            continue;
        };
        let mut command = command.to_owned();
        let is_here_document = command.contains("<<'END'");
        while is_here_document || command.ends_with('\\') {
            let Some(more) = lines.next() else { break };
            command.push('\n');
            command.push_str(more);
            if is_here_document && more == "END" {
                break;
            }
        }
        found.push(Step { command, expected: Vec::new() });
    }
    found
}

/// Returns the first expected line that is not in an output, where lines come in order.
fn missing<'a>(expected: &'a [String], output: &str) -> Option<&'a str> {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = output.lines().map(plain);
    expected.iter().find(|wanted| !lines.any(|line| has(&line, &plain(wanted)))).map(String::as_str)
}

/// Returns whether the parts of a text between `…` are in a line, in order.
fn has(line: &str, wanted: &str) -> bool {
    let mut rest = line;
    wanted.split('…').map(str::trim).all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// Someone who types the commands of a chapter.
struct Reader {
    home: tempfile::TempDir,
    folder: PathBuf,
    port: u16,
    background: Vec<Child>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        for child in &mut self.background {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Reader {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let folder = home.path().join("work");
        std::fs::create_dir(&folder).expect("an empty folder");
        Self { home, folder, port: free_port(), background: Vec::new() }
    }

    fn shell(&self, command: &str) -> Command {
        let tools = binary().parent().expect("the binary is in a folder").to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path))).expect("folders");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).current_dir(&self.folder).env("PATH", path).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"POINTSMAN_")) {
            shell.env_remove(name);
        }
        for name in ["XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            shell.env(name, self.home.path().join(name));
        }
        shell.env("XDG_CACHE_HOME", kept("cache")).env("CARGO_TARGET_DIR", target());
        shell.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        // The book says 7420, which may be somebody else's here.
        shell.env("POINTSMAN_SERVER_BIND", format!("127.0.0.1:{}", self.port)).env("HOST_URL", format!("http://127.0.0.1:{}", self.port));
        shell
    }

    async fn follow(&mut self, block: &Block) {
        let steps = steps(&block.text);
        let last = steps.len().saturating_sub(1);
        for (i, Step { command, expected }) in steps.into_iter().enumerate() {
            if let Some(folder) = command.strip_prefix("cd ") {
                self.folder = self.folder.join(folder);
                continue;
            }
            if block.is("background") {
                let mut shell = self.shell(&format!("exec {command}"));
                self.background.push(shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
                continue;
            }
            let must_fail = block.is("fails") && i == last;
            let looks = if block.is("eventually") { DEADLINE_S * 1_000 / LOOK_MS } else { 1 };
            let mut wrong = None;
            for _ in 0..looks {
                let out = self.shell(&command).output().expect("a shell");
                wrong = match missing(&expected, &said(&out)) {
                    Some(line) => Some(format!("does not print {line:?}\n{}", said(&out))),
                    None if out.status.success() == must_fail => Some(format!("ends with {}\n{}", out.status, said(&out))),
                    None => None,
                };
                if wrong.is_none() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            }
            assert!(wrong.is_none(), "{}: `{command}` {}", block.place, wrong.unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn the_tutorial_does_what_it_says() {
    let mut reader = Reader::new();
    let mut commands = 0;
    for block in blocks().iter().filter(|block| block.place.starts_with(TUTORIAL)) {
        if let Some(path) = block.value("file") {
            write(&reader.folder.join(path), &block.text);
        }
        if block.is("console") {
            reader.follow(block).await;
            commands += 1;
        }
    }
    assert!(commands > 5, "{TUTORIAL} has commands");
}

#[test]
fn blocks_and_commands_are_read_as_they_are_meant() {
    let text = "a\n```toml,case=x\ncall = 1\n```\n```console,fails\n$ one \\\n  two\nout …\n\n$ cat <<'END'\n$ in it\nEND\n```\n";
    let blocks = blocks_of("c.md", text);
    assert_eq!((blocks[0].value("case"), blocks[0].text.as_str(), blocks[1].place.as_str()), (Some("x"), "call = 1\n", "c.md:5"));
    assert!(blocks[1].is("fails") && !blocks[1].is("background"));
    let steps = steps(&blocks[1].text);
    assert_eq!((steps[0].command.as_str(), steps[0].expected.as_slice()), ("one \\\n  two", ["out …".to_owned()].as_slice()));
    assert_eq!((steps[1].command.as_str(), steps.len()), ("cat <<'END'\n$ in it\nEND", 2));
    let expected = ["built … for".to_owned(), "blake3 …".to_owned()];
    assert_eq!(missing(&expected, "x\nbuilt my 0.1  for it\n  blake3 ab\n"), None);
    assert_eq!(missing(&expected, "blake3 ab\nbuilt my for it\n"), Some("blake3 …"));
}
