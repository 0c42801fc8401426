//! MCP over streamable HTTP: 2026-07-28 (stateless) and the sessions of 2025-11-25, 2025-06-18, 2025-03-26 on one endpoint.
//!
//! Owns the protocol: envelope, eras, header checks, sessions, the form of answers. Must not know HTTP libraries, nor what the
//! tools do. Every answer is plain JSON: nothing streams yet.
//!
//! **Invariants:** the credential is checked before the body is read; each refusal is a [`Fault`]; a request acts at most
//! once for each time it is sent, and only after every check of its form.

mod answer;
mod envelope;
mod errors;
mod headers;
mod legacy;
mod modern;
mod session;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pointsman_core::time::TimeMs;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

pub use self::errors::{Era, Fault};
pub use self::session::{SESSION_AGE_MS_MAX, SESSIONS_REMEMBERED_MAX, SealingKey};

use self::envelope::{Malformed, Message, Params};
use self::session::{Session, Sessions};
use crate::ports::clock::System;
use crate::ports::endpoint::{Endpoint, Exchange, Field, Fields, Method, Reply};
use crate::ports::surface::{Caller, Surface, ToolAnswer};

/// The stateless revision.
pub const MODERN_VERSION: &str = "2026-07-28";
/// The revisions with sessions, newest first.
pub const LEGACY_VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// Milliseconds a client may keep the tool list: new plugins show up within this time.
pub const TOOLS_TTL_MS: u64 = 60_000;
/// Milliseconds a client may keep the discovery: it changes with the host's version only.
pub const DISCOVER_TTL_MS: u64 = 3_600_000;

/// What the endpoint needs besides the surface.
pub struct McpConfig {
    /// The server's name for clients.
    pub server_name: &'static str,
    /// The server's version for clients.
    pub server_version: &'static str,
    /// Seals new session ids.
    pub sealing_key: SealingKey,
    /// Open older session ids.
    pub older_keys: Vec<SealingKey>,
    /// Randomness for nonces.
    pub system: Arc<dyn System>,
    /// The store's clock, for the age of sessions.
    pub now: Arc<dyn Fn() -> TimeMs + Send + Sync>,
    /// Cancelled when the host drains: long polls end at once then.
    pub draining: CancellationToken,
}

/// The MCP endpoint.
pub struct Mcp {
    surface: Arc<dyn Surface>,
    sessions: Sessions,
    now: Arc<dyn Fn() -> TimeMs + Send + Sync>,
    draining: CancellationToken,
    texts: answer::Texts,
    no_arguments: Box<RawValue>,
}

impl Mcp {
    /// Returns the endpoint over a surface.
    #[must_use]
    pub fn new(surface: Arc<dyn Surface>, config: McpConfig) -> Self {
        let texts = answer::Texts::new(config.server_name, config.server_version, surface.instructions());
        let no_arguments = RawValue::from_string("{}".to_owned()).expect("`{}` is JSON");
        let sessions = Sessions::new(&config.sealing_key, &config.older_keys, config.system);
        Self { surface, sessions, now: config.now, draining: config.draining, texts, no_arguments }
    }

    async fn admit(&self, fields: &dyn Fields, slug: Option<&str>, trace: &str) -> Result<Caller, Fault> {
        let bearer = headers::bearer(fields)?;
        Ok(self.surface.admit(bearer, slug, trace.to_owned()).await?)
    }

    async fn post(&self, exchange: Exchange<'_>) -> Reply {
        let era = era_of(exchange.fields, None);
        let read = async {
            headers::check_media(exchange.fields)?;
            let caller = self.admit(exchange.fields, exchange.slug, exchange.trace).await?;
            Ok::<_, Fault>((caller, exchange.body.read_all().await?))
        };
        let (caller, body) = match read.await {
            Ok(read) => read,
            Err(fault) => return fault.reply(None, era),
        };
        let text = match std::str::from_utf8(&body) {
            Ok(text) => text,
            Err(_) => return Fault::NotJson { why: "it is not UTF-8".to_owned() }.reply(None, era),
        };
        if envelope::is_batch(text) {
            return self.post_batch(exchange.fields, caller, text).await;
        }
        match envelope::message(text) {
            Ok(Message::Request { id, method, params }) => self.post_request(exchange.fields, caller, id, &method, params).await,
            Ok(Message::Notification { params }) => self.post_notification(exchange.fields, &caller, params),
            Ok(Message::Response) => self.post_response(exchange.fields, &caller),
            Err(Malformed { id, fault }) => fault.reply(id, era),
        }
    }

    async fn post_request(&self, fields: &dyn Fields, mut caller: Caller, id: &RawValue, method: &str, params: Option<&RawValue>) -> Reply {
        let read = envelope::params(params).and_then(|params| params.meta().map(|meta| (params, meta)));
        let (params, meta) = match read {
            Ok(read) => read,
            Err(fault) => return fault.reply(Some(id), era_of(fields, None)),
        };
        let era = era_of(fields, meta.protocol_version);
        let answered = match era {
            Era::Modern => match modern::check(fields, method, &params, &meta) {
                Ok(call) => self.modern(&caller, call, &params, id).await.map(json),
                Err(fault) => Err(fault),
            },
            Era::Legacy if method == "initialize" => self.initialize(fields, &caller, &params, id),
            Era::Legacy => match self.session(fields, &caller) {
                Ok(session) => {
                    caller.handle = self.sessions.handle(&session.key);
                    self.legacy(&caller, session, method, &params, id).await.map(json)
                }
                Err(fault) => Err(fault),
            },
        };
        answered.unwrap_or_else(|fault| {
            if let Fault::Internal { trace } = &fault {
                tracing::error!(%trace, method, "a call failed inside the host");
            }
            fault.reply(Some(id), era)
        })
    }

    /// No notification asks anything of us yet: an ended wait is noticed by its closed connection.
    fn post_notification(&self, fields: &dyn Fields, caller: &Caller, params: Option<&RawValue>) -> Reply {
        let read = envelope::params(params).and_then(|params| params.meta().map(|meta| meta.protocol_version.is_some()));
        let era = match read {
            Ok(true) => Era::Modern,
            Ok(false) => era_of(fields, None),
            Err(fault) => return fault.reply(None, Era::Modern),
        };
        match era {
            Era::Modern => accepted(),
            Era::Legacy => self.session(fields, caller).map_or_else(|fault| fault.reply(None, era), |_| accepted()),
        }
    }

    fn post_response(&self, fields: &dyn Fields, caller: &Caller) -> Reply {
        let era = era_of(fields, None);
        match era {
            Era::Modern => Fault::NotAMessage { why: "clients send requests and notifications, not responses".into() }.reply(None, era),
            Era::Legacy => self.session(fields, caller).map_or_else(|fault| fault.reply(None, era), |_| accepted()),
        }
    }

    async fn delete(&self, exchange: Exchange<'_>) -> Reply {
        if era_of(exchange.fields, None) == Era::Modern {
            return Fault::MethodNotAllowed.reply(None, Era::Modern);
        }
        let ended = async {
            let caller = self.admit(exchange.fields, exchange.slug, exchange.trace).await?;
            let session = self.session(exchange.fields, &caller)?;
            self.sessions.end(session.key);
            Ok::<_, Fault>(Reply { status: 204, content_type: None, fields: Vec::new(), body: Bytes::new() })
        };
        ended.await.unwrap_or_else(|fault| fault.reply(None, Era::Legacy))
    }

    /// Calls a tool; a wait ends early when the host drains.
    async fn call_tool(&self, caller: &Caller, params: &Params<'_>) -> Result<ToolAnswer, Fault> {
        let name = params.name.and_then(envelope::string).ok_or(Fault::InvalidParams { why: "`name` is not a string".into() })?;
        let arguments = match params.arguments {
            Some(raw) if envelope::is_object(raw) => raw,
            Some(raw) if raw.get() != "null" => return Err(Fault::InvalidParams { why: "`arguments` is not an object".into() }),
            Some(_) | None => &self.no_arguments,
        };
        let call = self.surface.call(caller, &name, arguments);
        if !self.surface.waits(&name) {
            return Ok(call.await?);
        }
        tokio::select! {
            biased;
            answer = call => Ok(answer?),
            () = self.draining.cancelled() => Ok(answer::drained()),
        }
    }
}

#[async_trait]
impl Endpoint for Mcp {
    async fn serve(&self, exchange: Exchange<'_>) -> Reply {
        match exchange.method {
            Method::Post => self.post(exchange).await,
            Method::Delete => self.delete(exchange).await,
            Method::Get | Method::Other => Fault::MethodNotAllowed.reply(None, Era::Modern),
        }
    }
}

/// Returns the era of a request: modern when `_meta` names a revision or the header names one from 2026-07-28 on.
fn era_of(fields: &dyn Fields, meta_version: Option<&RawValue>) -> Era {
    let modern_header = match fields.field(headers::PROTOCOL_VERSION) {
        Field::Absent => false,
        Field::One(version) => version >= MODERN_VERSION.as_bytes(),
        Field::Repeated => true,
    };
    if modern_header || meta_version.is_some() { Era::Modern } else { Era::Legacy }
}

fn json(body: Vec<u8>) -> Reply {
    Reply { status: 200, content_type: Some("application/json"), fields: Vec::new(), body: Bytes::from(body) }
}

fn accepted() -> Reply {
    Reply { status: 202, content_type: None, fields: Vec::new(), body: Bytes::new() }
}
