//! Traces: spans as they end, sent to whoever collects them by OTLP over HTTP.
//!
//! Owns: what a span is while it runs, which ones are kept, the queue and the sending. Must not know: what is traced.
//!
//! **Invariants:** whoever is traced waits for nothing; what finds no room in the queue, or cannot be sent, is left out and counted.

mod otlp;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::config::TracesConfig;
use crate::ports::clock::System;
use crate::ports::fetch::{Fetch, FetchAnswer, FetchLimits, FetchRequest};
use crate::ports::metrics::{Family, Measured, Sample, Value as Figure};
use crate::ports::registry::PERMILLE;
use crate::service::spans::SPANS;

/// Spans that wait to be sent.
const QUEUE_MAX: usize = 8_192;
/// Spans sent at once.
const BATCH_MAX: usize = 512;
/// Milliseconds a span waits for others.
const GATHER_MS: u64 = 1_000;
/// Milliseconds between two tries to send, the first and the longest.
const RETRY_MS: [u64; 2] = [1_000, 30_000];
/// What sending one batch may cost.
const LIMITS: FetchLimits = FetchLimits { body_bytes_max: 4 << 10, limit_ms: 10_000 };
/// Bytes of a text that a span carries.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// A value of a span's attribute.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Whole(i64),
    Float(f64),
    Switch(bool),
}

/// Which part a span has in an exchange, by OTLP's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// A span, while it runs and as it ended.
#[derive(Debug, Clone, PartialEq)]
struct Running {
    trace: [u8; 16],
    id: [u8; 8],
    parent: Option<[u8; 8]>,
    is_kept: bool,
    name: Cow<'static, str>,
    kind: Kind,
    begun: Instant,
    begun_ns: u64,
    ended_ns: u64,
    failed: Option<String>,
    attributes: Vec<(&'static str, Value)>,
}

/// Counts what became of spans.
#[derive(Debug, Default)]
pub struct Tally {
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl Measured for Tally {
    fn families(&self) -> Vec<Family> {
        let sample = |(outcome, count): (&str, &AtomicU64)| Sample {
            labels: vec![("outcome", outcome.to_owned())],
            value: Figure::Counter(count.load(Ordering::Relaxed)),
        };
        let samples = [("sent", &self.sent), ("dropped", &self.dropped)].map(sample).to_vec();
        vec![Family { name: "pointsman_spans", help: "Spans of traces that were to be sent, and what became of them.", samples }]
    }
}

/// The layer that keeps spans.
pub(super) struct Tracing {
    queue: mpsc::Sender<Running>,
    tally: Arc<Tally>,
    system: Arc<dyn System>,
    share_permille: u16,
}

/// Sends what the layer kept.
pub struct Exporter {
    config: TracesConfig,
    queue: mpsc::Receiver<Running>,
    tally: Arc<Tally>,
}

/// Returns the layer, and who sends what it keeps.
pub(super) fn new(config: TracesConfig, system: Arc<dyn System>) -> (Tracing, Exporter) {
    let (sender, queue) = mpsc::channel(QUEUE_MAX);
    let tally = Arc::<Tally>::default();
    let layer = Tracing { queue: sender, tally: Arc::clone(&tally), system, share_permille: config.share_permille };
    (layer, Exporter { config, queue, tally })
}

/// Returns whether this is a span that may be kept.
pub(super) fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == SPANS
}

#[expect(clippy::disallowed_methods, reason = "collectors put the spans of several hosts on one clock, which is that of the wall")]
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What a caller says of the trace that its call belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remote {
    trace: [u8; 16],
    parent: [u8; 8],
    is_kept: bool,
}

impl Remote {
    /// Reads a `traceparent` (W3C Trace Context, section 3.2); none where it is not well-formed.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Later versions may say more, behind these.
        if version.len() != 2 || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let decode = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok();
        let (trace, parent, flags) = (decode(trace)?, decode(parent)?, decode(flags)?);
        decode(version)?;
        let (trace, parent): ([u8; 16], [u8; 8]) = (trace.try_into().ok()?, parent.try_into().ok()?);
        let known = trace != [0; 16] && parent != [0; 8] && flags.len() == 1;
        known.then(|| Self { trace, parent, is_kept: flags[0] & 1 == 1 })
    }
}

/// Takes the fields of a span in.
struct Taken<'a> {
    span: &'a mut Running,
    remote: Option<Remote>,
}

impl Taken<'_> {
    fn text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "otel.name" => self.span.name = Cow::Owned(shortened(text)),
            "otel.kind" => {
                self.span.kind = match text {
                    "server" => Kind::Server,
                    "client" => Kind::Client,
                    _ => Kind::Internal,
                }
            }
            "otel.status_description" => self.span.failed = Some(shortened(text)),
            "traceparent" => self.remote = Remote::parse(text),
            name => self.span.attributes.push((name, Value::Text(shortened(text)))),
        }
    }
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

impl Visit for Taken<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.span.attributes.push((field.name(), Value::Float(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.span.attributes.push((field.name(), Value::Whole(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.span.attributes.push((field.name(), Value::Whole(i64::try_from(value).unwrap_or(i64::MAX))));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.span.attributes.push((field.name(), Value::Switch(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}

impl Tracing {
    fn is_chosen(&self) -> bool {
        let mut random = [0; 4];
        self.share_permille >= PERMILLE || {
            self.system.random(&mut random);
            u32::from_le_bytes(random) % u32::from(PERMILLE) < u32::from(self.share_permille)
        }
    }
}

impl<S> Layer<S> for Tracing
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut random = [0; 24];
        self.system.random(&mut random);
        let (trace, own) = (random[..16].try_into().unwrap_or_default(), random[16..].try_into().unwrap_or_default());
        let mut running = Running {
            trace,
            id: own,
            parent: None,
            is_kept: true,
            name: Cow::Borrowed(span.name()),
            kind: Kind::Internal,
            begun: self.system.instant(),
            begun_ns: now_ns(),
            ended_ns: 0,
            failed: None,
            attributes: Vec::new(),
        };
        let mut taken = Taken { span: &mut running, remote: None };
        attributes.record(&mut taken);
        let remote = taken.remote;
        let above = span.parent().and_then(|parent| {
            let extensions = parent.extensions();
            extensions.get::<Running>().map(|above| (above.trace, above.id, above.is_kept))
        });
        match (above, remote) {
            (Some((trace, parent, is_kept)), _) => (running.trace, running.parent, running.is_kept) = (trace, Some(parent), is_kept),
            (None, Some(remote)) => {
                (running.trace, running.parent, running.is_kept) = (remote.trace, Some(remote.parent), remote.is_kept);
            }
            (None, None) => running.is_kept = self.is_chosen(),
        }
        span.extensions_mut().insert(running);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(running) = span.extensions_mut().get_mut::<Running>() {
            values.record(&mut Taken { span: running, remote: None });
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(mut running) = span.extensions_mut().remove::<Running>() else { return };
        if running.is_kept {
            let took = self.system.instant().saturating_duration_since(running.begun);
            running.ended_ns = running.begun_ns.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            if self.queue.try_send(running).is_err() {
                self.tally.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Exporter {
    /// Returns what counts the spans.
    #[must_use]
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Sends spans until `stop`, and then those that wait, once. `host` names this host to who collects them.
    pub async fn run(mut self, fetch: Arc<dyn Fetch>, host: String, stop: CancellationToken) {
        let resource = otlp::Resource { host };
        let (mut trouble, mut pause_ms): (Option<String>, u64) = (None, RETRY_MS[0]);
        let mut batch: VecDeque<Running> = VecDeque::new();
        loop {
            let is_last = self.gather(&mut batch, &stop).await;
            while !batch.is_empty() {
                let count = batch.len().min(BATCH_MAX);
                let came = self.send(fetch.as_ref(), &resource, &batch.make_contiguous()[..count]).await;
                match came {
                    Ok(()) => {
                        batch.drain(..count);
                        self.count(&self.tally.sent, count);
                        pause_ms = RETRY_MS[0];
                        if trouble.take().is_some() {
                            tracing::info!("traces are taken again");
                        }
                    }
                    Err(Unsent { why, may_retry }) => {
                        if trouble.as_ref() != Some(&why) {
                            tracing::warn!(why, "traces are not taken");
                            trouble = Some(why);
                        }
                        let given_up = match (is_last, may_retry) {
                            // There is no time for those behind it, either.
                            (true, _) => batch.len(),
                            (false, false) => count,
                            (false, true) => 0,
                        };
                        batch.drain(..given_up);
                        self.count(&self.tally.dropped, given_up);
                        break;
                    }
                }
            }
            if is_last {
                return;
            }
            if trouble.is_some() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
                }
                pause_ms = (pause_ms * 2).min(RETRY_MS[1]);
            }
        }
    }

    fn count(&self, counter: &AtomicU64, spans: usize) {
        counter.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Takes spans in until there are enough, or the first has waited long enough. Returns whether these are the last.
    async fn gather(&mut self, batch: &mut VecDeque<Running>, stop: &CancellationToken) -> bool {
        if batch.is_empty() {
            tokio::select! {
                () = stop.cancelled() => {}
                span = self.queue.recv() => batch.extend(span),
            }
        }
        let enough = tokio::time::sleep(Duration::from_millis(GATHER_MS));
        tokio::pin!(enough);
        while batch.len() < BATCH_MAX && !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = &mut enough => return false,
                span = self.queue.recv() => match span {
                    Some(span) => batch.push_back(span),
                    // Nobody is traced any more.
                    None => return true,
                },
            }
        }
        if stop.is_cancelled() {
            while let Ok(span) = self.queue.try_recv() {
                batch.push_back(span);
            }
        }
        stop.is_cancelled()
    }

    async fn send(&self, fetch: &dyn Fetch, resource: &otlp::Resource, spans: &[Running]) -> Result<(), Unsent> {
        let TracesConfig { url, headers, .. } = &self.config;
        let mut headers = headers.clone();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        let body = otlp::request(resource, spans);
        let request = FetchRequest { method: "POST".to_owned(), url: url.clone(), headers, body };
        match fetch.fetch(&request, LIMITS).await {
            Ok(FetchAnswer { status: 200..=299, .. }) => Ok(()),
            // What may be tried again says the protocol's specification, "Retryable Response Codes".
            Ok(FetchAnswer { status, body }) => {
                let said: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
                Err(Unsent { why: format!("{url} answers {status}: {said}"), may_retry: matches!(status, 429 | 502 | 503 | 504) })
            }
            Err(error) => Err(Unsent { why: error.to_string(), may_retry: true }),
        }
    }
}

/// Why spans are not sent.
struct Unsent {
    why: String,
    may_retry: bool,
}

#[cfg(test)]
mod tests;
