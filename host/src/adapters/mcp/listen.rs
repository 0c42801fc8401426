//! Being told of changes: `subscriptions/listen` of 2026-07-28, and the stream that sessions open by GET.
//!
//! **Invariants:** the acknowledgement comes first; nothing is told that was not asked for; who was too slow for the news is told
//! that everything it asked for may have changed, so nothing is missed in silence; nobody is told anything by a credential that is
//! no longer good, nor of a document that it may not read ([`super::documents`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use pointsman_core::ids::ProjectId;
use pointsman_core::path_glob::PathGlob;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Texts};
use super::call::{TASKS, declares};
use super::documents::{self, Patch, UPDATED, Wanted};
use super::errors::{Era, Fault};
use super::live::{Live, STANDALONE};
use super::stream::{FRAMES_MAX, Frame, Frames};
use super::{Mcp, envelope};
use crate::ports::endpoint::Reply;
use crate::ports::offering::{DocumentNews, News, Offering};
use crate::ports::surface::{Caller, Rejected, Surface};

/// Resources and deferred calls one `subscriptions/listen` may name.
const LISTENED_MAX: usize = 1_000;
/// Milliseconds between two looks at the credential of a stream that has nothing to tell. Each stream looks by itself: ten thousand
/// that look at once would be a pause for everybody.
const LOOK_MS: u64 = 5_000;
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// What a client asks to be told of.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    resource_subscriptions: BTreeSet<String>,
    task_ids: BTreeSet<String>,
    /// Of the resources those that mean documents by a glob.
    #[serde(skip)]
    globs: Vec<PathGlob>,
}

impl Filter {
    /// Returns the filter as it is acknowledged: what was not asked for is left out.
    fn shown(&self) -> Value {
        let mut shown = Map::new();
        for (name, asked) in [
            ("toolsListChanged", self.tools_list_changed),
            ("promptsListChanged", self.prompts_list_changed),
            ("resourcesListChanged", self.resources_list_changed),
        ] {
            if asked {
                shown.insert(name.to_owned(), true.into());
            }
        }
        for (name, asked) in [("resourceSubscriptions", &self.resource_subscriptions), ("taskIds", &self.task_ids)] {
            if !asked.is_empty() {
                shown.insert(name.to_owned(), json!(asked));
            }
        }
        Value::Object(shown)
    }

    fn covers(&self, news: &News) -> bool {
        match news {
            News::Tools => self.tools_list_changed,
            News::Prompts => self.prompts_list_changed,
            News::Resources => self.resources_list_changed,
            News::Resource(uri) => self.resource_subscriptions.contains(&**uri),
            News::Document(news) => self.wants(news).is_some(),
            News::Deferred(id) => self.task_ids.contains(&**id),
        }
    }

    fn wants(&self, news: &DocumentNews) -> Option<Wanted> {
        documents::wanted(&self.resource_subscriptions, &self.globs, news)
    }

    /// Returns everything that may have been missed; of the documents that a glob means the glob.
    fn everything(&self) -> Vec<News> {
        let lists = [News::Tools, News::Prompts, News::Resources];
        let resources = self.resource_subscriptions.iter().map(|uri| News::Resource(uri.as_str().into()));
        let deferred = self.task_ids.iter().map(|id| News::Deferred(id.as_str().into()));
        lists.into_iter().filter(|news| self.covers(news)).chain(resources).chain(deferred).collect()
    }
}

/// Returns method and parameters of a list's or a resource's change; none for a deferred call, which is told with its state.
fn change(news: &News) -> Option<(&'static str, Map<String, Value>)> {
    Some(match news {
        News::Tools => ("notifications/tools/list_changed", Map::new()),
        News::Prompts => ("notifications/prompts/list_changed", Map::new()),
        News::Resources => ("notifications/resources/list_changed", Map::new()),
        News::Resource(uri) => (UPDATED, Map::from_iter([("uri".to_owned(), json!(uri))])),
        News::Document(news) => (UPDATED, documents::told(news, Patch::Told)),
        News::Deferred(_) => return None,
    })
}

/// One `subscriptions/listen`.
struct Listener {
    surface: Arc<dyn Surface>,
    offering: Arc<dyn Offering>,
    caller: Caller,
    filter: Filter,
    id: Box<RawValue>,
    texts: Arc<Texts>,
    frames: mpsc::Sender<Frame>,
}

impl Listener {
    async fn run(self, mut news: broadcast::Receiver<News>, draining: CancellationToken) {
        let mut look = looks();
        loop {
            let heard = tokio::select! {
                heard = news.recv() => Some(heard),
                () = self.frames.closed() => return,
                _ = look.tick() => None,
                () = draining.cancelled() => {
                    let object = json!({"_meta": {SUBSCRIPTION_ID: self.id}}).to_string();
                    let last = answer::spliced(&self.id, &self.texts, &object, "complete");
                    drop(self.frames.send(Frame::Last(Ok(last))).await);
                    return;
                }
            };
            let told = match heard {
                Some(Ok(other)) if !self.filter.covers(&other) => continue,
                Some(Ok(News::Document(first))) => match documents::queued(first, &mut news, |other| self.filter.covers(other)) {
                    Some(queued) => match Box::pin(self.admitted(queued, &draining)).await {
                        admitted if admitted.is_empty() => continue,
                        admitted => admitted,
                    },
                    None => self.filter.everything(),
                },
                Some(Ok(news)) => vec![news],
                Some(Err(RecvError::Lagged(_))) => self.filter.everything(),
                Some(Err(RecvError::Closed)) => return,
                None => Vec::new(),
            };
            if !self.surface.is_good(&self.caller.token).await {
                let rejected = Rejected::Invalid { why: "it was revoked, or has expired".to_owned() };
                drop(self.frames.send(Frame::Last(Err(rejected.into()))).await);
                return;
            }
            for news in &told {
                if !self.tell(news).await {
                    return;
                }
            }
        }
    }

    async fn admitted(&self, queued: Vec<News>, draining: &CancellationToken) -> Vec<News> {
        let is_over = || self.frames.is_closed() || draining.is_cancelled();
        documents::admitted(&*self.offering, &self.caller, queued, |news| self.filter.wants(news), is_over).await
    }

    /// Sends one notification; false when nobody reads any more.
    async fn tell(&self, news: &News) -> bool {
        let (method, mut params) = match (change(news), news) {
            (Some(change), _) => change,
            (None, News::Deferred(id)) => match self.offering.deferred(&self.caller, id).await {
                Ok(task) => ("notifications/tasks", serde_json::from_str(task.get()).unwrap_or_default()),
                Err(_) => return true,
            },
            (None, News::Tools | News::Prompts | News::Resources | News::Resource(_) | News::Document(_)) => return true,
        };
        documents::add_meta(&mut params, SUBSCRIPTION_ID, &self.id);
        self.frames.send(Frame::Message(answer::notification(method, params))).await.is_ok()
    }
}

impl Mcp {
    /// Opens a stream of what the client asked to be told of.
    pub(super) async fn listen(
        &self,
        caller: Caller,
        wanted: Option<&RawValue>,
        id: &RawValue,
        capabilities: &str,
    ) -> Result<Reply, Fault> {
        let wanted = wanted.filter(|raw| envelope::is_object(raw)).map(RawValue::get).unwrap_or("{}");
        let mut filter: Filter =
            serde_json::from_str(wanted).map_err(|error| Fault::InvalidParams { why: format!("`notifications`: {error}").into() })?;
        if filter.resource_subscriptions.len() + filter.task_ids.len() > LISTENED_MAX {
            return Err(Fault::InvalidParams { why: format!("more than {LISTENED_MAX} resources and tasks").into() });
        }
        if !filter.task_ids.is_empty() && !declares(capabilities, &["extensions", TASKS]) {
            return Err(Fault::CapabilityMissing { required: json!({"extensions": {TASKS: {}}}).to_string() });
        }
        let news = self.desk.offering.news(&caller).await?;
        filter.resource_subscriptions.retain(|uri| self.desk.offering.has_resource(&caller, uri));
        filter.globs = documents::globs(&filter.resource_subscriptions);
        documents::check_globs(filter.globs.len())?;
        let mut known = BTreeSet::new();
        for id in std::mem::take(&mut filter.task_ids) {
            if self.desk.offering.deferred(&caller, &id).await.is_ok() {
                known.insert(id);
            }
        }
        filter.task_ids = known;
        let (frames, source) = mpsc::channel(FRAMES_MAX);
        let acknowledged =
            Map::from_iter([("_meta".to_owned(), json!({SUBSCRIPTION_ID: id})), ("notifications".to_owned(), filter.shown())]);
        let head = super::stream::event(&answer::notification("notifications/subscriptions/acknowledged", acknowledged));
        let listener = Listener {
            surface: Arc::clone(&self.surface),
            offering: Arc::clone(&self.desk.offering),
            caller,
            filter,
            id: id.to_owned(),
            texts: Arc::clone(&self.desk.texts),
            frames,
        };
        tokio::spawn(listener.run(news, self.draining.clone()));
        let id = id.to_owned();
        Ok(Reply::events(Box::new(Frames::new(Some(head), source, Some(id), Era::Modern))))
    }

    /// Sees to it that a session is told on its own stream what changes from now on.
    pub(super) async fn keep_told(&self, caller: &Caller, live: &Arc<Live>) -> Result<(), Fault> {
        let news = self.desk.offering.news(caller).await?;
        live.admitted(&caller.token);
        if live.take_telling() {
            let teller = Teller {
                surface: Arc::clone(&self.surface),
                offering: Arc::clone(&self.desk.offering),
                live: Arc::downgrade(live),
                project: caller.project,
                trace: caller.trace.as_str().into(),
                draining: self.draining.clone(),
            };
            tokio::spawn(teller.run(news));
        }
        Ok(())
    }
}

/// Returns when to look at the credential of a stream.
fn looks() -> Interval {
    let mut looks = tokio::time::interval(Duration::from_millis(LOOK_MS));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.reset();
    looks
}

/// Tells a session what changes. With its credential only the stream ends: what is told meanwhile waits for who comes back with a good one.
struct Teller {
    surface: Arc<dyn Surface>,
    offering: Arc<dyn Offering>,
    live: Weak<Live>,
    project: ProjectId,
    /// Of the request that began it.
    trace: Arc<str>,
    draining: CancellationToken,
}

impl Teller {
    async fn run(self, mut news: broadcast::Receiver<News>) {
        let mut look = looks();
        loop {
            let heard = tokio::select! {
                heard = news.recv() => Some(heard),
                _ = look.tick() => None,
                () = self.draining.cancelled() => {
                    if let Some(live) = self.live.upgrade() {
                        live.detach(STANDALONE);
                    }
                    return;
                }
            };
            let Some(live) = self.live.upgrade().filter(|live| !live.is_ended()) else { return };
            if let Some(token) = live.credential()
                && !self.surface.is_good(&token).await
            {
                live.dismiss(&token);
            }
            match heard {
                Some(Ok(News::Document(first))) if live.wants(&first).is_some() => {
                    match documents::queued(first, &mut news, |other| is_wanted(&live, other)) {
                        Some(queued) => Box::pin(self.admitted(&live, queued)).await.iter().for_each(|news| push(&live, news)),
                        None => everything(&live),
                    }
                }
                Some(Ok(news)) => push(&live, &news),
                Some(Err(RecvError::Lagged(_))) => everything(&live),
                Some(Err(RecvError::Closed)) => return,
                None => {}
            }
        }
    }

    /// Returns what of the news the session may hear, as whom it speaks now.
    async fn admitted(&self, live: &Arc<Live>, queued: Vec<News>) -> Vec<News> {
        let Some(token) = live.credential() else { return Vec::new() };
        let caller = Caller { token, project: self.project, handle: live.handle(), trace: self.trace.to_string() };
        // A session that was let go lives here only.
        let is_over = || live.is_ended() || Arc::strong_count(live) == 1 || self.draining.is_cancelled();
        documents::admitted(&*self.offering, &caller, queued, |news| live.wants(news), is_over).await
    }
}

/// Tells a session that everything it wants to hear of may have changed.
pub(super) fn everything(live: &Live) {
    let resources = live.notes().uris.into_iter().map(|uri| News::Resource(uri.into()));
    for news in [News::Tools, News::Prompts, News::Resources].into_iter().chain(resources) {
        push(live, &news);
    }
}

/// Returns whether a session is to be told some news, where they are of a document as far as it may read that.
fn is_wanted(live: &Live, news: &News) -> bool {
    match news {
        News::Resource(uri) => live.is_subscribed(uri),
        News::Document(news) => live.wants(news).is_some(),
        News::Tools | News::Prompts | News::Resources => true,
        News::Deferred(_) => false,
    }
}

fn push(live: &Live, news: &News) {
    match news {
        _ if !is_wanted(live, news) => {}
        News::Document(news) => {
            live.tell_of(news, |news, patch| answer::notification(UPDATED, documents::told(news, patch)));
        }
        News::Tools | News::Prompts | News::Resources | News::Resource(_) | News::Deferred(_) => {
            if let Some((method, params)) = change(news) {
                live.tell(&answer::notification(method, params));
            }
        }
    }
}
