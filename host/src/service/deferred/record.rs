//! A deferred call as it is stored: how it stands, what it is woken for, what its client sees.
//!
//! Pure: no store, no clock. **Invariants:** an end is final; answers stay until a round took them; a key that a request was
//! shown under never stands for another one.

use pointsman_core::ids::PrincipalId;
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::ports::asking::{self, NotAsked};
use crate::ports::provider::{ProviderCall, ProviderOutcome, wake_after_ms};
use crate::service::provided::Trouble;

/// Milliseconds from its making after which a call is dropped, and failed if it is not done.
const TTL_MS: u64 = 24 * 60 * 60 * 1_000;
/// Milliseconds for which a call that was failed then is kept.
const EXPIRED_KEPT_MS: u64 = 60 * 60 * 1_000;
/// Milliseconds a client is asked to let pass between two looks.
const POLL_MS: u64 = 500;
/// Failures of the component itself, without a success between them, after which a call is failed.
const FAILURES_MAX: u32 = 3;
/// Milliseconds before a call whose component failed, or had no turn, is woken again.
const RETRY_MS: u64 = 2_000;

/// JSON-RPC, and MCP 2026-07-28 (base protocol, errors).
const INVALID_PARAMS: i32 = -32602;
const INTERNAL_ERROR: i32 = -32603;
const CAPABILITY_MISSING: i32 = -32021;

/// How a call stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    Working,
    InputRequired {
        requests: String,
        answers: String,
    },
    Completed {
        result: String,
    },
    Failed {
        code: i32,
        message: String,
        #[serde(default)]
        data: Option<String>,
    },
    Cancelled,
}

impl Standing {
    fn name(&self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired { .. } => "input_required",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self::Failed { code: INTERNAL_ERROR, message: message.into(), data: None }
    }

    fn undeclared(required: &str) -> Self {
        let data = format!(r#"{{"requiredCapabilities":{required}}}"#);
        Self::Failed { code: CAPABILITY_MISSING, message: "Missing required client capability".to_owned(), data: Some(data) }
    }
}

/// A call that goes on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deferred {
    pub(super) id: String,
    pub(super) principal: PrincipalId,
    pub(super) principal_name: String,
    pub(super) agent: String,
    pub(super) call: ProviderCall,
    pub(super) call_id: String,
    pub(super) client_capabilities: String,
    pub(super) state: Vec<u8>,
    /// What the client answered, for the next round.
    pub(super) answers: String,
    pub(super) standing: Standing,
    pub(super) failures: u32,
    /// How often the client was asked something.
    #[serde(default)]
    pub(super) asked: u32,
    pub(super) created_at: TimeMs,
    pub(super) updated_at: TimeMs,
}

impl Stored for Deferred {
    const NAME: &'static str = "deferred call";
}

/// What a client's answers did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nobody asked.
    Nothing,
    /// More is to be answered.
    Partly,
    /// The call goes on.
    Wholly,
}

fn parsed<T: serde::de::DeserializeOwned + Default>(json: &str) -> T {
    serde_json::from_str(json).unwrap_or_default()
}

impl Deferred {
    /// Returns the call as a `DetailedTask`.
    pub(super) fn shown(&self) -> Box<RawValue> {
        let mut shown = json!({
            "taskId": self.id,
            "status": self.standing.name(),
            "createdAt": self.created_at.to_rfc3339(),
            "lastUpdatedAt": self.updated_at.to_rfc3339(),
            "ttlMs": TTL_MS,
            "pollIntervalMs": POLL_MS,
        });
        match &self.standing {
            Standing::Working | Standing::Cancelled => {}
            Standing::InputRequired { requests, answers } => {
                let (open, given) = (parsed::<Map<String, Value>>(requests), parsed::<Map<String, Value>>(answers));
                let open = open.into_iter().filter(|(key, _)| !given.contains_key(key));
                shown["inputRequests"] = open.map(|(key, request)| (format!("{}{key}", self.prefix()), request)).collect();
            }
            Standing::Completed { result } => shown["result"] = parsed(result),
            Standing::Failed { code, message, data } => {
                shown["error"] = json!({"code": code, "message": message});
                if let Some(data) = data {
                    shown["error"]["data"] = parsed(data);
                }
            }
        }
        serde_json::value::to_raw_value(&shown).expect("a value is JSON")
    }

    /// Request keys are unique over a task's lifetime (tasks, input requests); a component's are so in one round.
    fn prefix(&self) -> String {
        format!("{}.", self.asked)
    }

    /// Returns whether nothing more comes of it.
    pub(super) fn is_end(&self) -> bool {
        matches!(self.standing, Standing::Completed { .. } | Standing::Failed { .. } | Standing::Cancelled)
    }

    /// Returns from when on it may go on no more.
    pub(super) fn ends_at(&self) -> TimeMs {
        self.created_at + TTL_MS
    }

    /// Returns until when it is kept, should nothing happen to it any more.
    pub(super) fn kept_until(&self) -> TimeMs {
        let ends_at = self.ends_at();
        if self.is_end() && self.updated_at >= ends_at { self.updated_at + EXPIRED_KEPT_MS } else { ends_at }
    }

    /// Returns when it is due again, so many milliseconds from now or at its end.
    pub(super) fn due_in(&self, ms: u64, now: TimeMs) -> TimeMs {
        (now + ms).min(self.ends_at())
    }

    /// Takes a client's answers, by the keys that it was shown; those that nobody asked for are passed over.
    pub(super) fn answer(&mut self, given: &Map<String, Value>, now: TimeMs) -> Answered {
        let prefix = self.prefix();
        let Standing::InputRequired { requests, answers } = &mut self.standing else { return Answered::Nothing };
        let asked: Map<String, Value> = parsed(requests);
        let mut all: Map<String, Value> = parsed(answers);
        let given = given.iter().filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?, value)));
        all.extend(given.filter(|(key, _)| asked.contains_key(*key)).map(|(key, value)| (key.to_owned(), value.clone())));
        let is_whole = asked.keys().all(|key| all.contains_key(key));
        *answers = Value::Object(all).to_string();
        self.updated_at = now;
        if !is_whole {
            return Answered::Partly;
        }
        self.answers = std::mem::take(answers);
        self.standing = Standing::Working;
        Answered::Wholly
    }

    /// Ends it by the client's wish; false when it has ended.
    pub(super) fn cancel(&mut self, now: TimeMs) -> bool {
        if self.is_end() {
            return false;
        }
        self.standing = Standing::Cancelled;
        self.updated_at = now;
        true
    }

    /// Ends it because its time is over.
    pub(super) fn expire(&mut self, now: TimeMs) {
        self.standing = Standing::failed("expired");
        self.updated_at = now;
    }

    /// Takes what a round came to; returns when the call is due again.
    pub(super) fn settle(&mut self, outcome: Result<ProviderOutcome, Trouble>, now: TimeMs) -> TimeMs {
        self.updated_at = now;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(Trouble::Busy | Trouble::Resting(_)) => return self.due_in(RETRY_MS, now),
            Err(trouble @ Trouble::Failed(_)) => {
                self.failures += 1;
                tracing::warn!(task = %self.id, %trouble, failures = self.failures, "a deferred call's component failed");
                if self.failures < FAILURES_MAX {
                    return self.due_in(RETRY_MS, now);
                }
                self.standing = Standing::failed(format!("the component failed {FAILURES_MAX} times"));
                return self.kept_until();
            }
            Err(trouble @ Trouble::Broken(_)) => {
                tracing::error!(task = %self.id, %trouble, "a deferred call's component breaks what it promised");
                self.standing = Standing::failed("the component made a mistake; the host's log has the details under the task's id");
                return self.kept_until();
            }
        };
        self.failures = 0;
        "{}".clone_into(&mut self.answers);
        self.standing = match outcome {
            ProviderOutcome::Pending { state, wake_ms } => {
                self.state = state;
                return self.due_in(wake_after_ms(wake_ms), now);
            }
            ProviderOutcome::InputRequired { requests, state } => match asking::check(&requests, &self.client_capabilities) {
                Ok(()) => {
                    self.state = state;
                    self.asked += 1;
                    Standing::InputRequired { requests, answers: "{}".to_owned() }
                }
                Err(NotAsked::Undeclared(required)) => Standing::undeclared(&required),
                Err(NotAsked::Malformed(why)) => return self.settle(Err(Trouble::Broken(why)), now),
            },
            ProviderOutcome::Complete(result) => Standing::Completed { result },
            ProviderOutcome::MissingCapability(required) => Standing::undeclared(&required),
            ProviderOutcome::ProtocolError { message, .. } => Standing::Failed { code: INVALID_PARAMS, message, data: None },
        };
        self.kept_until()
    }
}

#[cfg(test)]
mod tests;
