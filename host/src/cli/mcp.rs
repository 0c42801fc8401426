//! `pointsman mcp`: the host for clients that start their servers as a process (stdio) instead of calling an address.
//!
//! Owns: standard input and output as MCP messages, which request goes where, what is under way. It knows the host by HTTP only, as
//! any client does; both families of revisions pass through at once.
//!
//! **Invariants:** standard output carries MCP messages and nothing else; a request is answered once, or not at all when the client
//! cancelled it; lines, requests under way and patience are bounded; the program ends with its input, after what is under way.

mod batch;
mod complaint;
#[cfg(test)]
mod fixture;
mod host;
mod lines;
mod listen;
mod message;
mod relay;
mod session;
mod tools;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;
use pointsman_client::{Client, Era, TransportError};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::complaint::Complaint;
use self::host::{Broken, Host, note};
use self::lines::{LINE_BYTES_MAX, Line, Output};
use self::message::{Kind, Message, Request};
use self::session::{Opened, Session};
use self::tools::Tools;
use super::Trouble;
use super::connect::EndpointArgs;
use crate::config::{Environment, TOKEN_VARIABLE};

/// Requests that are under way at once, those that wait for long among them.
const REQUESTS_MAX: usize = 256;
/// Notifications and answers that wait to be sent, in their order.
const NOTICES_MAX: usize = 256;
/// Milliseconds that what is under way may take once the input ended: the longest wait there is.
const DRAIN_MS: u64 = 70_000;
/// Milliseconds for telling the host that a session ended.
const GOODBYE_MS: u64 = 1_000;

const EXAMPLES: &str = "\
Examples:
  pointsman mcp                                 the host of this configuration
  pointsman mcp --url http://build.lan:7420 --project web
  pointsman connect cursor --stdio              print the entry that lets a client start it

The token is taken from the variable POINTSMAN_TOKEN. Messages come and go by standard input and
output, one a line; everything else is told on standard error. A host that restarts is waited for.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct McpArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Token [default: the variable POINTSMAN_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

pub(super) fn run(environment: &Environment, args: &McpArgs) -> Result<ExitCode, Trouble> {
    let url = args.endpoint.resolve(environment)?;
    let token = args.token.as_deref().or_else(|| environment.get(TOKEN_VARIABLE)).unwrap_or_default().trim();
    let unusable = unusable(token);
    let sent = if unusable.is_some() { "" } else { token };
    let client = Client::new(&url, sent, Era::Modern).map_err(|error| {
        let advice =
            "the bridge speaks plain http; for a host behind TLS let the client call it: `pointsman connect CLIENT` prints the entry";
        if let TransportError::BadRequest { why } = &error { Trouble::misused(why, advice) } else { Trouble::caused(&error) }
    })?;
    let (output, writer) = Output::to(std::io::stdout());
    let bridge = Bridge::new(Host::new(client, url, !token.is_empty()), output, unusable);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lines = lines::read(std::io::stdin(), LINE_BYTES_MAX);
    runtime.block_on(Arc::new(bridge).run(lines));
    // With the tasks goes the last way to the writer, which ends when all is written.
    drop(runtime);
    match writer.join() {
        Ok(written) => written.map(|()| ExitCode::SUCCESS).map_err(|error| Trouble::failed(format!("standard output: {error}"))),
        Err(_) => Err(Trouble::failed("standard output: its thread ended early")),
    }
}

/// Returns why a token cannot be the one that `pointsman agent add` printed.
pub(super) fn unusable(token: &str) -> Option<&'static str> {
    if token.contains("${") || token.contains("{env:") || token.starts_with('$') {
        return Some("it is the name of a variable, which the client did not replace by its value");
    }
    token.bytes().any(|byte| !byte.is_ascii_graphic()).then_some("it has characters that no token has")
}

struct UnderWay {
    cancelled: CancellationToken,
    is_in_session: bool,
}

/// What passes messages between a client and the host.
struct Bridge {
    host: Host,
    output: Output,
    session: Session,
    tools: Tools,
    /// Why nothing can be asked at all.
    unusable: Option<&'static str>,
    under_way: Mutex<HashMap<String, UnderWay>>,
    permits: Arc<Semaphore>,
}

impl Bridge {
    fn new(host: Host, output: Output, unusable: Option<&'static str>) -> Self {
        let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
        let (session, tools) = (Session::default(), Tools::default());
        Self { host, output, session, tools, unusable, under_way: Mutex::default(), permits }
    }

    /// Passes messages on until the input ends and what is under way is answered, or nobody reads the output.
    async fn run(self: Arc<Self>, mut lines: mpsc::Receiver<Line>) {
        let mut requests = JoinSet::new();
        let mut streams = JoinSet::new();
        let (notices, queue) = mpsc::channel(NOTICES_MAX);
        streams.spawn(Arc::clone(&self).listen_always());
        let telling = tokio::spawn(Arc::clone(&self).tell(queue));
        loop {
            tokio::select! {
                biased;
                () = self.output.closed() => return,
                Some(_) = requests.join_next() => {}
                line = lines.recv() => match line {
                    Some(line) => self.take(line, &mut requests, &notices).await,
                    None => break,
                },
            }
        }
        self.host.closing.cancel();
        drop(notices);
        let drained = async {
            while requests.join_next().await.is_some() {}
            drop(telling.await);
        };
        let drained = tokio::time::timeout(Duration::from_millis(DRAIN_MS), drained);
        tokio::select! {
            _ = drained => {}
            () = self.output.closed() => {}
        }
        drop(tokio::time::timeout(Duration::from_millis(GOODBYE_MS), self.end_session()).await);
    }

    async fn listen_always(self: Arc<Self>) {
        self.keep_listening().await;
    }

    /// Takes a line of the client.
    async fn take(self: &Arc<Self>, line: Line, requests: &mut JoinSet<()>, notices: &mpsc::Sender<Message>) {
        let read = match line {
            Line::Whole(line) => Message::read(line).map_err(|why| Complaint::NotAMessage { why }),
            Line::TooLong => Err(Complaint::TooLong { bytes_max: LINE_BYTES_MAX }),
        };
        let message = match read {
            Ok(message) => message,
            Err(complaint) => {
                note(&complaint.to_string());
                return self.output.write(complaint.line(None)).await;
            }
        };
        match message.kind.clone() {
            Kind::Request { id, method } => self.ask(Request { id, method, message }, requests).await,
            Kind::Notification { method } if method == "notifications/cancelled" => {
                if self.cancel(&message) {
                    drop(notices.send(message).await);
                }
            }
            // What stands alone has nothing to tell the host besides that (2026-07-28, streamable HTTP, sending messages).
            Kind::Notification { .. } if message.params.revision.is_some() => {}
            Kind::Batch { ids } if !ids.is_empty() => self.ask_all(ids, message, requests).await,
            Kind::Notification { .. } | Kind::Response | Kind::Batch { .. } => drop(notices.send(message).await),
        }
    }

    /// Starts a request.
    async fn ask(self: &Arc<Self>, request: Request, requests: &mut JoinSet<()>) {
        if let Some(why) = self.unusable {
            return self.output.write(Complaint::TokenUnusable { why }.line(Some(&request.id))).await;
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return self.output.write(Complaint::TooMany { max: REQUESTS_MAX }.line(Some(&request.id))).await;
        };
        let cancelled = CancellationToken::new();
        let is_in_session = request.message.params.revision.is_none();
        self.under_way.lock().insert(request.id.clone(), UnderWay { cancelled: cancelled.clone(), is_in_session });
        let bridge = Arc::clone(self);
        requests.spawn(async move {
            let answered = tokio::select! {
                biased;
                // Dropping the exchange closes its connection, which is how 2026-07-28 cancels over HTTP.
                () = cancelled.cancelled() => None,
                answered = bridge.answer(&request) => answered,
            };
            bridge.under_way.lock().remove(&request.id);
            drop(permit);
            if let Some(line) = answered {
                bridge.output.write(line).await;
            }
        });
    }

    /// Cancels a request; returns whether the host is to be told, as sessions have it. There it may be one of a batch.
    fn cancel(&self, message: &Message) -> bool {
        let id = message.params.cancelled.as_deref().unwrap_or_default();
        let Some(request) = self.under_way.lock().remove(id) else {
            return message.params.revision.is_none() && self.session.current().is_some();
        };
        request.cancelled.cancel();
        request.is_in_session
    }

    /// Sends notifications and answers of a session in their order.
    async fn tell(self: Arc<Self>, mut queue: mpsc::Receiver<Message>) {
        while let Some(message) = queue.recv().await {
            let mut patience = self.host.patience();
            loop {
                let Err(broken) = self.tell_once(&message).await else { break };
                let after_ms = match &broken {
                    Broken::Busy { after_ms, .. } => *after_ms,
                    // What a session is told twice it takes once.
                    Broken::Away { .. } | Broken::Lost { .. } => 0,
                    Broken::Refused(_) => u64::MAX,
                };
                if after_ms == u64::MAX || !patience.pause(&self.host, after_ms).await {
                    note(&format!("a message could not be passed on: {}", self.host.complaint(broken)));
                    break;
                }
            }
        }
    }

    async fn tell_once(&self, message: &Message) -> Result<(), Broken> {
        let mut session = self.session.current();
        loop {
            let fields = session.as_ref().map(Opened::fields).unwrap_or_default();
            let answer = self.host.open("POST", &fields, message.line.clone()).await?;
            match (answer.status(), &session) {
                (404, Some(dead)) => {
                    let opened = self.reopen(dead).await?;
                    if message.kind == Kind::Response {
                        // Who asked is gone with the session.
                        return Ok(());
                    }
                    session = Some(opened);
                }
                (status, _) => {
                    drop(answer);
                    if status >= 300 {
                        note(&format!("the host refused a message with HTTP {status}"));
                    }
                    let is_initialized = matches!(&message.kind, Kind::Notification { method } if method == "notifications/initialized");
                    if let Some(session) = session.filter(|_| is_initialized && status < 300) {
                        self.session.is_ready(session.generation);
                    }
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_was_not_replaced_is_named() {
        for wrong in ["${POINTSMAN_TOKEN}", "$POINTSMAN_TOKEN", "{env:POINTSMAN_TOKEN}", "a b", "ä"] {
            assert!(unusable(wrong).is_some(), "{wrong}");
        }
        assert!(unusable("ptm_abc-DEF.123").is_none() && unusable("").is_none());
    }
}
