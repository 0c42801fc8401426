//! Spans: what calls what, and how long it takes, for whoever collects traces. While nobody does, one costs a look at a switch.
//!
//! Their names and fields follow OpenTelemetry's conventions where there are any; `otel.…` fields say what a span itself is.

use tracing::Span;
use tracing::field::Empty;

use crate::ports::plugins::PluginFailure;

/// The target of all spans, by which they are told from what is logged.
pub const SPANS: &str = "pointsman::spans";

/// Notes that the call under way was refused. Its span has a field for that.
pub(super) fn refused(code: &'static str) {
    Span::current().record("error.type", code);
}

/// Returns the span of a call of a plugin.
pub(super) fn of_plugin(plugin: &str, asked: &'static str) -> Span {
    tracing::trace_span!(
        target: SPANS,
        "plugin",
        otel.name = asked,
        pointsman.plugin = plugin,
        pointsman.trace = super::trace::current().as_deref(),
        pointsman.outcome = Empty,
        otel.status_description = Empty,
    )
}

/// Notes in a span how a call of a plugin ended.
pub(super) fn ended<R>(span: &Span, outcome: Result<&R, &PluginFailure>) {
    if span.is_disabled() {
        return;
    }
    let word = match outcome {
        Ok(_) => "answered",
        Err(failure) => {
            span.record("otel.status_description", tracing::field::display(failure));
            failure.word()
        }
    };
    span.record("pointsman.outcome", word);
}
