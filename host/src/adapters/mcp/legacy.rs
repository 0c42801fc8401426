//! Revisions 2025-11-25, 2025-06-18 and 2025-03-26: `initialize` opens a session, later requests name it.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Dress};
use super::call::{Peer, Running};
use super::envelope::{self, Malformed, Message, Params};
use super::errors::{Era, Fault, cut};
use super::listen::Missed;
use super::live::{Live, STANDALONE};
use super::modern::{First, first, level, progress_token, start};
use super::session::{Capabilities, Revision, SessionState};
use super::stream::{Frame, Frames};
use super::{LEGACY_VERSIONS, Mcp, Session, accepted, era_of, headers};
use crate::ports::endpoint::{Field, Fields, Reply};
use crate::ports::offering::{ListKind, Round};
use crate::ports::provider::ProviderCall;
use crate::ports::surface::{Caller, ToolAnswer};

/// What answers a request of a session.
enum Answered {
    /// At once.
    Whole(Vec<u8>),
    /// By a call that may tell and ask.
    Call(Box<Running>),
}

impl Mcp {
    /// Opens a session. A revision that we do not have is answered with our latest (lifecycle, version negotiation).
    pub(super) fn initialize(&self, fields: &dyn Fields, caller: &Caller, params: &Params<'_>, id: &RawValue) -> Result<Reply, Fault> {
        check_version_header(fields)?;
        // Each request that names a session that ended is told so, this one too (session management).
        if !matches!(fields.field(headers::SESSION_ID), Field::Absent) {
            self.session(fields, caller)?;
        }
        let wanted = params
            .protocol_version
            .and_then(envelope::string)
            .ok_or(Fault::InvalidParams { why: "`protocolVersion` is not a string".into() })?;
        let revision = Revision::of_date(&wanted).unwrap_or(Revision::V2025_11_25);
        let capabilities = Capabilities::declared(params.capabilities.map(RawValue::get));
        let state = SessionState { token: caller.token.id, project: caller.project, revision, capabilities, issued_at: (self.desk.now)() };
        let mut reply = Reply::json(200, answer::initialized(id, &self.desk.texts, revision.date()));
        reply.fields.push((headers::SESSION_ID, self.sessions.seal(&state)));
        Ok(reply)
    }

    /// Returns the session that a request names.
    ///
    /// # Errors
    /// `SessionMissing`, `SessionDead`, `UnsupportedVersion`.
    pub(super) fn session(&self, fields: &dyn Fields, caller: &Caller) -> Result<Session, Fault> {
        check_version_header(fields)?;
        match fields.field(headers::SESSION_ID) {
            Field::Absent => Err(Fault::SessionMissing),
            Field::Repeated => Err(Fault::SessionDead),
            Field::One(id) => self.sessions.open(id, caller.token.id, caller.project, (self.desk.now)()).ok_or(Fault::SessionDead),
        }
    }

    /// Answers a request in a session.
    pub(super) async fn legacy(
        &self,
        fields: &dyn Fields,
        caller: &Caller,
        session: Session,
        method: &str,
        params: &Params<'_>,
        id: &RawValue,
    ) -> Result<Reply, Fault> {
        let running = match self.answer(caller, session, method, params, id).await? {
            Answered::Whole(body) => return Ok(Reply::json(200, body)),
            Answered::Call(running) => *running,
        };
        let live = self.lives.of(session.key);
        live.begin(id.get(), running.cancelled.clone());
        let mut frames = start(running);
        let told = match first(&mut frames, headers::takes_events(fields)).await {
            First::Answer(answer) => {
                live.finish(id.get());
                return answer.map(|body| Reply::json(200, body));
            }
            First::Tells(told) => told,
        };
        let (stream, source) = live.open_stream(session.revision == Revision::V2025_11_25);
        match told {
            Some(json) => live.push(stream, &json),
            None => live.detach(stream),
        }
        let owner = id.to_owned();
        tokio::spawn(pump(live, stream, frames, owner));
        let id = id.to_owned();
        Ok(Reply::events(Box::new(Frames::new(None, source, Some(id), Era::Legacy))))
    }

    async fn answer(&self, caller: &Caller, session: Session, method: &str, params: &Params<'_>, id: &RawValue) -> Result<Answered, Fault> {
        let dress = match session.revision {
            Revision::V2025_11_25 | Revision::V2025_06_18 => Dress::Structured,
            Revision::V2025_03_26 => Dress::TextOnly,
        };
        let texts = &self.desk.texts;
        let list = |kind| self.list(caller, kind, params, id, dress).map(Answered::Whole);
        let uri = || params.uri.and_then(envelope::string).ok_or(Fault::InvalidParams { why: "`uri` is not a string".into() });
        let name = || params.name.and_then(envelope::string).ok_or(Fault::InvalidParams { why: "`name` is not a string".into() });
        let call = match method {
            "ping" => return Ok(Answered::Whole(answer::result(id, "{}"))),
            "tools/list" => return list(ListKind::Tools),
            "resources/list" => return list(ListKind::Resources),
            "resources/templates/list" => return list(ListKind::Templates),
            "prompts/list" => return list(ListKind::Prompts),
            "completion/complete" => return Ok(Answered::Whole(answer::result(id, &self.completion(caller, params).await?))),
            "logging/setLevel" => {
                let raw = params.level.ok_or(Fault::InvalidParams { why: "`level` is missing".into() })?;
                self.lives.of(session.key).set_level(level(raw)?);
                return Ok(Answered::Whole(answer::empty(id, texts, dress)));
            }
            "resources/subscribe" => {
                let uri = uri()?;
                if !self.desk.offering.has_resource(caller, &uri) {
                    return Err(Fault::UnknownResource { uri: cut(&uri) });
                }
                if !self.lives.of(session.key).subscribe(&uri) {
                    return Err(Fault::InvalidParams { why: "this session has too many subscriptions".into() });
                }
                return Ok(Answered::Whole(answer::empty(id, texts, dress)));
            }
            "resources/unsubscribe" => {
                self.lives.of(session.key).unsubscribe(&uri()?);
                return Ok(Answered::Whole(answer::empty(id, texts, dress)));
            }
            "tools/call" => {
                let name = name()?;
                if self.desk.offering.provided(caller, &name).is_none() {
                    let mut said = self.cancellable(caller, session, &name, params, id).await?;
                    if let Some(handle) = said.handle.take() {
                        self.sessions.remember(session.key, handle);
                    }
                    return Ok(Answered::Whole(answer::tool(id, texts, &said, dress)));
                }
                ProviderCall::Tool { name: name.into_owned(), arguments: self.arguments(params)?.get().to_owned() }
            }
            "resources/read" => ProviderCall::Resource { uri: uri()?.into_owned() },
            "prompts/get" => ProviderCall::Prompt { name: name()?.into_owned(), arguments: self.arguments(params)?.get().to_owned() },
            _ => return Err(Fault::UnknownMethod { method: cut(method) }),
        };
        let live = self.lives.of(session.key);
        let level = Some(live.level());
        let client_capabilities = session.capabilities.json();
        Ok(Answered::Call(Box::new(Running {
            desk: self.desk.clone(),
            caller: caller.clone(),
            call,
            round: Round { call_id: self.call_id(), client_capabilities, state: Vec::new(), answers: "{}".to_owned() },
            id: id.to_owned(),
            dress,
            peer: Peer::Session(live),
            progress: params.meta()?.progress_token.and_then(|_| progress_token(&params.meta().ok()?)),
            level,
            cancelled: CancellationToken::new(),
        })))
    }

    /// Calls one of the host's own tools. A wait ends when the client cancels it, else it would take what nobody reads.
    async fn cancellable(
        &self,
        caller: &Caller,
        session: Session,
        name: &str,
        params: &Params<'_>,
        id: &RawValue,
    ) -> Result<ToolAnswer, Fault> {
        if !self.surface.waits(name) {
            return self.call_tool(caller, params).await;
        }
        let live = self.lives.of(session.key);
        let cancelled = CancellationToken::new();
        live.begin(id.get(), cancelled.clone());
        let said = tokio::select! {
            biased;
            said = self.call_tool(caller, params) => said,
            () = cancelled.cancelled() => Err(Fault::Cancelled),
        };
        live.finish(id.get());
        said
    }

    /// Takes what a client tells, or answers, in its session.
    pub(super) fn hear(&self, session: Session, message: &Message<'_>) {
        match message {
            Message::Notification { method, params: Some(params) } if method == "notifications/cancelled" => {
                if let Ok(Params { request_id: Some(request), .. }) = envelope::params(Some(params)) {
                    self.lives.of(session.key).cancel(request.get());
                }
            }
            Message::Response { id: Some(id), result, error } => {
                let Some(id) = envelope::string(id) else { return };
                let answer = match result {
                    Some(result) => Ok((*result).to_owned()),
                    None => Err(cut(error.map_or("it gave neither result nor error", RawValue::get))),
                };
                if !self.lives.of(session.key).answered(&id, answer) {
                    tracing::debug!(%id, "a client answered what nobody asks any more");
                }
            }
            Message::Notification { .. } | Message::Response { .. } | Message::Request { .. } => {}
        }
    }

    /// Opens the stream of a session that no request opened, or goes on with one that was closed.
    pub(super) async fn get(&self, fields: &dyn Fields, slug: Option<&str>, trace: &str) -> Result<Reply, Fault> {
        if era_of(fields, None) == Era::Modern || matches!(fields.field(headers::SESSION_ID), Field::Absent) {
            return Err(Fault::MethodNotAllowed);
        }
        let caller = self.admit(fields, slug, trace).await?;
        let session = self.session(fields, &caller)?;
        if !headers::takes_events(fields) {
            return Err(Fault::EventsNotAccepted);
        }
        let live = self.lives.of(session.key);
        let seen = match fields.field(headers::LAST_EVENT_ID) {
            Field::Absent => None,
            Field::Repeated => return Err(Fault::StreamGone),
            Field::One(id) => Some(std::str::from_utf8(id).ok().and_then(event_id).ok_or(Fault::StreamGone)?),
        };
        let is_primed = session.revision == Revision::V2025_11_25;
        let resumed = seen.and_then(|(stream, number)| Some((stream, live.resume(stream, number)?)));
        let source = match (resumed, seen) {
            (Some((stream, source)), _) => {
                if stream == STANDALONE {
                    self.keep_told(&caller, &live, Missed::Perhaps).await?;
                }
                source
            }
            // A restart forgot the stream: the session goes on with a new one, and hears that it may have missed something.
            (None, seen) => {
                let source = live.stand_alone(is_primed);
                self.keep_told(&caller, &live, if seen.is_some() { Missed::Perhaps } else { Missed::Nothing }).await?;
                source
            }
        };
        Ok(Reply::events(Box::new(Frames::new(None, source, None, Era::Legacy))))
    }

    /// Answers a batch, its members one after the other.
    pub(super) async fn post_batch(&self, fields: &dyn Fields, mut caller: Caller, text: &str) -> Reply {
        let era = era_of(fields, None);
        let opened = match era {
            Era::Modern => Err(Fault::BatchNotAllowed),
            Era::Legacy => self.session(fields, &caller),
        };
        let opened = opened.and_then(|session| match session.revision {
            Revision::V2025_03_26 => envelope::batch(text).map(|members| (session, members)),
            Revision::V2025_06_18 | Revision::V2025_11_25 => Err(Fault::BatchNotAllowed),
        });
        let (session, members) = match opened {
            Ok(opened) => opened,
            // A body that is not JSON at all is refused as such, in whatever era.
            Err(Fault::BatchNotAllowed) => {
                let fault = serde_json::from_str::<&RawValue>(text)
                    .map_or_else(|e| Fault::NotJson { why: e.to_string() }, |_| Fault::BatchNotAllowed);
                return fault.reply(None, era);
            }
            Err(fault) => return fault.reply(None, era),
        };
        let mut out = vec![b'['];
        for member in members {
            caller.handle = self.sessions.handle(&session.key);
            if let Some(answer) = self.batch_member(&caller, session, member).await {
                if out.len() > 1 {
                    out.push(b',');
                }
                out.extend_from_slice(&answer);
            }
        }
        out.push(b']');
        if out.len() == 2 { accepted() } else { Reply::json(200, out) }
    }

    async fn batch_member(&self, caller: &Caller, session: Session, member: &RawValue) -> Option<Vec<u8>> {
        match envelope::message(member.get()) {
            Ok(Message::Request { id, method, params }) => {
                let answered = match envelope::params(params) {
                    Ok(params) => self.answer(caller, session, &method, &params, id).await,
                    Err(fault) => Err(fault),
                };
                let body = match answered {
                    Ok(Answered::Whole(body)) => Ok(body),
                    Ok(Answered::Call(running)) => match first(&mut start(*running), false).await {
                        First::Answer(answer) => answer,
                        First::Tells(_) => Err(Fault::Cancelled),
                    },
                    Err(fault) => Err(fault),
                };
                Some(body.unwrap_or_else(|fault| fault.body(Some(id), Era::Legacy)))
            }
            Ok(message @ (Message::Notification { .. } | Message::Response { .. })) => {
                self.hear(session, &message);
                None
            }
            Err(Malformed { id, fault }) => Some(fault.body(id, Era::Legacy)),
        }
    }
}

/// Moves what a call says to its stream, whoever reads it: a client of a session that goes away has not cancelled.
async fn pump(live: Arc<Live>, stream: u32, mut frames: mpsc::Receiver<Frame>, request: Box<RawValue>) {
    while let Some(frame) = frames.recv().await {
        match frame {
            Frame::Message(json) => live.push(stream, &json),
            Frame::Detach => live.detach(stream),
            Frame::Event(_) => {}
            Frame::Last(answer) => {
                live.push(stream, &answer.unwrap_or_else(|fault| fault.body(Some(&request), Era::Legacy)));
                break;
            }
        }
    }
    live.end(stream);
    live.finish(request.get());
}

/// Reads the id of an event: its stream and its number.
fn event_id(text: &str) -> Option<(u32, u64)> {
    let (stream, number) = text.split_once('.')?;
    Some((stream.parse().ok()?, number.parse().ok()?))
}

/// An absent header means the session's own revision; any of ours is good, since the session knows which was negotiated.
fn check_version_header(fields: &dyn Fields) -> Result<(), Fault> {
    let requested = match fields.field(headers::PROTOCOL_VERSION) {
        Field::Absent => return Ok(()),
        Field::One(version) => headers::plain(version).unwrap_or("(not ASCII)"),
        Field::Repeated => "(several)",
    };
    if LEGACY_VERSIONS.contains(&requested) {
        Ok(())
    } else {
        Err(Fault::UnsupportedVersion { requested: cut(requested), era: Era::Legacy })
    }
}
