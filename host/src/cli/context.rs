//! `pointsman context`: shared documents for people and scripts, with an agent's token. Knows the host by HTTP and MCP only.
//!
//! **Invariants:** what broke off goes on where it was when the same command is run again; a file appears whole or not at all; standard
//! output carries answers and documents, progress is told on standard error.

mod remote;

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use pointsman_core::context::content::{ChunkHash, cut};
use pointsman_core::context::{DocumentKey, content_hash, is_json, view};
use pointsman_core::limits::DOCUMENT_BYTES_MAX;
use serde_json::{Value, json};

use self::remote::{Asked, Remote};
use super::agent::write_columns;
use super::inbox::InboxArgs;
use super::{Trouble, block_on, print_json};
use crate::config::Environment;

/// Bytes above which a document is sent in chunks.
const WHOLE_BYTES_MAX: usize = 256 << 10;
/// Bytes of one body of chunks, their lengths aside.
const BODY_BYTES: usize = 1 << 20;
/// Bytes that are asked for at once.
const RANGE_BYTES: u64 = 4 << 20;
/// Lines of one side times lines of the other up to which a diff is made.
const DIFFED_LINES_MAX: usize = 1 << 24;
/// The media type of a version that is named by its chunks.
const CHUNKS: &str = "application/vnd.pointsman.chunks+json";

const EXAMPLES: &str = "\
Examples:
  export POINTSMAN_TOKEN=…                              as `pointsman agent add` printed it
  pointsman context list plan/
  pointsman context put plan/api api.md
  make 2>&1 | pointsman context put builds/log - --media-type text/plain
  pointsman context get plan/api@3 --out api.md
  pointsman context diff plan/api 3

The token's agent reads and writes, and may do what the host's rules let it. Exit codes: 0 done, 1 failed (a conflict, too), 2 wrong usage.";

const PUT_EXAMPLES: &str = "\
Examples:
  pointsman context put plan/api api.md                 on top of the newest version
  pointsman context put plan/api api.md --base 3        made from version 3: merged with what others wrote since, or a conflict
  pointsman context put builds/log - < build.log

What is large is sent in chunks. When that breaks off, run the same command again: only what is missing is sent. Of an edited document only
what changed is.";

const GET_EXAMPLES: &str = "\
Examples:
  pointsman context get plan/api
  pointsman context get builds/log@2 --out build.log    goes on where an earlier run broke off";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ContextArgs {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    /// List the documents that the agent may read
    List(ListArgs),
    /// Print a document, or write it to a file
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Write a version of a document from a file, or from standard input
    #[command(after_help = PUT_EXAMPLES)]
    Put(PutArgs),
    /// List the versions that are kept of a document
    History(HistoryArgs),
    /// Show what changed between two versions
    Diff(DiffArgs),
    /// Delete a document; earlier versions can be restored for 30 days
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only keys that begin so, such as plan/
    #[arg(default_value = "")]
    prefix: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    from: InboxArgs,
}

#[derive(Debug, Args)]
struct GetArgs {
    /// The key, with @VERSION for another than the newest
    #[arg(value_name = "KEY[@VERSION]", value_parser = versioned)]
    document: Versioned,
    /// Write it to this file [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print what was written to the file as one JSON object
    #[arg(long, requires = "out")]
    json: bool,
    #[command(flatten)]
    from: InboxArgs,
}

#[derive(Debug, Args)]
struct PutArgs {
    /// The key
    #[arg(value_parser = key)]
    key: DocumentKey,
    /// The file; - for standard input
    file: PathBuf,
    /// The version it was made from, 0 for a new document [default: the newest, as it is now]
    #[arg(long, value_name = "VERSION")]
    base: Option<u64>,
    /// What it is, such as text/markdown [default: by the file's ending, else as it was]
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    from: InboxArgs,
}

#[derive(Debug, Args)]
struct HistoryArgs {
    /// The key
    #[arg(value_parser = key)]
    key: DocumentKey,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    from: InboxArgs,
}

#[derive(Debug, Args)]
struct DiffArgs {
    /// The key
    #[arg(value_parser = key)]
    key: DocumentKey,
    /// The earlier version
    from_version: u64,
    /// The later one [default: the newest]
    to_version: Option<u64>,
    /// Print one JSON object: from, to, patch
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    from: InboxArgs,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// The key
    #[arg(value_parser = key)]
    key: DocumentKey,
    /// The version that is meant; refused when there is a newer one [default: the newest, as it is now]
    #[arg(long, value_name = "VERSION")]
    base: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    from: InboxArgs,
}

#[derive(Debug, Clone)]
struct Versioned {
    key: DocumentKey,
    version: Option<u64>,
}

fn key(text: &str) -> Result<DocumentKey, String> {
    text.parse().map_err(|error: pointsman_core::context::DocumentError| error.to_string())
}

fn versioned(text: &str) -> Result<Versioned, String> {
    match text.rsplit_once('@') {
        Some((name, version)) => {
            let version = version.parse().map_err(|_| format!("`{version}` is no version: write KEY@3"))?;
            Ok(Versioned { key: key(name)?, version: Some(version) })
        }
        None => Ok(Versioned { key: key(text)?, version: None }),
    }
}

pub(super) fn run(environment: &Environment, args: &ContextArgs) -> Result<ExitCode, Trouble> {
    block_on(async {
        match &args.command {
            ContextCommand::List(args) => list(&Remote::open(environment, &args.from)?, args).await,
            ContextCommand::Get(args) => get(&Remote::open(environment, &args.from)?, args).await,
            ContextCommand::Put(args) => put(&Remote::open(environment, &args.from)?, args).await,
            ContextCommand::History(args) => history(&Remote::open(environment, &args.from)?, args).await,
            ContextCommand::Diff(args) => diff(&Remote::open(environment, &args.from)?, args).await,
            ContextCommand::Delete(args) => delete(&Remote::open(environment, &args.from)?, args).await,
        }
    })??;
    Ok(ExitCode::SUCCESS)
}

/// What there is to know of a version without what it says.
struct Manifest {
    shown: Value,
    version: u64,
    size_bytes: u64,
    hash: String,
    media_type: String,
}

async fn manifest(remote: &Remote, key: &DocumentKey, version: Option<u64>) -> Result<Option<Manifest>, Trouble> {
    let query = version.map_or_else(|| "?chunks".to_owned(), |version| format!("?chunks&version={version}"));
    let Asked::Found(answer) = remote.ask("GET", &format!("{key}{query}"), &[], Vec::new()).await? else { return Ok(None) };
    let mut shown = answer.json();
    if let Some(shown) = shown.as_object_mut() {
        shown.remove("chunks");
    }
    let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| shown[name].as_u64().unwrap_or(0);
    let (version, size_bytes) = (number("version"), number("size_bytes"));
    Ok(Some(Manifest { version, size_bytes, hash: text("hash"), media_type: text("media_type"), shown }))
}

fn missing(key: &DocumentKey, version: Option<u64>) -> Trouble {
    let version = version.map(|version| format!(" of version {version}")).unwrap_or_default();
    Trouble::Failed(format!(
        "error: there is no document `{key}`{version}, or none that you may read\n  `pointsman context list` names those there are"
    ))
}

async fn list(remote: &Remote, args: &ListArgs) -> Result<(), Trouble> {
    if !args.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte)) {
        return Err(Trouble::misused(format!("no key begins with `{}`", args.prefix), "Keys are such as plan/api; leave it out for all."));
    }
    let (mut documents, mut after) = (Vec::new(), String::new());
    loop {
        let mut answer = remote.found("GET", &format!("?prefix={}&after={after}", args.prefix), &[], Vec::new()).await?.json();
        if let Value::Array(page) = answer["documents"].take() {
            documents.extend(page);
        }
        match answer["more"].as_str() {
            Some(more) => more.clone_into(&mut after),
            None => break,
        }
    }
    if args.json {
        return print_json(&json!({"documents": documents}));
    }
    let mut out = std::io::stdout().lock();
    if documents.is_empty() {
        writeln!(out, "no documents; `pointsman context put KEY FILE` begins one")?;
        return Ok(());
    }
    let head = ["KEY", "VERSION", "BYTES", "TYPE", "BY", "AT"].map(str::to_owned);
    write_columns(&mut out, std::iter::once(head).chain(documents.iter().map(row)))?;
    Ok(())
}

fn row(head: &Value) -> [String; 6] {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let at = head["at"].as_i64().map_or_else(|| text(&head["at"]), |ms| pointsman_core::time::TimeMs(ms).to_string());
    [text(&head["key"]), text(&head["version"]), text(&head["size_bytes"]), text(&head["media_type"]), text(&head["author"]["name"]), at]
}

async fn history(remote: &Remote, args: &HistoryArgs) -> Result<(), Trouble> {
    let versions = remote.call("lookup", json!({"uri": format!("context/{}?history", args.key)})).await?;
    if args.json {
        return print_json(&versions);
    }
    let head = ["VERSION", "BYTES", "TYPE", "BY", "AT", "WHAT"].map(str::to_owned);
    let rows = versions.as_array().into_iter().flatten().map(|version| {
        let [_, number, bytes, media_type, by, at] = row(version);
        let what = [
            version["deleted"].as_bool().filter(|gone| *gone).map(|_| "deleted".to_owned()),
            version["renamed_to"].as_str().map(|to| format!("went to {to}")),
            version["taken_from"].as_str().map(|from| format!("from {from}")),
            version["merged_by"].as_str().map(|plugin| format!("merged by {plugin}")),
            version["label"].as_str().map(|label| format!("\"{label}\"")),
        ];
        [number, bytes, media_type, by, at, what.into_iter().flatten().collect::<Vec<_>>().join(", ")]
    });
    write_columns(&mut std::io::stdout().lock(), std::iter::once(head).chain(rows))?;
    Ok(())
}

async fn delete(remote: &Remote, args: &DeleteArgs) -> Result<(), Trouble> {
    let base = match args.base {
        Some(base) => base,
        None => manifest(remote, &args.key, None).await?.ok_or_else(|| missing(&args.key, None))?.version,
    };
    let answer = remote.call("write_context", json!({"key": args.key, "base_version": base, "delete": true})).await?;
    if args.json {
        return print_json(&answer);
    }
    writeln!(std::io::stdout(), "{} is deleted; version {base} of it can be restored for 30 days", args.key)?;
    Ok(())
}

async fn diff(remote: &Remote, args: &DiffArgs) -> Result<(), Trouble> {
    let mut sides = Vec::new();
    for version in [Some(args.from_version), args.to_version] {
        let manifest = manifest(remote, &args.key, version).await?.ok_or_else(|| missing(&args.key, version))?;
        let mut bytes = Vec::new();
        remote.read(&args.key, &manifest, 0, |part| bytes.write_all(part)).await?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Trouble::failed(format!("version {} of `{}` is no text\n  Get both, and compare them.", manifest.version, args.key))
        })?;
        sides.push((manifest, text));
    }
    let [(old, from), (new, to)] = &sides[..] else { return Ok(()) };
    let values = (serde_json::from_str::<Value>(from), serde_json::from_str::<Value>(to));
    let patch = match values {
        (Ok(from), Ok(to)) if is_json(&old.media_type) && is_json(&new.media_type) => view::json_patch(&from, &to),
        _ if from.lines().count().saturating_mul(to.lines().count()) > DIFFED_LINES_MAX => {
            return Err(Trouble::failed("the versions have too many lines to be compared here\n  Get both, and compare them with diff."));
        }
        _ => view::text_patch(from, to).into(),
    };
    if args.json {
        return print_json(&json!({"key": args.key, "from": old.version, "to": new.version, "patch": patch}));
    }
    let mut out = std::io::stdout().lock();
    match &patch {
        Value::String(text) => write!(out, "{text}")?,
        value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => writeln!(out, "{value:#}")?,
    }
    Ok(())
}

async fn get(remote: &Remote, args: &GetArgs) -> Result<(), Trouble> {
    let Versioned { key, version } = &args.document;
    let manifest = manifest(remote, key, *version).await?.ok_or_else(|| missing(key, *version))?;
    let Some(out) = &args.out else {
        let mut out = std::io::stdout().lock();
        remote.read(key, &manifest, 0, |part| out.write_all(part)).await?;
        out.flush()?;
        return Ok(());
    };
    let named = |error: std::io::Error| Trouble::failed(format!("{}: {error}", out.display()));
    // Named by what it is a part of, so that a part of another version is never gone on with.
    let part = part_of(out, &manifest);
    let mut file = OpenOptions::new().create(true).append(true).open(&part).map_err(named)?;
    let mut there = file.metadata().map_err(named)?.len();
    if there > manifest.size_bytes {
        file.set_len(0).map_err(named)?;
        there = 0;
    }
    let mut progress = Progress::of("got", manifest.size_bytes, there);
    remote
        .read(key, &manifest, there, |bytes| {
            file.write_all(bytes)?;
            progress.add(bytes.len() as u64);
            Ok(())
        })
        .await?;
    file.sync_all().map_err(named)?;
    drop(file);
    progress.end();
    if content_hash(&std::fs::read(&part).map_err(named)?) != manifest.hash {
        std::fs::remove_file(&part).map_err(named)?;
        return Err(Trouble::failed(format!("{} was changed by somebody else and is removed\n  Run the command again.", part.display())));
    }
    std::fs::rename(&part, out).map_err(named)?;
    if args.json {
        return print_json(&manifest.shown);
    }
    writeln!(std::io::stderr(), "{}: version {} of {key}, {} bytes", out.display(), manifest.version, manifest.size_bytes)?;
    Ok(())
}

fn part_of(out: &Path, manifest: &Manifest) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(format!(".{}-{}.part", manifest.version, manifest.hash.get(..16).unwrap_or_default()));
    name.into()
}

fn content_of(file: &Path) -> Result<Vec<u8>, Trouble> {
    let named = |error: std::io::Error| Trouble::failed(format!("{}: {error}", file.display()));
    let source: Box<dyn Read> =
        if file == Path::new("-") { Box::new(std::io::stdin()) } else { Box::new(File::open(file).map_err(named)?) };
    let mut bytes = Vec::new();
    source.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(named)?;
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(Trouble::failed(format!(
            "{} has more than the {DOCUMENT_BYTES_MAX} bytes a document may have\n  Split it into several keys.",
            file.display()
        )));
    }
    Ok(bytes)
}

/// Returns the media type by a file's ending; none: unknown.
fn by_ending(file: &Path) -> Option<&'static str> {
    match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "json" => Some("application/json"),
        "md" | "markdown" => Some("text/markdown"),
        "txt" | "log" => Some("text/plain"),
        "toml" => Some("application/toml"),
        "yaml" | "yml" => Some("application/yaml"),
        _ => Some("application/octet-stream"),
    }
}

async fn put(remote: &Remote, args: &PutArgs) -> Result<(), Trouble> {
    let PutArgs { key, file, .. } = args;
    let bytes = content_of(file)?;
    let newest = match args.base {
        Some(_) => None,
        None => manifest(remote, key, None).await?,
    };
    let base = args.base.unwrap_or_else(|| newest.as_ref().map_or(0, |newest| newest.version));
    let media_type = args.media_type.as_deref().or_else(|| by_ending(file));
    let path = format!("{key}?base_version={base}");
    let answer = if bytes.len() <= WHOLE_BYTES_MAX {
        let fields: Vec<_> = media_type.map(|media_type| ("content-type", media_type)).into_iter().collect();
        remote.found("PUT", &path, &fields, bytes).await?
    } else {
        let names = bring(remote, key, &bytes).await?;
        let body = json!({"media_type": media_type, "chunks": names}).to_string();
        remote.found("PUT", &path, &[("content-type", CHUNKS)], body.into_bytes()).await?
    };
    let answer = answer.json();
    if args.json {
        return print_json(&answer);
    }
    let version = answer["version"].as_u64().unwrap_or(0);
    let how = match (answer["unchanged"].as_bool(), answer["merged_with"].as_u64()) {
        (Some(true), _) => " (unchanged)".to_owned(),
        (_, Some(with)) => format!(" (merged with version {with})"),
        _ => String::new(),
    };
    writeln!(std::io::stdout(), "{key}@{version}{how}")?;
    Ok(())
}

/// Sends the chunks of a document that the host does not have; returns the names of all.
async fn bring(remote: &Remote, key: &DocumentKey, bytes: &[u8]) -> Result<Vec<String>, Trouble> {
    let chunks: Vec<(String, &[u8])> =
        cut(bytes).into_iter().map(|range| (ChunkHash::of(&bytes[range.clone()]).to_string(), &bytes[range])).collect();
    let names: Vec<String> = chunks.iter().map(|(name, _)| name.clone()).collect();
    let asked = json!({"chunks": names}).to_string();
    let answer = remote.found("POST", &format!("{key}?missing"), &[], asked.into_bytes()).await?.json();
    let mut missing: std::collections::HashSet<&str> =
        answer["missing"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let to_send: u64 = chunks.iter().filter(|(name, _)| missing.contains(name.as_str())).map(|(_, chunk)| chunk.len() as u64).sum();
    let mut progress = Progress::of("sent", to_send, 0);
    let mut body = Vec::new();
    for (at, (name, chunk)) in chunks.iter().enumerate() {
        if missing.remove(name.as_str()) {
            body.extend_from_slice(&u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_le_bytes());
            body.extend_from_slice(chunk);
        }
        if body.len() >= BODY_BYTES || (at + 1 == chunks.len() && !body.is_empty()) {
            let length = body.len() as u64;
            remote.found("POST", &format!("{key}?chunks"), &[], std::mem::take(&mut body)).await?;
            progress.add(length);
        }
    }
    progress.end();
    Ok(names)
}

/// How far a transfer is, told to whoever looks at the terminal.
struct Progress {
    word: &'static str,
    all: u64,
    done: u64,
    is_shown: bool,
}

impl Progress {
    fn of(word: &'static str, all: u64, done: u64) -> Self {
        Self { word, all, done, is_shown: all > BODY_BYTES as u64 && std::io::stderr().is_terminal() }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.is_shown {
            // Nobody is told when standard error is closed.
            let _ = write!(std::io::stderr(), "\r{} {} of {} KiB", self.word, self.done.min(self.all) >> 10, self.all >> 10);
        }
    }

    fn end(&self) {
        if self.is_shown {
            let _ = writeln!(std::io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_named_with_its_version() {
        let named = versioned("plan/api@3").expect("a document");
        assert_eq!((named.key.as_str(), named.version), ("plan/api", Some(3)));
        assert_eq!(versioned("plan/api").expect("a document").version, None);
        for wrong in ["", "plan/api@", "plan/api@x", "plan//api", "/plan", "plan/.api", "a b"] {
            assert!(versioned(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn endings_say_what_a_file_is() {
        assert_eq!(by_ending(Path::new("a/b.MD")), Some("text/markdown"));
        assert_eq!(by_ending(Path::new("b.json")), Some("application/json"));
        assert_eq!(by_ending(Path::new("b.tar")), Some("application/octet-stream"));
        assert_eq!(by_ending(Path::new("-")), None, "the document stays what it was");
    }
}
