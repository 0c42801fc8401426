//! What a resident agent answered, as parts of one commit.
//!
//! Owns: which action is valid, what each writes. Must not know: what woke the agent.
//!
//! **Invariant:** staging acts on nothing but the commit; one action that is not valid spoils the whole answer.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_core::ids::TaskId;
use pointsman_core::path_glob::PathGlob;
use pointsman_core::time::TimeMs;
use pointsman_core::value;
use serde_json::{Value, json};

use super::record::{
    ID_BYTES_MAX, KV_KEY_BYTES_MAX, Load, LoadKind, StoredOffers, Wake, WakeKind, fetch_due, kv_key, load_key, offers_key, timer_due,
    wake_key, wakes_prefix,
};
use super::requests::{granted_request, mark};
use super::standing;
use crate::ports::provider::Offers;
use crate::ports::resident::Action;
use crate::ports::store::{Commit, DueChange};
use crate::service::contexts::{WriteOutcome, WriteRequest};
use crate::service::failure::{Failure, Refusal};
use crate::service::kit::Acting;
use crate::service::messaging::SendRequest;
use crate::service::offers::Checked;
use crate::service::settings::ResidentBinding;
use crate::service::surface::Services;
use crate::service::tasks::{CreateTask, check_text};

/// Actions of one answer.
const ACTIONS_MAX: usize = 256;
/// Bytes of one value of an agent's memory.
const KV_BYTES_MAX: usize = 1 << 20;
/// Timers and requests of one agent in one project that wait.
const WAKES_MAX: usize = 1_000;
/// Milliseconds of the longest timer: a year.
const DELAY_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;
/// Resources announced as changed at once.
const UPDATED_MAX: usize = 100;

/// Who acts, and what it may.
pub(super) struct Ground<'a> {
    pub(super) services: &'a Services,
    pub(super) acting: &'a Acting,
    pub(super) binding: &'a ResidentBinding,
    /// Of its component.
    pub(super) digest: &'a str,
    /// Whether the operator lets it offer MCP here.
    pub(super) is_provider: bool,
}

/// Values and due entries that an answer changes; the last change of each counts.
#[derive(Default)]
pub(super) struct Changes {
    /// Values by key; none: removed.
    pub(super) values: BTreeMap<String, Option<Vec<u8>>>,
    /// Due entries by name; none: cleared.
    pub(super) due: BTreeMap<String, Option<TimeMs>>,
}

impl Changes {
    /// Puts the changes into a commit.
    pub(super) fn flush(self, commit: &mut Commit) {
        for (key, value) in self.values {
            match value {
                Some(bytes) => commit.puts.push((key, bytes)),
                None => commit.deletes.push(key),
            }
        }
        commit.due.extend(self.due.into_iter().map(|(name, at)| match at {
            Some(at) => DueChange::Set { name, at },
            None => DueChange::Clear { name },
        }));
    }

    fn wake(&mut self, due: String, wake: &Wake, load: Option<LoadKind>) {
        if let Some(key) = wake_key(&due) {
            if let Some(what) = load {
                let load = Load { event: wake.event.clone(), what };
                self.values.insert(load_key(&key), Some(value::encode(&load)));
            }
            self.values.insert(key, Some(value::encode(wake)));
            self.due.insert(due, Some(wake.at));
        }
    }
}

/// Adds the actions of an answer to a commit. Returns the offers, checked, to install when it is done.
///
/// # Errors
/// The first action that is not valid, by its position and name.
pub(super) async fn stage(
    ground: &Ground<'_>,
    commit: &mut Commit,
    changes: &mut Changes,
    actions: &[Action],
) -> Result<Option<Checked>, Failure> {
    if actions.len() > ACTIONS_MAX {
        let why = format!("the answer has {} actions, at most {ACTIONS_MAX} are taken", actions.len());
        return Err(Failure::refused("too_many", why, "Do the rest in a later event: set a timer."));
    }
    let mut staging = Staging { ground, commit, changes, once: BTreeSet::new(), offers: None, sets_wakes: false };
    for (at, action) in actions.iter().enumerate() {
        staging.stage(action).await.map_err(|failure| placed(failure, at, action))?;
    }
    let Staging { offers, sets_wakes, .. } = staging;
    if sets_wakes {
        check_wakes(ground, changes).await?;
    }
    if !actions.is_empty() {
        let names: Vec<&str> = actions.iter().map(name).collect();
        let data = json!({"plugin": ground.binding.plugin, "digest": ground.digest, "event": ground.acting.trace, "actions": names});
        let event = ground.acting.event("resident.acted", format!("plugin:{}", ground.binding.plugin), data);
        commit.events.push(event.caused_by(&ground.acting.trace));
    }
    Ok(offers)
}

/// Returns what an action is called in WIT.
fn name(action: &Action) -> &'static str {
    match action {
        Action::SendMessage { .. } => "send-message",
        Action::WriteContext { .. } => "write-context",
        Action::CreateTask { .. } => "create-task",
        Action::NoteTask { .. } => "note-task",
        Action::Put { .. } => "put",
        Action::Delete { .. } => "delete",
        Action::SetTimer { .. } => "set-timer",
        Action::CancelTimer { .. } => "cancel-timer",
        Action::Fetch { .. } => "fetch",
        Action::ReplaceOffers(_) => "replace-offers",
    }
}

/// Says of a refusal which action it is about.
fn placed(failure: Failure, at: usize, action: &Action) -> Failure {
    match failure {
        Failure::Refused(refusal) => {
            let why = format!("action {at} (`{}`): {}", name(action), refusal.why);
            Failure::Refused(Box::new(Refusal { why, ..*refusal }))
        }
        other @ (Failure::Unavailable { .. }
        | Failure::Damaged(_)
        | Failure::Repository(_)
        | Failure::Plugin(_)
        | Failure::Contended { .. }) => other,
    }
}

fn bad(why: impl Into<String>) -> Failure {
    Failure::refused("bad_argument", why, "Correct the action.")
}

fn check_id(what: &str, id: &str, bytes_max: usize) -> Result<(), Failure> {
    if id.is_empty() || id.len() > bytes_max || id.chars().any(char::is_control) {
        return Err(bad(format!("the {what} has {} bytes; it is 1 to {bytes_max} without control characters", id.len())));
    }
    Ok(())
}

/// Refuses an answer after which too many wake-ups would wait.
async fn check_wakes(ground: &Ground<'_>, changes: &Changes) -> Result<(), Failure> {
    let prefix = wakes_prefix(&ground.binding.plugin);
    let waiting = ground.services.kit.load_all::<Wake>(Some(ground.acting.project), &prefix, WAKES_MAX + 1).await?;
    let stay = waiting.iter().filter(|(key, _)| !changes.values.contains_key(key)).count();
    let set = changes.values.iter().filter(|(key, value)| key.starts_with(&prefix) && value.is_some()).count();
    if stay + set > WAKES_MAX {
        let why = format!("more than {WAKES_MAX} timers and requests would wait");
        return Err(Failure::refused("too_many", why, "Cancel some, or keep a list and one timer."));
    }
    Ok(())
}

struct Staging<'a, 'b> {
    ground: &'a Ground<'b>,
    commit: &'a mut Commit,
    changes: &'a mut Changes,
    /// Documents and requests that have their action, and the offers.
    once: BTreeSet<String>,
    offers: Option<Checked>,
    sets_wakes: bool,
}

impl Staging<'_, '_> {
    /// Refuses a second action about the same thing: it would be decided as if the first had not been.
    fn only(&mut self, thing: String) -> Result<(), Failure> {
        if self.once.contains(&thing) {
            return Err(bad(format!("{thing} has an action in this answer before")));
        }
        self.once.insert(thing);
        Ok(())
    }

    async fn stage(&mut self, action: &Action) -> Result<(), Failure> {
        let plugin = &self.ground.binding.plugin;
        match action {
            Action::SendMessage { to, kind, subject, body } => self.send(to, kind, subject, body).await,
            Action::WriteContext { key, base_version, media_type, bytes } => self.write(key, *base_version, media_type, bytes).await,
            Action::CreateTask { title, description, kind, priority, depends_on, paths } => {
                let request = CreateTask {
                    title: title.clone(),
                    description: description.clone(),
                    kind: (!kind.is_empty()).then(|| kind.clone()),
                    priority: Some(*priority),
                    depends_on: parsed::<TaskId, _>(depends_on)?,
                    paths: parsed::<PathGlob, _>(paths)?,
                    ..CreateTask::default()
                };
                self.ground.services.tasks.stage_create(self.commit, self.ground.acting, &request).await.map(drop)
            }
            Action::NoteTask { task, note } => self.note(task, note).await,
            Action::Put { key, bytes } => {
                check_id("key", key, KV_KEY_BYTES_MAX)?;
                if bytes.len() > KV_BYTES_MAX {
                    return Err(bad(format!("the value has {} bytes, at most {KV_BYTES_MAX} are kept", bytes.len())));
                }
                self.changes.values.insert(kv_key(plugin, key), Some(bytes.clone()));
                Ok(())
            }
            Action::Delete { key } => {
                check_id("key", key, KV_KEY_BYTES_MAX)?;
                self.changes.values.insert(kv_key(plugin, key), None);
                Ok(())
            }
            Action::SetTimer { id, delay_ms } => self.set_timer(id, *delay_ms),
            Action::CancelTimer { id } => {
                check_id("timer's id", id, ID_BYTES_MAX)?;
                let due = timer_due(plugin, id);
                self.changes.values.extend(wake_key(&due).map(|key| (key, None)));
                self.changes.due.insert(due, None);
                Ok(())
            }
            Action::Fetch { id, method, url, headers, body } => {
                check_id("request's id", id, ID_BYTES_MAX)?;
                self.only(format!("request `{id}`"))?;
                let mut request = granted_request(&self.ground.binding.fetch_hosts, method, url, headers, body)?;
                let acting = self.ground.acting;
                mark(&mut request, acting.project, acting.agent.id, id, &acting.trace);
                let (event, at) = (self.event_id("http", id), self.ground.services.kit.now());
                let wake = Wake { event, at, attempts: 0, what: WakeKind::Ask(id.clone()) };
                self.changes.wake(fetch_due(plugin, id), &wake, Some(LoadKind::Request(request)));
                self.sets_wakes = true;
                Ok(())
            }
            Action::ReplaceOffers(json) => self.replace_offers(json).await,
        }
    }

    /// Returns an id for a wake-up to come, which no other has.
    fn event_id(&self, kind: &str, id: &str) -> String {
        let random = data_encoding::HEXLOWER.encode(&self.ground.services.kit.system.id_bytes());
        format!("{kind}:{id}:{random}")
    }

    async fn send(&mut self, to: &[String], kind: &str, subject: &str, body: &str) -> Result<(), Failure> {
        let request = SendRequest {
            to: to.to_vec(),
            kind: (!kind.is_empty()).then(|| kind.to_owned()),
            subject: (!subject.is_empty()).then(|| subject.to_owned()),
            body: serde_json::from_str(body).unwrap_or_else(|_| Value::from(body)),
            ..SendRequest::default()
        };
        self.ground.services.messaging.stage_send(self.commit, self.ground.acting, &request).await.map(drop)
    }

    async fn write(&mut self, key: &str, base_version: u64, media_type: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.only(format!("document `{key}`"))?;
        let media_type = (!media_type.is_empty()).then(|| media_type.to_owned());
        let mut request = WriteRequest { key: key.to_owned(), base_version: Some(base_version), media_type, ..WriteRequest::default() };
        match std::str::from_utf8(bytes) {
            Ok(text) => request.text = Some(text.to_owned()),
            Err(_) => request.base64 = Some(data_encoding::BASE64.encode(bytes)),
        }
        match self.ground.services.contexts.stage_write(self.commit, self.ground.acting, &request).await? {
            WriteOutcome::Applied { .. } | WriteOutcome::Handed { .. } => Ok(()),
            WriteOutcome::Conflict { current_version, conflicts, .. } => {
                let why = format!("others wrote `{key}` since version {base_version}, and disagree in {} places", conflicts.len());
                Err(Failure::refused("conflict", why, format!("Read the document and write from version {current_version}.")))
            }
        }
    }

    /// Notes are events of the task, told to whoever holds it; the holder's own report stays as it is.
    async fn note(&mut self, task: &str, note: &str) -> Result<(), Failure> {
        check_text("note", note)?;
        let id = task.parse::<TaskId>().map_err(|error| bad(error.to_string()))?;
        self.ground.services.tasks.get(self.ground.acting.project, id).await?;
        self.commit.events.push(self.ground.acting.event("task.noted", id, json!({"note": note})));
        Ok(())
    }

    fn set_timer(&mut self, id: &str, delay_ms: u64) -> Result<(), Failure> {
        check_id("timer's id", id, ID_BYTES_MAX)?;
        if delay_ms > DELAY_MS_MAX {
            return Err(bad(format!("the delay is {delay_ms} ms, at most {DELAY_MS_MAX} are taken")));
        }
        let at = self.ground.services.kit.now() + delay_ms;
        let wake = Wake { event: self.event_id("timer", id), at, attempts: 0, what: WakeKind::Timer(id.to_owned()) };
        self.changes.wake(timer_due(&self.ground.binding.plugin, id), &wake, None);
        self.sets_wakes = true;
        Ok(())
    }

    async fn replace_offers(&mut self, json: &str) -> Result<(), Failure> {
        let plugin = self.ground.binding.plugin.as_str();
        if !self.ground.is_provider {
            let why = format!("`{plugin}` is not bound as a provider here");
            return Err(Failure::refused("not_granted", why, "Name it in a `[[provider]]`, and let it export `provider`."));
        }
        self.only("the offers".to_owned())?;
        let (offers, updated) = read_offers(json).map_err(|why| bad(format!("the offers cannot be read: {why}")))?;
        let project = self.ground.acting.project;
        let checked = standing::stage(self.ground.services, project, plugin, self.commit, offers.clone()).await?;
        let checked = checked.map_err(|why| bad(format!("the offers are not taken: {why}")))?;
        let counts = json!({
            "plugin": plugin, "digest": self.ground.digest, "tools": offers.tools.len(), "resources": offers.resources.len(),
            "templates": offers.templates.len(), "prompts": offers.prompts.len(), "updated": updated,
        });
        let stored = StoredOffers { digest: self.ground.digest.to_owned(), offers };
        self.changes.values.insert(offers_key(plugin), Some(value::encode(&stored)));
        self.commit.events.push(self.ground.acting.event("offers.replaced", format!("plugin:{plugin}"), counts));
        for uri in updated {
            self.commit.events.push(self.ground.acting.event("resource.updated", &uri, json!({"uri": uri, "plugin": plugin})));
        }
        self.offers = Some(checked);
        Ok(())
    }
}

fn parsed<T, E>(texts: &[String]) -> Result<Vec<T>, Failure>
where
    T: std::str::FromStr<Err = E>,
    E: std::fmt::Display,
{
    texts.iter().map(|text| text.parse().map_err(|error: E| bad(error.to_string()))).collect()
}

/// Reads the JSON form of offers: entries as objects or as their texts, and with them the resources that changed.
fn read_offers(json: &str) -> Result<(Offers, Vec<String>), String> {
    let mut value: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let Some(fields) = value.as_object_mut() else { return Err("they are no object".to_owned()) };
    let updated = fields.remove("updated").unwrap_or_else(|| json!([]));
    let updated: Vec<String> = serde_json::from_value(updated).map_err(|error| format!("`updated`: {error}"))?;
    if updated.len() > UPDATED_MAX {
        return Err(format!("`updated` names {} resources, at most {UPDATED_MAX} are taken", updated.len()));
    }
    for list in fields.values_mut().filter_map(Value::as_array_mut) {
        list.iter_mut().filter(|entry| entry.is_object()).for_each(|entry| *entry = Value::from(entry.to_string()));
    }
    let offers: Offers = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let lists = [&offers.tools, &offers.resources, &offers.templates, &offers.prompts];
    for text in lists.into_iter().flatten() {
        if !serde_json::from_str::<Value>(text).is_ok_and(|entry| entry.is_object()) {
            return Err(format!("`{}` is no JSON object", text.chars().take(60).collect::<String>()));
        }
    }
    Ok((offers, updated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_read_in_both_forms() {
        let json = r#"{"namespace": "a", "tools": [{"name": "x"}, "{\"name\":\"y\"}"], "updated": ["test://1"]}"#;
        let (offers, updated) = read_offers(json).expect("they are read");
        assert_eq!(offers.tools, [r#"{"name":"x"}"#, r#"{"name":"y"}"#]);
        assert_eq!((offers.namespace.as_str(), updated.as_slice()), ("a", ["test://1".to_owned()].as_slice()));
        for bad in ["[]", "{\"tool\": []}", "{\"tools\": [1]}", "{\"tools\": [\"x\"]}", "{\"updated\": 1}", "{"] {
            assert!(read_offers(bad).is_err(), "{bad}");
        }
    }
}
