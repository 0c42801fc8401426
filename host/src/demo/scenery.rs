//! Which repository, and which of its files the story is about.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::DemoError;
use super::timeline::Timeline;

/// Bytes of a file the story touches.
const FILE_BYTES_MAX: u64 = 200_000;
/// Files looked into for an import block.
const SOURCES_READ_MAX: usize = 400;

/// Runs git in a folder and returns what it prints.
pub(super) fn git(folder: &Path, args: &[&str]) -> Result<String, DemoError> {
    let out = git_raw(folder, args)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Runs git in a folder and returns the bytes it prints.
pub(super) fn git_raw(folder: &Path, args: &[&str]) -> Result<Vec<u8>, DemoError> {
    let shown = || args.iter().map(|arg| arg.split("://").next().unwrap_or("")).collect::<Vec<_>>().join(" ");
    let out = Command::new("git")
        .args(["-c", "user.name=Pointsman demo", "-c", "user.email=demo@pointsman.invalid", "-c", "core.hooksPath=/dev/null"])
        .args(args)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .output()
        .map_err(DemoError::io("git could not be run: is it installed?"))?;
    if out.status.success() {
        Ok(out.stdout)
    } else {
        Err(DemoError::Git { args: shown(), said: String::from_utf8_lossy(&out.stderr).trim().to_owned() })
    }
}

/// A line to add beside another.
#[derive(Debug, Clone)]
pub(super) struct ImportBlock {
    /// The file.
    pub(super) path: String,
    /// After which line, from 0.
    pub(super) after: usize,
    /// What ana adds.
    pub(super) by_ana: String,
    /// What ben adds.
    pub(super) by_ben: String,
}

/// The repository and the files of the story.
pub(super) struct Scene {
    /// What the host copies.
    pub(super) source: PathBuf,
    /// What the user named, and how it was before.
    pub(super) original: Option<(PathBuf, String)>,
    /// The branch that work lands on.
    pub(super) target: String,
    /// Its head before the demo.
    pub(super) head: String,
    /// Where both add an import.
    pub(super) imports: ImportBlock,
    /// A file that only ever grows.
    pub(super) log: String,
    /// A file whose first line both change.
    pub(super) headline: String,
    /// That line's number, from 0.
    pub(super) headline_at: usize,
    _kept: Option<TempDir>,
}

impl Scene {
    /// Chooses repository and files; adds what is missing to a copy.
    pub(super) fn choose(repo: Option<&Path>, timeline: &Timeline) -> Result<Self, DemoError> {
        let here = std::env::current_dir().map_err(DemoError::io("the working folder cannot be read"))?;
        let named = match repo {
            Some(path) => Some(path.canonicalize().map_err(DemoError::io(format!("{} cannot be opened", path.display())))?),
            None => git(&here, &["rev-parse", "--show-toplevel"]).ok().map(|top| PathBuf::from(top.trim())),
        };
        let has_commit = named.as_deref().is_some_and(|path| git(path, &["rev-parse", "--verify", "-q", "HEAD^{commit}"]).is_ok());
        let kept = tempfile::tempdir().map_err(DemoError::io("no temporary folder can be made"))?;
        let original = named.filter(|_| has_commit).map(|path| fingerprint(&path).map(|print| (path, print))).transpose()?;
        let source = match &original {
            Some((path, _)) => path.clone(),
            None => generate(kept.path())?,
        };
        let commits = git(&source, &["rev-list", "--count", "HEAD"])?.trim().to_owned();
        let shown = if original.is_some() { source.display().to_string() } else { "a generated repository".to_owned() };
        timeline.say("demo", &format!("works on a copy of {shown}, {commits} commits"));
        let target = branch_of(&source);
        let found = Found::search(&source)?;
        if found.is_whole()
            && let Some(target) = &target
        {
            return Self::of(source, original, target.clone(), found, Some(kept));
        }
        let copy = kept.path().join("completed");
        git(kept.path(), &["clone", "-q", &source.to_string_lossy(), &copy.to_string_lossy()])?;
        let target = target.unwrap_or_else(|| "main".to_owned());
        git(&copy, &["checkout", "-q", "-B", &target])?;
        complete(&copy, &found, timeline)?;
        let found = Found::search(&copy)?;
        Self::of(copy, original, target, found, Some(kept))
    }

    fn of(
        source: PathBuf,
        original: Option<(PathBuf, String)>,
        target: String,
        found: Found,
        kept: Option<TempDir>,
    ) -> Result<Self, DemoError> {
        let lacking = |what: &str| DemoError::Unexpected { who: "demo".to_owned(), what: format!("no file fits as {what}") };
        let head = git(&source, &["rev-parse", "HEAD"])?.trim().to_owned();
        let (headline, headline_at) = found.headline.ok_or_else(|| lacking("a headline"))?;
        Ok(Self {
            source,
            original,
            target,
            head,
            imports: found.imports.ok_or_else(|| lacking("an import block"))?,
            log: found.log.ok_or_else(|| lacking("an append-only file"))?,
            headline,
            headline_at,
            _kept: kept,
        })
    }

    /// Returns whether the original is as it was.
    pub(super) fn original_untouched(&self) -> Result<bool, DemoError> {
        match &self.original {
            Some((path, before)) => Ok(fingerprint(path)? == *before),
            None => Ok(true),
        }
    }
}

/// Returns what must not change: all refs, HEAD, the state of the work tree.
fn fingerprint(path: &Path) -> Result<String, DemoError> {
    let refs = git(path, &["for-each-ref", "--format=%(refname) %(objectname)"])?;
    let head = git(path, &["rev-parse", "HEAD"])?;
    let status = git(path, &["--no-optional-locks", "status", "--porcelain"]).unwrap_or_default();
    Ok(format!("{refs}{head}{status}"))
}

fn branch_of(path: &Path) -> Option<String> {
    git(path, &["symbolic-ref", "-q", "--short", "HEAD"]).ok().map(|name| name.trim().to_owned())
}

/// What a search found.
struct Found {
    imports: Option<ImportBlock>,
    log: Option<String>,
    headline: Option<(String, usize)>,
}

impl Found {
    fn is_whole(&self) -> bool {
        self.imports.is_some() && self.log.is_some() && self.headline.is_some()
    }

    fn search(repo: &Path) -> Result<Self, DemoError> {
        let listing = git_raw(repo, &["ls-tree", "-r", "-l", "-z", "--full-tree", "HEAD"])?;
        let listing = String::from_utf8_lossy(&listing).into_owned();
        let files: Vec<&str> = listing.split('\0').filter_map(regular_file).collect();
        let read = |path: &str| -> Option<String> {
            let bytes = git_raw(repo, &["cat-file", "blob", &format!("HEAD:{path}")]).ok()?;
            String::from_utf8(bytes).ok().filter(|text| !text.contains('\0') && !text.contains('\r'))
        };
        let is_log = |path: &&&str| {
            let name = path.rsplit('/').next().unwrap_or(path).to_ascii_uppercase();
            ["CHANGELOG", "CHANGES", "HISTORY", "NEWS", "RELEASES", "AUTHORS", "CONTRIBUTORS"].iter().any(|word| name.starts_with(word))
                && [".MD", ".RST", ".TXT"].iter().any(|end| name.ends_with(end))
        };
        let log =
            files.iter().filter(is_log).find(|path| read(path).is_some_and(|text| text.ends_with('\n'))).map(|path| (*path).to_owned());
        let imports = files
            .iter()
            .filter(|path| languages().iter().any(|language| path.ends_with(language.ending)))
            .take(SOURCES_READ_MAX)
            .find_map(|path| find_imports(path, &read(path)?));
        let is_prose = |path: &&&str| {
            let taken = Some(**path) == log.as_deref() || imports.as_ref().is_some_and(|imports| imports.path == ***path);
            !taken && [".md", ".rst", ".txt", ".toml", ".cfg", ".yml"].iter().any(|end| path.ends_with(end))
        };
        let mut prose: Vec<&&str> = files.iter().filter(is_prose).collect();
        prose.sort_by_key(|path| (!path.to_ascii_uppercase().starts_with("README"), path.matches('/').count()));
        let headline = prose.into_iter().take(50).find_map(|path| {
            let text = read(path)?;
            let at = text.lines().position(|line| line.chars().any(char::is_alphabetic))?;
            Some(((*path).to_owned(), at))
        });
        Ok(Self { imports, log, headline })
    }
}

/// Returns the path of a `ls-tree -l` line if it is a plain, small file with a plain name.
fn regular_file(line: &str) -> Option<&str> {
    let (meta, path) = line.split_once('\t')?;
    let mut words = meta.split_whitespace();
    let mode = words.next()?;
    let size: u64 = words.nth(2)?.parse().ok()?;
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b));
    (mode == "100644" && size <= FILE_BYTES_MAX && plain).then_some(path)
}

struct Language {
    ending: &'static str,
    is_import: fn(&str) -> bool,
    by_ana: &'static str,
    by_ben: &'static str,
}

fn languages() -> [Language; 6] {
    [
        Language {
            ending: ".rs",
            is_import: |line| line.starts_with("use ") && line.ends_with(';') && !line.contains('{'),
            by_ana: "use std::num::NonZeroU16;",
            by_ben: "use std::ops::ControlFlow;",
        },
        Language {
            ending: ".py",
            is_import: |line| {
                (line.starts_with("import ") || (line.starts_with("from ") && line.contains(" import ")))
                    && !line.contains(['(', '\\', ',', '#'])
            },
            by_ana: "import graphlib",
            by_ben: "import zipapp",
        },
        Language {
            ending: ".ts",
            is_import: |line| line.starts_with("import ") && line.contains(" from ") && line.ends_with(';'),
            by_ana: "import * as path from 'node:path';",
            by_ben: "import * as url from 'node:url';",
        },
        Language {
            ending: ".java",
            is_import: |line| line.starts_with("import ") && line.ends_with(';'),
            by_ana: "import java.util.OptionalInt;",
            by_ben: "import java.util.StringJoiner;",
        },
        Language {
            ending: ".c",
            is_import: |line| line.starts_with("#include "),
            by_ana: "#include <inttypes.h>",
            by_ben: "#include <stdalign.h>",
        },
        Language {
            ending: ".h",
            is_import: |line| line.starts_with("#include "),
            by_ana: "#include <inttypes.h>",
            by_ben: "#include <stdalign.h>",
        },
    ]
}

/// Finds two import lines below each other; the new ones go below them.
fn find_imports(path: &str, text: &str) -> Option<ImportBlock> {
    let language = languages().into_iter().find(|language| path.ends_with(language.ending))?;
    let lines: Vec<&str> = text.lines().collect();
    let fresh = lines.iter().all(|line| *line != language.by_ana && *line != language.by_ben);
    let first = (1..lines.len()).find(|at| (language.is_import)(lines[at - 1]) && (language.is_import)(lines[*at]))?;
    let last = (first..lines.len()).take_while(|at| (language.is_import)(lines[*at])).last()?;
    fresh.then(|| ImportBlock {
        path: path.to_owned(),
        after: last,
        by_ana: language.by_ana.to_owned(),
        by_ben: language.by_ben.to_owned(),
    })
}

/// Adds what a repository lacks for the story, in the copy.
fn complete(copy: &Path, found: &Found, timeline: &Timeline) -> Result<(), DemoError> {
    let mut added = Vec::new();
    let mut write = |path: &str, text: &str| {
        added.push(path.to_owned());
        let full = copy.join(path);
        if let Some(folder) = full.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(full, text)
    };
    let io = |source| DemoError::Io { what: "the copy cannot be completed".to_owned(), source };
    if found.imports.is_none() {
        write("demo/schedule.py", "import json\nimport sys\n\n\ndef main():\n    json.dump(sys.argv, sys.stdout)\n").map_err(io)?;
    }
    if found.log.is_none() {
        write("demo/CHANGELOG.md", "# Changes\n\n- the first line\n").map_err(io)?;
    }
    if found.headline.is_none() {
        write("demo/README.md", "# A railway\n\nWith points.\n").map_err(io)?;
    }
    if added.is_empty() {
        return Ok(());
    }
    timeline.say("demo", &format!("the copy lacks files the story needs; adds {}", added.join(", ")));
    git(copy, &["add", "-f", "--", "demo"])?;
    git(copy, &["commit", "-q", "-m", "Files for the demo"])?;
    Ok(())
}

fn generate(folder: &Path) -> Result<PathBuf, DemoError> {
    let repo = folder.join("generated");
    std::fs::create_dir_all(&repo).map_err(DemoError::io("no repository can be generated"))?;
    git(&repo, &["init", "-q", "-b", "main"])?;
    git(&repo, &["commit", "-q", "--allow-empty", "-m", "Begin"])?;
    Ok(repo)
}
