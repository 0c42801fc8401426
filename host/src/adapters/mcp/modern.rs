//! Revision 2026-07-28: each request stands alone.
//!
//! The order of the checks is the order in which a fault can be trusted: headers against body, then the revision, then the
//! method, then what the method needs (streamable HTTP, server validation; basic, `_meta`).

use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::answer::{self, Dress};
use super::call::{Level, Peer, Running, TASKS};
use super::envelope::{self, Meta, Params};
use super::errors::{Era, Fault, cut};
use super::stream::{Frame, Frames, KEEP_ALIVE_MS, event};
use super::{MODERN_VERSION, Mcp, headers};
use crate::ports::asking::declares;
use crate::ports::endpoint::{Fields, Reply};
use crate::ports::offering::{ListKind, Round};
use crate::ports::provider::ProviderCall;
use crate::ports::surface::Caller;

/// The methods of this revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// `server/discover`.
    Discover,
    /// The four lists.
    List(ListKind),
    /// `tools/call`.
    Tool,
    /// `resources/read`.
    Resource,
    /// `prompts/get`.
    Prompt,
    /// `completion/complete`.
    Complete,
    /// `subscriptions/listen`.
    Listen,
    /// `tasks/get`.
    TaskGet,
    /// `tasks/update`.
    TaskUpdate,
    /// `tasks/cancel`.
    TaskCancel,
}

impl Call {
    fn named(method: &str) -> Option<Self> {
        Some(match method {
            "server/discover" => Self::Discover,
            "tools/list" => Self::List(ListKind::Tools),
            "tools/call" => Self::Tool,
            "resources/list" => Self::List(ListKind::Resources),
            "resources/templates/list" => Self::List(ListKind::Templates),
            "resources/read" => Self::Resource,
            "prompts/list" => Self::List(ListKind::Prompts),
            "prompts/get" => Self::Prompt,
            "completion/complete" => Self::Complete,
            "subscriptions/listen" => Self::Listen,
            "tasks/get" => Self::TaskGet,
            "tasks/update" => Self::TaskUpdate,
            "tasks/cancel" => Self::TaskCancel,
            _ => return None,
        })
    }

    /// Returns the parameter that the `Mcp-Name` header mirrors, and what it is called.
    fn mirrored<'a>(self, params: &Params<'a>) -> Option<(Option<&'a RawValue>, &'static str)> {
        match self {
            Self::Tool | Self::Prompt => Some((params.name, "`name` is not a string")),
            Self::Resource => Some((params.uri, "`uri` is not a string")),
            Self::TaskGet | Self::TaskUpdate | Self::TaskCancel => Some((params.task_id, "`taskId` is not a string")),
            Self::Discover | Self::List(_) | Self::Complete | Self::Listen => None,
        }
    }
}

/// A request whose form was checked.
pub(super) struct Checked<'a> {
    pub(super) call: Call,
    /// Handed on as often as the request is: where they stand takes no more room for it.
    pub(super) params: Box<Params<'a>>,
    /// What the client can do, a JSON object.
    pub(super) capabilities: &'a str,
    pub(super) level: Option<Level>,
    pub(super) progress: Option<Box<RawValue>>,
    pub(super) id: &'a RawValue,
}

/// Checks headers, revision, method and `_meta`.
///
/// # Errors
/// The first fault found.
pub(super) fn check<'a>(
    fields: &dyn Fields,
    method: &str,
    params: Box<Params<'a>>,
    meta: &Meta<'a>,
    id: &'a RawValue,
) -> Result<Checked<'a>, Fault> {
    const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    let header = headers::required(fields, headers::PROTOCOL_VERSION, "MCP-Protocol-Version")?;
    let version = match meta.protocol_version.map(envelope::string) {
        None => None,
        Some(Some(version)) => Some(version),
        Some(None) => return Err(Fault::MetaInvalid { key: VERSION, expected: "a string" }),
    };
    if let Some(version) = &version
        && version != header
    {
        return Err(Fault::HeaderMismatch { name: "MCP-Protocol-Version", header: cut(header), body: cut(version) });
    }
    if header != MODERN_VERSION {
        return Err(Fault::UnsupportedVersion { requested: cut(header), era: Era::Modern });
    }
    headers::mirrors(fields, headers::METHOD, "Mcp-Method", method)?;
    let call = Call::named(method).ok_or_else(|| Fault::UnknownMethod { method: cut(method) })?;
    if version.is_none() {
        return Err(Fault::MetaInvalid { key: VERSION, expected: "a string" });
    }
    let capabilities = meta.client_capabilities.filter(|raw| envelope::is_object(raw)).map(RawValue::get);
    let capabilities =
        capabilities.ok_or(Fault::MetaInvalid { key: "io.modelcontextprotocol/clientCapabilities", expected: "an object" })?;
    if let Some((value, wrong)) = call.mirrored(&params) {
        let value = value.and_then(envelope::string).ok_or(Fault::InvalidParams { why: wrong.into() })?;
        headers::mirrors_name(fields, &value)?;
    }
    let level = match meta.log_level {
        None => None,
        Some(raw) => Some(level(raw)?),
    };
    Ok(Checked { call, params, capabilities, level, progress: progress_token(meta), id })
}

/// Reads a log level.
///
/// # Errors
/// `InvalidParams`.
pub(super) fn level(raw: &RawValue) -> Result<Level, Fault> {
    let level = envelope::string(raw).and_then(|name| Level::named(&name));
    level.ok_or(Fault::InvalidParams {
        why: "the log level is none of debug, info, notice, warning, error, critical, alert, emergency".into(),
    })
}

/// Returns under which token progress is told.
pub(super) fn progress_token(meta: &Meta<'_>) -> Option<Box<RawValue>> {
    let token = meta.progress_token?;
    let is_one = envelope::string(token).is_some() || token.get().parse::<f64>().is_ok();
    is_one.then(|| token.to_owned())
}

impl Mcp {
    /// Answers a checked request.
    pub(super) async fn modern(&self, fields: &dyn Fields, caller: Caller, asked: Checked<'_>) -> Result<Reply, Fault> {
        let (id, params) = (asked.id, &asked.params);
        let texts = &self.desk.texts;
        if matches!(asked.call, Call::TaskGet | Call::TaskUpdate | Call::TaskCancel)
            && !declares(asked.capabilities, &["extensions", TASKS])
        {
            return Err(Fault::CapabilityMissing { required: json!({"extensions": {TASKS: {}}}).to_string() });
        }
        let task = || params.task_id.and_then(envelope::string).unwrap_or_default();
        match asked.call {
            Call::Discover => Ok(Reply::json(200, answer::result(id, &texts.discover))),
            Call::List(kind) => Ok(Reply::json(200, self.list(&caller, kind, params, id, Dress::Modern)?)),
            Call::Tool => {
                let name = params.name.and_then(envelope::string).unwrap_or_default();
                match self.desk.offering.provided(&caller, &name) {
                    Some(mirrored) => {
                        let arguments = self.arguments(params)?;
                        headers::mirrors_arguments(fields, &mirrored, arguments)?;
                        let call = ProviderCall::Tool { name: name.into_owned(), arguments: arguments.get().to_owned() };
                        Box::pin(self.stateless_call(fields, caller, call, asked)).await
                    }
                    None => {
                        let said = self.call_tool(&caller, params).await?;
                        Ok(Reply::json(200, answer::tool(id, texts, &said, Dress::Modern)))
                    }
                }
            }
            Call::Resource => {
                let uri = params.uri.and_then(envelope::string).unwrap_or_default().into_owned();
                Box::pin(self.stateless_call(fields, caller, ProviderCall::Resource { uri }, asked)).await
            }
            Call::Prompt => {
                let name = params.name.and_then(envelope::string).unwrap_or_default().into_owned();
                let arguments = self.arguments(params)?.get().to_owned();
                Box::pin(self.stateless_call(fields, caller, ProviderCall::Prompt { name, arguments }, asked)).await
            }
            Call::Complete => {
                let completion = self.completion(&caller, params).await?;
                Ok(Reply::json(200, answer::spliced(id, texts, &completion, "complete")))
            }
            Call::Listen if !headers::takes_events(fields) => Err(Fault::EventsNotAccepted),
            Call::Listen => Box::pin(self.listen(caller, params.notifications, id, asked.capabilities)).await,
            Call::TaskGet => {
                let task = self.desk.offering.deferred(&caller, &task()).await?;
                Ok(Reply::json(200, answer::spliced(id, texts, task.get(), "complete")))
            }
            Call::TaskUpdate => {
                let answers = params.input_responses.filter(|raw| envelope::is_object(raw));
                let answers = answers.ok_or(Fault::InvalidParams { why: "`inputResponses` is not an object".into() })?;
                self.desk.offering.answer_deferred(&caller, &task(), answers).await?;
                Ok(Reply::json(200, answer::empty(id, texts, Dress::Modern)))
            }
            Call::TaskCancel => {
                self.desk.offering.cancel_deferred(&caller, &task()).await?;
                Ok(Reply::json(200, answer::empty(id, texts, Dress::Modern)))
            }
        }
    }

    /// Runs a call that may ask back: its answer, or a stream when it has something to tell before that.
    async fn stateless_call(&self, fields: &dyn Fields, caller: Caller, call: ProviderCall, asked: Checked<'_>) -> Result<Reply, Fault> {
        let resumed = match asked.params.request_state.map(envelope::string) {
            None => None,
            Some(None) => return Err(Fault::StateRefused),
            Some(Some(state)) => Some(self.desk.sealer.open(&caller, &call, &state, (self.desk.now)()).ok_or(Fault::StateRefused)?),
        };
        let given = asked.params.input_responses.filter(|raw| envelope::is_object(raw));
        // A client that knows what will be asked may answer at once: the suite of conformance does.
        let answers = given.map_or("{}", RawValue::get);
        let (call_id, state) = match resumed {
            Some(resumed) => (resumed.call_id, resumed.state),
            None => (self.call_id(), Vec::new()),
        };
        let takes_events = headers::takes_events(fields);
        let running = Running {
            desk: self.desk.clone(),
            round: Round { call_id, client_capabilities: asked.capabilities.to_owned(), state, answers: answers.to_owned() },
            caller,
            call,
            id: asked.id.to_owned(),
            dress: Dress::Modern,
            peer: Peer::Stateless,
            progress: asked.progress.filter(|_| takes_events),
            level: asked.level.filter(|_| takes_events),
            cancelled: CancellationToken::new(),
            turn: None,
        };
        let mut frames = start(running);
        let head = match first(&mut frames, takes_events).await {
            First::Answer(answer) => return answer.map(|body| Reply::json(200, body)),
            First::Tells(head) => head,
        };
        let id = asked.id.to_owned();
        let head = head.map_or_else(|| bytes::Bytes::from_static(b":\n\n"), |json| event(&json));
        Ok(Reply::events(Box::new(Frames::new(Some(head), frames, Some(id), Era::Modern))))
    }
}

/// Starts a call in a task of its own.
pub(super) fn start(running: Running) -> mpsc::Receiver<Frame> {
    let (frames, source) = mpsc::channel(super::stream::FRAMES_MAX);
    tokio::spawn(running.run(frames).in_current_span());
    source
}

/// What a call does first.
pub(super) enum First {
    /// It ends.
    Answer(Result<Vec<u8>, Fault>),
    /// It has something to tell; none: it takes long, or wants the stream closed.
    Tells(Option<Vec<u8>>),
}

/// Waits for a call's first frame, or long enough for the client to want a sign of life.
pub(super) async fn first(frames: &mut mpsc::Receiver<Frame>, takes_events: bool) -> First {
    let long = tokio::time::sleep(Duration::from_millis(KEEP_ALIVE_MS));
    tokio::pin!(long);
    loop {
        tokio::select! {
            frame = frames.recv() => match frame {
                Some(Frame::Last(answer)) => return First::Answer(answer),
                // Cancelled by the client, which expects no answer then.
                None => return First::Answer(Err(Fault::Cancelled)),
                Some(Frame::Message(json)) if takes_events => return First::Tells(Some(json)),
                Some(Frame::Detach) if takes_events => return First::Tells(None),
                Some(Frame::Message(_) | Frame::Detach | Frame::Event(_)) => {}
            },
            () = &mut long, if takes_events => return First::Tells(None),
        }
    }
}
