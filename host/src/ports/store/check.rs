//! Whether a commit can be taken at all, before anyone waits for it.

use pointsman_core::event::NewEvent;
use serde_json::Value;

use super::{COMMIT_BYTES_MAX, Commit, DueChange, Idempotency, KEY_BYTES_MAX, StoreError};

/// Arrays and objects within each other in an event's data. Readers of the stored form give up far beyond this.
const EVENT_DEPTH_MAX: usize = 128;
/// What one number, bool or null counts.
const SCALAR_BYTES: usize = 8;

fn refused(why: String) -> StoreError {
    StoreError::Refused { why }
}

/// Checks the form of a key and returns its bytes.
fn key(what: &str, key: &str) -> Result<usize, StoreError> {
    if key.is_empty() {
        return Err(refused(format!("{what} is empty")));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(refused(format!("{what} has {} bytes, at most {KEY_BYTES_MAX} are allowed", key.len())));
    }
    if key.chars().any(char::is_control) {
        return Err(refused(format!("{what} {key:?} has a control character")));
    }
    Ok(key.len())
}

fn call(call: &Idempotency) -> Result<usize, StoreError> {
    let names = key("the idempotency record's principal", &call.principal)?
        + key("the idempotency record's operation", &call.operation)?
        + key("the idempotency key", &call.key)?;
    Ok(names + call.request_digest.len() + call.response.len())
}

fn json(value: &Value, depth: usize) -> Result<usize, StoreError> {
    if depth > EVENT_DEPTH_MAX {
        return Err(refused(format!("an event's data is nested more than {EVENT_DEPTH_MAX} deep")));
    }
    Ok(match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR_BYTES,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| json(item, depth + 1)).sum::<Result<usize, _>>()?,
        Value::Object(fields) => fields.iter().map(|(name, field)| Ok(name.len() + json(field, depth + 1)?)).sum::<Result<usize, _>>()?,
    })
}

fn event(event: &NewEvent) -> Result<usize, StoreError> {
    let texts = [Some(&event.kind), Some(&event.subject), Some(&event.actor.name), event.causation.as_ref(), event.trace.as_ref()];
    Ok(texts.into_iter().flatten().map(String::len).sum::<usize>() + json(&event.data, 0)?)
}

/// Returns the bytes of a commit that can be taken.
///
/// # Errors
/// `Refused`, with what is wrong.
pub fn bytes(commit: &Commit) -> Result<usize, StoreError> {
    let mut bytes = 0;
    for fence in commit.fences.iter().chain(&commit.raise) {
        bytes += key("a fence's key", &fence.key)?;
    }
    for (name, _) in &commit.expects {
        bytes += key("an expected value's key", name)?;
    }
    for (name, value) in &commit.puts {
        bytes += key("a value's key", name)? + value.len();
    }
    for name in &commit.deletes {
        bytes += key("a removed value's key", name)?;
    }
    for change in &commit.due {
        let (DueChange::Set { name, .. } | DueChange::Clear { name }) = change;
        bytes += key("a due entry's name", name)?;
    }
    if commit.project.is_none() && !commit.due.is_empty() {
        return Err(refused("due entries belong to a project".to_owned()));
    }
    if let Some(record) = &commit.idempotency {
        bytes += call(record)?;
    }
    for new in &commit.events {
        bytes += event(new)?;
    }
    if bytes > COMMIT_BYTES_MAX {
        return Err(refused(format!("it has {bytes} bytes, at most {COMMIT_BYTES_MAX} are allowed")));
    }
    Ok(bytes)
}
