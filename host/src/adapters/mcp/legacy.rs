//! Revisions 2025-11-25, 2025-06-18 and 2025-03-26: `initialize` opens a session, later requests name it.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use pointsman_core::ids::ProjectId;
use pointsman_core::limits::URI_BYTES_MAX;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Dress};
use super::call::{Peer, Running};
use super::documents;
use super::envelope::{self, Malformed, Message, Params};
use super::errors::{Era, Fault, cut};
use super::listen::everything;
use super::live::{Live, STANDALONE, SUBSCRIPTIONS_MAX};
use super::modern::{First, first, level, progress_token, start};
use super::session::{Capabilities, Revision, Session, SessionKey, SessionState};
use super::stream::{EventId, Frame, Frames};
use super::{LEGACY_VERSIONS, Mcp, accepted, era_of, headers};
use crate::ports::endpoint::{Field, Fields, Reply};
use crate::ports::offering::{ListKind, Round};
use crate::ports::provider::ProviderCall;
use crate::ports::sessions::{NotesChange, SessionEars, SessionNotes, SessionWord};
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
    pub(super) async fn initialize(
        &self,
        fields: &dyn Fields,
        caller: &Caller,
        params: &Params<'_>,
        id: &RawValue,
    ) -> Result<Reply, Fault> {
        check_version_header(fields)?;
        // Each request that names a session that ended is told so, this one too (session management).
        if !matches!(fields.field(headers::SESSION_ID), Field::Absent) {
            self.session(fields, caller).await?;
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
    /// `SessionMissing`, `SessionDead`, `UnsupportedVersion`, `Rejected::Unavailable`.
    pub(super) async fn session(&self, fields: &dyn Fields, caller: &Caller) -> Result<Session, Fault> {
        check_version_header(fields)?;
        let id = match fields.field(headers::SESSION_ID) {
            Field::Absent => return Err(Fault::SessionMissing),
            Field::Repeated => return Err(Fault::SessionDead),
            Field::One(id) => id,
        };
        let now = (self.desk.now)();
        let (key, state) = self.sessions.open(id, caller.token.id, caller.project, now).ok_or(Fault::SessionDead)?;
        let live = match self.lives.find(&key) {
            Some(live) => live,
            None => {
                let notes = self.book.read(state.project, &name_of(&key)).await?;
                self.lives.open(key, notes, now)
            }
        };
        if live.is_ended() { Err(Fault::SessionDead) } else { Ok(Session { key, state, live }) }
    }

    /// Notes what a session's client chose; once this returns it outlives the host.
    ///
    /// # Errors
    /// `Rejected::Unavailable`; nothing changed.
    pub(super) async fn note(&self, session: &Session, mut change: impl FnMut(&mut SessionNotes) + Send) -> Result<(), Fault> {
        let (project, name) = (session.state.project, name_of(&session.key));
        let turn = session.live.turn().await;
        let mut before = session.live.notes();
        loop {
            if before.is_ended {
                return Err(Fault::SessionDead);
            }
            let mut after = before.clone();
            change(&mut after);
            if after == before {
                return Ok(());
            }
            let ends_at = session.state.ends_at();
            match self.book.write(project, &name, NotesChange { before: &before, after: &after, ends_at }).await? {
                None => {
                    session.live.set_notes(after);
                    break;
                }
                // It chose something at another host meanwhile, of which the word did not come.
                Some(stands) => {
                    session.live.set_notes(stands.clone());
                    before = stands;
                }
            }
        }
        drop(turn);
        self.book.pass_on(project, &name, SessionWord::Noted).await;
        Ok(())
    }

    /// Takes what a client tells, or answers, in its session; where nobody here waits for it, one of the other hosts may.
    pub(super) async fn said(&self, session: &Session, message: &Message<'_>) {
        let Some(word) = word_of(message) else { return };
        if heard(&session.live, word.clone()) || self.book.pass_on(session.state.project, &name_of(&session.key), word).await {
            return;
        }
        tracing::debug!("a client answered, or cancelled, what nobody waits for any more");
    }

    /// Subscribes a session to a resource: what changes from the answer on is told.
    async fn subscribe(&self, caller: &Caller, session: &Session, uri: Cow<'_, str>) -> Result<(), Fault> {
        if !self.desk.offering.has_resource(caller, &uri) {
            return Err(Fault::UnknownResource { uri: cut(&uri) });
        }
        if uri.len() > URI_BYTES_MAX {
            return Err(Fault::InvalidParams { why: format!("`uri` is longer than {URI_BYTES_MAX} bytes").into() });
        }
        self.keep_told(caller, &session.live).await?;
        let (mut is_full, mut globs) = (false, Ok(()));
        let subscribed = self.note(session, |notes| {
            (is_full, globs) = (false, Ok(()));
            let mut uris = notes.uris.clone();
            if !uris.insert(uri.to_string()) {
                return;
            }
            is_full = uris.len() > SUBSCRIPTIONS_MAX;
            globs = documents::check_globs(documents::globs(&uris).len());
            if !is_full && globs.is_ok() {
                notes.uris = uris;
            }
        });
        subscribed.await?;
        globs?;
        if is_full {
            return Err(Fault::InvalidParams { why: format!("a session subscribes to {SUBSCRIPTIONS_MAX} resources at most").into() });
        }
        Ok(())
    }

    /// Answers a request in a session.
    pub(super) async fn legacy(
        &self,
        fields: &dyn Fields,
        caller: &Caller,
        session: &Session,
        method: &str,
        params: &Params<'_>,
        id: &RawValue,
    ) -> Result<Reply, Fault> {
        let running = match self.answer(caller, session, method, params, id).await? {
            Answered::Whole(body) => return Ok(Reply::json(200, body)),
            Answered::Call(running) => *running,
        };
        let live = Arc::clone(&session.live);
        let mut frames = start(running);
        let told = match first(&mut frames, headers::takes_events(fields)).await {
            First::Answer(answer) => return answer.map(|body| Reply::json(200, body)),
            First::Tells(told) => told,
        };
        let (stream, source) = live.open_stream(session.state.revision == Revision::V2025_11_25, id);
        match told {
            Some(json) => live.push(stream, &json),
            None => live.detach(stream),
        }
        let owner = id.to_owned();
        tokio::spawn(pump(live, stream, frames, owner));
        let id = id.to_owned();
        Ok(Reply::events(Box::new(Frames::new(None, source, Some(id), Era::Legacy))))
    }

    async fn answer(
        &self,
        caller: &Caller,
        session: &Session,
        method: &str,
        params: &Params<'_>,
        id: &RawValue,
    ) -> Result<Answered, Fault> {
        let dress = match session.state.revision {
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
                let level = level(raw)?;
                self.note(session, |notes| notes.level = Some(level.name().to_owned())).await?;
                return Ok(Answered::Whole(answer::empty(id, texts, dress)));
            }
            "resources/subscribe" => {
                self.subscribe(caller, session, uri()?).await?;
                return Ok(Answered::Whole(answer::empty(id, texts, dress)));
            }
            "resources/unsubscribe" => {
                let uri = uri()?;
                self.note(session, |notes| notes.uris.retain(|noted| *noted != uri)).await?;
                return Ok(Answered::Whole(answer::empty(id, texts, dress)));
            }
            "tools/call" => {
                let name = name()?;
                if self.desk.offering.provided(caller, &name).is_none() {
                    let mut said = self.cancellable(caller, session, &name, params, id).await?;
                    if let Some(handle) = said.handle.take() {
                        self.note(session, |notes| notes.handle = Some(handle.clone())).await?;
                    }
                    return Ok(Answered::Whole(answer::tool(id, texts, &said, dress)));
                }
                ProviderCall::Tool { name: name.into_owned(), arguments: self.arguments(params)?.get().to_owned() }
            }
            "resources/read" => ProviderCall::Resource { uri: uri()?.into_owned() },
            "prompts/get" => ProviderCall::Prompt { name: name()?.into_owned(), arguments: self.arguments(params)?.get().to_owned() },
            _ => return Err(Fault::UnknownMethod { method: cut(method) }),
        };
        let progress = params.meta()?;
        let level = Some(session.live.level());
        let client_capabilities = session.state.capabilities.json();
        let cancelled = CancellationToken::new();
        let turn = Some(session.live.begin(id.get(), cancelled.clone())?);
        Ok(Answered::Call(Box::new(Running {
            desk: self.desk.clone(),
            caller: caller.clone(),
            call,
            round: Round { call_id: self.call_id(), client_capabilities, state: Vec::new(), answers: "{}".to_owned() },
            id: id.to_owned(),
            dress,
            peer: Peer::Session(Arc::clone(&session.live)),
            progress: progress_token(&progress),
            level,
            cancelled,
            turn,
        })))
    }

    /// Calls one of the host's own tools. A wait ends when the client cancels it, else it would take what nobody reads.
    async fn cancellable(
        &self,
        caller: &Caller,
        session: &Session,
        name: &str,
        params: &Params<'_>,
        id: &RawValue,
    ) -> Result<ToolAnswer, Fault> {
        if !self.surface.waits(name) {
            return self.call_tool(caller, params).await;
        }
        let cancelled = CancellationToken::new();
        let _turn = session.live.begin(id.get(), cancelled.clone())?;
        tokio::select! {
            biased;
            said = self.call_tool(caller, params) => said,
            () = cancelled.cancelled() => Err(Fault::Cancelled),
        }
    }

    /// Opens the stream of a session that no request opened, or goes on with one that was closed.
    pub(super) async fn get(&self, fields: &dyn Fields, slug: Option<&str>, trace: &str) -> Result<Reply, Fault> {
        if era_of(fields, None) == Era::Modern || matches!(fields.field(headers::SESSION_ID), Field::Absent) {
            return Err(Fault::MethodNotAllowed);
        }
        let caller = self.admit(fields, slug, trace).await?;
        let session = self.session(fields, &caller).await?;
        if !headers::takes_events(fields) {
            return Err(Fault::EventsNotAccepted);
        }
        let live = &session.live;
        let seen = match fields.field(headers::LAST_EVENT_ID) {
            Field::Absent => None,
            Field::Repeated => return Err(Fault::StreamGone),
            Field::One(id) => Some(std::str::from_utf8(id).ok().and_then(EventId::parse).ok_or(Fault::StreamGone)?),
        };
        let source = match seen {
            Some(seen) if seen.stream != STANDALONE => match live.resume(seen.stream, seen.number) {
                Some(source) => source,
                // The request died with the host that served it, or its answer was let go: its client waits for an end.
                None => return seen.request_id().map(|id| lost(&id)).ok_or(Fault::StreamGone),
            },
            seen => {
                self.keep_told(&caller, live).await?;
                let is_primed = session.state.revision == Revision::V2025_11_25;
                match seen.as_ref().and_then(|seen| live.resume(STANDALONE, seen.number)) {
                    Some(source) => source,
                    // A restart forgot the stream, or not all that followed is kept: the session hears that it may have missed something.
                    None => {
                        let (source, is_whole) = live.stand_alone(is_primed);
                        if seen.is_some() || !is_whole {
                            everything(live);
                        }
                        source
                    }
                }
            }
        };
        // Who comes while the host drains would hold it up; it comes back to the next one.
        if self.draining.is_cancelled() {
            live.detach(STANDALONE);
        }
        Ok(Reply::events(Box::new(Frames::new(None, source, None, Era::Legacy))))
    }

    /// Answers a batch, its members one after the other.
    pub(super) async fn post_batch(&self, fields: &dyn Fields, mut caller: Caller, text: &str) -> Reply {
        let era = era_of(fields, None);
        let opened = match era {
            Era::Modern => Err(Fault::BatchNotAllowed),
            Era::Legacy => self.session(fields, &caller).await,
        };
        let opened = opened.and_then(|session| match session.state.revision {
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
        let mut counted = 0;
        for member in members {
            caller.handle = session.live.handle();
            if let Some(answer) = self.batch_member(&caller, &session, member, &mut counted).await {
                if out.len() > 1 {
                    out.push(b',');
                }
                out.extend_from_slice(&answer);
            }
        }
        out.push(b']');
        if out.len() == 2 { accepted() } else { Reply::json(200, out) }
    }

    /// Answers a member of a batch. Each of its requests counts as one; for the first the batch itself was counted.
    async fn batch_member(&self, caller: &Caller, session: &Session, member: &RawValue, counted: &mut u32) -> Option<Vec<u8>> {
        match envelope::message(member.get()) {
            Ok(Message::Request { id, method, params }) => {
                let is_let = if *counted == 0 { Ok(()) } else { self.surface.count(caller).map_err(Fault::from) };
                *counted += 1;
                let answered = match is_let.and_then(|()| envelope::params(params)) {
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
                self.said(session, &message).await;
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
}

/// Returns what a message of a client is to whoever waits for it; none where nobody does.
fn word_of(message: &Message<'_>) -> Option<SessionWord> {
    match message {
        Message::Notification { method, params: Some(params) } if method == "notifications/cancelled" => {
            let request = envelope::params(Some(params)).ok()?.request_id?;
            Some(SessionWord::Cancelled { request: request.get().to_owned() })
        }
        Message::Response { id: Some(id), result, error } => {
            let answer = match result {
                Some(result) => Ok(result.get().to_owned()),
                None => Err(cut(error.map_or("it gave neither result nor error", RawValue::get))),
            };
            Some(SessionWord::Answered { id: envelope::string(id)?.into_owned(), answer })
        }
        Message::Notification { .. } | Message::Response { .. } | Message::Request { .. } => None,
    }
}

/// Hands a word to who waits for it; false where nobody does.
fn heard(live: &Live, word: SessionWord) -> bool {
    match word {
        SessionWord::Answered { id, answer } => {
            let answer = answer.and_then(|result| RawValue::from_string(result).map_err(|error| error.to_string()));
            live.answered(&id, answer)
        }
        SessionWord::Cancelled { request } => live.cancel(&request),
        SessionWord::Noted => false,
    }
}

#[async_trait]
impl SessionEars for Mcp {
    async fn hear(&self, project: ProjectId, session: &str, word: SessionWord) -> bool {
        let key = BASE64URL_NOPAD.decode(session.as_bytes()).ok().and_then(|key| SessionKey::try_from(key).ok());
        let Some(live) = key.and_then(|key| self.lives.find(&key)) else { return false };
        if word != SessionWord::Noted {
            return heard(&live, word);
        }
        let _turn = live.turn().await;
        match self.book.read(project, session).await {
            Ok(notes) => {
                if notes.is_ended {
                    live.close();
                }
                live.set_notes(notes);
            }
            Err(rejected) => tracing::warn!(%rejected, "what a session chose at another host cannot be read yet"),
        }
        true
    }
}

/// Returns the stream that ends a request whose answer is gone.
fn lost(request: &RawValue) -> Reply {
    let (sender, source) = mpsc::channel(1);
    drop(sender.try_send(Frame::Last(Err(Fault::AnswerLost))));
    Reply::events(Box::new(Frames::new(None, source, Some(request.to_owned()), Era::Legacy)))
}

/// Returns under which name a session is noted.
fn name_of(key: &SessionKey) -> String {
    BASE64URL_NOPAD.encode(key)
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
