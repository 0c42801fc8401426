//! An agent of the demo: an MCP client with a token of its own, that goes on when the host dies under it.

use std::time::Duration;

use pointsman_client::{CallError, Client, Era};
use serde_json::{Value, json};

use super::DemoError;

/// Tries of a call while the host is away.
const TRIES_MAX: u32 = 100;
/// Milliseconds between them.
const TRY_AGAIN_MS: u64 = 100;
/// Polls before a state that should come is given up.
const POLLS_MAX: u32 = 60;

/// An agent.
pub(super) struct Actor {
    pub(super) name: &'static str,
    client: Client,
    cursor: parking_lot::Mutex<Option<String>>,
}

/// A message as handed out.
#[derive(Debug, Clone)]
pub(super) struct Mail {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) subject: String,
    pub(super) body: Value,
    pub(super) attempt: u64,
}

impl Actor {
    /// Connects and starts.
    pub(super) async fn start(name: &'static str, url: &str, token: &str, era: Era, capabilities: &[&str]) -> Result<Self, DemoError> {
        let unexpected = |what: String| DemoError::Unexpected { who: name.to_owned(), what };
        let client = Client::new(&format!("{url}/mcp"), token, era).map_err(|error| unexpected(error.to_string()))?;
        client.connect().await.map_err(|error| unexpected(error.to_string()))?;
        let actor = Self { name, client, cursor: parking_lot::Mutex::new(None) };
        let started = actor.call("start", json!({"name": name, "capabilities": capabilities})).await?;
        *actor.cursor.lock() = started["result"]["cursor"].as_str().map(str::to_owned);
        Ok(actor)
    }

    fn unexpected(&self, what: impl Into<String>) -> DemoError {
        DemoError::Unexpected { who: self.name.to_owned(), what: what.into() }
    }

    /// Calls a tool; a host that is away is waited for. Every call of the demo may be repeated: by key, or by nature.
    pub(super) async fn try_call(&self, tool: &str, arguments: &Value) -> Result<Value, CallError> {
        let mut tries = 0;
        loop {
            match self.client.call(tool, arguments.clone()).await {
                Err(CallError::Transport(error)) if tries < TRIES_MAX => {
                    tries += 1;
                    tracing::debug!(%error, tool, "the host is away");
                    tokio::time::sleep(Duration::from_millis(TRY_AGAIN_MS)).await;
                }
                other => return other,
            }
        }
    }

    /// Calls a tool that must succeed.
    pub(super) async fn call(&self, tool: &str, arguments: Value) -> Result<Value, DemoError> {
        self.try_call(tool, &arguments).await.map_err(|error| self.unexpected(format!("{tool}: {error}")))
    }

    /// Calls a tool that must be refused; returns the code and the reason.
    pub(super) async fn refused(&self, tool: &str, arguments: Value) -> Result<(String, String), DemoError> {
        match self.try_call(tool, &arguments).await {
            Err(CallError::Tool { code, why, .. }) => Ok((code, why)),
            Err(other) => Err(self.unexpected(format!("{tool}: {other}"))),
            Ok(answer) => Err(self.unexpected(format!("{tool} was to be refused, but: {answer}"))),
        }
    }

    /// Reads something.
    pub(super) async fn lookup(&self, uri: &str) -> Result<Value, DemoError> {
        Ok(self.call("lookup", json!({"uri": uri})).await?["result"].clone())
    }

    /// Waits once; acks and nacks go with it.
    pub(super) async fn wait(
        &self,
        ack: &[String],
        nack: &[Value],
        max_s: u64,
        watch: &[&str],
    ) -> Result<(Vec<Mail>, Vec<Value>), DemoError> {
        let mut arguments = json!({"ack": ack, "nack": nack, "max_s": max_s, "watch": watch});
        if let Some(cursor) = self.cursor.lock().clone() {
            arguments["after"] = cursor.into();
        }
        let answer = self.call("wait_for_events", arguments).await?;
        let result = &answer["result"];
        if let Some(cursor) = result["cursor"].as_str() {
            *self.cursor.lock() = Some(cursor.to_owned());
        }
        let mail = result["messages"].as_array().cloned().unwrap_or_default();
        let text = |message: &Value, field: &str| message[field].as_str().unwrap_or_default().to_owned();
        let mail = mail.iter().map(|message| Mail {
            id: text(message, "id"),
            kind: text(message, "kind"),
            subject: text(message, "subject"),
            body: message["body"].clone(),
            attempt: message["attempt"].as_u64().unwrap_or(1),
        });
        Ok((mail.collect(), result["events"].as_array().cloned().unwrap_or_default()))
    }

    /// Waits for a message of a kind, acking all others on the way; the one found is acked too.
    pub(super) async fn mail(&self, kinds: &[&str]) -> Result<Mail, DemoError> {
        let mut done = Vec::new();
        for _ in 0..POLLS_MAX {
            let (mail, _) = self.wait(&std::mem::take(&mut done), &[], 5, &[]).await?;
            let found = mail.iter().find(|mail| kinds.contains(&mail.kind.as_str())).cloned();
            done.extend(mail.into_iter().map(|mail| mail.id));
            if let Some(found) = found {
                self.wait(&done, &[], 0, &[]).await?;
                return Ok(found);
            }
        }
        Err(self.unexpected(format!("no message of kind {} came", kinds.join(" or "))))
    }

    /// Acks everything that waits; returns the subjects.
    pub(super) async fn drain(&self) -> Result<Vec<Mail>, DemoError> {
        let mut all = Vec::new();
        let mut done = Vec::new();
        for _ in 0..POLLS_MAX {
            let (mail, _) = self.wait(&std::mem::take(&mut done), &[], 0, &[]).await?;
            if mail.is_empty() {
                return Ok(all);
            }
            done.extend(mail.iter().map(|mail| mail.id.clone()));
            all.extend(mail);
        }
        Err(self.unexpected("the inbox does not become empty"))
    }
}
