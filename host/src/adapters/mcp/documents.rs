//! Being told of shared documents: which of them a client asked for, what it is told, and many writes told as one.
//!
//! **Invariants:** nobody is told anything of a document that it may not read, not even by the lists it stands in; of what is queued
//! for one listener only the newest of each document is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::context::DocumentKey;
use pointsman_core::limits::WATCHED_GLOBS_MAX;
use pointsman_core::path_glob::PathGlob;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

use super::errors::Fault;
use crate::ports::offering::{DocumentNews, News, Offering, keys_of};
use crate::ports::surface::Caller;

/// News that are looked through for those of one document.
const QUEUED_MAX: usize = 256;
/// Milliseconds before what could not be found out is asked again.
const ASK_AGAIN_MS: u64 = 1_000;
/// The notification of a resource's change.
pub(super) const UPDATED: &str = "notifications/resources/updated";
/// What the names of our own metadata start with (basic, `_meta`).
const PREFIX: &str = "pointsman/";

/// What a client asked for of some news of a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Whether it is the document.
    pub(super) is_named: bool,
    /// The lists that it stands in.
    pub(super) lists: Vec<&'static str>,
}

/// Returns what of a document's news was asked for, by URIs and by globs over keys; none: nothing.
pub(super) fn wanted(uris: &BTreeSet<String>, globs: &[PathGlob], news: &DocumentNews) -> Option<Wanted> {
    if uris.is_empty() {
        return None;
    }
    let is_reached = news.lists().len() > 1;
    let is_named = is_reached && (uris.contains(&news.uri()) || globs.iter().any(|glob| glob.matches(news.key.as_str())));
    let lists: Vec<_> = news.lists().iter().copied().filter(|list| uris.contains(*list)).collect();
    (is_named || !lists.is_empty()).then_some(Wanted { is_named, lists })
}

/// Returns the globs among the URIs that a client named.
pub(super) fn globs(uris: &BTreeSet<String>) -> Vec<PathGlob> {
    uris.iter().filter_map(|uri| keys_of(uri)?.ok()).collect()
}

/// Refuses more globs than each event can be compared with.
pub(super) fn check_globs(count: usize) -> Result<(), Fault> {
    if count <= WATCHED_GLOBS_MAX {
        return Ok(());
    }
    Err(Fault::InvalidParams {
        why: format!("more than {WATCHED_GLOBS_MAX} patterns of documents; name a folder of keys: `plan/**`").into(),
    })
}

/// Whether a notification says what changed, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patch {
    Told,
    /// To whom it may come late, it is left out: what changed since a version can be asked for.
    LeftOut,
}

/// Returns the parameters of the notification that a document changed.
pub(super) fn told(news: &DocumentNews, patch: Patch) -> Map<String, Value> {
    let mut params = Map::from_iter([("uri".to_owned(), news.uri().into())]);
    let Some(write) = &news.write else { return params };
    let before = if write.is_several { "since" } else { "from" };
    let change = write.patch.as_ref().filter(|_| patch == Patch::Told);
    let known = [
        ("version", Some(write.version.into())),
        ("author", Some(write.author.as_str().into())),
        (before, write.before.map(Value::from)),
        ("patch", change.cloned()),
        ("deleted", write.is_deleted.then(|| true.into())),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((format!("{PREFIX}{name}"), value?)));
    params.insert("_meta".to_owned(), Value::Object(known.collect()));
    params
}

/// Takes what is queued behind the news of some document, as far as it is asked for: in its order, what is of one document joined where
/// the last of it stands. None: something was lost.
pub(super) fn queued(
    first: Arc<DocumentNews>,
    queue: &mut broadcast::Receiver<News>,
    is_wanted: impl Fn(&News) -> bool,
) -> Option<Vec<News>> {
    let mut all = vec![News::Document(first)];
    for _ in 0..QUEUED_MAX {
        match queue.try_recv() {
            Ok(news) if !is_wanted(&news) => {}
            Ok(News::Document(later)) => {
                let is_same = |news: &News| matches!(news, News::Document(earlier) if earlier.key == later.key);
                let joined = match all.iter().position(is_same).map(|place| all.remove(place)) {
                    Some(News::Document(earlier)) => Arc::new(later.joined(&earlier)),
                    _ => later,
                };
                all.push(News::Document(joined));
            }
            Ok(news) => all.push(news),
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            Err(TryRecvError::Lagged(_)) => return None,
        }
    }
    Some(all)
}

/// Returns what is to be told of what was queued: documents that the caller may read, then each list once in which one of them stands, and
/// everything else as it is. `wants`: what was asked for.
pub(super) async fn admitted(
    offering: &dyn Offering,
    caller: &Caller,
    queued: Vec<News>,
    wants: impl Fn(&DocumentNews) -> Option<Wanted> + Send,
    is_over: impl Fn() -> bool + Send,
) -> Vec<News> {
    let (mut admitted, mut lists) = (Vec::new(), BTreeSet::new());
    for news in queued {
        let News::Document(document) = news else {
            admitted.push(news);
            continue;
        };
        let Some(wanted) = wants(&document) else { continue };
        if may_hear(offering, caller, &document.key, &is_over).await {
            lists.extend(wanted.lists);
            if wanted.is_named {
                admitted.push(News::Document(document));
            }
        }
    }
    admitted.extend(lists.into_iter().map(|list| News::Resource(list.into())));
    admitted
}

/// Returns whether a caller may be told of a document. Where that cannot be found out now it is asked again, until nobody listens.
async fn may_hear(offering: &dyn Offering, caller: &Caller, key: &DocumentKey, is_over: impl Fn() -> bool) -> bool {
    loop {
        match offering.may_hear(caller, key).await {
            Ok(may) => return may,
            Err(_) if is_over() => return false,
            Err(_) => tokio::time::sleep(Duration::from_millis(ASK_AGAIN_MS)).await,
        }
    }
}

/// Adds metadata to the parameters of a notification.
pub(super) fn add_meta(params: &mut Map<String, Value>, name: &str, value: impl serde::Serialize) {
    if let Some(meta) = params.entry("_meta").or_insert_with(|| json!({})).as_object_mut() {
        meta.insert(name.to_owned(), json!(value));
    }
}
