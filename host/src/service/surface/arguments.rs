//! The tools' arguments, read strictly: an unknown or mistyped field is named, and nothing happens.

use pointsman_core::ids::{MessageId, Oid, TaskId};
use pointsman_core::path_glob::PathGlob;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::service::failure::Failure;
use crate::service::merge_queue::ResolvedFile;
use crate::service::messaging::Nack;

/// Reads arguments.
///
/// # Errors
/// `bad_argument`, naming the field and where.
pub(super) fn read<T: DeserializeOwned>(tool: &str, arguments: &Value) -> Result<T, Failure> {
    T::deserialize(arguments).map_err(|error| {
        Failure::refused(
            "bad_argument",
            format!("the arguments of `{tool}` are wrong: {error}"),
            "Look at the tool's schema and call again.",
        )
    })
}

/// Takes the `agent` argument out of an arguments object.
///
/// # Errors
/// `bad_argument` when the arguments are not an object, or `agent` is no text.
pub(super) fn split(tool: &str, raw: &RawValue) -> Result<(Value, Option<String>), Failure> {
    let wrong = |why: String| Failure::refused("bad_argument", why, "Give the arguments as one JSON object.");
    let mut value: Value =
        serde_json::from_str(raw.get()).map_err(|error| wrong(format!("the arguments of `{tool}` cannot be read: {error}")))?;
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    let map = value.as_object_mut().ok_or_else(|| wrong(format!("the arguments of `{tool}` are not an object")))?;
    match map.remove("agent") {
        None | Some(Value::Null) => Ok((value, None)),
        Some(Value::String(agent)) => Ok((value, Some(agent))),
        Some(_) => Err(wrong("`agent` is not a text".to_owned())),
    }
}

/// Takes the `peek` argument out of those of `wait_for_events`: only look, on the agent's behalf. It is for wakers; no model needs it,
/// so no list shows it.
///
/// # Errors
/// `bad_argument` when it is neither true nor false.
pub(super) fn take_peek(arguments: &mut Value) -> Result<bool, Failure> {
    match arguments.as_object_mut().and_then(|map| map.remove("peek")) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(peek)) => Ok(peek),
        Some(_) => Err(Failure::refused("bad_argument", "`peek` is neither true nor false", "Leave it out, unless you only look.")),
    }
}

/// `wait_for_events`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitForEvents {
    #[serde(default)]
    pub(super) ack: Vec<MessageId>,
    #[serde(default)]
    pub(super) nack: Vec<Nack>,
    #[serde(default)]
    pub(super) max_s: Option<u64>,
    #[serde(default)]
    pub(super) after: Option<String>,
    #[serde(default)]
    pub(super) watch: Vec<String>,
}

/// `lookup`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lookup {
    #[serde(alias = "query")]
    pub(super) uri: String,
}

/// `claim_task`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimTask {
    pub(super) task: TaskId,
    #[serde(default)]
    pub(super) paths: Vec<PathGlob>,
}

/// `update_task`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateTask {
    pub(super) task: TaskId,
    #[serde(default)]
    pub(super) progress: Option<u8>,
    #[serde(default)]
    pub(super) note: Option<String>,
    #[serde(default)]
    pub(super) release: bool,
}

/// `submit_branch`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubmitBranch {
    pub(super) task: TaskId,
    #[serde(default)]
    pub(super) head: Option<Oid>,
}

/// A reviewer's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Approve,
    RequestChanges,
}

/// `review_branch`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReviewBranch {
    pub(super) task: TaskId,
    pub(super) verdict: Verdict,
    #[serde(default)]
    pub(super) head: Option<Oid>,
    #[serde(default)]
    pub(super) comment: String,
}

/// `resolve_conflict`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResolveConflict {
    pub(super) task: TaskId,
    pub(super) files: Vec<ResolvedFile>,
}

/// `commit_files`, as the service takes it.
pub(super) type CommitFiles = crate::service::commits::CommitFiles;
