//! Revisions 2025-11-25, 2025-06-18 and 2025-03-26: `initialize` opens a session, later requests name it.
//!
//! No stream is offered (GET answers 405, as the revisions allow), so we send no requests and no notifications.

use serde_json::value::RawValue;

use super::answer::{self, Dress};
use super::envelope::{self, Malformed, Message, Params};
use super::errors::{Era, Fault, cut};
use super::session::{Revision, SessionState};
use super::{LEGACY_VERSIONS, Mcp, Session, accepted, era_of, headers, json};
use crate::ports::endpoint::{Field, Fields, Reply};
use crate::ports::surface::Caller;

impl Mcp {
    /// Opens a session. A revision that we do not have is answered with our latest (lifecycle, version negotiation).
    pub(super) fn initialize(&self, fields: &dyn Fields, caller: &Caller, params: &Params<'_>, id: &RawValue) -> Result<Reply, Fault> {
        check_version_header(fields)?;
        let wanted = params
            .protocol_version
            .and_then(envelope::string)
            .ok_or(Fault::InvalidParams { why: "`protocolVersion` is not a string".into() })?;
        let revision = Revision::of_date(&wanted).unwrap_or(Revision::V2025_11_25);
        let state = SessionState { token: caller.token.id, project: caller.project, revision, issued_at: (self.now)() };
        let mut reply = json(answer::initialized(id, &self.texts, revision.date()));
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
            Field::One(id) => self.sessions.open(id, caller.token.id, caller.project, (self.now)()).ok_or(Fault::SessionDead),
        }
    }

    /// Answers a request in a session.
    pub(super) async fn legacy(
        &self,
        caller: &Caller,
        session: Session,
        method: &str,
        params: &Params<'_>,
        id: &RawValue,
    ) -> Result<Vec<u8>, Fault> {
        let dress = match session.revision {
            Revision::V2025_11_25 | Revision::V2025_06_18 => Dress::Structured,
            Revision::V2025_03_26 => Dress::TextOnly,
        };
        match method {
            "ping" => Ok(answer::result(id, "{}")),
            "tools/list" if params.cursor.is_some() => Err(Fault::UnknownCursor),
            "tools/list" => Ok(answer::tools(id, &self.texts, &self.surface.tools(caller), dress)),
            "tools/call" => {
                let mut answer = self.call_tool(caller, params).await?;
                if let Some(handle) = answer.handle.take() {
                    self.sessions.remember(session.key, handle);
                }
                Ok(answer::tool(id, &self.texts, &answer, dress))
            }
            _ => Err(Fault::UnknownMethod { method: cut(method) }),
        }
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
        if out.len() == 2 { accepted() } else { json(out) }
    }

    async fn batch_member(&self, caller: &Caller, session: Session, member: &RawValue) -> Option<Vec<u8>> {
        match envelope::message(member.get()) {
            Ok(Message::Request { id, method, params }) => {
                let answered = match envelope::params(params) {
                    Ok(params) => self.legacy(caller, session, &method, &params, id).await,
                    Err(fault) => Err(fault),
                };
                Some(answered.unwrap_or_else(|fault| fault.body(Some(id), Era::Legacy)))
            }
            Ok(Message::Notification { .. } | Message::Response) => None,
            Err(Malformed { id, fault }) => Some(fault.body(id, Era::Legacy)),
        }
    }
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
