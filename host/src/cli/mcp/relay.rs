//! One request: sent, gone on with when its stream breaks, sent again where that is safe, answered once.
//!
//! **Invariant:** a request that may have acted is sent again only when that is harmless; everything else is answered by saying so.

use bytes::Bytes;
use pointsman_client::{Streamed, header_value};
use serde_json::{Value, json};

use super::Bridge;
use super::host::{Broken, Field, Patience, ended, field};
use super::message::{Request, Response, is_response, line_of};
use super::session::Opened;

/// The host wants headers that it did not get (2026-07-28, `HeaderMismatch`).
const HEADER_MISMATCH: i64 = -32020;
/// Pages of the list of tools.
const PAGES_MAX: usize = 100;
/// Times that a session is opened again for one request.
const REOPENED_MAX: usize = 3;
/// Milliseconds after which a stream is gone on with, unless the host says otherwise.
const RETRY_MS: u64 = 500;

impl Bridge {
    /// Returns the answer to a request as a line; none when the client is gone.
    pub(super) async fn answer(&self, request: &Request) -> Option<Bytes> {
        let answered = match (&request.message.params.revision, request.method.as_str()) {
            (Some(revision), "subscriptions/listen") => self.listen(request, &modern(request, revision)).await?,
            (Some(revision), _) => self.stateless(request, revision).await,
            (None, _) => self.in_session(request).await,
        };
        Some(match answered {
            Ok(response) => response.line,
            Err(broken) => self.host.complaint(broken).line(Some(&request.id)),
        })
    }

    /// Answers a request of 2026-07-28 or later.
    async fn stateless(&self, request: &Request, revision: &str) -> Result<Response, Broken> {
        let mut patience = self.host.patience();
        let mut has_listed = false;
        loop {
            let mut fields = modern(request, revision);
            if let ("tools/call", Some(name)) = (request.method.as_str(), &request.message.params.name)
                && self.tools.mirrors(name)
            {
                fields.extend(self.tools.headers(name, &request.message.param("arguments")));
            }
            let broken = match self.exchange(request, &fields).await {
                Ok(response) if response.refused == Some(HEADER_MISMATCH) && request.method == "tools/call" && !has_listed => {
                    has_listed = true;
                    self.list_tools(request, revision).await?;
                    continue;
                }
                Ok(response) => {
                    self.learn(request, &response);
                    return Ok(response);
                }
                Err(broken) => broken,
            };
            if !self.again(request, &broken, &mut patience).await {
                return Err(broken);
            }
        }
    }

    async fn exchange(&self, request: &Request, fields: &[Field]) -> Result<Response, Broken> {
        let mut answer = self.host.open("POST", fields, request.message.line.clone()).await?;
        if answer.is_events() { self.relay(&mut answer, &request.id, None).await } else { self.host.response(answer, &request.id).await }
    }

    /// Passes on what a stream says until its response. `stream`: the one that was asked for, where another may come instead.
    async fn relay(&self, answer: &mut Streamed, id: &str, stream: Option<&str>) -> Result<Response, Broken> {
        loop {
            let data = match answer.event().await {
                Ok(Some(data)) => data,
                Ok(None) => return Err(ended()),
                Err(error) => return Err(Broken::Lost { why: error.to_string() }),
            };
            if let (Some(wanted), Some(last)) = (stream, answer.last_event_id())
                && stream_of(last) != wanted
            {
                return Err(Broken::Lost { why: "the host restarted and no longer knows the request".to_owned() });
            }
            if is_response(&data) {
                return Response::read(data.as_bytes(), id).ok_or_else(ended);
            }
            if !data.is_empty() {
                self.output.write(line_of(data)).await;
            }
        }
    }

    /// Returns whether to try once more, after a while.
    async fn again(&self, request: &Request, broken: &Broken, patience: &mut Patience) -> bool {
        let after_ms = match broken {
            Broken::Away { .. } => 0,
            Broken::Busy { after_ms, .. } => *after_ms,
            Broken::Lost { .. } if self.may_repeat(request) => 0,
            Broken::Lost { .. } | Broken::Refused(_) => return false,
        };
        patience.pause(&self.host, after_ms).await
    }

    fn may_repeat(&self, request: &Request) -> bool {
        let name = request.message.params.name.as_deref().filter(|_| request.method == "tools/call");
        request.only_reads() || name.is_some_and(|name| self.tools.may_repeat(name, &request.message.param("arguments")))
    }

    fn learn(&self, request: &Request, response: &Response) {
        if request.method == "tools/list" && response.refused.is_none() {
            self.tools.learn(&response.json()["result"]);
        }
    }

    /// Asks for the tools, in the name of a request that the host wants other headers for.
    async fn list_tools(&self, request: &Request, revision: &str) -> Result<(), Broken> {
        let mut meta = request.message.param("_meta");
        if let Some(meta) = meta.as_object_mut() {
            meta.remove("progressToken");
        }
        let mut params = json!({"_meta": meta});
        for _ in 0..PAGES_MAX {
            let body = json!({"jsonrpc": "2.0", "id": "pointsman-mcp-tools", "method": "tools/list", "params": params}).to_string();
            let fields = [field("mcp-protocol-version", revision), field("mcp-method", "tools/list")];
            let answer = self.host.open("POST", &fields, body.into()).await?;
            let result = self.host.own(answer, "\"pointsman-mcp-tools\"").await?.json()["result"].take();
            self.tools.learn(&result);
            match &result["nextCursor"] {
                Value::String(cursor) => params["cursor"] = cursor.as_str().into(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => break,
            }
        }
        Ok(())
    }

    /// Answers a request of a session.
    async fn in_session(&self, request: &Request) -> Result<Response, Broken> {
        let mut patience = self.host.patience();
        let mut reopened = 0;
        loop {
            let session = self.session.current();
            let tried = match request.method.as_str() {
                "initialize" => self.initialize(request).await.map(Some),
                _ => self.exchange_in(session.as_ref(), request).await,
            };
            let broken = match (tried, session) {
                (Ok(Some(response)), _) => {
                    self.learn(request, &response);
                    if response.refused.is_none() {
                        self.session.remember(request);
                    }
                    return Ok(response);
                }
                (Ok(None), Some(dead)) if reopened < REOPENED_MAX => {
                    reopened += 1;
                    match self.reopen(&dead).await {
                        Ok(_) => continue,
                        Err(broken) => broken,
                    }
                }
                (Ok(None), _) => Broken::Lost { why: "the host does not keep the session".to_owned() },
                (Err(broken), _) => broken,
            };
            if !self.again(request, &broken, &mut patience).await {
                return Err(broken);
            }
        }
    }

    /// Sends a request of a session; none when the host says that the session is dead.
    async fn exchange_in(&self, session: Option<&Opened>, request: &Request) -> Result<Option<Response>, Broken> {
        let fields = session.map(Opened::fields).unwrap_or_default();
        let mut answer = self.host.open("POST", &fields, request.message.line.clone()).await?;
        if answer.status() == 404 && session.is_some() {
            return Ok(None);
        }
        if !answer.is_events() {
            return self.host.response(answer, &request.id).await.map(Some);
        }
        let broken = match self.relay(&mut answer, &request.id, None).await {
            Ok(response) => return Ok(Some(response)),
            Err(broken) => broken,
        };
        match (session.filter(|session| session.resumes()), answer.last_event_id()) {
            (Some(session), Some(last)) => {
                let (last, retry_ms) = (last.to_owned(), answer.retry_ms().unwrap_or(RETRY_MS));
                drop(answer);
                self.resume(session, request, last, retry_ms).await.map(Some)
            }
            (_, _) => Err(broken),
        }
    }

    /// Goes on with a request's stream after the last event that was seen (2025-11-25, transports, resumability).
    async fn resume(&self, session: &Opened, request: &Request, mut last: String, retry_ms: u64) -> Result<Response, Broken> {
        let mut patience = self.host.patience();
        let stream = stream_of(&last).to_owned();
        while patience.pause(&self.host, retry_ms).await {
            let mut fields = session.fields();
            fields.push(field("last-event-id", &*last));
            match self.host.open("GET", &fields, Bytes::new()).await {
                Ok(mut answer) if answer.status() == 200 && answer.is_events() => {
                    match self.relay(&mut answer, &request.id, Some(&stream)).await {
                        Err(Broken::Lost { why }) if answer.last_event_id().is_some_and(|now| stream_of(now) != stream) => {
                            return Err(Broken::Lost { why });
                        }
                        Err(Broken::Lost { .. }) => {
                            last = answer.last_event_id().map_or(last, str::to_owned);
                            patience = self.host.patience();
                        }
                        done => return done,
                    }
                }
                Ok(_) => break,
                Err(Broken::Away { .. } | Broken::Busy { .. } | Broken::Lost { .. }) => {}
                Err(refused @ Broken::Refused(_)) => return Err(refused),
            }
        }
        Err(ended())
    }
}

/// Returns the header fields of a request that stands alone (2026-07-28, streamable HTTP, request metadata).
fn modern(request: &Request, revision: &str) -> Vec<Field> {
    let mut fields = vec![field("mcp-protocol-version", revision), field("mcp-method", &*request.method)];
    fields.extend(request.mirrored_name().map(|name| field("mcp-name", header_value(name))));
    fields
}

/// Returns the stream of an event: the host's ids begin with `STREAM.NUMBER`.
fn stream_of(id: &str) -> &str {
    id.split_once('.').map_or(id, |(stream, _)| stream)
}
