use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value as Json;
use tracing::field::Empty;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::ports::fetch::{FetchError, FetchUrl};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Other numbers at each call.
#[derive(Default)]
struct Counting(AtomicU64);

impl System for Counting {
    fn random(&self, bytes: &mut [u8]) {
        let mut filled = blake3::Hasher::new().update(&self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes()).finalize_xof();
        filled.fill(bytes);
    }

    #[expect(clippy::disallowed_methods, reason = "it stands for the clock adapter")]
    fn instant(&self) -> std::time::Instant {
        std::time::Instant::now()
    }
}

/// Takes batches, after failing as it was told.
#[derive(Default)]
struct Collector {
    fails: Mutex<Vec<u16>>,
    took: Mutex<Vec<Json>>,
}

#[async_trait]
impl Fetch for Collector {
    async fn fetch(&self, request: &FetchRequest, _: FetchLimits) -> Result<FetchAnswer, FetchError> {
        if let Some(status) = self.fails.lock().pop() {
            return Ok(FetchAnswer { status, body: b"not now".to_vec() });
        }
        assert_eq!((request.method.as_str(), request.url.path.as_str()), ("POST", "/v1/traces"));
        self.took.lock().push(serde_json::from_slice(&request.body).expect("JSON"));
        Ok(FetchAnswer { status: 200, body: Vec::new() })
    }
}

impl Collector {
    /// Returns all spans by name.
    fn spans(&self) -> BTreeMap<String, Json> {
        let took = self.took.lock();
        let of = |batch: &Json| batch["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned().unwrap_or_default();
        took.iter().flat_map(of).map(|span| (span["name"].as_str().unwrap_or_default().to_owned(), span)).collect()
    }
}

/// Acts within the layer, then sends all it kept.
async fn traced(share_permille: u16, fails: &[u16], act: impl FnOnce()) -> (Arc<Collector>, Arc<Tally>) {
    let url = FetchUrl::parse("http://127.0.0.1:4318/v1/traces").expect("a URL");
    let (layer, exporter) = new(TracesConfig { url, headers: Vec::new(), share_permille }, Arc::new(Counting::default()));
    let tally = exporter.tally();
    // It stays, as in a host, until all is sent: else what is sent last is not tried twice.
    let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(layer.with_filter(filter_fn(is_traced))));
    tracing::dispatcher::with_default(&dispatch, act);
    let collector = Arc::new(Collector { fails: Mutex::new(fails.to_vec()), ..Collector::default() });
    let stop = CancellationToken::new();
    let run = exporter.run(Arc::clone(&collector) as Arc<dyn Fetch>, "here".to_owned(), stop.clone());
    let over = async {
        while tally.sent.load(Ordering::Relaxed) + tally.dropped.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
    };
    tokio::join!(run, over);
    drop(dispatch);
    (collector, tally)
}

fn attribute<'a>(span: &'a Json, key: &str) -> &'a Json {
    let all = span["attributes"].as_array().expect("attributes");
    all.iter().find(|one| one["key"] == key).map_or(&Json::Null, |one| &one["value"])
}

#[tokio::test]
async fn a_call_and_what_it_calls_are_one_trace() {
    let (collector, tally) = traced(1_000, &[], || {
        let outer = tracing::trace_span!(target: SPANS, "mcp", otel.kind = "server", traceparent = CALLER, tries = 2, ok = true);
        outer.in_scope(|| {
            let inner =
                tracing::trace_span!(target: SPANS, "plugin", otel.name = "route", outcome = Empty, otel.status_description = Empty);
            inner.record("outcome", "trapped");
            inner.record("otel.status_description", "it trapped");
            drop(tracing::info_span!("not ours"));
        });
    })
    .await;
    let spans = collector.spans();
    assert_eq!(spans.keys().collect::<Vec<_>>(), ["mcp", "route"]);
    let (outer, inner) = (&spans["mcp"], &spans["route"]);
    assert_eq!((&outer["traceId"], &outer["parentSpanId"]), (&"0af7651916cd43dd8448eb211c80319c".into(), &"b7ad6b7169203331".into()));
    assert_eq!((&inner["traceId"], &inner["parentSpanId"]), (&outer["traceId"], &outer["spanId"]));
    assert_eq!((&outer["kind"], &inner["kind"]), (&2.into(), &1.into()));
    assert_eq!(attribute(outer, "tries")["intValue"], "2");
    assert_eq!(attribute(outer, "ok")["boolValue"], true);
    assert_eq!(attribute(inner, "outcome")["stringValue"], "trapped");
    assert_eq!((&inner["status"]["code"], &inner["status"]["message"]), (&2.into(), &"it trapped".into()));
    assert!(outer["status"]["code"].is_null() && attribute(outer, "traceparent").is_null());
    let ns = |span: &Json, key: &str| span[key].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a time");
    assert!(ns(outer, "startTimeUnixNano") <= ns(inner, "startTimeUnixNano"));
    assert!(ns(inner, "endTimeUnixNano") <= ns(outer, "endTimeUnixNano"));
    assert_eq!(tally.sent.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_a_caller_does_not_keep_is_not_kept_here() {
    let (collector, _) = traced(0, &[], || {
        let unkept = CALLER.replace("-01", "-00");
        let outer = tracing::trace_span!(target: SPANS, "unkept", traceparent = unkept);
        outer.in_scope(|| drop(tracing::trace_span!(target: SPANS, "within")));
        drop(tracing::trace_span!(target: SPANS, "not chosen", traceparent = "nonsense"));
        drop(tracing::trace_span!(target: SPANS, "kept", traceparent = CALLER));
    })
    .await;
    assert_eq!(collector.spans().keys().collect::<Vec<_>>(), ["kept"]);
}

#[tokio::test]
async fn what_is_not_taken_is_tried_again_or_counted() {
    let act = || drop(tracing::trace_span!(target: SPANS, "one"));
    let (collector, tally) = traced(1_000, &[503, 429], act).await;
    assert_eq!((collector.spans().len(), tally.sent.load(Ordering::Relaxed)), (1, 1), "it came at the third try");
    let (collector, tally) = traced(1_000, &[400], act).await;
    assert_eq!((collector.spans().len(), tally.dropped.load(Ordering::Relaxed)), (0, 1), "nobody will ever take it");
}

#[test]
fn only_well_formed_parents_are_taken() {
    assert!(Remote::parse(CALLER).is_some_and(|remote| remote.is_kept));
    assert!(Remote::parse(&CALLER.replace("-01", "-00")).is_some_and(|remote| !remote.is_kept));
    assert!(Remote::parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later").is_some(), "a later version");
    for bad in [
        "",
        "00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-",
    ] {
        assert_eq!(Remote::parse(bad), None, "{bad}");
    }
}
