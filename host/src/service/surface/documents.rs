//! `lookup` of shared context: lists, whole documents, parts, history, what changed, conflicts.
//!
//! ```text
//! context[?prefix=plan/][&after=KEY]        keys and versions
//! context/KEY[@VERSION]                     a document
//! context/KEY[@VERSION]?pointer=/a/b        a part of JSON (RFC 6901)
//! context/KEY[@VERSION]?lines=1-20          lines of a text, both included
//! context/KEY[@VERSION]?bytes=0-1024        bytes, the last not included
//! context/KEY?since=VERSION                 what changed since, as a patch
//! context/KEY?history                       its versions
//! pack[/TASK][?bytes=6000]                  what to know: documents, decisions, threads, related tasks, within so many bytes
//! context_conflicts                         what nobody settled yet
//! context_conflict/ID                       one conflict, with what its writer wanted
//! ```

use std::borrow::Cow;

use data_encoding::BASE64;
use pointsman_core::context::is_json;
use pointsman_core::context::view::{self, Part};
use serde_json::{Value, json};

use super::back::{Query, Reader};
use super::lookup::{GO_ON, unknown};
use super::{Said, Services};
use crate::service::contexts::{Document, own_document_of};
use crate::service::failure::Failure;
use crate::service::pack::{PACK_BYTES, PACK_BYTES_MAX, keep_own, pack};

/// Documents of a list.
const LISTED_MAX: usize = 100;
/// Bytes of a document that is shown whole.
const SHOWN_BYTES_MAX: usize = 256 << 10;
/// Bytes that are shown of a larger one.
const SHOWN_BYTES: usize = 8 << 10;

/// Reads what a path names that begins with `context` or `pack`; none: it names nothing of shared context.
///
/// # Errors
/// `bad_argument`, `not_found`.
pub(super) async fn documents(services: &Services, reader: &Reader, path: &str) -> Result<Option<Said>, Failure> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let contexts = &services.contexts;
    let (project, viewer) = (reader.project, &reader.viewer);
    let (noun, rest) = path.split_once('/').unwrap_or((path, ""));
    let found = match (noun, rest) {
        ("context", "") => {
            let query = Query::parse(query, &["prefix", "after"])?;
            let (prefix, after) = (query.one("prefix").unwrap_or_default(), query.one("after").unwrap_or_default());
            let (listed, more) = contexts.list_after(project, viewer, prefix, after, LISTED_MAX).await?;
            let more = more.map(|more| Cow::Owned(format!("pointsman://context?prefix={prefix}&after={more}")));
            return Ok(Some(Said { more, ..Said::new(&listed, GO_ON) }));
        }
        ("pack", task) => {
            let query = Query::parse(query, &["bytes"])?;
            let task = (!task.is_empty()).then(|| task.parse()).transpose().map_err(|_| unknown(path))?;
            if let Some(task) = task {
                services.tasks.get(project, task).await?;
            }
            let all = services.tasks.all(project).await?;
            let bytes = query.one("bytes").map(str::parse).transpose();
            let bytes = bytes.map_err(|_| wrong("`bytes` is no number".to_owned()))?.unwrap_or(PACK_BYTES).min(PACK_BYTES_MAX);
            pack(services, project, viewer, &all, task, bytes).await?
        }
        ("context", key) => return document(services, reader, key, query).await.map(Some),
        ("context_conflicts", "") => json!(contexts.open_conflicts(project, viewer).await?),
        ("context_conflict", id) => {
            let conflict = contexts.conflict(project, viewer, id.parse().map_err(|_| unknown(path))?).await?;
            let next = match conflict.record.resolved_by {
                None => format!(
                    "Settle it: write_context `{}` from version {} with `resolves`, or with `take`: \"ours\" or \"theirs\", or `hand_to`.",
                    conflict.record.key, conflict.record.current_version
                ),
                Some(version) => format!("Version {version} settled it."),
            };
            return Ok(Some(Said::new(&conflict, next)));
        }
        _ => return Ok(None),
    };
    Ok(Some(Said::new(&found, GO_ON)))
}

async fn document(services: &Services, reader: &Reader, key: &str, query: &str) -> Result<Said, Failure> {
    let contexts = &services.contexts;
    let (project, viewer) = (reader.project, &reader.viewer);
    let (key, version) = match key.rsplit_once('@') {
        Some((key, version)) => (key, Some(version.parse().map_err(|_| unknown(key))?)),
        None => (key, None),
    };
    let query = Query::parse(query, &["pointer", "lines", "bytes", "since", "history"])?;
    if let Some(since) = query.one("since") {
        let since = since.parse().map_err(|_| wrong(format!("`since` is no version: `{}`", cut(since))))?;
        let changes = contexts.changes(project, viewer, key, since).await?;
        return Ok(Said::new(
            &changes,
            if changes.patch.is_some() { GO_ON } else { "Read the document whole: too much changed for a patch." },
        ));
    }
    if query.one("history").is_some() {
        return Ok(Said::new(&contexts.history(project, viewer, key).await?, GO_ON));
    }
    if let Some(part) = part(&query)? {
        let (head, found) = contexts.read_part(project, viewer, key, version, &part).await?;
        if found.to_string().len() > SHOWN_BYTES_MAX {
            let why = format!("that part has more than the {SHOWN_BYTES_MAX} bytes an answer may have");
            return Err(Failure::refused("too_large", why, "Ask for less, or get it over HTTP."));
        }
        return Ok(Said::new(&json!({"key": head.key, "version": head.version, "media_type": head.media_type, "part": found}), GO_ON));
    }
    if let Some(name) = own_document_of(key).filter(|_| version.is_none())
        && let Ok(agent) = services.agents.agent(project, name).await
        && agent.name == name
    {
        keep_own(services, project, &agent).await?;
    }
    let head = contexts.manifest(project, viewer, key, version).await?.head;
    if head.size_bytes > SHOWN_BYTES_MAX as u64 {
        let (head, bytes) = contexts.read_bytes(project, viewer, key, Some(head.version), 0..SHOWN_BYTES as u64).await?;
        let mut shown = json!(head);
        shown["begins"] = match std::str::from_utf8(&bytes) {
            Ok(text) => text.into(),
            Err(error) => String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned().into(),
        };
        let next = format!("Only its beginning is shown: ask for `context/{key}?lines=1-100`, `?bytes=0-65536` or `?pointer=/…`.");
        return Ok(Said::new(&shown, next));
    }
    Ok(Said::new(&shown(&contexts.read(project, viewer, key, version).await?), GO_ON))
}

fn part(query: &Query) -> Result<Option<Part>, Failure> {
    let parts = [query.one("pointer"), query.one("lines"), query.one("bytes")];
    Ok(match parts {
        [None, None, None] => None,
        [Some(pointer), None, None] => Some(Part::Pointer(pointer.to_owned())),
        [None, Some(lines), None] => view::range(lines).map(|(from, to)| Some(Part::Lines(from, to)))?,
        [None, None, Some(bytes)] => view::range(bytes).map(|(from, to)| Some(Part::Bytes(from, to)))?,
        _ => return Err(wrong("`pointer`, `lines` and `bytes` are each a part of its own".to_owned())),
    })
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

fn wrong(why: String) -> Failure {
    Failure::refused(
        "bad_argument",
        why,
        "Write context/KEY[@VERSION] with one of ?pointer=/a, ?lines=1-20, ?bytes=0-1024, ?since=VERSION, ?history.",
    )
}

/// Returns a document the way an agent reads it: JSON as a value, bytes that are no text as base64.
fn shown(document: &Document) -> Value {
    let mut shown = json!(document.head);
    match (document.text(), is_json(&document.head.media_type)) {
        (Some(text), true) if let Ok(value) = serde_json::from_str::<Value>(text) => shown["value"] = value,
        (Some(text), _) => shown["text"] = text.into(),
        (None, _) => shown["base64"] = BASE64.encode(&document.bytes).into(),
    }
    shown
}
