//! MCP over streamable HTTP: 2026-07-28 (stateless) and the sessions of 2025-11-25, 2025-06-18, 2025-03-26 on one endpoint.
//!
//! Owns the protocol: envelope, eras, header checks, sessions, streams, the form of answers. Must not know HTTP libraries, nor
//! what the tools do. An answer is plain JSON unless there is something to tell before it.
//!
//! **Invariants:** the credential is checked before the body is read; each refusal is a [`Fault`]; a request acts at most
//! once for each time it is sent, and only after every check of its form.

mod answer;
mod call;
mod documents;
mod envelope;
mod errors;
#[doc(hidden)]
pub mod fuzz;
mod headers;
mod legacy;
mod listen;
mod live;
mod modern;
mod sealed;
mod session;
mod stream;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use pointsman_core::time::TimeMs;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span};

pub use self::errors::{Era, Fault};
pub use self::session::{SESSION_AGE_MS_MAX, SealingKey};

use self::answer::Dress;
use self::call::Desk;
use self::envelope::{Malformed, Message, Meta, Params};
use self::live::Lives;
use self::sealed::Sealer;
use self::session::Sessions;
use crate::ports::clock::System;
use crate::ports::endpoint::{Endpoint, Exchange, Field, Fields, Method, Reply};
use crate::ports::offering::{ListKind, Offering, Reference};
use crate::ports::sessions::{SessionBook, SessionNotes};
use crate::ports::surface::{Caller, Surface, ToolAnswer};
use crate::service::spans::SPANS;

/// The stateless revision.
pub const MODERN_VERSION: &str = "2026-07-28";
/// The revisions with sessions, newest first.
pub const LEGACY_VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// Milliseconds a client may keep a list: who does not listen for changes sees them within this time.
pub const LISTS_TTL_MS: u64 = 60_000;
/// Milliseconds a client may keep a resource whose component says nothing of it: none.
pub const RESOURCE_TTL_MS: u64 = 0;
/// Entries of one page of a list. Clients that read one page only see this many.
const PAGE_ENTRIES_MAX: usize = 1_000;
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
    /// Seals what calls give clients to bring back.
    pub state_key: [u8; 32],
    /// What sessions chose.
    pub book: Arc<dyn SessionBook>,
    /// Part of the ids of requests to clients; other than those of other hosts that serve the same sessions.
    pub tag: Arc<str>,
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
    desk: Desk,
    sessions: Sessions,
    lives: Lives,
    book: Arc<dyn SessionBook>,
    system: Arc<dyn System>,
    draining: CancellationToken,
    no_arguments: Box<RawValue>,
}

impl Mcp {
    /// Returns the endpoint over the host's tools and everything else on offer.
    #[must_use]
    pub fn new(surface: Arc<dyn Surface>, offering: Arc<dyn Offering>, config: McpConfig) -> Self {
        let desk = Desk {
            offering,
            texts: Arc::new(answer::Texts::new(config.server_name, config.server_version, surface.instructions())),
            sealer: Arc::new(Sealer::new(&config.state_key, Arc::clone(&config.system))),
            now: config.now,
        };
        let no_arguments = RawValue::from_string("{}".to_owned()).expect("`{}` is JSON");
        let sessions = Sessions::new(&config.sealing_key, &config.older_keys, Arc::clone(&config.system));
        Self {
            surface,
            desk,
            sessions,
            lives: Lives::new(config.tag),
            book: config.book,
            system: config.system,
            draining: config.draining,
            no_arguments,
        }
    }

    async fn admit(&self, fields: &dyn Fields, slug: Option<&str>, trace: &str) -> Result<Caller, Fault> {
        let bearer = headers::bearer(fields)?;
        Ok(self.surface.admit(bearer, slug, trace.to_owned()).await?)
    }

    async fn post(&self, exchange: Exchange<'_>) -> Reply {
        let era = || era_of(exchange.fields, None);
        let read = async {
            headers::check_media(exchange.fields)?;
            let caller = self.admit(exchange.fields, exchange.slug, exchange.trace).await?;
            Ok::<_, Fault>((caller, exchange.body.read_all().await?))
        };
        let (caller, body) = match read.await {
            Ok(read) => read,
            Err(fault) => return fault.reply(None, era()),
        };
        let text = match std::str::from_utf8(&body) {
            Ok(text) => text,
            Err(_) => return Fault::NotJson { why: "it is not UTF-8".to_owned() }.reply(None, era()),
        };
        if envelope::is_batch(text) {
            return Box::pin(self.post_batch(exchange.fields, caller, text)).await;
        }
        match envelope::message(text) {
            Ok(Message::Request { id, method, params }) => self.post_request(exchange.fields, caller, id, &method, params).await,
            Ok(message @ Message::Notification { .. }) => Box::pin(self.post_notification(exchange.fields, &caller, &message)).await,
            Ok(message @ Message::Response { .. }) => Box::pin(self.post_response(exchange.fields, &caller, &message)).await,
            Err(Malformed { id, fault }) => fault.reply(id, era()),
        }
    }

    async fn post_request(&self, fields: &dyn Fields, mut caller: Caller, id: &RawValue, method: &str, params: Option<&RawValue>) -> Reply {
        let read = envelope::params(params).and_then(|params| params.meta().map(|meta| (Box::new(params), meta)));
        let (params, meta) = match read {
            Ok(read) => read,
            Err(fault) => return fault.reply(Some(id), era_of(fields, None)),
        };
        let era = era_of(fields, meta.protocol_version);
        let span = span_of(fields, &caller, method, &params, &meta);
        let answering = async {
            match era {
                Era::Modern => match modern::check(fields, method, params, &meta, id) {
                    Ok(asked) => self.modern(fields, caller, asked).await,
                    Err(fault) => Err(fault),
                },
                Era::Legacy if method == "initialize" => Box::pin(self.initialize(fields, &caller, &params, id)).await,
                Era::Legacy => match self.session(fields, &caller).await {
                    Ok(session) => {
                        caller.handle = session.live.handle();
                        Box::pin(self.legacy(fields, &caller, &session, method, &params, id)).await
                    }
                    Err(fault) => Err(fault),
                },
            }
        };
        let answered = answering.instrument(span.clone()).await;
        answered.unwrap_or_else(|fault| {
            if !span.is_disabled() {
                span.record("error.type", fault.name(era)).record("otel.status_description", tracing::field::display(&fault));
            }
            if let Fault::Internal { trace } = &fault {
                tracing::error!(%trace, method, "a call failed inside the host");
            }
            fault.reply(Some(id), era)
        })
    }

    /// In 2026-07-28 no notification asks anything of us: an ended wait is noticed by its closed connection.
    async fn post_notification(&self, fields: &dyn Fields, caller: &Caller, message: &Message<'_>) -> Reply {
        let Message::Notification { params, .. } = message else { return accepted() };
        let read = envelope::params(*params).and_then(|params| params.meta().map(|meta| meta.protocol_version.is_some()));
        let era = match read {
            Ok(true) => Era::Modern,
            Ok(false) => era_of(fields, None),
            Err(fault) => return fault.reply(None, Era::Modern),
        };
        // Which headers a notification has is left open; a revision we do not speak is refused all the same.
        let requested = match fields.field(headers::PROTOCOL_VERSION) {
            Field::Absent => MODERN_VERSION,
            Field::One(version) => headers::plain(version).unwrap_or("(not ASCII)"),
            Field::Repeated => "(several)",
        };
        match era {
            Era::Modern if requested == MODERN_VERSION => accepted(),
            Era::Modern => Fault::UnsupportedVersion { requested: errors::cut(requested), era }.reply(None, era),
            Era::Legacy => self.heard(fields, caller, message).await,
        }
    }

    async fn post_response(&self, fields: &dyn Fields, caller: &Caller, message: &Message<'_>) -> Reply {
        let era = era_of(fields, None);
        match era {
            Era::Modern => Fault::NotAMessage { why: "clients send requests and notifications, not responses".into() }.reply(None, era),
            Era::Legacy => self.heard(fields, caller, message).await,
        }
    }

    async fn heard(&self, fields: &dyn Fields, caller: &Caller, message: &Message<'_>) -> Reply {
        match self.session(fields, caller).await {
            Ok(session) => {
                self.said(&session, message).await;
                accepted()
            }
            Err(fault) => fault.reply(None, Era::Legacy),
        }
    }

    async fn delete(&self, exchange: Exchange<'_>) -> Reply {
        if era_of(exchange.fields, None) == Era::Modern {
            return Fault::MethodNotAllowed.reply(None, Era::Modern);
        }
        let ended = async {
            let caller = self.admit(exchange.fields, exchange.slug, exchange.trace).await?;
            let session = self.session(exchange.fields, &caller).await?;
            self.note(&session, |notes| *notes = SessionNotes { is_ended: true, ..SessionNotes::default() }).await?;
            session.live.close();
            Ok::<_, Fault>(Reply::empty(204))
        };
        ended.await.unwrap_or_else(|fault| fault.reply(None, Era::Legacy))
    }

    /// Calls one of the host's own tools; a wait ends early when the host drains.
    async fn call_tool(&self, caller: &Caller, params: &Params<'_>) -> Result<ToolAnswer, Fault> {
        let name = params.name.and_then(envelope::string).ok_or(Fault::InvalidParams { why: "`name` is not a string".into() })?;
        let call = self.surface.call(caller, &name, self.arguments(params)?);
        if !self.surface.waits(&name) {
            return Ok(call.await?);
        }
        tokio::select! {
            biased;
            answer = call => Ok(answer?),
            () = self.draining.cancelled() => Ok(answer::drained()),
        }
    }

    /// Returns the arguments of a call, an object.
    fn arguments<'a>(&'a self, params: &Params<'a>) -> Result<&'a RawValue, Fault> {
        match params.arguments {
            Some(raw) if envelope::is_object(raw) => Ok(raw),
            Some(raw) if raw.get() != "null" => Err(Fault::InvalidParams { why: "`arguments` is not an object".into() }),
            Some(_) | None => Ok(&self.no_arguments),
        }
    }

    /// Returns a list's page. A cursor names the last entry of the page before; clients must not read it.
    fn list(&self, caller: &Caller, kind: ListKind, params: &Params<'_>, id: &RawValue, dress: Dress) -> Result<Vec<u8>, Fault> {
        let after = match params.cursor.map(envelope::string) {
            None => None,
            Some(cursor) => {
                let name = cursor.and_then(|cursor| BASE64URL_NOPAD.decode(cursor.as_bytes()).ok());
                Some(name.and_then(|name| String::from_utf8(name).ok()).ok_or(Fault::UnknownCursor)?)
            }
        };
        let listing = self.desk.offering.list(caller, kind);
        let (page, next) = listing.page(after.as_deref(), PAGE_ENTRIES_MAX).ok_or(Fault::UnknownCursor)?;
        let next = next.map(|name| BASE64URL_NOPAD.encode(name.as_bytes()));
        Ok(answer::list(id, &self.desk.texts, kind, &page, next.as_deref(), dress))
    }

    /// Completes an argument; returns the members of the result.
    async fn completion(&self, caller: &Caller, params: &Params<'_>) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct Ref {
            #[serde(rename = "type")]
            kind: String,
            name: Option<String>,
            uri: Option<String>,
        }
        #[derive(Deserialize)]
        struct Argument {
            name: String,
            value: String,
        }
        let wrong = |what: &str, error: &dyn std::fmt::Display| Fault::InvalidParams { why: format!("`{what}`: {error}").into() };
        let reference = params.reference.map_or("null", RawValue::get);
        let reference: Ref = serde_json::from_str(reference).map_err(|error| wrong("ref", &error))?;
        let argument = params.argument.map_or("null", RawValue::get);
        let argument: Argument = serde_json::from_str(argument).map_err(|error| wrong("argument", &error))?;
        let reference = match (reference.kind.as_str(), reference.name, reference.uri) {
            ("ref/prompt", Some(name), _) => Reference::Prompt(name),
            ("ref/resource", _, Some(uri)) => Reference::Resource(uri),
            (other, _, _) => return Err(wrong("ref", &format!("`{other}` without its name or uri"))),
        };
        let (values, total) = self.desk.offering.complete(caller, reference, &argument.name, &argument.value).await?;
        let more = total > values.len();
        Ok(json!({"completion": {"values": values, "total": total, "hasMore": more}}).to_string())
    }

    /// Returns a new call's id.
    fn call_id(&self) -> String {
        let mut bytes = [0; 15];
        self.system.random(&mut bytes);
        format!("call_{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

#[async_trait]
impl Endpoint for Mcp {
    async fn serve(&self, exchange: Exchange<'_>) -> Reply {
        match exchange.method {
            Method::Post => self.post(exchange).await,
            Method::Delete => Box::pin(self.delete(exchange)).await,
            Method::Get => {
                let opened = Box::pin(self.get(exchange.fields, exchange.slug, exchange.trace)).await;
                opened.unwrap_or_else(|fault| fault.reply(None, Era::Legacy))
            }
            Method::Other => Fault::MethodNotAllowed.reply(None, Era::Modern),
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

/// Returns the span of a request, by OpenTelemetry's conventions for MCP: what it is, and on whose behalf. A caller names its own trace
/// in `_meta`, or in the header of HTTP.
fn span_of(fields: &dyn Fields, caller: &Caller, method: &str, params: &Params<'_>, meta: &Meta<'_>) -> Span {
    let text = |raw: Option<&RawValue>| raw.and_then(envelope::string).map(std::borrow::Cow::into_owned);
    let name = || text(params.name);
    let of_http = || match fields.field("traceparent") {
        Field::One(value) => std::str::from_utf8(value).ok().map(ToOwned::to_owned),
        Field::Absent | Field::Repeated => None,
    };
    tracing::trace_span!(
        target: SPANS,
        "mcp",
        otel.kind = "server",
        otel.name = name().map_or_else(|| method.to_owned(), |name| format!("{method} {name}")),
        mcp.method.name = method,
        gen_ai.tool.name = (method == "tools/call").then(name).flatten(),
        mcp.resource.uri = text(params.uri),
        pointsman.project = %caller.project,
        pointsman.principal = caller.token.principal_name,
        pointsman.trace = caller.trace,
        traceparent = text(meta.traceparent).or_else(of_http),
        "error.type" = Empty,
        otel.status_description = Empty,
    )
}

fn accepted() -> Reply {
    Reply::empty(202)
}
