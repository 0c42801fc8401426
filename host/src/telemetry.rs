//! The log: text for people on a terminal, JSON lines for machines, both on standard error; and traces, where somebody collects them.
//!
//! Owns: the form of a line. Must not know: what is logged.
//!
//! **Invariant:** a JSON line carries the fields of every span around it, flat, so that `project`, `task` or `trace` can
//! be searched for without knowing where they were set; the innermost of equal names wins.

mod traces;

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{ParseError, Targets, filter_fn};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub use self::traces::{Exporter, Tally};
use crate::config::{LogConfig, LogFormat, TracesConfig};
use crate::ports::clock::System;
use crate::service::kit::chain;

/// Why there is no log.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The level is not one.
    #[error("`log.level` is not a list of levels")]
    Level(#[from] ParseError),
    /// A log was set up before in this process.
    #[error("the log is set up already")]
    Twice(#[from] TryInitError),
}

/// Sets up the process's log, and its traces: whoever sends them has to be run.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(config: &LogConfig, traces: Option<TracesConfig>, system: Arc<dyn System>) -> Result<Option<Exporter>, TelemetryError> {
    let (tracing, exporter) = traces.map(|config| traces::new(config, system)).unzip();
    let all = tracing_subscriber::registry().with(tracing.map(|layer| layer.with_filter(filter_fn(traces::is_traced))));
    let levels: Targets = config.level.parse()?;
    let to_terminal = stderr().is_terminal();
    let as_json = match config.format {
        LogFormat::Auto => !to_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    if as_json {
        all.with(json(stderr).with_filter(levels)).try_init()?;
        return Ok(exporter);
    }
    let text = tracing_subscriber::fmt::layer().with_writer(stderr);
    // On a terminal the layer's own default stands: colour, unless NO_COLOR is set.
    let text = if to_terminal { text } else { text.with_ansi(false) };
    all.with(text.with_filter(levels)).try_init()?;
    Ok(exporter)
}

/// Returns a layer that writes JSON lines.
fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer).fmt_fields(JsonFields::new()).event_format(JsonLines)
}

struct JsonLines;

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(&self, context: &FmtContext<'_, S, JsonFields>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        let mut spans = Vec::new();
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            spans.push(span.name());
            let extensions = span.extensions();
            let formatted = extensions.get::<FormattedFields<JsonFields>>();
            if let Some(Ok(Value::Object(of_span))) = formatted.map(|formatted| serde_json::from_str(&formatted.fields)) {
                fields.0.extend(of_span);
            }
        }
        event.record(&mut fields);
        let mut fields = fields.0;
        let message = fields.remove("message").unwrap_or_else(|| Value::String(String::new()));
        for reserved in ["at", "level", "target", "spans"] {
            if let Some(value) = fields.remove(reserved) {
                fields.insert(format!("{reserved}_"), value);
            }
        }
        let mut at = String::new();
        SystemTime.format_time(&mut Writer::new(&mut at))?;
        let metadata = event.metadata();
        let level = metadata.level().as_str().to_ascii_lowercase();
        write!(writer, r#"{{"at":"{at}","level":"{level}","target":{},"message":{message}"#, Value::from(metadata.target()))?;
        if !spans.is_empty() {
            write!(writer, r#","spans":{}"#, Value::from(spans.join(":")))?;
        }
        for (name, value) in fields {
            write!(writer, ",{}:{value}", Value::from(name))?;
        }
        writer.write_str("}\n")
    }
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Value::from(value));
    }

    /// The whole chain: each layer's error states its own failure only.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field, Value::from(chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, Value::from(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(act: impl FnOnce()) -> Vec<Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(json(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, act);
        let bytes = lines.0.lock().clone();
        let text = String::from_utf8(bytes).expect("the log is UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
    }

    #[test]
    fn the_fields_of_all_spans_are_flat_and_the_innermost_wins() {
        let lines = logged(|| {
            let outer = tracing::info_span!("call", trace = "t1", task = "T-1", level = 3).entered();
            let inner = tracing::info_span!("merge", task = "T-2").entered();
            tracing::warn!(tries = 2, ok = true, "said \"no\"\nloudly");
            drop((inner, outer));
        });
        assert_eq!(lines.len(), 1);
        let mut line = lines[0].clone();
        let at = line["at"].take();
        assert!(at.as_str().is_some_and(|at| at.ends_with('Z')), "{at} is UTC");
        insta::assert_snapshot!(line, @r#"{"at":null,"level":"warn","level_":3,"message":"said \"no\"\nloudly","ok":true,"spans":"call:merge","target":"pointsman::telemetry::tests","task":"T-2","trace":"t1","tries":2}"#);
    }

    #[test]
    fn an_error_brings_its_causes() {
        #[derive(Debug, Error)]
        #[error("the host cannot start")]
        struct Outer(#[source] io::Error);

        let lines = logged(|| {
            let error = Outer(io::Error::other("disk full"));
            tracing::error!(error = &error as &(dyn std::error::Error + 'static), "stopped");
        });
        assert_eq!(lines[0]["error"], "the host cannot start: disk full");
    }
}
